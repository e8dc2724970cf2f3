//! The response backlog: bytes of answers that are encoded and that the network has not taken yet, counted against a budget
//! of the whole node before they are encoded.
//!
//! A client that asks and does not read leaves its answer here, until it reads or its call is reset
//! (`--stall-timeout`). What it may leave is bounded: an answer that finds no room is RESOURCE_EXHAUSTED instead.
//! The bytes are counted for as long as the memory that holds them lives, so also what HTTP/2 has queued for a
//! connection counts.
//!
//! | answer | may use |
//! |---|---|
//! | less than [`COUNTED_BYTES_MIN`] | is not counted: the stream that carries it takes more |
//! | up to [`SHORT_ANSWER_BYTES_MAX`] | the whole budget |
//! | longer | three quarters of it, so that those who read batches of large values leave room for the rest |
//!
//! Short answers are counted in stripes, one to a thread or a few, so that threads do not contend for one count; a
//! stripe gives what has come together to the shared count, which is off by [`BATCH_BYTES`] for each stripe at most.
//! Room is looked for before it is taken, and a write or a Pipeline that was done is answered in any case: the
//! budget may be passed by an answer for each thread that answers at that moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;

use crate::request::CallError;
use crate::telemetry::stripe_number;

/// Answers from this length on are counted.
pub(super) const COUNTED_BYTES_MIN: usize = 1 << 10;
/// Answers up to this length may use the whole budget.
pub(super) const SHORT_ANSWER_BYTES_MAX: usize = 16 << 10;
/// A stripe adds its bytes to the shared count once it has this many.
const BATCH_BYTES: i64 = 16 << 10;
/// What an answer that grows takes at a time.
const STEP_BYTES: usize = 64 << 10;
/// Without a setting: `--max-response-backlog`'s default.
const BYTES_MAX: usize = 32 << 20;

/// The response backlog of a node. Clones are the same.
#[derive(Debug, Clone)]
pub struct ResponseBacklog(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    bytes_max: AtomicUsize,
    /// What is held, but for what the stripes have not given to it; less than nothing at times.
    bytes: CachePadded<AtomicI64>,
    stripes: Box<[CachePadded<AtomicI64>]>,
    refused: AtomicU64,
}

/// Something on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct CachePadded<T>(T);

/// Bytes in the backlog, until they are dropped.
#[derive(Debug)]
pub(super) struct ResponsePermit {
    backlog: ResponseBacklog,
    bytes: usize,
}

impl ResponseBacklog {
    /// An empty one that holds `bytes_max` at most.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let stripes = (2 * processors).next_power_of_two();
        Self(Arc::new(Counts {
            bytes_max: bytes_max.into(),
            bytes: CachePadded::default(),
            stripes: (0..stripes).map(|_| CachePadded::default()).collect(),
            refused: 0.into(),
        }))
    }

    /// Sets the limit to `bytes_max` bytes; what is held stays.
    pub fn set_bytes_max(&self, bytes_max: usize) {
        self.0.bytes_max.store(bytes_max, Relaxed);
    }

    /// What is held now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let stripes: i64 = self.0.stripes.iter().map(|stripe| stripe.0.load(Relaxed)).sum();
        u64::try_from(self.0.bytes.0.load(Relaxed) + stripes).unwrap_or(0)
    }

    /// Answers that were refused for want of room so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Relaxed)
    }

    /// Reserves room for an answer of `bytes` bytes, which may become longer.
    pub(super) fn take(&self, bytes: usize) -> Result<ResponsePermit, CallError> {
        let mut held = ResponsePermit { backlog: self.clone(), bytes: 0 };
        held.settle(bytes)?;
        Ok(held)
    }

    /// Counts in a message whether there is room or not.
    pub(super) fn count_in(&self, message: Vec<u8>) -> Bytes {
        if message.len() < COUNTED_BYTES_MIN {
            return message.into();
        }
        ResponsePermit { backlog: self.clone(), bytes: 0 }.count_in_done(message)
    }

    /// Counts in what lies in memory elsewhere too, whether there is room or not.
    pub(super) fn count_in_shared(&self, bytes: Bytes) -> Bytes {
        if bytes.len() < COUNTED_BYTES_MIN {
            return bytes;
        }
        let mut held = ResponsePermit { backlog: self.clone(), bytes: 0 };
        held.count(bytes.len());
        held.count_in_shared(bytes)
    }

    /// What is left for an answer of such a length.
    pub(super) fn room(&self, bytes: usize) -> usize {
        let max = self.0.bytes_max.load(Relaxed);
        let max = if bytes <= SHORT_ANSWER_BYTES_MAX { max } else { max - max / 4 };
        usize::try_from(max as i64 - self.0.bytes.0.load(Relaxed)).unwrap_or(0)
    }

    /// The refusal of an answer.
    pub(super) fn full(&self) -> CallError {
        self.0.refused.fetch_add(1, Relaxed);
        CallError::ResponseBacklogFull { max: self.0.bytes_max.load(Relaxed) }
    }

    fn count(&self, bytes: i64) {
        if bytes.abs() >= BATCH_BYTES {
            self.0.bytes.0.fetch_add(bytes, Relaxed);
            return;
        }
        let stripe = &self.0.stripes[stripe_number() & (self.0.stripes.len() - 1)].0;
        if (stripe.fetch_add(bytes, Relaxed) + bytes).abs() >= BATCH_BYTES {
            self.0.bytes.0.fetch_add(stripe.swap(0, Relaxed), Relaxed);
        }
    }
}

