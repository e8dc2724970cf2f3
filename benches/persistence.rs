//! What lies on disk: how fast a node is back, and what it costs to keep it there.
//!
//! `cargo bench --bench persistence [-- --quick] [-- restart flushed snapshot pipeline blobs]`: all parts, or those that
//! are named. The data lie in the target folder, which is to be on a real disk; where a node is loaded, it has core 0
//! and the load core 1. To recognise a machine that is slow today, its own append + fdatasync is measured in turns with
//! ours.

mod support;

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder::Client;
use larder::client::BlobOptions;
use larder::clock::{Clock, CoarseClock, monotonic};
use larder::engine::{Engine, EngineConfig, Op, Set};
use larder::persistence::disk::{Disk, DiskConfig};
use larder::persistence::journal::{JournalConfig, RESERVE_BYTES, SEGMENT_BYTES};
use larder::persistence::recover::{Recovery, RecoveryProgress};
use larder::persistence::{FilesBackend, RecoveryMethod};
use support::{LARDER, Process, headline, larder_bench, larder_report, median, quick};
use tempfile::TempDir;

const BACKENDS: [&str; 2] = ["files", "sled"];
const MIB: u64 = 1 << 20;

fn main() {
    let parts: [(&str, fn()); 5] = [
        ("restart", restart),
        ("flushed", flushed),
        ("snapshot", snapshot),
        ("pipeline", pipeline),
        ("blobs", blobs),
    ];
    let is_asked = |part: &str| std::env::args().skip(1).any(|arg| arg == part);
    let all = !parts.iter().any(|(name, _)| is_asked(name));
    for (_, run) in parts.iter().filter(|(name, _)| all || is_asked(name)) {
        run();
    }
}

/// A data directory beside the program, on the disk that it was built on.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target folder takes a directory")
}

fn entries() -> u64 {
    if quick() { 20_000 } else { 1_000_000 }
}

fn node_flags<'a>(directory: &'a TempDir, mode: &'a str, backend: &'a str) -> [&'a str; 8] {
    let directory = directory.path().to_str().expect("the target folder's name is text");
    ["--data-dir", directory, "--persistence", mode, "--backend", backend, "--memory", "1GiB"]
}

/// (a) A snapshot of 1 M entries: in this process, and a node until it is ready.
fn restart() {
    let rounds = if quick() { 2 } else { 7 };
    headline(&format!(
        "restart of {} entries of 16 B + 100 B from a snapshot, median of {rounds}",
        entries()
    ));
    let directory = directory();
    let config = EngineConfig { bytes_limit: 1 << 30, ..EngineConfig::default() };
    let clock = Arc::new(CoarseClock::new());
    let backend = || Arc::new(FilesBackend::open(directory.path()).expect("the directory is ours").0);
    let journal = JournalConfig {
        flush_interval: Duration::from_millis(100),
        backlog_bytes: 64 << 20,
        waiting_bytes: 4 << 20,
        segment_bytes: SEGMENT_BYTES,
        reserve_bytes: RESERVE_BYTES,
    };
    let disk_config = DiskConfig {
        journal,
        is_journaled: true,
        is_store: false,
        recovery: RecoveryMethod::SnapshotAndJournal,
        snapshot_interval: None,
        limit_bytes: None,
    };
    let engine = Arc::new(Engine::new(&config, clock.now()));
    for n in 0..entries() {
        let key = format!("{n:016}");
        let set = Op::Set(Set::new(key.as_bytes(), &[7; 100]));
        engine.apply(engine.default_namespace(), &set, clock.now());
    }
    let progress = RecoveryProgress::default();
    // Nothing is recovered here, so it does no harm that the engine is full; no journal has what the snapshot has.
    let (disk, _) = Disk::open(backend(), Arc::clone(&engine), clock.clone(), disk_config, &progress)
        .expect("the directory is empty");
    let taken = disk.snapshot().expect("the disk takes a snapshot");
    assert_eq!(taken.entries, entries());
    drop((disk, engine));
    for threads in [1, std::thread::available_parallelism().map_or(1, usize::from)] {
        let (mut seconds, mut cpu_seconds) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let engine = Engine::new(&config, clock.now());
            let progress = RecoveryProgress::default();
            let (backend, now) = (backend(), clock.now());
            let recovery = Recovery {
                backend: &*backend,
                engine: &engine,
                now,
                threads,
                progress: &progress,
                tier: None,
            };
            let cpu = support::cpu_seconds(std::process::id());
            let report =
                recovery.run(RecoveryMethod::SnapshotAndJournal).expect("it is as it was written").report;
            cpu_seconds.push(support::cpu_seconds(std::process::id()) - cpu);
            assert_eq!(engine.stats().entries, entries());
            seconds.push(report.elapsed.as_secs_f64());
        }
        let (seconds, cpu) = (median(seconds), median(cpu_seconds));
        println!(
            "{threads} threads, in this process   {seconds:>6.3} s ({cpu:.2} s CPU)   {:>5.2} M entries/s",
            rate(seconds)
        );
    }
    let seconds = (0..rounds).map(|_| {
        let begun = monotonic();
        let _node = Process::larder_everywhere(&node_flags(&directory, "journal+snapshot", "files"));
        begun.elapsed().as_secs_f64()
    });
    let seconds = median(seconds.collect());
    println!("a node, from exec to ready   {seconds:>6.3} s   {:>5.2} M entries/s", rate(seconds));
}

