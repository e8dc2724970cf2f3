//! The data plane's calls: one method of the service each, with what may be left out in option structs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::builder::ClientBuilder;
use super::convert::{self, wire_ms};
use super::error::ClientError;
use super::outcome::{Counter, Deletion, GetOutcome, SetOutcome};
use super::pool::Pool;
use super::request::Request;
use super::url::NodeUrl;
use crate::entry::{Durability, Version};
use crate::proto::v1;
use crate::verb::Verb;

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

impl Client {
    /// The way to a client.
    pub fn builder(nodes: impl IntoIterator<Item = NodeUrl>) -> ClientBuilder {
        ClientBuilder::new(nodes)
    }

    pub(super) fn new(pool: Pool, namespace: String) -> Self {
        Self { pool: Arc::new(pool), namespace: namespace.into() }
    }

    /// The namespace that every call names.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Looks a key up.
    ///
    /// # Errors
    /// [`ClientError`], as every call here: unreachable, timed out, or the status that the node answered.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<GetOutcome, ClientError> {
        let key = key.into();
        self.look_up(v1::GetRequest { namespace: self.owned_namespace(), key, ..Default::default() }).await
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
        self.look_up(message).await
    }

    async fn look_up(&self, message: v1::GetRequest) -> Result<GetOutcome, ClientError> {
        let outcome = convert::get_outcome(self.call(message).await?);
        outcome.ok_or_else(|| self.bad_answer(Verb::Get, "no outcome"))
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
        let message = convert::set_request(&self.namespace, key.into(), value.into(), options);
        let outcome = convert::set_outcome(self.call(message).await?);
        outcome.ok_or_else(|| self.bad_answer(Verb::Set, "no outcome"))
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
        let message = convert::delete_request(&self.namespace, key.into(), options);
        Ok(convert::deletion(&self.call(message).await?))
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
    ) -> Result<Counter, ClientError> {
        let message = convert::increment_request(&self.namespace, key.into(), delta, options);
        Ok(convert::incremented(&self.call(message).await?))
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
    ) -> Result<Counter, ClientError> {
        let message = convert::decrement_request(&self.namespace, key.into(), delta, options);
        Ok(convert::decremented(&self.call(message).await?))
    }

    /// Gives an entry a new time to live, counted from now; zero is never. False: there is no entry.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn touch(&self, key: impl Into<Bytes>, ttl: Duration) -> Result<bool, ClientError> {
        let message =
            v1::TouchRequest { namespace: self.owned_namespace(), key: key.into(), ttl_ms: wire_ms(ttl) };
        Ok(self.call(message).await?.found)
    }

    /// The path of every call that is one request and one answer: to the node of the key that the request names.
    pub(super) async fn call<R: Request>(&self, message: R) -> Result<R::Answer, ClientError> {
        self.node_of(message.key()).call(message).await
    }

    /// The connections to the node that a key belongs to, or to any node for what names none. There is one.
    pub(super) fn node_of(&self, _key: Option<&[u8]>) -> &Arc<Pool> {
        &self.pool
    }

    pub(super) fn bad_answer(&self, verb: Verb, problem: &str) -> ClientError {
        self.pool.bad_answer(verb.name(), problem)
    }

    pub(super) fn owned_namespace(&self) -> String {
        self.namespace.as_ref().to_owned()
    }

    pub(super) fn shared_namespace(&self) -> Arc<str> {
        self.namespace.clone()
    }
}
