//! The journal: every change in order, in checksummed batches, written by one thread.
//!
//! Shards log their changes under their locks; the journal's thread drains all shards, writes what they logged as one
//! frame ([`super::frame`]) and, when it is time or somebody waits, syncs the file. So a write costs its caller no I/O,
//! and however many wait for the disk share a sync.
//!
//! - A *drain* has a number. A change is safe once a drain is synced that began after it was applied: see
//!   [`Journal::ask_flush`].
//! - The *position* is the count of all records that were ever written; a batch has its first record's.
//! - A *segment* is a file of about [`SEGMENT_BYTES`]; the chain of checksums runs on from one to the next.
//! - An *idle* journal keeps no changes, see [`Journal::keep`]; its thread still sees to the versions' ceiling.
//! - The mark is written after each sync and synced with the next interval, and ahead of the versions that are drawn. It
//!   says the time too ([`super::time`]), also when there is nothing else to write.
//! - What is logged and not written is the *backlog*. While it is as long as it may be, writes are refused, and may wait
//!   for room: [`BacklogQueue`].
//! - When an append or a sync fails, the journal is *poisoned*: no change that would be logged is accepted any more, as
//!   nobody can tell what is on the disk. Reads go on. Only a restart mends it.
//! - A shortage of descriptors or memory ([`crate::shortage`]) poisons nothing: a batch that could not be appended is
//!   appended again until it can be, a segment goes on where the next cannot be made, and who asked for a new one is
//!   refused.

mod backlog;
mod writer;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::backend::{BackendError, FileId, FileKind};
use super::disk_budget::DiskBudget;
use super::failpoint::Failpoint;
use super::mark::JournalMark;
use super::record;
use super::replay::JournalEnd;
use super::segment::Segment;
use super::tier::DiskTier;
use crate::clock::{Clock, monotonic};
use crate::engine::{Drained, Engine, LogBudget, LogConfig};
pub use backlog::{BacklogQueue, QueuePlace};
use writer::{Writer, segment_file};

/// The length in bytes from which on a segment is ended.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// What is reserved at a time of the segment that is being written, where many wait for syncs: see
/// [`JournalConfig::reserve_bytes`].
pub const RESERVE_BYTES: u64 = 256 << 10;
/// What a shard logs before it wakes the thread, or less where the backlog may not be long.
const NUDGE_BYTES: usize = 128 << 10;
/// A shard counts what it has logged in steps of this, or of less where the backlog may not be long.
const STEP_BYTES: usize = 64 << 10;
/// The capacity that a shard's buffer keeps, or less where the backlog may not be long.
const KEPT_BYTES: usize = 512 << 10;
/// How long a node that stops waits for what meets a shortage: with the drain before that, which is 8 s unless it is set
/// otherwise, the process is gone within 10 s.
pub(super) const SHORTAGE_AT_STOP_MAX: Duration = Duration::from_millis(1_500);
/// How far ahead of the wall clock versions are safe.
const CEILING_AHEAD_US: u64 = 60_000_000;

/// How a journal is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalConfig {
    /// Changes are synced this long after they were made, at the latest.
    pub flush_interval: Duration,
    /// What may be logged and not written, of all shards together. While it is, writes are refused. A small disk allows
    /// less.
    pub backlog_bytes: usize,
    /// What those that wait for room in the backlog may hold in memory: see [`BacklogQueue`].
    pub waiting_bytes: usize,
    /// The length in bytes from which on a segment is ended: [`SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// Where one sync after the other is waited for and each has little to write, this number of bytes of the segment
    /// is filled with zeroes at once, so that those syncs need not write the file's length and blocks:
    /// [`RESERVE_BYTES`]. 0: never.
    pub reserve_bytes: u64,
}

/// How far a journal is.
#[derive(Debug, Clone, Default)]
pub struct JournalProgress {
    /// The last drain that is written.
    pub written: u64,
    /// The last drain that is synced.
    pub synced: u64,
    /// The position up to which everything is written.
    pub position: u64,
    /// The position up to which everything is synced.
    pub synced_position: u64,
    /// Why nothing is written any more.
    pub poisoned: Option<Arc<str>>,
    /// Its thread is gone: nothing is written any more, for whatever reason.
    pub ended: bool,
}

