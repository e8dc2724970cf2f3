//! Writing: the head of a Pipeline's command.

use bytes::BytesMut;

use crate::proto::wire::{field_len, op, put_head, put_number, varint_len};

/// What a command of a Pipeline asks for, by the number of its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum CommandKind {
    Get = op::GET,
    Set = op::SET,
    Delete = op::DELETE,
    Increment = op::INCREMENT,
    Decrement = op::DECREMENT,
    Touch = op::TOUCH,
    Cancel = op::CANCEL,
}

const PIPELINE_COMMANDS: u32 = 2;
const COMMAND_ID: u32 = 1;

/// A command up to its request, which has `request_bytes` and which the caller writes next.
pub(crate) fn put_command_head(buffer: &mut BytesMut, id: u64, kind: CommandKind, request_bytes: usize) {
    put_head(buffer, PIPELINE_COMMANDS, 1 + varint_len(id) + field_len(request_bytes));
    put_number(buffer, COMMAND_ID, id);
    put_head(buffer, kind as u32, request_bytes);
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
                let head = 1 + varint_len(field.len() as u64);
                let request = match field.len() {
                    ..128 => &field[2..],
                    _ => &field[head..],
                };
                put_command_head(&mut buffer, id, kind, request.len());
                buffer.extend_from_slice(request);
                expected.push(v1::PipelineCommand { id, ..command });
            }
        }
        let message = v1::PipelineRequest::decode(buffer).unwrap();
        assert_eq!(message.commands, expected);
    }
}
