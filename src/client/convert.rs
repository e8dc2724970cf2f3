//! Between the generated messages of the caches and the library's own types. What Admin says is in `admin/convert.rs`; no
//! other file of the library knows both.
//!
//! `None` where a message is not what the contract allows: the caller of these says which call's answer that was.

use std::time::Duration;

use bytes::Bytes;

use super::calls::{CounterOptions, DeleteOptions, SetCondition, SetExpiration, SetOptions};
use super::outcome::{
    BlobInfo, BlobPage, Counter, Deletion, GetOutcome, Hit, NotStored, ScanItem, ScanPage, SetOutcome,
    StoredBlob, Tier,
};
use crate::entry::{Durability, MissReason, Version};
use crate::proto::v1;

/// A duration as the wire has it: whole milliseconds, rounded up so that a short one does not become "never".
pub(crate) fn wire_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A durability as the wire has it.
pub(crate) fn wire_durability(durability: Option<Durability>) -> i32 {
    let durability = match durability {
        None => v1::Durability::Unspecified,
        Some(Durability::Buffered) => v1::Durability::Buffered,
        Some(Durability::Flushed) => v1::Durability::Flushed,
    };
    durability as i32
}

pub(super) fn set_request(namespace: &str, key: Bytes, value: Bytes, options: &SetOptions) -> v1::SetRequest {
    use v1::set_request::{Condition, Expiration};
    v1::SetRequest {
        namespace: namespace.to_owned(),
        key,
        value,
        expiration: match options.expiration {
            SetExpiration::NamespaceDefault => None,
            SetExpiration::After(ttl) => Some(Expiration::TtlMs(wire_ms(ttl))),
            SetExpiration::AtUnixMs(at) => Some(Expiration::ExpireAtUnixMs(at)),
            SetExpiration::Keep => Some(Expiration::KeepTtl(true)),
        },
        condition: match options.condition {
            SetCondition::Always => None,
            SetCondition::IfAbsent => Some(Condition::IfAbsent(true)),
            SetCondition::IfPresent => Some(Condition::IfPresent(true)),
            SetCondition::IfVersion(version) => Some(Condition::IfVersion(version.0)),
        },
        flags: options.flags,
        content_type: options.content_type.clone(),
        tags: options.tags.clone(),
        durability: wire_durability(options.durability),
        ..v1::SetRequest::default()
    }
}

pub(super) fn delete_request(namespace: &str, key: Bytes, options: &DeleteOptions) -> v1::DeleteRequest {
    v1::DeleteRequest {
        namespace: namespace.to_owned(),
        key,
        if_version: options.if_version.map(|version| version.0),
        durability: wire_durability(options.durability),
    }
}

pub(super) fn increment_request(
    namespace: &str,
    key: Bytes,
    delta: i64,
    options: &CounterOptions,
) -> v1::IncrementRequest {
    v1::IncrementRequest {
        namespace: namespace.to_owned(),
        key,
        delta,
        initial: options.initial,
        ttl_ms: wire_ms(options.ttl),
        durability: wire_durability(options.durability),
        ..v1::IncrementRequest::default()
    }
}

pub(super) fn decrement_request(
    namespace: &str,
    key: Bytes,
    delta: i64,
    options: &CounterOptions,
) -> v1::DecrementRequest {
    v1::DecrementRequest {
        namespace: namespace.to_owned(),
        key,
        delta,
        initial: options.initial,
        ttl_ms: wire_ms(options.ttl),
        durability: wire_durability(options.durability),
        ..v1::DecrementRequest::default()
    }
}

pub(super) fn get_outcome(response: v1::GetResponse) -> Option<GetOutcome> {
    use v1::get_response::Outcome;
    Some(match response.outcome? {
        Outcome::Hit(entry) => GetOutcome::Hit(hit(entry)),
        Outcome::Stale(stale) => GetOutcome::Stale(hit(stale.entry?)),
        Outcome::Miss(miss) => GetOutcome::Miss(miss_reason(miss.reason())),
    })
}

