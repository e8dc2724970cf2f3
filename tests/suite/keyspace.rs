//! Scan, Invalidate and tags, as a generated client and the command line see them.

use std::collections::BTreeMap;
use std::process::Command;

use crate::support::node::*;
use bytes::Bytes;
use larder::proto::v1::invalidate_request::Scope;
use larder::proto::v1::*;
use tonic::{Code, Status};

async fn start() -> (Node, Calls) {
    let node = Node::start().await;
    let calls = Calls(node.cache().await);
    (node, calls)
}

/// All pages of a scan; each has at most `page_size` items.
async fn scan_all(calls: &mut Calls, prefix: &[u8], page_size: u32, keys_only: bool) -> BTreeMap<Bytes, Hit> {
    let mut request =
        ScanRequest { prefix: prefix.to_vec().into(), page_size, keys_only, ..ScanRequest::default() };
    let mut found = BTreeMap::new();
    loop {
        let page = calls.0.scan(request.clone()).await.unwrap().into_inner();
        assert!(page.items.len() <= page_size as usize);
        for item in page.items {
            let hit = item.entry.expect("an entry");
            assert_eq!(found.insert(item.key.clone(), hit), None, "{:?} came twice", item.key);
        }
        if page.next_page_token.is_empty() {
            return found;
        }
        request.page_token = page.next_page_token;
    }
}

async fn invalidate(calls: &mut Calls, scope: Option<Scope>) -> Result<u64, Status> {
    let request = InvalidateRequest { namespace: String::new(), scope };
    Ok(calls.0.invalidate(request).await?.into_inner().generation)
}

fn tagged(key: &str, tags: &[&str]) -> SetRequest {
    SetRequest { tags: tags.iter().map(|tag| (*tag).to_owned()).collect(), ..set(key, "v") }
}

#[tokio::test]
async fn a_scan_returns_everything_exactly_once() {
    let (_node, mut calls) = start().await;
    for n in 0..2_500 {
        let request = SetRequest { flags: n, ..set(format!("user:{n}"), format!("value {n}")) };
        calls.set(request).await.unwrap();
    }
    calls.set(set("other", "x")).await.unwrap();
    assert_eq!(scan_all(&mut calls, b"", 333, false).await.len(), 2_501);
    let users = scan_all(&mut calls, b"user:", 1_000, false).await;
    assert_eq!(users.len(), 2_500);
    let one = &users[&Bytes::from("user:77")];
    assert_eq!((&one.value[..], one.flags, one.value_bytes), (&b"value 77"[..], 77, 8));
    assert_eq!((one.version, one.tier()), (calls.get("user:77").await.unwrap().version, Tier::Memory));
    let keys = scan_all(&mut calls, b"user:1", 100, true).await;
    assert_eq!(keys.len(), 1_111);
    assert!(keys.values().all(|hit| hit.value.is_empty() && hit.value_bytes > 0));
    assert!(scan_all(&mut calls, b"nothing", 10, false).await.is_empty());
}

#[tokio::test]
async fn what_stays_is_found_while_the_rest_comes_and_goes() {
    let (_node, mut calls) = start().await;
    for n in 0..2_000 {
        calls.set(set(format!("stay:{n}"), "s")).await.unwrap();
    }
    let mut request = ScanRequest { prefix: Bytes::from("stay:"), page_size: 50, ..ScanRequest::default() };
    let mut found = Vec::new();
    let mut churn = 0;
    loop {
        let page = calls.0.scan(request.clone()).await.unwrap().into_inner();
        found.extend(page.items.into_iter().map(|item| item.key));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        // The index grows, and entries that stay get other values, of other sizes.
        for _ in 0..500 {
            calls.set(set(format!("come:{churn}"), "c")).await.unwrap();
            churn += 1;
        }
        let moved = format!("stay:{}", churn % 2_000);
        calls.set(set(moved, vec![1; churn % 3_000])).await.unwrap();
    }
    assert_eq!(found.len(), 2_000);
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 2_000);
}

#[tokio::test]
async fn a_page_ends_before_the_message_limit() {
    let (_node, mut calls) = start().await;
    for n in 0..12 {
        calls.set(set(format!("{n}"), vec![n; 1 << 20])).await.unwrap();
    }
    let request = ScanRequest { page_size: 100, ..ScanRequest::default() };
    let page = calls.0.scan(request).await.unwrap().into_inner();
    assert_eq!(page.items.len(), 3, "a fourth value of 1 MiB would pass 4 MiB");
    assert_eq!(scan_all(&mut calls, b"", 100, false).await.len(), 12);
}

