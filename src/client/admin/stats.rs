//! A node's figures: the library's own types, which stay as they are when the contract's messages grow.

use std::fmt;
use std::time::Duration;

use crate::client::Tier;
use crate::entry::MissReason;

/// Where a node stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum NodeState {
    /// Admin and health answer; it waits for [`AdminClient::spawn`](super::AdminClient::spawn).
    Standby,
    /// It reads its content back from disk.
    Recovering,
    /// It serves.
    Serving,
    /// It takes no new work and finishes what runs.
    Draining,
    /// It is done; the process is about to exit.
    Stopped,
    /// The node did not say, or said what this build does not know.
    #[default]
    Unknown,
}

impl NodeState {
    /// Its name: `serving`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Recovering => "recovering",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A node's figures. Counters count single keys, also those in batches and Pipelines, since the start or the last
/// [`reset_stats`](super::AdminClient::reset_stats); sizes are of now. The node serves while they are read, one after the
/// other, so they need not add up to the last one.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct NodeStats {
    /// Where the node stands in its life.
    pub state: NodeState,
    /// The node's id, 1 B to 255 B.
    pub node_id: String,
    /// Which of the node's lives this is. `None`: it has not begun to serve.
    pub incarnation: Option<u64>,
    /// The program's version and commit, for people.
    pub build: String,
    /// How long the process has run, in whole milliseconds.
    pub uptime: Duration,
    /// For how long the counters have counted: since the start or the last reset, in whole milliseconds.
    pub counted: Duration,
    /// Lookups that found an entry, on any tier, stale ones included.
    pub hits: u64,
    /// Of [`hits`](Self::hits), those that were stale.
    pub stale_hits: u64,
    /// [`hits`](Self::hits) by tier. Tiers with none are left out.
    pub hits_by_tier: Vec<(Tier, u64)>,
    /// Lookups that found none.
    pub misses: u64,
    /// [`misses`](Self::misses) by reason. Reasons with none are left out.
    pub misses_by_reason: Vec<(MissReason, u64)>,
    /// Sets that were stored.
    pub sets: u64,
    /// Sets that stored nothing: condition, lost lease, owner down or expired.
    pub sets_not_stored: u64,
    /// Sets that were refused with an error: too large, or no room.
    pub sets_refused: u64,
    /// Deletes that removed an entry.
    pub deletes: u64,
    /// Increments and Decrements that changed a counter.
    pub increments: u64,
    /// Touches, and Gets that renew a time to live, that found an entry.
    pub touches: u64,
    /// Entries that the policy gave up for others. An expired entry is none.
    pub evictions: u64,
    /// Entries that were reclaimed because their time to live had run out.
    pub expirations: u64,
    /// Invalidate calls that were carried out.
    pub invalidations: u64,
    /// Entries that Invalidate covered, counted when they are swept.
    pub entries_invalidated: u64,
    /// Entries in memory.
    pub entries: u64,
    /// Entries in memory that are kept for an owner out of service.
    pub guest_entries: u64,
    /// Bytes charged to the limit: keys, values, metadata and the allocator's rounding.
    pub bytes_used: u64,
    /// The node's limit in bytes.
    pub bytes_limit: u64,
    /// The process's resident memory in bytes. `None`: the operating system does not tell.
    pub resident_bytes: Option<u64>,
    /// Open connections on the data listeners.
    pub connections: u64,
    /// Calls, and Pipeline commands, that are being worked on.
    pub requests_in_flight: u64,
    /// Calls that were turned away because of overload or quota.
    pub requests_shed: u64,
    /// Loads from the origin that brought a value, or its absence.
    pub origin_loads: u64,
    /// Loads from the origin that failed.
    pub origin_errors: u64,
    /// Commands that were passed on to their owner.
    pub forwards: u64,
    /// The default namespace's eviction policy.
    pub policy: String,
    /// What the default namespace's `adaptive` policy believes of each policy. Empty with any other policy.
    pub policy_estimates: Vec<PolicyEstimate>,
    /// Every namespace, up to 1,024, the default one first, the others by name.
    pub namespaces: Vec<NamespaceStats>,
    /// What is on disk. `None`: the node keeps nothing there.
    pub persistence: Option<PersistenceStats>,
}

/// A namespace's share of [`NodeStats`]. Fields of the same name mean the same.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct NamespaceStats {
    /// Its name, up to 255 B. Empty: the default one.
    pub name: String,
    /// Lookups that found an entry.
    pub hits: u64,
    /// Lookups that found none.
    pub misses: u64,
    /// [`misses`](Self::misses) by reason. Reasons with none are left out.
    pub misses_by_reason: Vec<(MissReason, u64)>,
    /// Sets that were stored.
    pub sets: u64,
    /// Sets that stored nothing.
    pub sets_not_stored: u64,
    /// Sets that were refused with an error.
    pub sets_refused: u64,
    /// Deletes that removed an entry.
    pub deletes: u64,
    /// Entries that the policy gave up for others.
    pub evictions: u64,
    /// Entries that were reclaimed because their time to live had run out.
    pub expirations: u64,
    /// Entries that Invalidate covered, counted when they are swept.
    pub entries_invalidated: u64,
    /// Its invalidations so far. 0: none yet.
    pub generation: u64,
    /// Entries in memory.
    pub entries: u64,
    /// Bytes charged to it.
    pub bytes_used: u64,
    /// Its cap in bytes. `None`: none of its own, the node's limit alone.
    pub bytes_limit: Option<u64>,
    /// Its eviction policy.
    pub policy: String,
    /// What its `adaptive` policy believes of each policy. Empty with any other policy.
    pub policy_estimates: Vec<PolicyEstimate>,
}

/// What `adaptive` believes of one policy that it tries in the small, over lookups alone.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PolicyEstimate {
    /// The policy's name.
    pub policy: String,
    /// The hit ratio that it would have had of late, 0 to 1.
    pub hit_ratio: f64,
    /// On how many lookups that rests. 0: nothing is known yet.
    pub lookups: u64,
    /// Whether it is the one that is followed now.
    pub leader: bool,
}

/// What is on a node's disk, and how far. A position counts the journal's changes; 0 is before the first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PersistenceStats {
    /// The persistence mode: journal, snapshot, journal+snapshot or store.
    pub mode: String,
    /// The backend: sled or files.
    pub backend: String,
    /// The journal's newest position. With mode snapshot, all that was changed between two snapshots has one position
    /// together.
    pub position: u64,
    /// The position up to which everything is synced.
    pub synced_position: u64,
    /// Why the journal is poisoned and writes are refused, in English. `None`: it is well.
    pub poisoned: Option<String>,
    /// Bytes on disk, blobs included.
    pub disk_bytes: u64,
    /// How many there may be. `None`: no limit.
    pub disk_limit_bytes: Option<u64>,
    /// The newest snapshot's last position.
    pub snapshot_position: u64,
    /// When that snapshot was taken, in milliseconds since 1970. `None`: there is none.
    pub snapshot_unix_ms: Option<u64>,
    /// Blobs on disk.
    pub blobs: u64,
    /// Their bytes, without overhead.
    pub blob_bytes: u64,
    /// Entries that can be read from disk, with mode store and while a lazy recovery goes on. 0: entries are in memory only.
    pub entries: u64,
    /// Entries that were asked for and are damaged on disk, since the start: each was a miss.
    pub entries_damaged: u64,
}
