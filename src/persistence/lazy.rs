//! Recovery that lets a node serve at once: its entries are read from the disk when they are asked for.
//!
//! Before the node serves, everything is applied but a snapshot's entries: its head, the changes that it carries, and
//! the journal behind it, so that conditions and counters are right ([`load_around`]). Then, while it serves, the places
//! of the entries are found ([`index`]), and as many as memory has room for are brought there ([`warm`]).

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use super::backend::{Backend, FileId, FileKind};
use super::disk::{SHORTAGE_PAUSE, TierReader};
use super::frame::{BadFrame, FrameError, FrameKind, FrameReader, HEADER_BYTES, check};
use super::replay::{ReadError, ReplayFrom, replay};
use super::snapshot::{LoadContext, SnapshotInfo, TierFile, apply, apply_head};
use super::tier::{DiskTier, Scanned};
use crate::clock::Clock;
use crate::engine::{Engine, Fetch, Restorer};

/// Applies what a snapshot has around its entries, whose headers alone are looked at.
///
/// # Errors
/// The disk refuses, or the snapshot is damaged and cannot be believed.
pub(super) fn load_around(
    backend: &dyn Backend,
    info: &SnapshotInfo,
    restorer: &mut Restorer<'_>,
    context: &LoadContext<'_>,
) -> Result<(), ReadError> {
    let file = FileId { kind: FileKind::Snapshot, number: info.number };
    let mut reader = FrameReader::new(backend.open(file)?)?;
    let mut body = Vec::new();
    let (mut sequence, mut called) = (0, 0);
    loop {
        let offset = reader.offset();
        let read = reader.skip(|kind| kind != FrameKind::SnapshotEntries, &mut body);
        let taken = read.and_then(|frame| {
            let expected = HEADER_BYTES;
            let frame = frame.ok_or(BadFrame::Short { found: 0, expected })?;
            frame.follows(sequence, called)?;
            (sequence, called) = (frame.header.sequence, frame.called);
            match frame.header.kind {
                FrameKind::SnapshotHead => apply_head(&frame, &body, restorer, context.now)?,
                FrameKind::SnapshotTail => apply(&frame, &body, &mut |record| {
                    restorer.apply(record, context.now);
                })?,
                kind => return Ok(kind),
            }
            context.arrive(&frame, &body)?;
            Ok(frame.header.kind)
        });
        match taken {
            Ok(FrameKind::SnapshotEnd) => return Ok(()),
            Ok(_) => {}
            Err(why) => return Err(ReadError::of(file, offset, why)),
        }
    }
}

/// Finds the places of a snapshot's entries, until `is_stopped`.
///
/// # Errors
/// The disk refuses, or something is damaged: a frame's entries are not found, or all from there on.
pub(super) fn index(
    backend: &dyn Backend,
    number: u64,
    tier_file: TierFile<'_>,
    is_stopped: &dyn Fn() -> bool,
) -> Result<(), ReadError> {
    let file = FileId { kind: FileKind::Snapshot, number };
    let mut reader = FrameReader::new(backend.open(file)?)?;
    let (mut body, mut damage) = (Vec::new(), Ok(()));
    while !is_stopped() {
        let offset = reader.offset();
        let taken = reader.next(&mut body).and_then(|frame| {
            let Some(frame) = frame else { return Ok(false) };
            match frame.header.kind {
                FrameKind::SnapshotHead => {}
                FrameKind::SnapshotEntries => {
                    check(&frame.header, &body)?;
                    let begin = frame.body_offset();
                    let indexed = tier_file.tier.index(tier_file.engine, tier_file.file, begin, &body);
                    indexed.map_err(|what| BadFrame::Records { sequence: frame.header.sequence, what })?;
                }
                // What comes behind the entries has arrived before.
                _ => return Ok(false),
            }
            Ok(true)
        });
        match taken {
            Ok(true) => {}
            Ok(false) => break,
            Err(FrameError::Backend(error)) => return Err(error.into()),
            Err(why) => {
                tier_file.tier.counters().damaged.fetch_add(1, Ordering::Relaxed);
                damage = damage.and_then(|()| Err(ReadError::of(file, offset, why)));
                if reader.offset() == offset {
                    break;
                }
            }
        }
    }
    damage
}

