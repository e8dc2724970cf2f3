//! A whole node, put together from a configuration: cache, services, layers, listeners, figures.
//!
//! ```text
//!   data listeners ─ trace ─ metrics ─ repair ─ deadline ─ in flight ─┬─ DataService ── Cache ── Engine
//!                                                                     └─ health, reflection
//!   admin listener ─ trace ─ metrics ─ repair ─ deadline ─ in flight ─── Admin, health, reflection
//!   health listener (own thread) ─────── repair ─ deadline ───────────── health, reflection
//!   HTTP listener (own thread) ───────────────────────────────────────── /livez /readyz /metrics
//!   "larder-sweep" (own thread) ──────────────────────────────────────── Cache::advance
//! ```
//!
//! In a simulation (`simulated`) nothing of this has a thread of its own, and sockets and time are the simulation's.

pub mod check;
mod context;
mod control;
pub mod descriptors;
mod disk;
mod live;
mod parts;
mod services;
#[cfg(feature = "testing")]
mod simulated;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::cache::Cache;
use crate::clock::{SystemClock, monotonic};
use crate::config::LoadedConfig;
use crate::entry::{Version, WallClockError};
use crate::server::ServerConfig;
use crate::telemetry::log::StatsLog;
use crate::telemetry::trace::{CallTracer, TraceConfig, TraceError, Tracing};
use context::NodeContext;
use descriptors::TooFewDescriptors;
use parts::{connection_config, engine_config, limits, server_config};

#[doc(hidden)]
pub use crate::persistence::failpoint;
/// What a node that runs tells of itself, and what a runtime tells it: when its workers have nothing to do.
pub use crate::server::{
    Lifecycle, NodeState, Server, SpawnError, StartError, Stop, worker_parks, worker_unparks,
};
#[cfg(feature = "testing")]
pub use simulated::{NotSimulated, Simulation};

/// How long the last spans may take to be sent.
const TRACES_FLUSHED_WITHIN: Duration = Duration::from_secs(1);

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A listener, or a thread.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The exporter of traces.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The limit on open files.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// The wall clock shows a time that versions cannot follow it to.
    #[error(transparent)]
    Clock(#[from] WallClockError),
    /// It was to be started in a simulation.
    #[cfg(feature = "testing")]
    #[error(transparent)]
    NotSimulated(#[from] NotSimulated),
}

/// A node that runs. Dropping it ends it at once, as a [`Server`].
#[derive(Debug)]
pub struct RunningNode {
    node: Arc<Server>,
    context: Arc<NodeContext>,
    stats_log: Arc<Mutex<StatsLog>>,
    tracing: Option<Tracing>,
    /// The process's signals are the node's.
    has_signals: bool,
}

/// How far a recovery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveryStatus {
    /// Records that are applied.
    pub applied: u64,
    /// Entries that the snapshot has; `None`: not known, or there is none. The journal's records come on top.
    pub expected: Option<u64>,
}

/// Told how far a recovery is, some times a second, and that it has ended: `None`.
pub type ShowRecovery = Arc<dyn Fn(Option<RecoveryStatus>) + Send + Sync>;

impl RunningNode {
    /// Starts a node in the runtime that this is called in. Returns when it serves, or in standby when it can be
    /// told to. The process's signals are its host's own.
    ///
    /// # Errors
    /// [`NodeError`]; then nothing is left open.
    pub async fn start(loaded: LoadedConfig) -> Result<Self, NodeError> {
        let config = server_config(&loaded.config);
        Self::start_as(config, SystemClock::new(), loaded, None).await
    }

    /// [`Self::start`] for a program that is the node: SIGTERM, SIGINT and SIGHUP are taken over for good. The first drains
    /// the node, the second makes [`Self::stopped`] return at once. A recovery is shown to `show`, and where there is
    /// none, logged.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_as_program(
        loaded: LoadedConfig,
        show: Option<ShowRecovery>,
    ) -> Result<Self, NodeError> {
        let config = ServerConfig { signals: true, ..server_config(&loaded.config) };
        Self::start_as(config, SystemClock::new(), loaded, show).await
    }

    async fn start_as(
        server_config: ServerConfig,
        clock: SystemClock,
        loaded: LoadedConfig,
        show: Option<ShowRecovery>,
    ) -> Result<Self, NodeError> {
        let config = &loaded.config;
        let (has_signals, platform) = (server_config.signals, server_config.platform.clone());
        let open_files = descriptors::limit();
        let shares = descriptors::shares(config, open_files)?;
        descriptors::log_shares(config, open_files, shares);
        let clock = Arc::new(clock);
        let cache = Arc::new(Cache::with_clock(&engine_config(config), limits(config), Arc::clone(&clock)));
        cache.set_blob_streams_max(shares.blob_streams);
        Version::clock_at(cache.now().unix_us)?;
        let node_id = config.identity(&[]).node_id;
        let tracing = config
            .telemetry
            .otlp
            .as_ref()
            .map(|endpoint| {
                Tracing::start(TraceConfig {
                    endpoint,
                    node_id: &node_id,
                    sample: config.telemetry.trace_sample,
                })
            })
            .transpose()?;
        let tracer = tracing.as_ref().map_or_else(CallTracer::off, Tracing::tracer);
        let context = Arc::new(NodeContext::new(Arc::clone(&cache), clock, loaded, shares));
        let services = context.services(&tracer);
        if let Some(options) = disk::options(&context.current.load().config) {
            let recovering = Arc::downgrade(&context);
            context.lifecycle.recover_by(move || match recovering.upgrade() {
                Some(context) => context.recover(options.clone(), show.clone()),
                None => Box::pin(std::future::ready(Err("the node is gone".to_owned()))),
            });
        }
        let connections = context.bounds.connections.clone();
        let node =
            Arc::new(Server::start(server_config, context.lifecycle.clone(), connections, services).await?);
        // The first and only time.
        let _ = context.server.set(Arc::downgrade(&node));
        // It may have been changed while there was no node to tell.
        node.set_connection(connection_config(&context.current.load().config));
        upkeep::sweep(&cache, &context.lifecycle, &platform).map_err(StartError::Thread)?;
        let stats_log = upkeep::log_stats(&context);
        tokio::spawn(descriptors::follow(Arc::downgrade(&context), open_files));
        Ok(Self { node, context, stats_log, tracing, has_signals })
    }

    /// The line for stdout; see [`Server::ready_line`].
    #[must_use]
    pub fn ready_line(&self) -> String {
        self.node.ready_line()
    }

    /// The listeners and the life of the node.
    #[must_use]
    pub fn node(&self) -> &Server {
        &self.node
    }

    /// The cache behind it.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn cache(&self) -> &Arc<Cache> {
        &self.context.cache
    }

    /// Waits until the node has stopped, its last figures are logged and its last spans are sent: the process may
    /// exit.
    pub async fn stopped(self) -> Stop {
        let stop = self.node.stopped().await;
        let stop = self.context.close_disk(stop, self.has_signals).await;
        if self.context.stats_interval.borrow().is_some() {
            self.stats_log.lock().line(&self.context.figures(), monotonic());
        }
        if let Some(tracing) = self.tracing {
            tracing.shutdown(TRACES_FLUSHED_WITHIN).await;
        }
        stop
    }
}
