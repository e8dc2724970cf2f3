//! A catalogue that was lost is made anew of the files, and none of those is deleted that was ever whole.

use super::*;
use crate::persistence::{FilesBackend, SledBackend};

/// Without the catalogue.
fn lose_catalogue(backend: &MemoryBackend) {
    let mut keys = vec![MARKER.to_vec()];
    let mut visit = |key: &[u8], _: &[u8]| {
        keys.push(key.to_vec());
        ControlFlow::Continue(())
    };
    backend.scan(all_blobs(), None, &mut visit).unwrap();
    let changes: Vec<_> = keys.iter().map(|key| CatalogueChange::Remove(key)).collect();
    backend.commit(&changes).unwrap();
}

fn manifest(blobs: &Blobs, key: &str) -> Manifest {
    blobs.manifest(&catalogue_key("", key.as_bytes())).unwrap().unwrap()
}

#[test]
fn a_file_that_is_not_whole_is_set_aside_wherever_it_is_damaged() {
    let backend = MemoryBackend::new();
    let (blobs, _) = open(&backend);
    put(&blobs, "k", 1, &content(1, 90)).unwrap();
    put(&blobs, "l", 2, b"whole").unwrap();
    let manifest = manifest(&blobs, "k");
    let (file, footer) = (file_id(manifest.file), manifest.footer_offset());
    let len = backend.content(file).unwrap().len() as u64;
    let opened_without = |damaged: &MemoryBackend, about: &str| {
        lose_catalogue(damaged);
        let (blobs, opened) = open(damaged);
        assert_eq!(get(&blobs, "l").unwrap(), b"whole", "{about}");
        assert_eq!(opened.leftovers, 0, "{about}: nothing is deleted");
        let is_aside = damaged.quarantined() == [file];
        assert_eq!((opened.set_aside, opened.damaged), (u64::from(is_aside), u64::from(is_aside)), "{about}");
        (is_aside, get(&blobs, "k"))
    };
    for at in 0..len {
        for bit in 0..8 {
            let damaged = backend.crash(Lose::Nothing);
            assert!(damaged.flip_bit(file, at, bit));
            let (is_aside, read) = opened_without(&damaged, &format!("bit {bit} of {at}"));
            // Chunks are looked at when they are read.
            let is_chunk = (format::HEAD_BYTES as u64..footer).contains(&at);
            assert_eq!(is_aside, !is_chunk, "bit {bit} of {at}");
            assert!(matches!(read, Err(BlobError::Damaged(_) | BlobError::NotFound)), "bit {bit} of {at}");
        }
    }
    // Of two bytes of the footer nobody can tell that they are not the beginning of a chunk.
    for cut in footer + 3..len {
        let damaged = backend.crash(Lose::Nothing);
        damaged.truncate(file, cut);
        assert!(opened_without(&damaged, &format!("cut at {cut}")).0, "cut at {cut}");
    }
}

#[test]
fn what_is_left_of_a_write_that_was_never_finished_is_deleted() {
    let backend = MemoryBackend::new();
    let (blobs, _) = open(&backend);
    put(&blobs, "k", 1, b"whole").unwrap();
    let mut writer = blobs.begin(new_blob("begun")).unwrap();
    writer.write(&content(1, 3 * CHUNK)).unwrap();
    let begun = file_id(2);
    let written = backend.content(begun).unwrap();
    let chunk = CHUNK + format::CHUNK_HEAD_BYTES;
    let second = 32 + chunk;
    let cuts =
        [0, 1, 31, 32, 33, 41, 48, 49, 1_000, second - 1, second, second + 7, second + 16, second + 900];
    for cut in cuts.into_iter().chain([written.len() - 1, written.len()]) {
        let left = backend.crash(Lose::Nothing);
        // At the end of a part, also what a power cut leaves of a length that reached the disk before the bytes.
        let zeroes = if cut == 0 || (cut + chunk - 32).is_multiple_of(chunk) { 10_000 } else { 0 };
        left.put_content(begun, [&written[..cut], &vec![0; zeroes]].concat());
        lose_catalogue(&left);
        let (blobs, opened) = open(&left);
        assert_eq!((opened.leftovers, opened.set_aside, opened.damaged), (1, 0, 0), "cut at {cut}");
        assert!(left.quarantined().is_empty() && left.content(begun).is_none(), "cut at {cut}");
        assert_eq!(get(&blobs, "k").unwrap(), b"whole");
    }
}