pub(super) fn set_outcome(response: v1::SetResponse) -> Option<SetOutcome> {
    use v1::set_response::Outcome;
    Some(match response.outcome? {
        Outcome::Stored(stored) => SetOutcome::Stored(Version(stored.version)),
        Outcome::NotStored(not) => SetOutcome::NotStored(match not {
            v1::NotStored { owner_down: true, .. } => NotStored::OwnerDown,
            v1::NotStored { expired: true, .. } => NotStored::Expired,
            v1::NotStored { current_version, .. } => {
                NotStored::ConditionNotMet { current: version(current_version) }
            }
        }),
    })
}

pub(super) fn deletion(response: &v1::DeleteResponse) -> Deletion {
    Deletion { deleted: response.deleted, current: version(response.current_version) }
}

pub(super) fn incremented(response: &v1::IncrementResponse) -> Counter {
    Counter { value: response.value, version: Version(response.version) }
}

pub(super) fn decremented(response: &v1::DecrementResponse) -> Counter {
    Counter { value: response.value, version: Version(response.version) }
}

pub(super) fn scan_page(response: v1::ScanResponse) -> Option<ScanPage> {
    let item = |item: v1::scan_response::Item| Some(ScanItem { key: item.key, entry: hit(item.entry?) });
    Some(ScanPage {
        items: response.items.into_iter().map(item).collect::<Option<_>>()?,
        next_page_token: response.next_page_token,
    })
}

pub(super) fn stored_blob(response: &v1::PutBlobResponse) -> Option<StoredBlob> {
    Some(StoredBlob {
        version: Version(response.version),
        size_bytes: response.size_bytes,
        sha256: response.sha256[..].try_into().ok()?,
    })
}

pub(super) fn blob_info(header: v1::BlobHeader) -> Option<BlobInfo> {
    Some(BlobInfo {
        key: header.key,
        version: Version(header.version),
        size_bytes: header.size_bytes,
        sha256: header.sha256[..].try_into().ok()?,
        content_type: header.content_type,
        remaining_ttl: remaining_ttl(header.ttl_ms),
    })
}

pub(super) fn blob_page(response: v1::ListBlobsResponse) -> Option<BlobPage> {
    Some(BlobPage {
        blobs: response.blobs.into_iter().map(blob_info).collect::<Option<_>>()?,
        next_page_token: response.next_page_token,
    })
}

pub(super) fn hit(hit: v1::Hit) -> Hit {
    Hit {
        value_bytes: hit.value_bytes,
        version: Version(hit.version),
        remaining_ttl: remaining_ttl(hit.remaining_ttl_ms),
        flags: hit.flags,
        tier: tier(hit.tier()),
        near_cache_ttl: Duration::from_millis(hit.near_cache_ttl_ms),
        value: hit.value,
        content_type: hit.content_type,
    }
}

pub(super) fn tier(tier: v1::Tier) -> Tier {
    match tier {
        v1::Tier::Memory => Tier::Memory,
        v1::Tier::Disk => Tier::Disk,
        v1::Tier::Origin => Tier::Origin,
        v1::Tier::Unspecified => Tier::Unknown,
    }
}

pub(super) fn miss_reason(reason: v1::MissReason) -> MissReason {
    match reason {
        v1::MissReason::Unspecified | v1::MissReason::Unknown => MissReason::Unknown,
        v1::MissReason::Expired => MissReason::Expired,
        v1::MissReason::Evicted => MissReason::Evicted,
        v1::MissReason::Deleted => MissReason::Deleted,
        v1::MissReason::Invalidated => MissReason::Invalidated,
        v1::MissReason::Fenced => MissReason::Fenced,
        v1::MissReason::OwnerDown => MissReason::OwnerDown,
        v1::MissReason::Corrupt => MissReason::Corrupt,
    }
}

