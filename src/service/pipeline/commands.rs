//! What a Pipeline message asks for, done command by command.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tonic::Code;

use super::waiting::COMMANDS_MAX;
use crate::cache::Cache;
use crate::clock::{Now, monotonic};
use crate::engine::{EntryView, MissReason, Namespace};
use crate::entry::Limits;
use crate::grpc::frame::{PREFIX, finish};
use crate::grpc::{Failure, GrpcError};
use crate::service::backlog::SHORT_BYTES_MAX;
use crate::service::below::Does;
use crate::service::codec::Malformed;
use crate::service::codec::convert;
use crate::service::codec::encode::{self, HitMessage};
use crate::service::codec::wire::{CommandView, Field, GetView, Reader, op};
use crate::service::data::Plane;
use crate::service::error::CallError;
use crate::service::request::Request;
use crate::service::requests::Admission;
use crate::service::unary::{execute, namespace};

/// Replies are sent when this many bytes of them are ready, or when no request is.
const REPLIES_BYTES: usize = 256 << 10;
/// The clock is read again after so many commands.
const COMMANDS_PER_CLOCK: usize = 64;
/// Gets in a row that are read together.
const GETS_MAX: usize = 16;
/// What a reply takes beside its result, at most.
const REPLY_HEADS_BYTES: usize = 32;
/// A reply that is neither a Hit nor an error, at most.
const SHORT_REPLY_BYTES_MAX: usize = 64;
/// PipelineReply's field for an error.
const REPLY_ERROR: u32 = 9;

