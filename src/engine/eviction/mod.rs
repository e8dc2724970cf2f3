//! Eviction policies: which entry goes when bytes run out.
//!
//! A policy sees slots, their weights in bytes, and hits; never keys or values. Its lists run through the
//! entries' own cells (two links and one byte of mark each), so that a policy costs no allocation per entry and
//! can be exchanged while serving: the new one takes the entries over from the old one's cold end, a few with
//! each operation, while the old one goes on choosing victims among those that it still has.
//!
//! To add a policy: one file with the algorithm, its paper and where it differs; a variant in [`PolicyName`] and
//! in [`AnyPolicy`]; the conformance tests in `tests.rs` then run over it too.

mod adaptive;
mod arc;
mod climber;
mod fifo;
mod ghost;
mod lfu;
mod list;
mod lru;
mod s3_fifo;
mod sieve;
mod sketch;
#[cfg(test)]
mod tests;
mod w_tinylfu;

use std::fmt;
use std::str::FromStr;

use adaptive::Adaptive;
pub use adaptive::Estimate;
use arc::Arc;
use fifo::Fifo;
use lfu::Lfu;
use lru::Lru;
use s3_fifo::S3Fifo;
use sieve::Sieve;
use w_tinylfu::WTinyLfu;

use crate::engine::slot::Slot;
use crate::quote::Quote;

/// What a policy may do with an entry: follow and set its links, keep a byte of its own, ask for its weight and
/// its key's hash.
pub(crate) trait Slots {
    /// The neighbours that the policy set.
    fn links(&self, slot: Slot) -> (Option<Slot>, Option<Slot>);
    fn set_prev(&mut self, slot: Slot, prev: Option<Slot>);
    fn set_next(&mut self, slot: Slot, next: Option<Slot>);
    /// The policy's own byte; 0 in a new entry.
    fn mark(&self, slot: Slot) -> u8;
    fn set_mark(&mut self, slot: Slot, mark: u8);
    /// The bytes that go when the entry goes.
    fn weight(&self, slot: Slot) -> u64;
    /// The hash of the entry's key.
    fn hash(&self, slot: Slot) -> u64;
    /// The entry is about to be looked at: its memory may be asked for.
    #[inline]
    fn prefetch(&self, _slot: Slot) {}
}

/// An eviction policy over slots.
pub(crate) trait Policy {
    /// A new entry and its key's hash. Its links are unset and its mark is 0.
    fn insert(&mut self, slots: &mut impl Slots, slot: Slot, hash: u64);
    /// An entry was looked up.
    fn hit(&mut self, slots: &mut impl Slots, slot: Slot);
    /// An entry was written again, or was given another time to live: that is a use of it, and no lookup.
    fn rewritten(&mut self, slots: &mut impl Slots, slot: Slot) {
        self.hit(slots, slot);
    }
    /// A key was looked up that has no entry; its hash.
    #[inline]
    fn missed(&mut self, _hash: u64) {}
    /// An entry leaves by another way than eviction.
    fn remove(&mut self, slots: &mut impl Slots, slot: Slot);
    /// Chooses the entry that goes, takes it out and remembers what it wants to of it. `None`: there is none.
    fn evict(&mut self, slots: &mut impl Slots) -> Option<Slot>;
    /// Takes out the entry that it values least, and forgets it: another policy takes it over.
    fn hand_over(&mut self, slots: &mut impl Slots) -> Option<Slot>;
    /// An entry, with links and mark, was copied from one slot to another.
    fn moved(&mut self, slots: &mut impl Slots, from: Slot, to: Slot);
    /// An entry's weight is another now than when it came.
    fn reweighed(&mut self, slots: &impl Slots, slot: Slot, was: u64);
    /// The bytes that entries may take in all.
    fn resize(&mut self, bytes_limit: u64);
    /// The bytes that the policy takes beside the entries, or will with the next entry and the one after.
    fn side_bytes(&self) -> u64;
    /// What it thinks of an entry that it has, for people.
    fn view(&self, slots: &impl Slots, slot: Slot) -> String;
    /// Entries that it has.
    #[cfg(any(test, debug_assertions))]
    fn len(&self) -> usize;
    /// Their weights.
    #[cfg(test)]
    fn bytes(&self) -> u64;
    /// Checks its lists and counts.
    #[cfg(any(test, debug_assertions))]
    fn validate(&self, slots: &impl Slots);
}

/// A policy's name, as flags, the wire and labels write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PolicyName {
    /// The least recently used entry goes.
    Lru,
    /// The least frequently used entry goes.
    Lfu,
    /// The oldest entry goes.
    Fifo,
    /// SIEVE: the oldest entry goes that was not asked for since a hand passed it.
    Sieve,
    /// S3-FIFO: new entries prove themselves in a small queue first.
    S3Fifo,
    /// W-TinyLFU: an entry stays if its key is asked for more often than that of the entry that would go for it.
    WTinyLfu,
    /// ARC: lists of recent and of frequent entries, whose shares follow what comes back.
    Arc,
    /// Adaptive: two queues whose rules follow the load.
    Adaptive,
}

/// A name that is no policy's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no policy {name}; there are {}", PolicyName::list())]
pub struct UnknownPolicy {
    /// What was asked for.
    pub name: Quote,
}

