//! What operators do to a cache and ask of it: its namespaces, single keys, and what is on disk.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use super::{BlobError, Cache};
use crate::clock::Now;
use crate::engine::{Explanation, HotKeys, Memory, Namespace, NamespaceConfig, NamespaceError, PolicyName};
use crate::entry::Version;

use crate::persistence::blob::BlobStats;
pub use crate::persistence::blob::Verified;
use crate::persistence::disk::Compacted;
pub use crate::persistence::disk::Rehearsal;
pub use crate::persistence::journal::Stopped;
pub use crate::persistence::replay::Damage;
pub use crate::persistence::snapshot::{SnapshotError, SnapshotInfo};
pub use crate::persistence::{BackendError, RecoveryMethod};

/// What a data directory has, and how far its journal is.
#[derive(Debug, Clone)]
pub struct DiskState {
    /// What the catalogue lies in.
    pub backend: &'static str,
    /// The last position that is written.
    pub position: u64,
    /// The last position that is synced.
    pub synced_position: u64,
    /// Why no write is accepted any more.
    pub poisoned: Option<String>,
    /// The limit in bytes.
    pub limit_bytes: Option<u64>,
    /// The newest snapshot.
    pub newest_snapshot: Option<SnapshotInfo>,
    /// The blobs.
    pub blobs: BlobStats,
    /// Entries in the disk tier; 0: there is none.
    pub entries: u64,
    /// Entries of it that were found damaged.
    pub entries_damaged: u64,
}

impl Cache {
    /// The default namespace.
    #[must_use]
    pub fn default_namespace(&self) -> &Namespace {
        self.engine.default_namespace()
    }

    /// All namespaces, the default one first, the others by name.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Namespace> {
        self.engine.namespaces()
    }

    /// Creates a namespace.
    ///
    /// # Errors
    /// The name is taken or empty, or there are as many namespaces as may be.
    pub fn create_namespace(&self, config: &NamespaceConfig) -> Result<Namespace, NamespaceError> {
        self.engine.create_namespace(config)
    }

    /// Deletes a namespace with its entries; how many there were. Its blobs stay.
    ///
    /// # Errors
    /// There is none of the name, or it is the default one.
    pub fn delete_namespace(&self, name: &str) -> Result<u64, NamespaceError> {
        self.engine.delete_namespace(name, self.now())
    }

    /// Removes every entry of a namespace; how many there were, those not counted that were invalidated before.
    pub fn clear(&self, namespace: &Namespace) -> u64 {
        self.sweep(usize::MAX);
        self.engine.clear(namespace, self.now())
    }

    /// Exchanges a namespace's eviction policy; no entry is lost. The one before.
    pub fn set_policy(&self, namespace: &Namespace, policy: PolicyName) -> PolicyName {
        self.engine.set_policy(namespace, policy)
    }

    /// Sets how many namespaces there may be, the default one counted; those that are there stay.
    pub fn set_namespaces_max(&self, max: usize) {
        self.engine.set_namespaces_max(max);
    }

    /// How many invalidations there were, also in namespaces that are gone.
    #[must_use]
    pub fn invalidations(&self) -> u64 {
        self.engine.invalidations()
    }

    /// What is known of a key. Counts as no use of the entry.
    #[must_use]
    pub fn explain(&self, namespace: &Namespace, key: &[u8], now: Now) -> Explanation {
        self.engine.explain(namespace, key, now)
    }

    /// The keys that are asked for most, up to 100.
    #[must_use]
    pub fn hot_keys(&self) -> HotKeys {
        self.engine.hot_keys(self.now())
    }

    /// Where the bytes are.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.engine.memory()
    }

    /// A version for what is not an entry; `None`: all are used up.
    #[must_use]
    pub fn draw_version(&self, now: Now) -> Option<Version> {
        self.engine.draw_version(now)
    }

    /// Whether there is a data directory in use.
    #[must_use]
    pub fn is_on_disk(&self) -> bool {
        self.disk().is_some()
    }

    /// Whether changes are kept on disk as they come.
    #[must_use]
    pub fn keeps_journal(&self) -> bool {
        self.disk().is_some_and(|disk| disk.keeps_journal())
    }

    /// What the data directory has now; `None`: nothing is kept on disk.
    #[must_use]
    pub fn disk_state(&self) -> Option<DiskState> {
        let disk = self.disk()?;
        let progress = disk.journal().progress().borrow().clone();
        let tier = disk.tier_reader().map(|reader| reader.tier);
        Some(DiskState {
            backend: disk.backend().name(),
            position: progress.position,
            synced_position: progress.synced_position,
            poisoned: progress.poisoned.map(|why| why.to_string()),
            limit_bytes: disk.limit_bytes(),
            newest_snapshot: disk.snapshots().first().copied(),
            blobs: self.blobs().map(|blobs| blobs.stats()).unwrap_or_default(),
            entries: tier.map_or(0, |tier| tier.len()),
            entries_damaged: tier.map_or(0, |tier| tier.counters().damaged.load(Ordering::Relaxed)),
        })
    }

    /// Counts the bytes on disk. Blocks.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn count_disk_bytes(&self) -> Result<u64, BackendError> {
        self.disk().map_or(Ok(0), |disk| disk.backend().disk_bytes())
    }

    /// The snapshots that there are, the newest first; none where nothing is kept on disk.
    #[must_use]
    pub fn snapshots(&self) -> Vec<SnapshotInfo> {
        self.disk().map(|disk| disk.snapshots()).unwrap_or_default()
    }

    /// Takes a snapshot; `None`: nothing is kept on disk. Blocks.
    #[must_use]
    pub fn take_snapshot(&self) -> Option<Result<SnapshotInfo, SnapshotError>> {
        self.disk().map(|disk| disk.snapshot())
    }

    /// Takes a snapshot and deletes all that it makes superfluous; `None`: nothing is kept on disk. Blocks.
    #[must_use]
    pub fn compact_journal(&self) -> Option<Result<Compacted, SnapshotError>> {
        self.disk().map(|disk| disk.compact())
    }

    /// Rehearses a recovery of what is on disk now, by a method or the configured one, in memory of its own; `None`:
    /// nothing is kept on disk. Blocks.
    #[must_use]
    pub fn rehearse_recovery(
        &self,
        method: Option<RecoveryMethod>,
    ) -> Option<Result<Rehearsal, BackendError>> {
        self.disk().map(|disk| disk.rehearse(method.unwrap_or(disk.recovery())))
    }

    /// Reads all blobs, until `is_waiting` says that nobody waits for the answer any more. Blocks.
    ///
    /// # Errors
    /// The disk refuses. Damage is no error here.
    pub fn verify_blobs(&self, is_waiting: impl Fn() -> bool) -> Result<Verified, BlobError> {
        let Some(blobs) = self.blobs() else { return Ok(Verified::default()) };
        blobs.verify(self.now(), &mut |_| match is_waiting() {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        })
    }
}
