//! Cache.Pipeline: many commands a message, answered in order.
//!
//! The response's body *is* the loop: asked for a frame, it reads request messages and does their commands until
//! replies are worth sending. It is asked only while the peer's flow-control window has room, so a client that
//! writes without reading is stopped by flow control, and what the stream holds is bounded by one request message
//! and [`REPLIES_BYTES`] of replies (plus one value). Replies count in the node's backlog: while it has no room for
//! long answers, fewer are sent at a time and a long one is refused by itself; where it has no room at all the
//! stream ends. Gets in a row are read together. Commands in memory are done as they are read, so a Cancel finds its command answered already; it
//! has no reply of its own. A stream whose listener ends reads no more.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame};
use tonic::{Code, Status};

use super::backlog::SHORT_BYTES_MAX;
use super::body::{ResponseBody, ok_trailers};
use super::data::{Ending, Plane};
use super::frame::{PREFIX, finish, message_len};
use super::slow::recall_first;
use super::unary::{namespace, put_delete, put_increment, put_set, put_touch};
use crate::api::convert::{self, Direction};
use crate::api::encode::{self, HitMessage, Small};
use crate::api::wire::{CommandView, DeleteView, Field, GetView, Reader, SetView, TouchView, op};
use crate::api::{CallError, Malformed};
use crate::cache::{Cache, KEYS_PER_HOLD};
use crate::clock::{Now, monotonic};
use crate::engine::{EntryView, MissReason, Namespace};
use crate::entry::Limits;
use crate::telemetry::SlowCalls;

/// Replies are sent when this many bytes of them are ready, or when no request is.
const REPLIES_BYTES: usize = 256 << 10;
/// The clock is read again after so many commands.
const COMMANDS_PER_CLOCK: usize = 64;
/// PipelineReply's field for an error.
const REPLY_ERROR: u32 = 9;

/// A Pipeline stream: the request's body in, replies out.
pub(super) struct PipelineBody<B> {
    incoming: Pin<Box<B>>,
    plane: Arc<Plane>,
    /// The end of the last frame that is no whole message yet.
    partial: BytesMut,
    /// The message that is being worked on.
    message: Option<Message>,
    /// The client has sent its last.
    half_closed: bool,
    ended: Option<Ended>,
    done: bool,
    /// How many bytes of replies the last frame had.
    replies_before: usize,
    /// The end of the listener.
    ending: Ending,
    slow: SlowCalls,
    /// Replies that wait until what they tell of is on the disk. Those behind them wait with them: replies of one
    /// stream stay in order.
    flushing: Option<(Vec<u8>, Flushed)>,
}

/// Whether the journal is well when it has synced what was done.
type Flushed = Pin<Box<dyn Future<Output = bool> + Send>>;

struct Message {
    bytes: Bytes,
    /// Where the first command begins that is not done.
    begin: usize,
    arrived: Instant,
    /// How its first command ended.
    code: Code,
    /// How many of its commands are done.
    done: usize,
    /// It was sent by a ring.
    by_ring: bool,
}

