//! `larder scan`: the keys of a namespace, or keys and values, page by page.

use std::cell::RefCell;
use std::ffi::OsString;

use clap::Args;
use serde_json::{Value, json};

use super::escape::{bytes_json, escaped};
use super::exit::{CliError, Exit};
use super::get::ttl_ms;
use super::global::Global;
use super::keys::KeyForm;
use super::output::{print_raw, token_json};
use super::pages::{self, Wanted};
use super::refusals::Refusals;
use crate::client::{ScanItem, ScanOptions};

/// Arguments of `scan`.
#[derive(Debug, Args)]
pub(super) struct ScanArgs {
    /// Only keys that begin with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: OsString,
    /// Print the values too, escaped, after a tab
    #[arg(long)]
    values: bool,
    /// Print each key as it is with a zero byte after it, for xargs -0 and del -0
    #[arg(short = '0', long, conflicts_with = "values")]
    null: bool,
    /// Stop after this many entries [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Entries to a page; a node gives no more than its --max-batch
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    page_size: u32,
    #[command(flatten)]
    form: KeyForm,
}

pub(super) fn run(global: &Global, args: ScanArgs) -> Result<Exit, CliError> {
    if args.null && global.json() {
        return Err(CliError::Usage("-0 and --output json are two forms; give one of them".to_owned()));
    }
    let prefix = args.form.prefix(&args.prefix)?;
    let wanted = Wanted { limit: args.limit, page_size: args.page_size };
    let unprintable = RefCell::new(Refusals::default());
    let end = pages::run(global, wanted, "there is no such entry", async |client, page_size, page_token| {
        let options = ScanOptions { page_size, page_token, keys_only: !args.values };
        let page = client.scan(prefix.clone(), options).await?;
        let mut text = Vec::new();
        for item in &page.items {
            if args.null {
                put_raw(&mut text, &item.key, &mut unprintable.borrow_mut());
            } else {
                text.extend_from_slice(line(global, item, args.values).as_bytes());
                text.push(b'\n');
            }
        }
        print_raw(&text)?;
        Ok((page.items.len(), page.next_page_token))
    })?;
    let unprintable = unprintable.into_inner();
    unprintable.tell("not printed");
    Ok(if unprintable.count() > 0 { Exit::Refused } else { end })
}

/// The key and a zero byte. A key that holds one would be read as two.
fn put_raw(text: &mut Vec<u8>, key: &[u8], unprintable: &mut Refusals) {
    if key.contains(&0) {
        unprintable
            .add(key, "it holds a zero byte, which ends a key of -0; scan without -0 prints it escaped");
        return;
    }
    text.extend_from_slice(key);
    text.push(0);
}

/// A line of its own for each entry: the escaped key, or a JSON document.
fn line(global: &Global, item: &ScanItem, values: bool) -> String {
    if global.json() {
        return document(item, values).to_string();
    }
    if values {
        format!("{}\t{}", escaped(&item.key), escaped(&item.entry.value))
    } else {
        escaped(&item.key).to_string()
    }
}

fn document(item: &ScanItem, values: bool) -> Value {
    let entry = &item.entry;
    let mut document = json!({
        "key": bytes_json(&item.key),
        "version": token_json(entry.version.0),
        "remaining_ttl_ms": ttl_ms(entry.remaining_ttl),
        "flags": entry.flags,
        "content_type": entry.content_type,
        "value_bytes": entry.value_bytes,
    });
    if values {
        document["value"] = bytes_json(&entry.value);
    }
    document
}
