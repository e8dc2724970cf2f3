//! Reading: fields of protobuf one by one, and the replies of a Pipeline.

use super::Malformed;

pub(super) const VARINT: u8 = 0;
const FIXED64: u8 = 1;
pub(super) const LENGTH: u8 = 2;
const FIXED32: u8 = 5;

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
pub(crate) fn replies<'m, E: From<Malformed>>(
    message: &'m [u8],
    mut each: impl FnMut(RawReply<'m>) -> Result<(), E>,
) -> Result<(), E> {
    for field in Fields(message) {
        let (1, Content::Bytes(reply)) = field? else { continue };
        let (mut id, mut owner, mut result) = (0, &[][..], None);
        for field in Fields(reply) {
            match field? {
                (1, Content::Number(number)) => id = number,
                (2, Content::Bytes(name)) => owner = name,
                (3, Content::Bytes(message)) => result = Some((ReplyKind::Get, message)),
                (4, Content::Bytes(message)) => result = Some((ReplyKind::Set, message)),
                (5, Content::Bytes(message)) => result = Some((ReplyKind::Delete, message)),
                (6, Content::Bytes(message)) => result = Some((ReplyKind::Increment, message)),
                (7, Content::Bytes(message)) => result = Some((ReplyKind::Decrement, message)),
                (8, Content::Bytes(message)) => result = Some((ReplyKind::Touch, message)),
                (9, Content::Bytes(message)) => result = Some((ReplyKind::Error, message)),
                _ => {}
            }
        }
        let (kind, result) = result.ok_or(Malformed)?;
        each(RawReply { id, owner, kind, result })?;
    }
    Ok(())
}

/// A field's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// A message's fields in order.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Content<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u64, Content<'a>), Malformed> {
        let tag = self.varint()?;
        let content = match (tag & 7) as u8 {
            VARINT => Content::Number(self.varint()?),
            FIXED64 => self.take(8).map(|_| Content::Fixed)?,
            FIXED32 => self.take(4).map(|_| Content::Fixed)?,
            LENGTH => {
                let bytes = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Content::Bytes(self.take(bytes)?)
            }
            _ => return Err(Malformed),
        };
        Ok((tag >> 3, content))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }
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
        replies::<Malformed>(&bytes, |reply| {
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
            let _ = replies::<Malformed>(&bytes[..end], |_| {
                count += 1;
                Ok(())
            });
            assert!(count < kinds.len());
        }
    }

    #[test]
    fn a_reply_without_a_result_is_malformed() {
        assert_eq!(replies::<Malformed>(&[0x0a, 0x00], |_| Ok(())), Err(Malformed));
    }
}
