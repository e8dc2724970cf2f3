//! Long requests under way: their bytes are counted against a budget of the whole node before they are read.
//!
//! A request whose message is longer than [`UNCOUNTED_BYTES_MAX`], and is not whole in its first frame, is admitted when its
//! length is known, which that frame tells. It counts until it is done, or, where it is no longer than
//! [`SHORT_REQUEST_BYTES_MAX`], until it is whole. One that finds no room waits, and nothing more of it is read meanwhile, so that
//! HTTP/2's flow control stops its peer. Those that wait are admitted in the order in which they came.
//!
//! What came of a request before its peer was stopped lies in the connection's window until it is read. A window that is
//! full of such would stop also the requests that were admitted. So only some calls of a connection may wait, which leave
//! a part of the window to the others ([`WINDOWS_PER_CONNECTION`]), and only some of the node; one more is refused. The
//! Pipeline streams of the connection count there that wait for room in the journal's backlog.
//!
//! A request that was admitted and does not come whole in time ([`ARRIVES_WITHIN`]) is refused if others wait for what it
//! takes. So is a Pipeline message whose client leaves replies unread for as long.
//!
//! Shorter requests are not counted: they are done as they come, and what holds them up bounds them there.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::request::CallError;

/// Messages up to this length are not counted: of those that do not come whole, `InFlight` bounds the number.
pub(super) const UNCOUNTED_BYTES_MAX: usize = 8 << 10;
/// Messages up to this length are copied when they are whole, and are not counted any more.
pub(super) const SHORT_REQUEST_BYTES_MAX: usize = 64 << 10;
/// What one permit stands for.
const UNIT_BYTES: usize = 1 << 10;
/// A connection's window is as long as this many of its calls' windows.
pub const WINDOWS_PER_CONNECTION: u32 = 32;
/// Calls of a connection that may wait.
const WAITING_PER_CONNECTION: usize = WINDOWS_PER_CONNECTION as usize / 4 * 3;

/// How long an admitted request may take to come whole while others wait; a request of 4 MiB needs a link of 11 Mbit/s.
pub(super) const ARRIVES_WITHIN: Duration = Duration::from_secs(3);
/// How often it is looked whether others wait, after that.
const LOOKS: Duration = Duration::from_millis(250);

/// What long requests may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// All of them together.
    pub bytes_max: usize,
    /// One of them alone, where that is more.
    pub message_bytes_max: usize,
    /// How many may wait for room.
    pub waiting_max: usize,
}

/// The long requests of a node. Clones are the same.
#[derive(Debug, Clone)]
pub struct LongRequests(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    room: Arc<Semaphore>,
    /// Permits that there are in all.
    units: Mutex<usize>,
    waiting: AtomicUsize,
    waiting_max: AtomicUsize,
}

/// How many calls of one connection wait while flow control stops their peer.
#[derive(Debug, Clone, Default)]
pub(super) struct StoppedCalls(Arc<AtomicUsize>);

/// A call that does, counted until it is dropped.
#[derive(Debug)]
pub(super) struct StoppedCall(StoppedCalls);

/// A request that waits, counted until it is dropped.
struct WaitingRequest {
    requests: LongRequests,
    _stopped: StoppedCall,
}

/// A long request's place in the budget: waited for, then held until it is dropped.
pub(super) struct RequestPermit {
    state: PermitState,
    requests: LongRequests,
    /// Ends when it should have come whole and others wait.
    wanted: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

enum PermitState {
    Waits(Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>),
    Admitted(#[expect(dead_code, reason = "held for what its drop does")] OwnedSemaphorePermit),
}

impl LongRequests {
    /// None is under way.
    #[must_use]
    pub fn new(limits: RequestLimits) -> Self {
        let units = limits.units();
        Self(Arc::new(Budget {
            room: Arc::new(Semaphore::new(units)),
            units: units.into(),
            waiting: AtomicUsize::new(0),
            waiting_max: limits.waiting_max.into(),
        }))
    }

    /// Sets the limits from now on. What is in use at this moment stays part of the budget.
    pub fn set_limits(&self, limits: RequestLimits) {
        let wanted = limits.units();
        let Budget { room, units, waiting_max, .. } = &*self.0;
        waiting_max.store(limits.waiting_max, Ordering::Relaxed);
        let mut units = units.lock();
        if wanted > *units {
            room.add_permits(wanted - *units);
            *units = wanted;
        } else {
            *units -= room.forget_permits(*units - wanted);
        }
    }

