//! A call on a lane, from its caller's side.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::slots::{Slot, Stage};
use super::{COMMAND_BYTES, CallTime, Failure, Fault, Lane, Reply, Standing, State, wake_driver};
use crate::client::codec::{Command, CommandHead};
use crate::client::trace::{Part, Trace};
use crate::clock::monotonic;

/// A command on its way, and its reply. Dropping it gives the command up.
#[derive(Debug)]
#[must_use = "nothing is asked until it is awaited"]
pub(in crate::client) struct Call<'a, C> {
    lane: &'a Lane,
    command: &'a C,
    trace: &'a Trace<'a>,
    time: CallTime,
    hash: u64,
    slot: Option<u32>,
    /// In the span of the commands that it is sent with.
    part: Option<Part>,
}

impl Lane {
    /// Asks for something, in the time that was looked at just now. `hash`: of the key, for which this lane was chosen.
    pub(in crate::client) fn call<'a, C: Command>(
        &'a self,
        command: &'a C,
        hash: u64,
        time: CallTime,
        trace: &'a Trace<'a>,
    ) -> Call<'a, C> {
        Call { lane: self, command, trace, time, hash, slot: None, part: None }
    }
}

impl<C: Command> Call<'_, C> {
    fn bytes(&self) -> usize {
        COMMAND_BYTES + self.command.request_bytes() + self.trace.traceparent().len()
    }

    fn begin(&mut self, state: &mut State, cx: &Context<'_>) -> Result<(), Failure> {
        match &state.standing {
            Standing::Out(fault) => {
                let fault = fault.clone();
                state.choice.done(self.hash);
                return Err(Failure::Out(fault));
            }
            Standing::Unused => state.standing = Standing::Connecting,
            Standing::Connecting | Standing::Open => {}
        }
        let bytes = self.bytes();
        let is_room = state.queue.is_empty() && state.has_room(bytes);
        let stage = if is_room { Stage::Written(state.batch_number) } else { Stage::Queued(bytes) };
        let id = state.slots.take(Slot {
            deadline: self.time.deadline,
            waker: Some(cx.waker().clone()),
            outcome: None,
            stage,
            hash: self.hash,
            is_abandoned: false,
        });
        self.slot = Some(id);
        if is_room {
            self.write(state, id, self.time.timeout_ms);
        } else {
            state.queue.push_back(id);
            state.counts.queued += 1;
        }
        if state.next_deadline.is_none_or(|next| self.time.deadline < next) {
            state.next_deadline = Some(self.time.deadline);
        }
        Ok(())
    }

    fn write(&mut self, state: &mut State, id: u32, timeout_ms: u32) {
        let traceparent = self.trace.traceparent();
        state.write(CommandHead { id: id.into(), timeout_ms, traceparent }, self.command);
        self.part = self.trace.join(&mut state.span);
    }

    /// Writes the command that had to wait for room.
    fn write_granted(&mut self, state: &mut State, id: u32, bytes: usize) {
        state.granted_bytes -= bytes;
        state.slots.of_call(id).stage = Stage::Written(state.batch_number);
        // One that has passed meanwhile is found out before the batch is sent.
        let timeout_ms = self.time.left(monotonic()).map_or(1, |left| left.timeout_ms);
        self.write(state, id, timeout_ms);
    }
}

impl<C: Command> Future for Call<'_, C> {
    type Output = Result<Reply, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let lane = self.lane;
        // Before the lock, which a thread may hold that a fork has not got. No command of a fork is written.
        if let Some(fault) = Fault::of_fork(lane.shared.built_in) {
            return Poll::Ready(Err(Failure::Out(Arc::new(fault))));
        }
        let mut state = lane.shared.lock();
        let Some(id) = self.slot else {
            if let Err(failure) = self.begin(&mut state, cx) {
                return Poll::Ready(Err(failure));
            }
            wake_driver(state);
            return Poll::Pending;
        };
        let slot = state.slots.of_call(id);
        if let Some(outcome) = slot.outcome.take() {
            slot.is_abandoned = true;
            self.slot = None;
            state.slots.free_if_over(id);
            drop(state);
            if let (Some(part), Err(failure)) = (self.part.take(), &outcome) {
                self.trace.failed(&part, failure);
            }
            return Poll::Ready(outcome);
        }
        match &mut slot.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            empty => *empty = Some(cx.waker().clone()),
        }
        if let Stage::Granted(bytes) = slot.stage {
            self.write_granted(&mut state, id, bytes);
            wake_driver(state);
        }
        Poll::Pending
    }
}

impl<C> Drop for Call<'_, C> {
    fn drop(&mut self) {
        let Some(id) = self.slot else { return };
        if !self.lane.shared.built_in.is_current() {
            return;
        }
        let mut guard = self.lane.shared.lock();
        let state = &mut *guard;
        let batch_number = state.batch_number;
        let slot = state.slots.of_call(id);
        let had_outcome = slot.outcome.take().is_some();
        let waker = slot.waker.take();
        slot.is_abandoned = true;
        match slot.stage {
            Stage::Written(batch) if batch < batch_number => {
                if !had_outcome {
                    state.write_cancel(id);
                }
            }
            // Counted already, where its deadline passed.
            Stage::Written(_) => state.dead_in_batch += usize::from(!had_outcome),
            Stage::Granted(bytes) => {
                slot.end(&state.choice);
                state.granted_bytes -= bytes;
            }
            _ => slot.end(&state.choice),
        }
        state.slots.free_if_over(id);
        wake_driver(guard);
        drop(waker);
    }
}
