//! Writes that come faster than the disk takes them: they wait for room in the journal's backlog, in order, bounded, and
//! nothing else waits with them.
//!
//! The disk is one that holds whoever appends to a file until it is told to let go.

use crate::support::opened;
use std::sync::Arc;
use std::time::Duration;

use crate::support::held::Held;
use crate::support::node::*;
use crate::support::stream::*;
use larder::api::v1::pipeline_command::Op;
use larder::api::v1::pipeline_reply::Result as Reply;
use larder::api::v1::*;
use larder::persistence::DirectoryLock;
use larder::persistence::backend::memory::{Call, Fault, Refusal, Strikes};
use larder::persistence::recover::RecoveryProgress;
use tokio::task::JoinHandle;
use tonic::{Code, Response, Status};

/// What may be logged and not written.
const BACKLOG_BYTES: usize = 256 << 10;
/// What those that wait may hold.
const WAITING_BYTES: usize = 512 << 10;
const VALUE_BYTES: usize = 16 << 10;
/// Items of this many batches are more than the backlog takes.
const BATCH: usize = 20;

/// A node with a journal on a disk that takes nothing.
struct Stuck {
    node: Node,
    calls: Calls,
    disk: Held,
    /// Entries that were set before the backlog was full.
    filled: usize,
    _directory: tempfile::TempDir,
}

impl Stuck {
    async fn start() -> Self {
        Self::start_with("30s").await
    }

    /// Sets entries until one has no room; what waits longer than `timeout` is refused.
    async fn start_with(timeout: &str) -> Self {
        let node = Node::with(&["--memory", "64MiB", "--timeout", timeout]).await;
        let (disk, directory) = (Held::default(), tempfile::tempdir().unwrap());
        let lock = DirectoryLock::take(directory.path()).unwrap();
        let mut options = opened::options(directory.path(), false);
        options.disk.journal.backlog_bytes = BACKLOG_BYTES;
        options.disk.journal.waiting_bytes = WAITING_BYTES;
        let (cache, opened) = (Arc::clone(node.running.cache()), Arc::new(disk.clone()));
        let open = move || cache.open_disk_on(opened, lock, &options, &RecoveryProgress::default()).unwrap();
        tokio::task::spawn_blocking(open).await.unwrap();
        let mut calls = Calls(node.cache().await);
        calls.set(set("before", "v")).await.unwrap();
        disk.hold_appends();
        let mut stuck = Self { node, calls, disk, filled: 0, _directory: directory };
        while !stuck.is_full() {
            let key = format!("filled:{}", stuck.filled);
            stuck.calls.set(set(key, vec![b'f'; VALUE_BYTES])).await.unwrap();
            stuck.filled += 1;
        }
        assert!(stuck.filled * VALUE_BYTES <= 2 * BACKLOG_BYTES, "{} entries", stuck.filled);
        stuck
    }

    fn is_full(&self) -> bool {
        let backlog = self.node.running.cache().journal_backlog().unwrap();
        backlog.budget().is_used_up()
    }

    /// A Set that is under way.
    fn begin_set(&self, request: SetRequest) -> Begun<SetResponse> {
        let mut client = self.calls.0.clone();
        tokio::spawn(async move { client.set(request).await })
    }

    fn begin_batch(&self, keys: &[String], value: &[u8]) -> Begun<BatchSetResponse> {
        let mut client = self.calls.0.clone();
        let items = keys.iter().map(|key| set(key, value)).collect();
        tokio::spawn(async move { client.batch_set(BatchSetRequest { items, ..Default::default() }).await })
    }

