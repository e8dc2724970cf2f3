//! Cache.Pipeline: many commands a message, answered in order.
//!
//! The response's body *is* the loop: asked for a frame, it reads request messages and does their commands until
//! replies are worth sending. It is asked only while the peer's flow-control window has room, so a client that writes
//! without reading is stopped by flow control, and what the stream holds is bounded by one request message,
//! [`REPLIES_BYTES`] of replies (plus one value) and what waits. Replies count in the node's response backlog: while it
//! has no room for long answers, fewer are sent at a time and a long one is refused by itself; where it has no room at
//! all the stream ends. After [`COMMANDS_PER_TURN`] commands others run first. Gets in a row are read together.
//! Commands in memory are done as they are read, so a Cancel finds its command answered already; it has no reply of its
//! own. Those whose entry lies on disk, and those behind them on the same key, are deferred ([`deferred`]) and answered
//! later; the others go on, until one more has no room to wait: then no more are done until one of them is. A write
//! that the journal's backlog has no room for holds up all that is behind it, until its turn has come
//! ([`journal_queue`]): flow control stops the client meanwhile. Replies of FLUSHED writes are sent when the disk has
//! what they tell of, and hold up none of the others. A stream whose listener ends reads no more, and one that ends
//! answers what waits first.

mod commands;
mod deferred;
mod gets;
mod journal_queue;
mod replies;
mod unread;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame};
use tonic::{Code, Status};

use super::data::{Ending, Plane};
use super::long_requests::{RequestPermit, SHORT_REQUEST_BYTES_MAX, UNCOUNTED_BYTES_MAX};
use super::slow::describe_first;
use crate::clock::{UndoneCommands, monotonic};
use crate::grpc::frame::{PREFIX, finish, message_len};
use crate::grpc::{Failure, GrpcError, ResponseBody, ok_trailers};
use crate::request::CallError;
use crate::telemetry::{CallSpan, SlowCalls};
use commands::{BacklogTurn, Defer, Message, NoDefer, check_length, run};
use deferred::DeferredCommands;
use journal_queue::{AHEAD_BYTES, Queued, ReadAhead, poll_turn, refuse};
use replies::Replies;
use unread::{ParkedBuffers, StreamBuffers};

/// A Pipeline stream: the request's body in, replies out.
pub(super) struct PipelineBody<B> {
    incoming: Pin<Box<B>>,
    plane: Arc<Plane>,
    /// The end of the last frame that is no whole message yet.
    partial: BytesMut,
    /// Its place in the budget, if it is long.
    permit: Option<RequestPermit>,
    /// The message that is being worked on.
    message: Option<Message>,
    /// Its place in the journal's queue, if it had to wait for the backlog.
    queued: Option<Box<Queued>>,
    /// What it has read while it waited there.
    ahead: ReadAhead,
    /// The client has sent its last.
    half_closed: bool,
    ended: Option<Ended>,
    done: bool,
    /// How many bytes of replies the last frame had.
    replies_before: usize,
    /// How many commands are done before others run.
    commands_left: usize,
    /// The end of the listener; `None`: it has come.
    ending: Option<Ending>,
    slow: SlowCalls,
    undone: UndoneCommands,
    /// Replies that wait until what they tell of is on the disk, in the order in which it comes there. They hold nothing
    /// up: what does not wait is answered before them.
    flushing: VecDeque<FlushingReplies>,
    /// Commands that wait for entries on disk, and those that wait for them; `None`: there were none yet.
    deferred: Option<Box<DeferredCommands>>,
    /// What it holds of long messages, while its client has a frame to read.
    unread: Option<ParkedBuffers>,
}

/// Reading this number of bytes of a message counts as one command.
const BYTES_PER_COMMAND: usize = 256;
/// Commands that are done before others run: some 200 µs of work.
const COMMANDS_PER_TURN: usize = 512;
/// Batches of replies that may wait for the disk; beyond that no more commands are done.
const FLUSHING_MAX: usize = 64;

/// What a stream's body answers when it is polled.
type Answered = Poll<Option<Result<Frame<Bytes>, Status>>>;

/// Replies that wait until what they tell of is on the disk.
struct FlushingReplies {
    framed: Vec<u8>,
    flushed: Flushed,
    /// Of the commands that have spans of their own.
    spans: Vec<CallSpan>,
}

/// Whether the journal is well when it has synced what was done.
type Flushed = Pin<Box<dyn Future<Output = bool> + Send>>;

