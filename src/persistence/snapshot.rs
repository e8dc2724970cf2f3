//! Snapshots: the whole content in one file, taken while the node serves.
//!
//! A snapshot walks through the engine a few hundred entries at a time and lets go of the shard's lock in between, so
//! what it has written when it is done was never there all at once. What makes it whole is the stretch of journal that
//! was written meanwhile, which it carries behind the entries: applying the entries and then that tail gives the state
//! at the tail's end, because records are results and the tail has every change that the walk may have missed.
//!
//! ```text
//! ┌───────────────────────┬───────────────────┬───┬──────────────┬───┬──────────────────────────────────┐
//! │ SnapshotHead:         │ SnapshotEntries:  │ … │ SnapshotTail │ … │ SnapshotEnd: entries 8, position │
//! │ namespaces, requests  │ puts, in no order │   │ changes      │   │ before 8, position 8, newest     │
//! │                       │                   │   │              │   │ version 8, created, unix µs, 8   │
//! │                       │                   │   │              │   │ lineage 8                        │
//! └───────────────────────┴───────────────────┴───┴──────────────┴───┴──────────────────────────────────┘
//! ```
//!
//! Frames as in [`super::frame`], numbered from 1. Without its end a file is no snapshot.

mod error;
mod load;

use super::backend::{Backend, BackendError, FileId, FileKind};
use super::disk_budget::{DiskBudget, Reservation};
use super::failpoint::Failpoint;
use super::frame::{
    BadFrame, BatchInfo, FORMAT, Frame, FrameError, FrameKind, FrameReader, FrameWriter, HEADER_BYTES, check,
};
use super::journal::Journal;
use super::record;
use super::replay::{ReadError, ReplayFrom, replay};
use super::tier::{DiskTier, Moves};
use crate::clock::{Clock, Now, Pace};
use crate::engine::{Engine, Put, Record, WalkCursor, Written};
use crate::entry::Version;
pub use error::SnapshotError;
pub use load::{LoadContext, LoadedSnapshot, TierFile, load};
pub(super) use load::{apply, apply_head};

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
    /// Which lineage it is of; see [`super::replay::JournalEnd::lineage`].
    pub lineage: u64,
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
/// Bytes that are synced at a time: a longer sync delays the journal's, and keeps its processor for milliseconds.
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
    room: &DiskBudget,
    clock: &dyn Clock,
    number: u64,
    tier: Option<&DiskTier>,
) -> Result<SnapshotInfo, SnapshotError> {
    let backend = &**room.backend();
    let file = FileId { kind: FileKind::Snapshot, number };
    let frames = FrameWriter::new(backend.create(file)?, 1, 0);
    Failpoint::SNAPSHOT_CREATED.reached();
    let tier = tier.map(|tier| tier.open(file).map(|number| (tier, number))).transpose()?;
    let (chunk, reservation) = (Written::default(), Reservation::default());
    let mut taking = Taking { frames, room, reservation, clock, tier, chunk, entries: 0, synced_bytes: 0 };
    let taken = taking.all(engine, journal, backend, number);
    room.release(&mut taking.reservation);
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
    room: &'a DiskBudget,
    reservation: Reservation,
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
        journal.roll()?;
        Failpoint::SNAPSHOT_ROLLED.reached();
        let position = journal.written()?;
        self.tail(backend, first_position, position)?;
        let newest_version = engine.newest_version();
        let time = self.clock.now();
        let mut end = [0; END_BYTES];
        let lineage = journal.lineage();
        let facts = [self.entries, first_position, position, newest_version.0, time.unix_us, lineage];
        for (index, fact) in facts.iter().enumerate() {
            end[8 * index..8 * index + 8].copy_from_slice(&fact.to_le_bytes());
        }
        let batch = BatchInfo { first_position: position, records: 0, time };
        self.append(FrameKind::SnapshotEnd, batch, &[&end])?;
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
            lineage,
        })
    }

    fn entries(&mut self, engine: &Engine) -> Result<(), SnapshotError> {
        let mut cursor = WalkCursor::default();
        let mut pace = Pace::new();
        loop {
            pace.rest();
            let chunk = &mut self.chunk;
            let more = engine.walk(&mut cursor, self.clock.now(), |record| chunk.add(record::write, record));
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
        let end = replay(backend, None, ReplayFrom::Behind(from), &mut |_, frame, body| {
            let header = &frame.header;
            if header.first_position <= to && failed.is_none() {
                let (first_position, records, time) = (header.first_position, header.records, header.time);
                let batch = BatchInfo { first_position, records, time };
                failed = self.append(FrameKind::SnapshotTail, batch, &[body]).err();
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
        let batch = BatchInfo { first_position: 0, records, time: self.clock.now() };
        let chunk = std::mem::take(&mut self.chunk);
        self.append(kind, batch, &chunk.pieces().collect::<Vec<_>>())?;
        Ok(chunk)
    }

    /// Takes a buffer back whose records are written.
    fn reuse(&mut self, mut chunk: Written) {
        chunk.clear(2 * CHUNK_BYTES);
        self.chunk = chunk;
    }

    /// Appends a frame, if it leaves the journal its room.
    fn append(&mut self, kind: FrameKind, batch: BatchInfo, body: &[&[u8]]) -> Result<(), BackendError> {
        let body_bytes: usize = body.iter().map(|part| part.len()).sum();
        let bytes = (HEADER_BYTES + body_bytes) as u64;
        self.room.cover_snapshot(&mut self.reservation, bytes, self.frames.bytes())?;
        self.frames.append(kind, batch, body)?;
        self.room.written(&mut self.reservation, bytes);
        if self.frames.bytes() - self.synced_bytes >= SYNC_BYTES {
            self.frames.sync()?;
            self.synced_bytes = self.frames.bytes();
        }
        Ok(())
    }
}

/// What a snapshot says of itself in its end, read over its frames' headers.
///
/// # Errors
/// The disk refuses, or it is damaged.
pub fn inspect(backend: &dyn Backend, number: u64) -> Result<SnapshotInfo, ReadError> {
    let file = FileId { kind: FileKind::Snapshot, number };
    let mut reader = FrameReader::new(backend.open(file)?)?;
    let bytes = reader.end();
    let mut body = Vec::new();
    loop {
        let offset = reader.offset();
        let end = match reader.skip(|kind| kind == FrameKind::SnapshotEnd, &mut body) {
            Ok(Some(frame)) if frame.header.kind == FrameKind::SnapshotEnd => {
                read_end(number, bytes, &frame, &body).map_err(FrameError::Bad)
            }
            Ok(Some(_)) => continue,
            Ok(None) => {
                Err(BadFrame::Short { found: 0, expected: super::frame::HEADER_BYTES + END_BYTES }.into())
            }
            Err(why) => Err(why),
        };
        return end.map_err(|why| ReadError::of(file, offset, why));
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
    let [Some(entries), Some(first_position), Some(position), Some(version), Some(_), Some(lineage)] = facts
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
        lineage,
    })
}
