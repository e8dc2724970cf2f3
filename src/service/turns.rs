//! Turns: a call that is long lets others run while it is under way.
//!
//! A call that is done without waiting holds its thread, and every connection on it, for as long as it takes. So work
//! that grows with the size of a request is done in steps of some items, and a call that has worked for [`TURN`] goes
//! to the end of the queue of ready tasks. No lock is held then.

use std::time::{Duration, Instant};

use tokio::task::{JoinError, yield_now};

use crate::clock::{monotonic, since};

/// How long a call works before it lets others run.
const TURN: Duration = Duration::from_micros(200);
/// Items that are done before the clock is looked at.
pub(super) const STEP_ITEMS: usize = 32;

/// The turns of a call.
#[derive(Debug)]
pub(super) struct Turns {
    /// When this one began. `None`: it is the only one.
    begun: Option<Instant>,
}

impl Turns {
    /// One turn: for a call that is short, or has a thread of its own.
    pub(super) fn one() -> Self {
        Self { begun: None }
    }

    /// As many as it takes, from now on.
    pub(super) fn many() -> Self {
        Self { begun: Some(monotonic()) }
    }

    /// Whether there is no other turn, so that nothing may be waited for.
    pub(super) fn is_one(&self) -> bool {
        self.begun.is_none()
    }

    /// Ends the turn if it was long enough, and waits for the next one.
    pub(super) async fn pass(&mut self) {
        if self.begun.is_some_and(|begun| since(begun) >= TURN) {
            yield_now().await;
            self.begun = Some(monotonic());
        }
    }
}

/// What a task came to. Its panic goes on here.
pub(super) async fn joined<T>(task: impl Future<Output = Result<T, JoinError>>) -> T {
    match task.await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this call with it.
            Err(_) => std::future::pending().await,
        },
    }
}
