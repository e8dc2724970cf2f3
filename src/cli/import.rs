//! `larder import DIR`: every file below a directory becomes an entry, under its path from there.
//!
//! Files are read one after the other and sent as BatchSets, a few at a time. What a node refuses, such as a
//! value over its limit, is reported and counted, and the rest goes on.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures_util::stream::{self, StreamExt};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::durability::WaitsFor;
use super::exit::{CliError, Exit, local};
use super::global::Global;
use super::output::{bytes_json, note, print};
use super::{parse, progress};
use crate::client::{Client, SetExpiration, SetOptions, SetOutcome};
use crate::clock::monotonic;
use crate::code::code_name;
use crate::entry::KEY_BYTES_MAX;

const BATCH_BYTES: usize = 1 << 20;
const BATCH_ITEMS: usize = 1_000;
const BATCHES_IN_FLIGHT: usize = 4;
/// How many refusals are listed one by one in the JSON document.
const REFUSALS_LISTED: usize = 1_000;

/// Arguments of `import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The directory
    directory: PathBuf,
    /// What keys begin with, before the path
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Expire after this long; 0 is never [default: the namespace's default]
    #[arg(long, value_name = "DUR", value_parser = parse::ttl)]
    ttl: Option<Duration>,
    #[command(flatten)]
    waits_for: WaitsFor,
}

/// A file that is to be stored.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    key: Bytes,
}

/// What became of a batch's files.
#[derive(Debug, Default)]
struct Tally {
    stored: u64,
    bytes: u64,
    refused: Vec<(Bytes, String)>,
}

pub(super) fn run(global: &Global, args: ImportArgs) -> Result<Exit, CliError> {
    if !args.directory.is_dir() {
        return Err(CliError::Usage(format!("{} is no directory", args.directory.display())));
    }
    let sources = sources(&args)?;
    let options = SetOptions {
        expiration: args.ttl.map_or(SetExpiration::NamespaceDefault, SetExpiration::After),
        durability: args.waits_for.durability,
        ..SetOptions::default()
    };
    let start = monotonic();
    let bar = progress::bar("import", sources.len() as u64);
    let tally = super::block_on(async {
        let client = global.client()?;
        store(&client, sources, &options, &bar).await
    });
    bar.finish_and_clear();
    let tally = tally?;
    let elapsed_s = start.elapsed().as_secs_f64();
    let refused = tally.refused.len();
    let refusals: Vec<Value> = tally
        .refused
        .iter()
        .take(REFUSALS_LISTED)
        .map(|(key, why)| json!({ "key": bytes_json(key), "error": why }))
        .collect();
    let document = json!({ "stored": tally.stored, "bytes": tally.bytes, "refused": refused,
        "refusals": refusals, "elapsed_s": elapsed_s });
    let elapsed = format!("{elapsed_s:.3}");
    print(
        global,
        &document,
        &[("stored", &tally.stored), ("bytes", &tally.bytes), ("refused", &refused), ("elapsed_s", &elapsed)],
    )?;
    Ok(if refused == 0 { Exit::Done } else { Exit::Refused })
}

async fn store(
    client: &Client,
    sources: Vec<Source>,
    options: &SetOptions,
    bar: &ProgressBar,
) -> Result<Tally, CliError> {
    let mut batches =
        stream::iter(Batches { sources: sources.into_iter(), held: None }.map(|batch| async move {
            let (items, mut tally) = batch?;
            send(client, items, options, &mut tally).await?;
            Ok::<_, CliError>(tally)
        }))
        .buffer_unordered(BATCHES_IN_FLIGHT);
    let mut total = Tally::default();
    while let Some(tally) = batches.next().await {
        let tally = tally?;
        bar.inc(tally.stored + tally.refused.len() as u64);
        for (key, why) in &tally.refused {
            bar.suspend(|| note(&format!("not stored: {}: {why}", key.escape_ascii())));
        }
        total.stored += tally.stored;
        total.bytes += tally.bytes;
        total.refused.extend(tally.refused);
    }
    Ok(total)
}

