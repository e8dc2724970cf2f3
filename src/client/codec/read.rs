//! Reading: the replies of a Pipeline, and what a Get came to.

use std::time::Duration;

use bytes::Bytes;

use super::Unreadable;
use crate::client::convert::{miss_reason, tier};
use crate::client::outcome::{GetOutcome, Hit};
use crate::entry::Version;
use crate::proto::v1;
use crate::proto::wire::{Field, Reader, op, result};

/// What a reply is to, or that it is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyKind {
    Get,
    Set,
    Delete,
    Increment,
    Decrement,
    Touch,
    Error,
}

/// A reply whose result is not read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawReply<'m> {
    pub(crate) id: u64,
    /// The owner's node id, where it answered in place of this node.
    pub(crate) owner: &'m [u8],
    pub(crate) kind: ReplyKind,
    /// The message of the result.
    pub(crate) result: &'m [u8],
}

/// Hands out each reply in a PipelineResponse.
pub(crate) fn replies<'m>(
    message: &'m [u8],
    each: impl FnMut(RawReply<'m>) -> Result<(), Unreadable>,
) -> Result<(), Unreadable> {
    let mut left = usize::MAX;
    replies_up_to(message, &mut left, each).map(|_| ())
}

/// Hands out the first replies in a PipelineResponse, no more than `left`, which counts down; how many bytes they take.
pub(crate) fn replies_up_to<'m>(
    message: &'m [u8],
    left: &mut usize,
    mut each: impl FnMut(RawReply<'m>) -> Result<(), Unreadable>,
) -> Result<usize, Unreadable> {
    let mut fields = Reader::unlimited(message);
    while *left > 0
        && let Some(field) = fields.next()?
    {
        let (1, Field::Bytes(reply)) = field else { continue };
        each(raw_reply(reply)?)?;
        *left -= 1;
    }
    Ok(message.len() - fields.remaining())
}

fn raw_reply(message: &[u8]) -> Result<RawReply<'_>, Unreadable> {
    let (mut id, mut owner, mut found) = (0, &[][..], None);
    let mut fields = Reader::unlimited(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Field::Varint(number)) => id = number,
            (2, Field::Bytes(name)) => owner = name,
            (result::GET, Field::Bytes(message)) => found = Some((ReplyKind::Get, message)),
            (result::SET, Field::Bytes(message)) => found = Some((ReplyKind::Set, message)),
            (result::DELETE, Field::Bytes(message)) => found = Some((ReplyKind::Delete, message)),
            (result::INCREMENT, Field::Bytes(message)) => found = Some((ReplyKind::Increment, message)),
            (result::DECREMENT, Field::Bytes(message)) => found = Some((ReplyKind::Decrement, message)),
            (result::TOUCH, Field::Bytes(message)) => found = Some((ReplyKind::Touch, message)),
            (result::ERROR, Field::Bytes(message)) => found = Some((ReplyKind::Error, message)),
            _ => {}
        }
    }
    let (kind, result) = found.ok_or(Unreadable)?;
    Ok(RawReply { id, owner, kind, result })
}

/// Hands out each command of a PipelineRequest that this library wrote, as the bytes of its field, with its id; a Cancel
/// has none.
pub(crate) fn each_command(message: &[u8], mut each: impl FnMut(Option<u64>, &[u8])) {
    let mut fields = Reader::unlimited(message);
    let mut at = 0;
    while let Ok(Some((_, Field::Bytes(command)))) = fields.next() {
        let end = message.len() - fields.remaining();
        each(id_of(command), &message[at..end]);
        at = end;
    }
}

fn id_of(command: &[u8]) -> Option<u64> {
    let (mut id, mut fields) = (0, Reader::unlimited(command));
    while let Ok(Some(field)) = fields.next() {
        match field {
            (1, Field::Varint(number)) => id = number,
            (op::CANCEL, _) => return None,
            _ => {}
        }
    }
    Some(id)
}

