//! The engine: a sharded map of entries with expiry, versions, conditions, counters and eviction, in memory.
//!
//! It is synchronous, does no I/O and has no clock: every call takes [`Now`], and every operation the namespace that
//! it is done in. A key goes to a shard by a hash
//! that is seeded at random in each process; a shard is one lock over its index, entries, byte account, timer
//! wheel and policy. It can be used alone:
//!
//! ```
//! use larder::clock::{Clock, SystemClock};
//! use larder::engine::{Engine, EngineConfig, Op, Outcome, Set};
//!
//! let clock = SystemClock::new();
//! let engine = Engine::new(&EngineConfig::default(), clock.now());
//! let namespace = engine.default_namespace();
//! engine.apply(namespace, &Op::Set(Set::new(b"colour", b"green")), clock.now());
//! let outcome = engine.apply(namespace, &Op::Get { key: b"colour", touch: None }, clock.now());
//! let Outcome::Hit(hit) = outcome else { panic!("{outcome:?}") };
//! assert_eq!(hit.value, "green");
//! ```

mod admission;
mod arena;
mod batch;
mod changes;
mod events;
mod eviction;
mod eviction_log;
mod expiry;
mod fetch;
mod hot;
mod index;
mod keyspace;
mod log;
mod memory;
mod namespace;
mod op;
mod prefetch;
mod record;
mod recover;
mod request_ids;
mod shard;
pub mod simulate;
mod slot;
mod stats;
mod tags;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

pub use admission::Admission;
#[cfg(test)]
pub(crate) use admission::CountingAdmission;
pub use events::{DrainedEvents, EncodeEvent, Event, EventConfig, EventScope};
pub use eviction::{Estimate, PolicyName, UnknownPolicy};
pub use fetch::Fetch;
pub use hot::{HotKey, HotKeys};
pub use keyspace::{Explanation, ScanCursor, ScanRange};
pub use log::{Drained, Encode, LogBudget, LogConfig, Put, Record, Written};
pub use memory::Memory;
pub use namespace::{
    Namespace, NamespaceChange, NamespaceConfig, NamespaceError, NamespaceReport, PolicyEstimate,
};
pub use op::{
    Condition, EntryView, Expiration, Hit, Increment, MissReason, NotRead, Op, Outcome, Refusal, Set, Tier,
    ValueView,
};
pub use recover::{Placed, Restored, Restorer, WalkCursor};
pub use shard::Scope;
pub use stats::Stats;

use crate::clock::Now;
use crate::entry::{NAMESPACES_MAX, Ttl, Version};
use arena::ARENA_BYTES_MAX;
use log::Barriers;
use namespace::{DEFAULT, Namespaces};
use record::{KeyHasher, hash_key};
use shard::{KeyRef, Shard, ShardConfig};

/// How an engine is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// The most bytes that entries, index and policy may take; at least [`BYTES_LIMIT_MIN`].
    pub bytes_limit: u64,
    /// The number of shards, rounded up to a power of two; `None` chooses by memory and processors.
    pub shards: Option<u32>,
    /// The eviction policy.
    pub policy: PolicyName,
    /// The time to live of entries that are stored without one.
    pub default_ttl: Ttl,
    /// The largest value that callers will store; a shard is made to hold several.
    pub value_bytes_max: u64,
    /// The most namespaces, the default one counted: 1 to [`NAMESPACES_MAX`].
    pub namespaces_max: usize,
    /// The low [`Version::NODE_BITS`] bits of every version.
    pub node_hash: u16,
}

/// The least that an engine can be given, in bytes.
pub const BYTES_LIMIT_MIN: u64 = 1 << 20;
const SHARDS_MAX: u64 = 1_024;
/// A shard of this size is worth having for memory's sake: growing its index takes about a millisecond.
const SHARD_BYTES_GOOD: u64 = 32 << 20;
/// Shards for each processor: two threads that want the same one at the same time are to be rare.
const SHARDS_PER_PROCESSOR: u64 = 16;
/// A shard has at least this number of times the largest value, …
const VALUES_PER_SHARD: u64 = 4_096;
/// … if that is between these. The larger values may be, the more sizes of cells are in use, and in each shard half a
/// page of each size is spare: measured with 16 MB and values of 1 to 1,000 B, 13 % more at 4 MB a shard, 39 % at 2 MB.
const SHARD_BYTES_MIN: std::ops::RangeInclusive<u64> = 1 << 20..=8 << 20;

