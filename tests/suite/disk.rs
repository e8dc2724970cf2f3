//! A disk that is full, read-only, failing, damaged or written at another time, under the real program.
//!
//! Errors of the disk are given by strace in the system's place, and the wall clock's time by libfaketime. Skipped where there
//! is none of them (Debian: strace, faketime), or where no process may be traced and nothing be mounted.

use crate::support::outside;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::support::faketime::WallClock;
use crate::support::kept::{cache_of, flushed, numbers};
use crate::support::node::*;
use crate::support::strace::Strace;
use larder::clock::{Clock, Now, SystemClock};
use larder::engine::{Engine, EngineConfig, Expiration, Op, Outcome, Set};
use larder::entry::Ttl;
use larder::persistence::backend::{self, BackendKind};
use larder::persistence::disk::{Disk, DiskConfig};
use larder::persistence::journal::{JournalConfig, RESERVE_BYTES, SEGMENT_BYTES};
use larder::persistence::recover::{RecoveryMethod, RecoveryProgress};
use larder::proto::v1::admin_client::AdminClient;
use larder::proto::v1::*;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

fn flags<'a>(directory: &'a Path, mode: &'a str) -> [&'a str; 8] {
    let directory = directory.to_str().unwrap();
    ["--data-dir", directory, "--persistence", mode, "--backend", "files", "--memory", "64MiB"]
}

async fn admin_of(process: &Process) -> AdminClient<Channel> {
    AdminClient::new(connect(&process.ready.admin).await)
}

/// Asserts that every write is refused, whatever its durability, that what is there is served, and that every view
/// reports it.
async fn assert_poisoned(process: &Process, there: &str) {
    let (mut cache, mut admin) = (cache_of(process).await, admin_of(process).await);
    assert!(found(cache.get(get(there)).await.unwrap().into_inner()).is_ok(), "reads go on");
    let is_refused =
        |status: Status| assert_status(&status, Code::FailedPrecondition, "JOURNAL_POISONED", None);
    is_refused(cache.set(set("k", "v")).await.unwrap_err());
    is_refused(cache.set(flushed(set("k", "v"))).await.unwrap_err());
    is_refused(cache.delete(delete(there)).await.unwrap_err());
    is_refused(cache.increment(increment("n", 1)).await.unwrap_err());
    is_refused(cache.touch(touch(there, 0)).await.unwrap_err());
    is_refused(admin.clear(ClearRequest::default()).await.unwrap_err());
    assert!(found(cache.get(get("k")).await.unwrap().into_inner()).is_err(), "nothing was done");
    assert_eq!(metric(&http_get(&process.ready.http, "/metrics").await.1, "larder_journal_poisoned"), 1);
    let stats = admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner();
    assert!(!stats.persistence.unwrap().poisoned.is_empty());
    let mut watch = watch_persistence(process).await;
    soon(async { while watch.message().await.unwrap().unwrap().status != NOT_SERVING {} }).await;
}

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

async fn watch_persistence(process: &Process) -> tonic::Streaming<HealthCheckResponse> {
    let mut health = HealthClient::new(connect(&process.ready.health).await);
    let service = "persistence".to_owned();
    health.watch(Request::new(HealthCheckRequest { service })).await.unwrap().into_inner()
}

/// A file system of its own, as small as a test wants it.
struct Mounted(tempfile::TempDir);

