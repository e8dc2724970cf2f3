//! The blobs of a cache: none, until a store is handed in.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::{Blobs, Cache};

/// Streams of blobs at once, in and out: each holds a few chunks in memory, and a file.
const BLOB_STREAMS_MAX: usize = 64;

/// To know which blobs there are may take this part of the limit on memory.
const BLOB_KEYS_PART: u64 = 8;

#[derive(Debug)]
pub(super) struct BlobState {
    blobs: OnceLock<Blobs>,
    streams: Arc<Streams>,
    streams_max: AtomicUsize,
    /// What the engine was last told that they take of memory.
    charged: AtomicU64,
}

impl Default for BlobState {
    fn default() -> Self {
        let (blobs, streams) = (OnceLock::new(), Arc::default());
        let streams_max = AtomicUsize::new(BLOB_STREAMS_MAX);
        Self { blobs, streams, streams_max, charged: AtomicU64::new(0) }
    }
}

#[derive(Debug, Default)]
struct Streams {
    open: AtomicUsize,
    /// Those that were refused and have found no place since.
    wanted: AtomicUsize,
}

impl Streams {
    /// Whether one wanted a place; then it is taken for served.
    fn serve_wanted(&self) -> bool {
        let one_less = |wanted: usize| wanted.checked_sub(1);
        self.wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }
}

/// One of the streams of blobs that are under way, until it is dropped.
#[derive(Debug)]
pub struct BlobStream(Arc<Streams>);

impl BlobStream {
    /// Whether the place is to be given up for one that was refused. Each refusal makes this true once, of whichever stream
    /// asks first: for streams that could do without their place.
    #[must_use]
    pub fn gives_way(&self) -> bool {
        self.0.serve_wanted()
    }
}

impl Drop for BlobStream {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cache {
    /// Serves blobs from now on. The first store that is handed in stays; whether it is this one.
    pub fn serve_blobs(&self, blobs: Blobs) -> bool {
        self.blobs.blobs.set(blobs).is_ok()
    }

    /// The blobs; `None`: the node keeps nothing on disk.
    #[must_use]
    pub fn blobs(&self) -> Option<&Blobs> {
        self.blobs.blobs.get()
    }

    /// Counts the memory of the blobs' index as memory in use, and bounds it by the limit on that. To be called
    /// periodically.
    pub fn charge_blobs(&self) {
        let Some(blobs) = self.blobs() else { return };
        blobs.set_key_bytes_max(self.bytes_limit() / BLOB_KEYS_PART);
        let bytes = blobs.memory_bytes();
        if self.blobs.charged.swap(bytes, Ordering::Relaxed) != bytes {
            self.engine.set_blob_bytes(bytes);
        }
    }

    /// Lets no more blobs be streamed at once from now on, and never more than 64.
    pub fn set_blob_streams_max(&self, streams: usize) {
        self.blobs.streams_max.store(streams.min(BLOB_STREAMS_MAX), Ordering::Relaxed);
    }

    /// Lets one more blob be streamed.
    ///
    /// # Errors
    /// How many are under way, where that is as many as there may be.
    pub fn blob_stream(&self) -> Result<BlobStream, usize> {
        let streams = &self.blobs.streams;
        let streams_max = self.blobs.streams_max.load(Ordering::Relaxed);
        let one_more = |streams| (streams < streams_max).then_some(streams + 1);
        match streams.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => {
                streams.serve_wanted();
                Ok(BlobStream(Arc::clone(streams)))
            }
            Err(_) => {
                let one_more = |wanted| (wanted < streams_max).then_some(wanted + 1);
                let _ = streams.wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
                Err(streams_max)
            }
        }
    }
}
