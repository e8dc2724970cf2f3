//! What no gRPC client sends: wrong paths, messages, frames and requests, byte by byte.

use crate::support::node::*;
use crate::support::raw::{Answer, Raw, answer, frame, framed, post};
use bytes::Bytes;
use http::{Request, StatusCode};
use larder::proto::v1::*;
use tonic::Code;

async fn start() -> (Node, Calls) {
    let node = Node::start().await;
    let calls = Calls(node.cache().await);
    (node, calls)
}

#[tokio::test]
async fn a_method_that_nobody_named_is_unimplemented_on_every_listener() {
    let node = Node::start().await;
    let elsewhere = [
        (node.data(), "/larder.v1.Cache/Nope"),
        (node.data(), "/larder.v1.Cache/"),
        (node.data(), "/larder.v1.Cluster/Nope"),
        (node.data(), "/larder.v1.Admin/GetStats"),
        (node.data(), "/no.such.Service/Method"),
        (node.data(), "/"),
        (node.admin_authority(), "/larder.v1.Admin/Nope"),
        (node.admin_authority(), "/larder.v1.Cache/Get"),
        (node.admin_authority(), "/no.such.Service/Method"),
        (node.health(), "/larder.v1.Admin/GetStats"),
        (node.health(), "/grpc.health.v1.Health/Nope"),
    ];
    for (authority, path) in elsewhere {
        let raw = Raw::connect(&authority).await;
        let Answer { http, status, .. } = raw.call(post(path), framed(&get("k"))).await;
        assert_eq!(http, StatusCode::OK, "{path}");
        let status = status.unwrap_or_else(|| panic!("{path} has no status"));
        assert_status(&status, Code::Unimplemented, "NO_SUCH_METHOD", None);
    }
}

#[tokio::test]
async fn generated_services_refuse_what_is_malformed_as_the_cache_does() {
    use Code::{DeadlineExceeded, Internal, InvalidArgument, ResourceExhausted, Unimplemented};
    let node = Node::start().await;
    let malformed = (InvalidArgument, "MALFORMED_MESSAGE", None);
    for listener in [node.data(), node.admin_authority(), node.health()] {
        let raw = Raw::connect(&listener).await;
        let check = || post("/grpc.health.v1.Health/Check");
        let good = || frame(0, 0, b"");
        for (what, head, body, (code, reason, field)) in [
            ("rubbish", check(), frame(0, 3, b"\xff\xff\xff"), malformed),
            ("no message", check(), Bytes::new(), malformed),
            ("a torn frame", check(), frame(0, 10, b"abc"), malformed),
            ("a flag of 7", check(), frame(7, 0, b""), malformed),
            ("compressed", check(), frame(1, 3, b"abc"), (Internal, "COMPRESSED", None)),
            (
                "gzip",
                check().header("grpc-encoding", "gzip"),
                frame(1, 3, b"abc"),
                (Unimplemented, "COMPRESSED", None),
            ),
            ("too long", check(), frame(0, 5 << 20, b"abc"), (ResourceExhausted, "MESSAGE_TOO_LARGE", None)),
            (
                "no time-out",
                check().header("grpc-timeout", "soon"),
                good(),
                (InvalidArgument, "INVALID_VALUE", Some("grpc-timeout")),
            ),
            (
                "no time",
                check().header("grpc-timeout", "0n"),
                good(),
                (DeadlineExceeded, "DEADLINE_EXCEEDED", None),
            ),
        ] {
            let status = raw.call(head, body).await.status.unwrap();
            assert_eq!(status.code(), code, "{what} on {listener}: {status:?}");
            assert_status(&status, code, reason, field);
        }
        assert_eq!(raw.call(check(), good()).await.status.unwrap().code(), Code::Ok);
        // What only claims to be long is not waited for: there would be room held for it.
        let (response, mut body) =
            raw.open(post("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")).await;
        body.send_data(frame(0, (4 << 10) + 1, b""), false).unwrap();
        answer(response).await;
    }
}

