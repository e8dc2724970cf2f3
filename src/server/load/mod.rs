//! Which connections are read while a node is asked for more than it can do.
//!
//! Answered in the order in which they come, all calls of such a node are answered too late, and to refuse one goes a good
//! part of the way of an answer. What costs nothing is not to read. So when calls are answered after their deadlines, and
//! workers always have something to do, some connections are parked: what their clients send stays in their sockets, until
//! these are full or the clients have as many calls open as they may. The others are answered in time. How many are read goes
//! down by a part of the calls that are late (as in DCTCP: Alizadeh and others, SIGCOMM 2010), and up when workers have
//! nothing to do. After its tenure a connection makes room for one that was parked ([`places`]). Who uses less of the node than
//! an even share has no part in it and is read always ([`usage`]).

mod places;
mod usage;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::sleep;

use super::idle;
use crate::clock::monotonic;
use crate::endpoint::PeerInfo;
use places::{Place, Places};
use usage::Usage;

/// How often it is decided how many are read.
const INTERVAL: Duration = Duration::from_millis(200);
/// How often it is seen whether one more can be read.
const TICK: Duration = Duration::from_millis(20);
/// Of the calls of an interval, the part that may be late.
const LATE_MAX: f64 = 0.03;
/// Calls of an interval by which nothing is decided.
const CALLS_MIN: u64 = 50;
/// A node whose workers have nothing to do for this part of the time can do more.
const IDLE_MIN: f64 = 0.1;
/// And much more.
const IDLE_MUCH: f64 = 0.3;
/// Intervals in which nothing was late, nothing was parked and there was time left, until nothing is decided any more.
const QUIET_INTERVALS: u32 = 5;

/// The load of a node. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Load(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Some connections are parked, or may be.
    is_limited: AtomicBool,
    /// What decides is at work.
    is_watched: AtomicBool,
    calls: AtomicU64,
    late: AtomicU64,
    usage: Arc<Usage>,
    /// How long it took of late from when something was to be done until it was begun, in microseconds.
    delay_us: AtomicU64,
    places: Mutex<Places>,
}

/// A connection's part of the load, until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionLoad {
    load: Load,
    place: Arc<Place>,
}

impl Load {
    /// The part of a connection of a peer.
    pub(crate) fn connection(&self, peer: &PeerInfo) -> ConnectionLoad {
        let place = Place::new(self.0.usage.connection(peer));
        ConnectionLoad { load: self.clone(), place: Arc::new(place) }
    }

    /// Has at most `connections` read, until the watcher decides otherwise.
    #[cfg(test)]
    pub(crate) fn limit(&self, connections: usize) {
        self.0.is_limited.store(true, Relaxed);
        let mut places = self.0.places.lock();
        places.limit = connections;
        places.turn_over(monotonic());
    }

    /// Decides until nothing was late and nothing is parked for a while.
    async fn watch(self) {
        let workers = tokio::runtime::Handle::current().metrics().num_workers() as f64;
        let (mut interval, mut tick, mut delays) = (Measure::begin(), Measure::begin(), [Duration::ZERO; 2]);
        let (mut quiet, mut more, mut was_limited) = (0, 0, false);
        self.0.delay_us.store(0, Relaxed);
        while quiet < QUIET_INTERVALS {
            sleep(TICK).await;
            let shared = &*self.0;
            let (ticked, idle) = tick.end(workers);
            delays[0] = delays[0].max(ticked.saturating_sub(TICK));
            let delay = delays[0].max(delays[1]).as_micros();
            shared.delay_us.store(u64::try_from(delay).unwrap_or(u64::MAX), Relaxed);
            let mut places = shared.places.lock();
            let is_limited = shared.is_limited.load(Relaxed);
            let now = monotonic();
            if now.saturating_duration_since(interval.begun) < INTERVAL {
                if is_limited && places.parked() > 0 {
                    let added = more_at_once(places.limit - more, more, idle);
                    more += added;
                    places.limit += added;
                }
                places.turn_over(now);
                continue;
            }
            let idle = interval.end(workers).1;
            let seen = Seen {
                limit: is_limited.then_some(places.limit),
                active: shared.usage.end_interval(idle),
                // In the first such interval, some may not have asked for a place yet.
                reading: if was_limited { places.reading() } else { places.limit },
                parked: places.parked(),
                calls: shared.calls.swap(0, Relaxed),
                late: shared.late.swap(0, Relaxed),
                idle,
            };
            (delays, more, was_limited) = ([Duration::ZERO, delays[0]], 0, is_limited);
            let limit = seen.next_limit();
            tracing::trace!(?seen, ?limit, "load");
            let is_quiet = seen.late == 0 && seen.parked == 0 && seen.has_time();
            quiet = if is_quiet { quiet + 1 } else { 0 };
            let limit = limit.filter(|_| quiet < QUIET_INTERVALS);
            shared.is_limited.store(limit.is_some(), Relaxed);
            places.limit = limit.unwrap_or(usize::MAX);
            places.turn_over(now);
        }
        self.0.is_watched.store(false, Relaxed);
    }
}

