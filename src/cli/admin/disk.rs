//! `larder admin flush`, `snapshot`, `snapshots`, `verify` and `compact`: what is on a node's disk.

use std::io::{self, IsTerminal};

use clap::Args;
use serde_json::{Value, json};

use crate::cli::exit::{CliError, Exit};
use crate::cli::facts::{Fact, Group, json, lines, listing, whole_ms};
use crate::cli::global::Global;
use crate::cli::output::{colours, note, print_json, print_raw};
use crate::client::{AdminClient, Snapshot};

/// Arguments of `admin verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// snapshot+journal, snapshot, journal or empty [default: the node's --recovery]
    #[arg(
        long,
        value_name = "METHOD",
        default_value = "",
        hide_default_value = true,
        hide_possible_values = true,
        value_parser = super::offered("recovery")
    )]
    method: String,
}

pub(super) async fn flush(global: &Global, admin: &AdminClient) -> Result<Exit, CliError> {
    let position = admin.flush().await?;
    show(global, "Flushed", vec![("position", Fact::Token(position))])
}

pub(super) async fn snapshot(global: &Global, admin: &AdminClient) -> Result<Exit, CliError> {
    let taken = admin.create_snapshot().await?;
    let facts = vec![
        ("position", Fact::Token(taken.position)),
        ("entries", Fact::Count(taken.entries)),
        ("size_bytes", Fact::Bytes(taken.size_bytes)),
    ];
    show(global, "Snapshot", facts)
}

pub(super) async fn snapshots(global: &Global, admin: &AdminClient) -> Result<Exit, CliError> {
    let snapshots = admin.snapshots().await?;
    let groups: Vec<Group> = snapshots.iter().map(|snapshot| group("Snapshot", facts(snapshot))).collect();
    if global.json() {
        let all = groups.into_iter().map(|group| Value::Object(json(&[group]))).collect();
        print_json(&json!({ "snapshots": Value::Array(all) }))?;
        return Ok(Exit::Done);
    }
    if groups.is_empty() {
        note("there is none yet");
    }
    print_groups(&groups)
}

fn facts(snapshot: &Snapshot) -> Vec<(&'static str, Fact)> {
    vec![
        ("name", Fact::Text(snapshot.name.clone())),
        ("first_position", Fact::Token(snapshot.first_position)),
        ("position", Fact::Token(snapshot.position)),
        ("created_unix_ms", Fact::Count(snapshot.created_unix_ms)),
        ("entries", Fact::Count(snapshot.entries)),
        ("size_bytes", Fact::Bytes(snapshot.size_bytes)),
        ("format", Fact::Count(snapshot.format.into())),
    ]
}

pub(super) async fn verify(global: &Global, admin: &AdminClient, args: VerifyArgs) -> Result<Exit, CliError> {
    let found = admin.verify_recovery(&args.method).await?;
    let facts = vec![
        ("method", Fact::Text(found.method)),
        ("entries", Fact::Count(found.entries)),
        ("entry_bytes", Fact::Bytes(found.entry_bytes)),
        ("entries_expired", Fact::Count(found.entries_expired)),
        ("blobs", Fact::Count(found.blobs)),
        ("blob_bytes", Fact::Bytes(found.blob_bytes)),
        ("snapshot", Fact::Text(found.snapshot.unwrap_or_default())),
        ("first_position", Fact::Token(found.first_position)),
        ("position", Fact::Token(found.position)),
        ("torn_bytes", Fact::Bytes(found.torn_bytes)),
        ("elapsed_ms", Fact::Ms(whole_ms(found.elapsed))),
    ];
    show(global, "Recovery", facts)
}

pub(super) async fn compact(global: &Global, admin: &AdminClient) -> Result<Exit, CliError> {
    let compacted = admin.compact_journal().await?;
    let facts = vec![
        ("first_position", Fact::Token(compacted.first_position)),
        ("reclaimed_bytes", Fact::Bytes(compacted.reclaimed_bytes)),
        ("disk_bytes", Fact::Bytes(compacted.disk_bytes)),
    ];
    show(global, "Compacted", facts)
}

fn group(title: &'static str, facts: Vec<(&'static str, Fact)>) -> Group {
    Group { title, facts: facts.into_iter().map(|(name, fact)| (name.to_owned(), fact)).collect() }
}

fn show(global: &Global, title: &'static str, facts: Vec<(&'static str, Fact)>) -> Result<Exit, CliError> {
    let groups = [group(title, facts)];
    if global.json() {
        print_json(&Value::Object(json(&groups)))?;
        return Ok(Exit::Done);
    }
    print_groups(&groups)
}

fn print_groups(groups: &[Group]) -> Result<Exit, CliError> {
    let is_terminal = io::stdout().is_terminal();
    let text = if is_terminal { listing(groups, colours(&io::stdout())) } else { lines(groups) };
    print_raw(text.as_bytes())?;
    Ok(Exit::Done)
}
