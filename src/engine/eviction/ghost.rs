//! Keys that were here lately, in one list or more, each in the order in which they left.
//!
//! A table of sets of 16 words; a key has two sets and takes the emptier one, so that the table fills to nine
//! tenths before a key goes too early.
//!
//! ```text
//!  31               13  12  11           0
//! ┌───────────────────┬────┬──────────────┐   tick: when it came, in the list's own time, modulo the ticks
//! │ fingerprint (19)  │list│ tick (12)    │   0 as a whole word: no key
//! └───────────────────┴────┴──────────────┘
//! ```
//!
//! A list knows how many keys each tick still has, and therefore its length and which tick is its oldest; the
//! oldest key is discarded by counting it off its tick. Up to 1024 keys a tick is one key, and the order exact;
//! beyond that it is exact to a thousandth of the keys. One key in 16,000 is taken for another.
//!
//! Costs 4.5 B for each key that it fits (6 B below 4096 keys) and 8 KiB at most for the ticks of each list.

const WAYS: usize = 16;
const TICK_BITS: u32 = 12;
const LIST_BITS: u32 = 1;
/// Above every tick.
const AGE_OF_FREE: u32 = 1 << TICK_BITS;
/// Ticks in which the table's capacity of keys comes; a list may span four times as many.
const TICKS_OF_CAPACITY: usize = 1_024;
const CAPACITY_MIN: usize = 16;
/// So that a tick's keys can be counted in 16 bits.
const CAPACITY_MAX: usize = TICKS_OF_CAPACITY * u16::MAX as usize;
/// From here on the sets' loads even out.
const CAPACITY_LARGE: usize = 4_096;

/// One or two lists of ghosts in one table.
#[derive(Debug)]
pub(super) struct Ghosts<const LISTS: usize> {
    words: Vec<u32>,
    capacity: usize,
    lists: [Ticks; LISTS],
}

impl<const LISTS: usize> Ghosts<LISTS> {
    pub(super) fn new() -> Self {
        const { assert!(LISTS <= 1 << LIST_BITS) };
        Self { words: Vec::new(), capacity: 0, lists: std::array::from_fn(|_| Ticks::default()) }
    }

    /// Makes the table fit `capacity` keys. What it remembers is lost when that is far from what it fitted before.
    pub(super) fn resize(&mut self, capacity: usize) {
        let wanted = capacity.clamp(CAPACITY_MIN, CAPACITY_MAX);
        if wanted * 4 > self.capacity * 5 || wanted * 2 < self.capacity {
            let spare = if wanted < CAPACITY_LARGE { wanted / 2 } else { wanted / 8 };
            self.words = vec![0; (wanted + spare).next_multiple_of(WAYS)];
            self.capacity = wanted;
            self.lists = std::array::from_fn(|_| Ticks::new(wanted));
        }
    }

    /// Keys in a list.
    pub(super) fn len(&self, list: usize) -> usize {
        self.lists[list].len
    }

    /// Remembers a key as its list's newest.
    pub(super) fn insert(&mut self, list: usize, hash: u64) {
        if self.words.is_empty() {
            return;
        }
        let [first, second] = self.sets(hash);
        let mut room = self.room_in(first);
        if room.0 < AGE_OF_FREE {
            room = room.max(self.room_in(second));
        }
        let (_, at) = room;
        self.forget(at);
        let tick = self.lists[list].push();
        self.words[at] = fingerprint(hash) | (list as u32) << TICK_BITS | tick;
    }

    /// The list that the key was in; it is forgotten now.
    pub(super) fn take(&mut self, hash: u64) -> Option<usize> {
        if self.words.is_empty() {
            return None;
        }
        for set in self.sets(hash) {
            for at in set..set + WAYS {
                if self.words[at] >> (TICK_BITS + LIST_BITS) == fingerprint(hash) >> (TICK_BITS + LIST_BITS)
                    && self.is_alive(self.words[at])
                {
                    let list = list_of(self.words[at]);
                    self.forget(at);
                    return Some(list);
                }
            }
        }
        None
    }

