//! One stream of a replay: windows of requests over a Pipeline.
//!
//! A node that takes shorter messages than these ends the stream and states its limit. What it has not answered then goes
//! out once more on another stream, in messages of that length: a message that is refused for its length was not done.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;
use indicatif::ProgressBar;
use tokio::sync::mpsc;

use super::trace::Request;
use crate::cli::exit::CliError;
use crate::client::{
    Client, ClientError, Commands, GetOutcome, PipelineOutcome, PipelineReceiver, PipelineReply,
    PipelineSender, Refusal, SetExpiration, SetOptions, SetOutcome,
};
use crate::entry::{Durability, VALUE_BYTES_MAX};
use crate::proto::code_name;

/// A message is closed at this many commands, or bytes of values asked for or sent, unless the node takes less.
const MESSAGE_COMMANDS: usize = 512;
const MESSAGE_BYTES: u64 = 1 << 20;
/// What key, fields and options take of a message for each command, at most, beside the namespace.
const COMMAND_BYTES: u64 = 128;
const MESSAGES_IN_FLIGHT: usize = 4;

/// What all streams share.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) namespace: String,
    pub(super) ttl: Option<Duration>,
    pub(super) durability: Option<Durability>,
    pub(super) window: usize,
    pub(super) progress: ProgressBar,
}

/// What became of a stream's requests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Replayed {
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) stored: u64,
    /// Misses of a key that the same window had missed already.
    pub(super) repeats_before_set: u64,
    /// Sets that were refused, by code.
    pub(super) refused: BTreeMap<&'static str, u64>,
}

impl Replayed {
    pub(super) fn merge(&mut self, other: Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.stored += other.stored;
        self.repeats_before_set += other.repeats_before_set;
        for (code, count) in other.refused {
            *self.refused.entry(code).or_default() += count;
        }
    }

    fn refuse(&mut self, code: &'static str) {
        *self.refused.entry(code).or_default() += 1;
    }
}

/// Replays the requests that come, to their end; what became of them, and whether that is all.
pub(super) async fn replay(
    client: Client,
    plan: Plan,
    lots: mpsc::Receiver<Vec<Request>>,
) -> (Replayed, Result<(), CliError>) {
    let mut stream = Stream::new(client, plan);
    let mut requests = RequestReader { lots, lot: Vec::new().into_iter() };
    while stream.fill_window(&mut requests).await {
        if let Err(error) = stream.exchange().await {
            return (stream.replayed, Err(error));
        }
    }
    (stream.replayed, Ok(()))
}

/// Requests one by one, of which the next can be looked at.
struct RequestReader {
    lots: mpsc::Receiver<Vec<Request>>,
    lot: std::vec::IntoIter<Request>,
}

impl RequestReader {
    async fn peek(&mut self) -> Option<Request> {
        loop {
            if let Some(request) = self.lot.as_slice().first() {
                return Some(*request);
            }
            self.lot = self.lots.recv().await?.into_iter();
        }
    }

    fn pass(&mut self) {
        self.lot.next();
    }
}

struct Stream {
    client: Client,
    plan: Plan,
    options: SetOptions,
    /// What values are cut from; as long as the longest one so far.
    value: Bytes,
    pipeline: (PipelineSender, PipelineReceiver),
    commands_max: usize,
    bytes_max: u64,
    /// The longest message that the node takes, as far as it has told.
    message_max: u64,
    /// The sets that the last window's misses call for.
    sets: Vec<Request>,
    /// The window's gets.
    gets: Vec<Request>,
    /// Keys that the window asks for without knowing whether they are there.
    asked: HashSet<u64, RandomState>,
    present: Recent,
    replayed: Replayed,
}

impl Stream {
    fn new(client: Client, plan: Plan) -> Self {
        let expiration = plan.ttl.map_or(SetExpiration::NamespaceDefault, SetExpiration::After);
        let options = SetOptions { expiration, durability: plan.durability, ..SetOptions::default() };
        Self {
            plan,
            options,
            value: Bytes::new(),
            pipeline: client.pipeline(MESSAGES_IN_FLIGHT),
            client,
            commands_max: MESSAGE_COMMANDS,
            bytes_max: MESSAGE_BYTES,
            message_max: u64::MAX,
            sets: Vec::new(),
            gets: Vec::new(),
            asked: HashSet::default(),
            present: Recent::default(),
            replayed: Replayed::default(),
        }
    }

