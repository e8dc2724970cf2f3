//! `--persistence store`: every entry is on disk, memory is a cache over it. And lazy recovery, which begins that way.
//!
//! Random operations against a plain map, with memory for a fraction of it, snapshots, compactions and restarts
//! between. `LARDER_STORE_STEPS` says how many operations a thread does (4,000).

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder::cache::{Cache, DiskOptions};
use larder::clock::monotonic;
use larder::engine::{
    Condition, EngineConfig, Expiration, Increment, MissReason, Namespace, NamespaceConfig, Op, Outcome,
    PolicyName, Refusal, ScanRange, Scope, Set, Tier,
};
use larder::entry::{Durability, Limits, Ttl, Version};
use larder::persistence::disk::DiskConfig;
use larder::persistence::journal::JournalConfig;
use larder::persistence::recover::RecoveryProgress;
use larder::persistence::{BackendKind, RecoveryMethod};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const WRITERS: u64 = 3;
const KEYS: u64 = 500;

fn options(directory: &Path, is_store: bool, recovery: RecoveryMethod) -> DiskOptions {
    DiskOptions {
        directory: directory.to_owned(),
        backend: BackendKind::Files,
        durability: Durability::Buffered,
        disk: DiskConfig {
            journal: JournalConfig {
                flush_interval: Duration::from_millis(50),
                backlog_bytes: 64 << 20,
                waiting_bytes: 4 << 20,
                segment_bytes: 256 << 10,
                reserve_bytes: 64 << 10,
            },
            recovery,
            is_journaled: true,
            snapshot_interval: None,
            limit_bytes: None,
            is_store,
        },
    }
}

fn open(directory: &Path, bytes_limit: u64, is_store: bool, recovery: RecoveryMethod) -> Cache {
    let engine =
        EngineConfig { bytes_limit, shards: Some(2), value_bytes_max: 64 << 10, ..EngineConfig::default() };
    let cache = Cache::new(&engine, Limits::default());
    let report = cache.open_disk(&options(directory, is_store, recovery), &RecoveryProgress::default());
    assert!(report.unwrap().damages.is_empty());
    cache
}

/// What a key should have: value, version, flags, tags, and whether it expires.
#[derive(Debug, Clone, PartialEq)]
struct Expected {
    value: Vec<u8>,
    version: Version,
    flags: u32,
    tags: Vec<String>,
    expires: bool,
}

type Model = BTreeMap<Vec<u8>, Expected>;

/// A thread that has keys of its own, and knows what they should have.
struct Writer<'a> {
    cache: &'a Cache,
    namespace: Namespace,
    number: u64,
    random: StdRng,
    model: Model,
}

