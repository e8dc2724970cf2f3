//! A backend in memory whose crashes and faults are made to order: for tests.
//!
//! It keeps apart what was synced and what was not, per file and for each file's name, so that [`crash`] can leave what
//! a power failure would leave. Calls are counted, and a [`Fault`] makes the one refuse that a test chooses, so that a
//! run can be repeated with every call of it failing once.
//!
//! As disks do, and not kinder:
//!
//! - A failed append has written some part of what it was given; one that met a shortage has not.
//! - A failed sync has lost what it was for: the bytes are still read back, as they are from a page cache, but neither
//!   a crash nor a later sync that succeeds brings them to the disk.
//! - A failed commit may be there after a crash, or not; one whose sync failed is there until the crash.
//! - A file that was deleted may be there again after a crash, until a new file in its directory was synced.
//!
//! Nothing here is drawn from outside: the same calls and the same seeds leave the same bytes.
//!
//! [`crash`]: MemoryBackend::crash

mod bytes;
mod draws;
mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use draws::Draws;
pub use faults::{Call, Fault, IoFault, Strikes};
use parking_lot::{Mutex, MutexGuard};

use super::{
    Appender, Backend, BackendError, CatalogueChange, DiskSpace, FileId, FileKind, MARK_BYTES, ReadAt, Visit,
};

/// What a crash takes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lose {
    /// Nothing: the process was killed, the operating system went on. Also the way to a copy.
    Nothing,
    /// All that was not synced; what was deleted is back.
    Unsynced,
    /// A part of what was not synced, drawn from this seed: files end anywhere, also in the middle of an append; names
    /// are there or not; so are commits that failed.
    Tail(u64),
    /// As [`Self::Tail`], and what is left of the unsynced part has sectors of zeroes.
    Holes(u64),
}

/// A backend in memory, for tests. Clones share what it keeps; [`Self::crash`] makes one that does not.
#[derive(Debug, Clone, Default)]
pub struct MemoryBackend {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<FileId, Named>,
    /// Deleted files whose names are still on the disk.
    deleted: BTreeMap<FileId, Content>,
    quarantined: Vec<(FileId, Content)>,
    /// Files that somebody else took away, and nobody has been told.
    taken: BTreeSet<FileId>,
    /// Those that a crash may leave, the newest last: the one that was synced last, and all after it.
    marks: Vec<[u8; MARK_BYTES]>,
    /// Whether the first of `marks` was synced.
    mark_synced: bool,
    catalogue: BTreeMap<Vec<u8>, Vec<u8>>,
    /// A commit that failed and that a crash may bring back: the catalogue with it.
    failed_commit: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
    calls: Vec<Call>,
    faults: Vec<Fault>,
    meanwhile: Option<(Call, Meanwhile)>,
    room: Option<u64>,
}

#[derive(Debug, Clone)]
struct Named {
    content: Content,
    synced: bool,
}