    /// Takes the next window's requests. False: there is nothing more to send.
    async fn fill_window(&mut self, requests: &mut RequestReader) -> bool {
        self.gets.clear();
        self.asked.clear();
        while self.gets.len() < self.plan.window
            && let Some(request) = requests.peek().await
        {
            if !self.present.contains(request.key) && !self.asked.insert(request.key) {
                break;
            }
            self.gets.push(request);
            requests.pass();
        }
        !self.gets.is_empty() || !self.sets.is_empty()
    }

    /// Sends a window and takes its answers in.
    async fn exchange(&mut self) -> Result<(), CliError> {
        let sets = std::mem::take(&mut self.sets);
        let mut window = Window::new(sets.len(), self.gets.len());
        let longest_value = sets.iter().map(|request| length(request.value_bytes)).max().unwrap_or_default();
        if self.value.len() < longest_value {
            self.value = vec![b'.'; longest_value].into();
        }
        while window.outstanding > 0 {
            let messages = self.messages(&sets, &window);
            match self.send(messages, &mut window).await {
                Ok(()) => {}
                Err(CliError::Client(ClientError::Status(refusal))) => {
                    if !self.takes_less(&refusal, &self.messages(&sets, &window)) {
                        return Err(CliError::Client(ClientError::Status(refusal)));
                    }
                    self.refuse_longer(&sets, &mut window);
                    self.pipeline = self.client.pipeline(MESSAGES_IN_FLIGHT);
                }
                Err(error) => return Err(error),
            }
        }
        self.plan.progress.inc(self.gets.len() as u64);
        self.settle(&window.missed);
        Ok(())
    }

    /// Sends what is left of a window and takes answers in until nothing is outstanding.
    async fn send(&mut self, messages: Vec<Commands>, window: &mut Window) -> Result<(), CliError> {
        let (sender, receiver) = (&self.pipeline.0, &mut self.pipeline.1);
        let replayed = &mut self.replayed;
        let sending = async {
            for message in messages {
                if !sender.send(message).await {
                    break;
                }
            }
        };
        let receiving = async {
            while window.outstanding > 0 {
                let Some(replies) = receiver.replies().await? else {
                    return Err(CliError::Refused(
                        "the node ended the stream before its last answer".to_owned(),
                    ));
                };
                for reply in replies {
                    window.take(replayed, reply);
                }
            }
            Ok(())
        };
        let ((), received) = tokio::join!(sending, receiving);
        received
    }

    /// Takes in that the node refused one of these messages for its length. False: that is not why.
    fn takes_less(&mut self, refusal: &Refusal, messages: &[Commands]) -> bool {
        let below = |sent: u64| refusal.limit.filter(|limit| *limit < sent);
        match refusal.reason.as_str() {
            "BATCH_TOO_LONG" => {
                let sent = messages.iter().map(Commands::len).max().unwrap_or_default();
                let limit = below(sent as u64).map_or(sent / 2, length);
                self.commands_max = limit.max(1);
                sent > 1
            }
            "MESSAGE_TOO_LARGE" => {
                let Some(longest) = messages.iter().max_by_key(|message| message.bytes()) else {
                    return false;
                };
                let (sent, is_single) = (longest.bytes() as u64, longest.len() == 1);
                let limit = below(sent).unwrap_or(if is_single { sent - 1 } else { sent / 2 });
                self.bytes_max = self.bytes_max.min(limit);
                if is_single || refusal.limit.is_some() {
                    self.message_max = limit;
                }
                sent > 1
            }
            _ => false,
        }
    }

    /// Counts sets as refused that are longer than any message that the node takes.
    fn refuse_longer(&mut self, sets: &[Request], window: &mut Window) {
        for (id, request) in sets.iter().enumerate() {
            if self.command_bytes(request) > self.message_max && window.answer(id) {
                self.replayed.refuse(code_name(tonic::Code::ResourceExhausted));
            }
        }
    }

    /// What the window's outcomes call for: a set for each key that missed, once.
    fn settle(&mut self, missed: &[bool]) {
        self.asked.clear();
        for (request, missed) in self.gets.iter().zip(missed) {
            if *missed && self.asked.insert(request.key) {
                if request.value_bytes > VALUE_BYTES_MAX as u64 {
                    // No message could carry it.
                    self.replayed.refuse(code_name(tonic::Code::ResourceExhausted));
                    continue;
                }
                self.sets.push(*request);
            } else if *missed {
                self.replayed.repeats_before_set += 1;
            }
            self.present.insert(request.key);
        }
    }

