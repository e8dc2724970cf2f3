//! Whether what is open is still under its name: a sync says nothing of a file that was deleted, moved or replaced
//! behind our back, itself or a directory above it.
//!
//! One look at the name for each sync, of a few µs. The files of the journal that were written before are looked at
//! only when their directory has changed: its time of change tells, once it is older than a tick of the kernel's clock,
//! within which two changes leave the same time.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{BackendError, FileId};
use crate::clock::monotonic;
use crate::shortage;

/// Which file or directory something is, whatever its name. No other has it while this one is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InodeId {
    device: u64,
    inode: u64,
}

impl InodeId {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|metadata| Self::from(&metadata))
    }

    /// Fails unless it is what has this name.
    pub(super) fn check(self, path: &Path) -> Result<(), BackendError> {
        match fs::metadata(path) {
            Ok(metadata) if Self::from(&metadata) == self => Ok(()),
            Ok(_) => Err(BackendError::gone(path)),
            Err(error) => absent(path, error),
        }
    }
}

impl From<&Metadata> for InodeId {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// What it means that a name could not be looked at. A shortage says nothing of it: the next look does.
fn absent(path: &Path, error: io::Error) -> Result<(), BackendError> {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Err(BackendError::gone(path)),
        _ if shortage::is_passing(&error) => Ok(()),
        _ => Err(BackendError::lasting("look at", path, error)),
    }
}

/// The files that are to be in a directory until we delete them.
#[derive(Debug)]
pub(super) struct ExpectedFiles {
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeSet<FileId>,
    /// When the directory was changed last, as it says itself, and when that was seen first.
    changed: Option<(i64, i64, Instant)>,
    /// All files were there when that was older than a tick.
    is_checked: bool,
}

/// Longer than any kernel's tick.
const TICK: Duration = Duration::from_millis(100);

impl ExpectedFiles {
    /// None yet, of those that are called so below `root`.
    pub(super) fn below(root: &Path) -> Self {
        Self { root: root.to_owned(), state: Mutex::default() }
    }

    pub(super) fn add(&self, file: FileId) {
        let mut state = self.state.lock();
        state.is_checked = false;
        state.files.insert(file);
    }

    /// It is about to be deleted or moved, by us.
    pub(super) fn remove(&self, file: FileId) {
        self.state.lock().files.remove(&file);
    }

    /// Fails where one is not there; `directory` is theirs.
    pub(super) fn check(&self, directory: &File) -> Result<(), BackendError> {
        let Ok(metadata) = directory.metadata() else { return Ok(()) };
        let now = (metadata.mtime(), metadata.mtime_nsec());
        let mut state = self.state.lock();
        let seen_at = match state.changed {
            Some((seconds, nanoseconds, at)) if (seconds, nanoseconds) == now => at,
            _ => {
                state.is_checked = false;
                let at = monotonic();
                state.changed = Some((now.0, now.1, at));
                at
            }
        };
        if state.is_checked {
            return Ok(());
        }
        let is_settled = seen_at.elapsed() > TICK;
        for file in &state.files {
            let path = self.root.join(file.to_string());
            if let Err(error) = path.symlink_metadata() {
                absent(&path, error)?;
            }
        }
        state.is_checked = is_settled;
        Ok(())
    }
}
