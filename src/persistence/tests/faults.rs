//! A disk that fails at the nth call, and crashes at any point.

use super::*;
use crate::persistence::backend::memory::{Call, Fault, IoFault, Strikes};

/// A call that fails once, after `passing` calls have passed.
fn once(call: Option<Call>, passing: u64) -> Fault {
    Fault { call, passing, refusal: IoFault::Io, strikes: Strikes::Once }
}

fn run(stand: &Stand, steps: u64) -> Vec<(String, String)> {
    let mut acknowledged = Vec::new();
    for n in 0..steps {
        let (key, value) = (format!("key:{}", n % 30), format!("value:{n}"));
        let stored = matches!(stand.set(&key, &value), Outcome::Stored(_));
        if n % 7 == 3 {
            let _ = stand.disk.snapshot();
        }
        if stored && stand.disk.journal().flush().is_ok() {
            acknowledged.push((key, value));
        }
    }
    acknowledged
}

/// What was acknowledged last of each key, and what may have come after it.
fn judge(stand: &Stand, acknowledged: &[(String, String)], what: &str) {
    let mut last = BTreeMap::new();
    for (key, value) in acknowledged {
        last.insert(key.clone(), value.clone());
    }
    let number = |value: &str| value.trim_start_matches("value:").parse::<u64>().unwrap();
    for (key, value) in last {
        let found = stand.get(&key);
        let found = found.unwrap_or_else(|| panic!("{what}: {key} is lost, which was {value}"));
        assert!(number(&found) >= number(&value), "{what}: {key} is {found}, and {value} was acknowledged");
    }
}

#[test]
fn nothing_acknowledged_is_lost_whichever_call_fails() {
    let whole = Stand::new();
    run(&whole, 40);
    let calls = whole.backend.calls();
    drop(whole);
    assert!(calls > 100, "{calls}");
    for nth in 0..calls {
        let backend = MemoryBackend::new();
        backend.plan(once(None, nth));
        let Ok(stand) = Stand::over(backend, &config()) else { continue };
        let acknowledged = run(&stand, 40);
        stand.get("key:0");
        let left = stand.backend.crash(Lose::Unsynced);
        left.heal();
        let stand = Stand::over(left, &config()).unwrap();
        judge(&stand, &acknowledged, &format!("call {nth} failed"));
        assert!(stand.report.damages.is_empty(), "call {nth} failed: {:?}", stand.report.damages);
    }
}

#[test]
fn after_a_failed_sync_writes_are_refused_and_reads_go_on() {
    let stand = Stand::new();
    stand.set("k", "v");
    stand.disk.journal().flush().unwrap();
    stand.backend.plan(once(Some(Call::Sync), 0));
    stand.set("k", "w");
    assert!(stand.disk.journal().flush().is_err());
    assert_eq!(stand.set("k", "x"), Outcome::Refused(Refusal::Poisoned));
    let delete = Op::Delete { key: b"k", if_version: None };
    let outcome = stand.engine.apply(stand.engine.default_namespace(), &delete, stand.now());
    assert_eq!(outcome, Outcome::Refused(Refusal::Poisoned));
    assert_eq!(stand.get("k").as_deref(), Some("w"), "reads go on, also of what may be lost");
    assert!(stand.disk.journal().flush().is_err(), "a later sync says nothing of what failed");
    assert!(stand.disk.snapshot().is_err());
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let stand = Stand::new();
    stand.backend.set_room(Some(200 << 10));
    let mut acknowledged = Vec::new();
    let mut n = 0;
    loop {
        let (key, value) = (format!("key:{n}"), format!("value:{n}"));
        let stored = stand.set(&key, &value);
        if stand.disk.journal().flush().is_err() {
            break;
        }
        assert!(matches!(stored, Outcome::Stored(_)));
        acknowledged.push((key, value));
        n += 1;
    }
    assert!(n > 100, "{n}");
    let left = stand.backend.crash(Lose::Unsynced);
    left.set_room(None);
    let stand = Stand::over(left, &config()).unwrap();
    judge(&stand, &acknowledged, "the disk was full");
}
