//! The data plane as a tower service: a path is matched, a request's frames are gathered, the call is done and
//! answered on the spot. What is not Cache's goes to the generated services beside it.
//!
//! Nothing is allocated here for a unary call that is done at once but its answer: no boxed future, no task, no copy of a
//! request that came in one frame.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method as HttpMethod, Request, Response, StatusCode, header};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::batch::CallProgress;
use super::blobs::BlobCall;
use super::deferred::{Deferred, DeferredCall, Why};
use super::generated::{GeneratedFuture, GeneratedService};
use super::long_requests::{
    LongRequests, RequestLimits, RequestPermit, SHORT_REQUEST_BYTES_MAX, StoppedCalls, UNCOUNTED_BYTES_MAX,
};
use super::metadata;
use super::pipeline::PipelineBody;
use super::plan::{Plan, plan};
use super::request::Request as CacheRequest;
use super::response_backlog::ResponseBacklog;
use super::slow::describe;
use super::unary::{Undone, call};
use super::watch::{self, Watches};
use crate::cache::Cache;
use crate::clock::UnreadTime;
use crate::grpc::frame::{PREFIX, message_len};
use crate::grpc::{Begun, DescribeCall, GrpcError, ResponseBody, Trailers, Unary};
use crate::quote::Quote;
use crate::request::CallError;
use crate::telemetry::{CallDescription, CallTracer, SlowCalls};
use crate::verb::{Served, Verb};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A future that ends when the listener does.
pub(super) type Ending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The services of a data listener.
#[derive(Clone)]
pub struct DataService {
    plane: Arc<Plane>,
    /// Health and reflection.
    others: GeneratedService,
    slow: SlowCalls,
}

/// What a data call works on, in one place, so that a call keeps it with one count of references, its connection's.
pub struct Plane {
    pub(super) cache: Arc<Cache>,
    pub(super) response_backlog: ResponseBacklog,
    pub(super) requests: LongRequests,
    /// Those that watch; `None`: nobody can.
    pub(super) watches: Option<Watches>,
    /// Calls of the connection that wait for room among those.
    pub(super) stopped: StoppedCalls,
    /// How long what is read from the connection had come before.
    pub(super) unread: UnreadTime,
    /// Makes the spans of a Pipeline's commands; those of calls are made before they are here.
    pub(super) tracer: CallTracer,
    /// Gives a future that ends when the listener is to close.
    pub(super) ending: Arc<dyn Fn() -> Ending + Send + Sync>,
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plane").field("cache", &self.cache).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Plane {
    /// One whose listener never closes, with nothing else under way.
    pub(super) fn alone(cache: Cache) -> Self {
        let (response_backlog, requests) =
            (ResponseBacklog::default(), LongRequests::new(RequestLimits::default()));
        let ending: Arc<dyn Fn() -> Ending + Send + Sync> = Arc::new(|| Box::pin(std::future::pending()));
        let (stopped, unread) = (StoppedCalls::default(), UnreadTime::default());
        let tracer = CallTracer::off();
        Self {
            cache: Arc::new(cache),
            response_backlog,
            requests,
            watches: None,
            stopped,
            unread,
            tracer,
            ending,
        }
    }
}

impl std::fmt::Debug for DataService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataService").field("plane", &self.plane).finish_non_exhaustive()
    }
}

impl DataService {
    /// Serves `cache`, and `others` beside it. What `ending` gives ends when the listener is to close: Pipeline
    /// streams end then, which would live as long as their clients like, and writes wait no more for the disk.
    #[must_use]
    pub fn new(
        cache: Arc<Cache>,
        ending: impl Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync + 'static,
        others: GeneratedService,
    ) -> Self {
        let (response_backlog, requests) =
            (ResponseBacklog::default(), LongRequests::new(RequestLimits::default()));
        let plane = Plane {
            cache,
            response_backlog,
            requests,
            watches: None,
            stopped: StoppedCalls::default(),
            unread: UnreadTime::default(),
            tracer: CallTracer::off(),
            ending: Arc::new(ending),
        };
        Self { plane: Arc::new(plane), others, slow: SlowCalls::default() }
    }

