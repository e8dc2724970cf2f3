//! The data plane's calls: one method of the service each, with what may be left out in option structs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tonic::transport::Channel;

use super::builder::ClientBuilder;
use super::error::ClientError;
use super::pool::Pool;
use super::url::NodeUrl;
use crate::entry::{Durability, Version};
use crate::proto::v1;

/// What a Get came to: hit, stale or miss.
pub type GetOutcome = v1::get_response::Outcome;
/// What a Set came to: stored or not stored.
pub type SetOutcome = v1::set_response::Outcome;

/// A client of one node's data plane. Cloning it is cheap and shares the connections.
#[derive(Debug, Clone)]
pub struct Client {
    pool: Arc<Pool>,
    namespace: Arc<str>,
}

/// When an entry that is set expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SetExpiration {
    /// After the namespace's default time to live.
    #[default]
    NamespaceDefault,
    /// After this long. Zero is never.
    After(Duration),
    /// At this wall time, in milliseconds since 1970-01-01 UTC. A time that has passed stores nothing and
    /// deletes what was there.
    AtUnixMs(u64),
    /// When the entry that is replaced would have expired.
    Keep,
}

/// On what condition an entry is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SetCondition {
    /// On none.
    #[default]
    Always,
    /// Only where there is no entry.
    IfAbsent,
    /// Only where there is one.
    IfPresent,
    /// Only where there is one of this version: compare-and-set.
    IfVersion(Version),
}

/// What a Set may say beside key and value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetOptions {
    /// When the entry expires.
    pub expiration: SetExpiration,
    /// On what condition it is stored.
    pub condition: SetCondition,
    /// The caller's own 32 bits.
    pub flags: u32,
    /// The media type, up to 255 B. Empty = none.
    pub content_type: String,
    /// Names under which the entry can be invalidated together with others: up to 16, each 1 B to 255 B.
    pub tags: Vec<String>,
    /// What the answer waits for; `None`: what the node's default says.
    pub durability: Option<Durability>,
}

/// What an Increment or Decrement may say beside key and delta.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CounterOptions {
    /// What a missing counter counts as.
    pub initial: i64,
    /// How long a counter that is made by this call lives. Zero is the namespace's default; to make a counter live for
    /// ever where that is not so, [`Client::touch`] it once it is there.
    pub ttl: Duration,
    /// What the answer waits for; `None`: what the node's default says.
    pub durability: Option<Durability>,
}

/// What a Delete may say beside its key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteOptions {
    /// Only an entry of this version is removed; `None`: whichever is there.
    pub if_version: Option<Version>,
    /// What the answer waits for; `None`: what the node's default says.
    pub durability: Option<Durability>,
}

/// What a Delete came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    /// There was an entry, and it is gone.
    pub deleted: bool,
    /// The version that is there, where a condition was not met. [`Version::NONE`] otherwise.
    pub current_version: Version,
}

impl SetOptions {
    /// The request of a Set with these options.
    #[must_use]
    pub fn request(&self, namespace: &str, key: Bytes, value: Bytes) -> v1::SetRequest {
        use v1::set_request::{Condition, Expiration};
        v1::SetRequest {
            namespace: namespace.to_owned(),
            key,
            value,
            expiration: match self.expiration {
                SetExpiration::NamespaceDefault => None,
                SetExpiration::After(ttl) => Some(Expiration::TtlMs(wire_ms(ttl))),
                SetExpiration::AtUnixMs(at) => Some(Expiration::ExpireAtUnixMs(at)),
                SetExpiration::Keep => Some(Expiration::KeepTtl(true)),
            },
            condition: match self.condition {
                SetCondition::Always => None,
                SetCondition::IfAbsent => Some(Condition::IfAbsent(true)),
                SetCondition::IfPresent => Some(Condition::IfPresent(true)),
                SetCondition::IfVersion(version) => Some(Condition::IfVersion(version.0)),
            },
            flags: self.flags,
            content_type: self.content_type.clone(),
            tags: self.tags.clone(),
            durability: wire_durability(self.durability),
            ..v1::SetRequest::default()
        }
    }
}

impl Client {
    /// The way to a client.
    pub fn builder(nodes: impl IntoIterator<Item = NodeUrl>) -> ClientBuilder {
        ClientBuilder::new(nodes)
    }

    pub(crate) fn new(pool: Pool, namespace: String) -> Self {
        Self { pool: Arc::new(pool), namespace: namespace.into() }
    }

