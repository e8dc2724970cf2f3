//! The flags of `larder serve`, as text.
//!
//! Every flag is optional and kept as it was written: values are parsed in one place ([`super::setting`]) for
//! flags, variables and the file alike, so that the same mistake reads the same wherever it was made. The
//! variables are not left to clap's `env`, which would neither name the variable in an error nor let a test
//! set one (`std::env::set_var` is unsafe).

use std::collections::BTreeMap;
use std::fmt;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::setting::{Kind, Setting};
use super::table::SETTINGS;

/// What `larder serve` takes: two options of its own, and a flag for each setting of the table.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ServeArgs {
    options: Options,
    /// What was given for settings, by flag.
    given: BTreeMap<String, String>,
}

#[derive(Clone, Default, PartialEq, Eq, Args)]
struct Options {
    /// TOML file with settings; its keys are the flags' names. Default: none
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Print what would be in force and exit, 0 if it can be served and 2 if not: checks all settings, the data
    /// directory and the addresses, with --check=settings the settings alone. Default: serve
    #[arg(
        long,
        value_name = "WHAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "all",
        value_parser = ["all", "settings"]
    )]
    check: Option<String>,
}

const AFTER_HELP: &str = "Sizes are written 64MiB, 64Mi or as a number of bytes, durations 250ms, 5s or 1h. Every flag \
    but --check is also a variable, --data-dir is LARDER_DATA_DIR, and a key of the --config file, data-dir = \"…\". \
    Flags override variables, variables override the file. Port 0 picks a free port.";

impl ServeArgs {
    /// The same with `--config FILE`.
    #[must_use]
    pub fn with_file(mut self, path: impl Into<String>) -> Self {
        self.options.config = Some(path.into());
        self
    }

    /// The same with a flag, named without its dashes, and its text: `with("memory", "64MiB")`. Several listeners have
    /// commas between. A flag that there is not is refused by [`ServeConfig::load`](super::ServeConfig::load).
    #[must_use]
    pub fn with(mut self, flag: impl Into<String>, text: impl Into<String>) -> Self {
        self.given.insert(flag.into(), text.into());
        self
    }

    /// The file of `--config`.
    pub(super) fn file(&self) -> Option<&str> {
        self.options.config.as_deref()
    }

    /// What `--check` asks to be checked: "all" or "settings".
    #[must_use]
    pub fn check(&self) -> Option<&str> {
        self.options.check.as_deref()
    }

    /// What was given for a setting.
    pub(super) fn text(&self, setting: &Setting) -> Option<&str> {
        self.given.get(setting.flag).map(String::as_str)
    }

    /// A name that is no setting's.
    pub(super) fn unknown_flag(&self) -> Option<&str> {
        self.given.keys().map(String::as_str).find(|flag| Setting::of_flag(flag).is_none())
    }
}

impl Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        Options::augment_args(command).args(SETTINGS.iter().map(flag)).after_help(AFTER_HELP)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |setting: &Setting| {
            let texts: Vec<&str> = matches.get_many::<String>(setting.flag)?.map(String::as_str).collect();
            Some((setting.flag.to_owned(), texts.join(",")))
        };
        let options = Options::from_arg_matches(matches)?;
        Ok(Self { options, given: SETTINGS.iter().filter_map(given).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A setting's flag.
fn flag(setting: &Setting) -> Arg {
    let arg = Arg::new(setting.flag)
        .long(setting.flag)
        .value_name(setting.value_name)
        .help_heading(setting.group)
        .help(help(setting));
    match setting.kind {
        Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Kind::List(_) => arg.value_delimiter(',').action(ArgAction::Append),
        _ => arg,
    }
}

/// What the setting means, what its value may be, and its default.
fn help(setting: &Setting) -> String {
    let mut text = setting.meaning().to_owned();
    let values = setting.values();
    if !values.is_empty() {
        text = format!("{text} ({values})");
    }
    if setting.is_served() {
        text = format!("{text}. Default: {}", setting.default_text());
    }
    text
}

impl fmt::Debug for ServeArgs {
    /// Nothing of what was given: as long as it is not parsed, any of it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeArgs").finish_non_exhaustive()
    }
}
