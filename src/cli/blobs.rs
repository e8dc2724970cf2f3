//! `larder put-blob`, `get-blob`, `del-blob` and `blobs`: large objects, streamed from and to files.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::escape::{bytes_json, escaped};
use super::exit::{CliError, Exit, local};
use super::get::ttl_ms;
use super::global::Global;
use super::keys::KeyForm;
use super::output::{note, print, print_raw, token_json};
use super::pages::{self, Wanted};
use super::refusals::Refusals;
use super::{parse, progress};
use crate::client::{BlobDownload, BlobInfo, BlobOptions, BlobRange, ClientError, ListBlobsOptions};

/// What is read of a file at once.
const READ_BYTES: usize = 256 << 10;
/// Blobs to a page of a listing.
const PAGE_SIZE: u32 = 1_000;
/// Parts of a file that wait to be sent.
const READS_WAITING: usize = 2;

/// Arguments of `put-blob`.
#[derive(Debug, Args)]
pub(super) struct PutBlobArgs {
    /// The key
    key: OsString,
    /// The file; - is stdin
    file: PathBuf,
    /// Expire after this long, up to 100years [default: the namespace's default]
    #[arg(long, value_name = "DUR", value_parser = parse::ttl_or_default)]
    ttl: Option<Duration>,
    /// The media type, kept and given back
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    content_type: String,
    #[command(flatten)]
    form: KeyForm,
}

/// Arguments of `get-blob`.
#[derive(Debug, Args)]
pub(super) struct GetBlobArgs {
    /// The key
    key: OsString,
    /// Write to this file, which is whole when it appears [default: stdout]
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    out: Option<PathBuf>,
    /// Begin at this byte; with a unit, such as 64KiB, or without
    #[arg(long, value_name = "BYTES", value_parser = parse::bytes, default_value = "0")]
    offset: usize,
    /// Read this many bytes [default: to the end]
    #[arg(long, value_name = "BYTES", value_parser = parse::bytes)]
    length: Option<usize>,
    #[command(flatten)]
    form: KeyForm,
}

/// Arguments of `del-blob`.
#[derive(Debug, Args)]
pub(super) struct DelBlobArgs {
    /// The keys
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<OsString>,
    #[command(flatten)]
    form: KeyForm,
}

/// Arguments of `blobs`.
#[derive(Debug, Args)]
pub(super) struct BlobsArgs {
    /// Only keys that begin with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: OsString,
    /// Stop after this many blobs [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    form: KeyForm,
}

pub(super) fn put(global: &Global, args: PutBlobArgs) -> Result<Exit, CliError> {
    let key = args.form.key(&args.key)?;
    let (source, size_bytes) = source(&args.file)?;
    let bar = progress::bytes("put-blob", size_bytes);
    let options = BlobOptions {
        content_type: args.content_type,
        ttl: args.ttl.unwrap_or_default(),
        size_bytes,
        sha256: None,
    };
    let parts = read(source, bar.clone()).map_err(local("cannot start a thread to read"))?;
    let asked = key.clone();
    let stored = super::block_on(async {
        let content = ReceiverStream::new(parts);
        Ok(global.client()?.put_blob(asked, &options, content).await?)
    });
    bar.finish_and_clear();
    let stored = stored?;
    let sha256 = hex(&stored.sha256);
    let document = json!({ "key": bytes_json(&key), "version": token_json(stored.version.0),
        "size_bytes": stored.size_bytes, "sha256": sha256 });
    let facts: [(&str, &dyn std::fmt::Display); 3] =
        [("version", &stored.version.0), ("size_bytes", &stored.size_bytes), ("sha256", &sha256)];
    print(global, &document, &facts)?;
    Ok(Exit::Done)
}

/// What is to be stored, and its length where that is known.
fn source(path: &Path) -> Result<(Box<dyn Read + Send>, Option<u64>), CliError> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let what = || format!("cannot read {}", path.display());
    let file = File::open(path).map_err(local(what()))?;
    let about = file.metadata().map_err(local(what()))?;
    if about.is_dir() {
        return Err(CliError::Usage(format!(
            "{} is a directory; a blob is one file (import takes directories)",
            path.display()
        )));
    }
    Ok((Box::new(file), about.is_file().then_some(about.len())))
}

