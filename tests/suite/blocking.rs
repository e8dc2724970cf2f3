//! The blocking client, as a program without a runtime meets it.

use std::io::{Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use larder::client::blocking::Client;
use larder::client::value::ValueCodec;
use larder::client::{
    BlobOptions, BlobRange, ClientBuilder, ClientError, CounterOptions, DeleteOptions, GetOutcome,
    InvalidateScope, ListBlobsOptions, LoadError, ScanOptions, SetOptions, Updated, WatchOptions,
};
use tokio::runtime::Runtime;

use crate::support::forks;
use crate::support::node::*;

/// A node with a runtime of its own, which the client knows nothing of.
struct Elsewhere {
    runtime: Runtime,
    node: Node,
    _directory: tempfile::TempDir,
}

impl Elsewhere {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let flags = ["--persistence", "journal", "--data-dir", directory.path().to_str().unwrap()];
        let node = runtime.block_on(Node::with(&flags));
        Self { runtime, node, _directory: directory }
    }

    fn url(&self) -> String {
        format!("tcp://{}", self.node.data())
    }

    fn client(&self) -> Client {
        Client::connect(&self.url()).unwrap()
    }
}

fn value(outcome: GetOutcome) -> Bytes {
    outcome.into_value().expect("a hit")
}

#[test]
fn calls_of_many_threads_go_out_together_and_each_has_its_own_answer() {
    let elsewhere = Elsewhere::start();
    let client = elsewhere.client();
    let plain = SetOptions::default();
    std::thread::scope(|scope| {
        for thread in 0..32 {
            let (client, plain) = (&client, &plain);
            scope.spawn(move || {
                for round in 0..50 {
                    let (key, text) = (format!("{thread}-{round}"), format!("{thread}:{round}"));
                    client.set(&key, text.clone(), plain).unwrap();
                    assert_eq!(value(client.get(&key).unwrap()), text);
                }
                client.clone().increment("counter", 1, &CounterOptions::default()).unwrap();
            });
        }
    });
    assert_eq!(value(client.get("counter").unwrap()), "32");
    let metrics = client.metrics();
    assert_eq!((metrics.commands, metrics.replies), (32 * 101 + 1, 32 * 101 + 1));
    assert!(metrics.batches < metrics.commands, "they go out together: {metrics:?}");
}

#[test]
fn each_call_of_the_data_plane_is_there() {
    let elsewhere = Elsewhere::start();
    let (client, plain) = (elsewhere.client(), SetOptions::default());
    let mut events = client.watch(WatchOptions::default()).unwrap();
    assert!(events.next().unwrap().is_ok());
    client.set("a", "1", &plain).unwrap();
    assert_eq!(client.metadata("a").unwrap().entry().unwrap().value_bytes, 1);
    assert!(client.touch("a", LONG).unwrap());
    assert_eq!(client.decrement("n", 2, &CounterOptions::default()).unwrap().value, -2);
    assert!(client.delete("n", &DeleteOptions::default()).unwrap().deleted);
    client.batch_set(vec![("b".into(), "2".into()), ("c".into(), "3".into())], &plain).unwrap();
    let got = client.batch_get(vec!["a".into(), "x".into()]).unwrap();
    assert_eq!(got[1].as_ref().unwrap().entry(), None);
    assert_eq!(client.scan("", ScanOptions::default()).unwrap().items.len(), 3);
    let pages = ScanOptions { page_size: 1, ..ScanOptions::default() };
    assert_eq!(client.scan_iter("", pages).filter(|item| item.is_ok()).count(), 3);
    assert_eq!(client.batch_delete(vec!["a".into()], None).unwrap()[0].as_ref().unwrap(), &true);
    client.invalidate(InvalidateScope::All).unwrap();
    let other = client.with_namespace("none").with_timeout(LONG).get("b").unwrap_err();
    assert!(
        matches!(&other, ClientError::Status(refusal) if refusal.reason == "NAMESPACE_NOT_FOUND"),
        "{other}"
    );
    let both = client.block_on(async |client| {
        let (b, c) = tokio::join!(client.get("b"), client.get("c"));
        Ok::<_, ClientError>((b?, c?))
    });
    assert!(matches!(both.unwrap(), (GetOutcome::Miss(_), GetOutcome::Miss(_))));
}

