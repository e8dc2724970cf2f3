//! Entries that are not in memory: the disk tier answers for them, and what is asked for comes to memory.
//!
//! What is said here of blocking: a lookup reads a file, and before that it may wait for the journal to write what the
//! key's shard has logged. [`Cache::waits`] tells beforehand whether that is likely. Who asked may think better of it
//! while it is looked for: a [`Claim`] settles whether an operation is done or given up.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Cache;
use crate::clock::{Now, Throttle};
use crate::engine::{
    EntryView, Fetch, MissReason, Namespace, Op, Outcome, Put, Refusal, ScanPlace, ScanRange, Tier,
};
use crate::entry::Ttl;
use crate::persistence::disk::{Lookup, LookupError};
use crate::persistence::tier::{FetchError, Found};

/// Entries of the disk tier that a scan takes at a time.
const SCANNED_AT_A_TIME: usize = 256;

/// The right to settle one operation: whoever takes it does the operation, or gives it up. It is taken once, and before
/// anything is changed.
#[derive(Debug, Default)]
pub struct Claim(AtomicBool);

impl Claim {
    /// Takes it; whether nobody had.
    pub fn take(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}

/// What an operation comes to that was given up.
const WITHDRAWN: Outcome = Outcome::Refused(Refusal::Withdrawn);

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

    /// What stands for a key and its namespace while the cache is there. That two share it is as likely as that their
    /// hashes are the same.
    #[must_use]
    pub fn place_of(&self, namespace: &Namespace, key: &[u8]) -> u64 {
        self.engine.place_of(namespace.number(), key).1
    }

    /// Does an operation as [`Self::apply`] does, if the claim to it is to be had when its entry is found.
    pub fn apply_claimed(&self, namespace: &Namespace, op: &Op<'_>, now: Now, claim: &Claim) -> Outcome {
        let below = self.below();
        if let Some(lookup) = below
            && let Err(refusal) = self.takes_key(&lookup, namespace, op)
        {
            return Outcome::Refused(refusal);
        }
        match below {
            Some(lookup) if op.needs_entry() => self.apply_below(&lookup, namespace, op, now, Some(claim)),
            _ if claim.take() => self.engine.apply(namespace, op, now),
            _ => WITHDRAWN,
        }
    }

