//! A cache that fails as it is told, for tests of what an application does then.
//!
//! ```
//! use larder::client::faults::{Fault, FaultRule, FaultyCache};
//! use larder::client::{Cache, SetOptions};
//! use larder::local::LocalCache;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), larder::client::ClientError> {
//! let cache = FaultyCache::new(LocalCache::builder().build());
//! cache.set("colour", "green", &SetOptions::default()).await?;
//!
//! cache.inject(FaultRule::new(Fault::NodeOut));
//! assert!(cache.get("colour").await?.entry().is_none(), "a node that is out is a cache that has nothing");
//! cache.clear_faults();
//! assert!(cache.get("colour").await?.entry().is_some());
//! # Ok(())
//! # }
//! ```
//!
//! What happens depends on the rules and on the calls before, in the order in which their futures are first polled, and on nothing
//! else: a test that makes its calls one after the other sees the same each time.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::batch::all_alike;
use super::cache::Cache;
use super::calls::{CounterOptions, DeleteOptions, OnUnavailable, SetCondition, SetOptions};
use super::error::{ClientError, Refusal};
use super::keyspace::{InvalidateScope, ScanOptions};
use super::lane::Phase;
use super::outcome::{Counter, Deletion, GetOutcome, NotStored, ScanPage, SetOutcome};
use crate::entry::{Durability, MissReason};
use crate::proto::DOMAIN;

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A lookup is a miss with this reason, of all keys where it has many. Other calls are done.
    Miss(MissReason),
    /// The call is not sent, as its node is out: [`ClientError::Unavailable`], or what [`OnUnavailable`] makes of it.
    NodeOut,
    /// The connection breaks before the answer comes: [`ClientError::BrokenOff`], or what [`OnUnavailable`] makes of it.
    BrokenOff {
        /// Whether the call was done all the same.
        was_done: bool,
    },
    /// The deadline passes: [`ClientError::Timeout`].
    TimeOut {
        /// How long that takes, by tokio's clock; zero needs no runtime.
        after: Duration,
        /// Whether the call was done all the same.
        was_done: bool,
    },
    /// The node refuses it: [`ClientError::Status`].
    Refused {
        /// The gRPC code.
        code: Code,
        /// The reason, such as `OVERLOADED`.
        reason: &'static str,
    },
    /// The call is done, this much later, by tokio's clock. Rules that come after it apply too.
    Delay(Duration),
}

/// The operations of [`Cache`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is the method of its name")]
pub enum CacheOperation {
    Get,
    Metadata,
    Set,
    Delete,
    Increment,
    Decrement,
    Touch,
    BatchGet,
    BatchSet,
    BatchDelete,
    Scan,
    Invalidate,
}

impl CacheOperation {
    /// Its method of the contract, as errors name it.
    fn method(self) -> &'static str {
        match self {
            Self::Get | Self::Metadata => "Get",
            Self::Set => "Set",
            Self::Delete => "Delete",
            Self::Increment => "Increment",
            Self::Decrement => "Decrement",
            Self::Touch => "Touch",
            Self::BatchGet => "BatchGet",
            Self::BatchSet => "BatchSet",
            Self::BatchDelete => "BatchDelete",
            Self::Scan => "Scan",
            Self::Invalidate => "Invalidate",
        }
    }
}

/// A call, as rules see it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct FaultCall<'a> {
    /// What is called.
    pub operation: CacheOperation,
    /// The keys: one, those of a batch, or none of a scan and of an invalidation.
    pub keys: &'a [&'a [u8]],
}

