//! A node with a journal on a disk that holds back every append until the test releases it.

#![allow(dead_code, reason = "every test program uses its own part")]

use std::sync::Arc;

use larder::engine::LogBudget;
use larder::persistence::DirectoryLock;
use larder::persistence::recover::RecoveryProgress;
use larder::proto::v1::*;
use tokio::task::JoinHandle;
use tonic::{Response, Status};

use super::held::Held;
use super::node::*;
use super::opened;

/// What may be logged and not written.
pub(crate) const BACKLOG_BYTES: usize = 256 << 10;
/// What those that wait may hold.
pub(crate) const WAITING_BYTES: usize = 512 << 10;
pub(crate) const VALUE_BYTES: usize = 16 << 10;

/// A node with a journal on a disk that takes nothing.
pub(crate) struct Stuck {
    pub(crate) node: Node,
    pub(crate) calls: Calls,
    pub(crate) disk: Held,
    /// Entries that were set before the backlog was full.
    pub(crate) filled: usize,
    _directory: tempfile::TempDir,
}

impl Stuck {
    pub(crate) async fn start() -> Self {
        Self::start_with("30s").await
    }

    /// Sets entries until one has no room; what waits longer than `timeout` is refused.
    pub(crate) async fn start_with(timeout: &str) -> Self {
        Self::start_as(&["--timeout", timeout], WAITING_BYTES).await
    }

    /// A node with `flags`, where writes that wait may hold `waiting_bytes`.
    pub(crate) async fn start_as(flags: &[&str], waiting_bytes: usize) -> Self {
        let node = Node::with(&[&["--memory", "64MiB"], flags].concat()).await;
        let (disk, directory) = (Held::default(), tempfile::tempdir().unwrap());
        let lock = DirectoryLock::take(directory.path()).unwrap();
        let mut options = opened::options(directory.path(), false);
        options.disk.journal.backlog_bytes = BACKLOG_BYTES;
        options.disk.journal.waiting_bytes = waiting_bytes;
        let (cache, opened) = (Arc::clone(node.running.cache()), Arc::new(disk.clone()));
        let open = move || cache.open_disk_on(opened, lock, &options, &RecoveryProgress::default()).unwrap();
        tokio::task::spawn_blocking(open).await.unwrap();
        let calls = Calls(node.cache().await);
        let mut stuck = Self { node, calls, disk, filled: 0, _directory: directory };
        stuck.hold_appends_after("before").await;
        stuck.fill().await;
        assert!(stuck.filled * VALUE_BYTES <= 2 * BACKLOG_BYTES, "{} entries", stuck.filled);
        stuck
    }

    /// Sets `key` to "v", and holds back every append once that is on the disk, so that no append under way makes room later.
    pub(crate) async fn hold_appends_after(&mut self, key: &str) {
        let flushed = SetRequest { durability: Durability::Flushed as i32, ..set(key, "v") };
        self.calls.set(flushed).await.unwrap();
        self.disk.hold_appends();
    }

    /// Sets entries until the backlog is full.
    pub(crate) async fn fill(&mut self) {
        while !self.is_full() {
            let key = format!("filled:{}", self.filled);
            self.calls.set(set(key, vec![b'f'; VALUE_BYTES])).await.unwrap();
            self.filled += 1;
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.budget().is_used_up()
    }

    pub(crate) fn budget(&self) -> &LogBudget {
        self.node.running.cache().journal_backlog().unwrap().budget()
    }

    /// Makes room for a write, and for those that follow it until a shard counts them.
    pub(crate) fn make_some_room(&self) {
        self.budget().set_bytes_max(self.budget().bytes() + 1);
    }

    /// A Set that is under way.
    pub(crate) fn begin_set(&self, request: SetRequest) -> Begun<SetResponse> {
        let mut client = self.calls.0.clone();
        tokio::spawn(async move { client.set(request).await })
    }

    pub(crate) fn begin_batch(&self, keys: &[String], value: &[u8]) -> Begun<BatchSetResponse> {
        let mut client = self.calls.0.clone();
        let items = keys.iter().map(|key| set(key, value)).collect();
        tokio::spawn(async move { client.batch_set(BatchSetRequest { items, ..Default::default() }).await })
    }

    /// Waits until a write waits for its turn.
    pub(crate) async fn waiting_for_room(&self) {
        soon(async {
            while !self.node.running.cache().has_waiting_writes() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Waits until `calls` calls are in flight.
    pub(crate) async fn waiting(&self, calls: u64) {
        soon(async {
            while metric(&self.node.metrics().await, "larder_requests_in_flight") != calls {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

impl Drop for Stuck {
    /// A node that ends waits for its journal.
    fn drop(&mut self) {
        self.disk.let_appends_go();
    }
}

pub(crate) type Begun<T> = JoinHandle<Result<Response<T>, Status>>;

pub(crate) async fn ended<T>(call: Begun<T>) -> Result<T, Status> {
    soon(call).await.unwrap().map(Response::into_inner)
}
