//! A log that cannot be written and a stdout that takes nothing: they cost lines, and never a call, a probe or a shutdown.

use crate::support::outside;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::support::node::*;
use larder::clock::monotonic;
use larder::proto::v1::admin_client::AdminClient;
use larder::proto::v1::cache_client::CacheClient;
use larder::proto::v1::*;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// A pipe that takes no byte more, and its reader.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    for piece in [vec![b'\n'; 4096], vec![b'\n']] {
        while writer.write(&piece).is_ok() {}
    }
    assert_eq!(writer.write(b"\n").unwrap_err().kind(), ErrorKind::WouldBlock);
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// A pipe whose reader is gone.
fn broken_pipe() -> PipeWriter {
    io::pipe().unwrap().1
}

fn dev_full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// A tmpfs with no room left, unmounted when dropped; `None` where none can be mounted.
struct FullDisk(tempfile::TempDir);

impl FullDisk {
    fn mount() -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "larder-test"])
            .arg(at.path())
            .output();
        if !mount.as_ref().is_ok_and(|output| output.status.success()) {
            // Set where the machine is known to forbid it.
            if std::env::var_os("LARDER_NO_MOUNT").is_none() {
                outside::skip(&format!("a tmpfs cannot be mounted: {mount:?}"));
            }
            return None;
        }
        let disk = Self(at);
        let mut filler = File::create(disk.0.path().join("filler")).unwrap();
        while filler.write(&[0; 4096]).is_ok() {}
        Some(disk)
    }

    fn log(&self) -> File {
        OpenOptions::new().create(true).append(true).open(self.0.path().join("log")).unwrap()
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

/// All is logged that there is of a call, some kB for each.
const ALL: [&str; 4] = ["--log", "trace", "--max-connections", "2"];

/// Has a node answer calls, probes and Admin while its log is written nowhere, turn away a connection over its limit and go
/// on, and drain under load within its time; says how many lines it counted as lost meanwhile.
async fn serves_and_drains(process: Process, what: &str) -> u64 {
    let ready = process.ready.clone();
    let mut calls = Calls(CacheClient::new(connect(&ready.data[0]).await));
    let mut admin = AdminClient::new(connect(&ready.admin).await);
    for n in 0..1_000 {
        calls.set(set(format!("{n}"), "v")).await.unwrap();
    }
    let cleared = soon(admin.clear(ClearRequest::default())).await.unwrap().into_inner();
    assert_eq!(cleared.entries, 1_000, "{what}");
    // The third is one too many. It is turned away, and the listener stays.
    let second = soon(TcpStream::connect(&ready.data[0])).await.unwrap();
    let mut refused = soon(TcpStream::connect(&ready.data[0])).await.unwrap();
    assert!(matches!(soon(refused.read(&mut [0; 1])).await, Ok(0) | Err(_)), "{what}");
    drop((calls, second));
    soon(async { while admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner().connections > 0 {} })
        .await;
    Calls(CacheClient::new(connect(&ready.data[0]).await)).get("none").await.unwrap_err();
    assert_eq!(http_get(&ready.http, "/readyz").await.0, 200, "{what}");
    let (_, metrics) = http_get(&ready.http, "/metrics").await;

    // Until the drain ends them.
    let calls = CacheClient::new(connect(&ready.data[0]).await);
    let (served, mut has_served) = tokio::sync::watch::channel(());
    for n in 0..8 {
        let (mut calls, served) = (calls.clone(), served.clone());
        tokio::spawn(async move {
            while calls.set(set(format!("{n}"), "v")).await.is_ok() {
                served.send_replace(());
            }
        });
    }
    soon(has_served.changed()).await.unwrap();
    let began = monotonic();
    let (status, _, stderr) = process.stops().await;
    assert_eq!(status.code(), Some(0), "{what}: {stderr}");
    assert!(began.elapsed() < Duration::from_secs(5), "{what}: {:?}", began.elapsed());
    metric(&metrics, "larder_log_lines_lost_total")
}

#[tokio::test]
async fn a_log_that_nobody_reads_costs_lines_alone() {
    let (mut reader, writer) = full_pipe();
    let process = Process::start_by("exec \"$@\"", &ALL, writer.into());
    let lost = serves_and_drains(process, "a full pipe").await;
    assert!(lost > 0);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text.trim(), "", "it was full from the beginning to the end");
}

