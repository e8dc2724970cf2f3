//! UpdateConfig: what a caller wants changed of a node's settings, read and checked.

use crate::config::{BadSetting, Conflict, ServeConfig, Setting};
use crate::proto::{FieldValue, settings, v1};
use crate::quote::Quote;
use crate::request::CallError;

/// Settings and the values that they are to have.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigUpdate {
    changes: Vec<(&'static Setting, FieldValue)>,
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
            let value = settings::value(config, setting.field).filter(|_| setting.is_live());
            let needs_restart = BadSetting::NeedsRestart { field: setting.field, flag: setting.flag };
            let value = value.ok_or_else(|| refused(setting, needs_restart))?;
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
        match config.conflict() {
            None => Ok(()),
            Some(conflict) => {
                let field = self.blame(&conflict).field.to_owned();
                Err(CallError::Setting { field, why: conflict.to_string() })
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
    fn blame(&self, conflict: &Conflict) -> &'static Setting {
        if self.changes(conflict.one.field) { conflict.one } else { conflict.other }
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
    use crate::config::{LoadedConfig, SETTINGS, ServeArgs, Source, Variables};
    use crate::service::stats::{LiveConfig, config_response};

    /// One of these is another value than the default for each setting.
    const TEXTS: [&str; 19] = [
        "9",
        "9ms",
        "9s",
        "200B",
        "9MiB",
        "0.5",
        "true",
        "text",
        "json",
        "none",
        "files",
        "flushed",
        "snapshot",
        "lru",
        "tcp://127.0.0.1:1",
        "127.0.0.1:1",
        "http://127.0.0.1:1",
        "300B",
        "10m",
    ];

    /// What GetConfig answers.
    fn shown(loaded: &LoadedConfig) -> v1::GetConfigResponse {
        let config = &loaded.config;
        let listeners = &config.listeners;
        let control = [listeners.admin.to_string(), listeners.health.to_string(), listeners.http.to_string()];
        let identity = config.identity(&[]);
        let live = LiveConfig {
            listen: listeners.listen.iter().map(ToString::to_string).collect(),
            control,
            node_id: identity.node_id,
            advertise: identity.advertise,
            memory_bytes: config.cache.memory.0,
            shards: config.cache.shards.unwrap_or_default(),
            policy: config.cache.policy.to_string(),
        };
        config_response(loaded, &live)
    }

    #[test]
    fn a_row_of_the_table_is_a_setting_everywhere() {
        let none = Variables::default();
        // What is sampled needs somewhere to go to.
        let args = || ServeArgs::default().with("otlp", "http://127.0.0.1:2");
        let plain = ServeConfig::load(&args(), &none).unwrap().config;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("larder.toml");
        for setting in SETTINGS.iter().filter(|setting| setting.is_served()) {
            let flag = setting.flag;
            let by_flag = |text: &'static str| {
                let loaded = ServeConfig::load(&args().with(flag, text), &none).ok()?;
                (setting.value(&loaded.config) != setting.value(&plain)).then_some((loaded, text))
            };
            let found = TEXTS.into_iter().find_map(by_flag);
            let (loaded, text) = found.unwrap_or_else(|| panic!("TEXTS has nothing for {flag}"));
            let value = setting.value(&loaded.config).unwrap();

            let variables = Variables::from_iter([(setting.variable(), text.into())]);
            let base = if flag == "otlp" { ServeArgs::default() } else { args() };
            let by_variable = ServeConfig::load(&base, &variables).unwrap();
            let by_key = [format!("{flag} = {text}"), format!("{flag} = {text:?}")].iter().find_map(|line| {
                std::fs::write(&file, line).unwrap();
                ServeConfig::load(&base.clone().with_file(file.display().to_string()), &none).ok()
            });
            let by_key = by_key.unwrap_or_else(|| panic!("{flag} = {text} is no line of a file"));
            for (loaded, expected) in
                [(&loaded, Source::Flag), (&by_variable, Source::Environment), (&by_key, Source::File)]
            {
                assert_eq!(setting.value(&loaded.config).as_ref(), Some(&value), "{flag} {expected:?}");
                let source = loaded.sources.iter().find(|found| found.setting == setting).unwrap().source;
                assert_eq!(source, expected, "{flag}");
            }

            let answer = shown(&loaded);
            let config = answer.config.unwrap();
            assert_eq!(settings::value(&config, setting.field).as_ref(), Some(&value), "{flag}");
            let field = answer.fields.iter().find(|field| field.path == setting.field).unwrap();
            assert_eq!((field.source(), field.live), (v1::ConfigSource::Flag, setting.is_live()), "{flag}");
            // What is shown can be given again.
            let again = ServeConfig::load(&args().with(flag, setting.written(&value)), &none).unwrap();
            assert_eq!(again.config, loaded.config, "{flag}");

            let update_mask = Some(prost_types::FieldMask { paths: vec![setting.field.to_owned()] });
            let request = v1::UpdateConfigRequest { config: Some(config), update_mask };
            let mut changed = plain.clone();
            let update = ConfigUpdate::read(&request);
            assert_eq!(update.is_ok(), setting.is_live(), "{flag}");
            if let Ok(update) = update {
                update.apply(&mut changed).unwrap();
                assert_eq!(setting.value(&changed), Some(value), "{flag}");
            }
        }
    }

    fn read(paths: &[&str]) -> Result<ConfigUpdate, CallError> {
        let update_mask =
            Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() });
        ConfigUpdate::read(&v1::UpdateConfigRequest { config: None, update_mask })
    }

    #[test]
    fn the_settings_that_are_live_are_those_that_are_read() {
        for setting in &SETTINGS {
            assert_eq!(read(&[setting.field]).is_ok(), setting.is_live(), "{}", setting.field);
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
