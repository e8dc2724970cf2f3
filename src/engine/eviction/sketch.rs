//! How often keys were asked for lately: a count-min sketch (Cormode & Muthukrishnan, 2005) of 4-bit counters.
//!
//! ```text
//!  word 0                          word 1
//!  ┌────┬────┬────┬─ ─ ─┬────┐     ┌────┬─ ─    16 counters of 4 bits a word, 16 to 32 of them for each entry
//!  │ 3  │ 0  │ 7  │     │ 1  │     │ 0  │
//!  └────┴────┴────┴─ ─ ─┴────┘     └────┴─ ─
//! ```
//!
//! A key has four counters, anywhere in the table; its frequency is the least of them. They stop at 15. Once ten
//! requests for each entry have been counted all counters are halved, eight words with each request, so that no
//! request waits for it; meanwhile those that are still to be halved are read as if they were, and count double.
//!
//! Costs 8 to 16 B an entry.

/// Counters of a key.
const ROWS: usize = 4;
/// The most that a counter holds.
const COUNT_MAX: u64 = 15;
/// Requests for each entry after which all counters are halved.
const REQUESTS_PER_ENTRY: usize = 10;
/// Words that are halved with a request.
const HALVED_PER_REQUEST: usize = 8;
/// Times what they need: words that are too many for the entries.
const WORDS_TOO_MANY: usize = 8;
/// The lowest bit of every counter, and all bits but the highest.
const LOWEST: u64 = 0x1111_1111_1111_1111;
const BUT_HIGHEST: u64 = 0x7777_7777_7777_7777;

#[derive(Debug, Default)]
pub(super) struct Sketch {
    words: Vec<u64>,
    entries: usize,
    /// Requests counted since the counters were halved last.
    requests: usize,
    /// The words from here on are still to be halved.
    halved: usize,
}

impl Sketch {
    /// Makes it fit `entries` entries at least. When it grows it keeps what it counted.
    pub(super) fn fit(&mut self, entries: usize) {
        self.entries = entries;
        let words = Self::words_for(entries);
        if self.words.is_empty() {
            self.words = vec![0; words];
            self.halved = words;
        }
        while self.words.len() < words {
            self.finish_halving();
            // A counter's number has one more bit of the hash now: both that it may be are what it was.
            self.words.extend_from_within(..);
            self.halved = self.words.len();
        }
    }

    /// Starts over with a table for `entries` entries, if it is far larger than they need.
    pub(super) fn shrink(&mut self, entries: usize) {
        let words = Self::words_for(entries);
        if self.words.len() > WORDS_TOO_MANY * words {
            *self = Self { words: vec![0; words], entries, requests: 0, halved: words };
        }
    }

    /// Counts a request.
    #[inline]
    pub(super) fn increment(&mut self, hash: u64) {
        if self.words.is_empty() {
            return;
        }
        let mut counted = false;
        for (word, shift) in self.counters(hash) {
            let count = self.words[word] >> shift & COUNT_MAX;
            if count < COUNT_MAX {
                let more = if word < self.halved { 1 } else { 2.min(COUNT_MAX - count) };
                self.words[word] += more << shift;
                counted = true;
            }
        }
        self.requests += usize::from(counted);
        if self.halved < self.words.len() {
            self.halve_some();
        } else if self.requests >= self.entries.max(1) * REQUESTS_PER_ENTRY {
            self.requests /= 2;
            self.halved = 0;
        }
    }

    /// How often the key was asked for lately, 0 to 15.
    pub(super) fn frequency(&self, hash: u64) -> u8 {
        if self.words.is_empty() {
            return 0;
        }
        let counts = self.counters(hash).map(|(word, shift)| {
            let count = (self.words[word] >> shift & COUNT_MAX) as u8;
            if word < self.halved { count } else { count / 2 }
        });
        counts.into_iter().fold(COUNT_MAX as u8, u8::min)
    }

    /// What it takes, in bytes, once it fits `entries` entries.
    pub(super) fn bytes_for(&self, entries: usize) -> u64 {
        (self.words.len().max(Self::words_for(entries)) * size_of::<u64>()) as u64
    }

    fn words_for(entries: usize) -> usize {
        entries.next_power_of_two().max(2 * HALVED_PER_REQUEST)
    }

    fn finish_halving(&mut self) {
        while self.halved < self.words.len() {
            self.halve_some();
        }
    }

    fn halve_some(&mut self) {
        let mut odd = 0;
        for word in &mut self.words[self.halved..self.halved + HALVED_PER_REQUEST] {
            odd += (*word & LOWEST).count_ones() as usize;
            *word = *word >> 1 & BUT_HIGHEST;
        }
        // What odd counters lose beyond the half is no request any more; each was counted in all rows.
        self.requests = self.requests.saturating_sub(odd / (2 * ROWS));
        self.halved += HALVED_PER_REQUEST;
    }

    /// The word and the shift of each of a key's counters.
    fn counters(&self, hash: u64) -> [(usize, u32); ROWS] {
        // The hash's top bits may be the same for all keys here: they choose the shard.
        let mixed = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let (start, step) = (mixed >> 32, (mixed ^ hash) & 0xFFFF_FFFF | 1);
        let mask = self.words.len() * 16 - 1;
        std::array::from_fn(|row| {
            let spread = start.wrapping_add(step.wrapping_mul(row as u64 + 1));
            let number = (spread.wrapping_mul(0xC2B2_AE3D_27D4_EB4F) >> 20) as usize & mask;
            (number / 16, (number % 16 * 4) as u32)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        use std::hash::BuildHasher;
        foldhash::quality::FixedState::with_seed(3).hash_one(n)
    }

    #[test]
    fn counts_are_seldom_too_high_and_never_too_low_until_they_are_halved() {
        let mut sketch = Sketch::default();
        sketch.fit(1_000);
        for n in 0..1_000 {
            (0..n % 8).for_each(|_| sketch.increment(hash(n)));
        }
        let frequency = |n: u64| u64::from(sketch.frequency(hash(n)));
        assert!((0..1_000).all(|n| frequency(n) >= n % 8));
        let right = (0..1_000).filter(|n| frequency(*n) == n % 8).count();
        assert!(right >= 900, "{right} of 1000");
    }

    #[test]
    fn counts_stop_at_fifteen_and_are_halved_after_ten_requests_for_each_entry() {
        let mut sketch = Sketch::default();
        sketch.fit(100);
        (0..40).for_each(|_| sketch.increment(hash(1)));
        assert_eq!(sketch.frequency(hash(1)), 15);
        (1_000..3_000).for_each(|n| sketch.increment(hash(n)));
        assert!(sketch.frequency(hash(1)) <= 7);
    }

    #[test]
    fn growing_keeps_what_was_counted() {
        let mut sketch = Sketch::default();
        sketch.fit(100);
        (0..5).for_each(|_| sketch.increment(hash(1)));
        sketch.fit(10_000);
        assert_eq!(sketch.frequency(hash(1)), 5);
        assert_eq!(sketch.bytes_for(1), 8 * 16_384);
        sketch.shrink(100);
        assert_eq!((sketch.bytes_for(100), sketch.frequency(hash(1))), (8 * 128, 0));
    }
}
