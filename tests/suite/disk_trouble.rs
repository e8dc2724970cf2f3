//! What a node says and does when its disk is in trouble: health, figures, exit statuses, words.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::kept::{cache_of, flushed};
use crate::support::node::*;
use larder::proto::v1::admin_client::AdminClient;
use larder::proto::v1::*;
use rustix::process::{Resource, Rlimit, prlimit};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

async fn admin_of(process: &Process) -> AdminClient<Channel> {
    AdminClient::new(connect(&process.ready.admin).await)
}

/// Waits until health says of the disk that it is well, or that it is not.
async fn wait_for_health(process: &Process, is_well: bool) {
    let mut health = HealthClient::new(connect(&process.ready.health).await);
    let request = HealthCheckRequest { service: "persistence".to_owned() };
    let mut watch = health.watch(request).await.unwrap().into_inner();
    let wanted = if is_well { 1 } else { 2 };
    soon(async { while watch.message().await.unwrap().unwrap().status != wanted {} }).await;
}

async fn metrics_of(process: &Process) -> String {
    http_get(&process.ready.http, "/metrics").await.1
}

/// A file stands where a directory was: that stops root as well.
fn block(directory: &Path) {
    fs::rename(directory, directory.with_extension("aside")).unwrap();
    fs::write(directory, "").unwrap();
}

fn unblock(directory: &Path) {
    fs::remove_file(directory).unwrap();
    fs::rename(directory.with_extension("aside"), directory).unwrap();
}

async fn snapshot(process: &Process) -> Result<CreateSnapshotResponse, Status> {
    Ok(admin_of(process).await.create_snapshot(CreateSnapshotRequest {}).await?.into_inner())
}

#[tokio::test]
async fn where_snapshots_are_all_health_and_figures_say_that_they_fail_and_the_exit_that_all_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let process = Process::start(&["--data-dir", data, "--persistence", "snapshot", "--backend", "files"]);
    let mut cache = cache_of(&process).await;
    cache.set(set("k", "v")).await.unwrap();
    assert_eq!(snapshot(&process).await.unwrap().entries, 1);
    wait_for_health(&process, true).await;
    let text = metrics_of(&process).await;
    assert_eq!(
        (metric(&text, "larder_snapshots_total"), metric(&text, "larder_snapshots_failed_total")),
        (1, 0)
    );
    assert_eq!(metric(&text, "larder_recovery_damages"), 0);
    assert!(metric(&text, "larder_disk_bytes") > 0 && text.contains("larder_snapshot_age_seconds "));

    cache.set(set("k", "w")).await.unwrap();
    block(&directory.path().join("snapshot"));
    assert_status(&snapshot(&process).await.unwrap_err(), Code::FailedPrecondition, "DISK_FAILED", None);
    wait_for_health(&process, false).await;
    assert_eq!(metric(&metrics_of(&process).await, "larder_snapshots_failed_total"), 1);
    unblock(&directory.path().join("snapshot"));
    snapshot(&process).await.unwrap();
    wait_for_health(&process, true).await;

    cache.set(set("k", "x")).await.unwrap();
    block(&directory.path().join("snapshot"));
    process.terminate();
    let (status, _, stderr) = process.ended();
    assert_eq!(status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("the last changes may not be on disk"), "{stderr}");
}

#[tokio::test]
async fn with_a_journal_a_snapshot_that_fails_is_counted_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let process =
        Process::start(&["--data-dir", data, "--persistence", "journal+snapshot", "--backend", "files"]);
    cache_of(&process).await.set(set("k", "v")).await.unwrap();
    block(&directory.path().join("snapshot"));
    snapshot(&process).await.unwrap_err();
    assert_eq!(metric(&metrics_of(&process).await, "larder_snapshots_failed_total"), 1);
    wait_for_health(&process, true).await;
    process.terminate();
    let (status, _, stderr) = process.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

/// What somebody does to a data directory in use.
type Deed = fn(&Path);

const DEEDS: [(&str, Deed); 4] = [
    ("the directory is deleted", |data| fs::remove_dir_all(data).unwrap()),
    ("the directory is moved", |data| fs::rename(data, data.with_extension("elsewhere")).unwrap()),
    ("the journal's files are deleted", |data| {
        for entry in fs::read_dir(data.join("journal")).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }),
    ("the journal's directory is replaced by an empty one", |data| {
        fs::remove_dir_all(data.join("journal")).unwrap();
        fs::create_dir(data.join("journal")).unwrap();
    }),
];

