//! Making connections: over the operating system's network, or a simulation's.

use std::io;

use tonic::transport::{Channel, Endpoint as ChannelEndpoint};

use super::url::NodeUrl;
use crate::endpoint::Endpoint;

/// What makes connections.
#[derive(Debug, Clone)]
pub(super) enum Connector {
    /// The operating system.
    System,
    /// A simulation.
    #[cfg(feature = "testing")]
    Simulated(crate::endpoint::network::SharedNetwork),
}

/// One connection's bytes, both ways.
pub(super) type Socket = Box<dyn ReadWrite>;

/// What reads and writes.
pub(super) trait ReadWrite: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> ReadWrite for T {}

impl Connector {
    /// Connects with a node.
    ///
    /// # Errors
    /// What the operating system says. There is no time-out; the caller has one.
    pub(super) async fn connect(&self, node: &NodeUrl) -> io::Result<Socket> {
        match self {
            Self::System => match node.endpoint() {
                Endpoint::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
                Endpoint::Tcp(at) | Endpoint::Udp(at) => {
                    let socket = tokio::net::TcpStream::connect((at.host.as_str(), at.port)).await?;
                    socket.set_nodelay(true)?;
                    Ok(Box::new(socket))
                }
            },
            #[cfg(feature = "testing")]
            Self::Simulated(network) => {
                let connection = network.connect(node.endpoint().clone()).await?;
                Ok(Box::new(connection))
            }
        }
    }

    /// A lazy channel to a node.
    #[cfg_attr(not(feature = "testing"), expect(unused_variables, reason = "the channel has its URI"))]
    pub(super) fn channel(&self, channel: &ChannelEndpoint, node: &NodeUrl) -> Channel {
        match self {
            Self::System => channel.connect_lazy(),
            #[cfg(feature = "testing")]
            Self::Simulated(network) => {
                let (network, node) = (network.clone(), node.endpoint().clone());
                // The channel's own, which it keeps around a connector that is given, would say nothing of a connection.
                let within = channel.get_connect_timeout().unwrap_or(super::pool::CONNECT_TIMEOUT_MAX);
                channel.connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
                    let connecting = tokio::time::timeout(within, network.connect(node.clone()));
                    async { connecting.await?.map(hyper_util::rt::TokioIo::new) }
                }))
            }
        }
    }
}
