//! The keys that are asked for most, always counted: Space-Saving (Metwally, Agrawal, El Abbadi, "Efficient
//! computation of frequent and top-k elements in data streams", ICDT 2005) over a sample of the lookups.
//!
//! Each shard has up to [`COUNTERS`] counters and looks at one lookup of 16, at random gaps so that no rhythm of the
//! callers hides a key. With n counters, a key that makes up more than 1/n of what its shard looks at is among them; a
//! key that comes new takes over a least counter with its count, and that much of its count may be others'. Where the
//! texts of long keys would take more than [`KEYS_PART`] allows, there are fewer counters. Counts are halved now and
//! then, so that they speak of the present.
//!
//! What is shown is an estimate with its error: what was taken over, which can only be too much, and three standard
//! deviations of the sampling, which errs to both sides. One in about 370 is further off.

use super::namespace::Namespace;
use crate::clock::Now;

/// Counters of a shard; fewer in one of less than 1 MiB, …
const COUNTERS: usize = 128;
const COUNTERS_MIN: usize = 16;
/// … which has one for each of this number of bytes.
const BYTES_PER_COUNTER: u64 = 8 << 10;
/// The texts of the counted keys take this part of the shard's limit, at most, or one key.
const KEYS_PART: u64 = 64;
/// One lookup in this number is counted, on average: gaps are 1 to twice that less one.
const LOOKUPS_PER_SAMPLE: u64 = 16;
/// The error that is shown for an estimate, in standard deviations of the sampling.
const DEVIATIONS: f64 = 3.0;
/// Counts are halved after this number of samples.
const SAMPLES_MAX: u64 = 1 << 16;

/// A key that is asked for often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotKey {
    /// Its namespace's name.
    pub namespace: String,
    /// The key.
    pub key: Vec<u8>,
    /// How many lookups asked for it, about: one in 16 is looked at.
    pub count: u64,
    /// By how much that may be off, to either side.
    pub count_error: u64,
    /// Its value's length; 0 also where there is no entry now.
    pub value_bytes: u64,
}

/// The hottest keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HotKeys {
    /// The hottest first.
    pub keys: Vec<HotKey>,
    /// How many lookups they are counted over.
    pub lookups: u64,
    /// How far back those reach, in ms.
    pub window_ms: u64,
}

#[derive(Debug)]
struct Counter {
    namespace: Namespace,
    key: Box<[u8]>,
    hash: u64,
    count: u64,
    /// How much of the count may be other keys'.
    error: u64,
}

impl Counter {
    /// By how many samples the count may be off.
    fn error(&self) -> f64 {
        self.error as f64 + DEVIATIONS * (self.count as f64).sqrt()
    }
}

/// A shard's count.
#[derive(Debug)]
pub(crate) struct HotKeyCounter {
    random: u64,
    samples: u64,
    /// When the counting began, and when counts were last halved, in steady time.
    since_ms: u64,
    halved_ms: u64,
    /// Parts of the counted keys' hashes, apart from the rest as they are what is looked through.
    tags: Vec<u32>,
    counters: Vec<Counter>,
    counters_max: usize,
    /// What a key that has no counter may have been counted, where there are fewer counters than there may be.
    uncounted: u64,
    /// No counter is below this; the search for one that is not above it goes on here.
    least: u64,
    hand: usize,
    key_bytes: usize,
    key_bytes_max: usize,
}

impl HotKeyCounter {
    /// For a shard of `bytes_limit` bytes.
    pub(crate) fn new(bytes_limit: u64, now: Now) -> Self {
        Self {
            random: 0x9e37_79b9_7f4a_7c15,
            samples: 0,
            since_ms: now.steady_ms,
            halved_ms: now.steady_ms,
            tags: Vec::new(),
            counters: Vec::new(),
            counters_max: ((bytes_limit / BYTES_PER_COUNTER) as usize).clamp(COUNTERS_MIN, COUNTERS),
            uncounted: 0,
            least: 0,
            hand: 0,
            key_bytes: 0,
            key_bytes_max: (bytes_limit / KEYS_PART) as usize,
        }
    }

