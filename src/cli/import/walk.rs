//! What lies below a directory: files to store, what is none, and what cannot be looked at.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::cli::exit::{CliError, local};
use crate::cli::refusals::Refusals;

/// A file that is to be stored.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) key: Vec<u8>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// In the order of their keys.
    pub(super) sources: Vec<Source>,
    /// Directories that may not be read, links that lead nowhere.
    pub(super) refused: Refusals,
    /// Pipes, sockets, devices, and links to directories, which may lead round in a circle.
    pub(super) passed_over: u64,
}

/// Looks through a directory and all below it. A link to a file is that file.
///
/// # Errors
/// The directory itself cannot be read.
pub(super) fn below(root: &Path, prefix: &[u8]) -> Result<Walk, CliError> {
    if !root.is_dir() {
        return Err(CliError::Usage(format!("{} is no directory", root.display())));
    }
    let mut walk = Walk::default();
    let first = fs::read_dir(root).map_err(local(format!("cannot read the directory {}", root.display())))?;
    let mut directories = Vec::new();
    let key = |path: &Path| [prefix, path.strip_prefix(root).unwrap_or(path).as_os_str().as_bytes()].concat();
    walk.look_through(first, root, &key, &mut directories);
    while let Some(directory) = directories.pop() {
        match fs::read_dir(&directory) {
            Ok(entries) => walk.look_through(entries, &directory, &key, &mut directories),
            Err(error) => walk.refuse(&key(&directory), "cannot read the directory", &error),
        }
    }
    walk.sources.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    Ok(walk)
}

impl Walk {
    fn look_through(
        &mut self,
        entries: fs::ReadDir,
        directory: &Path,
        key: &impl Fn(&Path) -> Vec<u8>,
        directories: &mut Vec<PathBuf>,
    ) {
        for entry in entries {
            let looked_at = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)));
            let (path, kind) = match looked_at {
                Ok(looked_at) => looked_at,
                // What comes after it in this directory may be lost as well.
                Err(error) => {
                    self.refuse(&key(directory), "cannot read all of the directory", &error);
                    continue;
                }
            };
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file() {
                self.sources.push(Source { key: key(&path), path });
            } else if kind.is_symlink() {
                match fs::metadata(&path) {
                    Ok(about) if about.is_file() => self.sources.push(Source { key: key(&path), path }),
                    Ok(_) => self.passed_over += 1,
                    Err(error) => self.refuse(&key(&path), "cannot follow the link", &error),
                }
            } else {
                self.passed_over += 1;
            }
        }
    }

    fn refuse(&mut self, name: &[u8], what: &str, error: &io::Error) {
        self.refused.add(name, &format!("{what}: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, Mode, OFlags, mkdirat, mkfifoat, openat};

    use super::*;

    #[test]
    fn what_cannot_be_looked_at_is_set_aside_and_the_rest_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir(root.join("sub")).unwrap();
        fs::write(root.join("sub/b"), "").unwrap();
        fs::write(root.join("a"), "").unwrap();
        symlink("a", root.join("c")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        symlink("round", root.join("round")).unwrap();
        symlink("sub", root.join("to a directory")).unwrap();
        mkfifoat(CWD, root.join("pipe"), Mode::RUSR).unwrap();
        // A directory that even root cannot open by its path, as that is longer than the system takes.
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut deep = openat(CWD, root, flags, Mode::empty()).unwrap();
        for _ in 0..20 {
            let name = "d".repeat(250);
            mkdirat(&deep, &name, Mode::RWXU).unwrap();
            deep = openat(&deep, &name, flags, Mode::empty()).unwrap();
        }
        let walk = below(root, b"p/").unwrap();
        let keys: Vec<&[u8]> = walk.sources.iter().map(|source| source.key.as_slice()).collect();
        assert_eq!(keys, [&b"p/a"[..], b"p/c", b"p/sub/b"]);
        assert_eq!(walk.passed_over, 2, "the pipe and the link to a directory");
        let refused = walk.refused.json();
        let why = |name: &str| {
            let refusals = refused.as_array().unwrap().iter();
            let mut of_name = refusals.filter(|refusal| refusal["key"].as_str().unwrap().starts_with(name));
            of_name
                .next()
                .and_then(|refusal| refusal["error"].as_str())
                .unwrap_or_else(|| panic!("{refused}"))
        };
        assert!(why("p/dangling").starts_with("cannot follow the link"));
        assert!(why("p/round").starts_with("cannot follow the link"));
        assert!(why("p/ddd").starts_with("cannot read the directory"));
        assert_eq!(walk.refused.count(), 3);
    }
}
