//! The hit ratio of every policy on recorded traces, each alone with entries of weight 1, beside that of the
//! textbook's policy from `REFERENCE.csv`.
//!
//! `cargo bench --bench hit_ratio [-- --policy NAME]… [--trace NAME]… [--seed N] [--json FILE] [--quick]`. Traces lie in
//! ../shared/traces, or in the folder that `LARDER_TRACES` names:
//!
//! ```text
//!  NAME.u64.zst    ┌─────────┐┌─────────┐…      NAME.u64s.zst   ┌─────────┬──────────┐…
//!  (zstd)          │ key u64 ││ key u64 │       (zstd)          │ key u64 │ size u64 │   sizes are not used
//!                  └─────────┘└─────────┘                       └─────────┴──────────┘   little-endian
//! ```
//!
//! `REFERENCE.csv` has a row for each trace and capacity, a column for each policy. Without one, capacities are
//! 0.1, 1 and 10 % of the trace's distinct keys. A policy is marked where it is out of its bounds: `lru` and
//! `fifo` equal the reference within 0.1 point, the others fall short of theirs by half a point at most. `adaptive`
//! is held against the best of `lru`, `s3fifo`, `arc` and `wtinylfu_climb` in each row: at most a point below it, or
//! three on traces of less than 50,000 requests; and its summary says how much of the way from `lru` to the optimum
//! it goes over all rows. `--seed N` hashes keys otherwise: sampling makes `adaptive` differ a little by it.

mod support;

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::hash::BuildHasher;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use larder::engine::PolicyName;
use larder::engine::simulate::Simulation;
use support::{headline, quick};

/// Traces are compressed with windows of up to 2^27 B; zstd refuses more than that unless told.
const WINDOW_LOG_MAX: u32 = 31;
/// Parts of a trace's distinct keys that are its capacities, where nothing says other ones.
const CAPACITY_PARTS: [usize; 3] = [1_000, 100, 10];
/// Threads that simulate.
const THREADS: usize = 2;
/// The same in every run that asks for no other, so that figures repeat.
const HASH_SEED: u64 = 11;
/// Traces of fewer requests are too short for `adaptive` to learn much.
const REQUESTS_OF_SHORT: usize = 50_000;

fn main() {
    let options = Options::parse();
    headline("hit ratios of the policies on recorded traces, capacity in entries");
    println!("traces   {}", options.folder.display());
    let traces = options.traces();
    if traces.is_empty() {
        println!(
            "SKIPPED  there are no traces there; LARDER_TRACES=DIR names another folder of NAME.u64.zst files"
        );
        return;
    }
    let reference = Reference::read(&options.folder.join("REFERENCE.csv"));
    if reference.0.is_empty() {
        println!("note     no REFERENCE.csv there: no differences, and capacities by distinct keys");
    }
    println!(
        "bounds   lru, fifo ±0.1 point; others at most 0.5 below; OUT where not; reference in brackets\n"
    );
    let mut results = Vec::new();
    for (name, path) in traces {
        let keys = read_trace(&path, options.seed);
        for capacity_entries in reference.capacities(&name).unwrap_or_else(|| capacities(&keys)) {
            let ratios = simulate(&options.policies, capacity_entries, &keys);
            for (policy, hit_ratio) in options.policies.iter().zip(ratios) {
                let known = reference.hit_ratio(&name, capacity_entries, *policy);
                results.push(Row {
                    trace: name.clone(),
                    capacity_entries,
                    requests: keys.len(),
                    policy: *policy,
                    hit_ratio,
                    known,
                });
            }
            print_row(&results[results.len() - options.policies.len()..]);
        }
    }
    print_summary(&options.policies, &results, &reference);
    if let Some(path) = options.json {
        let rows: Vec<_> = results.iter().map(Row::json).collect();
        let text = serde_json::to_string_pretty(&rows).expect("rows are plain");
        std::fs::write(&path, text)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
}

/// What the command line and the environment ask for.
struct Options {
    folder: PathBuf,
    policies: Vec<PolicyName>,
    /// Empty: all.
    traces: Vec<String>,
    seed: u64,
    json: Option<PathBuf>,
}

impl Options {
    fn parse() -> Self {
        let shared = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/traces");
        let folder = std::env::var_os("LARDER_TRACES").map_or_else(|| shared.into(), PathBuf::from);
        let mut options =
            Self { folder, policies: Vec::new(), traces: Vec::new(), seed: HASH_SEED, json: None };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
            match arg.as_str() {
                "--policy" => {
                    options
                        .policies
                        .push(value().parse().unwrap_or_else(|error| panic!("--policy: {error}")));
                }
                "--trace" => options.traces.push(value()),
                "--seed" => {
                    options.seed = value().parse().unwrap_or_else(|error| panic!("--seed: {error}"));
                }
                "--json" => options.json = Some(value().into()),
                // Cargo says the first to every benchmark; the second is asked below.
                "--bench" | "--quick" => {}
                other => {
                    panic!(
                        "there is no option {other:?}; there are --policy, --trace, --seed, --json and --quick"
                    )
                }
            }
        }
        if options.policies.is_empty() {
            options.policies = PolicyName::ALL.to_vec();
        }
        options
    }

    /// The traces' names and files, by name.
    fn traces(&self) -> BTreeMap<String, PathBuf> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let named = entries.filter_map(|entry| {
            let file = entry.file_name().into_string().ok()?;
            let name = file.strip_suffix(".u64.zst").or_else(|| file.strip_suffix(".u64s.zst"))?;
            if quick() && entry.metadata().ok()?.len() > QUICK_BYTES_MAX {
                return None;
            }
            Some((name.to_owned(), entry.path()))
        });
        named.filter(|(name, _)| self.traces.is_empty() || self.traces.contains(name)).collect()
    }
}

