//! Adaptive: two queues whose rules follow the load.
//!
//! An entry enters the window, a queue of a certain part of the bytes. At its end it goes another round if it was
//! hit; otherwise it meets the end of the main queue in a contest: the one asked for more often stays, as in
//! W-TinyLFU (Einziger, Friedman, Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM Transactions on
//! Storage 2017). How large the window should be is what loads disagree on most: a loop or a scan wants 1 %, a load
//! of recent keys all of it, which is CLOCK and nearly LRU. So several settings are tried at once by shadows on a
//! sample of the keys ([`shadow`]; mini-simulation as in Einziger, Eytan, Friedman, Manes, "Adaptive Software Cache
//! Management", Middleware 2018), and the cache follows the best ([`judge`]). A change of setting moves no entry:
//! the queues stay what they are, and only what happens at their ends is another.
//!
//! Differs from W-TinyLFU: there is no sketch. How often an entry was asked for stands in its mark and, once it has
//! gone, in a table of fingerprints ([`remembered`]), so that a hit writes a byte of the entry's own cell at most and
//! moves nothing. Counts are not halved all at once: what keeps its place in a contest loses half of its count once
//! in 16 times and goes to the main queue's front. Both queues are CLOCKs. The sixth setting is S3-FIFO's rule
//! (`s3_fifo.rs`); to be taken into main at once a key must be among as many departed ones as there are entries.
//!
//! The figures of the candidates count lookups alone. A store counts for the choice of the setting, as the entry is
//! asked for too, but says nothing of how many lookups hit.
//!
//! What a shadow hits the cache that follows it may be unable to: in a loop, S3-FIFO's rule goes on with what it has
//! or hits nothing, by what it had before. A shadow that hits far more than the cache is started anew, empty.
//!
//! Costs the two links and the mark in the entry's cell, and beside them 3 B an entry or what it was given (128 KiB,
//! less in a small shard), whichever is more, from the first eviction on, less than 9 KiB before. Shadows take up to a
//! third of it; the rest is for departed keys, 1.6 B each and eight at most for each entry. One hit in (entries / 400) costs six small look-ups more.
//! Where it was given nothing, because memory is short and namespaces are many, it tries nothing, remembers nothing and
//! follows the first setting.

mod judge;
mod queues;
mod remembered;
mod shadow;

use judge::{CANDIDATES, Judge};
use queues::{MainAdmission, Queues, SAMPLED, Setting};
use remembered::Remembered;
use shadow::{Shadows, tag};

use super::{Policy, SIDE_BYTES_MAX, Slots};
use crate::engine::slot::Slot;

/// All that is beside the entries: bytes for each, if that is more than it was given.
const SIDE_BYTES_PER_ENTRY: usize = 3;
/// It cannot do with less.
pub(super) const SIDE_BYTES_MIN: usize = 8 << 10;
/// Keys remembered for each entry, at most.
const KEYS_PER_ENTRY_MAX: usize = 8;

const CONTEST: MainAdmission = MainAdmission::ByContest { patience: 16 };
/// What is tried, by name.
const TRIED: [(&str, Setting); CANDIDATES] = [
    ("window-1", Setting { window: 10, entry: MainAdmission::ByContest { patience: 24 } }),
    ("window-10", Setting { window: 100, entry: CONTEST }),
    ("window-30", Setting { window: 300, entry: CONTEST }),
    ("window-60", Setting { window: 600, entry: CONTEST }),
    ("lru", Setting { window: 1_000, entry: CONTEST }),
    ("s3-fifo", Setting { window: 100, entry: MainAdmission::ByHits }),
];
/// A shadow's hits may exceed those of the cache that follows it by this part of its lookups, …
const LAG_ALLOWED: f32 = 0.05;
/// … and beyond that by this number of fillings of its own.
const LAG_MAX: f32 = 2.0;
/// What is followed until more is known.
const FIRST: usize = 1;

/// What a candidate would have hit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The candidate's name: `window-1`, `window-10`, `window-30`, `window-60`, `lru` or `s3-fifo`.
    pub candidate: &'static str,
    /// Hits among the sampled lookups, older ones counting less.
    pub hits: f64,
    /// Those lookups, counted alike: the estimated hit ratio is `hits / lookups`.
    pub lookups: f64,
    /// The cache works as this candidate does at present.
    pub is_followed: bool,
}

