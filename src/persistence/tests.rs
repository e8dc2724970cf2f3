//! Journal, snapshots and recovery together, over a backend that crashes to order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::backend::memory::{Lose, MemoryBackend};
use super::backend::{Backend, FileId, FileKind};
use super::disk::{Disk, DiskConfig};
use super::journal::JournalConfig;
use super::recover::{RecoveryMethod, RecoveryProgress, Report};
use crate::clock::{Clock, Now, SystemClock};
use crate::engine::{
    Engine, EngineConfig, Increment, NamespaceChange, NamespaceConfig, Op, Outcome, PolicyName, Record,
    Scope, Set, WalkCursor,
};
use crate::engine::{Expiration, Refusal};
use crate::entry::{Expiry, Ttl};

mod clocks;
mod damage;
mod disk_budget;
mod faults;
mod joining;
mod lost;
mod marks;
mod opening;
mod rehearsing;
mod reserve;
mod shortage;
mod stopping;
mod tier;
mod unfinished;
mod unjournaled;

/// What an engine has, in a form that can be compared: of each key everything but where it lies.
type Content = BTreeMap<(String, Vec<u8>), (Vec<u8>, u64, Expiry, u32, String, Vec<String>)>;

fn config() -> DiskConfig {
    DiskConfig {
        journal: JournalConfig {
            flush_interval: Duration::from_secs(3_600),
            backlog_bytes: 64 << 20,
            waiting_bytes: 4 << 20,
            segment_bytes: 64 << 10,
            reserve_bytes: 16 << 10,
        },
        is_journaled: true,
        recovery: RecoveryMethod::SnapshotAndJournal,
        snapshot_interval: None,
        limit_bytes: None,
        is_store: false,
    }
}

/// A node's content and its data directory.
struct Stand {
    engine: Arc<Engine>,
    clock: Arc<SystemClock>,
    backend: Arc<MemoryBackend>,
    disk: Disk,
    report: Report,
}

impl Stand {
    fn new() -> Self {
        Self::over(MemoryBackend::new(), &config()).unwrap()
    }

    fn over(backend: MemoryBackend, config: &DiskConfig) -> Result<Self, super::snapshot::SnapshotError> {
        let shards = Some(1 << rand::random_range(0..4));
        let engine = EngineConfig { bytes_limit: 64 << 20, shards, ..EngineConfig::default() };
        Self::with_engine(&engine, backend, config)
    }

    fn with_engine(
        engine: &EngineConfig,
        backend: MemoryBackend,
        config: &DiskConfig,
    ) -> Result<Self, super::snapshot::SnapshotError> {
        let clock = Arc::new(SystemClock::new());
        let engine = Arc::new(Engine::new(engine, clock.now()));
        let backend = Arc::new(backend);
        let opened = Disk::open(
            Arc::clone(&backend) as Arc<dyn Backend>,
            Arc::clone(&engine),
            Arc::clone(&clock) as Arc<dyn Clock>,
            config.clone(),
            &RecoveryProgress::default(),
        );
        let (disk, report) = opened?;
        Ok(Self { engine, clock, backend, disk, report })
    }

    /// The node goes down with all that was not synced, and comes back.
    fn crashed(self, config: &DiskConfig) -> Self {
        let left = self.backend.crash(Lose::Unsynced);
        Self::over(left, config).unwrap()
    }

    fn now(&self) -> Now {
        self.clock.now()
    }

    fn set(&self, key: &str, value: &str) -> Outcome {
        let set = Set::new(key.as_bytes(), value.as_bytes());
        self.engine.apply(self.engine.default_namespace(), &Op::Set(set), self.now())
    }

