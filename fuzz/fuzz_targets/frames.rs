//! Any bytes as the body of a call, in chunks cut anywhere: the data plane answers in whole frames that the
//! generated types read and ends with one status, and where the chunks are cut makes no difference.
//!
//! Input: method, how to cut, body. The method's top bit asks for a right frame around the body.
#![no_main]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request};
use http_body::{Body, Frame};
use larder::cache::Cache;
use larder::engine::EngineConfig;
use larder::entry::Limits;
use larder::proto::v1;
use larder::service::{DataService, GeneratedService};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use tokio::runtime::{Builder, Runtime};
use tower_service::Service;

/// Where timers are made; nothing runs on it.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

const PREFIX: usize = 5;
const METHODS: [&str; 12] = [
    "Pipeline",
    "Get",
    "Set",
    "Delete",
    "Increment",
    "Decrement",
    "Touch",
    "BatchGet",
    "BatchSet",
    "BatchDelete",
    "Scan",
    "Invalidate",
];

/// A request's body that comes in pieces, with a wait before each.
struct Chunks {
    chunks: VecDeque<Bytes>,
    waited: bool,
}

impl Chunks {
    fn whole(body: &Bytes) -> Self {
        Self { chunks: [body.clone()].into(), waited: false }
    }

    /// Pieces of lengths drawn from `seed`, a quarter of them no longer than a prefix.
    fn cut(body: &Bytes, seed: u8) -> Self {
        let mut rest = body.clone();
        let mut state = u32::from(seed) | 0x100;
        let mut chunks = VecDeque::new();
        while !rest.is_empty() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let most = if state >> 30 == 0 { PREFIX } else { 64 };
            let len = 1 + (state >> 8) as usize % most;
            chunks.push_back(rest.split_to(len.min(rest.len())));
        }
        Self { chunks, waited: false }
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.waited = !self.waited;
        if self.waited {
            return Poll::Pending;
        }
        Poll::Ready(self.chunks.pop_front().map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty()
    }
}

/// What a call came to.
struct Answer {
    data: Vec<u8>,
    status: String,
}

fn service() -> DataService {
    let engine = EngineConfig {
        bytes_limit: 1 << 20,
        shards: Some(1),
        value_bytes_max: 16 << 10,
        ..EngineConfig::default()
    };
    let limits = Limits {
        value_bytes_max: 16 << 10,
        message_in_bytes_max: 64 << 10,
        message_out_bytes_max: 64 << 10,
        batch_items_max: 64,
        ..Limits::default()
    };
    let cache = Arc::new(Cache::new(&engine, limits));
    // The node never drains.
    let ending = || Box::pin(std::future::pending()) as Pin<Box<dyn Future<Output = ()> + Send>>;
    DataService::new(cache, ending, GeneratedService::new(tonic::service::Routes::default()))
}

fn status_in(headers: &HeaderMap) -> Option<String> {
    headers.get("grpc-status").map(|status| status.to_str().expect("a status is a number").to_owned())
}

fn call(service: &mut DataService, method: &str, body: Chunks) -> Answer {
    let polls_max = body.chunks.len() * 2 + 1_000;
    let mut context = Context::from_waker(Waker::noop());
    let request = Request::post(format!("/larder.v1.Cache/{method}"))
        .header("content-type", "application/grpc")
        .body(body)
        .expect("a request");
    let mut future = pin!(service.call(request));
    let response = (0..polls_max)
        .find_map(|_| match future.as_mut().poll(&mut context) {
            Poll::Ready(Ok(response)) => Some(response),
            Poll::Pending => None,
        })
        .expect("a call whose body is there gets its response");
    let mut status = status_in(response.headers());
    let mut body = pin!(response.into_body());
    let mut data = Vec::new();
    for _ in 0..polls_max {
        match body.as_mut().poll_frame(&mut context) {
            Poll::Pending => {}
            Poll::Ready(None) => {
                return Answer { data, status: status.expect("a call ends with a status") };
            }
            Poll::Ready(Some(frame)) => match frame.expect("the client is still there").into_data() {
                Ok(chunk) => {
                    assert!(status.is_none(), "data after the status");
                    data.extend_from_slice(&chunk);
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().expect("data or trailers");
                    assert!(status.is_none(), "two statuses");
                    status = status_in(&trailers);
                }
            },
        }
    }
    panic!("a call whose body is there does not end");
}

