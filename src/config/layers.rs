//! The layers that a setting can come from, the later overriding the earlier: default, file, variable, flag.

use std::collections::BTreeMap;
use std::path::Path;

use super::ServeConfig;
use super::error::{ConfigError, GivenValue, SettingLocation};
use super::file::File;
use super::setting::{Effect, InvalidValue, Kind, Setting};
use super::table::SETTINGS;
use super::variables::Variables;
use crate::engine::UnknownPolicy;
use crate::quote::Quote;
use crate::redacted::shown;

/// Where a setting's value comes from. The later of these overrides the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// It was given nowhere.
    Default,
    /// The file of `--config`.
    File,
    /// A `LARDER_*` variable.
    Environment,
    /// A flag.
    Flag,
    /// An Admin call since the start.
    Admin,
}

/// One setting, and where its value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettingSource {
    /// The setting.
    pub setting: &'static Setting,
    /// Where its value comes from.
    pub source: Source,
}

/// File and variables, and what was found for each setting so far.
pub(super) struct Layers<'a> {
    variables: &'a Variables,
    file: File,
    found: BTreeMap<&'static str, GivenValue>,
}

impl<'a> Layers<'a> {
    /// Opens the file that `--config`, or its variable, names.
    pub(super) fn open(flag: Option<&str>, variables: &'a Variables) -> Result<Self, ConfigError> {
        let mut layers = Self { variables, file: File::default(), found: BTreeMap::new() };
        if let Some(given) = layers.find(&CONFIG, flag)? {
            if given.text.expose().is_empty() {
                return Err(bad(&CONFIG, given, "is empty".to_owned()));
            }
            layers.file = File::read(Path::new(given.text.expose()), given.location)?;
        }
        Ok(layers)
    }

    /// Sets a setting's field to what the topmost layer that names it says, if one does.
    pub(super) fn load(
        &mut self,
        setting: &'static Setting,
        flag: Option<&str>,
        config: &mut ServeConfig,
    ) -> Result<(), ConfigError> {
        let Some(given) = self.find(setting, flag)? else { return Ok(()) };
        let loaded = match (setting.access, setting.kind) {
            (Some(access), _) => (access.load)(setting, given.text.expose(), config),
            (None, Kind::NotServed(why)) => Err(InvalidValue::NotServed(why)),
            (None, _) => Ok(()),
        };
        match loaded {
            Ok(()) => {
                self.found.insert(setting.flag, given);
                Ok(())
            }
            Err(InvalidValue::Value(problem)) => Err(bad(setting, given, problem)),
            Err(InvalidValue::Policy) => {
                let name = Quote::of(&*shown(given.text.expose()));
                Err(ConfigError::Policy { location: given.location, source: UnknownPolicy { name } })
            }
            Err(InvalidValue::NotServed(why)) => {
                let words = setting.words();
                let instead = if words.is_empty() {
                    "leave it out".to_owned()
                } else {
                    format!("give {}", setting.allowed())
                };
                Err(ConfigError::NotServed { given, why, instead })
            }
        }
    }

    /// The value of a setting and where it was given; `default` is the text of a setting that was not given.
    pub(super) fn given_or(&self, setting: &Setting, default: impl ToString) -> GivenValue {
        self.given(setting).cloned().unwrap_or_else(|| GivenValue {
            location: SettingLocation::Default { flag: setting.flag },
            text: default.to_string().into(),
        })
    }

    /// What was given for a setting.
    pub(super) fn given(&self, setting: &Setting) -> Option<&GivenValue> {
        self.found.get(setting.flag)
    }

    /// Where every setting's value comes from.
    pub(super) fn sources(&self) -> Vec<SettingSource> {
        let source = |setting: &Setting| match self.found.get(setting.flag).map(|given| &given.location) {
            None | Some(SettingLocation::Default { .. }) => Source::Default,
            Some(SettingLocation::File { .. }) => Source::File,
            Some(SettingLocation::Variable { .. }) => Source::Environment,
            Some(SettingLocation::Flag { .. }) => Source::Flag,
        };
        SETTINGS.iter().map(|setting| SettingSource { setting, source: source(setting) }).collect()
    }

    /// The text of the topmost layer that has one.
    fn find(&self, setting: &Setting, flag: Option<&str>) -> Result<Option<GivenValue>, ConfigError> {
        if let Some(text) = flag {
            let location = SettingLocation::Flag { flag: setting.flag };
            return Ok(Some(GivenValue { location, text: setting.redacted(text) }));
        }
        let name = setting.variable();
        if let Some(value) = self.variables.get(&name) {
            return match value.to_str() {
                Some(text) => Ok(Some(GivenValue {
                    location: SettingLocation::Variable { name },
                    text: setting.redacted(text),
                })),
                None => Err(ConfigError::NotUnicode { name, allowed: setting.allowed() }),
            };
        }
        Ok(self
            .file
            .value(setting)
            .map(|(location, text)| GivenValue { location, text: setting.redacted(text) }))
    }
}

/// What names the file, which is no setting.
const CONFIG: Setting = Setting {
    flag: "config",
    field: "",
    effect: Effect::Restart,
    group: "",
    help: "",
    value_name: "FILE",
    default: None,
    kind: Kind::Text(1, 4_096),
    access: None,
};

/// The error of a value that is not allowed.
fn bad(setting: &Setting, given: GivenValue, problem: String) -> ConfigError {
    let GivenValue { location, text } = given;
    ConfigError::BadValue { location, text, problem, allowed: setting.allowed() }
}
