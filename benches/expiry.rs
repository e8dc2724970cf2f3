//! A million entries that expire in the same second: how long after it they are reclaimed, and how long an
//! operation waits meanwhile. And the time from an empty start to `ready`.
//!
//! `cargo bench --bench expiry [-- --quick]`

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder::cache::Cache;
use larder::clock::monotonic;
use larder::engine::{EngineConfig, Expiration, Op, Set};
use larder::entry::{Limits, Ttl};
use support::{Process, headline, median, quick};

fn main() {
    let entries: u64 = if quick() { 20_000 } else { 1_000_000 };
    headline(&format!("{entries} entries of 16 B + 100 B expire in the same second"));
    expire(entries);
    headline("empty start to `ready`");
    let rounds = if quick() { 3 } else { 20 };
    let starts = (0..rounds).map(|_| {
        let begun = monotonic();
        let _node = Process::larder(&["--memory", "1GiB"]);
        begun.elapsed().as_secs_f64() * 1e3
    });
    println!("median of {rounds}: {:.1} ms", median(starts.collect()));
}

fn expire(entries: u64) {
    let config = EngineConfig { bytes_limit: 1 << 30, ..EngineConfig::default() };
    let cache = Arc::new(Cache::new(&config, Limits::default()));
    // All within the second that begins 10 s from the first set.
    let begun = cache.now().steady_ms;
    for n in 0..entries {
        let now = cache.now();
        let left = (begun + 10_000 + n % 1_000).saturating_sub(now.steady_ms);
        let key = format!("{n:016}");
        let set = Set { expiration: Expiration::In(Ttl::Ms(left)), ..Set::new(key.as_bytes(), &[7; 100]) };
        cache.apply(cache.engine().default_namespace(), &Op::Set(set), now);
    }
    let held = cache.stats();
    assert_eq!(held.entries, entries);
    let done = Arc::new(AtomicBool::new(false));
    // One thread works as a client would, and remembers its longest wait.
    let client = {
        let (cache, done) = (Arc::clone(&cache), Arc::clone(&done));
        std::thread::spawn(move || {
            let namespace = cache.engine().default_namespace();
            let (mut worst, mut operations, mut n) = (Duration::ZERO, 0u64, 0u64);
            while !done.load(Ordering::Relaxed) {
                let key = format!("{:016}", n % entries);
                let begun = monotonic();
                if n % 10 == 0 {
                    let key = format!("new-{n:012}");
                    cache.apply(namespace, &Op::Set(Set::new(key.as_bytes(), &[7; 100])), cache.now());
                } else {
                    let _ = std::hint::black_box(cache.read(
                        namespace,
                        key.as_bytes(),
                        None,
                        cache.now(),
                        |entry| entry.version,
                    ));
                }
                worst = worst.max(begun.elapsed());
                n += 7_919;
                operations += 1;
            }
            (worst, operations)
        })
    };
    let last = begun + 11_000;
    let reclaimed = loop {
        cache.advance();
        let now = cache.now().steady_ms;
        if cache.stats().expirations >= entries {
            break now.saturating_sub(last);
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    done.store(true, Ordering::Relaxed);
    let (worst, operations) = client.join().expect("the client does not panic");
    println!(
        "reclaimed {reclaimed} ms after the last expiry; {operations} operations meanwhile, the longest took {:.2} ms",
        worst.as_secs_f64() * 1e3
    );
}
