//! A wall clock that a test sets, under processes of ours: by libfaketime, which stands between them and the system's.

use std::path::{Path, PathBuf};

use super::node::Process;
use super::outside;

/// A wall clock that is off the system's.
pub(crate) struct WallClock {
    library: String,
    file: PathBuf,
}

impl WallClock {
    /// One that is right; `None`, and says why, where there is no libfaketime.
    pub(crate) fn new(directory: &Path) -> Option<Self> {
        let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
        let mut libraries = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
        let Some(library) = libraries.find(|library| library.exists()) else {
            outside::skip("there is no libfaketime (apt-get install faketime)");
            return None;
        };
        let clock =
            Self { library: library.to_str().unwrap().to_owned(), file: directory.join("wall-clock") };
        clock.set("+0");
        Some(clock)
    }

    /// From now on it is off by this, as in `+1d` or `-1h`, under processes that run too.
    pub(crate) fn set(&self, off: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, off).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    /// Starts a node under it, whose monotonic clock is the system's; what it said, if it did not start.
    pub(crate) fn start(&self, flags: &[&str]) -> Result<Process, (std::process::ExitStatus, String)> {
        let environment = [
            ("LD_PRELOAD", &*self.library),
            ("FAKETIME_TIMESTAMP_FILE", self.file.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        Process::start_under(flags, &environment)
    }
}