/// A request message that is being worked on.
pub(super) struct Message {
    pub(super) bytes: Bytes,
    /// Where the first command begins that is not done.
    begin: usize,
    pub(super) arrived: Instant,
    /// How its first command ended.
    pub(super) code: Code,
    /// How many of its commands are done.
    done: usize,
    /// It was sent by a ring.
    by_ring: bool,
    /// Its next command has to wait, and there is no room for it to.
    pub(super) is_held: bool,
    /// How it stands to the journal's backlog.
    pub(super) turn: BacklogTurn,
    /// Of the command that wants its turn.
    pub(super) deadline: Option<Instant>,
    /// Its place in the budget, if it is long.
    pub(super) admission: Option<Admission>,
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
    /// The next command may not wait, and is refused if there is no room.
    Refused,
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
            admission: None,
        }
    }

    /// Whether a command's time has passed.
    fn is_late(&self, command: &CommandView<'_>) -> bool {
        command.timeout_ms > 0
            && monotonic().saturating_duration_since(self.arrived)
                > Duration::from_millis(command.timeout_ms.into())
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

/// The replies of a frame, in messages that keep to the limit.
pub(super) struct Replies {
    pub(super) bytes: Vec<u8>,
    /// Where the last message begins.
    begin: usize,
    /// How long a message may be.
    message_max: usize,
    /// How many commands are done before others run.
    pub(super) commands_left: usize,
    /// When so many bytes are here, they are sent.
    enough: usize,
    /// A reply that is longer finds no room in the backlog.
    longest: usize,
    pub(super) plane: Arc<Plane>,
    /// Those that wait until what they tell of is on the disk.
    pub(super) later: Vec<u8>,
}

impl Replies {
    pub(super) fn new(plane: &Arc<Plane>, likely: usize, commands_left: usize) -> Self {
        let room = plane.backlog.room(REPLIES_BYTES);
        let enough = if room < REPLIES_BYTES { SHORT_BYTES_MAX } else { REPLIES_BYTES };
        let longest = room.max(SHORT_BYTES_MAX);
        let message_max = plane.cache.limits().message_out_bytes_max;
        // What waits for the disk is one message, and one more reply may come to it.
        let enough = enough.min(message_max.saturating_sub(SHORT_REPLY_BYTES_MAX));
        Self {
            bytes: Vec::with_capacity(likely.min(enough)),
            begin: 0,
            message_max,
            commands_left,
            enough,
            longest,
            plane: Arc::clone(plane),
            later: Vec::new(),
        }
    }

    #[inline]
    pub(super) fn are_enough(&self) -> bool {
        self.bytes.len() + self.later.len() >= self.enough || self.commands_left == 0
    }

    /// Begins a message of replies.
    pub(super) fn begin(&mut self) {
        self.begin = self.bytes.len();
        self.bytes.resize(self.begin + PREFIX, 0);
    }

    /// Ends the message that was begun; there is none if nothing was put into it.
    pub(super) fn end(&mut self) {
        if self.bytes.len() == self.begin + PREFIX {
            self.bytes.truncate(self.begin);
        } else {
            finish(&mut self.bytes, self.begin);
        }
    }

    /// Ends the message and begins another if a reply of this length finds no room in it.
    #[inline]
    pub(super) fn make_room(&mut self, reply: usize) {
        let first = self.begin + PREFIX;
        if self.bytes.len() > first && self.bytes.len() - first + reply > self.message_max {
            self.end();
            self.begin();
        }
    }

    /// Puts the reply of a command that failed.
    pub(super) fn put_error(&mut self, id: u64, error: &CallError) {
        let status = error.to_rpc_status_bytes_within(self.message_max.saturating_sub(REPLY_HEADS_BYTES));
        self.make_room(status.len() + REPLY_HEADS_BYTES);
        encode::put_reply_head(&mut self.bytes, id, REPLY_ERROR, status.len());
        self.bytes.extend_from_slice(&status);
    }
}

/// What takes on the commands that are not to be done as they are read.
pub(super) trait Aside {
    /// Whether a command is such a one, and what for.
    fn takes(&self, cache: &Cache, command: &CommandView<'_>) -> Option<Taken>;

    /// Takes a command on, whose bytes in its message are these; whether there was room for it.
    fn take(
        &mut self,
        taken: Taken,
        command: &CommandView<'_>,
        bytes: &[u8],
        arrived: Instant,
        out: &mut Replies,
    ) -> bool;
}

/// What a command is taken on for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It waits: for the disk, or for another that does and has the same key, which this stands for.
    Waits { place: u64 },
    /// It gives up one that waits.
    Cancels { id: u64 },
}

/// Where everything is in memory, nothing waits.
pub(super) struct NothingWaits;

impl Aside for NothingWaits {
    #[inline]
    fn takes(&self, _: &Cache, _: &CommandView<'_>) -> Option<Taken> {
        None
    }

    #[inline]
    fn take(&mut self, _: Taken, _: &CommandView<'_>, _: &[u8], _: Instant, _: &mut Replies) -> bool {
        false
    }
}

/// A command takes two bytes or more.
const COMMAND_BYTES_MIN: usize = 2;

/// Refuses a message with too many commands before the first is done. Only a message that may have so many is
/// counted; one that is malformed is for [`run`] to tell.
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
    aside: &mut impl Aside,
    out: &mut Replies,
) -> Result<(), CallError> {
    let (bytes, limits) = (message.bytes.clone(), &cache.limits());
    let mut reader = Reader::with_items(&bytes[message.begin..], limits.batch_items_max);
    let (mut gets, mut now) = (Gets::default(), cache.now());
    message.is_held = false;
    let end = loop {
        let begin = bytes.len() - reader.remaining();
        let command = match next_command(&mut reader, message) {
            Ok(Some(command)) => command,
            end => break end.map(|_| ()),
        };
        if message.done % COMMANDS_PER_CLOCK == COMMANDS_PER_CLOCK - 1 {
            now = cache.now();
        }
        message.done += 1;
        out.commands_left = out.commands_left.saturating_sub(1);
        if !message.by_ring
            && let Some(taken) = aside.takes(cache, &command)
        {
            // Those before it may be of the same key.
            if let Some(left) = gets.answer(cache, now, out) {
                message.begin = left;
                return Ok(());
            }
            let whole = &bytes[begin..bytes.len() - reader.remaining()];
            if aside.take(taken, &command, whole, message.arrived, out) {
                continue;
            }
            if message.turn != BacklogTurn::Refused {
                (message.begin, message.is_held) = (begin, true);
                message.done -= 1;
                return Ok(());
            }
            message.turn = BacklogTurn::None;
            out.put_error(command.id, &CallError::CommandsFull { max: COMMANDS_MAX });
            continue;
        }
        let taken = !message.by_ring && gets.take(cache, limits, &command, begin);
        if !taken || gets.is_full() {
            if let Some(left) = gets.answer(cache, now, out) {
                message.begin = left;
                return Ok(());
            }
            if !taken && !answer(cache, now, &command, message, out) {
                message.want_turn(&command, begin);
                return Ok(());
            }
        }
        if out.are_enough() {
            break Ok(());
        }
    };
    let left = gets.answer(cache, now, out);
    message.begin = left.unwrap_or(bytes.len() - reader.remaining());
    if left.is_some() { Ok(()) } else { end }
}

