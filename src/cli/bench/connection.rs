//! A connection for unary calls, straight on hyper: the layers of a tonic Channel (queue, reconnect, headers of
//! each call) would cost the load thread about as much again as the call itself.
//!
//! ```text
//!  request and answer   ┌───┬────────────┬─────────┐
//!                       │ 0 │ length u32 │ message │   big-endian; 0 = not compressed
//!                       └───┴────────────┴─────────┘
//! ```

use std::cell::RefCell;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tonic::{Code, Status};

use crate::endpoint::Endpoint;
use crate::entry::MESSAGE_BYTES_MAX;

const HEAD_BYTES: usize = 5;
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// A connection that is made on first use, and again after it breaks. Many callers of one thread share it.
#[derive(Debug)]
pub(super) struct Connection {
    endpoint: Endpoint,
    headers: HeaderMap,
    sender: RefCell<Option<SendRequest<Full<Bytes>>>>,
    connecting: Mutex<()>,
}

impl Connection {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        Self { endpoint: endpoint.clone(), headers, sender: RefCell::default(), connecting: Mutex::default() }
    }

    /// Where a method is called.
    pub(super) fn method(&self, path: PathAndQuery) -> Result<Uri, http::Error> {
        let authority = self.endpoint.host_port().map_or_else(|| "localhost".to_owned(), ToString::to_string);
        Uri::builder().scheme("http").authority(authority).path_and_query(path).build()
    }

    /// Calls a method and hands its answer out undecoded.
    pub(super) async fn call(&self, method: Uri, message: &[u8]) -> Result<Bytes, Status> {
        read(self.open_stream(method, message).await?).await
    }

    /// Calls a method; what it answers is for the caller to read.
    pub(super) async fn open_stream(
        &self,
        method: Uri,
        message: &[u8],
    ) -> Result<http::Response<Incoming>, Status> {
        let mut framed = BytesMut::with_capacity(HEAD_BYTES + message.len());
        framed.put_u8(0);
        framed.put_u32(
            u32::try_from(message.len()).map_err(|_| Status::resource_exhausted("no frame holds it"))?,
        );
        framed.put_slice(message);
        let mut request = Request::new(Full::new(framed.freeze()));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = method;
        *request.headers_mut() = self.headers.clone();
        let mut sender = self.sender().await.map_err(|error| Status::unavailable(error.to_string()))?;
        sender.ready().await.map_err(|error| broken(&error))?;
        sender.send_request(request).await.map_err(|error| broken(&error))
    }

    fn open(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.sender.borrow().as_ref().filter(|sender| !sender.is_closed()).cloned()
    }

    async fn sender(&self) -> Result<SendRequest<Full<Bytes>>, Box<dyn std::error::Error>> {
        if let Some(sender) = self.open() {
            return Ok(sender);
        }
        let _connecting = self.connecting.lock().await;
        // Another caller may have connected meanwhile.
        if let Some(sender) = self.open() {
            return Ok(sender);
        }
        let sender = match &self.endpoint {
            Endpoint::Unix(path) => begin(UnixStream::connect(path).await?).await?,
            other => {
                let stream = TcpStream::connect(other.authority()).await?;
                stream.set_nodelay(true)?;
                begin(stream).await?
            }
        };
        *self.sender.borrow_mut() = Some(sender.clone());
        Ok(sender)
    }
}

/// HTTP/2 on a stream that is connected.
async fn begin(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, hyper::Error> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .handshake(TokioIo::new(stream))
        .await?;
    // How it ended shows in the calls on it.
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

/// The message of an answer, once its status has come and is OK.
async fn read(response: http::Response<Incoming>) -> Result<Bytes, Status> {
    let mut end = Status::from_header_map(response.headers());
    let mut body = response.into_body();
    let (mut first, mut more) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        match frame.map_err(|error| broken(&error))?.into_data() {
            Ok(data) if first.is_empty() => first = data,
            Ok(data) if more.len() + data.len() > MESSAGE_BYTES_MAX => {
                return Err(Status::resource_exhausted("the answer is longer than any node's"));
            }
            Ok(data) => more.put(data),
            Err(frame) => end = frame.trailers_ref().and_then(Status::from_header_map).or(end),
        }
    }
    match end {
        Some(status) if status.code() == Code::Ok => {}
        Some(status) => return Err(status),
        None => return Err(Status::internal("the answer has no status")),
    }
    let mut message = if more.is_empty() {
        first
    } else {
        let mut whole = BytesMut::with_capacity(first.len() + more.len());
        whole.put(first);
        whole.put(more);
        whole.freeze()
    };
    if message.len() < HEAD_BYTES || message.get_u8() != 0 || message.get_u32() as usize != message.len() {
        return Err(Status::internal("the answer is no gRPC frame"));
    }
    Ok(message)
}

fn broken(error: &hyper::Error) -> Status {
    if error.is_timeout() {
        Status::deadline_exceeded(error.to_string())
    } else {
        Status::unavailable(error.to_string())
    }
}
