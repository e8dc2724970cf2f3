//! `larder admin stats --watch` on a terminal: what changes, with rates, on one screen of 80 × 24.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cli::escape::quoted;
use crate::cli::facts::{Fact, Group, hit_ratio};
use crate::client::{NamespaceStats, NodeStats, PersistenceStats};
use crate::entry::{ByteSize, duration_text};

const COLUMNS: usize = 80;
/// One is left to the cursor.
const LINES: usize = 23;

/// Counters between two messages, for each second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rates {
    pub(super) lookups_per_s: f64,
    /// Of the lookups between the two. `None`: there were none.
    pub(super) hit_ratio: Option<f64>,
    pub(super) sets_per_s: f64,
    pub(super) deletes_per_s: f64,
    pub(super) evictions_per_s: f64,
    pub(super) expirations_per_s: f64,
    seconds: f64,
}

impl Rates {
    /// `None`: no time has passed, or counters were set back meanwhile.
    pub(super) fn between(before: &NodeStats, now: &NodeStats) -> Option<Self> {
        let between = now.uptime.checked_sub(before.uptime).filter(|between| !between.is_zero())?;
        if now.counted < before.counted {
            return None;
        }
        let seconds = between.as_secs_f64();
        let (hits, misses) = (more(before, now, |of| of.hits), more(before, now, |of| of.misses));
        let per_s = |count: fn(&NodeStats) -> u64| more(before, now, count) as f64 / seconds;
        Some(Self {
            lookups_per_s: (hits + misses) as f64 / seconds,
            hit_ratio: hit_ratio(hits, misses),
            sets_per_s: per_s(|of| of.sets),
            deletes_per_s: per_s(|of| of.deletes),
            evictions_per_s: per_s(|of| of.evictions),
            expirations_per_s: per_s(|of| of.expirations),
            seconds,
        })
    }

    /// For scripts: a line or a key each.
    pub(super) fn group(&self) -> Group {
        let facts = [
            ("lookups_per_s", Fact::Real(self.lookups_per_s)),
            ("hit_ratio", Fact::Ratio(self.hit_ratio)),
            ("sets_per_s", Fact::Real(self.sets_per_s)),
            ("deletes_per_s", Fact::Real(self.deletes_per_s)),
            ("evictions_per_s", Fact::Real(self.evictions_per_s)),
            ("expirations_per_s", Fact::Real(self.expirations_per_s)),
        ];
        let facts = facts.map(|(name, fact)| (format!("rates.{name}"), fact)).into();
        Group { title: "Rates", facts }
    }
}

fn more(before: &NodeStats, now: &NodeStats, count: impl Fn(&NodeStats) -> u64) -> u64 {
    count(now).saturating_sub(count(before))
}

/// One screen. `before` is the message before this one, for the rates.
pub(super) fn screen(before: Option<&NodeStats>, now: &NodeStats) -> String {
    let rates = before.and_then(|before| Some((before, Rates::between(before, now)?)));
    let mut lines = vec![head(now), String::new()];
    lines.push(format!("{:<22}{:>14}{:>20}", "", "each second", "in all"));
    let seconds = rates.map_or(0.0, |(_, rates)| rates.seconds);
    for (name, count) in COUNTERS {
        let rate =
            rates.map_or("-".to_owned(), |(before, _)| rate(more(before, now, count) as f64 / seconds));
        lines.push(format!("{name:<22}{rate:>14}{:>20}", count(now)));
    }
    let recent = rates.and_then(|(_, rates)| rates.hit_ratio);
    let ratio = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{:.2} %", ratio * 100.0));
    let all = ratio(hit_ratio(now.hits, now.misses));
    lines.push(format!("{:<22}{:>14}{all:>20}", "hit ratio", ratio(recent)));
    lines.push(String::new());
    lines.push(format!(
        "entries {}   connections {}   requests in flight {}",
        now.entries, now.connections, now.requests_in_flight
    ));
    lines.push(memory(now));
    lines.extend(now.persistence.as_ref().map(disk));
    namespaces(&now.namespaces, LINES.saturating_sub(lines.len()), &mut lines);
    let mut text = String::new();
    for line in lines.iter().take(LINES) {
        // What is longer is cut, so that nothing wraps and pushes the head out.
        let _ = writeln!(text, "{}", line.chars().take(COLUMNS - 1).collect::<String>().trim_end());
    }
    text
}

type Count = fn(&NodeStats) -> u64;
const COUNTERS: [(&str, Count); 9] = [
    ("lookups", |of| of.hits + of.misses),
    ("sets", |of| of.sets),
    ("sets not stored", |of| of.sets_not_stored),
    ("sets refused", |of| of.sets_refused),
    ("deletes", |of| of.deletes),
    ("increments, touches", |of| of.increments + of.touches),
    ("evictions", |of| of.evictions),
    ("expirations", |of| of.expirations),
    ("requests shed", |of| of.requests_shed),
];

fn head(now: &NodeStats) -> String {
    let up = duration_text(Duration::from_secs(now.uptime.as_secs()));
    format!("{}  {}  up {up}  policy {}", now.node_id, now.state, now.policy)
}

