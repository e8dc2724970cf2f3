//! The engine against a plain map: random operations in several namespaces, invalidations, scans, time jumps, policy
//! swaps and resizes, `validate` after each. The seed is in every failure's message; `LARDER_MODEL_OPS` runs it longer.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::LazyLock;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::entry::Expiry;

const TAGS: [&str; 3] = ["red", "green", "blue"];

/// As many more as an entry can have, as long as they can be.
static LONG_TAGS: LazyLock<[&'static str; 13]> = LazyLock::new(|| {
    std::array::from_fn(|n| &*String::leak(format!("{n:0width$}", width = crate::entry::TAG_BYTES_MAX)))
});

pub(super) fn config(name: &str, bytes_limit: u64) -> NamespaceConfig {
    NamespaceConfig { bytes_limit, ..NamespaceConfig::new(name, PolicyName::S3Fifo) }
}

#[derive(Debug, Clone, PartialEq)]
struct Known {
    value: Vec<u8>,
    version: Version,
    expiry: Expiry,
    flags: u32,
    content_type: String,
    tags: Vec<&'static str>,
}

impl Known {
    fn is_expired(&self, steady_ms: u64) -> bool {
        matches!(self.expiry, Expiry::AtMs(at) if at <= steady_ms)
    }
}

struct Model {
    engine: Engine,
    /// By namespace and key.
    known: HashMap<(String, Vec<u8>), Known>,
    /// The namespace that operations are done in now.
    namespace: Namespace,
    now: Now,
    rng: SmallRng,
    /// Entries that the model lost because the engine had let them go.
    evicted: u64,
    changes: Changes,
    last_version: Version,
    bytes_limit: u64,
}

impl Model {
    fn new(seed: u64, bytes_limit: u64, policy: PolicyName) -> Self {
        let engine = engine(bytes_limit, 2, policy);
        for (name, bytes_limit) in [("capped", 200_000), ("free", 0)] {
            engine.create_namespace(&config(name, bytes_limit)).unwrap();
        }
        Self {
            namespace: engine.default_namespace().clone(),
            changes: Changes::of(&engine),
            engine,
            known: HashMap::new(),
            now: at(1_000),
            rng: SmallRng::seed_from_u64(seed),
            evicted: 0,
            last_version: Version::NONE,
            bytes_limit,
        }
    }

    fn key(&mut self) -> Vec<u8> {
        let n: u32 = self.rng.random_range(0..400);
        if n % 50 == 7 { vec![n as u8; 1 + n as usize * 10] } else { format!("key-{n}").into_bytes() }
    }

