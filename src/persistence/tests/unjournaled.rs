//! Snapshots are all that is kept: what is between them is not, and nothing of it comes back by halves.

use super::*;
use crate::persistence::backend::CatalogueChange;
use crate::persistence::journal::Stopped;
use crate::persistence::snapshot::SnapshotError;

fn unjournaled() -> DiskConfig {
    DiskConfig { is_journaled: false, ..config() }
}

fn journal_bytes(stand: &Stand) -> u64 {
    let files = stand.backend.files().unwrap();
    files.iter().filter(|(file, _)| file.kind == FileKind::Journal).map(|(_, bytes)| bytes).sum()
}

#[test]
fn a_restart_has_the_last_snapshots_content() {
    let mut stand = Stand::over(MemoryBackend::new(), &unjournaled()).unwrap();
    let mut random = StdRng::seed_from_u64(11);
    for round in 0..4 {
        for _ in 0..300 {
            step(&stand, &mut random);
        }
        let before = stand.content();
        assert_eq!(stand.disk.snapshot().unwrap().entries, before.len() as u64);
        let still = journal_bytes(&stand);
        stand.set("between", "is lost");
        stand.disk.journal().written().unwrap();
        assert_eq!(journal_bytes(&stand), still, "the journal is idle");
        let found = stand.disk.rehearse(RecoveryMethod::SnapshotAndJournal).unwrap();
        assert_eq!((found.report.method, found.entries), (RecoveryMethod::Snapshot, before.len() as u64));
        assert!(found.report.damages.is_empty(), "{:?}", found.report);
        stand = stand.crashed(&unjournaled());
        assert!(stand.report.damages.is_empty(), "round {round}: {:?}", stand.report);
        assert_eq!(stand.content(), before, "round {round}");
    }
}

#[test]
fn what_a_crash_leaves_of_a_snapshots_journal_is_never_applied() {
    // Nobody kept "first"; "second" is in the journal that was begun for a snapshot, which was never finished.
    let stand = Stand::over(MemoryBackend::new(), &unjournaled()).unwrap();
    stand.set("a", "kept");
    stand.disk.snapshot().unwrap();
    stand.set("a", "first");
    stand.disk.journal().keep(true).unwrap();
    stand.set("b", "second");
    stand.disk.journal().flush().unwrap();
    for config in [config(), unjournaled()] {
        let stand = Stand::over(stand.backend.crash(Lose::Unsynced), &config).unwrap();
        assert!(stand.report.damages.is_empty(), "{:?}", stand.report);
        assert_eq!((stand.get("a").as_deref(), stand.get("b")), (Some("kept"), None));
    }
}

#[test]
fn an_increment_that_a_snapshot_has_is_not_done_twice() {
    let stand = Stand::over(MemoryBackend::new(), &unjournaled()).unwrap();
    stand.engine.clear(stand.engine.default_namespace(), stand.now());
    assert_eq!((stand.count("one"), stand.count("two")), (1, 2));
    stand.disk.snapshot().unwrap();
    assert_eq!(stand.count("three"), 3);
    let stand = stand.crashed(&unjournaled());
    assert_eq!((stand.count("one"), stand.count("two"), stand.count("three")), (1, 2, 3));
    stand.disk.stop().unwrap();
    let stand = stand.crashed(&unjournaled());
    assert_eq!((stand.count("three"), stand.count("four")), (3, 4));
}

#[test]
fn where_the_catalogue_is_lost_nothing_is_deleted_and_nothing_applied_by_halves() {
    let lose_catalogue = |backend: &MemoryBackend| {
        let mut keys = Vec::new();
        let mut visit = |key: &[u8], _: &[u8]| {
            keys.push(key.to_vec());
            std::ops::ControlFlow::Continue(())
        };
        backend.scan(b"", None, &mut visit).unwrap();
        let removed: Vec<_> = keys.iter().map(|key| CatalogueChange::Remove(key)).collect();
        backend.commit(&removed).unwrap();
    };
    let stand = Stand::over(MemoryBackend::new(), &unjournaled()).unwrap();
    stand.set("a", "kept");
    let snapshot = stand.disk.snapshot().unwrap();
    stand.set("a", "first");
    stand.disk.journal().keep(true).unwrap();
    stand.set("b", "second");
    stand.disk.journal().flush().unwrap();
    let begun = stand.disk.journal().segments().last().unwrap().number;
    for config in [config(), unjournaled()] {
        let left = stand.backend.crash(Lose::Nothing);
        lose_catalogue(&left);
        let stand = Stand::over(left, &config).unwrap();
        assert_eq!((stand.get("a").as_deref(), stand.get("b")), (Some("kept"), None));
        let journal = FileId { kind: FileKind::Journal, number: begun };
        assert!(stand.backend.quarantined().contains(&journal), "nobody knows what it was for");
        assert!(stand.disk.snapshots().iter().any(|kept| kept.number == snapshot.number));
    }
    // Where changes are kept, it costs nothing at all.
    let stand = Stand::new();
    stand.set("a", "1");
    stand.disk.snapshot().unwrap();
    stand.set("b", "2");
    stand.disk.snapshot().unwrap();
    stand.set("c", "3");
    stand.disk.journal().flush().unwrap();
    let left = stand.backend.crash(Lose::Unsynced);
    lose_catalogue(&left);
    let again = Stand::over(left, &config()).unwrap();
    assert!(again.report.damages.is_empty(), "{:?}", again.report);
    assert_eq!((again.content(), again.disk.snapshots().len()), (stand.content(), 2));
}

