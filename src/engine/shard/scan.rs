//! Walking a shard's entries in the order of their hashes, a segment of the index at a time.

use std::ops::ControlFlow;

use super::Shard;
use crate::clock::Now;
use crate::engine::eviction::Slots;
use crate::engine::namespace::Namespace;
use crate::engine::op::EntryView;

impl Shard {
    /// The segment of the index that a hash belongs to.
    pub(in crate::engine) fn segment_of(&self, hash: u64) -> usize {
        self.index.segment_of(hash)
    }

    pub(in crate::engine) fn segment_count(&self) -> usize {
        self.index.segment_count()
    }

    /// Visits the live entries of a segment whose keys begin with the prefix and whose hashes are above `after`, in the
    /// order of these. Breaks off where `visit` does, with the hash of the entry before. How many it looked at else.
    pub(in crate::engine) fn scan_segment(
        &self,
        segment: usize,
        namespace: &Namespace,
        prefix: &[u8],
        after: Option<u64>,
        now: Now,
        visit: &mut impl FnMut(&[u8], EntryView<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<Option<u64>, usize> {
        let slots: Vec<u32> = self.index.segment(segment).collect();
        slots.iter().for_each(|slot| self.records.ask_for(*slot));
        let wanted = |slot: &u32| {
            self.records.namespace(*slot) == namespace.number() && self.records.key(*slot).starts_with(prefix)
        };
        let mut found: Vec<(u64, u32)> = slots
            .iter()
            .filter(|slot| wanted(slot))
            .map(|slot| (self.records.hash(*slot), *slot))
            .filter(|(hash, _)| after.is_none_or(|after| *hash > after))
            .collect();
        found.sort_unstable();
        let mut last = after;
        for (hash, slot) in found {
            let expired = self.deadline_ms(slot).is_some_and(|deadline| deadline <= now.ticks_ms);
            if expired || self.sweep.is_due() && self.dead_reason(slot).is_some() {
                continue;
            }
            let view = self.records.view(slot, self.remaining_ttl_ms(slot, now));
            if visit(self.records.key(slot), view).is_break() {
                return ControlFlow::Break(last);
            }
            last = Some(hash);
        }
        ControlFlow::Continue(slots.len())
    }
}
