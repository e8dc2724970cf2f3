//! Rehearsing a recovery: the same code over the same bytes, into an engine that is thrown away.
//!
//! Of each value only its length is kept, so that the rehearsal of a full node fits beside it.
//!
//! The node goes on meanwhile, and a snapshot or a compaction may delete what was listed and not read yet. A recovery
//! never meets that, so what looks like damage then is none: it is looked at again.

use std::collections::BTreeSet;

use super::backend::{Backend, BackendError, FileId};
use super::disk::Rehearsal;
use super::recover::{Recovery, RecoveryMethod, RecoveryProgress, Report};
use crate::clock::Now;
use crate::engine::{Engine, EngineConfig, PolicyName, Record, Restorer, WalkCursor};

/// How often it is looked at while files go. Each look ends where it meets the first that is gone, and the next begins
/// with what made that one superfluous, so that one more is enough unless snapshots are taken as fast as they are read.
pub(super) const LOOKS_MAX: usize = 8;

/// Recovers what is on disk into memory of its own, of which it takes no more than `bytes_limit`.
///
/// # Errors
/// The disk refuses, or files went faster than they could be read.
pub(super) fn rehearse(
    backend: &dyn Backend,
    bytes_limit: u64,
    now: Now,
    method: RecoveryMethod,
) -> Result<Rehearsal, BackendError> {
    let mut looks = 0;
    loop {
        looks += 1;
        let before = files(backend)?;
        let found = look(backend, bytes_limit, now, method);
        let is_settled = match &found {
            Ok(found) => found.report.damages.is_empty() || before.is_subset(&files(backend)?),
            Err(error) => !error.is_not_found(),
        };
        if is_settled || looks == LOOKS_MAX {
            return found;
        }
        tracing::debug!(looks, "files went while a recovery was rehearsed: looking again");
    }
}

fn files(backend: &dyn Backend) -> Result<BTreeSet<FileId>, BackendError> {
    Ok(backend.files()?.into_iter().map(|(file, _)| file).collect())
}

fn look(
    backend: &dyn Backend,
    bytes_limit: u64,
    now: Now,
    method: RecoveryMethod,
) -> Result<Rehearsal, BackendError> {
    let config = EngineConfig { bytes_limit, policy: PolicyName::Fifo, ..EngineConfig::default() };
    let engine = Engine::new(&config, now);
    let progress = RecoveryProgress::default();
    let recovery = Recovery { backend, engine: &engine, now, threads: 1, progress: &progress, tier: None };
    // Entries that are read late are damaged as much as if they were read early.
    let thorough = if method == RecoveryMethod::Lazy { RecoveryMethod::SnapshotAndJournal } else { method };
    let report = Report { method, ..recovery.run_into(thorough, Restorer::of_lengths(&engine))?.report };
    let (mut entries, mut entry_bytes) = (0, 0);
    let mut cursor = WalkCursor::default();
    while engine.walk(&mut cursor, now, |record| {
        if let Record::Put(put) = record {
            entries += 1;
            let length = put.value.as_slice().first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
            entry_bytes += put.key.len() as u64 + length;
        }
    }) {}
    Ok(Rehearsal { report, entries, entry_bytes })
}
