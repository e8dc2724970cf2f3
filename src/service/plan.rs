//! Where a request is done. A request of many nodes' keys is to be passed on to their owners from here.

use super::request::{Request, sets_of};
use crate::cache::Cache;
use crate::service::codec::view::{ExpirationView, SetView};

/// Where a request is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Here, in memory. An entry that turns out not to be there after all is loaded.
    Local,
    /// Here, and entries are looked for on the disk, so that it is done step by step.
    Disk,
}

/// Says where a request is done.
#[inline]
pub(super) fn plan(cache: &Cache, request: &Request<'_>) -> Plan {
    if cache.has_disk_tier() { plan_over_disk(cache, request) } else { Plan::Local }
}

/// Whether a single entry is in memory is found out when the request is done. For many it is asked beforehand, as a
/// request that was half done would have to be continued. A malformed or refused request is answered at once.
fn plan_over_disk(cache: &Cache, request: &Request<'_>) -> Plan {
    let Some(namespace) = cache.namespace(request.namespace()) else { return Plan::Local };
    let needs_load = |key: &[u8]| cache.needs_load(&namespace, key);
    let is_on_disk = match request {
        Request::Scan(_) => true,
        Request::BatchGet(_) | Request::BatchDelete(_) => request.keys().any(needs_load),
        Request::BatchSet(batch) => sets_of(batch).any(|set| needs_entry(&set) && needs_load(set.key)),
        _ => false,
    };
    if is_on_disk { Plan::Disk } else { Plan::Local }
}

/// Whether what a Set comes to depends on the entry that is there.
fn needs_entry(set: &SetView<'_>) -> bool {
    set.condition.is_some() || matches!(set.expiration, Some(ExpirationView::KeepTtl(_)))
}
