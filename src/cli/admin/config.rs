//! `larder admin config`: the settings in force and where each comes from; with `set`, changes of them.

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
use crate::config::{SETTINGS, Setting};
use crate::proto::{FieldValue, settings as fields, v1};

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
    value: FieldValue,
}

fn change(text: &str) -> Result<Change, String> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(format!("{text:?} has no value; write KEY=VALUE, such as stats-interval=10s"));
    };
    // The field's name is what `admin config` once showed.
    let Some(setting) = Setting::of_flag(key).or_else(|| Setting::of_field(key)) else {
        let advice = match Setting::nearest_flag(key) {
            Some(flag) => format!("did you mean {flag:?}?"),
            None => "see larder admin config".to_owned(),
        };
        return Err(format!("there is no setting {key:?}; {advice}"));
    };
    if !setting.is_live() {
        let flag = setting.flag;
        return Err(format!("{flag} cannot be changed while a node serves: restart it with --{flag}"));
    }
    Ok(Change { setting, value: setting.change(value)? })
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
        fields::set(&mut config, setting.field, value);
        paths.push(setting.field.to_owned());
    }
    let now = admin.update_config(config, paths.clone()).await?;
    let changed: Vec<Line> =
        lines_of(&now).filter(|line| paths.iter().any(|path| path == line.setting.field)).collect();
    if global.json() {
        let document: Map<String, Value> =
            changed.iter().map(|line| (line.name(), line.json("admin", true))).collect();
        print_json(&Value::Object(document))?;
    } else {
        let text: String = changed.iter().map(|line| format!("{} {}\n", line.name(), line.plain())).collect();
        print_raw(text.as_bytes())?;
    }
    Ok(Exit::Done)
}

async fn show(global: &Global, admin: &AdminClient) -> Result<Exit, CliError> {
    let answer = admin.config().await?;
    let config = answer.config.clone().unwrap_or_default();
    if global.json() {
        let entry = |line: Line| {
            let (source, live) = origin(&answer, line.setting);
            (line.name(), line.json(&source, live))
        };
        print_json(&Value::Object(lines_of(&config).map(entry).collect()))?;
    } else if io::stdout().is_terminal() {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_header(["setting", "value", "from", "live"]);
        for line in lines_of(&config) {
            let (source, live) = origin(&answer, line.setting);
            let live = if live { "yes" } else { "" };
            table.add_row([line.name(), line.plain(), source, live.to_owned()]);
        }
        print_raw(format!("{table}\n").as_bytes())?;
    } else {
        print_raw(lines(&answer).as_bytes())?;
    }
    Ok(Exit::Done)
}

/// A line for each setting: its name, its value and where that comes from.
pub(in crate::cli) fn lines(answer: &v1::GetConfigResponse) -> String {
    let config = answer.config.clone().unwrap_or_default();
    let line = |line: Line| {
        let source = Fact::Text(origin(answer, line.setting).0).plain();
        format!("{} {} {source}\n", line.name(), line.plain())
    };
    lines_of(&config).map(line).collect()
}

/// Where a setting's value comes from, and whether it can be changed while the node serves.
fn origin(answer: &v1::GetConfigResponse, setting: &Setting) -> (String, bool) {
    let field = answer.fields.iter().find(|field| field.path == setting.field);
    let source = |field: &v1::ConfigField| lower(field.source().as_str_name(), "CONFIG_SOURCE_");
    (field.map(source).unwrap_or_default(), field.is_some_and(|field| field.live))
}

/// A setting and its value.
struct Line {
    setting: &'static Setting,
    value: FieldValue,
}

/// Every setting, in the order of the table, which is that of the help and of the book.
fn lines_of(config: &v1::Config) -> impl Iterator<Item = Line> {
    let line =
        |setting: &'static Setting| fields::value(config, setting.field).map(|value| Line { setting, value });
    SETTINGS.iter().filter_map(line)
}

impl Line {
    fn name(&self) -> String {
        self.setting.flag.to_owned()
    }

    /// As the flag and the file take it.
    fn plain(&self) -> String {
        Fact::Text(self.setting.written(&self.value)).plain()
    }

    /// The value in the unit of its field of the contract, which is named.
    fn json(&self, source: &str, live: bool) -> Value {
        let value = match &self.value {
            FieldValue::Number(number) => Value::from(*number),
            FieldValue::Real(real) => Value::from(*real),
            FieldValue::Switch(on) => Value::from(*on),
            FieldValue::Text(text) => Value::from(text.as_str()),
            FieldValue::Texts(texts) => Value::from(texts.clone()),
        };
        json!({ "value": value, "field": self.setting.field, "source": source, "live": live })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_live_setting_can_be_written_and_no_other() {
        for setting in &SETTINGS {
            let texts = ["1", "1s", "100B", "8KiB", "2MiB", "warn"];
            let read = texts.iter().find_map(|text| change(&format!("{}={text}", setting.flag)).ok());
            assert_eq!(read.is_some(), setting.is_live(), "{}", setting.flag);
            let Some(Change { value, .. }) = read else { continue };
            let mut config = v1::Config::default();
            assert!(fields::set(&mut config, setting.field, value));
            assert_ne!(config, v1::Config::default(), "{}", setting.flag);
        }
        let wrong = |text| change(text).unwrap_err();
        assert!(wrong("stats-interval").contains("KEY=VALUE"));
        assert_eq!(wrong("slow_op=1s"), "there is no setting \"slow_op\"; did you mean \"slow-op\"?");
        assert!(wrong("timeout=5").starts_with("timeout: \"5\" is no duration with a unit; give 0 or"));
    }

    #[test]
    fn every_field_of_the_message_is_shown_under_the_settings_name() {
        let shown: Vec<&str> = lines_of(&v1::Config::default()).map(|line| line.setting.field).collect();
        assert_eq!(shown.len(), fields::FIELDS.len());
        assert!(fields::FIELDS.iter().all(|field| shown.contains(field)));
    }

    #[test]
    fn a_field_of_the_message_names_its_setting_too() {
        let Change { setting, value } = change("stats_interval_ms=10s").unwrap();
        assert_eq!((setting.flag, value), ("stats-interval", FieldValue::Number(10_000)));
        assert!(change("disk_limit_bytes=1GiB").unwrap_err().contains("restart it with --disk-limit"));
    }
}
