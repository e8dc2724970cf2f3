//! `larder import DIR`: every file below a directory becomes an entry, under its path from there.
//!
//! Files are read one after the other and sent as BatchSets, a few at a time. What cannot be read or stored is counted
//! and named at the end, and the rest goes on: a directory that may not be opened, a file that has gone, one that is over
//! the node's limit. What is no file by its nature (a pipe, a socket, a device, a link to a directory) is passed over.

mod walk;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueHint};
use futures_util::stream::{FuturesUnordered, StreamExt};
use indicatif::ProgressBar;
use serde_json::json;

use super::durability::WaitsFor;
use super::exit::{CliError, Exit};
use super::global::Global;
use super::output::{note, print};
use super::refusals::Refusals;
use super::{keys, parse, progress, read};
use crate::client::{Client, ClientError, SetExpiration, SetOptions, SetOutcome};
use crate::clock::monotonic;
use walk::{Source, Walk};

const BATCH_BYTES: usize = 1 << 20;
const BATCH_ITEMS: usize = 1_000;
const BATCHES_IN_FLIGHT: usize = 4;
/// What is read and not yet stored; one file more may be begun.
const BYTES_IN_FLIGHT: usize = 8 << 20;

/// Arguments of `import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The directory
    #[arg(value_hint = ValueHint::DirPath)]
    directory: PathBuf,
    /// What keys begin with, before the path
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: OsString,
    /// Expire after this long; 0 is never [default: the namespace's default]
    #[arg(long, value_name = "DUR", value_parser = parse::ttl)]
    ttl: Option<Duration>,
    #[command(flatten)]
    waits_for: WaitsFor,
}

/// What became of files.
#[derive(Debug, Default)]
struct Tally {
    stored: u64,
    bytes: u64,
    refused: Refusals,
    /// Why the node was not asked any further.
    broken_off: Option<ClientError>,
}

pub(super) fn run(global: &Global, args: ImportArgs) -> Result<Exit, CliError> {
    let options = SetOptions {
        expiration: args.ttl.map_or(SetExpiration::NamespaceDefault, SetExpiration::After),
        durability: args.waits_for.durability,
        ..SetOptions::default()
    };
    let start = monotonic();
    let walk = walk::below(&args.directory, args.prefix.as_bytes())?;
    let passed_over = walk.passed_over;
    let bar = progress::bar("import", walk.sources.len() as u64);
    let tally = super::block_on(async {
        let client = global.client()?;
        Ok(store(&client, walk, &options, &bar).await)
    });
    bar.finish_and_clear();
    let tally = tally?;
    let elapsed_s = start.elapsed().as_secs_f64();
    let refused = tally.refused.count();
    let document = json!({ "stored": tally.stored, "bytes": tally.bytes, "passed_over": passed_over,
        "refused": refused, "refusals": tally.refused.json(), "elapsed_s": elapsed_s });
    let elapsed = format!("{elapsed_s:.3}");
    let facts: [(&str, &dyn std::fmt::Display); 5] = [
        ("stored", &tally.stored),
        ("bytes", &tally.bytes),
        ("passed_over", &passed_over),
        ("refused", &refused),
        ("elapsed_s", &elapsed),
    ];
    print(global, &document, &facts)?;
    tally.refused.tell("not stored");
    if passed_over > 0 {
        note(&format!(
            "passed over, since they are no files: {passed_over} (pipes, sockets, devices, links to directories)"
        ));
    }
    if let Some(error) = tally.broken_off {
        note(&format!("broken off: {error}"));
    }
    Ok(if refused == 0 { Exit::Done } else { Exit::Refused })
}

