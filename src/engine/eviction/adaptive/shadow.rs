//! Shadows: caches of keys alone, one for each setting, which see a sample of the keys that the cache sees
//! (Waldspurger, Saemundsson, Ahmad, Park, "Cache modeling and optimization using miniature simulations", USENIX
//! ATC 2017; Waldspurger, Park, Garthwaite, Ahmad, "Efficient MRC construction with SHARDS", FAST 2015).
//!
//! A key is in the sample if its tag, 32 bits of its hash, is not above a threshold. A cache of n entries has
//! shadows of n · threshold / 2^32 entries, never more than there is memory for: while it fills, and where it grows,
//! the threshold falls, and what is above it goes (SHARDS with a fixed size). Up to that many entries, shadows
//! are exact. They count entries, not bytes.
//!
//! While nothing has gone from the cache, all settings are alike, and one shadow stands for all. With the first
//! eviction it is copied, and from then on memory is taken in [`Shadows::fit`] alone, which is called as room is
//! made: a policy that took it as an entry enters would take it above the limit.

use super::super::{SIDE_BYTES_MAX, Slots};
use super::judge::CANDIDATES;
use super::queues::{Queues, Setting};
use crate::engine::slot::Slot;

/// Entries in a shadow, at most, of a policy that may take [`SIDE_BYTES_MAX`]; one that may take less has as much less.
const ENTRIES_MAX: usize = 511;
/// The same where what the shadows take would be wanting elsewhere: in caches of more than [`ENTRIES_OF_SMALL`].
const ENTRIES_MAX_OF_LARGE: usize = 383;
const ENTRIES_OF_SMALL: usize = 8_192;
/// Cells and buckets are added this number at a time.
const CELLS_STEP: usize = 64;
const BYTES_PER_CELL: usize = size_of::<Cell>() + size_of::<u16>();
const NONE: u16 = 0;

