//! What the catalogue says of a data directory beside its blobs.
//!
//! | key | there |
//! |---|---|
//! | `disk/unjournaled` | snapshots are all that is kept: what is left of a journal was written for one that was being taken |
//! | `disk/snapshots` | each snapshot that was finished is noted |
//! | `disk/snapshot/N` | so this one was, N in 16 hexadecimal digits |
//!
//! A snapshot is noted when it is synced, and its note goes before its file. So a file without a note that is not whole
//! was never finished, which loses nothing, and one with a note has lost something. A directory from before there were
//! notes, or whose catalogue was lost, has none: then whatever is not whole counts as damaged.
//!
//! Nor does one whose catalogue was lost say that it is unjournaled. What is left of a journal is read then; where changes
//! before it were not kept, its positions do not follow on those of any snapshot, so that it counts as damaged: nothing of it is
//! applied, and it is set aside.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::backend::{Backend, BackendError, CatalogueChange, FileId, FileKind};
use super::recover::Inspected;
use super::replay::Damage;

const UNJOURNALED: &[u8] = b"disk/unjournaled";
const NOTED: &[u8] = b"disk/snapshots";
const SNAPSHOT: &str = "disk/snapshot/";

/// Whether changes between snapshots are not kept in this directory.
///
/// # Errors
/// The catalogue cannot be read.
pub(super) fn is_unjournaled(backend: &dyn Backend) -> Result<bool, BackendError> {
    Ok(backend.get(UNJOURNALED)?.is_some())
}

/// Writes down whether changes between snapshots are kept from now on.
///
/// # Errors
/// The catalogue cannot be written.
pub(super) fn set_unjournaled(backend: &dyn Backend, is_unjournaled: bool) -> Result<(), BackendError> {
    let put = CatalogueChange::Put(UNJOURNALED, b"");
    let change = if is_unjournaled { put } else { CatalogueChange::Remove(UNJOURNALED) };
    backend.commit(&[change])
}

/// The snapshots that were finished.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finished(Option<BTreeSet<u64>>);

impl Finished {
    /// As the catalogue has them now: to be read before the files are listed, so that one that is finished meanwhile
    /// is not missed.
    ///
    /// # Errors
    /// The catalogue cannot be read.
    pub(super) fn read(backend: &dyn Backend) -> Result<Self, BackendError> {
        if backend.get(NOTED)?.is_none() {
            return Ok(Self(None));
        }
        let mut numbers = BTreeSet::new();
        backend.scan(SNAPSHOT.as_bytes(), None, &mut |key, _| {
            let digits = key.get(SNAPSHOT.len()..).and_then(|digits| std::str::from_utf8(digits).ok());
            numbers.extend(digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()));
            ControlFlow::Continue(())
        })?;
        Ok(Self(Some(numbers)))
    }

    /// Those that were finished and are not there.
    pub(super) fn missing(&self, snapshots: &[Inspected]) -> Vec<Damage> {
        let there: BTreeSet<u64> = snapshots.iter().map(number_of).collect();
        let gone = self.0.iter().flatten().filter(|number| !there.contains(number));
        gone.map(|number| {
            let place = FileId { kind: FileKind::Snapshot, number: *number }.to_string();
            let description = "it was finished, and is not there".to_owned();
            Damage { place, description, ..Damage::default() }
        })
        .collect()
    }

    /// Takes out those that were never finished, and gives their numbers.
    pub(super) fn take_unfinished(&self, snapshots: &mut Vec<Inspected>) -> Vec<u64> {
        let Some(finished) = &self.0 else { return Vec::new() };
        let is_unfinished =
            |found: &mut Inspected| matches!(found, Err((number, _)) if !finished.contains(number));
        snapshots
            .extract_if(.., is_unfinished)
            .filter_map(|found| found.err().map(|(number, _)| number))
            .collect()
    }
}

fn number_of(found: &Inspected) -> u64 {
    match found {
        Ok(info) => info.number,
        Err((number, _)) => *number,
    }
}

/// Notes these and no others.
///
/// # Errors
/// The catalogue cannot be read or written.
pub(super) fn note_only(
    backend: &dyn Backend,
    snapshots: impl Iterator<Item = u64>,
) -> Result<(), BackendError> {
    let (is, wanted) = (Finished::read(backend)?, snapshots.collect::<BTreeSet<u64>>());
    if is.0.as_ref() == Some(&wanted) {
        return Ok(());
    }
    let is = is.0.unwrap_or_default();
    let keys = |numbers: Vec<&u64>| numbers.into_iter().map(|number| key(*number)).collect::<Vec<_>>();
    let gone = keys(is.difference(&wanted).collect());
    let new = keys(wanted.difference(&is).collect());
    let mut changes = vec![CatalogueChange::Put(NOTED, b"")];
    changes.extend(gone.iter().map(|key| CatalogueChange::Remove(key.as_bytes())));
    changes.extend(new.iter().map(|key| CatalogueChange::Put(key.as_bytes(), b"")));
    backend.commit(&changes)
}

/// Notes one that is synced.
///
/// # Errors
/// The catalogue cannot be written; whether it is noted is not known then.
pub(super) fn note(backend: &dyn Backend, snapshot: u64) -> Result<(), BackendError> {
    backend.commit(&[CatalogueChange::Put(key(snapshot).as_bytes(), b"")])
}

/// Forgets one whose file is to be deleted.
///
/// # Errors
/// The catalogue cannot be written.
pub(super) fn forget(backend: &dyn Backend, snapshot: u64) -> Result<(), BackendError> {
    backend.commit(&[CatalogueChange::Remove(key(snapshot).as_bytes())])
}

fn key(snapshot: u64) -> String {
    format!("{SNAPSHOT}{snapshot:016x}")
}
