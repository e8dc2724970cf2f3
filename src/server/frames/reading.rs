//! What a connection's task, its bytes and its calls tell each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::{HeaderMap, Request};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use super::field_block;
use crate::clock::{UnreadTime, monotonic};
use crate::endpoint::PeerInfo;
use crate::server::connections::{Connections, RefusedUnread};
use crate::server::load::ConnectionLoad;
use crate::server::stack::{AnswersUnread, LayUnread, timeout_of, unread_refusal};
use crate::server::unread_answers::ConnectionAnswers;

/// How long is waited for an answer by who does not say how long.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
/// Time-outs are taken for no shorter: no node keeps to less while it has more to do than it can.
const TIMEOUT_MIN: Duration = Duration::from_millis(10);

/// What a connection's task and its bytes tell each other. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Reading(Arc<Words>);

#[derive(Debug)]
struct Words {
    turn_begins: AtomicBool,
    is_spent: AtomicBool,
    /// Requests may have lain unread for long enough to matter.
    is_behind: AtomicBool,
    /// How long those had lain that were read last; what streams do with it.
    unread: UnreadTime,
    /// Those that come now have lain for longer than this, which is too long; 0: they have not.
    too_old_us: AtomicU64,
    /// Streams had commands done while requests may have lain unread.
    has_commands: AtomicBool,
    refused: RefusedUnread,
    load: ConnectionLoad,
    answers: Arc<ConnectionAnswers>,
    /// What the worker's thread had used when this turn began, in nanoseconds; 0: nobody asks.
    used_before: AtomicU64,
    /// Of this turn: its requests, and when the oldest can have come.
    calls: AtomicU64,
    oldest: Mutex<Instant>,
}

impl Reading {
    /// Counts what is refused with that of others, and is part of the node's load.
    pub(crate) fn new(connections: &Connections, peer: &PeerInfo) -> Self {
        let (refused, load) = (connections.refused_unread(), connections.load().connection(peer));
        Self(Arc::new(Words {
            turn_begins: false.into(),
            is_spent: false.into(),
            is_behind: false.into(),
            unread: UnreadTime::default(),
            too_old_us: 0.into(),
            has_commands: false.into(),
            refused,
            load,
            answers: connections.unread_answers().connection(),
            used_before: 0.into(),
            calls: 0.into(),
            oldest: monotonic().into(),
        }))
    }

    /// The connection has its turn.
    pub(crate) fn begin_turn(&self) {
        self.0.turn_begins.store(true, Relaxed);
        if self.0.load.is_watched() {
            self.0.used_before.store(thread_nanos(), Relaxed);
        }
    }

    /// The turn is over, and what was answered is sent.
    #[inline]
    pub(crate) fn end_turn(&self) {
        if self.0.load.is_watched() {
            self.end_turn_watched();
        }
        if self.0.is_behind.load(Relaxed) {
            self.end_turn_behind();
        }
    }

    #[cold]
    fn end_turn_watched(&self) {
        let before = self.0.used_before.swap(0, Relaxed);
        if before > 0 {
            self.0.load.used(thread_nanos().saturating_sub(before));
        }
    }

    #[cold]
    fn end_turn_behind(&self) {
        let (calls, commands) = (self.0.calls.swap(0, Relaxed), self.0.unread.take_commands());
        if commands > 0 {
            self.0.has_commands.store(true, Relaxed);
        }
        if calls + commands > 0 {
            let age = monotonic().saturating_duration_since(*self.0.oldest.lock());
            self.0.load.answered(calls + commands, age, self.timeout());
        }
    }

    /// Whether the peer has sent too many frames that ask for nothing, so that nothing is read from it any more.
    pub(crate) fn is_spent(&self) -> bool {
        self.0.is_spent.load(Relaxed)
    }

    /// Tells a call's layers how long it lay unread, and how many answers are not read, where that matters.
    #[inline]
    pub(crate) fn stamp<B>(&self, request: &mut Request<B>) {
        if let Some(answers) = self.0.answers.too_many() {
            request.extensions_mut().insert(AnswersUnread(answers));
        }
        if self.0.is_behind.load(Relaxed) {
            self.stamp_behind(request);
        }
    }

    /// The connection's answers that its peer has not read.
    #[inline]
    pub(crate) fn answers(&self) -> Arc<ConnectionAnswers> {
        Arc::clone(&self.0.answers)
    }

    #[cold]
    fn stamp_behind<B>(&self, request: &mut Request<B>) {
        self.note_timeout(request.headers());
        let (waited, too_long) =
            (self.0.unread.waited(), Duration::from_micros(self.0.too_old_us.load(Relaxed)));
        let too_long = (!too_long.is_zero()).then_some(too_long);
        request.extensions_mut().insert(LayUnread { waited, too_long });
    }

    fn note_timeout(&self, headers: &HeaderMap) {
        self.0.unread.note_timeout(timeout_of(headers).unwrap_or(TIMEOUT_DEFAULT));
    }

    pub(super) fn set_behind(&self, is_behind: bool) {
        if self.0.is_behind.load(Relaxed) != is_behind {
            self.0.is_behind.store(is_behind, Relaxed);
            if !is_behind {
                self.0.unread.forget();
                self.0.has_commands.store(false, Relaxed);
            }
        }
    }

    /// Whether streams had commands done since requests may have lain unread.
    pub(super) fn has_commands(&self) -> bool {
        self.0.has_commands.load(Relaxed)
    }

    pub(super) fn set_waited(&self, waited: Duration) {
        self.0.unread.set_waited(waited);
    }

    /// Whether what is read now has lain for too long, and how long that is.
    pub(super) fn set_too_old(&self, delay_max: Option<Duration>) {
        let too_old_us = delay_max.unwrap_or_default().as_micros();
        self.0.too_old_us.store(u64::try_from(too_old_us).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn set_spent(&self) {
        self.0.is_spent.store(true, Relaxed);
    }

    /// These requests were refused, as the connection has its turn too seldom or as it was parked.
    pub(super) fn count_refused(&self, requests: u64, is_read: bool) {
        self.0.refused.count(requests);
        if is_read {
            self.0.load.count(requests, requests);
        }
    }

    /// How long callers of late waited.
    pub(super) fn timeout(&self) -> Duration {
        self.0.unread.timeout().map_or(TIMEOUT_DEFAULT, |timeout| timeout.max(TIMEOUT_MIN))
    }

    /// The turn's first requests can have come then.
    pub(super) fn set_oldest(&self, oldest: Instant) {
        let mut before = self.0.oldest.lock();
        // Commands that are not done were read before.
        *before = if self.0.unread.has_undone() { oldest.min(*before) } else { oldest };
    }

    /// These requests came in this turn.
    pub(super) fn count_calls(&self, calls: u64) {
        self.0.calls.fetch_add(calls, Relaxed);
    }

    /// What the connection's streams know of how long bytes lie unread.
    pub(crate) fn unread_time(&self) -> &UnreadTime {
        &self.0.unread
    }

    /// The connection's part of the node's load.
    pub(super) fn load(&self) -> &ConnectionLoad {
        &self.0.load
    }

    /// What requests are refused with that lay unread for longer than that.
    pub(super) fn refusal(&self, delay: Duration) -> Vec<u8> {
        field_block::of_response(&unread_refusal(delay))
    }

    pub(super) fn take_turn(&self) -> bool {
        self.0.turn_begins.load(Relaxed) && self.0.turn_begins.swap(false, Relaxed)
    }
}

/// What this thread has used of a processor, in nanoseconds.
fn thread_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
