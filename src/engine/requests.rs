//! Increments that were done lately, by key and request id, so that a retry is answered and not done again.
//!
//! Kept for ten minutes, at most [`REMEMBERED_MAX`] to a shard; then the oldest is forgotten first. Keys and ids
//! are kept as two 64-bit hashes with different seeds.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use crate::entry::Version;

/// How long a request id is remembered.
const REMEMBERED_MS: u64 = 600_000;
/// How many a shard remembers.
const REMEMBERED_MAX: usize = 16_384;

#[derive(Debug, Clone, Copy)]
struct Done {
    identity: (u64, u64),
    value: i64,
    version: Version,
    forget_at_ms: u64,
}

/// A shard's memory of increments with a request id.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    seed: foldhash::quality::RandomState,
    /// Serial numbers of what is in `order`, by identity.
    by_identity: HashTable<u64>,
    order: VecDeque<Done>,
    /// The serial number of the front of `order`.
    first: u64,
}

impl Requests {
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
    pub(crate) fn remember(
        &mut self,
        hash: u64,
        request_id: &str,
        value: i64,
        version: Version,
        now_ms: u64,
    ) {
        if self.order.len() == REMEMBERED_MAX {
            self.forget_first();
        }
        let identity = (hash, self.seed.hash_one(request_id));
        self.order.push_back(Done { identity, value, version, forget_at_ms: now_ms + REMEMBERED_MS });
        let (order, first) = (&self.order, self.first);
        self.by_identity.insert_unique(identity.1, first + order.len() as u64 - 1, |at| {
            order[(*at - first) as usize].identity.1
        });
    }

    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        (self.order.capacity() * size_of::<Done>() + self.by_identity.allocation_size()) as u64
    }

    fn forget(&mut self, now_ms: u64) {
        while self.order.front().is_some_and(|done| done.forget_at_ms <= now_ms) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some(done) = self.order.front().copied() else { return };
        let first = self.first;
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

    #[test]
    fn a_request_is_remembered_for_ten_minutes_and_within_bounds() {
        let mut requests = Requests::default();
        for n in 0..REMEMBERED_MAX as u64 + 10 {
            requests.remember(n, "id", n as i64, Version(n), 0);
        }
        assert_eq!(requests.done(5, "id", 1), None, "the oldest are forgotten first");
        assert_eq!(requests.done(10, "id", 1), Some((10, Version(10))));
        assert_eq!(requests.done(10, "other", 1), None);
        assert_eq!(requests.done(10, "id", REMEMBERED_MS), None);
        assert_eq!(requests.order.len(), 0);
    }
}
