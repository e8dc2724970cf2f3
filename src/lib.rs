//! Larder: a distributed cache whose native protocol is gRPC.
//!
//! This crate is the `larder` program and what it is made of. Version 0.1 is one node, in memory and on
//! disk: the contract in `proto/larder/v1` is whole, and what is not served yet (the ring, leases, origins, TLS)
//! answers `UNIMPLEMENTED` and is never ignored in silence.
//!
//! # Layers
//!
//! ```text
//!   larder serve                                              larder get, set, bench …
//!   ┌──────────────────────────────────────────────┐          ┌─────────────────┐
//!   │ cli, config      flags, variables, a file    │          │ cli             │
//!   │ node             puts a node together        │          └───────┬─────────┘
//!   │ server           sockets, HTTP/2, life cycle │  gRPC    ┌───────┴─────────┐
//!   │ service          a message in, a message out │◀─────────│ client          │
//!   │ cache            engine, later disk, origin  │          └───────┬─────────┘
//!   │ engine           shards: index, arena,       │                  │
//!   │                  timer wheel, policy         │                  │
//!   └───────┬──────────────────────────────────────┘                  │
//!           └──────── api, entry, endpoint, clock, telemetry ──────────┘
//! ```
//!
//! Arrows point down. The engine is synchronous, does no I/O and has no clock: every call takes the time. The
//! server moves bytes and states and knows nothing of caches. The client imports neither.
//!
//! # Ways in
//!
//! - **The engine in your own process**, without a socket: [`Engine`]. A call costs a hash, a lock and a copy.
//!
//!   ```
//!   use larder::clock::{Clock, SystemClock};
//!   use larder::engine::{Condition, EngineConfig, Expiration, Op, Outcome, Set};
//!   use larder::entry::Ttl;
//!   use larder::Engine;
//!
//!   let clock = SystemClock::new();
//!   let engine = Engine::new(&EngineConfig { bytes_limit: 16 << 20, ..EngineConfig::default() }, clock.now());
//!
//!   let set = Set { expiration: Expiration::In(Ttl::Ms(60_000)), ..Set::new(b"colour", b"green") };
//!   let Outcome::Stored(version) = engine.apply(engine.default_namespace(), &Op::Set(set), clock.now()) else { panic!("full") };
//!
//!   // Compare-and-set: only while the entry is the one that was read.
//!   let set = Set { condition: Condition::IfVersion(version), ..Set::new(b"colour", b"red") };
//!   let stored = engine.apply(engine.default_namespace(), &Op::Set(set), clock.now());
//!   assert!(matches!(stored, Outcome::Stored(newer) if newer > version));
//!   let again = engine.apply(engine.default_namespace(), &Op::Set(set), clock.now());
//!   assert!(matches!(again, Outcome::NotStored(_)), "that version is gone");
//!   ```
//!
//! - **A whole node in your own process**, for tests above all: [`RunningNode`] with a [`ServeConfig`]. By default
//!   it keeps everything in `./larder-data`: give it a `data_dir` of its own, or [`config::Persistence::None`].
//! - **A client** of a node elsewhere: [`Client`].
//!
//!   ```no_run
//!   # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//!   use larder::client::{GetOutcome, SetOptions};
//!   use larder::Client;
//!
//!   let client = Client::builder(["tcp://127.0.0.1:7400".parse()?]).build()?;
//!   client.set("colour", "green", &SetOptions::default()).await?;
//!   match client.get("colour").await? {
//!       GetOutcome::Hit(hit) => println!("{:?} of version {}", hit.value, hit.version),
//!       other => println!("{other:?}"),
//!   }
//!   # Ok(())
//!   # }
//!   ```
//!
//! # Words
//!
//! An *entry* is key, value, version, expiry, flags and content type. A *version* is drawn anew by every write
//! and is the token for compare-and-set. An *outcome* is what an operation came to: a miss or a condition that
//! does not hold is one, and is no error. A *policy* says which entry goes when bytes run out.
//!
//! The book in `docs/` tells how to run and operate a node.

pub mod api;
#[cfg(feature = "server")]
pub mod cache;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
pub mod clock;
pub mod code;
#[cfg(feature = "server")]
pub mod config;
pub mod endpoint;
#[cfg(feature = "server")]
pub mod engine;
pub mod entry;
#[cfg(feature = "server")]
pub mod node;
#[cfg(feature = "server")]
pub mod persistence;
pub mod quote;
pub mod redacted;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod service;
#[cfg(feature = "server")]
pub mod shortage;
#[cfg(feature = "server")]
pub mod telemetry;
pub mod verb;

#[cfg(feature = "client")]
pub use client::Client;
#[cfg(feature = "server")]
pub use config::ServeConfig;
#[cfg(feature = "server")]
pub use engine::Engine;
#[cfg(feature = "server")]
pub use node::RunningNode;
