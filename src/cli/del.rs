//! `larder del KEY…`: removes keys, those of the command line or, with `-0`, those that stdin lists.

use std::ffi::OsString;
use std::io::{self, BufRead};

use bytes::Bytes;
use clap::Args;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::durability::WaitsFor;
use super::escape::bytes_json;
use super::exit::{CliError, Exit, local};
use super::global::Global;
use super::keys::{self, KeyForm};
use super::output::{note, print};
use super::refusals::Refusals;
use crate::client::Client;
use crate::entry::KEY_BYTES_MAX;

/// Arguments of `del`.
#[derive(Debug, Args)]
pub(super) struct DelArgs {
    /// The keys
    #[arg(required_unless_present = "null", value_name = "KEY")]
    keys: Vec<OsString>,
    /// Read keys from stdin, each ended by a zero byte, as scan -0 prints them
    #[arg(short = '0', long, conflicts_with_all = ["keys", "escaped", "key_json", "key_hex"])]
    null: bool,
    #[command(flatten)]
    waits_for: WaitsFor,
    #[command(flatten)]
    form: KeyForm,
}

/// Keys that are deleted together.
const BATCH: usize = 1_000;

/// What became of the keys.
#[derive(Debug, Default)]
struct Tally {
    deleted: u64,
    refused: Refusals,
    /// Of each key, in the order of the command line.
    keys: Vec<Value>,
}

pub(super) fn run(global: &Global, args: DelArgs) -> Result<Exit, CliError> {
    let mut tally = Tally::default();
    if args.null {
        super::block_on(async { listed(&global.client()?, &args, &mut tally).await })?;
    } else {
        let keys = args.form.keys(&args.keys, &mut tally.refused)?;
        super::block_on(async { delete(&global.client()?, &args, keys, &mut tally).await })?;
    }
    let refused = tally.refused.count();
    let mut document = Map::new();
    document.insert("deleted".to_owned(), Value::from(tally.deleted));
    document.insert("refused".to_owned(), Value::from(refused));
    document.insert("refusals".to_owned(), tally.refused.json());
    if !args.null {
        document.insert("keys".to_owned(), Value::Array(tally.keys));
    }
    let mut facts: Vec<(&str, &dyn std::fmt::Display)> = vec![("deleted", &tally.deleted)];
    if refused > 0 {
        facts.push(("refused", &refused));
    }
    print(global, &Value::Object(document), &facts)?;
    tally.refused.tell("not deleted");
    if refused > 0 {
        return Ok(Exit::Refused);
    }
    if tally.deleted == 0 {
        note("nothing deleted: there was no such entry");
        return Ok(Exit::NotMet);
    }
    Ok(Exit::Done)
}

async fn delete(
    client: &Client,
    args: &DelArgs,
    keys: Vec<Bytes>,
    tally: &mut Tally,
) -> Result<(), CliError> {
    let results = client.batch_delete(keys.clone(), args.waits_for.durability).await?;
    for (key, result) in keys.iter().zip(results) {
        match result {
            Ok(deleted) => {
                tally.deleted += u64::from(deleted);
                if !args.null {
                    tally.keys.push(json!({ "key": bytes_json(key), "deleted": deleted }));
                }
            }
            Err(refusal) => tally.refused.add(key, &refusal.to_string()),
        }
    }
    Ok(())
}

/// Deletes what stdin lists while it is read.
async fn listed(client: &Client, args: &DelArgs, tally: &mut Tally) -> Result<(), CliError> {
    let (lots, mut list) = mpsc::channel(LOTS_WAITING);
    // On a thread of its own, as a pipe may keep it waiting while the connection has to be looked after.
    std::thread::spawn(move || read(&mut io::stdin().lock(), &lots));
    while let Some(lot) = list.recv().await {
        let (keys, refused) = lot.map_err(local("cannot read stdin"))?;
        tally.refused.extend(refused);
        delete(client, args, keys, tally).await?;
    }
    Ok(())
}

/// Keys of a list that can be sent, and those that cannot.
type Lot = (Vec<Bytes>, Refusals);

/// Hands a list out in lots, to its end or until nobody wants more.
fn read(list: &mut impl BufRead, lots: &mpsc::Sender<io::Result<Lot>>) {
    loop {
        let lot = lot(list);
        let is_last = match &lot {
            Ok((keys, refused)) => keys.is_empty() && refused.count() == 0,
            Err(_) => true,
        };
        if lots.blocking_send(lot).is_err() || is_last {
            return;
        }
    }
}

fn lot(list: &mut impl BufRead) -> io::Result<Lot> {
    let (mut keys, mut refused) = (Vec::new(), Refusals::default());
    for _ in 0..BATCH {
        let Some(key) = next_key(list)? else { break };
        let shown = Bytes::copy_from_slice(&key[..key.len().min(SHOWN)]);
        match keys::check(key) {
            Ok(key) => keys.push(key),
            Err(why) => refused.add(&shown, &why),
        }
    }
    Ok((keys, refused))
}

/// Lots that wait to be deleted.
const LOTS_WAITING: usize = 2;
/// How much is shown of a key that is too long.
const SHOWN: usize = 128;

/// The bytes before the next zero byte, or before the end. Of a key that is too long no more is kept than shows it.
fn next_key(list: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let (mut key, mut is_first) = (Vec::new(), true);
    loop {
        let part = match list.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            part => part?,
        };
        if part.is_empty() {
            return Ok((!is_first).then_some(key));
        }
        is_first = false;
        let end = part.iter().position(|byte| *byte == 0);
        let found = &part[..end.unwrap_or(part.len())];
        let room = (KEY_BYTES_MAX + 1).saturating_sub(key.len());
        key.extend_from_slice(&found[..found.len().min(room)]);
        let used = found.len() + usize::from(end.is_some());
        list.consume(used);
        if end.is_some() {
            return Ok(Some(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_a_key_before_each_zero_byte_and_bounded_memory_for_one_that_has_none() {
        let mut list = &b"a\0caf\xe9\n\0\0last"[..];
        let mut keys = Vec::new();
        while let Some(key) = next_key(&mut list).unwrap() {
            keys.push(key);
        }
        assert_eq!(keys, [&b"a"[..], b"caf\xe9\n", b"", b"last"]);
        let mut endless = io::BufReader::new(io::Read::take(io::repeat(b'k'), 1 << 20));
        assert_eq!(next_key(&mut endless).unwrap().map(|key| key.len()), Some(KEY_BYTES_MAX + 1));
        assert_eq!(next_key(&mut endless).unwrap(), None);
    }
}
