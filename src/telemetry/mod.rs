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

pub mod calls;
pub mod exposition;
pub mod log;
pub mod metrics;
pub mod node_stats;
pub mod process;
pub mod slow;
pub mod trace;

pub use calls::CallMetrics;
pub(crate) use calls::stripe_number;
pub use exposition::Format;

pub use metrics::Metrics;
pub use node_stats::{DiskFigures, DiskTierFigures, JournalFigures, NodeStats};
pub use slow::{Recalled, SlowCalls, SlowOps};
