//! What `files` and `sled` have in common: payload and mark in files of ours, with one catalogue or another beside them.

use std::fmt;
use std::path::Path;

use super::mark::{MARK_FILE_BYTES, MarkFile};
use super::payload::{Payload, sync_directory};
use super::takeover;
use super::{
    Appender, Backend, BackendError, BackendKind, CatalogueChange, DiskSpace, FileId, MARK_BYTES, ReadAt,
    Visit,
};

/// Where a backend on files has its catalogue. Each verb is held to what [`Backend`] says of it.
pub trait Catalogue: fmt::Debug + Send + Sync + Sized + 'static {
    /// The backend that has it so.
    const KIND: BackendKind;

    /// The names of what it has in the backend's directory, in the order in which they may vanish: what is left of it
    /// without the first of them is whole.
    const PARTS: &'static [&'static str];

    /// The one that another backend may have left in the directory.
    type Other: Catalogue;

    /// Opens what is in the backend's directory, or makes it; notes say what was set aside.
    ///
    /// # Errors
    /// It cannot be read or written.
    fn open(directory: &Path, payload: &Payload, notes: &mut Vec<String>) -> Result<Self, BackendError>;

    /// See [`Backend::get`].
    ///
    /// # Errors
    /// As there.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError>;

    /// See [`Backend::commit`].
    ///
    /// # Errors
    /// As there.
    fn commit(&self, changes: &[CatalogueChange<'_>]) -> Result<(), BackendError>;

    /// See [`Backend::scan`].
    ///
    /// # Errors
    /// As there.
    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), BackendError>;

    /// See [`Backend::memory_bytes`].
    fn memory_bytes(&self) -> u64;

    /// Its own bytes on disk.
    ///
    /// # Errors
    /// They cannot be counted.
    fn disk_bytes(&self) -> Result<u64, BackendError>;
}

/// Files in a directory, with a catalogue.
#[derive(Debug)]
pub struct OnFiles<C> {
    payload: Payload,
    mark: MarkFile,
    catalogue: C,
}

impl<C: Catalogue> OnFiles<C> {
    /// Opens what is in a directory, or makes it. The notes say what was found damaged and where it was set aside.
    /// One process may do so at a time: see [`DirectoryLock`](crate::persistence::DirectoryLock).
    ///
    /// Costs a read of the whole catalogue, and where another backend has left its own there, a copy of that.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub fn open(directory: &Path) -> Result<(Self, Vec<String>), BackendError> {
        let mut notes = Vec::new();
        let payload = Payload::open(directory)?;
        let mark = MarkFile::open(&directory.join("mark"))?;
        let catalogue = takeover::open(directory, &payload, &mut notes)?;
        sync_directory(directory)?;
        Ok((Self { payload, mark, catalogue }, notes))
    }
}

impl<C: Catalogue> Backend for OnFiles<C> {
    fn name(&self) -> &'static str {
        C::KIND.as_str()
    }

    fn files(&self) -> Result<Vec<(FileId, u64)>, BackendError> {
        self.payload.files()
    }

    fn create(&self, file: FileId) -> Result<Box<dyn Appender>, BackendError> {
        self.payload.create(file)
    }

    fn open(&self, file: FileId) -> Result<Box<dyn ReadAt>, BackendError> {
        self.payload.open_file(file)
    }

    fn has(&self, file: FileId) -> Result<bool, BackendError> {
        self.payload.has(file)
    }

    fn delete(&self, file: FileId) -> Result<(), BackendError> {
        self.payload.delete(file)
    }

    fn quarantine(&self, file: FileId) -> Result<String, BackendError> {
        self.payload.quarantine(file)
    }

    fn read_mark(&self) -> Result<Option<[u8; MARK_BYTES]>, BackendError> {
        self.mark.read()
    }

    fn write_mark(&self, mark: &[u8; MARK_BYTES], synced: bool) -> Result<(), BackendError> {
        self.mark.write(mark, synced)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        self.catalogue.get(key)
    }

    fn commit(&self, changes: &[CatalogueChange<'_>]) -> Result<(), BackendError> {
        self.catalogue.commit(changes)
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), BackendError> {
        self.catalogue.scan(prefix, after, visit)
    }

    fn disk_bytes(&self) -> Result<u64, BackendError> {
        Ok(self.payload.disk_bytes()? + self.catalogue.disk_bytes()? + MARK_FILE_BYTES)
    }

    fn memory_bytes(&self) -> u64 {
        self.catalogue.memory_bytes()
    }

    fn space(&self) -> Result<DiskSpace, BackendError> {
        self.payload.space()
    }
}
