//! S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi, "FIFO queues are all you need for cache eviction", SOSP 2023,
//! algorithm 1): new entries enter a small queue of a tenth of the bytes; those asked for more than once by its
//! end move to the main queue, the others go and leave a fingerprint in the ghost queue; a key whose fingerprint
//! is found enters the main queue at once. A hit only counts up to 3 in the entry's mark: no list moves.
//!
//! Differs from the paper: queues are measured in bytes, not entries; the ghost queue is as long as the main queue
//! has entries when full, and a table of fingerprints, whose order is exact up to 1024 keys and to a thousandth
//! beyond; an entry taken over from another policy enters as a new one does.
//!
//! Costs the two links and three bits in the entry's cell, and 4.5 B an entry for the ghosts once it evicts.

use super::ghost::Ghosts;
use super::list::List;
use super::{Policy, Slots};
use crate::engine::slot::Slot;

/// In the mark: hits, 0 to 3.
const HITS: u8 = 0b011;
/// In the mark: the entry is in the main queue.
const IN_MAIN: u8 = 0b100;
/// Hits that move an entry from the small to the main queue.
const HITS_TO_MAIN: u8 = 2;

#[derive(Debug)]
pub(crate) struct S3Fifo {
    small: List,
    main: List,
    ghosts: Ghosts<1>,
    small_bytes_max: u64,
}

impl S3Fifo {
    pub(super) fn new(bytes_limit: u64) -> Self {
        let (small, main) = (List::default(), List::default());
        Self { small, main, ghosts: Ghosts::new(), small_bytes_max: bytes_limit / 10 }
    }

    fn queue(&mut self, mark: u8) -> &mut List {
        if mark & IN_MAIN == 0 { &mut self.small } else { &mut self.main }
    }

    /// Remembers a key among as many as the main queue has entries when full.
    fn remember(&mut self, hash: u64) {
        let most = (self.small.len() + self.main.len() + 1) * 9 / 10;
        self.ghosts.resize(most);
        self.ghosts.insert(0, hash);
        while self.ghosts.len(0) > most {
            self.ghosts.discard_oldest(0);
        }
    }

    /// Moves the proven entries at the small queue's end to the main queue; the first that is not goes.
    fn evict_small(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        while let Some(slot) = self.small.back() {
            self.small.remove(slots, slot);
            if slots.mark(slot) & HITS < HITS_TO_MAIN {
                self.remember(slots.hash(slot));
                return Some(slot);
            }
            slots.set_mark(slot, IN_MAIN);
            self.main.push_front(slots, slot);
        }
        None
    }

    /// Gives entries at the main queue's end that were hit another round; the first that was not goes.
    fn evict_main(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        while let Some(slot) = self.main.back() {
            let mark = slots.mark(slot);
            if mark & HITS == 0 {
                self.main.remove(slots, slot);
                return Some(slot);
            }
            slots.set_mark(slot, mark - 1);
            self.main.move_to_front(slots, slot);
        }
        None
    }
}

impl Policy for S3Fifo {
    fn insert(&mut self, slots: &mut impl Slots, slot: Slot, hash: u64) {
        let mark = if self.ghosts.take(hash).is_some() { IN_MAIN } else { 0 };
        slots.set_mark(slot, mark);
        self.queue(mark).push_front(slots, slot);
    }

    #[inline]
    fn hit(&mut self, slots: &mut impl Slots, slot: Slot) {
        let mark = slots.mark(slot);
        if mark & HITS < HITS {
            slots.set_mark(slot, mark + 1);
        }
    }

    fn remove(&mut self, slots: &mut impl Slots, slot: Slot) {
        let mark = slots.mark(slot);
        self.queue(mark).remove(slots, slot);
    }

    fn evict(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        if (self.small.bytes() >= self.small_bytes_max || self.main.len() == 0)
            && let Some(slot) = self.evict_small(slots)
        {
            return Some(slot);
        }
        self.evict_main(slots).or_else(|| self.evict_small(slots))
    }

    fn hand_over(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        let slot = self.small.back().or_else(|| self.main.back())?;
        self.remove(slots, slot);
        Some(slot)
    }

    fn moved(&mut self, slots: &mut impl Slots, _from: Slot, to: Slot) {
        let mark = slots.mark(to);
        self.queue(mark).moved(slots, to);
    }

    fn reweighed(&mut self, slots: &impl Slots, slot: Slot, was: u64) {
        let mark = slots.mark(slot);
        self.queue(mark).reweighed(slots, slot, was);
    }

    fn resize(&mut self, bytes_limit: u64) {
        self.small_bytes_max = bytes_limit / 10;
    }

    fn view(&self, slots: &impl Slots, slot: Slot) -> String {
        let (mark, before) = (slots.mark(slot), List::leave_before(slots, slot));
        let hits = mark & HITS;
        if mark & IN_MAIN != 0 {
            let len = self.main.len();
            return format!(
                "in the main queue with {hits} rounds to stay; {before} of {len} entries are before it"
            );
        }
        let fate = if hits < HITS_TO_MAIN { "goes at its end" } else { "moves to the main queue at its end" };
        let len = self.small.len();
        format!("in the small queue, asked for {hits} times: {fate}; {before} of {len} entries are before it")
    }

    fn side_bytes(&self) -> u64 {
        self.ghosts.bytes()
    }

    #[cfg(any(test, debug_assertions))]
    fn len(&self) -> usize {
        self.small.len() + self.main.len()
    }

    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.small.bytes() + self.main.bytes()
    }

    #[cfg(any(test, debug_assertions))]
    fn validate(&self, slots: &impl Slots) {
        self.small.validate(slots, |slot| assert_eq!(slots.mark(slot) & IN_MAIN, 0));
        self.main.validate(slots, |slot| assert_ne!(slots.mark(slot) & IN_MAIN, 0));
    }
}
