//! What a node does with its data directory: recovery before it serves, word of a failing disk, the last flush.

use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tracing::{error, info, warn};

use super::context::NodeContext;
use super::parts::bytes;
use super::{RecoveryStatus, ShowRecovery};
use crate::cache::{BlobError, Cache, DiskError, DiskOptions};
use crate::config::{MemoryPlan, Persistence, ServeConfig};
use crate::persistence::disk::DiskConfig;
use crate::persistence::journal::{JournalConfig, RESERVE_BYTES, SEGMENT_BYTES};
use crate::persistence::recover::{RecoveryProgress, Report};
use crate::persistence::snapshot::SnapshotError;
use crate::persistence::{BackendError, LockError};
use crate::server::{PERSISTENCE, Recovering, SAME_SIGNAL_WITHIN, Signals, Stop};
use crate::telemetry::{DiskFigures, DiskTierFigures, JournalFigures};

/// How often a recovery shows how far it is, where somebody looks on.
const SHOWS_EVERY: Duration = Duration::from_millis(125);
/// How often it says so in the log, where nobody does.
const TELLS_EVERY: Duration = Duration::from_secs(1);

/// How the data directory is used; `None`: nothing is kept on disk.
pub(super) fn options(config: &ServeConfig) -> Option<DiskOptions> {
    let interval = config.disk.snapshot_interval;
    let plan = MemoryPlan::of(config.cache.memory.0);
    let (is_journaled, snapshot_interval) = match config.disk.persistence {
        Persistence::None => return None,
        Persistence::Journal => (true, None),
        Persistence::Snapshot => (false, Some(interval)),
        Persistence::JournalAndSnapshot => (true, Some(interval)),
        // A snapshot of a store goes through all that is on disk: only where it frees much of it.
        Persistence::Store => (true, None),
    };
    Some(DiskOptions {
        directory: config.disk.data_dir.clone(),
        backend: config.disk.backend,
        durability: config.disk.durability,
        disk: DiskConfig {
            journal: JournalConfig {
                flush_interval: config.disk.flush_interval,
                backlog_bytes: bytes(plan.journal_bytes),
                waiting_bytes: bytes(plan.waiting_bytes),
                segment_bytes: SEGMENT_BYTES,
                reserve_bytes: RESERVE_BYTES,
            },
            is_journaled,
            recovery: config.disk.recovery,
            snapshot_interval,
            limit_bytes: config.disk.disk_limit.map(|limit| limit.0),
            is_store: config.disk.persistence == Persistence::Store,
        },
    })
}

impl NodeContext {
    /// Recovers, and serves from disk what is there, from then on.
    pub(super) fn recover(self: &Arc<Self>, options: DiskOptions, show: Option<ShowRecovery>) -> Recovering {
        let context = Arc::clone(self);
        Box::pin(async move {
            if context.cache.disk().is_some() {
                return Ok(());
            }
            let directory = options.directory.clone();
            let progress = Arc::new(RecoveryProgress::default());
            let (cache, telling) = (Arc::clone(&context.cache), Arc::clone(&progress));
            let opening = tokio::task::spawn_blocking(move || cache.open_disk(&options, &progress));
            let opened = tell(&telling, show.as_ref(), opening).await;
            match opened {
                Ok(Ok(report)) => log(&context.cache, &report),
                Ok(Err(error)) => return Err(unusable(&directory, &error)),
                Err(error) => return Err(error.to_string()),
            }
            context.lifecycle.health().set(PERSISTENCE, true);
            let (watching, lifecycle) = (watch(Arc::downgrade(&context)), context.lifecycle.clone());
            tokio::spawn(async move {
                if AssertUnwindSafe(watching).catch_unwind().await.is_err() {
                    lifecycle.fail("the task that tells health of the disk");
                }
            });
            Ok(())
        })
    }
}

