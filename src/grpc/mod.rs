//! What any gRPC server or client needs, whatever it serves: frames, bodies, the time-out header, and statuses with their
//! details, held to what clients can take. It knows nothing of caches: what a service fails with becomes a status by
//! [`Failure`], and what the layers ask of a call that is under way they ask by [`DescribeCall`] and [`Begun`].

mod body;
mod call;
mod details;
mod error;
mod failure;
pub(crate) mod frame;
mod timeout;

pub(crate) use body::ResponseBody;
pub(crate) use body::{Trailers, Unary, ok_trailers};
pub(crate) use call::{Begun, DescribeCall};
pub(crate) use details::STATUS_BYTES_MAX;
#[cfg(test)]
pub(crate) use details::bound_status;
pub(crate) use error::GrpcError;
pub(crate) use failure::STATUS_BYTES_MIN;
pub(crate) use failure::{Failure, FailureFacts};
pub(crate) use timeout::grpc_timeout;
