//! Resident memory per entry of 16 B key + 100 B value, of a whole node, mean over 1.0, 1.4 and 2.0 M entries (an
//! index doubles somewhere between two of them), beside Redis and memcached at 1 M.
//!
//! `cargo bench --bench memory [-- --quick]`. The peers are Debian's redis-server and memcached.

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use support::{Process, have, headline, larder_bench, prefill_redis, quick};

fn main() {
    headline("resident bytes per entry, 16 B key + 100 B value");
    let scale = if quick() { 100 } else { 1 };
    for policy in ["lru", "s3-fifo"] {
        for ttl in ["0s", "1h"] {
            let figures =
                [1_000_000, 1_400_000, 2_000_000].map(|entries| larder(policy, ttl, entries / scale));
            let mean = figures.iter().sum::<f64>() / 3.0;
            let with = if ttl == "0s" { "no TTL  " } else { "with TTL" };
            println!(
                "larder {policy:<8} {with} {mean:>6.1} B  ({:.1} {:.1} {:.1})",
                figures[0], figures[1], figures[2]
            );
        }
    }
    if have("redis-server", "redis-server") {
        println!("redis                    {:>6.1} B", redis(1_000_000 / scale));
    }
    if have("memcached", "memcached") {
        println!("memcached                {:>6.1} B", memcached(1_000_000 / scale));
    }
}

/// What a process grows by for each entry.
fn growth(process: &Process, entries: u64, fill: impl FnOnce()) -> f64 {
    let before = process.resident_bytes();
    fill();
    (settled_bytes(process) as f64 - before as f64) / entries as f64
}

/// What a process keeps: an allocator gives back what was freed some moments later.
fn settled_bytes(process: &Process) -> u64 {
    let mut last = process.resident_bytes();
    loop {
        std::thread::sleep(Duration::from_millis(if quick() { 50 } else { 700 }));
        let now = process.resident_bytes();
        if now + now / 1_000 >= last {
            return now;
        }
        last = now;
    }
}

fn larder(policy: &str, ttl: &str, entries: u64) -> f64 {
    let node = Process::larder(&["--memory", "2GiB", "--policy", policy]);
    growth(&node, entries, || {
        let keys = entries.to_string();
        let args = [
            "--keys",
            &keys,
            "--prefill",
            "--ttl",
            ttl,
            "--requests",
            "100",
            "--batch",
            "100",
            "--ratio",
            "1:0",
        ];
        larder_bench(&node, &args);
    })
}

fn redis(entries: u64) -> f64 {
    let redis = Process::redis();
    growth(&redis, entries, || prefill_redis(&redis, entries as usize))
}

fn memcached(entries: u64) -> f64 {
    let memcached = Process::memcached();
    growth(&memcached, entries, || {
        let mut stream = std::io::BufWriter::new(TcpStream::connect(&memcached.data).expect("it is up"));
        let value = "v".repeat(100);
        for key in 0..entries {
            write!(stream, "set {key:016} 0 0 100 noreply\r\n{value}\r\n").expect("it takes them");
        }
        write!(stream, "mn\r\n").and_then(|()| stream.flush()).expect("it takes them");
        // The answer to the no-op says that everything before it is done.
        std::io::Read::read_exact(stream.get_mut(), &mut [0; 4]).expect("it answers");
    })
}