impl NodeContext {
    /// Puts what is left on the disk. That may be a whole snapshot, which another signal cuts short.
    pub(super) async fn close_disk(&self, stop: Stop, has_signals: bool) -> Stop {
        let cache = Arc::clone(&self.cache);
        let closing = tokio::task::spawn_blocking(move || match stop {
            Stop::Drained | Stop::Failed => cache.close_disk(),
            Stop::Unsaved | Stop::Forced => cache.close_disk_at_once(),
        });
        let another = async {
            tokio::time::sleep(SAME_SIGNAL_WITHIN).await;
            let signals = has_signals.then(|| Signals::catch(&Handle::current()));
            match signals {
                Some(Ok(mut signals)) => signals.next().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            closed = closing => {
                let why = match closed {
                    Ok(Ok(())) => return stop,
                    Ok(Err(why)) => why.to_string(),
                    Err(ended) if ended.is_panic() => "what was to put them there panicked".to_owned(),
                    // The runtime ends.
                    Err(_) => return stop,
                };
                error!("the last changes may not be on disk: {why}");
                if stop == Stop::Forced { stop } else { Stop::Unsaved }
            }
            name = another => {
                warn!("{name} again: exiting before the last changes are on disk");
                Stop::Forced
            }
        }
    }

    /// Figures of what is on disk.
    pub(super) fn disk(&self) -> Option<DiskFigures> {
        let disk = self.cache.disk()?;
        let newest = disk.snapshots().first().copied();
        let age_us = |taken: u64| self.cache.now().unix_us.saturating_sub(taken);
        Some(DiskFigures {
            bytes: disk.disk_bytes(),
            snapshots: disk.history().taken(),
            snapshots_failed: disk.history().failed(),
            snapshot_age: newest.map(|newest| Duration::from_micros(age_us(newest.time.unix_us))),
            damages: self.cache.disk_damages(),
        })
    }

    /// Figures of what lies below memory.
    pub(super) fn disk_tier(&self) -> Option<DiskTierFigures> {
        let tier = self.cache.disk()?.tier_reader()?.tier;
        let counters = tier.counters();
        Some(DiskTierFigures {
            entries: tier.len(),
            hits: counters.hits.load(Ordering::Relaxed),
            misses: counters.misses.load(Ordering::Relaxed),
            damaged: counters.damaged.load(Ordering::Relaxed),
        })
    }

    /// The journal's figures.
    pub(super) fn journal(&self) -> Option<JournalFigures> {
        let journal = self.cache.disk()?.journal();
        let (progress, counters) = (journal.progress(), journal.counters());
        let progress = progress.borrow();
        Some(JournalFigures {
            position: progress.position,
            synced_position: progress.synced_position,
            poisoned: progress.poisoned.is_some(),
            bytes: counters.bytes.load(Ordering::Relaxed),
            syncs: counters.syncs.load(Ordering::Relaxed),
            sync_time: Duration::from_micros(counters.sync_us.load(Ordering::Relaxed)),
            backlog_bytes: journal.backlog().budget().bytes() as u64,
        })
    }
}

/// Why the data directory cannot be used, and what to do about it where the disk refused.
fn unusable(directory: &Path, error: &DiskError) -> String {
    let refused = match error {
        DiskError::Lock(LockError::Io { source, .. }) => Some(source.kind()),
        DiskError::Backend(error)
        | DiskError::Snapshot(SnapshotError::Backend(error))
        | DiskError::Blobs(BlobError::DiskFull(error) | BlobError::Backend(error)) => match error {
            BackendError::Io { source, .. } => Some(source.kind()),
            error if error.is_full() => Some(io::ErrorKind::StorageFull),
            _ => None,
        },
        _ => None,
    };
    let Some(refused) = refused else { return error.to_string() };
    let place = std::path::absolute(directory);
    let place = place.as_deref().unwrap_or(directory).display();
    let what = match std::fs::symlink_metadata(directory) {
        Ok(found) if found.is_symlink() && !directory.exists() => {
            "it is a link to what is not there".to_owned()
        }
        Ok(_) if !directory.is_dir() => "it is no directory".to_owned(),
        _ => error.to_string(),
    };
    let first = match refused {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room on that disk, some MiB at least, "
        }
        io::ErrorKind::PermissionDenied => {
            "let the user that runs the node read and write it and all below it, "
        }
        _ => "",
    };
    format!(
        "the data directory {place} cannot be used: {what}; {first}name one that can be written with --data-dir, or keep \
         nothing on disk with --persistence none"
    )
}

/// Tells how far a recovery is until it has ended.
async fn tell<T>(
    progress: &RecoveryProgress,
    show: Option<&ShowRecovery>,
    recovery: impl Future<Output = T>,
) -> T {
    let mut recovery = std::pin::pin!(recovery);
    let every = if show.is_some() { SHOWS_EVERY } else { TELLS_EVERY };
    loop {
        if let Ok(recovered) = tokio::time::timeout(every, &mut recovery).await {
            if let Some(show) = show {
                show(None);
            }
            return recovered;
        }
        let applied = progress.applied.load(Ordering::Relaxed);
        let expected = progress.expected.load(Ordering::Relaxed);
        match show {
            Some(show) => {
                show(Some(RecoveryStatus { applied, expected: (expected > 0).then_some(expected) }))
            }
            None => info!(applied, expected, "recovering"),
        }
    }
}

