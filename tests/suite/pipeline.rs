//! Cache.Pipeline: order, replies, errors of single commands, ends of the stream, and flow control.

use std::time::Duration;

use crate::support::collector::{Collector, parent, status, traceparent};
use crate::support::node::*;
use crate::support::raw::{Raw, frame, framed};
use crate::support::stream::*;
use larder::clock::monotonic;
use larder::proto::google::rpc;
use larder::proto::v1::pipeline_command::Op;
use larder::proto::v1::pipeline_reply::Result as Reply;
use larder::proto::v1::*;
use prost::Message;
use tonic::Code;

async fn start() -> (Node, Calls) {
    let node = Node::start().await;
    let calls = Calls(node.cache().await);
    (node, calls)
}

#[tokio::test]
async fn every_op_has_a_reply_of_its_kind_in_order() {
    let (_node, mut calls) = start().await;
    let mut stream = Stream::open(&mut calls).await;
    let replies = stream
        .done(vec![
            Op::Get(get("k")),
            Op::Set(set("k", "10")),
            Op::Get(get("k")),
            Op::Increment(increment("k", 5)),
            Op::Decrement(decrement("k", 1)),
            Op::Get(get("k")),
            Op::Touch(touch("k", 3_600_000)),
            Op::Touch(touch("none", 1)),
            Op::Delete(delete("k")),
            Op::Delete(delete("k")),
            Op::Get(get("k")),
        ])
        .await;
    assert_eq!(value(&replies[0]), None);
    assert!(matches!(&replies[1], Reply::Set(response) if stored(*response).unwrap() > 0));
    assert_eq!(value(&replies[2]), Some("10".into()));
    assert!(matches!(&replies[3], Reply::Increment(response) if response.value == 15));
    assert!(matches!(&replies[4], Reply::Decrement(response) if response.value == 14));
    assert_eq!(value(&replies[5]), Some("14".into()));
    assert_eq!(replies[6], Reply::Touch(TouchResponse { found: true }));
    assert_eq!(replies[7], Reply::Touch(TouchResponse { found: false }));
    assert_eq!(replies[8], Reply::Delete(DeleteResponse { deleted: true, current_version: 0 }));
    assert_eq!(replies[9], Reply::Delete(DeleteResponse::default()));
    let Reply::Get(last) = &replies[10] else { panic!() };
    assert_eq!(found(last.clone()), Err(MissReason::Deleted));
    let (rest, end) = stream.rest().await;
    assert_eq!((rest.len(), end.code()), (0, Code::Ok));
}

#[tokio::test]
async fn effects_on_one_key_follow_the_order_of_its_commands_over_many_messages() {
    let (_node, mut calls) = start().await;
    let mut stream = Stream::open(&mut calls).await;
    let (sender, mut model) = (stream.send.take().unwrap(), Vec::new());
    let mut messages = Vec::new();
    let mut counters = [0i64; 7];
    let mut id = 0;
    for round in 0..100u64 {
        let mut commands = Vec::new();
        for step in 0..(round % 40) {
            let key = (round * 31 + step * 17) % 7;
            counters[key as usize] += step as i64 + 1;
            commands.push(command(id, Op::Increment(increment([key as u8], step as i64 + 1))));
            commands.push(command(id + 1, Op::Get(get([key as u8]))));
            model.push((id, counters[key as usize]));
            model.push((id + 1, counters[key as usize]));
            id += 2;
        }
        messages.push(message(commands));
    }
    let writer = tokio::spawn(async move {
        for message in messages {
            sender.send(message).await.unwrap();
        }
    });
    let replies = stream.replies(model.len()).await;
    for (reply, (id, expected)) in replies.into_iter().zip(model) {
        let found = match reply.result.unwrap() {
            Reply::Increment(response) => response.value,
            get => std::str::from_utf8(&value(&get).unwrap()).unwrap().parse().unwrap(),
        };
        assert_eq!((reply.id, found), (id, expected));
    }
    soon(writer).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), None);
}

