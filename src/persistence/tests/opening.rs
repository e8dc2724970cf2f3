//! Directories that something is missing of, that is not theirs, or that another build wrote.

use super::*;
use crate::persistence::backend::MARK_BYTES;
use crate::persistence::frame::{BatchInfo, FrameKind, FrameWriter, HEADER_BYTES, Header};
use crate::persistence::snapshot::SnapshotError;

fn snapshots_alone() -> DiskConfig {
    DiskConfig { is_journaled: false, recovery: RecoveryMethod::Snapshot, ..config() }
}

/// A copy of what is there, without the mark or with another.
fn with_mark(backend: &MemoryBackend, mark: Option<&[u8; MARK_BYTES]>) -> MemoryBackend {
    let copy = MemoryBackend::new();
    for (file, _) in backend.files().unwrap() {
        copy.put_content(file, backend.content(file).unwrap());
    }
    backend
        .scan(b"", None, &mut |key, value| {
            copy.commit(&[crate::persistence::CatalogueChange::Put(key, value)]).unwrap();
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    if let Some(mark) = mark {
        copy.write_mark(mark, true).unwrap();
    }
    copy
}

fn told_of(stand: &Stand, place: &str) -> bool {
    stand.report.damages.iter().any(|damage| damage.place == place)
}

/// A node that was stopped in order, with something in it.
fn stopped(config: &DiskConfig) -> (MemoryBackend, Content) {
    let stand = Stand::over(MemoryBackend::new(), config).unwrap();
    (0..20).for_each(|n| drop(stand.set(&format!("key:{n}"), "v")));
    stand.disk.snapshot().unwrap();
    (0..5).for_each(|n| drop(stand.set(&format!("later:{n}"), "v")));
    stand.disk.stop().unwrap();
    (stand.backend.crash(Lose::Nothing), stand.content())
}

#[test]
fn a_mark_that_is_gone_or_anothers_is_told_and_costs_nothing() {
    let other = Stand::new();
    let others = other.backend.read_mark().unwrap().unwrap();
    for config in [config(), snapshots_alone()] {
        let (backend, content) = stopped(&config);
        for mark in [None, Some(&others), Some(&[7; MARK_BYTES])] {
            let mut stand = Stand::over(with_mark(&backend, mark), &config).unwrap();
            assert!(told_of(&stand, "mark"), "{:?}", stand.report);
            for round in 0..3 {
                assert_eq!(stand.content(), content, "start {round}, {mark:?}");
                assert!(stand.backend.quarantined().is_empty());
                stand.disk.stop().unwrap();
                stand = stand.crashed(&config);
                assert!(stand.report.damages.is_empty(), "it is reported once: {:?}", stand.report);
            }
        }
    }
}

#[test]
fn a_snapshot_alone_makes_a_directory() {
    let (backend, _) = stopped(&config());
    let (file, _) =
        backend.files().unwrap().into_iter().find(|(file, _)| file.kind == FileKind::Snapshot).unwrap();
    let alone = MemoryBackend::new();
    alone.put_content(file, backend.content(file).unwrap());
    let stand = Stand::over(alone, &DiskConfig { recovery: RecoveryMethod::Snapshot, ..config() }).unwrap();
    let content = stand.content();
    assert_eq!(content.len(), 20);
    stand.disk.stop().unwrap();
    let again = stand.crashed(&config());
    assert_eq!(again.content(), content);
    assert!(again.report.damages.is_empty(), "{:?}", again.report);
}

#[test]
fn a_snapshot_of_another_lineage_is_set_aside_and_told() {
    let (backend, content) = stopped(&config());
    let (theirs, _) = stopped(&config());
    let snapshot = |backend: &MemoryBackend| {
        backend.files().unwrap().into_iter().find(|(file, _)| file.kind == FileKind::Snapshot).unwrap().0
    };
    let foreign = FileId { kind: FileKind::Snapshot, number: 99 };
    backend.put_content(foreign, theirs.content(snapshot(&theirs)).unwrap());
    let stand = Stand::over(backend, &config()).unwrap();
    assert_eq!(stand.content(), content);
    assert_eq!(stand.backend.quarantined(), [foreign]);
}

#[test]
fn a_snapshot_that_was_finished_and_is_not_there_is_told() {
    for config in [config(), snapshots_alone()] {
        let stand = Stand::over(MemoryBackend::new(), &config).unwrap();
        for round in 0..2 {
            stand.set(&format!("key:{round}"), "v");
            stand.disk.snapshot().unwrap();
        }
        let newest = FileId { kind: FileKind::Snapshot, number: stand.disk.snapshots()[0].number };
        stand.disk.stop().unwrap();
        let left = stand.backend.crash(Lose::Nothing);
        left.delete(newest).unwrap();
        let stand = Stand::over(left, &config).unwrap();
        assert!(told_of(&stand, &newest.to_string()), "{:?}", stand.report);
        assert_eq!(stand.get("key:0").as_deref(), Some("v"));
        assert_eq!(stand.get("key:1").is_some(), config.is_journaled, "the journal has it, if there is one");
        let again = stand.crashed(&config);
        assert!(again.report.damages.is_empty(), "it is reported once: {:?}", again.report);
    }
}

#[test]
fn damage_that_a_snapshot_covers_costs_nothing_behind_it() {
    let stand = Stand::new();
    for n in 0..10 {
        stand.set(&format!("key:{n}"), "before");
        stand.disk.journal().flush().unwrap();
    }
    let first = FileId { kind: FileKind::Journal, number: stand.disk.journal().segments()[0].number };
    stand.disk.snapshot().unwrap();
    for n in 0..10 {
        stand.set(&format!("key:{n}"), "behind");
        stand.disk.journal().flush().unwrap();
    }
    let content = stand.content();
    let length = stand.backend.content(first).unwrap().len();
    for at in (0..length).step_by(5) {
        let bent = stand.backend.crash(Lose::Nothing);
        assert!(bent.flip_bit(first, at as u64, (at % 8) as u32));
        let again = Stand::over(bent, &config()).unwrap();
        assert_eq!(again.content(), content, "byte {at} of {length}: {:?}", again.report);
    }
}

#[test]
fn what_a_later_build_wrote_is_left_alone() {
    let (backend, _) = stopped(&config());
    let journal = backend.files().unwrap()[0].0;
    let snapshot =
        backend.files().unwrap().iter().find(|(file, _)| file.kind == FileKind::Snapshot).unwrap().0;
    for file in [journal, snapshot] {
        let left = backend.crash(Lose::Nothing);
        let mut content = left.content(file).unwrap();
        content[4] = 3;
        // As every format has it, and what comes behind that nobody knows.
        let crc = crc32fast::hash(&content[..48]).to_le_bytes();
        content[48..52].copy_from_slice(&crc);
        assert!(Header::read(&content).is_err());
        left.put_content(file, content);
        let before = left.files().unwrap();
        let recovery =
            if file == journal { RecoveryMethod::Journal } else { RecoveryMethod::SnapshotAndJournal };
        let refused = Stand::over(left.clone(), &DiskConfig { recovery, ..config() }).err().unwrap();
        let is_named = matches!(&refused, SnapshotError::Newer(damage) if damage.place == file.to_string());
        assert!(is_named && refused.to_string().contains("format 3"), "{refused}");
        assert_eq!((left.files().unwrap(), left.quarantined()), (before, Vec::new()), "nothing is changed");
        let given_up =
            Stand::over(left, &DiskConfig { recovery: RecoveryMethod::Empty, ..config() }).unwrap();
        assert!(given_up.content().is_empty());
    }
}

#[test]
fn a_journal_is_not_given_up_for_a_snapshot_that_is_not_there() {
    let stand = Stand::new();
    stand.set("key", "value");
    stand.disk.stop().unwrap();
    let left = stand.backend.crash(Lose::Nothing);
    let wanted = DiskConfig { recovery: RecoveryMethod::Snapshot, ..config() };
    let refused = Stand::over(left.clone(), &wanted).err().unwrap();
    assert!(matches!(refused, SnapshotError::NoSnapshot { first: 1, last: 1 }), "{refused}");
    let stand = Stand::over(left, &config()).unwrap();
    assert_eq!(stand.get("key").as_deref(), Some("value"));
    let nothing = Stand::over(MemoryBackend::new(), &wanted).unwrap();
    assert!(nothing.content().is_empty(), "an empty directory has nothing to give up");
}

#[test]
fn a_segment_that_was_never_begun_is_no_damage() {
    let stand = Stand::new();
    stand.set("key", "value");
    stand.disk.journal().flush().unwrap();
    let next = stand.disk.journal().segments()[0].number + 2;
    let file = FileId { kind: FileKind::Journal, number: next };
    let whole = {
        let backend = MemoryBackend::new();
        let mut frames = FrameWriter::new(backend.create(file).unwrap(), next, 7);
        frames.append(FrameKind::Segment, BatchInfo::default(), &[&[0; 9]]).unwrap();
        backend.content(file).unwrap()
    };
    stand.set("torn", "value");
    stand.disk.journal().written().unwrap();
    let last = FileId { number: next - 2, ..file };
    for torn in [0, 1, 40] {
        for begun in [0, 1, HEADER_BYTES, whole.len() - 1] {
            let left = stand.backend.crash(Lose::Unsynced);
            let mut content = left.content(last).unwrap();
            content.extend(vec![7; torn]);
            left.put_content(last, content);
            left.put_content(file, whole[..begun].to_vec());
            let again = Stand::over(left, &config()).unwrap();
            assert_eq!(again.get("key").as_deref(), Some("value"));
            assert!(again.report.damages.is_empty(), "{torn}, {begun}: {:?}", again.report.damages);
            assert!(again.backend.quarantined().is_empty());
        }
    }
}

#[test]
fn a_compaction_leaves_no_journal_behind() {
    let stand = Stand::new();
    (0..3).for_each(|n| drop(stand.set(&format!("key:{n}"), "v")));
    let compacted = stand.disk.compact().unwrap();
    assert_eq!(compacted.first_position, 4, "{compacted:?}");
}

#[test]
fn a_journal_whose_beginning_is_damaged_is_told_and_kept_where_the_mark_is_gone() {
    let stand = Stand::new();
    (0..50).for_each(|n| drop(stand.set(&format!("key:{n}"), "v")));
    stand.disk.journal().flush().unwrap();
    let file = FileId { kind: FileKind::Journal, number: stand.disk.journal().segments()[0].number };
    let content = stand.backend.content(file).unwrap();
    let mut flipped = content.clone();
    flipped[10] ^= 1;
    let mut blank = content.clone();
    blank[..64].fill(0);
    for content in [flipped, blank] {
        let left = with_mark(&stand.backend.crash(Lose::Nothing), None);
        left.put_content(file, content);
        let again = Stand::over(left, &config()).unwrap();
        assert!(told_of(&again, "mark"), "{:?}", again.report);
        assert_eq!(again.backend.quarantined(), [file]);
    }
}
