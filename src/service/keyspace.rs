//! Scan and Invalidate: what is asked of a namespace as a whole. Neither is hot, so the generated messages do.

use std::ops::ControlFlow;

use bytes::Bytes;
use prost::Message;

use super::data::Plane;
use super::response_backlog::ResponsePermit;
use super::turns::Turns;
use super::unary::{Answered, flushes, namespace};
use crate::cache::{Cache, TierReadError};
use crate::clock::Now;
use crate::engine::{EntryView, Namespace, ScanRange};
use crate::grpc::frame::{PREFIX, finish};
use crate::proto::v1;
use crate::request::CallError;
use crate::request::convert;
use crate::request::page::{PAGE_TOKEN_BYTES_MAX, PageToken, page_size};

/// Entries that a page looks at before it ends, be it empty: some milliseconds of work.
const ENTRIES_PER_PAGE: usize = 20_000;
/// Entries that are looked at before others may run.
const ENTRIES_PER_STEP: usize = 250;
/// What an item takes in the page beside its own bytes.
const ITEM_HEAD_BYTES: usize = 6;

/// Answers a Scan.
pub(super) async fn scan(plane: &Plane, request: &v1::ScanRequest, mut turns: Turns) -> Answered {
    let cache = &*plane.cache;
    let limits = &cache.limits();
    let prefix = convert::prefix(&request.prefix, limits)?;
    let namespace = namespace(cache, &request.namespace)?;
    let token = PageToken::of(cache.id(), &request.namespace, &request.prefix);
    let mut after = token.cursor(&request.page_token)?;
    let mut page = Page {
        items: Vec::new(),
        wanted: page_size(request.page_size, limits.batch_items_max),
        keys_only: request.keys_only,
        bytes: 0,
        room: limits.message_out_bytes_max.saturating_sub(PAGE_TOKEN_BYTES_MAX + ITEM_HEAD_BYTES),
        held: plane.response_backlog.take(0)?,
        refused: None,
        is_full: false,
    };
    let mut looked_at = 0;
    let next = loop {
        let range = ScanRange { prefix, after, entries_max: ENTRIES_PER_STEP };
        let next =
            cache.scan(&namespace, range, cache.now(), |key, entry| page.take(&namespace, key, &entry));
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
    fn take(&mut self, namespace: &Namespace, key: &[u8], entry: &EntryView<'_>) -> ControlFlow<()> {
        let value = entry.value.as_slice();
        let value_bytes = if self.keys_only { 0 } else { value.len() };
        let hit = v1::Hit {
            version: entry.version.0,
            remaining_ttl_ms: entry.remaining_ttl_ms,
            flags: entry.flags,
            content_type: entry.content_type.to_owned(),
            tier: convert::tier(entry.tier) as i32,
            near_cache_ttl_ms: namespace.near_cache_ttl_ms(entry.remaining_ttl_ms),
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
    let namespace = namespace(cache, &request.namespace)?;
    let scope = convert::scope(request.scope.as_ref(), &cache.limits())?;
    let flush = flushes(cache, 0)?;
    if cache.is_poisoned() {
        return Err(CallError::JournalPoisoned);
    }
    let generation =
        cache.invalidate(&namespace, scope, now).map_err(|refusal| CallError::refused(refusal, 0))?;
    Ok((framed(&v1::InvalidateResponse { generation }).into(), flush))
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
