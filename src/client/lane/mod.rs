//! A lane: one connection to a node with one Pipeline stream on it, shared by all calls that go to that node.
//!
//! ```text
//!  callers ── Call::poll: write the command into the batch ──┐                      ┌── wake the caller
//!                                                            ▼                      │
//!                               Lane { batch, slots } ── driver: one task ── socket ┘
//! ```
//!
//! Calls that run at the same time go out together: a caller writes its command straight into the batch that gathers, and
//! wakes the lane's task; the task sends what has gathered by the time that it runs. A lone call so leaves at once, and the
//! more calls there are, the more go into one message. Replies name their call by its slot's number.
//!
//! Invariants:
//! - The batch is bounded in bytes. A call that finds no room waits in a queue, first come, first served, and its deadline
//!   counts there too.
//! - The commands of one key leave in the order in which their calls were first polled.
//! - A command whose deadline has passed, or whose caller is gone, is not sent; one that was sent is given up by a Cancel.
//! - A broken stream fails what was sent and not answered. What was not sent goes out on the next one.
//! - Nothing is kept for a node that is out: its calls fail at once.
//!
//! It is no retry layer, and knows nothing of what an outcome means to the application.

mod call;
mod choice;
mod driver;
mod fault;
mod slots;
mod stream;
mod time;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::codec::{self, Command, CommandHead, CommandKind, ReplyKind};
use super::connect::Connector;
use super::process::Process;
use super::trace::{Gathering, Part};
use super::url::NodeUrl;
use crate::grpc::frame;
use crate::proto::v1;
use slots::{Slots, Stage};

pub(super) use choice::{Choice, LANES_MAX};
pub(super) use fault::{Fault, FaultKind};
pub(super) use time::CallTime;

/// What a lane is made with.
#[derive(Debug, Clone)]
pub(super) struct LaneConfig {
    pub(super) url: NodeUrl,
    pub(super) connector: Connector,
    /// How long connecting may take.
    pub(super) connect_timeout: Duration,
    /// How long a connection may be silent while an answer is due before the node is asked for a sign of life.
    pub(super) keepalive_interval: Duration,
    /// How long that may take.
    pub(super) keepalive_timeout: Duration,
    /// Whether it is asked also while no answer is due.
    pub(super) keeps_alive_idle: bool,
    /// Whether it waits for its first call to connect.
    pub(super) is_lazy: bool,
    /// The longest message that is taken.
    pub(super) max_message_bytes: usize,
}

/// What a command came to on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) kind: ReplyKind,
    pub(super) result: Bytes,
}

/// Why a call has no reply.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The node is out. Nothing was sent.
    Out(Arc<Fault>),
    /// The connection was lost after the command was sent. Whether it was done is not known.
    Broken(Arc<Fault>),
    /// The deadline passed.
    Deadline(Phase),
}

/// Where a call was when its deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// In the client's own queue: the connection took no more.
    Queue,
    /// Waiting for a connection to the node.
    Connect,
    /// Sent, and waiting for the node's answer.
    Server,
}

impl Phase {
    /// Its name: `queue`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Connect => "connect",
            Self::Server => "server",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a lane takes calls.
#[derive(Debug, Clone)]
pub(super) enum Standing {
    /// Nothing is connected, and nothing was tried: the first call asks for it.
    Unused,
    /// A connection is being made, and calls wait for it.
    Connecting,
    /// A stream is open.
    Open,
    /// There is no connection; calls fail.
    Out(Arc<Fault>),
}

/// What a lane has done, counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LaneCounts {
    /// Commands that were written.
    pub(super) commands: u64,
    /// Batches that were sent.
    pub(super) batches: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    /// Replies that came.
    pub(super) replies: u64,
    /// Calls whose deadline passed.
    pub(super) deadlines: u64,
    /// Calls that waited for room.
    pub(super) queued: u64,
    /// Streams that were opened.
    pub(super) opened: u64,
}

