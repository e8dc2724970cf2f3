//! Room on the disk: many writers at once, and none passes the limit.
//!
//! Counting what is on disk takes a walk over the files, so a writer is promised a stretch at a time. What is promised
//! and not yet written counts as used.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::BlobError;
use crate::persistence::Backend;

/// How much a writer is promised at once, where there is room.
const STRETCH_BYTES: u64 = 16 << 20;
const UNLIMITED: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Room {
    limit: AtomicU64,
    /// Promised and not yet written, over all writers.
    promised: Mutex<u64>,
}

/// What one writer was promised and has not written yet.
#[derive(Debug, Default)]
pub(super) struct Promise(u64);

impl Room {
    pub(super) fn new(limit: Option<u64>) -> Self {
        let room = Self { limit: AtomicU64::new(UNLIMITED), promised: Mutex::new(0) };
        room.set_limit(limit);
        room
    }

    pub(super) fn set_limit(&self, limit: Option<u64>) {
        self.limit.store(limit.unwrap_or(UNLIMITED), Ordering::Relaxed);
    }

    /// Whether so many bytes would fit now, for a writer that says beforehand what comes.
    pub(super) fn check(&self, backend: &dyn Backend, needs: u64) -> Result<(), BlobError> {
        let limit = self.limit.load(Ordering::Relaxed);
        if limit == UNLIMITED {
            return Ok(());
        }
        let used = backend.disk_bytes()?.saturating_add(*self.promised.lock());
        if used.saturating_add(needs) > limit { Err(BlobError::Full { needs, used, limit }) } else { Ok(()) }
    }

    /// Sees to it that the promise covers what is to be written next.
    pub(super) fn cover(
        &self,
        backend: &dyn Backend,
        promise: &mut Promise,
        needs: u64,
    ) -> Result<(), BlobError> {
        let limit = self.limit.load(Ordering::Relaxed);
        if limit == UNLIMITED || promise.0 >= needs {
            return Ok(());
        }
        let mut promised = self.promised.lock();
        let used = backend.disk_bytes()?.saturating_add(*promised);
        let missing = needs - promise.0;
        let more = [STRETCH_BYTES.max(missing), missing]
            .into_iter()
            .find(|more| used.saturating_add(*more) <= limit)
            .ok_or(BlobError::Full { needs: missing, used, limit })?;
        *promised += more;
        promise.0 += more;
        Ok(())
    }

    /// Notes that so much was written: the disk counts it from now on.
    pub(super) fn written(&self, promise: &mut Promise, bytes: u64) {
        let bytes = bytes.min(promise.0);
        promise.0 -= bytes;
        *self.promised.lock() -= bytes;
    }

    /// Takes back what is left of a promise.
    pub(super) fn release(&self, promise: &mut Promise) {
        self.written(promise, u64::MAX);
    }
}
