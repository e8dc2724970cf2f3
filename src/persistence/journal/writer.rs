//! The journal's thread: it drains, writes, syncs, and wakes who waited for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{CEILING_AHEAD_US, JournalConfig, JournalProgress, Shared, SyncWaiters};
use crate::clock::{Clock, monotonic};
use crate::engine::{Drained, Engine, LogConfig};
use crate::persistence::backend::{Backend, BackendError, FileId, FileKind};
use crate::persistence::failpoint::Failpoint;
use crate::persistence::frame::{BatchInfo, FrameKind, FrameWriter, HEADER_BYTES};
use crate::persistence::mark::JournalMark;
use crate::persistence::segment::{Segment, SegmentBody};
use crate::persistence::tier::DiskTier;

/// A sync waits no longer than this for others that will want it.
const GATHER_MAX: Duration = Duration::from_millis(1);
/// How old the time may be that the mark says, in the system's memory and on the disk: steady time goes on from there
/// where the wall clock is set back.
const MARK_OLD_MS: u64 = 1_000;
const SYNCED_MARK_OLD_MS: u64 = 10_000;
/// The mark is looked after as often as this, also where changes are synced less often.
const MARK_EVERY_MAX: Duration = Duration::from_millis(SYNCED_MARK_OLD_MS / 2);
/// Room is reserved after this number of syncs was waited for since the last time, or since that began: then it is
/// cheaper than what it saves.
const RESERVE_AFTER: u32 = 8;

/// How long a shortage is waited out at first; longer each time.
const SHORTAGE_PAUSE_MIN: Duration = Duration::from_millis(5);
const SHORTAGE_PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long a segment that is long enough goes on until the next one is tried again.
const NEXT_SEGMENT_RETRIES: Duration = Duration::from_millis(500);

/// The empty file of a segment whose first frame has this sequence.
pub(super) fn segment_file(
    backend: &dyn Backend,
    number: u64,
    previous: u32,
) -> Result<FrameWriter, BackendError> {
    let file = backend.create(FileId { kind: FileKind::Journal, number })?;
    Ok(FrameWriter::new(file, number, previous))
}

/// The journal's thread.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) engine: Arc<Engine>,
    pub(super) log: LogConfig,
    /// The engine logs its changes.
    pub(super) is_keeping: bool,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) config: JournalConfig,
    pub(super) frames: FrameWriter,
    /// The last record that was written.
    pub(super) position: u64,
    pub(super) drained: Drained,
    /// What was drained could not be written yet.
    pub(super) is_pending: bool,
    /// The next segment could not be begun, and is not tried before this.
    pub(super) next_segment_at: Option<Instant>,
    /// The number of one whose file is still to be deleted.
    pub(super) not_begun: Option<u64>,
    pub(super) mark: JournalMark,
    /// Something was appended and not synced.
    pub(super) is_dirty: bool,
    /// The mark was written and not synced.
    pub(super) is_mark_dirty: bool,
    /// Steady time as the mark said when it was synced.
    pub(super) mark_synced_ms: u64,
    /// The length of the last batch's frame.
    pub(super) frame_bytes: u64,
    /// Syncs that were waited for since room was reserved.
    pub(super) flushes: u32,
    /// How many were served by the last sync, and how long it took.
    pub(super) woken: usize,
    pub(super) sync_took: Duration,
    /// What is below memory, and what it calls the file.
    pub(super) tier: Option<(Arc<DiskTier>, u32)>,
}

