//! The admin listener's calls.

use std::time::Duration;

use bytes::Bytes;
use tonic::Streaming;

use super::calls::wire_ms;
use super::error::ClientError;
use super::pool::Pool;
use crate::proto::v1;

/// A client of one node's Admin service.
#[derive(Debug)]
pub struct AdminClient {
    pool: Pool,
}

/// A node's figures, again and again.
#[derive(Debug)]
pub struct StatsStream<'a> {
    pool: &'a Pool,
    messages: Streaming<v1::GetStatsResponse>,
}

impl StatsStream<'_> {
    /// The next figures. None: the node has ended the stream.
    ///
    /// # Errors
    /// [`ClientError`] where the stream broke.
    pub async fn next(&mut self) -> Result<Option<v1::GetStatsResponse>, ClientError> {
        self.messages.message().await.map_err(|status| self.pool.error("StreamStats", status))
    }
}

impl AdminClient {
    pub(crate) fn new(pool: Pool) -> Self {
        Self { pool }
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Asks a standby node to serve; answered when it does.
    ///
    /// # Errors
    /// [`ClientError`], as every call here.
    pub async fn spawn(&self) -> Result<v1::SpawnResponse, ClientError> {
        let request = self.pool.request(v1::SpawnRequest {});
        self.pool.finish("Spawn", self.pool.admin().spawn(request)).await
    }

    /// Asks a node to drain; answered when draining has begun. None: the node's own deadline.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn drain(&self, deadline: Option<Duration>) -> Result<v1::DrainResponse, ClientError> {
        let deadline_ms = deadline.map_or(0, |deadline| wire_ms(deadline).max(1));
        let request = self.pool.request(v1::DrainRequest { deadline_ms });
        self.pool.finish("Drain", self.pool.admin().drain(request)).await
    }

    /// The node's state, counters and sizes.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn stats(&self) -> Result<v1::GetStatsResponse, ClientError> {
        let request = self.pool.request(v1::GetStatsRequest {});
        self.pool.finish("GetStats", self.pool.admin().get_stats(request)).await
    }

    /// The same at once and then at every interval, for as long as the caller reads.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn watch_stats(&self, interval: Duration) -> Result<StatsStream<'_>, ClientError> {
        let message = v1::StreamStatsRequest { interval_ms: wire_ms(interval) };
        // No grpc-timeout: the stream is meant to last.
        let request = tonic::Request::new(message);
        let messages = self.pool.finish("StreamStats", self.pool.admin().stream_stats(request)).await?;
        Ok(StatsStream { pool: &self.pool, messages })
    }

    /// Sets the counters back to 0.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn reset_stats(&self) -> Result<(), ClientError> {
        let request = self.pool.request(v1::ResetStatsRequest {});
        self.pool.finish("ResetStats", self.pool.admin().reset_stats(request)).await?;
        Ok(())
    }

    /// Changes a namespace's eviction policy and answers the previous one.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn set_policy(&self, namespace: &str, policy: &str) -> Result<String, ClientError> {
        let message =
            v1::SetEvictionPolicyRequest { namespace: namespace.to_owned(), policy: policy.to_owned() };
        let request = self.pool.request(message);
        let mut admin = self.pool.admin();
        Ok(self.pool.finish("SetEvictionPolicy", admin.set_eviction_policy(request)).await?.previous)
    }

    /// Changes how many bytes a namespace, or with "" the node, may hold; answers the previous limit.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn resize(&self, namespace: &str, bytes_limit: u64) -> Result<u64, ClientError> {
        let message = v1::ResizeRequest { namespace: namespace.to_owned(), bytes_limit };
        let request = self.pool.request(message);
        Ok(self.pool.finish("Resize", self.pool.admin().resize(request)).await?.previous_bytes_limit)
    }

    /// Removes all entries of a namespace and answers how many there were.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn clear(&self, namespace: &str) -> Result<u64, ClientError> {
        let request = self.pool.request(v1::ClearRequest { namespace: namespace.to_owned() });
        Ok(self.pool.finish("Clear", self.pool.admin().clear(request)).await?.entries)
    }

    /// The configuration in force.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn config(&self) -> Result<v1::GetConfigResponse, ClientError> {
        let request = self.pool.request(v1::GetConfigRequest {});
        self.pool.finish("GetConfig", self.pool.admin().get_config(request)).await
    }

    /// Waits until everything before is on disk; the position up to which it is.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn flush(&self) -> Result<u64, ClientError> {
        let request = self.pool.request(v1::FlushRequest {});
        Ok(self.pool.finish("Flush", self.pool.admin().flush(request)).await?.position)
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn create_snapshot(&self) -> Result<v1::CreateSnapshotResponse, ClientError> {
        let request = self.pool.request(v1::CreateSnapshotRequest {});
        self.pool.finish("CreateSnapshot", self.pool.admin().create_snapshot(request)).await
    }

    /// The snapshots on disk, the newest first.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn snapshots(&self) -> Result<v1::ListSnapshotsResponse, ClientError> {
        let request = self.pool.request(v1::ListSnapshotsRequest {});
        self.pool.finish("ListSnapshots", self.pool.admin().list_snapshots(request)).await
    }

    /// Rehearses a recovery; an empty method is the node's own.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`]. DATA_LOSS where something is damaged.
    pub async fn verify_recovery(&self, method: &str) -> Result<v1::VerifyRecoveryResponse, ClientError> {
        let request = self.pool.request(v1::VerifyRecoveryRequest { method: method.to_owned() });
        self.pool.finish("VerifyRecovery", self.pool.admin().verify_recovery(request)).await
    }

    /// Takes a snapshot and deletes what it makes superfluous.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn compact_journal(&self) -> Result<v1::CompactJournalResponse, ClientError> {
        let request = self.pool.request(v1::CompactJournalRequest {});
        self.pool.finish("CompactJournal", self.pool.admin().compact_journal(request)).await
    }

    /// The keys that are asked for most, the hottest first.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn hot_keys(&self) -> Result<v1::ListHotKeysResponse, ClientError> {
        let request = self.pool.request(v1::ListHotKeysRequest {});
        self.pool.finish("ListHotKeys", self.pool.admin().list_hot_keys(request)).await
    }

    /// Where the node's bytes are, and what could be done about them.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn memory_report(&self) -> Result<v1::GetMemoryReportResponse, ClientError> {
        let request = self.pool.request(v1::GetMemoryReportRequest {});
        self.pool.finish("GetMemoryReport", self.pool.admin().get_memory_report(request)).await
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
        let request = self.pool.request(message);
        self.pool.finish("ExplainKey", self.pool.admin().explain_key(request)).await
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
        let request = self.pool.request(v1::UpdateConfigRequest { config: Some(config), update_mask });
        let answer = self.pool.finish("UpdateConfig", self.pool.admin().update_config(request)).await?;
        Ok(answer.config.unwrap_or_default())
    }

    /// The latest calls that were slow, the newest first.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn slow_ops(&self) -> Result<v1::ListSlowOpsResponse, ClientError> {
        let request = self.pool.request(v1::ListSlowOpsRequest {});
        self.pool.finish("ListSlowOps", self.pool.admin().list_slow_ops(request)).await
    }
}
