//! A run: threads with their own runtimes, connections and histograms, and the few counters that they share.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::{JoinHandle, LocalSet};
use tonic::{Code, Status};

use super::connection::Connection;
use super::load::{Load, Sequence, Written};
use super::pace::{self, Queue, Schedule};
use super::plan::{LoadPattern, Mode, Plan, StopAfter};
use super::wire::{self, Answer};
use super::{calls, library, stream};
use crate::cli::exit::{CliError, local};
use crate::cli::interrupt::Interrupt;
use crate::cli::progress;
use crate::clock::monotonic;
use crate::proto::code_name;

const HISTOGRAM_NS_MIN: u64 = 1_000;
const HISTOGRAM_NS_MAX: u64 = 3_600_000_000_000;
const HISTOGRAM_DIGITS: u8 = 3;
/// How long a caller holds back that reached nobody.
pub(super) const BACK_OFF: Duration = Duration::from_millis(20);
const PROGRESS_INTERVAL: Duration = Duration::from_millis(125);

/// What was measured.
#[derive(Debug, Clone)]
pub(super) struct Results {
    pub(super) gets: Histogram<u64>,
    pub(super) sets: Histogram<u64>,
    pub(super) calls: u64,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) stored: u64,
    pub(super) not_stored: u64,
    /// Keys that were refused, by code.
    pub(super) errors: BTreeMap<&'static str, u64>,
    /// What the node said of the first call or stream that it refused as a whole.
    pub(super) first_refusal: Option<String>,
    /// Open loop: calls that were due and not sent when the time was up.
    pub(super) unsent: u64,
    /// The client library: commands that it sent, and the messages that it sent them in.
    pub(super) commands: u64,
    pub(super) messages: u64,
    pub(super) elapsed: Duration,
}

/// What all threads share.
#[derive(Debug)]
pub(super) struct Control {
    record_from: Instant,
    end: Option<Instant>,
    remaining: AtomicU64,
    done: AtomicU64,
    sequence: Arc<Sequence>,
    written: Option<Arc<Written>>,
    interrupt: Interrupt,
}

/// What all callers of a thread share.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) plan: Arc<Plan>,
    control: Arc<Control>,
    results: RefCell<Results>,
    /// The open loop's calls. None: closed loop.
    queue: Option<Arc<Queue>>,
}

impl Results {
    fn new() -> Result<Self, CliError> {
        let histogram = || {
            Histogram::new_with_bounds(HISTOGRAM_NS_MIN, HISTOGRAM_NS_MAX, HISTOGRAM_DIGITS)
                .map_err(|error| CliError::Usage(format!("the latency histogram: {error}")))
        };
        Ok(Self {
            gets: histogram()?,
            sets: histogram()?,
            calls: 0,
            hits: 0,
            misses: 0,
            stored: 0,
            not_stored: 0,
            errors: BTreeMap::new(),
            first_refusal: None,
            unsent: 0,
            commands: 0,
            messages: 0,
            elapsed: Duration::ZERO,
        })
    }

    fn merge(&mut self, other: &Self) -> Result<(), CliError> {
        let wrong = |error| CliError::Usage(format!("the latency histograms: {error}"));
        self.gets.add(&other.gets).map_err(wrong)?;
        self.sets.add(&other.sets).map_err(wrong)?;
        self.calls += other.calls;
        self.hits += other.hits;
        self.misses += other.misses;
        self.stored += other.stored;
        self.not_stored += other.not_stored;
        self.unsent += other.unsent;
        self.commands += other.commands;
        self.messages += other.messages;
        self.elapsed = self.elapsed.max(other.elapsed);
        if self.first_refusal.is_none() {
            self.first_refusal.clone_from(&other.first_refusal);
        }
        for (code, count) in &other.errors {
            *self.errors.entry(code).or_default() += count;
        }
        Ok(())
    }

    /// Keys that were answered and not refused.
    pub(super) fn keys(&self) -> u64 {
        self.hits + self.misses + self.stored + self.not_stored
    }
}

impl Control {
    /// Claims up to `items` keys for a call. None: the run is over.
    fn claim(&self, now: Instant, items: usize) -> Option<usize> {
        if self.end.is_some_and(|end| now >= end) || self.interrupt.has_come() {
            return None;
        }
        if now < self.record_from || self.end.is_some() {
            return Some(items);
        }
        let claim = |remaining: u64| (remaining > 0).then(|| remaining.saturating_sub(items as u64));
        let before = self.remaining.fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim).ok()?;
        Some(items.min(usize::try_from(before).unwrap_or(usize::MAX)))
    }
}

