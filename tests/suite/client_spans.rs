//! The client's own spans: one for what leaves together, of sampled calls alone.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use larder::client::{Availability, BlobOptions, Client, OnUnavailable, SetOptions};
use larder::clock::monotonic;
use larder::proto::v1::DrainRequest;
use opentelemetry::trace::{
    FutureExt, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, global};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};

use crate::support::collector::Collector;
use crate::support::node::*;

#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Recorder {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        // Whoever takes in a span may ask the client that it is of.
        if let Some(client) = ASKED.lock().unwrap().clone() {
            let (told, hears) = std::sync::mpsc::channel();
            std::thread::spawn(move || told.send(client.metrics().commands));
            hears.recv_timeout(LONG).expect("a span ended under the lane's lock");
        }
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

static ASKED: Mutex<Option<Client>> = Mutex::new(None);

/// All spans that the clients of this process make.
fn recorder() -> &'static Recorder {
    static RECORDER: OnceLock<Recorder> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let recorder = Recorder::default();
        global::set_tracer_provider(
            SdkTracerProvider::builder().with_simple_exporter(recorder.clone()).build(),
        );
        recorder
    })
}

/// The spans so far that have to do with this trace.
fn spans_of(trace: u128) -> Vec<SpanData> {
    let trace = TraceId::from(trace);
    let has_to_do = |span: &&SpanData| {
        let linked = span.links.iter().any(|link| link.span_context.trace_id() == trace);
        span.span_context.trace_id() == trace || linked
    };
    recorder().0.lock().unwrap().iter().filter(has_to_do).cloned().collect()
}

const CALLER: u64 = 0xb7ad_6b71_6920_3331;

/// The context of a span of the application.
fn within(trace: u128, flags: TraceFlags) -> Context {
    let (trace, span) = (TraceId::from(trace), SpanId::from(CALLER));
    Context::new().with_remote_span_context(SpanContext::new(
        trace,
        span,
        flags,
        false,
        TraceState::default(),
    ))
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    span.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| pair.value.to_string())
}

async fn client(node: &Node) -> Client {
    let builder =
        Client::builder([node.data().parse().unwrap()]).timeout(LONG).connections(NonZeroUsize::MIN);
    builder.connect().await.unwrap()
}

/// The names of the spans that the node made in these traces, once it has stopped.
async fn spans_of_node<const N: usize>(
    node: Node,
    collector: &Collector,
    traces: [u128; N],
) -> [Vec<String>; N] {
    node.admin().await.drain(DrainRequest::default()).await.unwrap();
    soon(node.running.stopped()).await;
    traces.map(|trace| {
        let of_trace = collector.spans().into_iter().filter(|span| span.trace_id == trace.to_be_bytes());
        let (parent, mut names) = (CALLER.to_be_bytes(), Vec::new());
        of_trace.for_each(|span| {
            assert_eq!(span.parent_span_id, parent, "the caller's");
            names.push(span.name);
        });
        names
    })
}

#[tokio::test]
async fn what_leaves_together_is_one_span_with_all_that_are_sampled() {
    recorder();
    let collector = Collector::start().await;
    let node = Node::with(&["--otlp", &collector.url, "--trace-sample", "0"]).await;
    let client = client(&node).await;
    let (first, second, unsampled) = (0xa1, 0xa2, 0xa3);
    let contexts = [
        within(first, TraceFlags::SAMPLED),
        within(second, TraceFlags::SAMPLED),
        within(first, TraceFlags::SAMPLED),
        within(unsampled, TraceFlags::default()),
        Context::new(),
    ];
    let gets = contexts.into_iter().map(|context| client.get("k").with_context(context));
    assert!(join_all(gets).await.into_iter().all(|outcome| outcome.is_ok()));
    let spans = spans_of(first);
    let [span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((span.name.as_ref(), &span.span_kind), ("larder.v1.Cache/Get", &SpanKind::Client));
    assert_eq!((span.span_context.trace_id(), span.parent_span_id), (first.into(), CALLER.into()));
    assert_eq!(span.links.len(), 1);
    assert_eq!(span.links[0].span_context.trace_id(), second.into());
    assert_eq!(attribute(span, "larder.calls").as_deref(), Some("3"));
    assert_eq!(attribute(span, "larder.commands").as_deref(), Some("5"));
    assert_eq!(attribute(span, "rpc.system.name").as_deref(), Some("grpc"));
    assert_eq!(attribute(span, "server.address").as_deref(), Some("127.0.0.1"));
    assert!(span.status == Status::Unset && span.end_time >= span.start_time);
    assert!(spans_of(unsampled).is_empty());
    // Different calls are named by what carries them.
    let mixed = 0xa4;
    let both = async {
        let options = SetOptions::default();
        let (set, got) = tokio::join!(client.set("k", "v", &options), client.get("other"));
        (set.unwrap(), got.unwrap())
    };
    both.with_context(within(mixed, TraceFlags::SAMPLED)).await;
    let spans = spans_of(mixed);
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert_eq!(spans[0].name, "larder.v1.Cache/Pipeline");
    // The node heard of the callers' spans.
    let [first, second, unsampled] = spans_of_node(node, &collector, [first, second, unsampled]).await;
    assert_eq!(
        (first, second),
        (vec!["larder.v1.Cache/Get".to_owned(); 2], vec!["larder.v1.Cache/Get".to_owned()])
    );
    assert!(unsampled.is_empty());
}

#[tokio::test]
async fn a_call_that_goes_by_itself_has_a_span_and_what_was_told_counts_before_what_is_current() {
    recorder();
    let collector = Collector::start().await;
    let node = Node::with(&["--otlp", &collector.url, "--trace-sample", "0"]).await;
    let (told, current) = (0xb1_u128, 0xb2);
    let client = client(&node).await.with_traceparent(&format!("00-{told:032x}-{CALLER:016x}-01"));
    let calls = async {
        client.batch_get(vec!["a".into(), "b".into()]).await.unwrap();
        client.get("a").await.unwrap();
        client.delete_blob("none").await.unwrap_err();
        let content = futures_util::stream::iter([Ok("content".into())]);
        let _ = client.put_blob("blob", &BlobOptions::default(), content).await;
    };
    calls.with_context(within(current, TraceFlags::SAMPLED)).await;
    let spans = spans_of(told);
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_ref()).collect();
    let of_cache = |name| format!("larder.v1.Cache/{name}");
    assert_eq!(names, ["BatchGet", "Get", "DeleteBlob", "PutBlob"].map(of_cache));
    assert!(spans.iter().all(|span| span.parent_span_id == CALLER.into()));
    assert!(spans_of(current).is_empty());
    let [mut of_node] = spans_of_node(node, &collector, [told]).await;
    of_node.sort();
    assert_eq!(of_node, ["BatchGet", "DeleteBlob", "Get", "PutBlob"].map(of_cache));
}

