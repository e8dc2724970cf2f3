//! The engine against a plain map: random operations, time jumps, policy swaps and resizes, `validate` after
//! each. The seed is in every failure's message; `LARDER_MODEL_OPS` runs it longer.

use std::collections::HashMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn at(ms: u64) -> Now {
    Now { ticks_ms: ms, unix_us: 1_800_000_000_000_000 + ms * 1_000 }
}

fn engine(bytes_limit: u64, shards: u32, policy: PolicyName) -> Engine {
    let config = EngineConfig { bytes_limit, shards: Some(shards), policy, ..EngineConfig::default() };
    Engine::new(&config, at(0))
}

fn get(engine: &Engine, key: &[u8], now: Now) -> Outcome {
    engine.apply(&Op::Get { key, touch: None }, now).0
}

fn value_of(outcome: Outcome) -> Option<Vec<u8>> {
    match outcome {
        Outcome::Hit(hit) => Some(hit.value.to_vec()),
        Outcome::Miss(_) => None,
        other => panic!("{other:?}"),
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Known {
    value: Vec<u8>,
    version: Version,
    expires_at: Option<u64>,
    flags: u32,
    content_type: String,
}

struct Model {
    engine: Engine,
    known: HashMap<Vec<u8>, Known>,
    now: Now,
    rng: SmallRng,
    /// Entries that the model lost because the engine had let them go.
    evicted: u64,
    sequences: HashMap<u32, u64>,
    last_version: Version,
    bytes_limit: u64,
}

impl Model {
    fn new(seed: u64, bytes_limit: u64, policy: PolicyName) -> Self {
        Self {
            engine: engine(bytes_limit, 2, policy),
            known: HashMap::new(),
            now: at(1_000),
            rng: SmallRng::seed_from_u64(seed),
            evicted: 0,
            sequences: HashMap::new(),
            last_version: Version::NONE,
            bytes_limit,
        }
    }

    fn key(&mut self) -> Vec<u8> {
        let n: u32 = self.rng.random_range(0..400);
        if n % 50 == 7 { vec![n as u8; 1 + n as usize * 10] } else { format!("key-{n}").into_bytes() }
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.rng.random_range(0..20) {
            0 => 0,
            1 => self.rng.random_range(4_000..4_200),
            2 => self.rng.random_range(0..60_000),
            3..6 => return self.rng.random_range(-5i64..1_000_000).to_string().into_bytes(),
            _ => self.rng.random_range(0..400),
        };
        vec![0x80 | self.rng.random::<u8>(); len]
    }

    fn ttl(&mut self) -> Ttl {
        match self.rng.random_range(0..6) {
            0..3 => Ttl::Never,
            3 => Ttl::Ms(self.rng.random_range(1..2_000)),
            4 => Ttl::Ms(self.rng.random_range(1..10_000_000)),
            _ => Ttl::Ms(self.rng.random_range(1..crate::entry::TTL_MS_MAX)),
        }
    }

    fn end(&self, ttl: Ttl) -> Option<u64> {
        match ttl {
            Ttl::Never => None,
            Ttl::Ms(ms) => Some(self.now.ticks_ms + ms),
        }
    }

    /// What the model believes to be there; if the engine has evicted it, the model learns that first.
    fn current(&mut self, key: &[u8]) -> Option<Known> {
        let now = self.now.ticks_ms;
        if self.known.get(key).is_some_and(|known| known.expires_at.is_some_and(|at| at <= now)) {
            self.known.remove(key);
        }
        let believed = self.known.get(key).cloned()?;
        if matches!(get(&self.engine, key, self.now), Outcome::Miss(_)) {
            self.evicted += 1;
            self.known.remove(key);
            return None;
        }
        Some(believed)
    }

    fn stored(&mut self, change: Change, version: Version, expires_at: Option<u64>) {
        assert!(version > self.last_version, "versions only grow");
        self.last_version = version;
        let expires_unix_ms = expires_at.map(|at| self.now.unix_ms() + at - self.now.ticks_ms);
        assert_eq!(change.kind, ChangeKind::Put { version, expires_unix_ms });
    }

    fn sequenced(&mut self, change: Change) {
        if change.kind == ChangeKind::None {
            assert_eq!(change.sequence, 0);
        } else {
            let last = self.sequences.entry(change.shard).or_default();
            *last += 1;
            assert_eq!(change.sequence, *last, "sequence numbers are dense");
        }
    }

    fn set(&mut self) {
        let (key, value, ttl) = (self.key(), self.value(), self.ttl());
        let current = self.current(&key);
        let condition = match self.rng.random_range(0..8) {
            0 => Condition::IfAbsent,
            1 => Condition::IfPresent,
            2 => Condition::IfVersion(current.as_ref().map_or(Version(9), |known| known.version)),
            3 => Condition::IfVersion(Version(12)),
            _ => Condition::Always,
        };
        let expiration = match self.rng.random_range(0..8) {
            0 => Expiration::Keep,
            1 => Expiration::AtUnixMs(self.now.unix_ms() - 1 + self.rng.random_range(0..500)),
            2..5 => Expiration::Default,
            _ => Expiration::In(ttl),
        };
        let flags = if self.rng.random_bool(0.2) { self.rng.random() } else { 0 };
        let content_type = if self.rng.random_bool(0.2) { "text/plain" } else { "" };
        let set = Set { key: &key, value: &value, expiration, condition, flags, content_type };
        let (outcome, change) = self.engine.apply(&Op::Set(set), self.now);
        self.sequenced(change);
        let holds = match condition {
            Condition::Always => true,
            Condition::IfAbsent => current.is_none(),
            Condition::IfPresent => current.is_some(),
            Condition::IfVersion(version) => current.as_ref().is_some_and(|known| known.version == version),
        };
        let there = current.as_ref().map_or(Version::NONE, |known| known.version);
        if !holds {
            assert_eq!(outcome, Outcome::NotStored(there));
            return;
        }
        let expires_at = match expiration {
            Expiration::Default => None,
            Expiration::In(ttl) => self.end(ttl),
            Expiration::Keep => current.and_then(|known| known.expires_at),
            Expiration::AtUnixMs(at) if at <= self.now.unix_ms() => {
                assert_eq!(outcome, Outcome::Stored(Version::NONE));
                self.known.remove(&key);
                return;
            }
            Expiration::AtUnixMs(at) => Some(self.now.ticks_ms + at - self.now.unix_ms()),
        };
        let Outcome::Stored(version) = outcome else { panic!("{outcome:?}") };
        self.stored(change, version, expires_at);
        let content_type = content_type.to_owned();
        self.known.insert(key, Known { value, version, expires_at, flags, content_type });
    }

    fn get(&mut self) {
        let key = self.key();
        let current = self.current(&key);
        let touch = self.rng.random_bool(0.2).then(|| self.ttl());
        let (outcome, change) = self.engine.apply(&Op::Get { key: &key, touch }, self.now);
        self.sequenced(change);
        match (outcome, current) {
            (Outcome::Miss(_), None) => {}
            (Outcome::Hit(hit), Some(mut known)) => {
                if let Some(ttl) = touch {
                    known.expires_at = self.end(ttl);
                }
                assert_eq!(hit.value, known.value);
                assert_eq!((hit.version, hit.flags), (known.version, known.flags));
                assert_eq!(hit.content_type, known.content_type);
                let remaining = known.expires_at.map_or(0, |at| at - self.now.ticks_ms);
                assert_eq!(hit.remaining_ttl_ms, remaining);
                self.known.insert(key, known);
            }
            (outcome, current) => panic!(
                "{outcome:?} where {} was expected",
                if current.is_some() { "a hit" } else { "a miss" }
            ),
        }
    }

    fn increment(&mut self) {
        let key = self.key();
        let current = self.current(&key);
        let delta = i128::from(self.rng.random_range(-100i64..100));
        let expiration = Expiration::In(self.ttl());
        let increment = Increment { key: &key, delta, initial: 5, expiration, request_id: "" };
        let (outcome, change) = self.engine.apply(&Op::Increment(increment), self.now);
        self.sequenced(change);
        let before = match &current {
            None => Some(5),
            Some(known) => std::str::from_utf8(&known.value).ok().and_then(|text| text.parse::<i64>().ok()),
        };
        let Some(before) = before else {
            assert_eq!(outcome, Outcome::Refused(Refusal::NotAnInteger));
            return;
        };
        let Outcome::Counted { value, version } = outcome else { panic!("{outcome:?}") };
        assert_eq!(i128::from(value), i128::from(before) + delta);
        let fresh = match expiration {
            Expiration::In(ttl) => self.end(ttl),
            _ => None,
        };
        let expires_at = current.as_ref().map_or(fresh, |known| known.expires_at);
        self.stored(change, version, expires_at);
        let (flags, content_type) =
            current.map_or((0, String::new()), |known| (known.flags, known.content_type));
        let value = value.to_string().into_bytes();
        self.known.insert(key, Known { value, version, expires_at, flags, content_type });
    }

    fn delete_or_touch(&mut self) {
        let key = self.key();
        let current = self.current(&key);
        if self.rng.random_bool(0.5) {
            let ttl = self.ttl();
            let (outcome, change) = self.engine.apply(&Op::Touch { key: &key, ttl }, self.now);
            self.sequenced(change);
            assert_eq!(outcome, Outcome::Touched(current.is_some()));
            let expires_at = self.end(ttl);
            if let Some(known) = self.known.get_mut(&key) {
                known.expires_at = expires_at;
            }
            return;
        }
        let if_version = self.rng.random_bool(0.3).then_some(Version(3));
        let (outcome, change) = self.engine.apply(&Op::Delete { key: &key, if_version }, self.now);
        self.sequenced(change);
        match current {
            Some(known) if if_version.is_some() => assert_eq!(outcome, Outcome::NotDeleted(known.version)),
            current => {
                assert_eq!(outcome, Outcome::Deleted(current.is_some()));
                self.known.remove(&key);
            }
        }
    }

    fn disturb(&mut self) {
        match self.rng.random_range(0..12) {
            0 => {
                let next = PolicyName::ALL[self.rng.random_range(0..PolicyName::ALL.len())];
                self.engine.set_policy(next);
            }
            1 => {
                self.bytes_limit = self.rng.random_range(BYTES_LIMIT_MIN..4 * BYTES_LIMIT_MIN);
                self.engine.resize(self.bytes_limit, self.now);
                assert!(self.engine.stats().bytes_used <= self.bytes_limit);
            }
            // Years on the monotonic side alone: the wall's versions have room for seventy.
            2 => self.now.ticks_ms += self.rng.random_range(0..400_000_000_000),
            3 if self.rng.random_bool(0.1) => {
                self.engine.clear(self.now);
                self.known.clear();
            }
            4..8 => {
                self.engine.advance(self.now);
            }
            _ => self.now = self.now.plus(Duration::from_millis(self.rng.random_range(0..5_000))),
        }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..40 => self.set(),
            40..70 => self.get(),
            70..80 => self.increment(),
            80..95 => self.delete_or_touch(),
            _ => self.disturb(),
        }
    }
}

#[test]
fn every_operation_agrees_with_a_plain_map() {
    let ops: usize = std::env::var("LARDER_MODEL_OPS").ok().and_then(|n| n.parse().ok()).unwrap_or(6_000);
    for (seed, policy) in (1..).zip(PolicyName::ALL.iter().cycle()).take(7) {
        let limit = if seed % 3 == 0 { 64 * BYTES_LIMIT_MIN } else { 2 * BYTES_LIMIT_MIN };
        let mut model = Model::new(seed, limit, *policy);
        for op in 0..ops {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                model.step();
                model.engine.validate();
                assert!(model.engine.stats().bytes_used <= model.bytes_limit.max(limit));
            }));
            assert!(outcome.is_ok(), "seed {seed}, operation {op}, {policy}: see the panic above");
        }
        let evictions = model.engine.stats().evictions;
        assert!(
            model.evicted <= evictions,
            "the model missed {} entries, {evictions} were evicted",
            model.evicted
        );
    }
}

