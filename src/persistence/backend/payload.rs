//! Files of ours in a directory: what journal, snapshots and blobs are made of, whatever keeps the catalogue.
//!
//! ```text
//! journal/000000000000001f.journal      as FileId writes it
//! snapshot/…  blob/…
//! quarantine/000000000000001f.journal   set aside; .1, .2 … behind the name where it is taken
//! ```
//!
//! A file is open for writing once, by who made it; it only grows, but for zeroes that were reserved behind its end and
//! are cut off when it is closed. It is synced with fdatasync, and its directory with
//! fsync at the first sync of the file, which makes the name safe and with it all earlier deletions in the directory.
//! Files of other names are none of ours: they are left alone and not listed.
//!
//! Whatever the process's umask, nobody else has rights to the directories and the files, also where they were made by
//! a build that left them some.

use std::fs::{self, File};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::presence::{ExpectedFiles, InodeId};
use super::{Appender, BackendError, DiskSpace, FileId, FileKind, ReadAt};
use crate::persistence::failpoint::Failpoint;
use crate::persistence::private;
use crate::shortage;

/// The files below a directory.
#[derive(Debug)]
pub struct Payload {
    directory: PathBuf,
    journal: Arc<Directory>,
    snapshot: Arc<Directory>,
    blob: Arc<Directory>,
    quarantine: Quarantine,
}

/// The directory of one kind of files.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// Open for fsync alone.
    file: File,
    identity: InodeId,
    /// The files of the journal, each of which a recovery needs.
    kept: Option<ExpectedFiles>,
}

impl Directory {
    /// That of a kind below `root`, which is made if it is not there.
    fn open(root: &Path, kind: FileKind) -> Result<Self, BackendError> {
        let path = root.join(kind.to_string());
        let file = make_directory(&path)?;
        let identity = InodeId::of(&file).map_err(|error| BackendError::io("look at", &path, error))?;
        let kept = (kind == FileKind::Journal).then(|| ExpectedFiles::below(root));
        Ok(Self { path, file, identity, kept })
    }

    /// Fails where it is not under its name any more, or one of the files is not.
    fn check(&self) -> Result<(), BackendError> {
        self.identity.check(&self.path)?;
        self.kept.as_ref().map_or(Ok(()), |kept| kept.check(&self.file))
    }
}

impl Payload {
    /// Those below `directory`, which is made if it is not there.
    pub(super) fn open(directory: &Path) -> Result<Self, BackendError> {
        let opened = |kind: FileKind| Directory::open(directory, kind).map(Arc::new);
        let payload = Self {
            journal: opened(FileKind::Journal)?,
            snapshot: opened(FileKind::Snapshot)?,
            blob: opened(FileKind::Blob)?,
            quarantine: Quarantine::open(directory)?,
            directory: directory.to_owned(),
        };
        sync_directory(directory)?;
        if let Some(kept) = &payload.journal.kept {
            let files = payload.files()?.into_iter().map(|(file, _)| file);
            files.filter(|file| file.kind == FileKind::Journal).for_each(|file| kept.add(file));
        }
        Ok(payload)
    }

    fn directory_of(&self, file: FileId) -> &Arc<Directory> {
        match file.kind {
            FileKind::Journal => &self.journal,
            FileKind::Snapshot => &self.snapshot,
            FileKind::Blob => &self.blob,
        }
    }

    /// From now on nobody is to miss it.
    fn let_go(&self, file: FileId) {
        if let Some(kept) = &self.directory_of(file).kept {
            kept.remove(file);
        }
    }

    pub(super) fn quarantine_room(&self) -> &Quarantine {
        &self.quarantine
    }

