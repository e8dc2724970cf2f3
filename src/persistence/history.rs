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
        // What a directory has from the first moment that there is a mark.
        let mut is_used = !snapshots.is_empty();
        for file in &segments {
            is_used = is_used || is_begun(backend, *file)?;
        }
        // Segments begin where a history does, and go on for longer than any snapshot.
        let history = histories.last().copied().unwrap_or(0);
        Ok(match mark {
            Some(mark) if histories.is_empty() || histories.contains(&mark.history) => {
                Self { mark: Some(mark), history: mark.history, damage: None }
            }
            None if !is_used => Self::default(),
            Some(mark) => Self::without(
                history,
                &format!("it is of history {:016x}, of which nothing is here", mark.history),
            ),
            None => Self::without(history, "it is missing, or not as it was written"),
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
