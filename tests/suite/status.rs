//! Every status but OK that can arise: its code, its reason, the field at fault, and that nothing was changed.

use std::time::Duration;

use crate::support::node::*;
use crate::support::raw::{Raw, answer, frame, framed, post};
use bytes::Bytes;
use larder::proto::v1::cluster_client::ClusterClient;
use larder::proto::v1::set_request::{Condition, Expiration};
use larder::proto::v1::*;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const CENTURY_MS: u64 = 36_525 * 24 * 3_600_000;
const LONG_KEY: [u8; 4_097] = [b'k'; 4_097];

async fn start() -> (Node, Calls) {
    let node = Node::start().await;
    let calls = Calls(node.cache().await);
    (node, calls)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, reason: &str, field: Option<&str>) {
    assert_status(&result.unwrap_err(), code, reason, field);
}

#[track_caller]
fn invalid<T: std::fmt::Debug>(result: Result<T, Status>, reason: &str, field: &str) {
    refused(result, Code::InvalidArgument, reason, Some(field));
}

#[tokio::test]
async fn a_key_has_1_to_4096_bytes_in_every_method() {
    let (_node, mut calls) = start().await;
    for (key, reason) in [(&b""[..], "KEY_EMPTY"), (&LONG_KEY, "KEY_TOO_LONG")] {
        let status = calls.0.get(get(key)).await.unwrap_err();
        assert!(status.message().contains("4096"), "{status:?}");
        invalid::<()>(Err(status), reason, "key");
        invalid(calls.0.set(set(key, "v")).await, reason, "key");
        invalid(calls.0.delete(delete(key)).await, reason, "key");
        invalid(calls.0.increment(increment(key, 1)).await, reason, "key");
        invalid(calls.0.decrement(decrement(key, 1)).await, reason, "key");
        invalid(calls.0.touch(touch(key, 1)).await, reason, "key");
    }
}

#[tokio::test]
async fn one_bad_key_fails_a_batch_by_its_index_before_anything_is_done() {
    let (_node, mut calls) = start().await;
    calls.set(set("a", "v")).await.unwrap();
    for (bad, reason) in [(Bytes::new(), "KEY_EMPTY"), (Bytes::copy_from_slice(&LONG_KEY), "KEY_TOO_LONG")] {
        let keys: Vec<Bytes> = ["a".into(), "b".into(), bad.clone(), bad].to_vec();
        let request = BatchGetRequest { keys: keys.clone(), ..Default::default() };
        invalid(calls.0.batch_get(request).await, reason, "keys[2]");
        let request = BatchDeleteRequest { keys, ..Default::default() };
        invalid(calls.0.batch_delete(request).await, reason, "keys[2]");
        assert!(calls.get("a").await.is_ok(), "nothing was deleted");
    }
}

#[tokio::test]
async fn a_ttl_over_100_years_is_refused_wherever_one_is_given() {
    let (_node, mut calls) = start().await;
    calls.set(set("old", "v")).await.unwrap();
    for ms in [CENTURY_MS + 1, u64::MAX] {
        let long = |expiration| SetRequest { expiration: Some(expiration), ..set("k", "v") };
        invalid(calls.0.set(long(Expiration::TtlMs(ms))).await, "TTL_TOO_LONG", "ttl_ms");
        invalid(calls.0.touch(touch("old", ms)).await, "TTL_TOO_LONG", "ttl_ms");
        let request = GetRequest { touch_ttl_ms: Some(ms), ..get("old") };
        invalid(calls.0.get(request).await, "TTL_TOO_LONG", "touch_ttl_ms");
        let request = IncrementRequest { ttl_ms: ms, ..increment("k", 1) };
        invalid(calls.0.increment(request).await, "TTL_TOO_LONG", "ttl_ms");
        let request = DecrementRequest { ttl_ms: ms, ..decrement("k", 1) };
        invalid(calls.0.decrement(request).await, "TTL_TOO_LONG", "ttl_ms");
        // As a wall time it is a century from now.
        let at = long(Expiration::ExpireAtUnixMs(ms.saturating_mul(2)));
        invalid(calls.0.set(at).await, "TTL_TOO_LONG", "expire_at_unix_ms");
    }
    assert!(calls.get("k").await.is_err());
    assert_eq!(calls.get("old").await.unwrap().remaining_ttl_ms, 0);
}

