//! W-TinyLFU (Einziger, Friedman, Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM Transactions on
//! Storage 2017, section 4): new entries enter a small LRU window. What the window has no room for is a candidate
//! for the main area: it stays if its key was asked for more often lately than that of the main area's victim,
//! else it goes. The main area is a segmented LRU: entries are on probation until a hit protects them, and the
//! protected, four fifths of it at most, fall back to probation.
//!
//! How often keys were asked for a sketch says ([`super::sketch`]). The window begins with a hundredth of the
//! bytes; how large it is from then on a hill climber says ([`super::climber`]).
//!
//! Differs from the paper: areas are measured in bytes, while candidate and victim are compared one by one
//! whatever their weights; room is made before the next entry enters, so a candidate is the window's last entry
//! once the window could not take one of average weight more; a frequent candidate that is not the more frequent
//! one stays once in 128 times, as in Caffeine, so that nobody can keep victims in place by colliding hashes; the
//! window changes its size by a few entries with each request.
//! There is no doorkeeper.
//!
//! Costs the two links and two bits in the entry's cell, and 8 to 16 B an entry for the sketch.

use super::climber::{Climber, Request};
use super::list::List;
use super::sketch::Sketch;
use super::{Policy, Slots};
use crate::engine::slot::Slot;

/// The mark: the area that the entry is in.
const WINDOW: u8 = 0;
const PROBATION: u8 = 1;
const PROTECTED: u8 = 2;
/// The window's part of the bytes to begin with.
const WINDOW_PART: u64 = 100;
/// Entries that change areas with a request, so that areas keep to their sizes.
const MOVES_PER_REQUEST: usize = 8;
/// From this frequency on a candidate may stay by chance …
const FREQUENCY_OF_CHANCE: u8 = 6;
/// … once in this number of times.
const CHANCE: u64 = 128;

#[derive(Debug)]
pub(crate) struct WTinyLfu {
    window: List,
    probation: List,
    protected: List,
    sketch: Sketch,
    climber: Climber,
    bytes_limit: u64,
    window_bytes_max: u64,
    /// What the window, since it was made larger, may still take over from the main area.
    window_bytes_owed: u64,
    random: u64,
}

impl WTinyLfu {
    pub(super) fn new(bytes_limit: u64, entries: usize) -> Self {
        let mut sketch = Sketch::default();
        sketch.fit(entries);
        let (window, probation, protected) = (List::default(), List::default(), List::default());
        Self {
            window,
            probation,
            protected,
            sketch,
            climber: Climber::new(),
            bytes_limit,
            window_bytes_max: bytes_limit.div_ceil(WINDOW_PART),
            window_bytes_owed: 0,
            random: 0x9E37_79B9_7F4A_7C15,
        }
    }

    fn entries(&self) -> usize {
        self.window.len() + self.probation.len() + self.protected.len()
    }

    fn average_bytes(&self) -> u64 {
        let bytes = self.window.bytes() + self.probation.bytes() + self.protected.bytes();
        (bytes / self.entries().max(1) as u64).max(1)
    }

    fn protected_bytes_max(&self) -> u64 {
        let main = self.bytes_limit - self.window_bytes_max;
        main - main / 5
    }

    fn area(&mut self, mark: u8) -> &mut List {
        match mark {
            WINDOW => &mut self.window,
            PROBATION => &mut self.probation,
            _ => &mut self.protected,
        }
    }

    fn transfer(&mut self, slots: &mut impl Slots, slot: Slot, area: u8) {
        self.remove(slots, slot);
        slots.set_mark(slot, area);
        self.area(area).push_front(slots, slot);
    }

    fn requested(&mut self, slots: &mut impl Slots, request: Request) {
        if let Some(step) = self.climber.requested(request, self.entries()) {
            let bytes = (step.abs() * self.bytes_limit as f64) as u64;
            let spare = if step > 0.0 {
                self.protected_bytes_max()
            } else {
                self.window_bytes_max.saturating_sub(self.average_bytes())
            };
            let bytes = bytes.min(spare);
            if step > 0.0 {
                self.window_bytes_max += bytes;
                self.window_bytes_owed = bytes;
            } else {
                self.window_bytes_max -= bytes;
                self.window_bytes_owed = 0;
            }
            // Not an entry's room: weights vary, so that some bytes are left nearly always.
            if spare < self.average_bytes() {
                self.climber.is_at_end();
            }
        }
        for _ in 0..MOVES_PER_REQUEST {
            if !self.settle(slots) {
                break;
            }
        }
    }

    /// Moves an entry from an area that is too large. False: none is.
    fn settle(&mut self, slots: &mut impl Slots) -> bool {
        let (from, to) = if self.window.bytes() > self.window_bytes_max {
            (self.window.back(), PROBATION)
        } else if self.protected.bytes() > self.protected_bytes_max() {
            (self.protected.back(), PROBATION)
        } else if self.window_bytes_owed > 0 {
            let next = self.victim().filter(|slot| slots.weight(*slot) <= self.window_bytes_owed);
            let bytes = next.map_or(self.window_bytes_owed, |slot| slots.weight(slot));
            self.window_bytes_owed -= bytes;
            (next, WINDOW)
        } else {
            return false;
        };
        let Some(slot) = from else { return false };
        self.transfer(slots, slot, to);
        true
    }

