//! What is on disk outlives the node: kills, restarts, orderly ends, two nodes on one directory.
//!
//! `LARDER_KILLS` says how many kills a backend has to stand (8).

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::support::kept::{Kept, cache_of, flushed, numbers};
use crate::support::node::*;
use crate::support::raw::{Raw, post};
use larder::clock::monotonic;
use larder::proto::v1::admin_client::AdminClient;
use larder::proto::v1::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

const WRITERS: usize = 4;

fn flags<'a>(directory: &'a Path, backend: &'a str) -> [&'a str; 8] {
    let directory = directory.to_str().unwrap();
    ["--data-dir", directory, "--persistence", "journal+snapshot", "--backend", backend, "--memory", "64MiB"]
}

async fn admin_of(process: &Process) -> AdminClient<Channel> {
    AdminClient::new(connect(&process.ready.admin).await)
}

/// A node with little memory whose disk holds it all, which serves before it has read what is there.
fn store_flags<'a>(directory: &'a Path, backend: &'a str) -> [&'a str; 12] {
    let directory = directory.to_str().unwrap();
    [
        "--data-dir",
        directory,
        "--persistence",
        "store",
        "--backend",
        backend,
        "--memory",
        "2MiB",
        "--max-value",
        "16KiB",
        "--recovery",
        "lazy",
    ]
}

