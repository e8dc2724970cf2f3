//! The composition that services talk to: the engine, what is kept on disk, and the lookup of what is not in memory.
//!
//! An operation is done in memory ([`Cache::try_apply`]); what it needs and memory has not got is looked for below
//! ([`crate::lookup`]), and what is nowhere is a miss. Nothing here knows of gRPC.

mod blobs;
mod disk;
mod disk_tier;
mod live_limits;
mod operator;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use crate::clock::{Clock, Now, SystemClock};
use crate::engine::{
    DrainedEvents, Engine, EngineConfig, EventConfig, Namespace, NamespaceChange, NamespaceReport,
    PolicyName, Refusal, Scope, Stats,
};
use crate::entry::Limits;
use crate::lookup::Lookup;

use blobs::BlobState;
use disk::OpenDisk;
use live_limits::LiveLimits;

pub use crate::persistence::blob::{
    BlobError, BlobReader, BlobWriter, Blobs, Digest, Finish, Listed, Manifest, NewBlob, Removed,
};
pub use crate::persistence::disk::TierReadError;
pub use crate::persistence::journal::QueuePlace;
pub use blobs::BlobStream;
pub use disk::{DiskError, DiskOptions};
pub use operator::{
    BackendError, Damage, RecoveryMethod, Rehearsal, SnapshotError, SnapshotInfo, Stopped, Verified,
};

/// A node's cache.
#[derive(Debug)]
pub struct Cache {
    engine: Arc<Engine>,
    clock: Arc<SystemClock>,
    limits: LiveLimits,
    id: u64,
    blobs: BlobState,
    disk: OnceLock<OpenDisk>,
    /// Looks for what is not in memory. Set once a disk tier is opened.
    lookup: OnceLock<Lookup>,
}

impl Cache {
    /// An empty cache.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn new(engine: &EngineConfig, limits: Limits) -> Self {
        Self::with_clock(engine, limits, Arc::new(SystemClock::new()))
    }

    /// An empty cache whose clock is given.
    #[must_use]
    pub fn with_clock(engine: &EngineConfig, limits: Limits, clock: Arc<SystemClock>) -> Self {
        let engine = Arc::new(Engine::new(engine, clock.now()));
        Self {
            engine,
            clock,
            limits: LiveLimits::new(&limits),
            id: rand::random(),
            blobs: BlobState::default(),
            disk: OnceLock::new(),
            lookup: OnceLock::new(),
        }
    }

    /// What it accepts now.
    #[must_use]
    #[inline]
    pub fn limits(&self) -> Limits {
        self.limits.load()
    }

    /// Sets what it accepts from now on; entries that are there stay.
    pub fn set_limits(&self, limits: &Limits) {
        self.limits.store(limits);
        self.engine.set_value_bytes_max(limits.value_bytes_max as u64);
    }

    /// A number that no other cache has, in this process or another.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The present moment on the cache's clock.
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// The namespace of a name; "" is the default one.
    #[must_use]
    #[inline]
    pub fn namespace(&self, name: &str) -> Option<Cow<'_, Namespace>> {
        if name.is_empty() {
            return Some(Cow::Borrowed(self.engine.default_namespace()));
        }
        self.engine.namespace(name).map(Cow::Owned)
    }

    /// Does what has become due: expiry, policy hand-over, a lowered limit. Says how many steps it took.
    pub fn advance(&self) -> usize {
        self.engine.advance(self.now())
    }

    /// Counters and gauges of now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// The least that [`Self::resize`] may ask for.
    #[must_use]
    pub fn bytes_limit_min(&self) -> u64 {
        self.engine.bytes_limit_min()
    }

    /// The least that [`Self::resize`] may ask for if values of `value_bytes_max` bytes are to be stored.
    #[must_use]
    pub fn bytes_limit_min_for(&self, value_bytes_max: u64) -> u64 {
        self.engine.bytes_limit_min_for(value_bytes_max)
    }

    /// The limit on bytes, as it was asked for.
    #[must_use]
    pub fn bytes_limit(&self) -> u64 {
        self.engine.default_namespace().config().bytes_limit
    }

    /// The default namespace's eviction policy.
    #[must_use]
    pub fn policy(&self) -> PolicyName {
        self.engine.default_namespace().config().policy
    }

    /// Sets the limit on bytes and evicts down to it; the one before.
    pub fn resize(&self, bytes_limit: u64) -> u64 {
        let previous = self.stats().bytes_limit;
        self.engine.resize(bytes_limit, self.now());
        previous
    }

    /// Changes a namespace; the default one's limit is the engine's.
    pub fn update_namespace(&self, namespace: &Namespace, change: &NamespaceChange) {
        if let (true, Some(bytes_limit)) = (namespace.name().is_empty(), change.bytes_limit) {
            self.engine.resize(bytes_limit, self.now());
        }
        self.engine.update_namespace(namespace, change);
    }

    /// All namespaces with their figures, the default one first, the others by name.
    #[must_use]
    pub fn namespace_reports(&self) -> Vec<NamespaceReport> {
        self.engine.reports()
    }

    /// Removes everything in a namespace that the scope covers; see [`Engine::invalidate`].
    ///
    /// # Errors
    /// Too many earlier invalidations still wait for the sweep, so no more can be noted. Nothing was done.
    pub fn invalidate(&self, namespace: &Namespace, scope: Scope<'_>, now: Now) -> Result<u64, Refusal> {
        if let Some(below) = self.disk_tier() {
            below.tier.takes_invalidation(namespace.number(), scope, self.bytes_limit())?;
        }
        self.engine.invalidate(namespace, scope, now)
    }

    /// Notes what becomes untrue as events; see [`Engine::start_events`].
    pub fn start_events(&self, config: &EventConfig, sequences: &[u64]) {
        self.engine.start_events(config, sequences);
    }

    /// Notes no more events; how far each shard had counted.
    pub fn stop_events(&self) -> Vec<u64> {
        self.engine.stop_events()
    }

    /// Says what events may take; see [`Engine::charge_events`].
    pub fn charge_events(&self, bytes: u64) {
        self.engine.charge_events(bytes);
    }

    /// Takes a shard's events out; see [`Engine::drain_events`].
    pub fn drain_events(&self, shard: usize, into: &mut Vec<u8>) -> Option<DrainedEvents> {
        self.engine.drain_events(shard, into)
    }

    /// Takes out entries that invalidations cover. Looks at `entries_max` entries at most; true if any may be left.
    pub fn sweep(&self, entries_max: usize) -> bool {
        self.engine.sweep(entries_max)
    }

    /// The engine itself, which tests look into.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The number of the engine's shards.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.engine.shard_count()
    }
}
