//! PutBlob, GetBlob, DeleteBlob, ListBlobs: what lies on the disk. The disk is waited for on blocking threads alone.
//!
//! - `parts`: PutBlob's stream, read. `put`: written. `get`: GetBlob's stream.
//!
//! ```text
//! page token, 10 to 4105 bytes, big-endian
//! ┌──────────┬───────────────────────────────────┬──────────┐
//! │ form (1) │ XXH64 of namespace, 0, prefix (8) │ last key │
//! └──────────┴───────────────────────────────────┴──────────┘
//! ```
//!
//! Blobs are in the order of their keys, so a token is good after a restart too, and on any node.

mod get;
mod parts;
mod put;

#[cfg(fuzzing)]
pub(super) use parts::fuzz;

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use prost::Message;
use tokio::task::{spawn_blocking, yield_now};

use super::keyspace::framed;
use super::turns::joined;
use super::unary::namespace;
use crate::cache::{BlobError, Blobs, Cache, Listed, Manifest};
use crate::clock::{Now, Throttle};
use crate::entry::Ttl;
use crate::grpc::ResponseBody;
use crate::proto::v1;
use crate::quote::Quote;
use crate::request::CallError;
use crate::request::convert;
use crate::request::page::{bad_token, page_size};
use crate::verb::Verb;

/// Manifests that a page looks at before it ends, be it empty.
const MANIFESTS_PER_PAGE: usize = 20_000;
const TOKEN_FORM: u8 = 2;
const TOKEN_HEAD_BYTES: usize = 9;
/// What a header takes in the page beside its own bytes.
const ITEM_HEAD_BYTES: usize = 6;

/// A call that runs.
pub(super) struct BlobCall(Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, CallError>> + Send>>);

impl BlobCall {
    /// A call of a verb whose request is one message.
    pub(super) fn new(verb: Verb, cache: Arc<Cache>, message: Bytes) -> Self {
        Self(Box::pin(call(verb, cache, message)))
    }

    /// A PutBlob of what a request's body brings.
    pub(super) fn put<B>(body: B, cache: Arc<Cache>) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        Self(Box::pin(put::put(body, cache)))
    }
}

impl std::fmt::Debug for BlobCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobCall")
    }
}

