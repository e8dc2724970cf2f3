//! What stands in front of hashring's binary search: the owner of each stretch of the circle that is one member's
//! whole.
//!
//! There are four to eight stretches for each point of up to 65,536, so that of ten positions seven or more lie in a
//! stretch without a point in it, whose owner is one read away. The others are looked up, as are most in a ring of very
//! many points.

use super::VirtualNode;

/// The owner of each stretch, or that there are several.
#[derive(Debug)]
pub(super) struct Index {
    owners: Box<[u16]>,
    /// What is left of a position when its stretch is taken off, in bits.
    shift: u32,
}

/// Points lie in the stretch. No member has this number: there are at most as many.
const SEVERAL: u16 = u16::MAX;

/// The most stretches are 2^18, 512 KiB.
const BITS_MAX: u32 = 18;

impl Index {
    /// Of this many points, one at least; `first_at_or_after` looks up the point that decides for a position.
    pub(super) fn new(points: usize, first_at_or_after: impl Fn(u64) -> VirtualNode) -> Self {
        let bits = (points.next_power_of_two().trailing_zeros() + 2).min(BITS_MAX);
        let shift = u64::BITS - bits;
        let owners = (0..1_u64 << bits).map(|stretch| {
            let begin = stretch << shift;
            let end = begin | ((1 << shift) - 1);
            let (first, last) = (first_at_or_after(begin), first_at_or_after(end));
            // The end's may be the first of all, which may be the beginning's again although others lie between.
            let has_points = (begin..=end).contains(&first.point) && points > 1;
            if first == last && !has_points { first.member } else { SEVERAL }
        });
        Self { owners: owners.collect(), shift }
    }

    /// The owner of a position; `None`: it has to be looked up.
    #[inline]
    pub(super) fn owner(&self, position: u64) -> Option<u16> {
        let owner = self.owners[(position >> self.shift) as usize];
        (owner != SEVERAL).then_some(owner)
    }
}