impl Mounted {
    /// `None`, and says why, where nothing can be mounted.
    fn of(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={size}");
        // Set where it is known that this machine forbids mounting.
        if std::env::var_os("LARDER_NO_MOUNT").is_some() {
            eprintln!("SKIPPED: a file system of its own: LARDER_NO_MOUNT is set");
            return None;
        }
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path()).output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(directory)),
            Ok(output) => {
                outside::skip(&format!("no tmpfs can be mounted: {}", outside::said(&output)));
                None
            }
            Err(error) => {
                outside::skip(&format!("there is no mount: {error}"));
                None
            }
        }
    }

    /// Makes it read-only, or writable again.
    fn remount(&self, how: &str) {
        let how = format!("remount,{how}");
        let remounted = Command::new("mount").args(["-o", &how]).arg(self.0.path()).output().unwrap();
        assert!(remounted.status.success(), "{}", outside::said(&remounted));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_while_reads_go_on_and_health_says_so() {
    let Some(mounted) = Mounted::of("8m") else { return };
    let directory = mounted.0.path().join("data");
    let process = Process::start(&flags(&directory, "journal+snapshot"));
    let mut cache = cache_of(&process).await;
    let mut last = None;
    let refused = loop {
        let n = last.map_or(0, |last| last + 1);
        match cache.set(flushed(set(format!("k:{n}"), vec![b'v'; 100_000]))).await {
            Ok(_) => last = Some(n),
            Err(refused) => break refused,
        }
        assert!(n < 1_000, "it is never full");
    };
    let is_refused = |status: Status| assert_status(&status, Code::ResourceExhausted, "DISK_LIMIT", None);
    is_refused(refused);
    let last = format!("k:{}", last.unwrap());
    assert!(found(cache.get(get(&last)).await.unwrap().into_inner()).is_ok(), "reads go on");
    is_refused(cache.set(set("k", "v")).await.unwrap_err());
    is_refused(cache.delete(delete(&last)).await.unwrap_err());
    is_refused(cache.increment(increment("n", 1)).await.unwrap_err());
    let mut watch = watch_persistence(&process).await;
    soon(async { while watch.message().await.unwrap().unwrap().status != NOT_SERVING {} }).await;
    assert_eq!(metric(&http_get(&process.ready.http, "/metrics").await.1, "larder_journal_poisoned"), 0);
    drop(process);

    let process = Process::start(&flags(&directory, "journal+snapshot"));
    let (mut cache, mut admin) = (cache_of(&process).await, admin_of(&process).await);
    assert!(found(cache.get(get(&last)).await.unwrap().into_inner()).is_ok(), "it was flushed");
    admin.clear(ClearRequest::default()).await.unwrap();
    soon(async { while cache.set(flushed(set("k", "v"))).await.is_err() {} }).await;
    let mut watch = watch_persistence(&process).await;
    soon(async { while watch.message().await.unwrap().unwrap().status != SERVING {} }).await;
    assert!(process.stops().await.0.success());
}

#[tokio::test]
async fn a_failed_sync_is_final_and_what_was_synced_before_is_there_again() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let process = Process::start(&flags(&data, "journal+snapshot"));
    let mut cache = cache_of(&process).await;
    cache.set(flushed(set("before", "v"))).await.unwrap();
    let failing = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"];
    let Some(failing) = Strace::on(process.id(), &failing, directory.path().join("trace")) else { return };
    let refused = cache.set(flushed(set("unsynced", "v"))).await.unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "JOURNAL_POISONED", None);
    assert_poisoned(&process, "before").await;
    assert!(failing.end().contains("EIO"));
    // The system has forgotten what it could not write: that it can write again changes nothing.
    assert_poisoned(&process, "before").await;
    assert_eq!(process.stops().await.0.code(), Some(4), "what is buffered may be lost");

    let process = Process::start(&flags(&data, "journal+snapshot"));
    let mut cache = cache_of(&process).await;
    assert!(found(cache.get(get("before")).await.unwrap().into_inner()).is_ok());
    cache.set(flushed(set("after", "v"))).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_read_is_no_snapshot_that_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let process = Process::start(&flags(&data, "journal+snapshot"));
    let mut cache = cache_of(&process).await;
    for n in 0..50 {
        cache.set(flushed(set(format!("k:{n}"), "v"))).await.unwrap();
    }
    admin_of(&process).await.create_snapshot(CreateSnapshotRequest {}).await.unwrap();
    cache.set(flushed(set("k:50", "v"))).await.unwrap();
    drop(process);

    let standby = [&flags(&data, "journal+snapshot")[..], &["--standby"]].concat();
    let process = Process::start(&standby);
    let mut admin = admin_of(&process).await;
    let snapshot = only_file(&data.join("snapshot"));
    let snapshot = snapshot.to_str().unwrap();
    let failing = ["-P", snapshot, "-e", "trace=read,pread64", "-e", "inject=read,pread64:error=EIO"];
    let Some(failing) = Strace::on(process.id(), &failing, directory.path().join("trace")) else { return };
    let refused = soon(admin.spawn(SpawnRequest {})).await.unwrap_err();
    assert!(refused.message().contains(snapshot), "{refused:?}");
    assert!(failing.end().contains("EIO"));
    assert_eq!(admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner().state(), NodeState::Standby);

    let spawned = soon(admin.spawn(SpawnRequest {})).await.unwrap().into_inner();
    let data_listener = spawned.addresses[0].strip_prefix("tcp://").unwrap().to_owned();
    let mut cache = cache_client::CacheClient::new(connect(&data_listener).await);
    assert_eq!(numbers(&mut cache, "k:").await, (0..=50).collect::<Vec<_>>());
    assert_eq!(set_aside(&data), 0);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_missed_and_not_taken_for_absent() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut flags = flags(&data, "store");
    flags[7] = "2MiB";
    let process = Process::start(&[&flags[..], &["--max-value", "16KiB"]].concat());
    let mut cache = cache_of(&process).await;
    let items = (0..4_000).map(|n| set(format!("k:{n}"), vec![b'v'; 1_000])).collect();
    cache.batch_set(BatchSetRequest { items, ..BatchSetRequest::default() }).await.unwrap();
    admin_of(&process).await.flush(FlushRequest {}).await.unwrap();
    let journal = only_file(&data.join("journal"));
    let failing = ["-P", journal.to_str().unwrap(), "-e", "trace=pread64", "-e", "inject=pread64:error=EIO"];
    let Some(failing) = Strace::on(process.id(), &failing, directory.path().join("trace")) else { return };
    // There is room in memory for half of them at most.
    let mut unread = Vec::new();
    for n in (0..4_000).step_by(100) {
        let key = format!("k:{n}");
        match found(cache.get(get(&key)).await.unwrap().into_inner()) {
            Ok(hit) => assert_eq!(hit.tier(), Tier::Memory),
            Err(reason) => {
                assert_eq!(reason, MissReason::Corrupt);
                unread.push(key);
            }
        }
    }
    assert!(unread.len() > 10, "{unread:?}");
    let condition = Some(set_request::Condition::IfAbsent(true));
    let refused = cache.set(SetRequest { condition, ..set(&unread[0], "x") }).await.unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "DISK_FAILED", None);
    assert!(failing.end().contains("EIO"));
    for key in unread {
        let hit = found(cache.get(get(key)).await.unwrap().into_inner()).unwrap();
        assert_eq!((hit.tier(), hit.value.len()), (Tier::Disk, 1_000));
    }
}