/// One lane. Cheap to clone; the connection ends with the last one.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Its number among the node's lanes.
    number: usize,
    /// The process that it belongs to.
    built_in: Process,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    choice: Arc<Choice>,
    standing: Standing,
    slots: Slots,
    /// Messages with their prefixes, the last of which gathers commands.
    batch: BytesMut,
    /// The number of that batch.
    batch_number: u64,
    /// Where the message begins that gathers commands, and how many it has.
    message_at: usize,
    message_commands: usize,
    /// The most commands that the node takes in a message.
    commands_max: usize,
    /// The most bytes of a message.
    message_bytes_max: usize,
    /// Written commands of this batch that nobody wants any more.
    dead_in_batch: usize,
    /// The span of the commands in it.
    span: Gathering,
    /// Commands that were written before it, or were taken out of it.
    commands_before: u64,
    /// Bytes that are kept for calls that were told to write.
    granted_bytes: usize,
    /// Calls that wait for room.
    queue: VecDeque<u32>,
    /// Sent or written commands that have no reply yet.
    outstanding: usize,
    /// No call's deadline is earlier.
    next_deadline: Option<Instant>,
    /// The task, while it sleeps.
    driver: Option<Waker>,
    /// Why the connection is to be given up, where somebody else has found out.
    condemned: Option<Fault>,
    /// All handles are gone.
    is_closing: bool,
    counts: LaneCounts,
    /// Tenths of a call by which calls may be tried again.
    retry_tenths: u32,
}

/// The most that gathers while the connection takes nothing.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// The most of it that one message has.
const MESSAGE_BYTES_MAX: usize = 128 << 10;
/// What the fields around a request take in a batch, at most, without a trace context.
const COMMAND_BYTES: usize = 32;
/// The most commands of a message, until a node says that it takes fewer.
const MESSAGE_COMMANDS_MAX: usize = 1_024;
/// A tenth of each call may be tried again, and this much at once.
const RETRY_TENTHS_MAX: u32 = 1_000;
const RETRY_TENTHS_AT_FIRST: u32 = 100;

impl Lane {
    /// A lane, whose task runs in the runtime that this is called in; `events` hears of its connections.
    pub(super) fn new(
        number: usize,
        config: LaneConfig,
        choice: Arc<Choice>,
        events: Arc<dyn LaneEvents>,
    ) -> Self {
        let standing = if config.is_lazy { Standing::Unused } else { Standing::Connecting };
        let shared = Arc::new(Shared {
            number,
            built_in: Process::current(),
            state: Mutex::new(State::new(choice, standing)),
        });
        driver::spawn(shared.clone(), config, events);
        Self { shared }
    }

    /// Whether a stream is open, or may soon be.
    pub(super) fn standing(&self) -> Standing {
        self.shared.lock().standing.clone()
    }

    /// Gives the connection up: it has been found out that the node does not answer.
    pub(super) fn condemn(&self, fault: Fault) {
        let mut state = self.shared.lock();
        if matches!(state.standing, Standing::Open) {
            state.condemned = Some(fault);
            wake_driver(state);
        }
    }

    /// Whether a call may be tried once more; each that may is taken off the budget.
    pub(super) fn may_retry(&self) -> bool {
        let mut state = self.shared.lock();
        let left = state.retry_tenths.checked_sub(10);
        state.retry_tenths = left.unwrap_or(state.retry_tenths);
        left.is_some()
    }

    pub(super) fn counts(&self) -> LaneCounts {
        // A fork counts nothing, and the lock may be held for ever there.
        if self.shared.built_in.is_current() { self.shared.lock().counts } else { LaneCounts::default() }
    }

    /// Lets the task end: the client is gone.
    pub(super) fn close(&self) {
        let mut state = self.shared.lock();
        state.is_closing = true;
        wake_driver(state);
    }
}

/// Hears of what happens to a lane's connection. It is called on the lane's task, and not under its lock.
pub(super) trait LaneEvents: Send + Sync + std::fmt::Debug {
    /// A stream is open.
    fn opened(&self);

    /// There is no connection, and calls fail. `is_silent`: the node has not answered in time.
    fn out(&self, fault: &Arc<Fault>);
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic is done under the lock but growing a buffer, after which the state is as it was.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes callers when nobody holds the lock.
    fn change<R>(&self, change: impl FnOnce(&mut State, &mut Vec<Waker>) -> R) -> R {
        let mut woken = Vec::new();
        let changed = change(&mut self.lock(), &mut woken);
        woken.into_iter().for_each(Waker::wake);
        changed
    }
}

/// Wakes the lane's task, if it sleeps, when nobody holds the lock.
fn wake_driver(mut state: MutexGuard<'_, State>) {
    let driver = state.driver.take();
    drop(state);
    if let Some(driver) = driver {
        driver.wake();
    }
}