#[tokio::test]
async fn a_page_token_is_worth_nothing_elsewhere() {
    let (_node, mut calls) = start().await;
    let (_elsewhere, mut others) = start().await;
    for n in 0..20 {
        calls.set(set(format!("k{n}"), "v")).await.unwrap();
    }
    let request = ScanRequest { page_size: 5, prefix: Bytes::from("k"), ..ScanRequest::default() };
    let token = calls.0.scan(request.clone()).await.unwrap().into_inner().next_page_token;
    let cut = token.slice(..token.len() - 1);
    let other_prefix =
        ScanRequest { prefix: Bytes::from("k1"), page_token: token.clone(), ..request.clone() };
    let cases = [
        ("another namespace or prefix", calls.0.scan(other_prefix).await),
        ("none that a node gave", calls.0.scan(ScanRequest { page_token: cut, ..request.clone() }).await),
        ("another node", others.0.scan(ScanRequest { page_token: token, ..request.clone() }).await),
    ];
    for (why, result) in cases {
        let status = result.unwrap_err();
        assert!(status.message().contains(why), "{status:?}");
        assert_status(&status, Code::InvalidArgument, "INVALID_VALUE", Some("page_token"));
    }
    let long = ScanRequest { prefix: vec![b'x'; 4_097].into(), ..ScanRequest::default() };
    let status = calls.0.scan(long).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "KEY_TOO_LONG", Some("prefix"));
    let unknown = ScanRequest { namespace: "none".to_owned(), ..ScanRequest::default() };
    let status = calls.0.scan(unknown).await.unwrap_err();
    assert_status(&status, Code::NotFound, "NAMESPACE_NOT_FOUND", None);
}

#[tokio::test]
async fn what_an_invalidation_covers_is_gone_at_once_and_the_rest_stays() {
    let (_node, mut calls) = start().await;
    calls.set(tagged("a1", &["red", "warm"])).await.unwrap();
    calls.set(tagged("a2", &["blue"])).await.unwrap();
    calls.set(tagged("b1", &["red"])).await.unwrap();
    calls.set(set("b2", "v")).await.unwrap();
    assert_eq!(invalidate(&mut calls, Some(Scope::Tag("red".to_owned()))).await.unwrap(), 1);
    assert_eq!(calls.get("a1").await, Err(MissReason::Invalidated));
    assert_eq!(calls.get("b1").await, Err(MissReason::Invalidated));
    assert!(calls.get("a2").await.is_ok() && calls.get("b2").await.is_ok());
    calls.set(tagged("b1", &["red"])).await.unwrap();
    assert!(calls.get("b1").await.is_ok(), "what is set afterwards is there");
    assert_eq!(invalidate(&mut calls, Some(Scope::Prefix(Bytes::from("b")))).await.unwrap(), 2);
    assert_eq!(scan_all(&mut calls, b"", 10, true).await.into_keys().collect::<Vec<_>>(), ["a2"]);
    assert_eq!(invalidate(&mut calls, Some(Scope::All(true))).await.unwrap(), 3);
    assert_eq!(calls.get("a2").await, Err(MissReason::Invalidated));
    assert!(scan_all(&mut calls, b"", 10, true).await.is_empty());
}

#[tokio::test]
async fn an_invalidation_without_a_scope_changes_nothing() {
    let (_node, mut calls) = start().await;
    calls.set(tagged("k", &["t"])).await.unwrap();
    let cases = [
        (None, "INVALID_VALUE", "scope"),
        (Some(Scope::Prefix(Bytes::new())), "INVALID_VALUE", "prefix"),
        (Some(Scope::Prefix(vec![b'k'; 4_097].into())), "KEY_TOO_LONG", "prefix"),
        (Some(Scope::Tag(String::new())), "BAD_TAG", "tag"),
        (Some(Scope::Tag("t".repeat(256))), "BAD_TAG", "tag"),
        (Some(Scope::All(false)), "FALSE_IN_ONEOF", "all"),
    ];
    for (scope, reason, field) in cases {
        let status = invalidate(&mut calls, scope).await.unwrap_err();
        assert_status(&status, Code::InvalidArgument, reason, Some(field));
    }
    assert!(calls.get("k").await.is_ok());
    assert_eq!(invalidate(&mut calls, Some(Scope::Tag("unknown".to_owned()))).await.unwrap(), 1);
    assert!(calls.get("k").await.is_ok());
}

#[tokio::test]
async fn tags_stay_with_an_entry_through_touch_and_increment_and_go_with_a_set() {
    let (_node, mut calls) = start().await;
    for key in ["touched", "counted", "replaced"] {
        calls.set(SetRequest { value: Bytes::from("1"), ..tagged(key, &["t"]) }).await.unwrap();
    }
    calls.0.touch(touch("touched", 3_600_000)).await.unwrap();
    calls.0.increment(increment("counted", 1)).await.unwrap();
    calls.set(set("replaced", "2")).await.unwrap();
    invalidate(&mut calls, Some(Scope::Tag("t".to_owned()))).await.unwrap();
    assert!(calls.get("touched").await.is_err() && calls.get("counted").await.is_err());
    assert!(calls.get("replaced").await.is_ok());
}

