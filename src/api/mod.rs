//! The wire: generated types, and the only conversions between them and the domain's.

#[cfg(feature = "server")]
pub(crate) mod blob;
#[cfg(feature = "server")]
pub(crate) mod convert;
#[cfg(feature = "server")]
pub(crate) mod details;
#[cfg(feature = "server")]
pub(crate) mod encode;
#[cfg(feature = "server")]
pub(crate) mod namespace;
#[cfg(feature = "server")]
pub(crate) mod settings;
#[cfg(feature = "server")]
mod status;
#[cfg(feature = "server")]
pub(crate) mod wire;

#[cfg(feature = "server")]
pub use details::{DETAILS_BYTES_MAX, MESSAGE_BYTES_MAX};
pub use larder::v1;
#[cfg(feature = "server")]
pub(crate) use status::STATUS_BYTES_MIN;
#[cfg(feature = "server")]
pub use status::{CallError, DOMAIN};
#[cfg(feature = "server")]
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

/// Generated packages, nested as protobuf names them.
pub mod larder {
    /// The generated `larder.v1` package: messages, clients and servers.
    #[cfg_attr(
        any(feature = "client", feature = "server"),
        expect(clippy::allow_attributes_without_reason, reason = "tonic's generator writes them")
    )]
    #[cfg_attr(
        feature = "server",
        expect(clippy::allow_attributes, reason = "tonic's generator writes them")
    )]
    pub mod v1 {
        tonic::include_proto!("larder.v1");
    }
}

/// Generated packages of google.
pub mod google {
    /// The generated `google.rpc` package: Status, for errors of single items.
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}

/// The compiled descriptors of proto/, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/larder.v1.bin"));