async fn send(
    client: &Client,
    items: Vec<(Bytes, Bytes)>,
    options: &SetOptions,
    tally: &mut Tally,
) -> Result<(), CliError> {
    if items.is_empty() {
        return Ok(());
    }
    let sizes: Vec<(Bytes, usize)> = items.iter().map(|(key, value)| (key.clone(), value.len())).collect();
    let results = client.batch_set(items, options).await?;
    for ((key, bytes), result) in sizes.into_iter().zip(results) {
        match result {
            Ok(SetOutcome::Stored(_)) => {
                tally.stored += 1;
                tally.bytes += bytes as u64;
            }
            Ok(SetOutcome::NotStored(_)) => {
                tally.refused.push((key, "the key's owner is out of service".to_owned()));
            }
            Err(status) => {
                let code = code_name(tonic::Code::from_i32(status.code));
                tally.refused.push((key, format!("{code}: {}", status.message)));
            }
        }
    }
    Ok(())
}

/// Files read into batches; what cannot be sent at all is refused here.
struct Batches {
    sources: std::vec::IntoIter<Source>,
    /// A file that was read and did not fit into the last batch.
    held: Option<(Bytes, Bytes)>,
}

type Batch = (Vec<(Bytes, Bytes)>, Tally);

impl Iterator for Batches {
    type Item = Result<Batch, CliError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut tally = Tally::default();
        let mut items: Vec<(Bytes, Bytes)> = Vec::new();
        let mut bytes = 0;
        if let Some((key, value)) = self.held.take() {
            bytes = key.len() + value.len();
            items.push((key, value));
        }
        while items.len() < BATCH_ITEMS && bytes < BATCH_BYTES {
            let Some(source) = self.sources.next() else { break };
            match read(&source) {
                Err(why) => tally.refused.push((source.key, why)),
                Ok(value) if !items.is_empty() && bytes + value.len() > BATCH_BYTES => {
                    self.held = Some((source.key, value));
                    break;
                }
                Ok(value) => {
                    bytes += source.key.len() + value.len();
                    items.push((source.key, value));
                }
            }
        }
        (!items.is_empty() || !tally.refused.is_empty()).then_some(Ok((items, tally)))
    }
}

/// A file's content, or why it cannot be sent.
fn read(source: &Source) -> Result<Bytes, String> {
    if source.key.len() > KEY_BYTES_MAX {
        let bytes = source.key.len();
        return Err(format!("its key has {bytes} bytes; a key has 1 to {KEY_BYTES_MAX}"));
    }
    let bytes = fs::metadata(&source.path).map_err(|error| error.to_string())?.len();
    if bytes > parse::VALUE_BYTES_MAX as u64 {
        return Err(format!("it has {bytes} bytes; one message carries {} at most", parse::VALUE_BYTES_MAX));
    }
    fs::read(&source.path).map(Bytes::from).map_err(|error| error.to_string())
}

/// Every file below the directory, in the order of their paths. A link to a file is that file; one to a
/// directory is passed over, since it may lead round in a circle.
fn sources(args: &ImportArgs) -> Result<Vec<Source>, CliError> {
    let mut found = Vec::new();
    let mut directories = vec![args.directory.clone()];
    while let Some(directory) = directories.pop() {
        let cannot = || format!("cannot read the directory {}", directory.display());
        for entry in fs::read_dir(&directory).map_err(local(cannot()))? {
            let entry = entry.map_err(local(cannot()))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(local(cannot()))?;
            if kind.is_dir() {
                directories.push(path);
            } else if path.is_file() {
                found.push(Source { key: key(args, &path), path });
            } else {
                note(&format!("passed over, since it is no file: {}", path.display()));
            }
        }
    }
    found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok(found)
}

fn key(args: &ImportArgs, path: &Path) -> Bytes {
    let relative = path.strip_prefix(&args.directory).unwrap_or(path);
    let mut key = args.prefix.clone().into_bytes();
    key.extend_from_slice(relative.as_os_str().as_bytes());
    key.into()
}
