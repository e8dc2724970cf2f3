//! What a node is told: flags, variables and a file, checked and put together into plain data.
//!
//! [`ServeArgs`] is what clap reads; [`ServeConfig::load`] lays flags over `LARDER_*` variables over the TOML file
//! over the defaults, and either gives a [`ServeConfig`] in which every value is within its bounds and no two
//! contradict each other, or a [`ConfigError`] that says what to put right. Nothing is ignored: what the design
//! knows and this build does not serve is refused.
//!
//! Fields have the names of the proto's `Config`, which is why they are bare integers with their unit; methods
//! give durations. This module opens no listener and knows no layer; it reads the file and asks the system how
//! much memory and how many processors there are.

mod args;
pub mod defaults;
mod error;
mod file;
mod layers;
mod live;
mod load;
pub mod memory;
mod memory_plan;
mod setting;
#[cfg(test)]
mod tests;
mod variables;

use std::path::PathBuf;
use std::time::Duration;

pub use args::ServeArgs;
pub use error::{ConfigError, Place, Said};
pub use layers::{SettingSource, Source};
pub use live::{BadSetting, Clash, SettingValue};
pub use memory_plan::MemoryPlan;
pub use setting::{SETTINGS, Setting};
pub use variables::{ADMIN_VARIABLE, NODES_VARIABLE, Variables};

pub use crate::endpoint::{BadEndpoint, Endpoint, HostPort};
use crate::engine::PolicyName;
pub use crate::entry::Durability;
pub use crate::persistence::{BackendKind, Method};
use crate::redacted::Redacted;

/// What a node runs with.
///
/// # Defaults
/// [`defaults`]; memory and threads by what the machine has.
#[derive(Debug, Clone, PartialEq)]
pub struct ServeConfig {
    /// The data listeners, one or more, TCP all of them.
    pub listen: Vec<Endpoint>,
    /// The admin listener, TCP.
    pub admin: Endpoint,
    /// The health listener, TCP.
    pub health: Endpoint,
    /// The HTTP listener.
    pub http: HostPort,
    /// The directory for everything on disk.
    pub data_dir: PathBuf,
    /// The limit on memory, 1 MiB or more.
    pub memory_bytes: u64,
    /// The engine's shards, before rounding; `None`: the engine chooses.
    pub shards: Option<u32>,
    /// The eviction policy.
    pub policy: PolicyName,
    /// What is kept on disk.
    pub persistence: Persistence,
    /// What writes that ask for nothing wait for.
    pub durability: Durability,
    /// What the catalogue on disk lies in.
    pub backend: BackendKind,
    /// Changes are synced this long after they were made, at the latest; more than 0.
    pub flush_interval_ms: u64,
    /// How often a snapshot is taken, more than 0.
    pub snapshot_interval_ms: u64,
    /// What may be on disk; 0: as much as fits.
    pub disk_limit_bytes: u64,
    /// How the content comes back at a start.
    pub recovery: Method,
    /// The node's id, 1 to 255 bytes; `None`: the advertised URL.
    pub node_id: Option<String>,
    /// The URL under which others reach the node; `None`: the first data listener's.
    pub advertise: Option<Endpoint>,
    /// The node's share of the ring, 1 or more.
    pub weight: u32,
    /// Where the node stands; empty: not said.
    pub zone: String,
    /// The longest that a call without a nearer deadline may take; 0: no bound.
    pub timeout_ms: u64,
    /// How often the figures are logged; 0: never.
    pub stats_interval_ms: u64,
    /// How long a draining node still answers, less than the drain's deadline; 0: no pause.
    pub lame_duck_ms: u64,
    /// After how long a drain cuts off what still runs, more than 0.
    pub drain_deadline_ms: u64,
    /// Start without serving, and wait for Spawn.
    pub standby: bool,
    /// Data and admin listeners beyond loopback are allowed without TLS and authentication.
    pub insecure: bool,
    /// How logs are written.
    pub log_format: LogFormat,
    /// The longest key, 1 B or more.
    pub max_key_bytes: u64,
    /// The longest value, 1 B or more.
    pub max_value_bytes: u64,
    /// The longest message taken in; no less than a value.
    pub max_message_in_bytes: u64,
    /// The longest message sent out; no less than a value.
    pub max_message_out_bytes: u64,
    /// The most bytes of answers that clients have yet to read; at least twice the longest message out. Not given: as
    /// [`MemoryPlan`] says, where that is more.
    pub max_response_backlog_bytes: u64,
    /// The most items of a batch, commands of a Pipeline message and items of a page, 1 or more.
    pub max_batch: u32,
    /// The longest content type, 1 B or more.
    pub max_content_type_bytes: u64,
    /// The most tags of an entry.
    pub max_tags: u32,
    /// The longest tag, 1 B or more.
    pub max_tag_bytes: u64,
    /// The longest time to live, more than 0.
    pub max_ttl_ms: u64,
    /// The most namespaces, the default one counted, 1 or more.
    pub max_namespaces: u32,
    /// The most open connections on the data listeners, 1 or more.
    pub max_connections: u32,
    /// The most calls that are worked on at a time, 1 or more.
    pub max_in_flight: u32,
    /// What a call may take before it is kept as slow; 0: none are kept.
    pub slow_op_ms: u64,
    /// The most HTTP/2 streams of a connection, 1 to 1024.
    pub max_streams: u32,
    /// How long a new connection may say nothing, more than 0.
    pub first_byte_timeout_ms: u64,
    /// How long a client may read nothing of an answer that waits for it, more than 0.
    pub stall_timeout_ms: u64,
    /// Worker threads, 1 or more.
    pub threads: u32,
    /// What is logged, in the syntax of tracing's `EnvFilter`.
    pub log: String,
    /// The URL of an OTLP collector; `None`: traces go nowhere.
    pub otlp: Option<Redacted>,
    /// The share of calls without a traced caller that are traced, 0 to 1.
    pub trace_sample: f64,
}