    /// The namespace that every call names.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The next connection in turn, for a caller that brings its own codec.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.pool.channel()
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Looks a key up.
    ///
    /// # Errors
    /// [`ClientError`], as every call here: unreachable, timed out, or the status that the node answered.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<GetOutcome, ClientError> {
        let message =
            v1::GetRequest { namespace: self.owned_namespace(), key: key.into(), ..Default::default() };
        let mut cache = self.pool.cache();
        let response = self.pool.finish("Get", cache.get(self.pool.request(message))).await?;
        response.outcome.ok_or_else(|| self.pool.bad_answer("Get", "no outcome"))
    }

    /// Looks a key up without its value: what comes has `value_bytes` and everything else.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn metadata(&self, key: impl Into<Bytes>) -> Result<GetOutcome, ClientError> {
        let message = v1::GetRequest {
            namespace: self.owned_namespace(),
            key: key.into(),
            metadata_only: true,
            ..Default::default()
        };
        let mut cache = self.pool.cache();
        let response = self.pool.finish("Get", cache.get(self.pool.request(message))).await?;
        response.outcome.ok_or_else(|| self.pool.bad_answer("Get", "no outcome"))
    }

    /// Stores an entry.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn set(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        options: &SetOptions,
    ) -> Result<SetOutcome, ClientError> {
        let message = options.request(&self.namespace, key.into(), value.into());
        let mut cache = self.pool.cache();
        let response = self.pool.finish("Set", cache.set(self.pool.request(message))).await?;
        response.outcome.ok_or_else(|| self.pool.bad_answer("Set", "no outcome"))
    }

    /// Removes an entry, of a given version where one is named.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn delete(
        &self,
        key: impl Into<Bytes>,
        options: &DeleteOptions,
    ) -> Result<Deletion, ClientError> {
        let message = v1::DeleteRequest {
            namespace: self.owned_namespace(),
            key: key.into(),
            if_version: options.if_version.map(|version| version.0),
            durability: wire_durability(options.durability),
        };
        let mut cache = self.pool.cache();
        let response = self.pool.finish("Delete", cache.delete(self.pool.request(message))).await?;
        Ok(Deletion { deleted: response.deleted, current_version: Version(response.current_version) })
    }

    /// Adds to a counter and answers what it is then. Delta 0 counts as 1.
    ///
    /// # Errors
    /// See [`Client::get`]; `FAILED_PRECONDITION` where the value is no integer, `OUT_OF_RANGE` where the sum
    /// leaves i64.
    pub async fn increment(
        &self,
        key: impl Into<Bytes>,
        delta: i64,
        options: &CounterOptions,
    ) -> Result<v1::IncrementResponse, ClientError> {
        let message = v1::IncrementRequest {
            namespace: self.owned_namespace(),
            key: key.into(),
            delta,
            initial: options.initial,
            ttl_ms: wire_ms(options.ttl),
            durability: wire_durability(options.durability),
            ..Default::default()
        };
        let mut cache = self.pool.cache();
        self.pool.finish("Increment", cache.increment(self.pool.request(message))).await
    }

    /// Takes from a counter, as [`Client::increment`] in everything else.
    ///
    /// # Errors
    /// See [`Client::increment`].
    pub async fn decrement(
        &self,
        key: impl Into<Bytes>,
        delta: i64,
        options: &CounterOptions,
    ) -> Result<v1::DecrementResponse, ClientError> {
        let message = v1::DecrementRequest {
            namespace: self.owned_namespace(),
            key: key.into(),
            delta,
            initial: options.initial,
            ttl_ms: wire_ms(options.ttl),
            durability: wire_durability(options.durability),
            ..Default::default()
        };
        let mut cache = self.pool.cache();
        self.pool.finish("Decrement", cache.decrement(self.pool.request(message))).await
    }

    /// Gives an entry a new time to live, counted from now; zero is never. False: there is no entry.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn touch(&self, key: impl Into<Bytes>, ttl: Duration) -> Result<bool, ClientError> {
        let message =
            v1::TouchRequest { namespace: self.owned_namespace(), key: key.into(), ttl_ms: wire_ms(ttl) };
        let mut cache = self.pool.cache();
        Ok(self.pool.finish("Touch", cache.touch(self.pool.request(message))).await?.found)
    }

    pub(super) fn owned_namespace(&self) -> String {
        self.namespace.as_ref().to_owned()
    }
}

/// A duration as the wire has it: whole milliseconds, rounded up so that a short one does not become "never".
pub(super) fn wire_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A durability as the wire has it.
pub(super) fn wire_durability(durability: Option<Durability>) -> i32 {
    durability.map_or(v1::Durability::Unspecified, v1::Durability::from) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_below_a_millisecond_is_not_never() {
        assert_eq!(wire_ms(Duration::ZERO), 0);
        assert_eq!(wire_ms(Duration::from_nanos(1)), 1);
        assert_eq!(wire_ms(Duration::from_micros(1_500)), 2);
        assert_eq!(wire_ms(Duration::MAX), u64::MAX);
    }

    #[test]
    fn options_become_the_wires_oneofs() {
        use v1::set_request::{Condition, Expiration};
        let options = SetOptions {
            expiration: SetExpiration::Keep,
            condition: SetCondition::IfVersion(Version(7)),
            flags: 3,
            content_type: "text/plain".to_owned(),
            tags: vec!["menu".to_owned()],
            durability: Some(Durability::Flushed),
        };
        let request = options.request("ns", Bytes::from("k"), Bytes::from("v"));
        assert_eq!(request.expiration, Some(Expiration::KeepTtl(true)));
        assert_eq!(request.condition, Some(Condition::IfVersion(7)));
        assert_eq!((request.namespace.as_str(), request.flags), ("ns", 3));
        assert_eq!(request.durability(), v1::Durability::Flushed);
        let plain = SetOptions::default().request("", Bytes::new(), Bytes::new());
        assert_eq!((plain.expiration, plain.condition, plain.durability), (None, None, 0));
    }
}
