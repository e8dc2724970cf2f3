//! Generated services as the layers want them: the same body and error as the data plane's.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::service::Routes;
use tower_service::Service;

use super::slow::traceparent;
use crate::grpc::{Begun, DescribeCall, ResponseBody};
use crate::telemetry::CallDescription;

/// Generated services: Admin, health, reflection.
#[derive(Debug, Clone)]
pub struct GeneratedService(Routes);

impl GeneratedService {
    /// Serves these routes.
    #[must_use]
    pub fn new(routes: Routes) -> Self {
        Self(routes)
    }
}

impl<B> Service<Request<B>> for GeneratedService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = GeneratedFuture;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> GeneratedFuture {
        let traceparent = traceparent(request.headers()).to_owned();
        let is_whole = Arc::new(AtomicBool::new(request.body().is_end_stream()));
        let request = request.map(|body| Noticed { body, is_whole: Arc::clone(&is_whole) });
        GeneratedFuture { answer: Box::pin(Service::call(&mut self.0, request)), is_whole, traceparent }
    }
}

pin_project! {
    /// A request's body that tells when it has come whole.
    struct Noticed<B> {
        #[pin]
        body: B,
        is_whole: Arc<AtomicBool>,
    }
}

impl<B: Body> Body for Noticed<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        if frame.is_none() || this.body.is_end_stream() {
            this.is_whole.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

type GeneratedResult = Result<Response<tonic::body::Body>, Infallible>;

/// A generated service's call. Boxed: nothing of it is hot.
pub struct GeneratedFuture {
    answer: Pin<Box<dyn Future<Output = GeneratedResult> + Send>>,
    is_whole: Arc<AtomicBool>,
    traceparent: String,
}

impl std::fmt::Debug for GeneratedFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GeneratedFuture")
    }
}

impl Future for GeneratedFuture {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer.as_mut().poll(cx).map_ok(ResponseBody::generated)
    }
}

impl DescribeCall for GeneratedFuture {
    type Description = CallDescription;

    fn describe(&self) -> CallDescription {
        CallDescription::default().traced(&self.traceparent)
    }
}

impl Begun for GeneratedFuture {
    fn has_begun(&self) -> bool {
        false
    }

    fn is_arriving(&self) -> bool {
        !self.is_whole.load(Ordering::Relaxed)
    }
}
