//! One lock's worth of the engine: index, entries, byte account, expiry and policy.
//!
//! Invariants, checked by `validate`: every live cell is in the index once, in one policy's lists once, and in
//! the wheel if and only if it expires; what the shard holds never grows past its limit; a change draws the next
//! sequence number before the lock is let go.

mod counter;
mod room;

use bytes::Bytes;
use hashbrown::HashTable;

use super::VersionClock;
use super::arena::{cell_bytes, class_of, largest_cell_for};
use super::departed::Departed;
use super::eviction::{AnyPolicy, Policy, PolicyName, Slots};
use super::expiry::Wheel;
use super::op::{ChangeKind, Condition, EntryView, Expiration, MissReason, Outcome, Refusal, Set};
use super::record::{Deadline, Draft, DraftValue, KeyHasher, Records};
use super::requests::Requests;
use super::stats::Stats;
use crate::clock::Now;
use crate::entry::{Ttl, Version};

/// Expired entries that an operation reclaims on its way, and entries that it hands over to a new policy.
const STEPS_PER_OP: usize = 8;

/// What a shard needs to know when it is made.
#[derive(Debug, Clone)]
pub(super) struct ShardConfig {
    pub bytes_limit: u64,
    pub policy: PolicyName,
    pub default_ttl: Ttl,
    pub hasher: KeyHasher,
}

/// A key with its hash, which the engine has computed to choose the shard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hashed<'a> {
    pub key: &'a [u8],
    pub hash: u64,
}

/// A shard of the engine.
#[derive(Debug)]
pub(super) struct Shard {
    config: ShardConfig,
    index: HashTable<u32>,
    records: Records,
    wheel: Wheel,
    policy: AnyPolicy,
    /// The policy before, while it still has entries.
    retiring: Option<AnyPolicy>,
    /// What an entry's handed-over attribute is if `policy` has it.
    present: bool,
    departed: Departed,
    requests: Requests,
    counts: Stats,
    sequence: u64,
}

/// An entry's own copy of what its cell holds, to write it again in another form.
struct Kept {
    key: Vec<u8>,
    value: Bytes,
    large: bool,
    version: Version,
    flags: u32,
    content_type: String,
}

impl Shard {
    pub(super) fn new(config: ShardConfig, now: Now) -> Self {
        Self {
            index: HashTable::new(),
            records: Records::new(config.hasher.clone()),
            wheel: Wheel::new(now.ticks_ms),
            policy: AnyPolicy::new(config.policy, config.bytes_limit, 0),
            retiring: None,
            present: false,
            departed: Departed::new(config.bytes_limit),
            requests: Requests::default(),
            counts: Stats::default(),
            sequence: 0,
            config,
        }
    }

    /// Draws the place of a change; 0 for none.
    pub(super) fn sequence(&mut self, kind: ChangeKind) -> u64 {
        if kind == ChangeKind::None {
            return 0;
        }
        self.sequence += 1;
        self.sequence
    }

