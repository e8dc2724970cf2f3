//! Namespaces, invalidation, scans and explanations.

use super::model::config;
use super::*;
use std::ops::ControlFlow;

use crate::entry::TAGS_MAX;

fn set(engine: &Engine, namespace: &Namespace, key: &[u8], value: &[u8]) {
    let outcome = engine.apply(namespace, &Op::Set(Set::new(key, value)), at(1));
    assert!(matches!(outcome, Outcome::Stored(_)), "{outcome:?}");
}

fn is_there(engine: &Engine, namespace: &Namespace, key: &[u8]) -> bool {
    matches!(engine.apply(namespace, &Op::Get { key, touch: None }, at(1)), Outcome::Hit(_))
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
    let outcome = engine.apply(&capped, &Op::Set(Set::new(b"k", &[0; 200_000])), at(1));
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
    assert_eq!(engine.invalidate(namespace, Scope::Tag("even"), at(2)), Ok(1));
    assert_eq!(engine.stats().entries, 100_000, "none was touched yet");
    assert!(!is_there(&engine, namespace, b"user:4") && is_there(&engine, namespace, b"user:5"));
    let explained = engine.explain(namespace, b"user:6", at(2));
    assert_eq!((explained.entry, explained.generation), (Err(MissReason::Invalidated), 0));
    assert_eq!(engine.explain(namespace, b"user:5", at(2)).tags, ["all"]);
    set(&engine, namespace, b"user:4", b"new");
    assert!(is_there(&engine, namespace, b"user:4"), "what is set afterwards is alive");
    assert_eq!(engine.explain(namespace, b"user:4", at(2)).generation, 1);
    engine.invalidate(namespace, Scope::Prefix(b"user:9"), at(3)).unwrap();
    while engine.sweep(1_000) {}
    engine.validate();
    let odd_without_9 = (0..100_000u32).filter(|n| n % 2 == 1 && !n.to_string().starts_with('9')).count();
    assert_eq!(engine.stats().entries, odd_without_9 as u64 + 1);
    assert_eq!(engine.stats().invalidated, 100_000 - odd_without_9 as u64);
    engine.invalidate(namespace, Scope::All, at(4)).unwrap();
    assert!(!is_there(&engine, namespace, b"user:5"));
    while engine.sweep(usize::MAX) {}
    assert_eq!(engine.stats().entries, 0);
    engine.validate();
}

#[test]
fn tags_are_paid_for_by_their_entries_and_go_with_them() {
    let engine = engine(16 << 20, 4, PolicyName::Lru);
    let namespace = engine.default_namespace();
    let set = |n: u32| {
        let names: Vec<String> = (0..TAGS_MAX).map(|tag| format!("t{n}-{tag}")).collect();
        let tags: Vec<&str> = names.iter().map(String::as_str).collect();
        let (key, value) = (format!("key-{n}"), [0; 20]);
        engine.apply(namespace, &Op::Set(Set { tags: &tags, ..Set::new(key.as_bytes(), &value) }), at(1))
    };
    // A quarter of a million names, each of them once.
    for n in 0..17_500 {
        assert!(matches!(set(n), Outcome::Stored(_)));
    }
    let (memory, stats) = (engine.memory(), engine.stats());
    assert_eq!((stats.entries, stats.evictions), (17_500, 0), "{memory:?}");
    assert!(memory.tag_bytes <= 16 << 10 << 2, "beside the entries there is the filter alone: {memory:?}");
    for n in 17_500..150_000 {
        assert!(matches!(set(n), Outcome::Stored(_)), "what is full of tags takes more: the oldest go");
    }
    let stats = engine.stats();
    assert!(stats.entries > 40_000 && stats.evictions > 0 && stats.bytes_used <= 16 << 20, "{stats:?}");
    engine.validate();
    assert!(is_there(&engine, namespace, b"key-149999"));
    engine.invalidate(namespace, Scope::Tag("t149999-15"), at(2)).unwrap();
    assert!(!is_there(&engine, namespace, b"key-149999") && is_there(&engine, namespace, b"key-149998"));
    engine.invalidate(namespace, Scope::All, at(3)).unwrap();
    while engine.sweep(usize::MAX) {}
    let memory = engine.memory();
    assert!(memory.bytes_used() < 1 << 20, "{memory:?}");
    engine.validate();
}

