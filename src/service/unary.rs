//! The unary methods of Cache: a request's message in, a response's framed message out. Those of many keys are in
//! `batch` and `keyspace`.

use std::borrow::Cow;

use bytes::Bytes;
use futures_util::FutureExt;

use super::backlog::{Backlog, COUNTED_BYTES_MIN};
use super::batch::Progress;
use super::below::Does;
use super::codec::convert::{self, Direction};
use super::codec::encode::{self, HitMessage};
use super::codec::wire::{DeleteView, GetView, IncrementView, SetView, TouchView};
use super::data::Plane;
use super::error::CallError;
use super::request::Request;
use super::turns::Turns;
use super::{batch, keyspace};
use crate::cache::Cache;
use crate::clock::Now;
use crate::engine::{Namespace, Op, Outcome, ValueView};
use crate::entry::NAMESPACE_BYTES_MAX;
use crate::grpc::Unary;
use crate::grpc::frame::{PREFIX, finish, put_prefix};
use crate::quote::Quote;
use crate::verb::Verb;

/// An answer, and whether it waits until what was done is on the disk.
pub(super) type Answered = Result<(Unary, bool), CallError>;

/// Whether a call takes long enough to be done in turns.
pub(super) fn is_long(verb: Verb, message: &[u8]) -> bool {
    match verb {
        Verb::BatchGet | Verb::BatchSet | Verb::BatchDelete => batch::is_long(message),
        Verb::Scan => true,
        _ => false,
    }
}

/// Does a call that [`is_long`] may be true of.
pub(super) async fn in_turns(
    verb: Verb,
    plane: &Plane,
    message: &[u8],
    progress: &mut Progress,
    turns: Turns,
) -> Answered {
    match verb {
        Verb::Scan => keyspace::scan(plane, message, turns).await,
        _ => batch::batch(verb, plane, message, progress, turns).await,
    }
}

/// Does a call at once. One that comes to [`CallError::JournalBacklog`] may be done again later with what `progress` is
/// then.
pub(super) fn call(verb: Verb, plane: &Plane, message: &[u8], progress: &mut Progress) -> Answered {
    let (cache, backlog) = (&*plane.cache, &plane.backlog);
    let now = cache.now();
    match verb {
        Verb::Get => get(cache, backlog, now, message).map(|answer| (answer, false)),
        Verb::BatchGet | Verb::BatchSet | Verb::BatchDelete | Verb::Scan => {
            let done = in_turns(verb, plane, message, progress, Turns::one()).now_or_never();
            done.expect("what has one turn waits for no other")
        }
        Verb::Invalidate => keyspace::invalidate(cache, now, message),
        single => {
            let request = Request::decode(single, message, 0)?;
            let mut out = vec![0; PREFIX];
            let flush = execute(cache, now, &request.expect("it is of one key"), &mut out)?;
            finish(&mut out, 0);
            Ok((out.into(), flush))
        }
    }
}

/// Does a write of one key and puts its response's message, nothing of which is put before it is certain; whether the answer
/// waits until what was done is on the disk.
pub(super) fn execute(
    on: &impl Does,
    now: Now,
    request: &Request<'_>,
    out: &mut Vec<u8>,
) -> Result<bool, CallError> {
    match request {
        Request::Set(view) => put_set(on, &*namespace(on.cache(), view.namespace)?, now, view, out),
        Request::Delete(view) => put_delete(on, now, view, out),
        Request::Touch(view) => put_touch(on, now, view, out),
        Request::Increment(view, direction) => put_increment(on, now, view, *direction, out),
        Request::Get(_) | Request::BatchGet(_) | Request::BatchSet(_) | Request::BatchDelete(_) => {
            unreachable!("entries are answered where they lie, and batches item by item")
        }
    }
}

/// Whether a write with this durability waits for the disk.
pub(super) fn flushes(cache: &Cache, durability: i32) -> Result<bool, CallError> {
    let wanted = convert::durability(durability)?;
    cache.flushes(wanted).ok_or_else(|| CallError::NoPersistence { what: "durability FLUSHED".to_owned() })
}

/// The namespace that a request names.
#[inline]
pub(super) fn namespace<'a>(cache: &'a Cache, name: &str) -> Result<Cow<'a, Namespace>, CallError> {
    // A longer name is none's: it need not be hashed to know that.
    let found = if name.len() <= NAMESPACE_BYTES_MAX { cache.namespace(name) } else { None };
    found.ok_or_else(|| CallError::NamespaceNotFound { name: Quote::of(name) })
}

