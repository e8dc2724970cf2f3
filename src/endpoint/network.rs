//! What takes the operating system's place where nodes and their clients are simulated in one program: the network.
//!
//! ```text
//!   node ── server::Platform::Simulated ── bind ────┐
//!                                                   Network: turmoil's, or any that gives connections
//!   client ── ClientBuilder::network ───── connect ─┘
//! ```
//!
//! Time is the runtime's, paused, and what a node's clocks make of it ([`SimulatedTime`](crate::clock::SimulatedTime)). A
//! node that is simulated has no thread of its own: it is tasks of the runtime that it is started in. Only builds for tests
//! have any of this.

use std::fmt;
use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Endpoint, PeerInfo};

/// A network in place of the operating system's.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// Listens at an address of the host that this is called on.
    fn bind(&self, address: Endpoint) -> BoxFuture<'static, io::Result<Listener>>;

    /// Connects that host with a listener.
    fn connect(&self, to: Endpoint) -> BoxFuture<'static, io::Result<Connection>>;
}

/// A [`Network`] that several share.
pub type SharedNetwork = Arc<dyn Network>;

/// What listens. Dropping it closes it.
pub struct Listener {
    /// Where, with the port that was picked.
    pub address: Endpoint,
    /// The connections as they come. Where it ends, no more do.
    pub incoming: BoxStream<'static, io::Result<(Connection, PeerInfo)>>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("address", &self.address).finish_non_exhaustive()
    }
}

/// One connection's bytes, both ways.
pub type Connection = Box<dyn Bytes>;

/// What reads and writes.
pub trait Bytes: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin> Bytes for T {}
