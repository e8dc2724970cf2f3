//! Blobs as a generated client, the client library and the command line see them.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::support::fixture::{pdf, png};
use crate::support::node::*;
use crate::support::opened::{blob_files, blob_files_become};
use crate::support::raw::{Raw, framed, post};
use bytes::Bytes;
use h2::Reason;
use larder::Client;
use larder::client::{BlobOptions, BlobRange, ClientError, ListBlobsOptions};
use larder::persistence::backend::{self, BackendKind};
use larder::persistence::blob::Blobs;
use larder::persistence::{Backend, MemoryBackend};
use larder::proto::v1::*;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

const CHUNK: usize = 256 << 10;

/// A node with blobs in memory, which can be looked into.
struct Stored {
    node: Node,
    backend: MemoryBackend,
    calls: Calls,
}

impl Stored {
    async fn start() -> Self {
        Self::with(&[]).await
    }

    async fn with(flags: &[&str]) -> Self {
        let node = Node::with(flags).await;
        let (backend, cache) = (MemoryBackend::new(), node.running.cache());
        let (blobs, _) = Blobs::open(Arc::new(backend.clone()), None, cache.now()).unwrap();
        assert!(cache.serve_blobs(blobs));
        let calls = Calls(node.cache().await);
        Self { node, backend, calls }
    }

    fn client(&self) -> Client {
        Client::builder([format!("tcp://{}", self.node.data()).parse().unwrap()]).build().unwrap()
    }

    async fn put(&mut self, parts: Vec<PutBlobRequest>) -> Result<PutBlobResponse, Status> {
        soon(self.calls.0.put_blob(tokio_stream::iter(parts))).await.map(tonic::Response::into_inner)
    }

    async fn get(&mut self, request: GetBlobRequest) -> Result<(BlobHeader, Vec<u8>), Status> {
        let mut stream = soon(self.calls.0.get_blob(request)).await?.into_inner();
        let Some(get_blob_response::Part::Header(header)) =
            soon(stream.message()).await?.and_then(|m| m.part)
        else {
            panic!("no header")
        };
        let mut content = Vec::new();
        while let Some(message) = soon(stream.message()).await? {
            let Some(get_blob_response::Part::Chunk(chunk)) = message.part else { panic!("no chunk") };
            assert!(!chunk.is_empty());
            content.extend_from_slice(&chunk);
        }
        Ok((header, content))
    }
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8).collect()
}

fn of(key: &str) -> BlobHeader {
    BlobHeader { key: key.to_owned().into(), ..BlobHeader::default() }
}

fn header(header: BlobHeader) -> PutBlobRequest {
    PutBlobRequest { part: Some(put_blob_request::Part::Header(header)) }
}

fn chunk(chunk: impl Into<Bytes>) -> PutBlobRequest {
    PutBlobRequest { part: Some(put_blob_request::Part::Chunk(chunk.into())) }
}

fn wanted(key: &str) -> GetBlobRequest {
    GetBlobRequest { key: key.to_owned().into(), ..GetBlobRequest::default() }
}

#[tokio::test]
async fn a_blob_comes_back_byte_for_byte_with_what_was_said_of_it() {
    let mut stored = Stored::start().await;
    let cases = [
        ("empty", Vec::new(), ""),
        ("png", png(), "image/png"),
        ("pdf", pdf(), "application/pdf"),
        ("large", content(5 * CHUNK + 123), "application/octet-stream"),
    ];
    for (key, content, content_type) in cases {
        let mut parts = vec![header(BlobHeader { content_type: content_type.to_owned(), ..of(key) })];
        parts.extend(content.chunks(1_000_000).map(|part| chunk(part.to_vec())));
        parts.push(chunk(""));
        let put = stored.put(parts).await.unwrap();
        let (header, read) = stored.get(wanted(key)).await.unwrap();
        assert_eq!(read, content, "{key}");
        assert_eq!((put.version, put.size_bytes), (header.version, content.len() as u64));
        assert_eq!((put.sha256.len(), &header.sha256), (32, &put.sha256));
        assert_eq!((&header.key[..], header.content_type.as_str()), (key.as_bytes(), content_type));
        assert!(header.version > 0 && header.ttl_ms == 0);
    }
    // An entry of the same key is another thing.
    stored.calls.set(set("png", "entry")).await.unwrap();
    assert_eq!(stored.get(wanted("png")).await.unwrap().1, png());
    let deleted = stored.calls.delete(delete("png")).await.deleted;
    assert!(deleted && stored.get(wanted("png")).await.is_ok());
}