/// A directory with a snapshot of ten keys and a journal that has as many more.
async fn half_in_a_snapshot() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(&flags(directory.path(), "journal+snapshot"));
    let mut cache = cache_of(&process).await;
    for n in 0..20 {
        if n == 10 {
            admin_of(&process).await.create_snapshot(CreateSnapshotRequest {}).await.unwrap();
        }
        cache.set(flushed(set(format!("k:{n}"), "v"))).await.unwrap();
    }
    directory
}

#[tokio::test]
async fn each_method_of_recovery_brings_back_what_it_says_and_is_rehearsed_before() {
    for (method, keys) in
        [("snapshot+journal", 20), ("lazy", 20), ("journal", 20), ("snapshot", 10), ("empty", 0)]
    {
        let directory = half_in_a_snapshot().await;
        let flags = flags(directory.path(), "journal+snapshot");
        let process = Process::start(&flags);
        let verify = VerifyRecoveryRequest { method: method.to_owned() };
        let report = admin_of(&process).await.verify_recovery(verify).await.unwrap().into_inner();
        assert_eq!((&*report.method, report.entries, report.damages_total), (method, keys, 0));
        drop(process);
        let process = Process::start(&[&flags[..], &["--recovery", method]].concat());
        let there = numbers(&mut cache_of(&process).await, "k:").await;
        assert_eq!(there, (0..keys).collect::<Vec<_>>(), "{method}");
        drop(process);
        // What one method gave up, none brings back.
        let process = Process::start(&flags);
        assert_eq!(numbers(&mut cache_of(&process).await, "k:").await, there, "{method}, and after it");
        assert_eq!(set_aside(directory.path()), 0);
    }
}

