//! Writes that come faster than the disk takes them: they wait for room in the journal's backlog, in order, bounded, and
//! nothing else waits with them.
//!
//! The test's disk holds back every append to a file until the test releases it.

use std::sync::Arc;
use std::time::Duration;

use crate::support::node::*;
use crate::support::raw::{Raw, answer, frame, framed, post};
use crate::support::stream::*;
use crate::support::stuck::{BACKLOG_BYTES, Stuck, VALUE_BYTES, WAITING_BYTES, ended};
use bytes::Bytes;
use h2::client::ResponseFuture;
use larder::persistence::backend::memory::{Call, Fault, IoFault, Strikes};
use larder::proto::v1::pipeline_command::Op;
use larder::proto::v1::pipeline_reply::Result as Reply;
use larder::proto::v1::*;
use prost::Message;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

/// Items of this many batches are more than the backlog takes.
const BATCH: usize = 20;

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
    stuck.hold_appends_after("before").await;
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
        Fault { call: Some(Call::Append), passing: 0, refusal: IoFault::Io, strikes: Strikes::FromThenOn };
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

/// The replies in a body.
fn replies_in(body: &[u8]) -> Vec<PipelineReply> {
    let (mut rest, mut replies) = (body, Vec::new());
    while let Some((head, more)) = rest.split_at_checked(5) {
        let (message, more) = more.split_at(u32::from_be_bytes(head[1..].try_into().unwrap()) as usize);
        replies.extend(PipelineResponse::decode(message).unwrap().replies);
        rest = more;
    }
    replies
}

