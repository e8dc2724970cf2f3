//! What callers ask: Get, Set, Delete, through rings old and new, hand-over of entries, and Invalidate.
//!
//! The property is judged here: see [`State::answer`].

use crate::rules::Rule;
use crate::state::{Begun, Body, Invalidation, KEYS, Life, Message, NONE, Slot, State};

/// What a caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Get,
    Set,
    Delete,
}

impl State {
    /// A caller with the ring of a document asks its owner, and is refused where the owner has another document.
    pub(crate) fn call_by_ring(&mut self, operation: Operation, key: usize, epoch: u8) -> bool {
        if usize::from(epoch) >= self.documents.len() {
            return false;
        }
        let owner = self.document(epoch).owner[key];
        let Some(process) = self.running(owner) else { return false };
        if self.processes[process].document != epoch {
            return false;
        }
        self.perform(operation, key, process, epoch)
    }

    /// A caller without a ring asks any node, which forwards one hop to the owner by its own document.
    pub(crate) fn call_via(&mut self, operation: Operation, key: usize, via: usize) -> bool {
        if !self.runs(via) || self.silent(via) {
            return false;
        }
        let epoch = self.processes[via].document;
        let owner = self.document(epoch).owner[key];
        let process = if owner == self.processes[via].incarnation {
            via
        } else {
            match self.running(owner) {
                Some(process) if self.linked(via, process) => process,
                _ => return false,
            }
        };
        self.perform(operation, key, process, epoch)
    }

    fn perform(&mut self, operation: Operation, key: usize, process: usize, callers_epoch: u8) -> bool {
        match operation {
            Operation::Get => self.get(key, process, callers_epoch),
            Operation::Set | Operation::Delete => {
                let begun = self.next_stamp();
                self.change(key, process, begun, operation == Operation::Set)
            }
        }
    }

    fn get(&mut self, key: usize, process: usize, callers_epoch: u8) -> bool {
        self.counts.reads += 1;
        if !self.acts(process, key) {
            return true;
        }
        let floor = self.floors[key];
        let slot = self.processes[process].slots[key];
        if slot.value != 0 {
            self.count_hit(key, process, callers_epoch, &slot);
            self.answer(slot.value, floor);
            return true;
        }
        if slot.gained_at != NONE && !slot.claimed && slot.pending == 0 {
            let before = self.document(slot.gained_at).predecessor;
            let previous = self.document(before).owner[key];
            if let Some(peer) = self.running(previous).filter(|peer| self.linked(process, *peer)) {
                self.ask_for(key, process, peer, floor);
            }
        }
        true
    }

    fn ask_for(&mut self, key: usize, process: usize, peer: usize, floor: u32) {
        self.asks += 1;
        let number = self.asks;
        let slot = &mut self.processes[process].slots[key];
        let gained_at = slot.gained_at;
        slot.claimed = true;
        slot.pending = number;
        slot.pending_floor = floor;
        self.send(process, peer, Body::HandOverAsk { key: key as u8, gained_at, number });
    }

    /// Without rule (g): the owner before the previous one is asked, if it runs.
    pub(crate) fn ask_older(&mut self, key: usize, process: usize) -> bool {
        if self.rules.has(Rule::DirectlyAfter)
            || !self.runs(process)
            || self.silent(process)
            || !self.acts(process, key)
        {
            return false;
        }
        let slot = self.processes[process].slots[key];
        if slot.value != 0 || slot.gained_at == NONE || slot.claimed {
            return false;
        }
        let before = self.document(slot.gained_at).predecessor;
        let older = self.document(before).predecessor;
        if older == NONE {
            return false;
        }
        let owner = self.document(older).owner[key];
        let Some(peer) = self.running(owner).filter(|peer| self.linked(process, *peer)) else { return false };
        self.ask_for(key, process, peer, self.floors[key]);
        true
    }

    /// A Get is told a value. It is stale if its Set was over before something began that was over before the Get began:
    /// real time alone decides, so that of two calls that overlapped either may be the later.
    fn answer(&mut self, value: u16, floor: u32) {
        if self.acknowledged_at[usize::from(value)] < floor {
            self.stale = true;
        }
    }

    fn count_hit(&mut self, key: usize, process: usize, callers_epoch: u8, slot: &Slot) {
        let state = &self.processes[process];
        let document = self.document(state.document);
        let moved = document.previous_owners[key] & !(1 << state.incarnation) != 0;
        let newest = self.documents.len() as u8 - 1;
        let by_word = document.previous_owners[key] & !(1 << state.incarnation) & !state.acknowledged == 0;
        let twin = (0..usize::from(self.count)).any(|other| {
            other != process
                && self.processes[other].id == state.id
                && matches!(self.processes[other].life, Life::Up | Life::Frozen)
        });
        let (mass, warm) = (document.mass, state.warm_from != NONE);
        let counts = &mut self.counts;
        counts.hits += 1;
        counts.hits_after_barrier += u64::from(moved);
        counts.hits_after_wait += u64::from(moved && !by_word);
        counts.hits_by_old_rings += u64::from(callers_epoch < newest);
        counts.hits_handed_over += u64::from(slot.handed);
        counts.hits_after_mass_removal += u64::from(mass);
        counts.hits_with_twins += u64::from(twin);
        counts.hits_after_warm_start += u64::from(warm);
    }

