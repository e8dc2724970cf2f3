//! What a node has acknowledged, and whether it is there after a crash: P1 and P2 of every test that kills one.
//!
//! Writers record an answer at the moment in which they get it; a call that is under way when the node dies may have
//! been applied or not.

#![allow(dead_code, reason = "every test program uses its own part")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder::proto::v1::cache_client::CacheClient;
use larder::proto::v1::*;
use parking_lot::Mutex;
use tonic::transport::Channel;

use super::node::{Process, connect, delete, found, get, set};

/// Keys of a writer that waits for the disk.
const KEYS: u64 = 20;

/// What was acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The last value of each key that was set FLUSHED: ever larger numbers.
    flushed: Mutex<BTreeMap<String, u64>>,
    /// Keys of this round that were set and deleted, both FLUSHED, and never set again.
    deleted: Mutex<Vec<String>>,
    /// Which round of buffered writes it is.
    round: AtomicU64,
    /// Buffered writes of this round that were acknowledged.
    buffered: AtomicU64,
    /// Of those, the ones before a FLUSHED write that was acknowledged.
    safe: AtomicU64,
}

pub(crate) fn flushed(request: SetRequest) -> SetRequest {
    SetRequest { durability: Durability::Flushed as i32, ..request }
}

pub(crate) async fn cache_of(process: &Process) -> CacheClient<Channel> {
    CacheClient::new(connect(&process.ready.data[0]).await)
}

impl Kept {
    /// How many FLUSHED sets were acknowledged, as far as numbers tell.
    pub(crate) fn sum(&self) -> u64 {
        self.flushed.lock().values().sum()
    }

    /// A number above all that were acknowledged.
    pub(crate) fn begin(&self) -> u64 {
        self.flushed.lock().values().max().copied().unwrap_or(0) + 1
    }

    /// What is acknowledged at this moment, apart from what follows.
    pub(crate) fn so_far(&self) -> Self {
        let number = |of: &AtomicU64| AtomicU64::new(of.load(Ordering::Relaxed));
        Self {
            flushed: Mutex::new(self.flushed.lock().clone()),
            deleted: Mutex::new(self.deleted.lock().clone()),
            round: number(&self.round),
            buffered: number(&self.buffered),
            safe: number(&self.safe),
        }
    }

    /// Buffered writes and deletions begin anew, under other keys.
    pub(crate) fn next_round(&self) {
        self.deleted.lock().clear();
        self.round.fetch_add(1, Ordering::Relaxed);
        self.buffered.store(0, Ordering::Relaxed);
        self.safe.store(0, Ordering::Relaxed);
    }

    /// What the keys of this round's buffered writes begin with.
    pub(crate) fn buffered_prefix(&self) -> String {
        format!("buffered:{}:", self.round.load(Ordering::Relaxed))
    }

    /// How many buffered writes of this round were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.buffered.load(Ordering::Relaxed)
    }

    /// How many buffered writes of this round must be there.
    pub(crate) fn safe(&self) -> u64 {
        self.safe.load(Ordering::Relaxed)
    }

    /// Sets its own keys to ever larger numbers until the node is gone.
    pub(crate) async fn write(self: Arc<Self>, mut cache: CacheClient<Channel>, writer: usize, begin: u64) {
        for n in begin.. {
            let key = format!("{writer}:{}", n % KEYS);
            // What was acknowledged before this was asked for is safe with it.
            let before = self.buffered.load(Ordering::Relaxed);
            if cache.set(flushed(set(&key, n.to_string()))).await.is_err() {
                return;
            }
            self.flushed.lock().insert(key, n);
            self.safe.fetch_max(before, Ordering::Relaxed);
        }
    }

    /// Writes one key after the other without waiting for the disk, until the node is gone.
    pub(crate) async fn write_buffered(self: Arc<Self>, mut cache: CacheClient<Channel>) {
        let prefix = self.buffered_prefix();
        for n in 0.. {
            if cache.set(set(format!("{prefix}{n}"), "v".repeat(200))).await.is_err() {
                return;
            }
            self.buffered.store(n + 1, Ordering::Relaxed);
        }
    }

    /// Sets keys and deletes them again until the node is gone.
    pub(crate) async fn write_and_delete(self: Arc<Self>, mut cache: CacheClient<Channel>) {
        let round = self.round.load(Ordering::Relaxed);
        for n in 0.. {
            let key = format!("deleted:{round}:{n}");
            let request = DeleteRequest { durability: Durability::Flushed as i32, ..delete(&key) };
            if cache.set(flushed(set(&key, "v"))).await.is_err() || cache.delete(request).await.is_err() {
                return;
            }
            self.deleted.lock().push(key);
        }
    }

    /// Everything is there that was acknowledged, and of what was only buffered the beginning.
    pub(crate) async fn judge(&self, cache: &mut CacheClient<Channel>) {
        let expected = self.flushed.lock().clone();
        for (key, last) in expected {
            let found: u64 = found(cache.get(get(&key)).await.unwrap().into_inner())
                .map(|hit| String::from_utf8(hit.value.to_vec()).unwrap().parse().unwrap())
                .unwrap_or_else(|missed| panic!("{key} was {last} when it was acknowledged: {missed:?}"));
            assert!(found >= last, "{key} is {found}, and {last} was acknowledged");
        }
        let deleted = self.deleted.lock().clone();
        for key in deleted {
            let found = found(cache.get(get(&key)).await.unwrap().into_inner());
            assert!(found.is_err(), "{key} is back, and its deletion was acknowledged");
        }
        let numbers = numbers(cache, &self.buffered_prefix()).await;
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "a hole in what was buffered");
        let safe = self.safe();
        assert!(numbers.len() as u64 >= safe, "{} buffered writes, and {safe} were synced", numbers.len());
    }
}

/// What the keys end with that begin with a prefix, in order.
pub(crate) async fn numbers(cache: &mut CacheClient<Channel>, prefix: &str) -> Vec<u64> {
    let request = ScanRequest {
        prefix: prefix.as_bytes().to_vec().into(),
        keys_only: true,
        page_size: 10_000,
        ..ScanRequest::default()
    };
    let mut numbers = Vec::new();
    let mut token = bytes::Bytes::new();
    loop {
        let page =
            cache.scan(ScanRequest { page_token: token, ..request.clone() }).await.unwrap().into_inner();
        for item in page.items {
            let key = String::from_utf8(item.key.to_vec()).unwrap();
            numbers.push(key.rsplit(':').next().unwrap().parse::<u64>().unwrap());
        }
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    numbers.sort_unstable();
    numbers
}
