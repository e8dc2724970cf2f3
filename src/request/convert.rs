//! Proto ⇄ domain: what a request says, checked against the limits, as operations of the engine.

use super::CallError;
use super::view::{ConditionView, DeleteView, ExpirationView, GetView, IncrementView, SetView, TouchView};
use crate::engine::{Condition, Expiration, Increment, MissReason, Op, Outcome, Scope, Set, Tier};
use crate::entry::{Durability, Limits, NAMESPACE_BYTES_MAX, REQUEST_ID_BYTES_MAX, Ttl, Version};
use crate::grpc::GrpcError;
use crate::proto::v1::{self, invalidate_request};
use crate::proto::wire::Reader;
use crate::quote::Quote;

type Result<T> = std::result::Result<T, CallError>;

/// A key within the limits; `field` names it in the error.
#[inline]
pub(crate) fn key<'a>(key: &'a [u8], limits: &Limits, field: impl FnOnce() -> String) -> Result<&'a [u8]> {
    if (1..=limits.key_bytes_max).contains(&key.len()) {
        return Ok(key);
    }
    let max = limits.key_bytes_max;
    Err(match key.len() {
        0 => CallError::KeyEmpty { field: field(), max },
        bytes => CallError::KeyTooLong { field: field(), bytes, max },
    })
}

/// A message that is not hot, if it has no more fields than a request can need.
pub(crate) fn decode<M: prost::Message + Default>(message: &[u8]) -> Result<M> {
    decode_items(message, 0)
}

/// [`decode`] of a message that may have `items_max` items beside its other fields.
pub(crate) fn decode_items<M: prost::Message + Default>(message: &[u8], items_max: usize) -> Result<M> {
    let mut fields = Reader::with_items(message, items_max);
    while fields.next()?.is_some() {}
    M::decode(message).map_err(|error| GrpcError::Undecodable { why: error.to_string() }.into())
}

fn key_field() -> String {
    "key".to_owned()
}

/// The wire's word for where an entry was found.
pub(crate) fn tier(tier: Tier) -> v1::Tier {
    match tier {
        Tier::Memory => v1::Tier::Memory,
        Tier::Disk => v1::Tier::Disk,
    }
}

/// The durability that is asked for; `None`: the node's own.
pub(crate) fn durability(value: i32) -> Result<Option<Durability>> {
    match v1::Durability::try_from(value) {
        Ok(v1::Durability::Unspecified) => Ok(None),
        Ok(v1::Durability::Buffered) => Ok(Some(Durability::Buffered)),
        Ok(v1::Durability::Flushed) => Ok(Some(Durability::Flushed)),
        Err(_) => Err(CallError::UnknownEnum { field: "durability", value }),
    }
}

fn not_served<T>(what: &str) -> Result<T> {
    Err(CallError::NotServed { what: what.to_owned() })
}

/// Refuses the first of these options that is set: none is served yet.
#[inline]
fn none_set(options: &[(&str, u64)]) -> Result<()> {
    match options.iter().find(|(_, value)| *value != 0) {
        Some((option, _)) => not_served(option),
        None => Ok(()),
    }
}

/// A time to live within the limits.
pub(crate) fn ttl(field: &'static str, ttl_ms: u64, max: u64) -> Result<Ttl> {
    if ttl_ms > max {
        Err(CallError::TtlTooLong { field, ttl_ms, max })
    } else {
        Ok(Ttl::from_wire_ms(ttl_ms))
    }
}

/// What a Get asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Get<'a> {
    pub key: &'a [u8],
    pub touch: Option<Ttl>,
    pub metadata_only: bool,
}

#[inline]
pub(crate) fn get<'a>(view: &GetView<'a>, limits: &Limits) -> Result<Get<'a>> {
    let key = key(view.key, limits, key_field)?;
    let unserved =
        [("max_stale_ms", view.max_stale_ms), ("lease_ms", view.lease_ms), ("wait_ms", view.wait_ms)];
    none_set(&unserved)?;
    let touch = view.touch_ttl_ms.map(|ms| ttl("touch_ttl_ms", ms, limits.ttl_ms_max)).transpose()?;
    Ok(Get { key, touch, metadata_only: view.metadata_only })
}