impl Writer<'_> {
    fn key(&mut self) -> Vec<u8> {
        format!(
            "{}:{}:{}",
            self.number,
            self.random.random_range(0..4),
            self.random.random_range(0..KEYS / 4)
        )
        .into_bytes()
    }

    fn apply(&self, op: &Op<'_>) -> Outcome {
        self.cache.apply(&self.namespace, op, self.cache.now())
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..35 => self.get(),
            35..70 => self.set(),
            70..80 => self.delete(),
            80..88 => self.count(),
            88..96 => self.touch(),
            96..98 => self.invalidate(),
            _ => self.scan(),
        }
    }

    fn get(&mut self) {
        let key = self.key();
        let read = self.apply(&Op::Get { key: &key, touch: None });
        self.check(&key, &read);
    }

    fn check(&self, key: &[u8], read: &Outcome) {
        let name = String::from_utf8_lossy(key);
        match (read, self.model.get(key)) {
            (Outcome::Miss(_), None) => {}
            (Outcome::Hit(hit), Some(expected)) => {
                assert_eq!(hit.value, expected.value, "{name}");
                assert_eq!((hit.version, hit.flags), (expected.version, expected.flags), "{name}");
                assert_eq!(hit.remaining_ttl_ms > 0, expected.expires, "{name}");
            }
            (read, expected) => panic!("{name}: {read:?}, expected {expected:?}"),
        }
    }

    fn set(&mut self) {
        let key = self.key();
        let length = if self.random.random_bool(0.1) { 9_000 } else { 700 };
        let value = vec![self.random.random_range(b'a'..=b'z'); self.random.random_range(0..length)];
        let current = self.model.get(&key).cloned();
        let condition = match self.random.random_range(0..6) {
            0 => Condition::IfAbsent,
            1 => Condition::IfPresent,
            2 => Condition::IfVersion(current.as_ref().map_or(Version(7 << 13), |now| now.version)),
            _ => Condition::Always,
        };
        let holds = match condition {
            Condition::Always => true,
            Condition::IfAbsent => current.is_none(),
            Condition::IfPresent | Condition::IfVersion(_) => current.is_some(),
        };
        let expiration = match self.random.random_range(0..4) {
            0 => Expiration::In(Ttl::Ms(3_600_000)),
            1 => Expiration::Keep,
            _ => Expiration::Default,
        };
        let tags: Vec<String> = if self.random.random_bool(0.3) {
            vec![format!("tag{}:{}", self.number, self.random.random_range(0..3))]
        } else {
            Vec::new()
        };
        let flags = self.random.random_range(0..3);
        let set = Set {
            expiration,
            condition,
            flags,
            tags: &tags.iter().map(String::as_str).collect::<Vec<_>>(),
            ..Set::new(&key, &value)
        };
        match self.apply(&Op::Set(set)) {
            Outcome::Stored(version) => {
                assert!(holds, "{condition:?} held, of {current:?}");
                let kept = current.is_some_and(|now| now.expires);
                let expires =
                    matches!(expiration, Expiration::In(_)) || expiration == Expiration::Keep && kept;
                self.model.insert(key, Expected { value, version, flags, tags, expires });
            }
            Outcome::NotStored(version) => {
                assert!(!holds, "{condition:?} did not hold, of {current:?}");
                assert_eq!(version, current.map_or(Version::NONE, |now| now.version));
            }
            other => panic!("{other:?}"),
        }
    }

    fn delete(&mut self) {
        let key = self.key();
        let deleted = self.apply(&Op::Delete { key: &key, if_version: None });
        assert_eq!(deleted, Outcome::Deleted(self.model.remove(&key).is_some()));
    }

    fn count(&mut self) {
        let key = format!("{}:counter:{}", self.number, self.random.random_range(0..20)).into_bytes();
        let increment =
            Increment { key: &key, delta: 1, initial: 100, expiration: Expiration::Default, request_id: "" };
        let before = self
            .model
            .get(&key)
            .map_or(100, |now| std::str::from_utf8(&now.value).unwrap().parse::<i64>().unwrap());
        let Outcome::Counted { value, version } = self.apply(&Op::Increment(increment)) else { panic!() };
        assert_eq!(value, before + 1, "{}", String::from_utf8_lossy(&key));
        let value = value.to_string().into_bytes();
        let old = self.model.remove(&key);
        let expires = old.as_ref().is_some_and(|old| old.expires);
        let expected = Expected { value, version, flags: 0, tags: Vec::new(), expires };
        self.model.insert(key, expected);
    }

    fn touch(&mut self) {
        let key = self.key();
        let ttl = if self.random.random() { Ttl::Never } else { Ttl::Ms(7_200_000) };
        let touched = self.apply(&Op::Touch { key: &key, ttl });
        assert_eq!(touched, Outcome::Touched(self.model.contains_key(&key)));
        if let Some(now) = self.model.get_mut(&key) {
            now.expires = ttl != Ttl::Never;
        }
    }

    fn invalidate(&mut self) {
        let engine = self.cache.engine();
        let prefix = format!("{}:{}:1", self.number, self.random.random_range(0..4));
        let tag = format!("tag{}:{}", self.number, self.random.random_range(0..3));
        if self.random.random() {
            let scope = Scope::Prefix(prefix.as_bytes());
            engine.invalidate(&self.namespace, scope, self.cache.now()).unwrap();
            self.model.retain(|key, _| !key.starts_with(prefix.as_bytes()));
        } else {
            engine.invalidate(&self.namespace, Scope::Tag(&tag), self.cache.now()).unwrap();
            self.model.retain(|_, now| !now.tags.contains(&tag));
        }
    }

    fn scan(&mut self) {
        let prefix = format!("{}:", self.number);
        let (mut seen, mut after) = (BTreeMap::new(), None);
        loop {
            let range = ScanRange { prefix: prefix.as_bytes(), after, entries_max: 100 };
            let next = self.cache.scan(&self.namespace, range, self.cache.now(), |key, entry| {
                let twice = seen.insert(key.to_vec(), entry.value.as_slice().to_vec());
                assert_eq!(twice, None, "{}", String::from_utf8_lossy(key));
                ControlFlow::Continue(())
            });
            match next.unwrap() {
                Some(place) => after = Some(place),
                None => break,
            }
        }
        let expected: BTreeMap<_, _> =
            self.model.iter().map(|(key, now)| (key.clone(), now.value.clone())).collect();
        assert!(seen == expected, "a scan saw {} entries of {}", seen.len(), expected.len());
    }

    fn check_all(&self) {
        for key in self.model.keys() {
            let read = self.apply(&Op::Get { key, touch: None });
            self.check(key, &read);
        }
    }
}

