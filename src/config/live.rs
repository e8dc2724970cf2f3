//! Settings that can be changed while a node serves: their values, checked as at the start.

use std::time::Duration;

use super::setting::{self as of, Kind, SETTINGS, Setting};
use super::{PolicyName, ServeConfig};
use crate::engine::UnknownPolicy;
use crate::entry::{ByteSize, duration_text};

/// A live setting's value, in the unit of its field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingValue {
    /// Bytes, milliseconds or things.
    Number(u64),
    /// Text.
    Text(String),
}

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
pub struct Clash {
    /// The one.
    pub one: Setting,
    /// Its value.
    pub one_text: String,
    /// The other.
    pub other: Setting,
    /// Its value.
    pub other_text: String,
    /// Why they cannot both hold, and what to do.
    pub why: String,
}

impl Setting {
    /// The setting of a field of the proto's `Config`.
    #[must_use]
    pub fn of_field(field: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.field == field)
    }

    /// The setting of a flag, without its dashes.
    #[must_use]
    pub fn of_flag(flag: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.flag == flag)
    }

    /// The field that a name resembles most, if it resembles any.
    #[must_use]
    pub fn nearest_field(name: &str) -> Option<&'static str> {
        of::nearest(&name.to_ascii_lowercase().replace('-', "_"), |setting| setting.field)
    }

    /// The flag that a name resembles most, if it resembles any.
    #[must_use]
    pub fn nearest_flag(name: &str) -> Option<&'static str> {
        of::nearest(&name.to_ascii_lowercase().replace('_', "-"), |setting| setting.flag)
    }

    /// What a live setting's text, written as for the flag, says.
    ///
    /// # Errors
    /// What is wrong with it and what is allowed.
    pub fn value(&self, text: &str) -> Result<SettingValue, String> {
        let value = match self.kind {
            Kind::Text(..) => self.word(text).map(|word| SettingValue::Text(word.to_owned())),
            Kind::Policy => Ok(SettingValue::Text(text.to_owned())),
            _ => self.number(text).map(SettingValue::Number),
        };
        value.map_err(|problem| {
            format!("{}: {:?} {problem}; give {}", self.flag, self.redacted(text), self.allowed())
        })
    }

    fn check(&self, number: u64) -> Result<u64, BadSetting> {
        match self.bounds() {
            Some(bounds) if !bounds.contains(&number) => {
                let allowed = format!("not between {} and {}", bounds.start(), bounds.end());
                Err(BadSetting::Value { field: self.field, value: number.to_string(), allowed })
            }
            _ => Ok(number),
        }
    }

    fn check_text(&self, text: &str) -> Result<String, BadSetting> {
        let bad = |problem| BadSetting::Value {
            field: self.field,
            value: format!("{:?}", self.redacted(text)),
            allowed: format!("which {problem}: give {}", self.allowed()),
        };
        self.word(text).map(str::to_owned).map_err(bad)
    }
}

impl ServeConfig {
    /// Sets a live setting, within its bounds; what holds between settings is [`Self::clash`]'s.
    ///
    /// # Errors
    /// [`BadSetting`]; then nothing is changed.
    pub fn set_live(&mut self, setting: &Setting, value: &SettingValue) -> Result<(), BadSetting> {
        let number = match value {
            SettingValue::Text(text) if *setting == of::POLICY => {
                self.policy = text.parse::<PolicyName>()?;
                return Ok(());
            }
            SettingValue::Text(text) if *setting == of::LOG => {
                self.log = setting.check_text(text)?;
                return Ok(());
            }
            SettingValue::Text(_) => 0,
            SettingValue::Number(number) => setting.check(*number)?,
        };
        let small = u32::try_from(number).unwrap_or(u32::MAX);
        match setting.field {
            "memory_bytes" => self.memory_bytes = number,
            "timeout_ms" => self.timeout_ms = number,
            "stats_interval_ms" => self.stats_interval_ms = number,
            "lame_duck_ms" => self.lame_duck_ms = number,
            "drain_deadline_ms" => self.drain_deadline_ms = number,
            "max_key_bytes" => self.max_key_bytes = number,
            "max_value_bytes" => self.max_value_bytes = number,
            "max_message_in_bytes" => self.max_message_in_bytes = number,
            "max_message_out_bytes" => self.max_message_out_bytes = number,
            "max_response_backlog_bytes" => self.max_response_backlog_bytes = number,
            "max_batch" => self.max_batch = small,
            "max_content_type_bytes" => self.max_content_type_bytes = number,
            "max_tags" => self.max_tags = small,
            "max_tag_bytes" => self.max_tag_bytes = number,
            "max_ttl_ms" => self.max_ttl_ms = number,
            "max_namespaces" => self.max_namespaces = small,
            "max_connections" => self.max_connections = small,
            "max_in_flight" => self.max_in_flight = small,
            "slow_op_ms" => self.slow_op_ms = number,
            "max_streams" => self.max_streams = small,
            "first_byte_timeout_ms" => self.first_byte_timeout_ms = number,
            "stall_timeout_ms" => self.stall_timeout_ms = number,
            _ => return Err(BadSetting::NeedsRestart { field: setting.field, flag: setting.flag }),
        }
        Ok(())
    }

