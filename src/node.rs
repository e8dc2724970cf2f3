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

pub mod check;
pub mod descriptors;
mod disk;
mod live;

use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::service::Routes;
use tower::ServiceBuilder;

use crate::cache::Cache;
use crate::clock::{Clock, Pace, SystemClock, Throttle, monotonic};
use crate::config::{Loaded, MemoryPlan, ServeConfig, memory};
use crate::endpoint::{Endpoint, PeerInfo};
use crate::engine::EngineConfig;
use crate::entry::{Limits, Ttl, Version, WallClockError};
use crate::proto::FILE_DESCRIPTOR_SET;
use crate::proto::v1::admin_server::AdminServer;
use crate::server::stack::{CallTimeout, DeadlineLayer, InFlight, MetricsLayer, RepairLayer};
use crate::server::{
    ConnectionConfig, ConnectionService, Connections, Lifecycle, Mount, NodeState, PerPeer, Server,
    ServerConfig, Services, SpawnError, StartError, Stop, http,
};
use crate::service::CallError;
use crate::service::{
    AdminConfig, AdminService, Backlog, DataService, GeneratedService, LiveConfig, NodeIdentity,
    RequestLimits, Requests, WINDOWS_PER_CONNECTION, config_response,
};
use crate::telemetry::log::{self, StatsLog};
use crate::telemetry::trace::{CallTracer, TraceConfig, TraceError, TraceLayer, Tracing};
use crate::telemetry::{CallMetrics, Metrics, NodeStats, SlowCalls, SlowOps, process};
use descriptors::TooFewDescriptors;

/// Admin calls that may wait at once.
const ADMIN_IN_FLIGHT_MAX: usize = 256;
/// The longest request to Admin, which takes names and settings. tonic makes room for what a request says it has
/// before any of it is here, and a stream may stay as long as its connection.
const ADMIN_BYTES_MAX: usize = 64 << 10;
/// The longest request to reflection, which takes names.
const REFLECTION_BYTES_MAX: usize = 4 << 10;
/// How often what has become due is looked for.
const SWEEP_EVERY: Duration = Duration::from_millis(50);
/// Entries that are looked at for invalidations before the pace of that is thought of: a million take some two seconds.
const ENTRIES_PER_SWEEP: usize = 64;
/// Blobs whose time has ended that are deleted each time.
const BLOBS_PER_SWEEP: usize = 16;
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
}

/// A node that runs. Dropping it ends it at once, as a [`Node`].
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
pub struct RecoveryNews {
    /// Records that are applied.
    pub applied: u64,
    /// Entries that the snapshot has; `None`: not known, or there is none. The journal's records come on top.
    pub expected: Option<u64>,
}

/// Told how far a recovery is, some times a second, and that it has ended: `None`.
pub type ShowRecovery = Arc<dyn Fn(Option<RecoveryNews>) + Send + Sync>;

/// A future that ends when a listener does.
type Ending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What all the closures of a node look at.
#[derive(Debug)]
struct NodeContext {
    /// The configuration as it was loaded and changed since.
    loaded: ArcSwap<Loaded>,
    /// Held while it is changed.
    updating: Mutex<()>,
    timeout: CallTimeout,
    stats_interval: watch::Sender<Option<Duration>>,
    slow_ops: Arc<SlowOps>,
    cache: Arc<Cache>,
    lifecycle: Lifecycle,
    connections: Connections,
    in_flight: InFlight,
    backlog: Backlog,
    requests: Requests,
    started: Instant,
    incarnation: u64,
    /// Set when the listeners are open. Weak, as the node's own services hold this: dropping it must end it.
    node: OnceLock<Weak<Server>>,
}

impl RunningNode {
    /// Starts a node in the runtime that this is called in. Returns when it serves, or in standby when it can be
    /// told to. The process's signals are its host's own.
    ///
    /// # Errors
    /// [`NodeError`]; then nothing is left open.
    pub async fn start(loaded: Loaded) -> Result<Self, NodeError> {
        let config = server_config(&loaded.config);
        Self::start_as(config, loaded, None).await
    }

