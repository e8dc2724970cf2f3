//! The client: calls to a node's Cache, Admin and health services, with deadlines and readable errors.
//!
//! ```text
//!  Client ── calls.rs, batch.rs, … ──┐
//!  AdminClient ── admin.rs … ───────┼─ pool.rs: several lazy connections to one node ── tonic Channel
//!  HealthClient ── health.rs ───────┘
//! ```
//!
//! It knows no ring yet: a [`Client`] speaks to exactly one node, and the builder refuses more than one URL, so
//! that nobody's keys are spread by accident. Routing moves in between `calls.rs` and `pool.rs`: one pool per
//! node, and a pure `route(key)` before it.
//!
//! Invariants: no call waits longer than its deadline (it is sent as grpc-timeout *and* kept by a local timer,
//! so a silent peer cannot hold a caller); connections are made on first use and again after they break; a
//! miss is an outcome, never an error.
//!
//! It is not a retry layer and not a near cache: those are parts of the ring-routing client library.

mod admin;
mod batch;
mod blobs;
mod builder;
mod calls;
mod error;
mod health;
mod keyspace;
mod namespaces;
mod pipeline;
mod pool;
mod url;

pub use admin::{AdminClient, StatsStream};
pub use blobs::{BlobDownload, BlobOptions, BlobRange, ListBlobsOptions};
pub use builder::ClientBuilder;
pub use calls::{
    Client, CounterOptions, DeleteOptions, Deletion, GetOutcome, SetCondition, SetExpiration, SetOptions,
    SetOutcome,
};
pub use error::{ClientError, Refusal};
pub use health::{HealthClient, Serving};
pub use keyspace::{InvalidateScope, ScanOptions};
pub use namespaces::NamespaceUpdate;
pub use pipeline::{PipelineReceiver, PipelineSender};
pub use url::{BadNodeUrl, NodeUrl};
