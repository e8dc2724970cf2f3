//! A store in etcd.
//!
//! ```text
//!   PREFIX/ring                        the document, changed by a transaction that compares its revision
//!   PREFIX/lives/INCARNATION/ID        under a lease each; the incarnation in 16 hexadecimal digits
//! ```
//!
//! Of several endpoints the one that answered last is asked first, and each of the others once where it does not. Reads are
//! linearizable, as etcd's are by default, so an endpoint that is cut off from the others answers nothing.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::document::{Document, hexadecimal};
use super::store::{Life, Revision, Store, StoreError, Stored, Swapped, read_document};
use crate::proto::etcd::compare::{CompareTarget, TargetUnion};
use crate::proto::etcd::kv_client::KvClient;
use crate::proto::etcd::lease_client::LeaseClient;
use crate::proto::etcd::request_op::Request;
use crate::proto::etcd::watch_client::WatchClient;
use crate::proto::etcd::{
    Compare, DeleteRangeRequest, KeyValue, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest,
    PutRequest, RangeRequest, RequestOp, ResponseOp, TxnRequest, WatchCreateRequest, WatchRequest,
    response_op, watch_request,
};

/// Where an etcd is, and what of it is a cluster's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdAddress {
    /// Its endpoints: `http://HOST:PORT` each.
    endpoints: Vec<String>,
    /// What the keys begin with, without a slash at its end.
    prefix: String,
}

/// What is wrong with an address of etcd.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {problem}; write URL,URL/PREFIX, as in http://10.0.0.1:2379,http://10.0.0.2:2379/larder")]
pub struct BadEtcdAddress {
    /// What was given.
    text: String,
    problem: &'static str,
}

/// A document in etcd.
pub struct EtcdStore {
    name: String,
    ring: String,
    lives: String,
    channels: Vec<Channel>,
    /// The place of the one that answered last.
    answering: AtomicUsize,
    /// The leases of the lives that are kept from here, and how long each lasts.
    leases: Mutex<HashMap<Life, (i64, Duration)>>,
}

/// How long one endpoint has for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// A watched endpoint is asked for a sign of life this often, and is not waited for where it gives none in time. etcd closes connections
/// on which it is asked more often than each 5 s (`--grpc-keepalive-min-time`).
const PING_INTERVAL: Duration = Duration::from_secs(6);
const PING_WITHIN: Duration = Duration::from_secs(2);
const PREFIX_BYTES_MAX: usize = 255;

impl FromStr for EtcdAddress {
    type Err = BadEtcdAddress;

    /// Reads `URL,URL/PREFIX`.
    fn from_str(text: &str) -> Result<Self, BadEtcdAddress> {
        let bad = |problem| BadEtcdAddress { text: text.to_owned(), problem };
        let last_host = text.rfind("://").map_or(0, |at| at + 3);
        let path_at = text[last_host..].find('/').map(|at| last_host + at);
        let (urls, prefix) = path_at.map_or((text, ""), |at| text.split_at(at));
        let prefix = prefix.trim_matches('/');
        if prefix.is_empty() {
            return Err(bad("has no prefix, which keeps this cluster's keys from those of others"));
        }
        if prefix.len() > PREFIX_BYTES_MAX || prefix.contains(|c: char| c.is_control()) {
            return Err(bad("has a prefix that is longer than 255 B, or has control characters in it"));
        }
        let mut endpoints = Vec::new();
        for url in urls.split(',') {
            let Some(place) = url.strip_prefix("http://") else {
                return Err(bad(if url.starts_with("https://") {
                    "has an endpoint by https, which this version cannot do"
                } else {
                    "has an endpoint that does not begin with http://"
                }));
            };
            place
                .parse::<crate::endpoint::HostPort>()
                .map_err(|_| bad("has an endpoint without a host and a port"))?;
            endpoints.push(url.to_owned());
        }
        Ok(Self { endpoints, prefix: prefix.to_owned() })
    }
}

impl fmt::Display for EtcdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "etcd:{}/{}", self.endpoints.join(","), self.prefix)
    }
}

