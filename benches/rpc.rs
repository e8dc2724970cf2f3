//! Throughput over gRPC as ratios with peers in one run, server on core 0, load on core 1:
//! unary Get against a bare tonic service, BatchGet against Redis MGET, Pipeline against redis-benchmark -P.
//!
//! `cargo bench --bench rpc [-- --quick]`. Needs h2load (Debian: nghttp2-client) and redis-server.

mod support;

use std::time::Duration;

use larder::clock::monotonic;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use support::{Process, have, headline, larder_bench, median, pinned, prefill, prefill_redis, quick};

const KEYS: usize = 100_000;
const ROUNDS: usize = 3;

fn main() {
    if let Some(port) = std::env::args().skip_while(|arg| arg != "--bare").nth(1) {
        return support::bare::serve(&port);
    }
    if let Some(data) = std::env::args().skip_while(|arg| arg != "--mget").nth(1) {
        return mget(&data);
    }
    unary();
    batch();
    pipeline();
}

fn rounds() -> usize {
    if quick() { 1 } else { ROUNDS }
}

fn unary() {
    headline("unary Get of 100 B: Larder / bare tonic service, h2load");
    if !have("h2load", "nghttp2-client") {
        return;
    }
    let (larder, bare) = (Process::larder(&["--memory", "1GiB"]), Process::bare());
    prefill(&larder, KEYS);
    let key = format!("bench:{:010}", 42);
    let message: Vec<u8> = [&[0, 0, 0, 0, 18, 0x12, 16], key.as_bytes()].concat();
    let body = std::env::temp_dir().join(format!("larder-get-{}.bin", std::process::id()));
    std::fs::write(&body, message).expect("the temporary directory takes a file");
    let run = |node: &Process, connections: &str, streams: &str| {
        let requests = if quick() { "20000" } else { "200000" };
        let cpu = node.cpu_seconds();
        let output = pinned(1, "h2load")
            .args(["-n", requests, "-c", connections, "-m", streams, "-t", "1", "-d"])
            .arg(&body)
            .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
            .arg(format!("http://{}/larder.v1.Cache/Get", node.data))
            .output()
            .expect("it was found before");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(&format!("{requests} succeeded")), "{text}");
        let rate = text.lines().find_map(|line| line.strip_prefix("finished in")).unwrap_or_default();
        let rate = rate.split(',').nth(1).unwrap_or_default().trim().trim_end_matches(" req/s");
        let cpu = (node.cpu_seconds() - cpu) * 1e6 / requests.parse::<f64>().expect("a number");
        (rate.parse::<f64>().expect("h2load prints a rate"), cpu)
    };
    // Rate and CPU time of larder's run and of the bare service's.
    type Pair = ((f64, f64), (f64, f64));
    for (connections, streams) in [("8", "16"), ("50", "1")] {
        let pairs: Vec<_> = (0..rounds())
            .map(|_| (run(&larder, connections, streams), run(&bare, connections, streams)))
            .collect();
        let of = |pick: fn(&Pair) -> f64| median(pairs.iter().map(pick).collect());
        println!(
            "{connections:>3} × {streams:<3} larder {:>7.0}/s ({:.1} µs CPU)  bare {:>7.0}/s ({:.1} µs CPU)  ratio {:.2}",
            of(|pair| pair.0.0),
            of(|pair| pair.0.1),
            of(|pair| pair.1.0),
            of(|pair| pair.1.1),
            of(|pair| pair.0.0 / pair.1.0),
        );
    }
    let _ = std::fs::remove_file(body);
}

fn batch() {
    headline("BatchGet of 100 keys: Larder / Redis MGET by redis-rs, keys/s");
    if !have("redis-server", "redis-server") {
        return;
    }
    let (larder, redis) = (Process::larder(&["--memory", "1GiB"]), Process::redis());
    prefill(&larder, KEYS);
    prefill_redis(&redis, KEYS);
    let keys = KEYS.to_string();
    let requests = if quick() { "200000" } else { "3000000" };
    let args = [
        "--keys",
        &keys,
        "--batch",
        "100",
        "-c",
        "8",
        "--callers",
        "4",
        "--ratio",
        "1:0",
        "--requests",
        requests,
    ];
    let pairs: Vec<_> = (0..rounds()).map(|_| (larder_bench(&larder, &args), redis_mget(&redis))).collect();
    report(&pairs, "redis-rs MGET 100");
}

