//! What a Pipeline message asks for, done command by command.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tonic::Code;

use super::deferred::COMMANDS_MAX;
use super::gets::{Gets, put_read};
use super::replies::{Replies, SHORT_REPLY_BYTES_MAX};
use crate::cache::Cache;
use crate::clock::{Now, monotonic};
use crate::engine::NotRead;
use crate::grpc::GrpcError;
use crate::lookup::{Loaded, PendingLoad};
use crate::proto::wire::{Field, Malformed, Reader, op, result};
use crate::request::CallError;
use crate::request::convert;
use crate::request::view::{CommandView, GetView};
use crate::service::codec::encode;
use crate::service::long_requests::RequestPermit;
use crate::service::request::{Request, WriteRequest, verb_of};
use crate::service::unary::{Undone, execute, namespace};
use crate::telemetry::{CallSpan, CallTracer};

/// The clock is read again after this number of commands.
const COMMANDS_PER_CLOCK: usize = 64;
/// A request message that is being worked on.
pub(super) struct Message {
    pub(super) bytes: Bytes,
    /// Where the first command begins that is not done.
    begin: usize,
    pub(super) arrived: Instant,
    /// How its first command ended.
    pub(super) code: Code,
    /// How many of its commands are done.
    pub(super) done: usize,
    /// It was sent by a ring.
    by_ring: bool,
    /// Its next command has to wait, and there is no room for it to.
    pub(super) is_held: bool,
    /// How it stands to the journal's backlog.
    pub(super) turn: BacklogTurn,
    /// Of the command that wants its turn.
    pub(super) deadline: Option<Instant>,
    /// Its place in the budget, if it is long.
    pub(super) permit: Option<RequestPermit>,
    /// Of the command that is being done, or is next: its own span, if it has one.
    pub(super) span: Option<Box<CallSpan>>,
}

/// How a message stands to the journal's backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BacklogTurn {
    /// No command has met a full one.
    None,
    /// The next command has, and is to wait for its turn.
    Wanted,
    /// That has come.
    Granted,
    /// The next command may not wait for it, and is refused if there is no room.
    Refused,
    /// The next command may wait for nothing, and is refused if it would have to.
    Unstoppable,
}

impl BacklogTurn {
    fn may_wait(self) -> bool {
        !matches!(self, Self::Refused | Self::Unstoppable)
    }
}

impl Message {
    pub(super) fn new(bytes: Bytes, arrived: Instant) -> Self {
        Self {
            bytes,
            begin: 0,
            arrived,
            code: Code::Ok,
            done: 0,
            by_ring: false,
            is_held: false,
            turn: BacklogTurn::None,
            deadline: None,
            permit: None,
            span: None,
        }
    }

    /// Begins the span of a command that is to have one, unless it was tried before and has it.
    #[inline]
    fn begin_span(&mut self, command: &CommandView<'_>, tracer: &CallTracer) {
        if !command.traceparent.is_empty() && self.span.is_none() {
            let verb = command.op.and_then(|(number, _)| verb_of(number));
            self.span = tracer.begin_command(verb, command.traceparent).map(Box::new);
        }
    }

    /// Ends the span of the command that was done, if it has one.
    #[inline]
    fn end_span(&mut self, code: Code) {
        if let Some(span) = self.span.take() {
            span.end(Some(code));
        }
    }

    /// Whether a command's time has passed.
    fn is_late(&self, command: &CommandView<'_>) -> bool {
        command.timeout_ms > 0 && self.is_late_at(command, monotonic())
    }

    /// Whether it has passed by then.
    fn is_late_at(&self, command: &CommandView<'_>, now: Instant) -> bool {
        now.saturating_duration_since(self.arrived) > Duration::from_millis(command.timeout_ms.into())
    }

    /// Whether a write is to wait behind others.
    fn queues(&self, cache: &Cache) -> bool {
        self.turn == BacklogTurn::None && cache.has_waiting_writes()
    }

    /// Its next command, which begins there, is to wait for its turn.
    fn want_turn(&mut self, command: &CommandView<'_>, begin: usize) {
        let timeout = Duration::from_millis(command.timeout_ms.into());
        self.deadline = (!timeout.is_zero()).then(|| self.arrived + timeout);
        (self.turn, self.begin) = (BacklogTurn::Wanted, begin);
        self.done -= 1;
    }

    pub(super) fn is_done(&self) -> bool {
        self.begin == self.bytes.len()
    }
}

/// Keeps the commands that are not done as they are read.
pub(super) trait Defer {
    /// Whether it keeps none.
    fn is_empty(&self) -> bool;

    /// Whether it keeps a command of the key with this hash.
    fn has(&self, key_hash: u64) -> bool;

