//! The data directory of a cache: none, until it is opened.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::{Blobs, Cache};
use crate::clock::Clock;
use crate::entry::Durability;
use crate::persistence::backend::{self, BackendKind};
use crate::persistence::blob::BlobError;
use crate::persistence::disk::{Disk, DiskConfig};
use crate::persistence::journal::Stopped;
use crate::persistence::recover::{RecoveryProgress, Report};
use crate::persistence::snapshot::SnapshotError;
use crate::persistence::{Backend, BackendError, DirectoryLock, LockError};

/// Which directory, and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOptions {
    /// The directory; made if it is not there.
    pub directory: PathBuf,
    /// What the catalogue lies in.
    pub backend: BackendKind,
    /// How journal and snapshots are kept, and the content comes back.
    pub disk: DiskConfig,
    /// What writes wait for that do not say.
    pub durability: Durability,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// Another process has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The disk refuses.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// What the journal has cannot be put into a snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The blobs cannot be read.
    #[error("the blobs cannot be opened: {0}")]
    Blobs(#[from] BlobError),
    /// It has one already.
    #[error("the cache has a data directory already")]
    Open,
}

#[derive(Debug, Default)]
pub(super) struct DiskShelf {
    kept: OnceLock<Kept>,
}

#[derive(Debug)]
struct Kept {
    disk: Disk,
    durability: Durability,
    _lock: DirectoryLock,
}

impl Cache {
    /// Takes a data directory, brings back what is in it and keeps every change there from then on. Blocks; nothing
    /// else may use the cache meanwhile.
    ///
    /// # Errors
    /// [`DiskError`]. What was brought back by then is in the cache.
    pub fn open_disk(&self, options: &DiskOptions, progress: &RecoveryProgress) -> Result<Report, DiskError> {
        if self.disk.kept.get().is_some() {
            return Err(DiskError::Open);
        }
        let lock = DirectoryLock::take(&options.directory)?;
        let (backend, notes) = backend::open(options.backend, &options.directory)?;
        for note in notes {
            tracing::warn!("{note}");
        }
        let clock: Arc<dyn Clock> = self.clock.clone();
        let engine = Arc::clone(&self.engine);
        let (disk, report) = Disk::open(Arc::clone(&backend), engine, clock, options.disk.clone(), progress)?;
        self.open_blobs(backend, disk.limit_bytes())?;
        let kept = Kept { disk, durability: options.durability, _lock: lock };
        self.disk.kept.set(kept).map_err(|_| DiskError::Open)?;
        Ok(report)
    }

    fn open_blobs(&self, backend: Arc<dyn Backend>, limit_bytes: Option<u64>) -> Result<(), DiskError> {
        let (blobs, opened) = Blobs::open(backend, limit_bytes, self.now())?;
        for damage in &opened.damages {
            tracing::error!(?damage, "a blob is damaged");
        }
        self.engine.raise_versions(opened.version_max);
        self.serve_blobs(blobs);
        Ok(())
    }

    /// The data directory in use; `None`: nothing is kept on disk.
    #[must_use]
    pub fn disk(&self) -> Option<&Disk> {
        self.disk.kept.get().map(|kept| &kept.disk)
    }

    /// Whether a write waits for the disk that asks for this (`None`: for nothing); `None`: there is nothing to wait
    /// for, no disk or no journal on it.
    #[must_use]
    #[inline]
    pub fn flushes(&self, wanted: Option<Durability>) -> Option<bool> {
        match (self.disk.kept.get().filter(|kept| kept.disk.keeps_journal()), wanted) {
            (None, Some(Durability::Flushed)) => None,
            (None, _) => Some(false),
            (Some(kept), wanted) => Some(wanted.unwrap_or(kept.durability) == Durability::Flushed),
        }
    }

    /// Waits until everything that was applied before this was called is on the disk. What is to be waited for is
    /// settled at once, not when the future is polled first.
    ///
    /// # Errors
    /// The journal has stopped: it may or may not be there.
    pub fn flushed(self: &Arc<Self>) -> impl Future<Output = Result<u64, Stopped>> + Send + 'static {
        let cache = Arc::clone(self);
        let ticket = cache.disk().map(|disk| disk.journal().ask_flush());
        async move {
            match (cache.disk(), ticket) {
                (Some(disk), Some(ticket)) => disk.journal().wait_flushed(ticket).await,
                _ => Ok(0),
            }
        }
    }

    /// Whether no write is accepted any more because the disk failed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.disk().is_some_and(|disk| disk.journal().progress().borrow().poisoned.is_some())
    }

    /// Writes and syncs what is left; see [`Disk::stop`]. Later changes are refused.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn close_disk(&self) -> Result<(), SnapshotError> {
        self.disk().map_or(Ok(()), |disk| disk.stop().map(|_| ()))
    }

    /// As [`Self::close_disk`], for whoever cannot wait for a snapshot: see [`Disk::stop_at_once`].
    ///
    /// # Errors
    /// The disk refuses.
    pub fn close_disk_at_once(&self) -> Result<(), SnapshotError> {
        self.disk().map_or(Ok(()), |disk| disk.stop_at_once().map(|_| ()))
    }
}
