//! The fake node's Admin service.

use larder::proto::v1;
use larder::proto::v1::admin_server::Admin;
use tonic::{Code, Request, Response, Status};

use super::fake::{BoxStream, Counters, Service, State, not_here, refused};

#[tonic::async_trait]
impl Admin for Service {
    type StreamStatsStream = BoxStream<v1::GetStatsResponse>;

    async fn spawn(&self, _: Request<v1::SpawnRequest>) -> Result<Response<v1::SpawnResponse>, Status> {
        let addresses = vec!["tcp://127.0.0.1:1".to_owned()];
        Ok(Response::new(v1::SpawnResponse { state: v1::NodeState::Serving.into(), addresses }))
    }

    async fn drain(&self, _: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        Ok(Response::new(v1::DrainResponse { state: v1::NodeState::Draining.into() }))
    }

    async fn get_stats(
        &self,
        _: Request<v1::GetStatsRequest>,
    ) -> Result<Response<v1::GetStatsResponse>, Status> {
        Ok(Response::new(self.0.stats()))
    }

    async fn stream_stats(
        &self,
        _: Request<v1::StreamStatsRequest>,
    ) -> Result<Response<Self::StreamStatsStream>, Status> {
        let twice = [Ok(self.0.stats()), Ok(self.0.stats())];
        Ok(Response::new(Box::pin(tokio_stream::iter(twice))))
    }

    async fn reset_stats(
        &self,
        _: Request<v1::ResetStatsRequest>,
    ) -> Result<Response<v1::ResetStatsResponse>, Status> {
        let mut counters = self.0.counters.lock().unwrap();
        *counters = Counters { version: counters.version, ..Counters::default() };
        Ok(Response::new(v1::ResetStatsResponse {}))
    }

    async fn set_eviction_policy(
        &self,
        request: Request<v1::SetEvictionPolicyRequest>,
    ) -> Result<Response<v1::SetEvictionPolicyResponse>, Status> {
        let policy = request.into_inner().policy;
        if !["lru", "s3-fifo"].contains(&policy.as_str()) {
            let message = format!("{policy:?} is no policy; known are lru and s3-fifo");
            return Err(refused(Code::InvalidArgument, &message, "POLICY_UNKNOWN", "policy"));
        }
        let previous = std::mem::replace(&mut self.0.counters.lock().unwrap().policy, policy);
        Ok(Response::new(v1::SetEvictionPolicyResponse { previous }))
    }

    async fn resize(&self, _: Request<v1::ResizeRequest>) -> Result<Response<v1::ResizeResponse>, Status> {
        Ok(Response::new(v1::ResizeResponse { previous_bytes_limit: 64 << 20 }))
    }

    async fn clear(&self, _: Request<v1::ClearRequest>) -> Result<Response<v1::ClearResponse>, Status> {
        let entries = std::mem::take(&mut *self.0.entries.lock().unwrap()).len() as u64;
        Ok(Response::new(v1::ClearResponse { entries }))
    }

    async fn get_config(
        &self,
        _: Request<v1::GetConfigRequest>,
    ) -> Result<Response<v1::GetConfigResponse>, Status> {
        let config = v1::Config { policy: "lru".to_owned(), memory_bytes: 64 << 20, ..Default::default() };
        let source = v1::ConfigSource::Flag.into();
        let fields = vec![v1::ConfigField { path: "policy".to_owned(), source, live: true }];
        Ok(Response::new(v1::GetConfigResponse { config: Some(config), fields }))
    }

    async fn create_namespace(
        &self,
        _: Request<v1::CreateNamespaceRequest>,
    ) -> Result<Response<v1::CreateNamespaceResponse>, Status> {
        not_here()
    }
    async fn update_namespace(
        &self,
        _: Request<v1::UpdateNamespaceRequest>,
    ) -> Result<Response<v1::UpdateNamespaceResponse>, Status> {
        not_here()
    }
    async fn list_namespaces(
        &self,
        _: Request<v1::ListNamespacesRequest>,
    ) -> Result<Response<v1::ListNamespacesResponse>, Status> {
        not_here()
    }
    async fn delete_namespace(
        &self,
        _: Request<v1::DeleteNamespaceRequest>,
    ) -> Result<Response<v1::DeleteNamespaceResponse>, Status> {
        not_here()
    }
    async fn flush(&self, _: Request<v1::FlushRequest>) -> Result<Response<v1::FlushResponse>, Status> {
        not_here()
    }
    async fn create_snapshot(
        &self,
        _: Request<v1::CreateSnapshotRequest>,
    ) -> Result<Response<v1::CreateSnapshotResponse>, Status> {
        not_here()
    }
    async fn list_snapshots(
        &self,
        _: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        not_here()
    }
    async fn verify_recovery(
        &self,
        _: Request<v1::VerifyRecoveryRequest>,
    ) -> Result<Response<v1::VerifyRecoveryResponse>, Status> {
        not_here()
    }
    async fn compact_journal(
        &self,
        _: Request<v1::CompactJournalRequest>,
    ) -> Result<Response<v1::CompactJournalResponse>, Status> {
        not_here()
    }
    async fn update_config(
        &self,
        _: Request<v1::UpdateConfigRequest>,
    ) -> Result<Response<v1::UpdateConfigResponse>, Status> {
        not_here()
    }
    async fn list_hot_keys(
        &self,
        _: Request<v1::ListHotKeysRequest>,
    ) -> Result<Response<v1::ListHotKeysResponse>, Status> {
        not_here()
    }
    async fn list_slow_ops(
        &self,
        _: Request<v1::ListSlowOpsRequest>,
    ) -> Result<Response<v1::ListSlowOpsResponse>, Status> {
        not_here()
    }
    async fn get_memory_report(
        &self,
        _: Request<v1::GetMemoryReportRequest>,
    ) -> Result<Response<v1::GetMemoryReportResponse>, Status> {
        not_here()
    }
    async fn explain_key(
        &self,
        _: Request<v1::ExplainKeyRequest>,
    ) -> Result<Response<v1::ExplainKeyResponse>, Status> {
        not_here()
    }
}

impl State {
    fn stats(&self) -> v1::GetStatsResponse {
        let counters = self.counters.lock().unwrap().clone();
        let namespace = v1::NamespaceStats { hits: counters.hits, ..Default::default() };
        v1::GetStatsResponse {
            state: v1::NodeState::Serving.into(),
            node_id: "fake".to_owned(),
            incarnation: u64::MAX,
            hits: counters.hits,
            misses: counters.misses,
            sets: counters.sets,
            entries: self.entries.lock().unwrap().len() as u64,
            policy: counters.policy,
            namespaces: vec![namespace],
            misses_by_reason: vec![v1::MissCount {
                reason: v1::MissReason::Unknown.into(),
                count: counters.misses,
            }],
            ..Default::default()
        }
    }
}