impl Writer {
    pub(super) fn run(mut self) {
        let mut synced_at = monotonic();
        // Apart from it: a caller that waits for the disk all the time must not put the mark off for ever.
        let mut marked_at = synced_at;
        let mut shortage = Shortage::default();
        let mark_every = self.config.flush_interval.min(MARK_EVERY_MAX);
        loop {
            let is_last = self.shared.stop.load(Ordering::SeqCst);
            let is_due = synced_at.elapsed() >= self.config.flush_interval;
            let is_wanted = self.is_wanted(&self.shared.sync_wanted, |now| now.synced);
            let sync = is_last || is_due || is_wanted;
            if is_wanted && !is_last {
                self.gather();
            }
            let is_interval = is_last || marked_at.elapsed() >= mark_every;
            self.flushes = self.flushes.saturating_add(u32::from(is_wanted));
            match self.cycle(sync, is_interval) {
                Err(error) if error.is_passing() => {
                    if !shortage.wait(&error, self.shared.shortage_until.get().copied()) {
                        return self.poison(&self.not_written(&error));
                    }
                    continue;
                }
                Err(error) => return self.poison(&error.to_string()),
                Ok(()) if is_last => return,
                Ok(()) => shortage.end(),
            }
            if is_interval {
                marked_at = monotonic();
            }
            if sync {
                synced_at = monotonic();
            }
            let is_waited_for = self.is_wanted(&self.shared.sync_wanted, |now| now.synced)
                || self.is_wanted(&self.shared.write_wanted, |now| now.written)
                || self.shared.stop.load(Ordering::SeqCst);
            if !is_waited_for {
                let to_sync = self.config.flush_interval.saturating_sub(synced_at.elapsed());
                let to_mark = mark_every.saturating_sub(marked_at.elapsed());
                std::thread::park_timeout(to_sync.min(to_mark));
            }
        }
    }

    fn is_wanted(&self, wanted: &AtomicU64, reached: fn(&JournalProgress) -> u64) -> bool {
        wanted.load(Ordering::SeqCst) > reached(&self.shared.progress.borrow())
    }

    /// Drains all shards and writes what they logged; with `sync`, until it is safe.
    fn cycle(&mut self, sync: bool, is_interval: bool) -> Result<(), BackendError> {
        if let Some(why) = self.shared.given_up.lock().take() {
            return Err(why);
        }
        let drain = self.shared.begun.fetch_add(1, Ordering::SeqCst) + 1;
        self.clear_not_begun()?;
        if self.is_pending {
            self.write_drained()?;
        }
        if self.shared.keep.load(Ordering::SeqCst) != self.is_keeping {
            let turned = self.turn();
            let is_keeping = self.is_keeping;
            self.unless_short(turned, || self.shared.keep.store(is_keeping, Ordering::SeqCst))?;
        }
        // Read before anything is drained: the one that asked for a new segment has applied all that the old one is to
        // end with.
        let is_to_roll = self.shared.roll.load(Ordering::SeqCst);
        self.engine.drain_log(&mut self.drained);
        self.write_drained()?;
        if is_to_roll {
            self.shared.roll.store(false, Ordering::SeqCst);
            let begun = if self.has_batches() { self.next_segment(false) } else { Ok(()) };
            self.unless_short(begun, || {})?;
        }
        if sync {
            self.sync()?;
        }
        self.shared.progress.send_modify(|progress| {
            progress.written = drain;
            progress.position = self.position;
            if sync {
                progress.synced = drain;
                progress.synced_position = self.position;
            }
        });
        if sync {
            self.wake(drain);
            self.reserve();
        }
        // Nobody waits for the mark. A last one says how far time has gone.
        if self.shared.stop.load(Ordering::SeqCst) {
            self.renew_mark()?;
        } else if is_interval {
            self.renew_mark_in_time()?;
        }
        Ok(())
    }

    /// Wakes one of those that waited for this drain, which wakes the others; one that does not wait any more is passed
    /// over.
    fn wake(&mut self, drain: u64) {
        let (woken, mut first) = self.shared.waiting.lock().reach(drain);
        self.woken = woken;
        while first.is_some_and(|first| first.send(()).is_err()) {
            first = self.shared.waiting.lock().to_wake.pop();
        }
    }

    /// Waits until as many want a sync as were served by the last one, but no longer than that took: callers that wait
    /// for one answer before they ask for the next come back together, and are served by one sync then instead of two.
    fn gather(&self) {
        let begun = monotonic();
        let mut left = self.sync_took;
        while self.shared.waiting.lock().gather(self.woken) && !left.is_zero() {
            std::thread::park_timeout(left);
            left = self.sync_took.saturating_sub(begun.elapsed());
        }
        self.shared.waiting.lock().gathered = 0;
    }

    /// Reports a shortage to the one that asked for a new segment; the present segment goes on.
    fn unless_short(&self, begun: Result<(), BackendError>, undo: impl FnOnce()) -> Result<(), BackendError> {
        match begun {
            Err(error) if error.is_passing() => {
                undo();
                *self.shared.no_segment.lock() = Some(error);
                Ok(())
            }
            other => other,
        }
    }

