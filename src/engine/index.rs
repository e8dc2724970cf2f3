//! A shard's index: from the hash of a key to the slot of its entry, in the order of the hashes.
//!
//! The hashes' range is cut into segments of equal width; each is a small open-addressing table of buckets, one
//! cache line a bucket, whose home bucket is where the hash lies between the segment's ends. So a lookup costs
//! one line in nearly every case; a table grows by an eighth, not by doubling, and takes microseconds for it
//! as tags are all that it needs to read; and the slots can be walked in an order that neither growth nor a
//! moved cell changes, which is what paging through the cache takes.
//!
//! ```text
//! hash, without the bits that chose the shard
//! ┌─────────────────┬──────────┬─────────────┐
//! │ segment         │ tag (16) │ not kept    │   home bucket = tag × buckets / 2^16
//! └─────────────────┴──────────┴─────────────┘
//! bucket, 64 bytes
//! ┌────────────────────────┬──────────────┬──────────────┬───────┐
//! │ slots, 10 × 4 (0 none) │ tags, 10 × 2 │ passed by, 2 │ spare │
//! └────────────────────────┴──────────────┴──────────────┴───────┘
//! ```
//!
//! An entry whose home bucket is full lies in the next one that is not; each bucket that it was too late for
//! counts it as passed by (as in F14, Bronson and Shi, "Open-sourcing F14", 2019), so a lookup ends at the first
//! bucket that nobody passed by, and removing leaves no tombstone.

const SLOTS_PER_BUCKET: usize = 10;
const TAG_BITS: u32 = 16;
/// Bytes of shard for each segment: about 200 entries of 16 B key and 100 B value.
const SHARD_BYTES_PER_SEGMENT: u64 = 32 << 10;
const SEGMENT_BITS_MAX: u32 = 20;
const NONE: u32 = 0;

#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Bucket {
    slots: [u32; SLOTS_PER_BUCKET],
    tags: [u16; SLOTS_PER_BUCKET],
    passed_by: u16,
}

const BUCKET_BYTES: usize = size_of::<Bucket>();
const _: () = assert!(BUCKET_BYTES == 64, "a bucket is a cache line");

#[derive(Debug, Default)]
struct Segment {
    buckets: Box<[Bucket]>,
    len: u32,
}

/// Slots by the hash of their keys.
#[derive(Debug)]
pub(crate) struct Index {
    segments: Box<[Segment]>,
    /// The hash's top bits, which are the same for all of the shard.
    shard_bits: u32,
    segment_bits: u32,
    len: usize,
    buckets: usize,
}

impl Bucket {
    /// Where the tag stands, as a mask; free places may be among them.
    #[inline]
    fn places_of(&self, tag: u16) -> u32 {
        let mut places = 0;
        for (place, other) in self.tags.iter().enumerate() {
            places |= u32::from(*other == tag) << place;
        }
        places
    }

    fn place_of(&self, slot: u32) -> Option<usize> {
        self.slots.iter().position(|other| *other == slot)
    }
}

impl Segment {
    #[inline]
    fn home(&self, tag: u16) -> usize {
        (usize::from(tag) * self.buckets.len()) >> TAG_BITS
    }

