//! Room on the disk: how much of it is used, who may write how much more, and what the journal keeps for itself.
//!
//! `--disk-limit` bounds what all files together take; the file system bounds it anyway. Under either bound the last
//! bytes are kept for the journal, the *reserve*, as a journal that finds no room is poisoned. No blob takes of it.
//! When half of the reserve is left on the disk, or no more than a quarter beside what a snapshot takes, writes are
//! refused, and what already waits for the disk takes of the rest; so does a snapshot, which makes room, down to a
//! quarter. There may be many writers at once, so each reserves a stretch at a time; what is reserved and not yet
//! written counts as used.
//!
//! Counting what is on disk takes a look at every file. In between, what is written is added as it is written; what is
//! deleted is noticed at the next count, so that what counts as used is too much rather than too little.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::backend::{Backend, BackendError, DiskSpace};
use crate::clock::{Throttle, monotonic};
use crate::engine::Engine;

/// How much a writer of blobs reserves at once, where there is room.
const BLOB_STRETCH_BYTES: u64 = 16 << 20;
/// And a snapshot.
const SNAPSHOT_STRETCH_BYTES: u64 = 2 << 20;
/// What the journal keeps for itself, at the most: all that may wait for the disk fits there.
const RESERVE_BYTES_MAX: u64 = 64 << 20;
/// And where there is little in all, this part of it.
const RESERVE_PART: u64 = 4;
/// Where there is no limit, files are counted at this interval.
const COUNTS: Duration = Duration::from_secs(10);
/// The disk's free space is read again only after this number of bytes was written.
const LOOKS_BYTES_MIN: u64 = 32 << 10;
const UNLIMITED: u64 = u64::MAX;

/// Room on the disk that a backend's files lie on.
#[derive(Debug)]
pub struct DiskBudget {
    backend: Arc<dyn Backend>,
    limit: AtomicU64,
    /// Reserved and not yet written, over all writers.
    reserved: Mutex<u64>,
    count: Mutex<Count>,
    /// Bytes that were ever written.
    grown: AtomicU64,
    /// The bytes that the next snapshot must find free: the one before was given up when it wanted these.
    snapshot_bytes: AtomicU64,
    /// What the disk had left when somebody looked, and how much had ever been written then.
    free: AtomicU64,
    looked_at: AtomicU64,
    /// What a snapshot would take now, about.
    for_snapshot: AtomicU64,
    /// So little is left on the disk that writes are refused.
    short: watch::Sender<bool>,
    /// Only what is written while a snapshot is taken is journaled, and rests on that.
    is_unjournaled: AtomicBool,
    /// Nothing is kept for the journal any more.
    is_free_for_all: AtomicBool,
    /// The limit is reached.
    is_full: Mutex<bool>,
    /// Lines of that in the log, and of the end of that: it may change with every write.
    full: Throttle,
    ample: Throttle,
    /// What refuses writes then. Weak, as the engine's log leads here.
    refuses: OnceLock<Weak<Engine>>,
    /// The waiting thread is woken once this number of bytes was ever written.
    look_at: AtomicU64,
    is_woken: Mutex<bool>,
    woken: Condvar,
}

/// What was on disk when somebody looked.
#[derive(Debug, Default)]
struct Count {
    bytes: u64,
    /// What had ever been written before that.
    grown: u64,
    at: Option<Instant>,
}

/// What one writer has reserved and has not written yet.
#[derive(Debug, Default)]
pub(super) struct Reservation(u64);

/// Why something may not be written.
#[derive(Debug)]
pub(super) enum BudgetExceeded {
    /// For the limit.
    Limit { needs: u64, used: u64, limit: u64, reserve: u64 },
    /// For the disk, or it cannot be told.
    Disk(BackendError),
}

impl From<BackendError> for BudgetExceeded {
    fn from(error: BackendError) -> Self {
        Self::Disk(error)
    }
}

