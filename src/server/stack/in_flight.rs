//! Concurrency and load shed: a bounded number of calls may wait, and the next one is refused at once with a time to
//! retry after.
//!
//! A call that is done where it was accepted never waits and takes no permit: the limit is on what holds memory,
//! not on what passes through, and the hot path touches no counter that other connections touch. One that has begun to change
//! something is counted and never turned away. One whose request is not whole waits for its peer and not for the node: it
//! takes no permit that others wait for, and counts by itself (`arriving`).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::arriving::{Arriving, ArrivingCall, ConnectionArriving};
use super::error::LayerError;
use crate::grpc::{Begun, DescribeCall, ResponseBody};

/// The calls of a node that wait, on all its listeners. Clones are the same.
#[derive(Debug, Clone)]
pub struct InFlight(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    limit: AtomicUsize,
    waiting: AtomicUsize,
    shed: AtomicU64,
    arriving: Arc<Arriving>,
}

impl InFlight {
    /// At most `limit` calls wait.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let counts =
            Counts { limit: limit.into(), waiting: 0.into(), shed: 0.into(), arriving: Arc::default() };
        Self(Arc::new(counts))
    }

    /// Calls that wait now, for the node or for the rest of their requests.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed) + self.0.arriving.calls()
    }

    /// Calls that were turned away so far.
    #[must_use]
    pub fn shed(&self) -> u64 {
        self.0.shed.load(Ordering::Relaxed)
    }

    /// From now on at most `limit` calls wait; those that wait already go on.
    pub fn set_limit(&self, limit: usize) {
        self.0.limit.store(limit, Ordering::Relaxed);
    }

    /// Lets one more call wait, or says how many do already. One that has begun waits whatever the limit is.
    fn enter(&self, has_begun: bool) -> Result<WaitingCall, usize> {
        let limit = self.0.limit.load(Ordering::Relaxed);
        let one_more = |waiting| (has_begun || waiting < limit).then_some(waiting + 1);
        match self.0.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(WaitingCall(self.clone())),
            Err(_) => Err(self.refuse()),
        }
    }

    /// Counts a call that is turned away; the limit.
    fn refuse(&self) -> usize {
        self.0.shed.fetch_add(1, Ordering::Relaxed);
        self.0.limit.load(Ordering::Relaxed)
    }
}

/// A call that waits, counted until it is dropped.
#[derive(Debug)]
struct WaitingCall(InFlight);

impl Drop for WaitingCall {
    fn drop(&mut self) {
        self.0.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S> Layer<S> for InFlight {
    type Service = InFlightService<S>;

    fn layer(&self, inner: S) -> InFlightService<S> {
        InFlightService { inner, calls: Arc::new(ConnectionCalls::new(self.clone())) }
    }
}

/// Turns calls away when too many wait.
#[derive(Debug, Clone)]
pub struct InFlightService<S> {
    inner: S,
    calls: Arc<ConnectionCalls>,
}

/// The calls of a connection: its own, so that a call counts no reference that calls of others count.
#[derive(Debug)]
struct ConnectionCalls {
    of_node: InFlight,
    arriving: Arc<ConnectionArriving>,
}

impl ConnectionCalls {
    fn new(of_node: InFlight) -> Self {
        let arriving = Arc::new(ConnectionArriving::new(Arc::clone(&of_node.0.arriving)));
        Self { of_node, arriving }
    }

    /// Lets a call wait for its peer or for the node, or says how many may.
    fn enter(&self, is_arriving: bool, has_begun: bool) -> Result<Permit, usize> {
        if is_arriving {
            let limit = self.of_node.0.limit.load(Ordering::Relaxed);
            return self.arriving.enter(limit).map(Permit::Arriving).ok_or_else(|| self.of_node.refuse());
        }
        self.of_node.enter(has_begun).map(Permit::Waiting)
    }
}

/// What a call waits with.
#[derive(Debug)]
enum Permit {
    /// For the rest of its request.
    Arriving(#[expect(dead_code, reason = "held for what its drop does")] ArrivingCall),
    /// For the node.
    Waiting(#[expect(dead_code, reason = "held for what its drop does")] WaitingCall),
}

impl<S, B> Service<Request<B>> for InFlightService<S>
where
    S: Service<Request<B>, Response = Response<ResponseBody>, Error = Infallible, Future: Begun>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = InFlightFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        InFlightFuture { inner: self.inner.call(request), calls: Arc::clone(&self.calls), permit: None }
    }
}

pin_project! {
    /// A call that takes a permit when it has to wait.
    #[derive(Debug)]
    pub struct InFlightFuture<F> {
        #[pin]
        inner: F,
        calls: Arc<ConnectionCalls>,
        permit: Option<Permit>,
    }
}

impl<F> Future for InFlightFuture<F>
where
    F: Future<Output = Result<Response<ResponseBody>, Infallible>> + Begun,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(done) = this.inner.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        let is_arriving = this.inner.is_arriving();
        match this.permit {
            Some(Permit::Waiting(_)) => return Poll::Pending,
            Some(Permit::Arriving(_)) if is_arriving => return Poll::Pending,
            Some(Permit::Arriving(_)) | None => {}
        }
        match this.calls.enter(is_arriving, this.inner.has_begun()) {
            Ok(permit) => {
                *this.permit = Some(permit);
                Poll::Pending
            }
            Err(limit) => Poll::Ready(Ok(ResponseBody::error(LayerError::Overloaded { limit }))),
        }
    }
}

