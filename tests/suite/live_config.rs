//! UpdateConfig: what it changes while a node serves, and what it refuses.

use std::time::Duration;

use crate::support::node::*;
use crate::support::raw::{Raw, answer, framed, post};
use larder::proto::v1::admin_client::AdminClient;
use larder::proto::v1::*;
use prost_types::FieldMask;
use tonic::transport::Channel;
use tonic::{Code, Status};

type Admin = AdminClient<Channel>;

async fn update(admin: &mut Admin, config: Config, paths: &[&str]) -> Result<Config, Status> {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let request = UpdateConfigRequest { config: Some(config), update_mask: Some(FieldMask { paths }) };
    soon(admin.update_config(request)).await.map(|answer| answer.into_inner().config.unwrap())
}

async fn config(admin: &mut Admin) -> GetConfigResponse {
    soon(admin.get_config(GetConfigRequest {})).await.unwrap().into_inner()
}

fn source(answer: &GetConfigResponse, path: &str) -> (ConfigSource, bool) {
    let field = answer.fields.iter().find(|field| field.path == path).unwrap();
    (field.source(), field.live)
}

#[tokio::test]
async fn a_change_is_shown_with_its_source_and_the_rest_stays() {
    let node = Node::with(&["--timeout", "3s"]).await;
    let mut admin = node.admin().await;
    let before = config(&mut admin).await;
    assert_eq!(source(&before, "timeout_ms"), (ConfigSource::Flag, true));
    assert_eq!(source(&before, "shards"), (ConfigSource::Default, false));
    let wanted =
        Config { timeout_ms: 1_500, policy: "lru".to_owned(), zone: "x".to_owned(), ..Config::default() };
    let now = update(&mut admin, wanted, &["timeout_ms", "policy"]).await.unwrap();
    let expected = Config { timeout_ms: 1_500, policy: "lru".to_owned(), ..before.config.clone().unwrap() };
    assert_eq!(now, expected);
    let after = config(&mut admin).await;
    assert_eq!(after.config.as_ref(), Some(&expected));
    assert_eq!(source(&after, "timeout_ms"), (ConfigSource::Admin, true));
    assert_eq!(source(&after, "policy"), (ConfigSource::Admin, true));
    assert_eq!(source(&after, "memory_bytes").0, ConfigSource::Flag);
    assert_eq!(soon(admin.get_stats(GetStatsRequest {})).await.unwrap().into_inner().policy, "lru");
}

#[tokio::test]
async fn all_of_a_change_holds_or_none() {
    let node = Node::start().await;
    let mut admin = node.admin().await;
    let before = config(&mut admin).await;
    let wanted = Config { max_batch: 7, timeout_ms: 3_600_001, ..Config::default() };
    let status = update(&mut admin, wanted.clone(), &["max_batch", "timeout_ms"]).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "INVALID_VALUE", Some("timeout_ms"));
    assert_eq!(status.message(), "timeout_ms is 3600001, not between 0 and 3600000");
    let status = update(&mut admin, wanted, &["max_batch", "shards"]).await.unwrap_err();
    assert_status(&status, Code::FailedPrecondition, "NEEDS_RESTART", None);
    assert!(status.message().contains("shards") && status.message().contains("--shards"), "{status:?}");
    assert_eq!(config(&mut admin).await, before);
}

#[tokio::test]
async fn a_mask_that_names_no_setting_is_refused() {
    let node = Node::start().await;
    let mut admin = node.admin().await;
    for (paths, says) in [
        (&[][..], "empty"),
        (&["*"], "\"*\""),
        (&["timeout"], "did you mean \"timeout_ms\"?"),
        (&["timeout_ms", "config.timeout_ms"], "\"config.timeout_ms\""),
    ] {
        let status = update(&mut admin, Config::default(), paths).await.unwrap_err();
        assert_status(&status, Code::InvalidArgument, "BAD_MASK", Some("update_mask"));
        assert!(status.message().contains(says), "{status:?}");
    }
    let status = soon(admin.update_config(UpdateConfigRequest::default())).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "BAD_MASK", Some("update_mask"));
    let status = update(&mut admin, Config::default(), &["ring_points"]).await.unwrap_err();
    assert_status(&status, Code::Unimplemented, "NOT_SERVED", None);
}

