//! The stream of changes as the journal has it: the result of every change, in order. A shard formulates a change once, for
//! all that follow ([`super::changes`]).
//!
//! Each shard writes its changes to a buffer of its own under its lock and counts them ([`Drained::events`]), so that
//! the buffer's order is the order in which they were made. What concerns all shards at once (an invalidation, a
//! namespace's change) is a *barrier*: its record stands once, and every shard's buffer remembers where it came.
//! [`Drained::pieces`] puts all of it in one order in which each shard's changes keep theirs and whatever came before a
//! barrier in any shard stands before it.
//!
//! Shards are drained one after the other, but what is drained is cut in all of them at the moment in which the drain
//! begins: a change that somebody made after having seen another is never in an earlier drain than that one. So the
//! drains up to some one hold all that was known to those who made the changes in them.
//!
//! What all shards together have logged and is not written yet counts against one [`LogBudget`], barriers too. While it is
//! used up, writes and invalidations are refused.
//!
//! The engine does not know how a record is written: it is given a function.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;

use super::namespace::NamespaceConfig;
use super::op::{EntryView, Refusal, Tier, ValueView};
use super::shard::Scope;
use crate::clock::Now;
use crate::entry::{Expiry, Version};

/// The result of one change, which is what a journal keeps and a recovery applies.
#[derive(Debug, Clone, Copy)]
pub enum Record<'a> {
    /// An entry was written.
    Put(Put<'a>),
    /// There is no entry of this key.
    Remove {
        /// The namespace's number.
        namespace: u16,
        /// The key.
        key: &'a [u8],
    },
    /// An entry, if there is one, has a new expiry.
    Expiry {
        /// The namespace's number.
        namespace: u16,
        /// The key.
        key: &'a [u8],
        /// When it expires now.
        expiry: Expiry,
    },
    /// An increment with a request id came to this.
    Counted {
        /// The namespace's number.
        namespace: u16,
        /// The counter's key.
        key: &'a [u8],
        /// The request's id.
        request_id: &'a str,
        /// What the counter was then.
        value: i64,
        /// And its version.
        version: Version,
    },
    /// Entries that the scope covers and that are not newer than `until` are gone.
    Invalidated {
        /// The namespace's number.
        namespace: u16,
        /// What is covered.
        scope: Scope<'a>,
        /// The version of the invalidation.
        until: Version,
    },
    /// All entries of the namespace are gone.
    Cleared {
        /// The namespace's number.
        namespace: u16,
    },
    /// There is a namespace of this number, and this is in force for it.
    Namespace {
        /// Its number; 0 is the default one, of which only the generation counts here.
        number: u16,
        /// How many invalidations it has seen.
        generation: u64,
        /// What is in force.
        config: &'a NamespaceConfig,
    },
    /// The namespace of this number is gone with its entries.
    NamespaceDeleted {
        /// Its number.
        number: u16,
    },
}

/// An entry that was written.
#[derive(Debug, Clone, Copy)]
pub struct Put<'a> {
    /// The namespace's number.
    pub namespace: u16,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: ValueView<'a>,
    /// Its version.
    pub version: Version,
    /// When it expires.
    pub expiry: Expiry,
    /// The client's own number.
    pub flags: u32,
    /// The client's own content type.
    pub content_type: &'a str,
    /// Its tags.
    pub tags: &'a [&'a str],
    /// The id of the increment that wrote it; empty: none did, or it had none.
    pub request_id: &'a str,
}

impl<'a> Put<'a> {
    /// The entry, as it is read where it lies on disk; `None`: its time has ended.
    pub(crate) fn view(&self, now: Now) -> Option<EntryView<'a>> {
        let remaining_ttl_ms = match self.expiry {
            Expiry::Never => 0,
            Expiry::AtMs(at) => at.checked_sub(now.steady_ms).filter(|left| *left > 0)?,
        };
        Some(EntryView {
            value: self.value,
            version: self.version,
            remaining_ttl_ms,
            flags: self.flags,
            content_type: self.content_type,
            tier: Tier::Disk,
        })
    }
}

impl<'a> Record<'a> {
    /// Its key, where it is a change of one.
    #[must_use]
    #[inline]
    pub fn key(&self) -> Option<&'a [u8]> {
        match self {
            Self::Put(put) => Some(put.key),
            Self::Remove { key, .. } | Self::Expiry { key, .. } | Self::Counted { key, .. } => Some(key),
            _ => None,
        }
    }

    /// The version that it was drawn for; [`Version::NONE`]: none was.
    #[must_use]
    pub fn version(&self) -> Version {
        match self {
            Self::Put(put) => put.version,
            Self::Counted { version, .. } => *version,
            Self::Invalidated { until, .. } => *until,
            _ => Version::NONE,
        }
    }
}

