//! `larder admin explain` and `larder admin hot-keys`: what a node knows of single keys.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::num::NonZeroUsize;

use clap::Args;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

use crate::cli::escape::{bytes_json, escaped, quoted};
use crate::cli::exit::{CliError, Exit};
use crate::cli::facts::{Fact, Group, json, lines, listing, whole_ms};
use crate::cli::get::ttl_ms;
use crate::cli::global::Global;
use crate::cli::keys::KeyForm;
use crate::cli::output::{colours, print_json, print_raw};
use crate::client::{AdminClient, HotKey, HotKeys, KeyFound, KeyReport};

/// Arguments of `admin explain`.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The key, in --namespace
    key: OsString,
    #[command(flatten)]
    form: KeyForm,
}

pub(super) async fn explain(
    global: &Global,
    admin: &AdminClient,
    args: ExplainArgs,
) -> Result<Exit, CliError> {
    let key = args.form.key(&args.key)?;
    let answer = admin.explain(&global.namespace, key.clone()).await?;
    let groups = [entry(&answer), policy(&answer), place(&answer)];
    if global.json() {
        let mut document = json(&groups);
        document.insert("namespace".to_owned(), Value::from(global.namespace.as_str()));
        document.insert("key".to_owned(), bytes_json(&key));
        print_json(&Value::Object(document))?;
    } else if io::stdout().is_terminal() {
        print_raw(listing(&groups, colours(&io::stdout())).as_bytes())?;
    } else {
        print_raw(lines(&groups).as_bytes())?;
    }
    Ok(if matches!(answer.found, KeyFound::Entry(_)) { Exit::Done } else { Exit::NotMet })
}

fn group(title: &'static str, facts: Vec<(&str, Fact)>) -> Group {
    Group { title, facts: facts.into_iter().map(|(name, fact)| (name.to_owned(), fact)).collect() }
}

/// What a client put there, escaped as it may hold anything.
fn clients_text(text: &str) -> Fact {
    Fact::Text(escaped(text.as_bytes()).to_string())
}

fn entry(answer: &KeyReport) -> Group {
    let report = match &answer.found {
        KeyFound::Entry(report) => report,
        KeyFound::None(reason) => {
            let reason = Fact::Text(reason.as_str().to_owned());
            return group("Entry", vec![("there", Fact::Flag(false)), ("miss_reason", reason)]);
        }
    };
    let entry = &report.entry;
    let tags = report.tags.iter().map(|tag| escaped(tag.as_bytes()).to_string()).collect();
    let mut facts = vec![
        ("there", Fact::Flag(true)),
        ("version", Fact::Token(entry.version.0)),
        ("value_bytes", Fact::Bytes(entry.value_bytes)),
        ("charged_bytes", Fact::Bytes(report.charged_bytes)),
        ("remaining_ttl_ms", Fact::Ms(ttl_ms(entry.remaining_ttl))),
        ("flags", Fact::Count(entry.flags.into())),
        ("content_type", clients_text(&entry.content_type)),
        ("tags", Fact::Texts(tags)),
        ("tier", Fact::Text(entry.tier.as_str().to_owned())),
        ("entry_generation", Fact::Count(report.generation)),
    ];
    if report.stale || report.remaining_soft_ttl.is_some() {
        facts.push(("stale", Fact::Flag(report.stale)));
        facts.push(("remaining_soft_ttl_ms", Fact::Ms(ttl_ms(report.remaining_soft_ttl))));
    }
    group("Entry", facts)
}

fn policy(answer: &KeyReport) -> Group {
    let facts = vec![
        ("generation", Fact::Count(answer.generation)),
        ("policy", Fact::Text(answer.policy.clone())),
        ("policy_view", Fact::Text(answer.policy_view.clone().unwrap_or_default())),
    ];
    group("Namespace", facts)
}

fn place(answer: &KeyReport) -> Group {
    let facts = vec![
        ("node_id", Fact::Text(answer.node_id.clone())),
        ("owner", Fact::Text(answer.owner.clone())),
        ("ring_position", Fact::Token(answer.ring_position)),
        ("shard", Fact::Count(answer.shard.into())),
    ];
    group("Place", facts)
}

/// Arguments of `admin hot-keys`.
#[derive(Debug, Args)]
pub(super) struct HotKeysArgs {
    /// Show this many keys, the hottest ones [default: all that the node tells, up to 100]
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
}

pub(super) async fn hot_keys(
    global: &Global,
    admin: &AdminClient,
    args: HotKeysArgs,
) -> Result<Exit, CliError> {
    let mut answer = admin.hot_keys().await?;
    answer.keys.truncate(args.limit.map_or(usize::MAX, NonZeroUsize::get));
    if global.json() {
        let keys: Vec<Value> = answer
            .keys
            .iter()
            .map(|key| {
                json!({ "namespace": key.namespace, "key": bytes_json(&key.key), "count": key.count,
                        "count_error": key.count_error, "value_bytes": key.value_bytes })
            })
            .collect();
        let document =
            json!({ "lookups": answer.lookups, "window_ms": whole_ms(answer.window), "keys": keys });
        print_json(&document)?;
        return Ok(Exit::Done);
    }
    let mut text = format!("lookups {}\nwindow_ms {}\n", answer.lookups, whole_ms(answer.window));
    if io::stdout().is_terminal() {
        text.push_str(&format!("{}\n", table(&answer)));
    } else {
        for key in &answer.keys {
            let [name, namespace, share, count, count_error, value_bytes] = cells(key, answer.lookups);
            text.push_str(&format!(
                "key {name} namespace {namespace} share {share} count {count} count_error {count_error} \
                 value_bytes {value_bytes}\n"
            ));
        }
    }
    print_raw(text.as_bytes())?;
    Ok(Exit::Done)
}

fn table(answer: &HotKeys) -> Table {
    let mut table = Table::new();
    let header = ["key", "namespace", "share", "count", "count_error", "value_bytes"];
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    for key in &answer.keys {
        table.add_row(cells(key, answer.lookups));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Key and namespace in quotes and escaped; the share of all lookups that were for the key, about.
fn cells(key: &HotKey, lookups: u64) -> [String; 6] {
    let share = if lookups == 0 { 0.0 } else { key.count as f64 / lookups as f64 };
    [
        quoted(&key.key).to_string(),
        quoted(key.namespace.as_bytes()).to_string(),
        format!("{share:.6}"),
        key.count.to_string(),
        key.count_error.to_string(),
        key.value_bytes.to_string(),
    ]
}
