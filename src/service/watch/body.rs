//! One watcher's stream: a place in the log, and what it was told.
//!
//! The body is asked for a frame while its peer takes what it gave, and reads the log then. Where there is nothing to
//! tell it leaves its waker with the collector.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::Status;

use super::frames::{EventFrame, Filter, discontinuity};
use super::log::{Chunk, EventLog};
use super::{Hub, State};
use crate::clock::monotonic;
use crate::grpc::ResponseBody;
use crate::proto::v1::DiscontinuityReason;
use crate::request::CallError;
use crate::service::data::Ending;
use crate::service::response_backlog::ResponseBacklog;

/// Chunks shorter than this are put together, up to the other length.
const SHORT_CHUNK_BYTES: usize = 4 << 10;
const TOGETHER_BYTES: usize = 16 << 10;
/// Bytes of the log that are looked through before others run.
const LOOKED_THROUGH_BYTES: usize = 256 << 10;
/// What a watcher may be sent at once that has been sent nothing for a while.
const BURST_BYTES: f64 = 1_048_576.0;
/// Room that there must be in the response backlog for what is sent at once.
const ROOM_BYTES: usize = 64 << 10;

/// Where a watcher is in the log.
#[derive(Debug)]
pub(super) struct Reading {
    /// The chunk that it reads next.
    next: u64,
    /// The sequence that it was told last of each shard; `None`: all, so that it is told chunks as they are.
    told: Option<Vec<u64>>,
    /// From this chunk on, who has no filter has been told all.
    told_all_from: u64,
    filter: Option<Filter>,
    /// What it is to be told first.
    missing: Option<DiscontinuityReason>,
}

impl Reading {
    /// From the log's end, where something may be missing before.
    pub(super) fn anew(log: &EventLog, filter: Option<Filter>, missing: Option<DiscontinuityReason>) -> Self {
        let told = filter.as_ref().map(|_| log.heads().to_vec());
        Self { next: log.end(), told, told_all_from: log.end(), filter, missing }
    }

    /// From positions on, which chunk `next` is the first after; `end` is the log's.
    pub(super) fn after(told: Vec<u64>, next: u64, end: u64, filter: Option<Filter>) -> Self {
        let told = (filter.is_some() || next < end).then_some(told);
        Self { next, told, told_all_from: end, filter, missing: None }
    }

    /// Events are missing: it goes on from the log's end.
    fn skip(&mut self, log: &EventLog) {
        *self = Self::anew(log, self.filter.take(), None);
    }

    /// Chunks to be told one event at a time, as many as may be looked through at once.
    fn take_chunks(&mut self, log: &EventLog) -> Vec<Chunk> {
        let mut bytes = 0;
        let mut chunks = Vec::new();
        for chunk in log.from(self.next).into_iter().flatten() {
            if bytes >= TOGETHER_BYTES {
                break;
            }
            bytes += chunk.bytes.len();
            chunks.push(chunk.clone());
            self.next += 1;
        }
        chunks
    }

    /// The next chunk as it is, or several short ones together.
    fn take_shared(&mut self, log: &EventLog) -> Option<Bytes> {
        let mut chunks = log.from(self.next)?.peekable();
        let first = chunks.next()?;
        self.next += 1;
        let is_short = |chunk: &&Chunk| chunk.bytes.len() < SHORT_CHUNK_BYTES;
        if !is_short(&first) || !chunks.peek().is_some_and(is_short) {
            return Some(first.bytes.clone());
        }
        let mut together = Vec::with_capacity(TOGETHER_BYTES);
        together.extend_from_slice(&first.bytes);
        for chunk in chunks.take_while(is_short) {
            if together.len() + chunk.bytes.len() > TOGETHER_BYTES {
                break;
            }
            together.extend_from_slice(&chunk.bytes);
            self.next += 1;
        }
        Some(together.into())
    }

    /// Tells the events of chunks that it was not told and that its filter lets through.
    fn tell(&mut self, chunks: &[Chunk], out: &mut Vec<u8>) {
        let Some(told) = &mut self.told else { return };
        for (part, mut events) in chunks.iter().flat_map(Chunk::parts) {
            let told = &mut told[part.shard as usize];
            if part.last <= *told {
                continue;
            }
            while let Some(event) = EventFrame::take(&mut events) {
                let passes = self.filter.as_ref().is_none_or(|filter| filter.passes(&event));
                if event.sequence > *told && passes {
                    event.put_after(out, *told);
                    *told = event.sequence;
                }
            }
        }
        if self.filter.is_none() && self.next >= self.told_all_from {
            self.told = None;
        }
    }
}

/// What a watcher may be sent: its share of what all may, which adds up for a while.
#[derive(Debug)]
struct Allowance {
    bytes: f64,
    since: Instant,
}

