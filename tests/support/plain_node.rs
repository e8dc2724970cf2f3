//! A node whose Cache knows three keys and stores nothing: for what is before and around the cache.
//!
//! - `hang` is never answered, `wait` when [`Plain::release`] says so, any other key misses at once;
//! - Watch never says anything;
//! - GET /stuck keeps the thread of the HTTP listener until the node is dropped.

#![allow(dead_code, reason = "every test program uses its own part")]

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use larder::endpoint::Endpoint;
use larder::proto::v1::cache_client::CacheClient;
use larder::proto::v1::cache_server::{Cache, CacheServer};
use larder::proto::v1::*;
use larder::server::{
    ConnectionInfo, ConnectionService, Connections, Lifecycle, Mount, PerConnection, Server, ServerConfig,
    Services, StartError,
};
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// A node with all there is to see of it from inside.
pub(crate) struct PlainNode {
    pub(crate) node: Server,
    pub(crate) life: Lifecycle,
    pub(crate) connections: Connections,
    pub(crate) cache: Plain,
    /// Told when /stuck has the thread.
    pub(crate) stuck: mpsc::UnboundedReceiver<()>,
    /// Lets it go when this is dropped.
    _stick: std::sync::mpsc::Sender<()>,
}

fn per_connection(routes: Routes) -> impl ConnectionService {
    PerConnection(move |_: &ConnectionInfo| routes.clone())
}

impl PlainNode {
    /// A node on free ports that serves, but for what `change` changes.
    pub(crate) async fn start(change: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::try_start(Connections::default(), change).await.unwrap()
    }

    pub(crate) async fn try_start(
        connections: Connections,
        change: impl FnOnce(&mut ServerConfig),
    ) -> Result<Self, StartError> {
        let mut config = config();
        change(&mut config);
        let life = Lifecycle::new();
        let health = life.health();
        let cache = Plain::default();
        let (say_stuck, stuck) = mpsc::unbounded_channel();
        let (stick, let_go) = std::sync::mpsc::channel();
        let let_go = Arc::new(std::sync::Mutex::new(let_go));
        let get_stuck = async move || {
            let _ = say_stuck.send(());
            let _ = let_go.lock().map(|let_go| let_go.recv());
        };
        let services = Services {
            data: per_connection(
                Routes::new(CacheServer::new(cache.clone())).add_service(health.service(Mount::Data)),
            ),
            admin: per_connection(Routes::new(health.service(Mount::Control))),
            health: per_connection(Routes::new(health.service(Mount::Control))),
            http: axum::Router::new()
                .route("/livez", axum::routing::get(|| async { "ok" }))
                .route("/stuck", axum::routing::get(get_stuck)),
        };
        let node = Server::start(config, life.clone(), connections.clone(), services).await?;
        Ok(Self { node, life, connections, cache, stuck, _stick: stick })
    }

    /// The address of the only data listener.
    pub(crate) fn data(&self) -> &Endpoint {
        &self.node.data_addresses()[0]
    }

    /// A client with a connection of its own.
    pub(crate) async fn client(&self) -> CacheClient<Channel> {
        CacheClient::new(connect(self.data()).await)
    }
}

/// Everything on free ports of loopback.
pub(crate) fn config() -> ServerConfig {
    let free = || Endpoint::tcp("127.0.0.1", 0);
    ServerConfig {
        data: vec![free()],
        admin: free(),
        health: free(),
        http: free(),
        ..ServerConfig::default()
    }
}

pub(crate) async fn connect(address: &Endpoint) -> Channel {
    let uri = match address {
        Endpoint::Unix(_) => address.to_string(),
        _ => format!("http://{}", address.authority()),
    };
    tonic::transport::Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
}

pub(crate) async fn check(address: &Endpoint, service: &str) -> Result<ServingStatus, Status> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(connect(address).await).check(request).await?;
    Ok(answer.into_inner().status())
}

pub(crate) fn get(key: &'static str) -> GetRequest {
    GetRequest { key: key.into(), ..GetRequest::default() }
}

/// Fails instead of hanging; much longer than anything takes.
pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("within 30 s")
}

/// The cache of a [`PlainNode`].
#[derive(Clone)]
pub(crate) struct Plain {
    running: watch::Sender<Calls>,
    gate: Arc<Semaphore>,
}

impl Plain {
    /// Waits until `calls` calls of `hang`, `wait` and Watch run.
    pub(crate) async fn until_running(&self, calls: usize) {
        soon(self.running.subscribe().wait_for(|running| running.now == calls)).await.unwrap();
    }

    /// The most of them that ran at once.
    pub(crate) fn most_running(&self) -> usize {
        self.running.borrow().most
    }

    /// Lets `calls` calls of `wait` be answered.
    pub(crate) fn release(&self, calls: usize) {
        self.gate.add_permits(calls);
    }

    fn begin(&self) -> Running {
        self.running.send_modify(|calls| {
            calls.now += 1;
            calls.most = calls.most.max(calls.now);
        });
        Running(self.running.clone())
    }
}

impl Default for Plain {
    fn default() -> Self {
        Self { running: watch::Sender::default(), gate: Arc::new(Semaphore::new(0)) }
    }
}

#[derive(Default)]
struct Calls {
    now: usize,
    most: usize,
}

struct Running(watch::Sender<Calls>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|calls| calls.now -= 1);
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

macro_rules! plain_cache {
    ($($method:ident: $request:ty => $response:ty,)*) => {
        #[tonic::async_trait]
        impl Cache for Plain {
            type PipelineStream = Answers<PipelineResponse>;
            type GetBlobStream = Answers<GetBlobResponse>;
            type WatchStream = Answers<WatchResponse>;

            async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
                match &request.get_ref().key[..] {
                    b"hang" => {
                        let _running = self.begin();
                        std::future::pending::<()>().await;
                    }
                    b"wait" => {
                        let _running = self.begin();
                        self.gate.acquire().await.unwrap().forget();
                    }
                    _ => {}
                }
                let miss = get_response::Outcome::Miss(Miss::default());
                Ok(Response::new(GetResponse { outcome: Some(miss) }))
            }

            async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
                let running = self.begin();
                let silence = async move {
                    let _running = running;
                    std::future::pending().await
                };
                Ok(Response::new(Box::pin(stream::once(silence))))
            }

            $(async fn $method(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented("a plain node"))
            })*
        }
    };
}

plain_cache! {
    set: SetRequest => SetResponse,
    delete: DeleteRequest => DeleteResponse,
    increment: IncrementRequest => IncrementResponse,
    decrement: DecrementRequest => DecrementResponse,
    touch: TouchRequest => TouchResponse,
    batch_get: BatchGetRequest => BatchGetResponse,
    batch_set: BatchSetRequest => BatchSetResponse,
    batch_delete: BatchDeleteRequest => BatchDeleteResponse,
    pipeline: Streaming<PipelineRequest> => Self::PipelineStream,
    put_blob: Streaming<PutBlobRequest> => PutBlobResponse,
    get_blob: GetBlobRequest => Self::GetBlobStream,
    delete_blob: DeleteBlobRequest => DeleteBlobResponse,
    list_blobs: ListBlobsRequest => ListBlobsResponse,
    scan: ScanRequest => ScanResponse,
    invalidate: InvalidateRequest => InvalidateResponse,
}