/// What is left takes little more on disk than it has bytes, whatever was there before.
async fn disk_comes_back(backend: &str) {
    const BLOBS: u8 = 16;
    const BLOB_BYTES: usize = 1 << 20;
    const ENTRIES: usize = 2_000;
    const VALUE_BYTES: usize = 1_000;
    let directory = tempfile::tempdir().unwrap();
    let mut flags = flags(directory.path(), "journal+snapshot");
    flags[5] = backend;
    let process = Process::start(&flags);
    let mut cache = cache_of(&process).await;
    for round in 0..2 {
        for blob in 0..BLOBS {
            let header = BlobHeader { key: vec![blob].into(), ..BlobHeader::default() };
            let content = put_blob_request::Part::Chunk(vec![round ^ blob; BLOB_BYTES].into());
            let parts = [put_blob_request::Part::Header(header), content];
            let parts = parts.map(|part| PutBlobRequest { part: Some(part) });
            soon(cache.put_blob(tokio_stream::iter(parts))).await.unwrap();
        }
        let items = (0..ENTRIES).map(|n| set(format!("{n}"), vec![round; VALUE_BYTES])).collect();
        cache.batch_set(BatchSetRequest { items, ..BatchSetRequest::default() }).await.unwrap();
    }
    for blob in 0..BLOBS / 2 {
        cache.delete_blob(DeleteBlobRequest { key: vec![blob].into(), ..Default::default() }).await.unwrap();
    }
    let keys = (0..ENTRIES / 2).map(|n| n.to_string().into()).collect();
    cache.batch_delete(BatchDeleteRequest { keys, ..BatchDeleteRequest::default() }).await.unwrap();
    let mut admin = admin_of(&process).await;
    let compacted = admin.compact_journal(CompactJournalRequest {}).await.unwrap().into_inner();
    let live = usize::from(BLOBS / 2) * BLOB_BYTES + ENTRIES / 2 * VALUE_BYTES;
    let bytes = usize::try_from(compacted.disk_bytes).unwrap();
    println!("{backend}: {bytes} B on disk for {live} B");
    assert!(bytes >= live && bytes * 10 <= live * 13, "{backend}: {bytes} B on disk for {live} B");
}

#[tokio::test]
async fn a_compaction_with_files_leaves_little_more_than_what_is_live() {
    disk_comes_back("files").await;
}

#[tokio::test]
async fn a_compaction_with_sled_leaves_little_more_than_what_is_live() {
    disk_comes_back("sled").await;
}