#[tokio::test]
async fn false_is_no_value_in_a_oneof_of_bools() {
    let (_node, mut calls) = start().await;
    let request = SetRequest { expiration: Some(Expiration::KeepTtl(false)), ..set("k", "v") };
    invalid(calls.0.set(request).await, "FALSE_IN_ONEOF", "keep_ttl");
    for (condition, field) in
        [(Condition::IfAbsent(false), "if_absent"), (Condition::IfPresent(false), "if_present")]
    {
        let request = SetRequest { condition: Some(condition), ..set("k", "v") };
        invalid(calls.0.set(request).await, "FALSE_IN_ONEOF", field);
    }
    assert!(calls.get("k").await.is_err());
}

#[tokio::test]
async fn no_entry_has_version_0() {
    let (_node, mut calls) = start().await;
    let request = SetRequest { condition: Some(Condition::IfVersion(0)), ..set("k", "v") };
    invalid(calls.0.set(request).await, "VERSION_ZERO", "if_version");
    let request = DeleteRequest { if_version: Some(0), ..delete("k") };
    invalid(calls.0.delete(request).await, "VERSION_ZERO", "if_version");
}

#[tokio::test]
async fn an_enum_value_that_nobody_named_is_refused() {
    let (_node, mut calls) = start().await;
    for durability in [3, 99, -1, i32::MIN] {
        let reason = ("UNKNOWN_ENUM_VALUE", "durability");
        invalid(calls.0.set(SetRequest { durability, ..set("k", "v") }).await, reason.0, reason.1);
        invalid(calls.0.delete(DeleteRequest { durability, ..delete("k") }).await, reason.0, reason.1);
        let request = IncrementRequest { durability, ..increment("k", 1) };
        invalid(calls.0.increment(request).await, reason.0, reason.1);
        let request = BatchSetRequest { items: vec![set("k", "v")], durability, ..Default::default() };
        invalid(calls.0.batch_set(request).await, reason.0, reason.1);
        let request = BatchDeleteRequest { durability, ..Default::default() };
        invalid(calls.0.batch_delete(request).await, reason.0, reason.1);
    }
    assert!(calls.get("k").await.is_err());
}

#[tokio::test]
async fn content_types_and_request_ids_have_their_limits() {
    let (_node, mut calls) = start().await;
    let request = SetRequest { content_type: "x".repeat(256), ..set("k", "v") };
    invalid(calls.0.set(request).await, "CONTENT_TYPE_TOO_LONG", "content_type");
    let tags = |tags: Vec<String>| SetRequest { tags, ..set("k", "v") };
    let many: Vec<String> = (0..17).map(|n| n.to_string()).collect();
    invalid(calls.0.set(tags(many)).await, "TOO_MANY_TAGS", "tags");
    invalid(calls.0.set(tags(vec!["a".to_owned(), String::new()])).await, "BAD_TAG", "tags[1]");
    invalid(calls.0.set(tags(vec!["x".repeat(256)])).await, "BAD_TAG", "tags[0]");
    let request = IncrementRequest { request_id: "x".repeat(65), ..increment("k", 1) };
    invalid(calls.0.increment(request).await, "REQUEST_ID_TOO_LONG", "request_id");
    assert!(calls.get("k").await.is_err());
}

#[tokio::test]
async fn an_option_that_is_not_served_yet_is_never_ignored() {
    let (_node, mut calls) = start().await;
    let not_served = |result: Result<(), Status>| refused(result, Code::Unimplemented, "NOT_SERVED", None);
    let sets = [
        SetRequest { soft_ttl_ms: 1, ..set("k", "v") },
        SetRequest { jitter_percent: 1, ..set("k", "v") },
        SetRequest { lease_token: 1, ..set("k", "v") },
    ];
    for request in sets {
        not_served(calls.0.set(request).await.map(drop));
    }
    let gets = [
        GetRequest { lease_ms: 1, ..get("k") },
        GetRequest { wait_ms: 1, ..get("k") },
        GetRequest { max_stale_ms: 1, ..get("k") },
    ];
    for request in gets {
        not_served(calls.0.get(request).await.map(drop));
    }
    assert!(calls.get("k").await.is_err());
}