/// The bits of a hash by which a key is in the sample or not: not those by which shards and sets are chosen.
#[inline]
pub(super) fn tag(hash: u64) -> u32 {
    (hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32
}

/// The shadows of all candidates.
#[derive(Debug)]
pub(super) struct Shadows {
    each: [Shadow; CANDIDATES],
    threshold: u32,
    entries_max: usize,
    /// The cache's entries when the shadows were last made fit; 0 while nothing went from it yet.
    entries_seen: usize,
    /// What they take since then.
    fitted_bytes: u64,
}

impl Shadows {
    /// The shadows of a policy that may take `side_bytes` bytes beside the entries.
    pub(super) fn new(settings: [Setting; CANDIDATES], side_bytes: usize) -> Self {
        let entries_max = (ENTRIES_MAX + 1) * side_bytes / SIDE_BYTES_MAX - 1;
        let each = settings.map(|setting| Shadow::new(setting, entries_max));
        Self { each, threshold: u32::MAX, entries_max, entries_seen: 0, fitted_bytes: 0 }
    }

    #[inline]
    pub(super) fn samples(&self, tag: u32) -> bool {
        // With a threshold of 0 none is, not even the tag that is 0.
        tag <= self.threshold && self.threshold > 0
    }

    /// Samples no key from now on.
    pub(super) fn stop(&mut self) {
        self.threshold = 0;
    }

    /// Entries in each.
    pub(super) fn entries(&self) -> usize {
        self.each[0].entries_max
    }

    /// A request for a key of the sample; the candidates that hit, as bits. 0 for other keys.
    pub(super) fn request(&mut self, tag: u32) -> u8 {
        if self.are_filling() {
            return self.request_of_filling(tag);
        }
        let mut hits = 0;
        for (candidate, shadow) in self.each.iter_mut().enumerate() {
            hits |= u8::from(shadow.request(tag)) << candidate;
        }
        hits
    }

    /// The candidates whose shadows have a key of the sample, as bits. Counts as no request.
    pub(super) fn have(&self, tag: u32) -> u8 {
        let has = |shadow: &Shadow| !shadow.heads.is_empty() && shadow.find(tag).is_some();
        if self.are_filling() {
            return if has(&self.each[0]) { (1 << CANDIDATES) - 1 } else { 0 };
        }
        let each = self.each.iter().enumerate();
        each.fold(0, |bits, (candidate, shadow)| bits | u8::from(has(shadow)) << candidate)
    }

    fn request_of_filling(&mut self, tag: u32) -> u8 {
        let one = &mut self.each[0];
        let is_hit = one.request(tag);
        if one.len() >= self.entries_max {
            self.lower(u64::from(self.threshold) / 8 * 7);
        }
        if is_hit { (1 << CANDIDATES) - 1 } else { 0 }
    }

    /// Empties a candidate's shadow.
    pub(super) fn restart(&mut self, candidate: usize) {
        self.each[candidate].clear();
    }

    pub(super) fn remove(&mut self, tag: u32) {
        self.each.iter_mut().for_each(|shadow| shadow.remove(tag));
    }

    /// Whether the shadows were made for a cache of another size.
    #[inline]
    pub(super) fn misfit(&self, entries: usize) -> bool {
        entries.abs_diff(self.entries_seen) > self.entries_seen / 16
    }

    /// Fits the shadows to a cache that is full with `entries` entries, beside which it remembers `keys` keys.
    pub(super) fn fit(&mut self, entries: usize, keys: usize) {
        let entries = entries.max(1);
        let most = self.entries_most(entries);
        let part = |threshold: u32| ((entries as u64 * (u64::from(threshold) + 1)) >> 32) as usize;
        if part(self.threshold) > most || part(self.threshold) < most / 2 {
            let wanted = ((most - most / 8) as u64) << 32;
            self.lower((wanted / entries as u64).min(u64::from(u32::MAX)));
        }
        let shadow_entries = part(self.threshold).clamp(1, most);
        let shadow_keys = keys * shadow_entries / entries;
        if self.are_filling() {
            let one = &self.each[0];
            self.each = std::array::from_fn(|at| one.with(self.each[at].queues.setting()));
        }
        self.entries_seen = entries;
        self.each.iter_mut().for_each(|shadow| shadow.fit(shadow_entries, shadow_keys));
        self.fitted_bytes = self.counted_bytes();
    }

    /// The most entries in each shadow of a cache of `entries` entries.
    pub(super) fn entries_most(&self, entries: usize) -> usize {
        if entries <= ENTRIES_OF_SMALL {
            self.entries_max
        } else {
            self.entries_max.min(ENTRIES_MAX_OF_LARGE)
        }
    }

    /// Sets the threshold; what is above it goes.
    fn lower(&mut self, threshold: u64) {
        self.threshold = threshold as u32;
        self.each.iter_mut().for_each(|shadow| shadow.retain(self.threshold));
    }

    /// What the shadows take, in bytes, at a cache of `entries` entries, beside what they remember.
    pub(super) fn bytes_for(&self, entries: usize) -> usize {
        size_of::<Self>()
            + CANDIDATES * Shadow::cells_for(entries.min(self.entries_most(entries))) * BYTES_PER_CELL
    }

    /// The same while nothing has gone from it.
    pub(super) fn bytes_filling(&self, entries: usize) -> usize {
        size_of::<Self>() + Shadow::cells_for(entries.min(self.entries_max)) * BYTES_PER_CELL
    }

    #[inline]
    pub(super) fn are_filling(&self) -> bool {
        self.entries_seen == 0
    }

    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        if self.are_filling() { self.counted_bytes() } else { self.fitted_bytes }
    }

    fn counted_bytes(&self) -> u64 {
        size_of::<Self>() as u64 + self.each.iter().map(Shadow::bytes).sum::<u64>()
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn validate(&self) {
        assert_eq!(self.bytes(), self.counted_bytes());
        for shadow in &self.each {
            shadow.queues.validate(&shadow.cells);
            assert!(shadow.len() <= shadow.entries_max && shadow.entries_max <= self.entries_max);
            let chained = (0..shadow.heads.len()).map(|at| shadow.chained(at).count()).sum::<usize>();
            assert_eq!(chained, shadow.len());
            assert!(shadow.cells.0.len() <= shadow.heads.len());
        }
    }
}

/// One setting on the sampled keys: cells, a chained hash table over them, and the queues.
#[derive(Debug)]
struct Shadow {
    queues: Queues,
    cells: Cells,
    /// As many as there is room for cells.
    heads: Vec<u16>,
    /// The first free cell; those after it are chained to it.
    free: u16,
    entries_max: usize,
}

impl Shadow {
    fn new(setting: Setting, entries_max: usize) -> Self {
        let (cells, heads) = (Cells(Vec::new()), Vec::new());
        Self { queues: Queues::new(setting), cells, heads, free: NONE, entries_max }
    }

    fn len(&self) -> usize {
        self.queues.len()
    }

    fn request(&mut self, tag: u32) -> bool {
        if let Some(slot) = self.find(tag) {
            Queues::hit(&mut self.cells, slot);
            return true;
        }
        self.shrink_to(self.entries_max - 1);
        let slot = self.free_cell();
        let bucket = self.bucket(tag);
        let head = &mut self.heads[bucket];
        self.cells.0[usize::from(slot)] = Cell { tag, chained: *head, ..Cell::default() };
        *head = slot;
        self.queues.insert(&mut self.cells, Slot::numbered(slot.into()), spread(tag));
        false
    }

    fn free_cell(&mut self) -> u16 {
        if self.free == NONE {
            if self.cells.0.len() == self.heads.len() {
                self.grow_to(self.heads.len() + CELLS_STEP);
            }
            self.cells.0.push(Cell::default());
            return (self.cells.0.len() - 1) as u16;
        }
        let slot = self.free;
        self.free = self.cells.0[usize::from(slot)].chained;
        slot
    }

    /// Cells for `entries` entries, and as many buckets.
    fn cells_for(entries: usize) -> usize {
        (entries + 1).next_multiple_of(CELLS_STEP)
    }

    fn grow_to(&mut self, cells: usize) {
        self.cells.0.reserve_exact(cells - self.cells.0.len());
        if self.cells.0.is_empty() {
            // The first cell is nobody's: 0 is no slot.
            self.cells.0.push(Cell::default());
        }
        let live: Vec<u16> = (0..self.heads.len()).flat_map(|at| self.chained(at)).collect();
        self.heads = vec![NONE; cells];
        for slot in live {
            let bucket = self.bucket(self.cells.0[usize::from(slot)].tag);
            self.cells.0[usize::from(slot)].chained = std::mem::replace(&mut self.heads[bucket], slot);
        }
    }

    /// The same entries, in the same order, under another setting, in no more cells than they need. Nothing has
    /// gone yet: all are in the window, and nothing is remembered.
    fn with(&self, setting: Setting) -> Self {
        let mut other = Self::new(setting, self.entries_max);
        other.grow_to(Self::cells_for(self.len()));
        for slot in self.queues.oldest_first(&self.cells) {
            other.request(self.cells.tag(slot));
            let copy = Slot::numbered((other.cells.0.len() - 1) as u32);
            other.cells.set_mark(copy, self.cells.mark(slot));
        }
        other
    }

    fn remove(&mut self, tag: u32) {
        if let Some(slot) = self.find(tag) {
            self.queues.remove(&mut self.cells, slot);
            self.release(slot);
        }
    }

    fn retain(&mut self, threshold: u32) {
        let tags: Vec<u32> = (0..self.heads.len())
            .flat_map(|at| self.chained(at))
            .map(|slot| self.cells.0[usize::from(slot)].tag)
            .filter(|tag| *tag > threshold)
            .collect();
        tags.into_iter().for_each(|tag| self.remove(tag));
    }

    fn clear(&mut self) {
        self.queues.clear();
        self.cells.0.truncate(1);
        self.heads.fill(NONE);
        self.free = NONE;
    }

    fn fit(&mut self, entries: usize, keys: usize) {
        self.entries_max = entries;
        if Self::cells_for(entries) > self.heads.len() {
            self.grow_to(Self::cells_for(entries));
        }
        if self.queues.remembered.misfits(entries) {
            self.queues.remembered.fit(entries, keys);
        }
        self.shrink_to(entries);
    }

    fn shrink_to(&mut self, entries: usize) {
        while self.len() > entries
            && let Some(slot) = self.queues.evict(&mut self.cells)
        {
            self.release(slot);
        }
    }

    /// The cells of a bucket.
    fn chained(&self, bucket: usize) -> impl Iterator<Item = u16> {
        let first = self.heads.get(bucket).copied();
        let next = |slot: &u16| Some(self.cells.0[usize::from(*slot)].chained);
        std::iter::successors(first, next).take_while(|slot| *slot != NONE)
    }

    fn find(&self, tag: u32) -> Option<Slot> {
        self.chained(self.bucket(tag))
            .map(|cell| Slot::numbered(cell.into()))
            .find(|slot| self.cells.tag(*slot) == tag)
    }

    /// Takes a cell that the queues let go out of its bucket.
    fn release(&mut self, slot: Slot) {
        let slot = slot.number() as u16;
        let Cell { tag, chained, .. } = self.cells.0[usize::from(slot)];
        let bucket = self.bucket(tag);
        let (mut before, mut at) = (NONE, self.heads[bucket]);
        while at != slot {
            (before, at) = (at, self.cells.0[usize::from(at)].chained);
        }
        match before {
            NONE => self.heads[bucket] = chained,
            before => self.cells.0[usize::from(before)].chained = chained,
        }
        self.cells.0[usize::from(slot)].chained = self.free;
        self.free = slot;
    }

    /// By other bits of the tag than those that the threshold cuts.
    fn bucket(&self, tag: u32) -> usize {
        let spread = tag.wrapping_mul(0x9E37_79B1);
        ((u64::from(spread) * self.heads.len() as u64) >> 32) as usize
    }

    fn bytes(&self) -> u64 {
        let cells = self.cells.0.capacity() * size_of::<Cell>() + size_of_val(self.heads.as_slice());
        cells as u64 + self.queues.remembered.bytes()
    }
}

/// A hash from a tag, again random in all bits.
fn spread(tag: u32) -> u64 {
    let hash = u64::from(tag).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    hash ^ hash >> 29
}

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    tag: u32,
    prev: u16,
    next: u16,
    chained: u16,
    mark: u8,
}

#[derive(Debug)]
struct Cells(Vec<Cell>);

impl Cells {
    fn tag(&self, slot: Slot) -> u32 {
        self.0[slot.index()].tag
    }
}

impl Slots for Cells {
    fn links(&self, slot: Slot) -> (Option<Slot>, Option<Slot>) {
        let cell = &self.0[slot.index()];
        (Slot::of_link(cell.prev.into()), Slot::of_link(cell.next.into()))
    }

    fn set_prev(&mut self, slot: Slot, prev: Option<Slot>) {
        self.0[slot.index()].prev = Slot::link_to(prev) as u16;
    }

    fn set_next(&mut self, slot: Slot, next: Option<Slot>) {
        self.0[slot.index()].next = Slot::link_to(next) as u16;
    }

    fn mark(&self, slot: Slot) -> u8 {
        self.0[slot.index()].mark
    }

    fn set_mark(&mut self, slot: Slot, mark: u8) {
        self.0[slot.index()].mark = mark;
    }

    fn weight(&self, _slot: Slot) -> u64 {
        1
    }

    fn hash(&self, slot: Slot) -> u64 {
        spread(self.tag(slot))
    }
}
