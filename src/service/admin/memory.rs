//! Where a node's bytes are, and what an operator could do about them.
//!
//! Advice is given where the figures show that something is lost or idle, and says the figures that it rests on.
//! Counters are those since the last ResetStats, so that an operator chooses what it speaks of.

use std::time::Duration;

use super::AdminService;
use crate::engine::{Memory, MissReason, NamespaceReport, Stats};
use crate::proto::v1;
use crate::telemetry::NodeStats;

/// A node is full from this part of its limit on: pages that fill up leave a little.
const FULL: f64 = 0.98;
/// Misses of evicted keys hurt from this part of the lookups on.
const EVICTED_MISSES: f64 = 0.01;
/// A namespace is at its cap from this part of it on.
const AT_CAP: f64 = 0.95;
/// Free cells are many when they are more than this part of the bytes used and more than this number of bytes.
const FREE_CELLS: f64 = 0.2;
const FREE_CELLS_BYTES_MIN: u64 = 16 << 20;
/// A limit is far off below this part of it, for a node that has counted for [`FAR_AFTER`].
const FAR: f64 = 0.25;
const FAR_AFTER: Duration = Duration::from_secs(3_600);
/// What the process takes beside the limit: the tenth and the 64 MiB that the book says to plan for.
const BESIDE_PART: u64 = 10;
const BESIDE_BYTES: u64 = 64 << 20;
/// The most namespaces that are advised on.
const NAMESPACES_ADVISED_MAX: usize = 10;

impl AdminService {
    pub(super) async fn memory_report(&self) -> v1::GetMemoryReportResponse {
        self.finish_sweeps().await;
        let memory = self.cache.memory();
        let now = self.figures().await;
        let base = self.base.lock().clone();
        let mut parts: Vec<v1::MemoryPart> = memory
            .parts()
            .into_iter()
            .filter(|(_, bytes)| *bytes > 0)
            .map(|(name, bytes)| v1::MemoryPart { name: name.to_owned(), bytes, charged: true })
            .collect();
        let journal_bytes = now.journal.map_or(0, |journal| journal.backlog_bytes);
        let beside = [
            ("answers", now.response_backlog_bytes),
            ("requests", now.request_bytes),
            ("journal-backlog", journal_bytes),
        ];
        let beside = beside.into_iter().filter(|(_, bytes)| *bytes > 0);
        parts.extend(beside.map(|(name, bytes)| v1::MemoryPart {
            name: name.to_owned(),
            bytes,
            charged: false,
        }));
        parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
        v1::GetMemoryReportResponse {
            bytes_limit: memory.bytes_limit,
            bytes_used: memory.bytes_used(),
            // The allocator does not tell.
            allocated_bytes: 0,
            resident_bytes: now.resident_bytes,
            entries: memory.entries,
            parts,
            advice: advice(&memory, &now.since(&base), now.uptime.saturating_sub(base.uptime)),
        }
    }
}

/// What could be done, the most useful first; `figures` have counted for `counted`.
fn advice(memory: &Memory, figures: &NodeStats, counted: Duration) -> Vec<v1::MemoryAdvice> {
    let stats = &figures.stats;
    let mut advice: Vec<v1::MemoryAdvice> = [
        resident_above_limit(memory, figures.resident_bytes),
        full_and_evicting(memory, stats),
        entries_too_large(stats),
    ]
    .into_iter()
    .flatten()
    .collect();
    advice.extend(namespaces_at_cap(&figures.namespaces));
    advice.extend(free_cells_high(memory));
    advice.extend(limit_far_from_reached(memory, stats, counted));
    advice
}

fn resident_above_limit(memory: &Memory, resident_bytes: u64) -> Option<v1::MemoryAdvice> {
    let planned = memory.bytes_limit + memory.bytes_limit / BESIDE_PART + BESIDE_BYTES;
    (resident_bytes > planned).then(|| {
        finding(
            "RESIDENT_ABOVE_LIMIT",
            format!(
                "the process holds {} of memory, {} more than the limit of {} and the {} to plan for beside it: \
                 connections and messages under way take it. Lower --max-connections, --max-streams or the \
                 message limits, or give the process more than {} before it is killed",
                size(resident_bytes),
                size(resident_bytes - planned),
                size(memory.bytes_limit),
                size(planned - memory.bytes_limit),
                size(resident_bytes)
            ),
        )
    })
}