#[tokio::test]
async fn what_needs_a_disk_says_so_where_there_is_none() {
    let (node, mut calls) = start().await;
    let no_disk =
        |result: Result<(), Status>| refused(result, Code::FailedPrecondition, "NO_PERSISTENCE", None);
    let durability = Durability::Flushed as i32;
    no_disk(calls.0.delete(DeleteRequest { durability, ..delete("k") }).await.map(drop));
    no_disk(calls.0.increment(IncrementRequest { durability, ..increment("k", 1) }).await.map(drop));
    no_disk(calls.0.decrement(DecrementRequest { durability, ..decrement("k", 1) }).await.map(drop));
    let request = BatchSetRequest { items: vec![set("k", "v")], durability, ..Default::default() };
    no_disk(calls.0.batch_set(request).await.map(drop));
    let request = BatchDeleteRequest { durability, ..Default::default() };
    no_disk(calls.0.batch_delete(request).await.map(drop));
    no_disk(calls.0.set(SetRequest { durability, ..set("k", "v") }).await.map(drop));
    let mut admin = node.admin().await;
    no_disk(admin.flush(FlushRequest::default()).await.map(drop));
    no_disk(admin.create_snapshot(CreateSnapshotRequest::default()).await.map(drop));
    no_disk(admin.list_snapshots(ListSnapshotsRequest::default()).await.map(drop));
    no_disk(admin.verify_recovery(VerifyRecoveryRequest::default()).await.map(drop));
    no_disk(admin.compact_journal(CompactJournalRequest::default()).await.map(drop));
    assert!(calls.get("k").await.is_err());
}

#[tokio::test]
async fn a_namespace_that_does_not_exist_is_not_found() {
    let (node, mut calls) = start().await;
    let namespace = "other".to_owned();
    let not_found = |result: Result<(), Status>| {
        let status = result.unwrap_err();
        assert!(status.message().contains("\"other\""), "{status:?}");
        assert_status(&status, Code::NotFound, "NAMESPACE_NOT_FOUND", None);
    };
    let name = || namespace.clone();
    not_found(calls.0.get(GetRequest { namespace: name(), ..get("k") }).await.map(drop));
    not_found(calls.0.set(SetRequest { namespace: name(), ..set("k", "v") }).await.map(drop));
    not_found(calls.0.delete(DeleteRequest { namespace: name(), ..delete("k") }).await.map(drop));
    not_found(calls.0.increment(IncrementRequest { namespace: name(), ..increment("k", 1) }).await.map(drop));
    not_found(calls.0.decrement(DecrementRequest { namespace: name(), ..decrement("k", 1) }).await.map(drop));
    not_found(calls.0.touch(TouchRequest { namespace: name(), ..touch("k", 1) }).await.map(drop));
    not_found(calls.0.batch_get(BatchGetRequest { namespace: name(), keys: vec![] }).await.map(drop));
    let request = BatchSetRequest { namespace: name(), ..Default::default() };
    not_found(calls.0.batch_set(request).await.map(drop));
    let request = BatchDeleteRequest { namespace: name(), ..Default::default() };
    not_found(calls.0.batch_delete(request).await.map(drop));
    let mut admin = node.admin().await;
    not_found(admin.clear(ClearRequest { namespace: name() }).await.map(drop));
    not_found(admin.resize(ResizeRequest { namespace: name(), bytes_limit: 32 << 20 }).await.map(drop));
    let request = SetEvictionPolicyRequest { namespace: name(), policy: "lru".to_owned() };
    not_found(admin.set_eviction_policy(request).await.map(drop));
    assert!(calls.get("k").await.is_err());
}

#[tokio::test]
async fn a_value_over_the_limit_is_refused_and_the_old_one_stays() {
    let (_node, mut calls) = start().await;
    calls.set(set("k", "old")).await.unwrap();
    let status = calls.0.set(set("k", vec![0; (1 << 20) + 1])).await.unwrap_err();
    assert!(status.message().contains("1048577") && status.message().contains("1048576"), "{status:?}");
    assert_status(&status, Code::ResourceExhausted, "VALUE_TOO_LARGE", None);
    assert_eq!(calls.value("k").await, "old");
}

