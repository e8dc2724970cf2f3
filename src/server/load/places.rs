//! Who is read while not all can be: connections take turns, peers evenly.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::usage::ConnectionUsage;
use crate::server::idle;

/// How long a connection is parked at the most, as far as the bounds on its tenure allow.
const PARKED_MAX: Duration = Duration::from_secs(2);
/// How long a connection is read while others are parked.
const TENURE_MIN: Duration = Duration::from_millis(100);
pub(super) const TENURE_MAX: Duration = Duration::from_secs(1);

/// The places of a node.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Connections that may be read at once, while it is limited.
    pub(super) limit: usize,
    reading: Vec<Arc<Place>>,
    parked: VecDeque<Arc<Place>>,
}

/// A connection's place.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) usage: ConnectionUsage,
    /// It waits among those that are parked.
    is_parked: AtomicBool,
    /// It is one of those that are read until then, in microseconds since the process began; 0: it is none.
    until_us: AtomicU64,
    waker: Mutex<Option<Waker>>,
}

impl Place {
    pub(super) fn new(usage: ConnectionUsage) -> Self {
        Self { usage, is_parked: false.into(), until_us: 0.into(), waker: Mutex::default() }
    }

    pub(super) fn is_parked(&self) -> bool {
        self.is_parked.load(Relaxed)
    }

    pub(super) fn may_read(&self, now: Instant) -> bool {
        self.until_us.load(Relaxed) > idle::micros(now)
    }

    /// Whether it is among those that are parked or read.
    pub(super) fn is_taken(&self) -> bool {
        self.is_parked() || self.until_us.load(Relaxed) > 0
    }

    fn begin(&self, until: u64) {
        self.usage.peer().reading.fetch_add(1, Relaxed);
        self.until_us.store(until, Relaxed);
        if self.is_parked.swap(false, Relaxed) {
            self.usage.peer().parked.fetch_sub(1, Relaxed);
        }
        if let Some(waker) = self.waker.lock().take() {
            waker.wake();
        }
    }

    fn end(&self) {
        self.usage.peer().reading.fetch_sub(1, Relaxed);
        self.until_us.store(0, Relaxed);
    }
}

impl Places {
    /// How many are read until others have their turn.
    pub(super) fn reading(&self) -> usize {
        self.reading.len()
    }

    pub(super) fn parked(&self) -> usize {
        self.parked.len()
    }

    /// How long each is read.
    fn tenure(&self) -> Duration {
        let of_parked = self.limit as f64 / self.parked.len().max(1) as f64;
        PARKED_MAX.mul_f64(of_parked.min(1.0)).clamp(TENURE_MIN, TENURE_MAX)
    }

    /// Those that had their tenure make room for those that are parked, as do those above the limit that began first.
    pub(super) fn turn_over(&mut self, now: Instant) {
        let (has_parked, mut above) =
            (!self.parked.is_empty(), self.reading.len().saturating_sub(self.limit));
        self.reading.retain(|place| {
            let is_over = (has_parked && !place.may_read(now)) || above > 0;
            if is_over {
                above = above.saturating_sub(1);
                place.end();
            }
            !is_over
        });
        self.admit(now);
    }

    /// Has connections read that are parked, as far as there is room.
    fn admit(&mut self, now: Instant) {
        let until = idle::micros(now + self.tenure());
        while self.reading.len() < self.limit
            && let Some(place) = self.take_parked()
        {
            place.begin(until);
            self.reading.push(place);
        }
    }

    /// Of the peers of which the fewest are read, the connection that used the least of late; the first such.
    fn take_parked(&mut self) -> Option<Arc<Place>> {
        let order = |place: &Place| (place.usage.peer().reading.load(Relaxed), place.usage.recent());
        let (at, _) = self.parked.iter().enumerate().min_by_key(|(_, place)| order(place))?;
        self.parked.remove(at)
    }

    /// Parks a connection until it has its turn, which may be at once; says whether it has to wait.
    pub(super) fn park(&mut self, place: &Arc<Place>, now: Instant, waker: &Waker) -> bool {
        if !place.is_parked() {
            self.leave(place);
            place.is_parked.store(true, Relaxed);
            place.usage.peer().parked.fetch_add(1, Relaxed);
            self.parked.push_back(Arc::clone(place));
            self.admit(now);
        }
        let is_parked = place.is_parked();
        if is_parked {
            *place.waker.lock() = Some(waker.clone());
        }
        is_parked
    }

    /// The connection is neither parked nor one that takes turns.
    pub(super) fn leave(&mut self, place: &Arc<Place>) {
        if place.until_us.load(Relaxed) > 0 {
            place.end();
            self.reading.retain(|one| !Arc::ptr_eq(one, place));
        }
        if place.is_parked.swap(false, Relaxed) {
            place.usage.peer().parked.fetch_sub(1, Relaxed);
            self.parked.retain(|one| !Arc::ptr_eq(one, place));
        }
    }

    /// The same, of a connection that is no more.
    pub(super) fn remove(&mut self, place: &Arc<Place>, now: Instant) {
        self.leave(place);
        self.admit(now);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::usage::Usage;
    use super::*;

    #[test]
    fn the_more_are_parked_the_shorter_is_a_turn() {
        let usage = Arc::<Usage>::default();
        let peer = SocketAddr::from(([10, 0, 0, 1], 1)).into();
        let tenure = |limit, parked| {
            let parked = (0..parked).map(|_| Arc::new(Place::new(usage.connection(&peer)))).collect();
            Places { limit, reading: Vec::new(), parked }.tenure()
        };
        assert_eq!(
            [tenure(16, 16), tenure(10, 40), tenure(10, 10_000)],
            [TENURE_MAX, TENURE_MAX / 2, TENURE_MIN]
        );
    }

    #[test]
    fn peers_are_read_evenly_however_many_connections_they_have() {
        let now = crate::clock::monotonic();
        let usage = Arc::<Usage>::default();
        let of = |host, number| {
            let peer = SocketAddr::from(([10, 0, 0, host], 1)).into();
            (0..number).map(|_| Arc::new(Place::new(usage.connection(&peer)))).collect::<Vec<_>>()
        };
        let (of_many, of_few) = (of(1, 10), of(2, 2));
        let [many, few] = [&of_many, &of_few].map(|places| Arc::clone(places[0].usage.peer()));
        let mut places = Places { limit: 4, ..Places::default() };
        let all = of_many.iter().chain(&of_few);
        let parked = all.filter(|place| places.park(place, now, Waker::noop())).count();
        assert_eq!(parked, 8, "there is room for four");
        places.turn_over(now + TENURE_MAX);
        assert_eq!([&many, &few].map(|peer| peer.reading.load(Relaxed)), [2, 2]);
        of_many.iter().chain(&of_few).for_each(|place| places.remove(place, now));
        assert_eq!((places.reading(), places.parked()), (0, 0));
        assert!([many, few].iter().all(|peer| peer.reading.load(Relaxed) + peer.parked.load(Relaxed) == 0));
    }
}
