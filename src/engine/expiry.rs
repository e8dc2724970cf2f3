//! The timer wheel: which entries expire when, at a cost that does not grow with their number (Varghese & Lauck,
//! "Hashed and Hierarchical Timing Wheels", SOSP 1987, scheme 7). Six levels of 64 slots, the finest 64 ms wide,
//! reach 139 years. A slot is a doubly linked list through the entries' own cells, so an entry without a time
//! to live pays nothing and one with it pays 12 bytes.
//!
//! The wheel only decides when an entry is *reclaimed*, at most 64 ms late plus the time between two calls;
//! whether it is *served* is decided by its deadline, to the millisecond. Work is done in slices: a slot with a
//! million entries is drained over many calls, and the wheel's time stands still until it is empty.
//!
//! Invariant: no live deadline is before [`Wheel::base_ms`], and the base never goes back; so the low 32 bits of
//! a deadline that was less than 2^32 ms off when it was kept tell the whole of it, whatever time jumps.

use super::record::{Deadline, Records};
use super::slot::Slot;
use crate::entry::Expiry;

const TICK_BITS: u32 = 6;
const LEVEL_BITS: u32 = 6;
const LEVELS: usize = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
/// How far ahead the furthest slot begins.
const REACH_TICKS: u64 = (SLOTS as u64 - 1) << (LEVEL_BITS * (LEVELS as u32 - 1));
/// In an entry's `prev`: it is the first of the wheel's slot whose number the other bits give. No entry's number has it.
const FIRST_OF_SLOT: u32 = 1 << 31;

/// A shard's timer wheel.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// The tick that the wheel stands at; everything due before it is gone.
    current: u64,
    occupied: [u64; LEVELS],
    slots: Box<[Option<Slot>; LEVELS * SLOTS]>,
    len: usize,
}

/// What is before an entry in its slot of the wheel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Entry(Slot),
    /// Nothing: it is the first of this slot of the wheel.
    Start(usize),
}

/// What the wheel has to do next.
enum Next {
    /// A slot that the wheel's time has reached.
    Due(usize),
    /// The tick at which the next slot begins.
    At(u64),
    /// Nothing is waiting.
    Idle,
}

impl Before {
    /// As an entry's cell keeps it.
    fn of_word(word: u32) -> Self {
        if word & FIRST_OF_SLOT == 0 {
            Self::Entry(Slot::numbered(word))
        } else {
            Self::Start((word & !FIRST_OF_SLOT) as usize)
        }
    }

    fn word(self) -> u32 {
        match self {
            Self::Entry(entry) => entry.number(),
            Self::Start(slot) => FIRST_OF_SLOT | slot as u32,
        }
    }
}