/// Why the journal writes nothing any more: what was waited for may or may not be on the disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// The disk failed.
    #[error("the journal is poisoned: {0}")]
    Poisoned(Arc<str>),
    /// The node was stopped.
    #[error("the journal has ended: the node is stopping")]
    Ended,
}

/// Why the journal began no new segment.
#[derive(Debug, thiserror::Error)]
pub enum RollError {
    /// Nothing is written any more.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A file for it could not be had for now, and the journal goes on in the segment that it has.
    #[error(transparent)]
    Shortage(BackendError),
}

/// What is counted for metrics.
#[derive(Debug, Default)]
pub struct JournalCounters {
    /// Bytes that were written.
    pub bytes: AtomicU64,
    /// Syncs that were made.
    pub syncs: AtomicU64,
    /// How long they took together, in µs.
    pub sync_us: AtomicU64,
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Those who wait for a sync. The thread wakes one of those that it was for, and that one the others ([`Relay`]): a thread
/// that wakes many in a row is, where it shares their processor, taken off it and put back for each of them.
#[derive(Debug, Default)]
struct SyncWaiters {
    /// And the drain that each waits for.
    asleep: Vec<(u64, oneshot::Sender<()>)>,
    /// What they wait for has come, and they are to be woken.
    to_wake: Vec<oneshot::Sender<()>>,
    /// The thread waits until this number of callers is asleep; 0: it does not wait.
    gathered: usize,
}

/// Wakes the callers that are to be woken, however the waiting that it is part of ends.
struct Relay<'a>(&'a Mutex<SyncWaiters>);

#[derive(Debug)]
struct Shared {
    /// Drains that have begun.
    begun: AtomicU64,
    /// Somebody waits for this drain to be written.
    write_wanted: AtomicU64,
    /// Somebody waits for this drain to be synced.
    sync_wanted: AtomicU64,
    stop: AtomicBool,
    /// A shortage is waited out no longer than this: the node stops.
    shortage_until: OnceLock<Instant>,
    /// The segment is to be ended, however short it is.
    roll: AtomicBool,
    /// Changes are to be kept.
    keep: AtomicBool,
    /// Somebody found that nothing can be written any more.
    given_up: Mutex<Option<BackendError>>,
    /// Why the segment that was asked for last was not begun.
    no_segment: Mutex<Option<BackendError>>,
    progress: watch::Sender<JournalProgress>,
    /// [`JournalProgress::poisoned`], for those who would be woken hundreds of times a second by all other news.
    poisoned: watch::Sender<Option<Arc<str>>>,
    /// The callers that wait for a drain to be synced: each is woken once, when its drain is.
    waiting: Mutex<SyncWaiters>,
    thread: OnceLock<Thread>,
    segments: Mutex<Vec<Segment>>,
    counters: JournalCounters,
    backlog: Arc<BacklogQueue>,
    room: Arc<DiskBudget>,
    lineage: u64,
}