/// The files that a short run (`--quick`) reads.
const QUICK_BYTES_MAX: u64 = 20_000;

/// The keys of a trace, hashed.
fn read_trace(path: &Path, seed: u64) -> Vec<u64> {
    let read = || {
        let mut decoder = zstd::stream::read::Decoder::new(File::open(path)?)?;
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        let mut bytes = Vec::new();
        decoder.read_to_end(&mut bytes).map(|_| bytes)
    };
    let bytes =
        read().unwrap_or_else(|error: std::io::Error| panic!("cannot read {}: {error}", path.display()));
    let request_bytes = if path.to_string_lossy().ends_with(".u64s.zst") { 16 } else { 8 };
    let hasher = foldhash::quality::FixedState::with_seed(seed);
    let key = |request: &[u8]| u64::from_le_bytes(request[..8].try_into().expect("a request has a key"));
    bytes.chunks_exact(request_bytes).map(|request| hasher.hash_one(key(request))).collect()
}

fn capacities(keys: &[u64]) -> Vec<usize> {
    let distinct = keys.iter().collect::<HashSet<_>>().len();
    CAPACITY_PARTS.map(|part| (distinct / part).max(1)).to_vec()
}

/// Each policy's hit ratio, in their order.
fn simulate(policies: &[PolicyName], capacity_entries: usize, keys: &[u64]) -> Vec<f64> {
    let next = AtomicUsize::new(0);
    let ratios = Mutex::new(vec![0.0; policies.len()]);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(policy) = policies.get(at) else { return };
                    let mut simulation = Simulation::new(*policy, capacity_entries);
                    let hits = keys.iter().filter(|key| simulation.request(**key)).count();
                    let ratio = hits as f64 / keys.len().max(1) as f64;
                    ratios.lock().unwrap_or_else(PoisonError::into_inner)[at] = ratio;
                }
            });
        }
    });
    ratios.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// One policy on one trace at one capacity.
struct Row {
    trace: String,
    capacity_entries: usize,
    requests: usize,
    policy: PolicyName,
    hit_ratio: f64,
    /// The reference's.
    known: Option<f64>,
}

impl Row {
    fn points(&self) -> Option<f64> {
        self.known.map(|known| (self.hit_ratio - known) * 100.0)
    }

    fn is_out(&self) -> bool {
        let (below, above) = match self.policy {
            PolicyName::Lru | PolicyName::Fifo => (0.1, 0.1),
            PolicyName::Adaptive if self.requests < REQUESTS_OF_SHORT => (3.0, f64::INFINITY),
            PolicyName::Adaptive => (1.0, f64::INFINITY),
            _ => (0.5, f64::INFINITY),
        };
        self.points().is_some_and(|points| points < -below || points > above)
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "trace": self.trace,
            "capacity": self.capacity_entries,
            "policy": self.policy.as_str(),
            "hit_ratio": self.hit_ratio,
        })
    }
}

