//! `larder del KEY…`: removes keys.

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use super::durability::WaitsFor;
use super::exit::{CliError, Exit};
use super::global::Global;
use super::keys::KeyForm;
use super::output::{bytes_json, note, print};

/// Arguments of `del`.
#[derive(Debug, Args)]
pub(super) struct DelArgs {
    /// The keys
    #[arg(required = true)]
    keys: Vec<String>,
    #[command(flatten)]
    waits_for: WaitsFor,
    #[command(flatten)]
    form: KeyForm,
}

pub(super) fn run(global: &Global, args: DelArgs) -> Result<Exit, CliError> {
    let keys: Vec<Bytes> = args.keys.iter().map(|key| args.form.key(key)).collect::<Result<_, _>>()?;
    let asked = keys.clone();
    let deleted = super::block_on(async {
        let client = global.client()?;
        let mut deleted = Vec::with_capacity(asked.len());
        for batch in asked.chunks(BATCH) {
            deleted.extend(client.batch_delete(batch.to_vec(), args.waits_for.durability).await?);
        }
        Ok(deleted)
    })?;
    let count = deleted.iter().filter(|deleted| **deleted).count();
    let results: Vec<Value> = keys
        .iter()
        .zip(&deleted)
        .map(|(key, deleted)| json!({ "key": bytes_json(key), "deleted": deleted }))
        .collect();
    print(global, &json!({ "deleted": count, "keys": results }), &[("deleted", &count)])?;
    if count == 0 {
        note("nothing deleted: there was no such entry");
        return Ok(Exit::NotMet);
    }
    Ok(Exit::Done)
}

/// Keys to a call: 1,000 of the longest keys stay just within a message.
const BATCH: usize = 1_000;
