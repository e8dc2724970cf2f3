//! `larder admin config`: the settings in force and where each comes from; with `set`, changes of them.

use std::collections::HashMap;
use std::io::{self, IsTerminal};

use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde_json::{Map, Value, json};

use crate::cli::exit::{CliError, Exit};
use crate::cli::facts::Fact;
use crate::cli::get::lower;
use crate::cli::global::Global;
use crate::cli::output::{print_json, print_raw};
use crate::client::AdminClient;
use crate::config::{Setting, SettingValue};
use crate::proto::{settings as fields, v1};

/// Arguments of `admin config`.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: Option<ConfigCommand>,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Change settings while the node serves, all or none, until it restarts
    Set(SetArgs),
}

#[derive(Debug, Args)]
struct SetArgs {
    /// A setting, as its flag is written without dashes, and its new value: stats-interval=10s
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = change)]
    changes: Vec<Change>,
}

/// A setting and the value that it is to have.
#[derive(Debug, Clone)]
struct Change {
    setting: &'static Setting,
    value: SettingValue,
}

fn change(text: &str) -> Result<Change, String> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(format!("{text:?} has no value; write KEY=VALUE, such as stats-interval=10s"));
    };
    let Some(setting) = Setting::of_flag(key) else {
        let advice = match Setting::nearest_flag(key) {
            Some(flag) => format!("did you mean {flag:?}?"),
            None => "see larder admin config".to_owned(),
        };
        return Err(format!("there is no setting {key:?}; {advice}"));
    };
    if !setting.live {
        return Err(format!("{key} cannot be changed while a node serves: restart it with --{key}"));
    }
    Ok(Change { setting, value: setting.value(value)? })
}

pub(super) async fn run(global: &Global, admin: &AdminClient, args: ConfigArgs) -> Result<Exit, CliError> {
    match args.command {
        None => show(global, admin).await,
        Some(ConfigCommand::Set(args)) => set(global, admin, args.changes).await,
    }
}

async fn set(global: &Global, admin: &AdminClient, changes: Vec<Change>) -> Result<Exit, CliError> {
    let (mut config, mut paths) = (v1::Config::default(), Vec::new());
    for Change { setting, value } in changes {
        match value {
            SettingValue::Number(number) => fields::set_number(&mut config, setting.field, number),
            SettingValue::Text(text) => fields::set_text(&mut config, setting.field, text),
        };
        paths.push(setting.field.to_owned());
    }
    let now = settings(&admin.update_config(config, paths.clone()).await?);
    let changed = now.into_iter().filter(|(name, _)| paths.iter().any(|path| path == name));
    if global.json() {
        let document: Map<String, Value> =
            changed.map(|(name, fact)| (name.to_owned(), fact.json())).collect();
        print_json(&Value::Object(document))?;
    } else {
        let text: String = changed.map(|(name, fact)| format!("{name} {}\n", fact.plain())).collect();
        print_raw(text.as_bytes())?;
    }
    Ok(Exit::Done)
}

async fn show(global: &Global, admin: &AdminClient) -> Result<Exit, CliError> {
    let answer = admin.config().await?;
    let settings = settings(&answer.config.clone().unwrap_or_default());
    let origins: HashMap<&str, &v1::ConfigField> =
        answer.fields.iter().map(|field| (field.path.as_str(), field)).collect();
    let source = |name: &str| source(&answer, name);
    if global.json() {
        let document: Map<String, Value> = settings
            .iter()
            .map(|(name, fact)| {
                let live = origins.get(name).is_some_and(|field| field.live);
                ((*name).to_owned(), json!({ "value": fact.json(), "source": source(name), "live": live }))
            })
            .collect();
        print_json(&Value::Object(document))?;
    } else if io::stdout().is_terminal() {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_header(["setting", "value", "from", "live"]);
        for (name, fact) in &settings {
            let live = if origins.get(name).is_some_and(|field| field.live) { "yes" } else { "" };
            table.add_row([(*name).to_owned(), fact.plain(), source(name), live.to_owned()]);
        }
        print_raw(format!("{table}\n").as_bytes())?;
    } else {
        print_raw(lines(&answer).as_bytes())?;
    }
    Ok(Exit::Done)
}

/// A line for each setting: its name, its value and where that comes from.
pub(in crate::cli) fn lines(answer: &v1::GetConfigResponse) -> String {
    let settings = settings(&answer.config.clone().unwrap_or_default());
    let line = |(name, fact): (&str, Fact)| {
        format!("{name} {} {}\n", fact.plain(), Fact::Text(source(answer, name)).plain())
    };
    settings.into_iter().map(line).collect()
}

/// Where a setting's value comes from.
fn source(answer: &v1::GetConfigResponse, name: &str) -> String {
    let field = answer.fields.iter().find(|field| field.path == name);
    field.map_or_else(String::new, |field| lower(field.source().as_str_name(), "CONFIG_SOURCE_"))
}

