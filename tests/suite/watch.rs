//! Cache.Watch: what is told, in which order, to whom; and what becomes of streams that break, stall or lag behind.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::support::node::*;
use larder::proto::v1::invalidation::Scope;
use larder::proto::v1::watch_response::Event;
use larder::proto::v1::*;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

/// A watcher that holds the node to what the contract says of sequences.
struct Watcher {
    stream: Streaming<WatchResponse>,
    /// The last of each shard.
    positions: BTreeMap<u32, WatchPosition>,
    shards: usize,
    /// Shards whose Heartbeat has come.
    covered: BTreeSet<u32>,
}

impl Watcher {
    async fn open(node: &Node, request: WatchRequest) -> Self {
        Self::try_open(node, request).await.unwrap()
    }

    async fn try_open(node: &Node, request: WatchRequest) -> Result<Self, Status> {
        let positions = request.positions.iter().map(|position| (position.shard, *position)).collect();
        let stream = soon(node.cache().await.watch(request)).await?.into_inner();
        Ok(Self { stream, positions, shards: 0, covered: BTreeSet::new() })
    }

    /// One that is covered, of everything.
    async fn of_all(node: &Node) -> Self {
        let mut watcher = Self::open(node, WatchRequest::default()).await;
        assert_eq!(watcher.until_covered().await, []);
        watcher
    }

    async fn next(&mut self) -> Result<Option<WatchResponse>, Status> {
        let Some(message) = soon(self.stream.message()).await? else { return Ok(None) };
        assert!(message.incarnation > 0);
        let event = message.event.as_ref().expect("an event");
        if let Event::Discontinuity(_) = event {
            assert_eq!((message.shard, message.sequence, message.previous_sequence), (0, 0, 0));
            self.positions.clear();
            self.covered.clear();
            return Ok(Some(message));
        }
        let last = self.positions.get(&message.shard).map(|position| position.sequence);
        assert!(last.is_none_or(|last| message.previous_sequence == last), "{last:?} {message:?}");
        match event {
            Event::Heartbeat(heartbeat) => {
                assert!(message.sequence >= message.previous_sequence && heartbeat.interval_ms > 0);
                self.shards = heartbeat.shards as usize;
                self.covered.insert(message.shard);
            }
            _ => assert!(message.sequence > message.previous_sequence, "{message:?}"),
        }
        let (incarnation, shard, sequence) = (message.incarnation, message.shard, message.sequence);
        self.positions.insert(shard, WatchPosition { incarnation, shard, sequence });
        Ok(Some(message))
    }

    /// The next that is no Heartbeat.
    async fn event(&mut self) -> Event {
        loop {
            match self.next().await.unwrap().unwrap().event.unwrap() {
                Event::Heartbeat(_) => {}
                event => return event,
            }
        }
    }

    async fn invalidation(&mut self) -> Invalidation {
        match self.event().await {
            Event::Invalidation(invalidation) => invalidation,
            other => panic!("{other:?}"),
        }
    }

    async fn discontinuity(&mut self) -> DiscontinuityReason {
        match self.event().await {
            Event::Discontinuity(discontinuity) => discontinuity.reason(),
            other => panic!("{other:?}"),
        }
    }

    /// The events until every shard's Heartbeat has come.
    async fn until_covered(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while self.shards == 0 || self.covered.len() < self.shards {
            let event = self.next().await.unwrap().unwrap().event.unwrap();
            if !matches!(event, Event::Heartbeat(_)) {
                events.push(event);
            }
        }
        events
    }

    /// Ends it; the positions that it has come to.
    fn positions(self) -> Vec<WatchPosition> {
        self.positions.into_values().collect()
    }
}

fn key(key: &str) -> Scope {
    Scope::Key(bytes::Bytes::copy_from_slice(key.as_bytes()))
}

fn invalidate(scope: invalidate_request::Scope) -> InvalidateRequest {
    InvalidateRequest { scope: Some(scope), ..InvalidateRequest::default() }
}

