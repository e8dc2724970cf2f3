//! The data plane's calls: one method of the service each, with what may be left out in option structs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::builder::ClientBuilder;
use super::codec;
use super::convert::{self, wire_ms};
use super::error::ClientError;
use super::flights::Flights;
use super::large_keys::SMALL_VALUE_BYTES_MAX;
use super::metrics::ClientMetrics;
#[cfg(feature = "near-cache")]
use super::near::{Near, NearCache, Writing, WritingMany};
use super::node::{Node, NodeHealth};
use super::outcome::{Counter, Deletion, GetOutcome, NotStored, SetOutcome};
use super::pool::Pool;
use super::retry::{Repeat, RequestIds, key_hash};
use super::trace::Trace;
use super::update::LoadedValue;
use super::url::NodeUrl;
use crate::entry::{Durability, MissReason, Version};
use crate::proto::v1;
use crate::verb::Verb;

/// A client of the data plane. Cloning it is cheap and shares the connections.
///
/// Dropping a call's future gives the call up: what was not sent is not sent, and of what was, the node stops the work.
#[derive(Debug, Clone)]
pub struct Client {
    node: Arc<Node>,
    namespace: Arc<str>,
    /// Tells its keys from those of other namespaces.
    namespace_hash: u64,
    timeout: Duration,
    on_unavailable: OnUnavailable,
    hedge_after: Option<Duration>,
    traceparent: Arc<str>,
    request_ids: Arc<RequestIds>,
    loads: Arc<Flights<LoadedValue>>,
    #[cfg(feature = "near-cache")]
    near: Option<Near>,
}

/// What a node that is out is to the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnUnavailable {
    /// A cache that has nothing: a Get is a miss with reason [`OwnerDown`](super::MissReason::OwnerDown), and a Set without a condition is
    /// [`NotStored::OwnerDown`](super::NotStored::OwnerDown). What must not be lost in silence is an error all the same: a Delete, a Touch, a counter, a Set
    /// with a condition, an Invalidate.
    #[default]
    Miss,
    /// [`ClientError::Unavailable`].
    Error,
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
    /// The name of this one call, up to 64 B: a repeat of it within ten minutes counts nothing. `None`: the library draws one
    /// where it may have to repeat the call itself. Empty: none, and the library repeats nothing.
    pub request_id: Option<String>,
}

/// What a Delete may say beside its key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteOptions {
    /// Only an entry of this version is removed; `None`: whichever is there.
    pub if_version: Option<Version>,
    /// What the answer waits for; `None`: what the node's default says.
    pub durability: Option<Durability>,
}

impl OnUnavailable {
    /// Whether an error is to be taken for a cache that has nothing.
    pub(super) fn makes_nothing_of(self, error: &ClientError) -> bool {
        self == Self::Miss && error.is_unavailable()
    }
}

impl Client {
    /// The way to a client.
    pub fn builder(nodes: impl IntoIterator<Item = NodeUrl>) -> ClientBuilder {
        ClientBuilder::new(nodes)
    }

    pub(super) fn new(node: Node, options: CallDefaults) -> Self {
        let CallDefaults { namespace, timeout, on_unavailable, hedge_after } = options;
        Self {
            node: Arc::new(node),
            namespace_hash: namespace_hash(&namespace),
            namespace: namespace.into(),
            timeout,
            on_unavailable,
            hedge_after,
            traceparent: "".into(),
            request_ids: Arc::default(),
            loads: Arc::default(),
            #[cfg(feature = "near-cache")]
            near: None,
        }
    }

    /// Keeps copies of what it reads in this cache.
    #[cfg(feature = "near-cache")]
    pub(super) fn with_near(mut self, cache: &Arc<NearCache>) -> Self {
        self.near = cache.of(&self.namespace);
        self
    }

    /// The copies of its namespace. A fork has none: their locks may be held for ever, and nobody keeps them true.
    #[cfg(feature = "near-cache")]
    pub(super) fn near(&self) -> Option<&Near> {
        self.near.as_ref().filter(|_| self.node.pool().built_in().is_current())
    }

    /// What drops the copy of a key, when the call ends that writes it.
    #[cfg(feature = "near-cache")]
    pub(super) fn writes<'a>(&'a self, key: &'a [u8]) -> Option<Writing<'a>> {
        self.near().map(|near| near.writing(&self.namespace, key))
    }

