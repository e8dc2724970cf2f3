//! Entries on disk, and a wall clock that jumps.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

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

    fn not_before(&self, _: u64) {}
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

/// A clock that stands still until it is set on, of a machine whose wall clock shows anything.
#[derive(Debug)]
struct Standing {
    ticks_us: AtomicU64,
    wall_us: AtomicU64,
    floor_us: AtomicU64,
}

impl Standing {
    fn at(wall_us: u64) -> Arc<Self> {
        let [ticks_us, floor_us] = [AtomicU64::new(0), AtomicU64::new(0)];
        Arc::new(Self { ticks_us, wall_us: AtomicU64::new(wall_us), floor_us })
    }

    fn goes_on(&self, seconds: u64) {
        self.ticks_us.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
        self.wall_us.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }
}

impl Clock for Standing {
    fn now(&self) -> Now {
        let ticks_us = self.ticks_us.load(Ordering::SeqCst);
        let wall_us = self.wall_us.load(Ordering::SeqCst);
        let floor_us = self.floor_us.load(Ordering::SeqCst) + ticks_us;
        Now { ticks_ms: ticks_us / 1_000, unix_us: wall_us.max(floor_us) }
    }

    fn not_before(&self, unix_us: u64) {
        let ticks_us = self.ticks_us.load(Ordering::SeqCst);
        self.floor_us.fetch_max(unix_us.saturating_sub(ticks_us), Ordering::SeqCst);
    }
}

/// A start of the node whose wall clock shows this; what is done then, before it is told to stop.
fn start<R>(
    backend: &MemoryBackend,
    clock: &Arc<Standing>,
    config: &DiskConfig,
    act: impl FnOnce(&Engine, &Standing) -> R,
) -> R {
    let shape = EngineConfig { bytes_limit: 1 << 20, shards: Some(1), ..EngineConfig::default() };
    let engine = Arc::new(Engine::new(&shape, clock.now()));
    let shared = Arc::new(backend.clone());
    let progress = RecoveryProgress::default();
    let (disk, report) =
        Disk::open(shared, Arc::clone(&engine), clock.clone(), config.clone(), &progress).unwrap();
    assert!(report.damages.is_empty(), "{:?}", report.damages);
    let done = act(&engine, clock);
    disk.stop().unwrap();
    done
}

fn set_for(engine: &Engine, key: &str, seconds: u64, now: Now) {
    let expiration = Expiration::In(Ttl::Ms(seconds * 1_000));
    let set = Op::Set(Set { expiration, ..Set::new(key.as_bytes(), b"value") });
    assert!(matches!(engine.apply(engine.default_namespace(), &set, now).0, Outcome::Stored(_)));
}

fn has(engine: &Engine, key: &str, now: Now) -> bool {
    let get = Op::Get { key: key.as_bytes(), touch: None };
    matches!(engine.apply(engine.default_namespace(), &get, now).0, Outcome::Hit(_))
}

const BEGUN_US: u64 = 1_800_000_000_000_000;
const HOUR_US: u64 = 3_600_000_000;

fn modes() -> [DiskConfig; 2] {
    [super::config(), DiskConfig { is_journaled: false, recovery: Method::Snapshot, ..super::config() }]
}

#[test]
fn starts_with_a_clock_that_is_set_back_lengthen_no_life() {
    for config in modes() {
        let backend = MemoryBackend::new();
        start(&backend, &Standing::at(BEGUN_US), &config, |engine, clock| {
            set_for(engine, "key", 20, clock.now());
        });
        for round in 0..4 {
            start(&backend, &Standing::at(BEGUN_US - HOUR_US), &config, |engine, clock| {
                assert_eq!(has(engine, "key", clock.now()), round * 8 < 20, "start {round}");
                // Without a journal only a change lets a node that is told to stop write anything.
                set_for(engine, &format!("other:{round}"), 3_600, clock.now());
                clock.goes_on(8);
            });
        }
    }
}

#[test]
fn a_start_with_a_clock_that_is_ten_years_ahead_shortens_no_life_that_begins_later() {
    for config in modes() {
        let backend = MemoryBackend::new();
        let ahead = BEGUN_US + TEN_YEARS_MS as u64 * 1_000;
        start(&backend, &Standing::at(ahead), &config, |engine, clock| {
            set_for(engine, "future", 60, clock.now());
        });
        for round in 0..3 {
            start(&backend, &Standing::at(BEGUN_US + round * 60_000_000), &config, |engine, clock| {
                let mut before = (0..round).map(|before| format!("key:{before}"));
                assert!(before.all(|key| has(engine, &key, clock.now())), "start {round}");
                set_for(engine, &format!("key:{round}"), 3_600, clock.now());
                clock.goes_on(60);
            });
        }
    }
}
