//! Cache.Pipeline over entries that lie on disk: what has to wait for it waits alone, in order, bounded.
//!
//! The test's disk holds back every read until the test releases it.

use crate::support::opened;
use std::sync::Arc;
use std::time::Duration;

use crate::support::collector::{Collector, parent, status, traceparent};
use crate::support::held::Held;
use crate::support::node::*;
use crate::support::stream::*;
use larder::cache::Cache;
use larder::engine::{self, Outcome, Set};
use larder::persistence::DirectoryLock;
use larder::persistence::recover::RecoveryProgress;
use larder::proto::v1::pipeline_command::Op;
use larder::proto::v1::pipeline_reply::Result as Reply;
use larder::proto::v1::*;
use tokio::runtime::Builder;
use tonic::Code;

/// As many commands as wait at a time.
const WAITING_MAX: usize = 16;
const KEYS: usize = 6_000;
const VALUE_BYTES: usize = 4 << 10;

/// A node with a store that is larger than its memory, on a disk that holds its readers.
struct Store {
    _release: Release,
    node: Node,
    calls: Calls,
    disk: Held,
    /// Keys that are on disk alone.
    cold: Vec<String>,
    _directory: tempfile::TempDir,
}

impl Store {
    async fn start() -> Self {
        Self::with(&[]).await
    }

    /// One with more flags of `larder serve`.
    async fn with(flags: &[&str]) -> Self {
        let node = Node::with(&[&["--memory", "16MiB", "--max-value", "128KiB"], flags].concat()).await;
        let (disk, directory) = (Held::default(), tempfile::tempdir().unwrap());
        let lock = DirectoryLock::take(directory.path()).unwrap();
        let (cache, opened, options) = (
            Arc::clone(node.running.cache()),
            Arc::new(disk.clone()),
            opened::options(directory.path(), true),
        );
        let fill = move || {
            cache.open_disk_on(opened, lock, &options, &RecoveryProgress::default()).unwrap();
            let value = vec![b'v'; VALUE_BYTES];
            for key in 0..KEYS {
                let name = format!("key:{key}");
                let set = engine::Op::Set(Set::new(name.as_bytes(), &value));
                let done = cache.apply(cache.engine().default_namespace(), &set, cache.now());
                assert!(matches!(done, Outcome::Stored(_)));
            }
            // So that a lookup waits for nothing but its read.
            cache.disk().unwrap().tier_reader().unwrap().arrived().unwrap();
        };
        tokio::task::spawn_blocking(fill).await.unwrap();
        let mut calls = Calls(node.cache().await);
        calls.set(set("warm", "w")).await.unwrap();
        let cold = (0..KEYS).map(|key| format!("key:{key}")).filter(|key| is_cold(node.running.cache(), key));
        let cold: Vec<String> = cold.collect();
        assert!(cold.len() > 100, "only {} keys are on disk alone", cold.len());
        disk.hold();
        Self { _release: Release(disk.clone()), node, calls, disk, cold, _directory: directory }
    }

    async fn stream(&mut self) -> Stream {
        Stream::open(&mut self.calls).await
    }

