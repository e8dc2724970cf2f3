//! `larder set KEY [VALUE]`: stores a value that stands on the command line, in a file or on stdin.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueHint};
use serde_json::json;

use super::durability::WaitsFor;
use super::escape::bytes_json;
use super::exit::{CliError, Exit};
use super::global::Global;
use super::keys::KeyForm;
use super::output::{note, print, token_json};
use super::{parse, read};
use crate::client::{NotStored, SetCondition, SetExpiration, SetOptions, SetOutcome};
use crate::entry::{CONTENT_TYPE_BYTES_MAX, Version};

/// Arguments of `set`.
#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The key
    key: OsString,
    /// The value; where it is missing it is read from stdin, to the end and byte for byte; '' is an empty one
    #[arg(conflicts_with = "file", allow_hyphen_values = true)]
    value: Option<OsString>,
    /// Read the value from a file; - is stdin
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    #[command(flatten)]
    expiration: ExpirationArgs,
    #[command(flatten)]
    condition: ConditionArgs,
    /// 32 bits of your own, given back with the value
    #[arg(long, value_name = "N", default_value_t = 0)]
    flags: u32,
    /// The media type, up to 255 B, given back with the value
    #[arg(long, value_name = "TYPE", default_value = "", value_parser = content_type)]
    content_type: String,
    /// A name under which `invalidate --tag` drops the entry together with others; repeatable, up to 16
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    #[command(flatten)]
    waits_for: WaitsFor,
    #[command(flatten)]
    form: KeyForm,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct ExpirationArgs {
    /// Expire after this long; 0 is never [default: the namespace's default]
    #[arg(long, value_name = "DUR", value_parser = parse::ttl)]
    ttl: Option<Duration>,
    /// Expire at this time of the node's clock, as 2030-01-31T12:00:00Z or in ms since 1970; nothing is stored if it has
    /// passed, and what was there is deleted
    #[arg(long, value_name = "TIME", value_parser = parse::unix_ms)]
    expire_at: Option<u64>,
    /// Keep the expiry of the entry that is replaced
    #[arg(long)]
    keep_ttl: bool,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct ConditionArgs {
    /// Store only where there is no entry
    #[arg(long)]
    if_absent: bool,
    /// Store only where there is an entry
    #[arg(long)]
    if_present: bool,
    /// Store only where there is an entry of this version
    #[arg(long, value_name = "V", value_parser = clap::value_parser!(u64).range(1..))]
    if_version: Option<u64>,
}

pub(super) fn run(global: &Global, args: SetArgs) -> Result<Exit, CliError> {
    let key = args.form.key(&args.key)?;
    let value: Bytes = match (args.value, &args.file) {
        (_, Some(path)) => read::value(path)?.into(),
        (Some(value), None) => value.into_vec().into(),
        (None, None) if io::stdin().is_terminal() => {
            let what = "there is no value, and stdin is a terminal; give VALUE, --file FILE or a pipe";
            return Err(CliError::Usage(what.to_owned()));
        }
        (None, None) => read::stdin_unnamed()?.into(),
    };
    let options = SetOptions {
        expiration: match args.expiration {
            ExpirationArgs { ttl: Some(ttl), .. } => SetExpiration::After(ttl),
            ExpirationArgs { expire_at: Some(at), .. } => SetExpiration::AtUnixMs(at),
            ExpirationArgs { keep_ttl: true, .. } => SetExpiration::Keep,
            ExpirationArgs { keep_ttl: false, .. } => SetExpiration::NamespaceDefault,
        },
        condition: match args.condition {
            ConditionArgs { if_absent: true, .. } => SetCondition::IfAbsent,
            ConditionArgs { if_present: true, .. } => SetCondition::IfPresent,
            ConditionArgs { if_version: Some(version), .. } => SetCondition::IfVersion(Version(version)),
            ConditionArgs { if_version: None, .. } => SetCondition::Always,
        },
        flags: args.flags,
        content_type: args.content_type,
        tags: args.tags,
        durability: args.waits_for.durability,
    };
    let asked = key.clone();
    let outcome = super::block_on(async { Ok(global.client()?.set(asked, value, &options).await?) })?;
    match outcome {
        SetOutcome::Stored(version) => {
            let document =
                json!({ "outcome": "stored", "key": bytes_json(&key), "version": token_json(version.0) });
            print(global, &document, &[("version", &version.0)])?;
            Ok(Exit::Done)
        }
        SetOutcome::NotStored(not) => {
            let (current, why) = match not {
                NotStored::OwnerDown => (None, "the key's owner is out of service".to_owned()),
                NotStored::Expired => {
                    let why = "the time that it was to expire at has passed by the node's clock; what was there is deleted";
                    (None, why.to_owned())
                }
                NotStored::ConditionNotMet { current: None } => {
                    (None, "the condition was not met: there is no entry".to_owned())
                }
                NotStored::ConditionNotMet { current: Some(version) } => {
                    let why =
                        format!("the condition was not met: there is an entry of version {}", version.0);
                    (Some(version), why)
                }
            };
            let current = current.unwrap_or(Version::NONE).0;
            let document = json!({ "outcome": "not_stored", "key": bytes_json(&key),
                "current_version": token_json(current), "owner_down": not == NotStored::OwnerDown,
                "expired": not == NotStored::Expired });
            print(global, &document, &[("current_version", &current)])?;
            note(&format!("not stored: {why}"));
            Ok(Exit::NotMet)
        }
    }
}

fn content_type(text: &str) -> Result<String, String> {
    if text.len() > CONTENT_TYPE_BYTES_MAX {
        return Err(format!(
            "it has {} bytes; a content type has up to {CONTENT_TYPE_BYTES_MAX}",
            text.len()
        ));
    }
    Ok(text.to_owned())
}
