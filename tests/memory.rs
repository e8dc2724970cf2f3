//! Resident memory of the program (what its host has to plan for): the limit, a tenth of it and 64 MiB, whatever the
//! sizes of the entries do, and also while writes come faster than the disk takes them; with 1,000 clients that do not
//! read, fifteen hundredths instead of the tenth.
//!
//! `LARDER_SOAK_SECONDS` makes it long: 256 MiB, for that number of seconds. Without it a node of 16 MiB is filled a
//! few times over.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/node.rs"]
mod node;
#[path = "support/raw.rs"]
mod raw;

use std::time::{Duration, Instant};

use bytes::Bytes;
use larder::clock::monotonic;
use larder::proto::v1::cache_client::CacheClient;
use larder::proto::v1::set_request::Expiration;
use larder::proto::v1::*;
use node::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use raw::{Raw, framed, post};

const MIB: u64 = 1 << 20;
const BESIDE_BYTES: u64 = 64 * MIB;
/// What the shipped program may have of its own file in memory.
const SHIPPED_FILE_BYTES: u64 = 16 * MIB;
/// The sizes of values in turn, so that memory which one leaves is of the wrong shape for the next.
const PHASES: [(usize, usize); 5] =
    [(10, 4 << 10), (1 << 10, 64 << 10), (10, 4 << 10), (10, 100), (10, 64 << 10)];
/// How many of them a short run does.
const PHASES_SHORT: usize = 3;
const BATCH_BYTES: usize = 1 << 20;

/// A node under churn, and the most memory that it was seen with.
struct Churned {
    node: Process,
    limit: u64,
    most: u64,
    rng: SmallRng,
}

impl Churned {
    fn start(limit_mib: u64) -> Self {
        Self::start_with(limit_mib, &[])
    }

    fn start_with(limit_mib: u64, flags: &[&str]) -> Self {
        let memory = format!("{limit_mib}MiB");
        let node = Process::start(&[&["--memory", &memory], flags].concat());
        Self { node, limit: limit_mib * MIB, most: 0, rng: SmallRng::seed_from_u64(14) }
    }

    /// What is promised is the shipped program's. One that is not optimised is larger, and 20 MiB of its file are in
    /// memory: of those no more are counted than [`SHIPPED_FILE_BYTES`]. `just soak` counts all, with the release profile.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.node.id())).unwrap();
        let figure = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() << 10
        };
        let spared =
            if cfg!(debug_assertions) { figure("RssFile:").saturating_sub(SHIPPED_FILE_BYTES) } else { 0 };
        figure("VmRSS:") - spared
    }

    /// Looks how much memory the node has.
    fn sample(&mut self, percent_beside: u64, when: &str) {
        let resident = self.resident();
        self.most = self.most.max(resident);
        let allowed = self.limit + self.limit * percent_beside / 100 + BESIDE_BYTES;
        assert!(resident <= allowed, "{when}: {resident} bytes are resident, {allowed} allowed");
    }

    /// A value's size, as many small as large ones by orders of magnitude.
    fn size(&mut self, (least, most): (usize, usize)) -> usize {
        let octaves = (most as f64 / least as f64).log2();
        let size = least as f64 * (self.rng.random::<f64>() * octaves).exp2();
        (size as usize).clamp(least, most)
    }

    fn batch(&mut self, sizes: (usize, usize)) -> BatchSetRequest {
        let (mut items, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES && items.len() < 10_000 {
            let (key, size) = (self.rng.random_range(0..4_000_000_u32), self.size(sizes));
            let expires = self.rng.random_ratio(1, 4);
            let expiration = expires.then(|| Expiration::TtlMs(self.rng.random_range(1..20_000)));
            bytes += size + 16;
            items.push(SetRequest { expiration, ..set(format!("{key:016}"), vec![7; size]) });
        }
        BatchSetRequest { items, ..BatchSetRequest::default() }
    }

    /// Stores values of these sizes, and reads and deletes some, until `bytes` bytes were stored.
    async fn churn(&mut self, calls: &mut Calls, sizes: (usize, usize), bytes: u64) {
        let mut stored = 0;
        while stored < bytes {
            let batch = self.batch(sizes);
            let keys: Vec<Bytes> = batch.items.iter().step_by(50).map(|item| item.key.clone()).collect();
            stored += batch.items.iter().map(|item| item.value.len() as u64 + 16).sum::<u64>();
            let results = soon(calls.0.batch_set(batch)).await.unwrap().into_inner().results;
            let is_stored =
                |result: &SetResult| matches!(result.result, Some(set_result::Result::Response(_)));
            assert!(results.iter().all(is_stored), "a set was refused");
            let asked = BatchGetRequest { keys: keys.clone(), ..Default::default() };
            soon(calls.0.batch_get(asked)).await.unwrap();
            let gone = BatchDeleteRequest { keys, ..Default::default() };
            soon(calls.0.batch_delete(gone)).await.unwrap();
            self.sample(10, &format!("values of {sizes:?} bytes"));
        }
    }
}