impl DiskBudget {
    /// The budget of a backend's disk. All files together may take `limit_bytes`; `None`: any number.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, limit_bytes: Option<u64>) -> Self {
        Self {
            backend,
            limit: AtomicU64::new(limit_bytes.unwrap_or(UNLIMITED)),
            reserved: Mutex::default(),
            count: Mutex::default(),
            grown: AtomicU64::new(0),
            snapshot_bytes: AtomicU64::new(0),
            free: AtomicU64::new(0),
            looked_at: AtomicU64::new(0),
            for_snapshot: AtomicU64::new(0),
            short: watch::Sender::new(false),
            is_unjournaled: AtomicBool::new(false),
            is_free_for_all: AtomicBool::new(false),
            is_full: Mutex::new(false),
            full: Throttle::new(),
            ample: Throttle::new(),
            refuses: OnceLock::new(),
            look_at: AtomicU64::new(UNLIMITED),
            is_woken: Mutex::new(false),
            woken: Condvar::new(),
        }
    }

    /// How much may wait for the disk: as much as is given, or less on a small one, so that it finds room there when writes
    /// are refused.
    pub(super) fn backlog(&self, bytes: usize) -> usize {
        match self.backend.space().map_or(RESERVE_BYTES_MAX, |space| reserve_of(space.total_bytes)) {
            RESERVE_BYTES_MAX => bytes,
            reserve => bytes.min((reserve / 8) as usize),
        }
    }

    /// Whose files they are.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn set_limit(&self, limit_bytes: Option<u64>) {
        self.limit.store(limit_bytes.unwrap_or(UNLIMITED), Ordering::Relaxed);
    }

    pub(super) fn limit(&self) -> Option<u64> {
        let limit = self.limit.load(Ordering::Relaxed);
        (limit != UNLIMITED).then_some(limit)
    }

    /// Looks at every file, unless somebody has of late: for figures, so that it does not matter where it fails.
    pub(super) fn count_in_time(&self) {
        let is_late = self.count.lock().at.is_none_or(|at| at.elapsed() >= COUNTS);
        if is_late && let Err(error) = self.count() {
            tracing::debug!(%error, "what is on disk cannot be counted");
        }
    }

    /// Looks at every file.
    pub(super) fn count(&self) -> Result<u64, BackendError> {
        let grown = self.grown.load(Ordering::Relaxed);
        let bytes = self.backend.disk_bytes()?;
        *self.count.lock() = Count { bytes, grown, at: Some(monotonic()) };
        Ok(self.used())
    }

    /// Bytes on disk, as they were counted last, with what was written since.
    pub(super) fn used(&self) -> u64 {
        let count = self.count.lock();
        count.bytes + self.grown.load(Ordering::Relaxed).saturating_sub(count.grown)
    }

    /// From now on an engine refuses writes while there is no room for what it logs.
    pub(super) fn refuse_in(&self, engine: &Arc<Engine>, is_journaled: bool) {
        self.is_unjournaled.store(!is_journaled, Ordering::Relaxed);
        let _ = self.refuses.set(Arc::downgrade(engine));
    }

    /// Refuses writes in a log that was begun a moment ago, if there is no room for it.
    pub(super) fn refuse_again(&self) {
        *self.is_full.lock() = false;
        self.settle();
    }

    /// Notes that a snapshot would take about `bytes` bytes now: these are kept free for it.
    pub(super) fn keep_for_snapshot(&self, bytes: u64) {
        self.for_snapshot.store(bytes, Ordering::Relaxed);
    }

    /// Reads the disk's free space, counts it as `more` bytes less, and notes whether that is enough for writes.
    pub(super) fn look_at_disk(&self, more: u64) -> Result<(), BackendError> {
        let mut space = self.backend.space()?;
        space.free_bytes = space.free_bytes.saturating_sub(more);
        self.looked_at.store(self.grown.load(Ordering::Relaxed), Ordering::Relaxed);
        self.free.store(space.free_bytes, Ordering::Relaxed);
        let reserve = reserve_of(space.total_bytes);
        // A content that takes most of the disk is not to have writes refused for ever.
        let for_snapshot = self.for_snapshot.load(Ordering::Relaxed).min(space.total_bytes / 4);
        let mut enough = (reserve / 2).max(for_snapshot + reserve / 4);
        // Some more is to be free before writes are taken again.
        if self.is_short() {
            enough += reserve / 8;
        }
        let is_short = space.free_bytes < enough;
        self.short.send_if_modified(|before| std::mem::replace(before, is_short) != is_short);
        Ok(())
    }

    fn is_short(&self) -> bool {
        *self.short.borrow()
    }

    /// Whether the disk is nearly full, for those who wait for news of that.
    pub(super) fn short(&self) -> watch::Receiver<bool> {
        self.short.subscribe()
    }

    /// Whether `bytes` bytes fit and leave free more than all that is kept from anybody.
    pub(super) fn is_ample(&self, bytes: u64) -> bool {
        let free = self.free.load(Ordering::Relaxed);
        free > bytes.saturating_add(2 * RESERVE_BYTES_MAX)
    }

    /// Notes that `bytes` bytes are being written.
    pub(super) fn add_written(&self, bytes: u64) {
        let grown = self.grown.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // Far from the end it is looked at seldom, and the nearer it comes the oftener. Where that fails, so will writing.
        let since = grown - self.looked_at.load(Ordering::Relaxed).min(grown);
        let is_to_look = since >= (self.free.load(Ordering::Relaxed) / 32).max(LOOKS_BYTES_MIN);
        if is_to_look {
            let _ = self.look_at_disk(bytes);
        }
        if is_to_look || self.limit().is_some() {
            self.settle();
        }
        if grown >= self.look_at.load(Ordering::Relaxed) {
            self.look_at.store(UNLIMITED, Ordering::Relaxed);
            self.wake();
        }
    }

    /// Has writes refused while the limit is reached or the disk is nearly full, and taken again when there is room.
    pub(super) fn settle(&self) {
        let mut is_full = self.is_full.lock();
        let (used, limit) = (self.used(), self.limit());
        let is_over = limit.is_some_and(|limit| used > limit);
        let is_short = self.is_short();
        let is_unjournaled = self.is_unjournaled.load(Ordering::Relaxed);
        let is_full_now = is_over || is_short;
        if std::mem::replace(&mut *is_full, is_full_now) == is_full_now {
            return;
        }
        // Without a journal writes take no room: nothing is gained for the limit by refusing them.
        let refuses = is_short || is_over && !is_unjournaled;
        if let Some(engine) = self.refuses.get().and_then(Weak::upgrade) {
            engine.set_log_full(refuses);
        }
        let free = self.free.load(Ordering::Relaxed);
        let throttle = if is_full_now { &self.full } else { &self.ample };
        throttle.say(|left_out| match (is_over, is_short) {
            (true, _) if is_unjournaled => {
                tracing::error!(used, limit, left_out, "the disk limit is passed by snapshots and blobs")
            }
            (true, _) => {
                tracing::error!(used, limit, left_out, "the disk limit is reached: writes are refused")
            }
            (_, true) if is_unjournaled => {
                tracing::error!(free, left_out, "the disk is nearly full: no snapshot can be taken")
            }
            (_, true) => tracing::error!(free, left_out, "the disk is nearly full: writes are refused"),
            _ => tracing::info!(used, limit, free, left_out, "there is room on the disk again"),
        });
        self.wake();
    }

    /// Wakes the waiting thread as soon as `bytes` bytes more are written.
    pub(super) fn wake_after(&self, bytes: u64) {
        self.look_at.store(self.grown.load(Ordering::Relaxed).saturating_add(bytes), Ordering::Relaxed);
    }

    /// Wakes the waiting thread.
    pub(super) fn wake(&self) {
        *self.is_woken.lock() = true;
        self.woken.notify_all();
    }

    /// Waits until it is woken, but no longer than `no_longer`.
    pub(super) fn wait(&self, no_longer: Duration) {
        let mut is_woken = self.is_woken.lock();
        if !*is_woken {
            self.woken.wait_for(&mut is_woken, no_longer);
        }
        *is_woken = false;
    }

    /// Keeps nothing for the journal any more: what is written now is the last.
    pub(super) fn give_up_reserve(&self) {
        self.is_free_for_all.store(true, Ordering::Relaxed);
    }

    /// Whether a snapshot of at most `bytes` bytes may begin: not if nothing is left for it, or if it is known that it
    /// could not be finished.
    pub(super) fn begin_snapshot(&self, bytes: u64) -> Result<(), BackendError> {
        self.begin_whole_snapshot(bytes.min(self.snapshot_bytes.load(Ordering::Relaxed)))
    }

    /// The same, of one that is not to be begun if it may not come to its end.
    pub(super) fn begin_whole_snapshot(&self, bytes: u64) -> Result<(), BackendError> {
        self.spare(bytes, *self.reserved.lock())
    }

    /// Extends the reservation to the next `needs` bytes of a snapshot that has written `bytes` bytes. The limit does not
    /// bound it, as it is the snapshot that makes room.
    pub(super) fn cover_snapshot(
        &self,
        reservation: &mut Reservation,
        needs: u64,
        bytes: u64,
    ) -> Result<(), BackendError> {
        let spare = |more, reserved| self.spare(more, reserved);
        if self.is_short() && self.is_unjournaled.load(Ordering::Relaxed) {
            // It is given up rather than the writes that are journaled because of it.
            self.spare(needs.max(reserve_of(self.backend.space()?.total_bytes)), 0)?;
        }
        self.reserve(reservation, needs, SNAPSHOT_STRETCH_BYTES, spare).inspect_err(|_| {
            self.snapshot_bytes.store(bytes + needs, Ordering::Relaxed);
        })
    }

    /// Notes that a snapshot found what room it needed.
    pub(super) fn end_snapshot(&self) {
        self.snapshot_bytes.store(0, Ordering::Relaxed);
    }

    /// What the disk has for a snapshot beside what is reserved, and how much is kept for the journal in all.
    pub(super) fn spare_and_reserve(&self) -> Result<(u64, u64), BackendError> {
        let space = self.backend.space()?;
        let reserve = reserve_of(space.total_bytes);
        let kept = self.kept_from_snapshots(space).saturating_add(*self.reserved.lock());
        Ok((space.free_bytes.saturating_sub(kept), reserve))
    }

    /// What the journal needs while a snapshot is taken: little where writes are refused anyway.
    fn kept_from_snapshots(&self, space: DiskSpace) -> u64 {
        reserve_of(space.total_bytes) / if self.is_short() { 16 } else { 4 }
    }

    /// Whether the disk has `bytes` bytes free beside what is reserved and what the journal keeps.
    fn spare(&self, bytes: u64, reserved: u64) -> Result<(), BackendError> {
        if self.is_free_for_all.load(Ordering::Relaxed) {
            return Ok(());
        }
        let space = self.backend.space()?;
        fits(space, self.kept_from_snapshots(space), bytes.saturating_add(reserved))
    }

    /// Whether `needs` bytes of a blob would fit now, for a writer that knows the length beforehand.
    pub(super) fn check(&self, needs: u64) -> Result<(), BudgetExceeded> {
        self.left(needs, *self.reserved.lock())
    }

    /// Sees to it that the reservation covers what is to be written next of a blob.
    pub(super) fn cover(&self, reservation: &mut Reservation, needs: u64) -> Result<(), BudgetExceeded> {
        self.reserve(reservation, needs, BLOB_STRETCH_BYTES, |more, reserved| self.left(more, reserved))
    }

    /// Reserves a stretch, or what is needed at least, if `fits` says that it does beside what is reserved already.
    fn reserve<E>(
        &self,
        reservation: &mut Reservation,
        needs: u64,
        stretch: u64,
        fits: impl Fn(u64, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        if reservation.0 >= needs {
            return Ok(());
        }
        let mut reserved = self.reserved.lock();
        let missing = needs - reservation.0;
        let mut more = stretch.max(missing);
        if fits(more, *reserved).is_err() {
            fits(missing, *reserved)?;
            more = missing;
        }
        *reserved += more;
        reservation.0 += more;
        Ok(())
    }

    /// Notes that `bytes` bytes of a reservation were written: the disk counts them from now on.
    pub(super) fn written(&self, reservation: &mut Reservation, bytes: u64) {
        self.take_back(reservation, bytes);
        self.add_written(bytes);
    }

    /// Takes back what is left of a reservation.
    pub(super) fn release(&self, reservation: &mut Reservation) {
        self.take_back(reservation, u64::MAX);
    }

    fn take_back(&self, reservation: &mut Reservation, bytes: u64) {
        let bytes = bytes.min(reservation.0);
        reservation.0 -= bytes;
        *self.reserved.lock() -= bytes;
    }

    /// Whether there are `needs` bytes for blobs, under the limit and on the disk. Looks at every file where there is a
    /// limit.
    fn left(&self, needs: u64, reserved: u64) -> Result<(), BudgetExceeded> {
        if let Some(limit) = self.limit() {
            let (used, reserve) = (self.count()?.saturating_add(reserved), reserve_of(limit));
            if used.saturating_add(needs) > limit - reserve {
                return Err(BudgetExceeded::Limit { needs, used, limit, reserve });
            }
        }
        let space = self.backend.space()?;
        Ok(fits(space, reserve_of(space.total_bytes), needs.saturating_add(reserved))?)
    }
}

/// Whether a disk with this space has `needs` bytes free beside the `reserve`.
fn fits(space: DiskSpace, reserve: u64, needs: u64) -> Result<(), BackendError> {
    let free = space.free_bytes;
    if free < reserve.saturating_add(needs) {
        return Err(BackendError::NoRoom { needs, free, reserve });
    }
    Ok(())
}

/// The bytes that the journal keeps for itself of `total` bytes.
fn reserve_of(total: u64) -> u64 {
    (total / RESERVE_PART).min(RESERVE_BYTES_MAX)
}