/// Writes a record behind what is in the buffer. A value that is [`ValueView::Shared`] is left out: it belongs at the
/// record's end, where the engine keeps a reference to it.
pub type Encode = fn(&Record<'_>, &mut Vec<u8>);

/// How changes are logged.
#[derive(Clone)]
pub struct LogConfig {
    /// Writes a record.
    pub encode: Encode,
    /// Called, under a shard's lock or the barriers', when the shard has logged [`Self::nudge_bytes`] since it was drained, and while
    /// half of the budget is used up: it must be quick and must not call the engine.
    pub nudge: Arc<dyn Fn() + Send + Sync>,
    /// Bytes that a shard logs before it nudges.
    pub nudge_bytes: usize,
    /// The capacity that a shard's buffer keeps at the most when it is drained.
    pub kept_bytes: usize,
    /// What is logged counts against this until it is written; while it is used up, every shard refuses writes.
    pub budget: Arc<LogBudget>,
    /// A shard counts what it has logged when it is this much, so that shards do not contend for the budget at every
    /// write.
    pub step_bytes: usize,
}

/// The bytes that all shards together have logged and that are not written yet. It may be passed by a
/// [`LogConfig::step_bytes`] for each shard, and by the writes that were accepted at the same moment.
#[derive(Debug)]
#[repr(align(128))]
pub struct LogBudget {
    bytes: AtomicUsize,
    bytes_max: AtomicUsize,
}

impl fmt::Debug for LogConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogConfig")
            .field("nudge_bytes", &self.nudge_bytes)
            .field("budget", &self.budget)
            .field("step_bytes", &self.step_bytes)
            .finish_non_exhaustive()
    }
}

/// Records as they were written, one behind the other. Large values lie apart, by reference.
#[derive(Debug, Default)]
pub struct Written {
    bytes: Vec<u8>,
    /// Large values, each with the place in `bytes` where it belongs.
    shared: Vec<(usize, Bytes)>,
    shared_bytes: usize,
    records: u64,
}

/// What a shard has logged since it was drained.
#[derive(Debug, Default)]
pub(super) struct Logged {
    written: Written,
    /// Where each barrier came: the number of bytes before it.
    barriers: Vec<usize>,
    /// Records and barriers that the shard had logged in all when it was drained.
    events: u64,
}

/// A shard's log.
#[derive(Debug)]
pub(super) struct ShardLog {
    config: LogConfig,
    logged: Logged,
    /// What was logged before the drain that goes on, where something was logged since: it has not come here yet.
    before: Logged,
    /// Drains that have begun, as the engine counts them, and as of the last look here.
    drains: Arc<AtomicU64>,
    seen: u64,
    /// Bytes of `logged` and `before` that the budget does not know of yet.
    uncounted_bytes: usize,
    /// Why no write is accepted, whatever the backlog is.
    closed: Option<Refusal>,
    /// Records and barriers that were logged in all.
    events: u64,
}

impl ShardLog {
    pub(super) fn new(config: LogConfig, drains: Arc<AtomicU64>) -> Self {
        let seen = drains.load(Ordering::Relaxed);
        let (logged, before) = (Logged::default(), Logged::default());
        Self { config, logged, before, drains, seen, uncounted_bytes: 0, closed: None, events: 0 }
    }

    #[inline]
    pub(super) fn add(&mut self, record: &Record<'_>) {
        // An operation that comes to a shard after a drain has passed there sees that the drain has begun, by the lock
        // that both took. So does an operation here that acts on what that one did.
        let drains = self.drains.load(Ordering::Relaxed);
        if drains != self.seen {
            self.seen = drains;
            self.before = std::mem::take(&mut self.logged);
            self.before.events = self.events;
        }
        let before = self.logged.written.size();
        self.logged.written.add(self.config.encode, record);
        self.events += 1;
        let after = self.logged.written.size();
        self.uncounted_bytes += after - before;
        let is_half_full = self.uncounted_bytes >= self.config.step_bytes && self.count();
        if is_half_full || before < self.config.nudge_bytes && after >= self.config.nudge_bytes {
            (self.config.nudge)();
        }
    }

    /// Counts what was logged since this was called last; whether half of the budget is used up then.
    fn count(&mut self) -> bool {
        self.config.budget.take(std::mem::take(&mut self.uncounted_bytes))
    }

