//! The hot responses, written straight into the buffer that is sent: sizes first, then the fields in order, with
//! no message in between. Compatible with the generated types (property tests hold it to that).

use crate::engine::{EntryView, MissReason, Namespace, Tier};
use crate::proto::wire::{
    Room, Sink, field_len, nonzero_fixed64_len, nonzero_len, put_bytes, put_head, put_nonzero,
    put_nonzero_fixed64,
};

/// The wire's number of a tier.
#[inline]
fn tier(tier: Tier) -> u64 {
    match tier {
        Tier::Memory => 1,
        Tier::Disk => 2,
    }
}

/// GetResponse with a Hit, in two halves around the value, so that a large value can be sent from where it is.
#[derive(Debug)]
pub(crate) struct HitMessage<'a> {
    entry: &'a EntryView<'a>,
    value: &'a [u8],
    near_cache_ttl_ms: u64,
    /// The Hit message's length, and the GetResponse's.
    hit_len: usize,
    len: usize,
}

impl<'a> HitMessage<'a> {
    #[inline]
    pub(crate) fn new(namespace: &Namespace, entry: &'a EntryView<'a>, metadata_only: bool) -> Self {
        let near_cache_ttl_ms = namespace.near_cache_ttl_ms(entry.remaining_ttl_ms);
        let stored = entry.value.as_slice();
        let value = if metadata_only { &[] } else { stored };
        let mut hit_len = nonzero_fixed64_len(entry.version.0)
            + nonzero_len(entry.remaining_ttl_ms)
            + nonzero_len(u64::from(entry.flags))
            + nonzero_len(tier(entry.tier))
            + nonzero_len(near_cache_ttl_ms)
            + nonzero_len(stored.len() as u64);
        if !value.is_empty() {
            hit_len += field_len(value.len());
        }
        if !entry.content_type.is_empty() {
            hit_len += field_len(entry.content_type.len());
        }
        Self { entry, value, near_cache_ttl_ms, hit_len, len: field_len(hit_len) }
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
        put_nonzero_fixed64(out, 2, self.entry.version.0);
        put_nonzero(out, 3, self.entry.remaining_ttl_ms);
        put_nonzero(out, 4, u64::from(self.entry.flags));
        if !self.entry.content_type.is_empty() {
            put_bytes(out, 5, self.entry.content_type.as_bytes());
        }
        put_nonzero(out, 6, tier(self.entry.tier));
        put_nonzero(out, 7, self.near_cache_ttl_ms);
        put_nonzero(out, 8, self.entry.value.as_slice().len() as u64);
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
        let reply_len = nonzero_len(id) + field_len(self.len());
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
    put_nonzero(out, 1, reason as u64);
}

/// SetResponse with Stored.
pub(crate) fn put_stored(out: &mut Vec<u8>, version: u64) {
    put_head(out, 1, nonzero_fixed64_len(version));
    put_nonzero_fixed64(out, 1, version);
}

/// SetResponse with NotStored.
pub(crate) fn put_not_stored(out: &mut Vec<u8>, current: u64) {
    put_head(out, 2, nonzero_fixed64_len(current));
    put_nonzero_fixed64(out, 1, current);
}

/// SetResponse with NotStored that says expired.
pub(crate) fn put_not_stored_expired(out: &mut Vec<u8>) {
    put_head(out, 2, nonzero_len(1));
    put_nonzero(out, 3, 1);
}

/// DeleteResponse.
pub(crate) fn put_deleted(out: &mut Vec<u8>, deleted: bool, current: u64) {
    put_nonzero(out, 1, u64::from(deleted));
    put_nonzero_fixed64(out, 2, current);
}

/// IncrementResponse and DecrementResponse.
pub(crate) fn put_counted(out: &mut Vec<u8>, value: i64, version: u64) {
    put_nonzero(out, 1, value as u64);
    put_nonzero_fixed64(out, 2, version);
}

/// TouchResponse.
pub(crate) fn put_touched(out: &mut Vec<u8>, found: bool) {
    put_nonzero(out, 1, u64::from(found));
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
    put_head(out, 1, nonzero_len(id) + field_len(result_len));
    put_nonzero(out, 1, id);
    put_head(out, result, result_len);
}
