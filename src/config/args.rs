//! The flags of `larder serve`, as text.
//!
//! Every flag is optional and kept as it was written: values are parsed in one place ([`super::setting`]) for
//! flags, variables and the file alike, so that the same mistake reads the same wherever it was made. The
//! variables are not left to clap's `env`, which would neither name the variable in an error nor let a test
//! set one (`std::env::set_var` is unsafe).

use std::fmt;

use clap::Args;

/// What `larder serve` takes.
#[derive(Clone, Default, PartialEq, Eq, Args)]
#[command(
    after_help = "Sizes are written 64MiB, 64Mi or as a number of bytes, durations 250ms, 5s or 1h. Every flag \
    but --check is also a variable, \
    --data-dir is LARDER_DATA_DIR, and a key of the --config file, data-dir = \"…\". Flags override variables, \
    variables override the file. Port 0 picks a free port."
)]
pub struct ServeArgs {
    /// TOML file with settings; its keys are the flags' names. Default: none
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// Print what would be in force and exit, 0 if it can be served and 2 if not: checks all settings, the data
    /// directory and the addresses, with --check=settings the settings alone. Default: serve
    #[arg(
        long,
        value_name = "WHAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "all",
        value_parser = ["all", "settings"]
    )]
    pub check: Option<String>,

    /// Data listener, tcp://HOST:PORT or unix:///PATH; may be repeated. Default: tcp://127.0.0.1:7400
    #[arg(long, value_name = "URL", value_delimiter = ',', help_heading = "Listeners")]
    pub listen: Vec<String>,
    /// Admin listener. Default: tcp://127.0.0.1:7401
    #[arg(long, value_name = "URL", help_heading = "Listeners")]
    pub admin: Option<String>,
    /// Health listener, on a thread of its own. Default: tcp://127.0.0.1:7402
    #[arg(long, value_name = "URL", help_heading = "Listeners")]
    pub health: Option<String>,
    /// HTTP listener for /livez, /readyz and /metrics, HOST:PORT. Default: 127.0.0.1:7403
    #[arg(long, value_name = "ADDR", help_heading = "Listeners")]
    pub http: Option<String>,
    /// Allow data and admin listeners beyond loopback without TLS and authentication. Default: false
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Listeners"
    )]
    pub insecure: Option<String>,

    /// Bytes that keys, values and their bookkeeping may take, 1MiB or more. Default: a quarter of what the
    /// process may use (cgroups counted), at least 64MiB
    #[arg(long, value_name = "SIZE", help_heading = "Cache")]
    pub memory: Option<String>,
    /// Shards of the engine, 1 to 1024, rounded up to a power of two. Default: by memory and processors
    #[arg(long, value_name = "N", help_heading = "Cache")]
    pub shards: Option<String>,
    /// Eviction policy: lru, lfu, fifo, sieve, s3-fifo, w-tinylfu, arc or adaptive. Default: adaptive
    #[arg(long, value_name = "NAME", help_heading = "Cache")]
    pub policy: Option<String>,

    /// Directory for everything on disk. Default: ./larder-data
    #[arg(long, value_name = "DIR", help_heading = "Persistence")]
    pub data_dir: Option<String>,
    /// none, journal, snapshot, journal+snapshot or store. Default: journal+snapshot
    #[arg(long, value_name = "MODE", help_heading = "Persistence")]
    pub persistence: Option<String>,
    /// What the catalogue on disk lies in: sled or files. Default: sled
    #[arg(long, value_name = "NAME", help_heading = "Persistence")]
    pub backend: Option<String>,
    /// buffered or flushed: what a write that asks for nothing waits for. Default: buffered
    #[arg(long, value_name = "DURABILITY", help_heading = "Persistence")]
    pub durability: Option<String>,
    /// How long a change may wait for the disk: after a crash, what is younger may be lost. Default: 100ms
    #[arg(long, value_name = "DUR", help_heading = "Persistence")]
    pub flush_interval: Option<String>,
    /// How often a snapshot is taken, if anything has changed. Default: 5m
    #[arg(long, value_name = "DUR", help_heading = "Persistence")]
    pub snapshot_interval: Option<String>,
    /// Limit on bytes on disk, above which writes are refused, 4MiB or more; 0: none. Default: 0
    #[arg(long, value_name = "SIZE", help_heading = "Persistence")]
    pub disk_limit: Option<String>,
    /// How the content comes back: snapshot+journal, snapshot, journal, lazy or empty. Default:
    /// snapshot+journal
    #[arg(long, value_name = "METHOD", help_heading = "Persistence")]
    pub recovery: Option<String>,

    /// The node's id, 1 to 255 bytes. Default: the advertised URL
    #[arg(long, value_name = "ID", help_heading = "Node")]
    pub node_id: Option<String>,
    /// URL under which others reach the node. Default: the first data listener's
    #[arg(long, value_name = "URL", help_heading = "Node")]
    pub advertise: Option<String>,
    /// The node's share of the ring, 1 to 1000. Default: 1
    #[arg(long, value_name = "N", help_heading = "Node")]
    pub weight: Option<String>,
    /// Where the node stands, up to 255 bytes. Default: not said
    #[arg(long, value_name = "NAME", help_heading = "Node")]
    pub zone: Option<String>,
    /// Who the members are; not served by this build yet
    #[arg(long, value_name = "SPEC", help_heading = "Cluster")]
    pub members: Option<String>,
    /// Points on the ring for each 1 of weight; not served by this build yet
    #[arg(long, value_name = "N", help_heading = "Cluster")]
    pub ring_points: Option<String>,
    /// After what absence a member's state counts as lost; not served by this build yet
    #[arg(long, value_name = "DUR", help_heading = "Cluster")]
    pub absence_after: Option<String>,
    /// How long a planned restart may take and stay warm; not served by this build yet
    #[arg(long, value_name = "DUR", help_heading = "Cluster")]
    pub restart_grace: Option<String>,
    /// Longest time to live of a guest entry; not served by this build yet
    #[arg(long, value_name = "DUR", help_heading = "Cluster")]
    pub guest_ttl: Option<String>,
    /// File with the key that the members share; not served by this build yet
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub cluster_key: Option<String>,
    /// Where missing keys are loaded from; not served by this build yet
    #[arg(long, value_name = "SPEC", help_heading = "Cache")]
    pub origin: Option<String>,

    /// Start without serving: wait for `larder admin spawn`. Default: false
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Life cycle"
    )]
    pub standby: Option<String>,
    /// The longest that a call without a nearer deadline may take, up to 1h; 0 = no bound. Default: 5s
    #[arg(long, value_name = "DUR", help_heading = "Life cycle")]
    pub timeout: Option<String>,
    /// How long a draining node still answers, below --drain-deadline; 0 = no pause. Default: 0
    #[arg(long, value_name = "DUR", help_heading = "Life cycle")]
    pub lame_duck: Option<String>,
    /// After how long a drain cuts off what still runs, 1ms to 1h. Default: 8s
    #[arg(long, value_name = "DUR", help_heading = "Life cycle")]
    pub drain_deadline: Option<String>,
    /// How long a new connection may say nothing, 10ms to 10m. Default: 5s
    #[arg(long, value_name = "DUR", help_heading = "Life cycle")]
    pub first_byte_timeout: Option<String>,
    /// How long a client may read nothing of an answer that waits for it, 10ms to 10m. Default: 10s
    #[arg(long, value_name = "DUR", help_heading = "Life cycle")]
    pub stall_timeout: Option<String>,
    /// Worker threads, 1 to 1024. Default: one per processor
    #[arg(long, value_name = "N", help_heading = "Life cycle")]
    pub threads: Option<String>,

    /// Longest key, 1B to 4KiB. Default: 4KiB
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    pub max_key: Option<String>,
    /// Longest value, 1B to 1GiB, within the message limits and --memory. Default: 1MiB
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    pub max_value: Option<String>,
    /// Longest message taken in, 1KiB to 2GiB. Default: 4MiB
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    pub max_message_in: Option<String>,
    /// Longest message sent out, 1KiB to 2GiB. Default: 4MiB
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    pub max_message_out: Option<String>,
    /// Most bytes of answers that clients have yet to read, 1MiB to 1TiB, twice --max-message-out or more. Default: by --memory, up to 32MiB
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    pub max_response_backlog: Option<String>,
    /// Most items of a batch, commands of a Pipeline message, items of a page; 1 to 1000000. Default: 10000
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub max_batch: Option<String>,
    /// Longest content type, 1B to 255B. Default: 255B
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    pub max_content_type: Option<String>,
    /// Most tags of an entry, 0 to 16. Default: 16
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub max_tags: Option<String>,
    /// Longest tag, 1B to 255B. Default: 255B
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    pub max_tag: Option<String>,
    /// Longest time to live, 1ms to 100years. Default: 100years
    #[arg(long, value_name = "DUR", help_heading = "Limits")]
    pub max_ttl: Option<String>,
    /// Most namespaces, the default one counted, 1 to 1024. Default: 1024
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub max_namespaces: Option<String>,
    /// Most open connections on the data listeners, 1 to 1000000, and no more than the limit on open files leaves. Default: 4096
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub max_connections: Option<String>,
    /// Most calls that may wait at a time, 1 to 1000000; more are turned away. Default: 8192
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub max_in_flight: Option<String>,
    /// Most HTTP/2 streams of a connection, 1 to 1024. Default: 256
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub max_streams: Option<String>,

    /// How often the figures are logged, up to 24h; 0 = never. Default: 60s
    #[arg(long, value_name = "DUR", help_heading = "Telemetry")]
    pub stats_interval: Option<String>,
    /// What a call may take before it is kept as slow, up to 1h; 0 = none are kept. Default: 10ms
    #[arg(long, value_name = "DUR", help_heading = "Telemetry")]
    pub slow_op: Option<String>,
    /// text or json, on stderr. Default: text
    #[arg(long, value_name = "FORMAT", help_heading = "Telemetry")]
    pub log_format: Option<String>,
    /// What is logged: off, error, warn, info, debug, trace, or a list such as info,larder=debug. Default: info
    #[arg(long, value_name = "FILTER", help_heading = "Telemetry")]
    pub log: Option<String>,
    /// Where traces go: the http:// URL of an OpenTelemetry (OTLP over gRPC) collector. Default: nowhere
    #[arg(long, value_name = "URL", help_heading = "Telemetry")]
    pub otlp: Option<String>,
    /// Share of the calls without a traced caller that are traced, 0 to 1; needs --otlp. Default: 0
    #[arg(long, value_name = "RATIO", help_heading = "Telemetry")]
    pub trace_sample: Option<String>,
}

impl fmt::Debug for ServeArgs {
    /// Nothing of what was given: as long as it is not parsed, any of it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeArgs").finish_non_exhaustive()
    }
}
