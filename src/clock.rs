//! Time: the only module that asks the operating system what time it is.
//!
//! The engine takes a [`Now`] with every call, so that tests can set it and a jump of the wall clock cannot
//! shorten or lengthen a live TTL: deadlines are kept on the monotonic side, and the wall side only feeds
//! versions and absolute expiry times that callers send.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One reading of both clocks, taken once per request or batch and passed down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of monotonic time since the clock was made. Never goes back.
    pub ticks_ms: u64,
    /// Microseconds of wall time since 1970-01-01 UTC. May jump either way.
    pub unix_us: u64,
}

impl Now {
    /// Wall time in milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        self.unix_us / 1_000
    }

    /// The same moment, `by` later on both clocks.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let us = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        Self { ticks_ms: self.ticks_ms.saturating_add(ms), unix_us: self.unix_us.saturating_add(us) }
    }
}

impl Now {
    /// This moment, on a wall clock that shows at least so many µs since 1970.
    #[must_use]
    pub fn not_before_us(self, unix_us: u64) -> Self {
        Self { unix_us: self.unix_us.max(unix_us), ..self }
    }
}

/// A source of [`Now`]. The system's clock in a node; a hand-set one in tests.
pub trait Clock: std::fmt::Debug + Send + Sync + 'static {
    /// Reads both clocks.
    fn now(&self) -> Now;
}

/// The operating system's monotonic and wall clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic side starts at 0 now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: monotonic() }
    }

    /// The [`Now`] of an [`Instant`] that the caller has already read, so that one reading serves both the
    /// engine and a latency histogram.
    #[must_use]
    pub fn at(&self, instant: Instant) -> Now {
        let ticks = instant.saturating_duration_since(self.origin);
        Now { ticks_ms: u64::try_from(ticks.as_millis()).unwrap_or(u64::MAX), unix_us: unix_us() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        self.at(monotonic())
    }
}

/// The monotonic clock, for latencies and deadlines.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this module is the one that reads the clocks")]
pub fn monotonic() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this module is the one that reads the clocks")]
fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
