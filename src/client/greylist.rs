//! A node whose calls fail although its connections stand: it is asked less until its calls come through again.
//!
//! In a window of 250 ms in which 10 calls or more fail, and as many as are answered or more, the node is put on the list:
//! one call of 64 is let through. After each window in which none fails twice as many are, until all are. It is the
//! outcome of calls that counts, and not of connects.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How a node's calls fare.
#[derive(Debug)]
pub(super) struct Greylist {
    /// Of [`WHOLE`] calls, how many are let through.
    share: AtomicU32,
    asked: AtomicU32,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    begun: Instant,
    answered_before: u64,
    failed: u64,
}

const WHOLE: u32 = 64;
const WINDOW: Duration = Duration::from_millis(250);
const FAILED_MIN: u64 = 10;

impl Greylist {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            share: AtomicU32::new(WHOLE),
            asked: AtomicU32::new(0),
            window: Mutex::new(Window { begun: now, answered_before: 0, failed: 0 }),
        }
    }

    /// Whether the node is on the list.
    pub(super) fn is_listed(&self) -> bool {
        self.share.load(Ordering::Relaxed) < WHOLE
    }

    /// Whether a call may be made. `answered`: how many the node has answered so far.
    pub(super) fn admits(&self, now: impl FnOnce() -> Instant, answered: impl FnOnce() -> u64) -> bool {
        if !self.is_listed() {
            return true;
        }
        self.recover(now(), answered());
        self.asked.fetch_add(1, Ordering::Relaxed) % WHOLE < self.share.load(Ordering::Relaxed)
    }

    /// A call has failed at the node. True: the node is on the list from now on.
    pub(super) fn failed(&self, now: Instant, answered: u64) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(window.begun) > WINDOW {
            *window = Window { begun: now, answered_before: answered, failed: 0 };
        }
        window.failed += 1;
        let answered = answered.saturating_sub(window.answered_before);
        let is_listed = self.is_listed();
        if is_listed || window.failed >= FAILED_MIN && window.failed >= answered {
            self.share.store(1, Ordering::Relaxed);
            window.begun = now;
        }
        !is_listed && self.is_listed()
    }

    /// Lets more through, if the last window had calls and none failed.
    fn recover(&self, now: Instant, answered: u64) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(window.begun) <= WINDOW {
            return;
        }
        if answered > window.answered_before {
            let share = self.share.load(Ordering::Relaxed);
            self.share.store((share * 2).min(WHOLE), Ordering::Relaxed);
        }
        *window = Window { begun: now, answered_before: answered, failed: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic;

    #[test]
    fn a_node_whose_calls_fail_is_asked_less_and_comes_back_step_by_step() {
        let mut now = monotonic();
        let list = Greylist::new(now);
        for nth in 1..FAILED_MIN {
            assert!(!list.failed(now, 0), "the {nth}th of few");
        }
        assert!(list.failed(now, 0), "many");
        let admitted = |now| (0..WHOLE).filter(|_| list.admits(|| now, || 0)).count();
        assert_eq!(admitted(now), 1);
        // Nothing was answered: it stays so.
        now += WINDOW * 2;
        assert_eq!(admitted(now), 1);
        let mut answered = 0;
        for share in [2, 4, 8, 16, 32] {
            (now, answered) = (now + WINDOW * 2, answered + 1);
            assert!(list.is_listed());
            list.recover(now, answered);
            assert_eq!((0..WHOLE).filter(|_| list.admits(|| now, || answered)).count(), share);
        }
        assert!(!list.failed(now, answered), "listed already");
        assert_eq!(list.share.load(Ordering::Relaxed), 1, "one failure begins again");
    }

    #[test]
    fn failures_among_more_answers_list_nobody() {
        let now = monotonic();
        let list = Greylist::new(now);
        for nth in 1..1_000 {
            assert!(!list.failed(now, 10 + nth * 2));
        }
        // Those of another time are forgotten.
        let list = Greylist::new(now);
        for nth in 0..100_u32 {
            assert!(!list.failed(now + WINDOW * 2 * nth, 0));
        }
    }
}
