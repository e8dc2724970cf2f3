//! `larder invalidate`: drops a prefix, a tag or everything of a namespace at once.

use std::ffi::OsString;

use clap::Args;
use serde_json::json;

use super::exit::{CliError, Exit};
use super::global::Global;
use super::keys::KeyForm;
use super::output::print;
use crate::client::InvalidateScope;

/// Arguments of `invalidate`.
#[derive(Debug, Args)]
pub(super) struct InvalidateArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    form: KeyForm,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ScopeArgs {
    /// Entries whose keys begin with this
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<OsString>,
    /// Entries that were set with this tag
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// All entries of the namespace
    #[arg(long)]
    all: bool,
}

pub(super) fn run(global: &Global, args: InvalidateArgs) -> Result<Exit, CliError> {
    let scope = match (args.scope.prefix, args.scope.tag) {
        (Some(prefix), _) => InvalidateScope::Prefix(args.form.key(&prefix)?),
        (_, Some(tag)) => InvalidateScope::Tag(tag),
        _ => InvalidateScope::All,
    };
    let generation = super::block_on(async { Ok(global.client()?.invalidate(scope).await?) })?;
    let document = json!({ "namespace": global.namespace, "generation": generation });
    print(global, &document, &[("generation", &generation)])?;
    Ok(Exit::Done)
}
