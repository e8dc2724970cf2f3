//! Where a listener is, or a node: the one parser of what listeners, clients and members write, and the one rule for what
//! counts as loopback; and who is at the other end of a connection.
//!
//! ```text
//!   tcp://HOST:PORT   unix:///PATH   udp://HOST:PORT
//!
//!   127.0.0.1:7400    [::1]:7400    cache-0.larder:7400    fd00::1:7400
//!                                                          an IPv6 address without brackets: templates such
//!                                                          as tcp://$(POD_IP):7400 make it. What follows the
//!                                                          last colon is the port, which must always be there.
//! ```

#[cfg(feature = "testing")]
pub mod network;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Where a listener is, or a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `tcp://HOST:PORT`.
    Tcp(HostPort),
    /// `unix:///PATH`: the file of a Unix socket.
    Unix(PathBuf),
    /// `udp://HOST:PORT`. Not served by this build yet.
    Udp(HostPort),
}

/// What is wrong with an endpoint's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadEndpoint {
    /// There is no `://`.
    #[error("has no scheme")]
    NoScheme,
    /// Nothing is known of the scheme.
    #[error("has a scheme that is none of tcp, unix and udp")]
    UnknownScheme,
    /// Its host and port are none.
    #[error(transparent)]
    HostPort(#[from] BadHostPort),
    /// Something stands behind the port.
    #[error("has a path behind its host and port")]
    Path,
    /// A Unix socket's path does not begin at the root.
    #[error("has no absolute path, as in unix:///run/larder.sock")]
    NoPath,
    /// A Unix socket's path is longer than an address of one.
    #[error("has a path of {bytes} bytes, and that of a Unix socket has {UNIX_PATH_BYTES_MAX} at most")]
    LongPath {
        /// Its length.
        bytes: usize,
    },
}

/// The longest path of a Unix socket on every system that Larder is built for, in bytes: macOS has room for 104 with the
/// zero at the end, Linux for 108.
pub const UNIX_PATH_BYTES_MAX: usize = 103;

/// A host and a port, written `127.0.0.1:7400`, `[::1]:7400` or `localhost:7400`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// An IP address without brackets, or a name.
    pub host: String,
    /// The port; 0 picks a free one.
    pub port: u16,
}

/// What is wrong with a host and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadHostPort {
    /// There is no host.
    #[error("has no host")]
    NoHost,
    /// There is no port.
    #[error("has no port")]
    NoPort,
    /// The port is no number up to 65535.
    #[error("has a port that is no number from 0 to 65535")]
    BadPort,
    /// The host is neither a name nor an IP address.
    #[error("has a host that is neither a name, an IPv4 address nor an IPv6 address in brackets")]
    BadHost,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Where.
    pub address: PeerAddress,
    /// Who the system says that it is, where it says so.
    pub identity: Option<PeerIdentity>,
}

/// Where a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAddress {
    /// At the other end of a TCP connection.
    Tcp(SocketAddr),
    /// On this machine, at the other end of a Unix socket, which has no name there.
    Unix,
}

/// Who a peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerIdentity {
    /// A process of this machine, as it was when it connected.
    Process {
        /// The number of its user.
        user: u32,
        /// Its own, where the system tells it.
        process: Option<i32>,
    },
}

impl From<SocketAddr> for PeerInfo {
    fn from(address: SocketAddr) -> Self {
        Self { address: PeerAddress::Tcp(address), identity: None }
    }
}

impl fmt::Display for PeerInfo {
    /// `10.0.0.7:51034`; `unix:user=1000,process=4711`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            PeerAddress::Tcp(address) => write!(f, "{address}")?,
            PeerAddress::Unix => f.write_str("unix")?,
        }
        match self.identity {
            None => Ok(()),
            Some(PeerIdentity::Process { user, process: None }) => write!(f, ":user={user}"),
            Some(PeerIdentity::Process { user, process: Some(process) }) => {
                write!(f, ":user={user},process={process}")
            }
        }
    }
}

