//! An open Pipeline stream with the connection that it is alone on, both driven by the task that polls this.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::client::Connection;
use h2::{Ping, PingPong, RecvStream, SendStream};
use http::{HeaderMap, Request, Response, Version};
use tonic::Status;

use super::LaneConfig;
use super::fault::{Fault, FaultKind};
use crate::client::connect::Socket;
use crate::grpc::frame;
use crate::verb::Verb;

/// A stream that takes batches and gives messages.
pub(super) struct PipelineStream {
    connection: Connection<Socket, Bytes>,
    send: SendStream<Bytes>,
    receive: RecvStream,
    ping: PingPong,
    /// What of the last batch has found no room in the window yet.
    pending: Bytes,
    /// The beginning of a message that is not whole.
    partial: BytesMut,
    max_message_bytes: usize,
}

const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Long frames, so that most messages are whole in one and need no copy.
const FRAME_BYTES_MAX: u32 = 1 << 20;

impl PipelineStream {
    /// Opens a stream on a new connection. It is open when the node has answered.
    pub(super) async fn open(config: &LaneConfig) -> Result<Self, Fault> {
        let socket =
            config.connector.connect(&config.url).await.map_err(|error| Fault::unreachable(&error))?;
        let handshake = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .enable_push(false)
            .handshake(socket)
            .await;
        let (mut sender, mut connection) = handshake.map_err(|error| Fault::of_http2(&error))?;
        let ping = connection.ping_pong().expect("it is asked for once");
        driven(&mut connection, |cx| sender.poll_ready(cx)).await?;
        let (mut response, send) =
            sender.send_request(request(config), false).map_err(|error| Fault::of_http2(&error))?;
        let response = driven(&mut connection, |cx| Pin::new(&mut response).poll(cx)).await?;
        let receive = accepted(response)?;
        Ok(Self {
            connection,
            send,
            receive,
            ping,
            pending: Bytes::new(),
            partial: BytesMut::new(),
            max_message_bytes: config.max_message_bytes,
        })
    }