    #[inline]
    fn after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets.len() { 0 } else { bucket + 1 }
    }

    #[inline]
    fn find(&self, tag: u16, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.buckets.is_empty() {
            return None;
        }
        let mut at = self.home(tag);
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            let mut places = bucket.places_of(tag);
            while places != 0 {
                let slot = bucket.slots[places.trailing_zeros() as usize % SLOTS_PER_BUCKET];
                if slot != NONE && is(slot) {
                    return Some(slot);
                }
                places &= places - 1;
            }
            if bucket.passed_by == 0 {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    /// The bucket and place of a slot that is there.
    fn place_of(&self, tag: u16, slot: u32) -> (usize, usize) {
        let mut at = self.home(tag);
        loop {
            if let Some(place) = self.buckets[at].place_of(slot) {
                return (at, place);
            }
            assert_ne!(self.buckets[at].passed_by, 0, "every entry is in the index");
            at = self.after(at);
        }
    }

    /// Puts a slot where there is room for it: the caller has seen to it that there is.
    fn put(&mut self, tag: u16, slot: u32) {
        let mut at = self.home(tag);
        loop {
            let bucket = &mut self.buckets[at];
            if let Some(place) = bucket.place_of(NONE) {
                bucket.slots[place] = slot;
                bucket.tags[place] = tag;
                break;
            }
            bucket.passed_by += 1;
            at = self.after(at);
        }
        self.len += 1;
    }

    fn take(&mut self, tag: u16, slot: u32) {
        let (found, place) = self.place_of(tag, slot);
        self.buckets[found].slots[place] = NONE;
        let mut at = self.home(tag);
        while at != found {
            self.buckets[at].passed_by -= 1;
            at = self.after(at);
        }
        self.len -= 1;
    }

    /// The buckets that it should have once another entry is in; as many as it has while those will do.
    fn buckets_for_one_more(&self) -> usize {
        let buckets = self.buckets.len();
        if fits(self.len as usize + 1, buckets) { buckets } else { buckets + buckets / 8 + 1 }
    }

    fn rebuild(&mut self, buckets: usize) {
        let fresh = vec![Bucket::default(); buckets].into_boxed_slice();
        let old = std::mem::replace(&mut self.buckets, fresh);
        self.len = 0;
        for bucket in &old {
            for (slot, tag) in bucket.slots.iter().zip(bucket.tags).filter(|(slot, _)| **slot != NONE) {
                self.put(tag, *slot);
            }
        }
    }
}

/// Whether so many entries leave an eighth of so many buckets free.
fn fits(entries: usize, buckets: usize) -> bool {
    entries <= buckets * SLOTS_PER_BUCKET * 7 / 8 || entries <= SLOTS_PER_BUCKET && buckets == 1
}

impl Index {
    /// For a shard of so many bytes whose keys' hashes have the same `shard_bits` top bits.
    pub(crate) fn new(shard_bits: u32, bytes_limit: u64) -> Self {
        let segment_bits = segment_bits(bytes_limit);
        let segments = (0..1u32 << segment_bits).map(|_| Segment::default()).collect();
        Self { segments, shard_bits, segment_bits, len: 0, buckets: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What the index takes.
    pub(crate) fn bytes(&self) -> u64 {
        (self.buckets * BUCKET_BYTES + self.segments.len() * size_of::<Segment>()) as u64
    }

    /// What it takes more once another entry with this hash is in.
    #[inline]
    pub(crate) fn growth(&self, hash: u64) -> u64 {
        let segment = &self.segments[self.place(hash).0];
        ((segment.buckets_for_one_more() - segment.buckets.len()) * BUCKET_BYTES) as u64
    }

    /// The slot of this hash that `is` the one.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is: impl FnMut(u32) -> bool) -> Option<u32> {
        let (segment, tag) = self.place(hash);
        self.segments[segment].find(tag, is)
    }

    /// Reads a byte of the hash's home bucket, so that its line is on the way: nothing depends on what it is, so
    /// nothing waits for it.
    #[inline]
    pub(crate) fn ask_for(&self, hash: u64) {
        let (segment, tag) = self.place(hash);
        let segment = &self.segments[segment];
        std::hint::black_box(segment.buckets.get(segment.home(tag)).map(|bucket| bucket.passed_by));
    }

    /// The first slot that may be of a key with this hash, for who wants its memory near.
    #[inline]
    pub(crate) fn likely(&self, hash: u64) -> Option<u32> {
        self.find(hash, |_| true)
    }

    pub(crate) fn insert(&mut self, hash: u64, slot: u32) {
        let (segment, tag) = self.place(hash);
        let segment = &mut self.segments[segment];
        let (buckets, wanted) = (segment.buckets.len(), segment.buckets_for_one_more());
        if wanted != buckets {
            segment.rebuild(wanted);
            self.buckets += wanted - buckets;
        }
        segment.put(tag, slot);
        self.len += 1;
    }

    /// A slot that is there gets another number.
    pub(crate) fn replace(&mut self, hash: u64, old: u32, new: u32) {
        let (segment, tag) = self.place(hash);
        let (bucket, place) = self.segments[segment].place_of(tag, old);
        self.segments[segment].buckets[bucket].slots[place] = new;
    }

    /// Takes out a slot that is there.
    pub(crate) fn remove(&mut self, hash: u64, slot: u32) {
        let (segment, tag) = self.place(hash);
        let segment = &mut self.segments[segment];
        segment.take(tag, slot);
        self.len -= 1;
        let buckets = segment.buckets.len();
        let (len, places) = (segment.len as usize, buckets * SLOTS_PER_BUCKET);
        if len * 8 < places * 3 && (len == 0 || buckets > 1) {
            let wanted = (len * 4).div_ceil(SLOTS_PER_BUCKET * 3);
            segment.rebuild(wanted);
            self.buckets -= buckets - wanted;
        }
    }

    /// Cuts the range anew if a shard of so many bytes wants segments of a far other size; whether it did.
    pub(crate) fn resize(&mut self, bytes_limit: u64, hash: impl Fn(u32) -> u64) -> bool {
        let other = self.segment_bits.abs_diff(segment_bits(bytes_limit)) > 2;
        if other {
            let mut fresh = Self::new(self.shard_bits, bytes_limit);
            for slot in self.segments.iter().flat_map(Segment::slots) {
                fresh.insert(hash(slot), slot);
            }
            *self = fresh;
        }
        other
    }

    pub(crate) fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// The segment that a hash belongs to; segments are in the order of the hashes.
    #[inline]
    pub(crate) fn segment_of(&self, hash: u64) -> usize {
        self.place(hash).0
    }

    /// The slots of a segment, in no order.
    pub(crate) fn segment(&self, number: usize) -> impl Iterator<Item = u32> + '_ {
        self.segments[number].slots()
    }

    #[inline]
    fn place(&self, hash: u64) -> (usize, u16) {
        let hash = hash << self.shard_bits;
        let segment = (hash >> (u64::BITS - self.segment_bits)) as usize;
        let tag = hash << self.segment_bits >> (u64::BITS - TAG_BITS);
        (segment, tag as u16)
    }

    /// Checks counts, homes and the marks of those passed by.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn validate(&self) {
        let (mut len, mut buckets) = (0, 0);
        for segment in &self.segments {
            let mut passed_by = vec![0; segment.buckets.len()];
            for (found, bucket) in segment.buckets.iter().enumerate() {
                for (_, tag) in bucket.slots.iter().zip(bucket.tags).filter(|(slot, _)| **slot != NONE) {
                    let mut at = segment.home(tag);
                    while at != found {
                        passed_by[at] += 1;
                        at = segment.after(at);
                    }
                }
            }
            for (bucket, passed_by) in segment.buckets.iter().zip(passed_by) {
                assert_eq!(bucket.passed_by, passed_by);
            }
            assert_eq!(segment.slots().count(), segment.len as usize);
            len += segment.len as usize;
            buckets += segment.buckets.len();
        }
        assert_eq!((len, buckets), (self.len, self.buckets));
    }
}