#[tokio::test]
async fn ranges_are_what_lies_there() {
    let mut stored = Stored::start().await;
    let whole = content(2 * CHUNK + 10);
    stored.put(vec![header(of("k")), chunk(whole.clone())]).await.unwrap();
    let end = whole.len() as u64;
    for (offset, length) in
        [(0, 1), (5, CHUNK as u64), (end - 1, 0), (end - 1, 99), (end, 0), (end, 5), (7, 0)]
    {
        let (header, read) = stored.get(GetBlobRequest { offset, length, ..wanted("k") }).await.unwrap();
        let to = if length == 0 { end } else { end.min(offset + length) };
        assert_eq!(read, &whole[offset as usize..to as usize], "{offset}+{length}");
        assert_eq!(header.size_bytes, end, "it is of the whole blob");
    }
    let status = stored.get(GetBlobRequest { offset: end + 1, ..wanted("k") }).await.unwrap_err();
    assert_status(&status, Code::OutOfRange, "OFFSET_BEYOND_END", None);
    let status = stored.get(wanted("none")).await.unwrap_err();
    assert_status(&status, Code::NotFound, "BLOB_NOT_FOUND", None);
    let status =
        stored.get(GetBlobRequest { namespace: "none".to_owned(), ..wanted("k") }).await.unwrap_err();
    assert_status(&status, Code::NotFound, "NAMESPACE_NOT_FOUND", None);
}

#[tokio::test]
async fn what_is_no_good_blob_is_refused_and_leaves_the_one_before() {
    let mut stored = Stored::start().await;
    let before = stored.put(vec![header(of("k")), chunk("before")]).await.unwrap();
    let said = |header: BlobHeader| self::header(BlobHeader { key: "k".into(), ..header });
    let sha256 = Bytes::from(vec![7; 32]);
    let cases = [
        (vec![], "INVALID_VALUE", "header"),
        (vec![chunk("x")], "INVALID_VALUE", "header"),
        (vec![header(of("k")), chunk("x"), header(of("k"))], "INVALID_VALUE", "header"),
        (vec![header(of(""))], "KEY_EMPTY", "key"),
        (vec![header(of(&"k".repeat(4_097)))], "KEY_TOO_LONG", "key"),
        (vec![said(BlobHeader { size_bytes: 3, ..of("") }), chunk("four")], "BLOB_DIFFERS", "size_bytes"),
        (vec![said(BlobHeader { size_bytes: 5, ..of("") }), chunk("four")], "BLOB_DIFFERS", "size_bytes"),
        (vec![said(BlobHeader { sha256, ..of("") }), chunk("four")], "BLOB_DIFFERS", "sha256"),
        (vec![said(BlobHeader { sha256: Bytes::from("x"), ..of("") })], "INVALID_VALUE", "sha256"),
        (vec![said(BlobHeader { version: 1, ..of("") })], "INVALID_VALUE", "version"),
        (vec![said(BlobHeader { ttl_ms: u64::MAX, ..of("") })], "TTL_TOO_LONG", "ttl_ms"),
        (
            vec![said(BlobHeader { content_type: "t".repeat(256), ..of("") })],
            "CONTENT_TYPE_TOO_LONG",
            "content_type",
        ),
    ];
    for (parts, reason, field) in cases {
        let status = stored.put(parts).await.unwrap_err();
        assert_status(&status, Code::InvalidArgument, reason, Some(field));
    }
    let nowhere = header(BlobHeader { namespace: "none".to_owned(), ..of("k") });
    assert_status(&stored.put(vec![nowhere]).await.unwrap_err(), Code::NotFound, "NAMESPACE_NOT_FOUND", None);
    let (header, read) = stored.get(wanted("k")).await.unwrap();
    assert_eq!((header.version, &read[..]), (before.version, &b"before"[..]));
    blob_files_become(&stored.backend, 1).await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_leaves_the_blob_before_and_no_file() {
    let mut stored = Stored::start().await;
    stored.put(vec![header(of("k")), chunk("before")]).await.unwrap();
    for by_deadline in [false, true] {
        let (send, parts) = mpsc::channel(4);
        let mut request = Request::new(ReceiverStream::new(parts));
        if by_deadline {
            request.set_timeout(Duration::from_millis(300));
        }
        let mut cache = stored.calls.0.clone();
        let call = tokio::spawn(async move { cache.put_blob(request).await });
        send.send(header(of("k"))).await.unwrap();
        send.send(chunk(content(2 * CHUNK))).await.unwrap();
        blob_files_become(&stored.backend, 2).await;
        if by_deadline {
            let code = soon(call).await.unwrap().unwrap_err().code();
            assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&code), "{code:?}");
        } else {
            call.abort();
        }
        blob_files_become(&stored.backend, 1).await;
        assert_eq!(stored.get(wanted("k")).await.unwrap().1, b"before");
    }
}

