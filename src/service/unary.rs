//! The unary methods of Cache: a request's message in, a response's framed message out. Those of many keys are in
//! `batch` and `keyspace`.

use std::borrow::Cow;

use bytes::Bytes;
use futures_util::FutureExt;

use super::batch::CallProgress;
use super::data::Plane;
use super::request::{Request, WriteRequest};
use super::response_backlog::COUNTED_BYTES_MIN;
use super::turns::Turns;
use super::{batch, keyspace};
use crate::cache::Cache;
use crate::clock::Now;
use crate::engine::{Namespace, NotRead, Op, Outcome, ValueView};
use crate::entry::NAMESPACE_BYTES_MAX;
use crate::grpc::Unary;
use crate::grpc::frame::{PREFIX, finish, put_prefix};
use crate::lookup::{Loaded, PendingLoad};
use crate::quote::Quote;
use crate::request::CallError;
use crate::request::convert::{self, Direction};
use crate::request::view::{DeleteView, GetView, IncrementView, SetView, TouchView};
use crate::service::codec::encode::{self, HitMessage};

/// An answer, and whether it waits until what was done is on the disk.
pub(super) type Answered = Result<(Unary, bool), CallError>;

/// Why a request is not done.
#[derive(Debug)]
pub(super) enum Undone {
    /// It failed.
    Failed(CallError),
    /// An entry is to be loaded first. Of a request of one key, nothing was done; a batch goes on.
    NeedsLoad(PendingLoad),
}