/// What is kept on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Persistence {
    /// Nothing.
    None,
    /// A journal of every change; snapshots only to shorten it.
    Journal,
    /// A snapshot every so often.
    Snapshot,
    /// A journal, and a snapshot every so often.
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
pub struct Loaded {
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
    /// [`Self::timeout_ms`]; `None`: no bound.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        (self.timeout_ms > 0).then(|| Duration::from_millis(self.timeout_ms))
    }

    /// [`Self::stats_interval_ms`]; `None`: never.
    #[must_use]
    pub fn stats_interval(&self) -> Option<Duration> {
        (self.stats_interval_ms > 0).then(|| Duration::from_millis(self.stats_interval_ms))
    }

    /// [`Self::slow_op_ms`]; `None`: none are kept.
    #[must_use]
    pub fn slow_op(&self) -> Option<Duration> {
        (self.slow_op_ms > 0).then(|| Duration::from_millis(self.slow_op_ms))
    }

    /// [`Self::lame_duck_ms`].
    #[must_use]
    pub fn lame_duck(&self) -> Duration {
        Duration::from_millis(self.lame_duck_ms)
    }

    /// [`Self::drain_deadline_ms`].
    #[must_use]
    pub fn drain_deadline(&self) -> Duration {
        Duration::from_millis(self.drain_deadline_ms)
    }

    /// [`Self::first_byte_timeout_ms`].
    #[must_use]
    pub fn first_byte_timeout(&self) -> Duration {
        Duration::from_millis(self.first_byte_timeout_ms)
    }

    /// [`Self::stall_timeout_ms`].
    #[must_use]
    pub fn stall_timeout(&self) -> Duration {
        Duration::from_millis(self.stall_timeout_ms)
    }

    /// Who the node is, with the URLs that its data listeners were bound to. Before that, in standby, the
    /// configured ones stand in for them. What others are told is the first that they can reach: no Unix socket, if there
    /// is any other.
    #[must_use]
    pub fn identity(&self, bound: &[Endpoint]) -> Identity {
        let listen = if bound.is_empty() { &self.listen[..] } else { bound };
        let first = listen.iter().find(|url| url.host_port().is_some()).or(listen.first());
        let advertise = self.advertise.as_ref().or(first).map(ToString::to_string).unwrap_or_default();
        Identity { node_id: self.node_id.clone().unwrap_or_else(|| advertise.clone()), advertise }
    }
}

