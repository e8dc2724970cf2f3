//! The disk as a tier below memory, while other threads are at it.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::persistence::disk::TierReader;
use crate::persistence::lazy;
use crate::persistence::snapshot::TierFile;
use crate::persistence::tier::DiskTier;

/// The system's clock, some time later.
#[derive(Debug, Default)]
struct Later {
    clock: SystemClock,
    by_ms: AtomicU64,
}

impl Clock for Later {
    fn now(&self) -> Now {
        self.clock.now().plus(Duration::from_millis(self.by_ms.load(Ordering::Relaxed)))
    }

    fn advance_to(&self, steady_ms: u64) {
        self.clock.advance_to(steady_ms);
    }
}

#[test]
fn what_is_looked_for_while_indexing_ends_is_found() {
    let stand = Stand::new();
    stand.set("key", "value");
    let taken = stand.disk.snapshot().unwrap();
    let (backend, engine) = (Arc::clone(&stand.backend) as Arc<dyn Backend>, &*stand.engine);
    let tier = DiskTier::new(Arc::clone(&backend), engine.shard_count());
    let file = FileId { kind: FileKind::Snapshot, number: taken.number };
    for round in 0..3_000 {
        tier.clear();
        tier.begin_indexing();
        let begun = Barrier::new(2);
        std::thread::scope(|scope| {
            let found = scope.spawn(|| {
                begun.wait();
                tier.fetch(engine.shard_and_walk_hash(0, b"key"), 0, b"key").unwrap().is_some()
            });
            let tier_file = TierFile { tier: &tier, engine, file: tier.open(file).unwrap() };
            begun.wait();
            // Each round at another moment.
            (0..round % 300).for_each(|_| std::hint::spin_loop());
            lazy::index(&*backend, taken.number, tier_file, &|| false).unwrap();
            tier.end_indexing();
            assert!(found.join().unwrap(), "round {round}");
        });
    }
}

#[test]
fn a_touch_that_is_under_way_while_its_entry_expires_is_not_lost_to_a_snapshot() {
    let clock = Arc::new(Later::default());
    let engine = EngineConfig { bytes_limit: 1 << 20, shards: Some(1), ..EngineConfig::default() };
    let engine = Arc::new(Engine::new(&engine, clock.now()));
    let (disk, _) = Disk::open(
        Arc::new(MemoryBackend::new()),
        Arc::clone(&engine),
        clock.clone(),
        DiskConfig { is_store: true, ..config() },
        &RecoveryProgress::default(),
    )
    .unwrap();
    let (namespace, begun) = (engine.default_namespace(), clock.now());
    let second = Expiration::In(Ttl::Ms(1_000));
    engine.apply(namespace, &Op::Set(Set { expiration: second, ..Set::new(b"key", b"value") }), begun);
    clock.by_ms.store(5_000, Ordering::Relaxed);
    disk.compact().unwrap();
    let touch = Op::Touch { key: b"key", ttl: Ttl::Ms(3_600_000) };
    assert_eq!(engine.apply(namespace, &touch, begun), Outcome::Touched(true));
    let reader = disk.tier_reader().unwrap();
    reader.arrived().unwrap();
    let found = reader.tier.fetch(engine.shard_and_walk_hash(0, b"key"), 0, b"key").unwrap();
    let expiry = found.expect("the touch has kept it").visit(|put| put.expiry);
    assert!(!expiry.unwrap().is_past(clock.now().steady_ms));
}

