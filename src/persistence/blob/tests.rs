//! The store over a backend whose crashes and faults are made to order.

use std::time::Duration;

use proptest::prelude::*;

use super::format::{CHUNK_BYTES, MARKER};
use super::*;
use crate::entry::Version;
use crate::persistence::MemoryBackend;
use crate::persistence::backend::memory::{Call, Fault, IoFault, Lose, Strikes};

mod keys;
mod lost;

const CHUNK: usize = CHUNK_BYTES as usize;
const START: Now = Now { steady_ms: 5_000, unix_us: 1_700_000_000_000_000 };

fn open(backend: &MemoryBackend) -> (Blobs, Opened) {
    Blobs::open(Arc::new(backend.clone()), None, START).unwrap()
}

fn content(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed) ^ (at >> 8) as u8).collect()
}

fn new_blob(key: &str) -> NewBlob {
    NewBlob { key: key.into(), ..NewBlob::default() }
}

fn put_with(blobs: &Blobs, new_blob: NewBlob, version: u64, ttl: Ttl, content: &[u8]) -> Result<Manifest> {
    let (mut writer, mut digest) = (blobs.begin(new_blob)?, Digest::default());
    for part in content.chunks(100_000) {
        digest.update(part);
        writer.write(part)?;
    }
    writer.finish(digest, Finish { version: Version(version), ttl, now: START }, || Ok(()))
}

fn put(blobs: &Blobs, key: &str, version: u64, content: &[u8]) -> Result<Manifest> {
    put_with(blobs, new_blob(key), version, Ttl::Never, content)
}

fn delete(blobs: &Blobs, key: &str, now: Now) -> Result<bool> {
    blobs.delete("", key.as_bytes(), now, || Ok(()))
}

fn rest(mut reader: BlobReader) -> Result<Vec<u8>> {
    let mut read = Vec::new();
    while let Some(chunk) = reader.next_chunk()? {
        assert!(!chunk.is_empty());
        read.extend_from_slice(&chunk);
    }
    Ok(read)
}

fn get(blobs: &Blobs, key: &str) -> Result<Vec<u8>> {
    blobs.read("", key.as_bytes(), START).and_then(rest)
}

fn range(blobs: &Blobs, key: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
    let mut reader = blobs.read("", key.as_bytes(), START)?;
    reader.limit(offset, length)?;
    rest(reader)
}

fn keys(blobs: &Blobs, namespace: &str, prefix: &[u8], now: Now) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let mut visit = |listed: Option<Listed<'_>>| {
        keys.extend(listed.map(|listed| listed.key.to_vec()));
        ControlFlow::Continue(())
    };
    blobs.list(namespace, prefix, None, now, &mut visit).unwrap();
    keys
}

