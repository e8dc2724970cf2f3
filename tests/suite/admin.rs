//! Admin, health, reflection and the figures, of a node that works.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::node::*;
use larder::proto::v1::admin_client::AdminClient;
use larder::proto::v1::set_request::{Condition, Expiration};
use larder::proto::v1::*;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1 as reflection, v1alpha};

async fn stats(admin: &mut AdminClient<Channel>) -> GetStatsResponse {
    soon(admin.get_stats(GetStatsRequest {})).await.unwrap().into_inner()
}

/// Does a bit of everything: 3 sets, 1 not stored, 5 hits, 4 misses, 2 deletes, 2 increments, 2 touches.
async fn work(calls: &mut Calls) {
    for key in ["a", "b", "c"] {
        calls.set(set(key, "1")).await.unwrap();
    }
    let absent = SetRequest { condition: Some(Condition::IfAbsent(true)), ..set("a", "v") };
    calls.set(absent).await.unwrap_err();
    calls.get("a").await.unwrap();
    calls.lookup(GetRequest { touch_ttl_ms: Some(3_600_000), ..get("a") }).await.unwrap();
    let keys = ["a", "b", "c", "never"].map(bytes::Bytes::from).to_vec();
    soon(calls.0.batch_get(BatchGetRequest { keys, ..Default::default() })).await.unwrap();
    calls.get("never").await.unwrap_err();
    calls.increment(increment("a", 1)).await;
    calls.decrement(decrement("a", 1)).await;
    calls.0.increment(increment("", 1)).await.unwrap_err();
    assert!(calls.touch(touch("b", 0)).await);
    assert!(!calls.touch(touch("never", 0)).await);
    let keys = ["b", "never"].map(bytes::Bytes::from).to_vec();
    soon(calls.0.batch_delete(BatchDeleteRequest { keys, ..Default::default() })).await.unwrap();
    assert!(calls.delete(delete("c")).await.deleted);
    calls.get("b").await.unwrap_err();
    calls.get("c").await.unwrap_err();
}

#[tokio::test]
async fn get_stats_and_metrics_agree_with_what_was_done() {
    let node = Node::start().await;
    let (mut calls, mut admin) = (Calls(node.cache().await), node.admin().await);
    work(&mut calls).await;
    let stats = stats(&mut admin).await;
    let counts = |s: &GetStatsResponse| {
        [s.hits, s.misses, s.sets, s.sets_not_stored, s.deletes, s.increments, s.touches, s.entries]
    };
    assert_eq!(counts(&stats), [5, 4, 3, 1, 2, 2, 2, 1], "{stats:?}");
    assert_eq!([stats.evictions, stats.expirations, stats.sets_refused], [0; 3]);
    let reasons = [(MissReason::Unknown as i32, 2), (MissReason::Deleted as i32, 2)];
    assert_eq!(stats.misses_by_reason.iter().map(|m| (m.reason, m.count)).collect::<Vec<_>>(), reasons);
    assert_eq!(stats.hits_by_tier, [HitCount { tier: Tier::Memory as i32, count: 5 }]);
    assert_eq!((stats.state(), stats.policy.as_str()), (NodeState::Serving, "adaptive"));
    assert_eq!(stats.connections, 1);
    assert!(stats.incarnation > 0 && stats.resident_bytes > 0 && stats.bytes_used > 0);
    assert!(stats.bytes_used < stats.bytes_limit && stats.bytes_limit == 64 << 20);
    assert_eq!(stats.node_id, format!("tcp://{}", node.data()));
    assert!(stats.build.contains(env!("CARGO_PKG_VERSION")));
    // The only namespace has all of it.
    let [only] = &stats.namespaces[..] else { panic!("{:?}", stats.namespaces) };
    assert_eq!(only.name, "");
    assert_eq!(
        [
            only.hits,
            only.misses,
            only.sets,
            only.sets_not_stored,
            only.deletes,
            only.entries,
            only.bytes_limit
        ],
        [5, 4, 3, 1, 2, 1, stats.bytes_limit]
    );
    // What its entries weigh; the node is charged for the index and the pages too.
    assert!((1..stats.bytes_used).contains(&only.bytes_used), "{only:?}");
    assert_eq!((&only.misses_by_reason, &only.policy), (&stats.misses_by_reason, &stats.policy));

    let text = node.metrics().await;
    for (sample, expected) in [
        ("larder_hits_total", stats.hits),
        ("larder_misses_total{reason=\"unknown\"}", 2),
        ("larder_misses_total{reason=\"deleted\"}", 2),
        ("larder_misses_total{reason=\"evicted\"}", 0),
        ("larder_sets_total", stats.sets),
        ("larder_sets_not_stored_total", stats.sets_not_stored),
        ("larder_deletes_total", stats.deletes),
        ("larder_increments_total", stats.increments),
        ("larder_touches_total", stats.touches),
        ("larder_invalidated_total", 0),
        ("larder_namespace_hits_total{namespace=\"\"}", stats.hits),
        ("larder_entries", stats.entries),
        ("larder_bytes_used", stats.bytes_used),
        ("larder_bytes_limit", stats.bytes_limit),
        ("larder_connections", 1),
        ("larder_node_state{state=\"serving\"}", 1),
        ("larder_rpc_calls_total{method=\"larder.v1.Cache/Get\",code=\"OK\"}", 5),
        ("larder_rpc_calls_total{method=\"larder.v1.Cache/Set\",code=\"OK\"}", 4),
        ("larder_rpc_calls_total{method=\"larder.v1.Cache/Increment\",code=\"OK\"}", 1),
        ("larder_rpc_calls_total{method=\"larder.v1.Cache/Increment\",code=\"INVALID_ARGUMENT\"}", 1),
        ("larder_rpc_calls_total{method=\"larder.v1.Cache/BatchGet\",code=\"OK\"}", 1),
        ("larder_rpc_duration_seconds_count{method=\"larder.v1.Cache/Get\"}", 5),
        ("larder_rpc_calls_total{method=\"larder.v1.Admin/GetStats\",code=\"OK\"}", 1),
    ] {
        assert_eq!(metric(&text, sample), expected, "{sample}");
    }
}

