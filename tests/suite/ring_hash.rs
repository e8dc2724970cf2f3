//! Stock gRPC clients with the ring_hash policy land on the owner that the ring names.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use larder::proto::v1::*;
use larder::ring::{Position, Ring, RingMember};

use super::python::{generated, python_with_grpc};
use crate::support::node::*;
use crate::support::outside::{said, skip};

const HERE: &str = env!("CARGO_MANIFEST_DIR");
const KEYS: usize = 600;
const POINTS: u32 = 400;

/// Nodes that know nothing of one another, and the ring of their addresses.
struct Nodes {
    nodes: Vec<Node>,
    addresses: Vec<String>,
    ring: Ring,
}

impl Nodes {
    async fn start() -> Self {
        let nodes = futures_util::future::join_all((0..3).map(|_| Node::start())).await;
        let addresses: Vec<String> = nodes.iter().map(Node::data).collect();
        let members = addresses.iter().map(|id| RingMember { id: id.clone(), weight: 1 });
        let ring = Ring::new(members, POINTS).unwrap();
        let sizes = Some((POINTS * 3, 4_096));
        assert_eq!(ring.config().stock_sizes(), sizes, "what the programs set their policies to");
        Self { nodes, addresses, ring }
    }

    /// That each node has the keys that it owns, and no other.
    async fn have_what_they_own(&self) {
        for (node, address) in self.nodes.iter().zip(&self.addresses) {
            let mut cache = node.cache().await;
            let keys = (0..KEYS).map(|number| key(number).into()).collect();
            let request = BatchGetRequest { namespace: String::new(), keys };
            let results = cache.batch_get(request).await.unwrap().into_inner().results;
            for (number, result) in results.into_iter().enumerate() {
                let owner = self.ring.owner(Position::of("", key(number).as_bytes()));
                assert_eq!(found(result).is_ok(), owner.id == *address, "{} at {address}", key(number));
            }
        }
    }
}

fn key(number: usize) -> String {
    format!("key:{number}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcio_finds_the_owner_by_its_own_ring() {
    let python = match tokio::task::spawn_blocking(python_with_grpc).await.unwrap() {
        Ok(python) => python,
        Err(why) => return skip(&format!("ring_hash of grpcio: {why}")),
    };
    let (nodes, generated) = (Nodes::start().await, generated(&python));
    let mut command = Command::new(&python);
    command.arg(Path::new(HERE).join("tests/python/ring_hash.py")).arg(generated.path());
    command.arg(KEYS.to_string()).args(&nodes.addresses);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", said(&output));
    nodes.have_what_they_own().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_go_finds_the_owner_by_its_own_ring() {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ring_hash");
    let mut build = Command::new("go");
    build
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(Path::new(HERE).join("tests/go/ring_hash"));
    match tokio::task::spawn_blocking(move || build.output()).await.unwrap() {
        Ok(output) if output.status.success() => {}
        Ok(output) => return skip(&format!("ring_hash of grpc-go: {}", said(&output))),
        Err(error) => return skip(&format!("ring_hash of grpc-go: go: {error}")),
    }
    let nodes = Nodes::start().await;
    let mut command = Command::new(&program);
    command.args(&nodes.addresses).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let keys: String = (0..KEYS)
        .map(|number| {
            let digits = Position::digits("", key(number).as_bytes());
            format!("{} {}\n", key(number), std::str::from_utf8(&digits).unwrap())
        })
        .collect();
    let stored = move || {
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(keys.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = tokio::task::spawn_blocking(stored).await.unwrap();
    assert!(output.status.success(), "{}", said(&output));
    nodes.have_what_they_own().await;
}
