//! The disk as a tier below memory: where the newest record of every key lies, so that an entry that is not in memory
//! can be read from its file.
//!
//! An ordered map for each shard of the engine leads from a key's hash to its location: file, offset, length, checksum.
//! Records arrive in the order in which they are in the journal, from its thread ([`DiskTier::arrive`]), and at a start
//! from the files themselves. Keys are not kept: a record says its own, and is compared with what was asked for. (Two
//! keys of one namespace with the same 64-bit hash would take each other's place: one in 10^5 at ten million keys. The
//! one that was written first is missed then; never is one answered for the other.)
//!
//! - A lookup is right for everything that had arrived: it waits for what its shard had logged
//!   ([`DiskTier::has_arrived`]).
//! - Invalidations by prefix and tag stand beside the locations and are held against each record that is read; a
//!   namespace that is cleared loses its locations at once.
//! - While old files are *indexed* behind what is newer ([`DiskTier::begin_indexing`]), a location that is taken, or was
//!   given up since, is left as it is, and a lookup that finds none waits for the end.
//! - A snapshot copies what is live and leads the locations there.

mod moving;
mod pending_invalidations;
mod record_index;

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, RwLock};

use super::backend::{Backend, BackendError, FileId, ReadAt};
use super::record::{self, Malformed};
use crate::engine::{Engine, Put, Record, Refusal, Scope};
use crate::entry::Expiry;
pub use moving::Moves;
use pending_invalidations::PendingInvalidations;
use record_index::{RecordIndex, RecordLocation};

/// The disk as a tier below memory.
#[derive(Debug)]
pub struct DiskTier {
    backend: Arc<dyn Backend>,
    /// By the engine's shard.
    shards: Box<[Mutex<RecordIndex>]>,
    /// How many records and barriers of each shard have arrived.
    arrived: Box<[AtomicU64]>,
    files: RwLock<Files>,
    pending_invalidations: RwLock<PendingInvalidations>,
    indexing: Mutex<Indexing>,
    indexed: Condvar,
    /// [`Indexing::is_under_way`], to be read without a lock.
    is_indexing: AtomicBool,
    has_ended: AtomicBool,
    counters: TierCounters,
    /// Files that were found to be damaged.
    damaged: Mutex<Vec<FileId>>,
    /// The locations take as much memory as they may.
    is_full: AtomicBool,
}

/// Invalidations that stand may take this part of the cache's limit.
const PENDING_INVALIDATIONS_PART: u64 = 16;
/// All that is kept in memory of what lies on disk may take this part of the cache's limit before a key is stored that
/// has no location yet.
const PLACES_PART: u64 = 2;

/// What is counted for metrics.
#[derive(Debug, Default)]
pub struct TierCounters {
    /// Lookups that found an entry.
    pub hits: AtomicU64,
    /// Lookups that found none.
    pub misses: AtomicU64,
    /// Records that were not as they were written.
    pub damaged: AtomicU64,
}

#[derive(Debug, Default)]
struct Files {
    by_number: HashMap<u32, (FileId, Arc<dyn ReadAt>)>,
    made: u32,
    /// The file that the journal writes, and where what has arrived of it ends.
    written: Option<(u32, u64)>,
}

impl Files {
    fn add(&mut self, file: (FileId, Arc<dyn ReadAt>)) -> u32 {
        let number = self.made;
        self.made += 1;
        self.by_number.insert(number, file);
        number
    }
}

/// Whether files are being indexed behind what is newer.
#[derive(Debug, Default)]
struct Indexing {
    is_under_way: bool,
    /// Namespaces that were cleared or deleted since: what the old files have of them is dead.
    cleared: Vec<u16>,
}

/// An entry's record, as it was read.
#[derive(Debug)]
pub struct Found {
    bytes: Vec<u8>,
    /// The expiry that it was given after it was written.
    expiry: Option<Expiry>,
}

/// How far a scan of a shard came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scanned {
    /// To the shard's end.
    All,
    /// To the entry of this hash, and there may be more; `None`: past no entry.
    UpTo(Option<u64>),
}

/// Why an entry could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The disk refuses.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The record is not as it was written.
    #[error("{file} is damaged at byte {offset}: a record of {bytes} bytes is not as it was written")]
    Damaged {
        /// The file.
        file: FileId,
        /// Where the record begins.
        offset: u64,
        /// Its length.
        bytes: u32,
    },
}

impl DiskTier {
    /// An empty tier under an engine of `shards` shards.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, shards: usize) -> Self {
        Self {
            backend,
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            arrived: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            files: RwLock::default(),
            pending_invalidations: RwLock::default(),
            indexing: Mutex::default(),
            indexed: Condvar::new(),
            is_indexing: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            counters: TierCounters::default(),
            damaged: Mutex::default(),
            is_full: AtomicBool::new(false),
        }
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> &TierCounters {
        &self.counters
    }