/// A Set; `now_unix_ms` bounds how far off an absolute expiry may be.
#[inline]
pub(crate) fn set<'a>(view: &'a SetView<'a>, limits: &Limits, now_unix_ms: u64) -> Result<Set<'a>> {
    let key = key(view.key, limits, key_field)?;
    if view.value.len() > limits.value_bytes_max {
        return Err(CallError::ValueTooLarge { bytes: view.value.len(), max: limits.value_bytes_max });
    }
    let (bytes, max) = (view.content_type.len(), limits.content_type_bytes_max);
    if bytes > max {
        return Err(CallError::ContentTypeTooLong { bytes, max });
    }
    let expiration = match view.expiration {
        None => Expiration::Default,
        Some(ExpirationView::TtlMs(ms)) => Expiration::In(ttl("ttl_ms", ms, limits.ttl_ms_max)?),
        Some(ExpirationView::ExpireAtUnixMs(at)) => {
            let (ttl_ms, max) = (at.saturating_sub(now_unix_ms), limits.ttl_ms_max);
            if ttl_ms > max {
                return Err(CallError::ExpiryTooFar { at_unix_ms: at, ttl_ms, max });
            }
            Expiration::AtUnixMs(at)
        }
        Some(ExpirationView::KeepTtl(true)) => Expiration::Keep,
        Some(ExpirationView::KeepTtl(false)) => return Err(CallError::FalseInOneof { field: "keep_ttl" }),
    };
    let condition = match view.condition {
        None => Condition::Always,
        Some(ConditionView::IfAbsent(true)) => Condition::IfAbsent,
        Some(ConditionView::IfPresent(true)) => Condition::IfPresent,
        Some(ConditionView::IfAbsent(false)) => return Err(CallError::FalseInOneof { field: "if_absent" }),
        Some(ConditionView::IfPresent(false)) => return Err(CallError::FalseInOneof { field: "if_present" }),
        Some(ConditionView::IfVersion(version)) => Condition::IfVersion(if_version(version)?),
    };
    none_set(&[
        ("soft_ttl_ms", view.soft_ttl_ms),
        ("jitter_percent", view.jitter_percent.into()),
        ("lease_token", view.lease_token),
    ])?;
    if view.tags.len() > limits.tags_max {
        return Err(CallError::TooManyTags { tags: view.tags.len(), max: limits.tags_max });
    }
    for (index, name) in view.tags.iter().enumerate() {
        tag(name, limits, || format!("tags[{index}]"))?;
    }
    Ok(Set {
        key,
        value: view.value,
        expiration,
        condition,
        flags: view.flags,
        content_type: view.content_type,
        tags: &view.tags,
    })
}

/// A tag within the limits; `field` names it in the error.
pub(crate) fn tag(name: &str, limits: &Limits, field: impl FnOnce() -> String) -> Result<()> {
    let (bytes, max) = (name.len(), limits.tag_bytes_max);
    if (1..=max).contains(&bytes) { Ok(()) } else { Err(CallError::BadTag { field: field(), bytes, max }) }
}

fn if_version(version: u64) -> Result<Version> {
    if version == 0 { Err(CallError::VersionZero) } else { Ok(Version(version)) }
}

pub(crate) fn delete<'a>(view: &DeleteView<'a>, limits: &Limits) -> Result<Op<'a>> {
    let key = key(view.key, limits, key_field)?;
    let if_version = view.if_version.map(if_version).transpose()?;
    Ok(Op::Delete { key, if_version })
}

/// Which way a counter goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

pub(crate) fn increment<'a>(
    view: &IncrementView<'a>,
    direction: Direction,
    limits: &Limits,
) -> Result<Increment<'a>> {
    let key = key(view.key, limits, key_field)?;
    let (bytes, max) = (view.request_id.len(), REQUEST_ID_BYTES_MAX);
    if bytes > max {
        return Err(CallError::RequestIdTooLong { bytes, max });
    }
    let delta = if view.delta == 0 { 1 } else { i128::from(view.delta) };
    let expiration = match ttl("ttl_ms", view.ttl_ms, limits.ttl_ms_max)? {
        Ttl::Never => Expiration::Default,
        ttl => Expiration::In(ttl),
    };
    Ok(Increment {
        key,
        delta: if direction == Direction::Up { delta } else { -delta },
        initial: view.initial,
        expiration,
        request_id: view.request_id,
    })
}

