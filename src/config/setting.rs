//! One setting: its names, what its value may be, and how text, the configuration and the contract's `Config` have it.
//!
//! [`super::table`] has a row for each. Values are parsed from text here and in [`super::value`] and nowhere else, so that
//! the same mistake reads the same wherever it was made.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::ServeConfig;
use super::live::BadSetting;
use super::table::SETTINGS;
use crate::engine::PolicyName;
use crate::entry::{ByteSize, duration_text};
use crate::proto::FieldValue;
use crate::redacted::Redacted;

/// One setting of `larder serve`.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The flag without its dashes, and the key in the file: `max-value`.
    pub flag: &'static str,
    /// The field of the proto's `Config`: `max_value_bytes`.
    pub field: &'static str,
    /// From when on a change holds.
    pub effect: Effect,
    /// The heading that it stands under in the help and in the book.
    pub group: &'static str,
    pub(super) help: &'static str,
    pub(super) value_name: &'static str,
    pub(super) default: Option<&'static str>,
    pub(super) kind: Kind,
    /// Its field of [`ServeConfig`]; `None`: this build does not serve it.
    pub(super) access: Option<Access>,
}

/// From when on a change of a setting holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// A restart with another value: it cannot be changed while a node serves.
    Restart,
    /// The change.
    AtOnce,
    /// The next request, also on a connection that is open; what is stored stays.
    NextRequest,
    /// The next call.
    NextCall,
    /// The next connection; those that are open stay as they are.
    NextConnection,
    /// A drain that has yet to begin.
    NextDrain,
}

/// How a setting's field of [`ServeConfig`] is read and written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access {
    /// Sets it to what a text says.
    pub(super) load: fn(&Setting, &str, &mut ServeConfig) -> Result<(), InvalidValue>,
    /// Its value, as the contract has it.
    pub(super) value: fn(&ServeConfig) -> FieldValue,
    /// Sets it to a value of the contract's, within its bounds.
    pub(super) change: fn(&Setting, &FieldValue, &mut ServeConfig) -> Result<(), BadSetting>,
}

