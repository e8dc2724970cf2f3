//! `larder latency`: round trips one after the other on one connection, and every second what they took.
//!
//! A round trip is a question to the health service, which changes no figure of the node; with `--key` a Get, which
//! counts as one.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::json;

use super::exit::{CliError, Exit, local};
use super::facts::Fact;
use super::global::Global;
use super::keys::KeyForm;
use super::output::{note, print_json, print_raw};
use super::parse;
use crate::client::{Client, ClientError, HealthClient};
use crate::clock::monotonic;

/// Arguments of `latency`.
#[derive(Debug, Args)]
pub(super) struct LatencyArgs {
    /// Get this key [default: ask the health service, which counts as no lookup]
    #[arg(long, value_name = "KEY")]
    key: Option<OsString>,
    /// Pause between an answer and the next call
    #[arg(long, value_name = "DUR", default_value = "10ms", value_parser = parse::duration)]
    interval: Duration,
    /// Stop after this many calls
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stop after this long [default: at Ctrl-C]
    #[arg(long, value_name = "DUR", value_parser = parse::positive_duration)]
    duration: Option<Duration>,
    #[command(flatten)]
    form: KeyForm,
}

/// How often a line is printed.
const LINE_EVERY: Duration = Duration::from_secs(1);
const NS_MAX: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;

pub(super) fn run(global: &Global, args: LatencyArgs) -> Result<Exit, CliError> {
    let key = args.key.as_deref().map(|key| args.form.key(key)).transpose()?;
    super::block_on(async {
        let call = Call::new(global, key)?;
        // The first one also connects: it tells whether there is a node, and is not measured.
        call.make().await?;
        let mut measured = Measured::new()?;
        tokio::select! {
            end = measure(global, &args, &call, &mut measured) => end?,
            interrupt = tokio::signal::ctrl_c() => interrupt.map_err(local("cannot wait for Ctrl-C"))?,
        }
        measured.end(global)
    })
}

/// What is measured.
enum Call {
    Check(HealthClient),
    Get(Client, Bytes),
}

impl Call {
    fn new(global: &Global, key: Option<Bytes>) -> Result<Self, CliError> {
        Ok(match key {
            None => Self::Check(global.builder().build_health()?),
            Some(key) => Self::Get(global.client()?, key),
        })
    }

    async fn make(&self) -> Result<(), ClientError> {
        match self {
            Self::Check(health) => health.check("").await.map(drop),
            Self::Get(client, key) => client.get(key.clone()).await.map(drop),
        }
    }
}

async fn measure(
    global: &Global,
    args: &LatencyArgs,
    call: &Call,
    measured: &mut Measured,
) -> Result<(), CliError> {
    let start = monotonic();
    let mut line_at = start + LINE_EVERY;
    let mut calls = 0;
    loop {
        let sent = monotonic();
        let end = call.make().await;
        let now = monotonic();
        measured.add(now - sent, end);
        calls += 1;
        let is_last = args.count.is_some_and(|count| calls >= count)
            || args.duration.is_some_and(|duration| now - start >= duration);
        if is_last {
            return Ok(());
        }
        if now >= line_at {
            measured.line(global)?;
            line_at = next_line(line_at, now);
        }
        let left = args.duration.map(|duration| (start + duration).saturating_duration_since(monotonic()));
        tokio::time::sleep(left.map_or(args.interval, |left| left.min(args.interval))).await;
        if left.is_some_and(|left| left <= args.interval) {
            return Ok(());
        }
    }
}

/// The next full interval, however late it is.
fn next_line(line_at: Instant, now: Instant) -> Instant {
    let next = line_at + LINE_EVERY;
    if next > now { next } else { now + LINE_EVERY }
}

/// Round trips since the last line, and all of them.
struct Measured {
    since_line: LatencyFigures,
    all: LatencyFigures,
    last_error: Option<ClientError>,
}

/// Round trips of some time.
#[derive(Clone)]
struct LatencyFigures {
    ns: Histogram<u64>,
    errors: u64,
}

impl LatencyFigures {
    fn new() -> Result<Self, CliError> {
        let ns = Histogram::new_with_bounds(1, NS_MAX, DIGITS)
            .map_err(|error| CliError::Usage(format!("the latency histogram: {error}")))?;
        Ok(Self { ns, errors: 0 })
    }

    fn facts(&self) -> [(&'static str, Fact); 6] {
        let us = |ns: u64| if self.ns.is_empty() { Fact::Real(0.0) } else { Fact::Real(ns as f64 / 1_000.0) };
        [
            ("calls", Fact::Count(self.ns.len())),
            ("errors", Fact::Count(self.errors)),
            ("min_us", us(self.ns.min())),
            ("avg_us", us(self.ns.mean() as u64)),
            ("p99_us", us(self.ns.value_at_quantile(0.99))),
            ("max_us", us(self.ns.max())),
        ]
    }

    /// One line, or one document, of what was measured over a time.
    fn print(&self, global: &Global, over: &str) -> Result<(), CliError> {
        let facts = self.facts();
        if global.json() {
            let mut document = json!({ "over": over });
            for (name, fact) in facts {
                document[name] = fact.json();
            }
            return print_json(&document);
        }
        let mut line = over.to_owned();
        for (name, fact) in facts {
            line.push_str(&format!(" {name} {}", fact.plain()));
        }
        line.push('\n');
        print_raw(line.as_bytes())
    }
}

impl Measured {
    fn new() -> Result<Self, CliError> {
        Ok(Self { since_line: LatencyFigures::new()?, all: LatencyFigures::new()?, last_error: None })
    }

    fn add(&mut self, took: Duration, end: Result<(), ClientError>) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).clamp(1, NS_MAX);
        for figures in [&mut self.since_line, &mut self.all] {
            match end {
                Ok(()) => figures.ns.saturating_record(ns),
                Err(_) => figures.errors += 1,
            }
        }
        self.last_error = end.err().or(self.last_error.take());
    }

    /// Prints what was measured since the last line.
    fn line(&mut self, global: &Global) -> Result<(), CliError> {
        self.since_line.print(global, "second")?;
        self.since_line.ns.reset();
        self.since_line.errors = 0;
        Ok(())
    }

    /// Prints what was measured in all.
    fn end(&self, global: &Global) -> Result<Exit, CliError> {
        self.all.print(global, "all")?;
        let Some(error) = &self.last_error else { return Ok(Exit::Done) };
        note(&format!("{} calls failed, the last: {error}", self.all.errors));
        Ok(Exit::Refused)
    }
}
