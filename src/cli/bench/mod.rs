//! `larder bench`: throughput and latency of a node under load.
//!
//! ```text
//!  BenchArgs ─ plan.rs ─ Plan ─┬─ run.rs      one thread = one runtime with its share of the connections
//!                              │   ├─ calls.rs   callers of Get/Set and BatchGet/BatchSet
//!                              │   │    └─ connection.rs  unary calls straight on hyper
//!                              │   └─ stream.rs  callers of Pipeline, several messages in flight
//!                              ├─ watchers.rs  Watch streams that are read meanwhile
//!                              ├─ fill.rs     every key set before, and deleted after
//!                              ├─ load.rs     which key, which operation, how large a value
//!                              ├─ wire.rs     requests written and answers read by hand, without allocation per key
//!                              ├─ pace.rs     open loop: when each call should start
//!                              └─ report.rs   histograms merged, text and JSON
//! ```
//!
//! The tool must not be what is measured. So every thread runs on its own, single-threaded runtime with its own
//! connections and histograms, and nothing but a few counters is shared; keys are formatted into the request's
//! buffer, and answers are counted without being decoded.
//!
//! Closed loop (no `--rate`): each caller sends its next call when the last is answered; latency is from send
//! to answer. Open loop (`--rate`): calls are due at times that do not depend on the node, and latency is from
//! when a call was *due*, so a node that stalls is charged with every call that waited for it (no coordinated
//! omission).
//!
//! In a Pipeline or batch, each key counts with the latency of its message.

mod calls;
mod connection;
mod fill;
mod load;
mod pace;
mod plan;
mod report;
mod run;
mod stream;
mod watchers;
mod wire;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::{Args, ValueEnum, ValueHint};

use super::durability::WaitsFor;
use super::exit::{CliError, Exit};
use super::global::Global;
use super::interrupt::Interrupt;
use super::output::note;
use super::parse::{self, Distribution, Offered, Ratio, SizeRange};
use crate::node::descriptors;
use load::Written;
use plan::Plan;
use watchers::Watchers;

/// Arguments of `bench`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Load")]
pub(super) struct BenchArgs {
    /// Connections to the node
    #[arg(long, short = 'c', value_name = "N", default_value = "8")]
    connections: NonZeroUsize,
    /// Callers on each connection, each with one call in flight; with --pipeline, streams [default: 16; with
    /// --pipeline 1]
    #[arg(long, value_name = "N")]
    callers: Option<NonZeroUsize>,
    /// Commands to a Pipeline message; without it calls are unary
    #[arg(long, short = 'P', value_name = "N", conflicts_with = "batch", value_parser = items)]
    pipeline: Option<usize>,
    /// Pipeline messages in flight on each stream
    #[arg(long, value_name = "N", default_value = "4", requires = "pipeline")]
    depth: NonZeroUsize,
    /// Keys to a BatchGet or BatchSet; without it calls are of single keys
    #[arg(long, short = 'b', value_name = "N", value_parser = items)]
    batch: Option<usize>,
    /// Different keys
    #[arg(long, short = 'k', value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Bytes of a key: the prefix and a number with leading zeros
    #[arg(long, value_name = "N", default_value_t = 16)]
    key_size: usize,
    /// What keys begin with: no others are written or deleted
    #[arg(long, value_name = "TEXT", default_value = "bench:")]
    key_prefix: String,
    /// How keys are drawn: uniform, zipf:EXPONENT or sequential
    #[arg(long, short = 'd', value_name = "HOW", default_value = "uniform", hide_possible_values = true,
          value_parser = distribution())]
    distribution: Distribution,
    /// Bytes of a value, or a range such as 10-1KiB
    #[arg(long, short = 's', value_name = "SIZE", default_value = "100")]
    value_size: SizeRange,
    /// Gets to sets
    #[arg(long, short = 'r', value_name = "GETS:SETS", default_value = "9:1")]
    ratio: Ratio,
    /// Time to live of what is set; 0 is never [default: the namespace's default]
    #[arg(long, value_name = "DUR", value_parser = parse::ttl)]
    ttl: Option<Duration>,
    #[command(flatten)]
    waits_for: WaitsFor,
    /// Set every key once before anything is measured
    #[arg(long)]
    prefill: bool,
    /// Leave the keys there; without it they are deleted at the end, where the run has set any
    #[arg(long)]
    keep: bool,
    /// Stop after this many keys
    #[arg(long, short = 'n', value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// Stop after this long [default: 10s]
    #[arg(long, value_name = "DUR", value_parser = parse::positive_duration)]
    duration: Option<Duration>,
    /// Run this long before anything is measured
    #[arg(long, value_name = "DUR", default_value = "0", value_parser = parse::duration)]
    warmup: Duration,
    /// Open loop: this many keys are due a second, however the node keeps up
    #[arg(long, value_name = "KEYS/S", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// With --rate: how calls are spread over time
    #[arg(long, value_enum, default_value = "poisson", requires = "rate")]
    arrivals: Arrivals,
    /// Watch streams of everything that are read during the run, each on a connection and all on a thread of their own
    #[arg(long, value_name = "N", default_value_t = 0)]
    watchers: usize,
    /// Threads that make the load
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZeroUsize,
    /// Write the latencies' whole distribution to a file, as HdrHistogram's tools read it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    histogram: Option<PathBuf>,
}

