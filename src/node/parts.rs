//! The configuration of each part of a node, made of the node's.

use crate::config::{MemoryPlan, ServeConfig};
use crate::endpoint::Endpoint;
use crate::engine::EngineConfig;
use crate::entry::{Limits, Ttl, Version};
use crate::server::{ConnectionConfig, ServerConfig};
use crate::service::{RequestLimits, WINDOWS_PER_CONNECTION};

pub(super) fn engine_config(config: &ServeConfig) -> EngineConfig {
    let node_id = config.identity(&[]).node_id;
    let hash = xxhash_rust::xxh64::xxh64(node_id.as_bytes(), 0);
    EngineConfig {
        bytes_limit: config.memory_bytes,
        shards: config.shards,
        policy: config.policy,
        default_ttl: Ttl::Never,
        value_bytes_max: config.max_value_bytes,
        namespaces_max: config.max_namespaces as usize,
        node_hash: (hash & ((1 << Version::NODE_BITS) - 1)) as u16,
    }
}

pub(super) fn bytes(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

pub(super) fn limits(config: &ServeConfig) -> Limits {
    Limits {
        key_bytes_max: bytes(config.max_key_bytes),
        value_bytes_max: bytes(config.max_value_bytes),
        content_type_bytes_max: bytes(config.max_content_type_bytes),
        batch_items_max: config.max_batch as usize,
        message_in_bytes_max: bytes(config.max_message_in_bytes),
        message_out_bytes_max: bytes(config.max_message_out_bytes),
        tags_max: config.max_tags as usize,
        tag_bytes_max: bytes(config.max_tag_bytes),
        ttl_ms_max: config.max_ttl_ms,
    }
}

pub(super) fn server_config(config: &ServeConfig) -> ServerConfig {
    ServerConfig {
        data: config.listen.clone(),
        admin: config.admin.clone(),
        health: config.health.clone(),
        http: Endpoint::Tcp(config.http.clone()),
        connection: connection_config(config),
        lame_duck: config.lame_duck(),
        drain_deadline: config.drain_deadline(),
        standby: config.standby,
        insecure: config.insecure,
        signals: false,
    }
}

pub(super) fn request_limits(config: &ServeConfig) -> RequestLimits {
    let plan = MemoryPlan::of(config.memory_bytes);
    RequestLimits {
        bytes_max: bytes(plan.request_bytes),
        message_bytes_max: bytes(config.max_message_in_bytes),
        waiting_max: bytes(plan.unread_bytes / plan.window_bytes),
    }
}

pub(super) fn connection_config(config: &ServeConfig) -> ConnectionConfig {
    let stream_window_bytes = MemoryPlan::of(config.memory_bytes).window_bytes as u32;
    ConnectionConfig {
        first_byte_timeout: config.first_byte_timeout(),
        stall_timeout: config.stall_timeout(),
        streams_max: config.max_streams,
        stream_window_bytes,
        window_bytes: stream_window_bytes * WINDOWS_PER_CONNECTION,
        ..ConnectionConfig::default()
    }
}
