//! A node: its listeners, opened, run and drained as its [`Lifecycle`] says.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::connection::{ConnectionConfig, ConnectionService, LiveConnectionConfig};
use super::connections::Connections;
use super::lifecycle::{DRAIN_DEADLINE_DEFAULT, DrainTimes, Lifecycle, SpawnError};
use super::listen::{Bound, ListenError, bind, is_private};
use super::listener::{Role, Serving, serve_grpc_on, serve_http_on};
use super::own_runtime::OwnRuntime;
use super::platform::Platform;
use super::signals::Signals;
use super::supervisor::{DataPlane, Supervisor};
use crate::endpoint::Endpoint;

/// Where a node listens and how it behaves there.
///
/// # Defaults
///
/// Loopback: data 7400, admin 7401, health 7402, HTTP 7403; no lame duck; 8 s to drain; not in standby; nothing
/// but loopback allowed for data and admin; signals left alone; on the operating system.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The data listeners, opened by spawn.
    pub data: Vec<Endpoint>,
    /// The admin listener.
    pub admin: Endpoint,
    /// The health listener.
    pub health: Endpoint,
    /// The HTTP listener.
    pub http: Endpoint,
    /// What each connection is held to.
    pub connection: ConnectionConfig,
    /// How long a draining node goes on as before, so that clients and load balancers notice that it leaves.
    pub lame_duck: Duration,
    /// How long a drain takes at most, the lame duck included, where nobody says otherwise.
    pub drain_deadline: Duration,
    /// Wait for spawn instead of serving at once.
    pub standby: bool,
    /// Let data and admin be reached from other machines although nothing is encrypted and nobody is asked who
    /// they are.
    pub insecure: bool,
    /// Drain at the first SIGTERM, SIGINT or SIGHUP of the process and give up at the second. One that follows the first
    /// within 250 ms is the same one, and a SIGHUP that the process ignores stays ignored.
    pub signals: bool,
    /// What the node stands on.
    pub platform: Platform,
}

impl Default for ServerConfig {
    fn default() -> Self {
        let at = |port| Endpoint::tcp("127.0.0.1", port);
        Self {
            data: vec![at(7400)],
            admin: at(7401),
            health: at(7402),
            http: at(7403),
            connection: ConnectionConfig::default(),
            lame_duck: Duration::ZERO,
            drain_deadline: DRAIN_DEADLINE_DEFAULT,
            standby: false,
            insecure: false,
            signals: false,
            platform: Platform::System,
        }
    }
}

impl ServerConfig {
    /// Everything that would keep these listeners from being opened. Each is opened for that, and closed again.
    pub async fn check(&self) -> Vec<StartError> {
        let mut errors: Vec<StartError> = self.check_exposure().await.err().into_iter().collect();
        let data = self.data.iter().map(|address| (Role::Data, address));
        let others = [(Role::Admin, &self.admin), (Role::Health, &self.health), (Role::Http, &self.http)];
        // All at once, as they would be: two of them may want the same port.
        let mut opened = Vec::new();
        for (role, address) in data.chain(others) {
            match open(role, &self.platform, address, &Handle::current()).await {
                Ok(bound) => opened.push(bound),
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// Refuses a data or admin listener that others could reach.
    async fn check_exposure(&self) -> Result<(), StartError> {
        if self.insecure {
            return Ok(());
        }
        let data = self.data.iter().map(|address| (Role::Data, address));
        for (role, address) in data.chain([(Role::Admin, &self.admin)]) {
            if !is_private(address).await.map_err(|source| StartError::Listen { role, source })? {
                return Err(StartError::Exposed { role, address: address.clone() });
            }
        }
        Ok(())
    }
}

/// What answers on a node's listeners.
#[derive(Debug, Clone)]
pub struct Services<D, A, H> {
    /// On the data listeners.
    pub data: D,
    /// On the admin listener.
    pub admin: A,
    /// On the health listener, run on the health thread.
    pub health: H,
    /// On the HTTP listener, run on the health thread: it must not block there.
    pub http: Router,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A listener would be open to other machines.
    #[error(
        "the {role} listener ({}) at {address} could be reached from other machines without encryption or authentication: use a loopback address, or allow that with --insecure",
        role.flag()
    )]
    Exposed {
        /// Which listener.
        role: Role,
        /// Where.
        address: Endpoint,
    },
    /// A listener cannot be opened.
    #[error("the {role} listener ({}): {source}", role.flag())]
    Listen {
        /// Which listener.
        role: Role,
        /// Why not.
        #[source]
        source: ListenError,
    },
    /// There is nothing to serve data on.
    #[error("no data listener is configured: give --listen at least once")]
    NoDataListener,
    /// The node was stopped while it started, or what is on disk cannot be used.
    #[error(transparent)]
    Spawn(SpawnError),
    /// The lifecycle is another node's.
    #[error("this lifecycle belongs to another node: each node needs one of its own")]
    LifecycleTaken,
    /// The operating system gave no thread or no descriptors.
    #[error("cannot start a thread of the node: {0}")]
    Thread(#[source] io::Error),
}

impl StartError {
    /// Whether nothing is wrong: the node was drained before it served.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        matches!(self, Self::Spawn(SpawnError::Leaving { .. }))
    }
}

/// How a node came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It drained.
    Drained,
    /// It drained by itself, as a part of it had ended that it cannot do without.
    Failed,
    /// It drained, and the last writes may not be on its disk.
    Unsaved,
    /// A second signal cut that short: exit now.
    Forced,
}

/// A node that runs. Dropping it ends it at once: connections are cut and its threads end.
#[derive(Debug)]
pub struct Server {
    lifecycle: Lifecycle,
    data: Arc<OnceLock<Vec<Endpoint>>>,
    admin: Endpoint,
    health: Endpoint,
    http: Endpoint,
    connection: LiveConnectionConfig,
    stopped: watch::Receiver<Option<Stop>>,
    /// Of probes and scrapers, and of the course of events.
    _runtimes: [OwnRuntime; 2],
}