type Predicate = Box<dyn Fn(&FaultCall<'_>) -> bool + Send + Sync>;

/// Which calls a fault happens to: all, until something narrows it down.
#[must_use = "a rule does nothing until it is injected"]
pub struct FaultRule {
    fault: Fault,
    operations: Option<Vec<CacheOperation>>,
    predicate: Option<Predicate>,
    /// Which of the calls that match, counted from 1.
    numbers: Range<u64>,
    /// Of those, which part, and the state of what draws.
    chance: Option<(f64, u64)>,
    matched: u64,
}

impl FaultRule {
    /// A fault of every call.
    pub fn new(fault: Fault) -> Self {
        Self { fault, operations: None, predicate: None, numbers: 1..u64::MAX, chance: None, matched: 0 }
    }

    /// Of these operations alone.
    pub fn on(mut self, operations: impl Into<Vec<CacheOperation>>) -> Self {
        self.operations = Some(operations.into());
        self
    }

    /// Of the calls alone that `predicate` is true for. It must not use the cache.
    pub fn when(mut self, predicate: impl Fn(&FaultCall<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.predicate = Some(Box::new(predicate));
        self
    }

    /// Of the `number`th call alone that matches, counted from 1 when the rule is injected.
    pub fn at_call(self, number: u64) -> Self {
        self.at_calls(number..number.saturating_add(1))
    }

    /// Of these calls alone that match, counted from 1: `1..4` is the first three.
    pub fn at_calls(mut self, numbers: Range<u64>) -> Self {
        self.numbers = numbers;
        self
    }

    /// Of this part of the calls, 0.0 to 1.0, which `seed` chooses: the same calls are chosen each time.
    pub fn with_probability(mut self, probability: f64, seed: u64) -> Self {
        self.chance = Some((probability, seed));
        self
    }

    /// Whether it happens to this call, which is counted.
    fn applies(&mut self, call: &FaultCall<'_>) -> bool {
        use CacheOperation::{BatchGet, Get, Metadata};
        let is_lookup = matches!(call.operation, Get | Metadata | BatchGet);
        let matches = self.operations.as_ref().is_none_or(|operations| operations.contains(&call.operation))
            && (is_lookup || !matches!(self.fault, Fault::Miss(_)))
            && self.predicate.as_ref().is_none_or(|predicate| predicate(call));
        if !matches {
            return false;
        }
        self.matched += 1;
        self.numbers.contains(&self.matched)
            && self.chance.as_mut().is_none_or(|(probability, state)| draw(state) < *probability)
    }
}

impl fmt::Debug for FaultRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, operations, numbers, matched, .. } = self;
        let mut rule = f.debug_struct("FaultRule");
        rule.field("fault", fault).field("operations", operations).field("numbers", numbers);
        rule.field("matched", matched).finish_non_exhaustive()
    }
}

