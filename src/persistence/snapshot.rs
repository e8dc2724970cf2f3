//! Snapshots: the whole content in one file, taken while the node serves.
//!
//! A snapshot walks through the engine a few hundred entries at a time and lets go of the shard's lock in between, so
//! what it has written when it is done was never there all at once. What makes it whole is the stretch of journal that
//! was written meanwhile, which it carries behind the entries: whoever applies the entries and then that tail has the
//! state at the tail's end, because records are results and the tail has every change that the walk may have missed.
//!
//! ```text
//! ┌───────────────────────┬───────────────────┬───┬──────────────┬───┬──────────────────────────────────┐
//! │ SnapshotHead:         │ SnapshotEntries:  │ … │ SnapshotTail │ … │ SnapshotEnd: entries 8, position │
//! │ namespaces, requests  │ puts, in no order │   │ changes      │   │ before 8, position 8, newest     │
//! │                       │                   │   │              │   │ version 8, created, unix µs, 8   │
//! │                       │                   │   │              │   │ history 8                        │
//! └───────────────────────┴───────────────────┴───┴──────────────┴───┴──────────────────────────────────┘
//! ```
//!
//! Frames as in [`super::frame`], numbered from 1. Without its end a file is no snapshot.

mod error;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::backend::{Backend, BackendError, FileId, FileKind};
use super::failpoint::Failpoint;
use super::frame::{
    BadFrame, FORMAT, Frame, FrameKind, FrameReader, FrameWriter, HEADER_BYTES, Place, check,
};
use super::journal::Journal;
use super::record;
use super::replay::{Damage, From, replay};
use super::room::{Promise, Room};
use super::tier::{DiskTier, Moves};
use crate::clock::{Clock, Now, Pace};
use crate::engine::{Engine, Put, Record, Restored, Restorer, WalkPlace, Written};
use crate::entry::Version;
pub use error::SnapshotError;

/// What a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its number.
    pub number: u64,
    /// The journal position that it was begun at.
    pub first_position: u64,
    /// The last position that it contains.
    pub position: u64,
    /// When it was completed.
    pub time: Now,
    /// How many entries it holds.
    pub entries: u64,
    /// Its size on disk.
    pub bytes: u64,
    /// The version of its format.
    pub format: u8,
    /// No version in it is above this one.
    pub newest_version: Version,
    /// Which history it is of; see [`super::replay::JournalEnd::history`].
    pub history: u64,
}

impl SnapshotInfo {
    /// The name that people see.
    #[must_use]
    pub fn name(&self) -> String {
        FileId { kind: FileKind::Snapshot, number: self.number }.to_string()
    }
}

/// Entries are written in frames of about this size.
const CHUNK_BYTES: usize = 256 << 10;
/// So much is synced at a time: a sync of more stands in the way of the journal's, and keeps its processor for milliseconds.
const SYNC_BYTES: u64 = 2 << 20;
const END_BYTES: usize = 48;

/// Takes a snapshot and syncs it. The engine must be logged by `journal`. With a tier below memory, entries are copied
/// from the files in which they lie, and their places lead to the snapshot from then on.
///
/// # Errors
/// It would take room that is kept for the journal, or the disk refuses. Nothing is left of it then, unless places lead
/// there.
pub fn take(
    engine: &Engine,
    journal: &Journal,
    room: &Room,
    clock: &dyn Clock,
    number: u64,
    tier: Option<&DiskTier>,
) -> Result<SnapshotInfo, SnapshotError> {
    let backend = &**room.backend();
    let file = FileId { kind: FileKind::Snapshot, number };
    let frames = FrameWriter::new(backend.create(file)?, 1, 0);
    Failpoint::SNAPSHOT_CREATED.reached();
    let tier = tier.map(|tier| tier.open(file).map(|number| (tier, number))).transpose()?;
    let (chunk, promise) = (Written::default(), Promise::default());
    let mut taking = Taking { frames, room, promise, clock, tier, chunk, entries: 0, synced_bytes: 0 };
    let taken = taking.all(engine, journal, backend, number);
    room.release(&mut taking.promise);
    if taken.is_err() && tier.is_none() {
        drop(taking);
        // What the error was about matters more than that half a file stays, which a start clears away.
        let _ = backend.delete(file);
    }
    if taken.is_ok() {
        room.end_snapshot();
    }
    taken
}

struct Taking<'a> {
    frames: FrameWriter,
    room: &'a Room,
    promise: Promise,
    clock: &'a dyn Clock,
    /// What is below memory, and what it calls the file.
    tier: Option<(&'a DiskTier, u32)>,
    /// Records on their way to a frame.
    chunk: Written,
    entries: u64,
    synced_bytes: u64,
}

