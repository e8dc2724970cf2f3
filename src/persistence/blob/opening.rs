//! What a start finds: manifests, files, and what of the two does not belong together.
//!
//! A file without a manifest is what a crash left of a write, a replacement or a deletion, and goes. But a catalogue
//! that does not know that there are blobs was lost as a whole: then the footers of the files say what was in it, and
//! of several blobs of a key the one of the highest version is taken. A blob whose deletion was never synced may be back
//! then; without the footers all would be gone. The same is done for single manifests that cannot be read.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use super::format::{
    FOOTER_END_BYTES, HEAD_BYTES, MARKER, Manifest, all_blobs, catalogue_value, head, read_catalogue_value,
    read_footer, record_len,
};
use super::{
    BlobStats, Blobs, Damage, Deadlines, Inner, KEYS_PER_COMMIT, Removed, Result, State, catalogue_place,
    file_id,
};
use crate::clock::Now;
use crate::entry::Version;
use crate::persistence::{Backend, BackendError, CatalogueChange, FileKind, Room};

/// How many damages are told one by one.
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
    /// Manifests without a file, or that cannot be read, and files that cannot be made sense of when the catalogue is
    /// rebuilt: the first 100.
    pub damages: Vec<Damage>,
    /// How many of those there are.
    pub damaged: u64,
}