/// Reads a stream to its end, and says meanwhile when it has `bytes` of replies.
async fn read_whole(response: ResponseFuture, bytes: usize, has_come: Arc<Semaphore>) -> (Vec<u8>, Status) {
    let (_, mut stream) = soon(response).await.unwrap().into_parts();
    let (mut body, mut is_told) = (Vec::new(), false);
    while let Some(chunk) = soon(stream.data()).await {
        let chunk = chunk.unwrap();
        stream.flow_control().release_capacity(chunk.len()).unwrap();
        body.extend_from_slice(&chunk);
        if body.len() >= bytes && !std::mem::replace(&mut is_told, true) {
            has_come.add_permits(1);
        }
    }
    let trailers = soon(stream.trailers()).await.unwrap().unwrap();
    (body, Status::from_header_map(&trailers).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_frames_behind_a_write_that_waits_do_not_end_their_connection() {
    const STREAMS: usize = 4;
    const COMMANDS: u64 = 2_900;
    /// More than 1,000 replies that tell of an error.
    const REFUSED_BYTES: usize = 200 << 10;
    let mut stuck = Stuck::start().await;
    let raw = Raw::connect(&stuck.node.data()).await;
    let (mut streams, refused) = (Vec::new(), Arc::new(Semaphore::new(0)));
    for _ in 0..STREAMS {
        let (response, send) = raw.open(post("/larder.v1.Cache/Pipeline")).await;
        let whole = read_whole(response, REFUSED_BYTES, Arc::clone(&refused));
        streams.push((tokio::spawn(whole), send));
    }
    for id in 0..COMMANDS {
        for (_, send) in &mut streams {
            // Each is a frame of its own.
            send.send_data(framed(&message([command(id, Op::Set(set("small", "v")))])), false).unwrap();
        }
        if id % 50 == 0 {
            // The node has received what was sent before.
            assert_eq!(raw.cache("Get", framed(&get("before"))).await.status.unwrap().code(), Code::Ok);
        }
    }
    soon(refused.acquire_many(STREAMS as u32)).await.unwrap().forget();
    stuck.disk.let_appends_go();
    for (answer, mut send) in streams {
        send.send_data(framed(&message([command(COMMANDS, Op::Get(get("before")))])), true).unwrap();
        let (body, status) = soon(answer).await.unwrap();
        assert_eq!(status.code(), Code::Ok);
        let replies = replies_in(&body);
        let ids: Vec<u64> = replies.iter().map(|reply| reply.id).collect();
        assert_eq!(ids, (0..=COMMANDS).collect::<Vec<_>>());
        for reply in replies {
            let result = reply.result.unwrap();
            if let Reply::Error(_) = result {
                assert_status(&error(&result), Code::ResourceExhausted, "JOURNAL_BACKLOG", None);
            }
        }
    }
    assert_eq!(stuck.calls.value("small").await, "v");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_wait_leave_a_part_of_their_connections_window_to_others() {
    const STREAMS: u64 = 40;
    /// The calls whose frames fill three quarters of the connection's window.
    const WAITING: u64 = 24;
    let mut stuck = Stuck::start_as(&["--timeout", "30s"], 16 << 20).await;
    let mut streams = Vec::new();
    for n in 0..STREAMS {
        let mut stream = Stream::open(&mut stuck.calls).await;
        streams.push(tokio::spawn(async move {
            let send = stream.send.clone().unwrap();
            // Those behind the first fill the stream's window.
            let sending = async move {
                for id in 0..8 {
                    let value = vec![b'w'; if id == 0 { 1 } else { 30 << 10 }];
                    let command = command(id, Op::Set(set(format!("window:{n}:{id}"), &value)));
                    send.send(message([command])).await.unwrap();
                }
            };
            tokio::join!(sending, stream.replies(8)).1
        }));
    }
    // Those that may not wait are refused, one command at a time.
    let refused = STREAMS - WAITING;
    soon(async {
        while streams.iter().filter(|stream| stream.is_finished()).count() < refused as usize {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // What needs no room is read and answered.
    let long = BatchGetRequest { keys: vec![vec![b'k'; 4_000].into(); 30], ..BatchGetRequest::default() };
    soon(stuck.calls.0.batch_get(long)).await.unwrap();
    assert_eq!(streams.iter().filter(|stream| stream.is_finished()).count() as u64, refused);
    stuck.disk.let_appends_go();
    let mut stored = 0;
    for stream in streams {
        let replies = soon(stream).await.unwrap();
        let is_set = |reply: &PipelineReply| matches!(reply.result, Some(Reply::Set(_)));
        stored += u64::from(replies.iter().all(is_set));
        for reply in replies.iter().filter(|reply| !is_set(reply)) {
            let status = error(reply.result.as_ref().unwrap());
            assert_status(&status, Code::ResourceExhausted, "JOURNAL_BACKLOG", None);
        }
    }
    assert_eq!(stored, WAITING);
}

#[tokio::test]
async fn what_is_turned_away_for_those_that_wait_has_changed_nothing() {
    let mut stuck = Stuck::start_as(&["--timeout", "30s", "--max-in-flight", "1"], WAITING_BYTES).await;
    stuck.disk.let_appends_go();
    soon(async {
        while stuck.is_full() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let raw = Raw::connect(&stuck.node.data()).await;
    let header = BlobHeader { key: "kept".into(), ..BlobHeader::default() };
    let header = PutBlobRequest { part: Some(put_blob_request::Part::Header(header)) };
    stuck.calls.0.put_blob(tokio_stream::iter([header])).await.unwrap();
    stuck.hold_appends_after("before").await;
    stuck.fill().await;
    let waiting = stuck.begin_set(set("waits", "v"));
    stuck.waiting(1).await;
    let before = stuck.node.running.cache().stats().entries;
    let items = (0..1_000).map(|n| set(format!("{n}"), "v")).collect();
    let batch = framed(&BatchSetRequest { items, ..BatchSetRequest::default() });
    let delete = framed(&DeleteBlobRequest { key: "kept".into(), ..DeleteBlobRequest::default() });
    for (verb, request) in [("BatchSet", batch), ("DeleteBlob", delete.clone())] {
        let status = raw.cache(verb, request).await.status.unwrap();
        assert_status(&status, Code::ResourceExhausted, "OVERLOADED", None);
    }
    assert_eq!(stuck.node.running.cache().stats().entries, before);
    // Requests whose peers take their time are in nobody's way.
    let (slow, mut rest) = raw.open(post("/larder.v1.Cache/Get")).await;
    stuck.waiting(2).await;
    assert_eq!(stuck.calls.value("filled:0").await.len(), VALUE_BYTES);
    rest.send_data(framed(&get("filled:0")), true).unwrap();
    assert_eq!(answer(slow).await.status.unwrap().code(), Code::Ok);
    stuck.disk.let_appends_go();
    ended(waiting).await.unwrap();
    stuck.waiting(0).await;
    let deleted = raw.cache("DeleteBlob", delete).await;
    assert_eq!(deleted.status.unwrap().code(), Code::Ok);
    assert!(DeleteBlobResponse::decode(&deleted.body[5..]).unwrap().deleted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_has_begun_is_not_turned_away_for_those_that_wait() {
    const ITEMS: usize = 5;
    let flags = ["--timeout", "30s", "--max-in-flight", "1", "--shards", "16"];
    let stuck = Stuck::start_as(&flags, WAITING_BYTES).await;
    let raw = Raw::connect(&stuck.node.data()).await;
    let (first, mut body) = raw.open(post("/larder.v1.Cache/Get")).await;
    stuck.waiting(1).await;
    let items: Vec<SetRequest> = (0..ITEMS).map(|n| set(format!("begun:{n}"), vec![b'b'; 2_500])).collect();
    let batch = framed(&BatchSetRequest { items, ..BatchSetRequest::default() });
    let entries = |stuck: &Stuck| stuck.node.running.cache().stats().entries;
    let before = entries(&stuck);
    let mut begun = None;
    soon(async {
        while begun.is_none() {
            stuck.make_some_room();
            let (response, mut send) = raw.open(post("/larder.v1.Cache/BatchSet")).await;
            // Where it is turned away before, nothing can be sent any more.
            let _ = send.send_data(batch.clone(), true);
            let answered = tokio::spawn(answer(response));
            while !answered.is_finished() && !stuck.node.running.cache().has_waiting_writes() {
                tokio::task::yield_now().await;
            }
            if !answered.is_finished() {
                begun = Some(answered);
                continue;
            }
            // It came in two parts, and was turned away between them.
            let status = answered.await.unwrap().status.unwrap();
            assert_status(&status, Code::ResourceExhausted, "OVERLOADED", None);
            assert_eq!(entries(&stuck), before, "it had begun");
        }
    })
    .await;
    assert!((1..ITEMS as u64).contains(&(entries(&stuck) - before)));
    stuck.waiting(2).await;
    stuck.budget().set_bytes_max(BACKLOG_BYTES);
    stuck.disk.let_appends_go();
    let answered = soon(begun.unwrap()).await.unwrap();
    assert_eq!(answered.status.unwrap().code(), Code::Ok);
    let response = BatchSetResponse::decode(&answered.body[5..]).unwrap();
    assert_eq!(response.results.len(), ITEMS);
    assert!(response.results.iter().all(is_stored));
    body.send_data(framed(&get("before")), true).unwrap();
    assert_eq!(answer(first).await.status.unwrap().code(), Code::Ok);
}

#[tokio::test]
async fn deletes_that_are_broken_off_say_how_many_were_done() {
    const KEYS: usize = 100;
    let mut stuck = Stuck::start_as(&["--timeout", "30s", "--shards", "1"], WAITING_BYTES).await;
    stuck.disk.let_appends_go();
    // So long that a shard counts some of them at a time.
    let keys: Vec<Bytes> = (0..KEYS).map(|n| format!("{n}:{}", "k".repeat(4_000)).into()).collect();
    for key in &keys {
        stuck.calls.set(set(key, "v")).await.unwrap();
    }
    stuck.hold_appends_after("before").await;
    stuck.fill().await;
    stuck.make_some_room();
    let mut client = stuck.calls.0.clone();
    let request = BatchDeleteRequest { keys, ..BatchDeleteRequest::default() };
    let deletes = tokio::spawn(async move { client.batch_delete(request).await });
    stuck.waiting_for_room().await;
    stuck.node.admin().await.drain(DrainRequest::default()).await.unwrap();
    let status = ended(deletes).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "JOURNAL_BACKLOG", None);
    let done: usize = status.message().split(' ').next().unwrap().parse().unwrap();
    assert!((1..KEYS).contains(&done) && status.message().contains("of 100 keys"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_client_does_not_read_does_not_keep_its_turn() {
    let mut stuck = Stuck::start().await;
    // Behind its write are more answers than the client's window takes, in a message that is longer than the backlog.
    let raw = Raw::connect(&stuck.node.data()).await;
    let mut commands = vec![command(0, Op::Set(set("unread", "v")))];
    commands.extend((1..9_000).map(|id| command(id, Op::Get(get("filled:0000000000000000000000000")))));
    commands.extend((1..40).map(|id| command(id, Op::Get(get("filled:0")))));
    commands.push(command(0, Op::Set(set("unread", "w"))));
    let whole = message(commands).encode_to_vec();
    assert!(whole.len() > BACKLOG_BYTES, "{} bytes", whole.len());
    let (response, mut send) = raw.open(post("/larder.v1.Cache/Pipeline")).await;
    send.send_data(frame(0, whole.len(), &whole), true).unwrap();
    let unread = soon(response).await.unwrap();
    stuck.waiting_for_room().await;
    let single = stuck.begin_set(set("single", "v"));
    stuck.waiting(1).await;
    stuck.disk.let_appends_go();
    let stored = tokio::time::timeout(Duration::from_secs(5), single).await;
    assert!(stored.expect("its turn comes").unwrap().is_ok());
    assert_eq!(stuck.calls.value("single").await, "v");
    drop(unread);
}
