//! A data directory in use: what is on it is recovered, every change is journaled, snapshots are taken in time, and
//! what they make superfluous is deleted.
//!
//! With a *store*, every entry is on disk and memory is a cache over it: there is a [`DiskTier`] below memory for as long
//! as the node lives. After a lazy recovery there is one until everything is in memory.
//!
//! One thread looks after the snapshots. The last two are kept, and of the journal what is behind the older one, so that
//! a damaged snapshot is passed over without a loss. [`Disk::compact`] gives that up for room.
//!
//! Where snapshots are all that is kept, the journal is idle between them: it runs while one is taken, which carries
//! what it has, and is forgotten then. The catalogue says so (`ledger`), as what a crash leaves of such a journal
//! rests on changes that nobody kept: no recovery may read it.

mod background_recovery;
mod clearing;
mod limit;
mod lost;
mod opening;
mod stopping;
mod taking;
mod tier_reader;
mod unjournaled;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::backend::{Backend, BackendError, FileId};
use super::directory_notes;
use super::disk_budget::DiskBudget;
use super::failpoint::Failpoint;
use super::journal::{Journal, JournalConfig};
use super::recover::{Recovered, Recovery, RecoveryMethod, RecoveryProgress, Report};
use super::snapshot::{SnapshotError, SnapshotInfo};
use super::tier::DiskTier;
use crate::clock::{Clock, monotonic};
use crate::engine::Engine;
use limit::DiskPressure;
use opening::{clear_away, set_aside, sort_snapshots};
pub use taking::SnapshotHistory;
pub use tier_reader::{DiskReader, TierReadError, TierReader};
use unjournaled::Figures;

/// How a data directory is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskConfig {
    /// How the journal is kept.
    pub journal: JournalConfig,
    /// Changes between snapshots are kept.
    pub is_journaled: bool,
    /// How the content comes back.
    pub recovery: RecoveryMethod,
    /// How long after one snapshot the next is taken, if anything has changed; `None`: only where the journal has grown
    /// long or somebody asks for one.
    pub snapshot_interval: Option<Duration>,
    /// What may be on disk; `None`: as much as fits.
    pub limit_bytes: Option<u64>,
    /// Entries that memory has no room for are read from the disk.
    pub is_store: bool,
}

/// The journal behind the last snapshot may grow to this, or to twice that snapshot, before another is taken.
const JOURNAL_BYTES_MIN: u64 = 256 << 20;
/// How often the thread looks whether there is something to do.
const LOOKS: Duration = Duration::from_secs(1);
/// How long after a snapshot that failed the journal's length or the limit calls for another.
const RETRIES: Duration = Duration::from_secs(10);
/// How long a shortage is waited out at a time.
pub(super) const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// Snapshots that are kept: should the newest be damaged, there is another.
const SNAPSHOTS_KEPT: usize = 2;

