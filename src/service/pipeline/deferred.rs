//! Commands of a Pipeline that are deferred: they wait for the disk, or for one before them that does and has the same key.
//!
//! Those of one key are done one behind the other, each when what it needs is loaded ([`crate::lookup`]). Before that a
//! command can be given up, by a Cancel or at its deadline. A load that was begun for one that was given up counts
//! until it is over.
//!
//! A write that the journal's backlog has no room for waits until its turn has come. No place in the journal's queue is kept
//! while the client has a frame to read, as nobody knows when the stream is asked for the next.
//!
//! What waits is bounded by [`COMMANDS_MAX`] and [`BYTES_MAX`].

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::{Sleep, sleep_until};

use super::commands::{BacklogTurn, CommandOutcome, Defer, DeferredCommand, Message, NoRoom, run_one};
use super::replies::Replies;
use crate::cache::QueuePlace;
use crate::clock::monotonic;
use crate::grpc::GrpcError;
use crate::lookup::{AbandonedLoad, Loaded, Loading};
use crate::request::CallError;
use crate::service::long_requests::StoppedCall;
use crate::service::slow::describe_first;
use crate::telemetry::{CallSpan, SlowCalls};

/// Commands of a stream that may wait.
pub(super) const COMMANDS_MAX: usize = 16;
/// When those that wait have this many bytes, no more do: what they have is bounded by this and one command.
const BYTES_MAX: usize = 256 << 10;

/// The commands of a stream that wait.
#[derive(Default)]
pub(super) struct DeferredCommands {
    /// In the order in which they came, until they are answered.
    commands: Vec<Command>,
    /// Loads that were begun for commands that were given up, and the bytes of those.
    abandoned: Vec<(AbandonedLoad, usize)>,
    /// Of commands that wait, and of those.
    bytes: usize,
    /// Goes off at the nearest deadline.
    timer: Option<Pin<Box<Sleep>>>,
    /// While some wait for the journal: one of those of the connection that flow control may stop.
    stopped: Option<StoppedCall>,
}

/// A command that waits.
struct Command {
    id: u64,
    key_hash: u64,
    key: Bytes,
    /// A message of this command alone.
    bytes: Bytes,
    arrived: Instant,
    deadline: Option<Instant>,
    state: State,
    /// How it stands to the journal's backlog, and the place that it has in its queue until it is done.
    standing: (BacklogTurn, Option<QueuePlace>),
    /// Its own span, if it has one.
    span: Option<Box<CallSpan>>,
}

/// What a command waits for.
enum State {
    /// Another command of its key.
    Behind,
    /// Nothing: it is to be done.
    Ready,
    /// Its entry.
    Loading(Loading),
    /// Room in the journal's backlog, in its queue if it has a place there.
    Backlogged(Option<QueuePlace>),
}

impl DeferredCommands {
    /// Puts the replies of those that need not wait any more; whether anything has changed. If nothing has, the task is
    /// woken when something does. Where the listener ends, nothing waits for the journal any more.
    pub(super) fn collect(
        &mut self,
        cx: &mut Context<'_>,
        is_ending: bool,
        slow: &SlowCalls,
        out: &mut Replies,
    ) -> bool {
        out.begin();
        self.start_loads();
        let mut changed = self.poll_leaving(cx);
        let mut at = 0;
        while at < self.commands.len() && !out.are_enough() {
            match self.poll_command(at, cx, is_ending, out) {
                Poll::Ready(loaded) => changed |= self.try_command(at, loaded, slow, out),
                Poll::Pending => at += 1,
            }
        }
        if !self.is_backlogged() {
            self.stopped = None;
        }
        while let Some(at) = self.poll_late(cx) {
            self.give_up(at, &GrpcError::DeadlineExceeded.into(), out);
            changed = true;
        }
        out.end();
        changed
    }

    /// Has what the commands of this turn need loaded together.
    fn start_loads(&self) {
        let loads = self.commands.iter().filter_map(|command| match &command.state {
            State::Loading(loading) => Some(loading),
            _ => None,
        });
        Loading::start_together(loads, usize::MAX);
    }

    /// Whether commands wait for the journal.
    pub(super) fn is_backlogged(&self) -> bool {
        self.commands.iter().any(|command| matches!(command.state, State::Backlogged(_)))
    }

    /// Leaves the journal's queue.
    pub(super) fn leave_queue(&mut self) {
        for command in &mut self.commands {
            if let State::Backlogged(place) = &mut command.state {
                *place = None;
            }
            if command.standing.0 == BacklogTurn::Granted {
                command.standing = (BacklogTurn::None, None);
            }
        }
    }

    /// Forgets loads that are over; whether there were any.
    fn poll_leaving(&mut self, cx: &Context<'_>) -> bool {
        let before = self.abandoned.len();
        let bytes = &mut self.bytes;
        self.abandoned.retain(|(abandoned, of_it)| {
            let is_over = abandoned.poll(cx).is_ready();
            *bytes -= if is_over { *of_it } else { 0 };
            !is_over
        });
        self.abandoned.len() < before
    }

