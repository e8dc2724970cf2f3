//! Entries on disk, and a wall clock that jumps.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::clock::monotonic;
use crate::engine::Condition;
use crate::entry::{Expiry, Version};
use crate::persistence::frame::{FrameReader, HEADER_BYTES};
use crate::persistence::mark::JournalMark;

const BEGUN_US: u64 = 1_800_000_000_000_000;
const HOUR_S: u64 = 3_600;
const DAY_S: i64 = 86_400;
const TEN_YEARS_S: i64 = 3_650 * DAY_S;

/// A clock that stands still until it is set on, of a machine whose wall clock shows anything.
#[derive(Debug)]
struct HandSet {
    steady_ms: AtomicU64,
    wall_us: AtomicU64,
}

impl HandSet {
    /// Of a process that starts when the wall clock shows this.
    fn at(wall_us: u64) -> Arc<Self> {
        Arc::new(Self { steady_ms: AtomicU64::new(0), wall_us: AtomicU64::new(wall_us) })
    }

    fn goes_on(&self, seconds: u64) {
        self.steady_ms.fetch_add(seconds * 1_000, Ordering::SeqCst);
        self.wall_us.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    /// The wall clock alone is set on, or back.
    fn jumps(&self, seconds: i64) {
        let wall_us = self.wall_us.load(Ordering::SeqCst).saturating_add_signed(seconds * 1_000_000);
        self.wall_us.store(wall_us, Ordering::SeqCst);
    }
}

impl Clock for HandSet {
    fn now(&self) -> Now {
        let (steady_ms, unix_us) = (&self.steady_ms, &self.wall_us);
        Now { steady_ms: steady_ms.load(Ordering::SeqCst), unix_us: unix_us.load(Ordering::SeqCst) }
    }

    fn advance_to(&self, steady_ms: u64) {
        self.steady_ms.fetch_max(steady_ms, Ordering::SeqCst);
    }
}

/// A node that runs by such a clock.
struct Running {
    engine: Arc<Engine>,
    clock: Arc<HandSet>,
    disk: Disk,
}

impl Running {
    fn start(backend: &MemoryBackend, clock: &Arc<HandSet>, config: &DiskConfig) -> Self {
        let shape = EngineConfig { bytes_limit: 1 << 20, shards: Some(1), ..EngineConfig::default() };
        let engine = Arc::new(Engine::new(&shape, clock.now()));
        let (shared, progress) = (Arc::new(backend.clone()), RecoveryProgress::default());
        let (disk, report) =
            Disk::open(shared, Arc::clone(&engine), clock.clone(), config.clone(), &progress).unwrap();
        assert!(report.damages.is_empty(), "{:?}", report.damages);
        // What comes lazily is in memory then.
        while !config.is_store && disk.tier_reader().is_some() {
            std::thread::yield_now();
        }
        Self { engine, clock: Arc::clone(clock), disk }
    }

    fn set(&self, key: &str, expiration: Expiration, condition: Condition) -> Outcome {
        let set = Set { expiration, condition, ..Set::new(key.as_bytes(), b"value") };
        self.engine.apply(self.engine.default_namespace(), &Op::Set(set), self.clock.now())
    }

    fn set_for(&self, key: &str, seconds: u64) -> Version {
        match self.set(key, Expiration::In(Ttl::Ms(seconds * 1_000)), Condition::Always) {
            Outcome::Stored(version) => version,
            other => panic!("{other:?}"),
        }
    }

    /// What is left of a key's life, in ms, in memory and with a store on disk too; `None`: it is not there.
    fn left_ms(&self, key: &str) -> Option<u64> {
        let (key, now) = (key.as_bytes(), self.clock.now());
        let get = Op::Get { key, touch: None };
        let in_memory = match self.engine.apply(self.engine.default_namespace(), &get, now) {
            Outcome::Hit(hit) => Some(hit.remaining_ttl_ms),
            _ => None,
        };
        if let Some(reader) = self.disk.tier_reader() {
            reader.arrived().unwrap();
            let found = reader.tier.fetch(self.engine.shard_and_walk_hash(0, key), 0, key).unwrap();
            let expires = found.and_then(|found| {
                found.visit(|put| match put.expiry {
                    Expiry::Never => panic!("{} was given a time to live", key.escape_ascii()),
                    Expiry::AtMs(at) => at,
                })
            });
            let on_disk = expires.map(|at| at.saturating_sub(now.steady_ms)).filter(|left| *left > 0);
            assert_eq!(on_disk, in_memory, "of {}", key.escape_ascii());
        }
        in_memory
    }

