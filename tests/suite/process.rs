//! The program as seen from outside: its ready line, its outputs, its exit status, its end.

mod deployment;

use std::io::Write;
use std::time::Duration;

use crate::support::node::*;
use crate::support::raw::{Raw, post};
use larder::clock::monotonic;
use larder::proto::v1::admin_client::AdminClient;
use larder::proto::v1::cache_client::CacheClient;
use larder::proto::v1::*;
use serde_json::Value;
use tokio::net::TcpStream;

/// The client's side of the program, against a process.
fn ask(process: &Process, words: &[&str]) -> (Option<i32>, String, String) {
    let ready = &process.ready;
    let nodes = ready.data.first().map_or("tcp://127.0.0.1:1".to_owned(), |at| format!("tcp://{at}"));
    let admin = format!("tcp://{}", ready.admin);
    let output = larder().args(["--nodes", &nodes, "--admin", &admin]).args(words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn assert_refused(flags: &[&str], status: i32, words: &[&str]) {
    let (code, stdout, stderr) = Process::fails(flags);
    assert_eq!((code, stdout.as_str()), (Some(status), ""), "{flags:?}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{flags:?}: {stderr:?} lacks {word:?}");
    }
}

#[test]
fn the_ready_line_is_all_of_stdout_and_a_sigterm_is_an_exit_of_0() {
    let process = Process::start(&[]);
    let ready = process.ready.clone();
    assert_eq!((ready.state.as_str(), ready.data.len()), ("serving", 1));
    for address in [&ready.data[0], &ready.admin, &ready.health, &ready.http] {
        let port: u16 = address.strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
        assert_ne!(port, 0);
    }
    assert_eq!(ask(&process, &["set", "tea", "Assam"]).0, Some(0));
    assert_eq!(ask(&process, &["get", "tea"]), (Some(0), "Assam".to_owned(), String::new()));
    let began = monotonic();
    process.terminate();
    let (status, stdout, stderr) = process.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!(stdout, format!("{}\n", ready.line));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn several_data_listeners_are_joined_by_commas() {
    let process = Process::start(&["--listen", "tcp://localhost:0"]);
    assert_eq!(process.ready.data.len(), 2, "{}", process.ready.line);
    for data in &process.ready.data {
        let url = format!("tcp://{data}");
        let probe = larder().args(["probe", "--nodes", &url]).output().unwrap();
        assert_eq!(probe.status.code(), Some(0), "{url}");
    }
}

#[test]
fn a_node_in_standby_spawns_when_it_is_told_to() {
    let process = Process::start(&["--standby"]);
    assert_eq!((process.ready.state.as_str(), process.ready.data.len()), ("standby", 0));
    let health = format!("tcp://{}", process.ready.health);
    let probe = |service: &str| {
        larder().args(["probe", "--nodes", &health, "--service", service]).output().unwrap().status.code()
    };
    assert_eq!((probe(""), probe("larder.v1.Cache")), (Some(0), Some(1)));
    let (code, stdout, stderr) = ask(&process, &["admin", "spawn"]);
    assert_eq!(code, Some(0), "{stderr}");
    let data = stdout.split_whitespace().find(|word| word.starts_with("tcp://127.0.0.1:"));
    let data = data.unwrap_or_else(|| panic!("no data listener in {stdout:?}"));
    assert_eq!((probe(""), probe("larder.v1.Cache")), (Some(0), Some(0)));
    let set = larder().args(["--nodes", data, "set", "k", "v"]).output().unwrap();
    assert_eq!(set.status.code(), Some(0));
    // And the way back.
    let (code, _, stderr) = ask(&process, &["admin", "drain"]);
    assert_eq!(code, Some(0), "{stderr}");
    let (status, stdout, stderr) = process.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!(stdout.lines().count(), 1, "spawning prints nothing: {stdout:?}");
}

#[tokio::test]
async fn a_sigterm_ends_an_open_pipeline_and_a_silent_peer_within_seconds() {
    let process = Process::start(&[]);
    let data = process.ready.data[0].clone();
    let mut calls = CacheClient::new(connect(&data).await);
    let mut pipeline = soon(calls.pipeline(tokio_stream::pending())).await.unwrap().into_inner();
    let silent = soon(TcpStream::connect(&data)).await.unwrap();
    let silent_admin = soon(TcpStream::connect(&process.ready.admin)).await.unwrap();
    let silent_http = soon(TcpStream::connect(&process.ready.http)).await.unwrap();
    let began = monotonic();
    process.terminate();
    assert!(soon(pipeline.message()).await.is_err());
    let (status, _, stderr) = tokio::task::spawn_blocking(|| process.ended()).await.unwrap();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}: {stderr}", began.elapsed());
    drop((silent, silent_admin, silent_http));
}

#[tokio::test]
async fn a_sigterm_ends_calls_that_hang_at_the_drain_deadline() {
    let process = Process::start(&["--drain-deadline", "1s", "--timeout", "0"]);
    let raw = Raw::connect(&process.ready.data[0]).await;
    let (response, _body) = raw.open(post("/larder.v1.Cache/Set")).await;
    let mut admin = AdminClient::new(connect(&process.ready.admin).await);
    soon(async {
        while admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner().requests_in_flight < 1 {}
    })
    .await;
    let began = monotonic();
    process.terminate();
    let (status, _, stderr) = tokio::task::spawn_blocking(|| process.ended()).await.unwrap();
    assert_eq!(status.code(), Some(0), "{stderr}");
    let took = began.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(5)).contains(&took), "{took:?}: {stderr}");
    assert!(soon(response).await.is_err());
}

