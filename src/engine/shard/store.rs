//! How an entry comes in, is written over, and goes.

use super::Shard;
use crate::engine::arena::{class_of, largest_cell_for};
use crate::engine::eviction::{Policy, Slots};
use crate::engine::namespace::Namespace;
use crate::engine::op::{MissReason, Refusal};
use crate::engine::record::{Deadline, RecordDraft};
use crate::engine::slot::Slot;
use crate::engine::tags::DraftTags;

impl Shard {
    /// Sees to it that the namespace has a space here.
    pub(super) fn ensure_namespace(&mut self, namespace: &Namespace) -> Result<(), Refusal> {
        if namespace.is_deleted() {
            return Err(Refusal::NoNamespace);
        }
        if self.spaces.get(namespace.number()).is_none() {
            let cap = self.cap_of(namespace).min(self.config.bytes_limit);
            self.spaces.add(namespace, cap, self.config.bytes_limit)?;
        }
        Ok(())
    }

    /// Puts a draft in the place of `existing`, or beside the others.
    pub(super) fn store(
        &mut self,
        draft: &RecordDraft<'_>,
        hash: u64,
        existing: Option<Slot>,
    ) -> Result<(), Refusal> {
        let cell = draft.cell_bytes();
        if let Some(slot) = existing.filter(|slot| self.fits_in_place(*slot, draft, cell)) {
            self.overwrite(slot, draft);
            return Ok(());
        }
        let class = class_of(cell);
        if let Err(refusal) = self.make_room(draft, hash, class) {
            self.spaces.of(draft.namespace).counts.refusals += 1;
            return Err(refusal);
        }
        // Making room may have let the very entry go that is being replaced.
        let records = &self.records;
        let is = |slot| records.is(slot, draft.namespace, draft.key);
        let existing = existing.and_then(|_| self.index.find(hash, is));
        let slot = self.records.arena.allocate(class).expect("room was made");
        self.records.write(slot, draft);
        match existing {
            Some(old) => self.replace(old, slot, hash),
            None => self.enter(slot, hash, draft.namespace),
        }
        if draft.deadline != Deadline::None {
            self.wheel.insert(&mut self.records, slot);
        }
        if let DraftTags::Packed(tags) = draft.tags
            && self.tag_filter.is_made()
        {
            // Making room may have ended a round that never met the cell which they lay in.
            tags.names().for_each(|tag| self.tag_filter.insert(draft.namespace, tag));
        }
        Ok(())
    }

    /// Notes the tags of an entry that was stored. Whether the filter was made for them: it takes memory, which entries
    /// have to make room for, but not while one is held on to that was fetched for an operation.
    #[inline]
    pub(super) fn filter_tags(&mut self, namespace: u16, tags: &[&str]) -> bool {
        let is_made = !tags.is_empty() && self.tag_filter.make();
        tags.iter().for_each(|tag| self.tag_filter.insert(namespace, tag));
        is_made
    }

    fn fits_in_place(&self, slot: Slot, draft: &RecordDraft<'_>, cell: usize) -> bool {
        let has = self.records.arena.cell_size(slot);
        let large_before = self.records.weight(slot) - has as u64;
        has >= cell && has <= largest_cell_for(class_of(cell)) && draft.large_bytes() <= large_before
    }

    fn overwrite(&mut self, slot: Slot, draft: &RecordDraft<'_>) {
        let was = self.records.weight(slot);
        if self.records.expires(slot) {
            self.wheel.remove(&mut self.records, slot);
        }
        self.records.release_large(slot);
        self.records.overwrite(slot, draft);
        if draft.deadline != Deadline::None {
            self.wheel.insert(&mut self.records, slot);
        }
        let space = self.spaces.of(draft.namespace);
        space.refund(was);
        space.charge(self.records.weight(slot));
        let policy = space.policy_for(&self.records, slot);
        policy.reweighed(&self.records, slot, was);
        policy.rewritten(&mut self.records, slot);
    }

    /// A new entry, written but not known yet, joins index and policy.
    fn enter(&mut self, slot: Slot, hash: u64, namespace: u16) {
        let records = &self.records;
        self.index.insert(hash, slot, |slot| records.hash(slot));
        let space = self.spaces.of(namespace);
        self.records.set_handed_over(slot, space.present);
        space.policy.insert(&mut self.records, slot, hash);
        space.entries += 1;
        space.charge(self.records.weight(slot));
    }

    /// A new cell takes the place of an entry's old one everywhere but in the wheel, where it is not yet.
    fn replace(&mut self, old: Slot, new: Slot, hash: u64) {
        if self.records.expires(old) {
            self.wheel.remove(&mut self.records, old);
        }
        let was = self.records.weight(old);
        self.records.copy_standing(old, new);
        let space = self.spaces.of(self.records.namespace(new));
        space.refund(was);
        space.charge(self.records.weight(new));
        let policy = space.policy_for(&self.records, new);
        policy.moved(&mut self.records, old, new);
        policy.reweighed(&self.records, new, was);
        policy.rewritten(&mut self.records, new);
        self.index.replace(hash, old, new);
        self.records.release_large(old);
        self.records.arena.free(old);
    }

    /// Takes an entry out of everything.
    pub(super) fn remove_entry(&mut self, slot: Slot, hash: u64) {
        if self.records.expires(slot) {
            self.wheel.remove(&mut self.records, slot);
        }
        let space = self.spaces.of(self.records.namespace(slot));
        space.policy_for(&self.records, slot).remove(&mut self.records, slot);
        self.forget(slot, hash);
    }

    /// Takes an entry out that its policy and the wheel have let go.
    pub(super) fn forget(&mut self, slot: Slot, hash: u64) {
        let space = self.spaces.of(self.records.namespace(slot));
        space.entries -= 1;
        space.refund(self.records.weight(slot));
        self.index.remove(hash, slot);
        self.records.release_large(slot);
        self.records.arena.free(slot);
    }

    /// Takes out an entry that has left the wheel because its time ended.
    pub(super) fn reclaim_expired(&mut self, slot: Slot) {
        let hash = self.records.hash(slot);
        let space = self.spaces.of(self.records.namespace(slot));
        space.policy_for(&self.records, slot).remove(&mut self.records, slot);
        space.counts.expirations += 1;
        self.forget(slot, hash);
        self.eviction_log.insert(hash, MissReason::Expired);
    }

    /// Takes out an entry that an invalidation covers.
    pub(super) fn reclaim_dead(&mut self, slot: Slot, reason: MissReason) {
        let hash = self.records.hash(slot);
        self.spaces.of(self.records.namespace(slot)).counts.invalidated += 1;
        self.remove_entry(slot, hash);
        self.eviction_log.insert(hash, reason);
    }
}
