//! When which blob expires, on the monotonic clock.
//!
//! A blob is known by its file, of which there is never a second of the same number; so what is left here of a blob
//! that was replaced harms nobody.

use std::collections::{BTreeMap, HashMap};

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// By file.
    ticks_ms: HashMap<u64, u64>,
    /// By time, with the key of the catalogue.
    order: BTreeMap<(u64, u64), Box<[u8]>>,
}

impl Deadlines {
    /// Notes that a file's blob expires then.
    pub(super) fn set(&mut self, file: u64, ticks_ms: u64, catalogue_key: &[u8]) {
        self.remove(file);
        self.ticks_ms.insert(file, ticks_ms);
        self.order.insert((ticks_ms, file), catalogue_key.into());
    }

    pub(super) fn remove(&mut self, file: u64) {
        if let Some(ticks_ms) = self.ticks_ms.remove(&file) {
            self.order.remove(&(ticks_ms, file));
        }
    }

    /// When a file's blob expires.
    pub(super) fn of(&self, file: u64) -> Option<u64> {
        self.ticks_ms.get(&file).copied()
    }

    /// Files whose blobs have expired, the longest ago first, with their keys of the catalogue.
    pub(super) fn due(&self, now_ticks_ms: u64, max: usize) -> Vec<(u64, Box<[u8]>)> {
        let due = self.order.range(..=(now_ticks_ms, u64::MAX)).take(max);
        due.map(|((_, file), key)| (*file, key.clone())).collect()
    }
}