#[tokio::test]
async fn a_deadline_ends_a_health_watch() {
    let node = Node::start().await;
    for listener in [node.data(), node.admin_authority(), node.health()] {
        let raw = Raw::connect(&listener).await;
        let head = post("/grpc.health.v1.Health/Watch").header("grpc-timeout", "100m");
        let answer = raw.call(head, frame(0, 0, b"")).await;
        assert!(!answer.body.is_empty());
        assert_status(&answer.status.unwrap(), Code::DeadlineExceeded, "DEADLINE_EXCEEDED", None);
    }
}

#[tokio::test]
async fn a_message_that_is_none_is_an_invalid_argument() {
    let node = Node::start().await;
    let data = Raw::connect(&node.data()).await;
    let messages: [&[u8]; 7] = [
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x12\x05ab",
        b"\x10\x01",
        b"\x0a\x02\xff\xfe",
        b"\x00",
        b"\x0b",
        b"\x17\x00",
    ];
    for message in messages {
        let methods = [
            "Get",
            "Set",
            "Delete",
            "Increment",
            "Decrement",
            "Touch",
            "BatchGet",
            "BatchSet",
            "BatchDelete",
        ];
        for method in methods {
            let answer = data.cache(method, frame(0, message.len(), message)).await;
            let status = answer.status.unwrap();
            assert_status(&status, Code::InvalidArgument, "MALFORMED_MESSAGE", None);
        }
    }
    let admin = Raw::connect(&node.admin_authority()).await;
    let answer = admin.call(post("/larder.v1.Admin/Clear"), frame(0, 4, b"\x0a\x05ab")).await;
    assert_status(&answer.status.unwrap(), Code::InvalidArgument, "MALFORMED_MESSAGE", None);
}

#[tokio::test]
async fn a_malformed_item_fails_the_whole_batch_before_anything_is_done() {
    let (node, mut calls) = start().await;
    let raw = Raw::connect(&node.data()).await;
    let mut message =
        prost::Message::encode_to_vec(&BatchSetRequest { items: vec![set("k", "v")], ..Default::default() });
    message.extend_from_slice(b"\x12\x02\x12\x09");
    let status = raw.cache("BatchSet", frame(0, message.len(), &message)).await.status.unwrap();
    assert_status(&status, Code::InvalidArgument, "MALFORMED_MESSAGE", None);
    assert!(calls.get("k").await.is_err());
}

#[tokio::test]
async fn a_frame_that_is_none_is_told_apart_from_a_bad_message() {
    let (node, mut calls) = start().await;
    let raw = Raw::connect(&node.data()).await;
    let good = framed(&set("k", "v"));
    let twice = [&good[..], &good[..]].concat();
    let bodies: [(&str, Bytes); 6] = [
        ("nothing", Bytes::new()),
        ("half a prefix", Bytes::from_static(b"\0\0\0")),
        ("a prefix alone", frame(0, 10, b"")),
        ("less than it says", frame(0, 10, b"abc")),
        ("two messages", twice.into()),
        ("a flag of 2", frame(2, 0, b"")),
    ];
    for (what, body) in bodies {
        let status = raw.cache("Set", body).await.status.unwrap();
        assert_status(&status, Code::InvalidArgument, "MALFORMED_MESSAGE", None);
        assert!(status.message().contains("frame"), "{what}: {status:?}");
    }
    let status = raw.cache("Set", frame(1, 3, b"abc")).await.status.unwrap();
    assert_status(&status, Code::Internal, "COMPRESSED", None);
    assert!(calls.get("k").await.is_err());
    // A message may come in any number of pieces.
    let (response, mut body) = raw.open(post("/larder.v1.Cache/Set")).await;
    for byte in good.iter() {
        body.send_data(Bytes::copy_from_slice(&[*byte]), false).unwrap();
    }
    body.send_data(Bytes::new(), true).unwrap();
    assert_eq!(answer(response).await.status.unwrap().code(), Code::Ok);
    assert_eq!(calls.value("k").await, "v");
}

