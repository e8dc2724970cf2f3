//! Where a node is: the URLs of `--nodes`, `--admin` and the client's builder.

use std::fmt;
use std::str::FromStr;

use crate::endpoint::{BadEndpoint, BadHostPort, Endpoint, UNIX_PATH_BYTES_MAX};
use crate::redacted::Redacted;

/// A node's URL that this build can connect to: `tcp://HOST:PORT`, whose scheme may be left out, or `unix:///PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeUrl(Endpoint);

impl NodeUrl {
    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.0
    }

    /// The same as a gRPC channel wants it.
    pub(crate) fn channel_uri(&self) -> String {
        match &self.0 {
            Endpoint::Unix(_) => self.0.to_string(),
            _ => format!("http://{}", self.authority()),
        }
    }

    /// What requests name as the host that they go to.
    pub(crate) fn authority(&self) -> String {
        match &self.0 {
            Endpoint::Unix(_) => "localhost".to_owned(),
            other => other.authority().to_string(),
        }
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Text that is no URL of a node, or one that this build cannot reach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadNodeUrl {
    /// It is not written as a URL should be.
    #[error(
        "{url:?} is no URL of a node: {problem}; write it as tcp://HOST:PORT, such as tcp://127.0.0.1:7400, or as unix:///PATH"
    )]
    Malformed {
        /// What was given.
        url: Redacted,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// This build has no client for UDP.
    #[error("{url:?}: udp:// is not served by this build yet; use tcp://HOST:PORT or unix:///PATH")]
    NotServed {
        /// What was given.
        url: Redacted,
    },
}

const UNIX_PATH: &str = "a Unix socket's path begins with /, as in unix:///run/larder.sock";

impl FromStr for NodeUrl {
    type Err = BadNodeUrl;

    fn from_str(text: &str) -> Result<Self, BadNodeUrl> {
        let malformed = |problem| BadNodeUrl::Malformed { url: text.into(), problem };
        // What people write first is HOST:PORT, which can mean one thing only.
        if text.starts_with("unix:") && !text.starts_with("unix://") {
            return Err(malformed(UNIX_PATH));
        }
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("tcp://{text}") };
        let endpoint = with_scheme.parse::<Endpoint>().map_err(|error| {
            malformed(match error {
                BadEndpoint::NoScheme | BadEndpoint::UnknownScheme => {
                    "its scheme is none of tcp, unix and udp"
                }
                BadEndpoint::HostPort(BadHostPort::NoHost) => "there is no host",
                BadEndpoint::HostPort(BadHostPort::NoPort) => "there is no port",
                BadEndpoint::HostPort(BadHostPort::BadPort) => "its port is no number from 1 to 65535",
                BadEndpoint::HostPort(BadHostPort::BadHost) | BadEndpoint::Path => {
                    "it may hold a host and a port only, an IPv6 address in brackets"
                }
                BadEndpoint::NoPath => UNIX_PATH,
                BadEndpoint::LongPath { .. } => {
                    const { assert!(UNIX_PATH_BYTES_MAX == 103, "as the words say") };
                    "its path is longer than the 103 bytes that a Unix socket's may have"
                }
            })
        })?;
        match &endpoint {
            Endpoint::Udp(_) => Err(BadNodeUrl::NotServed { url: text.into() }),
            Endpoint::Tcp(at) if at.port == 0 => Err(malformed("port 0 is no port to connect to")),
            _ => Ok(Self(endpoint)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_urls_of_names_and_addresses_are_taken() {
        for text in ["tcp://127.0.0.1:7400", "tcp://[::1]:7400", "tcp://cache-0.larder.svc:1"] {
            assert_eq!(text.parse::<NodeUrl>().unwrap().to_string(), text);
        }
        for text in ["127.0.0.1:7400", "[::1]:7400", "localhost:1"] {
            assert_eq!(
                text.parse::<NodeUrl>().unwrap().to_string(),
                format!("tcp://{text}"),
                "tcp is assumed"
            );
        }
        for (text, shown, channel) in [
            ("tcp://a:7400/", "tcp://a:7400", "http://a:7400"),
            ("tcp://fd00::1:7400", "tcp://[fd00::1]:7400", "http://[fd00::1]:7400"),
            ("unix:///run/larder.sock", "unix:///run/larder.sock", "unix:///run/larder.sock"),
        ] {
            let url: NodeUrl = text.parse().unwrap();
            assert_eq!((&*url.to_string(), &*url.channel_uri()), (shown, channel));
        }
    }

    #[test]
    fn text_that_is_no_node_url_is_refused_with_what_is_wrong() {
        let cases = [
            ("localhost", "no port"),
            ("unix:/run/larder.sock", "begins with /"),
            ("", "no port"),
            ("http://a:1", "none of tcp"),
            ("tcp://a", "no port"),
            ("tcp://:7400", "no host"),
            ("tcp://a:0", "port 0"),
            ("tcp://a:65536", "65535"),
            ("tcp://a:+80", "65535"),
            ("tcp://fd00::1", "brackets"),
            ("tcp://a/b:7400", "host and a port only"),
            ("unix://larder.sock", "begins with /"),
        ];
        for (text, problem) in cases {
            let error = text.parse::<NodeUrl>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains(problem), "{error}");
        }
        for text in ["tcp://user:hunter2@a:1", "user:hunter2@a:1", "tcp://user:hunter2", "unix://u:hunter2@a"]
        {
            let error = text.parse::<NodeUrl>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn udp_which_comes_later_says_so() {
        let error = "udp://127.0.0.1:7400".parse::<NodeUrl>().unwrap_err().to_string();
        assert!(error.contains("not served by this build yet"), "{error}");
    }
}