    /// The first two settings of life and limits that cannot both hold.
    #[must_use]
    pub fn clash(&self) -> Option<Clash> {
        if self.lame_duck_ms >= self.drain_deadline_ms {
            let text = |ms| duration_text(Duration::from_millis(ms));
            return Some(Clash {
                one: of::LAME_DUCK,
                one_text: text(self.lame_duck_ms),
                other: of::DRAIN_DEADLINE,
                other_text: text(self.drain_deadline_ms),
                why: "the pause is part of the drain and leaves no time for the rest of it; make it shorter"
                    .to_owned(),
            });
        }
        let sizes = [
            (of::MAX_MESSAGE_IN, self.max_message_in_bytes, "such a value could never arrive"),
            (of::MAX_MESSAGE_OUT, self.max_message_out_bytes, "such a value could never be read"),
            (of::MEMORY, self.memory_bytes, "such a value could never be stored"),
        ];
        let value = sizes.into_iter().find(|(_, limit, _)| self.max_value_bytes > *limit);
        let Some((other, limit, why)) = value else { return self.backlog_clash() };
        Some(Clash {
            one: of::MAX_VALUE,
            one_text: ByteSize(self.max_value_bytes).to_string(),
            other_text: ByteSize(limit).to_string(),
            why: format!("{why}; lower --max-value or raise --{}", other.flag),
            other,
        })
    }

    fn backlog_clash(&self) -> Option<Clash> {
        let (message, backlog) = (self.max_message_out_bytes, self.max_response_backlog_bytes);
        (message > backlog / 2).then(|| Clash {
            one: of::MAX_MESSAGE_OUT,
            one_text: ByteSize(message).to_string(),
            other: of::MAX_RESPONSE_BACKLOG,
            other_text: ByteSize(backlog).to_string(),
            why: "one such answer would take more than half of it; lower --max-message-out or raise \
                  --max-response-backlog"
                .to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_that_are_live_are_those_that_can_be_set() {
        for setting in &SETTINGS {
            let least = setting.bounds().map_or(0, |bounds| *bounds.start());
            let value = match setting.kind {
                Kind::Policy => SettingValue::Text("lru".to_owned()),
                Kind::Text(..) => SettingValue::Text("warn".to_owned()),
                _ => SettingValue::Number(least),
            };
            let mut config = ServeConfig { lame_duck_ms: 7, stats_interval_ms: 7, ..ServeConfig::default() };
            let before = config.clone();
            let set = config.set_live(setting, &value);
            assert_eq!(set.is_ok(), setting.live, "{}", setting.field);
            assert_eq!(config != before, setting.live, "{}", setting.field);
            assert!(setting.is_served() || !setting.live);
        }
    }

    #[test]
    fn bounds_are_those_of_the_flag_in_the_fields_unit() {
        let mut config = ServeConfig::default();
        let set = |config: &mut ServeConfig, field, number| {
            config.set_live(Setting::of_field(field).unwrap(), &SettingValue::Number(number))
        };
        let error = set(&mut config, "timeout_ms", 3_600_001).unwrap_err();
        assert_eq!(error.to_string(), "timeout_ms is 3600001, not between 0 and 3600000");
        assert!(set(&mut config, "drain_deadline_ms", 0).is_err());
        assert_eq!(config, ServeConfig::default());
        set(&mut config, "timeout_ms", 3_600_000).unwrap();
        assert_eq!(config.timeout_ms, 3_600_000);
    }
}
