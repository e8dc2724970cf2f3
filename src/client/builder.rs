//! Putting a client together.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::admin::AdminClient;
use super::calls::{CallDefaults, Client, OnUnavailable};
use super::connect::Connector;
use super::error::ClientError;
use super::health::HealthClient;
use super::lane::LaneConfig;
#[cfg(feature = "near-cache")]
use super::near::{self, NearCache};
use super::node::{Node, NodeConfig};
use super::pool::Pool;
use super::url::NodeUrl;
use crate::entry::MESSAGE_BYTES_MAX;

/// What a client is made of.
///
/// # Defaults
/// For a service, which makes many calls at once and lives long:
/// - connections per node: 4 for single-key calls, which share them; as many more, each made when it is first needed, for
///   batches, scans, blobs and values above 64 KiB
/// - they are opened when the client is built, in the background: [`ClientBuilder::lazy`] waits for the first call
/// - timeout per call: 1 s, the time in the client's own queue counted
/// - time for a connection: 1 s
/// - sign of life: asked for after 300 ms of silence while an answer is due (on one connection always), waited for 500 ms
/// - a node that is out: a cache that has nothing ([`OnUnavailable::Miss`])
/// - retries: 2 of a call at most, a tenth of all calls at most
/// - hedged gets: none
/// - near cache: none
/// - namespace: "" (the default one)
/// - longest answer: 2 GiB, which is what a node can be set to send; memory is taken for what comes, not for the limit
///
/// [`ClientBuilder::short_lived`] has others, for a function that makes a call or two and is gone.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct ClientBuilder {
    nodes: Vec<NodeUrl>,
    namespace: String,
    timeout: Duration,
    connect_timeout: Duration,
    connections: NonZeroUsize,
    max_message_bytes: usize,
    keepalive: (Duration, Duration),
    on_unavailable: OnUnavailable,
    hedge_after: Option<Duration>,
    /// Whether single-key calls share Pipeline streams.
    coalesces: bool,
    is_lazy: bool,
    #[cfg(feature = "near-cache")]
    near_cache_bytes: u64,
    connector: Connector,
}

const CONNECTIONS: NonZeroUsize = NonZeroUsize::new(4).expect("it is not 0");

impl ClientBuilder {
    /// A client of these nodes. Until the ring exists it is exactly one; the build methods refuse more.
    pub fn new(nodes: impl IntoIterator<Item = NodeUrl>) -> Self {
        Self {
            nodes: nodes.into_iter().collect(),
            namespace: String::new(),
            timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            connections: CONNECTIONS,
            max_message_bytes: MESSAGE_BYTES_MAX,
            keepalive: (Duration::from_millis(300), Duration::from_millis(500)),
            on_unavailable: OnUnavailable::default(),
            hedge_after: None,
            coalesces: true,
            is_lazy: false,
            #[cfg(feature = "near-cache")]
            near_cache_bytes: 0,
            connector: Connector::System,
        }
    }

    /// For a program that makes a call or two and is gone: one connection, made by the first call; each call by itself, a
    /// round trip, without retries; 5 s for a call; a node that is out is an error. Nothing runs in the background.
    pub fn short_lived(mut self) -> Self {
        (self.coalesces, self.is_lazy, self.connections) = (false, true, NonZeroUsize::MIN);
        (self.timeout, self.on_unavailable) = (Duration::from_secs(5), OnUnavailable::Error);
        self
    }

    /// Waits for the first call before anything is connected.
    pub fn lazy(mut self) -> Self {
        self.is_lazy = true;
        self
    }

    /// Keeps copies of what is read in this process, of at most this number of bytes in all, 1 MiB at least; 0: none. They are
    /// kept true by a Watch of the node. A short-lived client keeps none.
    #[cfg(feature = "near-cache")]
    pub fn near_cache(mut self, bytes: u64) -> Self {
        self.near_cache_bytes = bytes;
        self
    }

    /// What a node that is out is to the application.
    pub fn on_unavailable(mut self, on_unavailable: OnUnavailable) -> Self {
        self.on_unavailable = on_unavailable;
        self
    }

    /// Asks a second time, by another connection, for what a Get has not been answered after this time, such as the 99th
    /// percentile of what it takes. The answer that comes first counts. It is a retry to the budget.
    pub fn hedge_after(mut self, after: Duration) -> Self {
        self.hedge_after = Some(after);
        self
    }

