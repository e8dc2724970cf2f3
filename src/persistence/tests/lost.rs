//! Files that are taken away while the node runs: nothing is acknowledged any more that a restart would not find.

use super::*;
use crate::clock::monotonic;
use crate::persistence::snapshot::SnapshotInfo;

fn journal(stand: &Stand) -> Vec<FileId> {
    let segments = stand.disk.journal().segments();
    segments.iter().map(|segment| FileId { kind: FileKind::Journal, number: segment.number }).collect()
}

#[test]
fn nothing_is_acknowledged_from_the_first_sync_after_a_file_of_the_journal_is_gone() {
    let journaled =
        DiskConfig { journal: JournalConfig { segment_bytes: 500, ..config().journal }, ..config() };
    for which in ["the first", "the last"] {
        let stand = Stand::over(MemoryBackend::new(), &journaled).unwrap();
        for n in 0..40 {
            stand.set(&format!("key:{n}"), "value");
            stand.disk.journal().flush().unwrap();
        }
        let files = journal(&stand);
        assert!(files.len() > 2, "{files:?}");
        let taken = if which == "the first" { files[0] } else { files[files.len() - 1] };
        assert!(stand.backend.take_away(taken));
        stand.set("k", "v");
        assert!(stand.disk.journal().flush().is_err(), "{which}");
        assert_eq!(stand.set("k", "w"), Outcome::Refused(Refusal::Poisoned), "{which}");
        assert!(stand.disk.stop().is_err(), "{which}");
    }
}

#[test]
fn a_journal_that_nobody_writes_is_missed_too() {
    let stand = Stand::new();
    stand.set("k", "v");
    stand.disk.journal().flush().unwrap();
    let mut poisoned = stand.disk.journal().poisoned();
    assert!(stand.backend.take_away(journal(&stand)[0]));
    let missed = poisoned.wait_for(Option::is_some);
    futures_executor::block_on(missed).unwrap();
    assert!(stand.disk.stop().is_err());
}

#[test]
fn a_snapshot_that_is_gone_has_another_in_its_place_at_once() {
    let stand = Stand::new();
    stand.set("k", "v");
    let before = stand.disk.snapshot().unwrap();
    stand.disk.compact().unwrap();
    let there = stand.disk.snapshots();
    let [newest] = there[..] else { panic!("{there:?}") };
    assert!(stand.backend.take_away(FileId { kind: FileKind::Snapshot, number: newest.number }));
    let begun = monotonic();
    let is_replaced = |there: &[SnapshotInfo]| there.iter().any(|other| other.number > newest.number);
    while !is_replaced(&stand.disk.snapshots()) {
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody misses it");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!((stand.disk.snapshots().len(), newest.number > before.number), (1, true));
    // What the catalogue says of it comes a moment after that.
    stand.disk.stop().unwrap();
    let stand = stand.crashed(&config());
    assert_eq!(stand.get("k").as_deref(), Some("v"));
    assert!(stand.report.damages.is_empty(), "{:?}", stand.report.damages);
}
