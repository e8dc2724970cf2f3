//! Admin's answers about a node as a whole: its figures and its configuration.

use crate::config::{Loaded, Source};
use crate::engine::{MissReason, NamespaceReport, PolicyEstimate, Stats};
use crate::proto::v1;
use crate::telemetry::NodeStats;

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeIdentity {
    /// Its id.
    pub node_id: String,
    /// The incarnation of its state.
    pub incarnation: u64,
}

/// A node's state by its word.
pub(super) fn node_state(word: &str) -> v1::NodeState {
    v1::NodeState::from_str_name(&format!("NODE_STATE_{}", word.to_uppercase())).unwrap_or_default()
}

/// GetStatsResponse: figures of `now`, counters since `base`.
pub(crate) fn stats_response(now: &NodeStats, base: &NodeStats, node: &NodeIdentity) -> v1::GetStatsResponse {
    let counted = now.uptime.saturating_sub(base.uptime);
    let since = now.since(base);
    let stats = &since.stats;
    v1::GetStatsResponse {
        state: node_state(since.state) as i32,
        node_id: node.node_id.clone(),
        incarnation: node.incarnation,
        uptime_ms: millis(since.uptime),
        hits: stats.hits,
        misses: stats.misses(),
        sets: stats.sets,
        deletes: stats.deletes,
        evictions: stats.evictions,
        expirations: stats.expirations,
        entries: stats.entries,
        bytes_used: stats.bytes_used,
        bytes_limit: stats.bytes_limit,
        resident_bytes: since.resident_bytes,
        connections: since.connections,
        policy: since.policy.to_string(),
        namespaces: since.namespaces.iter().map(namespace_stats).collect(),
        misses_by_reason: misses_by_reason(stats),
        hits_by_tier: hits_by_tier(stats),
        increments: stats.increments,
        touches: stats.touches,
        sets_not_stored: stats.not_stored,
        sets_refused: stats.refusals,
        invalidations: since.invalidations,
        entries_invalidated: stats.invalidated,
        requests_in_flight: since.requests_in_flight,
        requests_shed: since.requests_shed,
        policy_estimates: since.namespaces.first().map(policy_estimates).unwrap_or_default(),
        counted_ms: millis(counted),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        ..v1::GetStatsResponse::default()
    }
}

fn hits_by_tier(stats: &Stats) -> Vec<v1::HitCount> {
    let tiers = [(v1::Tier::Memory, stats.hits - stats.hits_on_disk), (v1::Tier::Disk, stats.hits_on_disk)];
    let counts = tiers.into_iter().map(|(tier, count)| v1::HitCount { tier: tier as i32, count });
    counts.filter(|hits| hits.tier == v1::Tier::Memory as i32 || hits.count > 0).collect()
}

fn namespace_stats(report: &NamespaceReport) -> v1::NamespaceStats {
    let (config, stats) = (&report.config, &report.stats);
    v1::NamespaceStats {
        name: config.name.clone(),
        hits: stats.hits,
        misses: stats.misses(),
        sets: stats.sets,
        deletes: stats.deletes,
        evictions: stats.evictions,
        expirations: stats.expirations,
        entries: stats.entries,
        bytes_used: stats.bytes_used,
        bytes_limit: config.bytes_limit,
        policy: config.policy.to_string(),
        misses_by_reason: misses_by_reason(stats),
        sets_not_stored: stats.not_stored,
        sets_refused: stats.refusals,
        entries_invalidated: stats.invalidated,
        generation: report.generation,
        policy_estimates: policy_estimates(report),
    }
}

fn policy_estimates(report: &NamespaceReport) -> Vec<v1::PolicyEstimate> {
    let estimate = |estimate: &PolicyEstimate| v1::PolicyEstimate {
        policy: estimate.candidate.to_owned(),
        hit_ratio: estimate.hit_ratio,
        lookups: estimate.lookups,
        leader: estimate.leader,
    };
    report.estimates.iter().map(estimate).collect()
}

