//! One load per key: operations that ask for a key that is being loaded wait for the same load.
//!
//! An operation joins a flight only if what the flight finds is as good as what it would find itself: it is for the
//! same key, and saw it changed as often as the flight's first operation did. A flight stays in the table until the
//! last waiting operation has left, also when it is over, so that one that comes then takes what was found. It outlives
//! the operation that began it; one that all have left before a thread took it is not done at all.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::pool::{BlockingPool, Job};
use super::{Answer, LoadTarget, Source};
use crate::engine::Refusal;

/// Flights by the place of their key. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Flights {
    by_hash: Arc<Mutex<HashMap<u64, Arc<Flight>>>>,
    pool: BlockingPool<Flight>,
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
    has_begun: bool,
    answer: Option<Arc<Answer>>,
    /// Of those that wait.
    wakers: Vec<Waker>,
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
    /// Joins the flight of a key, or begins one.
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
        drop(by_hash);
        self.pool.push(Arc::clone(&flight));
        Waiter { flight, flights: Some(self.clone()) }
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
}

impl Job for Flight {
    fn run(&self) -> Vec<Waker> {
        {
            let mut state = self.state.lock();
            if state.waiters == 0 {
                return Vec::new();
            }
            state.has_begun = true;
        }
        let answer = Arc::new(self.source.load(&self.target));
        let mut state = self.state.lock();
        state.answer = Some(answer);
        std::mem::take(&mut state.wakers)
    }

    fn has_panicked(&self) -> Vec<Waker> {
        let mut state = self.state.lock();
        state.answer = Some(Arc::new(Answer::Failed(Refusal::Unreadable)));
        std::mem::take(&mut state.wakers)
    }
}

impl Waiter {
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Arc<Answer>> {
        self.flight.poll(cx)
    }

    /// Leaves it; `None`: it has not begun, or others go on with it.
    pub(super) fn leave(mut self) -> Option<AbandonedLoad> {
        let is_last = self.flights.take().is_some_and(|flights| flights.leave(&self.flight));
        let state = self.flight.state.lock();
        let is_under_way = state.has_begun && state.answer.is_none();
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
