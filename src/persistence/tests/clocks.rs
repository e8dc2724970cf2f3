//! Entries on disk, and a wall clock that jumps.

use std::sync::atomic::{AtomicI64, Ordering};

use super::*;

const TEN_YEARS_MS: i64 = 10 * 365 * 86_400_000;

/// The system's clock, whose wall side can be set.
#[derive(Debug, Default)]
struct Jumping {
    clock: SystemClock,
    by_ms: AtomicI64,
}

impl Clock for Jumping {
    fn now(&self) -> Now {
        let now = self.clock.now();
        let by_us = self.by_ms.load(Ordering::Relaxed) * 1_000;
        Now { unix_us: now.unix_us.saturating_add_signed(by_us), ..now }
    }
}

#[test]
fn a_wall_clock_that_jumps_changes_no_life_on_disk() {
    let clock = Arc::new(Jumping::default());
    let config = EngineConfig { bytes_limit: 1 << 20, shards: Some(1), ..EngineConfig::default() };
    let engine = Arc::new(Engine::new(&config, clock.now()));
    let (disk, _) = Disk::open(
        Arc::new(MemoryBackend::new()),
        Arc::clone(&engine),
        clock.clone(),
        DiskConfig { is_store: true, ..super::config() },
        &RecoveryProgress::default(),
    )
    .unwrap();
    let lookup = disk.lookup().unwrap();
    let namespace = engine.default_namespace();
    let left = |key: &str| {
        let (shard, place) = engine.place_of(0, key.as_bytes());
        let now = clock.now();
        let found = lookup.tier.fetch((shard, place), 0, key.as_bytes(), now).unwrap().unwrap();
        found.visit(|put| put.expires_unix_ms.unwrap() as i64 - now.unix_ms() as i64).unwrap()
    };
    let is_an_hour = |left: i64| (3_590_000..=3_601_000).contains(&left);
    let mut keys = Vec::new();
    for by_ms in [0, TEN_YEARS_MS, -TEN_YEARS_MS, 0] {
        clock.by_ms.store(by_ms, Ordering::Relaxed);
        let key = format!("key:{}", keys.len());
        let expiration = Expiration::In(Ttl::Ms(3_600_000));
        let set = Op::Set(Set { expiration, ..Set::new(key.as_bytes(), b"value") });
        engine.apply(namespace, &set, clock.now());
        lookup.arrived().unwrap();
        keys.push(key);
        for key in &keys {
            assert!(
                is_an_hour(left(key)),
                "{key} lives {} ms more when the clock jumps by {by_ms}",
                left(key)
            );
        }
    }
    // What a snapshot copies is held to the same clock.
    clock.by_ms.store(TEN_YEARS_MS, Ordering::Relaxed);
    disk.compact().unwrap();
    for key in &keys {
        assert!(is_an_hour(left(key)), "{key} lives {} ms more after a snapshot", left(key));
    }
}