#[test]
fn the_tags_of_a_counter_that_has_to_go_for_its_own_growth_are_known_afterwards() {
    let engine = engine(4 << 20, 1, PolicyName::Lru);
    let capped = engine.create_namespace(&config("capped", 1 << 20)).unwrap();
    engine.apply(&capped, &Op::Set(Set { tags: &["red"], ..Set::new(b"n", b"1") }), at(1));
    // What has to go is the counter, and its page stays.
    engine.apply(&capped, &Op::Set(Set { tags: &["tag"], ..Set::new(b"m", b"1") }), at(1));
    // The shard has no room for a page of cells of another size, however few.
    for length in [1_000, 10] {
        let (evictions, mut keys) = (engine.stats().evictions, (0..).map(|n: u32| format!("{length}:{n}")));
        while engine.stats().evictions < evictions + 50 {
            let key = keys.next().unwrap();
            set(&engine, engine.default_namespace(), key.as_bytes(), &vec![0; length]);
        }
    }
    // A round of the sweep is due, which goes by when the counter has gone.
    engine.invalidate(engine.default_namespace(), Scope::Prefix(b"none"), at(1)).unwrap();
    let used = engine.report(&capped).stats.bytes_used;
    let change = NamespaceChange { bytes_limit: Some(used / 2 * 3), ..NamespaceChange::default() };
    engine.update_namespace(&capped, &change);
    let delta = 10i128.pow(18);
    let op = Increment { key: b"n", delta, initial: 0, expiration: Expiration::Default, request_id: "" };
    let counted = engine.apply(&capped, &Op::Increment(op), at(1));
    assert!(matches!(counted, Outcome::Counted { value: 1_000_000_000_000_000_001, .. }), "{counted:?}");
    assert_eq!(engine.report(&capped).stats.evictions, 1, "the test is about a counter that went");
    assert_eq!(engine.memory().invalidation_bytes, 0, "and a round that ended meanwhile");
    assert_eq!(engine.explain(&capped, b"n", at(1)).tags, ["red"]);
    engine.invalidate(&capped, Scope::Tag("red"), at(2)).unwrap();
    assert!(!is_there(&engine, &capped, b"n"));
}

#[test]
fn invalidations_that_wait_for_the_sweep_take_a_sixty_fourth_at_most() {
    let engine = engine(8 << 20, 1, PolicyName::Lru);
    let namespace = engine.default_namespace();
    for n in 0..1_000u32 {
        set(&engine, namespace, format!("user:{n}").as_bytes(), b"v");
    }
    for n in 0..10_000u32 {
        engine.invalidate(namespace, Scope::Tag(&format!("unknown-{n}")), at(2)).unwrap();
    }
    assert_eq!(engine.memory().invalidation_bytes, 0, "no entry bears one of them, so nothing waits");
    let prefix = |n: u32| format!("none:{n:08}").into_bytes();
    let noted = (0..).take_while(|n| engine.invalidate(namespace, Scope::Prefix(&prefix(*n)), at(2)).is_ok());
    let noted = noted.count() as u32;
    let refused = engine.invalidate(namespace, Scope::Prefix(&prefix(noted)), at(2)).unwrap_err();
    let Refusal::Unswept { bytes, limit } = refused else { panic!("{refused:?}") };
    assert!(
        noted > 1_000 && (limit..limit + 200).contains(&bytes) && limit == 128 << 10,
        "{noted} {refused:?}"
    );
    assert_eq!(engine.memory().invalidation_bytes, bytes);
    assert_eq!(engine.report(namespace).generation, 10_000 + u64::from(noted), "what is refused is not done");
    assert_eq!((engine.stats().entries, engine.stats().evictions), (1_000, 0));
    while engine.sweep(1_000) {}
    assert_eq!(engine.memory().invalidation_bytes, 0);

    let long = [b'x'; 100];
    let lengths = (1..=100)
        .filter(|length| engine.invalidate(namespace, Scope::Prefix(&long[..*length]), at(3)).is_ok());
    assert_eq!(lengths.count(), 64, "each length costs a look-up wherever an entry is looked at");
    engine.invalidate(namespace, Scope::All, at(4)).expect("all is never refused");
    assert!(!is_there(&engine, namespace, b"user:1"));
    engine.invalidate(namespace, Scope::Prefix(&long), at(5)).expect("all has taken their place");
}

