//! A Pipeline stream whose next command has no room in the journal's backlog: it does nothing more until its turn has
//! come, so that flow control stops its client; what waited before is answered.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Sleep, sleep_until};

use super::commands::{BacklogTurn, Message};
use crate::cache::Turn;
use crate::service::data::Plane;

/// A stream's place in the journal's queue, which it has until the message is done.
pub(super) struct Queued {
    turn: Turn,
    /// It waits for its turn.
    is_waiting: bool,
    /// Goes off at the command's deadline.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Queued {
    /// Whether its turn has not come.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting
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
        let bytes = message.bytes.len();
        let turn = queue?.enter(bytes, if message.admission.is_some() { 0 } else { bytes })?;
        Some(Box::new(Queued { turn, is_waiting: false, timer: None }))
    };
    let is_new = queued.is_none();
    let Some(place) = queued.take().or_else(entered) else {
        message.turn = BacklogTurn::Refused;
        return Poll::Ready(());
    };
    let place = queued.insert(place);
    if !place.is_waiting {
        if !is_new {
            place.turn.again();
        }
        place.timer = message.deadline.map(|deadline| Box::pin(sleep_until(deadline.into())));
        place.is_waiting = true;
    }
    // At the deadline it is tried once more, and refused for that.
    let is_late = place.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
    if !is_late && place.turn.poll(cx).is_pending() {
        return Poll::Pending;
    }
    place.is_waiting = false;
    message.turn = BacklogTurn::Granted;
    Poll::Ready(())
}
