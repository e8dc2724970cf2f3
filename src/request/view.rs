//! The hot requests, read where they lie: views that borrow from the message instead of messages that own copies.
//!
//! Compatible with the generated types to the letter (property tests hold it to that), but that a request has at most
//! [`FIELDS_MAX`](crate::proto::wire::FIELDS_MAX) fields beside the items of a batch, known or not. The generated types stay for
//! everything else.

use crate::proto::wire::{Field, Reader, Result, op};

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
