//! Any bytes as what lies on disk: records, frames, a journal, a snapshot, a blob's parts. Nothing panics, and what is
//! recovered is an engine whose invariants hold.
#![no_main]

use std::ops::ControlFlow;
use std::sync::Arc;

use larder::clock::{Now, SystemClock};
use larder::engine::{Engine, EngineConfig};
use larder::persistence::blob::format;
use larder::persistence::frame::{BatchInfo, FrameKind, FrameWriter, Header};
use larder::persistence::recover::{Recovery, RecoveryMethod, RecoveryProgress};
use larder::persistence::tier::{DiskTier, Moves};
use larder::persistence::{Backend, FileId, FileKind, MemoryBackend, record, time};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((form, bytes)) = input.split_first() else { return };
    let backend = MemoryBackend::new();
    let journal = FileId { kind: FileKind::Journal, number: 1 };
    match form % 6 {
        0 => {
            let _ = record::read(bytes, |_| {});
        }
        1 => {
            let _ = Header::read(bytes);
            let _ = format::read_footer(bytes);
            let _ = format::split_catalogue_key(bytes);
            let _ = format::read_catalogue_value(b"key", bytes);
            let _ = format::is_chunk(1, 0, bytes);
        }
        2 => backend.put_content(journal, bytes.to_vec()),
        3 => backend.put_content(FileId { kind: FileKind::Snapshot, number: 1 }, bytes.to_vec()),
        // Whole frames around records that nobody wrote.
        _ => {
            let mut frames = FrameWriter::new(backend.create(journal).unwrap(), 1, 0);
            let batch = BatchInfo { first_position: 1, records: 1, time: Now { steady_ms: 1, unix_us: 1 } };
            frames.append(FrameKind::Segment, batch, &[&[7; 9][..]]).unwrap();
            frames.append(FrameKind::Batch, batch, &[bytes]).unwrap();
        }
    }
    let now = Now { steady_ms: 1_000, unix_us: 1_700_000_000_000_000 };
    let config = EngineConfig { bytes_limit: 2 << 20, shards: Some(2), ..EngineConfig::default() };
    let engine = Engine::new(&config, now);
    let progress = RecoveryProgress::default();
    let backend = Arc::new(backend);
    let tier = (form / 6 % 2 == 1).then(|| DiskTier::new(backend.clone(), engine.shard_count()));
    let method = if form / 12 % 2 == 1 { RecoveryMethod::Lazy } else { RecoveryMethod::SnapshotAndJournal };
    let recovery = Recovery {
        backend: &*backend,
        engine: &engine,
        now,
        threads: 1,
        progress: &progress,
        tier: tier.as_ref(),
    };
    time::resume_clock(&*backend, &SystemClock::new()).unwrap();
    recovery.run(method).unwrap();
    if let Some(tier) = &tier {
        for shard in 0..engine.shard_count() {
            tier.scan(shard, None, 1_000, |_| ControlFlow::Continue(())).unwrap();
        }
        let (mut moving, mut moves) = (tier.moving(&engine, u32::MAX), Moves::default());
        while moving.next(now, &mut moves, |_| 0..0).unwrap() {}
    }
    engine.advance(now);
    #[cfg(debug_assertions)]
    engine.validate();
});
