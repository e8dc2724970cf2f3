//! Status repair: what tonic answers otherwise than the contract says, put right.
//!
//! | tonic 0.14 answers | the contract |
//! |---|---|
//! | OUT_OF_RANGE for a message over the limit | RESOURCE_EXHAUSTED |
//! | INTERNAL for a message or a frame that does not decode | INVALID_ARGUMENT |
//! | INTERNAL for a compressed frame, without details | INTERNAL, as gRPC's document says, with details |
//! | a message alone for an encoding that is not read | UNIMPLEMENTED with details |
//! | CANCELLED for a time-out of its own | DEADLINE_EXCEEDED |
//! | a code alone for an unknown method | UNIMPLEMENTED with details |
//!
//! Only generated services need it; the data plane's own answers are right as they are.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tonic::{Code, Status};
use tower_layer::Layer;
use tower_service::Service;

use super::error::LayerError;
use crate::grpc::{DescribeCall, GrpcError, ResponseBody};
use crate::quote::Quote;

/// Makes [`Repair`].
#[derive(Debug, Clone, Copy, Default)]
pub struct RepairLayer;

impl<S> Layer<S> for RepairLayer {
    type Service = Repair<S>;

    fn layer(&self, inner: S) -> Repair<S> {
        Repair { inner }
    }
}

/// Repairs the statuses of generated services.
#[derive(Debug, Clone)]
pub struct Repair<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Repair<S>
where
    S: Service<Request<B>, Response = Response<ResponseBody>, Error = Infallible>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = RepairFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        RepairFuture { inner: self.inner.call(request) }
    }
}

pin_project! {
    /// A call whose status may need repair.
    #[derive(Debug)]
    pub struct RepairFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F> Future for RepairFuture<F>
where
    F: Future<Output = Result<Response<ResponseBody>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx).map_ok(repaired)
    }
}

impl<F: DescribeCall> DescribeCall for RepairFuture<F> {
    type Description = F::Description;

    fn describe(&self) -> F::Description {
        self.inner.describe()
    }
}

fn repaired(response: Response<ResponseBody>) -> Response<ResponseBody> {
    // Answers of the data plane carry no status in their head, or their own with details.
    if !response.headers().contains_key("grpc-status")
        || response.headers().contains_key("grpc-status-details-bin")
    {
        return response;
    }
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    match repair(&status) {
        Some(error) => ResponseBody::error(error),
        None => response,
    }
}

fn repair(status: &Status) -> Option<LayerError> {
    let message = status.message();
    match status.code() {
        Code::OutOfRange if message.contains("message length too large") => {
            let mut numbers =
                message.split(|c: char| !c.is_ascii_digit()).filter_map(|text| text.parse().ok());
            let (bytes, max) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            Some(GrpcError::MessageTooLarge { bytes, max }.into())
        }
        Code::Internal if message.contains("with compressed-flag") => Some(GrpcError::CompressedFrame.into()),
        Code::Internal if UNDECODABLE.iter().any(|says| message.contains(says)) => {
            Some(GrpcError::Undecodable { why: message.to_owned() }.into())
        }
        Code::Cancelled if message.contains("Timeout expired") => Some(GrpcError::DeadlineExceeded.into()),
        Code::Unimplemented if message.starts_with("Content is compressed with") => {
            let encoding = message.split('`').nth(1).unwrap_or(message);
            Some(GrpcError::Compressed { encoding: Quote::of(encoding) }.into())
        }
        Code::Unimplemented if message.is_empty() => Some(LayerError::NoSuchMethodHere),
        _ => None,
    }
}

/// What tonic says of a request that it cannot read.
const UNDECODABLE: [&str; 4] =
    ["decode", "Missing request message", "invalid compression flag", "Unexpected EOF decoding"];
