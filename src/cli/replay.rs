//! stub
use super::exit::{CliError, Exit};
use super::global::Global;
use clap::Args;
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {}
pub(super) fn run(_global: &Global, _args: ReplayArgs) -> Result<Exit, CliError> {
    Ok(Exit::Done)
}
