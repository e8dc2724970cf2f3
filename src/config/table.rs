//! The table of settings: of each its name, group, type, values, default, and from when on a change while serving holds.
//!
//! A row is the whole of a setting but for what it does. It makes
//!
//! - the field of [`ServeConfig`], in its group: `config.limits.max_key`;
//! - the flag `--max-key`, its help, the variable `LARDER_MAX_KEY` and the file's key `max-key`;
//! - the line of `larder admin config` and, where it is live, of `larder admin config set`;
//! - the field of the contract's `Config`, `max_key_bytes`: the name, and the unit that the type has there;
//! - the row of the book's configuration page.
//!
//! The macro that reads the table is in [`super::row`], the types that a setting can have are in [`super::value`].

use std::path::PathBuf;
use std::time::Duration;

use super::memory::{self, MEMORY_BYTES_MIN};
use super::row::settings;
use super::setting::Kind::{
    self, Choice, Count, DurationOrNone, List, Parsed, Ratio, Size, SizeOrNone, Switch, Text,
};
use super::{Durability, Endpoint, HostPort, LogFormat, MemoryPlan, Persistence, PolicyName, RecoveryMethod};
use crate::entry::{
    ByteSize, CONTENT_TYPE_BYTES_MAX, KEY_BYTES_MAX, MESSAGE_BYTES_MAX, NAMESPACES_MAX, TAG_BYTES_MAX,
    TAGS_MAX, TTL_MS_MAX, VALUE_BYTES_MAX,
};
use crate::persistence::BackendKind;
use crate::redacted::Redacted;

