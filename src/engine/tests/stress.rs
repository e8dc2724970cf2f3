//! Many threads in one small engine, each with operations of its own kind: those that lock several shards beside those
//! that lock one after the other. A watchdog says who waits for ever instead of waiting with them.

use std::ops::ControlFlow;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::model::config;
use super::*;
use crate::clock::monotonic;

/// How long it runs.
const LASTS: Duration = Duration::from_secs(1);
/// After what time without an end the threads count as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);
const KEYS: u32 = 20_000;
const TAGS: [&str; 2] = ["red", "green"];

/// The engine, and the time that its users agree on.
struct Arena {
    engine: Engine,
    steady_ms: AtomicU64,
    /// What each thread is at.
    at: Vec<StdMutex<&'static str>>,
    rounds: Vec<AtomicUsize>,
}

impl Arena {
    fn now(&self) -> Now {
        at(self.steady_ms.fetch_add(1, Ordering::Relaxed) / 100)
    }

    fn namespace(&self, rng: &mut SmallRng) -> Namespace {
        let named = self.engine.namespaces();
        named[rng.random_range(0..named.len())].clone()
    }
}

fn key(rng: &mut SmallRng) -> Vec<u8> {
    format!("key-{:05}", rng.random_range(0..KEYS)).into_bytes()
}

type Does = fn(&Arena, &mut SmallRng) -> &'static str;

/// What the threads do, each again and again.
const DOES: [Does; 8] = [read, read, write, write, drop_many, walk, change, look];

fn read(arena: &Arena, rng: &mut SmallRng) -> &'static str {
    let keys: Vec<Vec<u8>> = (0..rng.random_range(1..100)).map(|_| key(rng)).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let (namespace, enough) = (arena.namespace(rng), rng.random_range(1..150));
    let mut next = 0;
    arena
        .engine
        .read_batch(&namespace, &keys, arena.now(), |index, _| {
            assert_eq!(index, next);
            next += 1;
            if next == enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(next, keys.len().min(enough));
    "read_batch"
}

fn write(arena: &Arena, rng: &mut SmallRng) -> &'static str {
    let (namespace, key) = (arena.namespace(rng), key(rng));
    let value = vec![1; if rng.random_ratio(1, 50) { 10_000 } else { rng.random_range(0..500) }];
    let expiration = if rng.random_ratio(1, 4) { Expiration::In(Ttl::Ms(20)) } else { Expiration::Default };
    let tags = &TAGS[..rng.random_range(0..=TAGS.len())];
    let increment = Increment { key: &key, delta: 1, initial: 0, expiration, request_id: "" };
    let (op, name) = match rng.random_range(0..10) {
        0 => (Op::Delete { key: &key, if_version: None }, "delete"),
        1 => (Op::Increment(increment), "increment"),
        2 => (Op::Touch { key: &key, ttl: Ttl::Ms(50) }, "touch"),
        3 => (Op::Get { key: &key, touch: Some(Ttl::Never) }, "get"),
        _ => (Op::Set(Set { expiration, tags, ..Set::new(&key, &value) }), "set"),
    };
    arena.engine.apply(&namespace, &op, arena.now());
    name
}

fn drop_many(arena: &Arena, rng: &mut SmallRng) -> &'static str {
    let (namespace, now) = (arena.namespace(rng), arena.now());
    let prefix = format!("key-{:03}", rng.random_range(0..KEYS / 100));
    match rng.random_range(0..40) {
        0 => drop(arena.engine.clear(&namespace, now)),
        1 => drop(arena.engine.invalidate(&namespace, Scope::All, now)),
        2..5 => drop(arena.engine.invalidate(&namespace, Scope::Tag(TAGS[0]), now)),
        5..20 => drop(arena.engine.invalidate(&namespace, Scope::Prefix(prefix.as_bytes()), now)),
        _ => drop(arena.engine.sweep(1_000)),
    }
    "clear, invalidate or sweep"
}