    fn with_plane(self, change: impl FnOnce(Plane) -> Plane) -> Self {
        let Plane { cache, response_backlog, requests, watches, unread, tracer, ending, .. } = &*self.plane;
        let plane = Plane {
            cache: Arc::clone(cache),
            response_backlog: response_backlog.clone(),
            requests: requests.clone(),
            watches: watches.clone(),
            stopped: StoppedCalls::default(),
            unread: unread.clone(),
            tracer: tracer.clone(),
            ending: Arc::clone(ending),
        };
        Self { plane: Arc::new(change(plane)), ..self }
    }

    /// Serves a connection of which `unread` says how long what is read had come before.
    #[must_use]
    pub fn with_unread_time(self, unread: UnreadTime) -> Self {
        self.with_plane(|plane| Plane { unread, ..plane })
    }

    /// Counts its answers in `response_backlog`, and long requests in `requests`.
    #[must_use]
    pub fn with_budgets(self, response_backlog: ResponseBacklog, requests: LongRequests) -> Self {
        self.with_plane(|plane| Plane { response_backlog, requests, ..plane })
    }

    /// Has `tracer` make the spans of a Pipeline's commands.
    #[must_use]
    pub(crate) fn with_tracer(self, tracer: CallTracer) -> Self {
        self.with_plane(|plane| Plane { tracer, ..plane })
    }

    /// Tells changes to those that are among `watches`.
    #[must_use]
    pub fn with_watches(self, watches: Watches) -> Self {
        self.with_plane(|plane| Plane { watches: Some(watches), ..plane })
    }

    /// Keeps Pipeline messages that take long in `slow`.
    #[must_use]
    pub fn with_slow_calls(self, slow: SlowCalls) -> Self {
        Self { slow, ..self }
    }
}

impl<B> Service<Request<B>> for DataService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = DataFuture<B>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> DataFuture<B> {
        let path = request.uri().path();
        let verb = Verb::of_path(path);
        let is_generated = match verb {
            Verb::Other => {
                !["/larder.v1.Cache/", "/larder.v1.Cluster/"].iter().any(|own| path.starts_with(own))
            }
            verb => verb.served() == Served::Generated,
        };
        if is_generated {
            return DataFuture::Other { future: self.others.call(request) };
        }
        if let Some(response) = no_grpc(&request) {
            return DataFuture::ready(response);
        }
        if let Err(error) = metadata::check(request.headers()) {
            return DataFuture::failed(error);
        }
        match verb.served() {
            Served::Planned => {
                let what = verb.path().trim_start_matches("/larder.v1.").replace('/', ".");
                DataFuture::failed(CallError::NotServed { what })
            }
            Served::Pipeline => {
                let plane = Arc::clone(&self.plane);
                let body = PipelineBody::new(request.into_body(), plane, self.slow.clone());
                DataFuture::ready(ResponseBody::stream(body))
            }
            Served::PutBlob => {
                let call = BlobCall::put(request.into_body(), Arc::clone(&self.plane.cache));
                DataFuture::PutBlob { call }
            }
            Served::Blob | Served::Watch => {
                let (head, body) = request.into_parts();
                let plane = Arc::clone(&self.plane);
                let message = Gathered::default();
                DataFuture::Blob { verb, headers: head.headers, plane, body, message, call: None }
            }
            Served::Unary => {
                let (head, body) = request.into_parts();
                DataFuture::Unary {
                    verb,
                    headers: head.headers,
                    plane: Arc::clone(&self.plane),
                    body,
                    message: Gathered::default(),
                }
            }
            // In Cache or Cluster by its path, and not in the contract.
            Served::Generated => {
                DataFuture::failed(CallError::NoSuchMethod { path: Quote::of(request.uri().path()) })
            }
        }
    }
}

/// The answer to what is no gRPC call: a browser, a wrong content type.
fn no_grpc<B>(request: &Request<B>) -> Option<Response<ResponseBody>> {
    let content_type = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let status = match (request.method(), content_type) {
        (&HttpMethod::POST, b"application/grpc" | b"application/grpc+proto") => return None,
        (&HttpMethod::POST, other) if other.starts_with(b"application/grpc;") => return None,
        (&HttpMethod::POST, _) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        _ => StatusCode::METHOD_NOT_ALLOWED,
    };
    let mut response = Response::new(ResponseBody::default());
    *response.status_mut() = status;
    Some(response)
}