impl Future for BlobCall {
    type Output = Result<Response<ResponseBody>, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

async fn call(verb: Verb, cache: Arc<Cache>, message: Bytes) -> Result<Response<ResponseBody>, CallError> {
    match verb {
        Verb::GetBlob => get(&cache, message).await,
        Verb::DeleteBlob => delete(&cache, message).await,
        _ => list(&cache, message).await,
    }
}

async fn get(cache: &Arc<Cache>, message: Bytes) -> Result<Response<ResponseBody>, CallError> {
    let request: v1::GetBlobRequest = convert::decode(&message)?;
    let limits = cache.limits();
    convert::key(&request.key, &limits, || "key".to_owned())?;
    namespace(cache, &request.namespace)?;
    let blobs = blobs(cache, "Cache.GetBlob")?;
    let stream = cache.blob_stream().map_err(|limit| CallError::BlobsOverloaded { limit })?;
    let (now, key, name) = (cache.now(), request.key.clone(), request.namespace.clone());
    let opened = spawn_blocking(move || {
        let mut reader = blobs.read(&name, &key, now)?;
        reader.limit(request.offset, request.length)?;
        Ok(reader)
    });
    let reader = joined(opened).await.map_err(|error| refused(error, &request.key))?;
    let header = header(request.namespace, request.key, reader.manifest(), reader.ttl());
    let body = get::GetBlobBody::new(header, reader, limits.message_out_bytes_max, stream);
    Ok(ResponseBody::stream(body))
}

async fn delete(cache: &Arc<Cache>, message: Bytes) -> Result<Response<ResponseBody>, CallError> {
    // What is turned away, because too many wait, has deleted nothing.
    yield_now().await;
    let request: v1::DeleteBlobRequest = convert::decode(&message)?;
    convert::key(&request.key, &cache.limits(), || "key".to_owned())?;
    namespace(cache, &request.namespace)?;
    let (blobs, now, key) = (blobs(cache, "Cache.DeleteBlob")?, cache.now(), request.key.clone());
    let cache = Arc::clone(cache);
    let deleted =
        spawn_blocking(move || blobs.delete(&request.namespace, &request.key, now, || writable(&cache)));
    let deleted = joined(deleted).await.map_err(|error| refused(error, &key))?;
    Ok(ResponseBody::unary(framed(&v1::DeleteBlobResponse { deleted }).into()))
}

async fn list(cache: &Arc<Cache>, message: Bytes) -> Result<Response<ResponseBody>, CallError> {
    let request: v1::ListBlobsRequest = convert::decode(&message)?;
    let limits = cache.limits();
    let (bytes, max) = (request.prefix.len(), limits.key_bytes_max);
    if bytes > max {
        return Err(CallError::KeyTooLong { field: "prefix".to_owned(), bytes, max });
    }
    namespace(cache, &request.namespace)?;
    let (blobs, now) = (blobs(cache, "Cache.ListBlobs")?, cache.now());
    let wanted = page_size(request.page_size, limits.batch_items_max);
    let after = token_key(&request)?;
    let page =
        spawn_blocking(move || page(&blobs, &request, after, wanted, limits.message_out_bytes_max, now));
    let page = joined(page).await?;
    Ok(ResponseBody::unary(framed(&page).into()))
}

/// One page of a listing.
fn page(
    blobs: &Blobs,
    request: &v1::ListBlobsRequest,
    after: Option<Bytes>,
    wanted: usize,
    message_bytes_max: usize,
    now: Now,
) -> Result<v1::ListBlobsResponse, CallError> {
    let mut page = v1::ListBlobsResponse::default();
    let (mut bytes, mut seen, mut more) = (0, 0, false);
    let mut last = after.clone().unwrap_or_default();
    let mut visit = |listed: Option<Listed<'_>>| {
        if page.blobs.len() == wanted || seen == MANIFESTS_PER_PAGE {
            more = true;
            return ControlFlow::Break(());
        }
        seen += 1;
        let Some(listed) = listed else { return ControlFlow::Continue(()) };
        let key = Bytes::copy_from_slice(listed.key);
        let header = header(request.namespace.clone(), key.clone(), listed.manifest, listed.ttl);
        let size = header.encoded_len() + ITEM_HEAD_BYTES;
        // The token may be this blob's.
        if bytes + size + TOKEN_HEAD_BYTES + key.len() + ITEM_HEAD_BYTES > message_bytes_max {
            more = true;
            return ControlFlow::Break(());
        }
        bytes += size;
        last = key;
        page.blobs.push(header);
        ControlFlow::Continue(())
    };
    let listed = blobs.list(&request.namespace, &request.prefix, after.as_deref(), now, &mut visit);
    listed.map_err(|error| refused(error, b""))?;
    if more && page.blobs.is_empty() && seen < MANIFESTS_PER_PAGE {
        let max = message_bytes_max;
        return Err(CallError::AnswerTooLarge { answered: 0, keys: 1, max });
    }
    if more {
        let mut token = vec![TOKEN_FORM];
        token.extend_from_slice(&range_hash(request).to_be_bytes());
        token.extend_from_slice(&last);
        page.next_page_token = token.into();
    }
    Ok(page)
}

fn range_hash(request: &v1::ListBlobsRequest) -> u64 {
    let mut range = request.namespace.as_bytes().to_vec();
    range.push(0);
    range.extend_from_slice(&request.prefix);
    xxhash_rust::xxh64::xxh64(&range, 0)
}