impl<B> PipelineBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(incoming: B, plane: Arc<Plane>, slow: SlowCalls) -> Self {
        let (ending, undone) = (Some((plane.ending)()), UndoneCommands::none(&plane.unread));
        Self {
            incoming: Box::pin(incoming),
            plane,
            partial: BytesMut::new(),
            permit: None,
            message: None,
            queued: None,
            ahead: ReadAhead::default(),
            half_closed: false,
            ended: None,
            done: false,
            replies_before: 0,
            commands_left: COMMANDS_PER_TURN,
            ending,
            slow,
            undone,
            flushing: VecDeque::new(),
            deferred: None,
            unread: None,
        }
    }

    /// Does what is ready, until there are replies enough; whether the stream has to wait for the client then.
    fn work(&mut self, cx: &mut Context<'_>, out: &mut Replies) -> Result<Poll<()>, Ended> {
        // Read when a message is done; the next one that is here already arrived by then.
        let mut clock = None;
        while !out.are_enough() {
            if let Some(mut message) = self.message.take() {
                if out.bytes.is_empty() && self.plane.response_backlog.room(0) == 0 {
                    return Err(self.plane.response_backlog.full().into());
                }
                if message.turn == BacklogTurn::Wanted && self.poll_turn(&mut message, cx).is_pending() {
                    if self.read_ahead(cx)?.is_pending() {
                        self.message = Some(message);
                        return Ok(Poll::Pending);
                    }
                    refuse(&mut self.queued, &mut message);
                }
                self.work_on(&mut message, out)?;
                if message.is_held {
                    let waits = self.read_ahead(cx)?.is_pending();
                    if !waits {
                        refuse(&mut self.queued, &mut message);
                    }
                    self.message = Some(message);
                    if waits {
                        return Ok(Poll::Pending);
                    }
                } else {
                    clock = self.put_back(message);
                }
            } else if self.is_admitted(cx)?.is_pending() {
                return Ok(Poll::Pending);
            } else if let Some(bytes) = self.split_message()? {
                // One may be long and have no commands.
                out.commands_left = out.commands_left.saturating_sub(1 + bytes.len() / BYTES_PER_COMMAND);
                let read = clock.take().unwrap_or_else(monotonic);
                let mut message = Message::new(bytes, self.arrived(read));
                // A short one counts where it waits.
                message.permit = self.permit.take().filter(|_| message.bytes.len() > SHORT_REQUEST_BYTES_MAX);
                self.message = Some(message);
            } else if self.half_closed {
                return Err(if self.partial.is_empty() {
                    Ended::Whole
                } else {
                    Ended::at("it ends inside a frame")
                });
            } else {
                clock = None;
                if self.read(cx)?.is_pending() {
                    return Ok(Poll::Pending);
                }
            }
        }
        Ok(Poll::Ready(()))
    }

    /// When a message that was read then came.
    fn arrived(&self, read: Instant) -> Instant {
        read.checked_sub(self.plane.unread.waited()).unwrap_or(read)
    }

    /// Does a message's commands until they are done or there are replies enough.
    fn work_on(&mut self, message: &mut Message, out: &mut Replies) -> Result<(), CallError> {
        out.begin();
        let cache = &self.plane.cache;
        let done = if cache.has_disk_tier() {
            run(cache, message, &mut **self.deferred.get_or_insert_default(), out)
        } else if let Some(deferred) = self.deferred.as_deref_mut().filter(|deferred| !deferred.is_empty()) {
            run(cache, message, deferred, out)
        } else {
            run(cache, message, &mut NoDefer, out)
        };
        out.end();
        done
    }

    /// Whether commands wait that are not answered.
    fn waits(&self) -> bool {
        self.deferred.as_ref().is_some_and(|deferred| !deferred.is_empty())
    }

    /// Puts the replies of commands that waited; whether something has changed.
    fn collect(&mut self, cx: &mut Context<'_>, out: &mut Replies) -> bool {
        let is_backlogged = self.deferred.as_ref().is_some_and(|deferred| deferred.is_backlogged());
        let is_ending = is_backlogged && self.poll_ending(cx);
        self.deferred.as_mut().is_some_and(|deferred| deferred.collect(cx, is_ending, &self.slow, out))
    }

    /// Keeps replies until what was done by now is on the disk.
    fn flush_then_send(&mut self, replies: &[u8], spans: Vec<CallSpan>) {
        let flushed = self.plane.cache.flushed();
        let mut framed = vec![0; PREFIX];
        framed.extend_from_slice(replies);
        finish(&mut framed, 0);
        let flushed = Box::pin(async move { flushed.await.is_ok() });
        self.flushing.push_back(FlushingReplies { framed, flushed, spans });
    }

    /// The replies that need not wait for the disk any more; `None`: those that wait have to. Where the journal fails,
    /// the stream ends.
    fn poll_flushing(&mut self, cx: &mut Context<'_>) -> Option<Answered> {
        let front = self.flushing.front_mut()?;
        match front.flushed.as_mut().poll(cx) {
            Poll::Pending => None,
            Poll::Ready(true) => {
                let FlushingReplies { framed, spans, .. } = self.flushing.pop_front()?;
                spans.into_iter().for_each(|span| span.end(Some(Code::Ok)));
                Some(Poll::Ready(Some(Ok(Frame::data(self.plane.response_backlog.count_in(framed))))))
            }
            Poll::Ready(false) => {
                let spans = self.flushing.drain(..).flat_map(|replies| replies.spans);
                spans.for_each(|span| span.end(Some(CallError::JournalPoisoned.code())));
                self.ended = Some(CallError::JournalPoisoned.into());
                None
            }
        }
    }

    /// Keeps a message for later if it is not done; else the time now.
    fn put_back(&mut self, message: Message) -> Option<Instant> {
        if message.is_done() {
            self.queued = None;
            return Some(self.finish_message(&message));
        }
        self.message = Some(message);
        None
    }

    /// Keeps a message that took long; the time now.
    fn finish_message(&self, message: &Message) -> Instant {
        let now = monotonic();
        let elapsed = now.saturating_duration_since(message.arrived);
        if self.plane.unread.matters() {
            self.plane.unread.note_commands(message.done as u64);
        }
        if self.slow.is_slow(elapsed)
            && let Some((verb, about)) = describe_first(&message.bytes)
        {
            self.slow.keep(verb, about, elapsed, Duration::ZERO, message.code);
        }
        now
    }

    /// Whether the listener ends; if not, the task is woken when it does.
    fn poll_ending(&mut self, cx: &mut Context<'_>) -> bool {
        if self.ending.as_mut().is_some_and(|ending| ending.as_mut().poll(cx).is_ready()) {
            self.ending = None;
        }
        self.ending.is_none()
    }

    /// Waits until the message's next command, which the journal's backlog had no room for, may be tried again.
    fn poll_turn(&mut self, message: &mut Message, cx: &mut Context<'_>) -> Poll<()> {
        let is_ending = self.poll_ending(cx);
        poll_turn(&mut self.queued, &self.plane, message, is_ending, cx)
    }

    /// Waits until the message that comes next may be read, if it is long.
    fn is_admitted(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Ended> {
        let max = self.plane.cache.limits().message_in_bytes_max;
        let is_next = |len: &usize| *len > UNCOUNTED_BYTES_MAX && self.partial.len() < PREFIX + *len;
        // One that is whole is done, also when the listener ends.
        let Some(len) = message_len(&self.partial, max)?.filter(is_next) else {
            return Ok(Poll::Ready(()));
        };
        if self.poll_ending(cx) {
            return Err(Self::draining());
        }
        let (plane, bytes) = (&self.plane, PREFIX + len);
        let permit = match self.permit.take() {
            Some(permit) => permit,
            None => plane.requests.admit(bytes, &plane.stopped)?,
        };
        if self.permit.insert(permit).poll(cx).is_pending() {
            return Ok(Poll::Pending);
        }
        self.partial.reserve(bytes.saturating_sub(self.partial.len()));
        Ok(Poll::Ready(()))
    }

    fn draining() -> Ended {
        CallError::stream_ends().into()
    }

    /// Reads what the client sends next, unless the listener ends: all that was read before is answered by then.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Ended> {
        if self.poll_ending(cx) {
            return Err(Self::draining());
        }
        self.ahead = ReadAhead::default();
        if self.read_frame(cx)?.is_pending() {
            let slow = self.permit.as_mut().map_or(Poll::Pending, |permit| permit.poll_slow(cx));
            return match slow {
                Poll::Ready(error) => Err(error.into()),
                Poll::Pending => Ok(Poll::Pending),
            };
        }
        Ok(Poll::Ready(()))
    }

    /// Reads the client's next frame.
    fn read_frame(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Ended> {
        let Poll::Ready(frame) = self.incoming.as_mut().poll_frame(cx) else { return Ok(Poll::Pending) };
        match frame {
            None => self.half_closed = true,
            Some(Err(error)) => return Err(Ended::Broken(error.into())),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.partial.extend_from_slice(&data);
                }
            }
        }
        Ok(Poll::Ready(()))
    }

    /// Reads what the client sends while a message waits for its turn, as far as there is room; ready: the client is not
    /// to be stopped, so the message's next command is to be refused.
    fn read_ahead(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Ended> {
        while !self.half_closed {
            let before = self.partial.len();
            if before >= AHEAD_BYTES {
                let has_short_frames = self.ahead.has_short_frames();
                return Ok(if has_short_frames { Poll::Ready(()) } else { Poll::Pending });
            }
            if self.read_frame(cx)?.is_pending() {
                break;
            }
            self.ahead.note(self.partial.len() - before);
        }
        Ok(Poll::Pending)
    }

    /// Takes the next whole message off what was read.
    fn split_message(&mut self) -> Result<Option<Bytes>, Ended> {
        let max = self.plane.cache.limits().message_in_bytes_max;
        let Some(len) = message_len(&self.partial, max)? else { return Ok(None) };
        if self.partial.len() < PREFIX + len {
            return Ok(None);
        }
        self.partial.advance(PREFIX);
        let message = self.partial.split_to(len).freeze();
        if len > SHORT_REQUEST_BYTES_MAX {
            // Or what is read next keeps the long buffer when the message is done, and counts nowhere.
            self.partial = BytesMut::from(&self.partial[..]);
        }
        check_length(&message, self.plane.cache.limits().batch_items_max)?;
        Ok(Some(message))
    }
}

