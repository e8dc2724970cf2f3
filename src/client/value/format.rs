//! The formats of values.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::check::{Rules, check};
use super::error::ValueError;
use super::raw;

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Bytes as they are: strings, `Vec<u8>`, `bytes::Bytes`, and what serde writes as bytes. Nothing else.
    Raw,
    /// JSON (RFC 8259). Every language reads it; bytes take it the most.
    Json,
    /// MessagePack, structs as maps by their fields' names. About half of JSON, and read by every language.
    #[cfg(feature = "msgpack")]
    MessagePack,
    /// postcard: the shortest and the fastest, without any names. Fields are told by their order: a type that changes
    /// needs another schema id.
    #[cfg(feature = "postcard")]
    Postcard,
}

type Source = Box<dyn std::error::Error + Send + Sync>;

impl Format {
    /// The media type that is written, and others that are read as the same.
    fn media_types(self) -> &'static [&'static str] {
        match self {
            Self::Raw => &["application/octet-stream"],
            Self::Json => &["application/json"],
            #[cfg(feature = "msgpack")]
            Self::MessagePack => &["application/vnd.msgpack", "application/msgpack", "application/x-msgpack"],
            #[cfg(feature = "postcard")]
            Self::Postcard => &["application/x-postcard", "application/postcard"],
        }
    }

    /// The media type that is written.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        self.media_types()[0]
    }

    /// Whether a media type is this format's.
    pub(super) fn is(self, media_type: &str) -> bool {
        self.media_types().iter().any(|own| own.eq_ignore_ascii_case(media_type))
    }

    /// What it would lose; `None`: nothing, or it says so itself.
    fn rules(self) -> Option<Rules> {
        match self {
            Self::Raw => None,
            Self::Json => Some(Rules {
                is_human_readable: true,
                has_nan: false,
                has_nested_none: false,
                has_skipped_fields: true,
            }),
            #[cfg(feature = "msgpack")]
            Self::MessagePack => Some(Rules {
                is_human_readable: false,
                has_nan: true,
                has_nested_none: false,
                has_skipped_fields: true,
            }),
            #[cfg(feature = "postcard")]
            Self::Postcard => Some(Rules {
                is_human_readable: false,
                has_nan: true,
                has_nested_none: true,
                has_skipped_fields: false,
            }),
        }
    }

    pub(super) fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Vec<u8>, ValueError> {
        let encoded = match self.rules().map_or(Ok(()), |rules| check(value, &rules)) {
            Ok(()) => self.write(value),
            Err(lost) => Err(lost.into()),
        };
        encoded.map_err(|source| ValueError::NotEncoded {
            format: self,
            type_name: std::any::type_name::<T>(),
            source,
        })
    }

    pub(super) fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, ValueError> {
        self.read(bytes).map_err(|source| ValueError::NotDecoded {
            format: self,
            type_name: std::any::type_name::<T>(),
            bytes: bytes.len(),
            source,
        })
    }

    fn write<T: Serialize + ?Sized>(self, value: &T) -> Result<Vec<u8>, Source> {
        Ok(match self {
            Self::Raw => value.serialize(raw::Serializer)?,
            Self::Json => serde_json::to_vec(value)?,
            #[cfg(feature = "msgpack")]
            Self::MessagePack => rmp_serde::to_vec_named(value)?,
            #[cfg(feature = "postcard")]
            Self::Postcard => postcard::to_allocvec(value)?,
        })
    }

    fn read<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, Source> {
        Ok(match self {
            Self::Raw => T::deserialize(raw::Deserializer(bytes))?,
            Self::Json => serde_json::from_slice(bytes)?,
            #[cfg(feature = "msgpack")]
            Self::MessagePack => {
                let mut deserializer = rmp_serde::Deserializer::new(bytes);
                let value = super::nesting::deserialize(&mut deserializer)?;
                nothing_behind(deserializer.get_ref())?;
                value
            }
            #[cfg(feature = "postcard")]
            Self::Postcard => {
                let mut deserializer = postcard::Deserializer::from_bytes(bytes);
                let value = super::nesting::deserialize(&mut deserializer)?;
                nothing_behind(deserializer.finalize()?)?;
                value
            }
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw bytes",
            Self::Json => "JSON",
            #[cfg(feature = "msgpack")]
            Self::MessagePack => "MessagePack",
            #[cfg(feature = "postcard")]
            Self::Postcard => "postcard",
        })
    }
}

#[cfg(any(feature = "msgpack", feature = "postcard"))]
fn nothing_behind(rest: &[u8]) -> Result<(), String> {
    if rest.is_empty() { Ok(()) } else { Err(format!("{} B stand behind the value", rest.len())) }
}