#[derive(Debug)]
pub(crate) struct Adaptive {
    queues: Queues,
    shadows: Box<Shadows>,
    judge: Judge,
    /// Hits that the followed candidate's shadow had lately and the cache had not.
    lag: f32,
    /// What there may be beside the entries however few they are; 0: nothing, however many.
    side_bytes: usize,
}

impl Adaptive {
    pub(super) fn new(side_bytes: usize) -> Self {
        let settings = TRIED.map(|(_, setting)| setting);
        let has_shadows = side_bytes > 0;
        let side_bytes = if has_shadows { side_bytes.clamp(SIDE_BYTES_MIN, SIDE_BYTES_MAX) } else { 0 };
        let mut shadows = Box::new(Shadows::new(settings, side_bytes.max(SIDE_BYTES_MIN)));
        if !has_shadows {
            shadows.stop();
        }
        Self { queues: Queues::new(settings[FIRST]), shadows, judge: Judge::new(FIRST), lag: 0.0, side_bytes }
    }

    /// What each candidate would have hit, and which one is followed.
    pub(crate) fn estimates(&self) -> Vec<Estimate> {
        let (hits, lookups) = self.judge.seen();
        let estimate = |(at, (candidate, _)): (usize, &(&'static str, Setting))| Estimate {
            candidate,
            hits: f64::from(hits[at]),
            lookups: f64::from(lookups),
            is_followed: at == self.judge.followed(),
        };
        TRIED.iter().enumerate().map(estimate).collect()
    }

    /// A use of an entry whose key was in the sample when it came.
    #[cold]
    #[inline(never)]
    fn use_sampled(&mut self, slots: &mut impl Slots, slot: Slot, was: u8, is_lookup: bool) {
        let tag = tag(slots.hash(slot));
        if !self.shadows.samples(tag) {
            slots.set_mark(slot, slots.mark(slot) & !SAMPLED);
            return;
        }
        let hits = if self.shadows.are_filling() && Queues::counts_no_more(was) {
            // The shadow has the key with the same mark: it hits, and nothing becomes of that.
            let hits = (1 << CANDIDATES) - 1;
            self.weigh(hits, true);
            hits
        } else {
            self.observe(tag, true)
        };
        if is_lookup {
            self.judge.count_lookup(hits, self.shadows.entries());
        }
    }

    /// A lookup of a key of the sample that the cache has no entry for. It changes nothing: if the key is stored, the
    /// shadows hear of it then.
    #[cold]
    #[inline(never)]
    fn miss_sampled(&mut self, tag: u32) {
        self.judge.count_lookup(self.shadows.have(tag), self.shadows.entries());
    }

    /// A request for a key of the sample, which the cache itself hit or not; the candidates that hit, as bits.
    fn observe(&mut self, tag: u32, is_hit: bool) -> u8 {
        let hits = self.shadows.request(tag);
        self.weigh(hits, is_hit);
        hits
    }

    /// A request that these candidates hit, as bits, and the cache itself or not.
    fn weigh(&mut self, hits: u8, is_hit: bool) {
        let followed = self.judge.followed();
        let ahead = f32::from(hits >> followed & 1) - f32::from(u8::from(is_hit));
        self.lag = (self.lag + ahead - LAG_ALLOWED).max(0.0);
        let entries = self.shadows.entries();
        if self.lag > LAG_MAX * entries as f32 {
            self.shadows.restart(followed);
            self.lag = 0.0;
        }
        if let Some(followed) = self.judge.weigh(hits, entries) {
            self.queues.set(TRIED[followed].1);
            self.lag = 0.0;
        }
    }

    /// The cache is full with another number of entries than it was.
    #[cold]
    fn fit(&mut self, entries: usize) {
        let keys = self.keys_remembered(entries);
        if self.queues.remembered.misfits(entries) {
            self.queues.remembered.fit(entries, keys);
        }
        if self.shadows.misfit(entries) {
            self.shadows.fit(entries, keys);
        }
    }

    /// Keys that a cache of `entries` entries remembers. Shadows remember as many for each entry of theirs.
    fn keys_remembered(&self, entries: usize) -> usize {
        let in_all = (entries * SIDE_BYTES_PER_ENTRY).max(self.side_bytes);
        let keys = Remembered::keys_in(in_all - self.shadows.bytes_for(entries));
        let with_shadows = entries + CANDIDATES * self.shadows.entries_most(entries).min(entries);
        (entries * keys / with_shadows.max(1)).min(entries * KEYS_PER_ENTRY_MAX)
    }
}

impl Policy for Adaptive {
    fn insert(&mut self, slots: &mut impl Slots, slot: Slot, hash: u64) {
        let tag = tag(hash);
        let is_sampled = self.shadows.samples(tag);
        slots.set_mark(slot, if is_sampled { SAMPLED } else { 0 });
        self.queues.insert(slots, slot, hash);
        if is_sampled {
            self.observe(tag, false);
        }
    }

