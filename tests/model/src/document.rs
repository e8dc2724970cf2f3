//! The document of the model: who is a member under an epoch, and so who owns each key.
//!
//! A document's place in the list of all documents is its epoch; `predecessor` is the one that its writer had.
//! The owner of a key is a table look-up over the members in order, so that nearly every change moves keys.

use crate::state::{IDS, KEYS, NONE};

/// The bit of the store among the voters; incarnations have the bits below.
pub(crate) const STORE: u32 = 1 << 31;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Document {
    pub(crate) predecessor: u8,
    /// The incarnation of each id, `NONE` where the id is no member.
    pub(crate) members: [u8; IDS],
    pub(crate) rotation: u8,
    /// Whether entries may be handed over to it: not after an absence.
    pub(crate) planned: bool,
    pub(crate) mass: bool,
    /// How many members were taken out as absent, and the true time of it.
    pub(crate) removed: u8,
    pub(crate) written_at: i32,
    /// R2: who says whether this document is the newest.
    pub(crate) voters: u32,
    /// The owner's incarnation.
    pub(crate) owner: [u8; KEYS],
    /// R3: whose acknowledgements make the barrier: the predecessor's voters, or as mass removal has it.
    pub(crate) ackers: u32,
    /// How many of the ackers must have acknowledged before the wait of 1.1 × aa begins.
    pub(crate) quorum: u8,
    /// Who may still act for a key under one of the predecessors that were not settled.
    pub(crate) previous_owners: [u32; KEYS],
    /// The predecessors under which somebody may still act, as bits; one, but for a mass removal.
    pub(crate) unsettled: u64,
}

impl Document {
    /// A document's members are given, the rest follows. Its ackers are still to be set.
    pub(crate) fn new(predecessor: u8, members: [u8; IDS], rotation: u8) -> Self {
        let mut list = [NONE; IDS];
        let mut count = 0;
        let mut voters = 0;
        for incarnation in members.into_iter().filter(|incarnation| *incarnation != NONE) {
            list[count] = incarnation;
            count += 1;
            voters |= 1 << incarnation;
        }
        if count % 2 == 0 {
            voters |= STORE;
        }
        let mut owner = [NONE; KEYS];
        for (key, owner) in owner.iter_mut().enumerate() {
            // The keys turn at different speeds, so that a change of weights moves some and leaves others.
            let turn = key + usize::from(rotation) * (key + 1) / 2;
            *owner = list[turn % count];
        }
        Self {
            predecessor,
            members,
            rotation,
            planned: true,
            mass: false,
            removed: 0,
            written_at: 0,
            voters,
            owner,
            ackers: 0,
            quorum: 0,
            previous_owners: [0; KEYS],
            unsettled: 0,
        }
    }

    pub(crate) fn names(&self, incarnation: u8) -> bool {
        incarnation < 31 && self.voters & (1 << incarnation) != 0
    }

    pub(crate) fn size(&self) -> u32 {
        (self.voters & !STORE).count_ones()
    }
}

/// More than half of a set of voters.
pub(crate) fn majority(voters: u32) -> u8 {
    (voters.count_ones() / 2 + 1) as u8
}