    /// The counting begins here.
    pub(crate) fn begin_at(&mut self, now: Now) {
        (self.since_ms, self.halved_ms) = (now.steady_ms, now.steady_ms);
    }

    /// Counts a lookup. After how many more the next one is to be counted, 1 at least.
    #[cold]
    pub(crate) fn sample(&mut self, namespace: &Namespace, key: &[u8], hash: u64, now: Now) -> u32 {
        self.count(namespace, key, hash, now);
        // Knuth's multiplier; its top bits are the random ones.
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((self.random >> 32) * (2 * LOOKUPS_PER_SAMPLE - 1)) >> 32) as u32 + 1
    }

    fn count(&mut self, namespace: &Namespace, key: &[u8], hash: u64, now: Now) {
        self.samples += 1;
        if self.samples > SAMPLES_MAX {
            self.halve(now);
        }
        if let Some(known) = self.find(hash) {
            self.counters[known].count += 1;
            return;
        }
        let counter = |count, error| {
            let (namespace, key) = (namespace.clone(), Box::from(key));
            Counter { namespace, key, hash, count, error }
        };
        while self.key_bytes + key.len() > self.key_bytes_max && !self.counters.is_empty() {
            self.give_up_least();
        }
        self.key_bytes += key.len();
        if self.counters.len() < self.counters_max {
            self.tags.push(tag(hash));
            self.counters.push(counter(self.uncounted + 1, self.uncounted));
            return;
        }
        let least = self.least();
        let gone = &mut self.counters[least];
        self.key_bytes -= gone.key.len();
        *gone = counter(gone.count + 1, gone.count);
        self.tags[least] = tag(hash);
    }

    fn find(&self, hash: u64) -> Option<usize> {
        let wanted = tag(hash);
        // Without a way out in the middle, so that many are compared at once.
        if !self.tags.iter().fold(false, |any, tag| any | (*tag == wanted)) {
            return None;
        }
        self.counters.iter().position(|counter| counter.hash == hash)
    }

    /// A counter that none is below. Counts grow, so what was the least stays it until none has it any more: the search
    /// goes round once for each such count.
    fn least(&mut self) -> usize {
        let (before, after) = self.counters.split_at(self.hand);
        let is_least = |counter: &Counter| counter.count <= self.least;
        let ahead = after.iter().position(is_least).map(|at| self.hand + at);
        if let Some(found) = ahead.or_else(|| before.iter().position(is_least)) {
            self.hand = found;
            return found;
        }
        let counts = self.counters.iter().map(|counter| counter.count);
        let (found, least) = counts.enumerate().min_by_key(|(_, count)| *count).expect("there are counters");
        (self.hand, self.least) = (found, least);
        found
    }

    /// Does without a least counter.
    fn give_up_least(&mut self) {
        let least = self.least();
        let gone = self.counters.swap_remove(least);
        self.tags.swap_remove(least);
        self.key_bytes -= gone.key.len();
        self.uncounted = self.uncounted.max(gone.count);
        self.hand = 0;
    }

    fn halve(&mut self, now: Now) {
        self.samples /= 2;
        self.uncounted /= 2;
        self.since_ms = self.halved_ms;
        self.halved_ms = now.steady_ms;
        for counter in &mut self.counters {
            counter.count /= 2;
            counter.error /= 2;
        }
        self.counters.retain(|counter| counter.count > 0);
        self.tags = self.counters.iter().map(|counter| tag(counter.hash)).collect();
        (self.least, self.hand) = (0, 0);
        self.key_bytes = self.counters.iter().map(|counter| counter.key.len()).sum();
    }

    /// Adds what is counted here; `value_bytes` gives the length of a key's value.
    pub(crate) fn add_to(
        &self,
        all: &mut HotKeys,
        now: Now,
        value_bytes: impl Fn(&Namespace, &[u8], u64) -> u64,
    ) {
        all.lookups += self.samples * LOOKUPS_PER_SAMPLE;
        all.window_ms = all.window_ms.max(now.steady_ms.saturating_sub(self.since_ms));
        let live = self.counters.iter().filter(|counter| !counter.namespace.is_deleted());
        all.keys.extend(live.map(|counter| HotKey {
            namespace: counter.namespace.name().to_owned(),
            key: counter.key.to_vec(),
            count: counter.count * LOOKUPS_PER_SAMPLE,
            count_error: (counter.error() * LOOKUPS_PER_SAMPLE as f64).ceil() as u64,
            value_bytes: value_bytes(&counter.namespace, &counter.key, counter.hash),
        }));
    }

    /// Gives its memory back, and begins anew.
    pub(crate) fn clear(&mut self) {
        (self.tags, self.counters, self.key_bytes, self.samples) = (Vec::new(), Vec::new(), 0, 0);
        (self.least, self.hand, self.uncounted) = (0, 0, 0);
    }

    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        let each = size_of::<Counter>() + size_of::<u32>();
        (self.counters.capacity() * each + self.key_bytes) as u64
    }
}