    fn has(&self, key: &str) -> bool {
        self.left_ms(key).is_some()
    }

    fn stop(self) {
        self.disk.stop().unwrap();
    }

    /// Nothing of what was not synced is left.
    fn crash(self, backend: &MemoryBackend) -> MemoryBackend {
        self.disk.journal().flush().unwrap();
        backend.crash(Lose::Unsynced)
    }
}

fn modes() -> [DiskConfig; 4] {
    let lazy = DiskConfig { recovery: RecoveryMethod::Lazy, ..super::config() };
    let snapshots = DiskConfig { is_journaled: false, recovery: RecoveryMethod::Snapshot, ..super::config() };
    [super::config(), snapshots, lazy, DiskConfig { is_store: true, ..super::config() }]
}

#[test]
fn a_wall_clock_that_jumps_while_the_node_runs_changes_no_life_on_disk() {
    let clock = HandSet::at(BEGUN_US);
    let store = DiskConfig { is_store: true, ..super::config() };
    let node = Running::start(&MemoryBackend::new(), &clock, &store);
    let mut keys = Vec::new();
    for by_s in [0, TEN_YEARS_S, -2 * TEN_YEARS_S, TEN_YEARS_S] {
        clock.jumps(by_s);
        let key = format!("key:{}", keys.len());
        node.set_for(&key, HOUR_S);
        keys.push(key);
        for key in &keys {
            assert_eq!(node.left_ms(key), Some(HOUR_S * 1_000), "{key} when the clock jumps by {by_s} s");
        }
    }
    // What a snapshot copies is held to the same clock.
    clock.jumps(TEN_YEARS_S);
    node.disk.compact().unwrap();
    for key in &keys {
        assert_eq!(node.left_ms(key), Some(HOUR_S * 1_000), "{key} after a snapshot");
    }
}

#[test]
fn a_clock_that_was_ahead_for_a_moment_ends_no_life_and_delays_none() {
    for config in modes() {
        let (backend, clock) = (MemoryBackend::new(), HandSet::at(BEGUN_US));
        let node = Running::start(&backend, &clock, &config);
        node.set_for("before", HOUR_S);
        clock.jumps(DAY_S);
        let ahead = node.set_for("meanwhile", HOUR_S);
        clock.jumps(-DAY_S);
        assert_eq!(node.left_ms("before"), Some(HOUR_S * 1_000));
        let in_an_hour = Expiration::AtUnixMs(clock.now().unix_ms() + HOUR_S * 1_000);
        let stored = node.set("at", in_an_hour, Condition::Always);
        assert!(matches!(stored, Outcome::Stored(version) if version > ahead), "{stored:?}");
        let lock = node.set("lock", in_an_hour, Condition::IfAbsent);
        assert!(matches!(lock, Outcome::Stored(version) if version > ahead), "{lock:?}");
        assert!(matches!(node.set("lock", in_an_hour, Condition::IfAbsent), Outcome::NotStored(_)));
        clock.goes_on(60);
        node.stop();
        // Twice, as it must not outlive the first restart either.
        for down_s in [60, 120] {
            let clock = HandSet::at(BEGUN_US + (60 + down_s) * 1_000_000);
            let node = Running::start(&backend, &clock, &config);
            let left = Some((HOUR_S - 60 - down_s) * 1_000);
            for key in ["before", "meanwhile", "at", "lock"] {
                assert_eq!(node.left_ms(key), left, "{key} by {config:?}");
            }
            assert!(node.set_for("later", 1) > ahead, "versions stay ahead");
            node.stop();
        }
    }
}

#[test]
fn a_node_that_is_killed_while_its_clock_is_ahead_comes_back_with_all_that_was_left() {
    let (backend, clock) = (MemoryBackend::new(), HandSet::at(BEGUN_US));
    let node = Running::start(&backend, &clock, &super::config());
    node.set_for("key", HOUR_S);
    clock.goes_on(60);
    clock.jumps(DAY_S);
    node.set_for("other", HOUR_S);
    let left = node.crash(&backend);
    let clock = HandSet::at(BEGUN_US + 120 * 1_000_000);
    let node = Running::start(&left, &clock, &super::config());
    assert_eq!(node.left_ms("key"), Some((HOUR_S - 60) * 1_000));
    assert_eq!(node.left_ms("other"), Some(HOUR_S * 1_000));
}

#[test]
fn starts_with_a_clock_that_is_set_back_lengthen_no_life() {
    for config in modes() {
        let backend = MemoryBackend::new();
        let node = Running::start(&backend, &HandSet::at(BEGUN_US), &config);
        node.set_for("key", 20);
        node.stop();
        for round in 0..4 {
            let clock = HandSet::at(BEGUN_US - HOUR_S * 1_000_000);
            let node = Running::start(&backend, &clock, &config);
            assert_eq!(node.has("key"), round * 8 < 20, "start {round} by {config:?}");
            // Without a journal a node that stops writes a snapshot only if something has changed.
            node.set_for(&format!("other:{round}"), HOUR_S);
            clock.goes_on(8);
            node.stop();
        }
    }
}

#[test]
fn the_time_that_a_node_was_down_counts_as_life() {
    for config in modes() {
        let backend = MemoryBackend::new();
        let node = Running::start(&backend, &HandSet::at(BEGUN_US), &config);
        assert_eq!(node.clock.now().unix_ms(), node.clock.now().steady_ms, "of a new directory");
        node.set_for("short", HOUR_S);
        node.set_for("long", 3 * HOUR_S);
        node.stop();
        let clock = HandSet::at(BEGUN_US + 2 * HOUR_S * 1_000_000);
        let node = Running::start(&backend, &clock, &config);
        assert_eq!((node.left_ms("short"), node.left_ms("long")), (None, Some(HOUR_S * 1_000)), "{config:?}");
        clock.goes_on(60);
        let counted_ms = node.engine.hot_keys(clock.now()).window_ms;
        assert!(counted_ms <= 60_000, "nothing is counted since before the start: {counted_ms} ms");
    }
}

#[test]
fn a_start_with_a_clock_that_is_ten_years_ahead_shortens_no_life_that_begins_later() {
    for config in modes() {
        let backend = MemoryBackend::new();
        let ahead = BEGUN_US + TEN_YEARS_S as u64 * 1_000_000;
        let node = Running::start(&backend, &HandSet::at(ahead), &config);
        node.set_for("future", 60);
        node.stop();
        for round in 0..3 {
            let clock = HandSet::at(BEGUN_US + round * 60_000_000);
            let node = Running::start(&backend, &clock, &config);
            let mut before = (0..round).map(|before| format!("key:{before}"));
            assert!(before.all(|key| node.has(&key)), "start {round}");
            node.set_for(&format!("key:{round}"), HOUR_S);
            clock.goes_on(60);
            node.stop();
        }
    }
}

#[test]
fn a_rehearsal_goes_by_the_same_time() {
    let (backend, clock) = (MemoryBackend::new(), HandSet::at(BEGUN_US));
    let node = Running::start(&backend, &clock, &super::config());
    node.set_for("short", 60);
    node.set_for("long", HOUR_S);
    clock.jumps(TEN_YEARS_S);
    node.disk.journal().flush().unwrap();
    clock.goes_on(60);
    assert_eq!(node.disk.rehearse(RecoveryMethod::SnapshotAndJournal).unwrap().entries, 1);
}

#[test]
fn an_idle_node_writes_the_time_down_every_ten_seconds() {
    let (backend, clock) = (MemoryBackend::new(), HandSet::at(BEGUN_US));
    let mut config = super::config();
    config.journal.flush_interval = Duration::from_millis(1);
    let _node = Running::start(&backend, &clock, &config);
    let synced =
        || JournalMark::read(&backend.crash(Lose::Unsynced).read_mark().unwrap().unwrap()).unwrap().time;
    for _ in 0..3 {
        clock.jumps(-DAY_S);
        clock.goes_on(10);
        let (now, begun) = (clock.now(), monotonic());
        while synced() != now {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{:?} is written down, and not {now:?}",
                synced()
            );
            std::thread::yield_now();
        }
    }
}

