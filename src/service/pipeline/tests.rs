//! A stream's body, polled as HTTP/2 polls it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use http_body_util::Full;
use prost::Message as _;
use tonic::Code;

use super::*;
use crate::api::v1::pipeline_command::Op;
use crate::api::v1::pipeline_reply::Result as Reply;
use crate::api::v1::{self, get_response::Outcome};
use crate::cache::Cache;
use crate::engine::{EngineConfig, Op as EngineOp, Set};
use crate::entry::Limits;

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