    fn place(&self, key: &[u8]) -> (String, Vec<u8>) {
        (self.namespace.name().to_owned(), key.to_vec())
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

    /// As likely past as not.
    fn at_about_now(&mut self) -> Expiration {
        Expiration::AtUnixMs(self.now.unix_ms() - 250 + self.rng.random_range(0..500))
    }

    fn end(&self, ttl: Ttl) -> Expiry {
        match ttl {
            Ttl::Never => Expiry::Never,
            Ttl::Ms(ms) => Expiry::AtMs(self.now.steady_ms + ms),
        }
    }

    /// What the model believes to be there; if the engine has evicted it, the model learns that first.
    fn current(&mut self, key: &[u8]) -> Option<Known> {
        let now = self.now.steady_ms;
        if self.known.get(&self.place(key)).is_some_and(|known| known.is_expired(now)) {
            self.known.remove(&self.place(key));
        }
        let believed = self.known.get(&self.place(key)).cloned()?;
        if matches!(self.read(key), Outcome::Miss(_)) {
            self.evicted += 1;
            self.known.remove(&self.place(key));
            return None;
        }
        Some(believed)
    }

    fn read(&self, key: &[u8]) -> Outcome {
        self.engine.apply(&self.namespace, &Op::Get { key, touch: None }, self.now)
    }

    /// Does an operation; also what the stream of changes has of it.
    fn apply(&mut self, op: &Op<'_>) -> (Outcome, Vec<String>) {
        self.changes.read(&self.engine);
        let outcome = self.engine.apply(&self.namespace, op, self.now);
        (outcome, self.changes.read(&self.engine))
    }

    fn stored(&mut self, changes: &[String], key: &[u8], version: Version, expiry: Expiry) {
        assert!(version > self.last_version, "versions only grow");
        self.last_version = version;
        assert_eq!(changes, [Changes::put(key, version, expiry)]);
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
            1 => self.at_about_now(),
            2..5 => Expiration::Default,
            _ => Expiration::In(ttl),
        };
        let flags = if self.rng.random_bool(0.2) { self.rng.random() } else { 0 };
        let content_type = if self.rng.random_bool(0.2) { "text/plain" } else { "" };
        let mut tags: Vec<&'static str> = TAGS.into_iter().filter(|_| self.rng.random_bool(0.1)).collect();
        if self.rng.random_bool(0.05) {
            tags.extend(&LONG_TAGS[self.rng.random_range(0..LONG_TAGS.len())..]);
        }
        let set = Set { key: &key, value: &value, expiration, condition, flags, content_type, tags: &tags };
        let (outcome, changes) = self.apply(&Op::Set(set));
        let holds = match condition {
            Condition::Always => true,
            Condition::IfAbsent => current.is_none(),
            Condition::IfPresent => current.is_some(),
            Condition::IfVersion(version) => current.as_ref().is_some_and(|known| known.version == version),
        };
        let there = current.as_ref().map_or(Version::NONE, |known| known.version);
        if !holds {
            assert_eq!((outcome, changes), (Outcome::NotStored(there), vec![]));
            return;
        }
        let expiry = match expiration {
            Expiration::Default => Expiry::Never,
            Expiration::In(ttl) => self.end(ttl),
            Expiration::Keep => current.map_or(Expiry::Never, |known| known.expiry),
            Expiration::AtUnixMs(at) if at <= self.now.unix_ms() => {
                assert_eq!((outcome, changes), (Outcome::Expired, vec![Changes::remove(&key)]));
                self.known.remove(&self.place(&key));
                return;
            }
            Expiration::AtUnixMs(at) => Expiry::AtMs(self.now.steady_ms + at - self.now.unix_ms()),
        };
        let Outcome::Stored(version) = outcome else { panic!("{outcome:?}") };
        self.stored(&changes, &key, version, expiry);
        let content_type = content_type.to_owned();
        self.known.insert(self.place(&key), Known { value, version, expiry, flags, content_type, tags });
    }

