//! A node that is only a map: enough of Cache, Admin and health to run the command line against.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use larder::proto::google::rpc;
use larder::proto::v1::admin_server::AdminServer;
use larder::proto::v1::cache_server::{Cache, CacheServer};
use larder::proto::v1::{self, get_response, pipeline_command::Op, pipeline_reply, set_response, set_result};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

/// The fake's state as what tonic serves.
pub(super) struct Service(pub(super) Arc<State>);

/// What the fake's wall clock always shows, 2026-01-01.
const NOW_UNIX_MS: u64 = 1_767_225_600_000;
/// The longest value that the fake takes.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 20;

/// A running fake. It ends with the test process.
pub(crate) struct FakeNode {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) entries: Mutex<HashMap<Vec<u8>, Entry>>,
    pub(super) counters: Mutex<Counters>,
}

#[derive(Clone)]
pub(super) struct Entry {
    value: bytes::Bytes,
    version: u64,
    ttl_ms: u64,
    flags: u32,
    content_type: String,
}

/// What was asked of the fake.
#[derive(Default, Clone, Debug)]
pub(crate) struct Counters {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) sets: u64,
    pub(crate) version: u64,
    pub(crate) policy: String,
}

impl FakeNode {
    /// Starts one on a port of its own, with a runtime of its own.
    pub(crate) fn start() -> Self {
        let state = Arc::new(State::default());
        let (tell, told) = std::sync::mpsc::channel();
        let serving = state.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let (reporter, health) = tonic_health::server::health_reporter();
                reporter.set_service_status("larder.v1.Cache", tonic_health::ServingStatus::Serving).await;
                reporter.set_service_status("asleep", tonic_health::ServingStatus::NotServing).await;
                tonic::transport::Server::builder()
                    .add_service(health)
                    .add_service(CacheServer::new(Service(serving.clone())))
                    .add_service(AdminServer::new(Service(serving)))
                    .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
                    .await
                    .unwrap();
            });
        });
        Self { address: told.recv().unwrap(), state }
    }

    /// Where it listens, for every service.
    pub(crate) fn url(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// What was asked of it so far.
    pub(crate) fn counters(&self) -> Counters {
        self.state.counters.lock().unwrap().clone()
    }

    /// How many entries it holds.
    pub(crate) fn entries(&self) -> usize {
        self.state.entries.lock().unwrap().len()
    }

    /// The value of a key.
    pub(crate) fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.state.entries.lock().unwrap().get(key).map(|entry| entry.value.to_vec())
    }
}

pub(super) fn refused(code: Code, message: &str, reason: &str, field: &str) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, "larder.v1", HashMap::new());
    if !field.is_empty() {
        details.add_bad_request_violation(field, message);
    }
    Status::with_error_details(code, message, details)
}

impl State {
    fn look_up(&self, request: &v1::GetRequest) -> Result<v1::GetResponse, Status> {
        check(&request.namespace, &request.key)?;
        let mut counters = self.counters.lock().unwrap();
        let outcome = match self.entries.lock().unwrap().get(request.key.as_ref()) {
            Some(entry) => {
                counters.hits += 1;
                get_response::Outcome::Hit(v1::Hit {
                    value: entry.value.clone(),
                    version: entry.version,
                    remaining_ttl_ms: entry.ttl_ms,
                    flags: entry.flags,
                    content_type: entry.content_type.clone(),
                    tier: v1::Tier::Memory.into(),
                    near_cache_ttl_ms: 0,
                    value_bytes: entry.value.len() as u64,
                })
            }
            None => {
                counters.misses += 1;
                let reason = v1::MissReason::Unknown.into();
                get_response::Outcome::Miss(v1::Miss { reason, lease_token: 0 })
            }
        };
        Ok(v1::GetResponse { outcome: Some(outcome) })
    }

