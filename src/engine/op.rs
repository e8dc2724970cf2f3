//! The whole data plane as two enums: an [`Op`] goes in, an [`Outcome`] comes out.
//!
//! An outcome is what the caller asked to know; a miss or an unmet condition is an outcome, not an error. What a
//! journal writes of an operation is in [`log`](super::log).

use std::convert::Infallible;

use bytes::Bytes;

use super::record::is_large;
pub use crate::entry::MissReason;
use crate::entry::{Ttl, Version};

/// One operation on one key.
#[derive(Debug, Clone, Copy)]
pub enum Op<'a> {
    /// Reads an entry; with `touch` it gets a new time to live as well.
    Get {
        /// The key.
        key: &'a [u8],
        /// The new time to live of an entry that is found.
        touch: Option<Ttl>,
    },
    /// Stores an entry.
    Set(Set<'a>),
    /// Removes an entry.
    Delete {
        /// The key.
        key: &'a [u8],
        /// Only if the entry has this version.
        if_version: Option<Version>,
    },
    /// Adds to a counter.
    Increment(Increment<'a>),
    /// Gives an entry a new time to live.
    Touch {
        /// The key.
        key: &'a [u8],
        /// The new time to live.
        ttl: Ttl,
    },
}

impl<'a> Op<'a> {
    /// The key.
    #[must_use]
    #[inline]
    pub fn key(&self) -> &'a [u8] {
        match self {
            Self::Get { key, .. } | Self::Delete { key, .. } | Self::Touch { key, .. } => key,
            Self::Set(set) => set.key,
            Self::Increment(increment) => increment.key,
        }
    }

    /// Whether what it comes to depends on the entry that is there.
    #[must_use]
    pub fn needs_entry(&self) -> bool {
        match self {
            Self::Set(set) => set.condition != Condition::Always || set.expiration == Expiration::Keep,
            _ => true,
        }
    }

    /// Whether it may store an entry where there is none.
    #[must_use]
    pub fn may_add_entry(&self) -> bool {
        match self {
            Self::Set(set) => matches!(set.condition, Condition::Always | Condition::IfAbsent),
            Self::Increment(_) => true,
            Self::Get { .. } | Self::Delete { .. } | Self::Touch { .. } => false,
        }
    }

    /// A copy of a value that is too large for a cell, in an allocation of its own.
    #[inline]
    pub(super) fn large_value(&self) -> Option<Bytes> {
        match self {
            Self::Set(set) if is_large(set.value, set.key, set.content_type, set.tags) => {
                Some(Bytes::copy_from_slice(set.value))
            }
            _ => None,
        }
    }
}

/// The Set operation.
#[derive(Debug, Clone, Copy)]
pub struct Set<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value. It is copied; nothing of the caller's buffer is kept.
    pub value: &'a [u8],
    /// When the entry expires.
    pub expiration: Expiration,
    /// What must hold for the entry to be stored.
    pub condition: Condition,
    /// The client's own number, kept with the entry; 0 takes no room.
    pub flags: u32,
    /// The client's own content type, at most 255 bytes; empty takes no room.
    pub content_type: &'a str,
    /// Names under which the entry can be invalidated together with others, at most 16; a repeated one counts once.
    pub tags: &'a [&'a str],
}

impl<'a> Set<'a> {
    /// Key and value; no condition, the default expiry, no flags, no content type.
    #[must_use]
    pub fn new(key: &'a [u8], value: &'a [u8]) -> Self {
        Self {
            key,
            value,
            expiration: Expiration::Default,
            condition: Condition::Always,
            flags: 0,
            content_type: "",
            tags: &[],
        }
    }
}

/// When a stored entry expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiration {
    /// After the namespace's default time to live, if it has one.
    Default,
    /// After this time to live.
    In(Ttl),
    /// At this wall time, in ms since 1970; a time that is past stores nothing and deletes what was there.
    AtUnixMs(u64),
    /// When the entry that it replaces would have; a new entry takes the default.
    Keep,
}

/// What must hold for a Set to store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// There is no entry.
    IfAbsent,
    /// There is an entry.
    IfPresent,
    /// The entry has this version.
    IfVersion(Version),
}

/// The Increment operation; a Decrement is one with a negative `delta`.
#[derive(Debug, Clone, Copy)]
pub struct Increment<'a> {
    /// The key.
    pub key: &'a [u8],
    /// What to add. Wider than the counter, so that −(i64::MIN) can be said.
    pub delta: i128,
    /// What a missing key counts as before adding.
    pub initial: i64,
    /// The expiry of a counter that is made; one that exists keeps its own.
    pub expiration: Expiration,
    /// Applied at most once per key and request id within ten minutes (bounded); empty: no such check.
    pub request_id: &'a str,
}

/// What an operation came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Get: the entry.
    Hit(Hit),
    /// Get: there is none, and why as far as is known.
    Miss(MissReason),
    /// Set: stored under this version.
    Stored(Version),
    /// Set: the condition did not hold; the version of what is there, [`Version::NONE`] if nothing is.
    NotStored(Version),
    /// Set, Increment of a missing key: the time that it was to expire at has passed. Nothing is stored, and what a Set
    /// would have replaced is gone.
    Expired,
    /// Delete: whether there was an entry to remove.
    Deleted(bool),
    /// Delete: the condition did not hold; the version of what is there.
    NotDeleted(Version),
    /// Increment: the counter's new value.
    Counted {
        /// The new value.
        value: i64,
        /// The entry's new version.
        version: Version,
    },
    /// Touch: whether there was an entry.
    Touched(bool),
    /// The operation cannot be done; nothing was changed.
    Refused(Refusal),
}