#[test]
fn entries_of_a_damaged_snapshot_come_lazily_from_the_one_before_and_the_journal() {
    let mut random = StdRng::seed_from_u64(rand::random());
    for is_store in [false, true] {
        let config = DiskConfig { is_store, recovery: RecoveryMethod::Lazy, ..config() };
        let stand = Stand::new();
        (0..300).for_each(|_| step(&stand, &mut random));
        stand.disk.snapshot().unwrap();
        (0..300).for_each(|_| step(&stand, &mut random));
        let newest = stand.disk.snapshot().unwrap();
        for n in 0..20 {
            stand.set(&format!("later:{n}"), "v");
        }
        stand.disk.journal().flush().unwrap();
        let content = stand.content();
        let file = FileId { kind: FileKind::Snapshot, number: newest.number };
        let length = stand.backend.content(file).unwrap().len();
        for offset in (0..length).step_by(length / 60) {
            let left = stand.backend.crash(Lose::Unsynced);
            assert!(left.flip_bit(file, offset as u64, 4));
            let again = Stand::over(left, &config).unwrap();
            // It waits for the recovery to end where there is no store.
            again.disk.snapshot().unwrap();
            again.disk.snapshot().unwrap();
            for key in content.keys() {
                if let Some(reader) = again.disk.tier_reader() {
                    bring(&again, &reader, key);
                }
            }
            assert_eq!(again.content(), content, "store {is_store}, byte {offset} of {length}");
            assert_eq!(again.backend.quarantined().len(), 1, "byte {offset} of {length}");
        }
    }
}

/// Has a key brought to memory from where it lies.
fn bring(stand: &Stand, reader: &TierReader<'_>, (name, key): &(String, Vec<u8>)) {
    let default = stand.engine.default_namespace();
    let namespace = stand.engine.namespace(name).unwrap_or_else(|| default.clone());
    let Some(fetch) = stand.engine.begin_fetch(&namespace, key, stand.now()) else { return };
    let place = (fetch.shard(), fetch.walk_hash());
    let found = reader.fetch(place, fetch.logged(), namespace.number(), key).unwrap().unwrap();
    found.visit(|put| stand.engine.promote(&namespace, fetch, put, stand.now()).unwrap()).unwrap();
}

#[test]
fn what_memory_has_no_room_for_is_told_where_there_is_no_store() {
    let stand = Stand::over(MemoryBackend::new(), &DiskConfig { is_store: true, ..config() }).unwrap();
    let value = "v".repeat(100 << 10);
    (0..800).for_each(|n| stand.store(&format!("key:{n}"), &value));
    stand.disk.stop().unwrap();
    let again = Stand::over(stand.backend.crash(Lose::Nothing), &config()).unwrap();
    let served = again.content().len() as u64;
    assert!(served < 800);
    assert_eq!(again.report.refused, 800 - served);
    let store = Stand::over(stand.backend.crash(Lose::Nothing), &DiskConfig { is_store: true, ..config() });
    assert_eq!(store.unwrap().report.refused, 0, "they are tier_file memory");
}

#[test]
fn a_snapshot_saves_what_is_whole_of_a_damaged_file_and_sets_it_aside() {
    let stand = Stand::over(MemoryBackend::new(), &DiskConfig { is_store: true, ..config() }).unwrap();
    let reader = stand.disk.tier_reader().unwrap();
    let keys: Vec<String> = (0..100).map(|n| format!("key:{n}")).collect();
    let is_there = |key: &String| {
        let place = stand.engine.shard_and_walk_hash(0, key.as_bytes());
        reader.tier.fetch(place, 0, key.as_bytes()).unwrap().is_some()
    };
    // A frame's header, a body, and the file's end.
    for (round, at) in [3, 2_000, 5_000].into_iter().enumerate() {
        keys.iter().for_each(|key| drop(stand.set(key, &"v".repeat(200))));
        let taken = stand.disk.compact().map(|_| stand.disk.snapshots()[0]).unwrap();
        let file = FileId { kind: FileKind::Snapshot, number: taken.number };
        assert!(stand.backend.flip_bit(file, at, 3));
        stand.disk.compact().unwrap();
        let lost = keys.iter().filter(|key| !is_there(key)).count();
        assert!(lost <= 1, "{lost} entries are lost for one byte, {at}");
        assert_eq!(stand.backend.quarantined().len(), round + 1, "byte {at} of {}", taken.bytes);
        assert!(!stand.backend.files().unwrap().iter().any(|(other, _)| *other == file));
    }
}
