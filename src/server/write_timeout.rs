//! A socket whose peer must go on taking what is written to it.
//!
//! HTTP/1 writes a whole answer and waits for as long as the peer likes to take it. Here a write that finds no room for
//! too long fails, which ends the connection. (HTTP/2 has streams, of which each is timed by itself: see `stall`.)

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

pin_project! {
    /// A socket with a time-out of its writes.
    pub(crate) struct WriteTimeout<I> {
        #[pin]
        io: I,
        within: Duration,
        // Runs while a write waits.
        waits: Option<Pin<Box<Sleep>>>,
    }
}

impl<I> WriteTimeout<I> {
    /// Lets a write wait for room for `within`.
    pub(crate) fn new(io: I, within: Duration) -> Self {
        Self { io, within, waits: None }
    }

    fn timed<T>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut I>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let this = self.project();
        let written = write(this.io, cx);
        if written.is_ready() {
            *this.waits = None;
            return written;
        }
        let within = *this.within;
        ready!(this.waits.get_or_insert_with(|| Box::pin(sleep(within))).as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
    }
}

impl<I: AsyncRead> AsyncRead for WriteTimeout<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_read(cx, buf)
    }
}

impl<I: AsyncWrite> AsyncWrite for WriteTimeout<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.timed(cx, |io, cx| io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.timed(cx, |io, cx| io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.timed(cx, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.timed(cx, AsyncWrite::poll_shutdown)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_write_that_the_peer_does_not_take_fails_in_time() {
        let (near, mut far) = duplex(10);
        let mut io = WriteTimeout::new(near, Duration::from_secs(10));
        let began = sleep(Duration::ZERO).deadline();
        // One that is taken late is taken, each time anew.
        let slow = async {
            let mut read = [0; 10];
            for _ in 0..3 {
                sleep(Duration::from_secs(9)).await;
                far.read_exact(&mut read).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = slow => {}
            written = io.write_all(&[1; 40]) => written.unwrap(),
        }
        assert_eq!((sleep(Duration::ZERO).deadline() - began).as_secs(), 27);
        let failed = io.write_all(&[1; 40]).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        assert_eq!((sleep(Duration::ZERO).deadline() - began).as_secs(), 37);
    }
}
