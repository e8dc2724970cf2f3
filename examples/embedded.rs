//! The engine inside a program of yours: no socket, no runtime, one shared reference for all threads.
//!
//! Four threads read through a small cache in front of something slow. The engine holds 4 MiB, so not everything
//! fits, and the policy chooses what stays.
//!
//! ```text
//! cargo run --release --example embedded
//! ```

use std::thread;

use larder::Engine;
use larder::clock::{Clock, SystemClock};
use larder::engine::{EngineConfig, Expiration, Op, Outcome, PolicyName, Set};
use larder::entry::Ttl;

const KEYS: u64 = 60_000;
const LOOKUPS: u64 = 200_000;

fn main() {
    for policy in [PolicyName::Lru, PolicyName::S3Fifo] {
        let clock = SystemClock::new();
        let config =
            EngineConfig { bytes_limit: 4 << 20, value_bytes_max: 4_096, policy, ..EngineConfig::default() };
        let engine = Engine::new(&config, clock.now());
        thread::scope(|scope| {
            for thread in 0..4 {
                let (engine, clock) = (&engine, &clock);
                scope.spawn(move || read_through(engine, clock, thread));
            }
        });
        let stats = engine.stats();
        println!(
            "{policy}: {} hits of {} lookups ({:.1} %), {} entries in {} KiB, {} evicted",
            stats.hits,
            stats.hits + stats.misses(),
            100.0 * stats.hit_ratio().unwrap_or(0.0),
            stats.entries,
            stats.bytes_used >> 10,
            stats.evictions,
        );
    }
}

/// Looks keys up, some far more often than others, and stores what is missing.
fn read_through(engine: &Engine, clock: &SystemClock, seed: u64) {
    let (namespace, mut state) = (engine.default_namespace(), seed + 1);
    for _ in 0..LOOKUPS {
        let key = format!("page:{}", skewed(&mut state));
        let outcome = engine.apply(namespace, &Op::Get { key: key.as_bytes(), touch: None }, clock.now());
        if matches!(outcome, Outcome::Miss(_)) {
            let page = render(&key);
            let set = Set {
                expiration: Expiration::In(Ttl::Ms(300_000)),
                content_type: "text/html",
                ..Set::new(key.as_bytes(), page.as_bytes())
            };
            engine.apply(namespace, &Op::Set(set), clock.now());
        }
    }
}

/// Stands for a database, a template, a service far away.
fn render(key: &str) -> String {
    format!("<h1>{key}</h1>{}", "<p>lorem ipsum</p>".repeat(8))
}

/// A number below [`KEYS`], small ones more often: xorshift64, and a power to skew it.
fn skewed(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    let unit = (*state >> 11) as f64 / (1u64 << 53) as f64;
    (unit.powi(4) * KEYS as f64) as u64
}
