//! What the parts of a node share: the cache and the life, the configuration in force, and what calls are held to.

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::descriptors::DescriptorShares;
use super::parts::{control_urls, request_limits};
use crate::cache::Cache;
use crate::clock::{Clock, SystemClock, monotonic};
use crate::cluster::CurrentRing;
use crate::config::{Identity, LoadedConfig, ServeConfig};
use crate::endpoint::Endpoint;
use crate::membership::{ADDRESSES_MAX, Member, MemberState};
use crate::ring::POINTS_PER_WEIGHT;
use crate::server::stack::{CallTimeout, InFlight};
use crate::server::{Connections, Lifecycle, Server};
use crate::service::{LiveConfig, LongRequests, ResponseBacklog, Watches};
use crate::telemetry::{NodeStats, SlowOps, log, process};

/// What the parts of a node share.
#[derive(Debug)]
pub(super) struct NodeContext {
    pub(super) current: CurrentConfig,
    pub(super) bounds: Bounds,
    pub(super) cache: Arc<Cache>,
    pub(super) lifecycle: Lifecycle,
    pub(super) slow_ops: Arc<SlowOps>,
    pub(super) stats_interval: watch::Sender<Option<Duration>>,
    pub(super) started: Instant,
    pub(super) incarnation: u64,
    /// Set when it is first asked for: the node's id may be the address of a listener.
    ring: OnceLock<CurrentRing>,
    /// Set when the listeners are open. Weak, as the node's own services hold this: dropping it must end it.
    pub(super) server: OnceLock<Weak<Server>>,
}

/// The configuration as it was loaded and changed since.
#[derive(Debug)]
pub(super) struct CurrentConfig {
    loaded: ArcSwap<LoadedConfig>,
    /// Held while it is changed.
    pub(super) updating: Mutex<()>,
}

impl CurrentConfig {
    fn new(loaded: LoadedConfig) -> Self {
        Self { loaded: ArcSwap::from_pointee(loaded), updating: Mutex::new(()) }
    }

    pub(super) fn load(&self) -> Guard<Arc<LoadedConfig>> {
        self.loaded.load()
    }

    pub(super) fn store(&self, loaded: LoadedConfig) {
        self.loaded.store(Arc::new(loaded));
    }
}

/// What connections and calls are held to, on all data listeners together.
#[derive(Debug)]
pub(super) struct Bounds {
    pub(super) connections: Connections,
    pub(super) timeout: CallTimeout,
    pub(super) in_flight: InFlight,
    pub(super) response_backlog: ResponseBacklog,
    pub(super) requests: LongRequests,
    pub(super) watches: Watches,
}

impl Bounds {
    fn new(config: &ServeConfig, shares: DescriptorShares, watches: Watches) -> Self {
        watches.set_watchers_max(config.limits.max_watchers as usize);
        Self {
            connections: Connections::new(config.limits.max_connections as usize).within(shares.connections),
            timeout: CallTimeout::new(config.timeouts.timeout),
            in_flight: InFlight::new(config.limits.max_in_flight as usize),
            response_backlog: ResponseBacklog::new(config.limits.max_response_backlog.bytes()),
            requests: LongRequests::new(request_limits(config)),
            watches,
        }
    }

    /// Holds what comes from now on to a configuration.
    pub(super) fn set(&self, config: &ServeConfig) {
        self.connections.set_limit(config.limits.max_connections as usize);
        self.timeout.set(config.timeouts.timeout);
        self.in_flight.set_limit(config.limits.max_in_flight as usize);
        self.response_backlog.set_bytes_max(config.limits.max_response_backlog.bytes());
        self.requests.set_limits(request_limits(config));
        self.watches.set_watchers_max(config.limits.max_watchers as usize);
    }
}

