//! How many connections are open, and how many may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A count of open connections with a limit, shared by the listeners that it is given to and by whoever reads
/// it.
///
/// A connection over the limit is accepted and closed at once, not left in the kernel's queue: its client
/// learns within a round trip that this node has no room and can go to another or try again later, where it
/// would otherwise wait until its own deadline for nothing.
#[derive(Debug, Clone)]
pub struct Connections {
    free: Arc<Semaphore>,
    connections_max: usize,
    counters: Arc<Counters>,
}

impl Connections {
    /// The limit of a node whose configuration says none.
    pub const LIMIT_DEFAULT: usize = 10_000;

    /// A count at 0 of at most `connections_max`.
    #[must_use]
    pub fn new(connections_max: usize) -> Self {
        let connections_max = connections_max.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(connections_max)), connections_max, counters: Arc::default() }
    }

    /// How many are open now.
    #[must_use]
    pub fn open(&self) -> u64 {
        (self.connections_max - self.free.available_permits()) as u64
    }

    /// How many may be open at once.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.connections_max as u64
    }

    /// How many were taken in since the start, those that are closed again included.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.counters.accepted.load(Ordering::Relaxed)
    }

    /// How many were closed at once, for the limit or for want of descriptors.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.counters.refused.load(Ordering::Relaxed)
    }

    /// Room for one more connection, given back when it is dropped; `None` at the limit.
    pub(crate) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        Some(permit)
    }

    pub(crate) fn count_refused(&self, connections: u64) {
        self.counters.refused.fetch_add(connections, Ordering::Relaxed);
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self::new(Self::LIMIT_DEFAULT)
    }
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    refused: AtomicU64,
}
