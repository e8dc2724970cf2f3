//! What is left to do of a lazy recovery when the node serves already.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use super::{Inner, SHORTAGE_PAUSE, TierReader, start};
use crate::clock::monotonic;
use crate::persistence::backend::{BackendError, FileId, FileKind};
use crate::persistence::lazy;
use crate::persistence::replay::ReadError;
use crate::persistence::snapshot::{SnapshotError, SnapshotInfo, TierFile};
use crate::persistence::tier::DiskTier;

impl Inner {
    /// Starts the thread that finds what a lazy recovery has left on disk. Snapshots wait until it is done.
    pub(super) fn load_lazily(
        self: &Arc<Self>,
        snapshot: Option<SnapshotInfo>,
    ) -> Result<JoinHandle<()>, BackendError> {
        let begun = Arc::new(std::sync::Barrier::new(2));
        let waits = Arc::clone(&begun);
        let thread = start("lazy recovery", self, move |inner| {
            let taking = inner.taking.lock();
            waits.wait();
            inner.find_places(snapshot);
            // Of a store, all that is left to do can be done beside a snapshot.
            let taking = if inner.config.is_store { None } else { Some(taking) };
            inner.warm_up();
            drop(taking);
        })?;
        begun.wait();
        Ok(thread)
    }

    fn find_places(&self, snapshot: Option<SnapshotInfo>) {
        let Some(tier) = &self.tier else { return };
        let begun = monotonic();
        let is_stopped = || *self.stopping.lock();
        if let Some(snapshot) = snapshot
            && self.index(tier, &snapshot).is_err()
        {
            tier.set_damaged(FileId { kind: FileKind::Snapshot, number: snapshot.number });
            if let Err(error) = self.index_before_in_time(tier, &snapshot) {
                tracing::error!(%error, "the entries of the damaged part of the snapshot are lost");
            }
        }
        tier.end_indexing();
        self.engine.set_disk_tier_bytes(tier.bytes());
        if !is_stopped() && self.config.is_store {
            self.is_whole.store(true, Ordering::Release);
        }
        let elapsed_ms = begun.elapsed().as_millis() as u64;
        tracing::info!(entries = tier.len(), elapsed_ms, "found the entries on disk");
    }

    /// Finds what a snapshot has; what is wrong with it has been told.
    fn index(&self, tier: &DiskTier, snapshot: &SnapshotInfo) -> Result<(), ()> {
        let is_stopped = || *self.stopping.lock();
        let file = FileId { kind: FileKind::Snapshot, number: snapshot.number };
        let index = || {
            let tier_file = TierFile { tier, engine: &self.engine, file: tier.open(file)? };
            lazy::index(&*self.backend, snapshot.number, tier_file, &is_stopped)
        };
        let mut indexed = index();
        // A shortage says nothing of the file. What was found of it before is found again.
        while indexed.as_ref().is_err_and(ReadError::is_passing) && !is_stopped() {
            std::thread::sleep(SHORTAGE_PAUSE);
            indexed = index();
        }
        match indexed {
            Ok(()) => return Ok(()),
            Err(error) if error.is_passing() => return Ok(()),
            Err(ReadError::Damaged(damage)) => tracing::error!(
                place = %damage.place, offset = damage.offset,
                "damage on disk: {}; its entries are looked for in what is older", damage.description
            ),
            Err(ReadError::Backend(error)) => tracing::error!(
                %error, %file, "not all entries can be read; they are looked for in what is older"
            ),
        }
        Err(())
    }

    /// [`Self::index_before`], when a shortage that it meets has passed.
    fn index_before_in_time(&self, tier: &DiskTier, damaged: &SnapshotInfo) -> Result<(), SnapshotError> {
        loop {
            match self.index_before(tier, damaged) {
                Err(SnapshotError::Backend(error)) if error.is_passing() && !*self.stopping.lock() => {
                    std::thread::sleep(SHORTAGE_PAUSE);
                }
                other => return other,
            }
        }
    }

    /// Finds what a damaged snapshot should have had, by the one before it and the journal between them.
    fn index_before(&self, tier: &DiskTier, damaged: &SnapshotInfo) -> Result<(), SnapshotError> {
        let snapshots = self.snapshots.lock().clone();
        let older = snapshots.iter().find(|other| other.number < damaged.number);
        let older = older.ok_or(SnapshotError::NotWhole)?;
        let at = DiskTier::new(Arc::clone(&self.backend), self.engine.shard_count());
        let (backend, engine) = (&*self.backend, &self.engine);
        lazy::index_at(backend, damaged.position, older, &at, engine)?;
        let before = tier.len();
        tier.index_all(&at);
        let (entries, older) = (tier.len() - before, older.name());
        tracing::warn!(entries, %older, "found in an older snapshot and the journal what was damaged");
        Ok(())
    }

    /// Brings to memory what it has room for. Where there is no store, that ends the tier.
    fn warm_up(&self) {
        let Some(tier) = &self.tier else { return };
        let is_stopped = || *self.stopping.lock();
        let reader = TierReader { tier, journal: &self.journal };
        let brought = lazy::warm(&self.engine, &reader, &*self.clock, &is_stopped);
        if !is_stopped() && !self.config.is_store {
            self.engine.stop_fetching();
            tier.end();
            self.engine.set_disk_tier_bytes(tier.bytes());
            self.is_whole.store(true, Ordering::Release);
        }
        tracing::info!(brought, "brought entries from disk to memory");
    }
}
