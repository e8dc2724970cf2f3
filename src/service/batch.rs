//! BatchGet, BatchSet and BatchDelete: many items in one message, done in steps.
//!
//! An answer keeps to the limit on messages. A batch that changes something is refused before its first item is done if
//! its answer could not be told; then errors give up words for room, and never a code.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::pin::Pin;

use super::data::Plane;
use super::request::BatchKind;
use super::response_backlog::ResponsePermit;
use super::turns::{STEP_ITEMS, Turns};
use super::unary::{Undone, flushes, namespace, put_set};
use crate::cache::Cache;
use crate::clock::Now;
use crate::engine::{EntryView, Namespace, NotRead, Op, Outcome};
use crate::entry::Limits;
use crate::grpc::frame::{PREFIX, finish};
use crate::grpc::{Failure, STATUS_BYTES_MIN};
use crate::grpc::{Trailers, Unary};
use crate::lookup::{Loaded, Loading};
use crate::proto::wire;
use crate::request::CallError;
use crate::request::convert;
use crate::request::view::{BatchView, SetView};
use crate::service::codec::encode::{self, HitMessage};

/// What room is made for each answer of a BatchGet before its size is known.
const ANSWER_BYTES_LIKELY: usize = 144;
/// What room is made for each answer of a BatchSet.
const STORED_BYTES_LIKELY: usize = 16;
/// The most that an item takes in the answer to a BatchSet, if it is no error or an error's code alone.
const RESULT_BYTES_MAX: usize = 40;
/// The heads around an item's error.
const ERROR_HEADS_BYTES: usize = 8;
const _: () = assert!(RESULT_BYTES_MAX >= ERROR_HEADS_BYTES + STATUS_BYTES_MIN);
/// Keys of a BatchGet whose entries it has loaded together, where memory has not got them.
const TOGETHER_MAX: usize = 32;
/// What it has loaded of those, keys and values, before it comes to them.
const TOGETHER_BYTES_MAX: usize = 128 << 10;

/// How far a batch is that was interrupted: by a full journal's backlog, by a load, or by the end of its turn; and what
/// the call's answer is to say beside the message.
#[derive(Debug, Default)]
pub(super) struct CallProgress {
    /// What goes into the answer's trailers, be it a message or a refusal.
    pub(super) trailers: Trailers,
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
    held: ResponsePermit,
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

impl CallProgress {
    /// What finds no room from now on is refused.
    pub(super) fn give_up(&mut self) {
        self.gives_up = true;
    }

    pub(super) fn gives_up(&self) -> bool {
        self.gives_up
    }

    /// Whether items of a batch are done.
    pub(super) fn has_begun(&self) -> bool {
        self.batch.is_some()
    }

    /// Whether a batch is to be broken off at an item that was refused so, and gone on with later.
    fn breaks_off(&self, refusal: &CallError) -> bool {
        !self.gives_up && matches!(refusal, CallError::JournalBacklog { .. })
    }

    /// Keeps a batch that is broken off.
    fn keep(&mut self, batch: Batch, namespace: Cow<'_, Namespace>) {
        self.batch = Some(Box::new(Batch { namespace: Some(namespace.into_owned()), ..batch }));
    }
}

/// Does a batch. Where it has one turn only, what is not in memory breaks it off.
pub(super) async fn run(
    plane: &Plane,
    kind: BatchKind,
    view: &BatchView<'_>,
    progress: &mut CallProgress,
    mut turns: Turns,
) -> Result<(Unary, bool), Undone> {
    match kind {
        BatchKind::Get => get(plane, view, &mut turns).await,
        BatchKind::Set => set(plane, view, progress, &mut turns).await,
        BatchKind::Delete => delete(plane, view, progress, &mut turns).await,
    }
}

async fn get(plane: &Plane, view: &BatchView<'_>, turns: &mut Turns) -> Result<(Unary, bool), Undone> {
    let (cache, limits) = (&*plane.cache, &plane.cache.limits());
    convert::batch(view.items, limits)?;
    let namespace = namespace(cache, view.namespace)?;
    let keys = keys(view, limits)?;
    let held = plane.response_backlog.take(PREFIX + wire::field_len(encode::MISS_LEN) * keys.len())?;
    let mut out = Vec::with_capacity(PREFIX + ANSWER_BYTES_LIKELY * keys.len());
    out.resize(PREFIX, 0);
    let max = limits.message_out_bytes_max;
    let mut answers = Answers { namespace: &namespace, out, held, max, answered: 0, refused: None };
    for step in keys.chunks(STEP_ITEMS) {
        let before = answers.answered;
        read_step(cache, &namespace, step, &mut answers, turns).await?;
        if let Some(error) = answers.refused {
            return Err(error.into());
        }
        if answers.answered < before + step.len() {
            let answered = answers.answered;
            return Err(CallError::AnswerTooLarge { answered, keys: keys.len(), max }.into());
        }
        turns.pass().await;
    }
    let Answers { mut out, held, .. } = answers;
    finish(&mut out, 0);
    Ok((held.count_in(out)?.into(), false))
}

/// The answers of a BatchGet so far.
struct Answers<'a> {
    namespace: &'a Namespace,
    out: Vec<u8>,
    held: ResponsePermit,
    max: usize,
    answered: usize,
    refused: Option<CallError>,
}

