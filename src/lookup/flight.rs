//! One load per key: those who ask for a key that is being loaded wait for the same load.
//!
//! A flight is joined only by operations to which what it finds is as good as what they would find themselves: those of
//! the same key that saw it changed as often as the flight's first did. It stays in the table until the last that waits
//! has left, also when it is over, so that one who comes then takes what was found. It outlives who began it; one that
//! everybody has left before a thread took it is not done at all.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::pool::{BlockingPool, Job};
use super::{Answer, Source, Wanted};
use crate::engine::Refusal;

/// Flights by the place of their key. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Flights {
    by_place: Arc<Mutex<HashMap<u64, Arc<Flight>>>>,
    pool: BlockingPool<Flight>,
}

/// The load of a key.
#[derive(Debug)]
pub(super) struct Flight {
    wanted: Wanted,
    /// How often the key was changed when this began.
    changes: u64,
    source: Arc<dyn Source>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    passengers: usize,
    has_begun: bool,
    answer: Option<Arc<Answer>>,
    /// Of those that wait.
    wakers: Vec<Waker>,
}

/// One that waits for a flight, until it is dropped.
#[derive(Debug)]
pub(super) struct Passenger {
    flight: Arc<Flight>,
    flights: Option<Flights>,
}

/// A load that was given up when it had begun.
#[derive(Debug)]
pub struct Leaving(Weak<Flight>);

impl Flights {
    /// Joins the flight of a key, or begins one.
    pub(super) fn board(&self, wanted: Wanted, changes: u64, source: &Arc<dyn Source>) -> Passenger {
        let mut by_place = self.by_place.lock();
        let known = by_place.get(&wanted.place);
        if let Some(flight) = known.filter(|flight| flight.is_of(&wanted, changes)) {
            flight.state.lock().passengers += 1;
            return Passenger { flight: Arc::clone(flight), flights: Some(self.clone()) };
        }
        // Of another key with the same hash, or as the key was before.
        let has_place = known.is_none();
        let state = State { passengers: 1, ..State::default() };
        let source = Arc::clone(source);
        let flight = Arc::new(Flight { wanted, changes, source, state: state.into() });
        if has_place {
            by_place.insert(flight.wanted.place, Arc::clone(&flight));
        }
        drop(by_place);
        self.pool.push(Arc::clone(&flight));
        Passenger { flight, flights: Some(self.clone()) }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_place.lock().len()
    }

    /// One leaves; whether it was the last that waited.
    fn leave(&self, flight: &Arc<Flight>) -> bool {
        let mut by_place = self.by_place.lock();
        let mut state = flight.state.lock();
        state.passengers -= 1;
        let is_last = state.passengers == 0;
        if is_last && by_place.get(&flight.wanted.place).is_some_and(|known| Arc::ptr_eq(known, flight)) {
            by_place.remove(&flight.wanted.place);
        }
        is_last
    }
}

impl Flight {
    fn is_of(&self, wanted: &Wanted, changes: u64) -> bool {
        let of_it = &self.wanted;
        (of_it.namespace, &of_it.key, of_it.shard, self.changes)
            == (wanted.namespace, &wanted.key, wanted.shard, changes)
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
            if state.passengers == 0 {
                return Vec::new();
            }
            state.has_begun = true;
        }
        let answer = Arc::new(self.source.load(&self.wanted));
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

impl Passenger {
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Arc<Answer>> {
        self.flight.poll(cx)
    }

    /// Leaves it; `None`: it has not begun, or others go on with it.
    pub(super) fn leave(mut self) -> Option<Leaving> {
        let is_last = self.flights.take().is_some_and(|flights| flights.leave(&self.flight));
        let state = self.flight.state.lock();
        let is_under_way = state.has_begun && state.answer.is_none();
        (is_last && is_under_way).then(|| Leaving(Arc::downgrade(&self.flight)))
    }
}

impl Drop for Passenger {
    fn drop(&mut self) {
        if let Some(flights) = self.flights.take() {
            flights.leave(&self.flight);
        }
    }
}

impl Leaving {
    /// Ready when the load is over.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        match self.0.upgrade() {
            Some(flight) => flight.poll(cx).map(drop),
            None => Poll::Ready(()),
        }
    }
}
