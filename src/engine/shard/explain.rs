//! What a shard knows of one key, and where its bytes are, for operators. Counts as no use of an entry.

use super::{KeyRef, Shard};
use crate::clock::Now;
use crate::engine::eviction::{Policy, Slots};
use crate::engine::hot::HotKeys;
use crate::engine::memory::Memory;
use crate::engine::op::{Hit, MissReason};

/// An entry as a shard sees it.
#[derive(Debug, Clone)]
pub(in crate::engine) struct ExplainedEntry {
    /// The entry, without its value.
    pub hit: Hit,
    pub value_bytes: u64,
    pub charged_bytes: u64,
    pub tags: Vec<String>,
    pub policy_view: String,
}

impl Shard {
    /// The entry, or why there is none as far as is remembered.
    pub(in crate::engine) fn explain(&self, key: KeyRef<'_>, now: Now) -> Result<ExplainedEntry, MissReason> {
        let number = key.namespace.number();
        let found = self.index.find(key.hash, |slot| self.records.is(slot, number, key.key));
        let Some(slot) = found else { return Err(self.eviction_log.reason(key.hash)) };
        if self.expiry(slot).is_past(now.steady_ms) {
            return Err(MissReason::Expired);
        }
        if let Some(reason) = self.dead_reason(slot) {
            return Err(reason);
        }
        let view = self.view(slot, now);
        let handed_over = self.records.handed_over(slot);
        let policy_view = self.spaces.get(number).map(|space| match &space.retiring {
            Some(retiring) if handed_over != space.present => {
                let (from, to) = (retiring.name(), space.policy.name());
                format!(
                    "{} (waits to be handed over from {from} to {to})",
                    retiring.view(&self.records, slot)
                )
            }
            _ => space.policy.view(&self.records, slot),
        });
        Ok(ExplainedEntry {
            hit: Hit {
                value: bytes::Bytes::new(),
                version: view.version,
                remaining_ttl_ms: view.remaining_ttl_ms,
                flags: view.flags,
                content_type: view.content_type.to_owned(),
            },
            value_bytes: view.value.as_slice().len() as u64,
            charged_bytes: self.records.weight(slot),
            tags: self.records.tags(slot).names().map(str::to_owned).collect(),
            policy_view: policy_view.unwrap_or_default(),
        })
    }

    /// Adds the shard's hot keys to those of all.
    pub(in crate::engine) fn add_hot_keys(&self, all: &mut HotKeys, now: Now) {
        self.hot.add_to(all, now, |namespace, key, hash| {
            let key = KeyRef { namespace, key, hash };
            self.explain(key, now).map_or(0, |known| known.value_bytes)
        });
    }

    /// Adds where the shard's bytes are.
    pub(in crate::engine) fn add_memory(&self, memory: &mut Memory) {
        let arena = &self.records.arena;
        let spare = arena.spare_cell_bytes();
        memory.entries += self.index.len() as u64;
        memory.entry_bytes +=
            self.spaces.iter().map(|space| space.bytes).sum::<u64>() - self.records.large_bytes();
        memory.large_value_bytes += self.records.large_bytes();
        memory.spare_bytes += spare;
        memory.page_rest_bytes += arena.held_bytes().saturating_sub(arena.cell_bytes_in_use() + spare);
        memory.index_bytes += self.index.bytes();
        memory.policy_bytes += self.spaces.iter().map(|space| space.side_bytes()).sum::<u64>();
        memory.departed_bytes += self.eviction_log.bytes();
        memory.request_bytes += self.requests.bytes();
        memory.tag_bytes += self.tag_filter.bytes();
        memory.hot_key_bytes += self.hot.bytes();
        memory.invalidation_bytes += self.spaces.iter().map(|space| space.invalidations.bytes()).sum::<u64>();
        memory.disk_tier_bytes += self.disk_tier_bytes;
        memory.blob_bytes += self.blob_bytes;
        memory.event_bytes += self.event_bytes;
        memory.bytes_limit += self.config.bytes_limit;
    }
}
