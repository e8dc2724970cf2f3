//! Increments that were done lately, by key and request id, so that a retry is answered and not done again.
//!
//! Kept for ten minutes, at most [`REMEMBERED_MAX`] to a shard and in no more than a [`BYTES_PART`]th of its bytes; then
//! the oldest is forgotten first. Keys and ids are kept as two 64-bit hashes with different seeds, and in full only where
//! a snapshot will ask for them.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::log::Record;
use super::shard::KeyRef;
use crate::entry::Version;

/// How long a request id is remembered.
const REMEMBERED_MS: u64 = 600_000;
/// How many a shard remembers.
const REMEMBERED_MAX: usize = 16_384;
/// They take this part of the shard's limit, at most: keys and ids may be long.
const BYTES_PART: u64 = 16;
/// What one takes in the tables while these grow, beside its name.
const TABLES_BYTES: usize = 2 * size_of::<RememberedIncrement>() + 20;
/// Tables for fewer than this are not made smaller.
const SHRUNK_MIN: usize = 64;

/// An increment with a request id that was done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done<'a> {
    pub key: KeyRef<'a>,
    pub request_id: &'a str,
    /// What the counter was then.
    pub value: i64,
    pub version: Version,
}

#[derive(Debug)]
struct RememberedIncrement {
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

impl RememberedIncrement {
    /// What the name takes, as the allocator rounds it.
    fn name_bytes(&self) -> usize {
        let texts =
            |name: &Name| name.key.len().next_multiple_of(16) + name.request_id.len().next_multiple_of(16);
        self.name.as_deref().map_or(0, |name| size_of::<Name>() + texts(name))
    }
}

/// A shard's memory of increments with a request id.
#[derive(Debug, Default)]
pub(crate) struct RequestIds {
    bytes_max: usize,
    seed: foldhash::quality::RandomState,
    /// Serial numbers of what is in `order`, by identity.
    by_identity: HashTable<u64>,
    order: VecDeque<RememberedIncrement>,
    /// The serial number of the front of `order`.
    first: u64,
    /// A snapshot will ask for names.
    names_are_kept: bool,
    name_bytes: usize,
}

impl RequestIds {
    /// For a shard of this limit in bytes.
    pub(crate) fn new(bytes_limit: u64) -> Self {
        Self { bytes_max: (bytes_limit / BYTES_PART) as usize, ..Self::default() }
    }

    /// The shard has another limit.
    pub(crate) fn resize(&mut self, bytes_limit: u64) {
        self.bytes_max = (bytes_limit / BYTES_PART) as usize;
        self.keep_within(0);
        self.shrink();
    }

    /// Keeps names from now on.
    pub(crate) fn keep_names(&mut self) {
        self.names_are_kept = true;
    }

    /// One that remembers nothing, and keeps names as this one does.
    pub(crate) fn emptied(&self) -> Self {
        Self { names_are_kept: self.names_are_kept, bytes_max: self.bytes_max, ..Self::default() }
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
        let identity = (done.key.hash, self.seed.hash_one(done.request_id));
        let name = self.names_are_kept.then(|| {
            Box::new(Name {
                namespace: done.key.namespace.number(),
                key: done.key.key.into(),
                request_id: done.request_id.into(),
            })
        });
        let remembered = RememberedIncrement {
            identity,
            value: done.value,
            version: done.version,
            forget_at_ms: now_ms + REMEMBERED_MS,
            name,
        };
        self.keep_within(TABLES_BYTES + remembered.name_bytes());
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
        let tables =
            self.order.capacity() * size_of::<RememberedIncrement>() + self.by_identity.allocation_size();
        (tables + self.name_bytes) as u64
    }

    /// Forgets those whose time has ended.
    #[inline]
    pub(crate) fn forget(&mut self, now_ms: u64) {
        if self.order.front().is_none_or(|done| done.forget_at_ms > now_ms) {
            return;
        }
        while self.order.front().is_some_and(|done| done.forget_at_ms <= now_ms) {
            self.forget_first();
        }
        self.shrink();
    }

    /// Forgets the oldest until there is room for one more of `bytes` bytes.
    fn keep_within(&mut self, bytes: usize) {
        while !self.order.is_empty()
            && (self.order.len() >= REMEMBERED_MAX
                || self.order.len() * TABLES_BYTES + self.name_bytes + bytes > self.bytes_max)
        {
            self.forget_first();
        }
    }

    /// Gives memory back where the tables are mostly empty.
    fn shrink(&mut self) {
        if self.order.capacity() > SHRUNK_MIN && self.order.len() < self.order.capacity() / 4 {
            self.order.shrink_to(self.order.len() * 2);
            let (order, first) = (&self.order, self.first);
            self.by_identity.shrink_to(self.order.len() * 2, |at| order[(*at - first) as usize].identity.1);
        }
    }

    /// Checks the counts against what is remembered.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn validate(&self) {
        assert_eq!(self.order.len(), self.by_identity.len());
        assert_eq!(self.name_bytes, self.order.iter().map(RememberedIncrement::name_bytes).sum::<usize>());
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

    fn config() -> NamespaceConfig {
        NamespaceConfig::new("", PolicyName::Lru)
    }

    #[test]
    fn a_request_is_remembered_for_ten_minutes_and_within_bounds() {
        let namespaces = Namespaces::new(&config(), 1);
        let mut requests = RequestIds::new(64 << 20);
        let half = REMEMBERED_MAX as u64 / 2;
        for n in 0..REMEMBERED_MAX as u64 + 10 {
            let key = KeyRef { namespace: namespaces.default(), key: b"key", hash: n };
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

    #[test]
    fn long_names_take_no_more_than_a_sixteenth_and_give_it_back() {
        let namespaces = Namespaces::new(&config(), 1);
        let mut requests = RequestIds::new(8 << 20);
        requests.keep_names();
        let key = [7; crate::entry::KEY_BYTES_MAX];
        for n in 0..REMEMBERED_MAX as u64 {
            let key = KeyRef { namespace: namespaces.default(), key: &key, hash: n };
            requests.remember(&Done { key, request_id: "id", value: 1, version: Version(n) }, 0);
        }
        requests.validate();
        let bytes = requests.bytes();
        assert!((400 << 10..=512 << 10).contains(&bytes), "{bytes}");
        assert!(requests.done(REMEMBERED_MAX as u64 - 1, "id", 1).is_some(), "the latest are remembered");
        requests.resize(1 << 20);
        assert!(requests.bytes() <= 64 << 10, "{}", requests.bytes());
        requests.forget(REMEMBERED_MS);
        requests.validate();
        assert!(requests.bytes() < 8 << 10, "{}", requests.bytes());
    }
}