fn misses_by_reason(stats: &Stats) -> Vec<v1::MissCount> {
    MissReason::ALL
        .into_iter()
        .map(|reason| (v1::MissReason::from(reason), stats.misses_for(reason)))
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| v1::MissCount { reason: reason as i32, count })
        .collect()
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What may have changed since the configuration was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveConfig {
    /// The data listeners with the ports that were picked.
    pub listen: Vec<String>,
    /// The admin, health and HTTP listeners likewise.
    pub control: [String; 3],
    /// The node's id.
    pub node_id: String,
    /// The URL under which others reach it.
    pub advertise: String,
    /// The engine's limit.
    pub memory_bytes: u64,
    /// The engine's shards.
    pub shards: u32,
    /// The eviction policy.
    pub policy: String,
}

/// GetConfigResponse.
pub(crate) fn config_response(loaded: &Loaded, live: &LiveConfig) -> v1::GetConfigResponse {
    let config = &loaded.config;
    let [admin, health, http] = live.control.clone();
    let fields = loaded
        .sources
        .iter()
        .map(|source| {
            let value = match source.source {
                Source::Default => v1::ConfigSource::Default,
                Source::File => v1::ConfigSource::File,
                Source::Environment => v1::ConfigSource::Environment,
                Source::Flag => v1::ConfigSource::Flag,
                Source::Admin => v1::ConfigSource::Admin,
            };
            let path = source.setting.field.to_owned();
            v1::ConfigField { path, source: value as i32, live: source.setting.live }
        })
        .collect();
    let config = v1::Config {
        listen: live.listen.clone(),
        admin,
        health,
        http,
        data_dir: config.data_dir.display().to_string(),
        memory_bytes: live.memory_bytes,
        shards: live.shards,
        policy: live.policy.clone(),
        persistence: config.persistence.as_str().to_owned(),
        backend: config.backend.to_string(),
        durability: v1::Durability::from(config.durability) as i32,
        flush_interval_ms: config.flush_interval_ms,
        snapshot_interval_ms: config.snapshot_interval_ms,
        disk_limit_bytes: config.disk_limit_bytes,
        recovery: config.recovery.to_string(),
        node_id: live.node_id.clone(),
        advertise: live.advertise.clone(),
        weight: config.weight,
        zone: config.zone.clone(),
        timeout_ms: config.timeout_ms,
        stats_interval_ms: config.stats_interval_ms,
        lame_duck_ms: config.lame_duck_ms,
        drain_deadline_ms: config.drain_deadline_ms,
        standby: config.standby,
        insecure: config.insecure,
        log_format: config.log_format.as_str().to_owned(),
        max_key_bytes: config.max_key_bytes,
        max_value_bytes: config.max_value_bytes,
        max_message_in_bytes: config.max_message_in_bytes,
        max_message_out_bytes: config.max_message_out_bytes,
        max_batch: config.max_batch,
        max_content_type_bytes: config.max_content_type_bytes,
        max_tags: config.max_tags,
        max_tag_bytes: config.max_tag_bytes,
        max_ttl_ms: config.max_ttl_ms,
        max_namespaces: config.max_namespaces,
        max_connections: config.max_connections,
        max_in_flight: config.max_in_flight,
        slow_op_ms: config.slow_op_ms,
        max_streams: config.max_streams,
        first_byte_timeout_ms: config.first_byte_timeout_ms,
        threads: config.threads,
        log: config.log.clone(),
        otlp: config.otlp.as_ref().map(ToString::to_string).unwrap_or_default(),
        trace_sample: config.trace_sample,
        stall_timeout_ms: config.stall_timeout_ms,
        max_response_backlog_bytes: config.max_response_backlog_bytes,
        ..v1::Config::default()
    };
    v1::GetConfigResponse { config: Some(config), fields }
}
