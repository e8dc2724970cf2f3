//! What a run came to: for people, for scripts, for HdrHistogram's tools.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::plan::{LoadPattern, Mode, Plan};
use super::run::Results;
use super::watchers::Watched;
use crate::cli::exit::{CliError, local};
use crate::cli::facts::{Fact, Group, hit_ratio, lines, listing};
use crate::cli::global::Global;
use crate::cli::output::{colours, print_json, print_raw};

const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

pub(super) fn show(
    global: &Global,
    plan: &Plan,
    results: &Results,
    watched: Option<&Watched>,
) -> Result<(), CliError> {
    let latencies = latencies(results);
    if global.json() {
        return print_json(&document(plan, results, &latencies, watched));
    }
    let mut groups = vec![machine(), load(plan), throughput(plan, results)];
    groups.extend(watched.map(watching));
    if io::stdout().is_terminal() {
        let text = format!("{}{}\n", listing(&groups, colours(&io::stdout())), table(&latencies));
        return print_raw(text.as_bytes());
    }
    for (name, facts) in &latencies {
        let facts =
            facts.iter().map(|(fact, us)| (format!("latency_us.{name}.{fact}"), Fact::Real(*us))).collect();
        groups.push(Group { title: "Latency", facts });
    }
    print_raw(lines(&groups).as_bytes())
}

/// The distribution in the text form of HdrHistogram (`.hgrm`), in microseconds.
pub(super) fn write_histogram(path: &Path, results: &Results) -> Result<(), CliError> {
    let all = all(results);
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    for step in all.iter_quantiles(5) {
        let quantile = step.quantile_iterated_to();
        let tail = if quantile < 1.0 { format!("{:.2}", 1.0 / (1.0 - quantile)) } else { "inf".to_owned() };
        let _ = writeln!(
            text,
            "{:12.3} {quantile:.12} {:10} {tail:>14}",
            step.value_iterated_to() as f64 / 1_000.0,
            step.count_since_last_iteration(),
        );
    }
    let _ = writeln!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n#[Max     = {:12.3}, Total count    = {:12}]",
        all.mean() / 1_000.0,
        all.stdev() / 1_000.0,
        all.max() as f64 / 1_000.0,
        all.len()
    );
    std::fs::write(path, text).map_err(local(format!("cannot write {}", path.display())))
}

type Latencies = Vec<(&'static str, Vec<(&'static str, f64)>)>;

/// Percentiles in microseconds, of gets, sets and both; what did not occur is left out.
fn latencies(results: &Results) -> Latencies {
    let all = all(results);
    let mut latencies = Vec::new();
    for (name, histogram) in [("all", &all), ("get", &results.gets), ("set", &results.sets)] {
        if histogram.is_empty() {
            continue;
        }
        let us = |ns: u64| ns as f64 / 1_000.0;
        let mut facts: Vec<_> =
            QUANTILES.iter().map(|(name, q)| (*name, us(histogram.value_at_quantile(*q)))).collect();
        facts.push(("max", us(histogram.max())));
        facts.push(("mean", histogram.mean() / 1_000.0));
        latencies.push((name, facts));
    }
    latencies
}

fn all(results: &Results) -> Histogram<u64> {
    let mut all = results.gets.clone();
    // Both have the same bounds, so this cannot fail; if it did, gets alone would be shown.
    let _ = all.add(&results.sets);
    all
}

