//! What a node tells of itself: figures, logs and traces.
//!
//! - [`calls`]: calls counted and timed, by method and status, without contention between worker threads.
//! - [`snapshot`]: the figures of one moment. /metrics, the stats log and GetStats all read this, so they agree.
//! - [`metrics`]: every metric's name, unit and meaning. [`exposition`]: the text formats that they are shown in.
//! - [`log`]: logs on stderr, the stats line, and how keys are made harmless in them.
//! - [`slow`]: the latest calls that took too long.
//! - [`trace`]: OpenTelemetry spans for calls that somebody traces; a call that nobody traces pays for none.
//!
//! Nothing here decides anything. It is handed numbers and closures, and knows neither the engine's inside nor
//! the server.

pub(crate) mod calls;
pub(crate) mod exposition;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod node_stats;
pub(crate) mod process;
pub(crate) mod slow;
pub(crate) mod trace;

pub(crate) use calls::CallMetrics;
pub(crate) use calls::stripe_number;
pub(crate) use exposition::Format;

pub(crate) use metrics::Metrics;
pub(crate) use node_stats::{DiskFigures, DiskTierFigures, JournalFigures, NodeStats};
pub(crate) use slow::{CallDescription, SlowCalls, SlowOps};
pub(crate) use trace::{CallSpan, CallTracer};
