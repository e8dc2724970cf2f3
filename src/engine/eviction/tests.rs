//! What every policy must do, over all of them.

use std::collections::BTreeMap;

use super::*;

/// Entries' cells, as a shard would have them.
pub(super) struct Cells(Vec<Cell>);

#[derive(Debug, Clone, Copy)]
struct Cell {
    hash: u64,
    weight: u64,
    prev: Option<Slot>,
    next: Option<Slot>,
    mark: u8,
}

impl Cells {
    /// `count` cells of weight 1; the first is nobody's.
    pub(super) fn of(count: u32) -> Self {
        let cell = |slot| Cell { hash: hash(slot), weight: 1, prev: None, next: None, mark: 0 };
        Self((0..u64::from(count)).map(cell).collect())
    }

    fn fill(&mut self, slot: Slot, key: u64, weight: u64) {
        self.0[slot.index()] = Cell { hash: hash(key), weight, prev: None, next: None, mark: 0 };
    }
}

impl Slots for Cells {
    fn links(&self, slot: Slot) -> (Option<Slot>, Option<Slot>) {
        (self.0[slot.index()].prev, self.0[slot.index()].next)
    }

    fn set_prev(&mut self, slot: Slot, prev: Option<Slot>) {
        self.0[slot.index()].prev = prev;
    }

    fn set_next(&mut self, slot: Slot, next: Option<Slot>) {
        self.0[slot.index()].next = next;
    }

    fn mark(&self, slot: Slot) -> u8 {
        self.0[slot.index()].mark
    }

    fn set_mark(&mut self, slot: Slot, mark: u8) {
        self.0[slot.index()].mark = mark;
    }

    fn weight(&self, slot: Slot) -> u64 {
        self.0[slot.index()].weight
    }

    fn hash(&self, slot: Slot) -> u64 {
        self.0[slot.index()].hash
    }
}

fn hash(key: u64) -> u64 {
    use std::hash::BuildHasher;
    foldhash::quality::FixedState::with_seed(5).hash_one(key)
}

/// Splitmix64 (Steele, Lea, Flood, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ mixed >> 31) % end
    }
}

/// A policy, its cells, and which slots it must have by now.
struct Model {
    policy: AnyPolicy,
    cells: Cells,
    present: BTreeMap<Slot, u64>,
    free: Vec<Slot>,
    bytes_limit: u64,
}

impl Model {
    fn new(name: PolicyName, slots: u32, bytes_limit: u64) -> Self {
        let (cells, free) = (Cells::of(slots + 1), (1..=slots).map(Slot::numbered).collect());
        Self {
            policy: AnyPolicy::new(name, bytes_limit, 0, SIDE_BYTES_MAX),
            cells,
            present: BTreeMap::new(),
            free,
            bytes_limit,
        }
    }

    fn check(&self) {
        self.policy.validate(&self.cells);
        assert_eq!(self.policy.len(), self.present.len());
        assert_eq!(self.policy.bytes(), self.bytes());
    }

    fn bytes(&self) -> u64 {
        self.present.keys().map(|slot| self.cells.weight(*slot)).sum()
    }

    fn insert(&mut self, key: u64, weight: u64) {
        while self.present.values().any(|other| *other == key)
            || self.free.is_empty()
            || (self.bytes() + weight > self.bytes_limit && !self.present.is_empty())
        {
            if let Some((slot, _)) = self.present.iter().find(|(_, other)| **other == key) {
                let slot = *slot;
                self.policy.remove(&mut self.cells, slot);
                self.left(Some(slot));
            } else {
                let slot = self.policy.evict(&mut self.cells);
                self.left(slot);
            }
        }
        let slot = self.free.pop().unwrap();
        self.cells.fill(slot, key, weight);
        self.present.insert(slot, key);
        let hash = self.cells.hash(slot);
        self.policy.insert(&mut self.cells, slot, hash);
    }

    /// Fails if the slot is not one that the policy still had.
    fn left(&mut self, slot: Option<Slot>) {
        let slot = slot.expect("the policy has entries");
        assert!(self.present.remove(&slot).is_some(), "{slot:?} left twice or was never there");
        self.free.push(slot);
    }

    fn any(&self, random: &mut Random) -> Option<Slot> {
        let count = self.present.len() as u64;
        (count > 0).then(|| *self.present.keys().nth(random.below(count) as usize).unwrap())
    }

