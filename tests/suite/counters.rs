//! Counters: Increment and Decrement, as a generated client sees them.

use crate::support::node::*;
use larder::proto::v1::set_request::Expiration;
use larder::proto::v1::*;
use tonic::Code;

const HOUR_MS: u64 = 3_600_000;

async fn start() -> (Node, Calls) {
    let node = Node::start().await;
    let calls = Calls(node.cache().await);
    (node, calls)
}

#[tokio::test]
async fn counters_are_decimal_strings_as_in_redis() {
    let (_node, mut calls) = start().await;
    calls.set(set("k", "10")).await.unwrap();
    assert_eq!(calls.increment(increment("k", 1)).await, 11);
    assert_eq!(calls.value("k").await, "11");
    assert_eq!(calls.increment(increment("k", 0)).await, 12, "delta 0 is 1");
    assert_eq!(calls.decrement(decrement("k", 0)).await, 11);
    assert_eq!(calls.increment(increment("k", -20)).await, -9);
    assert_eq!(calls.value("k").await, "-9");
    assert_eq!(calls.decrement(decrement("k", -9)).await, 0);
    assert_eq!(calls.value("k").await, "0");
    assert_eq!(calls.increment(increment("new", 5)).await, 5, "a missing key counts as 0");
}

#[tokio::test]
async fn a_counter_begins_at_initial_plus_delta_and_an_existing_one_ignores_it() {
    let (_node, mut calls) = start().await;
    let from = |initial| IncrementRequest { initial, ..increment("up", 1) };
    assert_eq!(calls.increment(from(100)).await, 101);
    assert_eq!(calls.increment(from(500)).await, 102);
    let down = DecrementRequest { initial: 100, ..decrement("down", 1) };
    assert_eq!(calls.decrement(down.clone()).await, 99);
    assert_eq!(calls.decrement(down).await, 98);
}

#[tokio::test]
async fn counters_reach_their_bounds_and_stay_there() {
    let (_node, mut calls) = start().await;
    for (bound, step) in [(i64::MAX, 1), (i64::MIN, -1)] {
        calls.set(set("k", bound.to_string())).await.unwrap();
        let version = calls.get("k").await.unwrap().version;
        let status = calls.0.increment(increment("k", step)).await.unwrap_err();
        assert_status(&status, Code::OutOfRange, "COUNTER_OVERFLOW", None);
        assert!(status.message().contains(&bound.to_string()), "{status:?}");
        let hit = calls.get("k").await.unwrap();
        assert_eq!((hit.value, hit.version), (bound.to_string().into(), version));
        assert_eq!(calls.increment(increment("k", -step)).await, bound - step);
    }
    // The negative of the least delta is no 64-bit number.
    calls.set(set("k", "-1")).await.unwrap();
    assert_eq!(calls.decrement(decrement("k", i64::MIN)).await, i64::MAX);
    let status = calls.0.decrement(decrement("none", i64::MIN)).await.unwrap_err();
    assert_status(&status, Code::OutOfRange, "COUNTER_OVERFLOW", None);
    assert!(calls.get("none").await.is_err(), "nothing was made");
}

#[tokio::test]
async fn an_existing_counter_keeps_ttl_flags_and_content_type() {
    let (_node, mut calls) = start().await;
    let made = IncrementRequest { ttl_ms: HOUR_MS, ..increment("made", 1) };
    calls.increment(made).await;
    calls.increment(IncrementRequest { ttl_ms: 5 * HOUR_MS, ..increment("made", 1) }).await;
    let rest = calls.get("made").await.unwrap().remaining_ttl_ms;
    assert!((HOUR_MS - 30_000..=HOUR_MS).contains(&rest), "{rest}");
    let request = SetRequest {
        flags: 9,
        content_type: "text/plain".to_owned(),
        expiration: Some(Expiration::TtlMs(HOUR_MS)),
        ..set("set", "1")
    };
    calls.set(request).await.unwrap();
    calls.increment(increment("set", 1)).await;
    let hit = calls.get("set").await.unwrap();
    assert_eq!((hit.value, hit.flags, hit.content_type.as_str()), ("2".into(), 9, "text/plain"));
    assert!((HOUR_MS - 30_000..=HOUR_MS).contains(&hit.remaining_ttl_ms));
    // And one without a TTL gets none.
    calls.increment(increment("never", 1)).await;
    calls.increment(IncrementRequest { ttl_ms: HOUR_MS, ..increment("never", 1) }).await;
    assert_eq!(calls.get("never").await.unwrap().remaining_ttl_ms, 0);
}

#[tokio::test]
async fn a_request_id_counts_once_for_its_key() {
    let (_node, mut calls) = start().await;
    let once = |key, id: &str| IncrementRequest { request_id: id.to_owned(), ..increment(key, 5) };
    let first = calls.0.increment(once("k", "a")).await.unwrap().into_inner();
    let again = calls.0.increment(once("k", "a")).await.unwrap().into_inner();
    assert_eq!((first.value, again), (5, first));
    assert_eq!(calls.increment(once("k", "b")).await, 10);
    // The first answer, not the value of now.
    assert_eq!(calls.0.increment(once("k", "a")).await.unwrap().into_inner(), first);
    assert_eq!(calls.value("k").await, "10");
    assert_eq!(calls.increment(once("other", "a")).await, 5, "ids are a key's own");
    assert_eq!(calls.increment(once("k", &"x".repeat(64))).await, 15);
    assert_eq!(calls.increment(once("k", "")).await, 20);
    assert_eq!(calls.increment(once("k", "")).await, 25, "an empty one is none");
}

#[tokio::test]
async fn increments_of_many_callers_all_count() {
    let (node, mut calls) = start().await;
    let mut adders = Vec::new();
    for _ in 0..8 {
        let mut calls = Calls(node.cache().await);
        adders.push(tokio::spawn(async move {
            for _ in 0..50 {
                calls.increment(increment("k", 3)).await;
                calls.decrement(decrement("k", 1)).await;
            }
        }));
    }
    for adder in adders {
        soon(adder).await.unwrap();
    }
    assert_eq!(calls.value("k").await, "800");
}
