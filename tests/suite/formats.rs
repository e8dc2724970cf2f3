//! Data directories of every format version, as the program of its time wrote them, are opened forever:
//! `tests/fixtures/format-*`, of which `tests/fixtures/README.md` tells.
//!
//! `cargo test --test suite formats -- --ignored` writes those of the present format anew.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::node::*;
use bytes::Bytes;
use larder::clock::{Clock, SystemClock};
use larder::persistence::frame::{FORMAT, Frame, FrameReader};
use larder::persistence::{Backend, FileKind, FilesBackend, SledBackend, record};
use larder::proto::v1::admin_client::AdminClient;
use larder::proto::v1::cache_client::CacheClient;
use larder::proto::v1::*;
use tempfile::TempDir;
use tonic::transport::Channel;

const BACKENDS: [&str; 2] = ["files", "sled"];
/// 2120-01-01, near the longest time that an entry can live.
const FAR_UNIX_MS: u64 = 4_733_510_400_000;
const MINUTE_MS: u64 = 60_000;
/// Written over all the while that the snapshot is taken, so that it has a tail: what it is there, nobody knows.
const BUSY: &str = "busy";

fn fixtures(format: u8) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-{format}"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn flags<'a>(directory: &'a Path, backend: &'a str, recovery: &'a str) -> [&'a str; 10] {
    let directory = directory.to_str().unwrap();
    let mode = ["--persistence", "journal+snapshot", "--recovery", recovery, "--memory", "64MiB"];
    let [a, b, c, d, e, f] = mode;
    ["--data-dir", directory, "--backend", backend, a, b, c, d, e, f]
}

/// A node on a copy of a fixture.
struct Opened {
    calls: Calls,
    admin: AdminClient<Channel>,
    _node: Node,
    directory: TempDir,
}

impl Opened {
    async fn copy_of(format: u8, backend: &str, recovery: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        copy(&fixtures(format).join(backend), directory.path());
        Self::at(directory, backend, recovery).await
    }

    async fn at(directory: TempDir, backend: &str, recovery: &str) -> Self {
        let node = Node::with(&flags(directory.path(), backend, recovery)).await;
        Self { calls: Calls(node.cache().await), admin: node.admin().await, _node: node, directory }
    }

    async fn content(&mut self) -> String {
        content(&mut self.calls.0, &mut self.admin).await
    }
}

/// All that a node has, a line each: namespaces, entries, blobs.
async fn content(cache: &mut CacheClient<Channel>, admin: &mut AdminClient<Channel>) -> String {
    let mut text = String::new();
    let namespaces = admin.list_namespaces(ListNamespacesRequest {}).await.unwrap().into_inner().namespaces;
    for namespace in &namespaces {
        let name = if namespace.name.is_empty() { "default" } else { &namespace.name };
        let (limit, ttl) = (namespace.bytes_limit, namespace.default_ttl_ms);
        writeln!(text, "namespace {name} {} {limit} B, TTL {ttl} ms", namespace.policy).unwrap();
    }
    for namespace in namespaces {
        let scan =
            ScanRequest { namespace: namespace.name.clone(), page_size: 1_000, ..ScanRequest::default() };
        let page = cache.scan(scan).await.unwrap().into_inner();
        assert!(page.next_page_token.is_empty());
        let mut lines: Vec<String> =
            page.items.iter().map(|item| entry_line(&namespace.name, item)).collect();
        lines.sort();
        text.extend(lines);
        let list = ListBlobsRequest { namespace: namespace.name.clone(), ..ListBlobsRequest::default() };
        for blob in cache.list_blobs(list).await.unwrap().into_inner().blobs {
            text.push_str(&blob_line(cache, &namespace.name, &blob).await);
        }
    }
    text
}

fn entry_line(namespace: &str, item: &scan_response::Item) -> String {
    let hit = item.entry.as_ref().unwrap();
    let value = match hit.value.len() {
        ..100 => format!("{:?}", hit.value),
        len => format!("{len} B, CRC {:08x}", crc32fast::hash(&hit.value)),
    };
    let (key, until) = (item.key.escape_ascii(), until(hit.remaining_ttl_ms));
    let (flags, kind, version) = (hit.flags, &hit.content_type, hit.version);
    format!("{namespace}/{key} = {value} flags {flags} type {kind:?} version {version} until {until}\n")
}

