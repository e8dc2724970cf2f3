//! The connections to one node, and the one path of every call on them.
//!
//! One HTTP/2 connection is one socket read and written by one task, so several are kept and taken in turn
//! (several gave about five times the throughput of one). Each is made on first use and made again after it
//! breaks; keepalive pings find a peer that went silent.
//!
//! ```text
//!  call     one request, one answer      deadline told to the node, and kept here
//!  open     one request, a stream        deadline of the beginning; each wait for a message has the reader's own
//!  upload   a stream, one answer         none: the caller bounds what it sends
//!  exchange a stream each way, of bytes  none: the reader bounds each wait
//! ```

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::batch::BatchLimits;
use super::codec::RawCodec;
use super::connect::Connector;
use super::error::ClientError;
use super::process::Process;
use super::request::Request;
use super::trace::Trace;
use super::url::{BadNodeUrl, NodeUrl};
use crate::entry::MESSAGE_BYTES_MAX;
use crate::verb::Verb;

/// How long the local timer waits beyond the deadline that was sent to the node, so that the node's own answer wins
/// where there is one.
const GRACE: Duration = Duration::from_millis(50);
pub(super) const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(5);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Several lazy connections to one node, and the deadline of a call on them.
#[derive(Debug)]
pub(super) struct Pool {
    url: NodeUrl,
    /// The process that the connections belong to.
    built_in: Process,
    channels: Vec<Channel>,
    next: AtomicUsize,
    timeout: Duration,
    max_message_bytes: usize,
    limits: BatchLimits,
}

/// A request that carries the trace's context, if there is one.
fn traced<M>(message: M, trace: &Trace<'_>) -> tonic::Request<M> {
    let mut request = tonic::Request::new(message);
    let traceparent = trace.traceparent();
    if !traceparent.is_empty()
        && let Ok(traceparent) = traceparent.parse()
    {
        request.metadata_mut().insert("traceparent", traceparent);
    }
    request
}

impl Pool {
    pub(super) fn new(
        url: NodeUrl,
        connector: &Connector,
        connections: NonZeroUsize,
        timeout: Duration,
        max_message_bytes: usize,
    ) -> Result<Self, ClientError> {
        let endpoint = Endpoint::from_shared(url.channel_uri())
            .map_err(|_| BadNodeUrl::Malformed {
                url: url.to_string().into(),
                problem: "its host is no host name",
            })?
            .tcp_nodelay(true)
            .connect_timeout(timeout.min(CONNECT_TIMEOUT_MAX))
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let channels = (0..connections.get()).map(|_| connector.channel(&endpoint, &url)).collect();
        let (next, limits) = (AtomicUsize::new(0), BatchLimits::default());
        let built_in = Process::current();
        Ok(Self { url, built_in, channels, next, timeout, max_message_bytes, limits })
    }

    /// The process that the connections belong to, and no fork of it.
    pub(super) fn built_in(&self) -> Process {
        self.built_in
    }

    /// What the node was seen to take at once.
    pub(super) fn limits(&self) -> &BatchLimits {
        &self.limits
    }

