//! Snapshots that somebody deletes while the node runs: what is in memory is put into another at once.

use super::Inner;
use crate::persistence::backend::{BackendError, FileId, FileKind};
use crate::persistence::directory_notes;
use crate::persistence::snapshot::SnapshotError;

impl Inner {
    /// Looks whether all snapshots are there; whether one is to be taken in place of some that are not.
    ///
    /// # Errors
    /// It cannot be told.
    pub(super) fn look_for_lost(&self) -> Result<bool, BackendError> {
        // Held on to, so that none is deleted by us in between.
        let mut snapshots = self.snapshots.lock();
        let mut lost = self.lost.lock();
        for index in (0..snapshots.len()).rev() {
            let file = FileId { kind: FileKind::Snapshot, number: snapshots[index].number };
            if !self.backend.has(file)? {
                tracing::error!(%file, "a snapshot was deleted while in use: another is taken in its place");
                lost.push(snapshots.remove(index).number);
                self.history.set_lost(true);
            }
        }
        Ok(!lost.is_empty())
    }

    /// Takes a snapshot in place of those that are lost.
    pub(super) fn replace_lost(&self) -> Result<(), SnapshotError> {
        let taken = self.snapshot()?;
        tracing::info!(snapshot = %taken.name(), "took a snapshot in place of what was deleted");
        self.history.set_lost(false);
        let mut lost = self.lost.lock();
        while let Some(number) = lost.last().copied() {
            directory_notes::forget(&*self.backend, number)?;
            lost.pop();
        }
        Ok(())
    }
}