impl Default for ResponseBacklog {
    /// 32 MiB.
    fn default() -> Self {
        Self::new(BYTES_MAX)
    }
}

impl ResponsePermit {
    /// Makes room for an answer that is about to become `bytes` bytes long. A short one finds its room when it is
    /// whole.
    #[inline]
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), CallError> {
        if bytes <= self.bytes.max(SHORT_ANSWER_BYTES_MAX) {
            return Ok(());
        }
        self.settle(bytes.max(self.bytes + STEP_BYTES))
    }

    /// Counts in the message that room was made for; it may still be refused if it is short and became longer.
    pub(super) fn count_in(mut self, message: Vec<u8>) -> Result<Bytes, CallError> {
        self.settle(message.len())?;
        Ok(self.counted(message))
    }

    /// Counts in a message whose call is done and cannot be refused any more.
    pub(super) fn count_in_done(mut self, message: Vec<u8>) -> Bytes {
        self.count(message.len());
        self.counted(message)
    }

    /// Counts in a value that lies in memory elsewhere too: a client that does not read it keeps it from being freed.
    pub(super) fn count_in_shared(self, value: Bytes) -> Bytes {
        Bytes::from_owner(Counted { bytes: value, _held: self })
    }

    fn counted(self, message: Vec<u8>) -> Bytes {
        if self.bytes == 0 {
            return message.into();
        }
        Bytes::from_owner(Counted { bytes: message, _held: self })
    }

    /// Counts an answer of this length, if there is room for what it has become longer.
    fn settle(&mut self, bytes: usize) -> Result<(), CallError> {
        if bytes >= COUNTED_BYTES_MIN && bytes > self.bytes + self.backlog.room(bytes) {
            return Err(self.backlog.full());
        }
        self.count(bytes);
        Ok(())
    }

    fn count(&mut self, bytes: usize) {
        let bytes = if bytes < COUNTED_BYTES_MIN { 0 } else { bytes };
        if bytes != self.bytes {
            self.backlog.count(bytes as i64 - self.bytes as i64);
            self.bytes = bytes;
        }
    }
}

impl Drop for ResponsePermit {
    fn drop(&mut self) {
        self.count(0);
    }
}

/// The bytes of an answer and their place in the backlog, which they have as long as any part of them is there.
struct Counted<T> {
    bytes: T,
    _held: ResponsePermit,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Counted<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::Failure;

    const KIB: usize = 1 << 10;

