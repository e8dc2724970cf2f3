//! Work that waits: expired entries, entries that invalidations cover, hand-over to another policy, a lowered limit.
//!
//! An invalidation writes down what it covers and since when; it touches no entry. What it covers is dead from then
//! on, wherever it is found; the sweep, which walks the index segment by segment, takes it out. A round that began
//! after an invalidation and has been everywhere leaves nothing that it covers, so that it can be forgotten. A segment
//! that is split meanwhile gives entries to a new one behind all others, where the round still comes to.

use super::namespace_shard::Scope;
use super::{NamespaceShard, Shard};
use crate::clock::Now;
use crate::engine::namespace::Namespace;
use crate::engine::op::{MissReason, Refusal};
use crate::engine::slot::Slot;
use crate::entry::Version;

/// Invalidations that the sweep has not been everywhere for may take this part of the shard's limit.
const INVALIDATIONS_PART: u64 = 64;

/// Where the sweep is.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// The round that is under way, or comes next.
    round: u64,
    /// How many segments it has seen of this round.
    segments_done: usize,
    /// Rounds have to be made before this one.
    until: u64,
    /// The slots of the segment that is looked at; kept for its room.
    slots: Vec<Slot>,
}

impl Sweep {
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        self.round < self.until
    }

    /// The first round that begins from now on; the sweep will make it.
    pub(super) fn ask_for_round(&mut self) -> u64 {
        let round = if self.segments_done == 0 { self.round } else { self.round + 1 };
        self.until = self.until.max(round + 1);
        round
    }
}

impl Shard {
    /// Reclaims what has expired or is dead, hands entries over to a new policy and comes down to a lowered limit, at
    /// most `budget` steps (a segment of the sweep may take a few more). Says how many it took; fewer than the
    /// budget: all is done.
    pub(in crate::engine) fn advance(&mut self, now: Now, budget: usize) -> usize {
        let mut left = budget;
        self.requests.forget(now.steady_ms);
        while let Some(slot) = self.wheel.next_expired(&mut self.records, now.steady_ms, &mut left) {
            self.reclaim_expired(slot);
        }
        while left > 0 && self.hand_over_one() {
            left -= 1;
        }
        left -= self.shrink(left);
        budget - left
    }

    /// Looks at one segment for dead entries, if invalidations ask for it. How many entries it looked at; `None`: no
    /// invalidation waits.
    pub(in crate::engine) fn sweep_segment(&mut self) -> Option<usize> {
        if !self.sweep.is_due() {
            return None;
        }
        if self.sweep.segments_done == 0 {
            self.tag_filter.begin_round();
        }
        let mut slots = std::mem::take(&mut self.sweep.slots);
        slots.clear();
        slots.extend(self.index.segment(self.sweep.segments_done));
        for slot in &slots {
            self.records.prefetch(*slot);
        }
        for slot in &slots {
            match self.dead_reason(*slot) {
                Some(reason) => self.reclaim_dead(*slot, reason),
                None => self.meet_tags(*slot),
            }
        }
        let seen = slots.len();
        self.sweep.slots = slots;
        self.sweep.segments_done += 1;
        if self.sweep.segments_done >= self.index.segment_count() {
            self.end_round();
        }
        Some(seen)
    }

    /// Looks for dead entries until some are found or none are left; whether any went.
    pub(super) fn sweep_some(&mut self) -> bool {
        let before = self.index.len();
        while self.index.len() == before && self.sweep_segment().is_some() {}
        self.index.len() < before
    }

    fn end_round(&mut self) {
        let round = self.sweep.round;
        self.tag_filter.end_round();
        self.spaces.swept(round);
        let emptied = |space: &&NamespaceShard| space.namespace.is_deleted() && space.entries == 0;
        let deleted: Vec<u16> =
            self.spaces.iter().filter(emptied).map(|space| space.namespace.number()).collect();
        for number in deleted {
            self.handing_over.retain(|other| *other != number);
            if let Some(space) = self.spaces.remove(number) {
                self.gone.add(&space.counts);
            }
        }
        self.sweep.round += 1;
        self.sweep.segments_done = 0;
        if !self.sweep.is_due() {
            self.sweep.slots = Vec::new();
        }
    }

    /// Lets everything die that the scope covers and that is not newer than `until`.
    pub(in crate::engine) fn invalidate(
        &mut self,
        namespace: &Namespace,
        scope: Scope<'_>,
        until: Version,
        reason: MissReason,
    ) {
        self.note_change_of_all();
        let number = namespace.number();
        let Some(space) = self.spaces.get_mut(number) else { return };
        if space.entries == 0 && !namespace.is_deleted() {
            return;
        }
        match scope {
            Scope::All => space.invalidations.invalidate_all(until, self.sweep.ask_for_round(), reason),
            Scope::Prefix(prefix) => {
                space.invalidations.invalidate_prefix(prefix, until, self.sweep.ask_for_round())
            }
            Scope::Tag(tag) if self.tag_filter.may_have(number, tag) => {
                space.invalidations.invalidate_tag(tag, until, self.sweep.ask_for_round());
            }
            Scope::Tag(_) => {}
        }
    }

    /// Whether the shard can note one more invalidation: what it notes is bounded, and given back as it sweeps.
    pub(in crate::engine) fn takes_invalidation(
        &self,
        namespace: &Namespace,
        scope: Scope<'_>,
    ) -> Result<(), Refusal> {
        let Some(space) = self.spaces.get(namespace.number()) else { return Ok(()) };
        let bytes_max = self.config.bytes_limit / INVALIDATIONS_PART;
        let noted: u64 = self.spaces.iter().map(|space| space.invalidations.bytes()).sum();
        let is_one = match scope {
            Scope::All => false,
            Scope::Tag(tag) => self.tag_filter.may_have(namespace.number(), tag),
            Scope::Prefix(_) => space.entries > 0,
        };
        if is_one && noted >= bytes_max {
            return Err(Refusal::Unswept { bytes: noted, limit: bytes_max });
        }
        if is_one { space.invalidations.takes_length(scope) } else { Ok(()) }
    }

    /// An entry was met that stays.
    fn meet_tags(&mut self, slot: Slot) {
        let number = self.records.namespace(slot);
        self.records.tags(slot).names().for_each(|name| self.tag_filter.meet(number, name));
    }

    /// Why an entry that is still there is dead, if it is.
    pub(super) fn dead_reason(&self, slot: Slot) -> Option<MissReason> {
        let space = self.spaces.get(self.records.namespace(slot))?;
        if space.invalidations.is_empty() {
            return None;
        }
        let tags = || self.records.tags(slot);
        space.invalidations.reason(self.records.key(slot), self.records.version(slot), tags)
    }

    /// Gives one entry of a retiring policy to the present one. False when there is none.
    fn hand_over_one(&mut self) -> bool {
        while let Some(number) = self.handing_over.last() {
            if self.spaces.of(*number).hand_over_one(&mut self.records) {
                return true;
            }
            self.handing_over.pop();
        }
        false
    }
}