    /// Forgets a list's oldest key.
    pub(super) fn discard_oldest(&mut self, list: usize) {
        self.lists[list].discard_oldest();
    }

    pub(super) fn bytes(&self) -> u64 {
        let ticks: usize = self.lists.iter().map(|list| size_of_val(&*list.counts)).sum();
        (size_of_val(&*self.words) + ticks) as u64
    }

    /// The place in a set that a new key takes, with its age: a free one, or else that of the oldest key. Empties
    /// the words that are nobody's any more, so that none lives to see its tick come again.
    fn room_in(&mut self, set: usize) -> (u32, usize) {
        let mut oldest = (0, set);
        for at in set..set + WAYS {
            let word = self.words[at];
            let age = if self.is_alive(word) {
                self.lists[list_of(word)].age(word)
            } else {
                self.words[at] = 0;
                AGE_OF_FREE
            };
            oldest = oldest.max((age, at));
        }
        oldest
    }

    fn forget(&mut self, at: usize) {
        let word = std::mem::take(&mut self.words[at]);
        if self.is_alive(word) {
            self.lists[list_of(word)].remove(word);
        }
    }

    #[inline]
    fn is_alive(&self, word: u32) -> bool {
        word != 0 && list_of(word) < LISTS && self.lists[list_of(word)].has(word)
    }

    /// Where the key's sets begin. The hash's top bits may be the same for all keys here: they choose the shard.
    fn sets(&self, hash: u64) -> [usize; 2] {
        let sets = (self.words.len() / WAYS) as u64;
        [0x9E37_79B9_7F4A_7C15, 0xC2B2_AE3D_27D4_EB4F].map(|odd: u64| {
            let mixed = hash.wrapping_mul(odd) >> 32;
            ((mixed * sets) >> 32) as usize * WAYS
        })
    }
}

/// The time of one list: how many keys each tick still has, from the oldest tick with one to the newest.
#[derive(Debug, Default)]
struct Ticks {
    counts: Box<[u16]>,
    mask: u32,
    per_tick: usize,
    /// Keys that came in the newest tick.
    in_newest: usize,
    oldest: u32,
    newest: u32,
    len: usize,
}

impl Ticks {
    fn new(capacity: usize) -> Self {
        let ticks = (capacity * 4).next_power_of_two().clamp(64, 1 << TICK_BITS);
        let per_tick = capacity.div_ceil(TICKS_OF_CAPACITY);
        let counts = vec![0; ticks].into_boxed_slice();
        Self { counts, mask: ticks as u32 - 1, per_tick, ..Self::default() }
    }

    /// A new key's tick.
    fn push(&mut self) -> u32 {
        if self.in_newest == self.per_tick {
            self.in_newest = 0;
            if self.after(self.newest) == self.oldest {
                let lost = std::mem::take(&mut self.counts[self.oldest as usize]);
                self.len -= usize::from(lost);
                self.oldest = self.after(self.oldest);
            }
            self.newest = self.after(self.newest);
        }
        self.in_newest += 1;
        self.len += 1;
        self.counts[self.newest as usize] += 1;
        self.skip_empty();
        self.newest
    }

    /// One of a tick's keys goes, unless all of that tick were counted off before.
    fn remove(&mut self, word: u32) {
        let count = &mut self.counts[tick_of(word)];
        if *count > 0 {
            *count -= 1;
            self.len -= 1;
            self.skip_empty();
        }
    }

    fn discard_oldest(&mut self) {
        if self.len > 0 {
            self.counts[self.oldest as usize] -= 1;
            self.len -= 1;
            self.skip_empty();
        }
    }

    #[inline]
    fn has(&self, word: u32) -> bool {
        self.len > 0 && self.age(word) <= self.newest.wrapping_sub(self.oldest) & self.mask
    }

