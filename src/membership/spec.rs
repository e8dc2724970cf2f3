//! Where a cluster's membership lies, as `--members` and clients write it.
//!
//! ```text
//!   static:[ID=]URL,…              the list itself: it never changes while a node runs
//!   etcd:URL,URL/PREFIX            a document in etcd
//!   kubernetes:NAMESPACE/NAME      a document in a ConfigMap
//!   file:PATH                      a document in a file of this machine
//! ```

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::etcd::{BadEtcdAddress, EtcdAddress};
use crate::endpoint::{BadEndpoint, Endpoint};
use crate::ring::ID_BYTES_MAX;

/// Where a cluster's membership lies.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MembersSpec {
    /// The list itself, in the order in which it was written. Ids and URLs are there once each.
    Static(Vec<StaticMember>),
    /// In etcd.
    Etcd(EtcdAddress),
    /// In Kubernetes: in the ConfigMap `NAME-ring` of a namespace.
    Kubernetes {
        /// The namespace.
        namespace: String,
        /// The name, which is the StatefulSet's.
        name: String,
    },
    /// In a file, by an absolute path or one from the working directory.
    File(PathBuf),
}

/// A member of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticMember {
    /// Its id: the URL, where none was given.
    pub id: String,
    /// Where it is reached.
    pub url: Endpoint,
}

/// What is wrong with a specification of members.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadMembers {
    /// It begins with no kind that is known.
    #[error(
        "{text:?} says nowhere that members are written down: give static:[ID=]URL,…, etcd:URL,URL/PREFIX, \
         kubernetes:NAMESPACE/NAME or file:PATH"
    )]
    UnknownKind {
        /// What was given.
        text: String,
    },
    /// A list of nobody.
    #[error(
        "the list of members is empty; give each as [ID=]URL, such as static:tcp://10.0.0.1:7400,tcp://10.0.0.2:7400"
    )]
    Empty,
    /// A URL of the list.
    #[error("the member {member:?} {problem}; give each as [ID=]URL, such as a=tcp://10.0.0.1:7400")]
    BadUrl {
        /// What was given for it.
        member: String,
        /// What is wrong.
        problem: BadEndpoint,
    },
    /// An id of the list.
    #[error("the member {member:?} has an id of {bytes} B; an id has 1 B to {ID_BYTES_MAX} B")]
    BadId {
        /// What was given for it.
        member: String,
        /// The id's length.
        bytes: usize,
    },
    /// Two of the list are one.
    #[error(
        "two members have the {what} {value:?}: each node is in the list once, under an id and a URL of its own"
    )]
    Twice {
        /// `id` or `URL`.
        what: &'static str,
        /// Which.
        value: String,
    },
    /// An address of etcd.
    #[error(transparent)]
    Etcd(#[from] BadEtcdAddress),
    /// A namespace and a name of Kubernetes.
    #[error(
        "{text:?} is no NAMESPACE/NAME of Kubernetes: two names of lower-case letters, digits and dashes, up to {NAME_BYTES_MAX} B \
         each, as in kubernetes:prod/larder"
    )]
    BadName {
        /// What was given.
        text: String,
    },
    /// No path.
    #[error("file: names no path; give one, as in file:/run/larder/ring.json")]
    NoPath,
}

/// The longest label of Kubernetes.
const NAME_BYTES_MAX: usize = 63;

impl FromStr for MembersSpec {
    type Err = BadMembers;

