//! Logs: on stderr, as text for people or as one JSON object a line; stdout is for the ready line alone.
//!
//! ```text
//!   tracing ── level, filter ── RepeatLimit ── text or JSON ─┐
//!   panics ──▶ tracing                                       ├─▶ LogWriter (a thread) ──▶ stderr
//!   the error that the program ends with ────────────────────┘
//! ```
//!
//! A log that cannot be written costs lines, which are counted ([`lines_lost`]), and never a call, a probe or a shutdown:
//! nothing else of a node writes to stderr, and it writes to stdout in the same way ([`print()`]).

mod panics;
mod repeats;
mod streams;
mod writer;

use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::time::Instant;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use repeats::RepeatLimit;
#[cfg(any(feature = "cli", test))]
pub(crate) use streams::{draw, print, start_streams, write_error};
pub(crate) use streams::{flush, lines_lost};

use super::node_stats::{NodeStats, operations};
use crate::config::LogFormat;
use crate::redacted::Redacted;

/// Why logs cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LogError {
    /// The filter is none.
    #[error(
        "--log {filter:?} is no filter ({reason}); give a level, such as info, or a list, such as info,larder=debug"
    )]
    BadFilter {
        /// What was given.
        filter: Redacted,
        /// What is wrong with it.
        reason: Redacted,
    },
    /// The process logs already.
    #[error("logging is set up already in this process; set it up once, at the start")]
    AlreadySet,
    /// The program that the node runs in logs as it likes.
    #[error("this process's logs are not the node's to change: it runs inside another program")]
    NotOurs,
    /// The operating system has no thread to give.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(#[from] io::Error),
}

/// Exchanges the filter of the process's logs.
type SetFilter = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

/// A process has one log; this is how to change what is in it, once [`init`] has set it up.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Sends the process's logs, and its panics with them, to stderr from now on, coloured if it is a terminal and the format
/// is text.
///
/// # Errors
/// [`LogError`]: the filter is none, or this is not the first call.
pub(crate) fn init(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let writer = streams::stderr()?.clone();
    let (subscriber, set_filter) = subscriber(format, filter, io::stderr().is_terminal(), writer)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadySet)?;
    panics::log_panics();
    SET_FILTER.set(set_filter).map_err(|_| LogError::AlreadySet)
}

/// Whether a filter is one.
///
/// # Errors
/// [`LogError::BadFilter`].
pub(crate) fn check_filter(filter: &str) -> Result<(), LogError> {
    parse(filter).map(drop)
}

/// Changes what is logged from now on.
///
/// # Errors
/// [`LogError`]: the filter is none, or the logs are not those of [`init`].
pub(crate) fn set_filter(filter: &str) -> Result<(), LogError> {
    let filter = parse(filter)?;
    match SET_FILTER.get() {
        Some(set) if set(filter) => Ok(()),
        _ => Err(LogError::NotOurs),
    }
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(filter)
        .map_err(|error| LogError::BadFilter { filter: filter.into(), reason: error.to_string().into() })
}

fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    coloured: bool,
    writer: W,
) -> Result<(Box<dyn Subscriber + Send + Sync>, SetFilter), LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parse(filter)?)
        .with_writer(writer)
        .with_ansi(coloured)
        // They would be printed with eprintln!, which panics where stderr is gone.
        .log_internal_errors(false);
    let limit = RepeatLimit::default();
    Ok(match format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            (Box::new(builder.finish().with(limit)), Box::new(move |filter| handle.reload(filter).is_ok()))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            (Box::new(builder.finish().with(limit)), Box::new(move |filter| handle.reload(filter).is_ok()))
        }
    })
}

/// Writes the `stats` line, and remembers the last one for the rates.
#[derive(Debug)]
pub(crate) struct StatsLog {
    last: Instant,
    last_operations: u64,
    last_hits: u64,
    last_misses: u64,
}

impl StatsLog {
    /// Rates count from `now`, when nothing has been done yet.
    #[must_use]
    pub(crate) fn new(now: Instant) -> Self {
        Self { last: now, last_operations: 0, last_hits: 0, last_misses: 0 }
    }

