//! SIEVE (Zhang, Yang, Yue, Vigfusson, Rashmi, "SIEVE is simpler than LRU: an efficient turn-key eviction
//! algorithm for web caches", NSDI 2024, algorithm 1): one list in the order of arrival and a hand that walks
//! from the oldest entry to the newest. An entry that was asked for since the hand last passed loses its mark and
//! stays where it is; the first without one goes. At the newest the hand starts over from the oldest.
//!
//! Does not differ from the paper. Costs nothing beside the two links and one bit in the entry's cell; a hit sets
//! that bit and moves nothing. An eviction looks at one entry for each hit since the last, on average at most.

use super::list::List;
use super::{Policy, Slots};
use crate::engine::slot::Slot;

/// The mark of an entry that was asked for since the hand passed.
const VISITED: u8 = 1;

#[derive(Debug)]
pub(crate) struct Sieve {
    list: List,
    /// The entry that is looked at next; `None`: the oldest.
    hand: Option<Slot>,
}

impl Sieve {
    pub(super) fn new() -> Self {
        Self { list: List::default(), hand: None }
    }
}

impl Policy for Sieve {
    fn insert(&mut self, slots: &mut impl Slots, slot: Slot, _hash: u64) {
        slots.set_mark(slot, 0);
        self.list.push_front(slots, slot);
    }

    #[inline]
    fn hit(&mut self, slots: &mut impl Slots, slot: Slot) {
        if slots.mark(slot) != VISITED {
            slots.set_mark(slot, VISITED);
        }
    }

    fn remove(&mut self, slots: &mut impl Slots, slot: Slot) {
        if self.hand == Some(slot) {
            self.hand = List::newer(slots, slot);
        }
        self.list.remove(slots, slot);
    }

    fn evict(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        let mut slot = self.hand.or(self.list.back())?;
        while slots.mark(slot) == VISITED {
            slots.set_mark(slot, 0);
            slot = List::newer(slots, slot).or(self.list.back())?;
        }
        self.hand = List::newer(slots, slot);
        self.list.remove(slots, slot);
        Some(slot)
    }

    fn hand_over(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        self.evict(slots)
    }

    fn moved(&mut self, slots: &mut impl Slots, from: Slot, to: Slot) {
        if self.hand == Some(from) {
            self.hand = Some(to);
        }
        self.list.moved(slots, to);
    }

    fn reweighed(&mut self, slots: &impl Slots, slot: Slot, was: u64) {
        self.list.reweighed(slots, slot, was);
    }

    fn resize(&mut self, _bytes_limit: u64) {}

    fn view(&self, slots: &impl Slots, slot: Slot) -> String {
        let (older, len) = (List::leave_before(slots, slot), self.list.len());
        let fate = if slots.mark(slot) == VISITED {
            "asked for since the hand passed, which spares it once"
        } else {
            "not asked for since the hand passed, and goes when it comes again"
        };
        format!("{fate}; {older} of {len} entries are older")
    }

    fn side_bytes(&self) -> u64 {
        0
    }

    #[cfg(any(test, debug_assertions))]
    fn len(&self) -> usize {
        self.list.len()
    }

    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.list.bytes()
    }

    #[cfg(any(test, debug_assertions))]
    fn validate(&self, slots: &impl Slots) {
        let mut hand_met = self.hand.is_none();
        self.list.validate(slots, |slot| hand_met |= self.hand == Some(slot));
        assert!(hand_met, "the hand points at an entry of the list");
    }
}
