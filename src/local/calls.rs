//! Operations on one key, with all their options and outcomes: what a message says to a node is said by arguments here.

use std::time::Duration;

use bytes::Bytes;

use super::{LocalCache, refused};
use crate::client::{
    ClientError, Counter, CounterOptions, DeleteOptions, Deletion, GetOutcome, Hit, NotStored, SetCondition,
    SetExpiration, SetOptions, SetOutcome, Tier, remaining_ttl, wire_ms,
};
use crate::engine::{EntryView, Namespace, Op, Outcome};
use crate::entry::{Durability, Version};
use crate::request::CallError;
use crate::request::convert::{self, Direction, unexpected};
use crate::request::view::{ConditionView, DeleteView, ExpirationView, IncrementView, SetView, TouchView};

type Done<T> = Result<T, CallError>;

impl LocalCache {
    /// Looks a key up: the entry with everything that is known of it, or why there is none.
    ///
    /// # Errors
    /// [`ClientError::Status`] as a node answers: the key is empty or too long, or there is no such namespace.
    #[inline]
    pub fn look_up(&self, key: impl AsRef<[u8]>) -> Result<GetOutcome, ClientError> {
        self.read(key.as_ref(), Wanted::Entry).map_err(refused)
    }

    /// Looks a key up without its value: what comes has `value_bytes` and everything else.
    ///
    /// # Errors
    /// See [`Self::look_up`].
    pub fn metadata(&self, key: impl AsRef<[u8]>) -> Result<GetOutcome, ClientError> {
        self.read(key.as_ref(), Wanted::Metadata).map_err(refused)
    }

    /// Stores an entry, with an expiration, a condition and everything else that options can say.
    ///
    /// # Errors
    /// [`ClientError::Status`] as a node answers: what is too long, or a time to live too far; `FLUSHED`, as there is no disk.
    pub fn set_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: &SetOptions,
    ) -> Result<SetOutcome, ClientError> {
        self.store(key.as_ref(), value.as_ref(), options).map_err(refused)
    }

    /// Removes an entry, of a given version where one is named.
    ///
    /// # Errors
    /// See [`Self::look_up`].
    pub fn delete_with(
        &self,
        key: impl AsRef<[u8]>,
        options: &DeleteOptions,
    ) -> Result<Deletion, ClientError> {
        self.remove(key.as_ref(), options).map_err(refused)
    }

    /// Adds to a counter, with an initial value and a time to live of one that this call makes. Delta 0 counts as 1.
    ///
    /// # Errors
    /// See [`Self::increment`].
    pub fn increment_with(
        &self,
        key: impl AsRef<[u8]>,
        delta: i64,
        options: &CounterOptions,
    ) -> Result<Counter, ClientError> {
        self.count(key.as_ref(), delta, Direction::Up, options).map_err(refused)
    }

    /// Takes from a counter, as [`Self::increment_with`] in everything else.
    ///
    /// # Errors
    /// See [`Self::increment`].
    pub fn decrement_with(
        &self,
        key: impl AsRef<[u8]>,
        delta: i64,
        options: &CounterOptions,
    ) -> Result<Counter, ClientError> {
        self.count(key.as_ref(), delta, Direction::Down, options).map_err(refused)
    }

    /// Gives an entry a new time to live, counted from now; zero is for ever. False: there is no entry.
    ///
    /// # Errors
    /// See [`Self::look_up`]; the time to live is too long.
    pub fn touch(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool, ClientError> {
        self.prolong(key.as_ref(), ttl).map_err(refused)
    }

    #[inline]
    fn read(&self, key: &[u8], wanted: Wanted) -> Done<GetOutcome> {
        let key = self.key(key)?;
        let namespace = self.namespace_in_use()?;
        let shared = &*self.shared;
        let read =
            shared.engine.read(&namespace, key, None, shared.now(), |entry| hit(&namespace, &entry, wanted));
        Ok(read.map_or_else(GetOutcome::Miss, GetOutcome::Hit))
    }

    pub(super) fn store(&self, key: &[u8], value: &[u8], options: &SetOptions) -> Done<SetOutcome> {
        let namespace = self.namespace_in_use()?;
        let (shared, now) = (&*self.shared, self.shared.now());
        let view = set_view(key, value, options);
        let set = convert::set(&view, &shared.limits, now.unix_ms())?;
        is_served(options.durability)?;
        Ok(match shared.engine.apply(&namespace, &Op::Set(set), now) {
            Outcome::Stored(version) => SetOutcome::Stored(version),
            Outcome::NotStored(current) => {
                SetOutcome::NotStored(NotStored::ConditionNotMet { current: some(current) })
            }
            Outcome::Expired => SetOutcome::NotStored(NotStored::Expired),
            other => return Err(unexpected(&other, 0)),
        })
    }

    fn remove(&self, key: &[u8], options: &DeleteOptions) -> Done<Deletion> {
        let namespace = self.namespace_in_use()?;
        is_served(options.durability)?;
        let if_version = options.if_version.map(|version| version.0);
        let view = DeleteView { key, if_version, ..DeleteView::default() };
        let shared = &*self.shared;
        match shared.engine.apply(&namespace, &convert::delete(&view, &shared.limits)?, shared.now()) {
            Outcome::Deleted(deleted) => Ok(Deletion { deleted, current: None }),
            Outcome::NotDeleted(current) => Ok(Deletion { deleted: false, current: some(current) }),
            other => Err(unexpected(&other, 0)),
        }
    }

    fn count(&self, key: &[u8], delta: i64, direction: Direction, options: &CounterOptions) -> Done<Counter> {
        let view = IncrementView {
            key,
            delta,
            initial: options.initial,
            ttl_ms: wire_ms(options.ttl),
            request_id: options.request_id.as_deref().unwrap_or_default(),
            ..IncrementView::default()
        };
        let shared = &*self.shared;
        let increment = convert::increment(&view, direction, &shared.limits)?;
        let namespace = self.namespace_in_use()?;
        is_served(options.durability)?;
        match shared.engine.apply(&namespace, &Op::Increment(increment), shared.now()) {
            Outcome::Counted { value, version } => Ok(Counter { value, version }),
            other => Err(unexpected(&other, increment.delta)),
        }
    }

    fn prolong(&self, key: &[u8], ttl: Duration) -> Done<bool> {
        let namespace = self.namespace_in_use()?;
        let shared = &*self.shared;
        let view = TouchView { key, ttl_ms: wire_ms(ttl), ..TouchView::default() };
        match shared.engine.apply(&namespace, &convert::touch(&view, &shared.limits)?, shared.now()) {
            Outcome::Touched(found) => Ok(found),
            other => Err(unexpected(&other, 0)),
        }
    }
}

