//! A data directory in use: what is on it is recovered, every change is journaled, snapshots are taken in time, and
//! what they make superfluous is deleted.
//!
//! One thread looks after the snapshots. The last two are kept, and of the journal what is behind the older one, so that
//! a damaged snapshot is passed over without a loss. [`Disk::compact`] gives that up for room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::backend::{Backend, BackendError, FileId, FileKind};
use super::journal::{Journal, JournalConfig};
use super::recover::{Method, Recovered, Recovery, RecoveryProgress, Report};
use super::snapshot::{self, SnapshotError, SnapshotInfo};
use crate::clock::{Clock, monotonic};
use crate::engine::Engine;

/// How a data directory is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskConfig {
    /// How the journal is kept.
    pub journal: JournalConfig,
    /// How the content comes back.
    pub recovery: Method,
    /// A snapshot is taken so long after the one before, if anything has changed; `None`: only where the journal has
    /// grown long or somebody asks for one.
    pub snapshot_interval: Option<Duration>,
    /// What may be on disk; `None`: as much as fits.
    pub limit_bytes: Option<u64>,
}

/// The journal behind the last snapshot may grow to this, or to twice that snapshot, before another is taken.
const JOURNAL_BYTES_MIN: u64 = 256 << 20;
/// How often the thread looks whether there is something to do.
const LOOKS: Duration = Duration::from_secs(1);
/// Snapshots that are kept: should the newest be damaged, there is another.
const SNAPSHOTS_KEPT: usize = 2;
/// Above this part of the limit, in percent, room is made.
const LIMIT_PERCENT: u64 = 90;

/// A data directory in use.
#[derive(Debug)]
pub struct Disk {
    inner: Arc<Inner>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Inner {
    backend: Arc<dyn Backend>,
    engine: Arc<Engine>,
    clock: Arc<dyn Clock>,
    config: DiskConfig,
    journal: Journal,
    /// Held while a snapshot is taken, so that there is one at a time.
    taking: Mutex<()>,
    /// Newest first. Held for moments only: whoever asks for figures waits for it.
    snapshots: Mutex<Vec<SnapshotInfo>>,
    next_snapshot: AtomicU64,
    is_over_limit: AtomicBool,
    stopping: Mutex<bool>,
    stopped: Condvar,
}

/// What a compaction came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// The oldest position that the journal still has; 0: none.
    pub first_position: u64,
    /// Bytes that the disk has back.
    pub reclaimed_bytes: u64,
    /// Bytes on disk now.
    pub disk_bytes: u64,
}

/// What a rehearsal found.
#[derive(Debug, Clone)]
pub struct Rehearsal {
    /// As of the recovery itself.
    pub report: Report,
    /// Entries that would be served, as long as memory suffices.
    pub entries: u64,
    /// Their keys and values.
    pub entry_bytes: u64,
}

