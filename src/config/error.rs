//! What can be wrong with a configuration, in words that say how to put it right: where it was given, what is wrong
//! with it and what is allowed. All of it is the caller's fault.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::engine::UnknownPolicy;
use crate::redacted::Redacted;

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingLocation {
    /// Nowhere: it is the default of this flag.
    Default {
        /// The flag, without its dashes.
        flag: &'static str,
    },
    /// In the file of `--config`.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key.
        key: &'static str,
    },
    /// In a `LARDER_*` variable.
    Variable {
        /// Its name.
        name: String,
    },
    /// On the command line.
    Flag {
        /// The flag, without its dashes.
        flag: &'static str,
    },
}

impl fmt::Display for SettingLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default { flag } => write!(f, "the default of --{flag}"),
            Self::File { path, line, key } => write!(f, "{}, line {line}, {key}", path.display()),
            Self::Variable { name } => f.write_str(name),
            Self::Flag { flag } => write!(f, "--{flag}"),
        }
    }
}

/// A value and where it was given, as a sentence can name it: `--policy lru`, `LARDER_POLICY=lru`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenValue {
    /// Where it was given.
    pub location: SettingLocation,
    /// The value's text, which is not shown where it may be a secret.
    pub text: Redacted,
}

impl fmt::Display for GivenValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { location, text } = self;
        match location {
            SettingLocation::Default { flag } => write!(f, "--{flag} {text} (the default)"),
            SettingLocation::File { .. } => write!(f, "{location} = {text:?}"),
            SettingLocation::Variable { name } => write!(f, "{name}={text}"),
            SettingLocation::Flag { flag } => write!(f, "--{flag} {text}"),
        }
    }
}

/// Why a configuration is refused. Nothing has been started or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file of `--config` cannot be read.
    #[error(
        "{location} names {path:?}, which cannot be read: {source}; name a TOML file that exists and may be read"
    )]
    Unreadable {
        /// Who named the file.
        location: SettingLocation,
        /// The file.
        path: Redacted,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{}, line {line}: {message}; the file is TOML, one `key = value` a line", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser said.
        message: Redacted,
    },
    /// The file has a key that is no setting.
    #[error("{}, line {line}: there is no setting {key:?}; {}", path.display(), advice(*nearest))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key.
        key: Redacted,
        /// The setting that it most resembles, if it resembles any.
        nearest: Option<&'static str>,
    },
    /// A flag that a program gave and that is no setting's.
    #[error("there is no setting {flag:?}; {}", advice(*nearest))]
    UnknownFlag {
        /// Its name.
        flag: Redacted,
        /// The setting that it most resembles, if it resembles any.
        nearest: Option<&'static str>,
    },
    /// A variable that is nearly a setting's.
    #[error(
        "there is no variable {name}; did you mean {nearest}? Give it that name, or unset it: one that is nearly a \
         setting's is not ignored"
    )]
    UnknownVariable {
        /// Its name.
        name: String,
        /// The name that it was meant to have.
        nearest: String,
    },
    /// The file has a value of a wrong type.
    #[error("{location} is {found}; give {allowed}")]
    WrongType {
        /// Where.
        location: SettingLocation,
        /// The type that was found, with its article.
        found: &'static str,
        /// What is allowed.
        allowed: String,
    },
    /// A variable is not UTF-8.
    #[error("{name} is not UTF-8; give {allowed}")]
    NotUnicode {
        /// The variable.
        name: String,
        /// What is allowed.
        allowed: String,
    },
    /// A value that is not allowed.
    #[error("{location}: {text:?} {problem}; give {allowed}")]
    BadValue {
        /// Where.
        location: SettingLocation,
        /// The value.
        text: Redacted,
        /// What is wrong with it.
        problem: String,
        /// What is allowed.
        allowed: String,
    },
    /// What the design knows and this build does not serve.
    #[error("{given} is not served by this build yet: {why}; {instead}")]
    NotServed {
        /// What was asked for, and where.
        given: GivenValue,
        /// What is missing.
        why: &'static str,
        /// What to do.
        instead: String,
    },
    /// Two settings that cannot both hold.
    #[error("{one} contradicts {other}: {why}")]
    Contradiction {
        /// The one.
        one: Box<GivenValue>,
        /// The other.
        other: Box<GivenValue>,
        /// Why they cannot both hold, and what to do.
        why: String,
    },
    /// A setting that does nothing without another.
    #[error("{given} needs {needed}: {why}; give both or neither")]
    Needs {
        /// What was asked for, and where.
        given: GivenValue,
        /// The other.
        needed: &'static str,
        /// What it is needed for.
        why: &'static str,
    },
    /// A policy that this build does not serve, or nobody knows.
    #[error("{location}: {source}")]
    Policy {
        /// Where.
        location: SettingLocation,
        /// Which, and what is served.
        source: UnknownPolicy,
    },
    /// A listener beyond loopback without TLS and authentication.
    #[error(
        "{given} can be reached from other machines, with neither TLS nor authentication; listen on 127.0.0.1, \
         [::1] or localhost, or say --insecure if the network is trusted"
    )]
    Exposed {
        /// The listener, and who asked for it.
        given: GivenValue,
    },
}

fn advice(nearest: Option<&'static str>) -> String {
    match nearest {
        Some(key) => format!("did you mean {key:?}?"),
        None => "the keys are the flags' names without dashes in front, see larder serve --help".to_owned(),
    }
}
