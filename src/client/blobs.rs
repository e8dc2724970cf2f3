//! Blobs: streamed in both directions, a few chunks in memory however large they are.
//!
//! A stream has no deadline of its own; the client's timeout bounds how long it may stand still. What is stored and what
//! is read whole is checked against its SHA-256.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::calls::Client;
use super::convert::{self, wire_ms};
use super::error::ClientError;
use super::outcome::{BlobInfo, BlobPage, StoredBlob};
use super::pool::Incoming;
use super::request::Request;
use crate::proto::v1;
use crate::verb::Verb;
use v1::get_blob_response::Part as Got;
use v1::put_blob_request::Part as Put;

/// The content of a message. Larger parts are cut.
pub(super) const CHUNK_BYTES: usize = 256 << 10;
/// Messages that wait to be sent.
const CHUNKS_WAITING: usize = 2;
/// How long a node may take to make sure that it has a blob, once it has all of it.
const STORED_WITHIN: Duration = Duration::from_secs(60);

/// What a blob that is stored may say beside key and content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlobOptions {
    /// The media type, up to 255 B. Empty = none.
    pub content_type: String,
    /// After how long it expires. Zero is the namespace's default.
    pub ttl: Duration,
    /// The length that it must turn out to have; `None` and 0: any.
    pub size_bytes: Option<u64>,
    /// The SHA-256 that it must turn out to have; `None`: any.
    pub sha256: Option<[u8; 32]>,
}

/// What of a blob is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlobRange {
    /// The first byte, 0 to the blob's length.
    pub offset: u64,
    /// How many bytes; fewer come where the blob ends first. 0 = to the end.
    pub length: u64,
}

/// What a ListBlobs may say beside the prefix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListBlobsOptions {
    /// Blobs to a page, up to 10,000; 0 is 1,000.
    pub page_size: u32,
    /// `next_page_token` of the page before, with the same prefix; empty for the first page.
    pub page_token: Bytes,
}

impl Client {
    /// Stores a blob of what a stream gives, in parts of any size. It takes the place of the one that was there when the
    /// node has all of it; before that, nothing is changed, also if this future is dropped.
    ///
    /// # Errors
    /// [`ClientError::Source`] where the stream fails; else see [`Client::get`]. `RESOURCE_EXHAUSTED` where the node's
    /// disk has no room, `FAILED_PRECONDITION` where it keeps nothing on disk.
    pub async fn put_blob(
        &self,
        key: impl Into<Bytes>,
        options: &BlobOptions,
        content: impl Stream<Item = io::Result<Bytes>>,
    ) -> Result<StoredBlob, ClientError> {
        let header = v1::BlobHeader {
            namespace: self.owned_namespace(),
            key: key.into(),
            content_type: options.content_type.clone(),
            ttl_ms: wire_ms(options.ttl),
            size_bytes: options.size_bytes.unwrap_or_default(),
            sha256: options.sha256.map_or_else(Bytes::new, |sha256| Bytes::copy_from_slice(&sha256)),
            version: 0,
        };
        let timeout = self.timed_alone(Verb::PutBlob)?;
        let pool = self.node_of(Some(&header.key));
        let (parts, outgoing) = mpsc::channel(CHUNKS_WAITING);
        let trace = self.trace(Verb::PutBlob);
        let mut call = pin!(pool.upload(Verb::PutBlob, whole(outgoing), &trace));
        let mut feed = pin!(feed(header, content, parts, timeout));
        let wait = timeout.max(STORED_WITHIN);
        let mut expected = None;
        let stored = loop {
            tokio::select! {
                answer = &mut call => break convert::stored_blob(&answer?),
                fed = &mut feed, if expected.is_none() => match fed {
                    Ok(fed) => expected = Some(fed),
                    Err(Unfed::Source(source)) => return Err(ClientError::Source { source }),
                    Err(Unfed::Stalled) => return Err(pool.timed_out(Verb::PutBlob.name(), timeout)),
                },
                () = tokio::time::sleep(wait), if expected.is_some() => {
                    return Err(pool.timed_out(Verb::PutBlob.name(), wait));
                }
            }
        };
        match (stored, expected) {
            (Some(stored), Some(sent)) if (stored.size_bytes, stored.sha256) == sent => Ok(stored),
            _ => Err(self.bad_answer(Verb::PutBlob, "another blob than was sent")),
        }
    }

