//! A connection's bytes, followed frame by frame on their way to and from HTTP/2: a peer whose frames ask for nothing is
//! told to go away ([`FrameBudget`]), and one that sends without end lets others have their turn. While the node is asked for
//! more than it can do, some connections are not read ([`super::load`]); what has piled up there is refused unread
//! ([`Shedding`]).
//!
//! HTTP/2 reads as long as there is something to read. So the socket shows nothing more to it when a connection has worked
//! for [`TURN`]; the connection goes to the end of the queue of what is ready, and reads on from there.

mod arrivals;
mod budget;
mod field_block;
mod reading;
mod scanner;
mod shedding;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::listen::Unread;
use super::preface::PREFACE;
use crate::clock::{monotonic, since};
use arrivals::Arrivals;
use budget::FrameBudget;
pub(crate) use reading::Reading;
use scanner::{FrameScanner, GOAWAY, put_head};
use shedding::{Age, Refuses, Shedding};

/// How long a connection reads before others have their turn.
const TURN: Duration = Duration::from_micros(500);
/// What is read in a turn where streams of commands have to wait for theirs: the others wait in the socket, where it is known
/// since when.
const COMMANDS_BYTES: usize = 16 << 10;
/// While a stream has commands that were read and are not done, more is read after this only.
const UNDONE_INTERVAL: Duration = Duration::from_millis(5);
/// Refusals that wait for the peer to read them; with more, nothing is read.
const ANSWERS_BYTES_MAX: usize = 256 << 10;
/// Turns that end with something left to read, one after another, before requests are refused for it: a process that was
/// stopped for a while catches up within fewer.
const TURNS_BEHIND_MIN: u32 = 4;
/// Of the time that callers wait, the part after which what has piled up is refused with all that is behind it.
const PILED_UP: f64 = 0.75;
/// And the part after which a request would be answered too late.
const OLD: f64 = 0.9;

/// A connection's bytes, from the preface on.
#[derive(Debug)]
pub(crate) struct FollowedIo<I> {
    io: I,
    received: FrameScanner,
    /// The newest stream that the peer began.
    newest: u32,
    sent: FrameScanner,
    budget: FrameBudget,
    reading: Reading,
    /// When this turn's reading began, and how much may be read in it.
    begun: Instant,
    bytes_left: usize,
    arrivals: Arrivals,
    /// While it has a backlog.
    shedding: Option<Box<Shed>>,
    parked: Option<Instant>,
    /// How long it was before its socket was last empty.
    parked_for: Duration,
    /// Others that are ready have their turn before this connection has its own.
    gives_way: bool,
}

/// What is done while a connection has a backlog.
#[derive(Debug)]
struct Shed {
    frames: Shedding,
    refuses: Refuses,
    /// How long requests may lie unread.
    delay_max: Duration,
    /// Requests of another age are given out in the next turn only, as HTTP/2 hands all out at a turn's end.
    waits: bool,
    has_ended: bool,
}

