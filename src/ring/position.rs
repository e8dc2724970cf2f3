//! Where a key lies on every ring.

use xxhash_rust::xxh64::{Xxh64, xxh64};

/// A key's place on the circle of 2^64 places: XXH64 (seed 0) of the 16 lower-case hexadecimal digits of XXH64 of
/// namespace, a zero byte and key. The digits, because they are what a stock gRPC client can send as a header and hash
/// (gRFC A42).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub u64);

/// Namespace, zero byte and key up to here are hashed in one piece.
const SHORT: usize = 256;

impl Position {
    /// That of a key.
    #[inline]
    #[must_use]
    pub fn of(namespace: &str, key: &[u8]) -> Self {
        Self(xxh64(&Self::digits(namespace, key), 0))
    }

    /// The 16 digits whose hash it is: what a stock gRPC client sends as `larder-key-hash`.
    #[inline]
    #[must_use]
    pub fn digits(namespace: &str, key: &[u8]) -> [u8; 16] {
        let hash = key_hash(namespace.as_bytes(), key);
        std::array::from_fn(|nth| {
            let digit = (hash >> (60 - 4 * nth)) as u8 & 0xf;
            digit + if digit < 10 { b'0' } else { b'a' - 10 }
        })
    }
}

#[inline]
fn key_hash(namespace: &[u8], key: &[u8]) -> u64 {
    let (at, bytes) = (namespace.len() + 1, namespace.len() + 1 + key.len());
    if bytes <= SHORT {
        let mut whole = [0; SHORT];
        whole[..namespace.len()].copy_from_slice(namespace);
        whole[at..bytes].copy_from_slice(key);
        return xxh64(&whole[..bytes], 0);
    }
    let mut hash = Xxh64::new(0);
    hash.update(namespace);
    hash.update(&[0]);
    hash.update(key);
    hash.digest()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_position_depends_on_namespace_and_key() {
        let digits = format!("{:016x}", xxh64(b"ns\0key", 0));
        assert_eq!(&Position::digits("ns", b"key"), digits.as_bytes());
        assert_eq!(Position::of("ns", b"key").0, xxh64(digits.as_bytes(), 0));
        assert_ne!(Position::of("", b"nskey"), Position::of("ns", b"key"));
    }

    proptest! {
        #[test]
        fn short_and_long_keys_are_hashed_alike(namespace in "[a-z]{0,40}", key in prop::collection::vec(any::<u8>(), 0..400)) {
            let whole = [namespace.as_bytes(), &[0], &key].concat();
            prop_assert_eq!(key_hash(namespace.as_bytes(), &key), xxh64(&whole, 0));
        }
    }
}
