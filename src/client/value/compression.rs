//! Compression of values.
//!
//! | encoding | the bytes | integrity |
//! |---|---|---|
//! | `zstd` | one frame of RFC 8878 | content checksum, written always |
//! | `lz4` | one frame of the LZ4 frame format (magic number 0x184D2204), without a dictionary | content checksum, written always |
//!
//! Frames of other writers may lack the checksum and the length of the content. Whatever a frame says of itself, no more
//! than the limit in bytes is made of it.

use super::error::ValueError;

/// How a value's bytes are compressed, and from what length on. A value that does not become shorter, its content type
/// counted, is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    encoding: Encoding,
    min_bytes: usize,
}

/// The encodings of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Zstd,
    Lz4,
}

/// Shorter values gain little, and cost a frame's head.
#[cfg(any(feature = "zstd", feature = "lz4"))]
const MIN_BYTES: usize = 1 << 10;
/// What is set aside at once for what a frame becomes; the rest as it comes.
#[cfg(any(feature = "zstd", feature = "lz4"))]
const CAPACITY_MAX: usize = 1 << 20;

impl Compression {
    /// Zstandard at its default level: the shorter result.
    #[cfg(feature = "zstd")]
    #[must_use]
    pub fn zstd() -> Self {
        Self { encoding: Encoding::Zstd, min_bytes: MIN_BYTES }
    }

    /// LZ4: the faster one.
    #[cfg(feature = "lz4")]
    #[must_use]
    pub fn lz4() -> Self {
        Self { encoding: Encoding::Lz4, min_bytes: MIN_BYTES }
    }

    /// Leaves values alone that are shorter. The default is 1 KiB.
    #[must_use]
    pub fn with_min_bytes(self, min_bytes: usize) -> Self {
        Self { min_bytes, ..self }
    }

    pub(super) fn encoding(self) -> Encoding {
        self.encoding
    }

    /// The bytes compressed; `None`: they are to be left as they are.
    pub(super) fn compress(self, bytes: &[u8]) -> Option<Vec<u8>> {
        if bytes.len() < self.min_bytes {
            return None;
        }
        let compressed = match self.encoding {
            Encoding::Zstd => zstd_frame::compress(bytes),
            Encoding::Lz4 => lz4_frame::compress(bytes),
        };
        // Neither fails while there is memory; a value that is not compressed is whole all the same.
        let compressed = compressed.ok()?;
        let parameter_bytes = "; encoding=".len() + self.encoding.as_str().len();
        (compressed.len() + parameter_bytes < bytes.len()).then_some(compressed)
    }
}

impl Encoding {
    /// Its name in a content type, which is that of the crate's feature too.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        }
    }

    pub(super) fn named(name: &str) -> Result<Self, ValueError> {
        let mut all = [Self::Zstd, Self::Lz4].into_iter();
        let found = all.find(|encoding| encoding.as_str().eq_ignore_ascii_case(name));
        found.ok_or_else(|| ValueError::UnknownEncoding { encoding: name.to_owned() })
    }

    /// What the bytes were before they were compressed, `max` bytes at the most.
    pub(super) fn decompress(self, bytes: &[u8], max: usize) -> Result<Vec<u8>, ValueError> {
        let decompressed = match self {
            Self::Zstd => zstd_frame::decompress(bytes, max),
            Self::Lz4 => lz4_frame::decompress(bytes, max),
        };
        let (len, encoding) = (bytes.len(), self.as_str());
        decompressed.map_err(|failed| match failed {
            #[cfg(not(all(feature = "zstd", feature = "lz4")))]
            Failed::FeatureMissing => ValueError::FeatureMissing { feature: encoding },
            Failed::TooLong => ValueError::TooLong { bytes: len, encoding, max },
            Failed::Damaged(source) => ValueError::NotDecompressed { bytes: len, encoding, source },
        })
    }
}

/// Why bytes are not decompressed.
#[cfg_attr(
    not(any(feature = "zstd", feature = "lz4")),
    expect(dead_code, reason = "without a decompressor nothing else goes wrong")
)]
enum Failed {
    /// The crate was built without the encoding's feature.
    #[cfg(not(all(feature = "zstd", feature = "lz4")))]
    FeatureMissing,
    /// They become more than they may.
    TooLong,
    Damaged(Box<dyn std::error::Error + Send + Sync>),
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Damaged(error.into())
    }
}

/// Reads to the end, `max` bytes at the most.
#[cfg(any(feature = "zstd", feature = "lz4"))]
fn read_within(reader: &mut impl std::io::Read, max: usize, likely: usize) -> Result<Vec<u8>, Failed> {
    use std::io::Read as _;

    let mut bytes = Vec::with_capacity(likely.min(max).min(CAPACITY_MAX));
    let bound = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    reader.by_ref().take(bound).read_to_end(&mut bytes)?;
    if bytes.len() > max { Err(Failed::TooLong) } else { Ok(bytes) }
}