#[tokio::test]
async fn a_second_sigterm_exits_at_once() {
    let process = Process::start(&["--drain-deadline", "1h", "--timeout", "0"]);
    let raw = Raw::connect(&process.ready.data[0]).await;
    let (response, _body) = raw.open(post("/larder.v1.Cache/Set")).await;
    let mut admin = AdminClient::new(connect(&process.ready.admin).await);
    let mut stats = async || admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner();
    soon(async { while stats().await.requests_in_flight < 1 {} }).await;
    process.terminate();
    soon(async { while stats().await.state() != NodeState::Draining {} }).await;
    let began = monotonic();
    process.ends_at_once().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(response);
}

#[test]
fn a_port_in_use_is_named_with_its_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let url = format!("tcp://{at}");
    for flag in ["--listen", "--admin", "--health", "--http"] {
        let mut flags = vec![];
        for (other, free) in [
            ("--listen", "tcp://127.0.0.1:0"),
            ("--admin", "tcp://127.0.0.1:0"),
            ("--health", "tcp://127.0.0.1:0"),
            ("--http", "127.0.0.1:0"),
        ] {
            let here = if other == "--http" { at.as_str() } else { url.as_str() };
            flags.extend([other, if other == flag { here } else { free }]);
        }
        assert_refused(&flags, 3, &[flag, &at, "in use"]);
    }
}

#[test]
fn flags_that_contradict_or_are_wrong_are_an_exit_of_2() {
    assert_refused(
        &["--durability", "flushed", "--persistence", "none"],
        2,
        &["--durability flushed", "--persistence none"],
    );
    assert_refused(
        &["--admin", "tcp://127.0.0.1:7400", "--listen", "tcp://127.0.0.1:7400"],
        2,
        &["--admin", "--listen", "7400"],
    );
    assert_refused(&["--lame-duck", "9s"], 2, &["--lame-duck", "--drain-deadline"]);
    assert_refused(&["--max-value", "8MiB"], 2, &["--max-value", "--max-message-in"]);
    assert_refused(&["--listen", "tcp://0.0.0.0:0"], 2, &["--listen", "--insecure"]);
    assert_refused(&["--policy", "random"], 2, &["--policy", "random", "lru", "s3-fifo"]);
    assert_refused(&["--memory", "lots"], 2, &["--memory", "lots", "64MiB"]);
    assert_refused(&["--memory", "1KiB"], 2, &["--memory", "1KiB", "1MiB"]);
    assert_refused(&["--recovery", "keys+origin"], 2, &["--recovery keys+origin", "not served"]);
    assert_refused(&["--listen", "udp://127.0.0.1:0"], 2, &["--listen", "udp"]);
    assert_refused(&["--no-such-flag"], 2, &["--no-such-flag"]);
    assert_refused(&["--log", "=====nonsense"], 2, &["--log"]);
    assert_refused(&["--config", "/no/such/file.toml"], 2, &["--config", "/no/such/file.toml"]);
}

