//! A shard's part in fetching what lies below: it keeps watch on keys that are being fetched.

use super::{KeyRef, Shard};
use crate::clock::Now;
use crate::engine::log::Put;
use crate::engine::namespace::Namespace;
use crate::engine::op::MissReason;

impl Shard {
    pub(in crate::engine) fn start_fetching(&mut self) {
        self.fetches = Some(Box::default());
    }

    pub(in crate::engine) fn stop_fetching(&mut self) {
        self.fetches = None;
    }

    /// Watches a key that is not in memory: how often it was changed, and how much was logged up to now. `None`: it is
    /// in memory, or there is nothing below.
    #[inline]
    pub(in crate::engine) fn begin_fetch(&mut self, key: KeyRef<'_>, now: Now) -> Option<(u64, u64)> {
        self.fetches.as_ref()?;
        self.watch(key, now)
    }

    fn watch(&mut self, key: KeyRef<'_>, now: Now) -> Option<(u64, u64)> {
        if self.find_live(key, now).is_some() {
            return None;
        }
        let logged = self.changes.journal.as_ref().map_or(0, |log| log.events());
        self.fetches.as_mut().map(|fetches| (fetches.begin(key.hash), logged))
    }

    /// Ends a watch: whether the key was not changed meanwhile.
    pub(in crate::engine) fn end_fetch(&mut self, hash: u64, changes: u64) -> bool {
        self.fetches.as_mut().is_some_and(|fetches| fetches.end(hash, changes))
    }

    /// Puts what was found below into memory, where the key is not. It was logged once and is not logged again.
    pub(in crate::engine) fn promote(&mut self, found: &Put<'_>, key: KeyRef<'_>, now: Now) {
        if self.find_live(key, now).is_none() {
            let found = Put { request_id: "", ..*found };
            // What does not fit stays below.
            let _ = self.restore_put(&found, key, now);
        }
    }

    pub(in crate::engine) fn count_hit_on_disk(&mut self, namespace: &Namespace) {
        self.counts(namespace).hits_on_disk += 1;
    }

    /// Counts a lookup that was answered from below, as memory has no room for the entry, in place of the miss that it was
    /// counted as.
    pub(in crate::engine) fn count_hit_below(&mut self, namespace: &Namespace, counted: MissReason) {
        self.uncount_miss(namespace, counted);
        self.count_hit(namespace);
        self.count_hit_on_disk(namespace);
    }

    pub(in crate::engine) fn recount_miss(
        &mut self,
        namespace: &Namespace,
        reason: MissReason,
        counted: Option<MissReason>,
    ) {
        if let Some(counted) = counted {
            self.uncount_miss(namespace, counted);
        }
        self.counts(namespace).count_miss(reason);
    }

    /// Takes back a miss that was counted.
    fn uncount_miss(&mut self, namespace: &Namespace, counted: MissReason) {
        let of_it = &mut self.counts(namespace).misses_by_reason[counted as usize - 1];
        *of_it = of_it.saturating_sub(1);
    }

    /// What the places of entries on disk take counts as memory of the shard.
    pub(in crate::engine) fn set_disk_tier_bytes(&mut self, bytes: u64) {
        self.disk_tier_bytes = bytes;
    }

    /// And so does a part of what it takes to know the blobs.
    pub(in crate::engine) fn set_blob_bytes(&mut self, bytes: u64) {
        self.blob_bytes = bytes;
    }

    /// And what events may take.
    pub(in crate::engine) fn set_event_bytes(&mut self, bytes: u64) {
        self.event_bytes = bytes;
    }

    pub(in crate::engine) fn has(&self, key: KeyRef<'_>) -> bool {
        self.find(key).is_some()
    }

    /// Notes that a key changes: what was fetched of it so far is worth nothing any more.
    #[inline]
    pub(super) fn note_change(&mut self, key: KeyRef<'_>) {
        if let Some(fetches) = &mut self.fetches {
            fetches.changed(key.hash);
        }
    }

    /// As [`Self::note_change`], of every key.
    pub(super) fn note_change_of_all(&mut self) {
        if let Some(fetches) = &mut self.fetches {
            fetches.all_changed();
        }
    }
}