    /// Waits until a write waits for its turn.
    async fn waiting_for_room(&self) {
        soon(async {
            while !self.node.running.cache().has_waiting_writes() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Waits until so many calls wait, for whatever.
    async fn waiting(&self, calls: u64) {
        soon(async {
            while metric(&self.node.metrics().await, "larder_requests_in_flight") != calls {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

impl Drop for Stuck {
    /// A node that ends waits for its journal.
    fn drop(&mut self) {
        self.disk.let_appends_go();
    }
}

type Begun<T> = JoinHandle<Result<Response<T>, Status>>;

async fn ended<T>(call: Begun<T>) -> Result<T, Status> {
    soon(call).await.unwrap().map(Response::into_inner)
}

fn keys(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{name}:{n}")).collect()
}

fn is_stored(result: &SetResult) -> bool {
    matches!(result.result, Some(set_result::Result::Response(_)))
}

#[tokio::test]
async fn writes_that_outrun_the_disk_wait_for_it_and_none_is_refused() {
    let mut stuck = Stuck::start().await;
    let batches: Vec<Vec<String>> = (0..4).map(|n| keys(&format!("batch{n}"), BATCH)).collect();
    let begun: Vec<_> = batches.iter().map(|keys| stuck.begin_batch(keys, &[b'b'; VALUE_BYTES])).collect();
    let single = stuck.begin_set(set("single", "s"));
    stuck.waiting(5).await;
    // What needs no room goes on, on the same connection.
    assert_eq!(stuck.calls.value("filled:0").await.len(), VALUE_BYTES);
    assert!(stuck.calls.get("single").await.is_err());
    stuck.disk.let_appends_go();
    for batch in begun {
        let results = ended(batch).await.unwrap().results;
        assert_eq!(results.len(), BATCH);
        assert!(results.iter().all(is_stored), "an item was refused");
    }
    ended(single).await.unwrap();
    for key in batches.iter().flatten() {
        assert_eq!(stuck.calls.value(key).await, vec![b'b'; VALUE_BYTES], "{key}");
    }
    assert_eq!(stuck.calls.value("single").await, "s");
    stuck.waiting(0).await;
    assert!(!stuck.node.running.cache().has_waiting_writes());
}

#[tokio::test]
async fn a_batch_goes_on_behind_the_items_that_it_has_done_and_does_none_twice() {
    let mut stuck = Stuck::start().await;
    stuck.disk.let_appends_go();
    soon(async {
        while stuck.is_full() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stuck.disk.hold_appends();
    // Some of the items have room, in whichever shard they are.
    let keys = keys("some", 60);
    let mut versions = stuck.calls.set(set("versions", "")).await.unwrap();
    let batch = stuck.begin_batch(&keys, &[b'b'; VALUE_BYTES]);
    stuck.waiting_for_room().await;
    assert!(stuck.calls.get("some:0").await.is_ok() && stuck.calls.get("some:59").await.is_err());
    // Deleted meanwhile, and not brought back by the batch.
    let gone = BatchDeleteRequest { keys: vec!["some:0".into(), "some:1".into()], ..Default::default() };
    let mut client = stuck.calls.0.clone();
    let deletes = tokio::spawn(async move { client.batch_delete(gone).await });
    stuck.waiting(2).await;
    stuck.disk.let_appends_go();
    for result in ended(batch).await.unwrap().results {
        let Some(set_result::Result::Response(response)) = result.result else { panic!("{result:?}") };
        let version = stored(response).unwrap();
        assert!(version > versions, "the items were done in their order");
        versions = version;
    }
    assert_eq!(ended(deletes).await.unwrap().deleted, [true, true]);
    assert!(stuck.calls.get("some:0").await.is_err() && stuck.calls.get("some:59").await.is_ok());
}

#[tokio::test]
async fn a_write_whose_deadline_comes_while_it_waits_changes_nothing() {
    let mut stuck = Stuck::start_with("300ms").await;
    let (single, batch) = (stuck.begin_set(set("late", "v")), stuck.begin_batch(&keys("late", 2), b"v"));
    assert_status(&ended(single).await.unwrap_err(), Code::DeadlineExceeded, "DEADLINE_EXCEEDED", None);
    assert_status(&ended(batch).await.unwrap_err(), Code::DeadlineExceeded, "DEADLINE_EXCEEDED", None);
    stuck.disk.let_appends_go();
    stuck.waiting(0).await;
    for key in ["late", "late:0", "late:1"] {
        assert!(stuck.calls.get(key).await.is_err(), "{key}");
    }
}

#[tokio::test]
async fn a_write_whose_caller_goes_while_it_waits_changes_nothing_and_holds_up_nobody() {
    let mut stuck = Stuck::start().await;
    let gone = stuck.begin_set(set("gone", "v"));
    stuck.waiting_for_room().await;
    gone.abort();
    stuck.waiting(0).await;
    assert!(!stuck.node.running.cache().has_waiting_writes());
    let kept = stuck.begin_set(set("kept", "v"));
    stuck.waiting_for_room().await;
    stuck.disk.let_appends_go();
    ended(kept).await.unwrap();
    assert!(stuck.calls.get("gone").await.is_err());
    assert_eq!(stuck.calls.value("kept").await, "v");
}

#[tokio::test]
async fn more_than_may_wait_are_refused_and_told_when_to_come_again() {
    let stuck = Stuck::start().await;
    let value = vec![b'w'; VALUE_BYTES];
    let count = WAITING_BYTES / VALUE_BYTES;
    let mut calls: Vec<_> =
        (0..count + 4).map(|n| stuck.begin_set(set(format!("waits:{n}"), &value))).collect();
    let refused = soon(async {
        loop {
            if let Some(at) = calls.iter().position(JoinHandle::is_finished) {
                return ended(calls.remove(at)).await.unwrap_err();
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_status(&refused, Code::ResourceExhausted, "JOURNAL_BACKLOG", None);
    stuck.disk.let_appends_go();
    let mut stored = 0;
    for call in calls {
        stored += usize::from(ended(call).await.is_ok());
    }
    // Each holds some bytes more than its value.
    assert!(stored + 2 >= count, "{stored} of {count}");
}

#[tokio::test]
async fn commands_of_a_stream_stay_in_their_order_while_one_waits_and_other_streams_go_on() {
    let mut stuck = Stuck::start().await;
    let (mut stream, mut other) =
        (Stream::open(&mut stuck.calls).await, Stream::open(&mut stuck.calls).await);
    let late = PipelineCommand { timeout_ms: 50, ..command(4, Op::Set(set("late", "v"))) };
    stream
        .send(message([
            command(0, Op::Get(get("before"))),
            command(1, Op::Set(set("order", "1"))),
            command(2, Op::Set(set("order", "2"))),
            command(3, Op::Get(get("order"))),
            late,
        ]))
        .await;
    assert_eq!(stream.replies(1).await[0].id, 0, "what was read before it is answered");
    assert_eq!(value(&other.done(vec![Op::Get(get("before"))]).await[0]).unwrap(), "v");
    tokio::time::sleep(Duration::from_millis(60)).await;
    stuck.disk.let_appends_go();
    let replies = stream.replies(4).await;
    assert_eq!(replies.iter().map(|reply| reply.id).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let results: Vec<Reply> = replies.into_iter().map(|reply| reply.result.unwrap()).collect();
    assert!(matches!(&results[..2], [Reply::Set(_), Reply::Set(_)]), "{results:?}");
    assert_eq!(value(&results[2]).unwrap(), "2");
    assert_eq!(error(&results[3]).code(), Code::DeadlineExceeded);
    assert!(stuck.calls.get("late").await.is_err());
}

#[tokio::test]
async fn a_command_is_refused_at_its_own_deadline_and_its_stream_goes_on() {
    let mut stuck = Stuck::start().await;
    let mut stream = Stream::open(&mut stuck.calls).await;
    let late = PipelineCommand { timeout_ms: 100, ..command(1, Op::Set(set("late", "v"))) };
    stream.send(message([late, command(2, Op::Get(get("before")))])).await;
    let replies = stream.replies(2).await;
    assert_eq!(error(replies[0].result.as_ref().unwrap()).code(), Code::DeadlineExceeded);
    assert_eq!(value(replies[1].result.as_ref().unwrap()).unwrap(), "v");
}

#[tokio::test]
async fn a_stream_that_waits_is_stopped_by_flow_control() {
    let mut stuck = Stuck::start().await;
    let mut stream = Stream::open(&mut stuck.calls).await;
    let send = stream.send.clone().unwrap();
    let value = vec![b'p'; 30 << 10];
    let mut sending = tokio::spawn(async move {
        for id in 0..200 {
            send.send(message([command(id, Op::Set(set(format!("flow:{id}"), &value)))])).await.unwrap();
        }
    });
    stuck.waiting_for_room().await;
    let all_sent = tokio::time::timeout(Duration::from_millis(300), &mut sending).await;
    assert!(all_sent.is_err(), "6 MB were taken from a client whose first command waits");
    stuck.disk.let_appends_go();
    let replies = stream.replies(200).await;
    assert!(replies.iter().all(|reply| matches!(reply.result, Some(Reply::Set(_)))));
    soon(sending).await.unwrap();
}

#[tokio::test]
async fn a_journal_that_is_poisoned_ends_the_waiting_with_that() {
    let mut stuck = Stuck::start().await;
    let single = stuck.begin_set(set("single", "v"));
    let batch = stuck.begin_batch(&keys("batch", 2), b"v");
    stuck.waiting(2).await;
    let mut stream = Stream::open(&mut stuck.calls).await;
    stream.send(message([command(1, Op::Set(set("stream", "v")))])).await;
    let fault =
        Fault { call: Some(Call::Append), passing: 0, refusal: Refusal::Io, strikes: Strikes::FromThenOn };
    stuck.disk.plan(fault);
    stuck.disk.let_appends_go();
    let status = ended(single).await.unwrap_err();
    assert_status(&status, Code::FailedPrecondition, "JOURNAL_POISONED", None);
    assert!(!ended(batch).await.unwrap().results.iter().any(is_stored));
    let reply = stream.replies(1).await.remove(0);
    assert_status(&error(&reply.result.unwrap()), Code::FailedPrecondition, "JOURNAL_POISONED", None);
}

#[tokio::test]
async fn a_listener_that_is_to_close_ends_the_waiting() {
    let mut stuck = Stuck::start().await;
    let single = stuck.begin_set(set("single", "v"));
    stuck.waiting(1).await;
    let stream = Stream::open(&mut stuck.calls).await;
    stream.send(message([command(1, Op::Set(set("stream", "v"))), command(2, Op::Get(get("before")))])).await;
    stuck.node.admin().await.drain(DrainRequest::default()).await.unwrap();
    let status = ended(single).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "JOURNAL_BACKLOG", None);
    let (replies, end) = stream.rest().await;
    let [refused, read] = &replies[..] else { panic!("{replies:?}") };
    assert_status(&error(refused.result.as_ref().unwrap()), Code::ResourceExhausted, "JOURNAL_BACKLOG", None);
    assert_eq!(value(read.result.as_ref().unwrap()).unwrap(), "v");
    assert_eq!(end.code(), Code::Unavailable);
}
