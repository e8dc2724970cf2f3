//! Copying what is live out of the files that it lies in, so that these can be deleted.
//!
//! A snapshot of a node whose entries are not all in memory goes through the files, not through memory: a record to
//! which its key's place leads is live and is copied, all others are dead. The copy's place takes the old one's unless
//! the key was changed meanwhile, so that a copy that is broken off leaves every place right, as long as what was
//! copied stays until the next one.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::DiskTier;
use super::places::Place;
use crate::engine::{Engine, Put, Record};
use crate::persistence::backend::{BackendError, FileId};
use crate::persistence::frame::{BadFrame, Frame, FrameKind, FrameReader, HEADER_BYTES, check};
use crate::persistence::record;

/// Live records on their way to another file.
#[derive(Debug, Default)]
pub struct Moves(Vec<Move>);

#[derive(Debug)]
struct Move {
    shard: usize,
    hash: u64,
    from: Place,
    /// Where it is written, counted from the body's beginning.
    range: Range<usize>,
    /// The later expiry that it was written with.
    expiry: Option<Option<u64>>,
}

/// Everything that lies in the files at the moment when this is made.
#[derive(Debug)]
pub struct Moving<'a> {
    tier: &'a DiskTier,
    engine: &'a Engine,
    files: Vec<(u32, FileId)>,
    /// Invalidations that all of it is held to.
    standing: u64,
    reader: Option<(u32, FileId, FrameReader)>,
    body: Vec<u8>,
}

/// What stopped a move: the file, where in it, and why.
type Broken = (FileId, u64, BadFrame);

impl DiskTier {
    /// Begins to move everything that has arrived up to now to the file of number `to`. Indexing must have ended.
    #[must_use]
    pub fn moving<'a>(&'a self, engine: &'a Engine, to: u32) -> Moving<'a> {
        let standing = self.standing.read().added();
        let files = self.files.read();
        let mut files: Vec<_> = files
            .by_number
            .iter()
            .filter(|(number, _)| **number != to)
            .map(|(number, (file, _))| (*number, *file))
            .collect();
        files.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        Moving { tier: self, engine, files, standing, reader: None, body: Vec::new() }
    }

    /// Leads the places of what was moved to where it was written: a body that begins at `offset` of the file.
    pub fn moved(&self, moves: &mut Moves, file: u32, offset: u64, body: &[u8]) {
        for Move { shard, hash, from, range, expiry } in moves.0.drain(..) {
            let to = Place::new(file, offset + range.start as u64, &body[range]).of(from.namespace());
            self.shards[shard].lock().lead(hash, from, to, expiry);
        }
    }

    /// Everything was moved that a mover saw: the invalidations that it was held to stand no more.
    pub fn has_moved(&self, moving: &Moving<'_>) {
        self.standing.write().forget(moving.standing);
    }

    /// How many invalidations stand.
    #[must_use]
    pub fn standing(&self) -> usize {
        self.standing.read().len()
    }
}

impl Moving<'_> {
    /// Visits the live records of the next frame, each with how many bytes it takes to note where it is written;
    /// false: that was all. Inside, what is wrong with a file.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn next(
        &mut self,
        unix_ms: u64,
        moves: &mut Moves,
        mut write: impl FnMut(&Put<'_>) -> Range<usize>,
    ) -> Result<Result<bool, Broken>, BackendError> {
        let Some((number, file, reader)) = &mut self.reader else {
            let Some((number, file)) = self.files.pop() else { return Ok(Ok(false)) };
            self.reader = Some((number, file, FrameReader::new(self.tier.backend.open(file)?)?));
            return Ok(Ok(true));
        };
        let frame = match reader.next(&mut self.body)? {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                self.reader = None;
                return Ok(Ok(true));
            }
            // What is behind here was cut off, or is being written: no place leads there.
            Err(BadFrame::Short { .. }) => {
                self.reader = None;
                return Ok(Ok(true));
            }
            Err(why) => return Ok(Err((*file, reader.offset(), why))),
        };
        if !has_entries(&frame) {
            return Ok(Ok(true));
        }
        if let Err(why) = check(&frame.header, &self.body) {
            self.tier.counters.damaged.fetch_add(1, Ordering::Relaxed);
            return Ok(Err((*file, frame.offset, why)));
        }
        let begin = frame.offset + HEADER_BYTES as u64;
        let (tier, engine, number) = (self.tier, self.engine, *number);
        let read = record::read_placed(&self.body, |range, record| {
            let Record::Put(put) = record else { return };
            let (shard, hash) = engine.place_of(put.namespace, put.key);
            let mut places = tier.shards[shard].lock();
            let Some((from, expiry)) = places.get(hash) else { return };
            if (from.file(), from.offset()) != (number, begin + range.start as u64) {
                return;
            }
            let put = Put { expires_unix_ms: expiry.unwrap_or(put.expires_unix_ms), ..*put };
            let is_expired = put.expires_unix_ms.is_some_and(|at| at <= unix_ms);
            if is_expired || tier.standing.read().covers(&put) {
                return places.drop_at(hash, from);
            }
            drop(places);
            moves.0.push(Move { shard, hash, from, range: write(&put), expiry });
        });
        let file = *file;
        Ok(read.map(|_| true).map_err(|what| {
            (file, frame.offset, BadFrame::Records { sequence: frame.header.sequence, what })
        }))
    }
}

fn has_entries(frame: &Frame) -> bool {
    matches!(frame.header.kind, FrameKind::Batch | FrameKind::SnapshotEntries | FrameKind::SnapshotTail)
}
