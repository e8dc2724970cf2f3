//! `larder admin config`: the settings in force and where each comes from; with `set`, changes of them.

use std::io::{self, IsTerminal};

use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde_json::{Value, json};

use crate::cli::exit::{CliError, Exit};
use crate::cli::facts::Fact;
use crate::cli::global::Global;
use crate::cli::output::{print_json, print_raw};
use crate::client::{self, AdminClient, SettingInForce, SettingSource, SettingValue};
use crate::config::{SETTINGS, Setting};
use crate::proto::FieldValue;

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

impl From<Change> for client::Setting {
    fn from(change: Change) -> Self {
        Self::new(change.setting.flag, SettingValue::of_field(change.setting.field, change.value))
    }
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
    let asked: Vec<&str> = changes.iter().map(|change| change.setting.flag).collect();
    let mut now = admin.update_config(changes.into_iter().map(client::Setting::from)).await?;
    now.retain(|setting| asked.contains(&&*setting.name));
    let in_force = |client::Setting { name, value, .. }| SettingInForce {
        name,
        value,
        source: SettingSource::Admin,
        live: true,
    };
    let changed = lines_of(now.into_iter().map(in_force).collect());
    if global.json() {
        print_json(&document(&changed))?;
    } else {
        let text: String = changed.iter().map(|line| format!("{} {}\n", line.name(), line.plain())).collect();
        print_raw(text.as_bytes())?;
    }
    Ok(Exit::Done)
}

async fn show(global: &Global, admin: &AdminClient) -> Result<Exit, CliError> {
    let settings = lines_of(admin.config().await?);
    if global.json() {
        print_json(&document(&settings))?;
    } else if io::stdout().is_terminal() {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_header(["setting", "value", "from", "live"]);
        for line in settings {
            let live = if line.live { "yes" } else { "" };
            table.add_row([line.name(), line.plain(), line.source.to_string(), live.to_owned()]);
        }
        print_raw(format!("{table}\n").as_bytes())?;
    } else {
        print_raw(text(&settings).as_bytes())?;
    }
    Ok(Exit::Done)
}

/// A line for each setting: its name, its value and where that comes from.
pub(in crate::cli) fn lines(settings: Vec<SettingInForce>) -> String {
    text(&lines_of(settings))
}

fn text(lines: &[Line]) -> String {
    lines.iter().map(|line| format!("{} {} {}\n", line.name(), line.plain(), line.source)).collect()
}

fn document(lines: &[Line]) -> Value {
    Value::Object(lines.iter().map(|line| (line.name(), line.json())).collect())
}

/// A setting, its value as the contract has it, and where that comes from.
struct Line {
    setting: &'static Setting,
    value: FieldValue,
    source: SettingSource,
    live: bool,
}

/// The settings in the order of the table, which is that of the help and of the book.
fn lines_of(settings: Vec<SettingInForce>) -> Vec<Line> {
    let place = |line: &Line| SETTINGS.iter().position(|setting| setting == line.setting);
    let line = |of: SettingInForce| {
        let setting = Setting::of_flag(&of.name)?;
        Some(Line { setting, value: of.value.into_field(), source: of.source, live: of.live })
    };
    let mut lines: Vec<Line> = settings.into_iter().filter_map(line).collect();
    lines.sort_by_key(place);
    lines
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
    fn json(&self) -> Value {
        let value = match &self.value {
            FieldValue::Number(number) => Value::from(*number),
            FieldValue::Real(real) => Value::from(*real),
            FieldValue::Switch(on) => Value::from(*on),
            FieldValue::Text(text) => Value::from(text.as_str()),
            FieldValue::Texts(texts) => Value::from(texts.clone()),
        };
        let source = self.source.as_str();
        json!({ "value": value, "field": self.setting.field, "source": source, "live": self.live })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{settings, v1};

    #[test]
    fn every_live_setting_can_be_written_and_no_other() {
        for setting in &SETTINGS {
            let texts = ["1", "1s", "100B", "8KiB", "2MiB", "warn"];
            let read = texts.iter().find_map(|text| change(&format!("{}={text}", setting.flag)).ok());
            assert_eq!(read.is_some(), setting.is_live(), "{}", setting.flag);
            let Some(Change { value, .. }) = read else { continue };
            let mut config = v1::Config::default();
            assert!(settings::set(&mut config, setting.field, value));
            assert_ne!(config, v1::Config::default(), "{}", setting.flag);
        }
        let wrong = |text| change(text).unwrap_err();
        assert!(wrong("stats-interval").contains("KEY=VALUE"));
        assert_eq!(wrong("slow_op=1s"), "there is no setting \"slow_op\"; did you mean \"slow-op\"?");
        assert!(wrong("timeout=5").starts_with("timeout: \"5\" is no duration with a unit; give 0 or"));
    }

    #[test]
    fn every_field_of_the_message_is_shown_under_the_settings_name() {
        let answer = v1::GetConfigResponse { config: Some(v1::Config::default()), fields: Vec::new() };
        let lines = lines_of(client::settings_in_force(&answer));
        let shown: Vec<&str> = lines.iter().map(|line| line.setting.field).collect();
        assert_eq!(shown.len(), settings::FIELDS.len());
        assert!(settings::FIELDS.iter().all(|field| shown.contains(field)));
        // In the table's order, and with the table's names.
        let names: Vec<String> = lines.iter().map(Line::name).collect();
        assert_eq!(names, SETTINGS.iter().map(|setting| setting.flag.to_owned()).collect::<Vec<_>>());
    }

    #[test]
    fn a_field_of_the_message_names_its_setting_too() {
        let Change { setting, value } = change("stats_interval_ms=10s").unwrap();
        assert_eq!((setting.flag, value), ("stats-interval", FieldValue::Number(10_000)));
        assert!(change("disk_limit_bytes=1GiB").unwrap_err().contains("restart it with --disk-limit"));
    }
}
