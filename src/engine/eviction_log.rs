//! Why keys went: a small, bounded memory of departed keys, for the reason in a miss.
//!
//! Sets of four words, newest first, each a fingerprint of the key (28 bits) and a reason (4 bits). A key is forgotten
//! when four others of its set have gone since; one miss in 2^26 is given another key's reason. The log is allocated at
//! the first eviction, so a cache that loses nothing pays nothing.

use super::op::MissReason;

const WAYS: usize = 4;
/// At most this many sets (64 KiB) …
const SETS_MAX: u64 = 4_096;
/// … and at least this many (4 KiB); between them, a 512th of the shard's limit.
const SETS_MIN: u64 = 256;
const REASON_BITS: u32 = 4;

/// A shard's memory of departed keys.
#[derive(Debug)]
pub(crate) struct EvictionLog {
    words: Vec<u32>,
    sets: usize,
}

impl EvictionLog {
    /// For a shard of `bytes_limit` bytes.
    pub(crate) fn new(bytes_limit: u64) -> Self {
        let sets = bytes_limit / 512 / (WAYS * size_of::<u32>()) as u64;
        Self { words: Vec::new(), sets: sets.clamp(SETS_MIN, SETS_MAX) as usize }
    }

    /// The shard has another limit. What is too large for a lower one is forgotten.
    pub(crate) fn resize(&mut self, bytes_limit: u64) {
        let resized = Self::new(bytes_limit);
        if resized.sets < self.sets || self.words.is_empty() {
            *self = resized;
        }
    }

    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, reason: MissReason) {
        if self.words.is_empty() {
            self.words = vec![0; self.sets * WAYS];
        }
        let set = self.set(hash);
        self.words.copy_within(set..set + WAYS - 1, set + 1);
        self.words[set] = fingerprint(hash) << REASON_BITS | reason as u32;
    }

    #[inline]
    pub(crate) fn reason(&self, hash: u64) -> MissReason {
        let set = self.set(hash);
        self.words
            .get(set..set + WAYS)
            .and_then(|words| words.iter().find(|word| *word >> REASON_BITS == fingerprint(hash)))
            .and_then(|word| {
                let reason = word & ((1 << REASON_BITS) - 1);
                MissReason::ALL.into_iter().find(|known| *known as u32 == reason)
            })
            .unwrap_or(MissReason::Unknown)
    }

    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        (self.words.len() * size_of::<u32>()) as u64
    }

    #[inline]
    fn set(&self, hash: u64) -> usize {
        (hash >> 32) as usize % self.sets * WAYS
    }
}

fn fingerprint(hash: u64) -> u32 {
    (hash as u32) >> REASON_BITS
}
