//! Where an entry lies in its shard.

use std::num::NonZeroU32;

/// The place of an entry's cell, by which index, policy and timer wheel know the entry. It stays what it is until the cell
/// is freed, or moved to another place. What it is made of is told in [`super::arena`]; where a policy is tried without a
/// shard, it numbers a vector's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(NonZeroU32);

const _: () = assert!(size_of::<Option<Slot>>() == 4, "none takes no room beside a slot");
const _: () = assert!(Slot::of_link(0).is_none(), "a fresh cell's zeroed links mean no neighbour");

impl Slot {
    /// The slot of a number, which is not 0.
    #[inline]
    pub(crate) fn numbered(number: u32) -> Self {
        Self::of_link(number).expect("slots count from 1")
    }

    /// The slot that a link names; 0 names none.
    #[inline]
    pub(crate) const fn of_link(link: u32) -> Option<Self> {
        match NonZeroU32::new(link) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The link that names a slot, or none.
    #[inline]
    pub(crate) const fn link_to(slot: Option<Self>) -> u32 {
        match slot {
            Some(Self(number)) => number.get(),
            None => 0,
        }
    }

    /// The slot's number, at least 1.
    #[inline]
    pub(crate) const fn number(self) -> u32 {
        self.0.get()
    }

    /// The slot's number as a place in a vector whose element 0 is nobody's.
    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0.get() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_names_the_slot_that_it_was_made_of() {
        for number in [1, 7, 1 << 14, (1 << 31) - 1, u32::MAX] {
            let slot = Slot::numbered(number);
            assert_eq!((slot.number(), Slot::link_to(Some(slot))), (number, number));
            assert_eq!(Slot::of_link(number), Some(slot));
        }
        assert_eq!((Slot::of_link(0), Slot::link_to(None)), (None, 0));
    }
}
