//! Open loop: calls fall due at times that do not depend on the node.
//!
//! One thread keeps the schedule and lays due calls into one queue per load thread; any free caller takes the
//! oldest. tokio's timers are too coarse for this (1 ms), the operating system's are good to about 60 µs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, Exp1};
use tokio::sync::Semaphore;

use super::Arrivals;
use crate::clock::monotonic;

/// The pacer's own lateness: a call it lays out no later than this is due when it is laid out, which keeps the
/// timer's jitter out of the figures. Beyond it the machine is stalled, and the schedule counts.
const JITTER: Duration = Duration::from_micros(250);

/// It sleeps no less than this, and lays out together what has become due meanwhile: at tens of thousands of calls a
/// second, waking for each would take the load's processor away from it.
const SLEEP_MIN: Duration = Duration::from_micros(150);
/// And no longer, so that a run with few calls can be interrupted.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// More callers than any run has.
const CALLERS_MAX: usize = 1 << 24;

/// Calls that are due.
#[derive(Debug)]
pub(super) struct Queue {
    due: Mutex<VecDeque<Instant>>,
    ready: Semaphore,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { due: Mutex::default(), ready: Semaphore::new(0) }
    }

    /// The oldest call that is due, when there is one. None: there will be no more.
    pub(super) async fn next(&self) -> Option<Instant> {
        self.ready.acquire().await.ok()?.forget();
        self.due.lock().pop_front()
    }

    /// How many are due and not yet taken.
    pub(super) fn waiting(&self) -> usize {
        self.due.lock().len()
    }

    fn push(&self, due: Instant) {
        self.due.lock().push_back(due);
        self.ready.add_permits(1);
    }

    /// Permits without calls, for every caller that may wait: what is due is still taken first.
    fn close(&self) {
        self.ready.add_permits(CALLERS_MAX);
    }
}

/// Times at a given rate, from a given start.
#[derive(Debug)]
pub(super) struct Schedule {
    next: Instant,
    mean: Duration,
    arrivals: Arrivals,
    random: SmallRng,
}

impl Schedule {
    pub(super) fn new(start: Instant, calls_per_s: f64, arrivals: Arrivals) -> Self {
        let mean = Duration::try_from_secs_f64(1.0 / calls_per_s).unwrap_or(Duration::MAX);
        Self { next: start, mean, arrivals, random: SmallRng::seed_from_u64(0x9ace) }
    }

    fn advance(&mut self) {
        let gap = match self.arrivals {
            Arrivals::Constant => self.mean,
            Arrivals::Poisson => {
                let gap: f64 = Exp1.sample(&mut self.random);
                self.mean.mul_f64(gap)
            }
        };
        self.next += gap;
    }
}

/// Lays calls out, at most `calls_max` of them, until the run `is_over` when the next is due; then closes the queues.
pub(super) fn keep(
    mut schedule: Schedule,
    queues: &[Arc<Queue>],
    calls_max: u64,
    is_over: impl Fn(Instant) -> bool,
) {
    let mut calls = 0_u64;
    let mut last = schedule.next;
    while calls < calls_max && !is_over(schedule.next) {
        let now = monotonic();
        if schedule.next > now {
            std::thread::sleep((schedule.next - now).clamp(SLEEP_MIN, SLEEP_MAX));
            continue;
        }
        let due = if now - schedule.next <= JITTER { now } else { schedule.next };
        // Where the machine stalls between two, the earlier was due when it was laid out.
        last = last.max(due);
        queues[(calls % queues.len() as u64) as usize].push(last);
        schedule.advance();
        calls += 1;
    }
    for queue in queues {
        queue.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_keep_their_rate() {
        for arrivals in [Arrivals::Constant, Arrivals::Poisson] {
            let start = monotonic();
            let mut schedule = Schedule::new(start, 1_000.0, arrivals);
            for _ in 0..10_000 {
                schedule.advance();
            }
            let took = (schedule.next - start).as_secs_f64();
            assert!((9.5..10.5).contains(&took), "{arrivals:?}: {took}");
        }
    }

    #[tokio::test]
    async fn due_calls_come_in_order_and_then_none() {
        let queue = Arc::new(Queue::new());
        let start = monotonic();
        let schedule = Schedule::new(start, 1_000_000.0, Arrivals::Constant);
        keep(schedule, std::slice::from_ref(&queue), 3, |_| false);
        assert_eq!(queue.waiting(), 3);
        let mut last = start;
        for _ in 0..3 {
            let due = queue.next().await.unwrap();
            assert!(due >= last);
            last = due;
        }
        assert_eq!(queue.next().await, None);
        assert_eq!(queue.next().await, None);
    }
}