    /// A Set or Delete. A node that may not act refuses, and drops what it has.
    fn change(&mut self, key: usize, process: usize, begun: u32, set: bool) -> bool {
        if !self.acts(process, key) {
            let state = &mut self.processes[process];
            // What moved away is not its own any more, and the caller is told of the other ring.
            if self.documents[usize::from(state.document)].owner[key] == state.incarnation {
                state.slots[key].value = 0;
            }
            self.counts.refused += 1;
            return true;
        }
        self.apply_change(key, process, begun, set)
    }

    fn apply_change(&mut self, key: usize, process: usize, begun: u32, set: bool) -> bool {
        if self.acknowledged_at.len() >= usize::from(u16::MAX) {
            return false;
        }
        let over = self.next_stamp();
        let value = if set {
            self.acknowledged_at.push(over);
            (self.acknowledged_at.len() - 1) as u16
        } else {
            0
        };
        let slot = &mut self.processes[process].slots[key];
        slot.value = value;
        slot.claimed = true;
        slot.pending = 0;
        slot.handed = false;
        self.floors[key] = self.floors[key].max(begun);
        self.counts.writes += 1;
        true
    }

    /// The first half of a Set: the node sees that it acts. With rule (f) it sees again when it is done.
    pub(crate) fn begin_set(&mut self, key: usize, process: usize) -> bool {
        if !self.runs(process) || self.processes[process].begun.is_some() || !self.acts(process, key) {
            return false;
        }
        let stamp = self.next_stamp();
        self.processes[process].begun = Some(Begun { key: key as u8, stamp });
        true
    }

    pub(crate) fn finish_set(&mut self, process: usize) -> bool {
        if !self.runs(process) {
            return false;
        }
        let Some(Begun { key, stamp }) = self.processes[process].begun.take() else { return false };
        if self.rules.has(Rule::Atomic) {
            self.change(usize::from(key), process, stamp, true)
        } else {
            self.apply_change(usize::from(key), process, stamp, true)
        }
    }

    pub(crate) fn evict(&mut self, key: usize, process: usize) -> bool {
        let slot = &mut self.processes[process].slots[key];
        let had = slot.value != 0;
        slot.value = 0;
        had
    }

    pub(crate) fn time_out(&mut self, key: usize, process: usize) -> bool {
        let slot = &mut self.processes[process].slots[key];
        let had = slot.pending != 0;
        slot.pending = 0;
        had
    }

    /// A previous owner sends what moved. It keeps the entry, which is harder than dropping it.
    pub(crate) fn push(&mut self, key: usize, process: usize) -> bool {
        let slot = self.processes[process].slots[key];
        if !self.runs(process) || slot.value == 0 || slot.left_at == NONE {
            return false;
        }
        let owner = self.document(slot.left_at).owner[key];
        let Some(peer) = self.running(owner).filter(|peer| self.linked(process, *peer)) else { return false };
        self.send(process, peer, Body::Push { key: key as u8, value: slot.value, left_at: slot.left_at });
        true
    }

    /// A message arrives.
    pub(crate) fn receive(&mut self, message: Message) {
        let (from, to) = (usize::from(message.from), usize::from(message.to));
        if !self.runs(to) || self.processes[to].incarnation != message.to_incarnation {
            return;
        }
        self.hear(to, message.sender);
        match message.body {
            Body::Ask { asked } => {
                if self.linked(to, from) {
                    let document = message.sender.document;
                    self.send(to, from, Body::Newest { document, asked });
                }
            }
            Body::Newest { document, asked } => self.vote(to, message.sender, document, asked),
            Body::HandOverAsk { key, gained_at, number } => self.hand_over(to, from, key, gained_at, number),
            Body::HandOver { key, number, value } => self.install(to, usize::from(key), number, value),
            Body::Push { key, value, left_at } => {
                self.install_push(to, usize::from(key), value, left_at, message.sender.incarnation);
            }
        }
    }

