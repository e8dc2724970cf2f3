//! A data directory over a backend of the test's own, and what lies there.

#![allow(dead_code, reason = "every test program uses its own part")]

use std::path::Path;
use std::time::Duration;

use larder::cache::DiskOptions;
use larder::entry::Durability;
use larder::persistence::backend::BackendKind;
use larder::persistence::disk::DiskConfig;
use larder::persistence::journal::{JournalConfig, RESERVE_BYTES, SEGMENT_BYTES};
use larder::persistence::recover::RecoveryMethod;
use larder::persistence::{Backend, FileKind, MemoryBackend};

use super::node::soon;

/// A journal that syncs when it is asked to, and not in between.
pub(crate) fn options(directory: &Path, is_store: bool) -> DiskOptions {
    let flush_interval = Duration::from_secs(3_600);
    let journal = JournalConfig {
        flush_interval,
        backlog_bytes: 64 << 20,
        waiting_bytes: 4 << 20,
        segment_bytes: SEGMENT_BYTES,
        reserve_bytes: RESERVE_BYTES,
    };
    DiskOptions {
        directory: directory.to_owned(),
        backend: BackendKind::Files,
        disk: DiskConfig {
            journal,
            is_journaled: true,
            recovery: RecoveryMethod::SnapshotAndJournal,
            snapshot_interval: None,
            limit_bytes: None,
            is_store,
        },
        durability: Durability::Buffered,
    }
}

/// Blob files on the disk, whole or not.
pub(crate) fn blob_files(backend: &MemoryBackend) -> usize {
    let files = backend.files().unwrap();
    files.iter().filter(|(file, _)| file.kind == FileKind::Blob).count()
}

/// Waits until there are `count` files of blobs.
pub(crate) async fn blob_files_become(backend: &MemoryBackend, count: usize) {
    soon(async {
        while blob_files(backend) != count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