#[tokio::test]
async fn an_entry_that_no_shard_can_hold_is_refused() {
    let node = Node::with(&["--memory", "4MiB", "--shards", "16"]).await;
    let mut calls = Calls(node.cache().await);
    calls.set(set("k", "old")).await.unwrap();
    refused(calls.0.set(set("k", vec![0; 1 << 20])).await, Code::ResourceExhausted, "ENTRY_TOO_LARGE", None);
    assert_eq!(calls.value("k").await, "old");
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused() {
    let (node, mut calls) = start().await;
    let items = (0..5).map(|n| set(format!("{n}"), vec![0; 1 << 20])).collect();
    let result = calls.0.batch_set(BatchSetRequest { items, ..Default::default() }).await;
    refused(result, Code::ResourceExhausted, "MESSAGE_TOO_LARGE", None);
    for n in 0..5 {
        assert!(calls.get(format!("{n}")).await.is_err());
    }
    // One that only says so is refused at once, before what it announces has come.
    let raw = Raw::connect(&node.data()).await;
    for (len, reason) in [((4 << 20) + 1, "MESSAGE_TOO_LARGE"), (u32::MAX as usize, "MESSAGE_TOO_LARGE")] {
        let (response, mut send) = raw.open(post("/larder.v1.Cache/Get")).await;
        send.send_data(frame(0, len, b"abc"), false).unwrap();
        let status = answer(response).await.status.unwrap();
        assert_status(&status, Code::ResourceExhausted, reason, None);
    }
    // The connection is well.
    let hit = raw.cache("Set", framed(&set("k", "v"))).await;
    assert_eq!(hit.status.unwrap().code(), Code::Ok);
}

#[tokio::test]
async fn admin_refuses_a_message_over_the_limit_in_the_same_words() {
    let node = Node::start().await;
    let policy = "x".repeat((4 << 20) + 1);
    let request = SetEvictionPolicyRequest { namespace: String::new(), policy };
    let result = node.admin().await.set_eviction_policy(request).await;
    refused(result, Code::ResourceExhausted, "MESSAGE_TOO_LARGE", None);
}

#[tokio::test]
async fn a_batch_has_at_most_10_000_items() {
    let (_node, mut calls) = start().await;
    let keys: Vec<Bytes> = (0..10_001).map(|n| format!("{n}").into()).collect();
    let too_long = |result: Result<(), Status>| {
        let status = result.unwrap_err();
        assert!(status.message().contains("10001") && status.message().contains("10000"), "{status:?}");
        assert_status(&status, Code::ResourceExhausted, "BATCH_TOO_LONG", None);
    };
    let items: Vec<SetRequest> = keys.iter().map(|key| set(key, "v")).collect();
    too_long(calls.0.batch_set(BatchSetRequest { items, ..Default::default() }).await.map(drop));
    assert!(calls.get("0").await.is_err(), "nothing was stored");
    calls.set(set("0", "v")).await.unwrap();
    let request = BatchGetRequest { keys: keys.clone(), ..Default::default() };
    too_long(calls.0.batch_get(request).await.map(drop));
    too_long(calls.0.batch_delete(BatchDeleteRequest { keys, ..Default::default() }).await.map(drop));
    assert!(calls.get("0").await.is_ok(), "nothing was deleted");
}

#[tokio::test]
async fn a_batch_get_whose_answer_is_too_large_says_to_ask_for_fewer_keys() {
    let (_node, mut calls) = start().await;
    for n in 0..5 {
        calls.set(set(format!("{n}"), vec![n; 1 << 20])).await.unwrap();
    }
    let ask = |count: usize| BatchGetRequest {
        keys: (0..count).map(|n| format!("{n}").into()).collect(),
        ..Default::default()
    };
    let status = calls.0.batch_get(ask(5)).await.unwrap_err();
    assert!(status.message().contains("fewer keys"), "{status:?}");
    assert_status(&status, Code::ResourceExhausted, "ANSWER_TOO_LARGE", None);
    assert_eq!(calls.0.batch_get(ask(3)).await.unwrap().into_inner().results.len(), 3);
}

#[tokio::test]
async fn only_integers_of_64_bits_can_be_counted() {
    let (_node, mut calls) = start().await;
    for value in ["", "ten", "1.0", " 1", "+1", "01", "9223372036854775808", "-9223372036854775809"] {
        let version = calls.set(set("k", value)).await.unwrap();
        let precondition = (Code::FailedPrecondition, "NOT_AN_INTEGER");
        refused(calls.0.increment(increment("k", 1)).await, precondition.0, precondition.1, None);
        refused(calls.0.decrement(decrement("k", 1)).await, precondition.0, precondition.1, None);
        let hit = calls.get("k").await.unwrap();
        assert_eq!((hit.value, hit.version), (value.into(), version));
    }
}

#[tokio::test]
async fn a_deadline_that_has_passed_does_nothing() {
    let (node, mut calls) = start().await;
    for (authority, path, body) in [
        (node.data(), "/larder.v1.Cache/Set", framed(&set("k", "v"))),
        (node.data(), "/larder.v1.Cache/Pipeline", Bytes::new()),
        (node.admin_authority(), "/larder.v1.Admin/Clear", framed(&ClearRequest::default())),
    ] {
        let raw = Raw::connect(&authority).await;
        let late = raw.call(post(path).header("grpc-timeout", "0n"), body).await;
        assert_status(&late.status.unwrap(), Code::DeadlineExceeded, "DEADLINE_EXCEEDED", None);
    }
    assert!(calls.get("k").await.is_err());
}

#[tokio::test]
async fn a_call_that_waits_ends_at_its_deadline() {
    let node = Node::with(&["--timeout", "400ms"]).await;
    let raw = Raw::connect(&node.data()).await;
    // The nearer of the caller's and the node's own counts.
    for (timeout, least, most) in [("1n", 0, 300), ("50m", 50, 350), ("", 400, 4_000), ("100H", 400, 4_000)] {
        let mut head = post("/larder.v1.Cache/Set");
        if !timeout.is_empty() {
            head = head.header("grpc-timeout", timeout);
        }
        let began = larder::clock::monotonic();
        let (response, _body) = raw.open(head).await;
        let late = answer(response).await;
        let took = began.elapsed();
        assert_status(&late.status.unwrap(), Code::DeadlineExceeded, "DEADLINE_EXCEEDED", None);
        let bounds = Duration::from_millis(least)..Duration::from_millis(most * 10);
        assert!(bounds.contains(&took), "{timeout:?} took {took:?}");
    }
}

#[tokio::test]
async fn a_malformed_deadline_is_refused() {
    let node = Node::start().await;
    for authority in [node.data(), node.admin_authority()] {
        let raw = Raw::connect(&authority).await;
        for bad in ["", "5", "S", "-1S", "123456789S", "1.5S", "1s", "soon", "1 S"] {
            for path in ["/larder.v1.Cache/Get", "/larder.v1.Cache/Pipeline", "/larder.v1.Admin/GetStats"] {
                let head = post(path).header("grpc-timeout", bad);
                let status = raw.call(head, framed(&get("k"))).await.status.unwrap();
                assert_status(&status, Code::InvalidArgument, "INVALID_VALUE", Some("grpc-timeout"));
            }
        }
    }
}

#[tokio::test]
async fn when_too_many_calls_wait_the_next_is_told_to_come_again() {
    let node = Node::with(&["--max-in-flight", "2", "--timeout", "0"]).await;
    let raw = Raw::connect(&node.data()).await;
    let mut admin = node.admin().await;
    let mut waiting = Vec::new();
    // A connection may have four whose requests are not whole, whatever the limit is.
    for n in 1..=4 {
        waiting.push(raw.open(post("/larder.v1.Cache/Set")).await);
        // It waits as soon as it has arrived.
        soon(async {
            while admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner().requests_in_flight < n {}
        })
        .await;
    }
    let (response, _body) = raw.open(post("/larder.v1.Cache/Set")).await;
    let status = answer(response).await.status.unwrap();
    assert_status(&status, Code::ResourceExhausted, "OVERLOADED", None);
    let stats = admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner();
    assert_eq!((stats.requests_in_flight, stats.requests_shed), (4, 1));
    // A call that need not wait is served all the same, and those that wait are done when they can be.
    let mut calls = Calls(node.cache().await);
    calls.set(set("other", "v")).await.unwrap();
    for (n, (response, mut body)) in waiting.into_iter().enumerate() {
        body.send_data(framed(&set(format!("{n}"), "v")), true).unwrap();
        assert_eq!(answer(response).await.status.unwrap().code(), Code::Ok);
        assert_eq!(calls.value(format!("{n}")).await, "v");
    }
    let stats = admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner();
    assert_eq!(stats.requests_in_flight, 0);
}

#[tokio::test]
async fn a_caller_that_goes_away_gives_its_place_back() {
    let node = Node::with(&["--max-in-flight", "1", "--timeout", "0"]).await;
    let mut admin = node.admin().await;
    for _ in 0..3 {
        let raw = Raw::connect(&node.data()).await;
        let (response, mut body) = raw.open(post("/larder.v1.Cache/Set")).await;
        let in_flight = async |admin: &mut admin_client::AdminClient<_>| {
            admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner().requests_in_flight
        };
        soon(async { while in_flight(&mut admin).await < 1 {} }).await;
        body.send_reset(h2::Reason::CANCEL);
        drop(response);
        soon(async { while in_flight(&mut admin).await > 0 {} }).await;
    }
}

#[tokio::test]
async fn methods_that_are_not_served_yet_say_so() {
    let (node, _) = start().await;
    let not_served = |what: &str, result: Result<(), Status>| {
        let status = result.unwrap_err();
        assert!(status.message().contains(what), "{status:?}");
        assert_status(&status, Code::Unimplemented, "NOT_SERVED", None);
    };
    let mut cluster = ClusterClient::new(connect(&node.data()).await);
    let forward = tokio_stream::iter([ForwardRequest::default()]);
    not_served("Cluster.Forward", cluster.forward(forward).await.map(drop));
}

#[tokio::test]
async fn an_unknown_policy_changes_nothing() {
    let node = Node::start().await;
    let mut admin = node.admin().await;
    let ask = |policy: &str| SetEvictionPolicyRequest { namespace: String::new(), policy: policy.to_owned() };
    for unknown in ["", "LRU", "random", "lru "] {
        let status = admin.set_eviction_policy(ask(unknown)).await.unwrap_err();
        assert!(status.message().contains("lru") && status.message().contains("s3-fifo"), "{status:?}");
        assert_status(&status, Code::InvalidArgument, "UNKNOWN_POLICY", Some("policy"));
    }
    let stats = admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner();
    assert_eq!(stats.policy, "adaptive");
}

#[tokio::test]
async fn admin_holds_its_numbers_to_their_bounds() {
    let node = Node::start().await;
    let mut admin = node.admin().await;
    for bytes_limit in [0, 1, (1 << 20) - 1, 1 << 60, u64::MAX] {
        let request = ResizeRequest { namespace: String::new(), bytes_limit };
        invalid(admin.resize(request).await, "INVALID_VALUE", "bytes_limit");
    }
    for interval_ms in [1, 99, 3_600_001, u64::MAX] {
        let result = admin.stream_stats(StreamStatsRequest { interval_ms }).await;
        invalid(result.map(drop), "INVALID_VALUE", "interval_ms");
    }
    for deadline_ms in [3_600_001, u64::MAX] {
        let result = admin.drain(DrainRequest { deadline_ms }).await;
        invalid(result, "INVALID_VALUE", "deadline_ms");
    }
    let stats = admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner();
    assert_eq!((stats.bytes_limit, stats.state()), (64 << 20, NodeState::Serving));
}

#[tokio::test]
async fn a_spawn_that_cannot_be_says_why() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", taken.local_addr().unwrap());
    let node =
        Node::with(&["--listen", &url, "--standby", "--lame-duck", "30m", "--drain-deadline", "1h"]).await;
    let mut admin = node.admin().await;
    let status = admin.spawn(SpawnRequest {}).await.unwrap_err();
    assert!(status.message().contains(&url), "{status:?}");
    assert_status(&status, Code::FailedPrecondition, "CANNOT_LISTEN", None);
    drop(taken);
    admin.spawn(SpawnRequest {}).await.unwrap();
    admin.drain(DrainRequest::default()).await.unwrap();
    let status = admin.spawn(SpawnRequest {}).await.unwrap_err();
    assert!(status.message().contains("draining"), "{status:?}");
    assert_status(&status, Code::FailedPrecondition, "LEAVING", None);
}