#[test]
fn by_default_everything_is_kept_below_the_working_directory() {
    let here = tempfile::tempdir().unwrap();
    let process = Process::start_in(here.path(), &[]);
    assert_eq!(ask(&process, &["set", "tea", "Assam"]).0, Some(0));
    process.terminate();
    assert!(process.ended().0.success());
    assert!(here.path().join("larder-data").is_dir());
    let process = Process::start_in(here.path(), &[]);
    assert_eq!(ask(&process, &["get", "tea"]), (Some(0), "Assam".to_owned(), String::new()));
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named_with_what_to_do() {
    // A file stands in its place: that stops root as well.
    let here = tempfile::tempdir().unwrap();
    std::fs::write(here.path().join("larder-data"), "").unwrap();
    let ports = ["--listen", "--admin", "--health"].map(|flag| [flag, "tcp://127.0.0.1:0"]).concat();
    let mut command = larder();
    command.current_dir(here.path()).arg("serve").args(ports).args(["--http", "127.0.0.1:0"]);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let directory = here.path().join("larder-data");
    for word in [directory.to_str().unwrap(), "--data-dir", "--persistence none"] {
        assert!(stderr.contains(word), "{stderr:?} lacks {word:?}");
    }
}

#[test]
fn a_wrong_key_in_the_file_is_named_by_line_with_the_nearest_right_one() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"# ours\nmemory = \"64MiB\"\n\nmax-vlaue = \"2MiB\"\n").unwrap();
    let path = file.path().to_str().unwrap();
    assert_refused(&["--config", path], 2, &[path, "line 4", "max-vlaue", "\"max-value\""]);
}

#[test]
fn a_variable_is_named_when_it_is_wrong() {
    let output = larder().arg("serve").env("LARDER_MEMORY", "plenty").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.contains("LARDER_MEMORY") && stderr.contains("plenty"), "{stderr}");
}

#[test]
fn the_clients_exit_statuses_hold_against_a_real_node() {
    let process = Process::start(&[]);
    let code = |words: &[&str]| ask(&process, words).0;
    assert_eq!(code(&["get", "none"]), Some(1));
    assert_eq!(code(&["set", "k", "text"]), Some(0));
    assert_eq!(code(&["set", "k", "new", "--if-absent"]), Some(1));
    assert_eq!(code(&["incr", "k"]), Some(3));
    assert_eq!(code(&["get", ""]), Some(2));
    assert_eq!(code(&["set", "k", "v", "--ttl", "soon"]), Some(2));
    assert_eq!(code(&["admin", "policy", "random"]), Some(3));
    assert_eq!(ask(&process, &["get", "k"]).1, "text");
    let nobody = larder().args(["--nodes", "tcp://127.0.0.1:1", "get", "k"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(3));
}

/// A directory with one file to import, and a trace of one key.
fn something_to_load() -> (tempfile::TempDir, String, String) {
    let here = tempfile::tempdir().unwrap();
    let (files, trace) = (here.path().join("files"), here.path().join("one.u64.zst"));
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("imported"), "v").unwrap();
    std::fs::write(&trace, zstd::encode_all(&7_u64.to_le_bytes()[..], 3).unwrap()).unwrap();
    let text = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    (here, text(files), text(trace))
}

#[test]
fn every_command_that_writes_says_what_it_waits_for() {
    // A node without a disk tells one durability from the other.
    let process = Process::start(&[]);
    let (_here, files, trace) = something_to_load();
    let load = ["bench", "-c", "1", "--callers", "1", "-r", "0:1", "-n", "10"];
    let batches = [&load[..], &["--batch", "5"]].concat();
    let messages = [&load[..], &["--pipeline", "5"]].concat();
    let prefill = [&load[..], &["--prefill", "--keys", "10"]].concat();
    for words in [
        &["set", "k", "1"][..],
        &["incr", "k"],
        &["decr", "k"],
        &["del", "k"],
        &["import", &files],
        &["replay", &trace],
        &load,
        &batches,
        &messages,
        &prefill,
    ] {
        let ask = |durability: &str| ask(&process, &[words, &["--durability", durability]].concat());
        // The refused one first, as a replay sets only what is not there.
        let (code, stdout, stderr) = ask("flushed");
        assert_eq!(code, Some(3), "{words:?}: {stdout}{stderr}");
        assert!(format!("{stdout}{stderr}").contains("FAILED_PRECONDITION"), "{words:?}: {stdout}{stderr}");
        let (code, stdout, stderr) = ask("buffered");
        assert_eq!(code, Some(0), "{words:?}: {stdout}{stderr}");
        let (code, _, stderr) = ask("disk");
        assert_eq!(code, Some(2), "{words:?}");
        assert!(stderr.contains("write buffered or flushed"), "{words:?}: {stderr}");
    }
}

