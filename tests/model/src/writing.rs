//! R3a, R4 and R5 where documents are written: joins, leaves, weights, removals, and what follows a restored store.

use crate::document::{Document, STORE, majority};
use crate::rules::Rule;
use crate::state::{
    AA, DOCUMENTS_MAX, EMPTY, IDS, INCARNATIONS_MAX, KEYS, LONG_AGO, Life, MASS_AA, MASS_TICKS,
    MASS_TICKS_LEAST, MASS_WINDOW, NONE, State,
};

impl State {
    /// Whether this process, which has read the store, may write the next document now.
    fn may_write(&self, process: usize, mass: bool) -> bool {
        self.documents.len() < DOCUMENTS_MAX
            && !self.silent(process)
            && self.store_linked(process)
            && self.processes[process].document == self.store.document
            && (mass || !self.rules.has(Rule::Settled) || self.settled(process))
    }

    /// Whether a process names itself in its document.
    fn is_member(&self, process: usize) -> bool {
        let state = &self.processes[process];
        state.incarnation != NONE && self.document(state.document).names(state.incarnation)
    }

    fn publish(&mut self, process: usize, mut document: Document, absent: u32) {
        let predecessor = *self.document(document.predecessor);
        document.written_at = self.now;
        // A mass removal need not wait for R3a, so that somebody may still act under more than one predecessor.
        document.unsettled = 1 << document.predecessor;
        if document.mass && !self.settled(process) {
            document.unsettled |= predecessor.unsettled;
            self.counts.mass_removals_unsettled += 1;
        }
        let mut voters = 0;
        let mut unsettled = document.unsettled;
        while unsettled != 0 {
            let earlier = &self.documents[unsettled.trailing_zeros() as usize];
            voters |= earlier.voters;
            for (owners, owner) in document.previous_owners.iter_mut().zip(earlier.owner) {
                *owners |= 1 << owner;
            }
            unsettled &= unsettled - 1;
        }
        if !document.mass {
            document.ackers = predecessor.voters;
            document.quorum = majority(document.ackers);
        } else {
            document.ackers = document.voters | STORE;
            document.quorum = majority(document.ackers);
            if self.rules.has(Rule::MassEverybody) {
                document.quorum = document.ackers.count_ones() as u8;
                if self.rules.has(Rule::MassPredecessors) {
                    document.ackers |= voters & !absent;
                    document.quorum = document.ackers.count_ones() as u8;
                }
            }
        }
        self.documents.push(document);
        self.counts.documents += 1;
        let epoch = (self.documents.len() - 1) as u8;
        self.store.document = epoch;
        self.read_store(process);
    }

    fn successor(&self, process: usize, members: [u8; IDS], rotation: u8) -> Document {
        Document::new(self.processes[process].document, members, rotation)
    }

    /// R4: no sign of an incarnation by any path for a time, and its lease gone.
    fn absent(&self, process: usize, incarnation: u8, silence: i32, lease_gone: i32) -> bool {
        let state = &self.processes[process];
        let index = usize::from(incarnation);
        state.dead & (1 << incarnation) != 0
            || (state.signs[index] != LONG_AGO
                && state.clock - state.signs[index] >= silence
                && self.now - self.store.leases[index] >= lease_gone)
    }

    /// R5: the place of an id is free, or who has it is known to be dead or absent, or it is what a warm start kept.
    fn may_take(&self, process: usize, occupant: u8) -> bool {
        occupant == NONE
            || occupant == self.processes[process].warm_from
            || self.absent(process, occupant, AA, 0)
    }

