//! Traces: an OpenTelemetry span for each call that somebody traces, sent to a collector by OTLP.
//!
//! Who called decides: a call whose `traceparent` says sampled gets a span, one whose caller says unsampled gets
//! none, and of those without a caller that speaks of traces the share that `--trace-sample` says. A call that
//! gets none, and every call while no collector is configured, costs a look at one header and no allocation.
//!
//! A Pipeline is one call, with a span by these rules. A command of it has a span of its own where its own
//! `traceparent` says sampled, and by nothing else: what says nothing readable is part of the stream's span, and no
//! share is drawn for it.
//!
//! Spans follow the semantic conventions for RPC: kind SERVER, `rpc.system.name`, `rpc.method`,
//! `rpc.response.status_code`, `error.type`. They name the methods of the contract only, so that a stranger who
//! makes paths up does not fill the collector with names.

mod layer;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{
    SpanBuilder, SpanKind, Status, TraceContextExt, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, TracerProviderBuilder};
use tonic::Code;
use tracing::subscriber::{NoSubscriber, with_default};

pub(crate) use layer::TraceLayer;

use crate::grpc::traceparent::Traceparent;
use crate::proto::code_name;
use crate::redacted::Redacted;
use crate::verb::Verb;

/// How a node traces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TraceConfig<'a> {
    /// The collector's URL, `http://HOST:PORT`.
    pub endpoint: &'a Redacted,
    /// The node's id, which tells its spans from other nodes'.
    pub node_id: &'a str,
    /// The share of the calls without a parent that are traced, 0 to 1.
    pub sample: f64,
}

/// Traces cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error(
    "traces cannot go to --otlp {endpoint}: {reason}; give the URL of an OTLP collector that speaks gRPC"
)]
pub struct TraceError {
    endpoint: Redacted,
    /// What the exporter says, which may quote the URL.
    reason: Redacted,
}

/// The running exporter. It sends in the background, from a thread of its own.
#[derive(Debug)]
pub(crate) struct Tracing {
    provider: SdkTracerProvider,
    tracer: CallTracer,
}

/// Makes spans for calls, or none at all. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallTracer(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    tracer: SdkTracer,
    sample: f64,
}

/// The span of one call. Dropped without [`CallSpan::end`], it ends as CANCELLED.
#[derive(Debug)]
pub(crate) struct CallSpan {
    context: Context,
    ended: bool,
}

impl Tracing {
    /// Starts the exporter. The collector need not be there yet; what cannot be sent is logged and dropped.
    /// Must be called within a tokio runtime, which the exporter uses until [`Self::shutdown`].
    ///
    /// # Errors
    /// [`TraceError`]: the URL cannot be used.
    pub(crate) fn start(config: TraceConfig<'_>) -> Result<Self, TraceError> {
        let builder = SpanExporter::builder().with_tonic().with_endpoint(config.endpoint.expose());
        // It logs its URL and its headers, in which there may be a token.
        let exporter = with_default(NoSubscriber::default(), || builder.build()).map_err(|error| {
            TraceError { endpoint: config.endpoint.clone(), reason: error.to_string().into() }
        })?;
        Ok(Self::with(SdkTracerProvider::builder().with_batch_exporter(exporter), config))
    }

    fn with(builder: TracerProviderBuilder, config: TraceConfig<'_>) -> Self {
        let resource = Resource::builder()
            .with_service_name("larder")
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", config.node_id.to_owned()),
            ])
            .build();
        // Whether a call is traced has been decided before the tracer is asked.
        let provider = builder.with_resource(resource).with_sampler(Sampler::AlwaysOn).build();
        let inner = Inner { tracer: provider.tracer("larder"), sample: config.sample };
        Self { provider, tracer: CallTracer(Some(Arc::new(inner))) }
    }

    /// Makes the spans that this exporter sends.
    #[must_use]
    pub(crate) fn tracer(&self) -> CallTracer {
        self.tracer.clone()
    }

    /// Sends what there is and stops, within a time: what is left then is lost, and logged as such.
    pub(crate) async fn shutdown(self, within: Duration) {
        let provider = self.provider;
        let stopped = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(within));
        match stopped.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last traces could not be sent"),
            Err(error) => tracing::warn!(%error, "the trace exporter did not stop"),
        }
    }
}

