//! Blobs: large binary objects that lie on disk, one file each, and never whole in memory.
//!
//! ```text
//!  begin ─ write … ─ finish        read ─ next_chunk …          list   delete   clear   sweep   verify
//!     │                │             │                             │      │        │       │       │
//!     ▼                ▼             ▼                             ▼      ▼        ▼       ▼       ▼
//!  a file of its own   one commit    manifest, then file        the catalogue: (namespace, key) → manifest
//! ```
//!
//! What holds:
//!
//! - A blob is there from the commit of its manifest on, and its file was whole and synced before that. So whatever
//!   fails and wherever a crash comes, a key has the blob before or the blob after, whole, or both were asked away.
//! - A file is deleted only when a commit that returned has said that nothing points to it. Where a commit failed, what
//!   the disk has is not known: both files stay until [`Blobs::sweep`] has had the catalogue say it again.
//! - A file without a manifest is what a crash left over, and is deleted when the store opens; unless there is no
//!   catalogue at all, for then it was lost, and the files' footers say what it held: none that has one is deleted.
//! - Of two writes of a key at once the one of the higher version stays, whichever ends first.
//! - A reader reads the blob that it opened, also when that is replaced, deleted or expires meanwhile.
//! - Every byte that is handed out was checked against its chunk's CRC. Damage is an error, never another value.
//! - A blob is not served after its time to live, which is counted on steady time ([`crate::clock`]): a jump of the wall
//!   clock changes nothing.
//!
//! All calls block on the disk: they are for threads that may. Memory does not grow with a blob's size; a writer and a
//! reader hold one chunk each, and of blobs that expire their keys are held.
//!
//! - [`mod@format`]: the bytes. `writer`, `reader`: one blob. `opening`: what a start finds. `ends`: what a file alone
//!   says. `verify`: all is read.
//! - `deadlines`: when which blob expires.

mod deadlines;
mod ends;
pub mod format;
mod opening;
mod reader;
mod verify;
mod writer;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use self::deadlines::Deadlines;
use self::format::{all_blobs, catalogue_key, read_catalogue_value, split_catalogue_key};
use super::disk_budget::{BudgetExceeded, DiskBudget};
use super::failpoint::Failpoint;
use super::{Backend, BackendError, CatalogueChange, FileId, FileKind};
use crate::clock::{Now, Throttle};
use crate::entry::Ttl;

pub use format::Manifest;
pub use opening::Opened;
pub use reader::BlobReader;
pub use verify::Verified;
pub use writer::{BlobWriter, Digest, Finish, NewBlob};

/// Manifests that are removed in one commit.
const KEYS_PER_COMMIT: usize = 256;
/// How often a blob is looked up anew that was replaced between the catalogue and its file.
const LOOKUPS_MAX: usize = 16;

/// The blobs of a node. Clones are the same.
#[derive(Debug, Clone)]
pub struct Blobs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    backend: Arc<dyn Backend>,
    room: Arc<DiskBudget>,
    next_file: AtomicU64,
    state: Mutex<State>,
    /// What the keys may take in memory before one more is not stored.
    key_bytes_max: AtomicU64,
    /// Held while the catalogue is read and changed, so that what was read is what is replaced.
    committing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    stats: BlobStats,
    deadlines: Deadlines,
    /// Files that could not be deleted.
    leftovers: Vec<u64>,
    /// Keys whose last commit failed, each with the files that it may point to.
    doubtful: Vec<(Vec<u8>, Vec<u64>)>,
}

/// How many blobs there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlobStats {
    /// Blobs, those that have expired and are not reclaimed yet too.
    pub blobs: u64,
    /// Their bytes, without overhead.
    pub bytes: u64,
    /// Damage that readers came upon since the store was opened.
    pub damages: u64,
}

/// A blob in a listing.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// What is known of it.
    pub manifest: &'a Manifest,
    /// What is left of its time to live.
    pub ttl: Ttl,
}

