//! The catalogue of `files`: a log of commits, and in memory where each key's value lies in it.
//!
//! ```text
//! catalogue/0000000000000007.log   the log that holds; frame.rs has its bytes
//! catalogue/0000000000000008.new   the one that takes its place, until it is whole and synced
//! catalogue/committed              a mark: the number of the last commit that returned; never ahead of the log
//! ```
//!
//! - A commit is one append and one fdatasync; it is seen by readers once that has returned. Readers do not wait for it.
//! - In memory is each key and 24 bytes of where its value lies, about 100 bytes a key with what the map and the
//!   allocator add. A value is read from the log, and held against its CRC32, whenever it is asked for.
//! - When more than half of the log and [`SLACK_BYTES`] are dead, the commit that finds it so writes what lives to a new
//!   log first. So the log and its successor take up to three times what lives, for a moment.
//! - An append that fails is cut off again. After a sync that failed nobody knows what the disk has: the next commit
//!   begins a new log.
//!
//! At opening, an incomplete commit at the end comes of a crash and is cut off. If whole commits come after it, or
//! there are fewer than [`LogCatalogue::committed`] has counted, the disk has lost something: the log is set aside as
//! it is, an empty one is begun, and a note says so. The commits before the damage were true once, but nothing may rest
//! on them: the files that they do not know of would be taken for superfluous.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::super::mark::{MARK_FILE_BYTES, MarkFile, mark_of, number_in};
use super::super::on_files::Catalogue;
use super::super::payload::{Payload, Quarantine, in_blocks, make_directory, read_at, sync_directory};
use super::super::presence::InodeId;
use super::super::sled::SledCatalogue;
use super::super::{BackendError, BackendKind, CatalogueChange, Visit};
use super::frame::{self, CHANGE_HEAD_BYTES, COMMIT_HEAD_BYTES, Change, CommitBuilder, CommitHead, Tip};
use crate::persistence::failpoint::Failpoint;
use crate::persistence::private;

/// The catalogue of `files`.
#[derive(Debug)]
pub struct LogCatalogue {
    directory: PathBuf,
    index: RwLock<Index>,
    /// Held by a commit from its begin to its end, and taken before `index`.
    writer: Mutex<Writer>,
    committed: MarkFile,
}

/// What readers need.
#[derive(Debug)]
struct Index {
    log: Arc<Log>,
    places: Places,
}

/// Where each key's value lies.
#[derive(Debug, Default)]
struct Places {
    by_key: BTreeMap<Box<[u8]>, ValueLocation>,
    /// The length of all keys.
    key_bytes: u64,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    number: u64,
    file: File,
}

/// Where a value lies.
#[derive(Debug, Clone, Copy)]
struct ValueLocation {
    offset: u64,
    bytes: u32,
    crc: u32,
}

#[derive(Debug)]
struct Writer {
    tip: Tip,
    /// Bytes that the living changes would take alone.
    live_bytes: u64,
    /// Whether the log may hold what nobody knows of, so that nothing may follow.
    doubtful: bool,
}

/// A log that was read back.
struct Read {
    index: Index,
    writer: Writer,
    /// Where the last commit begins.
    last: u64,
    length: u64,
}