impl<B> PipelineBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(incoming: B, plane: Arc<Plane>, ending: Ending, slow: SlowCalls) -> Self {
        Self {
            incoming: Box::pin(incoming),
            plane,
            partial: BytesMut::new(),
            message: None,
            half_closed: false,
            ended: None,
            done: false,
            replies_before: 0,
            ending,
            slow,
            flushing: None,
        }
    }

    /// Does what is ready, until there are replies enough; whether the stream has to wait for the client then.
    fn work(&mut self, cx: &mut Context<'_>, out: &mut Replies) -> Result<Poll<()>, Ended> {
        // Read when a message is done; the next one that is here already arrived by then.
        let mut clock = None;
        while !out.are_enough() {
            if let Some(mut message) = self.message.take() {
                let at = out.bytes.len();
                if at == 0 && self.plane.backlog.room(0) == 0 {
                    return Err(self.plane.backlog.full().into());
                }
                out.bytes.resize(at + PREFIX, 0);
                let done = run(&self.plane.cache, &mut message, out);
                if out.bytes.len() == at + PREFIX {
                    out.bytes.truncate(at);
                } else {
                    finish(&mut out.bytes, at);
                }
                done?;
                if message.is_done() {
                    clock = Some(self.finish_message(&message));
                } else {
                    self.message = Some(message);
                }
            } else if let Some(bytes) = self.split_message()? {
                self.message = Some(Message::new(bytes, clock.take().unwrap_or_else(monotonic)));
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

    /// Keeps a message that took long; the time now.
    fn finish_message(&self, message: &Message) -> Instant {
        let now = monotonic();
        let elapsed = now.saturating_duration_since(message.arrived);
        if self.slow.is_slow(elapsed)
            && let Some((method, about)) = recall_first(&message.bytes)
        {
            self.slow.keep(method, about, elapsed, Duration::ZERO, message.code);
        }
        now
    }

    /// Reads what the client sends next, unless the listener ends: all that was read before is answered by then.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Ended> {
        if self.ending.as_mut().poll(cx).is_ready() {
            let what = "the stream ends; open one on another node".to_owned();
            return Err(CallError::NotReady { state: "draining", what }.into());
        }
        match self.incoming.as_mut().poll_frame(cx) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(None) => self.half_closed = true,
            Poll::Ready(Some(Err(error))) => return Err(Ended::Broken(error.into())),
            Poll::Ready(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    self.partial.extend_from_slice(&data);
                }
            }
        }
        Ok(Poll::Ready(()))
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
        check_length(&message, self.plane.cache.limits().batch_items_max)?;
        Ok(Some(message))
    }
}

impl Message {
    fn new(bytes: Bytes, arrived: Instant) -> Self {
        Self { bytes, begin: 0, arrived, code: Code::Ok, done: 0, by_ring: false }
    }

    fn is_done(&self) -> bool {
        self.begin == self.bytes.len()
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
        Self::Failed(CallError::Frame { what })
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

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.done {
            return Poll::Ready(None);
        }
        if let Some((_, flushed)) = &mut self.flushing {
            let is_well = ready!(flushed.as_mut().poll(cx));
            let Some((replies, _)) = self.flushing.take() else { return Poll::Ready(None) };
            if is_well {
                return Poll::Ready(Some(Ok(Frame::data(self.plane.backlog.hold(replies)))));
            }
            self.ended = Some(CallError::JournalPoisoned.into());
        }
        if self.ended.is_none() {
            let mut out = Replies::new(&self.plane, self.replies_before);
            let worked = self.work(cx, &mut out);
            let (replies, flush) = (out.bytes, out.flush);
            if let Err(ended) = worked {
                self.ended = Some(ended);
            } else if replies.is_empty() {
                return Poll::Pending;
            }
            if !replies.is_empty() {
                self.replies_before = replies.len();
                if flush {
                    let flushed = self.plane.cache.flushed();
                    self.flushing = Some((replies, Box::pin(async move { flushed.await.is_ok() })));
                    return self.poll_frame(cx);
                }
                return Poll::Ready(Some(Ok(Frame::data(self.plane.backlog.hold(replies)))));
            }
        }
        self.done = true;
        Poll::Ready(Some(match self.ended.take() {
            Some(Ended::Broken(error)) => Err(Status::cancelled(error.to_string())),
            Some(Ended::Failed(error)) => Ok(Frame::trailers(ResponseBody::trailers(error))),
            Some(Ended::Whole) | None => Ok(Frame::trailers(ok_trailers())),
        }))
    }
}

/// The replies of a frame.
struct Replies {
    bytes: Vec<u8>,
    /// When so many bytes are here, they are sent.
    enough: usize,
    /// A reply that is longer finds no room in the backlog.
    longest: usize,
    plane: Arc<Plane>,
    /// One of them waits for the disk.
    flush: bool,
}

impl Replies {
    fn new(plane: &Arc<Plane>, likely: usize) -> Self {
        let room = plane.backlog.room(REPLIES_BYTES);
        let enough = if room < REPLIES_BYTES { SHORT_BYTES_MAX } else { REPLIES_BYTES };
        let longest = room.max(SHORT_BYTES_MAX);
        Self {
            bytes: Vec::with_capacity(likely.min(enough)),
            enough,
            longest,
            plane: Arc::clone(plane),
            flush: false,
        }
    }

    #[inline]
    fn are_enough(&self) -> bool {
        self.bytes.len() >= self.enough
    }
}

