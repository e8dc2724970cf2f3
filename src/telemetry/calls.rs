//! Calls counted by method and status, and timed, so that no two worker threads contend.
//!
//! The counts live in stripes, each on cache lines of its own; a thread always uses the same stripe, and there
//! are more stripes than processors. Recording an OK call is two uncontended atomic additions; reading adds the
//! stripes up, which only a scrape does. Every count only grows, so a scrape that runs beside calls never sees
//! one go back.
//!
//! Durations fall into log-linear buckets: two to an octave, from 1 µs to 12.6 s, so that a quantile read off
//! them is at most half an octave too high.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tonic::Code;

use crate::verb::Verb;

/// Buckets with an upper bound; one more takes what is longer.
pub(super) const BOUNDED_BUCKETS: usize = 48;
const BUCKETS: usize = BOUNDED_BUCKETS + 1;
const METHODS: usize = Verb::ALL.len();
/// Status codes, OK counted.
pub(super) const CODES: usize = 17;

/// Counts and durations of calls, by method.
pub struct CallMetrics {
    stripes: Box<[Stripe]>,
}

/// One thread's share of the counts, or that of a few.
#[repr(align(128))]
struct Stripe {
    methods: [Cells; METHODS],
}

struct Cells {
    /// OK calls by duration.
    ok: [AtomicU64; BUCKETS],
    /// The others by duration.
    failed: [AtomicU64; BUCKETS],
    /// The others by code, less one.
    codes: [AtomicU64; CODES - 1],
    sum_ns: AtomicU64,
}

/// What the calls of one method came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Calls {
    pub(super) verb: Verb,
    /// Calls by status code.
    pub(super) codes: [u64; CODES],
    /// Calls by duration, not cumulative.
    pub(super) buckets: [u64; BUCKETS],
    pub(super) sum_ns: u64,
}

impl CallMetrics {
    /// Nothing counted yet. Takes about 43 KiB for each stripe, of which there are at least two to a processor.
    #[must_use]
    pub fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let stripes = (2 * processors).next_power_of_two();
        Self { stripes: (0..stripes).map(|_| Stripe::new()).collect() }
    }

    /// Counts a call that ended. Never allocates, never waits.
    #[inline]
    pub fn record(&self, verb: Verb, code: Code, elapsed: Duration) {
        let cells = &self.stripes[stripe_number() & (self.stripes.len() - 1)].methods[verb as usize];
        let ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        if code == Code::Ok {
            cells.ok[bucket(ns)].fetch_add(1, Relaxed);
        } else {
            cells.failed[bucket(ns)].fetch_add(1, Relaxed);
            cells.codes[code as usize - 1].fetch_add(1, Relaxed);
        }
        cells.sum_ns.fetch_add(ns, Relaxed);
    }

    /// How often a method ended with a status.
    #[cfg(test)]
    fn count(&self, verb: Verb, code: Code) -> u64 {
        self.calls(verb).codes[code as usize]
    }

    /// What a method's calls came to, summed over the stripes.
    pub(super) fn calls(&self, verb: Verb) -> Calls {
        let mut sum = Calls { verb, codes: [0; CODES], buckets: [0; BUCKETS], sum_ns: 0 };
        for stripe in &self.stripes {
            let cells = &stripe.methods[verb as usize];
            for (number, bucket) in sum.buckets.iter_mut().enumerate() {
                let ok = cells.ok[number].load(Relaxed);
                sum.codes[0] += ok;
                *bucket += ok + cells.failed[number].load(Relaxed);
            }
            for (code, count) in sum.codes[1..].iter_mut().zip(&cells.codes) {
                *code += count.load(Relaxed);
            }
            sum.sum_ns = sum.sum_ns.wrapping_add(cells.sum_ns.load(Relaxed));
        }
        sum
    }
}

impl Calls {
    /// Calls in all.
    pub(super) fn total(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl Default for CallMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for CallMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallMetrics").field("stripes", &self.stripes.len()).finish_non_exhaustive()
    }
}

impl Stripe {
    fn new() -> Self {
        Self { methods: std::array::from_fn(|_| Cells::new()) }
    }
}

impl Cells {
    fn new() -> Self {
        Self {
            ok: std::array::from_fn(|_| AtomicU64::new(0)),
            failed: std::array::from_fn(|_| AtomicU64::new(0)),
            codes: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_ns: AtomicU64::new(0),
        }
    }
}

/// The calling thread's number, dense from 0.
#[inline]
pub(crate) fn stripe_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(NEXT.fetch_add(1, Relaxed));
        }
        number.get()
    })
}

/// The bucket of a duration: the first whose upper bound is not below it.
///
/// Counted in half microseconds the bounds are 2, 3, 4, 6, 8, 12 …: 2^k and 3 × 2^(k−1). So the top bit of the
/// duration less one tells the octave, and the bit below it the half.
#[inline]
fn bucket(ns: u64) -> usize {
    let halves = ns.div_ceil(500);
    if halves <= 2 {
        return 0;
    }
    let below = halves - 1;
    let octave = below.ilog2();
    let half = (below >> (octave - 1)) & 1;
    (2 * u64::from(octave - 1) + 1 + half).min(BOUNDED_BUCKETS as u64) as usize
}

/// The upper bound of a bucket in seconds; infinity for the last.
pub(super) fn bucket_bound_seconds(bucket: usize) -> f64 {
    if bucket >= BOUNDED_BUCKETS {
        return f64::INFINITY;
    }
    let halves = if bucket.is_multiple_of(2) { 2_u64 << (bucket / 2) } else { 3 << (bucket / 2) };
    // Half microseconds to seconds by one correctly rounded division, so that the bounds print short.
    halves as f64 / 2e6
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn buckets_hold_what_lies_up_to_their_bound() {
        for number in 0..BOUNDED_BUCKETS {
            let bound_ns = (bucket_bound_seconds(number) * 1e9).round() as u64;
            assert_eq!(bucket(bound_ns), number, "{bound_ns} ns");
            assert_eq!(bucket(bound_ns + 1), number + 1, "{bound_ns} ns and one more");
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BOUNDED_BUCKETS));
        assert_eq!(bucket_bound_seconds(0), 0.000_001);
        assert_eq!(bucket_bound_seconds(1), 0.000_001_5);
        assert!(bucket_bound_seconds(BOUNDED_BUCKETS - 1) > 10.0);
        assert!(bucket_bound_seconds(BOUNDED_BUCKETS).is_infinite());
    }

    #[test]
    fn every_call_of_every_thread_is_counted_once() {
        let calls = Arc::new(CallMetrics::new());
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let calls = Arc::clone(&calls);
                std::thread::spawn(move || {
                    for number in 0..1_000 {
                        let code = if number % 10 == 0 { Code::Unavailable } else { Code::Ok };
                        calls.record(Verb::Get, code, Duration::from_micros(number));
                    }
                    calls.record(Verb::Set, Code::Unauthenticated, Duration::from_secs(60));
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let get = calls.calls(Verb::Get);
        assert_eq!((get.codes[0], get.codes[Code::Unavailable as usize]), (7_200, 800));
        assert_eq!((get.total(), get.sum_ns), (8_000, 8 * 499_500_000));
        assert_eq!(get.buckets[0], 8 * 2, "0 µs and 1 µs");
        let set = calls.calls(Verb::Set);
        assert_eq!((set.codes[Code::Unauthenticated as usize], set.buckets[BOUNDED_BUCKETS]), (8, 8));
        assert_eq!(calls.count(Verb::Delete, Code::Ok), 0);
    }
}