    #[test]
    fn an_answer_is_counted_until_its_last_part_is_gone() {
        let backlog = ResponseBacklog::new(100 * KIB);
        let mut message = backlog.take(20 * KIB).unwrap().count_in(vec![1; 30 * KIB]).unwrap();
        let part = message.split_to(KIB);
        assert_eq!((message.len(), backlog.bytes()), (29 * KIB, 30 << 10));
        drop(message);
        assert_eq!((&part[..2], backlog.bytes()), (&[1, 1][..], 30 << 10), "the part keeps the whole alive");
        drop(part);
        assert_eq!(backlog.bytes(), 0);
        let shared = backlog.take(20 * KIB).unwrap().count_in_shared(Bytes::from(vec![2; 20 * KIB]));
        assert_eq!((shared.len(), backlog.bytes()), (20 * KIB, 20 << 10));
        drop(shared);
        assert_eq!((backlog.bytes(), backlog.refused()), (0, 0));
    }

    #[test]
    fn long_answers_leave_a_quarter_to_short_ones_and_the_shortest_are_not_counted() {
        let backlog = ResponseBacklog::new(100 * KIB);
        let long = backlog.take(75 * KIB).unwrap();
        assert_eq!(backlog.take(17 * KIB).unwrap_err().code(), tonic::Code::ResourceExhausted);
        let short = backlog.take(16 * KIB).unwrap();
        assert!(backlog.take(10 * KIB).is_err());
        let tiny: Vec<Bytes> =
            (0..1_000).map(|_| backlog.take(1_023).unwrap().count_in(vec![0; 1_023]).unwrap()).collect();
        assert_eq!((backlog.bytes(), backlog.refused()), (91 << 10, 2));
        drop((long, short, tiny));
        assert_eq!((backlog.bytes(), backlog.room(KIB), backlog.room(20 * KIB)), (0, 100 * KIB, 75 * KIB));
    }

    #[test]
    fn an_answer_that_grows_beyond_the_room_is_refused_and_gives_back_what_it_had() {
        let backlog = ResponseBacklog::new(400 * KIB);
        let mut held = backlog.take(0).unwrap();
        for kib in 0..=16 {
            held.grow_to(kib * KIB).unwrap();
        }
        assert_eq!(backlog.bytes(), 0, "it may stay short");
        held.grow_to(17 * KIB).unwrap();
        assert_eq!(backlog.bytes(), 64 << 10);
        let error = (17..).find_map(|kib| held.grow_to(kib * KIB).err()).unwrap();
        assert_eq!((error, backlog.bytes()), (CallError::ResponseBacklogFull { max: 400 * KIB }, 256 << 10));
        drop(held);
        assert_eq!((backlog.bytes(), backlog.refused()), (0, 1));
        // What was done is answered.
        let (held, _all) = (backlog.take(0).unwrap(), backlog.take(300 * KIB).unwrap());
        let done = held.count_in_done(vec![0; 200 * KIB]);
        assert_eq!((backlog.bytes(), backlog.room(KIB)), (500 << 10, 0));
        backlog.set_bytes_max(600 * KIB);
        assert_eq!(backlog.room(KIB), 100 * KIB);
        drop(done);
    }

    #[test]
    fn what_many_threads_hold_and_drop_for_each_other_adds_up() {
        let backlog = ResponseBacklog::new(1 << 30);
        let (give, given) = std::sync::mpsc::channel();
        let threads: Vec<_> = (1..=4)
            .map(|thread| {
                let (backlog, give) = (backlog.clone(), give.clone());
                std::thread::spawn(move || {
                    for number in 0..2_000 {
                        let bytes = KIB + thread * number % (40 * KIB);
                        give.send(backlog.take(bytes).unwrap().count_in(vec![0; bytes]).unwrap()).unwrap();
                    }
                })
            })
            .collect();
        drop(give);
        let mut kept: Vec<Bytes> =
            given.into_iter().enumerate().filter_map(|(n, held)| (n % 8 == 0).then_some(held)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(backlog.bytes(), kept.iter().map(|held| held.len() as u64).sum::<u64>());
        let off = BATCH_BYTES as usize * backlog.0.stripes.len();
        let room = (1 << 30) - backlog.bytes() as usize;
        assert!(backlog.room(KIB).abs_diff(room) <= off, "the shared count is never far off");
        kept.clear();
        assert_eq!(backlog.bytes(), 0);
    }
}
