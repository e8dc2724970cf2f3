//! How and where a request is done: what a call asks before it does anything. A unary request of keys that other nodes own
//! is to turn off here; a Pipeline's commands, in `pipeline::commands`.

use super::request::{BatchKind, Request, sets_of};
use crate::cache::Cache;
use crate::request::view::{ExpirationView, SetView};

/// How and where a request is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Here, at once. An entry that turns out not to be in memory is loaded then.
    Local,
    /// Here, in steps between which other calls run, as it is long or its entries are looked for on the disk.
    Steps,
}

/// Says how a request is done whose message has this length.
#[inline]
pub(super) fn plan(cache: &Cache, request: &Request<'_>, message_bytes: usize) -> Plan {
    if request.is_long(message_bytes) || (cache.has_disk_tier() && reads_disk(cache, request)) {
        Plan::Steps
    } else {
        Plan::Local
    }
}

/// Whether a batch needs an entry that is not in memory: asked before it is begun, as it would block its connection's
/// thread while it loads them one by one. A request of one key finds that out when it is done. A malformed or refused
/// request needs none.
fn reads_disk(cache: &Cache, request: &Request<'_>) -> bool {
    let Request::Batch(kind, batch) = request else { return false };
    let Some(namespace) = cache.namespace(request.namespace()) else { return false };
    let needs_load = |key: &[u8]| cache.needs_load(&namespace, key);
    match kind {
        BatchKind::Get | BatchKind::Delete => request.keys().any(needs_load),
        BatchKind::Set => sets_of(batch).any(|set| needs_entry(&set) && needs_load(set.key)),
    }
}

/// Whether what a Set comes to depends on the entry that is there.
fn needs_entry(set: &SetView<'_>) -> bool {
    set.condition.is_some() || matches!(set.expiration, Some(ExpirationView::KeepTtl(_)))
}
