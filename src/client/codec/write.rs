//! Writing: fields of protobuf, and the head of a Pipeline's command.

use bytes::{BufMut, BytesMut};

use super::read::{LENGTH, VARINT};

/// What a command of a Pipeline asks for, by the number of its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum CommandKind {
    Get = 4,
    Set = 5,
    Delete = 6,
    Increment = 7,
    Decrement = 8,
    Touch = 9,
    Cancel = 10,
}

const PIPELINE_COMMANDS: u8 = 2;
const COMMAND_ID: u8 = 1;

/// A command up to its request, which has `request_bytes` and which the caller writes next.
pub(crate) fn put_command_head(buffer: &mut BytesMut, id: u64, kind: CommandKind, request_bytes: usize) {
    let bytes = 1 + varint_bytes(id) + 1 + varint_bytes(request_bytes as u64) + request_bytes;
    put_length(buffer, PIPELINE_COMMANDS, bytes);
    put_number(buffer, COMMAND_ID, id);
    put_length(buffer, kind as u8, request_bytes);
}

/// The head of a field of bytes, which the caller writes next. The field's number is below 16.
pub(crate) fn put_length(buffer: &mut BytesMut, field: u8, bytes: usize) {
    buffer.put_u8(field << 3 | LENGTH);
    put_varint(buffer, bytes as u64);
}

/// A field that is a number.
pub(crate) fn put_number(buffer: &mut BytesMut, field: u8, number: u64) {
    put_varint(buffer, u64::from(field) << 3 | u64::from(VARINT));
    put_varint(buffer, number);
}

fn put_varint(buffer: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        buffer.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    buffer.put_u8(number as u8);
}

fn varint_bytes(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::v1::{self, pipeline_command::Op};

    #[test]
    fn commands_are_what_the_generated_types_read() {
        let key = bytes::Bytes::from(vec![b'k'; 300]);
        let get = v1::GetRequest { namespace: "ns".to_owned(), key: key.clone(), ..Default::default() };
        let ops = |id| {
            [
                (CommandKind::Get, Op::Get(get.clone())),
                (CommandKind::Set, Op::Set(v1::SetRequest { key: key.clone(), ..Default::default() })),
                (
                    CommandKind::Delete,
                    Op::Delete(v1::DeleteRequest { key: key.clone(), ..Default::default() }),
                ),
                (CommandKind::Increment, Op::Increment(v1::IncrementRequest::default())),
                (CommandKind::Decrement, Op::Decrement(v1::DecrementRequest::default())),
                (CommandKind::Touch, Op::Touch(v1::TouchRequest { ttl_ms: 1, ..Default::default() })),
                (CommandKind::Cancel, Op::Cancel(v1::CancelRequest { id })),
            ]
        };
        let (mut buffer, mut expected) = (BytesMut::new(), Vec::new());
        for id in [0, 127, 128, u64::MAX] {
            for (kind, op) in ops(id) {
                // A command of its own is the op's field alone.
                let command = v1::PipelineCommand { op: Some(op), ..Default::default() };
                let field = command.encode_to_vec();
                let head = 1 + varint_bytes(field.len() as u64);
                let request = match field.len() {
                    ..128 => &field[2..],
                    _ => &field[head..],
                };
                put_command_head(&mut buffer, id, kind, request.len());
                buffer.put_slice(request);
                expected.push(v1::PipelineCommand { id, ..command });
            }
        }
        let message = v1::PipelineRequest::decode(buffer).unwrap();
        assert_eq!(message.commands, expected);
    }
}
