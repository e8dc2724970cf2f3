//! gRPC in front of the cache: one room for the data plane, which is hand-written for speed, one for Admin, which
//! is generated.
//!
//! A data request is read where it lies, done under its shard's lock and answered from there into the buffer that
//! is sent; one that memory cannot answer waits for the disk. Nothing here knows of sockets, and what holds for every call
//! (its time-out, metrics and trace) is in layers around it.

mod admin;
mod batch;
mod blobs;
mod cluster;
mod codec;
mod control;
mod data;
mod deferred;
mod generated;
mod keyspace;
mod live_config;
mod long_requests;
mod metadata;
mod pipeline;
mod plan;
mod request;
mod response_backlog;
mod slow;
mod stats;
mod turns;
mod unary;
mod watch;

pub use crate::request::CallError;
pub use admin::AdminService;
pub(crate) use cluster::ClusterService;
pub use control::{NodeControl, NodeIdentity};
pub use data::DataService;
pub use generated::GeneratedService;
pub use live_config::ConfigUpdate;
pub use long_requests::{LongRequests, RequestLimits, WINDOWS_PER_CONNECTION};
pub use response_backlog::ResponseBacklog;
pub use stats::LiveConfig;
pub(crate) use stats::config_response;
pub use watch::Watches;

/// What fuzz/ drives and nobody else can reach.
#[cfg(fuzzing)]
pub mod fuzz {
    /// Reads `bytes` as each hot request, by hand and by the generated types.
    ///
    /// # Panics
    /// Where the two differ.
    pub fn requests_agree(bytes: &[u8]) {
        crate::request::view::agree::agree(bytes);
    }

    /// Reads `bytes` as a stream of PutBlob, cut into pieces as long as the first byte says.
    pub fn put_blob(bytes: &[u8]) {
        super::blobs::fuzz(bytes);
    }
}
