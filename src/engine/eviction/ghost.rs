//! Keys that were here lately, as fingerprints: sets of 16, each fingerprint with the time it came.
//!
//! ```text
//!  31                12 11           0
//! ┌────────────────────┬──────────────┐   age: in units of capacity / 1024 insertions, modulo 4096
//! │ fingerprint (20)   │ age (12)     │   0 as a whole word: no key
//! └────────────────────┴──────────────┘
//! ```
//!
//! A key counts as remembered while no more than `capacity` others came after it. Where a set is full its
//! oldest goes first, so a few keys are forgotten early; one key in 65,000 is taken for another.

const WAYS: usize = 16;
const AGE_BITS: u32 = 12;
const AGES: u64 = 1 << AGE_BITS;
const AGES_REMEMBERED: u64 = 1_024;

#[derive(Debug, Default)]
pub(super) struct Ghosts {
    words: Vec<u32>,
    capacity: u64,
    inserted: u64,
}

impl Ghosts {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Makes the table fit so many keys. What it remembers is lost when that is far from what it fitted before.
    pub(super) fn resize(&mut self, capacity: usize) {
        let wanted = (capacity as u64).max(16);
        if wanted * 4 > self.capacity * 5 || wanted * 2 < self.capacity {
            // Small tables spread unevenly over their sets and get more room.
            let room = if wanted < 65_536 { wanted * 2 } else { wanted + wanted / 8 };
            let sets = (room as usize).div_ceil(WAYS);
            self.words = vec![0; sets * WAYS];
            self.capacity = wanted;
            self.inserted = 0;
        }
    }

    pub(super) fn insert(&mut self, hash: u64) {
        if self.words.is_empty() {
            return;
        }
        self.inserted += 1;
        let age = self.age();
        let word = fingerprint(hash) << AGE_BITS | age as u32;
        let set = self.set(hash);
        let oldest = (0..WAYS)
            .max_by_key(|way| match self.words[set + way] {
                0 => u64::MAX,
                other => age_difference(age, other),
            })
            .expect("a set has ways");
        self.words[set + oldest] = word;
    }

    /// Whether the key is remembered; it is forgotten now.
    pub(super) fn take(&mut self, hash: u64) -> bool {
        if self.words.is_empty() {
            return false;
        }
        let set = self.set(hash);
        let (age, fingerprint) = (self.age(), fingerprint(hash));
        for word in &mut self.words[set..set + WAYS] {
            if *word >> AGE_BITS == fingerprint && *word != 0 && age_difference(age, *word) <= AGES_REMEMBERED
            {
                *word = 0;
                return true;
            }
        }
        false
    }

    pub(super) fn bytes(&self) -> u64 {
        (self.words.len() * size_of::<u32>()) as u64
    }

    fn age(&self) -> u64 {
        // Scaled so that `capacity` insertions are 1024 ages.
        (self.inserted * AGES_REMEMBERED / self.capacity) % AGES
    }

    fn set(&self, hash: u64) -> usize {
        let sets = (self.words.len() / WAYS) as u64;
        (((hash >> 32) * sets) >> 32) as usize * WAYS
    }
}

fn age_difference(now: u64, word: u32) -> u64 {
    (now + AGES - u64::from(word) % AGES) % AGES
}

/// Never 0, so that no word with a fingerprint is.
fn fingerprint(hash: u64) -> u32 {
    (hash as u32 >> AGE_BITS).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        use std::hash::BuildHasher;
        foldhash::quality::FixedState::with_seed(7).hash_one(n)
    }

    #[test]
    fn the_last_capacity_keys_are_remembered_and_older_ones_are_not() {
        for capacity in [100usize, 10_000, 100_000] {
            let mut ghosts = Ghosts::new();
            ghosts.resize(capacity);
            let total = capacity as u64 * 5;
            for n in 0..total {
                ghosts.insert(hash(n));
            }
            let recent = (total - capacity as u64..total).filter(|n| ghosts.take(hash(*n))).count();
            assert!(recent * 100 >= capacity * 93, "{recent} of the last {capacity} are remembered");
            let old = (0..total - 2 * capacity as u64).filter(|n| ghosts.take(hash(*n))).count();
            assert!(old * 1000 <= total as usize, "{old} of {total} old keys are taken for new ones");
        }
    }
}
