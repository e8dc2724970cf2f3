//! Putting a client together.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::admin::AdminClient;
use super::calls::Client;
use super::error::ClientError;
use super::health::HealthClient;
use super::pool::{Connector, Pool};
use super::url::NodeUrl;
use crate::entry::MESSAGE_BYTES_MAX;

/// What a client is made of.
///
/// # Defaults
/// - connections per node: 1 (one connection carries many calls; for throughput take several)
/// - timeout per call: 5 s
/// - namespace: "" (the default one)
/// - longest answer: 2 GiB, which is what a node can be set to send; memory is taken for what comes, not for the limit
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct ClientBuilder {
    nodes: Vec<NodeUrl>,
    namespace: String,
    timeout: Duration,
    connections: NonZeroUsize,
    max_message_bytes: usize,
    connector: Connector,
}

impl ClientBuilder {
    /// A client of these nodes. Until the ring exists it is exactly one; the build methods refuse more.
    pub fn new(nodes: impl IntoIterator<Item = NodeUrl>) -> Self {
        Self {
            nodes: nodes.into_iter().collect(),
            namespace: String::new(),
            timeout: Duration::from_secs(5),
            connections: NonZeroUsize::MIN,
            max_message_bytes: MESSAGE_BYTES_MAX,
            connector: Connector::System,
        }
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

    /// How many connections are kept to each node. Calls take them in turn.
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

    /// A client of the data plane. Nothing is connected yet; that happens with the first call. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::NoNode`], [`ClientError::SeveralNodes`], [`ClientError::BadUrl`].
    pub fn build(self) -> Result<Client, ClientError> {
        let pool = self.pool()?;
        Ok(Client::new(pool, self.namespace))
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