fn soak() -> Option<Duration> {
    let seconds = std::env::var("LARDER_SOAK_SECONDS").ok()?;
    Some(Duration::from_secs(seconds.parse().expect("LARDER_SOAK_SECONDS is a number")))
}

#[tokio::test]
async fn resident_memory_stays_near_the_limit_whatever_the_sizes_do() {
    let soak = soak();
    let mut churned = Churned::start(if soak.is_some() { 256 } else { 16 });
    let mut calls = Calls(CacheClient::new(connect(&churned.node.ready.data[0]).await));
    let until: Option<Instant> = soak.map(|soak| monotonic() + soak);
    let mut phases = PHASES.into_iter().cycle().take(if until.is_some() { usize::MAX } else { PHASES_SHORT });
    let mut count = 0;
    while until.is_none_or(|until| monotonic() < until)
        && let Some(sizes) = phases.next()
    {
        let bytes = churned.limit * 3 / 2;
        churned.churn(&mut calls, sizes, bytes).await;
        println!("after values of {sizes:?} bytes: {} MiB resident", churned.resident() / MIB);
        count += 1;
    }
    let metrics = http_get(&churned.node.ready.http, "/metrics").await.1;
    assert!(metric(&metrics, "larder_evictions_total") > 1_000, "the limit was reached");
    let (most, limit) = (churned.most / MIB, churned.limit / MIB);
    println!("{count} phases, {most} MiB resident at most with a limit of {limit} MiB");
    if soak.is_some() {
        clients_that_do_not_read(&mut churned).await;
    }
}

/// Callers that write as fast as they can, and connections that they share.
const WRITERS: usize = 12;
const CONNECTIONS: usize = 3;

/// Stores Sets of `items` items each until `bytes` bytes were stored; the number of items stored.
async fn write(mut calls: Calls, writer: usize, (items, value_bytes): (usize, usize), bytes: usize) -> usize {
    let mut stored = 0;
    for batch in 0..bytes.div_ceil(items * value_bytes) {
        let key = |item| format!("{writer}:{}", (batch * items + item) % 2_000);
        let items = (0..items).map(|item| set(key(item), vec![7; value_bytes])).collect();
        let batch = BatchSetRequest { items, ..BatchSetRequest::default() };
        let results = soon(calls.0.batch_set(batch)).await.unwrap().into_inner().results;
        for result in &results {
            assert!(matches!(result.result, Some(set_result::Result::Response(_))), "{result:?}");
        }
        stored += results.len();
    }
    stored
}

#[tokio::test]
async fn resident_memory_stays_near_the_limit_while_writes_outrun_the_disk() {
    let rounds = if soak().is_some() { 20 } else { 1 };
    for mode in ["journal+snapshot", "store", "snapshot"] {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().to_str().unwrap();
        let flags =
            ["--persistence", mode, "--data-dir", data, "--snapshot-interval", "1s", "--timeout", "30s"];
        let mut churned = Churned::start_with(32, &flags);
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(connect(&churned.node.ready.data[0]).await);
        }
        for sizes in [(100, 16 << 10), (3, 1 << 20), (1_000, 100)] {
            let bytes = rounds * if sizes.1 > 100 { 16 << 20 } else { 1 << 20 };
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let calls = Calls(CacheClient::new(channels[writer % CONNECTIONS].clone()));
                    tokio::spawn(write(calls, writer, sizes, bytes))
                })
                .collect();
            while !writers.iter().all(|writer| writer.is_finished()) {
                churned.sample(10, &format!("{mode}, batches of {sizes:?}"));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            for writer in writers {
                assert!(writer.await.unwrap() * sizes.1 >= bytes);
            }
        }
        println!("{mode}: {} MiB resident at most", churned.most / MIB);
    }
}

/// 1,000 connections, each with an answer that waits for it.
async fn clients_that_do_not_read(churned: &mut Churned) {
    let mut calls = Calls(CacheClient::new(connect(&churned.node.ready.data[0]).await));
    let keys: Vec<Bytes> = (0..10).map(|n| format!("unread-{n}").into()).collect();
    for key in &keys {
        calls.set(set(key, vec![1; 60 << 10])).await.unwrap();
    }
    let ask = framed(&BatchGetRequest { keys, ..Default::default() });
    let (mut clients, before) = (Vec::new(), churned.resident());
    for _ in 0..1_000 {
        let raw = Raw::connect(&churned.node.ready.data[0]).await;
        let (response, mut send) = raw.open(post("/larder.v1.Cache/BatchGet")).await;
        send.send_data(ask.clone(), true).unwrap();
        clients.push((soon(response).await.unwrap(), raw));
        churned.sample(15, "with clients that do not read");
    }
    for _ in 0..20 {
        let batch = churned.batch((10, 4 << 10));
        soon(calls.0.batch_set(batch)).await.unwrap();
        churned.sample(15, "with clients that do not read");
    }
    let (before, most) = (before / MIB, churned.most / MIB);
    println!("1,000 clients that do not read: {before} MiB resident before, {most} at most");
}
