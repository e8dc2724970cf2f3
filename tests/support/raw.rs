//! HTTP/2 by hand, for requests that no gRPC client would send.

#![allow(dead_code, reason = "every test program uses its own part")]

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, StatusCode};
use tokio::net::TcpStream;
use tonic::Status;

use super::node::soon;

/// The first bytes of a client's connection.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The frame that follows them.
pub(crate) const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A connection.
pub(crate) struct Raw(SendRequest<Bytes>);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) http: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The call's status, from the head or the trailers.
    pub(crate) status: Option<Status>,
}

/// A gRPC frame: the flag, the length it says, and the message.
pub(crate) fn frame(flag: u8, len: usize, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(flag);
    frame.put_u32(u32::try_from(len).unwrap());
    frame.put_slice(message);
    frame.freeze()
}

/// A whole and right frame.
pub(crate) fn framed(message: &impl prost::Message) -> Bytes {
    let message = message.encode_to_vec();
    frame(0, message.len(), &message)
}

/// A POST as gRPC clients send it.
pub(crate) fn post(path: &str) -> http::request::Builder {
    Request::post(format!("http://larder{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

impl Raw {
    pub(crate) async fn connect(authority: &str) -> Self {
        Self::connect_with(authority, 65_535).await
    }

    /// A connection whose streams let the node send `window` bytes ahead of what was read.
    pub(crate) async fn connect_with(authority: &str, window: u32) -> Self {
        let stream = soon(TcpStream::connect(authority)).await.unwrap();
        // As gRPC clients do: else a request that is longer than a window waits 40 ms for each.
        stream.set_nodelay(true).unwrap();
        let handshake = h2::client::Builder::new().initial_window_size(window).handshake(stream);
        let (send, connection) = soon(handshake).await.unwrap();
        tokio::spawn(connection);
        Self(send)
    }

    /// Sends a head, and leaves the body open.
    pub(crate) async fn open(&self, head: http::request::Builder) -> (ResponseFuture, SendStream<Bytes>) {
        let mut send = soon(self.0.clone().ready()).await.unwrap();
        send.send_request(head.body(()).unwrap(), false).unwrap()
    }

    /// A whole call.
    pub(crate) async fn call(&self, head: http::request::Builder, body: Bytes) -> Answer {
        let (response, mut send) = self.open(head).await;
        send.send_data(body, true).unwrap();
        answer(response).await
    }

    /// A call of Cache's `method`.
    pub(crate) async fn cache(&self, method: &str, body: Bytes) -> Answer {
        self.call(post(&format!("/larder.v1.Cache/{method}")), body).await
    }
}

/// Reads an answer to its end.
pub(crate) async fn answer(response: ResponseFuture) -> Answer {
    let response = soon(response).await.unwrap();
    let http = response.status();
    let (head, mut stream) = response.into_parts();
    let (body, trailers) = read(&mut stream).await;
    let status = Status::from_header_map(&head.headers).or_else(|| Status::from_header_map(&trailers));
    Answer { http, headers: head.headers, body, status }
}

async fn read(stream: &mut RecvStream) -> (Bytes, HeaderMap) {
    let mut body = BytesMut::new();
    while let Some(chunk) = soon(stream.data()).await {
        let chunk = chunk.unwrap();
        stream.flow_control().release_capacity(chunk.len()).unwrap();
        body.extend_from_slice(&chunk);
    }
    (body.freeze(), soon(stream.trailers()).await.unwrap().unwrap_or_default())
}
