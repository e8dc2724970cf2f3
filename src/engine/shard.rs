//! One lock's worth of the engine: index, entries, byte account, expiry, tags and, for each namespace, a policy.
//!
//! Invariants, checked by `validate`: every live cell is in the index once, in one policy's lists once, and in
//! the wheel if and only if it expires; each namespace's entries and weight add up; what the shard holds never grows
//! past its limit; a change is logged, if there is a log, before the lock is let go.

mod counter;
mod explain;
mod fetch;
mod namespace_shard;
mod read;
mod recover;
mod room;
mod scan;
mod store;
mod sweep;

use bytes::Bytes;

use super::VersionClock;
use super::arena::Arena;
use super::changes::Changes;
use super::eviction::{Estimate, Policy, PolicyName};
use super::eviction_log::EvictionLog;
use super::expiry::Wheel;
use super::fetch::Fetches;
use super::hot::HotKeyCounter;
use super::index::Index;
use super::log::{Put, Record};
use super::namespace::Namespace;
use super::op::{Condition, EntryView, Expiration, MissReason, Outcome, Refusal, Set, ValueView};
use super::record::{Deadline, DraftValue, KeyHasher, RecordDraft, Records};
use super::request_ids::RequestIds;
use super::slot::Slot;
use super::stats::Stats;
use super::tags::{DraftTags, PackedTags, TagFilter};
use crate::clock::Now;
use crate::entry::{Expiry, Ttl, Version};
pub use namespace_shard::Scope;
use namespace_shard::{NamespaceShard, NamespaceShards};
use sweep::Sweep;

/// Expired entries that an operation reclaims on its way, and entries that it hands over to a new policy.
const STEPS_PER_OP: usize = 8;

/// What a shard needs to know when it is made.
#[derive(Debug, Clone)]
pub(super) struct ShardConfig {
    pub bytes_limit: u64,
    /// Shards that share the work with this one, itself counted.
    pub shards: u64,
    pub hasher: KeyHasher,
}

/// A key with its namespace and its hash, which the engine has computed to choose the shard.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyRef<'a> {
    pub namespace: &'a Namespace,
    pub key: &'a [u8],
    pub hash: u64,
}

/// A shard of the engine. In this order: what a hit writes is on the cache line of the lock, which has to come from the
/// processor that was here last anyway, and what it only reads is behind that, as near as it can be.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Shard {
    /// The default namespace's hits; other namespaces count theirs where they count the rest.
    hits: u64,
    /// Lookups until one is counted as [`HotKeyCounter`] does.
    until_sample: u32,
    index: Index,
    records: Records,
    wheel: Wheel,
    /// Namespaces whose entries are being handed over to another policy.
    handing_over: Vec<u16>,
    sweep: Sweep,
    spaces: NamespaceShards,
    config: ShardConfig,
    tag_filter: TagFilter,
    eviction_log: EvictionLog,
    requests: RequestIds,
    hot: HotKeyCounter,
    /// The namespace that gives way when the shard is full, and for how many entries more.
    evicting_from: (u16, u32),
    /// Counters of deleted namespaces.
    gone: Stats,
    /// Where changes are written for those that follow them, if any do.
    pub(super) changes: Changes,
    /// Keys that are being fetched from below, where there is something below.
    fetches: Option<Box<Fetches>>,
    /// What it takes to know where entries lie below.
    disk_tier_bytes: u64,
    blob_bytes: u64,
    /// A part of what events may take, while they are noted.
    event_bytes: u64,
}

/// An entry's own copy of what its cell holds, to write it again in another form.
struct EntryCopy {
    key: Vec<u8>,
    value: Bytes,
    large: bool,
    version: Version,
    flags: u32,
    content_type: String,
    tags: Vec<u8>,
}

