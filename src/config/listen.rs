//! Where a node listens: `tcp://HOST:PORT`, and the schemes that are to come.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// A listener's URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenUrl {
    /// `tcp://HOST:PORT`.
    Tcp(HostPort),
    /// `udp://HOST:PORT`. Not served by this build yet.
    Udp(HostPort),
    /// `unix:///PATH`. Not served by this build yet.
    Unix(PathBuf),
}

/// A host and a port, written `127.0.0.1:7400`, `[::1]:7400` or `localhost:7400`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// An IP address without brackets, or a name.
    pub host: String,
    /// The port; 0 picks a free one.
    pub port: u16,
}

/// What is wrong with a listener's URL or address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadListenUrl {
    /// There is no `://`.
    #[error("has no scheme")]
    NoScheme,
    /// Nothing is known of the scheme.
    #[error("has a scheme that is not known")]
    UnknownScheme,
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
    /// Something stands behind the port.
    #[error("has a path, which a listener has no use for")]
    Path,
    /// A Unix socket's path does not begin at the root.
    #[error("has no absolute path")]
    NoPath,
}

impl ListenUrl {
    /// Its host and port; `None` for a Unix socket.
    #[must_use]
    pub fn host_port(&self) -> Option<&HostPort> {
        match self {
            Self::Tcp(address) | Self::Udp(address) => Some(address),
            Self::Unix(_) => None,
        }
    }

    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.host_port().is_none_or(HostPort::is_loopback)
    }
}

impl HostPort {
    /// Whether only this machine can reach it. A name other than `localhost` counts as reachable, whatever it
    /// may resolve to.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl FromStr for ListenUrl {
    type Err = BadListenUrl;

    fn from_str(text: &str) -> Result<Self, BadListenUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(BadListenUrl::NoScheme)?;
        match scheme {
            "tcp" | "udp" => {
                let rest = rest.strip_suffix('/').unwrap_or(rest);
                if rest.contains('/') {
                    return Err(BadListenUrl::Path);
                }
                let address = rest.parse()?;
                Ok(if scheme == "tcp" { Self::Tcp(address) } else { Self::Udp(address) })
            }
            "unix" if rest.starts_with('/') && rest.len() > 1 => Ok(Self::Unix(rest.into())),
            "unix" => Err(BadListenUrl::NoPath),
            _ => Err(BadListenUrl::UnknownScheme),
        }
    }
}

impl FromStr for HostPort {
    type Err = BadListenUrl;

    fn from_str(text: &str) -> Result<Self, BadListenUrl> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(BadListenUrl::BadHost)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| BadListenUrl::BadHost)?;
                (host, port.strip_prefix(':').ok_or(BadListenUrl::NoPort)?)
            }
            None => text.rsplit_once(':').ok_or(BadListenUrl::NoPort)?,
        };
        if host.is_empty() {
            return Err(BadListenUrl::NoHost);
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !text.starts_with('[') && !host.chars().all(is_name) {
            return Err(BadListenUrl::BadHost);
        }
        if port.is_empty() {
            return Err(BadListenUrl::NoPort);
        }
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BadListenUrl::BadPort);
        }
        let port = port.parse().map_err(|_| BadListenUrl::BadPort)?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_print_as_they_were_written() {
        for text in
            ["tcp://127.0.0.1:0", "tcp://[::1]:7400", "tcp://cache-0.cache:65535", "unix:///run/l.sock"]
        {
            assert_eq!(text.parse::<ListenUrl>().unwrap().to_string(), text);
        }
        let bound: HostPort = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 7400)).into();
        assert_eq!(bound.to_string(), "[::1]:7400");
    }

    #[test]
    fn each_mistake_is_told_by_its_own_name() {
        let cases = [
            ("127.0.0.1:7400", BadListenUrl::NoScheme),
            ("http://127.0.0.1:7400", BadListenUrl::UnknownScheme),
            ("tcp://:7400", BadListenUrl::NoHost),
            ("tcp://127.0.0.1", BadListenUrl::NoPort),
            ("tcp://127.0.0.1:", BadListenUrl::NoPort),
            ("tcp://[::1]", BadListenUrl::NoPort),
            ("tcp://127.0.0.1:65536", BadListenUrl::BadPort),
            ("tcp://127.0.0.1:+1", BadListenUrl::BadPort),
            ("tcp://::1:7400", BadListenUrl::BadHost),
            ("tcp://[::1:7400", BadListenUrl::BadHost),
            ("tcp://[localhost]:7400", BadListenUrl::BadHost),
            ("tcp://user@host:1", BadListenUrl::BadHost),
            ("tcp://127.0.0.1:7400/cache", BadListenUrl::Path),
            ("unix://larder.sock", BadListenUrl::NoPath),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<ListenUrl>(), Err(error), "{text}");
        }
    }

    #[test]
    fn only_loopback_counts_as_local() {
        for text in ["tcp://127.9.9.9:1", "tcp://[::1]:1", "tcp://[::ffff:127.0.0.1]:1", "tcp://LocalHost:1"]
        {
            assert!(text.parse::<ListenUrl>().unwrap().is_local(), "{text}");
        }
        for text in ["tcp://0.0.0.0:1", "tcp://[::]:1", "tcp://10.0.0.1:1", "tcp://localhost.example.com:1"] {
            assert!(!text.parse::<ListenUrl>().unwrap().is_local(), "{text}");
        }
    }
}
