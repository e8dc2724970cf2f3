//! A recovery is rehearsed while the node goes on, and takes away what the rehearsal is about to read.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::persistence::backend::{
    Appender, BackendError, CatalogueChange, DiskSpace, MARK_BYTES, ReadAt, Visit,
};
use crate::persistence::rehearse::{LOOKS_MAX, rehearse};

/// Gets the number of such calls so far.
pub(super) type Meanwhile = Box<dyn Fn(u64) + Send + Sync>;

/// The disk of a node that does something just before a rehearsal lists files or opens one.
pub(super) struct Moving {
    backend: Arc<MemoryBackend>,
    calls: AtomicU64,
    meanwhile: Meanwhile,
}

impl Moving {
    pub(super) fn new(stand: &Stand, meanwhile: Meanwhile) -> Self {
        Self { backend: Arc::clone(&stand.backend), calls: AtomicU64::new(0), meanwhile }
    }

    fn moves(&self) {
        (self.meanwhile)(self.calls.fetch_add(1, Ordering::Relaxed));
    }
}

impl fmt::Debug for Moving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Moving")
    }
}

impl Backend for Moving {
    fn name(&self) -> &'static str {
        "moving"
    }

    fn files(&self) -> Result<Vec<(FileId, u64)>, BackendError> {
        self.moves();
        self.backend.files()
    }

    fn create(&self, file: FileId) -> Result<Box<dyn Appender>, BackendError> {
        self.backend.create(file)
    }

    fn open(&self, file: FileId) -> Result<Box<dyn ReadAt>, BackendError> {
        self.moves();
        self.backend.open(file)
    }

    fn has(&self, file: FileId) -> Result<bool, BackendError> {
        self.backend.has(file)
    }

    fn delete(&self, file: FileId) -> Result<(), BackendError> {
        self.backend.delete(file)
    }

    fn quarantine(&self, file: FileId) -> Result<String, BackendError> {
        self.backend.quarantine(file)
    }

    fn read_mark(&self) -> Result<Option<[u8; MARK_BYTES]>, BackendError> {
        self.backend.read_mark()
    }

    fn write_mark(&self, mark: &[u8; MARK_BYTES], synced: bool) -> Result<(), BackendError> {
        self.backend.write_mark(mark, synced)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        self.backend.get(key)
    }

    fn commit(&self, changes: &[CatalogueChange<'_>]) -> Result<(), BackendError> {
        self.backend.commit(changes)
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), BackendError> {
        self.backend.scan(prefix, after, visit)
    }

    fn disk_bytes(&self) -> Result<u64, BackendError> {
        self.backend.disk_bytes()
    }

    fn space(&self) -> Result<DiskSpace, BackendError> {
        self.backend.space()
    }
}

/// A node with two snapshots and several segments behind each, and how many entries it has.
fn stand() -> (Arc<Stand>, u64) {
    let stand = Stand::new();
    let entries = 300;
    for n in 0..entries {
        stand.set(&format!("key:{n}"), &"v".repeat(1_000));
        if n % 100 == 99 && n < 299 {
            stand.disk.snapshot().unwrap();
        }
        if n % 50 == 0 {
            stand.disk.journal().flush().unwrap();
        }
    }
    stand.disk.journal().flush().unwrap();
    (Arc::new(stand), entries)
}

#[test]
fn what_a_compaction_takes_away_before_it_is_read_is_no_damage() {
    for method in [
        RecoveryMethod::SnapshotAndJournal,
        RecoveryMethod::Snapshot,
        RecoveryMethod::Journal,
        RecoveryMethod::Lazy,
    ] {
        for at in 0.. {
            let (stand, entries) = stand();
            let node = Arc::clone(&stand);
            let moving = Moving::new(
                &stand,
                Box::new(move |calls| {
                    if calls == at {
                        node.disk.compact().unwrap();
                    }
                }),
            );
            let found = rehearse(&moving, 64 << 20, stand.now(), method);
            let found = found.unwrap_or_else(|error| panic!("{method}, call {at}: {error}"));
            assert!(found.report.damages.is_empty(), "{method}, call {at}: {:?}", found.report.damages);
            if matches!(method, RecoveryMethod::SnapshotAndJournal | RecoveryMethod::Lazy) {
                assert_eq!(found.entries, entries, "{method}, call {at}");
            }
            if moving.calls.load(Ordering::Relaxed) <= at {
                assert!(at > 3, "{method}: {at} calls");
                break;
            }
        }
    }
}

#[test]
fn a_rehearsal_that_is_outrun_gives_up() {
    let (stand, _) = stand();
    let node = Arc::clone(&stand);
    let moving = Moving::new(&stand, Box::new(move |_| assert!(node.disk.compact().is_ok())));
    let error = rehearse(&moving, 64 << 20, stand.now(), RecoveryMethod::SnapshotAndJournal).unwrap_err();
    assert!(error.is_not_found(), "{error}");
    let calls = moving.calls.load(Ordering::Relaxed);
    assert!((2 * LOOKS_MAX as u64..=8 * LOOKS_MAX as u64).contains(&calls), "{calls}");
}

#[test]
fn what_is_damaged_is_told_where_nothing_goes() {
    let (stand, _) = stand();
    let newest = stand.disk.snapshots()[0].number;
    assert!(stand.backend.flip_bit(FileId { kind: FileKind::Snapshot, number: newest }, 100, 1));
    let found = stand.disk.rehearse(RecoveryMethod::SnapshotAndJournal).unwrap();
    assert_eq!(found.report.damages.len(), 1, "{:?}", found.report);
}
