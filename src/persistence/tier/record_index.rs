//! Where the records of one shard's keys lie.

use std::collections::HashMap;
use std::collections::btree_map::{BTreeMap, Entry};
use std::ops::Bound;

use crate::entry::Expiry;

/// Where a record lies, in 24 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordLocation {
    offset: u64,
    file: u32,
    len: u32,
    /// The record's checksum, CRC-32 (IEEE).
    crc: u32,
    namespace: u16,
}

/// No file has this number: the key was removed, which older files do not know.
const REMOVED: u32 = u32::MAX;

impl RecordLocation {
    pub(super) fn new(file: u32, offset: u64, record: &[u8]) -> Self {
        Self { offset, file, len: record.len() as u32, crc: crc32fast::hash(record), namespace: 0 }
    }

    pub(super) fn of(self, namespace: u16) -> Self {
        Self { namespace, ..self }
    }

    /// The same, of a file that has another number.
    pub(super) fn in_file(self, file: u32) -> Self {
        Self { file, ..self }
    }

    pub(super) fn file(&self) -> u32 {
        self.file
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn namespace(&self) -> u16 {
        self.namespace
    }

    pub(super) fn is_removed(&self) -> bool {
        self.file == REMOVED
    }

    /// Whether these are the bytes that were written.
    pub(super) fn is_of(&self, record: &[u8]) -> bool {
        crc32fast::hash(record) == self.crc
    }
}

/// The locations of one shard's keys, by hash.
#[derive(Debug, Default)]
pub(super) struct RecordIndex {
    by_hash: BTreeMap<u64, RecordLocation>,
    /// Expiries that were given after the record was written.
    expiries: HashMap<u64, Expiry>,
    /// Keys that are removed are remembered.
    keeps_removed: bool,
}

/// What a location takes in the map, at the two thirds that its nodes are full on average.
const LOCATION_BYTES: u64 = (size_of::<(u64, RecordLocation)>() * 3 / 2) as u64;
/// What an expiry takes.
const EXPIRY_BYTES: u64 = 48;
/// Expiries that there is always room for.
const ROOM_KEPT: usize = 64;

impl RecordIndex {
    pub(super) fn len(&self) -> usize {
        self.by_hash.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.by_hash.len() as u64 * LOCATION_BYTES + self.expiries.capacity() as u64 * EXPIRY_BYTES
    }

    /// A key's location, and the expiry that it was given since.
    pub(super) fn get(&self, hash: u64) -> Option<(RecordLocation, Option<Expiry>)> {
        let location = self.by_hash.get(&hash)?;
        Some((*location, self.expiries.get(&hash).copied()))
    }

    pub(super) fn put(&mut self, hash: u64, location: RecordLocation) {
        self.by_hash.insert(hash, location);
        self.forget_expiry(hash);
    }

    pub(super) fn put_if_vacant(&mut self, hash: u64, location: RecordLocation) {
        self.by_hash.entry(hash).or_insert(location);
    }

    /// As [`Self::put_if_vacant`], of a key that was given an expiry since, unless it was given one here too.
    pub(super) fn put_if_vacant_with(&mut self, hash: u64, location: RecordLocation, expiry: Option<Expiry>) {
        if let Entry::Vacant(vacant) = self.by_hash.entry(hash) {
            vacant.insert(location);
            if let Some(expiry) = expiry {
                self.expiries.entry(hash).or_insert(expiry);
            }
        }
    }

    /// Visits every key's location, and the expiry that it was given since.
    pub(super) fn each(&self, mut visit: impl FnMut(u64, RecordLocation, Option<Expiry>)) {
        self.by_hash
            .iter()
            .for_each(|(hash, location)| visit(*hash, *location, self.expiries.get(hash).copied()));
    }

    pub(super) fn remove(&mut self, hash: u64) {
        if self.keeps_removed {
            self.by_hash
                .insert(hash, RecordLocation { offset: 0, file: REMOVED, len: 0, crc: 0, namespace: 0 });
        } else {
            self.by_hash.remove(&hash);
        }
        self.forget_expiry(hash);
    }

    pub(super) fn set_expiry(&mut self, hash: u64, expiry: Expiry) {
        if self.keeps_removed || self.by_hash.contains_key(&hash) {
            self.expiries.insert(hash, expiry);
        }
    }

    /// Forgets everything; whether removed keys are remembered stays as it is.
    pub(super) fn clear(&mut self) {
        *self = Self { keeps_removed: self.keeps_removed, ..Self::default() };
    }

    pub(super) fn clear_namespace(&mut self, namespace: u16) {
        let (by_hash, expiries) = (&mut self.by_hash, &mut self.expiries);
        by_hash.retain(|hash, location| {
            let stays = location.is_removed() || location.namespace != namespace;
            if !stays {
                expiries.remove(hash);
            }
            stays
        });
        self.shrink();
    }

    /// Whether keys that are removed are remembered from now on; if not, those that were are forgotten.
    pub(super) fn keep_removed(&mut self, keep: bool) {
        self.keeps_removed = keep;
        if !keep {
            self.by_hash.retain(|_, location| !location.is_removed());
            let by_hash = &self.by_hash;
            self.expiries.retain(|hash, _| by_hash.contains_key(hash));
            self.shrink();
        }
    }

    /// The next hashes after one.
    pub(super) fn after(&self, after: Option<u64>, max: usize) -> Vec<u64> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_hash.range((from, Bound::Unbounded)).take(max).map(|(hash, _)| *hash).collect()
    }

    /// Leads a key to another location, if it is at the first one still. An expiry that was written there is forgotten.
    pub(super) fn lead(
        &mut self,
        hash: u64,
        from: RecordLocation,
        to: RecordLocation,
        written: Option<Expiry>,
    ) {
        if let Some(location) = self.by_hash.get_mut(&hash)
            && *location == from
        {
            *location = to;
            if written.is_some() && self.expiries.get(&hash).copied() == written {
                self.forget_expiry(hash);
            }
        }
    }

    /// Forgets a key, if it is at this location still.
    pub(super) fn drop_at(&mut self, hash: u64, from: RecordLocation) {
        if self.by_hash.get(&hash) == Some(&from) {
            self.by_hash.remove(&hash);
            self.forget_expiry(hash);
        }
    }

    /// Forgets an expiry, and gives memory back where few are left of many.
    fn forget_expiry(&mut self, hash: u64) {
        if self.expiries.remove(&hash).is_some() {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        if self.expiries.capacity() > ROOM_KEPT && self.expiries.len() < self.expiries.capacity() / 4 {
            self.expiries.shrink_to(self.expiries.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_places_and_expiries_take_is_given_back_with_them() {
        let mut locations = RecordIndex::default();
        for hash in 0..10_000 {
            locations.put(hash, RecordLocation::new(1, hash * 10, b"record"));
            locations.set_expiry(hash, Expiry::AtMs(hash));
        }
        assert!(locations.bytes() > 10_000 * (LOCATION_BYTES + EXPIRY_BYTES), "{}", locations.bytes());
        for hash in 0..5_000 {
            locations.put(hash, RecordLocation::new(2, hash * 10, b"record"));
        }
        (5_000..10_000).for_each(|hash| locations.remove(hash));
        assert!(
            locations.bytes() < 5_000 * LOCATION_BYTES + 8 * ROOM_KEPT as u64 * EXPIRY_BYTES,
            "{}",
            locations.bytes()
        );
    }
}
