//! Commands of a Pipeline that wait: for the disk, or for one before them that does and has the same key.
//!
//! Each is a job for threads that may block ([`crew`](super::crew)), those of one key one behind the other, and is
//! answered when the job is back. Until its entry is found a command can be given up, by a Cancel or at its deadline:
//! whoever takes its [`Claim`] first, its job or the stream, does it or answers for it. A job that no thread has begun
//! is given up with its command; one that looks for the entry finds it out when the disk has answered, and counts until
//! then.
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

use super::commands::{Aside, Message, Replies, Taken, put_error, run_one};
use super::crew::Crew;
use crate::api::CallError;
use crate::api::wire::{
    CommandView, DeleteView, Field, GetView, IncrementView, Reader, SetView, TouchView, op,
};
use crate::cache::{Cache, Claim};
use crate::clock::monotonic;
use crate::service::below::{self, Claimed};
use crate::service::data::Plane;
use crate::service::slow::recall_first;
use crate::service::unary::Method;
use crate::telemetry::SlowCalls;

/// So many commands of a stream may wait.
const COMMANDS_MAX: usize = 16;
/// When those that wait have so many bytes, no more do: what they have is bounded by this and one command.
const BYTES_MAX: usize = 256 << 10;

/// The commands of a stream that wait.
#[derive(Default)]
pub(super) struct Waiting {
    /// In the order in which they came, until they are answered.
    commands: Vec<Waiter>,
    /// Also those that were begun before their command was given up.
    jobs: Crew<Done>,
    /// Of commands that wait or whose jobs are not back.
    bytes: usize,
    /// How many commands were taken on so far.
    taken: u64,
    /// Goes off at the nearest deadline.
    timer: Option<Pin<Box<Sleep>>>,
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
    claim: Arc<Claim>,
    /// It has a job; until then it waits for another command.
    is_begun: bool,
}

/// What a job came to.
struct Done {
    number: u64,
    command_bytes: usize,
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
    /// woken when something does.
    pub(super) fn collect(&mut self, cx: &mut Context<'_>, slow: &SlowCalls, out: &mut Replies) -> bool {
        let (at, mut changed) = (out.begin(), false);
        while !out.are_enough()
            && let Some(done) = self.jobs.poll(cx)
        {
            self.finish(&done, slow, out);
            changed = true;
        }
        while let Some(at) = self.poll_late(cx) {
            self.give_up(at, &CallError::DeadlineExceeded, out);
            changed = true;
        }
        // One thread for all that was set apart since.
        self.jobs.call();
        out.end(at);
        changed
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
        self.bytes -= done.command_bytes;
        // One that was given up was answered then.
        let Some(at) = self.commands.iter().position(|command| command.number == done.number) else { return };
        let command = self.commands.remove(at);
        let replies = if done.flush { &mut out.later } else { &mut out.bytes };
        replies.extend_from_slice(&done.reply);
        let elapsed = monotonic().saturating_duration_since(command.arrived);
        if slow.is_slow(elapsed)
            && let Some((method, about)) = recall_first(&command.bytes)
        {
            slow.keep(method, about, elapsed, Duration::ZERO, done.code);
        }
        self.begin_next(command.place, &out.plane);
    }

    /// Answers a command without doing it, unless it is being done.
    fn give_up(&mut self, at: usize, why: &CallError, out: &mut Replies) {
        if !self.commands[at].claim.take() {
            self.commands[at].deadline = None;
            return;
        }
        let command = self.commands.remove(at);
        put_error(command.id, why, &mut out.bytes);
        if !command.is_begun || self.jobs.withdraw(command.number) {
            self.bytes -= command.bytes.len();
        }
        if command.is_begun {
            self.begin_next(command.place, &out.plane);
        }
    }

    /// Begins the next command of a key, if one waits for that.
    fn begin_next(&mut self, place: u64, plane: &Arc<Plane>) {
        // The first of them has its turn.
        if let Some(command) = self.commands.iter_mut().find(|command| command.place == place) {
            debug_assert!(!command.is_begun, "a key has one job whose command was not given up");
            command.is_begun = true;
            self.jobs.push(command.number, command.job(plane));
        }
    }

    fn waits_for(&self, place: u64) -> bool {
        self.commands.iter().any(|command| command.place == place)
    }

    fn has_room(&self) -> bool {
        let queued = self.commands.iter().filter(|command| !command.is_begun).count();
        self.jobs.len() + queued < COMMANDS_MAX && self.bytes < BYTES_MAX
    }
}

impl Waiter {
    /// What does the command.
    fn job(&self, plane: &Arc<Plane>) -> impl FnOnce() -> Done + Send + 'static {
        let (plane, claim, number) = (Arc::clone(plane), Arc::clone(&self.claim), self.number);
        let deadline = self.deadline;
        let mut message = Message::new(self.bytes.clone(), self.arrived);
        move || {
            let mut out = Replies::new(&plane, 0);
            let on = Claimed { cache: &plane.cache, claim: &claim, deadline };
            let done = run_one(&on, &mut message, &mut out);
            debug_assert!(done.is_ok(), "it was read before");
            let flush = !out.later.is_empty();
            let reply = if flush { out.later } else { out.bytes };
            let command_bytes = message.bytes.len();
            Done { number, command_bytes, reply: plane.backlog.hold(reply), flush, code: message.code }
        }
    }
}

impl Aside for Waiting {
    fn takes(&self, cache: &Cache, command: &CommandView<'_>) -> Option<Taken> {
        let (number, message) = command.op?;
        if number == op::CANCEL {
            return Some(Taken::Cancels { id: id_of(message)? });
        }
        let (method, name, key) = target(number, message)?;
        let namespace = cache.namespace(name)?;
        let waits_behind = || self.waits_for(cache.place_of(&namespace, key));
        let waits = !self.is_empty() && waits_behind() || below::waits(method, cache, message);
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
                    claim: Arc::default(),
                    is_begun: false,
                });
                if is_first {
                    self.begin_next(place, &out.plane);
                }
            }
        }
        true
    }
}

/// The namespace and the key of a command; `None` where it has none that can be read: it is refused at once.
fn target(number: u32, message: &[u8]) -> Option<(Method, &str, &[u8])> {
    Some(match number {
        op::GET => GetView::read(message).map(|view| (Method::Get, view.namespace, view.key)).ok()?,
        op::SET => SetView::read(message).map(|view| (Method::Set, view.namespace, view.key)).ok()?,
        op::DELETE => {
            DeleteView::read(message).map(|view| (Method::Delete, view.namespace, view.key)).ok()?
        }
        op::INCREMENT | op::DECREMENT => {
            IncrementView::read(message).map(|view| (Method::Increment, view.namespace, view.key)).ok()?
        }
        op::TOUCH => TouchView::read(message).map(|view| (Method::Touch, view.namespace, view.key)).ok()?,
        _ => return None,
    })
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