/// A command takes two bytes or more.
const COMMAND_BYTES_MIN: usize = 2;

/// Refuses a message with too many commands before the first is done. Only a message that may have so many is
/// counted; one that is malformed is for [`run`] to tell.
fn check_length(message: &[u8], max: usize) -> Result<(), CallError> {
    if message.len() / COMMAND_BYTES_MIN <= max {
        return Ok(());
    }
    let mut reader = Reader::new(message);
    let mut items = 0;
    while let Ok(Some((number, _))) = reader.next() {
        items += usize::from(number == 2);
    }
    if items > max { Err(CallError::BatchTooLong { items, max }) } else { Ok(()) }
}

/// Does a message's commands until they are done or there are replies enough; the rest stays in the message.
fn run(cache: &Cache, message: &mut Message, out: &mut Replies) -> Result<(), CallError> {
    let (bytes, limits) = (message.bytes.clone(), &cache.limits());
    let mut reader = Reader::new(&bytes[message.begin..]);
    let (mut gets, mut now) = (Gets::default(), cache.now());
    let end = loop {
        let begin = bytes.len() - reader.remaining();
        let command = match next_command(&mut reader, message) {
            Ok(Some(command)) => command,
            end => break end.map(|_| ()),
        };
        if message.done % COMMANDS_PER_CLOCK == COMMANDS_PER_CLOCK - 1 {
            now = cache.now();
        }
        message.done += 1;
        let taken = !message.by_ring && gets.take(cache, limits, &command, begin);
        if !taken || gets.is_full() {
            if let Some(left) = gets.answer(cache, now, out) {
                message.begin = left;
                return Ok(());
            }
            if !taken {
                answer(cache, now, &command, message, out);
            }
        }
        if out.are_enough() {
            break Ok(());
        }
    };
    let left = gets.answer(cache, now, out);
    message.begin = left.unwrap_or(bytes.len() - reader.remaining());
    if left.is_some() { Ok(()) } else { end }
}

fn next_command<'a>(
    reader: &mut Reader<'a>,
    message: &mut Message,
) -> Result<Option<CommandView<'a>>, CallError> {
    while let Some((number, field)) = reader.next()? {
        match (number, field) {
            (1, Field::Fixed64(0)) => {}
            (1, Field::Fixed64(_)) if message.done == 0 => message.by_ring = true,
            // As no writer of protobuf puts it, and what it was said of is done.
            (1, Field::Fixed64(_)) => {
                return Err(CallError::Frame { what: "ring_epoch stands behind commands" });
            }
            (2, Field::Bytes(command)) => return Ok(Some(CommandView::read(command)?)),
            (field @ (1 | 2), _) => return Err(Malformed::WireType { field }.into()),
            _ => {}
        }
    }
    Ok(None)
}

/// Gets in a row that want nothing but the value: they are read together.
#[derive(Default)]
struct Gets<'a> {
    /// The namespace of all of them, and what the commands call it.
    namespace: Option<Cow<'a, Namespace>>,
    name: &'a str,
    keys: [&'a [u8]; KEYS_PER_HOLD],
    asked: [Asked; KEYS_PER_HOLD],
    len: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    id: u64,
    metadata_only: bool,
    /// Where in the message the command begins.
    begin: usize,
}

impl<'a> Gets<'a> {
    /// Takes a command on, if it is such a Get in the namespace of those before.
    fn take(&mut self, cache: &'a Cache, limits: &Limits, command: &CommandView<'a>, begin: usize) -> bool {
        let Some((op::GET, message)) = command.op else { return false };
        let Ok(view) = GetView::read(message) else { return false };
        match convert::get(&view, limits) {
            Ok(get)
                if get.touch.is_none() && command.timeout_ms == 0 && self.is_in(cache, view.namespace) =>
            {
                self.keys[self.len] = get.key;
                self.asked[self.len] = Asked { id: command.id, metadata_only: get.metadata_only, begin };
                self.len += 1;
                true
            }
            _ => false,
        }
    }

    fn is_in(&mut self, cache: &'a Cache, name: &'a str) -> bool {
        if self.len == 0 {
            self.namespace = cache.namespace(name);
            self.name = name;
        }
        self.namespace.is_some() && self.name == name
    }

    fn is_full(&self) -> bool {
        self.len == KEYS_PER_HOLD
    }