/// Stores what the walk has found. Where the node is out of reach the rest is refused unread.
async fn store(client: &Client, walk: Walk, options: &SetOptions, bar: &ProgressBar) -> Tally {
    let mut total = Tally { refused: walk.refused, ..Tally::default() };
    let mut batches = Batches { sources: walk.sources.into_iter(), held: None };
    let mut flights = FuturesUnordered::new();
    let mut bytes_in_flight = 0;
    loop {
        while total.broken_off.is_none()
            && flights.len() < BATCHES_IN_FLIGHT
            && bytes_in_flight < BYTES_IN_FLIGHT
            && let Some(batch) = batches.next()
        {
            bar.inc(batch.refused.count());
            total.refused.extend(batch.refused);
            bytes_in_flight += batch.bytes;
            flights.push(async move { (batch.bytes, send(client, batch.items, options).await) });
        }
        let Some((bytes, tally)) = flights.next().await else { break };
        bytes_in_flight -= bytes;
        bar.inc(tally.stored + tally.refused.count());
        total.stored += tally.stored;
        total.bytes += tally.bytes;
        total.refused.extend(tally.refused);
        total.broken_off = total.broken_off.or(tally.broken_off);
    }
    if let Some(error) = &total.broken_off {
        let why = error.to_string();
        batches.left().for_each(|key| total.refused.add(&key, &why));
    }
    total
}

async fn send(client: &Client, items: Vec<(Bytes, Bytes)>, options: &SetOptions) -> Tally {
    let mut tally = Tally::default();
    let sizes: Vec<(Bytes, usize)> = items.iter().map(|(key, value)| (key.clone(), value.len())).collect();
    let results = match client.batch_set(items, options).await {
        Ok(results) => results,
        Err(error) => {
            let why = error.to_string();
            sizes.iter().for_each(|(key, _)| tally.refused.add(key, &why));
            // What a node refuses once it may take the next time.
            let is_out_of_reach = !matches!(error, ClientError::Status(_));
            tally.broken_off = is_out_of_reach.then_some(error);
            return tally;
        }
    };
    for ((key, bytes), result) in sizes.into_iter().zip(results) {
        match result {
            Ok(SetOutcome::Stored(_)) => {
                tally.stored += 1;
                tally.bytes += bytes as u64;
            }
            Ok(SetOutcome::NotStored(_)) => tally.refused.add(&key, "the key's owner is out of service"),
            Err(refusal) => tally.refused.add(&key, &refusal.to_string()),
        }
    }
    tally
}

/// Files that were read together.
#[derive(Debug, Default)]
struct Batch {
    items: Vec<(Bytes, Bytes)>,
    bytes: usize,
    /// What could not be read.
    refused: Refusals,
}

/// Files read into batches.
struct Batches {
    sources: std::vec::IntoIter<Source>,
    /// A file that was read and did not fit into the last batch.
    held: Option<(Bytes, Bytes)>,
}

impl Batches {
    fn next(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        if let Some((key, value)) = self.held.take() {
            batch.bytes = key.len() + value.len();
            batch.items.push((key, value));
        }
        while batch.items.len() < BATCH_ITEMS && batch.bytes < BATCH_BYTES {
            let Some(source) = self.sources.next() else { break };
            match read(&source) {
                Err(why) => batch.refused.add(&source.key, &why),
                Ok((key, value)) if !batch.items.is_empty() && batch.bytes + value.len() > BATCH_BYTES => {
                    self.held = Some((key, value));
                    break;
                }
                Ok((key, value)) => {
                    batch.bytes += key.len() + value.len();
                    batch.items.push((key, value));
                }
            }
        }
        (!batch.items.is_empty() || batch.refused.count() > 0).then_some(batch)
    }

    /// The keys of what was not sent.
    fn left(self) -> impl Iterator<Item = Bytes> {
        let held = self.held.into_iter().map(|(key, _)| key);
        held.chain(self.sources.map(|source| source.key.into()))
    }
}

/// A file's key and content, or why it cannot be sent.
fn read(source: &Source) -> Result<(Bytes, Bytes), String> {
    let key = keys::check(source.key.clone())?;
    let value = read::regular_file(&source.path).map_err(|error| error.to_string())?;
    Ok((key, value.into()))
}