async fn blob_line(cache: &mut CacheClient<Channel>, namespace: &str, blob: &BlobHeader) -> String {
    let wanted = GetBlobRequest {
        namespace: namespace.to_owned(),
        key: blob.key.clone(),
        ..GetBlobRequest::default()
    };
    let mut stream = cache.get_blob(wanted).await.unwrap().into_inner();
    let mut content = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        if let Some(get_blob_response::Part::Chunk(chunk)) = message.part {
            content.extend_from_slice(&chunk);
        }
    }
    assert_eq!(content.len() as u64, blob.size_bytes);
    let (key, crc, version) = (blob.key.escape_ascii(), crc32fast::hash(&content), blob.version);
    let (until, len, kind) = (until(blob.ttl_ms), content.len(), &blob.content_type);
    format!(
        "{namespace}/{key} is a blob of {len} B, CRC {crc:08x} type {kind:?} version {version} until {until}\n"
    )
}

/// When something expires that has so long to live, in minutes since 1970: what lies between question and answer does
/// not count then, as FAR is a whole minute.
fn until(remaining_ttl_ms: u64) -> String {
    match remaining_ttl_ms {
        0 => "ever".to_owned(),
        left => ((now_unix_ms() + left + MINUTE_MS / 2) / MINUTE_MS).to_string(),
    }
}

fn now_unix_ms() -> u64 {
    SystemClock::new().now().unix_ms()
}

/// What is there, without what nobody knows; after 2120, also without what has expired then.
fn comparable(content: &str) -> Vec<&str> {
    let busy = format!("/{BUSY} = ");
    let far = format!("until {}", FAR_UNIX_MS / MINUTE_MS);
    let is_past = now_unix_ms() >= FAR_UNIX_MS;
    let is_known = |line: &&str| !line.starts_with(&busy) && (!is_past || !line.ends_with(&far));
    content.lines().filter(is_known).collect()
}

fn expected(format: u8, backend: &str, file: &str) -> String {
    fs::read_to_string(fixtures(format).join(format!("{backend}-{file}.txt"))).unwrap()
}

async fn is_read_in_full(format: u8, backend: &str) {
    let all = expected(format, backend, "all");
    for (recovery, expected) in
        [("snapshot+journal", &all), ("journal", &all), ("snapshot", &expected(format, backend, "snapshot"))]
    {
        let mut opened = Opened::copy_of(format, backend, recovery).await;
        let found = opened.content().await;
        assert_eq!(comparable(&found), comparable(expected), "format {format}, {backend}, {recovery}");
        for gone in ["gone", "prefix:1", "tagged:1"] {
            assert!(opened.calls.get(gone).await.is_err(), "{gone} by {recovery}");
        }
        assert_eq!(opened.calls.increment(counted("n", "once")).await, 5, "it is not done twice");
        let set_aside = fs::read_dir(opened.directory.path().join("quarantine")).unwrap().count();
        assert_eq!(set_aside, 0, "{recovery}");
        let verified = opened.admin.verify_recovery(VerifyRecoveryRequest::default()).await.unwrap();
        assert_eq!(verified.get_ref().damages_total, 0, "{verified:?}");
        // Tags are kept: what they stand on is found by them.
        let red = Some(invalidate_request::Scope::Tag("red".to_owned()));
        opened.calls.0.invalidate(InvalidateRequest { scope: red, ..Default::default() }).await.unwrap();
        assert!(opened.calls.get("tagged:2").await.is_err() && opened.calls.get("plain").await.is_ok());
    }
}

#[tokio::test]
async fn what_files_wrote_in_format_1_is_read_in_full() {
    is_read_in_full(1, "files").await;
}

#[tokio::test]
async fn what_sled_wrote_in_format_1_is_read_in_full() {
    is_read_in_full(1, "sled").await;
}

#[tokio::test]
async fn what_files_wrote_in_format_2_is_read_in_full() {
    is_read_in_full(2, "files").await;
}

#[tokio::test]
async fn what_sled_wrote_in_format_2_is_read_in_full() {
    is_read_in_full(2, "sled").await;
}

