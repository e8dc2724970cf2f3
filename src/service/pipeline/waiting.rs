//! Commands of a Pipeline that wait: for the disk, or for one before them that does and has the same key.
//!
//! Each is a job for threads that may block ([`pool`](super::pool)), those of one key one behind the other, and is
//! answered when the job is back. Until its entry is found a command can be given up, by a Cancel or at its deadline:
//! whoever takes its [`Claim`] first, its job or the stream, does it or answers for it. A job that no thread has begun
//! is given up with its command; one that looks for the entry finds it out when the disk has answered, and counts until
//! then.
//!
//! A write that the journal's backlog has no room for comes back with its job undone and waits without one, until its turn
//! has come. No place in the journal's queue is kept while the client has a frame to read, as nobody knows when the stream
//! is asked for the next.
//!
//! What waits is bounded by [`COMMANDS_MAX`] and [`BYTES_MAX`]; the answers that jobs come back with count in the node's
//! backlog from when they are there.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::{Sleep, sleep_until};
use tonic::Code;

use super::blocking_pool::BlockingPool;
use super::commands::{Aside, BacklogTurn, Message, Replies, Taken, run_one};
use crate::cache::{Cache, Claim, Turn};
use crate::clock::monotonic;
use crate::grpc::GrpcError;
use crate::service::below::{self, Claimed};
use crate::service::codec::wire::{CommandView, Field, Reader, op};
use crate::service::data::Plane;
use crate::service::error::CallError;
use crate::service::request::Request;
use crate::service::requests::StoppedCall;
use crate::service::slow::recall_first;
use crate::telemetry::SlowCalls;

/// So many commands of a stream may wait.
pub(super) const COMMANDS_MAX: usize = 16;
/// When those that wait have so many bytes, no more do: what they have is bounded by this and one command.
const BYTES_MAX: usize = 256 << 10;

/// The commands of a stream that wait.
#[derive(Default)]
pub(super) struct Waiting {
    /// In the order in which they came, until they are answered.
    commands: Vec<Waiter>,
    /// Also those that were begun before their command was given up.
    jobs: BlockingPool<Done>,
    /// Of commands that wait or whose jobs are not back.
    bytes: usize,
    /// How many commands were taken on so far.
    taken: u64,
    /// Goes off at the nearest deadline.
    timer: Option<Pin<Box<Sleep>>>,
    /// While some wait for the journal: one of those of the connection that flow control may stop.
    stopped: Option<StoppedCall>,
}

/// A command that waits.
struct Waiter {
    number: u64,
    id: u64,
    place: u64,
    /// A message of this command alone.
    bytes: Bytes,
    arrived: Instant,
    deadline: Option<Instant>,
    /// Its deadline has passed while its job was at it.
    is_late: bool,
    claim: Arc<Claim>,
    state: State,
}

/// What a command waits for.
enum State {
    /// Another command of its key.
    Behind,
    /// Its job.
    Begun,
    /// Room in the journal's backlog, in its queue if it has a turn there.
    Backlogged(Option<Turn>),
}

/// What a job came to.
struct Done {
    number: u64,
    command_bytes: usize,
    /// Nothing was done, as the journal's backlog has no room, and it may wait for that.
    is_backlogged: bool,
    /// A reply, counted in the backlog.
    reply: Bytes,
    /// It waits until what it tells of is on the disk.
    flush: bool,
    code: Code,
}