/// M entries a second.
fn rate(seconds: f64) -> f64 {
    entries() as f64 / seconds / 1e6
}

/// (b) Sets that wait for the disk, beside the disk alone.
fn flushed() {
    let rounds = if quick() { 1 } else { 5 };
    headline(&format!(
        "FLUSHED sets by 64 callers / append of 150 B and fdatasync in turn, median of {rounds}"
    ));
    for backend in BACKENDS {
        let directory = directory();
        let flags = node_flags(&directory, "journal", backend);
        let node = Process::larder(&[&flags[..], &["--durability", "flushed"]].concat());
        let duration = if quick() { "300ms" } else { "4s" };
        let ways =
            [("unary", ["--callers", "8"].as_slice()), ("Pipeline, 8 streams", &["-P", "8", "--depth", "1"])];
        for (how, in_flight) in ways {
            let args = ["-c", "8", "-k", "10000", "-r", "0:1", "--duration", duration];
            let args = [&args, in_flight].concat();
            flushed_by(&node, &directory, rounds, &format!("{backend:<6} {how:<20}"), &args);
        }
    }
}

/// Prints what one way to have 64 sets in flight comes to.
fn flushed_by(node: &Process, directory: &TempDir, rounds: usize, name: &str, args: &[&str]) {
    let pairs: Vec<[f64; 4]> = (0..rounds)
        .map(|_| {
            let (bare_rate, bare_p99) = bare_syncs(directory.path());
            let report = larder_report(node, args);
            let acknowledged = report["throughput"]["keys_per_s"].as_f64().expect("a throughput");
            [acknowledged, p99_us(&report, "set"), bare_rate, bare_p99]
        })
        .collect();
    let of = |pick: fn(&[f64; 4]) -> f64| median(pairs.iter().map(pick).collect());
    println!(
        "{name} {:>7.0}/s p99 {:>6.0} µs   bare {:>6.0}/s p99 {:>5.0} µs   ratio {:.2}, of p99 {:.1}",
        of(|pair| pair[0]),
        of(|pair| pair[1]),
        of(|pair| pair[2]),
        of(|pair| pair[3]),
        of(|pair| pair[0] / pair[2]),
        of(|pair| pair[1] / pair[3])
    );
}

/// What the file system does for one caller: syncs a second, and the 99th percentile in µs.
fn bare_syncs(directory: &Path) -> (f64, f64) {
    let mut file = std::fs::File::create(directory.join("bare")).expect("the directory is ours");
    let begun = monotonic();
    let mut waits = Vec::new();
    let length = Duration::from_millis(if quick() { 200 } else { 2_000 });
    while begun.elapsed() < length {
        let one = monotonic();
        file.write_all(&[7; 150]).and_then(|()| file.sync_data()).expect("the disk takes it");
        waits.push(one.elapsed().as_secs_f64() * 1e6);
    }
    let rate = waits.len() as f64 / begun.elapsed().as_secs_f64();
    waits.sort_by(f64::total_cmp);
    (rate, waits[waits.len() * 99 / 100])
}

fn p99_us(report: &serde_json::Value, kind: &str) -> f64 {
    report["latency_us"][kind]["p99"].as_f64().unwrap_or_else(|| panic!("no p99 of {kind} in {report}"))
}

/// (c) How long a Get waits while a snapshot is taken.
fn snapshot() {
    let rounds = if quick() { 1 } else { 5 };
    headline(&format!(
        "p99 of Get at half load while a snapshot of {} entries is taken / without, {rounds} pairs",
        entries()
    ));
    let directory = directory();
    let node = Process::larder(&node_flags(&directory, "journal+snapshot", "files"));
    prefill(&node);
    let keys = entries().to_string();
    let (trial, duration) = if quick() { ("300ms", "500ms") } else { ("3s", "5s") };
    let gets = ["-c", "8", "--callers", "4", "-k", &keys, "-r", "1:0"];
    let peak = larder_bench(&node, &[&gets[..], &["--duration", trial]].concat());
    let rate = (peak / 2.0).round().to_string();
    println!("peak {peak:.0}/s, asked for {rate}/s");
    let run = || {
        p99_us(
            &larder_report(&node, &[&gets[..], &["--duration", duration, "--rate", &rate]].concat()),
            "get",
        )
    };
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let without = run();
        let (with, snapshots) = while_snapshots_are_taken(&node, run);
        println!(
            "without {without:>7.0} µs   with {with:>7.0} µs ({snapshots} snapshots)   {:.2}",
            with / without
        );
        ratios.push(with / without);
    }
    println!("median ratio {:.2}", median(ratios));
}

