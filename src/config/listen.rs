//! Where a node listens: `tcp://HOST:PORT`, and the schemes that are to come.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::endpoint::{BadHostPort, HostPort};

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

/// What is wrong with a listener's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadListenUrl {
    /// There is no `://`.
    #[error("has no scheme")]
    NoScheme,
    /// Nothing is known of the scheme.
    #[error("has a scheme that is not known")]
    UnknownScheme,
    /// Its host and port are none.
    #[error(transparent)]
    HostPort(#[from] BadHostPort),
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
        let url: ListenUrl = "tcp://fd00::1:7400/".parse().unwrap();
        assert_eq!(url.to_string(), "tcp://[fd00::1]:7400");
    }

    #[test]
    fn each_mistake_is_told_by_its_own_name() {
        let cases = [
            ("127.0.0.1:7400", BadListenUrl::NoScheme),
            ("http://127.0.0.1:7400", BadListenUrl::UnknownScheme),
            ("tcp://:7400", BadListenUrl::HostPort(BadHostPort::NoHost)),
            ("tcp://user@host:1", BadListenUrl::HostPort(BadHostPort::BadHost)),
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