#[tokio::test]
async fn blobs_of_every_format_are_found_without_their_catalogue() {
    for (format, backend, catalogue) in
        (1..=FORMAT).flat_map(|format| [(format, "files", "catalogue"), (format, "sled", "sled")])
    {
        let directory = tempfile::tempdir().unwrap();
        copy(&fixtures(format).join(backend), directory.path());
        fs::remove_dir_all(directory.path().join(catalogue)).unwrap();
        let mut opened = Opened::at(directory, backend, "snapshot+journal").await;
        assert_eq!(
            comparable(&opened.content().await),
            comparable(&expected(format, backend, "all")),
            "format {format}, {backend}"
        );
    }
}

/// Old files stay for as long as nothing makes them superfluous, and what comes behind them is of the present format.
#[tokio::test]
async fn a_directory_of_an_older_format_goes_on_in_the_present_one() {
    for backend in BACKENDS {
        let directory = tempfile::tempdir().unwrap();
        copy(&fixtures(1).join(backend), directory.path());
        let mut before = String::new();
        for round in 0..3 {
            let mut writer = Writer::start(directory.path(), backend).await;
            if round > 0 {
                let now = content(&mut writer.calls.0, &mut writer.admin).await;
                assert_eq!(comparable(&now), comparable(&before), "{backend}, start {round}");
            }
            writer.calls.set(far(set(format!("new:{round}"), "v"))).await.unwrap();
            if round == 1 {
                writer.admin.create_snapshot(CreateSnapshotRequest {}).await.unwrap();
            }
            before = content(&mut writer.calls.0, &mut writer.admin).await;
            writer.end().await;
        }
        let formats = formats_in(&*open(directory.path(), backend));
        assert_eq!(formats, BTreeSet::from([1, FORMAT]), "{backend}");
    }
}

fn open(path: &Path, backend: &str) -> Box<dyn Backend> {
    match backend {
        "files" => Box::new(FilesBackend::open(path).unwrap().0),
        _ => Box::new(SledBackend::open(path).unwrap().0),
    }
}

/// Visits every frame of the journal and of snapshots, with its records' bytes.
fn each_frame(backend: &dyn Backend, mut visit: impl FnMut(&Frame, &[u8])) {
    for (file, _) in backend.files().unwrap().iter().filter(|(file, _)| file.kind != FileKind::Blob) {
        let mut reader = FrameReader::new(backend.open(*file).unwrap()).unwrap();
        let mut body = Vec::new();
        while let Some(frame) = reader.next(&mut body).unwrap() {
            visit(&frame, &body);
        }
    }
}

fn formats_in(backend: &dyn Backend) -> BTreeSet<u8> {
    let mut formats = BTreeSet::new();
    each_frame(backend, |frame, _| {
        formats.insert(frame.header.format);
    });
    formats
}

/// So that none is forgotten when the fixtures are written anew.
#[test]
fn the_fixtures_have_every_kind_of_frame_and_record() {
    for (format, backend) in (1..=FORMAT).flat_map(|format| BACKENDS.map(|backend| (format, backend))) {
        let directory = tempfile::tempdir().unwrap();
        copy(&fixtures(format).join(backend), directory.path());
        let (mut frames, mut records) = (BTreeSet::new(), BTreeSet::new());
        let opened = open(directory.path(), backend);
        let files = opened.files().unwrap();
        assert!(files.iter().filter(|(file, _)| file.kind == FileKind::Journal).count() >= 2);
        each_frame(&*opened, |frame, body| {
            assert_eq!(frame.header.format, format);
            frames.insert(format!("{:?}", frame.header.kind));
            if frame.header.records > 0 {
                record::read(body, |record| {
                    let name = format!("{record:?}");
                    records.insert(name.split(['(', ' ']).next().unwrap().to_owned());
                })
                .unwrap();
            }
        });
        assert_eq!((frames.len(), records.len()), (6, 8), "{format}, {backend}: {frames:?} {records:?}");
    }
}

fn counted(key: &str, request_id: &str) -> IncrementRequest {
    let namespace = "counters".to_owned();
    IncrementRequest { namespace, request_id: request_id.to_owned(), ..increment(key, 5) }
}

