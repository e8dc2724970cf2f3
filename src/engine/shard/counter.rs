//! Counters: entries whose bytes are a decimal integer of 64 bits, as in Redis.

use super::{KeyRef, Shard};
use crate::clock::Now;
use crate::engine::VersionClock;
use crate::engine::log::{Put, Record};
use crate::engine::op::{Increment, Outcome, Refusal, ValueView};
use crate::engine::record::{DraftValue, RecordDraft};
use crate::engine::request_ids::Done;
use crate::engine::tags::{DraftTags, PackedTags};
use crate::entry::Expiry;

impl Shard {
    /// Adds to a counter; a missing one counts as `initial`, one that exists keeps its time to live.
    pub(in crate::engine) fn increment(
        &mut self,
        increment: &Increment<'_>,
        key: KeyRef<'_>,
        versions: &VersionClock,
        now: Now,
    ) -> Outcome {
        if let Err(refusal) = self.takes_writes().and_then(|()| self.ensure_namespace(key.namespace)) {
            return Outcome::Refused(refusal);
        }
        self.note_change(key);
        let hash = key.hash;
        if !increment.request_id.is_empty()
            && let Some((value, version)) = self.requests.done(hash, increment.request_id, now.steady_ms)
        {
            return Outcome::Counted { value, version };
        }
        let existing = self.find_live(key, now);
        let (current, expiry, flags, content_type) = match existing {
            None => {
                let default_ttl = key.namespace.default_ttl();
                let expiry = self.expiry_for(increment.expiration, default_ttl, None, now);
                (Some(increment.initial), expiry, 0, String::new())
            }
            Some(slot) => {
                let view = self.view(slot, now);
                let value = parse(view.value.as_slice());
                (value, Some(self.expiry(slot)), view.flags, view.content_type.to_owned())
            }
        };
        let Some(current) = current else { return Outcome::Refused(Refusal::NotAnInteger) };
        let Ok(value) = i64::try_from(i128::from(current) + increment.delta) else {
            return Outcome::Refused(Refusal::CounterOverflow { current });
        };
        let Some(expiry) = expiry else {
            // The time is past that it was to expire at: nothing is there before and after.
            return Outcome::Expired;
        };
        let Some(version) = versions.next(now) else { return Outcome::Refused(Refusal::NoVersion) };
        let text = value.to_string();
        let tags = existing.map_or_else(Vec::new, |slot| self.records.tags(slot).to_vec());
        let tags = PackedTags::of(&tags);
        let draft = RecordDraft {
            namespace: key.namespace.number(),
            key: increment.key,
            value: DraftValue::Inline(text.as_bytes()),
            version,
            deadline: self.deadline(expiry),
            flags,
            content_type: &content_type,
            tags: DraftTags::Packed(tags),
        };
        if let Err(refusal) = self.store(&draft, hash, existing) {
            return Outcome::Refused(refusal);
        }
        self.counts(key.namespace).increments += 1;
        self.log_counted(key, &draft, tags, increment.request_id, expiry);
        if !increment.request_id.is_empty() {
            let done = Done { key, request_id: increment.request_id, value, version };
            self.requests.remember(&done, now.steady_ms);
        }
        Outcome::Counted { value, version }
    }
}

impl Shard {
    fn log_counted(
        &mut self,
        key: KeyRef<'_>,
        draft: &RecordDraft<'_>,
        tags: PackedTags<'_>,
        request_id: &str,
        expiry: Expiry,
    ) {
        let (true, DraftValue::Inline(value)) = (self.changes.are_followed(), draft.value) else { return };
        let put = Put {
            namespace: draft.namespace,
            key: draft.key,
            value: ValueView::Inline(value),
            version: draft.version,
            expiry,
            flags: draft.flags,
            content_type: draft.content_type,
            tags: &tags.names().collect::<Vec<_>>(),
            request_id,
        };
        self.changes.add(key.namespace, &Record::Put(put), Some(draft.version));
    }
}

/// A 64-bit integer exactly as it would be printed: no plus, blanks or leading zeros.
fn parse(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => digits.len() == text.len(),
        [first, ..] => first.is_ascii_digit() && *first != b'0',
        [] => false,
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn only_integers_as_they_are_printed_count() {
        for good in [0, 7, -7, i64::MAX, i64::MIN] {
            assert_eq!(parse(good.to_string().as_bytes()), Some(good));
        }
        for bad in
            ["", "-", "-0", "+1", "01", " 1", "1 ", "1.0", "0x1", "9223372036854775808", "ten", "\u{0661}"]
        {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