    fn from_str(text: &str) -> Result<Self, BadMembers> {
        match text.split_once(':') {
            Some(("static", list)) => static_members(list).map(Self::Static),
            Some(("etcd", address)) => Ok(Self::Etcd(address.parse()?)),
            Some(("kubernetes", names)) => kubernetes(names),
            Some(("file", "")) => Err(BadMembers::NoPath),
            Some(("file", path)) => Ok(Self::File(PathBuf::from(path))),
            _ => Err(BadMembers::UnknownKind { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for MembersSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static(members) => {
                let written = |member: &StaticMember| {
                    let url = member.url.to_string();
                    if member.id == url { url } else { format!("{}={url}", member.id) }
                };
                write!(f, "static:{}", members.iter().map(written).collect::<Vec<_>>().join(","))
            }
            Self::Etcd(address) => address.fmt(f),
            Self::Kubernetes { namespace, name } => write!(f, "kubernetes:{namespace}/{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

fn static_members(list: &str) -> Result<Vec<StaticMember>, BadMembers> {
    let mut members: Vec<StaticMember> = Vec::new();
    for written in list.split(',').filter(|written| !written.is_empty()) {
        // An equals sign behind the scheme would be a part of a path.
        let scheme = written.find("://").unwrap_or(written.len());
        let (id, url) = match written.find('=').filter(|at| *at < scheme) {
            Some(at) => (&written[..at], &written[at + 1..]),
            None => (written, written),
        };
        if !(1..=ID_BYTES_MAX).contains(&id.len()) {
            return Err(BadMembers::BadId { member: written.to_owned(), bytes: id.len() });
        }
        let bad = |problem| BadMembers::BadUrl { member: written.to_owned(), problem };
        let url: Endpoint = url.parse().map_err(bad)?;
        // As the URL is written back: two nodes with one list then have one ring, however it was spelled.
        let id = if id == written { url.to_string() } else { id.to_owned() };
        let member = StaticMember { id, url };
        let twice = |what, value: &str| Err(BadMembers::Twice { what, value: value.to_owned() });
        for other in &members {
            if other.id == member.id {
                return twice("id", &member.id);
            }
            if other.url == member.url {
                return twice("URL", &member.url.to_string());
            }
        }
        members.push(member);
    }
    if members.is_empty() { Err(BadMembers::Empty) } else { Ok(members) }
}

fn kubernetes(names: &str) -> Result<MembersSpec, BadMembers> {
    let is_name = |name: &str| {
        let is_inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=NAME_BYTES_MAX).contains(&name.len())
            && name.bytes().all(is_inside)
            && !name.starts_with('-')
            && !name.ends_with('-')
    };
    match names.split_once('/') {
        Some((namespace, name)) if is_name(namespace) && is_name(name) => {
            Ok(MembersSpec::Kubernetes { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err(BadMembers::BadName { text: names.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_is_read_and_written_as_it_was_given() {
        for text in [
            "static:tcp://10.0.0.1:7400",
            "static:a=tcp://10.0.0.1:7400,b=tcp://[::1]:7400,unix:///run/larder=1.sock",
            "etcd:http://10.0.0.1:2379,http://10.0.0.2:2379/larder/prod",
            "kubernetes:prod/larder",
            "file:/run/larder/ring.json",
            "file:ring.json",
        ] {
            assert_eq!(text.parse::<MembersSpec>().unwrap().to_string(), text);
        }
        let MembersSpec::Static(members) = "static:a=tcp://h:1,tcp://[::1]:2,".parse().unwrap() else {
            panic!("it is a list");
        };
        assert_eq!(
            members.iter().map(|member| member.id.as_str()).collect::<Vec<_>>(),
            ["a", "tcp://[::1]:2"]
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_what_was_given_and_what_is_allowed() {
        let long = format!("static:{}=tcp://h:1", "i".repeat(256));
        for (text, said) in [
            ("", "\"\" says nowhere"),
            ("zookeeper:h:1", "\"zookeeper:h:1\" says nowhere"),
            ("static:", "list of members is empty"),
            ("static:,,", "list of members is empty"),
            ("static:10.0.0.1:7400", "\"10.0.0.1:7400\" has no scheme"),
            ("static:a=", "\"a=\" has no scheme"),
            ("static:=tcp://h:1", "an id of 0 B"),
            (&long, "an id of 256 B"),
            ("static:a=tcp://h:1,a=tcp://h:2", "two members have the id \"a\""),
            ("static:a=tcp://h:1,b=tcp://h:1", "two members have the URL \"tcp://h:1\""),
            ("etcd:h:2379", "no prefix"),
            ("kubernetes:larder", "\"larder\" is no NAMESPACE/NAME"),
            ("kubernetes:Prod/larder", "is no NAMESPACE/NAME"),
            ("kubernetes:prod/larder/x", "is no NAMESPACE/NAME"),
            ("kubernetes:prod/-larder", "is no NAMESPACE/NAME"),
            ("file:", "names no path"),
        ] {
            let error = text.parse::<MembersSpec>().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
