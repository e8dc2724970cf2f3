//! A status within its bounds: the one place that holds its message and its details to what clients can take.
//!
//! A client keeps a table of headers for each connection, and many refuse more than 8 or 16 KiB of them: a status that
//! is longer breaks the connection and every other call on it. So, as they stand in the headers:
//!
//! | header | at most |
//! |---|---|
//! | grpc-message, percent-encoded | [`MESSAGE_BYTES_MAX`] |
//! | grpc-status-details-bin, base64 | [`DETAILS_BYTES_MAX`] |
//!
//! The statuses of a [`Failure`](super::Failure) are made so; [`bound_status`] does the same for those that come from
//! elsewhere, and every response passes it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderMap;
use prost::Message;
use tonic::{Code, Status};
use tonic_types::pb::bad_request::FieldViolation;
use tonic_types::pb::{BadRequest, RetryInfo};

use crate::proto::google::rpc;

/// The longest grpc-message, as the header has it.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1 << 10;
/// The longest grpc-status-details-bin, as the header has it.
pub(crate) const DETAILS_BYTES_MAX: usize = 3 << 10;
/// The longest google.rpc.Status, of which base64 makes four bytes of three.
pub(crate) const STATUS_BYTES_MAX: usize = DETAILS_BYTES_MAX / 4 * 3;
/// The longest description of a field at fault, which repeats the message.
const DESCRIPTION_BYTES_MAX: usize = 512;

/// What a status tells beside its code and its message.
pub(super) struct StatusDetails<'a> {
    pub(super) reason: &'static str,
    pub(super) domain: &'static str,
    /// A limit, and what it counts.
    pub(super) limit: Option<(u64, &'static str)>,
    /// The field that is at fault.
    pub(super) field: Option<&'a str>,
    pub(super) retry_after: Option<Duration>,
}

/// A status within its bounds. The first of its details is the ErrorInfo.
pub(super) fn rpc_status(code: Code, message: &str, facts: &StatusDetails<'_>) -> rpc::Status {
    let message = cut(message, MESSAGE_BYTES_MAX).into_owned();
    let metadata = facts
        .limit
        .map(|(limit, unit)| [("limit".to_owned(), limit.to_string()), ("unit".to_owned(), unit.to_owned())]);
    let info = ErrorInfo {
        reason: facts.reason.to_owned(),
        domain: facts.domain.to_owned(),
        metadata: metadata.into_iter().flatten().collect(),
    };
    let mut details = vec![any("ErrorInfo", &info)];
    if let Some(field) = facts.field {
        let description = cut(&message, DESCRIPTION_BYTES_MAX).into_owned();
        let violation = FieldViolation { field: field.to_owned(), description, ..FieldViolation::default() };
        details.push(any("BadRequest", &BadRequest { field_violations: vec![violation] }));
    }
    if let Some(delay) = facts.retry_after {
        let retry_delay = prost_types::Duration::try_from(delay).ok();
        details.push(any("RetryInfo", &RetryInfo { retry_delay }));
    }
    rpc::Status { code: code as i32, message, details }
}

/// google.rpc.ErrorInfo, its metadata in order, so that the same error is the same bytes.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

fn any(name: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("type.googleapis.com/google.rpc.{name}"),
        value: message.encode_to_vec(),
    }
}

/// Cuts the status in a response's headers or trailers to its bounds.
pub(crate) fn bound_status(headers: &mut HeaderMap) {
    let is_long =
        |name: &str, max: usize| headers.get(name).is_some_and(|value| value.as_bytes().len() > max);
    if !is_long(GRPC_MESSAGE, MESSAGE_BYTES_MAX) && !is_long(GRPC_DETAILS, DETAILS_BYTES_MAX) {
        return;
    }
    let Some(status) = Status::from_header_map(headers) else { return };
    let message = cut(status.message(), MESSAGE_BYTES_MAX).into_owned();
    let details = match rpc::Status::decode(status.details()) {
        Ok(details) => fitting(rpc::Status { message: message.clone(), ..details }).encode_to_vec(),
        Err(_) => Vec::new(),
    };
    let held = Status::with_details(status.code(), message, details.into());
    headers.remove(GRPC_MESSAGE);
    headers.remove(GRPC_DETAILS);
    // Only values that are no header text are refused, and tonic escapes those.
    let _ = held.add_header(headers);
}