impl Default for EngineConfig {
    /// 64 MiB, shards by size, adaptive eviction, no default time to live, values up to 1 MiB, 1,024 namespaces.
    fn default() -> Self {
        Self {
            bytes_limit: 64 << 20,
            shards: None,
            policy: PolicyName::Adaptive,
            default_ttl: Ttl::Never,
            value_bytes_max: 1 << 20,
            namespaces_max: NAMESPACES_MAX,
            node_hash: 0,
        }
    }
}

impl EngineConfig {
    /// The number of shards that this configuration comes to.
    #[must_use]
    pub fn shard_count(&self) -> u32 {
        let limit = self.bytes_limit.max(BYTES_LIMIT_MIN);
        let least = limit.div_ceil(ARENA_BYTES_MAX / 2).next_power_of_two();
        let wanted = self.shards.map(u64::from).unwrap_or_else(|| {
            let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
            let value = self.value_bytes_max.max(1);
            let shard = VALUES_PER_SHARD
                .saturating_mul(value)
                .clamp(*SHARD_BYTES_MIN.start(), *SHARD_BYTES_MIN.end());
            let busy = (processors * SHARDS_PER_PROCESSOR).min(limit / shard);
            busy.max(limit / SHARD_BYTES_GOOD).min(limit / value.saturating_mul(8))
        });
        let power = if self.shards.is_some() {
            wanted.max(1).next_power_of_two()
        } else {
            1 << wanted.max(1).ilog2()
        };
        power.clamp(least, SHARDS_MAX) as u32
    }
}

/// A sharded map of entries. Shared by reference; every call locks one shard for a short while.
#[derive(Debug)]
pub struct Engine {
    shards: Box<[Locked]>,
    namespaces: Namespaces,
    invalidations: AtomicU64,
    /// What happened in all shards at once, for a journal; also makes it happen one at a time.
    barriers: Mutex<Barriers>,
    /// How often what shards have logged was taken out.
    drains: Arc<AtomicU64>,
    /// A key's shard is its hash's top bits, shifted down by this.
    shard_shift: u32,
    hasher: KeyHasher,
    versions: VersionClock,
    value_bytes_max: AtomicU64,
}

/// Entries that [`Engine::advance`] looks at under one hold of a shard's lock.
const STEPS_PER_HOLD: usize = 256;

impl Engine {
    /// An empty engine.
    #[must_use]
    pub fn new(config: &EngineConfig, now: Now) -> Self {
        let count = config.shard_count();
        let hasher = KeyHasher::default();
        let bytes_limit = config.bytes_limit.max(BYTES_LIMIT_MIN);
        let default_ttl = config.default_ttl;
        let default = NamespaceConfig { bytes_limit, default_ttl, ..NamespaceConfig::new("", config.policy) };
        let namespaces = Namespaces::new(&default, config.namespaces_max);
        let shard = ShardConfig {
            bytes_limit: bytes_limit / u64::from(count),
            shards: u64::from(count),
            hasher: hasher.clone(),
        };
        Self {
            shards: (0..count)
                .map(|_| Locked(Mutex::new(Shard::new(shard.clone(), namespaces.default(), now))))
                .collect(),
            namespaces,
            invalidations: AtomicU64::new(0),
            barriers: Mutex::default(),
            drains: Arc::default(),
            shard_shift: 64 - count.ilog2(),
            hasher,
            versions: VersionClock::new(config.node_hash),
            value_bytes_max: AtomicU64::new(config.value_bytes_max),
        }
    }

