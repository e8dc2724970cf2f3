//! The listeners of a node: a bound address, a service, and the connection limits, put together.

use std::fmt;

use axum::Router;
use tokio::runtime::Handle;

use super::accept::Listening;
use super::connection::{ConnectionService, LiveConnectionConfig, serve_grpc, serve_http};
use super::connections::Connections;
use super::listen::Bound;

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

/// Serves gRPC on a listener.
pub(crate) fn serve_grpc_on<S: ConnectionService>(
    runtime: &Handle,
    bound: Bound,
    service: S,
    connections: Connections,
    config: &LiveConnectionConfig,
) -> Listening {
    let config = config.clone();
    Listening::start(runtime, bound.address, bound.incoming, connections, move |socket, peer, phase| {
        let (service, config) = (service.service(&peer), config.get());
        serve_grpc(socket, peer, phase, service, config)
    })
}

/// Serves plain HTTP on a listener.
pub(crate) fn serve_http_on(
    runtime: &Handle,
    bound: Bound,
    router: Router,
    connections: Connections,
    config: &LiveConnectionConfig,
) -> Listening {
    let config = config.clone();
    Listening::start(runtime, bound.address, bound.incoming, connections, move |socket, peer, phase| {
        serve_http(socket, peer, phase, router.clone(), config.get())
    })
}