#[tokio::test]
async fn nothing_is_acknowledged_from_the_first_sync_after_the_disk_was_taken_away() {
    for ((what, deed), backend) in DEEDS.into_iter().zip(["files", "sled", "files", "sled"]) {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let flags = ["--data-dir", data.to_str().unwrap(), "--persistence", "journal", "--backend", backend];
        let process = Process::start(&flags);
        let mut cache = cache_of(&process).await;
        cache.set(flushed(set("k", "v"))).await.unwrap();
        deed(&data);
        let refused = cache.set(flushed(set("k", "w"))).await.expect_err(what);
        assert_status(&refused, Code::FailedPrecondition, "JOURNAL_POISONED", None);
        wait_for_health(&process, false).await;
        assert_eq!(metric(&metrics_of(&process).await, "larder_journal_poisoned"), 1, "{what}");
        let (status, _, stderr) = process.stops().await;
        assert_eq!(status.code(), Some(4), "{what}: {stderr}");
        assert!(stderr.contains("it was deleted, moved or replaced while in use"), "{what}: {stderr}");
    }
}

/// The rights to everything below a directory.
fn rights(directory: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        found.push((path.clone(), path.symlink_metadata().unwrap().permissions().mode() & 0o777));
        if path.is_dir() {
            found.extend(rights(&path));
        }
    }
    found
}

#[tokio::test]
async fn all_that_a_node_makes_is_its_own_whatever_the_umask_and_a_directory_that_is_not_is_told() {
    for backend in ["files", "sled"] {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
        let flags = ["--data-dir", data.to_str().unwrap(), "--persistence", "journal", "--backend", backend];
        let process = Process::start_after("umask 000", &flags);
        cache_of(&process).await.set(flushed(set("k", "v"))).await.unwrap();
        snapshot(&process).await.unwrap();
        let (nodes, blob) = (format!("tcp://{}", process.ready.data[0]), directory.path().join("blob"));
        fs::write(&blob, "blob").unwrap();
        let put = larder().args(["--nodes", &nodes, "put-blob", "b"]).arg(&blob).status().unwrap();
        assert!(put.success());
        let found = rights(&data);
        assert!(found.len() > 10, "{found:?}");
        for (path, mode) in found {
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode, expected, "{backend}: {} has {mode:o}", path.display());
        }

        // What the command line makes is its user's affair.
        let got = directory.path().join("got");
        let get = Command::new("/bin/sh")
            .args(["-c", "umask 027 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_larder"), "--nodes", &nodes])
            .args(["get-blob", "b", "-o"])
            .arg(&got)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(get.success());
        assert_eq!(got.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        let (status, _, stderr) = process.stops().await;
        assert_eq!(status.code(), Some(0), "{stderr}");
        assert!(
            stderr.contains("other users can write to the data directory") && stderr.contains("0777"),
            "{stderr}"
        );
    }
}

/// The files of the journal.
fn segments(data: &Path) -> usize {
    fs::read_dir(data.join("journal")).unwrap().count()
}

fn megabyte(n: usize) -> SetRequest {
    flushed(set(format!("key:{n}"), vec![n as u8; 1_000_000]))
}

#[tokio::test]
async fn a_node_of_few_descriptors_takes_fewer_connections_and_keeps_its_journal() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let flags = ["--data-dir", data.to_str().unwrap(), "--persistence", "journal", "--memory", "256MiB"];
    let process = Process::start_after("ulimit -n 64", &flags);
    let mut cache = cache_of(&process).await;
    cache.set(flushed(set("k", "v"))).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..31 {
        idle.push(TcpStream::connect(&process.ready.data[0]).await.unwrap());
    }
    for n in 0..90 {
        cache.set(megabyte(n)).await.unwrap();
    }
    assert!(segments(&data) > 1, "a segment ended");
    let admin = format!("tcp://{}", process.ready.admin);
    let more =
        larder().args(["--admin", &admin, "admin", "config", "set", "max-connections=50"]).output().unwrap();
    let said = String::from_utf8(more.stderr).unwrap();
    assert_eq!(more.status.code(), Some(3), "{said}");
    assert!(said.contains("the process may have 64 files open"), "{said}");
    wait_for_health(&process, true).await;
    snapshot(&process).await.unwrap();
    drop(idle);
    drop(cache);
    let (status, _, stderr) = process.stops().await;
    assert_eq!(status.code(), Some(0), "{stderr}");
    for words in
        ["--max-connections does not fit the limit on open files", "open_files_limit=64", "in_force="]
    {
        assert!(stderr.contains(words), "{stderr}");
    }
    assert!(stderr.contains("connection limit reached"), "{stderr}");
}

