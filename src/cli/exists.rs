//! `larder exists KEY…`: whether there are entries, without reading their values.

use std::ffi::OsString;

use bytes::Bytes;
use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use super::escape::bytes_json;
use super::exit::{CliError, Exit};
use super::get::miss;
use super::global::Global;
use super::keys::KeyForm;
use super::output::{note, print};
use super::refusals::Refusals;
use crate::client::{Client, ClientError, GetOutcome};

/// Calls that are under way at once.
const CALLS_IN_FLIGHT: usize = 64;

/// Arguments of `exists`.
#[derive(Debug, Args)]
pub(super) struct ExistsArgs {
    /// The keys
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<OsString>,
    #[command(flatten)]
    form: KeyForm,
}

pub(super) fn run(global: &Global, args: ExistsArgs) -> Result<Exit, CliError> {
    let mut refused = Refusals::default();
    let keys = args.form.keys(&args.keys, &mut refused)?;
    let results = super::block_on(async {
        let client = &global.client()?;
        let asked = stream::iter(keys.clone()).map(|key| ask(client, key)).buffered(CALLS_IN_FLIGHT);
        asked.try_collect::<Vec<_>>().await
    })?;
    let (mut found, mut documents, mut missing) = (0_u64, Vec::new(), Vec::new());
    for (key, asked) in keys.iter().zip(results) {
        match asked {
            Asked::Refused(why) => refused.add(key, &why),
            Asked::Answered(outcome) => {
                let exists = outcome.entry().is_some();
                found += u64::from(exists);
                documents.push(json!({ "key": bytes_json(key), "exists": exists }));
                if !exists {
                    missing.push(miss(key, &outcome));
                }
            }
        }
    }
    let document = json!({ "found": found, "keys": Value::Array(documents), "refused": refused.count(),
        "refusals": refused.json() });
    print(global, &document, &[("found", &found)])?;
    missing.iter().for_each(|miss| note(miss));
    refused.tell("not asked for");
    Ok(match (refused.count(), missing.len()) {
        (0, 0) => Exit::Done,
        (0, _) => Exit::NotMet,
        _ => Exit::Refused,
    })
}

/// What came of asking a node for one key.
enum Asked {
    Answered(GetOutcome),
    /// Something is wrong with this key alone.
    Refused(String),
}

async fn ask(client: &Client, key: Bytes) -> Result<Asked, CliError> {
    match client.metadata(key).await {
        Ok(outcome) => Ok(Asked::Answered(outcome)),
        Err(ClientError::Status(refusal)) if !refusal.fields.is_empty() => {
            Ok(Asked::Refused(refusal.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}