#[tokio::test]
async fn every_kind_of_change_is_told_once_in_order_with_its_version() {
    let node = Node::with(&["--shards", "1"]).await;
    let (mut calls, mut admin) = (Calls(node.cache().await), node.admin().await);
    let mut watcher = Watcher::of_all(&node).await;
    // What is told, and the version where it is known; else one above all before.
    let mut expected: Vec<(&str, Scope, Option<u64>)> = Vec::new();
    let mut told = |namespace, scope, version| expected.push((namespace, scope, version));

    let version = calls.set(set("k", "1")).await.unwrap();
    told("", key("k"), Some(version));
    let version = calls.set(SetRequest { tags: vec!["t".to_owned()], ..set("k", "2") }).await.unwrap();
    told("", key("k"), Some(version));
    let absent = set_request::Condition::IfAbsent(true);
    calls.set(SetRequest { condition: Some(absent), ..set("k", "3") }).await.unwrap_err();
    let version = soon(calls.0.increment(increment("k", 1))).await.unwrap().into_inner().version;
    told("", key("k"), Some(version));
    let version = soon(calls.0.decrement(decrement("n", 1))).await.unwrap().into_inner().version;
    told("", key("n"), Some(version));
    assert!(calls.touch(touch("k", 1_000_000)).await);
    told("", key("k"), None);
    assert!(calls.touch(touch("k", 2_000_000)).await);
    calls.lookup(GetRequest { touch_ttl_ms: Some(1_000_000), ..get("k") }).await.unwrap();
    told("", key("k"), None);
    calls.lookup(GetRequest { touch_ttl_ms: Some(0), ..get("k") }).await.unwrap();
    let past = set_request::Expiration::ExpireAtUnixMs(1);
    calls.set(SetRequest { expiration: Some(past), ..set("k", "4") }).await.unwrap_err();
    told("", key("k"), None);
    assert!(calls.delete(delete("n")).await.deleted);
    told("", key("n"), None);
    // It may have been evicted, and a copy of it be kept.
    assert!(!calls.delete(delete("n")).await.deleted);
    told("", key("n"), None);
    let batch = BatchSetRequest { items: vec![set("a", "1"), set("b", "1")], ..Default::default() };
    soon(calls.0.batch_set(batch)).await.unwrap();
    told("", key("a"), None);
    told("", key("b"), None);
    let batch = BatchDeleteRequest { keys: vec!["a".into(), "b".into()], ..Default::default() };
    soon(calls.0.batch_delete(batch)).await.unwrap();
    told("", key("a"), None);
    told("", key("b"), None);
    use invalidate_request::Scope as Asked;
    for (asked, scope) in [
        (Asked::Prefix("k".into()), Scope::Prefix("k".into())),
        (Asked::Tag("t".to_owned()), Scope::Tag("t".to_owned())),
        (Asked::All(true), Scope::All(true)),
    ] {
        soon(calls.0.invalidate(invalidate(asked))).await.unwrap();
        told("", scope, None);
    }
    soon(admin.clear(ClearRequest::default())).await.unwrap();
    told("", Scope::All(true), None);
    let namespace = Some(NamespaceConfig { name: "n".to_owned(), ..NamespaceConfig::default() });
    soon(admin.create_namespace(CreateNamespaceRequest { namespace })).await.unwrap();
    let version = calls.set(SetRequest { namespace: "n".to_owned(), ..set("k", "1") }).await.unwrap();
    told("n", key("k"), Some(version));
    soon(admin.delete_namespace(DeleteNamespaceRequest { name: "n".to_owned() })).await.unwrap();
    told("n", Scope::All(true), None);
    // Its end is known to all that have a copy, and is not told.
    let ttl = Some(set_request::Expiration::TtlMs(1));
    let version = calls.set(SetRequest { expiration: ttl, ..set("brief", "1") }).await.unwrap();
    told("", key("brief"), Some(version));
    soon(async { while calls.get("brief").await.is_ok() {} }).await;
    let version = calls.set(set("last", "1")).await.unwrap();
    told("", key("last"), Some(version));

    let mut newest = 0;
    for (number, (namespace, scope, version)) in expected.into_iter().enumerate() {
        let told = watcher.invalidation().await;
        assert_eq!((&*told.namespace, &told.scope), (namespace, &Some(scope)), "event {number}");
        assert!(told.version > newest && version.is_none_or(|version| version == told.version), "{told:?}");
        newest = told.version;
    }
    let text = node.metrics().await;
    assert_eq!(metric(&text, "larder_watch_events_total"), watcher.positions().last().unwrap().sequence);
    assert_eq!(metric(&text, "larder_watchers"), 1);
}

