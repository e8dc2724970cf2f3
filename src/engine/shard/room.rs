//! How a shard finds room: a free cell, a new page, a page emptied into its neighbours, and only then a victim.

use super::Shard;
use crate::engine::eviction::{Policy, Slots};
use crate::engine::op::{MissReason, Refusal};

/// Pages are emptied only while this much of what is held (one part in so many) lies in free cells …
const SPARE_PART: u64 = 32;
/// … and at least this much.
const SPARE_BYTES_MIN: u64 = 128 << 10;

impl Shard {
    /// What the shard takes, as far as it grows with its entries.
    pub(super) fn held_bytes(&self) -> u64 {
        self.records.held_bytes()
            + self.index.allocation_size() as u64
            + self.policy.side_bytes()
            + self.retiring.as_ref().map_or(0, Policy::side_bytes)
            + self.departed.bytes()
            + self.requests.bytes()
    }

    /// Sees to it that a cell of the class can be allocated and `large_bytes` more be held. While the shard is
    /// above its limit, because that was lowered, it may stay there but not grow.
    pub(super) fn make_room(
        &mut self,
        class: usize,
        large_bytes: u64,
        cell_bytes: u64,
    ) -> Result<(), Refusal> {
        let needs = large_bytes + cell_bytes;
        let most = self.config.bytes_limit / 4 * 3;
        if needs > most {
            self.counts.refusals += 1;
            return Err(Refusal::TooLarge { needs, limit: most });
        }
        let ceiling = self.config.bytes_limit.max(self.held_bytes());
        loop {
            let ready = self.records.arena.has_room(class);
            let page = if ready { 0 } else { self.records.arena.page_cost(class) };
            if self.held_bytes() + large_bytes + self.index_growth() + page <= ceiling {
                if ready || self.records.arena.add_page(class) {
                    return Ok(());
                }
            } else if large_bytes > 0 {
                self.records.arena.drop_spares();
            }
            if !self.empty_a_page() && !self.evict() {
                self.counts.refusals += 1;
                return Err(Refusal::TooLarge { needs, limit: most });
            }
        }
    }

    /// Brings the shard down to its limit, at most `budget` evictions or pages; how many it took.
    pub(super) fn shrink(&mut self, budget: usize) -> usize {
        let mut steps = 0;
        while steps < budget && self.held_bytes() > self.config.bytes_limit {
            self.records.arena.drop_spares();
            steps += 1;
            if !self.empty_a_page() && !self.evict() {
                self.index.shrink_to(0, |_| 0);
                break;
            }
        }
        steps
    }

    /// What the index takes more when the next entry makes it grow.
    fn index_growth(&self) -> u64 {
        let full = self.index.len() == self.index.capacity();
        if full { (self.index.allocation_size() as u64).max(64) } else { 0 }
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

    fn move_cell(&mut self, from: u32, to: u32) {
        let hash = self.records.hash(from);
        self.records.copy(from, to);
        let (policy, records) = self.policy_of(to);
        policy.moved(records, from, to);
        if self.records.expires(to) {
            self.wheel.moved(&mut self.records, to);
        }
        *self.index.find_mut(hash, |slot| *slot == from).expect("every entry is in the index") = to;
        self.records.arena.free(from);
    }

    /// Lets one entry go, the retiring policy's first. False when there is none.
    fn evict(&mut self) -> bool {
        let retired = self.retiring.as_mut().and_then(|retiring| retiring.evict(&mut self.records));
        let Some(slot) = retired.or_else(|| self.policy.evict(&mut self.records)) else { return false };
        let hash = self.records.hash(slot);
        if self.records.expires(slot) {
            self.wheel.remove(&mut self.records, slot);
        }
        self.forget(slot, hash);
        self.departed.insert(hash, MissReason::Evicted);
        self.counts.evictions += 1;
        true
    }
}
