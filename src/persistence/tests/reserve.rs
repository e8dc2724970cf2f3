//! Room that is reserved in the journal: zeroes behind its end, which no crash and no disk can have mistaken for more.

use super::damage::{batches, judge, judge_synced, written_bytes};
use super::*;
use crate::engine::{Put, ValueView};
use crate::entry::{Expiry, Version};
use crate::persistence::backend::memory::{Call, Fault, IoFault, Strikes};
use crate::persistence::frame::{BatchInfo, FrameKind, FrameWriter, HEADER_BYTES};
use crate::persistence::record;
use crate::persistence::tier::{DiskTier, Moves};

/// What a kill leaves of a journal all of which was synced, the segment, and how much of that was written.
fn left() -> (MemoryBackend, FileId, usize) {
    let stand = batches();
    stand.disk.journal().flush().unwrap();
    assert!(stand.backend.calls_of(Call::Reserve) > 0, "many syncs were waited for");
    let left = stand.backend.crash(Lose::Nothing);
    let (file, bytes) = *left.files().unwrap().last().unwrap();
    let content = left.content(file).unwrap();
    let written = written_bytes(&content);
    assert!(written + HEADER_BYTES < bytes as usize, "zeroes are left");
    (left, file, written)
}

#[test]
fn a_journal_that_ends_in_zeroes_is_whole() {
    let (backend, file, _) = left();
    let report = judge(backend.crash(Lose::Nothing), "left by a kill");
    assert!(report.damages.is_empty() && report.torn_bytes == 0, "{report:?}");
    let stand = Stand::over(backend, &config()).unwrap();
    stand.set("key:0", "more");
    stand.disk.stop().unwrap();
    let end = stand.backend.content(file).unwrap();
    let again = stand.crashed(&config());
    assert_eq!(
        again.get("key:0").as_deref(),
        Some("more"),
        "the next segment goes on behind {} bytes",
        end.len()
    );
}

#[test]
fn a_bit_that_flips_before_the_zeroes_or_in_them_is_told() {
    let (backend, file, written) = left();
    for at in (0..written).step_by(3) {
        let bent = backend.crash(Lose::Nothing);
        assert!(bent.flip_bit(file, at as u64, (at % 8) as u32));
        judge_synced(bent, &format!("byte {at} of {written}"));
    }
    let length = backend.content(file).unwrap().len();
    for at in (written..length).step_by(101) {
        let bent = backend.crash(Lose::Nothing);
        assert!(bent.flip_bit(file, at as u64, (at % 8) as u32));
        let report = judge(bent, &format!("byte {at} of {length}"));
        assert!(report.damages.is_empty(), "nothing was written there: {report:?}");
        assert_eq!(
            report.torn_bytes,
            (at + 1 - written) as u64,
            "byte {at}: up to the last that is not zero"
        );
    }
}

#[test]
fn what_was_synced_and_is_zeroes_now_is_told() {
    let (backend, file, written) = left();
    let content = backend.content(file).unwrap();
    for from in (0..written).step_by(5) {
        let mut blank = content.clone();
        blank[from..].fill(0);
        let bent = backend.crash(Lose::Nothing);
        bent.put_content(file, blank);
        judge_synced(bent, &format!("zeroes from {from} of {written}"));
    }
}

#[test]
fn what_was_not_synced_may_be_zeroes_in_any_part() {
    for seed in 0..200 {
        let stand = batches();
        stand.disk.journal().flush().unwrap();
        for n in 0..40 {
            stand.set(&format!("key:{n}"), &format!("1:{n}:{}", "x".repeat(n)));
            stand.disk.journal().written().unwrap();
        }
        let lose = if seed % 2 == 0 { Lose::Tail(seed) } else { Lose::Holes(seed) };
        let report = judge(stand.backend.crash(lose), &format!("{lose:?}"));
        assert!(report.damages.is_empty(), "{report:?}");
    }
}

#[test]
fn room_that_cannot_be_reserved_is_done_without() {
    for refusal in [IoFault::Io, IoFault::Full] {
        let backend = MemoryBackend::new();
        let call = Some(Call::Reserve);
        backend.plan(Fault { call, passing: 0, refusal, strikes: Strikes::FromThenOn });
        let stand = Stand::over(backend, &config()).unwrap();
        for n in 0..40 {
            assert!(matches!(stand.set(&format!("key:{n}"), "v"), Outcome::Stored(_)));
            stand.disk.journal().flush().unwrap();
        }
        assert!(stand.backend.calls_of(Call::Reserve) > 0, "it was tried");
        let before = stand.content();
        let again = stand.crashed(&config());
        assert_eq!(again.content(), before);
        assert!(again.report.damages.is_empty() && again.report.torn_bytes == 0, "{:?}", again.report);
    }
}

#[test]
fn a_mover_reads_no_further_than_what_has_arrived() {
    let stand = Stand::new();
    let backend = Arc::clone(&stand.backend) as Arc<dyn Backend>;
    let (file, other) =
        (FileId { kind: FileKind::Journal, number: 1_000 }, FileId { kind: FileKind::Snapshot, number: 0 });
    let mut frames = FrameWriter::new(backend.create(file).unwrap(), file.number, 0);
    frames.append(FrameKind::Segment, BatchInfo::default(), &[&[0; 9]]).unwrap();
    let tier = DiskTier::new(Arc::clone(&backend), stand.engine.shard_count());
    let number = tier.open_written(file, frames.bytes()).unwrap();
    drop(backend.create(other).unwrap());
    let to = tier.open(other).unwrap();
    let bodies = [b"first", b"other"].map(|key| {
        let mut body = Vec::new();
        record::write(&put(key), &mut body);
        body
    });
    let arrive = |body: &[u8], end: u64| {
        let begin = end - body.len() as u64;
        tier.arrive(&stand.engine, (number, begin), body).unwrap();
    };
    frames.append(FrameKind::Batch, BatchInfo { records: 1, ..BatchInfo::default() }, &[&bodies[0]]).unwrap();
    arrive(&bodies[0], frames.bytes());
    tier.set_written(number, frames.bytes());
    // The second is under way: its header is not there yet, and its room is.
    frames.reserve(4_096).unwrap();
    arrive(&bodies[1], frames.bytes() + (HEADER_BYTES + bodies[1].len()) as u64);

    let (mut moving, mut moved) = (tier.moving(&stand.engine, to), 0);
    let mut write = |_: &Put<'_>| {
        moved += 1;
        0..1
    };
    while moving.next(stand.now(), &mut Moves::default(), &mut write).unwrap() {}
    assert!(!tier.is_damaged(file), "what is being written is not damaged");
    assert_eq!(moved, 1);
}

fn put(key: &[u8]) -> Record<'_> {
    Record::Put(Put {
        namespace: 0,
        key,
        value: ValueView::Inline(b"value"),
        version: Version(7),
        expiry: Expiry::Never,
        flags: 0,
        content_type: "",
        tags: &[],
        request_id: "",
    })
}