impl Waiting {
    /// Whether every command was answered.
    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

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
        let mut changed = false;
        // Before the jobs, so that this task is woken for those that are begun here.
        self.poll_turns(cx, is_ending, &out.plane);
        while !out.are_enough()
            && let Some(done) = self.jobs.poll(cx)
        {
            self.finish(&done, slow, out);
            changed = true;
        }
        while let Some(at) = self.poll_late(cx) {
            self.give_up(at, &GrpcError::DeadlineExceeded.into(), out);
            changed = true;
        }
        // One thread for all that was set apart since.
        self.jobs.call();
        out.end();
        changed
    }

    /// Whether commands wait for the journal.
    pub(super) fn is_backlogged(&self) -> bool {
        self.commands.iter().any(|command| matches!(command.state, State::Backlogged(_)))
    }

    /// Leaves the journal's queue.
    pub(super) fn leave_queue(&mut self) {
        for command in &mut self.commands {
            if let State::Backlogged(turn) = &mut command.state {
                *turn = None;
            }
        }
    }

    /// Begins those again whose turn has come, or who may not wait for it.
    fn poll_turns(&mut self, cx: &mut Context<'_>, is_ending: bool, plane: &Arc<Plane>) {
        let mut is_backlogged = false;
        for command in &mut self.commands {
            let State::Backlogged(place) = &mut command.state else { continue };
            if self.stopped.is_none() {
                self.stopped = plane.stopped.enter();
            }
            let may_wait = !is_ending && !command.is_late && self.stopped.is_some();
            let queue = plane.cache.journal_backlog().filter(|_| may_wait);
            // The stream counts what its commands hold.
            let turn = place.take().or_else(|| queue?.enter(command.bytes.len(), 0)).filter(|_| may_wait);
            match turn {
                Some(turn) if turn.poll(cx).is_pending() => {
                    *place = Some(turn);
                    is_backlogged = true;
                }
                turn => {
                    let standing = if turn.is_some() { BacklogTurn::Granted } else { BacklogTurn::Refused };
                    command.state = State::Begun;
                    self.jobs.push(command.number, command.job(plane, standing, turn));
                }
            }
        }
        if !is_backlogged {
            self.stopped = None;
        }
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

    fn finish(&mut self, done: &Done, slow: &SlowCalls, out: &mut Replies) {
        let at = self.commands.iter().position(|command| command.number == done.number);
        if let Some(at) = at
            && done.is_backlogged
        {
            // Nothing is done of it, so that it may be given up again.
            let command = &mut self.commands[at];
            (command.claim, command.state) = (Arc::default(), State::Backlogged(None));
            return;
        }
        self.bytes -= done.command_bytes;
        // One that was given up was answered then.
        let Some(at) = at else { return };
        let command = self.commands.remove(at);
        let replies = if done.flush {
            &mut out.later
        } else {
            out.make_room(done.reply.len());
            &mut out.bytes
        };
        replies.extend_from_slice(&done.reply);
        let elapsed = monotonic().saturating_duration_since(command.arrived);
        if slow.is_slow(elapsed)
            && let Some((verb, about)) = recall_first(&command.bytes)
        {
            slow.keep(verb, about, elapsed, Duration::ZERO, done.code);
        }
        self.begin_next(command.place, &out.plane);
    }

    /// Answers a command without doing it, unless it is being done.
    fn give_up(&mut self, at: usize, why: &CallError, out: &mut Replies) {
        if !self.commands[at].claim.take() {
            self.commands[at].is_late |= *why == CallError::from(GrpcError::DeadlineExceeded);
            self.commands[at].deadline = None;
            return;
        }
        let command = self.commands.remove(at);
        out.put_error(command.id, why);
        if !matches!(command.state, State::Begun) || self.jobs.withdraw(command.number) {
            self.bytes -= command.bytes.len();
        }
        if !matches!(command.state, State::Behind) {
            self.begin_next(command.place, &out.plane);
        }
    }

    /// Begins the next command of a key, if one waits for that.
    fn begin_next(&mut self, place: u64, plane: &Arc<Plane>) {
        // The first of them has its turn.
        if let Some(command) = self.commands.iter_mut().find(|command| command.place == place) {
            let is_behind = matches!(command.state, State::Behind);
            debug_assert!(is_behind, "a key has one command that was begun and not given up");
            command.state = State::Begun;
            self.jobs.push(command.number, command.job(plane, BacklogTurn::None, None));
        }
    }

    fn waits_for(&self, place: u64) -> bool {
        self.commands.iter().any(|command| command.place == place)
    }

    fn has_room(&self) -> bool {
        let queued = self.commands.iter().filter(|command| !matches!(command.state, State::Begun)).count();
        self.jobs.len() + queued < COMMANDS_MAX && self.bytes < BYTES_MAX
    }
}