#[test]
fn values_are_typed_changed_and_loaded_by_the_thread_that_misses_them() {
    let elsewhere = Elsewhere::start();
    let (client, plain) = (elsewhere.client(), SetOptions::default());
    let numbers = client.typed::<Vec<u32>>(ValueCodec::json());
    numbers.set("n", &vec![1], &plain).unwrap();
    let push = |old: Option<Vec<u32>>| old.map(|old| [old, vec![2]].concat());
    assert!(
        matches!(numbers.update("n", &plain, push).unwrap(), Updated::Stored { value, .. } if value == [1, 2])
    );
    assert_eq!(numbers.get("n").unwrap(), Some(vec![1, 2]));
    assert_eq!(numbers.get_or_load("m", &plain, || Ok::<_, ClientError>(vec![7])).unwrap(), [7]);
    assert_eq!(value(client.get("m").unwrap()), "[7]");
    let changed = client.update("m", &plain, |old| old.map(|_| "new".into())).unwrap();
    assert!(matches!(changed, Updated::Stored { value, .. } if value == "new"));

    // Called by the thread that wants it, which may be one that has what is needed to load.
    let this = std::thread::current().id();
    let load =
        || Ok::<_, ClientError>(if std::thread::current().id() == this { "here" } else { "elsewhere" });
    assert_eq!(client.get_or_load("loaded", &plain, load).unwrap(), "here");
    assert_eq!(value(client.get("loaded").unwrap()), "here");
    let failed = client.get_or_load("none", &plain, || Err::<Bytes, _>("no source")).unwrap_err();
    assert!(matches!(failed, LoadError::Load("no source")));
}

#[test]
fn blobs_are_read_and_written_as_files_are() {
    let elsewhere = Elsewhere::start();
    let client = elsewhere.client();
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let options = BlobOptions { content_type: "image/png".to_owned(), ..BlobOptions::default() };
    let mut writer = client.blob_writer("picture", &options);
    std::io::copy(&mut &body[..], &mut writer).unwrap();
    writer.flush().unwrap();
    assert_eq!(writer.finish().unwrap().size_bytes, body.len() as u64);
    let mut reader = client.blob_reader("picture", BlobRange::default()).unwrap().unwrap();
    assert_eq!(
        (reader.info().content_type.as_str(), reader.info().size_bytes),
        ("image/png", body.len() as u64)
    );
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    assert!(read == body);
    let mut abandoned = client.blob_writer("half", &options);
    abandoned.write_all(&body).unwrap();
    drop(abandoned);
    assert!(client.blob_reader("half", BlobRange::default()).unwrap().is_none());
    client.put_blob_bytes("small", &options, "x").unwrap();
    let keys: Vec<Bytes> =
        client.list_blobs_iter("", ListBlobsOptions::default()).map(|blob| blob.unwrap().key).collect();
    assert_eq!(keys, ["picture", "small"]);
    assert!(client.delete_blob("small").unwrap());
    assert_eq!(client.list_blobs("s", ListBlobsOptions::default()).unwrap().blobs, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn in_a_task_a_call_is_an_error_and_on_a_thread_that_may_wait_it_is_none() {
    let node = Node::start().await;
    let builder = || ClientBuilder::new([node.data().parse().unwrap()]);
    let error = builder().connect_blocking().map(drop).unwrap_err();
    assert!(matches!(error, ClientError::InTask), "{error:?}");
    let client = builder().build_blocking().unwrap();
    let error = client.get("k").unwrap_err();
    assert!(matches!(error, ClientError::InTask) && error.is_usage(), "{error:?}");
    assert!(error.to_string().contains("spawn_blocking"), "{error}");
    let error = client.scan_iter("", ScanOptions::default()).next().unwrap().unwrap_err();
    assert!(matches!(error, ClientError::InTask), "{error:?}");
    let asked = tokio::task::spawn_blocking(move || {
        client.set("k", "v", &SetOptions::default()).unwrap();
        client.get("k").unwrap()
    });
    assert_eq!(value(soon(asked).await.unwrap()), "v");
}

#[test]
fn a_node_that_is_gone_and_a_url_that_is_none_are_errors_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let error = Client::connect(&format!("tcp://{nobody}")).map(drop).unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { .. }), "{error:?}");
    assert!(matches!(Client::connect("gopher://x"), Err(ClientError::BadUrl(_))));
    let client = ClientBuilder::new([nobody.to_string().parse().unwrap()]).build_blocking().unwrap();
    assert!(matches!(client.get("k").unwrap(), GetOutcome::Miss(larder::client::MissReason::OwnerDown)));
}