/// Every setting under its path in the Config message, in that message's order.
fn settings(config: &v1::Config) -> Vec<(&'static str, Fact)> {
    let text = |text: &str| Fact::Text(text.to_owned());
    let durability = lower(config.durability().as_str_name(), "DURABILITY_");
    vec![
        ("listen", Fact::Texts(config.listen.clone())),
        ("admin", text(&config.admin)),
        ("health", text(&config.health)),
        ("http", text(&config.http)),
        ("data_dir", text(&config.data_dir)),
        ("memory_bytes", Fact::Bytes(config.memory_bytes)),
        ("shards", Fact::Count(config.shards.into())),
        ("policy", text(&config.policy)),
        ("persistence", text(&config.persistence)),
        ("backend", text(&config.backend)),
        ("durability", Fact::Text(durability)),
        ("flush_interval_ms", Fact::Ms(config.flush_interval_ms)),
        ("disk_limit_bytes", Fact::Bytes(config.disk_limit_bytes)),
        ("recovery", text(&config.recovery)),
        ("node_id", text(&config.node_id)),
        ("advertise", text(&config.advertise)),
        ("weight", Fact::Count(config.weight.into())),
        ("zone", text(&config.zone)),
        ("members", text(&config.members)),
        ("ring_points", Fact::Count(config.ring_points.into())),
        ("absence_after_ms", Fact::Ms(config.absence_after_ms)),
        ("restart_grace_ms", Fact::Ms(config.restart_grace_ms)),
        ("guest_ttl_ms", Fact::Ms(config.guest_ttl_ms)),
        ("cluster_key", text(&config.cluster_key)),
        ("origin", text(&config.origin)),
        ("timeout_ms", Fact::Ms(config.timeout_ms)),
        ("stats_interval_ms", Fact::Ms(config.stats_interval_ms)),
        ("lame_duck_ms", Fact::Ms(config.lame_duck_ms)),
        ("drain_deadline_ms", Fact::Ms(config.drain_deadline_ms)),
        ("standby", Fact::Flag(config.standby)),
        ("insecure", Fact::Flag(config.insecure)),
        ("log_format", text(&config.log_format)),
        ("max_key_bytes", Fact::Bytes(config.max_key_bytes)),
        ("max_value_bytes", Fact::Bytes(config.max_value_bytes)),
        ("max_message_in_bytes", Fact::Bytes(config.max_message_in_bytes)),
        ("max_message_out_bytes", Fact::Bytes(config.max_message_out_bytes)),
        ("max_batch", Fact::Count(config.max_batch.into())),
        ("max_content_type_bytes", Fact::Bytes(config.max_content_type_bytes)),
        ("max_tags", Fact::Count(config.max_tags.into())),
        ("max_tag_bytes", Fact::Bytes(config.max_tag_bytes)),
        ("max_ttl_ms", Fact::Ms(config.max_ttl_ms)),
        ("max_namespaces", Fact::Count(config.max_namespaces.into())),
        ("max_connections", Fact::Count(config.max_connections.into())),
        ("max_in_flight", Fact::Count(config.max_in_flight.into())),
        ("slow_op_ms", Fact::Ms(config.slow_op_ms)),
        ("max_streams", Fact::Count(config.max_streams.into())),
        ("first_byte_timeout_ms", Fact::Ms(config.first_byte_timeout_ms)),
        ("threads", Fact::Count(config.threads.into())),
        ("log", text(&config.log)),
        ("otlp", text(&config.otlp)),
        ("trace_sample", Fact::Real(config.trace_sample)),
        ("stall_timeout_ms", Fact::Ms(config.stall_timeout_ms)),
        ("max_response_backlog_bytes", Fact::Bytes(config.max_response_backlog_bytes)),
        ("snapshot_interval_ms", Fact::Ms(config.snapshot_interval_ms)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_live_setting_can_be_written_and_no_other() {
        for setting in crate::config::SETTINGS {
            let texts = ["1", "1s", "100B", "8KiB", "2MiB", "warn"];
            let read = texts.iter().find_map(|text| change(&format!("{}={text}", setting.flag)).ok());
            assert_eq!(read.is_some(), setting.live, "{}", setting.flag);
            let Some(Change { value, .. }) = read else { continue };
            let mut config = v1::Config::default();
            assert!(match value {
                SettingValue::Number(number) => fields::set_number(&mut config, setting.field, number),
                SettingValue::Text(text) => fields::set_text(&mut config, setting.field, text),
            });
            assert_ne!(config, v1::Config::default(), "{}", setting.flag);
        }
        let wrong = |text| change(text).unwrap_err();
        assert!(wrong("stats-interval").contains("KEY=VALUE"));
        assert_eq!(wrong("slow_op=1s"), "there is no setting \"slow_op\"; did you mean \"slow-op\"?");
        assert!(wrong("timeout=5").starts_with("timeout: \"5\" is no duration with a unit; give 0 or"));
    }

    #[test]
    fn every_setting_of_the_message_is_shown() {
        let proto = include_str!("../../../proto/larder/v1/admin.proto");
        let (_, rest) = proto.split_once("message Config {").unwrap();
        let (body, _) = rest.split_once("\n}").unwrap();
        let fields: Vec<&str> = body
            .lines()
            .map(str::trim)
            .filter(|line| line.ends_with(';') && !line.starts_with("//"))
            .filter_map(|line| line.split(" = ").next()?.split(' ').next_back())
            .collect();
        let shown: Vec<&str> = settings(&v1::Config::default()).iter().map(|(name, _)| *name).collect();
        assert_eq!(shown, fields);
    }
}
