//! Writes gathered: what a connection writes while it is polled once goes to the socket in one call.
//!
//! HTTP/2 flushes after each answer, which costs a system call for every request however many arrived together.
//! Here a flush only marks what was written; [`WriteCoalescer::send`], called when the connection has nothing more to do
//! until its peer or a timer wakes it, hands it all to the socket. Nothing is held back beyond that moment, and no
//! more than [`COALESCED_BYTES_MAX`] is held at all: beyond it, writes go to the socket as they come.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::listen::Unread;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Held for one connection at most. About a batch of answers; enough that one more would not save much.
const COALESCED_BYTES_MAX: usize = 64 << 10;

/// Splits a socket whose writes are gathered in two: one end for HTTP/2, one for the task that polls the connection.
pub(crate) fn coalesce<I>(io: I) -> (CoalescedIo<I>, WriteCoalescer<I>) {
    let shared = Arc::new(Mutex::new(Shared { io, pending: Vec::new(), sent: 0 }));
    (CoalescedIo(Arc::clone(&shared)), WriteCoalescer(shared))
}

struct Shared<I> {
    io: I,
    /// Written, and not yet the socket's from `sent` on.
    pending: Vec<u8>,
    sent: usize,
}

/// The socket, as HTTP/2 sees it.
pub(crate) struct CoalescedIo<I>(Arc<Mutex<Shared<I>>>);

/// Sends what was gathered.
pub(crate) struct WriteCoalescer<I>(Arc<Mutex<Shared<I>>>);

impl<I: AsyncWrite + Unpin> WriteCoalescer<I> {
    /// Hands what was written to the socket; pending while the socket has no room for all of it.
    ///
    /// # Errors
    ///
    /// What the socket says.
    pub(crate) fn send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.0.lock();
        ready!(shared.send(context))?;
        Pin::new(&mut shared.io).poll_flush(context)
    }
}

impl<I> WriteCoalescer<I> {
    /// The socket, for what is to be said after HTTP/2 has ended.
    pub(crate) fn into_io(self) -> CoalescedIo<I> {
        CoalescedIo(self.0)
    }
}

impl<I: AsyncWrite + Unpin> Shared<I> {
    fn send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.pending.len() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(context, &self.pending[self.sent..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        self.pending.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<I: Unread> Unread for CoalescedIo<I> {
    fn unread(&self) -> usize {
        self.0.lock().io.unread()
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for CoalescedIo<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().io).poll_read(context, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for CoalescedIo<I> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut shared = self.0.lock();
        let bytes: usize = bufs.iter().map(|buf| buf.len()).sum();
        if shared.pending.len() + bytes <= COALESCED_BYTES_MAX {
            bufs.iter().for_each(|buf| shared.pending.extend_from_slice(buf));
            return Poll::Ready(Ok(bytes));
        }
        ready!(shared.send(context))?;
        Pin::new(&mut shared.io).poll_write_vectored(context, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.0.lock();
        ready!(shared.send(context))?;
        Pin::new(&mut shared.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    async fn send(coalescer: &WriteCoalescer<tokio::io::DuplexStream>) {
        std::future::poll_fn(|context| coalescer.send(context)).await.unwrap();
    }

    #[tokio::test]
    async fn writes_arrive_in_order_and_only_when_sent() {
        let (near, mut far) = duplex(1 << 20);
        let (mut io, coalescer) = coalesce(near);
        io.write_all(b"one ").await.unwrap();
        io.flush().await.unwrap();
        io.write_all(b"two").await.unwrap();
        let mut read = [0; 7];
        let early = tokio::time::timeout(std::time::Duration::ZERO, far.read_exact(&mut read)).await;
        assert!(early.is_err(), "nothing is sent before its time");
        send(&coalescer).await;
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"one two");
    }

    #[tokio::test]
    async fn more_than_is_gathered_goes_through_and_stays_in_order() {
        let (near, mut far) = duplex(1_000);
        let (mut io, coalescer) = coalesce(near);
        let sent: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let expected = sent.clone();
        let reader = tokio::spawn(async move {
            let mut read = Vec::new();
            far.read_to_end(&mut read).await.unwrap();
            read
        });
        for part in sent.chunks(777) {
            io.write_all(part).await.unwrap();
        }
        send(&coalescer).await;
        io.shutdown().await.unwrap();
        drop((io, coalescer));
        assert_eq!(reader.await.unwrap(), expected);
    }
}
