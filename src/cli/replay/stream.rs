//! One stream of a replay: windows of requests over a Pipeline.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;
use indicatif::ProgressBar;
use tokio::sync::mpsc;

use super::trace::Request;
use crate::api::v1::{self, get_response, pipeline_command::Op, pipeline_reply, set_response};
use crate::cli::exit::CliError;
use crate::cli::parse::VALUE_BYTES_MAX;
use crate::client::{Client, PipelineReceiver, PipelineSender, SetExpiration, SetOptions};
use crate::code::code_name;
use crate::entry::Durability;

/// A message is closed at so many commands, or so many bytes of values asked for or sent.
const MESSAGE_COMMANDS: usize = 512;
const MESSAGE_BYTES: u64 = 1 << 20;
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

/// Replays the requests that come, to their end.
pub(super) async fn replay(
    client: Client,
    plan: Plan,
    lots: mpsc::Receiver<Vec<Request>>,
) -> Result<Replayed, CliError> {
    let (sender, receiver) = client.pipeline(MESSAGES_IN_FLIGHT);
    let mut stream = Stream::new(plan, sender, receiver);
    let mut requests = Requests { lots, lot: Vec::new().into_iter() };
    while stream.fill_window(&mut requests).await {
        stream.exchange().await?;
    }
    Ok(stream.replayed)
}

/// Requests one by one, of which the next can be looked at.
struct Requests {
    lots: mpsc::Receiver<Vec<Request>>,
    lot: std::vec::IntoIter<Request>,
}

impl Requests {
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
    plan: Plan,
    options: SetOptions,
    value: Bytes,
    sender: PipelineSender,
    receiver: PipelineReceiver,
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
    fn new(plan: Plan, sender: PipelineSender, receiver: PipelineReceiver) -> Self {
        let expiration = plan.ttl.map_or(SetExpiration::NamespaceDefault, SetExpiration::After);
        let options = SetOptions { expiration, durability: plan.durability, ..SetOptions::default() };
        Self {
            plan,
            options,
            value: Bytes::from(vec![b'.'; VALUE_BYTES_MAX]),
            sender,
            receiver,
            sets: Vec::new(),
            gets: Vec::new(),
            asked: HashSet::default(),
            present: Recent::default(),
            replayed: Replayed::default(),
        }
    }

    /// Takes the next window's requests. False: there is nothing more to send.
    async fn fill_window(&mut self, requests: &mut Requests) -> bool {
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
        let first_get = sets.len();
        let messages = self.messages(&sets);
        let mut missed = vec![false; self.gets.len()];
        let Self { sender, receiver, replayed, gets, .. } = self;
        let sending = async {
            for message in messages {
                if !sender.send(message).await {
                    break;
                }
            }
        };
        let receiving = async {
            let mut outstanding = first_get + gets.len();
            while outstanding > 0 {
                let Some(replies) = receiver.replies().await? else {
                    return Err(CliError::Refused(
                        "the node ended the stream before its last answer".to_owned(),
                    ));
                };
                outstanding = outstanding.saturating_sub(replies.len());
                for reply in replies {
                    take(replayed, reply, first_get as u64, &mut missed);
                }
            }
            Ok(())
        };
        let ((), received) = tokio::join!(sending, receiving);
        received?;
        self.plan.progress.inc(self.gets.len() as u64);
        self.settle(&missed);
        Ok(())
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

    /// The commands of a window, whose ids count up from 0, in messages of bounded size.
    fn messages(&self, sets: &[Request]) -> Vec<Vec<v1::PipelineCommand>> {
        let mut messages = vec![Vec::new()];
        let mut bytes = 0;
        let sets = sets.iter().map(|request| (request, true));
        let gets = self.gets.iter().map(|request| (request, false));
        for (id, (request, is_set)) in sets.chain(gets).enumerate() {
            let key = Bytes::from(format!("{:016x}", request.key));
            let op = if is_set {
                let value_bytes =
                    usize::try_from(request.value_bytes).unwrap_or(usize::MAX).min(VALUE_BYTES_MAX);
                Op::Set(self.options.request(&self.plan.namespace, key, self.value.slice(..value_bytes)))
            } else {
                Op::Get(v1::GetRequest { namespace: self.plan.namespace.clone(), key, ..Default::default() })
            };
            let command = v1::PipelineCommand { id: id as u64, op: Some(op), ..Default::default() };
            match messages.last_mut() {
                Some(message)
                    if message.len() < MESSAGE_COMMANDS && bytes + request.value_bytes <= MESSAGE_BYTES =>
                {
                    message.push(command);
                    bytes += request.value_bytes;
                }
                _ => {
                    messages.push(vec![command]);
                    bytes = request.value_bytes;
                }
            }
        }
        messages
    }
}

/// Counts one reply. Ids below `first_get` are the sets'.
fn take(replayed: &mut Replayed, reply: v1::PipelineReply, first_get: u64, missed: &mut [bool]) {
    use pipeline_reply::Result as Reply;
    let place = reply.id.checked_sub(first_get).and_then(|place| usize::try_from(place).ok());
    match reply.result {
        Some(Reply::Get(v1::GetResponse { outcome: Some(get_response::Outcome::Miss(_)) })) => {
            replayed.misses += 1;
            if let Some(missed) = place.and_then(|place| missed.get_mut(place)) {
                *missed = true;
            }
        }
        Some(Reply::Get(_)) => replayed.hits += 1,
        Some(Reply::Set(v1::SetResponse { outcome: Some(set_response::Outcome::Stored(_)) })) => {
            replayed.stored += 1;
        }
        Some(Reply::Error(status)) => replayed.refuse(code_name(tonic::Code::from_i32(status.code))),
        // A set that found the owner out of service, or an answer that nobody asked for.
        _ => replayed.refuse("NOT_STORED"),
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