    /// Why no write is accepted now, if none is.
    #[inline]
    pub(super) fn refusal(&self) -> Option<Refusal> {
        if self.closed.is_some() {
            return self.closed;
        }
        self.config.budget.refusal()
    }

    pub(super) fn close(&mut self) {
        self.closed = Some(Refusal::Poisoned);
    }

    pub(super) fn set_full(&mut self, is_full: bool) {
        if self.closed != Some(Refusal::Poisoned) {
            self.closed = is_full.then_some(Refusal::DiskLimit);
        }
    }

    pub(super) fn barrier(&mut self) {
        self.logged.barriers.push(self.logged.written.bytes.len());
        self.events += 1;
    }

    /// How many records and barriers were logged in all.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// Takes out what was logged before this drain was begun.
    pub(super) fn drain(&mut self, into: &mut Logged) {
        self.count();
        let drains = self.drains.load(Ordering::Relaxed);
        if drains == self.seen {
            *into = std::mem::take(&mut self.before);
            return;
        }
        self.seen = drains;
        into.clear(self.config.kept_bytes);
        std::mem::swap(&mut self.logged, into);
        into.events = self.events;
    }
}

impl Drop for ShardLog {
    /// What was not drained is forgotten.
    fn drop(&mut self) {
        let counted = self.logged.written.size() + self.before.written.size() - self.uncounted_bytes;
        self.config.budget.give_back(counted);
    }
}

impl LogBudget {
    /// An empty budget of `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), bytes_max: bytes_max.into() }
    }

    /// Sets what may be logged from now on; what is there stays.
    pub fn set_bytes_max(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// What is logged and not written.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What more may be logged.
    #[must_use]
    #[inline]
    pub fn room(&self) -> usize {
        self.bytes_max.load(Ordering::Relaxed).saturating_sub(self.bytes())
    }

    /// Whether writes are refused.
    #[must_use]
    #[inline]
    pub fn is_used_up(&self) -> bool {
        self.room() == 0
    }

    /// Why writes are refused, if they are.
    #[inline]
    fn refusal(&self) -> Option<Refusal> {
        self.is_used_up().then(|| Refusal::Backlogged { bytes: self.bytes() as u64 })
    }

    /// Counts bytes; whether half of what may be logged is there then.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let before = if bytes == 0 { self.bytes() } else { self.bytes.fetch_add(bytes, Ordering::Relaxed) };
        before.saturating_add(bytes) >= self.bytes_max.load(Ordering::Relaxed) / 2
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Written {
    /// Writes a record behind the others.
    #[inline]
    pub fn add(&mut self, encode: Encode, record: &Record<'_>) {
        encode(record, &mut self.bytes);
        if let Record::Put(Put { value: ValueView::Shared(value), .. }) = record {
            self.shared.push((self.bytes.len(), Bytes::clone(value)));
            self.shared_bytes += value.len();
        }
        self.records += 1;
    }

    /// Their bytes, large values included.
    #[must_use]
    #[inline]
    pub fn size(&self) -> usize {
        self.bytes.len() + self.shared_bytes
    }

    /// How many there are.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Their bytes in order; a record may lie in several pieces.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.stretch(0, self.bytes.len()).map(|(piece, _)| piece)
    }

    /// Forgets them, and keeps a buffer of `kept_bytes` at the most for the next.
    pub fn clear(&mut self, kept_bytes: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(kept_bytes);
        self.shared.clear();
        self.shared.shrink_to(SHARED_KEPT);
        self.shared_bytes = 0;
        self.records = 0;
    }

    /// What lies between two places at which a record ends.
    fn stretch(&self, from: usize, to: usize) -> Stretch<'_> {
        // A value that belongs at such a place is of the record that ends there.
        let first = self.shared.partition_point(|(at, _)| *at <= from);
        let last = self.shared.partition_point(|(at, _)| *at <= to);
        Stretch { bytes: &self.bytes, at: from, to, shared: &self.shared[first..last] }
    }
}

/// Places of large values that a buffer keeps room for.
const SHARED_KEPT: usize = 1 << 10;

impl Logged {
    fn clear(&mut self, kept_bytes: usize) {
        self.written.clear(kept_bytes);
        self.barriers.clear();
    }

    /// What was logged after barrier `nth` (counted from 1; 0: from the beginning) and before the next.
    fn stretch(&self, nth: usize) -> Stretch<'_> {
        let from = if nth == 0 { 0 } else { self.barriers[nth - 1] };
        let to = self.barriers.get(nth).copied().unwrap_or(self.written.bytes.len());
        self.written.stretch(from, to)
    }
}

