//! `larder admin …`: running, observing and changing one node through its admin listener.

mod config;
mod disk;
mod keys;
mod memory;
mod namespaces;
mod slow;
mod stats;
mod watch;

pub(super) use config::lines as config_lines;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::exit::{CliError, Exit};
use super::global::Global;
use super::output::{note, print};
use super::parse::{self, Offered};
use crate::client::{AdminClient, PolicyEstimate};
use crate::config::Setting;
use crate::entry::ByteSize;

/// Arguments of `admin`.
#[derive(Debug, Args)]
pub(super) struct AdminArgs {
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Let a standby node serve; answered when it does
    Spawn,
    /// Let a node finish what runs and exit
    Drain(DrainArgs),
    /// Show a node's state, counters and sizes
    Stats(stats::StatsArgs),
    /// Set the counters of stats back to 0
    ResetStats,
    /// Show the eviction policy of --namespace, or change it while serving
    Policy(PolicyArgs),
    /// Change how many bytes the node, or with --namespace one namespace, may hold
    Resize(ResizeArgs),
    /// Remove all entries of --namespace
    Clear,
    /// List the namespaces with their figures, or create, change or delete one
    Namespaces(namespaces::NamespacesArgs),
    /// Show the keys that are asked for most
    HotKeys(keys::HotKeysArgs),
    /// Show where the bytes are, and what could be done about them
    Memory,
    /// Show what the node knows of one key; exit 1 where there is no entry
    Explain(keys::ExplainArgs),
    /// Show the configuration in force, and where each setting comes from; with set, change it while serving
    Config(config::ConfigArgs),
    /// Show the latest calls that took longer than --slow-op
    Slow,
    /// Wait until everything that was written before is on disk
    Flush,
    /// Take a snapshot now
    Snapshot,
    /// List the snapshots on disk, the newest first
    Snapshots,
    /// Rehearse a recovery from what is on disk, and change nothing; exit 3 where something is damaged
    Verify(disk::VerifyArgs),
    /// Take a snapshot and delete what it makes superfluous: older snapshots and the journal before it
    Compact,
}

#[derive(Debug, Args)]
struct DrainArgs {
    /// Cut off what still runs after this long [default: the node's --drain-deadline]
    #[arg(long, value_name = "DUR", value_parser = parse::positive_duration)]
    deadline: Option<Duration>,
}

#[derive(Debug, Args)]
struct PolicyArgs {
    /// The new policy: lru, lfu, fifo, sieve, s3-fifo, w-tinylfu, arc or adaptive
    #[arg(hide_possible_values = true, value_parser = offered("policy"))]
    name: Option<String>,
}

#[derive(Debug, Args)]
struct ResizeArgs {
    /// The new limit, such as 2GiB. Each shard needs room for two of the longest values: a quarter of --memory is
    /// enough unless --shards or --max-value was raised. With --namespace, 0 is no limit of its own
    size: ByteSize,
}

/// Any text, of which a shell's completion offers what a node's setting may be.
fn offered(flag: &str) -> Offered {
    Offered(Setting::of_flag(flag).map(|setting| setting.words()).unwrap_or_default())
}

