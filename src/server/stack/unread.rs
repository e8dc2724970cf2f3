//! What the layers know of how long a request lay in its socket before it was read.

use std::time::Duration;

use http::{HeaderMap, Response};

use super::error::LayerError;
use crate::grpc::{ResponseBody, grpc_timeout};

/// A request's extension: how long it lay in its socket before it was read, where that matters.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct LayUnread {
    /// At least this long.
    pub(in crate::server) waited: Duration,
    /// The node has more to do than it can, and does not do what lay there for longer than this, as the request did.
    pub(in crate::server) too_long: Option<Duration>,
}

/// A request's extension: this number of answers on its connection is not read, which is too many.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct AnswersUnread(pub(in crate::server) usize);

/// How long a caller waits, if it says so and can be understood.
pub(in crate::server) fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    grpc_timeout(headers).ok().flatten()
}

/// What a call is answered with that lay unread for too long.
pub(in crate::server) fn unread_refusal(delay: Duration) -> Response<ResponseBody> {
    ResponseBody::error(LayerError::LayUnread { delay })
}