impl Catalogue for LogCatalogue {
    const KIND: BackendKind = BackendKind::Files;
    const PARTS: &'static [&'static str] = &["catalogue"];
    type Other = SledCatalogue;

    fn open(root: &Path, payload: &Payload, notes: &mut Vec<String>) -> Result<Self, BackendError> {
        let (directory, quarantine) = (&*root.join("catalogue"), payload.quarantine_room());
        make_directory(directory)?;
        let committed = MarkFile::open(&directory.join("committed"))?;
        let expected = committed.read()?.map_or(0, |mark| number_in(&mark));
        let mut numbers = log_numbers(directory)?;
        let newest = numbers.last().copied().unwrap_or(0);
        let mut read = None;
        while let Some(number) = numbers.pop() {
            let path = log_path(directory, number);
            read = read_log(path.clone(), number)?;
            if read.is_some() {
                break;
            }
            let aside = quarantine.take(&path, &format!("catalogue-{number:016x}.log"))?;
            notes.push(format!("the catalogue {} has no head; set aside as {aside}", path.display()));
        }
        if read.is_none() && expected > 0 {
            notes
                .push(format!("the catalogue in {} is gone; it had {expected} commits", directory.display()));
        }
        let settled = read.map(|read| read.settle(expected, quarantine, notes)).transpose()?.flatten();
        // The numbers go on behind those that were lost, which nobody shall take for there.
        let (index, writer) = settled.map_or_else(|| empty_log(directory, newest + 1, expected + 1), Ok)?;
        for number in numbers {
            remove(&log_path(directory, number))?;
        }
        sync_directory(directory)?;
        let catalogue = Self {
            directory: directory.to_owned(),
            index: RwLock::new(index),
            writer: Mutex::new(writer),
            committed,
        };
        let last = catalogue.writer.lock().tip.number - 1;
        catalogue.committed.write(&mark_of(last), true)?;
        Ok(catalogue)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        let (log, location) = {
            let index = self.index.read();
            let Some(location) = index.places.by_key.get(key) else {
                return Ok(None);
            };
            (Arc::clone(&index.log), *location)
        };
        log.value(location).map(Some)
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), BackendError> {
        let mut after = after.filter(|after| *after >= prefix).map(Box::<[u8]>::from);
        loop {
            // Some at a time, so that neither a commit waits for a visit nor a visit that commits for itself.
            let (log, found) = {
                let index = self.index.read();
                let from = after.as_deref().map_or(Bound::Included(prefix), Bound::Excluded);
                let range = index.places.by_key.range::<[u8], _>((from, Bound::Unbounded));
                let found: Vec<(Box<[u8]>, ValueLocation)> = range
                    .take_while(|(key, _)| key.starts_with(prefix))
                    .take(SCAN_KEYS)
                    .map(|(key, location)| (key.clone(), *location))
                    .collect();
                (Arc::clone(&index.log), found)
            };
            let more = found.len() == SCAN_KEYS;
            for (key, location) in found {
                if visit(&key, &log.value(location)?).is_break() {
                    return Ok(());
                }
                after = Some(key);
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn commit(&self, changes: &[CatalogueChange<'_>]) -> Result<(), BackendError> {
        let mut writer = self.writer.lock();
        if writer.doubtful || writer.tip.offset > writer.live_bytes.saturating_mul(2) + SLACK_BYTES {
            match self.begin_anew(&mut writer) {
                // The old log goes on, until there is room, or a descriptor, or what cannot be read is removed.
                Err(error)
                    if !writer.doubtful
                        && (error.is_full()
                            || error.is_passing()
                            || matches!(error, BackendError::Catalogue { .. })) => {}
                other => other?,
            }
        }
        let log = Arc::clone(&self.index.read().log);
        let mut commit = CommitBuilder::new();
        let mut places = Vec::with_capacity(changes.len());
        for change in changes {
            let at = commit.add(*change).ok_or_else(|| log.error("commit", "4 GiB are too much at once"))?;
            places.push(match change {
                CatalogueChange::Put(_, value) => Some(location(writer.tip.offset + at as u64, value)),
                CatalogueChange::Remove(_) => None,
            });
        }
        let (bytes, behind) = commit.finish(writer.tip);
        if let Err(error) = log.file.write_all_at(&bytes, writer.tip.offset) {
            writer.doubtful = log.file.set_len(writer.tip.offset).is_err();
            return Err(BackendError::io("append to", &log.path, error));
        }
        Failpoint::CATALOGUE_WRITTEN.reached();
        if let Err(error) = log.sync() {
            writer.doubtful = true;
            return Err(error);
        }
        Failpoint::CATALOGUE_SYNCED.reached();
        writer.tip = behind;
        {
            let mut index = self.index.write();
            for (change, location) in changes.iter().zip(places) {
                let (CatalogueChange::Put(key, _) | CatalogueChange::Remove(key)) = change;
                writer.apply(&mut index.places, key, location);
            }
        }
        self.committed.write(&mark_of(behind.number - 1), false)
    }

    fn memory_bytes(&self) -> u64 {
        let index = self.index.read();
        index.places.key_bytes + index.places.by_key.len() as u64 * PLACE_BYTES
    }

    /// The log's length and the mark's, in whole blocks.
    fn disk_bytes(&self) -> Result<u64, BackendError> {
        let log = Arc::clone(&self.index.read().log);
        let metadata = log.file.metadata().map_err(|error| BackendError::io("read", &log.path, error))?;
        Ok(in_blocks(metadata.len()) + MARK_FILE_BYTES)
    }
}

impl LogCatalogue {
    /// Writes what lives to a new log, which takes the old one's place.
    fn begin_anew(&self, writer: &mut Writer) -> Result<(), BackendError> {
        let written = {
            let index = self.index.read();
            rewritten(&self.directory, &index, index.log.number + 1, writer.tip.number)
                .map_err(|error| (error, log_path(&self.directory, index.log.number + 1)))
        };
        let (anew, fresh) = written.map_err(|(error, path)| {
            // It has its name, but nobody knows whether the disk knows. Nothing may go to the old one now, which
            // opening would not look at.
            writer.doubtful |= path.symlink_metadata().is_ok();
            error
        })?;
        let old = std::mem::replace(&mut *self.index.write(), anew);
        *writer = fresh;
        // Opening takes the newest of several.
        remove(&old.log.path)
    }
}

impl Places {
    /// Sets a key's location; gives the one before.
    fn insert(&mut self, key: &[u8], location: ValueLocation) -> Option<ValueLocation> {
        match self.by_key.get_mut(key) {
            Some(old) => Some(std::mem::replace(old, location)),
            None => {
                self.key_bytes += key.len() as u64;
                self.by_key.insert(key.into(), location)
            }
        }
    }

    fn remove(&mut self, key: &[u8]) -> Option<ValueLocation> {
        let removed = self.by_key.remove(key)?;
        self.key_bytes -= key.len() as u64;
        Some(removed)
    }
}

impl Writer {
    fn apply(&mut self, places: &mut Places, key: &[u8], location: Option<ValueLocation>) {
        let bytes =
            |location: ValueLocation| (CHANGE_HEAD_BYTES + key.len()) as u64 + u64::from(location.bytes);
        let old = match location {
            Some(location) => {
                self.live_bytes += bytes(location);
                places.insert(key, location)
            }
            None => places.remove(key),
        };
        self.live_bytes -= old.map_or(0, bytes);
    }
}

impl Log {
    /// Returns when all that was written is safe, under the log's name.
    fn sync(&self) -> Result<(), BackendError> {
        self.file.sync_data().map_err(|error| BackendError::lasting("sync", &self.path, error))?;
        let identity = InodeId::of(&self.file);
        let identity = identity.map_err(|error| BackendError::lasting("look at", &self.path, error))?;
        identity.check(&self.path)
    }

    fn value(&self, location: ValueLocation) -> Result<Vec<u8>, BackendError> {
        let mut value = vec![0; location.bytes as usize];
        let read = read_at(&self.file, location.offset, &mut value);
        let read = read.map_err(|error| BackendError::io("read", &self.path, error))?;
        if read < value.len() || crc32fast::hash(&value) != location.crc {
            return Err(self.error("read", &format!("the value at byte {} is damaged", location.offset)));
        }
        Ok(value)
    }

    fn error(&self, action: &'static str, reason: &str) -> BackendError {
        BackendError::catalogue(action, &self.path, reason)
    }
}

impl Read {
    /// Takes it up where its last commit ends; `None`: it has lost something and is set aside.
    fn settle(
        mut self,
        expected: u64,
        quarantine: &Quarantine,
        notes: &mut Vec<String>,
    ) -> Result<Option<(Index, Writer)>, BackendError> {
        let log = &self.index.log;
        let path = log.path.clone();
        let failed = |action| move |error| BackendError::io(action, &path, error);
        let (good, kept) = (self.writer.tip.offset, self.writer.tip.number - 1);
        let tail_bytes = self.length - good;
        let mut tail = vec![0; usize::try_from(tail_bytes).unwrap_or(0)];
        read_at(&log.file, good, &mut tail).map_err(failed.clone()("read"))?;
        if kept < expected || frame::has_commit(&tail) {
            let aside = quarantine.take(&log.path, &format!("catalogue-{:016x}.log", log.number))?;
            notes.push(format!(
                "the catalogue {} is damaged behind byte {good}: of {expected} or more commits {kept} are whole, and \
                 {tail_bytes} bytes are not; it counts as lost, and is set aside as {aside}",
                log.path.display()
            ));
            return Ok(None);
        }
        if tail_bytes > 0 {
            log.file.set_len(good).map_err(failed.clone()("cut"))?;
            notes.push(format!(
                "the catalogue {} ended in a commit that was not finished: {tail_bytes} bytes cut off at byte {good}",
                log.path.display()
            ));
        }
        // Nobody knows whether the last commit was synced, or only read back from memory after a sync that failed.
        let mut last = vec![0; usize::try_from(good - self.last).unwrap_or(0)];
        read_at(&log.file, self.last, &mut last).map_err(failed.clone()("read"))?;
        log.file.write_all_at(&last, self.last).map_err(failed.clone()("write"))?;
        log.sync()?;
        self.writer.doubtful = false;
        Ok(Some((self.index, self.writer)))
    }
}

/// Reads a log up to its end or to the first commit that is not whole. `None`: it is no log.
fn read_log(path: PathBuf, number: u64) -> Result<Option<Read>, BackendError> {
    let failed = |error| BackendError::io("read", &path, error);
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let (expected, mut tip) = frame::log_head(number, 1);
    let mut head = expected;
    let whole = read_at(&file, 0, &mut head).map_err(failed)?;
    if whole < head.len() || head != expected {
        return Ok(None);
    }
    let mut writer = Writer { tip, live_bytes: 0, doubtful: false };
    let mut places = Places::default();
    let (mut last, mut bytes) = (tip.offset, Vec::new());
    loop {
        let mut head = [0; COMMIT_HEAD_BYTES];
        let read = read_at(&file, tip.offset, &mut head).map_err(failed)?;
        let rest = length.saturating_sub(tip.offset + COMMIT_HEAD_BYTES as u64);
        let found = CommitHead::parse(&head[..read]).filter(|head| head.belongs_at(tip));
        let Some(commit) = found.filter(|commit| commit.changes_bytes() <= rest) else {
            break;
        };
        bytes.resize(usize::try_from(commit.changes_bytes()).unwrap_or(0), 0);
        let begin = tip.offset + COMMIT_HEAD_BYTES as u64;
        let read = read_at(&file, begin, &mut bytes).map_err(failed)?;
        if read < bytes.len() || !commit.matches(&head, &bytes) {
            break;
        }
        let Some(changes) = frame::changes(&bytes) else {
            break;
        };
        for change in changes {
            match change {
                Change::Put { key, value, at } => {
                    writer.apply(&mut places, key, Some(location(begin + at as u64, value)));
                }
                Change::Remove { key } => writer.apply(&mut places, key, None),
            }
        }
        last = tip.offset;
        tip = commit.behind(tip.offset);
    }
    writer.tip = tip;
    let index = Index { log: Arc::new(Log { path, number, file }), places };
    Ok(Some(Read { index, writer, last, length }))
}

fn empty_log(directory: &Path, number: u64, commit: u64) -> Result<(Index, Writer), BackendError> {
    write_log(directory, number, commit, |_| Ok(()))
}

/// A new log with what lives in an old one. Its commits take numbers from `commit` on.
fn rewritten(
    directory: &Path,
    old: &Index,
    number: u64,
    commit: u64,
) -> Result<(Index, Writer), BackendError> {
    write_log(directory, number, commit, |fresh| {
        for (key, location) in &old.places.by_key {
            fresh.put(key, &old.log.value(*location)?)?;
        }
        Ok(())
    })
}

/// A log that is being written from scratch.
struct Fresh<'a> {
    path: &'a Path,
    file: &'a File,
    commit: CommitBuilder,
    places: Places,
    writer: Writer,
}

impl Fresh<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), BackendError> {
        let at = self.commit.add(CatalogueChange::Put(key, value));
        let at = at.ok_or_else(|| BackendError::catalogue("write", self.path, "a value is too large"))?;
        let location = location(self.writer.tip.offset + at as u64, value);
        self.writer.apply(&mut self.places, key, Some(location));
        if self.commit.len() >= REWRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), BackendError> {
        let (bytes, behind) =
            std::mem::replace(&mut self.commit, CommitBuilder::new()).finish(self.writer.tip);
        let written = self.file.write_all_at(&bytes, self.writer.tip.offset);
        written.map_err(|error| BackendError::io("write", self.path, error))?;
        self.writer.tip = behind;
        Ok(())
    }
}