#[test]
fn nothing_is_lost_while_there_is_room() {
    for policy in PolicyName::ALL {
        let engine = engine(64 << 20, 4, policy);
        for n in 0..100_000u64 {
            engine.apply(&Op::Set(Set::new(&n.to_le_bytes(), &n.to_be_bytes())), at(n / 100));
            if n % 20_000 == 0 {
                engine.set_policy(PolicyName::ALL[n as usize / 20_000]);
            }
        }
        engine.validate();
        for n in 0..100_000u64 {
            assert_eq!(value_of(get(&engine, &n.to_le_bytes(), at(1_000))), Some(n.to_be_bytes().to_vec()));
        }
        assert_eq!(engine.stats().evictions, 0);
        assert_eq!(engine.clear(at(1_000)), 100_000);
        assert_eq!((engine.stats().entries, engine.stats().hits), (0, 100_000));
    }
}

#[test]
fn expired_entry_is_never_served_and_is_reclaimed_unasked() {
    let engine = engine(16 << 20, 1, PolicyName::Lru);
    for n in 0..10_000u64 {
        let set = Set { expiration: Expiration::In(Ttl::Ms(500 + n % 1_000)), ..Set::new(b"", b"value") };
        engine.apply(&Op::Set(Set { key: &n.to_le_bytes(), ..set }), at(0));
    }
    for n in 0..10_000u64 {
        let left = value_of(get(&engine, &n.to_le_bytes(), at(1_000))).is_some();
        assert_eq!(left, 500 + n % 1_000 > 1_000);
    }
    let miss = get(&engine, &9_001u64.to_le_bytes(), at(1_000));
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
        engine.apply(&Op::Set(Set { expiration, ..Set::new(&n.to_le_bytes(), b"v") }), at(0));
    }
    // More is due than one operation reclaims, so the wheel still stands at the beginning.
    let now = at(3 * HUNDRED_YEARS);
    let expiration = Expiration::In(Ttl::Ms(HUNDRED_YEARS));
    engine.apply(&Op::Set(Set { expiration, ..Set::new(b"far", b"v") }), now);
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
    engine.apply(&Op::Set(set), at(0));
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
        engine.apply(&Op::Set(Set { expiration, ..Set::new(key.as_bytes(), &value) }), at(0));
    }
    let asked: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
    let mut read: Vec<Option<Outcome>> = vec![None; keys.len()];
    engine.read_batch(&asked, at(10), |index, entry| {
        let outcome = entry.map_or_else(Outcome::Miss, |entry| Outcome::Hit(entry.to_hit()));
        assert_eq!(read[index].replace(outcome), None, "each key is answered once");
    });
    for (key, read) in asked.into_iter().zip(read) {
        assert_eq!(read, Some(get(&engine, key, at(10))));
    }
}