    /// Stores a value, when the journal's backlog has room for it.
    fn store(&self, key: &str, value: &str) {
        loop {
            match self.set(key, value) {
                Outcome::Stored(_) => return,
                Outcome::Refused(Refusal::Backlogged { .. }) => std::thread::yield_now(),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Counts one up, for a request of this id.
    fn count(&self, request_id: &str) -> i64 {
        self.count_in("n", request_id)
    }

    fn count_in(&self, key: &str, request_id: &str) -> i64 {
        let (key, expiration) = (key.as_bytes(), Expiration::Default);
        let op = Increment { key, delta: 1, initial: 0, expiration, request_id };
        match self.engine.apply(self.engine.default_namespace(), &Op::Increment(op), self.now()) {
            Outcome::Counted { value, .. } => value,
            other => panic!("{other:?}"),
        }
    }

    fn get(&self, key: &str) -> Option<String> {
        let op = Op::Get { key: key.as_bytes(), touch: None };
        match self.engine.apply(self.engine.default_namespace(), &op, self.now()) {
            Outcome::Hit(hit) => Some(String::from_utf8(hit.value.to_vec()).unwrap()),
            _ => None,
        }
    }

    fn content(&self) -> Content {
        content(&self.engine, self.now())
    }
}

fn content(engine: &Engine, now: Now) -> Content {
    let mut names = BTreeMap::new();
    engine.walk_rest(|record| {
        if let Record::Namespace { number, config, .. } = record {
            names.insert(*number, config.name.clone());
        }
    });
    let mut content = Content::new();
    let mut cursor = WalkCursor::default();
    while engine.walk(&mut cursor, now, |record| {
        let Record::Put(put) = record else { panic!("{record:?}") };
        let expires = put.expiry;
        let tags = put.tags.iter().map(|tag| (*tag).to_owned()).collect();
        let what = (
            put.value.as_slice().to_vec(),
            put.version.0,
            expires,
            put.flags,
            put.content_type.to_owned(),
            tags,
        );
        content.insert((names[&put.namespace].clone(), put.key.to_vec()), what);
    }) {}
    content
}

/// Does something, at random.
fn step(stand: &Stand, random: &mut StdRng) {
    let engine = &stand.engine;
    let names = ["", "a", "b"];
    let name = names[random.random_range(0..names.len())];
    let namespace = if name.is_empty() {
        engine.default_namespace().clone()
    } else if let Some(namespace) = engine.namespace(name) {
        namespace
    } else {
        let policy = PolicyName::ALL[random.random_range(0..PolicyName::ALL.len())];
        engine.create_namespace(&NamespaceConfig::new(name, policy)).unwrap()
    };
    let (now, key) = (stand.now(), format!("key:{}", random.random_range(0..60)));
    let value = vec![random.random_range(b'a'..=b'z'); value_bytes(random)];
    let apply = |op: &Op<'_>| engine.apply(&namespace, op, now);
    match random.random_range(0..100) {
        0..50 => {
            let expiration = match random.random_range(0..4) {
                0 => Expiration::In(Ttl::Ms(1_000_000_000)),
                1 => Expiration::Keep,
                _ => Expiration::Default,
            };
            let tags: &[&str] = if random.random_bool(0.3) { &["red", "blue"] } else { &[] };
            let set = Set::new(key.as_bytes(), &value);
            let flags = random.random_range(0..3);
            apply(&Op::Set(Set { expiration, tags, flags, content_type: "text/plain", ..set }));
        }
        50..65 => {
            apply(&Op::Delete { key: key.as_bytes(), if_version: None });
        }
        65..78 => {
            let request_id = if random.random_bool(0.5) { key.as_str() } else { "" };
            let counter = format!("counter:{}", random.random_range(0..9));
            let expiration = Expiration::Default;
            let key = counter.as_bytes();
            apply(&Op::Increment(Increment { key, delta: 3, initial: 1, expiration, request_id }));
        }
        78..88 => {
            let ttl = if random.random_bool(0.5) { Ttl::Never } else { Ttl::Ms(2_000_000_000) };
            apply(&Op::Touch { key: key.as_bytes(), ttl });
        }
        88..91 => {
            engine.invalidate(&namespace, Scope::Prefix(&key.as_bytes()[..5]), now).unwrap();
        }
        91..93 => {
            engine.invalidate(&namespace, Scope::Tag("red"), now).unwrap();
        }
        93 => {
            engine.invalidate(&namespace, Scope::All, now).unwrap();
        }
        94 => {
            engine.clear(&namespace, now);
        }
        95 if !name.is_empty() => {
            drop(namespace);
            engine.delete_namespace(name, now).unwrap();
        }
        96 if !name.is_empty() => {
            let change = NamespaceChange { bytes_limit: Some(1 << 20), ..NamespaceChange::default() };
            engine.update_namespace(&namespace, &change);
        }
        97 => {
            stand.disk.snapshot().unwrap();
        }
        98 => {
            stand.disk.journal().written().unwrap();
        }
        _ => {}
    }
}

fn value_bytes(random: &mut StdRng) -> usize {
    if random.random_bool(0.05) { random.random_range(4_000..20_000) } else { random.random_range(0..200) }
}

/// The shards of the next process have other keys, and room for fewer requests: they forget the oldest of them.
#[test]
fn the_newest_requests_are_remembered_whatever_shards_they_were_in() {
    let (counters, rounds) = (16, 60);
    let id = |round: i64| format!("{round:0200}");
    for recovery in [RecoveryMethod::SnapshotAndJournal, RecoveryMethod::Lazy] {
        let engine = EngineConfig { bytes_limit: 64 << 20, shards: Some(8), ..EngineConfig::default() };
        let config = DiskConfig { recovery, ..config() };
        let stand = Stand::with_engine(&engine, MemoryBackend::new(), &config).unwrap();
        for round in 1..=rounds {
            for counter in 0..counters {
                assert_eq!(stand.count_in(&format!("counter-{counter}"), &id(round)), round);
            }
        }
        stand.disk.snapshot().unwrap();
        let engine = EngineConfig { bytes_limit: 1 << 20, shards: Some(1), ..engine };
        let left = stand.backend.crash(Lose::Unsynced);
        let stand = Stand::with_engine(&engine, left, &config).unwrap();
        for counter in 0..counters {
            let again = stand.count_in(&format!("counter-{counter}"), &id(rounds));
            assert_eq!(again, rounds, "counted twice in counter {counter}, {recovery:?}");
        }
    }
}

#[test]
fn what_was_flushed_is_there_after_a_crash_whatever_was_done() {
    for _ in 0..12 {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let mut stand = Stand::new();
        for _ in 0..4 {
            for _ in 0..random.random_range(1..400) {
                step(&stand, &mut random);
            }
            stand.disk.journal().flush().unwrap();
            let before = stand.content();
            stand = stand.crashed(&config());
            assert!(stand.report.damages.is_empty(), "{:?}", stand.report);
            assert_eq!(stand.content(), before);
            stand.engine.validate();
        }
    }
}

#[test]
fn a_snapshot_alone_is_the_state_at_its_position() {
    let stand = Stand::new();
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..500 {
        step(&stand, &mut random);
    }
    let before = stand.content();
    let taken = stand.disk.snapshot().unwrap();
    assert_eq!(taken.entries, before.len() as u64);
    stand.set("later", "is lost with the journal");
    stand.disk.journal().flush().unwrap();
    let stand = stand.crashed(&DiskConfig { recovery: RecoveryMethod::Snapshot, ..config() });
    assert_eq!(stand.content(), before);
    // And the journal goes on from there.
    stand.set("more", "of it");
    stand.disk.journal().flush().unwrap();
    let before = stand.content();
    let stand = stand.crashed(&config());
    assert_eq!((stand.content(), stand.report.damages.len()), (before, 0));
}

#[test]
fn snapshots_under_writes_are_whole() {
    let stand = Stand::new();
    for n in 0..20_000 {
        stand.set(&format!("key:{n}"), "first");
    }
    let writing = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = StdRng::seed_from_u64(1);
            while writing.load(std::sync::atomic::Ordering::Relaxed) {
                let key = format!("key:{}", random.random_range(0..20_000));
                stand.set(&key, "second");
                let gone = format!("key:{}", random.random_range(0..20_000));
                let op = Op::Delete { key: gone.as_bytes(), if_version: None };
                stand.engine.apply(stand.engine.default_namespace(), &op, stand.now());
            }
        });
        for _ in 0..3 {
            stand.disk.snapshot().unwrap();
        }
        writing.store(false, std::sync::atomic::Ordering::Relaxed);
    });
    // All that was done since the last of them is lost; what it has is what the journal says until there.
    let newest = stand.disk.snapshots()[0];
    assert!(newest.position > newest.first_position, "nothing was written meanwhile");
    stand.disk.journal().flush().unwrap();
    let whole = stand.content();
    let stand = stand.crashed(&config());
    assert_eq!(stand.content(), whole);
}

