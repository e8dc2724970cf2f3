//! Walking a shard's entries, a segment of the index at a time.

use std::ops::ControlFlow;

use super::Shard;
use crate::clock::Now;
use crate::engine::eviction::Slots;
use crate::engine::index::order;
use crate::engine::namespace::Namespace;
use crate::engine::op::EntryView;
use crate::engine::slot::Slot;

impl Shard {
    /// Visits the live entries of the next segment after a place in the walk ([`order`]) whose keys begin with the
    /// prefix. Breaks off where `visit` does, with the place of the entry before. Tells where the segment ends else, and
    /// how many entries it looked at.
    pub(in crate::engine) fn scan_segment(
        &self,
        namespace: &Namespace,
        prefix: &[u8],
        after: Option<u64>,
        now: Now,
        visit: &mut impl FnMut(&[u8], EntryView<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<Option<u64>, (u64, usize)> {
        let segment = self.index.segment_of(order(after.map_or(0, |after| after.saturating_add(1))));
        let slots: Vec<Slot> = self.index.segment(segment).collect();
        slots.iter().for_each(|slot| self.records.prefetch(*slot));
        let wanted = |slot: &Slot| {
            self.records.namespace(*slot) == namespace.number() && self.records.key(*slot).starts_with(prefix)
        };
        let mut found: Vec<(u64, Slot)> = slots
            .iter()
            .filter(|slot| wanted(slot))
            .map(|slot| (order(self.records.hash(*slot)), *slot))
            .filter(|(place, _)| after.is_none_or(|after| *place > after))
            .collect();
        found.sort_unstable();
        let mut last = after;
        for (place, slot) in found {
            let is_expired = self.expiry(slot).is_past(now.steady_ms);
            if is_expired || self.sweep.is_due() && self.dead_reason(slot).is_some() {
                continue;
            }
            let view = self.view(slot, now);
            if visit(self.records.key(slot), view).is_break() {
                return ControlFlow::Break(last);
            }
            last = Some(place);
        }
        ControlFlow::Continue((self.index.end_of(segment), slots.len()))
    }
}
