//! The collector: takes events out of the shards, puts them into the log, and wakes the watchers.
//!
//! A task that runs while there is a log. A shard that has its first event since it was emptied nudges it; it lets events
//! gather for a little, so that watchers are woken once for many.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::log::{Chunk, KEPT_FOR, Part};
use super::{Hub, SPACING_MIN};
use crate::clock::monotonic;

/// How often the collector looks for what time alone brings.
const TICK: Duration = Duration::from_millis(50);
/// Ticks in which every watcher's heartbeats become due once: a little less than the interval that they are told.
const TICKS_PER_HEARTBEAT: u64 = 16;
/// A chunk is closed when it has come to this length.
const CHUNK_BYTES: usize = 32 << 10;

/// Which shards have events, as they tell under their locks.
#[derive(Debug)]
pub(super) struct Nudges {
    /// A bit for each shard.
    shards: Box<[AtomicU64]>,
    /// Whether the collector was told.
    is_told: AtomicBool,
    some: Notify,
    many: Notify,
}

impl Nudges {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            is_told: AtomicBool::new(false),
            some: Notify::new(),
            many: Notify::new(),
        }
    }

    /// A shard has events, or, if it has said so before, many.
    pub(super) fn nudge(&self, shard: usize) {
        let bit = 1 << (shard % 64);
        if self.shards[shard / 64].fetch_or(bit, Ordering::AcqRel) & bit != 0 {
            self.many.notify_one();
        } else if !self.is_told.swap(true, Ordering::AcqRel) {
            self.some.notify_one();
        }
    }

    /// Takes out which shards have events.
    fn take(&self) -> impl Iterator<Item = usize> {
        self.is_told.store(false, Ordering::Release);
        self.shards.iter().enumerate().flat_map(|(word, bits)| {
            let mut bits = bits.swap(0, Ordering::AcqRel);
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
                bits &= bits - 1;
                Some(word * 64 + bit)
            })
        })
    }
}

/// Collects until the log has ended.
pub(super) async fn run(hub: Weak<Hub>) {
    let Some(nudges) = hub.upgrade().map(|hub| Arc::clone(&hub.nudges)) else { return };
    let mut collector = Collector::new(monotonic());
    loop {
        let is_told = timeout(TICK, nudges.some.notified()).await.is_ok();
        let Some(now) = hub.upgrade().map(|hub| collector.gathering(&hub, is_told)) else { return };
        if let Some(gathering) = now {
            tokio::select! {
                () = sleep(gathering) => {}
                () = nudges.many.notified() => {}
            }
        }
        let Some(hub) = hub.upgrade() else { return };
        collector.collect(&hub);
        if collector.tick(&hub, monotonic()) == Goes::Ended {
            return;
        }
    }
}

/// Whether the log goes on.
#[derive(Debug, PartialEq, Eq)]
enum Goes {
    On,
    Ended,
}

struct Collector {
    /// Kept for its room.
    taken: Vec<u8>,
    collected: Instant,
    ticked: Instant,
    ticks: u64,
    /// Since when nobody watches.
    idle_since: Option<Instant>,
}

impl Collector {
    fn new(now: Instant) -> Self {
        Self { taken: Vec::new(), collected: now, ticked: now, ticks: 0, idle_since: None }
    }

    /// How long events are to gather; `None`: there are none.
    fn gathering(&self, hub: &Hub, is_told: bool) -> Option<Duration> {
        let spacing = hub.spacing(hub.state.lock().watchers);
        let since = monotonic().saturating_duration_since(self.collected);
        is_told.then(|| spacing.saturating_sub(since).max(SPACING_MIN))
    }

