//! What a shard keeps for each namespace: its policy, its counters, its weight, and which of its entries are dead.

use std::collections::{BTreeSet, HashMap};

use foldhash::quality::RandomState;

use crate::engine::eviction::{AnyPolicy, Policy, PolicyName, SIDE_BYTES_MAX, SIDE_BYTES_MIN};
use crate::engine::namespace::{DEFAULT, Namespace};
use crate::engine::op::{MissReason, Refusal};
use crate::engine::record::Records;
use crate::engine::slot::Slot;
use crate::engine::stats::Stats;
use crate::engine::tags::PackedTags;
use crate::entry::Version;

/// A policy is resized when the bytes of its entries have changed by one part in this number.
const SIZE_PART_TOLD: u64 = 16;

/// A policy may take one part in this number of the limit beside the entries, where it would like to take more.
const SIDE_PART: u64 = 32;
/// The policies of all named namespaces together may take one part in this number of the shard's limit beside the
/// entries, …
const NAMED_SIDE_PART: u64 = 8;
/// … of which a new one gets one part in this number of what is left: the first get more than the last.
const LEFT_PART: u64 = 16;
/// A namespace may be added while all named ones take less than one part in this number of the limit beside their
/// entries.
const NAMED_PART: u64 = 4;

fn side_bytes(bytes_limit: u64) -> usize {
    (bytes_limit / SIDE_PART).min(SIDE_BYTES_MAX as u64) as usize
}

/// A namespace's share of a shard.
#[derive(Debug)]
pub(super) struct NamespaceShard {
    pub namespace: Namespace,
    pub policy: AnyPolicy,
    /// The policy before, while it still has entries.
    pub retiring: Option<AnyPolicy>,
    /// What an entry's handed-over attribute is if `policy` has it.
    pub present: bool,
    pub counts: Stats,
    pub entries: u64,
    /// What its entries weigh.
    pub bytes: u64,
    pub invalidations: Invalidations,
    told_bytes: u64,
    /// What the policy may take beside the entries however few they are.
    side_bytes_max: usize,
}

impl NamespaceShard {
    /// For the namespace that is always there.
    pub(super) fn of_default(namespace: Namespace, bytes_limit: u64) -> Self {
        Self::new(namespace, bytes_limit, side_bytes(bytes_limit))
    }

    fn new(namespace: Namespace, bytes_limit: u64, side_bytes_max: usize) -> Self {
        Self {
            policy: AnyPolicy::new(namespace.policy(), bytes_limit, 0, side_bytes_max),
            side_bytes_max,
            namespace,
            retiring: None,
            present: false,
            counts: Stats::default(),
            entries: 0,
            bytes: 0,
            invalidations: Invalidations::default(),
            told_bytes: bytes_limit,
        }
    }

    /// The policy that has this entry.
    #[inline]
    pub(super) fn policy_for(&mut self, records: &Records, slot: Slot) -> &mut AnyPolicy {
        match &mut self.retiring {
            Some(retiring) if records.handed_over(slot) != self.present => retiring,
            _ => &mut self.policy,
        }
    }

    /// An entry was used: whichever policy has it notes that.
    #[inline]
    pub(super) fn hit(&mut self, records: &mut Records, slot: Slot) {
        self.policy_for(records, slot).hit(records, slot);
    }

    /// An entry was given another time to live.
    pub(super) fn rewritten(&mut self, records: &mut Records, slot: Slot) {
        self.policy_for(records, slot).rewritten(records, slot);
    }

    /// Starts to hand entries over to another policy; which one it was before.
    pub(super) fn set_policy(&mut self, name: PolicyName, records: &mut Records) -> PolicyName {
        let previous = self.policy.name();
        if previous == name {
            return previous;
        }
        while self.retiring.is_some() {
            self.hand_over_one(records);
        }
        if self.namespace.number() == DEFAULT {
            self.side_bytes_max = side_bytes(self.told_bytes);
        }
        let next = AnyPolicy::new(name, self.told_bytes, self.entries as usize, self.side_bytes_max);
        self.retiring = Some(std::mem::replace(&mut self.policy, next));
        self.present = !self.present;
        previous
    }

    /// Gives one entry of the retiring policy to the present one. False when there is none.
    pub(super) fn hand_over_one(&mut self, records: &mut Records) -> bool {
        use crate::engine::eviction::Slots;
        let Some(retiring) = &mut self.retiring else { return false };
        let Some(slot) = retiring.hand_over(records) else {
            self.retiring = None;
            return false;
        };
        records.set_mark(slot, 0);
        records.set_handed_over(slot, self.present);
        self.policy.insert(records, slot, records.hash(slot));
        true
    }

    /// The entry that goes next, the retiring policy's first; it has left the policy.
    pub(super) fn victim(&mut self, records: &mut Records) -> Option<Slot> {
        if self.bytes.abs_diff(self.told_bytes) > self.told_bytes / SIZE_PART_TOLD {
            // Room is short, so what the entries weigh now is what they may weigh.
            self.told_bytes = self.bytes;
            self.policy.resize(self.bytes);
        }
        let retired = self.retiring.as_mut().and_then(|retiring| retiring.evict(records));
        retired.or_else(|| self.policy.evict(records))
    }

