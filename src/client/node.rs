//! One node as the client sees it: its lanes, its pool for everything else, and whether it is there.
//!
//! ```text
//!  NodeCalls ── lane by the key's hash ─┬─ Lane 0   asked for a sign of life also while nothing is due
//!                                       ├─ Lane 1 …
//!  Pool: batches, scans, blobs ─────────┤
//!  health Watch, by the pool ───────────┴─▶ Presence ─▶ watch channel: the application
//! ```
//!
//! A node is out when it says so (NOT_SERVING), when no lane has a connection, or when lane 0 has found it silent. Calls
//! then fail at once, and cost no time-out; connections are tried meanwhile, at most half a second apart.

use std::fmt;
use std::mem::ManuallyDrop;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::backoff::Backoff;
use super::codec::Command;
use super::error::ClientError;
use super::greylist::Greylist;
use super::health::{Serving, WatchStream};
use super::lane::{
    CallTime, Choice, Failure, Fault, FaultKind, LANES_MAX, Lane, LaneConfig, LaneCounts, LaneEvents, Phase,
    Reply, Standing,
};
use super::large_keys::LargeKeys;
use super::pool::Pool;
use super::trace::Trace;
use super::url::NodeUrl;
use crate::clock::monotonic;

/// Whether a node can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Availability {
    /// Nothing is connected yet: calls wait for it, within their deadlines.
    Connecting,
    /// Calls are answered.
    Available,
    /// Connections stand, but calls fail: few are let through until they do not.
    Greylisted,
    /// The node says that it does not serve: it drains, or is not ready yet.
    NotServing,
    /// There is no connection to it, or it does not answer on those there are.
    Unreachable,
}

impl Availability {
    /// Whether calls fail at once: the node says that it does not serve, or cannot be reached.
    #[must_use]
    pub fn is_out(self) -> bool {
        matches!(self, Self::NotServing | Self::Unreachable)
    }

    /// Its name: `available`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Available => "available",
            Self::Greylisted => "greylisted",
            Self::NotServing => "not_serving",
            Self::Unreachable => "unreachable",
        }
    }
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a node is, as far as the client knows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeHealth {
    /// Where it is.
    pub url: NodeUrl,
    /// Whether it can be asked.
    pub availability: Availability,
    /// What is wrong, in words. Empty: nothing.
    pub problem: String,
}

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    presence: Arc<Presence>,
    pool: Arc<Pool>,
    lanes: Vec<Lane>,
    choice: Arc<Choice>,
    large_keys: LargeKeys,
    watching: Option<JoinHandle<()>>,
}

/// What is known of whether a node is there.
#[derive(Debug)]
struct Presence {
    known: Mutex<Known>,
    health: watch::Sender<NodeHealth>,
    greylist: Greylist,
    /// The node says that it does not serve.
    is_withheld: AtomicBool,
    /// How often it was found to be out.
    times_out: AtomicU64,
    /// Calls that were sent again.
    retries: AtomicU64,
    /// Gets that were asked a second time before they were answered.
    hedges: AtomicU64,
}

#[derive(Debug)]
struct Known {
    /// Whether each lane has a stream.
    lanes_open: Vec<bool>,
    /// Why the last lane that lost its connection did.
    fault: Option<Arc<Fault>>,
    /// What the node says of itself.
    serving: Option<Serving>,
    lanes: Vec<Lane>,
}

/// How a node is connected.
#[derive(Debug, Clone)]
pub(super) struct NodeConfig {
    pub(super) lanes: NonZeroUsize,
    pub(super) lane: LaneConfig,
}

/// Calls whose deadline is shorter say nothing of the node when it passes.
const TELLING_TIMEOUT_MIN: Duration = Duration::from_millis(50);

impl Node {
    /// A node that single-key calls reach by lanes. Must be called within a tokio runtime.
    pub(super) fn with_lanes(pool: Arc<Pool>, config: &NodeConfig) -> Self {
        let count = config.lanes.get().min(LANES_MAX);
        let choice = Arc::new(Choice::new(count));
        let presence = Arc::new(Presence::new(pool.url().clone(), count));
        let lane = |nth: usize| {
            let events = Arc::new(LaneOf { nth, presence: Arc::downgrade(&presence) });
            // One asks for signs of life for all of them.
            let config = LaneConfig { keeps_alive_idle: nth == 0, ..config.lane.clone() };
            Lane::new(nth, config, choice.clone(), events)
        };
        let lanes: Vec<Lane> = (0..count).map(lane).collect();
        presence.known().lanes.clone_from(&lanes);
        let watching = tokio::spawn(watch_health(pool.clone(), Arc::downgrade(&presence)));
        let large_keys = LargeKeys::default();
        Self { presence, pool, lanes, choice, large_keys, watching: Some(watching) }
    }