impl NodeContext {
    pub(super) fn new(
        cache: Arc<Cache>,
        clock: Arc<SystemClock>,
        loaded: LoadedConfig,
        shares: DescriptorShares,
    ) -> Self {
        let config = &loaded.config;
        let incarnation = clock.now().unix_us;
        let watches = Watches::new(Arc::clone(&cache), incarnation);
        Self {
            bounds: Bounds::new(config, shares, watches),
            cache,
            lifecycle: Lifecycle::new(),
            slow_ops: Arc::new(SlowOps::new(config.telemetry.slow_op, Arc::clone(&clock))),
            stats_interval: watch::Sender::new(config.telemetry.stats_interval),
            started: monotonic(),
            incarnation,
            ring: OnceLock::new(),
            server: OnceLock::new(),
            current: CurrentConfig::new(loaded),
        }
    }

    /// The node's figures of now.
    pub(super) fn figures(&self) -> NodeStats {
        let Bounds { connections, in_flight, response_backlog, requests, watches, timeout: _ } = &self.bounds;
        let watches = watches.figures();
        NodeStats {
            state: self.lifecycle.state().as_str(),
            uptime: monotonic().saturating_duration_since(self.started),
            policy: self.cache.policy(),
            stats: self.cache.stats(),
            namespaces: self.cache.namespace_reports(),
            invalidations: self.cache.invalidations(),
            resident_bytes: process::resident_bytes().unwrap_or(0),
            connections: connections.open(),
            requests_in_flight: in_flight.waiting() as u64,
            response_backlog_bytes: response_backlog.bytes(),
            request_bytes: requests.bytes(),
            watchers: watches.watchers,
            watch_events: watches.events,
            watch_discontinuities: watches.discontinuities,
            watch_log_bytes: watches.log_bytes,
            requests_shed: in_flight.shed() + response_backlog.refused() + connections.requests_refused(),
            log_lines_lost: log::lines_lost(),
            journal: self.journal(),
            disk: self.disk(),
            disk_tier: self.disk_tier(),
        }
    }

    /// The ring that the node goes by, which is of itself alone. Its listeners are bound.
    pub(super) fn ring(&self) -> CurrentRing {
        let alone = || {
            let loaded = self.current.load();
            let (node, listen) = (&loaded.config.node, self.listen());
            let Identity { node_id, advertise } = loaded.config.identity(&listen);
            let member = Member {
                id: node_id,
                incarnation: self.incarnation,
                weight: node.weight,
                zone: node.zone.clone(),
                addresses: addresses(advertise, &listen),
                state: MemberState::Serving,
            };
            CurrentRing::alone(member, POINTS_PER_WEIGHT).expect("the settings' bounds are those of a member")
        };
        // Before that the addresses are not known yet, of which one may be the id.
        if self.server.get().is_none() { alone() } else { self.ring.get_or_init(alone).clone() }
    }

    /// The data listeners: where they are bound, or before that as they are configured.
    fn listen(&self) -> Vec<Endpoint> {
        let bound = self.server.get().and_then(Weak::upgrade);
        match bound.as_deref().map(Server::data_addresses) {
            Some(bound) if !bound.is_empty() => bound.to_vec(),
            _ => self.current.load().config.listeners.listen.clone(),
        }
    }

    /// What is in force now of what the configuration leaves open, or can be changed.
    pub(super) fn live_config(&self) -> LiveConfig {
        let loaded = self.current.load();
        let config = &loaded.config;
        let listen = self.listen();
        let identity = config.identity(&listen);
        let control = match self.server.get().and_then(Weak::upgrade) {
            Some(server) => [
                server.admin_address().to_string(),
                server.health_address().to_string(),
                server.http_address().authority(),
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

/// The advertised URL, and after it the others that somebody can connect to, as many as a member has.
fn addresses(advertise: String, listen: &[Endpoint]) -> Vec<String> {
    let is_a_place = |url: &&Endpoint| url.host_port().is_none_or(|address| !address.is_unspecified());
    let others = listen.iter().filter(is_a_place).map(ToString::to_string).filter(|url| *url != advertise);
    let others: Vec<String> = others.collect();
    std::iter::once(advertise).chain(others).take(ADDRESSES_MAX).collect()
}
