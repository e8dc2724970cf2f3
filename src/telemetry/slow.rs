//! The latest calls that took longer than a threshold.
//!
//! A call pays one comparison; only one that was slow takes the lock and copies what it was about.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tonic::Code;

use crate::clock::{Clock, SystemClock};
use crate::verb::Verb;

/// How many calls are kept.
pub(crate) const OPS_KEPT: usize = 128;
/// How much of a key is kept.
pub(crate) const KEY_BYTES_KEPT: usize = 256;

/// A call that was slow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowOp {
    /// The method; of a Pipeline's command that of its op.
    pub verb: Verb,
    /// What it was about.
    pub about: CallDescription,
    /// When it came in, in milliseconds since 1970-01-01 UTC.
    pub started_unix_ms: u64,
    /// How long it took in all.
    pub elapsed: Duration,
    /// How long of that it waited for its turn.
    pub queued: Duration,
    /// What it ended with.
    pub code: Code,
    /// The caller's address.
    pub peer: Arc<str>,
}

/// What a call was about, as far as its request was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallDescription {
    /// The namespace.
    pub namespace: String,
    /// The key, cut to [`KEY_BYTES_KEPT`]; of several the first; empty: it had none.
    pub key: Vec<u8>,
    /// How many keys it had.
    pub items: u32,
    /// The trace that it belonged to; empty: none.
    pub traceparent: String,
}

/// Slow calls, the latest [`OPS_KEPT`].
#[derive(Debug)]
pub struct SlowOps {
    /// What a call may take, in ns; `u64::MAX`: none are kept.
    threshold_ns: AtomicU64,
    kept: Mutex<Kept>,
    clock: Arc<SystemClock>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The oldest first.
    ops: VecDeque<SlowOp>,
    total: u64,
}

impl SlowOps {
    /// Keeps calls that take longer than `threshold`, with the time that `clock` shows; `None`: none.
    #[must_use]
    pub fn new(threshold: Option<Duration>, clock: Arc<SystemClock>) -> Self {
        let ops = Self { threshold_ns: AtomicU64::new(u64::MAX), kept: Mutex::default(), clock };
        ops.set_threshold(threshold);
        ops
    }

    /// Sets that for calls that end from now on; those that are kept stay.
    pub fn set_threshold(&self, threshold: Option<Duration>) {
        let ns =
            threshold.map_or(u64::MAX, |threshold| u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX));
        self.threshold_ns.store(ns, Relaxed);
    }

    /// What a call may take; `None`: none are kept.
    #[must_use]
    pub fn threshold(&self) -> Option<Duration> {
        let ns = self.threshold_ns.load(Relaxed);
        (ns != u64::MAX).then(|| Duration::from_nanos(ns))
    }

    /// Those that are kept, the newest first, and how many there were in all.
    #[must_use]
    pub fn latest(&self) -> (Vec<SlowOp>, u64) {
        let kept = self.kept.lock();
        (kept.ops.iter().rev().cloned().collect(), kept.total)
    }

    fn keep(&self, op: SlowOp) {
        let mut kept = self.kept.lock();
        if kept.ops.len() == OPS_KEPT {
            kept.ops.pop_front();
        }
        kept.ops.push_back(op);
        kept.total += 1;
    }
}

impl CallDescription {
    /// A call with this key, one of `items`.
    #[must_use]
    pub fn new(namespace: &str, key: &[u8], items: usize) -> Self {
        Self {
            namespace: cut(namespace, NAMESPACE_BYTES_KEPT),
            key: key[..key.len().min(KEY_BYTES_KEPT)].to_vec(),
            items: u32::try_from(items).unwrap_or(u32::MAX),
            traceparent: String::new(),
        }
    }

    /// The same, of this trace.
    #[must_use]
    pub fn traced(self, traceparent: &str) -> Self {
        Self { traceparent: cut(traceparent, TRACEPARENT_BYTES_KEPT), ..self }
    }
}