impl State {
    fn new(choice: Arc<Choice>, standing: Standing) -> Self {
        Self {
            choice,
            standing,
            slots: Slots::default(),
            batch: BytesMut::new(),
            batch_number: 0,
            message_at: 0,
            message_commands: 0,
            commands_max: MESSAGE_COMMANDS_MAX,
            message_bytes_max: MESSAGE_BYTES_MAX,
            dead_in_batch: 0,
            span: Gathering::default(),
            commands_before: 0,
            granted_bytes: 0,
            queue: VecDeque::new(),
            outstanding: 0,
            next_deadline: None,
            driver: None,
            condemned: None,
            is_closing: false,
            counts: LaneCounts::default(),
            retry_tenths: RETRY_TENTHS_AT_FIRST,
        }
    }

    /// Whether a command of this length may be written now.
    fn has_room(&self, bytes: usize) -> bool {
        let taken = self.batch.len() + self.granted_bytes;
        taken == 0 || taken + bytes <= BATCH_BYTES_MAX
    }

    /// Writes a command into the batch.
    fn write<C: Command>(&mut self, head: CommandHead<'_>, command: &C) {
        self.begin_message_if_needed(command.request_bytes() + head.traceparent.len() + COMMAND_BYTES);
        codec::put_command(&mut self.batch, head, command);
        self.message_commands += 1;
        self.outstanding += 1;
        self.counts.commands += 1;
        self.retry_tenths = (self.retry_tenths + 1).min(RETRY_TENTHS_MAX);
    }

    /// Writes that an earlier command is given up.
    fn write_cancel(&mut self, id: u32) {
        self.begin_message_if_needed(COMMAND_BYTES);
        let request = v1::CancelRequest { id: id.into() };
        let bytes = prost::Message::encoded_len(&request);
        codec::put_command_head(&mut self.batch, CommandHead::default(), CommandKind::Cancel, bytes);
        prost::Message::encode_raw(&request, &mut self.batch);
        self.message_commands += 1;
    }

    fn begin_message_if_needed(&mut self, more: usize) {
        let is_full = self.message_commands >= self.commands_max
            || self.batch.len() - self.message_at + more > self.message_bytes_max;
        if self.message_commands > 0 && !is_full {
            return;
        }
        self.end_message();
        self.batch.extend_from_slice(&[0; frame::PREFIX]);
    }

    /// Ends the message that gathers commands, if it has some.
    fn end_message(&mut self) {
        if self.message_commands > 0 {
            frame::finish(&mut self.batch, self.message_at);
        }
        self.message_at = self.batch.len();
        self.message_commands = 0;
    }

    /// Takes what has gathered, to be sent.
    fn take_batch(&mut self) -> Bytes {
        self.end_message();
        if self.dead_in_batch > 0 {
            self.drop_the_dead();
        }
        let batch = self.batch.split().freeze();
        self.message_at = 0;
        self.batch_number += 1;
        self.counts.batches += u64::from(!batch.is_empty());
        self.counts.bytes_sent += batch.len() as u64;
        batch
    }

    /// The batch of this length was taken: its part in the span, to be dropped when the lock is not held.
    fn end_span(&mut self, bytes: usize) -> Option<Part> {
        let before = std::mem::replace(&mut self.commands_before, self.counts.commands);
        self.span.sent(self.counts.commands - before, bytes)
    }

    /// Writes the batch anew, without the commands that nobody wants.
    fn drop_the_dead(&mut self) {
        let written = self.batch.split();
        let (mut rest, slots, choice) = (&written[..], &mut self.slots, &self.choice);
        let mut dead = Vec::new();
        while let Some((message, after)) = frame::split(rest) {
            let at = self.batch.len();
            self.batch.extend_from_slice(&[0; frame::PREFIX]);
            codec::each_command(message, |id, command| {
                let slot = id.and_then(|id| slots.of_reply(id));
                match slot.filter(|(_, slot)| slot.is_abandoned || slot.outcome.is_some()) {
                    Some((id, slot)) => {
                        slot.end(choice);
                        dead.push(id);
                    }
                    None => self.batch.extend_from_slice(command),
                }
            });
            if self.batch.len() == at + frame::PREFIX {
                self.batch.truncate(at);
            } else {
                frame::finish(&mut self.batch, at);
            }
            rest = after;
        }
        self.outstanding -= dead.len();
        self.commands_before += dead.len() as u64;
        for id in dead {
            self.slots.free_if_over(id);
        }
        self.dead_in_batch = 0;
    }

