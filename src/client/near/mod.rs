//! The near cache: copies of entries in the client's own process, kept true by Watch.
//!
//! ```text
//!  get ── copy here? ── hit: no call
//!     └── ticket ─▶ ask the node ─▶ keep, unless something happened to the ticket's keys meanwhile
//!  follow.rs ── Watch: drop what became untrue; trust what is here while all shards give signs of life
//! ```
//!
//! The rules that keep it true:
//! - A copy is served while Watch is up: each shard of the node has been heard within three of its intervals. Where it is
//!   not, a copy is served until the time that its namespace allows (`near_cache_ttl_ms`), and not at all where that is 0.
//! - Times to live are counted from when the node was asked, which is before it answered: none is longer than it said.
//! - A ticket is taken before the node is asked. What was read is kept only if no event and no write of this client has
//!   touched its slot since; the copy is put first and the slot looked at then, while an event marks the slot first and
//!   drops the copy then, so that one of the two sees the other.
//! - A write of this client drops the copy when it is answered, whatever the answer.
//! - A stream that goes on where it broke off loses nothing; one that cannot drops everything.
//!
//! Bytes are bounded by the engine, which counts everything that a copy takes.

mod follow;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::convert::wire_ms;
use super::error::{ClientError, Refusal};
use super::flights::Flights;
use super::keyspace::InvalidateScope;
use super::outcome::{GetOutcome, Hit, Tier};
use crate::clock::{Clock, CoarseClock, Now};
use crate::engine::{
    Engine, EngineConfig, Expiration, Namespace, NamespaceConfig, Op, PolicyName, Scope, Set, ValueView,
};
use crate::entry::{Ttl, Version};

pub(super) use follow::follow;

/// Copies of entries of all namespaces.
#[derive(Debug)]
pub(super) struct NearCache {
    engine: Engine,
    clock: CoarseClock,
    /// How often something happened to keys, by their hash.
    slots: Box<[AtomicU64]>,
    /// How often something happened to many keys at once.
    wide: AtomicU64,
    /// Until when Watch vouches for what is here, in ms of steady time.
    trusted_until_ms: AtomicU64,
    /// How often everything was dropped.
    resets: AtomicU64,
    /// Gets of one key that are under way.
    pub(super) flights: Flights<GetOutcome>,
}

/// The copies of one namespace.
#[derive(Debug, Clone)]
pub(super) struct Near {
    pub(super) cache: Arc<NearCache>,
    namespace: Namespace,
}

/// What is remembered when the node is asked for an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    slot: usize,
    happened: u64,
    wide: u64,
    asked_ms: u64,
}

const SLOTS: usize = 4_096;
const POLICY: PolicyName = PolicyName::S3Fifo;
/// Before a copy's value: its version, and until when it may be served without Watch, each 8 bytes, little-endian.
const HEADER_BYTES: usize = 16;
/// Longer values are asked for each time.
const VALUE_BYTES_MAX: usize = 1 << 20;

impl NearCache {
    /// Room for copies of this number of bytes in all.
    pub(super) fn new(bytes: u64) -> Self {
        let clock = CoarseClock::new();
        let config = EngineConfig {
            bytes_limit: bytes,
            policy: POLICY,
            value_bytes_max: (VALUE_BYTES_MAX + HEADER_BYTES) as u64,
            ..EngineConfig::default()
        };
        Self {
            engine: Engine::new(&config, clock.now()),
            clock,
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            wide: AtomicU64::new(0),
            trusted_until_ms: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            flights: Flights::default(),
        }
    }

    /// The copies of a namespace. None: there are too many namespaces.
    pub(super) fn of(self: &Arc<Self>, namespace: &str) -> Option<Near> {
        let known = self.namespace(namespace);
        let config = NamespaceConfig::new(namespace, POLICY);
        let namespace = known.or_else(|| self.engine.create_namespace(&config).ok())?;
        Some(Near { cache: self.clone(), namespace })
    }

    fn namespace(&self, name: &str) -> Option<Namespace> {
        if name.is_empty() {
            return Some(self.engine.default_namespace().clone());
        }
        self.engine.namespace(name)
    }

    /// Hits, misses, entries, bytes and how often everything was dropped.
    pub(super) fn counts(&self) -> [u64; 5] {
        let stats = self.engine.stats();
        let resets = self.resets.load(Ordering::Relaxed);
        [stats.hits, stats.misses(), stats.entries, stats.bytes_used, resets]
    }

    fn now(&self) -> Now {
        self.clock.now()
    }

    fn is_trusted(&self, now: Now) -> bool {
        now.steady_ms < self.trusted_until_ms.load(Ordering::Acquire)
    }

    /// Watch vouches for what is here, for that long from now; zero: no longer.
    fn trust(&self, time: Duration) {
        let now = self.now();
        if !time.is_zero() && !self.is_trusted(now) {
            // What was asked for before is not covered.
            self.wide.fetch_add(1, Ordering::SeqCst);
        }
        let until = if time.is_zero() { 0 } else { now.plus(time).steady_ms };
        self.trusted_until_ms.store(until, Ordering::Release);
    }

