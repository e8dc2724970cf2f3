//! Settings that can be changed while a node serves: their values, checked as at the start.

use std::time::Duration;

use super::row::setting;
use super::setting::{InvalidValue, Kind, Setting};
use super::{Identity, ServeConfig};
use crate::engine::UnknownPolicy;
use crate::entry::duration_text;
use crate::proto::FieldValue;
use crate::quote::Quote;
use crate::ring::ID_BYTES_MAX;

/// Why a setting cannot be set so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadSetting {
    /// It can be set at the start alone.
    #[error("{field} cannot be changed while the node serves: restart it with --{flag}")]
    NeedsRestart {
        /// The field.
        field: &'static str,
        /// The flag.
        flag: &'static str,
    },
    /// The value is not allowed.
    #[error("{field} is {value}, {allowed}")]
    Value {
        /// The field.
        field: &'static str,
        /// The value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// A policy that this build does not serve, or nobody knows.
    #[error(transparent)]
    Policy(#[from] UnknownPolicy),
}

/// Two settings that cannot both hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {one_text} contradicts {} {other_text}: {why}", one.field, other.field)]
pub struct Conflict {
    /// The one.
    pub one: &'static Setting,
    /// Its value.
    pub one_text: String,
    /// The other.
    pub other: &'static Setting,
    /// Its value.
    pub other_text: String,
    /// Why they cannot both hold, and what to do.
    pub why: String,
}

impl Setting {
    /// What a live setting's text, written as for the flag, says in the proto's `Config`.
    ///
    /// # Errors
    /// What is wrong with it and what is allowed.
    pub fn change(&self, text: &str) -> Result<FieldValue, String> {
        // The node knows which policies it has.
        if self.kind == Kind::Policy {
            return Ok(FieldValue::Text(text.to_owned()));
        }
        let (Some(access), mut config) = (self.access, ServeConfig::default()) else {
            return Err(self.needs_restart().to_string());
        };
        match (access.load)(self, text, &mut config) {
            Ok(()) => Ok((access.value)(&config)),
            Err(InvalidValue::Value(problem)) => {
                Err(format!("{}: {:?} {problem}; give {}", self.flag, self.redacted(text), self.allowed()))
            }
            Err(InvalidValue::Policy | InvalidValue::NotServed(_)) => Err(self.needs_restart().to_string()),
        }
    }

    pub(super) fn needs_restart(&self) -> BadSetting {
        BadSetting::NeedsRestart { field: self.field, flag: self.flag }
    }

    pub(super) fn check(&self, number: u64) -> Result<u64, BadSetting> {
        match self.bounds() {
            Some(bounds) if !bounds.contains(&number) => {
                let allowed = format!("not between {} and {}", bounds.start(), bounds.end());
                Err(BadSetting::Value { field: self.field, value: number.to_string(), allowed })
            }
            _ => Ok(number),
        }
    }

    pub(super) fn check_text(&self, text: &str) -> Result<String, BadSetting> {
        let bad = |problem| BadSetting::Value {
            field: self.field,
            value: Quote::of(&self.redacted(text).to_string()).to_string(),
            allowed: format!("which {problem}: give {}", self.allowed()),
        };
        self.word(text).map(str::to_owned).map_err(bad)
    }
}

impl ServeConfig {
    /// Sets a live setting, within its bounds; what holds between settings is [`Self::conflict`]'s.
    ///
    /// # Errors
    /// [`BadSetting`]; then nothing is changed.
    pub fn set_live(&mut self, setting: &Setting, value: &FieldValue) -> Result<(), BadSetting> {
        match setting.access {
            Some(access) if setting.is_live() => (access.change)(setting, value, self),
            _ => Err(setting.needs_restart()),
        }
    }

    /// The first two settings of time-outs and limits that cannot both hold.
    #[must_use]
    pub fn conflict(&self) -> Option<Conflict> {
        let timeouts = &self.timeouts;
        if timeouts.lame_duck >= timeouts.drain_deadline {
            let text = |duration: Duration| duration_text(duration);
            return Some(Conflict {
                one: setting!(lame_duck),
                one_text: text(timeouts.lame_duck),
                other: setting!(drain_deadline),
                other_text: text(timeouts.drain_deadline),
                why: "the pause is part of the drain and leaves no time for the rest of it; make it shorter"
                    .to_owned(),
            });
        }
        let Identity { node_id, advertise } = self.identity(&[]);
        if node_id.len() > ID_BYTES_MAX {
            return Some(Conflict {
                one: setting!(node_id),
                one_text: "the advertised URL".to_owned(),
                other: setting!(advertise),
                why: format!(
                    "that URL has {} B, and an id {ID_BYTES_MAX} B at most; give --node-id",
                    node_id.len()
                ),
                other_text: advertise,
            });
        }
        let limits = &self.limits;
        let sizes = [
            (setting!(max_message_in), limits.max_message_in, "such a value could never arrive"),
            (setting!(max_message_out), limits.max_message_out, "such a value could never be read"),
            (setting!(memory), self.cache.memory, "such a value could never be stored"),
        ];
        let value = sizes.into_iter().find(|(_, limit, _)| limits.max_value > *limit);
        let Some((other, limit, why)) = value else { return self.backlog_conflict() };
        Some(Conflict {
            one: setting!(max_value),
            one_text: limits.max_value.to_string(),
            other_text: limit.to_string(),
            why: format!("{why}; lower --max-value or raise --{}", other.flag),
            other,
        })
    }

    fn backlog_conflict(&self) -> Option<Conflict> {
        let (message, backlog) = (self.limits.max_message_out, self.limits.max_response_backlog);
        (message.0 > backlog.0 / 2).then(|| Conflict {
            one: setting!(max_message_out),
            one_text: message.to_string(),
            other: setting!(max_response_backlog),
            other_text: backlog.to_string(),
            why: "one such answer would take more than half of it; lower --max-message-out or raise \
                  --max-response-backlog"
                .to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;
    use crate::config::setting::Kind;

    #[test]
    fn an_advertised_url_that_is_too_long_for_an_id_needs_one_beside_it() {
        let mut config = ServeConfig::default();
        let host = [&"a".repeat(63)[..], &"b".repeat(63), &"c".repeat(63), &"d".repeat(61)].join(".");
        config.node.advertise = Some(format!("tcp://{host}:7400").parse().unwrap());
        let conflict = config.conflict().unwrap().to_string();
        assert!(conflict.contains("264 B") && conflict.contains("give --node-id"), "{conflict}");
        config.node.node_id = Some("larder-0".to_owned());
        assert_eq!(config.conflict(), None);
    }

    #[test]
    fn the_settings_that_are_live_are_those_that_can_be_set() {
        for setting in &SETTINGS {
            let least = setting.bounds().map_or(0, |bounds| *bounds.start());
            let value = match setting.kind {
                Kind::Policy => FieldValue::Text("lru".to_owned()),
                Kind::Text(..) => FieldValue::Text("warn".to_owned()),
                _ => FieldValue::Number(least),
            };
            let mut config = ServeConfig::default();
            config.timeouts.lame_duck = Duration::from_millis(7);
            let before = config.clone();
            let set = config.set_live(setting, &value);
            assert_eq!(set.is_ok(), setting.is_live(), "{}", setting.field);
            assert_eq!(config != before, setting.is_live(), "{}", setting.field);
            assert!(setting.is_served() || !setting.is_live());
        }
    }

    #[test]
    fn bounds_are_those_of_the_flag_in_the_fields_unit() {
        let mut config = ServeConfig::default();
        let set = |config: &mut ServeConfig, field, number| {
            config.set_live(Setting::of_field(field).unwrap(), &FieldValue::Number(number))
        };
        let error = set(&mut config, "timeout_ms", 3_600_001).unwrap_err();
        assert_eq!(error.to_string(), "timeout_ms is 3600001, not between 0 and 3600000");
        assert!(set(&mut config, "drain_deadline_ms", 0).is_err());
        assert_eq!(config, ServeConfig::default());
        set(&mut config, "timeout_ms", 3_600_000).unwrap();
        assert_eq!(config.timeouts.timeout, Some(Duration::from_secs(3_600)));
    }
}
