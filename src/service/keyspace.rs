//! Scan and Invalidate: what is asked of a namespace as a whole. Neither is hot, so the generated messages do.
//!
//! ```text
//! page token, 21 or 29 bytes, big-endian
//! ┌──────────┬──────────────┬──────────────────────────────────┬───────────┬──────────────────┐
//! │ form (1) │ cache id (8) │ XXH64 of namespace, 0, prefix (8)│ shard (4) │ place in it, (8) │
//! └──────────┴──────────────┴──────────────────────────────────┴───────────┴──────────────────┘
//! ```
//!
//! The order of a scan comes of the engine's hashes, which are seeded in each process: a token is worth something
//! only where it came from.

use std::ops::ControlFlow;

use bytes::Bytes;
use prost::Message;

use super::data::Plane;
use super::response_backlog::ResponsePermit;
use super::turns::Turns;
use super::unary::{Answered, flushes, namespace};
use crate::cache::{Cache, TierReadError};
use crate::clock::Now;
use crate::engine::{EntryView, ScanCursor, ScanRange, Scope};
use crate::grpc::frame::{PREFIX, finish};
use crate::proto::v1::{self, invalidate_request};
use crate::service::codec::convert;
use crate::service::error::CallError;

const PAGE_SIZE_DEFAULT: usize = 1_000;
/// Entries that a page looks at before it ends, be it empty: some milliseconds of work.
const ENTRIES_PER_PAGE: usize = 20_000;
/// Entries that are looked at before others may run.
const ENTRIES_PER_STEP: usize = 250;
/// What an item takes in the page beside its own bytes.
const ITEM_HEAD_BYTES: usize = 6;
const TOKEN_FORM: u8 = 1;
/// Without and with a place in the shard.
const TOKEN_BYTES: [usize; 2] = [21, 29];

/// Answers a Scan.
pub(super) async fn scan(plane: &Plane, request: &v1::ScanRequest, mut turns: Turns) -> Answered {
    let cache = &*plane.cache;
    let limits = &cache.limits();
    let (bytes, max) = (request.prefix.len(), limits.key_bytes_max);
    if bytes > max {
        return Err(CallError::KeyTooLong { field: "prefix".to_owned(), bytes, max });
    }
    let namespace = namespace(cache, &request.namespace)?;
    let token = Token::of(cache, request);
    let mut after = token.cursor(&request.page_token)?;
    let mut page = Page {
        items: Vec::new(),
        wanted: page_size(request.page_size, limits.batch_items_max),
        keys_only: request.keys_only,
        bytes: 0,
        room: limits.message_out_bytes_max.saturating_sub(TOKEN_BYTES[1] + ITEM_HEAD_BYTES),
        held: plane.response_backlog.take(0)?,
        refused: None,
        is_full: false,
    };
    let mut looked_at = 0;
    let next = loop {
        let range = ScanRange { prefix: &request.prefix, after, entries_max: ENTRIES_PER_STEP };
        let next = cache.scan(&namespace, range, cache.now(), |key, entry| page.take(key, &entry));
        after = next.map_err(unreadable)?;
        looked_at += ENTRIES_PER_STEP;
        if page.is_full || after.is_none() || looked_at >= ENTRIES_PER_PAGE {
            break after;
        }
        turns.pass().await;
    };
    if let Some(error) = page.refused {
        return Err(error);
    }
    if page.is_full && page.items.is_empty() {
        let max = limits.message_out_bytes_max;
        return Err(CallError::AnswerTooLarge { answered: 0, keys: 1, max });
    }
    let next_page_token = next.map(|cursor| token.at(cursor)).unwrap_or_default();
    let response = v1::ScanResponse { items: page.items, next_page_token };
    Ok((page.held.count_in(framed(&response))?.into(), false))
}

/// A page that is being filled.
struct Page {
    items: Vec<v1::scan_response::Item>,
    /// How many items there are to be.
    wanted: usize,
    keys_only: bool,
    /// The items' bytes, and how many there may be.
    bytes: usize,
    room: usize,
    held: ResponsePermit,
    refused: Option<CallError>,
    /// No more finds room.
    is_full: bool,
}

impl Page {
    fn take(&mut self, key: &[u8], entry: &EntryView<'_>) -> ControlFlow<()> {
        let value = entry.value.as_slice();
        let value_bytes = if self.keys_only { 0 } else { value.len() };
        let hit = v1::Hit {
            version: entry.version.0,
            remaining_ttl_ms: entry.remaining_ttl_ms,
            flags: entry.flags,
            content_type: entry.content_type.to_owned(),
            tier: convert::tier(entry.tier) as i32,
            value_bytes: value.len() as u64,
            ..v1::Hit::default()
        };
        let mut item = v1::scan_response::Item { key: Bytes::copy_from_slice(key), entry: Some(hit) };
        let size = item.encoded_len() + value_bytes + 2 * ITEM_HEAD_BYTES;
        if self.items.len() == self.wanted || self.bytes + size > self.room {
            self.is_full = true;
            return ControlFlow::Break(());
        }
        if let Err(error) = self.held.grow_to(self.bytes + size) {
            (self.refused, self.is_full) = (Some(error), true);
            return ControlFlow::Break(());
        }
        if let (false, Some(hit)) = (self.keys_only, item.entry.as_mut()) {
            hit.value = entry.value.to_bytes();
        }
        self.bytes += size;
        self.items.push(item);
        ControlFlow::Continue(())
    }
}

