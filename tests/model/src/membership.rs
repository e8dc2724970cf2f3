//! R1 to R3b: adopting documents, confirmation, the barrier, and what happens to entries when the owner of a key changes.

use crate::document::{Document, STORE};
use crate::rules::Rule;
use crate::state::{AA, Body, EMPTY, IDS, KEYS, LEASE, LONG_AGO, NONE, PAST, Sender, State, WAIT};

impl State {
    /// R1 and R3b. Adopting is publishing and passing through all shards' locks, which is one step here.
    pub(crate) fn adopt(&mut self, process: usize, epoch: u8) {
        let old = self.processes[process].document;
        if epoch <= old {
            return;
        }
        let document = *self.document(epoch);
        let mut between = [NONE; PAST];
        let mut steps = 0;
        let mut reached = epoch;
        while reached != old && steps < PAST && reached != NONE {
            between[steps] = reached;
            steps += 1;
            reached = self.document(reached).predecessor;
        }
        let learned = reached == old;
        if self.rules.has(Rule::KeptBetween) {
            if !learned {
                self.processes[process].slots = [EMPTY; KEYS];
                self.pass(process, document.predecessor, epoch);
            } else {
                for step in (0..steps).rev() {
                    let from = self.document(between[step]).predecessor;
                    self.pass(process, from, between[step]);
                }
            }
        } else {
            self.pass(process, old, epoch);
        }
        let state = &mut self.processes[process];
        state.document = epoch;
        state.votes = [LONG_AGO; IDS + 1];
        // The store has it, or nobody would know of it.
        state.acknowledged = STORE | state.dead;
        if state.incarnation != NONE {
            state.acknowledged |= 1 << state.incarnation;
        }
        state.majority_at = None;
        state.expect_signs(&document);
        if state.warm_from != NONE && !document.names(state.warm_from) && !document.names(state.incarnation) {
            // R5: somebody else has its place, so that what it kept says nothing.
            state.warm_from = NONE;
            state.slots = [EMPTY; KEYS];
        }
        self.count_acknowledgements(process);
    }

    /// What a change from one document to the next does to each entry of a process.
    fn pass(&mut self, process: usize, from: u8, to: u8) {
        let (before, after) = (*self.document(from), *self.document(to));
        let rules = self.rules;
        let state = &mut self.processes[process];
        let mine =
            |owner: u8| owner == state.incarnation || (state.warm_from != NONE && owner == state.warm_from);
        let owned: [(bool, bool); KEYS] =
            std::array::from_fn(|key| (mine(before.owner[key]), mine(after.owner[key])));
        for (key, owned) in owned.into_iter().enumerate() {
            let slot = &mut state.slots[key];
            match owned {
                (true, true) => {}
                (false, true) => {
                    if rules.has(Rule::GainedDrops) {
                        slot.value = 0;
                    }
                    slot.left_at = NONE;
                    slot.gained_at = if after.planned { to } else { NONE };
                    slot.claimed = false;
                    slot.pending = 0;
                }
                (true, false) => {
                    slot.left_at = if after.planned { to } else { NONE };
                    slot.gained_at = NONE;
                    slot.claimed = false;
                    // The rule that an ask dies with it is part of (h): an answer is installed only while its ask is pending.
                    slot.pending = 0;
                }
                (false, false) => {
                    if before.owner[key] != after.owner[key] && rules.has(Rule::DirectlyAfter) {
                        slot.value = 0;
                        slot.left_at = NONE;
                    }
                }
            }
        }
    }

    /// A process hears from another one, and what that one had acknowledged when it spoke.
    pub(crate) fn hear(&mut self, process: usize, sender: Sender) {
        self.adopt(process, sender.document);
        let by_id = !self.rules.has(Rule::VoterIncarnation);
        let mine = self.processes[process].document;
        let voters = if by_id { self.ids_as_incarnations(mine, sender.id) } else { 0 };
        let state = &mut self.processes[process];
        state.signs[usize::from(sender.incarnation)] = state.clock;
        if sender.document >= mine {
            state.acknowledged |= 1 << sender.incarnation | sender.dead | voters;
        } else {
            state.acknowledged |= sender.dead;
        }
        self.count_acknowledgements(process);
    }

    /// Without rule (a): all that an id was called under the document's predecessors.
    fn ids_as_incarnations(&self, epoch: u8, id: u8) -> u32 {
        let mut found = 0;
        let mut unsettled = self.document(epoch).unsettled;
        while unsettled != 0 {
            let incarnation = self.documents[unsettled.trailing_zeros() as usize].members[usize::from(id)];
            if incarnation != NONE {
                found |= 1 << incarnation;
            }
            unsettled &= unsettled - 1;
        }
        found
    }