#[tokio::test]
async fn a_blob_is_read_to_its_end_while_it_is_replaced_and_deleted() {
    let mut stored = Stored::start().await;
    let (one, client) = (content(20 * CHUNK), stored.client());
    stored
        .put(vec![
            header(of("k")),
            chunk(one[..one.len() / 2].to_vec()),
            chunk(one[one.len() / 2..].to_vec()),
        ])
        .await
        .unwrap();
    let mut reading = client.get_blob("k", BlobRange::default()).await.unwrap().unwrap();
    let first = reading.chunk().await.unwrap().unwrap();
    stored.put(vec![header(of("k")), chunk("two")]).await.unwrap();
    assert!(client.delete_blob("k").await.unwrap() && !client.delete_blob("k").await.unwrap());
    assert_eq!([&first[..], &reading.bytes().await.unwrap()].concat(), one);
    assert!(client.get_blob("k", BlobRange::default()).await.unwrap().is_none());
    assert_eq!(blob_files(&stored.backend), 0);
}

#[tokio::test]
async fn damage_on_the_disk_is_told_after_what_is_right() {
    let mut stored = Stored::start().await;
    let whole = content(3 * CHUNK);
    stored.put(vec![header(of("k")), chunk(whole.clone())]).await.unwrap();
    let (file, len) = stored.backend.files().unwrap()[0];
    stored.backend.flip_bit(file, len / 2, 1);
    let mut reading = stored.client().get_blob("k", BlobRange::default()).await.unwrap().unwrap();
    let mut read = Vec::new();
    let error = loop {
        match reading.chunk().await {
            Ok(chunk) => read.extend_from_slice(&chunk.expect("no end in good order")),
            Err(error) => break error,
        }
    };
    assert_eq!(read, &whole[..CHUNK]);
    let ClientError::Status(refusal) = error else { panic!("{error}") };
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::DataLoss, "BLOB_DAMAGED"));
    let last = BlobRange { offset: 2 * CHUNK as u64, length: 0 };
    let rest = stored.client().get_blob("k", last).await.unwrap().unwrap().bytes().await.unwrap();
    assert_eq!(rest, &whole[2 * CHUNK..]);
}

#[tokio::test]
async fn a_blobs_time_to_live_is_its_own_or_its_namespaces() {
    let mut stored = Stored::start().await;
    let config = NamespaceConfig { name: "n".to_owned(), default_ttl_ms: 60_000, ..Default::default() };
    let request = CreateNamespaceRequest { namespace: Some(config) };
    stored.node.admin().await.create_namespace(request).await.unwrap();
    let in_n = |key| BlobHeader { namespace: "n".to_owned(), ..of(key) };
    stored.put(vec![header(in_n("default"))]).await.unwrap();
    stored.put(vec![header(BlobHeader { ttl_ms: 5_000, ..in_n("own") })]).await.unwrap();
    stored.put(vec![header(BlobHeader { ttl_ms: 1, ..in_n("short") })]).await.unwrap();
    let mut ttl = async |key| {
        let request = GetBlobRequest { namespace: "n".to_owned(), ..wanted(key) };
        stored.get(request).await.map(|(header, _)| header.ttl_ms)
    };
    assert!((30_000..=60_000).contains(&ttl("default").await.unwrap()));
    assert!((1..=5_000).contains(&ttl("own").await.unwrap()));
    soon(async { while ttl("short").await.is_ok() {} }).await;
    let client = Client::builder([format!("tcp://{}", stored.node.data()).parse().unwrap()]);
    let client = client.namespace("n").build().unwrap();
    let page = client.list_blobs("", ListBlobsOptions::default()).await.unwrap();
    assert_eq!(page.blobs.iter().map(|blob| &blob.key[..]).collect::<Vec<_>>(), [&b"default"[..], b"own"]);
    assert!(!client.delete_blob("short").await.unwrap());
}

