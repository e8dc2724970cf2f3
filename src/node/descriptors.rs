//! File descriptors: how many the process may have, and how many of those are for connections.
//!
//! ```text
//!   0                                                                       soft limit (raised to the hard one)
//!   | the node's own files and sockets | blobs | admin | health | HTTP | data connections |
//! ```
//!
//! Descriptors that the node itself needs are kept from connections: refusing a client is better than a journal that
//! cannot open its next segment, or a snapshot or a blob that cannot open its file. Connections get fewer than
//! `--max-connections` only where the process's limit demands it.

use std::sync::Weak;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::context::NodeContext;
use crate::config::{Persistence, ServeConfig};
use crate::server::ConnectionBounds;

/// What a node without a disk has open: outputs, runtimes, signals, its listeners, 23 in all when it begins to serve; a
/// collector of traces, and files of /proc for a moment.
const OWN: u64 = 26;
/// What a node with a disk has open besides: locks, directories, marks, the catalogue, the segment that is written, 12 in
/// all; the next segment, a snapshot, and what a recovery or a rehearsal reads.
const OWN_ON_DISK: u64 = 18;
/// Of each data listener: itself, its spare one, the connection that is refused.
const PER_LISTENER: u64 = 3;
/// Blobs that are streamed at once; of few descriptors, this part, and no fewer than the least.
const BLOBS: u64 = 64;
const BLOBS_PART: u64 = 8;
const BLOBS_MIN: u64 = 2;
/// Segments and snapshots that entries are read from, where memory is a cache over the disk: this part of what is left.
const STORE_PART: u64 = 4;
/// Connections to each of admin, health and HTTP: this part of what is left, and no fewer than the least.
const CONTROL_PART: u64 = 16;
const CONTROL_MIN: u64 = 2;
const DATA_MIN: u64 = 4;
/// Admin, health, HTTP.
const CONTROL_LISTENERS: u64 = 3;

/// What of the limit is for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DescriptorShares {
    /// Connections.
    pub(super) connections: ConnectionBounds,
    /// Blobs that are streamed at once.
    pub(super) blob_streams: usize,
}

/// The limit on open files is too low for a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the process may have {limit} files open, and a node of this configuration needs {needed} at the least: raise the \
     limit (ulimit -n, LimitNOFILE= of systemd, --ulimit nofile of Docker)"
)]
pub struct TooFewDescriptors {
    /// How many it may have.
    pub limit: u64,
    /// How many it needs.
    pub needed: u64,
}

/// Raises the process's soft limit on open files to the hard one: for a program that is the node.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, soft = limit.current, "the limit on open files cannot be raised");
    }
}

/// How many files the process may have open; `None`: any number.
pub(super) fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// What fits into a limit.
///
/// # Errors
/// Not even the least that makes sense.
pub(super) fn shares(
    config: &ServeConfig,
    limit: Option<u64>,
) -> Result<DescriptorShares, TooFewDescriptors> {
    let some = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let all = DescriptorShares { connections: ConnectionBounds::NONE, blob_streams: some(BLOBS) };
    let Some(limit) = limit else { return Ok(all) };
    let is_on_disk = config.disk.persistence != Persistence::None;
    let own = OWN
        + config.listeners.listen.len() as u64 * PER_LISTENER
        + if is_on_disk { OWN_ON_DISK + BLOBS_MIN } else { 0 };
    let needed = own + CONTROL_LISTENERS * CONTROL_MIN + DATA_MIN;
    if limit < needed {
        return Err(TooFewDescriptors { limit, needed });
    }
    let mut left = limit - own;
    let more_blobs = if is_on_disk { (BLOBS - BLOBS_MIN).min(left / BLOBS_PART) } else { 0 };
    left -= more_blobs;
    if config.disk.persistence == Persistence::Store {
        left -= left / STORE_PART;
    }
    // Without a disk they take no files.
    let blob_streams = some(if is_on_disk { BLOBS_MIN + more_blobs } else { BLOBS });
    let wanted = u64::from(config.limits.max_connections);
    if wanted.saturating_mul(1 + CONTROL_LISTENERS) <= left {
        return Ok(DescriptorShares { blob_streams, ..all });
    }
    let control = (left / CONTROL_PART).max(CONTROL_MIN);
    let data = left.saturating_sub(CONTROL_LISTENERS * control).max(DATA_MIN);
    let connections = ConnectionBounds { data: some(data), control: some(control) };
    Ok(DescriptorShares { connections, blob_streams })
}

