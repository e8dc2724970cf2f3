//! Peers that send frames which cost a node work and ask for nothing, and those that make it reset streams: they are told to
//! go away, and others go on.

use crate::support::node::{Node, connect};
use crate::support::plain_node::{PlainNode, get, soon};
use crate::support::raw::{self, PREFACE, Raw, SETTINGS, post};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use larder::endpoint::Endpoint;
use larder::proto::v1::{GetMemoryReportRequest, GetRequest, SetRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// POST http / with one literal header, `:authority: x`; the request's body is to come.
fn request(stream: u32) -> Vec<u8> {
    frame(1, 4, stream, &[0x83, 0x86, 0x84, 0x41, 1, b'x'])
}

/// Sends all this, and reads until the node says GOAWAY, whose reason this is; `None`: it hangs up without.
async fn goaway_for(address: &Endpoint, flood: Vec<u8>) -> Option<u8> {
    let (mut reading, mut writing) = TcpStream::connect(address.authority()).await.unwrap().into_split();
    let sending = tokio::spawn(async move {
        // Cut short when the node reads no more.
        let _ = writing.write_all(&[PREFACE, SETTINGS, &flood].concat()).await;
    });
    let mut head = [0; 9];
    let goaway = soon(async {
        loop {
            reading.read_exact(&mut head).await.ok()?;
            let bytes = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; bytes];
            reading.read_exact(&mut payload).await.ok()?;
            if head[3] == 7 {
                return Some(payload[7]);
            }
        }
    })
    .await;
    // Or else it is kept waiting, as a peer that does not hear.
    sending.abort();
    goaway
}

const ENHANCE_YOUR_CALM: Option<u8> = Some(11);

#[tokio::test]
async fn a_flood_of_resets_is_answered_with_goaway_and_others_go_on() {
    let node = PlainNode::start(|_| {}).await;
    let mut other = node.client().await;
    let cancelled = |stream| [request(stream), frame(3, 0, stream, &8_u32.to_be_bytes())].concat();
    let flood = (1..20_000_u32).step_by(2).flat_map(cancelled).collect();
    assert_eq!(goaway_for(node.data(), flood).await, ENHANCE_YOUR_CALM);
    other.get(get("k")).await.unwrap();
}

#[tokio::test]
async fn a_flood_of_frames_that_ask_for_nothing_is_answered_with_goaway_on_every_listener() {
    let node = PlainNode::start(|_| {}).await;
    let mut other = node.client().await;
    let floods: [(&str, Vec<u8>); 7] = [
        ("WINDOW_UPDATE", frame(8, 0, 0, &[0, 0, 0, 1])),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 0, 9])),
        ("SETTINGS", frame(4, 0, 0, &[0, 4, 0, 1, 0, 0])),
        ("PING", frame(6, 0, 0, &[0; 8])),
        ("of an unknown type", frame(0xbe, 0, 0, b"what")),
        ("long ones of an unknown type", frame(0xbe, 0, 0, &[0; 1_000])),
        ("ALTSVC", frame(10, 0, 0, &[0, 0])),
    ];
    for address in [node.data(), node.node.admin_address(), node.node.health_address()] {
        for (what, frame) in &floods {
            assert_eq!(
                goaway_for(address, frame.repeat(20_000)).await,
                ENHANCE_YOUR_CALM,
                "{what} to {address}"
            );
        }
    }
    other.get(get("k")).await.unwrap();
}

#[tokio::test]
async fn streams_that_the_node_is_made_to_reset_are_answered_with_goaway() {
    let node = PlainNode::start(|_| {}).await;
    let mut other = node.client().await;
    type Provoke = fn(u32) -> Vec<u8>;
    // HTTP/2 itself takes some of these for an error of the connection.
    const PROTOCOL_ERROR: Option<u8> = Some(1);
    let provoked: [(&str, Provoke, Option<u8>); 4] = [
        (
            "a window beyond the limit",
            |stream| frame(8, 0, stream, &(u32::MAX >> 1).to_be_bytes()),
            ENHANCE_YOUR_CALM,
        ),
        ("an increment of 0", |stream| frame(8, 0, stream, &[0; 4]), PROTOCOL_ERROR),
        (
            "a stream that depends on itself",
            |stream| frame(2, 0, stream, &[&stream.to_be_bytes()[..], &[1]].concat()),
            ENHANCE_YOUR_CALM,
        ),
        (
            "data after the end",
            |stream| [frame(0, 1, stream, b"x"), frame(0, 0, stream, b"y")].concat(),
            PROTOCOL_ERROR,
        ),
    ];
    for (what, provoke, reason) in provoked {
        let flood = (1..20_000_u32).step_by(2).flat_map(|stream| [request(stream), provoke(stream)].concat());
        assert_eq!(goaway_for(node.data(), flood.collect()).await, reason, "{what}");
    }
    other.get(get("k")).await.unwrap();
}