pub(crate) fn touch<'a>(view: &TouchView<'a>, limits: &Limits) -> Result<Op<'a>> {
    let key = key(view.key, limits, key_field)?;
    Ok(Op::Touch { key, ttl: ttl("ttl_ms", view.ttl_ms, limits.ttl_ms_max)? })
}

/// What an Invalidate drops.
pub(crate) fn scope<'a>(scope: Option<&'a invalidate_request::Scope>, limits: &Limits) -> Result<Scope<'a>> {
    use invalidate_request::Scope as Asked;
    match scope {
        None => {
            let why = "say what to drop: a prefix, a tag, or all".to_owned();
            Err(CallError::Invalid { field: "scope", why })
        }
        Some(Asked::Prefix(prefix)) if prefix.is_empty() => {
            let why = "it is empty: to drop everything, say all".to_owned();
            Err(CallError::Invalid { field: "prefix", why })
        }
        Some(Asked::Prefix(prefix)) => Ok(Scope::Prefix(key(prefix, limits, || "prefix".to_owned())?)),
        Some(Asked::Tag(name)) => {
            tag(name, limits, || "tag".to_owned())?;
            Ok(Scope::Tag(name))
        }
        Some(Asked::All(false)) => Err(CallError::FalseInOneof { field: "all" }),
        Some(Asked::All(true)) => Ok(Scope::All),
    }
}

/// The prefix of a scan, which may be empty.
pub(crate) fn prefix<'a>(prefix: &'a [u8], limits: &Limits) -> Result<&'a [u8]> {
    let (bytes, max) = (prefix.len(), limits.key_bytes_max);
    if bytes > max {
        return Err(CallError::KeyTooLong { field: "prefix".to_owned(), bytes, max });
    }
    Ok(prefix)
}

/// The error that an operation of this kind came to, as it came to none of its outcomes.
pub(crate) fn unexpected(outcome: &Outcome, delta: i128) -> CallError {
    match outcome {
        Outcome::Refused(refusal) => CallError::refused(*refusal, delta),
        other => unreachable!("no operation of this kind comes to {other:?}"),
    }
}

/// The name of a namespace that is to be created; `field` names it in the error.
pub(crate) fn namespace_name<'a>(name: &'a str, field: &'static str) -> Result<&'a str> {
    if !(1..=NAMESPACE_BYTES_MAX).contains(&name.len()) {
        let bytes = name.len();
        let why = format!("a name has 1 to {NAMESPACE_BYTES_MAX} bytes, this one has {bytes}");
        return Err(CallError::Invalid { field, why });
    }
    if let Some(control) = name.chars().find(|c| c.is_control()) {
        let why = format!("{} has the control character {control:?}; a name has none", Quote::of(name));
        return Err(CallError::Invalid { field, why });
    }
    Ok(name)
}

/// A batch's length.
pub(crate) fn batch(items: usize, limits: &Limits) -> Result<()> {
    let max = limits.batch_items_max;
    if items > max { Err(CallError::BatchTooLong { items, max }) } else { Ok(()) }
}

/// An item of a BatchSet: its own namespace and durability are empty or the batch's.
pub(crate) fn batch_item(view: &SetView<'_>, name: &str, flushed: i32) -> Result<()> {
    if !view.namespace.is_empty() && view.namespace != name {
        let (value, batch) = (Quote::of(view.namespace), Quote::of(name));
        return Err(CallError::ItemDiffers { field: "namespace", value, batch });
    }
    if view.durability != 0 && view.durability != flushed {
        let number = |durability: i32| Quote::of(&durability.to_string());
        let (value, batch) = (number(view.durability), number(flushed));
        return Err(CallError::ItemDiffers { field: "durability", value, batch });
    }
    Ok(())
}

impl From<Durability> for v1::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Buffered => Self::Buffered,
            Durability::Flushed => Self::Flushed,
        }
    }
}

impl From<MissReason> for v1::MissReason {
    fn from(reason: MissReason) -> Self {
        match reason {
            MissReason::Unknown => Self::Unknown,
            MissReason::Expired => Self::Expired,
            MissReason::Evicted => Self::Evicted,
            MissReason::Deleted => Self::Deleted,
            MissReason::Invalidated => Self::Invalidated,
            MissReason::Fenced => Self::Fenced,
            MissReason::OwnerDown => Self::OwnerDown,
            MissReason::Corrupt => Self::Corrupt,
        }
    }
}
