//! A node in a simulation: one of several in a program, on a network that delays and loses, by a time that is made up.

use super::parts::server_config;
use super::{NodeError, RunningNode};
use crate::clock::{SimulatedTime, SystemClock};
use crate::config::{LoadedConfig, Persistence, ServeConfig};
use crate::endpoint::network::SharedNetwork;
use crate::server::{Platform, ServerConfig};

/// What a node has of a simulation in place of the operating system. The runtime that it is started in is the third: its
/// time, which is paused, moves the node's.
#[derive(Debug, Clone)]
pub struct Simulation {
    /// Its network.
    pub network: SharedNetwork,
    /// How its clocks stand and go.
    pub time: SimulatedTime,
}

/// A node that cannot be simulated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a simulated node has no {what}, which would have threads of its own: {remedy}")]
pub struct NotSimulated {
    what: &'static str,
    remedy: &'static str,
}

impl RunningNode {
    /// [`Self::start`] in a simulation: the node has no thread of its own and opens no socket.
    ///
    /// # Errors
    /// As [`Self::start`]; [`NodeError::NotSimulated`] where it is to keep something on disk or to send traces.
    pub async fn start_simulated(loaded: LoadedConfig, simulation: Simulation) -> Result<Self, NodeError> {
        check(&loaded.config)?;
        let platform = Platform::Simulated(simulation.network);
        let config = ServerConfig { platform, ..server_config(&loaded.config) };
        Self::start_as(config, SystemClock::simulated(simulation.time), loaded, None).await
    }
}

fn check(config: &ServeConfig) -> Result<(), NotSimulated> {
    if config.disk.persistence != Persistence::None {
        return Err(NotSimulated { what: "disk", remedy: "give --persistence none" });
    }
    if config.telemetry.otlp.is_some() {
        return Err(NotSimulated { what: "collector of traces", remedy: "leave --otlp out" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_threads_of_its_own_is_refused() {
        let mut config = ServeConfig::default();
        let refused = |config: &ServeConfig| check(config).unwrap_err().to_string();
        assert!(refused(&config).ends_with("give --persistence none"), "the default keeps a disk");
        config.disk.persistence = Persistence::None;
        check(&config).unwrap();
        config.telemetry.otlp = Some("http://127.0.0.1:4317".into());
        assert!(refused(&config).ends_with("leave --otlp out"));
    }
}
