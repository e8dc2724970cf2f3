//! An error as a gRPC status: its code, its message, and google.rpc details. Each room has an error of its own for what it
//! refuses, and says of it what a status needs.
//!
//! Every status carries an ErrorInfo with a stable reason in the domain [`DOMAIN`], a BadRequest naming the field where
//! the request was at fault, and a RetryInfo where trying again helps. An error about a limit has `limit` and `unit` in
//! its ErrorInfo's metadata.

use std::fmt::Display;
use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};

use super::details::{self, StatusDetails};
use crate::proto::DOMAIN;
use crate::proto::google::rpc;

/// What a google.rpc.Status takes that has a code and nothing else.
pub(crate) const STATUS_BYTES_MIN: usize = 2;
/// When an overloaded node asks to be tried again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What a status says of an error beside its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailureFacts {
    /// The gRPC code.
    pub code: Code,
    /// The stable word for it.
    pub reason: &'static str,
    /// The field that is at fault.
    pub field: Option<String>,
    /// The limit that was passed and what it counts, for those who would adapt.
    pub limit: Option<(u64, &'static str)>,
    /// Whether trying again helps.
    pub retry: bool,
}

impl FailureFacts {
    /// An error that is no field's fault, and passed no limit.
    #[must_use]
    pub(crate) fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason, field: None, limit: None, retry: false }
    }

    /// INVALID_ARGUMENT, for what a field has.
    #[must_use]
    pub(crate) fn bad_field(reason: &'static str, field: &str) -> Self {
        Self { field: Some(field.to_owned()), ..Self::new(Code::InvalidArgument, reason) }
    }

    /// The same, of a limit in `unit`.
    #[must_use]
    pub(crate) fn with_limit(self, limit: u64, unit: &'static str) -> Self {
        Self { limit: Some((limit, unit)), ..self }
    }

    /// The same, where trying again helps.
    #[must_use]
    pub(crate) fn retryable(self) -> Self {
        Self { retry: true, ..self }
    }
}

/// An error that a call, or an item of one, ends with. What it displays is the status's message.
pub(crate) trait Failure: Display {
    /// What the status says beside the message.
    fn facts(&self) -> FailureFacts;

    /// Whether it is the message's encoding that is refused: the answer then names the one that is read.
    fn refuses_encoding(&self) -> bool {
        false
    }

    /// The gRPC code.
    #[must_use]
    fn code(&self) -> Code {
        self.facts().code
    }

    /// The status of an item, for messages that carry one.
    #[must_use]
    fn to_rpc_status(&self) -> rpc::Status {
        let facts = self.facts();
        let about = StatusDetails {
            reason: facts.reason,
            domain: DOMAIN,
            limit: facts.limit,
            field: facts.field.as_deref(),
            retry_after: facts.retry.then_some(RETRY_AFTER),
        };
        details::rpc_status(facts.code, &self.to_string(), &about)
    }

    /// [`Self::to_rpc_status`] as bytes, at most `bytes_max` of them: without message and details where they find no
    /// room. The code alone takes two bytes.
    #[must_use]
    fn to_rpc_status_bytes_within(&self, bytes_max: usize) -> Vec<u8> {
        let mut status = self.to_rpc_status();
        if status.encoded_len() > bytes_max {
            status.message.clear();
            // The reason tells more than words.
            status.details.truncate(1);
        }
        if status.encoded_len() > bytes_max {
            status.details.clear();
        }
        status.encode_to_vec()
    }

    /// The status of a call.
    #[must_use]
    fn to_status(&self) -> Status {
        let mut status = self.to_rpc_status();
        let details = status.encode_to_vec();
        Status::with_details(Code::from_i32(status.code), std::mem::take(&mut status.message), details.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::GrpcError;

    #[test]
    fn an_items_status_is_the_calls_status() {
        let error = GrpcError::DeadlineExceeded;
        let item = error.to_rpc_status();
        assert_eq!((item.code, &*item.message), (Code::DeadlineExceeded as i32, &*error.to_string()));
        assert_eq!(item.details.len(), 1);
        let bytes = error.to_rpc_status_bytes_within(usize::MAX);
        assert_eq!(rpc::Status::decode(&*bytes).unwrap(), item);
        assert_eq!(error.to_status().details(), bytes);
    }

    #[test]
    fn an_items_status_gives_up_words_for_room_and_never_its_code() {
        let error = GrpcError::Header { name: "grpc-timeout", why: "5 is no time".to_owned() };
        let whole = error.to_rpc_status_bytes_within(usize::MAX);
        assert_eq!(error.to_rpc_status_bytes_within(whole.len()), whole);
        for room in STATUS_BYTES_MIN..whole.len() {
            let bytes = error.to_rpc_status_bytes_within(room);
            assert!(bytes.len() <= room, "{} bytes in {room}", bytes.len());
            let status = rpc::Status::decode(&*bytes).unwrap();
            assert_eq!((status.code, &*status.message), (Code::InvalidArgument as i32, ""));
            assert!(status.details.len() <= 1 && (room < 150 || status.details.len() == 1));
        }
    }
}
