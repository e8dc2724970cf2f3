//! What the Admin service asks of the node around the cache. It knows no sockets, signals or threads: the node that is put
//! together does, and implements this.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::live_config::ConfigUpdate;
use crate::proto::v1;
use crate::request::CallError;
use crate::telemetry::{NodeStats, SlowOps};

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeIdentity {
    /// Its id.
    pub node_id: String,
    /// The incarnation of its state.
    pub incarnation: u64,
}

/// A node, as its operators have it.
pub trait NodeControl: std::fmt::Debug + Send + Sync + 'static {
    /// Makes the node serve; answers with its data listeners.
    fn spawn(&self) -> BoxFuture<'static, Result<Vec<String>, CallError>>;

    /// Makes the node drain, within a deadline or its own.
    fn drain(&self, deadline: Option<Duration>);

    /// Ends when the node begins to drain.
    fn leaving(&self) -> BoxFuture<'static, ()>;

    /// The name of the node's state.
    fn state(&self) -> &'static str;

    /// Who the node is.
    fn identity(&self) -> NodeIdentity;

    /// The node's configuration, with sources.
    fn config(&self) -> v1::GetConfigResponse;

    /// Changes settings, all or none. It may take as long as evicting down to a lower limit does.
    ///
    /// # Errors
    /// What is wrong with the first that cannot be changed so; nothing was changed.
    fn update_config(&self, update: &ConfigUpdate) -> Result<(), CallError>;

    /// The node's figures of now.
    fn stats(&self) -> NodeStats;

    /// The calls that were slow.
    fn slow_ops(&self) -> &SlowOps;

    /// The most that Resize may ask for.
    fn memory_bytes_max(&self) -> u64;
}