#[tokio::test]
async fn a_log_whose_reader_is_gone_costs_lines_alone() {
    let process = Process::start_by("exec \"$@\"", &ALL, broken_pipe().into());
    assert!(serves_and_drains(process, "no reader").await > 1_000);
}

#[tokio::test]
async fn a_log_on_a_full_disk_costs_lines_alone() {
    let process = Process::start_by("exec \"$@\"", &ALL, dev_full().into());
    assert!(serves_and_drains(process, "/dev/full").await > 1_000);

    let Some(disk) = FullDisk::mount() else { return };
    let process = Process::start_by("exec \"$@\"", &ALL, disk.log().into());
    assert!(serves_and_drains(process, "a full tmpfs").await > 1_000);
}

#[tokio::test]
async fn a_log_at_the_limit_of_a_files_length_costs_lines_alone() {
    let here = tempfile::tempdir().unwrap();
    let log = File::create(here.path().join("log")).unwrap();
    // In blocks of 512 bytes.
    let process = Process::start_by("ulimit -f 8 && exec \"$@\"", &ALL, log.into());
    assert!(serves_and_drains(process, "ulimit -f").await > 1_000);
    let log = std::fs::read_to_string(here.path().join("log")).unwrap();
    assert!(log.len() <= 8 * 512 && log.contains("ready state=serving"), "{log}");
}

#[tokio::test]
async fn a_closed_log_is_no_file_of_the_nodes() {
    let process = Process::start_by("exec \"$@\" 2>&- <&-", &ALL, Stdio::null());
    for descriptor in [0, 2] {
        let link = format!("/proc/{}/fd/{descriptor}", process.id());
        assert_eq!(std::fs::read_link(link).unwrap(), Path::new("/dev/null"));
    }
    serves_and_drains(process, "closed").await;
}

#[tokio::test]
async fn a_log_that_has_room_again_goes_on_and_says_how_much_is_lost() {
    let Some(disk) = FullDisk::mount() else { return };
    let process = Process::start_by("exec \"$@\"", &["--log-format", "json"], disk.log().into());
    let lost =
        async || metric(&http_get(&process.ready.http, "/metrics").await.1, "larder_log_lines_lost_total");
    soon(async { while lost().await == 0 {} }).await;
    std::fs::remove_file(disk.0.path().join("filler")).unwrap();
    let (status, ..) = process.stops().await;
    assert_eq!(status.code(), Some(0));
    let text = std::fs::read_to_string(disk.0.path().join("log")).unwrap();
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let told = lines.iter().find(|line| line["target"] == "larder::telemetry::log::streams");
    assert!(told.is_some_and(|told| told["lines"].as_u64() > Some(0)), "{text}");
    assert_eq!(lines.last().unwrap()["message"], "stats", "{text}");
}

/// The program on free ports with its stdout somewhere, found by its log.
fn start_with_stdout(shell: &str, stdout: Stdio) -> (Child, Ready, BufReader<std::process::ChildStderr>) {
    let ports = ["--listen", "--admin", "--health"].map(|flag| [flag, "tcp://127.0.0.1:0"]).concat();
    let mut command = Command::new("sh");
    command.args(["-c", shell, "sh", env!("CARGO_BIN_EXE_larder"), "serve", "--persistence", "none"]);
    command.args(ports).args(["--http", "127.0.0.1:0"]).env_clear().stdin(Stdio::null());
    let mut child = command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let ready = loop {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended: {}", child.wait().unwrap());
        if let Some(at) = line.find("ready state=") {
            break Ready::parse(line[at..].split(" version=").next().unwrap());
        }
    };
    (child, ready, log)
}