/// The key that the page before ended with.
fn token_key(request: &v1::ListBlobsRequest) -> Result<Option<Bytes>, CallError> {
    let token = &request.page_token;
    if token.is_empty() {
        return Ok(None);
    }
    let hash = token.get(1..TOKEN_HEAD_BYTES).and_then(|hash| hash.try_into().ok()).map(u64::from_be_bytes);
    let (TOKEN_FORM, Some(hash)) = (token[0], hash) else {
        return Err(bad_token("it is none that a node gave"));
    };
    if hash != range_hash(request) {
        return Err(bad_token("it is of a listing of another namespace or prefix"));
    }
    let key = token.slice(TOKEN_HEAD_BYTES..);
    if !key.starts_with(&request.prefix) {
        return Err(bad_token("it is none that a node gave"));
    }
    Ok(Some(key))
}

fn header(namespace: String, key: Bytes, manifest: &Manifest, ttl: Ttl) -> v1::BlobHeader {
    v1::BlobHeader {
        namespace,
        key,
        content_type: manifest.content_type.clone(),
        ttl_ms: ttl.to_wire_ms(),
        size_bytes: manifest.size_bytes,
        sha256: Bytes::copy_from_slice(&manifest.sha256),
        version: manifest.version.0,
    }
}

/// The store, for a call of `what`.
fn blobs(cache: &Cache, what: &str) -> Result<Blobs, CallError> {
    cache.blobs().cloned().ok_or_else(|| nothing_on_disk(what))
}

/// Whether anything may be written still: not where memory and disk have parted.
fn writable(cache: &Cache) -> Result<(), BlobError> {
    if cache.is_poisoned() { Err(BlobError::Poisoned) } else { Ok(()) }
}

fn nothing_on_disk(what: &str) -> CallError {
    CallError::NoPersistence { what: what.to_owned() }
}

/// Why a call about a blob fails.
pub(super) fn refused(error: BlobError, key: &[u8]) -> CallError {
    static DAMAGED: Throttle = Throttle::new();
    static REFUSED: Throttle = Throttle::new();
    static SHORTAGE: Throttle = Throttle::new();
    let why = error.to_string();
    match error {
        BlobError::NotFound => CallError::BlobNotFound { key: Quote::of(key) },
        BlobError::OutOfRange { offset, size_bytes } => CallError::OffsetBeyondEnd { offset, size_bytes },
        BlobError::Differs { field, .. } | BlobError::Unwritable { field, .. } => {
            CallError::BlobDiffers { field, why }
        }
        BlobError::Unwanted => CallError::NamespaceGone,
        BlobError::Poisoned => CallError::JournalPoisoned,
        BlobError::NoVersion => CallError::VersionsUsedUp,
        BlobError::Full { .. } | BlobError::DiskFull(_) => CallError::DiskFull { why },
        BlobError::KeysFull { .. } => CallError::BlobKeysFull { why },
        BlobError::Backend(error) if error.is_passing() => {
            SHORTAGE.say(|left_out| {
                tracing::warn!(error = why, left_out, "a call about a blob is refused for now");
            });
            CallError::Shortage { why }
        }
        BlobError::Damaged(damage) => {
            let (place, offset, what) = (&damage.place, damage.offset, damage.what);
            DAMAGED.say(|left_out| {
                tracing::error!(place, offset, what, left_out, "a blob is damaged");
            });
            CallError::BlobDamaged { why }
        }
        _ => {
            REFUSED.say(|left_out| {
                tracing::error!(error = why, left_out, "the disk refused a call about a blob");
            });
            CallError::DiskFailed { why }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing::{Event, Subscriber};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt};

    use super::*;
    use crate::persistence::backend::BackendError;

    /// Counts lines.
    #[derive(Clone, Default)]
    struct Lines(Arc<AtomicUsize>);

    impl<S: Subscriber> Layer<S> for Lines {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn calls_that_meet_a_shortage_do_not_log_a_line_each() {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::registry().with(lines.clone());
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..100 {
                let source = std::io::ErrorKind::OutOfMemory.into();
                let shortage = BackendError::Shortage { action: "open", place: "a file".to_owned(), source };
                let refused = refused(BlobError::Backend(shortage), b"key");
                assert!(matches!(refused, CallError::Shortage { .. }), "{refused:?}");
            }
        });
        let lines = lines.0.load(Ordering::Relaxed);
        assert!(lines < 10, "{lines} lines of 100 calls: one a second is meant");
    }
}
