//! Cache.PutBlob: a stream of chunks to the disk.
//!
//! ```text
//!  frames ─ Parts ─ block ┐  (gathered while the one before is written)
//!                         ├─ BlobWriter::write  ┐ blocking threads, one task to a block each,
//!                         └─ Digest::update     ┘ so that a client that is slow holds none
//! ```
//!
//! It may take as long as it takes, but its client must go on sending. Two blocks and the writer's chunk are what it
//! holds. The response does not begin before the blob is there: HTTP/2 clients that give a call up reset its stream only
//! while they wait for the head, and otherwise may end it as if it were whole.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::parts::{Part, Parts};
use super::{joined, nothing_on_disk, refused, writable};
use crate::cache::{BlobError, BlobStream, BlobWriter, Cache, Digest, Finish, NewBlob};
use crate::clock::{monotonic, since};
use crate::engine::Namespace;
use crate::entry::{Durability, Ttl};
use crate::grpc::{GrpcError, ResponseBody};
use crate::proto::v1;
use crate::request::CallError;
use crate::service::codec::blob;
use crate::service::keyspace::framed;
use crate::service::long_requests::ARRIVES_WITHIN;
use crate::service::turns::Turns;
use crate::service::unary::namespace;

/// Content that is handed to the disk at once.
const BLOCK_BYTES: usize = 256 << 10;
/// How long a client may send nothing.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// How often it is looked meanwhile whether others want its place.
const LOOKS: Duration = Duration::from_secs(1);
/// The least that a client has to send, from [`ARRIVES_WITHIN`] on, where others want its place.
const BYTES_PER_S_MIN: u64 = 16 << 10;

/// Stores the blob that a request's body brings.
pub(super) async fn put<B>(incoming: B, cache: Arc<Cache>) -> Result<Response<ResponseBody>, CallError>
where
    B: Body<Data = Bytes>,
{
    let mut incoming = Incoming::new(incoming, &cache);
    let header = match incoming.part().await? {
        Some(Part::Header(header)) => header,
        Some(Part::Data(_)) | None => {
            let why = "the first message has the blob's header, and it alone".to_owned();
            return Err(CallError::Invalid { field: "header", why });
        }
    };
    let Some(blobs) = cache.blobs() else { return Err(nothing_on_disk("Cache.PutBlob")) };
    writable(&cache).map_err(|error| refused(error, &header.key))?;
    let promise = blob::promise(&header, &cache.limits())?;
    let namespace: Namespace = namespace(&cache, &header.namespace)?.into_owned();
    // A blob that is acknowledged is nothing without its namespace, which the disk may not know of yet. The default one
    // is always there.
    let is_journaled = cache.flushes(Some(Durability::Flushed)).is_some() && !namespace.name().is_empty();
    let namespace_flushed = is_journaled.then(|| cache.flushed());
    incoming.stream = Some(cache.blob_stream().map_err(|limit| CallError::BlobsOverloaded { limit })?);
    let new_blob = NewBlob {
        namespace: header.namespace,
        key: header.key.to_vec(),
        content_type: header.content_type,
        size_bytes: promise.size_bytes,
        sha256: promise.sha256,
    };
    let (blobs, key) = (blobs.clone(), header.key);
    let mut storing =
        Storing::begin(move || blobs.begin(new_blob)).await.map_err(|error| refused(error, &key))?;
    let mut block = Vec::new();
    while incoming.block(&mut block).await? {
        storing.write(std::mem::take(&mut block)).await.map_err(|error| refused(error, &key))?;
    }
    if let Some(flushed) = namespace_flushed {
        flushed.await.map_err(|_| CallError::JournalPoisoned)?;
    }
    let stored = storing.finish(cache, namespace, promise.ttl).await;
    let stored = stored.map_err(|error| refused(error, &key))?;
    Ok(ResponseBody::unary(framed(&stored).into()))
}