    fn store(&self, request: v1::SetRequest) -> Result<v1::SetResponse, Status> {
        use v1::set_request::{Condition, Expiration};
        check(&request.namespace, &request.key)?;
        if request.value.len() > VALUE_BYTES_MAX {
            return Err(refused(Code::ResourceExhausted, "the value is too long", "VALUE_TOO_LARGE", ""));
        }
        let mut counters = self.counters.lock().unwrap();
        let mut entries = self.entries.lock().unwrap();
        let current = entries.get(request.key.as_ref());
        let current_version = current.map_or(0, |entry| entry.version);
        let met = match request.condition {
            None => true,
            Some(Condition::IfAbsent(_)) => current.is_none(),
            Some(Condition::IfPresent(_)) => current.is_some(),
            Some(Condition::IfVersion(version)) => current_version == version,
        };
        if !met {
            let outcome = v1::NotStored { current_version, ..v1::NotStored::default() };
            return Ok(v1::SetResponse { outcome: Some(set_response::Outcome::NotStored(outcome)) });
        }
        let ttl_ms = match request.expiration {
            Some(Expiration::ExpireAtUnixMs(at)) if at <= NOW_UNIX_MS => {
                entries.remove(request.key.as_ref());
                let outcome = v1::NotStored { expired: true, ..v1::NotStored::default() };
                return Ok(v1::SetResponse { outcome: Some(set_response::Outcome::NotStored(outcome)) });
            }
            Some(Expiration::TtlMs(ttl_ms)) => ttl_ms,
            Some(Expiration::KeepTtl(_)) => current.map_or(0, |entry| entry.ttl_ms),
            Some(Expiration::ExpireAtUnixMs(_)) | None => 0,
        };
        counters.version += 1;
        counters.sets += 1;
        let version = counters.version << 53 | 1;
        let entry = Entry {
            value: request.value,
            version,
            ttl_ms,
            flags: request.flags,
            content_type: request.content_type,
        };
        entries.insert(request.key.to_vec(), entry);
        Ok(v1::SetResponse { outcome: Some(set_response::Outcome::Stored(v1::Stored { version })) })
    }

    fn remove(&self, key: &[u8]) -> bool {
        self.entries.lock().unwrap().remove(key).is_some()
    }

    fn count(&self, key: &[u8], delta: i64, initial: i64) -> Result<(i64, u64), Status> {
        let current = self.entries.lock().unwrap().get(key).map(|entry| entry.value.clone());
        let current = match current {
            None => initial,
            Some(value) => {
                std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
                    refused(Code::FailedPrecondition, "the value is no integer", "NOT_A_COUNTER", "")
                })?
            }
        };
        let value: i64 = current
            .checked_add(delta)
            .ok_or_else(|| refused(Code::OutOfRange, "the sum leaves int64", "COUNTER_OVERFLOW", ""))?;
        let request = v1::SetRequest {
            key: key.to_vec().into(),
            value: value.to_string().into_bytes().into(),
            ..Default::default()
        };
        self.store(request)?;
        Ok((value, 1))
    }
}

fn check(namespace: &str, key: &[u8]) -> Result<(), Status> {
    if namespace == "nowhere" {
        return Err(refused(Code::NotFound, "there is no namespace \"nowhere\"", "NAMESPACE_NOT_FOUND", ""));
    }
    if key.is_empty() {
        return Err(refused(Code::InvalidArgument, "the key is empty", "KEY_EMPTY", "key"));
    }
    Ok(())
}

pub(super) type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(super) fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the fake does not serve this"))
}

