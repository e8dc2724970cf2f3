//! What lies around records on disk: frames, each checksummed and each naming the one before it.
//!
//! ```text
//! offset 0       4         5      6       8          16               24        28       32
//! ┌──────────┬────────┬───────┬───────┬──────────┬────────────────┬─────────┬────────┬──────────
//! │ "LRDF"   │ format │ kind  │ 0     │ sequence │ first position │ records │ length │ unix µs
//! │ 4        │ 1      │ 1     │ 2     │ 8        │ 8              │ 4       │ 4      │ 8
//! └──────────┴────────┴───────┴───────┴──────────┴────────────────┴─────────┴────────┴──────────
//! offset 40         44            48          52             60              64
//!        ┌──────────┬─────────────┬───────────┬──────────────┬───────────────┬──────────────────
//!        │ previous │ body's CRC  │ first CRC │ steady ms    │ header's CRC  │ body, `length` bytes
//!        │ 4        │ 4           │ 4         │ 8            │ 4             │
//!        └──────────┴─────────────┴───────────┴──────────────┴───────────────┴──────────────────
//! ```
//!
//! All little-endian. `previous` is the header's CRC of the frame before, so that a frame stands for all before it: a
//! frame that is missing, doubled or from another file does not fit. A CRC of the header covers everything before it, the
//! body's CRC included; all are CRC-32 (IEEE). Nothing of a frame is believed before its header's CRCs fit, and nothing
//! of its body before that one does.
//!
//! In format 1 the header ends at offset 52: its first CRC is the header's, and its wall time stands for steady time too
//! ([`super::time`]). The first 52 bytes are the same in every format, so that a build tells a header of a later one
//! from damage. Frames of several formats may follow each other, in a file too.

use std::sync::Arc;

use super::backend::{Appender, BackendError, ReadAt};
use crate::clock::Now;

/// The version of the format that is written.
pub const FORMAT: u8 = 2;
/// Length of a frame's header as it is written.
pub const HEADER_BYTES: usize = 64;
/// What of a header is the same in every format, the first CRC included.
const FIRST_BYTES: usize = 52;
/// The longest body that is believed.
pub const BODY_BYTES_MAX: usize = 1 << 30;

const MAGIC: [u8; 4] = *b"LRDF";

/// What a frame's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// The first of a journal segment: an empty body.
    Segment = 1,
    /// Changes, in their order.
    Batch = 2,
    /// The first of a snapshot: namespaces and remembered requests.
    SnapshotHead = 3,
    /// Entries of a snapshot, in no order.
    SnapshotEntries = 4,
    /// Changes that were made while the snapshot was taken, in their order.
    SnapshotTail = 5,
    /// The last of a snapshot, which makes it whole: see [`super::snapshot`].
    SnapshotEnd = 6,
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The version of its format: 1 or 2.
    pub format: u8,
    /// What its body is.
    pub kind: FrameKind,
    /// Its number, dense in a file and through all segments of a journal.
    pub sequence: u64,
    /// The position of its first record, or where the journal is if it has none.
    pub first_position: u64,
    /// How many records there are in it.
    pub records: u32,
    /// Length of its body.
    pub body_bytes: u32,
    /// When it was written.
    pub time: Now,
    /// What the frame before is called.
    pub previous: u32,
    /// The body's checksum.
    pub body_crc: u32,
}

impl Header {
    /// How long it is.
    #[must_use]
    pub fn header_bytes(&self) -> usize {
        if self.format == 1 { FIRST_BYTES } else { HEADER_BYTES }
    }

    /// The header's bytes in the present format, and what the frame is called by the next one.
    #[must_use]
    pub fn write(&self) -> ([u8; HEADER_BYTES], u32) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        (bytes[4], bytes[5]) = (FORMAT, self.kind as u8);
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first_position.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.records.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.time.unix_us.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.previous.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.body_crc.to_le_bytes());
        let first = crc32fast::hash(&bytes[..48]);
        bytes[48..52].copy_from_slice(&first.to_le_bytes());
        bytes[52..60].copy_from_slice(&self.time.steady_ms.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        (bytes, crc)
    }

    /// Reads the header that these bytes begin with, and what its frame is called.
    ///
    /// # Errors
    /// They begin with no header as it was written.
    pub fn read(bytes: &[u8]) -> Result<(Self, u32), BadFrame> {
        let found = bytes.len();
        if found < FIRST_BYTES {
            return Err(BadFrame::Short { found, expected: FIRST_BYTES });
        }
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let crc_at = |at: usize| match (u32_at(at), crc32fast::hash(&bytes[..at])) {
            (found, expected) if found == expected => Ok(found),
            (found, expected) => Err(BadFrame::HeaderCrc { found, expected }),
        };
        if bytes[..4] != MAGIC {
            return Err(BadFrame::Magic);
        }
        let first = crc_at(48)?;
        let unix_us = u64_at(32);
        let (format, called, steady_ms) = match bytes[4] {
            1 => (1, first, unix_us / 1_000),
            FORMAT if found < HEADER_BYTES => {
                return Err(BadFrame::Short { found, expected: HEADER_BYTES });
            }
            FORMAT => (FORMAT, crc_at(60)?, u64_at(52)),
            found => return Err(BadFrame::Format { found }),
        };
        let kind = match bytes[5] {
            1 => FrameKind::Segment,
            2 => FrameKind::Batch,
            3 => FrameKind::SnapshotHead,
            4 => FrameKind::SnapshotEntries,
            5 => FrameKind::SnapshotTail,
            6 => FrameKind::SnapshotEnd,
            found => return Err(BadFrame::Kind { found }),
        };
        let header = Self {
            format,
            kind,
            sequence: u64_at(8),
            first_position: u64_at(16),
            records: u32_at(24),
            body_bytes: u32_at(28),
            time: Now { steady_ms, unix_us },
            previous: u32_at(40),
            body_crc: u32_at(44),
        };
        if header.body_bytes as usize > BODY_BYTES_MAX {
            return Err(BadFrame::Long { found: header.body_bytes });
        }
        Ok((header, called))
    }
}

