//! How a change is written: records, the same in formats 1 and 2 of the frames around them, for journal and snapshots alike.
//!
//! ```text
//! put        1 | attributes 1 | namespace 2 | key length 2 | value length 4 | version 8
//!              | [expires, steady ms, 8] [flags 4] [content type: length 2, text]
//!              | [tags: how many 1, each: length 2, text] [request id: length 2, text] | key | value
//! remove     2 | 0 | namespace 2 | key length 2 | key
//! expiry     3 | attributes | namespace 2 | key length 2 | [expires 8] | key
//! counted    4 | 0 | namespace 2 | key length 2 | id length 2 | value 8 | version 8 | key | id
//! invalid.   5 | scope (1 prefix, 2 tag, 3 all) | namespace 2 | length 2 | until 8 | prefix or tag
//! cleared    6 | 0 | namespace 2
//! namespace  7 | attributes | number 2 | name length 2 | policy length 2 | generation 8 | bytes limit 8 | default TTL, ms, 8
//!              | [near-cache TTL, ms, 8] | name | policy
//! deleted    8 | 0 | number 2
//! ```
//!
//! All numbers little-endian. A record says its own length; what lies around records ([`super::frame`]) says whether
//! they are as they were written. Reading checks every length, so that no bytes can make it panic. A field that is 0 or
//! empty is left out, which its attribute bit says; an unknown kind or bit is an error and never skipped.

use std::ops::Range;

use crate::engine::{NamespaceConfig, PolicyName, Put, Record, Scope, ValueView};
use crate::entry::{Expiry, TAGS_MAX, Ttl, Version};

const PUT: u8 = 1;
const REMOVE: u8 = 2;
const EXPIRY: u8 = 3;
const COUNTED: u8 = 4;
const INVALIDATED: u8 = 5;
const CLEARED: u8 = 6;
const NAMESPACE: u8 = 7;
const NAMESPACE_DELETED: u8 = 8;

const EXPIRES: u8 = 1;
const FLAGS: u8 = 2;
const CONTENT_TYPE: u8 = 4;
const TAGS: u8 = 8;
const REQUEST_ID: u8 = 16;
const ATTRIBUTES: u8 = EXPIRES | FLAGS | CONTENT_TYPE | TAGS | REQUEST_ID;

/// Of a namespace.
const NEAR_CACHE_TTL: u8 = 1;

const PREFIX: u8 = 1;
const TAG: u8 = 2;
const ALL: u8 = 3;

