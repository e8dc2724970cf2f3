//! Streams whose peer does not read: they are distinguished from streams that have nothing to send yet, and ended.
//!
//! HTTP/2 asks a response's body for a frame when the one before it is on its way. While the peer's window is shut it
//! does not ask, so the body can end the stream neither at the call's deadline nor for any other reason, and the runner
//! of the stream cannot tell why it waits. So the body notes what the stream waits for ([`ProgressBody`], [`until`]) in
//! a thread-local cell while it is polled; the runner reads that cell after each poll ([`listen`]) and keeps the time
//! ([`StallTimer`]). A frame costs one store, and a stream that never waits costs nothing; only a stream that waits for
//! its peer has a timer.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};

use super::unread_answers::UnreadAnswer;
use crate::clock::monotonic;

/// What a stream's body said while the stream was polled.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StreamHint {
    /// `None`: the body was not asked.
    awaits: Option<Awaits>,
    until: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
enum Awaits {
    /// The body, which has nothing to send.
    Body,
    /// The peer, which is to take what the body gave.
    Peer,
}

thread_local! {
    static HINT: Cell<StreamHint> = const { Cell::new(StreamHint { awaits: None, until: None }) };
}

/// Polls a stream, and what its body said.
pub(super) fn listen<T>(poll: impl FnOnce() -> T) -> (T, StreamHint) {
    HINT.set(StreamHint::default());
    let polled = poll();
    (polled, HINT.get())
}

/// Says when the stream whose body is asked now must have ended.
pub(super) fn until(deadline: Instant) {
    HINT.set(StreamHint { until: Some(deadline), ..HINT.get() });
}

fn awaits(what: Awaits) {
    HINT.set(StreamHint { awaits: Some(what), ..HINT.get() });
}

/// How long a stream may wait for its peer.
#[derive(Debug)]
pub(super) struct StallTimer {
    timeout: Duration,
    /// Since when the peer has taken nothing.
    since: Option<Instant>,
    until: Option<Instant>,
    /// Set when it is first needed. Where it turns out to be early it is set anew, as the peer's every read would
    /// otherwise touch the timers that all streams share.
    timer: Option<Pin<Box<Sleep>>>,
}

impl StallTimer {
    /// Waits for a peer that takes nothing for `timeout` at most.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, since: None, until: None, timer: None }
    }

    /// Notes what a stream that is pending now said last.
    pub(super) fn note(&mut self, hint: StreamHint) {
        self.until = hint.until.or(self.until);
        match hint.awaits {
            Some(Awaits::Body) => self.since = None,
            Some(Awaits::Peer) => self.since = Some(monotonic()),
            None => {}
        }
    }

    /// Ready when the stream has waited for its peer too long.
    pub(super) fn poll_lost(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(since) = self.since else { return Poll::Pending };
        let at = since + self.timeout;
        let at = self.until.map_or(at, |until| until.min(at)).into();
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        loop {
            ready!(timer.as_mut().poll(context));
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }
}

pin_project! {
    /// A body that says what its stream waits for, and gives its data in pieces: each that is asked for shows that
    /// the peer took the one before, and HTTP/2, which takes a frame of any size as soon as one byte of it may be
    /// sent, holds no more than one beyond what the peer allows.
    #[derive(Debug)]
    pub(super) struct ProgressBody<B> {
        #[pin]
        body: B,
        rest: Bytes,
        // Dropped with the body.
        unread: Option<UnreadAnswer>,
    }
}

impl<B> ProgressBody<B> {
    pub(super) fn new(body: B, unread: Option<UnreadAnswer>) -> Self {
        Self { body, rest: Bytes::new(), unread }
    }
}

impl<B: Body<Data = Bytes>> Body for ProgressBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if this.rest.is_empty() {
            let Poll::Ready(asked) = this.body.poll_frame(context) else {
                awaits(Awaits::Body);
                return Poll::Pending;
            };
            match asked.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => *this.rest = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        awaits(Awaits::Peer);
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES_MAX));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// A DATA frame as most peers take it, into which HTTP/2 would cut what is larger anyway.
const PIECE_BYTES_MAX: usize = 16 << 10;
