//! Peers that do not read: the calls that wait for them end, at their deadline or by the stall time-out, and nobody
//! else's do; what they leave unread takes no more than the budget for it.

use std::time::Duration;

use crate::support::node::*;
use crate::support::raw::{Raw, framed, post};
use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::request::Builder;
use larder::clock::monotonic;
use larder::proto::v1::pipeline_command::Op;
use larder::proto::v1::*;
use tonic::{Code, Status};

const VALUE_BYTES: usize = 1 << 20;

/// A node that holds an entry of 1 MiB, and gives those that do not read so long.
async fn start(stall_timeout: &str) -> Node {
    let node = Node::with(&["--stall-timeout", stall_timeout]).await;
    let mut calls = Calls(node.cache().await);
    calls.set(set("large", vec![1; VALUE_BYTES])).await.unwrap();
    node
}

fn pipeline_of_gets(count: u64) -> Bytes {
    let commands =
        (0..count).map(|id| PipelineCommand { id, op: Some(Op::Get(get("large"))), ..Default::default() });
    framed(&PipelineRequest { commands: commands.collect(), ..PipelineRequest::default() })
}

fn within(head: Builder, timeout: &str) -> Builder {
    head.header("grpc-timeout", timeout)
}

/// A call whose answer waits for its caller, who does not read; the request is open still.
async fn unread(raw: &Raw, head: Builder, body: Bytes) -> (RecvStream, h2::SendStream<Bytes>) {
    let (response, mut send) = raw.open(head).await;
    send.send_data(body, false).unwrap();
    (soon(response).await.unwrap().into_body(), send)
}

/// Waits for a stream's reset without giving back any window.
async fn reset(stream: &mut RecvStream) -> Reason {
    loop {
        match soon(stream.data()).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return error.reason().unwrap(),
            None => panic!("the stream ended in good order"),
        }
    }
}

