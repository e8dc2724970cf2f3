//! A Pipeline stream whose next command has no room in the journal's backlog: it does nothing more until its turn has
//! come, so that flow control stops its client; what waited before is answered.
//!
//! What the client sends meanwhile lies in its windows until it is read. Only some streams of a connection may wait, so
//! that a part of its window stays free for the others. Small frames that lie there count against the connection as a
//! whole, which HTTP/2 ends when they are too many ([`ReadAhead`]). So a stream that waits reads on for a while, and a
//! client that sends small frames on and on has its oldest command refused instead of being stopped.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Sleep, sleep_until};

use super::commands::{BacklogTurn, Message};
use crate::cache::QueuePlace;
use crate::service::data::Plane;
use crate::service::long_requests::StoppedCall;

/// What a stream reads ahead while it waits. It counts in what the queue's writes hold.
pub(super) const AHEAD_BYTES: usize = 16 << 10;
/// What h2 counts an unread DATA frame as that is shorter, in bytes (its `DEFAULT_DATA_FRAME_OVERHEAD_THRESHOLD`). When
/// these make up half of the connection's window, it ends the connection.
const FRAME_BYTES_MIN: usize = 256;

/// A stream's place in the journal's queue, which it has until the message is done.
pub(super) struct Queued {
    queue_place: QueuePlace,
    /// It waits for its turn.
    is_waiting: bool,
    /// One of those of its connection that flow control stops.
    _stopped: StoppedCall,
    /// Goes off at the command's deadline.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Queued {
    /// Whether its turn has not come.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting
    }
}

/// What a stream that waits has read ahead.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    /// What its frames count as beyond their bytes; those that are long make up for those that are short.
    overhead_bytes: usize,
}

impl ReadAhead {
    /// Takes note of a frame.
    pub(super) fn note(&mut self, frame_bytes: usize) {
        let overhead_bytes = self.overhead_bytes + FRAME_BYTES_MIN;
        self.overhead_bytes = overhead_bytes.saturating_sub(frame_bytes.max(1));
    }

    /// Whether the client's frames are so short that they may not be left unread.
    pub(super) fn has_short_frames(&self) -> bool {
        self.overhead_bytes > 0
    }
}

/// Waits until the message's next command may be tried again, or is to be refused: [`Message::turn`] says which.
pub(super) fn poll_turn(
    queued: &mut Option<Box<Queued>>,
    plane: &Plane,
    message: &mut Message,
    is_ending: bool,
    cx: &mut Context<'_>,
) -> Poll<()> {
    if is_ending {
        message.turn = BacklogTurn::Refused;
        return Poll::Ready(());
    }
    let queue = plane.cache.journal_backlog();
    let entered = || {
        let stopped = plane.stopped.enter()?;
        let bytes = message.bytes.len();
        let held = AHEAD_BYTES + if message.permit.is_some() { 0 } else { bytes };
        let queue_place = queue?.enter(bytes, held)?;
        Some(Box::new(Queued { queue_place, is_waiting: false, _stopped: stopped, timer: None }))
    };
    let is_new = queued.is_none();
    let Some(place) = queued.take().or_else(entered) else {
        message.turn = BacklogTurn::Refused;
        return Poll::Ready(());
    };
    let place = queued.insert(place);
    if !place.is_waiting {
        if !is_new {
            place.queue_place.again();
        }
        place.timer = message.deadline.map(|deadline| Box::pin(sleep_until(deadline.into())));
        place.is_waiting = true;
    }
    // At the deadline it is tried once more, and refused for that.
    let is_late = place.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
    if !is_late && place.queue_place.poll(cx).is_pending() {
        return Poll::Pending;
    }
    place.is_waiting = false;
    message.turn = BacklogTurn::Granted;
    Poll::Ready(())
}

/// Has the message's next command, which waits for its turn, refused if there is no room for it now.
pub(super) fn refuse(queued: &mut Option<Box<Queued>>, message: &mut Message) {
    message.turn = BacklogTurn::Unstoppable;
    if let Some(place) = queued {
        place.is_waiting = false;
    }
}
