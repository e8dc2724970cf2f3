//! Where bytes lie that outlive the node.
//!
//! Three kinds of things, so few verbs that a crash can be faked:
//!
//! - **Files**, which only grow while they are written and are never written again: journal segments, snapshots, blobs.
//!   One that is being written, or was when a crash came, may have zeroes behind what was appended
//!   ([`Appender::reserve`]).
//! - **The mark**, a few bytes that are written over in place and never torn: what was synced last, and more.
//! - **The catalogue**, a small ordered map from keys to values that changes in whole commits.
//!
//! What holds for every implementation, and what the suite in `tests.rs` asks of each: a file's bytes are safe once
//! [`Appender::sync`] has returned, its name included; a commit is all or nothing and safe once [`Backend::commit`] has
//! returned; what was not synced may be gone after a crash, any part of it. A failed write or sync is reported by the
//! call that it happened in. Nothing is written twice, cached or retried in silence; a shortage of descriptors or
//! memory has an error of its own ([`BackendError::is_passing`]) and leaves all as it was.

mod files;
mod mark;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
mod on_files;
mod payload;
mod presence;
mod sled;
mod takeover;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::shortage;

pub use self::sled::SledBackend;
pub use files::FilesBackend;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// A stretch of the journal.
    Journal,
    /// A snapshot.
    Snapshot,
    /// A blob's content.
    Blob,
}

/// A file's name: its kind and a number that its owner gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// What it is for.
    pub kind: FileKind,
    /// Which of them it is.
    pub number: u64,
}

/// Length of the mark.
pub const MARK_BYTES: usize = 64;

/// One change of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatalogueChange<'a> {
    /// Puts a value under a key, in place of any that was there.
    Put(&'a [u8], &'a [u8]),
    /// Removes a key, if it is there.
    Remove(&'a [u8]),
}

/// What a disk has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// In all.
    pub total_bytes: u64,
    /// What nobody uses yet, and we may.
    pub free_bytes: u64,
}

/// What a scan calls with each key and value, until it breaks off.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Where bytes lie that outlive the node. Shared between threads.
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// The word for it in flags, logs and metrics.
    fn name(&self) -> &'static str;

    /// All files with their lengths in bytes, ordered by kind and number.
    ///
    /// # Errors
    /// The directory cannot be read.
    fn files(&self) -> Result<Vec<(FileId, u64)>, BackendError>;

    /// Makes an empty file and opens it for writing.
    ///
    /// # Errors
    /// There is a file of that name, or it cannot be made.
    fn create(&self, file: FileId) -> Result<Box<dyn Appender>, BackendError>;

    /// Opens a file for reading. What is read through this stays as it is, also when the file is deleted or set aside
    /// meanwhile; what is appended meanwhile is seen.
    ///
    /// # Errors
    /// There is none of that name, or it cannot be opened.
    fn open(&self, file: FileId) -> Result<Box<dyn ReadAt>, BackendError>;

    /// Whether there is a file of that name. Cheap.
    ///
    /// # Errors
    /// It cannot be told.
    fn has(&self, file: FileId) -> Result<bool, BackendError>;

    /// Deletes a file; its room is free when the last reader is gone. After a crash the file may be there again.
    /// Deleting what is not there is done already.
    ///
    /// # Errors
    /// It cannot be deleted.
    fn delete(&self, file: FileId) -> Result<(), BackendError>;

    /// Sets a file aside, where nothing here finds it again and nobody deletes it. Says where, for people.
    ///
    /// # Errors
    /// There is none of that name, or it cannot be moved.
    fn quarantine(&self, file: FileId) -> Result<String, BackendError>;

    /// The mark as it was written last; `None`: never, or it is damaged beyond use.
    ///
    /// # Errors
    /// It cannot be read.
    fn read_mark(&self) -> Result<Option<[u8; MARK_BYTES]>, BackendError>;

    /// Writes the mark. A crash leaves this one, or one of those before it back to the last that was synced, whole.
    /// With `synced`, it is safe when this returns.
    ///
    /// # Errors
    /// It cannot be written or synced; the last that was synced before is safe still.
    fn write_mark(&self, mark: &[u8; MARK_BYTES], synced: bool) -> Result<(), BackendError>;

    /// The value of a key of the catalogue.
    ///
    /// # Errors
    /// The catalogue cannot be read or is damaged.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError>;

    /// Makes all of the changes, in order, or none of them.
    ///
    /// # Errors
    /// They cannot be written or synced; whether they are there, now or after a restart, is not known then.
    fn commit(&self, changes: &[CatalogueChange<'_>]) -> Result<(), BackendError>;

    /// Visits the keys that begin with `prefix` and come after `after`, in order, until `visit` breaks off. What is
    /// committed meanwhile, also by `visit`, may be seen or not.
    ///
    /// # Errors
    /// The catalogue cannot be read or is damaged.
    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), BackendError>;

    /// Bytes on disk, of everything that is not set aside. Costs a look at every file.
    ///
    /// # Errors
    /// They cannot be counted.
    fn disk_bytes(&self) -> Result<u64, BackendError>;

    /// Bytes of memory that it takes to know where the catalogue's values lie, about. Cheap.
    fn memory_bytes(&self) -> u64 {
        0
    }

    /// The disk's size and what is free on it. Other programs' files count. Cheap.
    ///
    /// # Errors
    /// The disk does not say; the directory or a file of the journal was deleted or moved meanwhile.
    fn space(&self) -> Result<DiskSpace, BackendError>;
}