/// Waits until `count` calls of a method ended with this code, and then until nothing is in flight.
async fn ended(node: &Node, method: &str, code: &str, count: u64) {
    let sample =
        format!("larder_rpc_calls_total{{method=\"larder.v1.Cache/{method}\",code=\"{code}\"}} {count}");
    let at_rest = "larder_requests_in_flight 0";
    soon(async {
        loop {
            let metrics = node.metrics().await;
            if [&sample, at_rest].iter().all(|line| metrics.lines().any(|has| has == *line)) {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_deadline_ends_a_stream_whose_peer_does_not_read() {
    let node = start("10m").await;
    for window in [0, 1, 65_535] {
        let raw = Raw::connect_with(&node.data(), window).await;
        let began = monotonic();
        let (mut stream, _send) =
            unread(&raw, within(post("/larder.v1.Cache/Pipeline"), "300m"), pipeline_of_gets(8)).await;
        assert_eq!(reset(&mut stream).await, Reason::CANCEL, "window {window}");
        let took = began.elapsed();
        assert!((Duration::from_millis(290)..Duration::from_secs(5)).contains(&took), "{window}: {took:?}");
    }
    ended(&node, "Pipeline", "CANCELLED", 3).await;
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_reset_and_its_neighbour_is_not() {
    let node = start("500ms").await;
    let raw = Raw::connect_with(&node.data(), 0).await;
    let began = monotonic();
    // Has nothing to send, so nobody can be said not to read it.
    let (mut idle, mut send) = unread(&raw, post("/larder.v1.Cache/Pipeline"), Bytes::new()).await;
    let (mut stalled, _send) = unread(&raw, post("/larder.v1.Cache/Pipeline"), pipeline_of_gets(8)).await;
    assert_eq!(reset(&mut stalled).await, Reason::CANCEL);
    let took = began.elapsed();
    assert!((Duration::from_millis(490)..Duration::from_secs(5)).contains(&took), "{took:?}");
    ended(&node, "Pipeline", "CANCELLED", 1).await;
    // An answer without data needs no window.
    send.send_data(Bytes::new(), true).unwrap();
    assert!(soon(idle.data()).await.is_none());
    let trailers = soon(idle.trailers()).await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test]
async fn a_unary_answer_that_is_not_read_is_reset() {
    let node = start("300ms").await;
    for window in [0, 1, 65_535] {
        let raw = Raw::connect_with(&node.data(), window).await;
        let (mut stream, _send) = {
            let (response, mut send) = raw.open(post("/larder.v1.Cache/BatchGet")).await;
            let keys = vec![Bytes::from("large"); 3];
            send.send_data(framed(&BatchGetRequest { keys, ..Default::default() }), true).unwrap();
            (soon(response).await.unwrap().into_body(), send)
        };
        assert_eq!(reset(&mut stream).await, Reason::CANCEL, "window {window}");
    }
}

#[tokio::test]
async fn a_peer_that_reads_slowly_gets_all_of_it() {
    let node = start("400ms").await;
    let raw = Raw::connect_with(&node.data(), 16 << 10).await;
    let (response, mut send) = raw.open(post("/larder.v1.Cache/Pipeline")).await;
    // The second waits while the first is read, much longer than the time-out.
    send.send_data(pipeline_of_gets(2), true).unwrap();
    let mut stream = soon(response).await.unwrap().into_body();
    let (mut read, began) = (0, monotonic());
    while let Some(chunk) = soon(stream.data()).await {
        let chunk = chunk.unwrap();
        read += chunk.len();
        // About 20 windows with a pause, and then the rest.
        if read < 20 * (16 << 10) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        stream.flow_control().release_capacity(chunk.len()).unwrap();
    }
    assert!(read > 2 * VALUE_BYTES, "{read}");
    assert!(began.elapsed() > Duration::from_millis(800), "no slower than what is allowed");
    assert_eq!(soon(stream.trailers()).await.unwrap().unwrap()["grpc-status"], "0");
}

/// Asks on streams that let the node send nothing; how many of the answers began, and why the others were refused.
async fn unread_answers(
    raw: &Raw,
    method: &str,
    body: &Bytes,
    count: usize,
) -> (Vec<RecvStream>, Vec<Status>) {
    let (mut waiting, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (response, mut send) = raw.open(post(&format!("/larder.v1.Cache/{method}"))).await;
        send.send_data(body.clone(), true).unwrap();
        let response = soon(response).await.unwrap();
        match Status::from_header_map(response.headers()) {
            Some(status) => refused.push(status),
            None => waiting.push(response.into_body()),
        }
    }
    (waiting, refused)
}

async fn figure(http: &str, name: &str) -> u64 {
    metric(&http_get(http, "/metrics").await.1, name)
}

async fn pipelined(client: &mut Calls, key: &str) -> Result<GetResponse, Status> {
    let command = PipelineCommand { id: 1, op: Some(Op::Get(get(key))), ..Default::default() };
    let request = PipelineRequest { commands: vec![command], ..PipelineRequest::default() };
    let mut replies = client.0.pipeline(tokio_stream::iter([request])).await?.into_inner();
    let reply = soon(replies.message()).await?.unwrap().replies.remove(0);
    match reply.result.unwrap() {
        pipeline_reply::Result::Get(response) => Ok(response),
        pipeline_reply::Result::Error(error) => {
            let details = prost::Message::encode_to_vec(&error);
            Err(Status::with_details(error.code.into(), error.message, details.into()))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn answers_that_nobody_reads_take_bounded_memory_while_others_are_served() {
    const MIB: u64 = 1 << 20;
    let flags = ["--memory", "64MiB", "--max-response-backlog", "16MiB", "--stall-timeout", "10m"];
    let node = Process::start(&flags);
    let (data, http) = (&node.ready.data[0], &node.ready.http);
    let mut other = Calls(larder::proto::v1::cache_client::CacheClient::new(connect(data).await));
    other.set(set("large", vec![1; VALUE_BYTES])).await.unwrap();
    other.set(set("small", vec![2; 8 << 10])).await.unwrap();
    let before = figure(http, "larder_resident_bytes").await;

    let raw = Raw::connect_with(data, 0).await;
    let keys = vec![Bytes::from("large"); 3];
    let batch = framed(&BatchGetRequest { keys, ..Default::default() });
    let (batches, refused) = unread_answers(&raw, "BatchGet", &batch, 150).await;
    assert_eq!((batches.len(), refused.len()), (3, 147), "12 MiB are for long answers");
    assert_status(&refused[0], Code::ResourceExhausted, "BACKLOG_FULL", None);
    let (gets, refused) = unread_answers(&raw, "Get", &framed(&get("large")), 10).await;
    assert_eq!((gets.len(), refused.len()), (2, 8), "values that lie in memory anyway count, too");
    let (backlog, resident) =
        (figure(http, "larder_response_backlog_bytes").await, figure(http, "larder_resident_bytes").await);
    assert!((11 * MIB..12 * MIB).contains(&backlog), "{backlog}");
    assert!(
        resident < before + 24 * MIB,
        "{before} bytes before, {resident} with 9 MiB unread and 2 MiB shared"
    );
    assert_eq!(figure(http, "larder_requests_shed_total").await, 155);

    // Short answers have their room, and what is long learns when to come again.
    assert_eq!(other.value("small").await.len(), 8 << 10);
    assert!(pipelined(&mut other, "small").await.is_ok());
    let status = soon(other.0.get(get("large"))).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "BACKLOG_FULL", None);
    let status = pipelined(&mut other, "large").await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "BACKLOG_FULL", None);
    let status = soon(other.0.scan(ScanRequest::default())).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "BACKLOG_FULL", None);

    drop((raw, batches, gets));
    soon(async { while figure(http, "larder_response_backlog_bytes").await > 0 {} }).await;
    assert_eq!(other.value("large").await.len(), VALUE_BYTES);
    assert!(pipelined(&mut other, "large").await.is_ok());
}
