//! The mark is safe in time, also when nobody waits for the disk.

use super::*;
use crate::clock::monotonic;
use crate::persistence::mark::JournalMark;

#[test]
fn the_mark_is_synced_in_time_also_where_somebody_always_waits_for_the_disk() {
    let journal = JournalConfig { flush_interval: Duration::from_millis(50), ..config().journal };
    let stand = Stand::over(MemoryBackend::new(), &DiskConfig { journal, ..config() }).unwrap();
    let begun = monotonic();
    for n in 0.. {
        stand.set(&format!("key:{}", n % 30), "v");
        stand.disk.journal().flush().unwrap();
        let left = stand.backend.crash(Lose::Unsynced).read_mark().unwrap();
        if JournalMark::read(&left.unwrap()).unwrap().synced_position > 0 {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{n} flushes, and no mark of them is safe");
    }
}
