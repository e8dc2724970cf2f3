//! What the operating system says of this process. Linux alone tells; elsewhere there is no answer.

use std::fs;

/// Resident memory in bytes. Read from `VmRSS` of /proc/self/status, which has a unit, and not from statm,
/// which counts pages whose size the standard library cannot ask for. Some tens of microseconds.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    resident_bytes_of(&fs::read_to_string("/proc/self/status").ok()?)
}

/// Open file descriptors, counted one by one: for a scrape, not for a call.
#[must_use]
pub fn open_descriptors() -> Option<u64> {
    // The directory is open itself while it is read.
    fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1))
}

fn resident_bytes_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_with_its_unit() {
        let status = "Name:\tlarder\nVmPeak:\t    9000 kB\nVmRSS:\t    4936 kB\nThreads:\t4\n";
        assert_eq!(resident_bytes_of(status), Some(4_936 * 1_024));
        assert_eq!(resident_bytes_of("Name:\tkthread\n"), None);
        assert_eq!(resident_bytes_of("VmRSS: -1 kB"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_and_descriptors() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
        assert!(open_descriptors().is_some_and(|count| count >= 3));
    }
}
