//! Which lane a call takes: the one that gathers, unless a call of its key is under way on another.
//!
//! Calls gather on one lane as long as it has few under way, since a batch of many costs the client and the node hardly more
//! than a batch of one; then the next lane's turn comes, so that the more calls there are, the more connections carry
//! them.
//!
//! The order of calls of one key is kept by a table: a slot of it, by the key's hash, remembers the lane of the calls that
//! are under way there, and how many they are. Keys that share a slot share a lane meanwhile, which costs nothing but that.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// The lanes of a node, and the order among their calls.
#[derive(Debug)]
pub(in crate::client) struct Choice {
    /// The lane that gathers.
    current: AtomicUsize,
    /// Which lanes have a stream, a bit for each.
    open: AtomicU64,
    lanes: usize,
    /// A lane in the upper bits, how many calls are under way in the lower.
    order: Box<[AtomicU32]>,
}

/// The most lanes of a node.
pub(in crate::client) const LANES_MAX: usize = 64;
const ORDER_SLOTS: usize = 4_096;
const COUNT_BITS: u32 = 24;
const COUNT: u32 = (1 << COUNT_BITS) - 1;

impl Choice {
    pub(in crate::client) fn new(lanes: usize) -> Self {
        Self {
            current: AtomicUsize::new(0),
            open: AtomicU64::new(0),
            lanes,
            order: (0..ORDER_SLOTS).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// The lane of a call that begins; [`Self::done`] ends it. `than`: another than this one, which has no connection.
    pub(in crate::client) fn begin(&self, hash: u64, than: Option<usize>) -> usize {
        let slot = &self.order[slot_of(hash)];
        let mut found = slot.load(Ordering::Relaxed);
        loop {
            let lane = match (found & COUNT, than) {
                // What is under way on a lane without a connection fails.
                (_, Some(than)) => (than + 1) % self.lanes,
                (0, None) => self.current.load(Ordering::Relaxed),
                _ => (found >> COUNT_BITS) as usize,
            };
            let next = (lane as u32) << COUNT_BITS | ((found & COUNT) + 1);
            match slot.compare_exchange_weak(found, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return lane,
                Err(other) => found = other,
            }
        }
    }

    /// The lane that a call would not take now, which is to be asked elsewhere; the same, where there is but one.
    pub(in crate::client) fn begin_elsewhere(&self, hash: u64) -> usize {
        let here = self.order[slot_of(hash)].load(Ordering::Relaxed);
        let here = match here & COUNT {
            0 => self.current.load(Ordering::Relaxed),
            _ => (here >> COUNT_BITS) as usize,
        };
        let elsewhere = self.next_open(here);
        // A read beside one that is under way: it takes no place in the order of the key, and a slot of its own here.
        self.order[slot_of(hash)].fetch_add(1, Ordering::Relaxed);
        elsewhere
    }

    /// A call is over: it was answered, or no answer can come.
    pub(in crate::client) fn done(&self, hash: u64) {
        self.order[slot_of(hash)].fetch_sub(1, Ordering::Relaxed);
    }

    /// The lane has much under way: another is to gather.
    pub(in crate::client) fn pass_on(&self, lane: usize) {
        let next = self.next_open(lane);
        let _ = self.current.compare_exchange(lane, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A lane has a stream, or has none any more.
    pub(in crate::client) fn set_open(&self, lane: usize, is_open: bool) {
        let bit = 1 << lane;
        let before = if is_open {
            self.open.fetch_or(bit, Ordering::Relaxed)
        } else {
            self.open.fetch_and(!bit, Ordering::Relaxed)
        };
        if is_open && before == 0 {
            self.current.store(lane, Ordering::Relaxed);
        } else if !is_open {
            self.pass_on(lane);
        }
    }

    /// The open lane that follows this one; the same, where no other is.
    fn next_open(&self, lane: usize) -> usize {
        let open = self.open.load(Ordering::Relaxed);
        let after = open.checked_shr(lane as u32 + 1).unwrap_or(0);
        match (after, open) {
            (0, 0) => lane,
            (0, open) => open.trailing_zeros() as usize,
            (after, _) => lane + 1 + after.trailing_zeros() as usize,
        }
    }
}

fn slot_of(hash: u64) -> usize {
    hash as usize % ORDER_SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_one_key_stay_on_one_lane_while_one_is_under_way() {
        let choice = Choice::new(3);
        (0..3).for_each(|lane| choice.set_open(lane, true));
        assert_eq!(choice.begin(7, None), 0);
        choice.pass_on(0);
        assert_eq!((choice.begin(7, None), choice.begin(8, None)), (0, 1));
        choice.done(7);
        assert_eq!(choice.begin(7, None), 0, "one is still under way");
        assert_eq!(choice.begin(7, Some(0)), 1, "unless that lane is out");
        choice.done(7);
        choice.done(7);
        choice.done(7);
        assert_eq!(choice.begin(7, None), 1);
    }

    #[test]
    fn lanes_without_a_stream_are_passed_over() {
        let choice = Choice::new(64);
        choice.set_open(63, true);
        assert_eq!(choice.begin(1, None), 63);
        choice.set_open(5, true);
        for expected in [5, 63, 5] {
            choice.pass_on(choice.current.load(Ordering::Relaxed));
            assert_eq!(choice.current.load(Ordering::Relaxed), expected);
        }
        choice.set_open(5, false);
        assert_eq!(choice.begin(2, None), 63);
        choice.set_open(63, false);
        assert_eq!(choice.begin(3, None), 63, "none has one: any will do");
    }
}