/// A file that is being written. It ends where it is dropped; what was not synced then may be lost.
pub trait Appender: fmt::Debug + Send {
    /// Appends the parts, one behind the other. After an error any part of them may be there; but after one that
    /// [passes](BackendError::is_passing), the file is as it was before, and the same may be appended once more.
    ///
    /// # Errors
    /// The disk is full or refuses.
    fn append(&mut self, parts: &[&[u8]]) -> Result<(), BackendError>;

    /// Returns when all that was appended is safe: bytes, length and name. For that the file must still be under its
    /// name: one that was deleted or moved away behind our back, itself or its directory, is an error from the first sync
    /// after that; for a file of the journal, also one of those before it.
    ///
    /// # Errors
    /// The disk refuses, or the file is gone. What was appended since the sync before may or may not be there, and a sync
    /// that succeeds later says nothing about it. It never [passes](BackendError::is_passing).
    fn sync(&mut self) -> Result<(), BackendError>;

    /// Writes zeroes where the next `bytes` are to be appended: while they last, a sync has only bytes to write and not the file's length and blocks, which costs a file system a
    /// transaction of its own. They are cut off where the file ends; a crash leaves any of them. After an error some of
    /// them may be there, and what is appended next is as safe as ever.
    ///
    /// # Errors
    /// The disk is full or refuses.
    fn reserve(&mut self, bytes: u64) -> Result<(), BackendError>;

    /// How many bytes may be appended before what was reserved is used up.
    fn reserved(&self) -> u64;

    /// The length in bytes, all that was appended.
    fn len(&self) -> u64;

    /// Whether nothing was appended.
    #[cfg(any(test, feature = "testing"))]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A file that is open for reading. Shared between threads.
pub trait ReadAt: fmt::Debug + Send + Sync {
    /// Fills the buffer from an offset; fewer bytes only where the file ends.
    ///
    /// # Errors
    /// The disk refuses.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, BackendError>;

    /// The length in bytes now, with all that is reserved.
    ///
    /// # Errors
    /// The disk refuses.
    fn len(&self) -> Result<u64, BackendError>;

    /// Whether there is nothing in it now.
    ///
    /// # Errors
    /// The disk refuses.
    #[cfg(any(test, feature = "testing"))]
    fn is_empty(&self) -> Result<bool, BackendError> {
        self.len().map(|len| len == 0)
    }
}

/// Which backend keeps a node's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackendKind {
    /// Plain files, with the catalogue in sled.
    Sled,
    /// Plain files, with the catalogue in a log of its own.
    Files,
}

/// A name that is no backend's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no storage {name:?}; there are {}", BackendKind::list())]
pub struct UnknownBackend {
    /// What was asked for.
    pub name: String,
}