/// How calls of an open loop are spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Arrivals {
    /// As independent callers would.
    Poisson,
    /// At even intervals.
    Constant,
}

pub(super) fn run(global: &Global, args: BenchArgs) -> Result<Exit, CliError> {
    let (histogram, prefill, keep, watchers) =
        (args.histogram.clone(), args.prefill, args.keep, args.watchers);
    // Each connection is a file.
    descriptors::raise_limit();
    let plan = Plan::new(global, args)?;
    super::block_on(async {
        // One call first, so that an unreachable node is reported at once and not counted as a million failures.
        global.client()?.get(plan.key(0)).await?;
        Ok(())
    })?;
    // With a prefill every key is there to be deleted.
    let written = (!keep && !prefill && plan.ratio.sets > 0).then(|| Arc::new(Written::new(plan.keys)));
    if prefill {
        fill::set(&plan)?;
    }
    // Before that nothing was measured, and Ctrl-C ends the process.
    let interrupt = Interrupt::catch()?;
    let watchers = (watchers > 0).then(|| Watchers::start(&plan.endpoint, watchers)).transpose()?;
    let results = run::run(&plan, "bench", written.clone(), &interrupt)?;
    let watched = watchers.map(Watchers::stop).transpose()?;
    report::show(global, &plan, &results, watched.as_ref())?;
    if let Some(path) = histogram {
        report::write_histogram(&path, &results)?;
    }
    if let Some(why) = &results.first_refusal {
        note(&format!("the first call that was refused: {why}"));
    }
    if results.misses > results.hits {
        let lookups = results.hits + results.misses;
        note(&format!(
            "{} of {lookups} gets missed, and a miss costs less than a hit: --prefill sets every key before",
            results.misses
        ));
    }
    if !keep {
        match written {
            Some(written) => fill::delete(&plan, written.count(), written.numbers())?,
            None if prefill => fill::delete(&plan, plan.keys, 0..plan.keys)?,
            None => {}
        }
    }
    Ok(match results.errors.is_empty() {
        _ if interrupt.has_come() => Exit::Interrupted,
        true => Exit::Done,
        false => Exit::Refused,
    })
}

/// How keys may be drawn, of which a shell's completion offers these.
fn distribution() -> impl TypedValueParser<Value = Distribution> {
    Offered(vec!["uniform", "sequential", "zipf:0.99"]).try_map(|text| text.parse::<Distribution>())
}

/// Keys to a message: as many as any node takes.
fn items(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(items @ 1..=ITEMS_MAX) => Ok(items),
        _ => Err(format!(
            "a message carries 1 to {ITEMS_MAX} keys, and 10000 unless the node is set to take more"
        )),
    }
}

/// The most that a node's --max-batch can be.
const ITEMS_MAX: usize = 1_000_000;
