//! Writing: fields one behind the other into the buffer that is sent, their sizes known before.

use bytes::{BufMut, BytesMut};

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;

/// Where bytes are put: the end of the buffer that is sent, or room that was made there.
pub(crate) trait Sink {
    fn put(&mut self, byte: u8);
    fn put_slice(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, byte: u8) {
        self.push(byte);
    }

    #[inline]
    fn put_slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Sink for BytesMut {
    #[inline]
    fn put(&mut self, byte: u8) {
        self.put_u8(byte);
    }

    #[inline]
    fn put_slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Room at the end of a buffer for a message of a length known before: one check for room instead of one a byte.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Room<'a> {
    /// Room for exactly `len` bytes.
    #[inline]
    pub(crate) fn at_end_of(out: &'a mut Vec<u8>, len: usize) -> Self {
        let before = out.len();
        out.resize(before + len, 0);
        Self { bytes: &mut out[before..], at: 0 }
    }
}

impl Sink for Room<'_> {
    #[inline]
    fn put(&mut self, byte: u8) {
        self.bytes[self.at] = byte;
        self.at += 1;
    }

    #[inline]
    fn put_slice(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
}

impl Drop for Room<'_> {
    #[inline]
    fn drop(&mut self) {
        debug_assert_eq!(self.at, self.bytes.len(), "a message is as long as was said");
    }
}

/// The bytes that a varint takes.
#[inline]
pub(crate) fn varint_len(value: u64) -> usize {
    ((64 - (value | 1).leading_zeros()) as usize).div_ceil(7)
}

#[inline]
fn put_varint(out: &mut impl Sink, mut value: u64) {
    while value >= 0x80 {
        out.put(value as u8 | 0x80);
        value >>= 7;
    }
    out.put(value as u8);
}

#[inline]
fn put_key(out: &mut impl Sink, field: u32, wire_type: u32) {
    put_varint(out, u64::from(field << 3 | wire_type));
}

/// A message or bytes field's head; its content is for the caller to write.
#[inline]
pub(crate) fn put_head(out: &mut impl Sink, field: u32, len: usize) {
    put_key(out, field, BYTES);
    put_varint(out, len as u64);
}

/// A message or bytes field.
#[inline]
pub(crate) fn put_bytes(out: &mut impl Sink, field: u32, bytes: &[u8]) {
    put_head(out, field, bytes.len());
    out.put_slice(bytes);
}

/// What a message or bytes field takes whose number is below 16.
#[inline]
pub(crate) fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// A field that is a number, also where that is 0: one of a oneof, or an optional one.
#[inline]
pub(crate) fn put_number(out: &mut impl Sink, field: u32, value: u64) {
    put_key(out, field, VARINT);
    put_varint(out, value);
}

/// A field that is a number, and not there where that is 0.
#[inline]
pub(crate) fn put_nonzero(out: &mut impl Sink, field: u32, value: u64) {
    if value != 0 {
        put_number(out, field, value);
    }
}

/// What [`put_nonzero`] takes for a field whose number is below 16.
#[inline]
pub(crate) fn nonzero_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

/// A field of eight bytes, and not there where that is 0.
#[inline]
pub(crate) fn put_nonzero_fixed64(out: &mut impl Sink, field: u32, value: u64) {
    if value != 0 {
        put_key(out, field, FIXED64);
        out.put_slice(&value.to_le_bytes());
    }
}

/// What [`put_nonzero_fixed64`] takes for a field whose number is below 16.
#[inline]
pub(crate) fn nonzero_fixed64_len(value: u64) -> usize {
    if value == 0 { 0 } else { 9 }
}