impl Opened {
    fn damage(&mut self, place: String, offset: u64, what: &'static str) {
        self.damaged += 1;
        if self.damages.len() < DAMAGES_TOLD {
            self.damages.push(Damage { place, offset, what });
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
    pub fn open(backend: Arc<dyn Backend>, limit_bytes: Option<u64>, now: Now) -> Result<(Self, Opened)> {
        Self::open_in(Arc::new(Room::new(backend, limit_bytes)), now)
    }

    /// [`Self::open`] in room that is shared with others.
    ///
    /// # Errors
    /// As there.
    pub fn open_in(room: Arc<Room>, now: Now) -> Result<(Self, Opened)> {
        let backend = Arc::clone(room.backend());
        let mut opened = Opened::default();
        let files = backend.files()?;
        let files: BTreeMap<u64, u64> = files
            .into_iter()
            .filter(|(file, _)| file.kind == FileKind::Blob)
            .map(|(file, len)| (file.number, len))
            .collect();
        if backend.get(MARKER)?.is_none() {
            rebuild(&*backend, &files, &mut opened)?;
        }
        let mut known = known(&*backend, &files, now, &mut opened)?;
        if !known.unreadable.is_empty() && restore(&*backend, &files, &known, &mut opened)? {
            (opened.blobs, opened.bytes) = (0, 0);
            known = self::known(&*backend, &files, now, &mut opened)?;
        }
        let highest = files.keys().chain(&known.files).max().copied().unwrap_or(0);
        let stats = BlobStats { blobs: opened.blobs, bytes: opened.bytes, damages: 0 };
        let state = State { stats, deadlines: known.deadlines, ..State::default() };
        let blobs = Self(Arc::new(Inner {
            room,
            next_file: AtomicU64::new(highest + 1),
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

struct Known {
    /// Files that manifests point to.
    files: BTreeSet<u64>,
    /// Keys whose manifests cannot be read.
    unreadable: BTreeSet<Vec<u8>>,
    deadlines: Deadlines,
}

/// Goes through the manifests.
fn known(backend: &dyn Backend, files: &BTreeMap<u64, u64>, now: Now, opened: &mut Opened) -> Result<Known> {
    let (files_known, unreadable) = (BTreeSet::new(), BTreeSet::new());
    let mut known = Known { files: files_known, unreadable, deadlines: Deadlines::default() };
    backend.scan(all_blobs(), None, &mut |key, value| {
        match read_catalogue_value(key, value) {
            Ok(manifest) => {
                opened.blobs += 1;
                opened.bytes += manifest.size_bytes;
                opened.version_max = opened.version_max.max(manifest.version);
                if !files.contains_key(&manifest.file) {
                    opened.damage(file_id(manifest.file).to_string(), 0, "the file is not there");
                }
                known.files.insert(manifest.file);
                if manifest.expires_unix_ms != 0 {
                    let left = manifest.expires_unix_ms.saturating_sub(now.unix_ms());
                    known.deadlines.set(manifest.file, now.ticks_ms.saturating_add(left), key);
                }
            }
            Err(what) => {
                known.unreadable.insert(key.to_vec());
                opened.damage(catalogue_place(key), 0, what);
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(known)
}

/// Makes manifests that cannot be read anew, of files that no other one points to; whether there were any.
fn restore(
    backend: &dyn Backend,
    files: &BTreeMap<u64, u64>,
    known: &Known,
    opened: &mut Opened,
) -> Result<bool> {
    let mut found: BTreeMap<Vec<u8>, Manifest> = BTreeMap::new();
    for (file, len) in files.iter().filter(|(file, _)| !known.files.contains(*file)) {
        if let Ok((key, manifest)) = read_end(backend, *file, *len)?
            && known.unreadable.contains(&key)
        {
            keep_newest(&mut found, key, manifest);
        }
    }
    opened.rebuilt += found.len() as u64;
    put_all(backend, &found)?;
    Ok(!found.is_empty())
}

fn keep_newest(found: &mut BTreeMap<Vec<u8>, Manifest>, key: Vec<u8>, manifest: Manifest) {
    if found.get(&key).is_none_or(|other| other.version < manifest.version) {
        found.insert(key, manifest);
    }
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

/// Makes a catalogue of what the files say, and notes that there is one.
fn rebuild(backend: &dyn Backend, files: &BTreeMap<u64, u64>, opened: &mut Opened) -> Result<()> {
    let mut found: BTreeMap<Vec<u8>, Manifest> = BTreeMap::new();
    for (file, len) in files {
        match read_end(backend, *file, *len)? {
            Ok((key, manifest)) => keep_newest(&mut found, key, manifest),
            // A write that a crash broke off looks the same.
            Err(what) => opened.damage(file_id(*file).to_string(), 0, what),
        }
    }
    opened.rebuilt = found.len() as u64;
    put_all(backend, &found)?;
    // Last, so that a crash on the way begins again.
    backend.commit(&[CatalogueChange::Put(MARKER, b"1")])?;
    Ok(())
}

type End = std::result::Result<(Vec<u8>, Manifest), &'static str>;

/// What a file says of itself; the inner error is what is wrong with it.
fn read_end(backend: &dyn Backend, number: u64, len: u64) -> Result<End> {
    let file = backend.open(file_id(number))?;
    let Some(end_offset) = len.checked_sub(FOOTER_END_BYTES as u64) else {
        return Ok(Err("it is too short"));
    };
    let mut end = [0; FOOTER_END_BYTES];
    if file.read_at(end_offset, &mut end)? != FOOTER_END_BYTES {
        return Ok(Err("it is too short"));
    }
    let Some(record) = record_len(&end) else { return Ok(Err("it has no end")) };
    let Some(footer_offset) = end_offset.checked_sub(record as u64) else {
        return Ok(Err("its footer is longer than it is"));
    };
    let mut footer = vec![0; record + FOOTER_END_BYTES];
    if file.read_at(footer_offset, &mut footer)? != footer.len() {
        return Ok(Err("it is too short"));
    }
    let (key, manifest) = match read_footer(&footer) {
        Ok(read) => read,
        Err(what) => return Ok(Err(what)),
    };
    let mut first = [0; HEAD_BYTES];
    file.read_at(0, &mut first)?;
    let whole = manifest.file == number
        && manifest.footer_offset() == footer_offset
        && first == head(number, manifest.chunk_bytes);
    Ok(if whole { Ok((key, manifest)) } else { Err("its footer is another file's") })
}
