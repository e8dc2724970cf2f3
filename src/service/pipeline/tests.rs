//! A stream's body, polled as HTTP/2 polls it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use http_body_util::Full;
use prost::Message as _;
use tonic::Code;

use super::*;
use crate::cache::Cache;
use crate::engine::{EngineConfig, Op as EngineOp, Set};
use crate::entry::Limits;
use crate::proto::v1::pipeline_command::Op;
use crate::proto::v1::pipeline_reply::Result as Reply;
use crate::proto::v1::{self, get_response::Outcome};
use crate::service::long_requests::{LongRequests, RequestLimits};

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn plane(message_out_bytes_max: usize) -> Arc<Plane> {
    let limits = Limits { message_out_bytes_max, ..Limits::default() };
    Arc::new(Plane::alone(Cache::new(&EngineConfig::default(), limits)))
}

fn set(plane: &Plane, key: &str, value: &[u8]) {
    let (cache, now) = (&plane.cache, plane.cache.now());
    let namespace = cache.namespace("").unwrap();
    cache.apply(&namespace, &EngineOp::Set(Set::new(key.as_bytes(), value)), now);
}

fn get(id: u64, key: &str) -> v1::PipelineCommand {
    let get = v1::GetRequest { key: key.to_owned().into(), ..v1::GetRequest::default() };
    v1::PipelineCommand { id, op: Some(Op::Get(get)), ..v1::PipelineCommand::default() }
}

/// A stream of one message, polled to its end: the messages of replies, and how often it let others run.
fn answered(plane: &Arc<Plane>, commands: Vec<v1::PipelineCommand>) -> (Vec<Vec<u8>>, usize) {
    let message = v1::PipelineRequest { commands, ..v1::PipelineRequest::default() }.encode_to_vec();
    let mut framed = vec![0; PREFIX];
    framed.extend_from_slice(&message);
    finish(&mut framed, 0);
    let body = PipelineBody::new(Full::new(Bytes::from(framed)), Arc::clone(plane), SlowCalls::default());
    let (mut body, woken) = (Box::pin(body), Arc::new(Woken::default()));
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let (mut sent, mut turns) = (Vec::new(), 0);
    loop {
        match body.as_mut().poll_frame(&mut cx) {
            Poll::Pending => {
                turns += 1;
                assert_eq!(woken.0.load(Ordering::Relaxed), turns, "it asks to be polled again");
            }
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => sent.extend_from_slice(&data),
                Err(_) => break,
            },
            Poll::Ready(other) => panic!("{other:?}"),
        }
    }
    let (mut messages, mut rest) = (Vec::new(), &sent[..]);
    while let Some(len) = message_len(rest, usize::MAX).unwrap() {
        messages.push(rest[PREFIX..PREFIX + len].to_vec());
        rest = &rest[PREFIX + len..];
    }
    (messages, turns)
}

fn replies(messages: &[Vec<u8>]) -> Vec<v1::PipelineReply> {
    messages.iter().flat_map(|message| v1::PipelineResponse::decode(&**message).unwrap().replies).collect()
}

/// A body of one long message, which comes in two frames.
fn in_two_frames(message: &[u8]) -> impl Body<Data = Bytes, Error = Status> + use<> {
    let mut framed = vec![0; PREFIX];
    framed.extend_from_slice(message);
    finish(&mut framed, 0);
    let rest = framed.split_off(10_000);
    let frames = [framed, rest].map(|frame| Ok(Frame::data(Bytes::from(frame))));
    http_body_util::StreamBody::new(futures_util::stream::iter(frames))
}

#[test]
fn a_message_of_many_commands_lets_others_run() {
    let plane = plane(4 << 20);
    let commands = (0..5_000).map(|id| get(id, "k")).collect();
    let (messages, turns) = answered(&plane, commands);
    assert_eq!(replies(&messages).len(), 5_000);
    assert!((9..20).contains(&turns), "{turns} turns");
    // Those that have no reply of their own count as well.
    let cancel =
        |id| v1::PipelineCommand { op: Some(Op::Cancel(v1::CancelRequest { id })), ..Default::default() };
    let (messages, turns) = answered(&plane, (0..5_000).map(cancel).collect());
    assert!(messages.is_empty() && (9..20).contains(&turns), "{turns} turns");
    let (messages, turns) = answered(&plane, (0..100).map(|id| get(id, "k")).collect());
    assert_eq!((replies(&messages).len(), turns), (100, 0), "a short one is done at once");
}

#[test]
fn messages_of_replies_keep_to_the_limit_and_a_reply_that_cannot_is_an_error() {
    let max = 4 << 10;
    let plane = plane(max);
    set(&plane, "long", &[b'x'; 3_000]);
    set(&plane, "longer", &vec![b'x'; max]);
    let keys = ["long", "", "longer", "none"];
    let commands = (0..40).map(|id| get(id, keys[id as usize % keys.len()])).collect();
    let (messages, _) = answered(&plane, commands);
    assert!(messages.len() >= 10, "{} messages", messages.len());
    assert!(messages.iter().all(|message| message.len() <= max));
    for (reply, id) in replies(&messages).into_iter().zip(0..) {
        assert_eq!(reply.id, id);
        let code = match reply.result.unwrap() {
            Reply::Get(v1::GetResponse { outcome: Some(Outcome::Hit(hit)) }) => {
                assert_eq!(hit.value.len(), 3_000);
                Code::Ok
            }
            Reply::Get(_) => Code::NotFound,
            Reply::Error(status) => Code::from_i32(status.code),
            other => panic!("{other:?}"),
        };
        let expected = [Code::Ok, Code::InvalidArgument, Code::ResourceExhausted, Code::NotFound];
        assert_eq!(code, expected[id as usize % 4], "reply {id}");
    }
}

