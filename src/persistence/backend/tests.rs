//! What holds for every backend, asked of each.

use std::collections::BTreeMap;
use std::path::Path;

use tempfile::TempDir;

use super::memory::{Lose, MemoryBackend};
use super::*;

mod damage;
mod damage_of_sled;
mod full;
mod memory;
mod presence;
mod random;
mod takeover;

/// A backend that can be opened again.
trait Subject: Sized {
    /// An empty one in a directory, if it needs one.
    fn within(directory: TempDir) -> Self;
    fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }
    fn backend(&self) -> &dyn Backend;
    /// As a restart finds it, without a crash of the machine.
    fn reopened(self) -> Self;
}

impl Subject for MemoryBackend {
    fn within(_: TempDir) -> Self {
        Self::default()
    }

    fn backend(&self) -> &dyn Backend {
        self
    }

    fn reopened(self) -> Self {
        self.crash(Lose::Nothing)
    }
}

struct Files(FilesBackend, TempDir);

impl Subject for Files {
    fn within(directory: TempDir) -> Self {
        Self(files_without_notes(directory.path()), directory)
    }

    fn backend(&self) -> &dyn Backend {
        &self.0
    }

    fn reopened(self) -> Self {
        let Self(backend, directory) = self;
        drop(backend);
        Self(files_without_notes(directory.path()), directory)
    }
}

fn files_without_notes(directory: &Path) -> FilesBackend {
    let (backend, notes) = FilesBackend::open(directory).unwrap();
    assert_eq!(notes, Vec::<String>::new());
    backend
}

struct Sled(SledBackend, TempDir);

impl Subject for Sled {
    fn within(directory: TempDir) -> Self {
        Self(sled_without_notes(directory.path()), directory)
    }

    fn backend(&self) -> &dyn Backend {
        &self.0
    }

    fn reopened(self) -> Self {
        let Self(backend, directory) = self;
        drop(backend);
        Self(sled_without_notes(directory.path()), directory)
    }
}

fn sled_without_notes(directory: &Path) -> SledBackend {
    let (backend, notes) = SledBackend::open(directory).unwrap();
    assert_eq!(notes, Vec::<String>::new());
    backend
}

fn journal(number: u64) -> FileId {
    FileId { kind: FileKind::Journal, number }
}

fn snapshot(number: u64) -> FileId {
    FileId { kind: FileKind::Snapshot, number }
}

fn blob(number: u64) -> FileId {
    FileId { kind: FileKind::Blob, number }
}

/// Writes a whole file, synced.
fn write(backend: &dyn Backend, file: FileId, content: &[u8]) {
    let mut appender = backend.create(file).unwrap();
    appender.append(&[content]).unwrap();
    appender.sync().unwrap();
}

fn read(backend: &dyn Backend, file: FileId) -> Vec<u8> {
    read_whole(&*backend.open(file).unwrap())
}

fn read_whole(reader: &dyn ReadAt) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(reader.len().unwrap()).unwrap()];
    assert_eq!(reader.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}

fn put(backend: &dyn Backend, key: &[u8], value: &[u8]) {
    backend.commit(&[CatalogueChange::Put(key, value)]).unwrap();
}

