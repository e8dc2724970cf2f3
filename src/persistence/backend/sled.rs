//! The backend `sled`: the catalogue in sled 0.34, all else in files of ours.
//!
//! ```text
//! journal/ snapshot/ blob/ quarantine/   payload.rs, as in `files`
//! mark                                   mark.rs
//! sled/                                  sled's own: db, conf, snap.…, blobs/
//! sled-committed                         a mark: the number of the last commit that returned
//! ```
//!
//! In sled's default tree, integers little-endian:
//!
//! ```text
//! 00        the number of the last commit 8
//! 01 │ key  CRC32 of this key and the value 4 │ value
//! ```
//!
//! Payload is not in sled, as it keeps 2.9 times the bytes of large values and frees nothing when they are removed.
//! What is done about the rest that was found wrong with it:
//!
//! - Its flush is no fsync: after each, its files are synced by descriptors of ours, and directories with them.
//! - It recovers up to the first bad frame without a word: each commit has a number, and one that is missing at
//!   opening, or a value that its CRC32 does not fit, is damage.
//! - It panics where it is damaged: every call is caught. A panic in a commit ends all commits until the next opening.
//! - Damage found at opening: its directory is set aside whole, a fresh one begun, and a note says so. After it
//!   recovered less than there was, pages are from different times, so that no part of it can be believed.
//! - A full disk that it meets makes its reads fail as well, until it is opened again: a commit is refused while there
//!   is still a reserve.
//! - Its batches take a lock that stops all its readers: one commit is one batch, and one is made at a time.

use std::any::Any;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::Dir;
use sled::{Batch, Config, Db, Mode};

use super::files::LogCatalogue;
use super::mark::{MARK_FILE_BYTES, MarkFile, mark_of, number_in};
use super::on_files::{Catalogue, OnFiles};
use super::payload::{Payload, in_blocks, make_directory};
use super::presence::InodeId;
use super::{BackendError, BackendKind, CatalogueChange, Visit};
use crate::persistence::failpoint::Failpoint;
use crate::persistence::private;

/// Files in a directory, with sled for the catalogue.
pub type SledBackend = OnFiles<SledCatalogue>;

/// The catalogue in sled.
#[derive(Debug)]
pub struct SledCatalogue {
    directory: PathBuf,
    /// Taken only to be dropped.
    db: Option<Db>,
    /// Held by a commit from its begin to its end.
    writer: Mutex<Writer>,
    committed: MarkFile,
}

#[derive(Debug)]
struct Writer {
    /// Of the last commit.
    number: u64,
    files: OwnFiles,
    /// Whether a commit panicked, so that nobody knows what sled's memory holds.
    broken: bool,
}

