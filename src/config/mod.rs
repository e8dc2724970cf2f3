//! The settings of a node: flags, variables and a file, checked and put together into plain data.
//!
//! [`ServeArgs`] is what clap reads; [`ServeConfig::load`] lays flags over `LARDER_*` variables over the TOML file
//! over the defaults, and either gives a [`ServeConfig`] in which every value is within its bounds and no two
//! contradict each other, or a [`ConfigError`] that says what to put right. Nothing is ignored: what the design
//! knows and this build does not serve is refused.
//!
//! A setting is written once, as a row of `table.rs`: a field of [`ServeConfig`], flag, variable, key, help, the contract's
//! field and the book's row follow from it. This module opens no listener and knows no layer; it reads the file and asks
//! the system how much memory and how many processors there are.

mod args;
mod error;
mod file;
mod layers;
mod live;
mod load;
pub mod memory;
mod memory_plan;
mod row;
mod setting;
mod table;
#[cfg(test)]
mod tests;
mod value;
mod variables;

pub use args::ServeArgs;
pub use error::{ConfigError, GivenValue, SettingLocation};
pub use layers::{SettingSource, Source};
pub use live::{BadSetting, Conflict};
pub use memory_plan::MemoryPlan;
pub use setting::{Effect, Setting};
pub use table::{
    CacheSettings, DiskSettings, LimitSettings, ListenerSettings, NodeSettings, SETTINGS, ServeConfig,
    TelemetrySettings, TimeoutSettings,
};
pub use variables::{ADMIN_VARIABLE, NODES_VARIABLE, Variables};

pub use crate::endpoint::{BadEndpoint, Endpoint, HostPort};
use crate::engine::PolicyName;
pub use crate::entry::Durability;
pub use crate::persistence::{BackendKind, RecoveryMethod};

/// What is kept on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Persistence {
    /// Nothing.
    None,
    /// A journal of every change; snapshots only to shorten it.
    Journal,
    /// Snapshots at an interval.
    Snapshot,
    /// A journal, and snapshots at an interval.
    JournalAndSnapshot,
    /// Every entry: memory is a cache over the disk.
    Store,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A configuration, with where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedConfig {
    /// The configuration.
    pub config: ServeConfig,
    /// Every setting of [`SETTINGS`], in that order, and where its value comes from.
    pub sources: Vec<SettingSource>,
    /// What is allowed but likely not what was meant, to be logged at the start.
    pub warnings: Vec<String>,
}

/// Who a node is, once its listeners are bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub node_id: String,
    /// The URL under which others reach it.
    pub advertise: String,
}

impl ServeConfig {
    /// Who the node is, with the URLs that its data listeners were bound to, or before that, in standby, the configured
    /// ones. Other nodes and clients are given the first URL that they can reach: a Unix socket only if there is
    /// nothing else.
    #[must_use]
    pub fn identity(&self, bound: &[Endpoint]) -> Identity {
        let listen = if bound.is_empty() { &self.listeners.listen[..] } else { bound };
        let first = listen.iter().find(|url| url.host_port().is_some()).or(listen.first());
        let advertise = self.node.advertise.as_ref().or(first).map(ToString::to_string).unwrap_or_default();
        Identity { node_id: self.node.node_id.clone().unwrap_or_else(|| advertise.clone()), advertise }
    }
}

impl Persistence {
    /// Every mode.
    pub const ALL: [Self; 5] =
        [Self::None, Self::Journal, Self::Snapshot, Self::JournalAndSnapshot, Self::Store];

    /// The word for it in flags and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Journal => "journal",
            Self::Snapshot => "snapshot",
            Self::JournalAndSnapshot => "journal+snapshot",
            Self::Store => "store",
        }
    }
}

impl LogFormat {
    /// The word for it in flags and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}