    fn step(&mut self, random: &mut Random) {
        let (what, any) = (random.below(100), self.any(random));
        match (what, any) {
            (0..45, _) | (_, None) => {
                let heavy = random.below(40) == 0;
                let weight = if heavy { self.bytes_limit * 3 / 4 } else { 1 + random.below(20) };
                self.insert(random.below(400), weight);
            }
            (45..80, Some(slot)) => self.policy.hit(&mut self.cells, slot),
            (80..84, Some(slot)) => {
                self.policy.remove(&mut self.cells, slot);
                self.left(Some(slot));
            }
            (84..87, _) => {
                let slot = self.policy.evict(&mut self.cells);
                self.left(slot);
            }
            (87..89, _) => {
                let slot = self.policy.hand_over(&mut self.cells);
                self.left(slot);
            }
            (89..94, Some(from)) => {
                if let Some(to) = self.free.pop() {
                    self.cells.0[to.index()] = self.cells.0[from.index()];
                    // A policy that still reads the old cell gets nonsense.
                    self.cells.0[from.index()] =
                        Cell { hash: 0, weight: 1 << 40, prev: Some(from), next: Some(from), mark: 99 };
                    let key = self.present.remove(&from).unwrap();
                    self.present.insert(to, key);
                    self.policy.moved(&mut self.cells, from, to);
                    self.free.insert(0, from);
                }
            }
            (94..98, Some(slot)) => {
                let was = self.cells.weight(slot);
                self.cells.0[slot.index()].weight = 1 + random.below(60);
                self.policy.reweighed(&self.cells, slot, was);
            }
            _ => {
                self.bytes_limit = 200 + random.below(800);
                self.policy.resize(self.bytes_limit);
            }
        }
    }
}

#[test]
fn any_order_of_operations_keeps_lists_and_sums_right() {
    for name in PolicyName::ALL {
        for seed in 0..4 {
            println!("{name}, seed {seed}");
            let (mut random, mut model) = (Random(seed), Model::new(name, 150, 600));
            for _ in 0..8_000 {
                model.step(&mut random);
                model.check();
            }
        }
    }
}

#[test]
fn every_entry_leaves_exactly_once_and_an_empty_policy_evicts_none() {
    for name in PolicyName::ALL {
        for hands_over in [false, true] {
            let (mut random, mut model) = (Random(9), Model::new(name, 500, 2_000));
            (0..3_000).for_each(|_| model.step(&mut random));
            while !model.present.is_empty() {
                let Model { policy, cells, .. } = &mut model;
                let slot = if hands_over { policy.hand_over(cells) } else { policy.evict(cells) };
                model.left(slot);
            }
            model.check();
            let Model { policy, cells, .. } = &mut model;
            assert_eq!((policy.evict(cells), policy.hand_over(cells)), (None, None), "{name}");
        }
    }
}

#[test]
fn entries_pass_from_any_policy_to_any_other() {
    for from in PolicyName::ALL {
        for to in PolicyName::ALL {
            let (mut random, mut model) = (Random(3), Model::new(from, 200, 800));
            (0..2_000).for_each(|_| model.step(&mut random));
            let old_len = model.present.len();
            let mut old = std::mem::replace(
                &mut model.policy,
                AnyPolicy::new(to, model.bytes_limit, old_len, SIDE_BYTES_MAX),
            );
            while let Some(slot) = old.hand_over(&mut model.cells) {
                model.cells.set_mark(slot, 0);
                let hash = model.cells.hash(slot);
                model.policy.insert(&mut model.cells, slot, hash);
                old.validate(&model.cells);
            }
            assert_eq!(old.len(), 0);
            model.check();
            (0..500).for_each(|_| {
                model.step(&mut random);
                model.check();
            });
        }
    }
}

#[test]
fn tables_beside_the_entries_stay_within_what_is_said_of_them() {
    for name in PolicyName::ALL {
        let (entries, mut cells) = (20_000, Cells::of(20_001));
        let mut policy = AnyPolicy::new(name, entries, 0, SIDE_BYTES_MAX);
        for key in 0..200_000 {
            let slot = if key < entries {
                Slot::numbered(key as u32 + 1)
            } else {
                policy.evict(&mut cells).unwrap()
            };
            cells.fill(slot, key, 1);
            let hash = cells.hash(slot);
            policy.insert(&mut cells, slot, hash);
        }
        let most = match name {
            PolicyName::Lru | PolicyName::Fifo | PolicyName::Sieve => 0,
            PolicyName::Lfu => 6 << 10,
            PolicyName::S3Fifo => entries * 9 / 2 + (8 << 10),
            PolicyName::Arc => entries * 9 / 2 + (16 << 10),
            PolicyName::WTinyLfu => 8 * 32_768,
            PolicyName::Adaptive => 128 << 10,
        };
        assert!(policy.side_bytes() <= most, "{name}: {} B", policy.side_bytes());
    }
}

