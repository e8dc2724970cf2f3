//! TCP: resolving, binding, accepting.
//!
//! A listener at `[::]` serves IPv6 and IPv4, whatever net.ipv6.bindv6only says, and IPv4 alone on a machine without
//! IPv6: one flag for every network that a container may find itself in.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

use super::{BACKLOG, Bound, Incoming, ListenError, Listener};
use crate::endpoint::{Endpoint, HostPort, PeerInfo};

#[derive(Debug)]
pub(super) struct TcpIncoming(TcpListener);

impl TcpIncoming {
    pub(super) async fn accept(&mut self) -> io::Result<(TcpStream, PeerInfo)> {
        let (stream, peer) = self.0.accept().await?;
        // A socket that refuses its options is about to fail anyway, and then says so when it is read.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
        Ok((stream, peer.into()))
    }
}

pub(super) async fn resolve(address: &HostPort) -> Result<Vec<SocketAddr>, ListenError> {
    if let Ok(ip) = address.host.parse::<IpAddr>() {
        // ::ffff:127.0.0.1 is 127.0.0.1, also where there is no IPv6.
        return Ok(vec![SocketAddr::new(ip.to_canonical(), address.port)]);
    }
    let unresolved = |source| ListenError::Unresolved { address: Endpoint::Tcp(address.clone()), source };
    let found: Vec<SocketAddr> =
        tokio::net::lookup_host((&*address.host, address.port)).await.map_err(unresolved)?.collect();
    if found.is_empty() {
        return Err(unresolved(ErrorKind::NotFound.into()));
    }
    Ok(found)
}

/// Listens on the first of the host's IP addresses that can be listened on.
pub(super) async fn bind(address: &HostPort, runtime: &Handle) -> Result<Bound, ListenError> {
    let mut last = ErrorKind::NotFound.into();
    for candidate in resolve(address).await? {
        match listen(candidate, runtime) {
            Ok((listener, at)) => {
                return Ok(Bound {
                    address: Endpoint::Tcp(at.into()),
                    incoming: Incoming(Listener::Tcp(TcpIncoming(listener))),
                });
            }
            Err(error) => last = error,
        }
    }
    Err(refusal(Endpoint::Tcp(address.clone()), last))
}

fn listen(at: SocketAddr, runtime: &Handle) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = open(at, bound_socket)?;
    socket.listen(BACKLOG)?;
    // The listener belongs to the runtime in whose context it is made.
    let _context = runtime.enter();
    let listener = TcpListener::from_std(socket.into())?;
    let at = listener.local_addr()?;
    Ok((listener, at))
}

/// Calls `bound_socket`, and where there is no IPv6 asks it for 0.0.0.0 instead of `[::]`.
fn open<S>(at: SocketAddr, bound_socket: impl Fn(SocketAddr) -> io::Result<S>) -> io::Result<S> {
    match bound_socket(at) {
        Err(error) if at.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && is_without_family(&error) => {
            tracing::info!(
                port = at.port(),
                "this machine has no IPv6: listening on 0.0.0.0 in place of [::]"
            );
            bound_socket((Ipv4Addr::UNSPECIFIED, at.port()).into())
        }
        other => other,
    }
}

fn bound_socket(at: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    if at.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restarted node takes its port back although connections of its former life are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    Ok(socket)
}

/// Whether the machine knows nothing of the kind of address.
fn is_without_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

pub(super) fn refusal(address: Endpoint, source: io::Error) -> ListenError {
    match source.kind() {
        ErrorKind::AddrInUse => ListenError::InUse { address },
        ErrorKind::AddrNotAvailable => ListenError::NotHere { address },
        ErrorKind::PermissionDenied => ListenError::Forbidden { address },
        _ if is_without_family(&source) => ListenError::NotHere { address },
        _ => ListenError::Io { address, source },
    }
}

/// After how long a peer that takes no bytes, though it lives, loses its connection. HTTP/2 keepalive cannot see
/// to that: its own GOAWAY would wait behind the bytes that are not taken.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::net::TcpStream as Client;

    use super::*;

    #[tokio::test]
    async fn a_listener_at_all_addresses_serves_both_families() {
        let at = |host: &str| HostPort { host: host.to_owned(), port: 0 };
        let bound = bind(&at("::"), &Handle::current()).await.unwrap();
        let HostPort { host, port } = bound.address.host_port().unwrap().clone();
        Client::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        // A machine without IPv6 has it at 0.0.0.0.
        if host == "::" {
            Client::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
        let mapped = bind(&at("::ffff:127.0.0.1"), &Handle::current()).await.unwrap();
        let HostPort { host, port } = mapped.address.host_port().unwrap().clone();
        assert_eq!(host, "127.0.0.1");
        Client::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    }

    #[test]
    fn without_ipv6_all_addresses_are_those_of_ipv4() {
        let without_ipv6 = |at: SocketAddr| match at.ip() {
            IpAddr::V4(_) => Ok(at),
            IpAddr::V6(_) => Err(Errno::AFNOSUPPORT.into()),
        };
        let opened = |at: &str| open(at.parse().unwrap(), without_ipv6).map(|at| at.to_string());
        assert_eq!(opened("[::]:7400").unwrap(), "0.0.0.0:7400");
        let refused = refusal(Endpoint::tcp("::1", 7400), opened("[::1]:7400").unwrap_err());
        assert!(matches!(refused, ListenError::NotHere { .. }), "{refused}");
        let in_use = |_: SocketAddr| Err::<(), _>(ErrorKind::AddrInUse.into());
        assert_eq!(open("[::]:7400".parse().unwrap(), in_use).unwrap_err().kind(), ErrorKind::AddrInUse);
    }
}