impl Answers<'_> {
    /// Puts the next answer, if it finds room.
    #[inline]
    fn put(&mut self, read: Result<EntryView<'_>, NotRead>) -> ControlFlow<()> {
        let hit = match &read {
            Ok(entry) => Ok(HitMessage::new(self.namespace, entry, false)),
            Err(NotRead::Miss(reason)) => Err(*reason),
            Err(NotRead::Refused(refusal)) => {
                self.refused = Some(CallError::refused(*refusal, 0));
                return ControlFlow::Break(());
            }
            Err(NotRead::NeedsLoad(never)) => match *never {},
        };
        let length = hit.as_ref().map_or(encode::MISS_LEN, HitMessage::len);
        let whole = self.out.len() + wire::field_len(length);
        if whole - PREFIX > self.max {
            return ControlFlow::Break(());
        }
        match hit {
            Ok(hit) => {
                if let Err(error) = self.held.grow_to(whole) {
                    self.refused = Some(error);
                    return ControlFlow::Break(());
                }
                hit.write_field(1, &mut self.out);
            }
            Err(reason) => {
                wire::put_head(&mut self.out, 1, encode::MISS_LEN);
                encode::put_miss(&mut self.out, reason);
            }
        }
        self.answered += 1;
        ControlFlow::Continue(())
    }
}

/// Reads entries until one has no answer that finds room.
async fn read_step(
    cache: &Cache,
    namespace: &Namespace,
    keys: &[&[u8]],
    answers: &mut Answers<'_>,
    turns: &Turns,
) -> Result<(), Undone> {
    let mut at = 0;
    loop {
        let rest = &keys[at..];
        let read = cache.try_read_batch(namespace, rest, cache.now(), |_, read| answers.put(read));
        let Err((index, pending)) = read else { return Ok(()) };
        if turns.is_one() {
            return Err(Undone::NeedsLoad(pending));
        }
        drop(pending);
        let together = &rest[index..rest.len().min(index + TOGETHER_MAX)];
        if read_together(cache, namespace, together, answers).await.is_break() {
            return Ok(());
        }
        at += index + together.len();
    }
}

/// Reads entries many of which are to be loaded.
async fn read_together(
    cache: &Cache,
    namespace: &Namespace,
    keys: &[&[u8]],
    answers: &mut Answers<'_>,
) -> ControlFlow<()> {
    let load = |key: &&[u8]| Some(cache.pending_load_of(namespace, key)?.into_loading(key));
    let mut loads: Vec<_> = keys.iter().map(load).collect();
    let mut now = cache.now();
    for (at, key) in keys.iter().enumerate() {
        if loads[at].as_ref().is_some_and(Loading::is_idle) {
            Loading::start_together(loads[at..].iter().flatten(), TOGETHER_BYTES_MAX);
        }
        let mut load = loads[at].take();
        loop {
            let loaded = match load.take() {
                Some(loading) => Some(loaded(loading, cache, &mut now).await),
                None => None,
            };
            let mut next = ControlFlow::Continue(());
            let found = |entry: EntryView<'_>| next = answers.put(Ok(entry));
            match cache.try_read(namespace, key, None, now, loaded, found) {
                Ok(()) => {}
                Err(not_read) => match not_read.settled() {
                    Ok(not_read) => next = answers.put(Err(not_read)),
                    Err(pending) => {
                        load = Some(pending.into_loading(key));
                        continue;
                    }
                },
            }
            next?;
            break;
        }
    }
    ControlFlow::Continue(())
}

/// Waits for a load, and tells the time again if it had to.
async fn loaded(mut loading: Loading, cache: &Cache, now: &mut Now) -> Loaded {
    let mut waits = false;
    let loaded = poll_fn(|cx| {
        let polled = Pin::new(&mut loading).poll(cx);
        waits |= polled.is_pending();
        polled
    });
    let loaded = loaded.await;
    if waits {
        *now = cache.now();
    }
    loaded
}