impl EtcdStore {
    /// The store at this address. Nothing is connected yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BadEtcdAddress`]: a host is no host name.
    pub fn new(address: &EtcdAddress) -> Result<Self, BadEtcdAddress> {
        let channel = |url: &String| {
            let endpoint = Endpoint::from_shared(url.clone()).map_err(|_| BadEtcdAddress {
                text: url.clone(),
                problem: "has an endpoint whose host is no host name",
            })?;
            Ok(endpoint
                .connect_timeout(CONNECT_WITHIN)
                .http2_keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_WITHIN)
                .keep_alive_while_idle(false)
                .connect_lazy())
        };
        let prefix = &address.prefix;
        Ok(Self {
            name: address.to_string(),
            ring: format!("{prefix}/ring"),
            lives: format!("{prefix}/lives/"),
            channels: address.endpoints.iter().map(channel).collect::<Result<_, _>>()?,
            answering: AtomicUsize::new(0),
            leases: Mutex::default(),
        })
    }

    /// Asks one endpoint after the other, until one answers.
    async fn ask<T, F>(&self, ask: impl Fn(Channel) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let first = self.answering.load(Ordering::Relaxed);
        let mut failed = Status::unavailable("it has no endpoint");
        for turn in 0..self.channels.len() {
            let place = (first + turn) % self.channels.len();
            let within = tokio::time::timeout(ANSWER_WITHIN, ask(self.channels[place].clone())).await;
            let late = |_| Status::deadline_exceeded(format!("no answer within {ANSWER_WITHIN:?}"));
            match within.map_err(late).flatten() {
                Ok(answer) => {
                    self.answering.store(place, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(status) if is_final(&status) => return Err(self.failed(&status)),
                Err(status) => failed = status,
            }
        }
        Err(self.failed(&failed))
    }

    fn failed(&self, status: &Status) -> StoreError {
        let (store, problem) = (self.name.clone(), status.message().to_owned());
        if has_no_room(status) {
            StoreError::NotWritten { store, problem }
        } else {
            StoreError::Unavailable { store, problem }
        }
    }

    async fn read_all(&self) -> Result<(Stored, i64), StoreError> {
        // In one transaction, so that document and lives are of one moment.
        let answer = self
            .ask(|channel| async move {
                let success = vec![
                    read_of(self.ring.as_bytes(), &[]),
                    read_of(self.lives.as_bytes(), &after(&self.lives)),
                ];
                let request = TxnRequest { success, ..TxnRequest::default() };
                Ok(KvClient::new(channel).txn(request).await?.into_inner())
            })
            .await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        let mut responses = answer.responses.into_iter().map(pairs_of);
        let ring = responses.next().unwrap_or_default().pop();
        let mut lives: Vec<Life> = responses
            .next()
            .unwrap_or_default()
            .iter()
            .filter_map(|pair| life_of(pair.key.get(self.lives.len()..)?))
            .collect();
        lives.sort();
        let stored = Stored {
            revision: Revision(ring.as_ref().map_or(0, |pair| pair.mod_revision).to_string()),
            document: ring.map(|pair| read_document(&self.name, &pair.value)).transpose()?,
            lives,
        };
        Ok((stored, revision))
    }

    async fn swap(&self, expected: &Revision, document: &Document) -> Result<Swapped, StoreError> {
        let (ring, value) = (&self.ring, &document.to_json());
        let mod_revision = expected.0.parse().unwrap_or(-1);
        let answer = self
            .ask(|channel| async move {
                let compare = Compare {
                    target: CompareTarget::Mod.into(),
                    key: ring.clone().into(),
                    target_union: Some(TargetUnion::ModRevision(mod_revision)),
                    ..Compare::default()
                };
                let put = PutRequest { key: ring.clone().into(), value: value.clone().into(), lease: 0 };
                let put = op(Request::RequestPut(put));
                let failure = vec![read_of(ring.as_bytes(), &[])];
                let request = TxnRequest { compare: vec![compare], success: vec![put], failure };
                Ok(KvClient::new(channel).txn(request).await?.into_inner())
            })
            .await?;
        if answer.succeeded {
            let revision = answer.header.map_or(0, |header| header.revision);
            return Ok(Swapped::Written(Revision(revision.to_string())));
        }
        // The endpoint that was asked before may have written it, and its answer was lost.
        let there = answer.responses.into_iter().flat_map(pairs_of).next();
        Ok(match there.filter(|pair| pair.value == value[..]) {
            Some(pair) => Swapped::Written(Revision(pair.mod_revision.to_string())),
            None => Swapped::Outdone,
        })
    }

    async fn wait(&self, since: &Revision) -> Result<Stored, StoreError> {
        let (stored, revision) = self.read_all().await?;
        if stored.revision != *since {
            return Ok(stored);
        }
        let create = WatchCreateRequest { key: self.ring.clone().into(), start_revision: revision + 1 };
        let create = WatchRequest { request_union: Some(watch_request::RequestUnion::CreateRequest(create)) };
        let create = &create;
        let mut changes = self
            .ask(|channel| async move {
                // The stream ends with the request's, which has to stay open.
                let requests = futures_util::StreamExt::chain(
                    futures_util::stream::iter([create.clone()]),
                    futures_util::stream::pending(),
                );
                Ok(WatchClient::new(channel).watch(led(requests)).await?.into_inner())
            })
            .await?;
        loop {
            match changes.message().await {
                Ok(Some(change)) if change.events.is_empty() && !change.canceled => {}
                Ok(_) => return self.read_all().await.map(|(stored, _)| stored),
                Err(status) => return Err(self.failed(&status)),
            }
        }
    }

    async fn live(&self, life: &Life, ttl: Duration) -> Result<(), StoreError> {
        let lease = self.leases.lock().get(life).copied();
        if ttl.is_zero() {
            return self.give_up(life, lease.map(|(lease, _)| lease)).await;
        }
        // A lease lasts as long as it was made to.
        let renewed = match lease {
            Some((lease, of)) if of == ttl => self.renew(lease).await?.then_some(lease),
            _ => None,
        };
        let lease = match renewed {
            Some(lease) => lease,
            None => self.grant(ttl).await?,
        };
        self.leases.lock().insert(life.clone(), (lease, ttl));
        // Each time: the key may have been removed, or put under another lease by a request that came late.
        let put = PutRequest { key: self.key_of(life).into(), value: Vec::new().into(), lease };
        self.write(Request::RequestPut(put)).await
    }

    /// Removes the key of the life, also where another process has written it, and ends the lease.
    async fn give_up(&self, life: &Life, lease: Option<i64>) -> Result<(), StoreError> {
        let delete = DeleteRangeRequest { key: self.key_of(life).into() };
        self.write(Request::RequestDeleteRange(delete)).await?;
        if let Some(id) = lease {
            self.ask(|channel| async move {
                match LeaseClient::new(channel).lease_revoke(LeaseRevokeRequest { id }).await {
                    Err(status) if status.code() != Code::NotFound => Err(status),
                    _ => Ok(()),
                }
            })
            .await?;
        }
        self.leases.lock().remove(life);
        Ok(())
    }

    async fn write(&self, request: Request) -> Result<(), StoreError> {
        let request = &TxnRequest { success: vec![op(request)], ..TxnRequest::default() };
        self.ask(|channel| async move { KvClient::new(channel).txn(request.clone()).await.map(drop) }).await
    }

    fn key_of(&self, life: &Life) -> String {
        format!("{}{:016x}/{}", self.lives, life.incarnation, life.id)
    }

    /// Begins the time of a lease anew. False: it has ended.
    async fn renew(&self, lease: i64) -> Result<bool, StoreError> {
        self.ask(|channel| async move {
            let requests = futures_util::stream::iter([LeaseKeepAliveRequest { id: lease }]);
            let mut answers = LeaseClient::new(channel).lease_keep_alive(led(requests)).await?.into_inner();
            let answer =
                answers.message().await?.ok_or_else(|| Status::unavailable("it ended the stream"))?;
            Ok(answer.ttl > 0)
        })
        .await
    }

    /// Begins a lease.
    async fn grant(&self, ttl: Duration) -> Result<i64, StoreError> {
        // They last for whole seconds.
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let request = LeaseGrantRequest { ttl: i64::try_from(seconds).unwrap_or(i64::MAX), id: 0 };
        self.ask(|channel| async move {
            Ok(LeaseClient::new(channel).lease_grant(request).await?.into_inner().id)
        })
        .await
    }
}

impl Store for EtcdStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self) -> BoxFuture<'_, Result<Stored, StoreError>> {
        self.read_all().map(|read| read.map(|(stored, _)| stored)).boxed()
    }

    fn compare_and_swap<'a>(
        &'a self,
        expected: &'a Revision,
        document: &'a Document,
    ) -> BoxFuture<'a, Result<Swapped, StoreError>> {
        self.swap(expected, document).boxed()
    }

    fn changed<'a>(&'a self, since: &'a Revision) -> BoxFuture<'a, Result<Stored, StoreError>> {
        self.wait(since).boxed()
    }

    fn keep_alive<'a>(&'a self, life: &'a Life, ttl: Duration) -> BoxFuture<'a, Result<(), StoreError>> {
        self.live(life, ttl).boxed()
    }
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdStore").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Whether another endpoint would say the same.
fn is_final(status: &Status) -> bool {
    has_no_room(status)
        || matches!(status.code(), Code::PermissionDenied | Code::InvalidArgument | Code::Unauthenticated)
}