#[test]
fn a_node_that_is_told_to_stop_takes_a_last_snapshot_if_anything_has_changed() {
    let stand = Stand::over(MemoryBackend::new(), &unjournaled()).unwrap();
    stand.set("k", "v");
    stand.disk.stop().unwrap();
    assert_eq!(stand.disk.snapshots().len(), 1);
    assert_eq!(stand.set("k", "late"), Outcome::Refused(Refusal::Poisoned), "it could not be kept");
    assert!(matches!(stand.disk.snapshot(), Err(SnapshotError::Stopped(Stopped::Ended))));

    let stand = stand.crashed(&unjournaled());
    assert_eq!(stand.get("k").as_deref(), Some("v"));
    stand.disk.stop().unwrap();
    assert_eq!(stand.disk.snapshots().len(), 1, "a get changes nothing");

    let stand = stand.crashed(&unjournaled());
    stand.engine.invalidate(stand.engine.default_namespace(), Scope::All, stand.now()).unwrap();
    stand.disk.stop().unwrap();
    assert_eq!(stand.crashed(&unjournaled()).content().len(), 0, "an invalidation is a change");
}

#[test]
fn a_snapshot_is_taken_in_time() {
    let often = DiskConfig { snapshot_interval: Some(Duration::from_millis(1)), ..unjournaled() };
    let stand = Stand::over(MemoryBackend::new(), &often).unwrap();
    stand.set("k", "v");
    let begun = crate::clock::monotonic();
    while stand.disk.snapshots().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "none is");
        std::thread::yield_now();
    }
    assert_eq!(stand.crashed(&unjournaled()).get("k").as_deref(), Some("v"));
}

#[test]
fn the_mode_can_be_changed_either_way_without_a_loss() {
    let stand = Stand::new();
    stand.set("a", "1");
    stand.disk.snapshot().unwrap();
    stand.set("b", "2");
    stand.disk.journal().flush().unwrap();
    let stand = stand.crashed(&unjournaled());
    assert_eq!(stand.content().len(), 2, "the journal behind the snapshot counts");
    let stand = stand.crashed(&unjournaled());
    assert_eq!(stand.content().len(), 2, "and is in a snapshot since");
    stand.set("c", "3");
    stand.disk.stop().unwrap();
    let stand = stand.crashed(&config());
    stand.set("d", "4");
    stand.disk.journal().flush().unwrap();
    let stand = stand.crashed(&config());
    assert_eq!((stand.content().len(), stand.report.damages.len()), (4, 0), "{:?}", stand.report);
}

#[test]
fn a_journal_is_not_taken_for_what_follows_on_an_older_snapshot() {
    let stand = Stand::over(MemoryBackend::new(), &unjournaled()).unwrap();
    stand.set("a", "old");
    stand.disk.snapshot().unwrap();
    stand.set("a", "new");
    let newest = stand.disk.snapshot().unwrap();
    let stand = stand.crashed(&config());
    stand.set("b", "on top of new");
    stand.disk.journal().flush().unwrap();
    let left = stand.backend.crash(Lose::Unsynced);
    assert!(left.flip_bit(FileId { kind: FileKind::Snapshot, number: newest.number }, 40, 3));
    let stand = Stand::over(left, &config()).unwrap();
    assert_eq!((stand.get("a").as_deref(), stand.get("b")), (Some("old"), None));
    assert_eq!(
        stand.report.damages.len(),
        2,
        "the snapshot, and what is missing behind the other: {:?}",
        stand.report
    );
}

#[test]
fn whichever_call_fails_a_snapshot_that_was_taken_is_there() {
    let run = |stand: &Stand| {
        let mut last = 0;
        for n in 1..6 {
            stand.set("k", &n.to_string());
            if stand.disk.snapshot().is_ok() {
                last = n;
            }
        }
        last
    };
    let whole = Stand::over(MemoryBackend::new(), &unjournaled()).unwrap();
    run(&whole);
    let calls = whole.backend.calls();
    for nth in 0..calls {
        let backend = MemoryBackend::new();
        backend.fail_once_after(nth);
        let Ok(stand) = Stand::over(backend, &unjournaled()) else { continue };
        let last: i32 = run(&stand);
        let left = stand.backend.crash(Lose::Unsynced);
        left.heal();
        let stand = Stand::over(left, &unjournaled()).unwrap();
        let found: i32 = stand.get("k").map_or(0, |found| found.parse().unwrap());
        assert!(found >= last, "call {nth} failed: {found}, and {last} was in a snapshot");
        assert!(stand.report.damages.is_empty(), "call {nth} failed: {:?}", stand.report.damages);
    }
}
