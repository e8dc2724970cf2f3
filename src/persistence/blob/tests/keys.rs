//! What it takes in memory to know the blobs.

use super::*;
use crate::persistence::backend::FilesBackend;

/// The blobs of a directory that `files` keeps.
fn open_files(directory: &std::path::Path) -> Blobs {
    let (backend, _) = FilesBackend::open(directory).unwrap();
    Blobs::open(Arc::new(backend), None, START).unwrap().0
}

#[test]
fn keys_are_counted_as_they_come_and_go_and_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let blobs = open_files(directory.path());
    let before = blobs.memory_bytes();
    for n in 0..20 {
        let ttl = if n % 2 == 0 { Ttl::Never } else { Ttl::Ms(1_000) };
        put_with(&blobs, new_blob(&format!("{n:0100}")), 1, ttl, b"content").unwrap();
        put_with(&blobs, new_blob(&format!("{n:0100}")), 2, ttl, b"content").unwrap();
    }
    let bytes = blobs.memory_bytes() - before;
    assert!((20 * 200 + 10 * 228..20 * 220 + 10 * 250).contains(&bytes), "{bytes}");
    drop(blobs);
    let blobs = open_files(directory.path());
    assert_eq!(blobs.memory_bytes() - before, bytes);
    (0..10).for_each(|n| assert!(delete(&blobs, &format!("{n:0100}"), START).unwrap()));
    assert_eq!(blobs.memory_bytes() - before, bytes / 2);
    blobs.sweep(START.plus(Duration::from_secs(2)), 1_000).unwrap();
    blobs.clear("").unwrap();
    assert_eq!(blobs.memory_bytes(), before);
}

#[test]
fn where_keys_take_as_much_as_they_may_no_other_is_stored() {
    let (blobs, _) = open(&MemoryBackend::new());
    put_with(&blobs, new_blob("k"), 1, Ttl::Ms(1_000), b"content").unwrap();
    let bytes = blobs.memory_bytes();
    blobs.set_key_bytes_max(bytes);
    let refused = put(&blobs, "other", 2, b"content").unwrap_err();
    assert!(matches!(refused, BlobError::KeysFull { limit, .. } if limit == bytes), "{refused}");
    put_with(&blobs, new_blob("k"), 3, Ttl::Ms(1_000), b"content").unwrap();
    assert!(delete(&blobs, "k", START).unwrap());
    put(&blobs, "other", 4, b"content").unwrap();
}
