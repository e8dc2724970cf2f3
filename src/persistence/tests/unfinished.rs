//! A snapshot that nobody finished is no damage, and one that was finished and is cut off is.

use super::*;
use crate::persistence::backend::CatalogueChange;

/// A node with a snapshot, something behind it, and the file that the snapshot is in.
fn stand() -> (Stand, FileId) {
    let stand = Stand::new();
    for n in 0..50 {
        stand.set(&format!("key:{n}"), "v");
    }
    let taken = stand.disk.snapshot().unwrap();
    stand.set("later", "v");
    stand.disk.journal().flush().unwrap();
    (stand, FileId { kind: FileKind::Snapshot, number: taken.number })
}

#[test]
fn one_that_was_being_taken_when_the_node_was_killed_is_deleted_and_no_damage() {
    let (stand, taken) = stand();
    let content = stand.backend.content(taken).unwrap();
    let begun = FileId { number: taken.number + 1, ..taken };
    for length in (0..content.len()).step_by(13) {
        let left = stand.backend.crash(Lose::Nothing);
        let mut part = content[..length].to_vec();
        if length % 2 == 1 {
            // As a power cut leaves it.
            part.iter_mut().skip(length / 2).for_each(|byte| *byte = 0);
        }
        left.put_content(begun, part);
        let again = Stand::over(left, &config()).unwrap();
        assert!(again.report.damages.is_empty(), "{length}: {:?}", again.report);
        assert_eq!(again.content(), stand.content(), "{length}");
        assert!(again.backend.content(begun).is_none() && again.backend.quarantined().is_empty(), "{length}");
        assert!(again.disk.snapshot().unwrap().number > begun.number, "no number is given twice");
    }
}

#[test]
fn one_that_is_being_taken_is_no_damage_to_a_rehearsal() {
    let (stand, taken) = stand();
    let begun = FileId { number: taken.number + 1, ..taken };
    let part = stand.backend.content(taken).unwrap().split_off(100);
    stand.backend.put_content(begun, part);
    let found = stand.disk.rehearse(RecoveryMethod::SnapshotAndJournal).unwrap();
    assert!(found.report.damages.is_empty(), "{:?}", found.report);
    assert_eq!(found.entries, 51);
    assert!(stand.backend.content(begun).is_some(), "it changes nothing");
}

#[test]
fn one_that_was_finished_and_is_cut_off_is_damage() {
    let (stand, taken) = stand();
    let length = stand.backend.content(taken).unwrap().len();
    for length in (0..length).step_by(7) {
        let left = stand.backend.crash(Lose::Unsynced);
        assert!(left.truncate(taken, length as u64));
        let again = Stand::over(left, &config()).unwrap();
        assert!(!again.report.damages.is_empty(), "cut to {length}, and that is not reported");
        assert_eq!(again.content(), stand.content(), "{length}");
        assert_eq!(again.backend.quarantined(), [taken], "{length}");
        // Its note went with it: the next start knows nothing of it.
        let once_more = again.crashed(&config());
        assert!(once_more.report.damages.is_empty(), "{length}: {:?}", once_more.report);
    }
}

#[test]
fn a_directory_without_notes_is_read_and_gets_them() {
    let (stand, taken) = stand();
    let mut keys = Vec::new();
    let mut visit = |key: &[u8], _: &[u8]| {
        keys.push(key.to_vec());
        std::ops::ControlFlow::Continue(())
    };
    stand.backend.scan(b"disk/", None, &mut visit).unwrap();
    assert_eq!(keys.len(), 2, "{keys:?}");
    let removed: Vec<_> = keys.iter().map(|key| CatalogueChange::Remove(key)).collect();
    stand.backend.commit(&removed).unwrap();
    let old = stand.backend.crash(Lose::Unsynced);

    let cut = old.crash(Lose::Nothing);
    assert!(cut.truncate(taken, 500));
    let again = Stand::over(cut, &config()).unwrap();
    assert!(!again.report.damages.is_empty(), "it may have been whole");

    let again = Stand::over(old, &config()).unwrap();
    assert_eq!((again.content(), again.report.damages.len()), (stand.content(), 0));
    assert!(again.report.snapshot.is_some());
    let left = again.backend.crash(Lose::Unsynced);
    assert!(left.truncate(taken, 500));
    assert!(!Stand::over(left, &config()).unwrap().report.damages.is_empty(), "it is noted since");
}
