//! When which blob expires, in steady time.
//!
//! A blob is known by its file, of which there is never a second of the same number; so what is left here of a blob
//! that was replaced harms nobody.

use std::collections::{BTreeMap, HashMap};

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// By file.
    steady_ms: HashMap<u64, u64>,
    /// By time, with the key of the catalogue.
    order: BTreeMap<(u64, u64), Box<[u8]>>,
    key_bytes: u64,
}

/// What a deadline takes beside its key: in both maps, at the fill that they have on average, and of the allocator.
const DEADLINE_BYTES: u64 = 128;

impl Deadlines {
    /// Notes that a file's blob expires then.
    pub(super) fn set(&mut self, file: u64, steady_ms: u64, catalogue_key: &[u8]) {
        self.remove(file);
        self.steady_ms.insert(file, steady_ms);
        self.key_bytes += catalogue_key.len() as u64;
        self.order.insert((steady_ms, file), catalogue_key.into());
    }

    pub(super) fn remove(&mut self, file: u64) {
        if let Some(steady_ms) = self.steady_ms.remove(&file) {
            let key = self.order.remove(&(steady_ms, file));
            self.key_bytes -= key.map_or(0, |key| key.len() as u64);
        }
    }

    /// What they take, about.
    pub(super) fn bytes(&self) -> u64 {
        self.key_bytes + self.order.len() as u64 * DEADLINE_BYTES
    }

    /// Files whose blobs have expired, the longest ago first, with their keys of the catalogue.
    pub(super) fn due(&self, now_ticks_ms: u64, max: usize) -> Vec<(u64, Box<[u8]>)> {
        let due = self.order.range(..=(now_ticks_ms, u64::MAX)).take(max);
        due.map(|((_, file), key)| (*file, key.clone())).collect()
    }
}
