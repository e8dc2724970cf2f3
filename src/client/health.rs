//! Asking a listener how it is, by the standard gRPC health protocol.

use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::error::ClientError;
use super::pool::Pool;

const CHECK: &str = "/grpc.health.v1.Health/Check";

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
            Ok(answer) => Ok(match answer.status() {
                ServingStatus::Serving => Serving::Serving,
                ServingStatus::NotServing => Serving::NotServing,
                ServingStatus::ServiceUnknown => Serving::UnknownService,
                ServingStatus::Unknown => Serving::Unknown,
            }),
            Err(ClientError::Status(refusal)) if refusal.code == Code::NotFound => {
                Ok(Serving::UnknownService)
            }
            Err(error) => Err(error),
        }
    }
}
