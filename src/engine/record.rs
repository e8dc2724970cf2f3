//! How an entry lies in its cell, and the shard's records as the policies and the timer wheel see them.
//!
//! ```text
//! offset 0        8        12       16                20      21     22      24
//! ┌──────────────┬────────┬────────┬─────────────────┬───────┬──────┬───────┬──────────────────────
//! │ version      │ prev   │ next   │ key length (13) │ attri-│ mark │ ring  │ [expiry] [flags]
//! │ 8            │ 4      │ 4      │ value length(19)│ butes │      │ tenure│ [content type] key value
//! └──────────────┴────────┴────────┴─────────────────┴───────┴──────┴───────┴──────────────────────
//!   expiry, if it has one:   wheel prev 4, wheel next 4, deadline 4 (or 8 where it is > 49 days off)
//!   flags, if not 0:         4
//!   namespace, if not the default one: its number, 2
//!   tags, if any:            as `tags.rs` shows
//!   content type, if any:    length 1, text
//!   value:                   its bytes, or 4 bytes that name an allocation of its own if it is large
//! ```
//!
//! All little-endian, in memory only. `prev`, `next` and `mark` belong to the eviction policy. `ring
//! tenure` is reserved, and unused until the ring exists. The lengths' word is never 0 in a live cell: a key has a byte.

use bytes::Bytes;

use super::arena::{Arena, CELL_BYTES_MAX, LIVE_WORD};
use super::eviction::Slots;
use super::op::{EntryView, Tier, ValueView};
use super::prefetch::prefetch_bytes;
use super::slot::Slot;
use super::tags::{DraftTags, PACKED_BYTES_MAX, PackedTags};
use crate::entry::{CONTENT_TYPE_BYTES_MAX, Expiry, KEY_BYTES_MAX, Version};

/// The in-memory hash: seeded at random in each process, never on disk or the wire.
pub(crate) type KeyHasher = foldhash::quality::RandomState;
/// Values above this get an allocation of their own and are handed out by reference.
pub(crate) const INLINE_VALUE_BYTES_MAX: usize = 4_096;
const HEADER: usize = 24;
/// A header with expiry, flags and namespace.
const HEADER_MAX: usize = HEADER + 16 + 4 + 2;
const VERSION: usize = 0;
const PREV: usize = 8;
const NEXT: usize = 12;
const LENGTHS: usize = LIVE_WORD;
const ATTRIBUTES: usize = 20;
const MARK: usize = 21;
const WHEEL_PREV: usize = 24;
const WHEEL_NEXT: usize = 28;
const DEADLINE: usize = 32;
const KEY_LENGTH_BITS: u32 = 13;

const EXPIRES: u8 = 1;
const FAR_DEADLINE: u8 = 2;
const FLAGS: u8 = 4;
const CONTENT_TYPE: u8 = 8;
const LARGE: u8 = 16;
const NAMESPACED: u8 = 32;
/// Which of two policies owns the entry while one hands over to the other.
const HANDED_OVER: u8 = 64;
const TAGGED: u8 = 128;

/// When an entry expires, as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// Never.
    None,
    /// At this many ms of engine time, of which the low 32 bits are kept: the wheel knows the rest.
    Near(u64),
    /// At this many ms of engine time.
    Far(u64),
}

