//! Where a key lies on every ring.

use xxhash_rust::xxh64::{Xxh64, xxh64};

/// A key's place on the circle of 2^64 places: XXH64 (seed 0) of the 16 lower-case hexadecimal digits of XXH64 of
/// namespace, a zero byte and key. The digits, because they are what a stock gRPC client can send as a header and hash
/// (gRFC A42).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub u64);

/// Eight lower-case hexadecimal digits, all at once: a byte for each four bits, and to each what makes it a digit.
#[inline]
fn eight_digits(number: u32) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let apart = u64::from(number);
    let apart = (apart | apart << 16) & 0x0000_ffff_0000_ffff;
    let apart = (apart | apart << 8) & 0x00ff_00ff_00ff_00ff;
    let apart = (apart | apart << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 where it is 10 or more: a letter.
    let letters = ((apart + 6 * ONES) >> 4) & ONES;
    (apart + u64::from(b'0') * ONES + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

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
        let mut digits = [0; 16];
        digits[..8].copy_from_slice(&eight_digits((hash >> 32) as u32));
        digits[8..].copy_from_slice(&eight_digits(hash as u32));
        digits
    }
}

#[inline]
fn key_hash(namespace: &[u8], key: &[u8]) -> u64 {
    match namespace.len() + 1 + key.len() {
        0..=64 => hash_in_one_piece::<64>(namespace, key),
        65..=256 => hash_in_one_piece::<256>(namespace, key),
        _ => {
            let mut hash = Xxh64::new(0);
            hash.update(namespace);
            hash.update(&[0]);
            hash.update(key);
            hash.digest()
        }
    }
}

/// Of what has `N` bytes at most: copying it takes less time than hashing it in three pieces.
#[inline]
fn hash_in_one_piece<const N: usize>(namespace: &[u8], key: &[u8]) -> u64 {
    let mut whole = [0; N];
    let at = namespace.len() + 1;
    whole[..namespace.len()].copy_from_slice(namespace);
    whole[at..at + key.len()].copy_from_slice(key);
    xxh64(&whole[..at + key.len()], 0)
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
        fn digits_are_hexadecimal(number in any::<u32>()) {
            let expected = format!("{number:08x}");
            prop_assert_eq!(&eight_digits(number)[..], expected.as_bytes());
        }

        #[test]
        fn short_and_long_keys_are_hashed_alike(namespace in "[a-z]{0,40}", key in prop::collection::vec(any::<u8>(), 0..400)) {
            let whole = [namespace.as_bytes(), &[0], &key].concat();
            prop_assert_eq!(key_hash(namespace.as_bytes(), &key), xxh64(&whole, 0));
        }
    }
}