    #[inline]
    fn hit(&mut self, slots: &mut impl Slots, slot: Slot) {
        let was = Queues::hit(slots, slot);
        if was & SAMPLED != 0 {
            self.use_sampled(slots, slot, was, true);
        }
    }

    fn rewritten(&mut self, slots: &mut impl Slots, slot: Slot) {
        let was = Queues::hit(slots, slot);
        if was & SAMPLED != 0 {
            self.use_sampled(slots, slot, was, false);
        }
    }

    #[inline]
    fn missed(&mut self, hash: u64) {
        let tag = tag(hash);
        if self.shadows.samples(tag) {
            self.miss_sampled(tag);
        }
    }

    fn remove(&mut self, slots: &mut impl Slots, slot: Slot) {
        if slots.mark(slot) & SAMPLED != 0 {
            self.shadows.remove(tag(slots.hash(slot)));
        }
        self.queues.remove(slots, slot);
    }

    fn evict(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        let entries = self.queues.len();
        let misfits = self.shadows.misfit(entries) || self.queues.remembered.misfits(entries);
        if misfits && self.side_bytes > 0 {
            self.fit(entries);
        }
        self.queues.evict(slots)
    }

    fn hand_over(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        let slot = self.queues.coldest()?;
        self.queues.remove(slots, slot);
        Some(slot)
    }

    fn moved(&mut self, slots: &mut impl Slots, _from: Slot, to: Slot) {
        self.queues.moved(slots, to);
    }

    fn reweighed(&mut self, slots: &impl Slots, slot: Slot, was: u64) {
        self.queues.reweighed(slots, slot, was);
    }

    /// Shares are of what there is, not of the limit.
    fn resize(&mut self, _bytes_limit: u64) {}

    fn view(&self, slots: &impl Slots, slot: Slot) -> String {
        let following = TRIED[self.judge.followed()].0;
        format!("{}; {following} is followed", Queues::view(slots, slot))
    }

    fn side_bytes(&self) -> u64 {
        let bytes = self.queues.remembered.bytes() + self.shadows.bytes();
        if self.shadows.are_filling() && self.side_bytes > 0 {
            return bytes.max(self.shadows.bytes_filling(self.queues.len() + 2) as u64);
        }
        bytes
    }

    #[cfg(any(test, debug_assertions))]
    fn len(&self) -> usize {
        self.queues.len()
    }

    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.queues.bytes()
    }

