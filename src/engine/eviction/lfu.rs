//! LFU in constant time (Shah, Mitra, Matani, "An O(1) algorithm for implementing the LFU cache eviction scheme",
//! 2010): one list for each number of requests; a hit moves the entry to the next list; of the lowest list that
//! has one the least recently used entry goes.
//!
//! Differs from the paper: counts stop at 255, and they age. Without that, what was popular once would keep new
//! keys out for good. Once 32 requests for each entry have come, all counts are halved, two entries with each
//! request: from the list of 2 upwards, entries go over to the list of half their count.
//!
//! Costs the two links and the count, one byte, in the entry's cell, and 6 KiB for the lists.

use super::list::List;
use super::{Policy, Slots};
use crate::engine::slot::Slot;

const COUNTS: usize = 256;
/// Bits of a word of the map of lists.
const WORD: usize = u64::BITS as usize;
/// Requests for each entry after which counts are halved: few enough to follow a change, and enough that entries which
/// differ in frequency still differ in their counts.
const REQUESTS_PER_ENTRY: usize = 32;
const ENTRIES_MIN: usize = 16;
const HALVED_PER_REQUEST: usize = 2;
/// Entries of count 1 stay as they are.
const HALVED_FIRST: usize = 2;

#[derive(Debug)]
pub(crate) struct Lfu {
    /// By count.
    lists: Box<[List]>,
    /// A bit for each list that has entries.
    occupied: [u64; COUNTS / WORD],
    len: usize,
    /// Requests since counts were halved last.
    requests: usize,
    /// The list that is being halved.
    halving: Option<usize>,
}

impl Lfu {
    pub(super) fn new() -> Self {
        let lists = std::iter::repeat_with(List::default).take(COUNTS).collect();
        Self { lists, occupied: [0; COUNTS / WORD], len: 0, requests: 0, halving: None }
    }

    fn enter(&mut self, slots: &mut impl Slots, slot: Slot, count: u8) {
        slots.set_mark(slot, count);
        let at = usize::from(count);
        self.lists[at].push_front(slots, slot);
        self.occupied[at / WORD] |= 1 << (at % WORD);
    }

    /// Takes an entry out; its count.
    fn leave(&mut self, slots: &mut impl Slots, slot: Slot) -> u8 {
        let count = slots.mark(slot);
        let at = usize::from(count);
        self.lists[at].remove(slots, slot);
        if self.lists[at].len() == 0 {
            self.occupied[at / WORD] &= !(1 << (at % WORD));
        }
        count
    }

    /// The lowest list, of those from here on, that has entries.
    fn first_occupied(&self, from: usize) -> Option<usize> {
        let mut mask = u64::MAX << (from % WORD);
        for (at, word) in self.occupied.iter().enumerate().skip(from / WORD) {
            if word & mask != 0 {
                return Some(at * WORD + (word & mask).trailing_zeros() as usize);
            }
            mask = u64::MAX;
        }
        None
    }

    fn age(&mut self, slots: &mut impl Slots) {
        self.requests += 1;
        if self.requests >= self.len.max(ENTRIES_MIN) * REQUESTS_PER_ENTRY {
            self.requests = 0;
            self.halving = Some(HALVED_FIRST);
        }
        for _ in 0..HALVED_PER_REQUEST {
            let Some(from) = self.halving else { return };
            self.halving = self.first_occupied(from);
            if let Some(slot) = self.halving.and_then(|at| self.lists[at].back()) {
                let count = self.leave(slots, slot);
                self.enter(slots, slot, count / 2);
            }
        }
    }
}

impl Policy for Lfu {
    fn insert(&mut self, slots: &mut impl Slots, slot: Slot, _hash: u64) {
        self.enter(slots, slot, 1);
        self.len += 1;
        self.age(slots);
    }

    #[inline]
    fn hit(&mut self, slots: &mut impl Slots, slot: Slot) {
        let count = self.leave(slots, slot);
        self.enter(slots, slot, count.saturating_add(1));
        self.age(slots);
    }

    fn remove(&mut self, slots: &mut impl Slots, slot: Slot) {
        self.leave(slots, slot);
        self.len -= 1;
    }

    fn evict(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        let slot = self.lists[self.first_occupied(0)?].back()?;
        self.remove(slots, slot);
        Some(slot)
    }

    fn hand_over(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        self.evict(slots)
    }

    fn moved(&mut self, slots: &mut impl Slots, _from: Slot, to: Slot) {
        let count = slots.mark(to);
        self.lists[usize::from(count)].moved(slots, to);
    }

    fn reweighed(&mut self, slots: &impl Slots, slot: Slot, was: u64) {
        let count = slots.mark(slot);
        self.lists[usize::from(count)].reweighed(slots, slot, was);
    }

    fn resize(&mut self, _bytes_limit: u64) {}

    fn view(&self, slots: &impl Slots, slot: Slot) -> String {
        let count = slots.mark(slot);
        let fewer: usize = self.lists[..usize::from(count)].iter().map(List::len).sum();
        let before = List::leave_before(slots, slot);
        format!(
            "asked for {count} times by its count, which ages and stops at 255; {fewer} of {} entries have a lower one \
             and {before} of the same go before it",
            self.len
        )
    }

    fn side_bytes(&self) -> u64 {
        size_of_val(&*self.lists) as u64
    }

    #[cfg(any(test, debug_assertions))]
    fn len(&self) -> usize {
        self.len
    }

    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.lists.iter().map(List::bytes).sum()
    }

    #[cfg(any(test, debug_assertions))]
    fn validate(&self, slots: &impl Slots) {
        for (count, list) in self.lists.iter().enumerate() {
            list.validate(slots, |slot| assert_eq!(usize::from(slots.mark(slot)), count));
            let occupied = self.occupied[count / WORD] >> (count % WORD) & 1 == 1;
            assert_eq!(occupied, list.len() > 0);
        }
        assert_eq!(self.lists.iter().map(List::len).sum::<usize>(), self.len);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Cells;
    use super::*;

    #[test]
    fn what_was_popular_once_goes_in_the_end() {
        let (mut lfu, mut cells) = (Lfu::new(), Cells::of(4));
        for slot in 1..=3 {
            lfu.insert(&mut cells, Slot::numbered(slot), 0);
        }
        (0..300).for_each(|_| lfu.hit(&mut cells, Slot::numbered(1)));
        lfu.validate(&cells);
        // It is not asked for any more; the others are, far less often than it was.
        (0..16 * REQUESTS_PER_ENTRY).for_each(|n| lfu.hit(&mut cells, Slot::numbered(2 + n as u32 % 2)));
        assert_eq!(lfu.evict(&mut cells), Some(Slot::numbered(1)));
        lfu.validate(&cells);
    }
}
