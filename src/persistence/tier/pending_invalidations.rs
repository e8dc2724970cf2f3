//! Invalidations that what lies on disk has not been held to yet.
//!
//! A record on disk cannot be marked as invalidated, so every reader of one asks here. An invalidation is kept until a
//! snapshot has left out everything that it covers.

use std::collections::{BTreeSet, HashMap};

use crate::engine::{Put, Refusal, Scope};
use crate::entry::Version;

#[derive(Debug, Clone, Copy)]
struct Until {
    version: Version,
    /// Its place among all that were ever added.
    nth: u64,
}

/// Invalidations by prefix and by tag, of all namespaces.
#[derive(Debug, Default)]
pub(super) struct PendingInvalidations {
    prefixes: HashMap<(u16, Box<[u8]>), Until>,
    /// The lengths of those prefixes, so that a key is looked up once for each and not compared with all.
    lengths: BTreeSet<(u16, usize)>,
    tags: HashMap<(u16, Box<str>), Until>,
    added: u64,
    /// What prefixes and tags take.
    bytes: u64,
}

/// The most lengths that a namespace's prefixes may have: each costs every lookup a lookup of its own.
const LENGTHS_MAX: usize = 256;
/// What a prefix or a tag takes beside its text: its place in a map that is half full, and what the allocator rounds.
const INVALIDATION_BYTES: u64 = 112;

impl PendingInvalidations {
    pub(super) fn add(&mut self, namespace: u16, scope: Scope<'_>, version: Version) {
        self.added += 1;
        let until = Until { version, nth: self.added };
        match scope {
            Scope::Prefix(prefix) => {
                self.lengths.insert((namespace, prefix.len()));
                if self.prefixes.insert((namespace, prefix.into()), until).is_none() {
                    self.bytes += prefix.len() as u64 + INVALIDATION_BYTES;
                }
            }
            Scope::Tag(tag) => {
                if self.tags.insert((namespace, tag.into()), until).is_none() {
                    self.bytes += tag.len() as u64 + INVALIDATION_BYTES;
                }
            }
            Scope::All => {}
        }
    }

    /// Whether one more may be added where prefixes and tags may take `bytes_max` bytes.
    pub(super) fn takes(&self, namespace: u16, scope: Scope<'_>, bytes_max: u64) -> Result<(), Refusal> {
        if scope != Scope::All && self.bytes >= bytes_max {
            return Err(Refusal::Unswept { bytes: self.bytes, limit: bytes_max });
        }
        match scope {
            Scope::Prefix(prefix)
                if !self.lengths.contains(&(namespace, prefix.len()))
                    && self.lengths_of(namespace) >= LENGTHS_MAX =>
            {
                Err(Refusal::UnsweptLengths { limit: LENGTHS_MAX })
            }
            _ => Ok(()),
        }
    }

    /// What they take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a snapshot should be taken to make room here, where prefixes and tags may take `bytes_max` bytes.
    pub(super) fn is_crowded(&self, bytes_max: u64) -> bool {
        let namespaces: BTreeSet<u16> = self.lengths.iter().map(|(number, _)| *number).collect();
        self.bytes > bytes_max / 2
            || namespaces.into_iter().any(|number| self.lengths_of(number) > LENGTHS_MAX / 2)
    }

    fn lengths_of(&self, namespace: u16) -> usize {
        self.lengths.range((namespace, 0)..=(namespace, usize::MAX)).count()
    }

    /// Adds another's, where none that is later stands.
    pub(super) fn add_all(&mut self, other: &Self) {
        for ((namespace, prefix), until) in &other.prefixes {
            if !self.prefixes.contains_key(&(*namespace, prefix.clone())) {
                self.add(*namespace, Scope::Prefix(prefix), until.version);
            }
        }
        for ((namespace, tag), until) in &other.tags {
            if !self.tags.contains_key(&(*namespace, tag.clone())) {
                self.add(*namespace, Scope::Tag(tag), until.version);
            }
        }
    }

    /// Whether an entry was written before something that covers it.
    pub(super) fn covers(&self, put: &Put<'_>) -> bool {
        let is_old = |until: Option<&Until>| until.is_some_and(|until| put.version <= until.version);
        let number = put.namespace;
        let mut lengths = self.lengths.range((number, 0)..=(number, put.key.len()));
        lengths.any(|(_, length)| is_old(self.prefixes.get(&(number, put.key[..*length].into()))))
            || !self.tags.is_empty()
                && put.tags.iter().any(|tag| is_old(self.tags.get(&(number, (*tag).into()))))
    }

    /// How many were ever added.
    pub(super) fn added(&self) -> u64 {
        self.added
    }

    /// Forgets the first `added` that were ever added.
    pub(super) fn forget(&mut self, added: u64) {
        self.prefixes.retain(|_, until| until.nth > added);
        self.tags.retain(|_, until| until.nth > added);
        self.lengths = self.prefixes.keys().map(|(number, prefix)| (*number, prefix.len())).collect();
        self.shrink();
    }

