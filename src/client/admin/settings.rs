//! A node's settings, named as the flags of `larder serve` without their dashes: `flush-interval`.

use std::fmt;
use std::time::Duration;

use super::AdminClient;
use super::convert;
use crate::client::convert::wire_ms;
use crate::client::error::ClientError;
use crate::proto::settings::{self, FieldValue};
use crate::proto::v1;
use crate::verb::Verb;

/// A setting and its value.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Setting {
    /// Its name, as the flag has it without dashes.
    pub name: String,
    /// Its value. Where the flag stands for nothing given, 0 or an empty text has the flag's meaning.
    pub value: SettingValue,
}

/// A setting as it is in force.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SettingInForce {
    /// Its name, as the flag has it without dashes.
    pub name: String,
    /// Its value; defaults are filled in.
    pub value: SettingValue,
    /// Where the value comes from.
    pub source: SettingSource,
    /// Whether [`AdminClient::update_config`] can change it. Otherwise that needs a restart.
    pub live: bool,
}

/// The value of a setting.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum SettingValue {
    /// A size in bytes.
    Bytes(u64),
    /// A duration, in whole milliseconds.
    Duration(Duration),
    /// A number of things.
    Count(u64),
    /// A share, 0 to 1.
    Ratio(f64),
    /// On or off.
    Switch(bool),
    /// Text, or one of a few words.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
}

/// Where a setting's value comes from; the later of these overrides the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SettingSource {
    /// The default, or what the node made of its surroundings.
    Default,
    /// The file of --config.
    File,
    /// A LARDER_* variable.
    Environment,
    /// A flag.
    Flag,
    /// An Admin call since the start.
    Admin,
    /// The node did not say, or said what this build does not know.
    Unknown,
}

impl Setting {
    /// A setting that is to have a value.
    pub fn new(name: impl Into<String>, value: SettingValue) -> Self {
        Self { name: name.into(), value }
    }
}

impl SettingSource {
    /// Its name: `flag`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
            Self::Admin => "admin",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for SettingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl SettingValue {
    /// The value of a field of the contract's `Config`, whose name ends in its unit.
    pub(crate) fn of_field(field: &str, value: FieldValue) -> Self {
        match (settings::unit(field), value) {
            (settings::Unit::Bytes, FieldValue::Number(bytes)) => Self::Bytes(bytes),
            (settings::Unit::Ms, FieldValue::Number(ms)) => Self::Duration(Duration::from_millis(ms)),
            (settings::Unit::One, FieldValue::Number(count)) => Self::Count(count),
            (_, FieldValue::Real(real)) => Self::Ratio(real),
            (_, FieldValue::Switch(on)) => Self::Switch(on),
            (_, FieldValue::Text(text)) => Self::Text(text),
            (_, FieldValue::Texts(texts)) => Self::Texts(texts),
        }
    }

    /// The same as the contract has it.
    pub(crate) fn into_field(self) -> FieldValue {
        match self {
            Self::Bytes(number) | Self::Count(number) => FieldValue::Number(number),
            Self::Duration(duration) => FieldValue::Number(wire_ms(duration)),
            Self::Ratio(real) => FieldValue::Real(real),
            Self::Switch(on) => FieldValue::Switch(on),
            Self::Text(text) => FieldValue::Text(text),
            Self::Texts(texts) => FieldValue::Texts(texts),
        }
    }

    fn is_of(&self, field: &str) -> bool {
        let unit = settings::unit(field);
        match self {
            Self::Bytes(_) => unit == settings::Unit::Bytes,
            Self::Duration(_) => unit == settings::Unit::Ms,
            Self::Count(_) => unit == settings::Unit::One,
            _ => true,
        }
    }
}

impl AdminClient {
    /// The settings in force, in the order of the contract.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn config(&self) -> Result<Vec<SettingInForce>, ClientError> {
        Ok(convert::settings_in_force(&self.call(v1::GetConfigRequest {}).await?))
    }

    /// Changes settings, all or none, until the node restarts; answers all settings with what is in force.
    ///
    /// # Errors
    /// [`ClientError::BadSetting`] where there is no setting of a name, or a value is none of its kind; otherwise see
    /// [`AdminClient::spawn`]. FAILED_PRECONDITION: a setting needs a restart. INVALID_ARGUMENT: a value is out of bounds.
    pub async fn update_config(
        &self,
        changes: impl IntoIterator<Item = Setting>,
    ) -> Result<Vec<Setting>, ClientError> {
        let (config, paths) = update(changes)?;
        let update_mask = Some(prost_types::FieldMask { paths });
        let answer = self.call(v1::UpdateConfigRequest { config: Some(config), update_mask }).await?;
        let config = answer.config.ok_or_else(|| self.bad_answer(Verb::UpdateConfig, "no settings"))?;
        Ok(convert::settings(&config))
    }
}

/// The changes as the contract has them: the values, and the names of their fields.
fn update(changes: impl IntoIterator<Item = Setting>) -> Result<(v1::Config, Vec<String>), ClientError> {
    let (mut config, mut paths) = (v1::Config::default(), Vec::new());
    for Setting { name, value } in changes {
        let field = settings::FIELDS.iter().find(|field| settings::flag(field) == name);
        let problem = match field {
            None => "there is none of that name in this version",
            Some(field) if !value.is_of(field) => "the value is of another kind",
            Some(field) if settings::set(&mut config, field, value.into_field()) => {
                paths.push((*field).to_owned());
                continue;
            }
            Some(_) => "the value is of another kind",
        };
        return Err(ClientError::BadSetting { name, problem });
    }
    Ok((config, paths))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_written_as_it_is_read_under_its_flags_name() {
        let default = v1::Config::default();
        let shown = convert::settings(&default);
        assert_eq!(shown.len(), settings::FIELDS.len());
        // An unset durability is no word of the contract's.
        let shown: Vec<Setting> = shown.into_iter().filter(|of| of.name != "durability").collect();
        let (config, paths) = update(shown.clone()).unwrap();
        assert_eq!((config, paths.len()), (default, shown.len()));

        let change = |name: &str, value| Setting::new(name, value);
        let changes = [
            change("flush-interval", SettingValue::Duration(Duration::from_micros(1_500))),
            change("memory", SettingValue::Bytes(1 << 30)),
            change("max-batch", SettingValue::Count(7)),
            change("durability", SettingValue::Text("flushed".to_owned())),
        ];
        let (config, paths) = update(changes).unwrap();
        assert_eq!(paths, ["flush_interval_ms", "memory_bytes", "max_batch", "durability"]);
        let expected = v1::Config {
            flush_interval_ms: 2,
            memory_bytes: 1 << 30,
            max_batch: 7,
            durability: v1::Durability::Flushed.into(),
            ..v1::Config::default()
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn a_setting_that_is_none_or_of_another_kind_is_the_callers_mistake() {
        for (name, value) in [
            ("flush_interval_ms", SettingValue::Duration(Duration::from_secs(1))),
            ("max-batches", SettingValue::Count(1)),
            ("memory", SettingValue::Count(1)),
            ("max-batch", SettingValue::Bytes(1)),
            ("timeout", SettingValue::Text("1s".to_owned())),
            ("durability", SettingValue::Text("perhaps".to_owned())),
        ] {
            let error = update([Setting::new(name, value)]).unwrap_err();
            assert!(matches!(&error, ClientError::BadSetting { name: of, .. } if of == name), "{error}");
            assert!(error.is_usage() && error.to_string().contains(name), "{error}");
        }
    }
}
