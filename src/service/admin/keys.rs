//! Admin's calls about single keys: what a node knows of one, and which are asked for most.

use super::AdminService;
use crate::proto::v1;
use crate::request::CallError;
use crate::request::convert;
use crate::ring::Position;
use crate::service::unary;

impl AdminService {
    pub(super) fn explain(
        &self,
        request: v1::ExplainKeyRequest,
    ) -> Result<v1::ExplainKeyResponse, CallError> {
        let cache = &self.cache;
        let key = convert::key(&request.key, &cache.limits(), || "key".to_owned())?;
        let namespace = unary::namespace(cache, &request.namespace)?;
        let known = cache.explain(&namespace, key, cache.now());
        let node_id = self.node.identity().node_id;
        let (entry, miss_reason) = match known.entry {
            Ok(hit) => (Some(hit), v1::MissReason::Unspecified),
            Err(reason) => (None, reason.into()),
        };
        let entry = entry.map(|hit| v1::Hit {
            version: hit.version.0,
            remaining_ttl_ms: hit.remaining_ttl_ms,
            flags: hit.flags,
            content_type: hit.content_type,
            tier: v1::Tier::Memory as i32,
            near_cache_ttl_ms: namespace.near_cache_ttl_ms(hit.remaining_ttl_ms),
            value_bytes: known.value_bytes,
            ..v1::Hit::default()
        });
        Ok(v1::ExplainKeyResponse {
            // A node alone owns every key.
            owner: node_id.clone(),
            node_id,
            ring_position: Position::of(&request.namespace, key).0,
            shard: known.shard,
            entry,
            miss_reason: miss_reason as i32,
            charged_bytes: known.charged_bytes,
            tags: known.tags,
            policy: namespace.config().policy.to_string(),
            policy_view: known.policy_view,
            entry_generation: known.generation,
            generation: namespace.generation(),
            ..v1::ExplainKeyResponse::default()
        })
    }

    pub(super) fn hot_keys(&self) -> v1::ListHotKeysResponse {
        let hot = self.cache.hot_keys();
        let keys = hot.keys.into_iter().map(|key| v1::HotKey {
            namespace: key.namespace,
            key: key.key.into(),
            count: key.count,
            count_error: key.count_error,
            value_bytes: key.value_bytes,
        });
        v1::ListHotKeysResponse { keys: keys.collect(), lookups: hot.lookups, window_ms: hot.window_ms }
    }
}