    /// A process asks to be added, alone or folded with another one that waits.
    pub(crate) fn join(&mut self, process: usize, other: Option<usize>) -> bool {
        if !self.may_write(process, false)
            || other.is_some_and(|other| !self.linked(process, other) || self.silent(other))
        {
            return false;
        }
        let current = *self.document(self.processes[process].document);
        let mut members = current.members;
        let mut planned = true;
        let mut by_twin = 0;
        for joining in [Some(process), other].into_iter().flatten() {
            let state = self.processes[joining];
            let id = usize::from(state.id);
            let occupant = members[id];
            let was_named = self.documents.iter().any(|document| document.names(state.incarnation));
            if was_named || !self.may_take(process, occupant) && !self.may_take(joining, occupant) {
                return false;
            }
            if occupant != NONE {
                planned = false;
                let owner = usize::from(self.process_of[usize::from(occupant)]);
                by_twin += u64::from(
                    owner != joining && self.processes[owner].incarnation == occupant && self.alive(owner),
                );
            }
            members[id] = state.incarnation;
        }
        let mut document = self.successor(process, members, current.rotation);
        document.planned = planned;
        self.counts.replaced += u64::from(!planned);
        self.counts.taken_by_twin += by_twin;
        self.publish(process, document, 0);
        true
    }

    fn alive(&self, process: usize) -> bool {
        matches!(self.processes[process].life, Life::Up | Life::Frozen)
    }

    /// A member gives its place up.
    pub(crate) fn leave(&mut self, process: usize) -> bool {
        if !self.may_write(process, false) || !self.is_member(process) {
            return false;
        }
        let current = *self.document(self.processes[process].document);
        if current.size() < 2 {
            return false;
        }
        let mut members = current.members;
        members[usize::from(self.processes[process].id)] = NONE;
        let document = self.successor(process, members, current.rotation);
        self.publish(process, document, 0);
        true
    }

    pub(crate) fn weigh(&mut self, process: usize, rotation: u8) -> bool {
        if !self.may_write(process, false) || !self.is_member(process) {
            return false;
        }
        let current = *self.document(self.processes[process].document);
        if current.rotation == rotation {
            return false;
        }
        let document = self.successor(process, current.members, rotation);
        self.publish(process, document, 0);
        true
    }

    /// R4: one that is absent goes. The incarnation is the one that the other process's id has in the document.
    pub(crate) fn remove(&mut self, process: usize, other: usize) -> bool {
        if !self.may_write(process, false) || !self.is_member(process) {
            return false;
        }
        let current = *self.document(self.processes[process].document);
        let id = usize::from(self.processes[other].id);
        let incarnation = current.members[id];
        if incarnation == NONE
            || incarnation == self.processes[process].incarnation
            || self.is_mass(process, 1)
            || !self.absent(process, incarnation, AA, 0)
        {
            return false;
        }
        let mut members = current.members;
        members[id] = NONE;
        let mut document = self.successor(process, members, current.rotation);
        document.planned = false;
        document.removed = 1;
        self.counts.removals += 1;
        self.publish(process, document, 0);
        true
    }

    /// Whether `more` removals would make two or more, and more than a third, within the window.
    fn is_mass(&self, process: usize, more: u32) -> bool {
        let mut going = more;
        let mut epoch = self.processes[process].document;
        let size = self.document(epoch).size();
        while epoch != NONE && self.now - self.document(epoch).written_at < MASS_WINDOW {
            going += u32::from(self.document(epoch).removed);
            epoch = self.document(epoch).predecessor;
        }
        going >= 2 && going * 3 > size + going - more
    }

    /// R4: all that are absent for so long that a mass removal may take them out.
    pub(crate) fn mass_remove(&mut self, process: usize) -> bool {
        if !self.may_write(process, true) || !self.is_member(process) {
            return false;
        }
        let current = *self.document(self.processes[process].document);
        let lease_gone = if self.rules.has(Rule::MassLease) { MASS_TICKS } else { 0 };
        let mut members = current.members;
        let mut removed = 0;
        for member in members.iter_mut().filter(|member| **member != NONE) {
            let incarnation = *member;
            if incarnation != self.processes[process].incarnation
                && self.absent(process, incarnation, MASS_AA, lease_gone)
            {
                *member = NONE;
                removed += 1;
            }
        }
        if removed == 0 || !self.is_mass(process, removed) {
            return false;
        }
        let mut document = self.successor(process, members, current.rotation);
        document.planned = false;
        document.mass = true;
        document.removed = removed as u8;
        if self.rules.has(Rule::MassException) && self.excepted(process, &document) {
            return false;
        }
        let absent = (0..self.incarnations)
            .filter(|incarnation| {
                !document.names(*incarnation) && self.absent(process, *incarnation, MASS_AA, lease_gone)
            })
            .fold(0, |absent, incarnation| absent | 1 << incarnation);
        self.counts.mass_removals += 1;
        self.publish(process, document, absent);
        true
    }