/// What a test does in the middle of a call.
#[derive(Clone)]
struct Meanwhile(Arc<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

/// A file's bytes, shared with those that read or write it.
type Content = Arc<Mutex<Bytes>>;

impl MemoryBackend {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What a restart finds when the node dies now. This one stays as it is, with its calls and faults; the new one
    /// has none of those.
    #[must_use]
    pub fn crash(&self, lose: Lose) -> Self {
        let state = self.state.lock();
        let mut left = State { room: state.room, ..State::default() };
        left.quarantined = state.quarantined.iter().map(|(file, content)| (*file, copy(content))).collect();
        let mut draws = match lose {
            Lose::Nothing => {
                left.files = state.files.iter().map(|(file, named)| (*file, named.copy())).collect();
                left.deleted = state.deleted.iter().map(|(file, content)| (*file, copy(content))).collect();
                left.marks.clone_from(&state.marks);
                left.mark_synced = state.mark_synced;
                left.catalogue = state.catalogue.clone();
                return Self { state: Arc::new(Mutex::new(left)) };
            }
            Lose::Unsynced => None,
            Lose::Tail(seed) | Lose::Holes(seed) => Some(Draws(seed)),
        };
        let holes = matches!(lose, Lose::Holes(_));
        for (file, content) in &state.deleted {
            if draws.as_mut().is_none_or(Draws::coin) {
                left.files.insert(*file, Named::survived(content.lock().survive(draws.as_mut(), holes)));
            }
        }
        for (file, named) in &state.files {
            if named.synced || draws.as_mut().is_some_and(Draws::coin) {
                let bytes = named.content.lock().survive(draws.as_mut(), holes);
                left.files.insert(*file, Named::survived(bytes));
            }
        }
        let choices = state.marks.len() + usize::from(!state.mark_synced);
        let chosen = draws.as_mut().map_or(0, |draws| draws.below(choices));
        let mark = if state.mark_synced { Some(chosen) } else { chosen.checked_sub(1) };
        left.marks.extend(mark.and_then(|mark| state.marks.get(mark)));
        left.mark_synced = !left.marks.is_empty();
        left.catalogue = match &state.failed_commit {
            Some(failed) if draws.as_mut().is_some_and(Draws::coin) => failed.clone(),
            _ => state.catalogue.clone(),
        };
        Self { state: Arc::new(Mutex::new(left)) }
    }

    /// Makes a call fail. Several may be planned; each counts for itself.
    pub fn plan(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    /// Makes one call fail with EIO, after `passing` calls of any kind.
    pub fn fail_once_after(&self, passing: u64) {
        self.plan(Fault { call: None, passing, refusal: IoFault::Io, strikes: Strikes::Once });
    }

    /// Forgets all faults that are planned.
    pub fn heal(&self) {
        self.state.lock().faults.clear();
    }

    /// Has something done in each [`Call::Files`] or [`Call::Append`] when all is settled that it comes to, before it
    /// returns. It may call this backend.
    pub fn in_each(&self, call: Call, act: impl Fn() + Send + Sync + 'static) {
        self.state.lock().meanwhile = Some((call, Meanwhile(Arc::new(act))));
    }

    /// Lets all files together hold `bytes` bytes; `None`: any number. An append that goes beyond writes what has room
    /// and fails.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.state.lock().room = bytes;
    }

    /// How many calls were made.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state.lock().calls.len() as u64
    }

    /// How many calls of one kind were made.
    #[must_use]
    pub fn calls_of(&self, kind: Call) -> u64 {
        self.state.lock().calls.iter().filter(|call| **call == kind).count() as u64
    }

    /// Flips a bit of a file, as a disk that forgets. Says whether there is one.
    pub fn flip_bit(&self, file: FileId, offset: u64, bit: u32) -> bool {
        self.with_bytes(file, |bytes| {
            let at = usize::try_from(offset).ok()?;
            *bytes.bytes.get_mut(at)? ^= 1 << (bit % 8);
            Some(())
        })
        .flatten()
        .is_some()
    }

    /// Cuts a file off at a length; a longer one changes nothing. Says whether there is such a file.
    pub fn truncate(&self, file: FileId, length: u64) -> bool {
        self.with_bytes(file, |bytes| bytes.cut(usize::try_from(length).unwrap_or(usize::MAX))).is_some()
    }

    /// Removes a file behind the node's back; an open file stays readable. Says whether there was one.
    pub fn take_away(&self, file: FileId) -> bool {
        let mut state = self.state.lock();
        let is_taken = state.files.remove(&file).is_some();
        if is_taken {
            state.taken.insert(file);
        }
        is_taken
    }

    /// A file's bytes, as they are read now.
    #[must_use]
    pub fn content(&self, file: FileId) -> Option<Vec<u8>> {
        self.with_bytes(file, |bytes| bytes.whole())
    }

    /// Puts a file there, synced, in place of any of that name.
    pub fn put_content(&self, file: FileId, content: Vec<u8>) {
        let bytes = Bytes { synced: content.len(), bytes: content, ..Bytes::default() };
        self.state.lock().files.insert(file, Named::survived(bytes));
    }

    /// The files that were set aside, in that order.
    #[must_use]
    pub fn quarantined(&self) -> Vec<FileId> {
        self.state.lock().quarantined.iter().map(|(file, _)| *file).collect()
    }

    fn with_bytes<R>(&self, file: FileId, act: impl FnOnce(&mut Bytes) -> R) -> Option<R> {
        let state = self.state.lock();
        state.files.get(&file).map(|named| act(&mut named.content.lock()))
    }
}

