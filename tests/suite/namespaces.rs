//! Namespaces: creating, changing, listing and deleting them, their figures, and what is refused.

use std::process::Command;

use crate::support::node::*;
use crate::support::stream::{command, message};
use larder::proto::v1::admin_client::AdminClient;
use larder::proto::v1::invalidate_request::Scope;
use larder::proto::v1::pipeline_command::Op;
use larder::proto::v1::pipeline_reply::Result as Reply;
use larder::proto::v1::*;
use serde_json::Value;
use tonic::transport::Channel;
use tonic::{Code, Status};

type Admin = AdminClient<Channel>;

async fn start() -> (Node, Calls, Admin) {
    let node = Node::start().await;
    let (calls, admin) = (Calls(node.cache().await), node.admin().await);
    (node, calls, admin)
}

fn config(name: &str, bytes_limit: u64) -> NamespaceConfig {
    NamespaceConfig { name: name.to_owned(), bytes_limit, ..NamespaceConfig::default() }
}

async fn create(admin: &mut Admin, config: NamespaceConfig) -> Result<NamespaceConfig, Status> {
    let request = CreateNamespaceRequest { namespace: Some(config) };
    Ok(soon(admin.create_namespace(request)).await?.into_inner().namespace.unwrap())
}

async fn update(
    admin: &mut Admin,
    config: NamespaceConfig,
    paths: &[&str],
) -> Result<NamespaceConfig, Status> {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let update_mask = Some(prost_types::FieldMask { paths });
    let request = UpdateNamespaceRequest { namespace: Some(config), update_mask };
    Ok(soon(admin.update_namespace(request)).await?.into_inner().namespace.unwrap())
}

async fn list(admin: &mut Admin) -> Vec<NamespaceConfig> {
    soon(admin.list_namespaces(ListNamespacesRequest {})).await.unwrap().into_inner().namespaces
}

async fn remove(admin: &mut Admin, name: &str) -> Result<u64, Status> {
    let request = DeleteNamespaceRequest { name: name.to_owned() };
    Ok(soon(admin.delete_namespace(request)).await?.into_inner().entries)
}

async fn resize(admin: &mut Admin, namespace: &str, bytes_limit: u64) -> Result<u64, Status> {
    let request = ResizeRequest { namespace: namespace.to_owned(), bytes_limit };
    Ok(soon(admin.resize(request)).await?.into_inner().previous_bytes_limit)
}

async fn stats(admin: &mut Admin) -> GetStatsResponse {
    soon(admin.get_stats(GetStatsRequest {})).await.unwrap().into_inner()
}

async fn stats_of(admin: &mut Admin, name: &str) -> NamespaceStats {
    let all = stats(admin).await.namespaces;
    all.into_iter().find(|stats| stats.name == name).unwrap()
}