impl Worker {
    /// When the next call starts, or should have, and of how many keys it is. None: the run is over.
    pub(super) async fn next_call(&self) -> Option<(Instant, usize)> {
        let start = match &self.queue {
            None => monotonic(),
            Some(queue) => queue.next().await?,
        };
        let now = if self.queue.is_some() { monotonic() } else { start };
        match self.control.claim(now, self.plan.items) {
            Some(items) => Some((start, items)),
            None => {
                // A call that was due and comes too late to be sent.
                self.results.borrow_mut().unsent += u64::from(self.queue.is_some());
                None
            }
        }
    }

    /// Records keys that were answered.
    pub(super) fn answered(&self, start: Instant, end: Instant, answer: Answer, keys: u64) {
        self.control.done.fetch_add(keys, Ordering::Relaxed);
        if start < self.control.record_from {
            return;
        }
        let mut results = self.results.borrow_mut();
        let results = &mut *results;
        let histogram = match answer {
            Answer::Hit => {
                results.hits += keys;
                &mut results.gets
            }
            Answer::Miss => {
                results.misses += keys;
                &mut results.gets
            }
            Answer::Stored => {
                results.stored += keys;
                &mut results.sets
            }
            Answer::NotStored => {
                results.not_stored += keys;
                &mut results.sets
            }
            Answer::Refused { code, .. } => {
                *results.errors.entry(code_name(code)).or_default() += keys;
                return;
            }
        };
        let ns = u64::try_from((end - start).as_nanos()).unwrap_or(u64::MAX);
        histogram.saturating_record_n(ns.clamp(HISTOGRAM_NS_MIN, HISTOGRAM_NS_MAX), keys);
    }

    /// Records keys whose call or stream was refused as a whole; how long to hold back then.
    pub(super) fn refused(
        &self,
        start: Instant,
        end: Instant,
        status: &Status,
        keys: u64,
    ) -> Option<Duration> {
        let why = || format!("{}: {}", code_name(status.code()), status.message());
        self.failed(start, end, status.code(), wire::retry_after(status), keys, why)
    }

    /// [`Self::refused`] for this reason.
    pub(super) fn failed(
        &self,
        start: Instant,
        end: Instant,
        code: Code,
        retry_after: Option<Duration>,
        keys: u64,
        why: impl FnOnce() -> String,
    ) -> Option<Duration> {
        if keys > 0 {
            self.results.borrow_mut().first_refusal.get_or_insert_with(why);
        }
        self.answered(start, end, Answer::Refused { code, retry_after }, keys);
        retry_after.or((code == Code::Unavailable).then_some(BACK_OFF))
    }

    /// Waits before the next call, as a client does that was refused; not beyond the run's end.
    pub(super) async fn hold_back(&self, pause: Duration) {
        let end = monotonic() + pause;
        let end = self.control.end.map_or(end, |last| end.min(last));
        tokio::time::sleep_until(end.into()).await;
    }

    /// Records a call, or a message of a Pipeline, that was answered in full.
    pub(super) fn call_done(&self, start: Instant) {
        if start >= self.control.record_from {
            self.results.borrow_mut().calls += 1;
        }
    }

    pub(super) fn load(&self, seed: u64) -> Result<Load, CliError> {
        let Control { sequence, written, .. } = &*self.control;
        Load::new(self.plan.clone(), sequence.clone(), written.clone(), seed)
    }
}

/// Runs a plan to its end, or until it is interrupted, and notes in `written` which keys it sets.
pub(super) fn run(
    plan: &Plan,
    what: &'static str,
    written: Option<Arc<Written>>,
    interrupt: &Interrupt,
) -> Result<Results, CliError> {
    let plan = Arc::new(plan.clone());
    let start = monotonic();
    let record_from = start + plan.warmup;
    let (end, keys) = match plan.until {
        StopAfter::Keys(keys) => (None, keys),
        StopAfter::Elapsed(duration) => (Some(record_from + duration), 0),
    };
    let sequence = Arc::new(Sequence::default());
    let control = Arc::new(Control {
        record_from,
        end,
        remaining: AtomicU64::new(keys),
        done: AtomicU64::new(0),
        sequence,
        written,
        interrupt: interrupt.clone(),
    });
    let queues: Vec<Arc<Queue>> = (0..plan.threads).map(|_| Arc::new(Queue::new())).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|index| {
                let queue = (plan.pace != LoadPattern::Closed).then(|| queues[index].clone());
                let (plan, control) = (plan.clone(), control.clone());
                scope.spawn(move || thread(index, plan, control, queue))
            })
            .collect();
        if let LoadPattern::Open { keys_per_s, arrivals } = plan.pace {
            let items = plan.items as u64;
            let calls_per_s = keys_per_s as f64 / items as f64;
            let schedule = Schedule::new(start, calls_per_s, arrivals);
            // Warm-up calls are beside what is asked for; the claims end the run where keys are counted.
            let warmup = (plan.warmup.as_secs_f64() * calls_per_s * 2.0).ceil() as u64;
            let calls_max = if end.is_some() { u64::MAX } else { keys.div_ceil(items) + warmup };
            let queues = &queues;
            scope.spawn(move || {
                pace::keep(schedule, queues, calls_max, |next| {
                    end.is_some_and(|end| next >= end) || interrupt.has_come()
                });
            });
        }
        watch(what, &control, keys, &threads);
        let mut results = Results::new()?;
        for thread in threads {
            let thread = thread.join().map_err(|_| CliError::Refused("a load thread panicked".to_owned()))?;
            results.merge(&thread?)?;
        }
        Ok(results)
    })
}