impl Taking<'_> {
    fn all(
        &mut self,
        engine: &Engine,
        journal: &Journal,
        backend: &dyn Backend,
        number: u64,
    ) -> Result<SnapshotInfo, SnapshotError> {
        let begun = self.clock.now();
        let first_position = journal.written()?;
        engine.walk_rest(|record| self.chunk.add(record::write, record));
        self.put(FrameKind::SnapshotHead)?;
        Failpoint::SNAPSHOT_HEAD.reached();
        match self.tier {
            None => self.entries(engine)?,
            Some((tier, number)) => self.live_entries(engine, tier, number, begun)?,
        }
        // What comes after it has a segment of its own: a recovery reads no part of the journal that is in here.
        journal.roll()??;
        Failpoint::SNAPSHOT_ROLLED.reached();
        let position = journal.written()?;
        self.tail(backend, first_position, position)?;
        let newest_version = engine.newest_version();
        let time = self.clock.now();
        let mut end = [0; END_BYTES];
        let history = journal.history();
        let facts = [self.entries, first_position, position, newest_version.0, time.unix_us, history];
        for (index, fact) in facts.iter().enumerate() {
            end[8 * index..8 * index + 8].copy_from_slice(&fact.to_le_bytes());
        }
        let place = Place { first_position: position, records: 0, time };
        self.append(FrameKind::SnapshotEnd, place, &[&end])?;
        Failpoint::SNAPSHOT_ENDED.reached();
        self.frames.sync()?;
        Ok(SnapshotInfo {
            number,
            first_position,
            position,
            time,
            entries: self.entries,
            bytes: self.frames.bytes(),
            format: FORMAT,
            newest_version,
            history,
        })
    }

    fn entries(&mut self, engine: &Engine) -> Result<(), SnapshotError> {
        let mut place = WalkPlace::default();
        let mut pace = Pace::new();
        loop {
            pace.rest();
            let chunk = &mut self.chunk;
            let more = engine.walk(&mut place, self.clock.now(), |record| chunk.add(record::write, record));
            if self.chunk.size() >= CHUNK_BYTES || !more {
                self.entries += self.chunk.records();
                self.put(FrameKind::SnapshotEntries)?;
                Failpoint::SNAPSHOT_ENTRIES.reached();
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Copies what is live in the files that are there. What was touched before `now` has arrived there.
    fn live_entries(
        &mut self,
        engine: &Engine,
        tier: &DiskTier,
        number: u32,
        now: Now,
    ) -> Result<(), SnapshotError> {
        let mut moving = tier.moving(engine, number);
        let mut moves = Moves::default();
        let mut pace = Pace::new();
        loop {
            pace.rest();
            let chunk = &mut self.chunk;
            let more = moving.next(now, &mut moves, |put| {
                let begin = chunk.size();
                chunk.add(record::write, &Record::Put(Put { request_id: "", ..*put }));
                begin..chunk.size()
            })?;
            if self.chunk.size() >= CHUNK_BYTES || !more {
                self.entries += self.chunk.records();
                let begin = self.frames.bytes() + HEADER_BYTES as u64;
                let chunk = self.put_chunk(FrameKind::SnapshotEntries)?;
                Failpoint::SNAPSHOT_ENTRIES.reached();
                match chunk.pieces().collect::<Vec<_>>()[..] {
                    // What was read from files has no value that lies apart.
                    [body] => tier.moved(&mut moves, number, begin, body),
                    ref pieces => tier.moved(&mut moves, number, begin, &pieces.concat()),
                }
                self.reuse(chunk);
            }
            if !more {
                tier.has_moved(&moving);
                return Ok(());
            }
        }
    }

    fn tail(&mut self, backend: &dyn Backend, from: u64, to: u64) -> Result<(), SnapshotError> {
        let mut failed = None;
        let end = replay(backend, None, From::Behind(from), &mut |_, frame, body| {
            let header = &frame.header;
            if header.first_position <= to && failed.is_none() {
                let (first_position, records, time) = (header.first_position, header.records, header.time);
                let place = Place { first_position, records, time };
                failed = self.append(FrameKind::SnapshotTail, place, &[body]).err();
                Failpoint::SNAPSHOT_TAIL.reached();
            }
            Ok(())
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        match end.damage {
            Some(damage) if damage.position <= to => Err(SnapshotError::Damaged(damage)),
            _ => Ok(()),
        }
    }

    fn put(&mut self, kind: FrameKind) -> Result<(), BackendError> {
        let chunk = self.put_chunk(kind)?;
        self.reuse(chunk);
        Ok(())
    }

    /// Writes the records as a frame, and takes them out.
    fn put_chunk(&mut self, kind: FrameKind) -> Result<Written, BackendError> {
        let records = self.chunk.records() as u32;
        let place = Place { first_position: 0, records, time: self.clock.now() };
        let chunk = std::mem::take(&mut self.chunk);
        self.append(kind, place, &chunk.pieces().collect::<Vec<_>>())?;
        Ok(chunk)
    }

    /// Takes a buffer back whose records are written.
    fn reuse(&mut self, mut chunk: Written) {
        chunk.clear(2 * CHUNK_BYTES);
        self.chunk = chunk;
    }

    /// Appends a frame, if it leaves the journal its room.
    fn append(&mut self, kind: FrameKind, place: Place, body: &[&[u8]]) -> Result<(), BackendError> {
        let body_bytes: usize = body.iter().map(|part| part.len()).sum();
        let bytes = (HEADER_BYTES + body_bytes) as u64;
        self.room.cover_snapshot(&mut self.promise, bytes, self.frames.bytes())?;
        self.frames.append(kind, place, body)?;
        self.room.written(&mut self.promise, bytes);
        if self.frames.bytes() - self.synced_bytes >= SYNC_BYTES {
            self.frames.sync()?;
            self.synced_bytes = self.frames.bytes();
        }
        Ok(())
    }
}

/// What a snapshot says of itself in its end, read over its frames' headers; inside, why it is none.
///
/// # Errors
/// The disk refuses.
pub fn inspect(backend: &dyn Backend, number: u64) -> Result<Result<SnapshotInfo, Damage>, BackendError> {
    let file = FileId { kind: FileKind::Snapshot, number };
    let mut reader = FrameReader::new(backend.open(file)?)?;
    let bytes = reader.end();
    let damage = |offset, why: BadFrame| Damage::of(file, offset, &why);
    let mut body = Vec::new();
    loop {
        let offset = reader.offset();
        match reader.skip(|kind| kind == FrameKind::SnapshotEnd, &mut body)? {
            Ok(Some(frame)) if frame.header.kind == FrameKind::SnapshotEnd => {
                return Ok(read_end(number, bytes, &frame, &body).map_err(|why| damage(offset, why)));
            }
            Ok(Some(_)) => {}
            Ok(None) => {
                let why = BadFrame::Short { found: 0, expected: super::frame::HEADER_BYTES + END_BYTES };
                return Ok(Err(damage(offset, why)));
            }
            Err(why) => return Ok(Err(damage(offset, why))),
        }
    }
}

fn read_end(number: u64, bytes: u64, frame: &Frame, body: &[u8]) -> Result<SnapshotInfo, BadFrame> {
    check(&frame.header, body)?;
    let fact = |index: usize| {
        let bytes = body.get(8 * index..8 * index + 8).and_then(|bytes| bytes.first_chunk::<8>());
        bytes.map(|bytes| u64::from_le_bytes(*bytes))
    };
    let short = BadFrame::Short { found: body.len(), expected: END_BYTES };
    let facts = [fact(0), fact(1), fact(2), fact(3), fact(4), fact(5)];
    let [Some(entries), Some(first_position), Some(position), Some(version), Some(_), Some(history)] = facts
    else {
        return Err(short);
    };
    Ok(SnapshotInfo {
        number,
        first_position,
        position,
        time: frame.header.time,
        entries,
        bytes,
        format: frame.header.format,
        newest_version: Version(version),
        history,
    })
}

/// What loading a snapshot came to.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Entries that are in force, before its tail.
    pub entries: u64,
    /// Entries whose time has ended meanwhile.
    pub expired: u64,
    /// Entries that did not fit.
    pub refused: u64,
}

/// What a loader is given besides its file.
#[derive(Debug)]
pub struct LoadContext<'a> {
    /// The moment that expiry is judged by.
    pub now: Now,
    /// Threads that decode and apply.
    pub threads: usize,
    /// Counts records as they are applied.
    pub applied: &'a AtomicU64,
    /// What is below memory, where the records arrive too.
    pub below: Option<Below<'a>>,
}

impl LoadContext<'_> {
    /// Lets the records of a frame arrive below memory, if there is something.
    pub(super) fn arrive(&self, frame: &Frame, body: &[u8]) -> Result<(), BadFrame> {
        self.below.map_or(Ok(()), |below| below.arrive(frame, body))
    }
}

/// What is below memory, and what it calls the file that is read.
#[derive(Debug, Clone, Copy)]
pub struct Below<'a> {
    /// The tier.
    pub tier: &'a DiskTier,
    /// The engine above it.
    pub engine: &'a Engine,
    /// The file's number there.
    pub file: u32,
}

