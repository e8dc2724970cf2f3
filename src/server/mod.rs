//! The server: sockets, connections, the life of a node, and its health. It moves bytes and states, and knows
//! nothing of caches: what answers a call is a tower service that its caller brings.
//!
//! ```text
//!   threads of their own                           the program's runtime
//!   "larder-life"
//!   ┌────────────────────────────────────┐         ┌──────────────────────────────────────┐
//!   │ node: signals, spawn, drain        │ phases  │ accept loop per data/admin listener  │
//!   └────────────────────────────────────┘ ──────▶ │   └ connection: opening, HTTP/2      │
//!   "larder-health"                                │        └ one task per stream         │
//!   ┌────────────────────────────────────┐         └──────────────────────────────────────┘
//!   │ health listener  → health service  │
//!   │ http listener    → axum router     │
//!   └────────────────────────────────────┘
//!                    ▲ Lifecycle (state, spawn, drain), Health (statuses), Connections (gauge)
//! ```
//!
//! What the program must do first is on the left: a data plane whose every worker is busy can starve neither a
//! probe nor a drain, and scrapers no drain. What serves keys is on the right. In a simulation ([`Platform`]) all of it is on
//! the right.
//!
//! To run a node: make its [`Lifecycle`] and [`Connections`], build the services with them, and give all to
//! [`Server::start`].
//!
//! Invariants:
//! - The accept loop, the drain and the services never learn what kind of socket they serve ([`listen`]).
//! - A connection is counted and limited ([`Connections`]), must speak HTTP/2 at once, and ends when the node
//!   does, whatever its peer does.
//! - A node's state changes only along [`NodeState::may_become`], and health follows within the same step.
//! - A node whose listener has ended before its time drains: half a node serves nobody.

mod accept;
mod connection;
mod connections;
mod executor;
mod frames;
pub mod health;
pub mod http;
mod idle;
mod lifecycle;
pub mod listen;
mod listener;
mod load;
mod own_runtime;
mod phase;
mod platform;
mod preface;
mod serve;
mod signals;
pub mod stack;
mod stall;
mod supervisor;
mod unread_answers;
mod write_coalescer;
mod write_timeout;

pub use connection::{ConnectionConfig, ConnectionInfo, ConnectionService, PerConnection};
pub use connections::{ConnectionBounds, Connections};
pub use health::{Mount, PERSISTENCE};
pub use idle::{worker_parks, worker_unparks};
pub use lifecycle::{DrainTimes, Lifecycle, NodeState, Recovering, SpawnError};
pub use listen::ListenError;
pub use platform::Platform;
pub use serve::{Server, ServerConfig, Services, StartError, Stop};
pub(crate) use signals::{SAME_SIGNAL_WITHIN, Signals};
