//! What the client library streams, lists and stores many at once of: blobs as readers and writers, scans, batches.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use larder::client::{
    BatchItem, BlobOptions, BlobRange, Client, ClientError, GetOutcome, InvalidateScope, ListBlobsOptions,
    NotStored, ScanOptions, SetCondition, SetExpiration, SetOptions, SetOutcome,
};
use larder::entry::{Durability, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use crate::support::node::*;
use crate::support::proxy::{Network, Proxy};

struct Stored {
    node: Node,
    _directory: tempfile::TempDir,
}

impl Stored {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let flags = ["--persistence", "journal", "--data-dir", directory.path().to_str().unwrap()];
        Self { node: Node::with(&flags).await, _directory: directory }
    }
}

async fn client(url: &str) -> Client {
    Client::builder([url.parse().unwrap()]).connect().await.unwrap()
}

/// A reader of this number of bytes, of which each differs from its neighbours.
struct Pattern {
    at: u64,
    end: u64,
}

impl Pattern {
    fn of(bytes: u64) -> Self {
        Self { at: 0, end: bytes }
    }

    fn byte(at: u64) -> u8 {
        (at as u8).wrapping_mul(31) ^ (at >> 8) as u8
    }
}

impl AsyncRead for Pattern {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let end = self.end.min(self.at + buffer.remaining() as u64);
        let part: Vec<u8> = (self.at..end).map(Self::byte).collect();
        buffer.put_slice(&part);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

/// The library's error in one of a reader or a writer.
#[track_caller]
fn within(error: &std::io::Error) -> &ClientError {
    error.get_ref().and_then(|error| error.downcast_ref()).unwrap_or_else(|| panic!("{error:?}"))
}

#[tokio::test]
async fn a_blob_of_50_mb_is_written_and_read_by_tokio_copy() {
    let stored = Stored::start().await;
    let client = client(&stored.node.data()).await;
    let options = BlobOptions { content_type: "video/mp4".to_owned(), ..BlobOptions::default() };
    let bytes = 50_000_000;
    let mut writer = client.blob_writer("film", &options);
    assert_eq!(tokio::io::copy(&mut Pattern::of(bytes), &mut writer).await.unwrap(), bytes);
    assert!(client.get_blob("film", BlobRange::default()).await.unwrap().is_none(), "it is not finished");
    writer.shutdown().await.unwrap();
    let late = writer.write(b"more").await.unwrap_err();
    assert_eq!(late.kind(), std::io::ErrorKind::BrokenPipe, "{late}");
    let put = writer.finish().await.unwrap();
    assert_eq!(put.size_bytes, bytes);

    let mut reader = client.blob_reader("film", BlobRange::default()).await.unwrap().unwrap();
    let info = reader.info().clone();
    assert_eq!(
        (info.size_bytes, info.content_type.as_str(), info.version),
        (bytes, "video/mp4", put.version)
    );
    let mut read = Vec::new();
    assert_eq!(tokio::io::copy_buf(&mut reader, &mut read).await.unwrap(), bytes);
    assert!((0_u64..).zip(&read).all(|(at, byte)| *byte == Pattern::byte(at)));

    let range = BlobRange { offset: 49_999_990, length: 4 };
    let mut part = Vec::new();
    client.blob_reader("film", range).await.unwrap().unwrap().read_to_end(&mut part).await.unwrap();
    assert_eq!(part, read[49_999_990..49_999_994]);
    assert!(client.blob_reader("no film", BlobRange::default()).await.unwrap().is_none());
    let empty = client.blob_writer("empty", &options).finish().await.unwrap();
    assert_eq!(empty.size_bytes, 0);
}

#[tokio::test]
async fn a_writer_that_is_dropped_or_whose_node_goes_stores_nothing() {
    let stored = Stored::start().await;
    let direct = client(&stored.node.data()).await;
    direct.put_blob_bytes("k", &BlobOptions::default(), "before").await.unwrap();
    let proxy = Proxy::before(&stored.node.data()).await;
    let client = client(&proxy.url()).await;
    let mut abandoned = client.blob_writer("k", &BlobOptions::default());
    abandoned.write_all(&[7; 1 << 20]).await.unwrap();
    abandoned.flush().await.unwrap();
    drop(abandoned);
    let mut broken = client.blob_writer("k", &BlobOptions::default());
    broken.write_all(&[7; 1 << 20]).await.unwrap();
    broken.flush().await.unwrap();
    proxy.cut();
    let error = tokio::io::copy(&mut Pattern::of(u64::MAX), &mut broken).await.unwrap_err();
    assert!(within(&error).is_unavailable(), "{error:?}");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
    let again = broken.write(b"x").await.unwrap_err();
    assert!(again.to_string().contains("has failed before"), "{again}");
    assert!(matches!(broken.finish().await.unwrap_err(), ClientError::Source { .. }));
    let kept = direct.get_blob("k", BlobRange::default()).await.unwrap().unwrap();
    assert_eq!(kept.bytes().await.unwrap(), b"before");
    let wrong = BlobOptions { size_bytes: Some(1), ..BlobOptions::default() };
    let mut writer = direct.blob_writer("k", &wrong);
    writer.write_all(b"two").await.unwrap();
    let error = writer.shutdown().await.unwrap_err();
    assert!(
        matches!(within(&error), ClientError::Status(refusal) if refusal.reason == "BLOB_DIFFERS"),
        "{error}"
    );
}

#[tokio::test]
async fn a_node_that_takes_nothing_holds_a_writer_back_until_the_timeout() {
    let stored = Stored::start().await;
    let proxy = Proxy::before(&stored.node.data()).await;
    let client = Client::builder([proxy.url().parse().unwrap()])
        .keepalive(LONG, LONG)
        .timeout(Duration::from_millis(400))
        .connect()
        .await
        .unwrap();
    let mut writer =
        client.with_timeout(Duration::from_millis(300)).blob_writer("k", &BlobOptions::default());
    writer.write_all(&[7; 1 << 20]).await.unwrap();
    proxy.set(Network::BlackHole);
    let mut taken = 0_u64;
    let error = loop {
        match writer.write(&[7; 64 << 10]).await {
            Ok(count) => taken += count as u64,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
    let ClientError::Timeout { after, .. } = within(&error) else { panic!("{error:?}") };
    assert_eq!(*after, Duration::from_millis(300), "that of this client, and not of the builder");
    // What lies in chunks, windows and the sockets of both ends of the proxy.
    assert!(taken < 32 << 20, "{taken} bytes were taken by nobody");
}

#[tokio::test]
async fn a_reader_whose_node_goes_fails_with_what_the_client_says() {
    let stored = Stored::start().await;
    let proxy = Proxy::before(&stored.node.data()).await;
    let client = client(&proxy.url()).await;
    client.put_blob_from("k", &BlobOptions::default(), Pattern::of(20 << 20)).await.unwrap();
    let mut reader = client.blob_reader("k", BlobRange::default()).await.unwrap().unwrap();
    reader.read_u8().await.unwrap();
    proxy.cut();
    let error = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await.unwrap_err();
    assert!(within(&error).is_unavailable(), "{error:?}");
    assert_eq!(reader.read(&mut [0; 10]).await.unwrap(), 0, "nothing more comes after an error");
}

#[tokio::test]
async fn listings_are_streams_over_their_pages() {
    let stored = Stored::start().await;
    let client = client(&stored.node.data()).await;
    let items = (0..1_000).map(|nth| (Bytes::from(format!("k{nth}")), Bytes::from("v"))).collect();
    client.batch_set(items, &SetOptions::default()).await.unwrap();
    client.set("other", "v", &SetOptions::default()).await.unwrap();
    let options = ScanOptions { page_size: 70, keys_only: true, ..ScanOptions::default() };
    let mut keys = BTreeSet::new();
    let mut found = client.scan_stream("k", options.clone());
    while let Some(item) = found.next().await {
        let item = item.unwrap();
        assert_eq!((item.entry.value_bytes, item.entry.value.len()), (1, 0));
        assert!(keys.insert(item.key.clone()), "{:?} twice", item.key);
    }
    assert_eq!(keys.len(), 1_000);
    let bad = ScanOptions { page_token: "no token".into(), ..options };
    let error = client.scan_stream("k", bad).try_collect::<Vec<_>>().await.unwrap_err();
    assert!(matches!(error, ClientError::Status(_)), "{error}");
    for nth in 0..7 {
        client.put_blob_bytes(format!("b{nth}"), &BlobOptions::default(), "x").await.unwrap();
    }
    let options = ListBlobsOptions { page_size: 2, ..ListBlobsOptions::default() };
    let blobs: Vec<_> =
        client.list_blobs_stream("b", options).map_ok(|blob| blob.key).try_collect().await.unwrap();
    assert_eq!(blobs, (0..7).map(|nth| format!("b{nth}")).collect::<Vec<_>>());
}

fn item(key: &str, options: SetOptions) -> BatchItem {
    BatchItem { key: key.to_owned().into(), value: key.to_owned().into(), options }
}

#[tokio::test]
async fn each_item_of_a_batch_has_its_own_options() {
    // Smaller than the batch, so that it goes out in parts.
    let node = Node::with(&["--max-batch", "2"]).await;
    let client = client(&node.data()).await;
    client.set("there", "old", &SetOptions::default()).await.unwrap();
    let plain = SetOptions::default;
    let items = vec![
        item("plain", plain()),
        item("ttl", SetOptions { expiration: SetExpiration::After(LONG), ..plain() }),
        item("typed", SetOptions { content_type: "text/html".to_owned(), flags: 7, ..plain() }),
        item("there", SetOptions { condition: SetCondition::IfAbsent, ..plain() }),
        item("tagged", SetOptions { tags: vec!["menu".to_owned()], ..plain() }),
        item("other durability", SetOptions { durability: Some(Durability::Flushed), ..plain() }),
        item("", plain()),
        item("none", SetOptions { condition: SetCondition::IfVersion(Version(1)), ..plain() }),
    ];
    let results = client.batch_set_items(items, Some(Durability::Buffered)).await.unwrap();
    let outcomes: Vec<_> =
        results.into_iter().map(|result| result.map_err(|refusal| refusal.reason)).collect();
    for at in [0, 1, 2, 4] {
        assert!(matches!(outcomes[at], Ok(SetOutcome::Stored(_))), "{at}: {outcomes:?}");
    }
    let not_met = |current| SetOutcome::NotStored(NotStored::ConditionNotMet { current });
    assert!(matches!(
        outcomes[3],
        Ok(SetOutcome::NotStored(NotStored::ConditionNotMet { current: Some(_) }))
    ));
    assert!(outcomes[5].is_err() && outcomes[6].is_err(), "{outcomes:?}");
    assert_eq!(outcomes[7], Ok(not_met(None)));
    let entry = async |key: &str| {
        let GetOutcome::Hit(hit) = client.get(key).await.unwrap() else { panic!("no {key}") };
        (hit.value, hit.remaining_ttl.is_some(), hit.flags, hit.content_type)
    };
    assert_eq!(entry("plain").await, ("plain".into(), false, 0, String::new()));
    assert_eq!(entry("ttl").await, ("ttl".into(), true, 0, String::new()));
    assert_eq!(entry("typed").await, ("typed".into(), false, 7, "text/html".to_owned()));
    assert_eq!(entry("there").await.0, "old");
    client.invalidate(InvalidateScope::Tag("menu".to_owned())).await.unwrap();
    assert!(client.get("tagged").await.unwrap().entry().is_none());
    assert!(client.get("plain").await.unwrap().entry().is_some());
}

#[tokio::test]
async fn a_batch_with_a_condition_is_done_once_and_no_miss_of_a_node_that_is_out() {
    let node = Node::start().await;
    let proxy = Proxy::before(&node.data()).await;
    let client = client(&proxy.url()).await;
    // The first call of its kind makes the connection.
    client.batch_get(vec!["k".into()]).await.unwrap();
    proxy.set(Network::DropsAnswers);
    let conditional =
        || vec![item("k", SetOptions { condition: SetCondition::IfAbsent, ..SetOptions::default() })];
    let cut = async {
        let mut calls = Calls(node.cache().await);
        while calls.get("k").await.is_err() {}
        proxy.cut();
        tokio::task::yield_now().await;
        proxy.set(Network::Passes);
    };
    let (outcome, ()) = tokio::join!(client.batch_set_items(conditional(), None), cut);
    let error = outcome.expect_err("nobody can tell whether it was done, and it was done once");
    assert!(matches!(error, ClientError::Closed { .. } | ClientError::BrokenOff { .. }), "{error:?}");

    drop(node);
    proxy.set(Network::BlackHole);
    proxy.cut();
    let mut health = client.health();
    soon(health.wait_for(|health| health.availability == larder::client::Availability::Unreachable))
        .await
        .unwrap();
    let plain = client.batch_set_items(vec![item("k", SetOptions::default())], None).await.unwrap();
    assert!(matches!(plain[..], [Ok(SetOutcome::NotStored(NotStored::OwnerDown))]));
    let error = client.batch_set_items(conditional(), None).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    let error = client.get_blob("k", BlobRange::default()).await.map(drop).unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { .. }), "a blob costs no time-out either: {error:?}");
}