/// A stretch of records, in pieces, each with whether a record ends with it.
struct Stretch<'a> {
    bytes: &'a [u8],
    at: usize,
    to: usize,
    shared: &'a [(usize, Bytes)],
}

impl<'a> Iterator for Stretch<'a> {
    type Item = (&'a [u8], bool);

    fn next(&mut self) -> Option<(&'a [u8], bool)> {
        let (next, is_end) = match self.shared.split_first() {
            Some(((at, value), rest)) if *at == self.at => {
                self.shared = rest;
                return Some((value, true));
            }
            Some(((at, _), _)) => (*at, false),
            None => (self.to, true),
        };
        let piece = &self.bytes[self.at..next];
        self.at = next;
        (!piece.is_empty()).then_some((piece, is_end))
    }
}

/// All that was logged up to a moment; kept and given back for its room.
#[derive(Debug, Default)]
pub struct Drained {
    pub(super) shards: Vec<Logged>,
    pub(super) barriers: Vec<Vec<u8>>,
}

impl Drained {
    /// How many records there are.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.shards.iter().map(|logged| logged.written.records).sum::<u64>() + self.barriers.len() as u64
    }

    /// For each shard, how many records and barriers it had logged in all up to here.
    pub fn events(&self) -> impl Iterator<Item = u64> {
        self.shards.iter().map(|logged| logged.events)
    }

    /// Their bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|logged| logged.written.size()).sum::<usize>()
            + self.barriers.iter().map(Vec::len).sum::<usize>()
    }

    /// The records' bytes in their order; a record may lie in several pieces.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.marked_pieces().map(|(piece, _)| piece)
    }

    /// The same, each piece with whether a record ends with it.
    pub fn marked_pieces(&self) -> impl Iterator<Item = (&[u8], bool)> {
        (0..=self.barriers.len()).flat_map(|nth| {
            let barrier = nth.checked_sub(1).map(|before| (&*self.barriers[before], true));
            barrier.into_iter().chain(self.shards.iter().flat_map(move |logged| logged.stretch(nth)))
        })
    }

    /// Forgets what was drained, as it is written, and gives its bytes back to the budget.
    pub fn clear(&mut self, config: &LogConfig) {
        let logged: usize = self.shards.iter().map(|logged| logged.written.size()).sum();
        let barriers = barrier_bytes(&std::mem::take(&mut self.barriers), self.shards.len());
        self.shards.iter_mut().for_each(|logged| logged.clear(config.kept_bytes));
        config.budget.give_back(logged + barriers);
    }
}

/// The barriers since the last drain. Its lock is taken before any shard's, and by one barrier or drain at a time.
#[derive(Debug, Default)]
pub(super) struct Barriers {
    /// `None`: they are not logged.
    log: Option<LogConfig>,
    encoded: Vec<Vec<u8>>,
    /// How many shards remember each.
    shards: usize,
}

impl Barriers {
    /// Logs them from now on.
    pub(super) fn start(&mut self, config: &LogConfig, shards: usize) {
        self.stop();
        (self.log, self.shards) = (Some(config.clone()), shards);
    }

    /// Logs no more, and forgets what was not drained.
    pub(super) fn stop(&mut self) {
        if let Some(config) = self.log.take() {
            config.budget.give_back(barrier_bytes(&self.encoded, self.shards));
        }
        self.encoded.clear();
    }

    /// Why none is to be added now that callers may add any number of, if none is.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.log.as_ref().and_then(|config| config.budget.refusal())
    }

    /// Writes down what happens in all shards; the shards remember where.
    pub(super) fn add(&mut self, record: &Record<'_>) {
        let Some(config) = &self.log else { return };
        let mut bytes = Vec::new();
        (config.encode)(record, &mut bytes);
        self.encoded.push(bytes);
        let last = self.encoded.len() - 1;
        if config.budget.take(barrier_bytes(&self.encoded[last..], self.shards)) {
            (config.nudge)();
        }
    }

    /// Takes them out.
    pub(super) fn drain(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.encoded)
    }
}

impl Drop for Barriers {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What barriers take of the budget: their records, and where each shard remembers that they came.
fn barrier_bytes(encoded: &[Vec<u8>], shards: usize) -> usize {
    let beside = size_of::<Vec<u8>>() + shards * size_of::<usize>();
    encoded.iter().map(|record| record.len() + beside).sum()
}