    /// Keeps a command, if there is room for it; else it says so, and gives the command's span back.
    fn keep(&mut self, kept: DeferredCommand<'_>) -> Result<(), NoRoom>;

    /// Gives up the command of an id, if it keeps it.
    fn cancel(&mut self, id: u64, out: &mut Replies);
}

/// No more commands are kept; the span of the one that was to be.
#[derive(Debug)]
pub(super) struct NoRoom(pub(super) Option<Box<CallSpan>>);

/// A command that is not done as it is read.
pub(super) struct DeferredCommand<'a> {
    pub(super) id: u64,
    pub(super) timeout_ms: u32,
    pub(super) arrived: Instant,
    /// Its bytes in its message.
    pub(super) bytes: &'a [u8],
    pub(super) key: &'a [u8],
    /// Its key's hash.
    pub(super) key_hash: u64,
    /// Its entry, which is to be loaded; `None`: it waits for others of its key.
    pub(super) pending: Option<PendingLoad>,
    pub(super) span: Option<Box<CallSpan>>,
}

/// Where everything is in memory, nothing is kept.
pub(super) struct NoDefer;

impl Defer for NoDefer {
    #[inline]
    fn is_empty(&self) -> bool {
        true
    }

    #[inline]
    fn has(&self, _: u64) -> bool {
        false
    }

    fn keep(&mut self, kept: DeferredCommand<'_>) -> Result<(), NoRoom> {
        Err(NoRoom(kept.span))
    }

    fn cancel(&mut self, _: u64, _: &mut Replies) {}
}

/// A command takes two bytes or more.
const COMMAND_BYTES_MIN: usize = 2;

/// Refuses a message of more than `max` commands before the first is done. Commands are counted only where the message
/// is long enough to have more; a malformed message is left to [`run`].
pub(super) fn check_length(message: &[u8], max: usize) -> Result<(), CallError> {
    if message.len() / COMMAND_BYTES_MIN <= max {
        return Ok(());
    }
    let mut reader = Reader::with_items(message, max.saturating_add(1));
    let mut items = 0;
    while items <= max
        && let Ok(Some((number, _))) = reader.next()
    {
        items += usize::from(number == 2);
    }
    if items > max { Err(CallError::BatchTooLong { items, max }) } else { Ok(()) }
}

/// Does a message's commands until they are done or there are replies enough; the rest stays in the message.
pub(super) fn run(
    cache: &Cache,
    message: &mut Message,
    defer: &mut impl Defer,
    out: &mut Replies,
) -> Result<(), CallError> {
    let (bytes, limits) = (message.bytes.clone(), &cache.limits());
    let mut reader = Reader::with_items(&bytes[message.begin..], limits.batch_items_max);
    // Read where a command has a time-out, and kept as long as `now`.
    let (mut gets, mut now, mut clock) = (Gets::default(), cache.now(), None);
    message.is_held = false;
    let end = loop {
        let begin = bytes.len() - reader.remaining();
        let command = match next_command(&mut reader, message) {
            Ok(Some(command)) => command,
            end => break end.map(|_| ()),
        };
        if message.done % COMMANDS_PER_CLOCK == COMMANDS_PER_CLOCK - 1 {
            (now, clock) = (cache.now(), None);
        }
        message.done += 1;
        out.commands_left = out.commands_left.saturating_sub(1);
        let is_late = command.timeout_ms > 0 && {
            if out.plane.unread.matters() {
                out.plane.unread.note_timeout(Duration::from_millis(command.timeout_ms.into()));
            }
            message.is_late_at(&command, *clock.get_or_insert_with(monotonic))
        };
        let taken = !message.by_ring
            && !is_late
            && !out.plane.tracer.samples_command(command.traceparent)
            && gets.take(cache, limits, &command, (begin, bytes.len() - reader.remaining()));
        if !taken || gets.is_full() {
            if let Some(left) = gets.answer(cache, now, message, &bytes, defer, out) {
                message.begin = left;
                return Ok(());
            }
            if !taken {
                let whole = &bytes[begin..bytes.len() - reader.remaining()];
                match one(cache, now, &command, whole, message, defer, out) {
                    Stands::Done => {}
                    Stands::WantsTurn => {
                        message.want_turn(&command, begin);
                        return Ok(());
                    }
                    Stands::Held => {
                        (message.begin, message.is_held) = (begin, true);
                        message.done -= 1;
                        return Ok(());
                    }
                }
            }
        }
        if out.are_enough() {
            break Ok(());
        }
    };
    let left = gets.answer(cache, now, message, &bytes, defer, out);
    message.begin = left.unwrap_or(bytes.len() - reader.remaining());
    if left.is_some() { Ok(()) } else { end }
}

