//! Deadline: a call ends when its caller's patience does, or the node's own if the caller names none.
//!
//! Covers the time to the response's head; a stream's own deadline is kept by the stream. The timer is made only
//! for a call that has to wait, so a call that is done at once pays for none.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;

use crate::api::CallError;
use crate::service::{ResponseBody, grpc_timeout};

/// Makes [`Deadline`].
#[derive(Debug, Clone, Copy)]
pub struct DeadlineLayer {
    timeout: Duration,
}

impl DeadlineLayer {
    /// At most `timeout` for any call, less if its caller says so.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self { timeout }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner, timeout: self.timeout }
    }
}

/// Ends calls at their deadline.
#[derive(Debug, Clone)]
pub struct Deadline<S> {
    inner: S,
    timeout: Duration,
}

impl<S, B> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<ResponseBody>, Error = Infallible>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let error = match grpc_timeout(request.headers()) {
            Ok(Some(Duration::ZERO)) => CallError::DeadlineExceeded,
            Ok(asked) => {
                let timeout = asked.map_or(self.timeout, |asked| asked.min(self.timeout));
                return DeadlineFuture {
                    call: Call::Running { future: self.inner.call(request) },
                    timeout,
                    sleep: None,
                };
            }
            Err(error) => error,
        };
        DeadlineFuture { call: Call::Refused { error: Some(error) }, timeout: Duration::ZERO, sleep: None }
    }
}

pin_project! {
    /// A call with a deadline.
    #[derive(Debug)]
    pub struct DeadlineFuture<F> {
        #[pin]
        call: Call<F>,
        timeout: Duration,
        sleep: Option<Pin<Box<Sleep>>>,
    }
}

pin_project! {
    #[project = CallProjection]
    #[derive(Debug)]
    enum Call<F> {
        Running { #[pin] future: F },
        Refused { error: Option<CallError> },
    }
}

impl<F> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<Response<ResponseBody>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.call.project() {
            CallProjection::Running { future } => {
                if let Poll::Ready(done) = future.poll(cx) {
                    return Poll::Ready(done);
                }
                let timeout = *this.timeout;
                let sleep = this.sleep.get_or_insert_with(|| Box::pin(sleep(timeout)));
                ready!(sleep.as_mut().poll(cx));
                Poll::Ready(Ok(ResponseBody::error(CallError::DeadlineExceeded)))
            }
            CallProjection::Refused { error } => {
                let error = error.take().expect("a future is not polled after it is ready");
                Poll::Ready(Ok(ResponseBody::error(error)))
            }
        }
    }
}
