//! A doubly linked list through slots, with its length and weight: what every policy here is made of.

use super::Slots;

const NONE: u32 = 0;
/// Entries that are looked at to tell an entry's place: some tens of microseconds.
const WALKED_MAX: usize = 256;

/// The list's ends. `front` is where entries come in, `back` where they leave.
#[derive(Debug, Default)]
pub(super) struct List {
    front: u32,
    back: u32,
    len: usize,
    bytes: u64,
}

impl List {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn back(&self) -> Option<u32> {
        (self.back != NONE).then_some(self.back)
    }

    /// The neighbour of a slot that came in after it.
    pub(super) fn newer(slots: &impl Slots, slot: u32) -> Option<u32> {
        let (newer, _) = slots.links(slot);
        (newer != NONE).then_some(newer)
    }

    #[inline]
    pub(super) fn push_front(&mut self, slots: &mut impl Slots, slot: u32) {
        self.len += 1;
        self.bytes += slots.weight(slot);
        self.link_front(slots, slot);
    }

    #[inline]
    pub(super) fn remove(&mut self, slots: &mut impl Slots, slot: u32) {
        self.len -= 1;
        self.bytes -= slots.weight(slot);
        self.unlink(slots, slot);
    }

    #[inline]
    pub(super) fn move_to_front(&mut self, slots: &mut impl Slots, slot: u32) {
        if self.front != slot {
            self.unlink(slots, slot);
            self.link_front(slots, slot);
        }
    }

    /// The slot's cell was copied, with its links, to this slot.
    pub(super) fn moved(&mut self, slots: &mut impl Slots, to: u32) {
        let (prev, next) = slots.links(to);
        match prev {
            NONE => self.front = to,
            prev => slots.set_next(prev, to),
        }
        match next {
            NONE => self.back = to,
            next => slots.set_prev(next, to),
        }
    }

    /// How many entries leave before this one, in words: no more are walked over than a lock should be held for.
    pub(super) fn leave_before(slots: &impl Slots, slot: u32) -> String {
        let older = |slot: &u32| Some(slots.links(*slot).1).filter(|next| *next != NONE);
        let before = std::iter::successors(older(&slot), older).take(WALKED_MAX + 1).count();
        if before > WALKED_MAX { format!("more than {WALKED_MAX}") } else { before.to_string() }
    }

    pub(super) fn reweighed(&mut self, slots: &impl Slots, slot: u32, was: u64) {
        self.bytes = self.bytes - was + slots.weight(slot);
    }

    #[inline]
    fn link_front(&mut self, slots: &mut impl Slots, slot: u32) {
        slots.set_prev(slot, NONE);
        slots.set_next(slot, self.front);
        match self.front {
            NONE => self.back = slot,
            front => slots.set_prev(front, slot),
        }
        self.front = slot;
    }

    #[inline]
    fn unlink(&mut self, slots: &mut impl Slots, slot: u32) {
        let (prev, next) = slots.links(slot);
        match prev {
            NONE => self.front = next,
            prev => slots.set_next(prev, next),
        }
        match next {
            NONE => {
                self.back = prev;
                // A caller that takes the last soon takes the one before it too, and changes a link of the one before
                // that.
                if prev != NONE
                    && let Some(newer) = Self::newer(slots, prev)
                {
                    slots.prefetch(newer);
                }
            }
            next => slots.set_prev(next, prev),
        }
    }

    /// Walks the list and checks links, length and weight; calls `each` for every slot.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn validate<S: Slots>(&self, slots: &S, mut each: impl FnMut(u32)) {
        let (mut slot, mut prev, mut len, mut bytes) = (self.front, NONE, 0, 0);
        while slot != NONE {
            assert_eq!(slots.links(slot).0, prev);
            each(slot);
            len += 1;
            bytes += slots.weight(slot);
            prev = slot;
            slot = slots.links(slot).1;
        }
        assert_eq!((prev, len, bytes), (self.back, self.len, self.bytes));
    }
}