fn get(cache: &Cache, backlog: &Backlog, now: Now, message: &[u8]) -> Result<Unary, CallError> {
    let view = GetView::read(message)?;
    let get = convert::get(&view, &cache.limits())?;
    let namespace = namespace(cache, view.namespace)?;
    let read = cache.read(&namespace, get.key, get.touch, now, |entry| {
        let hit = HitMessage::new(&entry, get.metadata_only);
        let length = PREFIX + hit.len();
        let held = if length < COUNTED_BYTES_MIN { None } else { Some(backlog.take(length)?) };
        let mut out = Vec::with_capacity(length);
        put_prefix(&mut out, hit.len());
        Ok(match (entry.value, held) {
            // A large value is sent from where it lies; the lock is held for a reference only.
            (ValueView::Shared(value), Some(held)) if !get.metadata_only => {
                let mut tail = Vec::with_capacity(hit.len() - value.len());
                hit.write_head(&mut out);
                hit.write_tail(&mut tail);
                Unary::around(out, held.hold_shared(Bytes::clone(value)), tail)
            }
            (_, Some(held)) => {
                hit.write_at_end_of(&mut out);
                held.hold(out)?.into()
            }
            (_, None) => {
                hit.write_at_end_of(&mut out);
                out.into()
            }
        })
    });
    read.unwrap_or_else(|reason| {
        let mut out = Vec::with_capacity(PREFIX + encode::MISS_LEN);
        put_prefix(&mut out, encode::MISS_LEN);
        encode::put_miss(&mut out, reason);
        Ok(out.into())
    })
}

/// Puts the SetResponse of a Set.
pub(super) fn put_set(
    on: &impl Does,
    namespace: &Namespace,
    now: Now,
    view: &SetView<'_>,
    out: &mut Vec<u8>,
) -> Result<bool, CallError> {
    let cache = on.cache();
    let set = convert::set(view, &cache.limits(), now.unix_ms())?;
    let flush = flushes(cache, view.durability)?;
    match on.apply(namespace, &Op::Set(set), now) {
        Outcome::Stored(version) => encode::put_stored(out, version.0),
        Outcome::NotStored(current) => encode::put_not_stored(out, current.0),
        Outcome::Expired => encode::put_not_stored_expired(out),
        other => return Err(unexpected(&other, 0)),
    }
    Ok(flush)
}

/// Puts the DeleteResponse of a Delete.
fn put_delete(on: &impl Does, now: Now, view: &DeleteView<'_>, out: &mut Vec<u8>) -> Result<bool, CallError> {
    let cache = on.cache();
    let namespace = namespace(cache, view.namespace)?;
    let flush = flushes(cache, view.durability)?;
    match on.apply(&namespace, &convert::delete(view, &cache.limits())?, now) {
        Outcome::Deleted(deleted) => encode::put_deleted(out, deleted, 0),
        Outcome::NotDeleted(current) => encode::put_deleted(out, false, current.0),
        other => return Err(unexpected(&other, 0)),
    }
    Ok(flush)
}

/// Puts the IncrementResponse or DecrementResponse of an Increment or Decrement.
fn put_increment(
    on: &impl Does,
    now: Now,
    view: &IncrementView<'_>,
    direction: Direction,
    out: &mut Vec<u8>,
) -> Result<bool, CallError> {
    let cache = on.cache();
    let increment = convert::increment(view, direction, &cache.limits())?;
    let namespace = namespace(cache, view.namespace)?;
    let flush = flushes(cache, view.durability)?;
    match on.apply(&namespace, &Op::Increment(increment), now) {
        Outcome::Counted { value, version } => encode::put_counted(out, value, version.0),
        other => return Err(unexpected(&other, increment.delta)),
    }
    Ok(flush)
}

/// Puts the TouchResponse of a Touch.
fn put_touch(on: &impl Does, now: Now, view: &TouchView<'_>, out: &mut Vec<u8>) -> Result<bool, CallError> {
    let cache = on.cache();
    let namespace = namespace(cache, view.namespace)?;
    let flush = flushes(cache, 0)?;
    match on.apply(&namespace, &convert::touch(view, &cache.limits())?, now) {
        Outcome::Touched(found) => encode::put_touched(out, found),
        other => return Err(unexpected(&other, 0)),
    }
    Ok(flush)
}

pub(super) fn unexpected(outcome: &Outcome, delta: i128) -> CallError {
    match outcome {
        Outcome::Refused(refusal) => CallError::refused(*refusal, delta),
        other => unreachable!("no operation of this kind comes to {other:?}"),
    }
}
