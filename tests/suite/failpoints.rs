//! The real program dies at every failpoint, between any two steps of what must outlive that, and comes back.
//!
//! Clients set, delete, count and stream blobs while snapshots and compactions go on, until the armed failpoint is
//! reached. Then it is started without: FLUSHED writes are there (P1), buffered ones up to some point (P2), each of the
//! journal's batches whole or not at all (P4), and nothing is damaged (P6). A failpoint that is never reached fails.
//!
//! An increment is counted again with its request id where it had no answer (P9).
//!
//! Where snapshots are all that is kept, what is there is all that was done up to some operation: not an earlier one than
//! the newest snapshot had that was whole.

use crate::support::stored;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::support::history::{History, Least};
use crate::support::kept::{Kept, cache_of, flushed, numbers};
use crate::support::node::*;
use crate::support::stored::Ledger;
use larder::engine::Record;
use larder::persistence::failpoint::Failpoint;
use larder::persistence::replay::{ReplayFrom, replay};
use larder::persistence::{FileId, FileKind, MemoryBackend, record};
use larder::proto::v1::admin_client::AdminClient;
use larder::proto::v1::cache_client::CacheClient;
use larder::proto::v1::*;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

const WRITERS: usize = 2;
const SIGKILL: i32 = 9;
/// How far a history goes on between two snapshots.
const STEPS_BETWEEN: u64 = 5;

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

