//! Why a call fails in any gRPC server, whatever it serves.

use tonic::{Code, Status};

use super::failure::{Failure, FailureFacts};
use crate::quote::Quote;

/// What is wrong with a call as a gRPC call: its frames, its headers, its deadline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrpcError {
    #[error("the request is malformed: {why}")]
    Undecodable { why: String },
    #[error("the request's gRPC frame is malformed: {what}")]
    Frame { what: &'static str },
    #[error("the message has {bytes} bytes, the limit is {max}")]
    MessageTooLarge { bytes: usize, max: usize },
    #[error("{name}: {why}")]
    Header { name: &'static str, why: String },
    #[error("the message is compressed with {encoding}; this node reads only identity: send it uncompressed")]
    Compressed { encoding: Quote },
    #[error(
        "the message's frame says that it is compressed, and the request has no grpc-encoding that says how: send it uncompressed"
    )]
    CompressedFrame,
    #[error("the deadline passed; what was not answered was not done")]
    DeadlineExceeded,
}

impl Failure for GrpcError {
    fn facts(&self) -> FailureFacts {
        match self {
            Self::Undecodable { .. } | Self::Frame { .. } => {
                FailureFacts::new(Code::InvalidArgument, "MALFORMED_MESSAGE")
            }
            Self::MessageTooLarge { max, .. } => {
                FailureFacts::new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE")
                    .with_limit(*max as u64, "bytes")
            }
            Self::Header { name, .. } => FailureFacts::bad_field("INVALID_VALUE", name),
            Self::Compressed { .. } => FailureFacts::new(Code::Unimplemented, "COMPRESSED"),
            // So says gRPC's document on compression.
            Self::CompressedFrame => FailureFacts::new(Code::Internal, "COMPRESSED"),
            Self::DeadlineExceeded => FailureFacts::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        }
    }

    fn refuses_encoding(&self) -> bool {
        matches!(self, Self::Compressed { .. } | Self::CompressedFrame)
    }
}

impl From<GrpcError> for Status {
    fn from(error: GrpcError) -> Self {
        error.to_status()
    }
}
