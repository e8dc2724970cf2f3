//! How a shard finds room: a free cell, a new page, a page emptied into its neighbours, and only then a victim.

use super::{NamespaceShard, Shard};
use crate::engine::arena::cell_bytes;
use crate::engine::eviction::{Policy, Slots};
use crate::engine::namespace::Namespace;
use crate::engine::op::{MissReason, Refusal};
use crate::engine::record::RecordDraft;
use crate::engine::slot::Slot;

/// Pages are emptied only while one part in this number of what is held lies in free cells …
const SPARE_PART: u64 = 32;
/// … and at least this much.
const SPARE_BYTES_MIN: u64 = 128 << 10;
/// Entries that the fullest namespace lets go before it is asked again which one that is.
const EVICTIONS_PER_CHOICE: u32 = 32;

impl Shard {
    /// What the shard takes, as far as it grows with its entries.
    #[inline]
    pub(super) fn held_bytes(&self) -> u64 {
        self.records.held_bytes()
            + self.index.bytes()
            + self.spaces.bytes()
            + self.tag_filter.bytes()
            + self.eviction_log.bytes()
            + self.requests.bytes()
            + self.hot.bytes()
            + self.disk_tier_bytes
            + self.blob_bytes
            + self.event_bytes
    }

    /// Sees to it that a cell of the class can be allocated for a draft whose key has this hash, and its large value be
    /// held. A namespace that would pass its own cap gives way to itself. While the shard is above its limit, because
    /// that was lowered, it may stay there but not grow.
    pub(super) fn make_room(
        &mut self,
        draft: &RecordDraft<'_>,
        hash: u64,
        class: usize,
    ) -> Result<(), Refusal> {
        let large_bytes = draft.large_bytes();
        let needs = large_bytes + cell_bytes(class) as u64;
        let most = match self.spaces.of(draft.namespace).namespace.bytes_limit() {
            cap if draft.namespace != 0 && cap != 0 => cap.min(self.config.bytes_limit / 4 * 3),
            _ => self.config.bytes_limit / 4 * 3,
        };
        if needs > most {
            return Err(Refusal::TooLarge { needs, limit: most });
        }
        // What its entries in other shards take, those let go as they are stored to; none of another namespace does.
        while self.spaces.of(draft.namespace).namespace.is_over(needs) && self.evict_from(draft.namespace) {}
        let mut held = self.held_bytes();
        if held > self.config.bytes_limit {
            // The limit was lowered, or a table of the policy is about to double.
            self.shrink(super::STEPS_PER_OP);
            held = self.held_bytes();
        }
        let ceiling = self.config.bytes_limit.max(held);
        loop {
            let ready = self.records.arena.has_room(class);
            let page = if ready { 0 } else { self.records.arena.page_cost(class) };
            let needed = held + large_bytes + page;
            if needed <= ceiling && needed + self.index.growth(hash) <= ceiling {
                if ready || self.records.arena.add_page(class) {
                    return Ok(());
                }
            } else if large_bytes > 0 {
                self.records.arena.drop_spares();
            }
            if !self.empty_a_page() && !self.sweep_some() && !self.evict() {
                if self.hot.bytes() > 0 {
                    // In a small shard the counted keys may take the room that is wanted.
                    self.hot.clear();
                } else {
                    return Err(Refusal::TooLarge { needs, limit: most });
                }
            }
            held = self.held_bytes();
        }
    }

    /// Brings the shard down to its limit, at most `budget` evictions or pages; how many it took.
    pub(super) fn shrink(&mut self, budget: usize) -> usize {
        let mut steps = 0;
        while steps < budget && self.held_bytes() > self.config.bytes_limit {
            self.records.arena.drop_spares();
            steps += 1;
            if !self.empty_a_page() && !self.evict() {
                break;
            }
        }
        steps
    }

    /// Moves the cells of a sparse page to others of its class, where enough cells are free for it to pay.
    fn empty_a_page(&mut self) -> bool {
        let spare = self.records.arena.spare_cell_bytes();
        if spare < SPARE_BYTES_MIN || spare < self.records.held_bytes() / SPARE_PART {
            return false;
        }
        let Some(cells) = self.records.arena.page_to_empty() else { return false };
        for from in cells {
            let to = self.records.arena.allocate_elsewhere(from).expect("the class has a page of free cells");
            self.move_cell(from, to);
        }
        true
    }

    fn move_cell(&mut self, from: Slot, to: Slot) {
        let hash = self.records.hash(from);
        self.records.copy(from, to);
        let space = self.spaces.of(self.records.namespace(to));
        space.policy_for(&self.records, to).moved(&mut self.records, from, to);
        if self.records.expires(to) {
            self.wheel.moved(&mut self.records, to);
        }
        self.index.replace(hash, from, to);
        self.records.arena.free(from);
    }

    /// Lets one entry go, of the namespace that has the most of what it may have. False when there is none.
    fn evict(&mut self) -> bool {
        if self.spaces.is_only_default() {
            return self.evict_from(0);
        }
        let (mut namespace, mut left) = self.evicting_from;
        if left == 0 {
            namespace = self.fullest();
            left = EVICTIONS_PER_CHOICE;
        }
        if self.evict_from(namespace) {
            self.evicting_from = (namespace, left - 1);
            return true;
        }
        self.evicting_from.1 = 0;
        self.evict_from(self.fullest())
    }

    /// This shard's part of a namespace's cap, or its limit where there is none.
    pub(super) fn cap_of(&self, namespace: &Namespace) -> u64 {
        match namespace.bytes_limit() {
            cap if cap != 0 && namespace.number() != 0 => cap / self.config.shards,
            _ => self.config.bytes_limit,
        }
    }

    /// The namespace whose entries take the greatest part of what it may have here.
    fn fullest(&self) -> u16 {
        let part = |space: &&NamespaceShard| {
            u128::from(space.bytes) * (1 << 32) / u128::from(self.cap_of(&space.namespace).max(1))
        };
        let fullest = self.spaces.iter().filter(|space| space.entries > 0).max_by_key(part);
        fullest.map_or(0, |space| space.namespace.number())
    }

    /// Lets entries of a namespace that is over its cap go, at most [`EVICTIONS_PER_CHOICE`]; whether there were any.
    pub(in crate::engine) fn shrink_namespace(&mut self, namespace: &Namespace) -> bool {
        if self.spaces.get(namespace.number()).is_none_or(|space| space.entries == 0) {
            return false;
        }
        let over = (0..EVICTIONS_PER_CHOICE).take_while(|_| namespace.is_over(0));
        over.map_while(|_| self.evict_from(namespace.number()).then_some(())).count() > 0
    }

    /// Lets one entry of a namespace go. False when it has none here.
    fn evict_from(&mut self, namespace: u16) -> bool {
        let Some(space) = self.spaces.get_mut(namespace) else { return false };
        let Some(slot) = space.victim(&mut self.records) else { return false };
        space.counts.evictions += 1;
        let hash = self.records.hash(slot);
        if self.records.expires(slot) {
            self.wheel.remove(&mut self.records, slot);
        }
        self.forget(slot, hash);
        self.eviction_log.insert(hash, MissReason::Evicted);
        true
    }
}
