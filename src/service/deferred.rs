//! Unary calls that are not done at once: they wait until the journal's backlog has room or an entry is loaded, or take
//! long and have turns with others.
//!
//! A write that the backlog has no room for waits in the journal's queue until its turn, and is tried again; a batch goes
//! on behind the items that it has done. Where no more may wait, or the listener is to close, it is refused. Whatever waits
//! holds its own request: a long one in the budget for those, a short one in that of the queue.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::task::{spawn_blocking, yield_now};

use super::batch::CallProgress;
use super::data::{Ending, Plane};
use super::long_requests::RequestPermit;
use super::request::Request;
use super::turns::{Turns, joined};
use super::unary::{Answered, Undone, call, in_turns};
use crate::cache::{Cache, QueuePlace};
use crate::grpc::{Trailers, Unary};
use crate::lookup::{Loaded, Loading};
use crate::request::CallError;
use crate::telemetry::CallDescription;
use crate::verb::Verb;

/// A unary request that is whole.
pub(super) struct Deferred {
    pub(super) verb: Verb,
    pub(super) plane: Arc<Plane>,
    pub(super) message: Bytes,
    /// Its place in the budget of long requests.
    pub(super) permit: Option<RequestPermit>,
    /// Its place among those that wait for the journal.
    pub(super) queue_place: Option<QueuePlace>,
    /// How far it is, if it has begun.
    pub(super) progress: CallProgress,
    pub(super) why: Why,
}

/// Why a call was not done at once.
#[derive(Debug)]
pub(super) enum Why {
    /// It waits for its turn before it is done or goes on.
    Backlogged,
    /// The entry of its one key is being loaded.
    Loading(Loading),
    /// It is done in turns with others, and may wait for entries in between.
    ManySteps,
}

/// Why a call is not done yet, after what could be done of it.
enum Unfinished {
    /// The entry of its one key is being loaded, as the key was changed while that was loaded before.
    Loading(Loading),
    /// It failed; what waits for the journal is tried again.
    Failed(CallError),
}

impl Unfinished {
    fn of(undone: Undone, request: &Request<'_>) -> Self {
        match undone {
            Undone::Failed(error) => Self::Failed(error),
            Undone::NeedsLoad(pending) => {
                Self::Loading(pending.into_loading(request.keys().next().unwrap_or_default()))
            }
        }
    }
}

impl<E: Into<CallError>> From<E> for Unfinished {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// A unary call that is deferred. What it changes in turns with others it goes on with when nobody waits for it any more,
/// so that it is changed whole. None begins when its future is first polled: what is turned away then, because too many
/// wait, has changed nothing. A batch that met the full backlog where it was done at once has begun before.
pub struct DeferredCall {
    has_begun: bool,
    call: Pin<Box<dyn Future<Output = (Answered, Trailers)> + Send>>,
    plane: Arc<Plane>,
    description: CallDescription,
}

impl std::fmt::Debug for DeferredCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeferredCall").finish_non_exhaustive()
    }
}

impl DeferredCall {
    pub(super) fn new(deferred: Deferred, description: CallDescription) -> Self {
        let (has_begun, plane) = (deferred.progress.has_begun(), Arc::clone(&deferred.plane));
        Self { has_begun, call: Box::pin(deferred.done()), plane, description }
    }

    /// Whether some of it was done before it had to wait.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(super) fn cache(&self) -> &Arc<Cache> {
        &self.plane.cache
    }

    pub(super) fn description(&self) -> &CallDescription {
        &self.description
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(Answered, Trailers)> {
        self.call.as_mut().poll(cx)
    }
}

impl Deferred {
    /// What the call comes to, and what is to be in its answer's trailers.
    async fn done(mut self) -> (Answered, Trailers) {
        let (mut is_backlogged, mut loading) = match std::mem::replace(&mut self.why, Why::ManySteps) {
            Why::Backlogged => (true, None),
            Why::Loading(loading) => (false, Some(loading)),
            Why::ManySteps => (false, None),
        };
        if is_backlogged {
            self.queue();
        }
        if loading.is_none() && !self.progress.has_begun() {
            yield_now().await;
        }
        let answered = loop {
            if is_backlogged && !self.has_turn().await {
                self.progress.give_up();
            }
            let loaded = match loading.take() {
                Some(loading) => Some(loading.await),
                None => None,
            };
            let done;
            (self, done) = self.tried(loaded).await;
            is_backlogged = match done {
                Ok(answered) => break Ok(answered),
                Err(Unfinished::Loading(again)) => {
                    loading = Some(again);
                    // It keeps its turn.
                    false
                }
                Err(Unfinished::Failed(CallError::JournalBacklog { .. })) if !self.progress.gives_up() => {
                    self.queue();
                    true
                }
                Err(Unfinished::Failed(error)) => break Err(error),
            };
        };
        (answered, self.progress.trailers)
    }

    /// Takes its place among those that wait for the journal, or goes back there if it had its turn.
    fn queue(&mut self) {
        if let Some(place) = &self.queue_place {
            place.again();
        } else if let Some(queue) = self.plane.cache.journal_backlog() {
            let bytes = self.message.len();
            self.queue_place = queue.enter(bytes, if self.permit.is_some() { 0 } else { bytes });
        }
    }

