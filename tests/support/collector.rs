//! An OpenTelemetry collector: it takes spans by OTLP and keeps them.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A collector on a free port, until it is dropped.
pub(crate) struct Collector {
    /// For `--otlp`.
    pub(crate) url: String,
    spans: Spans,
    server: AbortHandle,
}

#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|spans| spans.scope_spans);
        self.0.lock().extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let spans = Spans::default();
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(spans.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        Self { url, spans, server: tokio::spawn(server).abort_handle() }
    }

    /// The spans that have come; all of a node's have when it has stopped.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.spans.0.lock().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A `traceparent` of one trace, from the span with this id.
pub(crate) fn traceparent(span: u64, sampled: bool) -> String {
    format!("00-0af7651916cd43dd8448eb211c80319c-{span:016x}-{:02x}", u8::from(sampled))
}

/// The id of the span that a span has as its parent.
pub(crate) fn parent(span: &Span) -> u64 {
    u64::from_be_bytes(span.parent_span_id.as_slice().try_into().unwrap_or_default())
}

/// The status that a span's call ended with.
pub(crate) fn status(span: &Span) -> &str {
    let mut attributes = span.attributes.iter().filter(|pair| pair.key == "rpc.response.status_code");
    let value = attributes.next().and_then(|pair| pair.value.as_ref()).and_then(|value| value.value.as_ref());
    match value {
        Some(Value::StringValue(text)) => text,
        _ => "",
    }
}
