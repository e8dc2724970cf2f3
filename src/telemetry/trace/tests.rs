//! Spans as a collector gets them: by a recording exporter, and once over real OTLP.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use opentelemetry::Value;
use opentelemetry::trace::SpanId;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as Exporter};
use parking_lot::Mutex;
use tower::{Layer, ServiceExt, service_fn};

use super::*;

#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<Vec<SpanData>>>);

impl Exporter for Recorder {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().extend(batch);
        Ok(())
    }
}

impl Recorder {
    fn tracing(&self, sample: f64) -> Tracing {
        let config = TraceConfig { endpoint: &Redacted::default(), node_id: "node", sample };
        Tracing::with(SdkTracerProvider::builder().with_simple_exporter(self.clone()), config)
    }

    fn one(&self) -> SpanData {
        let mut spans = self.0.lock();
        assert_eq!(spans.len(), 1, "{spans:?}");
        spans.remove(0)
    }
}

const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn request(traceparent: Option<&str>) -> Request<()> {
    let builder = Request::builder().uri("http://node/larder.v1.Cache/Get").header("tracestate", "vendor=1");
    traceparent
        .into_iter()
        .fold(builder, |builder, text| builder.header("traceparent", text))
        .body(())
        .unwrap()
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    span.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| match &pair.value {
        Value::String(text) => text.to_string(),
        other => other.to_string(),
    })
}

fn trailers(status: &str) -> HeaderMap {
    HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_str(status).unwrap(),
    )])
}

/// Calls a service that answers with data and then these trailers, and reads the answer.
async fn call_with_trailers(tracing: &Tracing, request: Request<()>, trailers: HeaderMap) {
    let service = service_fn(move |_: Request<()>| {
        let frames = [
            Ok::<_, Infallible>(http_body::Frame::data(Bytes::from_static(b"answer"))),
            Ok(http_body::Frame::trailers(trailers.clone())),
        ];
        async move { Ok::<_, Infallible>(Response::new(StreamBody::new(tokio_stream::iter(frames)))) }
    });
    let service = TraceLayer::new(tracing.tracer()).layer(service);
    let answer = service.oneshot(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(answer.to_bytes(), "answer");
}

#[tokio::test]
async fn sampled_caller_gets_a_child_span_with_the_status_of_the_trailers() {
    let recorder = Recorder::default();
    call_with_trailers(&recorder.tracing(0.0), request(Some(SAMPLED)), trailers("0")).await;
    let span = recorder.one();
    assert_eq!(span.name, "larder.v1.Cache/Get");
    assert_eq!(span.span_kind, SpanKind::Server);
    assert_eq!(span.span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
    assert!(span.parent_span_is_remote);
    assert_eq!(span.span_context.trace_state().get("vendor"), Some("1"));
    assert_eq!(attribute(&span, "rpc.system.name").as_deref(), Some("grpc"));
    assert_eq!(attribute(&span, "rpc.method").as_deref(), Some("larder.v1.Cache/Get"));
    assert_eq!(attribute(&span, "rpc.response.status_code").as_deref(), Some("OK"));
    assert_eq!(span.status, Status::Unset);
}

#[tokio::test]
async fn servers_errors_are_errors_and_callers_are_not() {
    let recorder = Recorder::default();
    let tracing = recorder.tracing(0.0);
    call_with_trailers(&tracing, request(Some(SAMPLED)), trailers("14")).await;
    let span = recorder.one();
    assert_eq!(attribute(&span, "error.type").as_deref(), Some("UNAVAILABLE"));
    assert_ne!(span.status, Status::Unset);
    call_with_trailers(&tracing, request(Some(SAMPLED)), trailers("3")).await;
    let span = recorder.one();
    assert_eq!(attribute(&span, "rpc.response.status_code").as_deref(), Some("INVALID_ARGUMENT"));
    assert_eq!((attribute(&span, "error.type"), span.status), (None, Status::Unset));
}

#[tokio::test]
async fn unsampled_caller_gets_no_span_and_none_at_all_by_share() {
    let recorder = Recorder::default();
    call_with_trailers(&recorder.tracing(1.0), request(Some(UNSAMPLED)), trailers("0")).await;
    call_with_trailers(&recorder.tracing(0.0), request(None), trailers("0")).await;
    call_with_trailers(&recorder.tracing(0.0), request(Some("rubbish")), trailers("0")).await;
    assert!(recorder.0.lock().is_empty());
    call_with_trailers(&recorder.tracing(1.0), request(None), trailers("0")).await;
    let span = recorder.one();
    assert_eq!(span.parent_span_id, SpanId::INVALID, "a call without a caller begins a trace");
}

#[tokio::test]
async fn status_in_the_headers_ends_the_span_and_unknown_paths_share_a_name() {
    let recorder = Recorder::default();
    let service = service_fn(async |_: Request<()>| {
        let response = Response::builder().header("grpc-status", "12").body(Empty::<Bytes>::new());
        Ok::<_, Infallible>(response.unwrap())
    });
    let service = TraceLayer::new(recorder.tracing(0.0).tracer()).layer(service);
    let mut request = request(Some(SAMPLED));
    *request.uri_mut() = "http://node/made.up/Path".parse().unwrap();
    let response = service.oneshot(request).await.unwrap();
    let span = recorder.one();
    assert_eq!(span.name, "_OTHER");
    assert_eq!(attribute(&span, "rpc.response.status_code").as_deref(), Some("UNIMPLEMENTED"));
    drop(response);
    assert!(recorder.0.lock().is_empty(), "it ends once");
}

#[tokio::test]
async fn call_that_is_dropped_ends_as_cancelled() {
    let recorder = Recorder::default();
    let layer = TraceLayer::new(recorder.tracing(0.0).tracer());
    let never = service_fn(async |_: Request<()>| {
        std::future::pending::<Result<Response<Empty<Bytes>>, Infallible>>().await
    });
    drop(layer.layer(never).oneshot(request(Some(SAMPLED))).now_or_never());
    assert_eq!(attribute(&recorder.one(), "rpc.response.status_code").as_deref(), Some("CANCELLED"));
    let unread =
        service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("x")))));
    drop(layer.layer(unread).oneshot(request(Some(SAMPLED))).await.unwrap());
    assert_eq!(attribute(&recorder.one(), "rpc.response.status_code").as_deref(), Some("CANCELLED"));
}

