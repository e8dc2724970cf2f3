//! One blob on its way to the disk.
//!
//! Content is gathered into chunks, each appended with its head in one call; the footer follows, then the sync, then
//! the commit that makes it visible. A writer that is dropped before that deletes its file.

use sha2::{Digest as _, Sha256};

use super::format::{
    CHUNK_BYTES, Manifest, catalogue_key, catalogue_value, chunk_head, footer, head, read_catalogue_value,
};
use super::{BlobError, Blobs, Result, file_id};
use crate::clock::Now;
use crate::entry::{CONTENT_TYPE_BYTES_MAX, KEY_BYTES_MAX, NAMESPACE_BYTES_MAX, Ttl, Version};
use crate::persistence::disk_budget::Reservation;
use crate::persistence::failpoint::Failpoint;
use crate::persistence::{Appender, CatalogueChange};

/// What is known of a blob before its content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewBlob {
    /// The namespace.
    pub namespace: String,
    /// The key.
    pub key: Vec<u8>,
    /// The media type; empty: none.
    pub content_type: String,
    /// The length that the content must turn out to have.
    pub size_bytes: Option<u64>,
    /// The SHA-256 that it must turn out to have.
    pub sha256: Option<[u8; 32]>,
}

/// What is known of a blob when its content is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// Its version, above that of whatever it replaces.
    pub version: Version,
    /// How long it lives from now on.
    pub ttl: Ttl,
    /// The present moment.
    pub now: Now,
}

/// The SHA-256 of a blob's content. Apart from the writer, so that one thread can count it while another writes.
#[derive(Debug, Clone, Default)]
pub struct Digest(Sha256);

