//! The node as the Admin service has it.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::context::NodeContext;
use crate::config::memory;
use crate::endpoint::Endpoint;
use crate::proto::v1;
use crate::server::{NodeState, SpawnError};
use crate::service::{CallError, ConfigUpdate, NodeControl, NodeIdentity, config_response};
use crate::telemetry::{NodeStats, SlowOps};

impl NodeControl for NodeContext {
    fn spawn(&self) -> BoxFuture<'static, Result<Vec<String>, CallError>> {
        let lifecycle = self.lifecycle.clone();
        Box::pin(async move {
            let addresses = lifecycle.spawn().await.map_err(spawn_failed)?;
            Ok(addresses.iter().map(Endpoint::to_string).collect())
        })
    }

    fn drain(&self, deadline: Option<Duration>) {
        self.lifecycle.drain(deadline);
    }

    fn leaving(&self) -> BoxFuture<'static, ()> {
        let mut states = self.lifecycle.subscribe();
        Box::pin(async move {
            // Refused when the node is gone, which is leaving too.
            let _ = states.wait_for(|state| *state >= NodeState::Draining).await;
        })
    }

    fn state(&self) -> &'static str {
        self.lifecycle.state().as_str()
    }

    fn identity(&self) -> NodeIdentity {
        NodeIdentity { node_id: self.live_config().node_id, incarnation: self.incarnation }
    }

    fn config(&self) -> v1::GetConfigResponse {
        config_response(&self.in_force(), &self.live_config())
    }

    fn update_config(&self, update: &ConfigUpdate) -> Result<(), CallError> {
        self.update(update)
    }

    fn stats(&self) -> NodeStats {
        self.figures()
    }

    fn slow_ops(&self) -> &SlowOps {
        &self.slow_ops
    }

    fn memory_bytes_max(&self) -> u64 {
        memory::process_bytes().unwrap_or(u64::MAX)
    }
}

fn spawn_failed(error: SpawnError) -> CallError {
    match error {
        SpawnError::Leaving { state } => CallError::Leaving { state: state.as_str() },
        SpawnError::Recover(_) => CallError::CannotRecover { why: error.to_string() },
        other => CallError::CannotListen { why: other.to_string() },
    }
}