/// The next number of a row, 0.0 to 1.0: SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
fn draw(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// A cache whose calls fail by rules. A clone shares cache and rules.
///
/// # Defaults
/// - rules: none, every call is the cache's own
/// - [`on_unavailable`](Self::on_unavailable): `Miss`, as of a [`Client`](super::Client)
#[derive(Debug)]
pub struct FaultyCache<C> {
    cache: C,
    on_unavailable: OnUnavailable,
    rules: Arc<Mutex<Rules>>,
}

#[derive(Debug, Default)]
struct Rules {
    rules: Vec<FaultRule>,
    calls: u64,
    faults: u64,
}

impl<C: Clone> Clone for FaultyCache<C> {
    fn clone(&self) -> Self {
        let Self { cache, on_unavailable, rules } = self;
        Self { cache: cache.clone(), on_unavailable: *on_unavailable, rules: Arc::clone(rules) }
    }
}

impl<C> FaultyCache<C> {
    /// A cache without faults.
    #[must_use]
    pub fn new(cache: C) -> Self {
        Self { cache, on_unavailable: OnUnavailable::default(), rules: Arc::default() }
    }

    /// What a node that is out is to the application, as [`ClientBuilder::on_unavailable`](super::ClientBuilder::on_unavailable).
    #[must_use]
    pub fn on_unavailable(mut self, on_unavailable: OnUnavailable) -> Self {
        self.on_unavailable = on_unavailable;
        self
    }

    /// Adds a rule, behind those that are there. Of each call, the first rule that applies decides; delays before it add up.
    pub fn inject(&self, rule: FaultRule) {
        self.rules().rules.push(rule);
    }

    /// Takes all rules out.
    pub fn clear_faults(&self) {
        self.rules().rules.clear();
    }

    /// How many calls were made.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.rules().calls
    }

    /// How many of the calls had a fault, delays counted.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.rules().faults
    }

    /// The cache itself, whose calls have no faults.
    #[must_use]
    pub fn inner(&self) -> &C {
        &self.cache
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        // Only a predicate can panic under it, and leaves all as it was.
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens to a call: how long it is delayed, and the fault.
    fn decide(&self, call: &FaultCall<'_>) -> (Duration, Option<Fault>) {
        let mut rules = self.rules();
        let (mut delay, mut fault) = (Duration::ZERO, None);
        for rule in &mut rules.rules {
            if !rule.applies(call) {
                continue;
            }
            match rule.fault {
                Fault::Delay(more) => delay = delay.saturating_add(more),
                ref other => {
                    fault = Some(other.clone());
                    break;
                }
            }
        }
        rules.calls += 1;
        rules.faults += u64::from(fault.is_some() || !delay.is_zero());
        (delay, fault)
    }

    /// Does a call, or has it fail. `nothing` is what it comes to if the cache has nothing, for this reason; `None`: that is an
    /// error.
    async fn call<R>(
        &self,
        operation: CacheOperation,
        keys: &[&[u8]],
        nothing: Option<impl Fn(MissReason) -> R>,
        call: impl Future<Output = Result<R, ClientError>>,
    ) -> Result<R, ClientError> {
        let (delay, fault) = self.decide(&FaultCall { operation, keys });
        pass(delay).await;
        let method = operation.method();
        let error = match fault {
            None | Some(Fault::Delay(_)) => return call.await,
            Some(Fault::Miss(reason)) => match nothing {
                Some(nothing) => return Ok(nothing(reason)),
                None => return call.await,
            },
            Some(Fault::NodeOut) => ClientError::Unavailable {
                url: URL.to_owned(),
                method,
                problem: "a fault that was injected".to_owned(),
                after: delay,
            },
            Some(Fault::BrokenOff { was_done }) => {
                if was_done {
                    call.await?;
                }
                let problem = "a fault that was injected".to_owned();
                let source = Box::new(Status::unavailable(&problem));
                ClientError::BrokenOff { url: URL.to_owned(), method, problem, source }
            }
            Some(Fault::TimeOut { after, was_done }) => {
                if was_done {
                    call.await?;
                }
                pass(after).await;
                let after = delay.saturating_add(after);
                ClientError::Timeout { url: URL.to_owned(), method, after, phase: Some(Phase::Server) }
            }
            Some(Fault::Refused { code, reason }) => {
                let details = ErrorDetails::with_error_info(reason, DOMAIN, []);
                let status = Status::with_error_details(code, "a fault that was injected", details);
                ClientError::Status(Box::new(Refusal::new(URL.to_owned(), status)))
            }
        };
        match nothing {
            Some(nothing) if self.on_unavailable.makes_nothing_of(&error) => {
                Ok(nothing(MissReason::OwnerDown))
            }
            _ => Err(error),
        }
    }
}

/// What stands for a node's URL in errors.
const URL: &str = "the cache under test";

