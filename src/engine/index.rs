//! A shard's index: from the hash of a key to the slot of its entry.
//!
//! The hashes are dealt to segments by their low bits; each segment is a small open-addressing table of buckets, one
//! cache line a bucket. There is one more segment for every 256 entries more: the segments are split one after the
//! other, so that their number grows smoothly (linear hashing: Litwin, "Linear hashing: a new tool for file and table
//! addressing", VLDB 1980). A lookup costs one line in nearly every case; nothing ever doubles, and a split or a
//! table's growth by a quarter takes microseconds.
//!
//! ```text
//! hash
//! ┌──────────────────┬──────┬──────────┬─────────────┬─────────┐
//! │ the shard's bits │      │ tag (16) │             │ segment │   home bucket = tag × buckets / 2^16
//! └──────────────────┴──────┴──────────┴─────────────┴─────────┘
//! 63                         47      32                        0
//! bucket, 64 bytes
//! ┌────────────────────────┬──────────────┬──────────────┬───────┐
//! │ slots, 10 × 4 (0 none) │ tags, 10 × 2 │ passed by, 2 │ spare │
//! └────────────────────────┴──────────────┴──────────────┴───────┘
//! ```
//!
//! An entry whose home bucket is full lies in the next one that is not; each bucket that it was too late for
//! counts it as passed by (as in F14, Bronson and Shi, "Open-sourcing F14", 2019), so a lookup ends at the first
//! bucket that nobody passed by, and removing leaves no tombstone.
//!
//! Walking: all hashes of a segment follow one another when hashes are sorted by their bits read backwards ([`order`]),
//! and a split cuts such a stretch in two. So a walk in that order, a segment at a time, meets everything that stays
//! exactly once, whatever is split meanwhile (as Redis's SCAN does with its buckets).

use super::prefetch::prefetch;
use super::slot::Slot;

const SLOTS_PER_BUCKET: usize = 10;
const TAG_AT: u32 = 32;
const TAG_BITS: u32 = 16;
/// Entries for each segment, on average.
const ENTRIES_PER_SEGMENT: usize = 256;
/// Below the tag's bits.
const SEGMENTS_MAX: usize = 1 << 24;

/// Where a hash stands in a walk.
#[inline]
pub(crate) fn order(hash: u64) -> u64 {
    hash.reverse_bits()
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Bucket {
    slots: [Option<Slot>; SLOTS_PER_BUCKET],
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
    /// As many as there were at the last doubling, and those that were split off since.
    segments: Vec<Segment>,
    /// How many low bits of a hash chose its segment at the last doubling.
    bits: u32,
    len: usize,
    buckets: usize,
}

impl Bucket {
    /// Where the tag stands, a bit for each place ([`place_in`] tells which), found four tags at a time. Free places may
    /// be among them, and, above a place that is right, also wrong ones.
    #[inline]
    fn places_of(&self, tag: u16) -> u64 {
        const ONES: u64 = 0x0001_0001_0001_0001;
        let [a, b, c, d, e, f, g, h, i, j] = self.tags.map(u64::from);
        let wanted = u64::from(tag) * ONES;
        // Mycroft's test for zeros, here lanes of 16 bits.
        let zeros = |lanes: u64| lanes.wrapping_sub(ONES) & !lanes & ONES << 15;
        zeros((a | b << 16 | c << 32 | d << 48) ^ wanted) >> 15
            | zeros((e | f << 16 | g << 32 | h << 48) ^ wanted) >> 14
            | zeros((i | j << 16) ^ wanted & 0xFFFF_FFFF | 0xFFFF_FFFF << 32) >> 13
    }

    #[inline]
    fn place_of(&self, slot: Option<Slot>) -> Option<usize> {
        self.slots.iter().position(|other| *other == slot)
    }

    /// Slots and tags of the places that are taken.
    #[inline]
    fn entries(&self) -> impl Iterator<Item = (Slot, u16)> + '_ {
        self.slots.iter().zip(self.tags).filter_map(|(slot, tag)| slot.map(|slot| (slot, tag)))
    }
}