    /// Lets calls that wait for room write, as far as there is some.
    fn grant(&mut self, woken: &mut Vec<Waker>) {
        while let Some(id) = self.queue.front().copied() {
            let Stage::Queued(bytes) = self.slots.of_call(id).stage else {
                self.queue.pop_front();
                continue;
            };
            if !self.has_room(bytes) {
                break;
            }
            let slot = self.slots.of_call(id);
            slot.stage = Stage::Granted(bytes);
            self.granted_bytes += bytes;
            self.queue.pop_front();
            woken.extend(slot.waker.take());
        }
    }

    /// Gives calls whose deadline has passed that outcome, and finds the next deadline.
    fn expire(&mut self, now: Instant, woken: &mut Vec<Waker>) {
        if self.next_deadline.is_none_or(|next| next > now) {
            return;
        }
        let unsent = match self.standing {
            Standing::Unused | Standing::Connecting => Phase::Connect,
            _ => Phase::Queue,
        };
        let (mut next, mut dead, mut ungranted, mut passed) = (None::<Instant>, 0, 0, 0);
        let (batch_number, choice) = (self.batch_number, &self.choice);
        self.slots.each(|_, slot| {
            if slot.is_abandoned || slot.outcome.is_some() {
                return;
            }
            if slot.deadline > now {
                next = Some(next.map_or(slot.deadline, |next| next.min(slot.deadline)));
                return;
            }
            let phase = match slot.stage {
                Stage::Written(batch) if batch < batch_number => Phase::Server,
                Stage::Written(_) => {
                    dead += 1;
                    unsent
                }
                Stage::Granted(bytes) => {
                    ungranted += bytes;
                    slot.end(choice);
                    unsent
                }
                _ => {
                    slot.end(choice);
                    unsent
                }
            };
            passed += 1;
            slot.outcome = Some(Err(Failure::Deadline(phase)));
            woken.extend(slot.waker.take());
        });
        self.next_deadline = next;
        self.dead_in_batch += dead;
        self.granted_bytes -= ungranted;
        self.counts.deadlines += passed;
    }

    /// Hands out replies of a message, no more than `left`, and takes them off it.
    fn answer(
        &mut self,
        message: &mut Bytes,
        left: &mut usize,
        woken: &mut Vec<Waker>,
    ) -> Result<(), codec::Unreadable> {
        let (mut answered, slots, choice) = (0, &mut self.slots, &self.choice);
        let read = codec::replies_up_to(message, left, |raw| {
            let Some((id, slot)) = slots.of_reply(raw.id) else { return Ok(()) };
            slot.end(choice);
            answered += 1;
            if slot.is_abandoned || slot.outcome.is_some() {
                slots.free_if_over(id);
                return Ok(());
            }
            slot.outcome = Some(Ok(Reply { kind: raw.kind, result: message.slice_ref(raw.result) }));
            woken.extend(slot.waker.take());
            Ok(())
        })?;
        self.outstanding -= answered;
        self.counts.replies += answered as u64;
        self.counts.bytes_received += read as u64;
        bytes::Buf::advance(message, read);
        Ok(())
    }

    /// The stream is gone: what was sent fails, what was not is kept for the next one.
    fn broke(&mut self, fault: &Arc<Fault>, woken: &mut Vec<Waker>) {
        let (batch_number, choice, mut broken) = (self.batch_number, &self.choice, 0);
        self.slots.each(|_, slot| {
            if matches!(slot.stage, Stage::Written(batch) if batch < batch_number) {
                slot.end(choice);
                broken += 1;
                if !slot.is_abandoned && slot.outcome.is_none() {
                    slot.outcome = Some(Err(Failure::Broken(fault.clone())));
                    woken.extend(slot.waker.take());
                }
            }
        });
        self.outstanding -= broken;
    }

    /// The node is out: what was not sent fails too.
    fn fail_unsent(&mut self, fault: &Arc<Fault>, woken: &mut Vec<Waker>) {
        let choice = &self.choice;
        self.slots.each(|_, slot| {
            let is_over = slot.stage == Stage::Done;
            slot.end(choice);
            if !is_over && !slot.is_abandoned && slot.outcome.is_none() {
                slot.outcome = Some(Err(Failure::Out(fault.clone())));
                woken.extend(slot.waker.take());
            }
        });
        self.queue.clear();
        self.batch.clear();
        (self.message_at, self.message_commands) = (0, 0);
        (self.dead_in_batch, self.granted_bytes, self.outstanding) = (0, 0, 0);
        (self.span, self.commands_before) = (Gathering::default(), self.counts.commands);
    }
}

#[cfg(test)]
mod tests;