#[tokio::test]
async fn a_stdout_that_takes_no_ready_line_is_no_reason_to_stop_or_to_wait() {
    let (_reader, full) = full_pipe();
    for (what, shell, stdout) in [
        ("full", "exec \"$@\"", Stdio::from(full)),
        ("no reader", "exec \"$@\"", broken_pipe().into()),
        ("full disk", "exec \"$@\"", dev_full().into()),
        ("closed", "exec \"$@\" >&-", Stdio::null()),
    ] {
        let (mut child, ready, mut log) = start_with_stdout(shell, stdout);
        let mut calls = Calls(CacheClient::new(connect(&ready.data[0]).await));
        calls.set(set("k", "v")).await.unwrap();
        let began = monotonic();
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        // Its stderr closes when it ends.
        let rest = tokio::task::spawn_blocking(move || {
            let mut rest = String::new();
            log.read_to_string(&mut rest).unwrap();
            rest
        });
        let rest = soon(rest).await.unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{what}: {rest}");
        assert!(began.elapsed() < Duration::from_secs(5), "{what}: {:?}", began.elapsed());
        assert!(rest.contains("stats"), "{what}: the last line is there: {rest}");
    }
}

#[test]
fn a_node_that_cannot_start_ends_with_its_status_whatever_its_log_takes() {
    let (_reader, full) = full_pipe();
    for stderr in [Stdio::from(full), broken_pipe().into(), dev_full().into()] {
        let began = monotonic();
        let flags = ["serve", "--persistence", "none", "--listen", "tcp://0.0.0.0:0"];
        let status = larder().args(flags).stdout(Stdio::null()).stderr(stderr).status().unwrap();
        assert_eq!(status.code(), Some(2));
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_peer_that_comes_again_and_again_logs_one_line_a_second() {
    let process = Process::start(&["--log-format", "json", "--max-connections", "1"]);
    let data = process.ready.data[0].clone();
    let _only = CacheClient::new(connect(&data).await);
    let began = monotonic();
    let mut refused = 0;
    while began.elapsed() < Duration::from_millis(2_100) {
        let mut stream = soon(TcpStream::connect(&data)).await.unwrap();
        let _ = soon(stream.read(&mut [0; 1])).await;
        refused += 1;
    }
    let took = began.elapsed();
    let (status, _, stderr) = process.stops().await;
    assert_eq!(status.code(), Some(0), "{stderr}");
    let lines: Vec<Value> = stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<&Value> = lines
        .iter()
        .filter(|line| line["message"].as_str().unwrap().starts_with("connection limit"))
        .collect();
    assert!((2..=took.as_secs() as usize + 1).contains(&told.len()), "{told:?} of {refused} in {took:?}");
    assert_eq!(told[0]["left_out"], Value::Null);
    let left_out: u64 = told[1..].iter().map(|line| line["left_out"].as_u64().unwrap()).sum();
    assert!((1..refused).contains(&left_out), "{left_out} of {refused}");
}

#[tokio::test]
async fn a_panic_is_a_line_of_the_log_and_a_node_that_lost_a_thread_ends() {
    let here = tempfile::tempdir().unwrap();
    let directory = here.path().to_str().unwrap();
    let flags = ["--persistence", "snapshot", "--snapshot-interval", "1s", "--data-dir", directory];
    let flags = [&flags[..], &["--log-format", "json"]].concat();
    let process = Process::start_armed(&flags, "snapshot-created=1*panic(as the test says)").unwrap();
    let mut calls = Calls(CacheClient::new(connect(&process.ready.data[0]).await));
    calls.set(set("k", "v")).await.unwrap();
    drop(calls);
    let (status, _, stderr) = tokio::task::spawn_blocking(|| process.ended()).await.unwrap();
    assert_eq!(status.code(), Some(3), "{stderr}");
    let log = |line: &str| serde_json::from_str::<Value>(line).ok();
    let lines: Vec<Value> = stderr.lines().filter_map(log).collect();
    let panicked = lines.iter().find(|line| line["target"] == "larder::panic").expect(&stderr);
    assert_eq!(panicked["message"], "panicked: as the test says");
    assert!(lines.iter().any(|line| line["part"] == "the data directory's thread \"snapshots\""), "{stderr}");
    assert!(stderr.lines().last().unwrap().contains("a part of the node had ended"), "{stderr}");
    // What it held is on the disk all the same.
    let process = Process::start(&flags);
    let mut calls = Calls(CacheClient::new(connect(&process.ready.data[0]).await));
    assert_eq!(calls.value("k").await, "v");
}

#[tokio::test]
async fn a_journal_whose_thread_panicked_is_poisoned_and_said_to_be() {
    let here = tempfile::tempdir().unwrap();
    let directory = here.path().to_str().unwrap();
    let flags = ["--persistence", "journal", "--data-dir", directory];
    let process = Process::start_armed(&flags, "journal-appended=panic").unwrap();
    let mut calls = Calls(CacheClient::new(connect(&process.ready.data[0]).await));
    let flushed = SetRequest { durability: Durability::Flushed.into(), ..set("k", "v") };
    soon(calls.0.set(flushed)).await.unwrap_err();
    let url = format!("tcp://{}", process.ready.health);
    let probe = || larder().args(["probe", "--nodes", &url, "--service", "persistence"]).output().unwrap();
    let began = monotonic();
    while probe().status.code() != Some(1) {
        assert!(began.elapsed() < LONG, "health says that the disk is well");
    }
    soon(calls.0.set(set("k", "v"))).await.unwrap_err();
    let (status, _, stderr) = process.stops().await;
    assert_eq!(status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("the thread that writes it panicked"), "{stderr}");
}

#[tokio::test]
async fn a_hang_up_drains_unless_the_node_was_started_to_outlive_it() {
    // Whatever these tests were started to outlive.
    let process = Process::start_by("exec /usr/bin/env --default-signal=HUP \"$@\"", &[], Stdio::piped());
    process.signal("HUP");
    let (status, _, stderr) = tokio::task::spawn_blocking(|| process.ended()).await.unwrap();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("SIGHUP: draining") && stderr.contains("stats"), "{stderr}");

    // As nohup does.
    let process = Process::start_by("trap '' HUP && exec \"$@\"", &[], Stdio::piped());
    process.signal("HUP");
    let mut calls = Calls(CacheClient::new(connect(&process.ready.data[0]).await));
    calls.set(set("k", "v")).await.unwrap();
    let (status, _, stderr) = process.stops().await;
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("SIGTERM: draining") && !stderr.contains("SIGHUP"), "{stderr}");
}

