//! The near cache: copies that are true, and nothing that is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use larder::client::{
    Client, CounterOptions, DeleteOptions, GetOutcome, InvalidateScope, SetExpiration, SetOptions, Tier,
};
use larder::clock::monotonic;
use larder::proto::v1::{CreateNamespaceRequest, NamespaceConfig};

use crate::support::node::*;
use crate::support::proxy::{Network, Proxy};

/// How long an acknowledged write may take until no near cache serves what was before it: 50 ms for 99 of 100, on a machine
/// that does nothing else.
const PROPAGATION: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

async fn near(url: &str) -> Client {
    let builder = Client::builder([url.parse().unwrap()]).near_cache(16 << 20).timeout(LONG);
    let client = builder.connect().await.unwrap();
    is_kept(&client).await;
    client
}

async fn far(url: &str) -> Client {
    Client::builder([url.parse().unwrap()]).timeout(LONG).connect().await.unwrap()
}

/// Waits until what the client reads is kept: its Watch is up.
async fn is_kept(client: &Client) {
    client.set("warm", "up", &SetOptions::default()).await.unwrap();
    let begun = monotonic();
    while tier(&client.get("warm").await.unwrap()) != Some(Tier::NearCache) {
        assert!(begun.elapsed() < PATIENCE, "{:?} {:?}", client.health().borrow(), client.metrics());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn tier(outcome: &GetOutcome) -> Option<Tier> {
    outcome.entry().map(|hit| hit.tier)
}

async fn put(client: &Client, key: &str, value: &str) {
    client.set(key, value.to_owned(), &SetOptions::default()).await.unwrap();
}

async fn value(client: &Client, key: &str) -> Option<Bytes> {
    client.get(key).await.unwrap().into_value()
}

/// Waits until the client reads that of a key.
async fn reads(client: &Client, key: &str, expected: Option<&str>) -> Duration {
    let begun = monotonic();
    while value(client, key).await.as_deref() != expected.map(str::as_bytes) {
        assert!(begun.elapsed() < PATIENCE, "{key} is not {expected:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    begun.elapsed()
}

#[tokio::test]
async fn what_was_read_is_read_again_without_a_call_and_is_all_there() {
    let node = Node::start().await;
    let client = near(&node.data()).await;
    let options = SetOptions {
        expiration: SetExpiration::After(Duration::from_secs(600)),
        flags: 7,
        content_type: "text/plain".to_owned(),
        ..SetOptions::default()
    };
    client.set("k", "v", &options).await.unwrap();
    let GetOutcome::Hit(first) = client.get("k").await.unwrap() else { panic!("a hit") };
    // Its own event may take it away once.
    let begun = monotonic();
    let copy = loop {
        let GetOutcome::Hit(copy) = client.get("k").await.unwrap() else { panic!("a hit") };
        if copy.tier == Tier::NearCache {
            break copy;
        }
        assert!(begun.elapsed() < PATIENCE);
    };
    assert_eq!((&copy.value, copy.version, copy.flags), (&first.value, first.version, 7));
    assert_eq!((copy.content_type.as_str(), copy.value_bytes), ("text/plain", 1));
    assert!(copy.remaining_ttl.unwrap() <= Duration::from_secs(600));
    let before = client.metrics().commands;
    for _ in 0..100 {
        assert_eq!(tier(&client.get("k").await.unwrap()), Some(Tier::NearCache));
    }
    let batch = client.batch_get(vec!["k".into(), "none".into(), "warm".into()]).await.unwrap();
    let tiers: Vec<_> = batch.iter().map(|outcome| tier(outcome.as_ref().unwrap())).collect();
    assert_eq!(tiers, [Some(Tier::NearCache), None, Some(Tier::NearCache)]);
    assert_eq!(client.metrics().commands, before);
    assert!(client.metrics().near_hits >= 102);
    // A batch fills it as well.
    put(&far(&node.data()).await, "b", "v").await;
    client.batch_get(vec!["b".into()]).await.unwrap();
    reads(&client, "b", Some("v")).await;
    while tier(&client.get("b").await.unwrap()) != Some(Tier::NearCache) {}
}

#[tokio::test]
async fn every_kind_of_change_by_another_client_is_seen() {
    let node = Node::start().await;
    let (near, far) = (near(&node.data()).await, far(&node.data()).await);
    for key in ["a", "b", "n", "p:1", "p:2", "all"] {
        put(&far, key, "1").await;
        reads(&near, key, Some("1")).await;
        while tier(&near.get(key).await.unwrap()) != Some(Tier::NearCache) {}
    }
    put(&far, "a", "2").await;
    reads(&near, "a", Some("2")).await;
    far.delete("b", &DeleteOptions::default()).await.unwrap();
    reads(&near, "b", None).await;
    far.increment("n", 4, &CounterOptions::default()).await.unwrap();
    reads(&near, "n", Some("5")).await;
    far.invalidate(InvalidateScope::Prefix("p:".into())).await.unwrap();
    reads(&near, "p:1", None).await;
    reads(&near, "p:2", None).await;
    let tagged = SetOptions { tags: vec!["t".to_owned()], ..SetOptions::default() };
    far.set("a", "3", &tagged).await.unwrap();
    reads(&near, "a", Some("3")).await;
    far.invalidate(InvalidateScope::Tag("t".to_owned())).await.unwrap();
    reads(&near, "a", None).await;
    far.invalidate(InvalidateScope::All).await.unwrap();
    reads(&near, "all", None).await;
    assert_eq!(near.metrics().near_resets, 0, "nothing but what changed was dropped");
}

#[tokio::test]
async fn a_client_reads_its_own_writes() {
    let node = Node::start().await;
    let client = near(&node.data()).await;
    let readers = AtomicBool::new(true);
    let reading = async {
        while readers.load(Ordering::Relaxed) {
            for key in 0..8 {
                client.get(format!("own-{key}")).await.unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    let writing = async {
        for round in 0..500 {
            let key = format!("own-{}", round % 8);
            put(&client, &key, &round.to_string()).await;
            assert_eq!(value(&client, &key).await.unwrap(), round.to_string());
            if round % 3 == 0 {
                client.delete(&key, &DeleteOptions::default()).await.unwrap();
                assert_eq!(value(&client, &key).await, None);
            }
            if round % 50 == 0 {
                let item = (Bytes::from(key.clone()), Bytes::from("batch"));
                client.batch_set(vec![item], &SetOptions::default()).await.unwrap();
                assert_eq!(value(&client, &key).await.unwrap(), "batch");
                client.invalidate(InvalidateScope::Prefix(key.clone().into())).await.unwrap();
                assert_eq!(value(&client, &key).await, None);
            }
        }
        readers.store(false, Ordering::Relaxed);
    };
    tokio::join!(reading, writing);
}

/// One writer counts up each key; readers with a near cache never see less than what was acknowledged some time before
/// they asked, however often the stream that keeps them true breaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_older_than_what_was_acknowledged_before_is_served_through_breaks_of_the_stream() {
    const KEYS: usize = 16;
    let node = Node::start().await;
    let proxy = Proxy::before(&node.data()).await;
    let near = near(&proxy.url()).await;
    let far = far(&node.data()).await;
    // Per key: what was acknowledged, and what was so a propagation time ago.
    let acknowledged: Arc<[AtomicU64]> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (acknowledged, is_over) = (acknowledged.clone(), is_over.clone());
        async move {
            for round in 1_u64.. {
                for key in 0..KEYS {
                    put(&far, &format!("key-{key}"), &round.to_string()).await;
                    acknowledged[key].store(round, Ordering::SeqCst);
                }
                if is_over.load(Ordering::Relaxed) {
                    return round;
                }
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
            0
        }
    });
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (near, acknowledged, is_over) = (near.clone(), acknowledged.clone(), is_over.clone());
            tokio::spawn(async move {
                let (mut near_hits, mut reads) = (0_u64, 0_u64);
                while !is_over.load(Ordering::Relaxed) {
                    for key in 0..KEYS {
                        let floor = acknowledged[key].load(Ordering::SeqCst);
                        let begun = monotonic();
                        loop {
                            let outcome = near.get(format!("key-{key}")).await.unwrap();
                            near_hits += u64::from(tier(&outcome) == Some(Tier::NearCache));
                            let Some(found) = outcome.into_value() else { break };
                            let found: u64 = std::str::from_utf8(&found).unwrap().parse().unwrap();
                            reads += 1;
                            if found >= floor {
                                break;
                            }
                            // No later than a write takes to be known here.
                            assert!(begun.elapsed() < PROPAGATION, "{found} after {floor}");
                            tokio::task::yield_now().await;
                        }
                    }
                    tokio::task::yield_now().await;
                }
                (near_hits, reads)
            })
        })
        .collect();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        proxy.cut();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    is_over.store(true, Ordering::Relaxed);
    let last = writer.await.unwrap();
    let mut served = 0;
    for reader in readers {
        let (near_hits, reads) = reader.await.unwrap();
        assert!(reads > 0);
        served += near_hits;
    }
    assert!(served > 0, "the near cache answered something");
    for key in 0..KEYS {
        reads(&near, &format!("key-{key}"), Some(&last.to_string())).await;
    }
    assert_eq!(near.metrics().near_resets, 0, "a reconnect within the log drops nothing");
}

#[tokio::test]
async fn nothing_is_served_from_copies_while_the_watch_is_down_and_they_are_there_when_it_is_back() {
    let node = Node::start().await;
    let proxy = Proxy::before(&node.data()).await;
    let (near, far) = (near(&proxy.url()).await, far(&node.data()).await);
    for key in ["changes", "stays"] {
        put(&far, key, "1").await;
        reads(&near, key, Some("1")).await;
        while tier(&near.get(key).await.unwrap()) != Some(Tier::NearCache) {}
    }
    proxy.set(Network::BlackHole);
    let begun = monotonic();
    while tier(&near.with_timeout(Duration::from_millis(100)).get("stays").await.unwrap_or(miss())).is_some()
    {
        assert!(begun.elapsed() < PATIENCE, "a copy is served that nobody keeps true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    put(&far, "changes", "2").await;
    proxy.set(Network::Passes);
    proxy.cut();
    is_kept(&near).await;
    assert_eq!(value(&near, "changes").await.unwrap(), "2");
    assert_eq!(tier(&near.get("stays").await.unwrap()), Some(Tier::NearCache), "it was kept");
    assert_eq!(near.metrics().near_resets, 0);
}

fn miss() -> GetOutcome {
    GetOutcome::Miss(larder::client::MissReason::Unknown)
}

#[tokio::test]
async fn a_node_that_comes_back_with_another_state_makes_all_copies_untrue() {
    let node = Process::start(&[]);
    let listen = format!("tcp://{}", node.ready.data[0]);
    let client = near(&listen).await;
    put(&client, "k", "old").await;
    while tier(&client.get("k").await.unwrap()) != Some(Tier::NearCache) {}
    node.signal("KILL");
    drop(node);
    let node = Process::start_on(&["--listen", &listen, "--persistence", "none"]);
    is_kept(&client).await;
    assert_eq!(value(&client, "k").await, None, "the node has it no more");
    assert!(client.metrics().near_resets > 0);
    drop(node);
}

#[tokio::test]
async fn copies_take_no_more_bytes_than_they_may_and_misses_of_one_key_are_one_call() {
    let node = Node::start().await;
    let far = far(&node.data()).await;
    let client = Client::builder([node.data().parse().unwrap()]).near_cache(1 << 20).timeout(LONG);
    let client = client.connect().await.unwrap();
    is_kept(&client).await;
    for key in 0..300 {
        put(&far, &format!("long-{key}"), &"x".repeat(10_000)).await;
        value(&client, &format!("long-{key}")).await.unwrap();
    }
    let metrics = client.metrics();
    assert!(metrics.near_bytes <= 1 << 20 && metrics.near_entries > 10, "{metrics:?}");
    let before = client.metrics().commands;
    let same = (0..100).map(|_| client.get("asked-for-by-many"));
    futures_util::future::join_all(same).await;
    assert_eq!(client.metrics().commands, before + 1);
}

#[tokio::test]
async fn without_watch_a_copy_is_served_for_as_long_as_its_namespace_allows_and_no_longer() {
    let node = Node::with(&["--max-watchers", "0"]).await;
    let (name, near_cache_ttl_ms) = ("old".to_owned(), 400);
    let old = NamespaceConfig { name, near_cache_ttl_ms, ..NamespaceConfig::default() };
    let request = CreateNamespaceRequest { namespace: Some(old) };
    node.admin().await.create_namespace(request).await.unwrap();
    let builder = Client::builder([node.data().parse().unwrap()]).near_cache(1 << 20).timeout(LONG);
    let client = builder.connect().await.unwrap();
    let (old, far) = (client.with_namespace("old"), far(&node.data()).await.with_namespace("old"));
    for kept in [&client, &old] {
        put(kept, "k", "1").await;
        value(kept, "k").await.unwrap();
    }
    assert_eq!(tier(&client.get("k").await.unwrap()), Some(Tier::Memory), "nobody keeps its copy true");
    let mut served = 0;
    let begun = monotonic();
    loop {
        let asked = monotonic();
        let GetOutcome::Hit(hit) = old.get("k").await.unwrap() else { panic!("a hit") };
        if hit.tier == Tier::NearCache {
            assert!(!hit.near_cache_ttl.is_zero() && hit.near_cache_ttl <= Duration::from_millis(400));
            served += 1;
            if served == 1 {
                put(&far, "k", "2").await;
            }
        }
        if hit.value == "2" {
            break;
        }
        assert!(asked - begun < PATIENCE, "{:?}", old.metrics());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(served > 0);
    // A client reads its own writes all the same.
    put(&old, "k", "3").await;
    assert_eq!(value(&old, "k").await.unwrap(), "3");
}