fn memory(now: &NodeStats) -> String {
    let share = 100.0 * now.bytes_used as f64 / now.bytes_limit.max(1) as f64;
    format!(
        "memory {} of {} ({share:.1} %), resident {}",
        size(now.bytes_used),
        size(now.bytes_limit),
        size(now.resident_bytes.unwrap_or_default())
    )
}

fn disk(disk: &PersistenceStats) -> String {
    let limit = match disk.disk_limit_bytes {
        None => String::new(),
        Some(limit) => format!(" of {}", size(limit)),
    };
    let behind = disk.position.saturating_sub(disk.synced_position);
    let state =
        if disk.poisoned.is_none() { format!("{behind} changes to sync") } else { "POISONED".to_owned() };
    format!("disk {}{limit}, {}, {state}", size(disk.disk_bytes), disk.mode)
}

/// The namespaces beside the default one that hold most, as far as there is room.
fn namespaces(all: &[NamespaceStats], room: usize, lines: &mut Vec<String>) {
    if all.len() < 2 || room < 3 {
        return;
    }
    let mut most: Vec<&NamespaceStats> = all.iter().collect();
    most.sort_by_key(|namespace| std::cmp::Reverse(namespace.bytes_used));
    let shown = if most.len() > room - 2 { room - 3 } else { most.len() };
    lines.push(String::new());
    lines.push(format!("{:<30}{:>14}{:>16}{:>14}", "namespace", "entries", "bytes", "hit ratio"));
    for namespace in &most[..shown] {
        let name: String = quoted(namespace.name.as_bytes()).to_string().chars().take(29).collect();
        let ratio = hit_ratio(namespace.hits, namespace.misses);
        let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{:.2} %", ratio * 100.0));
        lines.push(format!(
            "{name:<30}{:>14}{:>16}{ratio:>14}",
            namespace.entries,
            size(namespace.bytes_used)
        ));
    }
    if shown < most.len() {
        lines.push(format!("and {} more", most.len() - shown));
    }
}

fn rate(per_s: f64) -> String {
    if per_s > 0.0 && per_s < 10.0 { format!("{per_s:.1}") } else { format!("{per_s:.0}") }
}

fn size(bytes: u64) -> String {
    if bytes < 1_024 { ByteSize(bytes).to_string() } else { indicatif::BinaryBytes(bytes).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(uptime_ms: u64, hits: u64) -> NodeStats {
        NodeStats {
            uptime: Duration::from_millis(uptime_ms),
            counted: Duration::from_millis(uptime_ms),
            hits,
            misses: hits / 2,
            ..Default::default()
        }
    }

    #[test]
    fn rates_are_of_the_time_between_two_messages() {
        let rates = Rates::between(&stats(1_000, 100), &stats(3_000, 300)).unwrap();
        assert_eq!((rates.lookups_per_s, rates.hit_ratio), (150.0, Some(200.0 / 300.0)));
        assert_eq!(rates.sets_per_s, 0.0);
        assert_eq!(Rates::between(&stats(1_000, 100), &stats(1_000, 100)), None, "no time has passed");
        let reset = NodeStats { counted: Duration::from_millis(5), ..stats(3_000, 300) };
        assert_eq!(Rates::between(&stats(1_000, 100), &reset), None, "the counters were set back");
    }

    #[test]
    fn a_screen_fits_whatever_a_node_says() {
        let namespace = |n: u64| NamespaceStats {
            name: format!("{n} {}", "long ".repeat(40)),
            entries: u64::MAX,
            bytes_used: u64::MAX - n,
            hits: u64::MAX / 2,
            ..Default::default()
        };
        let persistence = PersistenceStats {
            mode: "journal+snapshot".to_owned(),
            disk_bytes: u64::MAX,
            disk_limit_bytes: Some(u64::MAX),
            position: u64::MAX,
            ..Default::default()
        };
        let most = NodeStats {
            node_id: "tcp://a.very.long.name.of.a.node.in.a.cluster.svc.example.org:7400".to_owned(),
            hits: u64::MAX / 4,
            misses: u64::MAX / 4,
            sets: u64::MAX,
            entries: u64::MAX,
            bytes_used: u64::MAX,
            bytes_limit: u64::MAX,
            resident_bytes: Some(u64::MAX),
            namespaces: (0..1_024).map(namespace).collect(),
            persistence: Some(persistence),
            ..stats(u64::MAX / 2, 0)
        };
        for (before, now) in [(None, &most), (Some(&stats(0, 0)), &most), (None, &stats(0, 0))] {
            let screen = screen(before, now);
            assert!(screen.lines().count() <= LINES, "{screen}");
            assert!(screen.lines().all(|line| line.chars().count() < COLUMNS), "{screen}");
        }
        assert!(screen(None, &most).contains("more\n"), "{}", screen(None, &most));
        let now = stats(3_000, 300);
        let lookups = "lookups                          150                 450\n";
        assert!(screen(Some(&stats(1_000, 100)), &now).contains(lookups), "{}", screen(None, &now));
    }
}
