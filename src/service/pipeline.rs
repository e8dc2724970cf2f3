//! Cache.Pipeline: many commands a message, answered in order.
//!
//! The response's body *is* the loop: asked for a frame, it reads request messages and does their commands until
//! replies are worth sending. It is asked only while the peer's flow-control window has room, so a client that
//! writes without reading is stopped by flow control, and what the stream holds is bounded by one request message
//! and [`REPLIES_BYTES`] of replies (plus one value). Replies count in the node's backlog: while it has no room for
//! long answers, fewer are sent at a time and a long one is refused by itself; where it has no room at all the
//! stream ends. Gets in a row are read together. Commands in memory are done as they are read, so a Cancel finds its
//! command answered already; it has no reply of its own. A stream whose listener ends reads no more.

mod commands;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio::task::spawn_blocking;
use tonic::Status;

use super::below::joined;
use super::body::{ResponseBody, ok_trailers};
use super::data::{Ending, Plane};
use super::frame::{PREFIX, finish, message_len};
use super::slow::recall_first;
use crate::api::CallError;
use crate::clock::monotonic;
use crate::telemetry::SlowCalls;
use commands::{Message, Replies, check_length, run, waits};

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
    /// A message whose commands look for entries below memory, on a thread that may block. Those behind it wait.
    below: Option<Below>,
}

/// A message that is worked on elsewhere, its replies, and why no more are worked on.
type Below = Pin<Box<dyn Future<Output = (Message, Replies, Result<(), CallError>)> + Send>>;

/// Whether the journal is well when it has synced what was done.
type Flushed = Pin<Box<dyn Future<Output = bool> + Send>>;

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
            below: None,
        }
    }

    /// Does what is ready, until there are replies enough; whether the stream has to wait for the client then.
    fn work(&mut self, cx: &mut Context<'_>, out: &mut Replies) -> Result<Poll<()>, Ended> {
        // Read when a message is done; the next one that is here already arrived by then.
        let mut clock = None;
        while !out.are_enough() {
            if let Some(below) = &mut self.below {
                let Poll::Ready((message, replies, done)) = below.as_mut().poll(cx) else {
                    return Ok(Poll::Pending);
                };
                self.below = None;
                *out = replies;
                done?;
                clock = self.put_back(message);
            } else if let Some(mut message) = self.message.take() {
                if out.bytes.is_empty() && self.plane.backlog.room(0) == 0 {
                    return Err(self.plane.backlog.full().into());
                }
                if waits(&self.plane.cache, &message) {
                    // What is done is answered first.
                    if !out.bytes.is_empty() {
                        self.message = Some(message);
                        return Ok(Poll::Ready(()));
                    }
                    self.below = Some(work_below(Arc::clone(&self.plane), message));
                    continue;
                }
                work_on(&self.plane, &mut message, out)?;
                clock = self.put_back(message);
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

    /// Keeps a message for later if it is not done; else the time now.
    fn put_back(&mut self, message: Message) -> Option<Instant> {
        if message.is_done() {
            return Some(self.finish_message(&message));
        }
        self.message = Some(message);
        None
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

/// Does a message's commands until they are done or there are replies enough.
fn work_on(plane: &Plane, message: &mut Message, out: &mut Replies) -> Result<(), CallError> {
    let at = out.bytes.len();
    out.bytes.resize(at + PREFIX, 0);
    let done = run(&plane.cache, message, out);
    if out.bytes.len() == at + PREFIX {
        out.bytes.truncate(at);
    } else {
        finish(&mut out.bytes, at);
    }
    done
}

fn work_below(plane: Arc<Plane>, mut message: Message) -> Below {
    Box::pin(joined(spawn_blocking(move || {
        let mut out = Replies::new(&plane, 0);
        let done = work_on(&plane, &mut message, &mut out);
        (message, out, done)
    })))
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