    /// What those have that are under way.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let units = self.0.units.lock();
        (units.saturating_sub(self.0.room.available_permits()) * UNIT_BYTES) as u64
    }

    /// Admits a request of `bytes` bytes, at once or when there is room for it; `stopped` counts the calls of its
    /// connection that wait.
    ///
    /// # Errors
    /// There is no room, and no more may wait.
    pub(super) fn admit(&self, bytes: usize, stopped: &StoppedCalls) -> Result<RequestPermit, CallError> {
        let in_all = *self.0.units.lock();
        let permits = u32::try_from(units(bytes).min(in_all)).unwrap_or(u32::MAX);
        // Fails also while others wait.
        if let Ok(permit) = Arc::clone(&self.0.room).try_acquire_many_owned(permits) {
            return Ok(self.permit(PermitState::Admitted(permit)));
        }
        let waiting = self.wait(stopped).ok_or(CallError::RequestsFull { max: in_all * UNIT_BYTES })?;
        let room = Arc::clone(&self.0.room);
        Ok(self.permit(PermitState::Waits(Box::pin(async move {
            let permit = room.acquire_many_owned(permits).await.expect("nobody closes it");
            drop(waiting);
            permit
        }))))
    }

    fn permit(&self, state: PermitState) -> RequestPermit {
        RequestPermit { state, requests: self.clone(), wanted: None }
    }

    /// Waits until a request that was admitted when this began has had its time, and others wait for what it takes.
    pub(super) async fn wanted(self) {
        sleep(ARRIVES_WITHIN).await;
        while self.0.waiting.load(Ordering::Relaxed) == 0 {
            sleep(LOOKS).await;
        }
    }