/// Why no more requests are worked on.
enum Ended {
    /// The client has sent all, and all is done.
    Whole,
    /// The client sent what cannot be worked on.
    Failed(CallError),
    /// The client or the connection is gone.
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

impl Ended {
    fn at(what: &'static str) -> Self {
        Self::Failed(GrpcError::Frame { what }.into())
    }
}

impl<E: Into<CallError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl<B> Body for PipelineBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Answered {
        if let Some(unread) = self.unread.take() {
            self.take_back(unread);
        }
        let answered = self.poll_answers(cx);
        if answered.is_ready()
            && let Some(deferred) = &mut self.deferred
        {
            deferred.leave_queue();
        }
        // Others run now, or the peer takes the frame and asks for the next at once.
        if answered.is_pending() {
            let has_some = self.commands_left == 0;
            self.undone.set(has_some);
            self.commands_left = COMMANDS_PER_TURN;
        }
        // Nobody knows when a stream whose client has a frame to read is asked for the next. Others have the room until
        // then, and so they have while it waits for anything but its turn.
        if answered.is_ready() || !self.queued.as_ref().is_some_and(|queued| queued.is_waiting()) {
            self.queued = None;
            if let Some(message) =
                self.message.as_mut().filter(|message| message.turn == BacklogTurn::Granted)
            {
                message.turn = BacklogTurn::None;
            }
        }
        if answered.is_ready() {
            self.put_aside();
        }
        answered
    }
}