    /// In ticks.
    #[inline]
    fn age(&self, word: u32) -> u32 {
        self.newest.wrapping_sub(tick_of(word) as u32) & self.mask
    }

    fn skip_empty(&mut self) {
        while self.oldest != self.newest && self.counts[self.oldest as usize] == 0 {
            self.oldest = self.after(self.oldest);
        }
    }

    fn after(&self, tick: u32) -> u32 {
        (tick + 1) & self.mask
    }
}

fn tick_of(word: u32) -> usize {
    (word & ((1 << TICK_BITS) - 1)) as usize
}

fn list_of(word: u32) -> usize {
    (word >> TICK_BITS & ((1 << LIST_BITS) - 1)) as usize
}

/// In its place in the word; never 0, so that no word with a fingerprint is.
fn fingerprint(hash: u64) -> u32 {
    let low = TICK_BITS + LIST_BITS;
    (hash as u32 >> low).max(1) << low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        use std::hash::BuildHasher;
        // Of a shard of 64: the top bits are the same for all.
        foldhash::quality::FixedState::with_seed(7).hash_one(n) >> 6
    }

    #[test]
    fn the_newest_keys_are_remembered_and_those_counted_off_are_not() {
        for capacity in [16_usize, 100, 1_000, 10_000, 100_000] {
            let mut ghosts = Ghosts::<1>::new();
            ghosts.resize(capacity);
            let total = capacity as u64 * 7;
            for n in 0..total {
                ghosts.insert(0, hash(n));
                while ghosts.len(0) > capacity {
                    ghosts.discard_oldest(0);
                }
            }
            assert!(ghosts.len(0) * 1000 >= capacity * 985, "{} of {capacity}", ghosts.len(0));
            let recent = (total - capacity as u64..total).filter(|n| ghosts.take(hash(*n)).is_some()).count();
            assert!(recent * 1000 >= capacity * 985, "{recent} of the last {capacity} are remembered");
            // Where a few went too early, as many older ones are still there.
            let old = total - capacity as u64 - capacity as u64 / 50;
            let old = (0..old).filter(|n| ghosts.take(hash(*n)).is_some()).count();
            assert!(
                old * 10_000 <= total as usize + 10_000,
                "{old} of {total} old keys are taken for new ones"
            );
            assert!(ghosts.bytes() <= capacity as u64 * 15 + 500, "{} B for {capacity}", ghosts.bytes());
        }
    }

    #[test]
    fn two_lists_keep_their_own_lengths_and_orders() {
        let mut ghosts = Ghosts::<2>::new();
        ghosts.resize(200);
        (0..100).for_each(|n| ghosts.insert(0, hash(n)));
        (100..150).for_each(|n| ghosts.insert(1, hash(n)));
        assert_eq!(
            (ghosts.take(hash(7)), ghosts.take(hash(107)), ghosts.take(hash(999))),
            (Some(0), Some(1), None)
        );
        assert_eq!((ghosts.len(0), ghosts.len(1)), (99, 49));
        // 0 to 6 and 8 to 10 go, and of the other list nothing.
        (0..10).for_each(|_| ghosts.discard_oldest(0));
        assert_eq!([6, 8, 10, 11, 100].map(|n| ghosts.take(hash(n))), [None, None, None, Some(0), Some(1)]);
    }

    #[test]
    fn a_key_that_outlives_many_others_keeps_the_span_bounded() {
        let mut ghosts = Ghosts::<1>::new();
        ghosts.resize(100);
        ghosts.insert(0, hash(0));
        for n in 1..100_000 {
            ghosts.insert(0, hash(n));
            assert_eq!(ghosts.take(hash(n)), Some(0));
            assert!(ghosts.len(0) <= 1);
        }
        assert_eq!((ghosts.take(hash(0)), ghosts.len(0)), (None, 0));
    }
}