impl Segment {
    fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.buckets.iter().flat_map(|bucket| bucket.slots).filter(|slot| *slot != NONE)
    }
}

fn segment_bits(bytes_limit: u64) -> u32 {
    (bytes_limit / SHARD_BYTES_PER_SEGMENT).max(2).ilog2().clamp(1, SEGMENT_BITS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    /// A hash of the shard whose top three bits are 101.
    fn hash(rng: &mut SmallRng) -> u64 {
        rng.random::<u64>() >> 3 | 0b101 << 61
    }

    #[test]
    fn what_is_inserted_is_found_until_it_is_removed() {
        let mut rng = SmallRng::seed_from_u64(3);
        let mut index = Index::new(3, 1 << 20);
        let mut known: HashMap<u32, u64> = HashMap::new();
        let mut next = 1;
        for step in 0..60_000 {
            let growing = step / 10_000 % 2 == 0;
            if rng.random_bool(if growing { 0.8 } else { 0.2 }) {
                let hash = hash(&mut rng);
                let before = index.bytes();
                let growth = index.growth(hash);
                index.insert(hash, next);
                assert_eq!(index.bytes(), before + growth, "growth is foretold");
                known.insert(next, hash);
                next += 1;
            } else if let Some((slot, hash)) = known.iter().next().map(|(slot, hash)| (*slot, *hash)) {
                index.remove(hash, slot);
                known.remove(&slot);
                assert_eq!(index.find(hash, |other| other == slot), None);
            }
            if step % 1_000 == 0 {
                index.validate();
                assert_eq!(index.len(), known.len());
                for (slot, hash) in &known {
                    assert_eq!(index.find(*hash, |other| other == *slot), Some(*slot));
                }
            }
        }
        for (slot, hash) in known {
            index.replace(hash, slot, slot + 1_000_000);
            index.remove(hash, slot + 1_000_000);
        }
        index.validate();
        assert_eq!(index.buckets, 0, "an empty index keeps no bucket");
    }

    #[test]
    fn equal_hashes_are_told_apart_by_the_caller() {
        let mut index = Index::new(0, 1 << 20);
        for slot in 1..=100 {
            index.insert(7, slot);
        }
        index.validate();
        for slot in 1..=100 {
            assert_eq!(index.find(7, |other| other == slot), Some(slot));
        }
        for slot in (1..=100).rev() {
            index.remove(7, slot);
            index.validate();
        }
    }

    #[test]
    fn segments_are_in_the_order_of_the_hashes_and_hold_their_own() {
        let mut rng = SmallRng::seed_from_u64(5);
        let mut index = Index::new(3, 4 << 20);
        let hashes: Vec<u64> = (0..20_000).map(|_| hash(&mut rng)).collect();
        for (slot, hash) in hashes.iter().enumerate() {
            index.insert(*hash, slot as u32 + 1);
        }
        let mut walked = Vec::new();
        for segment in 0..index.segment_count() {
            let mut part: Vec<u64> = index.segment(segment).map(|slot| hashes[slot as usize - 1]).collect();
            assert!(part.iter().all(|hash| index.segment_of(*hash) == segment));
            part.sort_unstable();
            walked.extend(part);
        }
        let mut sorted = hashes.clone();
        sorted.sort_unstable();
        assert_eq!(walked, sorted);
        assert!(index.resize(64 << 20, |slot| hashes[slot as usize - 1]));
        index.validate();
        assert_eq!((index.len(), index.segment_count()), (20_000, 2_048));
    }

    #[test]
    fn an_entry_costs_less_than_eight_bytes_at_any_size() {
        let mut rng = SmallRng::seed_from_u64(9);
        let mut index = Index::new(3, 32 << 20);
        for slot in 1..=400_000 {
            index.insert(hash(&mut rng), slot);
            if slot % 100_000 == 0 {
                let each = index.bytes() as f64 / f64::from(slot);
                assert!(each < 8.3, "{each} B an entry with {slot}");
            }
        }
    }
}
