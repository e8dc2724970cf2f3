//! One process per data directory.
//!
//! The lock is the operating system's, on the directory itself, which nobody can take away from under it: it goes with
//! the process, however that ends, so that nothing has to be cleared away after a crash. The number in the file `LOCK`
//! is for people.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use super::private;

/// The right to use a data directory, until it is dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    /// Locked as long as it is open.
    _directory: File,
}

/// Why a data directory may not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process uses it.
    #[error(
        "the data directory {directory} is in use by {holder}: stop that one, or give this one a directory of its own"
    )]
    Held {
        /// The directory.
        directory: String,
        /// Who it is: "process 4711".
        holder: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {place}: {source}")]
    Io {
        /// What was tried, as a verb: "create".
        action: &'static str,
        /// The path.
        place: String,
        /// What the operating system said.
        source: io::Error,
    },
}

impl DirectoryLock {
    /// Takes a directory, which is made, for us alone, if it is not there.
    ///
    /// # Errors
    /// Another process has it, or it cannot be made or written.
    pub fn take(directory: &Path) -> Result<Self, LockError> {
        let failed = |action, path: &Path| {
            let place = path.display().to_string();
            move |source| LockError::Io { action, place, source }
        };
        if !directory.is_dir() {
            let missing: Vec<&Path> = directory.ancestors().take_while(|path| !path.is_dir()).collect();
            private::directory().create(directory).map_err(failed("create", directory))?;
            // Their names are as safe as what will be in it.
            for parent in missing.into_iter().filter_map(Path::parent) {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                let synced = File::open(parent).and_then(|parent| parent.sync_all());
                synced.map_err(failed("sync", parent))?;
            }
        }
        let locked = File::open(directory).map_err(failed("open", directory))?;
        private::warn_if_writable(&locked, directory);
        let path = directory.join("LOCK");
        let opened = private::file().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(failed("open", &path))?;
        private::keep(&file, &path);
        lock(&locked, directory)?;
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        match written {
            // The number is a courtesy: a full disk is not a reason to stay away.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            other => other.map_err(failed("write", &path))?,
        }
        Ok(Self { _directory: locked })
    }

    /// Whether a directory that exists could be taken now. Writes nothing.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn check(directory: &Path) -> Result<(), LockError> {
        let opened = File::open(directory).map_err(|source| {
            let place = directory.display().to_string();
            LockError::Io { action: "open", place, source }
        });
        lock(&opened?, directory)
    }
}

/// Locks an open directory, until it is closed.
fn lock(opened: &File, directory: &Path) -> Result<(), LockError> {
    let shown = directory.display().to_string();
    match opened.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            Err(LockError::Held { directory: shown, holder: holder(&directory.join("LOCK")) })
        }
        Err(TryLockError::Error(source)) => Err(LockError::Io { action: "lock", place: shown, source }),
    }
}

/// Who wrote the file, as far as it says.
fn holder(path: &Path) -> String {
    let mut text = String::new();
    // It is ours to read, and nobody grows it beyond a number.
    let read = File::open(path).and_then(|file| file.take(32).read_to_string(&mut text));
    match text.trim().parse::<u32>() {
        Ok(process) if read.is_ok() => format!("process {process}"),
        _ => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_is_made_for_us_alone_and_held_until_the_lock_goes() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("made/as/needed");
        let lock = DirectoryLock::take(&directory).unwrap();
        assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o777, 0o700);

        let refused = DirectoryLock::take(&directory).unwrap_err().to_string();
        let process = format!("process {}:", std::process::id());
        assert!(refused.contains(directory.to_str().unwrap()) && refused.contains(&process), "{refused}");

        std::fs::remove_file(directory.join("LOCK")).unwrap();
        assert!(DirectoryLock::take(&directory).is_err(), "the file is for people");
        assert!(DirectoryLock::check(&directory).is_err());
        drop(lock);
        std::fs::remove_file(directory.join("LOCK")).unwrap();
        DirectoryLock::check(&directory).unwrap();
        assert!(!directory.join("LOCK").exists(), "a check writes nothing");
        DirectoryLock::take(&directory).unwrap();
    }

    #[test]
    fn a_path_that_is_no_directory_is_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        std::fs::write(&path, "").unwrap();
        let refused = DirectoryLock::take(&path).unwrap_err().to_string();
        assert!(refused.contains(path.to_str().unwrap()), "{refused}");
    }
}