/// Answers an Invalidate.
pub(super) fn invalidate(cache: &Cache, now: Now, request: &v1::InvalidateRequest) -> Answered {
    use invalidate_request::Scope as AskedScope;
    let limits = &cache.limits();
    let namespace = namespace(cache, &request.namespace)?;
    let scope = match &request.scope {
        None => {
            let why = "say what to drop: a prefix, a tag, or all".to_owned();
            return Err(CallError::Invalid { field: "scope", why });
        }
        Some(AskedScope::Prefix(prefix)) if prefix.is_empty() => {
            let why = "it is empty: to drop everything, say all".to_owned();
            return Err(CallError::Invalid { field: "prefix", why });
        }
        Some(AskedScope::Prefix(prefix)) => {
            Scope::Prefix(convert::key(prefix, limits, || "prefix".to_owned())?)
        }
        Some(AskedScope::Tag(tag)) => {
            convert::tag(tag, limits, || "tag".to_owned())?;
            Scope::Tag(tag)
        }
        Some(AskedScope::All(false)) => return Err(CallError::FalseInOneof { field: "all" }),
        Some(AskedScope::All(true)) => Scope::All,
    };
    let flush = flushes(cache, 0)?;
    if cache.is_poisoned() {
        return Err(CallError::JournalPoisoned);
    }
    let generation =
        cache.invalidate(&namespace, scope, now).map_err(|refusal| CallError::refused(refusal, 0))?;
    Ok((framed(&v1::InvalidateResponse { generation }).into(), flush))
}

/// What a page token must agree with.
struct Token {
    cache: u64,
    range: u64,
}

impl Token {
    fn of(cache: &Cache, request: &v1::ScanRequest) -> Self {
        let mut range = request.namespace.as_bytes().to_vec();
        range.push(0);
        range.extend_from_slice(&request.prefix);
        Self { cache: cache.id(), range: xxhash_rust::xxh64::xxh64(&range, 0) }
    }

    fn at(&self, cursor: ScanCursor) -> Bytes {
        let mut token = vec![TOKEN_FORM];
        token.extend_from_slice(&self.cache.to_be_bytes());
        token.extend_from_slice(&self.range.to_be_bytes());
        token.extend_from_slice(&cursor.shard.to_be_bytes());
        token.extend(cursor.after.iter().flat_map(|after| after.to_be_bytes()));
        token.into()
    }

    /// Where a token says that the page before ended; an empty one is the beginning.
    fn cursor(&self, token: &[u8]) -> Result<Option<ScanCursor>, CallError> {
        if token.is_empty() {
            return Ok(None);
        }
        let number = |at: usize| {
            let bytes = token.get(at..at + 8)?;
            Some(u64::from_be_bytes(bytes.try_into().ok()?))
        };
        let known = TOKEN_BYTES.contains(&token.len()) && token[0] == TOKEN_FORM;
        let shard = token.get(17..21).and_then(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?)));
        let (true, Some(cache), Some(range), Some(shard)) = (known, number(1), number(9), shard) else {
            return Err(bad_token("it is none that a node gave"));
        };
        if cache != self.cache {
            return Err(bad_token(
                "it is of another node, or of this one before it was restarted: begin anew",
            ));
        }
        if range != self.range {
            return Err(bad_token("it is of a scan of another namespace or prefix"));
        }
        Ok(Some(ScanCursor { shard, after: number(21) }))
    }
}

/// How many items a page may have.
pub(super) fn page_size(asked: u32, max: usize) -> usize {
    let asked = if asked == 0 { PAGE_SIZE_DEFAULT } else { asked as usize };
    asked.min(max)
}

pub(super) fn bad_token(why: &str) -> CallError {
    CallError::Invalid { field: "page_token", why: why.to_owned() }
}

fn unreadable(error: TierReadError) -> CallError {
    match error {
        TierReadError::Stopped(_) => CallError::JournalPoisoned,
        error if error.is_passing() => CallError::Shortage { why: error.to_string() },
        error => CallError::DiskFailed { why: error.to_string() },
    }
}

pub(super) fn framed_bytes(message: &impl Message) -> Bytes {
    framed(message).into()
}

pub(super) fn framed(message: &impl Message) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREFIX + message.encoded_len());
    out.resize(PREFIX, 0);
    message.encode(&mut out).expect("a vector grows");
    finish(&mut out, 0);
    out
}