    /// Writes what was drained, which stays to be written where that meets a shortage. What cannot be written keeps its part of
    /// the budget until the log is closed, so that no write is let in by the room of those that are lost.
    fn write_drained(&mut self) -> Result<(), BackendError> {
        let drained = std::mem::take(&mut self.drained);
        let written = self.write(&drained);
        self.drained = drained;
        self.is_pending = written.as_ref().is_err_and(BackendError::is_passing);
        written?;
        self.drained.clear(&self.log);
        self.shared.backlog.grant();
        Ok(())
    }

    /// Begins the next segment if this one is long enough. Where no file can be opened, this one goes on for a while.
    fn next_segment_in_time(&mut self) -> Result<(), BackendError> {
        let may_try = self.next_segment_at.is_none_or(|at| at <= monotonic());
        if self.frames.bytes() < self.config.segment_bytes || !may_try {
            return Ok(());
        }
        match self.next_segment(false) {
            Err(error) if error.is_passing() => {
                if self.next_segment_at.is_none() {
                    tracing::warn!(%error, "the journal goes on in a segment that is long enough, until it can begin the next");
                }
                self.next_segment_at = Some(monotonic() + NEXT_SEGMENT_RETRIES);
                Ok(())
            }
            begun => {
                if begun.is_ok() && self.next_segment_at.take().is_some() {
                    tracing::info!("the journal has begun its next segment");
                }
                begun
            }
        }
    }