/// Time, and how much of it workers had nothing to do.
struct Measure {
    begun: Instant,
    idle: Duration,
}

impl Measure {
    fn begin() -> Self {
        Self { begun: monotonic(), idle: idle::total() }
    }

    /// How long it was, and the part of it that a number of workers were idle; begins again.
    fn end(&mut self, workers: f64) -> (Duration, f64) {
        let before = std::mem::replace(self, Self::begin());
        let took = self.begun.saturating_duration_since(before.begun);
        (took, (self.idle - before.idle).div_duration_f64(took.max(Duration::from_nanos(1))) / workers)
    }
}

/// What was seen in an interval.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Connections that might be read; `None`: all.
    limit: Option<usize>,
    /// Those that had calls.
    active: usize,
    /// Those that were read of late, while it was limited.
    reading: usize,
    parked: usize,
    calls: u64,
    late: u64,
    /// The part of the time that workers had nothing to do.
    idle: f64,
}

impl Seen {
    fn has_time(&self) -> bool {
        self.idle >= IDLE_MIN
    }

    /// How many connections are to be read; `None`: all.
    fn next_limit(&self) -> Option<usize> {
        let late = self.late as f64 / self.calls.max(1) as f64;
        let is_late = late > LATE_MAX && self.calls >= CALLS_MIN;
        let Some(limit) = self.limit else {
            return (is_late && !self.has_time() && self.active > 1).then(|| less(self.active, late / 2.0));
        };
        Some(if is_late { less(limit.min(self.reading), late.min(0.5) / 3.0) } else { limit })
    }
}

/// How many connections more are read at once, as workers had nothing to do for the part `idle` of a tick: `before` were when
/// the interval began, `more` were added since.
fn more_at_once(before: usize, more: usize, idle: f64) -> usize {
    if idle < IDLE_MIN {
        return 0;
    }
    let (step, most) = if idle < IDLE_MUCH { (1, before / 4) } else { (before / 4, before) };
    step.max(1).min(most.max(1).saturating_sub(more))
}

/// Less by a part.
fn less(connections: usize, part: f64) -> usize {
    ((connections as f64 * (1.0 - part)) as usize).clamp(1, (connections - 1).max(1))
}

impl ConnectionLoad {
    /// Whether the connection may be read now; if not, it is woken when it may.
    #[inline]
    pub(crate) fn may_read(&self, now: Instant, waker: &Waker) -> bool {
        !self.load.0.is_limited.load(Relaxed) || self.place.may_read(now) || self.may_read_limited(now, waker)
    }

    /// Whether those that use less than their share are to be read before this connection is.
    #[inline]
    pub(crate) fn gives_way(&self) -> bool {
        self.load.0.is_limited.load(Relaxed) && !self.place.usage.is_light()
    }

    #[cold]
    fn may_read_limited(&self, now: Instant, waker: &Waker) -> bool {
        if !self.place.is_parked() && self.place.usage.is_light() {
            return true;
        }
        let shared = &*self.load.0;
        let mut places = shared.places.lock();
        !shared.is_limited.load(Relaxed) || !places.park(&self.place, now, waker)
    }

    /// Whether it matters what a connection uses.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.load.0.is_watched.load(Relaxed)
    }

    /// The connection used this much of a processor's time, in nanoseconds.
    pub(crate) fn used(&self, nanos: u64) {
        self.place.usage.add(nanos);
    }

    /// How long it takes at the most until what came is read, if that is known.
    pub(crate) fn delay(&self) -> Option<Duration> {
        let shared = &*self.load.0;
        // A connection that asks now and then may have been quiet for most of the time since its turn before.
        let delay = || Duration::from_micros(shared.delay_us.load(Relaxed)) * 5 / 4;
        self.is_watched().then(delay)
    }

    /// These calls were answered, or refused although the connection is read; some of them late.
    pub(crate) fn count(&self, calls: u64, late: u64) {
        self.load.0.calls.fetch_add(calls, Relaxed);
        self.load.0.late.fetch_add(late, Relaxed);
    }

    /// A turn is over in which `calls` were answered: the oldest can have come `age` ago, and `timeout` is how long
    /// their callers wait. Must be called in a runtime.
    pub(crate) fn answered(&self, calls: u64, age: Duration, timeout: Duration) {
        let shared = &*self.load.0;
        if !self.is_watched() {
            if age > timeout && !shared.is_watched.swap(true, Relaxed) {
                tokio::spawn(self.load.clone().watch());
            }
            return;
        }
        self.count(calls, if age > timeout { calls } else { 0 });
    }
}

