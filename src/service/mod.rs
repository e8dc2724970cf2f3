//! gRPC in front of the cache: one room for the data plane, which is hand-written for speed, one for Admin, which
//! is generated.
//!
//! A data request is read where it lies, done under its shard's lock and answered from there into the buffer that
//! is sent. Nothing here knows of sockets, time-outs or metrics: those are layers around it.

mod admin;
mod backlog;
mod batch;
mod begun;
mod blobs;
mod body;
mod data;
mod deadline;
mod deferred;
mod frame;
mod generated;
mod keyspace;
mod live_config;
mod metadata;
mod pipeline;
mod plan;
mod request;
mod requests;
mod slow;
mod stats;
mod turns;
mod unary;

pub use admin::{AdminConfig, AdminService};
pub use backlog::Backlog;
pub use begun::Begun;
pub use body::ResponseBody;
pub use data::{DataFuture, DataService};
pub(crate) use deadline::grpc_timeout;
pub use generated::{GeneratedFuture, GeneratedService};
pub use live_config::ConfigUpdate;
pub use requests::{RequestLimits, Requests, WINDOWS_PER_CONNECTION};
pub use slow::Recall;
pub(crate) use stats::config_response;
pub use stats::{LiveConfig, NodeIdentity};

pub use crate::telemetry::Recalled;

/// What fuzz/ drives and nobody else can reach.
#[cfg(fuzzing)]
pub mod fuzz {
    /// Reads `bytes` as a stream of PutBlob, cut into pieces as long as the first byte says.
    pub fn put_blob(bytes: &[u8]) {
        super::blobs::fuzz(bytes);
    }
}
