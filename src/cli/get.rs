//! `larder get KEY`: the value's bytes on stdout, and nothing else.

use std::io::{self, IsTerminal};

use clap::Args;
use serde_json::{Value, json};

use super::exit::{CliError, Exit};
use super::global::Global;
use super::keys::KeyForm;
use super::output::{bytes_json, note, print_json, print_raw, token_json};
use crate::api::v1;
use crate::client::GetOutcome;

/// Arguments of `get`.
#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The key
    key: String,
    #[command(flatten)]
    form: KeyForm,
}

pub(super) fn run(global: &Global, args: GetArgs) -> Result<Exit, CliError> {
    let key = args.form.key(&args.key)?;
    let asked = key.clone();
    let outcome = super::block_on(async { Ok(global.client()?.get(asked).await?) })?;
    let (hit, kind) = match &outcome {
        GetOutcome::Hit(hit) => (Some(hit), "hit"),
        GetOutcome::Stale(stale) => (stale.entry.as_ref(), "stale"),
        GetOutcome::Miss(_) => (None, "miss"),
    };
    if global.json() {
        print_json(&document(&key, kind, hit, &outcome))?;
    } else if let Some(hit) = hit {
        print_value(&hit.value)?;
    }
    match hit {
        Some(_) => Ok(Exit::Done),
        None => {
            note(&format!("miss: {} ({})", args.key.escape_debug(), reason(&outcome)));
            Ok(Exit::NotMet)
        }
    }
}

/// The raw bytes; on a terminal with a newline after them, so that the prompt stands on a line of its own.
fn print_value(value: &[u8]) -> Result<(), CliError> {
    print_raw(value)?;
    if io::stdout().is_terminal() && !value.ends_with(b"\n") {
        print_raw(b"\n")?;
    }
    Ok(())
}

fn document(key: &[u8], kind: &str, hit: Option<&v1::Hit>, outcome: &GetOutcome) -> Value {
    match hit {
        None => json!({ "outcome": kind, "key": bytes_json(key), "reason": reason(outcome) }),
        Some(hit) => json!({
            "outcome": kind,
            "key": bytes_json(key),
            "value": bytes_json(&hit.value),
            "version": token_json(hit.version),
            "remaining_ttl_ms": hit.remaining_ttl_ms,
            "flags": hit.flags,
            "content_type": hit.content_type,
            "tier": lower(hit.tier().as_str_name(), "TIER_"),
        }),
    }
}

fn reason(outcome: &GetOutcome) -> String {
    match outcome {
        GetOutcome::Miss(miss) => lower(miss.reason().as_str_name(), "MISS_REASON_"),
        _ => String::new(),
    }
}

/// An enum value's name as people write it: `MISS_REASON_OWNER_DOWN` is `owner_down`.
pub(super) fn lower(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}