    /// Reads an entry under the lock.
    #[inline]
    pub(super) fn get<R>(
        &mut self,
        key: Hashed<'_>,
        now: Now,
        found: impl FnOnce(EntryView<'_>) -> R,
    ) -> Result<R, MissReason> {
        self.tidy(now);
        let Some(slot) = self.find_live(key, now) else {
            let reason = self.departed.reason(key.hash);
            self.counts.count_miss(reason);
            return Err(reason);
        };
        self.counts.hits += 1;
        self.hit(slot);
        let remaining = self.remaining_ttl_ms(slot, now);
        Ok(found(self.records.view(slot, remaining)))
    }

    /// Touches the entries that these hashes lead to. None of these loads waits for another, so the memory is
    /// asked for all at once.
    pub(super) fn warm(&self, hashes: impl Iterator<Item = u64>) {
        let touched = hashes.fold(0, |touched, hash| {
            touched ^ self.index.iter_hash(hash).next().map_or(0, |slot| self.records.touch(*slot))
        });
        std::hint::black_box(touched);
    }

    /// Stores an entry; `large` is the value's own copy if it is too large for a cell.
    pub(super) fn set(
        &mut self,
        set: &Set<'_>,
        hash: u64,
        large: Option<&Bytes>,
        versions: &VersionClock,
        now: Now,
    ) -> (Outcome, ChangeKind) {
        self.tidy(now);
        let key = Hashed { key: set.key, hash };
        let existing = self.find_live(key, now);
        let current = existing.map_or(Version::NONE, |slot| self.records.version(slot));
        let holds = match set.condition {
            Condition::Always => true,
            Condition::IfAbsent => existing.is_none(),
            Condition::IfPresent => existing.is_some(),
            Condition::IfVersion(version) => existing.is_some() && version == current,
        };
        if !holds {
            self.counts.not_stored += 1;
            return (Outcome::NotStored(current), ChangeKind::None);
        }
        let Some(expires_at) = self.expires_at(set.expiration, existing, now) else {
            // The expiry is past: nothing is stored, and what was there goes.
            let Some(slot) = existing else { return (Outcome::Stored(Version::NONE), ChangeKind::None) };
            self.remove_entry(slot, hash);
            self.departed.insert(hash, MissReason::Expired);
            return (Outcome::Stored(Version::NONE), ChangeKind::Remove);
        };
        let version = versions.next(now);
        let draft = Draft {
            key: set.key,
            value: large.map_or(DraftValue::Inline(set.value), DraftValue::Large),
            version,
            deadline: self.deadline(expires_at),
            flags: set.flags,
            content_type: set.content_type,
        };
        match self.store(&draft, hash, existing) {
            Ok(()) => {
                self.counts.sets += 1;
                let expires_unix_ms = unix_ms(expires_at, now);
                (Outcome::Stored(version), ChangeKind::Put { version, expires_unix_ms })
            }
            Err(refusal) => (Outcome::Refused(refusal), ChangeKind::None),
        }
    }

    /// Removes an entry.
    pub(super) fn delete(
        &mut self,
        key: Hashed<'_>,
        if_version: Option<Version>,
        now: Now,
    ) -> (Outcome, ChangeKind) {
        self.tidy(now);
        let Some(slot) = self.find_live(key, now) else {
            return (Outcome::Deleted(false), ChangeKind::None);
        };
        let current = self.records.version(slot);
        if if_version.is_some_and(|version| version != current) {
            return (Outcome::NotDeleted(current), ChangeKind::None);
        }
        self.remove_entry(slot, key.hash);
        self.departed.insert(key.hash, MissReason::Deleted);
        self.counts.deletes += 1;
        (Outcome::Deleted(true), ChangeKind::Remove)
    }

    /// Gives an entry a new time to live.
    pub(super) fn touch(&mut self, key: Hashed<'_>, ttl: Ttl, now: Now) -> (Outcome, ChangeKind) {
        self.tidy(now);
        let Some(slot) = self.find_live(key, now) else {
            return (Outcome::Touched(false), ChangeKind::None);
        };
        let expires_at = ttl_end(ttl, now);
        let deadline = self.deadline(expires_at);
        self.counts.touches += 1;
        let kind = ChangeKind::Expiry { expires_unix_ms: unix_ms(expires_at, now) };
        if self.records.takes(slot, deadline) {
            if self.records.expires(slot) {
                self.wheel.remove(&mut self.records, slot);
                self.records.set_deadline(slot, deadline);
                self.wheel.insert(&mut self.records, slot);
            }
            self.hit(slot);
            return (Outcome::Touched(true), kind);
        }
        let kept = self.keep(slot);
        let draft = Draft {
            key: &kept.key,
            value: if kept.large { DraftValue::Large(&kept.value) } else { DraftValue::Inline(&kept.value) },
            version: kept.version,
            deadline,
            flags: kept.flags,
            content_type: &kept.content_type,
        };
        match self.store(&draft, key.hash, Some(slot)) {
            Ok(()) => (Outcome::Touched(true), kind),
            Err(refusal) => (Outcome::Refused(refusal), ChangeKind::None),
        }
    }

    /// Reclaims expired entries and hands entries over to a new policy, at most `budget` steps. Says how many it
    /// took; fewer than the budget: all is done.
    pub(super) fn advance(&mut self, now: Now, budget: usize) -> usize {
        let mut left = budget;
        while let Some(slot) = self.wheel.next_expired(&mut self.records, now.ticks_ms, &mut left) {
            self.reclaim_expired(slot);
        }
        while left > 0 && self.hand_over_one() {
            left -= 1;
        }
        left -= self.shrink(left);
        budget - left
    }

    /// Starts to hand entries over to another policy; which one it was before.
    pub(super) fn set_policy(&mut self, name: PolicyName) -> PolicyName {
        let previous = self.policy.name();
        if previous == name {
            return previous;
        }
        while self.retiring.is_some() {
            self.hand_over_one();
        }
        let next = AnyPolicy::new(name, self.config.bytes_limit, self.index.len());
        self.retiring = Some(std::mem::replace(&mut self.policy, next));
        self.present = !self.present;
        self.config.policy = name;
        // The new policy's tables count from now on.
        self.shrink(usize::MAX);
        previous
    }

    /// Sets the limit; entries above it go as [`Self::advance`] is called.
    pub(super) fn resize(&mut self, bytes_limit: u64) {
        self.config.bytes_limit = bytes_limit;
        self.policy.resize(bytes_limit);
    }

    /// An empty shard to put in this one's place: same counters, sequence and limits.
    pub(super) fn emptied(&self, now: Now) -> Self {
        let mut empty = Self::new(self.config.clone(), now);
        empty.counts = self.counts;
        empty.sequence = self.sequence;
        empty
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            entries: self.index.len() as u64,
            bytes_used: self.held_bytes(),
            bytes_spare: self.records.arena.spare_cell_bytes(),
            bytes_limit: self.config.bytes_limit,
            ..self.counts
        }
    }