fn set_in(namespace: &str, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> SetRequest {
    SetRequest { namespace: namespace.to_owned(), ..set(key, value) }
}

fn get_in(namespace: &str, key: impl AsRef<[u8]>) -> GetRequest {
    GetRequest { namespace: namespace.to_owned(), ..get(key) }
}

#[tokio::test]
async fn a_namespace_is_created_listed_used_and_deleted() {
    let (_node, mut calls, mut admin) = start().await;
    let b = NamespaceConfig { policy: "lru".to_owned(), default_ttl_ms: 60_000, ..config("b", 1 << 20) };
    assert_eq!(create(&mut admin, b.clone()).await.unwrap(), b);
    let a = create(&mut admin, config("a", 0)).await.unwrap();
    assert_eq!((a.policy.as_str(), a.default_ttl_ms), ("adaptive", 0), "the node's policy");
    let all = list(&mut admin).await;
    let default = NamespaceConfig { policy: "adaptive".to_owned(), ..config("", 64 << 20) };
    assert_eq!(all, [default, a, b], "the default one first, the others by name");

    for namespace in ["", "a", "b"] {
        calls.set(set_in(namespace, "k", namespace)).await.unwrap();
    }
    for namespace in ["", "a", "b"] {
        assert_eq!(calls.lookup(get_in(namespace, "k")).await.unwrap().value, namespace);
    }
    let ttl = calls.lookup(get_in("b", "k")).await.unwrap().remaining_ttl_ms;
    assert!((1..=60_000).contains(&ttl), "the default time to live, not {ttl}");
    assert_eq!(remove(&mut admin, "b").await.unwrap(), 1);
    let status = calls.0.get(get_in("b", "k")).await.unwrap_err();
    assert_status(&status, Code::NotFound, "NAMESPACE_NOT_FOUND", None);
    create(&mut admin, config("b", 0)).await.unwrap();
    assert!(calls.lookup(get_in("b", "k")).await.is_err(), "nothing came back with the name");
    assert!(calls.lookup(get_in("a", "k")).await.is_ok());
}

#[tokio::test]
async fn a_namespace_that_cannot_be_is_refused_and_the_field_named() {
    let (_node, _calls, mut admin) = start().await;
    let ok = create(&mut admin, config("there", 0)).await.unwrap();
    let long = "n".repeat(256);
    for (name, field) in [("", "name"), (&long, "name"), ("a\nb", "name"), ("a\u{85}", "name")] {
        let status = create(&mut admin, config(name, 0)).await.unwrap_err();
        let field = format!("namespace.{field}");
        assert_status(&status, Code::InvalidArgument, "INVALID_VALUE", Some(&field));
    }
    let status = create(&mut admin, config("big", (64 << 20) + 1)).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "INVALID_VALUE", Some("namespace.bytes_limit"));
    assert!(status.message().contains("67108864"), "{status:?}");
    let odd = NamespaceConfig { policy: "random".to_owned(), ..config("odd", 0) };
    let status = create(&mut admin, odd).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "UNKNOWN_POLICY", Some("policy"));
    assert!(status.message().contains("lru") && status.message().contains("s3-fifo"), "{status:?}");
    let long_lived = NamespaceConfig { default_ttl_ms: u64::MAX, ..config("long", 0) };
    let status = create(&mut admin, long_lived).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "TTL_TOO_LONG", Some("namespace.default_ttl_ms"));
    let long_kept = NamespaceConfig { near_cache_ttl_ms: u64::MAX, ..config("long", 0) };
    let status = create(&mut admin, long_kept).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "TTL_TOO_LONG", Some("namespace.near_cache_ttl_ms"));
    let status = create(&mut admin, config("there", 0)).await.unwrap_err();
    assert_status(&status, Code::AlreadyExists, "NAMESPACE_EXISTS", None);
    let status = admin.create_namespace(CreateNamespaceRequest { namespace: None }).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "INVALID_VALUE", Some("namespace.name"));
    assert_eq!(list(&mut admin).await[1..], [ok], "none of them was made");
    // What is at a bound is right.
    let names = [&long[..255], "a \"b\" \\ c", "ключ"];
    for name in names {
        assert_eq!(create(&mut admin, config(name, 64 << 20)).await.unwrap().name, name);
    }
}

#[tokio::test]
async fn there_are_at_most_1024_namespaces() {
    let (_node, _calls, mut admin) = start().await;
    for n in 1..1_024 {
        create(&mut admin, config(&format!("{n:04}"), 0)).await.unwrap();
    }
    let status = create(&mut admin, config("more", 0)).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "TOO_MANY_NAMESPACES", None);
    let all = list(&mut admin).await;
    assert_eq!(all.len(), 1_024);
    assert!(all.is_sorted_by_key(|config| config.name.clone()));
    remove(&mut admin, "0500").await.unwrap();
    create(&mut admin, config("more", 0)).await.unwrap();
}