    /// [`Self::start`] for a program that is the node: SIGTERM, SIGINT and SIGHUP are taken over for good. The first drains
    /// the node, the second makes [`Self::stopped`] return at once. A recovery is shown to `show`, and where there is
    /// none, logged.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_as_program(loaded: Loaded, show: Option<ShowRecovery>) -> Result<Self, NodeError> {
        let config = ServerConfig { signals: true, ..server_config(&loaded.config) };
        Self::start_as(config, loaded, show).await
    }

    async fn start_as(
        server_config: ServerConfig,
        loaded: Loaded,
        show: Option<ShowRecovery>,
    ) -> Result<Self, NodeError> {
        let config = &loaded.config;
        let has_signals = server_config.signals;
        let open_files = descriptors::limit();
        let shares = descriptors::shares(config, open_files)?;
        descriptors::tell(config, open_files, shares);
        let cache = Arc::new(Cache::new(&engine_config(config), limits(config)));
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
        let context = Arc::new(NodeContext {
            cache: Arc::clone(&cache),
            lifecycle: Lifecycle::new(),
            connections: Connections::new(config.limits.max_connections as usize).within(shares.connections),
            in_flight: InFlight::new(config.limits.max_in_flight as usize),
            backlog: Backlog::new(config.limits.max_response_backlog.bytes()),
            requests: Requests::new(request_limits(config)),
            started: monotonic(),
            incarnation: SystemClock::new().now().unix_us,
            node: OnceLock::new(),
            updating: Mutex::new(()),
            timeout: CallTimeout::new(config.timeouts.timeout),
            stats_interval: watch::Sender::new(config.telemetry.stats_interval),
            slow_ops: Arc::new(SlowOps::new(config.telemetry.slow_op)),
            loaded: ArcSwap::from_pointee(loaded),
        });
        let services = context.services(&tracer);
        if let Some(options) = disk::options(&context.loaded.load().config) {
            let recovering = Arc::downgrade(&context);
            context.lifecycle.recover_by(move || match recovering.upgrade() {
                Some(context) => context.recover(options.clone(), show.clone()),
                None => Box::pin(std::future::ready(Err("the node is gone".to_owned()))),
            });
        }
        let node =
            Server::start(server_config, context.lifecycle.clone(), context.connections.clone(), services)
                .await?;
        let node = Arc::new(node);
        // The first and only time.
        let _ = context.node.set(Arc::downgrade(&node));
        // It may have been changed while there was no node to tell.
        node.set_connection(connection_config(&context.loaded.load().config));
        sweep(&cache, &context.lifecycle).map_err(StartError::Thread)?;
        let stats_log = log_stats(&context);
        tokio::spawn(descriptors::follow(Arc::downgrade(&context), open_files));
        Ok(Self { node, context, stats_log, tracing, has_signals })
    }

    /// The line for stdout; see [`Node::ready_line`].
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
            self.stats_log.lock().line(&self.context.snapshot(), monotonic());
        }
        if let Some(tracing) = self.tracing {
            tracing.shutdown(TRACES_FLUSHED_WITHIN).await;
        }
        stop
    }
}

