//! The admin listener's calls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::convert::wire_ms;
use super::error::ClientError;
use super::pool::{Incoming, Pool};
use super::request::Request;
use crate::proto::v1;

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
    pub async fn next(&mut self) -> Result<Option<v1::GetStatsResponse>, ClientError> {
        self.messages.next(None).await
    }
}

impl AdminClient {
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool: Arc::new(pool) }
    }

    pub(super) async fn call<R: Request>(&self, message: R) -> Result<R::Answer, ClientError> {
        self.pool.call(message).await
    }

    /// Asks a standby node to serve; answered when it does.
    ///
    /// # Errors
    /// [`ClientError`], as every call here.
    pub async fn spawn(&self) -> Result<v1::SpawnResponse, ClientError> {
        self.call(v1::SpawnRequest {}).await
    }

    /// Asks a node to drain; answered when draining has begun. None: the node's own deadline.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn drain(&self, deadline: Option<Duration>) -> Result<v1::DrainResponse, ClientError> {
        let deadline_ms = deadline.map_or(0, |deadline| wire_ms(deadline).max(1));
        self.call(v1::DrainRequest { deadline_ms }).await
    }

    /// The node's state, counters and sizes.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn stats(&self) -> Result<v1::GetStatsResponse, ClientError> {
        self.call(v1::GetStatsRequest {}).await
    }

    /// The same at once and then at every interval, for as long as the caller reads.
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

    /// The configuration in force.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn config(&self) -> Result<v1::GetConfigResponse, ClientError> {
        self.call(v1::GetConfigRequest {}).await
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
    pub async fn create_snapshot(&self) -> Result<v1::CreateSnapshotResponse, ClientError> {
        self.call(v1::CreateSnapshotRequest {}).await
    }

    /// The snapshots on disk, the newest first.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn snapshots(&self) -> Result<v1::ListSnapshotsResponse, ClientError> {
        self.call(v1::ListSnapshotsRequest {}).await
    }

    /// Rehearses a recovery; an empty method is the node's own.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`]. DATA_LOSS where something is damaged.
    pub async fn verify_recovery(&self, method: &str) -> Result<v1::VerifyRecoveryResponse, ClientError> {
        self.call(v1::VerifyRecoveryRequest { method: method.to_owned() }).await
    }

    /// Takes a snapshot and deletes what it makes superfluous.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn compact_journal(&self) -> Result<v1::CompactJournalResponse, ClientError> {
        self.call(v1::CompactJournalRequest {}).await
    }

    /// The keys that are asked for most, the hottest first.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn hot_keys(&self) -> Result<v1::ListHotKeysResponse, ClientError> {
        self.call(v1::ListHotKeysRequest {}).await
    }

    /// Where the node's bytes are, and what could be done about them.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn memory_report(&self) -> Result<v1::GetMemoryReportResponse, ClientError> {
        self.call(v1::GetMemoryReportRequest {}).await
    }

    /// What the node knows of a key. Counts as no use of the entry.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn explain(
        &self,
        namespace: &str,
        key: impl Into<Bytes>,
    ) -> Result<v1::ExplainKeyResponse, ClientError> {
        let message = v1::ExplainKeyRequest { namespace: namespace.to_owned(), key: key.into() };
        self.call(message).await
    }

    /// Changes the named settings, all or none, until the node restarts; answers the configuration in force.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn update_config(
        &self,
        config: v1::Config,
        paths: Vec<String>,
    ) -> Result<v1::Config, ClientError> {
        let update_mask = Some(prost_types::FieldMask { paths });
        let answer = self.call(v1::UpdateConfigRequest { config: Some(config), update_mask }).await?;
        Ok(answer.config.unwrap_or_default())
    }

    /// The latest calls that were slow, the newest first.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn slow_ops(&self) -> Result<v1::ListSlowOpsResponse, ClientError> {
        self.call(v1::ListSlowOpsRequest {}).await
    }
}