impl Journal {
    /// Goes on where a recovery found the end, in a new segment, and logs what the engine changes from now on. What is
    /// written arrives in `tier`, if there is one, before it counts as written.
    ///
    /// # Errors
    /// The segment or the mark cannot be written.
    pub fn start(
        engine: Arc<Engine>,
        room: Arc<DiskBudget>,
        clock: Arc<dyn Clock>,
        config: &JournalConfig,
        end: &JournalEnd,
        tier: Option<Arc<DiskTier>>,
    ) -> Result<Self, BackendError> {
        let budget = Arc::new(LogBudget::new(room.backlog(config.backlog_bytes)));
        let shared = Arc::new(Shared {
            begun: AtomicU64::new(0),
            write_wanted: AtomicU64::new(0),
            sync_wanted: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            shortage_until: OnceLock::new(),
            roll: AtomicBool::new(false),
            keep: AtomicBool::new(true),
            given_up: Mutex::default(),
            no_segment: Mutex::default(),
            poisoned: watch::Sender::default(),
            progress: watch::Sender::new(JournalProgress {
                position: end.position,
                synced_position: end.position,
                ..JournalProgress::default()
            }),
            waiting: Mutex::default(),
            thread: OnceLock::new(),
            segments: Mutex::new(end.segments.clone()),
            counters: JournalCounters::default(),
            backlog: Arc::new(BacklogQueue::new(budget, config.waiting_bytes)),
            room,
            lineage: end.lineage,
        });
        let mark = JournalMark {
            lineage: end.lineage,
            synced_sequence: end.sequence,
            synced_position: end.position,
            ..JournalMark::default()
        };
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            log: log_config(&shared, &engine),
            is_keeping: true,
            is_pending: false,
            next_segment_at: None,
            not_begun: None,
            engine,
            clock,
            config: config.clone(),
            frames: segment_file(&**shared.room.backend(), end.sequence + 1, end.called)?,
            position: end.position,
            drained: Drained::default(),
            mark,
            is_dirty: false,
            is_mark_dirty: false,
            mark_synced_ms: 0,
            frame_bytes: 0,
            flushes: 0,
            woken: 0,
            sync_took: Duration::ZERO,
            tier: tier.map(|tier| (tier, 0)),
        };
        writer.renew_mark()?;
        writer.begin_segment(end.begins)?;
        writer.sync()?;
        writer.engine.start_log(&writer.log);
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| BackendError::at("start the thread of", "the journal".to_owned(), source))?;
        let _ = shared.thread.set(thread.thread().clone());
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Asks for everything to be put on the disk that was applied before this is called, without waiting: gives a
    /// ticket for [`Self::wait_flushed`].
    #[must_use]
    pub fn ask_flush(&self) -> u64 {
        self.ask(&self.shared.sync_wanted)
    }

    /// Waits for a ticket of [`Self::ask_flush`]; the position up to which everything is on the disk then.
    ///
    /// # Errors
    /// The journal has stopped: it may or may not be there.
    pub async fn wait_flushed(&self, ticket: u64) -> Result<u64, Stopped> {
        let reached = |progress: &JournalProgress| progress.synced;
        let woken = {
            let mut waiting = self.shared.waiting.lock();
            let now = self.shared.progress.borrow();
            if reached(&now) >= ticket || now.stopped().is_some() {
                None
            } else {
                let (wake, woken) = oneshot::channel();
                waiting.asleep.push((ticket, wake));
                if waiting.asleep.len() == waiting.gathered {
                    self.shared.wake();
                }
                Some(woken)
            }
        };
        if let Some(woken) = woken {
            let _relay = Relay(&self.shared.waiting);
            // A caller that is not woken learns that the journal has stopped by the end of its channel.
            let _ = woken.await;
        }
        let now = self.shared.progress.borrow().clone();
        settled(now, ticket, reached).map(|progress| progress.synced_position)
    }

    /// Waits until everything that was applied before this was called is written; the position of that. For threads
    /// that may block.
    ///
    /// # Errors
    /// The journal has stopped.
    pub fn written(&self) -> Result<u64, Stopped> {
        let wanted = self.ask(&self.shared.write_wanted);
        self.block(wanted, |progress| progress.written).map(|progress| progress.position)
    }

    /// Waits until everything that was applied before this was called is on the disk; the position of that. For threads
    /// that may block.
    ///
    /// # Errors
    /// The journal has stopped.
    #[cfg(any(test, feature = "testing"))]
    pub fn flush(&self) -> Result<u64, Stopped> {
        let wanted = self.ask(&self.shared.sync_wanted);
        self.block(wanted, |progress| progress.synced).map(|progress| progress.synced_position)
    }

    /// Which lineage it is of.
    #[must_use]
    pub fn lineage(&self) -> u64 {
        self.shared.lineage
    }

    /// How far it is, for those who wait for news.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<JournalProgress> {
        self.shared.progress.subscribe()
    }

    /// Why nothing is written any more, once that is so, for those who wait for it.
    #[must_use]
    pub fn poisoned(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.shared.poisoned.subscribe()
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> &JournalCounters {
        &self.shared.counters
    }

    /// Where writes wait while the backlog is as long as it may be.
    #[must_use]
    #[inline]
    pub fn backlog(&self) -> &Arc<BacklogQueue> {
        &self.shared.backlog
    }

    /// Sets how long the backlog may be, and what those that wait for room in it may hold; as
    /// [`JournalConfig::backlog_bytes`] and [`JournalConfig::waiting_bytes`].
    pub fn set_backlog(&self, backlog_bytes: usize, waiting_bytes: usize) {
        let Shared { backlog, room, .. } = &*self.shared;
        backlog.budget().set_bytes_max(room.backlog(backlog_bytes));
        backlog.set_held_bytes_max(waiting_bytes);
        backlog.grant();
        // It may be longer than it may be from now on.
        self.shared.wake();
    }

    /// Its files, oldest first; the last is being written.
    #[must_use]
    pub fn segments(&self) -> Vec<Segment> {
        self.shared.segments.lock().clone()
    }

    /// Ends the segment that is being written, so that [`Self::forget`] can delete it; blocks. One caller at a time.
    ///
    /// # Errors
    /// The journal has stopped, or a shortage keeps it in the segment that it has.
    pub fn roll(&self) -> Result<(), RollError> {
        self.shared.roll.store(true, Ordering::SeqCst);
        self.segment_begun()
    }

    /// Keeps changes from now on, or none; blocks. Those that were not kept have one position together, so that what
    /// comes after them is never taken for what follows on what was before. One caller at a time.
    ///
    /// # Errors
    /// The journal has stopped, or a shortage leaves all as it was.
    pub fn keep(&self, is_kept: bool) -> Result<(), RollError> {
        self.shared.keep.store(is_kept, Ordering::SeqCst);
        self.segment_begun()
    }

    /// Waits until the thread has begun the segment that it was asked for, or could not.
    fn segment_begun(&self) -> Result<(), RollError> {
        self.written()?;
        self.shared.no_segment.lock().take().map_or(Ok(()), |error| Err(RollError::Shortage(error)))
    }

    /// Gives up the segments all of whose records are at or before a position; `clear` does away with their files.
    ///
    /// # Errors
    /// One cannot be cleared; the next call tries again.
    pub fn forget(
        &self,
        position: u64,
        clear: &dyn Fn(FileId) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let mut segments = self.shared.segments.lock();
        while let [first, second, ..] = &segments[..]
            && second.first_position <= position + 1
        {
            Failpoint::SEGMENT_FORGETTING.reached();
            clear(FileId { kind: FileKind::Journal, number: first.number })?;
            Failpoint::SEGMENT_FORGOTTEN.reached();
            segments.remove(0);
        }
        Ok(())
    }

    /// Poisons it, as if it had found out itself.
    pub(super) fn give_up(&self, why: BackendError) {
        *self.shared.given_up.lock() = Some(why);
        self.shared.wake();
    }

    /// Lets go of a segment that is not being written, whose file is another's from then on.
    pub(super) fn let_go(&self, number: u64) {
        self.shared.segments.lock().retain(|segment| segment.number != number);
    }

    /// A shortage is waited out no longer than `until`. Threads that wait for the journal, and that a stop waits for, go on
    /// then.
    pub(super) fn bound_shortages(&self, until: Instant) {
        self.shared.shortage_until.get_or_init(|| until);
    }

    /// Writes and syncs what is left, and ends. Later changes are refused. A shortage is waited out for a moment only: what
    /// is not written then counts as lost, and the error says so.
    ///
    /// # Errors
    /// The journal is poisoned.
    pub fn stop(&self) -> Result<u64, Stopped> {
        self.bound_shortages(monotonic() + SHORTAGE_AT_STOP_MAX);
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
        let progress = self.shared.progress.borrow();
        match &progress.poisoned {
            None => Ok(progress.synced_position),
            Some(why) => Err(Stopped::Poisoned(Arc::clone(why))),
        }
    }

    /// A drain that begins from now on, and word to the thread that it is waited for.
    fn ask(&self, wanted: &AtomicU64) -> u64 {
        let ticket = self.shared.begun.load(Ordering::SeqCst) + 1;
        if wanted.fetch_max(ticket, Ordering::SeqCst) < ticket {
            self.shared.wake();
        }
        ticket
    }

    fn block(&self, ticket: u64, reached: fn(&JournalProgress) -> u64) -> Result<JournalProgress, Stopped> {
        futures_executor::block_on(self.wait(ticket, reached))
    }

    async fn wait(
        &self,
        ticket: u64,
        reached: fn(&JournalProgress) -> u64,
    ) -> Result<JournalProgress, Stopped> {
        let mut progress = self.shared.progress.subscribe();
        let news = progress.wait_for(|now| reached(now) >= ticket || now.stopped().is_some()).await;
        let now = news.map_err(|_| Stopped::Ended)?.clone();
        settled(now, ticket, reached)
    }
}