#[test]
fn miss_tells_its_reason() {
    let engine = engine(BYTES_LIMIT_MIN, 1, PolicyName::Lru);
    let miss = |key: &[u8]| get(&engine, key, at(0));
    assert_eq!(miss(b"never"), Outcome::Miss(MissReason::Unknown));
    engine.apply(&Op::Set(Set::new(b"gone", b"1")), at(0));
    engine.apply(&Op::Delete { key: b"gone", if_version: None }, at(0));
    assert_eq!(miss(b"gone"), Outcome::Miss(MissReason::Deleted));
    engine.apply(&Op::Set(Set::new(b"cold", b"1")), at(0));
    for n in 0..20_000u64 {
        engine.apply(&Op::Set(Set::new(&n.to_le_bytes(), &[0; 100])), at(0));
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
        engine.apply(&Op::Increment(op), at(0))
    };
    let (first, change) = increment("a");
    assert!(matches!(first, Outcome::Counted { value: 42, .. }));
    assert_eq!(change.sequence, 1);
    let (again, change) = increment("a");
    assert_eq!((again, change.kind), (first, ChangeKind::None));
    assert!(matches!(increment("b").0, Outcome::Counted { value: 44, .. }));
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
        engine.apply(&Op::Increment(op), at(0)).0
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
    engine.apply(&Op::Set(Set::new(b"k", b"small")), at(0));
    let (outcome, change) = engine.apply(&Op::Set(Set::new(b"k", &vec![0; 1 << 20])), at(0));
    assert!(matches!(outcome, Outcome::Refused(Refusal::TooLarge { .. })));
    assert_eq!(change.kind, ChangeKind::None);
    assert_eq!(value_of(get(&engine, b"k", at(0))), Some(b"small".to_vec()));
}

#[test]
fn large_values_are_handed_out_without_a_copy() {
    let engine = engine(16 << 20, 1, PolicyName::Lru);
    engine.apply(&Op::Set(Set::new(b"k", &[7; 100_000])), at(0));
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
                engine.apply(&Op::Set(Set::new(key.as_bytes(), &vec![1; size])), at(0));
            }
            engine.validate();
            let stats = engine.stats();
            assert!(stats.bytes_used <= stats.bytes_limit, "{stats:?}");
            let live = stats.bytes_used - stats.bytes_spare;
            assert!(live * 100 >= stats.bytes_limit * 88, "{policy}, {size}: only {live} bytes are in use");
        }
    }
}