impl PolicyName {
    /// The policies that this build serves.
    pub const ALL: [Self; 8] = [
        Self::Lru,
        Self::Lfu,
        Self::Fifo,
        Self::Sieve,
        Self::S3Fifo,
        Self::WTinyLfu,
        Self::Arc,
        Self::Adaptive,
    ];
    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Lfu => "lfu",
            Self::Fifo => "fifo",
            Self::Sieve => "sieve",
            Self::S3Fifo => "s3-fifo",
            Self::WTinyLfu => "w-tinylfu",
            Self::Arc => "arc",
            Self::Adaptive => "adaptive",
        }
    }

    /// The names of all, for error messages.
    #[must_use]
    pub fn list() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl FromStr for PolicyName {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        let found = Self::ALL.into_iter().find(|policy| policy.as_str() == name);
        found.ok_or_else(|| UnknownPolicy { name: Quote::of(name) })
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// With less than this a policy does without what it would like to take beside its entries.
pub(crate) const SIDE_BYTES_MIN: usize = adaptive::SIDE_BYTES_MIN;
/// What a policy may take beside its entries for few of them to be judged as well as many, at most.
pub(crate) const SIDE_BYTES_MAX: usize = 128 << 10;

/// Any of the policies, chosen at run time without a virtual call.
#[derive(Debug)]
pub(crate) enum AnyPolicy {
    Lru(Lru),
    Lfu(Lfu),
    Fifo(Fifo),
    Sieve(Sieve),
    S3Fifo(S3Fifo),
    WTinyLfu(WTinyLfu),
    Arc(Arc),
    Adaptive(Adaptive),
}

macro_rules! each {
    ($any:expr, $policy:ident => $body:expr) => {
        match $any {
            AnyPolicy::Lru($policy) => $body,
            AnyPolicy::Lfu($policy) => $body,
            AnyPolicy::Fifo($policy) => $body,
            AnyPolicy::Sieve($policy) => $body,
            AnyPolicy::S3Fifo($policy) => $body,
            AnyPolicy::WTinyLfu($policy) => $body,
            AnyPolicy::Arc($policy) => $body,
            AnyPolicy::Adaptive($policy) => $body,
        }
    };
}

impl AnyPolicy {
    /// A policy for entries of `bytes_limit` bytes in all, which is about to take over `entries` entries. However few
    /// they are, it may take `side_bytes` bytes beside them; 0: as little as it can do with.
    pub(crate) fn new(name: PolicyName, bytes_limit: u64, entries: usize, side_bytes: usize) -> Self {
        match name {
            PolicyName::Lru => Self::Lru(Lru::new()),
            PolicyName::Lfu => Self::Lfu(Lfu::new()),
            PolicyName::Fifo => Self::Fifo(Fifo::new()),
            PolicyName::Sieve => Self::Sieve(Sieve::new()),
            PolicyName::S3Fifo => Self::S3Fifo(S3Fifo::new(bytes_limit)),
            PolicyName::WTinyLfu => Self::WTinyLfu(WTinyLfu::new(bytes_limit, entries)),
            PolicyName::Arc => Self::Arc(Arc::new()),
            PolicyName::Adaptive => Self::Adaptive(Adaptive::new(side_bytes)),
        }
    }

    pub(crate) fn name(&self) -> PolicyName {
        match self {
            Self::Lru(_) => PolicyName::Lru,
            Self::Lfu(_) => PolicyName::Lfu,
            Self::Fifo(_) => PolicyName::Fifo,
            Self::Sieve(_) => PolicyName::Sieve,
            Self::S3Fifo(_) => PolicyName::S3Fifo,
            Self::WTinyLfu(_) => PolicyName::WTinyLfu,
            Self::Arc(_) => PolicyName::Arc,
            Self::Adaptive(_) => PolicyName::Adaptive,
        }
    }

    /// What a policy that tries several ways believes of each; empty for the others.
    pub(crate) fn estimates(&self) -> Vec<Estimate> {
        match self {
            Self::Adaptive(policy) => policy.estimates(),
            _ => Vec::new(),
        }
    }
}

impl Policy for AnyPolicy {
    #[inline]
    fn insert(&mut self, slots: &mut impl Slots, slot: Slot, hash: u64) {
        each!(self, policy => policy.insert(slots, slot, hash));
    }

    #[inline]
    fn hit(&mut self, slots: &mut impl Slots, slot: Slot) {
        each!(self, policy => policy.hit(slots, slot));
    }

    fn rewritten(&mut self, slots: &mut impl Slots, slot: Slot) {
        each!(self, policy => policy.rewritten(slots, slot));
    }

    #[inline]
    fn missed(&mut self, hash: u64) {
        each!(self, policy => policy.missed(hash));
    }

    fn remove(&mut self, slots: &mut impl Slots, slot: Slot) {
        each!(self, policy => policy.remove(slots, slot));
    }

    fn evict(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        each!(self, policy => policy.evict(slots))
    }

    fn hand_over(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        each!(self, policy => policy.hand_over(slots))
    }

    fn moved(&mut self, slots: &mut impl Slots, from: Slot, to: Slot) {
        each!(self, policy => policy.moved(slots, from, to));
    }

    fn reweighed(&mut self, slots: &impl Slots, slot: Slot, was: u64) {
        each!(self, policy => policy.reweighed(slots, slot, was));
    }

    fn resize(&mut self, bytes_limit: u64) {
        each!(self, policy => policy.resize(bytes_limit));
    }

    fn side_bytes(&self) -> u64 {
        each!(self, policy => policy.side_bytes())
    }

    fn view(&self, slots: &impl Slots, slot: Slot) -> String {
        each!(self, policy => policy.view(slots, slot))
    }

    #[cfg(any(test, debug_assertions))]
    fn len(&self) -> usize {
        each!(self, policy => policy.len())
    }

    #[cfg(test)]
    fn bytes(&self) -> u64 {
        each!(self, policy => policy.bytes())
    }

    #[cfg(any(test, debug_assertions))]
    fn validate(&self, slots: &impl Slots) {
        each!(self, policy => policy.validate(slots));
    }
}
