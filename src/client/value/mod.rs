//! Typed values: what an application's types are as bytes and a content type, and back.
//!
//! ```text
//!  T ── check ── format ── compression ──▶ bytes + "application/json; schema=orders-v2; encoding=zstd"
//!  T ◀─ nesting ─ format ◀ compression ◀── content_type: schema, media type and encoding, in this order
//! ```
//!
//! A [`ValueCodec`] is pure: it makes no calls, and knows nothing of keys. How it writes content types, and what stands
//! behind them, is the same in every language; the book's chapter on typed values is the contract.
//!
//! Invariants: what is encoded is decoded to the same value, and what a format would lose is an error when it is encoded
//! (`check`); no bytes panic the decoder, nest deeper than [`NESTING_MAX`], or become more than the codec's limit in
//! bytes by decompression; another schema id is a miss, and everything else that cannot be read is an error.
//!
//! # Examples
//! ```
//! use larder::client::value::{Decoded, ValueCodec};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Order {
//!     id: u64,
//!     lines: Vec<String>,
//! }
//!
//! let codec = ValueCodec::json().with_schema("orders-v2")?;
//! let order = Order { id: 7, lines: vec!["tea".to_owned()] };
//! let encoded = codec.encode(&order)?;
//! assert_eq!(encoded.bytes, r#"{"id":7,"lines":["tea"]}"#);
//! assert_eq!(&*encoded.content_type, "application/json; schema=orders-v2");
//! assert_eq!(codec.decode(&encoded.content_type, &encoded.bytes)?, Decoded::Value(order));
//!
//! // A program that has another idea of an order misses, and loads it anew.
//! let newer = ValueCodec::json().with_schema("orders-v3")?;
//! assert_eq!(newer.decode::<Order>(&encoded.content_type, &encoded.bytes)?, Decoded::OtherSchema);
//! # Ok::<(), larder::client::value::ValueError>(())
//! ```

mod check;
mod codec;
mod compression;
mod content_type;
mod error;
mod format;
#[cfg(any(feature = "msgpack", feature = "postcard"))]
mod nesting;
mod raw;

pub use codec::{Decoded, EncodedValue, ValueCodec};
pub use compression::Compression;
pub use error::ValueError;
pub use format::Format;

/// How deep a value may nest: lists, maps, structs, variants and `Some`, one within the other. A variant with a list or
/// fields is two of these.
pub const NESTING_MAX: usize = 100;

#[cfg(test)]
#[cfg(all(feature = "msgpack", feature = "postcard", feature = "zstd", feature = "lz4"))]
mod tests;