/// The content of a journal's segment or of a snapshot in format 1, whose wall time is what steady time is here.
fn in_format_1(content: &MemoryBackend, file: FileId) -> Vec<u8> {
    let mut reader = FrameReader::new(content.open(file).unwrap()).unwrap();
    let (mut body, mut previous, mut older) = (Vec::new(), None, Vec::new());
    while let Some(frame) = reader.next(&mut body).unwrap() {
        let header = frame.header;
        let (mut bytes, _) = header.write();
        bytes[4] = 1;
        bytes[32..40].copy_from_slice(&(header.time.steady_ms * 1_000).to_le_bytes());
        bytes[40..44].copy_from_slice(&previous.unwrap_or(header.previous).to_le_bytes());
        let crc = crc32fast::hash(&bytes[..48]);
        bytes[48..52].copy_from_slice(&crc.to_le_bytes());
        previous = Some(crc);
        older.extend_from_slice(&bytes[..52]);
        older.extend_from_slice(&body);
    }
    older
}

#[test]
fn a_directory_of_format_1_whose_clock_was_ahead_goes_on_from_there() {
    let (backend, clock) = (MemoryBackend::new(), HandSet::at(BEGUN_US));
    let config = super::config();
    let node = Running::start(&backend, &clock, &config);
    // As the program did that wrote it: its time went on from the latest that it had shown.
    clock.jumps(DAY_S);
    clock.advance_to(clock.now().unix_ms());
    node.set_for("key", HOUR_S);
    let drawn = node.set_for("other", 2 * HOUR_S);
    node.stop();
    let segment =
        backend.files().unwrap().into_iter().find(|(file, _)| file.kind == FileKind::Journal).unwrap().0;
    backend.put_content(segment, in_format_1(&backend, segment));
    let mark = JournalMark::read(&backend.read_mark().unwrap().unwrap()).unwrap();
    // The journal says more than the mark.
    let time = Now { steady_ms: 0, unix_us: BEGUN_US };
    backend.write_mark(&JournalMark { time, ..mark }.write(), true).unwrap();
    assert!(backend.content(segment).unwrap().len() > HEADER_BYTES);
    for round in 0..3 {
        let clock = HandSet::at(BEGUN_US + round * 600_000_000);
        let node = Running::start(&backend, &clock, &config);
        // Of the first downtime nothing is known, as the clock shows less than what was written.
        assert_eq!(node.left_ms("key"), Some((HOUR_S - round * 600) * 1_000), "start {round}");
        let at = Expiration::AtUnixMs(clock.now().unix_ms() + HOUR_S * 1_000);
        assert!(matches!(node.set("at", at, Condition::Always), Outcome::Stored(version) if version > drawn));
        assert_eq!(node.left_ms("at"), Some(HOUR_S * 1_000));
        // From here on files of both formats are there.
        node.stop();
    }
}