    /// Waits until `count` lookups are held.
    async fn held(&self, count: usize) {
        soon(async {
            loop {
                match self.disk.readers() {
                    held if held == count => return,
                    held => assert!(held < count, "{held} lookups are held"),
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    fn is_cold(&self, key: &str) -> bool {
        is_cold(self.node.running.cache(), key)
    }
}

/// Lets the disk's readers go at the end: a runtime that ends waits for the threads that are held.
struct Release(Held);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

fn is_cold(cache: &Cache, key: &str) -> bool {
    cache.needs_load(cache.engine().default_namespace(), key.as_bytes())
}

fn ids(replies: &[PipelineReply]) -> Vec<u64> {
    replies.iter().map(|reply| reply.id).collect()
}

fn sorted(mut replies: Vec<PipelineReply>) -> Vec<PipelineReply> {
    replies.sort_by_key(|reply| reply.id);
    replies
}

fn cancel(id: u64) -> PipelineCommand {
    command(0, Op::Cancel(CancelRequest { id }))
}

/// A set that needs what is there: it keeps its time to live.
fn keeping(key: &str, value: impl AsRef<[u8]>) -> Op {
    let expiration = Some(set_request::Expiration::KeepTtl(true));
    Op::Set(SetRequest { expiration, ..set(key, value) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_the_disk_holds_up_neither_its_message_nor_the_next() {
    let mut store = Store::start().await;
    let mut stream = store.stream().await;
    let cold = store.cold[0].clone();
    stream.send(numbered([Op::Get(get("warm")), Op::Get(get(&cold)), Op::Set(set("n", "1"))])).await;
    assert_eq!(ids(&stream.replies(2).await), [0, 2]);
    stream.send(message([command(3, Op::Increment(increment("n", 1))), command(4, Op::Get(get("n")))])).await;
    let replies = stream.replies(2).await;
    assert_eq!(ids(&replies), [3, 4]);
    assert_eq!(value(replies[1].result.as_ref().unwrap()), Some("2".into()));
    store.held(1).await;
    store.disk.let_go();
    let replies = stream.replies(1).await;
    assert_eq!(replies[0].id, 1);
    let Some(Reply::Get(response)) = replies[0].result.clone() else { panic!("{replies:?}") };
    let hit = found(response).unwrap();
    assert_eq!((hit.value.len(), hit.tier()), (VALUE_BYTES, Tier::Disk));
    assert_eq!(stream.rest().await.1.code(), Code::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_on_a_key_that_waits_keep_their_order_behind_it() {
    let mut store = Store::start().await;
    let mut stream = store.stream().await;
    let (a, b) = (store.cold[0].clone(), store.cold[1].clone());
    let ops = [
        Op::Get(get(&a)),
        Op::Set(set(&a, "5")),
        Op::Increment(increment(&a, 1)),
        Op::Get(get("warm")),
        Op::Delete(delete(&b)),
        Op::Set(set(&b, "7")),
    ];
    stream.send(numbered(ops)).await;
    assert_eq!(ids(&stream.replies(1).await), [3]);
    let later = [Op::Decrement(decrement(&b, 4)), Op::Get(get(&a)), Op::Get(get(&b)), Op::Get(get("warm"))];
    stream.send(message(later.into_iter().zip(6..).map(|(op, id)| command(id, op)))).await;
    assert_eq!(ids(&stream.replies(1).await), [9]);
    store.held(2).await;
    assert!(store.is_cold(&a) && store.is_cold(&b), "nothing behind them was done");
    store.disk.let_go();
    let replies = stream.replies(8).await;
    for of_one_key in [[0, 1, 2, 7], [4, 5, 6, 8]] {
        let order: Vec<u64> = ids(&replies).into_iter().filter(|id| of_one_key.contains(id)).collect();
        assert_eq!(order, of_one_key);
    }
    let replies = sorted(replies);
    assert_eq!(value(replies[0].result.as_ref().unwrap()).unwrap().len(), VALUE_BYTES);
    assert!(matches!(&replies[2].result, Some(Reply::Increment(response)) if response.value == 6));
    assert!(matches!(&replies[3].result, Some(Reply::Delete(response)) if response.deleted));
    assert!(matches!(&replies[5].result, Some(Reply::Decrement(response)) if response.value == 3));
    assert_eq!(value(replies[6].result.as_ref().unwrap()), Some("6".into()));
    assert_eq!(value(replies[7].result.as_ref().unwrap()), Some("3".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_commands_wait_than_there_is_room_for() {
    let mut store = Store::start().await;
    let mut stream = store.stream().await;
    let cold = store.cold.clone();
    let gets = cold.iter().take(2 * WAITING_MAX).map(|key| Op::Get(get(key)));
    stream.send(numbered(gets.chain([Op::Get(get("warm"))]))).await;
    store.held(WAITING_MAX).await;
    // The one that finds no room holds up what is behind it.
    let quiet = tokio::time::timeout(Duration::from_millis(200), stream.replies.message()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    store.disk.let_go();
    let replies = stream.replies(2 * WAITING_MAX + 1).await;
    assert_eq!(ids(&sorted(replies)), (0..=2 * WAITING_MAX as u64).collect::<Vec<_>>());
    assert_eq!(store.disk.readers_max(), WAITING_MAX);
    // Each that waited is slow by itself.
    let slow =
        soon(store.node.admin().await.list_slow_ops(ListSlowOpsRequest {})).await.unwrap().into_inner();
    let is_first = |op: &&SlowOp| op.key == cold[0].as_bytes() && op.items == 1;
    let first = slow.ops.iter().find(is_first).unwrap();
    assert!(first.method == "Get" && first.elapsed_ms >= 200, "{first:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_bytes_wait_than_there_is_room_for() {
    let mut store = Store::start().await;
    let mut stream = store.stream().await;
    let cold = store.cold.clone();
    let sets = cold.iter().take(6).map(|key| keeping(key, vec![b'x'; 100 << 10]));
    stream.send(numbered(sets.chain([Op::Get(get("warm"))]))).await;
    // 256 KiB, and the one that reaches it.
    store.held(3).await;
    let quiet = tokio::time::timeout(Duration::from_millis(200), stream.replies.message()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    store.disk.let_go();
    let replies = sorted(stream.replies(7).await);
    assert!(replies[..6].iter().all(|reply| matches!(reply.result, Some(Reply::Set(_)))), "{replies:?}");
    assert_eq!(store.disk.readers_max(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_command_is_answered_at_once_and_not_done() {
    let mut store = Store::start().await;
    let mut stream = store.stream().await;
    let cold = store.cold.clone();
    let ops = [Op::Delete(delete(&cold[0])), keeping(&cold[1], "new"), Op::Get(get(&cold[1]))];
    stream.send(numbered(ops)).await;
    store.held(2).await;
    // One that looks on disk, and one that waits for another; the one that it waits for goes on.
    stream.send(message([cancel(0), cancel(2), cancel(7), command(3, Op::Get(get("warm")))])).await;
    let replies = stream.replies(3).await;
    assert_eq!(ids(&replies), [0, 2, 3]);
    for reply in &replies[..2] {
        assert_status(&error(reply.result.as_ref().unwrap()), Code::Cancelled, "CANCELLED", None);
    }
    // A command that was given up no longer delays the next one of its key.
    stream.send(message([command(4, Op::Touch(touch(&cold[0], 60_000)))])).await;
    store.held(3).await;
    store.disk.let_go();
    let replies = sorted(stream.replies(2).await);
    assert!(matches!(replies[0].result, Some(Reply::Set(_))));
    assert_eq!(replies[1].result, Some(Reply::Touch(TouchResponse { found: true })));
    assert_eq!(store.calls.value(&cold[0]).await.len(), VALUE_BYTES, "the delete was not done");
    assert_eq!(store.calls.value(&cold[1]).await, "new");
    // Too late: it has its reply, and there is no other.
    stream.send(message([cancel(4)])).await;
    let (rest, end) = stream.rest().await;
    assert_eq!((rest.len(), end.code()), (0, Code::Ok));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_were_given_up_count_until_the_disk_has_answered() {
    let mut store = Store::start().await;
    let mut stream = store.stream().await;
    let cold = store.cold.clone();
    let gets = |keys: &[String], from: u64| {
        let gets: Vec<_> = keys.iter().zip(from..).map(|(key, id)| command(id, Op::Get(get(key)))).collect();
        gets
    };
    stream.send(message(gets(&cold[..WAITING_MAX], 0))).await;
    store.held(WAITING_MAX).await;
    stream.send(message((0..WAITING_MAX as u64).map(cancel))).await;
    let replies = stream.replies(WAITING_MAX).await;
    assert!(replies.iter().all(|reply| error(reply.result.as_ref().unwrap()).code() == Code::Cancelled));
    stream.send(message(gets(&cold[WAITING_MAX..2 * WAITING_MAX], 100))).await;
    let quiet = tokio::time::timeout(Duration::from_millis(200), stream.replies.message()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    store.held(WAITING_MAX).await;
    store.disk.let_go();
    assert_eq!(sorted(stream.replies(WAITING_MAX).await)[0].id, 100);
    assert_eq!(store.disk.readers_max(), WAITING_MAX);
}

#[test]
fn commands_that_were_given_up_before_they_were_begun_make_room() {
    let runtime = Builder::new_multi_thread().worker_threads(2).max_blocking_threads(1).enable_all().build();
    runtime.unwrap().block_on(async {
        let mut store = Store::start().await;
        let mut stream = store.stream().await;
        let cold = store.cold.clone();
        let sets = cold.iter().take(3).map(|key| keeping(key, vec![b'x'; 100 << 10]));
        stream.send(numbered(sets)).await;
        store.held(1).await;
        stream.send(message((0..3).map(cancel))).await;
        assert_eq!(ids(&sorted(stream.replies(3).await)), [0, 1, 2]);
        // The load that was begun counts as a waiting command, so one fewer than `WAITING_MAX` more finds room.
        let gets = cold[3..].iter().take(WAITING_MAX - 1).map(|key| Op::Get(get(key)));
        stream.send(numbered(gets.chain([Op::Get(get("warm"))]))).await;
        assert_eq!(ids(&stream.replies(1).await), [WAITING_MAX as u64 - 1]);
        store.disk.let_go();
        let replies = stream.replies(WAITING_MAX - 1).await;
        assert_eq!(ids(&replies), (0..WAITING_MAX as u64 - 1).collect::<Vec<_>>(), "by one thread, in order");
        assert_eq!(store.disk.readers_max(), 1);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_time_ends_while_it_waits_is_answered_then_and_not_done() {
    let mut store = Store::start().await;
    let mut stream = store.stream().await;
    let cold = store.cold.clone();
    let timed = |id, timeout_ms, op| PipelineCommand { timeout_ms, ..command(id, op) };
    let commands = [
        timed(0, 3_600_000, Op::Get(get(&cold[1]))),
        timed(1, 60, Op::Delete(delete(&cold[0]))),
        timed(2, 40, Op::Delete(delete(&cold[1]))),
    ];
    stream.send(message(commands)).await;
    let replies = sorted(stream.replies(2).await);
    assert_eq!(ids(&replies), [1, 2]);
    for reply in &replies {
        let status = error(reply.result.as_ref().unwrap());
        assert_status(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED", None);
    }
    store.disk.let_go();
    let replies = stream.replies(1).await;
    assert_eq!(value(replies[0].result.as_ref().unwrap()).unwrap().len(), VALUE_BYTES);
    assert!(store.calls.get(&cold[0]).await.is_ok() && store.calls.get(&cold[1]).await.is_ok());
    assert_eq!(stream.rest().await.1.code(), Code::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_close_answers_what_waits_before_the_stream_ends() {
    let mut store = Store::start().await;
    let mut stream = store.stream().await;
    let cold = store.cold.clone();
    let count = 3 * WAITING_MAX;
    stream.send(numbered(cold.iter().take(count).map(|key| Op::Get(get(key))))).await;
    stream.half_close();
    store.held(WAITING_MAX).await;
    store.disk.let_go();
    let (replies, end) = stream.rest().await;
    assert_eq!((ids(&sorted(replies)), end.code()), ((0..count as u64).collect(), Code::Ok));
    // Also where the stream ends by an error.
    let mut stream = store.stream().await;
    store.disk.hold();
    stream.send(numbered([Op::Get(get(&cold[2 * count]))])).await;
    store.held(1).await;
    stream.send(numbered((0..10_001).map(|_| Op::Get(get("warm"))))).await;
    stream.half_close();
    let quiet = tokio::time::timeout(Duration::from_millis(200), stream.replies.message()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    store.disk.let_go();
    let (replies, end) = stream.rest().await;
    assert_eq!(replies.len(), 1);
    assert_status(&end, Code::ResourceExhausted, "BATCH_TOO_LONG", None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_answers_what_waits_and_ends_the_stream() {
    let mut store = Store::start().await;
    let mut stream = store.stream().await;
    let cold = store.cold[0].clone();
    stream.send(numbered([Op::Get(get(&cold)), Op::Get(get("warm"))])).await;
    assert_eq!(ids(&stream.replies(1).await), [1]);
    store.held(1).await;
    store.node.admin().await.drain(DrainRequest::default()).await.unwrap();
    store.disk.let_go();
    assert_eq!(ids(&stream.replies(1).await), [0]);
    assert_status(&stream.next().await.unwrap_err(), Code::Unavailable, "NOT_READY", None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_writes_that_waited_are_on_the_disk_when_they_are_answered() {
    let mut store = Store::start().await;
    let mut stream = store.stream().await;
    let cold = store.cold[0].clone();
    let flushed = DeleteRequest { durability: Durability::Flushed as i32, ..delete(&cold) };
    let syncs = store.disk.syncs();
    stream.send(numbered([Op::Delete(flushed), Op::Get(get("warm"))])).await;
    assert_eq!(ids(&stream.replies(1).await), [1]);
    store.held(1).await;
    store.disk.let_go();
    let replies = stream.replies(1).await;
    assert!(matches!(&replies[0].result, Some(Reply::Delete(response)) if response.deleted));
    assert!(store.disk.syncs() > syncs);
}

#[test]
fn writes_that_wait_for_the_journal_take_no_threads() {
    let runtime = Builder::new_multi_thread().worker_threads(2).max_blocking_threads(2).enable_all().build();
    runtime.unwrap().block_on(async {
        let mut store = Store::start().await;
        store.disk.let_go();
        let backlog = Arc::clone(store.node.running.cache().journal_backlog().unwrap());
        backlog.budget().set_bytes_max(0);
        let (mut stream, mut other) = (store.stream().await, store.stream().await);
        let cold = store.cold.clone();
        let late = PipelineCommand { timeout_ms: 300, ..command(9, keeping(&cold[9], "late")) };
        let sets = (0..4).map(|id| command(id, keeping(&cold[id as usize], "new")));
        stream.send(message(sets.chain([late]))).await;
        soon(async {
            while !backlog.is_waited_for() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        // What needs no room finds a thread, on another stream and on this one.
        for stream in [&mut other, &mut stream] {
            stream.send(message([command(7, Op::Get(get(&cold[7])))])).await;
            let replies = tokio::time::timeout(Duration::from_secs(4), stream.replies(1)).await.unwrap();
            assert_eq!(replies[0].id, 7);
        }
        let replies = stream.replies(1).await;
        assert_eq!(replies[0].id, 9);
        let status = error(replies[0].result.as_ref().unwrap());
        assert_status(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED", None);
        backlog.budget().set_bytes_max(64 << 20);
        // The next write tells the journal that there is room.
        store.calls.set(set("nudge", "n")).await.unwrap();
        let replies = sorted(stream.replies(4).await);
        assert_eq!(ids(&replies), [0, 1, 2, 3]);
        for (reply, key) in replies.iter().zip(&cold) {
            assert!(matches!(reply.result, Some(Reply::Set(_))), "{reply:?}");
            assert_eq!(store.calls.value(key).await, "new");
        }
        assert_eq!(store.calls.value(&cold[9]).await.len(), VALUE_BYTES);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_refuses_writes_that_wait_for_the_journal() {
    let mut store = Store::start().await;
    store.disk.let_go();
    let backlog = Arc::clone(store.node.running.cache().journal_backlog().unwrap());
    backlog.budget().set_bytes_max(0);
    let mut stream = store.stream().await;
    let cold = store.cold.clone();
    stream.send(numbered((0..WAITING_MAX + 1).map(|at| keeping(&cold[at], "new")))).await;
    soon(async {
        while !backlog.is_waited_for() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    store.node.admin().await.drain(DrainRequest::default()).await.unwrap();
    for reply in stream.replies(WAITING_MAX + 1).await {
        let status = error(&reply.result.unwrap());
        assert_status(&status, Code::ResourceExhausted, "JOURNAL_BACKLOG", None);
    }
    assert_status(&stream.next().await.unwrap_err(), Code::Unavailable, "NOT_READY", None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_span_of_a_command_that_waits_lasts_until_it_is_answered() {
    const HELD: Duration = Duration::from_millis(50);
    let collector = Collector::start().await;
    let mut store = Store::with(&["--otlp", &collector.url]).await;
    let mut stream = store.stream().await;
    let cold = store.cold.clone();
    let traced = |span, op| PipelineCommand { traceparent: traceparent(span, true), ..command(span, op) };
    let flushed = SetRequest { durability: Durability::Flushed as i32, ..set(&cold[0], "5") };
    // Three wait in turn for one key; with the others they take all the room that there is, and one more is tried again
    // when there is some.
    let waiting = [
        traced(100, Op::Get(get(&cold[0]))),
        traced(101, Op::Set(flushed)),
        traced(102, Op::Get(get(&cold[0]))),
        traced(103, Op::Get(get(&cold[1]))),
    ];
    let others = (4..WAITING_MAX).map(|at| command(at as u64, Op::Get(get(&cold[at]))));
    let held = traced(104, Op::Get(get(&cold[WAITING_MAX])));
    stream.send(message(waiting.into_iter().chain(others))).await;
    store.held(WAITING_MAX - 2).await;
    stream.send(message([held, traced(105, Op::Get(get("warm")))])).await;
    tokio::time::sleep(HELD).await;
    store.disk.let_go();
    let replies = stream.replies(WAITING_MAX + 2).await;
    assert!(!replies.iter().any(|reply| matches!(reply.result, Some(Reply::Error(_)))), "{replies:?}");

    // A write that waits for the journal's backlog, and is tried again.
    let backlog = Arc::clone(store.node.running.cache().journal_backlog().unwrap());
    backlog.budget().set_bytes_max(0);
    stream.send(message([traced(106, Op::Set(set("warm", "new")))])).await;
    soon(async {
        while !backlog.is_waited_for() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    tokio::time::sleep(HELD).await;
    backlog.budget().set_bytes_max(64 << 20);
    // The next write tells the journal that there is room.
    store.calls.set(set("nudge", "n")).await.unwrap();
    assert_eq!(ids(&stream.replies(1).await), [106]);
    // And those that are given up.
    store.disk.hold();
    let cold_now: Vec<&String> = cold.iter().filter(|key| store.is_cold(key)).take(2).collect();
    let late = PipelineCommand { timeout_ms: 50, ..traced(108, Op::Get(get(cold_now[1]))) };
    stream.send(message([traced(107, Op::Get(get(cold_now[0]))), late])).await;
    store.held(2).await;
    stream.send(message([cancel(107)])).await;
    assert_eq!(ids(&stream.replies(2).await), [107, 108]);
    store.disk.let_go();
    assert_eq!(stream.rest().await.1.code(), Code::Ok);
    store.node.admin().await.drain(DrainRequest::default()).await.unwrap();
    soon(store.node.running.stopped()).await;

    let mut spans = collector.spans();
    spans.sort_by_key(parent);
    let told: Vec<_> = spans.iter().map(|span| (parent(span), &*span.name, status(span))).collect();
    let expected = [
        (100, "larder.v1.Cache/Get", "OK"),
        (101, "larder.v1.Cache/Set", "OK"),
        (102, "larder.v1.Cache/Get", "OK"),
        (103, "larder.v1.Cache/Get", "OK"),
        (104, "larder.v1.Cache/Get", "OK"),
        (105, "larder.v1.Cache/Get", "OK"),
        (106, "larder.v1.Cache/Set", "OK"),
        (107, "larder.v1.Cache/Get", "CANCELLED"),
        (108, "larder.v1.Cache/Get", "DEADLINE_EXCEEDED"),
    ];
    assert_eq!(told, expected);
    for span in &spans {
        let lasted = Duration::from_nanos(span.end_time_unix_nano - span.start_time_unix_nano);
        let has_waited = ![105, 107].contains(&parent(span));
        assert!(!has_waited || lasted >= HELD - Duration::from_millis(1), "{lasted:?}: {span:?}");
    }
}
