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
use super::below::{self, joined};
use super::data::{Ending, Plane};
use super::error::CallError;
use super::requests::Admission;
use super::turns::Turns;
use super::unary::{Answered, call, in_turns};
use crate::cache::{Cache, Turn};
use crate::telemetry::Recalled;
use crate::verb::Verb;

/// A unary request that is whole.
pub(super) struct Later {
    pub(super) verb: Verb,
    pub(super) plane: Arc<Plane>,
    pub(super) message: Bytes,
    /// Its place in the budget of long requests.
    pub(super) admission: Option<Admission>,
    /// Its place among those that wait for the journal.
    pub(super) turn: Option<Turn>,
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
/// turned away then, because too many wait, has changed nothing. A batch that met the full backlog where it was done at
/// once has begun before.
pub struct LaterCall {
    has_begun: bool,
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
        let (has_begun, plane) = (later.progress.has_begun(), Arc::clone(&later.plane));
        Self { has_begun, call: Box::pin(later.done()), plane, recalled }
    }

    /// Whether some of it was done before it had to wait.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
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
        self.queue();
        if !self.progress.has_begun() {
            yield_now().await;
        }
        loop {
            if self.is_backlogged {
                if !self.has_turn().await {
                    self.progress.give_up();
                }
                // Entries may have gone to the disk meanwhile.
                self.is_below = below::waits(self.verb, &self.plane.cache, &self.message);
            }
            let done;
            (self, done) = self.tried().await;
            self.is_backlogged = matches!(done, Err(CallError::JournalBacklog { .. }));
            if !self.is_backlogged || self.progress.gives_up() {
                return done;
            }
            self.queue();
        }
    }

    /// Takes its place among those that wait for the journal, if it is to, or goes back there if it had its turn.
    fn queue(&mut self) {
        if !self.is_backlogged {
            return;
        }
        if let Some(turn) = &self.turn {
            turn.again();
        } else if let Some(queue) = self.plane.cache.journal_backlog() {
            let bytes = self.message.len();
            self.turn = queue.enter(bytes, if self.admission.is_some() { 0 } else { bytes });
        }
    }

    /// Waits for the turn; false: it may not wait.
    async fn has_turn(&mut self) -> bool {
        let Some(turn) = &self.turn else { return false };
        let mut ending: Ending = (self.plane.ending)();
        poll_fn(|cx| match turn.poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => ending.as_mut().poll(cx).map(|()| false),
        })
        .await
    }

    /// Does what can be done now. Where it goes on without the call, it takes with it what the call holds, so that this
    /// counts until it is done.
    async fn tried(mut self) -> (Self, Answered) {
        if self.is_below {
            return joined(spawn_blocking(move || {
                let done = call(self.verb, &self.plane, &self.message, &mut self.progress);
                (self, done)
            }))
            .await;
        }
        if !self.is_long {
            let done = call(self.verb, &self.plane, &self.message, &mut self.progress);
            return (self, done);
        }
        let (verb, turns) = (self.verb, Turns::many());
        let work = async move {
            let done = in_turns(verb, &self.plane, &self.message, &mut self.progress, turns).await;
            (self, done)
        };
        if verb.writes() { joined(tokio::spawn(work)).await } else { work.await }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use prost::Message;

    use super::*;
    use crate::engine::EngineConfig;
    use crate::entry::Limits;
    use crate::proto::v1;

    #[tokio::test]
    async fn what_a_call_holds_counts_until_its_work_is_done_also_when_nobody_waits_for_it() {
        const ITEMS: usize = 1_000;
        let plane = Arc::new(Plane::alone(Cache::new(&EngineConfig::default(), Limits::default())));
        let item = |key: usize| v1::SetRequest { key: key.to_string().into(), ..v1::SetRequest::default() };
        let items = (0..ITEMS).map(item).collect();
        let message = v1::BatchSetRequest { items, ..v1::BatchSetRequest::default() }.encode_to_vec();
        let admission = plane.requests.admit(1 << 20, &plane.stopped).ok();
        let later = Later {
            verb: Verb::BatchSet,
            plane: Arc::clone(&plane),
            message: message.into(),
            admission,
            turn: None,
            progress: Progress::default(),
            is_backlogged: false,
            is_below: false,
            is_long: true,
        };
        let mut call = LaterCall::new(later, Recalled::default());
        let mut cx = Context::from_waker(Waker::noop());
        // The first time it has not begun, the second time its work is on its way.
        for _ in 0..2 {
            assert!(call.poll(&mut cx).is_pending());
        }
        drop(call);
        assert_eq!((plane.cache.stats().entries, plane.requests.bytes()), (0, 1 << 20));
        while plane.cache.stats().entries < ITEMS as u64 {
            assert_eq!(plane.requests.bytes(), 1 << 20);
            yield_now().await;
        }
        while plane.requests.bytes() > 0 {
            yield_now().await;
        }
    }
}
