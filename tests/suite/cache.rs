//! The Cache service's unary methods, as a generated client sees them.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use crate::support::node::*;
use bytes::Bytes;
use larder::clock::{Clock, SystemClock, monotonic};
use larder::proto::v1::set_request::{Condition, Expiration};
use larder::proto::v1::*;
use tonic::Code;

const HOUR_MS: u64 = 3_600_000;

async fn start() -> (Node, Calls) {
    let node = Node::start().await;
    let calls = Calls(node.cache().await);
    (node, calls)
}

fn now_unix_ms() -> u64 {
    let now = UNIX_EPOCH + Duration::from_micros(SystemClock::new().now().unix_us);
    u64::try_from(now.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn expiring(key: &str, expiration: Expiration) -> SetRequest {
    SetRequest { expiration: Some(expiration), ..set(key, "v") }
}

fn conditional(key: &str, value: &str, condition: Condition) -> SetRequest {
    SetRequest { condition: Some(condition), ..set(key, value) }
}

#[tokio::test]
async fn what_is_set_is_got_with_all_that_was_said_of_it() {
    let (_node, mut calls) = start().await;
    let request = SetRequest {
        flags: u32::MAX,
        content_type: "text/plain; charset=utf-8".to_owned(),
        ..set("tea", "Earl Grey")
    };
    let version = calls.set(request).await.unwrap();
    assert_ne!(version, 0);
    let hit = calls.get("tea").await.unwrap();
    let expected = Hit {
        value: Bytes::from_static(b"Earl Grey"),
        version,
        remaining_ttl_ms: 0,
        flags: u32::MAX,
        content_type: "text/plain; charset=utf-8".to_owned(),
        tier: Tier::Memory as i32,
        near_cache_ttl_ms: 0,
        value_bytes: 9,
    };
    assert_eq!(hit, expected);
    // All of it is replaced.
    let later = calls.set(set("tea", "Assam")).await.unwrap();
    let hit = calls.get("tea").await.unwrap();
    assert_eq!(
        (hit.value, hit.version, hit.flags, hit.content_type),
        ("Assam".into(), later, 0, String::new())
    );
}

#[tokio::test]
async fn a_node_begins_empty() {
    let (_node, mut calls) = start().await;
    assert_eq!(calls.get("nothing").await, Err(MissReason::Unknown));
    assert_eq!(calls.delete(delete("nothing")).await, DeleteResponse::default());
    assert!(!calls.touch(touch("nothing", 0)).await);
}

#[tokio::test]
async fn versions_grow_with_every_write_and_with_nothing_else() {
    let (_node, mut calls) = start().await;
    let mut last = 0;
    for round in 0..100 {
        for key in ["a", "b"] {
            let version = calls.set(set(key, "1")).await.unwrap();
            assert!(version > last, "{version} after {last} in round {round}");
            last = version;
        }
        let counted = calls.0.increment(increment("a", 1)).await.unwrap().into_inner();
        assert!(counted.version > last);
        last = counted.version;
        assert_eq!(calls.get("a").await.unwrap().version, last);
    }
    assert!(calls.touch(touch("a", HOUR_MS)).await);
    assert_eq!(calls.get("a").await.unwrap().version, last);
    // A key that was deleted does not begin again from below.
    calls.delete(delete("a")).await;
    assert!(calls.set(set("a", "again")).await.unwrap() > last);
}

#[tokio::test]
async fn versions_are_unique_also_among_writes_of_one_moment() {
    let (node, _) = start().await;
    let mut writers = Vec::new();
    for writer in 0..4 {
        let mut calls = Calls(node.cache().await);
        writers.push(tokio::spawn(async move {
            let items = (0..2_000).map(|n| set(format!("{writer} {n}"), "v")).collect();
            let done = calls.0.batch_set(BatchSetRequest { items, ..Default::default() }).await.unwrap();
            let results = done.into_inner().results.into_iter().map(|result| match result.result {
                Some(set_result::Result::Response(response)) => stored(response).unwrap(),
                other => panic!("{other:?}"),
            });
            let versions: Vec<u64> = results.collect();
            assert!(versions.is_sorted_by(|one, next| one < next));
            versions
        }));
    }
    let mut all = BTreeSet::new();
    for writer in writers {
        all.extend(soon(writer).await.unwrap());
    }
    assert_eq!(all.len(), 8_000);
}

#[tokio::test]
async fn if_absent_stores_once() {
    let (_node, mut calls) = start().await;
    let first = calls.set(conditional("k", "one", Condition::IfAbsent(true))).await.unwrap();
    assert_eq!(calls.set(conditional("k", "two", Condition::IfAbsent(true))).await, Err(first));
    assert_eq!(calls.value("k").await, "one");
    calls.delete(delete("k")).await;
    assert!(calls.set(conditional("k", "three", Condition::IfAbsent(true))).await.is_ok());
    assert_eq!(calls.value("k").await, "three");
}

#[tokio::test]
async fn if_present_stores_only_over_something() {
    let (_node, mut calls) = start().await;
    assert_eq!(calls.set(conditional("k", "one", Condition::IfPresent(true))).await, Err(0));
    assert_eq!(calls.get("k").await, Err(MissReason::Unknown));
    calls.set(set("k", "one")).await.unwrap();
    calls.set(conditional("k", "two", Condition::IfPresent(true))).await.unwrap();
    assert_eq!(calls.value("k").await, "two");
}

#[tokio::test]
async fn if_version_is_compare_and_set() {
    let (_node, mut calls) = start().await;
    assert_eq!(calls.set(conditional("k", "x", Condition::IfVersion(5))).await, Err(0));
    let first = calls.set(set("k", "one")).await.unwrap();
    let second = calls.set(conditional("k", "two", Condition::IfVersion(first))).await.unwrap();
    assert_eq!(calls.set(conditional("k", "late", Condition::IfVersion(first))).await, Err(second));
    assert_eq!(calls.value("k").await, "two");
}

#[tokio::test]
async fn of_many_that_compare_and_set_one_wins_each_round() {
    let (_node, mut calls) = start().await;
    calls.set(set("k", "0")).await.unwrap();
    let adders = (0..8).map(|_| {
        let mut calls = calls.clone();
        tokio::spawn(async move {
            for _ in 0..25 {
                loop {
                    let hit = calls.get("k").await.unwrap();
                    let sum: u64 = std::str::from_utf8(&hit.value).unwrap().parse().unwrap();
                    let next = conditional("k", &(sum + 1).to_string(), Condition::IfVersion(hit.version));
                    if calls.set(next).await.is_ok() {
                        break;
                    }
                }
            }
        })
    });
    for adder in adders.collect::<Vec<_>>() {
        soon(adder).await.unwrap();
    }
    assert_eq!(calls.value("k").await, "200");
}

#[tokio::test]
async fn delete_removes_and_says_so_once() {
    let (_node, mut calls) = start().await;
    let version = calls.set(set("k", "v")).await.unwrap();
    let other = DeleteRequest { if_version: Some(version - 1), ..delete("k") };
    let refused = DeleteResponse { deleted: false, current_version: version };
    assert_eq!(calls.delete(other).await, refused);
    assert!(calls.get("k").await.is_ok());
    let done = DeleteResponse { deleted: true, current_version: 0 };
    assert_eq!(calls.delete(DeleteRequest { if_version: Some(version), ..delete("k") }).await, done);
    assert_eq!(calls.get("k").await, Err(MissReason::Deleted));
    assert_eq!(calls.delete(delete("k")).await, DeleteResponse::default());
    let gone = DeleteRequest { if_version: Some(version), ..delete("k") };
    assert_eq!(calls.delete(gone).await, DeleteResponse::default());
}

#[tokio::test]
async fn an_expired_entry_is_never_served() {
    let (_node, mut calls) = start().await;
    let ttl = Duration::from_millis(60);
    calls.set(expiring("k", Expiration::TtlMs(60))).await.unwrap();
    let set_by = monotonic();
    loop {
        let asked = set_by.elapsed();
        match calls.get("k").await {
            Ok(hit) => {
                assert!(asked < ttl, "served {asked:?} after a Set with {ttl:?}");
                assert!((1..=60).contains(&hit.remaining_ttl_ms), "{}", hit.remaining_ttl_ms);
            }
            Err(reason) => {
                assert_eq!(reason, MissReason::Expired);
                break;
            }
        }
        assert!(asked < LONG);
    }
    // It lived for its whole time, too.
    assert!(set_by.elapsed() >= Duration::from_millis(50), "{:?}", set_by.elapsed());
    assert!(!calls.touch(touch("k", 0)).await);
    assert_eq!(calls.delete(delete("k")).await, DeleteResponse::default());
    assert!(calls.set(conditional("k", "new", Condition::IfAbsent(true))).await.is_ok());
}

#[tokio::test]
async fn a_live_entry_never_shows_a_rest_of_0() {
    let (_node, mut calls) = start().await;
    for _ in 0..20 {
        calls.set(expiring("k", Expiration::TtlMs(3))).await.unwrap();
        while let Ok(hit) = calls.get("k").await {
            assert!((1..=3).contains(&hit.remaining_ttl_ms), "{}", hit.remaining_ttl_ms);
        }
    }
}

#[tokio::test]
async fn a_ttl_of_0_never_ends_and_neither_does_none() {
    let (_node, mut calls) = start().await;
    calls.set(expiring("k", Expiration::TtlMs(HOUR_MS))).await.unwrap();
    let rest = calls.get("k").await.unwrap().remaining_ttl_ms;
    assert!((HOUR_MS - 30_000..=HOUR_MS).contains(&rest), "{rest}");
    calls.set(expiring("k", Expiration::TtlMs(0))).await.unwrap();
    assert_eq!(calls.get("k").await.unwrap().remaining_ttl_ms, 0);
    calls.set(expiring("k", Expiration::TtlMs(HOUR_MS))).await.unwrap();
    // A Set without an expiration drops the old one.
    calls.set(set("k", "v")).await.unwrap();
    assert_eq!(calls.get("k").await.unwrap().remaining_ttl_ms, 0);
}

#[tokio::test]
async fn the_longest_ttl_is_100_years() {
    let (_node, mut calls) = start().await;
    let longest = 36_525 * 24 * HOUR_MS;
    calls.set(expiring("k", Expiration::TtlMs(longest))).await.unwrap();
    let rest = calls.get("k").await.unwrap().remaining_ttl_ms;
    assert!((longest - 30_000..=longest).contains(&rest), "{rest}");
}

#[tokio::test]
async fn expire_at_is_a_wall_time() {
    let (_node, mut calls) = start().await;
    let at = now_unix_ms() + HOUR_MS;
    calls.set(expiring("k", Expiration::ExpireAtUnixMs(at))).await.unwrap();
    let rest = calls.get("k").await.unwrap().remaining_ttl_ms;
    assert!((HOUR_MS - 30_000..=HOUR_MS).contains(&rest), "{rest}");
}

#[tokio::test]
async fn an_expire_at_in_the_past_stores_nothing_deletes_what_was_there_and_says_so() {
    let (_node, mut calls) = start().await;
    for past in [0, 1, now_unix_ms() - 1_000] {
        calls.set(set("k", "v")).await.unwrap();
        let response = calls.0.set(expiring("k", Expiration::ExpireAtUnixMs(past))).await.unwrap();
        assert_eq!(response.into_inner().outcome, expired());
        assert!(calls.get("k").await.is_err());
        // Also where nothing was there.
        let if_absent = SetRequest {
            condition: Some(Condition::IfAbsent(true)),
            ..expiring("k", Expiration::ExpireAtUnixMs(past))
        };
        let batch = BatchSetRequest { items: vec![if_absent], ..BatchSetRequest::default() };
        let results = calls.0.batch_set(batch).await.unwrap().into_inner().results;
        let Some(set_result::Result::Response(response)) = results[0].result.clone() else {
            panic!("{results:?}");
        };
        assert_eq!(response.outcome, expired());
        // A condition that is not met keeps what is there.
        let version = calls.set(set("k", "v")).await.unwrap();
        let request = SetRequest {
            condition: Some(Condition::IfAbsent(true)),
            ..expiring("k", Expiration::ExpireAtUnixMs(past))
        };
        assert_eq!(calls.set(request).await, Err(version));
        assert!(calls.get("k").await.is_ok());
    }
}

fn expired() -> Option<set_response::Outcome> {
    Some(set_response::Outcome::NotStored(NotStored { expired: true, ..NotStored::default() }))
}

#[tokio::test]
async fn keep_ttl_keeps_the_old_ones_and_a_new_one_has_none() {
    let (_node, mut calls) = start().await;
    calls.set(expiring("k", Expiration::TtlMs(HOUR_MS))).await.unwrap();
    let kept = SetRequest { value: "new".into(), ..expiring("k", Expiration::KeepTtl(true)) };
    calls.set(kept).await.unwrap();
    let hit = calls.get("k").await.unwrap();
    assert_eq!(hit.value, "new");
    assert!((HOUR_MS - 30_000..=HOUR_MS).contains(&hit.remaining_ttl_ms));
    calls.set(expiring("other", Expiration::KeepTtl(true))).await.unwrap();
    assert_eq!(calls.get("other").await.unwrap().remaining_ttl_ms, 0);
}

#[tokio::test]
async fn touch_changes_the_ttl_alone() {
    let (_node, mut calls) = start().await;
    let version = calls.set(SetRequest { flags: 7, ..set("k", "v") }).await.unwrap();
    assert!(calls.touch(touch("k", HOUR_MS)).await);
    let hit = calls.get("k").await.unwrap();
    assert_eq!((hit.value, hit.version, hit.flags), ("v".into(), version, 7));
    assert!((HOUR_MS - 30_000..=HOUR_MS).contains(&hit.remaining_ttl_ms));
    assert!(calls.touch(touch("k", 0)).await);
    assert_eq!(calls.get("k").await.unwrap().remaining_ttl_ms, 0);
}

#[tokio::test]
async fn a_get_can_touch() {
    let (_node, mut calls) = start().await;
    let version = calls.set(expiring("k", Expiration::TtlMs(HOUR_MS))).await.unwrap();
    let hit = calls.lookup(GetRequest { touch_ttl_ms: Some(2 * HOUR_MS), ..get("k") }).await.unwrap();
    assert_eq!(hit.version, version);
    assert!(
        (2 * HOUR_MS - 30_000..=2 * HOUR_MS).contains(&hit.remaining_ttl_ms),
        "the answer has the new one"
    );
    let rest = calls.get("k").await.unwrap().remaining_ttl_ms;
    assert!(rest > HOUR_MS && rest <= 2 * HOUR_MS, "unset leaves it");
    calls.lookup(GetRequest { touch_ttl_ms: Some(0), ..get("k") }).await.unwrap();
    assert_eq!(calls.get("k").await.unwrap().remaining_ttl_ms, 0, "0 never expires");
    assert!(calls.lookup(GetRequest { touch_ttl_ms: Some(1), ..get("none") }).await.is_err());
    assert!(calls.get("none").await.is_err());
}

#[tokio::test]
async fn metadata_only_leaves_the_value_out_and_tells_its_length() {
    let (_node, mut calls) = start().await;
    for (key, bytes) in [("empty", 0), ("small", 100), ("large", 100_000)] {
        let version = calls.set(SetRequest { flags: 3, ..set(key, vec![7; bytes]) }).await.unwrap();
        let hit = calls.lookup(GetRequest { metadata_only: true, ..get(key) }).await.unwrap();
        assert_eq!((hit.value.len(), hit.value_bytes, hit.version, hit.flags), (0, bytes as u64, version, 3));
        let hit = calls.get(key).await.unwrap();
        assert_eq!((hit.value.len(), hit.value_bytes), (bytes, bytes as u64));
    }
}

#[tokio::test]
async fn every_kind_of_object_comes_back_byte_for_byte() {
    let (_node, mut calls) = start().await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    let pattern = |bytes: usize| -> Vec<u8> { (0..bytes).map(|at| (at * 31 % 251) as u8).collect() };
    let mut objects: Vec<(Vec<u8>, Vec<u8>)> = vec![
        (b"empty".to_vec(), Vec::new()),
        (b"text".to_vec(), "Grüße, 世界 \u{1f375}\n".into()),
        (b"zeros".to_vec(), vec![0; 300]),
        (all_bytes.clone(), all_bytes.clone()),
        (vec![0], b"a key of a zero byte".to_vec()),
        (vec![0xff; 4_096], b"the longest key, not UTF-8".to_vec()),
        (vec![b'k'; 4_096], pattern(1 << 20)),
    ];
    // Around where a value gets an allocation of its own, and sizes of frames and windows.
    for bytes in [1, 2, 4_095, 4_096, 4_097, 16_383, 16_384, 16_385, 65_535, 65_536, (1 << 20) - 1, 1 << 20] {
        objects.push((format!("of {bytes}").into_bytes(), pattern(bytes)));
    }
    for (key, value) in &objects {
        calls.set(set(key, value)).await.unwrap();
    }
    for (key, value) in &objects {
        let hit = calls.get(key).await.unwrap();
        assert!(hit.value == value.as_slice(), "{} bytes came back otherwise", value.len());
        assert_eq!(hit.value_bytes, value.len() as u64);
    }
    // An entry that grows, shrinks and grows again over the boundary.
    for bytes in [10, 5_000, 0, 4_096, 4_097, 4_096, 1 << 20, 1] {
        calls.set(set("k", pattern(bytes))).await.unwrap();
        assert!(calls.value("k").await == pattern(bytes), "{bytes} bytes");
    }
}

#[tokio::test]
async fn the_longest_content_type_is_kept_with_values_of_any_size() {
    let (_node, mut calls) = start().await;
    for bytes in [0, 4_096, 4_097] {
        let content_type = "x".repeat(255);
        let request = SetRequest { content_type: content_type.clone(), ..set("k", vec![1; bytes]) };
        calls.set(request).await.unwrap();
        assert_eq!(calls.get("k").await.unwrap().content_type, content_type);
    }
}

#[tokio::test]
async fn batch_get_answers_in_order_with_misses_in_between() {
    let (_node, mut calls) = start().await;
    let large = vec![9; 50_000];
    for (key, value) in [("a", &b"1"[..]), ("b", b""), ("c", &large)] {
        calls.set(set(key, value)).await.unwrap();
    }
    calls.set(set("gone", "v")).await.unwrap();
    calls.delete(delete("gone")).await;
    let keys = ["c", "none", "a", "gone", "a", "b"].map(Bytes::from).to_vec();
    let request = BatchGetRequest { keys, ..BatchGetRequest::default() };
    let results = calls.0.batch_get(request).await.unwrap().into_inner().results;
    let values: Vec<Result<Bytes, MissReason>> =
        results.into_iter().map(|result| found(result).map(|hit| hit.value)).collect();
    let expected = [
        Ok(large.into()),
        Err(MissReason::Unknown),
        Ok("1".into()),
        Err(MissReason::Deleted),
        Ok("1".into()),
        Ok(Bytes::new()),
    ];
    assert_eq!(values, expected);
    let none = calls.0.batch_get(BatchGetRequest::default()).await.unwrap().into_inner();
    assert_eq!(none.results, []);
}

#[tokio::test]
async fn batch_get_of_10_000_keys_is_answered() {
    let (_node, mut calls) = start().await;
    let keys: Vec<Bytes> = (0..10_000).map(|n| format!("key {n}").into()).collect();
    let items = keys.iter().step_by(2).map(|key| set(key, key)).collect();
    let done = calls.0.batch_set(BatchSetRequest { items, ..Default::default() }).await.unwrap();
    assert_eq!(done.into_inner().results.len(), 5_000);
    let request = BatchGetRequest { keys: keys.clone(), ..Default::default() };
    let results = calls.0.batch_get(request).await.unwrap().into_inner().results;
    assert_eq!(results.len(), 10_000);
    for (n, (key, result)) in keys.iter().zip(results).enumerate() {
        match found(result) {
            Ok(hit) => assert!(n % 2 == 0 && hit.value == key, "{n}"),
            Err(reason) => assert!(n % 2 == 1 && reason == MissReason::Unknown, "{n}"),
        }
    }
}

#[tokio::test]
async fn batch_set_gives_each_item_its_own_result() {
    let (_node, mut calls) = start().await;
    calls.set(set("taken", "old")).await.unwrap();
    let items = vec![
        set("a", "1"),
        set("", "no key"),
        conditional("taken", "new", Condition::IfAbsent(true)),
        set("large", vec![0; (1 << 20) + 1]),
        SetRequest { namespace: "other".to_owned(), ..set("elsewhere", "v") },
        SetRequest { durability: Durability::Flushed as i32, ..set("flushed", "v") },
        SetRequest { expiration: Some(Expiration::KeepTtl(false)), ..set("false", "v") },
        set("a", "2"),
    ];
    let results = calls.0.batch_set(BatchSetRequest { items, ..Default::default() }).await.unwrap();
    let results: Vec<Result<Result<u64, u64>, (i32, String)>> = results
        .into_inner()
        .results
        .into_iter()
        .map(|result| match result.result.unwrap() {
            set_result::Result::Response(response) => Ok(stored(response)),
            set_result::Result::Error(error) => {
                assert!(!error.details.is_empty() && !error.message.is_empty());
                Err((error.code, error.message))
            }
        })
        .collect();
    assert_eq!(results.len(), 8);
    let codes: Vec<i32> = results.iter().map(|result| result.as_ref().map_or_else(|e| e.0, |_| 0)).collect();
    let (invalid, exhausted) = (Code::InvalidArgument as i32, Code::ResourceExhausted as i32);
    assert_eq!(codes, [0, invalid, 0, exhausted, invalid, invalid, invalid, 0]);
    assert!(results[2].as_ref().unwrap().is_err(), "not stored is an outcome");
    // What could be done was done, in order.
    assert_eq!(calls.value("a").await, "2");
    assert!(results[7].as_ref().unwrap().unwrap() > results[0].as_ref().unwrap().unwrap());
    assert_eq!(calls.value("taken").await, "old");
    for key in ["large", "elsewhere", "flushed", "false"] {
        assert!(calls.get(key).await.is_err(), "{key}");
    }
}

#[tokio::test]
async fn batch_delete_says_for_each_key_whether_it_was_there() {
    let (_node, mut calls) = start().await;
    for key in ["a", "b"] {
        calls.set(set(key, "v")).await.unwrap();
    }
    let keys = ["none", "a", "a", "b"].map(Bytes::from).to_vec();
    let request = BatchDeleteRequest { keys, ..Default::default() };
    let deleted = calls.0.batch_delete(request).await.unwrap().into_inner().deleted;
    assert_eq!(deleted, [false, true, false, true]);
    assert_eq!(calls.get("a").await, Err(MissReason::Deleted));
    let none = calls.0.batch_delete(BatchDeleteRequest::default()).await.unwrap().into_inner();
    assert!(none.deleted.is_empty());
}

#[tokio::test]
async fn what_room_cost_is_a_miss_with_its_reason() {
    let node = Node::with(&["--memory", "4MiB", "--shards", "1", "--max-value", "64KiB"]).await;
    let mut calls = Calls(node.cache().await);
    for n in 0..400 {
        calls.set(set(format!("{n}"), vec![n as u8; 32 << 10])).await.unwrap();
    }
    let mut evicted = 0;
    for n in 0..400 {
        match calls.get(format!("{n}")).await {
            Ok(hit) => assert!(hit.value == vec![n as u8; 32 << 10]),
            Err(MissReason::Evicted) => evicted += 1,
            // The memory of departed keys is bounded too.
            Err(MissReason::Unknown) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!((1..400).contains(&evicted), "{evicted}");
}

#[tokio::test]
async fn a_buffered_write_may_say_so() {
    let (_node, mut calls) = start().await;
    let durability = Durability::Buffered as i32;
    calls.set(SetRequest { durability, ..set("k", "1") }).await.unwrap();
    assert_eq!(calls.increment(IncrementRequest { durability, ..increment("k", 1) }).await, 2);
    let items = vec![SetRequest { durability, ..set("b", "1") }, set("c", "1")];
    let done = calls.0.batch_set(BatchSetRequest { items, durability, ..Default::default() }).await.unwrap();
    assert!(
        done.into_inner().results.iter().all(|r| matches!(r.result, Some(set_result::Result::Response(_))))
    );
    assert!(calls.delete(DeleteRequest { durability, ..delete("k") }).await.deleted);
}