/// The status without the last of the details that find no room.
fn fitting(mut status: rpc::Status) -> rpc::Status {
    while status.encoded_len() > STATUS_BYTES_MAX && status.details.pop().is_some() {}
    status
}

/// A text of which a header takes at most `bytes_max`, cut between two characters.
fn cut(text: &str, bytes_max: usize) -> Cow<'_, str> {
    // Percent-encoding takes at most three bytes for one.
    if 3 * text.len() <= bytes_max {
        return text.into();
    }
    let (mut encoded, mut whole_up_to) = (0, 0);
    for (at, c) in text.char_indices() {
        encoded += encoded_len(c);
        if encoded > bytes_max {
            return format!("{}…", &text[..whole_up_to]).into();
        }
        if encoded + encoded_len('…') <= bytes_max {
            whole_up_to = at + c.len_utf8();
        }
    }
    text.into()
}

/// What percent-encoding makes of a character.
fn encoded_len(c: char) -> usize {
    if c.is_ascii_graphic() && !"\"#%<>`?{}".contains(c) { 1 } else { 3 * c.len_utf8() }
}

const GRPC_MESSAGE: &str = "grpc-message";
const GRPC_DETAILS: &str = "grpc-status-details-bin";

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    fn header_bytes(headers: &HeaderMap, name: &str) -> usize {
        headers.get(name).map_or(0, |value| value.as_bytes().len())
    }

    #[test]
    fn a_text_is_cut_to_what_the_header_has_room_for() {
        assert_eq!(cut("short", 1 << 10), "short");
        for text in ["x", "ü ", "%", "🦀", "a b", "\n", "<>"] {
            for count in [100, 342, 1_000, 10_000] {
                let (text, mut headers) = (text.repeat(count), HeaderMap::new());
                let cut = cut(&text, MESSAGE_BYTES_MAX);
                assert!(*cut == text || text.starts_with(cut.strip_suffix('…').unwrap()), "{cut}");
                Status::new(Code::Internal, &*cut).add_header(&mut headers).unwrap();
                let bytes = header_bytes(&headers, GRPC_MESSAGE);
                assert!(bytes <= MESSAGE_BYTES_MAX, "{bytes}");
                assert!(
                    *cut == text || bytes > MESSAGE_BYTES_MAX - 24,
                    "no more is cut than must be: {bytes}"
                );
            }
        }
    }

    #[test]
    fn a_status_from_elsewhere_is_held_to_the_bounds_and_keeps_its_first_details() {
        let details = ErrorDetails::with_error_info("REASON", "elsewhere", [])
            .add_bad_request_violation("field", "x".repeat(9_000))
            .to_owned();
        let mut headers = HeaderMap::new();
        headers.insert("other", "stays".parse().unwrap());
        let long = Status::with_error_details(Code::NotFound, "m ".repeat(9_000), details);
        long.add_header(&mut headers).unwrap();
        bound_status(&mut headers);
        assert!(header_bytes(&headers, GRPC_MESSAGE) <= MESSAGE_BYTES_MAX);
        assert!(header_bytes(&headers, GRPC_DETAILS) <= DETAILS_BYTES_MAX);
        let held = Status::from_header_map(&headers).unwrap();
        assert_eq!(held.code(), Code::NotFound);
        assert!(held.message().starts_with("m m m "));
        assert_eq!(held.get_error_details().error_info().unwrap().reason, "REASON");
        assert!(held.get_error_details().bad_request().is_none());
        assert_eq!(headers["other"], "stays");
        let before = headers.clone();
        bound_status(&mut headers);
        assert_eq!(headers, before, "what is within the bounds stays as it is");
    }
}