async fn set(
    plane: &Plane,
    view: &BatchView<'_>,
    progress: &mut CallProgress,
    turns: &mut Turns,
) -> Result<(Unary, bool), Undone> {
    let cache = &*plane.cache;
    let mut batch = match progress.batch.take() {
        Some(begun) => *begun,
        None => begin_sets(plane, view, turns).await?,
    };
    let namespace = batch.namespace(cache, view.namespace)?;
    let flush = flushes(cache, view.durability)?;
    let max = cache.limits().message_out_bytes_max;
    let mut response = Vec::with_capacity(RESULT_BYTES_MAX);
    let (mut now, mut loaded) = (cache.now(), None);
    let mut items = view.iter().skip(batch.done);
    let mut next = items.next();
    while let Some(bytes) = next {
        let item = SetView::read(bytes)?;
        response.clear();
        let done = match convert::batch_item(&item, view.namespace, view.durability) {
            Ok(()) => put_set(cache, &namespace, now, &item, loaded.take(), &mut response),
            Err(error) => Err(error.into()),
        };
        let field = match done {
            Ok(_) => 1,
            Err(Undone::NeedsLoad(pending)) if turns.is_one() => {
                progress.keep(batch, namespace);
                return Err(Undone::NeedsLoad(pending));
            }
            Err(Undone::NeedsLoad(pending)) => {
                loaded = Some(pending.into_loading(item.key).await);
                continue;
            }
            Err(Undone::Failed(error)) if progress.breaks_off(&error) => {
                progress.keep(batch, namespace);
                return Err(error.into());
            }
            Err(Undone::Failed(error)) => {
                // What those behind it need is theirs.
                let theirs = RESULT_BYTES_MAX * (view.items - batch.done - 1);
                let room = max.saturating_sub(batch.out.len() - PREFIX + theirs + ERROR_HEADS_BYTES);
                response.clear();
                response.extend_from_slice(&error.to_rpc_status_bytes_within(room));
                2
            }
        };
        wire::put_head(&mut batch.out, 1, wire::field_len(response.len()));
        wire::put_head(&mut batch.out, field, response.len());
        batch.out.extend_from_slice(&response);
        batch.done += 1;
        if batch.done.is_multiple_of(STEP_ITEMS) {
            turns.pass().await;
            now = cache.now();
        }
        next = items.next();
    }
    finish(&mut batch.out, 0);
    Ok((batch.held.count_in_done(batch.out).into(), flush))
}

/// A BatchSet none of whose items is done.
async fn begin_sets(plane: &Plane, view: &BatchView<'_>, turns: &mut Turns) -> Result<Batch, CallError> {
    let cache = &*plane.cache;
    convert::batch(view.items, &cache.limits())?;
    namespace(cache, view.namespace)?;
    flushes(cache, view.durability)?;
    answer_fits(view.items, RESULT_BYTES_MAX * view.items, cache.limits().message_out_bytes_max)?;
    // Every item is read before the first is done: a malformed batch changes nothing.
    for (number, item) in view.iter().enumerate() {
        SetView::read(item)?;
        if number % STEP_ITEMS == STEP_ITEMS - 1 {
            turns.pass().await;
        }
    }
    let likely = PREFIX + STORED_BYTES_LIKELY * view.items;
    let held = plane.response_backlog.take(likely)?;
    let mut out = Vec::with_capacity(likely);
    out.resize(PREFIX, 0);
    Ok(Batch { namespace: None, done: 0, out, deleted: Vec::new(), held })
}

