//! Keys that went lately and how often they had been asked for: sets of 10, each a queue in two words.
//!
//! ```text
//!  63  60 59        48               23         12 11         3 2     0
//! ┌──────┬────────────┬─ ─ ─ ─ ─ ─ ─┬────────────┬────────────┬───────┐   a word has 5 cells, a set two words;
//! │ 0    │ cell 4     │             │ cell 1     │ fingerprint│ times │   cell 0 of word 0 came last
//! └──────┴────────────┴─ ─ ─ ─ ─ ─ ─┴────────────┴────────────┴───────┘   a cell of 0: nobody's
//! ```
//!
//! A new key is shifted in and the oldest of its set falls out, so that a key's place tells its age and no clock
//! is kept. 1.6 bytes for a key; 2 in 100 strange keys are taken for one that was here.

const CELL_BITS: u32 = 12;
const CELLS_IN_WORD: u32 = 5;
const CELLS_IN_SET: usize = 2 * CELLS_IN_WORD as usize;
const CELL: u64 = (1 << CELL_BITS) - 1;
const WORD: u64 = (1 << (CELL_BITS * CELLS_IN_WORD)) - 1;
const TIMES_BITS: u32 = 3;
const TIMES: u64 = (1 << TIMES_BITS) - 1;
const FINGERPRINTS: u64 = (1 << (CELL_BITS - TIMES_BITS)) - 1;
/// A one in each cell of a word.
const IN_ALL_CELLS: u64 = 1 | 1 << CELL_BITS | 1 << 24 | 1 << 36 | 1 << 48;
const FINGERPRINTS_MASK: u64 = FINGERPRINTS * IN_ALL_CELLS;

/// What is known of a key that comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyHistory {
    /// How often it had been asked for.
    pub times: u8,
    /// Fewer others have gone since than there are entries.
    pub is_recent: bool,
}

#[derive(Debug, Default)]
pub(super) struct Remembered {
    words: Vec<u64>,
    /// The entries that it was made for.
    entries: usize,
    /// Places in a set that are as many keys, over all sets, as there are entries.
    recent_places: usize,
}

impl Remembered {
    /// Whether it was made for a number of entries that is far from this one.
    #[inline]
    pub(super) fn misfits(&self, entries: usize) -> bool {
        entries > self.entries + self.entries / 4 || entries < self.entries / 2
    }

    /// Makes it anew, empty, with room for `keys` keys beside `entries` entries.
    pub(super) fn fit(&mut self, entries: usize, keys: usize) {
        let sets = keys.div_ceil(CELLS_IN_SET).max(1);
        self.words = vec![0; sets * 2];
        self.entries = entries;
        let places = (entries * CELLS_IN_SET).div_ceil(sets * CELLS_IN_SET);
        self.recent_places = places.clamp(1, CELLS_IN_SET);
    }

    pub(super) fn clear(&mut self) {
        self.words.fill(0);
    }

    /// The number of keys that `bytes` bytes are room for.
    pub(super) const fn keys_in(bytes: usize) -> usize {
        bytes / size_of::<u64>() * CELLS_IN_WORD as usize
    }

    pub(super) fn insert(&mut self, hash: u64, times: u8) {
        let Some(set) = self.set(hash) else { return };
        let cell = fingerprint(hash) << TIMES_BITS | u64::from(times).min(TIMES);
        let [newer, older] = [self.words[set], self.words[set + 1]];
        self.words[set] = (newer << CELL_BITS | cell) & WORD;
        self.words[set + 1] = (older << CELL_BITS | newer >> (CELL_BITS * (CELLS_IN_WORD - 1))) & WORD;
    }