/// Why bytes are no frame as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[cfg_attr(feature = "testing", expect(missing_docs, reason = "the messages say what each field is"))]
pub enum BadFrame {
    #[error("no frame begins here")]
    Magic,
    #[error("a frame's header has the checksum {found:08x}, expected {expected:08x}")]
    HeaderCrc { found: u32, expected: u32 },
    #[error("format {found}, this build reads 1 and 2: it was written by a later one")]
    Format { found: u8 },
    #[error("a frame of kind {found}, which is not known")]
    Kind { found: u8 },
    #[error("a frame of {found} bytes, longer than any")]
    Long { found: u32 },
    #[error("a frame of {expected} bytes ends after {found}")]
    Short { found: usize, expected: usize },
    #[error("a frame's body has the checksum {found:08x}, expected {expected:08x}")]
    BodyCrc { found: u32, expected: u32 },
    #[error("frame {found} stands where frame {expected} was expected")]
    Sequence { found: u64, expected: u64 },
    #[error("frame {sequence} follows {found:08x}, expected {expected:08x}: it is of another lineage")]
    Chain { sequence: u64, found: u32, expected: u32 },
    #[error("frame {sequence} is whole, but what it holds is not: {what}")]
    Records { sequence: u64, what: super::record::Malformed },
    #[error("the journal begins with position {found}, and {expected} comes next: what lies between is lost")]
    Gap { found: u64, expected: u64 },
    #[error("a {found:?} frame where none belongs")]
    Unexpected { found: FrameKind },
}

/// Why no frame was read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The disk refuses.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// What is there is no frame as it was written.
    #[error(transparent)]
    Bad(#[from] BadFrame),
}

/// Writes frames to a file, one behind the other.
#[derive(Debug)]
pub struct FrameWriter {
    file: Box<dyn Appender>,
    /// The sequence of the next frame.
    pub sequence: u64,
    /// What the frame before is called.
    pub previous: u32,
}

impl FrameWriter {
    /// Frames from `sequence` on, behind the one that is called `previous`.
    #[must_use]
    pub fn new(file: Box<dyn Appender>, sequence: u64, previous: u32) -> Self {
        Self { file, sequence, previous }
    }

    /// Appends a frame; its body is the parts, one behind the other.
    ///
    /// # Errors
    /// The disk refuses. The file must not be appended to any more.
    pub fn append(&mut self, kind: FrameKind, batch: BatchInfo, body: &[&[u8]]) -> Result<(), BackendError> {
        let mut crc = crc32fast::Hasher::new();
        let mut body_bytes = 0;
        for part in body {
            crc.update(part);
            body_bytes += part.len();
        }
        let header = Header {
            format: FORMAT,
            kind,
            sequence: self.sequence,
            first_position: batch.first_position,
            records: batch.records,
            body_bytes: body_bytes as u32,
            time: batch.time,
            previous: self.previous,
            body_crc: crc.finalize(),
        };
        let (head, called) = header.write();
        let mut parts = Vec::with_capacity(1 + body.len());
        parts.push(&head[..]);
        parts.extend_from_slice(body);
        self.file.append(&parts)?;
        self.sequence += 1;
        self.previous = called;
        Ok(())
    }

    /// See [`Appender::sync`].
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sync(&mut self) -> Result<(), BackendError> {
        self.file.sync()
    }

    /// See [`Appender::reserve`].
    ///
    /// # Errors
    /// The disk refuses.
    pub fn reserve(&mut self, bytes: u64) -> Result<(), BackendError> {
        self.file.reserve(bytes)
    }

    /// See [`Appender::reserved`].
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.file.reserved()
    }

    /// The file's length in bytes, without what is reserved.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.file.len()
    }
}

/// Where and when a frame's records are.
#[derive(Debug, Clone, Copy, Default)]
pub struct BatchInfo {
    /// The position of the first record.
    pub first_position: u64,
    /// How many there are.
    pub records: u32,
    /// When it is written.
    pub time: Now,
}

