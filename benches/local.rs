//! The cache in the process, one thread: what a get takes beyond the engine's own, and what the trait and an exact clock add.
//!
//! `cargo bench --bench local [-- --quick] [-- --rounds=9]`; the ways are measured in turns, round after round, and the medians of
//! the rounds are printed, with the median of each round's ratio to the engine alone.
//!
//! The engine alone is [`Engine::apply`] with a Get, which copies the value out as `LocalCache::get` does, with the same clock.

mod support;

use std::hint::black_box;

use futures_util::FutureExt;
use larder::client::Cache;
use larder::clock::{Clock, CoarseClock, SystemClock, monotonic};
use larder::engine::{Engine, EngineConfig, Op, Outcome, Set};
use larder::local::LocalCache;
use support::{headline, median, quick};

const KEYS: usize = 1_000;
const VALUE: [u8; 100] = [7; 100];

/// A way to ask for a key, with its name; whether it was there.
type Way<'a> = (&'a str, &'a dyn Fn(&str) -> bool);

fn main() {
    let gets = if quick() { 20_000 } else { 2_000_000 };
    let asked = std::env::args().find_map(|arg| arg.strip_prefix("--rounds=")?.parse().ok());
    let rounds = asked.unwrap_or(if quick() { 3 } else { 9 });
    headline(&format!("one thread, {KEYS} keys that are all there, values of 100 B"));
    let keys: Vec<String> = (0..KEYS).map(|number| format!("key:{number}")).collect();

    let clock = CoarseClock::new();
    let engine = Engine::new(&EngineConfig::default(), clock.now());
    let (local, exact) =
        (LocalCache::builder().build(), LocalCache::builder().clock(SystemClock::new()).build());
    for key in &keys {
        let set = Op::Set(Set::new(key.as_bytes(), &VALUE));
        let stored = engine.apply(engine.default_namespace(), &set, clock.now());
        assert!(matches!(stored, Outcome::Stored(_)), "{stored:?}");
        for cache in [&local, &exact] {
            cache.set(key, VALUE).expect("there is room");
        }
    }
    let engine_alone = |key: &str| {
        let get = Op::Get { key: key.as_bytes(), touch: None };
        matches!(black_box(engine.apply(engine.default_namespace(), &get, clock.now())), Outcome::Hit(_))
    };
    let get = |key: &str| black_box(local.get(key)).is_some();
    let by_trait = |key: &str| {
        let found = Cache::get(&local, key).now_or_never().expect("it waits for nothing");
        black_box(found).is_ok_and(|found| found.entry().is_some())
    };
    let exactly = |key: &str| black_box(exact.get(key)).is_some();
    let ways: [Way<'_>; 4] = [
        ("the engine alone", &engine_alone),
        ("LocalCache::get", &get),
        ("Cache::get of it", &by_trait),
        ("with SystemClock", &exactly),
    ];
    let mut taken = vec![Vec::new(); ways.len()];
    for _ in 0..rounds {
        for ((_, way), taken) in ways.iter().zip(&mut taken) {
            taken.push(nanoseconds(gets, &keys, way));
        }
    }
    println!("\n{:<18} {:>8} {:>14}", "get", "ns", "of the engine");
    for ((name, _), times) in ways.iter().zip(&taken) {
        let ratios = times.iter().zip(&taken[0]).map(|(mine, engine)| mine / engine).collect();
        println!("{name:<18} {:>8.0} {:>14.2}", median(times.clone()), median(ratios));
    }
}

/// What one get takes, in nanoseconds.
fn nanoseconds(gets: usize, keys: &[String], get: &dyn Fn(&str) -> bool) -> f64 {
    let begun = monotonic();
    let hits = (0..gets).filter(|number| get(&keys[number % keys.len()])).count();
    let taken = begun.elapsed();
    assert_eq!(hits, gets, "every key is there");
    taken.as_secs_f64() * 1e9 / gets as f64
}