#[tokio::test]
async fn a_namespaces_blobs_go_with_it_and_stay_when_it_is_cleared() {
    let mut stored = Stored::start().await;
    let mut admin = stored.node.admin().await;
    let config = NamespaceConfig { name: "n".to_owned(), ..Default::default() };
    let create = CreateNamespaceRequest { namespace: Some(config) };
    admin.create_namespace(create.clone()).await.unwrap();
    stored.put(vec![header(of("k")), chunk("default")]).await.unwrap();
    stored.put(vec![header(BlobHeader { namespace: "n".to_owned(), ..of("k") }), chunk("n")]).await.unwrap();
    // One that is under way when its namespace goes.
    let (send, parts) = mpsc::channel(4);
    let mut cache = stored.calls.0.clone();
    let call = tokio::spawn(async move { cache.put_blob(ReceiverStream::new(parts)).await });
    send.send(header(BlobHeader { namespace: "n".to_owned(), ..of("l") })).await.unwrap();
    blob_files_become(&stored.backend, 3).await;
    admin.clear(ClearRequest::default()).await.unwrap();
    let deleted = admin.delete_namespace(DeleteNamespaceRequest { name: "n".to_owned() }).await.unwrap();
    assert_eq!(deleted.into_inner().blobs, 1);
    admin.create_namespace(create).await.unwrap();
    drop(send);
    let status = soon(call).await.unwrap().unwrap_err();
    assert_status(&status, Code::NotFound, "NAMESPACE_NOT_FOUND", None);
    let status = stored.get(GetBlobRequest { namespace: "n".to_owned(), ..wanted("k") }).await.unwrap_err();
    assert_status(&status, Code::NotFound, "BLOB_NOT_FOUND", None);
    assert_eq!(stored.get(wanted("k")).await.unwrap().1, b"default");
    blob_files_become(&stored.backend, 1).await;
}

#[tokio::test]
async fn a_blob_may_take_longer_than_the_nodes_time_for_calls() {
    let mut stored = Stored::with(&["--timeout", "200ms"]).await;
    let (send, parts) = mpsc::channel(4);
    let mut cache = stored.calls.0.clone();
    let call = tokio::spawn(async move { cache.put_blob(ReceiverStream::new(parts)).await });
    send.send(header(of("slow"))).await.unwrap();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        send.send(chunk("part")).await.unwrap();
    }
    drop(send);
    assert_eq!(soon(call).await.unwrap().unwrap().into_inner().size_bytes, 12);
    assert_eq!(stored.get(wanted("slow")).await.unwrap().1, b"partpartpart");
}

#[tokio::test]
async fn listings_come_in_pages_whose_tokens_outlive_what_they_point_at() {
    let mut stored = Stored::start().await;
    for n in 0..25 {
        stored.put(vec![header(of(&format!("k{n:02}"))), chunk("x")]).await.unwrap();
    }
    stored.put(vec![header(of("other"))]).await.unwrap();
    let client = stored.client();
    let page = async |page_token| {
        let options = ListBlobsOptions { page_size: 10, page_token };
        client.list_blobs("k", options).await.unwrap()
    };
    let first = page(Bytes::new()).await;
    assert!(client.delete_blob("k09").await.unwrap());
    let second = page(first.next_page_token.clone()).await;
    let third = page(second.next_page_token.clone()).await;
    let keys: Vec<_> =
        [&first, &second, &third].iter().flat_map(|page| &page.blobs).map(|blob| blob.key.clone()).collect();
    assert_eq!(keys, (0..25).map(|n| format!("k{n:02}")).collect::<Vec<_>>());
    assert!(third.next_page_token.is_empty() && first.blobs[0].size_bytes == 1);
    for (prefix, token) in
        [("", first.next_page_token.clone()), ("k", first.next_page_token.slice(..5)), ("k", "x".into())]
    {
        let options = ListBlobsOptions { page_size: 10, page_token: token };
        let Err(ClientError::Status(refusal)) = client.list_blobs(prefix, options).await else { panic!() };
        assert_status(&refusal.source, Code::InvalidArgument, "INVALID_VALUE", Some("page_token"));
    }
}