/// A data directory in use.
#[derive(Debug)]
pub struct Disk {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Inner {
    backend: Arc<dyn Backend>,
    room: Arc<DiskBudget>,
    engine: Arc<Engine>,
    clock: Arc<dyn Clock>,
    config: DiskConfig,
    journal: Journal,
    /// Held while a snapshot is taken, so that there is one at a time.
    taking: Mutex<()>,
    history: SnapshotHistory,
    /// Newest first. Locked for moments only, as reading the node's figures waits for it.
    snapshots: Mutex<Vec<SnapshotInfo>>,
    /// The numbers of those that somebody deleted, until there is one in their place.
    lost: Mutex<Vec<u64>>,
    /// The numbers of those that are whole and could not be noted: whether they are is not known.
    doubtful: Mutex<Vec<u64>>,
    next_snapshot: AtomicU64,
    /// As of the last snapshot, where it alone can tell whether anything has changed since.
    figures: Mutex<Figures>,
    /// Files of the journal that the recovery found damaged: they are set aside, not deleted.
    damaged: Vec<FileId>,
    stopping: Mutex<bool>,
    /// The name of a thread that panicked.
    lost_thread: watch::Sender<Option<&'static str>>,
    tier: Option<Arc<DiskTier>>,
    /// All of the content is in memory or has a place below it: a snapshot would be whole.
    is_whole: AtomicBool,
}

/// The last time that a snapshot was taken, or was to be.
#[derive(Debug, Clone, Copy)]
struct Last {
    at: Instant,
    has_failed: bool,
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

impl DiskConfig {
    /// How the content comes back of a directory whose journal counts, or does not.
    fn method(&self, is_unjournaled: bool) -> RecoveryMethod {
        match self.recovery {
            recovery if is_unjournaled => recovery.of_snapshots(),
            // Recovery in the background uses the journal to tell what changed since.
            RecoveryMethod::Lazy if !self.is_journaled => RecoveryMethod::SnapshotAndJournal,
            recovery => recovery,
        }
    }
}

impl Disk {
    /// Recovers into an empty engine, clears away what is of no use any more, and journals from then on.
    ///
    /// # Errors
    /// The disk refuses, or the wall clock shows a time that versions cannot follow it to.
    #[cfg(any(test, feature = "testing"))]
    pub fn open(
        backend: Arc<dyn Backend>,
        engine: Arc<Engine>,
        clock: Arc<dyn Clock>,
        config: DiskConfig,
        progress: &RecoveryProgress,
    ) -> Result<(Self, Report), SnapshotError> {
        crate::entry::Version::clock_at(clock.now().unix_us)?;
        super::time::resume_clock(&*backend, &*clock)?;
        let room = Arc::new(DiskBudget::new(backend, config.limit_bytes));
        Self::open_in(room, engine, clock, config, progress)
    }

    /// [`Self::open`] in room that is shared with others, and whose limit is the one that counts. The clock's steady time
    /// has gone on from what is on the disk ([`super::time::go_on`]).
    ///
    /// # Errors
    /// As there.
    pub fn open_in(
        room: Arc<DiskBudget>,
        engine: Arc<Engine>,
        clock: Arc<dyn Clock>,
        config: DiskConfig,
        progress: &RecoveryProgress,
    ) -> Result<(Self, Report), SnapshotError> {
        let backend = Arc::clone(room.backend());
        let is_unjournaled = directory_notes::is_unjournaled(&*backend)?;
        let method = config.method(is_unjournaled);
        let is_lazy = method == RecoveryMethod::Lazy;
        let tier = (config.is_store || is_lazy)
            .then(|| Arc::new(DiskTier::new(Arc::clone(&backend), engine.shard_count())));
        if let (true, Some(tier)) = (is_lazy, &tier) {
            tier.begin_indexing();
        }
        let recovery = Recovery {
            backend: &*backend,
            engine: &engine,
            now: clock.now(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            progress,
            tier: tier.as_deref(),
        };
        let mut recovered = recovery.run(method)?;
        opening::check_given_up(&*backend, &recovered, is_unjournaled)?;
        Failpoint::RECOVERY_APPLIED.reached();
        clear_away(&*backend, &recovered, is_unjournaled)?;
        Failpoint::RECOVERY_CLEARED.reached();
        let (kept, last) = sort_snapshots(&*backend, &mut recovered)?;
        Failpoint::RECOVERY_SORTED.reached();
        let Recovered { report, mut end, .. } = recovered;
        if end.lineage == 0 || method == RecoveryMethod::Empty {
            end.lineage = rand::random::<u64>().max(1);
        }
        let damaged = opening::damaged_segments(&*backend, &report)?;
        let journal = Journal::start(
            Arc::clone(&engine),
            Arc::clone(&room),
            Arc::clone(&clock),
            &config.journal,
            &end,
            tier.clone(),
        )?;
        Failpoint::RECOVERY_JOURNALED.reached();
        if tier.is_some() {
            engine.start_fetching();
        }
        let inner = Arc::new(Inner {
            backend,
            room,
            engine,
            clock,
            config,
            journal,
            taking: Mutex::default(),
            history: SnapshotHistory::default(),
            snapshots: Mutex::new(kept),
            lost: Mutex::default(),
            doubtful: Mutex::default(),
            next_snapshot: AtomicU64::new(last + 1),
            figures: Mutex::default(),
            damaged,
            stopping: Mutex::new(false),
            lost_thread: watch::Sender::default(),
            tier,
            is_whole: AtomicBool::new(!is_lazy),
        });
        inner.begin_mode(is_unjournaled, &report)?;
        inner.begin_limit()?;
        let mut threads = Vec::new();
        if is_lazy {
            threads.push(inner.load_lazily(report.snapshot)?);
        }
        threads.push(start("snapshots", &inner, Inner::upkeep)?);
        let disk = Self { threads: Mutex::new(threads), inner };
        if !report.damages.is_empty() && disk.snapshot().is_ok() {
            // What was saved is safe in a file of its own now; the damaged files are kept for an investigation.
            disk.set_damaged_aside()?;
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

    /// What lies below memory; `None`: nothing.
    #[must_use]
    #[inline]
    pub fn tier_reader(&self) -> Option<TierReader<'_>> {
        let tier = self.inner.tier()?;
        Some(TierReader { tier, journal: &self.inner.journal })
    }

    /// Takes a snapshot now; where one is being taken, that is the one.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn snapshot(&self) -> Result<SnapshotInfo, SnapshotError> {
        self.inner.snapshot_or_join()
    }

    /// How snapshots went since the start.
    #[must_use]
    pub fn history(&self) -> &SnapshotHistory {
        &self.inner.history
    }

    /// Whether the disk is nearly full, so that no write is taken, for those who wait for news of that.
    #[must_use]
    pub fn short_of_room(&self) -> watch::Receiver<bool> {
        self.inner.room.short()
    }

    /// The name of a thread of this that panicked, for those who wait for news of that: no snapshot is taken any more, or
    /// what a lazy recovery has left on disk is not found.
    #[must_use]
    pub fn lost_thread(&self) -> watch::Receiver<Option<&'static str>> {
        self.inner.lost_thread.subscribe()
    }

