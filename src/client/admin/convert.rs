//! Between Admin's generated messages and the library's own types, as [`crate::client::convert`] is for the caches.

use std::time::Duration;

use tonic::Code;

use super::outcome::{
    Compaction, EntryReport, HotKey, HotKeys, KeyFound, KeyReport, MemoryAdvice, MemoryPart, MemoryReport,
    NamespaceDeletion, NamespaceSettings, RecoveryReport, SlowOp, SlowOps, Snapshot, SnapshotTaken, Spawned,
};
use super::settings::{Setting, SettingInForce, SettingSource, SettingValue};
use super::stats::{NamespaceStats, NodeState, NodeStats, PersistenceStats, PolicyEstimate};
use crate::client::convert::{hit, miss_reason, remaining_ttl, tier};
use crate::entry::MissReason;
use crate::proto::{settings as fields, v1};

pub(super) fn state(state: v1::NodeState) -> NodeState {
    match state {
        v1::NodeState::Unspecified => NodeState::Unknown,
        v1::NodeState::Standby => NodeState::Standby,
        v1::NodeState::Recovering => NodeState::Recovering,
        v1::NodeState::Serving => NodeState::Serving,
        v1::NodeState::Draining => NodeState::Draining,
        v1::NodeState::Stopped => NodeState::Stopped,
    }
}

pub(super) fn spawned(answer: v1::SpawnResponse) -> Spawned {
    Spawned { state: state(answer.state()), addresses: answer.addresses }
}

pub(super) fn stats(answer: v1::GetStatsResponse) -> NodeStats {
    NodeStats {
        state: state(answer.state()),
        incarnation: nonzero(answer.incarnation),
        uptime: Duration::from_millis(answer.uptime_ms),
        counted: Duration::from_millis(answer.counted_ms),
        hits_by_tier: answer.hits_by_tier.iter().map(|hits| (tier(hits.tier()), hits.count)).collect(),
        misses_by_reason: misses(&answer.misses_by_reason),
        resident_bytes: nonzero(answer.resident_bytes),
        node_id: answer.node_id,
        build: answer.build,
        hits: answer.hits,
        stale_hits: answer.stale_hits,
        misses: answer.misses,
        sets: answer.sets,
        sets_not_stored: answer.sets_not_stored,
        sets_refused: answer.sets_refused,
        deletes: answer.deletes,
        increments: answer.increments,
        touches: answer.touches,
        evictions: answer.evictions,
        expirations: answer.expirations,
        invalidations: answer.invalidations,
        entries_invalidated: answer.entries_invalidated,
        entries: answer.entries,
        guest_entries: answer.guest_entries,
        bytes_used: answer.bytes_used,
        bytes_limit: answer.bytes_limit,
        connections: answer.connections,
        requests_in_flight: answer.requests_in_flight,
        requests_shed: answer.requests_shed,
        origin_loads: answer.origin_loads,
        origin_errors: answer.origin_errors,
        forwards: answer.forwards,
        policy: answer.policy,
        policy_estimates: estimates(answer.policy_estimates),
        namespaces: answer.namespaces.into_iter().map(namespace_stats).collect(),
        persistence: answer.persistence.map(persistence),
    }
}

fn namespace_stats(stats: v1::NamespaceStats) -> NamespaceStats {
    NamespaceStats {
        misses_by_reason: misses(&stats.misses_by_reason),
        bytes_limit: nonzero(stats.bytes_limit),
        name: stats.name,
        hits: stats.hits,
        misses: stats.misses,
        sets: stats.sets,
        sets_not_stored: stats.sets_not_stored,
        sets_refused: stats.sets_refused,
        deletes: stats.deletes,
        evictions: stats.evictions,
        expirations: stats.expirations,
        entries_invalidated: stats.entries_invalidated,
        generation: stats.generation,
        entries: stats.entries,
        bytes_used: stats.bytes_used,
        policy: stats.policy,
        policy_estimates: estimates(stats.policy_estimates),
    }
}

fn persistence(stats: v1::PersistenceStats) -> PersistenceStats {
    PersistenceStats {
        mode: stats.mode,
        backend: stats.backend,
        position: stats.position,
        synced_position: stats.synced_position,
        poisoned: nonempty(stats.poisoned),
        disk_bytes: stats.disk_bytes,
        disk_limit_bytes: nonzero(stats.disk_limit_bytes),
        snapshot_position: stats.snapshot_position,
        snapshot_unix_ms: nonzero(stats.snapshot_unix_ms),
        blobs: stats.blobs,
        blob_bytes: stats.blob_bytes,
        entries: stats.entries,
        entries_damaged: stats.entries_damaged,
    }
}

fn misses(counts: &[v1::MissCount]) -> Vec<(MissReason, u64)> {
    counts.iter().map(|misses| (miss_reason(misses.reason()), misses.count)).collect()
}

fn estimates(estimates: Vec<v1::PolicyEstimate>) -> Vec<PolicyEstimate> {
    let estimate = |of: v1::PolicyEstimate| PolicyEstimate {
        policy: of.policy,
        hit_ratio: of.hit_ratio,
        lookups: of.lookups,
        leader: of.leader,
    };
    estimates.into_iter().map(estimate).collect()
}