#[tokio::test]
async fn span_is_current_while_the_call_runs_and_not_afterwards() {
    let recorder = Recorder::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&seen);
    let service = service_fn(move |_: Request<()>| {
        let note = Arc::clone(&note);
        async move {
            note.lock().push(Context::current().span().span_context().span_id());
            tokio::task::yield_now().await;
            note.lock().push(Context::current().span().span_context().span_id());
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let service = TraceLayer::new(recorder.tracing(0.0).tracer()).layer(service);
    service.oneshot(request(Some(SAMPLED))).await.unwrap();
    let id = recorder.one().span_context.span_id();
    assert_eq!(*seen.lock(), [id, id]);
    assert!(!Context::current().span().span_context().is_valid());
}

mod over_otlp {
    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
        TraceService as Collector, TraceServiceServer,
    };
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
    };
    use tokio_stream::wrappers::TcpListenerStream;

    use super::*;

    #[derive(Clone, Default)]
    struct Received(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

    #[tonic::async_trait]
    impl Collector for Received {
        async fn export(
            &self,
            request: tonic::Request<ExportTraceServiceRequest>,
        ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
            self.0.lock().push(request.into_inner());
            Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn shutdown_sends_what_there_is_to_the_collector() {
        let received = Received::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(received.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(server);
        let config = TraceConfig { endpoint: &endpoint.as_str().into(), node_id: "node-7", sample: 0.0 };
        let tracing = Tracing::start(config).unwrap();
        call_with_trailers(&tracing, request(Some(SAMPLED)), trailers("0")).await;
        tracing.shutdown(Duration::from_secs(5)).await;
        server.abort();
        let requests = received.0.lock();
        let spans = &requests[0].resource_spans[0];
        let resource = format!("{:?}", spans.resource);
        assert!(resource.contains("\"larder\"") && resource.contains("\"node-7\""), "{resource}");
        assert_eq!(spans.scope_spans[0].spans[0].name, "larder.v1.Cache/Get");
    }

    #[tokio::test]
    async fn no_log_and_no_error_tells_what_the_collectors_url_has_of_secrets() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(std::fs::File::create(&path).unwrap())
            .finish();
        let mut told = String::new();
        tracing::subscriber::with_default(log, || {
            for url in
                ["http://user:hunter2@127.0.0.1:1/?token=hunter2", "https://user:hunter2@c", "hunter2@ c"]
            {
                let endpoint = Redacted::new(url);
                let config = TraceConfig { endpoint: &endpoint, node_id: "n", sample: 0.0 };
                told +=
                    &format!("{config:?} {:?}", Tracing::start(config).err().map(|error| error.to_string()));
            }
            tracing::debug!("the log is written");
        });
        told += &std::fs::read_to_string(&path).unwrap();
        assert!(told.contains("the log is written") && told.contains("***@"), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn collector_that_is_not_there_holds_nothing_up() {
        let config = TraceConfig { endpoint: &"http://127.0.0.1:1".into(), node_id: "n", sample: 1.0 };
        let tracing = Tracing::start(config).unwrap();
        call_with_trailers(&tracing, request(None), trailers("0")).await;
        let stopped =
            tokio::time::timeout(Duration::from_secs(10), tracing.shutdown(Duration::from_millis(500)));
        stopped.await.unwrap();
    }
}