    fn count_acknowledgements(&mut self, process: usize) {
        let Document { ackers, quorum, .. } = *self.document(self.processes[process].document);
        let state = &mut self.processes[process];
        if state.majority_at.is_none() && (state.acknowledged & ackers).count_ones() >= u32::from(quorum) {
            state.majority_at = Some(state.clock);
        }
    }

    /// A question for confirmation and its answer in one: the question carries the asker's document.
    pub(crate) fn talk(&mut self, process: usize, peer: usize) -> bool {
        if !self.linked(process, peer) || self.silent(process) || self.silent(peer) {
            return false;
        }
        let asked = self.processes[process].clock;
        let document = self.processes[process].document;
        self.hear(peer, self.sender(process));
        self.hear(process, self.sender(peer));
        self.vote(process, self.sender(peer), document, asked);
        true
    }

    /// The same with a delay: the question is sent.
    pub(crate) fn ask(&mut self, process: usize, peer: usize) -> bool {
        if !self.linked(process, peer) || self.silent(process) || self.silent(peer) {
            return false;
        }
        let asked = self.processes[process].clock;
        self.send(process, peer, Body::Ask { asked });
        true
    }

    /// A process without an incarnation has nothing to say yet.
    pub(crate) fn silent(&self, process: usize) -> bool {
        self.processes[process].incarnation == NONE
    }

    /// R2: the answer counts if it is about the document that the asker still has.
    pub(crate) fn vote(&mut self, process: usize, voter: Sender, document: u8, asked: i32) {
        if self.processes[process].document != document || voter.document != document {
            return;
        }
        let member = self.document(document).members[usize::from(voter.id)];
        let counts =
            if self.rules.has(Rule::VoterIncarnation) { member == voter.incarnation } else { member != NONE };
        if counts {
            let vote = &mut self.processes[process].votes[usize::from(voter.id)];
            *vote = (*vote).max(asked);
        }
    }

    /// A linearizable read of the store: its document, its vote, and a renewed lease.
    pub(crate) fn read_store(&mut self, process: usize) -> bool {
        if !self.store_linked(process) {
            return false;
        }
        let newest = self.store.document;
        self.adopt(process, newest);
        let now = self.now;
        let state = &mut self.processes[process];
        state.store_at = now;
        if state.document == newest {
            state.votes[IDS] = state.clock;
        }
        if state.incarnation != NONE {
            self.store.leases[usize::from(state.incarnation)] = now + LEASE;
        }
        true
    }

    /// About what every aa / 3 does: ask all, and the store.
    pub(crate) fn round(&mut self, process: usize) -> bool {
        if !self.runs(process) || self.silent(process) {
            return false;
        }
        self.read_store(process);
        for peer in 0..usize::from(self.count) {
            self.talk(process, peer);
        }
        true
    }

    /// R2: a majority of the voters has said within the last aa that the document is the newest.
    pub(crate) fn confirmed(&self, process: usize) -> bool {
        let state = &self.processes[process];
        let document = self.document(state.document);
        if !document.names(state.incarnation) {
            return false;
        }
        let recent = |asked: i32| state.clock - asked < AA;
        let mut votes = 1;
        for (id, member) in document.members.into_iter().enumerate() {
            votes += u32::from(member != NONE && member != state.incarnation && recent(state.votes[id]));
        }
        votes += u32::from(document.voters & STORE != 0 && recent(state.votes[IDS]));
        votes * 2 > document.voters.count_ones()
    }

    /// R3: the previous owner has acknowledged, or a majority has and 1.1 × aa has passed.
    pub(crate) fn barrier_passed(&self, process: usize, key: usize) -> bool {
        let state = &self.processes[process];
        let others = self.document(state.document).previous_owners[key] & !(1 << state.incarnation);
        others & !state.acknowledged == 0 || self.waited(process)
    }

    fn waited(&self, process: usize) -> bool {
        let state = &self.processes[process];
        let wait = if self.rules.has(Rule::Wait) { WAIT } else { 0 };
        state.majority_at.is_some_and(|since| state.clock - since >= wait)
    }

    /// R3a, as far as this process knows.
    pub(crate) fn settled(&self, process: usize) -> bool {
        let state = &self.processes[process];
        let document = self.document(state.document);
        let mut everybody = 0;
        let mut unsettled = document.unsettled;
        while unsettled != 0 {
            everybody |= self.documents[unsettled.trailing_zeros() as usize].voters;
            unsettled &= unsettled - 1;
        }
        everybody & !state.acknowledged == 0 || self.waited(process)
    }

    /// Whether a process acts as the owner of a key now.
    pub(crate) fn acts(&self, process: usize, key: usize) -> bool {
        let state = &self.processes[process];
        state.incarnation != NONE
            && self.document(state.document).owner[key] == state.incarnation
            && self.confirmed(process)
            && self.barrier_passed(process, key)
    }
}
