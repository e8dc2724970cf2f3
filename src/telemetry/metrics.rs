//! Every metric: its name, its unit (last in the name) and what it means; and their Prometheus text.
//!
//! The engine's figures are read once per scrape, through a closure, so that they are of one moment and the same
//! as GetStats shows. No label carries a key: labels are bounded by what the program knows, and by the namespaces,
//! which operators create. What counts for a namespace has a name of its own, so that sums count nothing twice.
//!
//! | name | labels | figure of GetStats |
//! |---|---|---|
//! | larder_hits_total, larder_sets_total … | | hits, sets … |
//! | larder_misses_total | reason | misses_by_reason |
//! | larder_namespace_hits_total, larder_namespace_bytes_used … | namespace ("" is the default one) | namespaces |
//! | larder_estimate_hit_ratio … | namespace, policy: what `adaptive` tries | policy_estimates |
//! | larder_rpc_calls_total | method, code | |
//! | larder_rpc_duration_seconds (histogram) | method | |
//! | larder_node_state: 1 for the state that holds, 0 for the others | state | state |

use std::fmt;
use std::sync::Arc;

use tonic::Code;

use super::calls::{CODES, CallMetrics, Calls, bucket_bound_seconds};
use super::exposition::{Exposition, Format, Kind, Label, Value};
use super::node_stats::{DiskFigures, JournalFigures, NODE_STATES, NodeStats};
use super::process;
use crate::engine::{MissReason, NamespaceReport, PolicyEstimate};
use crate::proto::code_name;
use crate::verb::Verb;

/// The buckets that are shown of those that are counted: to 512 µs an octave each, then two octaves, to 4.2 s.
const BUCKETS_SHOWN: [usize; 14] = [4, 8, 10, 12, 14, 16, 18, 20, 24, 28, 32, 36, 40, 44];

const RPC_CALLS: (&str, &str) = ("larder_rpc_calls_total", "Calls that ended, by method and status code");
const RPC_DURATION: (&str, &str) = ("larder_rpc_duration_seconds", "How long calls took, by method");
const HITS: (&str, &str) = ("larder_hits_total", "Lookups that found an entry");
const MISSES: (&str, &str) = ("larder_misses_total", "Lookups that found none, by reason");
const SETS: (&str, &str) = ("larder_sets_total", "Sets that stored");
const SETS_NOT_STORED: (&str, &str) =
    ("larder_sets_not_stored_total", "Sets whose condition did not hold, or whose time had passed");
const SETS_REFUSED: (&str, &str) =
    ("larder_sets_refused_total", "Sets and increments that were refused because the entry does not fit");
const DELETES: (&str, &str) = ("larder_deletes_total", "Deletes that removed an entry");
const INCREMENTS: (&str, &str) =
    ("larder_increments_total", "Increments and decrements that changed a counter");
const TOUCHES: (&str, &str) = ("larder_touches_total", "Touches, also by a Get, that found an entry");
const EVICTIONS: (&str, &str) = ("larder_evictions_total", "Entries that the policy gave up for others");
const EXPIRATIONS: (&str, &str) =
    ("larder_expirations_total", "Entries that were reclaimed after their time to live");
const INVALIDATED: (&str, &str) = (
    "larder_invalidated_total",
    "Entries that an invalidation or a Clear covered, counted when they are swept",
);
const ENTRIES: (&str, &str) = ("larder_entries", "Entries in memory");
const BYTES_USED: (&str, &str) = ("larder_bytes_used", "Bytes charged to the limit");
const BYTES_SPARE: (&str, &str) = ("larder_bytes_spare", "Of the bytes charged, those that hold no entry");
const BYTES_LIMIT: (&str, &str) = ("larder_bytes_limit", "The limit on bytes");
const NAMESPACE_HITS: (&str, &str) =
    ("larder_namespace_hits_total", "Lookups in the namespace that found an entry");
const NAMESPACE_MISSES: (&str, &str) =
    ("larder_namespace_misses_total", "Lookups in the namespace that found none, by reason");
const NAMESPACE_SETS: (&str, &str) = ("larder_namespace_sets_total", "Sets in the namespace that stored");
const NAMESPACE_EVICTIONS: (&str, &str) =
    ("larder_namespace_evictions_total", "Entries of the namespace that the policy gave up for others");
