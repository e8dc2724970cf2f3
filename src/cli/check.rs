//! `larder serve --check`: what would be in force, and what would keep a node from starting.

use super::exit::{CliError, Exit};
use super::output::{note, print_error, print_raw};
use super::{admin, block_on, global::Output};
use crate::client::settings_in_force;
use crate::config::LoadedConfig;
use crate::node::{check, descriptors};
use crate::telemetry::log;

/// Prints the settings in force, then everything that is wrong; `settings_only` asks nothing of the system.
pub(super) fn run(loaded: &LoadedConfig, settings_only: bool) -> Result<Exit, CliError> {
    print_raw(admin::config_lines(settings_in_force(&check::in_force(loaded))).as_bytes())?;
    for warning in &loaded.warnings {
        note(&format!("warning: {warning}"));
    }
    let mut problems: Vec<String> = log::check_filter(&loaded.config.telemetry.log)
        .err()
        .map(|error| error.to_string())
        .into_iter()
        .collect();
    if !settings_only {
        descriptors::raise_limit();
        problems.extend(block_on(async { Ok(check::startup_problems(&loaded.config).await) })?);
    }
    let Some(last) = problems.pop() else {
        note(if settings_only { "the settings are valid" } else { "this can be served" });
        return Ok(Exit::Done);
    };
    for problem in problems {
        print_error(Output::Text, &CliError::Usage(problem));
    }
    Err(CliError::Usage(last))
}