impl Backend for MemoryBackend {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn files(&self) -> Result<Vec<(FileId, u64)>, BackendError> {
        let mut state = self.state.lock();
        state.call(Call::Files, "list", "the files")?;
        let files =
            state.files.iter().map(|(file, named)| (*file, named.content.lock().len() as u64)).collect();
        meanwhile(state, Call::Files);
        Ok(files)
    }

    fn create(&self, file: FileId) -> Result<Box<dyn Appender>, BackendError> {
        let mut state = self.state.lock();
        state.call(Call::Create, "create", file)?;
        if state.files.contains_key(&file) {
            return Err(refused("create", file, io::ErrorKind::AlreadyExists.into()));
        }
        let content = Content::default();
        state.files.insert(file, Named { content: Arc::clone(&content), synced: false });
        Ok(Box::new(Growing { file, content, state: Arc::clone(&self.state) }))
    }

    fn open(&self, file: FileId) -> Result<Box<dyn ReadAt>, BackendError> {
        let mut state = self.state.lock();
        state.call(Call::Open, "open", file)?;
        let named = state.files.get(&file);
        let named = named.ok_or_else(|| refused("open", file, io::ErrorKind::NotFound.into()))?;
        let content = Arc::clone(&named.content);
        Ok(Box::new(Opened { file, content, state: Arc::clone(&self.state) }))
    }

    fn has(&self, file: FileId) -> Result<bool, BackendError> {
        Ok(self.state.lock().files.contains_key(&file))
    }

    fn delete(&self, file: FileId) -> Result<(), BackendError> {
        let mut state = self.state.lock();
        state.taken.remove(&file);
        state.call(Call::Delete, "delete", file)?;
        if let Some(named) = state.files.remove(&file)
            && named.synced
        {
            state.deleted.insert(file, named.content);
        }
        Ok(())
    }

    fn quarantine(&self, file: FileId) -> Result<String, BackendError> {
        let mut state = self.state.lock();
        state.taken.remove(&file);
        state.call(Call::Quarantine, "set aside", file)?;
        let named = state.files.remove(&file);
        let named = named.ok_or_else(|| refused("set aside", file, io::ErrorKind::NotFound.into()))?;
        state.quarantined.push((file, named.content));
        Ok(format!("memory/quarantine/{}/{file}", state.quarantined.len()))
    }

    fn read_mark(&self) -> Result<Option<[u8; MARK_BYTES]>, BackendError> {
        let mut state = self.state.lock();
        state.call(Call::ReadMark, "read", "the mark")?;
        Ok(state.marks.last().copied())
    }

    fn write_mark(&self, mark: &[u8; MARK_BYTES], synced: bool) -> Result<(), BackendError> {
        let mut state = self.state.lock();
        if let Err(error) = state.call(Call::WriteMark, "write", "the mark") {
            if error.is_passing() {
                return Err(error);
            }
            // Any of these is what the disk has after that, this one too.
            if state.draw().coin() {
                state.marks.push(*mark);
            }
            return Err(error);
        }
        if synced {
            state.marks.clear();
            state.mark_synced = true;
        }
        state.marks.push(*mark);
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        let mut state = self.state.lock();
        state.call(Call::Get, "read", "the catalogue")?;
        Ok(state.catalogue.get(key).cloned())
    }

