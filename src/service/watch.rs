//! Watch: what is no longer true, told to those that keep copies of entries.
//!
//! ```text
//!  shards ── events, encoded, counted ──► collector ──► log: chunks ──► WatchBody of each watcher ──► its peer
//!  (under their locks)                    every 1 to 20 ms   (shared)    asked while the peer takes what it gave
//! ```
//!
//! - `frames`: the messages. `log`: the shared log. `collector`: takes events out of the shards, wakes the watchers, and
//!   ends the log. `body`: one watcher's stream.
//!
//! The log is one for all watchers, and a watcher is a place in it: what it does not read costs no memory. One that falls
//! behind the log's oldest chunk is told so (Discontinuity) and goes on at its end. A chunk is sent as it lies in the log to
//! a watcher that is told all of it in order; for a filter, and while a stream catches up from positions, events are told one by
//! one, each with the sequence that this watcher was told before it.
//!
//! A write writes its event to its shard's buffer and goes on: it never waits for watchers. They are woken together,
//! seldom enough that waking them takes a tenth of a processor or so ([`Hub::spacing`]), and are sent no more than a share
//! of [`BYTES_PER_PROCESSOR`] each, so that they fall behind before writers suffer.
//!
//! While nobody watches, nothing is noted. The log goes on for [`log::KEPT_FOR`] after the last watcher has left, so that a
//! stream that breaks can go on where it was. A log that is begun anew counts on with a number left out, so that a position
//! from before is known to be of a log that is gone.

mod body;
mod collector;
mod frames;
mod log;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use parking_lot::Mutex;

use super::data::{Ending, Plane};
use super::response_backlog::ResponseBacklog;
use super::unary::namespace;
use crate::cache::Cache;
use crate::engine::EventConfig;
use crate::entry::{KEY_BYTES_MAX, NAMESPACES_MAX};
use crate::grpc::ResponseBody;
use crate::proto::v1;
use crate::request::{CallError, convert};
use body::{Reading, WatchBody};
use collector::Nudges;
use frames::{Filter, Place, put_event, put_heartbeat};
use log::EventLog;

/// The most shards that a node has, and so the most positions.
const POSITIONS_MAX: usize = 1_024;
/// The namespaces and positions that are read of a request: one more of each than it may have, so that it can be named.
const ITEMS_MAX: usize = NAMESPACES_MAX + POSITIONS_MAX + 2;
/// How soon a shard's next heartbeat comes at the latest, as watchers are told.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// What all watchers together are sent in a second for each processor, in bytes: copying that into sockets takes about a
/// third of one.
const BYTES_PER_PROCESSOR: u64 = 192 << 20;
/// Without a setting: `--max-watchers`' default.
const WATCHERS_MAX: usize = 1_000;
/// The log may take this part of the limit on memory, within these bounds.
const LOG_PART: u64 = 64;
const LOG_BYTES: std::ops::RangeInclusive<u64> = 256 << 10..=16 << 20;

/// The watchers of a node. Clones are the same.
#[derive(Debug, Clone)]
pub struct Watches(Arc<Hub>);

/// The figures of a node's watchers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WatchFigures {
    /// Streams that are open.
    pub watchers: u64,
    /// Events that were noted.
    pub events: u64,
    /// Times that a watcher was told that events are missing.
    pub discontinuities: u64,
    /// What the log takes, in bytes.
    pub log_bytes: u64,
}

/// What the watchers of a node share.
struct Hub {
    cache: Arc<Cache>,
    incarnation: u64,
    watchers_max: AtomicUsize,
    bytes_per_second: u64,
    state: Mutex<State>,
    nudges: Arc<Nudges>,
    events: AtomicU64,
    discontinuities: AtomicU64,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

struct State {
    /// `None`: nobody watches, nor has of late.
    log: Option<EventLog>,
    /// From where each shard counts on when there is a log again.
    sequences: Vec<u64>,
    watchers: usize,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// The heartbeats of all shards at this end of the log, for those that are told everything.
    heartbeats: Option<(u64, Bytes)>,
}

/// What the collector knows of a watcher.
#[derive(Debug, Default)]
struct Slot {
    /// Wakes it, where it waits.
    waker: Option<Waker>,
    /// Its next heartbeats are due.
    is_due: bool,
    /// It waits for time to pass.
    waits_for_tick: bool,
}

impl Watches {
    /// Nobody watches yet. `incarnation` is that of the cache's state.
    #[must_use]
    pub fn new(cache: Arc<Cache>, incarnation: u64) -> Self {
        let shards = cache.shard_count();
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let state = State {
            log: None,
            sequences: vec![0; shards],
            watchers: 0,
            slots: Vec::new(),
            free: Vec::new(),
            heartbeats: None,
        };
        Self(Arc::new(Hub {
            cache,
            incarnation,
            watchers_max: WATCHERS_MAX.into(),
            bytes_per_second: processors * BYTES_PER_PROCESSOR,
            state: Mutex::new(state),
            nudges: Arc::new(Nudges::new(shards)),
            events: AtomicU64::new(0),
            discontinuities: AtomicU64::new(0),
        }))
    }