/// As long as a name can be: what is longer was refused, and need not be kept whole.
const NAMESPACE_BYTES_KEPT: usize = 255;
/// One is 55 bytes; a later version of the standard may have more behind them.
const TRACEPARENT_BYTES_KEPT: usize = 128;

/// Callers choose how long what they send is, and 128 of it are kept.
fn cut(text: &str, bytes_max: usize) -> String {
    let end = (0..=bytes_max.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[..end].to_owned()
}

/// Where the calls of one peer are kept if they are slow.
#[derive(Debug, Clone)]
pub struct SlowCalls {
    ops: Arc<SlowOps>,
    peer: Arc<str>,
}

impl SlowCalls {
    /// Keeps those of `peer` in `ops`.
    #[must_use]
    pub fn new(ops: Arc<SlowOps>, peer: &str) -> Self {
        Self { ops, peer: peer.into() }
    }

    /// Whether a call that took `elapsed` is to be kept.
    #[must_use]
    #[inline]
    pub fn is_slow(&self, elapsed: Duration) -> bool {
        elapsed.as_nanos() > u128::from(self.ops.threshold_ns.load(Relaxed))
    }

    /// Keeps a call that has just ended.
    #[cold]
    pub fn keep(&self, verb: Verb, about: CallDescription, elapsed: Duration, queued: Duration, code: Code) {
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let started_unix_ms = self.ops.clock.now().unix_ms().saturating_sub(elapsed_ms);
        let peer = Arc::clone(&self.peer);
        self.ops.keep(SlowOp { verb, about, started_unix_ms, elapsed, queued, code, peer });
    }
}

impl Default for SlowCalls {
    /// Keeps none.
    fn default() -> Self {
        Self::new(Arc::new(SlowOps::new(None, Arc::default())), "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn keep(calls: &SlowCalls, items: usize) {
        calls.keep(Verb::BatchGet, CallDescription::new("ns", &[b'k'; 300], items), 3 * MS, MS, Code::Ok);
    }

    #[test]
    fn the_latest_are_kept_and_all_are_counted() {
        let ops = Arc::new(SlowOps::new(Some(2 * MS), Arc::default()));
        let calls = SlowCalls::new(Arc::clone(&ops), "10.0.0.1:5");
        (0..OPS_KEPT + 7).for_each(|items| keep(&calls, items));
        let (latest, total) = ops.latest();
        assert_eq!((latest.len(), total), (OPS_KEPT, OPS_KEPT as u64 + 7));
        let items: Vec<u32> = latest.iter().map(|op| op.about.items).collect();
        assert!(items.iter().rev().copied().eq(7..7 + OPS_KEPT as u32), "{items:?}");
        let op = &latest[0];
        assert_eq!((op.verb.name(), &*op.about.namespace, &*op.peer), ("BatchGet", "ns", "10.0.0.1:5"));
        assert_eq!((op.about.key.len(), op.elapsed, op.queued), (KEY_BYTES_KEPT, 3 * MS, MS));
        assert!(op.started_unix_ms > 1_600_000_000_000);
    }

    #[test]
    fn what_a_caller_sent_is_kept_within_bounds() {
        let long = "ü".repeat(1_000_000);
        let about = CallDescription::new(&long, long.as_bytes(), usize::MAX).traced(&long);
        assert_eq!((about.namespace.len(), about.key.len(), about.traceparent.len()), (254, 256, 128));
        assert_eq!(about.items, u32::MAX);
    }

    #[test]
    fn what_takes_as_long_as_it_may_is_not_slow() {
        let ops = Arc::new(SlowOps::new(Some(2 * MS), Arc::default()));
        let calls = SlowCalls::new(Arc::clone(&ops), "");
        assert!(!calls.is_slow(2 * MS) && calls.is_slow(2 * MS + Duration::from_nanos(1)));
        ops.set_threshold(None);
        assert!(!calls.is_slow(Duration::from_secs(1 << 30)));
        assert_eq!(ops.threshold(), None);
    }
}
