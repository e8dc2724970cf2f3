//! The connections to one node.
//!
//! One HTTP/2 connection is one socket read and written by one task, so several are kept and taken in turn
//! (several gave about five times the throughput of one). Each is made on first use and made again after it
//! breaks; keepalive pings find a peer that went silent.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::batch::BatchLimits;
use super::error::ClientError;
use super::url::{BadNodeUrl, NodeUrl};
use crate::entry::MESSAGE_BYTES_MAX;
use crate::proto::v1::admin_client::AdminClient;
use crate::proto::v1::cache_client::CacheClient;
use tonic_health::pb::health_client::HealthClient;

/// How long the local timer waits beyond the deadline that the node was told, so that the node's own answer
/// wins where there is one.
const GRACE: Duration = Duration::from_millis(50);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(5);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Several lazy connections to one node, and the deadline of a call on them.
#[derive(Debug)]
pub(crate) struct Pool {
    url: NodeUrl,
    channels: Vec<Channel>,
    next: AtomicUsize,
    timeout: Duration,
    max_message_bytes: usize,
    limits: BatchLimits,
}

impl Pool {
    pub(crate) fn new(
        url: NodeUrl,
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
        let channels = (0..connections.get()).map(|_| endpoint.connect_lazy()).collect();
        let (next, limits) = (AtomicUsize::new(0), BatchLimits::default());
        Ok(Self { url, channels, next, timeout, max_message_bytes, limits })
    }

    /// What the node was seen to take at once.
    pub(crate) fn limits(&self) -> &BatchLimits {
        &self.limits
    }

    pub(crate) fn url(&self) -> &NodeUrl {
        &self.url
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The next connection in turn.
    pub(crate) fn channel(&self) -> Channel {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.channels[turn % self.channels.len()].clone()
    }

    pub(crate) fn cache(&self) -> CacheClient<Channel> {
        CacheClient::new(self.channel())
            .max_decoding_message_size(self.max_message_bytes)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel())
            .max_decoding_message_size(self.max_message_bytes)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel())
    }

    /// A request that tells the node its deadline.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    /// Awaits a call, no longer than its deadline and a little.
    pub(crate) async fn finish<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, ClientError> {
        match tokio::time::timeout(self.timeout.saturating_add(GRACE), call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.error(method, status)),
            Err(_elapsed) => Err(self.timed_out(method)),
        }
    }

    pub(crate) fn error(&self, method: &'static str, status: Status) -> ClientError {
        ClientError::from_status(&self.url, method, self.timeout, status)
    }

    pub(crate) fn timed_out(&self, method: &'static str) -> ClientError {
        ClientError::Timeout { url: self.url.to_string(), method, after: self.timeout }
    }

    pub(crate) fn bad_answer(&self, method: &'static str, problem: impl Into<String>) -> ClientError {
        ClientError::BadAnswer { url: self.url.to_string(), method, problem: problem.into() }
    }
}
