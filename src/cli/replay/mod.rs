//! `larder replay TRACE`: a recorded trace as load. Each request is a get, and on a miss a set.
//!
//! **Order.** Requests go out in windows, so that a round trip is paid per window and not per request: one
//! message carries the sets that the last window's misses call for, then the next window's gets. A Pipeline
//! keeps the order of its commands, so what a window changes is only that the sets of its misses come after its
//! last get instead of after their own. A key that comes twice in a window must still see its own set, so a
//! window ends before a key that it has asked for already, unless that key was lately seen to be there (it hit,
//! or was set). Where that guess is wrong (it was evicted meanwhile) the repeat misses too; this is counted as
//! `repeats_before_set`, and in strict order these would have been hits. `--window 1` is strict.
//!
//! Hits and misses are what the node answered, so they equal what its own statistics say.
//!
//! With `--streams N` requests are spread over N streams by key: order is kept for each key, not between keys.

mod stream;
mod trace;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::durability::WaitsFor;
use super::exit::{CliError, Exit};
use super::facts::{Fact, Group, hit_ratio, json as facts_json, lines};
use super::global::Global;
use super::interrupt::Interrupt;
use super::output::{note, print_json, print_raw};
use super::{parse, progress};
use crate::clock::monotonic;
use crate::entry::VALUE_BYTES_MAX;
use stream::Replayed;
use trace::{Request, Trace};

/// Arguments of `replay`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Replay")]
pub(super) struct ReplayArgs {
    /// The trace: NAME.u64.zst (little-endian u64 keys) or NAME.u64s.zst (pairs of u64 key and u64 size)
    #[arg(value_hint = ValueHint::FilePath)]
    trace: PathBuf,
    /// Bytes of a value [default: the trace's sizes where it has some, else 100]
    #[arg(long, value_name = "SIZE", value_parser = value_bytes)]
    value_size: Option<usize>,
    /// Stop after this many requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Requests that are sent before their answers are awaited; 1 is strictly one after the other
    #[arg(long, value_name = "N", default_value = "512")]
    window: NonZeroUsize,
    /// Streams, each on a connection of its own; order is kept for each key
    #[arg(long, visible_alias = "concurrency", value_name = "N", default_value = "1")]
    streams: NonZeroUsize,
    /// Time to live of what is set; 0 is never [default: the namespace's default]
    #[arg(long, value_name = "DUR", value_parser = parse::ttl)]
    ttl: Option<Duration>,
    #[command(flatten)]
    waits_for: WaitsFor,
}

/// How many requests go to a stream at once, and how many such lots may wait for it.
const LOT: usize = 4_096;
const LOTS_WAITING: usize = 4;

pub(super) fn run(global: &Global, args: ReplayArgs) -> Result<Exit, CliError> {
    let mut trace = Trace::open(&args.trace, args.value_size)?;
    let streams = args.streams.get();
    let bar = match args.limit {
        Some(limit) => progress::bar("replay", limit),
        None => progress::spinner("replay"),
    };
    let plan = stream::Plan {
        namespace: global.namespace.clone(),
        ttl: args.ttl,
        durability: args.waits_for.durability,
        window: args.window.get(),
        progress: bar.clone(),
    };
    let interrupt = Interrupt::catch()?;
    let until = interrupt.clone();
    let start = monotonic();
    let replayed = super::block_on(async {
        let client = global.builder().connections(args.streams).build()?;
        let (mut lots, mut workers) = (Vec::new(), Vec::new());
        for _ in 0..streams {
            let (lot, requests) = mpsc::channel(LOTS_WAITING);
            lots.push(lot);
            workers.push(tokio::spawn(stream::replay(client.clone(), plan.clone(), requests)));
        }
        let limit = args.limit.unwrap_or(u64::MAX);
        let reading = tokio::task::spawn_blocking(move || deal(&mut trace, limit, &lots, &until));
        let mut total = Replayed::default();
        let mut broken_off = None;
        for worker in workers {
            let (replayed, end) =
                worker.await.map_err(|_| CliError::Refused("a stream panicked".to_owned()))?;
            total.merge(replayed);
            broken_off = broken_off.or(end.err());
        }
        let read = reading.await.map_err(|_| CliError::Refused("reading the trace panicked".to_owned()))?;
        Ok((total, broken_off.or(read.err())))
    });
    bar.finish_and_clear();
    let (replayed, broken_off) = replayed?;
    // Of nothing there are no figures.
    if let Some(error) = broken_off {
        if replayed == Replayed::default() {
            return Err(error);
        }
        show(global, &replayed, start.elapsed(), Some(&error))?;
        note(&format!("broken off: {error}; the figures are of what was replayed before"));
        return Ok(Exit::Refused);
    }
    show(global, &replayed, start.elapsed(), None)?;
    Ok(match replayed.refused.is_empty() {
        _ if interrupt.has_come() => Exit::Interrupted,
        true => Exit::Done,
        false => Exit::Refused,
    })
}

