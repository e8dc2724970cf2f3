//! `larder invalidate`: drops a prefix, a tag or everything of a namespace at once.

use clap::Args;
use serde_json::json;

use super::exit::{CliError, Exit};
use super::global::Global;
use super::output::print;
use crate::client::InvalidateScope;

/// Arguments of `invalidate`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct InvalidateArgs {
    /// Entries whose keys begin with this
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Entries that were set with this tag
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// All entries of the namespace
    #[arg(long)]
    all: bool,
}

pub(super) fn run(global: &Global, args: InvalidateArgs) -> Result<Exit, CliError> {
    let scope = match (args.prefix, args.tag) {
        (Some(prefix), _) => InvalidateScope::Prefix(prefix.into_bytes().into()),
        (_, Some(tag)) => InvalidateScope::Tag(tag),
        _ => InvalidateScope::All,
    };
    let generation = super::block_on(async { Ok(global.client()?.invalidate(scope).await?) })?;
    let document = json!({ "namespace": global.namespace, "generation": generation });
    print(global, &document, &[("generation", &generation)])?;
    Ok(Exit::Done)
}