/// Whether the newest snapshot is whole at this failpoint, also if its caller never got an answer.
fn is_behind_a_snapshot(point: Failpoint) -> bool {
    let behind = [
        Failpoint::SNAPSHOT_SYNCED,
        Failpoint::SNAPSHOT_NOTED,
        Failpoint::SNAPSHOT_UNNOTED,
        Failpoint::SNAPSHOT_DELETED,
        Failpoint::COMPACTION_TAKEN,
    ];
    behind.contains(&point)
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
    /// What clients do where snapshots are all that is kept.
    histories: Vec<Arc<History>>,
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
            histories: (0..WRITERS).map(|n| Arc::new(History::new(format!("history {n}")))).collect(),
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
        if self.is_journaled() {
            let batched = last_batched(self.directory.path(), &self.kept.buffered_prefix());
            let process = self.start("").unwrap();
            self.judge_journaled(&process, batched).await;
            kills(process);
        } else {
            let process = self.start("").unwrap();
            let least = if is_behind_a_snapshot(point) { Least::Asked } else { Least::Told };
            self.judge_snapshots(&process, least).await;
            kills(process);
        }
    }

    fn is_journaled(&self) -> bool {
        self.mode != "snapshot"
    }

    /// A snapshot, and batches behind it.
    async fn leaves_something_to_recover(&self) {
        let process = self.start("").unwrap();
        let mut admin = AdminClient::new(channel(&process.ready.admin));
        admin.create_snapshot(CreateSnapshotRequest {}).await.unwrap();
        let mut cache = cache_of(&process).await;
        for n in 0..4 {
            let request = set("behind", n.to_string());
            cache.set(if self.is_journaled() { flushed(request) } else { request }).await.unwrap();
        }
        kills(process);
    }

    /// Works until the node is gone; how it ended.
    async fn works(&mut self, process: Process) -> ExitStatus {
        let cache = || CacheClient::new(channel(&process.ready.data[0]));
        let admin = AdminClient::new(channel(&process.ready.admin));
        let (ledger, steps) = (Arc::clone(&self.ledger), Arc::new(watch::Sender::new(0)));
        let mut clients = JoinSet::new();
        clients.spawn(stored::change(cache(), 0, self.random.random(), ledger, steps));
        if self.is_journaled() {
            clients.spawn(look_after(admin, Vec::new()));
            self.write_journaled(&mut clients, cache).await;
        } else {
            clients.spawn(look_after(admin, self.histories.clone()));
            for history in &self.histories {
                let (history, cache) = (Arc::clone(history), cache());
                clients.spawn(async move { history.write(cache).await });
            }
        }
        let next = async |clients: &mut JoinSet<()>| {
            tokio::time::timeout(LONG, clients.join_next()).await.expect("the failpoint is never reached")
        };
        while let Some(client) = next(&mut clients).await {
            client.unwrap();
        }
        process.ended().0
    }

    /// Clients that are promised what they were told.
    async fn write_journaled(&self, clients: &mut JoinSet<()>, cache: impl Fn() -> CacheClient<Channel>) {
        // What was judged is of no use any more, and would have to be recovered each time.
        let scope = Some(invalidate_request::Scope::Prefix("buffered:".into()));
        let _ = cache().invalidate(InvalidateRequest { scope, ..InvalidateRequest::default() }).await;
        self.kept.next_round();
        let begin = self.kept.begin();
        for writer in 0..WRITERS {
            clients.spawn(Arc::clone(&self.kept).write(cache(), writer, begin));
        }
        clients.spawn(Arc::clone(&self.kept).write_buffered(cache()));
        clients.spawn(Arc::clone(&self.kept).write_and_delete(cache()));
        clients.spawn(Arc::clone(&self.counter).count(cache()));
    }

    async fn judge_journaled(&self, process: &Process, batched: Option<u64>) {
        let mut cache = cache_of(process).await;
        self.kept.judge(&mut cache).await;
        self.counter.judge(&mut cache).await;
        if let Some(last) = batched {
            let found = numbers(&mut cache, &self.kept.buffered_prefix()).await.last().copied();
            assert_eq!(found, Some(last), "a batch is there in part, or more than the journal has");
        }
        self.judge_disk(process).await;
    }

    async fn judge_snapshots(&self, process: &Process, least: Least) {
        let mut cache = cache_of(process).await;
        for history in &self.histories {
            history.judge(&mut cache, least).await;
        }
        let mut admin = AdminClient::new(channel(&process.ready.admin));
        let listed = admin.list_snapshots(ListSnapshotsRequest {}).await.unwrap().into_inner().snapshots;
        let files = std::fs::read_dir(self.directory.path().join("snapshot")).unwrap().count();
        assert_eq!(files, listed.len(), "a half one is cleared away");
        self.judge_disk(process).await;
    }

    /// Blobs are kept in every mode, and nothing is ever damaged.
    async fn judge_disk(&self, process: &Process) {
        stored::judge(&mut cache_of(process).await, &self.ledger, self.directory.path()).await;
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

/// Takes snapshots and compacts until the node is gone. There are some steps of each history between any two.
async fn look_after(mut admin: AdminClient<Channel>, histories: Vec<Arc<History>>) {
    for nth in 1.. {
        for history in &histories {
            if !history.goes_on(STEPS_BETWEEN).await {
                return;
            }
        }
        histories.iter().for_each(|history| history.snapshot_asked());
        let taken = if nth % 3 == 0 {
            admin.compact_journal(CompactJournalRequest {}).await.map(drop)
        } else {
            admin.create_snapshot(CreateSnapshotRequest {}).await.map(drop)
        };
        if let Err(status) = taken {
            let is_gone = [Code::Unknown, Code::Unavailable, Code::Cancelled].contains(&status.code());
            assert!(is_gone, "{status:?}");
            return;
        }
        histories.iter().for_each(|history| history.snapshot_taken());
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
    let end = replay(&journal, None, ReplayFrom::First, &mut |_, _, body| {
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
    // Where snapshots are all that is kept, no start has a journal to replay, and nobody waits for a sync.
    let of_a_journal = [Failpoint::RECOVERY_REPLAYED, Failpoint::JOURNAL_RESERVED];
    points.retain(|point| stand.is_journaled() || !of_a_journal.contains(point));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_keeps_snapshots_alone_comes_back_with_the_newest_wherever_it_dies() {
    dies_at_every_failpoint("sled", "snapshot", Pass::First).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_keeps_snapshots_alone_comes_back_with_the_newest_wherever_it_dies_later_on() {
    dies_at_every_failpoint("files", "snapshot", Pass::Later).await;
}

/// What a start passes that goes over to snapshots alone, from a snapshot and a journal behind it.
const GOING_OVER: [Failpoint; 21] = [
    Failpoint::RECOVERY_LOADED,
    Failpoint::RECOVERY_REPLAYED,
    Failpoint::RECOVERY_APPLIED,
    Failpoint::RECOVERY_CLEARED,
    Failpoint::RECOVERY_SORTED,
    Failpoint::RECOVERY_JOURNALED,
    Failpoint::FILE_TORN,
    Failpoint::MARK_SYNCING,
    Failpoint::MARK_SYNCED,
    Failpoint::SNAPSHOT_CREATED,
    Failpoint::SNAPSHOT_HEAD,
    Failpoint::SNAPSHOT_ENTRIES,
    Failpoint::SNAPSHOT_ENDED,
    Failpoint::SNAPSHOT_SYNCED,
    Failpoint::SNAPSHOT_NOTED,
    Failpoint::CATALOGUE_WRITTEN,
    Failpoint::CATALOGUE_SYNCED,
    Failpoint::SEGMENT_ENDED,
    Failpoint::SEGMENT_CREATED,
    Failpoint::SEGMENT_FORGETTING,
    Failpoint::SEGMENT_FORGOTTEN,
];

/// Dies on its way from a journal to snapshots alone and on its way back, and has all that was flushed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_goes_over_to_snapshots_alone_and_back_loses_nothing_wherever_it_dies() {
    const JOURNALED: &str = "journal+snapshot";
    let mut stand = Stand::new("sled", JOURNALED, rand::random());
    stand.leaves_something_to_recover().await;
    for (n, point) in (0..).zip(GOING_OVER) {
        let armed = format!("{}=return", point.name());
        println!("{armed}");
        stand.mode = JOURNALED;
        let process = stand.start("").unwrap();
        let mut cache = cache_of(&process).await;
        assert_eq!(numbers(&mut cache, "over:").await, (0..n).collect::<Vec<_>>(), "back from snapshots");
        cache.set(flushed(set(format!("over:{n}"), "v"))).await.unwrap();
        kills(process);

        stand.mode = "snapshot";
        let status = stand.start(&armed).err().expect("the failpoint is never reached");
        assert_eq!(status.signal(), Some(SIGKILL), "{armed}");
        let process = stand.start("").unwrap();
        let found = numbers(&mut cache_of(&process).await, "over:").await;
        assert_eq!(found, (0..=n).collect::<Vec<_>>(), "gone over to snapshots");
        stand.judge_disk(&process).await;
        kills(process);

        // Not all of it is on the way back.
        stand.mode = JOURNALED;
        if let Ok(process) = stand.start(&armed) {
            kills(process);
        }
    }
}
