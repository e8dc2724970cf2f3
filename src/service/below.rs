//! What a call needs to know of entries below memory: whether it is likely to look there, which may block, and how a
//! command is done that may be given up meanwhile.

use tokio::task::JoinError;

use super::codec::convert;
use super::codec::wire::SetView;
use super::request::{Request, sets_of};
use super::unary::is_long;
use crate::cache::{Cache, Claim};
use crate::clock::Now;
use crate::engine::{EntryView, MissReason, Namespace, Op, Outcome};
use crate::entry::Ttl;
use crate::verb::Verb;

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
}

impl Does for Claimed<'_> {
    fn cache(&self) -> &Cache {
        self.cache
    }

    fn apply(&self, namespace: &Namespace, op: &Op<'_>, now: Now) -> Outcome {
        self.cache.apply_claimed(namespace, op, now, self.claim)
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
pub(super) fn waits(verb: Verb, cache: &Cache, message: &[u8]) -> bool {
    if !cache.has_below() {
        return false;
    }
    // One that takes long is not looked through here to know that: wherever it is done, it holds up no others.
    is_long(verb, message)
        || Request::decode(verb, message, usize::MAX)
            .is_ok_and(|request| request.is_some_and(|request| reads(cache, &request)))
}

/// The same of a request that is decoded, and of a key that it names.
pub(super) fn reads(cache: &Cache, request: &Request<'_>) -> bool {
    let waits =
        |name: &str, key: &[u8]| cache.namespace(name).is_some_and(|namespace| cache.waits(&namespace, key));
    let set_waits = |view: &SetView<'_>| {
        let set = convert::set(view, &cache.limits(), cache.now().unix_ms());
        set.is_ok_and(|set| Op::Set(set).needs_entry() && waits(view.namespace, set.key))
    };
    match request {
        Request::Set(view) => set_waits(view),
        Request::BatchSet(batch) => sets_of(batch).any(|view| set_waits(&view)),
        others => others.keys().any(|key| waits(others.namespace(), key)),
    }
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
