//! Whether a configuration can be served here and now, without serving it.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::parts::{control_urls, engine_config, server_config};
use super::{descriptors, disk};
use crate::clock::{Clock, SystemClock};
use crate::config::{LoadedConfig, ServeConfig};
use crate::entry::Version;
use crate::persistence::DirectoryLock;
use crate::proto::v1;
use crate::service::{LiveConfig, config_response};

/// The configuration as GetConfig would answer it at the start.
#[must_use]
pub fn in_force(loaded: &LoadedConfig) -> v1::GetConfigResponse {
    let config = &loaded.config;
    let identity = config.identity(&[]);
    let live = LiveConfig {
        listen: config.listeners.listen.iter().map(ToString::to_string).collect(),
        control: control_urls(config),
        node_id: identity.node_id,
        advertise: identity.advertise,
        memory_bytes: config.cache.memory.0,
        shards: engine_config(config).shard_count(),
        policy: config.cache.policy.to_string(),
    };
    config_response(loaded, &live)
}

/// Everything that would keep a node from starting: a data directory that cannot be made, written or had, addresses
/// that cannot be listened on, a wall clock that nobody can mean. Each listener is opened for a moment, and where the data directory lies an empty directory
/// is made and removed again; nothing else is written.
pub async fn startup_problems(config: &ServeConfig) -> Vec<String> {
    let mut startup_problems: Vec<String> =
        server_config(config).check().await.iter().map(ToString::to_string).collect();
    let shares = descriptors::shares(config, descriptors::limit());
    startup_problems.extend(shares.err().map(|refused| refused.to_string()));
    let clock = Version::clock_at(SystemClock::new().now().unix_us);
    startup_problems.extend(clock.err().map(|refused| refused.to_string()));
    if let Some(options) = disk::options(config) {
        startup_problems.extend(directory_problem(&options.directory));
    }
    startup_problems
}

/// What is wrong with a data directory.
fn directory_problem(directory: &Path) -> Option<String> {
    let refused = |place: &Path, why: &dyn std::fmt::Display| {
        let needs =
            if place == directory { "" } else { ", in which the data directory (--data-dir) is to be made" };
        Some(format!(
            "the data directory {} cannot be used: {}{needs}: {why}; give one that this user may write",
            directory.display(),
            place.display(),
        ))
    };
    let place = nearest_that_exists(directory);
    if !place.is_dir() {
        return refused(&place, &"it is no directory");
    }
    if let Err(error) = access(&place, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        return refused(&place, &std::io::Error::from(error));
    }
    if place == directory
        && let Err(error) = DirectoryLock::check(directory)
    {
        return Some(error.to_string());
    }
    // What may be written by its mode may take nothing nevertheless: /proc, a full disk, one that is mounted read-only.
    let made = place.join(format!(".larder-check-{}", std::process::id()));
    match std::fs::create_dir(&made).and_then(|()| std::fs::remove_dir(&made)) {
        Ok(()) => None,
        Err(error) => refused(&place, &error),
    }
}

/// The directory, or the nearest above it that exists.
fn nearest_that_exists(directory: &Path) -> PathBuf {
    let exists = |path: &&Path| path.symlink_metadata().is_ok();
    match directory.ancestors().filter(|path| !path.as_os_str().is_empty()).find(exists) {
        Some(path) => path.to_owned(),
        None => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_that_cannot_be_had_is_named_with_the_reason() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("made/later");
        assert_eq!(directory_problem(&directory), None);
        assert!(!root.path().join("made").exists(), "a check makes nothing");

        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("below")] {
            let why = directory_problem(&path).unwrap();
            assert!(why.contains("no directory") && why.contains(path.to_str().unwrap()), "{why}");
        }
        for path in ["/proc/larder", "/proc/self/larder/data", "/proc"] {
            let why = directory_problem(Path::new(path)).unwrap();
            assert!(why.contains(&format!("the data directory {path} cannot be used: /proc")), "{why}");
        }
        let held = DirectoryLock::take(root.path()).unwrap();
        let why = directory_problem(root.path()).unwrap();
        assert!(why.contains("in use by process"), "{why}");
        drop(held);
        assert_eq!(directory_problem(root.path()), None);
        let left = std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(left.filter(|name| name != "LOCK" && name != "file").count(), 0, "a check leaves nothing");
        assert_eq!(directory_problem(Path::new("larder-data-that-is-not-there")), None);
    }
}