fn set_command(id: u64, key: &str) -> v1::PipelineCommand {
    let set = v1::SetRequest { key: key.to_owned().into(), value: "v".into(), ..v1::SetRequest::default() };
    v1::PipelineCommand { id, op: Some(Op::Set(set)), ..v1::PipelineCommand::default() }
}

#[test]
fn a_command_that_may_not_wait_says_nothing_of_the_next() {
    let plane = plane(1 << 20);
    let commands = vec![set_command(0, "a"), set_command(1, "b")];
    let whole = v1::PipelineRequest { commands, ..v1::PipelineRequest::default() }.encode_to_vec();
    let mut message = Message::new(whole.into(), monotonic());
    message.turn = BacklogTurn::Refused;
    let mut out = Replies::new(&plane, 0, 1);
    out.begin();
    run(&plane.cache, &mut message, &mut NoDefer, &mut out).unwrap();
    assert!(!message.is_done() && message.turn == BacklogTurn::None);
}

#[test]
fn a_message_that_is_whole_when_the_listener_ends_is_done() {
    let (cache, limits) = (EngineConfig::default(), Limits::default());
    // It is asked before each frame and before what comes then, and ends when the last frame is here.
    let polls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&polls);
    let ending: Arc<dyn Fn() -> Ending + Send + Sync> = Arc::new(move || {
        let seen = Arc::clone(&seen);
        Box::pin(std::future::poll_fn(move |_| {
            if seen.fetch_add(1, Ordering::Relaxed) < 3 { Poll::Pending } else { Poll::Ready(()) }
        }))
    });
    let plane = Arc::new(Plane { ending, ..Plane::alone(Cache::new(&cache, limits)) });
    let key = "k".repeat(4_000);
    let commands = (0..20).map(|id| get(id, &key)).collect();
    let message = v1::PipelineRequest { commands, ..v1::PipelineRequest::default() }.encode_to_vec();
    assert!(message.len() > SHORT_REQUEST_BYTES_MAX);
    let mut body = Box::pin(PipelineBody::new(in_two_frames(&message), plane, SlowCalls::default()));
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut cx) else { panic!("replies") };
    let data = frame.into_data().expect("replies come before the end");
    assert_eq!(replies(&[data[PREFIX..].to_vec()]).len(), 20);
    let Poll::Ready(Some(Ok(end))) = body.as_mut().poll_frame(&mut cx) else { panic!("an end") };
    let status = Status::from_header_map(end.trailers_ref().unwrap()).unwrap();
    assert_eq!((status.code(), polls.load(Ordering::Relaxed)), (Code::Unavailable, 4));
}

#[tokio::test(start_paused = true)]
async fn a_long_message_whose_replies_are_left_unread_gives_way_to_others() {
    const VALUE_BYTES: usize = 64 << 10;
    let limits = RequestLimits { bytes_max: 100 << 10, message_bytes_max: 0, waiting_max: 9 };
    let cache = Cache::new(&EngineConfig::default(), Limits::default());
    let plane = Arc::new(Plane { requests: LongRequests::new(limits), ..Plane::alone(cache) });
    let key = "k".repeat(4_000);
    set(&plane, &key, &[b'v'; VALUE_BYTES]);
    let commands = (0..20).map(|id| get(id, &key)).collect();
    let message = v1::PipelineRequest { commands, ..v1::PipelineRequest::default() }.encode_to_vec();
    let mut body =
        Box::pin(PipelineBody::new(in_two_frames(&message), Arc::clone(&plane), SlowCalls::default()));
    let mut cx = Context::from_waker(Waker::noop());
    let mut next = || match body.as_mut().poll_frame(&mut cx) {
        Poll::Ready(Some(Ok(frame))) => frame,
        other => panic!("{other:?}"),
    };
    assert!(next().is_data());
    assert!(plane.requests.bytes() > SHORT_REQUEST_BYTES_MAX as u64);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(next().is_data(), "it is in nobody's way");
    let mut other = plane.requests.admit(90 << 10, &plane.stopped).unwrap();
    let admitted = std::future::poll_fn(|cx| other.poll(cx));
    tokio::time::timeout(Duration::from_secs(10), admitted).await.unwrap();
    let end = next();
    let status = Status::from_header_map(end.trailers_ref().unwrap()).unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("unread for 3 s"), "{status:?}");
}

#[test]
fn a_commands_time_runs_from_when_it_came_and_not_from_when_it_was_read() {
    let plane = plane(1 << 20);
    set(&plane, "key", b"value");
    let command = |id, timeout_ms| v1::PipelineCommand { timeout_ms, ..get(id, "key") };
    let code = |reply: &v1::PipelineReply| match &reply.result {
        Some(Reply::Error(error)) => Code::from(error.code),
        _ => Code::Ok,
    };
    let codes = || {
        let (messages, _) = answered(&plane, vec![command(1, 40), command(2, 60_000), command(3, 0)]);
        replies(&messages).iter().map(code).collect::<Vec<_>>()
    };
    assert_eq!(codes(), [Code::Ok; 3]);
    assert_eq!(plane.unread.take_commands(), 0, "nobody asks");
    plane.unread.set_waited(Duration::from_millis(50));
    assert_eq!(codes(), [Code::DeadlineExceeded, Code::Ok, Code::Ok]);
    assert_eq!(plane.unread.take_commands(), 3);
    assert!(plane.unread.timeout().is_some());
    plane.unread.forget();
    assert_eq!(codes(), [Code::Ok; 3]);
}
