//! Metrics: every call is counted once, by method and code, and timed from its acceptance to its answer's code.
//!
//! A call whose code is known with its head is recorded there; a stream is when its trailers pass, or as CANCELLED
//! when it is dropped before.
//!
//! Nothing is noted of a call for the case that it will be slow: one that was is asked what it was about when it is
//! over, while its future still holds the request ([`DescribeCall`]).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tonic::Code;
use tower_layer::Layer;
use tower_service::Service;

use crate::clock::{monotonic, since};
use crate::grpc::{DescribeCall, ResponseBody};
use crate::telemetry::{CallDescription, CallMetrics, SlowCalls};
use crate::verb::Verb;

/// Makes [`Metered`].
#[derive(Debug, Clone)]
pub struct MetricsLayer {
    recorder: Arc<CallRecorder>,
}

/// Where the calls of a connection are recorded.
#[derive(Debug)]
struct CallRecorder {
    calls: Arc<CallMetrics>,
    slow: SlowCalls,
}

impl CallRecorder {
    /// Counts a call, and keeps it if it was slow; a stream takes as long as its peers like.
    #[inline]
    fn record(&self, verb: Verb, code: Code, begun: Instant, about: impl FnOnce() -> CallDescription) {
        let elapsed = since(begun);
        self.calls.record(verb, code, elapsed);
        if self.slow.is_slow(elapsed) && !verb.is_stream() {
            self.slow.keep(verb, about(), elapsed, Duration::ZERO, code);
        }
    }
}

impl MetricsLayer {
    /// Records in `calls`, and in `slow` those that were.
    #[must_use]
    pub fn new(calls: Arc<CallMetrics>, slow: SlowCalls) -> Self {
        Self { recorder: Arc::new(CallRecorder { calls, slow }) }
    }
}

impl<S> Layer<S> for MetricsLayer {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered { inner, recorder: Arc::clone(&self.recorder) }
    }
}

/// Counts and times calls.
#[derive(Debug, Clone)]
pub struct Metered<S> {
    inner: S,
    recorder: Arc<CallRecorder>,
}

impl<S, B> Service<Request<B>> for Metered<S>
where
    S: Service<Request<B>, Response = Response<ResponseBody>, Error = Infallible>,
    S::Future: DescribeCall<Description = CallDescription>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = MeteredFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let verb = Verb::of_path(request.uri().path());
        let recorder = Arc::clone(&self.recorder);
        MeteredFuture { inner: self.inner.call(request), verb, begun: monotonic(), recorder }
    }
}

pin_project! {
    /// A call that is counted when it ends.
    #[derive(Debug)]
    pub struct MeteredFuture<F> {
        #[pin]
        inner: F,
        verb: Verb,
        begun: Instant,
        recorder: Arc<CallRecorder>,
    }
}

impl<F> Future for MeteredFuture<F>
where
    F: Future<Output = Result<Response<ResponseBody>, Infallible>>
        + DescribeCall<Description = CallDescription>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Ok(response) = ready!(this.inner.as_mut().poll(cx));
        let (verb, begun) = (*this.verb, *this.begun);
        if let Some(code) = ResponseBody::code(&response) {
            this.recorder.record(verb, code, begun, || this.inner.describe());
            return Poll::Ready(Ok(response));
        }
        let recorder = Arc::clone(this.recorder);
        let about = if verb.is_stream() { CallDescription::default() } else { this.inner.describe() };
        Poll::Ready(Ok(
            response.map(|body| body.on_end(move |code| recorder.record(verb, code, begun, || about)))
        ))
    }
}
