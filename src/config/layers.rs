//! The layers that a setting can come from, the later overriding the earlier: default, file, variable, flag.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use super::error::{ConfigError, Place, Said};
use super::file::File;
use super::setting::{Kind, SETTINGS, Setting};
use super::variables::Variables;

/// Where a setting's value comes from. The later of these overrides the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Nobody said anything.
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
    pub setting: Setting,
    /// Where its value comes from.
    pub source: Source,
}

/// File and variables, and what was found for each setting so far.
pub(super) struct Layers<'a> {
    variables: &'a Variables,
    file: File,
    found: BTreeMap<&'static str, Said>,
}

impl<'a> Layers<'a> {
    /// Opens the file that `--config`, or its variable, names.
    pub(super) fn open(flag: Option<&str>, variables: &'a Variables) -> Result<Self, ConfigError> {
        const CONFIG: Setting =
            Setting { flag: "config", field: "", live: false, kind: Kind::Text(1, 4_096) };
        let mut layers = Self { variables, file: File::default(), found: BTreeMap::new() };
        if let Some(said) = layers.find(&CONFIG, flag)? {
            if said.text.expose().is_empty() {
                return Err(bad(&CONFIG, said, "is empty".to_owned()));
            }
            layers.file = File::read(Path::new(said.text.expose()), said.place)?;
        }
        Ok(layers)
    }

    /// Sets `field` to the number that was given, if one was.
    pub(super) fn number<N: TryFrom<u64>>(
        &mut self,
        setting: &Setting,
        flag: &Option<String>,
        field: &mut N,
    ) -> Result<(), ConfigError> {
        let parse = |text: &str| {
            let number = setting.number(text)?;
            N::try_from(number).map_err(|_| "is too much")
        };
        self.set(setting, flag.as_deref(), field, parse)
    }

    /// Sets `field` to on or off, if either was given.
    pub(super) fn switch(
        &mut self,
        setting: &Setting,
        flag: &Option<String>,
        field: &mut bool,
    ) -> Result<(), ConfigError> {
        self.set(setting, flag.as_deref(), field, Setting::switch)
    }

    /// Sets `field` to the text that was given, if one was: one of the setting's words, or of its length.
    pub(super) fn word(
        &mut self,
        setting: &Setting,
        flag: &Option<String>,
        field: &mut String,
    ) -> Result<(), ConfigError> {
        self.set(setting, flag.as_deref(), field, |text| setting.word(text).map(str::to_owned))
    }

    /// Sets `field` to what a text that was given says, if one was.
    pub(super) fn parsed<T: FromStr<Err: ToString>>(
        &mut self,
        setting: &Setting,
        flag: &Option<String>,
        field: &mut T,
    ) -> Result<(), ConfigError> {
        self.set(setting, flag.as_deref(), field, str::parse::<T>)
    }

    /// Sets `field` to what `parse` makes of a text that was given, if one was.
    pub(super) fn set<T, E: ToString>(
        &mut self,
        setting: &Setting,
        flag: Option<&str>,
        field: &mut T,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<(), ConfigError> {
        let Some(said) = self.find(setting, flag)? else { return Ok(()) };
        match parse(said.text.expose()) {
            Ok(value) => *field = value,
            Err(problem) => return Err(bad(setting, said, problem.to_string())),
        }
        self.found.insert(setting.flag, said);
        Ok(())
    }

    /// Refuses a setting that this build does not serve, if it was given.
    pub(super) fn refuse(&mut self, setting: &Setting, flag: &Option<String>) -> Result<(), ConfigError> {
        let Kind::NotServed(why) = setting.kind else { return Ok(()) };
        match self.find(setting, flag.as_deref())? {
            Some(said) => Err(ConfigError::NotServed { said, why, instead: "leave it out".to_owned() }),
            None => Ok(()),
        }
    }

    /// What holds for a setting and who said so; `default` is what it is if nobody did.
    pub(super) fn said(&self, setting: &Setting, default: impl ToString) -> Said {
        self.given(setting).cloned().unwrap_or_else(|| Said {
            place: Place::Default { flag: setting.flag },
            text: default.to_string().into(),
        })
    }

    /// What was given for a setting.
    pub(super) fn given(&self, setting: &Setting) -> Option<&Said> {
        self.found.get(setting.flag)
    }

    /// Where every setting's value comes from.
    pub(super) fn sources(&self) -> Vec<SettingSource> {
        let source = |setting: &Setting| match self.found.get(setting.flag).map(|said| &said.place) {
            None | Some(Place::Default { .. }) => Source::Default,
            Some(Place::File { .. }) => Source::File,
            Some(Place::Variable { .. }) => Source::Environment,
            Some(Place::Flag { .. }) => Source::Flag,
        };
        SETTINGS.iter().map(|setting| SettingSource { setting: *setting, source: source(setting) }).collect()
    }

    /// The text of the topmost layer that has one.
    fn find(&self, setting: &Setting, flag: Option<&str>) -> Result<Option<Said>, ConfigError> {
        if let Some(text) = flag {
            let place = Place::Flag { flag: setting.flag };
            return Ok(Some(Said { place, text: setting.redacted(text) }));
        }
        let name = setting.variable();
        if let Some(value) = self.variables.get(&name) {
            return match value.to_str() {
                Some(text) => {
                    Ok(Some(Said { place: Place::Variable { name }, text: setting.redacted(text) }))
                }
                None => Err(ConfigError::NotUnicode { name, allowed: setting.allowed() }),
            };
        }
        Ok(self.file.value(setting).map(|(place, text)| Said { place, text: setting.redacted(text) }))
    }
}

/// The error of a value that is not allowed.
pub(super) fn bad(setting: &Setting, said: Said, problem: String) -> ConfigError {
    let Said { place, text } = said;
    ConfigError::BadValue { place, text, problem, allowed: setting.allowed() }
}
