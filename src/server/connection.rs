//! One connection: its opening, HTTP/2 with every limit set, its end.
//!
//! hyper is used directly because tonic's server leaves hyper's own limits off (streams, resets), waits for ever
//! for a peer that says nothing, and cuts connections without a GOAWAY. What answers the requests is any tower
//! service; a connection ends
//! - when its peer goes, or does not answer a keepalive ping,
//! - when its peer sends too many frames that ask for nothing (`frames`): GOAWAY,
//! - when its opening takes longer than [`ConnectionConfig::first_byte_timeout`],
//! - when its listener finishes: GOAWAY, then the end of the calls that run,
//! - when its listener is cut: at once.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tower_service::Service;
use tracing::debug;

use super::executor::{Progressed, StreamExecutor};
use super::frames::{FollowedIo, Reading};
use super::listen::Unread;
use super::phase::{Phase, PhaseSignal};
use super::preface::{Preface, decline_http1, hang_up, read_preface};
use super::stall::ProgressBody;
use super::unread_answers::ConnectionAnswers;
use super::write_coalescer::coalesce;
use super::write_timeout::WriteTimeout;
use crate::clock::UnreadTime;
use crate::endpoint::PeerInfo;

/// What every connection is held to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionConfig {
    /// How long a peer may take to begin to speak HTTP/2 (or, on the HTTP listener, to send a request's head).
    pub first_byte_timeout: Duration,
    /// Calls at once on one connection. The same number bounds how many stream errors a connection may cause before the
    /// node closes it with a GOAWAY, and 16 times that, how many calls a peer may reset before the node has looked at them.
    pub streams_max: u32,
    /// How long a connection is silent before the node asks whether its peer is there.
    pub keepalive_interval: Duration,
    /// How long the peer may take to answer that.
    pub keepalive_timeout: Duration,
    /// How long a call's peer may take nothing of an answer that waits for it, before the call is reset (or, on the HTTP
    /// listener, the connection is closed).
    pub stall_timeout: Duration,
    /// What a peer may send of one call before the node has read it.
    pub stream_window_bytes: u32,
    /// And of all its calls together: several times that, so that large requests which wait do not stop those beside
    /// them.
    pub window_bytes: u32,
}

impl Default for ConnectionConfig {
    /// 5 s to begin, 256 calls at once, a ping after 20 s, 10 s to answer it, 10 s to read on, 2 MiB unread.
    fn default() -> Self {
        Self {
            first_byte_timeout: Duration::from_secs(5),
            streams_max: 256,
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(10),
            stream_window_bytes: 64 << 10,
            window_bytes: 2 << 20,
        }
    }
}

impl ConnectionConfig {
    /// HTTP/2 as this node speaks it.
    pub(crate) fn http2(&self, progressed: Progressed) -> http2::Builder<StreamExecutor> {
        let mut http2 = http2::Builder::new(StreamExecutor::new(self.stall_timeout, progressed));
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.streams_max)
            // Many calls of a connection that has a backlog are given up before they are read. What is given up at
            // once is counted where its frames are.
            .max_pending_accept_reset_streams(PENDING_RESETS * self.streams_max as usize)
            .max_local_error_reset_streams(self.streams_max as usize)
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .initial_stream_window_size(self.stream_window_bytes)
            .initial_connection_window_size(self.window_bytes)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
            .keep_alive_interval(self.keepalive_interval)
            .keep_alive_timeout(self.keepalive_timeout)
            // gRPC has no use for it.
            .auto_date_header(false);
        http2
    }

    /// HTTP/1.1 for probes and scrapers.
    pub(crate) fn http1(&self) -> http1::Builder {
        let mut http1 = http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(self.first_byte_timeout);
        http1
    }
}

/// A [`ConnectionConfig`] that can be changed: it holds for the connections that come then. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct LiveConnectionConfig(Arc<ArcSwap<ConnectionConfig>>);

impl LiveConnectionConfig {
    pub(crate) fn new(config: ConnectionConfig) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(config)))
    }

    pub(crate) fn get(&self) -> ConnectionConfig {
        ConnectionConfig::clone(&self.0.load())
    }

    pub(crate) fn set(&self, config: ConnectionConfig) {
        self.0.store(Arc::new(config));
    }
}

/// What is known of a connection when it begins.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// Whose it is.
    pub peer: PeerInfo,
    /// How long what is read from it had come before.
    pub unread: UnreadTime,
}

/// What serves a listener's connections: each has a [`GrpcService`] of its own, which [`PerConnection`] makes. There is none that
/// connections share, since a share of what each may have is counted by the service that is its own.
pub trait ConnectionService: Clone + Send + Sync + 'static {
    /// What serves one connection.
    type Service: GrpcService;

    /// What serves this connection.
    fn service(&self, connection: &ConnectionInfo) -> Self::Service;
}

/// Makes a service for each connection that knows what is known of it.
#[derive(Debug, Clone)]
pub struct PerConnection<F>(pub F);

impl<F, S> ConnectionService for PerConnection<F>
where
    F: Fn(&ConnectionInfo) -> S + Clone + Send + Sync + 'static,
    S: GrpcService,
{
    type Service = S;

    fn service(&self, connection: &ConnectionInfo) -> S {
        (self.0)(connection)
    }
}

/// A tower service that a connection can be served by, always ready.
pub trait GrpcService:
    Service<
        Request<Incoming>,
        Response = Response<<Self as GrpcService>::Body>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
    /// What its responses carry.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;
}

impl<S, B> GrpcService for S
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    type Body = B;
}

