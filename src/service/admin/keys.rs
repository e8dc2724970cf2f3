//! Admin's calls about single keys: what a node knows of one, and which are asked for most.

use xxhash_rust::xxh64::{Xxh64, xxh64};

use super::AdminService;
use crate::proto::v1;
use crate::request::CallError;
use crate::request::convert;
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
            ring_position: ring_position(&request.namespace, key),
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

/// Where a key lies on every ring: XXH64 of the hexadecimal digits of XXH64 of namespace, a zero byte and key. The
/// digits, because they are what a stock gRPC client can hash (gRFC A42).
fn ring_position(namespace: &str, key: &[u8]) -> u64 {
    let mut hash = Xxh64::new(0);
    hash.update(namespace.as_bytes());
    hash.update(&[0]);
    hash.update(key);
    xxh64(format!("{:016x}", hash.digest()).as_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_depends_on_namespace_and_key() {
        let digits = format!("{:016x}", xxh64(b"ns\0key", 0));
        assert_eq!(ring_position("ns", b"key"), xxh64(digits.as_bytes(), 0));
        assert_ne!(ring_position("", b"nskey"), ring_position("ns", b"key"));
    }
}
