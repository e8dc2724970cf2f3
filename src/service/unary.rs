//! The unary methods of Cache: a request's message in, a response's framed message out.

use std::borrow::Cow;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::backlog::{Backlog, COUNTED_BYTES_MIN, Held};
use super::below::Does;
use super::body::Unary;
use super::data::Plane;
use super::frame::{PREFIX, finish, put_prefix};
use super::keyspace;
use crate::api::CallError;
use crate::api::convert::{self, Direction};
use crate::api::encode::{self, HitMessage};
use crate::api::wire::{BatchView, DeleteView, GetView, IncrementView, SetView, TouchView};
use crate::cache::Cache;
use crate::clock::Now;
use crate::engine::{Namespace, Op, Outcome, ValueView};

/// The unary methods that are served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Set,
    Delete,
    Increment,
    Decrement,
    Touch,
    BatchGet,
    BatchSet,
    BatchDelete,
    Scan,
    Invalidate,
}

impl Method {
    /// Whether it is refused while the journal's backlog has no room.
    pub(super) fn writes(self) -> bool {
        match self {
            Self::Get | Self::BatchGet | Self::Scan | Self::Invalidate => false,
            Self::Set | Self::Delete | Self::Increment | Self::Decrement | Self::Touch => true,
            Self::BatchSet | Self::BatchDelete => true,
        }
    }
}

/// How far a call is that the journal's backlog had no room for.
#[derive(Debug, Default)]
pub(super) struct Progress {
    batch: Option<Box<Batch>>,
    gives_up: bool,
}

/// A batch some of whose items are done.
#[derive(Debug)]
struct Batch {
    /// The namespace as it was when the first was done.
    namespace: Option<Namespace>,
    done: usize,
    /// The answers of a BatchSet.
    out: Vec<u8>,
    /// What a BatchDelete did.
    deleted: Vec<bool>,
    held: Held,
}

impl Batch {
    /// The namespace that all items are of.
    fn namespace<'a>(&mut self, cache: &'a Cache, name: &str) -> Result<Cow<'a, Namespace>, CallError> {
        match self.namespace.take() {
            Some(namespace) => Ok(Cow::Owned(namespace)),
            None => namespace(cache, name),
        }
    }
}

impl Progress {
    /// What finds no room from now on is refused.
    pub(super) fn give_up(&mut self) {
        self.gives_up = true;
    }

    pub(super) fn gives_up(&self) -> bool {
        self.gives_up
    }

    /// Whether a batch is to be broken off at an item that was refused so, and gone on with later.
    fn breaks_off(&self, refusal: &CallError) -> bool {
        !self.gives_up && matches!(refusal, CallError::JournalBacklog { .. })
    }

    /// Keeps a batch that is broken off; the refusal that says so.
    fn keep(&mut self, batch: Batch, namespace: Cow<'_, Namespace>, refusal: CallError) -> CallError {
        self.batch = Some(Box::new(Batch { namespace: Some(namespace.into_owned()), ..batch }));
        refusal
    }
}