#[tokio::test]
async fn a_watcher_of_a_namespace_and_a_prefix_is_told_what_may_cover_it_and_no_more() {
    let node = Node::with(&["--shards", "1"]).await;
    let (mut calls, mut admin) = (Calls(node.cache().await), node.admin().await);
    let namespace = Some(NamespaceConfig { name: "n".to_owned(), ..NamespaceConfig::default() });
    soon(admin.create_namespace(CreateNamespaceRequest { namespace })).await.unwrap();
    let ask = |namespaces: &[&str], prefix: &'static str| WatchRequest {
        namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
        prefix: prefix.into(),
        ..WatchRequest::default()
    };
    let mut of_default = Watcher::open(&node, ask(&[""], "user:")).await;
    let mut of_both = Watcher::open(&node, ask(&["", "n"], "")).await;
    of_default.until_covered().await;
    of_both.until_covered().await;
    let mut all = Vec::new();
    for (name, text) in [("", "user:1"), ("n", "user:1"), ("", "order:1"), ("", "user:2")] {
        calls.set(SetRequest { namespace: name.to_owned(), ..set(text, "1") }).await.unwrap();
        all.push((name, key(text)));
    }
    use invalidate_request::Scope as Asked;
    for (asked, scope) in [
        (Asked::Prefix("order".into()), Scope::Prefix("order".into())),
        (Asked::Prefix("us".into()), Scope::Prefix("us".into())),
        (Asked::Tag("t".to_owned()), Scope::Tag("t".to_owned())),
    ] {
        soon(calls.0.invalidate(invalidate(asked))).await.unwrap();
        all.push(("", scope));
    }
    for (name, scope) in &all {
        let told = of_both.invalidation().await;
        assert_eq!((&*told.namespace, told.scope.as_ref()), (*name, Some(scope)));
    }
    for wanted in [0, 3, 5, 6] {
        let told = of_default.invalidation().await;
        assert_eq!((&*told.namespace, told.scope), (all[wanted].0, Some(all[wanted].1.clone())));
    }
    // The next Heartbeat says how far the shard has come, and what was told before it.
    of_default.covered.clear();
    assert_eq!(of_default.until_covered().await, []);
    assert_eq!(of_default.positions()[0].sequence, all.len() as u64);
}

#[tokio::test]
async fn a_stream_that_breaks_goes_on_where_it_was_and_drops_and_repeats_nothing() {
    let node = Node::with(&["--shards", "4"]).await;
    let mut calls = Calls(node.cache().await);
    for filtered in [false, true] {
        let request =
            WatchRequest { prefix: if filtered { "a".into() } else { "".into() }, ..WatchRequest::default() };
        let mut watcher = Watcher::open(&node, request.clone()).await;
        watcher.until_covered().await;
        let mut told = Vec::new();
        for round in 0..20 {
            for number in 0..30 {
                calls.set(set(format!("a-{round}-{number}"), "1")).await.unwrap();
                calls.set(set(format!("b-{round}-{number}"), "1")).await.unwrap();
            }
            // It breaks after some of what came, and more comes before the next.
            for _ in 0..7 {
                told.push(watcher.invalidation().await);
            }
            let positions = watcher.positions();
            watcher = Watcher::open(&node, WatchRequest { positions, ..request.clone() }).await;
        }
        while told.len() < if filtered { 600 } else { 1_200 } {
            told.push(watcher.invalidation().await);
        }
        watcher.covered.clear();
        assert_eq!(watcher.until_covered().await, []);
        let versions: BTreeSet<u64> = told.iter().map(|told| told.version).collect();
        assert_eq!(versions.len(), told.len(), "none was told twice");
        let is_b = |told: &Invalidation| {
            told.scope.as_ref().is_some_and(|scope| matches!(scope, Scope::Key(key) if key.starts_with(b"b")))
        };
        assert!(!filtered || !told.iter().any(is_b));
    }
    assert_eq!(metric(&node.metrics().await, "larder_watch_discontinuities_total"), 0);
}