fn full_and_evicting(memory: &Memory, stats: &Stats) -> Option<v1::MemoryAdvice> {
    let (used, missed) = (part(memory.bytes_used(), memory.bytes_limit), evicted_misses(stats)?);
    (used >= FULL && stats.evictions > 0).then(|| {
        finding(
            "MEMORY_FULL_EVICTING",
            format!(
                "{} of {} are used, {} entries were evicted, and {missed}. Raise the limit (`larder admin resize`), \
                 give entries shorter times to live, or see whether another policy keeps the right ones \
                 (`larder admin policy`)",
                size(memory.bytes_used()),
                size(memory.bytes_limit),
                stats.evictions
            ),
        )
    })
}

fn entries_too_large(stats: &Stats) -> Option<v1::MemoryAdvice> {
    (stats.refusals > 0).then(|| {
        finding(
            "ENTRIES_TOO_LARGE",
            format!(
                "{} sets or increments were refused, because not even an empty shard or cap could hold the entry. \
                 Raise the limit or the cap, or start with fewer --shards",
                stats.refusals
            ),
        )
    })
}

/// Those that miss most what they evicted come first.
fn namespaces_at_cap(namespaces: &[NamespaceReport]) -> Vec<v1::MemoryAdvice> {
    let named = namespaces.iter().filter(|report| !report.config.name.is_empty());
    let mut at_cap: Vec<(u64, v1::MemoryAdvice)> = named
        .filter_map(|report| {
            let (stats, cap) = (&report.stats, report.config.bytes_limit);
            let missed = evicted_misses(stats)?;
            (cap > 0 && part(stats.bytes_used, cap) >= AT_CAP && stats.evictions > 0).then(|| {
                let description = format!(
                    "namespace {:?} uses {} of its cap of {}, {} of its entries were evicted, and {missed}. Raise \
                     its cap (`larder admin namespaces update`), if the node's limit has room",
                    report.config.name,
                    size(stats.bytes_used),
                    size(cap),
                    stats.evictions
                );
                (stats.misses_for(MissReason::Evicted), finding("NAMESPACE_AT_CAP", description))
            })
        })
        .collect();
    at_cap.sort_by_key(|(missed, _)| std::cmp::Reverse(*missed));
    at_cap.into_iter().take(NAMESPACES_ADVISED_MAX).map(|(_, advice)| advice).collect()
}

fn free_cells_high(memory: &Memory) -> Option<v1::MemoryAdvice> {
    let (spare, used) = (memory.spare_bytes, memory.bytes_used());
    (spare >= FREE_CELLS_BYTES_MIN && part(spare, used) >= FREE_CELLS).then(|| {
        finding(
            "FREE_CELLS_HIGH",
            format!(
                "{} of the {} used ({}) are free cells: entries went, and what is stored now has other sizes. New \
                 entries of the old sizes take them, and pages that are mostly free are emptied when room is short; \
                 nothing is lost unless entries are evicted meanwhile",
                size(spare),
                size(used),
                percent(part(spare, used))
            ),
        )
    })
}

fn limit_far_from_reached(memory: &Memory, stats: &Stats, counted: Duration) -> Option<v1::MemoryAdvice> {
    let (used, limit) = (memory.bytes_used(), memory.bytes_limit);
    (counted >= FAR_AFTER && stats.evictions == 0 && part(used, limit) < FAR).then(|| {
        finding(
            "LIMIT_FAR_FROM_REACHED",
            format!(
                "{} of {} are used ({}), and nothing was evicted in {} min. A limit of twice what is used would \
                 do, and leave {} to others",
                size(used),
                size(limit),
                percent(part(used, limit)),
                counted.as_secs() / 60,
                size(limit - 2 * used)
            ),
        )
    })
}

/// How many lookups missed what was evicted, where that is enough to matter.
fn evicted_misses(stats: &Stats) -> Option<String> {
    let (missed, lookups) = (stats.misses_for(MissReason::Evicted), stats.hits + stats.misses());
    let share = part(missed, lookups);
    (share >= EVICTED_MISSES)
        .then(|| format!("{missed} of {lookups} lookups ({}) missed an entry that had been", percent(share)))
}

fn finding(reason: &str, description: String) -> v1::MemoryAdvice {
    v1::MemoryAdvice { reason: reason.to_owned(), description }
}

