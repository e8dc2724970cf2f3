//! The engine, operation by operation; [`model`] runs it against a plain map.

mod changes;
mod drain;
mod events;
mod keyspace;
mod model;
mod stress;

use std::ops::ControlFlow;

use super::*;
use changes::Changes;

pub(super) fn at(ms: u64) -> Now {
    Now { steady_ms: ms, unix_us: 1_800_000_000_000_000 + ms * 1_000 }
}

fn engine(bytes_limit: u64, shards: u32, policy: PolicyName) -> Engine {
    let config = EngineConfig { bytes_limit, shards: Some(shards), policy, ..EngineConfig::default() };
    Engine::new(&config, at(0))
}

fn get(engine: &Engine, key: &[u8], now: Now) -> Outcome {
    engine.apply(engine.default_namespace(), &Op::Get { key, touch: None }, now)
}

fn value_of(outcome: Outcome) -> Option<Vec<u8>> {
    match outcome {
        Outcome::Hit(hit) => Some(hit.value.to_vec()),
        Outcome::Miss(_) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_lost_while_there_is_room() {
    for policy in PolicyName::ALL {
        let engine = engine(64 << 20, 4, policy);
        for n in 0..100_000u64 {
            engine.apply(
                engine.default_namespace(),
                &Op::Set(Set::new(&n.to_le_bytes(), &n.to_be_bytes())),
                at(n / 100),
            );
            if n % 20_000 == 0 {
                engine.set_policy(engine.default_namespace(), PolicyName::ALL[n as usize / 20_000]);
            }
        }
        engine.validate();
        for n in 0..100_000u64 {
            assert_eq!(value_of(get(&engine, &n.to_le_bytes(), at(1_000))), Some(n.to_be_bytes().to_vec()));
        }
        assert_eq!(engine.stats().evictions, 0);
        assert_eq!(engine.clear(engine.default_namespace(), at(1_000)), 100_000);
        assert_eq!((engine.stats().entries, engine.stats().hits), (0, 100_000));
    }
}

#[test]
fn a_batch_does_not_look_for_an_entry_where_it_was_before_it_expired() {
    let engine = engine(16 << 20, 1, PolicyName::Lru);
    let keys: Vec<[u8; 8]> = (0..300u64).map(u64::to_le_bytes).collect();
    for key in &keys {
        let set = Set { expiration: Expiration::In(Ttl::Ms(100)), ..Set::new(key, &[7; 100]) };
        engine.apply(engine.default_namespace(), &Op::Set(set), at(0));
    }
    // The page of the first goes with the last of its entries, which some gets of the batch find expired.
    let asked: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    let mut misses = 0;
    engine
        .read_batch(engine.default_namespace(), &asked, at(1_000), |_, entry| {
            misses += usize::from(entry.is_err());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((misses, engine.stats().entries), (300, 0));
    engine.validate();
}

#[test]
fn expired_entry_is_never_served_and_is_reclaimed_unasked() {
    let engine = engine(16 << 20, 1, PolicyName::Lru);
    for n in 0..10_000u64 {
        let set = Set { expiration: Expiration::In(Ttl::Ms(500 + n % 1_000)), ..Set::new(b"", b"value") };
        engine.apply(engine.default_namespace(), &Op::Set(Set { key: &n.to_le_bytes(), ..set }), at(0));
    }
    for n in 0..10_000u64 {
        let left = value_of(get(&engine, &n.to_le_bytes(), at(1_000))).is_some();
        assert_eq!(left, 500 + n % 1_000 > 1_000);
    }
    let miss = get(&engine, &9_500u64.to_le_bytes(), at(1_000));
    assert_eq!(miss, Outcome::Miss(MissReason::Expired));
    engine.advance(at(1_500 + 64));
    assert_eq!(engine.stats().entries, 0);
    assert_eq!(engine.stats().expirations, 10_000);
    engine.validate();
}

#[test]
fn a_deadline_beyond_the_wheels_reach_waits_without_work() {
    const HUNDRED_YEARS: u64 = crate::entry::TTL_MS_MAX;
    let engine = engine(16 << 20, 1, PolicyName::Lru);
    for n in 0..500u32 {
        let expiration = Expiration::In(Ttl::Ms(1));
        engine.apply(
            engine.default_namespace(),
            &Op::Set(Set { expiration, ..Set::new(&n.to_le_bytes(), b"v") }),
            at(0),
        );
    }
    // More is due than one operation reclaims, so the wheel still stands at the beginning.
    let now = at(3 * HUNDRED_YEARS);
    let expiration = Expiration::In(Ttl::Ms(HUNDRED_YEARS));
    engine.apply(engine.default_namespace(), &Op::Set(Set { expiration, ..Set::new(b"far", b"v") }), now);
    let advance = |now| engine.shards[0].lock().advance(now, 10_000);
    assert!(advance(now) < 10_000, "the wheel turns for nothing");
    let last = at(4 * HUNDRED_YEARS - 1);
    assert!(advance(last) < 10_000, "the wheel turns for nothing");
    assert_eq!(value_of(get(&engine, b"far", last)), Some(b"v".to_vec()));
    advance(at(4 * HUNDRED_YEARS + 64));
    assert_eq!(engine.stats().entries, 0);
    engine.validate();
}

#[test]
fn a_wall_clock_jump_of_ten_years_changes_no_live_ttl() {
    let engine = engine(16 << 20, 1, PolicyName::S3Fifo);
    let set = Set { expiration: Expiration::In(Ttl::Ms(1_000)), ..Set::new(b"k", b"v") };
    engine.apply(engine.default_namespace(), &Op::Set(set), at(0));
    for years in [-10i64, 10] {
        let jump = years * 365 * 86_400 * 1_000_000;
        let jumped = Now { unix_us: at(0).unix_us.checked_add_signed(jump).unwrap(), ..at(999) };
        let Outcome::Hit(hit) = get(&engine, b"k", jumped) else { panic!("gone after {years} years") };
        assert_eq!(hit.remaining_ttl_ms, 1);
    }
    assert_eq!(value_of(get(&engine, b"k", at(1_000))), None);
}

#[test]
fn a_batch_reads_what_single_gets_read() {
    let engine = engine(16 << 20, 8, PolicyName::S3Fifo);
    let keys: Vec<String> = (0..1_000).map(|n| format!("key-{}", n % 700)).collect();
    for (n, key) in keys.iter().enumerate().filter(|(n, _)| n % 3 != 0) {
        let value = vec![7; n * 10];
        let expiration = Expiration::In(if n % 5 == 0 { Ttl::Ms(10) } else { Ttl::Never });
        engine.apply(
            engine.default_namespace(),
            &Op::Set(Set { expiration, ..Set::new(key.as_bytes(), &value) }),
            at(0),
        );
    }
    let asked: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
    let mut read: Vec<Option<Outcome>> = vec![None; keys.len()];
    engine
        .read_batch(engine.default_namespace(), &asked, at(10), |index, entry| {
            let outcome = match entry {
                Ok(entry) => Outcome::Hit(entry.to_hit()),
                Err(NotRead::Miss(reason)) => Outcome::Miss(reason),
                Err(other) => panic!("{other:?}"),
            };
            assert_eq!(read[index].replace(outcome), None, "each key is answered once");
            ControlFlow::Continue(())
        })
        .unwrap();
    for (key, read) in asked.iter().zip(read) {
        assert_eq!(read, Some(get(&engine, key, at(10))));
    }
    let mut order = Vec::new();
    engine
        .read_batch(engine.default_namespace(), &asked, at(10), |index, _| {
            order.push(index);
            if index == 99 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(order, (0..100).collect::<Vec<_>>(), "in the keys' order, and no further than is wanted");
}

#[test]
fn miss_tells_its_reason() {
    let engine = engine(BYTES_LIMIT_MIN, 1, PolicyName::Lru);
    let miss = |key: &[u8]| get(&engine, key, at(0));
    assert_eq!(miss(b"never"), Outcome::Miss(MissReason::Unknown));
    engine.apply(engine.default_namespace(), &Op::Set(Set::new(b"gone", b"1")), at(0));
    engine.apply(engine.default_namespace(), &Op::Delete { key: b"gone", if_version: None }, at(0));
    assert_eq!(miss(b"gone"), Outcome::Miss(MissReason::Deleted));
    engine.apply(engine.default_namespace(), &Op::Set(Set::new(b"cold", b"1")), at(0));
    for n in 0..20_000u64 {
        engine.apply(engine.default_namespace(), &Op::Set(Set::new(&n.to_le_bytes(), &[0; 100])), at(0));
    }
    assert!(engine.stats().evictions > 10_000);
    let last = (0..20_000u64)
        .rev()
        .find(|n| value_of(get(&engine, &n.to_le_bytes(), at(0))).is_none())
        .expect("the oldest went");
    assert_eq!(miss(&last.to_le_bytes()), Outcome::Miss(MissReason::Evicted));
}

#[test]
fn an_increment_with_a_request_id_is_applied_once() {
    let engine = engine(BYTES_LIMIT_MIN, 1, PolicyName::Lru);
    let increment = |request_id| {
        let op = Increment { key: b"n", delta: 2, initial: 40, expiration: Expiration::Default, request_id };
        engine.apply(engine.default_namespace(), &Op::Increment(op), at(0))
    };
    let mut changes = Changes::of(&engine);
    let first = increment("a");
    assert!(matches!(first, Outcome::Counted { value: 42, .. }));
    assert_eq!(changes.read(&engine).len(), 1);
    assert_eq!(increment("a"), first);
    assert_eq!(changes.read(&engine), [""; 0]);
    assert!(matches!(increment("b"), Outcome::Counted { value: 44, .. }));
}

#[test]
fn a_counter_stays_where_it_is_at_its_bounds() {
    let engine = engine(BYTES_LIMIT_MIN, 1, PolicyName::Lru);
    let add = |delta| {
        let op = Increment {
            key: b"n",
            delta,
            initial: i64::MAX,
            expiration: Expiration::Default,
            request_id: "",
        };
        engine.apply(engine.default_namespace(), &Op::Increment(op), at(0))
    };
    assert_eq!(add(1), Outcome::Refused(Refusal::CounterOverflow { current: i64::MAX }));
    assert!(matches!(add(0), Outcome::Counted { value: i64::MAX, .. }));
    assert!(matches!(add(-i128::from(u64::MAX)), Outcome::Counted { value: i64::MIN, .. }));
    assert_eq!(add(-1), Outcome::Refused(Refusal::CounterOverflow { current: i64::MIN }));
    assert_eq!(value_of(get(&engine, b"n", at(0))), Some(i64::MIN.to_string().into_bytes()));
}

#[test]
fn an_entry_larger_than_a_shard_is_refused_and_changes_nothing() {
    let engine = engine(BYTES_LIMIT_MIN, 1, PolicyName::Lru);
    engine.apply(engine.default_namespace(), &Op::Set(Set::new(b"k", b"small")), at(0));
    let mut changes = Changes::of(&engine);
    let outcome =
        engine.apply(engine.default_namespace(), &Op::Set(Set::new(b"k", &vec![0; 1 << 20])), at(0));
    assert!(matches!(outcome, Outcome::Refused(Refusal::TooLarge { .. })));
    assert_eq!(changes.read(&engine), [""; 0]);
    assert_eq!(value_of(get(&engine, b"k", at(0))), Some(b"small".to_vec()));
}

#[test]
fn large_values_are_handed_out_without_a_copy() {
    let engine = engine(16 << 20, 1, PolicyName::Lru);
    engine.apply(engine.default_namespace(), &Op::Set(Set::new(b"k", &[7; 100_000])), at(0));
    let hits = [get(&engine, b"k", at(0)), get(&engine, b"k", at(0))];
    let [Outcome::Hit(one), Outcome::Hit(two)] = hits else { panic!("two hits") };
    assert_eq!(one.value.as_ptr(), two.value.as_ptr());
}

#[test]
fn the_limit_holds_when_sizes_change() {
    for policy in PolicyName::ALL {
        let engine = engine(8 << 20, 1, policy);
        for (round, size) in [100usize, 1_000, 30, 3_000, 50_000, 100].into_iter().enumerate() {
            for n in 0..(16usize << 20) / (size + 100) {
                let key = format!("{round}-{n}");
                engine.apply(
                    engine.default_namespace(),
                    &Op::Set(Set::new(key.as_bytes(), &vec![1; size])),
                    at(0),
                );
            }
            // The last entries may have announced that a table of the policy doubles.
            engine.advance(at(0));
            engine.validate();
            let stats = engine.stats();
            assert!(stats.bytes_used <= stats.bytes_limit, "{policy}, {size}: {:?}", engine.memory());
            let live = stats.bytes_used - stats.bytes_spare;
            assert!(live * 100 >= stats.bytes_limit * 88, "{policy}, {size}: only {live} bytes are in use");
        }
    }
}

#[test]
fn a_quarter_of_the_limit_has_room_for_two_of_the_largest_values_in_each_shard() {
    for value_bytes_max in [1 << 10, 1 << 20, 4 << 20] {
        for power in 23..=38 {
            let bytes_limit = 1 << power;
            let config = EngineConfig { bytes_limit, value_bytes_max, ..EngineConfig::default() };
            let least = 2 * value_bytes_max * u64::from(config.shard_count());
            assert!(
                least <= (bytes_limit / 4).max(2 * value_bytes_max),
                "{bytes_limit} {value_bytes_max}: {least}"
            );
        }
    }
}