#[tokio::test]
async fn ids_are_the_callers_own() {
    let (_node, mut calls) = start().await;
    let mut stream = Stream::open(&mut calls).await;
    let ids = [7, u64::MAX, 0, 7, 1 << 40];
    stream.send(message(ids.map(|id| command(id, Op::Get(get("k")))))).await;
    let replies = stream.replies(5).await;
    assert_eq!(replies.iter().map(|reply| reply.id).collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn what_is_wrong_with_one_command_is_its_reply_and_the_others_go_on() {
    let (_node, mut calls) = start().await;
    let mut stream = Stream::open(&mut calls).await;
    calls.set(set("text", "ten")).await.unwrap();
    calls.set(set("max", i64::MAX.to_string())).await.unwrap();
    let replies = stream
        .done(vec![
            Op::Get(get("")),
            Op::Set(set([b'k'; 4_097], "v")),
            Op::Increment(increment("text", 1)),
            Op::Increment(increment("max", 1)),
            Op::Get(GetRequest { lease_ms: 1, ..get("k") }),
            Op::Set(SetRequest { soft_ttl_ms: 1, ..set("k", "v") }),
            Op::Set(set("k", vec![0; (1 << 20) + 1])),
            Op::Get(GetRequest { namespace: "other".into(), ..get("k") }),
            Op::Touch(touch("k", u64::MAX)),
            Op::Set(set("good", "v")),
            Op::Get(get("k")),
        ])
        .await;
    use Code::*;
    for (at, code, reason, field) in [
        (0, InvalidArgument, "KEY_EMPTY", Some("key")),
        (1, InvalidArgument, "KEY_TOO_LONG", Some("key")),
        (2, FailedPrecondition, "NOT_AN_INTEGER", None),
        (3, OutOfRange, "COUNTER_OVERFLOW", None),
        (4, Unimplemented, "NOT_SERVED", None),
        (5, Unimplemented, "NOT_SERVED", None),
        (6, ResourceExhausted, "VALUE_TOO_LARGE", None),
        (7, NotFound, "NAMESPACE_NOT_FOUND", None),
        (8, InvalidArgument, "TTL_TOO_LONG", Some("ttl_ms")),
    ] {
        assert_status(&error(&replies[at]), code, reason, field);
    }
    assert!(matches!(replies[9], Reply::Set(_)));
    assert_eq!(value(&replies[10]), None, "what failed changed nothing");
    // No op, and one that this build does not know.
    stream.send(message([PipelineCommand { id: 9, ..Default::default() }])).await;
    let reply = stream.replies(1).await.remove(0);
    assert_eq!(reply.id, 9);
    assert_status(&error(&reply.result.unwrap()), InvalidArgument, "NO_OP", Some("op"));
    let (_, end) = stream.rest().await;
    assert_eq!(end.code(), Ok);
}

#[tokio::test]
async fn commands_sent_by_a_ring_are_refused_one_by_one_and_the_stream_goes_on() {
    let (node, mut calls) = start().await;
    let mut stream = Stream::open(&mut calls).await;
    calls.set(set("large", vec![1; 1 << 20])).await.unwrap();
    let cancel = Op::Cancel(CancelRequest { id: 0 });
    let ops = [Op::Set(set("k", "v")), cancel, Op::Get(get("large")), Op::Increment(increment("n", 1))];
    stream.send(PipelineRequest { ring_epoch: 7, ..numbered(ops) }).await;
    let replies = stream.replies(3).await;
    for (reply, id) in replies.into_iter().zip([0, 2, 3]) {
        assert_eq!(reply.id, id);
        assert_status(&error(&reply.result.unwrap()), Code::Unimplemented, "NOT_SERVED", None);
    }
    let replies = stream.done(vec![Op::Get(get("k")), Op::Get(get("n")), Op::Set(set("k", "w"))]).await;
    assert_eq!((value(&replies[0]), value(&replies[1])), (None, None), "what was refused was not done");
    let (_, end) = stream.rest().await;
    assert_eq!(end.code(), Code::Ok);
    // Behind commands that are done, it is too late to refuse them.
    let mut late = numbered([Op::Set(set("late", "v"))]).encode_to_vec();
    late.extend(PipelineRequest { ring_epoch: 7, commands: Vec::new() }.encode_to_vec());
    let raw = Raw::connect(&node.data()).await;
    let answer = raw.cache("Pipeline", frame(0, late.len(), &late)).await;
    assert_status(&answer.status.unwrap(), Code::InvalidArgument, "MALFORMED_MESSAGE", None);
}

#[tokio::test]
async fn a_cancel_has_no_reply_and_what_was_done_has_one() {
    let (_node, mut calls) = start().await;
    let stream = Stream::open(&mut calls).await;
    let cancel = |id| command(id, Op::Cancel(CancelRequest { id }));
    stream
        .send(message([
            command(1, Op::Set(set("k", "v"))),
            cancel(1),
            cancel(99),
            command(2, Op::Get(get("k"))),
        ]))
        .await;
    let (replies, end) = stream.rest().await;
    let ids: Vec<u64> = replies.iter().map(|reply| reply.id).collect();
    assert_eq!((ids, end.code()), (vec![1, 2], Code::Ok));
    assert_eq!(value(replies[1].result.as_ref().unwrap()), Some("v".into()));
}

#[tokio::test]
async fn a_half_close_ends_the_stream_when_all_is_answered() {
    let (_node, mut calls) = start().await;
    calls.set(set("large", vec![1; 1 << 20])).await.unwrap();
    let stream = Stream::open(&mut calls).await;
    for _ in 0..3 {
        stream.send(numbered((0..10).map(|_| Op::Get(get("large"))))).await;
    }
    let (replies, end) = stream.rest().await;
    assert_eq!((replies.len(), end.code()), (30, Code::Ok));
    assert!(replies.iter().all(|reply| value(reply.result.as_ref().unwrap()).unwrap().len() == 1 << 20));
    // With nothing asked at all, too, and with messages of nothing.
    let stream = Stream::open(&mut calls).await;
    stream.send(PipelineRequest::default()).await;
    let (replies, end) = stream.rest().await;
    assert_eq!((replies.len(), end.code()), (0, Code::Ok));
}

#[tokio::test]
async fn a_message_that_is_none_ends_the_stream_after_what_was_answered() {
    let (node, mut calls) = start().await;
    let raw = Raw::connect(&node.data()).await;
    let good = framed(&numbered([Op::Set(set("k", "v"))]));
    // A command whose inside ends too early, after one that is well.
    let mut bad_command = numbered([Op::Set(set("second", "v"))]).encode_to_vec();
    bad_command.extend_from_slice(b"\x12\x02\x22\x09");
    let bad_command = frame(0, bad_command.len(), &bad_command);
    for (what, bad, code, reason) in [
        ("rubbish", frame(0, 3, b"\xff\xff\xff"), Code::InvalidArgument, "MALFORMED_MESSAGE"),
        ("a bad command", bad_command, Code::InvalidArgument, "MALFORMED_MESSAGE"),
        ("a torn frame", frame(0, 10, b"abc"), Code::InvalidArgument, "MALFORMED_MESSAGE"),
        ("a flag of 7", frame(7, 0, b""), Code::InvalidArgument, "MALFORMED_MESSAGE"),
        ("compressed", frame(1, 3, b"abc"), Code::Internal, "COMPRESSED"),
        ("too long", frame(0, (4 << 20) + 1, b"abc"), Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
    ] {
        let body = [&good[..], &bad[..]].concat();
        let answer = raw.cache("Pipeline", body.into()).await;
        assert_status(&answer.status.unwrap(), code, reason, None);
        let len = u32::from_be_bytes(answer.body[1..5].try_into().unwrap()) as usize;
        let first = PipelineResponse::decode(&answer.body[5..5 + len]).unwrap();
        assert!(matches!(first.replies[0].result, Some(Reply::Set(_))), "{what}: the good one was answered");
    }
    assert!(calls.get("k").await.is_ok());
}

#[tokio::test]
async fn a_message_of_10_000_commands_is_answered_in_several() {
    let (_node, mut calls) = start().await;
    calls.set(set("k", vec![3; 1_000])).await.unwrap();
    let mut stream = Stream::open(&mut calls).await;
    stream.send(numbered((0..10_000).map(|_| Op::Get(get("k"))))).await;
    stream.half_close();
    let (mut next, mut messages) = (0, 0);
    while let Some(replies) = stream.next().await.unwrap() {
        messages += 1;
        // Stock clients receive at most 4 MiB.
        assert!(replies.iter().map(Message::encoded_len).sum::<usize>() < 4 << 20);
        for reply in replies {
            assert_eq!(reply.id, next);
            assert_eq!(value(&reply.result.unwrap()).unwrap().len(), 1_000);
            next += 1;
        }
    }
    assert_eq!(next, 10_000);
    assert!(messages > 3, "{messages} messages for 10 MB");
}

#[tokio::test]
async fn more_than_10_000_commands_in_a_message_end_the_stream_before_any_is_done() {
    let (_node, mut calls) = start().await;
    for count in [10_001, 100_000] {
        let stream = Stream::open(&mut calls).await;
        stream.send(numbered([Op::Set(set("before", "v"))])).await;
        stream.send(numbered((0..count).map(|_| Op::Increment(increment("k", 1))))).await;
        let (replies, end) = stream.rest().await;
        assert_eq!(replies.len(), 1);
        assert_status(&end, Code::ResourceExhausted, "BATCH_TOO_LONG", None);
        // No more are counted than tell that there are too many.
        assert!(end.message().contains("10001") && end.message().contains("10000"), "{end:?}");
        assert!(calls.get("k").await.is_err());
    }
}

#[tokio::test]
async fn the_callers_deadline_ends_the_stream() {
    let (_node, mut calls) = start().await;
    let mut stream = Stream::open_within(&mut calls, Some(Duration::from_millis(200))).await;
    let began = monotonic();
    let replies = stream.done(vec![Op::Set(set("k", "v"))]).await;
    assert!(matches!(replies[0], Reply::Set(_)));
    let status = stream.next().await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED", None);
    let took = began.elapsed();
    assert!((Duration::from_millis(150)..Duration::from_secs(10)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_stream_without_a_deadline_outlives_the_nodes_timeout() {
    let node = Node::with(&["--timeout", "50ms"]).await;
    let mut calls = Calls(node.cache().await);
    let mut stream = Stream::open(&mut calls).await;
    stream.done(vec![Op::Set(set("k", "v"))]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let replies = stream.done(vec![Op::Get(get("k"))]).await;
    assert_eq!(value(&replies[0]), Some("v".into()));
}

#[tokio::test]
async fn a_command_past_its_own_deadline_is_not_done() {
    let (_node, mut calls) = start().await;
    calls.set(set("large", vec![1; 1 << 20])).await.unwrap();
    let mut stream = Stream::open(&mut calls).await;
    // More than windows and buffers hold, so that the last command is not reached before somebody reads.
    let gets = (0..32).map(|id| command(id, Op::Get(get("large"))));
    let timed =
        |id, timeout_ms, key: &str| PipelineCommand { timeout_ms, ..command(id, Op::Set(set(key, "v"))) };
    stream.send(message(gets.chain([timed(32, 1, "late"), timed(33, 3_600_000, "patient")]))).await;
    let first = stream.next().await.unwrap().unwrap();
    // The first reply is here, so the message has arrived: its time runs.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let (rest, end) = stream.rest().await;
    assert_eq!((first.len() + rest.len(), end.code()), (34, Code::Ok));
    let [.., late, patient] = &rest[..] else { panic!() };
    assert_eq!((late.id, patient.id), (32, 33));
    let status = error(late.result.as_ref().unwrap());
    assert_status(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED", None);
    assert!(matches!(patient.result, Some(Reply::Set(_))));
    assert!(calls.get("late").await.is_err());
    assert!(calls.get("patient").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_writes_without_reading_is_stopped_by_flow_control() {
    let process = Process::start(&["--memory", "64MiB"]);
    let mut admin = larder::proto::v1::admin_client::AdminClient::new(connect(&process.ready.admin).await);
    let mut resident = async || {
        let stats = admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner();
        assert!(stats.resident_bytes > 0);
        stats.resident_bytes
    };
    let client = |channel| Calls(cache_client::CacheClient::new(channel).max_decoding_message_size(16 << 20));
    client(connect(&process.ready.data[0]).await).set(set("large", vec![1; 1 << 20])).await.unwrap();
    let before = resident().await;
    // Each message asks for 16 MiB and takes 64 KiB itself.
    let ask = numbered((0..16).flat_map(|_| [Op::Get(get("large")), Op::Get(get([0xff; 4_096]))]));
    let mut stuck = Vec::new();
    for _ in 0..8 {
        let mut calls = client(connect(&process.ready.data[0]).await);
        let stream = Stream::open(&mut calls).await;
        let mut sent = 0;
        let send = stream.send.clone().unwrap();
        // Stuck: not one message more in a second.
        while tokio::time::timeout(Duration::from_secs(1), send.send(ask.clone())).await.is_ok() {
            sent += 1;
            assert!(sent < 256, "16 MiB were taken from a client that reads nothing");
        }
        stuck.push((stream, sent));
    }
    let grown = resident().await.saturating_sub(before);
    assert!(grown < 64 << 20, "8 streams that are not read hold {} MiB", grown >> 20);
    // Others are served meanwhile, and a client that reads again gets all of it.
    let mut other = client(connect(&process.ready.data[0]).await);
    other.set(set("k", "v")).await.unwrap();
    let (mut stream, sent) = stuck.pop().unwrap();
    stream.half_close();
    let mut replies = 0;
    while let Some(more) = stream.next().await.unwrap() {
        for reply in more {
            assert_eq!(reply.id, replies % 32);
            assert_eq!(value(&reply.result.unwrap()).is_some(), replies % 2 == 0);
            replies += 1;
        }
    }
    assert_eq!(replies, sent * 32);
}

#[tokio::test]
async fn a_stream_that_is_dropped_leaves_its_connection_well() {
    let (_node, mut calls) = start().await;
    calls.set(set("large", vec![1; 1 << 20])).await.unwrap();
    for _ in 0..50 {
        let mut stream = Stream::open(&mut calls).await;
        stream.send(numbered((0..16).map(|_| Op::Get(get("large"))))).await;
        stream.next().await.unwrap();
    }
    assert_eq!(calls.value("large").await.len(), 1 << 20);
}

#[tokio::test]
async fn a_drain_answers_what_was_read_and_ends_the_stream_unavailable() {
    let node = Node::with(&["--drain-deadline", "20s"]).await;
    let mut calls = Calls(node.cache().await);
    let mut stream = Stream::open(&mut calls).await;
    stream.done(vec![Op::Set(set("k", "v"))]).await;
    let began = monotonic();
    node.admin().await.drain(DrainRequest::default()).await.unwrap();
    let status = stream.next().await.unwrap_err();
    assert_status(&status, Code::Unavailable, "NOT_READY", None);
    soon(node.running.stopped()).await;
    assert!(began.elapsed() < Duration::from_secs(10), "an idle stream held the drain");
}

#[tokio::test]
async fn an_errors_details_are_those_of_the_method_of_its_own() {
    let (_node, mut calls) = start().await;
    let mut stream = Stream::open(&mut calls).await;
    let reply = stream.done(vec![Op::Get(get(""))]).await.remove(0);
    let Reply::Error(in_stream) = reply else { panic!() };
    let status = calls.0.get(get("")).await.unwrap_err();
    assert_eq!(in_stream, rpc::Status::decode(status.details()).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_has_a_span_of_its_own_where_its_own_caller_is_sampled() {
    let collector = Collector::start().await;
    // Every call without a caller is traced: this stream is, and no share is drawn for its commands.
    let node = Node::with(&["--otlp", &collector.url, "--trace-sample", "1"]).await;
    let mut calls = Calls(node.cache().await);
    let mut stream = Stream::open(&mut calls).await;
    let traced = |id, traceparent: &str, op| PipelineCommand {
        traceparent: traceparent.to_owned(),
        ..command(id, op)
    };
    let no_op = PipelineCommand { op: None, ..traced(7, &traceparent(17, true), Op::Get(get("k"))) };
    let commands = [
        command(0, Op::Get(get("k"))),
        traced(1, &traceparent(11, true), Op::Get(get("k"))),
        command(2, Op::Set(set("k", "v"))),
        traced(3, &traceparent(13, false), Op::Get(get("k"))),
        traced(4, "rubbish", Op::Get(get("k"))),
        traced(5, &traceparent(15, true), Op::Set(set("k", "v"))),
        traced(6, &traceparent(16, true), Op::Get(get(""))),
        no_op,
        traced(8, &traceparent(18, true), Op::Cancel(CancelRequest { id: 99 })),
    ];
    stream.send(message(commands)).await;
    let replies = stream.replies(8).await;
    assert_eq!(replies.iter().map(|reply| reply.id).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(stream.rest().await.1.code(), Code::Ok);
    node.admin().await.drain(DrainRequest::default()).await.unwrap();
    soon(node.running.stopped()).await;

    let spans = collector.spans().into_iter().filter(|span| span.name != "larder.v1.Admin/Drain");
    let (of_stream, mut of_commands): (Vec<_>, Vec<_>) =
        spans.partition(|span| span.name == "larder.v1.Cache/Pipeline");
    assert_eq!(of_stream.len(), 1);
    of_commands.sort_by_key(parent);
    let told = of_commands.iter().map(|span| (parent(span), &*span.name, status(span)));
    let expected = [
        (11, "larder.v1.Cache/Get", "OK"),
        (15, "larder.v1.Cache/Set", "OK"),
        (16, "larder.v1.Cache/Get", "INVALID_ARGUMENT"),
        (17, "_OTHER", "INVALID_ARGUMENT"),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    for span in &of_commands {
        assert_eq!(span.trace_id, 0x0af7651916cd43dd8448eb211c80319c_u128.to_be_bytes());
        assert!(of_stream[0].start_time_unix_nano <= span.start_time_unix_nano);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        assert!(span.end_time_unix_nano <= of_stream[0].end_time_unix_nano);
    }
}
