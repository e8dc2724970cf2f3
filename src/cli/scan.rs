//! `larder scan`: the keys of a namespace, or keys and values, page by page.

use bytes::Bytes;
use clap::Args;
use serde_json::json;

use super::exit::{CliError, Exit};
use super::global::Global;
use super::keys::KeyForm;
use super::output::{bytes_json, print_raw, token_json};
use super::pages::{self, Wanted};
use crate::api::v1;
use crate::client::ScanOptions;

/// Arguments of `scan`.
#[derive(Debug, Args)]
pub(super) struct ScanArgs {
    /// Only keys that begin with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// Print the values too, escaped, after a tab
    #[arg(long)]
    values: bool,
    /// Stop after so many entries [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Entries to a page
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    page_size: u32,
    #[command(flatten)]
    form: KeyForm,
}

pub(super) fn run(global: &Global, args: ScanArgs) -> Result<Exit, CliError> {
    let prefix = if args.prefix.is_empty() { Bytes::new() } else { args.form.key(&args.prefix)? };
    let wanted = Wanted { limit: args.limit, page_size: args.page_size };
    pages::run(global, wanted, "there is no such entry", async |client, page_size, page_token| {
        let options = ScanOptions { page_size, page_token, keys_only: !args.values };
        let page = client.scan(prefix.clone(), options).await?;
        for item in &page.items {
            print_item(global, item, args.values)?;
        }
        Ok((page.items.len(), page.next_page_token))
    })
}

/// A line of its own for each entry: the escaped key, or a JSON document.
fn print_item(global: &Global, item: &v1::scan_response::Item, values: bool) -> Result<(), CliError> {
    let entry = item.entry.clone().unwrap_or_default();
    let mut line = if global.json() {
        let mut document = json!({
            "key": bytes_json(&item.key),
            "version": token_json(entry.version),
            "remaining_ttl_ms": entry.remaining_ttl_ms,
            "flags": entry.flags,
            "content_type": entry.content_type,
            "value_bytes": entry.value_bytes,
        });
        if values {
            document["value"] = bytes_json(&entry.value);
        }
        document.to_string()
    } else if values {
        format!("{}\t{}", item.key.escape_ascii(), entry.value.escape_ascii())
    } else {
        item.key.escape_ascii().to_string()
    };
    line.push('\n');
    print_raw(line.as_bytes())
}
