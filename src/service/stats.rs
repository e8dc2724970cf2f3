//! Admin's answers about a node as a whole: its figures and its configuration.

use super::control::NodeIdentity;
use crate::config::{LoadedConfig, Source};
use crate::engine::{MissReason, NamespaceReport, PolicyEstimate, Stats};
use crate::proto::{settings, v1};
use crate::telemetry::NodeStats;

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

/// GetConfigResponse: every setting's value and where it comes from, in the order of Config's fields.
pub(crate) fn config_response(loaded: &LoadedConfig, live: &LiveConfig) -> v1::GetConfigResponse {
    let mut config = v1::Config::default();
    let mut fields = Vec::with_capacity(loaded.sources.len());
    for field in settings::FIELDS {
        let Some(found) = loaded.sources.iter().find(|found| found.setting.field == *field) else { continue };
        if let Some(value) = found.setting.value(&loaded.config) {
            settings::set(&mut config, field, value);
        }
        let source = match found.source {
            Source::Default => v1::ConfigSource::Default,
            Source::File => v1::ConfigSource::File,
            Source::Environment => v1::ConfigSource::Environment,
            Source::Flag => v1::ConfigSource::Flag,
            Source::Admin => v1::ConfigSource::Admin,
        };
        fields.push(v1::ConfigField {
            path: (*field).to_owned(),
            source: source as i32,
            live: found.setting.is_live(),
        });
    }
    let [admin, health, http] = live.control.clone();
    let config = v1::Config {
        listen: live.listen.clone(),
        admin,
        health,
        http,
        memory_bytes: live.memory_bytes,
        shards: live.shards,
        policy: live.policy.clone(),
        node_id: live.node_id.clone(),
        advertise: live.advertise.clone(),
        ..config
    };
    v1::GetConfigResponse { config: Some(config), fields }
}