fn log(cache: &Cache, report: &Report) {
    for damage in &report.damages {
        error!(
            place = %damage.place, offset = damage.offset, position = damage.position, lost = damage.lost,
            "damage on disk: {}", damage.description
        );
    }
    if report.torn_bytes > 0 {
        // A node that has lost the mark cannot know.
        let flushed = if report.damages.is_empty() { "; nothing in it was ever flushed" } else { "" };
        warn!(bytes = report.torn_bytes, "cut a torn tail off the journal{flushed}");
    }
    if report.refused > 0 {
        warn!(
            entries = report.refused,
            "not all that is on disk fits into memory, or its namespace is gone: it is not served, and a compaction or the \
             second snapshot from now does without it; --memory gives it room, and --persistence store serves it from disk"
        );
    }
    let memory = cache.bytes_limit();
    for namespace in cache.namespace_reports().iter().map(|report| &report.config) {
        if !namespace.name.is_empty() && namespace.bytes_limit > memory {
            warn!(
                namespace = namespace.name,
                cap = namespace.bytes_limit,
                memory,
                "a namespace's cap is above what all of memory is: --memory bounds it; raise that or lower the cap with \
                 larder admin namespaces update"
            );
        }
    }
    info!(
        method = %report.method,
        entries = cache.stats().entries,
        expired = report.expired,
        refused = report.refused,
        snapshot = report.snapshot.map(|snapshot| snapshot.name()),
        position = report.position,
        elapsed_ms = report.elapsed.as_millis() as u64,
        "recovered"
    );
}

/// Has health say so when the journal is poisoned, while the disk is nearly full, while a snapshot that was deleted has none
/// in its place, and while the last one failed where snapshots are all that is kept; and the node end where a thread of the
/// disk has.
async fn watch(context: Weak<NodeContext>) {
    let Some(at_first) = context.upgrade() else { return };
    let Some(disk) = at_first.cache.disk() else { return };
    let (mut poisoned, mut failing) = (disk.journal().poisoned(), disk.history().failing());
    let (mut short, mut lost) = (disk.short_of_room(), disk.history().lost());
    let mut lost_thread = disk.lost_thread();
    let keeps_journal = disk.keeps_journal();
    drop(at_first);
    loop {
        let is_poisoned = poisoned.borrow_and_update().is_some();
        let is_failing = failing.borrow_and_update().is_some() && !keeps_journal;
        let (is_short, is_lost) = (*short.borrow_and_update(), *lost.borrow_and_update());
        let Some(context) = context.upgrade() else { return };
        context.lifecycle.health().set(PERSISTENCE, !(is_poisoned || is_failing || is_short || is_lost));
        if let Some(thread) = *lost_thread.borrow_and_update() {
            return context.lifecycle.fail(&format!("the data directory's thread {thread:?}"));
        }
        drop(context);
        // Refused when the node is gone.
        let changed = tokio::select! {
            changed = poisoned.changed() => changed,
            changed = failing.changed() => changed,
            changed = short.changed() => changed,
            changed = lost.changed() => changed,
            changed = lost_thread.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_recovery_shows_how_far_it_is_and_that_it_has_ended() {
        let shown = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&shown);
        let show: ShowRecovery = Arc::new(move |at| seen.lock().push(at));
        let progress = RecoveryProgress::default();
        let recovery = async {
            tokio::time::sleep(SHOWS_EVERY + SHOWS_EVERY / 2).await;
            progress.expected.store(10, Ordering::Relaxed);
            progress.applied.store(7, Ordering::Relaxed);
            tokio::time::sleep(SHOWS_EVERY).await;
            "recovered"
        };
        assert_eq!(tell(&progress, Some(&show), recovery).await, "recovered");
        let at = |applied, expected| Some(RecoveryStatus { applied, expected });
        assert_eq!(*shown.lock(), [at(0, None), at(7, Some(10)), None]);

        shown.lock().clear();
        tell(&progress, Some(&show), std::future::ready(())).await;
        assert_eq!(*shown.lock(), [None], "one that is quick is not shown at all");
    }
}
