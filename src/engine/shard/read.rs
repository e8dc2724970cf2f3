//! How an entry is read: alone, or with its memory asked for before.

use super::{KeyRef, Shard};
use crate::clock::Now;
use crate::engine::VersionClock;
use crate::engine::eviction::Policy;
use crate::engine::namespace::Namespace;
use crate::engine::op::{EntryView, MissReason};
use crate::engine::slot::Slot;
use crate::entry::Ttl;

/// A slot that was a live entry's when the shard had freed `freed` slots.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct SlotHint {
    slot: Slot,
    freed: u64,
}

impl Shard {
    /// Reads an entry under the lock; `hint` is where it lay when it was prefetched.
    #[inline]
    pub(in crate::engine) fn get<R>(
        &mut self,
        key: KeyRef<'_>,
        hint: Option<SlotHint>,
        now: Now,
        found: impl FnOnce(EntryView<'_>) -> R,
    ) -> Result<R, MissReason> {
        self.until_sample -= 1;
        if self.until_sample == 0 {
            self.until_sample = self.hot.sample(key.namespace, key.key, key.hash, now);
        }
        let found_at = hint.and_then(|hint| self.confirm(hint, key)).or_else(|| self.find(key));
        let Some(slot) = found_at.and_then(|slot| self.if_live(slot, now)) else {
            let reason = self.eviction_log.reason(key.hash);
            self.count_miss(key, reason);
            return Err(reason);
        };
        let read = found(self.view(slot, now));
        self.count_hit(key.namespace);
        self.spaces.of(key.namespace.number()).hit(&mut self.records, slot);
        Ok(read)
    }

    /// A lookup came to something.
    #[inline]
    pub(in crate::engine) fn count_hit(&mut self, namespace: &Namespace) {
        if namespace.number() == 0 {
            self.hits += 1;
        } else {
            self.spaces.of(namespace.number()).counts.hits += 1;
        }
    }

    /// A lookup came to nothing.
    fn count_miss(&mut self, key: KeyRef<'_>, reason: MissReason) {
        self.counts(key.namespace).count_miss(reason);
        if let Some(space) = self.spaces.get_mut(key.namespace.number()) {
            space.policy.missed(key.hash);
        }
    }

    /// Reads an entry, which gets a new time to live before that if `touch` says so.
    #[inline]
    pub(in crate::engine) fn read<R>(
        &mut self,
        key: KeyRef<'_>,
        touch: Option<Ttl>,
        versions: &VersionClock,
        now: Now,
        found: impl FnOnce(EntryView<'_>) -> R,
    ) -> Result<R, MissReason> {
        if let Some(ttl) = touch {
            let _ = self.touch(key, ttl, versions, now);
        }
        self.get(key, None, now, found)
    }

    /// Asks for the index's line of a key, without waiting for it to come.
    #[inline]
    pub(in crate::engine) fn prefetch_index(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Where a key's entry is, if it is there and no other has the same tag; asks for its memory without waiting for it to
    /// come.
    #[inline]
    pub(in crate::engine) fn prefetch_entry(&self, hash: u64) -> Option<SlotHint> {
        let slot = self.index.slot_hint(hash)?;
        self.records.prefetch(slot);
        Some(SlotHint { slot, freed: self.records.arena.freed() })
    }

    /// The hint's slot, if it is still this key's live entry.
    #[inline]
    fn confirm(&self, hint: SlotHint, key: KeyRef<'_>) -> Option<Slot> {
        let slot = hint.slot;
        let is_live = hint.freed == self.records.arena.freed();
        (is_live && self.records.is(slot, key.namespace.number(), key.key)).then_some(slot)
    }
}
