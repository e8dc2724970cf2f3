//! A network between a client and a node that a test can break: what comes is passed on, held back, or cut off.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// Bytes pass both ways.
    Passes,
    /// Nothing that the node sends comes through, and nothing tells of it.
    DropsAnswers,
    /// Nothing comes through either way, and nothing tells of it; connections can be made.
    BlackHole,
}

/// The way to a node.
pub(crate) struct Proxy {
    pub(crate) at: SocketAddr,
    network: Arc<watch::Sender<Network>>,
    /// The connection of this number, counted from 0, has no answers passed on.
    mute: Arc<watch::Sender<Option<usize>>>,
    cuts: Arc<watch::Sender<u64>>,
}

impl Proxy {
    /// A way to the node at this address, `HOST:PORT`.
    pub(crate) async fn before(node: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let network = Arc::new(watch::Sender::new(Network::Passes));
        let cuts = Arc::new(watch::Sender::new(0));
        let mute = Arc::new(watch::Sender::new(None));
        let (node, states, ends, mutes) = (node.to_owned(), network.clone(), cuts.clone(), mute.clone());
        tokio::spawn(async move {
            for number in 0.. {
                let Ok((client, _)) = listener.accept().await else { return };
                let mutes = mutes.subscribe();
                let (node, states, mut cuts) = (node.clone(), states.subscribe(), ends.subscribe());
                tokio::spawn(async move {
                    tokio::select! {
                        () = pass(client, &node, states, (number, mutes)) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { at, network, mute, cuts }
    }

    pub(crate) fn url(&self) -> String {
        format!("tcp://{}", self.at)
    }

    pub(crate) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// Passes no answers on to the connection of this number, counted from 0; None: to all.
    pub(crate) fn mute(&self, connection: Option<usize>) {
        self.mute.send_replace(connection);
    }

    /// Closes the connections that there are; what they hold back is lost.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }
}

async fn pass(
    client: TcpStream,
    node: &str,
    mut states: watch::Receiver<Network>,
    (number, mute): (usize, watch::Receiver<Option<usize>>),
) {
    // A black hole takes connections: so does the kernel of a machine whose processes hang.
    let Ok(_) = states.wait_for(|state| *state != Network::BlackHole).await else { return };
    let Ok(server) = TcpStream::connect(node).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = copy(from_client, to_server, states.clone(), &[Network::BlackHole], None) => {}
        () = copy(from_server, to_client, states, &[Network::BlackHole, Network::DropsAnswers], Some((number, mute))) => {}
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut states: watch::Receiver<Network>,
    held_in: &[Network],
    mute: Option<(usize, watch::Receiver<Option<usize>>)>,
) {
    let mut mute = mute;
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if states.wait_for(|state| !held_in.contains(state)).await.is_err() {
            return;
        }
        if let Some((number, mute)) = &mut mute
            && mute.wait_for(|muted| *muted != Some(*number)).await.is_err()
        {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
