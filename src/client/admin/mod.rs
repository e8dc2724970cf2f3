//! The admin listener's calls, and what they come to.
//!
//! ```text
//!  mod.rs  namespaces.rs  settings.rs   the calls        outcome.rs  stats.rs  settings.rs   what they come to
//!  convert.rs   ⇄ generated messages, which no caller sees
//! ```

mod convert;
mod namespaces;
mod outcome;
mod settings;
mod stats;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::convert::wire_ms;
use super::error::ClientError;
use super::pool::{Incoming, Pool};
use super::request::Request;
use crate::proto::v1;
use crate::verb::Verb;

#[cfg(feature = "cli")]
pub(crate) use convert::settings_in_force;
pub use namespaces::NamespaceUpdate;
pub use outcome::{
    Compaction, EntryReport, HotKey, HotKeys, KeyFound, KeyReport, MemoryAdvice, MemoryPart, MemoryReport,
    NamespaceDeletion, NamespaceSettings, RecoveryReport, SlowOp, SlowOps, Snapshot, SnapshotTaken, Spawned,
};
pub use settings::{Setting, SettingInForce, SettingSource, SettingValue};
pub use stats::{NamespaceStats, NodeState, NodeStats, PersistenceStats, PolicyEstimate};

/// A client of one node's Admin service.
#[derive(Debug)]
pub struct AdminClient {
    pool: Arc<Pool>,
}

/// A node's figures, again and again.
#[derive(Debug)]
pub struct StatsStream {
    messages: Incoming<v1::GetStatsResponse>,
}

impl StatsStream {
    /// The next figures. None: the node has ended the stream.
    ///
    /// # Errors
    /// [`ClientError`] where the stream broke.
    pub async fn next(&mut self) -> Result<Option<NodeStats>, ClientError> {
        Ok(self.messages.next(None).await?.map(convert::stats))
    }
}

impl AdminClient {
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool: Arc::new(pool) }
    }

    async fn call<R: Request>(&self, message: R) -> Result<R::Answer, ClientError> {
        self.pool.call(message).await
    }

    fn bad_answer(&self, verb: Verb, problem: &str) -> ClientError {
        self.pool.bad_answer(verb.name(), problem)
    }

    /// Asks a standby node to serve; answered when it does.
    ///
    /// # Errors
    /// [`ClientError`], as every call here.
    pub async fn spawn(&self) -> Result<Spawned, ClientError> {
        Ok(convert::spawned(self.call(v1::SpawnRequest {}).await?))
    }

    /// Asks a node to drain; answered, with the state that it is in then, when draining has begun. What still runs is cut off
    /// after the deadline, which is rounded up to milliseconds. `None`: the node's own.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn drain(&self, deadline: Option<Duration>) -> Result<NodeState, ClientError> {
        let deadline_ms = deadline.map_or(0, |deadline| wire_ms(deadline).max(1));
        Ok(convert::state(self.call(v1::DrainRequest { deadline_ms }).await?.state()))
    }

    /// The node's state, counters and sizes.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn stats(&self) -> Result<NodeStats, ClientError> {
        Ok(convert::stats(self.call(v1::GetStatsRequest {}).await?))
    }

    /// The same at once and then at every interval, 100 ms to 1 h, for as long as the caller reads. A zero interval is 1 s.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn watch_stats(&self, interval: Duration) -> Result<StatsStream, ClientError> {
        let message = v1::StreamStatsRequest { interval_ms: wire_ms(interval) };
        Ok(StatsStream { messages: self.pool.open(message).await? })
    }

    /// Sets the counters back to 0.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn reset_stats(&self) -> Result<(), ClientError> {
        self.call(v1::ResetStatsRequest {}).await?;
        Ok(())
    }

    /// Changes a namespace's eviction policy and answers the previous one.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn set_policy(&self, namespace: &str, policy: &str) -> Result<String, ClientError> {
        let message =
            v1::SetEvictionPolicyRequest { namespace: namespace.to_owned(), policy: policy.to_owned() };
        Ok(self.call(message).await?.previous)
    }

    /// Changes how many bytes a namespace, or with "" the node, may hold; answers the previous limit.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn resize(&self, namespace: &str, bytes_limit: u64) -> Result<u64, ClientError> {
        let message = v1::ResizeRequest { namespace: namespace.to_owned(), bytes_limit };
        Ok(self.call(message).await?.previous_bytes_limit)
    }

    /// Removes all entries of a namespace and answers how many there were.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn clear(&self, namespace: &str) -> Result<u64, ClientError> {
        Ok(self.call(v1::ClearRequest { namespace: namespace.to_owned() }).await?.entries)
    }

    /// Waits until everything before is on disk; the position up to which it is.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn flush(&self) -> Result<u64, ClientError> {
        Ok(self.call(v1::FlushRequest {}).await?.position)
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn create_snapshot(&self) -> Result<SnapshotTaken, ClientError> {
        Ok(convert::snapshot_taken(&self.call(v1::CreateSnapshotRequest {}).await?))
    }

    /// The snapshots on disk, the newest first.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, ClientError> {
        let answer = self.call(v1::ListSnapshotsRequest {}).await?;
        Ok(answer.snapshots.into_iter().map(convert::snapshot).collect())
    }

    /// Rehearses a recovery by the method, one of `snapshot+journal`, `snapshot`, `journal` and `empty`; "" is the node's own.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`]. DATA_LOSS where something is damaged.
    pub async fn verify_recovery(&self, method: &str) -> Result<RecoveryReport, ClientError> {
        let answer = self.call(v1::VerifyRecoveryRequest { method: method.to_owned() }).await?;
        Ok(convert::recovery_report(answer))
    }

    /// Takes a snapshot and deletes what it makes superfluous.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn compact_journal(&self) -> Result<Compaction, ClientError> {
        Ok(convert::compaction(&self.call(v1::CompactJournalRequest {}).await?))
    }

    /// The keys that are asked for most, the hottest first.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn hot_keys(&self) -> Result<HotKeys, ClientError> {
        Ok(convert::hot_keys(self.call(v1::ListHotKeysRequest {}).await?))
    }

    /// Where the node's bytes are, and what could be done about them.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn memory_report(&self) -> Result<MemoryReport, ClientError> {
        Ok(convert::memory_report(self.call(v1::GetMemoryReportRequest {}).await?))
    }

    /// What the node knows of a key. Counts as no use of the entry.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn explain(&self, namespace: &str, key: impl Into<Bytes>) -> Result<KeyReport, ClientError> {
        let message = v1::ExplainKeyRequest { namespace: namespace.to_owned(), key: key.into() };
        Ok(convert::key_report(self.call(message).await?))
    }

    /// The latest calls that were slow, the newest first.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn slow_ops(&self) -> Result<SlowOps, ClientError> {
        Ok(convert::slow_ops(self.call(v1::ListSlowOpsRequest {}).await?))
    }
}
