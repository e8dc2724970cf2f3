//! The harness over real nodes: one in the test's runtime, or the program as a process of its own.
//!
//! Both listen on free ports of loopback and end with the value that stands for them.

#![allow(dead_code, reason = "every test program uses its own part")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use larder::config::{LoadedConfig, ServeArgs, ServeConfig, Variables};
use larder::node::RunningNode;
use larder::proto::v1::admin_client::AdminClient;
use larder::proto::v1::cache_client::CacheClient;
use larder::proto::v1::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Much longer than anything takes.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Fails instead of hanging.
pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(LONG, what).await.expect("within 30 s")
}

pub(crate) const FREE_PORTS: [&str; 8] = [
    "--listen",
    "tcp://127.0.0.1:0",
    "--admin",
    "tcp://127.0.0.1:0",
    "--health",
    "tcp://127.0.0.1:0",
    "--http",
    "127.0.0.1:0",
];

/// By default a node would use the working directory, which is every test's. A test that is about the disk names a mode
/// and a directory of its own.
const NO_DISK: [&str; 2] = ["--persistence", "none"];

/// These flags, with free ports for the listeners that they do not name.
fn with_free_ports<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    let free = FREE_PORTS.chunks(2).filter(|pair| !flags.contains(&pair[0]));
    free.flatten().chain(no_disk(flags)).chain(flags).copied().collect()
}

/// What stands before a test's own flags.
fn no_disk(flags: &[&str]) -> &'static [&'static str] {
    if flags.contains(&NO_DISK[0]) { &[] } else { &NO_DISK }
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    serve: ServeArgs,
}

/// The configuration of a node with 64 MiB on free ports, nothing on disk, and these flags of `larder serve`.
pub(crate) fn loaded(flags: &[&str]) -> LoadedConfig {
    let mut words = [&["serve"], &FREE_PORTS[..], &["--memory", "64MiB"], &NO_DISK].concat();
    // A flag of the test's takes the place of ours.
    for flag in flags {
        if let Some(at) = words.iter().position(|word| word == flag) {
            words.drain(at..at + 2);
        }
    }
    words.extend(flags);
    let args = Flags::try_parse_from(words).unwrap().serve;
    ServeConfig::load(&args, &Variables::default()).unwrap()
}

/// A node in the test's runtime.
pub(crate) struct Node {
    pub(crate) running: RunningNode,
}

impl Node {
    /// One that serves, with 64 MiB, nothing on disk and otherwise the defaults.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// One with more flags of `larder serve`.
    pub(crate) async fn with(flags: &[&str]) -> Self {
        Self { running: soon(RunningNode::start(loaded(flags))).await.unwrap() }
    }

    /// host:port of the first data listener.
    pub(crate) fn data(&self) -> String {
        self.running.node().data_addresses()[0].authority()
    }

    /// host:port of the admin listener.
    pub(crate) fn admin_authority(&self) -> String {
        self.running.node().admin_address().authority()
    }

    /// host:port of the health listener.
    pub(crate) fn health(&self) -> String {
        self.running.node().health_address().authority()
    }

    /// host:port of the HTTP listener.
    pub(crate) fn http(&self) -> String {
        self.running.node().http_address().authority()
    }

    /// A generated client of Cache on a connection of its own.
    pub(crate) async fn cache(&self) -> CacheClient<Channel> {
        CacheClient::new(connect(&self.data()).await).max_decoding_message_size(64 << 20)
    }

    /// A generated client of Admin on a connection of its own.
    pub(crate) async fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(connect(&self.admin_authority()).await)
    }

    /// What /metrics shows.
    pub(crate) async fn metrics(&self) -> String {
        let (status, body) = http_get(&self.http(), "/metrics").await;
        assert_eq!(status, 200);
        body
    }
}

pub(crate) async fn connect(authority: &str) -> Channel {
    soon(Endpoint::from_shared(format!("http://{authority}")).unwrap().connect()).await.unwrap()
}

