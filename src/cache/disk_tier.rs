//! Entries that are not in memory: the disk tier answers for them, and what is asked for comes to memory.
//!
//! [`Cache::try_apply`] and its siblings do what memory can answer for, and give a [`PendingLoad`] else: see
//! [`crate::lookup`] for how that goes on. [`Cache::apply`] and [`Cache::read`] look for it themselves, which blocks.

use std::ops::ControlFlow;

use super::Cache;
use crate::clock::Now;
use crate::engine::{
    Admission, EntryView, Fetch, MissReason, Namespace, NotRead, Op, Outcome, Refusal, ScanCursor, ScanRange,
};
use crate::entry::Ttl;
use crate::lookup::{Answer, Loaded, PendingLoad};
use crate::persistence::disk::{TierReadError, TierReader};
use crate::persistence::tier::{FetchError, Scanned};

/// Entries of the disk tier that a scan takes at a time.
const SCANNED_AT_A_TIME: usize = 256;

impl Cache {
    /// What lies below memory, if anything does.
    #[inline]
    pub(super) fn disk_tier(&self) -> Option<TierReader<'_>> {
        self.disk()?.tier_reader()
    }

    /// Whether there is a disk tier below memory, so that operations may have to wait for it.
    #[must_use]
    #[inline]
    pub fn has_disk_tier(&self) -> bool {
        self.disk_tier().is_some()
    }

    /// Whether an operation that needs this key's entry would have to look for it on disk.
    #[must_use]
    pub fn needs_load(&self, namespace: &Namespace, key: &[u8]) -> bool {
        self.has_disk_tier() && !self.engine.has(namespace, key)
    }

    /// The 64-bit hash of a key and its namespace, which stays the same for as long as the cache lives.
    #[must_use]
    pub fn key_hash(&self, namespace: &Namespace, key: &[u8]) -> u64 {
        self.engine.shard_and_walk_hash(namespace.number(), key).1
    }

    /// Does one operation in a namespace, with what was loaded for it if its key was not in memory before.
    ///
    /// # Errors
    /// Its key's entry has to be loaded; nothing was done.
    #[inline]
    pub fn try_apply(
        &self,
        namespace: &Namespace,
        op: &Op<'_>,
        admission: impl Admission,
        loaded: Option<Loaded>,
    ) -> Result<Outcome, PendingLoad> {
        if let Some(loaded) = loaded {
            return self.apply_loaded(namespace, op, admission, loaded);
        }
        let Some(tier) = self.disk_tier() else { return Ok(self.engine.apply(namespace, op, admission)) };
        if let Err(refusal) = self.takes_key(&tier, namespace, op) {
            return Ok(Outcome::Refused(refusal));
        }
        if !op.needs_entry() {
            return Ok(self.engine.apply(namespace, op, admission));
        }
        let applied = self.engine.apply_or_fetch(namespace, op, admission);
        applied.map_err(|fetch| self.pending_load(fetch, namespace))
    }

    fn apply_loaded(
        &self,
        namespace: &Namespace,
        op: &Op<'_>,
        admission: impl Admission,
        loaded: Loaded,
    ) -> Result<Outcome, PendingLoad> {
        let answer = loaded.answer().clone();
        if let Answer::Failed(refusal) = *answer {
            return Ok(Outcome::Refused(refusal));
        }
        let fetch = loaded.into_fetch();
        let applied = answer.visit(|put| self.engine.apply_fetched(namespace, op, fetch, put, admission));
        applied.map_err(|fetch| self.pending_load(fetch, namespace))
    }

    /// Reads an entry where it lies, with what was loaded of it if its key was not in memory before; see [`Engine::read`].
    ///
    /// [`Engine::read`]: crate::engine::Engine::read
    ///
    /// # Errors
    /// There is none, or it has to be loaded: `found` was not called.
    #[inline]
    pub fn try_read<R>(
        &self,
        namespace: &Namespace,
        key: &[u8],
        touch: Option<Ttl>,
        admission: impl Admission,
        loaded: Option<Loaded>,
        found: impl FnOnce(EntryView<'_>) -> R,
    ) -> Result<R, NotRead<PendingLoad>> {
        let read = match loaded {
            None => self.engine.read_or_fetch(namespace, key, touch, admission, found),
            Some(loaded) => self.read_loaded((namespace, key), touch, admission, loaded, found),
        };
        read.map_err(|not_read| not_read.map_load(|fetch| self.pending_load(fetch, namespace)))
    }

    fn read_loaded<R>(
        &self,
        (namespace, key): (&Namespace, &[u8]),
        touch: Option<Ttl>,
        admission: impl Admission,
        loaded: Loaded,
        found: impl FnOnce(EntryView<'_>) -> R,
    ) -> Result<R, NotRead<Fetch>> {
        let answer = loaded.answer().clone();
        if let Answer::Failed(refusal) = *answer {
            // What was evicted and never arrived is lost, and may have been the newest.
            let is_lost = refusal == Refusal::Poisoned;
            let reason = if is_lost { MissReason::Evicted } else { MissReason::Corrupt };
            self.engine.count_disk_miss((namespace, key), reason, None);
            return Err(NotRead::Miss(reason));
        }
        let fetch = loaded.into_fetch();
        answer.visit(|put| {
            let read = self.engine.read_fetched((namespace, key), touch, (fetch, put), admission, found);
            match read {
                Err(NotRead::Miss(counted)) if matches!(*answer, Answer::Damaged) => {
                    let corrupt = MissReason::Corrupt;
                    self.engine.count_disk_miss((namespace, key), corrupt, Some(counted));
                    Err(NotRead::Miss(corrupt))
                }
                read => read,
            }
        })
    }

    /// Reads entries where they lie, in the order of their keys, until one has to be loaded; see [`Engine::read_batch`].
    ///
    /// [`Engine::read_batch`]: crate::engine::Engine::read_batch
    ///
    /// # Errors
    /// The index of the first key that has to be loaded: `found` was called for those before it.
    #[inline]
    pub fn try_read_batch(
        &self,
        namespace: &Namespace,
        keys: &[&[u8]],
        admission: impl Admission,
        found: impl FnMut(usize, Result<EntryView<'_>, NotRead>) -> ControlFlow<()>,
    ) -> Result<(), (usize, PendingLoad)> {
        let read = self.engine.read_batch(namespace, keys, admission, found);
        read.map_err(|(index, fetch)| (index, self.pending_load(fetch, namespace)))
    }

    /// What a read of a key that it comes to soon has to load; `None`: nothing.
    #[must_use]
    pub fn pending_load_of(&self, namespace: &Namespace, key: &[u8]) -> Option<PendingLoad> {
        let fetch = self.engine.begin_fetch(namespace, key, self.now())?;
        Some(self.pending_load(fetch, namespace))
    }

    /// Does one operation in a namespace. Blocks where its entry is on disk.
    #[cfg(any(test, feature = "testing"))]
    pub fn apply(&self, namespace: &Namespace, op: &Op<'_>, now: Now) -> Outcome {
        let mut loaded = None;
        loop {
            match self.try_apply(namespace, op, now, loaded) {
                Ok(outcome) => return outcome,
                Err(pending) => loaded = Some(pending.load(op.key())),
            }
        }
    }

    /// Reads an entry where it lies; see [`Engine::read`]. Blocks where it is on disk.
    ///
    /// [`Engine::read`]: crate::engine::Engine::read
    ///
    /// # Errors
    /// The reason of a miss.
    #[cfg(any(test, feature = "testing"))]
    pub fn read<R>(
        &self,
        namespace: &Namespace,
        key: &[u8],
        touch: Option<Ttl>,
        now: Now,
        mut found: impl FnMut(EntryView<'_>) -> R,
    ) -> Result<R, MissReason> {
        let mut loaded = None;
        loop {
            match self.try_read(namespace, key, touch, now, loaded, &mut found) {
                Ok(read) => return Ok(read),
                Err(NotRead::Miss(reason)) => return Err(reason),
                Err(NotRead::Refused(_)) => unreachable!("a time admits every operation"),
                Err(NotRead::NeedsLoad(pending)) => loaded = Some(pending.load(key)),
            }
        }
    }

    fn pending_load(&self, fetch: Fetch, namespace: &Namespace) -> PendingLoad {
        self.lookup
            .get()
            .expect("an engine fetches where there is something below it")
            .pending_load(fetch, namespace)
    }

    /// Whether memory has room to know where the entry lies on disk that an operation stores, if it stores one.
    fn takes_key(&self, reader: &TierReader<'_>, namespace: &Namespace, op: &Op<'_>) -> Result<(), Refusal> {
        // What is in memory may not have arrived on disk yet.
        if !op.may_add_entry() || !reader.tier.is_full() || self.engine.has(namespace, op.key()) {
            return Ok(());
        }
        let walk_hash = self.engine.shard_and_walk_hash(namespace.number(), op.key());
        reader.tier.takes_key(walk_hash, self.engine.default_namespace().bytes_limit())
    }

    /// Visits entries of a namespace; see [`crate::engine::Engine::scan`]. Blocks where [`Self::has_disk_tier`].
    ///
    /// # Errors
    /// What lies on disk cannot be read.
    pub fn scan(
        &self,
        namespace: &Namespace,
        range: ScanRange<'_>,
        now: Now,
        visit: impl FnMut(&[u8], EntryView<'_>) -> ControlFlow<()>,
    ) -> Result<Option<ScanCursor>, TierReadError> {
        match self.disk_tier() {
            None => Ok(self.engine.scan(namespace, range, now, visit)),
            Some(reader) => self.scan_disk_tier(&reader, namespace, range, now, visit),
        }
    }

    /// Every entry has a record below, and those of a shard are in the order of the engine's own walk: so that is what
    /// is scanned, whatever is in memory, and a scan can go on in memory when the tier ends.
    fn scan_disk_tier(
        &self,
        reader: &TierReader<'_>,
        namespace: &Namespace,
        range: ScanRange<'_>,
        now: Now,
        mut visit: impl FnMut(&[u8], EntryView<'_>) -> ControlFlow<()>,
    ) -> Result<Option<ScanCursor>, TierReadError> {
        reader.arrived()?;
        let begin = range.after.unwrap_or(ScanCursor { shard: 0, after: None });
        let (mut looked_at, mut seen) = (0, range.after);
        for number in begin.shard as usize..self.engine.shard_count() {
            let shard = number as u32;
            let mut after = begin.after.filter(|_| shard == begin.shard);
            loop {
                let mut is_over = false;
                let next = reader.tier.scan(number, after, SCANNED_AT_A_TIME, |put| {
                    looked_at += 1;
                    let is_wanted = put.namespace == namespace.number() && put.key.starts_with(range.prefix);
                    let visited = match put.view(now) {
                        Some(entry) if is_wanted => visit(put.key, entry),
                        _ => ControlFlow::Continue(()),
                    };
                    is_over = visited.is_break();
                    if !is_over {
                        let (_, walk_hash) = self.engine.shard_and_walk_hash(put.namespace, put.key);
                        seen = Some(ScanCursor { shard, after: Some(walk_hash) });
                    }
                    visited
                });
                if reader.tier.has_ended() && !is_over {
                    let rest = ScanRange { after: seen, ..range };
                    return Ok(self.engine.scan(namespace, rest, now, visit));
                }
                let Scanned::UpTo(last) = next.map_err(FetchError::from)? else { break };
                if is_over || looked_at >= range.entries_max {
                    return Ok(Some(ScanCursor { shard, after: last }));
                }
                after = last;
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::{CountingAdmission, EngineConfig};
    use crate::entry::Limits;
    use crate::lookup::{LoadTarget, Lookup, Source};

    /// Has nothing.
    #[derive(Debug)]
    struct Nothing;

    impl Source for Nothing {
        fn load(&self, _: &LoadTarget) -> Answer {
            Answer::Absent
        }
    }

    #[test]
    fn a_read_asks_the_admission_once_each_time_that_it_is_tried() {
        let cache = Cache::new(&EngineConfig::default(), Limits::default());
        cache.engine.start_fetching();
        cache.lookup.set(Lookup::new(Arc::clone(&cache.engine), Arc::new(Nothing))).unwrap();
        let (namespace, admission) = (cache.engine.default_namespace(), CountingAdmission::at(cache.now()));
        let read = |loaded| cache.try_read(namespace, b"k", None, &admission, loaded, |_| ());
        let Err(NotRead::NeedsLoad(away)) = read(None) else { panic!("it may lie below") };
        assert_eq!(admission.asked.get(), 1);
        assert!(matches!(read(Some(away.load(b"k"))), Err(NotRead::Miss(_))));
        assert_eq!(admission.asked.get(), 2);
    }
}