/// The whole catalogue.
fn catalogue(backend: &dyn Backend) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, BackendError> {
    let mut found = BTreeMap::new();
    backend.scan(b"", None, &mut |key, value| {
        assert!(found.insert(key.to_vec(), value.to_vec()).is_none(), "{key:?} twice");
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

fn keys(backend: &dyn Backend, prefix: &[u8], after: Option<&[u8]>, most: usize) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    backend
        .scan(prefix, after, &mut |key, _| {
            found.push(key.to_vec());
            if found.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .unwrap();
    found
}

/// A directory in memory where there is one: these open a great many backends, and what a disk does is played here.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Copies a directory with what is below it.
fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn what_is_appended_is_read_back<S: Subject>() {
    let subject = S::new();
    let backend = subject.backend();
    let mut appender = backend.create(journal(1)).unwrap();
    assert!(appender.is_empty());
    appender.append(&[]).unwrap();
    appender.append(&[b"", b"one ", b"", b"two "]).unwrap();
    let reader = backend.open(journal(1)).unwrap();
    assert_eq!((appender.len(), reader.len().unwrap()), (8, 8));
    appender.append(&[b"three"]).unwrap();
    appender.sync().unwrap();
    appender.sync().unwrap();
    assert_eq!(appender.len(), 13);

    assert_eq!(read_whole(&*reader), b"one two three", "what is appended meanwhile is seen");
    let mut part = [0; 5];
    assert_eq!(reader.read_at(4, &mut part[..3]).unwrap(), 3);
    assert_eq!(&part[..3], b"two");
    assert_eq!(reader.read_at(10, &mut part).unwrap(), 3, "fewer bytes only at the end");
    assert_eq!(reader.read_at(13, &mut part).unwrap(), 0);
    assert_eq!(reader.read_at(u64::MAX, &mut part).unwrap_or(0), 0);
    assert!(!reader.is_empty().unwrap());

    drop(appender);
    assert_eq!(read(subject.reopened().backend(), journal(1)), b"one two three");
}

fn what_is_reserved_is_zeroes_behind_what_is_appended<S: Subject>() {
    let subject = S::new();
    let backend = subject.backend();
    let mut appender = backend.create(journal(1)).unwrap();
    appender.append(&[b"one "]).unwrap();
    assert_eq!(appender.reserved(), 0);
    appender.reserve(10).unwrap();
    appender.append(&[b"two ", b"three"]).unwrap();
    assert_eq!((appender.len(), appender.reserved()), (13, 1));
    let reader = backend.open(journal(1)).unwrap();
    assert_eq!(reader.len().unwrap(), 14);
    assert_eq!(read_whole(&*reader), b"one two three\0");
    appender.append(&[b" four"]).unwrap();
    assert_eq!((appender.len(), appender.reserved()), (18, 0), "more than was reserved");
    appender.reserve(200_000).unwrap();
    appender.reserve(7).unwrap();
    assert_eq!(appender.reserved(), 200_000, "no less than before");
    appender.sync().unwrap();
    assert_eq!(backend.files().unwrap(), [(journal(1), 200_018)]);
    assert!(backend.disk_bytes().unwrap() >= 200_018);

    drop(appender);
    assert_eq!(reader.len().unwrap(), 18, "it is cut off");
    assert_eq!(read(subject.reopened().backend(), journal(1)), b"one two three four");
}

fn very_many_parts_are_appended_at_once<S: Subject>() {
    let subject = S::new();
    let numbers: Vec<[u8; 4]> = (0..5_000_u32).map(u32::to_le_bytes).collect();
    let parts: Vec<&[u8]> = numbers.iter().map(<[u8; 4]>::as_slice).collect();
    let mut appender = subject.backend().create(snapshot(0)).unwrap();
    appender.append(&parts).unwrap();
    assert_eq!(appender.len(), 20_000);
    assert_eq!(read(subject.backend(), snapshot(0)), numbers.concat());
}

fn readers_stay_when_their_file_goes<S: Subject>() {
    let subject = S::new();
    let backend = subject.backend();
    for (number, content) in [(1, b"first"), (2, b"other")] {
        write(backend, blob(number), content);
    }
    let (deleted, aside) = (backend.open(blob(1)).unwrap(), backend.open(blob(2)).unwrap());
    backend.delete(blob(1)).unwrap();
    backend.delete(blob(1)).unwrap();
    let place = backend.quarantine(blob(2)).unwrap();
    assert!(place.contains("quarantine"), "{place}");
    assert_eq!(read_whole(&*deleted), b"first");
    assert_eq!(read_whole(&*aside), b"other");
    assert_eq!(backend.files().unwrap(), []);
    assert!(backend.open(blob(1)).unwrap_err().is_not_found());
    assert!(backend.quarantine(blob(2)).unwrap_err().is_not_found());

    // The names are free again, and what was set aside is not written over.
    write(backend, blob(2), b"another");
    assert_ne!(backend.quarantine(blob(2)).unwrap(), place);
    assert_eq!(subject.reopened().backend().files().unwrap(), []);
}

fn a_name_is_given_once<S: Subject>() {
    let subject = S::new();
    write(subject.backend(), journal(7), b"kept");
    assert!(subject.backend().create(journal(7)).is_err());
    let subject = subject.reopened();
    assert!(subject.backend().create(journal(7)).is_err());
    assert_eq!(read(subject.backend(), journal(7)), b"kept");
    write(subject.backend(), snapshot(7), b"of another kind");
}

fn files_are_listed_in_order_with_their_lengths<S: Subject>() {
    let subject = S::new();
    assert_eq!(subject.backend().files().unwrap(), []);
    let files = [blob(3), journal(u64::MAX), snapshot(0), journal(2), blob(1), journal(10)];
    for (length, file) in files.into_iter().enumerate() {
        write(subject.backend(), file, &vec![1; length]);
    }
    let listed = [
        (journal(2), 3),
        (journal(10), 5),
        (journal(u64::MAX), 1),
        (snapshot(0), 2),
        (blob(1), 4),
        (blob(3), 0),
    ];
    assert_eq!(subject.backend().files().unwrap(), listed);
    assert_eq!(subject.reopened().backend().files().unwrap(), listed);
}

fn the_mark_is_the_last_that_was_written<S: Subject>() {
    let mut subject = S::new();
    assert_eq!(subject.backend().read_mark().unwrap(), None);
    for round in 0..12_u8 {
        let mark = [round; MARK_BYTES];
        subject.backend().write_mark(&mark, round % 3 == 0).unwrap();
        assert_eq!(subject.backend().read_mark().unwrap(), Some(mark));
        if round % 2 == 1 {
            subject = subject.reopened();
            assert_eq!(subject.backend().read_mark().unwrap(), Some(mark));
        }
    }
}

fn a_commit_makes_its_changes_in_order<S: Subject>() {
    use CatalogueChange::{Put, Remove};
    let subject = S::new();
    let backend = subject.backend();
    assert_eq!(backend.get(b"a").unwrap(), None);
    backend.commit(&[]).unwrap();
    backend.commit(&[Put(b"a", b"1"), Put(b"b", b""), Put(b"", b"no key"), Remove(b"none")]).unwrap();
    backend.commit(&[Put(b"a", b"2"), Put(b"a", b"3"), Remove(b"b"), Put(b"c", b"x"), Remove(b"c")]).unwrap();
    backend.commit(&[Remove(b""), Put(b"", b"again"), Put(b"d", b"")]).unwrap();
    let expected: BTreeMap<Vec<u8>, Vec<u8>> = [(&b""[..], &b"again"[..]), (b"a", b"3"), (b"d", b"")]
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .into();
    assert_eq!(catalogue(backend).unwrap(), expected);
    assert_eq!(backend.get(b"a").unwrap().as_deref(), Some(&b"3"[..]));
    assert_eq!(backend.get(b"d").unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(backend.get(b"b").unwrap(), None);

    let subject = subject.reopened();
    assert_eq!(catalogue(subject.backend()).unwrap(), expected);
    assert_eq!(subject.backend().get(b"c").unwrap(), None);
}

fn a_scan_is_ordered_and_goes_on_behind_a_key<S: Subject>() {
    let subject = S::new();
    let backend = subject.backend();
    let numbers: Vec<[u8; 4]> = (0..1_000_u32).map(|number| (number * 7 % 1_000).to_be_bytes()).collect();
    let named: Vec<Vec<u8>> = numbers.iter().map(|number| [b"n/", &number[..]].concat()).collect();
    let mut changes: Vec<CatalogueChange<'_>> =
        named.iter().zip(&numbers).map(|(key, number)| CatalogueChange::Put(key, number)).collect();
    changes.extend([&b"n"[..], b"m", b"n0", b"\xff", b"\xff\xff"].map(|key| CatalogueChange::Put(key, b"")));
    backend.commit(&changes).unwrap();

    let mut sorted = named.clone();
    sorted.sort();
    assert_eq!(keys(backend, b"n/", None, usize::MAX), sorted);
    assert_eq!(keys(backend, b"n/", Some(&sorted[499]), 3), sorted[500..503]);
    assert_eq!(keys(backend, b"n/", Some(b"n/"), 1), sorted[..1]);
    assert_eq!(
        keys(backend, b"n/", Some(b"a"), 1),
        sorted[..1],
        "what lies before the prefix is passed over"
    );
    assert_eq!(keys(backend, b"n/", Some(b"o"), 1), Vec::<Vec<u8>>::new());
    assert_eq!(keys(backend, b"n/", Some(&sorted[999]), 1), Vec::<Vec<u8>>::new());
    assert_eq!(keys(backend, b"\xff", None, 9), [&b"\xff"[..], b"\xff\xff"]);
    assert_eq!(keys(backend, b"\xff", Some(b"\xff"), 9), [b"\xff\xff"]);
    assert_eq!(keys(backend, b"", None, usize::MAX).len(), 1_005);

    // A visit may use the backend.
    let mut emptied = 0;
    backend
        .scan(b"n/", None, &mut |key, value| {
            assert_eq!(backend.get(key).unwrap().as_deref(), Some(value));
            if emptied < 3 {
                backend.commit(&[CatalogueChange::Remove(key)]).unwrap();
            }
            emptied += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(keys(subject.reopened().backend(), b"n/", None, usize::MAX), sorted[3..]);
}

fn large_values_are_kept<S: Subject>() {
    let mut subject = S::new();
    let value = |number: u8| (0..64 << 10).map(|at: u32| (at * 31) as u8 ^ number).collect::<Vec<u8>>();
    for number in 0..20 {
        put(subject.backend(), &[number], &value(number));
    }
    subject = subject.reopened();
    for number in 0..20 {
        assert_eq!(subject.backend().get(&[number]).unwrap(), Some(value(number)));
    }
}

fn what_is_deleted_leaves_the_disk<S: Subject>() {
    let subject = S::new();
    let backend = subject.backend();
    let empty = backend.disk_bytes().unwrap();
    for number in 0..8 {
        write(backend, blob(number), &vec![7; 100_000]);
    }
    let all = backend.disk_bytes().unwrap();
    assert!(all >= empty + 800_000, "{empty} → {all}");
    for number in 0..8 {
        backend.delete(blob(number)).unwrap();
    }
    let left = backend.disk_bytes().unwrap();
    assert!(left <= empty + 100_000, "{empty} → {all} → {left}");
}

#[test]
fn a_backend_is_opened_by_its_name() {
    for kind in BackendKind::ALL {
        let directory = tempfile::tempdir().unwrap();
        let (backend, notes) = open(kind.as_str().parse().unwrap(), directory.path()).unwrap();
        assert_eq!((backend.name(), notes), (kind.as_str(), Vec::new()));
        let is_file = directory.path().join("file");
        std::fs::write(&is_file, "").unwrap();
        let refused = open(kind, &is_file).unwrap_err().to_string();
        assert!(refused.contains(is_file.to_str().unwrap()), "{refused}");
    }
    let unknown = "rocks".parse::<BackendKind>().unwrap_err();
    assert_eq!(unknown.to_string(), r#"there is no storage "rocks"; there are sled, files"#);
}

/// What one leaves on disk but for the catalogue, the other takes up.
#[test]
fn payload_passes_from_backend_to_backend() {
    let directory = tempfile::tempdir().unwrap();
    let (files, _) = open(BackendKind::Files, directory.path()).unwrap();
    write(&*files, journal(1), b"payload");
    files.write_mark(&[9; MARK_BYTES], true).unwrap();
    drop(files);
    let (sled, notes) = open(BackendKind::Sled, directory.path()).unwrap();
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(read(&*sled, journal(1)), b"payload");
    assert_eq!(sled.read_mark().unwrap(), Some([9; MARK_BYTES]));
}

/// Each of these for each backend.
macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        mod of_memory { $(#[test] fn $test() { super::$test::<super::MemoryBackend>(); })* }
        mod of_files { $(#[test] fn $test() { super::$test::<super::Files>(); })* }
        mod of_sled { $(#[test] fn $test() { super::$test::<super::Sled>(); })* }
    };
}

conformance!(
    what_is_appended_is_read_back,
    what_is_reserved_is_zeroes_behind_what_is_appended,
    very_many_parts_are_appended_at_once,
    readers_stay_when_their_file_goes,
    a_name_is_given_once,
    files_are_listed_in_order_with_their_lengths,
    the_mark_is_the_last_that_was_written,
    a_commit_makes_its_changes_in_order,
    a_scan_is_ordered_and_goes_on_behind_a_key,
    large_values_are_kept,
    what_is_deleted_leaves_the_disk,
);