fn walk(arena: &Arena, rng: &mut SmallRng) -> &'static str {
    let namespace = arena.namespace(rng);
    let mut after = None;
    loop {
        let range = ScanRange { prefix: b"key-", after, entries_max: 300 };
        after = arena.engine.scan(&namespace, range, arena.now(), |key, _| {
            assert!(key.starts_with(b"key-"));
            ControlFlow::Continue(())
        });
        if after.is_none() {
            return "scan";
        }
    }
}

fn change(arena: &Arena, rng: &mut SmallRng) -> &'static str {
    let (engine, namespace) = (&arena.engine, arena.namespace(rng));
    let policy = PolicyName::ALL[rng.random_range(0..PolicyName::ALL.len())];
    match rng.random_range(0..6) {
        0 => engine.resize(rng.random_range(4..10) << 20, arena.now()),
        1 => drop(engine.set_policy(&namespace, policy)),
        2 => {
            let bytes_limit = Some(rng.random_range(0..4) << 20);
            let change = NamespaceChange { policy: Some(policy), bytes_limit, ..NamespaceChange::default() };
            engine.update_namespace(&namespace, &change);
        }
        3 => drop(engine.create_namespace(&config("come and gone", 1 << 20))),
        4 => drop(engine.delete_namespace("come and gone", at(0))),
        _ => drop(engine.advance(arena.now())),
    }
    "resize, set_policy, update_namespace, create, delete or advance"
}

fn look(arena: &Arena, rng: &mut SmallRng) -> &'static str {
    let (engine, namespace) = (&arena.engine, arena.namespace(rng));
    match rng.random_range(0..5) {
        0 => drop(engine.reports()),
        1 => drop(engine.memory()),
        2 => drop(engine.hot_keys(arena.now())),
        3 => drop(engine.explain(&namespace, &key(rng), arena.now())),
        _ => drop(engine.stats()),
    }
    "stats, reports, memory, hot_keys or explain"
}

/// Runs one kind of operation until the time is over.
fn run(arena: &Arena, thread: usize) {
    let mut rng = SmallRng::seed_from_u64(thread as u64);
    let until = monotonic() + LASTS;
    while monotonic() < until {
        let did = DOES[thread](arena, &mut rng);
        *arena.at[thread].lock().unwrap() = did;
        arena.rounds[thread].fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn threads_that_do_everything_at_once_never_wait_for_each_other_for_ever() {
    let engine = engine(8 << 20, 8, PolicyName::Adaptive);
    engine.create_namespace(&config("capped", 1 << 20)).unwrap();
    let at = DOES.iter().map(|_| StdMutex::new("its first")).collect();
    let rounds = DOES.iter().map(|_| AtomicUsize::new(0)).collect();
    let arena = Arc::new(Arena { engine, steady_ms: 0.into(), at, rounds });
    let (end, ended) = channel::<()>();
    let threads: Vec<_> = (0..DOES.len())
        .map(|thread| {
            let (arena, end) = (Arc::clone(&arena), end.clone());
            std::thread::spawn(move || {
                run(&arena, thread);
                drop(end);
            })
        })
        .collect();
    drop(end);
    // Nobody sends: the channel closes when the last thread has ended, in whatever way.
    if ended.recv_timeout(LASTS + STUCK_AFTER) == Err(RecvTimeoutError::Timeout) {
        let is_stuck = |thread: &usize| !threads[*thread].is_finished();
        let stuck = (0..threads.len()).filter(is_stuck).map(|thread| {
            let (did, rounds) =
                (arena.at[thread].lock().unwrap(), arena.rounds[thread].load(Ordering::Relaxed));
            format!("thread {thread}, {rounds} rounds, after {did}")
        });
        panic!("they wait for each other: {:#?}", stuck.collect::<Vec<_>>());
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(arena.rounds.iter().all(|rounds| rounds.load(Ordering::Relaxed) > 0), "{:?}", arena.rounds);
    arena.engine.advance(arena.now());
    arena.engine.validate();
    let stats = arena.engine.stats();
    assert!(stats.bytes_used <= stats.bytes_limit, "{stats:?}");
}