    /// Reads an entry as [`Self::read`] does, if the claim to it is to be had when it is found.
    ///
    /// # Errors
    /// The reason of a miss; any, where the claim was taken.
    pub fn read_claimed<R>(
        &self,
        namespace: &Namespace,
        key: &[u8],
        touch: Option<Ttl>,
        now: Now,
        claim: &Claim,
        found: impl FnOnce(EntryView<'_>) -> R,
    ) -> Result<R, MissReason> {
        match self.below() {
            Some(lookup) => self.read_below(&lookup, (namespace, key), touch, now, Some(claim), found),
            None if claim.take() => self.engine.read(namespace, key, touch, now, found),
            None => Err(MissReason::Unknown),
        }
    }

    /// Whether memory has room to know where the entry lies on disk that an operation stores, if it stores one.
    pub(super) fn takes_key(
        &self,
        lookup: &Lookup<'_>,
        namespace: &Namespace,
        op: &Op<'_>,
    ) -> Result<(), Refusal> {
        // What is in memory may not have arrived on disk yet.
        if !op.may_add_entry() || !lookup.tier.is_full() || self.engine.has(namespace, op.key()) {
            return Ok(());
        }
        let place = self.engine.place_of(namespace.number(), op.key());
        lookup.tier.takes_key(place, self.engine.default_namespace().bytes_limit())
    }

    /// What has to be fetched first, if anything has; `Err`: nothing has, and the claim is taken.
    fn fetch_first(
        &self,
        (namespace, key): (&Namespace, &[u8]),
        now: Now,
        claim: &mut Option<&Claim>,
    ) -> Result<Option<Fetch>, ()> {
        // Whoever has no claim to take finds out when it does the operation.
        let Some(_) = claim else { return Ok(None) };
        match self.engine.begin_fetch(namespace, key, now) {
            None if !takes(claim) => Err(()),
            fetch => Ok(fetch),
        }
    }

    pub(super) fn apply_below(
        &self,
        lookup: &Lookup<'_>,
        namespace: &Namespace,
        op: &Op<'_>,
        now: Now,
        mut claim: Option<&Claim>,
    ) -> Outcome {
        let mut applied = match self.fetch_first((namespace, op.key()), now, &mut claim) {
            Ok(None) => self.engine.apply_or_fetch(namespace, op, now),
            Ok(Some(fetch)) => Err(fetch),
            Err(()) => return WITHDRAWN,
        };
        loop {
            let fetch = match applied {
                Ok(done) => return done,
                Err(fetch) => fetch,
            };
            let found = match look_up(lookup, &fetch, (namespace, op.key())) {
                Ok(Looked::Up(found)) => found,
                Ok(Looked::Damaged) => None,
                Err(refusal) => {
                    self.engine.end_fetch(fetch);
                    return Outcome::Refused(refusal);
                }
            };
            if !takes(&mut claim) {
                self.engine.end_fetch(fetch);
                return WITHDRAWN;
            }
            applied = visit(found.as_ref(), |put| self.engine.apply_fetched(namespace, op, fetch, put, now));
        }
    }

    pub(super) fn read_below<R>(
        &self,
        lookup: &Lookup<'_>,
        (namespace, key): (&Namespace, &[u8]),
        touch: Option<Ttl>,
        now: Now,
        mut claim: Option<&Claim>,
        found: impl FnOnce(EntryView<'_>) -> R,
    ) -> Result<R, MissReason> {
        let mut found = Some(found);
        let mut see = |entry: EntryView<'_>| (found.take().expect("an entry is found once"))(entry);
        let mut read = match self.fetch_first((namespace, key), now, &mut claim) {
            Ok(None) => self.engine.read_or_fetch(namespace, key, touch, now, &mut see),
            Ok(Some(fetch)) => Err(fetch),
            Err(()) => return Err(MissReason::Unknown),
        };
        loop {
            let fetch = match read {
                Ok(read) => return read,
                Err(fetch) => fetch,
            };
            let looked = match look_up(lookup, &fetch, (namespace, key)) {
                Ok(looked) => looked,
                Err(refusal) => {
                    self.engine.end_fetch(fetch);
                    // What was evicted and never arrived is lost, and may have been the newest.
                    let is_lost = refusal == Refusal::Poisoned;
                    let reason = if is_lost { MissReason::Evicted } else { MissReason::Corrupt };
                    self.engine.count_missed_below((namespace, key), reason, None);
                    return Err(reason);
                }
            };
            if !takes(&mut claim) {
                self.engine.end_fetch(fetch);
                return Err(MissReason::Unknown);
            }
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
                    Some(entry) if !namespace.is_deleted() => {
                        engine.count_hit_below((namespace, key), reason);
                        Ok(see_on_disk(entry))
                    }
                    _ => Err(reason),
                }))
            });
            if let (Looked::Damaged, Ok(Err(counted))) = (&looked, &read) {
                self.engine.count_missed_below((namespace, key), MissReason::Corrupt, Some(*counted));
                return Err(MissReason::Corrupt);
            }
        }
    }

    /// Reads those that are in memory together, and those that are not one by one.
    pub(super) fn read_batch_below(
        &self,
        lookup: &Lookup<'_>,
        (namespace, keys): (&Namespace, &[&[u8]]),
        now: Now,
        found: &mut impl FnMut(usize, Result<EntryView<'_>, MissReason>) -> ControlFlow<()>,
    ) {
        let mut at = 0;
        while let Some(key) = keys.get(at) {
            let near = keys[at..].iter().take_while(|key| self.engine.has(namespace, key)).count();
            let (mut is_over, mut read, mut missed) = (false, 0, None);
            self.engine.read_batch(namespace, &keys[at..at + near], now, |index, entry| match entry {
                Ok(entry) => {
                    let next = found(at + index, Ok(entry));
                    (is_over, read) = (next.is_break(), index + 1);
                    next
                }
                // Let go of a moment ago: it is looked for below.
                Err(reason) => {
                    missed = Some((index, reason));
                    ControlFlow::Break(())
                }
            });
            if let Some((index, reason)) = missed {
                self.engine.uncount_miss((namespace, keys[at + index]), reason);
            }
            if is_over {
                return;
            }
            at += read;
            if read > 0 {
                continue;
            }
            let see = |entry: EntryView<'_>| found(at, Ok(entry));
            let next = self.read_below(lookup, (namespace, *key), None, now, None, see);
            if next.unwrap_or_else(|reason| found(at, Err(reason))).is_break() {
                return;
            }
            at += 1;
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

/// Takes a claim that is there to be taken; whether the operation may be done.
fn takes(claim: &mut Option<&Claim>) -> bool {
    claim.take().is_none_or(Claim::take)
}

fn look_up(
    lookup: &Lookup<'_>,
    fetch: &Fetch,
    (namespace, key): (&Namespace, &[u8]),
) -> Result<Looked, Refusal> {
    static LOST: Throttle = Throttle::new();
    static UNREADABLE: Throttle = Throttle::new();
    match lookup.fetch(fetch, namespace.number(), key) {
        Ok(found) => Ok(Looked::Up(found)),
        Err(LookupError::Stopped(_)) => Err(Refusal::Poisoned),
        Err(LookupError::Fetch(error @ FetchError::Damaged { .. })) => {
            LOST.say(|left_out| tracing::error!(%error, left_out, "an entry is lost"));
            Ok(Looked::Damaged)
        }
        Err(error) if error.is_passing() => {
            tracing::warn!(%error, "an entry cannot be read for now");
            Err(Refusal::Shortage)
        }
        Err(LookupError::Fetch(error)) => {
            UNREADABLE.say(|left_out| tracing::error!(%error, left_out, "an entry cannot be read"));
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
    let remaining_ttl_ms = match put.expires_steady_ms {
        None => 0,
        Some(at) => at.checked_sub(now.steady_ms).filter(|left| *left > 0)?,
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
