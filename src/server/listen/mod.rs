//! Listeners: from an [`Endpoint`] to a stream of connections, whatever kind of socket is behind it.
//!
//! [`bind`] is the only place that tells kinds apart. What it answers is a [`Bound`]: the endpoint with the port
//! that was picked, and an accepter of [`Socket`]s, which read and write and say nothing else. TLS is one more variant here
//! and one more file beside tcp.rs and unix.rs. In a simulation its network stands for all of them.

#[cfg(feature = "testing")]
mod simulated;
mod tcp;
mod unix;

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::io::ioctl_fionread;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;

use super::platform::Platform;
use crate::endpoint::{Endpoint, PeerInfo, is_loopback};

/// Connections that the kernel holds for the accept loop; Linux cuts this to net.core.somaxconn.
const BACKLOG: i32 = 1024;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// There is no listener for its scheme.
    #[error("cannot listen on {address}: this build listens on tcp:// and unix:// only")]
    NotServed {
        /// What was asked for.
        address: Endpoint,
    },
    /// Its host's name stands for nothing.
    #[error("cannot listen on {address}: the name does not resolve; give an IP address")]
    Unresolved {
        /// What was asked for.
        address: Endpoint,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// Another socket has the port, or the path.
    #[error(
        "cannot listen on {address}: {} in use; stop the program that has it, or choose another{}",
        if matches!(address, Endpoint::Unix(_)) { "the path is" } else { "the port is" },
        if matches!(address, Endpoint::Unix(_)) { "" } else { " port (0 picks a free one)" }
    )]
    InUse {
        /// What was asked for.
        address: Endpoint,
    },
    /// The IP address is none of this machine's.
    #[error(
        "cannot listen on {address}: this machine has no such IP address; choose one that it has, or [::] for all"
    )]
    NotHere {
        /// What was asked for.
        address: Endpoint,
    },
    /// The operating system forbids it.
    #[error(
        "cannot listen on {address}: not permitted; choose a port from 1024 up, or grant CAP_NET_BIND_SERVICE"
    )]
    Forbidden {
        /// What was asked for.
        address: Endpoint,
    },
    /// At the path is something that is no socket.
    #[error(
        "cannot listen on {address}: there is something at that path, and it is no socket; choose another path, or take it away"
    )]
    NoSocket {
        /// What was asked for.
        address: Endpoint,
    },
    /// The directory of the path is not there.
    #[error(
        "cannot listen on {address}: there is no directory {}; create it, or choose another path",
        parent(address)
    )]
    NoDirectory {
        /// What was asked for.
        address: Endpoint,
    },
    /// The operating system forbids to make the socket's file, or to replace it.
    #[error(
        "cannot listen on {address}: not permitted; the node's user must be able to write to {}, and own a socket that it is to replace",
        parent(address)
    )]
    ForbiddenFile {
        /// What was asked for.
        address: Endpoint,
    },
    /// Something else went wrong.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// What was asked for.
        address: Endpoint,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// A socket that listens.
#[derive(Debug)]
pub struct Bound {
    /// Where, with the IP address and port that were picked.
    pub address: Endpoint,
    /// The connections.
    pub incoming: Incoming,
}

/// Opens a listener that `runtime` is to serve.
///
/// # Errors
///
/// A [`ListenError`] that names the address and says what to do.
pub(crate) async fn bind(
    platform: &Platform,
    address: &Endpoint,
    runtime: &Handle,
) -> Result<Bound, ListenError> {
    match platform {
        Platform::System => match address {
            Endpoint::Tcp(at) => tcp::bind(at, runtime).await,
            Endpoint::Unix(path) => unix::bind(path, runtime),
            Endpoint::Udp(_) => Err(ListenError::NotServed { address: address.clone() }),
        },
        #[cfg(feature = "testing")]
        Platform::Simulated(network) => simulated::bind(network, address).await,
    }
}