/// The only file in a directory.
fn only_file(directory: &Path) -> PathBuf {
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

/// How many files were set aside.
fn set_aside(data: &Path) -> usize {
    std::fs::read_dir(data.join("quarantine")).unwrap().count()
}

#[tokio::test]
async fn a_directory_that_is_read_only_is_named_and_left_as_it_is() {
    let Some(mounted) = Mounted::of("8m") else { return };
    let directory = mounted.0.path().join("data");
    let flags = flags(&directory, "journal+snapshot");
    let process = Process::start(&flags);
    cache_of(&process).await.set(flushed(set("k", "v"))).await.unwrap();
    assert!(process.stops().await.0.success());
    mounted.remount("ro");
    let ports = ["--listen", "--admin", "--health"].map(|flag| [flag, "tcp://127.0.0.1:0"]).concat();
    let (code, stdout, stderr) = Process::fails(&[&ports[..], &["--http", "127.0.0.1:0"], &flags].concat());
    assert_eq!((code, &*stdout), (Some(2), ""), "{stderr}");
    for word in [directory.to_str().unwrap(), "Read-only", "--data-dir"] {
        assert!(stderr.contains(word), "{stderr:?} lacks {word:?}");
    }
    mounted.remount("rw");
    let process = Process::start(&flags);
    assert!(found(cache_of(&process).await.get(get("k")).await.unwrap().into_inner()).is_ok());
}

#[tokio::test]
async fn a_disk_limit_refuses_writes_until_there_is_less() {
    let directory = tempfile::tempdir().unwrap();
    let limited = [&flags(directory.path(), "journal+snapshot")[..], &["--disk-limit", "4MiB"]].concat();
    let process = Process::start(&limited);
    let (mut cache, mut admin) = (cache_of(&process).await, admin_of(&process).await);
    let mut stored = 0;
    let refused = soon(async {
        loop {
            match cache.set(set(format!("k:{stored}"), vec![b'v'; 100_000])).await {
                Ok(_) => stored += 1,
                Err(refused) => return refused,
            }
        }
    })
    .await;
    let is_refused = |status: Status| assert_status(&status, Code::ResourceExhausted, "DISK_LIMIT", None);
    is_refused(refused);
    is_refused(cache.increment(increment("n", 1)).await.unwrap_err());
    assert_eq!(numbers(&mut cache, "k:").await.len(), stored, "reads go on");
    let persistence = admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner().persistence.unwrap();
    assert_eq!(persistence.disk_limit_bytes, 4 << 20);
    assert!(persistence.poisoned.is_empty(), "{persistence:?}");
    let scope = Some(invalidate_request::Scope::Prefix("k:".into()));
    cache.invalidate(InvalidateRequest { scope, ..InvalidateRequest::default() }).await.unwrap();
    soon(async { while cache.set(flushed(set("k:1000", "v"))).await.is_err() {} }).await;
    drop(process);
    let process = Process::start(&limited);
    assert_eq!(numbers(&mut cache_of(&process).await, "k:").await, [1_000]);
}

/// Flips a bit in the middle of what was written of a file, which zeroes may follow.
fn spoil(file: &Path) {
    let mut content = std::fs::read(file).unwrap();
    let middle = content.iter().rposition(|byte| *byte != 0).unwrap() / 2;
    content[middle] ^= 4;
    std::fs::write(file, content).unwrap();
}

/// Starts on a damaged file and asserts what is reported of it; the number of keys left, which have no gap between
/// them.
async fn starts_on_damage(data: &Path, mode: &str, damaged: &Path) -> u64 {
    let name = damaged.strip_prefix(data).unwrap().to_str().unwrap().to_owned();
    let process = Process::start(&flags(data, mode));
    let keys = numbers(&mut cache_of(&process).await, "k:").await;
    assert_eq!(keys, (0..keys.len() as u64).collect::<Vec<_>>());
    let (status, _, stderr) = process.stops().await;
    assert!(status.success(), "{stderr}");
    let told = stderr.lines().find(|line| line.contains("ERROR") && line.contains("damage on disk"));
    assert!(told.is_some_and(|told| told.contains(&name)), "{stderr}");
    assert!(set_aside(data) > 0 && !damaged.exists(), "it is set aside");

    let process = Process::start(&flags(data, mode));
    assert_eq!(numbers(&mut cache_of(&process).await, "k:").await, keys, "what was served stays");
    assert!(!process.stops().await.2.contains("damage on disk"), "it is reported once");
    keys.len() as u64
}

#[tokio::test]
async fn of_a_damaged_journal_what_is_before_the_damage_is_served_and_the_damage_told() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(&flags(directory.path(), "journal"));
    let mut cache = cache_of(&process).await;
    for n in 0..40 {
        cache.set(flushed(set(format!("k:{n}"), "v".repeat(100)))).await.unwrap();
    }
    drop(process);
    let journal = only_file(&directory.path().join("journal"));
    spoil(&journal);
    let keys = starts_on_damage(directory.path(), "journal", &journal).await;
    assert!((10..30).contains(&keys), "{keys} of 40");
}

