//! What is left to do of a lazy recovery when the node serves already.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use super::{Inner, Lookup, start};
use crate::clock::monotonic;
use crate::persistence::backend::{BackendError, FileId, FileKind};
use crate::persistence::lazy;
use crate::persistence::snapshot::{Below, SnapshotInfo};

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
        let indexed = snapshot.map_or(Ok(Ok(())), |snapshot| {
            let file = FileId { kind: FileKind::Snapshot, number: snapshot.number };
            let below = Below { tier, engine: &self.engine, file: tier.open(file)? };
            lazy::index(&*self.backend, snapshot.number, below, &is_stopped)
        });
        match indexed {
            Ok(Ok(())) => {}
            Ok(Err(damage)) => tracing::error!(
                place = %damage.place, offset = damage.offset,
                "damage on disk: {}; the entries behind it are lost", damage.description
            ),
            Err(error) => tracing::error!(%error, "not all entries on disk could be found"),
        }
        tier.end_indexing();
        self.engine.set_below_bytes(tier.bytes());
        if !is_stopped() && self.config.is_store {
            self.is_whole.store(true, Ordering::Release);
        }
        let elapsed_ms = begun.elapsed().as_millis() as u64;
        tracing::info!(entries = tier.len(), elapsed_ms, "found the entries on disk");
    }

    /// Brings to memory what it has room for. Where there is no store, that ends the tier.
    fn warm_up(&self) {
        let Some(tier) = &self.tier else { return };
        let is_stopped = || *self.stopping.lock();
        let lookup = Lookup { tier, journal: &self.journal };
        let brought = lazy::warm(&self.engine, &lookup, &*self.clock, &is_stopped);
        if !is_stopped() && !self.config.is_store {
            self.engine.stop_fetching();
            tier.end();
            self.engine.set_below_bytes(tier.bytes());
            self.is_whole.store(true, Ordering::Release);
        }
        tracing::info!(brought, "brought entries from disk to memory");
    }
}
