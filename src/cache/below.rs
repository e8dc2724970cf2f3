//! Entries that are not in memory: the disk tier answers for them, and what is asked for comes to memory.
//!
//! What is said here of blocking: a lookup reads a file, and before that it may wait for the journal to write what the
//! key's shard has logged. [`Cache::waits`] tells beforehand whether that is likely.

use std::ops::ControlFlow;

use super::Cache;
use crate::clock::Now;
use crate::engine::{
    Change, ChangeKind, EntryView, Fetch, MissReason, Namespace, Op, Outcome, Put, Refusal, ScanPlace,
    ScanRange, Tier,
};
use crate::entry::Ttl;
use crate::persistence::disk::{Lookup, LookupError};
use crate::persistence::tier::{FetchError, Found};

/// Entries of the disk tier that a scan takes at a time.
const SCANNED_AT_A_TIME: usize = 256;

/// What a lookup came to.
enum Looked {
    Up(Option<Found>),
    /// There is a record, and it is damaged.
    Damaged,
}

impl Cache {
    /// What lies below memory, if anything does.
    #[inline]
    pub(super) fn below(&self) -> Option<Lookup<'_>> {
        self.disk()?.lookup()
    }

    /// Whether there is a disk tier below memory, so that operations may block.
    #[must_use]
    #[inline]
    pub fn has_below(&self) -> bool {
        self.below().is_some()
    }

    /// Whether an operation that needs this key's entry would have to look for it on disk.
    #[must_use]
    pub fn waits(&self, namespace: &Namespace, key: &[u8]) -> bool {
        self.has_below() && !self.engine.has(namespace, key)
    }

    pub(super) fn apply_below(
        &self,
        lookup: &Lookup<'_>,
        namespace: &Namespace,
        op: &Op<'_>,
        now: Now,
    ) -> (Outcome, Change) {
        let mut applied = self.engine.apply_or_fetch(namespace, op, now);
        loop {
            let fetch = match applied {
                Ok(done) => return done,
                Err(fetch) => fetch,
            };
            let found = match look_up(lookup, &fetch, namespace, op.key()) {
                Ok(Looked::Up(found)) => found,
                Ok(Looked::Damaged) => None,
                Err(refusal) => {
                    self.engine.end_fetch(fetch);
                    let none = Change { shard: 0, sequence: 0, kind: ChangeKind::None };
                    return (Outcome::Refused(refusal), none);
                }
            };
            applied = visit(found.as_ref(), |put| self.engine.apply_fetched(namespace, op, fetch, put, now));
        }
    }

    pub(super) fn read_below<R>(
        &self,
        lookup: &Lookup<'_>,
        (namespace, key): (&Namespace, &[u8]),
        touch: Option<Ttl>,
        now: Now,
        found: impl FnOnce(EntryView<'_>) -> R,
    ) -> Result<R, MissReason> {
        let mut found = Some(found);
        let mut see = |entry: EntryView<'_>| (found.take().expect("an entry is found once"))(entry);
        let mut read = self.engine.read_or_fetch(namespace, key, touch, now, &mut see);
        loop {
            let fetch = match read {
                Ok(read) => return read,
                Err(fetch) => fetch,
            };
            let looked = match look_up(lookup, &fetch, namespace, key) {
                Ok(looked) => looked,
                Err(refusal) => {
                    self.engine.end_fetch(fetch);
                    // What was evicted and never arrived is lost, and may have been the newest.
                    let is_lost = refusal == Refusal::Poisoned;
                    return Err(if is_lost { MissReason::Evicted } else { MissReason::Corrupt });
                }
            };
            let record = match &looked {
                Looked::Up(found) => found.as_ref(),
                Looked::Damaged => None,
            };
            read = visit(record, |put| {
                let mut see_on_disk = |entry: EntryView<'_>| see(EntryView { tier: Tier::Disk, ..entry });
                let (engine, see_it) = (&self.engine, &mut see_on_disk);
                let read = engine.read_fetched(namespace, key, touch, fetch, put, now, see_it)?;
                // What memory has no room for is answered from where it lies.
                Ok(read.or_else(|reason| match put.and_then(|put| view(put, now)) {
                    Some(entry) if !namespace.is_deleted() => Ok(see_on_disk(entry)),
                    _ => Err(reason),
                }))
            });
            if let (Looked::Damaged, Ok(Err(_))) = (&looked, &read) {
                return Err(MissReason::Corrupt);
            }
        }
    }

    /// Visits entries of a namespace; see [`crate::engine::Engine::scan`]. Blocks where [`Self::has_below`].
    ///
    /// # Errors
    /// What lies on disk cannot be read.
    pub fn scan(
        &self,
        namespace: &Namespace,
        range: ScanRange<'_>,
        now: Now,
        visit: impl FnMut(&[u8], EntryView<'_>) -> ControlFlow<()>,
    ) -> Result<Option<ScanPlace>, LookupError> {
        match self.below() {
            None => Ok(self.engine.scan(namespace, range, now, visit)),
            Some(lookup) => self.scan_below(&lookup, namespace, range, now, visit),
        }
    }

    /// Every entry has a record below, and those of a shard are in the order of the engine's own walk: so that is what
    /// is scanned, whatever is in memory, and a scan can go on in memory when the tier ends.
    fn scan_below(
        &self,
        lookup: &Lookup<'_>,
        namespace: &Namespace,
        range: ScanRange<'_>,
        now: Now,
        mut visit: impl FnMut(&[u8], EntryView<'_>) -> ControlFlow<()>,
    ) -> Result<Option<ScanPlace>, LookupError> {
        lookup.arrived()?;
        let begin = range.after.unwrap_or(ScanPlace { shard: 0, after: None });
        let (mut looked_at, mut seen) = (0, range.after);
        for number in begin.shard as usize..self.engine.shard_count() {
            let shard = number as u32;
            let mut after = begin.after.filter(|_| shard == begin.shard);
            loop {
                let mut is_over = false;
                let next = lookup.tier.scan(number, after, SCANNED_AT_A_TIME, |put| {
                    looked_at += 1;
                    let is_wanted = put.namespace == namespace.number() && put.key.starts_with(range.prefix);
                    let visited = match view(put, now) {
                        Some(entry) if is_wanted => visit(put.key, entry),
                        _ => ControlFlow::Continue(()),
                    };
                    is_over = visited.is_break();
                    if !is_over {
                        let (_, place) = self.engine.place_of(put.namespace, put.key);
                        seen = Some(ScanPlace { shard, after: Some(place) });
                    }
                    visited
                });
                if lookup.tier.has_ended() && !is_over {
                    let rest = ScanRange { after: seen, ..range };
                    return Ok(self.engine.scan(namespace, rest, now, visit));
                }
                let Some(last) = next.map_err(FetchError::from)? else { break };
                if is_over || looked_at >= range.entries_max {
                    return Ok(Some(ScanPlace { shard, after: last }));
                }
                after = last;
            }
        }
        Ok(None)
    }
}

fn look_up(lookup: &Lookup<'_>, fetch: &Fetch, namespace: &Namespace, key: &[u8]) -> Result<Looked, Refusal> {
    match lookup.fetch(fetch, namespace.number(), key) {
        Ok(found) => Ok(Looked::Up(found)),
        Err(LookupError::Stopped(_)) => Err(Refusal::Poisoned),
        Err(LookupError::Fetch(error @ FetchError::Damaged { .. })) => {
            tracing::error!(%error, "an entry is lost");
            Ok(Looked::Damaged)
        }
        Err(LookupError::Fetch(error)) => {
            tracing::error!(%error, "an entry cannot be read");
            Err(Refusal::Unreadable)
        }
    }
}

/// Visits what was found, if anything was.
fn visit<R>(found: Option<&Found>, visit: impl FnOnce(Option<&Put<'_>>) -> R) -> R {
    let mut visit = Some(visit);
    let visited = found.and_then(|found| found.visit(|put| visit.take().map(|visit| visit(Some(put)))));
    match (visited.flatten(), visit) {
        (Some(visited), _) => visited,
        (None, Some(visit)) => visit(None),
        (None, None) => unreachable!("who was called has answered"),
    }
}

/// A record as an entry; `None`: its time has ended.
fn view<'a>(put: &Put<'a>, now: Now) -> Option<EntryView<'a>> {
    let remaining_ttl_ms = match put.expires_unix_ms {
        None => 0,
        Some(at) => at.checked_sub(now.unix_ms()).filter(|left| *left > 0)?,
    };
    Some(EntryView {
        value: put.value,
        version: put.version,
        remaining_ttl_ms,
        flags: put.flags,
        content_type: put.content_type,
        tier: Tier::Disk,
    })
}
