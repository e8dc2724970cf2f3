//! What a setting is when nobody says anything.

use super::Persistence;
use crate::engine::PolicyName;
use crate::entry::{
    CONTENT_TYPE_BYTES_MAX, KEY_BYTES_MAX, NAMESPACES_MAX, TAG_BYTES_MAX, TAGS_MAX, TTL_MS_MAX,
};

/// `--listen`: this port on loopback, as all listeners, so that nothing is exposed unasked.
pub const LISTEN_PORT: u16 = 7400;
/// `--admin`.
pub const ADMIN_PORT: u16 = 7401;
/// `--health`.
pub const HEALTH_PORT: u16 = 7402;
/// `--http`.
pub const HTTP_PORT: u16 = 7403;
/// `--data-dir`, from the working directory.
pub const DATA_DIR: &str = "./larder-data";
/// `--persistence`: a restart is warm unless somebody says that it need not be.
pub const PERSISTENCE: Persistence = Persistence::JournalAndSnapshot;
/// How long a change may wait for the disk, in ms.
pub const FLUSH_INTERVAL_MS: u64 = 100;
/// How often a snapshot is taken, in ms: five minutes.
pub const SNAPSHOT_INTERVAL_MS: u64 = 300_000;
/// The least that `--disk-limit` can be: a snapshot, what comes after it and what the journal keeps for itself.
pub const DISK_LIMIT_BYTES_MIN: u64 = 4 << 20;
/// The least that `--memory` can be: what the engine needs to be one.
pub const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// `--memory` is at least this where it is not given.
pub const MEMORY_BYTES_UNASKED_MIN: u64 = 64 << 20;
/// `--policy`.
pub const POLICY: PolicyName = PolicyName::Adaptive;
/// `--weight`.
pub const WEIGHT: u32 = 1;
/// `--timeout`: 5 s.
pub const TIMEOUT_MS: u64 = 5_000;
/// `--stats-interval`: 60 s.
pub const STATS_INTERVAL_MS: u64 = 60_000;
/// `--lame-duck`: no pause.
pub const LAME_DUCK_MS: u64 = 0;
/// `--drain-deadline`: 8 s, so that a process is gone within 10 s of SIGTERM.
pub const DRAIN_DEADLINE_MS: u64 = 8_000;
/// `--first-byte-timeout`: 5 s.
pub const FIRST_BYTE_TIMEOUT_MS: u64 = 5_000;
/// `--stall-timeout`: 10 s.
pub const STALL_TIMEOUT_MS: u64 = 10_000;
/// `--max-key`: 4 KiB.
pub const MAX_KEY_BYTES: u64 = KEY_BYTES_MAX as u64;
/// `--max-value`: 1 MiB.
pub const MAX_VALUE_BYTES: u64 = 1 << 20;
/// `--max-message-in`: 4 MiB.
pub const MAX_MESSAGE_IN_BYTES: u64 = 4 << 20;
/// `--max-message-out`: 4 MiB, which is the most that stock clients receive.
pub const MAX_MESSAGE_OUT_BYTES: u64 = 4 << 20;
/// The most that `--max-response-backlog` is where it is not given: 32 MiB, eight answers of the longest kind. With little
/// memory it is less: [`MemoryPlan`](super::MemoryPlan).
pub const MAX_RESPONSE_BACKLOG_BYTES: u64 = 32 << 20;
/// `--max-batch`.
pub const MAX_BATCH: u32 = 10_000;
/// `--max-content-type`.
pub const MAX_CONTENT_TYPE_BYTES: u64 = CONTENT_TYPE_BYTES_MAX as u64;
/// `--max-tags`.
pub const MAX_TAGS: u32 = TAGS_MAX as u32;
/// `--max-tag`.
pub const MAX_TAG_BYTES: u64 = TAG_BYTES_MAX as u64;
/// `--max-namespaces`.
pub const MAX_NAMESPACES: u32 = NAMESPACES_MAX as u32;
/// `--max-ttl`: 100 years.
pub const MAX_TTL_MS: u64 = TTL_MS_MAX;
/// `--max-connections`.
pub const MAX_CONNECTIONS: u32 = 4_096;
/// `--max-in-flight`.
pub const MAX_IN_FLIGHT: u32 = 8_192;
/// `--max-streams`.
pub const MAX_STREAMS: u32 = 256;
/// `--slow-op`: 10 ms.
pub const SLOW_OP_MS: u64 = 10;
/// `--log`.
pub const LOG: &str = "info";
/// `--trace-sample`: only what a caller traces is traced.
pub const TRACE_SAMPLE: f64 = 0.0;