const NAMESPACE_EXPIRATIONS: (&str, &str) = (
    "larder_namespace_expirations_total",
    "Entries of the namespace that were reclaimed after their time to live",
);
const NAMESPACE_INVALIDATED: (&str, &str) = (
    "larder_namespace_invalidated_total",
    "Entries of the namespace that an invalidation or a Clear covered, counted when they are swept",
);
const NAMESPACE_ENTRIES: (&str, &str) =
    ("larder_namespace_entries", "Entries of the namespace that are in memory");
const NAMESPACE_BYTES_USED: (&str, &str) =
    ("larder_namespace_bytes_used", "Bytes that the namespace's entries are charged");
const NAMESPACE_BYTES_LIMIT: (&str, &str) =
    ("larder_namespace_bytes_limit", "The namespace's cap, 0 for none; of the default one the node's limit");
const ESTIMATE_HIT_RATIO: (&str, &str) = (
    "larder_estimate_hit_ratio",
    "The hit ratio that a policy which adaptive tries would have had in the namespace of late",
);
const ESTIMATE_LOOKUPS: (&str, &str) =
    ("larder_estimate_lookups", "On how many lookups the estimate of a policy rests");
const ESTIMATE_LEADER: (&str, &str) = (
    "larder_estimate_leader",
    "1 for the policy that adaptive follows in the namespace, 0 for the others it tries",
);
const RESIDENT_BYTES: (&str, &str) = ("larder_resident_bytes", "Resident memory of the process, in bytes");
const CONNECTIONS: (&str, &str) = ("larder_connections", "Open connections on the data listeners");
const REQUESTS_IN_FLIGHT: (&str, &str) =
    ("larder_requests_in_flight", "Calls that wait; one that is done at once never does");
const RESPONSE_BACKLOG: (&str, &str) =
    ("larder_response_backlog_bytes", "Bytes of answers that clients have yet to read");
const WATCHERS: (&str, &str) = ("larder_watchers", "Watch streams that are open");
const WATCH_EVENTS: (&str, &str) =
    ("larder_watch_events_total", "Events that were noted, while anybody watches or has of late");
const WATCH_DISCONTINUITIES: (&str, &str) =
    ("larder_watch_discontinuities_total", "Times that a watcher was told that events are missing");
const WATCH_LOG: (&str, &str) = ("larder_watch_log_bytes", "Bytes of events that are kept for watchers");
const REQUESTS_SHED: (&str, &str) =
    ("larder_requests_shed_total", "Calls that were turned away because of overload or quota");
const LOG_LINES_LOST: (&str, &str) =
    ("larder_log_lines_lost_total", "Log lines that stderr did not take, and that nobody waited for");
const JOURNAL_POSITION: (&str, &str) =
    ("larder_journal_position", "Records that were ever journaled: the journal's newest position");
const JOURNAL_SYNCED: (&str, &str) =
    ("larder_journal_synced_position", "The position up to which the journal is synced");
const JOURNAL_POISONED: (&str, &str) =
    ("larder_journal_poisoned", "1 while every write is refused because the disk failed, 0 else");
const JOURNAL_BYTES: (&str, &str) = ("larder_journal_bytes_total", "Bytes that were written to the journal");
const JOURNAL_SYNCS: (&str, &str) = ("larder_journal_syncs_total", "Syncs of the journal");
const JOURNAL_SYNC_SECONDS: (&str, &str) =
    ("larder_journal_sync_seconds_total", "How long the journal's syncs took together");
const DISK_BYTES: (&str, &str) = ("larder_disk_bytes", "Bytes on disk, blobs included");
const RECOVERY_DAMAGES: (&str, &str) =
    ("larder_recovery_damages", "Places on disk that were found damaged when the node started");
const SNAPSHOTS: (&str, &str) = ("larder_snapshots_total", "Snapshots that were taken");
const SNAPSHOTS_FAILED: (&str, &str) = (
    "larder_snapshots_failed_total",
    "Snapshots that could not be taken, as the disk refused or had no room",
);
const SNAPSHOT_AGE: (&str, &str) = ("larder_snapshot_age_seconds", "How old the newest snapshot is");
const DISK_ENTRIES: (&str, &str) = (
    "larder_disk_entries",
    "Entries that can be read from disk: with mode store, and while a lazy recovery goes on",
);
const DISK_HITS: (&str, &str) = ("larder_disk_hits_total", "Lookups on disk that found an entry");
const DISK_MISSES: (&str, &str) = ("larder_disk_misses_total", "Lookups on disk that found none");
const DISK_DAMAGED: (&str, &str) =
    ("larder_disk_damaged_total", "Lookups on disk that found a damaged entry, which is a miss");