impl<B> PipelineBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Lays what it holds of long messages where others may take it.
    fn put_aside(&mut self) {
        let is_long = self.message.as_ref().is_some_and(|message| message.permit.is_some());
        if is_long || self.permit.is_some() {
            let (message, permit) = (self.message.take(), self.permit.take());
            let held = StreamBuffers { message, permit, partial: std::mem::take(&mut self.partial) };
            self.unread = Some(ParkedBuffers::new(held, &self.plane.requests));
        }
    }

    /// Takes what it holds of long messages back; if others have taken it, the stream ends.
    fn take_back(&mut self, unread: ParkedBuffers) {
        match unread.take_back() {
            Ok(held) => {
                (self.message, self.permit, self.partial) = (held.message, held.permit, held.partial);
                if let Some(permit) = &mut self.permit {
                    // The node did not read meanwhile.
                    permit.pause();
                }
            }
            Err(error) => self.ended = self.ended.take().or(Some(Ended::Failed(error))),
        }
    }

    /// The next frame; pending also when the turn is over, and then it is asked again soon.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Answered {
        if self.done {
            return Poll::Ready(None);
        }
        loop {
            if self.commands_left == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(answered) = self.poll_flushing(cx) {
                return answered;
            }
            if self.flushing.len() >= FLUSHING_MAX || self.ended.is_some() && !self.waits() {
                break;
            }
            let mut out = Replies::new(&self.plane, self.replies_before, self.commands_left);
            if self.ended.is_none() {
                self.ended = self.work(cx, &mut out).err();
            }
            self.commands_left = out.commands_left;
            // Behind the work, so that this task is woken for what was set apart just now.
            let collected = self.collect(cx, &mut out);
            let flushes = !out.later.is_empty();
            if flushes {
                self.flush_then_send(&out.later, std::mem::take(&mut out.later_spans));
            }
            if !out.bytes.is_empty() {
                self.replies_before = out.bytes.len();
                return Poll::Ready(Some(Ok(Frame::data(self.plane.response_backlog.count_in(out.bytes)))));
            }
            if self.commands_left > 0 && !flushes && !collected && (self.ended.is_none() || self.waits()) {
                return Poll::Pending;
            }
        }
        if !self.flushing.is_empty() {
            return Poll::Pending;
        }
        self.done = true;
        Poll::Ready(Some(match self.ended.take() {
            Some(Ended::Broken(error)) => Err(Status::cancelled(error.to_string())),
            Some(Ended::Failed(error)) => Ok(Frame::trailers(ResponseBody::trailers(error))),
            Some(Ended::Whole) | None => Ok(Frame::trailers(ok_trailers())),
        }))
    }
}

#[cfg(test)]
mod tests;
