//! The bodies of responses: a unary message that is whole already, a stream, or a generated service's.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body::{Body, Frame, SizeHint};
use tonic::{Code, Status};

use super::details::bound_status;
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
    EndReporter(Box<EndReporter>),
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Unary(_) => "Unary",
            Self::Stream(_) => "Stream",
            Self::Generated(_) => "Generated",
            Self::EndReporter(_) => "EndReporter",
        })
    }
}

/// A body that reports how it ended.
struct EndReporter {
    body: ResponseBody,
    on_end: Option<Box<dyn FnOnce(Code) + Send>>,
}

impl EndReporter {
    fn end(&mut self, code: Code) {
        if let Some(on_end) = self.on_end.take() {
            on_end(code);
        }
    }
}

impl Drop for EndReporter {
    /// A body that is dropped before its trailers was not read to its end.
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// What the trailers of one answer have beside its status, such as who owns the key. Nothing, as a rule, and that takes no
/// memory.
#[derive(Debug, Default)]
pub(crate) struct Trailers(Option<Box<HeaderMap>>);

impl FromIterator<(HeaderName, HeaderValue)> for Trailers {
    fn from_iter<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(trailers: I) -> Self {
        let map: HeaderMap = trailers.into_iter().collect();
        Self((!map.is_empty()).then(|| Box::new(map)))
    }
}

impl Trailers {
    /// Puts them into the answer to a unary call, before its status: behind its message, or into its head where it is a
    /// refusal, which has no trailers apart from that.
    pub(crate) fn onto(self, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
        if let Some(trailers) = self.0 {
            match &mut response.body_mut().0 {
                Inner::Unary(unary) => unary.trailers = Self(Some(trailers)),
                _ => response.headers_mut().extend(*trailers),
            }
        }
        response
    }

    /// All trailers of a call that was done.
    fn ok(self) -> HeaderMap {
        let mut trailers = self.0.map_or_else(|| HeaderMap::with_capacity(1), |trailers| *trailers);
        trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        trailers
    }
}

/// One framed message, in one chunk or, around a large value, in three; then the trailers.
#[derive(Debug)]
pub(crate) struct Unary {
    chunks: [Option<Bytes>; 3],
    next: usize,
    /// Whether the trailers were sent.
    is_over: bool,
    trailers: Trailers,
}

impl From<Vec<u8>> for Unary {
    fn from(message: Vec<u8>) -> Self {
        Bytes::from(message).into()
    }
}

impl From<Bytes> for Unary {
    fn from(message: Bytes) -> Self {
        Self { chunks: [Some(message), None, None], next: 0, is_over: false, trailers: Trailers::default() }
    }
}

impl Unary {
    /// A message whose middle is a large value.
    pub(crate) fn around(head: Vec<u8>, value: Bytes, tail: Vec<u8>) -> Self {
        let chunks = [Some(head.into()), Some(value), Some(tail.into())];
        Self { chunks, next: 0, is_over: false, trailers: Trailers::default() }
    }

    fn next_frame(&mut self) -> Option<Frame<Bytes>> {
        while let Some(chunk) = self.chunks.get_mut(self.next) {
            self.next += 1;
            if let Some(chunk) = chunk.take() {
                return Some(Frame::data(chunk));
            }
        }
        let was_over = std::mem::replace(&mut self.is_over, true);
        (!was_over).then(|| Frame::trailers(std::mem::take(&mut self.trailers).ok()))
    }

    fn remaining(&self) -> u64 {
        self.chunks.iter().flatten().map(|chunk| chunk.len() as u64).sum()
    }
}

pub(crate) fn ok_trailers() -> HeaderMap {
    Trailers::default().ok()
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
        bound_status(response.headers_mut());
        response
    }

    /// Calls `on_end` once: with the code in the trailers, or with CANCELLED if they are never asked for.
    pub(crate) fn on_end(self, on_end: impl FnOnce(Code) + Send + 'static) -> Self {
        Self(Inner::EndReporter(Box::new(EndReporter { body: self, on_end: Some(Box::new(on_end)) })))
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
                    bound_status(trailers);
                }
                Some(frame)
            }),
            Inner::EndReporter(reporter) => {
                let frame = ready!(Pin::new(&mut reporter.body).poll_frame(cx));
                match &frame {
                    Some(Ok(frame)) => {
                        if let Some(code) = frame.trailers_ref().and_then(code_in) {
                            reporter.end(code);
                        }
                    }
                    Some(Err(status)) => reporter.end(status.code()),
                    None => reporter.end(Code::Unknown),
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Unary(unary) => unary.is_over,
            Inner::Stream(body) => body.is_end_stream(),
            Inner::Generated(body) => body.is_end_stream(),
            Inner::EndReporter(reporter) => reporter.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Unary(unary) => SizeHint::with_exact(unary.remaining()),
            Inner::Stream(_) => SizeHint::default(),
            Inner::Generated(body) => body.size_hint(),
            Inner::EndReporter(reporter) => reporter.body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::grpc::GrpcError;

    fn owner() -> Trailers {
        [(HeaderName::from_static("larder-owner"), HeaderValue::from_static("n2"))].into_iter().collect()
    }

    /// The frames of a body that waits for nothing.
    fn frames(mut body: ResponseBody) -> Vec<Frame<Bytes>> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut frames = Vec::new();
        while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut cx) {
            assert!(!body.is_end_stream() || frame.as_ref().is_ok_and(Frame::is_trailers));
            frames.push(frame.unwrap());
        }
        frames
    }

    #[test]
    fn a_message_is_followed_by_its_trailers_once() {
        for (trailers, expected) in [(owner(), Some("n2")), (Trailers::default(), None)] {
            let message = Unary::around(b"head".to_vec(), Bytes::from("value"), b"tail".to_vec());
            let mut frames = frames(trailers.onto(ResponseBody::unary(message)).into_body());
            assert_eq!(frames.len(), 4);
            let end = frames.pop().and_then(|frame| frame.into_trailers().ok()).unwrap();
            assert_eq!(end.get("larder-owner").map(|owner| owner.to_str().unwrap()), expected);
            assert_eq!((end.get_all(GRPC_STATUS).iter().count(), code_in(&end)), (1, Some(Code::Ok)));
        }
    }

    #[test]
    fn a_refusal_has_its_trailers_in_its_head() {
        let refusal = owner().onto(ResponseBody::error(GrpcError::DeadlineExceeded));
        assert_eq!(refusal.headers()["larder-owner"], "n2");
        assert_eq!(code_in(refusal.headers()), Some(Code::DeadlineExceeded));
        assert!(frames(refusal.into_body()).is_empty());
    }

    #[test]
    fn no_trailers_take_no_memory() {
        assert_eq!(size_of::<Trailers>(), size_of::<usize>());
        assert!(Trailers::from_iter([]).0.is_none());
    }
}