#[test]
fn a_limit_on_open_files_that_no_node_can_do_with_is_refused() {
    let (code, _, stderr) = Process::fails_after("ulimit -n 24", &[]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        stderr.contains("the process may have 24 files open") && stderr.contains("ulimit -n"),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_shortage_that_does_not_end_keeps_no_node_from_stopping_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--data-dir", directory.path().to_str().unwrap(), "--persistence", "snapshot"];
    let process = Process::start(&flags);
    cache_of(&process).await.set(set("k", "v")).await.unwrap();
    let id = rustix::process::Pid::from_raw(process.id() as i32);
    let before = rustix::process::getrlimit(Resource::Nofile);
    prlimit(id, Resource::Nofile, Rlimit { current: Some(8), ..before }).unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(10), process.stops()).await;
    let (status, _, stderr) = stopped.expect("within 10 s of SIGTERM");
    assert_eq!(status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("no last snapshot could be taken"), "{stderr}");
}

#[tokio::test]
async fn connections_are_held_to_a_limit_on_open_files_that_is_lowered_meanwhile() {
    const HELD: u64 = 33;
    let process = Process::start(&["--persistence", "none"]);
    let open = async || metric(&metrics_of(&process).await, "larder_connections");
    let connection = async || TcpStream::connect(&process.ready.data[0]).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..HELD {
        held.push(connection().await);
    }
    soon(async { while open().await < HELD {} }).await;
    // Whether one more is taken in, and not closed at once.
    let is_taken = async || {
        let one_more = connection().await;
        let is_taken = loop {
            match one_more.try_read(&mut [0]) {
                _ if open().await > HELD => break true,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                _ => break false,
            }
        };
        drop(one_more);
        while open().await > HELD {}
        is_taken
    };
    assert!(soon(is_taken()).await);
    let id = rustix::process::Pid::from_raw(process.id() as i32);
    let before = rustix::process::getrlimit(Resource::Nofile);
    // There is a descriptor for one more, which the node is to have for itself.
    prlimit(id, Resource::Nofile, Rlimit { current: Some(64), ..before }).unwrap();
    soon(async { while is_taken().await {} }).await;
    prlimit(id, Resource::Nofile, Rlimit { current: before.maximum, ..before }).unwrap();
    soon(async { while !is_taken().await {} }).await;
}

#[tokio::test]
async fn a_shortage_of_descriptors_refuses_what_needs_one_and_leaves_nothing_broken() {
    for backend in ["files", "sled"] {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let path = data.to_str().unwrap();
        // One shard: nothing is evicted, wherever the keys fall.
        let room = ["--memory", "256MiB", "--shards", "1"];
        let flags =
            [&["--data-dir", path, "--persistence", "journal", "--backend", backend][..], &room].concat();
        let process = Process::start(&flags);
        let (mut cache, mut admin) = (cache_of(&process).await, admin_of(&process).await);
        let mut health = HealthClient::new(connect(&process.ready.health).await);
        cache.set(flushed(set("k", "v"))).await.unwrap();
        // Each connection is accepted before there are no descriptors.
        admin.get_stats(GetStatsRequest::default()).await.unwrap();
        let request = HealthCheckRequest { service: "persistence".to_owned() };
        health.check(request.clone()).await.unwrap();
        let id = rustix::process::Pid::from_raw(process.id() as i32);
        let before = rustix::process::getrlimit(Resource::Nofile);
        let limit = |current| prlimit(id, Resource::Nofile, Rlimit { current, ..before }).unwrap();

        limit(Some(8));
        for n in 0..70 {
            cache.set(megabyte(n)).await.unwrap();
        }
        assert_eq!(segments(&data), 1, "it goes on in the one that it has");
        let refused = admin.create_snapshot(CreateSnapshotRequest {}).await.unwrap_err();
        assert_status(&refused, Code::ResourceExhausted, "SHORTAGE", None);
        let header = BlobHeader { key: "b".into(), ..BlobHeader::default() };
        let part = |part| PutBlobRequest { part: Some(part) };
        let blob = [
            part(put_blob_request::Part::Header(header)),
            part(put_blob_request::Part::Chunk("blob".into())),
        ];
        let refused = cache.put_blob(tokio_stream::iter(blob.clone())).await.unwrap_err();
        assert_status(&refused, Code::ResourceExhausted, "SHORTAGE", None);
        assert_eq!(health.check(request).await.unwrap().into_inner().status, 1);

        limit(before.maximum);
        cache.put_blob(tokio_stream::iter(blob)).await.unwrap();
        admin.create_snapshot(CreateSnapshotRequest {}).await.unwrap();
        soon(async {
            while segments(&data) == 1 {
                cache.set(megabyte(0)).await.unwrap();
            }
        })
        .await;
        cache_of(&process).await.set(flushed(set("k", "w"))).await.unwrap();
        drop((cache, admin, health));
        let (status, _, stderr) = process.stops().await;
        assert_eq!(status.code(), Some(0), "{stderr}");

        let process = Process::start(&flags);
        let mut cache = cache_of(&process).await;
        assert_eq!(found(cache.get(get("k")).await.unwrap().into_inner()).unwrap().value, "w");
        for n in 0..70 {
            let value = found(cache.get(get(format!("key:{n}"))).await.unwrap().into_inner()).unwrap().value;
            assert_eq!((value.len(), value[0]), (1_000_000, n as u8));
        }
        drop(cache);
        let (_, _, stderr) = process.stops().await;
        assert!(!stderr.contains("damage"), "{stderr}");
    }
}

