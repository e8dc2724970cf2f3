//! The keys that are asked for most, always counted: Space-Saving (Metwally, Agrawal, El Abbadi, "Efficient
//! computation of frequent and top-k elements in data streams", ICDT 2005) over a sample of the lookups.
//!
//! Each shard has up to [`COUNTERS`] counters and looks at one lookup of 16, at random gaps so that no rhythm of the
//! callers hides a key. A key that makes up more than one lookup of its shard's counters is among them; a key that
//! comes new takes over a least counter with its count, which is how far that key's count may be too high. Counts are
//! halved now and then, so that they speak of the present.

use super::namespace::Namespace;
use crate::clock::Now;

/// Counters of a shard; fewer in one of less than 2 MiB, …
const COUNTERS: usize = 128;
const COUNTERS_MIN: usize = 16;
/// … which has one for so many bytes.
const BYTES_PER_COUNTER: u64 = 16 << 10;
/// One lookup of so many is counted, on average.
const LOOKUPS_PER_SAMPLE: u64 = 16;
/// Counts are halved after so many samples.
const SAMPLES_MAX: u64 = 1 << 16;

/// A key that is asked for often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotKey {
    /// Its namespace's name.
    pub namespace: String,
    /// The key.
    pub key: Vec<u8>,
    /// How many lookups asked for it, at most.
    pub count: u64,
    /// By how much that may be too high.
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
    error: u64,
}

/// A shard's count.
#[derive(Debug)]
pub(crate) struct Hot {
    random: u64,
    samples: u64,
    /// When the counting began, and when counts were last halved, in steady time.
    since_ms: u64,
    halved_ms: u64,
    /// Parts of the counted keys' hashes, apart from the rest as they are what is looked through.
    tags: Vec<u32>,
    counters: Vec<Counter>,
    counters_max: usize,
    /// No counter is below this; the search for one that is not above it goes on here.
    least: u64,
    hand: usize,
    key_bytes: usize,
}

impl Hot {
    /// For a shard of so many bytes.
    pub(crate) fn new(bytes_limit: u64, now: Now) -> Self {
        Self {
            random: 0x9e37_79b9_7f4a_7c15,
            samples: 0,
            since_ms: now.steady_ms,
            halved_ms: now.steady_ms,
            tags: Vec::new(),
            counters: Vec::new(),
            counters_max: ((bytes_limit / BYTES_PER_COUNTER) as usize).clamp(COUNTERS_MIN, COUNTERS),
            least: 0,
            hand: 0,
            key_bytes: 0,
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
        // Knuth's multiplier; the top five bits choose a gap of 1 to 31, 16 on average.
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.random >> 59) as u32).max(1)
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
        self.key_bytes += key.len();
        if self.counters.len() < self.counters_max {
            self.tags.push(tag(hash));
            self.counters.push(counter(1, 0));
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

    fn halve(&mut self, now: Now) {
        self.samples /= 2;
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

    /// Adds what is counted here; the value's length is for who has the entries.
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
            count_error: counter.error * LOOKUPS_PER_SAMPLE,
            value_bytes: value_bytes(&counter.namespace, &counter.key, counter.hash),
        }));
    }

    /// Gives its memory back, and begins anew.
    pub(crate) fn clear(&mut self) {
        (self.tags, self.counters, self.key_bytes, self.samples) = (Vec::new(), Vec::new(), 0, 0);
        (self.least, self.hand) = (0, 0);
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
