//! What is the cache's own: its everyday methods, loads, expiry without being asked, namespaces. What it has in common with a
//! node's client is tested for both at once, in tests/suite/conformance.rs.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::client::{GetOutcome, MissReason, ScanOptions, SetOutcome};
use crate::clock::{ManualClock, monotonic, since};
use crate::engine::PolicyName;
use crate::entry::{Limits, Ttl};

fn small() -> LocalCache {
    LocalCache::builder().memory(1 << 20).build()
}

/// Much longer than anything takes.
const LONG: Duration = Duration::from_secs(30);

#[test]
fn it_is_a_map_with_counters_that_clones_share() {
    let cache = small();
    let other = cache.clone();
    assert_eq!(cache.get("k"), None);
    cache.set("k", "v").unwrap();
    assert_eq!(other.get("k").unwrap(), "v");
    assert!(other.delete("k") && !cache.delete("k"));
    assert_eq!((cache.increment("n", 5).unwrap(), other.increment("n", -2).unwrap()), (5, 3));
    assert_eq!((cache.get(""), cache.delete("x".repeat(5_000))), (None, false));
    assert!(cache.set("", "v").is_err());
    assert_eq!((cache.clear(), cache.stats().entries), (1, 0));
}

#[test]
fn what_has_expired_is_never_found_and_is_reclaimed_without_being_asked() {
    let clock = ManualClock::new();
    let minute = Duration::from_secs(60);
    let cache = LocalCache::builder().memory(1 << 20).default_ttl(minute).clock(clock.clone()).build();
    cache.set("default", "v").unwrap();
    cache.set_for("longer", "v", 2 * minute).unwrap();
    cache.set_for("for ever", "v", Duration::ZERO).unwrap();
    clock.advance(minute - Duration::from_millis(1));
    assert!(cache.get("default").is_some());
    clock.advance(Duration::from_millis(1));
    assert_eq!(cache.look_up("default").unwrap(), GetOutcome::Miss(MissReason::Expired));
    assert!(cache.get("longer").is_some());
    clock.advance(minute);
    // Nothing is asked for from here on but how many there are.
    let begun = monotonic();
    while cache.stats().entries != 1 {
        assert!(since(begun) < LONG, "{:?}", cache.stats());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(cache.get("for ever").is_some());
}

#[test]
fn the_thread_ends_with_the_last_clone() {
    let cache = small();
    let engine = Arc::downgrade(&cache.shared.engine);
    let clone = cache.clone();
    drop(cache);
    clone.set("k", "v").unwrap();
    drop(clone);
    let begun = monotonic();
    while engine.strong_count() > 0 {
        assert!(since(begun) < LONG);
        std::thread::yield_now();
    }
}

#[test]
fn of_the_threads_that_miss_at_once_one_loads_and_all_have_what_it_loaded() {
    let (cache, loads) = (small(), AtomicUsize::new(0));
    for round in 0..100 {
        let (key, begin) = (format!("k{round}"), Barrier::new(4));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    begin.wait();
                    let load = || format!("v{}", loads.fetch_add(1, Ordering::Relaxed));
                    assert_eq!(cache.get_or_insert_with(&key, load), format!("v{round}"));
                });
            }
        });
    }
    assert_eq!(loads.load(Ordering::Relaxed), 100);
}

#[test]
fn a_load_that_fails_or_panics_leaves_its_turn_to_the_next() {
    let (cache, waits) = (small(), Barrier::new(2));
    std::thread::scope(|scope| {
        let failing = scope.spawn(|| {
            cache.try_get_or_insert_with("k", || {
                waits.wait();
                Err::<&str, _>("it is not there")
            })
        });
        waits.wait();
        assert_eq!(cache.get_or_insert_with("k", || "v"), "v");
        assert_eq!(failing.join().unwrap(), Err("it is not there"));
    });
    let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cache.get_or_insert_with("panics", || -> &'static str { panic!("for the test") })
    }));
    assert!(panics.is_err());
    assert_eq!(cache.get_or_insert_with("panics", || "v"), "v");
}

