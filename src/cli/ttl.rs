//! `larder ttl KEY`: how long an entry has to live.

use std::ffi::OsString;

use clap::Args;
use serde_json::json;

use super::escape::bytes_json;
use super::exit::{CliError, Exit};
use super::get::{miss, ttl_ms};
use super::global::Global;
use super::keys::KeyForm;
use super::output::{note, print, print_json, token_json};

/// Arguments of `ttl`.
#[derive(Debug, Args)]
pub(super) struct TtlArgs {
    /// The key
    key: OsString,
    #[command(flatten)]
    form: KeyForm,
}

pub(super) fn run(global: &Global, args: TtlArgs) -> Result<Exit, CliError> {
    let key = args.form.key(&args.key)?;
    let asked = key.clone();
    let outcome = super::block_on(async { Ok(global.client()?.metadata(asked).await?) })?;
    let Some(hit) = outcome.entry() else {
        if global.json() {
            print_json(&json!({ "key": bytes_json(&key), "exists": false }))?;
        }
        note(&miss(&key, &outcome));
        return Ok(Exit::NotMet);
    };
    let remaining_ttl_ms = ttl_ms(hit.remaining_ttl);
    let document = json!({ "key": bytes_json(&key), "exists": true, "remaining_ttl_ms": remaining_ttl_ms,
        "version": token_json(hit.version.0) });
    print(global, &document, &[("remaining_ttl_ms", &remaining_ttl_ms)])?;
    if hit.remaining_ttl.is_none() {
        note("it never expires");
    }
    Ok(Exit::Done)
}