#[test]
fn an_increment_is_not_done_twice_across_a_restart_or_a_snapshot() {
    let mut stand = Stand::new();
    assert_eq!((stand.count("one"), stand.count("two")), (1, 2));
    stand.disk.journal().flush().unwrap();
    stand = stand.crashed(&config());
    assert_eq!((stand.count("one"), stand.count("two"), stand.count("three")), (1, 2, 3));
    stand.disk.compact().unwrap();
    stand = stand.crashed(&config());
    assert_eq!((stand.count("one"), stand.count("three"), stand.count("four")), (1, 3, 4));
}

#[test]
fn versions_only_grow_across_a_crash_that_loses_the_tail() {
    let stand = Stand::new();
    let version = |stand: &Stand| match stand.set("k", "v") {
        Outcome::Stored(version) => version,
        other => panic!("{other:?}"),
    };
    let before = version(&stand);
    let stand = stand.crashed(&config());
    assert_eq!(stand.get("k"), None, "it was not flushed");
    assert!(version(&stand) > before);
}

#[test]
fn a_value_is_not_served_after_its_time_also_if_that_ended_while_the_node_was_down() {
    let stand = Stand::new();
    let now = stand.now();
    let set = Set { expiration: Expiration::In(Ttl::Ms(50)), ..Set::new(b"short", b"v") };
    stand.engine.apply(stand.engine.default_namespace(), &Op::Set(set), now);
    let set = Set { expiration: Expiration::In(Ttl::Ms(3_600_000)), ..Set::new(b"long", b"v") };
    stand.engine.apply(stand.engine.default_namespace(), &Op::Set(set), now);
    stand.disk.journal().flush().unwrap();
    let left = stand.backend.crash(Lose::Unsynced);
    let engine = Engine::new(&EngineConfig::default(), now);
    let progress = RecoveryProgress::default();
    let late = now.plus(Duration::from_millis(60));
    let recovery = super::recover::Recovery {
        backend: &left,
        engine: &engine,
        now: late,
        threads: 2,
        progress: &progress,
        tier: None,
    };
    let report = recovery.run(RecoveryMethod::SnapshotAndJournal).unwrap().report;
    assert_eq!((report.expired, content(&engine, late).len()), (1, 1));
}

