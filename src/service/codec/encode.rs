//! The hot responses, written straight into the buffer that is sent: sizes first, then the fields in order, with
//! no message in between. Compatible with the generated types (property tests hold it to that).

use crate::engine::{EntryView, MissReason, Tier};

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;

/// The wire's number of a tier.
#[inline]
fn tier(tier: Tier) -> u64 {
    match tier {
        Tier::Memory => 1,
        Tier::Disk => 2,
    }
}

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

/// Room at the end of a buffer for a message of a length known before: one check for room instead of one a byte.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Room<'a> {
    /// A buffer with room for exactly `bytes` bytes.
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
pub(crate) fn put_varint(out: &mut impl Sink, mut value: u64) {
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

/// What a message or bytes field of low number takes.
#[inline]
pub(crate) fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

#[inline]
fn put_number(out: &mut impl Sink, field: u32, value: u64) {
    if value != 0 {
        put_key(out, field, VARINT);
        put_varint(out, value);
    }
}

#[inline]
fn number_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

#[inline]
fn put_fixed64(out: &mut impl Sink, field: u32, value: u64) {
    if value != 0 {
        put_key(out, field, FIXED64);
        out.put_slice(&value.to_le_bytes());
    }
}

#[inline]
fn fixed64_len(value: u64) -> usize {
    if value == 0 { 0 } else { 9 }
}

/// GetResponse with a Hit, in two halves around the value, so that a large value can be sent from where it is.
#[derive(Debug)]
pub(crate) struct HitMessage<'a> {
    entry: &'a EntryView<'a>,
    value: &'a [u8],
    /// The Hit message's length, and the GetResponse's.
    hit_len: usize,
    len: usize,
}

impl<'a> HitMessage<'a> {
    #[inline]
    pub(crate) fn new(entry: &'a EntryView<'a>, metadata_only: bool) -> Self {
        let stored = entry.value.as_slice();
        let value = if metadata_only { &[] } else { stored };
        let mut hit_len = fixed64_len(entry.version.0)
            + number_len(entry.remaining_ttl_ms)
            + number_len(u64::from(entry.flags))
            + number_len(tier(entry.tier))
            + number_len(stored.len() as u64);
        if !value.is_empty() {
            hit_len += field_len(value.len());
        }
        if !entry.content_type.is_empty() {
            hit_len += field_len(entry.content_type.len());
        }
        Self { entry, value, hit_len, len: field_len(hit_len) }
    }

    /// The GetResponse's length.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What comes before the value's bytes.
    #[inline]
    pub(crate) fn write_head(&self, out: &mut impl Sink) {
        put_head(out, 1, self.hit_len);
        if !self.value.is_empty() {
            put_head(out, 1, self.value.len());
        }
    }

    /// What comes after the value's bytes.
    #[inline]
    pub(crate) fn write_tail(&self, out: &mut impl Sink) {
        put_fixed64(out, 2, self.entry.version.0);
        put_number(out, 3, self.entry.remaining_ttl_ms);
        put_number(out, 4, u64::from(self.entry.flags));
        if !self.entry.content_type.is_empty() {
            put_head(out, 5, self.entry.content_type.len());
            out.put_slice(self.entry.content_type.as_bytes());
        }
        put_number(out, 6, tier(self.entry.tier));
        put_number(out, 8, self.entry.value.as_slice().len() as u64);
    }

    /// The whole GetResponse.
    #[inline]
    pub(crate) fn write(&self, out: &mut impl Sink) {
        self.write_head(out);
        out.put_slice(self.value);
        self.write_tail(out);
    }

    /// The whole GetResponse, at the end of a buffer.
    #[inline]
    pub(crate) fn write_at_end_of(&self, out: &mut Vec<u8>) {
        self.write(&mut Room::at_end_of(out, self.len()));
    }

    /// The same as a field of a message.
    #[inline]
    pub(crate) fn write_field(&self, field: u32, out: &mut Vec<u8>) {
        let mut room = Room::at_end_of(out, field_len(self.len()));
        put_head(&mut room, field, self.len());
        self.write(&mut room);
    }

    /// PipelineReply with this as its result's field.
    #[inline]
    pub(crate) fn write_reply(&self, id: u64, result: u32, out: &mut Vec<u8>) {
        let reply_len = number_len(id) + field_len(self.len());
        let mut room = Room::at_end_of(out, field_len(reply_len));
        put_reply_head(&mut room, id, result, self.len());
        self.write(&mut room);
    }
}

/// The length of every GetResponse with a Miss.
pub(crate) const MISS_LEN: usize = 4;

/// GetResponse with a Miss.
#[inline]
pub(crate) fn put_miss(out: &mut Vec<u8>, reason: MissReason) {
    put_head(out, 3, 2);
    put_number(out, 1, reason as u64);
}

/// SetResponse with Stored.
pub(crate) fn put_stored(out: &mut Vec<u8>, version: u64) {
    put_head(out, 1, fixed64_len(version));
    put_fixed64(out, 1, version);
}

/// SetResponse with NotStored.
pub(crate) fn put_not_stored(out: &mut Vec<u8>, current: u64) {
    put_head(out, 2, fixed64_len(current));
    put_fixed64(out, 1, current);
}

/// SetResponse with NotStored that says expired.
pub(crate) fn put_not_stored_expired(out: &mut Vec<u8>) {
    put_head(out, 2, number_len(1));
    put_number(out, 3, 1);
}

/// DeleteResponse.
pub(crate) fn put_deleted(out: &mut Vec<u8>, deleted: bool, current: u64) {
    put_number(out, 1, u64::from(deleted));
    put_fixed64(out, 2, current);
}

/// IncrementResponse and DecrementResponse.
pub(crate) fn put_counted(out: &mut Vec<u8>, value: i64, version: u64) {
    put_number(out, 1, value as u64);
    put_fixed64(out, 2, version);
}

/// TouchResponse.
pub(crate) fn put_touched(out: &mut Vec<u8>, found: bool) {
    put_number(out, 1, u64::from(found));
}

/// BatchDeleteResponse: packed, one byte each.
pub(crate) fn put_batch_deleted(out: &mut Vec<u8>, deleted: &[bool]) {
    if !deleted.is_empty() {
        put_head(out, 1, deleted.len());
        out.extend(deleted.iter().map(|deleted| u8::from(*deleted)));
    }
}

/// PipelineReply's fields before its result; `result` is the result's field number and length.
#[inline]
pub(crate) fn put_reply_head(out: &mut impl Sink, id: u64, result: u32, result_len: usize) {
    put_head(out, 1, number_len(id) + field_len(result_len));
    put_number(out, 1, id);
    put_head(out, result, result_len);
}
