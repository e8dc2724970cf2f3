//! What answers a node's listeners: its services, each within its layers.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tonic::service::Routes;
use tower::ServiceBuilder;

use super::context::NodeContext;
use crate::proto::FILE_DESCRIPTOR_SET;
use crate::proto::v1::admin_server::AdminServer;
use crate::proto::v1::cluster_server::ClusterServer;
use crate::server::stack::{CallTimeout, DeadlineLayer, InFlight, MetricsLayer, RepairLayer};
use crate::server::{ConnectionInfo, ConnectionService, Mount, NodeState, PerConnection, Services, http};
use crate::service::{AdminService, ClusterService, DataService, GeneratedService};
use crate::telemetry::trace::TraceLayer;
use crate::telemetry::{CallMetrics, CallTracer, Metrics, SlowCalls};

/// Admin calls that may wait at once.
const ADMIN_IN_FLIGHT_MAX: usize = 256;
/// Probes whose requests are not whole, at once; and for how long they may not be.
const PROBES_IN_FLIGHT_MAX: usize = 256;
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest request to Admin, which takes names and settings. tonic makes room for what a request says it has
/// before any of it is here, and a stream may stay as long as its connection.
const ADMIN_BYTES_MAX: usize = 64 << 10;
/// The longest request for the ring, which says nothing.
const CLUSTER_BYTES_MAX: usize = 4 << 10;
/// The longest request to reflection, which takes names.
const REFLECTION_BYTES_MAX: usize = 4 << 10;

/// A future that ends when a listener does.
type Ending = Pin<Box<dyn Future<Output = ()> + Send>>;

impl NodeContext {
    /// The services of all listeners; calls of data and Admin are counted together, and traced by `tracer`.
    pub(super) fn services(
        self: &Arc<Self>,
        tracer: &CallTracer,
    ) -> Services<
        impl ConnectionService + use<>,
        impl ConnectionService + use<>,
        impl ConnectionService + use<>,
    > {
        let calls = Arc::new(CallMetrics::new());
        Services {
            data: self.data_service(&calls, tracer),
            admin: self.admin_service(&calls, tracer),
            health: self.health_service(),
            http: self.http_router(calls),
        }
    }

    fn data_service(
        self: &Arc<Self>,
        calls: &Arc<CallMetrics>,
        tracer: &CallTracer,
    ) -> impl ConnectionService + use<> {
        let health = self.lifecycle.health().clone();
        let until = health.clone();
        let ending = move || -> Ending { Box::pin(until.ending(Mount::Data)) };
        let context = Arc::clone(self);
        let cluster = ClusterServer::new(ClusterService::new(move || context.ring(), ending.clone()));
        let cluster = cluster.max_decoding_message_size(CLUSTER_BYTES_MAX);
        let others = Routes::new(health.service(Mount::Data)).add_service(cluster);
        let others = GeneratedService::new(with_reflection(others));
        let (context, calls, tracer) = (Arc::clone(self), Arc::clone(calls), tracer.clone());
        PerConnection(move |connection: &ConnectionInfo| {
            let slow = SlowCalls::new(Arc::clone(&context.slow_ops), &connection.peer.to_string());
            let bounds = &context.bounds;
            let service = DataService::new(Arc::clone(&context.cache), ending.clone(), others.clone())
                .with_unread_time(connection.unread.clone())
                .with_budgets(bounds.response_backlog.clone(), bounds.requests.clone())
                .with_tracer(tracer.clone())
                .with_watches(bounds.watches.clone());
            ServiceBuilder::new()
                .layer(TraceLayer::new(tracer.clone()))
                .layer(MetricsLayer::new(Arc::clone(&calls), slow.clone()))
                .layer(RepairLayer)
                .layer(DeadlineLayer::new(bounds.timeout.clone()))
                .layer(bounds.in_flight.clone())
                .service(service.with_slow_calls(slow))
        })
    }

    fn admin_service(
        self: &Arc<Self>,
        calls: &Arc<CallMetrics>,
        tracer: &CallTracer,
    ) -> impl ConnectionService + use<> {
        let admin = AdminService::new(Arc::clone(&self.cache), Arc::<Self>::clone(self));
        let admin = AdminServer::new(admin).max_decoding_message_size(ADMIN_BYTES_MAX);
        let admin = Routes::new(admin).add_service(self.lifecycle.health().service(Mount::Control));
        let admin = GeneratedService::new(with_reflection(admin));
        let (slow_ops, calls, tracer) = (Arc::clone(&self.slow_ops), Arc::clone(calls), tracer.clone());
        let in_flight = InFlight::new(ADMIN_IN_FLIGHT_MAX);
        PerConnection(move |connection: &ConnectionInfo| {
            let slow = SlowCalls::new(Arc::clone(&slow_ops), &connection.peer.to_string());
            ServiceBuilder::new()
                .layer(TraceLayer::new(tracer.clone()))
                .layer(MetricsLayer::new(Arc::clone(&calls), slow))
                .layer(RepairLayer)
                // Spawn and Resize take as long as they take: only a caller's own deadline counts.
                .layer(DeadlineLayer::new(CallTimeout::new(None)))
                .layer(in_flight.clone())
                .service(admin.clone())
        })
    }

    /// Neither counted nor traced: probes are many and tell nothing of the load.
    fn health_service(&self) -> impl ConnectionService + use<> {
        let routes = Routes::new(self.lifecycle.health().service(Mount::Control));
        let service = GeneratedService::new(with_reflection(routes));
        let in_flight = InFlight::new(PROBES_IN_FLIGHT_MAX);
        PerConnection(move |_: &ConnectionInfo| {
            ServiceBuilder::new()
                .layer(RepairLayer)
                .layer(DeadlineLayer::new(CallTimeout::new(Some(PROBE_TIMEOUT))))
                .layer(in_flight.clone())
                .service(service.clone())
        })
    }

    fn http_router(self: &Arc<Self>, calls: Arc<CallMetrics>) -> Router {
        let (context, lifecycle) = (Arc::clone(self), self.lifecycle.clone());
        let metrics = Metrics::new(calls, move || context.figures());
        let ready = move || match lifecycle.state() {
            NodeState::Serving => http::Readiness::Ready,
            state => http::Readiness::NotReady(state.as_str()),
        };
        http::router(ready, move |format| metrics.text(format))
    }
}

/// Server reflection, both versions, over the whole contract.
fn with_reflection(routes: Routes) -> Routes {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that tools show error details in words.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = builder().build_v1().expect("the descriptors were compiled with this program");
    let v1alpha = builder().build_v1alpha().expect("the descriptors were compiled with this program");
    routes
        .add_service(v1.max_decoding_message_size(REFLECTION_BYTES_MAX))
        .add_service(v1alpha.max_decoding_message_size(REFLECTION_BYTES_MAX))
}
