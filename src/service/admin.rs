//! The Admin service: what operators ask of a node. Generated plumbing, hand-written answers.

mod disk;
mod keys;
mod memory;
mod namespaces;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::IntervalStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::control::NodeControl;
use super::live_config::ConfigUpdate;
use super::slow::slow_ops_response;
use super::stats::{node_state, stats_response};
use crate::cache::Cache;
use crate::engine::PolicyName;
use crate::proto::v1::{self, admin_server::Admin};
use crate::request::CallError;
use crate::telemetry::NodeStats;

/// The Admin service of a node.
#[derive(Debug, Clone)]
pub struct AdminService {
    cache: Arc<Cache>,
    node: Arc<dyn NodeControl>,
    /// The figures at the last ResetStats.
    base: Arc<Mutex<NodeStats>>,
}

impl AdminService {
    /// Answers for `cache` and the node around it.
    #[must_use]
    pub fn new(cache: Arc<Cache>, node: Arc<dyn NodeControl>) -> Self {
        Self { cache, node, base: Arc::default() }
    }

    async fn stats(&self) -> v1::GetStatsResponse {
        self.finish_sweeps().await;
        let now = self.figures().await;
        let base = self.base.lock().clone();
        let persistence = self.persistence_stats().await;
        v1::GetStatsResponse { persistence, ..stats_response(&now, &base, &self.node.identity()) }
    }

    fn state(&self) -> v1::NodeState {
        node_state(self.node.state())
    }

    /// The node's figures of now. Where namespaces are many, that takes a while.
    async fn figures(&self) -> NodeStats {
        let node = Arc::clone(&self.node);
        // Fails where the runtime ends: then nobody reads the figures.
        blocking("counting", move || node.stats()).await.unwrap_or_default()
    }

    /// An answer that keeps to the limit on messages.
    fn answer<T: prost::Message>(&self, answer: T) -> Result<Response<T>, Status> {
        let (bytes, max) = (answer.encoded_len(), self.cache.limits().message_out_bytes_max);
        if bytes > max {
            Err(CallError::ReportTooLarge { bytes, max }.into())
        } else {
            Ok(Response::new(answer))
        }
    }

    /// Takes out what invalidations cover, so that figures count it right after an Invalidate.
    async fn finish_sweeps(&self) {
        if self.cache.sweep(1) {
            let cache = Arc::clone(&self.cache);
            // Fails where the runtime ends: then nobody reads the figures.
            let _ = blocking("sweeping", move || cache.sweep(usize::MAX)).await;
        }
    }
}

/// Does what takes long where it holds up no other calls.
async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Status::internal(format!("{what} failed: {error}")))
}

/// StreamStats: the default and the bounds of its interval.
const STREAM_INTERVAL_DEFAULT_MS: u64 = 1_000;
const STREAM_INTERVAL_MS: std::ops::RangeInclusive<u64> = 100..=3_600_000;
/// Drain: the longest deadline.
const DRAIN_DEADLINE_MS_MAX: u64 = 3_600_000;

#[tonic::async_trait]
impl Admin for AdminService {
    async fn spawn(&self, _: Request<v1::SpawnRequest>) -> Result<Response<v1::SpawnResponse>, Status> {
        let addresses = self.node.spawn().await?;
        Ok(Response::new(v1::SpawnResponse { state: self.state() as i32, addresses }))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        let deadline = match request.get_ref().deadline_ms {
            0 => None,
            ms if ms <= DRAIN_DEADLINE_MS_MAX => Some(Duration::from_millis(ms)),
            ms => {
                let why = format!("{ms} ms is more than an hour; 0 takes --drain-deadline");
                return Err(CallError::Invalid { field: "deadline_ms", why }.into());
            }
        };
        self.node.drain(deadline);
        Ok(Response::new(v1::DrainResponse { state: self.state() as i32 }))
    }

    async fn get_stats(
        &self,
        _: Request<v1::GetStatsRequest>,
    ) -> Result<Response<v1::GetStatsResponse>, Status> {
        self.answer(self.stats().await)
    }

    type StreamStatsStream = Pin<Box<dyn Stream<Item = Result<v1::GetStatsResponse, Status>> + Send>>;

    async fn stream_stats(
        &self,
        request: Request<v1::StreamStatsRequest>,
    ) -> Result<Response<Self::StreamStatsStream>, Status> {
        let interval_ms = match request.get_ref().interval_ms {
            0 => STREAM_INTERVAL_DEFAULT_MS,
            ms if STREAM_INTERVAL_MS.contains(&ms) => ms,
            ms => {
                let why = format!("{ms} ms is not between 100 ms and an hour; 0 is one second");
                return Err(CallError::Invalid { field: "interval_ms", why }.into());
            }
        };
        let mut ticks = interval(Duration::from_millis(interval_ms));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (admin, leaving) = (self.clone(), self.node.leaving());
        let stats = IntervalStream::new(ticks).then(move |_| {
            let admin = admin.clone();
            async move { admin.answer(admin.stats().await).map(Response::into_inner) }
        });
        // A watcher does not hold up a drain.
        let until = futures_util::StreamExt::take_until(stats, leaving);
        Ok(Response::new(Box::pin(until)))
    }

