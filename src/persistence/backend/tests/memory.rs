//! What crashes and faults of the backend in memory leave.

use super::super::memory::{Call, Fault, IoFault, Strikes};
use super::*;

fn fault(call: Option<Call>, refusal: IoFault, strikes: Strikes) -> Fault {
    Fault { call, passing: 0, refusal, strikes }
}

#[test]
fn a_crash_takes_what_was_not_synced() {
    let backend = MemoryBackend::new();
    let mut synced = backend.create(journal(1)).unwrap();
    synced.append(&[b"safe"]).unwrap();
    synced.sync().unwrap();
    synced.append(&[b" and not"]).unwrap();
    backend.create(journal(2)).unwrap().append(&[b"nameless"]).unwrap();

    assert_eq!(read(&backend.crash(Lose::Nothing), journal(1)), b"safe and not");
    let left = backend.crash(Lose::Unsynced);
    assert_eq!(left.files().unwrap(), [(journal(1), 4)]);
    assert_eq!(read(&left, journal(1)), b"safe");

    let (mut lengths, mut named, mut holes) = (std::collections::BTreeSet::new(), 0, 0);
    for seed in 0..100 {
        let left = backend.crash(Lose::Tail(seed));
        let content = read(&left, journal(1));
        assert!(content.starts_with(b"safe") && b"safe and not".starts_with(&content[..]));
        lengths.insert(content.len());
        named += usize::from(left.open(journal(2)).is_ok());
        holes += usize::from(read(&backend.crash(Lose::Holes(seed)), journal(1)).ends_with(&[0]));
        assert_eq!(read(&backend.crash(Lose::Tail(seed)), journal(1)), content, "the same seed");
    }
    assert_eq!(lengths.len(), 9, "every cut is drawn");
    assert!((20..80).contains(&named) && (20..80).contains(&holes), "{named} {holes}");
    assert_eq!(read(&backend, journal(1)), b"safe and not", "the one that goes on has all");
}

#[test]
fn a_failed_sync_loses_what_it_was_for() {
    let backend = MemoryBackend::new();
    let mut appender = backend.create(journal(1)).unwrap();
    appender.append(&[b"first "]).unwrap();
    appender.sync().unwrap();
    appender.append(&[b"lost "]).unwrap();
    backend.plan(fault(Some(Call::Sync), IoFault::Io, Strikes::Once));
    assert!(appender.sync().is_err());
    assert_eq!(read(&backend, journal(1)), b"first lost ");
    appender.sync().unwrap();
    assert_eq!(read(&backend.crash(Lose::Unsynced), journal(1)), b"first ");
    appender.append(&[b"third"]).unwrap();
    appender.sync().unwrap();
    assert_eq!(read(&backend.crash(Lose::Unsynced), journal(1)), b"first \0\0\0\0\0third");
}

#[test]
fn a_deleted_file_may_be_back_until_its_directory_is_synced() {
    let backend = MemoryBackend::new();
    write(&backend, journal(1), b"old");
    backend.delete(journal(1)).unwrap();
    assert_eq!(backend.files().unwrap(), []);
    assert_eq!(read(&backend.crash(Lose::Unsynced), journal(1)), b"old");
    assert_eq!(backend.crash(Lose::Nothing).files().unwrap(), []);
    write(&backend, snapshot(1), b"elsewhere");
    assert!(backend.crash(Lose::Unsynced).open(journal(1)).is_ok());
    write(&backend, journal(2), b"new");
    assert!(backend.crash(Lose::Unsynced).open(journal(1)).is_err());
}

#[test]
fn a_crash_leaves_a_whole_mark_no_older_than_the_last_that_was_synced() {
    let backend = MemoryBackend::new();
    backend.write_mark(&[1; MARK_BYTES], false).unwrap();
    assert_eq!(backend.crash(Lose::Unsynced).read_mark().unwrap(), None);
    backend.write_mark(&[2; MARK_BYTES], true).unwrap();
    backend.write_mark(&[3; MARK_BYTES], false).unwrap();
    backend.plan(fault(None, IoFault::Full, Strikes::Once));
    assert!(backend.write_mark(&[4; MARK_BYTES], true).unwrap_err().is_full());
    assert_eq!(backend.crash(Lose::Unsynced).read_mark().unwrap(), Some([2; MARK_BYTES]));
    let left: std::collections::BTreeSet<u8> =
        (0..50).map(|seed| backend.crash(Lose::Tail(seed)).read_mark().unwrap().unwrap()[0]).collect();
    assert!(left.contains(&2) && left.contains(&3) && !left.contains(&1), "{left:?}");
}

#[test]
fn faults_strike_where_they_are_planned() {
    let backend = MemoryBackend::new();
    write(&backend, blob(1), b"read me");
    let reader = backend.open(blob(1)).unwrap();
    let calls = backend.calls();
    backend.fail_once_after(1);
    backend.files().unwrap();
    assert!(backend.get(b"k").is_err());
    backend.get(b"k").unwrap();
    assert_eq!((backend.calls() - calls, backend.calls_of(Call::Get)), (3, 2));

    // A full disk can be read.
    backend.plan(fault(None, IoFault::Full, Strikes::FromThenOn));
    for _ in 0..2 {
        assert_eq!(read_whole(&*reader), b"read me");
        assert!(backend.create(blob(2)).unwrap_err().is_full());
        assert!(backend.commit(&[CatalogueChange::Put(b"k", b"v")]).unwrap_err().is_full());
    }
    assert_eq!(backend.get(b"k").unwrap(), None);
    let after = |lose| backend.crash(lose).get(b"k").unwrap().is_some();
    assert!(!after(Lose::Unsynced));
    assert!((0..50).any(|seed| after(Lose::Tail(seed))) && !(0..50).all(|seed| after(Lose::Tail(seed))));
    backend.heal();
    put(&backend, b"k", b"v");

    backend.set_room(Some(10));
    let mut appender = backend.create(blob(3)).unwrap();
    assert!(appender.append(&[b"four", b"more"]).unwrap_err().is_full());
    assert_eq!((appender.len(), read(&backend, blob(3))), (3, b"fou".to_vec()));
}

#[test]
fn bytes_on_its_disk_can_be_spoilt() {
    let backend = MemoryBackend::new();
    write(&backend, snapshot(4), b"abc");
    assert!(backend.flip_bit(snapshot(4), 1, 0));
    assert!(!backend.flip_bit(snapshot(4), 3, 0) && !backend.flip_bit(snapshot(5), 0, 0));
    assert_eq!(backend.content(snapshot(4)).as_deref(), Some(&b"acc"[..]));
    assert!(backend.truncate(snapshot(4), 2) && backend.truncate(snapshot(4), 9));
    assert_eq!(backend.crash(Lose::Unsynced).content(snapshot(4)).as_deref(), Some(&b"ac"[..]));
    backend.put_content(snapshot(4), b"other".to_vec());
    assert_eq!(read(&backend, snapshot(4)), b"other");
    backend.quarantine(snapshot(4)).unwrap();
    assert_eq!(backend.crash(Lose::Unsynced).quarantined(), [snapshot(4)]);
}
