//! The hot requests, read where they lie: views that borrow from the message instead of messages that own copies.
//!
//! Compatible with the generated types to the letter (property tests hold it to that): unknown fields are skipped,
//! the last value of a field counts, text must be UTF-8, a wrong wire type is malformed. The generated types stay
//! for everything else.
//!
//! One thing is stricter: a message has at most [`FIELDS_MAX`] fields beside the items of a batch, known or not, so that
//! none takes long to read however long it is. A client's library writes each field once; what the contract may have
//! more of one day finds room.

use std::str::{Utf8Error, from_utf8};

/// Bytes that are no message of the expected type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The message ends inside a field.
    #[error("it ends inside a field")]
    Truncated,
    /// A number takes more than ten bytes.
    #[error("a varint is longer than 64 bits")]
    Varint,
    /// Field number 0 or above 2^29 − 1, or an unknown wire type.
    #[error("{key} is no field key")]
    FieldKey {
        /// The key as it was read.
        key: u64,
    },
    /// A known field in another form than the contract's.
    #[error("field {field} has another wire type than the contract says")]
    WireType {
        /// The field's number.
        field: u32,
    },
    /// A string field that is no UTF-8.
    #[error("field {field} is not UTF-8")]
    Text {
        /// The field's number.
        field: u32,
    },
    /// More fields than a request can need.
    #[error("it has more than {max} fields: a client's library writes each one once")]
    Fields {
        /// How many there may be.
        max: usize,
    },
    /// Groups nested too deep.
    #[error("groups are nested deeper than {GROUP_DEPTH_MAX}")]
    Depth,
}

const GROUP_DEPTH_MAX: u32 = 100;
/// The most fields of a message, those inside unknown groups counted.
pub(crate) const FIELDS_MAX: usize = 1_024;

type Result<T> = std::result::Result<T, Malformed>;

/// A field's value as the wire has it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// Fixed32 or a group: no hot request has one, so it can only be unknown or wrong.
    Other,
}

impl<'a> Field<'a> {
    fn varint(self, field: u32) -> Result<u64> {
        if let Self::Varint(value) = self { Ok(value) } else { Err(Malformed::WireType { field }) }
    }

    fn fixed64(self, field: u32) -> Result<u64> {
        if let Self::Fixed64(value) = self { Ok(value) } else { Err(Malformed::WireType { field }) }
    }

    fn bytes(self, field: u32) -> Result<&'a [u8]> {
        if let Self::Bytes(value) = self { Ok(value) } else { Err(Malformed::WireType { field }) }
    }

    fn text(self, field: u32) -> Result<&'a str> {
        from_utf8(self.bytes(field)?).map_err(|_: Utf8Error| Malformed::Text { field })
    }
}

/// Walks over the fields of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// How many fields may still come.
    fields_left: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message, fields_left: FIELDS_MAX }
    }

    /// A reader of a message that may also have `items_max` items.
    pub(crate) fn with_items(message: &'a [u8], items_max: usize) -> Self {
        Self { rest: message, fields_left: FIELDS_MAX.saturating_add(items_max) }
    }

    /// Bytes not read yet.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next field; `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Field<'a>)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.count()?;
        let (number, wire_type) = self.key()?;
        let field = match wire_type {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes"))),
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.take(usize::try_from(len).map_err(|_| Malformed::Truncated)?)?)
            }
            3 => {
                self.skip_group(number, 1)?;
                Field::Other
            }
            _ => {
                self.take(4)?;
                Field::Other
            }
        };
        Ok(Some((number, field)))
    }

    /// Counts a field.
    #[inline]
    fn count(&mut self) -> Result<()> {
        self.fields_left = self.fields_left.checked_sub(1).ok_or(Malformed::Fields { max: FIELDS_MAX })?;
        Ok(())
    }

    /// A field's number and wire type, of which 4 is never answered here.
    fn key(&mut self) -> Result<(u32, u64)> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        match (number, key & 7) {
            (Some(number), wire_type @ (0..=3 | 5)) => Ok((number, wire_type)),
            _ => Err(Malformed::FieldKey { key }),
        }
    }

    fn skip_group(&mut self, number: u32, depth: u32) -> Result<()> {
        if depth > GROUP_DEPTH_MAX {
            return Err(Malformed::Depth);
        }
        loop {
            let before = self.rest;
            let key = self.varint()?;
            if key == u64::from(number) << 3 | 4 {
                return Ok(());
            }
            self.rest = before;
            self.count()?;
            let (inner, wire_type) = self.key()?;
            match wire_type {
                0 => {
                    self.varint()?;
                }
                1 => {
                    self.take(8)?;
                }
                2 => {
                    let len = self.varint()?;
                    self.take(usize::try_from(len).map_err(|_| Malformed::Truncated)?)?;
                }
                3 => self.skip_group(inner, depth + 1)?,
                _ => {
                    self.take(4)?;
                }
            }
        }
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64> {
        if let [byte @ ..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        let mut value = 0u64;
        for (index, byte) in self.rest.iter().take(10).enumerate() {
            if index == 9 && *byte > 1 {
                return Err(Malformed::Varint);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { Malformed::Truncated } else { Malformed::Varint })
    }
}

/// GetRequest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct GetView<'a> {
    pub namespace: &'a str,
    pub key: &'a [u8],
    pub touch_ttl_ms: Option<u64>,
    pub max_stale_ms: u64,
    pub lease_ms: u64,
    pub wait_ms: u64,
    pub metadata_only: bool,
}

impl<'a> GetView<'a> {
    #[inline]
    pub(crate) fn read(message: &'a [u8]) -> Result<Self> {
        let mut view = Self::default();
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => view.namespace = field.text(number)?,
                2 => view.key = field.bytes(number)?,
                3 => view.touch_ttl_ms = Some(field.varint(number)?),
                4 => view.max_stale_ms = field.varint(number)?,
                5 => view.lease_ms = field.varint(number)?,
                6 => view.wait_ms = field.varint(number)?,
                7 => view.metadata_only = field.varint(number)? != 0,
                _ => {}
            }
        }
        Ok(view)
    }
}