#[test]
fn compaction_leaves_one_snapshot_and_the_journal_behind_it() {
    let stand = Stand::new();
    for n in 0..5_000 {
        stand.set(&format!("key:{}", n % 50), &"x".repeat(100));
    }
    stand.disk.journal().flush().unwrap();
    stand.disk.snapshot().unwrap();
    let before = stand.backend.disk_bytes().unwrap();
    let compacted = stand.disk.compact().unwrap();
    assert_eq!(compacted.disk_bytes, stand.backend.disk_bytes().unwrap());
    assert!(compacted.disk_bytes < before / 4 + (64 << 10), "{before} to {compacted:?}");
    assert_eq!(stand.disk.snapshots().len(), 1);
    let before = stand.content();
    let stand = stand.crashed(&config());
    assert_eq!(stand.content(), before);
}

#[test]
fn a_journal_knows_the_bytes_of_its_segments() {
    let check = |stand: &Stand| {
        let files = stand.backend.files().unwrap().into_iter();
        let there: Vec<_> = files
            .filter(|(file, _)| file.kind == FileKind::Journal)
            .map(|(file, bytes)| (file.number, bytes))
            .collect();
        let known = stand.disk.journal().segments();
        let known: Vec<_> = known.iter().map(|segment| (segment.number, segment.bytes)).collect();
        assert_eq!(known, there);
        there.len()
    };
    let mut stand = Stand::new();
    for _ in 0..3 {
        for n in 0..400 {
            if n == 200 {
                stand.disk.snapshot().unwrap();
            }
            stand.set(&format!("key:{n}"), &"x".repeat(1_000));
            stand.disk.journal().written().unwrap();
        }
        stand.disk.journal().flush().unwrap();
        assert!(check(&stand) > 2);
        stand = stand.crashed(&config());
        check(&stand);
    }
}