    async fn reset_stats(
        &self,
        _: Request<v1::ResetStatsRequest>,
    ) -> Result<Response<v1::ResetStatsResponse>, Status> {
        self.finish_sweeps().await;
        let now = self.figures().await;
        *self.base.lock() = now;
        tracing::info!("statistics reset");
        Ok(Response::new(v1::ResetStatsResponse {}))
    }

    async fn set_eviction_policy(
        &self,
        request: Request<v1::SetEvictionPolicyRequest>,
    ) -> Result<Response<v1::SetEvictionPolicyResponse>, Status> {
        self.check_disk()?;
        let request = request.into_inner();
        let namespace = super::unary::namespace(&self.cache, &request.namespace)?;
        let policy: PolicyName = request.policy.parse().map_err(CallError::from)?;
        let previous = self.cache.set_policy(&namespace, policy);
        tracing::info!(namespace = ?request.namespace, %previous, %policy, "eviction policy changed");
        Ok(Response::new(v1::SetEvictionPolicyResponse { previous: previous.to_string() }))
    }

    async fn resize(
        &self,
        request: Request<v1::ResizeRequest>,
    ) -> Result<Response<v1::ResizeResponse>, Status> {
        self.resize_namespace(request.into_inner()).await.map(Response::new)
    }

    async fn clear(&self, request: Request<v1::ClearRequest>) -> Result<Response<v1::ClearResponse>, Status> {
        self.check_disk()?;
        self.clear_namespace(request.into_inner()).await.map(Response::new)
    }

    async fn get_config(
        &self,
        _: Request<v1::GetConfigRequest>,
    ) -> Result<Response<v1::GetConfigResponse>, Status> {
        self.answer(self.node.config())
    }

    async fn create_namespace(
        &self,
        request: Request<v1::CreateNamespaceRequest>,
    ) -> Result<Response<v1::CreateNamespaceResponse>, Status> {
        self.check_disk()?;
        Ok(Response::new(self.create(request.into_inner())?))
    }

    async fn update_namespace(
        &self,
        request: Request<v1::UpdateNamespaceRequest>,
    ) -> Result<Response<v1::UpdateNamespaceResponse>, Status> {
        self.check_disk()?;
        self.update(request.into_inner()).await.map(Response::new)
    }

    async fn list_namespaces(
        &self,
        _: Request<v1::ListNamespacesRequest>,
    ) -> Result<Response<v1::ListNamespacesResponse>, Status> {
        self.answer(self.list())
    }

    async fn delete_namespace(
        &self,
        request: Request<v1::DeleteNamespaceRequest>,
    ) -> Result<Response<v1::DeleteNamespaceResponse>, Status> {
        self.check_disk()?;
        self.delete(request.into_inner()).await.map(Response::new)
    }

    async fn flush(&self, _: Request<v1::FlushRequest>) -> Result<Response<v1::FlushResponse>, Status> {
        self.flush_disk().await
    }

    async fn create_snapshot(
        &self,
        _: Request<v1::CreateSnapshotRequest>,
    ) -> Result<Response<v1::CreateSnapshotResponse>, Status> {
        self.take_snapshot().await
    }

    async fn list_snapshots(
        &self,
        _: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        self.snapshots()
    }

    async fn verify_recovery(
        &self,
        request: Request<v1::VerifyRecoveryRequest>,
    ) -> Result<Response<v1::VerifyRecoveryResponse>, Status> {
        self.verify(request.get_ref()).await
    }

    async fn compact_journal(
        &self,
        _: Request<v1::CompactJournalRequest>,
    ) -> Result<Response<v1::CompactJournalResponse>, Status> {
        self.compact().await
    }

    async fn update_config(
        &self,
        request: Request<v1::UpdateConfigRequest>,
    ) -> Result<Response<v1::UpdateConfigResponse>, Status> {
        let update = ConfigUpdate::read(request.get_ref())?;
        let node = Arc::clone(&self.node);
        // To its end, also when the caller goes: all of them or none.
        tokio::task::spawn_blocking(move || node.update_config(&update))
            .await
            .map_err(|error| Status::internal(format!("changing the configuration failed: {error}")))??;
        self.answer(v1::UpdateConfigResponse { config: self.node.config().config })
    }

    async fn list_hot_keys(
        &self,
        _: Request<v1::ListHotKeysRequest>,
    ) -> Result<Response<v1::ListHotKeysResponse>, Status> {
        self.answer(self.hot_keys())
    }

    async fn list_slow_ops(
        &self,
        _: Request<v1::ListSlowOpsRequest>,
    ) -> Result<Response<v1::ListSlowOpsResponse>, Status> {
        self.answer(slow_ops_response(self.node.slow_ops()))
    }

    async fn get_memory_report(
        &self,
        _: Request<v1::GetMemoryReportRequest>,
    ) -> Result<Response<v1::GetMemoryReportResponse>, Status> {
        self.answer(self.memory_report().await)
    }

    async fn explain_key(
        &self,
        request: Request<v1::ExplainKeyRequest>,
    ) -> Result<Response<v1::ExplainKeyResponse>, Status> {
        self.answer(self.explain(request.into_inner())?)
    }
}