impl<E: Into<CallError>> From<E> for Undone {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Does a request of many keys or of a whole namespace.
pub(super) async fn in_turns(
    plane: &Plane,
    request: &Request<'_>,
    progress: &mut CallProgress,
    turns: Turns,
) -> Result<(Unary, bool), Undone> {
    match request {
        Request::Scan(request) => Ok(keyspace::scan(plane, request, turns).await?),
        Request::Batch(kind, view) => batch::run(plane, *kind, view, progress, turns).await,
        Request::Get(_) | Request::Write(_) | Request::Invalidate(_) => call(plane, request, progress, None),
    }
}

/// Does a request at once, with what was loaded for it. One that comes to [`CallError::JournalBacklog`] or to
/// [`Undone::NeedsLoad`] may be done again later with what `progress` is then.
pub(super) fn call(
    plane: &Plane,
    request: &Request<'_>,
    progress: &mut CallProgress,
    loaded: Option<Loaded>,
) -> Result<(Unary, bool), Undone> {
    let cache = &*plane.cache;
    let now = cache.now();
    match request {
        Request::Get(view) => get(plane, now, view, loaded).map(|answer| (answer, false)),
        Request::Invalidate(request) => Ok(keyspace::invalidate(cache, now, request)?),
        Request::Batch(..) | Request::Scan(_) => {
            let done = in_turns(plane, request, progress, Turns::one()).now_or_never();
            done.expect("what has one turn waits for nothing")
        }
        Request::Write(write) => {
            let mut out = vec![0; PREFIX];
            let flush = execute(cache, now, write, loaded, &mut out)?;
            finish(&mut out, 0);
            Ok((out.into(), flush))
        }
    }
}

/// Does a write of one key, with what was loaded for it, and puts its response's message, nothing of which is put before it
/// is certain; whether the answer waits until what was done is on the disk.
pub(super) fn execute(
    cache: &Cache,
    now: Now,
    write: &WriteRequest<'_>,
    loaded: Option<Loaded>,
    out: &mut Vec<u8>,
) -> Result<bool, Undone> {
    match write {
        WriteRequest::Set(view) => {
            put_set(cache, &*namespace(cache, view.namespace)?, now, view, loaded, out)
        }
        WriteRequest::Delete(view) => put_delete(cache, now, view, loaded, out),
        WriteRequest::Touch(view) => put_touch(cache, now, view, loaded, out),
        WriteRequest::Increment(view, direction) => put_increment(cache, now, view, *direction, loaded, out),
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

fn get(plane: &Plane, now: Now, view: &GetView<'_>, loaded: Option<Loaded>) -> Result<Unary, Undone> {
    let (cache, response_backlog) = (&*plane.cache, &plane.response_backlog);
    let get = convert::get(view, &cache.limits())?;
    let namespace = namespace(cache, view.namespace)?;
    let read = cache.try_read(&namespace, get.key, get.touch, now, loaded, |entry| {
        let hit = HitMessage::new(&namespace, &entry, get.metadata_only);
        let length = PREFIX + hit.len();
        let held = if length < COUNTED_BYTES_MIN { None } else { Some(response_backlog.take(length)?) };
        let mut out = Vec::with_capacity(length);
        put_prefix(&mut out, hit.len());
        Ok::<_, CallError>(match (entry.value, held) {
            // A large value is sent from where it lies; the lock is held for a reference only.
            (ValueView::Shared(value), Some(held)) if !get.metadata_only => {
                let mut tail = Vec::with_capacity(hit.len() - value.len());
                hit.write_head(&mut out);
                hit.write_tail(&mut tail);
                Unary::around(out, held.count_in_shared(Bytes::clone(value)), tail)
            }
            (_, Some(held)) => {
                hit.write_at_end_of(&mut out);
                held.count_in(out)?.into()
            }
            (_, None) => {
                hit.write_at_end_of(&mut out);
                out.into()
            }
        })
    });
    match read {
        Ok(answer) => answer.map_err(Undone::Failed),
        Err(NotRead::Miss(reason)) => {
            let mut out = Vec::with_capacity(PREFIX + encode::MISS_LEN);
            put_prefix(&mut out, encode::MISS_LEN);
            encode::put_miss(&mut out, reason);
            Ok(out.into())
        }
        Err(NotRead::Refused(refusal)) => Err(CallError::refused(refusal, 0).into()),
        Err(NotRead::NeedsLoad(pending)) => Err(Undone::NeedsLoad(pending)),
    }
}

/// Puts the SetResponse of a Set.
pub(super) fn put_set(
    cache: &Cache,
    namespace: &Namespace,
    now: Now,
    view: &SetView<'_>,
    loaded: Option<Loaded>,
    out: &mut Vec<u8>,
) -> Result<bool, Undone> {
    let set = convert::set(view, &cache.limits(), now.unix_ms())?;
    let flush = flushes(cache, view.durability)?;
    match cache.try_apply(namespace, &Op::Set(set), now, loaded).map_err(Undone::NeedsLoad)? {
        Outcome::Stored(version) => encode::put_stored(out, version.0),
        Outcome::NotStored(current) => encode::put_not_stored(out, current.0),
        Outcome::Expired => encode::put_not_stored_expired(out),
        other => return Err(convert::unexpected(&other, 0).into()),
    }
    Ok(flush)
}

/// Puts the DeleteResponse of a Delete.
fn put_delete(
    cache: &Cache,
    now: Now,
    view: &DeleteView<'_>,
    loaded: Option<Loaded>,
    out: &mut Vec<u8>,
) -> Result<bool, Undone> {
    let namespace = namespace(cache, view.namespace)?;
    let flush = flushes(cache, view.durability)?;
    match cache
        .try_apply(&namespace, &convert::delete(view, &cache.limits())?, now, loaded)
        .map_err(Undone::NeedsLoad)?
    {
        Outcome::Deleted(deleted) => encode::put_deleted(out, deleted, 0),
        Outcome::NotDeleted(current) => encode::put_deleted(out, false, current.0),
        other => return Err(convert::unexpected(&other, 0).into()),
    }
    Ok(flush)
}

/// Puts the IncrementResponse or DecrementResponse of an Increment or Decrement.
fn put_increment(
    cache: &Cache,
    now: Now,
    view: &IncrementView<'_>,
    direction: Direction,
    loaded: Option<Loaded>,
    out: &mut Vec<u8>,
) -> Result<bool, Undone> {
    let increment = convert::increment(view, direction, &cache.limits())?;
    let namespace = namespace(cache, view.namespace)?;
    let flush = flushes(cache, view.durability)?;
    match cache.try_apply(&namespace, &Op::Increment(increment), now, loaded).map_err(Undone::NeedsLoad)? {
        Outcome::Counted { value, version } => encode::put_counted(out, value, version.0),
        other => return Err(convert::unexpected(&other, increment.delta).into()),
    }
    Ok(flush)
}

/// Puts the TouchResponse of a Touch.
fn put_touch(
    cache: &Cache,
    now: Now,
    view: &TouchView<'_>,
    loaded: Option<Loaded>,
    out: &mut Vec<u8>,
) -> Result<bool, Undone> {
    let namespace = namespace(cache, view.namespace)?;
    let flush = flushes(cache, 0)?;
    match cache
        .try_apply(&namespace, &convert::touch(view, &cache.limits())?, now, loaded)
        .map_err(Undone::NeedsLoad)?
    {
        Outcome::Touched(found) => encode::put_touched(out, found),
        other => return Err(convert::unexpected(&other, 0).into()),
    }
    Ok(flush)
}