settings! {
    /// The addresses at which a node listens.
    listeners: ListenerSettings "Listeners" {
        /// Data listener, tcp://HOST:PORT or unix:///PATH; may be repeated
        listen: Vec<Endpoint> { URL, takes List(A_URL), default vec![loopback(7400)], live Restart }
        /// Admin listener
        admin: Endpoint { URL, takes Parsed(A_URL), default loopback(7401), live Restart }
        /// Health listener, on a thread of its own
        health: Endpoint { URL, takes Parsed(A_URL), default loopback(7402), live Restart }
        /// HTTP listener for /livez, /readyz and /metrics, HOST:PORT
        http: HostPort {
            ADDR, takes Parsed("an address such as 127.0.0.1:7403 or [::1]:0"),
            default HostPort { host: "127.0.0.1".to_owned(), port: 7403 }, live Restart
        }
        /// Allow data and admin listeners beyond loopback without TLS and authentication
        insecure: bool { BOOL, takes Switch, default false, live Restart }
    }

    /// What is held in memory, and what is evicted.
    cache: CacheSettings "Cache" {
        /// Bytes that keys, values and their bookkeeping may take
        memory: ByteSize {
            SIZE, takes Size(MEMORY_BYTES_MIN, 16 << 40), default ByteSize(memory::default_bytes()),
            shown "a quarter of what the process may use (cgroups counted), at least 64MiB", live AtOnce
        }
        /// Shards of the engine, rounded up to a power of two
        shards: Option<u32> {
            N, takes Count(1, 1_024), default None, shown "by memory and processors", live Restart
        }
        /// Eviction policy
        policy: PolicyName { NAME, takes Kind::Policy, default PolicyName::Adaptive, live AtOnce }
    }

    /// What is kept on disk.
    disk: DiskSettings "Persistence" {
        /// Directory for everything on disk
        data_dir: PathBuf { DIR, takes Text(1, 4_096), default PathBuf::from("./larder-data"), live Restart }
        /// What is kept on disk
        persistence: Persistence {
            MODE, takes Choice(&["none", "journal", "snapshot", "journal+snapshot", "store"]),
            default Persistence::JournalAndSnapshot, live Restart
        }
        /// What the catalogue on disk lies in
        backend: BackendKind { NAME, takes Choice(&["sled", "files"]), default BackendKind::Sled, live Restart }
        /// What a write that names no durability waits for
        durability: Durability {
            DURABILITY, takes Choice(&["buffered", "flushed"]), default Durability::Buffered, live Restart
        }
        /// How long a change may wait for the disk; after a crash, what is younger may be lost
        flush_interval: Duration {
            DUR, takes Kind::Duration(1, HOUR_MS), default Duration::from_millis(100), live Restart
        }
        /// How often a snapshot is taken, if anything has changed
        snapshot_interval: Duration {
            DUR, takes Kind::Duration(1_000, 7 * 24 * HOUR_MS), default Duration::from_secs(300), live Restart
        }
        /// Limit on bytes on disk, above which writes are refused
        disk_limit: Option<ByteSize> {
            SIZE, takes SizeOrNone("none", DISK_LIMIT_BYTES_MIN), default None, live Restart
        }
        /// How the content comes back at a start
        recovery: RecoveryMethod {
            METHOD, takes Kind::ServedChoice(RECOVERIES, &["keys+origin"]), default RecoveryMethod::SnapshotAndJournal,
            live Restart
        }
    }

    /// Who the node is, and how it runs.
    node: NodeSettings "Node" {
        /// The node's id
        node_id: Option<String> {
            ID, takes Text(1, 255), default None, shown "the advertised URL", live Restart
        }
        /// URL under which others reach the node
        advertise: Option<Endpoint> {
            URL, takes Parsed(A_URL), default None, shown "the first data listener's", live Restart
        }
        /// The node's share of the ring
        weight: u32 { N, takes Count(1, 1_000), default 1, live Restart }
        /// Where the node stands
        zone: String { NAME, takes Text(0, 255), default String::new(), shown "not given", live Restart }
        /// Start without serving: wait for `larder admin spawn`
        standby: bool { BOOL, takes Switch, default false, live Restart }
        /// Worker threads
        threads: u32 {
            N, takes Count(1, 1_024), default processors(), shown "one per processor", live Restart
        }
    }

    /// How long something may take.
    timeouts: TimeoutSettings "Time-outs" {
        /// The longest that a call without a nearer deadline may take
        timeout: Option<Duration> {
            DUR, takes DurationOrNone("no bound", HOUR_MS), default Some(Duration::from_secs(5)), live NextCall
        }
        /// How long a draining node still answers, below --drain-deadline
        lame_duck: Duration {
            DUR, takes DurationOrNone("no pause", HOUR_MS), default Duration::ZERO, live NextDrain
        }
        /// After how long a drain cuts off what still runs
        drain_deadline: Duration {
            DUR, takes Kind::Duration(1, HOUR_MS), default Duration::from_secs(8), live NextDrain
        }
        /// How long a new connection may say nothing
        first_byte_timeout: Duration {
            DUR, takes Kind::Duration(10, HOUR_MS / 6), default Duration::from_secs(5), live NextConnection
        }
        /// How long a client may read nothing of an answer that waits for it
        stall_timeout: Duration {
            DUR, takes Kind::Duration(10, HOUR_MS / 6), default Duration::from_secs(10), live NextConnection
        }
    }

    /// The longest and the most that a node takes.
    limits: LimitSettings "Limits" {
        /// Longest key
        max_key: ByteSize {
            SIZE, takes Size(1, KEY_BYTES_MAX as u64), default ByteSize(KEY_BYTES_MAX as u64), live NextRequest
        }
        /// Longest value, within the message limits and --memory
        max_value: ByteSize {
            SIZE, takes Size(1, VALUE_BYTES_MAX as u64), default ByteSize::mib(1), live NextRequest
        }
        /// Longest message taken in
        max_message_in: ByteSize {
            SIZE, takes Size(1 << 10, MESSAGE_BYTES_MAX as u64), default ByteSize::mib(4), live NextRequest
        }
        /// Longest message sent out; stock clients receive no more than the default
        max_message_out: ByteSize {
            SIZE, takes Size(1 << 10, MESSAGE_BYTES_MAX as u64), default MESSAGE_OUT, live NextRequest
        }
        /// Most bytes of answers that clients have yet to read, at least twice --max-message-out
        max_response_backlog: ByteSize {
            SIZE, takes Size(1 << 20, 1 << 40),
            default ByteSize(MemoryPlan::of(memory::default_bytes()).answer_bytes_for(MESSAGE_OUT.0)),
            shown "by --memory, up to 32MiB", live NextCall
        }
        /// Most items of a batch, commands of a Pipeline message, items of a page
        max_batch: u32 { N, takes Count(1, 1_000_000), default 10_000, live NextRequest }
        /// Longest content type
        max_content_type: ByteSize {
            SIZE, takes Size(1, CONTENT_TYPE_BYTES_MAX as u64), default ByteSize(CONTENT_TYPE_BYTES_MAX as u64),
            live NextRequest
        }
        /// Most tags of an entry
        max_tags: u32 { N, takes Count(0, TAGS_MAX as u64), default TAGS_MAX as u32, live NextRequest }
        /// Longest tag
        max_tag: ByteSize {
            SIZE, takes Size(1, TAG_BYTES_MAX as u64), default ByteSize(TAG_BYTES_MAX as u64), live NextRequest
        }
        /// Longest time to live
        max_ttl: Duration {
            DUR, takes Kind::Duration(1, TTL_MS_MAX), default Duration::from_millis(TTL_MS_MAX), live NextRequest
        }
        /// Most namespaces, the default one counted
        max_namespaces: u32 {
            N, takes Count(1, NAMESPACES_MAX as u64), default NAMESPACES_MAX as u32, live NextRequest
        }
        /// Most open connections on the data listeners, and no more than the limit on open files leaves
        max_connections: u32 { N, takes Count(1, 1_000_000), default 4_096, live NextConnection }
        /// Most calls that may wait at a time; more are turned away
        max_in_flight: u32 { N, takes Count(1, 1_000_000), default 8_192, live NextCall }
        /// Most Watch streams, on all connections together
        max_watchers: u32 { N, takes Count(0, 100_000), default 1_000, live NextCall }
        /// Most HTTP/2 streams of a connection; of those beyond the 64th less, down to 32, so that all together have about 64 × N
        max_streams: u32 { N, takes Count(1, 1_024), default 256, live NextConnection }
    }

    /// What a node says of itself.
    telemetry: TelemetrySettings "Telemetry" {
        /// How often the figures are logged
        stats_interval: Option<Duration> {
            DUR, takes DurationOrNone("never", 24 * HOUR_MS), default Some(Duration::from_secs(60)), live AtOnce
        }
        /// What a call may take before it is kept as slow
        slow_op: Option<Duration> {
            DUR, takes DurationOrNone("none are kept", HOUR_MS), default Some(Duration::from_millis(10)),
            live NextCall
        }
        /// How a log line is written, on stderr
        log_format: LogFormat { FORMAT, takes Choice(&["text", "json"]), default LogFormat::Text, live Restart }
        /// What is logged: off, error, warn, info, debug, trace, or a list such as info,larder=debug
        log: String { FILTER, takes Text(1, 4_096), default "info".to_owned(), live AtOnce }
        /// Where traces go: the http:// URL of an OpenTelemetry (OTLP over gRPC) collector
        otlp: Option<Redacted> {
            URL, takes Parsed("the URL of a collector such as http://127.0.0.1:4317"), default None,
            shown "nowhere", live Restart
        }
        /// Share of the calls without a traced caller that are traced; needs --otlp
        trace_sample: f64 { RATIO, takes Ratio, default 0.0, live Restart }
    }

    not served {
        /// Where missing keys are loaded from
        origin: String { SPEC, "Cache", NO_ORIGIN }
        /// Who the members are
        members: String { SPEC, "Cluster", NO_CLUSTER }
        /// Points on the ring for each 1 of weight
        ring_points: u32 { N, "Cluster", NO_CLUSTER }
        /// After what absence a member's state counts as lost
        absence_after: Duration { DUR, "Cluster", NO_CLUSTER }
        /// How long a planned restart may take and stay warm
        restart_grace: Duration { DUR, "Cluster", NO_CLUSTER }
        /// Longest time to live of a guest entry
        guest_ttl: Duration { DUR, "Cluster", NO_CLUSTER }
        /// File with the key that the members share
        cluster_key: String { FILE, "Cluster", NO_CLUSTER }
    }
}

const HOUR_MS: u64 = 3_600_000;
const A_URL: &str = "a URL such as tcp://127.0.0.1:7400 or tcp://[::1]:0";
const RECOVERIES: &[&str] = &["snapshot+journal", "snapshot", "journal", "lazy", "empty"];
/// What a limit on the disk leaves room for at the least: a snapshot, what comes after it and what the journal keeps for
/// itself.
const DISK_LIMIT_BYTES_MIN: u64 = 4 << 20;
/// The longest message that stock clients receive.
const MESSAGE_OUT: ByteSize = ByteSize::mib(4);
pub(super) const NO_ORIGIN: &str = "it loads missing keys from nowhere";
const NO_CLUSTER: &str = "its nodes do not form a cluster";

/// A port of loopback, so that nothing is exposed unasked.
fn loopback(port: u16) -> Endpoint {
    Endpoint::tcp("127.0.0.1", port)
}

fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |number| u32::try_from(number.get()).unwrap_or(u32::MAX))
}