    /// [`Self::writes`] of many keys, which are copied only if there are copies to drop.
    #[cfg(feature = "near-cache")]
    pub(super) fn writes_many<'k>(&self, keys: impl Iterator<Item = &'k Bytes>) -> Option<WritingMany<'_>> {
        self.near().map(|near| near.writing_many(&self.namespace, keys.cloned().collect()))
    }

    #[cfg(not(feature = "near-cache"))]
    pub(super) fn writes(&self, _key: &[u8]) -> Option<std::convert::Infallible> {
        None
    }

    #[cfg(not(feature = "near-cache"))]
    pub(super) fn writes_many<'k>(
        &self,
        _keys: impl Iterator<Item = &'k Bytes>,
    ) -> Option<std::convert::Infallible> {
        None
    }

    /// The same client, whose calls have this long each, time in the client's own queue counted.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// The same client, whose calls belong to this W3C trace context (`00-…-…-01`). Empty: to none, or with the feature
    /// `opentelemetry` to the span that is current where a call is awaited, if it is sampled.
    #[must_use]
    pub fn with_traceparent(&self, traceparent: &str) -> Self {
        Self { traceparent: traceparent.into(), ..self.clone() }
    }

    /// The same client, whose calls name this namespace.
    #[must_use]
    pub fn with_namespace(&self, namespace: &str) -> Self {
        let namespace_hash = namespace_hash(namespace);
        let renamed = Self { namespace: namespace.into(), namespace_hash, ..self.clone() };
        #[cfg(feature = "near-cache")]
        if let Some(near) = self.near() {
            return renamed.with_near(&near.cache);
        }
        renamed
    }

    /// How the node is, now and each time that it changes. Of a client that is [short-lived](ClientBuilder::short_lived)
    /// nothing is known, and the node counts as available.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<NodeHealth> {
        self.node.health()
    }

    /// What the client has done so far.
    #[must_use]
    pub fn metrics(&self) -> ClientMetrics {
        let metrics = ClientMetrics::of(&self.node);
        #[cfg(feature = "near-cache")]
        if let Some(near) = self.near() {
            return metrics.with_near(near.cache.counts());
        }
        metrics
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
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<GetOutcome, ClientError> {
        self.look_up(key.as_ref(), false).await
    }

    /// Looks a key up without its value: what comes has `value_bytes` and everything else.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn metadata(&self, key: impl AsRef<[u8]>) -> Result<GetOutcome, ClientError> {
        self.look_up(key.as_ref(), true).await
    }

    /// The near cache first, where there is one: copies have everything, and so it is asked for whole entries alone.
    async fn look_up(&self, key: &[u8], metadata_only: bool) -> Result<GetOutcome, ClientError> {
        #[cfg(feature = "near-cache")]
        if let Some(near) = self.near().filter(|_| !metadata_only) {
            if let Some(hit) = near.get(key) {
                return Ok(GetOutcome::Hit(hit));
            }
            return Box::pin(near.look_up(self.namespace(), key, self.ask(key, false))).await;
        }
        self.ask(key, metadata_only).await
    }

    /// Asks the node.
    pub(super) async fn ask(&self, key: &[u8], metadata_only: bool) -> Result<GetOutcome, ClientError> {
        let (hash, large_keys) = (key_hash(key), self.node.large_keys());
        let entry = self.entry_hash(hash);
        let outcome = if self.node.has_lanes() && (metadata_only || !large_keys.has(entry)) {
            let command = codec::Get { namespace: &self.namespace, key, metadata_only };
            self.command(Verb::Get, hash, &command, Repeat::Safe).await.and_then(|result| {
                codec::get_outcome(result).map_err(|codec::Unreadable| self.bad_answer(Verb::Get, UNREADABLE))
            })
        } else {
            let message = v1::GetRequest {
                namespace: self.owned_namespace(),
                key: Bytes::copy_from_slice(key),
                metadata_only,
                ..Default::default()
            };
            let outcome = self.call(message).await.map(convert::get_outcome);
            outcome.and_then(|outcome| outcome.ok_or_else(|| self.bad_answer(Verb::Get, "no outcome")))
        };
        match &outcome {
            Ok(GetOutcome::Hit(hit) | GetOutcome::Stale(hit)) => large_keys.note(entry, hit.value_bytes),
            Ok(GetOutcome::Miss(_)) => large_keys.note(entry, 0),
            Err(_) => {}
        }
        self.or_nothing(outcome, || Some(GetOutcome::Miss(MissReason::OwnerDown)))
    }

    /// Stores an entry.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn set(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: &SetOptions,
    ) -> Result<SetOutcome, ClientError> {
        let (key, value) = (key.as_ref(), value.into());
        let _written = self.writes(key);
        let hash = key_hash(key);
        self.node.large_keys().note(self.entry_hash(hash), value.len() as u64);
        let outcome = if self.node.has_lanes() && value.len() as u64 <= SMALL_VALUE_BYTES_MAX {
            let rest = convert::set_request("", Bytes::new(), Bytes::new(), options);
            let command = codec::Set { namespace: &self.namespace, key, value: &value, rest: &rest };
            let result = self.command(Verb::Set, hash, &command, Repeat::of(&rest)).await;
            result.and_then(|result| self.read(Verb::Set, result))
        } else {
            let key = Bytes::copy_from_slice(key);
            self.call(convert::set_request(&self.namespace, key, value, options)).await
        };
        let outcome = outcome.and_then(|response| {
            convert::set_outcome(response).ok_or_else(|| self.bad_answer(Verb::Set, "no outcome"))
        });
        let is_plain = options.condition == SetCondition::Always;
        self.or_nothing(outcome, || is_plain.then_some(SetOutcome::NotStored(NotStored::OwnerDown)))
    }

    /// Removes an entry, of a given version where one is named.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn delete(
        &self,
        key: impl AsRef<[u8]>,
        options: &DeleteOptions,
    ) -> Result<Deletion, ClientError> {
        let _written = self.writes(key.as_ref());
        let key = Bytes::copy_from_slice(key.as_ref());
        let message = convert::delete_request(&self.namespace, key, options);
        let repeat = Repeat::of(&message);
        Ok(convert::deletion(&self.one(message, repeat).await?))
    }

    /// Adds to a counter and answers what it is then. Delta 0 counts as 1.
    ///
    /// # Errors
    /// See [`Client::get`]; `FAILED_PRECONDITION` where the value is no integer, `OUT_OF_RANGE` where the sum
    /// leaves i64.
    pub async fn increment(
        &self,
        key: impl AsRef<[u8]>,
        delta: i64,
        options: &CounterOptions,
    ) -> Result<Counter, ClientError> {
        let _written = self.writes(key.as_ref());
        let key = Bytes::copy_from_slice(key.as_ref());
        let mut message = convert::increment_request(&self.namespace, key, delta, options);
        let repeat = self.name_once(&mut message.request_id, options);
        Ok(convert::incremented(&self.one(message, repeat).await?))
    }

    /// Takes from a counter, as [`Client::increment`] in everything else.
    ///
    /// # Errors
    /// See [`Client::increment`].
    pub async fn decrement(
        &self,
        key: impl AsRef<[u8]>,
        delta: i64,
        options: &CounterOptions,
    ) -> Result<Counter, ClientError> {
        let _written = self.writes(key.as_ref());
        let key = Bytes::copy_from_slice(key.as_ref());
        let mut message = convert::decrement_request(&self.namespace, key, delta, options);
        let repeat = self.name_once(&mut message.request_id, options);
        Ok(convert::decremented(&self.one(message, repeat).await?))
    }

    /// Gives an entry a new time to live, counted from now; zero is never. False: there is no entry.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn touch(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool, ClientError> {
        let _written = self.writes(key.as_ref());
        let key = Bytes::copy_from_slice(key.as_ref());
        let message = v1::TouchRequest { namespace: self.owned_namespace(), key, ttl_ms: wire_ms(ttl) };
        let repeat = Repeat::of(&message);
        Ok(self.one(message, repeat).await?.found)
    }

    /// The hash of namespace and key, of a key with this hash.
    fn entry_hash(&self, key_hash: u64) -> u64 {
        key_hash ^ self.namespace_hash
    }

    pub(super) fn loads(&self) -> &Flights<LoadedValue> {
        &self.loads
    }

    /// The same client, to which a node that is out is an error.
    pub(super) fn strict(&self) -> Self {
        Self { on_unavailable: OnUnavailable::Error, ..self.clone() }
    }

    pub(super) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The connections to the node that a key belongs to, or to any node for what names none. There is one.
    pub(super) fn node_of(&self, _key: Option<&[u8]>) -> &Arc<Pool> {
        self.node.pool()
    }

    /// How long a call may take in all.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn hedge_after(&self) -> Option<Duration> {
        self.hedge_after
    }

    /// The trace that a call belongs to which begins now.
    #[inline]
    pub(super) fn trace(&self, verb: Verb) -> Trace<'_> {
        Trace::new(&self.traceparent, self.node.pool().url(), verb)
    }

    /// What a call came to; of a node that is out `nothing`, where that may stand for it and the client wants it so.
    pub(super) fn or_nothing<T>(
        &self,
        outcome: Result<T, ClientError>,
        nothing: impl FnOnce() -> Option<T>,
    ) -> Result<T, ClientError> {
        match outcome {
            Err(error) if self.on_unavailable.makes_nothing_of(&error) => nothing().ok_or(error),
            outcome => outcome,
        }
    }

    /// Names a counting call, so that it counts once however often it is sent.
    fn name_once(&self, request_id: &mut String, options: &CounterOptions) -> Repeat {
        match &options.request_id {
            Some(given) => request_id.clone_from(given),
            None if self.node.has_lanes() => *request_id = self.request_ids.draw(),
            None => {}
        }
        if request_id.is_empty() { Repeat::No } else { Repeat::Safe }
    }

    pub(super) fn bad_answer(&self, verb: Verb, problem: &str) -> ClientError {
        self.node.pool().bad_answer(verb.name(), problem)
    }

    pub(super) fn owned_namespace(&self) -> String {
        self.namespace.as_ref().to_owned()
    }

    pub(super) fn shared_namespace(&self) -> Arc<str> {
        self.namespace.clone()
    }
}

/// Turned, so that a namespace and a key do not stand for a key and a namespace of each other's names.
fn namespace_hash(namespace: &str) -> u64 {
    key_hash(namespace.as_bytes()).rotate_left(32)
}

/// What the calls of a client have in common.
#[derive(Debug)]
pub(super) struct CallDefaults {
    pub(super) namespace: String,
    pub(super) timeout: Duration,
    pub(super) on_unavailable: OnUnavailable,
    pub(super) hedge_after: Option<Duration>,
}

pub(super) const UNREADABLE: &str = "an answer that cannot be read";