const NODE_STATE: (&str, &str) =
    ("larder_node_state", "1 for the state that the node is in, 0 for the others");
const UPTIME: (&str, &str) = ("larder_uptime_seconds", "How long the process has run");
const BUILD_INFO: (&str, &str) = ("larder_build_info", "Always 1; the version of the program");
const POLICY_INFO: (&str, &str) = ("larder_policy_info", "Always 1; the eviction policy in force");
const PROCESS_CPU: (&str, &str) =
    ("process_cpu_seconds_total", "Processor time of the process, user and system");
const PROCESS_START: (&str, &str) =
    ("process_start_time_seconds", "When the process started, in seconds since 1970-01-01 UTC");
const PROCESS_RESIDENT: (&str, &str) =
    ("process_resident_memory_bytes", "Resident memory of the process; the name that dashboards know");
const PROCESS_VIRTUAL: (&str, &str) = ("process_virtual_memory_bytes", "Virtual memory of the process");
const PROCESS_FDS: (&str, &str) = ("process_open_fds", "Open file descriptors");
const PROCESS_FDS_MAX: (&str, &str) = ("process_max_fds", "How many file descriptors may be open");

/// The node's metrics, ready to be scraped.
pub(crate) struct Metrics {
    calls: Arc<CallMetrics>,
    snapshot: Box<dyn Fn() -> NodeStats + Send + Sync>,
}

impl Metrics {
    /// Metrics of these calls and of what `snapshot` says at each scrape.
    #[must_use]
    pub(crate) fn new(
        calls: Arc<CallMetrics>,
        snapshot: impl Fn() -> NodeStats + Send + Sync + 'static,
    ) -> Self {
        Self { calls, snapshot: Box::new(snapshot) }
    }

    /// All metrics as text. Cost: one snapshot, and some microseconds for each namespace and for each method that was
    /// ever called; with a thousand namespaces that is no work for a thread that must stay quick.
    #[must_use]
    pub(crate) fn text(&self, format: Format) -> String {
        let snapshot = (self.snapshot)();
        let mut page = Page { text: Exposition::new(format) };
        page.engine(&snapshot);
        page.namespaces(&snapshot.namespaces);
        page.node(&snapshot);
        page.process();
        let calls: Vec<Calls> = Verb::ALL
            .into_iter()
            .map(|verb| self.calls.calls(verb))
            .filter(|calls| calls.total() > 0)
            .collect();
        page.calls(&calls);
        page.text.finish()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("calls", &self.calls).finish_non_exhaustive()
    }
}

struct Page {
    text: Exposition,
}

impl Page {
    fn engine(&mut self, snapshot: &NodeStats) {
        let stats = &snapshot.stats;
        self.counter(HITS, stats.hits);
        let misses = MissReason::ALL.map(|reason| ([("reason", reason.as_str())], stats.misses_for(reason)));
        self.counters(MISSES, misses);
        self.counter(SETS, stats.sets);
        self.counter(SETS_NOT_STORED, stats.not_stored);
        self.counter(SETS_REFUSED, stats.refusals);
        self.counter(DELETES, stats.deletes);
        self.counter(INCREMENTS, stats.increments);
        self.counter(TOUCHES, stats.touches);
        self.counter(EVICTIONS, stats.evictions);
        self.counter(EXPIRATIONS, stats.expirations);
        self.counter(INVALIDATED, stats.invalidated);
        self.gauge(ENTRIES, stats.entries);
        self.gauge(BYTES_USED, stats.bytes_used);
        self.gauge(BYTES_SPARE, stats.bytes_spare);
        self.gauge(BYTES_LIMIT, stats.bytes_limit);
        self.gauges(POLICY_INFO, [([("policy", snapshot.policy.as_str())], 1)]);
    }

