//! How often one thing is said: once a second, with the number of times that it was left out meanwhile.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::unpaused;

/// Holds a log line that a client can bring about as often as it likes to one a second. A line of a connection or of a
/// call goes through one, at warning and above:
///
/// ```
/// # use larder::clock::Throttle;
/// static UNREADABLE: Throttle = Throttle::new();
/// UNREADABLE.say(|left_out| tracing::error!(left_out, "an entry cannot be read"));
/// ```
///
/// `left_out` is the number of lines that were left out since the last one; where it is `None` the line has no such
/// field.
#[derive(Debug)]
pub struct Throttle {
    /// From when on the next is said, in ms since [`begun`]; 0: at once.
    due_ms: AtomicU64,
    left_out: AtomicU64,
}

impl Throttle {
    /// One that has said nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { due_ms: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// Says it, or leaves it out. `line` is given how many were left out since the last; `None`: none.
    pub fn say(&self, line: impl FnOnce(Option<u64>)) {
        if let Some(left_out) = self.pass(unpaused().saturating_duration_since(begun())) {
            line((left_out > 0).then_some(left_out));
        }
    }

    /// Whether it is time, and how many were left out since the last time.
    fn pass(&self, now: Duration) -> Option<u64> {
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let next_ms = now_ms.saturating_add(EVERY_MS);
        let due = |due_ms| (due_ms <= now_ms).then_some(next_ms);
        if self.due_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

/// When the process first asked, so that a moment fits in an atomic.
fn begun() -> Instant {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    *BEGUN.get_or_init(unpaused)
}

const EVERY_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_is_said_with_the_number_of_those_that_were_not() {
        let throttle = Throttle::new();
        let at = |ms| throttle.pass(Duration::from_millis(ms));
        assert_eq!(at(0), Some(0), "the first at once");
        assert_eq!([at(0), at(1), at(999)], [None; 3]);
        assert_eq!(at(1_000), Some(3));
        assert_eq!(at(1_999), None);
        assert_eq!(at(60_000), Some(1));
        assert_eq!(at(62_000), Some(0));
    }

    #[test]
    fn a_line_has_a_number_only_where_some_were_left_out() {
        let throttle = Throttle::new();
        let said = std::cell::RefCell::new(Vec::new());
        for _ in 0..5 {
            throttle.say(|left_out| said.borrow_mut().push(left_out));
        }
        assert_eq!(*said.borrow(), [None], "a test takes no second for this");
        throttle.due_ms.store(0, Ordering::Relaxed);
        throttle.say(|left_out| said.borrow_mut().push(left_out));
        assert_eq!(*said.borrow(), [None, Some(4)]);
    }
}
