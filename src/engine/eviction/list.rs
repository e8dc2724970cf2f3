//! A doubly linked list through slots, with its length and weight: what every policy here is made of.

use super::Slots;
use crate::engine::slot::Slot;

/// Entries that are looked at to tell an entry's place: some tens of microseconds.
const WALKED_MAX: usize = 256;

/// The list's ends. `front` is where entries come in, `back` where they leave.
#[derive(Debug, Default)]
pub(super) struct List {
    front: Option<Slot>,
    back: Option<Slot>,
    len: usize,
    bytes: u64,
}

const _: () = assert!(size_of::<List>() == 24, "a policy may have hundreds of lists in each shard");

impl List {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn back(&self) -> Option<Slot> {
        self.back
    }

    /// The neighbour of a slot that came in after it.
    pub(super) fn newer(slots: &impl Slots, slot: Slot) -> Option<Slot> {
        slots.links(slot).0
    }

    #[inline]
    pub(super) fn push_front(&mut self, slots: &mut impl Slots, slot: Slot) {
        self.len += 1;
        self.bytes += slots.weight(slot);
        self.link_front(slots, slot);
    }

    #[inline]
    pub(super) fn remove(&mut self, slots: &mut impl Slots, slot: Slot) {
        self.len -= 1;
        self.bytes -= slots.weight(slot);
        self.unlink(slots, slot);
    }

    #[inline]
    pub(super) fn move_to_front(&mut self, slots: &mut impl Slots, slot: Slot) {
        if self.front != Some(slot) {
            self.unlink(slots, slot);
            self.link_front(slots, slot);
        }
    }

    /// The slot's cell was copied, with its links, to this slot.
    pub(super) fn moved(&mut self, slots: &mut impl Slots, to: Slot) {
        let (prev, next) = slots.links(to);
        match prev {
            None => self.front = Some(to),
            Some(prev) => slots.set_next(prev, Some(to)),
        }
        match next {
            None => self.back = Some(to),
            Some(next) => slots.set_prev(next, Some(to)),
        }
    }

    /// How many entries leave before this one, in words: no more are walked over than a lock should be held for.
    pub(super) fn leave_before(slots: &impl Slots, slot: Slot) -> String {
        let older = |slot: &Slot| slots.links(*slot).1;
        let before = std::iter::successors(older(&slot), older).take(WALKED_MAX + 1).count();
        if before > WALKED_MAX { format!("more than {WALKED_MAX}") } else { before.to_string() }
    }

    pub(super) fn reweighed(&mut self, slots: &impl Slots, slot: Slot, was: u64) {
        self.bytes = self.bytes - was + slots.weight(slot);
    }

    #[inline]
    fn link_front(&mut self, slots: &mut impl Slots, slot: Slot) {
        slots.set_prev(slot, None);
        slots.set_next(slot, self.front);
        match self.front {
            None => self.back = Some(slot),
            Some(front) => slots.set_prev(front, Some(slot)),
        }
        self.front = Some(slot);
    }

    #[inline]
    fn unlink(&mut self, slots: &mut impl Slots, slot: Slot) {
        let (prev, next) = slots.links(slot);
        match prev {
            None => self.front = next,
            Some(prev) => slots.set_next(prev, next),
        }
        match next {
            None => {
                self.back = prev;
                // A caller that takes the last soon takes the one before it too, and changes a link of the one before
                // that.
                if let Some(newer) = prev.and_then(|prev| Self::newer(slots, prev)) {
                    slots.prefetch(newer);
                }
            }
            Some(next) => slots.set_prev(next, prev),
        }
    }

    /// Walks the list and checks links, length and weight; calls `each` for every slot.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn validate<S: Slots>(&self, slots: &S, mut each: impl FnMut(Slot)) {
        let (mut slot, mut prev, mut len, mut bytes) = (self.front, None, 0, 0);
        while let Some(at) = slot {
            assert_eq!(slots.links(at).0, prev);
            each(at);
            len += 1;
            bytes += slots.weight(at);
            prev = slot;
            slot = slots.links(at).1;
        }
        assert_eq!((prev, len, bytes), (self.back, self.len, self.bytes));
    }
}