impl Digest {
    /// Goes on with the content's next bytes.
    pub fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    /// The digest of all of them.
    #[must_use]
    pub fn sha256(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// Writes one blob.
#[derive(Debug)]
pub struct BlobWriter {
    blobs: Blobs,
    new_blob: NewBlob,
    catalogue_key: Vec<u8>,
    file: u64,
    /// `None`: it is synced, or an append failed.
    appender: Option<Box<dyn Appender>>,
    /// The chunk that is not whole yet.
    chunk: Vec<u8>,
    chunks: u64,
    size_bytes: u64,
    reservation: Reservation,
    /// The file is the catalogue's, or nobody knows whose.
    given_away: bool,
}

impl Blobs {
    /// Begins to write a blob. Nothing of it is seen before [`BlobWriter::finish`].
    ///
    /// # Errors
    /// [`BlobError::Full`], [`BlobError::DiskFull`], [`BlobError::KeysFull`], [`BlobError::Backend`],
    /// [`BlobError::Unwritable`].
    pub fn begin(&self, new_blob: NewBlob) -> Result<BlobWriter> {
        let lengths = [
            ("namespace", new_blob.namespace.len(), NAMESPACE_BYTES_MAX),
            ("key", new_blob.key.len(), KEY_BYTES_MAX),
            ("content_type", new_blob.content_type.len(), CONTENT_TYPE_BYTES_MAX),
        ];
        if let Some((field, bytes, _)) =
            lengths.into_iter().find(|(field, bytes, max)| bytes > max || (*field == "key" && *bytes == 0))
        {
            return Err(BlobError::Unwritable { field, bytes });
        }
        let catalogue_key = catalogue_key(&new_blob.namespace, &new_blob.key);
        self.takes_key(&catalogue_key)?;
        self.0.room.check(new_blob.size_bytes.unwrap_or(0))?;
        let file = self.0.next_file.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let appender = self.0.backend.create(file_id(file))?;
        let mut writer = BlobWriter {
            blobs: self.clone(),
            catalogue_key,
            new_blob,
            file,
            appender: Some(appender),
            chunk: Vec::new(),
            chunks: 0,
            size_bytes: 0,
            reservation: Reservation::default(),
            given_away: false,
        };
        writer.append(&[&head(file, CHUNK_BYTES)])?;
        Ok(writer)
    }
}

impl BlobWriter {
    /// Goes on with the content's next bytes. After an error nothing but dropping it makes sense.
    ///
    /// # Errors
    /// [`BlobError::Differs`] as soon as there is more than the caller had announced; [`BlobError::Full`],
    /// [`BlobError::DiskFull`], [`BlobError::Backend`].
    pub fn write(&mut self, mut part: &[u8]) -> Result<()> {
        let size_bytes = self.size_bytes + part.len() as u64;
        if let Some(said) = self.new_blob.size_bytes.filter(|said| size_bytes > *said) {
            return Err(differs("size_bytes", said, format!("{size_bytes} or more")));
        }
        self.size_bytes = size_bytes;
        let chunk_bytes = CHUNK_BYTES as usize;
        while !part.is_empty() {
            // A chunk that comes whole is written from where it lies.
            if self.chunk.is_empty() && part.len() >= chunk_bytes {
                let (chunk, rest) = part.split_at(chunk_bytes);
                self.append_chunk(chunk)?;
                part = rest;
                continue;
            }
            self.chunk.reserve_exact(chunk_bytes - self.chunk.len());
            let (more, rest) = part.split_at(part.len().min(chunk_bytes - self.chunk.len()));
            self.chunk.extend_from_slice(more);
            part = rest;
            if self.chunk.len() == chunk_bytes {
                self.append_gathered()?;
            }
        }
        Ok(())
    }

    /// How many bytes were written.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Makes the blob visible and safe, in place of the one before, once `allowed` has said that it may be there; it is
    /// asked at the last moment, when nobody else can change the catalogue. `digest` has seen all that was written.
    ///
    /// A blob of a higher version that is there by now stays: this one counts as replaced by it.
    ///
    /// # Errors
    /// [`BlobError::Differs`], what `allowed` says, and as [`Self::write`]: then the one before stays. Only where the
    /// commit itself fails it is not known which of the two a restart finds.
    pub fn finish(
        mut self,
        digest: Digest,
        end: Finish,
        allowed: impl FnOnce() -> Result<()>,
    ) -> Result<Manifest> {
        let sha256 = digest.sha256();
        if let Some(said) = self.new_blob.size_bytes.filter(|said| *said != self.size_bytes) {
            return Err(differs("size_bytes", said, self.size_bytes));
        }
        if let Some(said) = self.new_blob.sha256.filter(|said| *said != sha256) {
            return Err(differs("sha256", hex(&said), hex(&sha256)));
        }
        let ttl_ms = end.ttl.to_wire_ms();
        let manifest = Manifest {
            file: self.file,
            version: end.version,
            size_bytes: self.size_bytes,
            expires_steady_ms: if ttl_ms == 0 { 0 } else { end.now.steady_ms.saturating_add(ttl_ms) },
            created_unix_ms: end.now.unix_ms(),
            chunk_bytes: CHUNK_BYTES,
            sha256,
            content_type: std::mem::take(&mut self.new_blob.content_type),
        };
        if !self.chunk.is_empty() {
            self.append_gathered()?;
        }
        let footer = footer(&self.catalogue_key, &manifest);
        self.append(&[&footer])?;
        Failpoint::BLOB_WHOLE.reached();
        self.appender.take().ok_or(BlobError::Broken)?.sync()?;
        Failpoint::BLOB_SYNCED.reached();
        if ttl_ms != 0 {
            let deadline = manifest.expires_steady_ms;
            self.blobs.0.state.lock().deadlines.set(self.file, deadline, &self.catalogue_key);
        }
        self.commit(&manifest, allowed)?;
        Ok(manifest)
    }

    fn commit(&mut self, manifest: &Manifest, allowed: impl FnOnce() -> Result<()>) -> Result<()> {
        let inner = &self.blobs.0;
        let _committing = inner.committing.lock();
        allowed()?;
        let before = inner.backend.get(&self.catalogue_key)?;
        // A manifest that cannot be read is replaced; its file goes when the store opens.
        let before = before.and_then(|value| read_catalogue_value(&self.catalogue_key, &value).ok());
        if before.as_ref().is_some_and(|before| before.version > manifest.version) {
            return Ok(());
        }
        let value = catalogue_value(&self.catalogue_key, manifest);
        let committed = inner.backend.commit(&[CatalogueChange::Put(&self.catalogue_key, &value)]);
        self.given_away = true;
        let mut state = inner.state.lock();
        if let Err(error) = committed {
            let files = before.iter().map(|before| before.file).chain([self.file]).collect();
            state.doubtful.push((self.catalogue_key.clone(), files));
            return Err(error.into());
        }
        if let Some(before) = &before {
            state.forget(before);
        }
        state.stats.blobs += 1;
        state.stats.bytes += manifest.size_bytes;
        drop(state);
        Failpoint::BLOB_COMMITTED.reached();
        self.blobs.delete_files(before.map(|before| before.file));
        Failpoint::BLOB_REPLACED.reached();
        Ok(())
    }

    fn append_gathered(&mut self) -> Result<()> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let appended = self.append_chunk(&chunk);
        chunk.clear();
        self.chunk = chunk;
        appended
    }

    fn append_chunk(&mut self, payload: &[u8]) -> Result<()> {
        let head = chunk_head(self.file, self.chunks, payload);
        self.chunks += 1;
        self.append(&[&head, payload])?;
        Failpoint::BLOB_CHUNK.reached();
        Ok(())
    }

    fn append(&mut self, parts: &[&[u8]]) -> Result<()> {
        let inner = &self.blobs.0;
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        inner.room.cover(&mut self.reservation, bytes)?;
        let mut appender = self.appender.take().ok_or(BlobError::Broken)?;
        // After an error any part of it may be there, so it is not given back.
        appender.append(parts)?;
        self.appender = Some(appender);
        inner.room.written(&mut self.reservation, bytes);
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        self.blobs.0.room.release(&mut self.reservation);
        if self.given_away {
            return;
        }
        self.appender = None;
        self.blobs.0.state.lock().deadlines.remove(self.file);
        self.blobs.delete_files([self.file]);
    }
}

fn differs(field: &'static str, said: impl ToString, came: impl ToString) -> BlobError {
    BlobError::Differs { field, said: said.to_string(), came: came.to_string() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