impl Shard {
    pub(super) fn new(config: ShardConfig, default: &Namespace, now: Now) -> Self {
        Self {
            hits: 0,
            until_sample: 1,
            index: Index::new(),
            records: Records::new(config.hasher.clone()),
            wheel: Wheel::new(now.steady_ms),
            spaces: NamespaceShards::new(NamespaceShard::of_default(default.clone(), config.bytes_limit)),
            handing_over: Vec::new(),
            sweep: Sweep::default(),
            tag_filter: TagFilter::new(config.bytes_limit),
            eviction_log: EvictionLog::new(config.bytes_limit),
            requests: RequestIds::new(config.bytes_limit),
            hot: HotKeyCounter::new(config.bytes_limit, now),
            evicting_from: (0, 0),
            gone: Stats::default(),
            changes: Changes::default(),
            fetches: None,
            disk_tier_bytes: 0,
            blob_bytes: 0,
            event_bytes: 0,
            config,
        }
    }

    /// Stores an entry; `large` is the value's own copy if it is too large for a cell.
    pub(super) fn set(
        &mut self,
        set: &Set<'_>,
        key: KeyRef<'_>,
        large: Option<&Bytes>,
        versions: &VersionClock,
        now: Now,
    ) -> Outcome {
        if let Err(refusal) = self.takes_writes().and_then(|()| self.ensure_namespace(key.namespace)) {
            return Outcome::Refused(refusal);
        }
        self.note_change(key);
        let existing = self.find_live(key, now);
        let current = existing.map_or(Version::NONE, |slot| self.records.version(slot));
        let holds = match set.condition {
            Condition::Always => true,
            Condition::IfAbsent => existing.is_none(),
            Condition::IfPresent => existing.is_some(),
            Condition::IfVersion(version) => existing.is_some() && version == current,
        };
        if !holds {
            self.counts(key.namespace).not_stored += 1;
            return Outcome::NotStored(current);
        }
        let default_ttl = key.namespace.default_ttl();
        let Some(expiry) = self.expiry_for(set.expiration, default_ttl, existing, now) else {
            self.set_expired(key, existing, versions, now);
            return Outcome::Expired;
        };
        let Some(version) = versions.next(now) else {
            return Outcome::Refused(Refusal::NoVersion);
        };
        let number = key.namespace.number();
        let draft = RecordDraft {
            namespace: number,
            key: set.key,
            value: large.map_or(DraftValue::Inline(set.value), DraftValue::Large),
            version,
            deadline: self.deadline(expiry),
            flags: set.flags,
            content_type: set.content_type,
            tags: DraftTags::Named(set.tags),
        };
        match self.store(&draft, key.hash, existing) {
            Ok(()) => {
                self.counts(key.namespace).sets += 1;
                if self.changes.are_followed() {
                    let put = Put {
                        namespace: number,
                        key: set.key,
                        value: large.map_or(ValueView::Inline(set.value), ValueView::Shared),
                        version,
                        expiry,
                        flags: set.flags,
                        content_type: set.content_type,
                        tags: set.tags,
                        request_id: "",
                    };
                    // Also of a key that had no entry: a copy of one that was evicted may be kept somewhere.
                    self.changes.add(key.namespace, &Record::Put(put), Some(version));
                }
                if self.filter_tags(number, set.tags) {
                    self.shrink(usize::MAX);
                }
                Outcome::Stored(version)
            }
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    /// The time is past that an entry is set to expire at: nothing is stored, and what was there goes.
    fn set_expired(&mut self, key: KeyRef<'_>, existing: Option<Slot>, versions: &VersionClock, now: Now) {
        self.counts(key.namespace).not_stored += 1;
        // It may have been evicted, and a journal would bring it back.
        self.log_removed(key, versions, now);
        let Some(slot) = existing else { return };
        self.remove_entry(slot, key.hash);
        self.eviction_log.insert(key.hash, MissReason::Expired);
    }

    /// Removes an entry.
    pub(super) fn delete(
        &mut self,
        key: KeyRef<'_>,
        if_version: Option<Version>,
        versions: &VersionClock,
        now: Now,
    ) -> Outcome {
        if let Err(refusal) = self.takes_writes() {
            return Outcome::Refused(refusal);
        }
        self.note_change(key);
        let Some(slot) = self.find_live(key, now) else {
            // It may have been evicted, and a journal would bring it back.
            self.log_removed(key, versions, now);
            return Outcome::Deleted(false);
        };
        let current = self.records.version(slot);
        if if_version.is_some_and(|version| version != current) {
            return Outcome::NotDeleted(current);
        }
        self.log_removed(key, versions, now);
        self.remove_entry(slot, key.hash);
        self.eviction_log.insert(key.hash, MissReason::Deleted);
        self.counts(key.namespace).deletes += 1;
        Outcome::Deleted(true)
    }

    /// Gives an entry a new time to live.
    pub(super) fn touch(&mut self, key: KeyRef<'_>, ttl: Ttl, versions: &VersionClock, now: Now) -> Outcome {
        if let Err(refusal) = self.takes_writes() {
            return Outcome::Refused(refusal);
        }
        self.note_change(key);
        let Some(slot) = self.find_live(key, now) else {
            return Outcome::Touched(false);
        };
        let expiry = Expiry::after(ttl, now.steady_ms);
        let is_shortened = expiry.is_before(self.expiry(slot));
        self.counts(key.namespace).touches += 1;
        if let Err(refusal) = self.touch_until(key, slot, expiry) {
            return Outcome::Refused(refusal);
        }
        if self.changes.are_followed() {
            let until = (is_shortened && self.changes.are_watched()).then(|| versions.next_bound(now));
            let namespace = key.namespace.number();
            self.changes.add(key.namespace, &Record::Expiry { namespace, key: key.key, expiry }, until);
        }
        Outcome::Touched(true)
    }

    /// Gives an entry that is there a new expiry.
    fn touch_until(&mut self, key: KeyRef<'_>, slot: Slot, expiry: Expiry) -> Result<(), Refusal> {
        let deadline = self.deadline(expiry);
        if self.records.takes(slot, deadline) {
            if self.records.expires(slot) {
                self.wheel.remove(&mut self.records, slot);
                self.records.set_deadline(slot, deadline);
                self.wheel.insert(&mut self.records, slot);
            }
            let space = self.spaces.of(key.namespace.number());
            space.rewritten(&mut self.records, slot);
            return Ok(());
        }
        let kept = self.keep(slot);
        let draft = RecordDraft {
            namespace: key.namespace.number(),
            key: &kept.key,
            value: if kept.large { DraftValue::Large(&kept.value) } else { DraftValue::Inline(&kept.value) },
            version: kept.version,
            deadline,
            flags: kept.flags,
            content_type: &kept.content_type,
            tags: DraftTags::Packed(PackedTags::of(&kept.tags)),
        };
        self.store(&draft, key.hash, Some(slot))
    }

    /// Starts to hand a namespace's entries over to another policy; which one it was before.
    pub(super) fn set_policy(&mut self, namespace: &Namespace, name: PolicyName) -> PolicyName {
        let number = namespace.number();
        let Some(space) = self.spaces.get_mut(number) else { return name };
        let previous = space.set_policy(name, &mut self.records);
        if space.retiring.is_some() && !self.handing_over.contains(&number) {
            self.handing_over.push(number);
        }
        // The new policy's tables count from now on.
        self.shrink(usize::MAX);
        previous
    }

    /// Sets the limit; entries above it go as [`Self::advance`] is called.
    pub(super) fn resize(&mut self, bytes_limit: u64) {
        self.config.bytes_limit = bytes_limit;
        self.requests.resize(bytes_limit);
        self.eviction_log.resize(bytes_limit);
        if self.tag_filter.resize(bytes_limit) {
            self.sweep.ask_for_round();
        }
        if let Some(space) = self.spaces.get_mut(0) {
            space.policy.resize(bytes_limit);
        }
    }

    /// An empty shard to put in this one's place, which has the default namespace only: same counters, log and
    /// limits.
    pub(super) fn emptied(&mut self, default: &Namespace, now: Now) -> Self {
        let mut empty = Self::new(self.config.clone(), default, now);
        empty.records.arena = Arena::after(&self.records.arena);
        empty.changes = std::mem::take(&mut self.changes);
        empty.requests = self.requests.emptied();
        empty.fetches = self.fetches.take();
        (empty.disk_tier_bytes, empty.blob_bytes) = (self.disk_tier_bytes, self.blob_bytes);
        empty.event_bytes = self.event_bytes;
        empty.note_change_of_all();
        empty.gone = self.gone;
        empty.hits = self.hits;
        empty
            .counts(default)
            .add(&self.spaces.iter().next().map_or_else(Stats::default, |space| space.counts));
        empty
    }

    /// Why a write cannot be accepted now, if it cannot.
    #[inline]
    fn takes_writes(&self) -> Result<(), Refusal> {
        match self.changes.refusal() {
            None => Ok(()),
            Some(refusal) => Err(refusal),
        }
    }

    fn log_removed(&mut self, key: KeyRef<'_>, versions: &VersionClock, now: Now) {
        if self.changes.are_followed() {
            let until = self.changes.are_watched().then(|| versions.next_bound(now));
            let removed = Record::Remove { namespace: key.namespace.number(), key: key.key };
            self.changes.add(key.namespace, &removed, until);
        }
    }

    pub(super) fn has_only_default(&self) -> bool {
        self.spaces.is_only_default()
    }

    pub(super) fn stats(&self) -> Stats {
        let mut sum = self.gone;
        self.spaces.iter().for_each(|space| sum.add(&space.counts));
        Stats {
            hits: sum.hits + self.hits,
            entries: self.index.len() as u64,
            bytes_used: self.held_bytes(),
            bytes_spare: self.records.arena.spare_cell_bytes(),
            bytes_limit: self.config.bytes_limit,
            ..sum
        }
    }

    /// A namespace's own share of that; `bytes_used` is what its entries weigh.
    pub(super) fn stats_of(&self, namespace: &Namespace) -> Stats {
        let stats = self.spaces.get(namespace.number()).map_or_else(Stats::default, NamespaceShard::stats);
        Stats { hits: stats.hits + if namespace.number() == 0 { self.hits } else { 0 }, ..stats }
    }

    /// What a namespace's policy believes of each of the ways that it tries.
    pub(super) fn estimates_of(&self, namespace: &Namespace) -> Vec<Estimate> {
        self.spaces.get(namespace.number()).map_or_else(Vec::new, |space| space.policy.estimates())
    }

    // What operations are made of.

    /// Does a little of the work that waits: to be called before each operation, and not between an entry's being found
    /// or put there and the operation on it, as it may evict.
    #[inline]
    pub(super) fn maintain(&mut self, now: Now) {
        if self.wheel.is_behind(now.steady_ms) || !self.handing_over.is_empty() {
            self.advance(now, STEPS_PER_OP);
        }
    }

    /// The key's entry, unless its time has ended or an invalidation covers it: then it is reclaimed here.
    #[inline]
    fn find_live(&mut self, key: KeyRef<'_>, now: Now) -> Option<Slot> {
        self.find(key).and_then(|slot| self.if_live(slot, now))
    }

    #[inline]
    fn find(&self, key: KeyRef<'_>) -> Option<Slot> {
        let (records, number) = (&self.records, key.namespace.number());
        self.index.find(key.hash, |slot| {
            // The whole cell: otherwise its last line is known only once its header has loaded.
            records.prefetch(slot);
            records.is(slot, number, key.key)
        })
    }

    #[inline]
    fn if_live(&mut self, slot: Slot, now: Now) -> Option<Slot> {
        if self.records.expires(slot) && self.expiry(slot).is_past(now.steady_ms) {
            self.wheel.remove(&mut self.records, slot);
            self.reclaim_expired(slot);
            return None;
        }
        if self.sweep.is_due()
            && let Some(reason) = self.dead_reason(slot)
        {
            self.reclaim_dead(slot, reason);
            return None;
        }
        Some(slot)
    }

    /// The counters that an operation in a namespace counts in; those of a namespace that has nothing here and was
    /// deleted are lost among the ones that are gone.
    #[inline]
    fn counts(&mut self, namespace: &Namespace) -> &mut Stats {
        if namespace.number() != 0 && self.ensure_namespace(namespace).is_err() {
            return &mut self.gone;
        }
        &mut self.spaces.of(namespace.number()).counts
    }

    #[inline]
    fn expiry(&self, slot: Slot) -> Expiry {
        self.records.expiry(slot, self.wheel.base_ms())
    }

    /// When an entry stored now expires; `None`: that is past already.
    fn expiry_for(
        &self,
        expiration: Expiration,
        default_ttl: Ttl,
        existing: Option<Slot>,
        now: Now,
    ) -> Option<Expiry> {
        let after = |ttl| Expiry::after(ttl, now.steady_ms);
        Some(match (expiration, existing) {
            (Expiration::Keep, Some(slot)) => self.expiry(slot),
            (Expiration::Keep, None) | (Expiration::Default, _) => after(default_ttl),
            (Expiration::In(ttl), _) => after(ttl),
            (Expiration::AtUnixMs(at), _) => {
                let left = at.checked_sub(now.unix_ms()).filter(|left| *left > 0)?;
                Expiry::AtMs(now.steady_ms.saturating_add(left))
            }
        })
    }

    #[inline]
    fn view(&self, slot: Slot, now: Now) -> EntryView<'_> {
        self.records.view(slot, self.wheel.base_ms(), now.steady_ms)
    }

    fn deadline(&self, expiry: Expiry) -> Deadline {
        match expiry {
            Expiry::Never => Deadline::None,
            Expiry::AtMs(at) => self.wheel.deadline(at),
        }
    }

    fn keep(&self, slot: Slot) -> EntryCopy {
        let view = self.records.view(slot, self.wheel.base_ms(), 0);
        EntryCopy {
            key: self.records.key(slot).to_vec(),
            value: view.value.to_bytes(),
            large: matches!(view.value, super::op::ValueView::Shared(_)),
            version: view.version,
            flags: view.flags,
            content_type: view.content_type.to_owned(),
            tags: self.records.tags(slot).to_vec(),
        }
    }

    /// Checks every invariant.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn validate(&self) {
        use super::eviction::Slots;
        self.records.validate();
        let mut listed = 0;
        for space in self.spaces.iter() {
            space.policy.validate(&self.records);
            listed += space.policy.len();
            if let Some(retiring) = &space.retiring {
                retiring.validate(&self.records);
                listed += retiring.len();
            }
        }
        self.wheel.validate(&self.records);
        self.index.validate();
        let mut expiring = 0;
        let mut live = 0;
        let mut weights = std::collections::HashMap::<u16, (u64, u64)>::new();
        for slot in self.records.arena.live() {
            let (number, key) = (self.records.namespace(slot), self.records.key(slot));
            let indexed =
                self.index.find(self.records.hash(slot), |other| self.records.is(other, number, key));
            assert_eq!(indexed, Some(slot), "a live cell is not what the index has for its key");
            expiring += usize::from(self.records.expires(slot));
            live += 1;
            let weight = weights.entry(number).or_default();
            *weight = (weight.0 + 1, weight.1 + self.records.weight(slot));
        }
        assert_eq!((live, live), (self.index.len(), listed));
        assert_eq!(expiring, self.wheel.len());
        for space in self.spaces.iter() {
            let known = weights.remove(&space.namespace.number()).unwrap_or_default();
            assert_eq!((space.entries, space.bytes), known);
        }
        assert!(weights.is_empty(), "entries of a namespace without a space: {weights:?}");
        for slot in self.records.arena.live() {
            let number = self.records.namespace(slot);
            let is_known = |name: &str| self.tag_filter.may_have(number, name);
            assert!(self.records.tags(slot).names().all(is_known), "the filter misses a tag");
        }
        self.requests.validate();
        self.spaces.validate();
    }
}
