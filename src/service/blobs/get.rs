//! Cache.GetBlob: a blob, or a range of it, from the disk to a stream.
//!
//! The body reads a chunk ahead on a blocking thread while the one before is sent; it is asked for more only as its
//! peer takes what it gave, so two chunks are what it holds. A peer that takes nothing is the stall time-out's affair.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use tokio::task::{JoinHandle, spawn_blocking};
use tonic::Status;

use super::refused;
use crate::cache::{BlobError, BlobReader, BlobStream};
use crate::grpc::frame::{PREFIX, put_prefix};
use crate::grpc::{ResponseBody, ok_trailers};
use crate::proto::v1;
use crate::service::keyspace::framed_bytes;

/// GetBlobResponse's field for a chunk.
const CHUNK_FIELD: u32 = 2;
/// What a chunk takes in its message beside its own bytes, at most.
const CHUNK_HEAD_BYTES_MAX: usize = 6;

type Read = (BlobReader, Result<Option<Bytes>, BlobError>);

/// A GetBlob's stream: header, chunks, trailers.
pub(in crate::service) struct GetBlobBody {
    key: Bytes,
    /// The next chunk; `None`: the last has been read.
    reading: Option<JoinHandle<Read>>,
    /// What is to be sent before the next chunk.
    ready: VecDeque<Bytes>,
    piece_bytes_max: usize,
    ended: bool,
    _stream: BlobStream,
}

impl GetBlobBody {
    /// Sends `header`, then what `reader` reads, in messages of `message_bytes_max` at most.
    pub(super) fn new(
        header: v1::BlobHeader,
        reader: BlobReader,
        message_bytes_max: usize,
        stream: BlobStream,
    ) -> Self {
        let key = header.key.clone();
        let first = v1::GetBlobResponse { part: Some(v1::get_blob_response::Part::Header(header)) };
        Self {
            key,
            reading: Some(read(reader)),
            ready: VecDeque::from([framed_bytes(&first)]),
            piece_bytes_max: message_bytes_max.saturating_sub(CHUNK_HEAD_BYTES_MAX).max(1),
            ended: false,
            _stream: stream,
        }
    }

    fn push(&mut self, mut chunk: Bytes) {
        while !chunk.is_empty() {
            let piece = chunk.split_to(chunk.len().min(self.piece_bytes_max));
            self.ready.push_back(chunk_head(piece.len()));
            self.ready.push_back(piece);
        }
    }
}

/// Reads the next chunk where blocking is allowed.
fn read(mut reader: BlobReader) -> JoinHandle<Read> {
    spawn_blocking(move || {
        let read = reader.next_chunk();
        (reader, read)
    })
}

/// The frame's prefix and the field's key and length, before a chunk of `len` bytes.
fn chunk_head(len: usize) -> Bytes {
    let mut head = BytesMut::with_capacity(PREFIX + CHUNK_HEAD_BYTES_MAX);
    let mut prefix = Vec::with_capacity(PREFIX);
    put_prefix(&mut prefix, 1 + encoded_len_varint(len as u64) + len);
    head.put_slice(&prefix);
    encode_key(CHUNK_FIELD, WireType::LengthDelimited, &mut head);
    encode_varint(len as u64, &mut head);
    head.freeze()
}

impl Body for GetBlobBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(bytes) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            let Some(reading) = &mut this.reading else {
                this.ended = true;
                return Poll::Ready(Some(Ok(Frame::trailers(ok_trailers()))));
            };
            let read = ready!(Pin::new(reading).poll(cx));
            this.reading = None;
            match read {
                Ok((reader, Ok(Some(chunk)))) => {
                    this.reading = Some(self::read(reader));
                    this.push(chunk);
                }
                Ok((_, Ok(None))) => {}
                Ok((_, Err(error))) => {
                    this.ended = true;
                    let trailers = ResponseBody::trailers(refused(error, &this.key));
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Err(error) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(Status::internal(error.to_string()))));
                }
            }
        }
    }
}