    /// How many keys have a location; dead ones that nobody has noticed are counted.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.shards.iter().map(|locations| locations.lock().len() as u64).sum()
    }

    /// How long all records are that a location leads to; dead ones that nobody has noticed are counted. Looks at each.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        let mut bytes = 0;
        for locations in &self.shards {
            locations.lock().each(|_, location, _| bytes += u64::from(location.len()));
        }
        bytes
    }

    /// Whether no key has a location.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that this takes for each shard, about.
    pub fn bytes(&self) -> impl Iterator<Item = u64> {
        let pending_invalidations = self.pending_invalidations.read().bytes() / self.shards.len() as u64;
        self.shards.iter().map(move |locations| locations.lock().bytes() + pending_invalidations)
    }

    /// Whether the locations took as much memory as they may when something arrived last.
    #[must_use]
    #[inline]
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Whether a key can be stored beside a cache of this limit in bytes where [`Self::is_full`]: one that has no location
    /// yet cannot.
    ///
    /// # Errors
    /// It cannot.
    pub fn takes_key(&self, (shard, hash): (usize, u64), bytes_limit: u64) -> Result<(), Refusal> {
        if self.shards[shard].lock().get(hash).is_some() {
            return Ok(());
        }
        Err(Refusal::PlacesOnDiskFull { bytes: self.bytes().sum(), limit: bytes_limit / PLACES_PART })
    }

    /// Whether one more invalidation can be noted beside a cache of this limit in bytes: what stands is bounded, and
    /// given back with the next snapshot.
    ///
    /// # Errors
    /// It cannot.
    pub fn takes_invalidation(
        &self,
        namespace: u16,
        scope: Scope<'_>,
        bytes_limit: u64,
    ) -> Result<(), Refusal> {
        self.pending_invalidations.read().takes(namespace, scope, bytes_limit / PENDING_INVALIDATIONS_PART)
    }

    /// Whether the noted invalidations fill half of their memory, so that a snapshot should be taken.
    #[must_use]
    pub fn is_crowded(&self, bytes_limit: u64) -> bool {
        self.pending_invalidations.read().is_crowded(bytes_limit / PENDING_INVALIDATIONS_PART)
    }

    /// Forgets everything that has arrived; files that were opened count no more.
    pub fn clear(&self) {
        let mut indexing = self.indexing.lock();
        indexing.cleared.clear();
        self.shards.iter().for_each(|locations| locations.lock().clear());
        *self.files.write() = Files::default();
        *self.pending_invalidations.write() = PendingInvalidations::default();
    }

    /// All that is to be found is in memory: nothing arrives any more, and nothing is found here.
    pub fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.clear();
    }

    /// Whether [`Self::end`] was called.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Opens a file whose records are to arrive; its number from now on.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(&self, file: FileId) -> Result<u32, BackendError> {
        let reader: Arc<dyn ReadAt> = Arc::from(self.backend.open(file)?);
        Ok(self.files.write().add((file, reader)))
    }

    /// As [`Self::open`], for a file of `bytes` bytes that is still being written: no more of it is read than has
    /// arrived ([`Self::set_written`]).
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open_written(&self, file: FileId, bytes: u64) -> Result<u32, BackendError> {
        let reader: Arc<dyn ReadAt> = Arc::from(self.backend.open(file)?);
        let mut files = self.files.write();
        let number = files.add((file, reader));
        files.written = Some((number, bytes));
        Ok(number)
    }

    /// All has arrived of the file that is being written up to here.
    pub fn set_written(&self, file: u32, end: u64) {
        self.files.write().written = Some((file, end));
    }

    /// Closes the files that are not there any more, but for those to which a location leads: what somebody else has deleted
    /// can be read for as long as it is open, and is copied by the next snapshot. Looks at each location where there is such a
    /// file.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn close_deleted(&self) -> Result<(), BackendError> {
        // Before the directory is read: what is opened after that is not in what was read.
        let mut gone: HashMap<u32, FileId> =
            self.files.read().by_number.iter().map(|(number, (file, _))| (*number, *file)).collect();
        let there = self.backend.files()?;
        gone.retain(|_, file| !there.iter().any(|(other, _)| other == file));
        for locations in &self.shards {
            if gone.is_empty() {
                return Ok(());
            }
            locations.lock().each(|_, location, _| {
                gone.remove(&location.file());
            });
        }
        self.files.write().by_number.retain(|number, _| !gone.contains_key(number));
        Ok(())
    }

    /// The files that are open, for tests.
    #[cfg(test)]
    pub(super) fn open_files(&self) -> Vec<FileId> {
        self.files.read().by_number.values().map(|(file, _)| *file).collect()
    }

    /// A file is not as it was written.
    pub fn set_damaged(&self, file: FileId) {
        self.damaged.lock().push(file);
    }

    /// Whether a file was found not to be as it was written.
    #[must_use]
    pub fn is_damaged(&self, file: FileId) -> bool {
        self.damaged.lock().contains(&file)
    }

    /// Takes on the records of a frame's body, which begins at `offset` of the file.
    ///
    /// # Errors
    /// The body is malformed; what is before that was taken on.
    pub fn arrive(&self, engine: &Engine, (file, offset): (u32, u64), body: &[u8]) -> Result<(), Malformed> {
        record::read_placed(body, |range, record| {
            let location =
                |range: Range<usize>| RecordLocation::new(file, offset + range.start as u64, &body[range]);
            match *record {
                Record::Put(Put { namespace, key, .. }) => {
                    let (shard, hash) = engine.shard_and_walk_hash(namespace, key);
                    self.shards[shard].lock().put(hash, location(range).of(namespace));
                }
                Record::Remove { namespace, key } => {
                    let (shard, hash) = engine.shard_and_walk_hash(namespace, key);
                    self.shards[shard].lock().remove(hash);
                }
                Record::Expiry { namespace, key, expiry } => {
                    let (shard, hash) = engine.shard_and_walk_hash(namespace, key);
                    self.shards[shard].lock().set_expiry(hash, expiry);
                }
                Record::Invalidated { namespace, scope: Scope::All, .. }
                | Record::Cleared { namespace }
                | Record::NamespaceDeleted { number: namespace } => self.clear_namespace(namespace),
                Record::Invalidated { namespace, scope, until } => {
                    self.pending_invalidations.write().add(namespace, scope, until);
                }
                Record::Counted { .. } | Record::Namespace { .. } => {}
            }
        })?;
        if self.has_ended() {
            // It ended meanwhile, and some of this came after all was forgotten.
            self.clear();
        }
        let bytes_max = engine.default_namespace().bytes_limit() / PLACES_PART;
        self.is_full.store(self.bytes().sum::<u64>() >= bytes_max, Ordering::Relaxed);
        Ok(())
    }

    /// Everything that the shards had logged up to these counts has arrived.
    pub fn set_arrived(&self, counts: impl Iterator<Item = u64>) {
        for (arrived, count) in self.arrived.iter().zip(counts) {
            arrived.store(count, Ordering::Release);
        }
    }

    /// Whether the first `logged` records of a shard have arrived.
    #[must_use]
    pub fn has_arrived(&self, shard: usize, logged: u64) -> bool {
        self.arrived[shard].load(Ordering::Acquire) >= logged
    }

    /// From now on until [`Self::end_indexing`], files are indexed that are older than what arrives.
    pub fn begin_indexing(&self) {
        let mut indexing = self.indexing.lock();
        indexing.is_under_way = true;
        self.is_indexing.store(true, Ordering::Release);
        self.shards.iter().for_each(|locations| locations.lock().keep_removed(true));
    }

    /// Takes on the entries of a frame's body that is older than whatever has arrived.
    ///
    /// # Errors
    /// The body is malformed; what is before that was taken on.
    pub fn index(&self, engine: &Engine, file: u32, offset: u64, body: &[u8]) -> Result<(), Malformed> {
        record::read_placed(body, |range, record| {
            let Record::Put(put) = record else { return };
            let location =
                RecordLocation::new(file, offset + range.start as u64, &body[range]).of(put.namespace);
            let (shard, hash) = engine.shard_and_walk_hash(put.namespace, put.key);
            // Held on to, so that no namespace is cleared in between.
            let indexing = self.indexing.lock();
            if !indexing.cleared.contains(&put.namespace) {
                self.shards[shard].lock().put_if_vacant(hash, location);
            }
        })
        .map(|_| ())
    }

    /// As [`Self::index`], of all that another tier has. What arrived there is older than whatever has arrived here.
    pub fn index_all(&self, other: &Self) {
        // Held on to, so that no namespace is cleared in between.
        let indexing = self.indexing.lock();
        self.pending_invalidations.write().add_all(&other.pending_invalidations.read());
        let numbers: HashMap<u32, u32> = {
            let mut files = self.files.write();
            let others = other.files.read();
            others.by_number.iter().map(|(number, file)| (*number, files.add(file.clone()))).collect()
        };
        for (mine, others) in self.shards.iter().zip(&other.shards) {
            let mut mine = mine.lock();
            others.lock().each(|hash, location, expiry| {
                if !location.is_removed() && !indexing.cleared.contains(&location.namespace()) {
                    mine.put_if_vacant_with(hash, location.in_file(numbers[&location.file()]), expiry);
                }
            });
        }
    }

    /// Everything has been indexed: lookups that wait for that go on.
    pub fn end_indexing(&self) {
        let mut indexing = self.indexing.lock();
        *indexing = Indexing::default();
        self.shards.iter().for_each(|locations| locations.lock().keep_removed(false));
        self.is_indexing.store(false, Ordering::Release);
        self.indexed.notify_all();
    }

    /// Whether files are being indexed.
    #[must_use]
    pub fn is_indexing(&self) -> bool {
        self.is_indexing.load(Ordering::Acquire)
    }

    fn wait_indexed(&self) {
        let mut indexing = self.indexing.lock();
        while indexing.is_under_way {
            self.indexed.wait(&mut indexing);
        }
    }

    /// The entry of a key, by its shard and hash; `None`: there is none. Blocks.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn fetch(
        &self,
        (shard, hash): (usize, u64),
        namespace: u16,
        key: &[u8],
    ) -> Result<Option<Found>, FetchError> {
        let found = self.find(shard, hash)?;
        let is_it = |found: &Found| {
            found.visit(|put| {
                put.namespace == namespace && put.key == key && !self.pending_invalidations.read().covers(put)
            })
        };
        let found = found.filter(|found| is_it(found) == Some(true));
        let counter = if found.is_some() { &self.counters.hits } else { &self.counters.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(found)
    }

    /// Visits the entries of a shard after one of a hash, in the order of their hashes, until `visit` says that it is
    /// enough. Waits for indexing to end; blocks.
    ///
    /// # Errors
    /// The disk refuses. A damaged record is passed over.
    pub fn scan(
        &self,
        shard: usize,
        after: Option<u64>,
        entries_max: usize,
        mut visit: impl FnMut(&Put<'_>) -> ControlFlow<()>,
    ) -> Result<Scanned, BackendError> {
        self.wait_indexed();
        let hashes = self.shards[shard].lock().after(after, entries_max);
        let is_last = hashes.len() < entries_max;
        let mut last = after;
        for hash in hashes {
            let found = match self.find(shard, hash) {
                Ok(found) => found,
                Err(FetchError::Backend(error)) => return Err(error),
                Err(FetchError::Damaged { .. }) => None,
            };
            let visited = found.and_then(|found| {
                let is_dead = |put: &Put<'_>| self.pending_invalidations.read().covers(put);
                found.visit(|put| if is_dead(put) { ControlFlow::Continue(()) } else { visit(put) })
            });
            if visited.is_some_and(|visited| visited.is_break()) {
                return Ok(Scanned::UpTo(last));
            }
            last = Some(hash);
        }
        Ok(if is_last { Scanned::All } else { Scanned::UpTo(last) })
    }

    fn find(&self, shard: usize, hash: u64) -> Result<Option<Found>, FetchError> {
        loop {
            // Asked before the location is: indexing may find it and end in between.
            let was_indexing = self.is_indexing();
            let known = self.shards[shard].lock().get(hash);
            let Some((location, expiry)) = known else {
                if !was_indexing {
                    return Ok(None);
                }
                self.wait_indexed();
                continue;
            };
            if location.is_removed() {
                return Ok(None);
            }
            let Some((file, reader)) = self.files.read().by_number.get(&location.file()).cloned() else {
                // A snapshot has led it elsewhere, and the file is gone since.
                if self.has_ended()
                    || self.shards[shard].lock().get(hash).is_none_or(|(now, _)| now == location)
                {
                    return Ok(None);
                }
                continue;
            };
            let mut bytes = vec![0; location.len() as usize];
            let read = reader.read_at(location.offset(), &mut bytes)?;
            if read == bytes.len() && location.is_of(&bytes) {
                return Ok(Some(Found { bytes, expiry }));
            }
            if self.shards[shard].lock().get(hash).is_none_or(|(now, _)| now == location) {
                self.counters.damaged.fetch_add(1, Ordering::Relaxed);
                return Err(FetchError::Damaged { file, offset: location.offset(), bytes: location.len() });
            }
        }
    }

    fn clear_namespace(&self, namespace: u16) {
        let mut indexing = self.indexing.lock();
        if indexing.is_under_way && !indexing.cleared.contains(&namespace) {
            indexing.cleared.push(namespace);
        }
        self.shards.iter().for_each(|locations| locations.lock().clear_namespace(namespace));
        self.pending_invalidations.write().forget_namespace(namespace);
    }
}

impl Found {
    /// The size of its record.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Visits the entry; `None`: it is none.
    pub fn visit<R>(&self, visit: impl FnOnce(&Put<'_>) -> R) -> Option<R> {
        let (mut visit, mut visited) = (Some(visit), None);
        record::read(&self.bytes, |record| {
            if let (Record::Put(put), Some(visit)) = (record, visit.take()) {
                let expiry = self.expiry.unwrap_or(put.expiry);
                visited = Some(visit(&Put { expiry, ..*put }));
            }
        })
        .ok()?;
        visited
    }
}
