//! Blobs as tokio's readers and writers.
//!
//! ```text
//!  write ─▶ filling (to 256 KiB) ─▶ full ─▶ put_blob ─▶ two messages that wait ─▶ connection
//! ```
//!
//! A writer makes its upload go on while it is written to, flushed or finished, and has no task of its own: what is dropped
//! ends at once, and the node keeps nothing of it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt, stream};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use super::blobs::{BlobDownload, BlobOptions, BlobRange, CHUNK_BYTES};
use super::calls::Client;
use super::error::ClientError;
use super::items::ItemStream;
use super::outcome::{BlobInfo, StoredBlob};

impl Client {
    /// [`Client::get_blob`] as a reader. `None`: there is no such blob.
    ///
    /// # Errors
    /// See [`Client::get_blob`].
    pub async fn blob_reader(
        &self,
        key: impl Into<Bytes>,
        range: BlobRange,
    ) -> Result<Option<BlobReader>, ClientError> {
        Ok(self.get_blob(key, range).await?.map(BlobDownload::into_reader))
    }

    /// [`Client::put_blob`] as a writer: the blob is stored by [`BlobWriter::finish`] or
    /// [`shutdown`](tokio::io::AsyncWriteExt::shutdown), and a writer that is dropped before stores nothing. Nothing is sent
    /// before something is written.
    pub fn blob_writer(&self, key: impl Into<Bytes>, options: &BlobOptions) -> BlobWriter {
        let (client, key, options) = (self.clone(), key.into(), options.clone());
        let (parts, mut written) = mpsc::channel(1);
        let content = stream::poll_fn(move |context| written.poll_recv(context).map(|part| part.map(Ok)));
        let upload = async move { client.put_blob(key, &options, content).await };
        BlobWriter {
            filling: BytesMut::new(),
            state: State::Open { parts: Some(parts), upload: Box::pin(upload) },
        }
    }
}

impl BlobDownload {
    /// What is still to come as a stream of chunks, such as the body of an HTTP response is made of. After an error nothing
    /// more comes.
    pub fn into_stream(self) -> ItemStream<Bytes> {
        ItemStream::new(stream::try_unfold(self, |mut download| async move {
            Ok(download.chunk().await?.map(|chunk| (chunk, download)))
        }))
    }

    /// What is still to come as a reader.
    #[must_use]
    pub fn into_reader(self) -> BlobReader {
        BlobReader { info: self.info().clone(), chunk: Bytes::new(), chunks: self.into_stream() }
    }
}

/// A blob that is read as it comes, a few chunks in memory. Its errors are [`ClientError`]s, which
/// [`io::Error::get_ref`] gives; its end is that of a whole blob, whose SHA-256 was compared.
#[derive(Debug)]
pub struct BlobReader {
    info: BlobInfo,
    /// What was received and not read.
    chunk: Bytes,
    chunks: ItemStream<Bytes>,
}

impl BlobReader {
    /// What is known of the blob: length, media type, version and more, of the whole one also where a range is read.
    #[must_use]
    pub fn info(&self) -> &BlobInfo {
        &self.info
    }
}

impl AsyncBufRead for BlobReader {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let reader = self.get_mut();
        while reader.chunk.is_empty() {
            match ready!(reader.chunks.poll_next_unpin(context)) {
                Some(chunk) => reader.chunk = chunk?,
                None => break,
            }
        }
        Poll::Ready(Ok(&reader.chunk))
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        self.chunk.advance(count);
    }
}

impl AsyncRead for BlobReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let chunk = ready!(self.as_mut().poll_fill_buf(context))?;
        let count = chunk.len().min(buffer.remaining());
        buffer.put_slice(&chunk[..count]);
        self.consume(count);
        Poll::Ready(Ok(()))
    }
}

/// A blob that is stored as it is written, a few chunks in memory. Its errors are [`ClientError`]s, which
/// [`io::Error::get_ref`] gives.
#[must_use = "what is written is stored by finish()"]
pub struct BlobWriter {
    /// What was written and is not yet a chunk.
    filling: BytesMut,
    state: State,
}

