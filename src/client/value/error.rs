//! What may be wrong with a value.

use super::format::Format;

/// A value cannot be encoded or decoded.
///
/// Another schema id is none of these: it is [`Decoded::OtherSchema`](super::Decoded::OtherSchema).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// A schema id that would need quoting, or is too long.
    #[error("schema id {id:?} is not valid; give 1 to {max} of the characters A-Z a-z 0-9 . _ -", max = super::content_type::SCHEMA_BYTES_MAX)]
    SchemaId {
        /// The id.
        id: String,
    },
    /// The type holds what the format would not give back.
    #[error("{type_name} cannot be written as {format}: {source}")]
    NotEncoded {
        /// The codec's format.
        format: Format,
        /// The type.
        type_name: &'static str,
        /// What it was about the value.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The value's content type is none that can be read.
    #[error(
        "content type {content_type:?} cannot be read: {reason}; write the value again, or read it as raw bytes"
    )]
    ContentType {
        /// The content type.
        content_type: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The value is in another format than the codec's.
    #[error(
        "the value is {found:?} and is read as {expected:?}; read it by a codec of its format, or write it again"
    )]
    OtherFormat {
        /// The value's content type; empty: it has none.
        found: String,
        /// The content type that the codec writes; empty: none.
        expected: String,
    },
    /// The value is compressed in a way that is none of the contract's.
    #[error("the value's encoding is {encoding:?}, which is not known; zstd and lz4 are")]
    UnknownEncoding {
        /// The encoding that the value's content type names.
        encoding: String,
    },
    /// The value is compressed in a way that this program was built without.
    #[error("the value is compressed by {feature}; build the crate larder with its feature {feature:?}")]
    FeatureMissing {
        /// The feature of the crate.
        feature: &'static str,
    },
    /// The value would be longer, once decompressed, than the codec's limit in bytes.
    #[error(
        "the value's {bytes} B become more than {max} B by {encoding}; raise the codec's limit if that is right"
    )]
    TooLong {
        /// How long the value is, compressed.
        bytes: usize,
        /// The encoding.
        encoding: &'static str,
        /// The codec's limit in bytes.
        max: usize,
    },
    /// The value cannot be decompressed.
    #[error("the value's {bytes} B are damaged, or not {encoding}: {source}")]
    NotDecompressed {
        /// How long the value is, compressed.
        bytes: usize,
        /// The encoding.
        encoding: &'static str,
        /// What the decompressor says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The value is damaged, or is of another type.
    #[error("the value's {bytes} B cannot be read as {format} of type {type_name}: {source}")]
    NotDecoded {
        /// The codec's format.
        format: Format,
        /// The type that was asked for.
        type_name: &'static str,
        /// How long the value is, decompressed.
        bytes: usize,
        /// What the format's decoder says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