/// What is wanted of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Entry,
    /// All but its value.
    Metadata,
}

/// An entry as the client's type.
#[inline]
pub(super) fn hit(namespace: &Namespace, entry: &EntryView<'_>, wanted: Wanted) -> Hit {
    Hit {
        value: if wanted == Wanted::Entry { entry.value.to_bytes() } else { Bytes::new() },
        value_bytes: entry.value.as_slice().len() as u64,
        version: entry.version,
        remaining_ttl: remaining_ttl(entry.remaining_ttl_ms),
        flags: entry.flags,
        content_type: entry.content_type.to_owned(),
        tier: Tier::Memory,
        near_cache_ttl: Duration::from_millis(namespace.near_cache_ttl_ms(entry.remaining_ttl_ms)),
    }
}

/// What a Set says, as a node reads it from a message.
fn set_view<'a>(key: &'a [u8], value: &'a [u8], options: &'a SetOptions) -> SetView<'a> {
    let expiration = match options.expiration {
        SetExpiration::NamespaceDefault => None,
        SetExpiration::After(ttl) => Some(ExpirationView::TtlMs(wire_ms(ttl))),
        SetExpiration::AtUnixMs(at) => Some(ExpirationView::ExpireAtUnixMs(at)),
        SetExpiration::Keep => Some(ExpirationView::KeepTtl(true)),
    };
    let condition = match options.condition {
        SetCondition::Always => None,
        SetCondition::IfAbsent => Some(ConditionView::IfAbsent(true)),
        SetCondition::IfPresent => Some(ConditionView::IfPresent(true)),
        SetCondition::IfVersion(version) => Some(ConditionView::IfVersion(version.0)),
    };
    SetView {
        key,
        value,
        expiration,
        condition,
        flags: options.flags,
        content_type: &options.content_type,
        tags: options.tags.iter().map(String::as_str).collect(),
        ..SetView::default()
    }
}

/// There is no disk to wait for.
pub(super) fn is_served(durability: Option<Durability>) -> Done<()> {
    match durability {
        Some(Durability::Flushed) => Err(CallError::NoPersistence { what: "durability FLUSHED".to_owned() }),
        Some(Durability::Buffered) | None => Ok(()),
    }
}

/// A version that is one.
fn some(version: Version) -> Option<Version> {
    (version != Version::NONE).then_some(version)
}