    pub(super) fn files(&self) -> Result<Vec<(FileId, u64)>, BackendError> {
        let mut files = Vec::new();
        for kind in FileKind::ALL {
            let path = self.directory.join(kind.to_string());
            let refused = |error| BackendError::io("list", &path, error);
            for entry in fs::read_dir(&path).map_err(refused)? {
                let entry = entry.map_err(refused)?;
                let Some(file) = entry.file_name().to_str().and_then(|name| named(kind, name)) else {
                    continue;
                };
                match entry.metadata() {
                    Ok(metadata) => files.push((file, metadata.len())),
                    // Deleted meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(BackendError::io("read", &entry.path(), error)),
                }
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    pub(super) fn create(&self, file: FileId) -> Result<Box<dyn Appender>, BackendError> {
        let path = self.path(file);
        let made = private::file().write(true).create_new(true).open(&path);
        let open = made.map_err(|error| BackendError::io("create", &path, error))?;
        let identity = InodeId::of(&open).map_err(|error| BackendError::lasting("look at", &path, error))?;
        let directory = self.directory_of(file);
        if let Some(kept) = &directory.kept {
            kept.add(file);
        }
        Ok(Box::new(Growing {
            path,
            file: open,
            identity,
            length: 0,
            extent: 0,
            directory: Arc::clone(directory),
            is_name_synced: false,
        }))
    }

    /// Whether there is a file of that name.
    pub(super) fn has(&self, file: FileId) -> Result<bool, BackendError> {
        let path = self.path(file);
        match path.symlink_metadata() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(BackendError::io("look at", &path, error)),
        }
    }

    pub(super) fn open_file(&self, file: FileId) -> Result<Box<dyn ReadAt>, BackendError> {
        let path = self.path(file);
        let open = File::open(&path).map_err(|error| BackendError::io("open", &path, error))?;
        Ok(Box::new(Opened { path, file: open }))
    }

    pub(super) fn delete(&self, file: FileId) -> Result<(), BackendError> {
        let path = self.path(file);
        self.let_go(file);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(BackendError::io("delete", &path, error))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn quarantine(&self, file: FileId) -> Result<String, BackendError> {
        self.let_go(file);
        self.quarantine.take(&self.path(file), &file_name(file))
    }

    /// Lengths in whole blocks, and nothing for directories.
    pub(super) fn disk_bytes(&self) -> Result<u64, BackendError> {
        Ok(self.files()?.iter().map(|(_, length)| in_blocks(*length)).sum())
    }

    /// Of the file system that the directory is on; without bounds where that tells none. Fails where the directory or a
    /// file of the journal is gone.
    pub(super) fn space(&self) -> Result<DiskSpace, BackendError> {
        for directory in [&self.journal, &self.snapshot, &self.blob] {
            directory.check()?;
        }
        let told = rustix::fs::statvfs(&self.directory);
        let told = told.map_err(|error| BackendError::io("look at", &self.directory, error.into()))?;
        if told.f_blocks == 0 {
            return Ok(DiskSpace { total_bytes: u64::MAX, free_bytes: u64::MAX });
        }
        let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
        Ok(DiskSpace { total_bytes: bytes(told.f_blocks), free_bytes: bytes(told.f_bavail) })
    }

    fn path(&self, file: FileId) -> PathBuf {
        self.directory.join(file.to_string())
    }
}

/// Where things are set aside. Nothing is ever deleted or written over there.
#[derive(Debug)]
pub(super) struct Quarantine {
    path: PathBuf,
    /// Held while a free name is sought and taken.
    directory: Mutex<File>,
}

impl Quarantine {
    fn open(directory: &Path) -> Result<Self, BackendError> {
        let path = directory.join("quarantine");
        Ok(Self { directory: Mutex::new(make_directory(&path)?), path })
    }

    /// Moves a file or a directory here, under a name like `name`. Says where it is now.
    pub(super) fn take(&self, from: &Path, name: &str) -> Result<String, BackendError> {
        let directory = self.directory.lock();
        let refused = |error| BackendError::io("set aside", from, error);
        let mut to = self.path.join(name);
        let mut number = 0;
        while to.symlink_metadata().is_ok() {
            number += 1;
            to = self.path.join(format!("{name}.{number}"));
        }
        fs::rename(from, &to).map_err(refused)?;
        directory.sync_all().map_err(|error| BackendError::lasting("set aside", from, error))?;
        if let Some(parent) = from.parent() {
            sync_directory(parent)?;
        }
        Ok(to.display().to_string())
    }
}

/// A file that is being written.
#[derive(Debug)]
struct Growing {
    path: PathBuf,
    /// Its cursor stands at `length`, also after an append that failed half way.
    file: File,
    identity: InodeId,
    length: u64,
    /// The file's own length, where more is reserved.
    extent: u64,
    directory: Arc<Directory>,
    is_name_synced: bool,
}

impl Growing {
    fn append_all(&mut self, parts: &[&[u8]]) -> Result<(), BackendError> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut left = slices.as_mut_slice();
        // Takes away those that are empty at the front, as each further step does.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match self.file.write_vectored(left) {
                Ok(0) => {
                    return Err(BackendError::io("append to", &self.path, io::ErrorKind::WriteZero.into()));
                }
                Ok(written) => {
                    self.length += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(BackendError::io("append to", &self.path, error)),
            }
        }
        Ok(())
    }
}

impl Appender for Growing {
    fn append(&mut self, parts: &[&[u8]]) -> Result<(), BackendError> {
        Failpoint::FILE_TORN.half_way(|| {
            let whole = parts.concat();
            let _ = self.file.write_all(&whole[..whole.len() / 2]);
        });
        let begin = self.length;
        let appended = self.append_all(parts);
        if appended.as_ref().is_err_and(BackendError::is_passing) {
            // The part that was written is overwritten by the next try; if there is none, it is a torn end.
            let back = self.file.seek(SeekFrom::Start(begin));
            back.map_err(|error| BackendError::lasting("append to", &self.path, error))?;
            self.length = begin;
        }
        appended
    }