#[tokio::test]
async fn a_damaged_snapshot_gives_way_to_the_one_before_where_there_is_no_journal() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(&flags(directory.path(), "snapshot"));
    let (mut cache, mut admin) = (cache_of(&process).await, admin_of(&process).await);
    for n in 0..20 {
        if n % 10 == 0 {
            admin.create_snapshot(CreateSnapshotRequest {}).await.unwrap();
        }
        cache.set(set(format!("k:{n}"), "v".repeat(100))).await.unwrap();
    }
    admin.create_snapshot(CreateSnapshotRequest {}).await.unwrap();
    drop(process);
    let snapshots = std::fs::read_dir(directory.path().join("snapshot")).unwrap();
    let newest = snapshots.map(|file| file.unwrap().path()).max().unwrap();
    spoil(&newest);
    assert_eq!(starts_on_damage(directory.path(), "snapshot", &newest).await, 10);
}

/// The system's clock, with another wall time.
#[derive(Debug)]
struct Shifted {
    clock: SystemClock,
    by_ms: i64,
}

impl Clock for Shifted {
    fn now(&self) -> Now {
        let now = self.clock.now();
        Now { unix_us: now.unix_us.saturating_add_signed(self.by_ms * 1_000), ..now }
    }

    fn advance_to(&self, steady_ms: u64) {
        self.clock.advance_to(steady_ms);
    }
}

const HOUR_MS: u64 = 3_600_000;

/// A directory that was written by a node whose clock was `by_ms` ahead: a key for each of `hours`, which lives that
/// long. Gives the last version that was drawn.
fn written_ahead(directory: &Path, by_ms: i64, hours: &[u64]) -> u64 {
    let clock = Arc::new(Shifted { clock: SystemClock::new(), by_ms });
    let engine = Arc::new(Engine::new(&EngineConfig::default(), clock.now()));
    let config = DiskConfig {
        journal: JournalConfig {
            flush_interval: std::time::Duration::from_secs(1),
            backlog_bytes: 64 << 20,
            waiting_bytes: 4 << 20,
            segment_bytes: SEGMENT_BYTES,
            reserve_bytes: RESERVE_BYTES,
        },
        is_journaled: true,
        recovery: RecoveryMethod::SnapshotAndJournal,
        snapshot_interval: None,
        limit_bytes: None,
        is_store: false,
    };
    let (backend, _) = backend::open(BackendKind::Files, directory).unwrap();
    let progress = RecoveryProgress::default();
    let (disk, _) = Disk::open(backend, Arc::clone(&engine), clock.clone(), config, &progress).unwrap();
    let mut last = 0;
    for hours in hours {
        let expiration = Expiration::In(Ttl::Ms(hours * HOUR_MS));
        let key = hours.to_string();
        let op = Op::Set(Set { expiration, ..Set::new(key.as_bytes(), b"v") });
        let Outcome::Stored(version) = engine.apply(engine.default_namespace(), &op, clock.now()) else {
            panic!("it is stored");
        };
        last = version.0;
    }
    disk.stop().unwrap();
    last
}

#[tokio::test]
async fn a_clock_that_was_set_back_gives_no_entry_a_longer_life() {
    let directory = tempfile::tempdir().unwrap();
    let last = written_ahead(directory.path(), 10 * 365 * 24 * HOUR_MS as i64, &[1]);
    let process = Process::start(&flags(directory.path(), "journal+snapshot"));
    let mut calls = Calls(cache_of(&process).await);
    let left = calls.get("1").await.unwrap().remaining_ttl_ms;
    assert!((HOUR_MS - 60_000..=HOUR_MS).contains(&left), "{left} ms");
    assert!(calls.set(set("new", "v")).await.unwrap() > last, "no version is drawn twice");
}

