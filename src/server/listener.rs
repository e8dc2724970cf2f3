//! The listeners of a node: a bound address, a service, and the connection limits, put together.

use std::fmt;
use std::future::Future;

use axum::Router;
use tokio::runtime::Handle;

use super::accept::Listening;
use super::connection::{ConnectionInfo, ConnectionService, LiveConnectionConfig, serve_grpc, serve_http};
use super::connections::Connections;
use super::frames::Reading;
use super::lifecycle::Lifecycle;
use super::listen::{Accept, Bound, Incoming};
use super::phase::PhaseSignal;
use crate::endpoint::PeerInfo;

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Keys.
    Data,
    /// The Admin service.
    Admin,
    /// Health over gRPC.
    Health,
    /// /livez, /readyz and /metrics.
    Http,
}

impl Role {
    /// The flag that sets its address.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::Data => "--listen",
            Self::Admin => "--admin",
            Self::Health => "--health",
            Self::Http => "--http",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "data",
            Self::Admin => "admin",
            Self::Health => "health",
            Self::Http => "HTTP",
        })
    }
}

/// Calls at once on a connection of the health listener: a prober has one, or a Watch for each service.
const PROBE_STREAMS_MAX: u32 = 16;

/// What a listener is served with.
pub(crate) struct Serving<'a> {
    pub(crate) runtime: &'a Handle,
    pub(crate) connections: Connections,
    pub(crate) config: &'a LiveConnectionConfig,
    /// Told if the listener is lost.
    pub(crate) lifecycle: &'a Lifecycle,
}

/// Serves gRPC on a listener.
pub(crate) fn serve_grpc_on<S: ConnectionService>(
    role: Role,
    bound: Bound,
    service: S,
    serving: Serving<'_>,
) -> Listening {
    let (config, connections) = (serving.config.clone(), serving.connections.clone());
    start(role, bound, serving, move |socket, peer, phase| {
        let reading = Reading::new(connections.refused_unread(), connections.load().connection(&peer));
        let connection = ConnectionInfo { peer, unread: reading.unread_time().clone() };
        let (service, mut config) = (service.service(&connection), config.get());
        if role == Role::Health {
            config.streams_max = config.streams_max.min(PROBE_STREAMS_MAX);
        }
        serve_grpc(socket, connection.peer, phase, service, (config, reading))
    })
}

/// Serves plain HTTP on a listener.
pub(crate) fn serve_http_on(role: Role, bound: Bound, router: Router, serving: Serving<'_>) -> Listening {
    let config = serving.config.clone();
    start(role, bound, serving, move |socket, peer, phase| {
        serve_http(socket, peer, phase, router.clone(), config.get())
    })
}

fn start<F, S>(role: Role, bound: Bound, serving: Serving<'_>, serve: S) -> Listening
where
    F: Future<Output = ()> + Send + 'static,
    S: Fn(<Incoming as Accept>::Socket, PeerInfo, PhaseSignal) -> F + Send + Sync + 'static,
{
    let Bound { address, incoming } = bound;
    let (lifecycle, part) = (serving.lifecycle.clone(), format!("the {role} listener at {address}"));
    let lost = move || lifecycle.fail(&part);
    Listening::start(serving.runtime, address, incoming, serving.connections, serve, lost)
}
