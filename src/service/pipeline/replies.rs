//! The replies of a Pipeline, in messages that keep to the limit.

use std::sync::Arc;

use tonic::Code;

use crate::grpc::Failure;
use crate::grpc::frame::{PREFIX, finish};
use crate::proto::wire::result;
use crate::request::CallError;
use crate::service::codec::encode;
use crate::service::data::Plane;
use crate::service::response_backlog::SHORT_ANSWER_BYTES_MAX;
use crate::telemetry::CallSpan;

/// Replies are sent when this many bytes of them are ready, or when no request is.
const REPLIES_BYTES: usize = 256 << 10;
/// What a reply takes beside its result, at most.
pub(super) const REPLY_HEADS_BYTES: usize = 32;
/// A reply that is neither a Hit nor an error, at most.
pub(super) const SHORT_REPLY_BYTES_MAX: usize = 64;

/// The replies of a frame, in messages that keep to the limit.
pub(super) struct Replies {
    pub(super) bytes: Vec<u8>,
    /// Where the last message begins.
    begin: usize,
    /// How long a message may be.
    pub(super) message_max: usize,
    /// How many commands are done before others run.
    pub(super) commands_left: usize,
    /// The replies are sent once they have this number of bytes.
    enough: usize,
    /// A reply that is longer finds no room in the response backlog.
    pub(super) longest: usize,
    pub(super) plane: Arc<Plane>,
    /// Those that wait until what they tell of is on the disk, and the spans of their commands.
    pub(super) later: Vec<u8>,
    pub(super) later_spans: Vec<CallSpan>,
}

impl Replies {
    pub(super) fn new(plane: &Arc<Plane>, likely: usize, commands_left: usize) -> Self {
        let room = plane.response_backlog.room(REPLIES_BYTES);
        let enough = if room < REPLIES_BYTES { SHORT_ANSWER_BYTES_MAX } else { REPLIES_BYTES };
        let longest = room.max(SHORT_ANSWER_BYTES_MAX);
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
            later_spans: Vec::new(),
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

    /// Puts the reply of a command that failed; its status.
    pub(super) fn put_error(&mut self, id: u64, error: &CallError) -> Code {
        let status = error.to_rpc_status_bytes_within(self.message_max.saturating_sub(REPLY_HEADS_BYTES));
        self.make_room(status.len() + REPLY_HEADS_BYTES);
        encode::put_reply_head(&mut self.bytes, id, result::ERROR, status.len());
        self.bytes.extend_from_slice(&status);
        error.code()
    }
}