#[tokio::test]
async fn a_client_that_gives_every_entry_tags_of_its_own_takes_nothing_from_others() {
    const ENTRIES: usize = 17_500;
    let node = Node::with(&["--memory", "16MiB"]).await;
    let (mut calls, mut admin) = (Calls(node.cache().await), node.admin().await);
    for first in (0..ENTRIES).step_by(500) {
        let item = |n: usize| {
            let tags: Vec<String> = (0..16).map(|tag| format!("t{n}-{tag}")).collect();
            SetRequest { tags, ..set(format!("key-{n}"), "v") }
        };
        let items = (first..first + 500).map(item).collect();
        let answer = calls.0.batch_set(BatchSetRequest { items, ..Default::default() }).await.unwrap();
        let is_stored = |result: &SetResult| matches!(&result.result, Some(set_result::Result::Response(_)));
        assert!(answer.into_inner().results.iter().all(is_stored));
    }
    let stats = admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner();
    assert_eq!((stats.entries, stats.evictions), (ENTRIES as u64, 0), "{stats:?}");
    assert!(stats.bytes_used < 8 << 20, "{} bytes", stats.bytes_used);
    invalidate(&mut calls, Some(Scope::Tag("t7-15".to_owned()))).await.unwrap();
    assert_eq!(calls.get("key-7").await, Err(MissReason::Invalidated));
    assert!(calls.get("key-8").await.is_ok());
    invalidate(&mut calls, Some(Scope::All(true))).await.unwrap();
    let stats = admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner();
    assert!(stats.entries == 0 && stats.bytes_used < 1 << 20, "{stats:?}");
    calls.set(set("later", "v")).await.unwrap();
}

#[tokio::test]
async fn an_invalidation_that_cannot_be_noted_is_refused_and_asks_to_be_tried_again() {
    let node = Node::with(&["--memory", "16MiB", "--shards", "1"]).await;
    let mut calls = Calls(node.cache().await);
    calls.set(set("key-1", "v")).await.unwrap();
    // Each of another length, and many at once: between two rounds of the sweep come more than 64.
    let refused = loop {
        let mut under_way = tokio::task::JoinSet::new();
        for length in 1..=300 {
            let mut calls = Calls(calls.0.clone());
            let scope = Scope::Prefix(vec![b'x'; length].into());
            under_way.spawn(async move { invalidate(&mut calls, Some(scope)).await });
        }
        if let Some(refused) = under_way.join_all().await.into_iter().find_map(Result::err) {
            break refused;
        }
    };
    assert_status(&refused, Code::ResourceExhausted, "INVALIDATIONS_UNSWEPT", None);
    invalidate(&mut calls, Some(Scope::All(true))).await.unwrap();
    assert_eq!(calls.get("key-1").await, Err(MissReason::Invalidated));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_scans_and_invalidates() {
    let (node, mut calls) = start().await;
    for key in ["a", "b\n", "c"] {
        calls.set(set(key, "v\t1")).await.unwrap();
    }
    let nodes = format!("tcp://{}", node.data());
    let larder = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_larder")).args(args).args(["--nodes", &nodes]).output();
        let output = output.unwrap();
        let mut lines: Vec<String> =
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        (output.status.code(), lines, String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(larder(&["scan"]).1, ["a", r"b\x0a", "c"]);
    assert_eq!(larder(&["scan", "b", "--values"]).1, ["b\\x0a\tv\\x091"]);
    assert_eq!(larder(&["scan", "--limit", "2", "--page-size", "1"]).1.len(), 2);
    let json = larder(&["scan", "c", "--output", "json"]).1;
    let document: serde_json::Value = serde_json::from_str(&json[0]).unwrap();
    assert_eq!((document["key"].as_str(), document["value_bytes"].as_u64()), (Some("c"), Some(3)));
    let (code, _, stderr) = larder(&["invalidate"]);
    assert!(code == Some(2) && stderr.contains("--prefix"), "{stderr}");
    assert_eq!(larder(&["set", "d", "v", "--tag", "menu"]).0, Some(0));
    assert_eq!(
        larder(&["invalidate", "--tag", "menu"]),
        (Some(0), vec!["generation 1".to_owned()], String::new())
    );
    assert_eq!(larder(&["invalidate", "--all"]).1, ["generation 2"]);
    let (code, lines, stderr) = larder(&["scan"]);
    assert!(code == Some(1) && lines.is_empty() && stderr.contains("no such entry"), "{stderr}");
}
