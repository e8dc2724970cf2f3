//! Listeners: from an [`Address`] to a stream of connections, whatever kind of socket is behind it.
//!
//! [`bind`] is the only place that tells kinds apart. What it answers is a [`Bound`]: the address with the port
//! that was picked, and an accepter of [`Socket`]s, which read and write and say nothing else. A Unix socket or
//! TLS is one more variant here and one more file beside tcp.rs.

mod tcp;

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use crate::endpoint::{BadHostPort, HostPort, is_loopback};
use crate::redacted::Redacted;

/// Where to listen: a URL. Only `tcp://HOST:PORT` as yet, where port 0 picks a free one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address(HostPort);

impl Address {
    /// The address of a TCP socket: a name or an IP address, IPv6 without brackets, and a port.
    #[must_use]
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self(HostPort { host: host.into(), port })
    }

    /// Reads `HOST:PORT`, as for a socket that speaks plain HTTP.
    ///
    /// # Errors
    ///
    /// [`ListenError::Url`] where host or port is missing or wrong.
    pub fn from_authority(authority: &str) -> Result<Self, ListenError> {
        parse(authority).map_err(|reason| ListenError::Url { url: authority.into(), reason })
    }

    /// `HOST:PORT`, without the scheme.
    #[must_use]
    pub fn authority(&self) -> String {
        self.0.to_string()
    }

    /// The host, IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// The port; 0 before [`bind`] has picked one.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Whether only this machine can reach it, as [`HostPort::is_loopback`] says it; what `localhost` stands for is
    /// looked up besides.
    ///
    /// # Errors
    ///
    /// [`ListenError::Unresolved`] where the host's name stands for nothing.
    pub async fn is_private(&self) -> Result<bool, ListenError> {
        let resolved = tcp::resolve(self).await?;
        Ok(self.0.is_loopback() && resolved.iter().all(|address| is_loopback(address.ip())))
    }
}

impl FromStr for Address {
    type Err = ListenError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let wrong = |reason| ListenError::Url { url: url.into(), reason };
        match url.split_once("://") {
            Some(("tcp", authority)) => parse(authority).map_err(wrong),
            Some(("unix" | "udp", _)) => Err(wrong("this build listens on tcp:// only")),
            Some(_) => Err(wrong("the scheme must be tcp")),
            None => Err(wrong("it needs a scheme, as in tcp://127.0.0.1:7400")),
        }
    }
}

fn parse(authority: &str) -> Result<Address, &'static str> {
    authority.parse().map(Address).map_err(|error| match error {
        BadHostPort::NoHost => {
            "it needs a host, as in 127.0.0.1:7400; 0.0.0.0 is every IPv4 address of this machine, [::] every address"
        }
        BadHostPort::NoPort => "it needs a port, as in 127.0.0.1:7400",
        BadHostPort::BadPort => "the port must be a number from 0 (pick a free one) to 65535",
        BadHostPort::BadHost => "the host must be a name or an IP address",
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp://{}", self.authority())
    }
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// It is no URL of a listener.
    #[error("{url:?} is no address to listen on: {reason}")]
    Url {
        /// What was given.
        url: Redacted,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Its host's name stands for nothing.
    #[error("cannot listen on {address}: the name `{}` does not resolve; give an IP address", address.host())]
    Unresolved {
        /// What was asked for.
        address: Address,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// Another socket has the port.
    #[error(
        "cannot listen on {address}: the port is in use; stop the program that has it, or choose another port (0 picks a free one)"
    )]
    InUse {
        /// What was asked for.
        address: Address,
    },
    /// The IP address is none of this machine's.
    #[error(
        "cannot listen on {address}: this machine has no such IP address; choose one that it has, or [::] for all"
    )]
    NotHere {
        /// What was asked for.
        address: Address,
    },
    /// The operating system forbids it.
    #[error(
        "cannot listen on {address}: not permitted; choose a port from 1024 up, or grant CAP_NET_BIND_SERVICE"
    )]
    Forbidden {
        /// What was asked for.
        address: Address,
    },
    /// Something else went wrong.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// What was asked for.
        address: Address,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// A socket that listens.
#[derive(Debug)]
pub struct Bound {
    /// Where, with the IP address and port that were picked.
    pub address: Address,
    /// The connections.
    pub incoming: Incoming,
}

/// Opens a listener that `runtime` is to serve.
///
/// # Errors
///
/// A [`ListenError`] that names the address and says what to do.
pub async fn bind(address: &Address, runtime: &Handle) -> Result<Bound, ListenError> {
    tcp::bind(address, runtime).await
}

/// What an accept loop needs of a listener. A trait so that its faults can be put to the test.
pub(crate) trait Accept: Send + 'static {
    /// A connection.
    type Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection and its peer's name. Dropping the future before it is ready loses nothing.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Socket, Peer)>> + Send;
}

/// Who is at the other end of a connection, for logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer(String);

impl Peer {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The stream of connections of a listener.
#[derive(Debug)]
pub struct Incoming(tcp::TcpIncoming);

impl Accept for Incoming {
    type Socket = Socket;

    async fn accept(&mut self) -> io::Result<(Socket, Peer)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((Socket(Kind::Tcp(stream)), peer))
    }
}

/// One connection's bytes, both ways.
#[derive(Debug)]
pub struct Socket(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Kind::Tcp(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_they_are_written() {
        for url in ["tcp://127.0.0.1:7400", "tcp://[::1]:0", "tcp://localhost:65535", "tcp://cache.local:1"] {
            assert_eq!(url.parse::<Address>().unwrap().to_string(), url);
        }
    }

    #[test]
    fn a_bad_address_is_named_with_what_is_wrong() {
        for (url, reason) in [
            ("127.0.0.1:7400", "scheme"),
            ("http://127.0.0.1:7400", "scheme must be tcp"),
            ("unix:///run/larder.sock", "tcp:// only"),
            ("tcp://127.0.0.1", "port"),
            ("tcp://:7400", "host"),
            ("tcp://127.0.0.1:70000", "port"),
            ("tcp://fd00::1", "host"),
            ("tcp://127.0.0.1:7400/x", "port"),
        ] {
            let error = url.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(url) && error.contains(reason), "{error}");
        }
        let error = "tcp://user:hunter2@a:1".parse::<Address>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }

    #[tokio::test]
    async fn loopback_is_private_however_it_is_written() {
        for host in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "localhost"] {
            assert!(Address::tcp(host, 0).is_private().await.unwrap(), "{host}");
        }
        for host in ["0.0.0.0", "::", "::ffff:0.0.0.0", "10.0.0.1"] {
            assert!(!Address::tcp(host, 0).is_private().await.unwrap(), "{host}");
        }
    }
}
