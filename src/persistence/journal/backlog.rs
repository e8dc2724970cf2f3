//! Writes that wait until the journal's backlog has room, in the order in which they came.
//!
//! While what is logged and not written uses up the [`LogBudget`], the engine refuses writes. A caller that is refused
//! enters this queue and holds a [`QueuePlace`] until its turn is granted. Turns are granted from the front, as many as the
//! budget has room for, whenever the journal's thread has written something and whenever a place whose turn was granted is
//! dropped. A granted turn is no promise: a write that did not queue may have taken the room, and the caller goes back to
//! its place by [`QueuePlace::again`].
//!
//! How many may wait and how many bytes they may hold is bounded; one more is not let in. When the journal has stopped,
//! every turn is granted, so that each caller learns why from the engine.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::engine::LogBudget;

/// Turns that may be waited for at once.
const WAITING_MAX: usize = 8_192;

/// Writes that wait for room in the backlog.
#[derive(Debug)]
pub struct BacklogQueue {
    budget: Arc<LogBudget>,
    held_bytes_max: AtomicUsize,
    queue: Mutex<Queue>,
    /// How many turns are not granted, for those that look in passing.
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct Queue {
    /// By their numbers.
    waiting: BTreeMap<u64, WaitingWrite>,
    granted: HashSet<u64>,
    /// What those that are granted are about to log.
    granted_bytes: usize,
    /// What all of them hold in memory.
    held_bytes: usize,
    /// The last number that was given out.
    number: u64,
    is_closed: bool,
}

/// A turn that is not granted.
#[derive(Debug)]
struct WaitingWrite {
    bytes: usize,
    waker: Option<Waker>,
}

/// A place in the queue, until it is dropped.
#[derive(Debug)]
pub struct QueuePlace {
    queue: Arc<BacklogQueue>,
    number: u64,
    bytes: usize,
    held_bytes: usize,
}

impl BacklogQueue {
    /// A queue in which nobody waits; the requests in it may hold `held_bytes_max` bytes.
    #[must_use]
    pub fn new(budget: Arc<LogBudget>, held_bytes_max: usize) -> Self {
        let (queue, waiting) = (Mutex::default(), AtomicUsize::new(0));
        Self { budget, held_bytes_max: held_bytes_max.into(), queue, waiting }
    }

    /// What is logged and not written.
    #[must_use]
    pub fn budget(&self) -> &Arc<LogBudget> {
        &self.budget
    }

    pub(super) fn set_held_bytes_max(&self, bytes: usize) {
        self.held_bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// Whether somebody waits, so that a write that comes now has to wait too.
    #[must_use]
    #[inline]
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Takes a place at the end of the queue for a write of about `bytes`, which holds `held_bytes` of memory that
    /// nobody else counts; `None`: too many wait already, or hold too much.
    #[must_use]
    pub fn enter(self: &Arc<Self>, bytes: usize, held_bytes: usize) -> Option<QueuePlace> {
        let mut queue = self.queue.lock();
        let held = queue.held_bytes + held_bytes;
        let is_full = queue.held_bytes > 0 && held > self.held_bytes_max.load(Ordering::Relaxed);
        if is_full || queue.waiting.len() >= WAITING_MAX {
            return None;
        }
        queue.held_bytes = held;
        queue.number += 1;
        let number = queue.number;
        queue.waiting.insert(number, WaitingWrite { bytes, waker: None });
        self.grant_in(&mut queue);
        drop(queue);
        Some(QueuePlace { queue: Arc::clone(self), number, bytes, held_bytes })
    }

    /// Grants the turns that there is room for.
    pub(super) fn grant(&self) {
        self.grant_in(&mut self.queue.lock());
    }

    /// Grants every turn, now and from now on.
    pub(super) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.is_closed = true;
        self.grant_in(&mut queue);
    }