impl NodeContext {
    fn services(
        self: &Arc<Self>,
        tracer: &CallTracer,
    ) -> Services<impl ConnectionService, impl ConnectionService, impl ConnectionService> {
        let calls = Arc::new(CallMetrics::new());
        let health = self.lifecycle.health();
        let others = GeneratedService::new(with_reflection(Routes::new(health.service(Mount::Data))));
        let (context, ending, metered, traced) =
            (Arc::clone(self), health.clone(), Arc::clone(&calls), tracer.clone());
        let data = PerPeer(move |peer: &PeerInfo| {
            let slow = SlowCalls::new(Arc::clone(&context.slow_ops), &peer.to_string());
            let ending = ending.clone();
            let ending = move || -> Ending { Box::pin(ending.ending(Mount::Data)) };
            let service = DataService::new(Arc::clone(&context.cache), ending, others.clone())
                .with_budgets(context.backlog.clone(), context.requests.clone());
            ServiceBuilder::new()
                .layer(TraceLayer::new(traced.clone()))
                .layer(MetricsLayer::new(Arc::clone(&metered), slow.clone()))
                .layer(RepairLayer)
                .layer(DeadlineLayer::new(context.timeout.clone()))
                .layer(context.in_flight.clone())
                .service(service.with_slow_calls(slow))
        });
        let admin = AdminServer::new(AdminService::new(Arc::clone(&self.cache), self.admin_config()))
            .max_decoding_message_size(ADMIN_BYTES_MAX);
        let admin = Routes::new(admin).add_service(health.service(Mount::Control));
        let admin = GeneratedService::new(with_reflection(admin));
        let (slow_ops, metered, traced) = (Arc::clone(&self.slow_ops), Arc::clone(&calls), tracer.clone());
        let in_flight = InFlight::new(ADMIN_IN_FLIGHT_MAX);
        let admin = PerPeer(move |peer: &PeerInfo| {
            let slow = SlowCalls::new(Arc::clone(&slow_ops), &peer.to_string());
            ServiceBuilder::new()
                .layer(TraceLayer::new(traced.clone()))
                .layer(MetricsLayer::new(Arc::clone(&metered), slow))
                .layer(RepairLayer)
                // Spawn and Resize take as long as they take: only a caller's own deadline counts.
                .layer(DeadlineLayer::new(CallTimeout::new(None)))
                .layer(in_flight.clone())
                .service(admin.clone())
        });
        let (context, lifecycle) = (Arc::clone(self), self.lifecycle.clone());
        let metrics = Metrics::new(calls, move || context.snapshot());
        let ready = move || match lifecycle.state() {
            NodeState::Serving => http::Readiness::Ready,
            state => http::Readiness::NotReady(state.as_str()),
        };
        let http = http::router(ready, move |format| metrics.text(format));
        // Neither counted nor traced: probes are many and tell nothing of the load.
        let health = ServiceBuilder::new()
            .layer(RepairLayer)
            .layer(DeadlineLayer::new(CallTimeout::new(None)))
            .service(GeneratedService::new(with_reflection(Routes::new(health.service(Mount::Control)))));
        Services { data, admin, health, http }
    }

    fn admin_config(self: &Arc<Self>) -> AdminConfig {
        let context = || Arc::clone(self);
        let (life, drained, left) = (self.lifecycle.clone(), self.lifecycle.clone(), self.lifecycle.clone());
        let (identity, config, update, snapshot) = (context(), context(), context(), context());
        let state = self.lifecycle.clone();
        AdminConfig {
            spawn: Box::new(move || {
                let life = life.clone();
                Box::pin(async move {
                    let addresses = life.spawn().await.map_err(spawn_failed)?;
                    Ok(addresses.iter().map(Endpoint::to_string).collect())
                })
            }),
            drain: Box::new(move |deadline| {
                drained.drain(deadline);
            }),
            leaving: Box::new(move || {
                let mut states = left.subscribe();
                Box::pin(async move {
                    // Refused when the node is gone, which is leaving too.
                    let _ = states.wait_for(|state| *state >= NodeState::Draining).await;
                })
            }),
            identity: Box::new(move || NodeIdentity {
                node_id: identity.live_config().node_id,
                incarnation: identity.incarnation,
            }),
            config: Box::new(move || config_response(&config.in_force(), &config.live_config())),
            update: Box::new(move |changes| update.update(changes)),
            slow_ops: Arc::clone(&self.slow_ops),
            state: Box::new(move || state.state().as_str()),
            snapshot: Box::new(move || snapshot.snapshot()),
            memory_bytes_max: memory::process_bytes().unwrap_or(u64::MAX),
        }
    }