pub(super) fn run(global: &Global, args: AdminArgs) -> Result<Exit, CliError> {
    super::block_on(async {
        let admin = global.admin_client()?;
        match args.command {
            AdminCommand::Spawn => spawn(global, &admin).await,
            AdminCommand::Drain(args) => drain(global, &admin, args).await,
            AdminCommand::Stats(args) => stats::run(global, &admin, args).await,
            AdminCommand::ResetStats => {
                admin.reset_stats().await?;
                print(global, &json!({ "reset": true }), &[("reset", &true)])?;
                Ok(Exit::Done)
            }
            AdminCommand::Policy(args) => policy(global, &admin, args).await,
            AdminCommand::Resize(args) => resize(global, &admin, args).await,
            AdminCommand::Clear => {
                let entries = admin.clear(&global.namespace).await?;
                let document = json!({ "namespace": global.namespace, "entries": entries });
                print(global, &document, &[("entries", &entries)])?;
                Ok(Exit::Done)
            }
            AdminCommand::Namespaces(args) => namespaces::run(global, &admin, args).await,
            AdminCommand::HotKeys(args) => keys::hot_keys(global, &admin, args).await,
            AdminCommand::Memory => memory::run(global, &admin).await,
            AdminCommand::Explain(args) => keys::explain(global, &admin, args).await,
            AdminCommand::Config(args) => config::run(global, &admin, args).await,
            AdminCommand::Slow => slow::run(global, &admin).await,
            AdminCommand::Flush => disk::flush(global, &admin).await,
            AdminCommand::Snapshot => disk::snapshot(global, &admin).await,
            AdminCommand::Snapshots => disk::snapshots(global, &admin).await,
            AdminCommand::Verify(args) => disk::verify(global, &admin, args).await,
            AdminCommand::Compact => disk::compact(global, &admin).await,
        }
    })
}

async fn spawn(global: &Global, admin: &AdminClient) -> Result<Exit, CliError> {
    let answer = admin.spawn().await?;
    let state = answer.state.as_str();
    let data = answer.addresses.join(",");
    print(
        global,
        &json!({ "state": state, "addresses": answer.addresses }),
        &[("state", &state), ("data", &data)],
    )?;
    Ok(Exit::Done)
}

async fn drain(global: &Global, admin: &AdminClient, args: DrainArgs) -> Result<Exit, CliError> {
    let state = admin.drain(args.deadline).await?.as_str();
    print(global, &json!({ "state": state }), &[("state", &state)])?;
    Ok(Exit::Done)
}

async fn policy(global: &Global, admin: &AdminClient, args: PolicyArgs) -> Result<Exit, CliError> {
    let namespace = &global.namespace;
    let Some(policy) = args.name else {
        let stats = admin.stats().await?;
        let found = if namespace.is_empty() {
            Some((stats.policy, stats.policy_estimates))
        } else {
            let mut namespaces = stats.namespaces.into_iter();
            namespaces.find(|of| of.name == *namespace).map(|of| (of.policy, of.policy_estimates))
        };
        let Some((policy, estimates)) = found else {
            note(&format!("there is no namespace {namespace:?}"));
            return Ok(Exit::NotMet);
        };
        let document = json!({ "namespace": namespace, "policy": policy,
            "policy_estimates": stats::estimates(&estimates) });
        let lines: Vec<(String, String)> = estimates.iter().map(estimate_line).collect();
        let mut facts: Vec<(&str, &dyn std::fmt::Display)> = vec![("policy", &policy)];
        facts.extend(lines.iter().map(|(name, text)| (&**name, text as &dyn std::fmt::Display)));
        print(global, &document, &facts)?;
        return Ok(Exit::Done);
    };
    let previous = admin.set_policy(namespace, &policy).await?;
    let document = json!({ "namespace": namespace, "policy": policy, "previous": previous });
    print(global, &document, &[("policy", &policy), ("previous", &previous)])?;
    Ok(Exit::Done)
}

/// What an adaptive policy believes of one of the ways that it tries.
fn estimate_line(estimate: &PolicyEstimate) -> (String, String) {
    let leads = if estimate.leader { " followed" } else { "" };
    let text = format!("hit_ratio {:.4} lookups {}{leads}", estimate.hit_ratio, estimate.lookups);
    (format!("estimate.{}", estimate.policy), text)
}

async fn resize(global: &Global, admin: &AdminClient, args: ResizeArgs) -> Result<Exit, CliError> {
    let previous = admin.resize(&global.namespace, args.size.0).await?;
    let document = json!({ "namespace": global.namespace, "bytes_limit": args.size.0,
        "previous_bytes_limit": previous });
    print(global, &document, &[("bytes_limit", &args.size.0), ("previous_bytes_limit", &previous)])?;
    Ok(Exit::Done)
}
