//! The real program dies at every failpoint, between any two steps of what must outlive that, and comes back.
//!
//! Clients set, delete, count and stream blobs while snapshots and compactions go on, until the armed failpoint is
//! reached. Then it is started without: FLUSHED writes are there (P1), buffered ones up to some point (P2), each of the
//! journal's batches whole or not at all (P4), and nothing is damaged (P6). A failpoint that is never reached fails.
//!
//! An increment is counted again with its request id where it had no answer (P9).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/kept.rs"]
mod kept;
#[path = "support/node.rs"]
mod node;
#[path = "support/stored.rs"]
mod stored;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use kept::{Kept, cache_of, flushed, numbers};
use larder::api::v1::admin_client::AdminClient;
use larder::api::v1::cache_client::CacheClient;
use larder::api::v1::*;
use larder::engine::Record;
use larder::persistence::failpoint::Failpoint;
use larder::persistence::replay::{From, replay};
use larder::persistence::{FileId, FileKind, MemoryBackend, record};
use node::*;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use stored::Ledger;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

const WRITERS: usize = 2;
const SIGKILL: i32 = 9;

/// Which pass of a failpoint the node dies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    First,
    Later,
}

/// Whether a start passes here once, and nobody else does.
fn is_once_a_start(point: Failpoint) -> bool {
    point.name().starts_with("recovery-") && point != Failpoint::RECOVERY_REPLAYED || is_of_takeover(point)
}

/// Whether only a node passes here whose directory another backend had.
fn is_of_takeover(point: Failpoint) -> bool {
    point.name().starts_with("takeover-")
}

/// Whether it is passed with every batch of the journal, or more often.
fn is_often_passed(point: Failpoint) -> bool {
    let by_batch = [
        Failpoint::JOURNAL_DRAINED,
        Failpoint::JOURNAL_APPENDED,
        Failpoint::JOURNAL_SYNCED,
        Failpoint::JOURNAL_MARKED,
        Failpoint::FILE_TORN,
    ];
    by_batch.contains(&point)
}

/// A counter whose increments are asked for until they are answered.
#[derive(Debug, Default)]
struct Counter {
    answered: AtomicI64,
}

impl Counter {
    async fn count(self: Arc<Self>, mut cache: CacheClient<Channel>) {
        loop {
            let answered = self.answered.load(Ordering::Relaxed);
            let request = IncrementRequest {
                request_id: format!("request {answered}"),
                durability: Durability::Flushed as i32,
                ..increment("counter", 1)
            };
            match cache.increment(request).await {
                Ok(done) => assert_eq!(done.into_inner().value, answered + 1, "it is done once"),
                Err(_) => return,
            }
            self.answered.store(answered + 1, Ordering::Relaxed);
        }
    }

    /// The one that has no answer may have been done.
    async fn judge(&self, cache: &mut CacheClient<Channel>) {
        let answered = self.answered.load(Ordering::Relaxed);
        let found = found(cache.get(get("counter")).await.unwrap().into_inner());
        let value = found.map_or(0, |hit| String::from_utf8(hit.value.to_vec()).unwrap().parse().unwrap());
        assert!(
            [answered, answered + 1].contains(&value),
            "the counter is {value}, and {answered} were done"
        );
    }
}

/// A data directory, and what clients were told of it.
struct Stand {
    directory: tempfile::TempDir,
    backend: &'static str,
    mode: &'static str,
    kept: Arc<Kept>,
    ledger: Arc<Ledger>,
    counter: Arc<Counter>,
    random: StdRng,
}

impl Stand {
    fn new(backend: &'static str, mode: &'static str, seed: u64) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            backend,
            mode,
            kept: Arc::default(),
            ledger: Arc::default(),
            counter: Arc::default(),
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// A node, or how it ended before it was ready.
    fn start(&self, armed: &str) -> Result<Process, ExitStatus> {
        let directory = self.directory.path().to_str().unwrap();
        let flags = ["--data-dir", directory, "--backend", self.backend, "--persistence", self.mode];
        // A store reads what it has from disk, and serves before it has looked at all of it.
        let store = ["--memory", "2MiB", "--max-value", "16KiB", "--recovery", "lazy"];
        let more = if self.mode == "store" { &store[..] } else { &["--memory", "64MiB"] };
        Process::start_armed(&[&flags, more].concat(), armed).map_err(|(status, stderr)| {
            assert_eq!(status.signal(), Some(SIGKILL), "{armed}: {stderr}");
            status
        })
    }

    /// Dies in a pass of a failpoint, and comes back.
    async fn dies_at(&mut self, point: Failpoint, pass: Pass) {
        let nth: u64 = match pass {
            Pass::Later if is_often_passed(point) => self.random.random_range(2..30),
            Pass::Later if !is_once_a_start(point) => self.random.random_range(2..4),
            _ => 1,
        };
        if point.name().starts_with("recovery-") {
            self.leaves_something_to_recover().await;
        }
        if is_of_takeover(point) {
            self.leaves_something_to_recover().await;
            self.backend = if self.backend == "sled" { "files" } else { "sled" };
        }
        // At once, or late enough for answers that are given too soon.
        let action = if pass == Pass::First { "return" } else { "return(5)" };
        let armed = format!("{}={}*off->{action}", point.name(), nth - 1);
        println!("{} {}: {armed}", self.backend, self.mode);
        let status = match self.start(&armed) {
            Ok(process) => self.works(process).await,
            Err(status) => status,
        };
        assert_eq!(status.signal(), Some(SIGKILL), "{armed}");
        let batched = last_batched(self.directory.path(), &self.kept.buffered_prefix());
        let process = self.start("").unwrap();
        self.judge(&process, batched).await;
        kills(process);
    }