    /// How long making a connection may take.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// After how long a silence a node is asked for a sign of life, and how long that may take. A node that gives none is
    /// out.
    pub fn keepalive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keepalive = (interval, timeout);
        self
    }

    /// The namespace that every call names.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// How long a call may take in all.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many connections single-key calls share to each node, by their keys; of a short-lived client, all calls, in turn.
    pub fn connections(mut self, connections: NonZeroUsize) -> Self {
        self.connections = connections;
        self
    }

    /// The longest answer that is taken, in bytes; a longer one is `OUT_OF_RANGE`. A node sends none that is longer than
    /// its own `--max-message-out`.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// Connects over a simulation's network in place of the operating system's.
    #[cfg(feature = "testing")]
    pub fn network(mut self, network: crate::endpoint::network::SharedNetwork) -> Self {
        self.connector = Connector::Simulated(network);
        self
    }

    /// A client of the data plane. Its connections are made in the background: a call waits for them within its own
    /// deadline, and [`ClientBuilder::connect`] waits for them first. Must be called within a tokio runtime, in which the
    /// client lives.
    ///
    /// # Errors
    /// [`ClientError::NoNode`], [`ClientError::SeveralNodes`], [`ClientError::BadUrl`], [`ClientError::ZeroTimeout`].
    pub fn build(self) -> Result<Client, ClientError> {
        if self.timeout.is_zero() || self.connect_timeout.is_zero() {
            return Err(ClientError::ZeroTimeout);
        }
        let pool = Arc::new(self.pool()?);
        let node = if self.coalesces {
            let lane = LaneConfig {
                url: pool.url().clone(),
                connector: self.connector.clone(),
                connect_timeout: self.connect_timeout,
                keepalive_interval: self.keepalive.0,
                keepalive_timeout: self.keepalive.1,
                keeps_alive_idle: false,
                is_lazy: self.is_lazy,
                max_message_bytes: self.max_message_bytes,
            };
            Node::with_lanes(pool, &NodeConfig { lanes: self.connections, lane })
        } else {
            Node::unary(pool)
        };
        let defaults = CallDefaults {
            namespace: self.namespace,
            timeout: self.timeout,
            on_unavailable: self.on_unavailable,
            hedge_after: self.hedge_after,
        };
        let client = Client::new(node, defaults);
        #[cfg(feature = "near-cache")]
        if self.near_cache_bytes > 0 && self.coalesces {
            let cache = Arc::new(NearCache::new(self.near_cache_bytes));
            let (pool, health) = (client.node().pool().clone(), client.health());
            tokio::spawn(near::follow(Arc::downgrade(&cache), pool, health));
            return Ok(client.with_near(&cache));
        }
        Ok(client)
    }

    /// [`Self::build`], and waits until the node can be asked, no longer than a connection may take.
    ///
    /// # Errors
    /// As [`Self::build`], and [`ClientError::Unavailable`] where the node cannot be asked.
    pub async fn connect(self) -> Result<Client, ClientError> {
        let client = self.build()?;
        client.node().connected().await?;
        Ok(client)
    }

    /// A client of the admin listener at the same kind of URL. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// As [`ClientBuilder::build`].
    pub fn build_admin(self) -> Result<AdminClient, ClientError> {
        Ok(AdminClient::new(self.pool()?))
    }

    /// A client of the health service, which every listener serves. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// As [`ClientBuilder::build`].
    pub fn build_health(self) -> Result<HealthClient, ClientError> {
        Ok(HealthClient::new(self.pool()?))
    }

    fn pool(&self) -> Result<Pool, ClientError> {
        match self.nodes.as_slice() {
            [] => Err(ClientError::NoNode),
            [url] => Pool::new(
                url.clone(),
                &self.connector,
                self.connections,
                self.timeout,
                self.max_message_bytes,
            ),
            several => Err(ClientError::SeveralNodes {
                count: several.len(),
                urls: several.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_one_node_is_refused_until_there_is_a_ring() {
        let nodes = ["tcp://a:1", "tcp://b:1"].map(|url| url.parse().unwrap());
        let error = ClientBuilder::new(nodes).build().unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("exactly one"), "{error}");
        assert!(matches!(ClientBuilder::new([]).build(), Err(ClientError::NoNode)));
    }
}