    /// Sets how many may watch at a time. Those that watch stay.
    pub fn set_watchers_max(&self, watchers_max: usize) {
        self.0.watchers_max.store(watchers_max, Relaxed);
    }

    /// The figures of now.
    #[must_use]
    pub fn figures(&self) -> WatchFigures {
        let state = self.0.state.lock();
        WatchFigures {
            watchers: state.watchers as u64,
            events: self.0.events.load(Relaxed),
            discontinuities: self.0.discontinuities.load(Relaxed),
            log_bytes: state.log.as_ref().map_or(0, EventLog::bytes) as u64,
        }
    }

    /// A stream of what was asked for, to be ended when `ending` does.
    fn watch(
        &self,
        request: &v1::WatchRequest,
        ending: Ending,
        response_backlog: ResponseBacklog,
    ) -> Result<WatchBody, CallError> {
        let hub = &self.0;
        let filter = filter(&hub.cache, request)?;
        let positions = Positions::read(hub, &request.positions)?;
        let mut state = hub.state.lock();
        let max = hub.watchers_max.load(Relaxed);
        if state.watchers >= max {
            return Err(CallError::TooManyWatchers { max });
        }
        hub.begin_log(&mut state);
        let log = state.log.as_ref().expect("it was begun");
        let reading = positions.begin(log, filter)?;
        let slot = state.enter();
        Ok(WatchBody::new(Arc::clone(hub), slot, reading, ending, response_backlog))
    }
}

/// Answers a Watch.
pub(super) fn answer(plane: &Plane, message: &[u8]) -> Response<ResponseBody> {
    let opened = convert::decode_items(message, ITEMS_MAX).and_then(|request| {
        let not_served = || CallError::NotServed { what: "Cache.Watch".to_owned() };
        let watches = plane.watches.as_ref().ok_or_else(not_served)?;
        watches.watch(&request, (plane.ending)(), plane.response_backlog.clone())
    });
    opened.map_or_else(ResponseBody::error, ResponseBody::stream)
}

/// What a request asks for, where that is not everything.
fn filter(cache: &Cache, request: &v1::WatchRequest) -> Result<Option<Filter>, CallError> {
    let (names, prefix) = (&request.namespaces, &request.prefix);
    if names.len() > NAMESPACES_MAX {
        return Err(CallError::TooManyItems { field: "namespaces", items: names.len(), max: NAMESPACES_MAX });
    }
    if prefix.len() > KEY_BYTES_MAX {
        let (field, bytes, max) = ("prefix".to_owned(), prefix.len(), KEY_BYTES_MAX);
        return Err(CallError::KeyTooLong { field, bytes, max });
    }
    for name in names {
        namespace(cache, name)?;
    }
    let is_some = !names.is_empty() || !prefix.is_empty();
    Ok(is_some.then(|| Filter { namespaces: names.clone(), prefix: prefix.to_vec() }))
}

/// Where a stream is to go on.
struct Positions {
    /// Of the shards that have one.
    by_shard: Vec<Option<u64>>,
    /// Some are of another state of the node.
    are_foreign: bool,
}

impl Positions {
    fn read(hub: &Hub, positions: &[v1::WatchPosition]) -> Result<Self, CallError> {
        if positions.len() > POSITIONS_MAX {
            let items = positions.len();
            return Err(CallError::TooManyItems { field: "positions", items, max: POSITIONS_MAX });
        }
        let mut read = Self { by_shard: vec![None; hub.cache.shard_count()], are_foreign: false };
        for position in positions {
            if position.incarnation == 0 {
                let why = "an incarnation is 0, which no node has: copy it from the message".to_owned();
                return Err(CallError::Invalid { field: "positions", why });
            }
            if position.incarnation != hub.incarnation {
                read.are_foreign = true;
                continue;
            }
            let shards = read.by_shard.len();
            let Some(known) = read.by_shard.get_mut(position.shard as usize) else {
                let why = format!("there is no shard {}: the node has {shards}, from 0", position.shard);
                return Err(CallError::Invalid { field: "positions", why });
            };
            *known = Some(known.map_or(position.sequence, |known| known.min(position.sequence)));
        }
        Ok(read)
    }

