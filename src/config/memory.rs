//! How much memory the process may use: the machine's, or less where a cgroup says so.
//!
//! Control groups nest, and a limit of any group above the process holds too. In a container the process's own
//! group is mounted as the root; under systemd it is below it. Both are looked at, in cgroups v2 and v1.

use std::path::{Path, PathBuf};

/// The least that the limit can be: what the engine needs to be one.
pub(super) const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// The limit is at least this where none is given.
const MEMORY_BYTES_UNASKED_MIN: u64 = 64 << 20;

/// The limit on memory where none is given: a quarter of what the process may use, but at least
/// 64 MiB, which is also the answer where the system does not tell.
#[must_use]
pub fn default_bytes() -> u64 {
    default_of(process_bytes())
}

/// What the process may use; `None` where the system does not tell.
#[must_use]
pub fn process_bytes() -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let meminfo = read(Path::new("/proc/meminfo"));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits: Vec<String> = limit_files(&groups).iter().filter_map(|path| read(path)).collect();
    usable_bytes(meminfo.as_deref(), limits.iter().map(String::as_str))
}

fn default_of(usable: Option<u64>) -> u64 {
    (usable.unwrap_or(0) / 4).max(MEMORY_BYTES_UNASKED_MIN)
}

/// The least of the machine's memory and the limits; `None` if nothing is known.
fn usable_bytes<'t>(meminfo: Option<&str>, limits: impl Iterator<Item = &'t str>) -> Option<u64> {
    let total = meminfo.and_then(total_bytes);
    limits.filter_map(limit_bytes).chain(total).min()
}

/// `MemTotal` of /proc/meminfo.
fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// The content of memory.max or memory.limit_in_bytes. "max", and v1's number near 2^63, are no limit; a group
/// with 0 could hold no process.
fn limit_bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| (1..1 << 62).contains(bytes))
}

/// The files that may hold a limit, from /proc/self/cgroup: each group's and those of all above it.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            names if names.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = Path::new(group.trim_start_matches('/'));
        files.extend(group.ancestors().map(|above| Path::new(root).join(above).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       24689764 kB\nMemFree:        21303384 kB\nSwapTotal: 0 kB\n";
    const TOTAL: u64 = 24_689_764 * 1_024;

    #[test]
    fn the_least_of_machine_and_groups_counts() {
        let usable = |limits: &[&str]| usable_bytes(Some(MEMINFO), limits.iter().copied());
        assert_eq!(usable(&[]), Some(TOTAL));
        assert_eq!(usable(&["max\n", "9223372036854771712\n", "0\n", "rubbish"]), Some(TOTAL));
        assert_eq!(usable(&["max\n", "2147483648\n", "1073741824\n"]), Some(1 << 30));
        assert_eq!(usable_bytes(None, ["1073741824"].into_iter()), Some(1 << 30));
        assert_eq!(usable_bytes(Some("MemFree: 1 kB"), std::iter::empty()), None);
    }

    #[test]
    fn a_quarter_is_taken_but_no_less_than_64_mib() {
        assert_eq!(default_of(Some(1 << 30)), 256 << 20);
        assert_eq!(default_of(Some(128 << 20)), 64 << 20);
        assert_eq!(default_of(None), 64 << 20);
        assert!(default_bytes() >= 64 << 20);
    }

    #[test]
    fn limits_of_all_groups_above_are_looked_at() {
        let text = |groups| -> Vec<String> {
            limit_files(groups).iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(text("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(
            text("0::/system.slice/larder.service\n"),
            [
                "/sys/fs/cgroup/system.slice/larder.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(
            text("5:cpu,cpuacct:/a\n4:memory:/docker/x\n"),
            [
                "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            ]
        );
        assert!(text("garbage\n1:name=systemd:/init\n").is_empty());
    }
}
