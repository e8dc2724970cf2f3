//! A policy alone, on a stream of keys: what it would hit, without a shard, values or a lock.
//!
//! Entries have the weight 1, so that the capacity is a number of entries, as the papers count. Room is made
//! before an entry is stored, as a shard does it. For benchmarks; nothing that serves uses it.
//!
//! ```
//! use larder::engine::PolicyName;
//! use larder::engine::simulate::Simulation;
//!
//! let mut simulation = Simulation::new(PolicyName::Lru, 2);
//! let hits = [7, 8, 7, 9, 8].map(|key_hash| simulation.request(key_hash));
//! assert_eq!(hits, [false, false, true, false, false]);
//! ```

use hashbrown::HashTable;

use super::eviction::{AnyPolicy, Estimate, Policy, PolicyName, SIDE_BYTES_MAX, Slots};
use super::slot::Slot;

/// One policy, its entries and nothing else.
#[derive(Debug)]
pub struct Simulation {
    policy: AnyPolicy,
    index: HashTable<Slot>,
    cells: Cells,
    capacity_entries: usize,
}

impl Simulation {
    /// An empty simulation of a cache of `capacity_entries` entries, at least one.
    #[must_use]
    pub fn new(policy: PolicyName, capacity_entries: usize) -> Self {
        let capacity_entries = capacity_entries.max(1);
        Self {
            policy: AnyPolicy::new(policy, capacity_entries as u64, 0, SIDE_BYTES_MAX),
            index: HashTable::new(),
            // The first is nobody's: 0 is no slot.
            cells: Cells(vec![Cell::default()]),
            capacity_entries,
        }
    }

    /// Asks for a key, known by a hash of it that is as good as random in all bits. True: it is there. False: it
    /// was not and is now, and another may have gone for it.
    pub fn request(&mut self, key_hash: u64) -> bool {
        let Self { policy, index, cells, capacity_entries } = self;
        if let Some(slot) = index.find(key_hash, |slot| cells.0[slot.index()].hash == key_hash) {
            policy.hit(cells, *slot);
            return true;
        }
        policy.missed(key_hash);
        let slot = if index.len() < *capacity_entries {
            cells.0.push(Cell::default());
            Slot::numbered((cells.0.len() - 1) as u32)
        } else {
            let slot = policy.evict(cells).expect("a full cache has an entry to evict");
            let gone = index.find_entry(cells.hash(slot), |other| *other == slot);
            gone.expect("every entry is in the index").remove();
            slot
        };
        cells.0[slot.index()] = Cell { hash: key_hash, ..Cell::default() };
        index.insert_unique(key_hash, slot, |slot| cells.0[slot.index()].hash);
        policy.insert(cells, slot, key_hash);
        false
    }

    /// What an adaptive policy believes of each way that it tries; empty for the others.
    #[must_use]
    pub fn estimates(&self) -> Vec<Estimate> {
        self.policy.estimates()
    }

    /// What the policy takes beside the entries, in bytes.
    #[must_use]
    pub fn side_bytes(&self) -> u64 {
        self.policy.side_bytes()
    }
}

#[derive(Debug)]
struct Cells(Vec<Cell>);

#[derive(Debug, Default)]
struct Cell {
    hash: u64,
    prev: Option<Slot>,
    next: Option<Slot>,
    mark: u8,
}

impl Slots for Cells {
    #[inline]
    fn links(&self, slot: Slot) -> (Option<Slot>, Option<Slot>) {
        let cell = &self.0[slot.index()];
        (cell.prev, cell.next)
    }

    #[inline]
    fn set_prev(&mut self, slot: Slot, prev: Option<Slot>) {
        self.0[slot.index()].prev = prev;
    }

    #[inline]
    fn set_next(&mut self, slot: Slot, next: Option<Slot>) {
        self.0[slot.index()].next = next;
    }

    #[inline]
    fn mark(&self, slot: Slot) -> u8 {
        self.0[slot.index()].mark
    }

    #[inline]
    fn set_mark(&mut self, slot: Slot, mark: u8) {
        self.0[slot.index()].mark = mark;
    }

    #[inline]
    fn weight(&self, _slot: Slot) -> u64 {
        1
    }

    #[inline]
    fn hash(&self, slot: Slot) -> u64 {
        self.0[slot.index()].hash
    }
}
