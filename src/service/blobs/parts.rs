//! PutBlob's stream, read as it comes: what is of a blob is handed on from where it lies, frame by frame, so that a
//! message of any length takes no memory of its own. Only a header is gathered.
//!
//! ```text
//! ┌────────┬─────┬────────┬─────────┐   ┌────────┬─────┬────────┬───────── … ─┐
//! │ prefix │ 0x0a│ length │ header  │   │ prefix │ 0x12│ length │ chunk       │  …
//! └────────┴─────┴────────┴─────────┘   └────────┴─────┴────────┴───────── … ─┘
//! ```
//!
//! Fields that the contract does not name are passed over, wherever they stand. A message has exactly one part.

use bytes::{Buf, Bytes, BytesMut};

use crate::grpc::GrpcError;
use crate::grpc::frame::{PREFIX, message_len};
use crate::proto::v1;
use crate::proto::wire::{FIELDS_MAX, Malformed};
use crate::request::CallError;
use crate::request::convert;

/// Longer than the header of any blob: key, namespace and content type have their limits.
const HEADER_BYTES_MAX: u64 = 16 << 10;

/// A part of the stream.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// The blob's header.
    Header(Box<v1::BlobHeader>),
    /// The blob's next bytes, never none.
    Data(Bytes),
}

/// Reads parts off a stream of frames.
#[derive(Debug)]
pub(super) struct Parts {
    message_bytes_max: usize,
    state: State,
    /// What is left of the message.
    left: u64,
    /// The message has had its part.
    has_part: bool,
    /// How many fields it has had.
    fields: usize,
    /// A prefix or a header that is not whole yet.
    gathered: BytesMut,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Before a message.
    Prefix,
    /// In a field's key.
    Key(Varint),
    /// In the length of what follows, for a field of this number.
    Length(u64, Varint),
    /// In a number that means nothing here.
    Number(Varint),
    /// In bytes that mean nothing here.
    Skipped(u64),
    Header(u64),
    Data(u64),
}

/// A number that is read byte by byte.
#[derive(Debug, Clone, Copy, Default)]
struct Varint {
    value: u64,
    shift: u32,
}

impl Varint {
    /// Takes a byte; the number, if that was its last.
    fn push(&mut self, byte: u8) -> Result<Option<u64>, CallError> {
        if self.shift > 63 || (self.shift == 63 && byte & 0x7e != 0) {
            return Err(malformed("a number has more than 64 bits"));
        }
        self.value |= u64::from(byte & 0x7f) << self.shift;
        self.shift += 7;
        Ok((byte & 0x80 == 0).then_some(self.value))
    }
}

impl Parts {
    /// Takes messages up to this length.
    pub(super) fn new(message_bytes_max: usize) -> Self {
        let gathered = BytesMut::new();
        Self { message_bytes_max, state: State::Prefix, left: 0, has_part: false, fields: 0, gathered }
    }

    /// The next part in `input`, which is taken off it; `None`: there is none without more input.
    pub(super) fn next(&mut self, input: &mut Bytes) -> Result<Option<Part>, CallError> {
        while !input.is_empty() {
            match self.state {
                State::Prefix => self.prefix(input)?,
                State::Key(mut varint) => {
                    let key = varint.push(self.byte(input)?)?;
                    self.state = State::Key(varint);
                    if let Some(key) = key {
                        self.key(key)?;
                    }
                }
                State::Length(field, mut varint) => {
                    let length = varint.push(self.byte(input)?)?;
                    self.state = State::Length(field, varint);
                    if let Some(length) = length
                        && let Some(part) = self.length(field, length)?
                    {
                        return Ok(Some(part));
                    }
                }
                State::Number(mut varint) => {
                    let number = varint.push(self.byte(input)?)?;
                    self.state = State::Number(varint);
                    if number.is_some() {
                        self.field_ended()?;
                    }
                }
                State::Skipped(bytes) => {
                    let skipped = self.take(input, bytes).len() as u64;
                    self.state = State::Skipped(bytes - skipped);
                    if skipped == bytes {
                        self.field_ended()?;
                    }
                }
                State::Header(bytes) => {
                    let taken = self.take(input, bytes);
                    self.gathered.extend_from_slice(&taken);
                    self.state = State::Header(bytes - taken.len() as u64);
                    if taken.len() as u64 == bytes {
                        return self.header().map(Some);
                    }
                }
                State::Data(bytes) => {
                    let data = self.take(input, bytes);
                    self.state = State::Data(bytes - data.len() as u64);
                    if data.len() as u64 == bytes {
                        self.field_ended()?;
                    }
                    return Ok(Some(Part::Data(data)));
                }
            }
        }
        Ok(None)
    }

