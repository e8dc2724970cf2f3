//! Asking a listener how it is, by the standard gRPC health protocol.

use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use std::sync::Arc;

use super::error::ClientError;
use super::pool::{Incoming, Pool};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
/// What the data plane is called there.
const CACHE_SERVICE: &str = "larder.v1.Cache";

/// A client of a listener's health service.
#[derive(Debug)]
pub struct HealthClient {
    pool: Pool,
}

/// What a listener says of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Serving {
    /// It serves.
    Serving,
    /// It does not serve now.
    NotServing,
    /// The listener knows no service of that name.
    UnknownService,
    /// It does not know.
    Unknown,
}

impl Serving {
    /// The protocol's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Serving => "SERVING",
            Self::NotServing => "NOT_SERVING",
            Self::UnknownService => "SERVICE_UNKNOWN",
            Self::Unknown => "UNKNOWN",
        }
    }
}

impl HealthClient {
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Asks for a service's state; "" is the process itself.
    ///
    /// # Errors
    /// [`ClientError`] where there is no answer. A service that the listener does not know is one.
    pub async fn check(&self, service: &str) -> Result<Serving, ClientError> {
        let message = HealthCheckRequest { service: service.to_owned() };
        match self.pool.unary::<_, HealthCheckResponse>("Check", CHECK, message).await {
            Ok(answer) => Ok(serving(answer.status())),
            Err(ClientError::Status(refusal)) if refusal.code == Code::NotFound => {
                Ok(Serving::UnknownService)
            }
            Err(error) => Err(error),
        }
    }
}

fn serving(status: ServingStatus) -> Serving {
    match status {
        ServingStatus::Serving => Serving::Serving,
        ServingStatus::NotServing => Serving::NotServing,
        ServingStatus::ServiceUnknown => Serving::UnknownService,
        ServingStatus::Unknown => Serving::Unknown,
    }
}

/// What a node says of its data plane, each time that it changes.
#[derive(Debug)]
pub(super) struct WatchStream {
    messages: Incoming<HealthCheckResponse>,
}

impl WatchStream {
    pub(super) async fn open(pool: &Arc<Pool>) -> Result<Self, ClientError> {
        let message = HealthCheckRequest { service: CACHE_SERVICE.to_owned() };
        Ok(Self {
            messages: pool.stream("Watch", WATCH, tonic::Request::new(message), pool.timeout()).await?,
        })
    }

    /// None: the stream has ended.
    pub(super) async fn next(&mut self) -> Option<Serving> {
        let message = self.messages.next(None).await.ok()??;
        Some(serving(message.status()))
    }
}
