//! What a shard keeps for each namespace: its policy, its counters, its weight, and which of its entries are dead.

use std::collections::HashMap;

use crate::engine::eviction::{AnyPolicy, Policy, PolicyName, SIDE_BYTES_MAX};
use crate::engine::namespace::Namespace;
use crate::engine::op::MissReason;
use crate::engine::record::Records;
use crate::engine::stats::Stats;
use crate::entry::Version;

/// A policy is told its size again when that has changed by one part in so many.
const SIZE_PART_TOLD: u64 = 16;

/// A policy may take one part in so many beside the entries where it would like to take more.
const SIDE_PART: u64 = 32;

fn side_bytes(bytes_limit: u64) -> usize {
    (bytes_limit / SIDE_PART).min(SIDE_BYTES_MAX as u64) as usize
}

/// A namespace's share of a shard.
#[derive(Debug)]
pub(super) struct Space {
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
    pub dead: Dead,
    told_bytes: u64,
}

impl Space {
    pub(super) fn new(namespace: Namespace, bytes_limit: u64) -> Self {
        Self {
            policy: AnyPolicy::new(namespace.policy(), bytes_limit, 0, side_bytes(bytes_limit)),
            namespace,
            retiring: None,
            present: false,
            counts: Stats::default(),
            entries: 0,
            bytes: 0,
            dead: Dead::default(),
            told_bytes: bytes_limit,
        }
    }

    /// The policy that has this entry.
    #[inline]
    pub(super) fn policy_for(&mut self, records: &Records, slot: u32) -> &mut AnyPolicy {
        match &mut self.retiring {
            Some(retiring) if records.handed_over(slot) != self.present => retiring,
            _ => &mut self.policy,
        }
    }

    /// An entry was used: whichever policy has it notes that.
    #[inline]
    pub(super) fn hit(&mut self, records: &mut Records, slot: u32) {
        self.policy_for(records, slot).hit(records, slot);
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
        let next = AnyPolicy::new(name, self.told_bytes, self.entries as usize, side_bytes(self.told_bytes));
        self.retiring = Some(std::mem::replace(&mut self.policy, next));
        self.present = !self.present;
        previous
    }

    /// Gives one entry of the retiring policy to the present one. False when there is none.
    pub(super) fn hand_over_one(&mut self, records: &mut Records) -> bool {
    /// An entry was given another time to live.
    pub(super) fn rewritten(&mut self, records: &mut Records, slot: u32) {
        self.policy_for(records, slot).rewritten(records, slot);
    }

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
    pub(super) fn victim(&mut self, records: &mut Records) -> Option<u32> {
        if self.bytes.abs_diff(self.told_bytes) > self.told_bytes / SIZE_PART_TOLD {
            // Room is short, so what the entries weigh now is what they may weigh.
            self.told_bytes = self.bytes;
            self.policy.resize(self.bytes);
        }
        let retired = self.retiring.as_mut().and_then(|retiring| retiring.evict(records));
        retired.or_else(|| self.policy.evict(records))
    }

    #[inline]
    pub(super) fn side_bytes(&self) -> u64 {
        self.policy.side_bytes() + self.retiring.as_ref().map_or(0, Policy::side_bytes)
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
pub(super) struct Dead {
    all: Option<Killed>,
    all_reason: Option<MissReason>,
    prefixes: HashMap<Box<[u8]>, Killed>,
    /// The distinct lengths of the prefixes.
    lengths: Vec<usize>,
    /// A tag was invalidated, and the sweep has to go round until then.
    tags_until_round: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Killed {
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

impl Dead {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_none() && self.prefixes.is_empty() && self.tags_until_round.is_none()
    }

    pub(super) fn kill_all(&mut self, until: Version, round: u64, reason: MissReason) {
        self.all = Some(Killed { until, round });
        self.all_reason = Some(reason);
        // Whatever else was killed before is covered.
        self.prefixes.clear();
        self.lengths.clear();
    }

    pub(super) fn kill_prefix(&mut self, prefix: &[u8], until: Version, round: u64) {
        self.prefixes.insert(prefix.into(), Killed { until, round });
        if !self.lengths.contains(&prefix.len()) {
            self.lengths.push(prefix.len());
        }
    }

    pub(super) fn kill_tag(&mut self, round: u64) {
        self.tags_until_round = Some(round);
    }

    /// Why an entry is dead, if it is.
    pub(super) fn reason(
        &self,
        key: &[u8],
        version: Version,
        tags_are_dead: impl FnOnce() -> bool,
    ) -> Option<MissReason> {
        if self.all.is_some_and(|killed| version <= killed.until) {
            return self.all_reason;
        }
        let by_prefix = self.lengths.iter().any(|length| {
            let prefix = key.get(..*length).and_then(|prefix| self.prefixes.get(prefix));
            prefix.is_some_and(|killed| version <= killed.until)
        });
        let dead = by_prefix || self.tags_until_round.is_some() && tags_are_dead();
        dead.then_some(MissReason::Invalidated)
    }

    /// The sweep has been everywhere in this round.
    pub(super) fn swept(&mut self, round: u64) {
        if self.all.is_some_and(|killed| killed.round <= round) {
            self.all = None;
        }
        self.prefixes.retain(|_, killed| killed.round > round);
        self.lengths.retain(|length| self.prefixes.keys().any(|prefix| prefix.len() == *length));
        if self.tags_until_round.is_some_and(|until| until <= round) {
            self.tags_until_round = None;
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        if self.prefixes.is_empty() {
            return 0;
        }
        self.prefixes.keys().map(|prefix| prefix.len() as u64 + 64).sum()
    }
}

/// A shard's spaces, by the namespaces' numbers.
#[derive(Debug)]
pub(super) struct Spaces {
    default: Space,
    /// Those of the other namespaces that have been stored to here; number 1 comes first.
    named: Vec<Option<Box<Space>>>,
}

impl Spaces {
    pub(super) fn new(default: Space) -> Self {
        Self { default, named: Vec::new() }
    }

    #[inline]
    pub(super) fn get(&self, number: u16) -> Option<&Space> {
        match number.checked_sub(1) {
            None => Some(&self.default),
            Some(index) => self.named.get(usize::from(index))?.as_deref(),
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u16) -> Option<&mut Space> {
        match number.checked_sub(1) {
            None => Some(&mut self.default),
            Some(index) => self.named.get_mut(usize::from(index))?.as_deref_mut(),
        }
    }

    /// The space of an entry that is there.
    #[inline]
    pub(super) fn of(&mut self, number: u16) -> &mut Space {
        self.get_mut(number).expect("an entry's namespace has a space")
    }

    pub(super) fn add(&mut self, space: Space) {
        let index = usize::from(space.namespace.number() - 1);
        if self.named.len() <= index {
            self.named.resize_with(index + 1, || None);
        }
        self.named[index] = Some(Box::new(space));
    }

    pub(super) fn remove(&mut self, number: u16) -> Option<Box<Space>> {
        let index = usize::from(number.checked_sub(1)?);
        self.named.get_mut(index)?.take()
    }

    /// What there is beside the entries.
    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        let each = |space: &Space| space.side_bytes() + space.dead.bytes();
        each(&self.default) + self.named.iter().flatten().map(|space| each(space)).sum::<u64>()
    }

    pub(super) fn is_only_default(&self) -> bool {
        self.named.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Space> {
        std::iter::once(&self.default).chain(self.named.iter().flatten().map(|space| &**space))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Space> {
        std::iter::once(&mut self.default).chain(self.named.iter_mut().flatten().map(|space| &mut **space))
    }
}