impl Disk {
    /// Recovers into an empty engine, clears away what is of no use any more, and journals from then on.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn open(
        backend: Arc<dyn Backend>,
        engine: Arc<Engine>,
        clock: Arc<dyn Clock>,
        config: DiskConfig,
        progress: &RecoveryProgress,
    ) -> Result<(Self, Report), BackendError> {
        let recovery = Recovery {
            backend: &*backend,
            engine: &engine,
            now: clock.now(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            progress,
        };
        let Recovered { report, mut end, snapshots, given_up } = recovery.run(config.recovery)?;
        if end.history == 0 || config.recovery == Method::Empty {
            end.history = rand::random::<u64>().max(1);
        }
        clear_away(&*backend, &report, &end.beyond, end.damage.is_some())?;
        let mut kept = Vec::new();
        let mut last = 0;
        for number in given_up {
            last = last.max(number);
            backend.delete(FileId { kind: FileKind::Snapshot, number })?;
        }
        for snapshot in snapshots {
            let (number, damage) = match snapshot {
                Ok(info) => (info.number, report.damages.iter().find(|damage| damage.place == info.name())),
                Err((number, _)) => (number, None),
            };
            last = last.max(number);
            let file = FileId { kind: FileKind::Snapshot, number };
            match (snapshot, damage) {
                (Ok(_), None) if config.recovery == Method::Empty => backend.delete(file)?,
                (Ok(info), None) => kept.push(info),
                // One that was being taken when the node went down is no loss.
                (Err((_, ref damage)), _) if damage.is_cut => backend.delete(file)?,
                _ => set_aside(&*backend, file)?,
            }
        }
        let journal = Journal::start(
            Arc::clone(&engine),
            Arc::clone(&backend),
            Arc::clone(&clock),
            &config.journal,
            &end,
        )?;
        let inner = Arc::new(Inner {
            backend,
            engine,
            clock,
            config,
            journal,
            taking: Mutex::default(),
            snapshots: Mutex::new(kept),
            next_snapshot: AtomicU64::new(last + 1),
            is_over_limit: AtomicBool::new(false),
            stopping: Mutex::new(false),
            stopped: Condvar::new(),
        });
        let disk = Self { thread: Mutex::new(Some(start_upkeep(&inner)?)), inner };
        if !report.damages.is_empty() && disk.snapshot().is_ok() {
            // What was saved is safe in a file of its own now; the damaged ones are kept for whoever looks into it.
            disk.set_damaged_aside(&report)?;
        }
        Ok((disk, report))
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    /// Where everything lies.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.inner.backend
    }

    /// Takes a snapshot now, after one that is being taken.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn snapshot(&self) -> Result<SnapshotInfo, SnapshotError> {
        self.inner.snapshot()
    }

    /// The snapshots that are there, newest first.
    #[must_use]
    pub fn snapshots(&self) -> Vec<SnapshotInfo> {
        self.inner.snapshots.lock().clone()
    }

    /// Takes a snapshot and deletes all that it makes superfluous: the snapshots before it and the journal up to it.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn compact(&self) -> Result<Compacted, SnapshotError> {
        let before = self.inner.backend.disk_bytes()?;
        self.inner.snapshot_alone()?;
        let disk_bytes = self.inner.backend.disk_bytes()?;
        let first_position = self.inner.journal.segments().first().map_or(0, |first| first.first_position);
        Ok(Compacted { first_position, reclaimed_bytes: before.saturating_sub(disk_bytes), disk_bytes })
    }

    /// Rehearses a recovery of what is on disk now, in memory of its own, and changes nothing.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn rehearse(&self, method: Method) -> Result<Rehearsal, BackendError> {
        let Inner { backend, engine, clock, .. } = &*self.inner;
        let bytes_limit = engine.default_namespace().config().bytes_limit;
        super::rehearse::rehearse(&**backend, bytes_limit, clock.now(), method)
    }

    /// What may be on disk; `None`: as much as fits.
    #[must_use]
    pub fn limit_bytes(&self) -> Option<u64> {
        self.inner.config.limit_bytes
    }

    /// How the content comes back at the next start.
    #[must_use]
    pub fn recovery(&self) -> Method {
        self.inner.config.recovery
    }

    /// Writes and syncs what is left, and accepts no change any more.
    ///
    /// # Errors
    /// The journal is poisoned.
    pub fn stop(&self) -> Result<u64, super::journal::Stopped> {
        *self.inner.stopping.lock() = true;
        self.inner.stopped.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
        self.inner.journal.stop()
    }

    fn set_damaged_aside(&self, report: &Report) -> Result<(), BackendError> {
        let files = self.inner.backend.files()?;
        let damaged = |file: &FileId| {
            let place = file.to_string();
            file.kind == FileKind::Journal && report.damages.iter().any(|damage| damage.place == place)
        };
        for (file, _) in files.into_iter().filter(|(file, _)| damaged(file)) {
            set_aside(&*self.inner.backend, file)?;
            self.inner.journal.let_go(file.number);
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// What a recovery left behind: after damage it is set aside, else it is of no use to anybody.
fn clear_away(
    backend: &dyn Backend,
    report: &Report,
    beyond: &[u64],
    is_damaged: bool,
) -> Result<(), BackendError> {
    for number in beyond {
        let file = FileId { kind: FileKind::Journal, number: *number };
        if is_damaged {
            set_aside(backend, file)?;
        } else {
            tracing::info!(%file, method = %report.method, "deleted a segment that the recovery gave up");
            backend.delete(file)?;
        }
    }
    Ok(())
}

fn set_aside(backend: &dyn Backend, file: FileId) -> Result<(), BackendError> {
    let place = backend.quarantine(file)?;
    tracing::warn!(%file, %place, "set a damaged file aside");
    Ok(())
}

fn start_upkeep(inner: &Arc<Inner>) -> Result<JoinHandle<()>, BackendError> {
    let inner = Arc::clone(inner);
    std::thread::Builder::new().name("snapshots".to_owned()).spawn(move || inner.upkeep()).map_err(|source| {
        BackendError::Io { action: "start the thread of", place: "the snapshots".to_owned(), source }
    })
}

impl Inner {
    fn upkeep(&self) {
        let mut last = monotonic();
        loop {
            let mut stopping = self.stopping.lock();
            if !*stopping {
                self.stopped.wait_for(&mut stopping, LOOKS);
            }
            if *stopping {
                return;
            }
            drop(stopping);
            match self.keep_up(last) {
                Ok(false) => {}
                Ok(true) => last = monotonic(),
                Err(error) => {
                    tracing::error!(%error, "no snapshot could be taken");
                    last = monotonic();
                }
            }
        }
    }

    /// Takes a snapshot if it is time for one; whether it did.
    fn keep_up(&self, last: Instant) -> Result<bool, SnapshotError> {
        let progress = self.journal.progress();
        let now = progress.borrow().clone();
        if now.poisoned.is_some() {
            return Ok(false);
        }
        let newest = self.snapshots.lock().first().copied();
        let has_changed = newest.is_none_or(|newest| newest.position < now.position) && now.position > 0;
        let is_due = self.config.snapshot_interval.is_some_and(|interval| last.elapsed() >= interval);
        let is_long = self.journal_is_long(newest)?;
        let disk_bytes = self.limited_bytes()?;
        let is_tight = self.is_over(disk_bytes, LIMIT_PERCENT);
        if !has_changed || !(is_due || is_long || is_tight) {
            self.look_at_limit(disk_bytes);
            return Ok(false);
        }
        let taken = if is_tight { self.snapshot_alone()? } else { self.snapshot()? };
        tracing::info!(
            snapshot = %taken.name(), position = taken.position, entries = taken.entries, bytes = taken.bytes,
            "took a snapshot"
        );
        self.look_at_limit(self.limited_bytes()?);
        Ok(true)
    }

    fn journal_is_long(&self, newest: Option<SnapshotInfo>) -> Result<bool, BackendError> {
        let behind = newest.map_or(0, |newest| newest.position);
        let segments = self.journal.segments();
        let covered = segments.partition_point(|segment| segment.first_position <= behind);
        let first = segments.get(covered.saturating_sub(1)).map_or(u64::MAX, |segment| segment.number);
        let bytes: u64 = self
            .backend
            .files()?
            .iter()
            .filter(|(file, _)| file.kind == FileKind::Journal && file.number >= first)
            .map(|(_, bytes)| bytes)
            .sum();
        Ok(bytes > JOURNAL_BYTES_MIN.max(2 * newest.map_or(0, |newest| newest.bytes)))
    }

    /// Bytes on disk, where there is a limit on them: counting them looks at every file.
    fn limited_bytes(&self) -> Result<Option<u64>, BackendError> {
        self.config.limit_bytes.map(|_| self.backend.disk_bytes()).transpose()
    }

    fn is_over(&self, disk_bytes: Option<u64>, percent: u64) -> bool {
        disk_bytes.zip(self.config.limit_bytes).is_some_and(|(bytes, limit)| bytes > limit / 100 * percent)
    }

    /// Refuses writes while the disk has no more room for them, and takes them again when it has.
    fn look_at_limit(&self, disk_bytes: Option<u64>) {
        let is_over = self.is_over(disk_bytes, 100);
        if self.is_over_limit.swap(is_over, Ordering::Relaxed) != is_over {
            self.engine.set_log_full(is_over);
            let limit_bytes = self.config.limit_bytes;
            if is_over {
                tracing::error!(limit_bytes, "the disk limit is reached: writes are refused");
            } else {
                tracing::info!(limit_bytes, "there is room on the disk again: writes are taken");
            }
        }
    }

    fn snapshot(&self) -> Result<SnapshotInfo, SnapshotError> {
        let taking = self.taking.lock();
        let number = self.next_snapshot.fetch_add(1, Ordering::Relaxed);
        let taken = snapshot::take(&self.engine, &self.journal, &*self.backend, &*self.clock, number)?;
        self.snapshots.lock().insert(0, taken);
        drop(taking);
        self.keep_snapshots(SNAPSHOTS_KEPT)?;
        let kept = self.snapshots.lock().clone();
        if let [_, oldest] = kept[..] {
            self.journal.forget(oldest.position)?;
        }
        Ok(taken)
    }

    /// Takes a snapshot that stands alone: those before it go, and the journal up to it.
    fn snapshot_alone(&self) -> Result<SnapshotInfo, SnapshotError> {
        self.journal.roll()?;
        let taken = self.snapshot()?;
        self.keep_snapshots(1)?;
        self.journal.forget(taken.position)?;
        Ok(taken)
    }

    /// Deletes all snapshots but the newest so many.
    fn keep_snapshots(&self, count: usize) -> Result<(), BackendError> {
        let mut snapshots = self.snapshots.lock();
        while snapshots.len() > count
            && let Some(last) = snapshots.last()
        {
            self.backend.delete(FileId { kind: FileKind::Snapshot, number: last.number })?;
            snapshots.pop();
        }
        Ok(())
    }
}