#[test]
fn the_thread_has_ended_when_the_last_clone_is_gone() {
    let elsewhere = Elsewhere::start();
    let client = elsewhere.client();
    /// What takes its time to end, so that who does not wait for it is found out.
    struct EndsLate {
        _held: Arc<()>,
    }

    impl Drop for EndsLate {
        fn drop(&mut self) {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    let of_a_task = Arc::new(());
    let held = EndsLate { _held: of_a_task.clone() };
    let spawned = client.block_on(async |_| {
        tokio::spawn(async move {
            let _held_until_the_end = held;
            std::future::pending::<()>().await;
        });
        Ok::<_, ClientError>(())
    });
    spawned.unwrap();
    let (clone, items) = (client.clone(), client.scan_iter("", ScanOptions::default()));
    drop(client);
    drop(clone);
    assert_eq!(Arc::strong_count(&of_a_task), 2, "the items need the client yet");
    drop(items);
    assert_eq!(Arc::strong_count(&of_a_task), 1);
}

#[test]
fn in_a_fork_a_call_is_an_error_and_a_new_client_works() {
    let name = "blocking::in_a_fork_a_call_is_an_error_and_a_new_client_works";
    let Some(url) = forks::url() else {
        let elsewhere = Elsewhere::start();
        forks::run_apart(name, &elsewhere.url());
        drop(elsewhere.runtime);
        return;
    };
    let client = Client::connect(&url).unwrap();
    client.set("k", "v", &SetOptions::default()).unwrap();
    let items = client.scan_iter("", ScanOptions::default());
    let mut writer = client.blob_writer("b", &BlobOptions::default());
    writer.write_all(b"half").unwrap();
    let all = (client, items, writer);
    let (client, _, writer) =
        forks::in_a_fork(all, |(client, items, writer)| forked(&url, client, items, writer));
    // The fork has taken nothing from its parent.
    assert_eq!(value(client.get("k").unwrap()), "v");
    assert_eq!(writer.finish().unwrap().size_bytes, 4);
}

/// What a child sees of what its parent has made.
fn forked(
    url: &str,
    client: Client,
    mut items: impl Iterator<Item = Result<larder::client::ScanItem, ClientError>>,
    mut writer: larder::client::blocking::BlobWriter,
) {
    let is_forked = |error: &ClientError| matches!(error, ClientError::Forked { .. });
    let error = client.get("k").unwrap_err();
    assert!(is_forked(&error) && error.to_string().contains("build a client after the fork"), "{error}");
    assert!(is_forked(&items.next().unwrap().unwrap_err()));
    let error = writer.write(b"more").unwrap_err();
    assert!(error.get_ref().unwrap().downcast_ref::<ClientError>().is_some_and(is_forked));
    drop((client, items, writer));
    let client = Client::connect(url).unwrap();
    assert_eq!(value(client.get("k").unwrap()), "v");
}