/// How a command stands that was tried.
pub(super) enum Stands {
    /// It is answered, or kept.
    Done,
    /// It is to wait for its turn.
    WantsTurn,
    /// It is to be kept, and there is no room for it to.
    Held,
}

/// Does one command that is none of a row of Gets.
fn one(
    cache: &Cache,
    now: Now,
    command: &CommandView<'_>,
    bytes: &[u8],
    message: &mut Message,
    defer: &mut impl Defer,
    out: &mut Replies,
) -> Stands {
    let request = match command.op {
        Some((op::CANCEL, cancel)) => {
            if let Some(id) = id_of(cancel) {
                defer.cancel(id, out);
            }
            return Stands::Done;
        }
        op => request_of(op),
    };
    message.begin_span(command, &out.plane.tracer);
    let (id, timeout_ms, arrived) = (command.id, command.timeout_ms, message.arrived);
    let kept = |key_hash, key, pending| DeferredCommand {
        id,
        timeout_ms,
        arrived,
        bytes,
        key,
        key_hash,
        pending,
        span: None,
    };
    if !message.by_ring && !defer.is_empty() {
        let behind = request.as_ref().ok().and_then(|request| {
            let key = request.keys().next()?;
            let key_hash = cache.key_hash(&*cache.namespace(request.namespace())?, key);
            defer.has(key_hash).then_some((key_hash, key))
        });
        if let Some((key_hash, key)) = behind {
            return keep(defer, kept(key_hash, key, None), message, out);
        }
    }
    match answer(cache, now, command, &request, None, message, out) {
        CommandOutcome::Given => Stands::Done,
        CommandOutcome::WantsTurn => Stands::WantsTurn,
        CommandOutcome::NeedsLoad(pending) => {
            let request = request.expect("what is pending was read");
            let key = request.keys().next().unwrap_or_default();
            let namespace = cache.namespace(request.namespace());
            let key_hash = namespace.map_or(0, |namespace| cache.key_hash(&namespace, key));
            keep(defer, kept(key_hash, key, Some(pending)), message, out)
        }
    }
}

/// Keeps a command, or refuses it where it may not wait for room.
pub(super) fn keep(
    defer: &mut impl Defer,
    kept: DeferredCommand<'_>,
    message: &mut Message,
    out: &mut Replies,
) -> Stands {
    let id = kept.id;
    let Err(NoRoom(span)) = defer.keep(DeferredCommand { span: message.span.take(), ..kept }) else {
        if !message.turn.may_wait() {
            // It was said of this command alone.
            message.turn = BacklogTurn::None;
        }
        return Stands::Done;
    };
    message.span = span;
    if message.turn != BacklogTurn::Unstoppable {
        return Stands::Held;
    }
    message.turn = BacklogTurn::None;
    let code = out.put_error(id, &CallError::CommandsFull { max: COMMANDS_MAX });
    message.end_span(code);
    Stands::Done
}

/// Does the one command of a message, with what was loaded for it.
pub(super) fn run_one(
    cache: &Cache,
    message: &mut Message,
    loaded: Option<Loaded>,
    out: &mut Replies,
) -> Result<CommandOutcome, CallError> {
    let bytes = message.bytes.clone();
    let Some(command) = next_command(&mut Reader::new(&bytes), message)? else {
        return Ok(CommandOutcome::Given);
    };
    message.done += 1;
    let request = request_of(command.op);
    Ok(answer(cache, cache.now(), &command, &request, loaded, message, out))
}

/// The request that a command is.
fn request_of(op: Option<(u32, &[u8])>) -> Result<Request<'_>, CallError> {
    let (number, message) = op.ok_or(CallError::NoOp)?;
    Request::of_command(number, message)?.ok_or(CallError::NoOp)
}

/// The id in a CancelRequest; `None`: it cannot be read, and cancels nothing.
fn id_of(message: &[u8]) -> Option<u64> {
    let (mut reader, mut id) = (Reader::new(message), 0);
    while let Some((number, field)) = reader.next().ok()? {
        match (number, field) {
            (1, Field::Varint(value)) => id = value,
            (1, _) => return None,
            _ => {}
        }
    }
    Some(id)
}

fn next_command<'a>(
    reader: &mut Reader<'a>,
    message: &mut Message,
) -> Result<Option<CommandView<'a>>, CallError> {
    while let Some((number, field)) = reader.next()? {
        match (number, field) {
            (1, Field::Fixed64(0)) => {}
            (1, Field::Fixed64(_)) if message.done == 0 => message.by_ring = true,
            // As no writer of protobuf puts it, and what it was said of is done.
            (1, Field::Fixed64(_)) => {
                return Err(GrpcError::Frame { what: "ring_epoch stands behind commands" }.into());
            }
            (2, Field::Bytes(command)) => return Ok(Some(CommandView::read(command)?)),
            (field @ (1 | 2), _) => return Err(Malformed::WireType { field }.into()),
            _ => {}
        }
    }
    Ok(None)
}

