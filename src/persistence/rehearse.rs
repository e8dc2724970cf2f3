//! Rehearsing a recovery: the same code over the same bytes, into an engine that is thrown away.
//!
//! Of each value only its length is kept, so that the rehearsal of a full node fits beside it.

use super::backend::{Backend, BackendError};
use super::disk::Rehearsal;
use super::recover::{Method, Recovery, RecoveryProgress, Report};
use crate::clock::Now;
use crate::engine::{Engine, EngineConfig, PolicyName, Record, Restorer, WalkPlace};

/// Recovers what is on disk into memory of its own, of which it takes no more than `bytes_limit`.
///
/// # Errors
/// The disk refuses.
pub(super) fn rehearse(
    backend: &dyn Backend,
    bytes_limit: u64,
    now: Now,
    method: Method,
) -> Result<Rehearsal, BackendError> {
    let config = EngineConfig { bytes_limit, policy: PolicyName::Fifo, ..EngineConfig::default() };
    let engine = Engine::new(&config, now);
    let progress = RecoveryProgress::default();
    let recovery = Recovery { backend, engine: &engine, now, threads: 1, progress: &progress, tier: None };
    // Entries that are read late are damaged as much as if they were read early.
    let thorough = if method == Method::Lazy { Method::SnapshotAndJournal } else { method };
    let report = Report { method, ..recovery.run_into(thorough, Restorer::of_lengths(&engine))?.report };
    let (mut entries, mut entry_bytes) = (0, 0);
    let mut place = WalkPlace::default();
    while engine.walk(&mut place, now, |record| {
        if let Record::Put(put) = record {
            entries += 1;
            let length = put.value.as_slice().first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
            entry_bytes += put.key.len() as u64 + length;
        }
    }) {}
    Ok(Rehearsal { report, entries, entry_bytes })
}
