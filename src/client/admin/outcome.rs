//! What Admin's calls come to, but for figures and settings: the library's own types, made of the generated messages in
//! `convert.rs` alone. A position counts the journal's changes; 0 is before the first.

use std::time::Duration;

use bytes::Bytes;
use tonic::Code;

use super::stats::NodeState;
use crate::client::Hit;
use crate::entry::MissReason;

/// A node that was asked to serve, and does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spawned {
    /// [`NodeState::Serving`].
    pub state: NodeState,
    /// The URLs of its data listeners, with the ports that were picked.
    pub addresses: Vec<String>,
}

/// A namespace's settings as they are in force.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceSettings {
    /// Its name, up to 255 B. Empty: the default one.
    pub name: String,
    /// Its cap in bytes; of the default namespace the node's limit. `None`: no cap of its own.
    pub bytes_limit: Option<u64>,
    /// Its eviction policy.
    pub policy: String,
    /// The time to live of what is stored in it without an expiration, up to 100 years. `None`: such entries never expire.
    pub default_ttl: Option<Duration>,
    /// How long clients may answer from their own copies of its entries without asking, up to 100 years. Zero: only while Watch
    /// keeps the copies true.
    pub near_cache_ttl: Duration,
}

/// What went with a namespace that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceDeletion {
    /// How many entries.
    pub entries: u64,
    /// How many blobs.
    pub blobs: u64,
}

/// A snapshot that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotTaken {
    /// The last journal position that it contains.
    pub position: u64,
    /// How many entries it holds.
    pub entries: u64,
    /// Its size on disk in bytes.
    pub size_bytes: u64,
}

/// A snapshot on disk: the whole content, over a stretch of journal positions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The name that the node gave it.
    pub name: String,
    /// The journal position at which it was begun.
    pub first_position: u64,
    /// The last journal position that it contains.
    pub position: u64,
    /// When it was completed, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// How many entries it holds.
    pub entries: u64,
    /// Its size on disk in bytes.
    pub size_bytes: u64,
    /// The version of its format, 1 or more.
    pub format: u32,
}

/// What a recovery would bring back. Nothing is damaged: that would have been an error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The method that was rehearsed.
    pub method: String,
    /// Entries that would be served.
    pub entries: u64,
    /// Their keys and values, in bytes.
    pub entry_bytes: u64,
    /// Entries that would be left out because their time to live has run out.
    pub entries_expired: u64,
    /// Blobs that would be served: those that were read to their end and are whole.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// The name of the snapshot that it would begin with. `None`: with none.
    pub snapshot: Option<String>,
    /// The first journal position that it would replay. 0: it would replay none.
    pub first_position: u64,
    /// The last position that it would reach.
    pub position: u64,
    /// Bytes of a torn tail that would be cut off. 0: the journal ends clean.
    pub torn_bytes: u64,
    /// How long the rehearsal took, in whole milliseconds.
    pub elapsed: Duration,
}

/// A journal that was compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compaction {
    /// The oldest journal position that is still kept. 0: none is.
    pub first_position: u64,
    /// Bytes that the disk has back.
    pub reclaimed_bytes: u64,
    /// Bytes on disk now, blobs included.
    pub disk_bytes: u64,
}

/// The hottest keys.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HotKeys {
    /// The hottest first, up to 100.
    pub keys: Vec<HotKey>,
    /// How many lookups they are counted over.
    pub lookups: u64,
    /// How far back those reach, in whole milliseconds.
    pub window: Duration,
}

/// One hot key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HotKey {
    /// The namespace, up to 255 B. Empty: the default one.
    pub namespace: String,
    /// The key, 1 B to 4 KiB.
    pub key: Bytes,
    /// How many lookups asked for it, about: one lookup in 16 is looked at, and stands for 16.
    pub count: u64,
    /// By how much [`count`](Self::count) may be off, in 99.7 % of cases.
    pub count_error: u64,
    /// Its value's length in bytes. 0 also where there is no entry now.
    pub value_bytes: u64,
}