    fn grant_in(&self, queue: &mut Queue) {
        let room = self.budget.room();
        while let Some(first) = queue.waiting.first_entry() {
            let bytes = first.get().bytes;
            // The first is granted whatever it is about to log: more than there will ever be room for, maybe.
            let fits = match queue.granted_bytes {
                0 => room > 0,
                granted => granted.saturating_add(bytes) <= room,
            };
            if !fits && !queue.is_closed {
                break;
            }
            queue.granted_bytes += bytes;
            let (number, first) = first.remove_entry();
            queue.granted.insert(number);
            if let Some(waker) = first.waker {
                waker.wake();
            }
        }
        self.waiting.store(queue.waiting.len(), Ordering::Relaxed);
    }
}

impl QueuePlace {
    /// Waits until it is granted.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.queue.queue.lock();
        match queue.waiting.get_mut(&self.number) {
            None => Poll::Ready(()),
            Some(waiting) => {
                waiting.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Goes back to its place in the queue, as there was no room after all.
    pub fn again(&self) {
        let mut queue = self.queue.queue.lock();
        if queue.granted.remove(&self.number) {
            queue.granted_bytes -= self.bytes;
            queue.waiting.insert(self.number, WaitingWrite { bytes: self.bytes, waker: None });
        }
        self.queue.grant_in(&mut queue);
    }
}

impl Drop for QueuePlace {
    /// Whatever it was for is done or given up: those behind it go on.
    fn drop(&mut self) {
        let mut queue = self.queue.queue.lock();
        queue.held_bytes -= self.held_bytes;
        if queue.granted.remove(&self.number) {
            queue.granted_bytes -= self.bytes;
        } else {
            queue.waiting.remove(&self.number);
        }
        self.queue.grant_in(&mut queue);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    fn queue(bytes_max: usize, held_bytes_max: usize) -> Arc<BacklogQueue> {
        Arc::new(BacklogQueue::new(Arc::new(LogBudget::new(bytes_max)), held_bytes_max))
    }

    fn are_granted<const N: usize>(places: [&QueuePlace; N]) -> [bool; N] {
        places.map(|place| place.poll(&mut Context::from_waker(Waker::noop())).is_ready())
    }

    #[test]
    fn turns_are_granted_in_their_order_and_no_more_than_there_is_room_for() {
        let queue = queue(100, 1_000);
        queue.budget().take(100);
        let places = [60, 30, 20].map(|bytes| queue.enter(bytes, 0).unwrap());
        let [first, second, third] = &places;
        assert_eq!(are_granted([first, second, third]), [false; 3]);
        assert!(queue.is_waited_for());
        queue.budget().give_back(100);
        queue.grant();
        assert_eq!(are_granted([first, second, third]), [true, true, false], "110 bytes are too many");
        // Others took the room meanwhile.
        queue.budget().take(100);
        first.again();
        second.again();
        assert_eq!(are_granted([first, second, third]), [false; 3]);
        queue.budget().give_back(1);
        queue.grant();
        assert_eq!(are_granted([first, second, third]), [true, false, false], "the first one is as before");
        queue.budget().give_back(99);
        let [first, second, third] = places;
        drop(first);
        assert_eq!(are_granted([&second, &third]), [true, true], "who is done lets the next ones go on");
        assert!(!queue.is_waited_for());
    }

    #[test]
    fn a_turn_that_is_given_up_leaves_nothing_behind_and_lets_the_next_one_go_on() {
        let queue = queue(100, 1_000);
        queue.budget().take(100);
        let (given_up, granted, last) =
            (queue.enter(50, 10).unwrap(), queue.enter(80, 10).unwrap(), queue.enter(80, 10).unwrap());
        drop(given_up);
        queue.budget().give_back(100);
        queue.grant();
        assert_eq!(are_granted([&granted, &last]), [true, false]);
        drop(granted);
        assert_eq!(are_granted([&last]), [true]);
        drop(last);
        let left = queue.queue.lock();
        assert!(left.waiting.is_empty() && left.granted.is_empty());
        assert_eq!((left.granted_bytes, left.held_bytes), (0, 0));
    }

    #[test]
    fn who_goes_back_lets_go_on_who_is_behind_if_that_is_all_that_there_is_room_for() {
        let queue = queue(100, 1_000);
        queue.budget().take(50);
        let [first, second] = [40, 40].map(|bytes| queue.enter(bytes, 0).unwrap());
        assert_eq!(are_granted([&first, &second]), [true, false]);
        queue.budget().give_back(50);
        first.again();
        assert_eq!(are_granted([&first, &second]), [true, true]);
    }

    #[test]
    fn who_waits_is_woken_when_its_turn_comes_and_not_before() {
        struct Woken(AtomicUsize);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let queue = queue(100, 1_000);
        queue.budget().take(100);
        let places = [60, 60].map(|bytes| queue.enter(bytes, 0).unwrap());
        let woken = [(); 2].map(|()| Arc::new(Woken(AtomicUsize::new(0))));
        for (place, woken) in places.iter().zip(&woken) {
            let waker = Waker::from(Arc::clone(woken));
            assert!(place.poll(&mut Context::from_waker(&waker)).is_pending());
        }
        let counts = || woken.each_ref().map(|woken| woken.0.load(Ordering::Relaxed));
        queue.grant();
        assert_eq!(counts(), [0, 0]);
        queue.budget().give_back(100);
        queue.grant();
        assert_eq!(counts(), [1, 0]);
        let [first, _second] = places;
        drop(first);
        assert_eq!(counts(), [1, 1]);
    }

    #[test]
    fn how_many_wait_and_what_they_hold_is_bounded() {
        let queue = queue(10, 100);
        queue.budget().take(10);
        let large = queue.enter(1, 500).expect("one may hold more than all together");
        assert!(queue.enter(1, 1).is_none());
        drop(large);
        let _some = queue.enter(1, 90).unwrap();
        assert!(queue.enter(1, 11).is_none());
        let others: Vec<QueuePlace> = (1..WAITING_MAX).map(|_| queue.enter(1, 0).unwrap()).collect();
        assert!(queue.enter(1, 0).is_none());
        drop(others);
        assert!(queue.enter(1, 10).is_some());
    }

    #[test]
    fn a_journal_that_has_stopped_lets_everybody_go_on() {
        let queue = queue(10, 100);
        queue.budget().take(10);
        let waiting = [5, 500].map(|bytes| queue.enter(bytes, 0).unwrap());
        queue.close();
        let late = queue.enter(5, 0).unwrap();
        assert_eq!(are_granted([&waiting[0], &waiting[1], &late]), [true; 3]);
    }
}