    /// [`Self::put_blob`] of what a reader reads, to its end.
    ///
    /// # Errors
    /// See [`Self::put_blob`].
    pub async fn put_blob_from(
        &self,
        key: impl Into<Bytes>,
        options: &BlobOptions,
        reader: impl AsyncRead + Unpin,
    ) -> Result<StoredBlob, ClientError> {
        let content = stream::unfold(reader, |mut reader| async move {
            let mut part = BytesMut::with_capacity(CHUNK_BYTES);
            match reader.read_buf(&mut part).await {
                Ok(0) => None,
                Ok(_) => Some((Ok(part.freeze()), reader)),
                Err(error) => Some((Err(error), reader)),
            }
        });
        self.put_blob(key, options, content).await
    }

    /// As [`Self::put_blob`], for bytes in memory. The node gets their SHA-256 first, so that it stores exactly these
    /// or none.
    ///
    /// # Errors
    /// See [`Self::put_blob`].
    pub async fn put_blob_bytes(
        &self,
        key: impl Into<Bytes>,
        options: &BlobOptions,
        content: impl Into<Bytes>,
    ) -> Result<StoredBlob, ClientError> {
        let content = content.into();
        let options = BlobOptions {
            size_bytes: Some(content.len() as u64),
            sha256: Some(Sha256::digest(&content).into()),
            ..options.clone()
        };
        self.put_blob(key, &options, stream::iter([Ok(content)])).await
    }

    /// Opens a blob, or a range of it. `None`: there is no such blob.
    ///
    /// # Errors
    /// See [`Client::get`]; `OUT_OF_RANGE` for an offset beyond its end.
    pub async fn get_blob(
        &self,
        key: impl Into<Bytes>,
        range: BlobRange,
    ) -> Result<Option<BlobDownload>, ClientError> {
        let message = v1::GetBlobRequest {
            namespace: self.owned_namespace(),
            key: key.into(),
            offset: range.offset,
            length: range.length,
        };
        let timeout = self.timed_alone(Verb::GetBlob)?;
        let trace = self.trace(Verb::GetBlob);
        let mut stream = match self.node_of(message.key()).open_within(message, timeout, &trace).await {
            Err(ClientError::Status(refusal)) if refusal.reason == "BLOB_NOT_FOUND" => return Ok(None),
            opened => opened?,
        };
        let first = stream.next(Some(timeout)).await?.and_then(|message| message.part);
        let info = match first {
            Some(Got::Header(header)) => convert::blob_info(header),
            _ => None,
        };
        let info = info.ok_or_else(|| self.bad_answer(Verb::GetBlob, "no header"))?;
        let end = if range.length == 0 { u64::MAX } else { range.offset.saturating_add(range.length) };
        let left = end.min(info.size_bytes).saturating_sub(range.offset);
        let digest = (left == info.size_bytes).then(Sha256::new);
        Ok(Some(BlobDownload { client: self.clone(), stream: Some(stream), info, left, digest }))
    }

    /// Removes a blob. False: there was none.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn delete_blob(&self, key: impl Into<Bytes>) -> Result<bool, ClientError> {
        let message = v1::DeleteBlobRequest { namespace: self.owned_namespace(), key: key.into() };
        Ok(self.call(message).await?.deleted)
    }

    /// A page of the blobs whose keys begin with the prefix, in the order of their keys; `next_page_token` is empty on
    /// the last page.
    ///
    /// # Errors
    /// See [`Client::get`]; a token of another namespace or prefix is INVALID_ARGUMENT.
    pub async fn list_blobs(
        &self,
        prefix: impl Into<Bytes>,
        options: ListBlobsOptions,
    ) -> Result<BlobPage, ClientError> {
        let message = v1::ListBlobsRequest {
            namespace: self.owned_namespace(),
            prefix: prefix.into(),
            page_size: options.page_size,
            page_token: options.page_token,
        };
        let page = convert::blob_page(self.call(message).await?);
        page.ok_or_else(|| self.bad_answer(Verb::ListBlobs, "a blob without a SHA-256"))
    }
}

/// Why a blob was not sent whole.
enum Unfed {
    Source(io::Error),
    /// The node takes nothing.
    Stalled,
}

