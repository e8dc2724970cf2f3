//! What a start does with the files that it has recovered from.

use crate::persistence::backend::{Backend, BackendError, FileId, FileKind};
use crate::persistence::directory_notes;
use crate::persistence::recover::{Recovered, RecoveryMethod, Report};
use crate::persistence::replay::{ReplayFrom, replay};
use crate::persistence::snapshot::{SnapshotError, SnapshotInfo};

/// Whether what a recovery would give up was asked to be given up: nothing on disk is changed where it was not.
pub(super) fn check_given_up(
    backend: &dyn Backend,
    recovered: &Recovered,
    is_unjournaled: bool,
) -> Result<(), SnapshotError> {
    let Recovered { report, snapshots, .. } = recovered;
    if report.method == RecoveryMethod::Empty {
        return Ok(());
    }
    let unread = snapshots.iter().filter_map(|found| found.as_ref().err().map(|(_, damage)| damage));
    if let Some(newer) = report.damages.iter().chain(unread).find(|damage| damage.is_newer) {
        return Err(SnapshotError::Newer(newer.clone()));
    }
    if report.method == RecoveryMethod::Snapshot && !is_unjournaled && report.snapshot.is_none() {
        let end = replay(backend, None, ReplayFrom::First, &mut |_, _, _| Ok(()))?;
        if end.first_position > 0 {
            return Err(SnapshotError::NoSnapshot { first: end.first_position, last: end.position });
        }
    }
    Ok(())
}

/// The journal's files that are there and not as they were written.
pub(super) fn damaged_segments(backend: &dyn Backend, report: &Report) -> Result<Vec<FileId>, BackendError> {
    let mut files: Vec<FileId> = backend.files()?.into_iter().map(|(file, _)| file).collect();
    files.retain(|file| {
        let place = file.to_string();
        file.kind == FileKind::Journal && report.damages.iter().any(|damage| damage.place == place)
    });
    Ok(files)
}

/// What a recovery left behind: after damage it is set aside, else it is of no use to anybody.
pub(super) fn clear_away(
    backend: &dyn Backend,
    recovered: &Recovered,
    is_unjournaled: bool,
) -> Result<(), BackendError> {
    let Recovered { report, end, .. } = recovered;
    for number in &end.beyond {
        let file = FileId { kind: FileKind::Journal, number: *number };
        if end.damage.is_some() || !report.damages.is_empty() && !is_unjournaled {
            set_aside(backend, file)?;
        } else {
            // That of a snapshot is left at every start, and nobody counted on it.
            if !is_unjournaled {
                tracing::info!(%file, method = %report.method, "deleted a segment that the recovery gave up");
            }
            backend.delete(file)?;
        }
    }
    Ok(())
}

/// Deletes the snapshots that are of no use and sets aside those that are damaged; the others, newest first, and the
/// highest number that any has.
pub(super) fn sort_snapshots(
    backend: &dyn Backend,
    recovered: &mut Recovered,
) -> Result<(Vec<SnapshotInfo>, u64), BackendError> {
    let Recovered { report, snapshots, unfinished, given_up, .. } = recovered;
    let file = |number| FileId { kind: FileKind::Snapshot, number };
    let mut last = given_up.iter().chain(&*unfinished).max().copied().unwrap_or(0);
    for number in given_up.drain(..) {
        let place = backend.quarantine(file(number))?;
        tracing::warn!(snapshot = %file(number), %place, "set aside a snapshot of another lineage than the directory's");
    }
    for number in unfinished.drain(..) {
        tracing::info!(snapshot = %file(number), "deleted a snapshot that was never finished");
        backend.delete(file(number))?;
    }
    let mut kept = Vec::new();
    for snapshot in snapshots.drain(..) {
        let (number, is_damaged) = match &snapshot {
            Ok(info) => (info.number, report.damages.iter().any(|damage| damage.place == info.name())),
            Err((number, _)) => (*number, true),
        };
        last = last.max(number);
        match snapshot {
            Ok(info) if !is_damaged && report.method != RecoveryMethod::Empty => kept.push(info),
            _ if is_damaged => set_aside(backend, file(number))?,
            _ => backend.delete(file(number))?,
        }
    }
    directory_notes::note_only(backend, kept.iter().map(|info| info.number))?;
    Ok((kept, last))
}

pub(super) fn set_aside(backend: &dyn Backend, file: FileId) -> Result<(), BackendError> {
    let place = backend.quarantine(file)?;
    tracing::warn!(%file, %place, "set a damaged file aside");
    Ok(())
}