fn steps() -> u64 {
    std::env::var("LARDER_STORE_STEPS").map_or(4_000, |steps| steps.parse().unwrap())
}

/// Lets writers loose on a cache while snapshots are taken; gives back what each should find.
fn churn(cache: &Cache, seed: u64, models: Vec<Model>) -> Vec<Model> {
    let config = NamespaceConfig::new("shop", PolicyName::S3Fifo);
    let engine = cache.engine();
    let shop = engine.namespace("shop").unwrap_or_else(|| engine.create_namespace(&config).unwrap());
    let done = AtomicBool::new(false);
    /// Ends the snapshots also where a writer fails.
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let ends = Ends(&done);
        let snapshots = scope.spawn(|| {
            let mut random = StdRng::seed_from_u64(seed);
            let disk = cache.disk().unwrap();
            while !done.load(Ordering::Relaxed) {
                if random.random_bool(0.3) {
                    disk.compact().unwrap();
                } else {
                    disk.snapshot().unwrap();
                }
            }
        });
        let writers: Vec<_> = models
            .into_iter()
            .zip(0..)
            .map(|(model, number)| {
                let namespace = if number == 0 { shop.clone() } else { engine.default_namespace().clone() };
                let random = StdRng::seed_from_u64(seed ^ (number + 1) << 32);
                let mut writer = Writer { cache, namespace, number, random, model };
                scope.spawn(move || {
                    writer.check_all();
                    (0..steps()).for_each(|_| writer.step());
                    writer.check_all();
                    writer.model
                })
            })
            .collect();
        let models = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        drop(ends);
        snapshots.join().unwrap();
        models
    })
}

#[test]
fn a_store_behaves_as_if_all_of_it_were_in_memory() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let directory = tempfile::tempdir().unwrap();
    let mut models = vec![Model::new(); WRITERS as usize];
    for (round, recovery) in [
        RecoveryMethod::SnapshotAndJournal,
        RecoveryMethod::Lazy,
        RecoveryMethod::SnapshotAndJournal,
        RecoveryMethod::Lazy,
    ]
    .into_iter()
    .enumerate()
    {
        let cache = open(directory.path(), 1 << 20, true, recovery);
        models = churn(&cache, seed.wrapping_add(round as u64), models);
        assert!(cache.stats().evictions > 100, "memory was never short: {:?}", cache.stats());
        cache.engine().validate();
        cache.close_disk().unwrap();
    }
}

#[test]
fn after_a_lazy_recovery_everything_is_there_at_once_and_in_memory_soon() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let directory = tempfile::tempdir().unwrap();
    let mut models = vec![Model::new(); WRITERS as usize];
    for round in 0..3 {
        let cache = open(directory.path(), 64 << 20, false, RecoveryMethod::Lazy);
        models = churn(&cache, seed.wrapping_add(round), models);
        // Snapshots were taken, and they wait until everything is in memory.
        assert!(!cache.has_disk_tier());
        let entries: u64 = models.iter().map(|model| model.len() as u64).sum();
        cache.engine().sweep(usize::MAX);
        assert_eq!(cache.stats().entries, entries);
        cache.close_disk().unwrap();
    }
}

