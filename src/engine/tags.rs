//! An entry's tags as its cell keeps them, and a filter that knows which tags a shard may have.
//!
//! Tags lie in the entry's own cell: they are charged to it and go with it, by whatever way it goes. There is no table of
//! tags that callers could make grow. An invalidation is one record in each shard that may have the tag, until the
//! sweep has been everywhere ([`super::shard`]); the filter is what spares the other shards that sweep.
//!
//! ```text
//! ┌───────────────────────┬────────┬───────┬────────┬───────┬──
//! │ bytes of what follows │ length │ name  │ length │ name  │ …
//! │ 2, little-endian      │ 1      │ 1–255 │ 1      │ 1–255 │
//! └───────────────────────┴────────┴───────┴────────┴───────┴──
//! ```
//!
//! The filter is Bloom's ("Space/time trade-offs in hash coding with allowable errors", CACM 1970) with two bits a tag
//! and a fixed size. Nothing is taken out of it: each round of the sweep makes it anew from the entries that it meets.

use std::hash::{BuildHasher, Hasher};

use crate::entry::TAG_BYTES_MAX;
pub(crate) use crate::entry::TAGS_MAX;

/// What stands before the names.
const LENGTH_BYTES: usize = 2;
/// The most bytes that an entry's tags take in its cell.
pub(crate) const PACKED_BYTES_MAX: usize = LENGTH_BYTES + TAGS_MAX * (1 + TAG_BYTES_MAX);

/// The tags of an entry as they lie in its cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PackedTags<'a>(&'a [u8]);

impl<'a> PackedTags<'a> {
    /// The tags that begin where `cell` does.
    pub(crate) fn at(cell: &'a [u8]) -> Self {
        Self(&cell[LENGTH_BYTES..LENGTH_BYTES + Self::names_bytes(cell)])
    }

    /// How many bytes the tags that begin where `cell` does take there.
    #[inline]
    pub(crate) fn bytes_at(cell: &[u8]) -> usize {
        LENGTH_BYTES + Self::names_bytes(cell)
    }

    /// The same from [`Self::to_vec`].
    pub(crate) fn of(names: &'a [u8]) -> Self {
        Self(names)
    }

    pub(crate) fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }

    pub(crate) fn names(self) -> impl Iterator<Item = &'a str> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first()?;
            let (name, after) = after.split_at(usize::from(*length));
            rest = after;
            Some(std::str::from_utf8(name).expect("a tag was text when it was stored"))
        })
    }

    fn names_bytes(cell: &[u8]) -> usize {
        usize::from(u16::from_le_bytes([cell[0], cell[1]]))
    }
}

/// The tags of an entry that is to be stored: as the caller names them, or as they lay in the cell before.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DraftTags<'a> {
    /// At most [`TAGS_MAX`] names of at most [`TAG_BYTES_MAX`] bytes; a repeated one counts once.
    Named(&'a [&'a str]),
    Packed(PackedTags<'a>),
}

impl DraftTags<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Named(names) => names.is_empty(),
            Self::Packed(tags) => tags.0.is_empty(),
        }
    }

    /// The bytes that they take in a cell; none, where there are none.
    pub(crate) fn packed_bytes(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        let names = match self {
            Self::Named(names) => distinct(names).map(|name| 1 + name.len()).sum(),
            Self::Packed(tags) => tags.0.len(),
        };
        LENGTH_BYTES + names
    }

    /// Writes them where `cell` begins; how many bytes that took.
    pub(crate) fn pack(&self, cell: &mut [u8]) -> usize {
        let bytes = self.packed_bytes();
        if bytes == 0 {
            return 0;
        }
        let (length, mut rest) = cell[..bytes].split_at_mut(LENGTH_BYTES);
        length.copy_from_slice(&((bytes - LENGTH_BYTES) as u16).to_le_bytes());
        match self {
            Self::Named(names) => {
                for name in distinct(names) {
                    let (packed, after) = rest.split_at_mut(1 + name.len());
                    packed[0] = u8::try_from(name.len()).expect("a tag has at most 255 bytes");
                    packed[1..].copy_from_slice(name.as_bytes());
                    rest = after;
                }
            }
            Self::Packed(tags) => rest.copy_from_slice(tags.0),
        }
        bytes
    }
}

