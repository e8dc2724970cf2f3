//! The contract of `proto/`: its generated types, its bytes for what is hot, and the names of gRPC's codes. It imports nothing of ours, so that every
//! room may speak it.

mod code;
#[cfg(any(feature = "client", feature = "server"))]
mod ring;
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) mod settings;
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) mod wire;

pub use code::code_name;
pub use larder::v1;
#[cfg(feature = "server")]
pub use settings::FieldValue;

/// The domain of every ErrorInfo.
pub const DOMAIN: &str = "larder.dev";

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

/// The part of etcd's API that a membership store needs.
#[cfg(feature = "server")]
#[expect(missing_docs, clippy::allow_attributes_without_reason, reason = "tonic's generator writes them")]
pub mod etcd {
    tonic::include_proto!("etcdserverpb");
}

/// The compiled descriptors of proto/, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/larder.v1.bin"));