/// Writes a log under a name that opening passes over, and gives it its own when it is safe.
fn write_log(
    directory: &Path,
    number: u64,
    commit: u64,
    fill: impl FnOnce(&mut Fresh<'_>) -> Result<(), BackendError>,
) -> Result<(Index, Writer), BackendError> {
    let draft_path = directory.join(format!("{number:016x}.new"));
    let opened = private::file().read(true).write(true).create(true).truncate(true).open(&draft_path);
    let file = opened.map_err(|error| BackendError::io("create", &draft_path, error))?;
    let (head, tip) = frame::log_head(number, commit);
    let written = (|| {
        let failed = |error| BackendError::io("write", &draft_path, error);
        file.write_all_at(&head, 0).map_err(failed)?;
        let mut fresh = Fresh {
            path: &draft_path,
            file: &file,
            commit: CommitBuilder::new(),
            places: Places::default(),
            writer: Writer { tip, live_bytes: 0, doubtful: false },
        };
        fill(&mut fresh)?;
        // Also when nothing is left to write: the first commit keeps the numbers going.
        fresh.flush()?;
        file.sync_data().map_err(|error| BackendError::lasting("sync", &draft_path, error))?;
        Ok((fresh.places, fresh.writer))
    })();
    let path = log_path(directory, number);
    let renamed = written.and_then(|written| {
        let renamed = fs::rename(&draft_path, &path);
        renamed.map(|()| written).map_err(|error| BackendError::io("rename", &draft_path, error))
    });
    let (places, writer) = renamed.inspect_err(|_| {
        // Its room may be what is missing. Opening passes it over if it stays.
        let _ = fs::remove_file(&draft_path);
    })?;
    sync_directory(directory)?;
    Ok((Index { log: Arc::new(Log { path, number, file }), places }, writer))
}

/// The logs that are there, in order. Drafts are removed.
fn log_numbers(directory: &Path) -> Result<Vec<u64>, BackendError> {
    let failed = |error| BackendError::io("list", directory, error);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some((number, kind)) = name.to_str().and_then(|name| name.split_once('.')) else {
            continue;
        };
        match (u64::from_str_radix(number, 16), kind) {
            (Ok(number), "log") if name.to_str() == Some(&format!("{number:016x}.log")) => {
                numbers.push(number);
            }
            (Ok(_), "new") => remove(&directory.join(&name))?,
            _ => {}
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn log_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016x}.log"))
}

fn remove(path: &Path) -> Result<(), BackendError> {
    fs::remove_file(path).map_err(|error| BackendError::io("delete", path, error))
}

fn location(offset: u64, value: &[u8]) -> ValueLocation {
    ValueLocation {
        offset,
        bytes: u32::try_from(value.len()).unwrap_or(u32::MAX),
        crc: crc32fast::hash(value),
    }
}

/// Dead bytes that a log may have, however little lives.
const SLACK_BYTES: u64 = 1 << 20;
/// What a location takes in memory beside its key, in the map and of the allocator.
const PLACE_BYTES: u64 = 100;
/// Length of a commit in a log that is written anew.
const REWRITE_BYTES: usize = 1 << 20;
/// Keys that a scan takes at a time.
const SCAN_KEYS: usize = 256;