/// The names without those that stand before already.
fn distinct<'a>(names: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let is_first = |(index, name): &(usize, &&str)| !names[..*index].contains(name);
    names.iter().enumerate().filter(is_first).map(|(_, name)| *name)
}

/// Which tags a shard may have.
#[derive(Debug)]
pub(crate) struct TagFilter {
    /// Made when the first tag comes.
    bits: Box<[u64]>,
    /// What the round of the sweep that is under way has met, and what came since it began.
    next: Box<[u64]>,
    words: usize,
    is_in_round: bool,
    hasher: foldhash::quality::RandomState,
}

/// A filter takes this part of its shard's limit, the half for the next round included, …
const FILTER_PART: u64 = 256;
/// … within these bounds, in words of 8 bytes for each half.
const WORDS: std::ops::RangeInclusive<usize> = 64..=8_192;

impl TagFilter {
    /// For a shard of this limit in bytes.
    pub(crate) fn new(bytes_limit: u64) -> Self {
        let (bits, next) = (Box::default(), Box::default());
        let (words, hasher) = (words_for(bytes_limit), foldhash::quality::RandomState::default());
        Self { bits, next, words, is_in_round: false, hasher }
    }

    /// The shard has another limit. Whether the sweep should go round, so that the filter gets smaller; once it is made,
    /// it never gets larger.
    pub(crate) fn resize(&mut self, bytes_limit: u64) -> bool {
        let words = words_for(bytes_limit);
        let is_made = !self.bits.is_empty();
        self.words = if is_made { words.min(self.words) } else { words };
        is_made && self.bits.len() != self.words
    }

    /// Takes the memory that the first tag needs; whether it did.
    pub(crate) fn make(&mut self) -> bool {
        let is_first = self.bits.is_empty();
        if is_first {
            self.bits = vec![0; self.words].into_boxed_slice();
            self.next = self.bits.clone();
        }
        is_first
    }

    pub(crate) fn insert(&mut self, namespace: u16, name: &str) {
        let hash = self.hash(namespace, name);
        mark(&mut self.bits, hash);
        if self.is_in_round {
            self.meet(namespace, name);
        }
    }

    /// An entry that bears the tag was met in the round of the sweep that is under way.
    pub(crate) fn meet(&mut self, namespace: u16, name: &str) {
        let hash = self.hash(namespace, name);
        mark(&mut self.next, hash);
    }

    /// Whether an entry may bear the tag; false: none does.
    pub(crate) fn may_have(&self, namespace: u16, name: &str) -> bool {
        let is_marked = |(word, bit): (usize, u64)| self.bits[word] & bit != 0;
        !self.bits.is_empty()
            && places(self.bits.len(), self.hash(namespace, name)).into_iter().all(is_marked)
    }

    /// Whether there is one: from the first tag on.
    pub(crate) fn is_made(&self) -> bool {
        !self.bits.is_empty()
    }

    /// The sweep begins to go round.
    pub(crate) fn begin_round(&mut self) {
        if self.bits.is_empty() {
            return;
        }
        if self.next.len() == self.words {
            self.next.fill(0);
        } else {
            self.next = vec![0; self.words].into_boxed_slice();
        }
        self.is_in_round = true;
    }

    /// It has met every entry.
    pub(crate) fn end_round(&mut self) {
        if std::mem::take(&mut self.is_in_round) {
            std::mem::swap(&mut self.bits, &mut self.next);
            if self.next.len() != self.bits.len() {
                self.next = self.bits.clone();
            }
        }
    }

    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        ((self.bits.len() + self.next.len()) * size_of::<u64>()) as u64
    }

    fn hash(&self, namespace: u16, name: &str) -> u64 {
        let mut state = self.hasher.build_hasher();
        state.write_u16(namespace);
        state.write(name.as_bytes());
        state.finish()
    }
}

