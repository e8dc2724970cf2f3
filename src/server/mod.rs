//! The server: sockets, connections, the life of a node, and its health. It moves bytes and states, and knows
//! nothing of caches: what answers a call is a tower service that its caller brings.
//!
//! ```text
//!   a thread of its own ("larder-health")          the program's runtime
//!   ┌────────────────────────────────────┐         ┌──────────────────────────────────────┐
//!   │ node: opens, spawns, drains        │ phases  │ accept loop per data/admin listener  │
//!   │ health listener  → health service  │ ──────▶ │   └ connection: opening, HTTP/2      │
//!   │ http listener    → axum router     │         │        └ one task per stream         │
//!   └────────────────────────────────────┘         └──────────────────────────────────────┘
//!                    ▲ Lifecycle (state, spawn, drain), Health (statuses), Connections (gauge)
//! ```
//!
//! What the program must do first is on the left: a data plane whose every worker is busy can starve neither a
//! probe nor a drain. What serves keys is on the right.
//!
//! To run a node: make its [`Lifecycle`] and [`Connections`], build the services with them, and give all to
//! [`Node::start`].
//!
//! Invariants:
//! - The accept loop, the drain and the services never learn what kind of socket they serve ([`listen`]).
//! - A connection is counted and limited ([`Connections`]), must speak HTTP/2 at once, and ends when the node
//!   does, whatever its peer does.
//! - A node's state changes only along [`NodeState::may_become`], and health follows within the same step.

mod accept;
mod connection;
mod connections;
mod course;
mod executor;
mod gather;
pub mod health;
mod health_thread;
pub mod http;
mod lifecycle;
pub mod listen;
mod listener;
mod node;
mod opening;
mod phase;
pub mod stack;
mod stall;

pub use connection::{ConnectionConfig, ConnectionService, GrpcService, PerPeer};
pub use connections::{ConnectionBounds, Connections};
pub(crate) use course::{SAME_SIGNAL_WITHIN, Signals};
pub use executor::StreamExecutor;
pub use health::{Health, Mount, PERSISTENCE};
pub use lifecycle::{DrainTimes, Lifecycle, NodeState, Recovering, SpawnError};
pub use listen::{Address, ListenError, Peer};
pub use listener::Role;
pub use node::{Node, NodeConfig, Services, StartError, Stop};
