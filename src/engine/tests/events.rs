//! Events against copies: random operations, copies read in between as a near cache reads them, and dropped by the events
//! alone. A copy that is left is true.

use std::collections::HashMap;
use std::sync::Mutex;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::model::config;
use super::*;
use crate::entry::Expiry;

/// An event that was written down.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    shard: u32,
    sequence: u64,
    namespace: String,
    scope: Scoped,
    until: Version,
}

#[derive(Debug, Clone, PartialEq)]
enum Scoped {
    Key(Vec<u8>),
    Prefix(Vec<u8>),
    Tag(String),
    All,
}

/// An engine whose events are written to a list, and a byte for each to its shard's buffer.
struct Watched {
    engine: Engine,
    told: Arc<Mutex<Vec<Told>>>,
    /// What each shard has counted.
    sequences: Vec<u64>,
}

impl Watched {
    fn start(engine: Engine) -> Self {
        let told = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&told);
        let encode = move |event: &Event<'_>, out: &mut Vec<u8>| {
            out.push(1);
            let scope = match event.scope {
                EventScope::Key(key) => Scoped::Key(key.to_vec()),
                EventScope::Prefix(prefix) => Scoped::Prefix(prefix.to_vec()),
                EventScope::Tag(tag) => Scoped::Tag(tag.to_owned()),
                EventScope::All => Scoped::All,
            };
            let Event { shard, sequence, namespace, until, .. } = *event;
            let namespace = namespace.to_owned();
            list.lock().unwrap().push(Told { shard, sequence, namespace, scope, until });
        };
        let config = events_config(encode, |_| ());
        let sequences = vec![0; engine.shard_count()];
        engine.start_events(&config, &sequences);
        Self { engine, told, sequences }
    }

    /// The events since this was called last, each shard's counted without a gap.
    fn take(&mut self) -> Vec<Told> {
        let told = std::mem::take(&mut *self.told.lock().unwrap());
        for event in &told {
            let sequence = &mut self.sequences[event.shard as usize];
            *sequence += 1;
            assert_eq!(event.sequence, *sequence, "{event:?}");
        }
        told
    }
}

