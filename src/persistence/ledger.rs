//! What the catalogue says of a data directory beside its blobs: whether its journal counts.
//!
//! | key | there |
//! |---|---|
//! | `disk/unjournaled` | snapshots are all that is kept: what is left of a journal was written for one that was being taken |

use super::backend::{Backend, BackendError, CatalogueChange};

const UNJOURNALED: &[u8] = b"disk/unjournaled";

/// Whether changes between snapshots are not kept in this directory.
///
/// # Errors
/// The catalogue cannot be read.
pub(super) fn is_unjournaled(backend: &dyn Backend) -> Result<bool, BackendError> {
    Ok(backend.get(UNJOURNALED)?.is_some())
}

/// Writes down whether changes between snapshots are kept from now on.
///
/// # Errors
/// The catalogue cannot be written.
pub(super) fn set_unjournaled(backend: &dyn Backend, is_unjournaled: bool) -> Result<(), BackendError> {
    let put = CatalogueChange::Put(UNJOURNALED, b"");
    let change = if is_unjournaled { put } else { CatalogueChange::Remove(UNJOURNALED) };
    backend.commit(&[change])
}