/// The first place of a mask that is not empty.
#[inline]
fn place_in(places: u64) -> usize {
    let bit = places.trailing_zeros() as usize;
    (bit & 15) * 4 + (bit >> 4)
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
    fn find(&self, tag: u16, mut is: impl FnMut(Slot) -> bool) -> Option<Slot> {
        if self.buckets.is_empty() {
            return None;
        }
        let mut at = self.home(tag);
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            let mut places = bucket.places_of(tag);
            while places != 0 {
                let slot = bucket.slots.get(place_in(places)).copied().flatten();
                if let Some(slot) = slot
                    && is(slot)
                {
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
    #[inline]
    fn place_of(&self, tag: u16, slot: Slot) -> (usize, usize) {
        let mut at = self.home(tag);
        loop {
            if let Some(place) = self.buckets[at].place_of(Some(slot)) {
                return (at, place);
            }
            assert_ne!(self.buckets[at].passed_by, 0, "every entry is in the index");
            at = self.after(at);
        }
    }

    /// Puts a slot where there is room for it: the caller has seen to it that there is.
    #[inline]
    fn put(&mut self, tag: u16, slot: Slot) {
        let mut at = self.home(tag);
        loop {
            let bucket = &mut self.buckets[at];
            if let Some(place) = bucket.place_of(None) {
                bucket.slots[place] = Some(slot);
                bucket.tags[place] = tag;
                break;
            }
            bucket.passed_by += 1;
            at = self.after(at);
        }
        self.len += 1;
    }

    #[inline]
    fn take(&mut self, tag: u16, slot: Slot) {
        let (found, place) = self.place_of(tag, slot);
        self.buckets[found].slots[place] = None;
        let mut at = self.home(tag);
        while at != found {
            self.buckets[at].passed_by -= 1;
            at = self.after(at);
        }
        self.len -= 1;
    }

    /// The buckets that it should have once another entry is in; as many as it has while those will do.
    #[inline]
    fn buckets_for_one_more(&self) -> usize {
        let buckets = self.buckets.len();
        if fits(self.len as usize + 1, buckets) { buckets } else { next_size(buckets + 1) }
    }

    fn rebuild(&mut self, buckets: usize) {
        let fresh = vec![Bucket::default(); buckets].into_boxed_slice();
        let old = std::mem::replace(&mut self.buckets, fresh);
        self.len = 0;
        for bucket in &old {
            for (slot, tag) in bucket.entries() {
                self.put(tag, slot);
            }
        }
    }
}

/// The least size of a table, in buckets, that holds `buckets`. Sizes are a quarter of a power of two apart, as
/// jemalloc's classes are, so that nothing of an allocation is left over.
fn next_size(buckets: usize) -> usize {
    let step = (1usize << buckets.max(1).ilog2()) / 4;
    buckets.next_multiple_of(step.max(1))
}

/// The size of a table, in buckets, that is made for `entries` entries: a fifth of it is free.
fn roomy(entries: usize) -> usize {
    if entries == 0 { 0 } else { next_size((entries * 5).div_ceil(SLOTS_PER_BUCKET * 4)) }
}

/// Whether `entries` entries leave an eighth of `buckets` buckets free.
#[inline]
fn fits(entries: usize, buckets: usize) -> bool {
    entries <= buckets * SLOTS_PER_BUCKET * 7 / 8 || entries <= SLOTS_PER_BUCKET && buckets == 1
}

impl Index {
    pub(crate) fn new() -> Self {
        Self { segments: vec![Segment::default()], bits: 0, len: 0, buckets: 0 }
    }

    /// An index with room for `entries` entries, as large as it would be once they were in, so that nothing is split or
    /// grown on the way there.
    pub(crate) fn with_room_for(entries: usize) -> Self {
        let count = entries.div_ceil(ENTRIES_PER_SEGMENT).clamp(1, SEGMENTS_MAX);
        let mut index = Self { bits: count.saturating_sub(1).checked_ilog2().unwrap_or(0), ..Self::new() };
        index.segments.resize_with(count, Segment::default);
        let doubled = 1usize << index.bits;
        for number in 0..count {
            let share = if index.is_split(number) { 2 * doubled } else { doubled };
            let buckets = roomy(entries / share);
            index.segments[number].rebuild(buckets);
            index.buckets += buckets;
        }
        index
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What the index takes.
    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        (self.buckets * BUCKET_BYTES + self.segments.capacity() * size_of::<Segment>()) as u64
    }

    /// What it takes more, at most, once another entry with this hash is in.
    #[inline]
    pub(crate) fn growth(&self, hash: u64) -> u64 {
        let segment = &self.segments[self.segment_of(hash)];
        let buckets = segment.buckets_for_one_more() - segment.buckets.len();
        if !self.wants_split() {
            return (buckets * BUCKET_BYTES) as u64;
        }
        let full = self.segments.len() == self.segments.capacity();
        let segments = if full { self.segments.len().max(4) } else { 0 };
        ((buckets + BUCKETS_PER_SPLIT) * BUCKET_BYTES + segments * size_of::<Segment>()) as u64
    }

    /// The slot of this hash that `is` the one.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is: impl FnMut(Slot) -> bool) -> Option<Slot> {
        self.segments[self.segment_of(hash)].find(tag(hash), is)
    }

    /// Asks for the hash's home bucket.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        let segment = &self.segments[self.segment_of(hash)];
        if let Some(bucket) = segment.buckets.get(segment.home(tag(hash))) {
            prefetch(bucket);
        }
    }

    /// The first slot that may be of a key with this hash, so that a caller can prefetch its entry.
    #[inline]
    pub(crate) fn slot_hint(&self, hash: u64) -> Option<Slot> {
        self.find(hash, |_| true)
    }

    /// Puts a slot in; `hash_of` tells the hash of one that is there.
    pub(crate) fn insert(&mut self, hash: u64, slot: Slot, hash_of: impl FnMut(Slot) -> u64) {
        if self.wants_split() {
            self.split(hash_of);
        }
        let number = self.segment_of(hash);
        let segment = &mut self.segments[number];
        let (buckets, wanted) = (segment.buckets.len(), segment.buckets_for_one_more());
        if wanted != buckets {
            segment.rebuild(wanted);
            self.buckets += wanted - buckets;
        }
        segment.put(tag(hash), slot);
        self.len += 1;
    }

    /// A slot that is there gets another number.
    pub(crate) fn replace(&mut self, hash: u64, old: Slot, new: Slot) {
        let number = self.segment_of(hash);
        let segment = &mut self.segments[number];
        let (bucket, place) = segment.place_of(tag(hash), old);
        segment.buckets[bucket].slots[place] = Some(new);
    }

    /// Takes out a slot that is there.
    pub(crate) fn remove(&mut self, hash: u64, slot: Slot) {
        let number = self.segment_of(hash);
        let segment = &mut self.segments[number];
        segment.take(tag(hash), slot);
        self.len -= 1;
        let buckets = segment.buckets.len();
        let (len, places) = (segment.len as usize, buckets * SLOTS_PER_BUCKET);
        if len * 8 < places * 3 && (len == 0 || buckets > 1) {
            let wanted = if len == 0 { 0 } else { next_size((len * 4).div_ceil(SLOTS_PER_BUCKET * 3)) };
            segment.rebuild(wanted);
            self.buckets -= buckets - wanted;
        }
    }

    pub(crate) fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// The slots of a segment, in no order.
    pub(crate) fn segment(&self, number: usize) -> impl Iterator<Item = Slot> + '_ {
        self.segments[number].slots()
    }

    /// The segment that a hash belongs to.
    #[inline]
    pub(crate) fn segment_of(&self, hash: u64) -> usize {
        let finer = hash as usize & ((2 << self.bits) - 1);
        if finer < self.segments.len() { finer } else { finer & ((1 << self.bits) - 1) }
    }

    /// The last place in a walk of the stretch that a segment's hashes make up.
    pub(crate) fn end_of(&self, number: usize) -> u64 {
        // Of a segment that was split, one bit more tells.
        let bits = self.bits + u32::from(self.is_split(number));
        order(number as u64) | u64::MAX.checked_shr(bits).unwrap_or(0)
    }

    /// Whether a segment was split, or split off, since the last doubling.
    fn is_split(&self, number: usize) -> bool {
        let doubled = 1 << self.bits;
        number >= doubled || number + doubled < self.segments.len()
    }

    #[inline]
    fn wants_split(&self) -> bool {
        self.len >= self.segments.len() * ENTRIES_PER_SEGMENT && self.segments.len() < SEGMENTS_MAX
    }

    /// Splits the next segment in turn.
    fn split(&mut self, mut hash_of: impl FnMut(Slot) -> u64) {
        let bit = self.segments.len().ilog2();
        let number = self.segments.len() - (1 << bit);
        let whole = std::mem::take(&mut self.segments[number]);
        self.bits = bit;
        self.segments.push(Segment::default());
        let (mut stay, mut go) = (Vec::new(), Vec::new());
        for bucket in &whole.buckets {
            for (slot, tag) in bucket.entries() {
                let part = if hash_of(slot) >> bit & 1 == 0 { &mut stay } else { &mut go };
                part.push((tag, slot));
            }
        }
        self.buckets -= whole.buckets.len();
        for (number, part) in [(number, stay), (self.segments.len() - 1, go)] {
            let segment = &mut self.segments[number];
            segment.rebuild(roomy(part.len()));
            part.into_iter().for_each(|(tag, slot)| segment.put(tag, slot));
            self.buckets += segment.buckets.len();
        }
    }

    /// Checks counts, homes and the marks of those passed by.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn validate(&self) {
        let (mut len, mut buckets) = (0, 0);
        for segment in &self.segments {
            let mut passed_by = vec![0; segment.buckets.len()];
            for (found, bucket) in segment.buckets.iter().enumerate() {
                for (_, tag) in bucket.entries() {
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
    fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.buckets.iter().flat_map(|bucket| bucket.slots).flatten()
    }
}

/// What a split may cost in buckets: two tables with a fifth and more free after one with an eighth free.
const BUCKETS_PER_SPLIT: usize = 3 * ENTRIES_PER_SEGMENT / SLOTS_PER_BUCKET;

#[inline]
fn tag(hash: u64) -> u16 {
    (hash >> TAG_AT) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn what_is_inserted_is_found_until_it_is_removed() {
        let mut rng = SmallRng::seed_from_u64(3);
        let mut index = Index::new();
        let mut known: HashMap<Slot, u64> = HashMap::new();
        let mut next = 1;
        for step in 0..60_000 {
            let growing = step / 10_000 % 2 == 0;
            if rng.random_bool(if growing { 0.8 } else { 0.2 }) {
                let (hash, slot): (u64, Slot) = (rng.random(), Slot::numbered(next));
                let most = index.bytes() + index.growth(hash);
                index.insert(hash, slot, |slot| known[&slot]);
                assert!(index.bytes() <= most, "growth is foretold");
                known.insert(slot, hash);
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
            let moved = Slot::numbered(slot.number() + 1_000_000);
            index.replace(hash, slot, moved);
            index.remove(hash, moved);
        }
        index.validate();
        assert_eq!(index.buckets, 0, "an empty index keeps no bucket");
    }

    #[test]
    fn equal_hashes_are_told_apart_by_the_caller() {
        let mut index = Index::new();
        for slot in (1..=1_000).map(Slot::numbered) {
            index.insert(7, slot, |_| 7);
        }
        index.validate();
        for slot in (1..=1_000).map(Slot::numbered) {
            assert_eq!(index.find(7, |other| other == slot), Some(slot));
        }
        for slot in (1..=1_000).rev().map(Slot::numbered) {
            index.remove(7, slot);
        }
        index.validate();
    }

    #[test]
    fn segments_are_stretches_of_a_walk_that_splits_cut_in_two() {
        let mut rng = SmallRng::seed_from_u64(5);
        let hashes: Vec<u64> = (0..20_000).map(|_| rng.random()).collect();
        let mut index = Index::new();
        for (slot, hash) in hashes.iter().enumerate() {
            index.insert(*hash, Slot::numbered(slot as u32 + 1), |slot| hashes[slot.index() - 1]);
            if slot % 777 != 0 {
                continue;
            }
            let (mut walked, mut after) = (Vec::new(), None::<u64>);
            loop {
                let number = index.segment_of(order(after.map_or(0, |after| after + 1)));
                let mut part: Vec<u64> =
                    index.segment(number).map(|slot| order(hashes[slot.index() - 1])).collect();
                part.sort_unstable();
                assert!(part.iter().all(|place| after.is_none_or(|after| *place > after)));
                assert!(part.last().is_none_or(|last| *last <= index.end_of(number)));
                walked.extend(part);
                after = Some(index.end_of(number));
                if after == Some(u64::MAX) {
                    break;
                }
            }
            let mut sorted: Vec<u64> = hashes[..=slot].iter().map(|hash| order(*hash)).collect();
            sorted.sort_unstable();
            assert_eq!(walked, sorted);
        }
    }

    #[test]
    fn an_index_with_room_is_as_one_that_has_grown_and_does_not_grow() {
        let mut rng = SmallRng::seed_from_u64(11);
        for entries in [0, 1, 255, 256, 257, 512, 700, 1_024, 30_000, 33_333] {
            let hashes: Vec<u64> = (0..entries).map(|_| rng.random()).collect();
            let (mut grown, mut ready) = (Index::new(), Index::with_room_for(entries));
            ready.validate();
            let (segments, bytes) = (ready.segment_count(), ready.bytes());
            for (slot, hash) in hashes.iter().enumerate() {
                for index in [&mut grown, &mut ready] {
                    index.insert(*hash, Slot::numbered(slot as u32 + 1), |slot| hashes[slot.index() - 1]);
                }
            }
            ready.validate();
            assert_eq!(ready.segment_count(), segments);
            assert_eq!((ready.segment_count(), ready.bits), (grown.segment_count(), grown.bits));
            assert!(
                ready.bytes() <= bytes + bytes / 50 + 1_000,
                "{entries}: {bytes} became {}",
                ready.bytes()
            );
            for (number, hash) in hashes.iter().enumerate() {
                assert!(ready.find(*hash, |slot| slot.index() == number + 1).is_some());
                assert_eq!(ready.end_of(ready.segment_of(*hash)), grown.end_of(grown.segment_of(*hash)));
            }
        }
    }

    #[test]
    fn an_entry_costs_about_eight_bytes_at_any_size() {
        let mut rng = SmallRng::seed_from_u64(9);
        let mut index = Index::new();
        let mut hashes = vec![0];
        for slot in 1..=400_000u32 {
            let hash: u64 = rng.random();
            index.insert(hash, Slot::numbered(slot), |slot| hashes[slot.index()]);
            hashes.push(hash);
            if slot % 10_000 == 0 {
                let each = index.bytes() as f64 / f64::from(slot);
                assert!(each < 9.2, "{each} B an entry with {slot}");
            }
        }
    }
}