impl Wheel {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            current: now_ms >> TICK_BITS,
            occupied: [0; LEVELS],
            slots: Box::new([None; LEVELS * SLOTS]),
            len: 0,
        }
    }

    /// How many entries have a deadline.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// No live deadline is before this.
    #[inline]
    pub(crate) fn base_ms(&self) -> u64 {
        self.current.saturating_sub(1) << TICK_BITS
    }

    /// The form in which a deadline is kept.
    pub(crate) fn deadline(&self, at_ms: u64) -> Deadline {
        let at_ms = at_ms.max(self.base_ms());
        if at_ms - self.base_ms() <= u64::from(u32::MAX) {
            Deadline::Near(at_ms)
        } else {
            Deadline::Far(at_ms)
        }
    }

    /// Puts an entry that has a deadline into its slot.
    pub(crate) fn insert(&mut self, records: &mut Records, entry: Slot) {
        let Expiry::AtMs(deadline) = records.expiry(entry, self.base_ms()) else {
            unreachable!("only entries that expire get here")
        };
        let slot = self.slot_for(deadline);
        let first = self.slots[slot];
        records.set_wheel_prev(entry, Before::Start(slot).word());
        records.set_wheel_next(entry, first);
        if let Some(first) = first {
            records.set_wheel_prev(first, Before::Entry(entry).word());
        }
        self.slots[slot] = Some(entry);
        self.occupied[slot / SLOTS] |= 1 << (slot % SLOTS);
        self.len += 1;
    }

    /// Takes an entry out of its slot.
    pub(crate) fn remove(&mut self, records: &mut Records, entry: Slot) {
        let (prev, next) = records.wheel_links(entry);
        match Before::of_word(prev) {
            Before::Start(slot) => self.set_first(slot, next),
            Before::Entry(before) => records.set_wheel_next(before, next),
        }
        if let Some(next) = next {
            records.set_wheel_prev(next, prev);
        }
        self.len -= 1;
    }

    /// Tells the neighbours that an entry's cell was copied to another place.
    pub(crate) fn moved(&mut self, records: &mut Records, to: Slot) {
        let (prev, next) = records.wheel_links(to);
        match Before::of_word(prev) {
            Before::Start(slot) => self.slots[slot] = Some(to),
            Before::Entry(before) => records.set_wheel_next(before, Some(to)),
        }
        if let Some(next) = next {
            records.set_wheel_prev(next, Before::Entry(to).word());
        }
    }

    /// Moves the wheel's time towards `now_ms` and takes out one entry whose deadline has come. Each step of
    /// work, also one that expires nothing, takes one from `budget`; `None` when it is used up or all is done.
    pub(crate) fn next_expired(
        &mut self,
        records: &mut Records,
        now_ms: u64,
        budget: &mut usize,
    ) -> Option<Slot> {
        let now_tick = now_ms >> TICK_BITS;
        while *budget > 0 {
            match self.next() {
                Next::Due(slot) => {
                    *budget -= 1;
                    let entry = self.slots[slot].expect("a slot that is marked has an entry");
                    let base = self.base_ms();
                    let due = match records.expiry(entry, base) {
                        Expiry::Never => true,
                        Expiry::AtMs(at) => tick_of(at) <= self.current,
                    };
                    self.remove(records, entry);
                    if due {
                        return Some(entry);
                    }
                    self.insert(records, entry);
                }
                Next::At(tick) if tick <= now_tick => self.current = tick,
                Next::At(_) | Next::Idle => {
                    self.current = self.current.max(now_tick);
                    return None;
                }
            }
        }
        None
    }

    /// Whether a call of [`Self::next_expired`] would do anything.
    #[inline]
    pub(crate) fn is_behind(&self, now_ms: u64) -> bool {
        self.current < now_ms >> TICK_BITS
    }

    fn next(&self) -> Next {
        for level in 0..LEVELS {
            let index = self.index(level);
            if self.occupied[level] & 1 << index != 0 {
                return Next::Due(level * SLOTS + index);
            }
        }
        for level in 0..LEVELS {
            // Entries of a level lie after the level's present slot; the topmost one wraps round.
            let waiting = self.occupied[level];
            if waiting != 0 {
                let index = self.index(level) as u32;
                let ahead = u64::from(waiting.rotate_right(index).trailing_zeros());
                let width = LEVEL_BITS * level as u32;
                return Next::At(((self.current >> width) + ahead) << width);
            }
        }
        Next::Idle
    }

    fn index(&self, level: usize) -> usize {
        (self.current >> (LEVEL_BITS * level as u32)) as usize % SLOTS
    }

    /// The level is that of the highest digit in which the deadline's tick differs from the present one. What is
    /// beyond the wheel's reach waits in the furthest slot, and is put in anew when that comes: in the slot of its
    /// own digit, which may be the present one, it would be taken out and put back for ever.
    fn slot_for(&self, deadline_ms: u64) -> usize {
        let tick = tick_of(deadline_ms).clamp(self.current, self.current + REACH_TICKS);
        let differs = (tick ^ self.current) | 1;
        let level = ((63 - differs.leading_zeros()) / LEVEL_BITS) as usize;
        let level = level.min(LEVELS - 1);
        level * SLOTS + (tick >> (LEVEL_BITS * level as u32)) as usize % SLOTS
    }

    fn set_first(&mut self, slot: usize, first: Option<Slot>) {
        self.slots[slot] = first;
        if first.is_none() {
            self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
        }
    }

    #[cfg(any(test, debug_assertions))]
    pub(crate) fn validate(&self, records: &Records) {
        let mut seen = 0;
        for slot in 0..LEVELS * SLOTS {
            let mut at = self.slots[slot];
            assert_eq!(at.is_some(), self.occupied[slot / SLOTS] & 1 << (slot % SLOTS) != 0);
            let mut before = Before::Start(slot);
            while let Some(entry) = at {
                let (prev, next) = records.wheel_links(entry);
                assert_eq!(Before::of_word(prev), before);
                assert!(records.expires(entry));
                seen += 1;
                before = Before::Entry(entry);
                at = next;
            }
        }
        assert_eq!(seen, self.len);
    }
}

/// The first tick at which the deadline has passed.
fn tick_of(deadline_ms: u64) -> u64 {
    deadline_ms.div_ceil(1 << TICK_BITS)
}