#[tokio::test]
async fn what_is_no_grpc_call_gets_an_http_answer() {
    let node = Node::start().await;
    let raw = Raw::connect(&node.data()).await;
    let head = |method: &str, content_type: &str| {
        let head = Request::builder().method(method).uri("http://larder/larder.v1.Cache/Get");
        if content_type.is_empty() { head } else { head.header("content-type", content_type) }
    };
    for (method, content_type, expected) in [
        ("GET", "", StatusCode::METHOD_NOT_ALLOWED),
        ("GET", "application/grpc", StatusCode::METHOD_NOT_ALLOWED),
        ("PUT", "application/grpc", StatusCode::METHOD_NOT_ALLOWED),
        ("POST", "", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("POST", "application/json", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("POST", "application/grpc-web", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("POST", "application/grpc+json", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("POST", "application/grpc", StatusCode::OK),
        ("POST", "application/grpc+proto", StatusCode::OK),
    ] {
        let answer = raw.call(head(method, content_type), framed(&get("k"))).await;
        assert_eq!(answer.http, expected, "{method} {content_type}");
    }
}

#[tokio::test]
async fn an_encoding_that_is_not_read_is_refused_with_those_that_are() {
    let node = Node::start().await;
    let methods = ["/larder.v1.Cache/Get", "/larder.v1.Cache/Pipeline", "/grpc.health.v1.Health/Check"];
    let admin = ["/larder.v1.Admin/GetStats", "/grpc.health.v1.Health/Check"];
    let calls = methods.map(|path| (node.data(), path)).into_iter();
    for (listener, path) in calls.chain(admin.map(|path| (node.admin_authority(), path))) {
        let raw = Raw::connect(&listener).await;
        for encoding in ["gzip", "zstd"] {
            let answer = raw.call(post(path).header("grpc-encoding", encoding), frame(0, 0, b"")).await;
            assert_eq!(answer.headers["grpc-accept-encoding"], "identity", "{path}");
            let status = answer.status.unwrap();
            assert!(status.message().contains(encoding), "{status:?}");
            assert_status(&status, Code::Unimplemented, "COMPRESSED", None);
        }
        let plain = raw.call(post(path).header("grpc-encoding", "identity"), frame(0, 0, b"")).await;
        let code = plain.status.unwrap().code();
        assert!(!matches!(code, Code::Unimplemented | Code::Internal), "{path}: {code:?}");
    }
}

#[tokio::test]
async fn metadata_of_a_ring_is_refused_by_a_node_that_serves_none_and_never_ignored() {
    let (node, mut calls) = start().await;
    let raw = Raw::connect(&node.data()).await;
    for (name, value, code, reason) in [
        ("larder-ring-epoch", "x", Code::InvalidArgument, "INVALID_VALUE"),
        ("larder-ring-epoch", "-1", Code::InvalidArgument, "INVALID_VALUE"),
        ("larder-ring-epoch", "7", Code::Unimplemented, "NOT_SERVED"),
        ("larder-ring-digest-bin", "*", Code::InvalidArgument, "INVALID_VALUE"),
        ("larder-ring-digest-bin", "AAECAwQFBgc", Code::Unimplemented, "NOT_SERVED"),
    ] {
        for (method, body) in [("Set", framed(&set("k", "v"))), ("Pipeline", Bytes::new())] {
            let head = post(&format!("/larder.v1.Cache/{method}")).header(name, value);
            let status = raw.call(head, body).await.status.unwrap();
            let field = (code == Code::InvalidArgument).then_some(name);
            assert_status(&status, code, reason, field);
        }
    }
    assert!(calls.get("k").await.is_err(), "nothing was stored");
    // Epoch 0 is that of a node alone.
    let head = post("/larder.v1.Cache/Set").header("larder-ring-epoch", "0");
    assert_eq!(raw.call(head, framed(&set("k", "v"))).await.status.unwrap().code(), Code::Ok);
}