#[tokio::test]
async fn the_time_that_a_node_was_down_counts_as_life() {
    let directory = tempfile::tempdir().unwrap();
    written_ahead(directory.path(), -2 * HOUR_MS as i64, &[1, 3]);
    let process = Process::start(&flags(directory.path(), "journal+snapshot"));
    let mut calls = Calls(cache_of(&process).await);
    assert!(calls.get("1").await.is_err());
    let left = calls.get("3").await.unwrap().remaining_ttl_ms;
    assert!((HOUR_MS - 60_000..=HOUR_MS).contains(&left), "{left} ms");
}

/// What is left of the lives of some keys, each of which was set for an hour, is this less than an hour, or up to half a
/// minute more.
async fn assert_lived(process: &Process, keys: &[&str], lived_ms: u64) {
    let mut calls = Calls(cache_of(process).await);
    for key in keys {
        let left = calls.get(key).await.unwrap_or_else(|missed| panic!("{key}: {missed:?}")).remaining_ttl_ms;
        let lived = HOUR_MS - left;
        assert!((lived_ms..lived_ms + 30_000).contains(&lived), "{key} lived {lived} ms, not {lived_ms}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_wall_clock_that_is_ahead_for_a_moment_leaves_versions_ahead_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let Some(wall) = WallClock::new(directory.path()) else { return };
    let data = directory.path().join("data");
    let flags = flags(&data, "journal+snapshot");
    let process = wall.start(&flags).unwrap();
    let mut calls = Calls(cache_of(&process).await);
    let for_an_hour = |key: &str| SetRequest {
        expiration: Some(set_request::Expiration::TtlMs(HOUR_MS)),
        ..flushed(set(key, "v"))
    };
    calls.set(for_an_hour("before")).await.unwrap();
    wall.set("+1d");
    let ahead = calls.set(for_an_hour("meanwhile")).await.unwrap();
    wall.set("+0");
    let at = SystemClock::new().now().unix_ms() + HOUR_MS;
    let at = |key: &str| SetRequest {
        expiration: Some(set_request::Expiration::ExpireAtUnixMs(at)),
        condition: Some(set_request::Condition::IfAbsent(true)),
        ..flushed(set(key, "v"))
    };
    assert!(calls.set(at("lock")).await.unwrap() > ahead);
    assert!(calls.set(at("lock")).await.is_err(), "it is held");
    let keys = ["before", "meanwhile", "lock"];
    assert_lived(&process, &keys, 0).await;
    assert!(process.stops().await.0.success());

    wall.set("+10m");
    let process = wall.start(&flags).unwrap();
    assert_lived(&process, &keys, 600_000).await;
    assert!(Calls(cache_of(&process).await).set(set("later", "v")).await.unwrap() > ahead);
    assert!(process.stops().await.0.success());

    wall.set("-1d");
    let process = wall.start(&flags).unwrap();
    assert_lived(&process, &keys, 600_000).await;
    let (status, _, stderr) = process.stops().await;
    assert!(status.success() && stderr.contains("behind_ms"), "{stderr}");

    wall.set("+100y");
    let (status, stderr) = wall.start(&flags).err().expect("no version can follow such a clock");
    assert!(status.code() == Some(2) && stderr.contains("the wall clock shows 21"), "{stderr}");

    wall.set("-60y");
    let (status, stderr) = wall.start(&flags).err().expect("nothing can be dated by such a clock");
    let said = "larder: error: the wall clock shows 1970-01-01T00:00:00Z or a time before that";
    assert!(status.code() == Some(2) && stderr.contains(said) && !stderr.contains("panicked"), "{stderr}");
}