async fn delete(
    plane: &Plane,
    view: &BatchView<'_>,
    progress: &mut CallProgress,
    turns: &mut Turns,
) -> Result<(Unary, bool), Undone> {
    let cache = &*plane.cache;
    let mut batch = match progress.batch.take() {
        Some(begun) => *begun,
        None => begin_deletes(plane, view)?,
    };
    let namespace = batch.namespace(cache, view.namespace)?;
    let flush = flushes(cache, view.durability)?;
    let (mut now, mut loaded) = (cache.now(), None);
    let mut keys = view.iter().skip(batch.done);
    let mut next = keys.next();
    while let Some(key) = next {
        let delete = Op::Delete { key, if_version: None };
        match cache.try_apply(&namespace, &delete, now, loaded.take()) {
            Ok(Outcome::Deleted(deleted)) => batch.deleted.push(deleted),
            Err(pending) if turns.is_one() => {
                progress.keep(batch, namespace);
                return Err(Undone::NeedsLoad(pending));
            }
            Err(pending) => {
                loaded = Some(pending.into_loading(key).await);
                continue;
            }
            Ok(other) => {
                let refused = convert::unexpected(&other, 0);
                if progress.breaks_off(&refused) {
                    progress.keep(batch, namespace);
                    return Err(refused.into());
                }
                return Err(match refused {
                    CallError::JournalBacklog { bytes } if batch.done > 0 => {
                        CallError::DeletesBrokenOff { done: batch.done, keys: view.items, bytes }
                    }
                    refused => refused,
                }
                .into());
            }
        }
        batch.done += 1;
        if batch.done.is_multiple_of(STEP_ITEMS) {
            turns.pass().await;
            now = cache.now();
        }
        next = keys.next();
    }
    let mut out = vec![0; PREFIX];
    encode::put_batch_deleted(&mut out, &batch.deleted);
    finish(&mut out, 0);
    Ok((batch.held.count_in_done(out).into(), flush))
}

/// A BatchDelete none of whose keys is deleted.
fn begin_deletes(plane: &Plane, view: &BatchView<'_>) -> Result<Batch, CallError> {
    let (cache, limits) = (&*plane.cache, &plane.cache.limits());
    convert::batch(view.items, limits)?;
    namespace(cache, view.namespace)?;
    flushes(cache, view.durability)?;
    answer_fits(view.items, wire::field_len(view.items), limits.message_out_bytes_max)?;
    keys(view, limits)?;
    let held = plane.response_backlog.take(PREFIX + wire::field_len(view.items))?;
    let deleted = Vec::with_capacity(view.items);
    Ok(Batch { namespace: None, done: 0, out: Vec::new(), deleted, held })
}

/// The keys of a batch, all of them within the limits.
fn keys<'a>(view: &BatchView<'a>, limits: &Limits) -> Result<Vec<&'a [u8]>, CallError> {
    let mut keys = Vec::with_capacity(view.items);
    for (index, key) in view.iter().enumerate() {
        keys.push(convert::key(key, limits, || format!("keys[{index}]"))?);
    }
    Ok(keys)
}

