//! A codec: a format, with a schema id and compression if they are asked for.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::compression::{Compression, Encoding};
use super::content_type::{ContentType, is_schema_id};
use super::error::ValueError;
use super::format::Format;

/// How an application's values are written and read. Cheap to clone.
///
/// # Defaults
/// - no schema id: values that have one are misses;
/// - no compression; compressed values are read all the same;
/// - 64 MiB, the limit in bytes on what a compressed value may become.
#[derive(Debug, Clone)]
pub struct ValueCodec {
    format: Format,
    schema: Option<Arc<str>>,
    compression: Option<Compression>,
    decompressed_bytes_max: usize,
    /// What it writes, so that no value makes it anew.
    content_type: Arc<str>,
    /// What it writes of a value that became shorter.
    compressed_content_type: Arc<str>,
}

/// A value that can be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncodedValue {
    /// The value.
    pub bytes: Bytes,
    /// Its content type, up to 255 B. Empty: none.
    pub content_type: Arc<str>,
}

/// What stored bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decoded<T> {
    /// The value.
    Value(T),
    /// A value of another schema, or of none where the codec has one: to this reader a miss.
    OtherSchema,
}

impl<T> Decoded<T> {
    /// The value, if it is one.
    #[must_use]
    pub fn into_value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::OtherSchema => None,
        }
    }
}

/// What a compressed value may become, in bytes, unless the codec says otherwise.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

impl ValueCodec {
    /// A codec of a format.
    #[must_use]
    pub fn new(format: Format) -> Self {
        let none: Arc<str> = Arc::from("");
        let codec = Self {
            format,
            schema: None,
            compression: None,
            decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
            content_type: Arc::clone(&none),
            compressed_content_type: none,
        };
        codec.with_content_types()
    }

    /// A codec of [`Format::Raw`].
    #[must_use]
    pub fn raw() -> Self {
        Self::new(Format::Raw)
    }

    /// A codec of [`Format::Json`].
    #[must_use]
    pub fn json() -> Self {
        Self::new(Format::Json)
    }

    /// A codec of [`Format::MessagePack`].
    #[cfg(feature = "msgpack")]
    #[must_use]
    pub fn msgpack() -> Self {
        Self::new(Format::MessagePack)
    }

    /// A codec of [`Format::Postcard`]. Give it a schema id: bytes of an older type may be read as another value.
    #[cfg(feature = "postcard")]
    #[must_use]
    pub fn postcard() -> Self {
        Self::new(Format::Postcard)
    }

    /// Marks what is written with the id of a schema, and takes values of any other for misses.
    ///
    /// # Errors
    /// [`ValueError::SchemaId`]: it is not 1 to 64 of the characters `A-Z a-z 0-9 . _ -`.
    pub fn with_schema(self, id: &str) -> Result<Self, ValueError> {
        if !is_schema_id(id) {
            return Err(ValueError::SchemaId { id: id.to_owned() });
        }
        Ok(Self { schema: Some(id.into()), ..self }.with_content_types())
    }

    /// Compresses what it writes. Whether it is asked to or not, it reads what is compressed.
    #[must_use]
    pub fn with_compression(self, compression: Compression) -> Self {
        Self { compression: Some(compression), ..self }.with_content_types()
    }

    /// Reads no compressed value that would become longer.
    #[must_use]
    pub fn with_decompressed_bytes_max(self, bytes: usize) -> Self {
        Self { decompressed_bytes_max: bytes, ..self }
    }

    /// The format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// The schema id, if it has one.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// The content type of what it writes, if that is not compressed. Empty: none.
    #[must_use]
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// Writes a value.
    ///
    /// # Errors
    /// [`ValueError::NotEncoded`]: the format would not give the same value back, or its type refuses to be written.
    pub fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<EncodedValue, ValueError> {
        let bytes = self.format.encode(value)?;
        let compressed = self.compression.and_then(|compression| compression.compress(&bytes));
        let (bytes, content_type) = match compressed {
            Some(compressed) => (compressed, &self.compressed_content_type),
            None => (bytes, &self.content_type),
        };
        Ok(EncodedValue { bytes: bytes.into(), content_type: Arc::clone(content_type) })
    }

    /// Reads a value of this content type. The schema id is looked at first: bytes of another schema may be of any format.
    ///
    /// A value without a content type is raw bytes. A JSON codec without a schema id reads one all the same if it is the
    /// decimal text of an integer of 64 bits, as counters are.
    ///
    /// # Errors
    /// [`ValueError`]: the value is in another format or encoding, damaged, too long, or of another type.
    pub fn decode<T: DeserializeOwned>(
        &self,
        content_type: &str,
        bytes: &[u8],
    ) -> Result<Decoded<T>, ValueError> {
        let encoding = match self.read_content_type(content_type, bytes)? {
            Read::Plain => None,
            Read::Encoded(encoding) => Some(encoding),
            Read::OtherSchema => return Ok(Decoded::OtherSchema),
        };
        let value = match encoding {
            None => self.format.decode(bytes)?,
            Some(encoding) => {
                self.format.decode(&encoding.decompress(bytes, self.decompressed_bytes_max)?)?
            }
        };
        Ok(Decoded::Value(value))
    }

    fn read_content_type(&self, content_type: &str, bytes: &[u8]) -> Result<Read, ValueError> {
        if content_type == &*self.content_type {
            return Ok(Read::Plain);
        }
        let parsed = ContentType::parse(content_type)
            .map_err(|reason| ValueError::ContentType { content_type: content_type.to_owned(), reason })?;
        if parsed.schema != self.schema() {
            return Ok(Read::OtherSchema);
        }
        let is_ours = match parsed.media_type {
            "" => self.format == Format::Raw || self.format == Format::Json && is_counter(bytes),
            media_type => self.format.is(media_type),
        };
        if !is_ours {
            let (found, expected) = (content_type.to_owned(), self.content_type().to_owned());
            return Err(ValueError::OtherFormat { found, expected });
        }
        let encoding = parsed.encoding.map(Encoding::named).transpose()?;
        Ok(encoding.map_or(Read::Plain, Read::Encoded))
    }

    fn with_content_types(self) -> Self {
        let write = |encoding: Option<Encoding>| {
            let schema = self.schema();
            let is_plain = schema.is_none() && encoding.is_none();
            if self.format == Format::Raw && is_plain {
                return Arc::from("");
            }
            let media_type = self.format.media_type();
            Arc::from(ContentType { media_type, schema, encoding: encoding.map(Encoding::as_str) }.write())
        };
        let content_type = write(None);
        let compressed_content_type = match self.compression {
            Some(compression) => write(Some(compression.encoding())),
            None => Arc::clone(&content_type),
        };
        Self { content_type, compressed_content_type, ..self }
    }
}

/// What a content type says to a codec.
enum Read {
    Plain,
    Encoded(Encoding),
    OtherSchema,
}

/// Whether it is what Increment stores.
fn is_counter(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    !text.starts_with('+') && text.parse::<i64>().is_ok()
}
