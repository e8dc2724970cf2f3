//! Health as `grpc.health.v1` has it: what the node says of itself, by service name.
//!
//! | service | SERVING means |
//! |---|---|
//! | [`ALIVE`] | the process runs: from standby to the end of draining |
//! | [`ADMIN`] | the same, of the Admin service |
//! | [`READY`] | keys are served: in [`NodeState::Serving`] alone |
//! | [`PERSISTENCE`] | set by its owner, and unknown where nothing is kept on disk |
//!
//! One table of statuses is shared by every listener, in one watched value, so that a Watch sees a service that
//! is registered after it began. It is not tonic-health's own service, which refuses to watch an unknown one;
//! only its generated types are used. Watch streams end with their listener ([`Mount`]), so that none holds a
//! drain.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{self, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::lifecycle::NodeState;

/// The name under which a node says that its process runs: the empty one.
pub const ALIVE: &str = "";
/// The name under which a node says that it serves keys.
pub const READY: &str = "larder.v1.Cache";
/// The name of the Admin service.
pub const ADMIN: &str = "larder.v1.Admin";
/// The name under which the journal and its disk are spoken of.
pub const PERSISTENCE: &str = "persistence";

/// Which listener a health service is mounted on: the order in which their Watch streams end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mount {
    /// A data listener: streams end when it does.
    Data,
    /// The admin or the health listener: streams end with the node.
    Control,
}

/// The statuses of a node. Clones are the same.
#[derive(Debug, Clone)]
pub struct Health {
    table: watch::Sender<Table>,
    /// Watch streams on the listeners of [`Mount::Control`].
    watches: Arc<Semaphore>,
}

impl Health {
    /// A node in standby: alive and not ready.
    #[must_use]
    pub fn new() -> Self {
        let table = watch::Sender::new(Table { statuses: BTreeMap::new(), ended: None });
        let health = Self { table, watches: Arc::new(Semaphore::new(WATCHES_MAX)) };
        health.follow(NodeState::Standby);
        health
    }

    /// The tonic service to mount on a listener.
    #[must_use]
    pub fn service(&self, mount: Mount) -> HealthServer<HealthService> {
        let watches = (mount == Mount::Control).then(|| Arc::clone(&self.watches));
        HealthServer::new(HealthService { table: self.table.subscribe(), mount, watches })
            .max_decoding_message_size(REQUEST_BYTES_MAX)
    }

    /// Sets the status of a service, and makes it known if it was not.
    pub fn set(&self, service: &'static str, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.table.send_if_modified(|table| table.statuses.insert(service, status) != Some(status));
    }

    /// Whether a service says SERVING.
    #[must_use]
    pub fn is_serving(&self, service: &str) -> bool {
        self.table.borrow().status(service) == Some(ServingStatus::Serving)
    }

    /// Every known service and whether it says SERVING, by name.
    #[must_use]
    pub fn statuses(&self) -> Vec<(&'static str, bool)> {
        let table = self.table.borrow();
        table.statuses.iter().map(|(name, status)| (*name, *status == ServingStatus::Serving)).collect()
    }

    /// Sets what follows from the node's state.
    pub(crate) fn follow(&self, state: NodeState) {
        self.set(ALIVE, state != NodeState::Stopped);
        self.set(ADMIN, state != NodeState::Stopped);
        self.set(READY, state == NodeState::Serving);
    }

    /// Ends the Watch streams of this mount, and of those before it, when they have told what they know.
    pub(crate) fn end_watches(&self, mount: Mount) {
        self.table.send_modify(|table| table.ended = table.ended.max(Some(mount)));
    }

    /// Waits until the Watch streams of this mount are to end, and with them every other stream that would live
    /// as long as its client likes.
    pub(crate) fn ending(&self, mount: Mount) -> impl Future<Output = ()> + Send + 'static {
        let mut table = self.table.subscribe();
        async move {
            // Refused when the node is gone, which is an end too.
            let _ = table.wait_for(|table| table.ended >= Some(mount)).await;
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug)]
struct Table {
    statuses: BTreeMap<&'static str, ServingStatus>,
    ended: Option<Mount>,
}

impl Table {
    fn status(&self, service: &str) -> Option<ServingStatus> {
        self.statuses.get(service).copied()
    }
}

/// `grpc.health.v1.Health` over a node's [`Health`].
#[derive(Debug)]
pub struct HealthService {
    table: watch::Receiver<Table>,
    mount: Mount,
    /// Room for Watch streams, where that is bounded by itself: on a data listener it is what a call takes.
    watches: Option<Arc<Semaphore>>,
}

