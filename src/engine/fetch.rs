//! Entries that are not in memory but on a disk: an operation whose key is not in memory can have its entry fetched.
//!
//! While the engine is [`Engine::start_fetching`], memory is a cache over something larger, and a key that is not in
//! memory may still exist. [`Engine::apply_or_fetch`] then gives a [`Fetch`] in place of an outcome. The caller looks
//! on the disk and comes back with what is there; [`Engine::apply_fetched`] puts that into memory and does the
//! operation, both under one hold of the shard's lock, so that nothing can be evicted in between. If the key was
//! changed meanwhile, what was found is worth nothing: there is another `Fetch` to do, unless memory has the key by
//! then. So what is fetched late never takes the place of what is newer.
//!
//! The engine does not know where entries lie nor how they are read.

use std::collections::HashMap;

use super::Engine;
use super::admission::Admission;
use super::index::order;
use super::log::Put;
use super::namespace::Namespace;
use super::op::{EntryView, MissReason, NotRead, Op, Outcome, Tier};
use super::record::hash_key;
use super::shard::{KeyRef, Shard};
use crate::clock::Now;
use crate::entry::Ttl;

/// A key is to be looked for below. It must come back, to [`Engine::apply_fetched`], [`Engine::read_fetched`] or
/// [`Engine::end_fetch`].
#[derive(Debug)]
#[must_use = "the shard keeps watch on the key until this comes back"]
pub struct Fetch {
    shard: usize,
    hash: u64,
    changes: u64,
    logged: u64,
}

impl Fetch {
    /// Begins one of a key, whose shard's lock is held; `None`: the key is in memory, or there is nothing below.
    #[inline]
    pub(super) fn begin(shard: &mut Shard, number: usize, key: KeyRef<'_>, now: Now) -> Option<Self> {
        let (changes, logged) = shard.begin_fetch(key, now)?;
        Some(Self { shard: number, hash: key.hash, changes, logged })
    }

    /// The key's shard.
    #[must_use]
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// The key's hash in the order of its shard's walk, by which the disk tier knows it.
    #[must_use]
    pub fn walk_hash(&self) -> u64 {
        order(self.hash)
    }

    /// How many records and barriers the shard had logged: those must have arrived below before it is looked there.
    #[must_use]
    pub fn logged(&self) -> u64 {
        self.logged
    }

    /// How often the key was changed since it is being fetched: two fetches under way of one key find the same if they
    /// began after as many changes.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }
}

/// Fetches that a shard keeps room for while there are none.
const ROOM_KEPT: usize = 64;

/// A shard's keys that are being fetched, as many at most as there are calls under way.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    by_hash: HashMap<u64, Fetched>,
}

#[derive(Debug, Default)]
struct Fetched {
    fetches: u32,
    changes: u64,
}

impl Fetches {
    /// Begins a fetch; returns how often the key has changed while it is being fetched.
    pub(super) fn begin(&mut self, hash: u64) -> u64 {
        let fetched = self.by_hash.entry(hash).or_default();
        fetched.fetches += 1;
        fetched.changes
    }

    /// Whether the key is as it was when this fetch of it began.
    pub(super) fn end(&mut self, hash: u64, changes: u64) -> bool {
        let Some(fetched) = self.by_hash.get_mut(&hash) else { return false };
        let is_same = fetched.changes == changes;
        fetched.fetches -= 1;
        if fetched.fetches == 0 {
            self.by_hash.remove(&hash);
            if self.by_hash.is_empty() && self.by_hash.capacity() > ROOM_KEPT {
                self.by_hash = HashMap::new();
            }
        }
        is_same
    }

    #[inline]
    pub(super) fn changed(&mut self, hash: u64) {
        if !self.by_hash.is_empty()
            && let Some(fetched) = self.by_hash.get_mut(&hash)
        {
            fetched.changes += 1;
        }
    }

    pub(super) fn all_changed(&mut self) {
        self.by_hash.values_mut().for_each(|fetched| fetched.changes += 1);
    }
}

impl Engine {
    /// From now on, what is not in memory may lie below.
    pub fn start_fetching(&self) {
        for shard in &self.shards {
            shard.lock().start_fetching();
        }
    }