    /// What there is beside its entries: the policies' tables and, where it is not the one that a shard always has,
    /// itself.
    #[inline]
    pub(super) fn side_bytes(&self) -> u64 {
        let own = if self.namespace.number() == DEFAULT { 0 } else { size_of::<Self>() as u64 };
        own + self.policy.side_bytes() + self.retiring.as_ref().map_or(0, Policy::side_bytes)
    }

    #[inline]
    fn beside_bytes(&self) -> u64 {
        self.side_bytes() + self.invalidations.bytes()
    }

    pub(super) fn charge(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.namespace.charge(bytes);
    }

    pub(super) fn refund(&mut self, bytes: u64) {
        self.bytes -= bytes;
        self.namespace.refund(bytes);
    }

    pub(super) fn stats(&self) -> Stats {
        Stats { entries: self.entries, bytes_used: self.bytes, ..self.counts }
    }
}

/// Which entries of a namespace are dead although they are still there: those that an invalidation covers which
/// the sweep has not been everywhere for. An entry is dead if it is not newer than the invalidation.
#[derive(Debug, Default)]
pub(super) struct Invalidations {
    all: Option<Invalidation>,
    all_reason: Option<MissReason>,
    prefixes: HashMap<Box<[u8]>, Invalidation, RandomState>,
    /// The distinct lengths of the prefixes, the shortest first: each costs every look at an entry a look-up.
    lengths: Vec<usize>,
    tags: HashMap<Box<str>, Invalidation, RandomState>,
    /// What prefixes and tags take.
    bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Invalidation {
    until: Version,
    /// When this round of the sweep is done, no entry that this covers is left.
    round: u64,
}

/// What an invalidation covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Entries whose keys begin with this.
    Prefix(&'a [u8]),
    /// Entries that were set with this tag.
    Tag(&'a str),
    /// All entries.
    All,
}

/// The most lengths that the prefixes that are not yet swept may have.
const LENGTHS_MAX: usize = 64;
/// What a prefix or a tag takes beside its text: its place in a map that is half full, and what the allocator rounds.
const INVALIDATION_BYTES: u64 = 96;

impl Invalidations {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_none() && self.prefixes.is_empty() && self.tags.is_empty()
    }

    pub(super) fn invalidate_all(&mut self, until: Version, round: u64, reason: MissReason) {
        // Whatever else was killed before is covered.
        *self =
            Self { all: Some(Invalidation { until, round }), all_reason: Some(reason), ..Self::default() };
    }

    pub(super) fn invalidate_prefix(&mut self, prefix: &[u8], until: Version, round: u64) {
        if self.prefixes.insert(prefix.into(), Invalidation { until, round }).is_none() {
            self.bytes += prefix.len() as u64 + INVALIDATION_BYTES;
        }
        if let Err(place) = self.lengths.binary_search(&prefix.len()) {
            self.lengths.insert(place, prefix.len());
        }
    }

    pub(super) fn invalidate_tag(&mut self, tag: &str, until: Version, round: u64) {
        if self.tags.insert(tag.into(), Invalidation { until, round }).is_none() {
            self.bytes += tag.len() as u64 + INVALIDATION_BYTES;
        }
    }

    /// Whether it is not of a length too many.
    pub(super) fn takes_length(&self, scope: Scope<'_>) -> Result<(), Refusal> {
        let Scope::Prefix(prefix) = scope else { return Ok(()) };
        if self.lengths.len() < LENGTHS_MAX || self.lengths.binary_search(&prefix.len()).is_ok() {
            return Ok(());
        }
        Err(Refusal::UnsweptLengths { limit: LENGTHS_MAX })
    }

    /// Why an entry is dead, if it is.
    pub(super) fn reason<'a>(
        &self,
        key: &[u8],
        version: Version,
        tags: impl FnOnce() -> PackedTags<'a>,
    ) -> Option<MissReason> {
        let covers = |found: Option<&Invalidation>| found.is_some_and(|found| version <= found.until);
        if covers(self.all.as_ref()) {
            return self.all_reason;
        }
        let mut prefixes = self.lengths.iter().map_while(|length| key.get(..*length));
        let is_dead = prefixes.any(|prefix| covers(self.prefixes.get(prefix)))
            || !self.tags.is_empty() && tags().names().any(|tag| covers(self.tags.get(tag)));
        is_dead.then_some(MissReason::Invalidated)
    }

