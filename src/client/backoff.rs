//! How long to wait before the next attempt: longer each time, and by chance, so that many clients do not come at once.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(20);
const MAX: Duration = Duration::from_millis(500);

/// Waits that double from 20 ms to 500 ms, of each a random share of a half to all of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Backoff {
    tried: u32,
}

impl Backoff {
    /// Whether nothing has failed yet.
    pub(super) fn is_fresh(self) -> bool {
        self.tried == 0
    }

    /// The next wait.
    pub(super) fn next(&mut self) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.tried.min(10)).min(MAX);
        self.tried += 1;
        whole / 2 + random_share(whole / 2)
    }
}

/// A random part of a duration.
pub(super) fn random_share(of: Duration) -> Duration {
    of.mul_f64(f64::from(random() as u32) / f64::from(u32::MAX))
}

/// A random number, from the seeds that the standard library draws for its maps.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0_u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_differ() {
        let mut backoff = Backoff::default();
        assert!(backoff.is_fresh());
        let waits: Vec<Duration> = (0..40).map(|_| backoff.next()).collect();
        for (nth, wait) in waits.iter().enumerate() {
            let whole = FIRST.saturating_mul(1 << nth.min(10)).min(MAX);
            assert!(*wait >= whole / 2 && *wait <= whole, "{nth}: {wait:?}");
        }
        assert!(waits[10..].windows(2).any(|pair| pair[0] != pair[1]), "all alike: {waits:?}");
    }
}
