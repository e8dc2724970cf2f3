//! The two queues, window and main, and the rules by which an entry passes from one to the other or goes.
//!
//! ```text
//!            new ──▶ ┌────────────┐ tail: asked for again?   ┌──────────────────────────┐
//!                    │   window   │ ── once more round        │           main           │ ── once more round
//!                    └────────────┘                           └──────────────────────────┘
//!                          └───── contest: asked for oftener than main's tail? it goes, this one enters ──▲
//! ```
//!
//! The same code, over cells of its own, is what a shadow runs.

use super::super::Slots;
use super::super::list::List;
use super::remembered::Remembered;
use crate::engine::slot::Slot;

/// In the mark: how often the entry was asked for, 1 to 7.
const TIMES: u8 = 0b0000_0111;
/// In the mark: hits since its queue's end let it pass, 0 to 3.
const RECENT: u8 = 0b0001_1000;
const RECENT_ONE: u8 = 0b0000_1000;
/// In the mark: the entry is in the main queue.
pub(super) const IN_MAIN: u8 = 0b0010_0000;
/// In the mark: shadows follow this key. The queues keep this bit.
pub(super) const SAMPLED: u8 = 0b0100_0000;
/// Recent hits that move an entry from window to main where there is no contest.
const RECENT_TO_MAIN: u8 = 2 * RECENT_ONE;
/// Entries that pass at once from a window that became smaller, with each eviction.
const SETTLED_AT_ONCE: usize = 64;

/// How the queues work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    /// The window's part of the bytes, in thousandths.
    pub window: u16,
    pub entry: MainAdmission,
}

/// How an entry enters the main queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MainAdmission {
    /// It was asked for oftener than the one at main's end, which goes. One that wins `patience` times (on average) has
    /// its count halved.
    ByContest { patience: u32 },
    /// It was hit twice in the window, or was here lately (S3-FIFO).
    ByHits,
}

#[derive(Debug)]
pub(super) struct Queues {
    window: List,
    main: List,
    pub(super) remembered: Remembered,
    setting: Setting,
    /// The window was not yet down to its part since that was set.
    settling: bool,
    dice: u32,
}

impl Queues {
    pub(super) fn new(setting: Setting) -> Self {
        Self {
            window: List::default(),
            main: List::default(),
            remembered: Remembered::default(),
            setting,
            settling: true,
            dice: 0x9E37_79B9,
        }
    }

    pub(super) fn setting(&self) -> Setting {
        self.setting
    }

    /// Lets all entries go and forgets those that went.
    pub(super) fn clear(&mut self) {
        (self.window, self.main) = (List::default(), List::default());
        self.remembered.clear();
        self.settling = true;
    }

