//! The only conversions between the wire's types and the domain's.

pub(crate) mod blob;
pub(crate) mod convert;
pub(crate) mod encode;
pub(crate) mod namespace;
mod status;
pub(crate) mod wire;

pub use status::CallError;
pub use wire::Malformed;

/// What fuzz/ drives and nobody else can reach.
#[cfg(fuzzing)]
pub mod fuzz {
    /// Reads `bytes` as each hot request, by hand and by the generated types.
    ///
    /// # Panics
    /// Where the two differ.
    pub fn requests_agree(bytes: &[u8]) {
        super::wire::agree::agree(bytes);
    }
}