impl Persistence {
    /// The word's mode, where this build serves it.
    pub(crate) fn of(word: &str) -> Option<Self> {
        [Self::None, Self::Journal, Self::Snapshot, Self::JournalAndSnapshot, Self::Store]
            .into_iter()
            .find(|mode| mode.as_str() == word)
    }

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

impl Default for ServeConfig {
    fn default() -> Self {
        let tcp = |port| Endpoint::tcp("127.0.0.1", port);
        let memory_bytes = memory::default_bytes();
        Self {
            listen: vec![tcp(defaults::LISTEN_PORT)],
            admin: tcp(defaults::ADMIN_PORT),
            health: tcp(defaults::HEALTH_PORT),
            http: HostPort { host: "127.0.0.1".to_owned(), port: defaults::HTTP_PORT },
            data_dir: PathBuf::from(defaults::DATA_DIR),
            memory_bytes,
            shards: None,
            policy: defaults::POLICY,
            persistence: defaults::PERSISTENCE,
            durability: Durability::Buffered,
            backend: BackendKind::Sled,
            flush_interval_ms: defaults::FLUSH_INTERVAL_MS,
            snapshot_interval_ms: defaults::SNAPSHOT_INTERVAL_MS,
            disk_limit_bytes: 0,
            recovery: Method::SnapshotAndJournal,
            node_id: None,
            advertise: None,
            weight: defaults::WEIGHT,
            zone: String::new(),
            timeout_ms: defaults::TIMEOUT_MS,
            stats_interval_ms: defaults::STATS_INTERVAL_MS,
            lame_duck_ms: defaults::LAME_DUCK_MS,
            drain_deadline_ms: defaults::DRAIN_DEADLINE_MS,
            standby: false,
            insecure: false,
            log_format: LogFormat::Text,
            max_key_bytes: defaults::MAX_KEY_BYTES,
            max_value_bytes: defaults::MAX_VALUE_BYTES,
            max_message_in_bytes: defaults::MAX_MESSAGE_IN_BYTES,
            max_message_out_bytes: defaults::MAX_MESSAGE_OUT_BYTES,
            max_response_backlog_bytes: MemoryPlan::of(memory_bytes)
                .answer_bytes_for(defaults::MAX_MESSAGE_OUT_BYTES),
            max_batch: defaults::MAX_BATCH,
            max_content_type_bytes: defaults::MAX_CONTENT_TYPE_BYTES,
            max_tags: defaults::MAX_TAGS,
            max_tag_bytes: defaults::MAX_TAG_BYTES,
            max_ttl_ms: defaults::MAX_TTL_MS,
            max_namespaces: defaults::MAX_NAMESPACES,
            max_connections: defaults::MAX_CONNECTIONS,
            max_in_flight: defaults::MAX_IN_FLIGHT,
            slow_op_ms: defaults::SLOW_OP_MS,
            max_streams: defaults::MAX_STREAMS,
            first_byte_timeout_ms: defaults::FIRST_BYTE_TIMEOUT_MS,
            stall_timeout_ms: defaults::STALL_TIMEOUT_MS,
            threads: std::thread::available_parallelism()
                .map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
            log: defaults::LOG.to_owned(),
            otlp: None,
            trace_sample: defaults::TRACE_SAMPLE,
        }
    }
}