    /// Where a watcher begins to read.
    fn begin(self, log: &EventLog, filter: Option<Filter>) -> Result<Reading, CallError> {
        if self.are_foreign {
            return Ok(Reading::anew(log, filter, Some(v1::DiscontinuityReason::NewState)));
        }
        let mut told = Vec::with_capacity(log.heads().len());
        for (shard, (position, head)) in self.by_shard.iter().zip(log.heads()).enumerate() {
            let position = position.unwrap_or(*head);
            if position > *head {
                let why = format!("{position} is no sequence of shard {shard}, which has come to {head}");
                return Err(CallError::Invalid { field: "positions", why });
            }
            told.push(position);
        }
        Ok(match log.after(&told) {
            Some(next) => Reading::after(told, next, log.end(), filter),
            None => Reading::anew(log, filter, Some(v1::DiscontinuityReason::PositionsTooOld)),
        })
    }
}

impl Hub {
    /// Begins to note events, if that is not done already.
    fn begin_log(self: &Arc<Self>, state: &mut State) {
        if state.log.is_some() {
            return;
        }
        let (incarnation, nudges) = (self.incarnation, Arc::clone(&self.nudges));
        let shard_bytes = self.cache.bytes_limit() as usize / state.sequences.len();
        let config = EventConfig {
            encode: Arc::new(move |event, out| put_event(out, incarnation, event)),
            nudge: Arc::new(move |shard| nudges.nudge(shard)),
            waiting_bytes_max: (shard_bytes / WAITING_PART).clamp(WAITING_BYTES_MIN, WAITING_BYTES_MAX),
        };
        self.cache.start_events(&config, &state.sequences);
        let bytes_max = self.log_bytes_max();
        self.cache.charge_events(bytes_max);
        state.log = Some(EventLog::new(state.sequences.clone(), bytes_max as usize));
        tokio::spawn(collector::run(Arc::downgrade(self)));
    }

    /// What the log may take, in bytes.
    fn log_bytes_max(&self) -> u64 {
        (self.cache.bytes_limit() / LOG_PART).clamp(*LOG_BYTES.start(), *LOG_BYTES.end())
    }

    /// Sees to it that the log takes what it may, and that this is charged.
    fn resize_log(&self, log: &mut EventLog) {
        let bytes_max = self.log_bytes_max();
        if log.set_bytes_max(bytes_max as usize) {
            self.cache.charge_events(bytes_max);
        }
    }

    /// How far apart watchers are woken: each takes some ten microseconds of a processor then, which are to be no more
    /// than about a tenth of its time. Where there are none, events are only kept for those that come back.
    fn spacing(&self, watchers: usize) -> Duration {
        if watchers == 0 {
            return SPACING_MAX;
        }
        (SPACING_PER_WATCHER * u32::try_from(watchers).unwrap_or(u32::MAX)).clamp(SPACING_MIN, SPACING_MAX)
    }

    /// Counts a Discontinuity.
    fn note_discontinuity(&self) {
        self.discontinuities.fetch_add(1, Relaxed);
    }

    /// Writes the heartbeats of all shards, for one who was told up to `told`, or else everything.
    fn put_heartbeats(&self, out: &mut Vec<u8>, heads: &[u64], told: Option<&[u64]>) {
        let (shards, interval_ms) = (heads.len() as u32, HEARTBEAT_INTERVAL.as_millis() as u64);
        for (shard, head) in heads.iter().enumerate() {
            let previous = told.map_or(*head, |told| told[shard]);
            let (incarnation, shard) = (self.incarnation, shard as u32);
            let place = Place { incarnation, shard, sequence: *head, previous };
            put_heartbeat(out, place, shards, interval_ms);
        }
    }

    /// The heartbeats for one who was told everything up to the log's end.
    fn heartbeats(&self, state: &mut State) -> Bytes {
        let Some(log) = &state.log else { return Bytes::new() };
        match &state.heartbeats {
            Some((end, heartbeats)) if *end == log.end() => heartbeats.clone(),
            _ => {
                let mut out = Vec::new();
                self.put_heartbeats(&mut out, log.heads(), None);
                let heartbeats = Bytes::from(out);
                state.heartbeats = Some((log.end(), heartbeats.clone()));
                heartbeats
            }
        }
    }
}

impl State {
    /// A slot for one more watcher.
    fn enter(&mut self) -> usize {
        self.watchers += 1;
        let slot = Slot { is_due: true, ..Slot::default() };
        match self.free.pop() {
            Some(free) => {
                self.slots[free] = slot;
                free
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        }
    }

    fn leave(&mut self, slot: usize) {
        self.watchers -= 1;
        self.slots[slot] = Slot::default();
        self.free.push(slot);
    }
}

/// Events of a shard may wait in this part of its memory, within these bounds.
const WAITING_PART: usize = 64;
const WAITING_BYTES_MIN: usize = 16 << 10;
const WAITING_BYTES_MAX: usize = 256 << 10;
/// How far apart watchers are woken, for each of them, and in all.
const SPACING_PER_WATCHER: Duration = Duration::from_micros(80);
const SPACING_MIN: Duration = Duration::from_millis(1);
const SPACING_MAX: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests;
