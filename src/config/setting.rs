//! The settings: every name, what kind of value it takes and between which bounds, in one table.
//!
//! A setting's name is its flag and its key in the file; its variable is derived from it. Values are parsed
//! from text here and nowhere else.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::defaults;
use crate::engine::PolicyName;
use crate::entry::{
    ByteSize, CONTENT_TYPE_BYTES_MAX, KEY_BYTES_MAX, MESSAGE_BYTES_MAX, NAMESPACES_MAX, TAG_BYTES_MAX,
    TAGS_MAX, TTL_MS_MAX, VALUE_BYTES_MAX, duration_text,
};
use crate::redacted::Redacted;

/// One setting of `larder serve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The flag without its dashes, and the key in the file: `max-value`.
    pub flag: &'static str,
    /// The field of the proto's `Config`: `max_value_bytes`.
    pub field: &'static str,
    /// Whether it can be changed while a node serves.
    pub live: bool,
    pub(super) kind: Kind,
}

/// What a setting's value may be; numbers are inclusive bounds, in bytes, milliseconds or plainly counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Size(u64, u64),
    /// Or 0, which stands for none.
    SizeOrNone(u64, u64),
    Duration(u64, u64),
    Count(u64, u64),
    Ratio,
    Switch,
    Choice(&'static [&'static str]),
    /// And words that the design knows and this build does not serve.
    ServedChoice(&'static [&'static str], &'static [&'static str]),
    Policy,
    /// Text of so many bytes; the least is 0 or 1.
    Text(usize, usize),
    /// Something that a type of its own parses; what it is called and an example.
    Parsed(&'static str),
    /// Several of those.
    List(&'static str),
    /// The design knows it and this build does not serve it; what has to come first.
    NotServed(&'static str),
}

/// What is wrong with a text, to be followed by what is allowed.
pub(super) type Problem = &'static str;

impl Setting {
    const fn of(flag: &'static str, field: &'static str, kind: Kind) -> Self {
        Self { flag, field, live: false, kind }
    }

    const fn live(flag: &'static str, field: &'static str, kind: Kind) -> Self {
        Self { flag, field, live: true, kind }
    }

    /// Whether this build serves it.
    #[must_use]
    pub fn is_served(&self) -> bool {
        !matches!(self.kind, Kind::NotServed(_))
    }

    /// The least and the most of its number, in the unit of its field.
    pub(super) fn bounds(&self) -> Option<RangeInclusive<u64>> {
        match self.kind {
            Kind::Size(min, max) | Kind::Duration(min, max) | Kind::Count(min, max) => Some(min..=max),
            Kind::SizeOrNone(_, max) => Some(0..=max),
            _ => None,
        }
    }

    /// Its variable: `LARDER_MAX_VALUE`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("LARDER_{}", self.flag.to_ascii_uppercase().replace('-', "_"))
    }

    /// What was given for it, to be kept so that no secret in it is shown.
    pub(super) fn redacted(&self, text: &str) -> Redacted {
        // A file's name is asked for: who gives the key itself is not to find it in the log.
        if *self == CLUSTER_KEY { Redacted::secret(text) } else { Redacted::new(text) }
    }

    /// What its value may be, to follow "give".
    pub(super) fn allowed(&self) -> String {
        let duration = |ms| duration_text(Duration::from_millis(ms));
        match self.kind {
            Kind::Size(min, max) => {
                format!("a size from {} to {}, such as 64MiB or 1000B", ByteSize(min), ByteSize(max))
            }
            Kind::SizeOrNone(min, _) => {
                format!("0 for none, or a size from {}, such as 64MiB or 10GiB", ByteSize(min))
            }
            Kind::Duration(0, max) => {
                format!("0 or a duration up to {}, such as 250ms, 5s or 1h", duration(max))
            }
            Kind::Duration(min, max) => {
                format!("a duration from {} to {}, such as 250ms, 5s or 1h", duration(min), duration(max))
            }
            Kind::Count(min, max) => format!("a whole number from {min} to {max}"),
            Kind::Ratio => "a number from 0 to 1".to_owned(),
            Kind::Switch => "true or false".to_owned(),
            Kind::Choice(words) | Kind::ServedChoice(words, _) => one_of(words),
            Kind::Policy => one_of(&PolicyName::ALL.map(PolicyName::as_str)),
            Kind::Text(0, max) => format!("text of up to {max} bytes without control characters"),
            Kind::Text(min, max) => format!("text of {min} to {max} bytes without control characters"),
            Kind::Parsed(what) | Kind::List(what) => what.to_owned(),
            Kind::NotServed(_) => "nothing: leave it out".to_owned(),
        }
    }

    /// The words that its value may be, where it is one of a few.
    #[must_use]
    pub fn words(&self) -> Vec<&'static str> {
        match self.kind {
            Kind::Choice(words) | Kind::ServedChoice(words, _) => words.to_vec(),
            Kind::Policy => PolicyName::ALL.map(PolicyName::as_str).to_vec(),
            _ => Vec::new(),
        }
    }

    /// The number of bytes, milliseconds or things that a text says.
    pub(super) fn number(&self, text: &str) -> Result<u64, Problem> {
        let (number, min, max) = match self.kind {
            Kind::Size(min, max) => (text.parse::<ByteSize>().map_err(|bad| bad.problem)?.0, min, max),
            Kind::SizeOrNone(min, max) => match text.parse::<ByteSize>() {
                Ok(ByteSize(0)) => return Ok(0),
                Ok(size) => (size.0, min, max),
                Err(bad) => return Err(bad.problem),
            },
            Kind::Duration(min, max) => (milliseconds(text)?, min, max),
            Kind::Count(min, max) => (whole_number(text)?, min, max),
            _ => return Err("is no number"),
        };
        match number {
            n if n < min => Err("is too little"),
            n if n > max => Err("is too much"),
            n => Ok(n),
        }
    }

    /// Whether a text switches on or off.
    pub(super) fn switch(text: &str) -> Result<bool, Problem> {
        match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("is neither on nor off"),
        }
    }

    /// The share that a text says.
    pub(super) fn ratio(text: &str) -> Result<f64, Problem> {
        match text.parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
            Ok(_) => Err("is out of bounds"),
            Err(_) => Err("is no number"),
        }
    }

    /// The text, if it is one of the words or has a length that is allowed.
    pub(super) fn word<'t>(&self, text: &'t str) -> Result<&'t str, Problem> {
        match self.kind {
            Kind::Choice(words) if !words.contains(&text) => Err("is not known"),
            Kind::ServedChoice(words, others) if !words.contains(&text) && !others.contains(&text) => {
                Err("is not known")
            }
            Kind::Text(min, _) if text.len() < min => Err("is empty"),
            Kind::Text(_, max) if text.len() > max => Err("is too long"),
            Kind::Text(..) if text.chars().any(char::is_control) => Err("has control characters"),
            _ => Ok(text),
        }
    }
}