#[tokio::test]
async fn positions_that_cannot_be_gone_on_from_begin_with_a_discontinuity() {
    // A log of 1 MiB.
    let node = Node::with(&["--memory", "16MiB", "--shards", "2", "--max-value", "256KiB"]).await;
    let mut calls = Calls(node.cache().await);
    let mut watcher = Watcher::of_all(&node).await;
    calls.set(set("k", "1")).await.unwrap();
    watcher.invalidation().await;
    let positions = watcher.positions();
    let mut foreign = positions.clone();
    foreign[1].incarnation += 1;
    let ask = |positions: &[WatchPosition]| WatchRequest {
        positions: positions.to_vec(),
        ..WatchRequest::default()
    };
    let mut watcher = Watcher::open(&node, ask(&foreign)).await;
    assert_eq!(watcher.discontinuity().await, DiscontinuityReason::NewState);
    assert_eq!(watcher.until_covered().await, []);
    let mut large = vec![b'x'; 4_000];
    for number in 0..1_000u32 {
        large[..4].copy_from_slice(&number.to_le_bytes());
        calls.set(set(&large, "1")).await.unwrap();
    }
    let mut watcher = Watcher::open(&node, ask(&positions)).await;
    assert_eq!(watcher.discontinuity().await, DiscontinuityReason::PositionsTooOld);
    assert_eq!(watcher.until_covered().await, []);
    calls.set(set("k", "2")).await.unwrap();
    // What was set last may have been noted after the stream began.
    while watcher.invalidation().await.scope != Some(key("k")) {}
    let text = node.metrics().await;
    assert_eq!(metric(&text, "larder_watch_discontinuities_total"), 2);
    let log_bytes = metric(&text, "larder_watch_log_bytes");
    assert!((900 << 10..1_200 << 10).contains(&log_bytes), "{log_bytes}");
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_told_so_and_goes_on() {
    let flags = ["--memory", "16MiB", "--shards", "2", "--max-value", "256KiB", "--stall-timeout", "10m"];
    let node = Node::with(&flags).await;
    let mut calls = Calls(node.cache().await);
    let mut slow = [
        Watcher::of_all(&node).await,
        Watcher::open(&node, WatchRequest { prefix: "x".into(), ..Default::default() }).await,
    ];
    slow[1].until_covered().await;
    let mut quick = Watcher::of_all(&node).await;
    let mut large = vec![b'x'; 4_000];
    // Four times what the log has room for.
    for number in 0..1_500u32 {
        large[2..6].copy_from_slice(&number.to_le_bytes());
        calls.set(set(&large, "1")).await.unwrap();
        assert_eq!(quick.invalidation().await.scope, Some(Scope::Key(large.clone().into())));
    }
    let text = node.metrics().await;
    assert!(metric(&text, "larder_watch_log_bytes") < 1_200 << 10, "{text}");
    assert!(metric(&text, "larder_response_backlog_bytes") < 1 << 20, "{text}");
    for slow in &mut slow {
        // What was on its way comes first, in order.
        let mut before = 0;
        let reason = loop {
            match slow.event().await {
                Event::Invalidation(_) => before += 1,
                Event::Discontinuity(discontinuity) => break discontinuity.reason(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(reason, DiscontinuityReason::SlowReader);
        assert!(before < 1_000, "{before} were kept for it");
        assert_eq!(slow.until_covered().await, []);
    }
    calls.set(set("xk", "2")).await.unwrap();
    for watcher in slow.iter_mut().chain([&mut quick]) {
        while watcher.invalidation().await.scope != Some(key("xk")) {}
    }
    assert_eq!(metric(&node.metrics().await, "larder_watch_discontinuities_total"), 2);
}

#[tokio::test]
async fn a_drain_ends_watchers_and_does_not_wait_for_them() {
    let node = Node::with(&["--drain-deadline", "10m"]).await;
    let mut watchers = [Watcher::of_all(&node).await, Watcher::of_all(&node).await];
    soon(node.admin().await.drain(DrainRequest::default())).await.unwrap();
    for watcher in &mut watchers {
        let status = loop {
            if let Err(status) = watcher.next().await {
                break status;
            }
        };
        assert_status(&status, Code::Unavailable, "NOT_READY", None);
    }
    soon(node.running.stopped()).await;
}

#[tokio::test]
async fn an_idle_watcher_outlives_the_time_outs_of_others() {
    let node = Node::with(&["--stall-timeout", "100ms", "--timeout", "100ms"]).await;
    let mut watcher = Watcher::of_all(&node).await;
    for _ in 0..2 {
        watcher.covered.clear();
        assert_eq!(watcher.until_covered().await, []);
    }
    Calls(node.cache().await).set(set("k", "1")).await.unwrap();
    assert_eq!(watcher.invalidation().await.scope, Some(key("k")));
}

#[tokio::test]
async fn no_more_watch_than_there_is_room_for_and_one_that_ends_makes_room() {
    let node = Node::with(&["--max-watchers", "2"]).await;
    let first = Watcher::of_all(&node).await;
    let _second = Watcher::of_all(&node).await;
    let refused = Watcher::try_open(&node, WatchRequest::default()).await.err().unwrap();
    assert_status(&refused, Code::ResourceExhausted, "TOO_MANY_WATCHERS", None);
    let info = refused.get_error_details().error_info().unwrap().clone();
    assert_eq!((&*info.metadata["limit"], &*info.metadata["unit"]), ("2", "watchers"));
    drop(first);
    soon(async {
        while Watcher::try_open(&node, WatchRequest::default()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_watch_cannot_ask_for_is_refused_with_its_field() {
    let node = Node::with(&["--shards", "2"]).await;
    let watcher = Watcher::of_all(&node).await;
    let good = watcher.positions()[0];
    let position = |change: fn(&mut WatchPosition)| {
        let mut position = good;
        change(&mut position);
        WatchRequest { positions: vec![position], ..WatchRequest::default() }
    };
    let invalid = Code::InvalidArgument;
    for (request, code, reason, field) in [
        (
            WatchRequest { namespaces: vec!["none".to_owned()], ..Default::default() },
            Code::NotFound,
            "NAMESPACE_NOT_FOUND",
            None,
        ),
        (
            WatchRequest { namespaces: vec![String::new(); 1_025], ..Default::default() },
            invalid,
            "TOO_MANY_ITEMS",
            Some("namespaces"),
        ),
        (
            WatchRequest { prefix: vec![b'x'; 4_097].into(), ..Default::default() },
            invalid,
            "KEY_TOO_LONG",
            Some("prefix"),
        ),
        (
            WatchRequest { positions: vec![good; 1_025], ..Default::default() },
            invalid,
            "TOO_MANY_ITEMS",
            Some("positions"),
        ),
        (position(|position| position.incarnation = 0), invalid, "INVALID_VALUE", Some("positions")),
        (position(|position| position.shard = 2), invalid, "INVALID_VALUE", Some("positions")),
        (position(|position| position.sequence = 1), invalid, "INVALID_VALUE", Some("positions")),
    ] {
        let refused = Watcher::try_open(&node, request).await.err().unwrap();
        assert_status(&refused, code, reason, field);
    }
}

#[tokio::test]
async fn heartbeats_come_within_the_interval_that_they_name() {
    let node = Node::with(&["--shards", "2"]).await;
    let mut watcher = Watcher::of_all(&node).await;
    let began = larder::clock::monotonic();
    for _ in 0..3 {
        watcher.covered.clear();
        watcher.until_covered().await;
    }
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1_500) && took < Duration::from_secs(6), "{took:?}");
}

/// What `larder watch` prints while keys are set, until it has had enough.
async fn printed(node: &Node, flags: &[&str]) -> Vec<String> {
    let nodes = format!("tcp://{}", node.data());
    let child = larder()
        .arg("watch")
        .args(flags)
        .args(["--nodes", &nodes])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut calls = Calls(node.cache().await);
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let mut number = 0;
    soon(async {
        while !ended.is_finished() {
            calls.set(set(format!("user:{number}"), "1")).await.unwrap();
            calls.set(set(format!("order:{number}"), "1")).await.unwrap();
            number += 1;
        }
    })
    .await;
    let output = soon(ended).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_command_prints_a_line_for_each_event() {
    let node = Node::with(&["--shards", "1"]).await;
    let lines = printed(&node, &["--prefix", "user:", "--count", "3"]).await;
    assert_eq!(lines.len(), 3);
    for line in lines {
        let [kind, key, version] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        assert!(kind == "key" && key.starts_with("user:") && version.parse::<u64>().unwrap() > 0, "{line}");
    }
    let lines = printed(&node, &["--all-namespaces", "--count", "2", "--output", "json"]).await;
    let documents: Vec<serde_json::Value> =
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((documents.len(), &documents[0]["event"]), (2, &serde_json::json!("key")));
    assert_eq!(documents[1]["previous_sequence"], documents[0]["sequence"]);
}

#[tokio::test]
async fn a_benchmark_counts_what_its_watchers_were_told() {
    let node = Node::start().await;
    let nodes = format!("tcp://{}", node.data());
    let mut bench = larder();
    bench.args(["bench", "--nodes", &nodes, "-c", "1", "-k", "1000", "-r", "0:1", "--output", "json"]);
    bench.args(["--duration", "1s", "--watchers", "2"]);
    let output = soon(tokio::task::spawn_blocking(move || bench.output().unwrap())).await.unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let watch = &document["watch"];
    assert_eq!((&watch["watchers"], &watch["discontinuities"]), (&2.into(), &0.into()), "{document}");
    let (told, stored) =
        (watch["events"].as_u64().unwrap(), document["throughput"]["stored"].as_u64().unwrap());
    assert!(told > stored && told <= 2 * stored, "{document}");
}