fn tag(hash: u64) -> u32 {
    hash as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, EngineConfig, PolicyName};

    const NOW: Now = Now { steady_ms: 0, unix_us: 0 };

    /// A random number below `below`, by a generator other than the one that chooses samples.
    fn below(state: &mut u64, below: u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        ((u128::from(*state) * u128::from(below)) >> 64) as u64
    }

    #[test]
    fn a_count_is_within_its_error_of_how_many_lookups_there_were() {
        let config = EngineConfig {
            bytes_limit: 8 << 20,
            shards: Some(1),
            policy: PolicyName::Lru,
            ..EngineConfig::default()
        };
        let engine = Engine::new(&config, NOW);
        let mut asked = vec![0u64; 2_000];
        let mut state = 0x2545_F491_4F6C_DD1D;
        for _ in 0..900_000 {
            // Zipf's law, roughly: as many for 1 to 2 as for 2 to 4 and so on.
            let octave = below(&mut state, 11);
            let key = ((1 << octave) + below(&mut state, 1 << octave)).min(1_999);
            asked[key as usize] += 1;
            let _ = engine.read(engine.default_namespace(), &key.to_le_bytes(), None, NOW, |_| ());
        }
        let hot = engine.hot_keys(NOW);
        assert_eq!(hot.keys.len(), 100);
        assert!(hot.lookups.abs_diff(900_000) < 9_000, "{} lookups", hot.lookups);
        let of = |key: &HotKey| asked[u64::from_le_bytes(key.key[..].try_into().unwrap()) as usize];
        let off = hot.keys.iter().filter(|key| key.count.abs_diff(of(key)) > key.count_error).count();
        assert!(off <= 2, "{off} of 100 are further off than they say: {:?}", hot.keys);
        let often = asked.iter().filter(|asked| **asked >= 9_000).count();
        assert!(often >= 15, "{often} keys make up 1 %");
        assert!(hot.keys[..often].iter().all(|key| of(key) >= 8_000), "all of them come first");
    }

    #[test]
    fn long_keys_take_no_more_than_a_sixty_fourth_and_are_counted_as_well() {
        let engine = Engine::new(&EngineConfig::default(), NOW);
        let mut hot = HotKeyCounter::new(8 << 20, NOW);
        for n in 0..20_000u64 {
            let mut key = vec![7; 4_000];
            key[..8].copy_from_slice(&n.to_le_bytes());
            hot.count(engine.default_namespace(), &key, n, NOW);
            if n % 10 == 0 {
                hot.count(engine.default_namespace(), b"hot", u64::MAX, NOW);
            }
            let texts: usize = hot.counters.iter().map(|counter| counter.key.len()).sum();
            assert_eq!((texts, hot.counters.len()), (hot.key_bytes, hot.tags.len()));
            assert!(hot.key_bytes <= 128 << 10);
        }
        let found = hot.find(u64::MAX).map(|at| &hot.counters[at]).unwrap();
        let (count, error) = (found.count, found.error);
        assert!(count >= 2_000 && count - error <= 2_000, "{count}, of which {error} may be others'");
        assert!(error < 1_000, "{error}");
    }
}
