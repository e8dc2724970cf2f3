//! The TOML file of `--config`: keys are the flags' names, values become the texts that flags would be.
//!
//! The file is checked as a whole before any value is used: a key that is no setting and a value of a wrong
//! type are errors with their line, also where a flag would override them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, SettingLocation};
use super::setting::{Kind, Setting};
use crate::entry::ByteSize;

/// The values of a file, by key.
#[derive(Default)]
pub(super) struct File {
    path: PathBuf,
    values: BTreeMap<&'static str, (usize, String)>,
}

impl File {
    /// Reads and checks a file that `place` named.
    pub(super) fn read(path: &Path, location: SettingLocation) -> Result<Self, ConfigError> {
        match read(path) {
            Ok(text) => Self::parse(path, &text),
            Err(source) => {
                let path = path.to_string_lossy().into_owned().into();
                Err(ConfigError::Unreadable { location, path, source })
            }
        }
    }

    /// Checks a file's text.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let line_at = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: line_at(error.span().map_or(0, |span| span.start)),
            message: error.message().into(),
        })?;
        let mut file = Self { path: path.to_owned(), values: BTreeMap::new() };
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let line = line_at(key.span().start);
            let name: &str = key.get_ref();
            let Some(setting) = Setting::of_flag(name) else {
                let (path, nearest) = (file.path, Setting::nearest_flag(name));
                return Err(ConfigError::UnknownKey { path, line, key: name.into(), nearest });
            };
            let text = text_of(setting, value).ok_or_else(|| ConfigError::WrongType {
                location: SettingLocation::File { path: path.to_owned(), line, key: setting.flag },
                found: with_article(value.get_ref()),
                allowed: as_toml(setting),
            })?;
            file.values.insert(setting.flag, (line, text));
        }
        Ok(file)
    }

    /// What the file says of a setting, and where.
    pub(super) fn value(&self, setting: &Setting) -> Option<(SettingLocation, &str)> {
        let (line, text) = self.values.get(setting.flag)?;
        Some((SettingLocation::File { path: self.path.clone(), line: *line, key: setting.flag }, text))
    }
}

/// All of a file, unless it is too long to be one of settings: a device has no end.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is longer than {}, so it is no configuration", ByteSize(FILE_BYTES_MAX)),
        ));
    }
    Ok(text)
}

const FILE_BYTES_MAX: u64 = 1 << 20;

/// The text that a flag would be, if the value's type suits the setting.
fn text_of(setting: &Setting, value: &Spanned<DeValue<'_>>) -> Option<String> {
    match (setting.kind, value.get_ref()) {
        (Kind::Count(..) | Kind::Size(..) | Kind::SizeOrNone(..), DeValue::Integer(number)) => {
            Some(decimal(number.as_str(), number.radix()))
        }
        (Kind::Count(..), _) => None,
        (Kind::DurationOrNone(..), DeValue::Integer(number)) if number.as_str() == "0" => {
            Some("0".to_owned())
        }
        (Kind::Ratio, DeValue::Integer(number)) => Some(number.as_str().to_owned()),
        (Kind::Ratio, DeValue::Float(number)) => Some(number.as_str().to_owned()),
        (Kind::Ratio, _) => None,
        (Kind::Switch, DeValue::Boolean(on)) => Some(on.to_string()),
        (Kind::Switch, _) => None,
        (Kind::List(_), DeValue::Array(items)) => {
            let texts: Option<Vec<&str>> = items.iter().map(|item| item.get_ref().as_str()).collect();
            texts.filter(|texts| !texts.is_empty()).map(|texts| texts.join(","))
        }
        // It is refused in any case, whatever it says.
        (Kind::NotServed(_), DeValue::Integer(number)) => Some(number.as_str().to_owned()),
        (_, DeValue::String(text)) => Some(text.to_string()),
        _ => None,
    }
}

fn decimal(digits: &str, radix: u32) -> String {
    u64::from_str_radix(digits, radix).map_or_else(|_| digits.to_owned(), |number| number.to_string())
}

fn with_article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// What is allowed, with what TOML wants around it.
fn as_toml(setting: &Setting) -> String {
    let allowed = setting.allowed();
    match setting.kind {
        Kind::Count(..) | Kind::Ratio | Kind::Switch => format!("{allowed}, without quotes"),
        Kind::List(_) => format!("{allowed} in quotes, or an array of such"),
        _ => format!("{allowed}, in quotes"),
    }
}
