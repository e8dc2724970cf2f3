//! A cache in one's own process: the node's engine without a node, as easy as a map.
//!
//! ```
//! use std::time::Duration;
//!
//! use larder::local::LocalCache;
//!
//! let cache = LocalCache::builder().memory(64 << 20).default_ttl(Duration::from_secs(60)).build();
//! cache.set("colour", "green")?;
//! assert_eq!(cache.get("colour").as_deref(), Some(&b"green"[..]));
//! assert_eq!(cache.increment("visits", 1)?, 1);
//!
//! // However many threads miss at once, one of them loads.
//! let page = cache.get_or_insert_with("page:1", || "<html>…</html>");
//! assert_eq!(page, "<html>…</html>");
//! # Ok::<(), larder::client::ClientError>(())
//! ```
//!
//! ```text
//!  LocalCache: mod.rs (the everyday methods), calls.rs, keyspace.rs (with all options), as_cache.rs (the client's trait)
//!    │
//!    ├─ crate::request   checks arguments as a node checks messages, and refuses alike
//!    ├─ loads.rs         one load per key
//!    └─ shared.rs        engine, clock, and the thread that reclaims what has expired
//! ```
//!
//! Behind [`Cache`](crate::client::Cache) it takes the place of a [`Client`](crate::Client), in a program that needs no node yet
//! and in tests of one that does: outcomes, codes, reasons and limits are those of a node without a disk.
//!
//! Invariants: a method that is written on [`LocalCache`] is done when it returns, waits for no network or disk, and needs no
//! runtime; the futures of the trait are ready when they are first polled, and do nothing before.
//!
//! It builds by the feature `local`, with the client and without everything that makes a node.

mod as_cache;
mod builder;
mod calls;
mod keyspace;
mod loads;
mod shared;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use builder::LocalCacheBuilder;

use crate::client::{ClientError, CounterOptions, DeleteOptions, Refusal, SetCondition, SetOptions};
use crate::engine::{Engine, Namespace, NamespaceConfig, Stats};
use crate::entry::NAMESPACE_BYTES_MAX;
use crate::grpc::Failure;
use crate::quote::Quote;
use crate::request::{CallError, convert};
use loads::Turn;
use shared::Shared;

/// A cache in this process. A clone is cheap and is the same cache.
///
/// What has expired is reclaimed by a thread that looks ten times a second and ends with the last clone, and a little by each
/// operation; it is never found, reclaimed or not.
///
/// The methods of the same names on [`Cache`](crate::client::Cache) are futures with the client's outcomes:
/// `Cache::get(&cache, "key").await`, or `cache.get("key").await` where the cache is an `impl Cache`.
#[derive(Debug, Clone)]
pub struct LocalCache {
    shared: Arc<Shared>,
    namespace: NamespaceInUse,
}

/// The namespace that a handle's operations are done in.
#[derive(Debug, Clone)]
enum NamespaceInUse {
    Default,
    Found(Namespace),
    /// There was none of this name when the handle was made.
    Missing(Arc<str>),
}

impl LocalCache {
    /// The way to a cache; see [`LocalCacheBuilder`] for the defaults.
    pub fn builder() -> LocalCacheBuilder {
        LocalCacheBuilder::new()
    }

    fn over(shared: Shared) -> Self {
        Self { shared: Arc::new(shared), namespace: NamespaceInUse::Default }
    }

    /// The value of a key. A key that no entry can have has none: [`Self::look_up`] says why.
    #[must_use]
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<Bytes> {
        let key = self.key(key.as_ref()).ok()?;
        let namespace = self.namespace_in_use().ok()?;
        let shared = &*self.shared;
        let copy = |entry: crate::engine::EntryView<'_>| entry.value.to_bytes();
        shared.engine.read(&namespace, key, None, shared.now(), copy).ok()
    }