    /// The window's entries.
    pub(super) fn oldest_first<'a>(&self, slots: &'a impl Slots) -> impl Iterator<Item = Slot> + 'a {
        std::iter::successors(self.window.back(), |slot| List::newer(slots, *slot))
    }

    pub(super) fn set(&mut self, setting: Setting) {
        self.setting = setting;
        self.settling = true;
    }

    pub(super) fn len(&self) -> usize {
        self.window.len() + self.main.len()
    }

    /// What an entry's mark says, for people.
    pub(super) fn view(slots: &impl Slots, slot: Slot) -> String {
        let mark = slots.mark(slot);
        let queue = if mark & IN_MAIN == 0 { "window" } else { "main" };
        let recent = (mark & RECENT) / RECENT_ONE;
        format!("in the {queue} queue; asked for {} times, {recent} in this round", mark & TIMES)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.window.bytes() + self.main.bytes()
    }

    pub(super) fn insert(&mut self, slots: &mut impl Slots, slot: Slot, hash: u64) {
        let known = self.remembered.take(hash);
        let times = known.map_or(1, |known| (known.times + 1).min(TIMES));
        let at_once =
            self.setting.entry == MainAdmission::ByHits && known.is_some_and(|known| known.is_recent);
        let mark = slots.mark(slot) & SAMPLED | times | if at_once { IN_MAIN } else { 0 };
        slots.set_mark(slot, mark);
        self.queue(mark).push_front(slots, slot);
    }

    /// Counts in the mark; returns it as it was.
    #[inline]
    pub(super) fn hit(slots: &mut impl Slots, slot: Slot) -> u8 {
        let mark = slots.mark(slot);
        let times = if mark & TIMES < TIMES { 1 } else { 0 };
        let recent = if mark & RECENT < RECENT { RECENT_ONE } else { 0 };
        if times | recent != 0 {
            slots.set_mark(slot, mark + times + recent);
        }
        mark
    }

    /// Whether [`Self::hit`] changes this mark no more.
    pub(super) fn counts_no_more(mark: u8) -> bool {
        mark & (TIMES | RECENT) == TIMES | RECENT
    }

    pub(super) fn remove(&mut self, slots: &mut impl Slots, slot: Slot) {
        let mark = slots.mark(slot);
        self.queue(mark).remove(slots, slot);
    }

    pub(super) fn evict(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        let mut settled = 0;
        loop {
            let window_bytes_max =
                (u128::from(self.bytes()) * u128::from(self.setting.window) / 1_000) as u64;
            self.settling &= self.window.bytes() > window_bytes_max;
            if self.main.len() > 0 && (self.window.len() == 0 || self.window.bytes() < window_bytes_max) {
                return self.evict_main(slots);
            }
            let slot = self.window.back()?;
            let recent = slots.mark(slot) & RECENT;
            match self.setting.entry {
                MainAdmission::ByHits if recent >= RECENT_TO_MAIN => self.pass_to_main(slots, slot),
                MainAdmission::ByHits => return Some(self.let_go(slots, slot)),
                MainAdmission::ByContest { .. } if recent > 0 => {
                    slots.set_mark(slot, slots.mark(slot) & !RECENT);
                    self.window.move_to_front(slots, slot);
                }
                MainAdmission::ByContest { .. } if self.settling && settled < SETTLED_AT_ONCE => {
                    settled += 1;
                    self.pass_to_main(slots, slot);
                }
                MainAdmission::ByContest { patience } => return Some(self.contest(slots, slot, patience)),
            }
        }
    }

    /// The entry of the colder end.
    pub(super) fn coldest(&self) -> Option<Slot> {
        self.window.back().or_else(|| self.main.back())
    }

    pub(super) fn moved(&mut self, slots: &mut impl Slots, to: Slot) {
        let mark = slots.mark(to);
        self.queue(mark).moved(slots, to);
    }

    pub(super) fn reweighed(&mut self, slots: &impl Slots, slot: Slot, was: u64) {
        let mark = slots.mark(slot);
        self.queue(mark).reweighed(slots, slot, was);
    }

    fn queue(&mut self, mark: u8) -> &mut List {
        if mark & IN_MAIN == 0 { &mut self.window } else { &mut self.main }
    }

    fn pass_to_main(&mut self, slots: &mut impl Slots, slot: Slot) {
        self.window.remove(slots, slot);
        slots.set_mark(slot, slots.mark(slot) & !RECENT | IN_MAIN);
        self.main.push_front(slots, slot);
    }

    /// Between the window's and the main queue's end; returns the one that goes.
    fn contest(&mut self, slots: &mut impl Slots, slot: Slot, patience: u32) -> Slot {
        let Some(other) = self.main_end(slots) else { return self.let_go(slots, slot) };
        let times = slots.mark(other) & TIMES;
        if slots.mark(slot) & TIMES > times {
            self.pass_to_main(slots, slot);
            return self.let_go(slots, other);
        }
        if self.rolls_one_of(patience) {
            slots.set_mark(other, slots.mark(other) - times + times / 2);
            self.main.move_to_front(slots, other);
        }
        self.let_go(slots, slot)
    }

    fn evict_main(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        let slot = self.main_end(slots)?;
        Some(self.let_go(slots, slot))
    }

    /// The main queue's end, once those that were hit have gone another round.
    fn main_end(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        loop {
            let slot = self.main.back()?;
            let mark = slots.mark(slot);
            if mark & RECENT == 0 {
                return Some(slot);
            }
            slots.set_mark(slot, mark - RECENT_ONE);
            self.main.move_to_front(slots, slot);
        }
    }

    fn let_go(&mut self, slots: &mut impl Slots, slot: Slot) -> Slot {
        self.remove(slots, slot);
        self.remembered.insert(slots.hash(slot), slots.mark(slot) & TIMES);
        slot
    }

    /// True once in `sides` times on average (Marsaglia's xorshift32).
    fn rolls_one_of(&mut self, sides: u32) -> bool {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 17;
        self.dice ^= self.dice << 5;
        (u64::from(self.dice) * u64::from(sides)) >> 32 == 0
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn validate(&self, slots: &impl Slots) {
        self.window.validate(slots, |slot| assert_eq!(slots.mark(slot) & IN_MAIN, 0));
        self.main.validate(slots, |slot| assert_ne!(slots.mark(slot) & IN_MAIN, 0));
    }
}
