//! Requests written, and answers counted, straight on protobuf's bytes, by the client library's codec and the
//! contract's.
//!
//! ```text
//!  GetRequest    1 namespace  2 key                        GetResponse   1 hit  2 stale  3 miss
//!  SetRequest    1 namespace  2 key  3 value  4 ttl_ms     SetResponse   1 stored  2 not_stored
//!                16 durability
//!  BatchGet      1 namespace  2 keys…                      answer        1 GetResponse…
//!  BatchSet      1 namespace  2 SetRequest…                answer        1 SetResult…   1 response  2 error
//!                3 durability
//!  google.rpc.Status          1 code  3 details, a RetryInfo among them
//! ```
//!
//! Tested against the generated types, which are the authority.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::load::Operation;
pub(super) use crate::client::codec::Unreadable;
use crate::client::codec::{self, CommandKind, ReplyKind};
use crate::proto::wire::{Field, Reader};
pub(super) use crate::proto::wire::{put_bytes, put_head, put_number};

pub(super) const NAMESPACE: u32 = 1;
pub(super) const KEY: u32 = 2;
pub(super) const VALUE: u32 = 3;
pub(super) const TTL_MS: u32 = 4;
pub(super) const DURABILITY: u32 = 16;
pub(super) const BATCH_SET_ITEMS: u32 = 2;
pub(super) const BATCH_SET_DURABILITY: u32 = 3;

/// What became of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Hit,
    Miss,
    Stored,
    NotStored,
    Refused {
        code: Code,
        /// When the node asks to be tried again.
        retry_after: Option<Duration>,
    },
}

impl Answer {
    /// When the node asks to be tried again.
    pub(super) fn retry_after(self) -> Option<Duration> {
        if let Self::Refused { retry_after, .. } = self { retry_after } else { None }
    }
}

/// Each key's answer in a GetResponse, SetResponse, BatchGetResponse or BatchSetResponse.
pub(super) fn answers(
    message: &[u8],
    operation: Operation,
    is_batch: bool,
    mut each: impl FnMut(Answer),
) -> Result<(), Unreadable> {
    if !is_batch {
        each(outcome(message, operation)?);
        return Ok(());
    }
    let mut fields = Reader::unlimited(message);
    while let Some(field) = fields.next()? {
        let (1, Field::Bytes(item)) = field else { continue };
        each(match operation {
            Operation::Get => outcome(item, operation)?,
            Operation::Set => match first(item)? {
                (1, Field::Bytes(response)) => outcome(response, operation)?,
                (2, Field::Bytes(status)) => refused(status)?,
                _ => return Err(Unreadable),
            },
        });
    }
    Ok(())
}

/// Each reply in a PipelineResponse, under its id.
pub(super) fn replies(message: &[u8], mut each: impl FnMut(u64, Answer)) -> Result<(), Unreadable> {
    codec::replies(message, |reply| {
        let answer = match reply.kind {
            ReplyKind::Get => outcome(reply.result, Operation::Get)?,
            ReplyKind::Set => outcome(reply.result, Operation::Set)?,
            ReplyKind::Error => refused(reply.result)?,
            // Nothing else was asked for.
            _ => return Err(Unreadable),
        };
        each(reply.id, answer);
        Ok(())
    })
}

fn outcome(response: &[u8], operation: Operation) -> Result<Answer, Unreadable> {
    Ok(match (operation, first(response)?.0) {
        (Operation::Get, 1 | 2) => Answer::Hit,
        (Operation::Get, 3) => Answer::Miss,
        (Operation::Set, 1) => Answer::Stored,
        (Operation::Set, 2) => Answer::NotStored,
        _ => return Err(Unreadable),
    })
}

fn refused(status: &[u8]) -> Result<Answer, Unreadable> {
    let code = code(status)?;
    let whole = Status::with_details(code, "", Bytes::copy_from_slice(status));
    Ok(Answer::Refused { code, retry_after: retry_after(&whole) })
}

/// When a node that answers with this status asks to be tried again.
pub(super) fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

fn code(status: &[u8]) -> Result<Code, Unreadable> {
    let mut fields = Reader::unlimited(status);
    while let Some(field) = fields.next()? {
        if let (1, Field::Varint(number)) = field {
            return Ok(Code::from_i32(i32::try_from(number).map_err(|_| Unreadable)?));
        }
    }
    Ok(Code::Unknown)
}

fn first(message: &[u8]) -> Result<(u32, Field<'_>), Unreadable> {
    Reader::unlimited(message).next()?.ok_or(Unreadable)
}

pub(super) fn put_namespace(buffer: &mut BytesMut, namespace: &str) {
    if !namespace.is_empty() {
        put_bytes(buffer, NAMESPACE, namespace.as_bytes());
    }
}

