//! The backend `files`: plain files of ours, and nothing else.
//!
//! ```text
//! journal/ snapshot/ blob/ quarantine/   payload.rs
//! mark                                   mark.rs
//! catalogue/                             files/catalogue.rs, a log of commits
//! ```
//!
//! All that it takes back at opening is checksummed; what is damaged is set aside and told.

mod catalogue;
mod frame;

use std::path::Path;

use catalogue::Catalogue;

use super::mark::{MARK_FILE_BYTES, MarkFile};
use super::payload::{Payload, sync_directory};
use super::{
    Appender, Backend, BackendError, BackendKind, CatalogueChange, FileId, MARK_BYTES, ReadAt, Visit,
};

/// Plain files in a directory.
#[derive(Debug)]
pub struct FilesBackend {
    payload: Payload,
    mark: MarkFile,
    catalogue: Catalogue,
}

impl FilesBackend {
    /// Opens what is in a directory, or makes it. The notes say what was found damaged and where it was set aside.
    /// One process may do so at a time: see [`DirectoryLock`](crate::persistence::DirectoryLock).
    ///
    /// Costs a read of the whole catalogue.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub fn open(directory: &Path) -> Result<(Self, Vec<String>), BackendError> {
        let mut notes = Vec::new();
        let payload = Payload::open(directory)?;
        let mark = MarkFile::open(&directory.join("mark"))?;
        let catalogue = Catalogue::open(&directory.join("catalogue"), payload.quarantine_room(), &mut notes)?;
        sync_directory(directory)?;
        Ok((Self { payload, mark, catalogue }, notes))
    }
}

impl Backend for FilesBackend {
    fn name(&self) -> &'static str {
        BackendKind::Files.as_str()
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
}
