//! The ring as it is asked for and as it is watched: two messages with the same fields.

use super::v1::{GetRingResponse, WatchRingResponse};

macro_rules! same_fields {
    ($($from:ident -> $to:ident,)*) => {
        $(impl From<$from> for $to {
            fn from(ring: $from) -> Self {
                let $from { epoch, digest, points_per_weight, members, ring_hash_min_size, ring_hash_max_size } = ring;
                Self { epoch, digest, points_per_weight, members, ring_hash_min_size, ring_hash_max_size }
            }
        })*
    };
}

same_fields! {
    GetRingResponse -> WatchRingResponse,
    WatchRingResponse -> GetRingResponse,
}
