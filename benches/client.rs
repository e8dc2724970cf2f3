//! The client library beside redis-rs, in one run: server on core 0, client on core 1, one thread each.
//!
//! `cargo bench --bench client [-- --quick]`. Needs redis-server. Each case is `get(key).await` or `set` of 100 B under one of
//! 100,000 keys of 16 B, by callers that each wait for their answer before they ask again. Per case: calls a second, the
//! client's CPU time and allocations per call.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::client::{Client, GetOutcome, SetOptions, SetOutcome, Tier};
use larder::clock::monotonic;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use support::{Process, cpu_seconds, have, headline, median, pinned, quick};

const KEYS: usize = 100_000;
const CONNECTIONS: usize = 8;
const ROUNDS: usize = 3;

/// Counts what the client allocates.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "an allocator that counts is one that is asked as the system's is")]
// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Get,
    Set,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--load") {
        let [peer, address, op, callers] = &args[at + 1..at + 5] else { panic!("four arguments") };
        let op = if op == "get" { Op::Get } else { Op::Set };
        return load(peer, address, op, callers.parse().expect("a number"));
    }
    headline("the client library / redis-rs, 8 connections, one caller to 512");
    if !have("redis-server", "redis-server") {
        return;
    }
    let (larder, redis) = (Process::larder(&["--memory", "1GiB"]), Process::redis());
    println!("{:>4} {:>4}   {:<40} {:<40} ratio", "op", "callers", "larder", "redis-rs");
    let cases: &[(Op, usize)] = if quick() {
        &[(Op::Get, 128)]
    } else {
        &[
            (Op::Get, 1),
            (Op::Get, 8),
            (Op::Get, 64),
            (Op::Get, 128),
            (Op::Get, 512),
            (Op::Set, 1),
            (Op::Set, 128),
        ]
    };
    let near = run("near", &larder, Op::Get, 1);
    println!("near cache: {:.0} ns a hit, one thread, {:.2} allocations", 1e9 / near.rate, near.allocations);
    let [p50, p99, max] = three("news", &larder, Op::Set, 1);
    println!(
        "near cache: served what was before an acknowledged set for {p50:.0} µs (p50), {p99:.0} (p99), {max:.0} (most)"
    );
    for (op, callers) in cases.iter().copied() {
        let rounds = if quick() { 1 } else { ROUNDS };
        let pairs: Vec<(Figures, Figures)> = (0..rounds)
            .map(|_| (run("larder", &larder, op, callers), run("redis", &redis, op, callers)))
            .collect();
        let of = |pick: fn(&(Figures, Figures)) -> f64| median(pairs.iter().map(pick).collect());
        println!(
            "{:>4} {callers:>4}   {:>8.0}/s {:.2} µs CPU {:.2} allocations   {:>8.0}/s {:.2} µs CPU {:.2} allocations   {:.2}",
            if op == Op::Get { "get" } else { "set" },
            of(|pair| pair.0.rate),
            of(|pair| pair.0.cpu_us),
            of(|pair| pair.0.allocations),
            of(|pair| pair.1.rate),
            of(|pair| pair.1.cpu_us),
            of(|pair| pair.1.allocations),
            of(|pair| pair.0.rate / pair.1.rate),
        );
    }
}

struct Figures {
    rate: f64,
    cpu_us: f64,
    allocations: f64,
}

fn run(peer: &str, server: &Process, op: Op, callers: usize) -> Figures {
    let [rate, cpu_us, allocations] = three(peer, server, op, callers);
    Figures { rate, cpu_us, allocations }
}

/// Runs the load in a process of its own on core 1, which prints three figures.
fn three(peer: &str, server: &Process, op: Op, callers: usize) -> [f64; 3] {
    let own = std::env::current_exe().expect("a process has a file");
    let output = pinned(1, &own.display().to_string())
        .args(["--load", peer, &server.data, if op == Op::Get { "get" } else { "set" }, &callers.to_string()])
        .args(if quick() { &["--quick"][..] } else { &[] })
        .stderr(std::process::Stdio::inherit())
        .output()
        .expect("it is this program");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let figures: Vec<f64> = text.split_whitespace().filter_map(|figure| figure.parse().ok()).collect();
    figures.try_into().unwrap_or_else(|_| panic!("{peer}: no figures in {text:?}"))
}

