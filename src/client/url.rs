//! Where a node is: the URLs of `--nodes`, `--admin` and the client's builder.

use std::fmt;
use std::str::FromStr;

use crate::endpoint::{BadHostPort, HostPort};
use crate::redacted::Redacted;

/// How a URL is reached. The scheme is its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// `tcp://HOST:PORT`.
    Tcp,
    /// `unix://PATH`.
    Unix,
    /// `udp://HOST:PORT`.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::Udp => "udp",
        })
    }
}

/// A node's URL that this build can connect to: `tcp://HOST:PORT`. The scheme may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeUrl {
    /// `HOST:PORT`, an IPv6 address in brackets.
    authority: String,
}

impl NodeUrl {
    /// `HOST:PORT`, an IPv6 address in brackets.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp://{}", self.authority)
    }
}

/// Text that is no URL of a node, or one that this build cannot reach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadNodeUrl {
    /// It is not written as a URL should be.
    #[error(
        "{url:?} is no URL of a node: {problem}; write it as tcp://HOST:PORT, such as tcp://127.0.0.1:7400"
    )]
    Malformed {
        /// What was given.
        url: Redacted,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A transport of Larder's that this build has no client for.
    #[error("{url:?}: {transport}:// is not served by this build yet; use tcp://HOST:PORT")]
    NotServed {
        /// What was given.
        url: Redacted,
        /// Its transport.
        transport: Transport,
    },
}

impl FromStr for NodeUrl {
    type Err = BadNodeUrl;

    fn from_str(text: &str) -> Result<Self, BadNodeUrl> {
        let malformed = |problem| BadNodeUrl::Malformed { url: text.into(), problem };
        // What people write first is HOST:PORT, which can mean one thing only.
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        match scheme {
            "tcp" => {}
            "unix" => {
                return Err(BadNodeUrl::NotServed { url: text.into(), transport: Transport::Unix });
            }
            "udp" => return Err(BadNodeUrl::NotServed { url: text.into(), transport: Transport::Udp }),
            _ => return Err(malformed("its scheme is none of tcp, unix and udp")),
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let at: HostPort = authority.parse().map_err(|error| {
            malformed(match error {
                BadHostPort::NoHost => "there is no host",
                BadHostPort::NoPort => "there is no port",
                BadHostPort::BadPort => "its port is no number from 1 to 65535",
                BadHostPort::BadHost => "it may hold a host and a port only, an IPv6 address in brackets",
            })
        })?;
        if at.port == 0 {
            return Err(malformed("port 0 is no port to connect to"));
        }
        Ok(Self { authority: at.to_string() })
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
        assert_eq!("tcp://a:7400/".parse::<NodeUrl>().unwrap().authority(), "a:7400");
        assert_eq!("tcp://fd00::1:7400".parse::<NodeUrl>().unwrap().authority(), "[fd00::1]:7400");
    }

    #[test]
    fn text_that_is_no_node_url_is_refused_with_what_is_wrong() {
        let cases = [
            ("localhost", "no port"),
            ("unix:/run/larder.sock", "65535"),
            ("", "no port"),
            ("http://a:1", "none of tcp"),
            ("tcp://a", "no port"),
            ("tcp://:7400", "no host"),
            ("tcp://a:0", "port 0"),
            ("tcp://a:65536", "65535"),
            ("tcp://a:+80", "65535"),
            ("tcp://fd00::1", "brackets"),
            ("tcp://a/b:7400", "host and a port only"),
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
    fn transports_that_come_later_say_so() {
        for text in ["unix:///run/larder.sock", "udp://127.0.0.1:7400"] {
            let error = text.parse::<NodeUrl>().unwrap_err().to_string();
            assert!(error.contains("not served by this build yet"), "{error}");
        }
    }
}
