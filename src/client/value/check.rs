//! What a format would lose of a value, found before it is written.
//!
//! serde_json writes NaN as null, JSON and MessagePack write `Some(None)` as they write `None`, postcard writes nothing of
//! a field that is skipped and reads the next in its place; and every type may nest deeper than readers go. A pass over
//! the value finds these, so that they are errors where they arise and not other values later. It writes nothing and
//! allocates nothing.

use std::fmt::Display;

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::NESTING_MAX;

/// What a format can tell apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) is_human_readable: bool,
    /// Floats that are no numbers, and infinities.
    pub(super) has_nan: bool,
    /// `Some(None)` from `None`.
    pub(super) has_nested_none: bool,
    /// Structs with fields that are not there.
    pub(super) has_skipped_fields: bool,
}

/// What would be lost.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("it has no {0}")]
    NotFinite(f64),
    #[error("it does not tell Some(None) from None; wrap the inner value in a struct")]
    NestedNone,
    #[error("it cannot skip fields, such as {0:?}: what reads it does not know that they are missing")]
    SkippedField(&'static str),
    #[error("the value nests deeper than {NESTING_MAX}")]
    TooDeep,
    /// What the type itself says.
    #[error("{0}")]
    Refused(String),
}

/// # Errors
/// What would be lost of the value.
pub(super) fn check<T: Serialize + ?Sized>(value: &T, rules: &Rules) -> Result<(), Lost> {
    value.serialize(Checker { rules, nesting: 0 }).map(|_| ())
}

#[derive(Clone, Copy)]
struct Checker<'r> {
    rules: &'r Rules,
    nesting: usize,
}

/// What is written of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    /// What `None` is written as.
    None,
    Other,
}

impl Checker<'_> {
    fn deeper(self) -> Result<Self, Lost> {
        if self.nesting == NESTING_MAX {
            return Err(Lost::TooDeep);
        }
        Ok(Self { nesting: self.nesting + 1, ..self })
    }

    fn float(self, value: f64) -> Result<Written, Lost> {
        if value.is_finite() || self.rules.has_nan { Ok(Written::Other) } else { Err(Lost::NotFinite(value)) }
    }

    fn each<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Lost> {
        value.serialize(self).map(|_| ())
    }

    fn skip(self, field: &'static str) -> Result<(), Lost> {
        if self.rules.has_skipped_fields { Ok(()) } else { Err(Lost::SkippedField(field)) }
    }
}

impl serde::ser::Error for Lost {
    fn custom<T: Display>(message: T) -> Self {
        Self::Refused(message.to_string())
    }
}

macro_rules! nothing_lost {
    ($($method:ident($($type:ty),*))*) => {
        $(fn $method(self, $(_: $type),*) -> Result<Written, Lost> {
            Ok(Written::Other)
        })*
    };
}

impl Serializer for Checker<'_> {
    type Ok = Written;
    type Error = Lost;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    nothing_lost! {
        serialize_bool(bool)
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64) serialize_i128(i128)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64) serialize_u128(u128)
        serialize_char(char) serialize_str(&str) serialize_bytes(&[u8])
    }

    fn serialize_f32(self, value: f32) -> Result<Written, Lost> {
        self.float(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<Written, Lost> {
        self.float(value)
    }

    fn serialize_none(self) -> Result<Written, Lost> {
        Ok(Written::None)
    }

    fn serialize_unit(self) -> Result<Written, Lost> {
        Ok(Written::None)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Written, Lost> {
        // MessagePack has an empty list for it.
        Ok(if self.rules.is_human_readable { Written::None } else { Written::Other })
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<Written, Lost> {
        self.deeper().map(|_| Written::Other)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Written, Lost> {
        let written = value.serialize(self.deeper()?)?;
        if written == Written::None && !self.rules.has_nested_none {
            return Err(Lost::NestedNone);
        }
        Ok(Written::Other)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Written, Lost> {
        value.serialize(self.deeper()?)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<Written, Lost> {
        self.deeper()?.each(value)?;
        Ok(Written::Other)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Lost> {
        self.deeper()
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Lost> {
        self.deeper()
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Lost> {
        self.deeper()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Lost> {
        self.deeper()?.deeper()
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Lost> {
        self.deeper()
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Lost> {
        self.deeper()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Lost> {
        self.deeper()?.deeper()
    }

    fn collect_str<T: Display + ?Sized>(self, _: &T) -> Result<Written, Lost> {
        Ok(Written::Other)
    }

    fn is_human_readable(&self) -> bool {
        self.rules.is_human_readable
    }
}

macro_rules! check_elements {
    ($($trait:ident $method:ident)*) => {
        $(impl $trait for Checker<'_> {
            type Ok = Written;
            type Error = Lost;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Lost> {
                self.each(value)
            }

            fn end(self) -> Result<Written, Lost> {
                Ok(Written::Other)
            }
        })*
    };
}

check_elements! {
    SerializeSeq serialize_element
    SerializeTuple serialize_element
    SerializeTupleStruct serialize_field
    SerializeTupleVariant serialize_field
}

macro_rules! check_fields {
    ($($trait:ident)*) => {
        $(impl $trait for Checker<'_> {
            type Ok = Written;
            type Error = Lost;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Result<(), Lost> {
                self.each(value)
            }

            fn skip_field(&mut self, field: &'static str) -> Result<(), Lost> {
                self.skip(field)
            }

            fn end(self) -> Result<Written, Lost> {
                Ok(Written::Other)
            }
        })*
    };
}

check_fields! { SerializeStruct SerializeStructVariant }

impl SerializeMap for Checker<'_> {
    type Ok = Written;
    type Error = Lost;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Lost> {
        self.each(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Lost> {
        self.each(value)
    }

    fn end(self) -> Result<Written, Lost> {
        Ok(Written::Other)
    }
}