    fn namespaces(&mut self, namespaces: &[NamespaceReport]) {
        let each = |figure: fn(&NamespaceReport) -> u64| {
            namespaces.iter().map(move |report| ([("namespace", &*report.config.name)], figure(report)))
        };
        self.counters(NAMESPACE_HITS, each(|report| report.stats.hits));
        // With many namespaces most of the lines would say 0.
        let misses = namespaces.iter().flat_map(|report| {
            let reasons = MissReason::ALL.map(|reason| (reason.as_str(), report.stats.misses_for(reason)));
            let missed = reasons.into_iter().filter(|(_, count)| *count > 0);
            missed.map(|(reason, count)| ([("namespace", &*report.config.name), ("reason", reason)], count))
        });
        self.counters(NAMESPACE_MISSES, misses);
        self.counters(NAMESPACE_SETS, each(|report| report.stats.sets));
        self.counters(NAMESPACE_EVICTIONS, each(|report| report.stats.evictions));
        self.counters(NAMESPACE_EXPIRATIONS, each(|report| report.stats.expirations));
        self.counters(NAMESPACE_INVALIDATED, each(|report| report.stats.invalidated));
        self.gauges(NAMESPACE_ENTRIES, each(|report| report.stats.entries));
        self.gauges(NAMESPACE_BYTES_USED, each(|report| report.stats.bytes_used));
        self.gauges(NAMESPACE_BYTES_LIMIT, each(|report| report.config.bytes_limit));
        self.estimates(namespaces);
    }

    /// Only of namespaces whose policy is adaptive, and a ratio only once there is something that it is of.
    fn estimates(&mut self, namespaces: &[NamespaceReport]) {
        let all = || {
            namespaces.iter().flat_map(|report| {
                report.estimates.iter().map(|estimate| (labels(report, estimate), estimate))
            })
        };
        let known = all().filter(|(_, estimate)| estimate.lookups > 0);
        self.gauges(ESTIMATE_HIT_RATIO, known.map(|(labels, estimate)| (labels, estimate.hit_ratio)));
        self.gauges(ESTIMATE_LOOKUPS, all().map(|(labels, estimate)| (labels, estimate.lookups)));
        self.gauges(ESTIMATE_LEADER, all().map(|(labels, estimate)| (labels, u64::from(estimate.leader))));
    }

    fn journal(&mut self, journal: &JournalFigures) {
        self.gauge(JOURNAL_POSITION, journal.position);
        self.gauge(JOURNAL_SYNCED, journal.synced_position);
        self.gauge(JOURNAL_POISONED, u64::from(journal.poisoned));
        self.counter(JOURNAL_BYTES, journal.bytes);
        self.counter(JOURNAL_SYNCS, journal.syncs);
        self.counter(JOURNAL_SYNC_SECONDS, journal.sync_time.as_secs_f64());
    }

    fn disk(&mut self, disk: &DiskFigures) {
        self.gauge(DISK_BYTES, disk.bytes);
        self.gauge(RECOVERY_DAMAGES, disk.damages);
        self.counter(SNAPSHOTS, disk.snapshots);
        self.counter(SNAPSHOTS_FAILED, disk.snapshots_failed);
        if let Some(age) = disk.snapshot_age {
            self.gauge(SNAPSHOT_AGE, age.as_secs_f64());
        }
    }

    fn node(&mut self, snapshot: &NodeStats) {
        self.gauge(CONNECTIONS, snapshot.connections);
        self.gauge(REQUESTS_IN_FLIGHT, snapshot.requests_in_flight);
        self.gauge(RESPONSE_BACKLOG, snapshot.response_backlog_bytes);
        self.gauge(WATCHERS, snapshot.watchers);
        self.counter(WATCH_EVENTS, snapshot.watch_events);
        self.counter(WATCH_DISCONTINUITIES, snapshot.watch_discontinuities);
        self.gauge(WATCH_LOG, snapshot.watch_log_bytes);
        self.counter(REQUESTS_SHED, snapshot.requests_shed);
        self.counter(LOG_LINES_LOST, snapshot.log_lines_lost);
        if let Some(journal) = &snapshot.journal {
            self.journal(journal);
        }
        if let Some(disk) = &snapshot.disk {
            self.disk(disk);
        }
        if let Some(tier) = &snapshot.disk_tier {
            self.gauge(DISK_ENTRIES, tier.entries);
            self.counter(DISK_HITS, tier.hits);
            self.counter(DISK_MISSES, tier.misses);
            self.counter(DISK_DAMAGED, tier.damaged);
        }
        let states = NODE_STATES.map(|state| ([("state", state)], u64::from(state == snapshot.state)));
        self.gauges(NODE_STATE, states);
        self.gauges(BUILD_INFO, [([("version", env!("CARGO_PKG_VERSION"))], 1)]);
        self.gauge(UPTIME, snapshot.uptime.as_secs_f64());
        if snapshot.resident_bytes > 0 {
            self.gauge(RESIDENT_BYTES, snapshot.resident_bytes);
        }
    }