    /// Counts one more call that waits, if it may.
    fn wait(&self, stopped: &StoppedCalls) -> Option<WaitingRequest> {
        let budget = &self.0;
        let stopped = stopped.enter()?;
        let of_node = budget.waiting.fetch_add(1, Ordering::Relaxed) + 1;
        let waiting = WaitingRequest { requests: self.clone(), _stopped: stopped };
        (of_node <= budget.waiting_max.load(Ordering::Relaxed)).then_some(waiting)
    }
}

impl RequestLimits {
    fn units(self) -> usize {
        units(self.bytes_max.max(self.message_bytes_max))
    }
}

impl Default for RequestLimits {
    /// 64 MiB together, 256 that wait.
    fn default() -> Self {
        Self { bytes_max: 64 << 20, message_bytes_max: 0, waiting_max: 256 }
    }
}

impl Drop for WaitingRequest {
    fn drop(&mut self) {
        self.requests.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl StoppedCalls {
    /// Counts one more call, if the connection's window has room for what comes of one more.
    pub(super) fn enter(&self) -> Option<StoppedCall> {
        let call = StoppedCall(self.clone());
        (self.0.fetch_add(1, Ordering::Relaxed) < WAITING_PER_CONNECTION).then_some(call)
    }
}

impl Drop for StoppedCall {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl RequestPermit {
    /// Waits until the request may be read.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let PermitState::Waits(admitted) = &mut self.state {
            self.state = PermitState::Admitted(ready!(admitted.as_mut().poll(cx)));
        }
        Poll::Ready(())
    }

    /// Begins its time anew, as the node reads nothing for a while.
    pub(super) fn pause(&mut self) {
        self.wanted = None;
    }

    /// Waits until it should have come whole and others wait; asked when it was admitted and there is nothing to read.
    pub(super) fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<CallError> {
        let wanted = self.wanted.get_or_insert_with(|| Box::pin(self.requests.clone().wanted()));
        ready!(wanted.as_mut().poll(cx));
        Poll::Ready(CallError::RequestSlow { seconds: ARRIVES_WITHIN.as_secs() })
    }
}

impl std::fmt::Debug for RequestPermit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self.state, PermitState::Waits(_)) { "Waits" } else { "Admitted" })
    }
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT_BYTES).clamp(1, u32::MAX as usize)
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    const MIB: usize = 1 << 20;

    fn requests(bytes_max: usize, message_bytes_max: usize, waiting_max: usize) -> LongRequests {
        LongRequests::new(RequestLimits { bytes_max, message_bytes_max, waiting_max })
    }

    fn is_admitted(permit: &mut RequestPermit) -> bool {
        permit.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn long_requests_are_admitted_in_their_order_while_there_is_room() {
        let requests = requests(4 * MIB, MIB, 9);
        let admit = |mib: usize| requests.admit(mib * MIB, &StoppedCalls::default()).unwrap();
        let (mut first, mut second) = (admit(3), admit(2));
        assert!(is_admitted(&mut first) && !is_admitted(&mut second));
        let mut third = admit(1);
        assert!(!is_admitted(&mut third), "there would be room, and another was before it");
        assert_eq!(requests.bytes(), 4 * MIB as u64);
        drop((first, third));
        assert!(is_admitted(&mut second));
        assert_eq!(requests.bytes(), 2 * MIB as u64);
        drop(second);
        assert_eq!((requests.bytes(), requests.0.waiting.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn the_longest_request_is_admitted_alone_also_when_the_budget_has_become_less() {
        let (requests, stopped) = (requests(MIB, 3 * MIB, 9), StoppedCalls::default());
        let admit = |mib: usize| requests.admit(mib * MIB, &stopped).unwrap();
        let (mut long, mut next) = (admit(9), admit(1));
        assert!(is_admitted(&mut long) && !is_admitted(&mut next));
        drop(long);
        assert!(is_admitted(&mut next));
        let limits = RequestLimits { bytes_max: MIB, message_bytes_max: 2 * MIB, waiting_max: 9 };
        requests.set_limits(limits);
        assert_eq!(requests.bytes(), MIB as u64);
        let mut again = admit(9);
        assert!(!is_admitted(&mut again));
        drop(next);
        assert!(is_admitted(&mut again));
        requests.set_limits(RequestLimits { bytes_max: 5 * MIB, ..limits });
        assert!(is_admitted(&mut admit(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_comes_slowly_gives_way_to_one_that_waits() {
        let (requests, stopped) = (requests(MIB, 0, 9), StoppedCalls::default());
        let mut slow = requests.admit(MIB, &stopped).unwrap();
        let refused = std::future::poll_fn(|cx| slow.poll_slow(cx));
        let alone = tokio::time::timeout(10 * ARRIVES_WITHIN, refused).await;
        assert!(alone.is_err(), "it is in nobody's way");
        let mut waits = requests.admit(MIB, &stopped).unwrap();
        assert!(!is_admitted(&mut waits));
        let refused = std::future::poll_fn(|cx| slow.poll_slow(cx)).await;
        assert_eq!(refused, CallError::RequestSlow { seconds: 3 });
        drop(slow);
        assert!(is_admitted(&mut waits));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_begins_anew_when_the_node_itself_did_not_read() {
        let (requests, stopped) = (requests(MIB, 0, 9), StoppedCalls::default());
        let mut slow = requests.admit(MIB, &stopped).unwrap();
        let mut waits = requests.admit(MIB, &stopped).unwrap();
        assert!(!is_admitted(&mut waits));
        let begun = tokio::time::Instant::now();
        for _ in 0..2 {
            let within = ARRIVES_WITHIN - Duration::from_millis(1);
            let early = tokio::time::timeout(within, std::future::poll_fn(|cx| slow.poll_slow(cx))).await;
            assert!(early.is_err());
            slow.pause();
        }
        std::future::poll_fn(|cx| slow.poll_slow(cx)).await;
        assert!(begun.elapsed() > 2 * ARRIVES_WITHIN);
    }

    #[test]
    fn only_some_calls_of_a_connection_and_of_the_node_wait() {
        let (requests, stopped) = (requests(MIB, 0, WAITING_PER_CONNECTION + 2), StoppedCalls::default());
        let mut admitted = requests.admit(MIB, &stopped).unwrap();
        assert!(is_admitted(&mut admitted));
        let mut waiting: Vec<_> =
            (0..WAITING_PER_CONNECTION).map(|_| requests.admit(MIB, &stopped).unwrap()).collect();
        let refused = requests.admit(MIB, &stopped).unwrap_err();
        assert_eq!(refused, CallError::RequestsFull { max: MIB });
        assert!(stopped.enter().is_none(), "streams that wait for the journal count there too");
        let others = [(); 2].map(|()| requests.admit(MIB, &StoppedCalls::default()).unwrap());
        assert!(requests.admit(MIB, &StoppedCalls::default()).is_err());
        drop((admitted, others));
        assert!(is_admitted(&mut waiting[0]));
        drop(waiting.pop());
        assert!(!is_admitted(&mut requests.admit(MIB, &stopped).unwrap()), "one of them waits no more");
    }
}
