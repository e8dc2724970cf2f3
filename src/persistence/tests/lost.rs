//! Files that are taken away while the node runs: nothing is acknowledged any more that a restart would not find.

use super::*;
use crate::clock::monotonic;
use crate::persistence::backend::memory::Call;
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

/// Takes the only snapshot away behind the node's back.
fn lose_the_only_snapshot(stand: &Stand) -> SnapshotInfo {
    let there = stand.disk.snapshots();
    let [newest] = there[..] else { panic!("{there:?}") };
    assert!(stand.backend.take_away(FileId { kind: FileKind::Snapshot, number: newest.number }));
    newest
}

/// Waits until there is one in place of a snapshot that is gone.
fn wait_for_another(stand: &Stand, gone: SnapshotInfo) {
    let begun = monotonic();
    let is_replaced = |there: &[SnapshotInfo]| there.iter().any(|other| other.number > gone.number);
    while !is_replaced(&stand.disk.snapshots()) {
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody misses it");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_snapshot_that_is_gone_has_another_in_its_place_at_once() {
    let stand = Stand::new();
    stand.set("k", "v");
    let before = stand.disk.snapshot().unwrap();
    stand.disk.compact().unwrap();
    let newest = lose_the_only_snapshot(&stand);
    wait_for_another(&stand, newest);
    assert_eq!((stand.disk.snapshots().len(), newest.number > before.number), (1, true));
    // What the catalogue says of it comes a moment after that.
    stand.disk.stop().unwrap();
    let stand = stand.crashed(&config());
    assert_eq!(stand.get("k").as_deref(), Some("v"));
    assert!(stand.report.damages.is_empty(), "{:?}", stand.report.damages);
}

/// How many of a store's keys are found on disk.
fn found(stand: &Stand, keys: u32) -> usize {
    let reader = stand.disk.tier_reader().unwrap();
    let is_there = |n: &u32| {
        let key = format!("key:{n}");
        let place = stand.engine.shard_and_walk_hash(0, key.as_bytes());
        reader.tier.fetch(place, 0, key.as_bytes()).unwrap().is_some()
    };
    (0..keys).filter(is_there).count()
}

#[test]
fn entries_that_lie_in_a_snapshot_that_is_gone_are_found_and_put_into_the_next() {
    let store = DiskConfig { is_store: true, ..config() };
    let stand = Stand::over(MemoryBackend::new(), &store).unwrap();
    (0..200).for_each(|n| drop(stand.set(&format!("key:{n}"), "value")));
    stand.disk.compact().unwrap();
    let gone = lose_the_only_snapshot(&stand);
    assert_eq!(found(&stand, 200), 200, "it is open");
    wait_for_another(&stand, gone);
    assert_eq!(found(&stand, 200), 200, "what is in memory may be evicted at any time");
    stand.disk.compact().unwrap();
    let file = FileId { kind: FileKind::Snapshot, number: gone.number };
    assert!(
        !stand.disk.tier_reader().unwrap().tier.open_files().contains(&file),
        "no place leads there any more"
    );
    stand.disk.stop().unwrap();
    let stand = stand.crashed(&store);
    assert_eq!((found(&stand, 200), stand.report.damages.len()), (200, 0), "{:?}", stand.report.damages);
}

#[test]
fn a_file_that_is_opened_while_the_directory_is_read_stays_open() {
    let stand = Stand::over(MemoryBackend::new(), &DiskConfig { is_store: true, ..config() }).unwrap();
    let backend = Arc::clone(&stand.backend) as Arc<dyn Backend>;
    let tier = Arc::new(crate::persistence::tier::DiskTier::new(Arc::clone(&backend), 1));
    let file = |number| FileId { kind: FileKind::Snapshot, number };
    drop(backend.create(file(7)).unwrap());
    tier.open(file(7)).unwrap();
    backend.delete(file(7)).unwrap();
    let opens = Arc::clone(&tier);
    stand.backend.in_each(Call::Files, move || {
        drop(backend.create(file(8)));
        opens.open(file(8)).unwrap();
    });
    tier.close_deleted().unwrap();
    assert_eq!(tier.open_files(), [file(8)]);
}
