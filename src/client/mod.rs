//! The client: calls to a node's Cache, Admin and health services, with deadlines and readable errors.
//!
//! ```text
//!  Client ── calls.rs, batch.rs … ─┐  request.rs: verb, answer     pool.rs: call, open, upload, exchange
//!  AdminClient ── admin/ ──────────┼─ and key of each message ──── several lazy connections to one node
//!  HealthClient ── health.rs ──────┘
//!  outcome.rs  what calls come to      convert.rs  ⇄ generated messages      codec/  a Pipeline's messages as bytes
//! ```
//!
//! It knows no ring yet: a [`Client`] speaks to exactly one node, and the builder refuses more than one URL, so
//! that nobody's keys are spread by accident. Routing is to be what `Client::node_of` answers: one pool per
//! node, and a pure `route(key)` before it.
//!
//! Invariants: no call waits longer than its deadline (it is sent as grpc-timeout *and* kept by a local timer,
//! so a silent peer cannot hold a caller); connections are made on first use and again after they break; a
//! miss is an outcome, never an error; what a call comes to is a type of the library's own.
//!
//! It is not a retry layer and not a near cache: those are parts of the ring-routing client library. It builds alone, by
//! the feature `client`.

mod admin;
mod batch;
mod blobs;
mod builder;
mod calls;
pub(crate) mod codec;
mod convert;
mod error;
mod health;
mod keyspace;
mod outcome;
mod pipeline;
mod pool;
mod request;
mod url;
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
pub use blobs::{BlobDownload, BlobOptions, BlobRange, ListBlobsOptions};
pub use builder::ClientBuilder;
pub use calls::{Client, CounterOptions, DeleteOptions, SetCondition, SetExpiration, SetOptions};
#[cfg(feature = "cli")]
pub(crate) use convert::wire_durability;
pub use error::{ClientError, Refusal};
pub use health::{HealthClient, Serving};
pub use keyspace::{InvalidateScope, ScanOptions};
pub use outcome::{
    BlobInfo, BlobPage, Counter, Deletion, GetOutcome, Hit, NotStored, PipelineOutcome, PipelineReply,
    ScanItem, ScanPage, SetOutcome, StoredBlob, Tier,
};
pub use pipeline::{Commands, PipelineReceiver, PipelineSender};
pub use url::{BadNodeUrl, NodeUrl};
pub use watch::{
    WatchDiscontinuity, WatchEvent, WatchMessage, WatchOptions, WatchPosition, WatchScope, WatchStream,
};