async fn stands_kills(backend: &str, is_store: bool) {
    let kills = std::env::var("LARDER_KILLS").map_or(8, |kills| kills.parse().unwrap());
    let seed: u64 = rand::random();
    println!("seed {seed}, backend {backend}");
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let kept = Arc::new(Kept::default());
    for _ in 0..kills {
        let process = if is_store {
            Process::start(&store_flags(directory.path(), backend))
        } else {
            Process::start(&flags(directory.path(), backend))
        };
        kept.judge(&mut cache_of(&process).await).await;
        kept.next_round();
        let mut writers = Vec::new();
        let begin = kept.begin();
        for writer in 0..WRITERS {
            let cache = cache_of(&process).await;
            writers.push(tokio::spawn(Arc::clone(&kept).write(cache, writer, begin)));
        }
        writers.push(tokio::spawn(Arc::clone(&kept).write_buffered(cache_of(&process).await)));
        let mut admin = admin_of(&process).await;
        // Killed after this number of acknowledgements, with a snapshot under way now and then.
        let wanted = random.random_range(1..300);
        let before = kept.sum();
        let snapshot = random.random_bool(0.5);
        let taking = tokio::spawn(async move {
            if snapshot {
                let _ = admin.create_snapshot(CreateSnapshotRequest {}).await;
            }
        });
        soon(async {
            while kept.sum() < before + wanted {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let killed = Command::new("kill").args(["-KILL", &process.id().to_string()]).status().unwrap();
        assert!(killed.success());
        for writer in writers {
            writer.await.unwrap();
        }
        taking.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_flushed_is_lost_when_a_node_on_sled_is_killed() {
    stands_kills("sled", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_flushed_is_lost_when_a_node_on_files_is_killed() {
    stands_kills("files", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_flushed_is_lost_when_a_node_with_a_store_is_killed() {
    stands_kills("sled", true).await;
}

/// A backup: `cp -a` of the data directory of a node that is being written to.
async fn a_copy_taken_while_serving_has_all_that_was_flushed(backend: &str) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let process = Process::start(&flags(&data, backend));
    let kept = Arc::new(Kept::default());
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        writers.push(tokio::spawn(Arc::clone(&kept).write(cache_of(&process).await, writer, 1)));
    }
    writers.push(tokio::spawn(Arc::clone(&kept).write_buffered(cache_of(&process).await)));
    writers.push(tokio::spawn(Arc::clone(&kept).write_and_delete(cache_of(&process).await)));
    let mut copies = Vec::new();
    for copy in 0..3 {
        let (wanted, copied) = (kept.sum() + 10_000, directory.path().join(copy.to_string()));
        soon(async {
            while kept.sum() < wanted {
                tokio::task::yield_now().await;
            }
        })
        .await;
        if copy == 1 {
            admin_of(&process).await.create_snapshot(CreateSnapshotRequest {}).await.unwrap();
        }
        let before = kept.so_far();
        let paths = [data.clone(), copied.clone()];
        let cp = tokio::task::spawn_blocking(|| Command::new("cp").arg("-a").args(paths).status());
        assert!(cp.await.unwrap().unwrap().success());
        copies.push((copied, before));
    }
    drop(process);
    for writer in writers {
        writer.await.unwrap();
    }
    for (copied, before) in copies {
        let process = Process::start(&flags(&copied, backend));
        before.judge(&mut cache_of(&process).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_directory_on_sled_has_all_that_was_flushed_before() {
    a_copy_taken_while_serving_has_all_that_was_flushed("sled").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_directory_on_files_has_all_that_was_flushed_before() {
    a_copy_taken_while_serving_has_all_that_was_flushed("files").await;
}

#[tokio::test]
async fn what_memory_has_no_room_for_is_answered_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(&store_flags(directory.path(), "files"));
    let (mut cache, mut admin) = (cache_of(&process).await, admin_of(&process).await);
    let value = |n: u64| format!("{n}:").repeat(150);
    for first in (0..20_000).step_by(1_000) {
        let items = (first..first + 1_000).map(|n| set(format!("key:{n:05}"), value(n))).collect();
        cache.batch_set(BatchSetRequest { items, ..BatchSetRequest::default() }).await.unwrap();
    }
    // Each way to ask for an entry that is not in memory.
    for n in (0..20_000).step_by(1_999) {
        let hit = found(cache.get(get(format!("key:{n:05}"))).await.unwrap().into_inner()).unwrap();
        assert_eq!(hit.value, value(n).as_bytes());
    }
    let keys: Vec<_> = (0..20_000).step_by(97).map(|n| format!("key:{n:05}").into_bytes().into()).collect();
    let request = BatchGetRequest { keys, ..BatchGetRequest::default() };
    let results = cache.batch_get(request).await.unwrap().into_inner().results;
    let mut on_disk = 0;
    for (n, result) in (0..20_000).step_by(97).zip(results) {
        let hit = found(result).unwrap();
        assert_eq!(hit.value, value(n).as_bytes());
        on_disk += u32::from(hit.tier() == Tier::Disk);
    }
    assert!(on_disk > 100, "{on_disk} of them were on disk");
    let absent =
        SetRequest { condition: Some(set_request::Condition::IfAbsent(true)), ..set("key:00001", "x") };
    let outcome = cache.set(absent).await.unwrap().into_inner().outcome;
    assert!(matches!(outcome, Some(set_response::Outcome::NotStored(_))), "{outcome:?}");
    let delete = DeleteRequest { key: b"key:00002".as_slice().into(), ..DeleteRequest::default() };
    assert!(cache.delete(delete.clone()).await.unwrap().into_inner().deleted);
    assert!(!cache.delete(delete).await.unwrap().into_inner().deleted);
    let commands = (0..20_000)
        .step_by(487)
        .map(|n| PipelineCommand {
            id: n + 1,
            op: Some(pipeline_command::Op::Get(get(format!("key:{n:05}")))),
            ..PipelineCommand::default()
        })
        .collect();
    let message = PipelineRequest { commands, ..PipelineRequest::default() };
    let mut replies = cache.pipeline(tokio_stream::once(message)).await.unwrap().into_inner();
    let mut answered = 0;
    while let Some(message) = replies.message().await.unwrap() {
        for reply in message.replies {
            let Some(pipeline_reply::Result::Get(read)) = reply.result else { panic!("{reply:?}") };
            assert_eq!(found(read).unwrap().value, value(reply.id - 1).as_bytes());
            answered += 1;
        }
    }
    assert_eq!(answered, 42);
    let stats = admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner();
    assert_eq!(stats.misses, 0, "{:?}", stats.misses_by_reason);
    let disk = stats.hits_by_tier.iter().find(|hits| hits.tier() == Tier::Disk).unwrap();
    assert!(disk.count > 100, "{:?}", stats.hits_by_tier);
    assert!(stats.bytes_used <= stats.bytes_limit + (64 << 10), "{}", stats.bytes_used);
    assert_eq!(stats.persistence.unwrap().entries, 19_999);
}

#[tokio::test]
async fn a_node_that_was_told_to_end_comes_back_with_all_it_had() {
    let directory = tempfile::tempdir().unwrap();
    let flags = flags(directory.path(), "sled");
    let process = Process::start(&flags);
    let (mut cache, mut admin) = (cache_of(&process).await, admin_of(&process).await);
    let namespace = NamespaceConfig {
        name: "sessions".to_owned(),
        policy: "lru".to_owned(),
        default_ttl_ms: 3_600_000,
        near_cache_ttl_ms: 700,
        ..NamespaceConfig::default()
    };
    let create = CreateNamespaceRequest { namespace: Some(namespace) };
    admin.create_namespace(create).await.unwrap();
    let in_namespace = SetRequest { namespace: "sessions".to_owned(), ..set("who", "me") };
    cache.set(in_namespace).await.unwrap();
    let tagged = SetRequest { tags: vec!["red".to_owned()], flags: 7, ..set("tagged", "v") };
    cache.set(tagged).await.unwrap();
    cache.set(set("large", vec![7; 200_000])).await.unwrap();
    cache.set(set("gone", "v")).await.unwrap();
    cache.delete(delete("gone")).await.unwrap();
    let counted = IncrementRequest { request_id: "once".to_owned(), ..increment("n", 5) };
    assert_eq!(cache.increment(counted.clone()).await.unwrap().into_inner().value, 5);
    assert!(process.stops().await.0.success());

    let process = Process::start(&flags);
    let (mut cache, mut admin) = (cache_of(&process).await, admin_of(&process).await);
    let who = GetRequest { namespace: "sessions".to_owned(), ..get("who") };
    let hit = found(cache.get(who).await.unwrap().into_inner()).unwrap();
    assert!(hit.value == "me" && (3_500_000..=3_600_000).contains(&hit.remaining_ttl_ms), "{hit:?}");
    let listed = admin.list_namespaces(ListNamespacesRequest {}).await.unwrap().into_inner();
    assert_eq!((&*listed.namespaces[1].policy, listed.namespaces[1].near_cache_ttl_ms), ("lru", 700));
    let hit = found(cache.get(get("tagged")).await.unwrap().into_inner()).unwrap();
    assert_eq!((&hit.value[..], hit.flags), (&b"v"[..], 7));
    assert_eq!(found(cache.get(get("large")).await.unwrap().into_inner()).unwrap().value.len(), 200_000);
    assert!(found(cache.get(get("gone")).await.unwrap().into_inner()).is_err());
    assert_eq!(cache.increment(counted).await.unwrap().into_inner().value, 5, "it is not done twice");
    let scope = Some(invalidate_request::Scope::Tag("red".to_owned()));
    cache.invalidate(InvalidateRequest { scope, ..InvalidateRequest::default() }).await.unwrap();
    admin.create_snapshot(CreateSnapshotRequest {}).await.unwrap();
    let verified = VerifyRecoveryRequest { method: String::new() };
    let report = admin.verify_recovery(verified).await.unwrap().into_inner();
    assert_eq!((report.entries, report.damages_total), (3, 0), "{report:?}");
    assert_eq!(admin.list_snapshots(ListSnapshotsRequest {}).await.unwrap().into_inner().snapshots.len(), 1);
    let unknown = VerifyRecoveryRequest { method: "prayer".to_owned() };
    let refused = admin.verify_recovery(unknown).await.unwrap_err();
    assert_status(&refused, Code::InvalidArgument, "INVALID_VALUE", Some("method"));
    assert!(process.stops().await.0.success());

    let process = Process::start(&flags);
    let mut cache = cache_of(&process).await;
    assert!(found(cache.get(get("tagged")).await.unwrap().into_inner()).is_err(), "it was invalidated");
}

#[tokio::test]
async fn a_node_that_keeps_snapshots_alone_has_the_last_one_after_a_kill_and_all_after_a_sigterm() {
    let directory = tempfile::tempdir().unwrap();
    let mut flags = flags(directory.path(), "sled");
    flags[3] = "snapshot";
    let process = Process::start(&flags);
    let (mut cache, mut admin) = (cache_of(&process).await, admin_of(&process).await);
    let refused = cache.set(flushed(set("k", "v"))).await.unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "NO_PERSISTENCE", None);
    assert!(refused.message().contains("--persistence snapshot"), "{refused:?}");
    let refused = admin.flush(FlushRequest {}).await.unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "NO_PERSISTENCE", None);
    cache.set(set("kept", "v")).await.unwrap();
    let taken = admin.create_snapshot(CreateSnapshotRequest {}).await.unwrap().into_inner();
    assert_eq!(taken.entries, 1);
    cache.set(set("lost", "v")).await.unwrap();
    let killed = Command::new("kill").args(["-KILL", &process.id().to_string()]).status().unwrap();
    assert!(killed.success());
    drop(process);

    let process = Process::start(&flags);
    let (mut cache, mut admin) = (cache_of(&process).await, admin_of(&process).await);
    assert!(found(cache.get(get("kept")).await.unwrap().into_inner()).is_ok());
    assert!(found(cache.get(get("lost")).await.unwrap().into_inner()).is_err());
    let verified = VerifyRecoveryRequest { method: String::new() };
    let report = admin.verify_recovery(verified).await.unwrap().into_inner();
    assert_eq!((&*report.method, report.entries, report.damages_total), ("snapshot", 1, 0));
    for n in 0..1_000 {
        cache.set(set(format!("k:{n}"), "v")).await.unwrap();
    }
    let (status, _, stderr) = process.stops().await;
    assert!(status.success() && !stderr.contains("ERROR"), "{stderr}");

    let process = Process::start(&flags);
    let mut cache = cache_of(&process).await;
    for n in 0..1_000 {
        assert!(found(cache.get(get(format!("k:{n}"))).await.unwrap().into_inner()).is_ok());
    }
}

#[tokio::test]
async fn a_second_node_on_a_directory_is_refused_and_told_by_whom() {
    let directory = tempfile::tempdir().unwrap();
    let flags = flags(directory.path(), "files");
    let process = Process::start(&flags);
    let ports = ["--listen", "tcp://127.0.0.1:0", "--admin", "tcp://127.0.0.1:0"];
    let more = ["--health", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0"];
    let (code, stdout, stderr) = Process::fails(&[&ports[..], &more, &flags].concat());
    assert_eq!((code, &*stdout), (Some(2), ""));
    assert!(stderr.contains(&process.id().to_string()), "{stderr}");
    assert!(stderr.contains(directory.path().to_str().unwrap()), "{stderr}");
}

#[tokio::test]
async fn what_needs_a_disk_is_refused_where_there_is_none() {
    let node = Node::start().await;
    let (mut cache, mut admin) = (node.cache().await, node.admin().await);
    let refused = cache.set(flushed(set("k", "v"))).await.unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "NO_PERSISTENCE", None);
    assert!(found(cache.get(get("k")).await.unwrap().into_inner()).is_err(), "nothing was done");
    let refused = admin.flush(FlushRequest {}).await.unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "NO_PERSISTENCE", None);
    let refused = admin.create_snapshot(CreateSnapshotRequest {}).await.unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "NO_PERSISTENCE", None);
}

#[tokio::test]
async fn a_pipeline_answers_what_is_flushed_when_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::with(&flags(directory.path(), "files")).await;
    let mut cache = node.cache().await;
    let (send, requests) = mpsc::channel(1);
    let mut replies = cache.pipeline(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let command = |id, request| {
        let op = Some(pipeline_command::Op::Set(request));
        PipelineCommand { id, op, ..PipelineCommand::default() }
    };
    let commands = vec![
        command(1, flushed(set("a", "1"))),
        command(2, set("b", "2")),
        command(3, flushed(set("c", "3"))),
    ];
    send.send(PipelineRequest { commands, ..PipelineRequest::default() }).await.unwrap();
    // What waits for the disk holds up nothing else.
    for expected in [vec![2], vec![1, 3]] {
        let answered = soon(replies.message()).await.unwrap().unwrap();
        assert_eq!(answered.replies.iter().map(|reply| reply.id).collect::<Vec<_>>(), expected);
    }
    let stats = node.admin().await.get_stats(GetStatsRequest {}).await.unwrap().into_inner();
    let persistence = stats.persistence.unwrap();
    assert!(persistence.synced_position >= 3, "{persistence:?}");
    assert_eq!((&*persistence.mode, &*persistence.backend), ("journal+snapshot", "files"));
}

/// Waits until the node has `calls` calls that hang.
async fn calls_hang(admin: &mut AdminClient<Channel>, calls: u64) {
    soon(async {
        while admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner().requests_in_flight < calls {}
    })
    .await;
}

/// Ends by SIGTERM under load, with `waiting` calls that wait for the disk, beside calls and peers that hang.
async fn ends_under_load(backend: &str, waiting: usize) {
    let directory = tempfile::tempdir().unwrap();
    // What is buffered is on the disk by the end of the node, or because somebody waited for it.
    let more = ["--drain-deadline", "1s", "--timeout", "0", "--flush-interval", "1h"];
    let flags = [&flags(directory.path(), backend)[..], &more].concat();
    let process = Process::start(&flags);
    let kept = Arc::new(Kept::default());
    kept.next_round();
    // A set that never ends, a blob that never ends, a stream without a command, and peers that say nothing.
    let raw = Raw::connect(&process.ready.data[0]).await;
    let hanging = raw.open(post("/larder.v1.Cache/Set")).await;
    let blob = raw.open(post("/larder.v1.Cache/PutBlob")).await;
    calls_hang(&mut admin_of(&process).await, 2).await;
    let mut cache = cache_of(&process).await;
    let pipeline = soon(cache.pipeline(tokio_stream::pending())).await.unwrap().into_inner();
    let silent = soon(TcpStream::connect(&process.ready.data[0])).await.unwrap();
    let silent_admin = soon(TcpStream::connect(&process.ready.admin)).await.unwrap();
    let mut writers = Vec::new();
    for writer in 0..waiting {
        writers.push(tokio::spawn(Arc::clone(&kept).write(cache_of(&process).await, writer, 1)));
    }
    if waiting > 0 {
        writers.push(tokio::spawn(Arc::clone(&kept).write_and_delete(cache_of(&process).await)));
    }
    writers.push(tokio::spawn(Arc::clone(&kept).write_buffered(cache_of(&process).await)));
    soon(async {
        while kept.acknowledged() < 500 || waiting > 0 && kept.sum() < 5_000 {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let began = monotonic();
    let (status, _, stderr) = process.stops().await;
    let took = began.elapsed();
    assert!(status.success() && !stderr.contains("ERROR"), "{status}: {stderr}");
    assert!(took < Duration::from_secs(5), "{took:?}: {stderr}");
    for writer in writers {
        soon(writer).await.unwrap();
    }
    drop((hanging, blob, pipeline, silent, silent_admin));

    let process = Process::start(&flags);
    let mut cache = cache_of(&process).await;
    kept.judge(&mut cache).await;
    let there = numbers(&mut cache, &kept.buffered_prefix()).await.len() as u64;
    let acknowledged = kept.acknowledged();
    assert!(there >= acknowledged, "{there} buffered writes, and {acknowledged} were acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sigterm_under_load_loses_nothing_that_was_flushed() {
    ends_under_load("sled", WRITERS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sigterm_under_load_loses_nothing_that_nobody_waited_for() {
    ends_under_load("files", 0).await;
}

#[tokio::test]
async fn a_second_sigterm_ends_a_node_at_once_with_all_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let more = ["--drain-deadline", "1h", "--timeout", "0", "--flush-interval", "1h"];
    let flags = [&flags(directory.path(), "files")[..], &more].concat();
    let process = Process::start(&flags);
    cache_of(&process).await.set(set("buffered", "v")).await.unwrap();
    let mut admin = admin_of(&process).await;
    let raw = Raw::connect(&process.ready.data[0]).await;
    let hanging = raw.open(post("/larder.v1.Cache/Set")).await;
    calls_hang(&mut admin, 1).await;
    process.terminate();
    soon(async {
        while admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner().state() != NodeState::Draining {
        }
    })
    .await;
    process.ends_at_once().await;
    drop(hanging);

    let process = Process::start(&flags);
    let kept = found(cache_of(&process).await.get(get("buffered")).await.unwrap().into_inner());
    assert_eq!(kept.unwrap().value, "v");
}

#[tokio::test]
async fn what_nobody_waits_for_is_synced_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let flags = [&flags(directory.path(), "files")[..], &["--flush-interval", "20ms"]].concat();
    let process = Process::start(&flags);
    cache_of(&process).await.set(set("k", "v")).await.unwrap();
    let mut admin = admin_of(&process).await;
    soon(async {
        loop {
            let stats = admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner();
            let persistence = stats.persistence.unwrap();
            if persistence.position > 0 && persistence.synced_position == persistence.position {
                return;
            }
        }
    })
    .await;
    // A process that is dropped is killed.
    drop(process);
    let process = Process::start(&flags);
    assert!(found(cache_of(&process).await.get(get("k")).await.unwrap().into_inner()).is_ok());
}

#[tokio::test]
async fn a_node_that_keeps_snapshots_alone_takes_one_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let mut flags = [&flags(directory.path(), "files")[..], &["--snapshot-interval", "1s"]].concat();
    flags[3] = "snapshot";
    let process = Process::start(&flags);
    cache_of(&process).await.set(set("k", "v")).await.unwrap();
    let mut admin = admin_of(&process).await;
    soon(async {
        while admin.list_snapshots(ListSnapshotsRequest {}).await.unwrap().into_inner().snapshots.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(process);
    let process = Process::start(&flags);
    assert!(found(cache_of(&process).await.get(get("k")).await.unwrap().into_inner()).is_ok());
}
