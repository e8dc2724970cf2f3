//! Least recently used: one list, a hit moves to the front, the back goes. Costs nothing beside the entries. A
//! single long scan flushes it; S3-FIFO does not have that weakness.

use super::list::List;
use super::{Policy, Slots};
use crate::engine::slot::Slot;

#[derive(Debug)]
pub(crate) struct Lru {
    list: List,
}

impl Lru {
    pub(super) fn new() -> Self {
        Self { list: List::default() }
    }
}

impl Policy for Lru {
    fn insert(&mut self, slots: &mut impl Slots, slot: Slot, _hash: u64) {
        self.list.push_front(slots, slot);
    }

    #[inline]
    fn hit(&mut self, slots: &mut impl Slots, slot: Slot) {
        self.list.move_to_front(slots, slot);
    }

    fn remove(&mut self, slots: &mut impl Slots, slot: Slot) {
        self.list.remove(slots, slot);
    }

    fn evict(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        let slot = self.list.back()?;
        self.list.remove(slots, slot);
        Some(slot)
    }

    fn hand_over(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        self.evict(slots)
    }

    fn moved(&mut self, slots: &mut impl Slots, _from: Slot, to: Slot) {
        self.list.moved(slots, to);
    }

    fn reweighed(&mut self, slots: &impl Slots, slot: Slot, was: u64) {
        self.list.reweighed(slots, slot, was);
    }

    fn resize(&mut self, _bytes_limit: u64) {}

    fn view(&self, slots: &impl Slots, slot: Slot) -> String {
        let before = List::leave_before(slots, slot);
        format!("{before} of {} entries were used longer ago and go before it", self.list.len())
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
        self.list.validate(slots, |_| {});
    }
}