#[tokio::test]
async fn no_callers_text_makes_a_status_long_or_breaks_its_connection() {
    let (node, mut calls) = start().await;
    let mut admin = node.admin().await;
    let held = |what: &str, status: Status| {
        assert!(status.message().len() <= 700, "{what}: {} bytes of message", status.message().len());
        assert!(status.details().len() <= 2_304, "{what}: {} bytes of details", status.details().len());
        status
    };
    for bytes in [300, 6_000, 60_000] {
        let text = "ns\n\u{1f980}".repeat(bytes / 7);
        let namespace = || text.clone();
        // The same client goes on: its connection is well.
        let status = calls.0.get(GetRequest { namespace: namespace(), ..get("k") }).await.unwrap_err();
        assert_status(&held("Get", status), Code::NotFound, "NAMESPACE_NOT_FOUND", None);
        let keys = vec!["k".into()];
        let status = calls.0.batch_get(BatchGetRequest { namespace: namespace(), keys }).await.unwrap_err();
        held("BatchGet", status);
        let scan = ScanRequest { namespace: namespace(), ..ScanRequest::default() };
        held("Scan", calls.0.scan(scan).await.unwrap_err());
        let blob = GetBlobRequest { namespace: namespace(), key: "k".into(), ..GetBlobRequest::default() };
        held("GetBlob", calls.0.get_blob(blob).await.unwrap_err());
        let items = vec![SetRequest { namespace: namespace(), ..set("k", "v") }; 20];
        let batch = BatchSetRequest { items, ..BatchSetRequest::default() };
        let results = calls.0.batch_set(batch).await.unwrap().into_inner().results;
        for result in results {
            let Some(set_result::Result::Error(status)) = result.result else { panic!("{result:?}") };
            assert!(prost::Message::encoded_len(&status) < 1_400, "{status:?}");
        }
        let policy = SetEvictionPolicyRequest { policy: text.clone(), ..SetEvictionPolicyRequest::default() };
        held("SetEvictionPolicy", admin.set_eviction_policy(policy).await.unwrap_err());
        held("DeleteNamespace", {
            let request = DeleteNamespaceRequest { name: text.clone() };
            admin.delete_namespace(request).await.unwrap_err()
        });
        let mask = prost_types::FieldMask { paths: vec![text.clone()] };
        let update = UpdateConfigRequest { update_mask: Some(mask), ..UpdateConfigRequest::default() };
        held("UpdateConfig", admin.update_config(update).await.unwrap_err());
    }
    let raw = Raw::connect(&node.data()).await;
    let long = "x".repeat(6_000);
    let path = raw.call(post(&format!("/larder.v1.Cache/{long}")), framed(&get("k"))).await;
    assert_status(&held("path", path.status.unwrap()), Code::Unimplemented, "NO_SUCH_METHOD", None);
    for (name, reason) in [("grpc-encoding", "COMPRESSED"), ("grpc-timeout", "INVALID_VALUE")] {
        let head = post("/larder.v1.Cache/Get").header(name, &long);
        let status = held(name, raw.call(head, framed(&get("k"))).await.status.unwrap());
        assert_eq!(status.get_error_details().error_info().unwrap().reason, reason);
    }
    assert!(calls.set(set("k", "v")).await.is_ok());
}