/// All policies of one trace and capacity.
fn print_row(row: &[Row]) {
    let Some(first) = row.first() else { return };
    println!("{} at {} entries", first.trace, first.capacity_entries);
    for result in row {
        print!("  {:<10} {:.4}", result.policy.as_str(), result.hit_ratio);
        if let (Some(known), Some(points)) = (result.known, result.points()) {
            print!(" [{known:.4}] {points:+.2}{}", if result.is_out() { " OUT" } else { "" });
        }
        println!();
    }
}

fn print_summary(policies: &[PolicyName], results: &[Row], reference: &Reference) {
    println!("\npolicy      worst   mean   best   way from lru to opt   out of bounds");
    for policy in policies {
        let of: Vec<&Row> = results.iter().filter(|row| row.policy == *policy).collect();
        let points: Vec<f64> = of.iter().filter_map(|row| row.points()).collect();
        if points.is_empty() {
            continue;
        }
        let worst = points.iter().copied().fold(f64::INFINITY, f64::min);
        let best = points.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mean = points.iter().sum::<f64>() / points.len() as f64;
        let out = of.iter().filter(|row| row.is_out()).count();
        let way =
            reference.way_to_optimum(&of).map_or_else(String::new, |way| format!("{:.1} %", way * 100.0));
        let (name, rows) = (policy.as_str(), points.len());
        println!("{name:<10} {worst:>+6.2} {mean:>+6.2} {best:>+6.2} {way:>21}   {out} of {rows}");
    }
}

/// Hit ratios that somebody else measured, by trace and capacity, then by column.
struct Reference(BTreeMap<(String, usize), BTreeMap<String, f64>>);

impl Reference {
    /// An empty one where there is no file.
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut lines = text.lines().map(|line| line.split(',').map(str::trim));
        let head: Vec<&str> = lines.next().into_iter().flatten().collect();
        let rows = lines.filter_map(|line| {
            let cells: BTreeMap<&str, &str> = head.iter().copied().zip(line).collect();
            let key = (cells.get("trace")?.to_string(), cells.get("capacity_entries")?.parse().ok()?);
            let ratio = |(name, cell): (&&str, &&str)| Some((name.to_string(), cell.parse().ok()?));
            Some((key, cells.iter().filter_map(ratio).collect()))
        });
        Self(rows.collect())
    }

    /// None where it does not know the trace.
    fn capacities(&self, trace: &str) -> Option<Vec<usize>> {
        let known: Vec<usize> = self.0.keys().filter(|key| key.0 == trace).map(|key| key.1).collect();
        (!known.is_empty()).then_some(known)
    }

    fn hit_ratio(&self, trace: &str, capacity_entries: usize, policy: PolicyName) -> Option<f64> {
        let columns: &[&str] = match policy {
            PolicyName::S3Fifo => &["s3fifo"],
            PolicyName::WTinyLfu => &["wtinylfu_climb"],
            PolicyName::Adaptive => &["lru", "s3fifo", "arc", "wtinylfu_climb"],
            other => &[other.as_str()],
        };
        let ratios = columns.iter().filter_map(|column| self.column(trace, capacity_entries, column));
        ratios.reduce(f64::max)
    }

    fn column(&self, trace: &str, capacity_entries: usize, column: &str) -> Option<f64> {
        self.0.get(&(trace.to_owned(), capacity_entries))?.get(column).copied()
    }

    /// The part of the way from `lru` to the optimum that a policy goes, over all its rows.
    fn way_to_optimum(&self, rows: &[&Row]) -> Option<f64> {
        let (mut gained, mut possible) = (0.0, 0.0);
        for row in rows {
            let lru = self.column(&row.trace, row.capacity_entries, "lru")?;
            gained += row.hit_ratio - lru;
            possible += self.column(&row.trace, row.capacity_entries, "opt")? - lru;
        }
        (possible > 0.0).then_some(gained / possible)
    }
}
