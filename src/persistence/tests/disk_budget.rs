//! Room on the disk: what the journal keeps for itself, and the limit.

use super::*;
use crate::persistence::BackendError;
use crate::persistence::blob::{Blobs, Digest, Finish, NewBlob};
use crate::persistence::disk_budget::DiskBudget;
use crate::persistence::snapshot::SnapshotError;

const MIB: u64 = 1 << 20;

fn limited(limit_bytes: u64) -> Stand {
    let limited = DiskConfig { limit_bytes: Some(limit_bytes), ..config() };
    Stand::over(MemoryBackend::new(), &limited).unwrap()
}

/// Sets a value of 1,000 bytes and waits until the journal has it; whether it was taken.
fn set(stand: &Stand, n: usize) -> bool {
    match stand.set(&format!("key:{n}"), &"x".repeat(1_000)) {
        Outcome::Stored(_) => stand.disk.journal().written().is_ok(),
        Outcome::Refused(Refusal::DiskLimit) => false,
        other => panic!("{other:?}"),
    }
}

/// Waits for what another thread does.
fn wait(what: &str, mut is_done: impl FnMut() -> bool) {
    let begun = crate::clock::monotonic();
    while !is_done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

/// A disk of 32 MiB whose journal has 16 entries of 1 MiB: a snapshot finds no room.
fn half_full() -> Stand {
    let backend = MemoryBackend::new();
    backend.set_room(Some(32 * MIB));
    let stand = Stand::over(backend, &config()).unwrap();
    for n in 0..16 {
        stand.set(&format!("key:{n}"), &"x".repeat(1 << 20));
        stand.disk.journal().written().unwrap();
    }
    stand
}

#[test]
fn a_snapshot_that_would_take_the_journals_room_is_given_up() {
    let stand = half_full();
    let files = stand.backend.files().unwrap().len();
    let creates = |stand: &Stand| stand.backend.calls_of(crate::persistence::backend::memory::Call::Create);
    for created in [1, 0] {
        let before = creates(&stand);
        let error = stand.disk.snapshot().unwrap_err();
        assert!(
            matches!(&error, SnapshotError::Backend(error @ BackendError::NoRoom { .. }) if error.is_full())
        );
        assert!(error.to_string().contains("of them for itself"), "{error}");
        assert_eq!(creates(&stand) - before, created, "one that is known not to end is not begun");
        assert_eq!(stand.backend.files().unwrap().len(), files, "nothing of it is left");
    }
    stand.set("more", &"x".repeat(1 << 20));
    stand.disk.journal().flush().unwrap();
    assert!(stand.disk.journal().progress().borrow().poisoned.is_none());

    // Where there is more room, it is taken.
    stand.backend.set_room(Some(64 * MIB));
    assert_eq!(stand.disk.snapshot().unwrap().entries, 17);
}

#[test]
fn the_last_snapshot_of_a_node_that_stops_takes_all_the_room_there_is() {
    let backend = MemoryBackend::new();
    backend.set_room(Some(8 * MIB));
    let alone = DiskConfig { is_journaled: false, ..config() };
    let stand = Stand::over(backend, &alone).unwrap();
    for n in 0..7 {
        stand.set(&format!("key:{n}"), &"x".repeat(1_165_000));
    }
    assert!(matches!(stand.disk.snapshot(), Err(SnapshotError::Backend(BackendError::NoRoom { .. }))));
    stand.set("key:6", &"x".repeat(1 << 19));
    stand.disk.stop().unwrap();
    assert_eq!(stand.crashed(&alone).content().len(), 7);
}

#[test]
fn a_blob_that_would_take_the_journals_room_is_refused_and_leaves_nothing() {
    let backend = MemoryBackend::new();
    backend.set_room(Some(16 * MIB));
    let room = Arc::new(DiskBudget::new(Arc::new(backend.clone()), None));
    let (blobs, _) = Blobs::open_in(Arc::clone(&room), SystemClock::new().now()).unwrap();
    let new_blob = |key: &str| NewBlob { key: key.into(), ..NewBlob::default() };
    let said = NewBlob { size_bytes: Some(15 * MIB), ..new_blob("a") };
    assert!(blobs.begin(said).unwrap_err().to_string().contains("4194304 of them for itself"));
    let mut writers = ["a", "b"].map(|key| blobs.begin(new_blob(key)).unwrap());
    let chunk = vec![7; 256 << 10];
    let mut refused = 0;
    for _ in 0..64 {
        for writer in &mut writers {
            refused += usize::from(writer.write(&chunk).is_err());
            assert!(backend.space().unwrap().free_bytes >= 4 * MIB);
            assert!(refused > 0 || room.begin_snapshot(0).is_ok());
        }
    }
    assert!(refused > 0 && backend.space().unwrap().free_bytes < 5 * MIB, "{refused}");
    drop(writers);
    assert_eq!(backend.files().unwrap(), []);

    let mut writer = blobs.begin(new_blob("a")).unwrap();
    writer.write(&chunk).unwrap();
    let mut digest = Digest::default();
    digest.update(&chunk);
    let end = Finish { version: crate::entry::Version(1), ttl: Ttl::Never, now: SystemClock::new().now() };
    writer.finish(digest, end, || Ok(())).unwrap();
}

#[test]
fn what_blobs_were_promised_is_not_a_snapshots() {
    let backend = MemoryBackend::new();
    backend.set_room(Some(32 * MIB));
    let room = DiskBudget::new(Arc::new(backend.clone()), None);
    let (mut blob, mut snapshot) = Default::default();
    room.cover(&mut blob, 1).unwrap();
    for _ in 0..6 {
        room.cover_snapshot(&mut snapshot, 2 * MIB, 0).unwrap();
        room.cover_snapshot(&mut snapshot, 2 * MIB, 0).unwrap();
        // As if it were written.
        room.release(&mut snapshot);
        backend.set_room(Some(backend.space().unwrap().total_bytes - 2 * MIB));
        if backend.space().unwrap().total_bytes == 20 * MIB {
            break;
        }
    }
    assert!(room.cover_snapshot(&mut snapshot, 4 * MIB, 0).is_err());
    room.release(&mut blob);
    room.cover_snapshot(&mut snapshot, 4 * MIB, 0).unwrap();
}

#[test]
fn a_disk_that_fills_up_refuses_writes_and_poisons_nothing() {
    for config in [config(), DiskConfig { is_store: true, ..config() }] {
        let backend = MemoryBackend::new();
        backend.set_room(Some(16 * MIB));
        let stand = Stand::over(backend, &config).unwrap();
        // Each key is another: a snapshot wins nothing.
        let stored = (0..40_000).take_while(|n| set(&stand, *n)).count();
        assert!(stored > 5_000, "{stored}: it was refused before its time");
        let last = format!("key:{}", stored - 1);
        assert!(stand.get(&last).is_some(), "reads go on");
        assert!(stand.disk.journal().progress().borrow().poisoned.is_none());
        stand.engine.clear(stand.engine.default_namespace(), stand.now());
        stand.disk.compact().unwrap();
        wait("writes are refused for ever", || set(&stand, 0));
    }
}

#[test]
fn a_snapshot_that_was_given_up_is_tried_again_where_there_is_less() {
    let stand = half_full();
    stand.disk.snapshot().unwrap_err();
    let files = stand.backend.files().unwrap().len();
    for _ in 0..5 {
        stand.disk.compact().unwrap_err();
    }
    assert!(stand.backend.files().unwrap().len() <= files + 1, "each that fails leaves a segment");
    stand.engine.clear(stand.engine.default_namespace(), stand.now());
    assert_eq!(stand.disk.compact().map(|_| stand.disk.snapshots()[0].entries).unwrap(), 0);
}

#[test]
fn writes_are_refused_at_the_limit_and_taken_again_when_there_is_room() {
    let limit = MIB;
    let stand = limited(limit);
    let mut last = 0;
    // All of it is live: a snapshot wins nothing.
    while set(&stand, last) {
        last += 1;
        let journal: u64 = stand.disk.journal().segments().iter().map(|segment| segment.bytes).sum();
        assert!(journal <= limit + 2_000, "{journal} at key {last}");
    }
    assert!(last > 800, "{last}: it was refused before its time");
    assert!(stand.get(&format!("key:{}", last - 1)).is_some(), "reads go on");
    stand.engine.clear(stand.engine.default_namespace(), stand.now());
    wait("writes are refused for ever", || set(&stand, 0));
}

#[test]
fn a_disk_that_has_room_for_the_content_is_not_filled_by_the_journal() {
    let backend = MemoryBackend::new();
    backend.set_room(Some(16 * MIB));
    let stand = Stand::over(backend, &config()).unwrap();
    for n in 0..40_000 {
        assert!(set(&stand, n % 1_000), "{n}");
        let free = || stand.backend.space().unwrap().free_bytes;
        // The thread that makes it may come late.
        if free() < 4 * MIB {
            let stats = stand.engine.stats();
            wait(&format!("no room is made for {} bytes", stats.bytes_used - stats.bytes_spare), || {
                free() > 6 * MIB
            });
        }
    }
    assert!(stand.disk.journal().progress().borrow().poisoned.is_none());
    assert_eq!(stand.content().len(), 1_000);
}

#[test]
fn room_is_made_in_time_where_entries_are_written_over() {
    let limit = 4 * MIB;
    let stand = limited(limit);
    let mut written = 0;
    while written < 20_000 {
        written += usize::from(set(&stand, written % 400));
        let bytes = stand.backend.disk_bytes().unwrap();
        // The snapshot that makes room may pass it, if its thread comes late.
        assert!(bytes <= limit + (1 << 19), "{bytes} after {written}");
    }
    let before = stand.content();
    stand.disk.journal().flush().unwrap();
    assert_eq!(stand.crashed(&config()).content(), before);
}

/// Counts the lines of the log.
#[derive(Clone, Default)]
struct Lines(Arc<std::sync::atomic::AtomicU64>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Lines {
    fn on_event(&self, _: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn a_disk_that_is_full_and_not_full_again_and_again_has_one_line_of_each_a_second() {
    use tracing_subscriber::layer::SubscriberExt;
    let backend = Arc::new(MemoryBackend::new());
    let room = DiskBudget::new(Arc::clone(&backend) as Arc<dyn Backend>, None);
    drop(backend.create(FileId { kind: FileKind::Blob, number: 1 }).unwrap().append(&[&[0; 1 << 20]]));
    let lines = Lines::default();
    let begun = crate::clock::monotonic();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(lines.clone()), || {
        for _ in 0..500 {
            for mib in [1, 64] {
                backend.set_room(Some(mib * MIB));
                room.look_at_disk(0).unwrap();
                room.settle();
            }
        }
    });
    let most = 2 * (begun.elapsed().as_secs() + 1);
    let lines = lines.0.load(std::sync::atomic::Ordering::Relaxed);
    assert!((2..=most).contains(&lines), "{lines} lines, and no more than {most}");
}
