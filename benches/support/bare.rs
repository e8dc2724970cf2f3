//! The bare tonic service: the same contract, an empty handler, tonic's own server with its defaults.

use larder::proto::v1::{self, cache_server::Cache, cache_server::CacheServer, get_response::Outcome};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

struct Bare;

/// Serves on the port until the process ends.
pub(crate) fn serve(port: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let address = format!("127.0.0.1:{port}").parse().expect("a port is a number");
    runtime.expect("a runtime starts").block_on(async move {
        let incoming = TcpIncoming::bind(address).expect("the port is free").with_nodelay(Some(true));
        let server = tonic::transport::Server::builder().add_service(CacheServer::new(Bare));
        tokio::spawn(server.serve_with_incoming(incoming)).await.expect("it serves").expect("it serves");
    });
}

fn none<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the bare service only gets"))
}

type Nothing<T> = tokio_stream::Empty<Result<T, Status>>;

#[tonic::async_trait]
impl Cache for Bare {
    async fn get(&self, _: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        static VALUE: [u8; 100] = [b'v'; 100];
        let hit = v1::Hit {
            value: bytes::Bytes::from_static(&VALUE),
            version: 1 << 60,
            tier: v1::Tier::Memory as i32,
            value_bytes: 100,
            ..v1::Hit::default()
        };
        Ok(Response::new(v1::GetResponse { outcome: Some(Outcome::Hit(hit)) }))
    }
    async fn set(&self, _: Request<v1::SetRequest>) -> Result<Response<v1::SetResponse>, Status> {
        none()
    }
    async fn delete(&self, _: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        none()
    }
    async fn increment(
        &self,
        _: Request<v1::IncrementRequest>,
    ) -> Result<Response<v1::IncrementResponse>, Status> {
        none()
    }
    async fn decrement(
        &self,
        _: Request<v1::DecrementRequest>,
    ) -> Result<Response<v1::DecrementResponse>, Status> {
        none()
    }
    async fn touch(&self, _: Request<v1::TouchRequest>) -> Result<Response<v1::TouchResponse>, Status> {
        none()
    }
    async fn batch_get(
        &self,
        _: Request<v1::BatchGetRequest>,
    ) -> Result<Response<v1::BatchGetResponse>, Status> {
        none()
    }
    async fn batch_set(
        &self,
        _: Request<v1::BatchSetRequest>,
    ) -> Result<Response<v1::BatchSetResponse>, Status> {
        none()
    }
    async fn batch_delete(
        &self,
        _: Request<v1::BatchDeleteRequest>,
    ) -> Result<Response<v1::BatchDeleteResponse>, Status> {
        none()
    }
    type PipelineStream = Nothing<v1::PipelineResponse>;
    async fn pipeline(
        &self,
        _: Request<Streaming<v1::PipelineRequest>>,
    ) -> Result<Response<Self::PipelineStream>, Status> {
        none()
    }
    async fn put_blob(
        &self,
        _: Request<Streaming<v1::PutBlobRequest>>,
    ) -> Result<Response<v1::PutBlobResponse>, Status> {
        none()
    }
    type GetBlobStream = Nothing<v1::GetBlobResponse>;
    async fn get_blob(
        &self,
        _: Request<v1::GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        none()
    }
    async fn delete_blob(
        &self,
        _: Request<v1::DeleteBlobRequest>,
    ) -> Result<Response<v1::DeleteBlobResponse>, Status> {
        none()
    }
    async fn list_blobs(
        &self,
        _: Request<v1::ListBlobsRequest>,
    ) -> Result<Response<v1::ListBlobsResponse>, Status> {
        none()
    }
    async fn scan(&self, _: Request<v1::ScanRequest>) -> Result<Response<v1::ScanResponse>, Status> {
        none()
    }
    async fn invalidate(
        &self,
        _: Request<v1::InvalidateRequest>,
    ) -> Result<Response<v1::InvalidateResponse>, Status> {
        none()
    }
    type WatchStream = Nothing<v1::WatchResponse>;
    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        none()
    }
}
