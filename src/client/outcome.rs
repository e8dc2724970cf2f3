//! What calls come to: the library's own types, which stay as they are when the contract's messages grow.
//!
//! They are made of the generated messages in `convert.rs` alone.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::error::Refusal;
use crate::entry::{MissReason, Version};

/// What a Get came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GetOutcome {
    /// The entry is there, and fresh.
    Hit(Hit),
    /// The entry is there, past its soft time to live by no more than the caller accepts.
    Stale(Hit),
    /// There is none, or none that may be served.
    Miss(MissReason),
}

impl GetOutcome {
    /// The entry that was found, fresh or stale.
    #[must_use]
    pub fn entry(&self) -> Option<&Hit> {
        match self {
            Self::Hit(hit) | Self::Stale(hit) => Some(hit),
            Self::Miss(_) => None,
        }
    }

    /// The value that was found, fresh or stale.
    #[must_use]
    pub fn into_value(self) -> Option<Bytes> {
        match self {
            Self::Hit(hit) | Self::Stale(hit) => Some(hit.value),
            Self::Miss(_) => None,
        }
    }
}

/// An entry that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hit {
    /// The value. Empty where it was not asked for. It shares the memory of the message that it came in: a caller that
    /// keeps it for long copies it.
    pub value: Bytes,
    /// The value's length in bytes, also where the value was not asked for.
    pub value_bytes: u64,
    /// The entry's version: the token for compare-and-set.
    pub version: Version,
    /// What is left of its time to live, rounded up to milliseconds. `None`: it never expires.
    pub remaining_ttl: Option<Duration>,
    /// The writer's own 32 bits; 0 where it gave none.
    pub flags: u32,
    /// The media type that the writer gave, up to 255 B. Empty: none.
    pub content_type: String,
    /// Where the entry was found.
    pub tier: Tier,
    /// How long the caller may answer from a copy of its own, counted from now, if Watch keeps that copy true. Zero: not at
    /// all.
    pub near_cache_ttl: Duration,
}

/// Where an entry was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tier {
    /// In the node's memory.
    Memory,
    /// On the node's disk.
    Disk,
    /// At the origin, by this call or one that this call waited for.
    Origin,
    /// In the client's own process, where a near cache keeps copies.
    NearCache,
    /// The node did not say, or said what this build does not know.
    Unknown,
}

impl Tier {
    /// Its name: `memory`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Origin => "origin",
            Self::NearCache => "near-cache",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a Set came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetOutcome {
    /// It was done; the new entry's version.
    Stored(Version),
    /// Nothing is stored.
    NotStored(NotStored),
}

/// Why a Set stored nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotStored {
    /// The condition was not met.
    ConditionNotMet {
        /// The version of the entry that is there; `None`: there is no entry.
        current: Option<Version>,
    },
    /// The time that the entry was to expire at has passed by the node's clock. What was there is deleted.
    Expired,
    /// The key's owner is out of service, and it is too early for another node to keep the entry in its place.
    OwnerDown,
}

/// What a Delete came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deletion {
    /// There was an entry, and it is gone.
    pub deleted: bool,
    /// The version that is there, where the condition was not met; `None`: it was met, or there is no entry.
    pub current: Option<Version>,
}

/// What a counter is after an Increment or Decrement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counter {
    /// Its new value.
    pub value: i64,
    /// The entry's new version.
    pub version: Version,
}

/// A page of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanPage {
    /// In no order that means anything. May be fewer than were asked for, even none, with more to come.
    pub items: Vec<ScanItem>,
    /// What to ask for the next page with; nothing for a caller to read. Empty: this was the last one.
    pub next_page_token: Bytes,
}

/// An entry of a Scan.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanItem {
    /// Its key.
    pub key: Bytes,
    /// The entry; its value is empty where the scan left values out.
    pub entry: Hit,
}

/// A blob that was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredBlob {
    /// Its version.
    pub version: Version,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// The SHA-256 of its content.
    pub sha256: [u8; 32],
}

/// What is known of a blob beside its content.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobInfo {
    /// Its key.
    pub key: Bytes,
    /// Its version.
    pub version: Version,
    /// Its whole length in bytes.
    pub size_bytes: u64,
    /// The SHA-256 of its whole content.
    pub sha256: [u8; 32],
    /// The media type that the writer gave, up to 255 B. Empty: none.
    pub content_type: String,
    /// What is left of its time to live, rounded up to milliseconds. `None`: it never expires.
    pub remaining_ttl: Option<Duration>,
}

/// A page of blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobPage {
    /// In the order of their keys. May be fewer than were asked for, even none, with more to come.
    pub blobs: Vec<BlobInfo>,
    /// What to ask for the next page with; nothing for a caller to read. Empty: this was the last one.
    pub next_page_token: Bytes,
}

/// The reply to one command of a Pipeline.
#[derive(Debug)]
#[non_exhaustive]
pub struct PipelineReply {
    /// The command's id.
    pub id: u64,
    /// The node id of the key's owner, where the command was passed on to it; empty: this node answered.
    pub owner: String,
    /// What the command came to, or the error that a call of its own would have ended with.
    pub result: Result<PipelineOutcome, Refusal>,
}

/// What a command of a Pipeline came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PipelineOutcome {
    /// Of a get.
    Get(GetOutcome),
    /// Of a set.
    Set(SetOutcome),
    /// Of a delete.
    Delete(Deletion),
    /// Of an increment or a decrement.
    Count(Counter),
    /// Of a touch: whether there is an entry, which has the new time to live.
    Touch(bool),
}