/// Why an operation cannot be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Increment of a value that is no decimal integer of 64 bits.
    NotAnInteger,
    /// The sum does not fit 64 bits.
    CounterOverflow {
        /// The counter's value, which stays.
        current: i64,
    },
    /// The entry does not fit what a shard may hold, even when it is empty.
    TooLarge {
        /// What the entry needs, in bytes.
        needs: u64,
        /// What a shard may hold, in bytes.
        limit: u64,
    },
    /// Invalidate: too many invalidations wait to be swept, so that no more can be noted now.
    Unswept {
        /// What a shard has noted of them, in bytes.
        bytes: u64,
        /// What it may note, in bytes.
        limit: u64,
    },
    /// Invalidate: the prefixes that wait to be swept have too many lengths: one more would make lookups too slow.
    UnsweptLengths {
        /// How many lengths they may have.
        limit: usize,
    },
    /// What a shard keeps for namespaces beside their entries is as much as it may be, so that one more finds no room.
    NamespacesTakeTooMuch {
        /// What it is, in bytes.
        bytes: u64,
        /// What it may be, in bytes.
        limit: u64,
    },
    /// To know where entries lie on disk takes as much memory as it may, so that no new key is stored.
    PlacesOnDiskFull {
        /// What it takes, in bytes.
        bytes: u64,
        /// What it may take, in bytes.
        limit: u64,
    },
    /// The namespace was deleted meanwhile.
    NoNamespace,
    /// There is no version above those that were drawn.
    NoVersion,
    /// Changes can no longer be kept on disk: memory and disk must not part.
    Poisoned,
    /// The entry lies on disk, and cannot be read.
    Unreadable,
    /// The entry lies on disk, and cannot be read for want of descriptors or memory: it can in a moment.
    Shortage,
    /// What may be on disk is there already.
    DiskLimit,
    /// Changes come faster than the disk takes them.
    Backlogged {
        /// Bytes that wait.
        bytes: u64,
    },
}

/// Why a lookup has found nothing to read in memory. `Load` is what loads the entry; in a `NotRead<Infallible>` there is
/// nothing to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRead<Load = Infallible> {
    /// There is no entry, and why as far as is known.
    Miss(MissReason),
    /// It was not admitted.
    Refused(Refusal),
    /// The entry may lie somewhere else, and is to be loaded by this.
    NeedsLoad(Load),
}

impl<Load> NotRead<Load> {
    /// The same, with another way to load.
    pub fn map_load<Other>(self, map: impl FnOnce(Load) -> Other) -> NotRead<Other> {
        match self {
            Self::Miss(reason) => NotRead::Miss(reason),
            Self::Refused(refusal) => NotRead::Refused(refusal),
            Self::NeedsLoad(load) => NotRead::NeedsLoad(map(load)),
        }
    }

    /// What is settled: a miss or a refusal.
    ///
    /// # Errors
    /// The entry has to be loaded.
    pub fn settled(self) -> Result<NotRead, Load> {
        match self {
            Self::Miss(reason) => Ok(NotRead::Miss(reason)),
            Self::Refused(refusal) => Ok(NotRead::Refused(refusal)),
            Self::NeedsLoad(load) => Err(load),
        }
    }
}

/// An entry as it was read, with its own copy of a small value or a shared reference to a large one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The value.
    pub value: Bytes,
    /// The entry's version.
    pub version: Version,
    /// What is left of its time to live, rounded up; 0 = it does not expire.
    pub remaining_ttl_ms: u64,
    /// The client's own number.
    pub flags: u32,
    /// The client's own content type.
    pub content_type: String,
}

/// An entry under the shard's lock, for callers that write it straight to where it goes.
#[derive(Debug, Clone, Copy)]
pub struct EntryView<'a> {
    /// The value.
    pub value: ValueView<'a>,
    /// The entry's version.
    pub version: Version,
    /// What is left of its time to live, rounded up; 0 = it does not expire.
    pub remaining_ttl_ms: u64,
    /// The client's own number.
    pub flags: u32,
    /// The client's own content type.
    pub content_type: &'a str,
    /// Where it was found.
    pub tier: Tier,
}

/// Where an entry was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// In memory.
    Memory,
    /// On disk.
    Disk,
}

/// A value under the shard's lock.
#[derive(Debug, Clone, Copy)]
pub enum ValueView<'a> {
    /// A small value, in the shard's own memory: copy it.
    Inline(&'a [u8]),
    /// A large value in an allocation of its own: clone the reference.
    Shared(&'a Bytes),
}

impl ValueView<'_> {
    /// The value's bytes.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    /// The value as an owned buffer: a copy of a small one, a reference to a large one.
    #[inline]
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Inline(bytes) => Bytes::copy_from_slice(bytes),
            Self::Shared(bytes) => (*bytes).clone(),
        }
    }
}

impl EntryView<'_> {
    /// The entry as an owned [`Hit`].
    #[must_use]
    pub fn to_hit(&self) -> Hit {
        Hit {
            value: self.value.to_bytes(),
            version: self.version,
            remaining_ttl_ms: self.remaining_ttl_ms,
            flags: self.flags,
            content_type: self.content_type.to_owned(),
        }
    }
}
