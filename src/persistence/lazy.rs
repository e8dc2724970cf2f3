//! Recovery that lets a node serve at once: its entries are read from the disk when they are asked for.
//!
//! Before the node serves, everything is applied but a snapshot's entries: its head, the changes that it carries, and
//! the journal behind it, so that conditions and counters are right ([`load_around`]). Then, while it serves, the places
//! of the entries are found ([`index`]), and as many as memory has room for are brought there ([`warm`]).

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use super::backend::{Backend, BackendError, FileId, FileKind};
use super::disk::Lookup;
use super::frame::{BadFrame, Frame, FrameKind, FrameReader, HEADER_BYTES, check};
use super::replay::Damage;
use super::snapshot::{Below, LoadContext, SnapshotInfo, apply};
use crate::clock::Clock;
use crate::engine::{Engine, Fetch, Restorer};

/// Applies what a snapshot has around its entries, whose headers alone are looked at; inside, why it cannot be believed.
///
/// # Errors
/// The disk refuses.
pub(super) fn load_around(
    backend: &dyn Backend,
    info: &SnapshotInfo,
    restorer: &mut Restorer<'_>,
    context: &LoadContext<'_>,
) -> Result<Result<(), Damage>, BackendError> {
    let file = FileId { kind: FileKind::Snapshot, number: info.number };
    let mut reader = FrameReader::new(backend.open(file)?)?;
    let mut body = Vec::new();
    let mut before = (0, 0);
    loop {
        let offset = reader.offset();
        let read = reader.skip(|kind| kind != FrameKind::SnapshotEntries, &mut body)?;
        let taken = read.and_then(|frame| {
            let expected = HEADER_BYTES;
            let frame = frame.ok_or(BadFrame::Short { found: 0, expected })?;
            follows(&frame, before)?;
            before = (frame.header.sequence, frame.called);
            if matches!(frame.header.kind, FrameKind::SnapshotHead | FrameKind::SnapshotTail) {
                apply(&frame, &body, &mut |record| {
                    restorer.apply(record, context.now);
                })?;
                context.below.map_or(Ok(()), |below| below.arrive(&frame, &body))?;
            }
            Ok(frame.header.kind)
        });
        match taken {
            Ok(FrameKind::SnapshotEnd) => return Ok(Ok(())),
            Ok(_) => {}
            Err(why) => return Ok(Err(Damage::of(file, offset, &why))),
        }
    }
}

fn follows(frame: &Frame, (sequence, called): (u64, u32)) -> Result<(), BadFrame> {
    let header = &frame.header;
    if header.sequence != sequence + 1 {
        return Err(BadFrame::Sequence { found: header.sequence, expected: sequence + 1 });
    }
    if header.previous != called {
        let (sequence, found) = (header.sequence, header.previous);
        return Err(BadFrame::Chain { sequence, found, expected: called });
    }
    Ok(())
}

/// Finds the places of a snapshot's entries, until `is_stopped`; inside, what is damaged: the entries from there on are
/// not found.
///
/// # Errors
/// The disk refuses.
pub(super) fn index(
    backend: &dyn Backend,
    number: u64,
    below: Below<'_>,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Result<(), Damage>, BackendError> {
    let file = FileId { kind: FileKind::Snapshot, number };
    let mut reader = FrameReader::new(backend.open(file)?)?;
    let mut body = Vec::new();
    while !is_stopped() {
        let offset = reader.offset();
        let taken = reader.next(&mut body)?.and_then(|frame| {
            let Some(frame) = frame else { return Ok(false) };
            match frame.header.kind {
                FrameKind::SnapshotHead => {}
                FrameKind::SnapshotEntries => {
                    check(&frame.header, &body)?;
                    let begin = frame.offset + HEADER_BYTES as u64;
                    let indexed = below.tier.index(below.engine, below.file, begin, &body);
                    indexed.map_err(|what| BadFrame::Records { sequence: frame.header.sequence, what })?;
                }
                // What comes behind the entries has arrived before.
                _ => return Ok(false),
            }
            Ok(true)
        });
        match taken {
            Ok(true) => {}
            Ok(false) => return Ok(Ok(())),
            Err(why) => {
                below.tier.counters().damaged.fetch_add(1, Ordering::Relaxed);
                return Ok(Err(Damage::of(file, offset, &why)));
            }
        }
    }
    Ok(Ok(()))
}

/// Keys that are watched at a time while their entries are brought to memory.
const BATCH: usize = 256;
/// Memory is left alone when so much of it is in use, in percent.
const WARM_PERCENT: u64 = 90;

/// Brings entries to memory as long as there is room for more; how many. It waits for nobody: where the journal is
/// poisoned or the disk refuses it ends.
pub(super) fn warm(
    engine: &Engine,
    lookup: &Lookup<'_>,
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
            let next = lookup.tier.scan(shard, after, BATCH, |put| {
                keys.push((put.namespace, put.key.to_vec()));
                ControlFlow::Continue(())
            });
            brought += bring(engine, lookup, clock, &keys);
            match next {
                Ok(Some(last)) => after = last,
                Ok(None) => break,
                Err(_) => return brought,
            }
        }
    }
    brought
}

fn bring(engine: &Engine, lookup: &Lookup<'_>, clock: &dyn Clock, keys: &[(u16, Vec<u8>)]) -> u64 {
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
    for (namespace, key, fetch) in watched {
        match lookup.fetch(&fetch, namespace.number(), key) {
            Ok(Some(found)) => {
                let mut fetch = Some(fetch);
                let promoted = found.visit(|put| {
                    fetch.take().is_some_and(|fetch| engine.promote(namespace, fetch, put, now))
                });
                brought += u64::from(promoted == Some(true));
                fetch.into_iter().for_each(|fetch| engine.end_fetch(fetch));
            }
            _ => engine.end_fetch(fetch),
        }
    }
    brought
}