pin_project! {
    /// A call on a data listener.
    #[project = DataProjection]
    #[derive(Debug)]
    pub enum DataFuture<B> {
        Ready { response: Option<Response<ResponseBody>> },
        Unary {
            verb: Verb,
            headers: HeaderMap,
            plane: Arc<Plane>,
            #[pin]
            body: B,
            message: Gathered,
        },
        Deferred { call: DeferredCall },
        Flushing { flushing: Flushing },
        PutBlob { call: BlobCall },
        Blob {
            verb: Verb,
            headers: HeaderMap,
            plane: Arc<Plane>,
            #[pin]
            body: B,
            message: Gathered,
            call: Option<BlobCall>,
        },
        Other { #[pin] future: GeneratedFuture },
    }
}

impl<B> DataFuture<B> {
    fn ready(response: Response<ResponseBody>) -> Self {
        Self::Ready { response: Some(response) }
    }

    fn failed(error: CallError) -> Self {
        Self::ready(ResponseBody::error(error))
    }
}

impl<B> Future for DataFuture<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.as_mut().project() {
            DataProjection::Ready { response } => {
                Poll::Ready(Ok(response.take().expect("a future is not polled after it is ready")))
            }
            DataProjection::Other { future } => future.poll(cx),
            DataProjection::Unary { verb, headers, plane, mut body, message } => {
                let max = plane.cache.limits().message_in_bytes_max;
                let gathered = ready!(message.poll_gather(body.as_mut(), max, plane, cx));
                let whole = match gathered.and_then(|()| message.whole(max)) {
                    Ok(whole) => whole,
                    Err(error) => return Poll::Ready(Ok(ResponseBody::error(error))),
                };
                let mut progress = CallProgress::default();
                let why = match at_once(*verb, plane, whole, &mut progress) {
                    Ok(AtOnce::Done(answer)) => {
                        return Poll::Ready(Ok(progress.trailers.onto(ResponseBody::unary(answer))));
                    }
                    Ok(AtOnce::Flushes(answer)) => {
                        let description = describe_request(*verb, message, headers, plane);
                        let flushing = Flushing::new(&plane.cache, answer, progress.trailers, description);
                        self.set(Self::Flushing { flushing });
                        return self.poll(cx);
                    }
                    Ok(AtOnce::Deferred(why)) => why,
                    Err(error) => {
                        return Poll::Ready(Ok(progress.trailers.onto(ResponseBody::error(error))));
                    }
                };
                let (verb, plane) = (*verb, Arc::clone(plane));
                let description = describe_request(verb, message, headers, &plane);
                let (message, permit) = message.take();
                let deferred = Deferred { verb, plane, message, permit, queue_place: None, progress, why };
                self.set(Self::Deferred { call: DeferredCall::new(deferred, description) });
                self.poll(cx)
            }
            DataProjection::Deferred { call } => match ready!(call.poll(cx)) {
                (Ok((answer, false)), trailers) => {
                    Poll::Ready(Ok(trailers.onto(ResponseBody::unary(answer))))
                }
                (Ok((answer, true)), trailers) => {
                    let description = call.description().clone();
                    let flushing = Flushing::new(call.cache(), answer, trailers, description);
                    self.set(Self::Flushing { flushing });
                    self.poll(cx)
                }
                (Err(error), trailers) => Poll::Ready(Ok(trailers.onto(ResponseBody::error(error)))),
            },
            DataProjection::Flushing { flushing } => Pin::new(flushing).poll(cx).map(Ok),
            DataProjection::PutBlob { call } => {
                Poll::Ready(Ok(ready!(Pin::new(call).poll(cx)).unwrap_or_else(ResponseBody::error)))
            }
            DataProjection::Blob { verb, headers: _, plane, mut body, message, call } => {
                let call = match call {
                    Some(call) => call,
                    None => {
                        let max = plane.cache.limits().message_in_bytes_max;
                        let gathered = ready!(message.poll_gather(body.as_mut(), max, plane, cx));
                        let whole = gathered.and_then(|()| message.whole(max));
                        let whole = match whole {
                            Ok(whole) if *verb == Verb::Watch => {
                                return Poll::Ready(Ok(watch::answer(plane, whole)));
                            }
                            Ok(whole) => Bytes::copy_from_slice(whole),
                            Err(error) => return Poll::Ready(Ok(ResponseBody::error(error))),
                        };
                        call.insert(BlobCall::new(*verb, Arc::clone(&plane.cache), whole))
                    }
                };
                Poll::Ready(Ok(ready!(Pin::new(call).poll(cx)).unwrap_or_else(ResponseBody::error)))
            }
        }
    }
}

