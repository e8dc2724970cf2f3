//! The data directory of a cache: none, until it is opened.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Blobs, Cache};
use crate::clock::Clock;
use crate::engine::{NamespaceConfig, Restorer};
use crate::entry::{Durability, Version, WallClockError};
use crate::lookup::Lookup;
use crate::persistence::backend::{self, BackendKind};
use crate::persistence::blob::{BlobError, Opened};
use crate::persistence::disk::{Disk, DiskConfig};
use crate::persistence::journal::{BacklogQueue, Stopped};
use crate::persistence::recover::{RecoveryProgress, Report};
use crate::persistence::snapshot::SnapshotError;
use crate::persistence::{Backend, BackendError, DirectoryLock, DiskBudget, LockError, time};

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
    /// The wall clock cannot be followed.
    #[error(transparent)]
    Clock(#[from] WallClockError),
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

/// The data directory of a cache, once it is open.
#[derive(Debug)]
pub(super) struct OpenDisk {
    disk: Disk,
    durability: Durability,
    damages: u64,
    _lock: DirectoryLock,
}

impl Cache {
    /// Takes a data directory, brings back what is in it and keeps every change there from then on. Blocks; nothing
    /// else may use the cache meanwhile.
    ///
    /// # Errors
    /// [`DiskError`]. The cache is as it was: this may be tried again.
    pub fn open_disk(&self, options: &DiskOptions, progress: &RecoveryProgress) -> Result<Report, DiskError> {
        if self.disk.get().is_some() {
            return Err(DiskError::Open);
        }
        let lock = DirectoryLock::take(&options.directory)?;
        let (backend, notes) = backend::open(options.backend, &options.directory)?;
        for note in notes {
            tracing::warn!("{note}");
        }
        self.open_disk_on(backend, lock, options, progress)
    }

    /// As [`Self::open_disk`], over a backend that is open already; `options` say nothing of it then.
    ///
    /// # Errors
    /// As there.
    pub fn open_disk_on(
        &self,
        backend: Arc<dyn Backend>,
        lock: DirectoryLock,
        options: &DiskOptions,
        progress: &RecoveryProgress,
    ) -> Result<Report, DiskError> {
        if self.disk.get().is_some() {
            return Err(DiskError::Open);
        }
        // First what changes nothing in memory. Blobs are held to the same time as entries.
        Version::clock_at(self.now().unix_us)?;
        time::resume_clock(&*backend, &*self.clock)?;
        let room = Arc::new(DiskBudget::new(backend, options.disk.limit_bytes));
        let (blobs, found) = self.open_blobs(Arc::clone(&room))?;
        let clock: Arc<dyn Clock> = self.clock.clone();
        let engine = Arc::clone(&self.engine);
        let opened = Disk::open_in(room, engine, clock, options.disk.clone(), progress);
        let (disk, report) = opened.inspect_err(|_| self.forget_all())?;
        let damages = found.damaged + report.damages.len() as u64;
        let reader = disk.reader();
        let open = OpenDisk { disk, durability: options.durability, damages, _lock: lock };
        self.disk.set(open).map_err(|_| DiskError::Open)?;
        if let Some(reader) = reader {
            self.lookup.get_or_init(|| Lookup::new(Arc::clone(&self.engine), Arc::new(reader)));
        }
        self.make_again(found.namespaces);
        self.serve_blobs(blobs);
        Ok(report)
    }

    /// Makes namespaces that have blobs and are not there: what was kept of them was lost or given up with the entries.
    fn make_again(&self, namespaces: BTreeSet<String>) {
        for name in namespaces.into_iter().filter(|name| self.engine.namespace(name).is_none()) {
            let policy = self.engine.default_namespace().config().policy;
            match self.engine.create_namespace(&NamespaceConfig::new(&name, policy)) {
                Ok(_) => tracing::warn!(
                    namespace = ?name,
                    "made a namespace again that has blobs and was not recovered: its settings are the node's defaults"
                ),
                Err(error) => tracing::error!(
                    namespace = ?name, %error,
                    "a namespace that has blobs was not recovered and cannot be made again: they stay on disk, and \
                     are served once it is created"
                ),
            }
        }
    }

    /// Takes out what a recovery has put in that then failed, and the log that refuses writes since.
    fn forget_all(&self) {
        self.engine.stop_log();
        for namespace in self.engine.namespaces() {
            // Of the default one, which stays.
            let _ = self.engine.delete_namespace(namespace.name(), self.now());
        }
        Restorer::new(&self.engine).empty(self.now());
    }

    /// The blobs, and what was found of them.
    fn open_blobs(&self, room: Arc<DiskBudget>) -> Result<(Blobs, Opened), DiskError> {
        let (blobs, opened) = Blobs::open_in(room, self.now())?;
        for damage in &opened.damages {
            tracing::error!(?damage, "a blob is damaged");
        }
        let Opened { rebuilt, set_aside, leftovers, .. } = &opened;
        if *rebuilt + *set_aside > 0 {
            tracing::warn!(
                rebuilt,
                set_aside,
                "the catalogue of blobs was lost, and was made anew of their files"
            );
        }
        if *leftovers > 0 {
            tracing::info!(
                leftovers,
                "deleted files of blobs that were never finished, were replaced or deleted"
            );
        }
        self.engine.raise_versions(opened.version_max);
        Ok((blobs, opened))
    }

    /// The data directory in use; `None`: nothing is kept on disk.
    #[must_use]
    pub fn disk(&self) -> Option<&Disk> {
        self.disk.get().map(|open| &open.disk)
    }

    /// Places on disk that were found damaged when the data directory was opened.
    #[must_use]
    pub fn disk_damages(&self) -> u64 {
        self.disk.get().map_or(0, |open| open.damages)
    }

    /// Whether a write waits for the disk that asks for this (`None`: for nothing); `None`: there is nothing to wait
    /// for, no disk or no journal on it.
    #[must_use]
    #[inline]
    pub fn flushes(&self, wanted: Option<Durability>) -> Option<bool> {
        match (self.disk.get().filter(|open| open.disk.keeps_journal()), wanted) {
            (None, Some(Durability::Flushed)) => None,
            (None, _) => Some(false),
            (Some(open), wanted) => Some(wanted.unwrap_or(open.durability) == Durability::Flushed),
        }
    }

    /// Where writes wait that are refused as [`Refusal::Backlogged`](crate::engine::Refusal::Backlogged); `None`: there is
    /// no journal.
    #[must_use]
    #[inline]
    pub fn journal_backlog(&self) -> Option<&Arc<BacklogQueue>> {
        self.disk.get().map(|open| open.disk.journal().backlog())
    }

    /// Whether writes wait for the journal, so that one that comes now is to wait behind them.
    #[must_use]
    #[inline]
    pub fn has_waiting_writes(&self) -> bool {
        self.journal_backlog().is_some_and(|queue| queue.is_waited_for())
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

    /// As [`Self::close_disk`], without waiting for a snapshot: see [`Disk::stop_at_once`].
    ///
    /// # Errors
    /// The disk refuses.
    pub fn close_disk_at_once(&self) -> Result<(), SnapshotError> {
        self.disk().map_or(Ok(()), |disk| disk.stop_at_once().map(|_| ()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::{EngineConfig, Op, Outcome, PolicyName, Set};
    use crate::entry::{Limits, Ttl};
    use crate::persistence::journal::{JournalConfig, RESERVE_BYTES, SEGMENT_BYTES};
    use crate::persistence::{MemoryBackend, RecoveryMethod};

    fn cache() -> Cache {
        Cache::new(&EngineConfig { bytes_limit: 16 << 20, ..EngineConfig::default() }, Limits::default())
    }

    fn options(directory: PathBuf) -> DiskOptions {
        let journal = JournalConfig {
            flush_interval: Duration::from_secs(3_600),
            backlog_bytes: 64 << 20,
            waiting_bytes: 4 << 20,
            segment_bytes: SEGMENT_BYTES,
            reserve_bytes: RESERVE_BYTES,
        };
        let disk = DiskConfig {
            journal,
            is_journaled: true,
            recovery: RecoveryMethod::SnapshotAndJournal,
            snapshot_interval: None,
            limit_bytes: None,
            is_store: false,
        };
        DiskOptions { directory, backend: BackendKind::Files, disk, durability: Durability::Buffered }
    }

    fn set(cache: &Cache, key: &str) -> Outcome {
        let set = Op::Set(Set::new(key.as_bytes(), b"v"));
        cache.engine.apply(cache.engine.default_namespace(), &set, cache.now())
    }

    #[test]
    fn a_data_directory_that_could_not_be_opened_leaves_the_cache_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let options = options(directory.path().to_owned());
        let open = |cache: &Cache, backend: &MemoryBackend| {
            let lock = DirectoryLock::take(directory.path()).unwrap();
            cache.open_disk_on(Arc::new(backend.clone()), lock, &options, &RecoveryProgress::default())
        };
        let backend = MemoryBackend::new();
        let first = cache();
        open(&first, &backend).unwrap();
        set(&first, "a");
        first.engine.create_namespace(&NamespaceConfig::new("more", PolicyName::Lru)).unwrap();
        first.disk().unwrap().snapshot().unwrap();
        set(&first, "b");
        first.close_disk().unwrap();
        drop(first);

        let mut failures = 0;
        for passing in 0.. {
            let (cache, backend) =
                (cache(), backend.crash(crate::persistence::backend::memory::Lose::Nothing));
            backend.fail_once_after(passing);
            if open(&cache, &backend).is_ok() {
                break;
            }
            failures += 1;
            backend.heal();
            assert_eq!((cache.stats().entries, cache.engine.namespaces().len()), (0, 1), "call {passing}");
            assert!(matches!(set(&cache, "c"), Outcome::Stored(_)), "call {passing}: writes are refused");
            cache.engine.clear(cache.engine.default_namespace(), cache.now());
            assert!(cache.disk().is_none() && cache.blobs().is_none());

            let report = open(&cache, &backend).unwrap();
            assert!(report.damages.is_empty(), "call {passing}: {report:?}");
            assert_eq!((cache.stats().entries, cache.engine.namespaces().len()), (2, 2), "call {passing}");
            assert!(matches!(set(&cache, "c"), Outcome::Stored(_)), "call {passing}");
        }
        assert!(failures > 10, "{failures}");
    }

    #[test]
    fn blobs_count_as_memory_in_use_and_are_bounded_by_its_limit() {
        use crate::persistence::blob::{BlobError, Digest, Finish, NewBlob};
        let (directory, cache) = (tempfile::tempdir().unwrap(), cache());
        cache.open_disk(&options(directory.path().to_owned()), &RecoveryProgress::default()).unwrap();
        let blobs = cache.blobs().unwrap();
        let put = |key: &str| {
            let writer = blobs.begin(NewBlob { key: key.into(), ..NewBlob::default() })?;
            let version = cache.engine.draw_version(cache.now()).unwrap();
            writer.finish(Digest::default(), Finish { version, ttl: Ttl::Never, now: cache.now() }, || Ok(()))
        };
        cache.charge_blobs();
        let before = cache.engine.memory();
        put("k").unwrap();
        cache.charge_blobs();
        let memory = cache.engine.memory();
        let more = memory.blob_bytes - before.blob_bytes;
        assert!(more > 0 && memory.bytes_used() == before.bytes_used() + more, "{memory:?}");
        blobs.set_key_bytes_max(0);
        assert!(matches!(put("other"), Err(BlobError::KeysFull { .. })));
        cache.charge_blobs();
        put("other").unwrap();
    }
}
