//! Who uses how much of a node's processors, while it is asked for more than it can do.
//!
//! Who uses less than an even share is not what the others have to wait for, and does not wait for its turn: a share of the
//! node for each peer, and a share of its peer's for each connection (max-min fairness, but for a step: Bertsekas and
//! Gallager, Data Networks, 6.5.2). What counts is the processor's time in a connection's turns, whatever it asks for.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::endpoint::{PeerAddress, PeerIdentity, PeerInfo};

/// Of an even share, the part that a connection uses which does not have to wait.
const LIGHT: f64 = 0.8;
/// The same of a peer; and of one of which no connection has had to wait, as all of them would have to at once.
const LIGHT_PEER: [f64; 2] = [0.95, 1.2];
/// Of what was used, the part that counts an interval later.
const KEPT: f64 = 0.75;

/// Whose connections share a share: a host; on this machine, a process. A network of 64 bits is one host of IPv6, as one
/// host can have all its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum PeerName {
    Host(IpAddr),
    Local { user: u32, process: Option<i32> },
    Unknown,
}

impl From<&PeerInfo> for PeerName {
    fn from(peer: &PeerInfo) -> Self {
        match (peer.address, &peer.identity) {
            (_, Some(PeerIdentity::Process { user, process })) => {
                Self::Local { user: *user, process: *process }
            }
            (PeerAddress::Tcp(address), None) => Self::Host(match address.ip().to_canonical() {
                IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
                ip @ IpAddr::V4(_) => ip,
            }),
            (PeerAddress::Unix, None) => Self::Unknown,
        }
    }
}

/// What all use.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// The number of the interval.
    interval: AtomicU64,
    meter: Meter,
    peers: Mutex<HashMap<PeerName, Arc<PeerUsage>>>,
}

/// What a peer's connections use.
#[derive(Debug, Default)]
pub(super) struct PeerUsage {
    connections: AtomicUsize,
    meter: Meter,
    /// Its connections that used something in the interval.
    active: AtomicUsize,
    /// Those that are parked, and those that are read until others have their turn.
    pub(super) parked: AtomicUsize,
    pub(super) reading: AtomicUsize,
    /// What each may use in an interval without having to wait.
    share: AtomicU64,
}

/// What a connection uses, until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionUsage {
    of_node: Arc<Usage>,
    name: PeerName,
    peer: Arc<PeerUsage>,
    meter: Meter,
}

/// What was used of late, in nanoseconds: all of this interval, [`KEPT`] of the one before, and so on.
#[derive(Debug)]
struct Meter {
    interval: AtomicU64,
    used: AtomicU64,
}

impl Default for Meter {
    fn default() -> Self {
        Self { interval: u64::MAX.into(), used: 0.into() }
    }
}

impl Meter {
    /// Adds to what was used in an interval; says whether it is the first of it.
    fn add(&self, interval: u64, used: u64) -> bool {
        let before = self.interval.load(Relaxed);
        if before == interval {
            self.used.fetch_add(used, Relaxed);
            return false;
        }
        let kept = self.recent(interval);
        self.interval.store(interval, Relaxed);
        self.used.store(kept + used, Relaxed);
        true
    }

    fn recent(&self, interval: u64) -> u64 {
        let used = self.used.load(Relaxed);
        match interval.saturating_sub(self.interval.load(Relaxed)) {
            0 => used,
            intervals => (used as f64 * KEPT.powi(intervals.try_into().unwrap_or(i32::MAX))) as u64,
        }
    }
}

impl Usage {
    /// What a connection of a peer uses.
    pub(super) fn connection(self: &Arc<Self>, peer: &PeerInfo) -> ConnectionUsage {
        let name = PeerName::from(peer);
        let peer = {
            let mut peers = self.peers.lock();
            let peer = peers.entry(name.clone()).or_default();
            peer.connections.fetch_add(1, Relaxed);
            Arc::clone(peer)
        };
        ConnectionUsage { of_node: Arc::clone(self), name, peer, meter: Meter::default() }
    }