#[tokio::test]
async fn an_update_changes_what_its_mask_names_and_all_of_it_or_nothing() {
    let (_node, mut calls, mut admin) = start().await;
    let made = create(&mut admin, config("n", 1 << 20)).await.unwrap();
    let new = NamespaceConfig { policy: "lru".to_owned(), default_ttl_ms: 5_000, ..config("n", 2 << 20) };
    let after = update(&mut admin, new.clone(), &["policy"]).await.unwrap();
    assert_eq!(after, NamespaceConfig { policy: "lru".to_owned(), ..made });
    assert_eq!(update(&mut admin, new.clone(), &["bytes_limit", "default_ttl_ms"]).await.unwrap(), new);
    calls.set(set_in("n", "k", "v")).await.unwrap();
    assert!((1..=5_000).contains(&calls.lookup(get_in("n", "k")).await.unwrap().remaining_ttl_ms));

    let refused = NamespaceConfig { default_ttl_ms: 9, ..config("n", 1 << 40) };
    let status = update(&mut admin, refused, &["default_ttl_ms", "bytes_limit"]).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "INVALID_VALUE", Some("namespace.bytes_limit"));
    let unknown = NamespaceConfig { policy: "best".to_owned(), ..new.clone() };
    let status = update(&mut admin, unknown, &["default_ttl_ms", "policy"]).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "UNKNOWN_POLICY", Some("policy"));
    for (paths, word) in [
        (&[][..], "no field"),
        (&["*"], "\"*\""),
        (&["name"], "name"),
        (&["policy", "entries"], "\"entries\""),
        (&["namespace.policy"], "\"namespace.policy\""),
    ] {
        let status = update(&mut admin, config("n", 0), paths).await.unwrap_err();
        assert_status(&status, Code::InvalidArgument, "INVALID_VALUE", Some("update_mask"));
        let known = ["bytes_limit", "policy", "default_ttl_ms", "near_cache_ttl_ms", word];
        assert!(known.iter().all(|word| status.message().contains(word)), "{status:?}");
    }
    let status = update(&mut admin, config("nowhere", 0), &["policy"]).await.unwrap_err();
    assert_status(&status, Code::NotFound, "NAMESPACE_NOT_FOUND", None);
    assert_eq!(list(&mut admin).await[1], new, "none of these changed a thing");
    let none =
        update(&mut admin, config("n", 0), &["bytes_limit", "policy", "default_ttl_ms"]).await.unwrap();
    assert_eq!(none, NamespaceConfig { policy: "adaptive".to_owned(), ..config("n", 0) });
}

#[tokio::test]
async fn every_answer_says_how_long_a_copy_of_it_may_be_answered_from() {
    let (_node, mut calls, mut admin) = start().await;
    create(&mut admin, NamespaceConfig { near_cache_ttl_ms: 5_000, ..config("n", 0) }).await.unwrap();
    calls.set(set_in("n", "k", "v")).await.unwrap();
    let short_lived = Some(set_request::Expiration::TtlMs(2_000));
    calls.set(SetRequest { expiration: short_lived, ..set_in("n", "short", "v") }).await.unwrap();
    assert_eq!(calls.lookup(get_in("n", "k")).await.unwrap().near_cache_ttl_ms, 5_000);
    let short = calls.lookup(get_in("n", "short")).await.unwrap();
    assert_eq!(short.near_cache_ttl_ms, short.remaining_ttl_ms);
    let keys = vec!["k".into()];
    let batch = BatchGetRequest { namespace: "n".to_owned(), keys };
    let results = calls.0.batch_get(batch).await.unwrap().into_inner().results;
    let in_batch = found(results.into_iter().next().unwrap()).unwrap();
    let commands = message([command(1, Op::Get(get_in("n", "k")))]);
    let mut replies = calls.0.pipeline(tokio_stream::iter([commands])).await.unwrap().into_inner();
    let reply = replies.message().await.unwrap().unwrap().replies.remove(0);
    let Some(Reply::Get(in_pipeline)) = reply.result else { panic!("{reply:?}") };
    let in_pipeline = found(in_pipeline).unwrap();
    let page = ScanRequest { namespace: "n".to_owned(), prefix: "k".into(), ..ScanRequest::default() };
    let mut items = calls.0.scan(page).await.unwrap().into_inner().items;
    let scanned = items.remove(0).entry.unwrap();
    let explained = ExplainKeyRequest { namespace: "n".to_owned(), key: "k".into() };
    let explained = admin.explain_key(explained).await.unwrap().into_inner().entry.unwrap();
    for hit in [in_batch, in_pipeline, scanned, explained] {
        assert_eq!(hit.near_cache_ttl_ms, 5_000, "{hit:?}");
    }
    update(&mut admin, config("n", 0), &["near_cache_ttl_ms"]).await.unwrap();
    assert_eq!(calls.lookup(get_in("n", "k")).await.unwrap().near_cache_ttl_ms, 0);
}

#[tokio::test]
async fn the_default_namespace_can_be_changed_and_not_deleted() {
    let (_node, mut calls, mut admin) = start().await;
    let new = NamespaceConfig { policy: "lru".to_owned(), default_ttl_ms: 5_000, ..config("", 32 << 20) };
    let after = update(&mut admin, new.clone(), &["bytes_limit", "policy", "default_ttl_ms"]).await.unwrap();
    assert_eq!(after, new);
    let figures = stats(&mut admin).await;
    assert_eq!((figures.bytes_limit, figures.policy.as_str()), (32 << 20, "lru"));
    calls.set(set("k", "v")).await.unwrap();
    assert!((1..=5_000).contains(&calls.get("k").await.unwrap().remaining_ttl_ms));
    let made = create(&mut admin, config("n", 0)).await.unwrap();
    assert_eq!((made.policy.as_str(), made.default_ttl_ms), ("lru", 0));
    for bytes_limit in [0, 1, u64::MAX] {
        let status = update(&mut admin, config("", bytes_limit), &["bytes_limit"]).await.unwrap_err();
        assert_status(&status, Code::InvalidArgument, "INVALID_VALUE", Some("namespace.bytes_limit"));
    }
    let status = remove(&mut admin, "").await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "DEFAULT_NAMESPACE", Some("name"));
    let status = remove(&mut admin, "nowhere").await.unwrap_err();
    assert_status(&status, Code::NotFound, "NAMESPACE_NOT_FOUND", None);
}

