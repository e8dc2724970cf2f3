//! ARC (Megiddo & Modha, "ARC: A Self-Tuning, Low Overhead Replacement Cache", FAST 2003, figure 4): entries that
//! were asked for once lately are in `recent` (the paper's T1), those asked for again in `frequent` (T2); what
//! leaves either is remembered for a while in that list's ghosts (B1, B2). A key that comes back while it is
//! among the ghosts moves the target size of `recent`: up where it left that, down where it left `frequent`.
//!
//! Differs from the paper: the target is in bytes and moves by the weight of the entry that came back; the
//! capacity c, which bounds the ghosts, is the number of entries that are held at the time; room is made before
//! the key is known that it is made for, so its ghost moves the target after that eviction and not before; the
//! ghosts are fingerprints, whose order is exact up to 1024 keys and to a thousandth beyond.
//!
//! Costs the two links and one bit in the entry's cell, and 4.5 B an entry for the ghosts once it evicts.

use super::ghost::Ghosts;
use super::list::List;
use super::{Policy, Slots};
use crate::engine::slot::Slot;

/// The mark of an entry in `frequent`.
const FREQUENT: u8 = 1;
/// The ghosts' lists.
const LEFT_RECENT: usize = 0;
const LEFT_FREQUENT: usize = 1;

#[derive(Debug)]
pub(crate) struct Arc {
    recent: List,
    frequent: List,
    ghosts: Ghosts<2>,
    /// What `recent` should take; the paper's p.
    recent_bytes_target: u64,
}

impl Arc {
    pub(super) fn new() -> Self {
        let (recent, frequent) = (List::default(), List::default());
        Self { recent, frequent, ghosts: Ghosts::new(), recent_bytes_target: 0 }
    }

    fn list(&mut self, mark: u8) -> &mut List {
        if mark == FREQUENT { &mut self.frequent } else { &mut self.recent }
    }

    /// The paper's c.
    fn capacity(&self) -> usize {
        self.recent.len() + self.frequent.len()
    }

    /// Cases II and III: a key came back that left one of the lists not long ago.
    fn learn(&mut self, left: usize, weight: u64) {
        let (recent, frequent) = (self.ghosts.len(LEFT_RECENT) as u64, self.ghosts.len(LEFT_FREQUENT) as u64);
        let step = |this: u64, other: u64| weight * (other / this.max(1)).max(1);
        // The key itself was a ghost until now.
        self.recent_bytes_target = if left == LEFT_RECENT {
            let most = self.recent.bytes() + self.frequent.bytes();
            (self.recent_bytes_target + step(recent + 1, frequent)).min(most)
        } else {
            self.recent_bytes_target.saturating_sub(step(frequent + 1, recent))
        };
    }

    /// Case IV: `recent` with its ghosts is no longer than c, all four lists no longer than 2c.
    fn trim(&mut self) {
        let capacity = self.capacity();
        while self.recent.len() + self.ghosts.len(LEFT_RECENT) > capacity && self.ghosts.len(LEFT_RECENT) > 0
        {
            self.ghosts.discard_oldest(LEFT_RECENT);
        }
        while self.ghosts.len(LEFT_RECENT) + self.ghosts.len(LEFT_FREQUENT) > capacity
            && self.ghosts.len(LEFT_FREQUENT) > 0
        {
            self.ghosts.discard_oldest(LEFT_FREQUENT);
        }
    }
}

impl Policy for Arc {
    fn insert(&mut self, slots: &mut impl Slots, slot: Slot, hash: u64) {
        let left = self.ghosts.take(hash);
        let mark = if left.is_some() { FREQUENT } else { 0 };
        slots.set_mark(slot, mark);
        self.list(mark).push_front(slots, slot);
        match left {
            Some(left) => self.learn(left, slots.weight(slot)),
            None => self.trim(),
        }
    }

    #[inline]
    fn hit(&mut self, slots: &mut impl Slots, slot: Slot) {
        if slots.mark(slot) == FREQUENT {
            self.frequent.move_to_front(slots, slot);
        } else {
            self.recent.remove(slots, slot);
            slots.set_mark(slot, FREQUENT);
            self.frequent.push_front(slots, slot);
        }
    }

    fn remove(&mut self, slots: &mut impl Slots, slot: Slot) {
        let mark = slots.mark(slot);
        self.list(mark).remove(slots, slot);
    }

    fn evict(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        let from_recent = self.recent.bytes() > self.recent_bytes_target;
        let (recent, frequent) = (self.recent.back(), self.frequent.back());
        let slot = if from_recent { recent.or(frequent) } else { frequent.or(recent) }?;
        // Where `recent` is all that there is, what leaves it is not remembered.
        if frequent.is_some() {
            self.ghosts.resize(self.capacity() + 1);
            let left = if slots.mark(slot) == FREQUENT { LEFT_FREQUENT } else { LEFT_RECENT };
            self.ghosts.insert(left, slots.hash(slot));
        }
        self.remove(slots, slot);
        Some(slot)
    }

    fn hand_over(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        let slot = self.recent.back().or_else(|| self.frequent.back())?;
        self.remove(slots, slot);
        Some(slot)
    }

    fn moved(&mut self, slots: &mut impl Slots, _from: Slot, to: Slot) {
        let mark = slots.mark(to);
        self.list(mark).moved(slots, to);
    }

    fn reweighed(&mut self, slots: &impl Slots, slot: Slot, was: u64) {
        let mark = slots.mark(slot);
        self.list(mark).reweighed(slots, slot, was);
    }

    fn resize(&mut self, bytes_limit: u64) {
        self.recent_bytes_target = self.recent_bytes_target.min(bytes_limit);
    }

    fn view(&self, slots: &impl Slots, slot: Slot) -> String {
        let before = List::leave_before(slots, slot);
        let (list, len) = if slots.mark(slot) == FREQUENT {
            ("asked for again: in the list of frequent entries", self.frequent.len())
        } else {
            ("asked for once: in the list of recent entries", self.recent.len())
        };
        format!("{list}, where {before} of {len} leave before it")
    }

    fn side_bytes(&self) -> u64 {
        self.ghosts.bytes()
    }

    #[cfg(any(test, debug_assertions))]
    fn len(&self) -> usize {
        self.capacity()
    }

    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.recent.bytes() + self.frequent.bytes()
    }

    #[cfg(any(test, debug_assertions))]
    fn validate(&self, slots: &impl Slots) {
        self.recent.validate(slots, |slot| assert_eq!(slots.mark(slot), 0));
        self.frequent.validate(slots, |slot| assert_eq!(slots.mark(slot), FREQUENT));
    }
}