#[test]
fn request_ids_are_given_back_unasked_when_their_time_has_ended() {
    let engine = engine(8 << 20, 1, PolicyName::Lru);
    for n in 0..10_000 {
        let request_id = &n.to_string();
        let expiration = Expiration::Default;
        let increment = Increment { key: b"n", delta: 1, initial: 0, expiration, request_id };
        engine.apply(engine.default_namespace(), &Op::Increment(increment), at(1));
    }
    let before = engine.memory().request_bytes;
    assert!((128 << 10..=512 << 10).contains(&before), "{before}");
    engine.advance(at(1 + 600_000));
    let after = engine.memory().request_bytes;
    assert!(after < 8 << 10, "{after}");
    engine.validate();
}

#[test]
fn what_many_namespaces_take_beside_their_entries_is_charged_bounded_and_given_back() {
    const NAMESPACES: u32 = 500;
    let engine = engine(16 << 20, 2, PolicyName::Adaptive);
    let before = engine.stats().bytes_used;
    for n in 0..NAMESPACES {
        let config = NamespaceConfig { policy: PolicyName::Adaptive, ..config(&n.to_string(), 0) };
        engine.create_namespace(&config).unwrap();
    }
    let namespaces = engine.namespaces();
    for key in 0..60u32 {
        for namespace in &namespaces[1..] {
            set(&engine, namespace, &key.to_le_bytes(), &[0; 700]);
        }
    }
    let (memory, stats) = (engine.memory(), engine.stats());
    assert_eq!(memory.bytes_used(), stats.bytes_used);
    assert!(stats.evictions > 10_000, "each has evicted something, so that each would like to have tables");
    assert!(memory.policy_bytes < 4 << 20 && stats.entries > 14_000, "{memory:?}");
    engine.validate();
    for n in 0..NAMESPACES {
        engine.delete_namespace(&n.to_string(), at(0)).unwrap();
    }
    while engine.sweep(usize::MAX) {}
    let after = engine.stats().bytes_used;
    assert!(after < before + (200 << 10), "{before} before, {after} after");
    engine.validate();
}

#[test]
fn a_namespace_too_many_for_the_memory_is_refused_before_others_entries_go_for_it() {
    let engine = engine(8 << 20, 1, PolicyName::Lru);
    let mut namespaces = Vec::new();
    let refused = loop {
        let name = namespaces.len().to_string();
        let config = NamespaceConfig { policy: PolicyName::Lfu, ..config(&name, 0) };
        let namespace = engine.create_namespace(&config).unwrap();
        let outcome = engine.apply(&namespace, &Op::Set(Set::new(b"k", b"v")), at(1));
        namespaces.push(namespace);
        if let Outcome::Refused(refusal) = outcome {
            break refusal;
        }
    };
    let Refusal::NamespacesTakeTooMuch { bytes, limit } = refused else { panic!("{refused:?}") };
    assert!((limit..limit + (10 << 10)).contains(&bytes) && limit == 2 << 20, "{refused:?}");
    assert_eq!((engine.stats().entries, engine.stats().evictions), (namespaces.len() as u64 - 1, 0));
    let last = namespaces.pop().unwrap();
    assert!(!is_there(&engine, &last, b"k"));
    set(&engine, engine.default_namespace(), b"k", b"v");
    engine.delete_namespace("0", at(0)).unwrap();
    while engine.sweep(usize::MAX) {}
    set(&engine, &last, b"k", b"v");
    engine.validate();
}

#[test]
fn room_is_found_among_the_dead_before_the_living_go() {
    let engine = engine(4 << 20, 1, PolicyName::Lru);
    let namespace = engine.default_namespace();
    for n in 0..10_000u32 {
        set(&engine, namespace, format!("old-{n}").as_bytes(), &[0; 100]);
    }
    engine.invalidate(namespace, Scope::Prefix(b"old-"), at(2)).unwrap();
    for n in 0..20_000u32 {
        set(&engine, namespace, format!("new-{n}").as_bytes(), &[0; 100]);
    }
    assert_eq!(engine.stats().evictions, 0);
    assert!(engine.stats().invalidated > 0, "some of the invalidated entries were met");
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
            ScanRange { prefix: b"", after: Some(ScanCursor { shard, after }), entries_max: usize::MAX };
        let mut visited = 0;
        let next = engine.scan(engine.default_namespace(), range, at(1), |_, _| {
            visited += 1;
            ControlFlow::Continue(())
        });
        assert_eq!((visited, next), (left, None), "shard {shard}, after {after:?}");
    }
}
