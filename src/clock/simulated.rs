//! Time in a simulation: the runtime's, and what a node makes of it.

use std::time::Duration;

use super::SystemClock;

/// How a node's clocks stand in a simulation, and how fast they go by the runtime's time. Two nodes whose clocks go wrong are
/// two of these.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SimulatedTime {
    /// What the wall clock shows when the node begins, in microseconds since 1970-01-01 UTC.
    pub unix_us: u64,
    /// How much passes on the node's clocks while one second does in the simulation, in seconds.
    pub rate: f64,
}

impl SystemClock {
    /// A clock of a node in a simulation, whose steady time is 0 now.
    #[must_use]
    pub fn simulated(time: SimulatedTime) -> Self {
        Self { simulated: Some(time), ..Self::new() }
    }
}

impl SimulatedTime {
    /// What has passed on the node's clocks while `elapsed` did in the simulation.
    pub(super) fn elapsed(&self, elapsed: Duration) -> Duration {
        elapsed.mul_f64(self.rate)
    }

    /// What the wall clock shows when that has passed on it.
    pub(super) fn unix_us_after(&self, elapsed: Duration) -> u64 {
        self.unix_us.saturating_add(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::super::{Clock, Now, monotonic, since};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn both_clocks_follow_the_simulation_at_their_own_rate() {
        let clocks =
            [1.0, 1.1].map(|rate| SystemClock::simulated(SimulatedTime { unix_us: 5_000_000, rate }));
        let begun = monotonic();
        assert!(clocks.iter().all(|clock| clock.now() == Now { steady_ms: 0, unix_us: 5_000_000 }));
        advance(Duration::from_secs(3_600)).await;
        assert_eq!(since(begun), Duration::from_secs(3_600));
        let [exact, fast] = clocks.map(|clock| clock.now());
        assert_eq!(exact, Now { steady_ms: 3_600_000, unix_us: 3_605_000_000 });
        assert_eq!(fast, Now { steady_ms: 3_960_000, unix_us: 3_965_000_000 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_not_simulated_follows_the_runtimes_time_but_for_the_wall() {
        let clock = SystemClock::new();
        let before = clock.now();
        advance(Duration::from_secs(3_600)).await;
        let after = clock.now();
        assert_eq!(after.steady_ms - before.steady_ms, 3_600_000);
        assert!(after.unix_us < before.unix_us + 3_600_000_000);
    }
}