    #[cfg(any(test, debug_assertions))]
    fn validate(&self, slots: &impl Slots) {
        self.queues.validate(slots);
        self.shadows.validate();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::eviction::PolicyName;
    use crate::engine::simulate::Simulation;

    fn hash(key: u64) -> u64 {
        use std::hash::BuildHasher;
        foldhash::quality::FixedState::with_seed(9).hash_one(key)
    }

    fn followed(simulation: &Simulation) -> Estimate {
        let estimates = simulation.estimates();
        let mut followed = estimates.iter().filter(|estimate| estimate.is_followed);
        let one = *followed.next().expect("one is followed");
        assert_eq!(followed.next(), None);
        one
    }

    /// Hits among the requests of a stream.
    fn hits(simulation: &mut Simulation, keys: impl Iterator<Item = u64>) -> u64 {
        keys.map(|key| u64::from(simulation.request(hash(key)))).sum()
    }

    /// Every key is asked for three times in the course of 0.9 fillings, then never again.
    fn recent_ones(entries: u64, requests: u64) -> impl Iterator<Item = u64> {
        let apart = entries * 3 / 20;
        (0..requests).map(move |n| 1_000_000 + n / (3 * apart) * apart + n % apart)
    }

    #[test]
    fn the_setting_that_suits_the_load_is_followed_and_left_when_it_changes() {
        // With exact shadows, and with a sample.
        for entries in [300, 20_000] {
            let mut simulation = Simulation::new(PolicyName::Adaptive, entries as usize);
            let looped = |requests: u64| (0..requests).map(move |n| n % (2 * entries));
            let mut last = 0;
            for _ in 0..2 {
                hits(&mut simulation, looped(40 * entries));
                assert_eq!(followed(&simulation).candidate, "window-1", "{entries} entries, a loop");
                let share = hits(&mut simulation, looped(20 * entries));
                assert!(share > 9 * entries, "{share} hits in 10 rounds of a loop over {entries} entries");

                hits(&mut simulation, recent_ones(entries, 40 * entries).map(|key| key + last));
                let now = followed(&simulation);
                assert_ne!(now.candidate, "window-1", "{entries} entries, recent ones");
                last += 100_000_000;
            }
        }
    }

    #[test]
    fn what_it_believes_of_the_followed_setting_is_what_it_hits() {
        for entries in [300, 5_000] {
            let mut simulation = Simulation::new(PolicyName::Adaptive, entries);
            let mut random = 1_u64;
            let zipf = std::iter::repeat_with(move || {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (20.0 * entries as f64).powf((random >> 11) as f64 / (1_u64 << 53) as f64) as u64
            });
            let requests = 60 * entries;
            let measured = hits(&mut simulation, zipf.take(requests)) as f64 / requests as f64;
            let believed = followed(&simulation);
            // A sample has more or fewer of the few keys that most requests are for.
            let within = if entries < 500 { 0.01 } else { 0.12 };
            let ratio = believed.hits / believed.lookups;
            assert!((ratio - measured).abs() < within, "believes {ratio}, is {measured}");
        }
    }

    #[test]
    fn a_shadow_that_hits_what_the_cache_does_not_is_started_anew() {
        let mut policy = Adaptive::new(SIDE_BYTES_MAX);
        policy.fit(100);
        for n in 0..350 {
            let hits = policy.observe(tag(hash(n % 50)), false);
            policy.judge.count_lookup(hits, 100);
        }
        let estimates = policy.estimates();
        let hits = |at: usize| estimates[at].hits;
        assert!((0..CANDIDATES).filter(|at| *at != FIRST).all(|at| hits(at) > hits(FIRST) + 40.0));
        policy.shadows.validate();
    }

    #[test]
    fn the_estimate_is_of_lookups_and_of_nothing_else() {
        use crate::engine::{Engine, EngineConfig, Op, Set};
        let now = crate::clock::Now { steady_ms: 0, unix_us: 0 };
        let engine = Engine::new(&EngineConfig { shards: Some(1), ..EngineConfig::default() }, now);
        let namespace = engine.default_namespace();
        let believed = || {
            let estimates = engine.report(namespace).estimates;
            let followed = estimates.into_iter().find(|estimate| estimate.leader).expect("one is followed");
            (followed.hit_ratio, followed.lookups)
        };
        let keys: Vec<[u8; 8]> = (0..400u64).map(u64::to_le_bytes).collect();
        let set = |key: &[u8]| drop(engine.apply(namespace, &Op::Set(Set::new(key, b"value")), now));
        let get = |key: &[u8]| drop(engine.apply(namespace, &Op::Get { key, touch: None }, now));
        for _ in 0..3 {
            keys.iter().for_each(|key| set(key));
        }
        assert_eq!(believed(), (0.0, 0), "nothing was looked up");
        keys.iter().for_each(|key| get(key));
        assert_eq!(believed().0, 1.0, "every lookup hit");
        for key in 0..400u64 {
            get(&(1_000 + key).to_le_bytes());
        }
        assert!((believed().0 - 0.5).abs() < 0.02, "every other lookup hit: {}", believed().0);
        assert!((780..=800).contains(&believed().1), "{}", believed().1);
    }

    #[test]
    fn what_is_beside_the_entries_is_three_bytes_for_each_or_128_kib() {
        for entries in [1_u64, 50, 5_000, 60_000, 400_000] {
            let mut simulation = Simulation::new(PolicyName::Adaptive, entries as usize);
            let most = (3 * entries).max(128 << 10);
            for key in 0..entries + 1_000 {
                let before = simulation.side_bytes();
                simulation.request(hash(key));
                let now = simulation.side_bytes();
                assert!(now <= most, "{now} B at {entries} entries");
                // All of it comes as room is made for the first time, but for a few KiB.
                assert!(key == entries || now.abs_diff(before) < 4 << 10, "{before} B, then {now} at {key}");
                assert!(key >= entries || now < 9 << 10, "{now} B before anything goes");
            }
        }
    }
}
