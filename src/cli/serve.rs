//! `larder serve`: the node itself.

use clap::Args;

use super::exit::{CliError, Exit};

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {}

pub(super) fn run(_args: ServeArgs) -> Result<Exit, CliError> {
    Err(CliError::Usage("this build has no server yet".to_owned()))
}