/// Whether only this machine can reach a listener, as [`Endpoint::is_local`] says it; what `localhost` stands for is
/// looked up besides.
///
/// # Errors
///
/// [`ListenError::Unresolved`] where the host's name stands for nothing.
pub async fn is_private(address: &Endpoint) -> Result<bool, ListenError> {
    let Endpoint::Tcp(at) = address else { return Ok(address.is_local()) };
    let resolved = tcp::resolve(at).await?;
    Ok(at.is_loopback() && resolved.iter().all(|address| is_loopback(address.ip())))
}

/// The directory of a Unix socket's path.
fn parent(address: &Endpoint) -> String {
    let Endpoint::Unix(path) = address else { return String::new() };
    path.parent().map_or_else(String::new, |parent| parent.display().to_string())
}

/// What an accept loop needs of a listener. A trait so that its faults can be put to the test.
pub(crate) trait Accept: Send + 'static {
    /// A connection.
    type Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection and its peer. Dropping the future before it is ready loses nothing.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Socket, PeerInfo)>> + Send;
}

/// The stream of connections of a listener.
#[derive(Debug)]
pub struct Incoming(Listener);

#[derive(Debug)]
enum Listener {
    Tcp(tcp::TcpIncoming),
    Unix(unix::UnixIncoming),
    #[cfg(feature = "testing")]
    Simulated(simulated::SimulatedIncoming),
}

impl Accept for Incoming {
    type Socket = Socket;

    async fn accept(&mut self) -> io::Result<(Socket, PeerInfo)> {
        Ok(match &mut self.0 {
            Listener::Tcp(incoming) => {
                let (stream, peer) = incoming.accept().await?;
                (Socket(Kind::Tcp(stream)), peer)
            }
            Listener::Unix(incoming) => {
                let (stream, peer) = incoming.accept().await?;
                (Socket(Kind::Unix(stream)), peer)
            }
            #[cfg(feature = "testing")]
            Listener::Simulated(incoming) => {
                let (stream, peer) = incoming.accept().await?;
                (Socket(Kind::Simulated(stream)), peer)
            }
        })
    }
}

/// One connection's bytes, both ways.
#[derive(Debug)]
pub struct Socket(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
    #[cfg(feature = "testing")]
    Simulated(crate::endpoint::network::Connection),
}

/// The same of a socket of each kind.
macro_rules! of_each_kind {
    ($socket:expr, $stream:ident => $does:expr) => {
        match $socket {
            Kind::Tcp($stream) => $does,
            Kind::Unix($stream) => $does,
            #[cfg(feature = "testing")]
            Kind::Simulated($stream) => $does,
        }
    };
}

/// What can tell how much of it could be read at once.
pub(crate) trait Unread {
    /// In bytes, those that a peer is still to send left out; 0 also where it cannot be told.
    fn unread(&self) -> usize;
}

impl Unread for Socket {
    fn unread(&self) -> usize {
        let bytes = match &self.0 {
            Kind::Tcp(stream) => ioctl_fionread(stream),
            Kind::Unix(stream) => ioctl_fionread(stream),
            #[cfg(feature = "testing")]
            Kind::Simulated(_) => Ok(0),
        };
        bytes.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        of_each_kind!(&mut self.0, stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        of_each_kind!(&mut self.0, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        of_each_kind!(&mut self.0, stream => Pin::new(stream).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        of_each_kind!(&self.0, stream => stream.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_each_kind!(&mut self.0, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_each_kind!(&mut self.0, stream => Pin::new(stream).poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn loopback_is_private_however_it_is_written() {
        for host in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "localhost"] {
            assert!(is_private(&Endpoint::tcp(host, 0)).await.unwrap(), "{host}");
        }
        for host in ["0.0.0.0", "::", "::ffff:0.0.0.0", "10.0.0.1"] {
            assert!(!is_private(&Endpoint::tcp(host, 0)).await.unwrap(), "{host}");
        }
    }
}
