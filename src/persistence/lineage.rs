//! Which lineage a data directory is of, and whether its mark can be believed.
//!
//! A lineage is drawn when a directory is made, and when its content is given up; the mark, every segment and every
//! snapshot name theirs. A missing or damaged mark is reported, as it alone says whether the end of the journal was
//! synced. So is a mark of a lineage that no file here belongs to, as when another directory's was copied here. In each
//! case the files say which lineage goes on.

use super::backend::{Backend, BackendError, FileId, FileKind};
use super::mark::JournalMark;
use super::recover::Inspected;
use super::replay::{Damage, is_begun, read_segment_body};

/// What a directory says of itself.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    /// The mark, if it can be believed.
    pub mark: Option<JournalMark>,
    /// The lineage that goes on; 0: of nothing.
    pub lineage: u64,
    /// What is wrong with the mark.
    pub damage: Option<Damage>,
}

impl Lineage {
    /// By the mark as it was read, and by what the files say.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn of(
        backend: &dyn Backend,
        mark: Option<JournalMark>,
        snapshots: &[Inspected],
    ) -> Result<Self, BackendError> {
        let mut lineages: Vec<u64> = snapshots.iter().rev().flatten().map(|info| info.lineage).collect();
        let files = backend.files()?.into_iter().map(|(file, _)| file);
        let segments: Vec<FileId> = files.filter(|file| file.kind == FileKind::Journal).collect();
        for file in &segments {
            lineages.extend(read_segment_body(backend, *file)?.map(|said| said.lineage));
        }
        // Segments begin where a lineage does, and go on for longer than any snapshot.
        let lineage = lineages.last().copied().unwrap_or(0);
        Ok(match mark {
            Some(mark) if lineages.is_empty() || lineages.contains(&mark.lineage) => {
                Self { mark: Some(mark), lineage: mark.lineage, damage: None }
            }
            Some(mark) => Self::without(
                lineage,
                &format!("it is of lineage {:016x}, of which nothing is here", mark.lineage),
            ),
            None if is_used(backend, snapshots, &segments)? => {
                Self::without(lineage, "it is missing, or not as it was written")
            }
            None => Self::default(),
        })
    }

    fn without(lineage: u64, why: &str) -> Self {
        let description = format!(
            "{why}: whether the end of the journal was synced cannot be told; lineage {lineage:016x} goes on"
        );
        let place = "mark".to_owned();
        Self { mark: None, lineage, damage: Some(Damage { place, description, ..Damage::default() }) }
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
