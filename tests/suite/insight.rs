//! What a node tells operators of single keys and of its memory: hot keys, the memory report, ExplainKey.

use std::process::Command;

use crate::support::node::*;
use larder::proto::v1::invalidate_request::Scope;
use larder::proto::v1::set_request::Expiration;
use larder::proto::v1::*;
use serde_json::Value;
use tonic::Code;
use xxhash_rust::xxh64::xxh64;

/// Runs the binary against a node: exit status, stdout, stderr.
fn larder(node: &Node, args: &[&str]) -> (Option<i32>, String, String) {
    let (data, admin) = (format!("tcp://{}", node.data()), format!("tcp://{}", node.admin_authority()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    let output = command.args(args).args(["--nodes", &data, "--admin", &admin]).env_clear().output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn json(node: &Node, args: &[&str]) -> Value {
    let (_, stdout, _) = larder(node, &[args, &["--output", "json"]].concat());
    serde_json::from_str(&stdout).unwrap()
}

fn explain(namespace: &str, key: &str) -> ExplainKeyRequest {
    ExplainKeyRequest { namespace: namespace.to_owned(), key: key.to_owned().into() }
}

/// What the report advises, but for the process's memory, which the tests share.
fn advice(report: &GetMemoryReportResponse) -> Vec<MemoryAdvice> {
    report.advice.iter().filter(|advice| advice.reason != "RESIDENT_ABOVE_LIMIT").cloned().collect()
}

#[tokio::test]
async fn an_entry_is_explained_without_being_used() {
    let node = Node::start().await;
    let (mut calls, mut admin) = (Calls(node.cache().await), node.admin().await);
    let all = InvalidateRequest { scope: Some(Scope::All(true)), ..InvalidateRequest::default() };
    soon(calls.0.invalidate(all)).await.unwrap();
    let request = SetRequest {
        flags: 7,
        content_type: "text/plain".to_owned(),
        tags: vec!["red".to_owned(), "warm".to_owned()],
        expiration: Some(Expiration::TtlMs(60_000)),
        ..set("k", "four")
    };
    let version = calls.set(request).await.unwrap();
    let hits = soon(admin.get_stats(GetStatsRequest {})).await.unwrap().into_inner().hits;
    let known = soon(admin.explain_key(explain("", "k"))).await.unwrap().into_inner();
    let entry = known.entry.clone().unwrap();
    assert_eq!((entry.version, entry.value_bytes, entry.flags), (version, 4, 7));
    assert_eq!((entry.content_type.as_str(), entry.tier()), ("text/plain", Tier::Memory));
    assert!(entry.value.is_empty() && (1..=60_000).contains(&entry.remaining_ttl_ms));
    assert_eq!(known.miss_reason(), MissReason::Unspecified);
    assert!(known.charged_bytes > 36 && known.charged_bytes < 200, "{known:?}");
    assert_eq!(
        (known.tags.as_slice(), known.policy.as_str()),
        (&["red".into(), "warm".into()][..], "adaptive")
    );
    assert!(known.policy_view.starts_with("in the window queue; asked for 1 times"), "{}", known.policy_view);
    assert_eq!((known.entry_generation, known.generation), (1, 1));
    assert_eq!(known.node_id, format!("tcp://{}", node.data()));
    assert_eq!(known.owner, known.node_id, "a node alone owns every key");
    // XXH64 of namespace, a zero byte and key, in digits; and of those again.
    let digits = format!("{:016x}", xxh64(b"\0k", 0));
    assert_eq!(known.ring_position, xxh64(digits.as_bytes(), 0));
    assert_eq!(soon(admin.get_stats(GetStatsRequest {})).await.unwrap().into_inner().hits, hits);
}

#[tokio::test]
async fn an_entry_that_is_gone_is_explained_by_why() {
    let node = Node::start().await;
    let (mut calls, mut admin) = (Calls(node.cache().await), node.admin().await);
    for key in ["deleted", "invalidated"] {
        calls.set(set(key, "v")).await.unwrap();
    }
    let request = SetRequest { expiration: Some(Expiration::TtlMs(1)), ..set("expired", "v") };
    calls.set(request).await.unwrap();
    calls.delete(delete("deleted")).await;
    let scope = Some(Scope::Prefix("inv".into()));
    soon(calls.0.invalidate(InvalidateRequest { namespace: String::new(), scope })).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    for (key, reason) in [
        ("deleted", MissReason::Deleted),
        ("invalidated", MissReason::Invalidated),
        ("expired", MissReason::Expired),
        ("never", MissReason::Unknown),
    ] {
        let known = soon(admin.explain_key(explain("", key))).await.unwrap().into_inner();
        assert_eq!((known.miss_reason(), known.entry.clone()), (reason, None), "{key}");
        assert_eq!((known.charged_bytes, known.entry_generation, known.generation), (0, 0, 1));
        assert!(known.tags.is_empty() && known.policy_view.is_empty() && known.policy == "adaptive");
    }
    let status = admin.explain_key(explain("", "")).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "KEY_EMPTY", Some("key"));
    let status = admin.explain_key(explain("", &"k".repeat(4_097))).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "KEY_TOO_LONG", Some("key"));
    let status = admin.explain_key(explain("nowhere", "k")).await.unwrap_err();
    assert_status(&status, Code::NotFound, "NAMESPACE_NOT_FOUND", None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_key_is_found_with_its_namespace_and_its_share() {
    let node = Node::start().await;
    let (mut calls, mut admin) = (Calls(node.cache().await), node.admin().await);
    let config = NamespaceConfig { name: "n".to_owned(), ..NamespaceConfig::default() };
    let request = CreateNamespaceRequest { namespace: Some(config) };
    soon(admin.create_namespace(request)).await.unwrap();
    calls.set(SetRequest { namespace: "n".to_owned(), ..set("hot\n", "value") }).await.unwrap();
    // 20 % of 50,000 lookups are for one key, the others for 20,000.
    for round in 0..50u32 {
        let cold = (0..800).map(|n| format!("{}", (round * 800 + n) % 20_000).into()).collect();
        soon(calls.0.batch_get(BatchGetRequest { keys: cold, ..Default::default() })).await.unwrap();
        let keys = vec!["hot\n".into(); 200];
        soon(calls.0.batch_get(BatchGetRequest { namespace: "n".to_owned(), keys })).await.unwrap();
    }
    let hot = soon(admin.list_hot_keys(ListHotKeysRequest {})).await.unwrap().into_inner();
    let first = &hot.keys[0];
    assert_eq!((first.namespace.as_str(), &first.key[..], first.value_bytes), ("n", &b"hot\n"[..], 5));
    assert!((40_000..60_000).contains(&hot.lookups), "{}", hot.lookups);
    assert!(first.count.abs_diff(10_000) <= first.count_error && first.count_error < 2_000, "{first:?}");
    assert!(hot.keys.len() <= 100 && hot.window_ms > 0);

    let (code, text, _) = larder(&node, &["admin", "hot-keys"]);
    assert!(code == Some(0) && text.lines().all(|line| !line.contains('\u{1b}')), "{text}");
    assert!(text.contains("key \"hot\\x0a\" namespace \"n\" share 0."), "{text}");
    let document = json(&node, &["admin", "hot-keys"]);
    assert_eq!(
        (&document["keys"][0]["key"], &document["keys"][0]["value_bytes"]),
        (&"hot\n".into(), &5.into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_report_adds_up_and_advises_a_node_that_is_full() {
    let node = Node::with(&["--memory", "8MiB", "--max-value", "64KiB", "--shards", "2"]).await;
    let (mut calls, mut admin) = (Calls(node.cache().await), node.admin().await);
    let empty = soon(admin.get_memory_report(GetMemoryReportRequest {})).await.unwrap().into_inner();
    assert!(advice(&empty).is_empty(), "{empty:?}");
    for round in 0..60 {
        let items = (0..1_000).map(|n| set(format!("{}", round * 1_000 + n), vec![1; 200])).collect();
        soon(calls.0.batch_set(BatchSetRequest { items, ..Default::default() })).await.unwrap();
    }
    for round in 0..60 {
        let keys = (0..1_000).map(|n| format!("{}", round * 1_000 + n).into()).collect();
        soon(calls.0.batch_get(BatchGetRequest { keys, ..Default::default() })).await.unwrap();
    }
    calls.set(set("large", vec![1; 60_000])).await.unwrap();
    let report = soon(admin.get_memory_report(GetMemoryReportRequest {})).await.unwrap().into_inner();
    let stats = soon(admin.get_stats(GetStatsRequest {})).await.unwrap().into_inner();
    assert_eq!((report.bytes_limit, report.entries), (8 << 20, stats.entries));
    assert_eq!(report.bytes_used, stats.bytes_used);
    assert_eq!(report.bytes_used, report.parts.iter().map(|part| part.bytes).sum::<u64>());
    assert!(report.parts.iter().all(|part| part.charged && part.bytes > 0));
    assert!(report.parts.is_sorted_by_key(|part| std::cmp::Reverse(part.bytes)));
    let names: Vec<&str> = report.parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names[0], "entries", "{names:?}");
    assert!(["large-values", "index", "policy", "hot-keys"].iter().all(|name| names.contains(name)));
    assert!(report.resident_bytes > report.bytes_used && report.allocated_bytes == 0);
    let [advice] = &advice(&report)[..] else { panic!("{:?}", report.advice) };
    assert_eq!(advice.reason, "MEMORY_FULL_EVICTING");
    let evicted = format!("{} entries were evicted", stats.evictions);
    assert!(advice.description.contains(&evicted), "{advice:?}");

    let (code, text, _) = larder(&node, &["admin", "memory"]);
    assert_eq!(code, Some(0));
    for line in ["bytes_limit 8388608\n", "\nparts.entries ", "\nadvice.MEMORY_FULL_EVICTING "] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let document = json(&node, &["admin", "memory"]);
    assert_eq!(document["parts"][0]["name"], "entries");
    let told = document["advice"].as_array().unwrap().iter().map(|advice| &advice["reason"]);
    assert!(told.into_iter().any(|reason| reason == "MEMORY_FULL_EVICTING"), "{document}");
    assert!(document["other_bytes"].as_u64() > Some(1 << 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_explains_a_key_and_ends_with_1_where_there_is_none() {
    let node = Node::start().await;
    let mut calls = Calls(node.cache().await);
    let request = SetRequest { tags: vec!["a\u{1b}[0m".to_owned()], ..set("k\n", "value") };
    calls.set(request).await.unwrap();
    let (code, text, _) = larder(&node, &["admin", "explain", "k\n"]);
    assert_eq!(code, Some(0));
    for line in ["there true", "value_bytes 5", "tags a\\x1b[0m", "policy adaptive", "tier memory"] {
        assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
    }
    let document = json(&node, &["admin", "explain", "--key-hex", "6b0a"]);
    assert_eq!((&document["key"], &document["there"]), (&"k\n".into(), &true.into()));
    assert!(document["ring_position"].is_string() && document["shard"].is_number());
    let (code, text, _) = larder(&node, &["admin", "explain", "none"]);
    assert!(code == Some(1) && text.starts_with("there false\nmiss_reason unknown\n"), "{text}");
    let (code, _, stderr) = larder(&node, &["admin", "explain", "k", "--namespace", "nowhere"]);
    assert!(code == Some(3) && stderr.contains("NAMESPACE_NOT_FOUND"), "{stderr}");
    assert_eq!(larder(&node, &["admin", "explain", ""]).0, Some(2));
}
