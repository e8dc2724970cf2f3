//! What decides owners, in 16 bytes.

use std::fmt;

use sha2::{Digest, Sha256};

use super::RingMember;

/// The first 16 bytes of SHA-256 over what decides owners:
///
/// ```text
/// "larder ring 1" | points per weight 4 | per member, by id: id length 4 | id | weight 4
/// ```
///
/// Numbers are little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RingDigest([u8; 16]);

/// The way of hashing and placing: another one is another format.
const FORMAT: &[u8] = b"larder ring 1";

impl RingDigest {
    pub(super) fn new(members: &[RingMember], points_per_weight: u32) -> Self {
        let mut hash = Sha256::new();
        hash.update(FORMAT);
        hash.update(points_per_weight.to_le_bytes());
        for RingMember { id, weight } in members {
            hash.update((id.len() as u32).to_le_bytes());
            hash.update(id.as_bytes());
            hash.update(weight.to_le_bytes());
        }
        let whole: [u8; 32] = hash.finalize().into();
        let mut digest = [0; 16];
        digest.copy_from_slice(&whole[..16]);
        Self(digest)
    }

    /// Its bytes, as they travel.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for RingDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RingDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RingDigest({self})")
    }
}
