//! Increments that were done lately, by key and request id, so that a retry is answered and not done again.
//!
//! Kept for ten minutes, at most [`REMEMBERED_MAX`] to a shard; then the oldest is forgotten first. Keys and ids
//! are kept as two 64-bit hashes with different seeds, and in full only where a snapshot will ask for them.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::log::Record;
use super::shard::Hashed;
use crate::entry::Version;

/// How long a request id is remembered.
const REMEMBERED_MS: u64 = 600_000;
/// How many a shard remembers.
const REMEMBERED_MAX: usize = 16_384;

/// An increment with a request id that was done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done<'a> {
    pub key: Hashed<'a>,
    pub request_id: &'a str,
    /// What the counter was then.
    pub value: i64,
    pub version: Version,
}

#[derive(Debug)]
struct Remembered {
    identity: (u64, u64),
    value: i64,
    version: Version,
    forget_at_ms: u64,
    name: Option<Box<Name>>,
}

/// Who asked for what, in full.
#[derive(Debug)]
struct Name {
    namespace: u16,
    key: Box<[u8]>,
    request_id: Box<str>,
}

impl Remembered {
    fn name_bytes(&self) -> usize {
        self.name.as_ref().map_or(0, |name| size_of::<Name>() + name.key.len() + name.request_id.len())
    }
}

/// A shard's memory of increments with a request id.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    seed: foldhash::quality::RandomState,
    /// Serial numbers of what is in `order`, by identity.
    by_identity: HashTable<u64>,
    order: VecDeque<Remembered>,
    /// The serial number of the front of `order`.
    first: u64,
    /// A snapshot will ask for names.
    names_are_kept: bool,
    name_bytes: usize,
}

impl Requests {
    /// Keeps names from now on.
    pub(crate) fn keep_names(&mut self) {
        self.names_are_kept = true;
    }

    /// One that remembers nothing, and keeps names as this one does.
    pub(crate) fn emptied(&self) -> Self {
        Self { names_are_kept: self.names_are_kept, ..Self::default() }
    }

    /// The result of this request, if it was done already.
    pub(crate) fn done(&mut self, hash: u64, request_id: &str, now_ms: u64) -> Option<(i64, Version)> {
        self.forget(now_ms);
        let identity = (hash, self.seed.hash_one(request_id));
        let (order, first) = (&self.order, self.first);
        let at =
            self.by_identity.find(identity.1, |at| order[(*at - first) as usize].identity == identity)?;
        let done = &self.order[(*at - self.first) as usize];
        Some((done.value, done.version))
    }

    /// Remembers the result of a request that was done just now.
    pub(crate) fn remember(&mut self, done: &Done<'_>, now_ms: u64) {
        if self.order.len() == REMEMBERED_MAX {
            self.forget_first();
        }
        let identity = (done.key.hash, self.seed.hash_one(done.request_id));
        let name = self.names_are_kept.then(|| {
            Box::new(Name {
                namespace: done.key.namespace.number(),
                key: done.key.key.into(),
                request_id: done.request_id.into(),
            })
        });
        let remembered = Remembered {
            identity,
            value: done.value,
            version: done.version,
            forget_at_ms: now_ms + REMEMBERED_MS,
            name,
        };
        self.name_bytes += remembered.name_bytes();
        self.order.push_back(remembered);
        let (order, first) = (&self.order, self.first);
        self.by_identity.insert_unique(identity.1, first + order.len() as u64 - 1, |at| {
            order[(*at - first) as usize].identity.1
        });
    }

    /// Those that are remembered in full, oldest first.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.order.iter().filter_map(|done| {
            let name = done.name.as_deref()?;
            Some(Record::Counted {
                namespace: name.namespace,
                key: &name.key,
                request_id: &name.request_id,
                value: done.value,
                version: done.version,
            })
        })
    }

    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        let tables = self.order.capacity() * size_of::<Remembered>() + self.by_identity.allocation_size();
        (tables + self.name_bytes) as u64
    }

    fn forget(&mut self, now_ms: u64) {
        while self.order.front().is_some_and(|done| done.forget_at_ms <= now_ms) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some(done) = self.order.front() else { return };
        let first = self.first;
        self.name_bytes -= done.name_bytes();
        if let Ok(entry) = self.by_identity.find_entry(done.identity.1, |at| *at == first) {
            entry.remove();
        }
        self.order.pop_front();
        self.first += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::PolicyName;
    use crate::engine::namespace::{NamespaceConfig, Namespaces};
    use crate::entry::Ttl;

    #[test]
    fn a_request_is_remembered_for_ten_minutes_and_within_bounds() {
        let config = NamespaceConfig {
            name: String::new(),
            bytes_limit: 0,
            policy: PolicyName::Lru,
            default_ttl: Ttl::Never,
        };
        let namespaces = Namespaces::new(&config, 1);
        let mut requests = Requests::default();
        let half = REMEMBERED_MAX as u64 / 2;
        for n in 0..REMEMBERED_MAX as u64 + 10 {
            let key = Hashed { namespace: namespaces.default(), key: b"key", hash: n };
            let done = Done { key, request_id: "id", value: n as i64, version: Version(n) };
            if n == half {
                requests.keep_names();
            }
            requests.remember(&done, 0);
        }
        assert_eq!(requests.records().count(), REMEMBERED_MAX / 2 + 10);
        assert_eq!(requests.done(5, "id", 1), None, "the oldest are forgotten first");
        assert_eq!(requests.done(10, "id", 1), Some((10, Version(10))));
        assert_eq!(requests.done(10, "other", 1), None);
        assert_eq!(requests.done(10, "id", REMEMBERED_MS), None);
        assert_eq!((requests.order.len(), requests.name_bytes), (0, 0));
        assert!(requests.emptied().names_are_kept);
    }
}
