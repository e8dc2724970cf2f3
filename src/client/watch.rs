//! Watch: what of the entries that one may have copies of is no longer true, as the node tells it.
//!
//! A thin face of the contract's stream: it compares nothing and keeps nothing. How to keep copies true by it is the book's
//! to say.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::calls::Client;
use super::error::ClientError;
use super::pool::{Incoming, Pool};
use super::trace::Trace;
use crate::entry::Version;
use crate::proto::v1;
use crate::verb::Verb;

/// What a Watch asks for. The default is everything from now on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchOptions {
    /// Up to 1,024 namespaces, "" for the default one. None: all, also those that are created later.
    pub namespaces: Vec<String>,
    /// What the keys begin with, up to 4 KiB. Empty: all keys.
    pub prefix: Bytes,
    /// Where an earlier stream ended, up to 1,024; see [`WatchMessage::position`]. None: from now on.
    pub positions: Vec<WatchPosition>,
}

/// How far a watch has come in one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchPosition {
    /// The incarnation of the node's state.
    pub incarnation: u64,
    /// The shard.
    pub shard: u32,
    /// How far the shard had come.
    pub sequence: u64,
}

/// A message of a Watch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WatchMessage {
    /// The incarnation of the node's state. Of another one, nothing is true any more.
    pub incarnation: u64,
    /// The shard that speaks.
    pub shard: u32,
    /// The shard's count of what happened in it, the same for all watchers.
    pub sequence: u64,
    /// The sequence of the message before from the same shard. Another one than was received means that something was lost.
    pub previous_sequence: u64,
    /// What happened.
    pub event: WatchEvent,
}

impl WatchMessage {
    /// Where a stream goes on that was told this last of its shard. `None`: it is of no shard.
    #[must_use]
    pub fn position(&self) -> Option<WatchPosition> {
        let Self { incarnation, shard, sequence, .. } = *self;
        let is_of_a_shard =
            matches!(self.event, WatchEvent::Invalidation { .. } | WatchEvent::Heartbeat { .. });
        is_of_a_shard.then_some(WatchPosition { incarnation, shard, sequence })
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// Copies of what is covered are untrue if they are older than the version.
    Invalidation {
        /// The namespace; empty for the default one.
        namespace: String,
        /// What of it.
        scope: WatchScope,
        /// A copy of this version or a higher one is true.
        version: Version,
    },
    /// All that happened in the shard so far was told.
    Heartbeat {
        /// How many shards the node has.
        shards: u32,
        /// How soon the shard's next one comes at the latest. After three times that without one, nothing is to be trusted.
        interval: Duration,
    },
    /// Events are missing, of any shard; Heartbeats of all follow.
    Discontinuity(WatchDiscontinuity),
    /// Keys have another owner.
    RingChanged {
        /// The new ring's epoch.
        epoch: u64,
    },
}

/// What an Invalidation covers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchScope {
    /// The entry of this key.
    Key(Bytes),
    /// Entries whose keys begin with this.
    Prefix(Bytes),
    /// Entries that were set with this tag.
    Tag(String),
    /// All entries.
    All,
}

/// Why events are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchDiscontinuity {
    /// The stream was read more slowly than events happen.
    SlowReader,
    /// The node holds a new state.
    NewState,
    /// The node no longer has all that came after the positions.
    PositionsTooOld,
    /// What this library does not know.
    Other,
}

impl WatchDiscontinuity {
    /// Its name: `slow-reader`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SlowReader => "slow-reader",
            Self::NewState => "new-state",
            Self::PositionsTooOld => "positions-too-old",
            Self::Other => "other",
        }
    }
}

/// What a node tells, for as long as the caller reads.
#[derive(Debug)]
pub struct WatchStream {
    pool: Arc<Pool>,
    messages: Incoming<v1::WatchResponse>,
}

impl Client {
    /// Opens a stream of what becomes untrue. It names namespaces itself: the client's own says nothing here.
    ///
    /// # Errors
    /// See [`Client::get`]; `RESOURCE_EXHAUSTED` where the node has as many watchers as it will hold.
    pub async fn watch(&self, options: WatchOptions) -> Result<WatchStream, ClientError> {
        let timeout = self.timed_alone(Verb::Watch)?;
        WatchStream::open(self.node_of(None), options, timeout).await
    }
}