#[test]
fn a_cleared_namespace_stays_empty_below_memory_too() {
    let directory = tempfile::tempdir().unwrap();
    let get = |cache: &Cache, key: &[u8]| {
        let namespace = cache.engine().default_namespace();
        cache.apply(namespace, &Op::Get { key, touch: None }, cache.now())
    };
    let cache = open(directory.path(), 1 << 20, true, RecoveryMethod::SnapshotAndJournal);
    let fill = |cache: &Cache| {
        for n in 0..5_000 {
            let (key, value) = (format!("key:{n}"), vec![b'v'; 500]);
            let set = Op::Set(Set::new(key.as_bytes(), &value));
            assert!(matches!(
                cache.apply(cache.engine().default_namespace(), &set, cache.now()),
                Outcome::Stored(_)
            ));
        }
    };
    fill(&cache);
    assert!(matches!(get(&cache, b"key:0"), Outcome::Hit(_)));
    assert!(cache.stats().entries < 2_500, "memory has room for too much");
    cache.engine().clear(cache.engine().default_namespace(), cache.now());
    assert!((0..5_000).all(|n| matches!(get(&cache, format!("key:{n}").as_bytes()), Outcome::Miss(_))));
    fill(&cache);
    cache.close_disk().unwrap();
    drop(cache);
    // What a journal says of a cleared namespace holds also for a snapshot that is read behind it.
    let cache = open(directory.path(), 1 << 20, true, RecoveryMethod::SnapshotAndJournal);
    cache.disk().unwrap().snapshot().unwrap();
    cache.engine().clear(cache.engine().default_namespace(), cache.now());
    let set = Op::Set(Set::new(b"new", b"value"));
    cache.apply(cache.engine().default_namespace(), &set, cache.now());
    cache.close_disk().unwrap();
    drop(cache);
    let cache = open(directory.path(), 1 << 20, true, RecoveryMethod::Lazy);
    assert!(matches!(get(&cache, b"new"), Outcome::Hit(_)));
    assert!((0..5_000).all(|n| matches!(get(&cache, format!("key:{n}").as_bytes()), Outcome::Miss(_))));
}

#[test]
fn an_entry_that_is_damaged_on_disk_is_a_miss_and_never_a_wrong_value() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(directory.path(), 1 << 20, true, RecoveryMethod::SnapshotAndJournal);
    let namespace = cache.engine().default_namespace();
    for n in 0..5_000 {
        let (key, value) = (format!("key:{n}"), vec![b'v'; 500]);
        cache.apply(namespace, &Op::Set(Set::new(key.as_bytes(), &value)), cache.now());
    }
    cache.disk().unwrap().compact().unwrap();
    let snapshot = cache.disk().unwrap().snapshots()[0].name();
    let path = directory.path().join(snapshot);
    let mut bytes = std::fs::read(&path).unwrap();
    // One byte of each value, so that it does not matter which of them are in memory.
    let values = bytes.windows(500).enumerate().filter(|(_, window)| window.iter().all(|byte| *byte == b'v'));
    let hits: Vec<usize> = values.map(|(at, _)| at + 250).collect();
    hits.into_iter().for_each(|at| bytes[at] = b'w');
    std::fs::write(&path, &bytes).unwrap();
    let counters = cache.disk().unwrap().tier_reader().unwrap().tier.counters();
    let (mut hits, mut misses) = (0, 0);
    for n in 0..5_000 {
        // What the upkeep says each second: memory has less room, so that entries go while they are asked for.
        cache.engine().set_disk_tier_bytes([n * 60; 2].into_iter());
        let now = cache.now().plus(Duration::from_millis(100 * n));
        let read = cache.read(namespace, format!("key:{n}").as_bytes(), None, now, |entry| {
            assert!(entry.value.as_slice().iter().all(|byte| *byte == b'v'));
            assert_eq!(entry.tier, Tier::Memory);
        });
        match read {
            Ok(()) => hits += 1,
            Err(reason) => {
                misses += 1;
                assert_eq!(reason, MissReason::Corrupt, "key:{n}");
                assert_eq!(counters.damaged.load(Ordering::Relaxed), misses, "key:{n}");
            }
        }
    }
    assert!(hits > 0 && misses > 1_000, "{hits} hits, {misses} misses");
    let stats = cache.stats();
    assert_eq!((stats.misses_for(MissReason::Corrupt), stats.misses()), (misses, misses));

    // What memory has is saved, and the rest is no longer known.
    let has = |cache: &Cache, n: u64| {
        let namespace = cache.engine().default_namespace();
        cache.read(namespace, format!("key:{n}").as_bytes(), None, cache.now(), |_| ())
    };
    let kept: Vec<u64> = (0..5_000).filter(|n| has(&cache, *n).is_ok()).collect();
    cache.disk().unwrap().compact().unwrap();
    cache.close_disk().unwrap();
    drop(cache);
    let cache = open(directory.path(), 1 << 20, true, RecoveryMethod::SnapshotAndJournal);
    assert!(!kept.is_empty());
    for n in kept {
        assert_eq!(has(&cache, n), Ok(()), "key:{n} was in memory");
    }
}

