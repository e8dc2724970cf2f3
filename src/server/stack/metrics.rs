//! Metrics: every call is counted once, by method and code, and timed from its acceptance to its answer's code.
//!
//! A call whose code is known with its head is recorded there; a stream is when its trailers pass, or as CANCELLED
//! when it is dropped before.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::clock::monotonic;
use crate::service::ResponseBody;
use crate::telemetry::{CallMetrics, Method};

/// Makes [`Metered`].
#[derive(Debug, Clone)]
pub struct MetricsLayer {
    calls: Arc<CallMetrics>,
}

impl MetricsLayer {
    /// Records in `calls`.
    #[must_use]
    pub fn new(calls: Arc<CallMetrics>) -> Self {
        Self { calls }
    }
}

impl<S> Layer<S> for MetricsLayer {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered { inner, calls: Arc::clone(&self.calls) }
    }
}

/// Counts and times calls.
#[derive(Debug, Clone)]
pub struct Metered<S> {
    inner: S,
    calls: Arc<CallMetrics>,
}

impl<S, B> Service<Request<B>> for Metered<S>
where
    S: Service<Request<B>, Response = Response<ResponseBody>, Error = Infallible>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = MeteredFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = Method::of_path(request.uri().path());
        let calls = Arc::clone(&self.calls);
        MeteredFuture { inner: self.inner.call(request), method, begun: monotonic(), calls }
    }
}

pin_project! {
    /// A call that is counted when it ends.
    #[derive(Debug)]
    pub struct MeteredFuture<F> {
        #[pin]
        inner: F,
        method: Method,
        begun: Instant,
        calls: Arc<CallMetrics>,
    }
}

impl<F> Future for MeteredFuture<F>
where
    F: Future<Output = Result<Response<ResponseBody>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(response) = ready!(this.inner.poll(cx));
        let (method, begun) = (*this.method, *this.begun);
        let record = move |calls: &CallMetrics, code| calls.record(method, code, begun.elapsed());
        if let Some(code) = ResponseBody::code(&response) {
            record(this.calls, code);
            return Poll::Ready(Ok(response));
        }
        let calls = Arc::clone(this.calls);
        Poll::Ready(Ok(response.map(|body| body.on_end(move |code| record(&calls, code)))))
    }
}