#[tokio::test]
async fn a_node_in_standby_says_that_its_disk_is_not_there_yet_and_why_it_cannot_spawn() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let flags = ["--data-dir", data, "--persistence", "journal", "--backend", "files"];
    let holder = Process::start(&flags);
    let process = Process::start(&[&flags[..], &["--standby"]].concat());
    let mut admin = admin_of(&process).await;
    let refusals = [
        admin.flush(FlushRequest {}).await.unwrap_err(),
        admin.create_snapshot(CreateSnapshotRequest {}).await.unwrap_err(),
        admin.list_snapshots(ListSnapshotsRequest {}).await.unwrap_err(),
        admin.verify_recovery(VerifyRecoveryRequest::default()).await.unwrap_err(),
        admin.compact_journal(CompactJournalRequest {}).await.unwrap_err(),
    ];
    for refused in refusals {
        assert_status(&refused, Code::Unavailable, "NOT_READY", None);
        assert!(refused.message().contains("standby"), "{refused:?}");
    }
    let refused = admin.spawn(SpawnRequest {}).await.unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "CANNOT_RECOVER", None);
    holder.terminate();
    holder.ended();
    admin.spawn(SpawnRequest {}).await.unwrap();
    admin.flush(FlushRequest {}).await.unwrap();
}

#[tokio::test]
async fn a_cap_above_a_lowered_memory_is_told_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let flags = ["--data-dir", data, "--persistence", "journal", "--backend", "files", "--memory"];
    let start = |memory| Process::start(&[&flags[..], &[memory]].concat());
    let process = start("64MiB");
    let config =
        NamespaceConfig { name: "wide".to_owned(), bytes_limit: 32 << 20, ..NamespaceConfig::default() };
    let request = CreateNamespaceRequest { namespace: Some(config) };
    admin_of(&process).await.create_namespace(request).await.unwrap();
    process.terminate();
    let (_, _, stderr) = process.ended();
    assert!(!stderr.contains("a namespace's cap is above"), "{stderr}");
    let process = start("16MiB");
    process.terminate();
    let (_, _, stderr) = process.ended();
    assert!(stderr.contains("a namespace's cap is above") && stderr.contains("wide"), "{stderr}");
}

/// A pipe stands for a segment, so that the recovery waits for who writes to it.
#[tokio::test]
async fn a_node_that_is_told_to_stop_while_it_recovers_ends_well() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let flags = ["--data-dir", data, "--persistence", "journal", "--backend", "files"];
    let process = Process::start(&flags);
    cache_of(&process).await.set(flushed(set("k", "v"))).await.unwrap();
    process.terminate();
    process.ended();
    let journal = fs::read_dir(directory.path().join("journal")).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(&journal).unwrap();
    assert!(Command::new("mkfifo").arg(&journal).status().unwrap().success());
    let mut command = larder();
    let ports = ["--listen", "--admin", "--health"].map(|flag| [flag, "tcp://127.0.0.1:0"]).concat();
    command.arg("serve").args(ports).args(["--http", "127.0.0.1:0"]).args(flags).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    // Opens when the other end does, which is when it recovers; and holds it up.
    let held = fs::OpenOptions::new().write(true).open(&journal).unwrap();
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let status = child.wait().unwrap();
    drop(held);
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_data_directory_that_is_none_is_told_as_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let (file, link) = (directory.path().join("file"), directory.path().join("link"));
    fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink(directory.path().join("nowhere"), &link).unwrap();
    for (path, why) in [(&file, "it is no directory"), (&link, "it is a link to what is not there")] {
        let ports = ["--listen", "--admin", "--health"].map(|flag| [flag, "tcp://127.0.0.1:0"]).concat();
        let data = path.to_str().unwrap();
        let more = ["--http", "127.0.0.1:0", "--persistence", "journal", "--data-dir", data];
        let (code, _, stderr) = Process::fails(&[&ports[..], &more].concat());
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(why) && stderr.contains("--data-dir"), "{stderr}");
    }
}