impl<B> DescribeCall for DataFuture<B> {
    type Description = CallDescription;

    fn describe(&self) -> CallDescription {
        match self {
            Self::Ready { .. } | Self::PutBlob { .. } => CallDescription::default(),
            Self::Unary { verb, headers, message, plane, .. }
            | Self::Blob { verb, headers, message, plane, .. } => {
                describe_request(*verb, message, headers, plane)
            }
            Self::Deferred { call } => call.description().clone(),
            Self::Flushing { flushing } => flushing.description.clone(),
            Self::Other { future } => future.describe(),
        }
    }
}

impl<B> Begun for DataFuture<B> {
    fn has_begun(&self) -> bool {
        match self {
            Self::Deferred { call } => call.has_begun(),
            Self::Flushing { .. } => true,
            // A blob's call begins when it is polled again.
            Self::Ready { .. } | Self::Unary { .. } | Self::PutBlob { .. } | Self::Blob { .. } => false,
            Self::Other { future } => future.has_begun(),
        }
    }

    fn is_arriving(&self) -> bool {
        match self {
            // One that waits for room in the budget of long requests is bounded there.
            Self::Unary { .. } | Self::Blob { call: None, .. } => true,
            // Its streams are bounded by themselves, and are whole at their end.
            Self::PutBlob { .. } => true,
            Self::Ready { .. } | Self::Deferred { .. } | Self::Flushing { .. } | Self::Blob { .. } => false,
            Self::Other { future } => future.is_arriving(),
        }
    }
}

/// What a call comes to that may be done at once.
enum AtOnce {
    Done(Unary),
    /// The answer waits until what was done is on the disk.
    Flushes(Unary),
    Deferred(Why),
}

/// Does a unary call at once if it can be.
#[inline]
fn at_once(
    verb: Verb,
    plane: &Plane,
    message: &[u8],
    progress: &mut CallProgress,
) -> Result<AtOnce, CallError> {
    let cache = &plane.cache;
    let request = CacheRequest::decode(verb, message, cache.limits().batch_items_max)?;
    let request = request.expect("what is served as unary is a request");
    match plan(cache, &request, message.len()) {
        Plan::Local | Plan::Steps if verb.writes() && cache.has_waiting_writes() => {
            return Ok(AtOnce::Deferred(Why::Backlogged));
        }
        Plan::Steps => return Ok(AtOnce::Deferred(Why::ManySteps)),
        Plan::Local => {}
    }
    match call(plane, &request, progress, None) {
        Ok((answer, false)) => Ok(AtOnce::Done(answer)),
        Ok((answer, true)) => Ok(AtOnce::Flushes(answer)),
        Err(Undone::Failed(CallError::JournalBacklog { .. })) => Ok(AtOnce::Deferred(Why::Backlogged)),
        Err(Undone::Failed(error)) => Err(error),
        Err(Undone::NeedsLoad(_)) if request.batch().is_some() => Ok(AtOnce::Deferred(Why::ManySteps)),
        Err(Undone::NeedsLoad(pending)) => {
            let key = request.keys().next().unwrap_or_default();
            Ok(AtOnce::Deferred(Why::Loading(pending.into_loading(key))))
        }
    }
}

/// What is kept for a call that is slow.
fn describe_request(verb: Verb, message: &Gathered, headers: &HeaderMap, plane: &Plane) -> CallDescription {
    describe(verb, message.whole(usize::MAX).ok(), headers, plane.cache.limits().batch_items_max)
}

/// An answer that waits until what was done is on the disk.
pub struct Flushing {
    flushed: Pin<Box<dyn Future<Output = bool> + Send>>,
    answer: Option<Unary>,
    trailers: Trailers,
    description: CallDescription,
}

