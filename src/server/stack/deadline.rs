//! Deadline: a call ends when its caller's patience does, or the node's own if the caller names none.
//!
//! The node's own covers the time to the response's head, but for PutBlob, whose head comes last; the caller's covers a
//! stream to its end, also while its peer does not read. The timer is made only for a stream and for a call that has to wait, so a call that is done
//! at once pays for none.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tonic::Status;
use tower_layer::Layer;
use tower_service::Service;

use super::error::LayerError;
use super::unread::{AnswersUnread, LayUnread};
use crate::clock::monotonic;
use crate::grpc::{DescribeCall, GrpcError, ResponseBody, grpc_timeout};
use crate::server::stall::until;
use crate::verb::{Streams, Verb};

/// The longest that a call may take whose caller names no nearer end. Clones are the same.
#[derive(Debug, Clone)]
pub struct CallTimeout(Arc<AtomicU64>);

impl CallTimeout {
    /// At most `timeout`, counted in milliseconds; `None`: no bound.
    #[must_use]
    pub fn new(timeout: Option<Duration>) -> Self {
        let own = Self(Arc::default());
        own.set(timeout);
        own
    }

    /// Sets it for calls that come from now on.
    pub fn set(&self, timeout: Option<Duration>) {
        let ms = timeout.map_or(u64::MAX, |timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        self.0.store(ms, Ordering::Relaxed);
    }

    #[inline]
    fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// Makes [`Deadline`].
#[derive(Debug, Clone)]
pub struct DeadlineLayer {
    timeout: CallTimeout,
}

impl DeadlineLayer {
    /// At most `timeout` for any call, less if its caller says so.
    #[must_use]
    pub fn new(timeout: CallTimeout) -> Self {
        Self { timeout }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner, timeout: self.timeout.clone() }
    }
}

/// Ends calls at their deadline.
#[derive(Debug, Clone)]
pub struct Deadline<S> {
    inner: S,
    timeout: CallTimeout,
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
        let asked = grpc_timeout(request.headers()).map_err(LayerError::from);
        let asked = asked.and_then(|asked| match request.extensions().get() {
            Some(&AnswersUnread(answers)) => Err(LayerError::AnswersUnread { answers }),
            None => left(asked, request.extensions().get()),
        });
        let (call, asked, timeout) = match asked {
            Ok(asked) => {
                // Where the request alone is a stream, the response's head comes when its caller has sent all.
                let is_callers = Verb::of_path(request.uri().path()).streams() == Streams::Request;
                let own = if is_callers { Duration::from_millis(u64::MAX) } else { self.timeout.get() };
                let timeout = asked.map_or(own, |asked| asked.min(own));
                (Call::Running { future: self.inner.call(request) }, asked, timeout)
            }
            Err(error) => (Call::Refused { error: Some(error) }, None, Duration::ZERO),
        };
        DeadlineFuture { call, asked, timeout, sleep: None }
    }
}

/// What is left of the time that a caller gives, from when the call came.
fn left(asked: Option<Duration>, unread: Option<&LayUnread>) -> Result<Option<Duration>, LayerError> {
    let waited = unread.map_or(Duration::ZERO, |unread| unread.waited);
    let left = asked.map(|asked| asked.saturating_sub(waited));
    if left.is_some_and(|left| left.is_zero()) {
        return Err(GrpcError::DeadlineExceeded.into());
    }
    match unread.and_then(|unread| unread.too_long) {
        Some(delay) => Err(LayerError::LayUnread { delay }),
        None => Ok(left),
    }
}

pin_project! {
    /// A call with a deadline.
    #[derive(Debug)]
    pub struct DeadlineFuture<F> {
        #[pin]
        call: Call<F>,
        asked: Option<Duration>,
        timeout: Duration,
        sleep: Option<Pin<Box<Sleep>>>,
    }
}

pin_project! {
    #[project = CallProjection]
    #[derive(Debug)]
    enum Call<F> {
        Running { #[pin] future: F },
        Refused { error: Option<LayerError> },
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
                let timeout = *this.timeout;
                if let Poll::Ready(Ok(response)) = future.poll(cx) {
                    return Poll::Ready(Ok(match *this.asked {
                        // Its head or kind does not tell how it ends: a stream.
                        Some(asked) if ResponseBody::code(&response).is_none() => {
                            let began = this.sleep.as_ref().map(|sleep| sleep.deadline() - timeout);
                            response.map(|body| {
                                Timed::body(body, began.unwrap_or_else(|| monotonic().into()) + asked)
                            })
                        }
                        _ => response,
                    }));
                }
                let sleep = this.sleep.get_or_insert_with(|| Box::pin(sleep(timeout)));
                ready!(sleep.as_mut().poll(cx));
                Poll::Ready(Ok(ResponseBody::error(LayerError::DeadlineUnanswered)))
            }
            CallProjection::Refused { error } => {
                let error = error.take().expect("a future is not polled after it is ready");
                Poll::Ready(Ok(ResponseBody::error(error)))
            }
        }
    }
}

impl<F: DescribeCall> DescribeCall for DeadlineFuture<F> {
    type Description = F::Description;

    fn describe(&self) -> F::Description {
        match &self.call {
            Call::Running { future } => future.describe(),
            Call::Refused { .. } => F::Description::default(),
        }
    }
}

/// A stream that ends at its caller's deadline.
struct Timed {
    /// `None`: it has ended.
    body: Option<ResponseBody>,
    sleep: Pin<Box<Sleep>>,
}

impl Timed {
    fn body(body: ResponseBody, deadline: Instant) -> ResponseBody {
        ResponseBody::streaming(Self { body: Some(body), sleep: Box::pin(sleep_until(deadline)) })
    }
}

impl Body for Timed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        // Nobody asks for a frame while the peer does not read: then the runner of the stream ends it.
        until(this.sleep.deadline().into_std());
        if this.sleep.as_mut().poll(cx).is_ready() {
            this.body = None;
            let trailers = ResponseBody::trailers(GrpcError::DeadlineExceeded);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Pin::new(body).poll_frame(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_call_runs_from_when_it_came() {
        let ms = Duration::from_millis;
        let unread = |waited, is_too_long: bool| {
            let too_long = is_too_long.then_some(ms(40));
            LayUnread { waited: ms(waited), too_long }
        };
        assert_eq!(left(Some(ms(100)), None), Ok(Some(ms(100))));
        assert_eq!(left(Some(ms(100)), Some(&unread(40, false))), Ok(Some(ms(60))));
        let late = Err(LayerError::Grpc(GrpcError::DeadlineExceeded));
        assert_eq!(left(Some(ms(100)), Some(&unread(100, false))), late);
        let refused = Err(LayerError::LayUnread { delay: ms(40) });
        assert_eq!(left(Some(ms(100)), Some(&unread(40, true))), refused);
        assert_eq!(left(None, Some(&unread(40, true))), refused);
        assert_eq!(left(None, Some(&unread(40, false))), Ok(None));
        assert_eq!(left(Some(ms(0)), None), late, "its caller does not wait");
    }
}
