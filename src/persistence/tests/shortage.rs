//! The operating system runs out of descriptors or memory for a while: that refuses what it hits and breaks nothing.

use super::*;
use crate::clock::monotonic;
use crate::persistence::backend::memory::{Call, Fault, IoFault, Strikes};
use crate::persistence::disk::Rehearsal;
use crate::persistence::journal::RollError;
use crate::persistence::snapshot::SnapshotError;

const SHORTAGES: [IoFault; 2] = [IoFault::NoDescriptor, IoFault::NoMemory];
const STEPS: u64 = 40;

/// Segments end soon.
fn short_segments(config: DiskConfig) -> DiskConfig {
    let journal = JournalConfig { segment_bytes: 500, ..config.journal };
    DiskConfig { journal, ..config }
}

fn fault(refusal: IoFault, passing: u64, strikes: Strikes) -> Fault {
    Fault { call: None, passing, refusal, strikes }
}

fn is_passing(error: &SnapshotError) -> bool {
    matches!(error, SnapshotError::Backend(error) if error.is_passing())
}

/// Writes, some of which a snapshot has too; the value of each key that was acknowledged last.
fn run(stand: &Stand, what: &str) -> BTreeMap<String, String> {
    let mut acknowledged = BTreeMap::new();
    for n in 0..STEPS {
        let (key, value) = (format!("key:{}", n % 30), format!("value:{n}"));
        assert!(matches!(stand.set(&key, &value), Outcome::Stored(_)), "{what}: step {n}");
        if stand.disk.keeps_journal() {
            stand.disk.journal().flush().unwrap_or_else(|why| panic!("{what}: step {n}: {why}"));
            acknowledged.insert(key, value);
        }
        if n % 7 == 3
            && let Err(error) = stand.disk.snapshot()
        {
            assert!(is_passing(&error), "{what}: step {n}: {error}");
        }
    }
    assert_eq!(stand.disk.journal().progress().borrow().poisoned, None, "{what}");
    acknowledged
}

/// Opens it; where that meets the shortage, once more.
fn open(backend: &MemoryBackend, config: &DiskConfig, what: &str) -> Stand {
    match Stand::over(backend.clone(), config) {
        Ok(stand) => stand,
        Err(error) => {
            assert!(is_passing(&error), "{what}: {error}");
            Stand::over(backend.clone(), config).unwrap_or_else(|error| panic!("{what}: {error}"))
        }
    }
}

/// What a key has, once it is in memory.
fn got(stand: &Stand, key: &str) -> Option<String> {
    let begun = monotonic();
    loop {
        let got = stand.get(key);
        if got.is_some() || stand.disk.tier_reader().is_none() || begun.elapsed() > Duration::from_secs(30) {
            return got.or_else(|| stand.get(key));
        }
        std::thread::yield_now();
    }
}

/// A whole life with one shortage at each call in turn.
fn at_every_call(config: &DiskConfig) {
    let whole = Stand::over(MemoryBackend::new(), config).unwrap();
    run(&whole, "no shortage");
    let calls = whole.backend.calls();
    drop(whole);
    assert!(calls > 100, "{calls}");
    for (refusal, nth) in SHORTAGES.into_iter().flat_map(|refusal| (0..calls).map(move |nth| (refusal, nth)))
    {
        let what = format!("{refusal:?} at call {nth}");
        let backend = MemoryBackend::new();
        backend.plan(fault(refusal, nth, Strikes::Once));
        let stand = open(&backend, config, &what);
        let acknowledged = run(&stand, &what);
        let last: BTreeMap<String, String> =
            (0..STEPS).map(|n| (format!("key:{}", n % 30), format!("value:{n}"))).collect();
        let stopped = stand.disk.stop();
        assert!(stopped.is_ok(), "{what}: {stopped:?}");
        let left = stand.backend.crash(Lose::Unsynced);
        drop(stand);
        let Rehearsal { report, .. } = rehearsed(&left, config);
        assert!(report.damages.is_empty(), "{what}: {:?}", report.damages);

        // And one at the next start.
        left.plan(fault(refusal, nth, Strikes::Once));
        let stand = open(&left, config, &what);
        assert!(stand.report.damages.is_empty(), "{what}: {:?}", stand.report.damages);
        for (key, value) in if config.is_journaled { &acknowledged } else { &last } {
            assert_eq!(got(&stand, key).as_ref(), Some(value), "{what}: {key}");
        }
        assert_eq!(left.quarantined(), [], "{what}");
    }
}

fn rehearsed(left: &MemoryBackend, config: &DiskConfig) -> Rehearsal {
    let copy = left.crash(Lose::Nothing);
    Stand::over(copy, config).unwrap().disk.rehearse(config.recovery).unwrap()
}

#[test]
fn no_call_that_meets_a_shortage_costs_a_journal_anything() {
    at_every_call(&short_segments(config()));
}

#[test]
fn no_call_that_meets_a_shortage_costs_a_store_anything() {
    at_every_call(&short_segments(DiskConfig { is_store: true, ..config() }));
}

#[test]
fn no_call_that_meets_a_shortage_costs_a_lazy_recovery_anything() {
    at_every_call(&short_segments(DiskConfig { recovery: RecoveryMethod::Lazy, ..config() }));
}

