//! One path for every call: to its node, and again where that is safe and allowed.
//!
//! A call is tried three times at most, within its deadline. It is repeated where the connection broke under it, if done
//! twice it comes to the same, or it has a request id, by which the node knows it again; and where the node says that a
//! retry helps (google.rpc.RetryInfo), after the time that it says. What is repeated is a tenth of all calls at most,
//! beside ten at once, so that a node in trouble is not asked more than one that is well.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use tonic::Code;

use super::backoff::{random, random_share};
use super::calls::{Client, UNREADABLE};
use super::codec::{Command, ReplyKind};
use super::error::{ClientError, Refusal};
use super::lane::{CallTime, Failure, Reply};
use super::request::Request;
use super::trace::Trace;
use crate::clock::monotonic;
use crate::proto::google::rpc;
use crate::verb::{Idempotency, Verb};

/// Whether a call may be sent again when nobody knows what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Done twice, it comes to the same.
    Safe,
    /// It might not.
    No,
}

impl Repeat {
    /// Of a request that is one: what its verb allows, if it has no condition, which the first time has changed.
    pub(super) fn of<R: Request>(message: &R) -> Self {
        match R::VERB.idempotency() {
            Idempotency::Unknown => Self::No,
            _ if message.is_conditional() => Self::No,
            _ => Self::Safe,
        }
    }
}

/// How often a call is sent at most.
const TRIES_MAX: usize = 3;

/// A call that is sent, and perhaps again.
struct Tries {
    repeat: Repeat,
    /// Of the key, by which the budget is kept.
    hash: u64,
    time: CallTime,
    begun: Instant,
    sent: usize,
}

/// Names for calls that must be done once.
#[derive(Debug)]
pub(super) struct RequestIds {
    client: u64,
    next: AtomicU64,
}

impl Default for RequestIds {
    fn default() -> Self {
        Self { client: random(), next: AtomicU64::new(0) }
    }
}