#[test]
fn every_policy_says_what_becomes_of_an_entry() {
    for (name, hit, other) in [
        (PolicyName::Lru, "2 of 3 entries were used longer ago", "0 of 3 entries were used longer ago"),
        (PolicyName::Fifo, "0 of 3 entries are older", "1 of 3 entries are older"),
        (PolicyName::Sieve, "spares it once; 0 of 3 entries", "goes when it comes again; 1 of 3 entries"),
        (
            PolicyName::Lfu,
            "asked for 2 times by its count",
            "0 of 3 entries have a lower one and 0 of the same",
        ),
        (PolicyName::S3Fifo, "asked for 1 times: goes at its end; 0 of 3", "asked for 0 times"),
        (
            PolicyName::WTinyLfu,
            "in the window, where 2 of 3 entries leave before it; asked for about 2",
            "0 of 3",
        ),
        (PolicyName::Arc, "in the list of frequent entries, where 0 of 1", "recent entries, where 0 of 2"),
        (PolicyName::Adaptive, "in the window queue; asked for 2 times", "asked for 1 times"),
    ] {
        let (mut policy, mut cells) = (AnyPolicy::new(name, 600, 0, SIDE_BYTES_MAX), Cells::of(4));
        (1..=3).for_each(|slot| policy.insert(&mut cells, Slot::numbered(slot), hash(u64::from(slot))));
        policy.hit(&mut cells, Slot::numbered(1));
        let views = [1, 2].map(|slot| policy.view(&cells, Slot::numbered(slot)));
        assert!(views[0].contains(hit) && views[1].contains(other), "{name}: {views:?}");
    }
    // S3-FIFO's main queue and W-TinyLFU's other areas take evictions and hits to get to.
    for (name, says) in [(PolicyName::S3Fifo, "in the main queue with"), (PolicyName::WTinyLfu, "protected")]
    {
        let mut model = Model::new(name, 100, 100);
        (0..60).for_each(|key| model.insert(key, 1));
        for _ in 0..3 {
            model.present.keys().for_each(|slot| model.policy.hit(&mut model.cells, *slot));
        }
        (60..110).for_each(|key| model.insert(key, 1));
        let views = model.present.keys().map(|slot| model.policy.view(&model.cells, *slot));
        assert!(views.into_iter().any(|view| view.contains(says)), "{name}");
    }
}

#[test]
fn an_entrys_place_is_told_without_walking_far() {
    let (mut policy, mut cells) = (AnyPolicy::new(PolicyName::Lru, 600, 0, SIDE_BYTES_MAX), Cells::of(301));
    (1..=300).for_each(|slot| policy.insert(&mut cells, Slot::numbered(slot), hash(u64::from(slot))));
    assert!(policy.view(&cells, Slot::numbered(300)).starts_with("more than 256 of 300 entries"));
    assert!(policy.view(&cells, Slot::numbered(257)).starts_with("256 of 300 entries"));
}

/// The hit ratio of a stream of keys, 1000 entries of weight 1.
fn hit_ratio(name: PolicyName, keys: impl Iterator<Item = u64>) -> f64 {
    let mut simulation = super::super::simulate::Simulation::new(name, 1_000);
    let (mut hits, mut requests) = (0, 0);
    for key in keys {
        hits += u32::from(simulation.request(hash(key)));
        requests += 1;
    }
    f64::from(hits) / f64::from(requests)
}

/// Keys of a Zipf distribution with exponent 1 over 20,000, by rejection from its envelope.
fn zipf(seed: u64) -> impl Iterator<Item = u64> {
    let mut random = Random(seed);
    std::iter::repeat_with(move || {
        let uniform = random.below(1 << 32) as f64 / (1_u64 << 32) as f64;
        20_000_f64.powf(uniform) as u64
    })
}

#[test]
fn skewed_keys_are_hit_as_often_as_each_policy_promises() {
    use PolicyName::{Adaptive, Arc, Fifo, Lfu, Lru, S3Fifo, Sieve, WTinyLfu};
    for (name, least) in [
        (Fifo, 0.52),
        (Lru, 0.55),
        (Sieve, 0.61),
        (S3Fifo, 0.61),
        (Arc, 0.59),
        (Lfu, 0.62),
        (WTinyLfu, 0.62),
        (Adaptive, 0.62),
    ] {
        let ratio = hit_ratio(name, zipf(1).take(200_000));
        assert!(ratio >= least, "{name}: {ratio}");
    }
}

#[test]
fn a_scan_does_not_flush_what_is_asked_for_often() {
    use PolicyName::{Adaptive, Arc, Lfu, Lru, S3Fifo, WTinyLfu};
    // Five of six requests go to 400 keys; in between a scan goes over keys that never come again.
    let stream = || {
        let mut random = Random(2);
        (0..300_000_u64).map(move |n| if n % 3_000 < 2_500 { random.below(400) } else { 1_000_000 + n })
    };
    for name in [S3Fifo, Arc, Lfu, WTinyLfu, Adaptive] {
        let ratio = hit_ratio(name, stream());
        assert!(ratio > 0.82, "{name}: {ratio}");
    }
    let long = || (0..300_000_u64).map(|n| if n % 4_000 < 2_000 { n * 7 % 400 } else { 1_000_000 + n });
    let lru = hit_ratio(Lru, long());
    for name in [S3Fifo, Arc, Lfu, WTinyLfu, Adaptive] {
        let ratio = hit_ratio(name, long());
        assert!(ratio > lru + 0.05, "{name}: {ratio}, lru {lru}");
    }
}

#[test]
fn a_loop_larger_than_the_cache_is_hit_where_frequency_decides() {
    let ratio = |name| hit_ratio(name, (0..200_000_u64).map(|n| n % 2_000));
    assert_eq!((ratio(PolicyName::Lru), ratio(PolicyName::Fifo)), (0.0, 0.0));
    assert!(ratio(PolicyName::WTinyLfu) > 0.3, "{}", ratio(PolicyName::WTinyLfu));
    assert!(ratio(PolicyName::Adaptive) > 0.45, "{}", ratio(PolicyName::Adaptive));
}