#[tokio::test]
async fn a_limit_error_tells_the_limit_to_those_who_would_adapt() {
    let node = Node::with(&["--max-batch", "500"]).await;
    let mut calls = Calls(node.cache().await);
    let keys: Vec<Bytes> = (0..501).map(|n| format!("{n}").into()).collect();
    let status = calls.0.batch_get(BatchGetRequest { keys, ..Default::default() }).await.unwrap_err();
    let metadata = status.get_error_details().error_info().unwrap().metadata.clone();
    assert_eq!((&*metadata["limit"], &*metadata["unit"]), ("500", "items"));
}

#[tokio::test]
async fn a_message_of_millions_of_fields_is_refused_before_it_is_read() {
    let node = Node::start().await;
    let raw = Raw::connect(&node.data()).await;
    let unknown = [0xc8, 0x01, 0x01].repeat(1_300_000);
    for method in ["Get", "Set", "BatchSet", "Scan", "Invalidate", "DeleteBlob"] {
        let status = raw.cache(method, frame(0, unknown.len(), &unknown)).await.status.unwrap();
        assert!(status.message().contains("more than 1024 fields"), "{method}: {status:?}");
        assert_status(&status, Code::InvalidArgument, "MALFORMED_MESSAGE", None);
    }
    let keys = [0x12, 0x00].repeat(2_000_000);
    for method in ["BatchGet", "BatchSet", "BatchDelete"] {
        let status = raw.cache(method, frame(0, keys.len(), &keys)).await.status.unwrap();
        assert!(status.message().contains("10001") && status.message().contains("10000"), "{status:?}");
        assert_status(&status, Code::ResourceExhausted, "BATCH_TOO_LONG", None);
    }
    for (message, reason) in [(&keys, "BATCH_TOO_LONG"), (&unknown, "MALFORMED_MESSAGE")] {
        let status = raw.cache("Pipeline", frame(0, message.len(), message)).await.status.unwrap();
        assert_eq!(status.get_error_details().error_info().unwrap().reason, reason);
    }
}
