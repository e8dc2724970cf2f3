//! Time: the only module that asks the operating system what time it is.
//!
//! There are two clocks, and each has its own work:
//!
//! - The *wall* clock as it is now. It may jump either way. It is what callers mean by a time of day, and versions follow
//!   it as long as it goes forward.
//! - *Steady* time, which lives are counted on: when an entry or a blob expires, in memory and on disk, is a moment of
//!   steady time. It goes on with the monotonic clock while the process runs, so that a jump of the wall clock changes
//!   no life, and over a restart by what the wall clock says has passed, which is never less than nothing
//!   (`persistence::time`). In a directory that is new it begins as the wall clock's time, so that its numbers can be
//!   read; from then on the two are apart by all jumps that the wall clock has made.
//!
//! The engine takes a [`Now`] with every call, so that tests can set it. Elsewhere the monotonic clock is that of the runtime
//! that asks ([`monotonic`]), as its timers go by it: where tokio's time is paused, all of a node follows simulated time. Of a
//! node in a simulation the wall clock is made up as well, from where it stood and how fast it goes
//! (`SystemClock::simulated`).

#[cfg(feature = "local")]
mod manual;
#[cfg(feature = "testing")]
mod simulated;
mod throttle;
#[cfg(feature = "server")]
mod unread;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

#[cfg(feature = "local")]
pub use manual::ManualClock;
#[cfg(feature = "testing")]
pub use simulated::SimulatedTime;
pub use throttle::Throttle;
#[cfg(feature = "server")]
pub use unread::{UndoneCommands, UnreadTime};

/// One reading of both clocks, taken once per request or batch and passed down. Written down, it is a time mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds of steady time. Never goes back.
    pub steady_ms: u64,
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
        Self { steady_ms: self.steady_ms.saturating_add(ms), unix_us: self.unix_us.saturating_add(us) }
    }
}

/// A source of [`Now`]. The system's clock in a node; a hand-set one in tests.
pub trait Clock: std::fmt::Debug + Send + Sync + 'static {
    /// Reads both clocks.
    fn now(&self) -> Now;

    /// Steady time is this by now, if it was less, and goes on from there.
    fn advance_to(&self, steady_ms: u64);
}

/// The operating system's monotonic and wall clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
    /// What steady time was at the origin.
    begun_ms: AtomicU64,
    /// What takes the place of the operating system's wall clock, and says how fast both go.
    #[cfg(feature = "testing")]
    simulated: Option<SimulatedTime>,
}

impl SystemClock {
    /// A clock whose steady time is 0 now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            origin: monotonic(),
            begun_ms: AtomicU64::new(0),
            #[cfg(feature = "testing")]
            simulated: None,
        }
    }

    /// The [`Now`] of an [`Instant`] that the caller has already read, so that one reading serves both the
    /// engine and a latency histogram.
    #[must_use]
    pub fn at(&self, instant: Instant) -> Now {
        let elapsed = self.elapsed(instant);
        let steady_ms = self.begun_ms.load(Ordering::Relaxed).saturating_add(whole_ms(elapsed));
        #[cfg(feature = "testing")]
        if let Some(time) = &self.simulated {
            return Now { steady_ms, unix_us: time.unix_us_after(elapsed) };
        }
        Now { steady_ms, unix_us: unix_us() }
    }

    /// How long it has gone, by itself.
    fn elapsed(&self, instant: Instant) -> Duration {
        let elapsed = instant.saturating_duration_since(self.origin);
        #[cfg(feature = "testing")]
        if let Some(time) = &self.simulated {
            return time.elapsed(elapsed);
        }
        elapsed
    }
}

/// The whole milliseconds of a duration.
pub(crate) fn whole_ms(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000).saturating_add(duration.subsec_millis().into())
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

    fn advance_to(&self, steady_ms: u64) {
        let begun_ms = steady_ms.saturating_sub(whole_ms(self.elapsed(monotonic())));
        self.begun_ms.fetch_max(begun_ms, Ordering::Relaxed);
    }
}

/// The operating system's clocks as of its last tick: up to 4 ms late (1 ms where the kernel ticks that often), for a
/// caller that asks a cache in its own process millions of times a second. A reading takes a fifth of the time of
/// [`SystemClock`]'s, which may take as long as finding an entry.
///
/// Where there are no such clocks, which is everywhere but on Linux, it is as exact and as slow as the other.
#[derive(Debug)]
pub struct CoarseClock {
    origin_us: u64,
    /// What steady time was at the origin.
    begun_ms: AtomicU64,
}

impl CoarseClock {
    /// A clock whose steady time is 0 now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin_us: us_of(COARSE_MONOTONIC), begun_ms: AtomicU64::new(0) }
    }

    #[inline]
    fn elapsed_ms(&self) -> u64 {
        us_of(COARSE_MONOTONIC).saturating_sub(self.origin_us) / 1_000
    }
}