impl Flushing {
    fn new(cache: &Arc<Cache>, answer: Unary, trailers: Trailers, description: CallDescription) -> Self {
        let flushed = cache.flushed();
        let flushed = Box::pin(async move { flushed.await.is_ok() });
        Self { flushed, answer: Some(answer), trailers, description }
    }
}

impl std::fmt::Debug for Flushing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flushing").finish_non_exhaustive()
    }
}

impl Future for Flushing {
    type Output = Response<ResponseBody>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let flushed = ready!(self.flushed.as_mut().poll(cx));
        let response = match self.answer.take() {
            Some(answer) if flushed => ResponseBody::unary(answer),
            _ => ResponseBody::error(CallError::JournalPoisoned),
        };
        Poll::Ready(std::mem::take(&mut self.trailers).onto(response))
    }
}

/// The frames of a unary request so far.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The only frame, as it came; most requests have one.
    first: Bytes,
    /// All frames, once there is a second.
    all: BytesMut,
    /// Its place in the budget, if it is long.
    permit: Option<RequestPermit>,
}

impl Gathered {
    /// Gathers a body's frames to its end; those of a long message when the node has admitted it.
    fn poll_gather<B>(
        &mut self,
        mut body: Pin<&mut B>,
        max: usize,
        plane: &Plane,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), CallError>>
    where
        B: Body<Data = Bytes>,
    {
        loop {
            if let Some(permit) = &mut self.permit {
                ready!(permit.poll(cx));
            }
            let Poll::Ready(frame) = body.as_mut().poll_frame(cx) else {
                let permit = self.permit.as_mut();
                return permit.map_or(Poll::Pending, |permit| permit.poll_slow(cx).map(Err));
            };
            match frame {
                None => return Poll::Ready(Ok(())),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let bytes = self.push(data, max)?;
                    if body.is_end_stream() {
                        return Poll::Ready(Ok(()));
                    }
                    if bytes > UNCOUNTED_BYTES_MAX && self.permit.is_none() {
                        self.permit = Some(plane.requests.admit(bytes, &plane.stopped)?);
                    }
                }
                // The client has gone; nobody reads the answer.
                Some(Err(_)) => {
                    return Poll::Ready(Err(GrpcError::Frame { what: "the request broke off" }.into()));
                }
            }
        }
    }

    /// Adds a frame; the message's length, as far as it is known.
    fn push(&mut self, data: Bytes, max: usize) -> Result<usize, CallError> {
        if self.first.is_empty() && self.all.is_empty() {
            self.first = data;
        } else {
            if self.all.is_empty() {
                self.all.reserve(message_len(&self.first, max)?.map_or(0, |len| PREFIX + len));
                self.all.extend_from_slice(&std::mem::take(&mut self.first));
            }
            self.all.extend_from_slice(&data);
        }
        // A message that is too long is refused as soon as its prefix is here, not when it has been read.
        let bytes = self.bytes().len();
        match message_len(self.bytes(), max)? {
            Some(len) if bytes > PREFIX + len => {
                Err(GrpcError::Frame { what: "a unary request has one message, and something follows it" }
                    .into())
            }
            len => Ok(len.unwrap_or(0)),
        }
    }

    /// The message that was found to be whole, and its place in the budget. A short one is copied, so that it does not
    /// keep all that was read from the connection with it, and counts where it waits.
    fn take(&mut self) -> (Bytes, Option<RequestPermit>) {
        let permit = self.permit.take().filter(|_| self.bytes().len() > PREFIX + SHORT_REQUEST_BYTES_MAX);
        let message = match &permit {
            Some(_) if !self.all.is_empty() => self.all.split().freeze().slice(PREFIX..),
            _ => Bytes::copy_from_slice(&self.bytes()[PREFIX..]),
        };
        (message, permit)
    }

    fn bytes(&self) -> &[u8] {
        if self.all.is_empty() { &self.first } else { &self.all }
    }

    /// The whole message.
    fn whole(&self, max: usize) -> Result<&[u8], CallError> {
        let frame = self.bytes();
        match message_len(frame, max)? {
            Some(len) if frame.len() == PREFIX + len => Ok(&frame[PREFIX..]),
            _ => Err(GrpcError::Frame { what: "the request ends before its message does" }.into()),
        }
    }
}