/// A command of a Pipeline around the bytes of its GetRequest or SetRequest.
pub(super) fn put_command(buffer: &mut BytesMut, id: u64, operation: Operation, request: &[u8]) {
    let kind = match operation {
        Operation::Get => CommandKind::Get,
        Operation::Set => CommandKind::Set,
    };
    let head = codec::CommandHead { id, ..codec::CommandHead::default() };
    codec::put_command_head(buffer, head, kind, request.len());
    buffer.put_slice(request);
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::grpc::Failure;
    use crate::proto::google::rpc;
    use crate::proto::v1::{
        self, get_response, pipeline_command::Op, pipeline_reply, set_response, set_result,
    };
    use crate::service::CallError;

    fn request(namespace: &str, key: &[u8], value: Option<&[u8]>) -> BytesMut {
        let mut buffer = BytesMut::new();
        put_namespace(&mut buffer, namespace);
        put_bytes(&mut buffer, KEY, key);
        if let Some(value) = value {
            put_bytes(&mut buffer, VALUE, value);
            put_number(&mut buffer, TTL_MS, 5_000);
            put_number(&mut buffer, DURABILITY, 2);
        }
        buffer
    }

    #[test]
    fn requests_are_what_the_generated_types_read() {
        let key = [b'k'; 300];
        let get = v1::GetRequest::decode(request("ns", &key, None)).unwrap();
        assert_eq!((get.namespace.as_str(), get.key.as_ref()), ("ns", &key[..]));
        let set = v1::SetRequest::decode(request("", &key, Some(b"v"))).unwrap();
        assert_eq!(set.value.as_ref(), b"v");
        assert_eq!(set.expiration, Some(v1::set_request::Expiration::TtlMs(5_000)));
        assert_eq!(set.durability(), v1::Durability::Flushed);

        let mut buffer = BytesMut::new();
        for id in [0, 127, 128, u64::MAX] {
            put_command(&mut buffer, id, Operation::Set, &request("", &key, Some(b"")));
            put_command(&mut buffer, id, Operation::Get, &request("", b"k", None));
        }
        let pipeline = v1::PipelineRequest::decode(buffer).unwrap();
        assert_eq!(pipeline.commands.len(), 8);
        assert!(matches!(&pipeline.commands[0].op, Some(Op::Set(set)) if set.key.len() == 300));
        assert!(matches!(&pipeline.commands[7].op, Some(Op::Get(get)) if get.key == "k"));
        assert_eq!(pipeline.commands[7].id, u64::MAX);
    }

    fn get(hit: bool) -> v1::GetResponse {
        let outcome = if hit {
            get_response::Outcome::Hit(v1::Hit {
                value: vec![7; 200].into(),
                version: 9,
                ..Default::default()
            })
        } else {
            get_response::Outcome::Miss(v1::Miss::default())
        };
        v1::GetResponse { outcome: Some(outcome) }
    }

    fn set(stored: bool) -> v1::SetResponse {
        let outcome = if stored {
            set_response::Outcome::Stored(v1::Stored::default())
        } else {
            set_response::Outcome::NotStored(v1::NotStored::default())
        };
        v1::SetResponse { outcome: Some(outcome) }
    }

    #[test]
    fn answers_are_counted_as_the_generated_types_say() {
        let mut seen = Vec::new();
        answers(&get(true).encode_to_vec(), Operation::Get, false, |a| seen.push(a)).unwrap();
        answers(&set(false).encode_to_vec(), Operation::Set, false, |a| seen.push(a)).unwrap();
        let batch = v1::BatchGetResponse { results: vec![get(false), get(true)] };
        answers(&batch.encode_to_vec(), Operation::Get, true, |a| seen.push(a)).unwrap();
        let refused = rpc::Status { code: Code::ResourceExhausted as i32, ..Default::default() };
        let results = [set_result::Result::Response(set(true)), set_result::Result::Error(refused.clone())]
            .map(|result| v1::SetResult { result: Some(result) })
            .to_vec();
        let batch = v1::BatchSetResponse { results };
        answers(&batch.encode_to_vec(), Operation::Set, true, |a| seen.push(a)).unwrap();
        let exhausted = Answer::Refused { code: Code::ResourceExhausted, retry_after: None };
        let expected = [Answer::Hit, Answer::NotStored, Answer::Miss, Answer::Hit, Answer::Stored, exhausted];
        assert_eq!(seen, expected);

        let reply = |id, result| v1::PipelineReply { id, owner: "n".to_owned(), result: Some(result) };
        let message = v1::PipelineResponse {
            replies: vec![
                reply(0, pipeline_reply::Result::Get(get(true))),
                reply(300, pipeline_reply::Result::Set(set(true))),
                reply(1, pipeline_reply::Result::Error(refused)),
            ],
        };
        let mut seen = Vec::new();
        replies(&message.encode_to_vec(), |id, answer| seen.push((id, answer))).unwrap();
        assert_eq!(seen, [(0, Answer::Hit), (300, Answer::Stored), (1, exhausted)]);
    }

    #[test]
    fn when_a_node_asks_to_be_tried_again_is_read_of_an_item_as_of_a_call() {
        let error = CallError::JournalBacklog { bytes: 9 };
        let (code, item) = (Code::ResourceExhausted, error.to_rpc_status());
        let results = vec![v1::SetResult { result: Some(set_result::Result::Error(item)) }];
        let batch = v1::BatchSetResponse { results }.encode_to_vec();
        let mut seen = Vec::new();
        answers(&batch, Operation::Set, true, |answer| seen.push(answer)).unwrap();
        let asked = retry_after(&Status::from(error));
        assert_eq!(asked, Some(Duration::from_millis(100)));
        assert_eq!(seen, [Answer::Refused { code, retry_after: asked }]);
    }

    #[test]
    fn damaged_answers_are_refused_and_never_panic() {
        let good = v1::BatchGetResponse { results: vec![get(true)] }.encode_to_vec();
        for end in 1..good.len() {
            assert!(answers(&good[..end], Operation::Get, true, |_| {}).is_err(), "{end}");
        }
        assert!(answers(&[], Operation::Get, false, |_| {}).is_err());
        assert!(replies(&[0x0a, 0x00], |_, _| {}).is_err());
    }
}
