//! Larder: a distributed cache whose native protocol is gRPC.
//!
//! Version 0.1 is one node, in memory and on disk. What of `proto/larder/v1` is not served yet answers `UNIMPLEMENTED`.
//!
//! # Layers
//! ```text
//!   larder serve                                              larder get, set, bench …
//!   ┌──────────────────────────────────────────────┐          ┌─────────────────┐
//!   │ cli, config      flags, variables, a file    │          │ cli             │
//!   │ node             puts a node together        │          └───────┬─────────┘
//!   │ server           sockets, HTTP/2, life cycle │  gRPC    ┌───────┴─────────┐
//!   │ service          a message in, a message out │◀─────────│ client          │
//!   │ cache, lookup    memory, then the disk       │          └───────┬─────────┘
//!   │ persistence      journal, snapshots, blobs   │                  │
//!   │ engine           shards: arena, timer wheel  │                  │
//!   └───────┬──────────────────────────────────────┘                  │
//!           └───────── grpc, proto, entry, endpoint, clock, ring ─────┘
//! ```
//!
//! Arrows point down. The engine is synchronous, does no I/O and has no clock: every call takes the time. The server moves
//! bytes and knows nothing of caches. The client imports neither, and `local` is the engine behind the client's trait.
//!
//! # Ways in
//! - **A cache in your own process**, without a socket: [`LocalCache`](local::LocalCache), or the [`Engine`] by hand.
//!   ```
//!   let cache = larder::local::LocalCache::builder().memory(16 << 20).build();
//!   cache.set("colour", "green")?;
//!   assert_eq!(cache.get("colour").as_deref(), Some(&b"green"[..]));
//!   # Ok::<(), larder::client::ClientError>(())
//!   ```
//! - **A whole node in your own process**: [`RunningNode`] with a [`ServeConfig`], which keeps all in `./larder-data`.
//! - **A client** of a node elsewhere: [`Client`].
//!   ```no_run
//!   # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//!   use larder::client::{Client, GetOutcome, SetOptions};
//!
//!   let client = Client::builder(["tcp://127.0.0.1:7400".parse()?]).build()?;
//!   client.set("colour", "green", &SetOptions::default()).await?;
//!   if let GetOutcome::Hit(hit) = client.get("colour").await? {
//!       println!("{:?} of version {}", hit.value, hit.version);
//!   }
//!   # Ok(())
//!   # }
//!   ```
#![cfg_attr(
    all(any(feature = "client", feature = "server"), not(feature = "testing")),
    expect(unreachable_pub, reason = "what tests look into is public to them alone")
)]
#![cfg_attr(
    all(any(feature = "client", feature = "server"), not(any(feature = "cli", feature = "testing"))),
    expect(dead_code, reason = "what all parts of the crate share is not all used by each")
)]

#[cfg(feature = "client")]
pub mod client;
pub mod clock;
#[cfg(feature = "server")]
pub mod config;
pub mod endpoint;
#[cfg(any(feature = "local", feature = "server"))]
pub mod engine;
pub mod entry;
#[cfg(feature = "local")]
pub mod local;
#[cfg(feature = "server")]
pub mod node;
pub mod proto;
#[cfg(any(feature = "client", feature = "server"))]
pub mod ring;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;

// Inner rooms, and those of them that tests, benchmarks and fuzz/ look into.
#[cfg(feature = "testing")]
pub mod cache;
#[cfg(all(feature = "server", not(feature = "testing")))]
mod cache;
#[cfg(feature = "server")]
mod cluster;
#[cfg(any(feature = "client", feature = "server"))]
mod grpc;
#[cfg(feature = "server")]
mod lookup;
#[cfg(feature = "testing")]
pub mod membership;
#[cfg(all(feature = "server", not(feature = "testing")))]
mod membership;
#[cfg(feature = "testing")]
pub mod persistence;
#[cfg(all(feature = "server", not(feature = "testing")))]
mod persistence;
#[cfg(any(feature = "local", feature = "server"))]
mod quote;
#[cfg(any(feature = "client", feature = "server"))]
mod redacted;
#[cfg(any(feature = "local", feature = "server"))]
mod request;
#[cfg(feature = "testing")]
pub mod server;
#[cfg(all(feature = "server", not(feature = "testing")))]
mod server;
#[cfg(feature = "testing")]
pub mod service;
#[cfg(all(feature = "server", not(feature = "testing")))]
mod service;
#[cfg(feature = "server")]
mod shortage;
#[cfg(feature = "server")]
mod telemetry;
#[cfg(any(feature = "client", feature = "server"))]
mod verb;

#[cfg(feature = "client")]
pub use client::Client;
#[cfg(any(feature = "local", feature = "server"))]
pub use engine::Engine;
#[cfg(feature = "server")]
pub use {config::ServeConfig, node::RunningNode};
