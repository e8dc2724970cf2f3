//! A journal that has stopped keeps nobody waiting.

use super::*;
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