    /// Under the names that all of Prometheus' libraries give to these.
    fn process(&mut self) {
        let process = process::figures();
        self.counter(PROCESS_CPU, process.cpu_time.as_secs_f64());
        let gauges = [
            (PROCESS_START, process.started_unix_seconds.map(Value::from)),
            (PROCESS_RESIDENT, process.resident_bytes.map(Value::from)),
            (PROCESS_VIRTUAL, process.virtual_bytes.map(Value::from)),
            (PROCESS_FDS, process.open_descriptors.map(Value::from)),
            (PROCESS_FDS_MAX, process.descriptors_max.map(Value::from)),
        ];
        for (name, value) in gauges {
            if let Some(value) = value {
                self.gauge(name, value);
            }
        }
    }

    fn calls(&mut self, calls: &[Calls]) {
        let counts = calls.iter().flat_map(|calls| {
            let coded = (0..CODES).filter(|code| calls.codes[*code] > 0);
            coded.map(|code| {
                let labels = [
                    ("method", calls.verb.as_str()),
                    ("code", code_name(Code::from_i32(i32::try_from(code).unwrap_or(i32::MAX)))),
                ];
                (labels, calls.codes[code])
            })
        });
        self.counters(RPC_CALLS, counts);
        let mut durations = self.text.family(RPC_DURATION, Kind::Histogram);
        for calls in calls {
            let below = |bucket: usize| calls.buckets[..=bucket].iter().sum();
            let buckets = BUCKETS_SHOWN.map(|bucket| (bucket_bound_seconds(bucket), below(bucket)));
            let all = (calls.total(), calls.sum_ns as f64 / 1e9);
            durations.histogram(&[("method", calls.verb.as_str())], buckets, all);
        }
    }

    fn counter(&mut self, name: (&'static str, &'static str), value: impl Into<Value>) {
        self.text.family(name, Kind::Counter).sample(&[], value);
    }

