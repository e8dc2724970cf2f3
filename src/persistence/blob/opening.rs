//! What a start finds: manifests, files, and what of the two does not belong together.
//!
//! A file without a manifest is what a crash left of a write, a replacement or a deletion, and goes. But a catalogue
//! that does not know that there are blobs was lost as a whole: then the footers of the files say what was in it, and
//! of several blobs of a key the one of the highest version is taken. A blob whose deletion was never synced may be back
//! then; without the footers all would be gone. The same is done for single manifests that cannot be read.
//!
//! Where the files are asked so, none is deleted but those of writes that were never finished: a blob that there is a
//! newer one of, and one that is not whole, are set aside. That is done before the catalogue counts as made anew, so
//! that a crash on the way begins again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use super::ends::{EndError, is_unfinished, read_end};
use super::format::{
    MARKER, Manifest, all_blobs, catalogue_value, read_catalogue_value, split_catalogue_key,
};
use super::{
    BlobDamage, BlobStats, Blobs, Deadlines, Inner, KEYS_PER_COMMIT, Removed, Result, State, catalogue_place,
    file_id,
};
use crate::clock::Now;
use crate::entry::Version;
use crate::persistence::{Backend, BackendError, CatalogueChange, DiskBudget, FileKind};

/// Damages that are reported one by one.
const DAMAGES_TOLD: usize = 100;

/// What the store found when it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Opened {
    /// Blobs.
    pub blobs: u64,
    /// Their bytes, without overhead.
    pub bytes: u64,
    /// The highest version of a blob: the node draws higher ones.
    pub version_max: Version,
    /// Files that a crash left over, deleted.
    pub leftovers: u64,
    /// Blobs that were found by their files, because the catalogue was lost.
    pub rebuilt: u64,
    /// Files that were set aside then: those that are not whole, and blobs that there is a newer one of.
    pub set_aside: u64,
    /// Manifests without a file, or that cannot be read, and files that cannot be made sense of when the catalogue is
    /// rebuilt: the first 100.
    pub damages: Vec<BlobDamage>,
    /// How many of those there are.
    pub damaged: u64,
    /// The namespaces that have blobs whose time has not ended, but the default one.
    pub namespaces: BTreeSet<String>,
}

impl Opened {
    fn damage(&mut self, place: String, offset: u64, what: &'static str) {
        self.damaged += 1;
        if self.damages.len() < DAMAGES_TOLD {
            self.damages.push(BlobDamage { place, offset, what });
        }
    }
}

impl Blobs {
    /// Opens the blobs that a backend keeps. All its files together may have `limit_bytes`; `None`: any number.
    ///
    /// Reads the whole catalogue of blobs, and the blobs themselves only where that was lost, and then only their ends.
    ///
    /// # Errors
    /// [`super::BlobError::Backend`], [`super::BlobError::DiskFull`].
    #[cfg(any(test, feature = "testing"))]
    pub fn open(backend: Arc<dyn Backend>, limit_bytes: Option<u64>, now: Now) -> Result<(Self, Opened)> {
        Self::open_in(Arc::new(DiskBudget::new(backend, limit_bytes)), now)
    }

    /// [`Self::open`] in room that is shared with others.
    ///
    /// # Errors
    /// As there.
    pub fn open_in(room: Arc<DiskBudget>, now: Now) -> Result<(Self, Opened)> {
        let backend = Arc::clone(room.backend());
        let mut opened = Opened::default();
        let files = backend.files()?;
        let mut files: Files = files
            .into_iter()
            .filter(|(file, _)| file.kind == FileKind::Blob)
            .map(|(file, len)| (file.number, len))
            .collect();
        let last = files.keys().next_back().copied().unwrap_or(0);
        if backend.get(MARKER)?.is_none() {
            opened.rebuilt += find(&*backend, &mut files, &Known::default(), &|_| true, &mut opened)?;
            // Last, so that a crash on the way begins again.
            backend.commit(&[CatalogueChange::Put(MARKER, b"1")])?;
        }
        let mut known = known(&*backend, &files, now, &mut opened)?;
        if !known.unreadable.is_empty() {
            let is_wanted = |key: &[u8]| known.unreadable.contains(key);
            let found = find(&*backend, &mut files, &known, &is_wanted, &mut opened)?;
            if found > 0 {
                (opened.rebuilt, opened.blobs, opened.bytes) = (opened.rebuilt + found, 0, 0);
                known = self::known(&*backend, &files, now, &mut opened)?;
            }
        }
        let highest = known.files.iter().max().copied().unwrap_or(0).max(last);
        let stats = BlobStats { blobs: opened.blobs, bytes: opened.bytes, damages: 0 };
        let state = State { stats, deadlines: known.deadlines, ..State::default() };
        let blobs = Self(Arc::new(Inner {
            room,
            next_file: AtomicU64::new(highest + 1),
            key_bytes_max: AtomicU64::new(u64::MAX),
            state: Mutex::new(state),
            committing: Mutex::new(()),
            backend,
        }));
        for file in files.keys().filter(|file| !known.files.contains(*file)) {
            opened.leftovers += 1;
            blobs.delete_files([*file]);
        }
        Ok((blobs, opened))
    }
}

