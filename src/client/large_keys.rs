//! Which keys have long values, as far as the client has seen: their Gets go by connections of their own, as their Sets do, so
//! that small calls do not wait behind their values.
//!
//! A table by the hash of namespace and key, of one entry a place: it may forget a key, whose value then comes by a shared connection
//! once more, and takes no other for it but with a chance of 2^-31, which costs that key a call by itself.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The longest value that goes by a shared connection.
pub(super) const SMALL_VALUE_BYTES_MAX: u64 = 64 << 10;

const PLACES: usize = 1_024;

/// The keys of a node.
#[derive(Debug)]
pub(super) struct LargeKeys(Box<[AtomicU32]>);

impl Default for LargeKeys {
    fn default() -> Self {
        Self((0..PLACES).map(|_| AtomicU32::new(0)).collect())
    }
}

impl LargeKeys {
    /// Whether the value of the key with this hash was long.
    #[inline]
    pub(super) fn has(&self, hash: u64) -> bool {
        self.place(hash).load(Relaxed) == mark(hash)
    }

    /// The key with this hash has a value of this length now; 0: or none.
    #[inline]
    pub(super) fn note(&self, hash: u64, value_bytes: u64) {
        if value_bytes > SMALL_VALUE_BYTES_MAX {
            self.place(hash).store(mark(hash), Relaxed);
        } else if self.has(hash) {
            self.place(hash).store(0, Relaxed);
        }
    }

    fn place(&self, hash: u64) -> &AtomicU32 {
        &self.0[hash as usize % PLACES]
    }
}

/// Never 0, which is that of an empty place.
fn mark(hash: u64) -> u32 {
    (hash >> 32) as u32 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_until_its_value_is_short_or_another_takes_its_place() {
        let keys = LargeKeys::default();
        let (one, other) = (7 << 32 | 5, 9 << 32 | 5);
        keys.note(one, SMALL_VALUE_BYTES_MAX);
        assert!(!keys.has(one));
        keys.note(one, SMALL_VALUE_BYTES_MAX + 1);
        assert!(keys.has(one) && !keys.has(other));
        keys.note(other, 3);
        assert!(keys.has(one), "it is not that one's");
        keys.note(other, u64::MAX);
        assert!(keys.has(other) && !keys.has(one));
        keys.note(other, 0);
        assert!(!keys.has(other));
        assert!(!keys.has(0), "of an empty place");
    }
}
