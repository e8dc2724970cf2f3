//! `larder completions SHELL`: a completion script on stdout.

use clap::Args;
use clap_complete::Shell;

use super::exit::{CliError, Exit};
use super::output::print_raw;

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs, command: &mut clap::Command) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "larder", &mut script);
    print_raw(&script)?;
    Ok(Exit::Done)
}