#[tokio::test]
async fn requests_that_do_not_come_whole_leave_room_on_the_health_listener() {
    let node = Node::start().await;
    let mut peers = Vec::new();
    for _ in 0..40 {
        peers.push(Raw::connect(&node.health()).await);
    }
    let check = || post("/grpc.health.v1.Health/Check");
    let whole = raw::framed(&HealthCheckRequest::default());
    // 640 are begun; what is too much is refused, and the others wait. Where this machine is so slow that some have waited for
    // too long before the last is begun, all of it is done again.
    let is_refused = async {
        loop {
            let (mut sending, mut answers) = (Vec::new(), FuturesUnordered::new());
            for peer in &peers {
                for _ in 0..16 {
                    let (answer, rest) = peer.open(check()).await;
                    sending.push(rest);
                    answers.push(answer);
                }
                let mut other = HealthClient::new(connect(&node.health()).await);
                let status = other.check(HealthCheckRequest::default()).await.unwrap().into_inner().status();
                assert_eq!(status, ServingStatus::Serving);
            }
            while let Some(answer) = answers.next().await {
                let status = Status::from_header_map(answer.unwrap().headers()).unwrap();
                if status.code() == Code::ResourceExhausted {
                    return (sending, answers);
                }
            }
        }
    };
    let _waiting = soon(is_refused).await;
    // On a connection that begins while they wait, and whose own request comes in two parts.
    let other = Raw::connect(&node.health()).await;
    let (in_parts, mut rest) = other.open(check()).await;
    // Its answer says that what came before it has been read.
    let at_once = other.call(check(), whole.clone()).await;
    // Fails where its call was refused already, which its answer tells.
    let _ = rest.send_data(whole.clone(), true);
    for answer in [at_once, raw::answer(in_parts).await] {
        assert_eq!(answer.status.map(|status| status.code()), Some(Code::Ok));
    }
}

#[tokio::test]
async fn answers_that_nobody_reads_are_bounded_and_who_reads_goes_on() {
    let node = Node::start().await;
    let (key, value) = (Bytes::from_static(b"key"), Bytes::from(vec![b'v'; 900]));
    let set = raw::framed(&SetRequest { key: key.clone(), value, ..SetRequest::default() });
    let get = raw::framed(&GetRequest { key, ..GetRequest::default() });
    let reader = Raw::connect(&node.data()).await;
    assert!(reader.cache("Set", set).await.status.is_some_and(|status| status.code() == Code::Ok));
    let (mut peers, mut held, mut refused) = (Vec::new(), Vec::new(), None);
    while refused.is_none() && held.len() < 6_000 {
        // Its windows stay shut.
        let peer = Raw::connect_with(&node.data(), 0).await;
        for _ in 0..200 {
            let (response, mut sending) = peer.open(post("/larder.v1.Cache/Get")).await;
            sending.send_data(get.clone(), true).unwrap();
            held.push(response);
        }
        let last = held.pop().unwrap();
        let head = soon(last).await.unwrap();
        refused = Status::from_header_map(head.headers()).filter(|status| status.code() != Code::Ok);
        peers.push(peer);
    }
    let refused = refused.expect("there is a bound");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("answers that its peer does not read"), "{refused}");
    for _ in 0..10 {
        assert!(
            reader.cache("Get", get.clone()).await.status.is_some_and(|status| status.code() == Code::Ok)
        );
    }
}

/// Waits until requests under way take this many bytes.
async fn wait_for_request_bytes(node: &Node, wanted: impl Fn(u64) -> bool) {
    let mut admin = node.admin().await;
    let taken = async {
        loop {
            let report = admin.get_memory_report(GetMemoryReportRequest {}).await.unwrap().into_inner();
            // What takes nothing is left out.
            let requests = report.parts.iter().find(|part| part.name == "requests");
            if wanted(requests.map_or(0, |requests| requests.bytes)) {
                return;
            }
        }
    };
    soon(taken).await;
}

#[tokio::test]
async fn what_came_of_requests_counts_until_they_are_whole() {
    let node = Node::start().await;
    let peer = Raw::connect(&node.data()).await;
    let mut sending = Vec::new();
    for path in ["Set", "BatchSet", "Pipeline"] {
        let (answer, mut rest) = peer.open(post(&format!("/larder.v1.Cache/{path}"))).await;
        rest.send_data(raw::frame(0, 20_000, &[0; 10_000]), false).unwrap();
        sending.push((answer, rest));
        let least = 20_000 * sending.len() as u64;
        wait_for_request_bytes(&node, |bytes| bytes >= least).await;
    }
    drop(sending);
    wait_for_request_bytes(&node, |bytes| bytes == 0).await;
}
