//! The calls of a lane that are under way, each in a slot whose number is the id of its command.
//!
//! A slot is free again when its caller has its outcome or is gone, *and* no reply can come any more: until then its
//! number names one command only.

use std::task::Waker;
use std::time::Instant;

use super::{Choice, Failure, Reply};

/// A call's place.
#[derive(Debug)]
pub(super) struct Slot {
    /// When its caller waits no longer.
    pub(super) deadline: Instant,
    /// The caller's task.
    pub(super) waker: Option<Waker>,
    /// What it came to, until its caller takes it.
    pub(super) outcome: Option<Result<Reply, Failure>>,
    pub(super) stage: Stage,
    /// The key's hash, by which the order of its calls is kept.
    pub(super) hash: u64,
    /// The caller wants no outcome any more.
    pub(super) is_abandoned: bool,
}

impl Slot {
    /// No answer can come any more.
    pub(super) fn end(&mut self, choice: &Choice) {
        if !matches!(self.stage, Stage::Done | Stage::Free) {
            self.stage = Stage::Done;
            choice.done(self.hash);
        }
    }
}

/// How far a call's command has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is none.
    Free,
    /// It waits for room for this number of bytes.
    Queued(usize),
    /// Room is kept for it, and its caller is told to write it.
    Granted(usize),
    /// It is written, in the batch of this number: a batch below the lane's current one has been sent.
    Written(u64),
    /// It was answered, or no answer can come.
    Done,
}

/// All slots of a lane.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Slots {
    /// Takes a slot for a call.
    pub(super) fn take(&mut self, slot: Slot) -> u32 {
        if let Some(id) = self.free.pop() {
            self.slots[id as usize] = slot;
            return id;
        }
        self.slots.push(slot);
        // A lane with as many calls under way has run out of memory long before.
        u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 calls are under way on one connection")
    }

    /// The slot of a call that its caller still has.
    pub(super) fn of_call(&mut self, id: u32) -> &mut Slot {
        &mut self.slots[id as usize]
    }

    /// The slot that a reply names, if a reply to it can come.
    pub(super) fn of_reply(&mut self, id: u64) -> Option<(u32, &mut Slot)> {
        let slot = self.slots.get_mut(usize::try_from(id).ok()?)?;
        matches!(slot.stage, Stage::Written(_)).then_some((id as u32, slot))
    }

    /// Frees a slot that is nobody's any more.
    pub(super) fn free_if_over(&mut self, id: u32) {
        let slot = &mut self.slots[id as usize];
        if slot.is_abandoned && slot.stage == Stage::Done {
            slot.stage = Stage::Free;
            slot.waker = None;
            slot.outcome = None;
            self.free.push(id);
        }
    }

    /// Each slot that is taken, by its number.
    pub(super) fn each(&mut self, mut each: impl FnMut(u32, &mut Slot)) {
        for (id, slot) in self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.stage != Stage::Free) {
            each(id as u32, slot);
        }
        for id in 0..self.slots.len() as u32 {
            self.free_if_over(id);
        }
    }
}
