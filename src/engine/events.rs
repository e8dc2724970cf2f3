//! Events: what is no longer true, for those that keep copies of entries.
//!
//! Each shard counts its events and writes them to a buffer under its lock, so that their order is the order of its changes.
//! Somebody takes the buffers out often ([`Engine::drain_events`]); one that grows beyond its bound is dropped, and the next
//! drain says that events were lost: what is not taken out costs no memory and holds up no write.
//!
//! An event says up to which version copies are untrue. That of a Put is the entry's own; for a removal, a shortened life
//! or a namespace's end a version is drawn, above all that copies may have and below all that come.
//!
//! The engine does not know how an event is written: it is given a function.

use std::fmt;
use std::sync::Arc;

use super::Engine;
use super::shard::Scope;
use crate::entry::Version;

/// Something that copies may have is no longer true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The shard that it happened in, from 0.
    pub shard: u32,
    /// The shard's count of events, with this one.
    pub sequence: u64,
    /// The namespace's name; empty for the default one.
    pub namespace: &'a str,
    /// What of the namespace.
    pub scope: EventScope<'a>,
    /// Copies that are older than this version are untrue.
    pub until: Version,
}

/// What an event covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventScope<'a> {
    /// The entry of this key.
    Key(&'a [u8]),
    /// Entries whose keys begin with this.
    Prefix(&'a [u8]),
    /// Entries that were set with this tag.
    Tag(&'a str),
    /// All entries.
    All,
}

impl<'a> From<Scope<'a>> for EventScope<'a> {
    fn from(scope: Scope<'a>) -> Self {
        match scope {
            Scope::Prefix(prefix) => Self::Prefix(prefix),
            Scope::Tag(tag) => Self::Tag(tag),
            Scope::All => Self::All,
        }
    }
}

/// Writes an event behind what is in the buffer: at least one byte.
pub type EncodeEvent = Arc<dyn Fn(&Event<'_>, &mut Vec<u8>) + Send + Sync>;

/// How events are noted.
#[derive(Clone)]
pub struct EventConfig {
    /// Writes an event.
    pub encode: EncodeEvent,
    /// Called under a shard's lock, with the shard's number, when it has something to take out and had nothing before, and
    /// again when half of what may wait is there: it must be quick and must not call the engine.
    pub nudge: Arc<dyn Fn(usize) + Send + Sync>,
    /// Bytes of events of a shard that may wait to be taken out, but for one event. Beyond them they are dropped.
    pub waiting_bytes_max: usize,
}

impl fmt::Debug for EventConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventConfig")
            .field("waiting_bytes_max", &self.waiting_bytes_max)
            .finish_non_exhaustive()
    }
}

/// What was taken out of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainedEvents {
    /// How many events there were since they were taken out before.
    pub events: u64,
    /// The shard's count of events up to here.
    pub sequence: u64,
    /// There were too many: none of them was written down.
    pub are_lost: bool,
}

/// A shard's events.
#[derive(Debug)]
pub(super) struct ShardEvents {
    config: EventConfig,
    shard: u32,
    /// How many there were.
    sequence: u64,
    /// Of those that were not taken out yet: how many, their bytes, and whether those were dropped.
    waiting: u64,
    bytes: Vec<u8>,
    are_lost: bool,
}

/// The capacity that a shard's buffer keeps when it is taken out.
const KEPT_BYTES: usize = 4 << 10;

impl ShardEvents {
    fn new(config: EventConfig, shard: usize, sequence: u64) -> Self {
        Self { config, shard: shard as u32, sequence, waiting: 0, bytes: Vec::new(), are_lost: false }
    }

    pub(super) fn add(&mut self, namespace: &str, scope: EventScope<'_>, until: Version) {
        self.sequence += 1;
        self.waiting += 1;
        let before = self.bytes.len();
        if self.bytes.len() >= self.config.waiting_bytes_max {
            self.are_lost = true;
            self.bytes = Vec::new();
        }
        if !self.are_lost {
            let event = Event { shard: self.shard, sequence: self.sequence, namespace, scope, until };
            (self.config.encode)(&event, &mut self.bytes);
        }
        let half = self.config.waiting_bytes_max / 2;
        if self.waiting == 1 || before < half && self.bytes.len() >= half {
            (self.config.nudge)(self.shard as usize);
        }
    }

    fn drain(&mut self, into: &mut Vec<u8>) -> DrainedEvents {
        into.clear();
        into.shrink_to(KEPT_BYTES);
        std::mem::swap(&mut self.bytes, into);
        DrainedEvents {
            events: std::mem::take(&mut self.waiting),
            sequence: self.sequence,
            are_lost: std::mem::take(&mut self.are_lost),
        }
    }
}

impl Engine {
    /// Notes every change as an event from when this returns on; each shard counts on from where `sequences` says.
    pub fn start_events(&self, config: &EventConfig, sequences: &[u64]) {
        let sequences = sequences.iter().copied().chain(std::iter::repeat(0));
        for (number, (shard, sequence)) in self.shards.iter().zip(sequences).enumerate() {
            shard.lock().changes.events = Some(Box::new(ShardEvents::new(config.clone(), number, sequence)));
        }
    }

    /// Notes no more, and forgets what was not taken out; how far each shard had counted.
    pub fn stop_events(&self) -> Vec<u64> {
        let stop = |shard: &super::Locked| {
            let stopped = shard.lock().changes.events.take();
            stopped.map_or(0, |events| events.sequence)
        };
        self.shards.iter().map(stop).collect()
    }

    /// Says what events may take, those that were taken out too, in bytes: that counts as memory in use.
    pub fn charge_events(&self, bytes: u64) {
        for shard in &self.shards {
            shard.lock().set_event_bytes(bytes / self.shards.len() as u64);
        }
    }

    /// Takes a shard's events out, in place of what is in `into`; `None`: they are not noted.
    pub fn drain_events(&self, shard: usize, into: &mut Vec<u8>) -> Option<DrainedEvents> {
        self.shards.get(shard)?.lock().changes.events.as_mut().map(|events| events.drain(into))
    }
}