    pub(super) fn url(&self) -> &NodeUrl {
        &self.url
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Asks for what the message's verb does and awaits the answer, no longer than the deadline and a little.
    pub(super) async fn call<R: Request>(&self, message: R) -> Result<R::Answer, ClientError> {
        self.unary(R::VERB.name(), R::VERB.path(), message).await
    }

    /// [`Self::call`] with a deadline of its own, as a part of a trace.
    pub(super) async fn call_within<R: Request>(
        &self,
        message: R,
        timeout: Duration,
        trace: &Trace<'_>,
    ) -> Result<R::Answer, ClientError> {
        let request = traced(message, trace);
        trace.over(self.ask(R::VERB.name(), R::VERB.path(), request, timeout)).await
    }

    /// [`Self::call`] of a method that is not the contract's.
    pub(super) async fn unary<M, A>(
        &self,
        method: &'static str,
        path: &'static str,
        message: M,
    ) -> Result<A, ClientError>
    where
        M: Message + 'static,
        A: Message + Default + 'static,
    {
        self.ask(method, path, tonic::Request::new(message), self.timeout).await
    }

    async fn ask<M, A>(
        &self,
        method: &'static str,
        path: &'static str,
        mut request: tonic::Request<M>,
        timeout: Duration,
    ) -> Result<A, ClientError>
    where
        M: Message + 'static,
        A: Message + Default + 'static,
    {
        request.set_timeout(timeout);
        let path = PathAndQuery::from_static(path);
        let call = async { self.grpc().await?.unary(request, path, ProstCodec::default()).await };
        self.within(method, timeout, call).await
    }

    /// Asks for a stream of answers, and awaits that it is open.
    pub(super) async fn open<R: Request>(
        self: &Arc<Self>,
        message: R,
    ) -> Result<Incoming<R::Answer>, ClientError> {
        self.stream(R::VERB.name(), R::VERB.path(), tonic::Request::new(message), self.timeout).await
    }

    /// [`Self::open`] with a deadline of its own, as a part of a trace.
    pub(super) async fn open_within<R: Request>(
        self: &Arc<Self>,
        message: R,
        timeout: Duration,
        trace: &Trace<'_>,
    ) -> Result<Incoming<R::Answer>, ClientError> {
        let request = traced(message, trace);
        trace.over(self.stream(R::VERB.name(), R::VERB.path(), request, timeout)).await
    }

    /// [`Self::open`] of a method that is not the contract's.
    pub(super) async fn stream<M, A>(
        self: &Arc<Self>,
        method: &'static str,
        path: &'static str,
        request: tonic::Request<M>,
        timeout: Duration,
    ) -> Result<Incoming<A>, ClientError>
    where
        M: Message + 'static,
        A: Message + Default + 'static,
    {
        // No grpc-timeout: the stream is meant to last.
        let path = PathAndQuery::from_static(path);
        let call = async { self.grpc().await?.server_streaming(request, path, ProstCodec::default()).await };
        self.incoming(method, timeout, call).await
    }

    /// Sends a stream of messages and awaits the answer, however long that takes.
    pub(super) async fn upload<M, A>(
        &self,
        verb: Verb,
        messages: impl Stream<Item = M> + Send + 'static,
        trace: &Trace<'_>,
    ) -> Result<A, ClientError>
    where
        M: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::from_static(verb.path());
        let request = traced(messages, trace);
        let call = async { self.grpc().await?.client_streaming(request, path, ProstCodec::default()).await };
        let answered =
            async { call.await.map(Response::into_inner).map_err(|status| self.error(verb.name(), status)) };
        trace.over(answered).await
    }

    /// Opens a stream of messages each way, which are the caller's to write and read.
    pub(super) async fn exchange(
        &self,
        verb: Verb,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Response<Streaming<Bytes>>, Status> {
        let path = PathAndQuery::from_static(verb.path());
        self.grpc().await?.streaming(tonic::Request::new(messages), path, RawCodec).await
    }

    /// What a node sends on a stream that `call` opens.
    pub(super) async fn incoming<T>(
        self: &Arc<Self>,
        method: &'static str,
        timeout: Duration,
        call: impl Future<Output = Result<Response<Streaming<T>>, Status>>,
    ) -> Result<Incoming<T>, ClientError> {
        let messages = self.within(method, timeout, call).await?;
        Ok(Incoming { pool: self.clone(), method, messages })
    }

    /// The next connection in turn, once it takes a call.
    async fn grpc(&self) -> Result<Grpc<Channel>, Status> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let mut grpc = Grpc::new(self.channels[turn % self.channels.len()].clone())
            .max_decoding_message_size(self.max_message_bytes)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        Ok(grpc)
    }

    /// Awaits a call, no longer than its deadline and a little.
    async fn within<T>(
        &self,
        method: &'static str,
        timeout: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, ClientError> {
        ClientError::check_process(self.built_in)?;
        match tokio::time::timeout(timeout.saturating_add(GRACE), call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(ClientError::from_status(&self.url, method, timeout, status)),
            Err(_elapsed) => Err(self.timed_out(method, timeout)),
        }
    }

    fn error(&self, method: &'static str, status: Status) -> ClientError {
        ClientError::from_status(&self.url, method, self.timeout, status)
    }

    pub(super) fn timed_out(&self, method: &'static str, after: Duration) -> ClientError {
        ClientError::Timeout { url: self.url.to_string(), method, after, phase: None }
    }

    pub(super) fn bad_answer(&self, method: &'static str, problem: impl Into<String>) -> ClientError {
        ClientError::BadAnswer { url: self.url.to_string(), method, problem: problem.into() }
    }
}

/// What a node sends on a stream that is open.
#[derive(Debug)]
pub(super) struct Incoming<T> {
    pool: Arc<Pool>,
    method: &'static str,
    messages: Streaming<T>,
}

impl<T> Incoming<T> {
    /// The next message, waited for no longer than `wait`, where that is given. `None`: the node has ended the stream.
    pub(super) async fn next(&mut self, wait: Option<Duration>) -> Result<Option<T>, ClientError> {
        ClientError::check_process(self.pool.built_in)?;
        let next = self.messages.message();
        let next = match wait {
            None => next.await,
            Some(wait) => match tokio::time::timeout(wait, next).await {
                Ok(next) => next,
                Err(_elapsed) => return Err(self.pool.timed_out(self.method, wait)),
            },
        };
        next.map_err(|status| self.pool.error(self.method, status))
    }
}
