//! Unary calls that are not done at once: they wait until the journal's backlog has room, or look for entries below
//! memory, which may block and is done on a thread for that.
//!
//! A write that the backlog has no room for waits in the journal's queue until its turn, and is tried again; a batch goes
//! on behind the items that it has done. Where no more may wait, or the listener is to close, it is refused. Whatever waits
//! holds its own request: a long one in the budget for those, a short one in that of the queue.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::below::joined;
use super::body::Unary;
use super::data::{Ending, Plane};
use super::requests::Admission;
use super::unary::{Method, Progress, call};
use crate::api::CallError;
use crate::cache::{Cache, Turn};
use crate::telemetry::Recalled;

/// An answer, and whether it waits until what was done is on the disk.
type Answered = Result<(Unary, bool), CallError>;

/// A unary request that is whole.
pub(super) struct Later {
    pub(super) method: Method,
    pub(super) plane: Arc<Plane>,
    pub(super) message: Bytes,
    /// Its place in the budget of long requests.
    pub(super) admission: Option<Admission>,
    /// How far it is, if it has begun.
    pub(super) progress: Progress,
    /// It waits for its turn before it is done or goes on.
    pub(super) is_backlogged: bool,
    /// It is done on a thread that may block.
    pub(super) is_below: bool,
}

/// A unary call that is done later. Once it is on a thread that may block it goes on there when nobody waits for it any
/// more, so that what it changes is changed whole.
pub struct LaterCall {
    call: Pin<Box<dyn Future<Output = Answered> + Send>>,
    plane: Arc<Plane>,
    recalled: Recalled,
}

impl std::fmt::Debug for LaterCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaterCall").finish_non_exhaustive()
    }
}

impl LaterCall {
    pub(super) fn new(later: Later, recalled: Recalled) -> Self {
        let plane = Arc::clone(&later.plane);
        Self { call: Box::pin(later.done()), plane, recalled }
    }

    pub(super) fn cache(&self) -> &Arc<Cache> {
        &self.plane.cache
    }

    pub(super) fn recalled(&self) -> &Recalled {
        &self.recalled
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answered> {
        self.call.as_mut().poll(cx)
    }
}

impl Later {
    async fn done(mut self) -> Answered {
        let mut turn = None;
        loop {
            if self.is_backlogged && !self.has_turn(&mut turn).await {
                self.progress.give_up();
            }
            let done = self.try_once().await;
            self.is_backlogged = matches!(done, Err(CallError::JournalBacklog { .. }));
            if !self.is_backlogged || self.progress.gives_up() {
                return done;
            }
        }
    }

    /// Waits for the turn, again if it came before; false: it may not wait.
    async fn has_turn(&mut self, turn: &mut Option<Turn>) -> bool {
        let Some(queue) = self.plane.cache.journal_backlog() else { return false };
        if let Some(turn) = turn {
            turn.again();
        } else {
            let bytes = self.message.len();
            *turn = queue.enter(bytes, if self.admission.is_some() { 0 } else { bytes });
        }
        let Some(turn) = turn else { return false };
        let mut ending: Ending = (self.plane.ending)();
        poll_fn(|cx| match turn.poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => ending.as_mut().poll(cx).map(|()| false),
        })
        .await
    }

    async fn try_once(&mut self) -> Answered {
        let (method, mut progress) = (self.method, std::mem::take(&mut self.progress));
        if !self.is_below {
            let done = call(method, &self.plane, &self.message, &mut progress);
            self.progress = progress;
            return done;
        }
        let (plane, message) = (Arc::clone(&self.plane), self.message.clone());
        let task = spawn_blocking(move || {
            let done = call(method, &plane, &message, &mut progress);
            (done, progress)
        });
        let (done, progress) = joined(task).await;
        self.progress = progress;
        done
    }
}
