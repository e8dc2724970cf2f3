//! Watchers without a network, in simulated time: when the log begins and ends, and what holds a watcher back.

use std::pin::Pin;
use std::task::Context;

use futures_util::FutureExt;
use http_body::Body;
use prost::Message;
use tokio::time::sleep;

use super::*;
use crate::engine::{EngineConfig, Op, Set};
use crate::entry::Limits;
use crate::grpc::frame::PREFIX;
use v1::watch_response::Event;

const SHARDS: u32 = 2;

fn watches() -> Watches {
    let engine = EngineConfig { shards: Some(SHARDS), ..EngineConfig::default() };
    let watches = Watches::new(Arc::new(Cache::new(&engine, Limits::default())), 7);
    watches.set_limits(10, 8 << 20);
    watches
}

fn open(watches: &Watches, positions: &[v1::WatchPosition], backlog: &ResponseBacklog) -> WatchBody {
    let request = v1::WatchRequest { positions: positions.to_vec(), ..v1::WatchRequest::default() };
    watches.watch(&request, std::future::pending().boxed(), backlog.clone()).unwrap()
}

fn set(watches: &Watches, key: &[u8]) {
    let cache = &watches.0.cache;
    cache.engine().apply(cache.default_namespace(), &Op::Set(Set::new(key, b"value")), cache.now());
}

/// The frames that a watcher has to give now.
fn frames(body: &mut WatchBody) -> Vec<Bytes> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut frames = Vec::new();
    while let std::task::Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(&mut cx) {
        frames.push(frame.unwrap().unwrap().into_data().unwrap());
    }
    frames
}

fn messages(frames: &[Bytes]) -> Vec<v1::WatchResponse> {
    let bytes = frames.concat();
    let (mut rest, mut messages) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[1..PREFIX].try_into().unwrap()) as usize;
        let (message, others) = rest[PREFIX..].split_at(length);
        messages.push(v1::WatchResponse::decode(message).unwrap());
        rest = others;
    }
    messages
}

fn bytes(frames: &[Bytes]) -> usize {
    frames.iter().map(Bytes::len).sum()
}

#[tokio::test(start_paused = true)]
async fn a_log_ends_some_time_after_the_last_watcher_and_its_positions_with_it() {
    let (watches, backlog) = (watches(), ResponseBacklog::default());
    let is_noted = || watches.0.cache.engine().drain_events(0, &mut Vec::new()).is_some();
    set(&watches, b"before");
    assert!(!is_noted(), "nobody watches");
    let mut body = open(&watches, &[], &backlog);
    set(&watches, b"k");
    sleep(Duration::from_millis(20)).await;
    let told = messages(&frames(&mut body));
    assert!(told.iter().any(|message| matches!(message.event, Some(Event::Invalidation(_)))));
    let last = told.iter().rev().find(|message| message.sequence == 1).unwrap();
    let position = v1::WatchPosition { incarnation: 7, shard: last.shard, sequence: 1 };
    drop(body);

    sleep(log::KEPT_FOR - Duration::from_secs(1)).await;
    assert!(is_noted() && watches.figures().log_bytes > 0);
    // A stream that goes on keeps it.
    drop(open(&watches, &[position], &backlog));
    sleep(log::KEPT_FOR + Duration::from_secs(1)).await;
    assert!(!is_noted());
    assert_eq!(watches.figures(), WatchFigures { events: 1, ..WatchFigures::default() });

    set(&watches, b"k");
    let told = messages(&frames(&mut open(&watches, &[position], &backlog)));
    let discontinuity = v1::Discontinuity { reason: v1::DiscontinuityReason::PositionsTooOld as i32 };
    assert_eq!(told[0].event, Some(Event::Discontinuity(discontinuity)));
    assert_eq!(told.len(), 1 + SHARDS as usize, "and the heartbeats of all shards");
}

#[tokio::test(start_paused = true)]
async fn a_watcher_is_sent_no_more_than_its_share_and_no_heartbeat_until_it_has_caught_up() {
    let (mut watches, backlog) = (watches(), ResponseBacklog::default());
    Arc::get_mut(&mut watches.0).unwrap().bytes_per_second = 1 << 20;
    let mut body = open(&watches, &[], &backlog);
    assert_eq!(messages(&frames(&mut body)).len(), SHARDS as usize);
    for number in 0..1_000u32 {
        let mut key = vec![b'x'; 4_000];
        key[..4].copy_from_slice(&number.to_le_bytes());
        set(&watches, &key);
        // Shards say when they have many events waiting.
        if number % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    sleep(Duration::from_millis(30)).await;
    let at_once = frames(&mut body);
    let length = bytes(&at_once);
    assert!((900 << 10..1_300 << 10).contains(&length), "{length} bytes");
    let is_heartbeat = |message: &v1::WatchResponse| matches!(message.event, Some(Event::Heartbeat(_)));
    assert!(!messages(&at_once).iter().any(is_heartbeat));
    sleep(Duration::from_secs(1)).await;
    let next = frames(&mut body);
    let length = bytes(&next);
    assert!((900 << 10..1_300 << 10).contains(&length), "{length} bytes");
    assert!(!messages(&next).iter().any(is_heartbeat), "it is behind");
    sleep(Duration::from_secs(10)).await;
    frames(&mut body);
    sleep(Duration::from_secs(10)).await;
    let rest = messages(&frames(&mut body));
    assert!(rest.iter().filter(|message| is_heartbeat(message)).count() == SHARDS as usize);
    assert_eq!(watches.figures().discontinuities, 0);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_waits_while_clients_leave_too_much_unread() {
    let (watches, backlog) = (watches(), ResponseBacklog::new(100 << 10));
    let mut body = open(&watches, &[], &backlog);
    assert_eq!(messages(&frames(&mut body)).len(), SHARDS as usize);
    set(&watches, b"k");
    sleep(Duration::from_millis(20)).await;
    let unread = backlog.take(50 << 10).unwrap().count_in(vec![0; 50 << 10]).unwrap();
    assert_eq!(frames(&mut body), Vec::<Bytes>::new());
    drop(unread);
    assert_eq!(messages(&frames(&mut body)).len(), 1);
}
