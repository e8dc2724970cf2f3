//! Nodes and clients in a simulation of turmoil's, which delays and loses what they say to each other by a seed, and makes up
//! their time.
//!
//! A partition or a loss leaves a connection wedged for good, as turmoil's TCP sends nothing again: its end finds out by
//! keepalive.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use larder::client::{ClientBuilder, NodeUrl};
use larder::clock::SimulatedTime;
use larder::endpoint::network::{Connection, Listener, Network, SharedNetwork};
use larder::endpoint::{Endpoint, PeerInfo};
use larder::node::{RunningNode, Simulation, Stop};
use turmoil::net::{TcpListener, TcpStream};

use super::node::loaded;

/// Turmoil's network.
#[derive(Debug)]
struct Turmoil;

impl Network for Turmoil {
    fn bind(&self, address: Endpoint) -> BoxFuture<'static, io::Result<Listener>> {
        Box::pin(async move {
            let at = address.host_port().unwrap();
            let listener = TcpListener::bind((at.host.as_str(), at.port)).await?;
            let at = listener.local_addr()?;
            let accepted = stream::unfold(listener, |listener| async move {
                let accepted = listener.accept().await.map(|(stream, peer)| {
                    let connection: Connection = Box::new(stream);
                    (connection, PeerInfo::from(peer))
                });
                Some((accepted, listener))
            });
            Ok(Listener { address: Endpoint::Tcp(at.into()), incoming: accepted.boxed() })
        })
    }

    fn connect(&self, to: Endpoint) -> BoxFuture<'static, io::Result<Connection>> {
        Box::pin(async move {
            let at = to.host_port().unwrap();
            let stream = TcpStream::connect((at.host.as_str(), at.port)).await?;
            Ok(Box::new(stream) as Connection)
        })
    }
}

fn network() -> SharedNetwork {
    Arc::new(Turmoil)
}

/// The ports of a node in a simulation.
pub(crate) const DATA: u16 = 7400;
pub(crate) const ADMIN: u16 = 7401;
pub(crate) const HEALTH: u16 = 7402;
pub(crate) const HTTP: u16 = 7403;

/// What the wall clocks of a simulation show when it begins: 2026-01-01 00:00:00 UTC.
const BEGINS_UNIX_S: u64 = 1_767_225_600;

/// A simulation of three nodes, `one`, `two` and `three`, whose messages take from 1 ms to 20 ms.
pub(crate) fn three_nodes(seed: u64) -> turmoil::Sim<'static> {
    let mut simulation = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(Duration::from_millis(2))
        .simulation_duration(Duration::from_secs(600))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .build();
    for name in ["one", "two", "three"] {
        simulation.host(name, move || async move {
            assert_eq!(start(name).await.stopped().await, Stop::Drained);
            // Turmoil's host would answer nothing more, not even that nobody listens.
            std::future::pending().await
        });
    }
    simulation
}

/// Starts a node on the host of the simulation that this is called on.
async fn start(name: &str) -> RunningNode {
    let [data, admin, health] = [DATA, ADMIN, HEALTH].map(|port| format!("tcp://0.0.0.0:{port}"));
    let http = format!("0.0.0.0:{HTTP}");
    let addresses = ["--listen", &data, "--admin", &admin, "--health", &health, "--http", &http];
    let loaded = loaded(&[&addresses[..], &["--insecure", "--node-id", name]].concat());
    let unix = Duration::from_secs(BEGINS_UNIX_S) + turmoil::sim_elapsed().unwrap();
    let time = SimulatedTime { unix_us: unix.as_micros() as u64, rate: 1.0 };
    RunningNode::start_simulated(loaded, Simulation { network: network(), time }).await.unwrap()
}

/// A client of a node's listener, on the host that this is called on, whose calls take 2 s at most.
pub(crate) fn client(name: &str, port: u16) -> ClientBuilder {
    let url: NodeUrl = format!("tcp://{name}:{port}").parse().unwrap();
    ClientBuilder::new([url]).short_lived().network(network()).timeout(Duration::from_secs(2))
}

/// GET over plain HTTP/1.1: the head and the body.
pub(crate) async fn http_get(name: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = TcpStream::connect((name, HTTP)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
