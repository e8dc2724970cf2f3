//! Reads entries of the disk tier, which lies below memory.

use std::sync::Arc;

use super::{Disk, Inner};
use crate::persistence::journal::{Journal, Stopped};
use crate::persistence::tier::{DiskTier, FetchError, Found};

/// Reads entries of the disk tier.
#[derive(Debug, Clone, Copy)]
pub struct TierReader<'a> {
    /// Where they lie.
    pub tier: &'a DiskTier,
    pub(super) journal: &'a Journal,
}

/// Gives a [`TierReader`] for as long as there is a disk tier.
#[derive(Debug)]
pub struct DiskReader(Arc<Inner>);

/// Why an entry of the disk tier cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TierReadError {
    /// It cannot be read.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Changes that it may depend on have not arrived below and never will.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl TierReadError {
    /// Whether nothing is wrong with the disk, and the entry can be read in a moment.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Fetch(FetchError::Backend(error)) if error.is_passing())
    }
}

impl Disk {
    /// What looks below memory; `None`: nothing lies there.
    #[must_use]
    pub fn reader(&self) -> Option<DiskReader> {
        self.inner.tier.as_ref().map(|_| DiskReader(Arc::clone(&self.inner)))
    }
}

impl DiskReader {
    /// What lies below memory; `None`: nothing any more.
    #[must_use]
    pub fn tier_reader(&self) -> Option<TierReader<'_>> {
        let tier = self.0.tier()?;
        Some(TierReader { tier, journal: &self.0.journal })
    }
}

impl TierReader<'_> {
    /// What lies below memory of a key, by its shard and its place there, when what the shard had logged has arrived;
    /// `None`: nothing. Blocks.
    ///
    /// # Errors
    /// It cannot be read, or not be told.
    pub fn fetch(
        &self,
        (shard, walk_hash): (usize, u64),
        logged: u64,
        namespace: u16,
        key: &[u8],
    ) -> Result<Option<Found>, TierReadError> {
        if !self.tier.has_arrived(shard, logged) {
            self.journal.written()?;
        }
        Ok(self.tier.fetch((shard, walk_hash), namespace, key)?)
    }

    /// Waits until everything that was applied before this has arrived below. Blocks.
    ///
    /// # Errors
    /// The journal is poisoned.
    pub fn arrived(&self) -> Result<(), Stopped> {
        self.journal.written().map(|_| ())
    }
}