fn report(pairs: &[(f64, f64)], peer: &str) {
    let of = |pick: fn(&(f64, f64)) -> f64| median(pairs.iter().map(pick).collect());
    println!(
        "larder {:.2} M/s   {peer} {:.2} M/s   ratio {:.2}",
        of(|pair| pair.0) / 1e6,
        of(|pair| pair.1) / 1e6,
        of(|pair| pair.0 / pair.1)
    );
}

/// The load runs as a child on core 1, as Larder's does.
fn redis_mget(redis: &Process) -> f64 {
    let own = std::env::current_exe().expect("a process has a file");
    let mut command = pinned(1, &own.display().to_string());
    let output = command.args(["--mget", &redis.data]).args(quick().then_some("--quick")).output();
    let text = String::from_utf8_lossy(&output.expect("it runs").stdout).into_owned();
    text.trim().parse().unwrap_or_else(|_| panic!("no figure: {text:?}"))
}

/// 8 connections with 4 MGETs in flight each, as Larder's load has; prints keys per second.
fn mget(data: &str) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let span = Duration::from_millis(if quick() { 300 } else { 2_000 });
    let keys = runtime.block_on(async {
        let client = redis::Client::open(format!("redis://{data}/")).expect("a URL");
        let begun = monotonic();
        let mut callers = tokio::task::JoinSet::new();
        for number in 0..8u64 {
            let connection = client.get_multiplexed_async_connection().await.expect("it is up");
            for caller in 0..4u64 {
                let mut connection = connection.clone();
                callers.spawn(async move {
                    let mut rng = SmallRng::seed_from_u64(number << 8 | caller);
                    let mut keys = 0;
                    while begun.elapsed() < span {
                        let mut mget = redis::cmd("MGET");
                        (0..100).for_each(|_| {
                            mget.arg(format!("{:016}", rng.random_range(0..KEYS)));
                        });
                        let values: redis::Value =
                            mget.query_async(&mut connection).await.expect("it answers");
                        assert!(matches!(values, redis::Value::Array(values) if values.len() == 100));
                        keys += 100;
                    }
                    keys
                });
            }
        }
        callers.join_all().await.into_iter().sum::<u64>()
    });
    println!("{}", keys as f64 / span.as_secs_f64());
}

fn pipeline() {
    headline(
        "Pipeline, 8 streams × 16 commands a message, gets: Larder / redis-benchmark -c 8 -P 16, keys/s",
    );
    if !have("redis-benchmark", "redis-tools") || !have("redis-server", "redis-server") {
        return;
    }
    let (larder, redis) = (Process::larder(&["--memory", "1GiB"]), Process::redis());
    prefill(&larder, KEYS);
    prefill_redis(&redis, KEYS);
    let keys = KEYS.to_string();
    let requests = if quick() { "200000" } else { "2000000" };
    for depth in ["1", "4", "16"] {
        let args = [
            "--keys",
            &keys,
            "--pipeline",
            "16",
            "-c",
            "8",
            "--depth",
            depth,
            "--ratio",
            "1:0",
            "--requests",
            requests,
        ];
        let pairs: Vec<_> = (0..rounds())
            .map(|_| (larder_bench(&larder, &args), redis_benchmark(&redis, requests)))
            .collect();
        print!("{depth:>2} messages in flight a stream: ");
        report(&pairs, "redis-benchmark -P 16");
    }
}

fn redis_benchmark(redis: &Process, requests: &str) -> f64 {
    // Keys that exist: redis-benchmark fills in 12 digits.
    let output = pinned(1, "redis-benchmark")
        .args(["-p", redis.port(), "-n", requests, "-r", &KEYS.to_string(), "-c", "8", "-P", "16", "--csv"])
        .args(["GET", "0000__rand_int__"])
        .output()
        .expect("it was found before");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().rfind(|line| line.contains("GET")).unwrap_or_default();
    let rate = last.split(',').nth(1).unwrap_or_default().trim_matches('"');
    rate.parse().unwrap_or_else(|_| panic!("no rate in {text:?}"))
}