impl Server {
    /// Opens the listeners; data and admin are served by the runtime that this is called in. Returns when the
    /// node serves, or in standby when it can be told to.
    ///
    /// `lifecycle` must be new. `connections` counts those of the data listeners; each other listener has a
    /// count of its own with the same limit, so that clients of one cannot lock out another's.
    ///
    /// # Errors
    ///
    /// A [`StartError`]; then nothing is left open.
    pub async fn start<D, A, H>(
        config: ServerConfig,
        lifecycle: Lifecycle,
        connections: Connections,
        services: Services<D, A, H>,
    ) -> Result<Self, StartError>
    where
        D: ConnectionService,
        A: ConnectionService,
        H: ConnectionService,
    {
        if config.data.is_empty() {
            return Err(StartError::NoDataListener);
        }
        config.check_exposure().await?;
        let times = DrainTimes { lame_duck: config.lame_duck, deadline: config.drain_deadline };
        let requests = lifecycle.take_requests(times).ok_or(StartError::LifecycleTaken)?;
        let platform = config.platform;
        let probes = OwnRuntime::start("larder-health", &platform).map_err(StartError::Thread)?;
        let mut life = OwnRuntime::start("larder-life", &platform).map_err(StartError::Thread)?;
        let signals = config.signals.then(|| Signals::catch(life.handle())).transpose();
        let signals = signals.map_err(StartError::Thread)?;

        let connection = LiveConnectionConfig::new(config.connection);
        let (here, aside) = (Handle::current(), probes.handle());
        let on = |runtime| Serving {
            runtime,
            connections: connections.sibling(),
            config: &connection,
            lifecycle: &lifecycle,
        };
        let admin = open(Role::Admin, &platform, &config.admin, &here).await?;
        let health = open(Role::Health, &platform, &config.health, aside).await?;
        let http = open(Role::Http, &platform, &config.http, aside).await?;
        let control = vec![
            serve_grpc_on(Role::Admin, admin, services.admin, on(&here)),
            serve_grpc_on(Role::Health, health, services.health, on(aside)),
            serve_http_on(Role::Http, http, services.http, on(aside)),
        ];
        let [admin, health, http] = [0, 1, 2].map(|which| Endpoint::clone(control[which].address()));

        let bound = Arc::new(OnceLock::new());
        let data = DataPlane {
            runtime: here,
            platform,
            addresses: config.data,
            service: services.data,
            connections,
            config: connection.clone(),
            bound: Arc::clone(&bound),
        };
        let (stopping, stopped) = watch::channel(None);
        let supervisor =
            Supervisor { lifecycle: lifecycle.clone(), requests, data, control, signals, stopped: stopping };
        life.spawn(supervisor.run());
        let _runtimes = [probes, life];
        let node = Self { lifecycle, data: bound, admin, health, http, connection, stopped, _runtimes };
        if !config.standby {
            node.lifecycle.spawn().await.map_err(|error| match error {
                SpawnError::Listen(source) => StartError::Listen { role: Role::Data, source },
                other => StartError::Spawn(other),
            })?;
        }
        Ok(node)
    }

    /// The one line that says where the node is to be found:
    ///
    /// ```text
    /// ready state=serving data=tcp://127.0.0.1:41007 admin=tcp://… health=tcp://… http=127.0.0.1:…
    /// ```
    ///
    /// Several data listeners are joined by commas; in standby there is no data=.
    #[must_use]
    pub fn ready_line(&self) -> String {
        let data: Vec<String> = self.data_addresses().iter().map(Endpoint::to_string).collect();
        let data = if data.is_empty() { String::new() } else { format!(" data={}", data.join(",")) };
        format!(
            "ready state={}{data} admin={} health={} http={}",
            self.lifecycle.state(),
            self.admin,
            self.health,
            self.http.authority(),
        )
    }

    /// The node's life.
    #[must_use]
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// The data listeners, with the ports that were picked; none in standby.
    #[must_use]
    pub fn data_addresses(&self) -> &[Endpoint] {
        self.data.get().map_or(&[], Vec::as_slice)
    }

    /// The admin listener.
    #[must_use]
    pub fn admin_address(&self) -> &Endpoint {
        &self.admin
    }

    /// The health listener.
    #[must_use]
    pub fn health_address(&self) -> &Endpoint {
        &self.health
    }

    /// The HTTP listener.
    #[must_use]
    pub fn http_address(&self) -> &Endpoint {
        &self.http
    }

    /// Sets what connections are held to that are accepted from now on, on every listener.
    pub fn set_connection(&self, config: ConnectionConfig) {
        self.connection.set(config);
    }

    /// What connections are held to that are accepted now.
    #[must_use]
    pub fn connection(&self) -> ConnectionConfig {
        self.connection.get()
    }

    /// Waits until the node has stopped and every listener is closed: the process may exit. Do that by
    /// `std::process::exit` or `Runtime::shutdown_background`, as a handler that is stuck would hold up a
    /// runtime that is dropped.
    pub async fn stopped(&self) -> Stop {
        let mut stopped = self.stopped.clone();
        match stopped.wait_for(Option::is_some).await {
            Ok(stop) => stop.unwrap_or(Stop::Failed),
            // The course ended without a word: it panicked.
            Err(_) => Stop::Failed,
        }
    }
}

async fn open(
    role: Role,
    platform: &Platform,
    address: &Endpoint,
    runtime: &Handle,
) -> Result<Bound, StartError> {
    bind(platform, address, runtime).await.map_err(|source| StartError::Listen { role, source })
}