    /// The main area's last entry.
    fn victim(&self) -> Option<Slot> {
        self.probation.back().or_else(|| self.protected.back())
    }

    fn admits(&mut self, slots: &impl Slots, candidate: Slot, victim: Slot) -> bool {
        let candidate = self.sketch.frequency(slots.hash(candidate));
        let victim = self.sketch.frequency(slots.hash(victim));
        candidate > victim || candidate >= FREQUENCY_OF_CHANCE && self.draw().is_multiple_of(CHANCE)
    }

    /// xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

impl Policy for WTinyLfu {
    fn insert(&mut self, slots: &mut impl Slots, slot: Slot, hash: u64) {
        slots.set_mark(slot, WINDOW);
        self.window.push_front(slots, slot);
        self.sketch.fit(self.entries());
        self.sketch.increment(hash);
        self.requested(slots, Request::Miss);
    }

    #[inline]
    fn hit(&mut self, slots: &mut impl Slots, slot: Slot) {
        self.sketch.increment(slots.hash(slot));
        match slots.mark(slot) {
            WINDOW => self.window.move_to_front(slots, slot),
            PROTECTED => self.protected.move_to_front(slots, slot),
            _ => self.transfer(slots, slot, PROTECTED),
        }
        self.requested(slots, Request::Hit);
    }

    fn remove(&mut self, slots: &mut impl Slots, slot: Slot) {
        let mark = slots.mark(slot);
        self.area(mark).remove(slots, slot);
    }

    fn evict(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        let is_full = self.window.bytes() + self.average_bytes() > self.window_bytes_max;
        let candidate = self.window.back().filter(|_| is_full);
        let slot = match (candidate, self.victim()) {
            (Some(candidate), Some(victim)) if self.admits(slots, candidate, victim) => {
                self.transfer(slots, candidate, PROBATION);
                victim
            }
            (Some(candidate), _) => candidate,
            (None, victim) => victim.or_else(|| self.window.back())?,
        };
        self.remove(slots, slot);
        self.sketch.shrink(self.entries());
        Some(slot)
    }

    fn hand_over(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        let least = self.probation.back().or_else(|| self.window.back());
        let slot = least.or_else(|| self.protected.back())?;
        self.remove(slots, slot);
        Some(slot)
    }

    fn moved(&mut self, slots: &mut impl Slots, _from: Slot, to: Slot) {
        let mark = slots.mark(to);
        self.area(mark).moved(slots, to);
    }

    fn reweighed(&mut self, slots: &impl Slots, slot: Slot, was: u64) {
        let mark = slots.mark(slot);
        self.area(mark).reweighed(slots, slot, was);
    }

    fn resize(&mut self, bytes_limit: u64) {
        self.bytes_limit = bytes_limit;
        self.window_bytes_max = bytes_limit.div_ceil(WINDOW_PART);
        self.window_bytes_owed = 0;
    }

    fn view(&self, slots: &impl Slots, slot: Slot) -> String {
        let (area, len) = match slots.mark(slot) {
            WINDOW => ("in the window", self.window.len()),
            PROBATION => ("on probation", self.probation.len()),
            _ => ("protected", self.protected.len()),
        };
        let (times, before) = (self.sketch.frequency(slots.hash(slot)), List::leave_before(slots, slot));
        format!(
            "{area}, where {before} of {len} entries leave before it; asked for about {times} times lately"
        )
    }

    fn side_bytes(&self) -> u64 {
        self.sketch.bytes_for(self.entries() + 2)
    }

    #[cfg(any(test, debug_assertions))]
    fn len(&self) -> usize {
        self.entries()
    }

    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.window.bytes() + self.probation.bytes() + self.protected.bytes()
    }

    #[cfg(any(test, debug_assertions))]
    fn validate(&self, slots: &impl Slots) {
        assert!(self.window_bytes_max <= self.bytes_limit);
        for (area, mark) in
            [(&self.window, WINDOW), (&self.probation, PROBATION), (&self.protected, PROTECTED)]
        {
            area.validate(slots, |slot| assert_eq!(slots.mark(slot), mark));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Cells;
    use super::*;

    #[test]
    fn a_window_that_is_all_there_is_grows_no_further_and_shrinks() {
        let (mut policy, mut cells) = (WTinyLfu::new(1_000, 0), Cells::of(2));
        let mut windows = (0..100_000).map(|n| {
            policy.insert(&mut cells, Slot::numbered(1), n);
            policy.remove(&mut cells, Slot::numbered(1));
            policy.window_bytes_max
        });
        assert!(windows.any(|bytes| bytes == 1_000), "the hit ratio never falls");
        assert!(windows.any(|bytes| bytes < 1_000), "nor does it later");
    }
}