    /// Does one operation in a namespace of this engine.
    pub fn apply(&self, namespace: &Namespace, op: &Op<'_>, admission: impl Admission) -> Outcome {
        // A large value is copied to its own allocation before the lock is taken.
        let large = op.large_value();
        let (number, key) = self.locate(namespace, op.key());
        match self.lock_for(number, key, admission) {
            Ok((mut shard, now)) => self.apply_in(&mut shard, key, op, large.as_ref(), now),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    /// Locks a shard for one operation: admits it, and does a little of the work that waits.
    #[inline]
    fn lock_for(
        &self,
        number: usize,
        key: KeyRef<'_>,
        admission: impl Admission,
    ) -> Result<(MutexGuard<'_, Shard>, Now), Refusal> {
        let mut shard = self.shards[number].lock();
        let now = admission.admit(key.namespace, key.key)?;
        shard.maintain(now);
        Ok((shard, now))
    }

    /// Does one operation in its shard, whose lock is held.
    #[inline]
    fn apply_in(
        &self,
        shard: &mut Shard,
        key: KeyRef<'_>,
        op: &Op<'_>,
        large: Option<&Bytes>,
        now: Now,
    ) -> Outcome {
        match op {
            Op::Get { touch, .. } => {
                let read = shard.read(key, *touch, &self.versions, now, |entry| entry.to_hit());
                read.map_or_else(Outcome::Miss, Outcome::Hit)
            }
            Op::Set(set) => shard.set(set, key, large, &self.versions, now),
            Op::Delete { if_version, .. } => shard.delete(key, *if_version, &self.versions, now),
            Op::Increment(increment) => shard.increment(increment, key, &self.versions, now),
            Op::Touch { ttl, .. } => shard.touch(key, *ttl, &self.versions, now),
        }
    }

    /// Reads an entry and lets `found` write it to where it goes, under the shard's lock and without a copy of
    /// its own: `found` must be quick and must not call the engine.
    ///
    /// # Errors
    /// The reason of a miss, as far as it is known.
    #[inline]
    pub fn read<R>(
        &self,
        namespace: &Namespace,
        key: &[u8],
        touch: Option<Ttl>,
        now: Now,
        found: impl FnOnce(EntryView<'_>) -> R,
    ) -> Result<R, MissReason> {
        let (number, key) = self.locate(namespace, key);
        let mut shard = self.shards[number].lock();
        shard.maintain(now);
        shard.read(key, touch, &self.versions, now, found)
    }

    /// Reclaims expired entries, hands entries over to a new policy and comes down to a lowered limit: all that
    /// is due, in slices, letting go of each lock in between. Says how many steps it took.
    pub fn advance(&self, now: Now) -> usize {
        let mut steps = 0;
        for shard in &self.shards {
            loop {
                let mut held = shard.lock();
                let taken = held.advance(now, STEPS_PER_HOLD);
                // Waiting threads come first: the next hold is as long as this one.
                MutexGuard::unlock_fair(held);
                steps += taken;
                if taken < STEPS_PER_HOLD {
                    break;
                }
            }
        }
        steps
    }

    /// Exchanges a namespace's eviction policy; no entry is lost. Returns the one before. Entries are handed over a
    /// few with each operation and by [`Self::advance`].
    pub fn set_policy(&self, namespace: &Namespace, policy: PolicyName) -> PolicyName {
        let previous = namespace.policy();
        namespace.change(&NamespaceChange { policy: Some(policy), ..NamespaceChange::default() });
        for shard in &self.shards {
            shard.lock().set_policy(namespace, policy);
        }
        if namespace.number() != DEFAULT {
            self.namespace_barrier(&mut self.barriers.lock(), namespace);
        }
        previous
    }

    /// Sets the bytes that entries, index and policy may take, and evicts down to them before it returns.
    pub fn resize(&self, bytes_limit: u64, now: Now) {
        let bytes_limit = bytes_limit.max(BYTES_LIMIT_MIN);
        let change = NamespaceChange { bytes_limit: Some(bytes_limit), ..NamespaceChange::default() };
        self.namespaces.default().change(&change);
        for shard in &self.shards {
            shard.lock().resize(bytes_limit / self.shards.len() as u64);
        }
        self.advance(now);
    }

    /// Removes every entry of a namespace; how many there were.
    pub fn clear(&self, namespace: &Namespace, now: Now) -> u64 {
        let mut removed = 0;
        let mut barriers = self.barriers.lock();
        let until = self.versions.next_bound(now);
        for shard in &self.shards {
            let mut held = shard.lock();
            // Whatever version an entry here has that goes, this one is above it.
            held.changes.barrier(Some((namespace, Scope::All)), || self.versions.next_bound(now));
            removed += held.stats_of(namespace).entries;
            if namespace.number() == DEFAULT && held.has_only_default() {
                let emptied = held.emptied(namespace, now);
                let full = std::mem::replace(&mut *held, emptied);
                // Taking it apart takes long.
                drop(held);
                drop(full);
            } else {
                held.invalidate(namespace, Scope::All, until, MissReason::Deleted);
            }
        }
        barriers.add(&Record::Cleared { namespace: namespace.number() });
        drop(barriers);
        self.sweep(usize::MAX);
        removed
    }

    /// Counters and gauges, summed over the shards; each shard's are of one moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        for shard in &self.shards {
            sum.add(&shard.lock().stats());
        }
        sum
    }

    /// The least that [`Self::resize`] may ask for, so that each shard can hold a few of the largest values.
    #[must_use]
    pub fn bytes_limit_min(&self) -> u64 {
        self.bytes_limit_min_for(self.value_bytes_max.load(Ordering::Relaxed))
    }

    /// [`Self::bytes_limit_min`] for values of `value_bytes_max` bytes.
    #[must_use]
    pub fn bytes_limit_min_for(&self, value_bytes_max: u64) -> u64 {
        BYTES_LIMIT_MIN.max(value_bytes_max * 2 * self.shards.len() as u64)
    }

    /// Sets the largest value that callers will store, for [`Self::bytes_limit_min`]; the shards stay as many.
    pub fn set_value_bytes_max(&self, value_bytes_max: u64) {
        self.value_bytes_max.store(value_bytes_max, Ordering::Relaxed);
    }

    /// Sets how many namespaces there may be, the default one counted; those that are there stay.
    pub fn set_namespaces_max(&self, max: usize) {
        self.namespaces.set_max(max);
    }

    /// The number of shards.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Checks every invariant of every shard, for tests.
    ///
    /// # Panics
    /// Where one does not hold.
    #[cfg(any(test, debug_assertions))]
    pub fn validate(&self) {
        for shard in &self.shards {
            shard.lock().validate();
        }
    }

    #[inline]
    fn locate<'a>(&self, namespace: &'a Namespace, key: &'a [u8]) -> (usize, KeyRef<'a>) {
        let hash = hash_key(&self.hasher, namespace.number(), key);
        (self.shard_of(hash), KeyRef { namespace, key, hash })
    }