fn far(request: SetRequest) -> SetRequest {
    let expiration = Some(set_request::Expiration::ExpireAtUnixMs(FAR_UNIX_MS));
    SetRequest { expiration, ..request }
}

fn tagged(request: SetRequest, tags: &[&str]) -> SetRequest {
    SetRequest { tags: tags.iter().map(|tag| (*tag).to_owned()).collect(), ..request }
}

fn within(namespace: &str, request: SetRequest) -> SetRequest {
    SetRequest { namespace: namespace.to_owned(), ..request }
}

/// The program that writes a fixture.
struct Writer {
    process: Process,
    calls: Calls,
    admin: AdminClient<Channel>,
}

impl Writer {
    async fn start(directory: &Path, backend: &str) -> Self {
        let process = Process::start(&flags(directory, backend, "snapshot+journal"));
        let calls = Calls(CacheClient::new(connect(&process.ready.data[0]).await));
        let admin = AdminClient::new(connect(&process.ready.admin).await);
        Self { process, calls, admin }
    }

    async fn create_namespace(&mut self, name: &str, policy: &str, default_ttl_ms: u64) {
        let name = name.to_owned();
        let config = NamespaceConfig {
            name,
            policy: policy.to_owned(),
            default_ttl_ms,
            bytes_limit: 16 << 20,
            ..Default::default()
        };
        let create = CreateNamespaceRequest { namespace: Some(config) };
        self.admin.create_namespace(create).await.unwrap();
    }

    async fn invalidate(&mut self, namespace: &str, scope: invalidate_request::Scope) {
        let namespace = namespace.to_owned();
        self.calls.0.invalidate(InvalidateRequest { namespace, scope: Some(scope) }).await.unwrap();
    }

    async fn put_blob(&mut self, header: BlobHeader, content: &[u8]) {
        let mut parts = vec![put_blob_request::Part::Header(header)];
        if !content.is_empty() {
            parts.push(put_blob_request::Part::Chunk(Bytes::copy_from_slice(content)));
        }
        let parts = parts.into_iter().map(|part| PutBlobRequest { part: Some(part) });
        self.calls.0.put_blob(tokio_stream::iter(parts.collect::<Vec<_>>())).await.unwrap();
    }

    /// One of each; `when` keeps what is written before the snapshot and behind it apart.
    async fn write_entries(&mut self, when: &str) {
        let key = |name: &str| format!("{name}{when}");
        let red = key("red");
        let everything =
            SetRequest { flags: 7, content_type: "text/plain".to_owned(), ..set(key("full"), "all of it") };
        for request in [
            set(key("plain"), "v"),
            set(key("empty"), ""),
            set(key("large"), vec![7; 9_000]),
            far(set(key("far"), "2120")),
            // Each attribute alone, as one that is always beside another could change places with it.
            SetRequest { flags: 1, ..set(key("flagged"), "v") },
            SetRequest { content_type: "text/html".to_owned(), ..set(key("typed"), "v") },
            far(tagged(everything, &["blue", "green"])),
            set(key("gone"), "v"),
            set(format!("prefix{when}:1"), "v"),
            tagged(set(key("tagged:1"), "v"), &[&red]),
            far(within("sessions", set(key("who"), "me"))),
            far(within("sessions", set([0, 255, b'\n'], key("bytes")))),
            set(key("never"), "v"),
            far(set(key("always"), "v")),
        ] {
            self.calls.set(request).await.unwrap();
        }
        self.calls.delete(delete(key("gone"))).await;
        self.invalidate("", invalidate_request::Scope::Prefix(format!("prefix{when}:").into())).await;
        self.invalidate("", invalidate_request::Scope::Tag(red.clone())).await;
        self.calls.set(set(format!("prefix{when}:2"), "after the invalidation")).await.unwrap();
        self.calls.set(tagged(set(key("tagged:2"), "after the invalidation"), &[&red])).await.unwrap();
        self.calls.touch(touch(key("never"), FAR_UNIX_MS - now_unix_ms())).await;
        self.calls.touch(touch(key("always"), 0)).await;
        self.calls.increment(counted(&key("n"), "once")).await;
        self.calls.increment(counted(&key("plain"), "")).await;
    }