    /// R4's exception: a majority of the voters of a document under which somebody may still act, alive, that has not
    /// reached the store for longer than `--mass-absence-after`, may serve on. The model does not go there.
    fn excepted(&self, process: usize, document: &Document) -> bool {
        let mut unsettled = 1_u64 << document.predecessor;
        if !self.settled(process) {
            unsettled |= self.document(document.predecessor).unsettled;
        }
        while unsettled != 0 {
            let earlier = &self.documents[unsettled.trailing_zeros() as usize];
            let apart = (0..usize::from(self.count))
                .filter(|other| {
                    let state = &self.processes[*other];
                    self.alive(*other)
                        && earlier.names(state.incarnation)
                        && !document.names(state.incarnation)
                        && self.now - state.store_at >= MASS_TICKS_LEAST
                })
                .count();
            if apart * 2 > earlier.voters.count_ones() as usize {
                return true;
            }
            unsettled &= unsettled - 1;
        }
        false
    }

    /// §2: a node that knows a newer document than the store writes it back with a higher epoch.
    pub(crate) fn write_back(&mut self, process: usize) -> bool {
        if self.documents.len() == DOCUMENTS_MAX
            || self.silent(process)
            || !self.store_linked(process)
            || self.processes[process].document <= self.store.document
            || self.rules.has(Rule::Settled) && !self.settled(process)
        {
            return false;
        }
        let current = *self.document(self.processes[process].document);
        let document = self.successor(process, current.members, current.rotation);
        self.counts.written_back += 1;
        self.publish(process, document, 0);
        true
    }

    /// The store is restored from a backup.
    pub(crate) fn restore(&mut self, epoch: u8) -> bool {
        if epoch >= self.store.document {
            return false;
        }
        self.store.document = epoch;
        self.store.restored = true;
        true
    }

    /// The repair: the newest document that any process knows is put back, as it is, before the store is used again. All
    /// entries go: a newer document may have been known only to processes that died since, and acted under.
    pub(crate) fn reseed(&mut self) -> bool {
        let everybody = (0..usize::from(self.count)).filter(|process| self.alive(*process));
        let reached = |process: usize| self.runs(process) && self.store_cuts & (1 << process) == 0;
        if !self.store.restored || !self.store.up || !everybody.clone().all(reached) {
            return false;
        }
        let newest = everybody.map(|process| self.processes[process].document).max().unwrap_or(0);
        self.store.document = self.store.document.max(newest);
        self.store.restored = false;
        self.counts.written_back += 1;
        if !self.rules.has(Rule::RestoreEmpties) {
            return true;
        }
        for process in &mut self.processes {
            process.slots = [EMPTY; KEYS];
            process.warm_from = NONE;
            if process.life == Life::Stopped {
                // Its marker of a clean stop counts no more.
                process.life = Life::Crashed;
            }
        }
        true
    }

    /// A process ends: what it had in memory is gone.
    pub(crate) fn end(&mut self, process: usize, life: Life) -> bool {
        if !self.alive(process) || life == Life::Stopped && !self.runs(process) {
            return false;
        }
        let state = &mut self.processes[process];
        if life == Life::Stopped && (state.incarnation == NONE || state.warm_from != NONE) {
            return false;
        }
        state.life = life;
        state.suspended = false;
        state.begun = None;
        if life == Life::Stopped {
            // A clean stop gives the lease back.
            let lease = &mut self.store.leases[usize::from(state.incarnation)];
            *lease = (*lease).min(self.now);
        }
        self.invalidations[process] = None;
        true
    }