    /// Everything is dropped.
    fn reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
        self.wide.fetch_add(1, Ordering::SeqCst);
        let now = self.now();
        for namespace in self.engine.namespaces() {
            self.engine.clear(&namespace, now);
        }
    }

    /// What is known of a key is older than this version.
    fn key_changed(&self, namespace: &str, key: &[u8], version: Version) {
        self.slots[slot_of(namespace, key)].fetch_add(1, Ordering::SeqCst);
        let Some(namespace) = self.namespace(namespace) else { return };
        let now = self.now();
        let kept = self.engine.read(&namespace, key, None, now, |entry| header(entry.value.as_slice()).0);
        if kept.is_ok_and(|kept| kept < version.0) {
            self.engine.apply(&namespace, &Op::Delete { key, if_version: None }, now);
        }
    }

    /// What is known of all keys that begin with this is untrue.
    fn prefix_changed(&self, namespace: &str, prefix: &[u8]) {
        self.wide.fetch_add(1, Ordering::SeqCst);
        let Some(namespace) = self.namespace(namespace) else { return };
        let now = self.now();
        if prefix.is_empty() || self.engine.invalidate(&namespace, Scope::Prefix(prefix), now).is_err() {
            self.engine.clear(&namespace, now);
        }
    }

    /// Gives back what is expired or dropped, some at a time.
    fn tidy(&self) {
        self.engine.advance(self.now());
        while self.engine.sweep(1_024) {}
    }
}

impl Near {
    /// The copy of an entry, if there is one that may be served.
    #[inline]
    pub(super) fn get(&self, key: &[u8]) -> Option<Hit> {
        let cache = &*self.cache;
        let now = cache.now();
        let is_trusted = cache.is_trusted(now);
        let read = cache.engine.read(&self.namespace, key, None, now, |entry| {
            let bytes = entry.value.as_slice();
            let (version, served_until_ms) = header(bytes);
            if !is_trusted && now.steady_ms >= served_until_ms {
                return None;
            }
            let value = match entry.value {
                ValueView::Inline(bytes) => Bytes::copy_from_slice(&bytes[HEADER_BYTES..]),
                ValueView::Shared(bytes) => bytes.slice(HEADER_BYTES..),
            };
            Some(Hit {
                value_bytes: value.len() as u64,
                value,
                version: Version(version),
                remaining_ttl: (entry.remaining_ttl_ms > 0)
                    .then(|| Duration::from_millis(entry.remaining_ttl_ms)),
                flags: entry.flags,
                content_type: entry.content_type.to_owned(),
                tier: Tier::NearCache,
                near_cache_ttl: Duration::from_millis(served_until_ms.saturating_sub(now.steady_ms)),
            })
        });
        read.ok().flatten()
    }

    /// Before the node is asked for an entry.
    pub(super) fn ticket(&self, name: &str, key: &[u8]) -> Ticket {
        let slot = slot_of(name, key);
        let cache = &self.cache;
        Ticket {
            slot,
            happened: cache.slots[slot].load(Ordering::SeqCst),
            wide: cache.wide.load(Ordering::SeqCst),
            asked_ms: cache.now().steady_ms,
        }
    }

    /// Keeps a copy of what the node answered, if it is still true as far as Watch can tell.
    pub(super) fn keep(&self, ticket: Ticket, key: &[u8], hit: &Hit) {
        let cache = &*self.cache;
        let now = cache.now();
        let until = |ttl: Duration| ticket.asked_ms.saturating_add(wire_ms(ttl));
        let served_until = if hit.near_cache_ttl.is_zero() { 0 } else { until(hit.near_cache_ttl) };
        // The namespace's bound holds with Watch too.
        let ends = [hit.remaining_ttl.map(until), (served_until > 0).then_some(served_until)];
        let left = ends.into_iter().flatten().min().map(|end| end.saturating_sub(now.steady_ms));
        let is_useful = left != Some(0) && (cache.is_trusted(now) || served_until > 0);
        // Its bytes may have been left out.
        let is_whole = hit.value.len() as u64 == hit.value_bytes;
        if !is_useful || !is_whole || hit.value.len() > VALUE_BYTES_MAX {
            return;
        }
        let mut value = Vec::with_capacity(HEADER_BYTES + hit.value.len());
        value.extend_from_slice(&hit.version.0.to_le_bytes());
        value.extend_from_slice(&served_until.to_le_bytes());
        value.extend_from_slice(&hit.value);
        let expiration = Expiration::In(left.map_or(Ttl::Never, Ttl::Ms));
        let set =
            Set { expiration, flags: hit.flags, content_type: &hit.content_type, ..Set::new(key, &value) };
        cache.engine.apply(&self.namespace, &Op::Set(set), now);
        let happened = cache.slots[ticket.slot].load(Ordering::SeqCst);
        if (happened, cache.wide.load(Ordering::SeqCst)) != (ticket.happened, ticket.wide) {
            cache.engine.apply(&self.namespace, &Op::Delete { key, if_version: None }, now);
        }
    }