    fn commit(&self, changes: &[CatalogueChange<'_>]) -> Result<(), BackendError> {
        let mut state = self.state.lock();
        let called = state.call(Call::Commit, "commit to", "the catalogue");
        let mut changed = state.catalogue.clone();
        for change in changes {
            match change {
                CatalogueChange::Put(key, value) => drop(changed.insert(key.to_vec(), value.to_vec())),
                CatalogueChange::Remove(key) => drop(changed.remove(*key)),
            }
        }
        if called.is_err() {
            state.failed_commit = Some(changed);
            return called;
        }
        let before = std::mem::replace(&mut state.catalogue, changed);
        let synced = state.call(Call::CommitSync, "sync", "the catalogue");
        state.failed_commit = synced.is_err().then_some(before);
        synced
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), BackendError> {
        // A copy, so that `visit` may call.
        let catalogue = {
            let mut state = self.state.lock();
            state.call(Call::Scan, "read", "the catalogue")?;
            state.catalogue.clone()
        };
        let from = after.filter(|after| *after >= prefix).map_or(Bound::Included(prefix), Bound::Excluded);
        for (key, value) in catalogue.range::<[u8], _>((from, Bound::Unbounded)) {
            if !key.starts_with(prefix) || visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64, BackendError> {
        let mut state = self.state.lock();
        state.call(Call::DiskBytes, "count", "the files")?;
        let catalogue: usize = state.catalogue.iter().map(|(key, value)| key.len() + value.len()).sum();
        Ok(state.file_bytes() + catalogue as u64 + MARK_BYTES as u64)
    }

    fn space(&self) -> Result<DiskSpace, BackendError> {
        let state = self.state.lock();
        if let Some(file) = state.taken.iter().find(|file| file.kind == FileKind::Journal) {
            return Err(refused("use", file, io::ErrorKind::NotFound.into()));
        }
        Ok(DiskSpace { total_bytes: state.room.unwrap_or(u64::MAX), free_bytes: state.room_left() })
    }
}

impl State {
    /// Counts a call, and refuses it if that is planned.
    fn call(
        &mut self,
        call: Call,
        action: &'static str,
        place: impl std::fmt::Display,
    ) -> Result<(), BackendError> {
        self.calls.push(call);
        let mut met = None;
        self.faults.retain_mut(|fault| {
            if !fault.meets(call) {
                return true;
            }
            if let Some(passing) = fault.passing.checked_sub(1) {
                fault.passing = passing;
                return true;
            }
            met = Some(fault.refusal);
            fault.strikes == Strikes::FromThenOn
        });
        met.map_or(Ok(()), |refusal| Err(refused(action, place, refusal.error())))
    }

    /// Draws that differ from call to call and not from run to run.
    fn draw(&self) -> Draws {
        Draws(self.calls.len() as u64)
    }

    fn room_left(&self) -> u64 {
        self.room.map_or(u64::MAX, |room| room.saturating_sub(self.file_bytes()))
    }

    fn file_bytes(&self) -> u64 {
        self.files.values().map(|named| named.content.lock().len() as u64).sum()
    }
}

impl Named {
    fn copy(&self) -> Self {
        Self { content: copy(&self.content), synced: self.synced }
    }

    fn survived(bytes: Bytes) -> Self {
        Self { content: Arc::new(Mutex::new(bytes)), synced: true }
    }
}

/// A file that is being written.
#[derive(Debug)]
struct Growing {
    file: FileId,
    content: Content,
    state: Arc<Mutex<State>>,
}

impl Appender for Growing {
    fn append(&mut self, parts: &[&[u8]]) -> Result<(), BackendError> {
        let mut state = self.state.lock();
        let mut called = state.call(Call::Append, "append to", self.file);
        let mut bytes = parts.concat();
        if let Err(error) = &called {
            let written = if error.is_passing() { 0 } else { state.draw().below(bytes.len() + 1) };
            bytes.truncate(written);
        }
        let room = state.room_left().saturating_add(self.reserved());
        if bytes.len() as u64 > room {
            called = Err(refused("append to", self.file, IoFault::Full.error()));
            bytes.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        }
        self.content.lock().bytes.extend_from_slice(&bytes);
        meanwhile(state, Call::Append);
        called
    }

    fn sync(&mut self) -> Result<(), BackendError> {
        let mut state = self.state.lock();
        let called = state.call(Call::Sync, "sync", self.file);
        let mut content = self.content.lock();
        let unsynced = content.synced..content.bytes.len();
        content.synced = unsynced.end;
        if called.is_ok() {
            content.synced_extent = content.extent;
        }
        if called.is_err() {
            if !unsynced.is_empty() {
                content.lost.push(unsynced);
            }
            return called;
        }
        drop(content);
        let is_journal = self.file.kind == FileKind::Journal;
        if state.taken.iter().any(|file| *file == self.file || is_journal && file.kind == FileKind::Journal) {
            return Err(refused("use", self.file, io::ErrorKind::NotFound.into()));
        }
        // It may have been deleted, or be another by now.
        if let Some(named) = state.files.get_mut(&self.file)
            && Arc::ptr_eq(&named.content, &self.content)
            && !named.synced
        {
            named.synced = true;
            state.deleted.retain(|deleted, _| deleted.kind != self.file.kind);
        }
        Ok(())
    }

    fn reserve(&mut self, bytes: u64) -> Result<(), BackendError> {
        let mut state = self.state.lock();
        let mut called = state.call(Call::Reserve, "reserve room in", self.file);
        let room = state.room_left().saturating_add(self.reserved());
        if bytes > room {
            called = called.and(Err(refused("reserve room in", self.file, IoFault::Full.error())));
        }
        let mut content = self.content.lock();
        let length = content.bytes.len();
        let most = length + usize::try_from(bytes.min(room)).unwrap_or(usize::MAX);
        let end = if called.is_ok() { most } else { length + state.draw().below(most - length + 1) };
        content.extent = content.extent.max(end);
        called
    }

    fn reserved(&self) -> u64 {
        let content = self.content.lock();
        content.len() as u64 - content.bytes.len() as u64
    }

    fn len(&self) -> u64 {
        self.content.lock().bytes.len() as u64
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        self.content.lock().extent = 0;
    }
}

/// A file that is open for reading.
#[derive(Debug)]
struct Opened {
    file: FileId,
    content: Content,
    state: Arc<Mutex<State>>,
}

impl ReadAt for Opened {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, BackendError> {
        self.state.lock().call(Call::Read, "read", self.file)?;
        let content = self.content.lock();
        let from = usize::try_from(offset).map_or(content.len(), |from| from.min(content.len()));
        let read = buffer.len().min(content.len() - from);
        let bytes = content.bytes.get(from..).unwrap_or_default();
        let (written, zeroes) = buffer[..read].split_at_mut(read.min(bytes.len()));
        written.copy_from_slice(&bytes[..written.len()]);
        zeroes.fill(0);
        Ok(read)
    }

    fn len(&self) -> Result<u64, BackendError> {
        self.state.lock().call(Call::Read, "read", self.file)?;
        Ok(self.content.lock().len() as u64)
    }
}

/// Does what is to be done in the middle of a call.
fn meanwhile(state: MutexGuard<'_, State>, call: Call) {
    let act = state.meanwhile.as_ref().filter(|(when, _)| *when == call).map(|(_, act)| act.clone());
    drop(state);
    if let Some(Meanwhile(act)) = act {
        act();
    }
}

fn copy(content: &Content) -> Content {
    Arc::new(Mutex::new(content.lock().ended()))
}

fn refused(action: &'static str, place: impl std::fmt::Display, source: io::Error) -> BackendError {
    BackendError::at(action, format!("memory/{place}"), source)
}