    /// From now on, what is not in memory is nowhere. What is being fetched can come back still.
    pub fn stop_fetching(&self) {
        for shard in &self.shards {
            shard.lock().stop_fetching();
        }
    }

    /// Says what it takes, in bytes for each shard, to know where entries lie below: that counts as memory in use.
    pub fn set_disk_tier_bytes(&self, bytes: impl Iterator<Item = u64>) {
        for (shard, bytes) in self.shards.iter().zip(bytes) {
            shard.lock().set_disk_tier_bytes(bytes);
        }
    }

    /// Says what it takes, in bytes, to know which blobs there are: that counts as memory in use.
    pub fn set_blob_bytes(&self, bytes: u64) {
        for shard in &self.shards {
            shard.lock().set_blob_bytes(bytes / self.shards.len() as u64);
        }
    }

    /// A key's shard, and its 64-bit hash with the bits in the order of that shard's walk ([`Self::scan`]). Both stay the
    /// same for as long as the engine lives.
    #[must_use]
    pub fn shard_and_walk_hash(&self, namespace: u16, key: &[u8]) -> (usize, u64) {
        let hash = hash_key(&self.hasher, namespace, key);
        (self.shard_of(hash), order(hash))
    }

    /// Whether a key's entry is in memory, as far as can be told without changing anything.
    #[must_use]
    pub fn has(&self, namespace: &Namespace, key: &[u8]) -> bool {
        let (number, key) = self.locate(namespace, key);
        self.shards[number].lock().has(key)
    }

    /// Does an operation, unless its key would have to be fetched first.
    ///
    /// # Errors
    /// It has to be fetched; nothing was done.
    #[inline]
    pub fn apply_or_fetch(
        &self,
        namespace: &Namespace,
        op: &Op<'_>,
        admission: impl Admission,
    ) -> Result<Outcome, Fetch> {
        let large = op.large_value();
        let (number, key) = self.locate(namespace, op.key());
        let (mut shard, now) = match self.lock_for(number, key, admission) {
            Ok(held) => held,
            Err(refusal) => return Ok(Outcome::Refused(refusal)),
        };
        match Fetch::begin(&mut shard, number, key, now) {
            Some(fetch) => Err(fetch),
            None => Ok(self.apply_in(&mut shard, key, op, large.as_ref(), now)),
        }
    }

    /// Does an operation with what was found of its key.
    ///
    /// # Errors
    /// The key was changed meanwhile and has to be fetched again; nothing was done.
    pub fn apply_fetched(
        &self,
        namespace: &Namespace,
        op: &Op<'_>,
        fetch: Fetch,
        found: Option<&Put<'_>>,
        admission: impl Admission,
    ) -> Result<Outcome, Fetch> {
        let large = op.large_value();
        let applied =
            self.with_fetched(namespace, op.key(), fetch, found, admission, |shard, key, now, _| {
                Ok(self.apply_in(shard, key, op, large.as_ref(), now))
            });
        match applied {
            Ok(outcome) => Ok(outcome),
            Err(NotRead::Refused(refusal)) => Ok(Outcome::Refused(refusal)),
            Err(NotRead::Miss(reason)) => Ok(Outcome::Miss(reason)),
            Err(NotRead::NeedsLoad(fetch)) => Err(fetch),
        }
    }

