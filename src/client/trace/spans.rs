//! Spans by OpenTelemetry's global tracer provider.
//!
//! A span is made whole when it ends, by the last caller that has part in it: what the application's provider does is never
//! done under a lane's lock, and what is not sampled makes nothing.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceState, Tracer,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue, global};

use crate::client::url::NodeUrl;
use crate::clock::unix_us;
use crate::endpoint::Endpoint;
use crate::grpc::traceparent::Traceparent;
use crate::verb::Verb;

/// The span of the application that a call belongs to, which is sampled.
#[derive(Debug)]
pub(crate) struct Sampled {
    context: SpanContext,
    traceparent: String,
}

/// The span of the commands that leave together, once one of them is traced, for as long as one of their callers has part in it.
#[derive(Debug, Default)]
pub(crate) struct Gathering(Weak<Span>);

/// A call's part in a span, which ends when the last part of it is dropped.
#[derive(Debug)]
pub(crate) struct Part(Arc<Span>);

#[derive(Debug)]
struct Span {
    url: NodeUrl,
    begun: SystemTime,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// The spans of the calls that have part in it; the first is its parent.
    callers: Vec<SpanContext>,
    /// What all of them do; `None`: different things.
    verb: Option<Verb>,
    /// Calls that are traced.
    calls: i64,
    /// All commands of the message, and its bytes, once it is sent by a lane.
    sent: Option<(u64, usize)>,
    /// What the first call that failed came to.
    failed: Option<&'static str>,
}

/// Callers that a span names.
const CALLERS_MAX: usize = 128;
const SAMPLED: &str = "01";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(unix_us())
}

impl Sampled {
    /// Of a call whose client was told this trace context; empty: none. `None`: it is not sampled.
    #[inline]
    pub(crate) fn of(given: &str) -> Option<Self> {
        if given.is_empty() {
            let is_in_a_span = Context::map_current(TraceContextExt::has_active_span);
            return if is_in_a_span { Self::of_current() } else { None };
        }
        Self::of_given(given)
    }

    #[cold]
    fn of_given(given: &str) -> Option<Self> {
        let context = Traceparent::sampled(given.as_bytes())?.remote_context(TraceState::default());
        Some(Self { context, traceparent: given.to_owned() })
    }

    #[cold]
    fn of_current() -> Option<Self> {
        let context = Context::map_current(|current| current.span().span_context().clone());
        if !context.is_sampled() || !context.is_valid() {
            return None;
        }
        let traceparent = format!("00-{}-{}-{SAMPLED}", context.trace_id(), context.span_id());
        Some(Self { context, traceparent })
    }

    pub(crate) fn traceparent(&self) -> &str {
        &self.traceparent
    }
}

impl Gathering {
    /// Takes part in the span, which begins now if there is none.
    #[cold]
    pub(crate) fn join(&mut self, sampled: &Sampled, verb: Verb, url: &NodeUrl) -> Part {
        let span = self.0.upgrade().unwrap_or_else(|| {
            let known = Known { callers: Vec::new(), verb: Some(verb), calls: 0, sent: None, failed: None };
            let span = Arc::new(Span { url: url.clone(), begun: now(), known: known.into() });
            self.0 = Arc::downgrade(&span);
            span
        });
        span.change(|known| {
            known.calls += 1;
            known.verb = known.verb.filter(|before| *before == verb);
            if known.callers.len() < CALLERS_MAX && !known.callers.contains(&sampled.context) {
                known.callers.push(sampled.context.clone());
            }
        });
        Part(span)
    }

    /// What has gathered is sent; what gathers next has another span. What comes back may be the last part of it: to be
    /// dropped when no lock is held.
    #[inline]
    #[must_use]
    pub(crate) fn sent(&mut self, commands: u64, bytes: usize) -> Option<Part> {
        let span = std::mem::take(&mut self.0).upgrade()?;
        span.change(|known| known.sent = Some((commands, bytes)));
        Some(Part(span))
    }
}

impl Part {
    /// The call failed with this gRPC code.
    pub(crate) fn failed(&self, code: &'static str) {
        self.0.change(|known| known.failed = known.failed.or(Some(code)));
    }
}

impl Span {
    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let ended = now();
        let known = self.known.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut callers = known.callers.drain(..);
        let Some(parent) = callers.next() else { return };
        let method = known.verb.unwrap_or(Verb::Pipeline).as_str();
        let mut attributes = vec![
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", method),
            KeyValue::new("larder.calls", known.calls),
        ];
        match self.url.endpoint() {
            Endpoint::Unix(path) => {
                attributes.push(KeyValue::new("server.address", path.display().to_string()))
            }
            Endpoint::Tcp(at) | Endpoint::Udp(at) => attributes.extend([
                KeyValue::new("server.address", at.host.to_string()),
                KeyValue::new("server.port", i64::from(at.port)),
            ]),
        }
        if let Some((commands, bytes)) = known.sent {
            attributes.push(KeyValue::new("larder.commands", commands as i64));
            attributes.push(KeyValue::new("larder.bytes", bytes as i64));
        }
        if let Some(code) = known.failed {
            attributes.push(KeyValue::new("error.type", code));
        }
        let builder = SpanBuilder::from_name(method)
            .with_kind(SpanKind::Client)
            .with_start_time(self.begun)
            .with_links(callers.map(|caller| Link::new(caller, Vec::new(), 0)).collect())
            .with_attributes(attributes);
        let scope = InstrumentationScope::builder("larder").with_version(env!("CARGO_PKG_VERSION")).build();
        let parent = Context::new().with_remote_span_context(parent);
        let mut span = global::tracer_with_scope(scope).build_with_context(builder, &parent);
        if known.failed.is_some() {
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(ended);
    }
}