#[tonic::async_trait]
impl health_server::Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        let Some(status) = self.table.borrow().status(&service) else {
            let known: Vec<String> =
                self.table.borrow().statuses.keys().map(|name| format!("\"{name}\"")).collect();
            return Err(Status::not_found(format!("no such service; this node knows {}", known.join(", "))));
        };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    type WatchStream = WatchStream;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<WatchStream>, Status> {
        let room = self.watches.as_ref().map(|watches| Arc::clone(watches).try_acquire_owned()).transpose();
        let Ok(room) = room else {
            let full =
                format!("the node has {WATCHES_MAX} Watch streams here already; one for a client is enough");
            return Err(Status::resource_exhausted(full));
        };
        let watched = Watched {
            _room: room,
            service: request.into_inner().service,
            table: self.table.clone(),
            mount: self.mount,
            told: None,
        };
        Ok(Response::new(Box::pin(stream::unfold(watched, Watched::next))))
    }
}

/// The changes of one service's status.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

struct Watched {
    service: String,
    table: watch::Receiver<Table>,
    mount: Mount,
    told: Option<ServingStatus>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Watched {
    /// The next status that differs from the last one told; the end of the stream when the listener ends.
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        let (status, ended) = {
            let service = &self.service;
            let (mount, told) = (self.mount, self.told);
            let worth_telling = |table: &Table| {
                table.ended >= Some(mount) || Some(table.status(service).unwrap_or(UNKNOWN)) != told
            };
            let table = self.table.wait_for(|table| worth_telling(table)).await.ok()?;
            (table.status(&self.service).unwrap_or(UNKNOWN), table.ended >= Some(self.mount))
        };
        if Some(status) == self.told {
            debug_assert!(ended, "woken for nothing");
            return None;
        }
        self.told = Some(status);
        Some((Ok(HealthCheckResponse { status: status.into() }), self))
    }
}

/// What a Watch answers for a service that nobody has registered (yet).
const UNKNOWN: ServingStatus = ServingStatus::ServiceUnknown;

/// Watch streams at once on the admin and health listeners together: each takes about 10 KB.
const WATCHES_MAX: usize = 1_024;

/// A request is a service's name.
const REQUEST_BYTES_MAX: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use tonic::Code;
    use tonic_health::pb::health_server::Health as _;

    use super::*;

    fn service(health: &Health, mount: Mount) -> HealthService {
        let watches = (mount == Mount::Control).then(|| Arc::clone(&health.watches));
        HealthService { table: health.table.subscribe(), mount, watches }
    }

    fn ask(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest { service: service.to_owned() })
    }

    async fn next(stream: &mut WatchStream) -> ServingStatus {
        stream.next().await.unwrap().unwrap().status()
    }

    #[tokio::test]
    async fn readiness_follows_the_state_and_aliveness_lasts_to_the_end_of_draining() {
        let health = Health::new();
        for (state, alive, ready) in [
            (NodeState::Standby, true, false),
            (NodeState::Recovering, true, false),
            (NodeState::Serving, true, true),
            (NodeState::Draining, true, false),
            (NodeState::Stopped, false, false),
        ] {
            health.follow(state);
            assert_eq!((health.is_serving(ALIVE), health.is_serving(READY)), (alive, ready), "{state}");
        }
    }

    #[tokio::test]
    async fn an_unknown_service_is_not_found_by_check_and_awaited_by_watch() {
        let health = Health::new();
        let service = service(&health, Mount::Control);
        let refused = service.check(ask(PERSISTENCE)).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        assert!(refused.message().contains("larder.v1.Cache"), "{}", refused.message());

        let mut watch = service.watch(ask(PERSISTENCE)).await.unwrap().into_inner();
        assert_eq!(next(&mut watch).await, ServingStatus::ServiceUnknown);
        health.set(PERSISTENCE, false);
        assert_eq!(next(&mut watch).await, ServingStatus::NotServing);
        health.set(PERSISTENCE, true);
        assert_eq!(next(&mut watch).await, ServingStatus::Serving);
    }

    #[tokio::test]
    async fn a_watch_tells_its_last_status_and_then_ends_with_its_mount() {
        let health = Health::new();
        health.follow(NodeState::Serving);
        let mut data = service(&health, Mount::Data).watch(ask(READY)).await.unwrap().into_inner();
        let mut control = service(&health, Mount::Control).watch(ask(READY)).await.unwrap().into_inner();
        assert_eq!(next(&mut data).await, ServingStatus::Serving);
        assert_eq!(next(&mut control).await, ServingStatus::Serving);

        health.follow(NodeState::Draining);
        health.end_watches(Mount::Data);
        assert_eq!(next(&mut data).await, ServingStatus::NotServing);
        assert!(data.next().await.is_none());
        assert_eq!(next(&mut control).await, ServingStatus::NotServing);
        health.end_watches(Mount::Control);
        assert!(control.next().await.is_none());
    }

    #[tokio::test]
    async fn no_more_watch_than_there_is_room_for_and_one_that_ends_makes_room() {
        let service = service(&Health::new(), Mount::Control);
        let mut watches = Vec::new();
        for _ in 0..WATCHES_MAX {
            watches.push(service.watch(ask(READY)).await.unwrap());
        }
        let refused = service.watch(ask(READY)).await.err().unwrap();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        watches.pop();
        assert!(service.watch(ask(READY)).await.is_ok());
    }
}
