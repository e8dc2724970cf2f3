//! When the workers of this process have nothing to do: what had come to any socket by then had been read.
//!
//! So a connection on which nothing came for an hour is not taken for one whose bytes lay unread for an hour, and a node
//! that has time left is not taken for one that is asked for more than it can do.

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::clock::monotonic;

static BEGIN: LazyLock<Instant> = LazyLock::new(monotonic);
/// In nanoseconds since then; 0: never.
static LATEST: AtomicU64 = AtomicU64::new(0);
/// How long workers had nothing to do, together, in nanoseconds.
static IDLE: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static PARKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Since the process began.
pub(crate) fn micros(at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(*BEGIN).as_micros()).unwrap_or(u64::MAX)
}

fn note(now: Instant) {
    let nanos = now.saturating_duration_since(*BEGIN).as_nanos();
    LATEST.store(u64::try_from(nanos).unwrap_or(u64::MAX).max(1), Relaxed);
}

/// This worker has nothing to do.
pub fn worker_parks() {
    let now = monotonic();
    note(now);
    PARKED.set(Some(now));
}

/// This worker has something to do again.
pub fn worker_unparks() {
    let now = monotonic();
    note(now);
    if let Some(parked) = PARKED.take() {
        let nanos = now.saturating_duration_since(parked).as_nanos();
        IDLE.fetch_add(u64::try_from(nanos).unwrap_or(u64::MAX), Relaxed);
    }
}

/// When one last had nothing to do; `None`: nobody notes it.
#[inline]
pub(crate) fn latest() -> Option<Instant> {
    let nanos = LATEST.load(Relaxed);
    (nanos > 0).then(|| *BEGIN + Duration::from_nanos(nanos))
}

/// How long workers had nothing to do, together.
pub(crate) fn total() -> Duration {
    Duration::from_nanos(IDLE.load(Relaxed))
}