    /// Its data directory is lost, and with it what it knew and the proof that its earlier incarnations are dead.
    pub(crate) fn wipe(&mut self, process: usize) -> bool {
        if !self.end(process, Life::Crashed) {
            return false;
        }
        let state = &mut self.processes[process];
        state.document = 0;
        state.dead = 0;
        state.incarnation = NONE;
        true
    }

    /// A second process of an id takes a copy of another one's directory: warm where that one had stopped cleanly,
    /// else an image as of a crash.
    pub(crate) fn copy(&mut self, process: usize, source: usize) -> bool {
        let from = self.processes[source];
        let to = &mut self.processes[process];
        if process == source || from.id != to.id || from.incarnation == NONE || to.life != Life::Crashed {
            return false;
        }
        let clock = to.clock;
        *to = from;
        to.clock = clock;
        to.begun = None;
        to.suspended = false;
        if from.life != Life::Stopped {
            to.life = Life::Crashed;
            if self.rules.has(Rule::LockOfCopy) {
                to.incarnation = NONE;
                to.dead = 0;
            }
        }
        true
    }

    /// R5: warm after a clean stop, else new.
    pub(crate) fn start(&mut self, process: usize) -> bool {
        let state = self.processes[process];
        let warm = state.life == Life::Stopped;
        if self.alive(process)
            || (warm && !self.rules.has(Rule::WarmRenamed) && self.shows_life(process))
            || self.incarnations == INCARNATIONS_MAX
        {
            return false;
        }
        if warm && !self.rules.has(Rule::WarmRenamed) {
            self.process_of[usize::from(state.incarnation)] = process as u8;
        } else {
            self.become_new(process, warm);
        }
        self.counts.warm_starts += u64::from(warm);
        let current = *self.document(self.processes[process].document);
        let state = &mut self.processes[process];
        state.life = Life::Up;
        // Who has not been heard since the start has been silent since the start.
        state.signs = [LONG_AGO; INCARNATIONS_MAX as usize];
        state.expect_signs(&current);
        state.votes = [LONG_AGO; IDS + 1];
        // A restart of either side ends its part of the hand-over.
        for slot in &mut state.slots {
            slot.left_at = NONE;
            slot.gained_at = NONE;
            slot.pending = 0;
        }
        state.acknowledged = STORE | state.dead | 1 << state.incarnation;
        state.majority_at = None;
        true
    }

    /// A second process of an incarnation stays in standby while the first shows life.
    fn shows_life(&self, process: usize) -> bool {
        let incarnation = self.processes[process].incarnation;
        self.store.leases[usize::from(incarnation)] > self.now
            && self.store_cuts & (1 << process) == 0
            && self.store.up
            || (0..usize::from(self.count)).any(|other| {
                other != process
                    && self.runs(other)
                    && self.processes[other].incarnation == incarnation
                    && self.cuts[process] & (1 << other) == 0
            })
    }

    fn become_new(&mut self, process: usize, warm: bool) {
        let old = self.processes[process].incarnation;
        self.draw_incarnation(process).expect("the caller saw that incarnations are left");
        let state = &mut self.processes[process];
        if old != NONE {
            state.dead |= 1 << old;
        }
        state.warm_from = if warm { old } else { NONE };
        if !warm {
            state.slots = [EMPTY; KEYS];
        }
        state.votes = [LONG_AGO; IDS + 1];
        state.acknowledged |= state.dead | 1 << state.incarnation;
    }

    /// R5: a running process whose incarnation is not in its document, and was, becomes new without a restart.
    pub(crate) fn renew(&mut self, process: usize) -> bool {
        let state = &self.processes[process];
        if !self.runs(process)
            || state.incarnation == NONE
            || self.document(state.document).names(state.incarnation)
            || !self.documents.iter().any(|document| document.names(state.incarnation))
            || self.incarnations == INCARNATIONS_MAX
        {
            return false;
        }
        self.invalidations[process] = None;
        self.become_new(process, false);
        true
    }
}
