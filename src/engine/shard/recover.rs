//! A shard's part in logging changes, in walking through entries, and in applying records.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;

use super::{KeyRef, Shard};
use crate::clock::Now;
use crate::engine::expiry::Wheel;
use crate::engine::index::{Index, order};
use crate::engine::log::{LogConfig, Logged, Put, Record, ShardLog};
use crate::engine::op::MissReason;
use crate::engine::record::{DraftValue, RecordDraft, is_large};
use crate::engine::recover::Restored;
use crate::engine::request_ids::Done;
use crate::engine::slot::Slot;
use crate::engine::tags::DraftTags;
use crate::entry::Expiry;

impl Shard {
    pub(in crate::engine) fn start_log(&mut self, config: LogConfig, drains: Arc<AtomicU64>) {
        self.changes.journal = Some(Box::new(ShardLog::new(config, drains)));
        self.requests.keep_names();
    }

    pub(in crate::engine) fn stop_log(&mut self) {
        self.changes.journal = None;
    }

    pub(in crate::engine) fn close_log(&mut self) {
        if let Some(log) = &mut self.changes.journal {
            log.close();
        }
    }

    pub(in crate::engine) fn set_log_full(&mut self, is_full: bool) {
        if let Some(log) = &mut self.changes.journal {
            log.set_full(is_full);
        }
    }

    pub(in crate::engine) fn drain_log(&mut self, into: &mut Logged) {
        if let Some(log) = &mut self.changes.journal {
            log.drain(into);
        }
    }

    /// Visits the entries of the next segment after a place in the walk as they are now; where the segment ends.
    pub(in crate::engine) fn record_segment(
        &self,
        after: Option<u64>,
        now: Now,
        visit: &mut impl FnMut(&Record<'_>),
    ) -> u64 {
        let segment = self.index.segment_of(order(after.map_or(0, |after| after + 1)));
        let slots: Vec<Slot> = self.index.segment(segment).collect();
        slots.iter().for_each(|slot| self.records.prefetch(*slot));
        for slot in slots {
            let expiry = self.expiry(slot);
            if expiry.is_past(now.steady_ms) || self.sweep.is_due() && self.dead_reason(slot).is_some() {
                continue;
            }
            let view = self.records.view(slot, self.wheel.base_ms(), now.steady_ms);
            let tags: Vec<&str> = self.records.tags(slot).names().collect();
            visit(&Record::Put(Put {
                namespace: self.records.namespace(slot),
                key: self.records.key(slot),
                value: view.value,
                version: view.version,
                expiry,
                flags: view.flags,
                content_type: view.content_type,
                tags: &tags,
                request_id: "",
            }));
        }
        self.index.end_of(segment)
    }

    /// The time of a shard that is empty begins here.
    pub(in crate::engine) fn begin_at(&mut self, now: Now) {
        if self.index.len() == 0 {
            self.wheel = Wheel::new(now.steady_ms);
        }
        self.hot.begin_at(now);
    }

    /// Makes the index large enough for `entries` entries of `bytes_each` bytes each, or for as many of them as the
    /// shard has room for, if there is none yet.
    pub(in crate::engine) fn expect(&mut self, entries: u64, bytes_each: u64) {
        let fits = self.config.bytes_limit / bytes_each.max(ENTRY_BYTES_MIN);
        if self.index.len() == 0 {
            self.index = Index::with_room_for(entries.min(fits) as usize);
        }
    }

    pub(in crate::engine) fn request_records(&self) -> impl Iterator<Item = Record<'_>> {
        self.requests.records()
    }

    /// Applies a record of one key.
    pub(in crate::engine) fn restore(&mut self, record: &Record<'_>, key: KeyRef<'_>, now: Now) -> Restored {
        match record {
            Record::Put(put) => self.restore_put(put, key, now),
            Record::Remove { .. } => {
                self.restore_removed(key, MissReason::Deleted, now);
                Restored::Applied
            }
            Record::Expiry { expiry, .. } => {
                let Some(expiry) = yet_to_come(*expiry, now) else {
                    self.restore_removed(key, MissReason::Expired, now);
                    return Restored::Expired;
                };
                let Some(slot) = self.find_live(key, now) else { return Restored::Applied };
                self.touch_until(key, slot, expiry).map_or_else(Restored::Refused, |()| Restored::Applied)
            }
            Record::Counted { request_id, value, version, .. } => {
                let done = Done { key, request_id, value: *value, version: *version };
                self.remember(&done, now);
                Restored::Applied
            }
            _ => Restored::Applied,
        }
    }

    pub(super) fn restore_put(&mut self, put: &Put<'_>, key: KeyRef<'_>, now: Now) -> Restored {
        if !put.request_id.is_empty()
            && let Ok(text) = std::str::from_utf8(put.value.as_slice())
            && let Ok(value) = text.parse()
        {
            let done = Done { key, request_id: put.request_id, value, version: put.version };
            self.remember(&done, now);
        }
        let Some(expiry) = yet_to_come(put.expiry, now) else {
            self.restore_removed(key, MissReason::Expired, now);
            return Restored::Expired;
        };
        if let Err(refusal) = self.ensure_namespace(key.namespace) {
            return Restored::Refused(refusal);
        }
        let value = put.value.as_slice();
        let is_large = is_large(value, put.key, put.content_type, put.tags);
        let large = is_large.then(|| Bytes::copy_from_slice(value));
        let existing = self.find_live(key, now);
        let draft = RecordDraft {
            namespace: put.namespace,
            key: put.key,
            value: large.as_ref().map_or(DraftValue::Inline(value), DraftValue::Large),
            version: put.version,
            deadline: self.deadline(expiry),
            flags: put.flags,
            content_type: put.content_type,
            tags: DraftTags::Named(put.tags),
        };
        match self.store(&draft, key.hash, existing) {
            Ok(()) => {
                self.filter_tags(put.namespace, put.tags);
                Restored::Applied
            }
            Err(refusal) => {
                // What was there is older than what does not fit.
                self.restore_removed(key, MissReason::Evicted, now);
                Restored::Refused(refusal)
            }
        }
    }

    /// What was on disk will be asked for again.
    fn remember(&mut self, done: &Done<'_>, now: Now) {
        self.requests.keep_names();
        self.requests.remember(done, now.steady_ms);
    }

    fn restore_removed(&mut self, key: KeyRef<'_>, reason: MissReason, now: Now) {
        if let Some(slot) = self.find_live(key, now) {
            self.remove_entry(slot, key.hash);
        }
        self.eviction_log.insert(key.hash, reason);
    }
}

/// No entry takes less, its place in the index included.
const ENTRY_BYTES_MIN: u64 = 40;
/// No entry was ever given longer than 100 years.
const LEFT_MS_MAX: u64 = 200 * 365 * 86_400_000;

/// An expiry that was read, no further ahead than any was ever given; `None`: it is past.
fn yet_to_come(expiry: Expiry, now: Now) -> Option<Expiry> {
    match expiry {
        Expiry::Never => Some(Expiry::Never),
        Expiry::AtMs(at) if at <= now.steady_ms => None,
        Expiry::AtMs(at) => Some(Expiry::AtMs(at.min(now.steady_ms.saturating_add(LEFT_MS_MAX)))),
    }
}
