//! Time: the only module that asks the operating system what time it is.
//!
//! The engine takes a [`Now`] with every call, so that tests can set it and a jump of the wall clock cannot
//! shorten or lengthen a live TTL: deadlines are kept on the monotonic side, and the wall side only feeds
//! versions and absolute expiry times that callers send.

mod throttle;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

pub use throttle::Throttle;

/// One reading of both clocks, taken once per request or batch and passed down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of monotonic time since the clock was made. Never goes back.
    pub ticks_ms: u64,
    /// Microseconds of wall time since 1970-01-01 UTC. May jump either way, but for [`Clock::not_before`].
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

    /// From now on the wall side shows no time before this one, which goes on as the monotonic side does: until the
    /// system's wall clock has come up with it, it is later than that. So what was written with an expiry is held to
    /// it also where that clock was set back meanwhile.
    fn not_before(&self, unix_us: u64);
}

/// The earliest that a wall clock may show, as a line: so many µs since 1970 when the monotonic side is at 0. It follows
/// what was shown, some way behind, so that a clock that is only set right, by a second, goes back, and one that is set
/// back by more does not.
#[derive(Debug, Default)]
struct Floor(AtomicU64);

impl Floor {
    /// Behind what was shown by this much, or twice that.
    const BEHIND_US: u64 = 500_000;

    #[inline]
    fn raise(&self, unix_us: u64, ticks_us: u64) {
        self.0.fetch_max(unix_us.saturating_sub(ticks_us), Ordering::Relaxed);
    }

    /// What is to be shown.
    #[inline]
    fn hold(&self, unix_us: u64, ticks_us: u64) -> u64 {
        let floor = self.0.load(Ordering::Relaxed);
        // By steps, so that a clock that goes on as it should is not written to.
        if unix_us.saturating_sub(ticks_us) > floor.saturating_add(2 * Self::BEHIND_US) {
            self.raise(unix_us - Self::BEHIND_US, ticks_us);
        }
        unix_us.max(floor.saturating_add(ticks_us))
    }
}

/// The operating system's monotonic and wall clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
    floor: Floor,
}

impl SystemClock {
    /// A clock whose monotonic side starts at 0 now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: monotonic(), floor: Floor::default() }
    }

    /// The [`Now`] of an [`Instant`] that the caller has already read, so that one reading serves both the
    /// engine and a latency histogram.
    #[must_use]
    pub fn at(&self, instant: Instant) -> Now {
        let ticks_us = self.ticks_us(instant);
        Now { ticks_ms: ticks_us / 1_000, unix_us: self.floor.hold(unix_us(), ticks_us) }
    }

    fn ticks_us(&self, instant: Instant) -> u64 {
        let ticks = instant.saturating_duration_since(self.origin);
        u64::try_from(ticks.as_micros()).unwrap_or(u64::MAX)
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

    fn not_before(&self, unix_us: u64) {
        self.floor.raise(unix_us, self.ticks_us(monotonic()));
    }
}

/// The operating system's clocks as of its last tick: up to 4 ms late (1 ms where the kernel ticks that often), for
/// who asks a cache of the same process millions of times a second. A reading takes a fifth of [`SystemClock`]'s time,
/// which may be as long as finding an entry.
///
/// Where there are no such clocks, which is everywhere but on Linux, it is as exact and as slow as the other.
#[derive(Debug)]
pub struct CoarseClock {
    origin_us: u64,
    floor: Floor,
}

impl CoarseClock {
    /// A clock whose monotonic side starts at 0 now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin_us: us_of(COARSE_MONOTONIC), floor: Floor::default() }
    }

    #[inline]
    fn ticks_us(&self) -> u64 {
        us_of(COARSE_MONOTONIC).saturating_sub(self.origin_us)
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
        let ticks_us = self.ticks_us();
        Now { ticks_ms: ticks_us / 1_000, unix_us: self.floor.hold(us_of(COARSE_REAL), ticks_us) }
    }

    fn not_before(&self, unix_us: u64) {
        self.floor.raise(unix_us, self.ticks_us());
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
        Self { begun: monotonic() }
    }

    /// Rests, if it has worked for long enough; blocks.
    pub fn rest(&mut self) {
        let worked = self.begun.elapsed();
        if worked >= WORK_MIN {
            std::thread::sleep((worked * RESTS).min(REST_MAX));
            self.begun = monotonic();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_goes_back_by_more_than_a_second_does_not() {
        let (floor, begun, second) = (Floor::default(), 1_000_000_000_000, 1_000_000);
        assert_eq!(floor.hold(begun, 5), begun);
        assert_eq!(floor.hold(begun - second / 2, 7), begun - second / 2 + 2, "it is set right");
        assert_eq!(
            floor.hold(begun - 3_600 * second, 5 + second),
            begun + second / 2,
            "a second later, less half"
        );
        assert_eq!(floor.hold(begun + 3_600 * second, 5), begun + 3_600 * second, "it goes on from there");
        assert!(floor.hold(begun, 5) >= begun + 3_598 * second);
        assert_eq!(floor.hold(u64::MAX, 5), u64::MAX);
        assert_eq!(floor.hold(0, u64::MAX), u64::MAX, "and overflows nowhere");
    }

    #[test]
    fn a_wall_clock_that_is_behind_is_held_to_a_time_that_goes_on() {
        let hour_us = 3_600_000_000;
        let clocks: [Box<dyn Clock>; 2] = [Box::new(SystemClock::new()), Box::new(CoarseClock::new())];
        for clock in clocks {
            let before = clock.now();
            clock.not_before(before.unix_us - hour_us);
            assert!(clock.now().unix_us < before.unix_us + hour_us, "an earlier time changes nothing");
            clock.not_before(before.unix_us + hour_us);
            let begun = clock.now();
            assert!(begun.unix_us >= before.unix_us + hour_us, "{begun:?} after {before:?}");
            let mut now = begun;
            while now.ticks_ms < begun.ticks_ms + 20 {
                now = clock.now();
            }
            let went = (now.unix_us - begun.unix_us) / 1_000;
            assert!((19..=now.ticks_ms - begun.ticks_ms + 1).contains(&went), "{went} ms of 20");
        }
    }

    #[test]
    fn the_coarse_clock_is_late_by_a_tick_at_most_and_never_goes_back() {
        let (coarse, exact) = (CoarseClock::new(), SystemClock::new());
        let mut last = coarse.now();
        while last.ticks_ms < 20 {
            let now = coarse.now();
            assert!(now.ticks_ms >= last.ticks_ms);
            last = now;
        }
        // A tick is 10 ms at most; whoever is not let run in between says nothing of the clock.
        let closest = (0..100).map(|_| exact.now().unix_us.abs_diff(coarse.now().unix_us)).min();
        assert!(closest.is_some_and(|us| us <= 10_000), "{closest:?} us apart");
    }
}