/// Reads the trace and deals requests to the streams by key. Ends early where a stream has ended, and when it is interrupted;
/// what comes before damage in the trace is dealt.
fn deal(
    trace: &mut Trace,
    limit: u64,
    lots: &[mpsc::Sender<Vec<Request>>],
    interrupt: &Interrupt,
) -> Result<(), CliError> {
    let mut hands: Vec<Vec<Request>> = vec![Vec::with_capacity(LOT); lots.len()];
    let mut dealt = 0;
    let mut read = Ok(());
    while dealt < limit && !interrupt.has_come() {
        let request = match trace.next() {
            Ok(Some(request)) => request,
            Ok(None) => break,
            Err(error) => {
                read = Err(error);
                break;
            }
        };
        dealt += 1;
        // A multiplicative hash: keys of a trace often differ in a few bits only.
        let place = request.key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let stream = (place % lots.len() as u64) as usize;
        hands[stream].push(request);
        if hands[stream].len() == LOT {
            let lot = std::mem::replace(&mut hands[stream], Vec::with_capacity(LOT));
            if lots[stream].blocking_send(lot).is_err() {
                return Ok(());
            }
        }
    }
    for (hand, lot) in hands.into_iter().zip(lots) {
        // A stream that has ended tells why itself.
        let _ = lot.blocking_send(hand);
    }
    read
}

fn show(
    global: &Global,
    replayed: &Replayed,
    elapsed: Duration,
    broken_off: Option<&CliError>,
) -> Result<(), CliError> {
    let requests = replayed.hits + replayed.misses;
    let elapsed_s = elapsed.as_secs_f64();
    let facts = [
        ("requests", Fact::Count(requests)),
        ("hits", Fact::Count(replayed.hits)),
        ("misses", Fact::Count(replayed.misses)),
        ("hit_ratio", Fact::Ratio(hit_ratio(replayed.hits, replayed.misses))),
        ("stored", Fact::Count(replayed.stored)),
        ("refused", Fact::Count(replayed.refused.values().sum())),
        ("repeats_before_set", Fact::Count(replayed.repeats_before_set)),
        ("elapsed_s", Fact::Real(elapsed_s)),
        ("requests_per_s", Fact::Real(requests as f64 / elapsed_s.max(f64::MIN_POSITIVE))),
    ];
    let facts = facts.into_iter().map(|(name, fact)| (name.to_owned(), fact)).collect();
    let mut groups = vec![Group { title: "Replay", facts }];
    if global.json() {
        let mut document = facts_json(&groups);
        document.insert("refused_by_code".to_owned(), refused_json(&replayed.refused));
        document.insert("broken_off".to_owned(), broken_off.map(CliError::to_string).into());
        return print_json(&Value::Object(document));
    }
    let by_code = replayed.refused.iter();
    let facts =
        by_code.map(|(code, count)| (format!("refused_by_code.{code}"), Fact::Count(*count))).collect();
    groups.push(Group { title: "Refused", facts });
    print_raw(lines(&groups).as_bytes())
}

fn refused_json(refused: &BTreeMap<&'static str, u64>) -> Value {
    json!(refused)
}

fn value_bytes(text: &str) -> Result<usize, String> {
    match parse::bytes(text)? {
        bytes if bytes <= VALUE_BYTES_MAX => Ok(bytes),
        bytes => Err(format!("{bytes} B is over the longest value that any node takes, {VALUE_BYTES_MAX} B")),
    }
}