fn verified(blobs: &Blobs) -> Verified {
    blobs.verify(START, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn files(backend: &MemoryBackend) -> usize {
    backend.files().unwrap().len()
}

#[test]
fn what_is_stored_is_read_back_whole_and_after_a_restart() {
    let backend = MemoryBackend::new();
    let (blobs, opened) = open(&backend);
    assert_eq!(opened, Opened::default());
    let sizes = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 77];
    for (n, size) in sizes.into_iter().enumerate() {
        let new_blob = NewBlob { content_type: "image/png".to_owned(), ..new_blob(&n.to_string()) };
        let manifest = put_with(&blobs, new_blob, 1 + n as u64, Ttl::Never, &content(n as u8, size)).unwrap();
        assert_eq!((manifest.size_bytes, manifest.version), (size as u64, Version(1 + n as u64)));
    }
    for lose in [Lose::Nothing, Lose::Unsynced, Lose::Holes(1)] {
        let (blobs, opened) = open(&backend.crash(lose));
        let bytes = sizes.iter().sum::<usize>() as u64;
        assert_eq!(opened, Opened { blobs: 6, bytes, version_max: Version(6), ..Opened::default() });
        for (n, size) in sizes.into_iter().enumerate() {
            let reader = blobs.read("", n.to_string().as_bytes(), START).unwrap();
            assert_eq!(reader.manifest().content_type, "image/png");
            assert_eq!(rest(reader).unwrap(), content(n as u8, size));
        }
        let found = verified(&blobs);
        assert_eq!((found.blobs, found.bytes, found.damaged), (6, bytes, 0));
    }
}

#[test]
fn what_differs_from_the_draft_is_not_stored() {
    let backend = MemoryBackend::new();
    let (blobs, _) = open(&backend);
    put(&blobs, "k", 1, b"before").unwrap();
    let cases = [
        (NewBlob { size_bytes: Some(3), ..new_blob("k") }, "size_bytes"),
        (NewBlob { size_bytes: Some(6), ..new_blob("k") }, "size_bytes"),
        (NewBlob { sha256: Some([0; 32]), ..new_blob("k") }, "sha256"),
    ];
    for (new_blob, wrong) in cases {
        let error = put_with(&blobs, new_blob, 2, Ttl::Never, b"after").unwrap_err();
        assert!(matches!(error, BlobError::Differs { field, .. } if field == wrong), "{error}");
    }
    for bad in
        [new_blob(""), new_blob(&"k".repeat(4_097)), NewBlob { namespace: "n".repeat(256), ..new_blob("k") }]
    {
        assert!(matches!(blobs.begin(bad), Err(BlobError::Unwritable { .. })));
    }
    let writer = blobs.begin(new_blob("k")).unwrap();
    let end = Finish { version: Version(2), ttl: Ttl::Never, now: START };
    assert!(matches!(
        writer.finish(Digest::default(), end, || Err(BlobError::Unwanted)),
        Err(BlobError::Unwanted)
    ));
    drop(blobs.begin(new_blob("k")).unwrap());
    assert_eq!(get(&blobs, "k").unwrap(), b"before");
    assert_eq!((files(&backend), blobs.stats()), (1, BlobStats { blobs: 1, bytes: 6, damages: 0 }));
}

#[test]
fn a_reader_reads_on_when_its_blob_is_replaced_or_deleted() {
    let backend = MemoryBackend::new();
    let (blobs, _) = open(&backend);
    let (one, two) = (content(1, 2 * CHUNK), content(2, CHUNK));
    put(&blobs, "k", 1, &one).unwrap();
    let mut reader = blobs.read("", b"k", START).unwrap();
    let first = reader.next_chunk().unwrap().unwrap();
    put(&blobs, "k", 2, &two).unwrap();
    let second = blobs.read("", b"k", START).unwrap();
    assert!(delete(&blobs, "k", START).unwrap());
    assert_eq!([&first[..], &rest(reader).unwrap()].concat(), one);
    assert_eq!(rest(second).unwrap(), two);
    assert!(matches!(get(&blobs, "k"), Err(BlobError::NotFound)));
    assert!(!delete(&blobs, "k", START).unwrap());
    assert_eq!((files(&backend), blobs.stats()), (0, BlobStats::default()));
}

#[test]
fn the_higher_version_stays_whichever_ends_first() {
    let backend = MemoryBackend::new();
    let (blobs, _) = open(&backend);
    let slow = blobs.begin(new_blob("k")).unwrap();
    put(&blobs, "k", 2, b"newer").unwrap();
    let end = Finish { version: Version(1), ttl: Ttl::Ms(5), now: START };
    slow.finish(Digest::default(), end, || Ok(())).unwrap();
    assert_eq!(get(&blobs, "k").unwrap(), b"newer");
    assert_eq!((files(&backend), blobs.stats().blobs), (1, 1));
    assert!(!blobs.sweep(START.plus(Duration::from_secs(1)), 10).unwrap());
}

#[test]
fn a_blob_is_not_served_after_its_time_and_goes_in_the_background() {
    let backend = MemoryBackend::new();
    let (blobs, _) = open(&backend);
    for (n, ttl) in [Ttl::Ms(1_000), Ttl::Ms(2_000), Ttl::Never].into_iter().enumerate() {
        put_with(&blobs, new_blob(&n.to_string()), 1, ttl, b"content").unwrap();
    }
    let after = |ms| START.plus(Duration::from_millis(ms));
    assert_eq!(blobs.read("", b"0", after(999)).unwrap().ttl(), Ttl::Ms(1));
    let mut reading = blobs.read("", b"0", after(999)).unwrap();
    assert!(matches!(blobs.read("", b"0", after(1_000)), Err(BlobError::NotFound)));
    assert_eq!(keys(&blobs, "", b"", after(1_000)), [b"1", b"2"]);
    assert!(!delete(&blobs, "0", after(1_000)).unwrap(), "it counts as gone");
    assert_eq!(reading.next_chunk().unwrap().unwrap(), "content");
    // A jump of the wall clock changes nothing.
    let jumped = Now { unix_us: START.unix_us * 2, ..after(500) };
    assert!(blobs.read("", b"1", jumped).is_ok());
    assert_eq!(files(&backend), 2);
    let calls = backend.calls();
    assert!(!blobs.sweep(after(1_999), 10).unwrap());
    assert_eq!(backend.calls(), calls, "nothing is due");
    assert!(blobs.sweep(after(2_000), 1).unwrap());
    assert!(!blobs.sweep(after(2_000), 1).unwrap());
    assert_eq!((files(&backend), blobs.stats().blobs), (1, 1));
    // Nor does a restart.
    put_with(&blobs, new_blob("3"), 2, Ttl::Ms(1_000), b"content").unwrap();
    let (blobs, _) = open(&backend.crash(Lose::Unsynced));
    assert!(blobs.read("", b"3", after(999)).is_ok());
    assert!(matches!(blobs.read("", b"3", after(1_000)), Err(BlobError::NotFound)));
    assert!(blobs.read("", b"2", after(1_000_000)).is_ok());
}

#[test]
fn a_replaced_blobs_time_does_not_end_the_one_after_it() {
    let backend = MemoryBackend::new();
    let (blobs, _) = open(&backend);
    put_with(&blobs, new_blob("k"), 1, Ttl::Ms(10), b"one").unwrap();
    put(&blobs, "k", 2, b"two").unwrap();
    let later = START.plus(Duration::from_secs(1));
    assert!(!blobs.sweep(later, 10).unwrap());
    assert_eq!(rest(blobs.read("", b"k", later).unwrap()).unwrap(), b"two");
}

#[test]
fn listings_are_in_order_and_end_at_namespace_and_prefix() {
    let backend = MemoryBackend::new();
    let (blobs, _) = open(&backend);
    for (namespace, key) in [("", "b"), ("", "ab"), ("", "a"), ("a", "b"), ("a", "c"), ("aa", "a")] {
        let new_blob = NewBlob { namespace: namespace.to_owned(), ..new_blob(key) };
        put_with(&blobs, new_blob, 1, Ttl::Never, key.as_bytes()).unwrap();
    }
    assert_eq!(keys(&blobs, "", b"", START), [&b"a"[..], b"ab", b"b"]);
    assert_eq!(keys(&blobs, "", b"a", START), [&b"a"[..], b"ab"]);
    assert_eq!(keys(&blobs, "a", b"", START), [b"b", b"c"]);
    let mut after = Vec::new();
    blobs
        .list("", b"a", Some(b"a"), START, &mut |listed| {
            after.push(listed.unwrap().key.to_vec());
            ControlFlow::Break(())
        })
        .unwrap();
    assert_eq!(after, [b"ab"]);
    assert_eq!(blobs.clear("a").unwrap(), Removed { blobs: 2, bytes: 2 });
    assert_eq!(blobs.clear("a").unwrap(), Removed::default());
    assert!(keys(&blobs, "a", b"", START).is_empty());
    assert_eq!((keys(&blobs, "aa", b"", START).len(), files(&backend), blobs.stats().blobs), (1, 4, 4));
}

#[test]
fn a_large_namespace_is_cleared_commit_by_commit() {
    let backend = MemoryBackend::new();
    let (blobs, _) = open(&backend);
    for n in 0..KEYS_PER_COMMIT + 10 {
        put(&blobs, &n.to_string(), 1, b"x").unwrap();
    }
    assert_eq!(blobs.clear("").unwrap().blobs, KEYS_PER_COMMIT as u64 + 10);
    assert_eq!((files(&backend), blobs.stats()), (0, BlobStats::default()));
}

#[test]
fn the_limit_is_not_passed_however_many_write() {
    let backend = MemoryBackend::new();
    let limit = 3 << 20;
    let (blobs, _) = Blobs::open(Arc::new(backend.clone()), Some(limit), START).unwrap();
    let said = NewBlob { size_bytes: Some(4 << 20), ..new_blob("k") };
    assert!(matches!(blobs.begin(said), Err(BlobError::Full { needs, .. }) if needs == 4 << 20));
    put(&blobs, "k", 1, &content(1, 1 << 20)).unwrap();
    let mut writers: Vec<_> = (0..4).map(|n| blobs.begin(new_blob(&n.to_string())).unwrap()).collect();
    let (chunk, mut full) = (content(2, CHUNK), 0);
    for _ in 0..20 {
        for writer in &mut writers {
            full += usize::from(matches!(writer.write(&chunk), Err(BlobError::Full { .. })));
            assert!(backend.disk_bytes().unwrap() <= limit);
        }
    }
    assert!(full > 0 && backend.disk_bytes().unwrap() > limit - 4 * CHUNK as u64);
    drop(writers);
    assert_eq!(files(&backend), 1);
    put(&blobs, "l", 1, &content(1, 1 << 20)).unwrap();
    blobs.set_limit(Some(limit / 2));
    assert!(matches!(put(&blobs, "m", 1, &chunk), Err(BlobError::Full { .. })));
    assert_eq!(get(&blobs, "k").unwrap(), content(1, 1 << 20));
}

#[test]
fn a_full_disk_leaves_the_blob_that_was_there() {
    let backend = MemoryBackend::new();
    let (blobs, _) = open(&backend);
    put(&blobs, "k", 1, b"before").unwrap();
    backend.set_room(Some(CHUNK as u64));
    assert!(matches!(put(&blobs, "k", 2, &content(1, 2 * CHUNK)), Err(BlobError::DiskFull(_))));
    assert_eq!((get(&blobs, "k").unwrap(), files(&backend)), (b"before".to_vec(), 1));
}

/// What a key may be found with.
type Found = Option<Vec<u8>>;

/// Does `act` on a store that holds `before`, with the n-th call failing once or from then on, for every n; whatever
/// fails, the store and what any crash leaves of it have the content before or the one after, whole.
fn at_every_call(before: &Found, after: &Found, act: impl Fn(&Blobs) -> Result<()>) {
    for strikes in [Strikes::Once, Strikes::FromThenOn] {
        for passing in 0.. {
            let backend = MemoryBackend::new();
            let (blobs, _) = open(&backend);
            if let Some(before) = before {
                put(&blobs, "k", 1, before).unwrap();
            }
            put(&blobs, "other", 1, b"other").unwrap();
            let calls = backend.calls();
            backend.plan(Fault { call: None, passing, refusal: IoFault::Io, strikes });
            let done = act(&blobs);
            let over = backend.calls() - calls <= passing;
            let about = format!("call {passing} of {:?}: {done:?}", backend.calls() - calls);
            let allowed = |found: &Found| found == after || (done.is_err() && found == before);
            for lose in [Lose::Nothing, Lose::Unsynced]
                .into_iter()
                .chain((0..6).map(Lose::Tail))
                .chain((0..6).map(Lose::Holes))
            {
                let left = backend.crash(lose);
                let (blobs, _) = open(&left);
                let found = found(&blobs);
                assert!(allowed(&found), "{about}, {lose:?}");
                assert_eq!(get(&blobs, "other").unwrap(), b"other");
                assert_eq!(verified(&blobs).damaged, 0, "{about}, {lose:?}");
                assert_eq!(files(&left), 1 + usize::from(found.is_some()), "{about}, {lose:?}");
            }
            backend.heal();
            assert!(allowed(&found(&blobs)), "{about}");
            blobs.sweep(START, 10).unwrap();
            let found = found(&blobs);
            assert!(allowed(&found), "{about}");
            assert_eq!(files(&backend), 1 + usize::from(found.is_some()), "{about}");
            assert_eq!(blobs.stats().blobs, 1 + u64::from(found.is_some()), "{about}");
            if over {
                assert!(done.is_ok() && passing > 1, "{about}");
                break;
            }
        }
    }
}

fn found(blobs: &Blobs) -> Found {
    match get(blobs, "k") {
        Ok(content) => Some(content),
        Err(BlobError::NotFound) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_put_that_fails_anywhere_leaves_all_or_nothing() {
    let new = content(2, CHUNK + 100);
    at_every_call(&None, &Some(new.clone()), |blobs| put(blobs, "k", 2, &new).map(drop));
}

#[test]
fn a_replacement_that_fails_anywhere_leaves_the_old_blob_or_the_new() {
    let (old, new) = (content(1, 2 * CHUNK + 5), content(2, CHUNK + 100));
    at_every_call(&Some(old), &Some(new.clone()), |blobs| put(blobs, "k", 2, &new).map(drop));
}

#[test]
fn a_deletion_that_fails_anywhere_leaves_all_or_nothing() {
    at_every_call(&Some(content(1, 300)), &None, |blobs| delete(blobs, "k", START).map(drop));
}

#[test]
fn a_shortage_anywhere_refuses_the_call_and_the_next_one_works() {
    for refusal in [IoFault::NoDescriptor, IoFault::NoMemory] {
        for passing in 0.. {
            let backend = MemoryBackend::new();
            let (blobs, _) = open(&backend);
            let (old, new) = (content(1, CHUNK + 5), content(2, CHUNK + 100));
            put(&blobs, "k", 1, &old).unwrap();
            let calls = backend.calls();
            backend.plan(Fault { call: None, passing, refusal, strikes: Strikes::Once });
            let short = |error: &BlobError| matches!(error, BlobError::Backend(error) if error.is_passing());
            let stored = put(&blobs, "k", 2, &new).map(drop).and_then(|()| get(&blobs, "k").map(drop));
            assert!(
                stored.as_ref().map_or_else(short, |()| true),
                "{refusal:?} at call {passing}: {stored:?}"
            );
            let is_over = backend.calls() - calls < passing;
            backend.heal();
            put(&blobs, "k", 3, &new).unwrap();
            blobs.sweep(START, 10).unwrap();
            assert_eq!(
                (get(&blobs, "k").unwrap(), files(&backend)),
                (new, 1),
                "{refusal:?} at call {passing}"
            );
            if is_over {
                break;
            }
        }
    }
}

#[test]
fn a_second_put_after_one_whose_commit_failed_is_whole_too() {
    let backend = MemoryBackend::new();
    let (blobs, _) = open(&backend);
    put(&blobs, "k", 1, b"one").unwrap();
    backend.plan(Fault {
        call: Some(Call::Commit),
        passing: 0,
        refusal: IoFault::Io,
        strikes: Strikes::Once,
    });
    assert!(matches!(put(&blobs, "k", 2, b"two"), Err(BlobError::Backend(_))));
    assert_eq!(files(&backend), 2, "a restart may find either");
    put(&blobs, "k", 3, b"three").unwrap();
    blobs.sweep(START, 10).unwrap();
    assert_eq!((get(&blobs, "k").unwrap(), files(&backend)), (b"three".to_vec(), 1));
}

#[test]
fn every_flipped_bit_is_found_and_no_wrong_byte_is_served() {
    let backend = MemoryBackend::new();
    let (blobs, _) = open(&backend);
    let expected = content(1, 90);
    let manifest = put(&blobs, "k", 1, &expected).unwrap();
    let file = file_id(manifest.file);
    let len = backend.content(file).unwrap().len() as u64;
    for at in 0..len {
        for bit in 0..8 {
            assert!(backend.flip_bit(file, at, bit));
            match get(&blobs, "k") {
                Err(BlobError::Damaged(damage)) => assert!(damage.place.contains("blob/"), "{damage}"),
                // Only the footer, which is not read to serve the blob.
                Ok(read) => assert!(read == expected && at >= manifest.footer_offset(), "byte {at}"),
                Err(other) => panic!("{other}"),
            }
            let found = verified(&blobs);
            assert_eq!((found.blobs, found.damaged, found.damages.len()), (0, 1, 1), "byte {at}");
            assert!(backend.flip_bit(file, at, bit));
        }
    }
    for len in 0..len {
        let cut = backend.crash(Lose::Nothing);
        cut.truncate(file, len);
        assert!(matches!(get(&open(&cut).0, "k"), Err(BlobError::Damaged(_))), "cut at {len}");
    }
    assert!(blobs.stats().damages > 0);
    assert_eq!(get(&blobs, "k").unwrap(), expected);
}

#[test]
fn damage_in_one_chunk_spares_the_others() {
    let backend = MemoryBackend::new();
    let (blobs, _) = open(&backend);
    let expected = content(1, 3 * CHUNK);
    let manifest = put(&blobs, "k", 1, &expected).unwrap();
    backend.flip_bit(file_id(manifest.file), manifest.chunk_offset(1) + 1_000, 3);
    let mut reader = blobs.read("", b"k", START).unwrap();
    assert_eq!(reader.next_chunk().unwrap().unwrap(), &expected[..CHUNK]);
    let Err(BlobError::Damaged(damage)) = reader.next_chunk() else { panic!("a damaged chunk was read") };
    assert_eq!(damage.offset, manifest.chunk_offset(1));
    assert_eq!(range(&blobs, "k", 2 * CHUNK as u64, 0).unwrap(), &expected[2 * CHUNK..]);
    assert!(matches!(range(&blobs, "k", CHUNK as u64 - 1, 2), Err(BlobError::Damaged(_))));
}

#[test]
fn what_does_not_belong_together_is_put_right_when_the_store_opens() {
    let backend = MemoryBackend::new();
    let (blobs, _) = open(&backend);
    for key in ["a", "b", "c"] {
        put(&blobs, key, 1, key.as_bytes()).unwrap();
    }
    // As a crash would leave it.
    let begun = blobs.begin(new_blob("begun")).unwrap();
    let manifest = |key: &[u8]| blobs.manifest(&catalogue_key("", key)).unwrap().unwrap();
    let lost = manifest(b"a").file;
    backend.delete(file_id(lost)).unwrap();
    let key = catalogue_key("", b"b");
    backend.commit(&[CatalogueChange::Put(&key, b"nonsense")]).unwrap();
    assert!(matches!(get(&blobs, "b"), Err(BlobError::Damaged(_))));
    let (blobs, opened) = open(&backend);
    drop(begun);
    assert_eq!((opened.blobs, opened.leftovers, opened.rebuilt), (3, 1, 1), "{opened:?}");
    assert!(opened.damages.iter().any(|damage| damage.what == "the file is not there"));
    assert!(matches!(get(&blobs, "a"), Err(BlobError::Damaged(_))));
    assert_eq!((get(&blobs, "b").unwrap(), get(&blobs, "c").unwrap()), (b"b".to_vec(), b"c".to_vec()));
    assert!(delete(&blobs, "a", START).unwrap());
    assert_eq!(verified(&blobs).damaged, 0);
}

#[test]
fn a_lost_catalogue_is_made_anew_of_the_files() {
    let backend = MemoryBackend::new();
    let (blobs, _) = open(&backend);
    put(&blobs, "k", 1, b"old").unwrap();
    let old =
        backend.content(file_id(blobs.manifest(&catalogue_key("", b"k")).unwrap().unwrap().file)).unwrap();
    let new_blob =
        NewBlob { content_type: "text/plain".to_owned(), namespace: "n".to_owned(), ..new_blob("x") };
    put_with(&blobs, new_blob, 2, Ttl::Ms(60_000), b"content").unwrap();
    put(&blobs, "k", 3, b"new").unwrap();
    // The file of the one that was replaced is back, as it can be after a crash.
    backend.put_content(file_id(1), old);
    backend.put_content(file_id(77), b"no blob".to_vec());
    let lost = [MARKER.to_vec(), catalogue_key("", b"k"), catalogue_key("n", b"x")];
    let changes: Vec<_> = lost.iter().map(|key| CatalogueChange::Remove(key)).collect();
    backend.commit(&changes).unwrap();
    let (blobs, opened) = open(&backend);
    assert_eq!((opened.blobs, opened.rebuilt, opened.leftovers, opened.damaged), (2, 2, 0, 1));
    assert_eq!(backend.quarantined(), [file_id(1), file_id(77)], "the old one is whole, and kept");
    assert_eq!(get(&blobs, "k").unwrap(), b"new");
    let reader = blobs.read("n", b"x", START).unwrap();
    assert_eq!((reader.manifest().content_type.as_str(), reader.ttl()), ("text/plain", Ttl::Ms(60_000)));
    assert_eq!(rest(reader).unwrap(), b"content");
    put(&blobs, "more", 4, b"more").unwrap();
    assert_eq!(verified(&blobs).damaged, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn ranges_equal_those_of_a_plain_vector(
        size in 0..3 * CHUNK + 50,
        ranges in prop::collection::vec((0..3 * CHUNK as u64 + 99, 0..2 * CHUNK as u64), 1..8),
    ) {
        let (blobs, _) = open(&MemoryBackend::new());
        let expected = content(5, size);
        put(&blobs, "k", 1, &expected).unwrap();
        for (offset, length) in ranges {
            let read = range(&blobs, "k", offset, length);
            if offset > size as u64 {
                let is_out = matches!(read, Err(BlobError::OutOfRange { .. }));
                prop_assert!(is_out);
                continue;
            }
            let from = offset as usize;
            let to = if length == 0 { size } else { size.min(from + length as usize) };
            prop_assert_eq!(&read.unwrap()[..], &expected[from..to]);
        }
    }
}