/// What a setting's value may be; numbers are inclusive bounds, in bytes, milliseconds or plainly counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Size(u64, u64),
    /// What 0 stands for, and the least beside it.
    SizeOrNone(&'static str, u64),
    Duration(u64, u64),
    /// What 0 stands for, and the most.
    DurationOrNone(&'static str, u64),
    Count(u64, u64),
    Ratio,
    Switch,
    Choice(&'static [&'static str]),
    /// And words that the design knows and this build does not serve.
    ServedChoice(&'static [&'static str], &'static [&'static str]),
    Policy,
    /// Text, and its length in bytes; the least is 0 or 1.
    Text(usize, usize),
    /// Something that a type of its own parses; what it is called and an example.
    Parsed(&'static str),
    /// Several of those.
    List(&'static str),
    /// The design knows it and this build does not serve it; what has to come first.
    NotServed(&'static str),
}

/// What is wrong with a text, to be followed by what is allowed.
pub(super) type Problem = &'static str;

/// Why a text is no value of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum InvalidValue {
    /// To be followed by what is allowed.
    Value(String),
    /// It is no policy's name.
    Policy,
    /// The design knows it and this build does not serve it; what has to come first.
    NotServed(&'static str),
}

impl From<Problem> for InvalidValue {
    fn from(problem: Problem) -> Self {
        Self::Value(problem.to_owned())
    }
}

impl PartialEq for Setting {
    fn eq(&self, other: &Self) -> bool {
        self.flag == other.flag
    }
}

impl Eq for Setting {}

#[cfg(test)]
impl Effect {
    /// The word for it in the book, to follow "a change holds from".
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Restart => "a restart",
            Self::AtOnce => "at once",
            Self::NextRequest => "the next request",
            Self::NextCall => "the next call",
            Self::NextConnection => "the next connection",
            Self::NextDrain => "the next drain",
        }
    }
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
        nearest(&name.to_ascii_lowercase().replace('-', "_"), |setting| setting.field)
    }

    /// The flag that a name resembles most, if it resembles any.
    #[must_use]
    pub fn nearest_flag(name: &str) -> Option<&'static str> {
        nearest(&name.to_ascii_lowercase().replace('_', "-"), |setting| setting.flag)
    }

    /// Whether it can be changed while a node serves.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.effect != Effect::Restart
    }

    /// Whether this build serves it.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.access.is_some()
    }

    /// Its variable: `LARDER_MAX_VALUE`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("LARDER_{}", self.flag.to_ascii_uppercase().replace('-', "_"))
    }

    /// Its value in a configuration, as the proto's `Config` has it; `None`: this build does not serve it.
    #[must_use]
    pub fn value(&self, config: &ServeConfig) -> Option<FieldValue> {
        self.access.map(|access| (access.value)(config))
    }

    /// A value of the proto's `Config`, written as the flag and the file take it.
    #[must_use]
    pub fn written(&self, value: &FieldValue) -> String {
        match (self.kind, value) {
            (Kind::Size(..) | Kind::SizeOrNone(..), FieldValue::Number(bytes)) if *bytes > 0 => {
                ByteSize(*bytes).to_string()
            }
            (Kind::Duration(..) | Kind::DurationOrNone(..), FieldValue::Number(ms)) if *ms > 0 => {
                duration_text(Duration::from_millis(*ms))
            }
            (_, FieldValue::Number(number)) => number.to_string(),
            (_, FieldValue::Real(real)) => real.to_string(),
            (_, FieldValue::Switch(on)) => on.to_string(),
            (_, FieldValue::Text(text)) => text.clone(),
            (_, FieldValue::Texts(texts)) => texts.join(","),
        }
    }

    /// What was given for it, to be kept so that no secret in it is shown.
    pub(super) fn redacted(&self, text: &str) -> Redacted {
        // The setting is a file's name, but a key that is given by mistake must not be found in the log.
        if self.flag == "cluster-key" { Redacted::secret(text) } else { Redacted::new(text) }
    }

    /// The least and the most of its number, in the unit of its field.
    pub(super) fn bounds(&self) -> Option<RangeInclusive<u64>> {
        match self.kind {
            Kind::Size(min, max) | Kind::Duration(min, max) | Kind::Count(min, max) => Some(min..=max),
            Kind::DurationOrNone(_, max) => Some(0..=max),
            Kind::SizeOrNone(..) => Some(0..=u64::MAX),
            _ => None,
        }
    }

    /// What its value may be, to follow "give".
    pub(super) fn allowed(&self) -> String {
        match self.kind {
            Kind::Size(min, max) => {
                format!("a size from {} to {}, such as 64MiB or 1000B", ByteSize(min), ByteSize(max))
            }
            Kind::SizeOrNone(none, min) => {
                format!("0 for {none}, or a size from {}, such as 64MiB or 10GiB", ByteSize(min))
            }
            Kind::DurationOrNone(_, max) => {
                format!("0 or a duration up to {}, such as 250ms, 5s or 1h", milliseconds_text(max))
            }
            Kind::Duration(min, max) => format!(
                "a duration from {} to {}, such as 250ms, 5s or 1h",
                milliseconds_text(min),
                milliseconds_text(max)
            ),
            Kind::Count(min, max) => format!("a whole number from {min} to {max}"),
            Kind::Ratio => "a number from 0 to 1".to_owned(),
            Kind::Switch => "true or false".to_owned(),
            Kind::Choice(_) | Kind::ServedChoice(..) | Kind::Policy => one_of(&self.words()),
            Kind::Text(0, max) => format!("text of up to {max} bytes without control characters"),
            Kind::Text(min, max) => format!("text of {min} to {max} bytes without control characters"),
            Kind::Parsed(what) | Kind::List(what) => what.to_owned(),
            Kind::NotServed(_) => "nothing: leave it out".to_owned(),
        }
    }

    /// What its value may be, in few words; empty where its meaning says it.
    pub(super) fn values(&self) -> String {
        match self.kind {
            Kind::Size(min, max) => format!("{} to {}", ByteSize(min), ByteSize(max)),
            Kind::SizeOrNone(none, min) => format!("{} or more; 0 = {none}", ByteSize(min)),
            Kind::Duration(min, max) => format!("{} to {}", milliseconds_text(min), milliseconds_text(max)),
            Kind::DurationOrNone(none, max) => format!("up to {}; 0 = {none}", milliseconds_text(max)),
            Kind::Count(min, max) => format!("{min} to {max}"),
            Kind::Ratio => "0 to 1".to_owned(),
            Kind::Choice(_) | Kind::ServedChoice(..) | Kind::Policy => one_of(&self.words()),
            // Longer than what anybody gives.
            Kind::Text(_, 4_096..) => String::new(),
            Kind::Text(0, max) => format!("up to {max} bytes"),
            Kind::Text(min, max) => format!("{min} to {max} bytes"),
            Kind::Switch | Kind::Parsed(_) | Kind::List(_) => String::new(),
            Kind::NotServed(_) => "not served by this build yet".to_owned(),
        }
    }

    /// What it means.
    pub(super) fn meaning(&self) -> &'static str {
        self.help.trim()
    }

    /// What it is where nothing is given, in words or as the flag takes it; empty: this build does not serve it.
    pub(super) fn default_text(&self) -> String {
        let written = |value| self.written(&value);
        match self.default {
            Some(words) => words.to_owned(),
            None => self.value(&ServeConfig::default()).map(written).unwrap_or_default(),
        }
    }

    /// The words that its value may be, where it is one of a few.
    #[must_use]
    pub fn words(&self) -> Vec<&'static str> {
        match self.kind {
            Kind::Choice(words) | Kind::ServedChoice(words, _) => words.to_vec(),
            Kind::Policy => PolicyName::ALL.map(PolicyName::as_str).to_vec(),
            _ => Vec::new(),
        }
    }

    /// The number of bytes, milliseconds or things that a text says.
    pub(super) fn number(&self, text: &str) -> Result<u64, Problem> {
        let (number, min, max) = match self.kind {
            Kind::Size(min, max) => (text.parse::<ByteSize>().map_err(|bad| bad.problem)?.0, min, max),
            Kind::SizeOrNone(_, min) => match text.parse::<ByteSize>() {
                Ok(ByteSize(0)) => return Ok(0),
                Ok(size) => (size.0, min, u64::MAX),
                Err(bad) => return Err(bad.problem),
            },
            Kind::Duration(min, max) => (milliseconds(text)?, min, max),
            Kind::DurationOrNone(_, max) => (milliseconds(text)?, 0, max),
            Kind::Count(min, max) => (whole_number(text)?, min, max),
            _ => return Err("is no number"),
        };
        match number {
            n if n < min => Err("is too little"),
            n if n > max => Err("is too much"),
            n => Ok(n),
        }
    }

    /// The text, if it is one of the words or has a length that is allowed.
    pub(super) fn word<'t>(&self, text: &'t str) -> Result<&'t str, Problem> {
        match self.kind {
            Kind::Choice(words) if !words.contains(&text) => Err("is not known"),
            Kind::ServedChoice(words, others) if !words.contains(&text) && !others.contains(&text) => {
                Err("is not known")
            }
            Kind::Text(min, _) if text.len() < min => Err("is empty"),
            Kind::Text(_, max) if text.len() > max => Err("is too long"),
            Kind::Text(..) if text.chars().any(char::is_control) => Err("has control characters"),
            _ => Ok(text),
        }
    }
}

