//! Calls whose requests have begun to come and are not whole: they wait for their peers, not for the node, so they take
//! nothing of what others wait for, and a peer that sends the beginnings of many requests leaves room for those of others.
//!
//! Half of the limit is for who comes first. The other half is shared evenly by the connections that have such calls. Each
//! connection may have [`ALWAYS`] of them whatever others have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Calls that a connection may have in any case.
const ALWAYS: usize = 4;

/// Those of a node.
#[derive(Debug, Default)]
pub(super) struct Arriving {
    calls: AtomicUsize,
    /// Connections that have some.
    connections: AtomicUsize,
}

/// Those of a connection.
#[derive(Debug)]
pub(super) struct ConnectionArriving {
    of_node: Arc<Arriving>,
    calls: AtomicUsize,
}

/// One, counted until it is dropped.
#[derive(Debug)]
pub(super) struct ArrivingCall(Arc<ConnectionArriving>);

impl Arriving {
    /// How many there are.
    pub(super) fn calls(&self) -> usize {
        self.calls.load(Relaxed)
    }
}

impl ConnectionArriving {
    /// A connection that has none yet.
    pub(super) fn new(of_node: Arc<Arriving>) -> Self {
        Self { of_node, calls: AtomicUsize::new(0) }
    }

    /// Counts one more where there may be `limit` in all, unless its connection has its share; `None`: it is to be refused.
    pub(super) fn enter(self: &Arc<Self>, limit: usize) -> Option<ArrivingCall> {
        let (own, all) = (self.calls.load(Relaxed), self.of_node.calls.load(Relaxed));
        let connections = self.of_node.connections.load(Relaxed) + usize::from(own == 0);
        let may = own < ALWAYS || all < limit / 2 || (all < limit && own < limit / 2 / connections);
        may.then(|| {
            self.of_node.calls.fetch_add(1, Relaxed);
            if self.calls.fetch_add(1, Relaxed) == 0 {
                self.of_node.connections.fetch_add(1, Relaxed);
            }
            ArrivingCall(Arc::clone(self))
        })
    }
}

impl Drop for ArrivingCall {
    fn drop(&mut self) {
        self.0.of_node.calls.fetch_sub(1, Relaxed);
        if self.0.calls.fetch_sub(1, Relaxed) == 1 {
            self.0.of_node.connections.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(node: &Arc<Arriving>) -> Arc<ConnectionArriving> {
        Arc::new(ConnectionArriving::new(Arc::clone(node)))
    }

    /// As many as a connection may have, held.
    fn all_of(connection: &Arc<ConnectionArriving>, limit: usize) -> Vec<ArrivingCall> {
        std::iter::from_fn(|| connection.enter(limit)).take(1_000_000).collect()
    }

    #[test]
    fn a_connection_that_takes_all_it_can_leaves_others_their_share() {
        let node = Arc::default();
        let (greedy, other, third) = (connection(&node), connection(&node), connection(&node));
        let first = all_of(&greedy, 64);
        assert_eq!(first.len(), 32);
        let second = all_of(&other, 64);
        assert_eq!(second.len(), 16);
        assert_eq!(all_of(&third, 64).len(), 10);
        assert!(greedy.enter(64).is_none());
        drop((first, second));
        assert_eq!((node.calls.load(Relaxed), node.connections.load(Relaxed)), (0, 0));
        assert_eq!(all_of(&third, 64).len(), 32, "alone");
    }

    #[test]
    fn a_connection_has_a_few_whatever_others_have() {
        let node = Arc::default();
        let held: Vec<_> = (0..100).map(|_| all_of(&connection(&node), 64)).collect();
        assert!(held.iter().all(|calls| calls.len() >= ALWAYS));
        let all: usize = held.iter().map(Vec::len).sum();
        assert!(all <= 64 + 100 * ALWAYS, "{all}");
        assert_eq!(all_of(&connection(&node), 64).len(), ALWAYS);
    }
}