/// Reads frames from a file, one behind the other.
#[derive(Debug)]
pub struct FrameReader {
    file: Arc<dyn ReadAt>,
    offset: u64,
    end: u64,
}

/// A frame as it was read: its body is checked against its checksum.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// What the next frame calls it.
    pub called: u32,
    /// Where it begins in the file.
    pub offset: u64,
}

impl Frame {
    /// Where its body begins in the file.
    #[must_use]
    pub fn body_offset(&self) -> u64 {
        self.offset + self.header.header_bytes() as u64
    }

    /// Whether it stands behind the frame of this sequence, which is called so.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn follows(&self, sequence: u64, called: u32) -> Result<(), BadFrame> {
        let header = &self.header;
        if header.sequence != sequence + 1 {
            return Err(BadFrame::Sequence { found: header.sequence, expected: sequence + 1 });
        }
        if header.previous != called {
            let (sequence, found) = (header.sequence, header.previous);
            return Err(BadFrame::Chain { sequence, found, expected: called });
        }
        Ok(())
    }
}

impl FrameReader {
    /// From the file's beginning.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn new(file: impl Into<Arc<dyn ReadAt>>) -> Result<Self, BackendError> {
        let file = file.into();
        let end = file.len()?;
        Ok(Self { file, offset: 0, end })
    }

    /// Where the next frame begins.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The file's length when it was opened.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Reads no further than so, where the file is longer.
    #[must_use]
    pub fn until(self, end: u64) -> Self {
        Self { end: end.min(self.end), ..self }
    }

    /// How many bytes were written from an offset on: zeroes at the file's end were only reserved.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn written_from(&self, from: u64) -> Result<u64, BackendError> {
        let mut block = vec![0; 64 << 10];
        let (mut at, mut written) = (from, 0);
        while at < self.end {
            let found = self.file.read_at(at, &mut block)?;
            let found = &block[..found.min((self.end - at) as usize)];
            if found.is_empty() {
                break;
            }
            if let Some(last) = found.iter().rposition(|byte| *byte != 0) {
                written = at - from + last as u64 + 1;
            }
            at += found.len() as u64;
        }
        Ok(written)
    }

    /// Reads the next frame, its body into `body`; `None`: the file ends here. The body's checksum is not looked at
    /// yet: [`check`] does that, on whichever thread has time for it.
    ///
    /// # Errors
    /// The disk refuses, or what is here is no frame. Either way the reader stays where it is.
    pub fn next(&mut self, body: &mut Vec<u8>) -> Result<Option<Frame>, FrameError> {
        self.skip(|_| true, body)
    }

    /// As [`Self::next`], and reads a body only of a frame of a kind that is wanted.
    ///
    /// # Errors
    /// As there.
    pub fn skip(
        &mut self,
        wanted: impl Fn(FrameKind) -> bool,
        body: &mut Vec<u8>,
    ) -> Result<Option<Frame>, FrameError> {
        let Some(frame) = self.head()? else { return Ok(None) };
        if wanted(frame.header.kind) {
            self.body(&frame, body)?;
        }
        self.offset = frame.body_offset() + u64::from(frame.header.body_bytes);
        Ok(Some(frame))
    }

    /// The header of the frame here, whose body is in the file.
    fn head(&self) -> Result<Option<Frame>, FrameError> {
        // A file that is being written has grown since: what is behind `end` is not looked at.
        let left = self.end.saturating_sub(self.offset) as usize;
        if left == 0 {
            return Ok(None);
        }
        let mut head = [0; HEADER_BYTES];
        let found = self.file.read_at(self.offset, &mut head)?.min(left);
        let (header, called) = Header::read(&head[..found])?;
        let expected = header.body_bytes as usize;
        let found = left - header.header_bytes();
        if found < expected {
            return Err(BadFrame::Short { found, expected }.into());
        }
        Ok(Some(Frame { header, called, offset: self.offset }))
    }

    fn body(&self, frame: &Frame, body: &mut Vec<u8>) -> Result<(), FrameError> {
        let expected = frame.header.body_bytes as usize;
        body.resize(expected, 0);
        let found = self.file.read_at(frame.body_offset(), body)?;
        if found < expected {
            return Err(BadFrame::Short { found, expected }.into());
        }
        Ok(())
    }
}

/// What was read, where what is no frame is as good as none.
///
/// # Errors
/// The disk refuses.
pub(super) fn if_a_frame(read: Result<Option<Frame>, FrameError>) -> Result<Option<Frame>, BackendError> {
    match read {
        Ok(frame) => Ok(frame),
        Err(FrameError::Bad(_)) => Ok(None),
        Err(FrameError::Backend(error)) => Err(error),
    }
}

/// Whether a body is as it was written.
///
/// # Errors
/// It is not.
pub fn check(header: &Header, body: &[u8]) -> Result<(), BadFrame> {
    let found = crc32fast::hash(body);
    if found == header.body_crc {
        return Ok(());
    }
    Err(BadFrame::BodyCrc { found, expected: header.body_crc })
}