#[tokio::test]
async fn a_page_of_blobs_ends_before_the_message_limit() {
    let mut stored = Stored::with(&["--max-message-out", "16KiB", "--max-value", "8KiB"]).await;
    for n in 0..20 {
        stored.put(vec![header(of(&format!("{n:03000}"))), chunk(content(30_000))]).await.unwrap();
    }
    let (mut found, mut page_token) = (0, Bytes::new());
    loop {
        let request = ListBlobsRequest { page_size: 100, page_token, ..Default::default() };
        let page = soon(stored.calls.0.list_blobs(request)).await.unwrap().into_inner();
        assert!(page.encoded_len() <= 16 << 10 && !page.blobs.is_empty());
        found += page.blobs.len();
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found, 20);
    let (_, read) = stored.get(wanted(&format!("{:03000}", 7))).await.unwrap();
    assert_eq!(read, content(30_000), "chunks are cut to the limit");
}

#[tokio::test]
async fn blobs_outlive_the_node_on_every_backend() {
    for kind in BackendKind::ALL {
        let directory = tempfile::tempdir().unwrap();
        let body = content(2 * CHUNK + 9);
        for is_first in [true, false] {
            let node = Node::start().await;
            // Tasks of the node before, which end on this thread too, may hold the backend still.
            let (backend, notes) = soon(async {
                loop {
                    match backend::open(kind, directory.path()) {
                        Ok(opened) => break opened,
                        Err(_) => tokio::task::yield_now().await,
                    }
                }
            })
            .await;
            let cache = node.running.cache();
            let (blobs, opened) = Blobs::open(backend, None, cache.now()).unwrap();
            assert_eq!((notes.len(), opened.damaged, opened.leftovers), (0, 0, 0), "{kind:?}");
            assert!(cache.serve_blobs(blobs));
            let client =
                Client::builder([format!("tcp://{}", node.data()).parse().unwrap()]).build().unwrap();
            if is_first {
                client.put_blob_bytes("k", &BlobOptions::default(), body.clone()).await.unwrap();
                client.put_blob_bytes("gone", &BlobOptions::default(), body.clone()).await.unwrap();
                assert!(client.delete_blob("gone").await.unwrap());
                continue;
            }
            let read = client.get_blob("k", BlobRange::default()).await.unwrap().unwrap();
            assert_eq!(read.bytes().await.unwrap(), body, "{kind:?}");
            assert!(client.get_blob("gone", BlobRange::default()).await.unwrap().is_none());
            assert!(opened.version_max.0 > 0 && opened.blobs == 1);
        }
    }
}

#[tokio::test]
async fn a_node_that_keeps_nothing_on_disk_says_so() {
    let node = Node::start().await;
    let mut cache = node.cache().await;
    let none = |status: Status| assert_status(&status, Code::FailedPrecondition, "NO_PERSISTENCE", None);
    none(cache.put_blob(tokio_stream::iter([header(of("k"))])).await.unwrap_err());
    none(cache.get_blob(wanted("k")).await.unwrap_err());
    none(cache.delete_blob(DeleteBlobRequest { key: "k".into(), ..Default::default() }).await.unwrap_err());
    none(cache.list_blobs(ListBlobsRequest::default()).await.unwrap_err());
}

#[tokio::test]
async fn a_blob_that_is_not_read_is_reset() {
    let mut stored = Stored::with(&["--stall-timeout", "300ms"]).await;
    stored.put(vec![header(of("k")), chunk(content(10 * CHUNK))]).await.unwrap();
    let raw = Raw::connect_with(&stored.node.data(), 1_000).await;
    let (response, mut send) = raw.open(post("/larder.v1.Cache/GetBlob")).await;
    send.send_data(framed(&wanted("k")), true).unwrap();
    let mut stream = soon(response).await.unwrap().into_body();
    let reason = loop {
        match soon(stream.data()).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error.reason().unwrap(),
            None => panic!("the stream ended in good order"),
        }
    };
    assert_eq!(reason, Reason::CANCEL);
    assert_eq!(stored.get(wanted("k")).await.unwrap().1.len(), 10 * CHUNK);
}