fn load(peer: &str, address: &str, op: Op, callers: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let span = Duration::from_millis(if quick() { 500 } else { 3_000 });
    let keys: Arc<Vec<String>> = Arc::new((0..KEYS).map(|key| format!("{key:016}")).collect());
    runtime.block_on(async {
        let figures = match peer {
            "news" => {
                let [p50, p99, max] = near_news(address, span).await;
                return println!("{p50} {p99} {max}");
            }
            "near" => near_hits(address, keys, span).await,
            "larder" => larder_load(address, op, callers, keys, span).await,
            _ => redis_load(address, op, callers, keys, span).await,
        };
        println!("{} {} {}", figures.rate, figures.cpu_us, figures.allocations);
    });
}

/// Lets callers call until the time is over.
async fn measure<F, Fut>(callers: usize, span: Duration, mut caller: F) -> Figures
where
    F: FnMut(usize, SmallRng, std::time::Instant) -> Fut,
    Fut: Future<Output = u64> + Send + 'static,
{
    let meter = Meter::start();
    let end = meter.begun + span;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..callers {
        tasks.spawn(caller(number, SmallRng::seed_from_u64(number as u64), end));
    }
    meter.figures(tasks.join_all().await.into_iter().sum())
}

/// What a run began with.
struct Meter {
    begun: std::time::Instant,
    cpu_seconds: f64,
    allocations: u64,
}

impl Meter {
    fn start() -> Self {
        let cpu_seconds = cpu_seconds(std::process::id());
        Self { begun: monotonic(), cpu_seconds, allocations: ALLOCATIONS.load(Ordering::Relaxed) }
    }

    /// What the calls since then took.
    fn figures(&self, calls: u64) -> Figures {
        let calls = calls as f64;
        Figures {
            rate: calls / (monotonic() - self.begun).as_secs_f64(),
            cpu_us: (cpu_seconds(std::process::id()) - self.cpu_seconds) * 1e6 / calls,
            allocations: (ALLOCATIONS.load(Ordering::Relaxed) - self.allocations) as f64 / calls,
        }
    }
}

async fn larder_load(
    address: &str,
    op: Op,
    callers: usize,
    keys: Arc<Vec<String>>,
    span: Duration,
) -> Figures {
    let connections = std::env::var("CONNECTIONS").ok().and_then(|text| text.parse().ok());
    let connections = NonZeroUsize::new(connections.unwrap_or(CONNECTIONS)).expect("it is not 0");
    let url = address.parse().expect("an address");
    let client = Client::builder([url]).connections(connections).connect().await.expect("a node");
    let value = bytes::Bytes::from(vec![b'v'; 100]);
    let items = keys.iter().map(|key| (bytes::Bytes::from(key.clone()), value.clone())).collect();
    client.batch_set(items, &SetOptions::default()).await.expect("a node that stores");
    let figures = measure(callers, span, |_, mut rng, end| {
        let (client, keys, value) = (client.clone(), keys.clone(), value.clone());
        async move {
            let (mut calls, options) = (0, SetOptions::default());
            while calls % 16 != 0 || monotonic() < end {
                let key = &keys[rng.random_range(0..KEYS)];
                match op {
                    Op::Get => {
                        let outcome = client.get(key).await.expect("an answer");
                        assert!(matches!(outcome, GetOutcome::Hit(hit) if hit.value.len() == 100));
                    }
                    Op::Set => {
                        let outcome = client.set(key, value.clone(), &options).await.expect("an answer");
                        assert!(matches!(outcome, SetOutcome::Stored(_)));
                    }
                }
                calls += 1;
            }
            calls
        }
    })
    .await;
    if std::env::var("METRICS").is_ok() {
        eprintln!("{:?}", client.metrics());
    }
    figures
}

