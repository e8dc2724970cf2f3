//! `larder get KEY…`: the value's bytes on stdout, and nothing else; of several keys, a line each.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use super::escape::{bytes_json, escaped, shown};
use super::exit::{CliError, Exit};
use super::facts::whole_ms;
use super::global::Global;
use super::keys::KeyForm;
use super::output::{note, print_json, print_raw, token_json};
use super::refusals::Refusals;
use crate::client::GetOutcome;

/// Arguments of `get`.
#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The keys; of several, each that is there is a line: the key, a tab and the value, both escaped
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<OsString>,
    #[command(flatten)]
    form: KeyForm,
}

pub(super) fn run(global: &Global, args: GetArgs) -> Result<Exit, CliError> {
    match &args.keys[..] {
        [key] => one(global, args.form.key(key)?),
        several => many(global, args.form, several),
    }
}

fn one(global: &Global, key: Bytes) -> Result<Exit, CliError> {
    let asked = key.clone();
    let outcome = super::block_on(async { Ok(global.client()?.get(asked).await?) })?;
    if global.json() {
        print_json(&document(&key, &outcome))?;
    } else if let Some(hit) = outcome.entry() {
        print_value(&hit.value)?;
    }
    if outcome.entry().is_some() {
        return Ok(Exit::Done);
    }
    note(&miss(&key, &outcome));
    Ok(Exit::NotMet)
}

fn many(global: &Global, form: KeyForm, texts: &[OsString]) -> Result<Exit, CliError> {
    let mut refused = Refusals::default();
    let keys = form.keys(texts, &mut refused)?;
    let asked = keys.clone();
    let results = super::block_on(async { Ok(global.client()?.batch_get(asked).await?) })?;
    let (mut lines, mut documents, mut found) = (String::new(), Vec::new(), 0);
    let mut missed = Vec::new();
    for (key, result) in keys.iter().zip(results) {
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(refusal) => {
                refused.add(key, &refusal.to_string());
                continue;
            }
        };
        match outcome.entry() {
            Some(hit) => {
                found += 1;
                if !global.json() {
                    lines.push_str(&format!("{}\t{}\n", escaped(key), escaped(&hit.value)));
                }
            }
            None => missed.push(miss(key, &outcome)),
        }
        if global.json() {
            documents.push(document(key, &outcome));
        }
    }
    if global.json() {
        let refusals = refused.json();
        print_json(
            &json!({ "found": found, "keys": documents, "refused": refused.count(), "refusals": refusals }),
        )?;
    } else {
        print_raw(lines.as_bytes())?;
    }
    missed.iter().for_each(|miss| note(miss));
    refused.tell("not asked for");
    Ok(match (refused.count(), missed.len()) {
        (0, 0) => Exit::Done,
        (0, _) => Exit::NotMet,
        _ => Exit::Refused,
    })
}

/// The raw bytes; on a terminal nothing that would drive it, and a newline after them, so that the prompt stands on a
/// line of its own.
fn print_value(value: &[u8]) -> Result<(), CliError> {
    if !io::stdout().is_terminal() {
        return print_raw(value);
    }
    let mut text = shown(value);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    print_raw(text.as_bytes())
}

/// What to say of a miss.
pub(super) fn miss(key: &[u8], outcome: &GetOutcome) -> String {
    format!("miss: {} ({})", escaped(key), reason(outcome))
}

fn document(key: &[u8], outcome: &GetOutcome) -> Value {
    let Some(hit) = outcome.entry() else {
        return json!({ "outcome": "miss", "key": bytes_json(key), "reason": reason(outcome) });
    };
    json!({
        "outcome": if matches!(outcome, GetOutcome::Stale(_)) { "stale" } else { "hit" },
        "key": bytes_json(key),
        "value": bytes_json(&hit.value),
        "version": token_json(hit.version.0),
        "remaining_ttl_ms": ttl_ms(hit.remaining_ttl),
        "flags": hit.flags,
        "content_type": hit.content_type,
        "tier": hit.tier.as_str(),
    })
}

fn reason(outcome: &GetOutcome) -> &'static str {
    match outcome {
        GetOutcome::Miss(reason) => reason.as_str(),
        _ => "",
    }
}

/// What is left of a life as documents and facts have it: 0 is one without an end.
pub(super) fn ttl_ms(remaining: Option<Duration>) -> u64 {
    remaining.map_or(0, whole_ms)
}
