//! Concurrency and load shed: only so many calls may wait, and the next one is told at once to come again.
//!
//! A call that is done where it was accepted never waits and takes no permit: the limit is on what holds memory,
//! not on what passes through, and the hot path touches no counter that others touch.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_layer::Layer;
use tower_service::Service;

use crate::api::CallError;
use crate::service::ResponseBody;

/// The calls of a node that wait, on all its listeners.
#[derive(Debug, Clone)]
pub struct InFlight {
    limit: usize,
    permits: Arc<Semaphore>,
    shed: Arc<AtomicU64>,
}

impl InFlight {
    /// At most `limit` calls wait.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, permits: Arc::new(Semaphore::new(limit)), shed: Arc::default() }
    }

    /// Calls that wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.limit - self.permits.available_permits()
    }

    /// Calls that were turned away so far.
    #[must_use]
    pub fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }
}

impl<S> Layer<S> for InFlight {
    type Service = InFlightService<S>;

    fn layer(&self, inner: S) -> InFlightService<S> {
        InFlightService { inner, in_flight: self.clone() }
    }
}

/// Turns calls away when too many wait.
#[derive(Debug, Clone)]
pub struct InFlightService<S> {
    inner: S,
    in_flight: InFlight,
}

impl<S, B> Service<Request<B>> for InFlightService<S>
where
    S: Service<Request<B>, Response = Response<ResponseBody>, Error = Infallible>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = InFlightFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        InFlightFuture { inner: self.inner.call(request), in_flight: self.in_flight.clone(), permit: None }
    }
}

pin_project! {
    /// A call that takes a permit when it has to wait.
    #[derive(Debug)]
    pub struct InFlightFuture<F> {
        #[pin]
        inner: F,
        in_flight: InFlight,
        permit: Option<OwnedSemaphorePermit>,
    }
}

impl<F> Future for InFlightFuture<F>
where
    F: Future<Output = Result<Response<ResponseBody>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(done) = this.inner.poll(cx) {
            return Poll::Ready(done);
        }
        if this.permit.is_none() {
            match Arc::clone(&this.in_flight.permits).try_acquire_owned() {
                Ok(permit) => *this.permit = Some(permit),
                Err(_) => {
                    this.in_flight.shed.fetch_add(1, Ordering::Relaxed);
                    let limit = this.in_flight.limit;
                    return Poll::Ready(Ok(ResponseBody::error(CallError::Overloaded { limit })));
                }
            }
        }
        Poll::Pending
    }
}
