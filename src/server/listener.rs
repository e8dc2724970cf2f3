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

/// Calls at once that a connection may have however many connections there are, and connections that may have as many as the
/// configuration says. HTTP/2 keeps the room of the most calls that a connection ever had, some 900 B each, until it ends.
const STREAMS_MIN: u32 = 32;
const CONNECTIONS_WITH_ALL: u64 = 64;

/// Calls at once on a connection that begins while there are that many.
fn streams_of_one_more(streams_max: u32, connections: u64) -> u32 {
    let share = u64::from(streams_max) * CONNECTIONS_WITH_ALL / connections.max(1);
    u32::try_from(share).unwrap_or(u32::MAX).max(STREAMS_MIN).min(streams_max)
}

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
        let reading = Reading::new(&connections, &peer);
        let connection = ConnectionInfo { peer, unread: reading.unread_time().clone() };
        let (service, mut config) = (service.service(&connection), config.get());
        config.streams_max = match role {
            Role::Health => config.streams_max.min(PROBE_STREAMS_MAX),
            _ => streams_of_one_more(config.streams_max, connections.open()),
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_connections_there_are_the_fewer_calls_a_new_one_may_have_at_once() {
        let of =
            |streams_max| [1, 64, 128, 1_000, 100_000].map(|open| streams_of_one_more(streams_max, open));
        assert_eq!(of(256), [256, 256, 128, 32, 32]);
        assert_eq!(of(16), [16; 5]);
    }
}
