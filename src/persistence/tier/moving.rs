//! Copying what is live out of the files that it lies in, so that these can be deleted.
//!
//! A snapshot of a node whose entries are not all in memory goes through the files, not through memory: a record to
//! which its key's location leads is live and is copied, all others are dead. The copy's location takes the old one's unless
//! the key was changed meanwhile, so that a copy that is broken off leaves every location right, as long as what was
//! copied stays until the next one.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::DiskTier;
use super::record_index::RecordLocation;
use crate::clock::Now;
use crate::engine::{Engine, Put, Record, WalkCursor};
use crate::entry::Expiry;
use crate::persistence::backend::{BackendError, FileId, ReadAt};
use crate::persistence::frame::{BadFrame, Frame, FrameError, FrameKind, FrameReader, check};
use crate::persistence::record;

/// Live records on their way to another file.
#[derive(Debug, Default)]
pub struct Moves(Vec<Move>);

#[derive(Debug)]
struct Move {
    shard: usize,
    hash: u64,
    from: RecordLocation,
    /// Where it is written, counted from the body's beginning.
    range: Range<usize>,
    /// The later expiry that it was written with.
    expiry: Option<Expiry>,
}

/// Everything that lies in the files at the moment when this is made.
#[derive(Debug)]
pub struct Moving<'a> {
    tier: &'a DiskTier,
    engine: &'a Engine,
    files: Vec<(u32, FileId, Arc<dyn ReadAt>)>,
    /// Invalidations that all of it is held to.
    pending_invalidations: u64,
    reader: Option<(u32, FileId, FrameReader)>,
    body: Vec<u8>,
    /// What leads into a damaged part of a file, which is read record by record.
    salvaged: Vec<(usize, u64, RecordLocation)>,
    /// Records that are not as they were written, by shard and hash: memory may have them.
    lost: HashMap<(usize, u64), RecordLocation>,
    /// How far memory was gone through for those.
    walked: WalkCursor,
}

/// How long an operation takes at most that goes by an earlier clock than what is dropped as expired.
const UNDER_WAY_MS: u64 = 60_000;

/// Records that are salvaged at a time.
const SALVAGED_AT_A_TIME: usize = 256;

impl DiskTier {
    /// Begins to move everything that has arrived up to now to the file of number `to`. Indexing must have ended.
    #[must_use]
    pub fn moving<'a>(&'a self, engine: &'a Engine, to: u32) -> Moving<'a> {
        let pending_invalidations = self.pending_invalidations.read().added();
        let files = self.files.read();
        let mut files: Vec<_> = files
            .by_number
            .iter()
            .filter(|(number, _)| **number != to)
            .map(|(number, (file, reader))| (*number, *file, Arc::clone(reader)))
            .collect();
        files.sort_unstable_by_key(|(number, ..)| std::cmp::Reverse(*number));
        let (lost, walked) = (HashMap::new(), WalkCursor::default());
        let (reader, body, salvaged) = (None, Vec::new(), Vec::new());
        Moving { tier: self, engine, files, pending_invalidations, reader, body, salvaged, lost, walked }
    }

    /// Leads the locations of what was moved to where it was written: a body that begins at `offset` of the file.
    pub fn moved(&self, moves: &mut Moves, file: u32, offset: u64, body: &[u8]) {
        for Move { shard, hash, from, range, expiry } in moves.0.drain(..) {
            let to =
                RecordLocation::new(file, offset + range.start as u64, &body[range]).of(from.namespace());
            self.shards[shard].lock().lead(hash, from, to, expiry);
        }
    }

    /// Reads a file's frames: of the one that is being written those that have arrived. Through the descriptor that lookups
    /// use: under its name the file may not be found any more.
    fn reader(&self, number: u32, file: Arc<dyn ReadAt>) -> Result<FrameReader, BackendError> {
        // Asked before: a file is cut to what was appended before the next one is written.
        let written = self.files.read().written;
        let reader = FrameReader::new(file)?;
        Ok(match written {
            Some((written, end)) if written == number => reader.until(end),
            _ => reader,
        })
    }

    /// What leads into a part of a file.
    fn places_in(&self, file: u32, part: Range<u64>) -> Vec<(usize, u64, RecordLocation)> {
        let mut found = Vec::new();
        for (shard, locations) in self.shards.iter().enumerate() {
            locations.lock().each(|hash, location, _| {
                if location.file() == file && part.contains(&location.offset()) {
                    found.push((shard, hash, location));
                }
            });
        }
        found
    }

    /// Everything was moved that a mover saw: the invalidations that it was held to stand no more.
    pub fn has_moved(&self, moving: &Moving<'_>) {
        self.pending_invalidations.write().forget(moving.pending_invalidations);
    }

    /// How many invalidations stand.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn pending_invalidations(&self) -> usize {
        self.pending_invalidations.read().len()
    }
}