/// Whether it does not write what it was asked to: it is full, or that is too much at once. Other things that are exhausted are
/// an endpoint's own.
fn has_no_room(status: &Status) -> bool {
    ["database space exceeded", "request is too large"].iter().any(|text| status.message().contains(text))
}

/// A stream that etcd ends where its member has no leader: one that is cut off from the others would be silent for as long.
fn led<S>(requests: S) -> tonic::Request<S> {
    let mut request = tonic::Request::new(requests);
    request.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
    request
}

fn read_of(key: &[u8], range_end: &[u8]) -> RequestOp {
    let range = RangeRequest { key: key.to_vec().into(), range_end: range_end.to_vec().into() };
    op(Request::RequestRange(range))
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn pairs_of(op: ResponseOp) -> Vec<KeyValue> {
    match op.response {
        Some(response_op::Response::ResponseRange(range)) => range.kvs,
        _ => Vec::new(),
    }
}

/// The first key behind all that begin with this, which ends with a slash.
fn after(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// The life that a key tells of, behind the prefix. What is not one was written by somebody else.
fn life_of(key: &[u8]) -> Option<Life> {
    let (digits, id) = std::str::from_utf8(key).ok()?.split_once('/')?;
    Some(Life { id: id.to_owned(), incarnation: hexadecimal::read(digits)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_urls_and_a_prefix() {
        for (text, endpoints, prefix) in [
            ("http://10.0.0.1:2379/larder", 1, "larder"),
            ("http://a:2379,http://[::1]:2379/larder/prod/", 2, "larder/prod"),
        ] {
            let address: EtcdAddress = text.parse().unwrap();
            assert_eq!((address.endpoints.len(), address.prefix.as_str()), (endpoints, prefix));
            assert_eq!(address.to_string(), format!("etcd:{}", text.trim_end_matches('/')));
        }
        for (text, said) in [
            ("http://a:2379", "no prefix"),
            ("http://a:2379/", "no prefix"),
            ("", "no prefix"),
            ("a:2379/larder", "does not begin with http://"),
            ("https://a:2379/larder", "https, which this version cannot do"),
            ("http://a/larder", "without a host and a port"),
            ("http://a:2379,/larder", "does not begin with http://"),
            ("http://a:2379/lar\nder", "control characters"),
        ] {
            let error = text.parse::<EtcdAddress>().unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("URL,URL/PREFIX"), "{error}");
        }
    }

    #[test]
    fn a_key_is_a_life_as_it_was_written() {
        let life = Life { id: "tcp://10.0.0.1:7400/x".to_owned(), incarnation: 0xC0FFEE };
        assert_eq!(life_of(format!("{:016x}/{}", life.incarnation, life.id).as_bytes()), Some(life));
        for other in [&b"12/a"[..], b"0000000000000001", b"000000000000000g/a", b"\xFF/a"] {
            assert_eq!(life_of(other), None);
        }
        assert_eq!(after("a/lives/"), b"a/lives0");
    }
}