#[test]
fn versions_never_repeat_and_never_end_where_the_clock_was_beyond_what_they_can_hold() {
    let (backend, clock) = (MemoryBackend::new(), HandSet::at(BEGUN_US));
    let config = super::config();
    let node = Running::start(&backend, &clock, &config);
    let before = node.set_for("key", HOUR_S);
    clock.jumps(12 * TEN_YEARS_S);
    let mut last = before;
    for n in 0..100 {
        let version = node.set_for(&format!("key:{n}"), HOUR_S);
        assert!(version > last);
        last = version;
    }
    assert!(last.clock() <= before.clock() + 100, "they are counted on: {last:?} after {before:?}");
    node.stop();
    let refused = |clock: &Arc<HandSet>| {
        let progress = RecoveryProgress::default();
        let engine = Arc::new(Engine::new(&EngineConfig::default(), clock.now()));
        let opened = Disk::open(Arc::new(backend.clone()), engine, clock.clone(), config.clone(), &progress);
        opened.unwrap_err().to_string()
    };
    assert!(refused(&clock).contains("the wall clock shows 21"), "a start is refused");
    assert!(refused(&HandSet::at(0)).contains("the wall clock shows 1970-"), "and before 1970");
    clock.jumps(-12 * TEN_YEARS_S);
    let again = Running::start(&backend, &HandSet::at(BEGUN_US), &config);
    let version = again.set_for("key", HOUR_S);
    let minutes_us = (version.clock() - last.clock()) / 60_000_000;
    assert!(version > last && minutes_us < 10, "{version:?} after {last:?}");
}

#[test]
fn no_version_is_drawn_again_that_a_crash_has_lost_where_the_clock_was_ahead() {
    let (backend, clock) = (MemoryBackend::new(), HandSet::at(BEGUN_US));
    let config = super::config();
    let node = Running::start(&backend, &clock, &config);
    clock.jumps(DAY_S);
    // Before the mark says that versions may go as far as the clock.
    let drawn: Vec<Version> = (0..100).map(|n| node.set_for(&format!("key:{n}"), HOUR_S)).collect();
    let left = backend.crash(Lose::Unsynced);
    drop(node);
    let again = Running::start(&left, &HandSet::at(BEGUN_US), &config);
    assert!(!again.has("key:99"), "it was not synced");
    let version = again.set_for("key", HOUR_S);
    assert!(drawn.iter().all(|lost| *lost < version), "{version:?} after {:?}", drawn.last());
}

