//! Gets in a row: they are read together.

use std::borrow::Cow;
use std::ops::ControlFlow;

use tonic::Code;

use super::commands::{Defer, DeferredCommand, Message, Stands, keep};
use super::replies::{REPLY_HEADS_BYTES, Replies, SHORT_REPLY_BYTES_MAX};
use crate::cache::Cache;
use crate::clock::Now;
use crate::engine::{EntryView, Namespace, NotRead};
use crate::entry::Limits;
use crate::proto::wire::{op, result};
use crate::request::CallError;
use crate::request::convert;
use crate::request::view::{CommandView, GetView};
use crate::service::codec::encode::{self, HitMessage};

/// Gets that are read together, at the most.
const GETS_MAX: usize = 16;

/// Gets in a row that want nothing but the value: they are read together.
#[derive(Default)]
pub(super) struct Gets<'a> {
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
    timeout_ms: u32,
    metadata_only: bool,
    /// Where in the message the command begins and ends.
    begin: usize,
    end: usize,
}

impl<'a> Gets<'a> {
    /// Takes a command on, if it is such a Get in the namespace of those before.
    pub(super) fn take(
        &mut self,
        cache: &'a Cache,
        limits: &Limits,
        command: &CommandView<'a>,
        (begin, end): (usize, usize),
    ) -> bool {
        let Some((op::GET, message)) = command.op else { return false };
        let Ok(view) = GetView::read(message) else { return false };
        match convert::get(&view, limits) {
            Ok(get) if get.touch.is_none() && self.is_in(cache, view.namespace) => {
                self.keys[self.len] = get.key;
                let (id, timeout_ms) = (command.id, command.timeout_ms);
                self.asked[self.len] =
                    PendingGet { id, timeout_ms, metadata_only: get.metadata_only, begin, end };
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

    pub(super) fn is_full(&self) -> bool {
        self.len == GETS_MAX
    }

    /// Puts the replies until there are enough; where the first command begins that is not answered then, nor kept.
    pub(super) fn answer(
        &mut self,
        cache: &Cache,
        now: Now,
        message: &mut Message,
        bytes: &[u8],
        defer: &mut impl Defer,
        out: &mut Replies,
    ) -> Option<usize> {
        let namespace = self.namespace.as_deref()?;
        let (keys, asked) = (&self.keys[..self.len], &self.asked[..self.len]);
        self.len = 0;
        let (mut left, mut at) = (None, 0);
        while at < keys.len() {
            let end =
                if defer.is_empty() { keys.len() } else { run_of_others(cache, namespace, keys, at, defer) };
            let read = cache.try_read_batch(namespace, &keys[at..end], now, |index, read| {
                let PendingGet { id, metadata_only, begin, .. } = asked[at + index];
                if out.are_enough() {
                    left = Some(begin);
                    return ControlFlow::Break(());
                }
                put_read(namespace, id, metadata_only, read, out);
                ControlFlow::Continue(())
            });
            if left.is_some() {
                return left;
            }
            let (index, pending) = match read {
                Ok(()) if end == keys.len() => break,
                Ok(()) => (end - at, None),
                Err((index, pending)) => (index, Some(pending)),
            };
            at += index;
            let PendingGet { id, timeout_ms, begin, end, .. } = asked[at];
            let (key, key_hash) = (keys[at], cache.key_hash(namespace, keys[at]));
            let arrived = message.arrived;
            let kept = DeferredCommand {
                id,
                timeout_ms,
                arrived,
                bytes: &bytes[begin..end],
                key,
                key_hash,
                pending,
                span: None,
            };
            if matches!(keep(defer, kept, message, out), Stands::Held) {
                message.is_held = true;
                message.done -= keys.len() - at;
                return Some(begin);
            }
            at += 1;
        }
        None
    }
}

/// Where the keys end, from one on, that no command is kept of.
fn run_of_others(
    cache: &Cache,
    namespace: &Namespace,
    keys: &[&[u8]],
    at: usize,
    defer: &impl Defer,
) -> usize {
    let is_other = |key: &&&[u8]| !defer.has(cache.key_hash(namespace, key));
    at + keys[at..].iter().take_while(is_other).count()
}

/// Puts the reply of a Get; its status.
#[inline]
pub(super) fn put_read(
    namespace: &Namespace,
    id: u64,
    metadata_only: bool,
    read: Result<EntryView<'_>, NotRead>,
    out: &mut Replies,
) -> Code {
    match read {
        Ok(entry) => {
            let hit = HitMessage::new(namespace, &entry, metadata_only);
            if hit.len() > out.longest {
                let full = out.plane.response_backlog.full();
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
            hit.write_reply(id, result::GET, &mut out.bytes);
            Code::Ok
        }
        Err(NotRead::Miss(reason)) => {
            out.make_room(SHORT_REPLY_BYTES_MAX);
            encode::put_reply_head(&mut out.bytes, id, result::GET, encode::MISS_LEN);
            encode::put_miss(&mut out.bytes, reason);
            Code::Ok
        }
        Err(NotRead::Refused(refusal)) => out.put_error(id, &CallError::refused(refusal, 0)),
    }
}
