//! Which history a data directory is of, and whether its mark can be believed.
//!
//! A history is drawn when a directory is made, and when what is in it is given up; the mark, every segment and every
//! snapshot say theirs. A mark that is gone, or is not as it was written, is told: whether the end of the journal was
//! synced cannot be known without it. So is one of a history of which nothing is there, as another directory's is that
//! was copied here. Either way the files say which history goes on.

use super::backend::{Backend, BackendError, FileId, FileKind};
use super::mark::Mark;
use super::recover::Inspected;
use super::replay::{Damage, is_begun, said_by};

/// What a directory says of itself.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// The mark, if it can be believed.
    pub mark: Option<Mark>,
    /// The history that goes on; 0: of nothing.
    pub history: u64,
    /// What is wrong with the mark.
    pub damage: Option<Damage>,
}

impl Standing {
    /// By the mark as it was read, and by what the files say.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn of(
        backend: &dyn Backend,
        mark: Option<Mark>,
        snapshots: &[Inspected],
    ) -> Result<Self, BackendError> {
        let mut histories: Vec<u64> = snapshots.iter().rev().flatten().map(|info| info.history).collect();
        let files = backend.files()?.into_iter().map(|(file, _)| file);
        let segments: Vec<FileId> = files.filter(|file| file.kind == FileKind::Journal).collect();
        for file in &segments {
            histories.extend(said_by(backend, *file)?.map(|said| said.history));
        }
        // Segments begin where a history does, and go on for longer than any snapshot.
        let history = histories.last().copied().unwrap_or(0);
        Ok(match mark {
            Some(mark) if histories.is_empty() || histories.contains(&mark.history) => {
                Self { mark: Some(mark), history: mark.history, damage: None }
            }
            Some(mark) => Self::without(
                history,
                &format!("it is of history {:016x}, of which nothing is here", mark.history),
            ),
            None if is_used(backend, snapshots, &segments)? => {
                Self::without(history, "it is missing, or not as it was written")
            }
            None => Self::default(),
        })
    }

    fn without(history: u64, why: &str) -> Self {
        let description = format!(
            "{why}: whether the end of the journal was synced cannot be told; history {history:016x} goes on"
        );
        let place = "mark".to_owned();
        Self { mark: None, history, damage: Some(Damage { place, description, ..Damage::default() }) }
    }
}

/// Whether there is anything that is not there before there is a mark.
fn is_used(
    backend: &dyn Backend,
    snapshots: &[Inspected],
    segments: &[FileId],
) -> Result<bool, BackendError> {
    let mut is_used = !snapshots.is_empty();
    for file in segments {
        is_used = is_used || is_begun(backend, *file)?;
    }
    Ok(is_used)
}
