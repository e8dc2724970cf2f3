//! Proto ⇄ domain for namespaces: what a request says of one, checked against the bounds.

use crate::engine::{NamespaceChange, NamespaceConfig, PolicyName};
use crate::entry::Ttl;
use crate::proto::v1;
use crate::quote::Quote;
use crate::request::CallError;
use crate::request::convert;

type Result<T> = std::result::Result<T, CallError>;

/// What a namespace's limit on bytes may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BytesBounds {
    /// The default namespace's, which is the node's own.
    Node { min: u64, max: u64 },
    /// Any other's: a cap below the node's limit, or 0 for none.
    Cap { node: u64 },
}

impl BytesBounds {
    /// A limit within the bounds; `field` names it in the error.
    pub(crate) fn check(self, bytes_limit: u64, field: &'static str) -> Result<u64> {
        let why = match self {
            Self::Node { min, max } if !(min..=max).contains(&bytes_limit) => {
                format!(
                    "{bytes_limit} bytes is not between {min}, room for two of the longest values (--max-value) in each \
                     shard, and {max}, what the process may use"
                )
            }
            Self::Cap { node } if bytes_limit > node => format!(
                "{bytes_limit} bytes is above the node's limit of {node}; 0 is no cap of its own, and \
                 Resize changes the node's limit"
            ),
            _ => return Ok(bytes_limit),
        };
        Err(CallError::Invalid { field, why })
    }
}

/// What a namespace's settings are held to, and what they are where nothing is said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NamespaceBounds {
    pub bytes_limit: BytesBounds,
    pub ttl_ms_max: u64,
    /// The policy of those that name none.
    pub policy: PolicyName,
}

/// The settings of a namespace that is to be created.
pub(crate) fn config(message: &v1::NamespaceConfig, bounds: &NamespaceBounds) -> Result<NamespaceConfig> {
    let name = convert::namespace_name(&message.name, "namespace.name")?;
    Ok(NamespaceConfig {
        name: name.to_owned(),
        bytes_limit: bounds.bytes_limit.check(message.bytes_limit, BYTES_LIMIT)?,
        policy: policy(message, bounds)?,
        default_ttl: default_ttl(message, bounds)?,
        near_cache_ttl_ms: near_cache_ttl_ms(message, bounds)?,
    })
}

/// What an UpdateNamespace changes; nothing is looked at that the mask does not name.
pub(crate) fn change(
    message: &v1::NamespaceConfig,
    paths: &[String],
    bounds: &NamespaceBounds,
) -> Result<NamespaceChange> {
    let refused = |why: String| CallError::Invalid { field: "update_mask", why };
    if paths.is_empty() {
        return Err(refused(format!("it names no field; name some of {KNOWN_PATHS}")));
    }
    let mut change = NamespaceChange::default();
    for path in paths {
        match path.as_str() {
            "bytes_limit" => {
                change.bytes_limit = Some(bounds.bytes_limit.check(message.bytes_limit, BYTES_LIMIT)?);
            }
            "policy" => change.policy = Some(policy(message, bounds)?),
            "default_ttl_ms" => change.default_ttl = Some(default_ttl(message, bounds)?),
            "near_cache_ttl_ms" => change.near_cache_ttl_ms = Some(near_cache_ttl_ms(message, bounds)?),
            "name" => return Err(refused(format!("a name cannot be changed; {KNOWN_PATHS} can"))),
            other => {
                return Err(refused(format!(
                    "there is no path {} here; there are {KNOWN_PATHS}",
                    Quote::of(other)
                )));
            }
        }
    }
    Ok(change)
}

impl From<NamespaceConfig> for v1::NamespaceConfig {
    fn from(config: NamespaceConfig) -> Self {
        Self {
            name: config.name,
            bytes_limit: config.bytes_limit,
            policy: config.policy.to_string(),
            default_ttl_ms: config.default_ttl.to_wire_ms(),
            near_cache_ttl_ms: config.near_cache_ttl_ms,
        }
    }
}

fn policy(message: &v1::NamespaceConfig, bounds: &NamespaceBounds) -> Result<PolicyName> {
    if message.policy.is_empty() { Ok(bounds.policy) } else { Ok(message.policy.parse()?) }
}

fn default_ttl(message: &v1::NamespaceConfig, bounds: &NamespaceBounds) -> Result<Ttl> {
    convert::ttl("namespace.default_ttl_ms", message.default_ttl_ms, bounds.ttl_ms_max)
}

/// Held to what a time to live may be.
fn near_cache_ttl_ms(message: &v1::NamespaceConfig, bounds: &NamespaceBounds) -> Result<u64> {
    let ttl_ms = message.near_cache_ttl_ms;
    convert::ttl("namespace.near_cache_ttl_ms", ttl_ms, bounds.ttl_ms_max)?;
    Ok(ttl_ms)
}

const BYTES_LIMIT: &str = "namespace.bytes_limit";
const KNOWN_PATHS: &str = "bytes_limit, policy, default_ttl_ms and near_cache_ttl_ms";