    /// What a request's set takes of a message, at most.
    fn command_bytes(&self, request: &Request) -> u64 {
        request.value_bytes.saturating_add(COMMAND_BYTES + self.plan.namespace.len() as u64)
    }

    /// The commands of a window that are not answered, whose ids count up from 0, in messages of bounded size.
    fn messages(&self, sets: &[Request], window: &Window) -> Vec<Commands> {
        let (mut messages, mut message, mut bytes) = (Vec::new(), self.client.commands(), 0);
        let sets = sets.iter().map(|request| (request, true));
        let gets = self.gets.iter().map(|request| (request, false));
        let commands = sets.chain(gets).enumerate().filter(|(id, _)| !window.answered[*id]);
        for (id, (request, is_set)) in commands {
            // A get's value counts too, as its answer has to be read.
            let more = self.command_bytes(request);
            let fits = message.len() < self.commands_max && bytes + more <= self.bytes_max;
            if !message.is_empty() && !fits {
                messages.push(std::mem::replace(&mut message, self.client.commands()));
                bytes = 0;
            }
            let key = format!("{:016x}", request.key);
            if is_set {
                let value = self.value.slice(..length(request.value_bytes));
                message.set(id as u64, key, value, &self.options);
            } else {
                message.get(id as u64, key);
            }
            bytes += more;
        }
        messages.push(message);
        messages
    }
}

/// A number of bytes or commands that is known to be no more than a value has, as this machine counts.
fn length(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX).min(VALUE_BYTES_MAX)
}

/// What is known of a window's commands.
#[derive(Debug)]
struct Window {
    /// Ids below this one are the sets'.
    first_get: usize,
    answered: Vec<bool>,
    outstanding: usize,
    /// Of each get.
    missed: Vec<bool>,
}

impl Window {
    fn new(sets: usize, gets: usize) -> Self {
        let commands = sets + gets;
        Self {
            first_get: sets,
            answered: vec![false; commands],
            outstanding: commands,
            missed: vec![false; gets],
        }
    }

    /// Notes that a command needs no more answer. False: it had one, or nobody asked.
    fn answer(&mut self, id: usize) -> bool {
        match self.answered.get_mut(id) {
            Some(answered) if !*answered => {
                *answered = true;
                self.outstanding -= 1;
                true
            }
            _ => false,
        }
    }

    /// Counts one reply.
    fn take(&mut self, replayed: &mut Replayed, reply: PipelineReply) {
        let Some(id) = usize::try_from(reply.id).ok().filter(|id| self.answer(*id)) else { return };
        match reply.result {
            Ok(PipelineOutcome::Get(GetOutcome::Miss(_))) => {
                replayed.misses += 1;
                if let Some(missed) = id.checked_sub(self.first_get).and_then(|get| self.missed.get_mut(get))
                {
                    *missed = true;
                }
            }
            Ok(PipelineOutcome::Get(_)) => replayed.hits += 1,
            Ok(PipelineOutcome::Set(SetOutcome::Stored(_))) => replayed.stored += 1,
            Err(refusal) => replayed.refuse(code_name(refusal.code)),
            // A set that found the owner out of service, or an answer that the protocol does not allow.
            _ => replayed.refuse("NOT_STORED"),
        }
    }
}

/// Keys that were lately seen to be there: the last 65,536 of them and up to as many before.
#[derive(Debug, Default)]
struct Recent {
    newer: HashSet<u64, RandomState>,
    older: HashSet<u64, RandomState>,
}

impl Recent {
    const GENERATION: usize = 1 << 16;

    fn contains(&self, key: u64) -> bool {
        self.newer.contains(&key) || self.older.contains(&key)
    }

    fn insert(&mut self, key: u64) {
        self.newer.insert(key);
        if self.newer.len() >= Self::GENERATION {
            self.older = std::mem::take(&mut self.newer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_keys_are_kept_for_one_to_two_generations() {
        let mut recent = Recent::default();
        for key in 0..2 * Recent::GENERATION as u64 + 10 {
            recent.insert(key);
        }
        assert!(recent.contains(2 * Recent::GENERATION as u64));
        assert!(recent.contains(Recent::GENERATION as u64));
        assert!(!recent.contains(0));
    }
}