/// What a GetResponse says. The value in it is a part of the message, whose memory it holds.
pub(crate) fn get_outcome(message: Bytes) -> Result<GetOutcome, Unreadable> {
    let mut outcome = None;
    let mut fields = Reader::unlimited(&message);
    while let Some(field) = fields.next()? {
        outcome = match field {
            (1, Field::Bytes(hit)) => Some(Found::Hit(hit)),
            (2, Field::Bytes(stale)) => Some(Found::Stale(entry_of(stale)?)),
            (3, Field::Bytes(miss)) => Some(Found::Miss(reason_of(miss)?)),
            _ => continue,
        };
    }
    Ok(match outcome.ok_or(Unreadable)? {
        Found::Hit(hit) => GetOutcome::Hit(hit_of(&message, hit)?),
        Found::Stale(hit) => GetOutcome::Stale(hit_of(&message, hit)?),
        Found::Miss(reason) => GetOutcome::Miss(miss_reason(
            v1::MissReason::try_from(reason as i32).unwrap_or(v1::MissReason::Unspecified),
        )),
    })
}

enum Found<'m> {
    Hit(&'m [u8]),
    Stale(&'m [u8]),
    Miss(u64),
}

fn entry_of(stale: &[u8]) -> Result<&[u8], Unreadable> {
    let (mut entry, mut fields) = (None, Reader::unlimited(stale));
    while let Some(field) = fields.next()? {
        if let (1, Field::Bytes(hit)) = field {
            entry = Some(hit);
        }
    }
    entry.ok_or(Unreadable)
}

fn reason_of(miss: &[u8]) -> Result<u64, Unreadable> {
    let (mut reason, mut fields) = (0, Reader::unlimited(miss));
    while let Some(field) = fields.next()? {
        if let (1, Field::Varint(number)) = field {
            reason = number;
        }
    }
    Ok(reason)
}

fn hit_of(message: &Bytes, hit: &[u8]) -> Result<Hit, Unreadable> {
    let (mut value, mut content_type) = (&[][..], &[][..]);
    let (mut version, mut ttl_ms, mut flags, mut found_in, mut near_ms, mut value_bytes) = (0, 0, 0, 0, 0, 0);
    let mut fields = Reader::unlimited(hit);
    while let Some(field) = fields.next()? {
        match field {
            (1, Field::Bytes(bytes)) => value = bytes,
            (2, Field::Fixed64(number)) => version = number,
            (3, Field::Varint(number)) => ttl_ms = number,
            (4, Field::Varint(number)) => flags = number as u32,
            (5, Field::Bytes(text)) => content_type = text,
            (6, Field::Varint(number)) => found_in = number as i32,
            (7, Field::Varint(number)) => near_ms = number,
            (8, Field::Varint(number)) => value_bytes = number,
            _ => {}
        }
    }
    Ok(Hit {
        value: if value.is_empty() { Bytes::new() } else { message.slice_ref(value) },
        value_bytes,
        version: Version(version),
        remaining_ttl: (ttl_ms != 0).then(|| Duration::from_millis(ttl_ms)),
        flags,
        content_type: std::str::from_utf8(content_type).map_err(|_| Unreadable)?.to_owned(),
        tier: tier(v1::Tier::try_from(found_in).unwrap_or(v1::Tier::Unspecified)),
        near_cache_ttl: Duration::from_millis(near_ms),
    })
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::google::rpc;
    use crate::proto::v1::{self, pipeline_reply::Result as Reply};

    #[test]
    fn replies_are_split_as_the_generated_types_say() {
        let reply =
            |id, owner: &str, result| v1::PipelineReply { id, owner: owner.to_owned(), result: Some(result) };
        let message = v1::PipelineResponse {
            replies: vec![
                reply(0, "", Reply::Get(v1::GetResponse::default())),
                reply(300, "n", Reply::Set(v1::SetResponse::default())),
                reply(2, "", Reply::Delete(v1::DeleteResponse { deleted: true, current_version: 0 })),
                reply(3, "", Reply::Increment(v1::IncrementResponse { value: -1, version: 1 })),
                reply(4, "", Reply::Decrement(v1::DecrementResponse { value: 1, version: 1 })),
                reply(5, "", Reply::Touch(v1::TouchResponse { found: true })),
                reply(u64::MAX, "", Reply::Error(rpc::Status { code: 8, ..Default::default() })),
            ],
        };
        let bytes = message.encode_to_vec();
        let mut seen = Vec::new();
        replies(&bytes, |reply| {
            seen.push((reply.id, reply.kind, reply.owner.to_owned()));
            let touched = v1::TouchResponse::decode(reply.result);
            assert!(reply.kind != ReplyKind::Touch || touched == Ok(v1::TouchResponse { found: true }));
            Ok(())
        })
        .unwrap();
        let kinds = [
            ReplyKind::Get,
            ReplyKind::Set,
            ReplyKind::Delete,
            ReplyKind::Increment,
            ReplyKind::Decrement,
            ReplyKind::Touch,
            ReplyKind::Error,
        ];
        let expected: Vec<_> = message
            .replies
            .iter()
            .zip(kinds)
            .map(|(reply, kind)| (reply.id, kind, reply.owner.clone().into_bytes()))
            .collect();
        assert_eq!(seen, expected);
        for end in 0..bytes.len() {
            // Whatever is cut off, nothing panics, and nothing is seen that was not sent.
            let mut count = 0;
            let _ = replies(&bytes[..end], |_| {
                count += 1;
                Ok(())
            });
            assert!(count < kinds.len());
        }
    }

    #[test]
    fn a_reply_without_a_result_is_unreadable() {
        assert_eq!(replies(&[0x0a, 0x00], |_| Ok(())), Err(Unreadable));
    }

    #[test]
    fn a_message_may_have_any_number_of_replies_and_what_is_not_known_is_passed_over() {
        let touched = v1::PipelineReply {
            id: 7,
            result: Some(Reply::Touch(v1::TouchResponse { found: true })),
            ..Default::default()
        };
        let mut message = v1::PipelineResponse { replies: vec![touched; 5_000] }.encode_to_vec();
        // Field 100 as a number, as text and as a group.
        message.extend([0xa0, 0x06, 0x01, 0xa2, 0x06, 0x01, b'n', 0xa3, 0x06, 0xa4, 0x06]);
        let mut count = 0;
        replies(&message, |reply| {
            assert_eq!((reply.id, reply.kind), (7, ReplyKind::Touch));
            count += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(count, 5_000);
    }

    #[test]
    fn what_a_get_came_to_is_read_as_the_generated_types_say() {
        use v1::get_response::Outcome;
        let hit = v1::Hit {
            value: vec![b'v'; 300].into(),
            version: u64::MAX,
            remaining_ttl_ms: 7,
            flags: u32::MAX,
            content_type: "text/plain".to_owned(),
            tier: v1::Tier::Disk as i32,
            near_cache_ttl_ms: 9,
            value_bytes: 300,
        };
        let empty = v1::Hit { tier: 99, ..v1::Hit::default() };
        let stale = |entry| Outcome::Stale(v1::Stale { entry, lease_won: true, lease_token: 3 });
        let miss = |reason| Outcome::Miss(v1::Miss { reason, lease_token: 1 });
        for outcome in [
            Some(Outcome::Hit(hit.clone())),
            Some(Outcome::Hit(empty)),
            Some(stale(Some(hit))),
            Some(stale(None)),
            Some(miss(v1::MissReason::OwnerDown as i32)),
            Some(miss(1_000)),
            None,
        ] {
            let response = v1::GetResponse { outcome };
            let bytes = Bytes::from(response.encode_to_vec());
            for end in 0..bytes.len() {
                // Whatever is cut off, nothing panics.
                let _ = get_outcome(bytes.slice(..end));
            }
            assert_eq!(get_outcome(bytes).ok(), crate::client::convert::get_outcome(response));
        }
    }
}