/// Does a call; its answer, and whether that waits until what was done is on the disk. One that comes to
/// [`CallError::JournalBacklog`] may be done again later with what `progress` is then.
pub(super) fn call(
    method: Method,
    plane: &Plane,
    message: &[u8],
    progress: &mut Progress,
) -> Result<(Unary, bool), CallError> {
    let (cache, backlog) = (&*plane.cache, &plane.backlog);
    let now = cache.now();
    match method {
        Method::Get => get(cache, backlog, now, message).map(|answer| (answer, false)),
        Method::BatchGet => batch_get(cache, backlog, now, message).map(|answer| (answer, false)),
        Method::BatchSet => batch_set(cache, backlog, now, message, progress),
        Method::BatchDelete => batch_delete(cache, backlog, now, message, progress),
        Method::Scan => keyspace::scan(cache, backlog, now, message).map(|answer| (answer, false)),
        Method::Invalidate => keyspace::invalidate(cache, now, message),
        single => {
            let mut out = vec![0; PREFIX];
            let flush = match single {
                Method::Set => {
                    let view = SetView::read(message)?;
                    put_set(cache, &*namespace(cache, view.namespace)?, now, &view, &mut out)?
                }
                Method::Delete => put_delete(cache, now, &DeleteView::read(message)?, &mut out)?,
                Method::Touch => put_touch(cache, now, &TouchView::read(message)?, &mut out)?,
                Method::Increment => put_increment(cache, now, message, Direction::Up, &mut out)?,
                _ => put_increment(cache, now, message, Direction::Down, &mut out)?,
            };
            finish(&mut out, 0);
            Ok((out.into(), flush))
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
    cache.namespace(name).ok_or_else(|| CallError::NamespaceNotFound { name: name.to_owned() })
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

fn batch_get(cache: &Cache, backlog: &Backlog, now: Now, message: &[u8]) -> Result<Unary, CallError> {
    let view = BatchView::read_get(message)?;
    let limits = &cache.limits();
    let namespace = namespace(cache, view.namespace)?;
    convert::batch(view.items, limits)?;
    let keys: Vec<&[u8]> = view.iter().collect();
    for (index, key) in keys.iter().enumerate() {
        convert::key(key, limits, || format!("keys[{index}]"))?;
    }
    let max = limits.message_out_bytes_max;
    let mut held = backlog.take(PREFIX + encode::field_len(encode::MISS_LEN) * keys.len())?;
    let mut out = Vec::with_capacity(PREFIX + ANSWER_BYTES_LIKELY * keys.len());
    out.resize(PREFIX, 0);
    let (mut answered, mut refused) = (0, None);
    cache.read_batch(&namespace, &keys, now, |_, read| {
        match read {
            Ok(entry) => {
                let hit = HitMessage::new(&entry, false);
                if out.len() - PREFIX + encode::field_len(hit.len()) > max {
                    return ControlFlow::Break(());
                }
                if let Err(error) = held.grow_to(out.len() + encode::field_len(hit.len())) {
                    refused = Some(error);
                    return ControlFlow::Break(());
                }
                hit.write_field(1, &mut out);
            }
            Err(reason) => {
                encode::put_head(&mut out, 1, encode::MISS_LEN);
                encode::put_miss(&mut out, reason);
            }
        }
        answered += 1;
        ControlFlow::Continue(())
    });
    if let Some(error) = refused {
        return Err(error);
    }
    if answered < keys.len() || out.len() - PREFIX > max {
        return Err(CallError::AnswerTooLarge { answered, keys: keys.len(), max });
    }
    finish(&mut out, 0);
    Ok(held.hold(out)?.into())
}

/// What room is made for each answer of a batch before its size is known.
const ANSWER_BYTES_LIKELY: usize = 144;

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
pub(super) fn put_delete(
    on: &impl Does,
    now: Now,
    view: &DeleteView<'_>,
    out: &mut Vec<u8>,
) -> Result<bool, CallError> {
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
pub(super) fn put_increment(
    on: &impl Does,
    now: Now,
    message: &[u8],
    direction: Direction,
    out: &mut Vec<u8>,
) -> Result<bool, CallError> {
    let cache = on.cache();
    let view = IncrementView::read(message)?;
    let increment = convert::increment(&view, direction, &cache.limits())?;
    let namespace = namespace(cache, view.namespace)?;
    let flush = flushes(cache, view.durability)?;
    match on.apply(&namespace, &Op::Increment(increment), now) {
        Outcome::Counted { value, version } => encode::put_counted(out, value, version.0),
        other => return Err(unexpected(&other, increment.delta)),
    }
    Ok(flush)
}

/// Puts the TouchResponse of a Touch.
pub(super) fn put_touch(
    on: &impl Does,
    now: Now,
    view: &TouchView<'_>,
    out: &mut Vec<u8>,
) -> Result<bool, CallError> {
    let cache = on.cache();
    let namespace = namespace(cache, view.namespace)?;
    let flush = flushes(cache, 0)?;
    match on.apply(&namespace, &convert::touch(view, &cache.limits())?, now) {
        Outcome::Touched(found) => encode::put_touched(out, found),
        other => return Err(unexpected(&other, 0)),
    }
    Ok(flush)
}

fn unexpected(outcome: &Outcome, delta: i128) -> CallError {
    match outcome {
        Outcome::Refused(refusal) => CallError::refused(*refusal, delta),
        other => unreachable!("no operation of this kind comes to {other:?}"),
    }
}

fn batch_set(
    cache: &Cache,
    backlog: &Backlog,
    now: Now,
    message: &[u8],
    progress: &mut Progress,
) -> Result<(Unary, bool), CallError> {
    let view = BatchView::read_write(message)?;
    let begun = progress.batch.take();
    let mut batch = match begun {
        Some(begun) => *begun,
        None => begin_sets(cache, backlog, &view)?,
    };
    let namespace = batch.namespace(cache, view.namespace)?;
    let flush = flushes(cache, view.durability)?;
    let mut response = Vec::with_capacity(16);
    for item in view.iter().skip(batch.done) {
        let item = SetView::read(item)?;
        response.clear();
        let done = convert::batch_item(&item, view.namespace, view.durability)
            .and_then(|()| put_set(cache, &namespace, now, &item, &mut response));
        let (field, body) = match done {
            Ok(_) => (1, Bytes::new()),
            Err(error) if progress.breaks_off(&error) => {
                return Err(progress.keep(batch, namespace, error));
            }
            Err(error) => (2, error.to_rpc_status_bytes()),
        };
        let body: &[u8] = if field == 1 { &response } else { &body };
        encode::put_head(&mut batch.out, 1, encode::field_len(body.len()));
        encode::put_head(&mut batch.out, field, body.len());
        batch.out.extend_from_slice(body);
        batch.done += 1;
    }
    finish(&mut batch.out, 0);
    Ok((batch.held.hold_done(batch.out).into(), flush))
}

/// A BatchSet none of whose items is done.
fn begin_sets(cache: &Cache, backlog: &Backlog, view: &BatchView<'_>) -> Result<Batch, CallError> {
    namespace(cache, view.namespace)?;
    flushes(cache, view.durability)?;
    convert::batch(view.items, &cache.limits())?;
    // Every item is read before the first is done: a malformed batch changes nothing.
    for item in view.iter() {
        SetView::read(item)?;
    }
    let likely = PREFIX + STORED_BYTES_LIKELY * view.items;
    let held = backlog.take(likely)?;
    let mut out = Vec::with_capacity(likely);
    out.resize(PREFIX, 0);
    Ok(Batch { namespace: None, done: 0, out, deleted: Vec::new(), held })
}

/// What room is made for each answer of a BatchSet.
const STORED_BYTES_LIKELY: usize = 16;

fn batch_delete(
    cache: &Cache,
    backlog: &Backlog,
    now: Now,
    message: &[u8],
    progress: &mut Progress,
) -> Result<(Unary, bool), CallError> {
    let view = BatchView::read_write(message)?;
    let begun = progress.batch.take();
    let mut batch = match begun {
        Some(begun) => *begun,
        None => begin_deletes(cache, backlog, &view)?,
    };
    let namespace = batch.namespace(cache, view.namespace)?;
    let flush = flushes(cache, view.durability)?;
    for key in view.iter().skip(batch.done) {
        match cache.apply(&namespace, &Op::Delete { key, if_version: None }, now).0 {
            Outcome::Deleted(deleted) => batch.deleted.push(deleted),
            other => {
                let refused = unexpected(&other, 0);
                if progress.breaks_off(&refused) {
                    return Err(progress.keep(batch, namespace, refused));
                }
                return Err(refused);
            }
        }
        batch.done += 1;
    }
    let mut out = vec![0; PREFIX];
    encode::put_batch_deleted(&mut out, &batch.deleted);
    finish(&mut out, 0);
    Ok((batch.held.hold_done(out).into(), flush))
}

/// A BatchDelete none of whose keys is deleted.
fn begin_deletes(cache: &Cache, backlog: &Backlog, view: &BatchView<'_>) -> Result<Batch, CallError> {
    let limits = &cache.limits();
    namespace(cache, view.namespace)?;
    flushes(cache, view.durability)?;
    convert::batch(view.items, limits)?;
    for (index, key) in view.iter().enumerate() {
        convert::key(key, limits, || format!("keys[{index}]"))?;
    }
    let held = backlog.take(PREFIX + encode::field_len(view.items))?;
    let deleted = Vec::with_capacity(view.items);
    Ok(Batch { namespace: None, done: 0, out: Vec::new(), deleted, held })
}