    /// The previous owner answers an ask, and drops what it gives away.
    fn hand_over(&mut self, process: usize, asker: usize, key: u8, gained_at: u8, number: u16) {
        let incarnation = self.processes[process].incarnation;
        let document = self.processes[process].document;
        let owns = self.document(document).owner[usize::from(key)] == incarnation;
        let slot = &mut self.processes[process].slots[usize::from(key)];
        let allowed = if self.rules.has(Rule::DirectlyAfter) {
            slot.left_at == gained_at
        } else {
            slot.left_at != NONE
        };
        let mut value = 0;
        if allowed && !owns {
            value = slot.value;
            slot.value = 0;
        }
        if self.linked(process, asker) {
            self.send(process, asker, Body::HandOver { key, number, value });
        }
    }

    fn install(&mut self, process: usize, key: usize, number: u16, value: u16) {
        let incarnation = self.processes[process].incarnation;
        let owner = self.document(self.processes[process].document).owner[key];
        let slot = &mut self.processes[process].slots[key];
        let pending = slot.pending == number;
        if pending {
            slot.pending = 0;
        }
        if value == 0
            || owner != incarnation
            || slot.value != 0
            || (self.rules.has(Rule::PendingAsk) && !pending)
        {
            return;
        }
        slot.value = value;
        slot.handed = true;
        let floor = slot.pending_floor;
        self.counts.hand_overs += 1;
        if pending {
            self.answer(value, floor);
        }
    }

    fn install_push(&mut self, process: usize, key: usize, value: u16, left_at: u8, sender: u8) {
        let state = self.processes[process];
        let previous = self.document(self.document(left_at).predecessor).owner[key];
        let same_epoch =
            state.document == left_at || !self.rules.has(Rule::DirectlyAfter) && state.document > left_at;
        let owner = self.document(state.document).owner[key];
        let slot = &mut self.processes[process].slots[key];
        if !same_epoch
            || previous != sender
            || owner != state.incarnation
            || slot.gained_at == NONE
            || slot.claimed
            || slot.value != 0
        {
            return;
        }
        slot.value = value;
        slot.handed = true;
        self.counts.pushes += 1;
    }

    /// An invalidation of everything begins at any node.
    pub(crate) fn invalidate(&mut self, process: usize) -> bool {
        if !self.runs(process) || self.silent(process) || self.invalidations[process].is_some() {
            return false;
        }
        let begun = self.next_stamp();
        let state = &self.processes[process];
        self.invalidations[process] = Some(Invalidation {
            begun,
            incarnation: state.incarnation,
            document: state.document,
            answered: 0,
            repeated: false,
        });
        self.carry(process, process);
        true
    }

    /// The invalidation reaches a member, and its answer the node that carries it.
    pub(crate) fn carry(&mut self, process: usize, member: usize) -> bool {
        let Some(mut invalidation) = self.invalidations[process] else { return false };
        if !self.runs(process) || (process != member && !self.linked(process, member)) || self.silent(member)
        {
            return false;
        }
        if process != member {
            self.hear(member, self.sender(process));
            self.hear(process, self.sender(member));
        }
        let id = usize::from(self.processes[member].id);
        let bit = 1 << id;
        let document = *self.document(invalidation.document);
        if document.members[id] == self.processes[member].incarnation && self.invalidated(member) {
            let epoch = self.processes[member].document;
            if epoch == invalidation.document || !self.rules.has(Rule::InvalidationRepeated) {
                invalidation.answered |= bit;
            } else {
                invalidation.answered = 0;
                invalidation.document = self.processes[process].document;
                invalidation.repeated = true;
            }
        } else if self.rules.has(Rule::InvalidationRepeated)
            && self.processes[process].document != invalidation.document
        {
            invalidation.answered = 0;
            invalidation.document = self.processes[process].document;
            invalidation.repeated = true;
        }
        self.invalidations[process] = Some(invalidation);
        self.finish_invalidation(process, invalidation);
        true
    }

    fn finish_invalidation(&mut self, process: usize, invalidation: Invalidation) {
        let members = self.document(invalidation.document).members;
        let missing = members
            .iter()
            .enumerate()
            .any(|(id, member)| *member != NONE && invalidation.answered & (1 << id) == 0);
        if missing || invalidation.incarnation != self.processes[process].incarnation {
            return;
        }
        self.invalidations[process] = None;
        self.next_stamp();
        for floor in &mut self.floors {
            *floor = (*floor).max(invalidation.begun);
        }
        self.counts.invalidations += 1;
        self.counts.invalidations_repeated += u64::from(invalidation.repeated);
    }

    /// A member drops everything, and claims all keys; false where it may not answer yet.
    fn invalidated(&mut self, member: usize) -> bool {
        let epoch = self.processes[member].document;
        let owner = self.document(epoch).owner;
        let incarnation = self.processes[member].incarnation;
        for slot in &mut self.processes[member].slots {
            slot.value = 0;
            slot.pending = 0;
            slot.claimed = true;
        }
        self.confirmed(member)
            && (!self.rules.has(Rule::InvalidationBarrier)
                || (0..KEYS).all(|key| owner[key] != incarnation || self.barrier_passed(member, key)))
    }
}
