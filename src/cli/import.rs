//! stub
use super::exit::{CliError, Exit};
use super::global::Global;
use clap::Args;
#[derive(Debug, Args)]
pub(super) struct ImportArgs {}
pub(super) fn run(_global: &Global, _args: ImportArgs) -> Result<Exit, CliError> {
    Ok(Exit::Done)
}
