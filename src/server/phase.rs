//! How the connections of a listener learn that they are to end: first gracefully (GOAWAY), then at once.
//!
//! A connection's task is polled for every frame, so it must not take a lock to learn that nothing has changed.
//! [`PhaseSignal`] reads one atomic for that, and registers its waker only once.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::watch;

/// What a listener and its connections are to do. It only advances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Accept and serve.
    Open,
    /// Accept nothing more, and end each connection when what runs on it is done.
    Finishing,
    /// End now.
    Cut,
}

/// A connection's view of its listener's phase. While one lives, the listener is not done.
pub(crate) struct PhaseSignal {
    phase: watch::Receiver<Phase>,
    changed: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl PhaseSignal {
    pub(crate) fn new(phase: watch::Receiver<Phase>) -> Self {
        Self { phase, changed: None }
    }

    /// Ready with the phase once it differs from [`Phase::Open`] and from the phase that was returned last.
    ///
    /// The waker of the first pending poll after a change is the one that is woken, so this is polled from one
    /// task only, and directly: not inside a combinator that has wakers of its own.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Phase> {
        if self.changed.is_none() {
            let mut phase = self.phase.clone();
            let mut changed: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
                // An error says that the listener's handle is gone, which cuts: see below.
                let _ = phase.changed().await;
            });
            // Ready at once means that the atomic below tells it as well.
            let _ = changed.as_mut().poll(context);
            self.changed = Some(changed);
        }
        match self.phase.has_changed() {
            Ok(false) => Poll::Pending,
            Ok(true) => {
                self.changed = None;
                Poll::Ready(*self.phase.borrow_and_update())
            }
            Err(_) => Poll::Ready(Phase::Cut),
        }
    }

    /// Waits until the phase is another one than [`Phase::Open`].
    pub(crate) async fn left_open(&mut self) -> Phase {
        match self.phase.wait_for(|phase| *phase != Phase::Open).await {
            Ok(phase) => *phase,
            Err(_) => Phase::Cut,
        }
    }
}