    fn snapshot(&self) -> NodeStats {
        NodeStats {
            state: self.lifecycle.state().as_str(),
            uptime: monotonic().saturating_duration_since(self.started),
            policy: self.cache.policy(),
            stats: self.cache.stats(),
            namespaces: self.cache.namespace_reports(),
            invalidations: self.cache.engine().invalidations(),
            resident_bytes: process::resident_bytes().unwrap_or(0),
            connections: self.connections.open(),
            requests_in_flight: self.in_flight.waiting() as u64,
            response_backlog_bytes: self.backlog.bytes(),
            request_bytes: self.requests.bytes(),
            requests_shed: self.in_flight.shed() + self.backlog.refused(),
            log_lines_lost: log::lines_lost(),
            journal: self.journal(),
            disk: self.disk(),
            disk_tier: self.disk_tier(),
        }
    }

    fn live_config(&self) -> LiveConfig {
        let loaded = self.loaded.load();
        let config = &loaded.config;
        let bound = self.node.get().and_then(Weak::upgrade);
        let bound = bound.as_deref();
        let listen = bound.map_or(&[][..], |node| node.data_addresses());
        let identity = config.identity(listen);
        let listen = if listen.is_empty() { &config.listeners.listen[..] } else { listen };
        let control = match bound {
            Some(node) => [
                node.admin_address().to_string(),
                node.health_address().to_string(),
                node.http_address().authority(),
            ],
            None => control_urls(config),
        };
        LiveConfig {
            listen: listen.iter().map(ToString::to_string).collect(),
            control,
            node_id: identity.node_id,
            advertise: identity.advertise,
            memory_bytes: self.cache.bytes_limit(),
            shards: self.cache.shard_count() as u32,
            policy: self.cache.policy().to_string(),
        }
    }
}

fn spawn_failed(error: SpawnError) -> CallError {
    match error {
        SpawnError::Leaving { state } => CallError::Leaving { state: state.as_str() },
        SpawnError::Recover(_) => CallError::CannotRecover { why: error.to_string() },
        other => CallError::CannotListen { why: other.to_string() },
    }
}

/// Server reflection, both versions, over the whole contract.
fn with_reflection(routes: Routes) -> Routes {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that tools show error details in words.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = builder().build_v1().expect("the descriptors were compiled with this program");
    let v1alpha = builder().build_v1alpha().expect("the descriptors were compiled with this program");
    routes
        .add_service(v1.max_decoding_message_size(REFLECTION_BYTES_MAX))
        .add_service(v1alpha.max_decoding_message_size(REFLECTION_BYTES_MAX))
}

/// The admin, the health and the HTTP listener as they are configured.
fn control_urls(config: &ServeConfig) -> [String; 3] {
    let listeners = &config.listeners;
    [listeners.admin.to_string(), listeners.health.to_string(), listeners.http.to_string()]
}

fn engine_config(config: &ServeConfig) -> EngineConfig {
    let node_id = config.identity(&[]).node_id;
    let hash = xxhash_rust::xxh64::xxh64(node_id.as_bytes(), 0);
    EngineConfig {
        bytes_limit: config.cache.memory.0,
        shards: config.cache.shards,
        policy: config.cache.policy,
        default_ttl: Ttl::Never,
        value_bytes_max: config.limits.max_value.0,
        namespaces_max: config.limits.max_namespaces as usize,
        node_hash: (hash & ((1 << Version::NODE_BITS) - 1)) as u16,
    }
}

