//! First in, first out: one list, the oldest entry goes, a hit changes nothing. The yardstick for the others: a
//! policy that does worse on a workload gains nothing from what it notes.
//!
//! Costs nothing beside the two links in the entry's cell. An entry that is written again keeps its place.

use super::list::List;
use super::{Policy, Slots};
use crate::engine::slot::Slot;

#[derive(Debug)]
pub(crate) struct Fifo {
    list: List,
}

impl Fifo {
    pub(super) fn new() -> Self {
        Self { list: List::default() }
    }
}

impl Policy for Fifo {
    fn insert(&mut self, slots: &mut impl Slots, slot: Slot, _hash: u64) {
        self.list.push_front(slots, slot);
    }

    #[inline]
    fn hit(&mut self, _slots: &mut impl Slots, _slot: Slot) {}

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
        format!(
            "{} of {} entries are older and go before it",
            List::leave_before(slots, slot),
            self.list.len()
        )
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