    /// Waits until a command may be done, or may not wait any more.
    fn poll_command(
        &mut self,
        at: usize,
        cx: &mut Context<'_>,
        is_ending: bool,
        out: &Replies,
    ) -> Poll<Option<Loaded>> {
        let command = &mut self.commands[at];
        match &mut command.state {
            State::Behind => Poll::Pending,
            State::Ready => Poll::Ready(None),
            State::Loading(loading) => Pin::new(loading).poll(cx).map(Some),
            State::Backlogged(place) => {
                let plane = &out.plane;
                if self.stopped.is_none() {
                    self.stopped = plane.stopped.enter();
                }
                let may_wait = !is_ending && self.stopped.is_some();
                let queue = plane.cache.journal_backlog().filter(|_| may_wait);
                // The stream counts what its commands hold.
                let entered = || queue?.enter(command.bytes.len(), 0);
                match place.take().or_else(entered).filter(|_| may_wait) {
                    Some(entered) if entered.poll(cx).is_pending() => {
                        *place = Some(entered);
                        Poll::Pending
                    }
                    Some(entered) => {
                        command.standing = (BacklogTurn::Granted, Some(entered));
                        Poll::Ready(None)
                    }
                    None => {
                        command.standing = (BacklogTurn::Refused, None);
                        Poll::Ready(None)
                    }
                }
            }
        }
    }

    /// Does a command, which is answered or waits for something else then; whether it is answered.
    fn try_command(
        &mut self,
        at: usize,
        loaded: Option<Loaded>,
        slow: &SlowCalls,
        out: &mut Replies,
    ) -> bool {
        let command = &mut self.commands[at];
        let mut message = Message::new(command.bytes.clone(), command.arrived);
        (message.turn, message.span) = (command.standing.0, command.span.take());
        out.commands_left = out.commands_left.saturating_sub(1);
        let plane = Arc::clone(&out.plane);
        let answer = run_one(&plane.cache, &mut message, loaded, out).expect("it was read before");
        match answer {
            CommandOutcome::WantsTurn => {
                (command.standing, command.span) = ((BacklogTurn::None, None), message.span);
                command.state = State::Backlogged(None);
            }
            CommandOutcome::NeedsLoad(pending) => {
                command.state = State::Loading(pending.into_loading(&command.key));
                command.span = message.span;
            }
            CommandOutcome::Given => {
                let command = self.commands.remove(at);
                self.bytes -= command.bytes.len();
                let elapsed = monotonic().saturating_duration_since(command.arrived);
                if slow.is_slow(elapsed)
                    && let Some((verb, about)) = describe_first(&command.bytes)
                {
                    slow.keep(verb, about, elapsed, Duration::ZERO, message.code);
                }
                self.begin_next(command.key_hash);
                return true;
            }
        }
        false
    }

    /// A command that waits and whose deadline has passed.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Option<usize> {
        let deadlines =
            self.commands.iter().enumerate().filter_map(|(at, command)| Some((command.deadline?, at)));
        let Some((deadline, at)) = deadlines.min() else {
            self.timer = None;
            return None;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
        if timer.deadline() != deadline.into() {
            timer.as_mut().reset(deadline.into());
        }
        timer.as_mut().poll(cx).is_ready().then_some(at)
    }

    /// Answers a command without doing it.
    fn give_up(&mut self, at: usize, why: &CallError, out: &mut Replies) {
        let command = self.commands.remove(at);
        let code = out.put_error(command.id, why);
        if let Some(span) = command.span {
            span.end(Some(code));
        }
        let bytes = command.bytes.len();
        let is_behind = matches!(command.state, State::Behind);
        match command.state {
            State::Loading(loading) => match loading.give_up() {
                Some(abandoned) => self.abandoned.push((abandoned, bytes)),
                None => self.bytes -= bytes,
            },
            State::Behind | State::Ready | State::Backlogged(_) => self.bytes -= bytes,
        }
        if !is_behind {
            self.begin_next(command.key_hash);
        }
    }

    /// Lets the next command of a key go on, if one waits for that.
    fn begin_next(&mut self, key_hash: u64) {
        // The first of them has its turn.
        if let Some(command) = self.commands.iter_mut().find(|command| command.key_hash == key_hash) {
            debug_assert!(matches!(command.state, State::Behind), "of a key, one command goes on");
            command.state = State::Ready;
        }
    }
}

impl Defer for DeferredCommands {
    fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    fn has(&self, key_hash: u64) -> bool {
        self.commands.iter().any(|command| command.key_hash == key_hash)
    }

    fn keep(&mut self, kept: DeferredCommand<'_>) -> Result<(), NoRoom> {
        if self.commands.len() + self.abandoned.len() >= COMMANDS_MAX || self.bytes >= BYTES_MAX {
            return Err(NoRoom(kept.span));
        }
        // A copy, as the rest of the message need not stay.
        let bytes = Bytes::copy_from_slice(kept.bytes);
        self.bytes += bytes.len();
        let timeout = Duration::from_millis(kept.timeout_ms.into());
        self.commands.push(Command {
            id: kept.id,
            key_hash: kept.key_hash,
            key: Bytes::copy_from_slice(kept.key),
            bytes,
            arrived: kept.arrived,
            deadline: (!timeout.is_zero()).then(|| kept.arrived + timeout),
            standing: (BacklogTurn::None, None),
            span: kept.span,
            state: kept
                .pending
                .map_or(State::Behind, |pending| State::Loading(pending.into_loading(kept.key))),
        });
        Ok(())
    }

    fn cancel(&mut self, id: u64, out: &mut Replies) {
        if let Some(at) = self.commands.iter().position(|command| command.id == id) {
            self.give_up(at, &CallError::Cancelled, out);
        }
    }
}