/// The request's body as parts.
struct Incoming<B> {
    body: Pin<Box<B>>,
    parts: Parts,
    /// The frame that is being read.
    frame: Bytes,
    turns: Turns,
    /// Its place among the streams of blobs, once it has one.
    stream: Option<BlobStream>,
    /// How long the client was waited for with that, and what came.
    waited: Duration,
    bytes: u64,
}

impl<B: Body<Data = Bytes>> Incoming<B> {
    fn new(body: B, cache: &Cache) -> Self {
        let parts = Parts::new(cache.limits().message_in_bytes_max);
        let (frame, turns) = (Bytes::new(), Turns::many());
        Self { body: Box::pin(body), parts, frame, turns, stream: None, waited: Duration::ZERO, bytes: 0 }
    }

    /// The next frame. A client that sends nothing for too long is given up, and so is one that sends slowly while others
    /// want its place.
    async fn next_frame(&mut self) -> Result<Option<Result<Frame<Bytes>, B::Error>>, CallError> {
        let (begun, before) = (monotonic(), self.waited);
        loop {
            let frame = timeout(LOOKS, self.body.frame()).await;
            self.waited = before + since(begun);
            if let Ok(Some(Ok(frame))) = &frame {
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            if self.is_slow() && self.stream.as_ref().is_some_and(BlobStream::gives_way) {
                return Err(CallError::BlobSlow { bytes_per_s: BYTES_PER_S_MIN });
            }
            match frame {
                Ok(frame) => return Ok(frame),
                Err(_) if self.waited - before < IDLE_MAX => {}
                Err(_) => return Err(CallError::BlobStalled { waited_s: IDLE_MAX.as_secs() }),
            }
        }
    }

    fn is_slow(&self) -> bool {
        self.waited >= ARRIVES_WITHIN && self.bytes < self.waited.as_secs() * BYTES_PER_S_MIN
    }

    async fn part(&mut self) -> Result<Option<Part>, CallError> {
        loop {
            if let Some(part) = self.parts.next(&mut self.frame)? {
                return Ok(Some(part));
            }
            // Its frames may all be here, and have little in them.
            self.turns.pass().await;
            match self.next_frame().await? {
                None => return self.parts.end().map(|()| None),
                Some(Ok(frame)) => self.frame = frame.into_data().unwrap_or_default(),
                // The client has gone; nobody reads the answer.
                Some(Err(_)) => return Err(GrpcError::Frame { what: "the request broke off" }.into()),
            }
        }
    }

    /// Gathers a block of content; false: there is none any more.
    async fn block(&mut self, block: &mut Vec<Bytes>) -> Result<bool, CallError> {
        let mut bytes = 0;
        while bytes < BLOCK_BYTES {
            match self.part().await? {
                Some(Part::Data(data)) => {
                    bytes += data.len();
                    block.push(data);
                }
                Some(Part::Header(_)) => {
                    let why = "there is one already, and the others have chunks".to_owned();
                    return Err(CallError::Invalid { field: "header", why });
                }
                None => break,
            }
        }
        Ok(bytes > 0)
    }
}

/// A blob that is written block by block.
struct Storing {
    writer: JoinHandle<Result<Parked, BlobError>>,
    digest: JoinHandle<Digest>,
}

impl Storing {
    async fn begin(
        begin: impl FnOnce() -> Result<BlobWriter, BlobError> + Send + 'static,
    ) -> Result<Self, BlobError> {
        let writer = joined(spawn_blocking(move || begin().map(Parked::new))).await?;
        Ok(Self { writer: spawn_blocking(|| Ok(writer)), digest: spawn_blocking(Digest::default) })
    }

    /// Hands a block to the disk when the one before is there.
    async fn write(&mut self, block: Vec<Bytes>) -> Result<(), BlobError> {
        let block = Arc::new(block);
        let (mut writer, mut digest) = self.written().await?;
        let hashed = Arc::clone(&block);
        self.digest = spawn_blocking(move || {
            hashed.iter().for_each(|data| digest.update(data));
            digest
        });
        self.writer = spawn_blocking(move || {
            block.iter().try_for_each(|data| writer.get()?.write(data)).map(|()| writer)
        });
        Ok(())
    }

