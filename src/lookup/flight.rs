//! One load per key: operations that ask for a key that is being loaded wait for the same load.
//!
//! An operation joins a flight only if what the flight finds is as good as what it would find itself: it is for the
//! same key, and saw it changed as often as the flight's first operation did. A flight stays in the table until the
//! last waiting operation has left, also when it is over, so that one that comes then takes what was found. It outlives
//! the operation that began it; one that all have left before a thread took it is not done at all.
//!
//! A flight starts when an operation that waits for it is polled, or together with others ([`Flights::start`]). Those are
//! loaded by one thread one behind another, as handing each to a thread takes longer than most loads: half of the
//! processor's time, where the files are in the page cache. A load that takes [`SLOW`] has met a disk; what is behind it
//! goes to other threads then, as many as are needed, and does so after [`STUCK`] also where that load does not end.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;

use super::pool::{BlockingPool, Job};
use super::{Answer, LoadTarget, Source};
use crate::clock::monotonic;
use crate::engine::Refusal;

/// A load that takes this long has waited for a disk.
pub(super) const SLOW: Duration = Duration::from_micros(200);
/// Loads that are to be done by one thread and are not by then are given to others.
const STUCK: Duration = Duration::from_millis(2);

/// Flights by the place of their key. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Flights {
    by_hash: Arc<Mutex<HashMap<u64, Arc<Flight>>>>,
    pool: BlockingPool<Loads>,
}

/// The load of a key.
#[derive(Debug)]
pub(super) struct Flight {
    target: LoadTarget,
    /// How often the key was changed when this began.
    changes: u64,
    source: Arc<dyn Source>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiters: usize,
    stage: Stage,
    answer: Option<Arc<Answer>>,
    /// Of those that wait.
    wakers: Vec<Waker>,
}

/// How far a flight is that has no answer yet.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nobody has started it, or there was no room among those that it was started with.
    #[default]
    Idle,
    /// It is to be done by a thread.
    Queued,
    /// A thread is at it.
    Begun,
}

/// Flights that one thread loads.
#[derive(Debug)]
pub(super) struct Loads {
    /// Those that it has not come to.
    flights: Arc<Mutex<VecDeque<Arc<Flight>>>>,
    /// How many bytes they may load until those left are idle again.
    bytes_left: usize,
}

/// One that waits for a flight, until it is dropped.
#[derive(Debug)]
pub(super) struct Waiter {
    flight: Arc<Flight>,
    flights: Option<Flights>,
}

/// A load that was given up when it had begun.
#[derive(Debug)]
pub struct AbandonedLoad(Weak<Flight>);

impl Flights {
    /// Joins the flight of a key, or makes one that is idle.
    pub(super) fn join(&self, target: LoadTarget, changes: u64, source: &Arc<dyn Source>) -> Waiter {
        let mut by_hash = self.by_hash.lock();
        let known = by_hash.get(&target.walk_hash);
        if let Some(flight) = known.filter(|flight| flight.is_of(&target, changes)) {
            flight.state.lock().waiters += 1;
            return Waiter { flight: Arc::clone(flight), flights: Some(self.clone()) };
        }
        // Of another key with the same hash, or as the key was before.
        let is_first = known.is_none();
        let state = State { waiters: 1, ..State::default() };
        let source = Arc::clone(source);
        let flight = Arc::new(Flight { target, changes, source, state: state.into() });
        if is_first {
            by_hash.insert(flight.target.walk_hash, Arc::clone(&flight));
        }
        Waiter { flight, flights: Some(self.clone()) }
    }

    /// Starts those that are idle, until they have loaded a number of bytes: those behind are idle again then. Must be
    /// called in a runtime.
    pub(super) fn start<'a>(waiters: impl Iterator<Item = &'a Waiter>, bytes_max: usize) {
        let mut pool = None;
        let idle = waiters.filter(|waiter| waiter.flight.leaves_idle()).map(|waiter| {
            pool = waiter.flights.as_ref().map(|flights| &flights.pool);
            Arc::clone(&waiter.flight)
        });
        let flights: VecDeque<_> = idle.collect();
        let Some(pool) = pool else { return };
        let (count, flights) = (flights.len(), Arc::new(Mutex::new(flights)));
        pool.push(Loads { flights: Arc::clone(&flights), bytes_left: bytes_max });
        if count > 1 {
            let pool = pool.clone();
            tokio::spawn(async move {
                sleep(STUCK).await;
                split(&flights, bytes_max).into_iter().for_each(|loads| pool.push(loads));
            });
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_hash.lock().len()
    }

    /// One leaves; whether it was the last that waited.
    fn leave(&self, flight: &Arc<Flight>) -> bool {
        let mut by_hash = self.by_hash.lock();
        let mut state = flight.state.lock();
        state.waiters -= 1;
        let is_last = state.waiters == 0;
        if is_last && by_hash.get(&flight.target.walk_hash).is_some_and(|known| Arc::ptr_eq(known, flight)) {
            by_hash.remove(&flight.target.walk_hash);
        }
        is_last
    }
}