fn words_for(bytes_limit: u64) -> usize {
    let words = bytes_limit / FILTER_PART / 2 / size_of::<u64>() as u64;
    (words as usize).clamp(*WORDS.start(), *WORDS.end())
}

/// A tag's two bits in a table of `words` words: each as its word and the bit in it.
fn places(words: usize, hash: u64) -> [(usize, u64); 2] {
    let bits = words as u64 * u64::from(u64::BITS);
    [hash >> 32, hash & u64::from(u32::MAX)].map(|half| {
        let bit = (half * bits) >> 32;
        ((bit / u64::from(u64::BITS)) as usize, 1 << (bit % u64::from(u64::BITS)))
    })
}

fn mark(table: &mut [u64], hash: u64) {
    places(table.len(), hash).into_iter().for_each(|(word, bit)| table[word] |= bit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_out_of_a_cell_as_they_went_in_and_a_repeated_one_once() {
        let longest = "x".repeat(TAG_BYTES_MAX);
        for names in [&["a", "bb", "a", "\u{00fc}"][..], &["one"], &[longest.as_str(); 3]] {
            let draft = DraftTags::Named(names);
            let mut cell = vec![0xee; draft.packed_bytes() + 5];
            assert_eq!(draft.pack(&mut cell), draft.packed_bytes());
            let packed = PackedTags::at(&cell);
            assert_eq!(PackedTags::bytes_at(&cell), draft.packed_bytes());
            assert!(packed.names().eq(distinct(names)), "{names:?}");
            let kept = packed.to_vec();
            let again = DraftTags::Packed(PackedTags::of(&kept));
            let mut copy = vec![0xee; cell.len()];
            again.pack(&mut copy);
            assert_eq!(copy, cell);
        }
        assert_eq!(DraftTags::Named(&[]).packed_bytes(), 0);
        assert_eq!(DraftTags::Packed(PackedTags::default()).pack(&mut []), 0);
        let names: Vec<String> = (0..TAGS_MAX).map(|n| format!("{n:0255}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(DraftTags::Named(&names).packed_bytes(), PACKED_BYTES_MAX);
    }

    #[test]
    fn a_filter_misses_no_tag_and_forgets_in_a_round_what_is_not_met() {
        let mut filter = TagFilter::new(8 << 20);
        assert!(!filter.may_have(0, "a") && filter.bytes() == 0);
        assert!(filter.make() && !filter.make());
        let names: Vec<String> = (0..4_000).map(|n| format!("tag-{n}")).collect();
        names.iter().for_each(|name| filter.insert(7, name));
        assert!(names.iter().all(|name| filter.may_have(7, name)));
        let strangers = names.iter().filter(|name| filter.may_have(8, name)).count();
        assert!(strangers < 100, "{strangers} of 4000 tags of another namespace pass");
        filter.begin_round();
        filter.meet(7, &names[0]);
        filter.insert(7, "new");
        assert!(filter.may_have(7, &names[1]), "until the round ends everything may be there");
        filter.end_round();
        assert!(filter.may_have(7, &names[0]) && filter.may_have(7, "new"));
        let left = names.iter().filter(|name| filter.may_have(7, name)).count();
        assert!(left < 10, "{left} of 4000 tags pass after they have gone");
        assert_eq!(filter.bytes(), 2 * 8 * filter.words as u64);
        assert!(!filter.resize(16 << 20) && filter.resize(1 << 20));
        filter.insert(7, "newer");
        filter.begin_round();
        filter.meet(7, "new");
        assert!(filter.may_have(7, "new") && filter.may_have(7, "newer"));
        filter.end_round();
        assert!(filter.may_have(7, "new") && filter.bytes() == 4 << 10, "{}", filter.bytes());
    }
}