/// GET over plain HTTP/1.1: the status and the body.
pub(crate) async fn http_get(authority: &str, path: &str) -> (u16, String) {
    let mut stream = soon(TcpStream::connect(authority)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The value of a line of metrics text; `sample` is the name with its labels.
#[track_caller]
pub(crate) fn metric(text: &str, sample: &str) -> u64 {
    let found = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    let value = found.unwrap_or_else(|| panic!("no sample {sample} in\n{text}"));
    value.parse::<f64>().unwrap() as u64
}

pub(crate) fn get(key: impl AsRef<[u8]>) -> GetRequest {
    GetRequest { key: Bytes::copy_from_slice(key.as_ref()), ..GetRequest::default() }
}

pub(crate) fn set(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> SetRequest {
    SetRequest {
        key: Bytes::copy_from_slice(key.as_ref()),
        value: Bytes::copy_from_slice(value.as_ref()),
        ..SetRequest::default()
    }
}

pub(crate) fn delete(key: impl AsRef<[u8]>) -> DeleteRequest {
    DeleteRequest { key: Bytes::copy_from_slice(key.as_ref()), ..DeleteRequest::default() }
}

pub(crate) fn increment(key: impl AsRef<[u8]>, delta: i64) -> IncrementRequest {
    IncrementRequest { key: Bytes::copy_from_slice(key.as_ref()), delta, ..IncrementRequest::default() }
}

pub(crate) fn decrement(key: impl AsRef<[u8]>, delta: i64) -> DecrementRequest {
    DecrementRequest { key: Bytes::copy_from_slice(key.as_ref()), delta, ..DecrementRequest::default() }
}

pub(crate) fn touch(key: impl AsRef<[u8]>, ttl_ms: u64) -> TouchRequest {
    TouchRequest { key: Bytes::copy_from_slice(key.as_ref()), ttl_ms, ..TouchRequest::default() }
}

/// Why there was no hit.
pub(crate) type Missed = MissReason;

/// A Get's outcome.
#[track_caller]
pub(crate) fn found(response: GetResponse) -> Result<Hit, Missed> {
    match response.outcome.expect("an outcome") {
        get_response::Outcome::Hit(hit) => Ok(hit),
        get_response::Outcome::Miss(miss) => Err(miss.reason()),
        get_response::Outcome::Stale(stale) => panic!("nothing is ever stale yet: {stale:?}"),
    }
}

/// A Set's outcome: the new version, or the one that is there; 0 where there is none, as where its time has passed.
#[track_caller]
pub(crate) fn stored(response: SetResponse) -> Result<u64, u64> {
    match response.outcome.expect("an outcome") {
        set_response::Outcome::Stored(stored) => Ok(stored.version),
        set_response::Outcome::NotStored(not) => {
            assert!(!not.owner_down && (!not.expired || not.current_version == 0));
            Err(not.current_version)
        }
    }
}

/// Calls that must succeed, by their outcomes.
#[derive(Clone)]
pub(crate) struct Calls(pub(crate) CacheClient<Channel>);

impl Calls {
    pub(crate) async fn get(&mut self, key: impl AsRef<[u8]>) -> Result<Hit, Missed> {
        self.lookup(get(key)).await
    }

    pub(crate) async fn lookup(&mut self, request: GetRequest) -> Result<Hit, Missed> {
        found(soon(self.0.get(request)).await.unwrap().into_inner())
    }

    pub(crate) async fn value(&mut self, key: impl AsRef<[u8]>) -> Bytes {
        self.get(key).await.unwrap().value
    }

    pub(crate) async fn set(&mut self, request: SetRequest) -> Result<u64, u64> {
        stored(soon(self.0.set(request)).await.unwrap().into_inner())
    }

    pub(crate) async fn increment(&mut self, request: IncrementRequest) -> i64 {
        soon(self.0.increment(request)).await.unwrap().into_inner().value
    }

    pub(crate) async fn decrement(&mut self, request: DecrementRequest) -> i64 {
        soon(self.0.decrement(request)).await.unwrap().into_inner().value
    }

    pub(crate) async fn delete(&mut self, request: DeleteRequest) -> DeleteResponse {
        soon(self.0.delete(request)).await.unwrap().into_inner()
    }

    pub(crate) async fn touch(&mut self, request: TouchRequest) -> bool {
        soon(self.0.touch(request)).await.unwrap().into_inner().found
    }
}

/// What a status says: code, reason and, where the request is at fault, the field.
#[track_caller]
pub(crate) fn facts(status: &Status) -> (Code, String, Option<String>) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "larder.dev");
    let field = details.bad_request().map(|bad| {
        assert_eq!(bad.field_violations.len(), 1);
        assert_eq!(bad.field_violations[0].description, status.message());
        bad.field_violations[0].field.clone()
    });
    assert!(!status.message().is_empty());
    (status.code(), info.reason.clone(), field)
}

/// Checks a status, and that it asks for a retry if and only if one can help.
#[track_caller]
pub(crate) fn assert_status(status: &Status, code: Code, reason: &str, field: Option<&str>) {
    assert_eq!(facts(status), (code, reason.to_owned(), field.map(str::to_owned)), "{status:?}");
    let retry = [
        "BACKLOG_FULL",
        "INVALIDATIONS_UNSWEPT",
        "JOURNAL_BACKLOG",
        "OVERLOADED",
        "NOT_READY",
        "SHORTAGE",
        "TOO_MANY_WATCHERS",
    ]
    .contains(&reason);
    assert_eq!(status.get_error_details().retry_info().is_some(), retry, "{status:?}");
}

/// `larder serve` as a process, killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) ready: Ready,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

/// What the ready line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) line: String,
    pub(crate) state: String,
    /// Empty in standby.
    pub(crate) data: Vec<String>,
    pub(crate) admin: String,
    pub(crate) health: String,
    pub(crate) http: String,
}