fn settled(
    now: JournalProgress,
    ticket: u64,
    reached: fn(&JournalProgress) -> u64,
) -> Result<JournalProgress, Stopped> {
    match now.stopped() {
        Some(why) if reached(&now) < ticket => Err(why),
        _ => Ok(now),
    }
}

impl JournalProgress {
    fn stopped(&self) -> Option<Stopped> {
        let poisoned = self.poisoned.as_ref().map(|why| Stopped::Poisoned(Arc::clone(why)));
        poisoned.or(self.ended.then_some(Stopped::Ended))
    }
}

impl SyncWaiters {
    /// Whether fewer than `wanted` callers wait for a sync; then the caller that completes the number wakes the thread.
    fn gather(&mut self, wanted: usize) -> bool {
        self.gathered = wanted;
        self.asleep.len() < wanted
    }

    /// What was waited for up to this drain has come; how many waited for it. One of them is to be woken, if there are
    /// any.
    fn reach(&mut self, drain: u64) -> (usize, Option<oneshot::Sender<()>>) {
        let before = self.to_wake.len();
        self.to_wake.extend(self.asleep.extract_if(.., |(ticket, _)| *ticket <= drain).map(|(_, wake)| wake));
        (self.to_wake.len() - before, self.to_wake.pop())
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        let to_wake = std::mem::take(&mut self.0.lock().to_wake);
        for wake in to_wake {
            // A caller that does not wait any more needs no word.
            let _ = wake.send(());
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

impl Shared {
    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// How shards log for a journal.
fn log_config(shared: &Arc<Shared>, engine: &Engine) -> LogConfig {
    let (wake, budget) = (Arc::clone(shared), Arc::clone(shared.backlog.budget()));
    let share = budget.room() / engine.shard_count();
    LogConfig {
        encode: record::write,
        nudge: Arc::new(move || wake.wake()),
        nudge_bytes: NUDGE_BYTES.min(share / 4),
        kept_bytes: KEPT_BYTES.min(share / 4),
        step_bytes: STEP_BYTES.min(share / 8).max(1),
        budget,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_is_woken_wakes_the_others_also_when_it_goes_unread() {
        let waiting = Mutex::new(SyncWaiters::default());
        let wait_for = |drain| {
            let (wake, woken) = oneshot::channel();
            waiting.lock().asleep.push((drain, wake));
            woken
        };
        let (mut early, mut also, mut later) = (wait_for(1), wait_for(1), wait_for(2));
        let (count, first) = waiting.lock().reach(1);
        assert_eq!(count, 2);
        first.unwrap().send(()).unwrap();
        let are_woken = |those: [&mut oneshot::Receiver<()>; 3]| those.map(|one| one.try_recv().is_ok());
        assert_eq!(are_woken([&mut early, &mut also, &mut later]), [false, true, false]);
        drop(Relay(&waiting));
        assert_eq!(are_woken([&mut early, &mut also, &mut later]), [true, false, false]);
        assert_eq!(waiting.lock().reach(1).0, 0);
        let (count, first) = waiting.lock().reach(2);
        assert_eq!(count, 1);
        first.unwrap().send(()).unwrap();
        assert!(later.try_recv().is_ok());
        assert!(waiting.lock().to_wake.is_empty() && waiting.lock().asleep.is_empty());
    }
}