    /// What is known of the key, which is forgotten now.
    pub(super) fn take(&mut self, hash: u64) -> Option<KeyHistory> {
        let set = self.set(hash)?;
        let wanted = fingerprint(hash) * IN_ALL_CELLS;
        for word in 0..2 {
            let cells = self.words[set + word];
            // All five at once: Mycroft's test for zeros, of which the lowest is always right.
            let differences = cells >> TIMES_BITS & FINGERPRINTS_MASK ^ wanted;
            let zeros =
                differences.wrapping_sub(IN_ALL_CELLS) & !differences & IN_ALL_CELLS << (CELL_BITS - 1);
            if zeros != 0 {
                let place = zeros.trailing_zeros() / CELL_BITS;
                let times = (cells >> (place * CELL_BITS) & TIMES) as u8;
                self.close(set, word, place);
                let is_recent = word * CELLS_IN_WORD as usize + (place as usize) < self.recent_places;
                return Some(KeyHistory { times, is_recent });
            }
        }
        None
    }

    pub(super) fn bytes(&self) -> u64 {
        size_of_val(self.words.as_slice()) as u64
    }

    /// Takes a cell out; older ones close the gap.
    fn close(&mut self, set: usize, word: usize, place: u32) {
        let at = place * CELL_BITS;
        let cells = self.words[set + word];
        let newer = cells & ((1 << at) - 1);
        self.words[set + word] = newer | (cells >> at >> CELL_BITS) << at;
        if word == 0 {
            let oldest = CELL_BITS * (CELLS_IN_WORD - 1);
            self.words[set] |= (self.words[set + 1] & CELL) << oldest;
            self.words[set + 1] >>= CELL_BITS;
        }
    }

    fn set(&self, hash: u64) -> Option<usize> {
        let sets = self.words.len() as u64 / 2;
        // A shard's hashes have their top bits in common.
        let mixed = hash.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 32;
        (sets > 0).then(|| ((mixed * sets) >> 32) as usize * 2)
    }
}

/// 9 bits, never 0.
fn fingerprint(hash: u64) -> u64 {
    (((hash & 0xFFFF_FFFF) * FINGERPRINTS) >> 32) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        use std::hash::BuildHasher;
        foldhash::quality::FixedState::with_seed(3).hash_one(n)
    }

    #[test]
    fn a_set_is_a_queue_that_closes_its_gaps() {
        let mut remembered = Remembered::default();
        remembered.fit(10, 10);
        // One set, and a fingerprint for each.
        let keys: Vec<u64> = (1..=11).map(|n| n << 24).collect();
        for key in &keys {
            remembered.insert(*key, 2);
        }
        assert_eq!(remembered.take(keys[0]), None, "the eleventh pushed the first out");
        for key in [&keys[1..2], &keys[8..10], &keys[4..5]].concat() {
            assert_eq!(remembered.take(key), Some(KeyHistory { times: 2, is_recent: true }));
            assert_eq!(remembered.take(key), None);
        }
        remembered.insert(keys[0], 7);
        assert_eq!(remembered.take(keys[0]), Some(KeyHistory { times: 7, is_recent: true }));
        let rest = [&keys[2..4], &keys[5..8], &keys[10..]].concat();
        assert!(rest.iter().all(|key| remembered.take(*key).is_some()));
        assert!(remembered.words.iter().all(|word| *word == 0));
    }

    #[test]
    fn most_of_the_last_keys_are_known_and_few_strangers() {
        let mut remembered = Remembered::default();
        remembered.fit(10_000, 20_000);
        (0..100_000).for_each(|n| remembered.insert(hash(n), 1));
        let strangers = (200_000..210_000).filter(|n| remembered.take(hash(*n)).is_some()).count();
        assert!(strangers < 300, "{strangers} of 10000 strangers are known");
        let last: Vec<KeyHistory> = (90_000..100_000).filter_map(|n| remembered.take(hash(n))).collect();
        assert!(last.len() > 9_200, "{} of the last 10000 are known", last.len());
        let recent = last.iter().filter(|known| known.is_recent).count();
        assert!((6_500..10_000).contains(&recent), "{recent}");
        assert_eq!(remembered.bytes(), 32_000);
    }
}
