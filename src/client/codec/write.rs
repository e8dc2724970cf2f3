//! Writing: a Pipeline's commands.

use bytes::BytesMut;
use prost::Message;

use crate::proto::v1;
use crate::proto::wire::{field_len, op, put_bytes, put_head, put_nonzero, put_number, varint_len};

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
const COMMAND_TIMEOUT_MS: u32 = 2;
const COMMAND_TRACEPARENT: u32 = 3;

/// What a command says of itself beside its request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CommandHead<'a> {
    /// The name that its reply carries.
    pub(crate) id: u64,
    /// Its own deadline; 0: none.
    pub(crate) timeout_ms: u32,
    /// The W3C trace context; empty: none.
    pub(crate) traceparent: &'a str,
}

impl CommandHead<'_> {
    fn bytes(&self) -> usize {
        let timeout = if self.timeout_ms == 0 { 0 } else { 1 + varint_len(self.timeout_ms.into()) };
        let trace = if self.traceparent.is_empty() { 0 } else { field_len(self.traceparent.len()) };
        1 + varint_len(self.id) + timeout + trace
    }
}

/// A command up to its request, which has `request_bytes` and which the caller writes next.
pub(crate) fn put_command_head(
    buffer: &mut BytesMut,
    head: CommandHead<'_>,
    kind: CommandKind,
    request_bytes: usize,
) {
    put_head(buffer, PIPELINE_COMMANDS, head.bytes() + field_len(request_bytes));
    put_number(buffer, COMMAND_ID, head.id);
    put_nonzero(buffer, COMMAND_TIMEOUT_MS, head.timeout_ms.into());
    if !head.traceparent.is_empty() {
        put_bytes(buffer, COMMAND_TRACEPARENT, head.traceparent.as_bytes());
    }
    put_head(buffer, kind as u32, request_bytes);
}

/// A command that is written straight into the message that carries it.
pub(crate) trait Command {
    /// What it asks for.
    const KIND: CommandKind;

    /// The key that it is about.
    fn key(&self) -> &[u8];

    /// The length of its request.
    fn request_bytes(&self) -> usize;

    /// Writes its request.
    fn put_request(&self, buffer: &mut BytesMut);
}

/// Writes a whole command.
pub(crate) fn put_command<C: Command>(buffer: &mut BytesMut, head: CommandHead<'_>, command: &C) {
    put_command_head(buffer, head, C::KIND, command.request_bytes());
    command.put_request(buffer);
}

/// A Get, of borrowed parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Get<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) key: &'a [u8],
    pub(crate) metadata_only: bool,
}

impl Command for Get<'_> {
    const KIND: CommandKind = CommandKind::Get;

    fn key(&self) -> &[u8] {
        self.key
    }

    fn request_bytes(&self) -> usize {
        name_len(self.namespace) + field_len(self.key.len()) + 2 * usize::from(self.metadata_only)
    }

    fn put_request(&self, buffer: &mut BytesMut) {
        put_name(buffer, self.namespace);
        put_bytes(buffer, KEY, self.key);
        put_nonzero(buffer, METADATA_ONLY, self.metadata_only.into());
    }
}

/// A Set, of borrowed parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Set<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    /// Everything else: a message whose namespace, key and value are empty. Protobuf reads what stands one behind the other
    /// as one message.
    pub(crate) rest: &'a v1::SetRequest,
}

impl Command for Set<'_> {
    const KIND: CommandKind = CommandKind::Set;

    fn key(&self) -> &[u8] {
        self.key
    }

    fn request_bytes(&self) -> usize {
        name_len(self.namespace)
            + field_len(self.key.len())
            + field_len(self.value.len())
            + self.rest.encoded_len()
    }

    fn put_request(&self, buffer: &mut BytesMut) {
        put_name(buffer, self.namespace);
        put_bytes(buffer, KEY, self.key);
        put_bytes(buffer, VALUE, self.value);
        self.rest.encode_raw(buffer);
    }
}

/// Commands that are rare enough to be written by the generated types.
macro_rules! commands {
    ($($kind:ident: $request:ident;)*) => {
        $(impl Command for v1::$request {
            const KIND: CommandKind = CommandKind::$kind;

            fn key(&self) -> &[u8] {
                &self.key
            }

            fn request_bytes(&self) -> usize {
                self.encoded_len()
            }

            fn put_request(&self, buffer: &mut BytesMut) {
                self.encode_raw(buffer);
            }
        })*
    };
}

commands! {
    Delete: DeleteRequest;
    Increment: IncrementRequest;
    Decrement: DecrementRequest;
    Touch: TouchRequest;
}

/// Fields that every request has under the same number.
const NAMESPACE: u32 = 1;
const KEY: u32 = 2;
const VALUE: u32 = 3;
const METADATA_ONLY: u32 = 7;

fn name_len(namespace: &str) -> usize {
    if namespace.is_empty() { 0 } else { field_len(namespace.len()) }
}

fn put_name(buffer: &mut BytesMut, namespace: &str) {
    if !namespace.is_empty() {
        put_bytes(buffer, NAMESPACE, namespace.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::pipeline_command::Op;

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
                let head = CommandHead { id, ..CommandHead::default() };
                put_command_head(&mut buffer, head, kind, request.len());
                buffer.extend_from_slice(request);
                expected.push(v1::PipelineCommand { id, ..command });
            }
        }
        let message = v1::PipelineRequest::decode(buffer).unwrap();
        assert_eq!(message.commands, expected);
    }

    #[test]
    fn borrowed_commands_are_what_the_generated_types_read() {
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let rest = v1::SetRequest {
            expiration: Some(v1::set_request::Expiration::TtlMs(0)),
            flags: 7,
            tags: vec!["t".to_owned()],
            durability: 2,
            ..v1::SetRequest::default()
        };
        for (namespace, metadata_only, timeout_ms, traceparent) in
            [("", false, 0, ""), ("ns", true, u32::MAX, traceparent)]
        {
            let (key, value) = (&[b'k'; 200][..], &[b'v'; 300][..]);
            let mut buffer = BytesMut::new();
            let head = CommandHead { id: 128, timeout_ms, traceparent };
            put_command(&mut buffer, head, &Get { namespace, key, metadata_only });
            put_command(&mut buffer, head, &Set { namespace, key, value, rest: &rest });
            let touch = v1::TouchRequest { key: key.to_vec().into(), ttl_ms: 9, ..Default::default() };
            put_command(&mut buffer, head, &touch);
            let get = v1::GetRequest {
                namespace: namespace.to_owned(),
                key: key.to_vec().into(),
                metadata_only,
                ..Default::default()
            };
            let set = v1::SetRequest {
                namespace: namespace.to_owned(),
                key: key.to_vec().into(),
                value: value.to_vec().into(),
                ..rest.clone()
            };
            let command = |op| v1::PipelineCommand {
                id: 128,
                timeout_ms,
                traceparent: traceparent.to_owned(),
                op: Some(op),
            };
            let expected = [Op::Get(get), Op::Set(set), Op::Touch(touch)].map(command);
            assert_eq!(v1::PipelineRequest::decode(buffer).unwrap().commands, expected);
        }
    }
}