    /// Puts the replies until there are enough; where the first command begins that has none then.
    fn answer(&mut self, cache: &Cache, now: Now, out: &mut Replies) -> Option<usize> {
        let mut left = None;
        let asked = &self.asked;
        let namespace = self.namespace.as_deref()?;
        cache.read_batch(namespace, &self.keys[..self.len], now, |index, read| {
            let Asked { id, metadata_only, begin } = asked[index];
            if out.are_enough() {
                left = Some(begin);
                return ControlFlow::Break(());
            }
            put_read(id, metadata_only, read, out);
            ControlFlow::Continue(())
        });
        self.len = 0;
        left
    }
}

/// Puts the reply of a Get.
#[inline]
fn put_read(id: u64, metadata_only: bool, read: Result<EntryView<'_>, MissReason>, out: &mut Replies) {
    match read {
        Ok(entry) => {
            let hit = HitMessage::new(&entry, metadata_only);
            if hit.len() > out.longest {
                return put_error(id, &out.plane.backlog.full(), &mut out.bytes);
            }
            let mut before = Small::new();
            encode::put_reply_head(&mut before, id, op::GET - 1, hit.len());
            hit.write_after(before, &mut out.bytes);
        }
        Err(reason) => {
            encode::put_reply_head(&mut out.bytes, id, op::GET - 1, encode::MISS_LEN);
            encode::put_miss(&mut out.bytes, reason);
        }
    }
}

fn put_error(id: u64, error: &CallError, out: &mut Vec<u8>) {
    let status = error.to_rpc_status_bytes();
    encode::put_reply_head(out, id, REPLY_ERROR, status.len());
    out.extend_from_slice(&status);
}

/// Does one command and puts its reply.
fn answer(cache: &Cache, now: Now, command: &CommandView<'_>, message: &mut Message, out: &mut Replies) {
    let at = out.bytes.len();
    let late = command.timeout_ms > 0
        && monotonic().saturating_duration_since(message.arrived)
            > Duration::from_millis(command.timeout_ms.into());
    let done = match command.op {
        _ if late => Err(CallError::DeadlineExceeded),
        None => Err(CallError::NoOp),
        Some((op::CANCEL, _)) => return,
        Some(_) if message.by_ring => Err(CallError::NotServed { what: "ring_epoch".to_owned() }),
        Some((op::GET, message)) => put_get(cache, now, command.id, message, out),
        Some((number, message)) => put_other(cache, now, command.id, number, message, out),
    };
    if let Err(error) = done {
        out.bytes.truncate(at);
        if message.done == 1 {
            message.code = error.code();
        }
        put_error(command.id, &error, &mut out.bytes);
    }
}

fn put_get(cache: &Cache, now: Now, id: u64, message: &[u8], out: &mut Replies) -> Result<(), CallError> {
    let view = GetView::read(message)?;
    let get = convert::get(&view, &cache.limits())?;
    let namespace = namespace(cache, view.namespace)?;
    let read = cache
        .read(&namespace, get.key, get.touch, now, |entry| put_read(id, get.metadata_only, Ok(entry), out));
    if let Err(reason) = read {
        put_read(id, false, Err(reason), out);
    }
    Ok(())
}

fn put_other(
    cache: &Cache,
    now: Now,
    id: u64,
    number: u32,
    message: &[u8],
    out: &mut Replies,
) -> Result<(), CallError> {
    // None of these answers is longer than 32 bytes.
    let mut result = Vec::with_capacity(32);
    let flush = match number {
        op::SET => {
            let view = SetView::read(message)?;
            put_set(cache, &*namespace(cache, view.namespace)?, now, &view, &mut result)?
        }
        op::DELETE => put_delete(cache, now, &DeleteView::read(message)?, &mut result)?,
        op::TOUCH => put_touch(cache, now, &TouchView::read(message)?, &mut result)?,
        op::INCREMENT => put_increment(cache, now, message, Direction::Up, &mut result)?,
        op::DECREMENT => put_increment(cache, now, message, Direction::Down, &mut result)?,
        _ => return Err(CallError::NoOp),
    };
    out.flush |= flush;
    encode::put_reply_head(&mut out.bytes, id, number - 1, result.len());
    out.bytes.extend_from_slice(&result);
    Ok(())
}
