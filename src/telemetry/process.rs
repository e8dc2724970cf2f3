//! What the operating system says of this process. Linux alone tells all of it.

use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// What the process uses now; `None`: the system does not tell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ProcessFigures {
    /// Processor time, user and system.
    pub cpu_time: Duration,
    /// When it started, in seconds since 1970-01-01 UTC.
    pub started_unix_seconds: Option<f64>,
    /// Resident memory.
    pub resident_bytes: Option<u64>,
    /// Virtual memory.
    pub virtual_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_descriptors: Option<u64>,
    /// How many may be open; `None` also where there is no limit.
    pub descriptors_max: Option<u64>,
}

/// Reads all of them: some hundred microseconds, for a scrape.
#[must_use]
pub(crate) fn figures() -> ProcessFigures {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    ProcessFigures {
        cpu_time: Duration::new(cpu.tv_sec.max(0) as u64, cpu.tv_nsec as u32),
        started_unix_seconds: started_unix_seconds(),
        resident_bytes: bytes_of(&status, "VmRSS:"),
        virtual_bytes: bytes_of(&status, "VmSize:"),
        open_descriptors: open_descriptors(),
        descriptors_max: getrlimit(Resource::Nofile).current,
    }
}

/// Resident memory in bytes. Read from `VmRSS` of /proc/self/status, which has a unit, and not from statm,
/// which counts pages whose size the standard library cannot ask for. Some tens of microseconds.
#[must_use]
pub(crate) fn resident_bytes() -> Option<u64> {
    bytes_of(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Open file descriptors, counted one by one: for a scrape, not for a call.
#[must_use]
pub(crate) fn open_descriptors() -> Option<u64> {
    // The directory is open itself while it is read.
    fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1))
}

/// When the process started. Read once: it does not change, but the wall clock that it is computed from may.
fn started_unix_seconds() -> Option<f64> {
    static STARTED: OnceLock<Option<f64>> = OnceLock::new();
    *STARTED.get_or_init(|| {
        let own = fs::read_to_string("/proc/self/stat").ok()?;
        let system = fs::read_to_string("/proc/stat").ok()?;
        started_of(&own, &system, rustix::param::clock_ticks_per_second())
    })
}

/// The start in /proc/self/stat, which is in ticks since the boot that /proc/stat tells.
fn started_of(own: &str, system: &str, ticks_per_second: u64) -> Option<f64> {
    // The command's name, in parentheses, may have anything in it. Behind it, the 20th field is meant.
    let ticks: u64 = own.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let boot: u64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot as f64 + ticks as f64 / ticks_per_second as f64)
}

fn bytes_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_with_its_unit() {
        let status = "Name:\tlarder\nVmPeak:\t    9000 kB\nVmRSS:\t    4936 kB\nThreads:\t4\n";
        assert_eq!(bytes_of(status, "VmRSS:"), Some(4_936 * 1_024));
        assert_eq!(bytes_of("Name:\tkthread\n", "VmRSS:"), None);
        assert_eq!(bytes_of("VmRSS: -1 kB", "VmRSS:"), None);
    }

    #[test]
    fn the_start_is_read_behind_whatever_the_process_is_called() {
        let own = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 250 20 21\n";
        assert_eq!(started_of(own, "cpu 1 2\nbtime 1000\nprocesses 9\n", 100), Some(1_002.5));
        assert_eq!(started_of("7 (x) S 1", "btime 1000\n", 100), None);
        assert_eq!(started_of(own, "", 100), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_descriptors_and_a_start() {
        let found = figures();
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
        assert!(
            found.resident_bytes.is_some_and(|bytes| found.virtual_bytes.is_some_and(|all| bytes <= all))
        );
        assert!(found.open_descriptors.is_some_and(|count| count >= 3));
        let now = crate::clock::Clock::now(&crate::clock::SystemClock::new()).unix_ms() as f64 / 1e3;
        let started = found.started_unix_seconds.unwrap();
        assert!((now - 86_400.0..=now + 1.0).contains(&started), "{started} and now {now}");
    }
}
