//! A snapshot loaded: its head, then its entries by several threads, then its tail, every byte checked.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{END_BYTES, SnapshotInfo, read_end};
use crate::clock::Now;
use crate::engine::{Engine, Record, Restored, Restorer};
use crate::persistence::backend::{Backend, BackendError, FileId, FileKind};
use crate::persistence::frame::{BadFrame, Frame, FrameError, FrameKind, FrameReader, check};
use crate::persistence::record;
use crate::persistence::replay::ReadError;
use crate::persistence::tier::DiskTier;

/// What loading a snapshot came to.
#[derive(Debug, Default)]
pub struct LoadedSnapshot {
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
    /// The disk tier and the file's number in it, if there is one: the records arrive there too.
    pub tier_file: Option<TierFile<'a>>,
}

impl LoadContext<'_> {
    /// Lets the records of a frame arrive in the disk tier, if there is one.
    pub(in crate::persistence) fn arrive(&self, frame: &Frame, body: &[u8]) -> Result<(), BadFrame> {
        self.tier_file.map_or(Ok(()), |tier_file| tier_file.arrive(frame, body))
    }
}

/// A file as the disk tier knows it, for records that arrive there as the file is read.
#[derive(Debug, Clone, Copy)]
pub struct TierFile<'a> {
    /// The tier.
    pub tier: &'a DiskTier,
    /// The engine above it.
    pub engine: &'a Engine,
    /// The file's number there.
    pub file: u32,
}

impl TierFile<'_> {
    /// Lets the records of a frame arrive.
    pub(in crate::persistence) fn arrive(&self, frame: &Frame, body: &[u8]) -> Result<(), BadFrame> {
        let begin = frame.body_offset();
        let arrived = self.tier.arrive(self.engine, (self.file, begin), body);
        arrived.map_err(|what| BadFrame::Records { sequence: frame.header.sequence, what })
    }
}

/// Applies a snapshot, checking every byte.
///
/// # Errors
/// The disk refuses, or it is damaged and cannot be believed. Then some of it may have been applied already, and the
/// engine is to be emptied.
pub fn load(
    backend: &dyn Backend,
    info: &SnapshotInfo,
    restorer: &mut Restorer<'_>,
    context: &LoadContext<'_>,
) -> Result<LoadedSnapshot, ReadError> {
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
    let head = reading.lock().next(&mut body);
    head.and_then(|frame| Ok(apply_head(&frame, &body, restorer, context.now)?))
        .map_err(|why| ReadError::of(file, reading.lock().offset, why))?;
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
        return Err(error.into());
    }
    let mut reading = reading.into_inner();
    load_rest(&mut reading, restorer, context, info)
        .map_err(|why| ReadError::of(file, reading.offset, why))?;
    Ok(LoadedSnapshot { expired: counted.expired.into_inner(), refused: counted.refused.into_inner() })
}

#[derive(Debug, Default)]
struct Counted {
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
    fn next(&mut self, body: &mut Vec<u8>) -> Result<Frame, FrameError> {
        self.offset = self.frames.offset();
        let frame = self.frames.next(body)?.ok_or(BadFrame::Short { found: 0, expected: END_BYTES })?;
        frame.follows(self.sequence, self.called)?;
        (self.sequence, self.called) = (frame.header.sequence, frame.called);
        Ok(frame)
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
            match reading.next(&mut body) {
                Ok(frame) if frame.header.kind == FrameKind::SnapshotEntries => frame,
                Ok(frame) => {
                    reading.stopped = Some(Ok((frame, body)));
                    return Ok(());
                }
                Err(FrameError::Bad(why)) => {
                    reading.stopped = Some(Err(why));
                    return Ok(());
                }
                Err(FrameError::Backend(error)) => return Err(error),
            }
        };
        let (mut expired, mut refused) = (0, 0);
        let mut came = |restored| match restored {
            Restored::Applied => {}
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
) -> Result<(), FrameError> {
    let stopped = reading.stopped.take().ok_or(BadFrame::Short { found: 0, expected: END_BYTES })?;
    let (mut frame, mut body) = stopped?;
    while frame.header.kind == FrameKind::SnapshotTail {
        apply(&frame, &body, &mut |record| {
            restorer.apply(record, context.now);
        })?;
        context.arrive(&frame, &body)?;
        frame = reading.next(&mut body)?;
    }
    if frame.header.kind != FrameKind::SnapshotEnd {
        return Err(BadFrame::Unexpected { found: frame.header.kind }.into());
    }
    read_end(info.number, info.bytes, &frame, &body)?;
    Ok(())
}

/// Applies a head, with increments in the order in which they were done. They lie there shard by shard, and a shard of this
/// engine has those of other keys: if they came in that order, it would forget some that are newer than what it keeps.
pub(in crate::persistence) fn apply_head(
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
pub(in crate::persistence) fn apply(
    frame: &Frame,
    body: &[u8],
    visit: &mut dyn FnMut(&Record<'_>),
) -> Result<(), BadFrame> {
    check(&frame.header, body)?;
    record::read(body, visit)
        .map(|_| ())
        .map_err(|what| BadFrame::Records { sequence: frame.header.sequence, what })
}
