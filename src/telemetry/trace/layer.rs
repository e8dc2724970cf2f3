//! The tower layer that puts a span around each call that is to have one.
//!
//! A static future and a static body: a call without a span passes through both with one test of a `None` and no
//! allocation. A call with one has it in a box, current while the call is polled, and ended by the status in the
//! headers or trailers of the answer, whichever has it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Code;
use tower_layer::Layer;
use tower_service::Service;

use super::{CallSpan, CallTracer, span_name};
use crate::verb::Verb;

/// Puts spans around the calls of a service.
#[derive(Debug, Clone, Default)]
pub(crate) struct TraceLayer {
    tracer: CallTracer,
}

/// A service whose calls have spans where they are to.
#[derive(Debug, Clone)]
pub(crate) struct TraceService<S> {
    inner: S,
    tracer: CallTracer,
}

pin_project! {
    /// A call, with its span if it has one.
    #[derive(Debug)]
    pub struct TraceFuture<F> {
        #[pin]
        inner: F,
        span: Option<Box<CallSpan>>,
    }
}

pin_project! {
    /// An answer's body, which ends the call's span if there is one.
    #[derive(Debug)]
    pub struct TraceBody<B> {
        #[pin]
        inner: B,
        span: Option<Box<CallSpan>>,
    }
}

impl TraceLayer {
    /// A layer with this tracer's spans; [`CallTracer::off`] for none.
    #[must_use]
    pub(crate) fn new(tracer: CallTracer) -> Self {
        Self { tracer }
    }
}

impl<S> Layer<S> for TraceLayer {
    type Service = TraceService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TraceService { inner, tracer: self.tracer.clone() }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for TraceService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
{
    type Response = Response<TraceBody<ResBody>>;
    type Error = S::Error;
    type Future = TraceFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let span = if self.tracer.is_on() { begin(&self.tracer, &request) } else { None };
        let _current = span.as_ref().map(|span| span.context().clone().attach());
        TraceFuture { inner: self.inner.call(request), span }
    }
}

impl<F, ResBody, E> Future for TraceFuture<F>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
    ResBody: Body,
{
    type Output = Result<Response<TraceBody<ResBody>>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let current = this.span.as_ref().map(|span| span.context().clone().attach());
        let answer = ready!(this.inner.poll(cx));
        drop(current);
        let mut span = this.span.take();
        Poll::Ready(match answer {
            Ok(response) => {
                if span.is_some() {
                    end_if_over(&mut span, response.headers(), response.body().is_end_stream());
                }
                Ok(response.map(|inner| TraceBody { inner, span }))
            }
            Err(error) => {
                end(&mut span, Some(Code::Unknown));
                Err(error)
            }
        })
    }
}

impl<B: Body> Body for TraceBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        if this.span.is_none() {
            return this.inner.poll_frame(cx);
        }
        let current = this.span.as_ref().map(|span| span.context().clone().attach());
        let frame = ready!(this.inner.poll_frame(cx));
        drop(current);
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    end_if_over(this.span, trailers, true);
                }
            }
            Some(Err(_)) => end(this.span, Some(Code::Unknown)),
            None => end(this.span, None),
        }
        Poll::Ready(frame)
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn begin<B>(tracer: &CallTracer, request: &Request<B>) -> Option<Box<CallSpan>> {
    let header = |name| request.headers().get(name);
    let method = span_name(Verb::of_path(request.uri().path()));
    let parent = header("traceparent").map(|value| value.as_bytes());
    let state = header("tracestate").and_then(|value| value.to_str().ok());
    tracer.begin(method, parent, state).map(Box::new)
}

/// Ends the span if the headers tell the status, or if nothing more can.
fn end_if_over(span: &mut Option<Box<CallSpan>>, headers: &HeaderMap, over: bool) {
    let status = headers.get("grpc-status");
    if status.is_some() || over {
        end(span, status.map(|value| Code::from_bytes(value.as_bytes())));
    }
}

fn end(span: &mut Option<Box<CallSpan>>, code: Option<Code>) {
    if let Some(span) = span.take() {
        span.end(code);
    }
}