#[test]
fn a_crash_while_the_catalogue_is_made_anew_costs_no_file() {
    let backend = MemoryBackend::new();
    let (blobs, _) = open(&backend);
    put(&blobs, "k", 1, b"old").unwrap();
    let old = backend.content(file_id(1)).unwrap();
    put(&blobs, "k", 2, b"new").unwrap();
    put(&blobs, "l", 3, b"damaged").unwrap();
    backend.put_content(file_id(1), old);
    backend.flip_bit(file_id(manifest(&blobs, "l").file), 3, 3);
    lose_catalogue(&backend);
    for passing in 0.. {
        let failing = backend.crash(Lose::Nothing);
        failing.fail_once_after(passing);
        let is_open = Blobs::open(Arc::new(failing.clone()), None, START).is_ok();
        let left = failing.crash(Lose::Unsynced);
        let (blobs, _) = open(&left);
        assert_eq!(get(&blobs, "k").unwrap(), b"new", "call {passing}");
        let mut aside = left.quarantined();
        aside.sort_unstable();
        assert_eq!((aside, files(&left)), (vec![file_id(1), file_id(3)], 1), "call {passing}");
        if is_open && failing.calls() <= passing {
            return assert!(passing > 8, "{passing}");
        }
    }
}

#[test]
fn a_manifest_that_cannot_be_read_costs_no_file_either() {
    let backend = MemoryBackend::new();
    let (blobs, _) = open(&backend);
    put(&blobs, "k", 1, b"content").unwrap();
    let file = file_id(manifest(&blobs, "k").file);
    backend.commit(&[CatalogueChange::Put(&catalogue_key("", b"k"), b"nonsense")]).unwrap();
    let len = backend.content(file).unwrap().len() as u64;
    assert!(backend.flip_bit(file, len - 3, 0));
    let (blobs, opened) = open(&backend);
    assert_eq!((opened.set_aside, opened.leftovers, backend.quarantined()), (1, 0, vec![file]));
    assert!(matches!(get(&blobs, "k"), Err(BlobError::Damaged(_))));
}

#[test]
fn no_flipped_bit_in_a_catalogue_costs_a_blob() {
    let directory = tempfile::tempdir().unwrap();
    let open_files = || {
        let (backend, notes) = FilesBackend::open(directory.path()).unwrap();
        let (blobs, opened) = Blobs::open(Arc::new(backend), None, START).unwrap();
        (blobs, opened, notes)
    };
    let keys = ["b0", "b1", "b2"];
    let (blobs, ..) = open_files();
    for (version, key) in (1..).zip(keys) {
        put(&blobs, key, version, b"before").unwrap();
        put(&blobs, key, 10 + version, key.as_bytes()).unwrap();
    }
    drop(blobs);
    let catalogue = directory.path().join("catalogue");
    let names = ["committed", "0000000000000001.log"].map(|name| catalogue.join(name));
    let [committed, log] = names.each_ref().map(|name| std::fs::read(name).unwrap());
    for at in (0..log.len()).step_by(11) {
        let mut damaged = log.clone();
        damaged[at] ^= 1 << (at % 8);
        std::fs::remove_dir_all(&catalogue).unwrap();
        std::fs::create_dir(&catalogue).unwrap();
        std::fs::write(&names[0], &committed).unwrap();
        std::fs::write(&names[1], damaged).unwrap();
        let (blobs, opened, notes) = open_files();
        assert!(!notes.is_empty(), "byte {at}");
        assert_eq!((opened.rebuilt, opened.leftovers, opened.damaged), (3, 0, 0), "byte {at}");
        for key in keys {
            assert_eq!(get(&blobs, key).unwrap(), key.as_bytes(), "byte {at}");
        }
    }
}

#[test]
fn blobs_are_the_same_whichever_backend_has_their_catalogue() {
    let directory = tempfile::tempdir().unwrap();
    let opened_by = |is_sled: bool| {
        let backend: Arc<dyn Backend> = if is_sled {
            Arc::new(SledBackend::open(directory.path()).unwrap().0)
        } else {
            Arc::new(FilesBackend::open(directory.path()).unwrap().0)
        };
        let (blobs, opened) = Blobs::open(backend, None, START).unwrap();
        assert_eq!((opened.rebuilt, opened.leftovers, opened.damaged), (0, 0, 0));
        blobs
    };
    for (round, is_sled) in (1..).zip([true, false, true, false, false, true]) {
        let blobs = opened_by(is_sled);
        let before = format!("only {}", round - 1);
        assert_eq!(delete(&blobs, &before, START).unwrap(), round > 1);
        put(&blobs, &format!("only {round}"), 10 * round, b"only").unwrap();
        put(&blobs, "same", 10 * round + 1, round.to_string().as_bytes()).unwrap();
        drop(blobs);
        for is_sled in [is_sled, !is_sled] {
            let blobs = opened_by(is_sled);
            assert_eq!(keys(&blobs, "", b"", START).len(), 2);
            assert_eq!(get(&blobs, &format!("only {round}")).unwrap(), b"only");
            assert_eq!(get(&blobs, "same").unwrap(), round.to_string().as_bytes());
            assert_eq!(verified(&blobs).damaged, 0);
        }
    }
}