    /// Bytes on disk, as they were counted some seconds ago, with what was written since.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.inner.room.used()
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
    pub fn rehearse(&self, method: RecoveryMethod) -> Result<Rehearsal, BackendError> {
        let Inner { backend, engine, clock, .. } = &*self.inner;
        let bytes_limit = engine.default_namespace().config().bytes_limit;
        let method = if self.keeps_journal() { method } else { method.of_snapshots() };
        super::rehearse::rehearse(&**backend, bytes_limit, clock.now(), method)
    }

    /// What may be on disk; `None`: as much as fits.
    #[must_use]
    pub fn limit_bytes(&self) -> Option<u64> {
        self.inner.config.limit_bytes
    }

    /// How the content comes back at the next start.
    #[must_use]
    pub fn recovery(&self) -> RecoveryMethod {
        self.inner.config.method(!self.keeps_journal())
    }

    /// Whether changes between snapshots are kept, so that a write can wait for the disk.
    #[must_use]
    pub fn keeps_journal(&self) -> bool {
        self.inner.config.is_journaled
    }

    fn set_damaged_aside(&self) -> Result<(), BackendError> {
        let there = self.inner.backend.files()?;
        for file in &self.inner.damaged {
            // Where the snapshot has made it superfluous, it has been done.
            if there.iter().any(|(other, _)| other == file) {
                set_aside(&*self.inner.backend, *file)?;
                self.inner.journal.let_go(file.number);
            }
        }
        Ok(())
    }
}

fn start(
    name: &'static str,
    inner: &Arc<Inner>,
    run: impl FnOnce(&Inner) + Send + 'static,
) -> Result<JoinHandle<()>, BackendError> {
    let inner = Arc::clone(inner);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| run(&inner))).is_err() {
                inner.lost_thread.send_replace(Some(name));
            }
        })
        .map_err(|source| BackendError::at("start the thread of", name.to_owned(), source))
}