    /// Reads and writes what the socket has and takes. Ready: the connection is over.
    pub(super) fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        match ready!(Pin::new(&mut self.connection).poll(cx)) {
            Ok(()) => Poll::Ready(Fault::closed()),
            Err(error) => Poll::Ready(Fault::of_http2(&error)),
        }
    }

    /// Takes another batch, once the one before has left.
    pub(super) fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        while !self.pending.is_empty() {
            self.send.reserve_capacity(self.pending.len());
            let mut capacity = self.send.capacity();
            if capacity == 0 {
                capacity = match ready!(self.send.poll_capacity(cx)) {
                    Some(Ok(capacity)) => capacity,
                    Some(Err(error)) => return Poll::Ready(Err(Fault::of_http2(&error))),
                    None => return Poll::Ready(Err(Fault::closed())),
                };
            }
            let part = self.pending.split_to(capacity.min(self.pending.len()));
            self.send.send_data(part, false).map_err(|error| Fault::of_http2(&error))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends a batch; [`Self::poll_idle`] moves what finds no room yet.
    pub(super) fn send(&mut self, batch: Bytes) {
        debug_assert!(self.pending.is_empty(), "the batch before has left");
        self.pending = batch;
    }

    /// The next bytes of the answer, whose whole messages are put to the others.
    pub(super) fn poll_messages(
        &mut self,
        cx: &mut Context<'_>,
        messages: &mut VecDeque<Bytes>,
    ) -> Poll<Result<(), Fault>> {
        let data = match ready!(self.receive.poll_data(cx)) {
            Some(Ok(data)) => data,
            Some(Err(error)) => return Poll::Ready(Err(Fault::of_http2(&error))),
            None => return self.poll_end(cx).map(Err),
        };
        // A window that was given back is no harm to a connection that is over.
        let _ = self.receive.flow_control().release_capacity(data.len());
        Poll::Ready(self.split(data, messages))
    }

    /// Why the node has ended the stream.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        Poll::Ready(match ready!(self.receive.poll_trailers(cx)) {
            Ok(trailers) => trailers.as_ref().map_or_else(Fault::closed, ended),
            Err(error) => Fault::of_http2(&error),
        })
    }

    fn split(&mut self, mut data: Bytes, messages: &mut VecDeque<Bytes>) -> Result<(), Fault> {
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(&data);
            if self.next_length(&self.partial)?.is_none_or(|len| self.partial.len() < frame::PREFIX + len) {
                return Ok(());
            }
            data = self.partial.split().freeze();
        }
        while let Some(len) = self.next_length(&data)?
            && let Some((message, _)) = frame::split(&data)
        {
            let message = data.slice_ref(message);
            data = data.split_off(frame::PREFIX + len);
            if !message.is_empty() {
                messages.push_back(message);
            }
        }
        if let Some(len) = self.next_length(&data)? {
            // What is claimed is not there yet: as much is made room for as a window can bring.
            self.partial.reserve((frame::PREFIX + len).min(STREAM_WINDOW_BYTES as usize));
        }
        self.partial.extend_from_slice(&data);
        Ok(())
    }

    /// The length of the message that begins here.
    fn next_length(&self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        match frame::head(bytes) {
            None => Ok(None),
            Some((0, len)) if len <= self.max_message_bytes => Ok(Some(len)),
            Some((0, len)) => Err(Fault::new(
                FaultKind::Protocol,
                format!(
                    "a message of {len} bytes, where max_message_bytes allows {}",
                    self.max_message_bytes
                ),
            )),
            Some(_) => Err(Fault::new(FaultKind::Protocol, "a compressed message, which nobody asked for")),
        }
    }

    /// Asks the node for a sign of life.
    pub(super) fn ping(&mut self) {
        // One that is under way already will do.
        let _ = self.ping.send_ping(Ping::opaque());
    }

    /// Whether the node has given it. Ready(false): the connection is over.
    pub(super) fn poll_pong(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.ping.poll_pong(cx).map(|pong| pong.is_ok())
    }
}

impl std::fmt::Debug for PipelineStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PipelineStream").finish_non_exhaustive()
    }
}

/// Awaits something that comes by the connection.
async fn driven<T>(
    connection: &mut Connection<Socket, Bytes>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<Result<T, h2::Error>>,
) -> Result<T, Fault> {
    poll_fn(|cx| {
        // First what waits for it: an error of the connection says less.
        if let Poll::Ready(done) = poll(cx) {
            return Poll::Ready(done.map_err(|error| Fault::of_http2(&error)));
        }
        match Pin::new(&mut *connection).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(Fault::closed())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(Fault::of_http2(&error))),
            Poll::Pending => poll(cx).map_err(|error| Fault::of_http2(&error)),
        }
    })
    .await
}

fn request(config: &LaneConfig) -> Request<()> {
    let uri = format!("http://{}{}", config.url.authority(), Verb::Pipeline.path());
    Request::post(uri)
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", concat!("larder/", env!("CARGO_PKG_VERSION")))
        .body(())
        .expect("a node's URL has been checked")
}

/// The body of an answer that begins as gRPC says.
fn accepted(response: Response<RecvStream>) -> Result<RecvStream, Fault> {
    let (head, body) = response.into_parts();
    if head.headers.contains_key("grpc-status") {
        return Err(ended(&head.headers));
    }
    let is_grpc = |value: &http::HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    if head.status != http::StatusCode::OK || !head.headers.get("content-type").is_some_and(is_grpc) {
        let problem = format!("an answer with HTTP status {} that is not gRPC", head.status.as_u16());
        return Err(Fault::new(FaultKind::Protocol, problem));
    }
    Ok(body)
}

/// What the node says at the end of a stream.
fn ended(headers: &HeaderMap) -> Fault {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != tonic::Code::Ok => Fault::refused(status),
        _ => Fault::closed(),
    }
}