async fn pass(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// For what is never silent: a cache that has nothing is an error.
fn never<R>() -> Option<fn(MissReason) -> R> {
    None
}

fn slices(keys: &[Bytes]) -> Vec<&[u8]> {
    keys.iter().map(|key| &key[..]).collect()
}

/// What a Set without a condition comes to where the node is out.
fn not_stored(_: MissReason) -> SetOutcome {
    SetOutcome::NotStored(NotStored::OwnerDown)
}

impl<C: Cache> Cache for FaultyCache<C> {
    async fn get(&self, key: impl AsRef<[u8]> + Send) -> Result<GetOutcome, ClientError> {
        let key = key.as_ref();
        self.call(CacheOperation::Get, &[key], Some(GetOutcome::Miss), self.cache.get(key)).await
    }

    async fn metadata(&self, key: impl AsRef<[u8]> + Send) -> Result<GetOutcome, ClientError> {
        let key = key.as_ref();
        self.call(CacheOperation::Metadata, &[key], Some(GetOutcome::Miss), self.cache.metadata(key)).await
    }

    async fn set(
        &self,
        key: impl AsRef<[u8]> + Send,
        value: impl Into<Bytes> + Send,
        options: &SetOptions,
    ) -> Result<SetOutcome, ClientError> {
        let key = key.as_ref();
        let nothing = (options.condition == SetCondition::Always).then_some(not_stored);
        self.call(CacheOperation::Set, &[key], nothing, self.cache.set(key, value, options)).await
    }

    async fn delete(
        &self,
        key: impl AsRef<[u8]> + Send,
        options: &DeleteOptions,
    ) -> Result<Deletion, ClientError> {
        let key = key.as_ref();
        self.call(CacheOperation::Delete, &[key], never(), self.cache.delete(key, options)).await
    }

    async fn increment(
        &self,
        key: impl AsRef<[u8]> + Send,
        delta: i64,
        options: &CounterOptions,
    ) -> Result<Counter, ClientError> {
        let key = key.as_ref();
        let call = self.cache.increment(key, delta, options);
        self.call(CacheOperation::Increment, &[key], never(), call).await
    }

    async fn decrement(
        &self,
        key: impl AsRef<[u8]> + Send,
        delta: i64,
        options: &CounterOptions,
    ) -> Result<Counter, ClientError> {
        let key = key.as_ref();
        let call = self.cache.decrement(key, delta, options);
        self.call(CacheOperation::Decrement, &[key], never(), call).await
    }

    async fn touch(&self, key: impl AsRef<[u8]> + Send, ttl: Duration) -> Result<bool, ClientError> {
        let key = key.as_ref();
        self.call(CacheOperation::Touch, &[key], never(), self.cache.touch(key, ttl)).await
    }

    async fn batch_get(&self, keys: Vec<Bytes>) -> Result<Vec<Result<GetOutcome, Refusal>>, ClientError> {
        let count = keys.len();
        let nothing = |reason| all_alike(count, GetOutcome::Miss(reason));
        let call = self.cache.batch_get(keys.clone());
        self.call(CacheOperation::BatchGet, &slices(&keys), Some(nothing), call).await
    }

    async fn batch_set(
        &self,
        items: Vec<(Bytes, Bytes)>,
        options: &SetOptions,
    ) -> Result<Vec<Result<SetOutcome, Refusal>>, ClientError> {
        let count = items.len();
        let keys: Vec<Bytes> = items.iter().map(|(key, _)| key.clone()).collect();
        let nothing = |reason| all_alike(count, not_stored(reason));
        let nothing = (options.condition == SetCondition::Always).then_some(nothing);
        let call = self.cache.batch_set(items, options);
        self.call(CacheOperation::BatchSet, &slices(&keys), nothing, call).await
    }

    async fn batch_delete(
        &self,
        keys: Vec<Bytes>,
        durability: Option<Durability>,
    ) -> Result<Vec<Result<bool, Refusal>>, ClientError> {
        let call = self.cache.batch_delete(keys.clone(), durability);
        self.call(CacheOperation::BatchDelete, &slices(&keys), never(), call).await
    }

    async fn scan(
        &self,
        prefix: impl Into<Bytes> + Send,
        options: ScanOptions,
    ) -> Result<ScanPage, ClientError> {
        self.call(CacheOperation::Scan, &[], never(), self.cache.scan(prefix, options)).await
    }

    async fn invalidate(&self, scope: InvalidateScope) -> Result<u64, ClientError> {
        self.call(CacheOperation::Invalidate, &[], never(), self.cache.invalidate(scope)).await
    }
}

#[cfg(test)]
mod tests;
