//! What is acknowledged as FLUSHED is on the disk: seen from outside, in the system calls of the real program.
//!
//! strace shows that between a request's arrival and the first byte of its answer, its record was written to the
//! journal's file and an fdatasync of that file, begun after the write, returned 0. A blob's file and the catalogue
//! likewise. The version, drawn for each write and eight bytes long, tells in all of these calls whose it is.
//!
//! Skipped where there is no strace (Debian: strace) or no process may be traced.

use std::collections::HashMap;

use crate::support::node::*;
use crate::support::strace::Strace;
use larder::proto::v1::cache_client::CacheClient;
use larder::proto::v1::*;
use tempfile::TempDir;

const SETS: u32 = 30;
const BLOBS: usize = 3;
const TRACED: &str = "trace=recvfrom,write,writev,pwrite64,pwritev,sendto,sendmsg,fsync,fdatasync";

/// A system call, and at which lines of the trace it began and returned.
#[derive(Debug)]
struct Call {
    name: String,
    /// The path of the file that it is of, or what else stands behind its descriptor.
    path: String,
    /// Its arguments as strace writes them, bytes in hexadecimal.
    text: String,
    begun: usize,
    returned: usize,
    result: i64,
}

impl Call {
    fn is_sync(&self) -> bool {
        ["fsync", "fdatasync"].contains(&&*self.name)
    }

    fn has(&self, bytes: &[u8]) -> bool {
        self.text.contains(&hexadecimal(bytes))
    }

    fn is_sent(&self) -> bool {
        !self.is_sync() && self.name != "recvfrom" && self.path.starts_with("socket:")
    }

    fn is_written(&self, suffix: &str) -> bool {
        self.name.contains("write") && self.path.ends_with(suffix) && self.result > 0
    }
}

/// As `strace -xx` writes bytes.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

/// What strace wrote in hexadecimal, in letters.
fn plain(text: &str) -> String {
    let mut parts = text.split("\\x");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (byte, rest) = part.split_at(2);
        plain.push(char::from(u8::from_str_radix(byte, 16).unwrap()));
        plain.push_str(rest);
    }
    plain
}

/// Reads what `strace -f -y -xx -o` wrote: a line each, in two parts where another thread came between.
fn parse(trace: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut unfinished = HashMap::new();
    for (at, line) in trace.lines().enumerate() {
        let (thread, line) = line.split_once(' ').unwrap();
        let line = line.trim_start();
        if line.starts_with("---") || line.starts_with("+++") {
            continue;
        }
        if let Some(begin) = line.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, (at, begin.to_owned()));
            continue;
        }
        let (begun, whole) = match line.strip_prefix("<... ") {
            // One that had begun before the tracing did is of nobody's interest.
            Some(rest) => match unfinished.remove(thread) {
                Some((begun, begin)) => (begun, begin + rest.split_once(" resumed>").unwrap().1),
                None => continue,
            },
            None => (at, line.to_owned()),
        };
        let (name, text) = whole.split_once('(').unwrap();
        let Some((text, result)) = text.rsplit_once(" = ") else { continue };
        // "? ERESTARTSYS" is no number and no success.
        let result = result.split(' ').next().unwrap().parse().unwrap_or(-1);
        let path = text.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path);
        calls.push(Call {
            name: name.to_owned(),
            path: plain(path.unwrap_or_default()),
            text: text.to_owned(),
            begun,
            returned: at,
            result,
        });
    }
    calls
}

/// The first that is found, or what is missing.
fn first<'a>(calls: &'a [Call], what: &str, is: impl Fn(&Call) -> bool) -> Result<&'a Call, String> {
    calls.iter().filter(|call| is(call)).min_by_key(|call| call.begun).ok_or_else(|| format!("no {what}"))
}

/// A sync of what has this path that began after one line and returned 0 before another.
fn synced(calls: &[Call], path: &str, after: usize, before: usize) -> Result<usize, String> {
    let is_safe = |call: &Call| {
        call.is_sync()
            && call.path.ends_with(path)
            && call.result == 0
            && call.begun > after
            && call.returned < before
    };
    let what = format!("sync of {path} between the lines {after} and {before}");
    first(calls, &what, is_safe).map(|call| call.returned)
}

/// Proves that a set was on the disk before it was answered.
fn set_is_safe(calls: &[Call], key: &str, version: u64) -> Result<(), String> {
    let version = version.to_le_bytes();
    let asked = first(calls, "request", |call| call.name == "recvfrom" && call.has(key.as_bytes()))?;
    let is_record =
        |call: &Call| call.is_written(".journal") && call.has(&version) && call.has(key.as_bytes());
    let written = first(calls, "record in the journal", is_record)?;
    let answered = first(calls, "answer", |call| call.is_sent() && call.has(&version))?;
    if asked.returned > written.begun {
        return Err(format!("{key} was written before it came"));
    }
    synced(calls, &written.path, written.returned, answered.begun).map(|_| ())
}