/// The messages of whole frames, up to where there are no more; whether that is the end.
fn messages(mut data: &[u8]) -> (Vec<&[u8]>, bool) {
    let mut messages = Vec::new();
    while let [0, a, b, c, d, rest @ ..] = data {
        let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let Some((message, after)) = rest.split_at_checked(len) else { break };
        messages.push(message);
        data = after;
    }
    (messages, data.is_empty())
}

fn replies(answer: &Answer) -> Vec<v1::PipelineReply> {
    let (messages, whole) = messages(&answer.data);
    assert!(whole, "an answer is whole frames");
    let responses =
        messages.into_iter().map(|message| v1::PipelineResponse::decode(message).expect("a response"));
    responses.flat_map(|response| response.replies).collect()
}

/// The ids that a stream must answer, as far as they are plain to see, and whether that is all of it.
fn asked(body: &[u8]) -> (Vec<u64>, bool) {
    let mut ids = Vec::new();
    let (messages, whole) = messages(body);
    for message in messages {
        match v1::PipelineRequest::decode(message) {
            // Only messages that say each thing once: where they do not, merging is not ours to judge.
            Ok(request) if request.ring_epoch == 0 && request.encode_to_vec() == message => {
                let answered = request
                    .commands
                    .iter()
                    .filter(|command| !matches!(command.op, Some(v1::pipeline_command::Op::Cancel(_))));
                ids.extend(answered.map(|command| command.id));
            }
            _ => return (ids, false),
        }
    }
    (ids, whole)
}

fn check_pipeline(body: &[u8], one: &Answer, other: &Answer) {
    let ids: Vec<u64> = replies(one).iter().map(|reply| reply.id).collect();
    let others: Vec<u64> = replies(other).iter().map(|reply| reply.id).collect();
    assert_eq!(ids, others, "chunks make no difference");
    assert!(replies(one).iter().all(|reply| reply.result.is_some()), "each reply has a result");
    let (asked, all) = asked(body);
    assert_eq!(asked, ids[..asked.len().min(ids.len())], "each command is answered in its turn");
    if all {
        assert_eq!((asked.len(), &*one.status), (ids.len(), "0"), "nothing else is");
    }
}

fn check_unary(method: &str, answer: &Answer) {
    let (messages, whole) = messages(&answer.data);
    assert!(whole, "an answer is whole frames");
    if answer.status != "0" {
        assert!(messages.is_empty(), "an error has no message");
        return;
    }
    let [mut message] = messages[..] else { panic!("one message") };
    let read = match method {
        "Get" => v1::GetResponse::decode(&mut message).map(drop),
        "Set" => v1::SetResponse::decode(&mut message).map(drop),
        "Delete" => v1::DeleteResponse::decode(&mut message).map(drop),
        "Increment" => v1::IncrementResponse::decode(&mut message).map(drop),
        "Decrement" => v1::DecrementResponse::decode(&mut message).map(drop),
        "Touch" => v1::TouchResponse::decode(&mut message).map(drop),
        "BatchGet" => v1::BatchGetResponse::decode(&mut message).map(drop),
        "BatchSet" => v1::BatchSetResponse::decode(&mut message).map(drop),
        "Scan" => v1::ScanResponse::decode(&mut message).map(drop),
        "Invalidate" => v1::InvalidateResponse::decode(&mut message).map(drop),
        _ => v1::BatchDeleteResponse::decode(&mut message).map(drop),
    };
    read.expect("the generated type reads the answer");
}

fuzz_target!(|input: &[u8]| {
    let _entered = RUNTIME.enter();
    let [method, cut, body @ ..] = input else { return };
    let mut bytes = Vec::with_capacity(PREFIX + body.len());
    if method & 0x80 != 0 {
        bytes.push(0);
        bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
    }
    bytes.extend_from_slice(body);
    let body = Bytes::from(bytes);
    let method = METHODS[usize::from(method & 0x7f) % METHODS.len()];
    let one = call(&mut service(), method, Chunks::whole(&body));
    let other = call(&mut service(), method, Chunks::cut(&body, *cut));
    assert_eq!(one.status, other.status, "chunks make no difference");
    if method == "Pipeline" {
        check_pipeline(body.chunk(), &one, &other);
    } else {
        check_unary(method, &one);
        check_unary(method, &other);
    }
});
