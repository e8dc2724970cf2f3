//! TCP: resolving, binding, accepting.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

use super::{Address, Bound, Incoming, ListenError, Peer};

#[derive(Debug)]
pub(super) struct TcpIncoming(TcpListener);

impl TcpIncoming {
    pub(super) async fn accept(&mut self) -> io::Result<(TcpStream, Peer)> {
        let (stream, peer) = self.0.accept().await?;
        // A socket that refuses its options is about to fail anyway, and then says so when it is read.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
        Ok((stream, Peer::new(peer.to_string())))
    }
}

pub(super) fn parse(authority: &str) -> Result<Address, &'static str> {
    let (host, port) = authority.rsplit_once(':').ok_or("it needs a port, as in 127.0.0.1:7400")?;
    let port = port.parse().map_err(|_| "the port must be a number from 0 (pick a free one) to 65535")?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bare.is_none() && host.contains(':') {
        return Err("an IPv6 address needs brackets, as in [::1]:7400");
    }
    let host = bare.unwrap_or(host);
    if host.is_empty() {
        return Err("it needs a host, as in 127.0.0.1:7400; 0.0.0.0 is every IPv4 address of this machine");
    }
    if host.chars().any(|c| c.is_whitespace() || c.is_control() || "/@?#[]".contains(c)) {
        return Err("the host must be a name or an IP address");
    }
    Ok(Address::tcp(host, port))
}

pub(super) async fn resolve(address: &Address) -> Result<Vec<SocketAddr>, ListenError> {
    if let Ok(ip) = address.host().parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, address.port())]);
    }
    let unresolved = |source| ListenError::Unresolved { address: address.clone(), source };
    let found: Vec<SocketAddr> =
        tokio::net::lookup_host((address.host(), address.port())).await.map_err(unresolved)?.collect();
    if found.is_empty() {
        return Err(unresolved(ErrorKind::NotFound.into()));
    }
    Ok(found)
}

/// Listens on the first of the host's IP addresses that can be listened on.
pub(super) async fn bind(address: &Address, runtime: &Handle) -> Result<Bound, ListenError> {
    let mut last = ErrorKind::NotFound.into();
    for candidate in resolve(address).await? {
        match listen(candidate, runtime) {
            Ok((listener, at)) => {
                return Ok(Bound {
                    address: Address::tcp(at.ip().to_string(), at.port()),
                    incoming: Incoming(TcpIncoming(listener)),
                });
            }
            Err(error) => last = error,
        }
    }
    Err(refusal(address.clone(), last))
}

fn listen(at: SocketAddr, runtime: &Handle) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted node takes its port back although connections of its former life are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    // The listener belongs to the runtime in whose context it is made.
    let _context = runtime.enter();
    let listener = TcpListener::from_std(socket.into())?;
    let at = listener.local_addr()?;
    Ok((listener, at))
}

fn refusal(address: Address, source: io::Error) -> ListenError {
    match source.kind() {
        ErrorKind::AddrInUse => ListenError::InUse { address },
        ErrorKind::AddrNotAvailable => ListenError::NotHere { address },
        ErrorKind::PermissionDenied => ListenError::Forbidden { address },
        _ => ListenError::Io { address, source },
    }
}

/// Connections that the kernel holds for the accept loop; it cuts this to net.core.somaxconn.
const BACKLOG: i32 = 1024;

/// After how long a peer that takes no bytes, though it lives, loses its connection. HTTP/2 keepalive cannot see
/// to that: its own GOAWAY would wait behind the bytes that are not taken.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
