//! ListSlowOps: which calls it has, and what it says of them.
//!
//! A call is made slow by a client that holds back the end of its request, or reads no replies, until more than the
//! threshold has passed since the node had the call: how long that takes beyond it does not matter.

use std::time::Duration;

use crate::support::node::*;
use crate::support::raw::{Raw, answer, framed, post};
use larder::proto::v1::admin_client::AdminClient;
use larder::proto::v1::pipeline_command::Op;
use larder::proto::v1::*;
use prost::Message;
use tonic::Code;
use tonic::transport::Channel;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// The slow calls, without those that a test waits by: on a machine that is loaded they may be slow themselves.
async fn slow_ops(node: &Node) -> ListSlowOpsResponse {
    let listed = soon(node.admin().await.list_slow_ops(ListSlowOpsRequest {})).await.unwrap().into_inner();
    let (of_admin, ops): (Vec<_>, Vec<_>) = listed.ops.into_iter().partition(|op| op.method == "GetStats");
    ListSlowOpsResponse { ops, total: listed.total - of_admin.len() as u64, ..listed }
}

/// Longer than the thresholds of these tests.
async fn outlast() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

async fn until(admin: &mut AdminClient<Channel>, what: impl Fn(&GetStatsResponse) -> bool) {
    soon(async {
        while !what(&admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Makes a call whose request ends late.
async fn late(node: &Node, method: &str, message: &impl Message) -> Code {
    let raw = Raw::connect(&node.data()).await;
    let head = post(&format!("/larder.v1.Cache/{method}")).header("traceparent", TRACEPARENT);
    let (response, mut send) = raw.open(head).await;
    until(&mut node.admin().await, |stats| stats.requests_in_flight == 1).await;
    outlast().await;
    send.send_data(framed(message), true).unwrap();
    answer(response).await.status.unwrap().code()
}

#[tokio::test]
async fn a_slow_call_is_listed_with_what_it_was_about() {
    let node = Node::with(&["--slow-op", "10ms", "--timeout", "0"]).await;
    assert_eq!(late(&node, "Get", &get(vec![b'k'; 300])).await, Code::Ok);
    let mut refused = set("counter", "no number");
    assert_eq!(late(&node, "Set", &refused).await, Code::Ok);
    assert_eq!(late(&node, "Increment", &increment("counter", 1)).await, Code::FailedPrecondition);
    refused.namespace = "nowhere".to_owned();
    let items = vec![refused.clone(), refused];
    let batch = BatchSetRequest { namespace: "nowhere".to_owned(), items, ..Default::default() };
    assert_eq!(late(&node, "BatchSet", &batch).await, Code::NotFound);

    let slow = slow_ops(&node).await;
    assert_eq!((slow.threshold_ms, slow.total, slow.ops.len()), (10, 4, 4));
    let found: Vec<_> = slow
        .ops
        .iter()
        .map(|op| (op.method.as_str(), op.namespace.as_str(), op.key.len(), op.items, op.code))
        .collect();
    let expected = [
        ("BatchSet", "nowhere", 7, 2, Code::NotFound as u32),
        ("Increment", "", 7, 1, Code::FailedPrecondition as u32),
        ("Set", "", 7, 1, 0),
        ("Get", "", 256, 1, 0),
    ];
    assert_eq!(found, expected, "the newest first");
    for op in &slow.ops {
        assert!(op.elapsed_ms >= 20 && op.queued_ms == 0, "{op:?}");
        assert!(op.started_unix_ms > 1_600_000_000_000, "{op:?}");
        assert!(op.peer.starts_with("127.0.0.1:"), "{op:?}");
        assert_eq!(op.traceparent, TRACEPARENT);
    }
}

#[tokio::test]
async fn a_call_that_runs_out_of_time_is_listed_by_what_came_of_it() {
    let node = Node::with(&["--slow-op", "1ms", "--timeout", "20ms"]).await;
    let raw = Raw::connect(&node.data()).await;
    let (response, _open) = raw.open(post("/larder.v1.Cache/Touch").header("traceparent", TRACEPARENT)).await;
    assert_eq!(answer(response).await.status.unwrap().code(), Code::DeadlineExceeded);
    let slow = slow_ops(&node).await;
    let op = &slow.ops[0];
    assert_eq!((op.method.as_str(), op.code, op.items), ("Touch", Code::DeadlineExceeded as u32, 0));
    assert_eq!((op.key.is_empty(), op.traceparent.as_str()), (true, TRACEPARENT));
}

#[tokio::test]
async fn a_pipeline_message_is_listed_as_its_first_command() {
    let node = Node::with(&["--slow-op", "10ms"]).await;
    let mut calls = Calls(node.cache().await);
    calls.set(set("big", vec![b'v'; 100_000])).await.unwrap();
    let command = |id| PipelineCommand {
        id,
        traceparent: TRACEPARENT.to_owned(),
        op: Some(Op::Get(get("big"))),
        ..Default::default()
    };
    let message = PipelineRequest { ring_epoch: 0, commands: (0..50).map(command).collect() };
    let raw = Raw::connect(&node.data()).await;
    let (response, mut send) = raw.open(post("/larder.v1.Cache/Pipeline")).await;
    send.send_data(framed(&message), true).unwrap();
    // 5 MB of replies do not fit what a stream may have outstanding: the message waits half done.
    until(&mut node.admin().await, |stats| stats.hits > 0).await;
    outlast().await;
    assert_eq!(answer(response).await.status.unwrap().code(), Code::Ok);
    let slow = slow_ops(&node).await;
    assert_eq!((slow.total, slow.ops.len()), (1, 1), "the stream itself is not: {slow:?}");
    let op = &slow.ops[0];
    assert_eq!((op.method.as_str(), &*op.key, op.items, op.code), ("Get", &b"big"[..], 50, 0));
    assert_eq!(op.traceparent, TRACEPARENT);
    assert!(op.elapsed_ms >= 20, "{op:?}");
}

#[tokio::test]
async fn nothing_is_kept_of_quick_calls_and_with_a_threshold_of_zero() {
    let node = Node::with(&["--slow-op", "1h", "--timeout", "0"]).await;
    late(&node, "Get", &get("k")).await;
    let slow = slow_ops(&node).await;
    assert_eq!((slow.threshold_ms, slow.total), (3_600_000, 0));
    let mut admin = node.admin().await;
    for (slow_op_ms, total) in [(0, 0), (1, 1)] {
        let update_mask = Some(prost_types::FieldMask { paths: vec!["slow_op_ms".to_owned()] });
        let config = Some(Config { slow_op_ms, ..Config::default() });
        soon(admin.update_config(UpdateConfigRequest { config, update_mask })).await.unwrap();
        late(&node, "Get", &get("k")).await;
        // With 1 ms Admin's own calls may be slow as well.
        let slow = slow_ops(&node).await;
        let gets = slow.ops.iter().filter(|op| op.method == "Get").count();
        assert_eq!((gets, slow.threshold_ms), (total, slow_op_ms));
    }
}
