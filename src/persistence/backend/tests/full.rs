//! A disk without room: writes say so, reads go on, nothing panics.

use std::process::Command;

use super::*;

/// A file system of 1 MiB; `None` where that is not permitted, which is told.
struct Small(TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "larder-test"])
            .arg(directory.path())
            .output();
        let why = match mounted {
            Ok(output) if output.status.success() => return Some(Self(directory)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        // As tests/support/outside.rs does.
        let all = std::env::var_os("LARDER_REQUIRE_ALL").is_some_and(|all| all == "1");
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
    let Some(small) = Small::mount() else {
        return;
    };
    let (backend, notes) = open(kind, small.0.path()).unwrap();
    assert_eq!(notes, Vec::<String>::new());
    write(&*backend, journal(1), b"was there before");
    put(&*backend, b"key", b"value");
    let mut appender = backend.create(blob(1)).unwrap();
    let piece = vec![5; 30_000];
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

    // Until nothing goes into the catalogue either.
    let mut known = 0;
    while known < 10_000 {
        match backend.commit(&[CatalogueChange::Put(&u32::to_be_bytes(known), &piece[..8_000])]) {
            Ok(()) => known += 1,
            Err(refused) => {
                assert!(refused.is_full(), "{refused}");
                break;
            }
        }
    }
    assert!(known < 1_000, "{known}");
    assert_eq!(read(&*backend, journal(1)), b"was there before");
    assert_eq!(backend.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    for number in 0..known {
        assert_eq!(backend.get(&number.to_be_bytes()).unwrap().as_deref(), Some(&piece[..8_000]));
    }
    backend.read_mark().unwrap();

    // There is room again, if not for those that a failed write has made doubtful, then for the next that are opened.
    backend.delete(blob(1)).unwrap();
    drop(appender);
    drop(backend);
    let (backend, _) = open(kind, small.0.path()).unwrap();
    assert_eq!(backend.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    put(&*backend, b"more", b"room");
    write(&*backend, blob(2), &piece);
}

#[test]
fn files_tells_of_a_full_disk() {
    a_full_disk_is_told_and_read(BackendKind::Files);
}

#[test]
fn sled_tells_of_a_full_disk() {
    a_full_disk_is_told_and_read(BackendKind::Sled);
}
