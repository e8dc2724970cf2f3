//! Where snapshots are all that is kept: the journal is idle but for the moments in which one is taken.

use super::Inner;
use crate::engine::{Engine, NamespaceConfig, Stats};
use crate::persistence::directory_notes;
use crate::persistence::recover::Report;
use crate::persistence::snapshot::{SnapshotError, SnapshotInfo};

/// What moves with every change that a snapshot would show.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Figures {
    stats: Stats,
    invalidations: u64,
    /// By their ids, which no two ever share.
    namespaces: Vec<(u64, NamespaceConfig)>,
}

impl Figures {
    fn of(engine: &Engine) -> Self {
        let Stats { sets, deletes, increments, touches, entries, .. } = engine.stats();
        let namespaces = engine.namespaces();
        Self {
            stats: Stats { sets, deletes, increments, touches, entries, ..Stats::default() },
            invalidations: engine.invalidations(),
            namespaces: namespaces.iter().map(|namespace| (namespace.id(), namespace.config())).collect(),
        }
    }
}

impl Inner {
    /// Takes a snapshot, with a journal while it is taken.
    pub(super) fn take_alone(&self) -> Result<SnapshotInfo, SnapshotError> {
        let figures = Figures::of(&self.engine);
        self.journal.keep(true)?;
        let taken = self.take();
        self.idle()?;
        if taken.is_ok() {
            *self.figures.lock() = figures;
        }
        taken
    }

    /// Keeps no changes, and forgets those that were kept.
    fn idle(&self) -> Result<(), SnapshotError> {
        self.journal.keep(false)?;
        Ok(self.journal.forget(u64::MAX - 1, &|file| self.backend.delete(file))?)
    }

    /// Sees to it that what is on disk and what the catalogue says of it agree with the mode.
    pub(super) fn begin_mode(&self, was_unjournaled: bool, report: &Report) -> Result<(), SnapshotError> {
        let is_unjournaled = !self.config.is_journaled;
        if is_unjournaled
            && !was_unjournaled
            && report.position > report.snapshot.map_or(0, |used| used.position)
        {
            // What the journal alone has is put into a snapshot before it counts no more.
            let taken = self.take()?;
            self.snapshots.lock().insert(0, taken);
        }
        if is_unjournaled != was_unjournaled {
            directory_notes::set_unjournaled(&*self.backend, is_unjournaled)?;
        }
        if is_unjournaled {
            self.idle()?;
            *self.figures.lock() = Figures::of(&self.engine);
        }
        Ok(())
    }

    /// Puts into a snapshot what no journal has.
    pub(super) fn last_snapshot(&self) -> Result<(), SnapshotError> {
        let is_needed = !self.config.is_journaled && *self.figures.lock() != Figures::of(&self.engine);
        if is_needed { self.snapshot().map(|_| ()) } else { Ok(()) }
    }

    pub(super) fn has_changed(&self, newest: Option<SnapshotInfo>, position: u64) -> bool {
        if self.config.is_journaled {
            return position > 0 && newest.is_none_or(|newest| newest.position < position);
        }
        *self.figures.lock() != Figures::of(&self.engine)
    }
}