#[tonic::async_trait]
impl Cache for Service {
    type PipelineStream = BoxStream<v1::PipelineResponse>;
    type GetBlobStream = BoxStream<v1::GetBlobResponse>;
    type WatchStream = BoxStream<v1::WatchResponse>;

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        if request.get_ref().key == "stuck" {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(self.0.look_up(request.get_ref())?))
    }

    async fn set(&self, request: Request<v1::SetRequest>) -> Result<Response<v1::SetResponse>, Status> {
        Ok(Response::new(self.0.store(request.into_inner())?))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let deleted = self.0.remove(&request.get_ref().key);
        Ok(Response::new(v1::DeleteResponse { deleted, current_version: 0 }))
    }

    async fn increment(
        &self,
        request: Request<v1::IncrementRequest>,
    ) -> Result<Response<v1::IncrementResponse>, Status> {
        let request = request.into_inner();
        let (value, version) = self.0.count(&request.key, request.delta, request.initial)?;
        Ok(Response::new(v1::IncrementResponse { value, version }))
    }

    async fn decrement(
        &self,
        request: Request<v1::DecrementRequest>,
    ) -> Result<Response<v1::DecrementResponse>, Status> {
        let request = request.into_inner();
        let (value, version) = self.0.count(&request.key, -request.delta, request.initial)?;
        Ok(Response::new(v1::DecrementResponse { value, version }))
    }

    async fn touch(&self, request: Request<v1::TouchRequest>) -> Result<Response<v1::TouchResponse>, Status> {
        let mut entries = self.0.entries.lock().unwrap();
        let entry = entries.get_mut(request.get_ref().key.as_ref());
        let found = entry.map(|entry| entry.ttl_ms = request.get_ref().ttl_ms).is_some();
        Ok(Response::new(v1::TouchResponse { found }))
    }

    async fn batch_get(
        &self,
        request: Request<v1::BatchGetRequest>,
    ) -> Result<Response<v1::BatchGetResponse>, Status> {
        let request = request.into_inner();
        let look_up = |key| {
            self.0.look_up(&v1::GetRequest {
                namespace: request.namespace.clone(),
                key,
                ..Default::default()
            })
        };
        let results = request.keys.into_iter().map(look_up).collect::<Result<_, _>>()?;
        Ok(Response::new(v1::BatchGetResponse { results }))
    }

    async fn batch_set(
        &self,
        request: Request<v1::BatchSetRequest>,
    ) -> Result<Response<v1::BatchSetResponse>, Status> {
        let store = |item| {
            let result = match self.0.store(item) {
                Ok(response) => set_result::Result::Response(response),
                Err(status) => set_result::Result::Error(rpc_status(&status)),
            };
            v1::SetResult { result: Some(result) }
        };
        let results = request.into_inner().items.into_iter().map(store).collect();
        Ok(Response::new(v1::BatchSetResponse { results }))
    }

    async fn batch_delete(
        &self,
        request: Request<v1::BatchDeleteRequest>,
    ) -> Result<Response<v1::BatchDeleteResponse>, Status> {
        let deleted = request.get_ref().keys.iter().map(|key| self.0.remove(key)).collect();
        Ok(Response::new(v1::BatchDeleteResponse { deleted }))
    }

    async fn pipeline(
        &self,
        request: Request<Streaming<v1::PipelineRequest>>,
    ) -> Result<Response<Self::PipelineStream>, Status> {
        let mut messages = request.into_inner();
        let (tell, told) = tokio::sync::mpsc::channel(4);
        let state = self.0.clone();
        // Each message is answered whole before the next is read.
        tokio::spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                let replies = message.commands.into_iter().map(|command| state.answer(command)).collect();
                if tell.send(Ok(v1::PipelineResponse { replies })).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(told))))
    }

    async fn put_blob(
        &self,
        _: Request<Streaming<v1::PutBlobRequest>>,
    ) -> Result<Response<v1::PutBlobResponse>, Status> {
        not_here()
    }
    async fn get_blob(
        &self,
        _: Request<v1::GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        not_here()
    }
    async fn delete_blob(
        &self,
        _: Request<v1::DeleteBlobRequest>,
    ) -> Result<Response<v1::DeleteBlobResponse>, Status> {
        not_here()
    }
    async fn list_blobs(
        &self,
        _: Request<v1::ListBlobsRequest>,
    ) -> Result<Response<v1::ListBlobsResponse>, Status> {
        not_here()
    }
    async fn scan(&self, _: Request<v1::ScanRequest>) -> Result<Response<v1::ScanResponse>, Status> {
        not_here()
    }
    async fn invalidate(
        &self,
        _: Request<v1::InvalidateRequest>,
    ) -> Result<Response<v1::InvalidateResponse>, Status> {
        not_here()
    }
    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        not_here()
    }
}

impl State {
    fn answer(&self, command: v1::PipelineCommand) -> v1::PipelineReply {
        use pipeline_reply::Result as Reply;
        let result = match command.op {
            Some(Op::Get(get)) => self.look_up(&get).map(Reply::Get),
            Some(Op::Set(set)) => self.store(set).map(Reply::Set),
            _ => Err(Status::unimplemented("the fake pipelines get and set only")),
        };
        let result = result.unwrap_or_else(|status| Reply::Error(rpc_status(&status)));
        v1::PipelineReply { id: command.id, owner: String::new(), result: Some(result) }
    }
}

fn rpc_status(status: &Status) -> rpc::Status {
    rpc::Status { code: status.code().into(), message: status.message().to_owned(), ..Default::default() }
}