/// Finds the places of all entries as they were at a position, by an older snapshot and the journal behind it.
///
/// # Errors
/// The disk refuses, or something is damaged, so that nothing that was found can be believed.
pub(super) fn index_at(
    backend: &dyn Backend,
    position: u64,
    older: &SnapshotInfo,
    tier: &DiskTier,
    engine: &Engine,
) -> Result<(), ReadError> {
    let file = FileId { kind: FileKind::Snapshot, number: older.number };
    let tier_file = TierFile { tier, engine, file: tier.open(file)? };
    let mut reader = FrameReader::new(backend.open(file)?)?;
    let mut body = Vec::new();
    loop {
        let offset = reader.offset();
        let taken = reader.next(&mut body).and_then(|frame| {
            let expected = HEADER_BYTES;
            let frame = frame.ok_or(BadFrame::Short { found: 0, expected })?;
            check(&frame.header, &body)?;
            let is_end = frame.header.kind == FrameKind::SnapshotEnd;
            if !is_end {
                tier_file.arrive(&frame, &body)?;
            }
            Ok(is_end)
        });
        match taken {
            Ok(false) => {}
            Ok(true) => break,
            Err(why) => return Err(ReadError::of(file, offset, why)),
        }
    }
    let (mut segments, mut unopened) = (HashMap::new(), None);
    let end = replay(backend, None, ReplayFrom::Behind(older.position), &mut |segment, frame, body| {
        if frame.header.first_position > position {
            return Ok(());
        }
        let journal = FileId { kind: FileKind::Journal, number: segment };
        let file = *segments
            .entry(segment)
            .or_insert_with(|| tier.open(journal).inspect_err(|_| unopened = Some(journal)).ok());
        file.map_or(Ok(()), |file| TierFile { file, ..tier_file }.arrive(frame, body))
    })?;
    let is_there = unopened.is_none() && end.lineage == older.lineage && end.position >= position;
    match end.damage {
        Some(damage) if damage.position <= position => Err(ReadError::Damaged(damage)),
        _ if older.position >= position || is_there => Ok(()),
        _ => {
            let place = FileId { kind: FileKind::Journal, number: end.sequence };
            let why = BadFrame::Short { found: 0, expected: HEADER_BYTES };
            Err(ReadError::of(unopened.unwrap_or(place), 0, why.into()))
        }
    }
}

/// Keys that are watched at a time while their entries are brought to memory.
const BATCH: usize = 256;
/// Entries are no longer brought to memory when this much of it is in use, in percent.
const WARM_PERCENT: u64 = 90;

/// Brings entries to memory as long as there is room for more; how many. It waits for nobody: where the journal is
/// poisoned or the disk refuses it ends.
pub(super) fn warm(
    engine: &Engine,
    reader: &TierReader<'_>,
    clock: &dyn Clock,
    is_stopped: &dyn Fn() -> bool,
) -> u64 {
    let mut brought = 0;
    for shard in 0..engine.shard_count() {
        let mut after = None;
        loop {
            let stats = engine.stats();
            if is_stopped() || stats.bytes_used > stats.bytes_limit / 100 * WARM_PERCENT {
                return brought;
            }
            let mut keys = Vec::with_capacity(BATCH);
            let next = reader.tier.scan(shard, after, BATCH, |put| {
                keys.push((put.namespace, put.key.to_vec()));
                ControlFlow::Continue(())
            });
            brought += bring(engine, reader, clock, &keys, is_stopped);
            match next {
                Ok(Scanned::UpTo(last)) => after = last,
                Ok(Scanned::All) => break,
                Err(error) if error.is_passing() => std::thread::sleep(SHORTAGE_PAUSE),
                Err(_) => return brought,
            }
        }
    }
    brought
}

fn bring(
    engine: &Engine,
    reader: &TierReader<'_>,
    clock: &dyn Clock,
    keys: &[(u16, Vec<u8>)],
    is_stopped: &dyn Fn() -> bool,
) -> u64 {
    let now = clock.now();
    let namespaces: HashMap<_, _> =
        engine.namespaces().into_iter().map(|namespace| (namespace.number(), namespace)).collect();
    let watched: Vec<(&_, &[u8], Fetch)> = keys
        .iter()
        .filter_map(|(number, key)| {
            let namespace = namespaces.get(number)?;
            Some((namespace, &**key, engine.begin_fetch(namespace, key, now)?))
        })
        .collect();
    let mut brought = 0;
    for (namespace, key, mut fetch) in watched {
        brought += loop {
            let place = (fetch.shard(), fetch.walk_hash());
            let found = match reader.fetch(place, fetch.logged(), namespace.number(), key) {
                Ok(Some(found)) => found,
                // What is not brought now is not looked for again.
                Err(error) if error.is_passing() && !is_stopped() => {
                    std::thread::sleep(SHORTAGE_PAUSE);
                    continue;
                }
                _ => {
                    engine.end_fetch(fetch);
                    break 0;
                }
            };
            let mut left = Some(fetch);
            let promoted =
                found.visit(|put| left.take().map(|fetch| engine.promote(namespace, fetch, put, now)));
            match promoted.flatten() {
                Some(Ok(is_there)) => break u64::from(is_there),
                // It was changed, or something was invalidated: what lies there now may be another.
                Some(Err(again)) => fetch = again,
                None => {
                    left.into_iter().for_each(|fetch| engine.end_fetch(fetch));
                    break 0;
                }
            }
        };
    }
    brought
}