/// What `run` comes to while one snapshot is taken after the other, and how many those were.
fn while_snapshots_are_taken(node: &Process, run: impl FnOnce() -> f64) -> (f64, usize) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let taking = scope.spawn(|| {
            let mut taken = 0;
            while !done.load(Ordering::Relaxed) {
                admin(node, "snapshot");
                taken += 1;
            }
            taken
        });
        let figure = run();
        done.store(true, Ordering::Relaxed);
        (figure, taking.join().expect("snapshots are taken"))
    })
}

fn prefill(node: &Process) {
    let keys = entries().to_string();
    larder_bench(node, &["-k", &keys, "--prefill", "-n", "100", "-b", "100", "-r", "1:0"]);
}

/// `larder admin WHAT`.
fn admin(node: &Process, what: &str) {
    let url = format!("tcp://{}", node.admin);
    // Its start must not be what the load waits for.
    let mut command = Command::new("nice");
    let status =
        command.args(["-n", "19", LARDER, "admin", "--admin", &url, what]).stdout(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "larder admin {what}");
}

/// (d) What a journal costs those who write.
fn pipeline() {
    let rounds = if quick() { 1 } else { 5 };
    headline(&format!(
        "Pipeline sets, 8 streams × 16: journal+snapshot, BUFFERED / none, median of {rounds}"
    ));
    let keys = entries().to_string();
    let duration = if quick() { "300ms" } else { "4s" };
    let sets = ["-c", "8", "-P", "16", "--depth", "1", "-k", &keys, "-r", "0:1", "--duration", duration];
    let directories = BACKENDS.map(|_| directory());
    let mut figures = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        figures[2]
            .push(larder_bench(&Process::larder(&["--persistence", "none", "--memory", "1GiB"]), &sets));
        for (index, backend) in BACKENDS.iter().enumerate() {
            let node = Process::larder(&node_flags(&directories[index], "journal+snapshot", backend));
            figures[index].push(larder_bench(&node, &sets));
            // The next round is to begin with as little as this one.
            admin(&node, "clear");
            admin(&node, "compact");
        }
    }
    for (backend, with) in BACKENDS.iter().zip(&figures) {
        let ratios = with.iter().zip(&figures[2]).map(|(with, without)| with / without);
        println!(
            "{backend:<6} {:>8.0} keys/s   none {:>8.0} keys/s   ratio {:.2}",
            median(with.clone()),
            median(figures[2].clone()),
            median(ratios.collect())
        );
    }
}

/// (e) What is on the disk for the blobs that are left.
fn blobs() {
    let (count, megabytes) = if quick() { (10, 10) } else { (300, 300) };
    headline(&format!("disk after {megabytes} MiB of blobs were overwritten twice, 90 % deleted, compacted"));
    for backend in BACKENDS {
        let directory = directory();
        let node = Process::larder(&node_flags(&directory, "journal+snapshot", backend));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let used_before = disk_bytes(directory.path());
        let mut used_full = 0;
        runtime.block_on(async {
            let url = format!("tcp://{}", node.data).parse().expect("a URL");
            let client = Client::builder([url]).build().expect("a client");
            for round in 0..3_u64 {
                for n in 0..count {
                    // No two alike, and nothing that a disk could compress.
                    let content = noise(round * count + n, MIB as usize);
                    let stored =
                        client.put_blob_bytes(format!("blob-{n}"), &BlobOptions::default(), content).await;
                    stored.expect("the disk takes it");
                }
            }
            used_full = disk_bytes(directory.path());
            for n in count / 10..count {
                assert!(client.delete_blob(format!("blob-{n}")).await.expect("it deletes"));
            }
        });
        admin(&node, "compact");
        let (live, used) = (count / 10 * MIB, disk_bytes(directory.path()));
        let mib = |bytes: u64| bytes as f64 / MIB as f64;
        println!(
            "{backend:<6} empty {:.1} MiB, all of {megabytes} MiB {:.1} MiB, in the end {:.1} MiB for {:.0} MiB: {:.3}",
            mib(used_before),
            mib(used_full),
            mib(used),
            mib(live),
            used as f64 / live as f64
        );
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    use rand::{Rng, SeedableRng};
    let mut bytes = vec![0; length];
    rand::rngs::SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// What a directory takes on the disk, in whole blocks.
fn disk_bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("the directory is ours");
    let bytes = entries.filter_map(Result::ok).filter_map(|entry| {
        // A file may go meanwhile.
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { disk_bytes(&entry.path()) } else { metadata.blocks() * 512 })
    });
    bytes.sum()
}