    /// Takes events out of all shards that have some, and wakes the watchers if there were any.
    fn collect(&mut self, hub: &Hub) {
        let (mut chunks, mut lost) = (ChunkBuilder::default(), Vec::new());
        let mut events = 0;
        for shard in hub.nudges.take() {
            let Some(drained) = hub.cache.drain_events(shard, &mut self.taken) else { continue };
            events += drained.events;
            if drained.are_lost {
                lost.push((shard, drained.sequence));
            } else if drained.events > 0 {
                chunks.add(shard, drained.sequence - drained.events + 1, drained.sequence, &self.taken);
            }
        }
        if events == 0 {
            return;
        }
        self.collected = monotonic();
        hub.events.fetch_add(events, Ordering::Relaxed);
        let wakers: Vec<Waker> = {
            let mut state = hub.state.lock();
            let Some(log) = &mut state.log else { return };
            chunks.finish(self.collected).into_iter().for_each(|chunk| log.push(chunk));
            lost.into_iter().for_each(|(shard, sequence)| log.lose(shard, sequence));
            state.slots.iter_mut().filter_map(|slot| slot.waker.take()).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Does what is due by time alone: heartbeats, for a part of the watchers at a time, and the end of what is old.
    fn tick(&mut self, hub: &Hub, now: Instant) -> Goes {
        if now.saturating_duration_since(self.ticked) < TICK {
            return Goes::On;
        }
        self.ticked = now;
        self.ticks += 1;
        let part = self.ticks % TICKS_PER_HEARTBEAT;
        let wakers: Vec<Waker> = {
            let mut state = hub.state.lock();
            let idle_since = (state.watchers == 0).then(|| self.idle_since.unwrap_or(now));
            self.idle_since = idle_since;
            if idle_since.is_some_and(|since| now.saturating_duration_since(since) >= KEPT_FOR) {
                state.sequences = hub.cache.stop_events().iter().map(|sequence| sequence + 1).collect();
                hub.cache.charge_events(0);
                (state.log, state.heartbeats) = (None, None);
                return Goes::Ended;
            }
            if let Some(log) = &mut state.log {
                hub.resize_log(log);
                log.forget(now);
            }
            let slots = state.slots.iter_mut().enumerate();
            slots
                .filter_map(|(number, slot)| {
                    let is_due = number as u64 % TICKS_PER_HEARTBEAT == part;
                    slot.is_due |= is_due;
                    let waits = std::mem::take(&mut slot.waits_for_tick);
                    if is_due || waits { slot.waker.take() } else { None }
                })
                .collect()
        };
        wakers.into_iter().for_each(Waker::wake);
        Goes::On
    }
}

/// Chunks that are being put together.
#[derive(Default)]
struct ChunkBuilder {
    closed: Vec<(Vec<u8>, Vec<Part>)>,
    bytes: Vec<u8>,
    parts: Vec<Part>,
}

impl ChunkBuilder {
    fn add(&mut self, shard: usize, first: u64, last: u64, events: &[u8]) {
        self.bytes.extend_from_slice(events);
        self.parts.push(Part { shard: shard as u32, end: self.bytes.len() as u32, first, last });
        if self.bytes.len() >= CHUNK_BYTES {
            self.close();
        }
    }

    fn close(&mut self) {
        if !self.parts.is_empty() {
            self.closed.push((std::mem::take(&mut self.bytes), std::mem::take(&mut self.parts)));
        }
    }

    fn finish(mut self, added: Instant) -> Vec<Chunk> {
        self.close();
        let chunk = |(bytes, parts): (Vec<u8>, Vec<Part>)| Chunk {
            // Exactly as long as it is: a log of many chunks counts their bytes.
            bytes: bytes.into_boxed_slice().into(),
            parts: parts.into(),
            added,
        };
        self.closed.into_iter().map(chunk).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_told_of_once_until_they_are_taken_out() {
        let nudges = Nudges::new(130);
        for shard in [0, 63, 64, 129, 64] {
            nudges.nudge(shard);
        }
        assert_eq!(nudges.take().collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert_eq!(nudges.take().count(), 0);
        nudges.nudge(5);
        assert_eq!(nudges.take().collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn chunks_are_closed_when_they_are_long_enough() {
        let mut builder = ChunkBuilder::default();
        for shard in 0..5 {
            builder.add(shard, 1, 2, &vec![0; CHUNK_BYTES / 2]);
        }
        let chunks = builder.finish(monotonic());
        let parts: Vec<usize> = chunks.iter().map(|chunk| chunk.parts().count()).collect();
        assert_eq!(parts, [2, 2, 1]);
        assert!(ChunkBuilder::default().finish(monotonic()).is_empty());
    }
}
