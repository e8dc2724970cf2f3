//! A Watch's messages as bytes, framed: events as they lie in the log, heartbeats, and which events a filter lets through.
//!
//! ```text
//! event, in its frame
//! ┌────────────┬────┬─────────────┬────┬────────┬────┬──────────┬────┬──────────┬────┬────────────┬──────────────┐
//! │ prefix (5) │ 09 │ incarnation │ 10 │ shard  │ 19 │ sequence │ 21 │ previous │ 2a │ its length │ Invalidation │
//! │            │    │ 8           │    │ varint │    │ 8        │    │ 8        │    │ varint     │              │
//! └────────────┴────┴─────────────┴────┴────────┴────┴──────────┴────┴──────────┴────┴────────────┴──────────────┘
//! ```
//!
//! The numbers are there also where they are 0, so that each has its place: for a watcher that was not told the event
//! before, `previous` is written over and the rest stays.

use crate::engine::{Event, EventScope};
use crate::grpc::frame::{PREFIX, put_prefix};
use crate::proto::v1;
use crate::proto::wire::{Reader, field_len, nonzero_len, put_bytes, put_head, put_number, varint_len};
use crate::service::keyspace::framed;

const INCARNATION: u8 = 0x09;
const SHARD: u8 = 0x10;
const SEQUENCE: u8 = 0x19;
const PREVIOUS: u8 = 0x21;
const INVALIDATION: u32 = 5;
const HEARTBEAT: u32 = 6;
/// Where the shard stands in a frame.
const SHARD_AT: usize = PREFIX + 9 + 1;
/// What a number of eight bytes takes with its key.
const FIXED64_LEN: usize = 9;

/// Fields of an Invalidation.
mod field {
    pub(super) const NAMESPACE: u32 = 1;
    pub(super) const KEY: u32 = 2;
    pub(super) const PREFIX: u32 = 3;
    pub(super) const TAG: u32 = 4;
    pub(super) const ALL: u32 = 5;
    /// The key of the version, a number of eight bytes.
    pub(super) const VERSION: u8 = 6 << 3 | 1;
}

/// Where a shard is in the messages about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) incarnation: u64,
    pub(super) shard: u32,
    pub(super) sequence: u64,
    pub(super) previous: u64,
}

impl Place {
    fn len(&self) -> usize {
        3 * FIXED64_LEN + 1 + varint_len(u64::from(self.shard))
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_fixed64(out, INCARNATION, self.incarnation);
        put_number(out, u32::from(SHARD >> 3), u64::from(self.shard));
        put_fixed64(out, SEQUENCE, self.sequence);
        put_fixed64(out, PREVIOUS, self.previous);
    }
}

fn put_fixed64(out: &mut Vec<u8>, key: u8, value: u64) {
    out.push(key);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Writes an event, for one who was told the event before it.
pub(super) fn put_event(out: &mut Vec<u8>, incarnation: u64, event: &Event<'_>) {
    let (scope, text) = match event.scope {
        EventScope::Key(key) => (field::KEY, key),
        EventScope::Prefix(prefix) => (field::PREFIX, prefix),
        EventScope::Tag(tag) => (field::TAG, tag.as_bytes()),
        EventScope::All => (field::ALL, &[][..]),
    };
    let namespace = if event.namespace.is_empty() { 0 } else { field_len(event.namespace.len()) };
    let scope_len = if scope == field::ALL { 2 } else { field_len(text.len()) };
    let invalidation = namespace + scope_len + FIXED64_LEN;
    let (shard, sequence) = (event.shard, event.sequence);
    let place = Place { incarnation, shard, sequence, previous: sequence - 1 };
    put_prefix(out, place.len() + field_len(invalidation));
    place.put(out);
    put_head(out, INVALIDATION, invalidation);
    if namespace > 0 {
        put_bytes(out, field::NAMESPACE, event.namespace.as_bytes());
    }
    match scope {
        field::ALL => put_number(out, scope, 1),
        _ => put_bytes(out, scope, text),
    }
    put_fixed64(out, field::VERSION, event.until.0);
}

/// Writes a heartbeat.
pub(super) fn put_heartbeat(out: &mut Vec<u8>, place: Place, shards: u32, interval_ms: u64) {
    let heartbeat = nonzero_len(u64::from(shards)) + nonzero_len(interval_ms);
    put_prefix(out, place.len() + field_len(heartbeat));
    place.put(out);
    put_head(out, HEARTBEAT, heartbeat);
    put_number(out, 1, u64::from(shards));
    put_number(out, 2, interval_ms);
}

/// A message that says that events are missing.
pub(super) fn discontinuity(incarnation: u64, reason: v1::DiscontinuityReason) -> Vec<u8> {
    let event = v1::watch_response::Event::Discontinuity(v1::Discontinuity { reason: reason as i32 });
    framed(&v1::WatchResponse { incarnation, event: Some(event), ..v1::WatchResponse::default() })
}

/// An event in its frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventFrame<'a> {
    bytes: &'a [u8],
    pub(super) sequence: u64,
    sequence_at: usize,
}

impl<'a> EventFrame<'a> {
    /// Takes the first of the frames that [`put_event`] has written one behind the other.
    pub(super) fn take(frames: &mut &'a [u8]) -> Option<Self> {
        let length: [u8; 4] = frames.get(1..PREFIX)?.try_into().ok()?;
        let (bytes, rest) = frames.split_at_checked(PREFIX + u32::from_be_bytes(length) as usize)?;
        *frames = rest;
        let shard_len = bytes.get(SHARD_AT..)?.iter().position(|byte| *byte < 0x80)? + 1;
        let sequence_at = SHARD_AT + shard_len + 1;
        let sequence = bytes.get(sequence_at..sequence_at + 8)?.try_into().ok()?;
        Some(Self { bytes, sequence: u64::from_le_bytes(sequence), sequence_at })
    }