#[tokio::test]
async fn many_streams_at_once_are_bounded_and_each_is_whole() {
    let mut stored = Stored::start().await;
    let mut open = Vec::new();
    for n in 0..64 {
        let (send, parts) = mpsc::channel(1);
        let mut cache = stored.calls.0.clone();
        let call = tokio::spawn(async move { cache.put_blob(ReceiverStream::new(parts)).await });
        send.send(header(of(&n.to_string()))).await.unwrap();
        open.push((send, call));
    }
    blob_files_become(&stored.backend, 64).await;
    let status = stored.put(vec![header(of("more"))]).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "OVERLOADED", None);
    let body = content(CHUNK + 1);
    for (send, _) in &open {
        send.send(chunk(body.clone())).await.unwrap();
    }
    for (send, call) in open {
        drop(send);
        assert_eq!(soon(call).await.unwrap().unwrap().into_inner().size_bytes, CHUNK as u64 + 1);
    }
    assert_eq!(stored.get(wanted("63")).await.unwrap().1, body);
}

#[tokio::test]
async fn the_client_stores_from_readers_and_tells_whose_fault_an_error_is() {
    let stored = Stored::start().await;
    let (client, body) = (stored.client(), content(3 * CHUNK + 1));
    let options = BlobOptions { content_type: "text/plain".to_owned(), ..BlobOptions::default() };
    let put = client.put_blob_from("reader", &options, &body[..]).await.unwrap();
    assert_eq!(put.size_bytes, body.len() as u64);
    client.put_blob_bytes("bytes", &options, body.clone()).await.unwrap();
    for key in ["reader", "bytes"] {
        let mut copied = Vec::new();
        let download = client.get_blob(key, BlobRange::default()).await.unwrap().unwrap();
        assert_eq!(
            (download.info().content_type.as_str(), download.left()),
            ("text/plain", body.len() as u64)
        );
        assert_eq!(download.copy_to(&mut copied).await.unwrap(), body.len() as u64);
        assert_eq!(copied, body);
    }
    let broken = tokio_stream::iter([Ok(Bytes::from("a")), Err(std::io::Error::other("unplugged"))]);
    let error = client.put_blob("reader", &options, broken).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Source { .. }) && error.to_string().contains("unplugged"),
        "{error}"
    );
    let wrong = BlobOptions { size_bytes: Some(1), ..options };
    let error = client.put_blob_from("reader", &wrong, &body[..]).await.unwrap_err();
    assert!(matches!(&error, ClientError::Status(refusal) if refusal.reason == "BLOB_DIFFERS"), "{error}");
    blob_files_become(&stored.backend, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_stores_reads_lists_and_removes_blobs() {
    let stored = Stored::start().await;
    let nodes = format!("tcp://{}", stored.node.data());
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("in.png"), png()).unwrap();
    let larder = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_larder")).args(args).args(["--nodes", &nodes]).output();
        let output = output.unwrap();
        (output.status.code(), output.stdout, String::from_utf8(output.stderr).unwrap())
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (code, out, err) =
        larder(&["put-blob", "img", &path("in.png"), "--content-type", "image/png", "--ttl", "1h"]);
    assert!(code == Some(0) && text(out).contains(&format!("size_bytes {}", png().len())), "{err}");
    assert_eq!(larder(&["get-blob", "img"]).1, png());
    assert_eq!(larder(&["get-blob", "img", "--offset", "1", "--length", "3"]).1, b"PNG");
    let (code, out, err) = larder(&["get-blob", "img", "-o", &path("out.png"), "--output", "json"]);
    let document: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((code, document["content_type"].as_str()), (Some(0), Some("image/png")), "{err}");
    assert_eq!(std::fs::read(path("out.png")).unwrap(), png());
    assert_eq!(larder(&["blobs"]).1, format!("img\t{}\timage/png\n", png().len()).into_bytes());
    let json = text(larder(&["blobs", "im", "--output", "json"]).1);
    let listed: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(listed["remaining_ttl_ms"].as_u64().unwrap() > 3_500_000);
    let (code, out, err) = larder(&["get-blob", "none", "-o", &path("none")]);
    assert!(code == Some(1) && out.is_empty() && err.contains("no blob"), "{err}");
    assert_eq!(larder(&["get-blob", "img", "--output", "json"]).0, Some(2));
    assert_eq!(larder(&["put-blob", "x", &path("no such file")]).0, Some(2));
    assert_eq!(larder(&["put-blob", "x", &path("")]).0, Some(2), "a directory");
    assert_eq!(text(larder(&["del-blob", "img", "none"]).1), "deleted 1\n");
    assert_eq!((larder(&["del-blob", "img"]).0, larder(&["blobs"]).0), (Some(1), Some(1)));
    let names: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "nothing is left over: {names:?}");
}
