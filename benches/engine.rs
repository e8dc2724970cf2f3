//! The engine alone against the caches that Rust programs embed: two threads, Zipf 0.99 over a million keys, room for a
//! tenth of them, values of 100 bytes that are copied out. A get that misses stores.
//!
//! `cargo bench --bench engine [-- --quick] [-- --threads=2] [-- --rounds=7] [-- <policy>...]`; the caches are measured
//! in turns, round after round, and the median of the rounds' ratios is printed. Given policies, those alone are measured
//! beside the others' caches.

mod support;

use std::sync::Arc;

use larder::clock::{Clock, CoarseClock, monotonic};
use larder::engine::{Engine, EngineConfig, Op, PolicyName, Set};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, Zipf};
use support::{headline, median, quick};

const KEYS: u64 = 1_000_000;
const CAPACITY: u64 = KEYS / 10;
const VALUE: [u8; 100] = [7; 100];

/// A cache that is measured.
trait Contestant: Sync {
    fn get(&self, key: u64) -> bool;
    fn set(&self, key: u64);
}

struct Larder {
    engine: Engine,
    clock: CoarseClock,
}

impl Larder {
    fn new(policy: PolicyName) -> Self {
        let clock = CoarseClock::new();
        // What an entry of 8 B + 100 B takes with everything, so that as many fit as in the others.
        let config = EngineConfig {
            bytes_limit: CAPACITY * 150,
            policy,
            value_bytes_max: VALUE.len() as u64,
            ..EngineConfig::default()
        };
        Self { engine: Engine::new(&config, clock.now()), clock }
    }
}

impl Contestant for Larder {
    fn get(&self, key: u64) -> bool {
        let copy = |entry: larder::engine::EntryView<'_>| {
            let mut value = [0; 100];
            value.copy_from_slice(entry.value.as_slice());
            std::hint::black_box(value);
        };
        let namespace = self.engine.default_namespace();
        self.engine.read(namespace, &key.to_le_bytes(), None, self.clock.now(), copy).is_ok()
    }

    fn set(&self, key: u64) {
        let key = key.to_le_bytes();
        self.engine.apply(
            self.engine.default_namespace(),
            &Op::Set(Set::new(&key, &VALUE)),
            self.clock.now(),
        );
    }
}

impl Contestant for quick_cache::sync::Cache<u64, [u8; 100]> {
    fn get(&self, key: u64) -> bool {
        self.get(&key).map(std::hint::black_box).is_some()
    }

    fn set(&self, key: u64) {
        self.insert(key, VALUE);
    }
}

impl Contestant for moka::sync::Cache<u64, [u8; 100]> {
    fn get(&self, key: u64) -> bool {
        self.get(&key).map(std::hint::black_box).is_some()
    }

    fn set(&self, key: u64) {
        self.insert(key, VALUE);
    }
}

fn main() {
    let requests = if quick() { 50_000 } else { 2_000_000 };
    let rounds = option("--rounds=").unwrap_or(if quick() { 2 } else { 7 });
    let threads = option("--threads=").unwrap_or(2);
    headline(&format!("{threads} threads, Zipf 0.99 over {KEYS} keys, room for {CAPACITY}, values of 100 B"));
    let streams: Vec<Vec<u64>> = (0..threads).map(|seed| stream(seed, requests)).collect();
    let asked: Vec<PolicyName> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let policies = if asked.is_empty() { PolicyName::ALL.to_vec() } else { asked };
    let names: Vec<String> = policies.iter().map(|policy| format!("larder {policy}")).collect();
    let mut contestants: Vec<(&str, Arc<dyn Contestant + Send>)> = Vec::new();
    for (name, policy) in names.iter().zip(policies) {
        contestants.push((name, Arc::new(Larder::new(policy))));
    }
    contestants.push(("quick_cache 0.7", Arc::new(quick_cache::sync::Cache::new(CAPACITY as usize))));
    contestants.push(("moka 0.12", Arc::new(moka::sync::Cache::new(CAPACITY))));
    for percent in [100, 95] {
        println!("\n{percent} % gets   M operations/s   hit ratio   of quick_cache   of moka");
        // Once to fill them.
        for (_, cache) in &contestants {
            run(&**cache, &streams, percent);
        }
        let mut speeds = vec![Vec::new(); contestants.len()];
        let mut hits = vec![0.0; contestants.len()];
        for _ in 0..rounds {
            for (index, (_, cache)) in contestants.iter().enumerate() {
                let (speed, ratio) = run(&**cache, &streams, percent);
                speeds[index].push(speed);
                hits[index] = ratio;
            }
        }
        let (quick_cache, moka) = (contestants.len() - 2, contestants.len() - 1);
        for (index, (name, _)) in contestants.iter().enumerate() {
            let of = |other: usize| {
                let ratios = speeds[index].iter().zip(&speeds[other]).map(|(mine, theirs)| mine / theirs);
                median(ratios.collect())
            };
            println!(
                "{name:<18} {:>10.2} {:>12.1} % {:>12.2} {:>11.2}",
                median(speeds[index].clone()),
                hits[index] * 100.0,
                of(quick_cache),
                of(moka)
            );
        }
    }
}

/// The number that an option gives.
fn option(name: &str) -> Option<u64> {
    std::env::args().find_map(|arg| arg.strip_prefix(name)?.parse().ok())
}

fn stream(seed: u64, requests: usize) -> Vec<u64> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let zipf = Zipf::new(KEYS as f64, 0.99).expect("a valid distribution");
    // Keys in no order, so that the hot ones do not lie side by side.
    (0..requests).map(|_| (zipf.sample(&mut rng) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect()
}

/// M operations a second of all threads, and the gets' hit ratio.
fn run(cache: &(dyn Contestant + Send), streams: &[Vec<u64>], percent: usize) -> (f64, f64) {
    let begun = monotonic();
    let counts: Vec<(usize, usize)> = std::thread::scope(|scope| {
        let threads: Vec<_> = streams
            .iter()
            .map(|stream| {
                scope.spawn(move || {
                    let (mut hits, mut gets) = (0, 0);
                    for (index, key) in stream.iter().enumerate() {
                        if index % 100 >= percent {
                            cache.set(*key);
                            continue;
                        }
                        gets += 1;
                        if cache.get(*key) {
                            hits += 1;
                        } else {
                            cache.set(*key);
                        }
                    }
                    (hits, gets)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no contestant panics")).collect()
    });
    let operations: usize = streams.iter().map(Vec::len).sum();
    let (hits, gets) = counts.into_iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    (operations as f64 / begun.elapsed().as_secs_f64() / 1e6, hits as f64 / gets as f64)
}
