//! Code generation only: proto/ → tonic and prost types, with no protoc on the machine (protox compiles).

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message;

const PROTOS: [&str; 5] = [
    "google/rpc/status.proto",
    "larder/v1/types.proto",
    "larder/v1/cache.proto",
    "larder/v1/admin.proto",
    "larder/v1/cluster.proto",
];

/// What nodes speak with etcd.
const ETCD: &str = "etcd/etcd.proto";

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    for proto in PROTOS {
        println!("cargo:rerun-if-changed={}", Path::new("proto").join(proto).display());
    }
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    std::fs::write(out.join("larder.v1.bin"), descriptors.encode_to_vec())?;
    // The fields of Admin's Config, in its order, for the macro of src/proto/settings.rs.
    let mut messages = descriptors.file.iter().flat_map(|file| &file.message_type);
    let config = messages.find(|message| message.name() == "Config").ok_or("there is no message Config")?;
    let fields: Vec<&str> = config.field.iter().map(|field| field.name()).collect();
    std::fs::write(out.join("config_fields.rs"), format!("config_fields! {{ {} }}\n", fields.join(", ")))?;
    let feature = |name: &str| std::env::var_os(format!("CARGO_FEATURE_{name}")).is_some();
    tonic_prost_build::configure()
        .bytes(".")
        .build_client(feature("CLIENT"))
        .build_server(feature("SERVER"))
        .compile_fds(descriptors)?;
    if feature("SERVER") {
        println!("cargo:rerun-if-changed=proto/{ETCD}");
        // Apart from the contract, whose descriptors are served by reflection.
        let descriptors = protox::compile([ETCD], ["proto"])?;
        let generator = tonic_prost_build::configure().bytes(".").build_server(false).build_transport(false);
        generator.compile_fds(descriptors)?;
    }
    Ok(())
}