/// What an entry is made of, before it has a cell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordDraft<'a> {
    pub namespace: u16,
    pub key: &'a [u8],
    pub value: DraftValue<'a>,
    pub version: Version,
    pub deadline: Deadline,
    pub flags: u32,
    pub content_type: &'a str,
    pub tags: DraftTags<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum DraftValue<'a> {
    Inline(&'a [u8]),
    Large(&'a Bytes),
}

impl RecordDraft<'_> {
    fn attributes(&self) -> u8 {
        let expiry = match self.deadline {
            Deadline::None => 0,
            Deadline::Near(_) => EXPIRES,
            Deadline::Far(_) => EXPIRES | FAR_DEADLINE,
        };
        let flags = if self.flags == 0 { 0 } else { FLAGS };
        let content_type = if self.content_type.is_empty() { 0 } else { CONTENT_TYPE };
        let large = if matches!(self.value, DraftValue::Large(_)) { LARGE } else { 0 };
        let namespaced = if self.namespace == 0 { 0 } else { NAMESPACED };
        let tagged = if self.tags.is_empty() { 0 } else { TAGGED };
        expiry | flags | content_type | large | namespaced | tagged
    }

    /// The bytes that its cell must have.
    pub(crate) fn cell_bytes(&self) -> usize {
        let content_type = if self.content_type.is_empty() { 0 } else { 1 + self.content_type.len() };
        let value = match self.value {
            DraftValue::Inline(value) => value.len(),
            DraftValue::Large(_) => 4,
        };
        let attributes = self.attributes();
        (tags_at(attributes) + self.tags.packed_bytes() + content_type + self.key.len() + value).max(32)
    }

    /// The bytes that it takes beside its cell.
    pub(crate) fn large_bytes(&self) -> u64 {
        match self.value {
            DraftValue::Inline(_) => 0,
            DraftValue::Large(value) => large_cost(value.len()),
        }
    }
}

/// An entry without its value, at most.
const REST_BYTES_MAX: usize = HEADER_MAX + 1 + CONTENT_TYPE_BYTES_MAX + KEY_BYTES_MAX;
/// The longest value that is a counter: `i64::MIN`.
const COUNTER_BYTES_MAX: usize = 20;

const _: () = assert!(
    CELL_BYTES_MAX >= REST_BYTES_MAX + INLINE_VALUE_BYTES_MAX
        && CELL_BYTES_MAX >= REST_BYTES_MAX + PACKED_BYTES_MAX + COUNTER_BYTES_MAX,
    "the largest cell holds the longest inline value without tags, and the longest counter with all tags"
);

/// Whether a value gets an allocation of its own: it is long, or no cell would hold it beside the rest of its entry.
#[inline]
pub(crate) fn is_large(value: &[u8], key: &[u8], content_type: &str, tags: &[&str]) -> bool {
    let beside = || {
        let tags = DraftTags::Named(tags).packed_bytes();
        HEADER_MAX + 1 + content_type.len() + key.len() + tags
    };
    value.len() > INLINE_VALUE_BYTES_MAX || !tags.is_empty() && beside() + value.len() > CELL_BYTES_MAX
}

/// What an allocation of `bytes` takes, as jemalloc rounds it (to a quarter of the power of two below; from 16 KiB on
/// there is a page more), with the handle's own bytes.
fn large_cost(bytes: usize) -> u64 {
    let step = (1usize << bytes.saturating_sub(1).max(8).ilog2()) / 4;
    let rounded = bytes.next_multiple_of(step);
    let page = if rounded >= 16 << 10 { 4 << 10 } else { 0 };
    (rounded + page + size_of::<Option<Bytes>>() + 32) as u64
}

const fn flags_at(attributes: u8) -> usize {
    match attributes & (EXPIRES | FAR_DEADLINE) {
        0 => HEADER,
        EXPIRES => HEADER + 12,
        _ => HEADER + 16,
    }
}

const fn namespace_at(attributes: u8) -> usize {
    flags_at(attributes) + if attributes & FLAGS == 0 { 0 } else { 4 }
}

/// By the attributes.
const TAGS_AT: [u8; 256] = {
    let mut places = [0; 256];
    let mut attributes = 0;
    while attributes < 256 {
        let namespace = if attributes as u8 & NAMESPACED == 0 { 0 } else { 2 };
        places[attributes] = (namespace_at(attributes as u8) + namespace) as u8;
        attributes += 1;
    }
    places
};

#[inline]
fn tags_at(attributes: u8) -> usize {
    usize::from(TAGS_AT[usize::from(attributes)])
}