impl Waiter {
    /// What does the command, and holds its turn meanwhile.
    fn job(
        &self,
        plane: &Arc<Plane>,
        standing: BacklogTurn,
        turn: Option<Turn>,
    ) -> impl FnOnce() -> Done + Send + 'static {
        let (plane, claim, number) = (Arc::clone(plane), Arc::clone(&self.claim), self.number);
        let mut message = Message::new(self.bytes.clone(), self.arrived);
        message.turn = standing;
        move || {
            let mut out = Replies::new(&plane, 0, usize::MAX);
            let done = run_one(&Claimed { cache: &plane.cache, claim: &claim }, &mut message, &mut out);
            debug_assert!(done.is_ok(), "it was read before");
            let is_backlogged = done == Ok(false);
            // Nobody knows when the stream takes what was done.
            drop(turn);
            let flush = !out.later.is_empty();
            let reply = plane.backlog.hold(if flush { out.later } else { out.bytes });
            Done {
                number,
                command_bytes: message.bytes.len(),
                is_backlogged,
                reply,
                flush,
                code: message.code,
            }
        }
    }
}

impl Aside for Waiting {
    fn takes(&self, cache: &Cache, command: &CommandView<'_>) -> Option<Taken> {
        let (number, message) = command.op?;
        if number == op::CANCEL {
            return Some(Taken::Cancels { id: id_of(message)? });
        }
        // One that cannot be read is refused at once.
        let request = Request::of_command(number, message).ok()??;
        let namespace = cache.namespace(request.namespace())?;
        let key = request.keys().next()?;
        let waits_behind = || self.waits_for(cache.place_of(&namespace, key));
        let waits = !self.is_empty() && waits_behind() || below::reads(cache, &request);
        waits.then(|| Taken::Waits { place: cache.place_of(&namespace, key) })
    }

    fn take(
        &mut self,
        taken: Taken,
        command: &CommandView<'_>,
        bytes: &[u8],
        arrived: Instant,
        out: &mut Replies,
    ) -> bool {
        match taken {
            Taken::Cancels { id } => {
                if let Some(at) = self.commands.iter().position(|command| command.id == id) {
                    self.give_up(at, &CallError::Cancelled, out);
                }
            }
            Taken::Waits { .. } if !self.has_room() => return false,
            Taken::Waits { place } => {
                let is_first = !self.waits_for(place);
                let timeout = Duration::from_millis(command.timeout_ms.into());
                // A copy, as the rest of the message need not stay.
                let bytes = Bytes::copy_from_slice(bytes);
                self.bytes += bytes.len();
                self.taken += 1;
                self.commands.push(Waiter {
                    number: self.taken,
                    id: command.id,
                    place,
                    bytes,
                    arrived,
                    deadline: Some(timeout)
                        .filter(|timeout| !timeout.is_zero())
                        .map(|timeout| arrived + timeout),
                    is_late: false,
                    claim: Arc::default(),
                    state: State::Behind,
                });
                if is_first {
                    self.begin_next(place, &out.plane);
                }
            }
        }
        true
    }
}

/// The id in a CancelRequest; `None`: it cannot be read, and cancels nothing.
fn id_of(message: &[u8]) -> Option<u64> {
    let (mut reader, mut id) = (Reader::new(message), 0);
    while let Some((number, field)) = reader.next().ok()? {
        match (number, field) {
            (1, Field::Varint(value)) => id = value,
            (1, _) => return None,
            _ => {}
        }
    }
    Some(id)
}