#[test]
fn a_rehearsal_reports_what_a_recovery_brings_and_changes_nothing() {
    let stand = Stand::new();
    for n in 0..300 {
        stand.set(&format!("key:{n}"), &"x".repeat(n));
    }
    stand.disk.snapshot().unwrap();
    stand.set("key:300", "");
    stand.disk.journal().flush().unwrap();
    let files = stand.backend.files().unwrap();
    let found = stand.disk.rehearse(RecoveryMethod::SnapshotAndJournal).unwrap();
    assert_eq!(found.entries, 301);
    let bytes: usize = (0..300).map(|n| format!("key:{n}").len() + n).sum::<usize>() + 7;
    assert_eq!(found.entry_bytes, bytes as u64);
    assert_eq!(stand.disk.rehearse(RecoveryMethod::Snapshot).unwrap().entries, 300);
    assert_eq!(stand.disk.rehearse(RecoveryMethod::Empty).unwrap().entries, 0);
    assert_eq!(stand.disk.rehearse(RecoveryMethod::Journal).unwrap().entries, 301);
    assert_eq!(stand.backend.files().unwrap(), files);
}

#[test]
fn an_empty_recovery_gives_up_what_was_there() {
    let stand = Stand::new();
    stand.set("k", "v");
    stand.disk.snapshot().unwrap();
    stand.set("l", "v");
    stand.disk.journal().flush().unwrap();
    let stand = stand.crashed(&DiskConfig { recovery: RecoveryMethod::Empty, ..config() });
    assert_eq!(stand.content().len(), 0);
    stand.set("m", "v");
    stand.disk.journal().flush().unwrap();
    let stand = stand.crashed(&config());
    assert_eq!((stand.content().len(), stand.report.damages.len()), (1, 0));
}

#[test]
fn a_disk_limit_that_is_reached_refuses_writes_until_there_is_room() {
    let limited = DiskConfig { limit_bytes: Some(2 << 20), ..config() };
    let stand = Stand::over(MemoryBackend::new(), &limited).unwrap();
    let mut refused = false;
    let mut last = 0;
    for n in 0..2_000_000 {
        match stand.set(&format!("key:{n}"), &"x".repeat(1_000)) {
            Outcome::Refused(Refusal::DiskLimit) => {
                refused = true;
                break;
            }
            Outcome::Stored(_) => last = n,
            // The disk is a map in memory, and yet it may be slower.
            Outcome::Refused(Refusal::Backlogged { .. }) => std::thread::yield_now(),
            other => panic!("{other:?}"),
        }
    }
    assert!(refused, "it never was");
    assert!(stand.get(&format!("key:{last}")).is_some(), "reads go on");
    let begun = crate::clock::monotonic();
    let wait_until = |what: &str, is: &dyn Fn() -> bool| {
        while !is() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::yield_now();
        }
    };
    wait_until("a snapshot of everything", &|| {
        let position = stand.disk.journal().progress().borrow().position;
        stand.disk.snapshots().first().is_some_and(|newest| newest.position == position)
    });
    // Nobody changes anything: what there is becomes less by itself, as it does where entries expire.
    stand.engine.resize(1 << 20, stand.now());
    wait_until("a write", &|| stand.set("later", "v") != Outcome::Refused(Refusal::DiskLimit));
}