/// Files of blobs, with their lengths.
type Files = BTreeMap<u64, u64>;

#[derive(Default)]
struct Known {
    /// Files that manifests point to.
    files: BTreeSet<u64>,
    /// Keys whose manifests cannot be read.
    unreadable: BTreeSet<Vec<u8>>,
    deadlines: Deadlines,
}

/// Goes through the manifests.
fn known(backend: &dyn Backend, files: &Files, now: Now, opened: &mut Opened) -> Result<Known> {
    let mut known = Known::default();
    backend.scan(all_blobs(), None, &mut |key, value| {
        let mut has_expired = false;
        match read_catalogue_value(key, value) {
            Ok(manifest) => {
                opened.blobs += 1;
                opened.bytes += manifest.size_bytes;
                opened.version_max = opened.version_max.max(manifest.version);
                if !files.contains_key(&manifest.file) {
                    opened.damage(file_id(manifest.file).to_string(), 0, "the file is not there");
                }
                known.files.insert(manifest.file);
                if manifest.expires_steady_ms != 0 {
                    has_expired = manifest.expires_steady_ms <= now.steady_ms;
                    known.deadlines.set(manifest.file, manifest.expires_steady_ms, key);
                }
            }
            Err(what) => {
                known.unreadable.insert(key.to_vec());
                opened.damage(catalogue_place(key), 0, what);
            }
        }
        if let Some((namespace, _)) = split_catalogue_key(key)
            && !(has_expired || namespace.is_empty() || opened.namespaces.contains(namespace))
        {
            opened.namespaces.insert(namespace.to_owned());
        }
        ControlFlow::Continue(())
    })?;
    Ok(known)
}

/// Makes manifests of what the files say that no known one points to, for the keys that are wanted; how many. Files that
/// are of no use for that are set aside.
fn find(
    backend: &dyn Backend,
    files: &mut Files,
    known: &Known,
    is_wanted: &dyn Fn(&[u8]) -> bool,
    opened: &mut Opened,
) -> Result<u64> {
    let mut found: BTreeMap<Vec<u8>, Manifest> = BTreeMap::new();
    let mut of_no_use = Vec::new();
    for (file, len) in files.iter().filter(|(file, _)| !known.files.contains(*file)) {
        match read_end(backend, *file, *len) {
            Ok((key, manifest)) if is_wanted(&key) => {
                let older = match found.get(&key) {
                    Some(other) if other.version >= manifest.version => Some(manifest),
                    _ => found.insert(key, manifest),
                };
                of_no_use.extend(older.map(|older| (older.file, "its blob was replaced")));
            }
            Ok(_) => of_no_use.push((*file, "its blob was replaced or deleted")),
            Err(EndError::Backend(error)) => return Err(error.into()),
            Err(EndError::Bad(_)) if is_unfinished(backend, *file)? => {}
            Err(EndError::Bad(what)) => {
                opened.damage(file_id(*file).to_string(), 0, what);
                of_no_use.push((*file, what));
            }
        }
    }
    for (file, why) in of_no_use {
        let (id, place) = (file_id(file), backend.quarantine(file_id(file))?);
        tracing::warn!(file = %id, %place, why, "set a blob's file aside");
        files.remove(&file);
        opened.set_aside += 1;
    }
    put_all(backend, &found)?;
    Ok(found.len() as u64)
}

fn put_all(backend: &dyn Backend, found: &BTreeMap<Vec<u8>, Manifest>) -> Result<()> {
    let values: Vec<_> = found.iter().map(|(key, manifest)| (key, catalogue_value(key, manifest))).collect();
    for some in values.chunks(KEYS_PER_COMMIT) {
        let changes: Vec<_> = some.iter().map(|(key, value)| CatalogueChange::Put(key, value)).collect();
        backend.commit(&changes)?;
    }
    Ok(())
}

/// How many blobs the catalogue knows.
pub(super) fn count(backend: &dyn Backend) -> std::result::Result<Removed, BackendError> {
    let mut counted = Removed::default();
    backend.scan(all_blobs(), None, &mut |key, value| {
        if let Ok(manifest) = read_catalogue_value(key, value) {
            counted.blobs += 1;
            counted.bytes += manifest.size_bytes;
        }
        ControlFlow::Continue(())
    })?;
    Ok(counted)
}
