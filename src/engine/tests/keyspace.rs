//! Namespaces, invalidation, scans and explanations.

use super::model::config;
use super::*;
use std::ops::ControlFlow;

fn set(engine: &Engine, namespace: &Namespace, key: &[u8], value: &[u8]) {
    let (outcome, _) = engine.apply(namespace, &Op::Set(Set::new(key, value)), at(1));
    assert!(matches!(outcome, Outcome::Stored(_)), "{outcome:?}");
}

fn is_there(engine: &Engine, namespace: &Namespace, key: &[u8]) -> bool {
    matches!(engine.apply(namespace, &Op::Get { key, touch: None }, at(1)).0, Outcome::Hit(_))
}

#[test]
fn a_namespace_over_its_cap_evicts_nobody_elses_entries() {
    for policy in PolicyName::ALL {
        let engine = engine(16 << 20, 4, policy);
        let config = NamespaceConfig { policy, ..config("capped", 1 << 20) };
        let capped = engine.create_namespace(&config).unwrap();
        let free = engine.create_namespace(&model::config("free", 0)).unwrap();
        for n in 0..10_000u32 {
            set(&engine, engine.default_namespace(), &n.to_le_bytes(), &[1; 100]);
            set(&engine, &free, &n.to_le_bytes(), &[2; 100]);
        }
        for n in 0..100_000u32 {
            set(&engine, &capped, &n.to_le_bytes(), &[3; 100]);
        }
        engine.validate();
        let report = engine.report(&capped);
        assert!((900_000..=1 << 20).contains(&report.stats.bytes_used), "{report:?}");
        assert!(report.stats.evictions > 90_000);
        for n in 0..10_000u32 {
            assert!(is_there(&engine, engine.default_namespace(), &n.to_le_bytes()));
            assert!(is_there(&engine, &free, &n.to_le_bytes()));
        }
        let change = NamespaceChange { bytes_limit: Some(200_000), ..NamespaceChange::default() };
        engine.update_namespace(&capped, &change);
        assert!(engine.report(&capped).stats.bytes_used <= 200_000, "a lowered cap is come down to");
    }
}

#[test]
fn a_full_engine_takes_from_the_namespace_that_uses_the_most_of_its_share() {
    let engine = engine(8 << 20, 2, PolicyName::Lru);
    let small = engine.create_namespace(&config("small", 1 << 20)).unwrap();
    for n in 0..3_000u32 {
        set(&engine, &small, &n.to_le_bytes(), &[1; 100]);
    }
    for n in 0..200_000u32 {
        set(&engine, engine.default_namespace(), &n.to_le_bytes(), &[1; 100]);
    }
    let (small, all) = (engine.report(&small).stats, engine.stats());
    assert_eq!(small.evictions, 0, "it has half of its cap, the default one nearly all");
    assert!(all.evictions > 100_000 && all.bytes_used <= 8 << 20);
}

#[test]
fn a_value_above_the_cap_of_its_namespace_is_refused() {
    let engine = engine(16 << 20, 1, PolicyName::Lru);
    let capped = engine.create_namespace(&config("capped", 100_000)).unwrap();
    let (outcome, _) = engine.apply(&capped, &Op::Set(Set::new(b"k", &[0; 200_000])), at(1));
    assert!(matches!(outcome, Outcome::Refused(Refusal::TooLarge { limit: 100_000, .. })), "{outcome:?}");
    assert_eq!(engine.report(&capped).stats.refusals, 1);
}

#[test]
fn equal_keys_of_two_namespaces_are_two_entries() {
    let engine = engine(16 << 20, 4, PolicyName::S3Fifo);
    let other = engine.create_namespace(&config("other", 0)).unwrap();
    set(&engine, engine.default_namespace(), b"k", b"1");
    assert!(!is_there(&engine, &other, b"k"));
    set(&engine, &other, b"k", b"2");
    assert_eq!(value_of(get(&engine, b"k", at(1))), Some(b"1".to_vec()));
    assert_eq!(engine.clear(&other, at(1)), 1);
    assert!(!is_there(&engine, &other, b"k") && is_there(&engine, engine.default_namespace(), b"k"));
}

