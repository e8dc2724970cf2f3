//! Taking snapshots: one at a time, which others may wait for, and how each went.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::MutexGuard;
use tokio::sync::watch;

use super::{Inner, SNAPSHOTS_KEPT};
use crate::persistence::backend::{BackendError, FileId, FileKind};
use crate::persistence::directory_notes;
use crate::persistence::failpoint::Failpoint;
use crate::persistence::journal::Stopped;
use crate::persistence::snapshot::{self, SnapshotError, SnapshotInfo};
use crate::persistence::tier::DiskTier;

/// How snapshots went since the start.
#[derive(Debug, Default)]
pub struct SnapshotHistory {
    taken: AtomicU64,
    failed: AtomicU64,
    failing: watch::Sender<Option<Arc<str>>>,
    lost: watch::Sender<bool>,
}

impl SnapshotHistory {
    /// Snapshots that were taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// Those that the disk refused, or that would have taken the journal's room.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Why the last one failed, for those who wait for it; `None`: it did not.
    #[must_use]
    pub fn failing(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.failing.subscribe()
    }

    /// Whether one was deleted behind our back and there is none in its place yet, for those who wait for it.
    #[must_use]
    pub fn lost(&self) -> watch::Receiver<bool> {
        self.lost.subscribe()
    }

    pub(super) fn set_lost(&self, is_lost: bool) {
        self.lost.send_if_modified(|before| std::mem::replace(before, is_lost) != is_lost);
    }

    fn note(&self, taken: &Result<SnapshotInfo, SnapshotError>) {
        match taken {
            Ok(_) => {
                self.taken.fetch_add(1, Ordering::Release);
                self.failing.send_if_modified(|failing| failing.take().is_some());
            }
            // The node stops.
            Err(SnapshotError::Stopped(Stopped::Ended)) => {}
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.failing.send_replace(Some(error.to_string().into()));
            }
        }
    }
}

/// Whether what is before a snapshot is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OlderSnapshots {
    Kept,
    Removed,
}

impl Inner {
    /// Takes a snapshot, or where one is being taken waits for that, which is the answer then.
    pub(super) fn snapshot_or_join(&self) -> Result<SnapshotInfo, SnapshotError> {
        let before = self.history.taken();
        if let Some(turn) = self.taking.try_lock() {
            return self.snapshot_in(turn, OlderSnapshots::Kept);
        }
        let turn = self.taking.lock();
        let newest = self.snapshots.lock().first().copied();
        match newest {
            Some(newest) if self.history.taken() != before => Ok(newest),
            // It failed, or there was none: a lazy recovery holds snapshots up.
            _ => self.snapshot_in(turn, OlderSnapshots::Kept),
        }
    }

    /// Takes a snapshot, after one that is being taken.
    pub(super) fn snapshot(&self) -> Result<SnapshotInfo, SnapshotError> {
        self.snapshot_in(self.taking.lock(), OlderSnapshots::Kept)
    }

    /// Takes a snapshot that stands alone: those before it go, and the journal up to it.
    pub(super) fn snapshot_alone(&self) -> Result<SnapshotInfo, SnapshotError> {
        let taken = self.snapshot_in(self.taking.lock(), OlderSnapshots::Removed)?;
        Failpoint::COMPACTION_TAKEN.reached();
        self.keep_snapshots(1)?;
        self.forget(taken.position, &taken)?;
        Ok(taken)
    }

    fn snapshot_in(
        &self,
        turn: MutexGuard<'_, ()>,
        older: OlderSnapshots,
    ) -> Result<SnapshotInfo, SnapshotError> {
        if !self.is_whole.load(Ordering::Acquire) {
            return Err(SnapshotError::NotWhole);
        }
        let taken = self.begun(older);
        self.history.note(&taken);
        // It has taken room meanwhile, or has given back what it took.
        let _ = self.look_at_limit();
        let taken = taken?;
        self.snapshots.lock().insert(0, taken);
        drop(turn);
        self.keep_snapshots(SNAPSHOTS_KEPT)?;
        let kept = self.snapshots.lock().clone();
        if let [_, oldest] = kept[..] {
            self.forget(oldest.position, &taken)?;
        }
        Ok(taken)
    }

    /// Takes one if there may be room for it; one that is to stand alone begins in a segment of its own.
    fn begun(&self, older: OlderSnapshots) -> Result<SnapshotInfo, SnapshotError> {
        self.begin_snapshot()?;
        if older == OlderSnapshots::Removed {
            self.journal.roll()?;
            Failpoint::COMPACTION_ROLLED.reached();
        }
        if self.config.is_journaled { self.take() } else { self.take_alone() }
    }

    pub(super) fn take(&self) -> Result<SnapshotInfo, SnapshotError> {
        self.clear_doubtful()?;
        let number = self.next_snapshot.fetch_add(1, Ordering::Relaxed);
        let tier = self.tier();
        // Those that the snapshot before made superfluous, if it could not: they would be looked for.
        tier.map_or(Ok(()), DiskTier::close_deleted)?;
        let taken = snapshot::take(&self.engine, &self.journal, &self.room, &*self.clock, number, tier)?;
        Failpoint::SNAPSHOT_SYNCED.reached();
        directory_notes::note(&*self.backend, number).inspect_err(|_| {
            if tier.is_none() {
                self.doubtful.lock().push(number);
                // What the error was about matters more than that it stays for now.
                let _ = self.clear_doubtful();
            }
        })?;
        Failpoint::SNAPSHOT_NOTED.reached();
        Ok(taken)
    }

    /// Does away with the snapshots of which it is not known whether they are noted: the note first, as one without its file
    /// is damage to the next start.
    fn clear_doubtful(&self) -> Result<(), BackendError> {
        let mut doubtful = self.doubtful.lock();
        while let Some(number) = doubtful.last().copied() {
            directory_notes::forget(&*self.backend, number)?;
            self.backend.delete(FileId { kind: FileKind::Snapshot, number })?;
            doubtful.pop();
        }
        Ok(())
    }
}
