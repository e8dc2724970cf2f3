//! What can be wrong with snapshots, and with what they are taken of.

use crate::entry::WallClockError;
use crate::persistence::backend::BackendError;
use crate::persistence::journal::{RollError, Stopped};
use crate::persistence::replay::{Damage, ReadError};

/// Why no snapshot was taken, or what is on disk was not recovered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The disk refuses.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The wall clock cannot be followed.
    #[error(transparent)]
    Clock(#[from] WallClockError),
    /// Changes that were made meanwhile are not on the disk.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// What is to be copied cannot be read back.
    #[error("{} cannot be read back at byte {}: {}", .0.place, .0.offset, .0.description)]
    Damaged(Damage),
    /// Not all of the content has been found yet.
    #[error("the content is not whole: its recovery was broken off")]
    NotWhole,
    /// What is on disk was written by a later build.
    #[error(
        "{} cannot be read, at byte {}: {}; start that build, or give the directory up by --recovery empty",
        .0.place, .0.offset, .0.description
    )]
    Newer(Damage),
    /// A recovery from a snapshot alone would give up a journal for none.
    #[error(
        "there is no snapshot that is whole, and --recovery snapshot gives up the journal, which has positions {first} to \
         {last}: recover by snapshot+journal or journal, or give all of it up by empty"
    )]
    NoSnapshot {
        /// The first position that it has.
        first: u64,
        /// The last.
        last: u64,
    },
}

impl From<RollError> for SnapshotError {
    fn from(why: RollError) -> Self {
        match why {
            RollError::Stopped(why) => Self::Stopped(why),
            RollError::Shortage(error) => Self::Backend(error),
        }
    }
}

impl From<ReadError> for SnapshotError {
    fn from(why: ReadError) -> Self {
        match why {
            ReadError::Backend(error) => Self::Backend(error),
            ReadError::Damaged(damage) => Self::Damaged(damage),
        }
    }
}