impl Moving<'_> {
    /// Visits the live records of the next frame, each with how many bytes it takes to note where it is written; false:
    /// that was all. Everything that was logged before `now` must have arrived: an entry that had expired long before
    /// is dropped, and a touch that is under way must not be. Damage is logged and noted in [`DiskTier::is_damaged`],
    /// and of what is around it every record that is whole is visited.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn next(
        &mut self,
        now: Now,
        moves: &mut Moves,
        mut write: impl FnMut(&Put<'_>) -> Range<usize>,
    ) -> Result<bool, BackendError> {
        if !self.salvaged.is_empty() {
            self.salvage(now, moves, &mut write)?;
            return Ok(true);
        }
        let Some((number, file, reader)) = &mut self.reader else {
            let Some((number, file, open)) = self.files.pop() else {
                return Ok(!self.lost.is_empty() && self.walk_memory(now, moves, &mut write));
            };
            self.reader = Some((number, file, self.tier.reader(number, open)?));
            return Ok(true);
        };
        let (number, file, begin) = (*number, *file, reader.offset());
        let mut body = std::mem::take(&mut self.body);
        let read = reader.next(&mut body);
        let (offset, end) = (reader.offset(), reader.end());
        match read.and_then(|frame| Ok(self.frame(frame, &body, (number, now), moves, &mut write)?)) {
            Ok(true) => {}
            Ok(false) => self.reader = None,
            Err(FrameError::Backend(error)) => return Err(error),
            Err(FrameError::Bad(why)) => {
                let is_passed = offset > begin;
                // A tail that a crash has torn off is here too: nothing leads there.
                self.salvaged = self.tier.places_in(number, begin..if is_passed { offset } else { end });
                if !self.salvaged.is_empty() {
                    tracing::error!(%file, offset = begin, %why, "damage on disk: what is whole there is saved");
                    self.tier.set_damaged(file);
                }
                if !is_passed {
                    self.reader = None;
                }
            }
        }
        self.body = body;
        Ok(true)
    }

    /// Visits a frame's live records; whether there was a frame.
    fn frame(
        &self,
        frame: Option<Frame>,
        body: &[u8],
        (number, now): (u32, Now),
        moves: &mut Moves,
        write: &mut impl FnMut(&Put<'_>) -> Range<usize>,
    ) -> Result<bool, BadFrame> {
        let Some(frame) = frame else { return Ok(false) };
        if has_entries(&frame) {
            check(&frame.header, body)?;
            let begin = frame.body_offset();
            let read = record::read_placed(body, |range, record| {
                self.record(record, (number, begin + range.start as u64), now, moves, write);
            });
            read.map_err(|what| BadFrame::Records { sequence: frame.header.sequence, what })?;
        }
        Ok(true)
    }

    /// Visits a record that lies here, if it is live.
    fn record(
        &self,
        record: &Record<'_>,
        here: (u32, u64),
        now: Now,
        moves: &mut Moves,
        write: &mut impl FnMut(&Put<'_>) -> Range<usize>,
    ) {
        let Record::Put(put) = record else { return };
        let (shard, hash) = self.engine.shard_and_walk_hash(put.namespace, put.key);
        let mut locations = self.tier.shards[shard].lock();
        let Some((from, expiry)) = locations.get(hash) else { return };
        if (from.file(), from.offset()) != here {
            return;
        }
        let put = Put { expiry: expiry.unwrap_or(put.expiry), ..*put };
        let long_before = now.steady_ms.saturating_sub(UNDER_WAY_MS);
        if put.expiry.is_past(long_before) || self.tier.pending_invalidations.read().covers(&put) {
            return locations.drop_at(hash, from);
        }
        drop(locations);
        moves.0.push(Move { shard, hash, from, range: write(&put), expiry });
    }

    /// Visits some of what leads into a damaged part.
    fn salvage(
        &mut self,
        now: Now,
        moves: &mut Moves,
        write: &mut impl FnMut(&Put<'_>) -> Range<usize>,
    ) -> Result<(), BackendError> {
        let rest = self.salvaged.len().saturating_sub(SALVAGED_AT_A_TIME);
        for (shard, hash, location) in self.salvaged.split_off(rest) {
            let reader =
                self.tier.files.read().by_number.get(&location.file()).map(|(_, reader)| Arc::clone(reader));
            let mut bytes = vec![0; location.len() as usize];
            let read = reader.map_or(Ok(0), |reader| reader.read_at(location.offset(), &mut bytes))?;
            let is_whole = read == bytes.len() && location.is_of(&bytes);
            let visit = |record: &Record<'_>| {
                self.record(record, (location.file(), location.offset()), now, moves, write);
            };
            if !is_whole || record::read(&bytes, visit).is_err() {
                self.tier.counters.damaged.fetch_add(1, Ordering::Relaxed);
                self.lost.insert((shard, hash), location);
            }
        }
        Ok(())
    }

    /// Visits, of the records that are lost on disk, some that memory has; false: that was all, and those that it has
    /// not are given up.
    fn walk_memory(
        &mut self,
        now: Now,
        moves: &mut Moves,
        write: &mut impl FnMut(&Put<'_>) -> Range<usize>,
    ) -> bool {
        let (engine, lost) = (self.engine, &mut self.lost);
        let more = engine.walk(&mut self.walked, now, |record| {
            let Record::Put(put) = record else { return };
            let (shard, hash) = engine.shard_and_walk_hash(put.namespace, put.key);
            if let Some(from) = lost.remove(&(shard, hash)) {
                // What memory says of its expiry is the latest.
                moves.0.push(Move { shard, hash, from, range: write(put), expiry: None });
            }
        });
        if !more {
            for ((shard, hash), location) in lost.drain() {
                self.tier.shards[shard].lock().drop_at(hash, location);
            }
        }
        more
    }
}

fn has_entries(frame: &Frame) -> bool {
    matches!(frame.header.kind, FrameKind::Batch | FrameKind::SnapshotEntries | FrameKind::SnapshotTail)
}