impl Inner {
    /// What lies below memory, until it has ended.
    #[inline]
    fn tier(&self) -> Option<&DiskTier> {
        self.tier.as_deref().filter(|tier| !tier.has_ended())
    }

    fn upkeep(&self) {
        let mut last = Last { at: monotonic(), has_failed: false };
        loop {
            self.room.wait(LOOKS);
            if *self.stopping.lock() {
                return;
            }
            if let Some(tier) = &self.tier {
                self.engine.set_disk_tier_bytes(tier.bytes());
            }
            self.room.count_in_time();
            match self.keep_up(last) {
                Ok(false) => {}
                Ok(true) => last = Last { at: monotonic(), has_failed: false },
                Err(error) => {
                    tracing::error!(%error, "no snapshot could be taken");
                    last = Last { at: monotonic(), has_failed: true };
                }
            }
        }
    }

    /// Takes a snapshot if it is time for one; whether it did.
    fn keep_up(&self, last: Last) -> Result<bool, SnapshotError> {
        let progress = self.journal.progress();
        let now = progress.borrow().clone();
        if now.poisoned.is_some() {
            return Ok(false);
        }
        // What is written there is acknowledged and gone.
        match self.backend.space() {
            Err(error) if error.is_passing() => return Err(error.into()),
            Err(error) => {
                self.journal.give_up(error);
                return Ok(false);
            }
            Ok(_) => {}
        }
        if !self.is_whole.load(Ordering::Acquire) {
            self.look_at_limit()?;
            return Ok(false);
        }
        let may_try = !last.has_failed || last.at.elapsed() >= RETRIES;
        if self.look_for_lost()? && may_try {
            return self.replace_lost().map(|()| true);
        }
        let newest = self.snapshots.lock().first().copied();
        let is_due = self.config.snapshot_interval.is_some_and(|interval| last.at.elapsed() >= interval);
        let is_long = self.journal_is_long(newest);
        let pressure = self.pressure()?;
        let is_tight = pressure == DiskPressure::Tight;
        // Without a journal nothing grows in the meantime, so that there is nothing to be shortened.
        let bytes_limit = self.engine.default_namespace().bytes_limit();
        let is_crowded = self.tier().is_some_and(|tier| tier.is_crowded(bytes_limit));
        let is_time = is_due || self.config.is_journaled && may_try && (is_long || is_tight || is_crowded);
        if !is_time || !(self.has_changed(newest, now.position) || is_tight && self.has_less(newest)) {
            return Ok(false);
        }
        let stands_alone = pressure != DiskPressure::Ample;
        let taken = if stands_alone { self.snapshot_alone()? } else { self.snapshot()? };
        tracing::info!(
            snapshot = %taken.name(), position = taken.position, entries = taken.entries, bytes = taken.bytes,
            "took a snapshot"
        );
        self.look_at_limit()?;
        Ok(true)
    }

    /// Whether something is gone since the newest snapshot. What expires or is evicted is no change that is journaled,
    /// and yet a snapshot of the rest is smaller.
    fn has_less(&self, newest: Option<SnapshotInfo>) -> bool {
        let entries = self.tier().map_or_else(|| self.engine.stats().entries, |tier| tier.len());
        newest.is_some_and(|newest| entries < newest.entries)
    }

    fn journal_is_long(&self, newest: Option<SnapshotInfo>) -> bool {
        let behind = newest.map_or(0, |newest| newest.position);
        let segments = self.journal.segments();
        let covered = segments.partition_point(|segment| segment.first_position <= behind);
        let bytes: u64 = segments[covered.saturating_sub(1)..].iter().map(|segment| segment.bytes).sum();
        bytes > JOURNAL_BYTES_MIN.max(2 * newest.map_or(0, |newest| newest.bytes))
    }
}
