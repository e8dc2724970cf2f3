//! How the use of a data directory ends: the threads that look after it first, then the last snapshot where there is no
//! journal, then the journal. A shortage keeps all of that together no longer than [`SHORTAGE_AT_STOP_MAX`].

use std::time::Instant;

use super::{Disk, SHORTAGE_PAUSE};
use crate::clock::monotonic;
use crate::persistence::journal::SHORTAGE_AT_STOP_MAX;
use crate::persistence::snapshot::SnapshotError;

impl Disk {
    /// Writes and syncs what is left, by a last snapshot where there is no journal, and accepts no change any more.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn stop(&self) -> Result<u64, SnapshotError> {
        let until = monotonic() + SHORTAGE_AT_STOP_MAX;
        self.end_upkeep(until);
        // There will be no more of a journal that would need it.
        self.inner.room.give_up_reserve();
        let last = waited_out(until, || self.inner.last_snapshot());
        if let Err(error) = &last {
            tracing::error!(%error, "no last snapshot could be taken: changes since the one before are not on the disk");
        }
        let position = self.inner.journal.stop()?;
        last.map(|()| position)
    }

    /// As [`Self::stop`], but where there is no journal, what is not in a snapshot is given up.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn stop_at_once(&self) -> Result<u64, SnapshotError> {
        self.end_upkeep(monotonic() + SHORTAGE_AT_STOP_MAX);
        Ok(self.inner.journal.stop()?)
    }

    /// Ends the threads that look after it. They may be waiting for the journal, and that for a shortage to pass.
    fn end_upkeep(&self, until: Instant) {
        self.inner.journal.bound_shortages(until);
        *self.inner.stopping.lock() = true;
        self.inner.room.wake();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.stop_at_once();
    }
}

/// Retries `last` until the time `until` while it fails for a shortage: connections that end give back descriptors and
/// memory.
fn waited_out(until: Instant, last: impl Fn() -> Result<(), SnapshotError>) -> Result<(), SnapshotError> {
    loop {
        match last() {
            Err(SnapshotError::Backend(error)) if error.is_passing() && monotonic() < until => {
                std::thread::sleep(SHORTAGE_PAUSE);
            }
            other => return other,
        }
    }
}