/// What a command comes to.
#[derive(Debug)]
pub(super) enum CommandOutcome {
    /// Its reply was put, if it has one.
    Given,
    /// It is to wait for its turn.
    WantsTurn,
    /// Its entry is to be loaded first.
    NeedsLoad(PendingLoad),
}

/// A reply that was put.
enum Put {
    /// It is sent with the others.
    Now(Code),
    /// It waits until what it tells of is on the disk.
    OnceFlushed,
}

/// Does one command, with what was loaded for it, and puts its reply, nothing of which is put before it is certain.
fn answer(
    cache: &Cache,
    now: Now,
    command: &CommandView<'_>,
    request: &Result<Request<'_>, CallError>,
    loaded: Option<Loaded>,
    message: &mut Message,
    out: &mut Replies,
) -> CommandOutcome {
    let done = match request {
        _ if message.is_late(command) => Err(CallError::from(GrpcError::DeadlineExceeded).into()),
        Err(error) => Err(error.clone().into()),
        Ok(_) if message.by_ring => Err(CallError::NotServed { what: "ring_epoch".to_owned() }.into()),
        Ok(Request::Get(view)) => put_get(cache, now, command.id, view, loaded, out),
        Ok(_) if message.queues(cache) => return CommandOutcome::WantsTurn,
        Ok(Request::Write(write)) => put_write(cache, now, command, write, loaded, out),
        // No field of a command's op reads as one; see `Request::of_command`.
        Ok(Request::Batch(..) | Request::Scan(_) | Request::Invalidate(_)) => {
            Err(CallError::NotServed { what: "a command that is no operation on one key".to_owned() }.into())
        }
    };
    let done = match done {
        Err(Undone::NeedsLoad(pending)) => return CommandOutcome::NeedsLoad(pending),
        Err(Undone::Failed(error)) => Err(error),
        Ok(put) => Ok(put),
    };
    let may_wait = message.turn.may_wait();
    if !may_wait {
        // It was said of this command alone.
        message.turn = BacklogTurn::None;
    }
    let code = match done {
        Ok(Put::Now(code)) => code,
        Ok(Put::OnceFlushed) => {
            out.later_spans.extend(message.span.take().map(|span| *span));
            return CommandOutcome::Given;
        }
        Err(mut error) => {
            if let CallError::JournalBacklog { .. } = error {
                if may_wait {
                    return CommandOutcome::WantsTurn;
                }
                // It has waited for its turn, perhaps beyond its deadline.
                if message.is_late(command) {
                    error = GrpcError::DeadlineExceeded.into();
                }
            }
            out.put_error(command.id, &error)
        }
    };
    if message.done == 1 {
        message.code = code;
    }
    message.end_span(code);
    CommandOutcome::Given
}

fn put_get(
    cache: &Cache,
    now: Now,
    id: u64,
    view: &GetView<'_>,
    loaded: Option<Loaded>,
    out: &mut Replies,
) -> Result<Put, Undone> {
    let get = convert::get(view, &cache.limits())?;
    let namespace = namespace(cache, view.namespace)?;
    let mut code = Code::Ok;
    let read = cache.try_read(&namespace, get.key, get.touch, now, loaded, |entry| {
        code = put_read(&namespace, id, get.metadata_only, Ok(entry), out);
    });
    match read {
        Ok(()) => Ok(Put::Now(code)),
        Err(NotRead::Miss(reason)) => {
            Ok(Put::Now(put_read(&namespace, id, false, Err(NotRead::Miss(reason)), out)))
        }
        Err(NotRead::Refused(refusal)) => Err(CallError::refused(refusal, 0).into()),
        Err(NotRead::NeedsLoad(pending)) => Err(Undone::NeedsLoad(pending)),
    }
}

fn put_write(
    cache: &Cache,
    now: Now,
    command: &CommandView<'_>,
    write: &WriteRequest<'_>,
    loaded: Option<Loaded>,
    out: &mut Replies,
) -> Result<Put, Undone> {
    // None of these answers is longer than 32 bytes.
    let mut result = Vec::with_capacity(32);
    let flush = execute(cache, now, write, loaded, &mut result)?;
    let out = if flush {
        &mut out.later
    } else {
        out.make_room(SHORT_REPLY_BYTES_MAX);
        &mut out.bytes
    };
    let number = command.op.map_or(0, |(number, _)| number);
    encode::put_reply_head(out, command.id, result::of_op(number), result.len());
    out.extend_from_slice(&result);
    Ok(if flush { Put::OnceFlushed } else { Put::Now(Code::Ok) })
}