    /// Logs the figures: counters since the start, as /metrics has them, and what was done since the last line.
    pub(crate) fn line(&mut self, snapshot: &NodeStats, now: Instant) {
        let stats = &snapshot.stats;
        let (operations, misses) = (operations(stats), stats.misses());
        let seconds = now.saturating_duration_since(self.last).as_secs_f64();
        let done = operations.saturating_sub(self.last_operations);
        let recent_hits = stats.hits.saturating_sub(self.last_hits);
        let recent_misses = misses.saturating_sub(self.last_misses);
        tracing::info!(
            target: "larder::stats",
            state = snapshot.state,
            policy = snapshot.policy.as_str(),
            hits = stats.hits,
            misses,
            hit_ratio = ratio(stats.hits, misses),
            recent_hit_ratio = ratio(recent_hits, recent_misses),
            ops_per_second = if seconds > 0.0 { (done as f64 / seconds).round() } else { 0.0 },
            sets = stats.sets,
            deletes = stats.deletes,
            evictions = stats.evictions,
            expirations = stats.expirations,
            invalidated = stats.invalidated,
            entries = stats.entries,
            bytes_used = stats.bytes_used,
            bytes_limit = stats.bytes_limit,
            resident_bytes = snapshot.resident_bytes,
            connections = snapshot.connections,
            requests_in_flight = snapshot.requests_in_flight,
            requests_shed = snapshot.requests_shed,
            "stats"
        );
        *self = Self { last: now, last_operations: operations, last_hits: stats.hits, last_misses: misses };
    }
}

/// To four digits; 0 where nothing was looked up.
fn ratio(hits: u64, misses: u64) -> f64 {
    match hits + misses {
        0 => 0.0,
        lookups => (hits as f64 / lookups as f64 * 1e4).round() / 1e4,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::*;
    use crate::clock::monotonic;
    use crate::engine::Stats;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str, log: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let (subscriber, _) = subscriber(format, filter, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = std::mem::take(&mut *sink.0.lock());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn stats_line_has_totals_ratios_and_the_rate_since_the_last() {
        let start = monotonic();
        let snapshot = |hits, unknown| {
            let mut stats = Stats { hits, ..Stats::default() };
            stats.misses_by_reason[0] = unknown;
            NodeStats { stats, state: "serving", ..NodeStats::default() }
        };
        let text = logged(LogFormat::Json, "info", || {
            let mut log = StatsLog::new(start);
            log.line(&snapshot(75, 25), start + Duration::from_secs(10));
            log.line(&snapshot(75, 75), start + Duration::from_secs(20));
        });
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["message"], "stats");
        assert_eq!(lines[0]["hits"], 75);
        assert_eq!(lines[0]["hit_ratio"], 0.75);
        assert_eq!(lines[0]["ops_per_second"], 10.0);
        assert_eq!(lines[1]["misses"], 75);
        assert_eq!(lines[1]["hit_ratio"], 0.5);
        assert_eq!(lines[1]["recent_hit_ratio"], 0.0);
        assert_eq!(lines[1]["ops_per_second"], 5.0);
        assert_eq!(lines[1]["state"], "serving");
    }

    #[test]
    fn filter_holds_and_a_bad_one_is_named() {
        let text = logged(LogFormat::Text, "warn", || {
            tracing::info!("quiet");
            tracing::warn!("loud");
        });
        assert!(text.contains("loud") && !text.contains("quiet"), "{text}");
        let error = subscriber(LogFormat::Text, "larder=loudly", false, io::sink).map(drop).unwrap_err();
        assert!(error.to_string().starts_with("--log \"larder=loudly\" is no filter"), "{error}");
    }

    #[test]
    fn a_filter_that_is_exchanged_holds_at_once() {
        let sink = Sink::default();
        let writer = sink.clone();
        let (subscriber, set) = subscriber(LogFormat::Text, "warn", false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("before");
            assert!(set(parse("debug").unwrap()));
            tracing::debug!("between");
            assert!(set(parse("off").unwrap()));
            tracing::error!("after");
        });
        let text = String::from_utf8(sink.0.lock().clone()).unwrap();
        assert!(text.contains("between") && !text.contains("before") && !text.contains("after"), "{text}");
    }
}