/// How much was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Bytes on disk that are not what was written there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place} is damaged at byte {offset}: {what}")]
pub struct BlobDamage {
    /// The file, or the catalogue's key.
    pub place: String,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub what: &'static str,
}

/// Why a blob cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// There is no such blob: the caller's affair.
    #[error("there is no such blob")]
    NotFound,
    /// The range begins beyond the blob's end: the caller's.
    #[error("offset {offset} is beyond the blob's end at {size_bytes}")]
    OutOfRange {
        /// Where it begins.
        offset: u64,
        /// Where the blob ends.
        size_bytes: u64,
    },
    /// What came is not what the caller had announced: the caller's.
    #[error("{field} is {came}, and the header said {said}")]
    Differs {
        /// `size_bytes` or `sha256`.
        field: &'static str,
        /// What the caller had announced.
        said: String,
        /// What came.
        came: String,
    },
    /// A name that is too long for the format: the caller's.
    #[error("{field} has {bytes} bytes, which no blob's has")]
    Unwritable {
        /// The field.
        field: &'static str,
        /// How long it is.
        bytes: usize,
    },
    /// A write of this blob failed before: whose fault it was, was said then.
    #[error("an earlier write of this blob failed")]
    Broken,
    /// The last check said that the blob must not be stored: the namespace is gone.
    #[error("the blob is not wanted any more")]
    Unwanted,
    /// The last check said that nothing may be written any more: the disk failed.
    #[error("the journal is poisoned, so that no write is accepted")]
    Poisoned,
    /// No versions are left for the blob.
    #[error("there is no version for the blob above those that were drawn")]
    NoVersion,
    /// The limit on the disk.
    #[error(
        "{needs} bytes more do not fit: {used} of the {limit} bytes of --disk-limit are used, and the journal keeps \
         {reserve} for itself; delete blobs or raise the limit"
    )]
    Full {
        /// What it takes.
        needs: u64,
        /// What is on disk, and promised to others.
        used: u64,
        /// The limit.
        limit: u64,
        /// What of it is the journal's.
        reserve: u64,
    },
    /// What it takes in memory to know the blobs.
    #[error(
        "to know the blobs takes {bytes} bytes of memory and may take {limit}, an eighth of --memory, so no new key is stored: \
         delete some or raise --memory"
    )]
    KeysFull {
        /// What it takes.
        bytes: u64,
        /// What it may take.
        limit: u64,
    },
    /// The disk itself is full.
    #[error(transparent)]
    DiskFull(BackendError),
    /// Damage on disk.
    #[error(transparent)]
    Damaged(#[from] BlobDamage),
    /// The disk refuses.
    #[error(transparent)]
    Backend(BackendError),
}

impl From<BackendError> for BlobError {
    fn from(error: BackendError) -> Self {
        if error.is_full() { Self::DiskFull(error) } else { Self::Backend(error) }
    }
}

impl From<BudgetExceeded> for BlobError {
    fn from(none: BudgetExceeded) -> Self {
        match none {
            BudgetExceeded::Limit { needs, used, limit, reserve } => {
                Self::Full { needs, used, limit, reserve }
            }
            BudgetExceeded::Disk(error) => error.into(),
        }
    }
}

type Result<T> = std::result::Result<T, BlobError>;

fn file_id(number: u64) -> FileId {
    FileId { kind: FileKind::Blob, number }
}

impl Blobs {
    /// How many there are.
    #[must_use]
    pub fn stats(&self) -> BlobStats {
        self.0.state.lock().stats
    }

    /// From now on all files together may take `bytes` bytes; `None`: any number. Blobs that are there stay.
    #[cfg(any(test, feature = "testing"))]
    pub fn set_limit(&self, limit_bytes: Option<u64>) {
        self.0.room.set_limit(limit_bytes);
    }