    fn sync(&mut self) -> Result<(), BackendError> {
        self.file.sync_data().map_err(|error| BackendError::lasting("sync", &self.path, error))?;
        if !self.is_name_synced {
            let synced = self.directory.file.sync_all();
            synced.map_err(|error| BackendError::lasting("sync the directory of", &self.path, error))?;
            self.is_name_synced = true;
        }
        self.identity.check(&self.path)?;
        self.directory.kept.as_ref().map_or(Ok(()), |kept| kept.check(&self.directory.file))
    }

    fn reserve(&mut self, bytes: u64) -> Result<(), BackendError> {
        let end = self.length + bytes;
        let begin = self.length.max(self.extent);
        let mut at = begin;
        while at < end {
            let zeroes = &ZEROES[..ZEROES.len().min((end - at) as usize)];
            let written = self.file.write_all_at(zeroes, at);
            written.map_err(|error| BackendError::io("reserve room in", &self.path, error))?;
            at += zeroes.len() as u64;
            self.extent = self.extent.max(at);
        }
        // Has them written from now on, so that the next sync finds less to wait for; should it not, that waits longer.
        // Those that were reserved before are to stay in the page cache.
        #[cfg(target_os = "linux")]
        let _ = rustix::fs::fadvise(
            &self.file,
            begin,
            std::num::NonZeroU64::new(at - begin),
            rustix::fs::Advice::DontNeed,
        );
        Ok(())
    }

    fn reserved(&self) -> u64 {
        self.extent.saturating_sub(self.length)
    }

    fn len(&self) -> u64 {
        self.length
    }
}

impl Drop for Growing {
    /// Zeroes that stay do no harm.
    fn drop(&mut self) {
        if self.reserved() > 0
            && let Err(error) = self.file.set_len(self.length)
        {
            tracing::debug!(path = %self.path.display(), %error, "what was reserved in a file stays there");
        }
    }
}

/// A file that is open for reading.
#[derive(Debug)]
struct Opened {
    path: PathBuf,
    file: File,
}

impl ReadAt for Opened {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, BackendError> {
        read_at(&self.file, offset, buffer).map_err(|error| BackendError::io("read", &self.path, error))
    }

    fn len(&self) -> Result<u64, BackendError> {
        let metadata = self.file.metadata();
        metadata.map(|metadata| metadata.len()).map_err(|error| BackendError::io("read", &self.path, error))
    }
}

/// Fills the buffer; fewer bytes only where the file ends. A shortage is waited out for a moment.
pub(super) fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let (mut filled, mut shortages) = (0, 0);
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if shortage::is_passing(&error) && shortages < READ_SHORTAGES_MAX => {
                shortages += 1;
                std::thread::sleep(READ_PAUSE * shortages);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Makes a directory that only we may read, if it is not there, and opens it.
pub(super) fn make_directory(path: &Path) -> Result<File, BackendError> {
    let made = private::directory().create(path);
    made.map_err(|error| BackendError::io("create", path, error))?;
    let directory = File::open(path).map_err(|error| BackendError::io("open", path, error))?;
    private::keep(&directory, path);
    Ok(directory)
}

/// Makes the names in a directory safe.
pub(super) fn sync_directory(path: &Path) -> Result<(), BackendError> {
    let directory = File::open(path).map_err(|error| BackendError::io("open", path, error))?;
    directory.sync_all().map_err(|error| BackendError::lasting("sync", path, error))
}

/// The bytes that a file of this length takes.
pub(super) fn in_blocks(length: u64) -> u64 {
    length.next_multiple_of(BLOCK_BYTES)
}

fn file_name(file: FileId) -> String {
    format!("{:016x}.{}", file.number, file.kind)
}

/// The file that is called so in the directory of its kind.
fn named(kind: FileKind, name: &str) -> Option<FileId> {
    let number = u64::from_str_radix(name.get(..16)?, 16).ok()?;
    let file = FileId { kind, number };
    (file_name(file) == name).then_some(file)
}

const BLOCK_BYTES: u64 = 4_096;
/// How often a read is tried again for want of memory, and how much longer is waited each time: 150 ms in all.
const READ_SHORTAGES_MAX: u32 = 5;
const READ_PAUSE: Duration = Duration::from_millis(10);
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
