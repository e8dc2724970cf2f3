//! What any gRPC server or client needs, whatever it serves: frames, bodies, the time-out header, and statuses with their
//! details, held to what clients can take. It knows nothing of caches: what a service fails with becomes a status by
//! [`Failure`], and what the layers ask of a call that is under way they ask by [`DescribeCall`] and [`Begun`].

#[cfg(feature = "server")]
mod body;
#[cfg(feature = "server")]
mod call;
#[cfg(any(feature = "local", feature = "server"))]
mod details;
#[cfg(any(feature = "local", feature = "server"))]
mod error;
#[cfg(any(feature = "local", feature = "server"))]
mod failure;
pub(crate) mod frame;
#[cfg(feature = "server")]
mod timeout;
#[cfg(any(feature = "opentelemetry", feature = "server"))]
pub(crate) mod traceparent;

#[cfg(feature = "server")]
pub(crate) use body::ResponseBody;
#[cfg(feature = "server")]
pub(crate) use body::{Trailers, Unary, ok_trailers};
#[cfg(feature = "server")]
pub(crate) use call::{Begun, DescribeCall};
#[cfg(feature = "server")]
pub(crate) use details::STATUS_BYTES_MAX;
#[cfg(all(test, any(feature = "local", feature = "server")))]
pub(crate) use details::bound_status;
#[cfg(any(feature = "local", feature = "server"))]
pub(crate) use error::GrpcError;
#[cfg(feature = "server")]
pub(crate) use failure::STATUS_BYTES_MIN;
#[cfg(any(feature = "local", feature = "server"))]
pub(crate) use failure::{Failure, FailureFacts};
#[cfg(feature = "server")]
pub(crate) use timeout::grpc_timeout;