    /// Stores a value, for the default time to live, in place of what was there.
    ///
    /// # Errors
    /// [`ClientError::Status`] as a node answers: a key or a value is too long, or the entry fits no shard.
    pub fn set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), ClientError> {
        self.set_with(key, value, &SetOptions::default()).map(drop)
    }

    /// Stores a value for this long, zero being for ever.
    ///
    /// # Errors
    /// See [`Self::set`].
    pub fn set_for(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<(), ClientError> {
        let expiration = crate::client::SetExpiration::After(ttl);
        self.set_with(key, value, &SetOptions { expiration, ..SetOptions::default() }).map(drop)
    }

    /// Removes an entry; whether there was one. A key that no entry can have has none.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> bool {
        self.delete_with(key, &DeleteOptions::default()).is_ok_and(|deletion| deletion.deleted)
    }

    /// Adds to a counter, which begins at 0 and lives for the default time to live; what it is then. Delta 0 counts as 1, as
    /// with a node.
    ///
    /// # Errors
    /// [`ClientError::Status`]: `FAILED_PRECONDITION` where the value is no integer, `OUT_OF_RANGE` where the sum leaves i64.
    pub fn increment(&self, key: impl AsRef<[u8]>, delta: i64) -> Result<i64, ClientError> {
        self.increment_with(key, delta, &CounterOptions::default()).map(|counter| counter.value)
    }

    /// The value of a key; where there is none, what `load` returns, which is stored for the default time to live. Of the threads
    /// that find nothing at the same time one calls its `load`, and the others wait for it, blocking; if it panics, another
    /// takes its place.
    ///
    /// What is set meanwhile stays, and what cannot be stored, as it is too long, is returned all the same. A `load` that asks for
    /// the key that it loads calls its own `load` for it.
    pub fn get_or_insert_with<V: Into<Bytes>>(
        &self,
        key: impl AsRef<[u8]>,
        load: impl FnOnce() -> V,
    ) -> Bytes {
        let loaded = self.try_get_or_insert_with(key, || Ok::<V, std::convert::Infallible>(load()));
        match loaded {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// As [`Self::get_or_insert_with`], with a `load` that may fail: then nothing is stored, and another of those that wait calls
    /// its own.
    ///
    /// # Errors
    /// What this caller's `load` returned.
    pub fn try_get_or_insert_with<V: Into<Bytes>, E>(
        &self,
        key: impl AsRef<[u8]>,
        load: impl FnOnce() -> Result<V, E>,
    ) -> Result<Bytes, E> {
        let (key, loads) = (key.as_ref(), &self.shared.loads);
        loop {
            let ended = loads.ended();
            if let Some(value) = self.get(key) {
                return Ok(value);
            }
            match loads.turn(self.namespace(), key) {
                Turn::Load(guard) => {
                    // One that ended between the look and this turn has stored it.
                    let stored = if loads.ended() == ended { None } else { self.get(key) };
                    if let Some(value) = stored {
                        guard.loaded(value.clone());
                        return Ok(value);
                    }
                    let value: Bytes = load()?.into();
                    let options = SetOptions { condition: SetCondition::IfAbsent, ..SetOptions::default() };
                    // A value that cannot be stored is a value all the same.
                    let _ = self.set_with(key, &value, &options);
                    guard.loaded(value.clone());
                    return Ok(value);
                }
                Turn::Loaded(value) => return Ok(value),
                Turn::WithinItself => return load().map(Into::into),
                Turn::TryAgain => {}
            }
        }
    }

    /// Removes every entry of the namespace; how many there were.
    pub fn clear(&self) -> u64 {
        let shared = &*self.shared;
        self.namespace_in_use().map_or(0, |namespace| shared.engine.clear(&namespace, shared.now()))
    }

    /// Counters and gauges of now, over all namespaces.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.engine.stats()
    }

    /// The engine, for what is asked seldom: another policy, another limit, the hottest keys.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// The same cache, whose operations are done in this namespace; "" is the default one. If there is none of that name they are
    /// refused, as by a node.
    #[must_use]
    pub fn with_namespace(&self, name: &str) -> Self {
        let namespace = match self.shared.engine.namespace(name) {
            _ if name.is_empty() => NamespaceInUse::Default,
            Some(found) => NamespaceInUse::Found(found),
            None => NamespaceInUse::Missing(name.into()),
        };
        Self { shared: Arc::clone(&self.shared), namespace }
    }

    /// Creates a namespace, with a cap, a policy and a default time to live of its own; the cache whose operations are done in it.
    ///
    /// # Errors
    /// [`ClientError::Status`]: the name is taken, has not 1 B to 255 B or has a control character; the time to live is too long;
    /// or there are 1,024 namespaces.
    pub fn create_namespace(&self, config: &NamespaceConfig) -> Result<Self, ClientError> {
        let created = || {
            convert::namespace_name(&config.name, "namespace.name")?;
            let ttls = [
                ("namespace.default_ttl_ms", config.default_ttl.to_wire_ms()),
                ("namespace.near_cache_ttl_ms", config.near_cache_ttl_ms),
            ];
            for (field, ttl_ms) in ttls {
                convert::ttl(field, ttl_ms, self.shared.limits.ttl_ms_max)?;
            }
            Ok(self.shared.engine.create_namespace(config)?)
        };
        let namespace = NamespaceInUse::Found(created().map_err(refused)?);
        Ok(Self { shared: Arc::clone(&self.shared), namespace })
    }

    /// The namespace that every operation is done in.
    #[must_use]
    pub fn namespace(&self) -> &str {
        match &self.namespace {
            NamespaceInUse::Default => "",
            NamespaceInUse::Found(namespace) => namespace.name(),
            NamespaceInUse::Missing(name) => name,
        }
    }

    #[inline]
    fn namespace_in_use(&self) -> Result<Cow<'_, Namespace>, CallError> {
        match &self.namespace {
            NamespaceInUse::Default => Ok(Cow::Borrowed(self.shared.engine.default_namespace())),
            NamespaceInUse::Found(namespace) => Ok(Cow::Borrowed(namespace)),
            // It may be there by now.
            NamespaceInUse::Missing(name) => {
                let is_name = name.len() <= NAMESPACE_BYTES_MAX;
                let found = if is_name { self.shared.engine.namespace(name) } else { None };
                let missing = || CallError::NamespaceNotFound { name: Quote::of(&**name) };
                found.map(Cow::Owned).ok_or_else(missing)
            }
        }
    }

    #[inline]
    fn key<'k>(&self, key: &'k [u8]) -> Result<&'k [u8], CallError> {
        convert::key(key, &self.shared.limits, || "key".to_owned())
    }
}

/// A refusal as the client gives a node's.
#[cold]
fn refused(error: CallError) -> ClientError {
    ClientError::Status(Box::new(refusal(&error)))
}

fn refusal(error: &CallError) -> Refusal {
    Refusal::new(URL.to_owned(), error.to_status())
}

/// What stands for a node's URL in errors.
const URL: &str = "the cache in this process";

#[cfg(test)]
mod tests;