enum State {
    Open {
        /// `None`: that was all.
        parts: Option<mpsc::Sender<Bytes>>,
        upload: Pin<Box<dyn Future<Output = Result<StoredBlob, ClientError>> + Send>>,
    },
    Stored(StoredBlob),
    /// What the upload ended with, in words: the error itself was given out.
    Failed(String),
}

impl BlobWriter {
    /// Sends what is left, and waits until the node has all of it on its disk.
    ///
    /// # Errors
    /// See [`Client::put_blob`]; [`ClientError::Source`] where a write before has failed, which said why.
    pub async fn finish(mut self) -> Result<StoredBlob, ClientError> {
        std::future::poll_fn(|context| self.poll_finish(context)).await
    }

    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<Result<StoredBlob, ClientError>> {
        ready!(self.poll_send(context))?;
        if let State::Open { parts, .. } = &mut self.state {
            *parts = None;
        }
        loop {
            match &self.state {
                State::Stored(stored) => return Poll::Ready(Ok(*stored)),
                State::Failed(why) => return Poll::Ready(Err(failed_before(why))),
                State::Open { .. } => ready!(self.poll_upload(context))?,
            }
        }
    }

    /// Hands what is filled to the upload, if anything is; ready once the upload has room for it.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        while !self.filling.is_empty() {
            let State::Open { parts: Some(parts), .. } = &self.state else { break };
            let Ok(room) = parts.try_reserve() else {
                ready!(self.poll_upload(context))?;
                continue;
            };
            room.send(self.filling.split().freeze());
            // It takes that at once if it can, so that a writer that pauses has its bytes on the way.
            if let Poll::Ready(Err(error)) = self.poll_upload(context) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Lets the upload go on. Ready: it has come to its end, or there is room again.
    fn poll_upload(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        let State::Open { parts, upload } = &mut self.state else { return Poll::Ready(Ok(())) };
        match upload.poll_unpin(context) {
            Poll::Ready(Ok(stored)) => self.state = State::Stored(stored),
            Poll::Ready(Err(error)) => {
                self.state = State::Failed(error.to_string());
                return Poll::Ready(Err(error));
            }
            Poll::Pending if parts.as_ref().is_some_and(|parts| parts.capacity() > 0) => {}
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(Ok(()))
    }

    /// Whether there is something that can be written to.
    fn check_open(&self) -> io::Result<()> {
        match &self.state {
            State::Open { parts: Some(_), .. } => Ok(()),
            State::Failed(why) => Err(failed_before(why).into()),
            State::Open { .. } | State::Stored(_) => {
                let why = "the blob was finished; what is to be another one is written to another writer";
                Err(io::Error::new(io::ErrorKind::BrokenPipe, why))
            }
        }
    }
}

impl AsyncWrite for BlobWriter {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let writer = self.get_mut();
        writer.check_open()?;
        if writer.filling.len() >= CHUNK_BYTES {
            ready!(writer.poll_send(context))?;
        }
        let count = buffer.len().min(CHUNK_BYTES - writer.filling.len());
        writer.filling.extend_from_slice(&buffer[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let writer = self.get_mut();
        if let State::Failed(why) = &writer.state {
            return Poll::Ready(Err(failed_before(why).into()));
        }
        writer.poll_send(context).map_err(io::Error::from)
    }

    /// As [`BlobWriter::finish`], which gives what was stored also after this.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_finish(context).map_ok(drop).map_err(io::Error::from)
    }
}

impl fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Open { parts: Some(_), .. } => "open",
            State::Open { .. } => "finishing",
            State::Stored(_) => "stored",
            State::Failed(_) => "failed",
        };
        f.debug_struct("BlobWriter").field("state", &state).finish_non_exhaustive()
    }
}

fn failed_before(why: &str) -> ClientError {
    ClientError::Source { source: io::Error::other(format!("the upload has failed before: {why}")) }
}