fn part(some: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { some as f64 / all as f64 }
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..0x400 => format!("{bytes} B"),
        0x400..0x10_0000 => format!("{:.1} KiB", bytes as f64 / 1_024.0),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{NamespaceConfig, PolicyName};

    const LIMIT: u64 = 1 << 30;

    fn memory(used: u64) -> Memory {
        Memory { entry_bytes: used, bytes_limit: LIMIT, ..Memory::default() }
    }

    /// Figures with this number of evictions and, of 1,000 lookups, this number of misses of an evicted key.
    fn stats(evictions: u64, missed: u64) -> Stats {
        let mut stats = Stats { hits: 1_000 - missed, evictions, ..Stats::default() };
        stats.misses_by_reason[MissReason::Evicted as usize - 1] = missed;
        stats
    }

    fn reasons(memory: &Memory, figures: &NodeStats, counted_s: u64) -> Vec<String> {
        let advice = advice(memory, figures, Duration::from_secs(counted_s));
        advice.into_iter().map(|advice| advice.reason).collect()
    }

    #[test]
    fn a_full_node_is_advised_on_only_while_that_costs_hits() {
        let figures =
            |evictions, missed| NodeStats { stats: stats(evictions, missed), ..NodeStats::default() };
        assert_eq!(reasons(&memory(LIMIT / 100 * 99), &figures(5, 10), 60), ["MEMORY_FULL_EVICTING"]);
        assert!(reasons(&memory(LIMIT / 100 * 99), &figures(5, 9), 60).is_empty(), "nobody misses it");
        assert!(reasons(&memory(LIMIT / 100 * 97), &figures(5, 10), 60).is_empty(), "it is not full");
        let full = advice(&memory(LIMIT / 100 * 99), &figures(5, 10), Duration::ZERO);
        assert!(full[0].description.contains("10 of 1000 lookups (1.0 %)"), "{full:?}");
    }

    #[test]
    fn an_idle_limit_is_told_after_an_hour() {
        let none = NodeStats::default();
        assert_eq!(reasons(&memory(LIMIT / 5), &none, 3_600), ["LIMIT_FAR_FROM_REACHED"]);
        assert!(reasons(&memory(LIMIT / 5), &none, 3_599).is_empty());
        assert!(reasons(&memory(LIMIT / 2), &none, 3_600).is_empty());
    }

    #[test]
    fn what_the_process_takes_beside_the_limit_is_told_beyond_what_is_planned_for() {
        let resident = |bytes| NodeStats { resident_bytes: bytes, ..NodeStats::default() };
        let planned = LIMIT + LIMIT / 10 + (64 << 20);
        assert!(reasons(&memory(LIMIT / 2), &resident(planned), 0).is_empty());
        assert_eq!(reasons(&memory(LIMIT / 2), &resident(planned + 1), 0), ["RESIDENT_ABOVE_LIMIT"]);
    }

    #[test]
    fn many_free_cells_and_refused_entries_are_told() {
        let free = Memory { spare_bytes: 100 << 20, ..memory(400 << 20) };
        let refused = Stats { refusals: 3, ..Stats::default() };
        let figures = NodeStats { stats: refused, ..NodeStats::default() };
        assert_eq!(reasons(&free, &figures, 0), ["ENTRIES_TOO_LARGE", "FREE_CELLS_HIGH"]);
        let few = Memory { spare_bytes: 15 << 20, ..memory(15 << 20) };
        assert!(reasons(&few, &NodeStats::default(), 0).is_empty());
    }

    #[test]
    fn namespaces_at_their_cap_are_told_the_one_that_misses_most_first() {
        let report = |name: &str, bytes_used, missed| NamespaceReport {
            id: 0,
            config: NamespaceConfig { bytes_limit: 1_000, ..NamespaceConfig::new(name, PolicyName::Lru) },
            stats: Stats { bytes_used, ..stats(9, missed) },
            generation: 0,
            estimates: Vec::new(),
        };
        let namespaces =
            vec![report("", 990, 500), report("a", 960, 20), report("b", 940, 500), report("c", 1_000, 30)];
        let figures = NodeStats { namespaces, ..NodeStats::default() };
        let advice = advice(&memory(LIMIT / 2), &figures, Duration::ZERO);
        let told: Vec<&str> = advice.iter().map(|advice| &advice.description[..13]).collect();
        assert_eq!(told, ["namespace \"c\"", "namespace \"a\""], "{advice:?}");
        assert!(advice.iter().all(|advice| advice.reason == "NAMESPACE_AT_CAP"));
    }
}