fn table(latencies: &Latencies) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    let names = QUANTILES.iter().map(|(name, _)| *name).chain(["max", "mean"]);
    table.set_header(std::iter::once("latency, µs").chain(names));
    for (name, facts) in latencies {
        let cells = facts.iter().map(|(_, us)| format!("{us:.1}"));
        table.add_row(std::iter::once((*name).to_owned()).chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn command_line() -> String {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn machine() -> Group {
    let facts = vec![
        ("command".to_owned(), Fact::Text(command_line())),
        ("cpu".to_owned(), Fact::Text(cpu_model())),
        ("cores".to_owned(), Fact::Count(cores())),
        ("kernel".to_owned(), Fact::Text(kernel())),
    ];
    Group { title: "Machine", facts }
}

fn load(plan: &Plan) -> Group {
    let mut facts = vec![
        ("mode".to_owned(), Fact::Text(mode(plan).to_owned())),
        ("threads".to_owned(), Fact::Count(plan.threads as u64)),
        ("connections".to_owned(), Fact::Count(plan.connections as u64)),
        ("callers_per_connection".to_owned(), Fact::Count(plan.callers as u64)),
        ("keys_per_call".to_owned(), Fact::Count(plan.items as u64)),
    ];
    if let Mode::Pipeline { depth } = plan.mode {
        facts.push(("depth".to_owned(), Fact::Count(depth as u64)));
    }
    if let LoadPattern::Open { keys_per_s, .. } = plan.pace {
        facts.push(("keys_per_s_intended".to_owned(), Fact::Count(keys_per_s)));
    }
    Group { title: "Load", facts }
}

fn throughput(plan: &Plan, results: &Results) -> Group {
    let per_s = |count: u64| count as f64 / results.elapsed.max(Duration::from_nanos(1)).as_secs_f64();
    let mut facts = vec![
        ("elapsed_s".to_owned(), Fact::Real(results.elapsed.as_secs_f64())),
        ("keys".to_owned(), Fact::Count(results.keys())),
        ("keys_per_s".to_owned(), Fact::Real(per_s(results.keys()))),
        ("calls".to_owned(), Fact::Count(results.calls)),
        ("calls_per_s".to_owned(), Fact::Real(per_s(results.calls))),
        ("hits".to_owned(), Fact::Count(results.hits)),
        ("misses".to_owned(), Fact::Count(results.misses)),
        ("hit_ratio".to_owned(), Fact::Ratio(hit_ratio(results.hits, results.misses))),
        ("stored".to_owned(), Fact::Count(results.stored)),
        ("not_stored".to_owned(), Fact::Count(results.not_stored)),
        ("errors".to_owned(), Fact::Count(results.errors.values().sum())),
    ];
    for (code, count) in &results.errors {
        facts.push((format!("errors_by_code.{code}"), Fact::Count(*count)));
    }
    if plan.pace != LoadPattern::Closed {
        facts.push(("unsent_calls".to_owned(), Fact::Count(results.unsent)));
    }
    Group { title: "Throughput", facts }
}

/// What watchers were told meanwhile.
fn watching(watched: &Watched) -> Group {
    let mut facts = vec![
        ("watch.watchers".to_owned(), Fact::Count(watched.watchers as u64)),
        ("watch.events".to_owned(), Fact::Count(watched.events)),
        ("watch.discontinuities".to_owned(), Fact::Count(watched.discontinuities)),
    ];
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let us = watched.propagation_us.value_at_quantile(quantile);
        facts.push((format!("watch.propagation_us_{name}"), Fact::Count(us)));
    }
    Group { title: "Watch", facts }
}

fn document(plan: &Plan, results: &Results, latencies: &Latencies, watched: Option<&Watched>) -> Value {
    let facts = |group: Group| crate::cli::facts::json(&[group]);
    let latency: Map<String, Value> = latencies
        .iter()
        .map(|(name, facts)| {
            let object: Map<String, Value> =
                facts.iter().map(|(name, us)| ((*name).to_owned(), Value::from(*us))).collect();
            ((*name).to_owned(), Value::Object(object))
        })
        .collect();
    let mut document = json!({
        "machine": facts(machine()),
        "load": facts(load(plan)),
        "throughput": facts(throughput(plan, results)),
        "latency_us": latency,
    });
    if let (Some(watched), Some(document)) = (watched, document.as_object_mut()) {
        document.extend(facts(watching(watched)));
    }
    document
}

fn mode(plan: &Plan) -> &'static str {
    match plan.mode {
        Mode::Unary => "unary",
        Mode::Batch => "batch",
        Mode::Pipeline { .. } => "pipeline",
    }
}

fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, model)| model.trim().to_owned())
}

fn cores() -> u64 {
    std::thread::available_parallelism().map_or(0, |cores| cores.get() as u64)
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {}", std::env::consts::OS, release.trim()).trim_end().to_owned()
}
