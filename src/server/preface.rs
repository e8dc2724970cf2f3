//! The first bytes of a connection: whether its peer speaks HTTP/2 at all, and says so in time.
//!
//! hyper waits for ever for a peer that says nothing, and answers one that speaks HTTP/1.1 with frames that it
//! cannot read. So the opening is read here, up to the header of the SETTINGS frame that RFC 9113 §3.4 asks of
//! every client, and then given to hyper again:
//!
//! ```text
//!   0                      24     27     28      29          33
//!   | P R I   *   H T T P… | length | 0x04 | flags | stream 0 |
//!     connection preface     header of the client's SETTINGS
//! ```

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::listen::Unread;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// How a connection begins.
pub(crate) enum Preface<I> {
    /// As HTTP/2: all that was read is read again.
    Http2(Rewound<I>),
    /// As HTTP/1: its client deserves a word.
    Http1(I),
    /// As something else, TLS perhaps.
    Foreign,
    /// Its peer left without having said enough.
    Left,
}

/// Reads the opening. How long that may take is the caller's to limit.
///
/// # Errors
///
/// What the socket says.
pub(crate) async fn read_preface<I: AsyncRead + Unpin>(mut io: I) -> io::Result<Preface<I>> {
    let mut read = BytesMut::with_capacity(BUFFER_BYTES);
    loop {
        let compared = read.len().min(PREFACE.len());
        if read[..compared] != PREFACE[..compared] {
            let letters = read.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
            let http1 = letters > 0 && (letters == read.len() || read[letters] == b' ');
            return Ok(if http1 { Preface::Http1(io) } else { Preface::Foreign });
        }
        if read.len() >= OPENING_BYTES {
            let settings = read[FRAME_TYPE_AT] == FRAME_TYPE_SETTINGS;
            let rewound = Rewound { read: read.freeze(), io };
            return Ok(if settings { Preface::Http2(rewound) } else { Preface::Foreign });
        }
        if io.read_buf(&mut read).await? == 0 {
            return Ok(Preface::Left);
        }
    }
}

/// Tells a client of HTTP/1 where it is, and waits for it to hang up, so that the answer arrives before the
/// connection is reset for what was not read.
///
/// # Errors
///
/// What the socket says.
pub(crate) async fn decline_http1<I: AsyncRead + AsyncWrite + Unpin>(mut io: I) -> io::Result<()> {
    io.write_all(HTTP1_ANSWER.as_bytes()).await?;
    hang_up(io).await.map(drop)
}

/// Says nothing more, and waits for the peer to hang up too, so that what was said arrives. A peer that goes on sending for
/// too long is given back.
///
/// # Errors
///
/// What the socket says.
pub(crate) async fn hang_up<I: AsyncRead + AsyncWrite + Unpin>(mut io: I) -> io::Result<Option<I>> {
    io.shutdown().await?;
    let mut rest = io.take(DISCARDED_BYTES_MAX);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok((rest.limit() == 0).then(|| rest.into_inner()))
}

/// A socket whose first bytes were read already and are read once more.
#[derive(Debug)]
pub(crate) struct Rewound<I> {
    read: Bytes,
    io: I,
}

impl<I: Unread> Unread for Rewound<I> {
    fn unread(&self) -> usize {
        self.read.len() + self.io.unread()
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Rewound<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, buffer);
        }
        let taken = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..taken]);
        self.read.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Rewound<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
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

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const OPENING_BYTES: usize = PREFACE.len() + 9;
const FRAME_TYPE_AT: usize = PREFACE.len() + 3;
const FRAME_TYPE_SETTINGS: u8 = 0x4;

/// Room for the opening and what usually comes with it: SETTINGS, WINDOW_UPDATE, a first request's headers.
const BUFFER_BYTES: usize = 512;

const HTTP1_ANSWER: &str = "HTTP/1.1 505 HTTP Version Not Supported\r\n\
    content-type: text/plain\r\n\
    connection: close\r\n\
    \r\n\
    This port speaks gRPC (HTTP/2). /livez, /readyz and /metrics are on the HTTP port, by default 127.0.0.1:7403.\n";

const DISCARDED_BYTES_MAX: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Vec<u8> {
        [PREFACE, &[0, 0, 0, FRAME_TYPE_SETTINGS, 0, 0, 0, 0, 0], b"more"].concat()
    }

    #[tokio::test]
    async fn an_http2_opening_is_read_again_whole_however_it_arrives() {
        for piece in [1, 7, 24, 33, 100] {
            let (mut client, server) = tokio::io::duplex(piece);
            let writing = tokio::spawn(async move { client.write_all(&settings()).await });
            let Preface::Http2(mut rewound) = read_preface(server).await.unwrap() else {
                panic!("taken for something else in pieces of {piece}")
            };
            let mut all = Vec::new();
            rewound.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, settings());
            writing.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn other_openings_are_told_apart() {
        let kind = |opening| match opening {
            Preface::Http2(_) => "http2",
            Preface::Http1(_) => "http1",
            Preface::Foreign => "foreign",
            Preface::Left => "left",
        };
        let ping = [PREFACE, &[0, 0, 8, 6, 0, 0, 0, 0, 0]].concat();
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], "http1"),
            (b"PUT / HTTP/1.1\r\n", "http1"),
            (b"PRI * HTTP/1.1\r\n", "http1"),
            (b"\x16\x03\x01\x02\x00\x01", "foreign"),
            (b"hello", "foreign"),
            (b"", "left"),
            (b"PRI * HT", "left"),
            (&ping, "foreign"),
        ] {
            assert_eq!(kind(read_preface(bytes).await.unwrap()), expected, "{bytes:?}");
        }
    }
}