fn bytes(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn limits(config: &ServeConfig) -> Limits {
    Limits {
        key_bytes_max: config.limits.max_key.bytes(),
        value_bytes_max: config.limits.max_value.bytes(),
        content_type_bytes_max: config.limits.max_content_type.bytes(),
        batch_items_max: config.limits.max_batch as usize,
        message_in_bytes_max: config.limits.max_message_in.bytes(),
        message_out_bytes_max: config.limits.max_message_out.bytes(),
        tags_max: config.limits.max_tags as usize,
        tag_bytes_max: config.limits.max_tag.bytes(),
        ttl_ms_max: config.limits.max_ttl.as_millis() as u64,
    }
}

fn server_config(config: &ServeConfig) -> ServerConfig {
    ServerConfig {
        data: config.listeners.listen.clone(),
        admin: config.listeners.admin.clone(),
        health: config.listeners.health.clone(),
        http: Endpoint::Tcp(config.listeners.http.clone()),
        connection: connection_config(config),
        lame_duck: config.timeouts.lame_duck,
        drain_deadline: config.timeouts.drain_deadline,
        standby: config.node.standby,
        insecure: config.listeners.insecure,
        signals: false,
    }
}

fn request_limits(config: &ServeConfig) -> RequestLimits {
    let plan = MemoryPlan::of(config.cache.memory.0);
    RequestLimits {
        bytes_max: bytes(plan.request_bytes),
        message_bytes_max: config.limits.max_message_in.bytes(),
        waiting_max: bytes(plan.unread_bytes / plan.window_bytes),
    }
}

fn connection_config(config: &ServeConfig) -> ConnectionConfig {
    let stream_window_bytes = MemoryPlan::of(config.cache.memory.0).window_bytes as u32;
    ConnectionConfig {
        first_byte_timeout: config.timeouts.first_byte_timeout,
        stall_timeout: config.timeouts.stall_timeout,
        streams_max: config.limits.max_streams,
        stream_window_bytes,
        window_bytes: stream_window_bytes * WINDOWS_PER_CONNECTION,
        ..ConnectionConfig::default()
    }
}

/// Reclaims what has expired and so on, on a thread of its own, until the cache is gone.
fn sweep(cache: &Arc<Cache>, lifecycle: &Lifecycle) -> std::io::Result<()> {
    let (cache, lifecycle) = (Arc::downgrade(cache), lifecycle.clone());
    std::thread::Builder::new().name("larder-sweep".to_owned()).spawn(move || {
        lifecycle.run_part("the thread that reclaims what has expired", || {
            while let Some(cache) = cache.upgrade() {
                let is_more = sweep_once(&cache);
                drop(cache);
                if !is_more {
                    std::thread::sleep(SWEEP_EVERY);
                }
            }
        });
    })?;
    Ok(())
}

/// Whether there is more to reclaim at once.
fn sweep_once(cache: &Cache) -> bool {
    static UNDELETED: Throttle = Throttle::new();
    cache.charge_blobs();
    cache.advance();
    let (begun, mut pace) = (monotonic(), Pace::new());
    let mut is_more = cache.sweep(ENTRIES_PER_SWEEP);
    while is_more && begun.elapsed() < SWEEP_EVERY {
        pace.rest();
        is_more = cache.sweep(ENTRIES_PER_SWEEP);
    }
    if let Some(blobs) = cache.blobs()
        && let Err(error) = blobs.sweep(cache.now(), BLOBS_PER_SWEEP)
    {
        UNDELETED.say(|left_out| {
            tracing::warn!(%error, left_out, "blobs whose time has ended cannot be deleted");
        });
    }
    is_more
}

/// Logs the figures every so often, while they are to be; [`RunningNode::stopped`] logs the last ones.
fn log_stats(context: &Arc<NodeContext>) -> Arc<Mutex<StatsLog>> {
    let log = Arc::new(Mutex::new(StatsLog::new(context.started)));
    let (mut every, lines) = (context.stats_interval.subscribe(), Arc::clone(&log));
    let context = Arc::downgrade(context);
    tokio::spawn(async move {
        loop {
            let every_now = *every.borrow_and_update();
            let due = async {
                match every_now {
                    Some(interval) => sleep(interval).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                changed = every.changed() => match changed {
                    Ok(()) => continue,
                    // The node was dropped.
                    Err(_) => break,
                },
            }
            let Some(context) = context.upgrade() else { break };
            if context.lifecycle.state() == NodeState::Stopped {
                break;
            }
            lines.lock().line(&context.snapshot(), monotonic());
        }
    });
    log
}