fn run(process: &Process, words: &[&str], stdout: impl Into<Stdio>) -> Output {
    let mut command = larder();
    command.env("LARDER_NODES", format!("tcp://{}", process.ready.data[0]));
    command.args(words).stdout(stdout).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn a_command_whose_reader_is_gone_ends_without_a_word_and_one_without_room_says_so() {
    let process = Process::start(&[]);
    assert_eq!(run(&process, &["set", "k", "v"], Stdio::null()).status.code(), Some(0));
    for words in
        [&["get", "k"][..], &["scan"], &["incr", "n"], &["completions", "bash"], &["--help"], &["--version"]]
    {
        let gone = run(&process, words, broken_pipe());
        assert_eq!((gone.status.code(), outside::said(&gone).lines().count()), (Some(0), 1), "{words:?}");
        let full = run(&process, words, dev_full());
        let said = outside::said(&full);
        assert_eq!(full.status.code(), Some(3), "{words:?}: {said}");
        assert!(said.contains("cannot write to stdout: No space left on device"), "{words:?}: {said}");
    }
    // What went wrong keeps its status.
    let words = ["--output", "json", "incr", "k"];
    for stdout in [Stdio::from(broken_pipe()), dev_full().into()] {
        assert_eq!(run(&process, &words, stdout).status.code(), Some(3));
    }
    let wrong = larder().args(["get"]).stderr(broken_pipe()).status().unwrap();
    assert_eq!(wrong.code(), Some(2));
}
