//! What a membership store does: four verbs, each of which may fail, and none of which knows what a document means.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;

use serde::{Deserialize, Serialize};

use super::document::{BadDocument, Document, hexadecimal};

/// Where a cluster's document lies.
///
/// Every store keeps to this, which one suite of tests holds them to (tests/suite/membership.rs):
/// - A document is replaced as a whole, by [`Store::compare_and_swap`], of which one of several that begin from the same
///   revision succeeds.
/// - What was written is read by everybody from then on: reads are linearizable.
/// - A swap whose answer is lost may have been done: who gets an error reads again.
/// - A life ends by itself, no sooner than its time after it was last kept, and within some seconds more. In a file that is
///   by the machine's wall clock.
pub trait Store: fmt::Debug + Send + Sync {
    /// The store as it was configured, without secrets: for errors and the log.
    fn name(&self) -> &str;

    /// What it has now, and who lives.
    fn read(&self) -> BoxFuture<'_, Result<Stored, StoreError>>;

    /// Writes a document in place of the one with this revision, if that one is still there.
    fn compare_and_swap<'a>(
        &'a self,
        expected: &'a Revision,
        document: &'a Document,
    ) -> BoxFuture<'a, Result<Swapped, StoreError>>;

    /// Waits until it has a document of another revision than this one, and reads. It may also come back without one.
    fn changed<'a>(&'a self, since: &'a Revision) -> BoxFuture<'a, Result<Stored, StoreError>>;

    /// Says that this incarnation of this id lives, for this long from now on; zero: that it does not any more.
    fn keep_alive<'a>(&'a self, life: &'a Life, ttl: Duration) -> BoxFuture<'a, Result<(), StoreError>>;
}

/// What a store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Of the document, or of there being none.
    pub revision: Revision,
    /// `None`: nothing was written yet.
    pub document: Option<Document>,
    /// Who lives, by id and incarnation.
    pub lives: Vec<Life>,
}

/// Which content of a store is meant: another content has another one. Only the store reads it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Revision(pub(super) String);

/// What a swap came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swapped {
    /// The document is written, and has this revision.
    Written(Revision),
    /// Another document is there than was expected, and is not this one.
    Outdone,
}

/// An incarnation of an id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Life {
    /// The id.
    pub id: String,
    /// Which life of it.
    #[serde(with = "hexadecimal")]
    pub incarnation: u64,
}

/// What went wrong at a store. Nothing is known to have changed; a swap may have been done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It does not answer, or refuses to.
    #[error("the membership store {store} cannot be used: {problem}")]
    Unavailable {
        /// Its name.
        store: String,
        /// What is wrong.
        problem: String,
    },
    /// It has no room, or may not be written to.
    #[error("the membership store {store} cannot be written: {problem}")]
    NotWritten {
        /// Its name.
        store: String,
        /// What is wrong.
        problem: String,
    },
    /// What lies there is no document.
    #[error("what lies in the membership store {store} cannot be used: {source}")]
    BadDocument {
        /// Its name.
        store: String,
        /// What it is instead.
        #[source]
        source: BadDocument,
    },
}

/// The document that lies in the store of this name.
pub(super) fn read_document(store: &str, json: &[u8]) -> Result<Document, StoreError> {
    Document::from_json(json).map_err(|source| StoreError::BadDocument { store: store.to_owned(), source })
}