impl Catalogue for SledCatalogue {
    const KIND: BackendKind = BackendKind::Sled;
    // Without the mark all that is in sled is believed.
    const PARTS: &'static [&'static str] = &["sled-committed", "sled"];
    type Other = LogCatalogue;

    fn open(root: &Path, payload: &Payload, notes: &mut Vec<String>) -> Result<Self, BackendError> {
        let directory = root.join("sled");
        let committed = MarkFile::open(&root.join("sled-committed"))?;
        let expected = committed.read()?.map_or(0, |mark| number_in(&mark));
        let (db, number) = match open_whole(&directory, expected) {
            Ok(opened) => opened,
            Err(Unopened::Refused(error)) => return Err(error),
            Err(Unopened::Damaged(reason)) => {
                let aside = if directory.is_dir() {
                    let aside = payload.quarantine_room().take(&directory, "sled")?;
                    format!("; set aside as {aside}")
                } else {
                    String::new()
                };
                notes.push(format!("the catalogue {} is lost: {reason}{aside}", directory.display()));
                let (db, _) = open_whole(&directory, 0).map_err(|error| match error {
                    Unopened::Refused(error) => error,
                    Unopened::Damaged(reason) => BackendError::catalogue("open", &directory, reason),
                })?;
                // The numbers go on behind those that were lost.
                (db, expected)
            }
        };
        let mut files = OwnFiles::open(&directory)?;
        files.sync()?;
        committed.write(&mark_of(number), true)?;
        let writer = Mutex::new(Writer { number, files, broken: false });
        Ok(Self { directory, db: Some(db), writer, committed })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        let stored = stored_key(key);
        let value = self.caught("read", |db| db.get(&stored))?;
        value.map(|value| self.checked(&stored, &value)).transpose()
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), BackendError> {
        let prefix = stored_key(prefix);
        let mut after = after.map(stored_key).filter(|after| *after >= prefix);
        loop {
            // Some at a time, so that a visit may commit and a panic of its own is not taken for sled's.
            let found = self.caught("read", |db| {
                let from = after.clone().map_or(Bound::Included(prefix.clone()), Bound::Excluded);
                db.range::<Vec<u8>, _>((from, Bound::Unbounded))
                    .take(SCAN_KEYS)
                    .collect::<Result<Vec<_>, _>>()
            })?;
            let more = found.len() == SCAN_KEYS;
            for (key, value) in found {
                if !key.starts_with(&prefix) || visit(&key[1..], &self.checked(&key, &value)?).is_break() {
                    return Ok(());
                }
                after = Some(key.to_vec());
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn commit(&self, changes: &[CatalogueChange<'_>]) -> Result<(), BackendError> {
        let mut batch = Batch::default();
        let mut bytes = 0;
        for change in changes {
            match change {
                CatalogueChange::Put(key, value) => {
                    let key = stored_key(key);
                    let value = [&value_crc(&key, value)[..], value].concat();
                    bytes += (key.len() + value.len()) as u64;
                    batch.insert(key, value);
                }
                CatalogueChange::Remove(key) => batch.remove(stored_key(key)),
            }
        }
        let mut writer = self.writer.lock();
        if writer.broken {
            let reason = "a commit before failed inside it; opening it again may help";
            return Err(BackendError::catalogue("commit", &self.directory, reason));
        }
        self.ask_for_room(bytes)?;
        let number = writer.number + 1;
        batch.insert(NUMBER_KEY, &number.to_le_bytes()[..]);
        let flushed = self.caught("commit", |db| db.apply_batch(batch).and_then(|()| db.flush()));
        // A number that was perhaps written is not given again.
        writer.number = number;
        if let Err(error) = flushed {
            writer.broken = true;
            return Err(error);
        }
        Failpoint::CATALOGUE_WRITTEN.reached();
        if let Err(error) = writer.files.sync() {
            // What a shortage kept from being synced, the next commit's sync has to make safe as well.
            writer.broken = !error.is_passing();
            return Err(error);
        }
        Failpoint::CATALOGUE_SYNCED.reached();
        self.committed.write(&mark_of(number), false)
    }

    /// It keeps to its cache ([`CACHE_BYTES`]), whatever there is on disk.
    fn memory_bytes(&self) -> u64 {
        0
    }

    fn disk_bytes(&self) -> Result<u64, BackendError> {
        let mut bytes = MARK_FILE_BYTES;
        for directory in [self.directory.clone(), self.directory.join("blobs")] {
            let refused = |error| BackendError::io("list", &directory, error);
            for entry in fs::read_dir(&directory).map_err(refused)? {
                match entry.map_err(refused)?.metadata() {
                    Ok(metadata) if metadata.is_file() => bytes += in_blocks(metadata.len()),
                    // A directory, or a file that sled has removed meanwhile.
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(refused(error)),
                }
            }
        }
        Ok(bytes)
    }
}

impl SledCatalogue {
    /// Refuses while it can be told as what it is: sled that has met a full disk fails its reads as well.
    fn ask_for_room(&self, bytes: u64) -> Result<(), BackendError> {
        let refused = |error| BackendError::io("commit to", &self.directory, error);
        let disk = rustix::fs::statvfs(&self.directory).map_err(|error| refused(error.into()))?;
        let room = disk.f_bavail.saturating_mul(disk.f_frsize);
        let wanted = RESERVE_BYTES + bytes.saturating_mul(2);
        if room < wanted {
            let why = format!("no storage space: sled wants {wanted} bytes free, and {room} are");
            return Err(refused(io::Error::new(io::ErrorKind::StorageFull, why)));
        }
        Ok(())
    }

    /// The value in what is stored under a key.
    fn checked(&self, key: &[u8], stored: &[u8]) -> Result<Vec<u8>, BackendError> {
        let value = value_in(key, stored).ok_or_else(|| {
            BackendError::catalogue("read", &self.directory, "a value does not fit its CRC32")
        })?;
        Ok(value.to_vec())
    }

    /// Calls sled, which may panic.
    fn caught<R>(
        &self,
        action: &'static str,
        call: impl FnOnce(&Db) -> Result<R, sled::Error>,
    ) -> Result<R, BackendError> {
        let Some(db) = &self.db else {
            return Err(BackendError::catalogue(action, &self.directory, "it is closed"));
        };
        match catch_unwind(AssertUnwindSafe(|| call(db))) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(refused(action, &self.directory, error)),
            Err(panic) => Err(BackendError::catalogue(action, &self.directory, said(&*panic))),
        }
    }
}

impl Drop for SledCatalogue {
    fn drop(&mut self) {
        let db = self.db.take();
        // It flushes, which may panic, and a panic in a drop may end the process.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
}

/// Why sled was not opened.
enum Unopened {
    /// It may be well: what is around it is not.
    Refused(BackendError),
    /// It is not whole.
    Damaged(String),
}

/// sled, opened and read.
enum Opened {
    /// All of it is as it was written; the number of its last commit.
    Whole(Db, u64),
    /// What is wrong with it.
    Damaged(Db, String),
}

/// Opens it and reads all of it. Says the number of its last commit.
fn open_whole(directory: &Path, expected: u64) -> Result<(Db, u64), Unopened> {
    // sled itself would let others look into it, where the umask does.
    make_directory(directory).map_err(Unopened::Refused)?;
    let opened = catch_unwind(|| {
        let db = open_patiently(directory)?;
        let number = db.get(NUMBER_KEY)?;
        for stored in db.range::<&[u8], _>((Bound::Excluded(NUMBER_KEY), Bound::Unbounded)) {
            let (key, value) = stored?;
            if value_in(&key, &value).is_none() {
                return Ok(Opened::Damaged(db, "a value does not fit its CRC32".to_owned()));
            }
        }
        let number = number.map_or(Some(0), |number| number.first_chunk().map(|n| u64::from_le_bytes(*n)));
        Ok(match number {
            Some(number) if number >= expected => Opened::Whole(db, number),
            Some(number) => Opened::Damaged(db, format!("it ends with commit {number} and had {expected}")),
            None => Opened::Damaged(db, "the number of its last commit is damaged".to_owned()),
        })
    });
    match opened {
        Ok(Ok(Opened::Whole(db, number))) => Ok((db, number)),
        Ok(Ok(Opened::Damaged(db, reason))) => {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
            Err(Unopened::Damaged(reason))
        }
        Ok(Err(error)) if is_around(&error) => Err(Unopened::Refused(refused("open", directory, error))),
        Ok(Err(error)) => Err(Unopened::Damaged(error.to_string())),
        Err(panic) => Err(Unopened::Damaged(format!("sled panicked: {}", said(&*panic)))),
    }
}

/// A database that was dropped is still locked for a moment, until threads of sled's have let go of it.
fn open_patiently(directory: &Path) -> Result<Db, sled::Error> {
    let config = Config::new().path(directory).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    let config = config.mode(Mode::LowSpace);
    let mut tries = OPEN_TRIES;
    loop {
        tries -= 1;
        match config.open() {
            Err(sled::Error::Io(error)) if is_locked(&error) && tries > 0 => {
                std::thread::sleep(OPEN_PAUSE);
            }
            other => return other,
        }
    }
}

/// sled's words where the database is open elsewhere.
fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other && error.to_string().contains("could not acquire lock")
}

/// Whether an error at opening says nothing about what is stored.
fn is_around(error: &sled::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, NotFound, Other, UnexpectedEof};
    match error {
        sled::Error::Io(error) => match error.kind() {
            InvalidData | InvalidInput | NotFound | UnexpectedEof => false,
            Other => is_locked(error),
            _ => true,
        },
        _ => false,
    }
}

fn refused(action: &'static str, directory: &Path, error: sled::Error) -> BackendError {
    match error {
        sled::Error::Io(error) => BackendError::io(action, directory, error),
        other => BackendError::catalogue(action, directory, other),
    }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a word").to_owned()
}

/// sled's files, as they are synced. All that is needed for that is open already, so that a sync meets no shortage of
/// descriptors but for a file that is new.
#[derive(Debug)]
struct OwnFiles {
    directory: PathBuf,
    /// Open all the time, so that no error of writing back in between is missed.
    db: File,
    db_identity: InodeId,
    /// The directory, and `blobs` in it.
    directories: [(PathBuf, Dir); 2],
    /// Files beside `db` that are written once, and were synced.
    synced: BTreeSet<OsString>,
}

impl OwnFiles {
    fn open(directory: &Path) -> Result<Self, BackendError> {
        let open = |path: &Path| File::open(path).map_err(|error| BackendError::io("open", path, error));
        let listed = |path: PathBuf| {
            let dir =
                Dir::new(open(&path)?).map_err(|error| BackendError::io("list", &path, error.into()))?;
            Ok::<_, BackendError>((path, dir))
        };
        let path = directory.join("db");
        let db = open(&path)?;
        private::keep(&db, &path);
        Ok(Self {
            db_identity: InodeId::of(&db).map_err(|error| BackendError::io("look at", &path, error))?,
            db,
            directories: [listed(directory.to_owned())?, listed(directory.join("blobs"))?],
            directory: directory.to_owned(),
            synced: BTreeSet::new(),
        })
    }

    /// Returns when all that sled has written is safe, and `db` is still under its name.
    fn sync(&mut self) -> Result<(), BackendError> {
        self.db.sync_data().map_err(|error| BackendError::lasting("sync", &self.directory, error))?;
        let mut there = BTreeSet::new();
        for (path, directory) in &mut self.directories {
            directory.rewind();
            while let Some(entry) = directory.read() {
                let entry = entry.map_err(|error| BackendError::io("list", path, error.into()))?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if [".", "..", "db", "blobs"].iter().any(|other| name == *other) {
                    continue;
                }
                if self.synced.contains(name) || sync_new(&path.join(name))? {
                    there.insert(name.to_owned());
                }
            }
        }
        if there != self.synced {
            // What is in it first, then itself.
            for (path, directory) in self.directories.iter().rev() {
                let synced = directory.fd().and_then(rustix::fs::fsync);
                synced.map_err(|error| BackendError::lasting("sync", path, error.into()))?;
            }
            self.synced = there;
        }
        self.db_identity.check(&self.directory.join("db"))
    }
}

/// Syncs a file that is not written any more; whether it is there still.
fn sync_new(path: &Path) -> Result<bool, BackendError> {
    let file = match File::open(path) {
        // Removed meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened.map_err(|error| BackendError::io("open", path, error))?,
    };
    private::keep(&file, path);
    file.sync_data().map_err(|error| BackendError::lasting("sync", path, error))?;
    Ok(true)
}

fn stored_key(key: &[u8]) -> Vec<u8> {
    [&[KEY_TAG], key].concat()
}

fn value_crc(stored_key: &[u8], value: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(stored_key);
    hasher.update(value);
    hasher.finalize().to_le_bytes()
}

/// `None`: it does not fit its CRC32, or is no key of ours.
fn value_in<'a>(stored_key: &[u8], stored: &'a [u8]) -> Option<&'a [u8]> {
    let (crc, value) = stored.split_first_chunk::<4>()?;
    (stored_key.first() == Some(&KEY_TAG) && *crc == value_crc(stored_key, value)).then_some(value)
}

const NUMBER_KEY: &[u8] = &[0];
const KEY_TAG: u8 = 1;
/// What sled may keep in memory. It takes more, and more still with less: 200,000 values of 100 bytes in commits of a
/// thousand grew the process by 125 MB with 32 and 64 MiB, by 350 MB with 16 and by 690 MB with 4.
const CACHE_BYTES: u64 = 64 << 20;
/// What is left free on the disk: two of sled's segments, of 512 KiB.
const RESERVE_BYTES: u64 = 1 << 20;
/// How often opening is tried while the database is locked, and how long is waited in between: 2 s in all.
const OPEN_TRIES: u32 = 400;
const OPEN_PAUSE: Duration = Duration::from_millis(5);
/// Keys that a scan takes at a time.
const SCAN_KEYS: usize = 256;