/// Says so where fewer connections are taken than were asked for.
pub(super) fn log_shares(config: &ServeConfig, limit: Option<u64>, shares: DescriptorShares) {
    let (asked, bounds) = (config.limits.max_connections as usize, shares.connections);
    if let Some(limit) = limit.filter(|_| bounds.data < asked) {
        tracing::warn!(
            max_connections = asked,
            open_files_limit = limit,
            in_force = bounds.data,
            each_other_listener = bounds.control,
            "--max-connections does not fit the limit on open files: fewer connections are taken, as the node needs files of \
             its own; raise the limit (ulimit -n, LimitNOFILE= of systemd, --ulimit nofile of Docker) or lower \
             --max-connections"
        );
    }
}

/// How often it is looked whether the limit has changed.
const LOOKS: Duration = Duration::from_secs(1);

/// Holds connections to the limit as it is changed while the node runs (prlimit), until the node is gone.
pub(super) async fn follow(context: Weak<NodeContext>, mut before: Option<u64>) {
    loop {
        tokio::time::sleep(LOOKS).await;
        let Some(context) = context.upgrade() else { return };
        let limit = limit();
        if limit == std::mem::replace(&mut before, limit) {
            continue;
        }
        tracing::info!(open_files_limit = limit, "the limit on open files has changed");
        let config = &context.current.load().config;
        match shares(config, limit) {
            Ok(shares) => {
                context.bounds.connections.set_bounds(shares.connections);
                log_shares(config, limit, shares);
            }
            Err(refused) => {
                tracing::warn!("{refused}");
                let (data, control) = (DATA_MIN as usize, CONTROL_MIN as usize);
                context.bounds.connections.set_bounds(ConnectionBounds { data, control });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(persistence: Persistence, max_connections: u32) -> ServeConfig {
        let mut config = ServeConfig::default();
        config.disk.persistence = persistence;
        config.limits.max_connections = max_connections;
        config
    }

    #[test]
    fn connections_and_what_the_node_needs_fit_the_limit_together() {
        use Persistence as Kept;
        for persistence in [Kept::None, Kept::Journal, Kept::Snapshot, Kept::JournalAndSnapshot, Kept::Store]
        {
            for limit in (64..2_000).chain([4_096, 65_536, 1 << 20]) {
                let DescriptorShares { connections, blob_streams } =
                    shares(&config(persistence, 4_096), Some(limit)).unwrap();
                let of = |bound: usize| bound.min(4_096) as u64;
                let (data, control) = (of(connections.data), of(connections.control));
                let own =
                    if persistence == Kept::None { OWN } else { OWN + OWN_ON_DISK + blob_streams as u64 };
                assert!(data >= DATA_MIN && control >= CONTROL_MIN, "{limit}: {connections:?}");
                let taken = own + PER_LISTENER + data + CONTROL_LISTENERS * control;
                assert!(taken <= limit, "{persistence:?} {limit}: {connections:?} {blob_streams}");
                assert!(limit < 300 || data > limit / 3 || data == 4_096, "{limit}: {connections:?}");
            }
        }
        let ample = shares(&config(Kept::JournalAndSnapshot, 4_096), Some(20_000)).unwrap();
        assert_eq!((ample.connections, ample.blob_streams), (ConnectionBounds::NONE, 64));
        let unlimited = shares(&config(Kept::None, 1_000_000), None).unwrap();
        assert_eq!(unlimited.connections, ConnectionBounds::NONE);
    }

    #[test]
    fn a_limit_below_the_least_is_refused_with_what_is_needed() {
        let config = config(Persistence::Journal, 4);
        let refused = shares(&config, Some(30)).unwrap_err();
        assert!(refused.needed > 30 && shares(&config, Some(refused.needed)).is_ok(), "{refused}");
        assert!(shares(&config, Some(refused.needed - 1)).is_err());
        let said = refused.to_string();
        assert!(said.contains("may have 30 files") && said.contains(&refused.needed.to_string()), "{said}");
    }
}