#[test]
fn an_invalidation_covers_a_million_entries_without_touching_one() {
    let engine = engine(64 << 20, 4, PolicyName::Lru);
    let namespace = engine.default_namespace();
    for n in 0..100_000u32 {
        let key = format!("user:{n}");
        let tags: &[&str] = if n % 2 == 0 { &["even", "all"] } else { &["all"] };
        engine.apply(namespace, &Op::Set(Set { tags, ..Set::new(key.as_bytes(), b"v") }), at(1));
    }
    engine.validate();
    assert_eq!(engine.invalidate(namespace, Scope::Tag("even"), at(2)), 1);
    assert_eq!(engine.stats().entries, 100_000, "none was touched yet");
    assert!(!is_there(&engine, namespace, b"user:4") && is_there(&engine, namespace, b"user:5"));
    let explained = engine.explain(namespace, b"user:6", at(2));
    assert_eq!((explained.entry, explained.generation), (Err(MissReason::Invalidated), 0));
    assert_eq!(engine.explain(namespace, b"user:5", at(2)).tags, ["all"]);
    set(&engine, namespace, b"user:4", b"new");
    assert!(is_there(&engine, namespace, b"user:4"), "what is set afterwards is alive");
    assert_eq!(engine.explain(namespace, b"user:4", at(2)).generation, 1);
    engine.invalidate(namespace, Scope::Prefix(b"user:9"), at(3));
    while engine.sweep(1_000) {}
    engine.validate();
    let odd_without_9 = (0..100_000u32).filter(|n| n % 2 == 1 && !n.to_string().starts_with('9')).count();
    assert_eq!(engine.stats().entries, odd_without_9 as u64 + 1);
    assert_eq!(engine.stats().invalidated, 100_000 - odd_without_9 as u64);
    engine.invalidate(namespace, Scope::All, at(4));
    assert!(!is_there(&engine, namespace, b"user:5"));
    while engine.sweep(usize::MAX) {}
    assert_eq!((engine.stats().entries, engine.memory().tag_bytes > 0), (0, true));
    engine.validate();
}

#[test]
fn room_is_found_among_the_dead_before_the_living_go() {
    let engine = engine(4 << 20, 1, PolicyName::Lru);
    let namespace = engine.default_namespace();
    for n in 0..10_000u32 {
        set(&engine, namespace, format!("old-{n}").as_bytes(), &[0; 100]);
    }
    engine.invalidate(namespace, Scope::Prefix(b"old-"), at(2));
    for n in 0..20_000u32 {
        set(&engine, namespace, format!("new-{n}").as_bytes(), &[0; 100]);
    }
    assert_eq!(engine.stats().evictions, 0);
    assert!(engine.stats().invalidated > 0, "some of the dead were in the way");
}

#[test]
fn hot_keys_are_those_that_are_asked_for_most() {
    let engine = engine(16 << 20, 2, PolicyName::Lru);
    let namespace = engine.default_namespace();
    set(&engine, namespace, b"hot", b"value");
    for n in 0..200_000u32 {
        is_there(&engine, namespace, &n.to_le_bytes());
        if n % 20 == 0 {
            is_there(&engine, namespace, b"hot");
        }
    }
    let hot = engine.hot_keys(at(5_000));
    assert_eq!((hot.keys[0].key.as_slice(), hot.keys[0].value_bytes), (&b"hot"[..], 5));
    assert!((8_000..=12_500).contains(&hot.keys[0].count), "{:?}", hot.keys[0]);
    assert!(hot.keys.len() <= 100 && hot.window_ms <= 5_000);
    assert!((150_000..=260_000).contains(&hot.lookups), "{}", hot.lookups);
}

#[test]
fn the_parts_of_the_memory_report_add_up_to_what_is_used() {
    let engine = engine(64 << 20, 2, PolicyName::S3Fifo);
    let namespace = engine.default_namespace();
    for n in 0..50_000u32 {
        let size = if n % 100 == 0 { 10_000 } else { 100 };
        engine.apply(
            namespace,
            &Op::Set(Set { tags: &["t"], ..Set::new(&n.to_le_bytes(), &vec![0; size]) }),
            at(1),
        );
    }
    let memory = engine.memory();
    assert_eq!((memory.entries, memory.bytes_limit), (50_000, 64 << 20));
    assert_eq!(memory.bytes_used(), engine.stats().bytes_used);
    assert!(memory.large_value_bytes > 5_000_000 && memory.entry_bytes > 50_000 * 130, "{memory:?}");
}

#[test]
fn a_scan_goes_on_from_any_place_that_it_is_told() {
    let engine = engine(8 << 20, 4, PolicyName::Lru);
    for n in 0..1_000u32 {
        set(&engine, engine.default_namespace(), &n.to_le_bytes(), b"v");
    }
    let entries = |shard: usize| engine.shards[shard].lock().stats().entries;
    for (shard, after, left) in [
        (0, None, 1_000),
        (0, Some(u64::MAX), 1_000 - entries(0)),
        (2, Some(0), entries(2) + entries(3)),
        (3, Some(u64::MAX), 0),
        (4, None, 0),
        (u32::MAX, Some(u64::MAX), 0),
    ] {
        let range =
            ScanRange { prefix: b"", after: Some(ScanPlace { shard, after }), entries_max: usize::MAX };
        let mut visited = 0;
        let next = engine.scan(engine.default_namespace(), range, at(1), |_, _| {
            visited += 1;
            ControlFlow::Continue(())
        });
        assert_eq!((visited, next), (left, None), "shard {shard}, after {after:?}");
    }
}
