//! What becomes of files that are deleted, moved or replaced behind the node's back, and who may read them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

/// What somebody does to a data directory in use.
type Deed = fn(&Path);

fn opened(kind: BackendKind) -> (Arc<dyn Backend>, TempDir, std::path::PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    fs::create_dir(&data).unwrap();
    let (backend, notes) = open(kind, &data).unwrap();
    assert_eq!(notes, Vec::<String>::new());
    (backend, root, data)
}

fn move_away(path: &Path) {
    fs::rename(path, path.with_extension("elsewhere")).unwrap();
}

fn replace(path: &Path) {
    move_away(path);
    copy_directory(&path.with_extension("elsewhere"), path);
}

fn remove_files(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

const DEEDS: [(&str, Deed); 8] = [
    ("the data directory is deleted", |data| fs::remove_dir_all(data).unwrap()),
    ("the data directory is moved", move_away),
    ("the data directory is replaced by a copy", replace),
    ("what is in the data directory is deleted", |data| {
        for entry in fs::read_dir(data).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }),
    ("the journal's directory is deleted", |data| fs::remove_dir_all(data.join("journal")).unwrap()),
    ("the journal's directory is replaced by a copy", |data| replace(&data.join("journal"))),
    ("the journal's files are deleted", |data| remove_files(&data.join("journal"))),
    ("the first file of the journal is deleted", |data| {
        fs::remove_file(data.join(journal(1).to_string())).unwrap();
    }),
];

#[test]
fn no_sync_succeeds_once_the_file_or_one_of_the_journal_before_it_is_not_there() {
    for (kind, (what, deed)) in BackendKind::ALL.into_iter().flat_map(|kind| DEEDS.map(|deed| (kind, deed))) {
        let (backend, _root, data) = opened(kind);
        write(&*backend, journal(1), b"before");
        let mut appender = backend.create(journal(2)).unwrap();
        appender.append(&[b"one"]).unwrap();
        appender.sync().unwrap();
        backend.space().unwrap();
        deed(&data);
        appender.append(&[b"two"]).unwrap();
        let refused = appender.sync().unwrap_err();
        assert!(!refused.is_passing() && refused.is_not_found(), "{kind}: {what}: {refused}");
        assert!(backend.space().is_err(), "{kind}: {what}");
    }
}

/// The directory's time of change is trusted when it is older than a tick: what is deleted long after is missed as well.
#[test]
fn a_file_that_is_deleted_long_after_the_last_change_is_missed() {
    let (backend, _root, data) = opened(BackendKind::Files);
    write(&*backend, journal(1), b"before");
    let mut appender = backend.create(journal(2)).unwrap();
    let begun = crate::clock::monotonic();
    while begun.elapsed() < std::time::Duration::from_millis(250) {
        appender.append(&[b"one"]).unwrap();
        appender.sync().unwrap();
    }
    fs::remove_file(data.join(journal(1).to_string())).unwrap();
    assert!(appender.sync().is_err());
}

#[test]
fn files_that_we_delete_or_set_aside_are_not_missed() {
    for kind in BackendKind::ALL {
        let (backend, _root, _data) = opened(kind);
        let mut appender = backend.create(journal(9)).unwrap();
        for number in 1..4 {
            write(&*backend, journal(number), b"before");
        }
        backend.delete(journal(1)).unwrap();
        backend.quarantine(journal(2)).unwrap();
        appender.append(&[b"one"]).unwrap();
        appender.sync().unwrap();
        backend.space().unwrap();
        assert!(backend.has(journal(3)).unwrap() && !backend.has(journal(2)).unwrap());
    }
}

#[test]
fn what_else_is_synced_is_missed_at_its_next_sync() {
    for kind in BackendKind::ALL {
        let (backend, _root, data) = opened(kind);
        for file in [snapshot(1), blob(1)] {
            let mut appender = backend.create(file).unwrap();
            appender.append(&[b"one"]).unwrap();
            appender.sync().unwrap();
            fs::remove_file(data.join(file.to_string())).unwrap();
            assert!(appender.sync().is_err(), "{kind}: {file}");
        }
        backend.write_mark(&[1; MARK_BYTES], true).unwrap();
        fs::remove_file(data.join("mark")).unwrap();
        assert!(backend.write_mark(&[2; MARK_BYTES], true).is_err(), "{kind}");
        put(&*backend, b"key", b"value");
        match kind {
            BackendKind::Sled => fs::remove_file(data.join("sled/db")).unwrap(),
            BackendKind::Files => fs::remove_dir_all(data.join("catalogue")).unwrap(),
        }
        let refused = backend.commit(&[CatalogueChange::Put(b"more", b"value")]).unwrap_err();
        assert!(refused.is_not_found(), "{kind}: {refused}");
    }
}

/// Every file and directory below, with the rights to it.
fn rights(directory: &Path) -> Vec<(std::path::PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        found.push((path.clone(), path.metadata().unwrap().mode() & 0o777));
        if path.is_dir() {
            found.extend(rights(&path));
        }
    }
    found
}

#[test]
fn rights_that_others_were_left_are_taken_from_them() {
    for kind in BackendKind::ALL {
        let (backend, _root, data) = opened(kind);
        write(&*backend, journal(1), b"before");
        put(&*backend, b"key", b"value");
        drop(backend);
        for (path, mode) in rights(&data) {
            fs::set_permissions(&path, Permissions::from_mode(mode | (mode >> 3) | (mode >> 6))).unwrap();
        }
        let (backend, _) = open(kind, &data).unwrap();
        put(&*backend, b"more", b"value");
        for directory in fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()) {
            let mode = directory.metadata().unwrap().mode() & 0o777;
            assert_eq!(mode & 0o077, 0, "{kind}: {} {mode:o}", directory.display());
        }
        assert_eq!(backend.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    }
}
