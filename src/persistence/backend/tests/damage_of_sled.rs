//! Damage in sled's own files is set aside and told; it neither panics nor gives wrong values.

use super::*;

fn aside(directory: &Path) -> usize {
    std::fs::read_dir(directory.join("quarantine")).unwrap().count()
}

/// Opens what was damaged. Whatever it makes of it, it serves nothing that never was, and goes on.
fn opened(directory: &Path, history: &[(Vec<u8>, Vec<u8>)]) -> (SledBackend, Vec<String>) {
    let (backend, notes) = SledBackend::open(directory).unwrap();
    let found = catalogue(&backend).unwrap();
    for pair in &found {
        assert!(history.iter().any(|(key, value)| (key, value) == pair), "{pair:?}");
    }
    let complete = history.iter().all(|(key, _)| found.contains_key(key));
    assert!(complete || !notes.is_empty(), "{} keys are left, and nobody says so", found.len());
    put(&backend, b"later", b"too");
    assert_eq!(backend.get(b"later").unwrap().as_deref(), Some(&b"too"[..]));
    (backend, notes)
}

/// A catalogue of some size, each key written once.
fn filled(directory: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let backend = sled_without_notes(directory);
    write(&backend, journal(1), b"a file of ours");
    let history: Vec<(Vec<u8>, Vec<u8>)> =
        (0..60_u8).map(|number| (vec![b'k', number], vec![number; 200])).collect();
    for pairs in history.chunks(6) {
        let changes: Vec<CatalogueChange<'_>> =
            pairs.iter().map(|(key, value)| CatalogueChange::Put(key, value)).collect();
        backend.commit(&changes).unwrap();
    }
    history
}

#[test]
fn a_database_of_garbage_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let history = filled(directory.path());
    let db = directory.path().join("sled/db");
    let length = usize::try_from(db.metadata().unwrap().len()).unwrap();
    let mut expected_aside = 0;
    for garbage in [vec![0xa5; length], vec![0; length], Vec::new()] {
        std::fs::write(&db, &garbage).unwrap();
        let (backend, notes) = opened(directory.path(), &history);
        expected_aside += 1;
        assert!(notes.len() == 1 && notes[0].contains("quarantine"), "{notes:?}");
        assert_eq!(aside(directory.path()), expected_aside);
        assert_eq!(read(&backend, journal(1)), b"a file of ours", "what is not in sled stays");
        drop(backend);
        sled_without_notes(directory.path());
    }
    // sled has written to it while it was opened, so that it is not what it was, but it is there.
    assert!(directory.path().join("quarantine/sled/db").is_file());
}

#[test]
fn sleds_directory_is_missed() {
    let directory = tempfile::tempdir().unwrap();
    let history = filled(directory.path());
    std::fs::remove_dir_all(directory.path().join("sled")).unwrap();
    let (_backend, notes) = opened(directory.path(), &history);
    assert!(notes.len() == 1 && notes[0].contains("lost"), "{notes:?}");
}

#[test]
fn bits_of_a_database_do_not_flip_unseen() {
    let directory = tempfile::tempdir().unwrap();
    let history = filled(directory.path());
    let pristine = std::fs::read(directory.path().join("sled/db")).unwrap();
    let used: Vec<usize> = (0..pristine.len()).filter(|at| pristine[*at] != 0).collect();
    let (mut told, mut whole) = (0, 0);
    // Everywhere, in strides, and each time another bit.
    for (case_number, at) in used.iter().step_by(used.len().div_ceil(CASES)).enumerate() {
        let case = scratch();
        copy_directory(directory.path(), case.path());
        let mut damaged = pristine.clone();
        damaged[*at] ^= 1 << (case_number % 8);
        std::fs::write(case.path().join("sled/db"), &damaged).unwrap();
        let (backend, notes) = opened(case.path(), &history);
        if notes.is_empty() {
            whole += 1
        } else {
            told += 1
        }
        assert_eq!(aside(case.path()), usize::from(!notes.is_empty()), "{notes:?}");
        let found = catalogue(&backend).unwrap();
        drop(backend);
        assert!(catalogue(&sled_without_notes(case.path())).unwrap() == found, "byte {at}");
    }
    assert!(told > 0, "{told} were told of, {whole} did no harm");
}

const CASES: usize = 64;