/// What is left of a life; on the wire 0 is one without an end.
pub(crate) fn remaining_ttl(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

/// A version; on the wire 0 is none.
fn version(version: u64) -> Option<Version> {
    (version > 0).then_some(Version(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_below_a_millisecond_is_not_never() {
        assert_eq!(wire_ms(Duration::ZERO), 0);
        assert_eq!(wire_ms(Duration::from_nanos(1)), 1);
        assert_eq!(wire_ms(Duration::from_micros(1_500)), 2);
        assert_eq!(wire_ms(Duration::MAX), u64::MAX);
    }

    #[test]
    fn options_become_the_wires_oneofs() {
        use v1::set_request::{Condition, Expiration};
        let options = SetOptions {
            expiration: SetExpiration::Keep,
            condition: SetCondition::IfVersion(Version(7)),
            flags: 3,
            content_type: "text/plain".to_owned(),
            tags: vec!["menu".to_owned()],
            durability: Some(Durability::Flushed),
        };
        let request = set_request("ns", Bytes::from("k"), Bytes::from("v"), &options);
        assert_eq!(request.expiration, Some(Expiration::KeepTtl(true)));
        assert_eq!(request.condition, Some(Condition::IfVersion(7)));
        assert_eq!((request.namespace.as_str(), request.flags), ("ns", 3));
        assert_eq!(request.durability(), v1::Durability::Flushed);
        let plain = set_request("", Bytes::new(), Bytes::new(), &SetOptions::default());
        assert_eq!((plain.expiration, plain.condition, plain.durability), (None, None, 0));
    }

    #[test]
    fn what_the_wire_writes_as_zero_is_none_and_what_it_may_not_leave_out_is_missed() {
        use v1::{get_response, set_response};
        let get = |outcome| get_outcome(v1::GetResponse { outcome: Some(outcome) });
        let live = v1::Hit { version: 9, remaining_ttl_ms: 5, tier: 2, ..v1::Hit::default() };
        let Some(GetOutcome::Hit(hit)) = get(get_response::Outcome::Hit(live.clone())) else { panic!() };
        assert_eq!((hit.remaining_ttl, hit.tier), (Some(Duration::from_millis(5)), Tier::Disk));
        let endless = v1::Hit { tier: 77, remaining_ttl_ms: 0, ..live.clone() };
        let stale = v1::Stale { entry: Some(endless), ..v1::Stale::default() };
        let Some(GetOutcome::Stale(hit)) = get(get_response::Outcome::Stale(stale)) else { panic!() };
        assert_eq!((hit.remaining_ttl, hit.tier), (None, Tier::Unknown));
        assert_eq!(get(get_response::Outcome::Stale(v1::Stale::default())), None);
        let miss = v1::Miss { reason: v1::MissReason::OwnerDown as i32, lease_token: 0 };
        let miss = get(get_response::Outcome::Miss(miss));
        assert_eq!(miss, Some(GetOutcome::Miss(MissReason::OwnerDown)));
        assert_eq!(get_outcome(v1::GetResponse::default()), None);

        let not = |not| set_outcome(v1::SetResponse { outcome: Some(set_response::Outcome::NotStored(not)) });
        let plain = v1::NotStored::default();
        for (message, expected) in [
            (plain, NotStored::ConditionNotMet { current: None }),
            (
                v1::NotStored { current_version: 4, ..plain },
                NotStored::ConditionNotMet { current: Some(Version(4)) },
            ),
            (v1::NotStored { expired: true, ..plain }, NotStored::Expired),
            (v1::NotStored { owner_down: true, ..plain }, NotStored::OwnerDown),
        ] {
            assert_eq!(not(message), Some(SetOutcome::NotStored(expected)));
        }
        assert_eq!(set_outcome(v1::SetResponse::default()), None);
        let item = v1::scan_response::Item::default();
        assert_eq!(scan_page(v1::ScanResponse { items: vec![item], ..Default::default() }), None);
        assert_eq!(blob_info(v1::BlobHeader { sha256: Bytes::from("short"), ..Default::default() }), None);
    }
}