    async fn finish(
        mut self,
        cache: Arc<Cache>,
        namespace: Namespace,
        ttl: Option<Ttl>,
    ) -> Result<v1::PutBlobResponse, BlobError> {
        let (mut writer, digest) = self.written().await?;
        let ttl = ttl.unwrap_or_else(|| namespace.config().default_ttl);
        let finish = move || {
            let writer = writer.take()?;
            let now = cache.now();
            let version = cache.draw_version(now).ok_or(BlobError::NoVersion)?;
            let end = Finish { version, ttl, now };
            writer.finish(digest, end, || {
                writable(&cache)?;
                // Who deletes a namespace removes its blobs after that: this one is removed too, or never there.
                let is_there =
                    cache.namespace(namespace.name()).is_some_and(|found| found.id() == namespace.id());
                if is_there { Ok(()) } else { Err(BlobError::Unwanted) }
            })
        };
        let stored = joined(spawn_blocking(finish)).await?;
        Ok(v1::PutBlobResponse {
            version: stored.version.0,
            size_bytes: stored.size_bytes,
            sha256: Bytes::copy_from_slice(&stored.sha256),
        })
    }

    /// Writer and digest, when both are done with what they were given.
    async fn written(&mut self) -> Result<(Parked, Digest), BlobError> {
        let digest = joined(&mut self.digest).await;
        Ok((joined(&mut self.writer).await?, digest))
    }
}

/// A writer between two blocks. One that is dropped deletes its file, and does that where blocking is allowed, wherever
/// its call ends.
struct Parked(Option<BlobWriter>);

impl Parked {
    fn new(writer: BlobWriter) -> Self {
        Self(Some(writer))
    }

    fn get(&mut self) -> Result<&mut BlobWriter, BlobError> {
        self.0.as_mut().ok_or(BlobError::Broken)
    }

    fn take(&mut self) -> Result<BlobWriter, BlobError> {
        self.0.take().ok_or(BlobError::Broken)
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        if let (Some(writer), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(writer));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{Stream, stream};
    use http_body_util::StreamBody;
    use tokio::time::sleep;

    use super::*;
    use crate::engine::EngineConfig;
    use crate::entry::Limits;

    /// Frames of this length, ten a second.
    fn frames(bytes: usize) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
        stream::unfold((), move |()| async move {
            sleep(Duration::from_millis(100)).await;
            Some((Ok(Frame::data(vec![0; bytes].into())), ()))
        })
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_trickles_gives_way_to_one_that_was_refused() {
        let cache = Cache::new(&EngineConfig::default(), Limits::default());
        cache.set_blob_streams_max(2);
        let upload = |bytes| {
            let stream = Some(cache.blob_stream().unwrap());
            Incoming { stream, ..Incoming::new(StreamBody::new(frames(bytes)), &cache) }
        };
        let (mut slow, mut fast) = (upload(1), upload(2 << 10));
        for _ in 0..100 {
            assert!(
                slow.next_frame().await.is_ok() && fast.next_frame().await.is_ok(),
                "nobody else is there"
            );
        }
        assert!(cache.blob_stream().is_err());
        assert!(fast.next_frame().await.is_ok());
        let refused = slow.next_frame().await.map(drop);
        assert_eq!(refused, Err(CallError::BlobSlow { bytes_per_s: BYTES_PER_S_MIN }));
        drop(slow);
        let mut next = upload(1);
        for _ in 0..100 {
            assert!(next.next_frame().await.is_ok(), "nobody was refused meanwhile");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_nothing_is_given_up() {
        let cache = Cache::new(&EngineConfig::default(), Limits::default());
        let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let begun = monotonic();
        let refused = Incoming::new(body, &cache).next_frame().await.map(drop);
        assert_eq!(refused, Err(CallError::BlobStalled { waited_s: 30 }));
        assert!((30..=31).contains(&since(begun).as_secs()));
    }
}
