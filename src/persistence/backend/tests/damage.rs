//! What is damaged on disk is found and told; no wrong value comes of it, and nothing panics.

use std::path::PathBuf;

use super::*;

/// A small catalogue with a past.
fn small_catalogue(backend: &dyn Backend) {
    for round in 0..6_u8 {
        let value = [round; 3];
        let keys = [vec![b'a', round % 3], vec![b'b']];
        let changes: Vec<CatalogueChange<'_>> =
            keys.iter().map(|key| CatalogueChange::Put(key, &value)).collect();
        backend.commit(&changes).unwrap();
    }
}

/// The one log in a directory of `files`.
fn only_log(directory: &Path) -> PathBuf {
    let logs = std::fs::read_dir(directory.join("catalogue")).unwrap();
    let mut logs = logs.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some());
    let log = logs.next().unwrap();
    assert!(logs.next().is_none());
    log
}

#[test]
fn a_torn_commit_is_cut_off_and_told() {
    let directory = scratch();
    let backend = files_without_notes(directory.path());
    small_catalogue(&backend);
    let before = catalogue(&backend).unwrap();
    drop(backend);
    let log = only_log(directory.path());
    let whole = std::fs::read(&log).unwrap();
    // The beginning of a commit, as a crash leaves one: the second, as the first has no changes.
    let torn = &whole[16 + 24..whole.len().min(90)];
    for length in 1..torn.len() - 1 {
        std::fs::write(&log, [&whole[..], &torn[..length]].concat()).unwrap();
        let (backend, notes) = FilesBackend::open(directory.path()).unwrap();
        assert!(notes.len() == 1 && notes[0].contains("cut off"), "{notes:?}");
        assert_eq!(catalogue(&backend).unwrap(), before);
        put(&backend, b"later", b"too");
        put(&backend, b"b", &before[&b"b"[..]]);
        backend.commit(&[CatalogueChange::Remove(b"later")]).unwrap();
        drop(backend);
        let backend = files_without_notes(directory.path());
        assert_eq!(catalogue(&backend).unwrap(), before);
        drop(backend);
        // The mark knows of the commits that are taken away again.
        std::fs::remove_file(directory.path().join("catalogue/committed")).unwrap();
    }
}

#[test]
fn a_commit_that_returned_is_missed() {
    let directory = scratch();
    let backend = files_without_notes(directory.path());
    small_catalogue(&backend);
    drop(backend);
    let log = only_log(directory.path());
    let length = log.metadata().unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(length - 1).unwrap();
    let (backend, notes) = FilesBackend::open(directory.path()).unwrap();
    assert!(notes.len() == 1 && notes[0].contains("quarantine"), "{notes:?}");
    assert_eq!(catalogue(&backend).unwrap(), BTreeMap::new(), "what is left of it is old");
    drop(backend);
    files_without_notes(directory.path());

    std::fs::remove_file(only_log(directory.path())).unwrap();
    let (backend, notes) = FilesBackend::open(directory.path()).unwrap();
    assert!(notes.len() == 1 && notes[0].contains("gone"), "{notes:?}");
    assert_eq!(catalogue(&backend).unwrap(), BTreeMap::new());
}

#[test]
fn no_bit_of_a_catalogue_flips_unseen() {
    let directory = scratch();
    let backend = files_without_notes(directory.path());
    small_catalogue(&backend);
    drop(backend);
    let pristine = std::fs::read(only_log(directory.path())).unwrap();
    for (at, bit) in (0..pristine.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let case = scratch();
        copy_directory(directory.path(), case.path());
        let mut damaged = pristine.clone();
        damaged[at] ^= 1 << bit;
        std::fs::write(only_log(case.path()), &damaged).unwrap();
        let (backend, notes) = FilesBackend::open(case.path()).unwrap();
        let found = catalogue(&backend).unwrap();
        // It is lost as a whole, or it would be believed in what it says no more of.
        assert!(!notes.is_empty() && found.is_empty(), "bit {bit} of byte {at}");
        // What is damaged is kept for those who look into it, and no second opening stumbles over it.
        let aside: Vec<Vec<u8>> = std::fs::read_dir(case.path().join("quarantine"))
            .unwrap()
            .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
            .collect();
        assert_eq!(aside, [damaged]);
        drop(backend);
        assert_eq!(catalogue(&files_without_notes(case.path())).unwrap(), found);
    }
}