impl RequestIds {
    /// A name that no other call has.
    pub(super) fn draw(&self) -> String {
        format!("{:016x}-{:x}", self.client, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// The hash by which a key's calls are kept in order, and what is known of it is found.
#[inline]
pub(super) fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh64::xxh64(key, 0)
}

impl Client {
    /// Sends a command by a lane, and gives the message that answers it. `hash` is its key's.
    pub(super) async fn command<C: Command>(
        &self,
        verb: Verb,
        hash: u64,
        command: &C,
        repeat: Repeat,
    ) -> Result<Bytes, ClientError> {
        let mut tries = self.tries(repeat, hash)?;
        let trace = &self.trace(verb);
        loop {
            let (hash, time) = (tries.hash, tries.time);
            let outcome = match self.hedge_after() {
                Some(after) if verb == Verb::Get => {
                    Box::pin(self.hedged(command, hash, time, after, trace)).await
                }
                _ => self.node().call(command, hash, time, trace).await,
            };
            let error = match outcome {
                Ok(reply) if reply.kind != ReplyKind::Error => return Ok(reply.result),
                Ok(refused) => self.refused(verb, refused.result),
                Err(failure) => self.failed(verb, failure, tries.begun),
            };
            if !self.try_again(&mut tries, &error).await {
                return Err(error);
            }
        }
    }

    /// Asks a second time, by another connection, where the first answer takes long; the one that comes first counts, and
    /// the other is given up.
    async fn hedged<C: Command>(
        &self,
        command: &C,
        hash: u64,
        time: CallTime,
        after: Duration,
        trace: &Trace<'_>,
    ) -> Result<Reply, Failure> {
        let mut first = pin!(self.node().call(command, hash, time, trace));
        if let Ok(answered) = tokio::time::timeout(after, &mut first).await {
            return answered;
        }
        let Some(left) = time.left(monotonic()).filter(|_| self.node().may_retry(hash)) else {
            return first.await;
        };
        self.node().note_hedge();
        let mut second = pin!(self.node().call_elsewhere(command, hash, left, trace));
        tokio::select! {
            answered = &mut first => match answered {
                Err(Failure::Broken(_) | Failure::Out(_)) => second.await,
                answered => answered,
            },
            answered = &mut second => match answered {
                Ok(answered) => Ok(answered),
                Err(_) => first.await,
            },
        }
    }

    /// A single-key call: by a lane, or where there are none by itself.
    pub(super) async fn one<R>(&self, message: R, repeat: Repeat) -> Result<R::Answer, ClientError>
    where
        R: Request + Command,
    {
        if !self.node().has_lanes() {
            return self.call(message).await;
        }
        let result = self.command(R::VERB, key_hash(Command::key(&message)), &message, repeat).await?;
        self.read(R::VERB, result)
    }

    pub(super) fn read<A: Message + Default>(&self, verb: Verb, result: Bytes) -> Result<A, ClientError> {
        A::decode(result).map_err(|_| self.bad_answer(verb, UNREADABLE))
    }

    /// The path of every call that is one request and one answer by itself: to the node of the key that the request names.
    /// Its future is long, and has a place of its own: that of a call by a lane is not to be as long.
    pub(super) async fn call<R: Request>(&self, message: R) -> Result<R::Answer, ClientError> {
        Box::pin(self.call_alone(message)).await
    }

    async fn call_alone<R: Request>(&self, message: R) -> Result<R::Answer, ClientError> {
        let pool = self.node_of(message.key());
        let trace = &self.trace(R::VERB);
        if !self.node().has_lanes() {
            return pool.call_within(message, self.timed()?, trace).await;
        }
        let mut tries = self.tries(Repeat::of(&message), 0)?;
        loop {
            if let Err(fault) = self.node().check_pool() {
                return Err(self.failed(R::VERB, Failure::Out(fault), tries.begun));
            }
            let left = Duration::from_millis(tries.time.timeout_ms.into());
            let error = match pool.call_within(message.clone(), left, trace).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !self.try_again(&mut tries, &error).await {
                return Err(error);
            }
        }
    }

    /// A call that begins now, and has the client's timeout.
    fn tries(&self, repeat: Repeat, hash: u64) -> Result<Tries, ClientError> {
        let begun = monotonic();
        Ok(Tries { repeat, hash, time: CallTime::new(begun, self.timed()?), begun, sent: 0 })
    }

    /// [`Self::timed`] of a call that no lane carries, and is not repeated: the node is not known to be out.
    pub(super) fn timed_alone(&self, verb: Verb) -> Result<Duration, ClientError> {
        let timeout = self.timed()?;
        let checked = self.node().check_pool();
        checked.map_err(|fault| self.failed(verb, Failure::Out(fault), monotonic()))?;
        Ok(timeout)
    }

    /// The time that a call has which begins now, and may: every call asks for it before it does anything else.
    pub(super) fn timed(&self) -> Result<Duration, ClientError> {
        ClientError::check_process(self.node().pool().built_in())?;
        if self.timeout().is_zero() { Err(ClientError::ZeroTimeout) } else { Ok(self.timeout()) }
    }

    /// Waits before a call that came to this error is sent again. False: it is not to be.
    async fn try_again(&self, tries: &mut Tries, error: &ClientError) -> bool {
        tries.sent += 1;
        let Some(wait) = wait_before_retry(error, tries.repeat).filter(|_| tries.sent < TRIES_MAX) else {
            return false;
        };
        let left = tries.time.deadline.saturating_duration_since(monotonic());
        if left <= wait || !self.node().may_retry(tries.hash) {
            return false;
        }
        self.node().note_retry();
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let left = tries.time.left(monotonic());
        tries.time = left.unwrap_or(tries.time);
        left.is_some()
    }

    fn refused(&self, verb: Verb, status: Bytes) -> ClientError {
        match rpc::Status::decode(status) {
            Ok(status) => {
                let url = self.node_of(None).url().to_string();
                ClientError::Status(Box::new(Refusal::of_item(url, status)))
            }
            Err(_) => self.bad_answer(verb, UNREADABLE),
        }
    }

    fn failed(&self, verb: Verb, failure: Failure, begun: Instant) -> ClientError {
        ClientError::of_failure(self.node_of(None).url(), verb.name(), failure, monotonic() - begun)
    }
}

/// How long to wait before a call that came to this is sent again; none: it is not.
fn wait_before_retry(error: &ClientError, repeat: Repeat) -> Option<Duration> {
    match error {
        ClientError::BrokenOff { .. } | ClientError::Closed { .. } if repeat == Repeat::Safe => {
            Some(Duration::ZERO)
        }
        // What the node has refused it has not done.
        ClientError::Status(refusal)
            if matches!(refusal.code, Code::Unavailable | Code::ResourceExhausted) =>
        {
            let wait = refusal.retry_after?;
            Some(wait + random_share(wait / 4))
        }
        _ => None,
    }
}