    /// The sweep has been everywhere in this round.
    pub(super) fn swept(&mut self, round: u64) {
        if self.all.is_some_and(|killed| killed.round <= round) {
            self.all = None;
        }
        self.prefixes.retain(|_, killed| killed.round > round);
        self.tags.retain(|_, killed| killed.round > round);
        self.prefixes.shrink_to_fit();
        self.tags.shrink_to_fit();
        let lengths: BTreeSet<usize> = self.prefixes.keys().map(|prefix| prefix.len()).collect();
        self.lengths = lengths.into_iter().collect();
        let texts = self.prefixes.keys().map(|prefix| prefix.len());
        self.bytes = texts
            .chain(self.tags.keys().map(|tag| tag.len()))
            .map(|text| text as u64 + INVALIDATION_BYTES)
            .sum();
    }

    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// A shard's spaces, by the namespaces' numbers.
#[derive(Debug)]
pub(super) struct NamespaceShards {
    default: NamespaceShard,
    /// Those of the other namespaces that have been stored to here; number 1 comes first.
    named: Vec<Option<Box<NamespaceShard>>>,
    /// The named one that was asked for to be changed last; 0: none.
    changing: u16,
    /// What all other named ones take beside their entries: only one that was asked for changes.
    settled_bytes: u64,
}

impl NamespaceShards {
    pub(super) fn new(default: NamespaceShard) -> Self {
        Self { default, named: Vec::new(), changing: DEFAULT, settled_bytes: 0 }
    }

    #[inline]
    pub(super) fn get(&self, number: u16) -> Option<&NamespaceShard> {
        match number.checked_sub(1) {
            None => Some(&self.default),
            Some(index) => self.named.get(usize::from(index))?.as_deref(),
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u16) -> Option<&mut NamespaceShard> {
        let Some(index) = number.checked_sub(1) else { return Some(&mut self.default) };
        if self.changing != number {
            self.settle_for(number);
        }
        self.named.get_mut(usize::from(index))?.as_deref_mut()
    }

    /// The space of an entry that is there.
    #[inline]
    pub(super) fn of(&mut self, number: u16) -> &mut NamespaceShard {
        self.get_mut(number).expect("an entry's namespace has a space")
    }

    /// Adds a namespace whose entries may take `cap` bytes to a shard with a limit of `bytes_limit` bytes.
    ///
    /// # Errors
    /// What the named ones take beside their entries is as much as it may be.
    pub(super) fn add(&mut self, namespace: &Namespace, cap: u64, bytes_limit: u64) -> Result<(), Refusal> {
        let (bytes, limit) = (self.named_bytes(), bytes_limit / NAMED_PART);
        if bytes >= limit {
            return Err(Refusal::NamespacesTakeTooMuch { bytes, limit });
        }
        let given: u64 = self.named.iter().flatten().map(|space| space.side_bytes_max as u64).sum();
        let left = (bytes_limit / NAMED_SIDE_PART).saturating_sub(given);
        let wanted = (left / LEFT_PART).max(SIDE_BYTES_MIN as u64).min(side_bytes(cap) as u64);
        let side_bytes_max = if wanted <= left { wanted as usize } else { 0 };
        let index = usize::from(namespace.number() - 1);
        if self.named.len() <= index {
            self.named.resize_with(index + 1, || None);
        }
        self.settle_for(namespace.number());
        self.named[index] = Some(Box::new(NamespaceShard::new(namespace.clone(), cap, side_bytes_max)));
        Ok(())
    }

    pub(super) fn remove(&mut self, number: u16) -> Option<Box<NamespaceShard>> {
        let index = usize::from(number.checked_sub(1)?);
        self.settle_for(DEFAULT);
        let removed = self.named.get_mut(index)?.take()?;
        self.settled_bytes -= removed.beside_bytes();
        while self.named.pop_if(|last| last.is_none()).is_some() {}
        Some(removed)
    }

    /// What there is beside the entries.
    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        self.default.beside_bytes() + self.named_bytes()
    }

    #[inline]
    fn named_bytes(&self) -> u64 {
        let changing = if self.changing == DEFAULT { None } else { self.get(self.changing) };
        self.settled_bytes + changing.map_or(0, NamespaceShard::beside_bytes)
    }

    pub(super) fn is_only_default(&self) -> bool {
        self.named.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &NamespaceShard> {
        std::iter::once(&self.default).chain(self.named.iter().flatten().map(|space| &**space))
    }

    /// The sweep has been everywhere in this round.
    pub(super) fn swept(&mut self, round: u64) {
        let named = self.named.iter_mut().flatten().map(|space| &mut **space);
        std::iter::once(&mut self.default).chain(named).for_each(|space| space.invalidations.swept(round));
        self.changing = DEFAULT;
        self.settled_bytes = self.named.iter().flatten().map(|space| space.beside_bytes()).sum();
    }

    /// What the space takes that was changed last is added to the others, as the next is about to be changed.
    fn settle_for(&mut self, next: u16) {
        self.settled_bytes = self.named_bytes();
        self.changing = next;
        if next != DEFAULT {
            self.settled_bytes -= self.get(next).map_or(0, NamespaceShard::beside_bytes);
        }
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn validate(&self) {
        let named: u64 = self.named.iter().flatten().map(|space| space.beside_bytes()).sum();
        assert_eq!(self.named_bytes(), named);
    }
}