fn events_config(
    encode: impl Fn(&Event<'_>, &mut Vec<u8>) + Send + Sync + 'static,
    nudge: impl Fn(usize) + Send + Sync + 'static,
) -> EventConfig {
    EventConfig { encode: Arc::new(encode), nudge: Arc::new(nudge), waiting_bytes_max: 1 << 20 }
}

#[derive(Debug, Clone)]
struct Copy {
    version: Version,
    expiry: Expiry,
}

struct Copies {
    watched: Watched,
    copies: HashMap<(String, Vec<u8>), Copy>,
    now: Now,
    rng: SmallRng,
}

const NAMES: [&str; 3] = ["", "one", "two"];
const TAGS: [&str; 2] = ["red", "blue"];

impl Copies {
    fn namespace(&self, name: &str) -> Namespace {
        let engine = &self.watched.engine;
        if name.is_empty() { engine.default_namespace().clone() } else { engine.namespace(name).unwrap() }
    }

    fn any(&mut self) -> (&'static str, Vec<u8>) {
        let (name, key) = (self.rng.random_range(0..NAMES.len()), self.rng.random_range(0..40));
        (NAMES[name], format!("key-{key}").into_bytes())
    }

    fn ttl(&mut self) -> Ttl {
        if self.rng.random() { Ttl::Never } else { Ttl::Ms(self.rng.random_range(1..100_000)) }
    }

    /// Keeps a copy of what an entry is now.
    fn copy(&mut self) {
        let (name, key) = self.any();
        let namespace = self.namespace(name);
        let read = self.watched.engine.read(&namespace, &key, None, self.now, |entry| {
            let expiry = match entry.remaining_ttl_ms {
                0 => Expiry::Never,
                left => Expiry::AtMs(self.now.steady_ms + left),
            };
            Copy { version: entry.version, expiry }
        });
        if let Ok(copy) = read {
            self.copies.insert((name.to_owned(), key), copy);
        }
    }

    /// Changes something.
    fn change(&mut self) {
        let (name, key) = self.any();
        let namespace = self.namespace(name);
        let (ttl, other) = (self.ttl(), self.any().1);
        let tags = [TAGS[self.rng.random_range(0..TAGS.len())]];
        let past = Expiration::AtUnixMs(self.now.unix_ms() - 1);
        let engine = &self.watched.engine;
        let set = Set { expiration: Expiration::In(ttl), tags: &tags, ..Set::new(&key, b"7") };
        let increment =
            Increment { key: &key, delta: 1, initial: 0, expiration: Expiration::Default, request_id: "" };
        let op = match self.rng.random_range(0..100) {
            0..30 => Op::Set(set),
            30..40 => Op::Set(Set { condition: Condition::IfAbsent, ..set }),
            40..45 => Op::Set(Set { expiration: past, ..set }),
            45..60 => Op::Delete { key: &key, if_version: None },
            60..70 => Op::Touch { key: &key, ttl },
            70..80 => Op::Get { key: &key, touch: Some(ttl) },
            80..90 => Op::Increment(increment),
            90..95 => {
                let scope = match self.rng.random_range(0..3) {
                    0 => Scope::Prefix(&other[..5]),
                    1 => Scope::Tag(tags[0]),
                    _ => Scope::All,
                };
                engine.invalidate(&namespace, scope, self.now).unwrap();
                return;
            }
            95..97 => {
                engine.clear(&namespace, self.now);
                return;
            }
            _ if name.is_empty() => return,
            _ => {
                drop(namespace);
                engine.delete_namespace(name, self.now).unwrap();
                engine.create_namespace(&config(name, 0)).unwrap();
                return;
            }
        };
        engine.apply(&namespace, &op, self.now);
    }

    /// Drops what events say is untrue, as one does that knows no tags.
    fn obey(&mut self) {
        for event in self.watched.take() {
            self.copies.retain(|(namespace, key), copy| {
                let is_covered = *namespace == event.namespace
                    && match &event.scope {
                        Scoped::Key(other) => key == other,
                        Scoped::Prefix(prefix) => key.starts_with(prefix),
                        Scoped::Tag(_) | Scoped::All => true,
                    };
                !(is_covered && copy.version < event.until)
            });
        }
    }

    fn validate(&self, what: &str) {
        for ((name, key), copy) in &self.copies {
            if copy.expiry.is_past(self.now.steady_ms) {
                continue;
            }
            let namespace = self.namespace(name);
            let known = self.watched.engine.explain(&namespace, key, self.now).entry;
            let entry =
                known.unwrap_or_else(|why| panic!("{what}: {name:?} {key:?} {copy:?} is kept: {why:?}"));
            let left = match entry.remaining_ttl_ms {
                0 => Expiry::Never,
                left => Expiry::AtMs(self.now.steady_ms + left),
            };
            assert_eq!(entry.version, copy.version, "{what}: {name:?} {key:?}");
            assert!(
                !left.is_before(copy.expiry),
                "{what}: {name:?} {key:?} lives shorter: {left:?} {copy:?}"
            );
        }
    }
}

#[test]
fn a_copy_that_events_leave_is_true() {
    for seed in 0..20 {
        let engine = engine(16 << 20, 4, PolicyName::Lru);
        for name in &NAMES[1..] {
            engine.create_namespace(&config(name, 0)).unwrap();
        }
        let rng = SmallRng::seed_from_u64(seed);
        let mut copies =
            Copies { watched: Watched::start(engine), copies: HashMap::new(), now: at(1_000), rng };
        let (mut kept, mut dropped) = (0, 0);
        for step in 0..3_000 {
            match copies.rng.random_range(0..10) {
                0..6 => copies.copy(),
                6..9 => copies.change(),
                _ => copies.now = copies.now.plus(std::time::Duration::from_millis(7)),
            }
            let before = copies.copies.len();
            copies.obey();
            dropped += before - copies.copies.len();
            copies.validate(&format!("seed {seed}, step {step}"));
            kept += copies.copies.len();
        }
        assert!(kept > 10_000 && dropped > 100, "{kept} {dropped}");
    }
}

#[test]
fn a_first_set_is_told_and_what_takes_nothing_from_a_copy_is_not() {
    let mut watched = Watched::start(engine(16 << 20, 1, PolicyName::Lru));
    let namespace = watched.engine.default_namespace().clone();
    let apply = |watched: &Watched, op: Op<'_>| watched.engine.apply(&namespace, &op, at(1_000));
    let set = Set { expiration: Expiration::In(Ttl::Ms(5_000)), ..Set::new(b"key", b"value") };
    let Outcome::Stored(version) = apply(&watched, Op::Set(set)) else { panic!() };
    let told = watched.take();
    assert_eq!((told.len(), told[0].until, &told[0].scope), (1, version, &Scoped::Key(b"key".to_vec())));
    apply(&watched, Op::Touch { key: b"key", ttl: Ttl::Ms(6_000) });
    apply(&watched, Op::Touch { key: b"key", ttl: Ttl::Never });
    apply(&watched, Op::Touch { key: b"none", ttl: Ttl::Ms(1) });
    apply(&watched, Op::Set(Set { condition: Condition::IfAbsent, ..set }));
    apply(&watched, Op::Get { key: b"key", touch: None });
    assert_eq!(watched.take(), []);
    apply(&watched, Op::Touch { key: b"key", ttl: Ttl::Ms(1) });
    assert_eq!(watched.take().len(), 1);
    watched.engine.advance(at(9_000));
    assert_eq!((watched.engine.stats().expirations, watched.take()), (1, Vec::new()), "its end was known");
}

#[test]
fn a_shard_says_once_that_it_has_events_and_drops_what_nobody_takes_out() {
    let engine = engine(16 << 20, 2, PolicyName::Lru);
    let nudges = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&nudges);
    let config = EventConfig {
        waiting_bytes_max: 100,
        ..events_config(
            |_, out| out.extend_from_slice(&[1; 10]),
            move |_| {
                count.fetch_add(1, Ordering::Relaxed);
            },
        )
    };
    engine.start_events(&config, &[5, 7]);
    let mut out = Vec::new();
    let namespace = engine.default_namespace();
    let clear = || engine.invalidate(namespace, Scope::All, at(0)).unwrap();
    for _ in 0..3 {
        clear();
    }
    assert_eq!(nudges.load(Ordering::Relaxed), 2, "one of each shard");
    let drained = DrainedEvents { events: 3, sequence: 8, are_lost: false };
    assert_eq!((engine.drain_events(0, &mut out), out.len()), (Some(drained), 30));
    for _ in 0..20 {
        clear();
    }
    let drained = DrainedEvents { events: 20, sequence: 28, are_lost: true };
    assert_eq!((engine.drain_events(0, &mut out), out.len()), (Some(drained), 0));
    clear();
    let drained = DrainedEvents { events: 1, sequence: 29, are_lost: false };
    assert_eq!((engine.drain_events(0, &mut out), out.len()), (Some(drained), 10));
    assert_eq!(engine.stop_events(), [29, 31]);
    assert_eq!(engine.drain_events(0, &mut out), None);
}