/// Why bytes are no records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record at byte {at} is malformed: {what}")]
pub struct Malformed {
    /// Where it begins.
    pub at: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Writes a record behind what is in the buffer; a value that is [`ValueView::Shared`] is left out, and belongs at the
/// end. Keys, texts and values are shorter than their lengths can say: limits see to that.
pub fn write(record: &Record<'_>, out: &mut Vec<u8>) {
    match record {
        Record::Put(put) => write_put(put, out),
        Record::Remove { namespace, key } => {
            head(out, REMOVE, 0, *namespace);
            put_len(out, key.len());
            out.extend_from_slice(key);
        }
        Record::Expiry { namespace, key, expiry } => {
            let attributes = if *expiry == Expiry::Never { 0 } else { EXPIRES };
            head(out, EXPIRY, attributes, *namespace);
            put_len(out, key.len());
            if let Expiry::AtMs(at) = expiry {
                out.extend_from_slice(&at.to_le_bytes());
            }
            out.extend_from_slice(key);
        }
        Record::Counted { namespace, key, request_id, value, version } => {
            head(out, COUNTED, 0, *namespace);
            put_len(out, key.len());
            put_len(out, request_id.len());
            out.extend_from_slice(&value.to_le_bytes());
            out.extend_from_slice(&version.0.to_le_bytes());
            out.extend_from_slice(key);
            out.extend_from_slice(request_id.as_bytes());
        }
        Record::Invalidated { namespace, scope, until } => {
            let (kind, what) = match scope {
                Scope::Prefix(prefix) => (PREFIX, *prefix),
                Scope::Tag(tag) => (TAG, tag.as_bytes()),
                Scope::All => (ALL, &[][..]),
            };
            head(out, INVALIDATED, kind, *namespace);
            put_len(out, what.len());
            out.extend_from_slice(&until.0.to_le_bytes());
            out.extend_from_slice(what);
        }
        Record::Cleared { namespace } => head(out, CLEARED, 0, *namespace),
        Record::Namespace { number, generation, config } => {
            head(out, NAMESPACE, if config.near_cache_ttl_ms == 0 { 0 } else { NEAR_CACHE_TTL }, *number);
            let policy = config.policy.as_str();
            put_len(out, config.name.len());
            put_len(out, policy.len());
            for number in [*generation, config.bytes_limit, config.default_ttl.to_wire_ms()] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            if config.near_cache_ttl_ms != 0 {
                out.extend_from_slice(&config.near_cache_ttl_ms.to_le_bytes());
            }
            out.extend_from_slice(config.name.as_bytes());
            out.extend_from_slice(policy.as_bytes());
        }
        Record::NamespaceDeleted { number } => head(out, NAMESPACE_DELETED, 0, *number),
    }
}

#[inline]
fn write_put(put: &Put<'_>, out: &mut Vec<u8>) {
    let value = put.value.as_slice();
    let mut attributes = 0;
    let mut mark = |present: bool, bit: u8| attributes |= if present { bit } else { 0 };
    mark(put.expiry != Expiry::Never, EXPIRES);
    mark(put.flags != 0, FLAGS);
    mark(!put.content_type.is_empty(), CONTENT_TYPE);
    mark(!put.tags.is_empty(), TAGS);
    mark(!put.request_id.is_empty(), REQUEST_ID);
    let mut fixed = [0; 18];
    (fixed[0], fixed[1]) = (PUT, attributes);
    fixed[2..4].copy_from_slice(&put.namespace.to_le_bytes());
    fixed[4..6].copy_from_slice(&(put.key.len() as u16).to_le_bytes());
    fixed[6..10].copy_from_slice(&(value.len() as u32).to_le_bytes());
    fixed[10..18].copy_from_slice(&put.version.0.to_le_bytes());
    out.extend_from_slice(&fixed);
    if attributes != 0 {
        write_attributes(put, out);
    }
    out.extend_from_slice(put.key);
    if let ValueView::Inline(value) = put.value {
        out.extend_from_slice(value);
    }
}

fn write_attributes(put: &Put<'_>, out: &mut Vec<u8>) {
    if let Expiry::AtMs(at) = put.expiry {
        out.extend_from_slice(&at.to_le_bytes());
    }
    if put.flags != 0 {
        out.extend_from_slice(&put.flags.to_le_bytes());
    }
    if !put.content_type.is_empty() {
        put_text(out, put.content_type);
    }
    if !put.tags.is_empty() {
        out.push(put.tags.len() as u8);
        put.tags.iter().for_each(|tag| put_text(out, tag));
    }
    if !put.request_id.is_empty() {
        put_text(out, put.request_id);
    }
}

fn head(out: &mut Vec<u8>, kind: u8, attributes: u8, namespace: u16) {
    let [low, high] = namespace.to_le_bytes();
    out.extend_from_slice(&[kind, attributes, low, high]);
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&(len as u16).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Reads records, one behind the other to the end, and visits each; how many there were.
///
/// # Errors
/// The bytes are no records; those before the one that is named were visited.
pub fn read(bytes: &[u8], mut visit: impl FnMut(&Record<'_>)) -> Result<u64, Malformed> {
    read_placed(bytes, |_, record| visit(record))
}

/// As [`read`], and says of each record where it begins and ends.
///
/// # Errors
/// As there.
#[inline]
pub fn read_placed(bytes: &[u8], mut visit: impl FnMut(Range<usize>, &Record<'_>)) -> Result<u64, Malformed> {
    let mut reader = Reader { rest: bytes };
    let mut records = 0;
    while !reader.rest.is_empty() {
        let at = bytes.len() - reader.rest.len();
        read_one(&mut reader, &mut |left, record| visit(at..bytes.len() - left, record))
            .map_err(|what| Malformed { at, what })?;
        records += 1;
    }
    Ok(records)
}

const SHORT: &str = "it ends too early";

/// Reads a record and visits it, with how many bytes are left behind it.
fn read_one(reader: &mut Reader<'_>, visit: &mut impl FnMut(usize, &Record<'_>)) -> Result<(), &'static str> {
    let [kind, attributes] = reader.array()?;
    let namespace = u16::from_le_bytes(reader.array()?);
    let known = match kind {
        PUT => ATTRIBUTES,
        EXPIRY => EXPIRES,
        // A scope, which is looked at there.
        INVALIDATED => u8::MAX,
        NAMESPACE => NEAR_CACHE_TTL,
        _ => 0,
    };
    if attributes & !known != 0 {
        return Err("an attribute that no record of its kind has");
    }
    match kind {
        PUT => return read_put(reader, attributes, namespace, visit),
        REMOVE => {
            let len = reader.len()?;
            let key = reader.take(len)?;
            visit(reader.rest.len(), &Record::Remove { namespace, key });
        }
        EXPIRY => {
            let len = reader.len()?;
            let expiry = if attributes == 0 { Expiry::Never } else { Expiry::AtMs(reader.u64()?) };
            let key = reader.take(len)?;
            visit(reader.rest.len(), &Record::Expiry { namespace, key, expiry });
        }
        COUNTED => {
            let (key_len, id_len) = (reader.len()?, reader.len()?);
            let (value, version) = (reader.u64()? as i64, Version(reader.u64()?));
            let key = reader.take(key_len)?;
            let request_id = text(reader.take(id_len)?)?;
            visit(reader.rest.len(), &Record::Counted { namespace, key, request_id, value, version });
        }
        INVALIDATED => {
            let len = reader.len()?;
            let until = Version(reader.u64()?);
            let what = reader.take(len)?;
            let scope = match attributes {
                PREFIX => Scope::Prefix(what),
                TAG => Scope::Tag(text(what)?),
                ALL if what.is_empty() => Scope::All,
                _ => return Err("a scope that is not known"),
            };
            visit(reader.rest.len(), &Record::Invalidated { namespace, scope, until });
        }
        CLEARED => visit(reader.rest.len(), &Record::Cleared { namespace }),
        NAMESPACE => {
            let (name_len, policy_len) = (reader.len()?, reader.len()?);
            let (generation, bytes_limit) = (reader.u64()?, reader.u64()?);
            let default_ttl = Ttl::from_wire_ms(reader.u64()?);
            let near_cache_ttl_ms = if attributes == 0 { 0 } else { reader.u64()? };
            let name = text(reader.take(name_len)?)?.to_owned();
            let policy = text(reader.take(policy_len)?)?;
            let policy: PolicyName = policy.parse().map_err(|_| "a policy that is not known")?;
            let config = NamespaceConfig { name, bytes_limit, policy, default_ttl, near_cache_ttl_ms };
            visit(reader.rest.len(), &Record::Namespace { number: namespace, generation, config: &config });
        }
        NAMESPACE_DELETED => visit(reader.rest.len(), &Record::NamespaceDeleted { number: namespace }),
        _ => return Err("a kind that is not known"),
    }
    Ok(())
}

#[inline]
fn read_put(
    reader: &mut Reader<'_>,
    attributes: u8,
    namespace: u16,
    visit: &mut impl FnMut(usize, &Record<'_>),
) -> Result<(), &'static str> {
    let key_len = reader.len()?;
    let value_len = u32::from_le_bytes(reader.array()?) as usize;
    let version = Version(reader.u64()?);
    let expiry = if attributes & EXPIRES == 0 { Expiry::Never } else { Expiry::AtMs(reader.u64()?) };
    let flags = if attributes & FLAGS == 0 { 0 } else { u32::from_le_bytes(reader.array()?) };
    let content_type = if attributes & CONTENT_TYPE == 0 { "" } else { reader.text()? };
    let mut tags = [""; TAGS_MAX];
    let mut tag_count = 0;
    if attributes & TAGS != 0 {
        let [count] = reader.array()?;
        tag_count = usize::from(count);
        for tag in tags.get_mut(..tag_count).ok_or("too many tags")? {
            *tag = reader.text()?;
        }
    }
    let request_id = if attributes & REQUEST_ID == 0 { "" } else { reader.text()? };
    let key = reader.take(key_len)?;
    let value = ValueView::Inline(reader.take(value_len)?);
    let tags = &tags[..tag_count];
    visit(
        reader.rest.len(),
        &Record::Put(Put { namespace, key, value, version, expiry, flags, content_type, tags, request_id }),
    );
    Ok(())
}

fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(bytes).map_err(|_| "a text that is not UTF-8")
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    fn u64(&mut self) -> Result<u64, &'static str> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    fn len(&mut self) -> Result<usize, &'static str> {
        self.array().map(u16::from_le_bytes).map(usize::from)
    }

    fn text(&mut self) -> Result<&'a str, &'static str> {
        let len = self.len()?;
        text(self.take(len)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind(mut with: impl FnMut(&Record<'_>)) {
        let config = NamespaceConfig {
            name: "sessions".to_owned(),
            bytes_limit: 1 << 30,
            policy: PolicyName::Sieve,
            default_ttl: Ttl::Ms(5_000),
            near_cache_ttl_ms: 700,
        };
        let plain = Put {
            namespace: 0,
            key: b"k",
            value: ValueView::Inline(b""),
            version: Version(7),
            expiry: Expiry::Never,
            flags: 0,
            content_type: "",
            tags: &[],
            request_id: "",
        };
        with(&Record::Put(plain));
        with(&Record::Put(Put {
            namespace: 9,
            value: ValueView::Inline(&[7; 300]),
            expiry: Expiry::AtMs(u64::MAX),
            flags: 5,
            content_type: "text/plain",
            tags: &["a", "bc"],
            request_id: "once",
            ..plain
        }));
        with(&Record::Remove { namespace: 1, key: b"gone" });
        with(&Record::Expiry { namespace: 1, key: b"key", expiry: Expiry::AtMs(12) });
        with(&Record::Expiry { namespace: 1, key: b"key", expiry: Expiry::Never });
        let version = Version(3);
        with(&Record::Counted { namespace: 2, key: b"n", request_id: "id", value: -5, version });
        for scope in [Scope::All, Scope::Prefix(b"user:"), Scope::Tag("hot")] {
            with(&Record::Invalidated { namespace: 3, scope, until: Version(99) });
        }
        with(&Record::Cleared { namespace: 0 });
        with(&Record::Namespace { number: 4, generation: 17, config: &config });
        with(&Record::NamespaceDeleted { number: 4 });
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let (mut bytes, mut written) = (Vec::new(), Vec::new());
        every_kind(|record| {
            write(record, &mut bytes);
            written.push(format!("{record:?}"));
        });
        let mut seen = Vec::new();
        let count = read(&bytes, |record| seen.push(format!("{record:?}"))).unwrap();
        assert_eq!(count, written.len() as u64);
        assert_eq!(seen, written);
    }

    #[test]
    fn a_record_that_is_cut_or_of_no_known_kind_is_an_error_and_no_panic() {
        every_kind(|record| {
            let mut bytes = Vec::new();
            write(record, &mut bytes);
            for len in 1..bytes.len() {
                assert!(read(&bytes[..len], |_| {}).is_err(), "{record:?} cut to {len}");
            }
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    let mut bent = bytes.clone();
                    bent[at] ^= 1 << bit;
                    let _ = read(&bent, |_| {});
                }
            }
        });
        assert!(read(&[0, 0, 0, 0], |_| {}).is_err());
        assert!(read(&[REMOVE, 1, 0, 0, 0, 0], |_| {}).is_err(), "an attribute that does not belong");
    }

    #[test]
    fn a_shared_value_is_left_out_for_its_owner_to_append() {
        let value = bytes::Bytes::from(vec![3; 5_000]);
        let put = Put {
            namespace: 0,
            key: b"large",
            value: ValueView::Shared(&value),
            version: Version(1),
            expiry: Expiry::Never,
            flags: 0,
            content_type: "",
            tags: &[],
            request_id: "",
        };
        let (mut apart, mut whole) = (Vec::new(), Vec::new());
        write(&Record::Put(put), &mut apart);
        write(&Record::Put(Put { value: ValueView::Inline(&value), ..put }), &mut whole);
        apart.extend_from_slice(&value);
        assert_eq!(apart, whole);
    }
}
