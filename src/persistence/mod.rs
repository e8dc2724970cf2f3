//! What outlives the node: a journal of every change, snapshots of the whole content, and blobs.
//!
//! All of it stands on a [`Backend`], which knows files that only grow, one small mark, and a catalogue; it does not
//! know what is in them. Whatever is read back was checksummed when it was written, so that damage is found here and
//! not by whoever asked for a value.
//!
//! - [`backend`]: the trait and its implementations.
//! - [`blob`]: large objects, a file each.
//! - [`failpoint`]: where a test has the process die.
//!
//! Nothing here knows of gRPC or of the engine's inside.

pub mod backend;
pub mod blob;
pub mod disk;
pub mod failpoint;
pub mod frame;
mod history;
pub mod journal;
mod lazy;
mod ledger;
mod lock;
pub mod mark;
mod private;
pub mod record;
pub mod recover;
mod rehearse;
pub mod replay;
mod room;
pub mod segment;
pub mod snapshot;
pub mod tier;
pub mod time;

pub use backend::memory::MemoryBackend;
pub use backend::{
    Appender, Backend, BackendError, BackendKind, CatalogueChange, DiskSpace, FileId, FileKind, FilesBackend,
    MARK_BYTES, ReadAt, SledBackend, UnknownBackend, Visit,
};
pub use lock::{DirectoryLock, LockError};
pub use recover::Method;
pub use room::Room;

#[cfg(test)]
mod tests;