#[test]
fn no_call_that_meets_a_shortage_costs_snapshots_anything() {
    at_every_call(&short_segments(DiskConfig { is_journaled: false, ..config() }));
}

#[test]
fn a_journal_that_can_open_nothing_goes_on_in_its_segment_until_it_can() {
    let config = short_segments(config());
    let stand = Stand::over(MemoryBackend::new(), &config).unwrap();
    stand.backend.plan(fault(IoFault::NoDescriptor, 0, Strikes::FromThenOn));
    for n in 0..50 {
        stand.set(&format!("key:{n}"), "value");
        stand.disk.journal().flush().unwrap();
    }
    let [segment] = stand.disk.journal().segments()[..] else { panic!("a file was opened") };
    assert!(segment.bytes > 2 * config.journal.segment_bytes, "{segment:?}");
    assert!(is_passing(&stand.disk.snapshot().unwrap_err()));
    assert!(is_passing(&stand.disk.compact().unwrap_err()));

    stand.backend.heal();
    let begun = monotonic();
    while stand.disk.journal().segments().len() == 1 {
        stand.set("more", "value");
        stand.disk.journal().flush().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(30), "it goes on in that segment");
    }
    stand.disk.compact().unwrap();
    let stand = stand.crashed(&config);
    assert_eq!((stand.report.damages.len(), stand.content().len()), (0, 51));
}

#[test]
fn what_cannot_be_appended_is_waited_for_and_not_acknowledged() {
    let stand = Stand::new();
    let appends = stand.backend.calls_of(Call::Append);
    let call = Some(Call::Append);
    stand.backend.plan(Fault { call, ..fault(IoFault::NoMemory, 0, Strikes::FromThenOn) });
    stand.set("k", "v");
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| stand.disk.journal().flush());
        while stand.backend.calls_of(Call::Append) < appends + 3 {
            assert!(!flush.is_finished(), "nothing is on the disk");
            std::thread::yield_now();
        }
        assert!(matches!(stand.set("l", "w"), Outcome::Stored(_)));
        stand.backend.heal();
        flush.join().unwrap().unwrap();
    });
    stand.disk.journal().flush().unwrap();
    let stand = stand.crashed(&config());
    assert_eq!((stand.get("k"), stand.get("l")), (Some("v".to_owned()), Some("w".to_owned())));
}

/// A journal whose next segment is due, and whose next append meets a shortage: that of what a segment says of itself.
fn next_segment_fails() -> (Stand, DiskConfig) {
    let config = short_segments(config());
    let stand = Stand::over(MemoryBackend::new(), &config).unwrap();
    let mut n = 0;
    while stand.disk.journal().segments()[0].bytes < config.journal.segment_bytes {
        stand.set(&format!("key:{n}"), "value");
        stand.disk.journal().flush().unwrap();
        n += 1;
    }
    let append = Some(Call::Append);
    stand.backend.plan(Fault { call: append, ..fault(IoFault::NoMemory, 0, Strikes::Once) });
    (stand, config)
}

#[test]
fn the_segment_before_one_that_is_not_begun_is_not_deleted_meanwhile() {
    let (stand, config) = next_segment_fails();
    let stand = Arc::new(stand);
    let before = stand.content().len();
    let weak = Arc::downgrade(&stand);
    stand.backend.in_each(Call::Append, move || {
        if let Some(stand) = weak.upgrade() {
            let clear = |file| stand.backend.delete(file);
            stand.disk.journal().forget(u64::MAX - 1, &clear).unwrap();
        }
    });
    stand.set("more", "value");
    let flushed = stand.disk.journal().flush();
    stand.backend.in_each(Call::Files, || {});
    assert!(flushed.is_ok(), "{flushed:?}");
    let again = Stand::over(stand.backend.crash(Lose::Nothing), &config).unwrap();
    assert_eq!((again.content().len(), again.report.damages.len()), (before + 1, 0));
}

#[test]
fn what_is_left_of_a_segment_that_was_not_begun_poisons_nothing_and_is_no_damage() {
    // Of a store's segment, what it says of itself is there when it cannot be opened for reading.
    for (is_store, call) in [(false, Call::Append), (true, Call::Open)] {
        for deletes in [1, 3] {
            let what = format!("store {is_store}, {deletes} deletions fail");
            let config = DiskConfig { is_store, ..config() };
            let stand = Stand::over(MemoryBackend::new(), &config).unwrap();
            stand.set("before", "value");
            stand.disk.journal().flush().unwrap();
            let fails = |call, nth| {
                stand
                    .backend
                    .plan(Fault { call: Some(call), ..fault(IoFault::NoMemory, nth, Strikes::Once) });
            };
            fails(call, 0);
            (0..deletes).for_each(|nth| fails(Call::Delete, nth));
            let refused = stand.disk.journal().roll().unwrap_err();
            assert!(
                matches!(&refused, RollError::Shortage(error) if error.is_passing()),
                "{what}: {refused}"
            );
            if deletes == 1 {
                stand.disk.journal().roll().unwrap_or_else(|why| panic!("{what}: {why}"));
            }
            assert!(matches!(stand.set("after", "value"), Outcome::Stored(_)), "{what}");
            stand.disk.journal().flush().unwrap();
            let again = Stand::over(stand.backend.crash(Lose::Nothing), &config).unwrap();
            assert_eq!((again.content().len(), again.report.damages.len()), (2, 0), "{what}");
        }
    }
}