/// Does the one command of a message; false: it is to wait for its turn.
pub(super) fn run_one(on: &impl Does, message: &mut Message, out: &mut Replies) -> Result<bool, CallError> {
    let bytes = message.bytes.clone();
    let Some(command) = next_command(&mut Reader::new(&bytes), message)? else { return Ok(true) };
    message.done += 1;
    Ok(answer(on, on.cache().now(), &command, message, out))
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

/// Gets in a row that want nothing but the value: they are read together.
#[derive(Default)]
struct Gets<'a> {
    /// The namespace of all of them, and what the commands call it.
    namespace: Option<Cow<'a, Namespace>>,
    name: &'a str,
    keys: [&'a [u8]; GETS_MAX],
    asked: [PendingGet; GETS_MAX],
    len: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct PendingGet {
    id: u64,
    metadata_only: bool,
    /// Where in the message the command begins.
    begin: usize,
}

impl<'a> Gets<'a> {
    /// Takes a command on, if it is such a Get in the namespace of those before.
    fn take(&mut self, cache: &'a Cache, limits: &Limits, command: &CommandView<'a>, begin: usize) -> bool {
        let Some((op::GET, message)) = command.op else { return false };
        let Ok(view) = GetView::read(message) else { return false };
        match convert::get(&view, limits) {
            Ok(get)
                if get.touch.is_none() && command.timeout_ms == 0 && self.is_in(cache, view.namespace) =>
            {
                self.keys[self.len] = get.key;
                self.asked[self.len] = PendingGet { id: command.id, metadata_only: get.metadata_only, begin };
                self.len += 1;
                true
            }
            _ => false,
        }
    }

    fn is_in(&mut self, cache: &'a Cache, name: &'a str) -> bool {
        if self.len == 0 {
            self.namespace = cache.namespace(name);
            self.name = name;
        }
        self.namespace.is_some() && self.name == name
    }

    fn is_full(&self) -> bool {
        self.len == GETS_MAX
    }

    /// Puts the replies until there are enough; where the first command begins that has none then.
    fn answer(&mut self, cache: &Cache, now: Now, out: &mut Replies) -> Option<usize> {
        let mut left = None;
        let asked = &self.asked;
        let namespace = self.namespace.as_deref()?;
        cache.read_batch(namespace, &self.keys[..self.len], now, |index, read| {
            let PendingGet { id, metadata_only, begin } = asked[index];
            if out.are_enough() {
                left = Some(begin);
                return ControlFlow::Break(());
            }
            put_read(id, metadata_only, read, out);
            ControlFlow::Continue(())
        });
        self.len = 0;
        left
    }
}

/// Puts the reply of a Get.
#[inline]
fn put_read(id: u64, metadata_only: bool, read: Result<EntryView<'_>, MissReason>, out: &mut Replies) {
    match read {
        Ok(entry) => {
            let hit = HitMessage::new(&entry, metadata_only);
            if hit.len() > out.longest {
                let full = out.plane.backlog.full();
                return out.put_error(id, &full);
            }
            let length = hit.len() + REPLY_HEADS_BYTES;
            if length > out.message_max {
                return out.put_error(
                    id,
                    &CallError::AnswerTooLarge { answered: 0, keys: 1, max: out.message_max },
                );
            }
            out.make_room(length);
            hit.write_reply(id, op::GET - 1, &mut out.bytes);
        }
        Err(reason) => {
            out.make_room(SHORT_REPLY_BYTES_MAX);
            encode::put_reply_head(&mut out.bytes, id, op::GET - 1, encode::MISS_LEN);
            encode::put_miss(&mut out.bytes, reason);
        }
    }
}

/// Does one command and puts its reply, nothing of which is put before it is certain; false: it is to wait for its turn.
fn answer(
    on: &impl Does,
    now: Now,
    command: &CommandView<'_>,
    message: &mut Message,
    out: &mut Replies,
) -> bool {
    let done = match command.op {
        _ if message.is_late(command) => Err(GrpcError::DeadlineExceeded.into()),
        None => Err(CallError::NoOp),
        Some((op::CANCEL, _)) => return true,
        Some(_) if message.by_ring => Err(CallError::NotServed { what: "ring_epoch".to_owned() }),
        Some((op::GET, message)) => put_get(on, now, command.id, message, out),
        Some(_) if message.queues(on.cache()) => return false,
        Some((number, message)) => put_other(on, now, command.id, number, message, out),
    };
    let may_wait = message.turn != BacklogTurn::Refused;
    if !may_wait {
        // It was said of this command alone.
        message.turn = BacklogTurn::None;
    }
    if let Err(mut error) = done {
        if let CallError::JournalBacklog { .. } = error {
            if may_wait {
                return false;
            }
            // Who did it has waited until then.
            if message.is_late(command) {
                error = GrpcError::DeadlineExceeded.into();
            }
        }
        if message.done == 1 {
            message.code = error.code();
        }
        out.put_error(command.id, &error);
    }
    true
}

fn put_get(on: &impl Does, now: Now, id: u64, message: &[u8], out: &mut Replies) -> Result<(), CallError> {
    let (cache, view) = (on.cache(), GetView::read(message)?);
    let get = convert::get(&view, &cache.limits())?;
    let namespace = namespace(cache, view.namespace)?;
    let read =
        on.read(&namespace, get.key, get.touch, now, |entry| put_read(id, get.metadata_only, Ok(entry), out));
    if let Err(reason) = read {
        put_read(id, false, Err(reason), out);
    }
    Ok(())
}

fn put_other(
    on: &impl Does,
    now: Now,
    id: u64,
    number: u32,
    message: &[u8],
    out: &mut Replies,
) -> Result<(), CallError> {
    // None of these answers is longer than 32 bytes.
    let mut result = Vec::with_capacity(32);
    let request = Request::of_command(number, message)?.ok_or(CallError::NoOp)?;
    let flush = execute(on, now, &request, &mut result)?;
    let out = if flush {
        &mut out.later
    } else {
        out.make_room(SHORT_REPLY_BYTES_MAX);
        &mut out.bytes
    };
    encode::put_reply_head(out, id, number - 1, result.len());
    out.extend_from_slice(&result);
    Ok(())
}