impl Endpoint {
    /// A TCP endpoint: a name or an IP address, IPv6 without brackets, and a port.
    #[must_use]
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp(HostPort { host: host.into(), port })
    }

    /// Its host and port; `None` for a Unix socket.
    #[must_use]
    pub fn host_port(&self) -> Option<&HostPort> {
        match self {
            Self::Tcp(address) | Self::Udp(address) => Some(address),
            Self::Unix(_) => None,
        }
    }

    /// `HOST:PORT`, without the scheme; a Unix socket's path.
    #[must_use]
    pub fn authority(&self) -> String {
        match self {
            Self::Tcp(address) | Self::Udp(address) => address.to_string(),
            Self::Unix(path) => path.display().to_string(),
        }
    }

    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.host_port().is_none_or(HostPort::is_loopback)
    }

    /// Whether listeners at both would want the same address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) | (Self::Udp(one), Self::Udp(other)) => one.overlaps(other),
            (Self::Unix(one), Self::Unix(other)) => one == other,
            _ => false,
        }
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let (scheme, rest) = text.split_once("://").ok_or(BadEndpoint::NoScheme)?;
        match scheme {
            "tcp" | "udp" => {
                let rest = rest.strip_suffix('/').unwrap_or(rest);
                if rest.contains('/') {
                    return Err(BadEndpoint::Path);
                }
                let address = rest.parse()?;
                Ok(if scheme == "tcp" { Self::Tcp(address) } else { Self::Udp(address) })
            }
            "unix" if !rest.starts_with('/') || rest.ends_with('/') => Err(BadEndpoint::NoPath),
            "unix" if rest.len() > UNIX_PATH_BYTES_MAX => Err(BadEndpoint::LongPath { bytes: rest.len() }),
            "unix" => Ok(Self::Unix(rest.into())),
            _ => Err(BadEndpoint::UnknownScheme),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// Whether only this machine can reach an IP address: 127.0.0.0/8, ::1, and the former as IPv6 (::ffff:127.0.0.1).
#[must_use]
pub fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// Whether an IP address stands for all of this machine's: 0.0.0.0, ::, and the former as IPv6.
#[must_use]
pub fn is_unspecified(ip: IpAddr) -> bool {
    ip.to_canonical().is_unspecified()
}

/// The port in the authority of a URL, `collector:4317` or `user@[::1]`, where it may be left out; `None`: it is.
///
/// # Errors
/// There is no host, or what stands where a port does is none. Port 0 is one.
pub fn port_of(authority: &str) -> Result<Option<u16>, BadHostPort> {
    let at = authority.rsplit_once('@').map_or(authority, |(_, at)| at);
    match at.parse::<HostPort>() {
        Err(BadHostPort::NoPort) if !at.is_empty() && !at.ends_with(':') => Ok(None),
        read => read.map(|at| Some(at.port)),
    }
}

impl HostPort {
    /// Its IP address; `None` where the host is a name.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether only this machine can reach it. A name other than `localhost` counts as reachable, whatever it
    /// may resolve to.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.ip().map_or_else(|| self.host.eq_ignore_ascii_case("localhost"), is_loopback)
    }

    /// Whether it stands for all IP addresses of this machine.
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        self.ip().is_some_and(is_unspecified)
    }

    /// Whether listeners at both would want the same IP address and port. Of names only that they are equal is known.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.port != other.port || self.port == 0 {
            return false;
        }
        match (self.ip(), other.ip()) {
            (Some(one), Some(other)) => {
                let (one_kind, other_kind) = (one.to_canonical(), other.to_canonical());
                // [::] has IPv4 as well; 0.0.0.0 has no IPv6.
                let covers =
                    |all: IpAddr, ip: IpAddr| all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4());
                one_kind == other_kind || covers(one_kind, other_kind) || covers(other_kind, one_kind)
            }
            (None, None) => self.host.eq_ignore_ascii_case(&other.host),
            _ => false,
        }
    }
}

impl FromStr for HostPort {
    type Err = BadHostPort;

