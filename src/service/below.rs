//! What a call needs to know of entries below memory: whether it is likely to look there, which may block, and how a
//! command is done that may be given up meanwhile.

use std::time::{Duration, Instant};

use tokio::task::JoinError;

use super::unary::{Method, is_long};
use crate::api::Malformed;
use crate::api::convert;
use crate::api::wire::{BatchView, DeleteView, GetView, IncrementView, SetView, TouchView};
use crate::cache::{Cache, Claim, Turn};
use crate::clock::{Now, monotonic};
use crate::engine::{EntryView, MissReason, Namespace, Op, Outcome, Refusal};
use crate::entry::Ttl;

/// A command without a deadline blocks its thread for no longer than this while the journal's backlog has no room.
const BLOCKS_MAX: Duration = Duration::from_secs(5);

/// What does a single command's operation.
pub(super) trait Does {
    /// The cache that it does it on.
    fn cache(&self) -> &Cache;
    /// As [`Cache::apply`].
    fn apply(&self, namespace: &Namespace, op: &Op<'_>, now: Now) -> Outcome;
    /// As [`Cache::read`].
    fn read<R>(
        &self,
        namespace: &Namespace,
        key: &[u8],
        touch: Option<Ttl>,
        now: Now,
        found: impl FnOnce(EntryView<'_>) -> R,
    ) -> Result<R, MissReason>;
}

impl Does for Cache {
    #[inline]
    fn cache(&self) -> &Cache {
        self
    }

    #[inline]
    fn apply(&self, namespace: &Namespace, op: &Op<'_>, now: Now) -> Outcome {
        Cache::apply(self, namespace, op, now)
    }

    #[inline]
    fn read<R>(
        &self,
        namespace: &Namespace,
        key: &[u8],
        touch: Option<Ttl>,
        now: Now,
        found: impl FnOnce(EntryView<'_>) -> R,
    ) -> Result<R, MissReason> {
        Cache::read(self, namespace, key, touch, now, found)
    }
}

/// Does an operation that may be given up until its entry is found, on a thread that may block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claimed<'a> {
    pub(super) cache: &'a Cache,
    pub(super) claim: &'a Claim,
    /// Until then it waits for room in the journal's backlog.
    pub(super) deadline: Option<Instant>,
}

impl Does for Claimed<'_> {
    fn cache(&self) -> &Cache {
        self.cache
    }

    fn apply(&self, namespace: &Namespace, op: &Op<'_>, now: Now) -> Outcome {
        let mut outcome = self.cache.apply_claimed(namespace, op, now, self.claim);
        let mut turn: Option<Turn> = None;
        let mut end = self.deadline;
        while let Outcome::Refused(Refusal::Backlogged { .. }) = outcome {
            match &turn {
                Some(turn) => turn.again(),
                None => {
                    let queue = self.cache.journal_backlog();
                    // The stream counts what its commands hold.
                    turn = queue.and_then(|queue| queue.enter(op.key().len(), 0));
                }
            }
            let end = *end.get_or_insert_with(|| monotonic() + BLOCKS_MAX);
            if !turn.as_ref().is_some_and(|turn| turn.block_until(end)) {
                break;
            }
            // The claim is taken.
            outcome = self.cache.apply(namespace, op, self.cache.now());
        }
        outcome
    }

    fn read<R>(
        &self,
        namespace: &Namespace,
        key: &[u8],
        touch: Option<Ttl>,
        now: Now,
        found: impl FnOnce(EntryView<'_>) -> R,
    ) -> Result<R, MissReason> {
        self.cache.read_claimed(namespace, key, touch, now, self.claim, found)
    }
}

/// Whether a call is likely to look for an entry on disk. One that is malformed or refused is not: whoever does it says
/// so at once.
pub(super) fn waits(method: Method, cache: &Cache, message: &[u8]) -> bool {
    // One that takes long is not looked through here to know that: wherever it is done, it holds up no others.
    cache.has_below()
        && (is_long(method, message) || reads_below(method, cache, cache.now(), message).unwrap_or(false))
}

fn reads_below(method: Method, cache: &Cache, now: Now, message: &[u8]) -> Result<bool, Malformed> {
    let waits =
        |name: &str, key: &[u8]| cache.namespace(name).is_some_and(|namespace| cache.waits(&namespace, key));
    let set_waits = |view: &SetView<'_>| {
        let set = convert::set(view, &cache.limits(), now.unix_ms());
        set.is_ok_and(|set| Op::Set(set).needs_entry() && waits(view.namespace, set.key))
    };
    Ok(match method {
        Method::Get => {
            let view = GetView::read(message)?;
            waits(view.namespace, view.key)
        }
        Method::Set => set_waits(&SetView::read(message)?),
        Method::Delete => {
            let view = DeleteView::read(message)?;
            waits(view.namespace, view.key)
        }
        Method::Increment | Method::Decrement => {
            let view = IncrementView::read(message)?;
            waits(view.namespace, view.key)
        }
        Method::Touch => {
            let view = TouchView::read(message)?;
            waits(view.namespace, view.key)
        }
        Method::BatchGet => {
            let view = BatchView::read_get(message, usize::MAX)?;
            view.iter().any(|key| waits(view.namespace, key))
        }
        Method::BatchSet => {
            let view = BatchView::read_write(message, usize::MAX)?;
            view.iter().any(|item| {
                SetView::read(item)
                    .is_ok_and(|item| set_waits(&SetView { namespace: view.namespace, ..item }))
            })
        }
        Method::BatchDelete => {
            let view = BatchView::read_write(message, usize::MAX)?;
            view.iter().any(|key| waits(view.namespace, key))
        }
        Method::Scan => true,
        Method::Invalidate => false,
    })
}

/// What a blocking task came to.
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