#[tokio::test]
async fn what_cannot_hold_together_is_refused() {
    let node = Node::with(&["--shards", "1"]).await;
    let mut admin = node.admin().await;
    let before = config(&mut admin).await;
    let cases = [
        (Config { max_value_bytes: 5 << 20, ..Config::default() }, "max_value_bytes", "max_message_in_bytes"),
        (
            Config { max_message_out_bytes: 1 << 19, ..Config::default() },
            "max_message_out_bytes",
            "max_value_bytes",
        ),
        (
            Config { max_response_backlog_bytes: 7 << 20, ..Config::default() },
            "max_response_backlog_bytes",
            "max_message_out_bytes",
        ),
        (Config { lame_duck_ms: 8_000, ..Config::default() }, "lame_duck_ms", "drain_deadline_ms"),
        (Config { memory_bytes: 1 << 20, ..Config::default() }, "memory_bytes", "2097152"),
        (Config { memory_bytes: u64::MAX, ..Config::default() }, "memory_bytes", "not between"),
        (Config { max_tags: 17, ..Config::default() }, "max_tags", "between 0 and 16"),
    ];
    for (wanted, field, other) in cases {
        let status = update(&mut admin, wanted, &[field]).await.unwrap_err();
        assert_status(&status, Code::InvalidArgument, "INVALID_VALUE", Some(field));
        assert!(status.message().contains(field) && status.message().contains(other), "{status:?}");
    }
    let status = update(&mut admin, Config { policy: "best".to_owned(), ..Config::default() }, &["policy"]);
    assert_status(&status.await.unwrap_err(), Code::InvalidArgument, "UNKNOWN_POLICY", Some("policy"));
    // The test's process has logs of its own.
    let status = update(&mut admin, Config { log: "debug".to_owned(), ..Config::default() }, &["log"]);
    assert_status(&status.await.unwrap_err(), Code::FailedPrecondition, "NEEDS_RESTART", None);
    let status = update(&mut admin, Config { log: "=loud=".to_owned(), ..Config::default() }, &["log"]);
    assert_status(&status.await.unwrap_err(), Code::InvalidArgument, "INVALID_VALUE", Some("log"));
    assert_eq!(config(&mut admin).await, before);
    // Together they do.
    let wanted = Config {
        max_value_bytes: 5 << 20,
        max_message_in_bytes: 6 << 20,
        max_message_out_bytes: 6 << 20,
        ..Config::default()
    };
    update(&mut admin, wanted, &["max_value_bytes", "max_message_in_bytes", "max_message_out_bytes"])
        .await
        .unwrap();
    node.cache().await.max_encoding_message_size(8 << 20).set(set("k", vec![0; 5 << 20])).await.unwrap();
}

#[tokio::test]
async fn limits_hold_for_the_next_request_on_an_open_connection() {
    let node = Node::start().await;
    let (mut admin, mut calls) = (node.admin().await, Calls(node.cache().await));
    calls.set(set("key", "value")).await.unwrap();
    let wanted = Config {
        max_key_bytes: 2,
        max_value_bytes: 3,
        max_batch: 1,
        max_content_type_bytes: 4,
        max_tags: 1,
        max_tag_bytes: 2,
        max_ttl_ms: 1_000,
        max_namespaces: 1,
        ..Config::default()
    };
    let paths = [
        "max_key_bytes",
        "max_value_bytes",
        "max_batch",
        "max_content_type_bytes",
        "max_tags",
        "max_tag_bytes",
        "max_ttl_ms",
        "max_namespaces",
    ];
    update(&mut admin, wanted, &paths).await.unwrap();
    let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
    for (request, reason) in [
        (set("key", "v"), "KEY_TOO_LONG"),
        (set("k", "value"), "VALUE_TOO_LARGE"),
        (SetRequest { content_type: "a/bcd".to_owned(), ..set("k", "v") }, "CONTENT_TYPE_TOO_LONG"),
        (SetRequest { tags: tags(&["a", "b"]), ..set("k", "v") }, "TOO_MANY_TAGS"),
        (SetRequest { tags: tags(&["abc"]), ..set("k", "v") }, "BAD_TAG"),
        (
            SetRequest { expiration: Some(set_request::Expiration::TtlMs(1_001)), ..set("k", "v") },
            "TTL_TOO_LONG",
        ),
    ] {
        assert_eq!(facts(&calls.0.set(request).await.unwrap_err()).1, reason);
    }
    let keys = vec!["a".into(), "b".into()];
    let status = calls.0.batch_get(BatchGetRequest { keys, ..Default::default() }).await.unwrap_err();
    assert_eq!(facts(&status).1, "BATCH_TOO_LONG");
    calls.set(SetRequest { tags: tags(&["ab"]), ..set("k", "val") }).await.unwrap();
    // What was there stays.
    update(&mut admin, Config { max_key_bytes: 3, ..Config::default() }, &["max_key_bytes"]).await.unwrap();
    assert_eq!(calls.value("key").await, "value");
}

#[tokio::test]
async fn memory_is_resized_and_evicts_down() {
    let node = Node::with(&["--shards", "1"]).await;
    let (mut admin, mut calls) = (node.admin().await, Calls(node.cache().await));
    for number in 0..8 {
        calls.set(set(format!("{number}"), vec![b'v'; 1 << 20])).await.unwrap();
    }
    let wanted = Config { memory_bytes: 4 << 20, ..Config::default() };
    update(&mut admin, wanted, &["memory_bytes"]).await.unwrap();
    let stats = soon(admin.get_stats(GetStatsRequest {})).await.unwrap().into_inner();
    assert_eq!(stats.bytes_limit, 4 << 20);
    assert!(stats.bytes_used <= 4 << 20 && stats.evictions > 0, "{stats:?}");
}

