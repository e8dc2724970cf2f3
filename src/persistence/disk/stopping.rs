//! How the use of a data directory ends.

use std::time::Duration;

use super::{Disk, SHORTAGE_PAUSE};
use crate::clock::monotonic;
use crate::persistence::snapshot::SnapshotError;

/// How long a node that stops waits for its last snapshot where there is a shortage.
const SHORTAGE_MAX: Duration = Duration::from_secs(10);

impl Disk {
    /// Writes and syncs what is left, by a last snapshot where there is no journal, and accepts no change any more.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn stop(&self) -> Result<u64, SnapshotError> {
        self.end_upkeep();
        // There will be no more of a journal that would need it.
        self.inner.room.give_up_reserve();
        let last = waited_out(|| self.inner.last_snapshot());
        let position = self.inner.journal.stop()?;
        last.map(|()| position)
    }

    /// As [`Self::stop`], but where there is no journal, what is not in a snapshot is given up.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn stop_at_once(&self) -> Result<u64, SnapshotError> {
        self.end_upkeep();
        Ok(self.inner.journal.stop()?)
    }

    fn end_upkeep(&self) {
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

/// Tries again for a while what meets a shortage: connections that end give back what they hold.
fn waited_out(last: impl Fn() -> Result<(), SnapshotError>) -> Result<(), SnapshotError> {
    let begun = monotonic();
    loop {
        match last() {
            Err(SnapshotError::Backend(error)) if error.is_passing() && begun.elapsed() < SHORTAGE_MAX => {
                std::thread::sleep(SHORTAGE_PAUSE);
            }
            other => return other,
        }
    }
}
