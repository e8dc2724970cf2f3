//! `larder touch KEY --ttl DUR`: a new time to live for an entry that is there.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::escape::{bytes_json, escaped};
use super::exit::{CliError, Exit};
use super::global::Global;
use super::keys::KeyForm;
use super::output::{note, print};
use super::parse;

/// Arguments of `touch`.
#[derive(Debug, Args)]
pub(super) struct TouchArgs {
    /// The key
    key: OsString,
    /// The new time to live, counted from now; 0 is never
    #[arg(long, value_name = "DUR", value_parser = parse::ttl)]
    ttl: Duration,
    #[command(flatten)]
    form: KeyForm,
}

pub(super) fn run(global: &Global, args: TouchArgs) -> Result<Exit, CliError> {
    let key = args.form.key(&args.key)?;
    let asked = key.clone();
    let found = super::block_on(async { Ok(global.client()?.touch(asked, args.ttl).await?) })?;
    print(global, &json!({ "key": bytes_json(&key), "found": found }), &[("found", &found)])?;
    if found {
        return Ok(Exit::Done);
    }
    note(&format!("not found: {}", escaped(&key)));
    Ok(Exit::NotMet)
}