#[tokio::test]
async fn a_new_timeout_ends_calls_and_a_new_bound_sheds_them() {
    let node = Node::with(&["--timeout", "0"]).await;
    let mut admin = node.admin().await;
    let wanted = Config { timeout_ms: 1, ..Config::default() };
    update(&mut admin, wanted, &["timeout_ms"]).await.unwrap();
    let raw = Raw::connect(&node.data()).await;
    // A request that never ends would wait for ever.
    let (response, _open) = raw.open(post("/larder.v1.Cache/Get")).await;
    let status = answer(response).await.status.unwrap();
    assert_status(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED", None);

    let wanted = Config { timeout_ms: 0, max_in_flight: 1, ..Config::default() };
    update(&mut admin, wanted, &["timeout_ms", "max_in_flight"]).await.unwrap();
    let (waiting, mut send) = raw.open(post("/larder.v1.Cache/Get")).await;
    // A connection may have four whose requests are not whole, whatever the limit is.
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(raw.open(post("/larder.v1.Cache/Get")).await);
    }
    let (shed, _open) = raw.open(post("/larder.v1.Cache/Get")).await;
    assert_status(&answer(shed).await.status.unwrap(), Code::ResourceExhausted, "OVERLOADED", None);
    send.send_data(framed(&get("k")), true).unwrap();
    assert_eq!(answer(waiting).await.status.unwrap().code(), Code::Ok);
}

#[tokio::test]
async fn fewer_connections_are_let_in_and_those_that_are_open_stay() {
    let node = Node::start().await;
    let (mut admin, mut calls) = (node.admin().await, Calls(node.cache().await));
    calls.set(set("k", "v")).await.unwrap();
    update(&mut admin, Config { max_connections: 1, ..Config::default() }, &["max_connections"])
        .await
        .unwrap();
    let mut refused = tokio::net::TcpStream::connect(node.data()).await.unwrap();
    let mut byte = [0];
    let read = soon(tokio::io::AsyncReadExt::read(&mut refused, &mut byte)).await;
    assert!(matches!(read, Ok(0) | Err(_)), "closed at once");
    assert_eq!(calls.value("k").await, "v");
    update(&mut admin, Config { max_connections: 2, ..Config::default() }, &["max_connections"])
        .await
        .unwrap();
    assert_eq!(Calls(node.cache().await).value("k").await, "v");
}

#[tokio::test]
async fn a_new_connection_is_held_to_what_is_in_force_then() {
    let node = Node::start().await;
    let mut admin = node.admin().await;
    let wanted = Config { first_byte_timeout_ms: 10, ..Config::default() };
    update(&mut admin, wanted, &["first_byte_timeout_ms"]).await.unwrap();
    let mut silent = tokio::net::TcpStream::connect(node.data()).await.unwrap();
    // By the default it would be left alone for 5 s.
    let mut byte = [0];
    let read = tokio::io::AsyncReadExt::read(&mut silent, &mut byte);
    let read = tokio::time::timeout(Duration::from_secs(4), read).await.expect("closed before the default");
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_drain_takes_the_deadline_that_was_set_last() {
    let node = Node::with(&["--drain-deadline", "1h"]).await;
    let mut admin = node.admin().await;
    let wanted = Config { drain_deadline_ms: 20, ..Config::default() };
    update(&mut admin, wanted, &["drain_deadline_ms"]).await.unwrap();
    let raw = Raw::connect(&node.data()).await;
    // It would hold the drain up for an hour.
    let (_response, _open) = raw.open(post("/larder.v1.Cache/Get").header("grpc-timeout", "2H")).await;
    soon(admin.drain(DrainRequest::default())).await.unwrap();
    soon(node.running.stopped()).await;
}

#[test]
fn the_command_line_changes_the_log_and_shows_slow_calls() {
    let process = Process::start(&["--log", "warn", "--stats-interval", "0", "--slow-op", "1h"]);
    let url = format!("tcp://{}", process.ready.admin);
    let run = |words: &[&str]| {
        let output = larder().args(["--admin", &url]).args(words).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, out, _) = run(&["admin", "config", "set", "log=info", "stats-interval=1h"]);
    assert_eq!((code, out.as_str()), (Some(0), "stats-interval 1h\nlog info\n"));
    let (_, out, _) = run(&["admin", "config"]);
    assert!(out.contains("log info admin\n") && out.contains("slow-op 1h flag\n"), "{out}");
    let (code, out, said) = run(&["admin", "config", "set", "shards=2"]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(said.contains("restart it with --shards"), "{said}");
    let (code, _, said) = run(&["admin", "config", "set", "memory=16TiB"]);
    assert_eq!(code, Some(3));
    assert!(said.contains("INVALID_VALUE") && said.contains("memory_bytes"), "{said}");
    let (code, out, _) = run(&["--output", "json", "admin", "slow"]);
    assert_eq!((code, out.as_str()), (Some(0), "{\"ops\":[],\"threshold_ms\":3600000,\"total\":0}\n"));
    process.terminate();
    let (_, _, log) = process.ended();
    // The figures at the end are logged because they are to be now, and on a level that is shown now.
    assert!(log.contains("larder::stats") && log.contains("configuration changed"), "{log}");
}