    /// A node whose calls each go by themselves, on a connection that is made when it is needed.
    pub(super) fn unary(pool: Arc<Pool>) -> Self {
        let presence = Arc::new(Presence::new(pool.url().clone(), 0));
        let (lanes, choice, large_keys) = (Vec::new(), Arc::new(Choice::new(0)), LargeKeys::default());
        Self { presence, pool, lanes, choice, large_keys, watching: None }
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Which keys were seen to have long values.
    #[inline]
    pub(super) fn large_keys(&self) -> &LargeKeys {
        &self.large_keys
    }

    pub(super) fn has_lanes(&self) -> bool {
        !self.lanes.is_empty()
    }

    pub(super) fn health(&self) -> watch::Receiver<NodeHealth> {
        self.presence.health.subscribe()
    }

    pub(super) fn times_out(&self) -> u64 {
        self.presence.times_out.load(Ordering::Relaxed)
    }

    pub(super) fn retries(&self) -> u64 {
        self.presence.retries.load(Ordering::Relaxed)
    }

    pub(super) fn hedges(&self) -> u64 {
        self.presence.hedges.load(Ordering::Relaxed)
    }

    pub(super) fn note_hedge(&self) {
        self.presence.hedges.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_retry(&self) {
        self.presence.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = LaneCounts> {
        self.lanes.iter().map(Lane::counts)
    }

    /// Whether it is out, so that nothing is to be sent to it.
    pub(super) fn check(&self) -> Result<(), Arc<Fault>> {
        if self.presence.is_withheld.load(Ordering::Relaxed) {
            return Err(Arc::new(Fault::new(
                FaultKind::Refused,
                "it does not serve now: it says NOT_SERVING",
            )));
        }
        if !self.presence.greylist.admits(monotonic, || self.answered()) {
            let problem = "too many of its last calls have failed: few are let through until some come back";
            return Err(Arc::new(Fault::new(FaultKind::Silent, problem)));
        }
        Ok(())
    }

    /// [`Self::check`] for a call that no lane carries: it finds out too that no lane has a connection.
    pub(super) fn check_pool(&self) -> Result<(), Arc<Fault>> {
        self.check()?;
        let mut fault = None;
        for lane in &self.lanes {
            match lane.standing() {
                Standing::Out(why) => fault = fault.or(Some(why)),
                _ => return Ok(()),
            }
        }
        fault.map_or(Ok(()), Err)
    }

    /// Asks the node. `hash` is the key's.
    pub(super) async fn call<C: Command>(
        &self,
        command: &C,
        hash: u64,
        time: CallTime,
        trace: &Trace<'_>,
    ) -> Result<Reply, Failure> {
        self.check().map_err(Failure::Out)?;
        let mut than = None;
        for left in (0..self.lanes.len()).rev() {
            let lane = self.choice.begin(hash, than);
            let call = self.lanes[lane].call(command, hash, time, trace);
            match call.await {
                Err(Failure::Out(_)) if left > 0 => than = Some(lane),
                other => return self.judged(other, time),
            }
        }
        Err(Failure::Out(Arc::new(Fault::closed())))
    }

    /// Asks the node by another connection than [`Self::call`] does, if it has one.
    pub(super) async fn call_elsewhere<C: Command>(
        &self,
        command: &C,
        hash: u64,
        time: CallTime,
        trace: &Trace<'_>,
    ) -> Result<Reply, Failure> {
        let lane = self.choice.begin_elsewhere(hash);
        self.lanes[lane].call(command, hash, time, trace).await
    }

    /// Takes note of a call that failed at the node.
    fn judged(&self, outcome: Result<Reply, Failure>, time: CallTime) -> Result<Reply, Failure> {
        let is_telling = time.timeout_ms as u128 >= TELLING_TIMEOUT_MIN.as_millis();
        if matches!(outcome, Err(Failure::Deadline(Phase::Server))) && is_telling {
            self.failed();
        }
        outcome
    }

    fn failed(&self) {
        if self.presence.greylist.failed(monotonic(), self.answered()) {
            self.presence.tell();
        }
    }

    fn answered(&self) -> u64 {
        self.counts().map(|counts| counts.replies).sum()
    }

    /// Whether a call may be tried once more.
    pub(super) fn may_retry(&self, hash: u64) -> bool {
        self.lanes.get(hash as usize % self.lanes.len().max(1)).is_none_or(Lane::may_retry)
    }

    /// Waits until the node can be asked. A node that is known to be out is waited for too, as a connection may take its
    /// time; what it lacks then is said.
    pub(super) async fn connected(&self) -> Result<(), ClientError> {
        let begun = monotonic();
        let mut health = self.health();
        let is_known = |health: &NodeHealth| health.availability != Availability::Connecting;
        // The sender lives as long as this node.
        let health = match health.wait_for(is_known).await {
            Ok(health) => health.clone(),
            Err(_) => return Ok(()),
        };
        if health.availability == Availability::Available {
            return Ok(());
        }
        let fault = self.presence.known().fault.clone();
        let fault = fault.unwrap_or_else(|| Arc::new(Fault::new(FaultKind::Refused, health.problem.clone())));
        Err(ClientError::of_failure(self.pool.url(), "connecting", Failure::Out(fault), monotonic() - begun))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The locks may be held by threads that a fork has not got, and the lanes' tasks are not its own.
        if !self.pool.built_in().is_current() {
            // What tokio and tonic have in them has locks as well.
            let _kept_for_ever = ManuallyDrop::new((self.presence.clone(), self.pool.clone()));
            return;
        }
        self.presence.known().lanes.clear();
        self.lanes.iter().for_each(Lane::close);
        if let Some(watching) = &self.watching {
            watching.abort();
        }
    }
}

impl Presence {
    fn new(url: NodeUrl, lanes: usize) -> Self {
        // Without lanes nothing is known before a call is made.
        let availability = if lanes == 0 { Availability::Available } else { Availability::Connecting };
        let health = NodeHealth { url, availability, problem: String::new() };
        let known = Known { lanes_open: vec![false; lanes], fault: None, serving: None, lanes: Vec::new() };
        Self {
            known: Mutex::new(known),
            health: watch::Sender::new(health),
            greylist: Greylist::new(monotonic()),
            is_withheld: AtomicBool::new(false),
            times_out: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            hedges: AtomicU64::new(0),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, lane: usize) {
        self.known().lanes_open[lane] = true;
        self.tell();
    }

    fn out(&self, lane: usize, fault: &Arc<Fault>) {
        let silent_others = {
            let mut known = self.known();
            known.lanes_open[lane] = false;
            known.fault = Some(fault.clone());
            if fault.kind == FaultKind::Silent { known.lanes.clone() } else { Vec::new() }
        };
        for other in silent_others {
            other.condemn(Fault::new(fault.kind, fault.problem.clone()));
        }
        self.tell();
    }

    fn says(&self, serving: Option<Serving>) {
        self.known().serving = serving;
        self.is_withheld.store(serving == Some(Serving::NotServing), Ordering::Relaxed);
        self.tell();
    }

    /// Tells those that listen how the node is, if that has changed.
    fn tell(&self) {
        let known = self.known();
        let is_open = known.lanes_open.contains(&true);
        let (availability, problem) = match (known.serving, &known.fault) {
            (Some(Serving::NotServing), _) => (Availability::NotServing, "it says NOT_SERVING".to_owned()),
            _ if is_open && self.greylist.is_listed() => {
                (Availability::Greylisted, "too many of its last calls have failed".to_owned())
            }
            _ if is_open => (Availability::Available, String::new()),
            (_, Some(fault)) => (Availability::Unreachable, fault.problem.clone()),
            (_, None) => (Availability::Connecting, String::new()),
        };
        self.health.send_if_modified(|health| {
            if (health.availability, &health.problem) == (availability, &problem) {
                return false;
            }
            let is_news = availability.is_out() && !health.availability.is_out();
            self.times_out.fetch_add(u64::from(is_news), Ordering::Relaxed);
            (health.availability, health.problem) = (availability, problem);
            true
        });
    }
}

/// What a lane tells of itself.
#[derive(Debug)]
struct LaneOf {
    nth: usize,
    presence: Weak<Presence>,
}

impl LaneEvents for LaneOf {
    fn opened(&self) {
        if let Some(presence) = self.presence.upgrade() {
            presence.opened(self.nth);
        }
    }

    fn out(&self, fault: &Arc<Fault>) {
        if let Some(presence) = self.presence.upgrade() {
            presence.out(self.nth, fault);
        }
    }
}

/// Follows what the node says of itself, as long as it has a connection.
async fn watch_health(pool: Arc<Pool>, presence: Weak<Presence>) {
    let mut backoff = Backoff::default();
    let Some(mut health) = presence.upgrade().map(|presence| presence.health.subscribe()) else { return };
    loop {
        // Nothing is asked of a node that has no connection.
        let is_there = |health: &NodeHealth| {
            !matches!(health.availability, Availability::Connecting | Availability::Unreachable)
        };
        if health.wait_for(is_there).await.is_err() {
            return;
        }
        if let Ok(mut stream) = WatchStream::open(&pool).await {
            while let Some(serving) = stream.next().await {
                backoff = Backoff::default();
                let Some(presence) = presence.upgrade() else { return };
                presence.says(Some(serving));
            }
        }
        let Some(presence) = presence.upgrade() else { return };
        presence.says(None);
        drop(presence);
        tokio::time::sleep(backoff.next()).await;
    }
}
