//! The bodies of responses: a unary message that is whole already, a stream, or a generated service's.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Body, Frame, SizeHint};
use tonic::{Code, Status};

use super::details::hold;
use super::failure::Failure;

/// The header that carries the call's code.
const GRPC_STATUS: &str = "grpc-status";
/// What a refused encoding is answered with: those that are read.
const GRPC_ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// A response's body.
#[derive(Debug, Default)]
pub struct ResponseBody(Inner);

#[derive(Default)]
enum Inner {
    #[default]
    Empty,
    Unary(Unary),
    Stream(Pin<Box<dyn Body<Data = Bytes, Error = Status> + Send>>),
    Generated(tonic::body::Body),
    Observed(Box<Observed>),
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Unary(_) => "Unary",
            Self::Stream(_) => "Stream",
            Self::Generated(_) => "Generated",
            Self::Observed(_) => "Observed",
        })
    }
}

/// A body whose end somebody waits for.
struct Observed {
    body: ResponseBody,
    on_end: Option<Box<dyn FnOnce(Code) + Send>>,
}

impl Observed {
    fn end(&mut self, code: Code) {
        if let Some(on_end) = self.on_end.take() {
            on_end(code);
        }
    }
}

impl Drop for Observed {
    /// A body that is dropped before its trailers was not read to its end.
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// One framed message, in one chunk or, around a large value, in three; then the trailers.
#[derive(Debug)]
pub(crate) struct Unary {
    chunks: [Option<Bytes>; 3],
    next: usize,
    trailers: bool,
}

impl From<Vec<u8>> for Unary {
    fn from(message: Vec<u8>) -> Self {
        Bytes::from(message).into()
    }
}

impl From<Bytes> for Unary {
    fn from(message: Bytes) -> Self {
        Self { chunks: [Some(message), None, None], next: 0, trailers: true }
    }
}

impl Unary {
    /// A message whose middle is a large value.
    pub(crate) fn around(head: Vec<u8>, value: Bytes, tail: Vec<u8>) -> Self {
        Self { chunks: [Some(head.into()), Some(value), Some(tail.into())], next: 0, trailers: true }
    }

    fn next_frame(&mut self) -> Option<Frame<Bytes>> {
        while let Some(chunk) = self.chunks.get_mut(self.next) {
            self.next += 1;
            if let Some(chunk) = chunk.take() {
                return Some(Frame::data(chunk));
            }
        }
        std::mem::take(&mut self.trailers).then(|| Frame::trailers(ok_trailers()))
    }

    fn remaining(&self) -> u64 {
        self.chunks.iter().flatten().map(|chunk| chunk.len() as u64).sum()
    }
}

pub(crate) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

fn response(body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

impl ResponseBody {
    /// The response to a unary call that was done.
    pub(crate) fn unary(message: Unary) -> Response<Self> {
        response(Self(Inner::Unary(message)))
    }

    /// The response to a call that failed before its response began.
    pub(crate) fn error(error: impl Failure) -> Response<Self> {
        let mut response: Response<Self> = error.to_status().into_http();
        if error.refuses_encoding() {
            response.headers_mut().insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        response
    }

    /// The response that streams `body`.
    pub(crate) fn stream(body: impl Body<Data = Bytes, Error = Status> + Send + 'static) -> Response<Self> {
        response(Self::streaming(body))
    }

    /// A body that streams `body`.
    pub(crate) fn streaming(body: impl Body<Data = Bytes, Error = Status> + Send + 'static) -> Self {
        Self(Inner::Stream(Box::pin(body)))
    }

    /// The trailers of a call that failed after its response had begun.
    pub(crate) fn trailers(error: impl Failure) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        // Only values that are no header text are refused, and tonic escapes those.
        let _ = error.to_status().add_header(&mut trailers);
        trailers
    }

    /// A generated service's response, its status held to its bounds wherever it stands.
    pub(crate) fn generated(response: Response<tonic::body::Body>) -> Response<Self> {
        let mut response = response.map(|body| Self(Inner::Generated(body)));
        hold(response.headers_mut());
        response
    }

    /// Calls `on_end` once: with the code in the trailers, or with CANCELLED if they are never asked for.
    pub(crate) fn on_end(self, on_end: impl FnOnce(Code) + Send + 'static) -> Self {
        Self(Inner::Observed(Box::new(Observed { body: self, on_end: Some(Box::new(on_end)) })))
    }

    /// The call's code, if the response's head or kind tells it already; `None`: its trailers will.
    pub(crate) fn code(response: &Response<Self>) -> Option<Code> {
        match response.body().0 {
            Inner::Unary(_) => Some(Code::Ok),
            _ => code_in(response.headers()),
        }
    }
}

/// The code that headers or trailers carry.
pub(crate) fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers.get(GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut self.get_mut().0 {
            Inner::Empty => Poll::Ready(None),
            Inner::Unary(unary) => Poll::Ready(unary.next_frame().map(Ok)),
            Inner::Stream(body) => body.as_mut().poll_frame(cx),
            Inner::Generated(body) => Pin::new(body).poll_frame(cx).map(|frame| {
                let mut frame = frame?;
                if let Some(trailers) = frame.as_mut().ok().and_then(Frame::trailers_mut) {
                    hold(trailers);
                }
                Some(frame)
            }),
            Inner::Observed(observed) => {
                let frame = ready!(Pin::new(&mut observed.body).poll_frame(cx));
                match &frame {
                    Some(Ok(frame)) => {
                        if let Some(code) = frame.trailers_ref().and_then(code_in) {
                            observed.end(code);
                        }
                    }
                    Some(Err(status)) => observed.end(status.code()),
                    None => observed.end(Code::Unknown),
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Unary(unary) => !unary.trailers,
            Inner::Stream(body) => body.is_end_stream(),
            Inner::Generated(body) => body.is_end_stream(),
            Inner::Observed(observed) => observed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Unary(unary) => SizeHint::with_exact(unary.remaining()),
            Inner::Stream(_) => SizeHint::default(),
            Inner::Generated(body) => body.size_hint(),
            Inner::Observed(observed) => observed.body.size_hint(),
        }
    }
}
