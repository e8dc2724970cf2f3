//! Invalidating a tag and a prefix that cover a million entries: how long the call takes, and what gets wait in the ten
//! seconds after, while the dead entries are swept, against the ten seconds before.
//!
//! `cargo bench --bench invalidate [-- --quick]`

mod support;

use std::process::Stdio;

use bytes::Bytes;
use larder::client::{Client, InvalidateScope};
use larder::clock::monotonic;
use larder::proto::v1::{BatchSetRequest, SetRequest, cache_client::CacheClient};
use support::{LARDER, Process, headline, pinned, quick};

fn main() {
    let entries: u64 = if quick() { 20_000 } else { 1_000_000 };
    headline(&format!(
        "Invalidate of {entries} entries of 16 B + 100 B; gets at 20,000 keys/s on one connection"
    ));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for (name, scope) in [
        ("tag", InvalidateScope::Tag("bulk".to_owned())),
        ("prefix", InvalidateScope::Prefix(Bytes::from("bulk-"))),
    ] {
        let node = Process::larder(&["--memory", "1GiB"]);
        runtime.block_on(fill(&node.data, entries));
        // Keys of their own, which stay.
        waits(&node, &["--prefill"]);
        let before = waits(&node, &[]);
        let took = runtime.block_on(invalidate(&node.data, scope));
        let after = waits(&node, &[]);
        println!(
            "{name:<7} the call took {took:.2} ms; gets before {before} after {after}  p99 ratio {:.2}",
            after.p99 / before.p99
        );
    }
}

async fn fill(data: &str, entries: u64) {
    let mut cache = CacheClient::connect(format!("http://{data}")).await.expect("the node serves");
    for first in (0..entries).step_by(1_000) {
        let item = |n: u64| SetRequest {
            key: Bytes::from(format!("bulk-{n:011}")),
            value: Bytes::from_static(&[7; 100]),
            tags: vec!["bulk".to_owned()],
            ..SetRequest::default()
        };
        let items = (first..(first + 1_000).min(entries)).map(item).collect();
        cache.batch_set(BatchSetRequest { items, ..BatchSetRequest::default() }).await.expect("it is stored");
    }
}

/// How long the call takes, in ms, on a connection that is open.
async fn invalidate(data: &str, scope: InvalidateScope) -> f64 {
    let url = format!("tcp://{data}").parse().expect("a URL");
    let client = Client::builder([url]).build().expect("a client");
    client.get("warm").await.expect("the node answers");
    let begun = monotonic();
    client.invalidate(scope).await.expect("it is done");
    begun.elapsed().as_secs_f64() * 1e3
}

struct Waits {
    p50: f64,
    p99: f64,
    max: f64,
}

impl std::fmt::Display for Waits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p50 {:.0} p99 {:.0} max {:.0} µs", self.p50, self.p99, self.max)
    }
}

fn waits(node: &Process, args: &[&str]) -> Waits {
    let duration = if quick() { "1s" } else { "10s" };
    let nodes = format!("tcp://{}", node.data);
    let output = pinned(1, LARDER)
        .args([
            "bench", "--nodes", &nodes, "--keys", "100000", "-c", "1", "--ratio", "1:0", "--rate", "20000",
        ])
        .args(["--duration", duration, "--output", "json"])
        .args(args)
        .stderr(Stdio::null())
        .output()
        .expect("the program was built with the benchmark");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
    let us = |name: &str| report["latency_us"]["get"][name].as_f64().expect("a latency");
    Waits { p50: us("p50"), p99: us("p99"), max: us("max") }
}
