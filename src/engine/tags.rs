//! A shard's tags: each name is kept once, however many entries bear it, and entries bear its number.
//!
//! Invalidating a tag writes down one version; an entry that bears the tag and is older is dead. A tag is forgotten
//! with the last entry that bears it.

use std::hash::{BuildHasher, Hasher};

use hashbrown::HashTable;

pub(crate) use crate::entry::TAGS_MAX;
use crate::entry::Version;

/// The numbers of an entry's tags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TagNumbers {
    numbers: [u32; TAGS_MAX],
    len: u8,
}

impl TagNumbers {
    pub(crate) fn as_slice(&self) -> &[u32] {
        &self.numbers[..usize::from(self.len)]
    }

    pub(crate) fn push(&mut self, number: u32) {
        self.numbers[usize::from(self.len)] = number;
        self.len += 1;
    }
}

#[derive(Debug)]
struct Tag {
    namespace: u16,
    name: Box<str>,
    entries: u32,
    /// Entries of this version and older are dead.
    dead_until: Version,
}

/// The tags of a shard's entries.
#[derive(Debug)]
pub(crate) struct Tags {
    by_name: HashTable<u32>,
    tags: Vec<Option<Tag>>,
    free: Vec<u32>,
    name_bytes: usize,
    hasher: foldhash::quality::RandomState,
}

impl Tags {
    pub(crate) fn new() -> Self {
        Self {
            by_name: HashTable::new(),
            tags: Vec::new(),
            free: Vec::new(),
            name_bytes: 0,
            hasher: foldhash::quality::RandomState::default(),
        }
    }

    /// Counts an entry more for each of these tags of a namespace; a repeated one counts once.
    #[inline]
    pub(crate) fn take(&mut self, namespace: u16, names: &[&str]) -> TagNumbers {
        let mut taken = TagNumbers::default();
        for (index, name) in names.iter().enumerate() {
            if !names[..index].contains(name) {
                taken.push(self.take_one(namespace, name));
            }
        }
        taken
    }

    /// Counts an entry more for each of these.
    pub(crate) fn retain(&mut self, numbers: &TagNumbers) {
        for number in numbers.as_slice() {
            self.tag_mut(*number).entries += 1;
        }
    }

    /// Counts an entry less for each of these.
    pub(crate) fn release(&mut self, numbers: &TagNumbers) {
        for number in numbers.as_slice() {
            let tag = self.tag_mut(*number);
            tag.entries -= 1;
            if tag.entries > 0 {
                continue;
            }
            let hash = hash(&self.hasher, self.tag(*number).namespace, &self.tag(*number).name);
            let found = self.by_name.find_entry(hash, |other| other == number);
            found.expect("a tag is found by its name").remove();
            let tag = self.tags[*number as usize].take().expect("the tag was there");
            self.name_bytes -= tag.name.len();
            self.free.push(*number);
        }
    }

    /// Lets all entries die that bear the tag and are not newer. False: none bears it.
    pub(crate) fn kill(&mut self, namespace: u16, name: &str, until: Version) -> bool {
        let found = self.find(namespace, name);
        if let Some(number) = found {
            self.tag_mut(number).dead_until = until;
        }
        found.is_some()
    }

    /// Whether one of these tags was invalidated after an entry of this version was set.
    pub(crate) fn are_dead(&self, numbers: &TagNumbers, version: Version) -> bool {
        numbers.as_slice().iter().any(|number| version <= self.tag(*number).dead_until)
    }

    pub(crate) fn names(&self, numbers: &TagNumbers) -> Vec<String> {
        numbers.as_slice().iter().map(|number| self.tag(*number).name.to_string()).collect()
    }

    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        let tables = self.by_name.allocation_size()
            + self.tags.capacity() * size_of::<Option<Tag>>()
            + self.free.capacity() * size_of::<u32>();
        (tables + self.name_bytes) as u64
    }

    fn take_one(&mut self, namespace: u16, name: &str) -> u32 {
        if let Some(number) = self.find(namespace, name) {
            self.tag_mut(number).entries += 1;
            return number;
        }
        let tag = Tag { namespace, name: name.into(), entries: 1, dead_until: Version::NONE };
        self.name_bytes += name.len();
        let number = self.free.pop().unwrap_or_else(|| {
            self.tags.push(None);
            (self.tags.len() - 1) as u32
        });
        self.tags[number as usize] = Some(tag);
        let (hasher, tags) = (&self.hasher, &self.tags);
        self.by_name.insert_unique(hash(hasher, namespace, name), number, |number| {
            let tag = tags[*number as usize].as_ref().expect("a number that is listed is in use");
            hash(hasher, tag.namespace, &tag.name)
        });
        number
    }

    fn find(&self, namespace: u16, name: &str) -> Option<u32> {
        let is = |number: &u32| {
            let tag = self.tag(*number);
            tag.namespace == namespace && *tag.name == *name
        };
        self.by_name.find(hash(&self.hasher, namespace, name), is).copied()
    }

    fn tag(&self, number: u32) -> &Tag {
        self.tags[number as usize].as_ref().expect("an entry bears tags that exist")
    }

    fn tag_mut(&mut self, number: u32) -> &mut Tag {
        self.tags[number as usize].as_mut().expect("an entry bears tags that exist")
    }

    /// Checks that each tag is borne by as many entries as it says.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn validate(&self, borne: impl Iterator<Item = TagNumbers>) {
        let mut counts = vec![0; self.tags.len()];
        for numbers in borne {
            numbers.as_slice().iter().for_each(|number| counts[*number as usize] += 1);
        }
        let known: Vec<u32> = self.tags.iter().map(|tag| tag.as_ref().map_or(0, |tag| tag.entries)).collect();
        assert_eq!(counts, known);
        assert_eq!(self.by_name.len(), self.tags.iter().flatten().count());
    }
}

fn hash(hasher: &foldhash::quality::RandomState, namespace: u16, name: &str) -> u64 {
    let mut state = hasher.build_hasher();
    state.write_u16(namespace);
    state.write(name.as_bytes());
    state.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_lives_as_long_as_an_entry_bears_it() {
        let mut tags = Tags::new();
        let one = tags.take(0, &["a", "b", "a"]);
        let two = tags.take(0, &["b"]);
        let elsewhere = tags.take(7, &["b"]);
        assert_eq!((one.as_slice().len(), tags.names(&one)), (2, vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(one.as_slice()[1], two.as_slice()[0]);
        assert_ne!(two, elsewhere, "another namespace's tag is another one");
        assert!(tags.kill(0, "b", Version(10)));
        assert!(!tags.kill(0, "c", Version(10)));
        assert!(tags.are_dead(&two, Version(10)) && !tags.are_dead(&two, Version(11)));
        assert!(!tags.are_dead(&elsewhere, Version(1)));
        tags.validate([one, two, elsewhere].into_iter());
        tags.release(&one);
        tags.release(&two);
        assert!(!tags.kill(0, "b", Version(12)), "nobody bears it any more");
        tags.validate([elsewhere].into_iter());
        let fresh = tags.take(0, &["b"]);
        assert!(!tags.are_dead(&fresh, Version(1)), "a tag that comes back is a new one");
    }
}