/// The oneof `expiration` of SetRequest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpirationView {
    TtlMs(u64),
    ExpireAtUnixMs(u64),
    KeepTtl(bool),
}

/// The oneof `condition` of SetRequest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "the contract's names")]
pub(crate) enum ConditionView {
    IfAbsent(bool),
    IfPresent(bool),
    IfVersion(u64),
}

/// SetRequest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SetView<'a> {
    pub namespace: &'a str,
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub expiration: Option<ExpirationView>,
    pub condition: Option<ConditionView>,
    pub flags: u32,
    pub content_type: &'a str,
    pub tags: Vec<&'a str>,
    pub soft_ttl_ms: u64,
    pub jitter_percent: u32,
    pub lease_token: u64,
    pub durability: i32,
}

impl<'a> SetView<'a> {
    #[inline]
    pub(crate) fn read(message: &'a [u8]) -> Result<Self> {
        let mut view = Self::default();
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => view.namespace = field.text(number)?,
                2 => view.key = field.bytes(number)?,
                3 => view.value = field.bytes(number)?,
                4 => view.expiration = Some(ExpirationView::TtlMs(field.varint(number)?)),
                5 => view.expiration = Some(ExpirationView::ExpireAtUnixMs(field.varint(number)?)),
                6 => view.expiration = Some(ExpirationView::KeepTtl(field.varint(number)? != 0)),
                7 => view.condition = Some(ConditionView::IfAbsent(field.varint(number)? != 0)),
                8 => view.condition = Some(ConditionView::IfPresent(field.varint(number)? != 0)),
                9 => view.condition = Some(ConditionView::IfVersion(field.fixed64(number)?)),
                10 => view.flags = field.varint(number)? as u32,
                11 => view.content_type = field.text(number)?,
                12 => view.tags.push(field.text(number)?),
                13 => view.soft_ttl_ms = field.varint(number)?,
                14 => view.jitter_percent = field.varint(number)? as u32,
                15 => view.lease_token = field.fixed64(number)?,
                16 => view.durability = field.varint(number)? as i32,
                _ => {}
            }
        }
        Ok(view)
    }
}

/// DeleteRequest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DeleteView<'a> {
    pub namespace: &'a str,
    pub key: &'a [u8],
    pub if_version: Option<u64>,
    pub durability: i32,
}

impl<'a> DeleteView<'a> {
    pub(crate) fn read(message: &'a [u8]) -> Result<Self> {
        let mut view = Self::default();
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => view.namespace = field.text(number)?,
                2 => view.key = field.bytes(number)?,
                3 => view.if_version = Some(field.fixed64(number)?),
                4 => view.durability = field.varint(number)? as i32,
                _ => {}
            }
        }
        Ok(view)
    }
}

/// IncrementRequest, and DecrementRequest, which has the same fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct IncrementView<'a> {
    pub namespace: &'a str,
    pub key: &'a [u8],
    pub delta: i64,
    pub initial: i64,
    pub ttl_ms: u64,
    pub request_id: &'a str,
    pub durability: i32,
}