/// Cells, and the values that are too large for them.
#[derive(Debug)]
pub(crate) struct Records {
    pub arena: Arena,
    large: Vec<Option<Bytes>>,
    large_free: Vec<u32>,
    large_bytes: u64,
    /// Hashes a key as the shard's index does.
    hasher: KeyHasher,
}

#[inline]
fn u32_at(cell: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(cell[at..at + 4].try_into().expect("four bytes"))
}

#[inline]
fn u64_at(cell: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(cell[at..at + 8].try_into().expect("eight bytes"))
}

#[inline]
fn put_u32(cell: &mut [u8], at: usize, value: u32) {
    cell[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[inline]
fn put_u64(cell: &mut [u8], at: usize, value: u64) {
    cell[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Where the parts of a cell begin.
struct Parts {
    content_type: usize,
    key: usize,
    value: usize,
    value_len: usize,
}

#[inline]
fn parts(cell: &[u8]) -> Parts {
    let attributes = cell[ATTRIBUTES];
    let lengths = u32_at(cell, LENGTHS);
    let tags = tags_at(attributes);
    let (mut content_type, mut key) = (tags, tags);
    if attributes & (TAGGED | CONTENT_TYPE) != 0 {
        content_type = tags + if attributes & TAGGED == 0 { 0 } else { PackedTags::bytes_at(&cell[tags..]) };
        let text = if attributes & CONTENT_TYPE == 0 { 0 } else { 1 + usize::from(cell[content_type]) };
        key = content_type + text;
    }
    let value = key + (lengths & ((1 << KEY_LENGTH_BITS) - 1)) as usize;
    Parts { content_type, key, value, value_len: (lengths >> KEY_LENGTH_BITS) as usize }
}

impl Records {
    pub(crate) fn new(hasher: KeyHasher) -> Self {
        Self { arena: Arena::new(), large: Vec::new(), large_free: Vec::new(), large_bytes: 0, hasher }
    }

    /// What pages and large values take together.
    #[inline]
    pub(crate) fn held_bytes(&self) -> u64 {
        self.arena.held_bytes() + self.large_bytes
    }

    /// What large values take.
    pub(crate) fn large_bytes(&self) -> u64 {
        self.large_bytes
    }

    /// Writes a draft into a cell just taken, with no neighbours, no mark and no wheel slot.
    pub(crate) fn write(&mut self, slot: Slot, draft: &RecordDraft<'_>) {
        let cell = self.arena.cell_mut(slot);
        cell[PREV..HEADER].fill(0);
        self.overwrite(slot, draft);
    }

    /// Writes a draft over a live entry whose large value was released, if it had one; what belongs to the
    /// policy stays.
    pub(crate) fn overwrite(&mut self, slot: Slot, draft: &RecordDraft<'_>) {
        let (value_len, handle) = match draft.value {
            DraftValue::Inline(value) => (value.len(), [0; 4]),
            DraftValue::Large(value) => (4, self.keep_large(value).to_le_bytes()),
        };
        let value: &[u8] = match &draft.value {
            DraftValue::Inline(value) => value,
            DraftValue::Large(_) => &handle,
        };
        let attributes = draft.attributes();
        let cell = self.arena.cell_mut(slot);
        put_u64(cell, VERSION, draft.version.0);
        put_u32(cell, LENGTHS, draft.key.len() as u32 | (value_len as u32) << KEY_LENGTH_BITS);
        cell[ATTRIBUTES] = attributes | cell[ATTRIBUTES] & HANDED_OVER;
        match draft.deadline {
            Deadline::None => {}
            Deadline::Near(at) => put_u32(cell, DEADLINE, at as u32),
            Deadline::Far(at) => put_u64(cell, DEADLINE, at),
        }
        let mut at = flags_at(attributes);
        if draft.flags != 0 {
            put_u32(cell, at, draft.flags);
            at += 4;
        }
        if draft.namespace != 0 {
            cell[at..at + 2].copy_from_slice(&draft.namespace.to_le_bytes());
            at += 2;
        }
        at += draft.tags.pack(&mut cell[at..]);
        if !draft.content_type.is_empty() {
            cell[at] = draft.content_type.len() as u8;
            cell[at + 1..at + 1 + draft.content_type.len()].copy_from_slice(draft.content_type.as_bytes());
            at += 1 + draft.content_type.len();
        }
        cell[at..at + draft.key.len()].copy_from_slice(draft.key);
        at += draft.key.len();
        cell[at..at + value.len()].copy_from_slice(value);
    }

    /// Lets go of the entry's large value, if it has one. The cell is then to be freed or overwritten.
    pub(crate) fn release_large(&mut self, slot: Slot) {
        let cell = self.arena.cell(slot);
        if cell[ATTRIBUTES] & LARGE != 0 {
            let handle = u32_at(cell, parts(cell).value);
            let value = self.large[handle as usize].take().expect("a handle names a value that is kept");
            self.large_bytes -= large_cost(value.len());
            self.large_free.push(handle);
        }
    }

    fn keep_large(&mut self, value: &Bytes) -> u32 {
        self.large_bytes += large_cost(value.len());
        let handle = self.large_free.pop().unwrap_or_else(|| {
            self.large.push(None);
            (self.large.len() - 1) as u32
        });
        self.large[handle as usize] = Some(value.clone());
        handle
    }

    #[inline]
    pub(crate) fn key(&self, slot: Slot) -> &[u8] {
        let cell = self.arena.cell(slot);
        let parts = parts(cell);
        &cell[parts.key..parts.value]
    }

    /// Whether this is the entry of this key.
    #[inline]
    pub(crate) fn is(&self, slot: Slot, namespace: u16, key: &[u8]) -> bool {
        let cell = self.arena.cell(slot);
        let parts = parts(cell);
        equal(&cell[parts.key..parts.value], key) && namespace_in(cell) == namespace
    }

    /// The number of the entry's namespace.
    #[inline]
    pub(crate) fn namespace(&self, slot: Slot) -> u16 {
        namespace_in(self.arena.cell(slot))
    }

    pub(crate) fn tags(&self, slot: Slot) -> PackedTags<'_> {
        let cell = self.arena.cell(slot);
        let attributes = cell[ATTRIBUTES];
        if attributes & TAGGED == 0 {
            return PackedTags::default();
        }
        PackedTags::at(&cell[tags_at(attributes)..])
    }

    /// Asks for the memory of an entry.
    #[inline]
    pub(crate) fn prefetch(&self, slot: Slot) {
        prefetch_bytes(self.arena.cell(slot));
    }

    pub(crate) fn version(&self, slot: Slot) -> Version {
        Version(u64_at(self.arena.cell(slot), VERSION))
    }

    /// The entry as callers see it; `base_ms` is the wheel's.
    #[inline]
    pub(crate) fn view(&self, slot: Slot, base_ms: u64, now_ms: u64) -> EntryView<'_> {
        let cell = self.arena.cell(slot);
        let parts = parts(cell);
        let attributes = cell[ATTRIBUTES];
        let stored = &cell[parts.value..parts.value + parts.value_len];
        let value = if attributes & LARGE == 0 {
            ValueView::Inline(stored)
        } else {
            let kept = self.large[u32_at(stored, 0) as usize].as_ref();
            ValueView::Shared(kept.expect("a handle names a value that is kept"))
        };
        let content_type = &cell[parts.content_type..parts.key];
        EntryView {
            value,
            version: Version(u64_at(cell, VERSION)),
            remaining_ttl_ms: match expiry_in(cell, base_ms) {
                Expiry::Never => 0,
                Expiry::AtMs(at) => at.saturating_sub(now_ms),
            },
            flags: if attributes & FLAGS == 0 { 0 } else { u32_at(cell, flags_at(attributes)) },
            content_type: content_type.get(1..).map_or("", |text| {
                std::str::from_utf8(text).expect("a content type was text when it was stored")
            }),
            tier: Tier::Memory,
        }
    }

    #[inline]
    pub(crate) fn expires(&self, slot: Slot) -> bool {
        self.arena.cell(slot)[ATTRIBUTES] & EXPIRES != 0
    }

    /// When it expires; a near deadline is put together with `base_ms`, which no live deadline precedes.
    #[inline]
    pub(crate) fn expiry(&self, slot: Slot, base_ms: u64) -> Expiry {
        expiry_in(self.arena.cell(slot), base_ms)
    }

    /// Whether the entry's cell has the room that this deadline needs, no more and no less.
    pub(crate) fn takes(&self, slot: Slot, deadline: Deadline) -> bool {
        match self.arena.cell(slot)[ATTRIBUTES] & (EXPIRES | FAR_DEADLINE) {
            0 => deadline == Deadline::None,
            EXPIRES => matches!(deadline, Deadline::Near(_)),
            _ => deadline != Deadline::None,
        }
    }

    /// Writes a new deadline into an entry that takes it.
    pub(crate) fn set_deadline(&mut self, slot: Slot, deadline: Deadline) {
        let cell = self.arena.cell_mut(slot);
        match deadline {
            Deadline::None => {}
            Deadline::Near(at) if cell[ATTRIBUTES] & FAR_DEADLINE == 0 => put_u32(cell, DEADLINE, at as u32),
            Deadline::Near(at) | Deadline::Far(at) => put_u64(cell, DEADLINE, at),
        }
    }

    /// What the wheel keeps of its slot or of the entry before, and the entry after.
    pub(crate) fn wheel_links(&self, slot: Slot) -> (u32, Option<Slot>) {
        let cell = self.arena.cell(slot);
        (u32_at(cell, WHEEL_PREV), Slot::of_link(u32_at(cell, WHEEL_NEXT)))
    }

    pub(crate) fn set_wheel_prev(&mut self, slot: Slot, prev: u32) {
        put_u32(self.arena.cell_mut(slot), WHEEL_PREV, prev);
    }

    pub(crate) fn set_wheel_next(&mut self, slot: Slot, next: Option<Slot>) {
        put_u32(self.arena.cell_mut(slot), WHEEL_NEXT, Slot::link_to(next));
    }

    /// Whether the entry belongs to the policy that is taking over (or to the only one).
    #[inline]
    pub(crate) fn handed_over(&self, slot: Slot) -> bool {
        self.arena.cell(slot)[ATTRIBUTES] & HANDED_OVER != 0
    }

    #[inline]
    pub(crate) fn set_handed_over(&mut self, slot: Slot, handed_over: bool) {
        let attributes = &mut self.arena.cell_mut(slot)[ATTRIBUTES];
        *attributes = if handed_over { *attributes | HANDED_OVER } else { *attributes & !HANDED_OVER };
    }

    /// Copies an entry's cell into another, which is at least as large.
    pub(crate) fn copy(&mut self, from: Slot, to: Slot) {
        let mut buffer = [0u8; CELL_BYTES_MAX];
        let bytes = self.arena.cell_size(from).min(self.arena.cell_size(to));
        buffer[..bytes].copy_from_slice(&self.arena.cell(from)[..bytes]);
        self.arena.cell_mut(to)[..bytes].copy_from_slice(&buffer[..bytes]);
    }

    /// Copies what belongs to the policy from one cell to another.
    pub(crate) fn copy_standing(&mut self, from: Slot, to: Slot) {
        let (prev, next) = self.links(from);
        let (mark, handed_over) = (self.mark(from), self.handed_over(from));
        self.set_prev(to, prev);
        self.set_next(to, next);
        self.set_mark(to, mark);
        self.set_handed_over(to, handed_over);
    }

    #[cfg(any(test, debug_assertions))]
    pub(crate) fn validate(&self) {
        self.arena.validate();
        let kept: u64 = self.large.iter().flatten().map(|value| large_cost(value.len())).sum();
        assert_eq!(kept, self.large_bytes);
        let owners = self.arena.live().filter(|slot| self.arena.cell(*slot)[ATTRIBUTES] & LARGE != 0).count();
        assert_eq!(owners, self.large.iter().flatten().count(), "a large value without an entry");
    }
}

/// Keys are short, and most are equal when they are compared: eight bytes at a time, without a call.
#[inline]
fn equal(mut one: &[u8], mut other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    while let (Some((a, rest_of_one)), Some((b, rest_of_other))) =
        (one.split_first_chunk::<8>(), other.split_first_chunk::<8>())
    {
        if a != b {
            return false;
        }
        (one, other) = (rest_of_one, rest_of_other);
    }
    one.iter().eq(other)
}

#[inline]
fn expiry_in(cell: &[u8], base_ms: u64) -> Expiry {
    match cell[ATTRIBUTES] & (EXPIRES | FAR_DEADLINE) {
        0 => Expiry::Never,
        EXPIRES => Expiry::AtMs(base_ms + u64::from(u32_at(cell, DEADLINE).wrapping_sub(base_ms as u32))),
        _ => Expiry::AtMs(u64_at(cell, DEADLINE)),
    }
}

#[inline]
fn namespace_in(cell: &[u8]) -> u16 {
    let attributes = cell[ATTRIBUTES];
    if attributes & NAMESPACED == 0 {
        return 0;
    }
    let at = namespace_at(attributes);
    u16::from_le_bytes([cell[at], cell[at + 1]])
}

/// The engine's hash of a key: seeded afresh in each process, never on disk or the wire.
#[inline]
pub(crate) fn hash_key(hasher: &KeyHasher, namespace: u16, key: &[u8]) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut state = hasher.build_hasher();
    if namespace != 0 {
        state.write_u16(namespace);
    }
    state.write(key);
    state.finish()
}

impl Slots for Records {
    #[inline]
    fn prefetch(&self, slot: Slot) {
        Self::prefetch(self, slot);
    }

    #[inline]
    fn links(&self, slot: Slot) -> (Option<Slot>, Option<Slot>) {
        let cell = self.arena.cell(slot);
        (Slot::of_link(u32_at(cell, PREV)), Slot::of_link(u32_at(cell, NEXT)))
    }

    #[inline]
    fn set_prev(&mut self, slot: Slot, prev: Option<Slot>) {
        put_u32(self.arena.cell_mut(slot), PREV, Slot::link_to(prev));
    }

    #[inline]
    fn set_next(&mut self, slot: Slot, next: Option<Slot>) {
        put_u32(self.arena.cell_mut(slot), NEXT, Slot::link_to(next));
    }

    #[inline]
    fn mark(&self, slot: Slot) -> u8 {
        self.arena.cell(slot)[MARK]
    }

    #[inline]
    fn set_mark(&mut self, slot: Slot, mark: u8) {
        self.arena.cell_mut(slot)[MARK] = mark;
    }

    #[inline]
    fn weight(&self, slot: Slot) -> u64 {
        let cell = self.arena.cell(slot);
        let large = if cell[ATTRIBUTES] & LARGE == 0 { 0 } else { self.view_large_cost(cell) };
        cell.len() as u64 + large
    }

    fn hash(&self, slot: Slot) -> u64 {
        hash_key(&self.hasher, self.namespace(slot), self.key(slot))
    }
}

impl Records {
    fn view_large_cost(&self, cell: &[u8]) -> u64 {
        let handle = u32_at(cell, parts(cell).value);
        self.large[handle as usize].as_ref().map_or(0, |value| large_cost(value.len()))
    }
}
