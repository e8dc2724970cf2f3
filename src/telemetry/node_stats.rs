//! The figures of one moment, read once and shown in three places: /metrics, the stats log and GetStats.

use std::time::Duration;

use crate::engine::{NamespaceReport, PolicyName, Stats};

/// A node's figures. Counters count since the start.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeStats {
    /// Where the node stands in its life: one of [`NODE_STATES`].
    pub state: &'static str,
    /// How long the process has run.
    pub uptime: Duration,
    /// The default namespace's eviction policy.
    pub policy: PolicyName,
    /// What the engine counts.
    pub stats: Stats,
    /// The share of every namespace, the default one first, the others by name.
    pub namespaces: Vec<NamespaceReport>,
    /// Invalidations, in all namespaces that there ever were.
    pub invalidations: u64,
    /// Resident memory; 0: the system does not tell.
    pub resident_bytes: u64,
    /// Open connections on the data listeners.
    pub connections: u64,
    /// Calls that wait for something: the rest of a request, a lock, another node.
    pub requests_in_flight: u64,
    /// Bytes of answers that clients have yet to read.
    pub response_backlog_bytes: u64,
    /// Bytes of long requests that are under way.
    pub request_bytes: u64,
    /// Watch streams that are open.
    pub watchers: u64,
    /// Events that were noted for watchers.
    pub watch_events: u64,
    /// Times that a watcher was told that events are missing.
    pub watch_discontinuities: u64,
    /// Bytes of events that are kept for watchers.
    pub watch_log_bytes: u64,
    /// Calls that were turned away because of overload or quota.
    pub requests_shed: u64,
    /// Lines that were lost because the log could not be written.
    pub log_lines_lost: u64,
    /// The journal's figures; `None`: nothing is kept on disk.
    pub journal: Option<JournalFigures>,
    /// What is on disk; `None`: nothing.
    pub disk: Option<DiskFigures>,
    /// What lies below memory; `None`: nothing.
    pub disk_tier: Option<DiskTierFigures>,
}

/// How far a journal is, and what it has cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JournalFigures {
    /// Its newest position.
    pub position: u64,
    /// The position up to which it is synced.
    pub synced_position: u64,
    /// It takes no writes because the disk failed.
    pub poisoned: bool,
    /// Bytes that were written to it.
    pub bytes: u64,
    /// Syncs that were made.
    pub syncs: u64,
    /// How long they took together.
    pub sync_time: Duration,
    /// Bytes of changes that are not written to it yet.
    pub backlog_bytes: u64,
}

/// What is on disk, and how snapshots went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskFigures {
    /// Bytes on disk, blobs included.
    pub bytes: u64,
    /// Snapshots that were taken since the start.
    pub snapshots: u64,
    /// Those that failed.
    pub snapshots_failed: u64,
    /// How old the newest is; `None`: there is none.
    pub snapshot_age: Option<Duration>,
    /// Places that were found damaged at the start.
    pub damages: u64,
}

/// What lies on disk below memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskTierFigures {
    /// Entries that can be read there.
    pub entries: u64,
    /// Lookups that found one.
    pub hits: u64,
    /// Lookups that found none.
    pub misses: u64,
    /// Lookups that found one damaged.
    pub damaged: u64,
}

/// The words for a node's state, in the order of its life.
pub(crate) const NODE_STATES: [&str; 5] = ["standby", "recovering", "serving", "draining", "stopped"];

impl NodeStats {
    /// This snapshot with counters that count from `base` on, as ResetStats wants it for GetStats alone; sizes
    /// are of now.
    #[must_use]
    pub fn since(&self, base: &Self) -> Self {
        let mut rest = self.clone();
        rest.stats = stats_since(&self.stats, &base.stats);
        for namespace in &mut rest.namespaces {
            // One that was created since has counted from 0, whatever its name.
            if let Some(before) = base.namespaces.iter().find(|before| before.id == namespace.id) {
                namespace.stats = stats_since(&namespace.stats, &before.stats);
            }
        }
        rest.invalidations = self.invalidations.saturating_sub(base.invalidations);
        rest.requests_shed = self.requests_shed.saturating_sub(base.requests_shed);
        rest
    }
}