#[test]
fn versions_that_are_used_up_are_told_and_never_drawn_again() {
    let (backend, clock) = (MemoryBackend::new(), HandSet::at(BEGUN_US));
    let config = super::config();
    let node = Running::start(&backend, &clock, &config);
    let early = node.set_for("early", HOUR_S);
    node.engine.raise_versions(Version::of_clock(Version::CLOCK_MAX - 1));
    let last = node.set_for("last", HOUR_S);
    assert_eq!(last.clock(), Version::CLOCK_MAX);
    let refused = |node: &Running| {
        let set = node.set("more", Expiration::Default, Condition::Always);
        assert_eq!(set, Outcome::Refused(Refusal::NoVersion));
        let increment =
            Increment { key: b"n", delta: 1, initial: 0, expiration: Expiration::Default, request_id: "" };
        let op = Op::Increment(increment);
        let counted = node.engine.apply(node.engine.default_namespace(), &op, node.clock.now());
        assert_eq!(counted, Outcome::Refused(Refusal::NoVersion));
        assert_eq!(node.engine.draw_version(node.clock.now()), None);
        assert!(node.has("early") && node.has("last"), "reads go on");
    };
    refused(&node);
    node.stop();
    let node = Running::start(&backend, &clock, &config);
    refused(&node);
    assert!(last > early);
    node.engine.invalidate(node.engine.default_namespace(), Scope::All, node.clock.now()).unwrap();
    assert!(!node.has("early") && !node.has("last"), "what needs no version of its own is done");
}

/// An entry of the model.
#[derive(Debug)]
struct Life {
    ttl_s: u64,
    /// How long it was held by a node that ran, and how long ago it was set.
    run_s: u64,
    real_s: u64,
    /// At every restart since then the wall clock was right, at the last time mark and at the start.
    is_exact: bool,
}

#[test]
fn by_whatever_jumps_and_restarts_no_life_is_longer_and_none_ends_where_the_clock_is_right() {
    let seed = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let mut backend = MemoryBackend::new();
    let (mut real_us, mut lives) = (BEGUN_US, BTreeMap::<String, Life>::new());
    let mut was_right = true;
    for restart in 0..60 {
        let is_right = random.random_bool(0.6);
        let off_s = if is_right { 0 } else { random.random_range(-5 * DAY_S..5 * DAY_S) };
        let clock = HandSet::at(real_us.saturating_add_signed(off_s * 1_000_000));
        let config = &modes()[if random.random_bool(0.5) { 0 } else { 3 }];
        let node = Running::start(&backend, &clock, config);
        for life in lives.values_mut() {
            life.is_exact &= was_right && is_right;
        }
        for step in 0..random.random_range(1..8) {
            let off_s = if random.random_bool(0.5) { 0 } else { random.random_range(-5 * DAY_S..5 * DAY_S) };
            clock.wall_us.store(real_us.saturating_add_signed(off_s * 1_000_000), Ordering::SeqCst);
            was_right = off_s == 0;
            let key = format!("key:{}", random.random_range(0..30));
            let ttl_s = random.random_range(1..4 * HOUR_S);
            node.set_for(&key, ttl_s);
            lives.insert(key, Life { ttl_s, run_s: 0, real_s: 0, is_exact: true });
            // Whatever is synced has the time, if there was something to sync.
            node.disk.journal().flush().unwrap();
            let wait_s = if step % 2 == 0 { 0 } else { random.random_range(0..HOUR_S / 2) };
            clock.goes_on(wait_s);
            real_us += wait_s * 1_000_000;
            lives.values_mut().for_each(|life| {
                life.run_s += wait_s;
                life.real_s += wait_s;
            });
            for (key, life) in &lives {
                let (left, most_ms) = (node.left_ms(key), life.ttl_s.saturating_sub(life.run_s) * 1_000);
                let at = format!("{key} {life:?} has {left:?} at {restart}.{step}, seed {seed}");
                assert!(left.unwrap_or(0) <= most_ms, "longer: {at}");
                let exact_ms = life.ttl_s.saturating_sub(life.real_s) * 1_000;
                assert!(!life.is_exact || left.unwrap_or(0) == exact_ms, "not {exact_ms}: {at}");
            }
        }
        if random.random_bool(0.5) {
            node.set_for("last", 1);
            backend = node.crash(&backend);
        } else {
            node.stop();
        }
        let down_s = random.random_range(0..HOUR_S);
        real_us += down_s * 1_000_000;
        lives.values_mut().for_each(|life| life.real_s += down_s);
    }
}
