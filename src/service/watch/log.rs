//! The log of events that all watchers of a node read: bounded in bytes and in age.
//!
//! Events lie in *chunks*, each what was taken out of the shards at one time, encoded as it is sent. Chunks are numbered,
//! so that where a watcher is in the log is one number. A watcher whose next chunk was dropped has lost events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// How long events are kept, so that a stream that breaks can go on where it was.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(300);
/// What a chunk takes beside its events and parts: its place in the log, and what the allocator rounds.
const CHUNK_BYTES: usize = 160;

/// Events that were taken out of the shards together.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    /// The events in their frames, those of a shard in their order.
    pub(super) bytes: Bytes,
    pub(super) parts: Arc<[Part]>,
    pub(super) added: Instant,
}

/// The events of one shard in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) shard: u32,
    /// Where its bytes end; they begin where the part before ends.
    pub(super) end: u32,
    /// The sequences of its first and last event.
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Chunk {
    fn size(&self) -> usize {
        CHUNK_BYTES + self.bytes.len() + size_of_val(&*self.parts)
    }

    /// Each part with its events.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&Part, &[u8])> {
        let mut begin = 0;
        self.parts.iter().map(move |part| {
            let end = part.end as usize;
            (part, &self.bytes[std::mem::replace(&mut begin, end)..end])
        })
    }
}

/// The last events of all shards.
#[derive(Debug)]
pub(super) struct EventLog {
    chunks: VecDeque<Chunk>,
    /// The number of the first chunk.
    first: u64,
    bytes: usize,
    bytes_max: usize,
    /// How far each shard has come.
    heads: Vec<u64>,
    /// From which position on the log has each shard's events.
    tails: Vec<u64>,
}

impl EventLog {
    /// An empty log of shards that have come this far.
    pub(super) fn new(heads: Vec<u64>, bytes_max: usize) -> Self {
        Self { chunks: VecDeque::new(), first: 0, bytes: 0, bytes_max, tails: heads.clone(), heads }
    }

    /// Drops what there is no room for any more; whether that changed anything.
    pub(super) fn set_bytes_max(&mut self, bytes_max: usize) -> bool {
        let was = std::mem::replace(&mut self.bytes_max, bytes_max);
        self.drop_excess();
        was != bytes_max
    }

