//! A blob that is being read: a chunk at a time, each checked before a byte of it is handed out.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::format::{CHUNK_HEAD_BYTES, HEAD_BYTES, Manifest, head, is_chunk};
use super::{BlobDamage, BlobError, Blobs, Result, file_id};
use crate::entry::Ttl;
use crate::persistence::ReadAt;

/// Buffers that are kept for the chunks to come.
const BUFFERS_KEPT: usize = 3;

/// Reads one blob, or a range of it.
#[derive(Debug)]
pub struct BlobReader {
    blobs: Blobs,
    file: Box<dyn ReadAt>,
    manifest: Manifest,
    ttl: Ttl,
    /// What of the content is still to be read.
    range: Range<u64>,
    buffers: Buffers,
}

impl BlobReader {
    pub(super) fn new(
        blobs: Blobs,
        file: Box<dyn ReadAt>,
        manifest: Manifest,
        ttl: Ttl,
        catalogue_key: &[u8],
    ) -> Result<Self> {
        let place = file_id(manifest.file);
        let damage = |offset, what| BlobError::from(blobs.damage(place.to_string(), offset, what));
        let len = file.len()?;
        if len != manifest.file_bytes(catalogue_key) {
            return Err(damage(len.min(manifest.file_bytes(catalogue_key)), "it has another length"));
        }
        let mut first = [0; HEAD_BYTES];
        let read = file.read_at(0, &mut first)?;
        if read != HEAD_BYTES || first != head(manifest.file, manifest.chunk_bytes) {
            return Err(damage(0, "its head is another"));
        }
        let range = 0..manifest.size_bytes;
        Ok(Self { blobs, file, manifest, ttl, range, buffers: Buffers::default() })
    }

    /// What is known of the blob.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What was left of its time to live when it was opened.
    #[must_use]
    pub fn ttl(&self) -> Ttl {
        self.ttl
    }

    /// Reads `length` bytes from `offset` on and no others; fewer where the blob ends first, and to its end for 0.
    ///
    /// # Errors
    /// [`BlobError::OutOfRange`] for an offset beyond the end.
    pub fn limit(&mut self, offset: u64, length: u64) -> Result<()> {
        let size_bytes = self.manifest.size_bytes;
        if offset > size_bytes {
            return Err(BlobError::OutOfRange { offset, size_bytes });
        }
        let end = if length == 0 { size_bytes } else { offset.saturating_add(length).min(size_bytes) };
        self.range = offset..end;
        Ok(())
    }

    /// The content's next bytes, at most a chunk's; `None` at the end. What is given out uses this reader's buffers
    /// again once it is dropped.
    ///
    /// # Errors
    /// [`BlobError::Damaged`], [`BlobError::Backend`]. What came before was right.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        if self.range.is_empty() {
            return Ok(None);
        }
        let chunk_bytes = u64::from(self.manifest.chunk_bytes);
        let index = self.range.start / chunk_bytes;
        let buffer = self.read_chunk(index)?;
        let begin = index * chunk_bytes;
        let from = (self.range.start - begin) as usize;
        let to = (self.range.end - begin).min(self.manifest.chunk_len(index) as u64) as usize;
        self.range.start = begin + to as u64;
        let bytes = Bytes::from_owner(buffer);
        Ok(Some(bytes.slice(CHUNK_HEAD_BYTES + from..CHUNK_HEAD_BYTES + to)))
    }

    /// A whole chunk with its head, as it was written.
    fn read_chunk(&self, index: u64) -> Result<Buffer> {
        let manifest = &self.manifest;
        let offset = manifest.chunk_offset(index);
        let mut buffer = self.buffers.take(CHUNK_HEAD_BYTES + manifest.chunk_len(index));
        let read = self.file.read_at(offset, &mut buffer.bytes)?;
        if read < buffer.bytes.len() {
            return Err(self.damage(offset + read as u64, "the file ends inside a chunk").into());
        }
        if !is_chunk(manifest.file, index, &buffer.bytes) {
            return Err(self.damage(offset, "a chunk's checksum does not fit").into());
        }
        Ok(buffer)
    }

    /// Reads bytes of the file as they lie there.
    pub(super) fn read_raw(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        Ok(self.file.read_at(offset, buffer)?)
    }

    pub(super) fn damage(&self, offset: u64, what: &'static str) -> BlobDamage {
        self.blobs.damage(file_id(self.manifest.file).to_string(), offset, what)
    }
}

/// Buffers that come back when what was read into them is dropped.
#[derive(Debug, Clone, Default)]
struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    fn take(&self, len: usize) -> Buffer {
        let mut bytes = self.0.lock().pop().unwrap_or_default();
        bytes.resize(len, 0);
        Buffer { bytes, home: self.clone() }
    }
}

struct Buffer {
    bytes: Vec<u8>,
    home: Buffers,
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut kept = self.home.0.lock();
        if kept.len() < BUFFERS_KEPT {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}
