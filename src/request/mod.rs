//! What a request to the caches says, whichever way it comes: views of its fields, which are checked against the limits and made
//! operations of the engine; and what is wrong with one that fails.
//!
//! A node reads its requests from messages, the cache in one's own process makes the same views of arguments: so what is
//! allowed, and with which code and reason the rest is refused, is written once.

pub(crate) mod convert;
mod error;
pub(crate) mod page;
pub(crate) mod view;

pub use error::CallError;