    pub(super) fn policy_name(&self) -> PolicyName {
        self.policy.name()
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    // What operations are made of.

    /// Work that waits, a little with each operation.
    #[inline]
    fn tidy(&mut self, now: Now) {
        if self.wheel.is_behind(now.ticks_ms) || self.retiring.is_some() {
            self.advance(now, STEPS_PER_OP);
        }
    }

    /// The key's entry, unless its time has ended: then it is reclaimed here.
    #[inline]
    fn find_live(&mut self, key: Hashed<'_>, now: Now) -> Option<u32> {
        let records = &self.records;
        let slot = *self.index.find(key.hash, |slot| records.key(*slot) == key.key)?;
        if self.deadline_ms(slot).is_some_and(|deadline| deadline <= now.ticks_ms) {
            self.wheel.remove(&mut self.records, slot);
            self.reclaim_expired(slot);
            return None;
        }
        Some(slot)
    }

    #[inline]
    fn deadline_ms(&self, slot: u32) -> Option<u64> {
        self.records.deadline_ms(slot, self.wheel.base_ms())
    }

    #[inline]
    fn remaining_ttl_ms(&self, slot: u32, now: Now) -> u64 {
        self.deadline_ms(slot).map_or(0, |deadline| deadline - now.ticks_ms)
    }

    /// The policy that has the entry.
    #[inline]
    fn policy_of(&mut self, slot: u32) -> (&mut AnyPolicy, &mut Records) {
        let handed_over = self.records.handed_over(slot) == self.present;
        match &mut self.retiring {
            Some(retiring) if !handed_over => (retiring, &mut self.records),
            _ => (&mut self.policy, &mut self.records),
        }
    }

    #[inline]
    fn hit(&mut self, slot: u32) {
        let (policy, records) = self.policy_of(slot);
        policy.hit(records, slot);
    }

    /// The engine time at which an entry stored now expires: `Some(None)` never, `None` it is past already.
    fn expires_at(&self, expiration: Expiration, existing: Option<u32>, now: Now) -> Option<Option<u64>> {
        let default = || ttl_end(self.config.default_ttl, now);
        match expiration {
            Expiration::Default => Some(default()),
            Expiration::In(ttl) => Some(ttl_end(ttl, now)),
            Expiration::AtUnixMs(at) => {
                let left = at.checked_sub(now.unix_ms()).filter(|left| *left > 0)?;
                Some(Some(now.ticks_ms + left))
            }
            Expiration::Keep => Some(match existing {
                Some(slot) => self.deadline_ms(slot),
                None => default(),
            }),
        }
    }

    fn deadline(&self, expires_at: Option<u64>) -> Deadline {
        expires_at.map_or(Deadline::None, |at| self.wheel.deadline(at))
    }

    /// Puts a draft in the place of `existing`, or beside the others.
    fn store(&mut self, draft: &Draft<'_>, hash: u64, existing: Option<u32>) -> Result<(), Refusal> {
        let cell = draft.cell_bytes();
        if let Some(slot) = existing.filter(|slot| self.fits_in_place(*slot, draft, cell)) {
            self.overwrite(slot, draft);
            return Ok(());
        }
        let class = class_of(cell);
        self.make_room(class, draft.large_bytes(), cell_bytes(class) as u64)?;
        // Making room may have let the very entry go that is being replaced.
        let key = draft.key;
        let records = &self.records;
        let existing = existing.and(self.index.find(hash, |slot| records.key(*slot) == key).copied());
        let slot = self.records.arena.allocate(class).expect("room was made");
        self.records.write(slot, draft);
        match existing {
            Some(old) => self.replace(old, slot, hash),
            None => self.enter(slot, hash),
        }
        if draft.deadline != Deadline::None {
            self.wheel.insert(&mut self.records, slot);
        }
        Ok(())
    }

    fn fits_in_place(&self, slot: u32, draft: &Draft<'_>, cell: usize) -> bool {
        let has = self.records.arena.cell_size(slot);
        let large_before = self.records.weight(slot) - has as u64;
        has >= cell && has <= largest_cell_for(class_of(cell)) && draft.large_bytes() <= large_before
    }

    fn overwrite(&mut self, slot: u32, draft: &Draft<'_>) {
        let was = self.records.weight(slot);
        if self.records.expires(slot) {
            self.wheel.remove(&mut self.records, slot);
        }
        self.records.release_large(slot);
        self.records.overwrite(slot, draft);
        if draft.deadline != Deadline::None {
            self.wheel.insert(&mut self.records, slot);
        }
        let (policy, records) = self.policy_of(slot);
        policy.reweighed(records, slot, was);
        policy.hit(records, slot);
    }

    /// A new entry, written but not known yet, joins index and policy.
    fn enter(&mut self, slot: u32, hash: u64) {
        let records = &self.records;
        self.index.insert_unique(hash, slot, |slot| records.hash_of(records.key(*slot)));
        self.records.set_handed_over(slot, self.present);
        self.policy.insert(&mut self.records, slot);
    }

    /// A new cell takes the place of an entry's old one everywhere but in the wheel, where it is not yet.
    fn replace(&mut self, old: u32, new: u32, hash: u64) {
        if self.records.expires(old) {
            self.wheel.remove(&mut self.records, old);
        }
        let was = self.records.weight(old);
        self.records.copy_standing(old, new);
        let (policy, records) = self.policy_of(new);
        policy.moved(records, old, new);
        policy.reweighed(records, new, was);
        policy.hit(records, new);
        *self.index.find_mut(hash, |slot| *slot == old).expect("the entry was found by its hash") = new;
        self.records.release_large(old);
        self.records.arena.free(old);
    }

    /// Takes an entry out of everything.
    fn remove_entry(&mut self, slot: u32, hash: u64) {
        let (policy, records) = self.policy_of(slot);
        policy.remove(records, slot);
        if self.records.expires(slot) {
            self.wheel.remove(&mut self.records, slot);
        }
        self.forget(slot, hash);
    }

    /// Takes an entry out that its policy and the wheel have let go.
    fn forget(&mut self, slot: u32, hash: u64) {
        let found = self.index.find_entry(hash, |other| *other == slot);
        found.expect("every entry is in the index").remove();
        self.records.release_large(slot);
        self.records.arena.free(slot);
    }

    /// Takes out an entry that has left the wheel because its time ended.
    fn reclaim_expired(&mut self, slot: u32) {
        let hash = self.records.hash(slot);
        let (policy, records) = self.policy_of(slot);
        policy.remove(records, slot);
        self.forget(slot, hash);
        self.departed.insert(hash, MissReason::Expired);
        self.counts.expirations += 1;
    }

    /// Gives one entry of the retiring policy to the present one. False when there is none.
    fn hand_over_one(&mut self) -> bool {
        let Some(retiring) = &mut self.retiring else { return false };
        let Some(slot) = retiring.hand_over(&mut self.records) else {
            self.retiring = None;
            return false;
        };
        self.records.set_mark(slot, 0);
        self.records.set_handed_over(slot, self.present);
        self.policy.insert(&mut self.records, slot);
        true
    }

    fn keep(&self, slot: u32) -> Kept {
        let view = self.records.view(slot, 0);
        Kept {
            key: self.records.key(slot).to_vec(),
            value: view.value.to_bytes(),
            large: matches!(view.value, super::op::ValueView::Shared(_)),
            version: view.version,
            flags: view.flags,
            content_type: view.content_type.to_owned(),
        }
    }

    /// Checks every invariant.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn validate(&self) {
        self.records.validate();
        self.policy.validate(&self.records);
        let mut listed = self.policy.len();
        if let Some(retiring) = &self.retiring {
            retiring.validate(&self.records);
            listed += retiring.len();
        }
        self.wheel.validate(&self.records);
        let mut expiring = 0;
        let mut live = 0;
        for slot in self.records.arena.live() {
            let key = self.records.key(slot);
            let hash = self.records.hash_of(key);
            let indexed = self.index.find(hash, |other| self.records.key(*other) == key);
            assert_eq!(indexed, Some(&slot), "a live cell is not what the index has for its key");
            expiring += usize::from(self.records.expires(slot));
            live += 1;
        }
        assert_eq!((live, live), (self.index.len(), listed));
        assert_eq!(expiring, self.wheel.len());
    }
}

fn ttl_end(ttl: Ttl, now: Now) -> Option<u64> {
    match ttl {
        Ttl::Never => None,
        Ttl::Ms(ms) => Some(now.ticks_ms + ms),
    }
}

/// An engine time as wall time.
fn unix_ms(expires_at: Option<u64>, now: Now) -> Option<u64> {
    expires_at.map(|at| now.unix_ms() + (at - now.ticks_ms))
}