fn one_of(words: &[&str]) -> String {
    match words {
        [most @ .., last] if !most.is_empty() => format!("{} or {last}", most.join(", ")),
        words => words.concat(),
    }
}

fn whole_number(text: &str) -> Result<u64, Problem> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("is no whole number");
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

fn milliseconds(text: &str) -> Result<u64, Problem> {
    let duration = humantime::parse_duration(text).map_err(|_| "is no duration with a unit")?;
    if duration.subsec_nanos() % 1_000_000 != 0 {
        return Err("is finer than a millisecond");
    }
    Ok(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn milliseconds_text(ms: u64) -> String {
    duration_text(Duration::from_millis(ms))
}

/// The name that resembles another most, among those of all settings, if any does.
fn nearest(wanted: &str, name: impl Fn(&Setting) -> &'static str) -> Option<&'static str> {
    // What is much longer resembles none, and a caller of Admin may send what it likes.
    if wanted.len() > NAME_BYTES_MAX {
        return None;
    }
    SETTINGS
        .iter()
        .map(|setting| (strsim::jaro_winkler(wanted, name(setting)), name(setting)))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, name)| name)
}

/// How alike two names must be, 0 to 1 (Jaro-Winkler), for one to be offered for the other.
const LIKENESS_MIN: f64 = 0.75;
/// Twice as long as the longest name of a setting.
const NAME_BYTES_MAX: usize = 64;