/// Sends header and content; how much there was, and its SHA-256. The content may take its time, the node may not.
async fn feed(
    header: v1::BlobHeader,
    content: impl Stream<Item = io::Result<Bytes>>,
    parts: mpsc::Sender<Outgoing>,
    wait: Duration,
) -> Result<(u64, [u8; 32]), Unfed> {
    let (mut content, mut digest, mut bytes) = (pin!(content), Sha256::new(), 0);
    let send = async |part| {
        let sent = parts.send(part);
        match tokio::time::timeout(wait, sent).await {
            Ok(Ok(())) => Ok(()),
            // The call has ended, and says why.
            Ok(Err(_)) => std::future::pending().await,
            Err(_elapsed) => Err(Unfed::Stalled),
        }
    };
    send(Outgoing::Part(Put::Header(header))).await?;
    while let Some(part) = content.next().await {
        let mut part = part.map_err(Unfed::Source)?;
        while !part.is_empty() {
            let chunk = part.split_to(part.len().min(CHUNK_BYTES));
            digest.update(&chunk);
            bytes += chunk.len() as u64;
            send(Outgoing::Part(Put::Chunk(chunk))).await?;
        }
    }
    send(Outgoing::End).await?;
    Ok((bytes, digest.finalize().into()))
}

enum Outgoing {
    Part(Put),
    /// That was all.
    End,
}

/// What is sent, to its end. Of a feed that breaks off there is no end: the call's reset is to be the next thing that the
/// node sees, and not a blob that looks whole.
fn whole(parts: mpsc::Receiver<Outgoing>) -> impl Stream<Item = v1::PutBlobRequest> {
    stream::unfold(parts, |mut parts| async move {
        match parts.recv().await {
            Some(Outgoing::Part(part)) => Some((v1::PutBlobRequest { part: Some(part) }, parts)),
            Some(Outgoing::End) => None,
            None => std::future::pending().await,
        }
    })
}

/// A blob on its way from a node.
#[derive(Debug)]
pub struct BlobDownload {
    client: Client,
    /// `None`: it has ended.
    stream: Option<Incoming<v1::GetBlobResponse>>,
    info: BlobInfo,
    /// Bytes that are still to come.
    left: u64,
    /// Of a blob that is read whole.
    digest: Option<Sha256>,
}

impl BlobDownload {
    /// What is known of the blob, the whole one also where a range is read.
    #[must_use]
    pub fn info(&self) -> &BlobInfo {
        &self.info
    }

    /// How many bytes are still to come.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next bytes. `None`: that was all, and of a whole blob it had the SHA-256 that was announced.
    ///
    /// # Errors
    /// See [`Client::get`]; `DATA_LOSS` where the blob is damaged on the node's disk, [`ClientError::BadAnswer`] where
    /// what came is not what was announced. Nothing more comes after an error.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        match self.part().await? {
            Some(Got::Chunk(chunk)) if chunk.len() as u64 <= self.left => {
                self.left -= chunk.len() as u64;
                if let Some(digest) = &mut self.digest {
                    digest.update(&chunk);
                }
                Ok(Some(chunk))
            }
            Some(_) => {
                self.stream = None;
                self.client_says("more than was announced")
            }
            None if self.left > 0 => self.client_says("less than was announced"),
            None => match self.digest.take() {
                Some(digest) => match digest.finalize()[..] == self.info.sha256[..] {
                    true => Ok(None),
                    false => self.client_says("content of another SHA-256"),
                },
                None => Ok(None),
            },
        }
    }

    /// Writes all that is still to come, and says how much that was.
    ///
    /// # Errors
    /// See [`Self::chunk`]; [`ClientError::Sink`] where it cannot be written.
    pub async fn copy_to(mut self, writer: &mut (impl AsyncWrite + Unpin)) -> Result<u64, ClientError> {
        let mut written = 0;
        while let Some(chunk) = self.chunk().await? {
            writer.write_all(&chunk).await.map_err(|source| ClientError::Sink { source })?;
            written += chunk.len() as u64;
        }
        writer.flush().await.map_err(|source| ClientError::Sink { source })?;
        Ok(written)
    }

    /// All that is still to come, in memory: for blobs that are known to be small.
    ///
    /// # Errors
    /// See [`Self::chunk`].
    pub async fn bytes(mut self) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn client_says<T>(&self, problem: &str) -> Result<T, ClientError> {
        Err(self.client.bad_answer(Verb::GetBlob, problem))
    }

    async fn part(&mut self) -> Result<Option<Got>, ClientError> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let wait = self.client.timeout();
        let part = match stream.next(Some(wait)).await {
            Ok(Some(message)) => match message.part {
                Some(part) => return Ok(Some(part)),
                None => self.client_says("a message without a part"),
            },
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        self.stream = None;
        part
    }
}
