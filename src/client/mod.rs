//! The client: many calls on few connections, with deadlines, readable errors, and no waiting for a node that is gone.
//!
//! ```text
//!  blocking/   the same calls, waited for, and the thread that they run on
//!    ▼
//!  Client: calls.rs, batch.rs, keyspace.rs, blobs.rs; as streams, readers and writers: items.rs, blob_streams.rs;
//!    │     cache.rs: the trait that it has in common with `larder::local`
//!    │  retry.rs   once more where that is safe, within the deadline and a budget
//!    ▼
//!  Node: node.rs   is it there? asked before each call; greylist.rs, health Watch
//!    ├─ lane/      single-key calls: each lane a connection with one Pipeline stream that many calls share
//!    └─ pool.rs    everything else: several lazy channels; AdminClient and HealthClient have one of their own
//!
//!  outcome.rs  what calls come to      convert.rs  ⇄ generated messages      codec/  a Pipeline's messages as bytes
//! ```
//!
//! It knows no ring yet: a [`Client`] speaks to exactly one node, and the builder refuses more than one URL, so
//! that nobody's keys are spread by accident. Routing is to be what `Client::node_of` answers.
//!
//! Invariants: no call waits longer than its deadline, wherever it is; nothing is queued for a node that is out, and a call
//! to it costs no time-out; a call is repeated only where it does the same twice, or has a request id; a miss is an
//! outcome, never an error; what a call comes to is a type of the library's own.
//!
//! It builds alone, by the feature `client`.

mod admin;
mod backoff;
mod batch;
mod blob_streams;
mod blobs;
pub mod blocking;
mod builder;
mod cache;
mod calls;
pub(crate) mod codec;
mod connect;
mod convert;
mod error;
#[cfg(feature = "local")]
pub mod faults;
mod flights;
mod greylist;
mod health;
mod items;
mod keyspace;
mod lane;
mod large_keys;
mod metrics;
#[cfg(feature = "near-cache")]
mod near;
mod node;
mod of_process;
mod outcome;
mod pipeline;
mod pool;
mod process;
mod request;
mod retry;
mod ring;
mod trace;
mod typed;
mod update;
mod url;
pub mod value;
mod watch;

pub use crate::entry::MissReason;
#[cfg(feature = "cli")]
pub(crate) use admin::settings_in_force;
pub use admin::{
    AdminClient, Compaction, EntryReport, HotKey, HotKeys, KeyFound, KeyReport, MemoryAdvice, MemoryPart,
    MemoryReport, NamespaceDeletion, NamespaceSettings, NamespaceStats, NamespaceUpdate, NodeState,
    NodeStats, PersistenceStats, PolicyEstimate, RecoveryReport, Setting, SettingInForce, SettingSource,
    SettingValue, SlowOp, SlowOps, Snapshot, SnapshotTaken, Spawned, StatsStream,
};
#[cfg(feature = "local")]
pub(crate) use backoff::random;
pub use batch::BatchItem;
pub use blob_streams::{BlobReader, BlobWriter};
pub use blobs::{BlobDownload, BlobOptions, BlobRange, ListBlobsOptions};
pub use builder::ClientBuilder;
pub use cache::Cache;
pub use calls::{
    Client, CounterOptions, DeleteOptions, OnUnavailable, SetCondition, SetExpiration, SetOptions,
};
#[cfg(feature = "cli")]
pub(crate) use convert::wire_durability;
#[cfg(feature = "local")]
pub(crate) use convert::{remaining_ttl, wire_ms};
pub use error::{ClientError, Refusal};
pub use health::{HealthClient, Serving};
pub use items::ItemStream;
pub use keyspace::{InvalidateScope, ScanOptions};
pub use lane::Phase;
pub use metrics::ClientMetrics;
pub use node::{Availability, NodeHealth};
pub use outcome::{
    BlobInfo, BlobPage, Counter, Deletion, GetOutcome, Hit, NotStored, PipelineOutcome, PipelineReply,
    ScanItem, ScanPage, SetOutcome, StoredBlob, Tier,
};
pub use pipeline::{Commands, PipelineReceiver, PipelineSender};
pub use ring::{ClusterMember, ClusterMemberState, ClusterRing, RingStream};
pub use typed::Typed;
pub use update::{LoadError, Updated};
pub use url::{BadNodeUrl, NodeUrl};
pub use watch::{
    WatchDiscontinuity, WatchEvent, WatchMessage, WatchOptions, WatchPosition, WatchScope, WatchStream,
};
