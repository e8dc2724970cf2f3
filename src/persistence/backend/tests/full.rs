//! A disk without room: writes say so, reads go on, nothing panics.

use std::process::Command;

use super::*;

/// A file system of 1 MiB, or 4 for sled, which takes a half at a time; `None`, and a note, where mounting is not
/// permitted.
struct Small(TempDir);

impl Small {
    fn mount(kind: BackendKind) -> Option<Self> {
        let size = if kind == BackendKind::Sled { "size=4m" } else { "size=1m" };
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", size, "larder-test"])
            .arg(directory.path())
            .output();
        let why = match mounted {
            Ok(output) if output.status.success() => return Some(Self(directory)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        // As tests/support/outside.rs does.
        // Set where it is known that this machine forbids mounting.
        let is_known = std::env::var_os("LARDER_NO_MOUNT").is_some();
        let all = !is_known && std::env::var_os("LARDER_REQUIRE_ALL").is_some_and(|all| all == "1");
        assert!(!all, "a tmpfs cannot be mounted: {why}");
        let told = format!("SKIPPED: a tmpfs cannot be mounted: {}\n", why.trim());
        let _ = io::Write::write_all(&mut io::stderr(), told.as_bytes());
        None
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

fn a_full_disk_is_told_and_read(kind: BackendKind) {
    let Some(small) = Small::mount(kind) else {
        return;
    };
    let (backend, notes) = open(kind, small.0.path()).unwrap();
    assert_eq!(notes, Vec::<String>::new());
    write(&*backend, journal(1), b"was there before");
    put(&*backend, b"key", b"value");
    let piece = vec![5; 30_000];
    let mut appender = backend.create(blob(1)).unwrap();
    let mut appended = 0;
    let refused = loop {
        match appender.append(&[&piece]) {
            Ok(()) => appended += piece.len(),
            Err(refused) => break refused,
        }
    };
    assert!(refused.is_full(), "{refused}");
    assert!(appender.append(&[&piece]).unwrap_err().is_full());
    assert!(appender.len() >= appended as u64);
    assert_eq!(backend.open(blob(1)).unwrap().len().unwrap(), appender.len());
    let refused = backend.commit(&[CatalogueChange::Put(b"more", &piece)]).unwrap_err();
    assert!(refused.is_full(), "{refused}");

    assert_eq!(read(&*backend, journal(1)), b"was there before");
    assert_eq!(backend.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    backend.read_mark().unwrap();

    // There is room again, if not for what a failed write has made doubtful, then for the next that is opened.
    backend.delete(blob(1)).unwrap();
    drop(appender);
    drop(backend);
    let (backend, _) = open(kind, small.0.path()).unwrap();
    assert_eq!(backend.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    put(&*backend, b"more", b"room");
    write(&*backend, blob(2), &piece);
}

fn a_catalogue_that_fills_the_disk_is_read(kind: BackendKind) {
    let Some(small) = Small::mount(kind) else {
        return;
    };
    let (backend, _) = open(kind, small.0.path()).unwrap();
    write(&*backend, blob(1), &vec![5; if kind == BackendKind::Sled { 1_200_000 } else { 200_000 }]);
    let value = |number: u32| vec![u8::try_from(number % 251).unwrap(); 8_000];
    let mut known = 0;
    let refused = loop {
        match backend.commit(&[CatalogueChange::Put(&u32::to_be_bytes(known), &value(known))]) {
            Ok(()) => known += 1,
            Err(refused) => break refused,
        }
    };
    assert!(refused.is_full(), "{refused}");
    assert!((10..500).contains(&known), "{known}");
    let check = |backend: &dyn Backend| {
        for number in 0..known {
            assert_eq!(backend.get(&number.to_be_bytes()).unwrap(), Some(value(number)), "{number}");
        }
    };
    check(&*backend);
    // To the last byte.
    let mut appender = backend.create(blob(2)).unwrap();
    while appender.append(&[&[5; 1_000]]).is_ok() {}
    drop(appender);
    check(&*backend);
    assert!(backend.commit(&[CatalogueChange::Put(b"more", &value(0))]).is_err());
    check(&*backend);

    // With some room, all that was acknowledged is there and more can be.
    backend.delete(blob(1)).unwrap();
    backend.delete(blob(2)).unwrap();
    drop(backend);
    let (backend, notes) = open(kind, small.0.path()).unwrap();
    check(&*backend);
    assert_eq!(notes, Vec::<String>::new());
    put(&*backend, b"more", b"room");
}

#[test]
fn files_tells_of_a_full_disk() {
    a_full_disk_is_told_and_read(BackendKind::Files);
}

#[test]
fn sled_tells_of_a_full_disk() {
    a_full_disk_is_told_and_read(BackendKind::Sled);
}

#[test]
fn files_reads_a_catalogue_that_fills_the_disk() {
    a_catalogue_that_fills_the_disk_is_read(BackendKind::Files);
}

#[test]
fn sled_reads_a_catalogue_that_fills_the_disk() {
    a_catalogue_that_fills_the_disk_is_read(BackendKind::Sled);
}
