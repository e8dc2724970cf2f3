//! `larder admin stats`: a node's figures, once or again and again.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use super::namespaces::{namespace_facts, namespace_lines, namespace_table};
use super::watch::{Rates, screen};
use crate::cli::exit::{CliError, Exit};
use crate::cli::facts::{Fact, Group, hit_ratio, json, lines, listing, whole_ms};
use crate::cli::global::Global;
use crate::cli::output::{colours, print_json, print_raw};
use crate::cli::parse;
use crate::client::{AdminClient, NodeStats, PolicyEstimate};

/// Arguments of `admin stats`.
#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    /// Show them again at every interval, 100ms to 1h, with what was done each second, until interrupted
    #[arg(long, value_name = "DUR", value_parser = interval)]
    watch: Option<Duration>,
}

pub(super) async fn run(global: &Global, admin: &AdminClient, args: StatsArgs) -> Result<Exit, CliError> {
    let Some(interval) = args.watch else {
        show(global, &admin.stats().await?, None)?;
        return Ok(Exit::Done);
    };
    let mut stream = admin.watch_stats(interval).await?;
    let mut before = None;
    while let Some(stats) = stream.next().await? {
        if !global.json() && io::stdout().is_terminal() {
            // Written over the screen before in one go: it does not flicker.
            let screen = screen(before.as_ref(), &stats).replace('\n', "\x1b[K\n");
            print_raw(format!("\x1b[H{screen}\x1b[J").as_bytes())?;
        } else {
            if !global.json() {
                print_raw(b"\n")?;
            }
            show(global, &stats, before.as_ref().and_then(|before| Rates::between(before, &stats)))?;
        }
        before = Some(stats);
    }
    Ok(Exit::Done)
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse::duration(text)?;
    if (Duration::from_millis(100)..=Duration::from_secs(3_600)).contains(&interval) {
        return Ok(interval);
    }
    Err("an interval is 100ms to 1h".to_owned())
}

fn show(global: &Global, stats: &NodeStats, rates: Option<Rates>) -> Result<(), CliError> {
    let mut groups = groups(stats);
    groups.extend(rates.as_ref().map(Rates::group));
    if global.json() {
        return print_json(&document(stats, &groups));
    }
    if !io::stdout().is_terminal() {
        let mut text = lines(&groups);
        if several(stats) {
            let facts =
                stats.namespaces.iter().map(|namespace| (&*namespace.name, namespace_facts(namespace)));
            text.push_str(&namespace_lines(facts));
        }
        return print_raw(text.as_bytes());
    }
    let mut text = listing(&groups, colours(&io::stdout()));
    if several(stats) {
        let facts = stats.namespaces.iter().map(|namespace| (&*namespace.name, namespace_facts(namespace)));
        text.push_str(&format!("{}\n", namespace_table(facts)));
    }
    print_raw(text.as_bytes())
}

/// Whether there are namespaces beside the default one, which alone has all of the figures above.
fn several(stats: &NodeStats) -> bool {
    stats.namespaces.len() > 1
}

fn document(stats: &NodeStats, groups: &[Group]) -> Value {
    let mut document = json(groups);
    let namespaces: Vec<Value> = stats
        .namespaces
        .iter()
        .map(|namespace| {
            let mut object: Map<String, Value> = namespace_facts(namespace)
                .into_iter()
                .map(|(name, fact)| (name.to_owned(), fact.json()))
                .collect();
            object.insert("name".to_owned(), Value::from(namespace.name.as_str()));
            object.insert("policy_estimates".to_owned(), estimates(&namespace.policy_estimates));
            Value::Object(object)
        })
        .collect();
    document.insert("namespaces".to_owned(), Value::Array(namespaces));
    document.insert("policy_estimates".to_owned(), estimates(&stats.policy_estimates));
    Value::Object(document)
}

pub(super) fn estimates(estimates: &[PolicyEstimate]) -> Value {
    estimates
        .iter()
        .map(|estimate| {
            json!({ "policy": estimate.policy, "hit_ratio": estimate.hit_ratio,
                    "lookups": estimate.lookups, "leader": estimate.leader })
        })
        .collect()
}

fn groups(stats: &NodeStats) -> Vec<Group> {
    vec![node(stats), memory(stats), lookups(stats), writes(stats), traffic(stats), persistence(stats)]
}

fn counts(facts: &[(&str, u64)]) -> Vec<(String, Fact)> {
    facts.iter().map(|(name, count)| ((*name).to_owned(), Fact::Count(*count))).collect()
}