#[tokio::test]
async fn what_was_never_sent_has_a_span_of_its_own() {
    recorder();
    let (before, after) = (0xd1, 0xd2);
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let builder = Client::builder([format!("tcp://{listen}").parse().unwrap()])
        .connections(NonZeroUsize::MIN)
        .on_unavailable(OnUnavailable::Error)
        .timeout(LONG);
    let client = builder.build().unwrap();
    client.get("k").with_context(within(before, TraceFlags::SAMPLED)).await.unwrap_err();
    let spans = spans_of(before);
    assert_eq!(attribute(&spans[0], "error.type").as_deref(), Some("UNAVAILABLE"));
    assert_eq!((spans.len(), attribute(&spans[0], "larder.commands")), (1, None));
    let _node = Process::start_on(&["--listen", &format!("tcp://{listen}"), "--persistence", "none"]);
    let mut health = client.health();
    let is_there = health.wait_for(|health| health.availability == Availability::Available);
    soon(is_there).await.unwrap();
    client.get("k").with_context(within(after, TraceFlags::SAMPLED)).await.unwrap();
    let spans = spans_of(after);
    assert_eq!((spans.len(), spans[0].span_context.trace_id()), (1, after.into()));
    assert_eq!((&spans[0].status, spans[0].links.len()), (&Status::Unset, 0));
    assert_eq!(attribute(&spans[0], "larder.commands").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_span_says_what_a_call_failed_with() {
    recorder();
    let node = Node::start().await;
    let client = client(&node).await;
    let trace = 0xc1;
    let elsewhere = client.with_namespace("none");
    let refused = elsewhere.batch_get(vec!["k".into()]);
    refused.with_context(within(trace, TraceFlags::SAMPLED)).await.unwrap_err();
    let spans = spans_of(trace);
    assert_eq!(attribute(&spans[0], "error.type").as_deref(), Some("NOT_FOUND"));
    assert!(matches!(spans[0].status, Status::Error { .. }));
    // A caller that is gone ends its part.
    let gone = 0xc2;
    let given_up = tokio::time::timeout(Duration::ZERO, client.get("k"));
    let _ = given_up.with_context(within(gone, TraceFlags::SAMPLED)).await;
    let begun = monotonic();
    while spans_of(gone).is_empty() {
        assert!(begun.elapsed() < LONG);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_span_whose_callers_are_gone_ends_where_its_client_may_be_asked() {
    recorder();
    let node = Node::start().await;
    let client = client(&node).await;
    *ASKED.lock().unwrap() = Some(client.clone());
    let trace = 0xe1;
    // Written, and given up before the lane's task has had its turn: that ends the span.
    let mut given_up = Box::pin(client.get("k").with_context(within(trace, TraceFlags::SAMPLED)));
    assert!(futures_util::poll!(&mut given_up).is_pending());
    drop(given_up);
    client.get("k").await.unwrap();
    *ASKED.lock().unwrap() = None;
    assert_eq!(spans_of(trace).len(), 1);
}
