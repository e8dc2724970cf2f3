//! UpdateConfig: what a caller wants changed of a node's settings, read and checked.

use super::error::CallError;
use crate::config::{BadSetting, Clash, ServeConfig, Setting, SettingValue};
use crate::proto::{settings, v1};
use crate::quote::Quote;

/// Settings and the values that they are to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigUpdate {
    changes: Vec<(&'static Setting, SettingValue)>,
}

impl ConfigUpdate {
    /// Reads a request whose mask names live settings alone.
    pub(crate) fn read(request: &v1::UpdateConfigRequest) -> Result<Self, CallError> {
        let paths = request.update_mask.as_ref().map_or(&[][..], |mask| &mask.paths);
        if paths.is_empty() {
            return Err(CallError::Mask { why: "it is empty: name the settings to change".to_owned() });
        }
        let default = v1::Config::default();
        let config = request.config.as_ref().unwrap_or(&default);
        let change = |path: &String| {
            let setting = known(path)?;
            let number = settings::number(config, setting.field).map(SettingValue::Number);
            let text =
                || settings::text(config, setting.field).map(|text| SettingValue::Text(text.to_owned()));
            let needs_restart = BadSetting::NeedsRestart { field: setting.field, flag: setting.flag };
            let value = number.or_else(text).ok_or_else(|| refused(setting, needs_restart))?;
            Ok((setting, value))
        };
        Ok(Self { changes: paths.iter().map(change).collect::<Result<_, CallError>>()? })
    }

    /// Sets the settings in `config`, if all values are within their bounds and none contradicts another.
    ///
    /// # Errors
    /// What is wrong with the first that is not; `config` is of no use then.
    pub fn apply(&self, config: &mut ServeConfig) -> Result<(), CallError> {
        for (setting, value) in &self.changes {
            config.set_live(setting, value).map_err(|bad| refused(setting, bad))?;
        }
        match config.clash() {
            None => Ok(()),
            Some(clash) => {
                let field = self.blame(&clash).field.to_owned();
                Err(CallError::Setting { field, why: clash.to_string() })
            }
        }
    }

    /// The settings that are to change.
    pub fn settings(&self) -> impl Iterator<Item = &'static Setting> {
        self.changes.iter().map(|(setting, _)| *setting)
    }

    /// Whether a field is to change.
    #[must_use]
    pub fn changes(&self, field: &str) -> bool {
        self.settings().any(|setting| setting.field == field)
    }

    /// The one of the two that is to change.
    fn blame<'c>(&self, clash: &'c Clash) -> &'c Setting {
        if self.changes(clash.one.field) { &clash.one } else { &clash.other }
    }
}

fn known(path: &str) -> Result<&'static Setting, CallError> {
    if path == "*" {
        return Err(CallError::Mask { why: "\"*\" is no setting: name those to change".to_owned() });
    }
    let setting = Setting::of_field(path).ok_or_else(|| {
        let advice = match Setting::nearest_field(path) {
            Some(field) => format!("did you mean {field:?}?"),
            None => "the paths are Config's fields, as GetConfig has them".to_owned(),
        };
        CallError::Mask { why: format!("there is no setting {}; {advice}", Quote::of(path)) }
    })?;
    if setting.is_served() {
        Ok(setting)
    } else {
        Err(CallError::NotServed { what: setting.field.to_owned() })
    }
}

fn refused(setting: &Setting, bad: BadSetting) -> CallError {
    match bad {
        BadSetting::Policy(unknown) => unknown.into(),
        needs @ BadSetting::NeedsRestart { .. } => CallError::NeedsRestart { why: needs.to_string() },
        other => CallError::Setting { field: setting.field.to_owned(), why: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    fn read(paths: &[&str]) -> Result<ConfigUpdate, CallError> {
        let update_mask =
            Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() });
        ConfigUpdate::read(&v1::UpdateConfigRequest { config: None, update_mask })
    }

    #[test]
    fn the_settings_that_are_live_are_those_that_are_read() {
        for setting in SETTINGS {
            assert_eq!(read(&[setting.field]).is_ok(), setting.live, "{}", setting.field);
        }
    }

    #[test]
    fn what_is_no_setting_is_named_with_the_nearest_that_is_one() {
        let why = |path| read(&[path]).unwrap_err().to_string();
        assert_eq!(
            why("slow_op"),
            "update_mask: there is no setting \"slow_op\"; did you mean \"slow_op_ms\"?"
        );
        assert!(why("qqq").contains("GetConfig"));
        assert!(matches!(read(&[]), Err(CallError::Mask { .. })));
        assert!(matches!(read(&["*"]), Err(CallError::Mask { .. })));
        assert!(matches!(read(&["timeout_ms", "shards"]), Err(CallError::NeedsRestart { .. })));
    }
}