#[test]
fn a_load_stores_over_nothing_and_its_value_is_returned_stored_or_not() {
    let cache = small();
    let loaded = cache.get_or_insert_with("k", || {
        cache.set("k", "newer").unwrap();
        "loaded"
    });
    assert_eq!((loaded, cache.get("k").unwrap()), ("loaded".into(), "newer".into()));
    let large = vec![7; 2 << 20];
    assert_eq!(cache.get_or_insert_with("large", || large.clone()), large);
    assert_eq!((cache.get_or_insert_with("", || "v"), cache.get("large")), ("v".into(), None));
    let within = cache.get_or_insert_with("a", || cache.get_or_insert_with("a", || "inner"));
    assert_eq!(within, "inner");
}

#[test]
fn a_namespace_has_its_own_keys_and_one_that_is_not_there_is_refused() {
    let cache = small();
    let missing = cache.with_namespace("shop");
    let error = missing.set("k", "v").unwrap_err();
    let ClientError::Status(refusal) = &error else { panic!("{error}") };
    assert_eq!(refusal.reason, "NAMESPACE_NOT_FOUND");
    assert_eq!((missing.get("k"), missing.clear()), (None, 0));
    let config =
        NamespaceConfig { default_ttl: Ttl::Ms(60_000), ..NamespaceConfig::new("shop", PolicyName::Lru) };
    let shop = cache.create_namespace(&config).unwrap();
    shop.set("k", "of the shop").unwrap();
    cache.set("k", "of nobody").unwrap();
    assert_eq!(missing.get("k").unwrap(), "of the shop", "it is there by now");
    assert_eq!(cache.with_namespace("shop").with_namespace("").get("k").unwrap(), "of nobody");
    let hit = shop.look_up("k").unwrap();
    assert!(hit.entry().unwrap().remaining_ttl.is_some());
    let page = shop.scan("", &ScanOptions::default()).unwrap();
    assert_eq!((page.items.len(), shop.namespace()), (1, "shop"));
    let again = cache.create_namespace(&config).unwrap_err();
    assert_eq!(again.code_name(), "ALREADY_EXISTS");
    for name in [String::new(), "n".repeat(256), "a\nb".to_owned()] {
        let refused = cache.create_namespace(&NamespaceConfig { name, ..config.clone() }).unwrap_err();
        assert_eq!(refused.code_name(), "INVALID_ARGUMENT", "{refused}");
    }
    let endless = NamespaceConfig { name: "n".to_owned(), default_ttl: Ttl::Ms(u64::MAX), ..config };
    assert_eq!(cache.create_namespace(&endless).unwrap_err().code_name(), "INVALID_ARGUMENT");
}

#[test]
fn no_setting_makes_it_panic() {
    let limits = Limits {
        key_bytes_max: usize::MAX,
        value_bytes_max: usize::MAX,
        content_type_bytes_max: usize::MAX,
        tags_max: usize::MAX,
        tag_bytes_max: usize::MAX,
        batch_items_max: usize::MAX,
        message_in_bytes_max: usize::MAX,
        message_out_bytes_max: usize::MAX,
        ttl_ms_max: u64::MAX,
    };
    let builder = LocalCache::builder().memory(0).limits(limits).default_ttl(Duration::MAX).shards(0);
    let cache = builder.policy(PolicyName::Lru).build();
    cache.set("k", "v").unwrap();
    assert!(cache.set("k".repeat(4_097), "v").is_err());
    assert!(cache.set("k", vec![0; 4 << 20]).is_err(), "it fits no shard");
    let tags = vec!["t".repeat(255); 17];
    assert!(cache.set_with("k", "v", &SetOptions { tags, ..SetOptions::default() }).is_err());
    let content_type = "c".repeat(256);
    assert!(cache.set_with("k", "v", &SetOptions { content_type, ..SetOptions::default() }).is_err());
    assert!(cache.set_for("k", "v", Duration::MAX).is_err());
    assert!(matches!(cache.set_with("k", "v", &SetOptions::default()), Ok(SetOutcome::Stored(_))));
    let nothing =
        Limits { key_bytes_max: 0, value_bytes_max: 0, batch_items_max: 0, ttl_ms_max: 0, ..limits };
    let cache = LocalCache::builder().limits(nothing).build();
    assert!(cache.set("k", "v").is_err() && cache.get("k").is_none());
    assert!(cache.scan("", &ScanOptions::default()).is_ok_and(|page| page.items.is_empty()));
}