fn node(stats: &NodeStats) -> Group {
    let facts = vec![
        ("state".to_owned(), Fact::Text(stats.state.as_str().to_owned())),
        ("node_id".to_owned(), Fact::Text(stats.node_id.clone())),
        ("incarnation".to_owned(), Fact::Token(stats.incarnation.unwrap_or_default())),
        ("build".to_owned(), Fact::Text(stats.build.clone())),
        ("uptime_ms".to_owned(), Fact::Ms(whole_ms(stats.uptime))),
        ("counted_ms".to_owned(), Fact::Ms(whole_ms(stats.counted))),
    ];
    Group { title: "Node", facts }
}

fn memory(stats: &NodeStats) -> Group {
    let mut facts = counts(&[("entries", stats.entries), ("guest_entries", stats.guest_entries)]);
    facts.push(("bytes_used".to_owned(), Fact::Bytes(stats.bytes_used)));
    facts.push(("bytes_limit".to_owned(), Fact::Bytes(stats.bytes_limit)));
    facts.push(("resident_bytes".to_owned(), Fact::Bytes(stats.resident_bytes.unwrap_or_default())));
    facts.push(("policy".to_owned(), Fact::Text(stats.policy.clone())));
    facts.extend(counts(&[
        ("evictions", stats.evictions),
        ("expirations", stats.expirations),
        ("invalidations", stats.invalidations),
        ("entries_invalidated", stats.entries_invalidated),
    ]));
    Group { title: "Memory", facts }
}

fn lookups(stats: &NodeStats) -> Group {
    let mut facts = counts(&[("hits", stats.hits), ("misses", stats.misses)]);
    facts.push(("hit_ratio".to_owned(), Fact::Ratio(hit_ratio(stats.hits, stats.misses))));
    facts.extend(counts(&[("stale_hits", stats.stale_hits)]));
    for (tier, count) in &stats.hits_by_tier {
        facts.push((format!("hits_by_tier.{tier}"), Fact::Count(*count)));
    }
    for (reason, count) in &stats.misses_by_reason {
        facts.push((format!("misses_by_reason.{reason}"), Fact::Count(*count)));
    }
    facts.extend(counts(&[("origin_loads", stats.origin_loads), ("origin_errors", stats.origin_errors)]));
    Group { title: "Lookups", facts }
}

fn writes(stats: &NodeStats) -> Group {
    let facts = counts(&[
        ("sets", stats.sets),
        ("sets_not_stored", stats.sets_not_stored),
        ("sets_refused", stats.sets_refused),
        ("deletes", stats.deletes),
        ("increments", stats.increments),
        ("touches", stats.touches),
    ]);
    Group { title: "Writes", facts }
}

fn traffic(stats: &NodeStats) -> Group {
    let facts = counts(&[
        ("connections", stats.connections),
        ("requests_in_flight", stats.requests_in_flight),
        ("requests_shed", stats.requests_shed),
        ("forwards", stats.forwards),
    ]);
    Group { title: "Traffic", facts }
}

fn persistence(stats: &NodeStats) -> Group {
    let Some(disk) = &stats.persistence else {
        return Group { title: "Persistence", facts: Vec::new() };
    };
    let name = |name: &str| format!("persistence.{name}");
    let facts = vec![
        (name("mode"), Fact::Text(disk.mode.clone())),
        (name("backend"), Fact::Text(disk.backend.clone())),
        (name("position"), Fact::Token(disk.position)),
        (name("synced_position"), Fact::Token(disk.synced_position)),
        (name("poisoned"), Fact::Text(disk.poisoned.clone().unwrap_or_default())),
        (name("disk_bytes"), Fact::Bytes(disk.disk_bytes)),
        (name("disk_limit_bytes"), Fact::Bytes(disk.disk_limit_bytes.unwrap_or_default())),
        (name("snapshot_position"), Fact::Token(disk.snapshot_position)),
        (name("snapshot_unix_ms"), Fact::Count(disk.snapshot_unix_ms.unwrap_or_default())),
        (name("blobs"), Fact::Count(disk.blobs)),
        (name("blob_bytes"), Fact::Bytes(disk.blob_bytes)),
        (name("entries"), Fact::Count(disk.entries)),
        (name("entries_damaged"), Fact::Count(disk.entries_damaged)),
    ];
    Group { title: "Persistence", facts }
}
