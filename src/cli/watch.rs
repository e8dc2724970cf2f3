//! `larder watch`: what becomes untrue, a line each, as the node tells it.

use std::ffi::OsString;

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use super::escape::{bytes_json, escaped};
use super::exit::{CliError, Exit};
use super::global::Global;
use super::keys::KeyForm;
use super::output::{print_json, print_raw, token_json};
use crate::client::{WatchEvent, WatchMessage, WatchOptions, WatchScope};

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Only what may cover keys that begin with this
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: OsString,
    /// Of all namespaces, also those that are created later; each line ends with its namespace
    #[arg(long)]
    all_namespaces: bool,
    /// Stop after this many events [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    form: KeyForm,
}

pub(super) fn run(global: &Global, args: WatchArgs) -> Result<Exit, CliError> {
    let prefix = args.form.prefix(&args.prefix)?;
    let namespaces = if args.all_namespaces { Vec::new() } else { vec![global.namespace.clone()] };
    super::block_on(async {
        let options = WatchOptions { namespaces, prefix, ..WatchOptions::default() };
        let mut stream = global.client()?.watch(options).await?;
        let mut left = args.count.unwrap_or(u64::MAX);
        while left > 0
            && let Some(message) = stream.next().await?
        {
            if let WatchEvent::Heartbeat { .. } = message.event {
                continue;
            }
            if global.json() {
                print_json(&document(&message))?;
            } else {
                print_raw(line(&message.event, args.all_namespaces).as_bytes())?;
            }
            left -= 1;
        }
        Ok(Exit::Done)
    })
}

/// What a scope is called, and its text.
fn scope(scope: &WatchScope) -> (&'static str, Option<Bytes>) {
    match scope {
        WatchScope::Key(key) => ("key", Some(key.clone())),
        WatchScope::Prefix(prefix) => ("prefix", Some(prefix.clone())),
        WatchScope::Tag(tag) => ("tag", Some(Bytes::copy_from_slice(tag.as_bytes()))),
        WatchScope::All => ("all", None),
    }
}

/// Kind, text and version, separated by tabs; a dash for what there is not.
fn line(event: &WatchEvent, with_namespace: bool) -> String {
    let mut line = match event {
        WatchEvent::Invalidation { scope, version, .. } => {
            let (kind, text) = self::scope(scope);
            let text = text.map_or_else(|| "-".to_owned(), |text| escaped(&text).to_string());
            format!("{kind}\t{text}\t{}", version.0)
        }
        WatchEvent::Discontinuity(reason) => format!("discontinuity\t{}\t-", reason.as_str()),
        WatchEvent::RingChanged { epoch } => format!("ring-changed\t{epoch}\t-"),
        // Not shown.
        WatchEvent::Heartbeat { .. } => String::new(),
    };
    if with_namespace && let WatchEvent::Invalidation { namespace, .. } = event {
        line.push('\t');
        line.push_str(&escaped(namespace.as_bytes()).to_string());
    }
    line.push('\n');
    line
}

fn document(message: &WatchMessage) -> Value {
    match &message.event {
        WatchEvent::Invalidation { namespace, scope, version } => {
            let (kind, text) = self::scope(scope);
            json!({
                "event": kind,
                "text": text.map(|text| bytes_json(&text)),
                "namespace": namespace,
                "version": token_json(version.0),
                "incarnation": token_json(message.incarnation),
                "shard": message.shard,
                "sequence": token_json(message.sequence),
                "previous_sequence": token_json(message.previous_sequence),
            })
        }
        WatchEvent::Discontinuity(reason) => json!({
            "event": "discontinuity",
            "reason": reason.as_str(),
            "incarnation": token_json(message.incarnation),
        }),
        WatchEvent::RingChanged { epoch } => json!({
            "event": "ring-changed",
            "epoch": token_json(*epoch),
            "incarnation": token_json(message.incarnation),
        }),
        // Not shown.
        WatchEvent::Heartbeat { .. } => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::WatchDiscontinuity;
    use crate::entry::Version;

    #[test]
    fn a_line_says_what_is_covered_and_forges_no_other() {
        let event =
            |scope| WatchEvent::Invalidation { namespace: "a\tb".to_owned(), scope, version: Version(7) };
        let key = event(WatchScope::Key("k\n\t".into()));
        for (event, with_namespace, expected) in [
            (key.clone(), false, "key\tk\\x0a\\x09\t7\n"),
            (key, true, "key\tk\\x0a\\x09\t7\ta\\x09b\n"),
            (event(WatchScope::Prefix("p".into())), false, "prefix\tp\t7\n"),
            (event(WatchScope::Tag("t".to_owned())), false, "tag\tt\t7\n"),
            (event(WatchScope::All), false, "all\t-\t7\n"),
            (
                WatchEvent::Discontinuity(WatchDiscontinuity::SlowReader),
                true,
                "discontinuity\tslow-reader\t-\n",
            ),
            (WatchEvent::RingChanged { epoch: 3 }, true, "ring-changed\t3\t-\n"),
        ] {
            assert_eq!(line(&event, with_namespace), expected);
        }
    }
}