impl<F: DescribeCall> DescribeCall for InFlightFuture<F> {
    type Description = F::Description;

    fn describe(&self) -> F::Description {
        self.inner.describe()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_lowered_limit_holds_for_those_that_come() {
        let calls = InFlight::new(2);
        let waiting = (calls.enter(false).unwrap(), calls.enter(false).unwrap());
        assert_eq!(calls.enter(false).unwrap_err(), 2);
        calls.set_limit(1);
        assert_eq!((calls.waiting(), calls.shed()), (2, 1));
        drop(waiting.0);
        assert_eq!(calls.enter(false).unwrap_err(), 1);
        drop(waiting.1);
        let _one = calls.enter(false).unwrap();
        calls.set_limit(2);
        let _two = calls.enter(false).unwrap();
        assert_eq!((calls.waiting(), calls.shed()), (2, 2));
    }

    /// A call that waits for ever, and may have begun.
    struct Waits {
        has_begun: bool,
        is_arriving: bool,
    }

    impl Future for Waits {
        type Output = Result<Response<ResponseBody>, Infallible>;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            Poll::Pending
        }
    }

    impl Begun for Waits {
        fn has_begun(&self) -> bool {
            self.has_begun
        }

        fn is_arriving(&self) -> bool {
            self.is_arriving
        }
    }

    #[test]
    fn a_call_that_has_begun_is_counted_and_never_turned_away() {
        let calls = InFlight::new(1);
        let _one = calls.enter(false).unwrap();
        let call = |has_begun| InFlightFuture {
            inner: Waits { has_begun, is_arriving: false },
            calls: Arc::new(ConnectionCalls::new(calls.clone())),
            permit: None,
        };
        let mut cx = Context::from_waker(Waker::noop());
        let mut begun = std::pin::pin!(call(true));
        assert!(begun.as_mut().poll(&mut cx).is_pending());
        assert_eq!((calls.waiting(), calls.shed()), (2, 0));
        assert!(std::pin::pin!(call(false)).poll(&mut cx).is_ready());
        assert_eq!((calls.waiting(), calls.shed()), (2, 1));
    }

    #[test]
    fn a_call_whose_request_comes_takes_no_permit_until_it_is_whole() {
        let calls = InFlight::new(8);
        let connection = Arc::new(ConnectionCalls::new(calls.clone()));
        let call = |is_arriving| {
            let inner = Waits { has_begun: false, is_arriving };
            Box::pin(InFlightFuture { inner, calls: Arc::clone(&connection), permit: None })
        };
        let mut cx = Context::from_waker(Waker::noop());
        let mut arriving = [(); 9].map(|()| call(true));
        let refused =
            arriving.iter_mut().filter_map(|call| call.as_mut().poll(&mut cx).is_ready().then_some(()));
        assert_eq!(refused.count(), 5, "half of what there may be is kept for other connections");
        assert_eq!((calls.waiting(), calls.shed()), (4, 5));
        let mut waiting = [(); 8].map(|()| call(false));
        assert!(waiting.iter_mut().all(|call| call.as_mut().poll(&mut cx).is_pending()));
        assert_eq!((calls.waiting(), calls.shed()), (12, 5));
        // A request that is whole waits as any other, and nobody waits in its place.
        let first = &mut arriving[0];
        first.as_mut().get_mut().inner.is_arriving = false;
        assert!(first.as_mut().poll(&mut cx).is_ready(), "there are 8 already");
        drop(waiting);
        let second = &mut arriving[1];
        second.as_mut().get_mut().inner.is_arriving = false;
        assert!(second.as_mut().poll(&mut cx).is_pending());
        assert_eq!((calls.0.waiting.load(Ordering::Relaxed), calls.shed()), (1, 6));
    }
}