impl Default for NodeStats {
    /// A node in standby that has done nothing.
    fn default() -> Self {
        Self {
            state: NODE_STATES[0],
            uptime: Duration::ZERO,
            policy: PolicyName::Adaptive,
            stats: Stats::default(),
            namespaces: Vec::new(),
            invalidations: 0,
            resident_bytes: 0,
            connections: 0,
            requests_in_flight: 0,
            response_backlog_bytes: 0,
            request_bytes: 0,
            watchers: 0,
            watch_events: 0,
            watch_discontinuities: 0,
            watch_log_bytes: 0,
            requests_shed: 0,
            log_lines_lost: 0,
            journal: None,
            disk: None,
            disk_tier: None,
        }
    }
}

/// Operations on single keys that were done or refused.
pub(super) fn operations(stats: &Stats) -> u64 {
    let sets = stats.sets + stats.not_stored + stats.refusals;
    stats.hits + stats.misses() + sets + stats.deletes + stats.increments + stats.touches
}

fn stats_since(now: &Stats, base: &Stats) -> Stats {
    let mut misses_by_reason = now.misses_by_reason;
    for (count, before) in misses_by_reason.iter_mut().zip(base.misses_by_reason) {
        *count = count.saturating_sub(before);
    }
    Stats {
        hits: now.hits.saturating_sub(base.hits),
        hits_on_disk: now.hits_on_disk.saturating_sub(base.hits_on_disk),
        misses_by_reason,
        sets: now.sets.saturating_sub(base.sets),
        not_stored: now.not_stored.saturating_sub(base.not_stored),
        deletes: now.deletes.saturating_sub(base.deletes),
        increments: now.increments.saturating_sub(base.increments),
        touches: now.touches.saturating_sub(base.touches),
        evictions: now.evictions.saturating_sub(base.evictions),
        expirations: now.expirations.saturating_sub(base.expirations),
        invalidated: now.invalidated.saturating_sub(base.invalidated),
        refusals: now.refusals.saturating_sub(base.refusals),
        ..*now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::NamespaceConfig;

    #[test]
    fn counters_start_again_at_the_base_and_sizes_do_not() {
        let stats = |n: u64| Stats {
            hits: n,
            hits_on_disk: n,
            misses_by_reason: [n; 8],
            sets: n,
            not_stored: n,
            deletes: n,
            increments: n,
            touches: n,
            evictions: n,
            expirations: n,
            invalidated: n,
            refusals: n,
            entries: n,
            bytes_used: n,
            bytes_spare: n,
            bytes_limit: n,
        };
        let base = NodeStats { stats: stats(3), requests_shed: 2, ..NodeStats::default() };
        let now = NodeStats { stats: stats(10), requests_shed: 7, connections: 4, ..NodeStats::default() };
        let rest = now.since(&base);
        let sizes = Stats { entries: 10, bytes_used: 10, bytes_spare: 10, bytes_limit: 10, ..stats(7) };
        assert_eq!((rest.stats, rest.requests_shed, rest.connections), (sizes, 5, 4));
        assert_eq!(operations(&stats(1)), 15);
    }

    #[test]
    fn a_namespace_of_a_name_that_there_was_before_counts_from_nothing() {
        let report = |id, hits| {
            let config = NamespaceConfig::new(&format!("{id}"), PolicyName::Lru);
            NamespaceReport {
                id,
                config,
                stats: Stats { hits, ..Stats::default() },
                generation: hits,
                estimates: Vec::new(),
            }
        };
        let named = |name: &str, report: NamespaceReport| NamespaceReport {
            config: NamespaceConfig { name: name.to_owned(), ..report.config },
            ..report
        };
        let of = |namespaces, invalidations| NodeStats { namespaces, invalidations, ..NodeStats::default() };
        let base = of(vec![report(0, 10), named("a", report(1, 100))], 110);
        let now = of(vec![report(0, 30), named("a", report(2, 7))], 137);
        let rest = now.since(&base);
        let hits: Vec<u64> = rest.namespaces.iter().map(|namespace| namespace.stats.hits).collect();
        assert_eq!((hits, rest.invalidations), (vec![20, 7], 27));
        assert_eq!(rest.namespaces[0].generation, 30, "generations are no counters");
    }
}