    /// Reads an entry as [`Self::read`] does, unless it would have to be fetched first.
    ///
    /// # Errors
    /// There is none to read, or it has to be fetched: `found` was not called.
    #[inline]
    pub fn read_or_fetch<R>(
        &self,
        namespace: &Namespace,
        key: &[u8],
        touch: Option<Ttl>,
        admission: impl Admission,
        found: impl FnOnce(EntryView<'_>) -> R,
    ) -> Result<R, NotRead<Fetch>> {
        let (number, key) = self.locate(namespace, key);
        let (mut shard, now) = self.lock_for(number, key, admission).map_err(NotRead::Refused)?;
        match Fetch::begin(&mut shard, number, key, now) {
            Some(fetch) => Err(NotRead::NeedsLoad(fetch)),
            None => shard.read(key, touch, &self.versions, now, found).map_err(NotRead::Miss),
        }
    }

    /// Reads an entry with what was found of its key; see [`Self::read_or_fetch`]. What memory has no room for is read where
    /// it was found.
    ///
    /// # Errors
    /// There is none to read, or the key was changed meanwhile and has to be fetched again: `seen` was not called.
    pub fn read_fetched<R>(
        &self,
        (namespace, key): (&Namespace, &[u8]),
        touch: Option<Ttl>,
        (fetch, found): (Fetch, Option<&Put<'_>>),
        admission: impl Admission,
        seen: impl FnOnce(EntryView<'_>) -> R,
    ) -> Result<R, NotRead<Fetch>> {
        let mut seen = Some(seen);
        let mut see = |entry: EntryView<'_>| seen.take().expect("an entry is read once")(entry);
        let read = self.with_fetched(namespace, key, fetch, found, admission, |shard, key, now, found| {
            let tier = if found.is_some() { Tier::Disk } else { Tier::Memory };
            match shard.read(key, touch, &self.versions, now, |entry| see(EntryView { tier, ..entry })) {
                Ok(read) => {
                    if found.is_some() {
                        shard.count_hit_on_disk(key.namespace);
                    }
                    Ok(Read::InMemory(read))
                }
                Err(counted) => {
                    let entry = found.and_then(|found| found.view(now));
                    let entry =
                        entry.filter(|_| !key.namespace.is_deleted()).ok_or(NotRead::Miss(counted))?;
                    shard.count_hit_below(key.namespace, counted);
                    Ok(Read::WhereFound(entry))
                }
            }
        })?;
        Ok(match read {
            Read::InMemory(read) => read,
            // It is no part of the shard: its lock is not held while it is copied.
            Read::WhereFound(entry) => see(entry),
        })
    }

    /// Asks for a key to be watched while it is fetched; `None`: it is in memory.
    pub fn begin_fetch(&self, namespace: &Namespace, key: &[u8], now: Now) -> Option<Fetch> {
        let (number, key) = self.locate(namespace, key);
        let mut shard = self.shards[number].lock();
        shard.maintain(now);
        Fetch::begin(&mut shard, number, key, now)
    }

    /// Puts what was found of a key into memory. Whether it is there now: memory may have no room for it.
    ///
    /// # Errors
    /// The key was changed meanwhile and has to be fetched again.
    pub fn promote(
        &self,
        namespace: &Namespace,
        fetch: Fetch,
        found: &Put<'_>,
        now: Now,
    ) -> Result<bool, Fetch> {
        let has = |shard: &mut Shard, key: KeyRef<'_>, _, _| Ok(shard.has(key));
        match self.with_fetched(namespace, found.key, fetch, Some(found), now, has) {
            Err(NotRead::NeedsLoad(fetch)) => Err(fetch),
            done => Ok(done.unwrap_or(false)),
        }
    }

    /// Counts a lookup that came to nothing because of what lies below, in place of the miss that it was counted as.
    pub fn count_disk_miss(
        &self,
        (namespace, key): (&Namespace, &[u8]),
        reason: MissReason,
        counted: Option<MissReason>,
    ) {
        let (number, key) = self.locate(namespace, key);
        self.shards[number].lock().recount_miss(key.namespace, reason, counted);
    }

    /// Gives a fetch back that came to nothing.
    pub fn end_fetch(&self, fetch: Fetch) {
        self.shards[fetch.shard].lock().end_fetch(fetch.hash, fetch.changes);
    }

    /// Does something under one hold of the shard's lock, after what was found of a key was put into memory; it is handed
    /// what was found if the key was not changed meanwhile.
    fn with_fetched<'a, R>(
        &self,
        namespace: &Namespace,
        key: &[u8],
        fetch: Fetch,
        found: Option<&'a Put<'a>>,
        admission: impl Admission,
        apply: impl FnOnce(&mut Shard, KeyRef<'_>, Now, Option<&'a Put<'a>>) -> Result<R, NotRead<Fetch>>,
    ) -> Result<R, NotRead<Fetch>> {
        let (number, key) = self.locate(namespace, key);
        let mut shard = self.shards[number].lock();
        let is_same = shard.end_fetch(fetch.hash, fetch.changes);
        let now = admission.admit(key.namespace, key.key).map_err(NotRead::Refused)?;
        shard.maintain(now);
        let found = found.filter(|_| is_same);
        if let Some(found) = found {
            shard.promote(found, key, now);
        } else if !is_same && let Some(fetch) = Fetch::begin(&mut shard, number, key, now) {
            return Err(NotRead::NeedsLoad(fetch));
        }
        apply(&mut shard, key, now, found)
    }
}

/// Where an entry was read.
enum Read<'a, R> {
    /// In memory, and what came of it.
    InMemory(R),
    /// Where it was found: it is to be read there.
    WhereFound(EntryView<'a>),
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::tests::at;
    use super::super::{CountingAdmission, EngineConfig, NamespaceConfig, PolicyName, Set, ValueView};
    use super::*;
    use crate::entry::{Expiry, Version};

    /// Larger than all memory of the engine that it is found below.
    fn found(value: &Bytes, namespace: u16) -> Put<'_> {
        Put {
            namespace,
            key: b"key",
            value: ValueView::Shared(value),
            version: Version(7),
            expiry: Expiry::Never,
            flags: 0,
            content_type: "",
            tags: &[],
            request_id: "",
        }
    }

    fn engine() -> (Engine, Bytes) {
        let bytes_limit = 16 << 20;
        let engine = Engine::new(&EngineConfig { bytes_limit, ..EngineConfig::default() }, at(0));
        engine.start_fetching();
        (engine, vec![1; bytes_limit as usize + 1].into())
    }

    #[test]
    fn what_memory_has_no_room_for_is_read_where_it_was_found_and_counts_once() {
        let (engine, value) = engine();
        let other = engine.create_namespace(&NamespaceConfig::new("other", PolicyName::Lru)).unwrap();
        for namespace in [engine.default_namespace(), &other] {
            let (fetch, admission) =
                (engine.begin_fetch(namespace, b"key", at(0)), CountingAdmission::at(at(0)));
            let put = found(&value, namespace.number());
            let place = (namespace, b"key".as_slice());
            let seen = |entry: EntryView<'_>| (entry.tier, entry.version, entry.value.as_slice().len());
            let read = engine.read_fetched(place, None, (fetch.unwrap(), Some(&put)), &admission, seen);
            assert_eq!(read.unwrap(), (Tier::Disk, Version(7), value.len()));
            assert_eq!((admission.asked.get(), engine.has(namespace, b"key")), (1, false));
            let stats = engine.report(namespace).stats;
            assert_eq!((stats.hits, stats.hits_on_disk, stats.misses()), (1, 1, 0), "{stats:?}");
        }
    }

    #[test]
    fn what_was_found_before_its_key_was_changed_is_not_read() {
        let (engine, value) = engine();
        let namespace = engine.default_namespace();
        let place = (namespace, b"key".as_slice());
        let read = |fetch: Fetch| {
            let found = (fetch, Some(&found(&value, 0)));
            engine.read_fetched(place, None, found, at(0), |entry| (entry.tier, entry.value.to_bytes()))
        };
        let begin = || engine.begin_fetch(namespace, b"key", at(0)).unwrap();
        // Memory has what is newer.
        let fetch = begin();
        engine.apply(namespace, &Op::Set(Set::new(b"key", b"new")), at(0));
        assert_eq!(read(fetch).unwrap(), (Tier::Memory, Bytes::from("new")));
        engine.apply(namespace, &Op::Delete { key: b"key", if_version: None }, at(0));
        // It is away again.
        let fetch = begin();
        engine.apply(namespace, &Op::Delete { key: b"key", if_version: None }, at(0));
        let Err(NotRead::NeedsLoad(fetch)) = read(fetch) else { panic!("it was changed") };
        // Nothing lies below any more, and nothing tells whether it was changed.
        engine.stop_fetching();
        assert!(matches!(read(fetch), Err(NotRead::Miss(MissReason::Deleted))));
        assert_eq!(engine.stats().hits_on_disk, 0);
    }
}