#[tokio::test]
async fn policy_clear_and_resize_are_of_one_namespace() {
    let (_node, mut calls, mut admin) = start().await;
    create(&mut admin, config("n", 0)).await.unwrap();
    for n in 0..2_000 {
        calls.set(set_in("n", format!("{n}"), vec![1; 500])).await.unwrap();
        calls.set(set(format!("{n}"), "v")).await.unwrap();
    }
    let request = SetEvictionPolicyRequest { namespace: "n".to_owned(), policy: "lru".to_owned() };
    assert_eq!(soon(admin.set_eviction_policy(request)).await.unwrap().into_inner().previous, "adaptive");
    assert_eq!(stats(&mut admin).await.policy, "adaptive", "the default one's stays");
    assert_eq!(stats_of(&mut admin, "n").await.policy, "lru");

    assert_eq!(resize(&mut admin, "n", 200_000).await.unwrap(), 0);
    let held = stats_of(&mut admin, "n").await;
    assert!(held.bytes_used <= 200_000 && held.entries > 100 && held.bytes_limit == 200_000, "{held:?}");
    assert_eq!(held.evictions, 2_000 - held.entries);
    assert_eq!(stats_of(&mut admin, "").await.entries, 2_000);
    let status = resize(&mut admin, "n", (64 << 20) + 1).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "INVALID_VALUE", Some("bytes_limit"));
    assert_eq!(resize(&mut admin, "n", 0).await.unwrap(), 200_000);

    let request = ClearRequest { namespace: "n".to_owned() };
    assert_eq!(soon(admin.clear(request)).await.unwrap().into_inner().entries, held.entries);
    assert_eq!(stats_of(&mut admin, "n").await.entries, 0);
    assert_eq!(stats_of(&mut admin, "").await.entries, 2_000);
    calls.set(set_in("n", "k", "v")).await.unwrap();

    let unknown = "nowhere".to_owned();
    let policy = SetEvictionPolicyRequest { namespace: unknown.clone(), policy: "lru".to_owned() };
    for status in [
        soon(admin.set_eviction_policy(policy)).await.unwrap_err(),
        resize(&mut admin, "nowhere", 0).await.unwrap_err(),
        soon(admin.clear(ClearRequest { namespace: unknown })).await.unwrap_err(),
    ] {
        assert_status(&status, Code::NotFound, "NAMESPACE_NOT_FOUND", None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_over_its_cap_takes_nothing_from_another_under_load() {
    let (node, mut calls, mut admin) = start().await;
    create(&mut admin, config("capped", 1 << 20)).await.unwrap();
    create(&mut admin, config("free", 0)).await.unwrap();
    let items = |namespace: &str, from: u32| {
        let items = (from..from + 500).map(|n| set_in(namespace, format!("{n}"), [7; 200])).collect();
        BatchSetRequest { namespace: namespace.to_owned(), items, ..BatchSetRequest::default() }
    };
    let mut load = Calls(node.cache().await);
    let capped = tokio::spawn(async move {
        for round in 0..60 {
            soon(load.0.batch_set(items("capped", round * 500))).await.unwrap();
        }
    });
    for round in 0..20 {
        soon(calls.0.batch_set(items("free", round * 500))).await.unwrap();
        let used = stats_of(&mut admin, "capped").await.bytes_used;
        assert!(used <= 1 << 20, "{used} bytes, at every moment");
    }
    soon(capped).await.unwrap();
    let (capped, free) = (stats_of(&mut admin, "capped").await, stats_of(&mut admin, "free").await);
    assert!(capped.evictions > 20_000 && capped.entries == 30_000 - capped.evictions, "{capped:?}");
    assert!((900_000..=1 << 20).contains(&capped.bytes_used), "{capped:?}");
    assert_eq!((free.entries, free.evictions, free.sets), (10_000, 0, 10_000));
    let keys = (0..10_000).map(|n| format!("{n}").into()).collect();
    let request = BatchGetRequest { namespace: "free".to_owned(), keys };
    let answers = soon(calls.0.batch_get(request)).await.unwrap().into_inner().results;
    assert!(answers.into_iter().all(|answer| found(answer).is_ok()), "not one was lost");
}

#[tokio::test]
async fn figures_are_each_namespaces_own_since_the_last_reset() {
    let (node, mut calls, mut admin) = start().await;
    let odd = "a \"b\" \\ c";
    create(&mut admin, config(odd, 1 << 20)).await.unwrap();
    for key in ["1", "2", "3"] {
        calls.set(set_in(odd, key, "v")).await.unwrap();
    }
    calls.lookup(get_in(odd, "1")).await.unwrap();
    calls.lookup(get_in(odd, "none")).await.unwrap_err();
    calls.get("none").await.unwrap_err();
    let all = stats(&mut admin).await;
    let [default, own] = &all.namespaces[..] else { panic!("{all:?}") };
    assert_eq!([default.hits, default.misses, default.sets, default.entries], [0, 1, 0, 0]);
    assert_eq!([own.hits, own.misses, own.sets, own.entries, own.bytes_limit], [1, 1, 3, 3, 1 << 20]);
    assert_eq!((own.name.as_str(), own.misses_by_reason[0].reason()), (odd, MissReason::Unknown));
    assert_eq!([all.hits, all.misses, all.sets, all.entries], [1, 2, 3, 3]);

    let text = node.metrics().await;
    let label = r#"namespace="a \"b\" \\ c""#;
    for (sample, value) in [
        (format!("larder_namespace_hits_total{{{label}}}"), 1),
        (format!("larder_namespace_misses_total{{{label},reason=\"unknown\"}}"), 1),
        ("larder_namespace_misses_total{namespace=\"\",reason=\"unknown\"}".to_owned(), 1),
        (format!("larder_namespace_sets_total{{{label}}}"), 3),
        (format!("larder_namespace_entries{{{label}}}"), 3),
        (format!("larder_namespace_bytes_used{{{label}}}"), own.bytes_used),
        (format!("larder_namespace_bytes_limit{{{label}}}"), 1 << 20),
    ] {
        assert_eq!(metric(&text, &sample), value, "{sample}");
    }

    soon(admin.reset_stats(ResetStatsRequest {})).await.unwrap();
    let own = stats_of(&mut admin, odd).await;
    assert_eq!([own.hits, own.misses, own.sets, own.entries], [0, 0, 0, 3]);
    // One of the same name that was made since has counted from 0, and less than the one before.
    assert_eq!(remove(&mut admin, odd).await.unwrap(), 3);
    create(&mut admin, config(odd, 0)).await.unwrap();
    calls.set(set_in(odd, "1", "v")).await.unwrap();
    let own = stats_of(&mut admin, odd).await;
    assert_eq!([own.hits, own.misses, own.sets, own.entries], [0, 0, 1, 1]);
    let all = stats(&mut admin).await;
    assert_eq!([all.hits, all.sets, all.entries], [0, 1, 1]);
    assert_eq!(metric(&node.metrics().await, "larder_sets_total"), 4);
}

#[tokio::test]
async fn what_is_invalidated_is_in_the_figures_at_once() {
    let (node, mut calls, mut admin) = start().await;
    create(&mut admin, config("n", 0)).await.unwrap();
    let items = (0..5_000).map(|n| set_in("n", format!("{n}"), "v")).collect();
    let request = BatchSetRequest { namespace: "n".to_owned(), items, ..BatchSetRequest::default() };
    soon(calls.0.batch_set(request)).await.unwrap();
    calls.set(set("k", "v")).await.unwrap();
    for (namespace, scope) in
        [("n", Scope::Prefix("1".into())), ("n", Scope::All(true)), ("", Scope::Tag("none".to_owned()))]
    {
        let request = InvalidateRequest { namespace: namespace.to_owned(), scope: Some(scope) };
        soon(calls.0.invalidate(request)).await.unwrap();
    }
    let all = stats(&mut admin).await;
    assert_eq!([all.entries, all.invalidations, all.entries_invalidated], [1, 3, 5_000], "{all:?}");
    let [default, own] = &all.namespaces[..] else { panic!("{all:?}") };
    assert_eq!([own.entries, own.entries_invalidated, own.generation, own.bytes_used], [0, 5_000, 2, 0]);
    assert_eq!([default.entries, default.entries_invalidated, default.generation], [1, 0, 1]);
    let text = node.metrics().await;
    assert_eq!(metric(&text, "larder_invalidated_total"), 5_000);
    assert_eq!(metric(&text, "larder_namespace_invalidated_total{namespace=\"n\"}"), 5_000);

    soon(admin.reset_stats(ResetStatsRequest {})).await.unwrap();
    let all = stats(&mut admin).await;
    assert_eq!([all.invalidations, all.entries_invalidated, all.namespaces[1].generation], [0, 0, 2]);
    remove(&mut admin, "n").await.unwrap();
    let request = InvalidateRequest { scope: Some(Scope::All(true)), ..InvalidateRequest::default() };
    soon(calls.0.invalidate(request)).await.unwrap();
    assert_eq!(stats(&mut admin).await.invalidations, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_creates_lists_changes_and_deletes() {
    let node = Node::start().await;
    let (data, admin) = (format!("tcp://{}", node.data()), format!("tcp://{}", node.admin_authority()));
    let larder = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        let output = command.args(args).args(["--nodes", &data, "--admin", &admin]).env_clear().output();
        let output = output.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let json = |args: &[&str]| -> Value {
        let (_, stdout, _) = larder(&[args, &["--output", "json"]].concat());
        serde_json::from_str(&stdout).unwrap()
    };
    let create = ["admin", "namespaces", "create", "a \"b\"", "--bytes-limit", "1MiB"];
    let create = [&create[..], &["--default-ttl", "1h", "--near-cache-ttl", "5s"]].concat();
    let made = "name \"a \\\"b\\\"\"\nbytes_limit 1048576\npolicy adaptive\ndefault_ttl_ms 3600000\nnear_cache_ttl_ms 5000\n";
    assert_eq!(larder(&create), (Some(0), made.to_owned(), String::new()));
    assert_eq!(larder(&["set", "k", "v", "--namespace", "a \"b\""]).0, Some(0));
    let (code, listed, _) = larder(&["admin", "namespaces"]);
    for line in [
        "namespace.\"\".policy adaptive",
        "namespace.\"a \\\"b\\\"\".entries 1",
        "namespace.\"a \\\"b\\\"\".default_ttl_ms 3600000",
        "namespace.\"a \\\"b\\\"\".bytes_limit 1048576",
        "namespace.\"a \\\"b\\\"\".near_cache_ttl_ms 5000",
    ] {
        assert!(code == Some(0) && listed.lines().any(|found| found == line), "{line} is not in\n{listed}");
    }
    assert!(larder(&["admin", "stats"]).1.contains("namespace.\"a \\\"b\\\"\".sets 1\n"));
    let document = json(&["admin", "namespaces"]);
    assert_eq!(document["namespaces"][1]["name"], "a \"b\"");
    assert_eq!(document["namespaces"][1]["sets"], 1);
    let updated = json(&["admin", "namespaces", "update", "a \"b\"", "--bytes-limit", "0B"]);
    assert_eq!((&updated["bytes_limit"], &updated["default_ttl_ms"]), (&0.into(), &3_600_000.into()));
    assert_eq!(json(&["admin", "namespaces", "update", "", "--policy", "lru"])["policy"], "lru");
    let (code, _, stderr) = larder(&["admin", "namespaces", "update", "a \"b\""]);
    assert!(code == Some(2) && stderr.contains("--bytes-limit"), "{stderr}");
    let (code, _, stderr) = larder(&["admin", "namespaces", "create", "c", "--policy", "best"]);
    assert!(code == Some(3) && stderr.contains("UNKNOWN_POLICY"), "{stderr}");
    let (_, deleted, _) = larder(&["admin", "namespaces", "delete", "a \"b\""]);
    assert_eq!(deleted, "entries 1\nblobs 0\n");
    let (code, _, stderr) = larder(&["admin", "namespaces", "delete", "a \"b\""]);
    assert!(code == Some(3) && stderr.contains("NAMESPACE_NOT_FOUND"), "{stderr}");
    assert!(!larder(&["admin", "stats"]).1.contains("namespace."), "the default one alone is the node");
    let (_, completions, _) = larder(&["admin", "--help"]);
    assert!(["namespaces", "hot-keys", "memory", "explain"].iter().all(|word| completions.contains(word)));
}
