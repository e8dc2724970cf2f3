//! Invalidations that what lies on disk has not been held to yet.
//!
//! A record on disk cannot be told to be dead: whoever reads it asks here. An invalidation stands until a snapshot has
//! left out everything that it covers.

use std::collections::{BTreeSet, HashMap};

use crate::engine::{Put, Scope};
use crate::entry::Version;

#[derive(Debug, Clone, Copy)]
struct Until {
    version: Version,
    /// Its place among all that were ever added.
    nth: u64,
}

/// Invalidations by prefix and by tag, of all namespaces.
#[derive(Debug, Default)]
pub(super) struct Standing {
    prefixes: HashMap<(u16, Box<[u8]>), Until>,
    /// The lengths of those prefixes, so that a key is looked up once for each and not compared with all.
    lengths: BTreeSet<(u16, usize)>,
    tags: HashMap<(u16, Box<str>), Until>,
    added: u64,
}

impl Standing {
    pub(super) fn add(&mut self, namespace: u16, scope: Scope<'_>, version: Version) {
        self.added += 1;
        let until = Until { version, nth: self.added };
        match scope {
            Scope::Prefix(prefix) => {
                self.lengths.insert((namespace, prefix.len()));
                self.prefixes.insert((namespace, prefix.into()), until);
            }
            Scope::Tag(tag) => {
                self.tags.insert((namespace, tag.into()), until);
            }
            Scope::All => {}
        }
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

    /// Forgets the first so many that were ever added.
    pub(super) fn forget(&mut self, added: u64) {
        self.prefixes.retain(|_, until| until.nth > added);
        self.tags.retain(|_, until| until.nth > added);
        self.lengths = self.prefixes.keys().map(|(number, prefix)| (*number, prefix.len())).collect();
    }

    /// Forgets those of a namespace.
    pub(super) fn forget_namespace(&mut self, namespace: u16) {
        self.prefixes.retain(|(number, _), _| *number != namespace);
        self.tags.retain(|(number, _), _| *number != namespace);
        self.lengths.retain(|(number, _)| *number != namespace);
    }

    pub(super) fn len(&self) -> usize {
        self.prefixes.len() + self.tags.len()
    }
}

#[cfg(test)]
mod tests {
    use super::Standing;
    use crate::engine::{Put, Scope, ValueView};
    use crate::entry::Version;

    fn put<'a>(key: &'a [u8], version: u64, tags: &'a [&'a str]) -> Put<'a> {
        Put {
            namespace: 1,
            key,
            value: ValueView::Inline(b"value"),
            version: Version(version),
            expires_steady_ms: None,
            flags: 0,
            content_type: "",
            tags,
            request_id: "",
        }
    }

    #[test]
    fn what_is_covered_and_not_newer_is_dead_until_it_is_forgotten() {
        let mut standing = Standing::default();
        standing.add(1, Scope::Prefix(b"user:"), Version(10));
        standing.add(1, Scope::Tag("red"), Version(20));
        standing.add(2, Scope::Prefix(b""), Version(99));
        let covered = [
            (put(b"user:1", 10, &[]), true),
            (put(b"user:1", 11, &[]), false),
            (put(b"use", 1, &[]), false),
            (put(b"x", 20, &["blue", "red"]), true),
            (put(b"x", 21, &["red"]), false),
        ];
        for (put, expected) in covered {
            assert_eq!(standing.covers(&put), expected, "{put:?}");
        }
        standing.forget(1);
        assert!(!standing.covers(&put(b"user:1", 10, &[])));
        assert!(standing.covers(&put(b"x", 20, &["red"])));
        assert_eq!((standing.len(), standing.added()), (2, 3));
        standing.forget_namespace(1);
        assert!(!standing.covers(&put(b"x", 20, &["red"])));
    }
}
