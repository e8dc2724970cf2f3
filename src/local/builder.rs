//! How a cache in the process is made.

use std::sync::Arc;
use std::time::Duration;

use super::LocalCache;
use super::shared::{Shared, TimeSource};
use crate::client::wire_ms;
use crate::clock::{Clock, CoarseClock};
use crate::engine::{EngineConfig, PolicyName};
use crate::entry::{
    CONTENT_TYPE_BYTES_MAX, KEY_BYTES_MAX, Limits, TAG_BYTES_MAX, TAGS_MAX, TTL_MS_MAX, Ttl, VALUE_BYTES_MAX,
};

/// Builds a [`LocalCache`].
///
/// # Defaults
/// - memory: 64 MiB for entries, index and policy together
/// - policy: adaptive
/// - default time to live: none, entries stay until they are evicted
/// - limits: those of a node: keys of 4 KiB, values of 1 MiB, batches of 10,000 items, times to live of 100 years
/// - shards: by memory and processors
/// - clock: the operating system's as of its last tick, so that an entry may be found for up to 4 ms after its time has ended
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct LocalCacheBuilder {
    engine: EngineConfig,
    limits: Limits,
    time: TimeSource,
}

impl LocalCacheBuilder {
    pub(super) fn new() -> Self {
        Self {
            engine: EngineConfig::default(),
            limits: Limits::default(),
            time: TimeSource::Coarse(CoarseClock::new()),
        }
    }

    /// The most bytes that entries, index and policy may take, at least [`BYTES_LIMIT_MIN`](crate::engine::BYTES_LIMIT_MIN); fewer
    /// are as many.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.engine.bytes_limit = bytes;
        self
    }

    /// The eviction policy.
    pub fn policy(mut self, policy: PolicyName) -> Self {
        self.engine.policy = policy;
        self
    }

    /// How long an entry lives that is stored without a time to live. Zero is for ever; one above the limit on times to live is
    /// that limit.
    pub fn default_ttl(mut self, ttl: Duration) -> Self {
        self.engine.default_ttl = Ttl::from_wire_ms(wire_ms(ttl));
        self
    }

    /// What is accepted. A limit above what an entry can hold is that: keys of 4 KiB, values of 1 GiB, 16 tags of 255 B, content
    /// types of 255 B, 100 years.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The number of shards, each with a lock of its own; rounded up to a power of two.
    pub fn shards(mut self, shards: u32) -> Self {
        self.engine.shards = Some(shards);
        self
    }

    /// The clock: [`SystemClock`](crate::clock::SystemClock) to have entries end to the millisecond, for lookups that take longer;
    /// [`ManualClock`](crate::clock::ManualClock) for tests.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.time = TimeSource::Given(Arc::new(clock));
        self
    }

    /// Makes the cache, empty.
    #[must_use]
    pub fn build(self) -> LocalCache {
        let Self { engine, limits, time } = self;
        let limits = bounded(limits);
        let default_ttl = Ttl::from_wire_ms(engine.default_ttl.to_wire_ms().min(limits.ttl_ms_max));
        let engine = EngineConfig { default_ttl, value_bytes_max: limits.value_bytes_max as u64, ..engine };
        LocalCache::over(Shared::new(&engine, limits, time))
    }
}

/// Limits within what an entry can hold.
fn bounded(limits: Limits) -> Limits {
    Limits {
        key_bytes_max: limits.key_bytes_max.min(KEY_BYTES_MAX),
        value_bytes_max: limits.value_bytes_max.min(VALUE_BYTES_MAX),
        content_type_bytes_max: limits.content_type_bytes_max.min(CONTENT_TYPE_BYTES_MAX),
        tags_max: limits.tags_max.min(TAGS_MAX),
        tag_bytes_max: limits.tag_bytes_max.min(TAG_BYTES_MAX),
        ttl_ms_max: limits.ttl_ms_max.min(TTL_MS_MAX),
        ..limits
    }
}