#[test]
fn what_a_command_waited_for_outlives_a_kill() {
    let (here, files, trace) = something_to_load();
    let data = here.path().join("data");
    let flags = ["--data-dir", data.to_str().unwrap(), "--persistence", "journal", "--memory", "64MiB"];
    // Nothing is synced but what is waited for.
    let seldom = [&flags[..], &["--flush-interval", "1h"]].concat();
    let mut process = Process::start(&seldom);
    assert_eq!(ask(&process, &["set", "gone", "v", "--durability", "flushed"]).0, Some(0));
    for (words, read, is) in [
        (&["set", "k", "1"][..], "k", "1"),
        (&["incr", "k", "--by", "5"], "k", "6"),
        (&["decr", "k", "--by", "2"], "k", "4"),
        (&["import", &files], "imported", "v"),
        (&["replay", &trace, "--value-size", "1"], "0000000000000007", "."),
        (&["del", "gone"], "gone", ""),
    ] {
        let (code, _, stderr) = ask(&process, &[words, &["--durability", "flushed"]].concat());
        assert_eq!(code, Some(0), "{words:?}: {stderr}");
        // A process that is dropped is killed.
        drop(process);
        process = Process::start(&seldom);
        assert_eq!(ask(&process, &["get", read]).1, is, "{words:?}");
    }
}

#[tokio::test]
async fn stats_log_metrics_and_command_line_show_matching_figures() {
    let process = Process::start(&["--log-format", "json", "--stats-interval", "1h"]);
    let mut calls = Calls(CacheClient::new(connect(&process.ready.data[0]).await));
    for n in 0..10 {
        calls.set(set(format!("{n}"), "v")).await.unwrap();
        calls.get(format!("{n}")).await.unwrap();
    }
    for _ in 0..5 {
        calls.get("none").await.unwrap_err();
    }
    calls.delete(delete("0")).await;
    let (_, stdout, _) = ask(&process, &["admin", "stats", "--output", "json"]);
    let shown: Value = serde_json::from_str(&stdout).unwrap();
    let (_, metrics) = http_get(&process.ready.http, "/metrics").await;
    process.terminate();
    let (status, _, stderr) = tokio::task::spawn_blocking(|| process.ended()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    let lines: Vec<Value> =
        stderr.lines().map(|line| serde_json::from_str(line).expect("all of stderr is JSON")).collect();
    // The node logs its figures once more when it has stopped.
    let logged = lines.iter().rfind(|line| line["message"] == "stats").expect("a stats line");
    for (name, expected) in
        [("hits", 10), ("misses", 5), ("sets", 10), ("deletes", 1), ("evictions", 0), ("entries", 9)]
    {
        assert_eq!(logged[name], Value::from(expected), "{name} in {logged}");
        let all = shown.to_string();
        assert_eq!(shown[name], Value::from(expected), "{name} in {all}");
        if name != "misses" {
            let sample =
                if name == "entries" { "larder_entries".into() } else { format!("larder_{name}_total") };
            assert_eq!(metric(&metrics, &sample), expected, "{sample}");
        }
    }
    assert_eq!(metric(&metrics, "larder_misses_total{reason=\"unknown\"}"), 5);
    assert_eq!(logged["hit_ratio"], Value::from(0.6667));
}

#[tokio::test]
async fn the_last_figures_are_those_of_the_end_of_the_drain() {
    let flags = ["--log-format", "json", "--stats-interval", "1h", "--lame-duck", "2s"];
    let process = Process::start(&flags);
    let mut calls = Calls(CacheClient::new(connect(&process.ready.data[0]).await));
    let mut admin = AdminClient::new(connect(&process.ready.admin).await);
    admin.drain(DrainRequest::default()).await.unwrap();
    calls.set(set("k", "v")).await.unwrap();
    let (status, _, stderr) = tokio::task::spawn_blocking(|| process.ended()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    let lines: Vec<Value> = stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let stats: Vec<&Value> = lines.iter().filter(|line| line["message"] == "stats").collect();
    let [last] = stats[..] else { panic!("one line: {stats:?}") };
    assert_eq!((&last["state"], &last["sets"]), (&Value::from("stopped"), &Value::from(1)));
}

#[tokio::test]
async fn keys_and_values_are_in_no_log_and_no_metric() {
    let process = Process::start(&["--log", "trace"]);
    let mut calls = Calls(CacheClient::new(connect(&process.ready.data[0]).await));
    let (key, value) = ("a-very-secret-key", "a-very-secret-value");
    calls.set(set(key, value)).await.unwrap();
    calls.get(key).await.unwrap();
    calls.0.increment(increment(key, 1)).await.unwrap_err();
    let (_, metrics) = http_get(&process.ready.http, "/metrics").await;
    process.terminate();
    let (_, stdout, stderr) = tokio::task::spawn_blocking(|| process.ended()).await.unwrap();
    for text in [metrics, stdout, stderr] {
        assert!(!text.contains("very-secret"), "{text}");
    }
}