#[test]
fn a_value_that_is_spoilt_under_an_open_catalogue_is_refused() {
    let directory = scratch();
    let backend = files_without_notes(directory.path());
    put(&backend, b"fine", b"fine");
    put(&backend, b"key", b"value");
    let log = only_log(directory.path());
    let mut bytes = std::fs::read(&log).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::os::unix::fs::FileExt::write_all_at(
        &std::fs::OpenOptions::new().write(true).open(&log).unwrap(),
        &bytes,
        0,
    )
    .unwrap();
    assert!(matches!(backend.get(b"key"), Err(BackendError::Catalogue { .. })));
    assert!(catalogue(&backend).is_err());
    assert_eq!(backend.get(b"fine").unwrap().as_deref(), Some(&b"fine"[..]));
}

#[test]
fn a_log_is_written_anew_when_most_of_it_is_dead() {
    let directory = scratch();
    let backend = files_without_notes(directory.path());
    let value = vec![1; 100_000];
    for round in 0..50_u8 {
        backend
            .commit(&[CatalogueChange::Put(b"same", &value), CatalogueChange::Put(&[round % 5], &[round])])
            .unwrap();
        let length = only_log(directory.path()).metadata().unwrap().len();
        assert!(length < 1_600_000, "{length} after {round}");
    }
    let before = catalogue(&backend).unwrap();
    assert_eq!(before.len(), 6);
    drop(backend);
    // A successor that was not finished is none.
    std::fs::write(directory.path().join("catalogue/00000000000000ff.new"), "half").unwrap();
    assert_eq!(catalogue(&files_without_notes(directory.path())).unwrap(), before);
}

#[test]
fn no_torn_write_takes_both_marks() {
    let directory = scratch();
    let backend = files_without_notes(directory.path());
    let path = directory.path().join("mark");
    backend.write_mark(&[1; MARK_BYTES], true).unwrap();
    let mut before = std::fs::read(&path).unwrap();
    before.resize(8_192, 0);
    for (round, synced) in (2..10_u8).zip([false, false, true, false, true, true, false, false]) {
        backend.write_mark(&[round; MARK_BYTES], synced).unwrap();
        let mut after = std::fs::read(&path).unwrap();
        after.resize(8_192, 0);
        let changed: Vec<usize> = (0..8_192).filter(|at| before[*at] != after[*at]).collect();
        let (from, to) = (changed[0], changed[changed.len() - 1] + 1);
        for cut in from..=to {
            let case = scratch();
            let torn = [&after[..cut], &before[cut..]].concat();
            std::fs::write(case.path().join("mark"), torn).unwrap();
            let found = files_without_notes(case.path()).read_mark().unwrap().unwrap();
            let byte = found[0];
            assert!(found == [byte; MARK_BYTES] && byte <= round, "{found:?} of {round} at {cut}");
            // `before` is what was synced last, so nothing older comes back.
            assert!(byte >= 1 && (cut > from || found[..] == before_mark(&before)[..]), "{byte} at {cut}");
        }
        if synced {
            before = after;
        }
    }
}

/// The newest mark in a file's bytes, read as the file is laid out.
fn before_mark(bytes: &[u8]) -> [u8; MARK_BYTES] {
    let slots = [0, 4_096].map(|at| (bytes[at], &bytes[at + 8..at + 8 + MARK_BYTES]));
    slots.into_iter().max().unwrap().1.try_into().unwrap()
}

#[test]
fn damage_before_whole_commits_is_no_torn_end() {
    let directory = scratch();
    let backend = files_without_notes(directory.path());
    small_catalogue(&backend);
    drop(backend);
    // The count of commits would show the loss anyway.
    std::fs::remove_file(directory.path().join("catalogue/committed")).unwrap();
    let log = only_log(directory.path());
    let mut bytes = std::fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&log, &bytes).unwrap();
    let (backend, notes) = FilesBackend::open(directory.path()).unwrap();
    assert!(notes.len() == 1 && notes[0].contains("quarantine"), "{notes:?}");
    assert_eq!(catalogue(&backend).unwrap(), BTreeMap::new());
}

proptest::proptest! {
    #[test]
    fn no_bytes_in_a_log_make_opening_panic(
        pieces in proptest::collection::vec((0..4_u8, proptest::collection::vec(0..=255_u8, 0..30)), 0..6)
    ) {
        let directory = scratch();
        std::fs::create_dir_all(directory.path().join("catalogue")).unwrap();
        let mut log = [&b"LARDCAT1"[..], &1_u64.to_le_bytes()].concat();
        for (kind, bytes) in pieces {
            // A head that claims something, or just anything.
            if kind > 0 {
                log.extend_from_slice(b"LCMT");
            }
            log.extend_from_slice(&bytes);
        }
        std::fs::write(directory.path().join("catalogue/0000000000000001.log"), log).unwrap();
        let (backend, _) = FilesBackend::open(directory.path()).unwrap();
        assert_eq!(catalogue(&backend).unwrap(), BTreeMap::new());
    }
}
