//! The network of a simulation: what it says of an address, and the connections that it gives.

use std::io;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::tcp::refusal;
use super::{Bound, Incoming, ListenError, Listener};
use crate::endpoint::network::{Connection, SharedNetwork};
use crate::endpoint::{Endpoint, PeerInfo};

pub(super) struct SimulatedIncoming(BoxStream<'static, io::Result<(Connection, PeerInfo)>>);

impl std::fmt::Debug for SimulatedIncoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimulatedIncoming")
    }
}

impl SimulatedIncoming {
    pub(super) async fn accept(&mut self) -> io::Result<(Connection, PeerInfo)> {
        match self.0.next().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }
}

pub(super) async fn bind(network: &SharedNetwork, address: &Endpoint) -> Result<Bound, ListenError> {
    let bound = network.bind(address.clone()).await.map_err(|error| refusal(address.clone(), error))?;
    let incoming = Incoming(Listener::Simulated(SimulatedIncoming(bound.incoming)));
    Ok(Bound { address: bound.address, incoming })
}
