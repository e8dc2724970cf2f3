//! What outlives the node: a journal of every change, snapshots of the whole content, and blobs.
//!
//! All of it stands on a [`Backend`], which knows files that only grow, one small mark, and a catalogue; it does not
//! know what is in them. Everything carries a checksum from when it was written, so that damage is found here and no
//! damaged value is served.
//!
//! - [`backend`]: the trait and its implementations.
//! - [`blob`]: large objects, a file each.
//! - [`failpoint`]: where a test has the process die.
//!
//! Nothing here knows of gRPC or of the engine's inside.

pub mod backend;
pub mod blob;
mod directory_notes;
pub mod disk;
mod disk_budget;
pub mod failpoint;
pub mod frame;
pub mod journal;
mod lazy;
mod lineage;
mod lock;
pub mod mark;
mod private;
pub mod record;
pub mod recover;
mod rehearse;
pub mod replay;
pub mod segment;
pub mod snapshot;
pub mod tier;
pub mod time;

#[cfg(any(test, feature = "testing"))]
pub use backend::memory::MemoryBackend;
pub use backend::{Appender, Backend, BackendError, BackendKind, CatalogueChange, FileId, FileKind, ReadAt};
#[cfg(any(test, feature = "testing"))]
pub use backend::{DiskSpace, FilesBackend, MARK_BYTES, SledBackend, UnknownBackend, Visit};
pub use disk_budget::DiskBudget;
pub use lock::{DirectoryLock, LockError};
pub use recover::RecoveryMethod;

#[cfg(test)]
mod tests;
