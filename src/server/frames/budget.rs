//! What a peer may make a node do with frames that ask for nothing.
//!
//! HTTP/2 has frames that cost their receiver work and their sender next to nothing: WINDOW_UPDATE, PRIORITY, SETTINGS,
//! PING, empty DATA, unknown ones (CVE-2019-9511 to 9518), and those that make the node reset a stream by itself
//! (CVE-2025-8671, "MadeYouReset"). An honest peer sends a few of them with each request and with what it reads. So each
//! takes from a budget, which requests, their data and what the node answers fill again, and time a little. A peer
//! whose budget is spent is told to go away.

use std::time::{Duration, Instant};

use super::scanner::{CONTINUATION, DATA, END_STREAM, Frame, HEADERS, NO_ERROR, RST_STREAM, WINDOW_UPDATE};

/// What a connection begins with, and the most that it has.
const FULL: i64 = 1_000;
/// What a request brings: a client may open its window twice, reprioritise and reset it.
const PER_REQUEST: i64 = 4;
/// What a frame of data brings.
const PER_DATA: i64 = 2;
/// Of what the node sends, the bytes that bring one: two updates for each frame of 16 KiB, twice over.
const SENT_BYTES: u64 = 4 << 10;
/// A time that brings one, for a peer that only keeps its connection alive.
const IDLE: Duration = Duration::from_millis(10);
/// Streams are numbered by twos. A request that is reset before this many others have begun was not meant (CVE-2023-44487);
/// one that is given up at its deadline has others behind it, or is one of few.
const AT_ONCE: u32 = 2 * 8;
const PER_RESET_AT_ONCE: i64 = PER_REQUEST + 2;
/// A reset that the node was made to send costs more than its request brought.
const PER_OWN_RESET: i64 = 2 * PER_REQUEST;
/// Of a stream's window, the bytes whose opening costs one more: who opens it beyond the 2 GiB that there may be is reset.
const WINDOW_BYTES_LOG2: u32 = 27;

const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

/// The budget of a connection.
#[derive(Debug)]
pub(super) struct FrameBudget {
    left: i64,
    sent_bytes: u64,
    filled: Instant,
}

impl FrameBudget {
    /// A full one.
    pub(super) fn new(now: Instant) -> Self {
        Self { left: FULL, sent_bytes: 0, filled: now }
    }

    /// The peer has sent a frame; `newest` is its newest stream.
    #[inline]
    pub(super) fn received(&mut self, frame: Frame, newest: u32) {
        let brings = match frame.kind {
            HEADERS => PER_REQUEST,
            RST_STREAM if frame.stream + AT_ONCE >= newest => -PER_RESET_AT_ONCE,
            DATA if frame.payload_bytes > 0 => PER_DATA,
            DATA if frame.flags & END_STREAM != 0 => 0,
            // Belongs to a HEADERS, whose bytes are bounded.
            CONTINUATION => -1,
            WINDOW_UPDATE if frame.stream != 0 => -1 - i64::from(frame.word >> WINDOW_BYTES_LOG2),
            _ => -1,
        };
        self.left = (self.left + brings).min(FULL);
    }

    /// The node has sent a frame.
    #[inline]
    pub(super) fn sent(&mut self, frame: Frame) {
        if frame.kind == RST_STREAM {
            self.left -= match frame.word {
                // The node's own wish.
                NO_ERROR | CANCEL => 0,
                // A peer may open more streams than it may have before it knows how many that are.
                REFUSED_STREAM => PER_REQUEST,
                _ => PER_OWN_RESET,
            };
        }
        self.sent_bytes += u64::from(frame.payload_bytes);
        if self.sent_bytes >= SENT_BYTES {
            self.left = (self.left + i64::try_from(self.sent_bytes / SENT_BYTES).unwrap_or(FULL)).min(FULL);
            self.sent_bytes %= SENT_BYTES;
        }
    }

    /// Whether it is spent; asks for the time only where it may be.
    #[inline]
    pub(super) fn is_spent(&mut self, now: impl FnOnce() -> Instant) -> bool {
        self.left < 0 && {
            let now = now();
            let idle = now.saturating_duration_since(self.filled).as_millis() / IDLE.as_millis();
            self.left = (self.left + i64::try_from(idle).unwrap_or(FULL)).min(FULL);
            self.filled = now;
            self.left < 0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic;

    fn frame(kind: u8, stream: u32, payload_bytes: u32, word: u32) -> Frame {
        Frame { kind, flags: 0, stream, payload_bytes, word }
    }

    /// How often a peer may do this at once; `None`: a million times.
    fn times(mut each: impl FnMut(&mut FrameBudget)) -> Option<u32> {
        let now = monotonic();
        let mut budget = FrameBudget::new(now);
        (0..1_000_000).find(|_| {
            each(&mut budget);
            budget.is_spent(|| now)
        })
    }

    #[test]
    fn frames_that_ask_for_nothing_spend_it() {
        for (kind, bytes) in [(2, 5), (4, 6), (4, 0), (6, 8), (8, 4), (9, 1), (11, 0), (200, 0), (DATA, 0)] {
            assert_eq!(times(|budget| budget.received(frame(kind, 0, bytes, 1), 101)), Some(1_000), "{kind}");
        }
    }

    #[test]
    fn requests_with_what_belongs_to_them_do_not() {
        let call = |budget: &mut FrameBudget| {
            budget.received(frame(HEADERS, 1, 40, 0), 1);
            budget.received(frame(DATA, 1, 25, 0), 101);
            for _ in 0..2 {
                budget.sent(frame(HEADERS, 1, 20, 0));
                budget.received(frame(WINDOW_UPDATE, 1, 4, 105), 101);
                budget.received(frame(WINDOW_UPDATE, 0, 4, 105), 101);
            }
            budget.received(frame(RST_STREAM, 1, 4, CANCEL), 101);
        };
        assert_eq!(times(call), None);
        let reads = |budget: &mut FrameBudget| {
            budget.sent(frame(DATA, 1, 16 << 10, 0));
            budget.received(frame(WINDOW_UPDATE, 1, 4, 16 << 10), 101);
            budget.received(frame(WINDOW_UPDATE, 0, 4, 16 << 10), 101);
        };
        assert_eq!(times(reads), None);
        let too_many = |budget: &mut FrameBudget| {
            budget.received(frame(HEADERS, 1, 40, 0), 1);
            budget.sent(frame(RST_STREAM, 1, 4, REFUSED_STREAM));
        };
        assert_eq!(times(too_many), None);
    }

    #[test]
    fn streams_that_the_node_was_made_to_reset_spend_it() {
        let reset = |code| {
            times(|budget| {
                budget.received(frame(HEADERS, 1, 40, 0), 1);
                budget.received(frame(WINDOW_UPDATE, 1, 4, 0), 101);
                budget.sent(frame(RST_STREAM, 1, 4, code));
            })
        };
        assert_eq!((reset(1), reset(3)), (Some(199), Some(199)));
        // Also where HTTP/2 says nothing of it.
        let overflow = times(|budget| {
            budget.received(frame(HEADERS, 1, 40, 0), 1);
            budget.received(frame(WINDOW_UPDATE, 1, 4, (1 << 31) - 1), 101);
        });
        assert_eq!(overflow, Some(83));
    }

    #[test]
    fn time_fills_it_a_little() {
        let (mut now, mut budget) = (monotonic(), FrameBudget::new(monotonic()));
        for _ in 0..100_000 {
            now += 2 * IDLE;
            budget.received(frame(6, 0, 8, 0), 101);
            assert!(!budget.is_spent(|| now));
        }
    }
}
