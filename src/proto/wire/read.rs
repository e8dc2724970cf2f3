//! Reading: a message's fields one by one, each borrowed from the message.

use std::str::{Utf8Error, from_utf8};

/// Why bytes are no message of the expected type.
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
/// The most fields of a request, those inside unknown groups counted.
pub(crate) const FIELDS_MAX: usize = 1_024;

pub(crate) type Result<T> = std::result::Result<T, Malformed>;

/// A field's value as the wire has it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// Fixed32 or a group: no message that is read here has one, so it can only be unknown or wrong.
    Other,
}

impl<'a> Field<'a> {
    #[inline]
    pub(crate) fn varint(self, field: u32) -> Result<u64> {
        if let Self::Varint(value) = self { Ok(value) } else { Err(Malformed::WireType { field }) }
    }

    #[inline]
    pub(crate) fn fixed64(self, field: u32) -> Result<u64> {
        if let Self::Fixed64(value) = self { Ok(value) } else { Err(Malformed::WireType { field }) }
    }

    #[inline]
    pub(crate) fn bytes(self, field: u32) -> Result<&'a [u8]> {
        if let Self::Bytes(value) = self { Ok(value) } else { Err(Malformed::WireType { field }) }
    }

    #[inline]
    pub(crate) fn text(self, field: u32) -> Result<&'a str> {
        from_utf8(self.bytes(field)?).map_err(|_: Utf8Error| Malformed::Text { field })
    }
}

/// Walks over the fields of a message, of which there may be a limited number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// How many fields may still come.
    fields_left: usize,
}

impl<'a> Reader<'a> {
    /// A reader of a request, which has at most [`FIELDS_MAX`] fields.
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message, fields_left: FIELDS_MAX }
    }

    /// A reader of a request that may also have `items_max` items.
    pub(crate) fn with_items(message: &'a [u8], items_max: usize) -> Self {
        Self { rest: message, fields_left: FIELDS_MAX.saturating_add(items_max) }
    }

    /// A reader of a message of any number of fields: an answer, or a request that was read within its limit before.
    pub(crate) fn unlimited(message: &'a [u8]) -> Self {
        Self { rest: message, fields_left: usize::MAX }
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
