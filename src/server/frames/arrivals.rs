//! When the bytes of a connection came, which may be long before they are read.
//!
//! The kernel does not tell. What is known is when there was nothing left to read, and, each time the connection has its
//! turn, how much lies in its socket. In between, bytes are taken to have come evenly. Where a worker had nothing to do
//! meanwhile ([`crate::server::idle`]), nothing had come.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::server::idle;

/// What a worker may be busy with beside a connection before it matters how old its bytes are.
const NEGLIGIBLE: Duration = Duration::from_millis(5);
/// Marks are not nearer to each other than this.
const MARK_INTERVAL: Duration = Duration::from_millis(2);
/// Marks that are kept; beyond, every second is forgotten.
const MARKS_MAX: usize = 64;

/// What is known of a connection's bytes.
#[derive(Debug)]
pub(super) struct Arrivals {
    /// Bytes read so far.
    read: u64,
    /// Nothing is left to read.
    is_drained: bool,
    /// When a turn began in which nothing was left to read in the end.
    drained: Instant,
    /// Turns since.
    turns_behind: u32,
    /// Numbers of bytes, and when that many had come; in order.
    marks: VecDeque<(u64, Instant)>,
    turn: Instant,
}

impl Arrivals {
    /// Nothing has come.
    pub(super) fn new(now: Instant) -> Self {
        let marks = VecDeque::new();
        Self { read: 0, is_drained: true, drained: now, turns_behind: 0, marks, turn: now }
    }

    /// The connection has its turn; `unread` says how many bytes lie in its socket, and is asked only where it matters.
    #[inline]
    pub(super) fn begin_turn(&mut self, now: Instant, unread: impl FnOnce() -> usize) {
        if self.is_drained {
            self.drained = self.turn.max(idle::latest().unwrap_or(now));
            self.marks.clear();
            self.turns_behind = 0;
            if now.saturating_duration_since(self.drained) >= NEGLIGIBLE {
                self.marks.push_back((self.read, self.drained));
            }
            self.is_drained = false;
        } else {
            self.turns_behind += 1;
            if self.marks.is_empty() {
                self.marks.push_back((self.read, self.drained));
            }
        }
        self.turn = now;
        let is_due = |&(_, last): &(u64, Instant)| now.saturating_duration_since(last) >= MARK_INTERVAL;
        if self.marks.back().is_some_and(is_due) {
            self.mark(self.read + unread() as u64, now);
        }
    }

    fn mark(&mut self, bytes: u64, now: Instant) {
        while self.marks.get(1).is_some_and(|&(bytes, _)| bytes <= self.read) {
            self.marks.pop_front();
        }
        if self.marks.len() >= MARKS_MAX {
            let mut number = 0_usize;
            self.marks.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
        self.marks.push_back((bytes, now));
    }

    /// Nothing is read for a while.
    pub(super) fn park(&mut self) {
        if self.is_drained {
            self.drained = self.turn;
            self.turns_behind = 0;
            self.marks.clear();
            self.is_drained = false;
        }
    }

    /// These were read.
    #[inline]
    pub(super) fn read(&mut self, bytes: usize) {
        self.read += bytes as u64;
    }

    /// Nothing is left to read.
    #[inline]
    pub(super) fn drained(&mut self) {
        self.is_drained = true;
    }

    /// As if the connection had been drained so long ago.
    #[cfg(test)]
    pub(super) fn set_age(&mut self, age: Duration) {
        self.drained -= age;
    }

    /// Whether bytes may have waited for long enough to matter.
    #[inline]
    pub(super) fn is_behind(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Whether something was left to read at the end of each of the last `turns` turns.
    pub(super) fn is_behind_for(&self, turns: u32) -> bool {
        self.turns_behind >= turns
    }

    /// Of the bytes that lay in the socket when the turn began, how many came before, if none came before `begun`.
    pub(super) fn older(&self, before: Instant, begun: Instant) -> usize {
        let unread = self.marks.back().map_or(0, |&(bytes, _)| bytes.saturating_sub(self.read));
        let age = |at: Instant| self.turn.saturating_duration_since(at);
        let part = 1.0 - age(before).div_duration_f64(age(begun).max(Duration::from_nanos(1)));
        (unread as f64 * part.max(0.0)) as usize
    }

    /// When the oldest byte that was read in this turn, or is read next, can have come.
    pub(super) fn oldest(&self) -> Instant {
        self.marks.front().map_or(self.turn, |&(_, first)| first)
    }

    /// When the last byte that was read came; where that does not matter, when the turn began.
    pub(super) fn latest(&self) -> Instant {
        self.arrived(self.read.saturating_sub(1))
    }

    /// When the byte that is read next had come for certain, and when the one that was read last.
    pub(super) fn next_by(&self) -> Instant {
        self.arrived_by(self.read)
    }

    pub(super) fn latest_by(&self) -> Instant {
        self.arrived_by(self.read.saturating_sub(1))
    }

    fn arrived_by(&self, at: u64) -> Instant {
        let after = self.marks.partition_point(|&(bytes, _)| bytes <= at);
        self.marks.get(after).map_or(self.turn, |&(_, by)| by)
    }

    /// When a byte came, given the number of those before it; where that does not matter, when the turn began.
    fn arrived(&self, at: u64) -> Instant {
        let after = self.marks.partition_point(|&(bytes, _)| bytes <= at);
        match (after.checked_sub(1).map(|before| self.marks[before]), self.marks.get(after)) {
            (Some((from, began)), Some(&(to, ended))) => {
                let span = ended.saturating_duration_since(began);
                began + span.mul_f64((at - from) as f64 / (to - from) as f64)
            }
            (Some((_, last)), None) => last,
            (None, Some(&(_, first))) => first,
            (None, None) => self.turn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_lay_in_the_socket_came_evenly_since_it_was_drained() {
        let begin = monotonic();
        let mut arrivals = Arrivals::new(begin);
        arrivals.begin_turn(begin, || 0);
        arrivals.drained();
        assert!(!arrivals.is_behind());
        // No worker was idle meanwhile, so it counts from then.
        arrivals.marks.push_back((0, begin));
        arrivals.is_drained = false;
        arrivals.begin_turn(begin + 100 * MS, || 1_000);
        arrivals.read(500);
        arrivals.begin_turn(begin + 200 * MS, || 1_500);
        for (at, ms) in [(0, 0), (500, 50), (1_000, 100), (1_500, 150), (2_000, 200), (9_000, 200)] {
            assert_eq!(arrivals.arrived(at), begin + ms * MS, "byte {at}");
        }
        for (at, ms) in [(0, 100), (999, 100), (1_000, 200), (2_000, 200)] {
            assert_eq!(arrivals.arrived_by(at), begin + ms * MS, "byte {at}");
        }
        assert_eq!(arrivals.next_by(), begin + 100 * MS);
        assert!(arrivals.is_behind_for(2) && !arrivals.is_behind_for(3));
    }

    #[test]
    fn marks_are_bounded_and_the_oldest_unread_byte_keeps_its_own() {
        let begin = monotonic();
        let mut arrivals = Arrivals::new(begin);
        arrivals.marks.push_back((0, begin));
        arrivals.is_drained = false;
        for turn in 1..10_000_u32 {
            arrivals.begin_turn(begin + turn * 2 * MS, || turn as usize * 10);
        }
        assert!(arrivals.marks.len() <= MARKS_MAX);
        assert_eq!(arrivals.arrived(0), begin);
    }
}
