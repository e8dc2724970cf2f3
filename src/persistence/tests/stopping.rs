//! A journal that has stopped keeps nobody waiting, and no shortage keeps a node from stopping.

use super::*;
use crate::persistence::backend::memory::{Call, Fault, IoFault, Strikes};
use crate::persistence::journal::Stopped;
use crate::persistence::snapshot::SnapshotError;

#[test]
fn nobody_waits_for_a_journal_that_has_ended() {
    let stand = Stand::new();
    let asked_in_time = stand.disk.journal().ask_flush();
    stand.disk.stop().unwrap();
    let asked_late = stand.disk.journal().ask_flush();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let wait = |ticket| {
        let waiting = stand.disk.journal().wait_flushed(ticket);
        let waited = runtime.block_on(async { tokio::time::timeout(LONG, waiting).await });
        waited.expect("it does not wait for ever")
    };
    assert!(wait(asked_in_time).is_ok(), "what was asked before the end is on the disk with it");
    assert_eq!(wait(asked_late), Err(Stopped::Ended));
    assert_eq!(stand.disk.journal().written(), Err(Stopped::Ended));
    assert!(matches!(stand.disk.snapshot(), Err(SnapshotError::Stopped(Stopped::Ended))));
    assert_eq!(stand.set("k", "v"), Outcome::Refused(Refusal::Poisoned), "it could not be kept");
}

/// Much longer than anything takes.
const LONG: Duration = Duration::from_secs(20);

/// Memory runs out for calls of one kind, for good.
fn exhaust(backend: &MemoryBackend, call: Call, passing: u64) {
    let call = Some(call);
    backend.plan(Fault { call, passing, refusal: IoFault::NoMemory, strikes: Strikes::FromThenOn });
}

/// What comes of something that is to end within seconds.
fn in_time<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(act()));
    is_done.recv_timeout(LONG).expect("it ends")
}

#[test]
fn a_shortage_that_does_not_end_keeps_no_node_from_stopping() {
    let snapshots = DiskConfig { snapshot_interval: Some(Duration::from_millis(1)), ..config() };
    let stand = Stand::over(MemoryBackend::new(), &snapshots).unwrap();
    stand.set("kept", "v");
    let position = stand.disk.journal().flush().unwrap();
    let created = stand.backend.calls_of(Call::Create);
    exhaust(&stand.backend, Call::Append, 0);
    stand.set("lost", "v");
    // The thread that takes snapshots has begun one, and waits for the journal, as a flush does.
    while stand.backend.calls_of(Call::Create) == created {
        std::thread::yield_now();
    }
    let backend = Arc::clone(&stand.backend);
    let (stopped, flushed) = in_time(move || {
        std::thread::scope(|scope| {
            let flushes = scope.spawn(|| stand.disk.journal().flush());
            (stand.disk.stop(), flushes.join().unwrap())
        })
    });
    let said = stopped.unwrap_err().to_string();
    assert!(said.contains(&format!("changes after position {position} are not on the disk")), "{said}");
    assert!(flushed.is_err(), "it is not acknowledged");
    let again = Stand::over(backend.crash(Lose::Unsynced), &config()).unwrap();
    assert_eq!((again.get("kept").as_deref(), again.get("lost")), (Some("v"), None));
}

#[test]
fn a_shortage_that_does_not_end_keeps_no_last_snapshot_waiting() {
    let stand = Stand::over(MemoryBackend::new(), &DiskConfig { is_journaled: false, ..config() }).unwrap();
    stand.set("k", "v");
    exhaust(&stand.backend, Call::Create, 0);
    let said = in_time(move || stand.disk.stop()).unwrap_err().to_string();
    assert!(said.contains("for now: Cannot allocate memory"), "{said}");
}

#[test]
fn entries_are_not_brought_to_memory_for_ever_when_none_can_be_read() {
    let stand = Stand::new();
    stand.set("k", "v");
    stand.disk.snapshot().unwrap();
    stand.disk.stop().unwrap();
    let config = DiskConfig { recovery: RecoveryMethod::Lazy, is_store: true, ..config() };
    let whole = Stand::over(stand.backend.crash(Lose::Nothing), &config).unwrap();
    while whole.get("k").is_none() {
        std::thread::yield_now();
    }
    // The last of them is of the entry that is brought to memory.
    let reads = whole.backend.calls_of(Call::Read);
    let left = stand.backend.crash(Lose::Nothing);
    exhaust(&left, Call::Read, reads - 1);
    let stand = Stand::over(left, &config).unwrap();
    while stand.backend.calls_of(Call::Read) < reads + 2 {
        std::thread::yield_now();
    }
    assert_eq!(stand.get("k"), None, "the test is about an entry that cannot be read");
    in_time(move || stand.disk.stop()).unwrap();
}