/// Refuses a batch whose answer may be longer than the limit: nothing of it has been done.
fn answer_fits(items: usize, bytes: usize, max: usize) -> Result<(), CallError> {
    if bytes <= max {
        return Ok(());
    }
    // As many as would fit.
    Err(CallError::AnswerTooLarge { answered: items * max / bytes, keys: items, max })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use prost::Message;
    use tonic::Code;

    use super::*;
    use crate::engine::EngineConfig;
    use crate::grpc::ResponseBody;
    use crate::proto::v1;
    use crate::service::request::{ITEMS_AT_ONCE, Request};
    use crate::service::unary::{Answered, in_turns};
    use crate::verb::Verb;

    fn plane(message_out_bytes_max: usize) -> Plane {
        let limits = Limits { message_out_bytes_max, ..Limits::default() };
        Plane::alone(Cache::new(&EngineConfig::default(), limits))
    }

    fn at_once(verb: Verb, plane: &Plane, request: &impl Message) -> Answered {
        let message = request.encode_to_vec();
        let request = Request::decode(verb, &message, 10_000).unwrap().unwrap();
        let done = in_turns(plane, &request, &mut CallProgress::default(), Turns::one()).now_or_never();
        done.expect("it has one turn").map_err(|undone| match undone {
            Undone::Failed(error) => error,
            Undone::NeedsLoad(_) => unreachable!("all is in memory"),
        })
    }

    /// The answer's message.
    fn message(answered: Answered) -> Vec<u8> {
        let body = ResponseBody::unary(answered.unwrap().0).into_body();
        let whole = body.collect().now_or_never().unwrap().unwrap().to_bytes();
        whole[PREFIX..].to_vec()
    }

    fn item(key: usize, namespace: &str) -> v1::SetRequest {
        v1::SetRequest {
            namespace: namespace.to_owned(),
            key: key.to_string().into(),
            value: "v".into(),
            ..v1::SetRequest::default()
        }
    }

    #[test]
    fn items_errors_give_up_words_where_the_answer_has_no_room_for_them() {
        let long = "n".repeat(4_000);
        for (max, items) in [(4 << 20, 1_000), (RESULT_BYTES_MAX * 1_000, 1_000), (100_000, 1_000)] {
            let plane = plane(max);
            // Every tenth is well.
            let items: Vec<_> = (0..items).map(|n| item(n, if n % 10 == 0 { "" } else { &long })).collect();
            let count = items.len();
            let request = v1::BatchSetRequest { items, ..v1::BatchSetRequest::default() };
            let message = message(at_once(Verb::BatchSet, &plane, &request));
            assert!(message.len() <= max, "{} bytes of {max}", message.len());
            let response = v1::BatchSetResponse::decode(&*message).unwrap();
            assert_eq!(response.results.len(), count);
            for (number, result) in response.results.into_iter().enumerate() {
                match result.result.unwrap() {
                    v1::set_result::Result::Response(_) => assert_eq!(number % 10, 0),
                    v1::set_result::Result::Error(status) => {
                        assert_eq!((status.code, number % 10 == 0), (Code::InvalidArgument as i32, false));
                        assert!(status.encoded_len() < 1_200, "{} bytes", status.encoded_len());
                    }
                }
            }
            assert_eq!(plane.cache.stats().entries, 100);
        }
    }

    #[test]
    fn a_batch_whose_answer_could_not_be_told_is_refused_before_anything_is_done() {
        let plane = plane(1 << 10);
        let items = (0..100).map(|n| item(n, "")).collect();
        let request = v1::BatchSetRequest { items, ..v1::BatchSetRequest::default() };
        let error = at_once(Verb::BatchSet, &plane, &request).err().unwrap();
        assert!(matches!(error, CallError::AnswerTooLarge { keys: 100, max: 1_024, .. }), "{error:?}");
        assert_eq!(plane.cache.stats().entries, 0);
        let keys = (0..2_000).map(|n| n.to_string().into()).collect();
        let request = v1::BatchDeleteRequest { keys, ..v1::BatchDeleteRequest::default() };
        let error = at_once(Verb::BatchDelete, &plane, &request).err().unwrap();
        assert!(matches!(error, CallError::AnswerTooLarge { keys: 2_000, .. }), "{error:?}");
        let keys = (0..200).map(|n| n.to_string().into()).collect();
        let request = v1::BatchGetRequest { keys, ..v1::BatchGetRequest::default() };
        let error = at_once(Verb::BatchGet, &plane, &request).err().unwrap();
        assert!(matches!(error, CallError::AnswerTooLarge { answered: 170, keys: 200, .. }), "{error:?}");
    }

    #[tokio::test]
    async fn others_run_while_a_long_call_is_under_way() {
        let plane = plane(4 << 20);
        let items = (0..10_000).map(|n| item(n, "")).collect();
        let set = v1::BatchSetRequest { items, ..v1::BatchSetRequest::default() }.encode_to_vec();
        let keys: Vec<bytes::Bytes> = (0..10_000).map(|n| n.to_string().into()).collect();
        let get =
            v1::BatchGetRequest { keys: keys.clone(), ..v1::BatchGetRequest::default() }.encode_to_vec();
        let delete = v1::BatchDeleteRequest { keys, ..v1::BatchDeleteRequest::default() }.encode_to_vec();
        let scan = v1::ScanRequest { page_size: 10_000, ..v1::ScanRequest::default() }.encode_to_vec();
        let turns = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&turns);
        let other = tokio::spawn(async move {
            loop {
                seen.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let calls =
            [(Verb::BatchSet, set), (Verb::BatchGet, get), (Verb::Scan, scan), (Verb::BatchDelete, delete)];
        for (verb, message) in calls {
            let request = Request::decode(verb, &message, 10_000).unwrap().unwrap();
            assert!(request.is_long(message.len()));
            let before = turns.load(Ordering::Relaxed);
            let mut progress = CallProgress::default();
            in_turns(&plane, &request, &mut progress, Turns::many()).await.unwrap();
            let others = turns.load(Ordering::Relaxed) - before;
            assert!(others >= 2, "{verb:?}: others ran {others} times");
        }
        other.abort();
        assert_eq!(plane.cache.stats().entries, 0, "what was set was deleted");
    }

    #[test]
    fn short_batches_are_done_at_once() {
        let is_long = |count: usize| {
            let keys = (0..count).map(|n| n.to_string().into()).collect();
            let message = v1::BatchGetRequest { keys, ..v1::BatchGetRequest::default() }.encode_to_vec();
            let request = Request::decode(Verb::BatchGet, &message, 10_000).unwrap().unwrap();
            request.is_long(message.len())
        };
        assert!(!is_long(ITEMS_AT_ONCE) && is_long(ITEMS_AT_ONCE + 1));
    }
}
