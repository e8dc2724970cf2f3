//! `larder admin namespaces`: what namespaces there are, with their settings and figures, and changing them.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::{Map, Value, json};

use crate::cli::exit::{CliError, Exit};
use crate::cli::facts::{Fact, hit_ratio, named_lines, whole_ms};
use crate::cli::global::Global;
use crate::cli::output::{print, print_json, print_raw};
use crate::cli::parse;
use crate::client::{AdminClient, NamespaceSettings, NamespaceStats, NamespaceUpdate};
use crate::entry::ByteSize;

/// Arguments of `admin namespaces`.
#[derive(Debug, Args)]
pub(super) struct NamespacesArgs {
    /// What to do with one [default: list all]
    #[command(subcommand)]
    command: Option<NamespacesCommand>,
}

#[derive(Debug, Subcommand)]
enum NamespacesCommand {
    /// Create a namespace
    Create(CreateArgs),
    /// Change a namespace; what is not given stays
    Update(UpdateArgs),
    /// Remove a namespace with all its entries
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Its name, 1 to 255 bytes without control characters
    name: String,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
struct UpdateArgs {
    /// Its name; "" is the default one
    name: String,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
struct DeleteArgs {
    /// Its name
    name: String,
}

#[derive(Debug, Args)]
struct SettingsArgs {
    /// The most bytes that its entries may take, such as 64MiB; 0B is no cap of its own
    #[arg(long, value_name = "SIZE")]
    bytes_limit: Option<ByteSize>,
    /// Its eviction policy; "" is the node's
    #[arg(long, value_name = "NAME", hide_possible_values = true, value_parser = super::offered("policy"))]
    policy: Option<String>,
    /// The time to live of what is stored without one; 0 never ends
    #[arg(long, value_name = "DUR", value_parser = parse::ttl)]
    default_ttl: Option<Duration>,
    /// How long clients may answer from their own copies of its entries, which may then be that much out of date; 0 is only
    /// while Watch keeps the copies true
    #[arg(long, value_name = "DUR", value_parser = parse::near_cache_ttl)]
    near_cache_ttl: Option<Duration>,
}

impl From<SettingsArgs> for NamespaceUpdate {
    fn from(args: SettingsArgs) -> Self {
        Self {
            bytes_limit: args.bytes_limit.map(|size| size.0),
            policy: args.policy,
            default_ttl: args.default_ttl,
            near_cache_ttl: args.near_cache_ttl,
        }
    }
}

pub(super) async fn run(
    global: &Global,
    admin: &AdminClient,
    args: NamespacesArgs,
) -> Result<Exit, CliError> {
    match args.command {
        None => list(global, admin).await?,
        Some(NamespacesCommand::Create(args)) => {
            let config = admin.create_namespace(&args.name, &args.settings.into()).await?;
            print_config(global, &config)?;
        }
        Some(NamespacesCommand::Update(args)) => {
            let change = NamespaceUpdate::from(args.settings);
            if change == NamespaceUpdate::default() {
                let what = "there is nothing to change: give --bytes-limit, --policy, --default-ttl or \
                            --near-cache-ttl";
                return Err(CliError::Usage(what.to_owned()));
            }
            print_config(global, &admin.update_namespace(&args.name, &change).await?)?;
        }
        Some(NamespacesCommand::Delete(args)) => {
            let gone = admin.delete_namespace(&args.name).await?;
            let document = json!({ "name": args.name, "entries": gone.entries, "blobs": gone.blobs });
            print(global, &document, &[("entries", &gone.entries), ("blobs", &gone.blobs)])?;
        }
    }
    Ok(Exit::Done)
}

fn print_config(global: &Global, config: &NamespaceSettings) -> Result<(), CliError> {
    let bytes_limit = config.bytes_limit.unwrap_or_default();
    let default_ttl_ms = config.default_ttl.map_or(0, whole_ms);
    let near_cache_ttl_ms = whole_ms(config.near_cache_ttl);
    let document = json!({ "name": config.name, "bytes_limit": bytes_limit, "policy": config.policy,
        "default_ttl_ms": default_ttl_ms, "near_cache_ttl_ms": near_cache_ttl_ms });
    let name = format!("{:?}", config.name);
    let facts: [(&str, &dyn std::fmt::Display); 5] = [
        ("name", &name),
        ("bytes_limit", &bytes_limit),
        ("policy", &config.policy),
        ("default_ttl_ms", &default_ttl_ms),
        ("near_cache_ttl_ms", &near_cache_ttl_ms),
    ];
    print(global, &document, &facts)
}

async fn list(global: &Global, admin: &AdminClient) -> Result<(), CliError> {
    let configs = admin.namespaces().await?;
    let stats = admin.stats().await?;
    let figures: HashMap<&str, &NamespaceStats> =
        stats.namespaces.iter().map(|stats| (stats.name.as_str(), stats)).collect();
    let facts = configs.iter().map(|config| {
        // One that was created between the two calls has done nothing yet.
        let mut stats =
            figures.get(config.name.as_str()).map_or_else(Default::default, |stats| (*stats).clone());
        (stats.policy, stats.bytes_limit) = (config.policy.clone(), config.bytes_limit);
        let mut facts = vec![("default_ttl_ms", Fact::Ms(config.default_ttl.map_or(0, whole_ms)))];
        facts.extend(namespace_facts(&stats));
        facts.push(("near_cache_ttl_ms", Fact::Ms(whole_ms(config.near_cache_ttl))));
        (&*config.name, facts)
    });
    if global.json() {
        let namespaces: Vec<Value> = facts
            .map(|(name, facts)| {
                let facts = facts.into_iter().map(|(name, fact)| (name.to_owned(), fact.json()));
                let mut object: Map<String, Value> = facts.collect();
                object.insert("name".to_owned(), Value::from(name));
                Value::Object(object)
            })
            .collect();
        print_json(&json!({ "namespaces": namespaces }))
    } else if io::stdout().is_terminal() {
        print_raw(format!("{}\n", namespace_table(facts)).as_bytes())
    } else {
        print_raw(namespace_lines(facts).as_bytes())
    }
}

/// A namespace's name and its facts.
type Named<'n> = (&'n str, Vec<(&'static str, Fact)>);

pub(super) fn namespace_facts(namespace: &NamespaceStats) -> Vec<(&'static str, Fact)> {
    vec![
        ("policy", Fact::Text(namespace.policy.clone())),
        ("entries", Fact::Count(namespace.entries)),
        ("bytes_used", Fact::Bytes(namespace.bytes_used)),
        ("bytes_limit", Fact::Bytes(namespace.bytes_limit.unwrap_or_default())),
        ("hits", Fact::Count(namespace.hits)),
        ("misses", Fact::Count(namespace.misses)),
        ("hit_ratio", Fact::Ratio(hit_ratio(namespace.hits, namespace.misses))),
        ("sets", Fact::Count(namespace.sets)),
        ("sets_not_stored", Fact::Count(namespace.sets_not_stored)),
        ("sets_refused", Fact::Count(namespace.sets_refused)),
        ("deletes", Fact::Count(namespace.deletes)),
        ("evictions", Fact::Count(namespace.evictions)),
        ("expirations", Fact::Count(namespace.expirations)),
        ("entries_invalidated", Fact::Count(namespace.entries_invalidated)),
        ("generation", Fact::Count(namespace.generation)),
    ]
}

/// One fact a line, for scripts.
pub(super) fn namespace_lines<'n>(namespaces: impl Iterator<Item = Named<'n>>) -> String {
    let plain = |facts: Vec<(&'static str, Fact)>| {
        facts.into_iter().map(|(name, fact)| (name, fact.plain())).collect()
    };
    named_lines("namespace", namespaces.map(|(namespace, facts)| (namespace, plain(facts))))
}

/// One namespace a row, with as many figures as a terminal is wide.
pub(super) fn namespace_table<'n>(namespaces: impl Iterator<Item = Named<'n>>) -> Table {
    const COLUMNS: usize = 8;
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    for (row, (namespace, facts)) in namespaces.enumerate() {
        if row == 0 {
            let names = facts.iter().take(COLUMNS).map(|(name, _)| *name);
            table.set_header(std::iter::once("namespace").chain(names));
        }
        let cells = facts.iter().take(COLUMNS).map(|(_, fact)| fact.plain());
        table.add_row(std::iter::once(format!("{namespace:?}")).chain(cells));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
