//! Unary calls that are not done at once: they wait until the journal's backlog has room, take long and have turns with
//! others, or look for entries below memory, which may block and is done on a thread for that.
//!
//! A write that the backlog has no room for waits in the journal's queue until its turn, and is tried again; a batch goes
//! on behind the items that it has done. Where no more may wait, or the listener is to close, it is refused. Whatever waits
//! holds its own request: a long one in the budget for those, a short one in that of the queue.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::task::{spawn_blocking, yield_now};

use super::batch::Progress;
use super::below::joined;
use super::data::{Ending, Plane};
use super::requests::Admission;
use super::turns::Turns;
use super::unary::{Answered, Method, call, in_turns};
use crate::api::CallError;
use crate::cache::{Cache, Turn};
use crate::telemetry::Recalled;

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
    /// It is done in turns with others.
    pub(super) is_long: bool,
}

/// A unary call that is done later. What it changes, on a thread that may block or in turns with others, it goes on with
/// when nobody waits for it any more, so that it is changed whole. None begins when its future is first polled: what is
/// turned away then, because too many wait, has changed nothing.
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
        if !self.is_backlogged || self.is_below || self.is_long {
            yield_now().await;
        }
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
        if !self.is_below && !self.is_long {
            let done = call(method, &self.plane, &self.message, &mut progress);
            self.progress = progress;
            return done;
        }
        let (plane, message) = (Arc::clone(&self.plane), self.message.clone());
        let (done, progress) = if self.is_below {
            let task = spawn_blocking(move || {
                let done = call(method, &plane, &message, &mut progress);
                (done, progress)
            });
            joined(task).await
        } else {
            let work = async move {
                let done = in_turns(method, &plane, &message, &mut progress, Turns::many()).await;
                (done, progress)
            };
            if method.writes() { joined(tokio::spawn(work)).await } else { work.await }
        };
        self.progress = progress;
        done
    }
}
