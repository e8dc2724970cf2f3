//! An async client in a fork of its process: every call says so at once, and takes nothing from the parent.

use std::future::Future;
use std::mem::ManuallyDrop;
use std::time::Duration;

use larder::client::{
    BlobOptions, BlobRange, Client, ClientBuilder, ClientError, CounterOptions, DeleteOptions, GetOutcome,
    InvalidateScope, ScanOptions, SetOptions, WatchOptions,
};
use tokio::runtime::{Builder, Runtime};

use crate::support::forks;
use crate::support::node::*;

fn builder(url: &str) -> ClientBuilder {
    Client::builder([url.parse().unwrap()]).timeout(LONG)
}

/// A runtime that has no threads but the one that waits.
fn alone() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs a test of forks in a process of its own, with a node.
fn apart(name: &str, test: impl FnOnce(&str)) {
    match forks::url() {
        Some(url) => test(&url),
        None => {
            let runtime = Runtime::new().unwrap();
            let node = runtime.block_on(Node::start());
            forks::run_apart(&format!("client_forks::{name}"), &format!("tcp://{}", node.data()));
        }
    }
}

async fn set_and_get(client: &Client) {
    client.set("k", "v", &SetOptions::default()).await.unwrap();
    assert_eq!(client.get("k").await.unwrap().into_value().unwrap(), "v");
}

/// What a call comes to which nothing is to hold up.
fn at_once<T>(call: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    alone().block_on(async {
        let done = tokio::time::timeout(Duration::from_secs(2), call);
        done.await.expect("it hangs")
    })
}

/// Every kind of call, in a child.
fn each_call_is_refused(client: &Client) {
    fn is_forked<T>(outcome: Result<T, ClientError>) {
        match outcome {
            Ok(_) => panic!("it was made"),
            Err(error) => assert!(matches!(error, ClientError::Forked { .. }), "{error}"),
        }
    }
    let options = SetOptions::default();
    is_forked(at_once(client.get("k")));
    is_forked(at_once(client.metadata("k")));
    is_forked(at_once(client.set("k", "w", &options)));
    is_forked(at_once(client.set("long", vec![7; 1 << 20], &options)));
    is_forked(at_once(client.delete("k", &DeleteOptions::default())));
    is_forked(at_once(client.increment("n", 1, &CounterOptions::default())));
    is_forked(at_once(client.touch("k", LONG)));
    is_forked(at_once(client.batch_get(vec!["k".into()])));
    is_forked(at_once(client.batch_set(vec![("k".into(), "w".into())], &options)));
    is_forked(at_once(client.batch_delete(vec!["k".into()], None)));
    is_forked(at_once(client.scan("", ScanOptions::default())));
    is_forked(at_once(client.invalidate(InvalidateScope::All)));
    is_forked(at_once(client.watch(WatchOptions::default())));
    is_forked(at_once(client.blob_reader("b", BlobRange::default())));
    is_forked(at_once(client.put_blob("b", &BlobOptions::default(), futures_util::stream::empty())));
    is_forked(at_once(client.update("k", &options, |_| Some("w".into()))));
    let load = async { Ok::<_, ClientError>("w") };
    assert!(at_once(async { Ok(client.get_or_load("k", &options, load).await) }).unwrap().is_err());
    assert_eq!(client.metrics().commands, 0, "a fork has sent nothing");
}

#[test]
fn each_call_is_refused_and_the_parent_keeps_its_connections() {
    apart("each_call_is_refused_and_the_parent_keeps_its_connections", |url| {
        for runtime in [alone(), Runtime::new().unwrap()] {
            let client = runtime.block_on(builder(url).connect()).unwrap();
            runtime.block_on(async {
                set_and_get(&client).await;
                while client.metrics().connections_opened < 4 {
                    tokio::task::yield_now().await;
                }
            });
            let (runtime, client) = forks::in_a_fork((runtime, client), |(runtime, client)| {
                each_call_is_refused(&client);
                drop(client);
                // A runtime of several threads has none of them here, and would wait for them.
                let _kept_for_ever = ManuallyDrop::new(runtime);
                let client = at_once(builder(url).connect());
                drop(client.unwrap());
                alone().block_on(async { set_and_get(&builder(url).connect().await.unwrap()).await });
            });
            for _ in 0..10 {
                runtime.block_on(set_and_get(&client));
            }
            assert_eq!(client.metrics().connections_opened, 4, "none was lost");
        }
    });
}

#[test]
fn a_fork_from_the_midst_of_calls_hangs_nowhere() {
    apart("a_fork_from_the_midst_of_calls_hangs_nowhere", |url| {
        let runtime = Runtime::new().unwrap();
        // One that is at work whenever the process forks: its locks are held, and its tasks are awake.
        let client = runtime.block_on(builder(url).near_cache(1 << 20).connect()).unwrap();
        runtime.block_on(set_and_get(&client));
        for caller in 0..16 {
            let client = client.clone();
            runtime.spawn(async move {
                let options = SetOptions::default();
                for round in 0_u64.. {
                    client.set(format!("{caller}"), round.to_string(), &options).await.unwrap();
                    client.get(format!("{}", round % 16)).await.unwrap();
                    client.get("k").await.unwrap();
                }
            });
        }
        for _ in 0..50 {
            forks::in_a_fork(&client, each_call_is_refused);
        }
        for _ in 0..10 {
            // The only handle of one whose connections are being made.
            let last = runtime.block_on(async { builder(url).build().unwrap() });
            drop(forks::in_a_fork(last, drop));
        }
        runtime.block_on(set_and_get(&client));
    });
}

#[test]
fn a_connection_that_is_being_made_and_a_client_without_one_are_left_alone_too() {
    let name = "a_connection_that_is_being_made_and_a_client_without_one_are_left_alone_too";
    apart(name, |url| {
        // It accepts, and says nothing: the handshake is under way for as long as it is waited for.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = format!("tcp://{}", silent.local_addr().unwrap());
        let runtime = alone();
        let client = runtime.block_on(async { builder(&silent).build().unwrap() });
        let lone = runtime.block_on(async { builder(url).short_lived().build().unwrap() });
        runtime.block_on(async {
            let waits = tokio::time::timeout(Duration::from_millis(50), client.get("k")).await;
            assert!(waits.is_err(), "{waits:?}");
            set_and_get(&lone).await;
        });
        let (runtime, _client, lone) =
            forks::in_a_fork((runtime, client, lone), |(runtime, client, lone)| {
                // Driven on, the runtime has the lanes' tasks look at what they are in.
                runtime.block_on(async { tokio::task::yield_now().await });
                each_call_is_refused(&client);
                each_call_is_refused(&lone);
                let _kept_for_ever = ManuallyDrop::new(runtime);
            });
        assert!(matches!(runtime.block_on(lone.get("k")).unwrap(), GetOutcome::Hit(_)));
    });
}