    fn write(&mut self, drained: &Drained) -> Result<(), BackendError> {
        let records = drained.records();
        if records == 0 {
            return Ok(());
        }
        self.next_segment_in_time()?;
        let body: Vec<&[u8]> = drained.pieces().collect();
        let time = self.clock.now();
        let batch = BatchInfo { first_position: self.position + 1, records: records as u32, time };
        let begin = self.frames.bytes() + HEADER_BYTES as u64;
        Failpoint::JOURNAL_DRAINED.reached();
        // Before it is written, so that what is logged meanwhile is refused already where this reaches the limit.
        if !self.is_pending {
            self.shared.room.add_written((HEADER_BYTES + drained.bytes()) as u64);
        }
        self.append(FrameKind::Batch, batch, &body)?;
        Failpoint::JOURNAL_APPENDED.reached();
        self.position += records;
        self.frame_bytes = (HEADER_BYTES + drained.bytes()) as u64;
        self.let_tier_go();
        if let Some((tier, file)) = &self.tier {
            let mut offset = begin;
            whole_records(drained, |records| {
                let arrived = tier.arrive(&self.engine, (*file, offset), records);
                arrived.expect("what was written a moment ago can be read");
                offset += records.len() as u64;
            });
            tier.set_written(*file, self.frames.bytes());
            tier.set_arrived(drained.events());
        }
        self.mark.time = time;
        let counters = &self.shared.counters;
        counters.bytes.fetch_add(drained.bytes() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Reserves room if this is worth it: see [`JournalConfig::reserve_bytes`]. Between two syncs, so that neither waits
    /// for the zeroes.
    fn reserve(&mut self) {
        let enough = self.config.reserve_bytes;
        let is_small = self.frame_bytes < enough / u64::from(RESERVE_AFTER);
        let is_worth_it = is_small && self.shared.room.is_ample(enough);
        if self.flushes < RESERVE_AFTER || !is_worth_it || self.frames.reserved() > enough / 4 {
            return;
        }
        self.flushes = 0;
        // What is appended without a reservation is as safe: if the disk is full or broken, the append reports it.
        if let Err(error) = self.frames.reserve(enough) {
            tracing::debug!(%error, "no room is reserved in the journal");
        }
        Failpoint::JOURNAL_RESERVED.reached();
    }

    /// Lets the tier go if it has ended.
    fn let_tier_go(&mut self) {
        self.tier.take_if(|(tier, _)| tier.has_ended());
    }

    /// Appends to the segment that is listed last.
    fn append(&mut self, kind: FrameKind, batch: BatchInfo, body: &[&[u8]]) -> Result<(), BackendError> {
        self.clear_not_begun()?;
        self.frames.append(kind, batch, body)?;
        self.is_dirty = true;
        if let Some(written) = self.shared.segments.lock().last_mut() {
            written.bytes = self.frames.bytes();
        }
        Ok(())
    }

    /// Lets the engine log if it did not, and log no more if it did; in a segment of its own. A shortage leaves all as it
    /// was.
    fn turn(&mut self) -> Result<(), BackendError> {
        if self.is_keeping {
            self.next_segment(false)?;
            self.engine.stop_log();
            self.is_keeping = false;
            self.shared.backlog.grant();
            return Ok(());
        }
        // One position stands for all that was not kept. So a reader that does not know of the gap finds that this
        // segment does not follow on the one before.
        self.position += 1;
        self.next_segment(true).inspect_err(|_| self.position -= 1)?;
        self.engine.start_log(&self.log);
        self.is_keeping = true;
        self.shared.room.refuse_again();
        Ok(())
    }

    /// Whether the segment has more than its first frame.
    fn has_batches(&self) -> bool {
        self.shared.segments.lock().last().is_none_or(|last| self.frames.sequence > last.number + 1)
    }

    /// Ends this segment and begins another, before which none counts any more if it `begins`. A shortage leaves all as it
    /// was.
    fn next_segment(&mut self, begins: bool) -> Result<(), BackendError> {
        self.clear_not_begun()?;
        self.sync()?;
        Failpoint::SEGMENT_ENDED.reached();
        let number = self.frames.sequence;
        let next = segment_file(&**self.shared.room.backend(), number, self.frames.previous)?;
        let before = std::mem::replace(&mut self.frames, next);
        Failpoint::SEGMENT_CREATED.reached();
        if let Err(error) = self.begin_segment(begins) {
            if error.is_passing() {
                self.go_on_in(before, number)?;
            }
            return Err(error);
        }
        Failpoint::SEGMENT_BEGUN.reached();
        Ok(())
    }

    /// Goes on in the segment before one that was not begun, as there was a shortage; of that nothing stays.
    fn go_on_in(&mut self, before: FrameWriter, not_begun: u64) -> Result<(), BackendError> {
        self.frames = before;
        // The one before was synced.
        self.is_dirty = false;
        self.not_begun = Some(not_begun);
        self.clear_not_begun()
    }

    /// Deletes the file of a segment that was not begun, if that is still to be done. Before anything is appended to the one
    /// before: both would have a frame of the same sequence.
    fn clear_not_begun(&mut self) -> Result<(), BackendError> {
        if let Some(number) = self.not_begun {
            self.shared.room.backend().delete(FileId { kind: FileKind::Journal, number })?;
            self.not_begun = None;
        }
        Ok(())
    }

    /// Writes what a segment says of itself to its file, which is empty. It is listed when nothing can fail any more: from
    /// then on the one before may be deleted ([`Journal::forget`](super::Journal::forget)).
    pub(super) fn begin_segment(&mut self, begins: bool) -> Result<(), BackendError> {
        let (number, first_position) = (self.frames.sequence, self.position + 1);
        let batch = BatchInfo { first_position, records: 0, time: self.clock.now() };
        let body = SegmentBody { lineage: self.mark.lineage, begins }.write();
        self.frames.append(FrameKind::Segment, batch, &[&body])?;
        self.is_dirty = true;
        self.let_tier_go();
        let bytes = self.frames.bytes();
        if let Some((tier, file)) = &mut self.tier {
            *file = tier.open_written(FileId { kind: FileKind::Journal, number }, bytes)?;
        }
        self.shared.segments.lock().push(Segment { number, first_position, bytes });
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<(), BackendError> {
        if !self.is_dirty {
            return Ok(());
        }
        let begun = monotonic();
        self.frames.sync()?;
        Failpoint::JOURNAL_SYNCED.reached();
        self.is_dirty = false;
        self.sync_took = begun.elapsed().min(GATHER_MAX);
        let counters = &self.shared.counters;
        counters.syncs.fetch_add(1, Ordering::Relaxed);
        counters.sync_us.fetch_add(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
        self.mark.synced_sequence = self.frames.sequence - 1;
        self.mark.synced_position = self.position;
        // Also where it is not written yet for a shortage: it is with the next interval.
        self.is_mark_dirty = true;
        unless_passing(self.shared.room.backend().write_mark(&self.mark.write(), false))?;
        Failpoint::JOURNAL_MARKED.reached();
        Ok(())
    }

    fn renew_mark_in_time(&mut self) -> Result<(), BackendError> {
        let now = self.clock.now();
        let near = self.engine.version_ahead(now, CEILING_AHEAD_US / 2);
        let is_old = now.steady_ms >= self.mark_synced_ms + SYNCED_MARK_OLD_MS;
        if self.is_mark_dirty || is_old || near > self.mark.version_ceiling {
            unless_passing(self.renew_mark())?;
        } else if now.steady_ms >= self.mark.time.steady_ms + MARK_OLD_MS {
            // Synced with the next: a kill leaves it.
            self.mark.time = now;
            unless_passing(self.shared.room.backend().write_mark(&self.mark.write(), false))?;
        }
        Ok(())
    }

    /// Syncs the mark with a version ceiling ahead of now, and lets versions be drawn up to it.
    pub(super) fn renew_mark(&mut self) -> Result<(), BackendError> {
        let now = self.clock.now();
        let ceiling = self.engine.version_ahead(now, CEILING_AHEAD_US);
        self.mark.version_ceiling = self.mark.version_ceiling.max(ceiling);
        self.mark.time = now;
        Failpoint::MARK_SYNCING.reached();
        self.shared.room.backend().write_mark(&self.mark.write(), true)?;
        Failpoint::MARK_SYNCED.reached();
        self.engine.set_version_ceiling(self.mark.version_ceiling);
        self.is_mark_dirty = false;
        self.mark_synced_ms = now.steady_ms;
        Ok(())
    }

    /// What is lost where a shortage lasts longer than a node that stops can wait.
    fn not_written(&self, error: &BackendError) -> String {
        let position = self.mark.synced_position;
        format!(
            "the node stopped during a shortage; changes after position {position} are not on the disk: {error}"
        )
    }

    fn poison(&mut self, why: &str) {
        self.close_log();
        self.drained.clear(&self.log);
        let why: Arc<str> = why.into();
        tracing::error!(error = %why, "the journal is poisoned: no write is accepted any more, reads go on");
        self.shared.progress.send_modify(|progress| progress.poisoned = Some(Arc::clone(&why)));
        self.shared.poisoned.send_replace(Some(why));
    }

    fn close_log(&mut self) {
        if !self.is_keeping {
            // Only a log can refuse.
            self.engine.start_log(&self.log);
            self.is_keeping = true;
        }
        self.engine.close_log();
        self.shared.backlog.close();
    }
}

/// Visits the records that were drained, in their order, some whole ones at a time: only those that lie in several pieces
/// are copied.
fn whole_records(drained: &Drained, mut visit: impl FnMut(&[u8])) {
    let mut joined = Vec::new();
    for (piece, is_end) in drained.marked_pieces() {
        if is_end && joined.is_empty() {
            visit(piece);
            continue;
        }
        joined.extend_from_slice(piece);
        if is_end {
            visit(&joined);
            joined.clear();
        }
    }
}

/// The mark is written again soon: a shortage that it meets matters to nobody.
fn unless_passing(written: Result<(), BackendError>) -> Result<(), BackendError> {
    match written {
        Err(error) if error.is_passing() => {
            tracing::debug!(%error, "the journal's mark is written later");
            Ok(())
        }
        other => other,
    }
}

/// A shortage that keeps the journal from writing what it has.
#[derive(Debug, Default)]
struct Shortage {
    since: Option<Instant>,
    pause: Duration,
}

impl Shortage {
    /// Waits for a while; whether there is time for another attempt before `until`, when a node that stops gives up.
    fn wait(&mut self, error: &BackendError, until: Option<Instant>) -> bool {
        let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(monotonic()));
        if left.is_zero() {
            return false;
        }
        if self.since.is_none() {
            tracing::warn!(%error, "the journal waits until it can write");
            *self = Self { since: Some(monotonic()), pause: SHORTAGE_PAUSE_MIN };
        }
        std::thread::sleep(self.pause.min(left));
        self.pause = (self.pause * 2).min(SHORTAGE_PAUSE_MAX);
        true
    }

    fn end(&mut self) {
        if let Some(since) = self.since.take() {
            let waited_ms = since.elapsed().as_millis() as u64;
            tracing::info!(waited_ms, "the journal writes again");
        }
    }
}

impl Drop for Writer {
    /// However it ended, also by a panic: nobody may wait for it any more, and nothing is accepted that it would write.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.poison("the thread that writes it panicked");
        }
        self.close_log();
        self.shared.progress.send_modify(|progress| progress.ended = true);
        *self.shared.waiting.lock() = SyncWaiters::default();
    }
}
