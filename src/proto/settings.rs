//! Config's fields by name, for GetConfig and UpdateConfig, on the node and in the client. Which there are is read off the contract by build.rs.

use super::v1;

/// The value of a field of Config.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldValue {
    /// Bytes, milliseconds or things.
    Number(u64),
    /// A share.
    Real(f64),
    /// On or off.
    Switch(bool),
    /// Text, or one of a few words.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
}

/// What a field's number is of, which its name ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    Ms,
    /// Things that are counted, or no number.
    One,
}

/// A field's name without its unit, and that.
fn parts(field: &str) -> (&str, Unit) {
    let (bytes, ms) = (field.strip_suffix("_bytes"), field.strip_suffix("_ms"));
    match (bytes, ms) {
        (Some(name), _) => (name, Unit::Bytes),
        (None, Some(name)) => (name, Unit::Ms),
        (None, None) => (field, Unit::One),
    }
}

/// What a field's number is of.
pub(crate) fn unit(field: &str) -> Unit {
    parts(field).1
}

/// The flag of `larder serve` that a field is, without its dashes: `flush_interval_ms` is `flush-interval`.
pub(crate) fn flag(field: &str) -> String {
    parts(field).0.replace('_', "-")
}

macro_rules! config_fields {
    ($($field:ident),+) => {
        /// Config's fields, in its order.
        pub(crate) const FIELDS: &[&str] = &[$(stringify!($field)),+];

        /// The value of a field; `None`: there is none of that name.
        pub(crate) fn value(config: &v1::Config, field: &str) -> Option<FieldValue> {
            match field {
                $(stringify!($field) => Some(config.$field.value()),)+
                _ => None,
            }
        }

        /// Sets a field; false: there is none of that name, or it has another type.
        pub(crate) fn set(config: &mut v1::Config, field: &str, value: FieldValue) -> bool {
            match field {
                $(stringify!($field) => config.$field.set(value),)+
                _ => false,
            }
        }
    };
}

include!(concat!(env!("OUT_DIR"), "/config_fields.rs"));

/// A type that a field of Config has.
trait Field {
    fn value(&self) -> FieldValue;

    /// Whether the value is one of the type.
    fn set(&mut self, value: FieldValue) -> bool;
}

macro_rules! fields {
    ($($Type:ty, $Kind:ident($value:ident) => $into:expr;)+) => {
        $(
            impl Field for $Type {
                fn value(&self) -> FieldValue {
                    FieldValue::$Kind(self.clone().into())
                }

                fn set(&mut self, value: FieldValue) -> bool {
                    let FieldValue::$Kind($value) = value else { return false };
                    *self = $into;
                    true
                }
            }
        )+
    };
}

fields! {
    u64, Number(number) => number;
    u32, Number(number) => u32::try_from(number).unwrap_or(u32::MAX);
    f64, Real(real) => real;
    bool, Switch(on) => on;
    String, Text(text) => text;
    Vec<String>, Texts(texts) => texts;
}

/// The one enum: a durability, by its word in lower case.
impl Field for i32 {
    fn value(&self) -> FieldValue {
        let name = v1::Durability::try_from(*self).unwrap_or_default().as_str_name();
        FieldValue::Text(name.trim_start_matches(DURABILITY).to_ascii_lowercase())
    }

    fn set(&mut self, value: FieldValue) -> bool {
        let FieldValue::Text(word) = value else { return false };
        let found = v1::Durability::from_str_name(&format!("{DURABILITY}{}", word.to_ascii_uppercase()));
        found.map(|durability| *self = durability.into()).is_some()
    }
}

/// What the enum's names begin with.
const DURABILITY: &str = "DURABILITY_";
