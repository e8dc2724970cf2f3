//! How many connections are open, and how many may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::load::Load;
use super::unread_answers::UnreadAnswers;

/// A count of open connections with a limit, shared by the listeners that count against it and by those who read it.
///
/// A connection over the limit is accepted and closed at once, not left in the kernel's queue: its client
/// learns within a round trip that this node has no room and can go to another or try again later, where it
/// would otherwise wait until its own deadline for nothing.
#[derive(Debug, Clone)]
pub struct Connections {
    limit: Arc<AtomicU64>,
    /// No more than this, whatever the limit.
    bound: Arc<AtomicU64>,
    sibling_bound: Arc<AtomicU64>,
    counters: Arc<Counters>,
    unread: RefusedUnread,
    answers: UnreadAnswers,
    load: Load,
}

/// Requests that were refused as they had lain unread for too long. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct RefusedUnread(Arc<AtomicU64>);

impl RefusedUnread {
    pub(super) fn count(&self, requests: u64) {
        self.0.fetch_add(requests, Ordering::Relaxed);
    }
}

/// How many connections the process has descriptors for, whatever the limit is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionBounds {
    /// On the data listeners together.
    pub data: usize,
    /// On each other listener.
    pub control: usize,
}

impl ConnectionBounds {
    /// As many as the limit says.
    pub const NONE: Self = Self { data: usize::MAX, control: usize::MAX };
}

impl Connections {
    /// The limit of a node whose configuration says none.
    pub const LIMIT_DEFAULT: usize = 10_000;

    /// A count at 0 of at most `connections_max`.
    #[must_use]
    pub fn new(connections_max: usize) -> Self {
        Self {
            limit: Arc::new(AtomicU64::new(connections_max as u64)),
            bound: Arc::new(AtomicU64::new(u64::MAX)),
            sibling_bound: Arc::new(AtomicU64::new(u64::MAX)),
            counters: Arc::default(),
            unread: RefusedUnread::default(),
            answers: UnreadAnswers::default(),
            load: Load::default(),
        }
    }

    /// The same, but no more than these.
    #[must_use]
    pub fn within(self, bounds: ConnectionBounds) -> Self {
        self.set_bounds(bounds);
        self
    }

    /// Sets how many there are descriptors for from now on, here and in the siblings; those that are open stay.
    pub fn set_bounds(&self, bounds: ConnectionBounds) {
        self.bound.store(bounds.data as u64, Ordering::Relaxed);
        self.sibling_bound.store(bounds.control as u64, Ordering::Relaxed);
    }

    /// A count of its own at 0, whose limit is this one's, also when that changes; but no more than descriptors are
    /// there for.
    #[must_use]
    pub fn sibling(&self) -> Self {
        let bound = Arc::clone(&self.sibling_bound);
        Self { bound, counters: Arc::default(), load: Load::default(), ..self.clone() }
    }

    /// How many are open now.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.counters.open.load(Ordering::Relaxed)
    }

    /// How many may be open at once.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed).min(self.bound.load(Ordering::Relaxed))
    }

    /// Sets how many may be open at once from now on; those that are open stay.
    pub fn set_limit(&self, connections_max: usize) {
        self.limit.store(connections_max as u64, Ordering::Relaxed);
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

    /// Requests on them, and on their siblings, that were refused as they had lain unread for too long.
    #[must_use]
    pub fn requests_refused(&self) -> u64 {
        self.unread.0.load(Ordering::Relaxed)
    }

    /// Their load.
    pub(crate) fn load(&self) -> Load {
        self.load.clone()
    }

    /// Answers on them, and on their siblings, that are not read.
    pub(crate) fn unread_answers(&self) -> UnreadAnswers {
        self.answers.clone()
    }

    /// Counts these.
    pub(crate) fn refused_unread(&self) -> RefusedUnread {
        self.unread.clone()
    }

    /// Room for one more connection, given back when it is dropped; `None` at the limit.
    pub(crate) fn enter(&self) -> Option<OpenConnection> {
        let limit = self.limit();
        let one_more = |open| (open < limit).then_some(open + 1);
        self.counters.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        Some(OpenConnection(Arc::clone(&self.counters)))
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
    open: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection(Arc<Counters>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_changes_holds_for_every_count_that_shares_it() {
        let data = Connections::new(1);
        let admin = data.sibling();
        let open = (data.enter().unwrap(), admin.enter().unwrap());
        assert!(data.enter().is_none() && admin.enter().is_none());
        data.set_limit(2);
        let more = admin.enter().unwrap();
        assert_eq!((data.open(), admin.open(), admin.limit()), (1, 2, 2));
        data.set_limit(1);
        drop(more);
        assert!(admin.enter().is_none(), "the limit is reached again, not passed");
        drop(open);
        assert_eq!((data.open(), admin.open(), admin.accepted()), (0, 0, 2));
    }

    #[test]
    fn no_limit_is_above_what_there_are_descriptors_for() {
        let data = Connections::new(10).within(ConnectionBounds { data: 4, control: 2 });
        let admin = data.sibling();
        assert_eq!((data.limit(), admin.limit()), (4, 2));
        data.set_limit(1_000);
        assert_eq!((data.limit(), admin.limit()), (4, 2));
        data.set_limit(3);
        assert_eq!((data.limit(), admin.limit()), (3, 2));
        let _open = (admin.enter().unwrap(), admin.enter().unwrap());
        assert!(admin.enter().is_none() && data.enter().is_some());
        data.set_limit(1_000);
        data.set_bounds(ConnectionBounds { data: 5, control: 1 });
        assert_eq!((data.limit(), admin.limit(), data.sibling().limit()), (5, 1, 1));
        assert_eq!(admin.open(), 2, "those that are open stay");
        data.set_bounds(ConnectionBounds::NONE);
        assert_eq!((data.limit(), admin.limit()), (1_000, 1_000));
    }
}