impl WatchStream {
    pub(super) async fn open(
        pool: &Arc<Pool>,
        options: WatchOptions,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        let wire = |position: WatchPosition| v1::WatchPosition {
            incarnation: position.incarnation,
            shard: position.shard,
            sequence: position.sequence,
        };
        let WatchOptions { namespaces, prefix, positions } = options;
        let positions = positions.into_iter().map(wire).collect();
        let message = v1::WatchRequest { namespaces, prefix, positions };
        let messages = pool.open_within(message, timeout, &Trace::none(pool.url(), Verb::Watch)).await?;
        Ok(Self { pool: pool.clone(), messages })
    }

    /// The next message. `None`: the node has ended the stream, which it does with an error as a rule.
    ///
    /// # Errors
    /// [`ClientError`] where the stream broke, as it does when the node drains.
    pub async fn next(&mut self) -> Result<Option<WatchMessage>, ClientError> {
        let Some(message) = self.messages.next(None).await? else { return Ok(None) };
        let known = self::message(message);
        known.map(Some).ok_or_else(|| self.pool.bad_answer(Verb::Watch.name(), "a message without an event"))
    }
}

fn message(message: v1::WatchResponse) -> Option<WatchMessage> {
    use v1::watch_response::Event;
    let event = match message.event? {
        Event::Invalidation(invalidation) => WatchEvent::Invalidation {
            scope: scope(invalidation.scope?),
            namespace: invalidation.namespace,
            version: Version(invalidation.version),
        },
        Event::Heartbeat(heartbeat) => WatchEvent::Heartbeat {
            shards: heartbeat.shards,
            interval: Duration::from_millis(heartbeat.interval_ms),
        },
        Event::Discontinuity(discontinuity) => WatchEvent::Discontinuity(match discontinuity.reason() {
            v1::DiscontinuityReason::SlowReader => WatchDiscontinuity::SlowReader,
            v1::DiscontinuityReason::NewState => WatchDiscontinuity::NewState,
            v1::DiscontinuityReason::PositionsTooOld => WatchDiscontinuity::PositionsTooOld,
            v1::DiscontinuityReason::Unspecified => WatchDiscontinuity::Other,
        }),
        Event::RingChanged(changed) => WatchEvent::RingChanged { epoch: changed.epoch },
    };
    let v1::WatchResponse { incarnation, shard, sequence, previous_sequence, .. } = message;
    Some(WatchMessage { incarnation, shard, sequence, previous_sequence, event })
}

fn scope(scope: v1::invalidation::Scope) -> WatchScope {
    use v1::invalidation::Scope;
    match scope {
        Scope::Key(key) => WatchScope::Key(key),
        Scope::Prefix(prefix) => WatchScope::Prefix(prefix),
        Scope::Tag(tag) => WatchScope::Tag(tag),
        Scope::All(_) => WatchScope::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_a_shard_has_a_position_and_one_without_an_event_is_none() {
        let empty = v1::WatchResponse { incarnation: 7, shard: 2, sequence: 9, ..Default::default() };
        assert_eq!(message(empty.clone()), None);
        let heartbeat = v1::Heartbeat { shards: 4, interval_ms: 1_000 };
        let event = Some(v1::watch_response::Event::Heartbeat(heartbeat));
        let beat = message(v1::WatchResponse { event, ..empty.clone() }).unwrap();
        assert_eq!(beat.event, WatchEvent::Heartbeat { shards: 4, interval: Duration::from_secs(1) });
        assert_eq!(beat.position(), Some(WatchPosition { incarnation: 7, shard: 2, sequence: 9 }));
        // A reason that is newer than this library.
        let event = Some(v1::watch_response::Event::Discontinuity(v1::Discontinuity { reason: 99 }));
        let gap = message(v1::WatchResponse { event, ..empty }).unwrap();
        assert_eq!((gap.position(), gap.event), (None, WatchEvent::Discontinuity(WatchDiscontinuity::Other)));
    }
}