/// Reads on a thread of its own, as a pipe may block for ever and nothing may wait for it then.
fn read(mut source: Box<dyn Read + Send>, bar: ProgressBar) -> io::Result<mpsc::Receiver<io::Result<Bytes>>> {
    let (parts, content) = mpsc::channel(READS_WAITING);
    std::thread::Builder::new().spawn(move || {
        loop {
            let mut part = vec![0; READ_BYTES];
            let part = match source.read(&mut part) {
                Ok(0) => return,
                Ok(read) => {
                    part.truncate(read);
                    Ok(Bytes::from(part))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            bar.inc(part.as_ref().map_or(0, |part| part.len() as u64));
            if parts.blocking_send(part).is_err() {
                return;
            }
        }
    })?;
    Ok(content)
}

pub(super) fn get(global: &Global, args: GetBlobArgs) -> Result<Exit, CliError> {
    let key = args.form.key(&args.key)?;
    if global.json() && args.out.is_none() {
        let why = "--output json needs -o FILE: stdout has either the blob or the document";
        return Err(CliError::Usage(why.to_owned()));
    }
    let length = args.length.map_or(0, |length| length as u64);
    if args.length == Some(0) {
        return Err(CliError::Usage("--length 0 reads nothing; leave it out to read to the end".to_owned()));
    }
    let range = BlobRange { offset: args.offset as u64, length };
    let asked = key.clone();
    let read = super::block_on(async {
        let Some(mut download) = global.client()?.get_blob(asked, range).await? else { return Ok(None) };
        let bar = progress::bytes("get-blob", Some(download.left()));
        let read = match &args.out {
            None => copy(&mut download, &bar, print_raw).await,
            Some(path) => save(&mut download, &bar, path).await,
        };
        bar.finish_and_clear();
        Ok(Some((read?, download.info().clone())))
    })?;
    let Some((read, info)) = read else {
        note(&format!("there is no blob {}", escaped(&key)));
        return Ok(Exit::NotMet);
    };
    if args.out.is_some() {
        let mut document = document(&info);
        document["read_bytes"] = Value::from(read);
        let sha256 = hex(&info.sha256);
        let facts: [(&str, &dyn std::fmt::Display); 4] = [
            ("read_bytes", &read),
            ("version", &info.version.0),
            ("size_bytes", &info.size_bytes),
            ("sha256", &sha256),
        ];
        print(global, &document, &facts)?;
    }
    Ok(Exit::Done)
}

async fn copy(
    download: &mut BlobDownload,
    bar: &ProgressBar,
    mut write: impl FnMut(&[u8]) -> Result<(), CliError>,
) -> Result<u64, CliError> {
    let mut read = 0;
    while let Some(chunk) = download.chunk().await? {
        write(&chunk)?;
        read += chunk.len() as u64;
        bar.inc(chunk.len() as u64);
    }
    Ok(read)
}

/// Writes to a file beside `path`, which takes its place when it is whole and on the disk.
async fn save(download: &mut BlobDownload, bar: &ProgressBar, path: &Path) -> Result<u64, CliError> {
    let what = || format!("cannot write {}", path.display());
    let (mut part, file) = Part::beside(path).map_err(local(what()))?;
    let read = copy(download, bar, |chunk| (&file).write_all(chunk).map_err(local(what()))).await?;
    file.sync_all().map_err(local(what()))?;
    part.becomes(path).map_err(local(what()))?;
    Ok(read)
}

/// A file that is not whole yet, deleted unless it becomes the one that was asked for.
struct Part(Option<PathBuf>);

impl Part {
    fn beside(path: &Path) -> io::Result<(Self, File)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{:08x}.part", rand::random::<u32>()));
        let part = path.with_file_name(hidden);
        let file = File::options().write(true).create_new(true).open(&part)?;
        Ok((Self(Some(part)), file))
    }

    fn becomes(&mut self, path: &Path) -> io::Result<()> {
        let Some(part) = &self.0 else { return Ok(()) };
        fs::rename(part, path)?;
        self.0 = None;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(part) = &self.0 {
            // Nothing is to be done about one that stays.
            let _ = fs::remove_file(part);
        }
    }
}

pub(super) fn del(global: &Global, args: DelBlobArgs) -> Result<Exit, CliError> {
    let mut refused = Refusals::default();
    let keys = args.form.keys(&args.keys, &mut refused)?;
    let results = super::block_on(async {
        let client = global.client()?;
        let mut results = Vec::with_capacity(keys.len());
        for key in keys {
            match client.delete_blob(key.clone()).await {
                Ok(deleted) => results.push((key, deleted)),
                // What is wrong with this key alone.
                Err(ClientError::Status(refusal)) if !refusal.fields.is_empty() => {
                    refused.add(&key, &refusal.to_string());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(results)
    })?;
    let count = results.iter().filter(|(_, deleted)| *deleted).count();
    let keys: Vec<Value> =
        results.iter().map(|(key, deleted)| json!({ "key": bytes_json(key), "deleted": deleted })).collect();
    let document = json!({ "deleted": count, "keys": keys, "refused": refused.count(),
        "refusals": refused.json() });
    print(global, &document, &[("deleted", &count)])?;
    refused.tell("not deleted");
    if refused.count() > 0 {
        return Ok(Exit::Refused);
    }
    if count == 0 {
        note("nothing deleted: there was no such blob");
        return Ok(Exit::NotMet);
    }
    Ok(Exit::Done)
}

pub(super) fn list(global: &Global, args: BlobsArgs) -> Result<Exit, CliError> {
    let prefix = args.form.prefix(&args.prefix)?;
    let wanted = Wanted { limit: args.limit, page_size: PAGE_SIZE };
    pages::run(global, wanted, "there is no such blob", async |client, page_size, page_token| {
        let options = ListBlobsOptions { page_size, page_token };
        let page = client.list_blobs(prefix.clone(), options).await?;
        for blob in &page.blobs {
            print_blob(global, blob)?;
        }
        Ok((page.blobs.len(), page.next_page_token))
    })
}

/// A line of its own for each blob: key, length and media type between tabs, or a JSON document.
fn print_blob(global: &Global, blob: &BlobInfo) -> Result<(), CliError> {
    let line = if global.json() {
        format!("{}\n", document(blob))
    } else {
        let content_type = escaped(blob.content_type.as_bytes());
        format!("{}\t{}\t{content_type}\n", escaped(&blob.key), blob.size_bytes)
    };
    print_raw(line.as_bytes())
}

fn document(blob: &BlobInfo) -> Value {
    json!({
        "key": bytes_json(&blob.key),
        "version": token_json(blob.version.0),
        "size_bytes": blob.size_bytes,
        "sha256": hex(&blob.sha256),
        "content_type": blob.content_type,
        "remaining_ttl_ms": ttl_ms(blob.remaining_ttl),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