pub(super) fn namespace(config: v1::NamespaceConfig) -> NamespaceSettings {
    NamespaceSettings {
        name: config.name,
        bytes_limit: nonzero(config.bytes_limit),
        policy: config.policy,
        default_ttl: remaining_ttl(config.default_ttl_ms),
        near_cache_ttl: Duration::from_millis(config.near_cache_ttl_ms),
    }
}

pub(super) fn namespace_deletion(answer: &v1::DeleteNamespaceResponse) -> NamespaceDeletion {
    NamespaceDeletion { entries: answer.entries, blobs: answer.blobs }
}

pub(super) fn snapshot_taken(answer: &v1::CreateSnapshotResponse) -> SnapshotTaken {
    SnapshotTaken { position: answer.position, entries: answer.entries, size_bytes: answer.size_bytes }
}

pub(super) fn snapshot(snapshot: v1::Snapshot) -> Snapshot {
    Snapshot {
        name: snapshot.name,
        first_position: snapshot.first_position,
        position: snapshot.position,
        created_unix_ms: snapshot.created_unix_ms,
        entries: snapshot.entries,
        size_bytes: snapshot.size_bytes,
        format: snapshot.format,
    }
}

pub(super) fn recovery_report(answer: v1::VerifyRecoveryResponse) -> RecoveryReport {
    RecoveryReport {
        method: answer.method,
        entries: answer.entries,
        entry_bytes: answer.entry_bytes,
        entries_expired: answer.entries_expired,
        blobs: answer.blobs,
        blob_bytes: answer.blob_bytes,
        snapshot: nonempty(answer.snapshot),
        first_position: answer.first_position,
        position: answer.position,
        torn_bytes: answer.torn_bytes,
        elapsed: Duration::from_millis(answer.elapsed_ms),
    }
}

pub(super) fn compaction(answer: &v1::CompactJournalResponse) -> Compaction {
    Compaction {
        first_position: answer.first_position,
        reclaimed_bytes: answer.reclaimed_bytes,
        disk_bytes: answer.disk_bytes,
    }
}

pub(super) fn hot_keys(answer: v1::ListHotKeysResponse) -> HotKeys {
    let key = |key: v1::HotKey| HotKey {
        namespace: key.namespace,
        key: key.key,
        count: key.count,
        count_error: key.count_error,
        value_bytes: key.value_bytes,
    };
    HotKeys {
        keys: answer.keys.into_iter().map(key).collect(),
        lookups: answer.lookups,
        window: Duration::from_millis(answer.window_ms),
    }
}

pub(super) fn slow_ops(answer: v1::ListSlowOpsResponse) -> SlowOps {
    let op = |op: v1::SlowOp| SlowOp {
        method: op.method,
        namespace: op.namespace,
        key: op.key,
        items: op.items,
        started_unix_ms: op.started_unix_ms,
        elapsed: Duration::from_millis(op.elapsed_ms),
        queued: Duration::from_millis(op.queued_ms),
        code: i32::try_from(op.code).map_or(Code::Unknown, Code::from),
        peer: op.peer,
        traceparent: op.traceparent,
    };
    SlowOps {
        ops: answer.ops.into_iter().map(op).collect(),
        threshold: nonzero(answer.threshold_ms).map(Duration::from_millis),
        total: answer.total,
    }
}

pub(super) fn memory_report(answer: v1::GetMemoryReportResponse) -> MemoryReport {
    let part =
        |part: v1::MemoryPart| MemoryPart { name: part.name, bytes: part.bytes, charged: part.charged };
    let advice =
        |advice: v1::MemoryAdvice| MemoryAdvice { reason: advice.reason, description: advice.description };
    MemoryReport {
        bytes_limit: answer.bytes_limit,
        bytes_used: answer.bytes_used,
        allocated_bytes: nonzero(answer.allocated_bytes),
        resident_bytes: nonzero(answer.resident_bytes),
        entries: answer.entries,
        parts: answer.parts.into_iter().map(part).collect(),
        advice: answer.advice.into_iter().map(advice).collect(),
    }
}

pub(super) fn key_report(answer: v1::ExplainKeyResponse) -> KeyReport {
    let reason = miss_reason(answer.miss_reason());
    let found = match answer.entry {
        None => KeyFound::None(reason),
        Some(entry) => KeyFound::Entry(Box::new(EntryReport {
            entry: hit(entry),
            charged_bytes: answer.charged_bytes,
            stale: answer.stale,
            remaining_soft_ttl: remaining_ttl(answer.remaining_soft_ttl_ms),
            tags: answer.tags,
            generation: answer.entry_generation,
            guest: answer.guest,
            position: answer.position,
        })),
    };
    KeyReport {
        node_id: answer.node_id,
        owner: answer.owner,
        ring_position: answer.ring_position,
        shard: answer.shard,
        found,
        policy: answer.policy,
        policy_view: nonempty(answer.policy_view),
        generation: answer.generation,
        lease_remaining: remaining_ttl(answer.lease_remaining_ms),
    }
}