/// Proves that a blob and what says where it lies were on the disk before it was answered.
fn blob_is_safe(calls: &[Call], version: u64, catalogue: &str) -> Result<(), String> {
    let version = version.to_le_bytes();
    let footer = first(calls, "footer of a blob", |call| call.is_written(".blob") && call.has(&version))?;
    let path = &footer.path;
    let last = calls.iter().filter(|call| call.is_written(path)).map(|call| call.returned).max().unwrap();
    let answered = first(calls, "answer", |call| call.is_sent() && call.has(&version))?.begun;
    let content = synced(calls, path, last, answered)?;
    let name = synced(calls, "/blob", last, answered)?;
    synced(calls, catalogue, content.max(name), answered).map(|_| ())
}

/// What a node did for FLUSHED sets and for blobs, one at a time: their keys and versions, and the trace.
struct Traced {
    sets: Vec<(String, u64)>,
    blobs: Vec<u64>,
    trace: String,
    _directory: TempDir,
}

async fn traced(backend: &str) -> Option<Traced> {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let process = Process::start(&[
        "--data-dir",
        data.to_str().unwrap(),
        "--persistence",
        "journal",
        "--backend",
        backend,
        "--memory",
        "64MiB",
    ]);
    let mut calls = Calls(CacheClient::new(connect(&process.ready.data[0]).await));
    // So that the connection is there.
    calls.set(set("first", "v")).await.unwrap();
    let wanted = ["-y", "-xx", "-s", "1024", "-e", TRACED];
    let trace = Strace::on(process.id(), &wanted, directory.path().join("trace"))?;
    let (mut sets, mut blobs) = (Vec::new(), Vec::new());
    for n in 0..SETS {
        let key = format!("key-number-{n:05}");
        let request = SetRequest { durability: Durability::Flushed as i32, ..set(&key, "value") };
        let version = calls.set(request).await.unwrap();
        sets.push((key, version));
    }
    for n in 0..BLOBS {
        let header = BlobHeader { key: format!("blob-{n}").into(), ..BlobHeader::default() };
        let content = put_blob_request::Part::Chunk(vec![n as u8; 300_000 * n].into());
        let parts =
            [put_blob_request::Part::Header(header), content].map(|part| PutBlobRequest { part: Some(part) });
        let put = soon(calls.0.put_blob(tokio_stream::iter(parts))).await.unwrap().into_inner();
        blobs.push(put.version);
    }
    Some(Traced { sets, blobs, trace: trace.end(), _directory: directory })
}

async fn is_on_the_disk_when_it_is_acknowledged(backend: &str, catalogue: &str) {
    let Some(Traced { sets, blobs, trace, .. }) = traced(backend).await else { return };
    let calls = parse(&trace);
    for (key, version) in &sets {
        set_is_safe(&calls, key, *version).unwrap_or_else(|why| panic!("{backend}, {key}: {why}"));
    }
    for version in &blobs {
        blob_is_safe(&calls, *version, catalogue).unwrap_or_else(|why| panic!("{backend}, a blob: {why}"));
    }
    println!("{backend}: {} sets and {} blobs in {} calls", sets.len(), blobs.len(), calls.len());
    // The proof does not find what is not there: each kind of sync in turn, as if the disk had refused it.
    for (kind, expected) in
        [(".journal", (sets.len(), 0)), (".blob", (0, blobs.len())), (catalogue, (0, blobs.len()))]
    {
        let mut calls = parse(&trace);
        calls.retain(|call| !(call.is_sync() && call.path.ends_with(kind)));
        let unsafe_sets = sets.iter().filter(|(key, version)| set_is_safe(&calls, key, *version).is_err());
        let unsafe_blobs = blobs.iter().filter(|version| blob_is_safe(&calls, **version, catalogue).is_err());
        assert_eq!((unsafe_sets.count(), unsafe_blobs.count()), expected, "without syncs of {kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_on_the_disk_with_files() {
    is_on_the_disk_when_it_is_acknowledged("files", ".log").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_on_the_disk_with_sled() {
    is_on_the_disk_when_it_is_acknowledged("sled", "/sled/db").await;
}

#[test]
fn a_call_that_another_thread_cut_in_two_is_read_as_one() {
    let trace = "7  fdatasync(9</d/1.journal> <unfinished ...>\n\
                 8  sendto(11<socket:[5]>, \"\\x01\\x02\", 2, MSG_NOSIGNAL, NULL, 0) = 2\n\
                 7  <... fdatasync resumed>) = 0\n\
                 8  fsync(10</d/blob>) = -1 EIO (Input/output error)\n\
                 9  <... write resumed>) = 4\n8  +++ exited with 0 +++\n";
    let calls = parse(trace);
    let seen: Vec<_> =
        calls.iter().map(|call| (&*call.name, call.begun, call.returned, call.result)).collect();
    assert_eq!(seen, [("sendto", 1, 1, 2), ("fdatasync", 0, 2, 0), ("fsync", 3, 3, -1)]);
    assert_eq!(plain("\\x2f\\x61:"), "/a:");
    assert!(calls[0].is_sent() && calls[0].has(&[1, 2]) && calls[1].path == "/d/1.journal");
}
