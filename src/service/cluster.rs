//! The Cluster service, so far as clients ask for it: the ring, and its changes. Generated plumbing, hand-written answers.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status, Streaming};

use super::data::Ending;
use crate::cluster::{AdoptedRing, CurrentRing};
use crate::membership::MemberState;
use crate::proto::v1::{self, cluster_server::Cluster};
use crate::request::CallError;

/// The Cluster service of a node.
#[derive(Clone)]
pub(crate) struct ClusterService {
    /// Gives the node's ring, once its listeners are bound, whose addresses may be its id.
    ring: Arc<dyn Fn() -> CurrentRing + Send + Sync>,
    watchers: Arc<Watchers>,
    /// Gives a future that ends when the listener is to close.
    ending: Arc<dyn Fn() -> Ending + Send + Sync>,
}

/// How many streams of the ring are open. They are few beside those of entries: one for each client.
#[derive(Debug)]
struct Watchers {
    open: AtomicUsize,
    max: usize,
}

/// The most streams of the ring at a time.
const WATCHERS_MAX: usize = 10_000;

impl ClusterService {
    /// Tells of the ring that `ring` gives, until `ending` gives a future that has ended.
    pub(crate) fn new(
        ring: impl Fn() -> CurrentRing + Send + Sync + 'static,
        ending: impl Fn() -> Ending + Send + Sync + 'static,
    ) -> Self {
        Self { ring: Arc::new(ring), watchers: Watchers::up_to(WATCHERS_MAX), ending: Arc::new(ending) }
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    type WatchRingStream = Pin<Box<dyn Stream<Item = Result<v1::WatchRingResponse, Status>> + Send>>;
    type ForwardStream = Pin<Box<dyn Stream<Item = Result<v1::ForwardResponse, Status>> + Send>>;

    async fn get_ring(
        &self,
        _: Request<v1::GetRingRequest>,
    ) -> Result<Response<v1::GetRingResponse>, Status> {
        Ok(Response::new(ring_response(&(self.ring)().load())))
    }

    async fn watch_ring(
        &self,
        _: Request<v1::WatchRingRequest>,
    ) -> Result<Response<Self::WatchRingStream>, Status> {
        let watcher = Watchers::enter(&self.watchers)?;
        let rings = WatchStream::new((self.ring)().subscribe()).map(move |ring| {
            // One more watches for as long as the stream is there.
            let _counted = &watcher;
            Ok(ring_response(&ring).into())
        });
        let ended = futures_util::stream::once(async { Err(CallError::stream_ends().into()) });
        Ok(Response::new(Box::pin(rings.take_until((self.ending)()).chain(ended))))
    }

    /// Not in the table of verbs as one that is served: it does not come here.
    async fn forward(
        &self,
        _: Request<Streaming<v1::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        Err(CallError::NotServed { what: "Cluster.Forward".to_owned() }.into())
    }
}

/// A stream that is counted.
#[derive(Debug)]
struct Watcher(Arc<Watchers>);

impl Watchers {
    fn up_to(max: usize) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), max })
    }

    fn enter(watchers: &Arc<Self>) -> Result<Watcher, CallError> {
        let one_more = |open: usize| (open < watchers.max).then_some(open + 1);
        match watchers.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Watcher(Arc::clone(watchers))),
            Err(_) => Err(CallError::TooManyRingWatchers { max: watchers.max }),
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn ring_response(adopted: &AdoptedRing) -> v1::GetRingResponse {
    let (ring_hash_min_size, ring_hash_max_size) = adopted.ring.stock_sizes().unwrap_or_default();
    let members = adopted.members.iter().map(|member| v1::Member {
        node_id: member.id.clone(),
        addresses: member.addresses.clone(),
        incarnation: member.incarnation,
        state: match member.state {
            MemberState::Serving => v1::MemberState::Serving,
            MemberState::Restarting { .. } => v1::MemberState::Restarting,
        }
        .into(),
        weight: member.weight,
        zone: member.zone.clone(),
    });
    v1::GetRingResponse {
        epoch: adopted.epoch,
        digest: Bytes::copy_from_slice(adopted.ring.digest().as_bytes()),
        points_per_weight: adopted.ring.points_per_weight(),
        members: members.collect(),
        ring_hash_min_size,
        ring_hash_max_size,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_watch_than_are_held_and_one_that_goes_makes_room() {
        let watchers = Watchers::up_to(2);
        let two = [(); 2].map(|()| Watchers::enter(&watchers).unwrap());
        let error = Watchers::enter(&watchers).unwrap_err().to_string();
        assert!(error.contains("2 streams of its ring"), "{error}");
        drop(two);
        assert!(Watchers::enter(&watchers).is_ok());
    }
}
