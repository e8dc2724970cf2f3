//! A directory has one catalogue that counts, whichever backend opens it, and wherever the change to another breaks off.

use super::*;

/// What a catalogue has: keys, and of each value its CRC-32.
type Content = BTreeMap<Vec<u8>, u32>;

const SIGN_OF_SLED: &str = "taking-over-sled";
const SIGN_OF_FILES: &str = "taking-over-files";

fn content(backend: &dyn Backend) -> Content {
    let found = catalogue(backend).unwrap();
    found.into_iter().map(|(key, value)| (key, crc32fast::hash(&value))).collect()
}

fn opened(kind: BackendKind, directory: &Path) -> (Content, Vec<String>) {
    let (backend, notes) = open(kind, directory).unwrap();
    assert_eq!(backend.name(), kind.as_str());
    (content(&*backend), notes)
}

/// Writes more than is committed at a time; what is there then.
fn fill(kind: BackendKind, directory: &Path, seed: u8) -> Content {
    let (backend, notes) = open(kind, directory).unwrap();
    assert_eq!(notes, Vec::<String>::new());
    for number in 0..30_u8 {
        put(&*backend, &[b'k', seed, number], &vec![number; 50_000]);
    }
    content(&*backend)
}

/// The names in a directory but those of payload and mark, which no catalogue has.
fn parts(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !["blob", "journal", "mark", "quarantine", "snapshot"].contains(&name.as_str()));
    names.sort();
    names
}

fn aside(directory: &Path) -> usize {
    std::fs::read_dir(directory.join("quarantine")).unwrap().count()
}

/// A directory that was used by one backend, and a copy that the other has taken over since.
fn before_and_after(from: BackendKind, to: BackendKind) -> (TempDir, TempDir, Content) {
    let (before, after) = (scratch(), scratch());
    let content = fill(from, before.path(), 1);
    copy_directory(before.path(), after.path());
    assert_eq!(opened(to, after.path()), (content.clone(), Vec::new()));
    (before, after, content)
}

#[test]
fn each_backend_takes_over_the_others_catalogue() {
    let directory = scratch();
    fill(BackendKind::Sled, directory.path(), 1);
    let content = fill(BackendKind::Files, directory.path(), 2);
    assert_eq!((content.len(), parts(directory.path())), (60, vec!["catalogue".to_owned()]));
    // What was removed with one is not back with the other.
    let (backend, _) = open(BackendKind::Files, directory.path()).unwrap();
    backend.commit(&[CatalogueChange::Remove(&[b'k', 1, 7])]).unwrap();
    drop(backend);
    let content = fill(BackendKind::Sled, directory.path(), 3);
    assert_eq!((content.len(), content.contains_key(&[b'k', 1, 7][..])), (89, false));
    assert_eq!(parts(directory.path()), ["sled", "sled-committed"]);
    assert_eq!(opened(BackendKind::Files, directory.path()), (content, Vec::new()));
}

#[test]
fn a_takeover_that_was_broken_off_is_made_again_or_was_made() {
    for (from, to, sign) in [
        (BackendKind::Sled, BackendKind::Files, SIGN_OF_SLED),
        (BackendKind::Files, BackendKind::Sled, SIGN_OF_FILES),
    ] {
        let (before, after, content) = before_and_after(from, to);
        let copies = |parts: [&TempDir; 2]| {
            let case = scratch();
            parts.iter().for_each(|part| copy_directory(part.path(), case.path()));
            std::fs::write(case.path().join(sign), "").unwrap();
            case
        };
        // Only begun; half made, which is less than all; made, and the other not removed; removed.
        let begun = || copies([&before, &before]);
        let half = || {
            let part = scratch();
            fill(to, part.path(), 9);
            copies([&before, &part])
        };
        let (made, removed) = (|| copies([&before, &after]), || copies([&after, &after]));
        for state in [&begun as &dyn Fn() -> TempDir, &half, &made, &removed] {
            for next in BackendKind::ALL {
                let case = state();
                assert_eq!(opened(next, case.path()), (content.clone(), Vec::new()), "{from} {next}");
                let left = parts(case.path());
                assert!(left.iter().all(|part| !part.contains("taking-over")), "{left:?}");
                assert_eq!(opened(next, case.path()).0, content, "{from} {next}");
                assert_eq!(aside(case.path()), 0);
            }
        }
    }
}

#[test]
fn what_is_left_of_a_catalogue_that_was_being_removed_is_none() {
    let (before, _, content) = before_and_after(BackendKind::Sled, BackendKind::Files);
    // sled has two parts: the one is away, and the other is not.
    let mark = before.path().join("sled-committed");
    std::fs::rename(&mark, before.path().join("sled-committed.gone")).unwrap();
    std::fs::write(before.path().join(SIGN_OF_SLED), "").unwrap();
    assert_eq!(opened(BackendKind::Files, before.path()), (content.clone(), Vec::new()));
    assert_eq!(parts(before.path()), ["catalogue"]);
    std::fs::create_dir(before.path().join("sled.gone")).unwrap();
    assert_eq!(opened(BackendKind::Files, before.path()), (content, Vec::new()));
    assert_eq!(parts(before.path()), ["catalogue"]);
}

#[test]
fn a_damaged_catalogue_of_the_other_backend_is_set_aside_and_nothing_is_believed() {
    for (from, to, file) in [
        (BackendKind::Files, BackendKind::Sled, "catalogue/0000000000000001.log"),
        (BackendKind::Sled, BackendKind::Files, "sled/db"),
    ] {
        let directory = scratch();
        fill(from, directory.path(), 1);
        let path = directory.path().join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 100].fill(0xa5);
        std::fs::write(&path, bytes).unwrap();
        let (content, notes) = opened(to, directory.path());
        assert_eq!((content, aside(directory.path())), (Content::new(), 1), "{from}");
        assert!(notes.len() == 1 && notes[0].contains("quarantine"), "{notes:?}");
        assert_eq!(opened(to, directory.path()), (Content::new(), Vec::new()));
    }
}

#[test]
fn of_two_catalogues_neither_is_believed() {
    for next in BackendKind::ALL {
        let directory = scratch();
        for kind in BackendKind::ALL {
            // As backends left them that did not know of each other.
            let other = scratch();
            fill(kind, other.path(), 1);
            copy_directory(other.path(), directory.path());
        }
        let (content, notes) = opened(next, directory.path());
        assert_eq!((content, aside(directory.path())), (Content::new(), 3), "{next}");
        assert!(notes.len() == 1 && notes[0].contains("which of them counts"), "{notes:?}");
        assert_eq!(opened(next, directory.path()), (Content::new(), Vec::new()));
    }
    // It broke off when one of the two was away.
    let directory = scratch();
    fill(BackendKind::Sled, directory.path(), 1);
    std::fs::write(directory.path().join("giving-up"), "").unwrap();
    assert_eq!(opened(BackendKind::Files, directory.path()).0, Content::new());
    assert_eq!(parts(directory.path()), ["catalogue"]);
}