impl CallTracer {
    /// Traces nothing.
    #[must_use]
    pub(crate) fn off() -> Self {
        Self(None)
    }

    /// Whether calls can have spans at all.
    #[inline]
    #[must_use]
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The span of a call that begins now, if it is to have one. `parent` and `state` are the caller's
    /// `traceparent` and `tracestate`.
    #[inline]
    #[must_use]
    pub(crate) fn begin(
        &self,
        method: &'static str,
        parent: Option<&[u8]>,
        state: Option<&str>,
    ) -> Option<CallSpan> {
        let inner = self.0.as_deref()?;
        match parent.and_then(Traceparent::parse) {
            Some(parent) if parent.sampled => Some(inner.child(method, parent, state)),
            Some(_) => None,
            None if inner.sample > 0.0 && rand::random::<f64>() < inner.sample => {
                Some(inner.span(method, &Context::new()))
            }
            None => None,
        }
    }

    /// Whether a Pipeline's command with this `traceparent` is to have a span of its own.
    #[inline]
    #[must_use]
    pub(crate) fn samples_command(&self, traceparent: &str) -> bool {
        !traceparent.is_empty() && self.sampled_parent(traceparent).is_some()
    }

    /// The span of a Pipeline's command that begins now, if it is to have one; `None` as the verb: no op of the contract.
    #[cold]
    #[must_use]
    pub(crate) fn begin_command(&self, verb: Option<Verb>, traceparent: &str) -> Option<CallSpan> {
        let parent = self.sampled_parent(traceparent)?;
        let inner = self.0.as_deref()?;
        Some(inner.child(span_name(verb.unwrap_or(Verb::Other)), parent, None))
    }

    fn sampled_parent(&self, traceparent: &str) -> Option<Traceparent> {
        self.0.as_ref()?;
        Traceparent::sampled(traceparent.as_bytes())
    }
}

impl Inner {
    #[cold]
    fn child(&self, method: &'static str, parent: Traceparent, state: Option<&str>) -> CallSpan {
        let state = state.and_then(|text| text.parse::<TraceState>().ok()).unwrap_or_default();
        self.span(method, &Context::new().with_remote_span_context(parent.remote_context(state)))
    }

    #[cold]
    fn span(&self, method: &'static str, parent: &Context) -> CallSpan {
        let builder = SpanBuilder::from_name(method)
            .with_kind(SpanKind::Server)
            .with_attributes([KeyValue::new("rpc.system.name", "grpc"), KeyValue::new("rpc.method", method)]);
        let span = self.tracer.build_with_context(builder, parent);
        CallSpan { context: parent.with_span(span), ended: false }
    }
}

impl CallSpan {
    /// The context in which what the call causes has this span as its parent.
    #[must_use]
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Ends the span with the call's status; `None`: the answer had none, so it was no gRPC.
    pub(crate) fn end(mut self, code: Option<Code>) {
        self.finish(code);
    }

    fn finish(&mut self, code: Option<Code>) {
        self.ended = true;
        let span = self.context.span();
        if let Some(code) = code {
            let text = code_name(code);
            span.set_attribute(KeyValue::new("rpc.response.status_code", text));
            if is_our_fault(code) {
                span.set_attribute(KeyValue::new("error.type", text));
                span.set_status(Status::error(""));
            }
        }
        span.end();
    }
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(Some(Code::Cancelled));
        }
    }
}

/// What the spans of a verb's calls are called. Those of no method of the contract share a name.
fn span_name(verb: Verb) -> &'static str {
    match verb {
        Verb::Other => "_OTHER",
        verb => verb.as_str(),
    }
}

/// The statuses that the semantic conventions count as a server's errors; the others are the caller's.
fn is_our_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

#[cfg(test)]
mod tests;
