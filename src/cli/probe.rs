//! `larder probe`: the exec probe. Any listener answers it: data, admin or health.

use clap::Args;
use serde_json::json;

use super::exit::{CliError, Exit};
use super::global::Global;
use super::output::print;
use super::parse::Offered;
use crate::client::Serving;

/// Arguments of `probe`.
#[derive(Debug, Args)]
pub(super) struct ProbeArgs {
    /// The service to ask about: "" is the process, larder.v1.Cache the data plane
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_possible_values = true,
        value_parser = Offered(vec!["larder.v1.Cache", "larder.v1.Admin", "persistence"])
    )]
    service: String,
}

pub(super) fn run(global: &Global, args: ProbeArgs) -> Result<Exit, CliError> {
    let health = super::block_on(async {
        let client = global.builder().build_health()?;
        Ok(client.check(&args.service).await?)
    })?;
    let name = health.name();
    print(global, &json!({ "service": args.service, "status": name }), &[("status", &name)])?;
    Ok(if health == Serving::Serving { Exit::Done } else { Exit::NotMet })
}
