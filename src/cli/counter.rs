//! `larder incr` and `larder decr`: counters. What a counter is then is printed bare, as `get` would.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::durability::WaitsFor;
use super::escape::bytes_json;
use super::exit::{CliError, Exit};
use super::global::Global;
use super::keys::KeyForm;
use super::output::{print_json, print_raw, token_json};
use super::parse;
use crate::client::CounterOptions;

/// Arguments of `incr` and `decr`.
#[derive(Debug, Args)]
pub(super) struct CounterArgs {
    /// The key
    key: OsString,
    /// By how much
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = not_zero)]
    by: i64,
    /// What a missing counter counts as
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    initial: i64,
    /// When a counter that is made by this call expires; `touch --ttl 0` makes one live for ever [default: the namespace's
    /// default]
    #[arg(long, value_name = "DUR", value_parser = parse::ttl_or_default)]
    ttl: Option<Duration>,
    #[command(flatten)]
    waits_for: WaitsFor,
    #[command(flatten)]
    form: KeyForm,
}

/// Which way a counter goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
}

pub(super) fn run(global: &Global, args: CounterArgs, direction: Direction) -> Result<Exit, CliError> {
    let key = args.form.key(&args.key)?;
    let asked = key.clone();
    let (initial, durability) = (args.initial, args.waits_for.durability);
    let options = CounterOptions { initial, ttl: args.ttl.unwrap_or_default(), durability, request_id: None };
    let counter = super::block_on(async {
        let client = global.client()?;
        Ok(match direction {
            Direction::Up => client.increment(asked, args.by, &options).await?,
            Direction::Down => client.decrement(asked, args.by, &options).await?,
        })
    })?;
    if global.json() {
        let version = token_json(counter.version.0);
        print_json(&json!({ "key": bytes_json(&key), "value": counter.value, "version": version }))?;
    } else {
        print_raw(format!("{}\n", counter.value).as_bytes())?;
    }
    Ok(Exit::Done)
}

/// On the wire a delta of 0 counts as 1, which nobody who writes 0 means.
fn not_zero(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(0) => Err("a counter moves by at least 1; use get to read it".to_owned()),
        Ok(by) => Ok(by),
        Err(_) => Err("write a whole number of 64 bits".to_owned()),
    }
}