    fn counters<'l, const N: usize>(
        &mut self,
        name: (&'static str, &'static str),
        values: impl IntoIterator<Item = ([Label<'l>; N], u64)>,
    ) {
        let mut family = self.text.family(name, Kind::Counter);
        values.into_iter().for_each(|(labels, value)| family.sample(&labels, value));
    }

    fn gauge(&mut self, name: (&'static str, &'static str), value: impl Into<Value>) {
        self.text.family(name, Kind::Gauge).sample(&[], value);
    }

    fn gauges<'l, V: Into<Value>, const N: usize>(
        &mut self,
        name: (&'static str, &'static str),
        values: impl IntoIterator<Item = ([Label<'l>; N], V)>,
    ) {
        let mut family = self.text.family(name, Kind::Gauge);
        values.into_iter().for_each(|(labels, value)| family.sample(&labels, value));
    }
}

fn labels<'l>(report: &'l NamespaceReport, estimate: &PolicyEstimate) -> [(&'static str, &'l str); 2] {
    [("namespace", &report.config.name), ("policy", estimate.candidate)]
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::super::exposition::tests::read;
    use super::*;
    use crate::engine::{NamespaceConfig, PolicyName, Stats};
    use crate::telemetry::DiskTierFigures;

    fn text_of(calls: CallMetrics, snapshot: NodeStats) -> String {
        Metrics::new(Arc::new(calls), move || snapshot.clone()).text(Format::Prometheus)
    }

    #[test]
    fn figures_of_the_snapshot_appear_under_their_names() {
        let mut misses_by_reason = [0; 8];
        misses_by_reason[MissReason::Evicted as usize - 1] = 4;
        let stats = Stats { hits: 3, misses_by_reason, bytes_limit: 1 << 20, ..Stats::default() };
        let uptime = Duration::from_millis(1_500);
        let snapshot = NodeStats {
            stats,
            uptime,
            state: "serving",
            resident_bytes: 77,
            requests_shed: 9,
            log_lines_lost: 22,
            response_backlog_bytes: 11,
            journal: Some(JournalFigures {
                position: 12,
                syncs: 13,
                sync_time: Duration::from_millis(250),
                ..JournalFigures::default()
            }),
            disk: Some(DiskFigures {
                bytes: 18,
                snapshots: 19,
                snapshots_failed: 20,
                snapshot_age: Some(Duration::from_millis(2_500)),
                damages: 21,
            }),
            disk_tier: Some(DiskTierFigures { entries: 14, hits: 15, misses: 16, damaged: 17 }),
            ..NodeStats::default()
        };
        let text = text_of(CallMetrics::new(), snapshot);
        for line in [
            "larder_disk_bytes 18",
            "larder_snapshots_total 19",
            "larder_snapshots_failed_total 20",
            "larder_snapshot_age_seconds 2.5",
            "larder_recovery_damages 21",
            "larder_disk_entries 14",
            "larder_disk_damaged_total 17",
            "# TYPE larder_hits_total counter",
            "larder_hits_total 3",
            "larder_misses_total{reason=\"evicted\"} 4",
            "larder_misses_total{reason=\"owner_down\"} 0",
            "larder_bytes_limit 1048576",
            "larder_policy_info{policy=\"adaptive\"} 1",
            "larder_node_state{state=\"serving\"} 1",
            "larder_node_state{state=\"draining\"} 0",
            "larder_uptime_seconds 1.5",
            "larder_resident_bytes 77",
            "larder_requests_shed_total 9",
            "larder_log_lines_lost_total 22",
            "larder_response_backlog_bytes 11",
            "larder_journal_position 12",
            "larder_journal_poisoned 0",
            "larder_journal_syncs_total 13",
            "larder_journal_sync_seconds_total 0.25",
            concat!("larder_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
        }
    }

    #[test]
    fn namespaces_are_labels_whatever_they_are_called() {
        let report = |name: &str, hits, evicted| {
            let mut stats = Stats { hits, entries: 2, bytes_used: 300, ..Stats::default() };
            stats.misses_by_reason[MissReason::Evicted as usize - 1] = evicted;
            let config =
                NamespaceConfig { bytes_limit: 1_000, ..NamespaceConfig::new(name, PolicyName::Lru) };
            NamespaceReport { id: 0, config, stats, generation: 0, estimates: Vec::new() }
        };
        let namespaces = vec![report("", 3, 0), report("a \"b\" \\ c", 4, 5)];
        let text = text_of(CallMetrics::new(), NodeStats { namespaces, ..NodeStats::default() });
        for line in [
            "# TYPE larder_namespace_hits_total counter",
            "larder_namespace_hits_total{namespace=\"\"} 3",
            r#"larder_namespace_hits_total{namespace="a \"b\" \\ c"} 4"#,
            r#"larder_namespace_misses_total{namespace="a \"b\" \\ c",reason="evicted"} 5"#,
            "larder_namespace_entries{namespace=\"\"} 2",
            "larder_namespace_bytes_used{namespace=\"\"} 300",
            "larder_namespace_bytes_limit{namespace=\"\"} 1000",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
        }
        assert_eq!(
            text.matches("larder_namespace_misses_total{").count(),
            1,
            "what never happened has no line"
        );
    }

    #[test]
    fn what_adaptive_believes_is_told_once_it_knows() {
        let estimate = |candidate, hit_ratio, lookups, leader| PolicyEstimate {
            candidate,
            hit_ratio,
            lookups,
            followers: 1,
            leader,
        };
        let report = |name: &str, estimates| {
            let config = NamespaceConfig::new(name, PolicyName::Adaptive);
            NamespaceReport { id: 0, config, stats: Stats::default(), generation: 0, estimates }
        };
        let known = vec![estimate("arc", 0.5, 40, false), estimate("window-1", 0.625, 40, true)];
        let namespaces = vec![report("", known), report("n", vec![estimate("arc", 0.0, 0, true)])];
        let text = text_of(CallMetrics::new(), NodeStats { namespaces, ..NodeStats::default() });
        for line in [
            "# TYPE larder_estimate_hit_ratio gauge",
            "larder_estimate_hit_ratio{namespace=\"\",policy=\"arc\"} 0.5",
            "larder_estimate_hit_ratio{namespace=\"\",policy=\"window-1\"} 0.625",
            "larder_estimate_lookups{namespace=\"\",policy=\"arc\"} 40",
            "larder_estimate_leader{namespace=\"\",policy=\"arc\"} 0",
            "larder_estimate_leader{namespace=\"\",policy=\"window-1\"} 1",
            "larder_estimate_lookups{namespace=\"n\",policy=\"arc\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
        }
        assert!(!text.contains("larder_estimate_hit_ratio{namespace=\"n\""), "nothing is known of it yet");
    }

    #[test]
    fn calls_appear_by_method_and_code_with_cumulative_buckets() {
        let calls = CallMetrics::new();
        calls.record(Verb::Get, Code::Ok, Duration::from_nanos(1_500));
        calls.record(Verb::Get, Code::Ok, Duration::from_micros(3));
        calls.record(Verb::Get, Code::DeadlineExceeded, Duration::from_secs(20));
        let text = text_of(calls, NodeStats::default());
        for line in [
            "larder_rpc_calls_total{method=\"larder.v1.Cache/Get\",code=\"OK\"} 2",
            "larder_rpc_calls_total{method=\"larder.v1.Cache/Get\",code=\"DEADLINE_EXCEEDED\"} 1",
            "# TYPE larder_rpc_duration_seconds histogram",
            "larder_rpc_duration_seconds_count{method=\"larder.v1.Cache/Get\"} 3",
            "larder_rpc_duration_seconds_bucket{method=\"larder.v1.Cache/Get\",le=\"0.000004\"} 2",
            "larder_rpc_duration_seconds_bucket{method=\"larder.v1.Cache/Get\",le=\"4.194304\"} 2",
            "larder_rpc_duration_seconds_bucket{method=\"larder.v1.Cache/Get\",le=\"+Inf\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
        }
        assert!(!text.contains("Cache/Set"), "a method that was never called takes no room");
    }

    #[test]
    fn a_whole_page_is_right_in_either_format_and_says_the_same() {
        let calls = CallMetrics::new();
        for verb in Verb::ALL {
            calls.record(verb, Code::Ok, Duration::from_micros(70));
            calls.record(verb, Code::Internal, Duration::from_secs(70));
        }
        let estimates = ["arc", "lru"].map(|candidate| PolicyEstimate {
            candidate,
            hit_ratio: 0.1,
            lookups: 7,
            followers: 1,
            leader: candidate == "arc",
        });
        let namespaces = ["", "a \"b\" \\ c\n", "ü"].map(|name| {
            let config = NamespaceConfig::new(name, PolicyName::Adaptive);
            let (id, stats, estimates) = (0, Stats::default(), estimates.to_vec());
            NamespaceReport { id, config, stats, generation: 0, estimates }
        });
        let snapshot = NodeStats {
            namespaces: namespaces.to_vec(),
            state: "serving",
            resident_bytes: 1,
            journal: Some(JournalFigures::default()),
            disk: Some(DiskFigures { snapshot_age: Some(Duration::ZERO), ..DiskFigures::default() }),
            disk_tier: Some(DiskTierFigures::default()),
            ..NodeStats::default()
        };
        let metrics = Metrics::new(Arc::new(calls), move || snapshot.clone());
        let [plain, open] = [Format::Prometheus, Format::OpenMetrics].map(|format| {
            let (families, samples) = read(&metrics.text(format), format);
            assert!(families.len() > 55 && samples.len() > 900, "{} samples", samples.len());
            (families, samples.into_keys().collect::<Vec<_>>())
        });
        assert_eq!(plain.1, open.1, "the same samples");
        assert!(plain.0.contains_key("larder_hits_total") && open.0.contains_key("larder_hits"));
        let of_a_method = |sample: &&String| sample.contains("larder_rpc_") && sample.contains("Cache/Get\"");
        assert_eq!(plain.1.iter().filter(of_a_method).count(), 2 + 15 + 2, "series of a method");
        for name in ["cpu_seconds_total", "max_fds", "open_fds", "start_time_seconds"] {
            assert!(plain.1.contains(&format!("process_{name}")), "no {name}");
        }
    }

    #[test]
    fn snapshot_is_taken_once_per_scrape() {
        let taken = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&taken);
        let metrics = Metrics::new(Arc::new(CallMetrics::new()), move || {
            count.fetch_add(1, Ordering::Relaxed);
            NodeStats::default()
        });
        let _ = (metrics.text(Format::Prometheus), metrics.text(Format::OpenMetrics));
        assert_eq!(taken.load(Ordering::Relaxed), 2);
    }
}