impl Default for CoarseClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for CoarseClock {
    #[inline]
    fn now(&self) -> Now {
        let steady_ms = self.begun_ms.load(Ordering::Relaxed).saturating_add(self.elapsed_ms());
        Now { steady_ms, unix_us: us_of(COARSE_REAL) }
    }

    fn advance_to(&self, steady_ms: u64) {
        self.begun_ms.fetch_max(steady_ms.saturating_sub(self.elapsed_ms()), Ordering::Relaxed);
    }
}

#[cfg(target_os = "linux")]
const COARSE_MONOTONIC: ClockId = ClockId::MonotonicCoarse;
#[cfg(target_os = "linux")]
const COARSE_REAL: ClockId = ClockId::RealtimeCoarse;
#[cfg(not(target_os = "linux"))]
const COARSE_MONOTONIC: ClockId = ClockId::Monotonic;
#[cfg(not(target_os = "linux"))]
const COARSE_REAL: ClockId = ClockId::Realtime;

#[inline]
fn us_of(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // Both are below 2^63 us for the next 290,000 years; a wall clock before 1970 reads as 1970.
    (time.tv_sec.max(0) as u64) * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// The pace of work in the background: for about 150 µs at a time, and then rest for four times as long as that took,
/// 5 ms at most. A node whose one processor is half busy is asked for a fifth of it, and no call waits for long, as it
/// would behind a thread that keeps the processor for the few milliseconds that the system lets it have.
#[derive(Debug)]
pub struct Pace {
    begun: Instant,
}

impl Pace {
    /// For work that begins now.
    #[must_use]
    pub fn new() -> Self {
        Self { begun: unpaused() }
    }

    /// Rests, if it has worked for long enough; blocks.
    pub fn rest(&mut self) {
        let worked = unpaused().saturating_duration_since(self.begun);
        if worked >= WORK_MIN {
            std::thread::sleep((worked * RESTS).min(REST_MAX));
            self.begun = unpaused();
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::new()
    }
}

const WORK_MIN: Duration = Duration::from_micros(150);
const RESTS: u32 = 4;
const REST_MAX: Duration = Duration::from_millis(5);

/// The monotonic clock, for latencies and deadlines: the one that the timers of the runtime go by which this is called in.
/// That is the operating system's, but for a test that has paused its runtime's time, which only a build for tests can.
#[must_use]
#[inline]
#[cfg(any(feature = "client", feature = "server"))]
pub fn monotonic() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The operating system's monotonic clock.
#[must_use]
#[cfg(not(any(feature = "client", feature = "server")))]
pub fn monotonic() -> Instant {
    unpaused()
}

/// How long ago that was, by the same clock as [`monotonic`]; [`Instant::elapsed`] would ask the operating system's.
#[must_use]
#[inline]
pub fn since(begun: Instant) -> Duration {
    monotonic().saturating_duration_since(begun)
}

/// The operating system's monotonic clock, also where a test has paused its runtime's: what is said to people, and what
/// rests on a thread, takes time of theirs.
#[expect(clippy::disallowed_methods, reason = "this module is the one that reads the clocks")]
fn unpaused() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this module is the one that reads the clocks")]
pub(crate) fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_time_is_advanced_and_never_goes_back_and_the_wall_clock_stays_as_it_is() {
        let hour_ms = 3_600_000;
        let clocks: [Box<dyn Clock>; 2] = [Box::new(SystemClock::new()), Box::new(CoarseClock::new())];
        for clock in clocks {
            assert!(clock.now().steady_ms < hour_ms, "it begins at 0");
            let before = clock.now();
            clock.advance_to(hour_ms);
            let begun = clock.now();
            assert!((hour_ms..hour_ms + hour_ms / 2).contains(&begun.steady_ms), "{begun:?}");
            assert!(begun.unix_us < before.unix_us + hour_ms * 500, "{begun:?} after {before:?}");
            clock.advance_to(hour_ms / 2);
            assert!(clock.now().steady_ms >= begun.steady_ms, "an earlier time changes nothing");
            let mut now = begun;
            while now.steady_ms < begun.steady_ms + 20 {
                now = clock.now();
            }
            clock.advance_to(u64::MAX);
            assert!(clock.now().steady_ms >= u64::MAX - hour_ms, "and it overflows nowhere");
        }
    }

    #[test]
    fn the_coarse_clock_is_late_by_a_tick_at_most_and_never_goes_back() {
        let (coarse, exact) = (CoarseClock::new(), SystemClock::new());
        let mut last = coarse.now();
        while last.steady_ms < 20 {
            let now = coarse.now();
            assert!(now.steady_ms >= last.steady_ms);
            last = now;
        }
        // A tick is 10 ms at most; the closest pair counts, as the thread may be preempted between two readings.
        let closest = (0..100).map(|_| exact.now().unix_us.abs_diff(coarse.now().unix_us)).min();
        assert!(closest.is_some_and(|us| us <= 10_000), "{closest:?} us apart");
    }
}