impl Ready {
    pub(crate) fn parse(line: &str) -> Self {
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("ready"), "{line:?}");
        let mut next = |name: &str, url: &str| {
            let value = words.next().and_then(|word| word.strip_prefix(name)?.strip_prefix('='));
            let value = value.unwrap_or_else(|| panic!("no {name}= in its place in {line:?}"));
            // HOST:PORT of a TCP listener, the URL of any other.
            let is_other = value.starts_with("unix://") && url == "tcp://";
            let value = if is_other { Some(value) } else { value.strip_prefix(url) };
            value.unwrap_or_else(|| panic!("{name} is no {url} in {line:?}")).to_owned()
        };
        let state = next("state", "");
        let data = if line.contains(" data=") {
            let all = next("data", "");
            all.split(',').map(|url| url.strip_prefix("tcp://").unwrap_or(url).to_owned()).collect()
        } else {
            Vec::new()
        };
        let (admin, health) = (next("admin", "tcp://"), next("health", "tcp://"));
        let http = next("http", "");
        assert_eq!(words.next(), None, "{line:?}");
        Self { line: line.to_owned(), state, data, admin, health, http }
    }
}

/// The program, with nothing of the test's environment.
pub(crate) fn larder() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// `larder serve`, as a shell starts it that has done something first.
fn after(first: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.env_clear().stdin(Stdio::null());
    command.args(["-c", &format!("{first} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_larder"), "serve"]);
    command
}