    #[inline]
    fn shard_of(&self, hash: u64) -> usize {
        // With one shard the shift is 64, which is none.
        hash.checked_shr(self.shard_shift).unwrap_or(0) as usize
    }
}

/// A shard in its lock, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Locked(Mutex<Shard>);

/// How often a thread looks whether a lock is free before it sleeps. An operation takes a fraction of a microsecond,
/// less than going to sleep, and this is a few of them.
const LOOKS_BEFORE_SLEEP: u32 = 400;

impl Locked {
    #[inline]
    fn lock(&self) -> MutexGuard<'_, Shard> {
        self.0.try_lock().unwrap_or_else(|| self.wait())
    }

    #[cold]
    fn wait(&self) -> MutexGuard<'_, Shard> {
        for _ in 0..LOOKS_BEFORE_SLEEP {
            std::hint::spin_loop();
            if !self.0.is_locked()
                && let Some(held) = self.0.try_lock()
            {
                return held;
            }
        }
        self.0.lock()
    }
}

/// Draws versions: a hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", OPODIS 2014) whose logical
/// part is simply the next microsecond. Where the wall clock was ahead, versions stay ahead: they never go back.
#[derive(Debug)]
pub(crate) struct VersionClock {
    node_hash: u64,
    /// The clock part of the last that was drawn or is on disk.
    last: AtomicU64,
    /// A wall clock beyond this is not followed (yet).
    ceiling: AtomicU64,
}

impl VersionClock {
    fn new(node_hash: u16) -> Self {
        let node_hash = u64::from(node_hash) & ((1 << Version::NODE_BITS) - 1);
        Self { node_hash, last: AtomicU64::new(0), ceiling: AtomicU64::new(Version::CLOCK_MAX) }
    }

    /// A version above all before it, and at the wall clock or above it where that can be followed; `None`: there is
    /// none any more.
    pub(crate) fn next(&self, now: Now) -> Option<Version> {
        let ceiling = self.ceiling.load(Ordering::Relaxed);
        let wall = Version::clock_at(now.unix_us).ok().filter(|wall| *wall <= ceiling).unwrap_or(0);
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            let next = wall.max(last + 1);
            if next > Version::CLOCK_MAX {
                return None;
            }
            match self.last.compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(Version(Version::of_clock(next).0 | self.node_hash)),
                Err(newer) => last = newer,
            }
        }
    }

    /// For what no version may be newer than: the next, or where there is none any more, one that none is above.
    pub(crate) fn next_bound(&self, now: Now) -> Version {
        self.next(now).unwrap_or(Version(u64::MAX))
    }

    /// Versions from now on are above this one.
    pub(crate) fn raise(&self, version: Version) {
        self.last.fetch_max(version.clock(), Ordering::Relaxed);
    }

    /// The wall clock is followed no further than to this version; only counting on goes beyond it.
    pub(crate) fn set_ceiling(&self, version: Version) {
        self.ceiling.store(version.clock(), Ordering::Relaxed);
    }

    /// None that was drawn is above this one.
    pub(crate) fn newest(&self) -> Version {
        Version(Version::of_clock(self.last.load(Ordering::Relaxed)).0 | self.node_hash)
    }

    /// A version above all that have been drawn, and `by_us` µs above the wall clock where that can be followed.
    pub(crate) fn ahead(&self, now: Now, by_us: u64) -> Version {
        let wall = Version::clock_at(now.unix_us).unwrap_or(0);
        let clock = wall.max(self.last.load(Ordering::Relaxed)).saturating_add(by_us);
        Version::of_clock(clock.min(Version::CLOCK_MAX))
    }
}

#[cfg(test)]
mod tests;