    /// Bytes of memory that it takes to know them: with `files` each key, and of those that expire each once more.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.0.state.lock().deadlines.bytes() + self.0.backend.memory_bytes()
    }

    /// Sets the limit on [`Self::memory_bytes`], in bytes: at the limit a key is refused that has no blob yet.
    pub fn set_key_bytes_max(&self, bytes: u64) {
        self.0.key_bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// Whether a key of the catalogue finds room in memory, or is there already.
    fn takes_key(&self, catalogue_key: &[u8]) -> Result<()> {
        let (bytes, limit) = (self.memory_bytes(), self.0.key_bytes_max.load(Ordering::Relaxed));
        if bytes < limit || self.0.backend.get(catalogue_key)?.is_some() {
            return Ok(());
        }
        Err(BlobError::KeysFull { bytes, limit })
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// [`BlobError::NotFound`], [`BlobError::Damaged`], [`BlobError::Backend`].
    pub fn read(&self, namespace: &str, key: &[u8], now: Now) -> Result<BlobReader> {
        let catalogue_key = catalogue_key(namespace, key);
        let mut missing = None;
        for _ in 0..LOOKUPS_MAX {
            let manifest = self.manifest(&catalogue_key)?.ok_or(BlobError::NotFound)?;
            if self.has_expired(&manifest, now) {
                return Err(BlobError::NotFound);
            }
            let file = manifest.file;
            match self.0.backend.open(file_id(file)) {
                Ok(opened) => {
                    let ttl = self.ttl(&manifest, now);
                    return BlobReader::new(self.clone(), opened, manifest, ttl, &catalogue_key);
                }
                // Replaced or deleted since; if not, its file is lost.
                Err(error) if error.is_not_found() && missing != Some(file) => missing = Some(file),
                Err(error) if error.is_not_found() => {
                    return Err(self.damage(file_id(file).to_string(), 0, "the file is not there").into());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(BlobError::NotFound)
    }

    /// Removes a blob, once `allowed` has said that it may go; whether there was one.
    ///
    /// # Errors
    /// What `allowed` says, and nothing has changed; [`BlobError::Backend`]: whether it is there after a restart is not
    /// known then.
    pub fn delete(
        &self,
        namespace: &str,
        key: &[u8],
        now: Now,
        allowed: impl FnOnce() -> Result<()>,
    ) -> Result<bool> {
        let catalogue_key = catalogue_key(namespace, key);
        let committing = self.0.committing.lock();
        allowed()?;
        let Some(value) = self.0.backend.get(&catalogue_key)? else { return Ok(false) };
        // One that cannot be read can be removed all the same; its file goes when the store opens.
        let manifest = read_catalogue_value(&catalogue_key, &value).ok();
        let served = manifest.as_ref().is_none_or(|manifest| !self.has_expired(manifest, now));
        self.remove(&[(catalogue_key, manifest)])?;
        drop(committing);
        Ok(served)
    }

    /// Removes all blobs of a namespace. One that is stored meanwhile may stay; after an error some may be gone.
    ///
    /// # Errors
    /// [`BlobError::Backend`].
    pub fn clear(&self, namespace: &str) -> Result<Removed> {
        let prefix = catalogue_key(namespace, b"");
        let (mut after, mut removed) = (None, Removed::default());
        loop {
            let committing = self.0.committing.lock();
            let mut found = Vec::new();
            self.0.backend.scan(&prefix, after.as_deref(), &mut |key, value| {
                found.push((key.to_vec(), read_catalogue_value(key, value).ok()));
                if found.len() < KEYS_PER_COMMIT { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            let Some((last, _)) = found.last() else { return Ok(removed) };
            after = Some(last.clone());
            self.remove(&found)?;
            drop(committing);
            removed.blobs += found.len() as u64;
            removed.bytes += found
                .iter()
                .flat_map(|(_, manifest)| manifest)
                .map(|manifest| manifest.size_bytes)
                .sum::<u64>();
        }
    }

    /// Visits the blobs of a namespace whose keys begin with `prefix` and come after the key `after`, in order, until
    /// `visit` breaks off. An expired blob is visited too, as `None`, so that `visit` can bound the work. `visit` must
    /// not call the store.
    ///
    /// # Errors
    /// [`BlobError::Backend`]. A manifest that is damaged is passed over and counted.
    pub fn list(
        &self,
        namespace: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        now: Now,
        visit: &mut dyn FnMut(Option<Listed<'_>>) -> ControlFlow<()>,
    ) -> Result<()> {
        let after = after.map(|after| catalogue_key(namespace, after));
        let prefix = catalogue_key(namespace, prefix);
        let mut damaged = 0;
        self.0.backend.scan(&prefix, after.as_deref(), &mut |full_key, value| {
            let Some((_, key)) = split_catalogue_key(full_key) else { return ControlFlow::Continue(()) };
            match read_catalogue_value(full_key, value) {
                Ok(manifest) if self.has_expired(&manifest, now) => visit(None),
                Ok(manifest) => {
                    visit(Some(Listed { key, manifest: &manifest, ttl: self.ttl(&manifest, now) }))
                }
                Err(_) => {
                    damaged += 1;
                    visit(None)
                }
            }
        })?;
        self.0.state.lock().stats.damages += damaged;
        Ok(())
    }

    /// Does what has become due, up to `budget` blobs: removes those that have expired, deletes files that could not be
    /// deleted before, settles what a failed commit left open. Whether there is more. Costs nothing when nothing is due.
    ///
    /// # Errors
    /// [`BlobError::Backend`]: it is tried again the next time.
    pub fn sweep(&self, now: Now, budget: usize) -> Result<bool> {
        self.settle()?;
        let budget = budget.min(KEYS_PER_COMMIT);
        let due = self.0.state.lock().deadlines.due(now.steady_ms, budget);
        if due.is_empty() {
            return Ok(false);
        }
        let _committing = self.0.committing.lock();
        let mut found = Vec::with_capacity(due.len());
        for (file, catalogue_key) in &due {
            match self.manifest(catalogue_key) {
                Ok(Some(manifest)) if manifest.file == *file => {
                    found.push((catalogue_key.to_vec(), Some(manifest)));
                }
                Err(BlobError::Damaged(_)) => found.push((catalogue_key.to_vec(), None)),
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        self.remove(&found)?;
        let mut state = self.0.state.lock();
        due.iter().for_each(|(file, _)| state.deadlines.remove(*file));
        Ok(due.len() == budget)
    }

    /// Has the catalogue say again what it says of keys whose commit failed, and deletes the files that it no longer
    /// points to; tries again to delete what could not be.
    fn settle(&self) -> Result<()> {
        let (leftovers, doubtful) = {
            let mut state = self.0.state.lock();
            if state.leftovers.is_empty() && state.doubtful.is_empty() {
                return Ok(());
            }
            (std::mem::take(&mut state.leftovers), std::mem::take(&mut state.doubtful))
        };
        self.delete_files(leftovers);
        if doubtful.is_empty() {
            return Ok(());
        }
        let mut doubtful = doubtful.into_iter();
        for (catalogue_key, files) in doubtful.by_ref() {
            let settled = self.settle_one(&catalogue_key, &files);
            if let Err(error) = settled {
                let mut state = self.0.state.lock();
                state.doubtful.push((catalogue_key, files));
                state.doubtful.extend(doubtful);
                return Err(error);
            }
        }
        // What they did to the figures is not known either.
        let _committing = self.0.committing.lock();
        let counted = opening::count(&*self.0.backend)?;
        let mut state = self.0.state.lock();
        (state.stats.blobs, state.stats.bytes) = (counted.blobs, counted.bytes);
        Ok(())
    }

    fn settle_one(&self, catalogue_key: &[u8], files: &[u64]) -> Result<()> {
        let _committing = self.0.committing.lock();
        let value = self.0.backend.get(catalogue_key)?;
        let change = match &value {
            Some(value) => CatalogueChange::Put(catalogue_key, value),
            None => CatalogueChange::Remove(catalogue_key),
        };
        self.0.backend.commit(&[change])?;
        let current = value.and_then(|value| read_catalogue_value(catalogue_key, &value).ok());
        let current = current.map(|manifest| manifest.file);
        let gone: Vec<u64> = files.iter().copied().filter(|file| Some(*file) != current).collect();
        let mut state = self.0.state.lock();
        gone.iter().for_each(|file| state.deadlines.remove(*file));
        drop(state);
        self.delete_files(gone);
        Ok(())
    }

    /// Removes manifests in one commit, and then their files. The caller holds `committing`.
    fn remove(&self, found: &[(Vec<u8>, Option<Manifest>)]) -> Result<()> {
        if found.is_empty() {
            return Ok(());
        }
        let changes: Vec<_> = found.iter().map(|(key, _)| CatalogueChange::Remove(key)).collect();
        let committed = self.0.backend.commit(&changes);
        let files = found.iter().flat_map(|(_, manifest)| manifest).map(|manifest| manifest.file);
        let mut state = self.0.state.lock();
        if let Err(error) = committed {
            for (key, manifest) in found {
                state.doubtful.push((key.clone(), manifest.iter().map(|manifest| manifest.file).collect()));
            }
            return Err(error.into());
        }
        for manifest in found.iter().flat_map(|(_, manifest)| manifest) {
            state.forget(manifest);
        }
        drop(state);
        Failpoint::BLOB_REMOVED.reached();
        self.delete_files(files);
        Ok(())
    }

    /// Deletes files that nothing points to; those that cannot be are tried again by [`Self::sweep`].
    fn delete_files(&self, files: impl IntoIterator<Item = u64>) {
        static LEFT_OVER: Throttle = Throttle::new();
        for file in files {
            if let Err(error) = self.0.backend.delete(file_id(file)) {
                LEFT_OVER.say(|left_out| {
                    tracing::warn!(%error, left_out, "a blob's file is left over for now");
                });
                self.0.state.lock().leftovers.push(file);
            }
        }
    }

    /// What the catalogue says of a key.
    fn manifest(&self, catalogue_key: &[u8]) -> Result<Option<Manifest>> {
        let Some(value) = self.0.backend.get(catalogue_key)? else { return Ok(None) };
        match read_catalogue_value(catalogue_key, &value) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(what) => Err(self.damage(catalogue_place(catalogue_key), 0, what).into()),
        }
    }

    fn has_expired(&self, manifest: &Manifest, now: Now) -> bool {
        manifest.expires_steady_ms != 0 && self.ttl(manifest, now) == Ttl::Never
    }

    /// What is left of a blob's time; [`Ttl::Never`] also when nothing is.
    fn ttl(&self, manifest: &Manifest, now: Now) -> Ttl {
        if manifest.expires_steady_ms == 0 {
            return Ttl::Never;
        }
        Ttl::from_wire_ms(manifest.expires_steady_ms.saturating_sub(now.steady_ms))
    }

    /// Counts damage.
    fn damage(&self, place: String, offset: u64, what: &'static str) -> BlobDamage {
        self.0.state.lock().stats.damages += 1;
        BlobDamage { place, offset, what }
    }
}

impl State {
    fn forget(&mut self, manifest: &Manifest) {
        self.stats.blobs = self.stats.blobs.saturating_sub(1);
        self.stats.bytes = self.stats.bytes.saturating_sub(manifest.size_bytes);
        self.deadlines.remove(manifest.file);
    }
}

/// A key of the catalogue, for people.
fn catalogue_place(catalogue_key: &[u8]) -> String {
    let key = catalogue_key.strip_prefix(all_blobs()).unwrap_or(catalogue_key);
    format!("catalogue entry {}", key.escape_ascii())
}

#[cfg(test)]
mod tests;
