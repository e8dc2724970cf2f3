//! What a snapshot makes superfluous is deleted: older snapshots, and the journal up to it.

use super::Inner;
use super::opening::set_aside;
use crate::persistence::backend::{BackendError, FileId, FileKind};
use crate::persistence::directory_notes;
use crate::persistence::failpoint::Failpoint;
use crate::persistence::snapshot::SnapshotInfo;

impl Inner {
    /// Deletes the journal up to a position; with a store, up to where the newest snapshot was begun, as places lead to
    /// what came after that.
    pub(super) fn forget(&self, position: u64, newest: &SnapshotInfo) -> Result<(), BackendError> {
        let Some(tier) = self.tier() else {
            return self.journal.forget(position, &|file| self.clear(file));
        };
        self.journal.forget(position.min(newest.first_position), &|file| self.clear(file))?;
        // One that was broken off was kept for what had been copied to it; the catalogue may have it nevertheless, where that
        // was broken off too.
        let kept = self.snapshots.lock().clone();
        for (file, _) in self.backend.files()? {
            let is_kept = kept.iter().any(|snapshot| snapshot.number == file.number);
            if file.kind == FileKind::Snapshot && file.number < newest.number && !is_kept {
                directory_notes::forget(&*self.backend, file.number)?;
                self.clear(file)?;
            }
        }
        tier.close_deleted()
    }

    /// Deletes a file that is of no use any more; one that was found to be damaged is set aside.
    pub(super) fn clear(&self, file: FileId) -> Result<(), BackendError> {
        if self.damaged.contains(&file) || self.tier.as_ref().is_some_and(|tier| tier.is_damaged(file)) {
            return set_aside(&*self.backend, file);
        }
        self.backend.delete(file)
    }

    /// Deletes all snapshots but the newest `count`.
    pub(super) fn keep_snapshots(&self, count: usize) -> Result<(), BackendError> {
        let mut snapshots = self.snapshots.lock();
        while snapshots.len() > count
            && let Some(last) = snapshots.last()
        {
            directory_notes::forget(&*self.backend, last.number)?;
            Failpoint::SNAPSHOT_UNNOTED.reached();
            self.clear(FileId { kind: FileKind::Snapshot, number: last.number })?;
            Failpoint::SNAPSHOT_DELETED.reached();
            snapshots.pop();
        }
        Ok(())
    }
}