    fn from_str(text: &str) -> Result<Self, BadHostPort> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(BadHostPort::BadHost)?;
                host.parse::<Ipv6Addr>().map_err(|_| BadHostPort::BadHost)?;
                (host, port.strip_prefix(':').ok_or(BadHostPort::NoPort)?)
            }
            None => text.rsplit_once(':').ok_or(BadHostPort::NoPort)?,
        };
        if host.is_empty() {
            return Err(BadHostPort::NoHost);
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !host.chars().all(is_name) && host.parse::<Ipv6Addr>().is_err() {
            return Err(BadHostPort::BadHost);
        }
        if port.is_empty() {
            return Err(BadHostPort::NoPort);
        }
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BadHostPort::BadPort);
        }
        let port = port.parse().map_err(|_| BadHostPort::BadPort)?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for HostPort {
    /// As [`FromStr`] reads it, an IPv6 address in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> HostPort {
        text.parse().unwrap()
    }

    #[test]
    fn an_ipv6_address_needs_no_brackets_where_a_port_follows() {
        for (text, shown) in [
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::1]:7400", "[::1]:7400"),
            ("::1:7400", "[::1]:7400"),
            ("fd00::1:7400", "[fd00::1]:7400"),
            ("2001:db8:0:1:2:3:4:5:7400", "[2001:db8:0:1:2:3:4:5]:7400"),
            ("::ffff:10.1.2.3:7400", "[::ffff:10.1.2.3]:7400"),
            (":::7400", "[::]:7400"),
            ("cache-0.larder:65535", "cache-0.larder:65535"),
        ] {
            assert_eq!(at(text).to_string(), shown);
            assert_eq!(at(shown), at(text));
        }
        assert_eq!(HostPort::from(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 7400))), at("[::1]:7400"));
    }

    #[test]
    fn each_mistake_has_its_own_name() {
        for (text, error) in [
            (":7400", BadHostPort::NoHost),
            ("127.0.0.1", BadHostPort::NoPort),
            ("127.0.0.1:", BadHostPort::NoPort),
            ("[::1]", BadHostPort::NoPort),
            ("127.0.0.1:65536", BadHostPort::BadPort),
            ("127.0.0.1:+1", BadHostPort::BadPort),
            // Addresses without a port.
            ("fd00::1", BadHostPort::BadHost),
            ("2001:db8:0:1:2:3:4:5", BadHostPort::BadHost),
            ("fd00::1:beef", BadHostPort::BadPort),
            ("[::1:7400", BadHostPort::BadHost),
            ("[localhost]:7400", BadHostPort::BadHost),
            ("fe80::1%eth0:7400", BadHostPort::BadHost),
            ("user@host:1", BadHostPort::BadHost),
            ("a b:1", BadHostPort::BadHost),
        ] {
            assert_eq!(text.parse::<HostPort>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_port_may_be_left_out_of_a_url_and_not_be_anything_else() {
        for (text, port) in [
            ("collector", None),
            ("collector:4317", Some(4317)),
            ("user:token@collector", None),
            ("user:token@[::1]:4317", Some(4317)),
            ("[::1]", None),
            ("collector:0", Some(0)),
        ] {
            assert_eq!(port_of(text), Ok(port), "{text}");
        }
        for (text, error) in [
            ("collector:99999", BadHostPort::BadPort),
            ("[::1]:70000", BadHostPort::BadPort),
            ("collector:", BadHostPort::NoPort),
            (":4317", BadHostPort::NoHost),
            ("user@", BadHostPort::NoPort),
        ] {
            assert_eq!(port_of(text), Err(error), "{text}");
        }
    }

    #[test]
    fn loopback_and_all_addresses_are_told_however_they_are_written() {
        for text in
            ["127.9.9.9:1", "[::1]:1", "::1:1", "[::ffff:127.0.0.1]:1", "[::ffff:7f00:1]:1", "LocalHost:1"]
        {
            assert!(at(text).is_loopback() && !at(text).is_unspecified(), "{text}");
        }
        for text in ["0.0.0.0:1", "[::]:1", ":::1", "[::ffff:0.0.0.0]:1"] {
            assert!(at(text).is_unspecified() && !at(text).is_loopback(), "{text}");
        }
        for text in
            ["10.0.0.1:1", "[fd00::1]:1", "[::ffff:10.0.0.1]:1", "localhost.example.com:1", "[::127.0.0.1]:1"]
        {
            assert!(!at(text).is_loopback() && !at(text).is_unspecified(), "{text}");
        }
    }

    #[test]
    fn listeners_overlap_where_one_would_find_the_port_taken() {
        for (one, other) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("127.0.0.1:1", "[::ffff:127.0.0.1]:1"),
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "10.0.0.1:1"),
            ("[::]:1", "[fd00::1]:1"),
            ("[::]:1", "0.0.0.0:1"),
            ("Cache:1", "cache:1"),
        ] {
            assert!(at(one).overlaps(&at(other)) && at(other).overlaps(&at(one)), "{one} {other}");
        }
        for (one, other) in [
            ("127.0.0.1:1", "127.0.0.1:2"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("127.0.0.1:1", "127.0.0.2:1"),
            ("0.0.0.0:1", "[::1]:1"),
            ("cache:1", "127.0.0.1:1"),
        ] {
            assert!(!at(one).overlaps(&at(other)) && !at(other).overlaps(&at(one)), "{one} {other}");
        }
    }

    #[test]
    fn urls_print_as_they_were_written() {
        for text in [
            "tcp://127.0.0.1:0",
            "tcp://[::1]:7400",
            "tcp://cache-0.cache:65535",
            "unix:///run/l.sock",
            "udp://a:1",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        let url: Endpoint = "tcp://fd00::1:7400/".parse().unwrap();
        assert_eq!(url.to_string(), "tcp://[fd00::1]:7400");
    }

    #[test]
    fn each_mistake_in_a_url_is_told_by_its_own_name() {
        let long = format!("unix:///{}", "x".repeat(UNIX_PATH_BYTES_MAX));
        let cases = [
            ("127.0.0.1:7400", BadEndpoint::NoScheme),
            ("http://127.0.0.1:7400", BadEndpoint::UnknownScheme),
            ("tcp://:7400", BadEndpoint::HostPort(BadHostPort::NoHost)),
            ("tcp://user@host:1", BadEndpoint::HostPort(BadHostPort::BadHost)),
            ("tcp://127.0.0.1:7400/cache", BadEndpoint::Path),
            ("unix://larder.sock", BadEndpoint::NoPath),
            ("unix:///run/", BadEndpoint::NoPath),
            ("unix:///", BadEndpoint::NoPath),
            (&long, BadEndpoint::LongPath { bytes: UNIX_PATH_BYTES_MAX + 1 }),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Endpoint>(), Err(error), "{text}");
        }
    }

    #[test]
    fn only_loopback_and_unix_sockets_count_as_local() {
        for text in ["tcp://127.9.9.9:1", "tcp://[::1]:1", "tcp://LocalHost:1", "unix:///run/l.sock"] {
            assert!(text.parse::<Endpoint>().unwrap().is_local(), "{text}");
        }
        for text in ["tcp://0.0.0.0:1", "tcp://[::]:1", "tcp://10.0.0.1:1", "tcp://localhost.example.com:1"] {
            assert!(!text.parse::<Endpoint>().unwrap().is_local(), "{text}");
        }
    }

    #[test]
    fn endpoints_of_different_kinds_never_overlap() {
        let at = |text: &str| text.parse::<Endpoint>().unwrap();
        assert!(at("unix:///run/l.sock").overlaps(&at("unix:///run/l.sock")));
        for other in ["unix:///run/m.sock", "tcp://run:1"] {
            assert!(!at("unix:///run/l.sock").overlaps(&at(other)));
        }
        assert!(!at("tcp://a:1").overlaps(&at("udp://a:1")));
    }

    #[test]
    fn a_peer_is_shown_by_all_that_is_known_of_it() {
        let tcp = PeerInfo::from(SocketAddr::from(([10, 0, 0, 7], 51_034)));
        assert_eq!(tcp.to_string(), "10.0.0.7:51034");
        let unix = |identity| PeerInfo { address: PeerAddress::Unix, identity }.to_string();
        assert_eq!(unix(None), "unix");
        let process = |process| Some(PeerIdentity::Process { user: 1_000, process });
        assert_eq!(unix(process(None)), "unix:user=1000");
        assert_eq!(unix(process(Some(4_711))), "unix:user=1000,process=4711");
    }
}