impl BackendKind {
    /// Those that this build has.
    pub const ALL: [Self; 2] = [Self::Sled, Self::Files];

    /// The name, as flags, the wire and labels write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Files => "files",
        }
    }

    /// The names of all, for error messages.
    #[must_use]
    pub fn list() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl FromStr for BackendKind {
    type Err = UnknownBackend;

    fn from_str(name: &str) -> Result<Self, UnknownBackend> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == name);
        found.ok_or_else(|| UnknownBackend { name: name.to_owned() })
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a backend could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The operating system refused.
    #[error("cannot {action} {place}: {source}")]
    Io {
        /// What was tried, as a verb: "sync".
        action: &'static str,
        /// The path.
        place: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system has run out of descriptors, memory or the like: nothing was written, and the same call may
    /// work in a moment.
    #[error("cannot {action} {place} for now: {source}; try again")]
    Shortage {
        /// What was tried, as a verb: "open".
        action: &'static str,
        /// The path.
        place: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// What is left on the disk is kept for the journal.
    #[error(
        "{needs} bytes more do not fit on the disk: {free} are free, and the journal keeps {reserve} of them for itself; \
         make room on the disk"
    )]
    NoRoom {
        /// How much was to be written.
        needs: u64,
        /// What is free.
        free: u64,
        /// What of that is the journal's.
        reserve: u64,
    },
    /// The catalogue's own storage refused or is damaged.
    #[error("the catalogue {place} cannot {action}: {reason}")]
    Catalogue {
        /// What was tried, as a verb: "commit".
        action: &'static str,
        /// The path.
        place: String,
        /// What it said.
        reason: String,
    },
}

impl BackendError {
    fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::at(action, path.display().to_string(), source)
    }

    /// Told apart by what the operating system said: a shortage that passes, or something that lasts.
    pub(in crate::persistence) fn at(action: &'static str, place: String, source: io::Error) -> Self {
        if shortage::is_passing(&source) {
            Self::Shortage { action, place, source }
        } else {
            Self::Io { action, place, source }
        }
    }

    /// Of a sync, or where something was changed before: whatever the operating system said, it lasts.
    fn lasting(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, place: path.display().to_string(), source }
    }

    /// A file or directory in use is not under its name any more.
    fn gone(path: &Path) -> Self {
        let why = "it was deleted, moved or replaced while in use";
        Self::lasting("use", path, io::Error::new(io::ErrorKind::NotFound, why))
    }

    fn catalogue(action: &'static str, path: &Path, reason: impl fmt::Display) -> Self {
        Self::Catalogue { action, place: path.display().to_string(), reason: reason.to_string() }
    }

    /// Whether there is no room left on the disk.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
            ),
            Self::NoRoom { .. } => true,
            Self::Shortage { .. } | Self::Catalogue { .. } => false,
        }
    }

    /// Whether nothing is wrong with the disk, and the same call may work in a moment: see [`crate::shortage`].
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Shortage { .. })
    }

    /// Whether what was asked for is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl FileKind {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Journal, Self::Snapshot, Self::Blob];
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Journal => "journal",
            Self::Snapshot => "snapshot",
            Self::Blob => "blob",
        })
    }
}

impl fmt::Display for FileId {
    /// The path below the data directory: `journal/000000000000001f.journal`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{0}/{1:016x}.{0}", self.kind, self.number)
    }
}

/// Opens what is in a directory, whichever backend was the last to use it, or makes it. The notes say what was found damaged and where it was set aside.
///
/// # Errors
/// The directory cannot be read or written.
pub fn open(kind: BackendKind, directory: &Path) -> Result<(Arc<dyn Backend>, Vec<String>), BackendError> {
    fn shared((backend, notes): (impl Backend, Vec<String>)) -> (Arc<dyn Backend>, Vec<String>) {
        (Arc::new(backend), notes)
    }
    match kind {
        BackendKind::Sled => SledBackend::open(directory).map(shared),
        BackendKind::Files => FilesBackend::open(directory).map(shared),
    }
}