    /// What the node answers, asked once for all that ask at the same time, and kept.
    pub(super) async fn look_up(
        &self,
        name: &str,
        key: &[u8],
        ask: impl Future<Output = Result<GetOutcome, ClientError>>,
    ) -> Result<GetOutcome, ClientError> {
        let asked = async {
            let ticket = self.ticket(name, key);
            let outcome = ask.await?;
            if let GetOutcome::Hit(hit) = &outcome {
                self.keep(ticket, key, hit);
            }
            Ok(outcome)
        };
        self.cache.flights.join(name, key, asked).await
    }

    /// Takes the copies of those of many keys that are here, and asks for the others.
    pub(super) async fn look_up_many<F>(
        &self,
        name: &str,
        keys: Vec<Bytes>,
        ask: impl FnOnce(Vec<Bytes>) -> F,
    ) -> Result<Vec<Result<GetOutcome, Refusal>>, ClientError>
    where
        F: Future<Output = Result<Vec<Result<GetOutcome, Refusal>>, ClientError>>,
    {
        let mut found: Vec<_> = keys.iter().map(|key| self.get(key).map(GetOutcome::Hit)).collect();
        let missing: Vec<usize> = (0..keys.len()).filter(|at| found[*at].is_none()).collect();
        let tickets: Vec<Ticket> = missing.iter().map(|at| self.ticket(name, &keys[*at])).collect();
        let asked = ask(missing.iter().map(|at| keys[*at].clone()).collect()).await?;
        let mut asked_for = missing.iter().zip(tickets).zip(asked);
        Ok(found
            .iter_mut()
            .filter_map(|found| match found.take() {
                Some(outcome) => Some(Ok(outcome)),
                None => {
                    let ((at, ticket), outcome) = asked_for.next()?;
                    if let Ok(GetOutcome::Hit(hit)) = &outcome {
                        self.keep(ticket, &keys[*at], hit);
                    }
                    Some(outcome)
                }
            })
            .collect())
    }

    /// A write of this key that begins.
    pub(super) fn writing<'a>(&'a self, name: &'a str, key: &'a [u8]) -> Writing<'a> {
        Writing { near: self, name, key }
    }

    /// A write of these keys that begins.
    pub(super) fn writing_many<'a>(&'a self, name: &'a str, keys: Vec<Bytes>) -> WritingMany<'a> {
        WritingMany { near: self, name, keys }
    }

    /// This client has written the key, or has tried to.
    fn written(&self, name: &str, key: &[u8]) {
        let cache = &*self.cache;
        cache.slots[slot_of(name, key)].fetch_add(1, Ordering::SeqCst);
        cache.flights.forget(name, key);
        cache.engine.apply(&self.namespace, &Op::Delete { key, if_version: None }, cache.now());
    }

    /// An Invalidate that begins.
    pub(super) fn dropping<'a>(&'a self, name: &'a str, scope: &InvalidateScope) -> Dropping<'a> {
        let prefix = match scope {
            InvalidateScope::Prefix(prefix) => prefix.clone(),
            // Which copies have a tag nobody here knows.
            InvalidateScope::Tag(_) | InvalidateScope::All => Bytes::new(),
        };
        Dropping { near: self, name, prefix }
    }
}

/// A write that is under way: when it ends, however it does, the copy is dropped.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    near: &'a Near,
    name: &'a str,
    key: &'a [u8],
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.near.written(self.name, self.key);
    }
}

/// [`Writing`] of many keys.
#[derive(Debug)]
pub(super) struct WritingMany<'a> {
    near: &'a Near,
    name: &'a str,
    keys: Vec<Bytes>,
}

impl Drop for WritingMany<'_> {
    fn drop(&mut self) {
        for key in &self.keys {
            self.near.written(self.name, key);
        }
    }
}

/// An Invalidate that is under way: when it ends, the copies are dropped that it covers.
#[derive(Debug)]
pub(super) struct Dropping<'a> {
    near: &'a Near,
    name: &'a str,
    prefix: Bytes,
}

impl Drop for Dropping<'_> {
    fn drop(&mut self) {
        self.near.cache.flights.forget_all();
        self.near.cache.prefix_changed(self.name, &self.prefix);
    }
}

/// A copy's version, and until when it may be served without Watch.
fn header(bytes: &[u8]) -> (u64, u64) {
    let number = |at: usize| {
        let bytes = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    (number(0), number(8))
}

fn slot_of(namespace: &str, key: &[u8]) -> usize {
    let seed = namespace.len() as u64;
    (xxhash_rust::xxh64::xxh64(key, seed) as usize) % SLOTS
}

#[cfg(test)]
mod tests;