/// Gets of 1,000 keys that the near cache has.
async fn near_hits(address: &str, keys: Arc<Vec<String>>, span: Duration) -> Figures {
    let url = address.parse().expect("an address");
    let client = Client::builder([url]).near_cache(64 << 20).connect().await.expect("a node");
    let keys = &keys[..1_000];
    for key in keys {
        client.set(key, vec![b'v'; 100], &SetOptions::default()).await.expect("a node that stores");
    }
    let is_near = |outcome: &GetOutcome| outcome.entry().is_some_and(|hit| hit.tier == Tier::NearCache);
    for key in keys {
        while !is_near(&client.get(key).await.expect("an answer")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let (meter, mut calls) = (Meter::start(), 0);
    while monotonic() < meter.begun + span {
        for key in keys {
            let outcome = client.get(key).await.expect("an answer");
            assert!(outcome.entry().is_some_and(|hit| hit.value.len() == 100));
            calls += 1;
        }
        // The task that follows Watch runs here too.
        tokio::task::yield_now().await;
    }
    meter.figures(calls)
}

/// How long after a set of another client is acknowledged a copy of what was before is still served, in µs: the median, the 99th of
/// 100, and the most. Nothing else is done meanwhile.
async fn near_news(address: &str, span: Duration) -> [f64; 3] {
    let url: larder::client::NodeUrl = address.parse().expect("an address");
    let near = Client::builder([url.clone()]).near_cache(64 << 20).connect().await.expect("a node");
    let far = Client::builder([url]).connect().await.expect("a node");
    let (mut late, begun, options) = (Vec::new(), monotonic(), SetOptions::default());
    far.set("news", "none", &options).await.expect("a node that stores");
    while monotonic() < begun + span {
        let value = late.len().to_string();
        while near.get("news").await.expect("an answer").entry().is_none_or(|hit| hit.tier != Tier::NearCache)
        {
            tokio::task::yield_now().await;
        }
        far.set("news", value.clone(), &options).await.expect("a node that stores");
        let acknowledged = monotonic();
        while near.get("news").await.expect("an answer").into_value().is_none_or(|read| read != value) {
            tokio::task::yield_now().await;
        }
        late.push(acknowledged.elapsed().as_secs_f64() * 1e6);
    }
    late.sort_by(f64::total_cmp);
    [late[late.len() / 2], late[late.len() * 99 / 100], late[late.len() - 1]]
}

async fn redis_load(
    address: &str,
    op: Op,
    callers: usize,
    keys: Arc<Vec<String>>,
    span: Duration,
) -> Figures {
    let client = redis::Client::open(format!("redis://{address}/")).expect("an address");
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(client.get_multiplexed_async_connection().await.expect("a server"));
    }
    let value = vec![b'v'; 100];
    for keys in keys.chunks(1_000) {
        let mut mset = redis::cmd("MSET");
        for key in keys {
            mset.arg(key).arg(&value);
        }
        let () = mset.query_async(&mut connections[0]).await.expect("a server that stores");
    }
    measure(callers, span, |number, mut rng, end| {
        let mut connection = connections[number % CONNECTIONS].clone();
        let (keys, value) = (keys.clone(), value.clone());
        async move {
            let mut calls = 0;
            while calls % 16 != 0 || monotonic() < end {
                let key = &keys[rng.random_range(0..KEYS)];
                match op {
                    Op::Get => {
                        let found: Vec<u8> =
                            redis::cmd("GET").arg(key).query_async(&mut connection).await.expect("an answer");
                        assert_eq!(found.len(), 100);
                    }
                    Op::Set => {
                        let () = redis::cmd("SET")
                            .arg(key)
                            .arg(&value[..])
                            .query_async(&mut connection)
                            .await
                            .expect("an answer");
                    }
                }
                calls += 1;
            }
            calls
        }
    })
    .await
}