    /// Ends an interval, of whose time workers had nothing to do for the part `idle`. Returns the number of connections
    /// that used something.
    pub(super) fn end_interval(&self, idle: f64) -> usize {
        let interval = self.interval.fetch_add(1, Relaxed);
        let can_be_used = self.meter.recent(interval) as f64 / (1.0 - idle).max(0.1);
        let peers = self.peers.lock();
        let asks = |peer: &PeerUsage| peer.active.load(Relaxed) + peer.parked.load(Relaxed);
        let asking = peers.values().filter(|peer| asks(peer) > 0).count();
        let share = can_be_used / asking.max(1) as f64;
        let mut active = 0;
        for peer in peers.values() {
            let part = LIGHT_PEER[usize::from(peer.share.load(Relaxed) == u64::MAX)];
            let is_light = asking > 1 && (peer.meter.recent(interval) as f64) < part * share;
            let of_each = if is_light { u64::MAX } else { (LIGHT * share / asks(peer).max(1) as f64) as u64 };
            peer.share.store(of_each, Relaxed);
            active += peer.active.swap(0, Relaxed);
        }
        active
    }
}

impl ConnectionUsage {
    /// Whether the connection uses less than what it has to wait for.
    pub(super) fn is_light(&self) -> bool {
        self.recent() < self.peer.share.load(Relaxed)
    }

    /// What it used of late.
    pub(super) fn recent(&self) -> u64 {
        self.meter.recent(self.of_node.interval.load(Relaxed))
    }

    /// It used this much of a processor's time, in nanoseconds.
    pub(super) fn add(&self, used: u64) {
        let interval = self.of_node.interval.load(Relaxed);
        self.of_node.meter.add(interval, used);
        self.peer.meter.add(interval, used);
        if self.meter.add(interval, used) {
            self.peer.active.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn peer(&self) -> &Arc<PeerUsage> {
        &self.peer
    }
}

impl Drop for ConnectionUsage {
    fn drop(&mut self) {
        let mut peers = self.of_node.peers.lock();
        if self.peer.connections.fetch_sub(1, Relaxed) == 1 {
            peers.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn from(address: &str) -> PeerInfo {
        PeerInfo::from(address.parse::<SocketAddr>().expect("an address"))
    }

    #[test]
    fn the_connections_of_a_host_are_one_peers() {
        let usage = Arc::<Usage>::default();
        let connections =
            ["10.0.0.1:1", "10.0.0.1:2", "[::ffff:10.0.0.1]:3", "[fd00::1:2:3:4]:1", "[fd00::9]:1"]
                .map(|address| usage.connection(&from(address)));
        assert_eq!(usage.peers.lock().len(), 2);
        drop(connections);
        assert!(usage.peers.lock().is_empty());
    }

    /// Has connections use this much in an interval.
    fn use_all(usage: &Usage, connections: &[ConnectionUsage], used: &[u64]) {
        connections.iter().zip(used).for_each(|(connection, used)| connection.add(*used));
        usage.end_interval(0.0);
    }

    #[test]
    fn connections_that_used_something_are_counted() {
        let usage = Arc::<Usage>::default();
        let connections = [(); 3].map(|()| usage.connection(&from("10.0.0.1:1")));
        connections[..2].iter().for_each(|one| [1, 1].iter().for_each(|used| one.add(*used)));
        assert_eq!([0.0, 0.0].map(|idle| usage.end_interval(idle)), [2, 0]);
    }

    #[test]
    fn who_uses_less_than_an_even_share_is_light() {
        let usage = Arc::<Usage>::default();
        let connections = [(); 4].map(|()| usage.connection(&from("10.0.0.1:1")));
        use_all(&usage, &connections, &[500, 300, 150, 50]);
        let is_light = |connections: &[ConnectionUsage]| {
            connections.iter().map(|one| one.is_light()).collect::<Vec<_>>()
        };
        assert_eq!(is_light(&connections), [false, false, true, true]);
        // What it uses in the next interval counts at once.
        connections[3].add(200);
        assert_eq!(is_light(&connections), [false, false, true, false]);
        // A host that uses less than its share has only light connections, though one uses more than the other host's.
        let others = [(); 2].map(|()| usage.connection(&from("10.0.0.2:1")));
        usage.end_interval(0.0);
        connections.iter().for_each(|one| one.add(250));
        use_all(&usage, &others, &[300, 10]);
        assert_eq!(is_light(&others), [true, true]);
        assert_eq!(is_light(&connections), [false; 4]);
    }

    #[test]
    fn what_was_used_long_ago_does_not_count() {
        let meter = Meter::default();
        assert!(meter.add(7, 8));
        assert!(!meter.add(7, 8));
        assert_eq!([7, 8, 9, 1_000].map(|interval| meter.recent(interval)), [16, 12, 9, 0]);
        assert!(meter.add(9, 7));
        assert_eq!([9, 10].map(|interval| meter.recent(interval)), [16, 12]);
    }
}