#[tokio::test]
async fn reset_begins_the_counters_again_and_leaves_sizes_and_metrics() {
    let node = Node::start().await;
    let (mut calls, mut admin) = (Calls(node.cache().await), node.admin().await);
    work(&mut calls).await;
    let before = stats(&mut admin).await;
    soon(admin.reset_stats(ResetStatsRequest {})).await.unwrap();
    let after = stats(&mut admin).await;
    assert_eq!(
        [after.hits, after.misses, after.sets, after.deletes, after.increments, after.touches],
        [0; 6]
    );
    assert_eq!([after.sets_not_stored, after.namespaces[0].hits, after.namespaces[0].misses], [0; 3]);
    assert!(after.misses_by_reason.is_empty());
    assert_eq!([after.entries, after.bytes_used], [before.entries, before.bytes_used]);
    assert!(after.uptime_ms >= before.uptime_ms && after.counted_ms <= after.uptime_ms - before.uptime_ms);
    calls.get("a").await.unwrap();
    assert_eq!(stats(&mut admin).await.hits, 1);
    assert_eq!(metric(&node.metrics().await, "larder_hits_total"), before.hits + 1);
}

#[tokio::test]
async fn stream_stats_says_it_at_once_and_again() {
    let node = Node::start().await;
    let (mut calls, mut admin) = (Calls(node.cache().await), node.admin().await);
    let request = StreamStatsRequest { interval_ms: 100 };
    let mut stream = soon(admin.stream_stats(request)).await.unwrap().into_inner();
    let first = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(first.sets, 0);
    calls.set(set("k", "v")).await.unwrap();
    let second = soon(stream.message()).await.unwrap().unwrap();
    let third = soon(stream.message()).await.unwrap().unwrap();
    assert!(second.sets <= 1 && third.sets == 1);
    assert!(third.uptime_ms >= first.uptime_ms + 150, "{} then {}", first.uptime_ms, third.uptime_ms);
    // Neither it nor one with the default interval holds up a drain.
    let mut other =
        soon(admin.stream_stats(StreamStatsRequest { interval_ms: 0 })).await.unwrap().into_inner();
    soon(admin.drain(DrainRequest::default())).await.unwrap();
    while let Ok(Some(_)) = soon(stream.message()).await {}
    while let Ok(Some(_)) = soon(other.message()).await {}
    soon(node.running.stopped()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_is_exchanged_under_load_without_an_error_or_a_lost_entry() {
    let node = Node::start().await;
    let mut calls = Calls(node.cache().await);
    // What all fits: nothing may go.
    let kept: Vec<String> = (0..5_000).map(|n| format!("kept {n}")).collect();
    let items = kept.iter().map(|key| set(key, key)).collect();
    calls.0.batch_set(BatchSetRequest { items, ..Default::default() }).await.unwrap();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut workers = Vec::new();
    for worker in 0..4u64 {
        let (stop, done, kept) = (Arc::clone(&stop), Arc::clone(&done), kept.clone());
        let mut calls = Calls(node.cache().await);
        workers.push(tokio::spawn(async move {
            let mut n = worker * 7_919;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let key = &kept[(n * 31 % 5_000) as usize];
                assert_eq!(calls.value(key).await, key.as_bytes(), "lost");
                let own = format!("worker {worker} key {}", n % 200);
                calls.set(set(&own, n.to_string())).await.unwrap();
                assert_eq!(calls.value(&own).await, n.to_string());
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let mut admin = node.admin().await;
    let mut previous = "adaptive".to_owned();
    let policies = ["lru", "lfu", "fifo", "sieve", "w-tinylfu", "arc", "adaptive", "s3-fifo"];
    for policy in std::iter::repeat_n(policies, 3).flatten() {
        let policy = policy.to_owned();
        let request = SetEvictionPolicyRequest { namespace: String::new(), policy: policy.clone() };
        let answer = soon(admin.set_eviction_policy(request)).await.unwrap().into_inner();
        assert_eq!(answer.previous, previous);
        assert_eq!(stats(&mut admin).await.policy, policy);
        previous = policy;
        let now = done.load(Ordering::Relaxed);
        soon(async {
            while done.load(Ordering::Relaxed) < now + 20 {
                tokio::task::yield_now().await
            }
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        soon(worker).await.unwrap();
    }
    let keys = kept.iter().map(|key| key.clone().into()).collect();
    let results =
        calls.0.batch_get(BatchGetRequest { keys, ..Default::default() }).await.unwrap().into_inner();
    for (key, result) in kept.iter().zip(results.results) {
        assert_eq!(found(result).unwrap().value, key.as_bytes());
    }
    assert_eq!(stats(&mut admin).await.evictions, 0);
    let text = node.metrics().await;
    assert_eq!(metric(&text, "larder_policy_info{policy=\"s3-fifo\"}"), 1);
}

#[tokio::test]
async fn resize_evicts_down_and_holds_and_up_again_makes_room() {
    let node = Node::with(&["--memory", "64MiB", "--shards", "2", "--max-value", "256KiB"]).await;
    let (mut calls, mut admin) = (Calls(node.cache().await), node.admin().await);
    let fill = async |calls: &mut Calls| {
        for n in 0..4_000 {
            calls.set(set(format!("{n}"), vec![n as u8; 10_000])).await.unwrap();
        }
    };
    fill(&mut calls).await;
    let full = stats(&mut admin).await;
    assert_eq!((full.entries, full.evictions), (4_000, 0));
    let small = 8 << 20;
    let request = ResizeRequest { namespace: String::new(), bytes_limit: small };
    let answer = soon(admin.resize(request)).await.unwrap().into_inner();
    assert_eq!(answer.previous_bytes_limit, 64 << 20);
    let held = stats(&mut admin).await;
    assert_eq!(held.bytes_limit, small);
    assert!(held.bytes_used <= small, "{held:?}");
    assert!(held.evictions == 4_000 - held.entries && held.entries > 100, "{held:?}");
    fill(&mut calls).await;
    let held = stats(&mut admin).await;
    assert!(held.bytes_used <= small && held.entries > 100, "{held:?}");
    let request = ResizeRequest { namespace: String::new(), bytes_limit: 64 << 20 };
    soon(admin.resize(request)).await.unwrap();
    fill(&mut calls).await;
    assert_eq!(stats(&mut admin).await.entries, 4_000);
    assert_eq!(metric(&node.metrics().await, "larder_bytes_limit"), 64 << 20);
}

#[tokio::test]
async fn clear_removes_all_and_says_how_many() {
    let node = Node::start().await;
    let (mut calls, mut admin) = (Calls(node.cache().await), node.admin().await);
    for n in 0..100 {
        calls.set(set(format!("{n}"), "v")).await.unwrap();
    }
    let last = calls.get("99").await.unwrap().version;
    calls.set(set("deleted", "v")).await.unwrap();
    calls.delete(delete("deleted")).await;
    let cleared = soon(admin.clear(ClearRequest::default())).await.unwrap().into_inner();
    assert_eq!(cleared.entries, 100);
    for key in ["0", "deleted"] {
        assert_eq!(calls.get(key).await, Err(MissReason::Unknown), "Clear makes a node forget");
    }
    let after = stats(&mut admin).await;
    assert_eq!((after.entries, after.sets, after.evictions, after.deletes), (0, 101, 0, 1));
    assert!(calls.set(set("99", "v")).await.unwrap() > last, "versions go on");
    assert_eq!(soon(admin.clear(ClearRequest::default())).await.unwrap().into_inner().entries, 1);
}

#[tokio::test]
async fn what_expires_is_reclaimed_without_being_asked_for() {
    let node = Node::start().await;
    let (mut calls, mut admin) = (Calls(node.cache().await), node.admin().await);
    let items = (0..1_000)
        .map(|n| SetRequest { expiration: Some(Expiration::TtlMs(50)), ..set(format!("{n}"), "v") })
        .collect();
    calls.0.batch_set(BatchSetRequest { items, ..Default::default() }).await.unwrap();
    calls.set(set("stays", "v")).await.unwrap();
    soon(async { while stats(&mut admin).await.entries > 1 {} }).await;
    let after = stats(&mut admin).await;
    assert_eq!((after.expirations, after.evictions, after.entries), (1_000, 0, 1));
    assert!(calls.get("stays").await.is_ok());
}

#[tokio::test]
async fn get_config_shows_what_is_in_force_and_where_it_comes_from() {
    let node = Node::with(&["--memory", "32MiB", "--zone", "cellar", "--timeout", "3s"]).await;
    let mut admin = node.admin().await;
    let answer = soon(admin.get_config(GetConfigRequest {})).await.unwrap().into_inner();
    let config = answer.config.unwrap();
    assert_eq!(config.listen, [format!("tcp://{}", node.data())], "the port that was picked");
    assert_eq!(config.admin, format!("tcp://{}", node.admin_authority()));
    assert_eq!((config.memory_bytes, config.timeout_ms, config.zone.as_str()), (32 << 20, 3_000, "cellar"));
    assert_eq!((config.policy.as_str(), config.persistence.as_str()), ("adaptive", "none"));
    // Every limit of the contract is shown.
    assert_eq!(
        [
            config.max_key_bytes,
            config.max_value_bytes,
            config.max_message_in_bytes,
            config.max_message_out_bytes
        ],
        [4 << 10, 1 << 20, 4 << 20, 4 << 20]
    );
    assert_eq!((config.max_batch, config.max_content_type_bytes), (10_000, 255));
    assert!(config.shards.is_power_of_two());
    let sources: BTreeMap<&str, ConfigSource> =
        answer.fields.iter().map(|field| (field.path.as_str(), field.source())).collect();
    for (path, source) in [
        ("memory_bytes", ConfigSource::Flag),
        ("zone", ConfigSource::Flag),
        ("timeout_ms", ConfigSource::Flag),
        ("policy", ConfigSource::Default),
        ("max_value_bytes", ConfigSource::Default),
    ] {
        assert_eq!(sources.get(path), Some(&source), "{path}");
    }
    // What was changed since is shown as it is now.
    let request = SetEvictionPolicyRequest { namespace: String::new(), policy: "lru".to_owned() };
    soon(admin.set_eviction_policy(request)).await.unwrap();
    let request = ResizeRequest { namespace: String::new(), bytes_limit: 48 << 20 };
    soon(admin.resize(request)).await.unwrap();
    let config = soon(admin.get_config(GetConfigRequest {})).await.unwrap().into_inner().config.unwrap();
    assert_eq!((config.policy.as_str(), config.memory_bytes), ("lru", 48 << 20));
}

#[tokio::test]
async fn a_node_in_standby_answers_admin_and_serves_after_spawn() {
    let node = Node::with(&["--standby"]).await;
    let mut admin = node.admin().await;
    assert_eq!(stats(&mut admin).await.state(), NodeState::Standby);
    assert!(node.running.node().data_addresses().is_empty());
    assert_eq!(http_get(&node.http(), "/livez").await.0, 200);
    assert_eq!(http_get(&node.http(), "/readyz").await.0, 503);
    let spawned = soon(admin.spawn(SpawnRequest {})).await.unwrap().into_inner();
    assert_eq!(spawned.state(), NodeState::Serving);
    assert_eq!(spawned.addresses, [format!("tcp://{}", node.data())]);
    assert_eq!(http_get(&node.http(), "/readyz").await.0, 200);
    Calls(node.cache().await).set(set("k", "v")).await.unwrap();
    assert_eq!(soon(admin.spawn(SpawnRequest {})).await.unwrap().into_inner(), spawned, "again: no effect");
    let config = soon(admin.get_config(GetConfigRequest {})).await.unwrap().into_inner().config.unwrap();
    assert_eq!(config.listen, spawned.addresses);
}

#[tokio::test]
async fn drain_is_answered_at_once_and_the_node_stops() {
    let node = Node::start().await;
    let (mut calls, mut admin) = (Calls(node.cache().await), node.admin().await);
    calls.set(set("k", "v")).await.unwrap();
    let answer = soon(admin.drain(DrainRequest { deadline_ms: 5_000 })).await.unwrap().into_inner();
    assert!(matches!(answer.state(), NodeState::Draining | NodeState::Stopped), "{answer:?}");
    let data = node.data();
    soon(node.running.stopped()).await;
    assert!(tokio::net::TcpStream::connect(data).await.is_err());
    assert!(calls.0.get(get("k")).await.is_err());
}

#[tokio::test]
async fn health_answers_on_all_three_listeners() {
    let node = Node::start().await;
    for authority in [node.data(), node.admin_authority(), node.health()] {
        let mut health = HealthClient::new(connect(&authority).await);
        for service in ["", "larder.v1.Cache", "larder.v1.Admin"] {
            let request = HealthCheckRequest { service: service.to_owned() };
            let answer = soon(health.check(request)).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving, "{service:?} at {authority}");
        }
        let request = HealthCheckRequest { service: "nothing".to_owned() };
        assert_eq!(soon(health.check(request.clone())).await.unwrap_err().code(), Code::NotFound);
        let mut watch = soon(health.watch(request)).await.unwrap().into_inner();
        let first = soon(watch.message()).await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::ServiceUnknown);
    }
}

macro_rules! listed {
    ($client:path, $pb:ident, $authority:expr) => {{
        let mut client = <$client>::new(connect($authority).await);
        let ask =
            |message| $pb::ServerReflectionRequest { host: String::new(), message_request: Some(message) };
        let asked = [
            ask($pb::server_reflection_request::MessageRequest::ListServices(String::new())),
            ask($pb::server_reflection_request::MessageRequest::FileContainingSymbol(
                "larder.v1.Cache".to_owned(),
            )),
            ask($pb::server_reflection_request::MessageRequest::FileByFilename(
                "google/rpc/status.proto".to_owned(),
            )),
        ];
        let request = client.server_reflection_info(tokio_stream::iter(asked));
        let mut answers = soon(request).await.unwrap().into_inner();
        use $pb::server_reflection_response::MessageResponse;
        let mut next = async || soon(answers.message()).await.unwrap().unwrap().message_response.unwrap();
        let MessageResponse::ListServicesResponse(list) = next().await else { panic!("no list") };
        for what in ["larder.v1.Cache", "google/rpc/status.proto"] {
            let MessageResponse::FileDescriptorResponse(file) = next().await else { panic!("no file") };
            assert!(!file.file_descriptor_proto.is_empty(), "{what}");
        }
        let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
        names.sort();
        names
    }};
}

#[tokio::test]
async fn reflection_of_both_versions_lists_every_service() {
    let node = Node::start().await;
    for authority in [node.data(), node.admin_authority(), node.health()] {
        let new = listed!(
            reflection::server_reflection_client::ServerReflectionClient<Channel>,
            reflection,
            &authority
        );
        let old =
            listed!(v1alpha::server_reflection_client::ServerReflectionClient<Channel>, v1alpha, &authority);
        for names in [new, old] {
            for service in
                ["grpc.health.v1.Health", "larder.v1.Admin", "larder.v1.Cache", "larder.v1.Cluster"]
            {
                assert!(names.iter().any(|name| name == service), "no {service} at {authority} in {names:?}");
            }
        }
    }
}

#[tokio::test]
async fn unknown_paths_over_http_are_not_found() {
    let node = Node::start().await;
    assert_eq!(http_get(&node.http(), "/livez").await.0, 200);
    assert_eq!(http_get(&node.http(), "/nothing").await.0, 404);
    let text = node.metrics().await;
    assert!(text.starts_with("# HELP ") && !text.contains("# EOF"), "it is Prometheus text");
}

#[tokio::test]
async fn open_connections_are_counted_until_they_close() {
    let node = Node::start().await;
    let mut admin = node.admin().await;
    let clients = [Calls(node.cache().await), Calls(node.cache().await), Calls(node.cache().await)];
    for mut calls in clients.clone() {
        let _ = calls.get("k").await;
    }
    assert_eq!(stats(&mut admin).await.connections, 3);
    drop(clients);
    soon(async {
        while stats(&mut admin).await.connections > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await
        }
    })
    .await;
}