impl Below<'_> {
    /// Lets the records of a frame arrive.
    pub(super) fn arrive(&self, frame: &Frame, body: &[u8]) -> Result<(), BadFrame> {
        let begin = frame.body_offset();
        let arrived = self.tier.arrive(self.engine, (self.file, begin), body);
        arrived.map_err(|what| BadFrame::Records { sequence: frame.header.sequence, what })
    }
}

/// Applies a snapshot, checking every byte; inside, why it cannot be believed. Then some of it may have been applied
/// already, and the engine is to be emptied.
///
/// # Errors
/// The disk refuses.
pub fn load(
    backend: &dyn Backend,
    info: &SnapshotInfo,
    restorer: &mut Restorer<'_>,
    context: &LoadContext<'_>,
) -> Result<Result<Loaded, Damage>, BackendError> {
    let file = FileId { kind: FileKind::Snapshot, number: info.number };
    let reading = Mutex::new(Reading {
        frames: FrameReader::new(backend.open(file)?)?,
        sequence: 0,
        called: 0,
        offset: 0,
        stopped: None,
    });
    let counted = Counted::default();
    let mut body = Vec::new();
    let damage = |reading: &Reading, why: BadFrame| Damage::of(file, reading.offset, &why);
    let head = reading.lock().next(&mut body)?;
    let head = head.and_then(|frame| apply_head(&frame, &body, restorer, context.now));
    if let Err(why) = head {
        return Ok(Err(damage(&reading.lock(), why)));
    }
    restorer.expect(info.entries, info.bytes);
    let failed = std::thread::scope(|scope| {
        let shared: &Restorer<'_> = restorer;
        let (reading, counted) = (&reading, &counted);
        let load = move |worker| load_entries(reading, shared, context, counted, worker);
        // As many as there are threads for; this one is always there.
        let spawned = (1..context.threads)
            .map_while(|worker| std::thread::Builder::new().spawn_scoped(scope, move || load(worker)).ok());
        let workers: Vec<_> = spawned.collect();
        let loaded = load(0);
        let others = workers.into_iter().map(|worker| worker.join().expect("a loader does not panic"));
        std::iter::once(loaded).chain(others.collect::<Vec<_>>()).find_map(Result::err)
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let mut reading = reading.into_inner();
    let rest = load_rest(&mut reading, restorer, context, info)?;
    if let Err(why) = rest {
        return Ok(Err(damage(&reading, why)));
    }
    Ok(Ok(Loaded {
        entries: counted.entries.into_inner(),
        expired: counted.expired.into_inner(),
        refused: counted.refused.into_inner(),
    }))
}

#[derive(Debug, Default)]
struct Counted {
    entries: AtomicU64,
    expired: AtomicU64,
    refused: AtomicU64,
}

struct Reading {
    frames: FrameReader,
    sequence: u64,
    called: u32,
    /// Where the frame that was read last begins.
    offset: u64,
    /// Set by the first that finds something else than entries: that frame, or what is wrong.
    stopped: Option<Result<(Frame, Vec<u8>), BadFrame>>,
}

impl Reading {
    fn next(&mut self, body: &mut Vec<u8>) -> Result<Result<Frame, BadFrame>, BackendError> {
        self.offset = self.frames.offset();
        let frame = match self.frames.next(body)? {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(Err(BadFrame::Short { found: 0, expected: END_BYTES })),
            Err(why) => return Ok(Err(why)),
        };
        if let Err(why) = frame.follows(self.sequence, self.called) {
            return Ok(Err(why));
        }
        (self.sequence, self.called) = (frame.header.sequence, frame.called);
        Ok(Ok(frame))
    }
}

/// Takes frames of entries off the file until something else comes.
fn load_entries(
    reading: &Mutex<Reading>,
    restorer: &Restorer<'_>,
    context: &LoadContext<'_>,
    counted: &Counted,
    worker: usize,
) -> Result<(), BackendError> {
    let mut body = Vec::new();
    let mut placed = Vec::new();
    // As far from the other threads as can be.
    let first = worker * restorer.shard_count() / context.threads.max(1);
    loop {
        let frame = {
            let mut reading = reading.lock();
            if reading.stopped.is_some() {
                return Ok(());
            }
            match reading.next(&mut body)? {
                Ok(frame) if frame.header.kind == FrameKind::SnapshotEntries => frame,
                Ok(frame) => {
                    reading.stopped = Some(Ok((frame, body)));
                    return Ok(());
                }
                Err(why) => {
                    reading.stopped = Some(Err(why));
                    return Ok(());
                }
            }
        };
        let (mut entries, mut expired, mut refused) = (0, 0, 0);
        let mut came = |restored| match restored {
            Restored::Applied => entries += 1,
            Restored::Expired => expired += 1,
            _ => refused += 1,
        };
        placed.clear();
        let applied = visit_placed(&frame, &body, &mut |at, record| match restorer.place(record, at) {
            Ok(place) => placed.push(place),
            Err(restored) => came(restored),
        });
        if applied.is_ok() {
            let read = |at, visit: &mut dyn FnMut(&Record<'_>)| {
                record::read(&body[at], visit).expect("it was read just now");
            };
            restorer.entries(&mut placed, first, context.now, read, came);
        }
        let applied = applied.and_then(|()| context.arrive(&frame, &body));
        if let Err(why) = applied {
            let mut reading = reading.lock();
            reading.offset = frame.offset;
            reading.stopped = Some(Err(why));
            return Ok(());
        }
        counted.entries.fetch_add(entries, Ordering::Relaxed);
        counted.expired.fetch_add(expired, Ordering::Relaxed);
        counted.refused.fetch_add(refused, Ordering::Relaxed);
        context.applied.fetch_add(u64::from(frame.header.records), Ordering::Relaxed);
    }
}

/// Applies the tail, and sees to it that the end is what it was found to be.
fn load_rest(
    reading: &mut Reading,
    restorer: &mut Restorer<'_>,
    context: &LoadContext<'_>,
    info: &SnapshotInfo,
) -> Result<Result<(), BadFrame>, BackendError> {
    let (mut frame, mut body) = match reading.stopped.take() {
        Some(Ok(stopped)) => stopped,
        Some(Err(why)) => return Ok(Err(why)),
        None => return Ok(Err(BadFrame::Short { found: 0, expected: END_BYTES })),
    };
    while frame.header.kind == FrameKind::SnapshotTail {
        let applied = apply(&frame, &body, &mut |record| {
            restorer.apply(record, context.now);
        });
        let applied = applied.and_then(|()| context.arrive(&frame, &body));
        if let Err(why) = applied {
            return Ok(Err(why));
        }
        frame = match reading.next(&mut body)? {
            Ok(frame) => frame,
            Err(why) => return Ok(Err(why)),
        };
    }
    if frame.header.kind != FrameKind::SnapshotEnd {
        return Ok(Err(BadFrame::Unexpected { found: frame.header.kind }));
    }
    Ok(read_end(info.number, info.bytes, &frame, &body).map(|_| ()))
}

/// Applies a head, with increments in the order in which they were done. They lie there shard by shard, and a shard of this
/// engine has those of other keys: if they came in that order, it would forget some that are newer than what it keeps.
pub(super) fn apply_head(
    frame: &Frame,
    body: &[u8],
    restorer: &mut Restorer<'_>,
    now: Now,
) -> Result<(), BadFrame> {
    let mut counted = Vec::new();
    visit_placed(frame, body, &mut |at, record| match record {
        Record::Counted { version, .. } => counted.push((*version, at)),
        other => drop(restorer.apply(other, now)),
    })?;
    counted.sort_unstable_by_key(|(version, _)| *version);
    for (_, at) in counted {
        let again = record::read(&body[at], &mut |record: &Record<'_>| {
            restorer.apply(record, now);
        });
        again.expect("it was read just now");
    }
    Ok(())
}

/// Checks a frame and visits its records with the places where they are.
fn visit_placed(
    frame: &Frame,
    body: &[u8],
    visit: &mut dyn FnMut(Range<usize>, &Record<'_>),
) -> Result<(), BadFrame> {
    check(&frame.header, body)?;
    let read = record::read_placed(body, visit);
    read.map(|_| ()).map_err(|what| BadFrame::Records { sequence: frame.header.sequence, what })
}

/// Checks a frame and visits its records.
pub(super) fn apply(frame: &Frame, body: &[u8], visit: &mut dyn FnMut(&Record<'_>)) -> Result<(), BadFrame> {
    check(&frame.header, body)?;
    record::read(body, visit)
        .map(|_| ())
        .map_err(|what| BadFrame::Records { sequence: frame.header.sequence, what })
}