    /// Forgets those of a namespace.
    pub(super) fn forget_namespace(&mut self, namespace: u16) {
        self.prefixes.retain(|(number, _), _| *number != namespace);
        self.tags.retain(|(number, _), _| *number != namespace);
        self.lengths.retain(|(number, _)| *number != namespace);
        self.shrink();
    }

    /// Gives back what is not used, after some were forgotten.
    fn shrink(&mut self) {
        self.prefixes.shrink_to_fit();
        self.tags.shrink_to_fit();
        let texts = self.prefixes.keys().map(|(_, prefix)| prefix.len());
        let texts = texts.chain(self.tags.keys().map(|(_, tag)| tag.len()));
        self.bytes = texts.map(|text| text as u64 + INVALIDATION_BYTES).sum();
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn len(&self) -> usize {
        self.prefixes.len() + self.tags.len()
    }
}

#[cfg(test)]
mod tests {
    use super::PendingInvalidations;
    use crate::engine::{Put, Scope, ValueView};
    use crate::entry::{Expiry, Version};

    fn put<'a>(key: &'a [u8], version: u64, tags: &'a [&'a str]) -> Put<'a> {
        Put {
            namespace: 1,
            key,
            value: ValueView::Inline(b"value"),
            version: Version(version),
            expiry: Expiry::Never,
            flags: 0,
            content_type: "",
            tags,
            request_id: "",
        }
    }

    #[test]
    fn what_is_covered_and_not_newer_is_dead_until_it_is_forgotten() {
        let mut pending_invalidations = PendingInvalidations::default();
        pending_invalidations.add(1, Scope::Prefix(b"user:"), Version(10));
        pending_invalidations.add(1, Scope::Tag("red"), Version(20));
        pending_invalidations.add(2, Scope::Prefix(b""), Version(99));
        let covered = [
            (put(b"user:1", 10, &[]), true),
            (put(b"user:1", 11, &[]), false),
            (put(b"use", 1, &[]), false),
            (put(b"x", 20, &["blue", "red"]), true),
            (put(b"x", 21, &["red"]), false),
        ];
        for (put, expected) in covered {
            assert_eq!(pending_invalidations.covers(&put), expected, "{put:?}");
        }
        pending_invalidations.forget(1);
        assert!(!pending_invalidations.covers(&put(b"user:1", 10, &[])));
        assert!(pending_invalidations.covers(&put(b"x", 20, &["red"])));
        assert_eq!((pending_invalidations.len(), pending_invalidations.added()), (2, 3));
        pending_invalidations.forget_namespace(1);
        assert!(!pending_invalidations.covers(&put(b"x", 20, &["red"])));
        pending_invalidations.forget(u64::MAX);
        assert_eq!((pending_invalidations.len(), pending_invalidations.bytes()), (0, 0));
    }

    #[test]
    fn it_takes_no_more_than_it_may_and_says_before_that_it_is_crowded() {
        let mut pending_invalidations = PendingInvalidations::default();
        let mut crowded_at = None;
        for n in 0..10_000u32 {
            let tag = format!("tag-{n}");
            if pending_invalidations.takes(1, Scope::Tag(&tag), 100_000).is_err() {
                break;
            }
            pending_invalidations.add(1, Scope::Tag(&tag), Version(u64::from(n)));
            pending_invalidations.add(1, Scope::Tag(&tag), Version(u64::from(n)));
            if pending_invalidations.is_crowded(100_000) {
                crowded_at.get_or_insert(n);
            }
        }
        assert!(
            (100_000..100_300).contains(&pending_invalidations.bytes()),
            "{}",
            pending_invalidations.bytes()
        );
        assert!((350..500).contains(&crowded_at.unwrap()), "{crowded_at:?}");
        assert_eq!(pending_invalidations.takes(1, Scope::All, 100_000), Ok(()));

        let mut pending_invalidations = PendingInvalidations::default();
        let prefix = [7; 300];
        let mut refused = Vec::new();
        for length in 1..=300 {
            if pending_invalidations.takes(1, Scope::Prefix(&prefix[..length]), 1_000_000).is_ok() {
                pending_invalidations.add(1, Scope::Prefix(&prefix[..length]), Version(9));
            } else {
                refused.push(length);
            }
        }
        assert_eq!(refused, (257..=300).collect::<Vec<_>>());
        assert!(
            pending_invalidations.takes(1, Scope::Prefix(&[8; 256]), 1_000_000).is_ok(),
            "a length that it has already"
        );
        assert!(
            pending_invalidations.takes(2, Scope::Prefix(&[8; 257]), 1_000_000).is_ok(),
            "another namespace"
        );
        assert!(pending_invalidations.is_crowded(1_000_000), "there are many lengths");
    }
}