impl Process {
    /// Starts it on free ports with these flags, and waits for its ready line.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::run(larder().arg("serve").args(FREE_PORTS).args(no_disk(flags)).args(flags))
    }

    /// Starts it with these flags, on free ports where they name no listener.
    pub(crate) fn start_on(flags: &[&str]) -> Self {
        Self::run(larder().arg("serve").args(with_free_ports(flags)))
    }

    /// Runs it as [`Self::start_on`] does to its end, which must come by itself: exit status, stdout, stderr.
    pub(crate) fn fails_on(flags: &[&str]) -> (Option<i32>, String, String) {
        Self::outcome(larder().arg("serve").args(with_free_ports(flags)))
    }

    /// Starts it on free ports with these flags and all defaults in a working directory.
    pub(crate) fn start_in(directory: &Path, flags: &[&str]) -> Self {
        Self::run(larder().current_dir(directory).arg("serve").args(FREE_PORTS).args(flags))
    }

    /// Starts it as a shell does that has done `first`, such as `ulimit -n 64`.
    pub(crate) fn start_after(first: &str, flags: &[&str]) -> Self {
        Self::run(after(first).args(FREE_PORTS).args(no_disk(flags)).args(flags))
    }

    /// Starts it with failpoints armed, and waits for its ready line; how it ended and all of stderr, if it did before.
    pub(crate) fn start_armed(flags: &[&str], armed: &str) -> Result<Self, (ExitStatus, String)> {
        Self::start_under(flags, &[("FAILPOINTS", armed)])
    }

    /// Starts it in this environment, and waits for its ready line; how it ended and all of stderr, if it did before.
    pub(crate) fn start_under(
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self, (ExitStatus, String)> {
        let mut command = larder();
        command.envs(environment.iter().copied());
        command.arg("serve").args(FREE_PORTS).args(no_disk(flags)).args(flags);
        Self::try_run(&mut command, Stdio::piped())
    }

    /// Starts it as `shell` does, a command line in which `"$@"` stands for it, with a stderr of the test's.
    pub(crate) fn start_by(shell: &str, flags: &[&str], stderr: Stdio) -> Self {
        let mut command = Command::new("sh");
        let program = ["-c", shell, "sh", env!("CARGO_BIN_EXE_larder"), "serve"];
        command.env_clear().stdin(Stdio::null()).args(program);
        command.args(FREE_PORTS).args(no_disk(flags)).args(flags);
        Self::try_run(&mut command, stderr)
            .unwrap_or_else(|(status, stderr)| panic!("{status}, no ready line; stderr: {stderr}"))
    }

    /// Starts a command that is to say when it is ready, and waits for that.
    pub(crate) fn run(command: &mut Command) -> Self {
        Self::try_run(command, Stdio::piped())
            .unwrap_or_else(|(_, stderr)| panic!("no ready line; stderr: {stderr}"))
    }

    fn try_run(command: &mut Command, stderr: Stdio) -> Result<Self, (ExitStatus, String)> {
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let (say, said) = mpsc::channel();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let stdout = std::thread::spawn(move || {
            let mut text = String::new();
            out.read_line(&mut text).unwrap();
            let _ = say.send(text.clone());
            out.read_to_string(&mut text).unwrap();
            text
        });
        // None where it is the test's own.
        let err = child.stderr.take();
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = err.map(|mut err| err.read_to_string(&mut text));
            text
        });
        let Ok(line) = said.recv_timeout(LONG) else {
            let _ = child.kill();
            panic!("no ready line in time; stderr: {}", stderr.join().unwrap());
        };
        // Its output closes when it ends.
        let Some(line) = line.strip_suffix('\n') else {
            return Err((child.wait().unwrap(), stderr.join().unwrap()));
        };
        Ok(Self { child, ready: Ready::parse(line), stdout: Some(stdout), stderr: Some(stderr) })
    }

    /// [`Self::fails`] as a shell starts it that has done `first`.
    pub(crate) fn fails_after(first: &str, flags: &[&str]) -> (Option<i32>, String, String) {
        Self::outcome(after(first).args(FREE_PORTS).args(no_disk(flags)).args(flags))
    }

    /// Runs it with these flags to its end, which must come by itself: exit status, stdout, stderr.
    pub(crate) fn fails(flags: &[&str]) -> (Option<i32>, String, String) {
        Self::outcome(larder().arg("serve").args(no_disk(flags)).args(flags))
    }

    fn outcome(command: &mut Command) -> (Option<i32>, String, String) {
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal of this name.
    pub(crate) fn signal(&self, name: &str) {
        let killed =
            Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    /// Sends SIGSTOP, and waits until it runs no more.
    pub(crate) fn stopped(&self) {
        self.signal("STOP");
        let stat = format!("/proc/{}/stat", self.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
            std::thread::yield_now();
        }
    }

    /// Sends SIGTERM and waits for its end as [`Self::ended`] does; the test's own connections hear of the drain meanwhile,
    /// and hold it up no longer.
    pub(crate) async fn stops(self) -> (ExitStatus, String, String) {
        self.terminate();
        tokio::task::spawn_blocking(|| self.ended()).await.unwrap()
    }

    /// Sends SIGTERM to a node that drains until it has ended, at once.
    pub(crate) async fn ends_at_once(self) {
        // What follows the first at once is the first again.
        soon(async {
            while tokio::net::TcpStream::connect(&self.ready.health).await.is_ok() {
                self.terminate()
            }
        })
        .await;
        let (status, _, stderr) = tokio::task::spawn_blocking(|| self.ended()).await.unwrap();
        assert_eq!(status.code(), Some(3), "{stderr}");
    }

    /// Waits for its end: how it ended, all of stdout, all of stderr.
    pub(crate) fn ended(mut self) -> (ExitStatus, String, String) {
        let (tell, told) = mpsc::channel();
        let (stdout, stderr) = (self.stdout.take().unwrap(), self.stderr.take().unwrap());
        std::thread::spawn(move || tell.send((stdout.join().unwrap(), stderr.join().unwrap())));
        // Its outputs close when it ends.
        let (stdout, stderr) = told.recv_timeout(LONG).expect("it ends within 30 s");
        (self.child.wait().unwrap(), stdout, stderr)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
