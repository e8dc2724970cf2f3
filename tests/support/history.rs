//! The history that a client makes, of which a node that keeps snapshots alone has a beginning after a crash.
//!
//! Each step sets a key of its own, deletes the one that is some steps older, and counts. So what is there tells how many
//! operations it has, and what is there of later ones without those before them is seen as a hole.

#![allow(dead_code, reason = "every test program uses its own part")]

use larder::proto::v1::cache_client::CacheClient;
use larder::proto::v1::*;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::kept::{flushed, numbers};
use super::node::{assert_status, delete, found, get, increment, set};

/// How many keys are there at a time.
const KEYS: u64 = 150;
/// A step's operations.
const OPERATIONS: u64 = 3;

/// A client's operations, each asked for when the one before is answered.
#[derive(Debug)]
pub(crate) struct History {
    name: String,
    counts: watch::Sender<Counts>,
}

/// How many operations there are.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    /// Under way, or acknowledged.
    asked: u64,
    acknowledged: u64,
    /// Acknowledged before a snapshot was asked for.
    in_snapshot: u64,
    /// In a snapshot that was reported as taken, or that a start has found.
    safe: u64,
    /// The node is gone, and nobody has looked at the next.
    is_gone: bool,
}

/// What a crash must have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Least {
    /// The last snapshot that was reported as taken.
    Told,
    /// The last that was asked for.
    Asked,
}

impl History {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), counts: watch::Sender::default() }
    }

    /// Goes on where it is until the node is gone.
    pub(crate) async fn write(&self, mut cache: CacheClient<Channel>) {
        let mut ended = Ok(());
        while ended.is_ok() {
            let next = self.counts.borrow().acknowledged;
            self.counts.send_modify(|counts| counts.asked = next + 1);
            ended = self.does(&mut cache, next).await;
            self.counts.send_modify(|counts| counts.acknowledged += u64::from(ended.is_ok()));
        }
        self.counts.send_modify(|counts| counts.is_gone = true);
    }

    async fn does(&self, cache: &mut CacheClient<Channel>, operation: u64) -> Result<(), Status> {
        let step = operation / OPERATIONS;
        match operation % OPERATIONS {
            0 => {
                if step.is_multiple_of(4) {
                    self.is_not_flushed(cache, step).await?;
                }
                cache.set(set(self.key(step), step.to_string().repeat(20))).await.map(drop)
            }
            1 => match step.checked_sub(KEYS) {
                Some(old) => cache.delete(delete(self.key(old))).await.map(|done| {
                    assert!(done.into_inner().deleted, "{} was gone before", self.key(old));
                }),
                None => Ok(()),
            },
            _ => self.counts_to(cache, step + 1).await,
        }
    }

    /// No write can wait for a disk that keeps no journal: it is refused, and nothing is done.
    async fn is_not_flushed(&self, cache: &mut CacheClient<Channel>, step: u64) -> Result<(), Status> {
        match cache.set(flushed(set(self.key(step), "flushed"))).await {
            Ok(done) => panic!("acknowledged as flushed: {done:?}"),
            Err(status) if status.code() == Code::FailedPrecondition => {
                assert_status(&status, Code::FailedPrecondition, "NO_PERSISTENCE", None);
                Ok(())
            }
            Err(status) => Err(status),
        }
    }

    /// Asks for the increment that makes the counter this, however often it was asked for before.
    async fn counts_to(&self, cache: &mut CacheClient<Channel>, count: u64) -> Result<(), Status> {
        let request_id = format!("to {count}");
        let request = IncrementRequest { request_id, ..increment(self.counter(), 1) };
        let done = cache.increment(request).await?.into_inner();
        assert_eq!(done.value, count as i64, "{} counts each step once", self.counter());
        Ok(())
    }

    fn key(&self, step: u64) -> String {
        format!("{}{step}", self.prefix())
    }

    fn prefix(&self) -> String {
        format!("{}:", self.name)
    }

    fn counter(&self) -> String {
        format!("count of {}", self.name)
    }

    /// Waits until it has done `steps` steps more; false: the node is gone.
    pub(crate) async fn goes_on(&self, steps: u64) -> bool {
        let mut counts = self.counts.subscribe();
        let wanted = counts.borrow().acknowledged + OPERATIONS * steps;
        let counts = counts.wait_for(|counts| counts.acknowledged >= wanted || counts.is_gone).await;
        !counts.expect("the sender is ours").is_gone
    }

    /// A snapshot is asked for: what is acknowledged by now will be in it.
    pub(crate) fn snapshot_asked(&self) {
        self.counts.send_modify(|counts| counts.in_snapshot = counts.acknowledged);
    }

    /// It is taken.
    pub(crate) fn snapshot_taken(&self) {
        self.counts.send_modify(|counts| counts.safe = counts.in_snapshot);
    }

    /// What is there is the content after some operation, no earlier and no later than it may be; from there it goes on.
    pub(crate) async fn judge(&self, cache: &mut CacheClient<Channel>, least: Least) {
        let Counts { asked, in_snapshot, safe, .. } = *self.counts.borrow();
        let keys = numbers(cache, &self.prefix()).await;
        let counter = found(cache.get(get(self.counter())).await.unwrap().into_inner());
        let count: u64 =
            counter.map_or(0, |hit| String::from_utf8(hit.value.to_vec()).unwrap().parse().unwrap());
        let there = (OPERATIONS * count..OPERATIONS * (count + 1)).filter(|n| *n <= asked).rev();
        let there = there.into_iter().find(|operations| content(*operations).eq(keys.iter().copied()));
        let there = there.unwrap_or_else(|| {
            panic!("{}: {count} counted of {asked} operations, and these keys: {keys:?}", self.name)
        });
        let least = if least == Least::Asked { in_snapshot } else { safe };
        assert!(there >= least, "{}: {there} operations, and a snapshot had {least}", self.name);
        if let Some(last) = keys.last() {
            let hit = found(cache.get(get(self.key(*last))).await.unwrap().into_inner()).unwrap();
            assert_eq!(hit.value, last.to_string().repeat(20));
        }
        if count > 0 {
            self.counts_to(cache, count).await.unwrap();
        }
        self.counts.send_replace(Counts {
            asked: there,
            acknowledged: there,
            in_snapshot: there,
            safe: there,
            is_gone: false,
        });
    }
}

/// The numbers of the keys that are there after `operations` operations.
fn content(operations: u64) -> std::ops::Range<u64> {
    let (set, deleted) = (operations.div_ceil(OPERATIONS), (operations + 1) / OPERATIONS);
    deleted.saturating_sub(KEYS)..set
}