    /// Whether the stream may end here.
    pub(super) fn end(&self) -> Result<(), CallError> {
        match self.state {
            State::Prefix if self.gathered.is_empty() => Ok(()),
            _ => Err(GrpcError::Frame { what: "the stream ends inside a message" }.into()),
        }
    }

    fn prefix(&mut self, input: &mut Bytes) -> Result<(), CallError> {
        let missing = PREFIX - self.gathered.len();
        self.gathered.extend_from_slice(&input.split_to(missing.min(input.len())));
        if let Some(len) = message_len(&self.gathered, self.message_bytes_max)? {
            self.gathered.clear();
            self.left = len as u64;
            self.has_part = false;
            self.fields = 0;
            self.state = State::Key(Varint::default());
            self.message_goes_on()?;
        }
        Ok(())
    }

    fn key(&mut self, key: u64) -> Result<(), CallError> {
        self.fields += 1;
        if self.fields > FIELDS_MAX {
            return Err(Malformed::Fields { max: FIELDS_MAX }.into());
        }
        let (field, wire_type) = (key >> 3, key & 7);
        let is_part = field == 1 || field == 2;
        self.state = match wire_type {
            2 => State::Length(field, Varint::default()),
            _ if field == 0 || is_part => return Err(malformed("a field is of another type")),
            0 => State::Number(Varint::default()),
            1 => State::Skipped(8),
            5 => State::Skipped(4),
            _ => return Err(malformed("a field is of a type that there is not")),
        };
        match self.state {
            State::Skipped(bytes) if bytes > self.left => {
                Err(malformed("a field is longer than its message"))
            }
            _ if self.left == 0 => Err(malformed("a field ends before its value")),
            _ => Ok(()),
        }
    }

    fn length(&mut self, field: u64, length: u64) -> Result<Option<Part>, CallError> {
        if length > self.left {
            return Err(malformed("a field is longer than its message"));
        }
        if field == 1 || field == 2 {
            if std::mem::replace(&mut self.has_part, true) {
                return Err(malformed("a message has more than one part"));
            }
            if field == 1 && length > HEADER_BYTES_MAX {
                return Err(malformed("the header is longer than any is"));
            }
        }
        self.state = match field {
            1 => State::Header(length),
            2 => State::Data(length),
            _ => State::Skipped(length),
        };
        match (field, length) {
            (1, 0) => self.header().map(Some),
            (_, 0) => self.field_ended().map(|()| None),
            _ => Ok(None),
        }
    }

    fn header(&mut self) -> Result<Part, CallError> {
        let header: v1::BlobHeader = convert::decode(&self.gathered.split())?;
        self.field_ended()?;
        Ok(Part::Header(Box::new(header)))
    }

    fn field_ended(&mut self) -> Result<(), CallError> {
        self.state = State::Key(Varint::default());
        self.message_goes_on()
    }

    /// Ends the message where nothing is left of it.
    fn message_goes_on(&mut self) -> Result<(), CallError> {
        if self.left > 0 {
            return Ok(());
        }
        self.state = State::Prefix;
        if self.has_part { Ok(()) } else { Err(malformed("a message has neither header nor chunk")) }
    }

    /// A byte of a number.
    fn byte(&mut self, input: &mut Bytes) -> Result<u8, CallError> {
        self.left =
            self.left.checked_sub(1).ok_or_else(|| malformed("a number is longer than its message"))?;
        Ok(input.get_u8())
    }

    fn take(&mut self, input: &mut Bytes, bytes: u64) -> Bytes {
        let taken = input.split_to(input.len().min(usize::try_from(bytes).unwrap_or(usize::MAX)));
        self.left -= taken.len() as u64;
        taken
    }
}

fn malformed(why: &str) -> CallError {
    GrpcError::Undecodable { why: why.to_owned() }.into()
}

