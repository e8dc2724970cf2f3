//! Every bit and every length of a journal and of a snapshot: damage is reported, and no wrong value comes of it.

use super::*;

/// A journal of many small batches, cleanly ended; each key is written twice.
fn written() -> (MemoryBackend, Vec<FileId>) {
    let stand = batches();
    stand.disk.stop().unwrap();
    let left = stand.backend.crash(Lose::Unsynced);
    let files = left.files().unwrap().into_iter().map(|(file, _)| file).collect();
    (left, files)
}

/// A node that has written it.
pub(super) fn batches() -> Stand {
    let stand = Stand::over(MemoryBackend::new(), &config()).unwrap();
    for round in 0..2 {
        for n in 0..40 {
            stand.set(&format!("key:{n}"), &format!("{round}:{n}:{}", "x".repeat(n)));
            if n % 5 == 0 {
                stand.disk.journal().flush().unwrap();
            }
        }
    }
    stand
}

/// How much of a file was written: behind that it has only zeroes.
pub(super) fn written_bytes(content: &[u8]) -> usize {
    content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Asserts that every value served was written once, and that missing and old values are reported.
pub(super) fn judge(backend: MemoryBackend, what: &str) -> Report {
    let stand = Stand::over(backend, &config()).unwrap();
    let mut is_whole = true;
    for n in 0..40 {
        let tail = "x".repeat(n);
        match stand.get(&format!("key:{n}")).as_deref() {
            Some(value) if value == format!("1:{n}:{tail}") => {}
            Some(value) if value == format!("0:{n}:{tail}") => is_whole = false,
            None => is_whole = false,
            Some(wrong) => panic!("{what}: key:{n} is {wrong:?}"),
        }
    }
    let told = !stand.report.damages.is_empty();
    assert!(is_whole || told, "{what}: something is lost and not reported");
    let report = stand.report.clone();
    // What was recovered stays, and is recovered again without another alarm.
    let before = stand.content();
    stand.disk.journal().flush().unwrap();
    let again = stand.crashed(&config());
    assert_eq!(again.content(), before, "{what}");
    assert!(again.report.damages.is_empty(), "{what}: {:?}", again.report.damages);
    report
}

/// As [`judge`], of a journal all of which was synced.
pub(super) fn judge_synced(backend: MemoryBackend, what: &str) {
    let report = judge(backend, what);
    let told = !report.damages.is_empty();
    assert!(told || report.torn_bytes == 0, "{what}: everything was synced, so nothing is a torn tail");
}

#[test]
fn every_bit_of_a_journal_that_flips_is_told_and_gives_no_wrong_value() {
    let (backend, files) = written();
    for file in files {
        let content = backend.content(file).unwrap();
        // Every byte, and of each byte another bit; all bits of the headers are asked in the frame's own tests.
        for at in 0..written_bytes(&content) {
            let bent = backend.crash(Lose::Nothing);
            assert!(bent.flip_bit(file, at as u64, (at % 8) as u32));
            judge_synced(bent, &format!("{file}, byte {at}"));
        }
    }
}

#[test]
fn every_truncation_of_a_journal_is_told_and_gives_no_wrong_value() {
    let (backend, files) = written();
    for file in files {
        let content = backend.content(file).unwrap();
        for length in 0..written_bytes(&content) {
            let cut = backend.crash(Lose::Nothing);
            assert!(cut.truncate(file, length as u64));
            judge_synced(cut, &format!("{file}, cut to {length}"));
        }
    }
}

#[test]
fn a_tail_that_was_not_synced_is_cut_at_any_byte_and_is_no_damage() {
    for seed in 0..200 {
        let stand = Stand::new();
        for n in 0..20 {
            stand.set(&format!("key:{n}"), "safe");
        }
        stand.disk.journal().flush().unwrap();
        for n in 0..20 {
            stand.set(&format!("key:{n}"), "perhaps");
            stand.disk.journal().written().unwrap();
        }
        let left = stand.backend.crash(Lose::Tail(seed));
        let stand = Stand::over(left, &config()).unwrap();
        assert!(stand.report.damages.is_empty(), "{:?}", stand.report);
        // A prefix: once a key has the old value, so have all after it.
        let values: Vec<String> = (0..20).map(|n| stand.get(&format!("key:{n}")).unwrap()).collect();
        let kept = values.iter().take_while(|value| *value == "perhaps").count();
        assert!(values[kept..].iter().all(|value| value == "safe"), "{values:?}");
    }
}

#[test]
fn a_damaged_snapshot_is_passed_over_for_the_one_before_and_told() {
    let stand = Stand::new();
    for n in 0..200 {
        stand.set(&format!("key:{n}"), "first");
    }
    stand.disk.snapshot().unwrap();
    for n in 0..100 {
        stand.set(&format!("key:{n}"), "second");
    }
    stand.disk.snapshot().unwrap();
    stand.set("key:0", "third");
    stand.disk.journal().flush().unwrap();
    let before = stand.content();
    let newest = FileId { kind: FileKind::Snapshot, number: stand.disk.snapshots()[0].number };
    let length = stand.backend.content(newest).unwrap().len();
    for at in (0..length).step_by(7) {
        let bent = stand.backend.crash(Lose::Unsynced);
        assert!(bent.flip_bit(newest, at as u64, (at % 8) as u32));
        let recovered = Stand::over(bent, &config()).unwrap();
        assert_eq!(recovered.content(), before, "byte {at}");
        assert!(!recovered.report.damages.is_empty(), "byte {at} is damaged, and that is not reported");
        assert!(recovered.backend.quarantined().contains(&newest), "byte {at}");
    }
}