#[cfg(not(feature = "lz4"))]
use absent as lz4_frame;
#[cfg(not(feature = "zstd"))]
use absent as zstd_frame;

/// In the place of an encoding whose feature the crate was built without.
#[cfg(not(all(feature = "zstd", feature = "lz4")))]
mod absent {
    use super::Failed;

    /// No [`super::Compression`] of it can be made.
    pub(super) fn compress(_: &[u8]) -> std::io::Result<Vec<u8>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    pub(super) fn decompress(_: &[u8], _: usize) -> Result<Vec<u8>, Failed> {
        Err(Failed::FeatureMissing)
    }
}

#[cfg(feature = "zstd")]
mod zstd_frame {
    use zstd::bulk::Compressor;
    use zstd::stream::read::Decoder;
    use zstd::zstd_safe::{CParameter, get_frame_content_size};

    use super::{Failed, read_within};

    /// The frame's first bytes.
    const MAGIC: [u8; 4] = zstd::zstd_safe::MAGICNUMBER.to_le_bytes();
    /// Decoders are to take windows of 8 MiB (RFC 8878 §3.1.1.1.2); larger ones only up to the limit on decompressed bytes.
    const WINDOW_LOG_MIN: u32 = 23;
    /// The largest that the library takes by itself.
    const WINDOW_LOG_MAX: u32 = 27;

    pub(super) fn compress(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut compressor = Compressor::new(zstd::DEFAULT_COMPRESSION_LEVEL)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        compressor.compress(bytes)
    }

    pub(super) fn decompress(bytes: &[u8], max: usize) -> Result<Vec<u8>, Failed> {
        let declared = match get_frame_content_size(bytes) {
            Ok(declared) if bytes.starts_with(&MAGIC) => declared,
            _ => return Err("it does not begin with a frame".into()),
        };
        if declared.is_some_and(|declared| declared > max as u64) {
            return Err(Failed::TooLong);
        }
        let mut decoder = Decoder::with_buffer(bytes)?.single_frame();
        let window_log = max.checked_next_power_of_two().map_or(WINDOW_LOG_MAX, usize::ilog2);
        decoder.window_log_max(window_log.clamp(WINDOW_LOG_MIN, WINDOW_LOG_MAX))?;
        let likely = declared.map_or(bytes.len() * 4, |declared| declared as usize);
        let decompressed = read_within(&mut decoder, max, likely)?;
        if !decoder.finish().is_empty() {
            return Err("something stands behind the frame".into());
        }
        Ok(decompressed)
    }
}

#[cfg(feature = "lz4")]
mod lz4_frame {
    use std::io::Write as _;

    use lz4_flex::frame::{FrameDecoder, FrameEncoder, FrameInfo};

    use super::{Failed, read_within};

    /// The frame's first bytes.
    const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
    /// Those, the flags, the size of blocks and the head's checksum; what the flags name stands before the last.
    const HEAD_BYTES: usize = 7;

    pub(super) fn compress(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let info = FrameInfo::new().content_size(Some(bytes.len() as u64)).content_checksum(true);
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::with_capacity(bytes.len() / 2));
        encoder.write_all(bytes)?;
        Ok(encoder.finish()?)
    }

    pub(super) fn decompress(bytes: &[u8], max: usize) -> Result<Vec<u8>, Failed> {
        if !bytes.starts_with(&MAGIC) {
            return Err("it does not begin with a frame".into());
        }
        // The decoder takes the end of the bytes for the end of the frame where a block might begin.
        match frame_len(bytes) {
            Some(len) if len == bytes.len() => {}
            Some(len) if len < bytes.len() => return Err("something stands behind the frame".into()),
            _ => return Err("the frame is cut off".into()),
        }
        read_within(&mut FrameDecoder::new(bytes), max, bytes.len() * 4)
    }

    /// Where a frame ends, by the lengths of its blocks.
    fn frame_len(bytes: &[u8]) -> Option<usize> {
        let flags = *bytes.get(MAGIC.len())?;
        let if_flag = |bit: u8, bytes: usize| if flags & 1 << bit == 0 { 0 } else { bytes };
        let (dictionary, content_checksum) = (if_flag(0, 4), if_flag(2, 4));
        let (content_size, block_checksum) = (if_flag(3, 8), if_flag(4, 4));
        let mut at = HEAD_BYTES + dictionary + content_size;
        loop {
            let block = bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)?;
            at += size_of_val(&block);
            if block == 0 {
                return Some(at + content_checksum);
            }
            // The highest bit says that the block is not compressed.
            at = at.checked_add((block & (u32::MAX >> 1)) as usize + block_checksum)?;
        }
    }
}