/// Reads `bytes` as a stream of PutBlob, cut into pieces as long as the first byte says.
#[cfg(fuzzing)]
pub(in crate::service) fn fuzz(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let mut parts = Parts::new(1 << 20);
    for piece in bytes.chunks(usize::from(*cut).max(1)) {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            match parts.next(&mut input) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    let _ = parts.end();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use v1::put_blob_request::Part as Sent;

    fn framed(message: &[u8]) -> Vec<u8> {
        let len = u32::try_from(message.len()).unwrap();
        [&[0][..], &len.to_be_bytes(), message].concat()
    }

    fn request(part: Sent) -> Vec<u8> {
        framed(&v1::PutBlobRequest { part: Some(part) }.encode_to_vec())
    }

    /// What a stream has, cut into pieces: headers, and data joined; then how it ended.
    fn read(stream: &[u8], piece: usize) -> (Vec<Part>, Result<(), CallError>) {
        let (mut parts, mut read) = (Parts::new(1 << 20), Vec::new());
        for piece in stream.chunks(piece) {
            let mut input = Bytes::copy_from_slice(piece);
            loop {
                match parts.next(&mut input) {
                    Ok(None) => break,
                    Ok(Some(part)) => read.push(part),
                    Err(error) => return (read, Err(error)),
                }
            }
            assert!(input.is_empty());
        }
        (read, parts.end())
    }

    fn data(parts: &[Part]) -> Vec<u8> {
        parts
            .iter()
            .flat_map(|part| match part {
                Part::Data(data) => data.to_vec(),
                Part::Header(_) => Vec::new(),
            })
            .collect()
    }

    #[test]
    fn a_message_of_many_fields_is_refused_where_it_has_too_many() {
        let fields = |count: usize| [&[0x18, 1].repeat(count)[..], &[0x12, 1, b'a']].concat();
        assert!(read(&framed(&fields(FIELDS_MAX - 1)), 999).1.is_ok());
        let (parts, end) = read(&framed(&fields(FIELDS_MAX)), 999);
        assert_eq!((parts.len(), end), (0, Err(Malformed::Fields { max: FIELDS_MAX }.into())));
    }

    #[test]
    fn what_is_no_stream_of_parts_is_refused() {
        let header = request(Sent::Header(v1::BlobHeader { key: Bytes::from("k"), ..Default::default() }));
        let chunk = request(Sent::Chunk(Bytes::from("abc")));
        let unknown = framed(&[0x18, 0x96, 0x01, 0x12, 1, b'x', 0x22, 2, 9, 9, 0x2d, 1, 2, 3, 4]);
        let stream = [header.clone(), chunk.clone(), unknown, request(Sent::Chunk(Bytes::new()))].concat();
        let (parts, end) = read(&stream, 3);
        assert!(matches!(parts[0], Part::Header(_)) && end.is_ok());
        assert_eq!(data(&parts), b"abcx");
        let wrong: [&[u8]; 11] = [
            &framed(&[]),
            &framed(&[0x18, 1]),
            &framed(&[0x12, 1, b'a', 0x12, 1, b'b']),
            &framed(&[0x12, 5, b'a']),
            &framed(&[0x12]),
            &framed(&[0x12, 0x80]),
            &framed(&[0x10, 1]),
            &framed(&[0x03]),
            &framed(&[0x2d, 1]),
            &framed(&[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x12, 0]),
            &[2, 0, 0, 0, 1, 0],
        ];
        for wrong in wrong {
            for piece in 1..8 {
                let stream = [&chunk[..], wrong, &chunk].concat();
                let (parts, end) = read(&stream, piece);
                assert!(end.is_err() && data(&parts).starts_with(b"abc"), "{wrong:?}");
            }
        }
        for cut in 1..chunk.len() {
            assert!(read(&chunk[..cut], 2).1.is_err());
        }
        assert!(read(&[0, 0x7f, 0, 0, 0], 9).1.is_err(), "over the limit");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn chunks_come_out_as_they_went_in_however_they_are_cut(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 1..6),
            piece in 1..500_usize,
        ) {
            let header = v1::BlobHeader { key: Bytes::from(vec![7; 300]), ttl_ms: 5, ..Default::default() };
            let mut stream = request(Sent::Header(header.clone()));
            for chunk in &chunks {
                stream.extend(request(Sent::Chunk(chunk.clone().into())));
            }
            let (parts, end) = read(&stream, piece);
            prop_assert_eq!(end, Ok(()));
            prop_assert_eq!(&parts[0], &Part::Header(Box::new(header)));
            prop_assert_eq!(data(&parts), chunks.concat());
        }

        #[test]
        fn no_bytes_panic_the_reader(stream in prop::collection::vec(any::<u8>(), 0..200), piece in 1..50_usize) {
            let _ = (read(&stream, piece), read(&framed(&stream), piece));
        }
    }
}
