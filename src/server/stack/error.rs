//! What the layers refuse.

use std::time::Duration;

use tonic::Code;

use crate::grpc::{Failure, FailureFacts, GrpcError};

/// Why a layer answers a call itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LayerError {
    /// The call is wrong as a gRPC call, or its deadline passed before it began.
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    /// The deadline passed while the call was under way.
    #[error(
        "the deadline passed before the call was answered: what it had begun by then is done or will be, of a batch the items that had their turn"
    )]
    DeadlineUnanswered,
    /// As many calls wait as may.
    #[error("the node has {limit} requests waiting already (--max-in-flight)")]
    Overloaded {
        /// How many.
        limit: usize,
    },
    /// The node is asked for more than it can do, and the call waited for too long to be read.
    #[error(
        "the node is asked for more than it can do: the call lay unread for {} ms and was not begun; send less, or later",
        delay.as_millis()
    )]
    LayUnread {
        /// For how long at least.
        delay: Duration,
    },
    /// The connection has answers that its peer does not read, and all connections together have too many.
    #[error(
        "the connection has {answers} answers that its peer does not read: the call was not begun; read them first"
    )]
    AnswersUnread {
        /// How many.
        answers: usize,
    },
    /// No service of the listener has the method.
    #[error(
        "there is no method of that name on this listener; Admin is on the admin listener, Cache on the data listeners"
    )]
    NoSuchMethodHere,
}

impl Failure for LayerError {
    fn facts(&self) -> FailureFacts {
        match self {
            Self::Grpc(error) => error.facts(),
            Self::DeadlineUnanswered => FailureFacts::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
            Self::Overloaded { limit } => {
                let facts = FailureFacts::new(Code::ResourceExhausted, "OVERLOADED");
                facts.with_limit(*limit as u64, "calls").retryable()
            }
            Self::LayUnread { .. } | Self::AnswersUnread { .. } => {
                FailureFacts::new(Code::ResourceExhausted, "OVERLOADED").retryable()
            }
            Self::NoSuchMethodHere => FailureFacts::new(Code::Unimplemented, "NO_SUCH_METHOD"),
        }
    }

    fn refuses_encoding(&self) -> bool {
        matches!(self, Self::Grpc(error) if error.refuses_encoding())
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

    #[test]
    fn an_overloaded_node_asks_to_be_tried_again_and_tells_its_limit() {
        let status = LayerError::Overloaded { limit: 7 }.to_status();
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((status.code(), &*info.reason), (Code::ResourceExhausted, "OVERLOADED"));
        assert_eq!((&*info.metadata["limit"], &*info.metadata["unit"]), ("7", "calls"));
        assert!(details.retry_info().is_some());
        assert!(LayerError::DeadlineUnanswered.to_status().get_error_details().retry_info().is_none());
    }
}
