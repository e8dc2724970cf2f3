//! A connection's bytes, followed frame by frame on their way to and from HTTP/2: a peer whose frames ask for nothing is
//! told to go away ([`FrameBudget`]), and one that sends without end lets others have their turn.
//!
//! HTTP/2 reads as long as there is something to read. So the socket shows nothing more to it when a connection has worked
//! for [`TURN`]; the connection goes to the end of the queue of what is ready, and reads on from there.

mod budget;
mod scanner;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::preface::PREFACE;
use crate::clock::{monotonic, since};
use budget::FrameBudget;
use scanner::{FrameScanner, GOAWAY};

/// How long a connection reads before others have their turn.
const TURN: Duration = Duration::from_micros(500);

/// What a connection's task and its bytes tell each other. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading(Arc<Words>);

#[derive(Debug, Default)]
struct Words {
    turn_begins: AtomicBool,
    is_spent: AtomicBool,
}

impl Reading {
    /// The connection has its turn.
    pub(crate) fn begin_turn(&self) {
        self.0.turn_begins.store(true, Ordering::Relaxed);
    }

    /// Whether the peer has sent too many frames that ask for nothing, so that nothing is read from it any more.
    pub(crate) fn is_spent(&self) -> bool {
        self.0.is_spent.load(Ordering::Relaxed)
    }

    fn take_turn(&self) -> bool {
        self.0.turn_begins.load(Ordering::Relaxed) && self.0.turn_begins.swap(false, Ordering::Relaxed)
    }
}

/// A connection's bytes, from the preface on.
#[derive(Debug)]
pub(crate) struct FollowedIo<I> {
    io: I,
    received: FrameScanner,
    sent: FrameScanner,
    budget: FrameBudget,
    reading: Reading,
    /// When this turn's reading began.
    begun: Instant,
}

impl<I> FollowedIo<I> {
    /// Follows these; the connection's task has the other clone of `reading`.
    pub(crate) fn new(io: I, reading: Reading) -> Self {
        let begun = monotonic();
        Self {
            io,
            received: FrameScanner::after(PREFACE.len()),
            sent: FrameScanner::default(),
            budget: FrameBudget::new(begun),
            reading,
            begun,
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for FollowedIo<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.reading.take_turn() {
            this.begun = monotonic();
        } else if since(this.begun) >= TURN {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(context, buffer))?;
        this.received.scan(&buffer.filled()[before..], |frame| this.budget.received(frame));
        if this.budget.is_spent(monotonic) {
            if this.sent.is_between_frames() {
                // As far as there is room for it.
                let _ = Pin::new(&mut this.io).poll_write(context, &go_away());
            }
            this.reading.0.is_spent.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(io::Error::other("too many frames that ask for nothing")));
        }
        Poll::Ready(Ok(()))
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
        let written = ready!(Pin::new(&mut this.io).poll_write_vectored(context, slices))?;
        let mut left = written;
        for slice in slices {
            let taken = left.min(slice.len());
            this.sent.scan(&slice[..taken], |frame| this.budget.sent(frame));
            left -= taken;
        }
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
fn go_away() -> [u8; 17] {
    let mut frame = [0; 17];
    frame[2] = 8;
    frame[3] = GOAWAY;
    frame[9..13].copy_from_slice(&(u32::MAX >> 1).to_be_bytes());
    frame[16] = 11;
    frame
}