    /// Writes it, for one who was told `previous` last.
    pub(super) fn put_after(&self, out: &mut Vec<u8>, previous: u64) {
        let at = out.len() + self.sequence_at + FIXED64_LEN;
        out.extend_from_slice(self.bytes);
        out[at..at + 8].copy_from_slice(&previous.to_le_bytes());
    }

    fn invalidation(&self) -> &'a [u8] {
        let mut rest = Reader::unlimited(&self.bytes[self.sequence_at + 8 + FIXED64_LEN..]);
        match rest.next() {
            Ok(Some((INVALIDATION, field))) => field.bytes(INVALIDATION).unwrap_or_default(),
            _ => &[],
        }
    }
}

/// Which events a watcher asked for.
#[derive(Debug)]
pub(super) struct Filter {
    /// None: all.
    pub(super) namespaces: Vec<String>,
    pub(super) prefix: Vec<u8>,
}

impl Filter {
    /// Whether an event may cover what was asked for.
    pub(super) fn passes(&self, event: &EventFrame<'_>) -> bool {
        let (mut namespace, mut may_cover) = ("", true);
        let mut fields = Reader::unlimited(event.invalidation());
        while let Ok(Some((number, field))) = fields.next() {
            match number {
                field::NAMESPACE => namespace = field.text(number).unwrap_or_default(),
                field::KEY => {
                    may_cover = field.bytes(number).is_ok_and(|key| key.starts_with(&self.prefix));
                }
                field::PREFIX => {
                    let prefix = field.bytes(number).unwrap_or_default();
                    may_cover = prefix.starts_with(&self.prefix) || self.prefix.starts_with(prefix);
                }
                _ => {}
            }
        }
        may_cover && (self.namespaces.is_empty() || self.namespaces.iter().any(|known| known == namespace))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use v1::invalidation::Scope;

    use super::*;
    use crate::entry::Version;

    fn read(frame: &[u8]) -> v1::WatchResponse {
        v1::WatchResponse::decode(&frame[PREFIX..]).unwrap()
    }

    fn event<'a>(namespace: &'a str, scope: EventScope<'a>) -> Event<'a> {
        Event { shard: 300, sequence: 1, namespace, scope, until: Version(u64::MAX - 1) }
    }

    #[test]
    fn an_event_is_what_the_contract_says_and_can_be_told_after_another() {
        let scopes = [
            (EventScope::Key(b"k\0"), Scope::Key("k\0".into())),
            (EventScope::Prefix(b"p"), Scope::Prefix("p".into())),
            (EventScope::Tag("t"), Scope::Tag("t".to_owned())),
            (EventScope::All, Scope::All(true)),
        ];
        let mut frames = Vec::new();
        for (scope, _) in &scopes {
            put_event(&mut frames, 7, &event("n", *scope));
        }
        let mut rest = &frames[..];
        for (_, scope) in scopes {
            let frame = EventFrame::take(&mut rest).unwrap();
            assert_eq!(frame.sequence, 1);
            for previous in [0, 5] {
                let mut out = vec![1, 2];
                frame.put_after(&mut out, previous);
                let invalidation = v1::Invalidation {
                    namespace: "n".to_owned(),
                    scope: Some(scope.clone()),
                    version: u64::MAX - 1,
                };
                let expected = v1::WatchResponse {
                    incarnation: 7,
                    shard: 300,
                    sequence: 1,
                    previous_sequence: previous,
                    event: Some(v1::watch_response::Event::Invalidation(invalidation)),
                };
                assert_eq!(read(&out[2..]), expected);
            }
        }
        assert!(rest.is_empty() && EventFrame::take(&mut rest).is_none());
    }

    #[test]
    fn a_heartbeat_is_what_the_contract_says() {
        let mut out = Vec::new();
        put_heartbeat(&mut out, Place { incarnation: 7, shard: 0, sequence: 9, previous: 4 }, 32, 1_000);
        let heartbeat = v1::Heartbeat { shards: 32, interval_ms: 1_000 };
        let event = Some(v1::watch_response::Event::Heartbeat(heartbeat));
        let expected =
            v1::WatchResponse { incarnation: 7, shard: 0, sequence: 9, previous_sequence: 4, event };
        assert_eq!(read(&out), expected);
    }

    #[test]
    fn a_filter_lets_through_what_may_cover_what_was_asked_for() {
        let filter = |namespaces: &[&str], prefix: &str| Filter {
            namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
            prefix: prefix.into(),
        };
        let key = EventScope::Key(b"user:1");
        for (filter, namespace, scope, passes) in [
            (filter(&[], ""), "n", key, true),
            (filter(&["n", ""], ""), "n", key, true),
            (filter(&["n", ""], ""), "", key, true),
            (filter(&["n", ""], ""), "m", key, false),
            (filter(&[], "user:"), "n", key, true),
            (filter(&[], "order:"), "n", key, false),
            (filter(&[], "user:"), "n", EventScope::Prefix(b"us"), true),
            (filter(&[], "user:"), "n", EventScope::Prefix(b"user:12"), true),
            (filter(&[], "user:"), "n", EventScope::Prefix(b"o"), false),
            (filter(&[], "user:"), "n", EventScope::Tag("t"), true),
            (filter(&[], "user:"), "n", EventScope::All, true),
            (filter(&["m"], "user:"), "n", EventScope::All, false),
        ] {
            let mut frames = Vec::new();
            put_event(&mut frames, 7, &event(namespace, scope));
            let frame = EventFrame::take(&mut &frames[..]).unwrap();
            assert_eq!(filter.passes(&frame), passes, "{filter:?} {namespace:?} {scope:?}");
        }
    }
}