    fn get(&mut self) {
        let key = self.key();
        let current = self.current(&key);
        let touch = self.rng.random_bool(0.2).then(|| self.ttl());
        let (outcome, changes) = self.apply(&Op::Get { key: &key, touch });
        match (outcome, current) {
            (Outcome::Miss(_), None) => assert_eq!(changes, [""; 0]),
            (Outcome::Hit(hit), Some(mut known)) => {
                if let Some(ttl) = touch {
                    known.expiry = self.end(ttl);
                }
                let expected = touch.map(|_| Changes::expiry(&key, known.expiry));
                assert_eq!(changes, Vec::from_iter(expected));
                assert_eq!(hit.value, known.value);
                assert_eq!((hit.version, hit.flags), (known.version, known.flags));
                assert_eq!(hit.content_type, known.content_type);
                let explained = self.engine.explain(&self.namespace, &key, self.now);
                assert_eq!(explained.tags, known.tags);
                let remaining = match known.expiry {
                    Expiry::Never => 0,
                    Expiry::AtMs(at) => at - self.now.steady_ms,
                };
                assert_eq!(hit.remaining_ttl_ms, remaining);
                self.known.insert(self.place(&key), known);
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
        let expiration =
            if self.rng.random_bool(0.1) { self.at_about_now() } else { Expiration::In(self.ttl()) };
        let increment = Increment { key: &key, delta, initial: 5, expiration, request_id: "" };
        let (outcome, changes) = self.apply(&Op::Increment(increment));
        let before = match &current {
            None => Some(5),
            Some(known) => std::str::from_utf8(&known.value).ok().and_then(|text| text.parse::<i64>().ok()),
        };
        let Some(before) = before else {
            assert_eq!((outcome, changes), (Outcome::Refused(Refusal::NotAnInteger), vec![]));
            return;
        };
        let fresh = match expiration {
            Expiration::In(ttl) => self.end(ttl),
            Expiration::AtUnixMs(at) if at <= self.now.unix_ms() && current.is_none() => {
                assert_eq!((outcome, changes), (Outcome::Expired, vec![]));
                return;
            }
            Expiration::AtUnixMs(at) => {
                Expiry::AtMs((self.now.steady_ms + at).saturating_sub(self.now.unix_ms()))
            }
            _ => Expiry::Never,
        };
        let Outcome::Counted { value, version } = outcome else { panic!("{outcome:?}") };
        assert_eq!(i128::from(value), i128::from(before) + delta);
        let expiry = current.as_ref().map_or(fresh, |known| known.expiry);
        self.stored(&changes, &key, version, expiry);
        let (flags, content_type, tags) = current
            .map_or((0, String::new(), Vec::new()), |known| (known.flags, known.content_type, known.tags));
        let value = value.to_string().into_bytes();
        self.known.insert(self.place(&key), Known { value, version, expiry, flags, content_type, tags });
    }

    fn delete_or_touch(&mut self) {
        let key = self.key();
        let current = self.current(&key);
        if self.rng.random_bool(0.5) {
            let ttl = self.ttl();
            let (outcome, changes) = self.apply(&Op::Touch { key: &key, ttl });
            assert_eq!(outcome, Outcome::Touched(current.is_some()));
            let (expiry, place) = (self.end(ttl), self.place(&key));
            assert_eq!(changes, Vec::from_iter(current.map(|_| Changes::expiry(&key, expiry))));
            if let Some(known) = self.known.get_mut(&place) {
                known.expiry = expiry;
            }
            return;
        }
        let if_version = self.rng.random_bool(0.3).then_some(Version(3));
        let (outcome, changes) = self.apply(&Op::Delete { key: &key, if_version });
        match current {
            Some(known) if if_version.is_some() => {
                assert_eq!((outcome, changes), (Outcome::NotDeleted(known.version), vec![]));
            }
            current => {
                // What was evicted may be in the journal still: that it is gone is said also where nothing is there.
                let expected = (Outcome::Deleted(current.is_some()), vec![Changes::remove(&key)]);
                assert_eq!((outcome, changes), expected);
                self.known.remove(&self.place(&key));
            }
        }
    }

    fn disturb(&mut self) {
        match self.rng.random_range(0..12) {
            0 => {
                let next = PolicyName::ALL[self.rng.random_range(0..PolicyName::ALL.len())];
                self.engine.set_policy(&self.namespace, next);
            }
            1 => {
                self.bytes_limit = self.rng.random_range(BYTES_LIMIT_MIN..4 * BYTES_LIMIT_MIN);
                self.engine.resize(self.bytes_limit, self.now);
                assert!(self.engine.stats().bytes_used <= self.bytes_limit);
            }
            // Years on the monotonic side alone: the wall's versions have room for seventy.
            2 => self.now.steady_ms += self.rng.random_range(0..400_000_000_000),
            3 if self.rng.random_bool(0.1) => {
                let before = self.known.len();
                let removed = self.engine.clear(&self.namespace, self.now);
                let name = self.namespace.name().to_owned();
                self.known.retain(|(namespace, _), _| *namespace != name);
                // Entries that have expired are counted until they are reclaimed, and the model knows of evicted ones.
                assert!(removed <= before as u64 + self.engine.stats().expirations + 1_000);
            }
            4 => self.recreate(),
            5..8 => {
                self.engine.advance(self.now);
                self.engine.sweep(self.rng.random_range(0..300));
            }
            _ => self.now = self.now.plus(Duration::from_millis(self.rng.random_range(0..5_000))),
        }
    }

    /// Deletes a namespace and creates another of the same name.
    fn recreate(&mut self) {
        let config = config("free", 0);
        self.engine.delete_namespace("free", self.now).unwrap();
        self.known.retain(|(namespace, _), _| namespace != "free");
        let gone = self.engine.apply(&self.namespace, &Op::Set(Set::new(b"x", b"y")), self.now);
        if self.namespace.name() == "free" {
            assert_eq!(gone, Outcome::Refused(Refusal::NoNamespace));
        } else {
            let outcome =
                self.engine.apply(&self.namespace, &Op::Delete { key: b"x", if_version: None }, self.now);
            assert_eq!(outcome, Outcome::Deleted(true));
            self.known.remove(&self.place(b"x"));
            let Outcome::Stored(version) = gone else { panic!("{gone:?}") };
            self.last_version = version;
        }
        self.namespace = self.engine.create_namespace(&config).unwrap();
    }

    fn enter_namespace(&mut self) {
        let namespaces = self.engine.namespaces();
        self.namespace = namespaces[self.rng.random_range(0..namespaces.len())].clone();
    }

    fn invalidate(&mut self) {
        let name = self.namespace.name().to_owned();
        let generation = self.namespace.generation();
        let prefix = format!("key-{}", self.rng.random_range(1..40));
        let tag = TAGS[self.rng.random_range(0..TAGS.len())];
        let scope = match self.rng.random_range(0..8) {
            0 => Scope::All,
            1..5 => Scope::Prefix(prefix.as_bytes()),
            _ => Scope::Tag(tag),
        };
        assert_eq!(self.engine.invalidate(&self.namespace, scope, self.now), Ok(generation + 1));
        self.known.retain(|(namespace, key), known| {
            let covered = match scope {
                Scope::All => true,
                Scope::Prefix(prefix) => key.starts_with(prefix),
                Scope::Tag(tag) => known.tags.contains(&tag),
            };
            *namespace != name || !covered
        });
    }

    /// Everything that the model knows is found once, and nothing else.
    fn scan(&mut self) {
        let prefix: &[u8] = [&b""[..], b"key-1", b"none"][self.rng.random_range(0..3)];
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let range = ScanRange { prefix, after, entries_max: self.rng.random_range(1..100) };
            let mut room = self.rng.random_range(1..20);
            let next = self.engine.scan(&self.namespace, range, self.now, |key, entry| {
                if room == 0 {
                    return ControlFlow::Break(());
                }
                room -= 1;
                found.push((key.to_vec(), entry.version));
                ControlFlow::Continue(())
            });
            match next {
                Some(place) => after = Some(place),
                None => break,
            }
        }
        found.sort_unstable();
        let now = self.now.steady_ms;
        let name = self.namespace.name();
        let alive = |known: &Known| !known.is_expired(now);
        let expected: HashMap<&[u8], Version> = self
            .known
            .iter()
            .filter(|((namespace, key), known)| namespace == name && key.starts_with(prefix) && alive(known))
            .map(|((_, key), known)| (&key[..], known.version))
            .collect();
        for pair in found.windows(2) {
            assert_ne!(pair[0].0, pair[1].0, "found twice");
        }
        for (key, version) in &found {
            assert_eq!(expected.get(&key[..]), Some(version), "found what should not be there");
        }
        for (key, version) in expected {
            let there = matches!(self.read(key), Outcome::Hit(_));
            let found = found.binary_search(&(key.to_vec(), version)).is_ok();
            assert_eq!(found, there, "what is there is found");
        }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..40 => self.set(),
            40..70 => self.get(),
            70..80 => self.increment(),
            80..90 => self.delete_or_touch(),
            90 => self.scan(),
            91..93 => self.invalidate(),
            93..95 => self.enter_namespace(),
            _ => self.disturb(),
        }
    }
}

#[test]
fn every_operation_agrees_with_a_plain_map() {
    let ops: usize = std::env::var("LARDER_MODEL_OPS").ok().and_then(|n| n.parse().ok()).unwrap_or(6_000);
    for (seed, policy) in (1..).zip(PolicyName::ALL.iter().cycle()).take(PolicyName::ALL.len()) {
        let limit = if seed % 3 == 0 { 64 * BYTES_LIMIT_MIN } else { 2 * BYTES_LIMIT_MIN };
        let mut model = Model::new(seed, limit, *policy);
        for op in 0..ops {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                model.step();
                model.engine.validate();
                assert!(model.engine.stats().bytes_used <= model.bytes_limit.max(limit));
                // One entry of each shard may be above the cap, where it is the only one there.
                let capped = model.engine.report(&model.engine.namespace("capped").unwrap());
                assert!(capped.stats.bytes_used <= 200_000 + 2 * 70_000, "{capped:?}");
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
