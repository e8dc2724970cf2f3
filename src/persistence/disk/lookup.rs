//! Looking for entries below memory.

use crate::engine::Fetch;
use crate::persistence::journal::{Journal, Stopped};
use crate::persistence::tier::{DiskTier, FetchError, Found};

/// Looks for entries below memory.
#[derive(Debug, Clone, Copy)]
pub struct Lookup<'a> {
    /// Where they lie.
    pub tier: &'a DiskTier,
    pub(super) journal: &'a Journal,
}

/// Why an entry cannot be looked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// It cannot be read.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Changes that it may depend on have not arrived below and never will.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl LookupError {
    /// Whether nothing is wrong with the disk, and the entry can be read in a moment.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Fetch(FetchError::Backend(error)) if error.is_passing())
    }
}

impl Lookup<'_> {
    /// What lies below memory of a key that is being fetched; `None`: nothing. Blocks.
    ///
    /// # Errors
    /// It cannot be read, or not be told.
    pub fn fetch(&self, fetch: &Fetch, namespace: u16, key: &[u8]) -> Result<Option<Found>, LookupError> {
        if !self.tier.has_arrived(fetch.shard(), fetch.logged()) {
            self.journal.written()?;
        }
        Ok(self.tier.fetch((fetch.shard(), fetch.place()), namespace, key)?)
    }

    /// Waits until everything that was applied before this has arrived below. Blocks.
    ///
    /// # Errors
    /// The journal is poisoned.
    pub fn arrived(&self) -> Result<(), Stopped> {
        self.journal.written().map(|_| ())
    }
}