/// Does it again until it is done.
fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let begun = monotonic();
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_store_takes_no_new_key_when_the_places_of_the_others_fill_half_of_memory() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(directory.path(), 1 << 20, true, RecoveryMethod::SnapshotAndJournal);
    let namespace = cache.engine().default_namespace();
    let apply = |op: &Op<'_>| cache.apply(namespace, op, cache.now());
    let set = |n: u32| apply(&Op::Set(Set::new(format!("key-{n}").as_bytes(), b"value")));
    let mut keys = 0;
    let refusal = until("a refusal", || match set(keys) {
        Outcome::Stored(_) => {
            keys += 1;
            // What is written tells what it takes.
            if keys % 200 == 0 {
                cache.disk().unwrap().journal().flush().unwrap();
            }
            None
        }
        Outcome::Refused(refusal @ Refusal::PlacesOnDiskFull { .. }) => Some(refusal),
        other => panic!("{other:?}"),
    });
    let Refusal::PlacesOnDiskFull { bytes, limit } = refusal else { panic!("{refusal:?}") };
    assert!(limit == 512 << 10 && (limit..limit + (32 << 10)).contains(&bytes), "{refusal:?}");
    assert!(keys > 5_000, "{keys}");
    cache.advance();
    assert!(cache.stats().bytes_used <= 1 << 20, "{:?}", cache.engine().memory());
    for n in [0, keys / 2, keys - 1] {
        let key = format!("key-{n}");
        assert!(matches!(apply(&Op::Get { key: key.as_bytes(), touch: None }), Outcome::Hit(_)), "{key}");
        assert!(matches!(set(n), Outcome::Stored(_)), "a key that is there can be written again");
    }
    let op = Op::Increment(Increment {
        key: b"new",
        delta: 1,
        initial: 0,
        expiration: Expiration::Default,
        request_id: "",
    });
    assert!(matches!(apply(&op), Outcome::Refused(Refusal::PlacesOnDiskFull { .. })));
    for n in 0..1_000 {
        let key = format!("key-{n}");
        let deleted = apply(&Op::Delete { key: key.as_bytes(), if_version: None });
        assert_eq!(deleted, Outcome::Deleted(true));
    }
    cache.disk().unwrap().journal().flush().unwrap();
    assert!(matches!(set(keys), Outcome::Stored(_)), "there is room again");
    cache.close_disk().unwrap();
}

#[test]
fn invalidations_of_a_store_are_bounded_and_given_back_unasked() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(directory.path(), 1 << 20, true, RecoveryMethod::SnapshotAndJournal);
    let namespace = cache.engine().default_namespace();
    let set = Set { tags: &["tag-7"], ..Set::new(b"key", b"value") };
    assert!(matches!(cache.apply(namespace, &Op::Set(set), cache.now()), Outcome::Stored(_)));
    let taken = cache.disk().unwrap().history().taken();
    let mut tags = 0;
    let refusal = until("a refusal", || {
        let tag = format!("tag-{tags}");
        tags += 1;
        let refusal = cache.invalidate(namespace, Scope::Tag(&tag), cache.now()).err();
        if tags % 100 == 0 {
            cache.disk().unwrap().journal().flush().unwrap();
        }
        // A snapshot may come before there are enough.
        refusal
            .or_else(|| (cache.disk().unwrap().history().taken() > taken + 3).then_some(Refusal::NoNamespace))
    });
    if let Refusal::Unswept { bytes, limit } = refusal {
        assert!(limit == 64 << 10 && (limit..limit + (24 << 10)).contains(&bytes), "{refusal:?}");
    }
    let get = Op::Get { key: b"key", touch: None };
    assert!(matches!(cache.apply(namespace, &get, cache.now()), Outcome::Miss(_)));
    until("a snapshot, and room with it", || {
        cache.invalidate(namespace, Scope::Tag("another"), cache.now()).ok()
    });
    until("its count", || (cache.disk().unwrap().history().taken() > taken).then_some(()));
    assert!(matches!(cache.apply(namespace, &get, cache.now()), Outcome::Miss(_)), "it stays gone");
    cache.close_disk().unwrap();
}