impl Allowance {
    fn new() -> Self {
        Self { bytes: BURST_BYTES, since: monotonic() }
    }

    /// Whether anything may be sent now.
    fn is_left(&mut self, bytes_per_second: f64) -> bool {
        let now = monotonic();
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
        self.bytes = (self.bytes + passed * bytes_per_second).min(BURST_BYTES);
        self.bytes > 0.0
    }

    fn spend(&mut self, bytes: usize) {
        self.bytes -= bytes as f64;
    }
}

/// What there is to tell.
enum Next {
    /// This, whole.
    Bytes(Bytes),
    /// What these have of it.
    Chunks(Vec<Chunk>),
    /// Nothing: the waker is with the collector.
    Nothing,
}

/// A Watch's stream.
pub(in crate::service) struct WatchBody {
    hub: Arc<Hub>,
    slot: usize,
    reading: Reading,
    allowance: Allowance,
    response_backlog: ResponseBacklog,
    /// The end of the listener; `None`: the stream has ended.
    ending: Option<Ending>,
}

impl WatchBody {
    /// A watcher that has entered a slot.
    pub(super) fn new(
        hub: Arc<Hub>,
        slot: usize,
        reading: Reading,
        ending: Ending,
        response_backlog: ResponseBacklog,
    ) -> Self {
        Self { hub, slot, reading, allowance: Allowance::new(), response_backlog, ending: Some(ending) }
    }

    /// What is to be told now.
    fn next(&mut self, cx: &Context<'_>) -> Next {
        let hub = Arc::clone(&self.hub);
        let mut state = hub.state.lock();
        let Some(log) = &state.log else { return Next::Nothing };
        let fell_behind = log.from(self.reading.next).is_none();
        let missing = fell_behind.then_some(DiscontinuityReason::SlowReader);
        if let Some(reason) = self.reading.missing.take().or(missing) {
            self.reading.skip(log);
            hub.note_discontinuity();
            state.slots[self.slot].is_due = false;
            let mut out = discontinuity(hub.incarnation, reason);
            out.extend_from_slice(&self.heartbeats(&mut state));
            return Next::Bytes(out.into());
        }
        let is_behind = self.reading.next < log.end();
        let share = hub.bytes_per_second as f64 / state.watchers.max(1) as f64;
        let may_send = self.allowance.is_left(share) && self.response_backlog.room(ROOM_BYTES) >= ROOM_BYTES;
        if may_send && is_behind {
            if self.reading.told.is_some() {
                return Next::Chunks(self.reading.take_chunks(log));
            }
            if let Some(bytes) = self.reading.take_shared(log) {
                return Next::Bytes(bytes);
            }
        }
        // A heartbeat says that all was told.
        if may_send && std::mem::take(&mut state.slots[self.slot].is_due) {
            return Next::Bytes(self.heartbeats(&mut state));
        }
        let slot = &mut state.slots[self.slot];
        slot.waits_for_tick = !may_send;
        match &mut slot.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Next::Nothing
    }

    /// The heartbeats of all shards, for who has been told all that the log has.
    fn heartbeats(&mut self, state: &mut State) -> Bytes {
        let Some(told) = &mut self.reading.told else { return self.hub.heartbeats(state) };
        let Some(log) = &state.log else { return Bytes::new() };
        let mut out = Vec::new();
        self.hub.put_heartbeats(&mut out, log.heads(), Some(told));
        told.copy_from_slice(log.heads());
        out.into()
    }

    fn poll_ending(&mut self, cx: &mut Context<'_>) -> bool {
        if self.ending.as_mut().is_some_and(|ending| ending.as_mut().poll(cx).is_ready()) {
            self.ending = None;
        }
        self.ending.is_none()
    }
}

impl Drop for WatchBody {
    fn drop(&mut self) {
        self.hub.state.lock().leave(self.slot);
    }
}

impl Body for WatchBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ending.is_none() {
            return Poll::Ready(None);
        }
        if this.poll_ending(cx) {
            let trailers = ResponseBody::trailers(CallError::stream_ends());
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let mut looked_through = 0;
        while looked_through < LOOKED_THROUGH_BYTES {
            let bytes = match this.next(cx) {
                Next::Nothing => return Poll::Pending,
                Next::Bytes(bytes) => {
                    this.allowance.spend(bytes.len());
                    bytes
                }
                Next::Chunks(chunks) => {
                    let bytes = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
                    this.allowance.spend(bytes);
                    looked_through += bytes;
                    let mut out = Vec::new();
                    this.reading.tell(&chunks, &mut out);
                    out.into()
                }
            };
            if !bytes.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(this.response_backlog.count_in_shared(bytes)))));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
