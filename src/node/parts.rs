//! The configuration of each part of a node, made of the node's.

use crate::config::{MemoryPlan, ServeConfig};
use crate::endpoint::Endpoint;
use crate::engine::EngineConfig;
use crate::entry::{Limits, Ttl, Version};
use crate::server::{ConnectionConfig, Platform, ServerConfig};
use crate::service::{RequestLimits, WINDOWS_PER_CONNECTION};

pub(super) fn engine_config(config: &ServeConfig) -> EngineConfig {
    let node_id = config.identity(&[]).node_id;
    let hash = xxhash_rust::xxh64::xxh64(node_id.as_bytes(), 0);
    EngineConfig {
        bytes_limit: config.cache.memory.0,
        shards: config.cache.shards,
        policy: config.cache.policy,
        default_ttl: Ttl::Never,
        value_bytes_max: config.limits.max_value.0,
        namespaces_max: config.limits.max_namespaces as usize,
        node_hash: (hash & ((1 << Version::NODE_BITS) - 1)) as u16,
    }
}

/// The admin, the health and the HTTP listener as they are configured.
pub(super) fn control_urls(config: &ServeConfig) -> [String; 3] {
    let listeners = &config.listeners;
    [listeners.admin.to_string(), listeners.health.to_string(), listeners.http.to_string()]
}

pub(super) fn bytes(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

pub(super) fn limits(config: &ServeConfig) -> Limits {
    Limits {
        key_bytes_max: config.limits.max_key.bytes(),
        value_bytes_max: config.limits.max_value.bytes(),
        content_type_bytes_max: config.limits.max_content_type.bytes(),
        batch_items_max: config.limits.max_batch as usize,
        message_in_bytes_max: config.limits.max_message_in.bytes(),
        message_out_bytes_max: config.limits.max_message_out.bytes(),
        tags_max: config.limits.max_tags as usize,
        tag_bytes_max: config.limits.max_tag.bytes(),
        ttl_ms_max: config.limits.max_ttl.as_millis() as u64,
    }
}

pub(super) fn server_config(config: &ServeConfig) -> ServerConfig {
    ServerConfig {
        data: config.listeners.listen.clone(),
        admin: config.listeners.admin.clone(),
        health: config.listeners.health.clone(),
        http: Endpoint::Tcp(config.listeners.http.clone()),
        connection: connection_config(config),
        lame_duck: config.timeouts.lame_duck,
        drain_deadline: config.timeouts.drain_deadline,
        standby: config.node.standby,
        insecure: config.listeners.insecure,
        signals: false,
        platform: Platform::System,
    }
}

pub(super) fn request_limits(config: &ServeConfig) -> RequestLimits {
    let plan = MemoryPlan::of(config.cache.memory.0);
    RequestLimits {
        bytes_max: bytes(plan.request_bytes),
        message_bytes_max: config.limits.max_message_in.bytes(),
        waiting_max: bytes(plan.unread_bytes / plan.window_bytes),
    }
}

pub(super) fn connection_config(config: &ServeConfig) -> ConnectionConfig {
    let stream_window_bytes = MemoryPlan::of(config.cache.memory.0).window_bytes as u32;
    ConnectionConfig {
        first_byte_timeout: config.timeouts.first_byte_timeout,
        stall_timeout: config.timeouts.stall_timeout,
        streams_max: config.limits.max_streams,
        stream_window_bytes,
        window_bytes: stream_window_bytes * WINDOWS_PER_CONNECTION,
        ..ConnectionConfig::default()
    }
}