impl Flight {
    fn is_of(&self, target: &LoadTarget, changes: u64) -> bool {
        let of_it = &self.target;
        (of_it.namespace, &of_it.key, of_it.shard, self.changes)
            == (target.namespace, &target.key, target.shard, changes)
    }

    /// Whether it was idle; it is to be queued then.
    fn leaves_idle(&self) -> bool {
        let mut state = self.state.lock();
        let is_idle = state.stage == Stage::Idle;
        if is_idle {
            state.stage = Stage::Queued;
        }
        is_idle
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Arc<Answer>> {
        let mut state = self.state.lock();
        if let Some(answer) = &state.answer {
            return Poll::Ready(Arc::clone(answer));
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Begins, if anybody waits for it.
    fn begin(&self) -> bool {
        let mut state = self.state.lock();
        if state.waiters > 0 {
            state.stage = Stage::Begun;
        }
        state.waiters > 0
    }

    /// Gives those who wait an answer; they are to be woken.
    fn answer(&self, answer: Answer, woken: &mut Vec<Waker>) {
        let mut state = self.state.lock();
        state.answer = Some(Arc::new(answer));
        woken.append(&mut state.wakers);
    }

    /// Is idle again. Those who wait are to be woken, as they start it when they are polled.
    fn set_idle(&self, woken: &mut Vec<Waker>) {
        let mut state = self.state.lock();
        state.stage = Stage::Idle;
        woken.append(&mut state.wakers);
    }
}

impl Job for Loads {
    fn run(mut self, woken: &mut Vec<Waker>) -> Vec<Self> {
        let mut begun = monotonic();
        loop {
            let Some(flight) = self.flights.lock().pop_front() else { return Vec::new() };
            if self.bytes_left == 0 {
                flight.set_idle(woken);
                continue;
            }
            if !flight.begin() {
                continue;
            }
            // The hook has told of a panic.
            let loaded = catch_unwind(AssertUnwindSafe(|| flight.source.load(&flight.target)));
            let answer = loaded.unwrap_or(Answer::Failed(Refusal::Unreadable));
            self.bytes_left = self.bytes_left.saturating_sub(answer.bytes());
            flight.answer(answer, woken);
            let now = monotonic();
            if now.duration_since(begun) >= SLOW {
                return split(&self.flights, self.bytes_left);
            }
            begun = now;
        }
    }
}

/// One for each flight; the room for bytes is divided among them.
fn split(flights: &Mutex<VecDeque<Arc<Flight>>>, bytes_left: usize) -> Vec<Loads> {
    let flights = std::mem::take(&mut *flights.lock());
    let bytes_left = bytes_left / flights.len().max(1);
    let alone = |flight| Loads { flights: Arc::new(Mutex::new([flight].into())), bytes_left };
    flights.into_iter().map(alone).collect()
}

impl Waiter {
    pub(super) fn is_idle(&self) -> bool {
        self.flight.state.lock().stage == Stage::Idle
    }

    /// Starts it if it is idle. Must be called in a runtime.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Arc<Answer>> {
        let polled = self.flight.poll(cx);
        if polled.is_pending() {
            Flights::start([self].into_iter(), usize::MAX);
        }
        polled
    }

    /// Leaves it; `None`: it has not begun, or others go on with it.
    pub(super) fn leave(mut self) -> Option<AbandonedLoad> {
        let is_last = self.flights.take().is_some_and(|flights| flights.leave(&self.flight));
        let state = self.flight.state.lock();
        let is_under_way = state.stage == Stage::Begun && state.answer.is_none();
        (is_last && is_under_way).then(|| AbandonedLoad(Arc::downgrade(&self.flight)))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(flights) = self.flights.take() {
            flights.leave(&self.flight);
        }
    }
}

impl AbandonedLoad {
    /// Ready when the load is over.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        match self.0.upgrade() {
            Some(flight) => flight.poll(cx).map(drop),
            None => Poll::Ready(()),
        }
    }
}