/// The latest slow calls.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowOps {
    /// The newest first, up to 128.
    pub ops: Vec<SlowOp>,
    /// What a call has to take to be here, in whole milliseconds. `None`: none are kept.
    pub threshold: Option<Duration>,
    /// How many there were since the start, also those that are forgotten here.
    pub total: u64,
}

/// One slow call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowOp {
    /// The method's name: Get, BatchGet. A command of a Pipeline has that of its op.
    pub method: String,
    /// The namespace, up to 255 B. Empty: the default one.
    pub namespace: String,
    /// The key, cut to 256 B; of a batch, the first one. Empty: the call has none.
    pub key: Bytes,
    /// How many keys it had. 0: it has none.
    pub items: u32,
    /// When it came in, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// How long it took in all, in whole milliseconds.
    pub elapsed: Duration,
    /// How long of that it waited for its turn.
    pub queued: Duration,
    /// What it ended with.
    pub code: Code,
    /// The caller's address.
    pub peer: String,
    /// The trace that it belonged to, as W3C traceparent. Empty: none.
    pub traceparent: String,
}

/// Where a node's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryReport {
    /// The node's limit in bytes.
    pub bytes_limit: u64,
    /// Bytes charged to it.
    pub bytes_used: u64,
    /// What the allocator has given out, in bytes. `None`: it does not tell.
    pub allocated_bytes: Option<u64>,
    /// The process's resident memory in bytes. `None`: the operating system does not tell.
    pub resident_bytes: Option<u64>,
    /// Entries in memory.
    pub entries: u64,
    /// What uses them, the largest first. Parts do not overlap; what no part accounts for is the resident memory less their
    /// sum.
    pub parts: Vec<MemoryPart>,
    /// What could be done, the most useful first. Empty: nothing stands out.
    pub advice: Vec<MemoryAdvice>,
}

/// One use of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryPart {
    /// A stable name, such as `values`; more come as the program grows.
    pub name: String,
    /// How many bytes.
    pub bytes: u64,
    /// Whether they are charged to the limit.
    pub charged: bool,
}

/// Something that an operator could do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryAdvice {
    /// A stable name of the finding, for programs: UPPER_SNAKE_CASE.
    pub reason: String,
    /// The finding and the remedy, in English, with figures.
    pub description: String,
}

/// What a node knows of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyReport {
    /// The id of the node that answers.
    pub node_id: String,
    /// The id of the key's owner by this node's ring.
    pub owner: String,
    /// The key's position on the ring.
    pub ring_position: u64,
    /// The shard that it is in on this node, from 0.
    pub shard: u32,
    /// The entry, or why there is none that may be served.
    pub found: KeyFound,
    /// The namespace's eviction policy.
    pub policy: String,
    /// What the policy thinks of the entry, in its own words, for people. `None`: it does not know it.
    pub policy_view: Option<String>,
    /// The namespace's count of invalidations. 0: nothing was invalidated yet.
    pub generation: u64,
    /// What is left of the lease that somebody holds on the key, rounded up to milliseconds. `None`: nobody does.
    pub lease_remaining: Option<Duration>,
}

/// Whether there is an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyFound {
    /// There is one.
    Entry(Box<EntryReport>),
    /// There is none that may be served, for this reason as far as the node remembers.
    None(MissReason),
}

/// What a node knows of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntryReport {
    /// The entry, its value left out.
    pub entry: Hit,
    /// What it is charged, in bytes: key, value, metadata, rounding.
    pub charged_bytes: u64,
    /// Whether it is past its soft time to live.
    pub stale: bool,
    /// What is left of its soft time to live, rounded up to milliseconds. `None`: it has none, or is past it.
    pub remaining_soft_ttl: Option<Duration>,
    /// Its tags, up to 16, each up to 255 B.
    pub tags: Vec<String>,
    /// The namespace's generation that it was set in. 0: before the first Invalidate.
    pub generation: u64,
    /// Whether it is kept for its owner, which is out of service.
    pub guest: bool,
    /// The journal position of its last change. 0: not journaled.
    pub position: u64,
}
