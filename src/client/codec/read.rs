//! Reading: the replies of a Pipeline.

use super::Unreadable;
use crate::proto::wire::{Field, Reader, result};

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
    mut each: impl FnMut(RawReply<'m>) -> Result<(), Unreadable>,
) -> Result<(), Unreadable> {
    let mut fields = Reader::unlimited(message);
    while let Some(field) = fields.next()? {
        let (1, Field::Bytes(reply)) = field else { continue };
        each(raw_reply(reply)?)?;
    }
    Ok(())
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
}
