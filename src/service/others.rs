//! Generated services as the layers want them: the same body and error as the data plane's.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tonic::service::Routes;
use tower_service::Service;

use super::begun::Begun;
use super::body::ResponseBody;
use super::slow::{Recall, traceparent};
use crate::telemetry::Recalled;

/// Generated services: Admin, health, reflection.
#[derive(Debug, Clone)]
pub struct OtherService(Routes);

impl OtherService {
    /// Serves these routes.
    #[must_use]
    pub fn new(routes: Routes) -> Self {
        Self(routes)
    }
}

impl<B> Service<Request<B>> for OtherService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = OtherFuture;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> OtherFuture {
        let traceparent = traceparent(request.headers()).to_owned();
        OtherFuture { answer: Box::pin(Service::call(&mut self.0, request)), traceparent }
    }
}

type Answer = Result<Response<tonic::body::Body>, Infallible>;

/// A generated service's call. Boxed: nothing of it is hot.
pub struct OtherFuture {
    answer: Pin<Box<dyn Future<Output = Answer> + Send>>,
    traceparent: String,
}

impl std::fmt::Debug for OtherFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OtherFuture")
    }
}

impl Future for OtherFuture {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer.as_mut().poll(cx).map_ok(ResponseBody::generated)
    }
}

impl Recall for OtherFuture {
    fn recall(&self) -> Recalled {
        Recalled::default().traced(&self.traceparent)
    }
}

impl Begun for OtherFuture {
    fn has_begun(&self) -> bool {
        false
    }
}