/// Shows the progress until every thread is done.
fn watch<T>(
    what: &'static str,
    control: &Control,
    keys: u64,
    threads: &[std::thread::ScopedJoinHandle<'_, T>],
) {
    let bar = if keys > 0 { progress::bar(what, keys) } else { progress::spinner(what) };
    let mut pause = Duration::from_millis(1);
    while threads.iter().any(|thread| !thread.is_finished()) {
        bar.set_position(control.done.load(Ordering::Relaxed));
        std::thread::sleep(pause);
        pause = (pause * 2).min(PROGRESS_INTERVAL);
    }
    bar.finish_and_clear();
}

/// One load thread: its share of the connections, each with its callers.
fn thread(
    index: usize,
    plan: Arc<Plan>,
    control: Arc<Control>,
    queue: Option<Arc<Queue>>,
) -> Result<Results, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(local("cannot start a load thread's runtime"))?;
    let worker =
        Rc::new(Worker { plan: plan.clone(), control, results: RefCell::new(Results::new()?), queue });
    let local_set = LocalSet::new();
    let outcome: Result<(), CliError> = local_set.block_on(&runtime, async {
        match plan.mode {
            Mode::Client => call_library(&worker, index).await,
            _ => ended(callers(&worker, index)?).await,
        }
    });
    outcome?;
    if let Some(queue) = &worker.queue {
        worker.results.borrow_mut().unsent += queue.waiting() as u64;
    }
    // Here and not where threads are waited for, as the waiting thread looks at intervals only.
    let elapsed = monotonic().saturating_duration_since(worker.control.record_from);
    let results = worker.results.borrow().clone();
    Ok(Results { elapsed, ..results })
}

/// The callers on this thread's connections.
fn callers(worker: &Rc<Worker>, index: usize) -> Result<Vec<JoinHandle<()>>, CliError> {
    let plan = &worker.plan;
    let mut callers = Vec::new();
    for connection in (index..plan.connections).step_by(plan.threads) {
        let client = plan.builder.clone().connections(NonZeroUsize::MIN).build()?;
        let unary = Rc::new(Connection::new(&plan.endpoint));
        for caller in 0..plan.callers {
            let seed = (connection * plan.callers + caller) as u64;
            let (worker, load) = (worker.clone(), worker.load(seed)?);
            callers.push(match plan.mode {
                Mode::Pipeline { depth } => {
                    tokio::task::spawn_local(stream::caller(worker, client.clone(), load, depth))
                }
                _ => tokio::task::spawn_local(calls::caller(worker, unary.clone(), load)),
            });
        }
    }
    Ok(callers)
}

/// This thread's callers of the client library, which share one client with this thread's connections.
async fn call_library(worker: &Rc<Worker>, index: usize) -> Result<(), CliError> {
    let plan = &worker.plan;
    let of = |count: usize| (index..count).step_by(plan.threads);
    let connections = NonZeroUsize::new(of(plan.connections).count()).unwrap_or(NonZeroUsize::MIN);
    let client = plan.service.clone().connections(connections).connect().await?;
    let mut callers = Vec::new();
    for caller in of(plan.callers) {
        let load = worker.load(caller as u64)?;
        callers.push(tokio::task::spawn_local(library::caller(worker.clone(), client.clone(), load)));
    }
    ended(callers).await?;
    let metrics = client.metrics();
    let mut results = worker.results.borrow_mut();
    (results.commands, results.messages) = (metrics.commands, metrics.batches);
    Ok(())
}

async fn ended(callers: Vec<JoinHandle<()>>) -> Result<(), CliError> {
    for caller in callers {
        caller.await.map_err(|_| CliError::Refused("a caller panicked".to_owned()))?;
    }
    Ok(())
}