    /// Waits for the turn; false: it may not wait.
    async fn has_turn(&mut self) -> bool {
        let Some(place) = &self.queue_place else { return false };
        let mut ending: Ending = (self.plane.ending)();
        poll_fn(|cx| match place.poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => ending.as_mut().poll(cx).map(|()| false),
        })
        .await
    }

    /// Does what can be done now. Where it goes on without the call, it takes with it what the call holds, so that this
    /// counts until it is done.
    async fn tried(mut self, loaded: Option<Loaded>) -> (Self, Result<(Unary, bool), Unfinished>) {
        match self.verb {
            // It reads the disk in its order.
            Verb::Scan if self.plane.cache.has_disk_tier() => {
                joined(spawn_blocking(move || {
                    let done = self.many_steps(Turns::one()).now_or_never();
                    (self, done.expect("what has one turn waits for nothing"))
                }))
                .await
            }
            Verb::BatchSet | Verb::BatchDelete => {
                joined(tokio::spawn(async move {
                    let done = self.many_steps(Turns::many()).await;
                    (self, done)
                }))
                .await
            }
            Verb::BatchGet | Verb::Scan => {
                let done = self.many_steps(Turns::many()).await;
                (self, done)
            }
            _ => {
                let done = self.one_step(loaded);
                (self, done)
            }
        }
    }

    async fn many_steps(&mut self, turns: Turns) -> Result<(Unary, bool), Unfinished> {
        // One that has begun is within the limit, whatever that is now.
        let items_max = match self.progress.has_begun() {
            true => usize::MAX,
            false => self.plane.cache.limits().batch_items_max,
        };
        let request = Request::decode(self.verb, &self.message, items_max)?;
        let request = request.expect("it was decoded before");
        let done = in_turns(&self.plane, &request, &mut self.progress, turns).await;
        done.map_err(|undone| Unfinished::of(undone, &request))
    }

    fn one_step(&mut self, loaded: Option<Loaded>) -> Result<(Unary, bool), Unfinished> {
        let request = Request::decode(self.verb, &self.message, 0)?.expect("it was decoded before");
        let done = call(&self.plane, &request, &mut self.progress, loaded);
        done.map_err(|undone| Unfinished::of(undone, &request))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http::{HeaderMap, HeaderName, HeaderValue};
    use http_body_util::Full;
    use hyper::server::conn::http2;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use prost::Message;

    use super::*;
    use crate::engine::EngineConfig;
    use crate::entry::Limits;
    use crate::proto::v1;
    use crate::service::data::DataFuture;

    fn deferred(plane: &Arc<Plane>, verb: Verb, message: Vec<u8>) -> Deferred {
        Deferred {
            verb,
            plane: Arc::clone(plane),
            message: message.into(),
            permit: None,
            queue_place: None,
            progress: CallProgress::default(),
            why: Why::ManySteps,
        }
    }

    /// The head and the trailers with which a call's answer comes over a connection.
    async fn over_http2(call: DataFuture<Full<Bytes>>) -> (HeaderMap, HeaderMap) {
        let (near, far) = tokio::io::duplex(64 << 10);
        let call = std::sync::Mutex::new(Some(call));
        let service = service_fn(move |_| call.lock().unwrap().take().expect("one call is made"));
        let server = http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.serve_connection(TokioIo::new(far), service));
        let (client, connection) = h2::client::handshake(near).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::post("http://node/").body(()).unwrap();
        let (answer, _) = client.ready().await.unwrap().send_request(request, true).unwrap();
        let (head, mut body) = answer.await.unwrap().into_parts();
        while let Some(data) = body.data().await {
            assert!(!data.unwrap().is_empty());
        }
        (head.headers, body.trailers().await.unwrap().unwrap_or_default())
    }

    #[tokio::test]
    async fn an_answer_of_each_kind_has_the_trailers_of_its_call() {
        let plane = Arc::new(Plane::alone(Cache::new(&EngineConfig::default(), Limits::default())));
        let set = |key: &'static str| v1::SetRequest { key: key.into(), ..v1::SetRequest::default() };
        let batch = v1::BatchSetRequest { items: vec![set("k"), set("l")], ..Default::default() };
        let owner = || (HeaderName::from_static("larder-owner"), HeaderValue::from_static("n2"));
        let of = |map: &HeaderMap, name: &str| map.get(name).map(|value| value.to_str().unwrap().to_owned());
        // A message, a batch's, and a refusal, whose head is its trailers.
        for (verb, message, status) in [
            (Verb::Set, set("k").encode_to_vec(), "0"),
            (Verb::BatchSet, batch.encode_to_vec(), "0"),
            (Verb::Set, set("").encode_to_vec(), "3"),
            (Verb::BatchSet, vec![0xff], "3"),
        ] {
            for has_owner in [true, false] {
                let trailers: Trailers = has_owner.then(owner).into_iter().collect();
                let mut deferred = deferred(&plane, verb, message.clone());
                deferred.progress.trailers = trailers;
                let call = DeferredCall::new(deferred, CallDescription::default());
                let (head, trailers) = over_http2(DataFuture::Deferred { call }).await;
                let end = if status == "0" { trailers } else { head };
                assert_eq!(of(&end, "grpc-status").as_deref(), Some(status), "{verb:?} {end:?}");
                assert_eq!(of(&end, "larder-owner").is_some(), has_owner, "{verb:?} {end:?}");
            }
        }
    }

    #[tokio::test]
    async fn what_a_call_holds_counts_until_its_work_is_done_also_when_nobody_waits_for_it() {
        const ITEMS: usize = 1_000;
        let plane = Arc::new(Plane::alone(Cache::new(&EngineConfig::default(), Limits::default())));
        let item = |key: usize| v1::SetRequest { key: key.to_string().into(), ..v1::SetRequest::default() };
        let items = (0..ITEMS).map(item).collect();
        let message = v1::BatchSetRequest { items, ..v1::BatchSetRequest::default() }.encode_to_vec();
        let permit = plane.requests.admit(1 << 20, &plane.stopped).ok();
        let deferred = Deferred { permit, ..deferred(&plane, Verb::BatchSet, message) };
        let mut call = DeferredCall::new(deferred, CallDescription::default());
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
