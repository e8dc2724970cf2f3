//! A clock that is set by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Clock, Now, unix_us};

/// A clock that stands still until it is [advanced](Self::advance), for tests of what expires. Clones of it are the same clock.
#[derive(Debug, Clone)]
pub struct ManualClock {
    begun: Now,
    passed_us: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock whose steady time is 0 and whose wall time is the present.
    #[must_use]
    pub fn new() -> Self {
        Self { begun: Now { steady_ms: 0, unix_us: unix_us() }, passed_us: Arc::default() }
    }

    /// Lets this much time pass at once, in whole microseconds.
    pub fn advance(&self, by: Duration) {
        let by_us = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        let add = |passed_us: u64| Some(passed_us.saturating_add(by_us));
        // What it adds to is never refused.
        let _ = self.passed_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        self.begun.plus(Duration::from_micros(self.passed_us.load(Ordering::Relaxed)))
    }

    fn advance_to(&self, steady_ms: u64) {
        self.passed_us.fetch_max(steady_ms.saturating_mul(1_000), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_still_until_it_is_advanced_and_clones_are_the_same_clock() {
        let clock = ManualClock::new();
        let begun = clock.now();
        assert_eq!(clock.now(), begun);
        clock.clone().advance(Duration::from_millis(1_500));
        assert_eq!(clock.now(), begun.plus(Duration::from_millis(1_500)));
        clock.advance_to(1_000);
        assert_eq!(clock.now().steady_ms, 1_500, "it never goes back");
        clock.advance_to(2_000);
        assert_eq!(clock.now().steady_ms, 2_000);
        clock.advance(Duration::MAX);
        clock.advance(Duration::MAX);
        assert!(clock.now().steady_ms > 2_000, "and overflows nowhere");
    }
}
