//! The blobs of a cache: none, until a store is handed in.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::{Blobs, Cache};

/// Streams of blobs at once, in and out: each holds a few chunks in memory.
const BLOB_STREAMS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct BlobShelf {
    blobs: OnceLock<Blobs>,
    streams: Arc<AtomicUsize>,
}

/// One of the streams of blobs that are under way, until it is dropped.
#[derive(Debug)]
pub struct BlobStream(Arc<AtomicUsize>);

impl Drop for BlobStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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

    /// Lets one more blob be streamed.
    ///
    /// # Errors
    /// How many are under way, where that is as many as there may be.
    pub fn blob_stream(&self) -> Result<BlobStream, usize> {
        let streams = &self.blobs.streams;
        let one_more = |streams| (streams < BLOB_STREAMS_MAX).then_some(streams + 1);
        match streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(BlobStream(Arc::clone(streams))),
            Err(_) => Err(BLOB_STREAMS_MAX),
        }
    }
}