impl<'a> IncrementView<'a> {
    pub(crate) fn read(message: &'a [u8]) -> Result<Self> {
        let mut view = Self::default();
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => view.namespace = field.text(number)?,
                2 => view.key = field.bytes(number)?,
                3 => view.delta = field.varint(number)? as i64,
                4 => view.initial = field.varint(number)? as i64,
                5 => view.ttl_ms = field.varint(number)?,
                6 => view.request_id = field.text(number)?,
                7 => view.durability = field.varint(number)? as i32,
                _ => {}
            }
        }
        Ok(view)
    }
}

/// TouchRequest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TouchView<'a> {
    pub namespace: &'a str,
    pub key: &'a [u8],
    pub ttl_ms: u64,
}

impl<'a> TouchView<'a> {
    pub(crate) fn read(message: &'a [u8]) -> Result<Self> {
        let mut view = Self::default();
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => view.namespace = field.text(number)?,
                2 => view.key = field.bytes(number)?,
                3 => view.ttl_ms = field.varint(number)?,
                _ => {}
            }
        }
        Ok(view)
    }
}

/// What BatchGetRequest, BatchSetRequest and BatchDeleteRequest have in common: a namespace and many items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BatchView<'a> {
    pub namespace: &'a str,
    pub durability: i32,
    /// How many items there are; one more than there may be, and then no more of the message was read.
    pub items: usize,
    message: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// Reads a BatchGetRequest of at most `items_max` items.
    pub(crate) fn read_get(message: &'a [u8], items_max: usize) -> Result<Self> {
        Self::read(message, items_max, |_, _| Ok(()))
    }

    /// Reads a BatchSetRequest, all but its items' insides, or a BatchDeleteRequest.
    pub(crate) fn read_write(message: &'a [u8], items_max: usize) -> Result<Self> {
        Self::read(message, items_max, |view, field| {
            view.durability = field.varint(3)? as i32;
            Ok(())
        })
    }

    /// `third` is given field 3, which is the durability or unknown.
    fn read(
        message: &'a [u8],
        items_max: usize,
        third: impl Fn(&mut Self, Field<'a>) -> Result<()>,
    ) -> Result<Self> {
        let mut view = Self { message, ..Self::default() };
        let mut reader = Reader::with_items(message, items_max.saturating_add(1));
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => view.namespace = field.text(number)?,
                2 => {
                    field.bytes(number)?;
                    view.items += 1;
                    if view.items > items_max {
                        break;
                    }
                }
                3 => third(&mut view, field)?,
                _ => {}
            }
        }
        Ok(view)
    }

    /// The items: keys, or messages of their own.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        Items { reader: Reader::with_items(self.message, self.items) }
    }
}

/// Walks over the items of a batch that was read.
#[derive(Debug, Clone)]
struct Items<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            match self.reader.next() {
                Ok(Some((2, Field::Bytes(item)))) => return Some(item),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

/// PipelineCommand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CommandView<'a> {
    pub id: u64,
    pub timeout_ms: u32,
    pub traceparent: &'a str,
    /// The oneof `op`: its field number and message. `None`: unset, or set more than once, which protobuf would
    /// merge; no client's library writes that.
    pub op: Option<(u32, &'a [u8])>,
}

/// Field numbers of PipelineCommand's oneof `op`; in PipelineReply the same but one lower.
pub(crate) mod op {
    pub(crate) const GET: u32 = 4;
    pub(crate) const SET: u32 = 5;
    pub(crate) const DELETE: u32 = 6;
    pub(crate) const INCREMENT: u32 = 7;
    pub(crate) const DECREMENT: u32 = 8;
    pub(crate) const TOUCH: u32 = 9;
    pub(crate) const CANCEL: u32 = 10;
}

impl<'a> CommandView<'a> {
    #[inline]
    pub(crate) fn read(message: &'a [u8]) -> Result<Self> {
        let mut view = Self::default();
        let mut ops = 0;
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => view.id = field.varint(number)?,
                2 => view.timeout_ms = field.varint(number)? as u32,
                3 => view.traceparent = field.text(number)?,
                op::GET..=op::CANCEL => {
                    view.op = Some((number, field.bytes(number)?));
                    ops += 1;
                }
                _ => {}
            }
        }
        if ops > 1 {
            view.op = None;
        }
        Ok(view)
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod agree;
#[cfg(test)]
mod tests;
