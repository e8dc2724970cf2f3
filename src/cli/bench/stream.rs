//! A caller of Pipeline: one stream with several messages in flight.
//!
//! A message in flight has a slot, and its commands' ids are the slot's number × the keys of a message + the
//! command's place, so that a reply finds its message by a division, in whatever order replies come.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;

use super::load::Load;
use super::run::{BACK_OFF, Worker};
use super::wire::{self, Answer};
use crate::client::Client;
use crate::clock::monotonic;

/// A message in flight.
#[derive(Debug, Clone, Copy)]
struct Slot {
    start: Instant,
    outstanding: usize,
    /// When the node asks to be tried again, where it refused one of its commands.
    retry_after: Option<Duration>,
}

/// A slot that is free, and how long to hold back before it is used.
type Free = (usize, Option<Duration>);

/// The messages in flight on one stream.
struct Flight {
    slots: RefCell<Vec<Slot>>,
    items: usize,
}

pub(super) async fn caller(worker: Rc<Worker>, client: Client, mut load: Load, depth: usize) {
    loop {
        let flight =
            Flight { slots: RefCell::new(vec![Slot::free(monotonic()); depth]), items: worker.plan.items };
        let Err(status) = stream(&worker, &client, &mut load, &flight).await else { return };
        // What was on its way is lost with the stream.
        let end = monotonic();
        let mut pause = None;
        for slot in flight.slots.into_inner().iter().filter(|slot| slot.outstanding > 0) {
            pause = pause.max(worker.refused(slot.start, end, &status, slot.outstanding as u64));
        }
        worker.hold_back(load.spread(pause.unwrap_or(BACK_OFF))).await;
    }
}

/// Runs one stream. Ok: the run is over, and everything was answered.
async fn stream(worker: &Worker, client: &Client, load: &mut Load, flight: &Flight) -> Result<(), Status> {
    let (messages, outgoing) = mpsc::unbounded_channel();
    let (free, mut free_slots) = mpsc::unbounded_channel();
    for slot in 0..flight.slots.borrow().len() {
        let _ = free.send((slot, None));
    }
    let sending = async {
        while let Some((slot, pause)) = free_slots.recv().await {
            if let Some(pause) = pause {
                worker.hold_back(load.spread(pause)).await;
            }
            let Some((start, items)) = worker.next_call().await else { break };
            let message = load.pipeline((slot * flight.items) as u64, items);
            flight.slots.borrow_mut()[slot] = Slot { outstanding: items, ..Slot::free(start) };
            if messages.send(message).is_err() {
                break;
            }
        }
        // Half-closes the stream; the node answers the rest and ends it.
        drop(messages);
    };
    let receiving = receive(worker, client, UnboundedReceiverStream::new(outgoing), flight, free);
    tokio::pin!(sending, receiving);
    tokio::select! {
        // A stream that breaks ends the sending; one that is through with sending is read to its end.
        end = &mut receiving => return end,
        () = &mut sending => {}
    }
    receiving.await
}

async fn receive(
    worker: &Worker,
    client: &Client,
    outgoing: UnboundedReceiverStream<Bytes>,
    flight: &Flight,
    free: mpsc::UnboundedSender<Free>,
) -> Result<(), Status> {
    let timeout = worker.plan.timeout;
    let mut incoming = client.raw_pipeline(outgoing).await?;
    loop {
        let message = match tokio::time::timeout(timeout, incoming.message()).await {
            Ok(message) => message?,
            // Nothing need come while nothing is outstanding: the open loop may pause that long.
            Err(_elapsed) if flight.is_empty() => continue,
            Err(_elapsed) => return Err(Status::deadline_exceeded("no reply came in time")),
        };
        let Some(message) = message else {
            let early = || Status::internal("the stream ended before its last reply");
            return if flight.is_empty() { Ok(()) } else { Err(early()) };
        };
        let end = monotonic();
        let mut known = true;
        let each = |id: u64, answer: Answer| match flight.reply(id, answer.retry_after()) {
            None => known = false,
            Some((number, slot)) => {
                worker.answered(slot.start, end, answer, 1);
                if slot.outstanding == 0 {
                    worker.call_done(slot.start);
                    let _ = free.send((number, slot.retry_after));
                }
            }
        };
        wire::replies(&message, each)
            .map_err(|wire::Unreadable| Status::internal("the replies cannot be read"))?;
        if !known {
            return Err(Status::internal("a reply is to no command that is outstanding"));
        }
    }
}

impl Slot {
    fn free(start: Instant) -> Self {
        Self { start, outstanding: 0, retry_after: None }
    }
}

impl Flight {
    fn is_empty(&self) -> bool {
        self.slots.borrow().iter().all(|slot| slot.outstanding == 0)
    }

    /// The slot that an id belongs to, and how it is after this reply, which asks to be tried again then. None: no such
    /// command is outstanding.
    fn reply(&self, id: u64, retry_after: Option<Duration>) -> Option<(usize, Slot)> {
        let number = usize::try_from(id).ok()? / self.items;
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(number).filter(|slot| slot.outstanding > 0)?;
        slot.outstanding -= 1;
        slot.retry_after = slot.retry_after.max(retry_after);
        Some((number, *slot))
    }
}