impl<I> FollowedIo<I> {
    /// Follows these; the connection's task has the other clone of `reading`.
    pub(crate) fn new(io: I, reading: Reading) -> Self {
        let begun = monotonic();
        Self {
            io,
            received: FrameScanner::after(PREFACE.len()),
            newest: 0,
            sent: FrameScanner::default(),
            budget: FrameBudget::new(begun),
            reading,
            begun,
            bytes_left: usize::MAX,
            arrivals: Arrivals::new(begun),
            shedding: None,
            parked: None,
            parked_for: Duration::ZERO,
            gives_way: false,
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unread + Unpin> FollowedIo<I> {
    /// Lets others have their turn before this one, while the node is asked for more than it can do. Ready when it may begin.
    fn give_way(&mut self, now: Instant, context: &mut Context<'_>) -> Poll<()> {
        let is_early = now.saturating_duration_since(self.begun) < UNDONE_INTERVAL;
        if is_early && self.reading.unread_time().has_undone() {
            self.gives_way = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.reading.load().gives_way() && !std::mem::replace(&mut self.gives_way, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.gives_way = false;
        Poll::Ready(())
    }

    fn begin_turn(&mut self, now: Instant, was_parked: bool) {
        self.begun = now;
        let io = &self.io;
        self.arrivals.begin_turn(self.begun, || io.unread());
        let is_behind = self.arrivals.is_behind() || self.shedding.is_some();
        self.reading.set_behind(is_behind);
        if is_behind {
            self.begin_turn_behind(was_parked);
        }
    }

    /// Sees which requests are to be refused.
    fn begin_turn_behind(&mut self, was_parked: bool) {
        let now = self.begun;
        let timeout = self.reading.timeout();
        let refuses = self.refuses(timeout, was_parked);
        // What is left came later.
        let oldest = match refuses {
            Refuses::All => now,
            Refuses::NONE => self.oldest(),
            Refuses::Within(_) => now.checked_sub(timeout.mul_f64(OLD)).unwrap_or(now),
        };
        self.reading.set_oldest(oldest);
        match &mut self.shedding {
            Some(shed) => {
                shed.refuses = if shed.refuses == Refuses::All { Refuses::All } else { refuses };
                shed.waits = false;
            }
            None if refuses != Refuses::NONE => {
                let delay_max = timeout.mul_f64(PILED_UP);
                let refusal = self.reading.refusal(delay_max);
                let frames = Shedding::new(self.received.clone(), self.newest, refusal);
                let shed = Shed { frames, refuses, delay_max, waits: false, has_ended: false };
                self.shedding = Some(Box::new(shed));
            }
            None => {}
        }
    }

    fn refuses(&self, timeout: Duration, was_parked: bool) -> Refuses {
        let now = self.begun;
        let oldest = self.arrivals.oldest();
        let is_piled_up = was_parked || self.arrivals.is_behind_for(TURNS_BEHIND_MIN);
        if is_piled_up && now.saturating_duration_since(oldest) > timeout.mul_f64(PILED_UP) {
            return Refuses::All;
        }
        // Where nobody watches the load, nobody knows how long a connection has to wait for its turn at the most.
        match (self.reading.load().delay(), now.checked_sub(timeout.mul_f64(OLD))) {
            (Some(_), Some(before)) => Refuses::Within(self.arrivals.older(before, self.oldest())),
            _ => Refuses::NONE,
        }
    }

    /// When the oldest byte came that is read next, as far as it is known: for certain, or no longer ago than anything waits
    /// for its turn.
    fn oldest(&self) -> Instant {
        let oldest = self.arrivals.oldest();
        let bound = |delay| self.begun.checked_sub(delay + self.parked_for).unwrap_or(oldest);
        let Some(delay) = self.reading.load().delay() else { return oldest };
        oldest.max(bound(delay)).min(self.arrivals.next_by())
    }

    /// Whether no more is read in this turn.
    fn is_turn_over(&self) -> bool {
        self.bytes_left == 0 || since(self.begun) >= TURN
    }

    /// Reads as much as may be read in this turn, of which something is left.
    fn poll_read_bounded(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.bytes_left >= buffer.remaining() {
            return Pin::new(&mut self.io).poll_read(context, buffer);
        }
        let mut room = [0; COMMANDS_BYTES];
        let bytes_max = self.bytes_left.min(COMMANDS_BYTES);
        let mut part = ReadBuf::new(&mut room[..bytes_max]);
        ready!(Pin::new(&mut self.io).poll_read(context, &mut part))?;
        buffer.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }

    /// Reads, and looks at what was read.
    fn read_into(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        is_looked_at: bool,
    ) -> Poll<io::Result<usize>> {
        let before = buffer.filled().len();
        match self.poll_read_bounded(context, buffer) {
            Poll::Ready(read) => read?,
            Poll::Pending => {
                self.arrivals.drained();
                self.parked_for = Duration::ZERO;
                return Poll::Pending;
            }
        }
        let bytes = &buffer.filled()[before..];
        self.arrivals.read(bytes.len());
        self.bytes_left = self.bytes_left.saturating_sub(bytes.len());
        if self.arrivals.is_behind() {
            // For certain, or no longer than anything waits for its turn: where that is not known, it is nothing.
            let (waited, for_certain) = (since(self.arrivals.latest()), since(self.arrivals.latest_by()));
            let delay = self.reading.load().delay().unwrap_or_default();
            self.reading.set_waited(waited.min(delay + self.parked_for).max(for_certain));
        }
        let (budget, newest, mut calls) = (&mut self.budget, &mut self.newest, 0);
        self.received.scan(bytes, |frame| {
            let before = *newest;
            *newest = frame.newest(before);
            budget.received(frame, *newest);
            calls += u64::from(*newest > before);
        });
        if self.arrivals.is_behind() && !is_looked_at {
            self.reading.count_calls(calls);
        }
        let read = bytes.len();
        if self.budget.is_spent(monotonic) {
            if self.sent.is_between_frames() {
                // As far as there is room for it.
                let _ = Pin::new(&mut self.io).poll_write(context, &go_away());
            }
            self.reading.set_spent();
            return Poll::Ready(Err(io::Error::other("too many frames that ask for nothing")));
        }
        Poll::Ready(Ok(read))
    }

    /// Reads what is left of the frames that were looked at.
    fn poll_shedding(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let is_turn_over = self.is_turn_over();
            let Some(shed) = &mut self.shedding else { return Poll::Ready(Ok(())) };
            let passed = shed.frames.passed();
            if !passed.is_empty() && !shed.waits {
                // What was given before has been handed out, at the end of the turn.
                self.reading.set_too_old((shed.frames.age() == Age::TooOld).then_some(shed.delay_max));
                let given = passed.len().min(buffer.remaining());
                buffer.put_slice(&passed[..given]);
                shed.frames.give(given);
                return Poll::Ready(Ok(()));
            }
            if shed.has_ended && !shed.waits {
                return Poll::Ready(Ok(()));
            }
            if shed.waits || is_turn_over {
                context.waker().wake_by_ref();
                let _ = self.send_answers(context);
                return Poll::Pending;
            }
            shed.waits = shed.frames.look(&mut shed.refuses);
            let (refused, passed) = shed.frames.take_counts();
            self.reading.count_calls(passed);
            if refused > 0 {
                self.reading.count_refused(refused, shed.refuses != Refuses::All);
            }
            if shed.waits || !shed.frames.passed().is_empty() {
                continue;
            }
            if shed.frames.answers().len() > ANSWERS_BYTES_MAX {
                ready!(self.send_answers(context))?;
                if self.shedding.as_mut().is_some_and(|shed| !shed.frames.answers().is_empty()) {
                    // The peer does not read a frame that HTTP/2 is sending.
                    return Poll::Pending;
                }
                continue;
            }
            if ready!(self.read_unseen(context))? == 0
                && let Some(shed) = &mut self.shedding
            {
                shed.frames.end();
                shed.has_ended = true;
            }
        }
    }

    /// Reads what is to be looked at. Where there is nothing for now, the backlog may be over.
    fn read_unseen(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(mut shed) = self.shedding.take() else { return Poll::Ready(Ok(0)) };
        let read = shed.frames.fill(|room| self.read_into(context, &mut ReadBuf::new(room), true));
        self.shedding = Some(shed);
        if read.is_pending() {
            if let Some(shed) = &mut self.shedding {
                shed.refuses = Refuses::NONE;
                shed.frames.answer_all();
            }
            let _ = self.send_answers(context);
            let Some(shed) = &mut self.shedding else { return read };
            if shed.frames.is_over() {
                self.shedding = None;
            }
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> FollowedIo<I> {
    /// Sends refusals, as far as there is room, where no other frame has begun. Ready when none is left.
    fn send_answers(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(shed) = &mut self.shedding else { return Poll::Ready(Ok(())) };
        let answers = shed.frames.answers();
        while !answers.is_empty() && self.sent.is_between_frames() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(context, answers))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            answers.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unread + Unpin> AsyncRead for FollowedIo<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.parked.is_some() || this.gives_way || this.reading.take_turn() {
            let now = monotonic();
            ready!(this.give_way(now, context));
            if !this.reading.load().may_read(now, context.waker()) {
                if this.parked.is_none() {
                    this.parked = Some(now);
                    this.arrivals.park();
                }
                return Poll::Pending;
            }
            let parked = this.parked.take();
            this.parked_for += parked.map_or(Duration::ZERO, |parked| now.saturating_duration_since(parked));
            this.begin_turn(now, parked.is_some());
            let has_undone = this.reading.unread_time().has_undone();
            let is_bounded = has_undone || (this.arrivals.is_behind() && this.reading.has_commands());
            this.bytes_left = if is_bounded { COMMANDS_BYTES } else { usize::MAX };
        } else if this.is_turn_over() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.shedding.is_some() {
            return this.poll_shedding(context, buffer);
        }
        this.read_into(context, buffer, false).map_ok(drop)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for FollowedIo<I> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // One of them may be sent in part.
        ready!(this.send_answers(context))?;
        let written = ready!(Pin::new(&mut this.io).poll_write_vectored(context, slices))?;
        let mut left = written;
        for slice in slices {
            let taken = left.min(slice.len());
            this.sent.scan(&slice[..taken], |frame| this.budget.sent(frame));
            left -= taken;
        }
        let _ = this.send_answers(context);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// GOAWAY on stream 0, which names no stream as done and ENHANCE_YOUR_CALM as the reason.
fn go_away() -> Vec<u8> {
    const LAST_STREAM: u32 = u32::MAX >> 1;
    const ENHANCE_YOUR_CALM: u32 = 11;
    let mut frame = Vec::new();
    put_head(&mut frame, 8, GOAWAY, 0, 0);
    frame.extend([LAST_STREAM, ENHANCE_YOUR_CALM].map(u32::to_be_bytes).concat());
    frame
}

#[cfg(test)]
mod tests;