impl Drop for ConnectionLoad {
    fn drop(&mut self) {
        if self.place.is_taken() {
            self.load.0.places.lock().remove(&self.place, monotonic());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> PeerInfo {
        std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into()
    }

    fn seen(limit: Option<usize>, late: u64, idle: f64) -> Seen {
        Seen { limit, active: 32, reading: limit.unwrap_or(0), parked: 0, calls: 1_000, late, idle }
    }

    #[test]
    fn fewer_connections_are_read_while_calls_are_late_and_workers_are_busy() {
        assert_eq!(seen(None, 1_000, 0.0).next_limit(), Some(16));
        assert_eq!(seen(None, 1_000, 0.5).next_limit(), None, "a pause is not a load");
        assert_eq!(seen(None, 30, 0.0).next_limit(), None);
        assert_eq!(seen(Some(16), 1_000, 0.0).next_limit(), Some(13));
        assert_eq!(seen(Some(16), 40, 0.0).next_limit(), Some(15));
        assert_eq!(seen(Some(16), 30, 0.0).next_limit(), Some(16));
        assert_eq!(seen(Some(1), 1_000, 0.0).next_limit(), Some(1));
        let alone = Seen { active: 1, ..seen(None, 1_000, 0.0) };
        assert_eq!(alone.next_limit(), None, "there is nobody to make room for");
    }

    #[test]
    fn more_connections_are_read_the_more_time_is_left() {
        assert_eq!([0.05, 0.2, 0.5].map(|idle| more_at_once(16, 0, idle)), [0, 1, 4]);
        assert_eq!([3, 4].map(|more| more_at_once(16, more, 0.2)), [1, 0]);
        assert_eq!([13, 16].map(|more| more_at_once(16, more, 0.5)), [3, 0]);
        assert_eq!([(0, 0.2), (1, 0.2), (0, 0.9)].map(|(more, idle)| more_at_once(1, more, idle)), [1, 0, 1]);
    }

    #[test]
    fn connections_are_read_in_turns_in_the_order_in_which_they_were_parked() {
        let (load, now) = (Load::default(), monotonic());
        let connections = [(); 3].map(|()| load.connection(&peer()));
        let may_read = |at: usize, now| connections[at].may_read(now, Waker::noop());
        assert!((0..3).all(|at| may_read(at, now)), "all are read while nothing is limited");
        load.limit(1);
        assert_eq!([0, 1, 2].map(|at| may_read(at, now)), [true, false, false]);
        let turn_over = |now| load.0.places.lock().turn_over(now);
        let mut now = now;
        for (has_had, next) in [(0, 1), (1, 2), (2, 0), (0, 1)] {
            assert!(may_read(has_had, now));
            now += places::TENURE_MAX;
            turn_over(now);
            assert!(!may_read(has_had, now) && may_read(next, now), "{next} is next");
        }
        load.0.places.lock().limit = 2;
        turn_over(now);
        assert_eq!([0, 1, 2].map(|at| may_read(at, now)).iter().filter(|may| **may).count(), 2);
    }

    #[test]
    fn a_connection_that_uses_less_than_its_share_is_read_without_a_place_and_before_others() {
        let (load, now) = (Load::default(), monotonic());
        let [heavy, other, light] = [(); 3].map(|()| load.connection(&peer()));
        for (connection, used) in [(&heavy, 1_000), (&other, 1_000), (&light, 10)] {
            connection.used(used);
        }
        load.0.usage.end_interval(0.0);
        assert!(!heavy.gives_way(), "nothing is limited");
        load.limit(1);
        assert!(heavy.may_read(now, Waker::noop()) && heavy.gives_way());
        assert!(!other.may_read(now, Waker::noop()));
        assert!(light.may_read(now, Waker::noop()) && !light.gives_way());
        light.used(1_000);
        assert!(!light.may_read(now, Waker::noop()) && light.gives_way(), "it has had its share");
    }

    #[test]
    fn a_connection_that_ends_leaves_its_place() {
        let (load, now) = (Load::default(), monotonic());
        let [first, second, third] = [(); 3].map(|()| load.connection(&peer()));
        load.limit(1);
        assert!(first.may_read(now, Waker::noop()));
        assert!(!second.may_read(now, Waker::noop()) && !third.may_read(now, Waker::noop()));
        drop(second);
        drop(first);
        assert!(third.may_read(now, Waker::noop()));
        drop(third);
        let places = load.0.places.lock();
        assert_eq!((places.reading(), places.parked()), (0, 0));
    }
}