    /// Namespaces that come and go, of which those that stay hold one entry.
    async fn write_namespaces(&mut self, when: &str) {
        for name in ["dropped", "emptied", "outdated"].map(|name| format!("{name}{when}")) {
            self.create_namespace(&name, "sieve", 0).await;
            self.calls.set(within(&name, set("before", "v"))).await.unwrap();
        }
        let name = format!("dropped{when}");
        self.admin.delete_namespace(DeleteNamespaceRequest { name }).await.unwrap();
        let emptied = format!("emptied{when}");
        self.admin.clear(ClearRequest { namespace: emptied.clone() }).await.unwrap();
        let outdated = format!("outdated{when}");
        self.invalidate(&outdated, invalidate_request::Scope::All(true)).await;
        for name in [emptied, outdated] {
            self.calls.set(within(&name, set("after", "v"))).await.unwrap();
        }
    }

    async fn write_blobs(&mut self) {
        let of = |key: &str| BlobHeader { key: key.to_owned().into(), ..BlobHeader::default() };
        let content: Vec<u8> = (0..700_u32).map(|at| at as u8).collect();
        self.put_blob(BlobHeader { content_type: "image/png".to_owned(), ..of("picture") }, &content).await;
        self.put_blob(of("empty"), &[]).await;
        self.put_blob(of("replaced"), b"before").await;
        self.put_blob(of("replaced"), b"after").await;
        self.put_blob(of("gone"), b"gone").await;
        let gone = DeleteBlobRequest { key: "gone".into(), ..DeleteBlobRequest::default() };
        self.calls.0.delete_blob(gone).await.unwrap();
        let ttl_ms = FAR_UNIX_MS - now_unix_ms();
        self.put_blob(BlobHeader { namespace: "sessions".to_owned(), ttl_ms, ..of("far") }, b"2120").await;
    }

    /// Takes a snapshot while something is written, until there is one with a tail.
    async fn take_snapshot(&mut self) {
        let mut cache = self.calls.0.clone();
        let writing = tokio::spawn(async move {
            for n in 0_u32.. {
                cache.set(set(BUSY, n.to_string())).await.unwrap();
            }
        });
        self.admin.create_snapshot(CreateSnapshotRequest {}).await.unwrap();
        writing.abort();
        let _ = writing.await;
        let taken = self.admin.list_snapshots(ListSnapshotsRequest {}).await.unwrap().into_inner().snapshots;
        assert!(taken[0].first_position < taken[0].position, "it has no tail: try again");
    }

    async fn end(self) {
        let Self { process, calls, admin } = self;
        // A drain waits for those who are connected, who leave on the runtime's own thread.
        drop((calls, admin));
        process.terminate();
        assert!(process.ended().0.success());
    }
}

async fn write_fixture(backend: &str) {
    let target = fixtures(FORMAT);
    let directory = target.join(backend);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    let mut writer = Writer::start(&directory, backend).await;
    writer.create_namespace("sessions", "lru", 3_600_000).await;
    writer.create_namespace("counters", "lfu", 0).await;
    writer.write_entries("").await;
    writer.write_namespaces("").await;
    writer.write_blobs().await;
    writer.take_snapshot().await;
    let content_then = content(&mut writer.calls.0, &mut writer.admin).await;
    fs::write(target.join(format!("{backend}-snapshot.txt")), content_then).unwrap();
    writer.write_entries("-behind").await;
    writer.calls.set(set("plain", "written over")).await.unwrap();
    writer.calls.delete(delete("large")).await;
    writer.write_namespaces("-behind").await;
    writer.end().await;
    // Another start, so that there is another segment.
    let mut writer = Writer::start(&directory, backend).await;
    writer.calls.set(far(set("last", "v"))).await.unwrap();
    let content = content(&mut writer.calls.0, &mut writer.admin).await;
    fs::write(target.join(format!("{backend}-all.txt")), content).unwrap();
    writer.end().await;
    let _ = fs::remove_file(directory.join("LOCK"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "writes tests/fixtures anew"]
async fn the_fixtures_of_the_present_format_are_written() {
    for backend in BACKENDS {
        write_fixture(backend).await;
    }
}