/// Serves gRPC on a connection until it ends.
pub(crate) async fn serve_grpc<I, S>(
    io: I,
    peer: PeerInfo,
    mut phase: PhaseSignal,
    service: S,
    (config, reading): (ConnectionConfig, Reading),
) where
    I: AsyncRead + AsyncWrite + Unread + Unpin + Send + 'static,
    S: GrpcService,
{
    let preface = tokio::select! {
        // Nothing has begun that could be finished.
        _ = phase.left_open() => return,
        preface = timeout(config.first_byte_timeout, read_preface(io)) => preface,
    };
    let io = match preface {
        Ok(Ok(Preface::Http2(io))) => io,
        Ok(Ok(Preface::Http1(io))) => {
            debug!(%peer, "HTTP/1 on a gRPC port");
            let _ = timeout(config.first_byte_timeout, decline_http1(io)).await;
            return;
        }
        Ok(Ok(Preface::Foreign)) => return debug!(%peer, "neither HTTP/2 nor HTTP/1: closed (TLS?)"),
        Ok(Ok(Preface::Left)) => return,
        Ok(Err(error)) => return debug!(%peer, %error, "connection lost before it began"),
        Err(_) => return debug!(%peer, "no HTTP/2 opening in time: closed"),
    };
    let (io, coalescer) = coalesce(io);
    let io = FollowedIo::new(io, reading.clone());
    let ended = {
        let progressed = Progressed::default();
        let http2 = config.http2(progressed.clone());
        let connection = pin!(http2.serve_connection(
            TokioIo::new(io),
            PerCall { service: Mutex::new(service), reading: Some(reading.clone()) }
        ));
        let words = (progressed, Some(reading.clone()));
        run(connection, &mut phase, words, http2::Connection::graceful_shutdown, |context| {
            // An error shows again at the connection's next read or write, which ends it.
            let _ = coalescer.send(context);
            reading.end_turn();
        })
        .await
    };
    let Err(error) = ended else { return };
    if !reading.is_spent() {
        return debug!(%peer, error = &error as &dyn Error, "connection ended with an error");
    }
    debug!(%peer, "too many frames that ask for nothing: told to go away");
    // One that hears it hangs up. One that sends on would only come again: it is kept waiting, which costs nothing.
    let heard = async {
        if let Ok(Some(_deaf)) = hang_up(coalescer.into_io()).await {
            pending().await
        }
    };
    tokio::select! {
        _ = phase.left_open() => {}
        _ = timeout(config.first_byte_timeout, heard) => {}
    }
}

/// Serves plain HTTP on a connection until it ends.
pub(crate) async fn serve_http<I>(
    io: I,
    peer: PeerInfo,
    mut phase: PhaseSignal,
    router: Router,
    config: ConnectionConfig,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(WriteTimeout::new(io, config.stall_timeout));
    let connection =
        pin!(config.http1().serve_connection(io, PerCall { service: Mutex::new(router), reading: None }));
    let ended = run(connection, &mut phase, Default::default(), http1::Connection::graceful_shutdown, |_| {});
    if let Err(error) = ended.await {
        debug!(%peer, error = &error as &dyn Error, "HTTP connection ended with an error");
    }
}

/// Runs a connection of hyper's until it ends or is cut; `finish` makes it end when its calls have, `idle` is
/// called whenever it has nothing more to do for now. Its bytes are told when its turn begins. Where its streams have made progress, it goes to the end of the queue
/// of what is ready once, so that what they and others answer at the same time is sent together.
async fn run<C>(
    mut connection: Pin<&mut C>,
    phase: &mut PhaseSignal,
    (progressed, reading): (Progressed, Option<Reading>),
    finish: fn(Pin<&mut C>),
    idle: impl Fn(&mut Context<'_>),
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut has_queued = false;
    poll_fn(|context| {
        has_queued = progressed.take() && !has_queued;
        if has_queued {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(reading) = &reading {
            reading.begin_turn();
        }
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                return Poll::Ready(ended);
            }
            match phase.poll_next(context) {
                Poll::Ready(Phase::Cut) => return Poll::Ready(Ok(())),
                Poll::Ready(Phase::Finishing) => finish(connection.as_mut()),
                Poll::Ready(Phase::Open) => {}
                Poll::Pending => {
                    idle(context);
                    return Poll::Pending;
                }
            }
        }
    })
    .await
}

/// A connection's tower service as hyper calls one, without a clone for each call, its answers [`ProgressBody`]. Ours are always ready; the
/// lock is the connection's own and never waited for.
#[derive(Debug)]
struct PerCall<S> {
    service: Mutex<S>,
    /// Of the connection's bytes, where they are followed.
    reading: Option<Reading>,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for PerCall<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
{
    type Response = Response<ProgressBody<B>>;
    type Error = S::Error;
    type Future = Answered<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(reading) = &self.reading {
            reading.stamp(&mut request);
        }
        let answers = self.reading.as_ref().map(Reading::answers);
        Answered { call: self.service.lock().call(request), answers }
    }
}

pin_project! {
    /// A call whose answer counts until it is read.
    struct Answered<F> {
        #[pin]
        call: F,
        answers: Option<Arc<ConnectionAnswers>>,
    }
}

impl<F, B, E> Future for Answered<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ProgressBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answered = ready!(this.call.poll(context));
        let unread = this.answers.take().map(ConnectionAnswers::enter);
        Poll::Ready(answered.map(|response| response.map(|body| ProgressBody::new(body, unread))))
    }
}

/// Calls that were given up before the node looked at them, for each that may be open.
const PENDING_RESETS: usize = 16;
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
const FRAME_BYTES_MAX: u32 = 16 * 1024;

/// Of each stream: what a peer that does not read makes the node hold beyond the message being sent.
const SEND_BUFFER_BYTES_MAX: usize = 256 * 1024;