fn one_of(words: &[&str]) -> String {
    match words {
        [most @ .., last] if !most.is_empty() => format!("{} or {last}", most.join(", ")),
        words => words.concat(),
    }
}

fn whole_number(text: &str) -> Result<u64, Problem> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("is no whole number");
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

fn milliseconds(text: &str) -> Result<u64, Problem> {
    let duration = humantime::parse_duration(text).map_err(|_| "is no duration with a unit")?;
    if duration.subsec_nanos() % 1_000_000 != 0 {
        return Err("is finer than a millisecond");
    }
    Ok(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// The name that resembles another most, among those of all settings, if any does.
pub(super) fn nearest(wanted: &str, name: impl Fn(&Setting) -> &'static str) -> Option<&'static str> {
    // What is much longer resembles none, and a caller of Admin may send what it likes.
    if wanted.len() > NAME_BYTES_MAX {
        return None;
    }
    SETTINGS
        .iter()
        .map(|setting| (strsim::jaro_winkler(wanted, name(setting)), name(setting)))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, name)| name)
}

/// How alike two names must be, 0 to 1 (Jaro-Winkler), for one to be offered for the other.
const LIKENESS_MIN: f64 = 0.75;
/// Twice as long as the longest name of a setting.
const NAME_BYTES_MAX: usize = 64;

const HOUR_MS: u64 = 3_600_000;
const URL: &str = "a URL such as tcp://127.0.0.1:7400 or tcp://[::1]:0";
const CLUSTER: &str = "its nodes do not form a cluster";

pub(super) const LISTEN: Setting = Setting::of("listen", "listen", Kind::List(URL));
pub(super) const ADMIN: Setting = Setting::of("admin", "admin", Kind::Parsed(URL));
pub(super) const HEALTH: Setting = Setting::of("health", "health", Kind::Parsed(URL));
pub(super) const HTTP: Setting =
    Setting::of("http", "http", Kind::Parsed("an address such as 127.0.0.1:7403 or [::1]:0"));
pub(super) const DATA_DIR: Setting = Setting::of("data-dir", "data_dir", Kind::Text(1, 4_096));
pub(super) const MEMORY: Setting =
    Setting::live("memory", "memory_bytes", Kind::Size(defaults::MEMORY_BYTES_MIN, 16 << 40));
pub(super) const SHARDS: Setting = Setting::of("shards", "shards", Kind::Count(1, 1_024));
pub(super) const POLICY: Setting = Setting::live("policy", "policy", Kind::Policy);
pub(super) const PERSISTENCE: Setting = Setting::of(
    "persistence",
    "persistence",
    Kind::Choice(&["none", "journal", "snapshot", "journal+snapshot", "store"]),
);
pub(super) const BACKEND: Setting = Setting::of("backend", "backend", Kind::Choice(&["sled", "files"]));
pub(super) const DURABILITY: Setting =
    Setting::of("durability", "durability", Kind::Choice(&["buffered", "flushed"]));
pub(super) const FLUSH_INTERVAL: Setting =
    Setting::of("flush-interval", "flush_interval_ms", Kind::Duration(1, 3_600_000));
pub(super) const SNAPSHOT_INTERVAL: Setting =
    Setting::of("snapshot-interval", "snapshot_interval_ms", Kind::Duration(1_000, 7 * 86_400_000));
pub(super) const DISK_LIMIT: Setting =
    Setting::of("disk-limit", "disk_limit_bytes", Kind::SizeOrNone(defaults::DISK_LIMIT_BYTES_MIN, u64::MAX));
pub(super) const RECOVERY: Setting = Setting::of(
    "recovery",
    "recovery",
    Kind::ServedChoice(&["snapshot+journal", "snapshot", "journal", "lazy", "empty"], &["keys+origin"]),
);
pub(super) const NODE_ID: Setting = Setting::of("node-id", "node_id", Kind::Text(1, 255));
pub(super) const ADVERTISE: Setting = Setting::of("advertise", "advertise", Kind::Parsed(URL));
pub(super) const WEIGHT: Setting = Setting::of("weight", "weight", Kind::Count(1, 1_000));
pub(super) const ZONE: Setting = Setting::of("zone", "zone", Kind::Text(0, 255));
pub(super) const MEMBERS: Setting = Setting::of("members", "members", Kind::NotServed(CLUSTER));
pub(super) const RING_POINTS: Setting = Setting::of("ring-points", "ring_points", Kind::NotServed(CLUSTER));
pub(super) const ABSENCE_AFTER: Setting =
    Setting::of("absence-after", "absence_after_ms", Kind::NotServed(CLUSTER));
pub(super) const RESTART_GRACE: Setting =
    Setting::of("restart-grace", "restart_grace_ms", Kind::NotServed(CLUSTER));
pub(super) const GUEST_TTL: Setting = Setting::of("guest-ttl", "guest_ttl_ms", Kind::NotServed(CLUSTER));
pub(super) const CLUSTER_KEY: Setting = Setting::of("cluster-key", "cluster_key", Kind::NotServed(CLUSTER));
pub(super) const ORIGIN: Setting =
    Setting::of("origin", "origin", Kind::NotServed("it loads missing keys from nowhere"));
pub(super) const TIMEOUT: Setting = Setting::live("timeout", "timeout_ms", Kind::Duration(0, HOUR_MS));
pub(super) const STATS_INTERVAL: Setting =
    Setting::live("stats-interval", "stats_interval_ms", Kind::Duration(0, 24 * HOUR_MS));
pub(super) const LAME_DUCK: Setting = Setting::live("lame-duck", "lame_duck_ms", Kind::Duration(0, HOUR_MS));
pub(super) const DRAIN_DEADLINE: Setting =
    Setting::live("drain-deadline", "drain_deadline_ms", Kind::Duration(1, HOUR_MS));
pub(super) const STANDBY: Setting = Setting::of("standby", "standby", Kind::Switch);
pub(super) const INSECURE: Setting = Setting::of("insecure", "insecure", Kind::Switch);
pub(super) const LOG_FORMAT: Setting =
    Setting::of("log-format", "log_format", Kind::Choice(&["text", "json"]));
pub(super) const MAX_KEY: Setting =
    Setting::live("max-key", "max_key_bytes", Kind::Size(1, KEY_BYTES_MAX as u64));
pub(super) const MAX_VALUE: Setting =
    Setting::live("max-value", "max_value_bytes", Kind::Size(1, VALUE_BYTES_MAX as u64));
pub(super) const MAX_MESSAGE_IN: Setting =
    Setting::live("max-message-in", "max_message_in_bytes", Kind::Size(1 << 10, MESSAGE_BYTES_MAX as u64));
pub(super) const MAX_MESSAGE_OUT: Setting =
    Setting::live("max-message-out", "max_message_out_bytes", Kind::Size(1 << 10, MESSAGE_BYTES_MAX as u64));
pub(super) const MAX_BATCH: Setting = Setting::live("max-batch", "max_batch", Kind::Count(1, 1_000_000));
pub(super) const MAX_CONTENT_TYPE: Setting =
    Setting::live("max-content-type", "max_content_type_bytes", Kind::Size(1, CONTENT_TYPE_BYTES_MAX as u64));
pub(super) const MAX_TAGS: Setting = Setting::live("max-tags", "max_tags", Kind::Count(0, TAGS_MAX as u64));
pub(super) const MAX_TAG: Setting =
    Setting::live("max-tag", "max_tag_bytes", Kind::Size(1, TAG_BYTES_MAX as u64));
pub(super) const MAX_TTL: Setting = Setting::live("max-ttl", "max_ttl_ms", Kind::Duration(1, TTL_MS_MAX));
pub(super) const MAX_NAMESPACES: Setting =
    Setting::live("max-namespaces", "max_namespaces", Kind::Count(1, NAMESPACES_MAX as u64));
pub(super) const MAX_CONNECTIONS: Setting =
    Setting::live("max-connections", "max_connections", Kind::Count(1, 1_000_000));
pub(super) const MAX_IN_FLIGHT: Setting =
    Setting::live("max-in-flight", "max_in_flight", Kind::Count(1, 1_000_000));
pub(super) const SLOW_OP: Setting = Setting::live("slow-op", "slow_op_ms", Kind::Duration(0, HOUR_MS));
pub(super) const MAX_STREAMS: Setting = Setting::live("max-streams", "max_streams", Kind::Count(1, 1_024));
pub(super) const FIRST_BYTE_TIMEOUT: Setting =
    Setting::live("first-byte-timeout", "first_byte_timeout_ms", Kind::Duration(10, HOUR_MS / 6));
pub(super) const STALL_TIMEOUT: Setting =
    Setting::live("stall-timeout", "stall_timeout_ms", Kind::Duration(10, HOUR_MS / 6));
pub(super) const MAX_RESPONSE_BACKLOG: Setting =
    Setting::live("max-response-backlog", "max_response_backlog_bytes", Kind::Size(1 << 20, 1 << 40));
pub(super) const THREADS: Setting = Setting::of("threads", "threads", Kind::Count(1, 1_024));
pub(super) const LOG: Setting = Setting::live("log", "log", Kind::Text(1, 4_096));
pub(super) const OTLP: Setting =
    Setting::of("otlp", "otlp", Kind::Parsed("the URL of a collector such as http://127.0.0.1:4317"));
pub(super) const TRACE_SAMPLE: Setting = Setting::of("trace-sample", "trace_sample", Kind::Ratio);

/// Every setting, in the order of the proto's `Config`.
pub const SETTINGS: [Setting; 54] = [
    LISTEN,
    ADMIN,
    HEALTH,
    HTTP,
    DATA_DIR,
    MEMORY,
    SHARDS,
    POLICY,
    PERSISTENCE,
    BACKEND,
    DURABILITY,
    FLUSH_INTERVAL,
    DISK_LIMIT,
    RECOVERY,
    NODE_ID,
    ADVERTISE,
    WEIGHT,
    ZONE,
    MEMBERS,
    RING_POINTS,
    ABSENCE_AFTER,
    RESTART_GRACE,
    GUEST_TTL,
    CLUSTER_KEY,
    ORIGIN,
    TIMEOUT,
    STATS_INTERVAL,
    LAME_DUCK,
    DRAIN_DEADLINE,
    STANDBY,
    INSECURE,
    LOG_FORMAT,
    MAX_KEY,
    MAX_VALUE,
    MAX_MESSAGE_IN,
    MAX_MESSAGE_OUT,
    MAX_BATCH,
    MAX_CONTENT_TYPE,
    MAX_TAGS,
    MAX_TAG,
    MAX_TTL,
    MAX_NAMESPACES,
    MAX_CONNECTIONS,
    MAX_IN_FLIGHT,
    SLOW_OP,
    MAX_STREAMS,
    FIRST_BYTE_TIMEOUT,
    THREADS,
    LOG,
    OTLP,
    TRACE_SAMPLE,
    STALL_TIMEOUT,
    MAX_RESPONSE_BACKLOG,
    SNAPSHOT_INTERVAL,
];