    fn drop_excess(&mut self) {
        while self.bytes > self.bytes_max {
            self.drop_first();
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn heads(&self) -> &[u64] {
        &self.heads
    }

    /// The number that the next chunk gets.
    pub(super) fn end(&self) -> u64 {
        self.first + self.chunks.len() as u64
    }

    /// The chunks from this number on; `None`: that one was dropped.
    pub(super) fn from(&self, number: u64) -> Option<impl Iterator<Item = &Chunk>> {
        let index = number.checked_sub(self.first)?;
        Some(self.chunks.range(usize::try_from(index).ok()?.min(self.chunks.len())..))
    }

    /// Adds a chunk, and drops those that there is no room for any more.
    pub(super) fn push(&mut self, chunk: Chunk) {
        for part in &*chunk.parts {
            self.heads[part.shard as usize] = part.last;
        }
        self.bytes += chunk.size();
        self.chunks.push_back(chunk);
        self.drop_excess();
    }

    /// Drops what is too old at this time.
    pub(super) fn forget(&mut self, now: Instant) {
        let is_old = |chunk: &Chunk| now.saturating_duration_since(chunk.added) > KEPT_FOR;
        while self.chunks.front().is_some_and(is_old) {
            self.drop_first();
        }
    }

    /// Events of a shard were lost before they came here: every watcher has lost some.
    pub(super) fn lose(&mut self, shard: usize, sequence: u64) {
        self.heads[shard] = sequence;
        while !self.chunks.is_empty() {
            self.drop_first();
        }
        self.first += 1;
        self.tails.clone_from(&self.heads);
    }

    fn drop_first(&mut self) {
        let Some(chunk) = self.chunks.pop_front() else { return };
        self.first += 1;
        self.bytes -= chunk.size();
        for part in &*chunk.parts {
            self.tails[part.shard as usize] = part.last;
        }
    }

    /// The number of the chunk from which on the log has all events of each shard after these positions; `None`: it no
    /// longer has them.
    pub(super) fn after(&self, positions: &[u64]) -> Option<u64> {
        let is_behind = |(position, tail): (&u64, &u64)| position < tail;
        if positions.iter().zip(&self.tails).any(is_behind) {
            return None;
        }
        // Shards that have come further, and whose first event after the position was not met yet.
        let mut missing: Vec<bool> =
            positions.iter().zip(&self.heads).map(|(position, head)| position < head).collect();
        let mut left = missing.iter().filter(|missing| **missing).count();
        let mut number = self.end();
        for chunk in self.chunks.iter().rev() {
            if left == 0 {
                break;
            }
            number -= 1;
            for part in &*chunk.parts {
                let shard = part.shard as usize;
                if missing[shard] && part.first <= positions[shard] + 1 {
                    missing[shard] = false;
                    left -= 1;
                }
            }
        }
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic;

    /// Each shard's first and last sequence.
    fn chunk(parts: &[(u32, u64, u64)], added: Instant) -> Chunk {
        let mut end = 0;
        let part = |(shard, first, last): &(u32, u64, u64)| {
            end += 10;
            Part { shard: *shard, end, first: *first, last: *last }
        };
        let parts: Arc<[Part]> = parts.iter().map(part).collect();
        Chunk { bytes: vec![0; parts.len() * 10].into(), parts, added }
    }

    fn log(bytes_max: usize) -> EventLog {
        let now = monotonic();
        let mut log = EventLog::new(vec![10, 20, 30], bytes_max);
        log.push(chunk(&[(0, 11, 12), (1, 21, 21)], now));
        log.push(chunk(&[(0, 13, 13)], now));
        log.push(chunk(&[(1, 22, 25), (0, 14, 14)], now));
        log
    }

    #[test]
    fn a_log_goes_on_from_the_latest_chunk_that_has_all_that_is_missed() {
        let log = log(1 << 20);
        assert_eq!((log.heads(), log.end()), (&[14, 25, 30][..], 3));
        for (positions, number) in [
            ([14, 25, 30], Some(3)),
            ([13, 25, 30], Some(2)),
            ([14, 23, 30], Some(2)),
            ([12, 25, 30], Some(1)),
            ([12, 20, 30], Some(0)),
            ([10, 20, 30], Some(0)),
            ([9, 20, 30], None),
            ([14, 25, 29], None),
        ] {
            assert_eq!(log.after(&positions), number, "{positions:?}");
        }
    }

    #[test]
    fn a_log_that_is_full_drops_its_oldest_and_says_so() {
        let mut log = log(1 << 20);
        let bytes = log.bytes();
        assert!(log.set_bytes_max(bytes) && !log.set_bytes_max(bytes));
        log.push(chunk(&[(2, 31, 31)], monotonic()));
        assert!(log.bytes() <= bytes && log.from(0).is_none());
        assert_eq!(log.from(1).unwrap().count(), 3);
        assert_eq!(
            (log.after(&[12, 21, 30]), log.after(&[11, 21, 30]), log.after(&[12, 20, 30])),
            (Some(1), None, None)
        );
        log.forget(monotonic() + KEPT_FOR + Duration::from_secs(1));
        assert_eq!((log.bytes(), log.end(), log.from(4).unwrap().count()), (0, 4, 0));
        assert_eq!((log.after(&[14, 25, 31]), log.after(&[14, 25, 30])), (Some(4), None));
    }

    #[test]
    fn events_that_were_lost_are_lost_to_all() {
        let mut log = log(1 << 20);
        log.lose(1, 40);
        assert!(log.from(3).is_none(), "who had read all of it has lost some too");
        assert_eq!((log.bytes(), log.heads()), (0, &[14, 40, 30][..]));
        assert_eq!((log.after(&[14, 40, 30]), log.after(&[14, 25, 30])), (Some(4), None));
    }

    #[test]
    fn a_chunks_parts_have_their_bytes() {
        let chunk = chunk(&[(0, 1, 1), (4, 9, 12)], monotonic());
        let parts: Vec<(u32, usize)> = chunk.parts().map(|(part, bytes)| (part.shard, bytes.len())).collect();
        assert_eq!(parts, [(0, 10), (4, 10)]);
    }
}