/// Every setting of an answer, with where its value comes from.
pub(crate) fn settings_in_force(answer: &v1::GetConfigResponse) -> Vec<SettingInForce> {
    let default = v1::Config::default();
    let config = answer.config.as_ref().unwrap_or(&default);
    let in_force = |(field, value)| {
        let known = answer.fields.iter().find(|known| known.path == field);
        SettingInForce {
            name: fields::flag(field),
            value,
            source: known.and_then(|known| source(known.source())),
            live: known.is_some_and(|known| known.live),
        }
    };
    values(config).map(in_force).collect()
}

pub(super) fn settings(config: &v1::Config) -> Vec<Setting> {
    values(config).map(|(field, value)| Setting { name: fields::flag(field), value }).collect()
}

/// The fields of `Config`, in its order, and their values.
fn values(config: &v1::Config) -> impl Iterator<Item = (&'static str, SettingValue)> {
    let value = move |field: &'static str| {
        Some((field, SettingValue::of_field(field, fields::value(config, field)?)))
    };
    fields::FIELDS.iter().copied().filter_map(value)
}

fn source(source: v1::ConfigSource) -> Option<SettingSource> {
    Some(match source {
        v1::ConfigSource::Unspecified => return None,
        v1::ConfigSource::Default => SettingSource::Default,
        v1::ConfigSource::File => SettingSource::File,
        v1::ConfigSource::Environment => SettingSource::Environment,
        v1::ConfigSource::Flag => SettingSource::Flag,
        v1::ConfigSource::Admin => SettingSource::Admin,
    })
}

/// What the wire writes as 0 where there is none.
fn nonzero(number: u64) -> Option<u64> {
    (number > 0).then_some(number)
}

/// What the wire leaves empty where there is none.
fn nonempty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Tier;

    #[test]
    fn what_the_wire_writes_as_zero_or_empty_is_none() {
        let empty = stats(v1::GetStatsResponse::default());
        assert_eq!((empty.state, empty.incarnation, empty.resident_bytes), (NodeState::Unknown, None, None));
        let message = v1::GetStatsResponse {
            state: v1::NodeState::Serving.into(),
            incarnation: 3,
            uptime_ms: 1_500,
            hits_by_tier: vec![v1::HitCount { tier: v1::Tier::Disk.into(), count: 2 }],
            misses_by_reason: vec![v1::MissCount { reason: v1::MissReason::Expired.into(), count: 4 }],
            persistence: Some(v1::PersistenceStats { poisoned: "full".to_owned(), ..Default::default() }),
            namespaces: vec![v1::NamespaceStats::default()],
            ..Default::default()
        };
        let full = stats(message);
        assert_eq!((full.state.as_str(), full.incarnation), ("serving", Some(3)));
        assert_eq!(full.uptime, Duration::from_millis(1_500));
        assert_eq!(
            (full.hits_by_tier, full.misses_by_reason),
            (vec![(Tier::Disk, 2)], vec![(MissReason::Expired, 4)])
        );
        let disk = full.persistence.unwrap();
        assert_eq!((disk.poisoned.as_deref(), disk.disk_limit_bytes), (Some("full"), None));
        assert_eq!(full.namespaces[0].bytes_limit, None);

        let endless = namespace(v1::NamespaceConfig::default());
        assert_eq!((endless.bytes_limit, endless.default_ttl), (None, None));
        let recovery = recovery_report(v1::VerifyRecoveryResponse::default());
        assert_eq!(recovery.snapshot, None);
        let op = v1::SlowOp { code: 4, elapsed_ms: 12, ..Default::default() };
        let slow = slow_ops(v1::ListSlowOpsResponse { ops: vec![op], ..Default::default() });
        assert_eq!((slow.threshold, slow.ops[0].code), (None, Code::DeadlineExceeded));
        assert_eq!(slow.ops[0].elapsed, Duration::from_millis(12));
    }

    #[test]
    fn a_key_has_an_entry_or_a_reason() {
        let answer = v1::ExplainKeyResponse {
            miss_reason: v1::MissReason::Evicted.into(),
            lease_remaining_ms: 5,
            ..Default::default()
        };
        let report = key_report(answer);
        assert_eq!(report.found, KeyFound::None(MissReason::Evicted));
        assert_eq!(report.lease_remaining, Some(Duration::from_millis(5)));
        let answer = v1::ExplainKeyResponse {
            entry: Some(v1::Hit { version: 7, ..Default::default() }),
            charged_bytes: 64,
            entry_generation: 2,
            generation: 3,
            ..Default::default()
        };
        let report = key_report(answer);
        let KeyFound::Entry(entry) = report.found else { panic!("there is an entry") };
        assert_eq!((entry.entry.version.0, entry.charged_bytes, entry.generation), (7, 64, 2));
        assert_eq!((report.generation, entry.remaining_soft_ttl), (3, None));
    }
}