    /// A snapshot, and batches behind it.
    async fn leaves_something_to_recover(&self) {
        let process = self.start("").unwrap();
        let mut admin = AdminClient::new(channel(&process.ready.admin));
        admin.create_snapshot(CreateSnapshotRequest {}).await.unwrap();
        let mut cache = cache_of(&process).await;
        for n in 0..4 {
            cache.set(flushed(set("behind", n.to_string()))).await.unwrap();
        }
        kills(process);
    }

    /// Works until the node is gone; how it ended.
    async fn works(&mut self, process: Process) -> ExitStatus {
        let cache = || CacheClient::new(channel(&process.ready.data[0]));
        // What was judged is of no use any more, and would have to be recovered each time.
        let scope = Some(invalidate_request::Scope::Prefix("buffered:".into()));
        let _ = cache().invalidate(InvalidateRequest { scope, ..InvalidateRequest::default() }).await;
        self.kept.next_round();
        let begin = self.kept.begin();
        let mut clients = Vec::new();
        for writer in 0..WRITERS {
            clients.push(tokio::spawn(Arc::clone(&self.kept).write(cache(), writer, begin)));
        }
        clients.push(tokio::spawn(Arc::clone(&self.kept).write_buffered(cache())));
        clients.push(tokio::spawn(Arc::clone(&self.kept).write_and_delete(cache())));
        clients.push(tokio::spawn(Arc::clone(&self.counter).count(cache())));
        let (ledger, steps) = (Arc::clone(&self.ledger), Arc::new(watch::Sender::new(0)));
        clients.push(tokio::spawn(stored::change(cache(), 0, self.random.random(), ledger, steps)));
        clients.push(tokio::spawn(look_after(AdminClient::new(channel(&process.ready.admin)))));
        for client in clients {
            tokio::time::timeout(LONG, client).await.expect("the failpoint is never reached").unwrap();
        }
        process.ended().0
    }

    async fn judge(&self, process: &Process, batched: Option<u64>) {
        let mut cache = cache_of(process).await;
        self.kept.judge(&mut cache).await;
        self.counter.judge(&mut cache).await;
        stored::judge(&mut cache, &self.ledger, self.directory.path()).await;
        if let Some(last) = batched {
            let found = numbers(&mut cache, &self.kept.buffered_prefix()).await.last().copied();
            assert_eq!(found, Some(last), "a batch is there in part, or more than the journal has");
        }
        let mut admin = AdminClient::new(channel(&process.ready.admin));
        let verified = admin.verify_recovery(VerifyRecoveryRequest::default()).await;
        assert_eq!(verified.unwrap().into_inner().damages_total, 0);
        let set_aside = std::fs::read_dir(self.directory.path().join("quarantine")).unwrap().count();
        assert_eq!(set_aside, 0, "something was damaged");
    }
}

/// A connection that is made when it is used: the node may be gone before.
fn channel(authority: &str) -> Channel {
    Endpoint::from_shared(format!("http://{authority}")).unwrap().connect_lazy()
}

fn kills(process: Process) {
    let killed = Command::new("kill").args(["-KILL", &process.id().to_string()]).status().unwrap();
    assert!(killed.success());
    process.ended();
}

/// Takes snapshots and compacts until the node is gone.
async fn look_after(mut admin: AdminClient<Channel>) {
    let is_gone = |status: Status| {
        assert!([Code::Unknown, Code::Unavailable, Code::Cancelled].contains(&status.code()), "{status:?}");
    };
    loop {
        for _ in 0..2 {
            if let Err(status) = admin.create_snapshot(CreateSnapshotRequest {}).await {
                return is_gone(status);
            }
        }
        if let Err(status) = admin.compact_journal(CompactJournalRequest {}).await {
            return is_gone(status);
        }
    }
}

/// The highest number of a key with this prefix in the batches that a dead node's journal has whole.
fn last_batched(directory: &Path, prefix: &str) -> Option<u64> {
    let journal = MemoryBackend::new();
    for entry in std::fs::read_dir(directory.join("journal")).unwrap() {
        let path = entry.unwrap().path();
        let number = u64::from_str_radix(path.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
        journal.put_content(FileId { kind: FileKind::Journal, number }, std::fs::read(path).unwrap());
    }
    let mut last = None;
    let mut visit = |record: &Record<'_>| {
        if let Record::Put(put) = record
            && let Some(number) = std::str::from_utf8(put.key).unwrap().strip_prefix(prefix)
        {
            last = last.max(Some(number.parse().unwrap()));
        }
    };
    let end = replay(&journal, None, From::First, &mut |_, _, body| {
        record::read(body, &mut visit).unwrap();
        Ok(())
    });
    assert_eq!(end.unwrap().damage, None);
    last
}

async fn dies_at_every_failpoint(backend: &'static str, mode: &'static str, pass: Pass) {
    let seed: u64 = rand::random();
    println!("seed {seed}, backend {backend}, mode {mode}");
    let mut stand = Stand::new(backend, mode, seed);
    let mut points = Failpoint::ALL.to_vec();
    points.shuffle(&mut stand.random);
    for point in points {
        stand.dies_at(point, pass).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_on_sled_comes_back_whole_wherever_it_dies() {
    dies_at_every_failpoint("sled", "journal+snapshot", Pass::First).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_on_files_comes_back_whole_wherever_it_dies_later_on() {
    dies_at_every_failpoint("files", "journal+snapshot", Pass::Later).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_store_comes_back_whole_wherever_it_dies() {
    dies_at_every_failpoint("files", "store", Pass::First).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_store_comes_back_whole_wherever_it_dies_later_on() {
    dies_at_every_failpoint("sled", "store", Pass::Later).await;
}
