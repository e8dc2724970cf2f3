//! The client library: many callers on few connections, and what an application sees when a node is gone.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder::client::{
    Availability, Client, ClientBuilder, ClientError, CounterOptions, DeleteOptions, GetOutcome, MissReason,
    NamespaceUpdate, NotStored, OnUnavailable, Phase, SetCondition, SetOptions, SetOutcome,
};
use larder::clock::monotonic;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::node::*;
use crate::support::proxy::{Network, Proxy};

/// Nothing that is tested here waits longer, whatever its deadline is.
const AT_ONCE: Duration = Duration::from_millis(100);

fn builder(url: &str) -> ClientBuilder {
    Client::builder([url.parse().unwrap()])
}

fn plain() -> SetOptions {
    SetOptions::default()
}

async fn put(client: &Client, key: &str, value: &str) {
    let outcome = client.set(key, value.to_owned(), &plain()).await.unwrap();
    assert!(matches!(outcome, SetOutcome::Stored(_)), "{outcome:?}");
}

fn value(outcome: GetOutcome) -> Bytes {
    outcome.into_value().expect("a hit")
}

fn is_out(outcome: &GetOutcome) -> bool {
    matches!(outcome, GetOutcome::Miss(MissReason::OwnerDown))
}

/// Waits until the client says of its node that it is so, no longer than a second, and says how long that took.
async fn becomes(client: &Client, availability: Availability) -> Duration {
    let (begun, mut health) = (monotonic(), client.health());
    let changed = tokio::time::timeout(LONG, health.wait_for(|health| health.availability == availability));
    changed.await.unwrap_or_else(|_| panic!("{:?}, not {availability}", client.health().borrow())).unwrap();
    begun.elapsed()
}

#[tokio::test]
async fn many_callers_share_few_connections_and_each_has_its_own_answer() {
    let node = Node::start().await;
    let client = builder(&node.data()).connections(NonZeroUsize::new(2).unwrap()).connect().await.unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..200 {
        let client = client.clone();
        callers.spawn(async move {
            for round in 0..20 {
                let (key, text) = (format!("{caller}-{round}"), format!("{caller}:{round}"));
                put(&client, &key, &text).await;
                assert_eq!(value(client.get(&key).await.unwrap()), text);
                assert!(client.touch(&key, LONG).await.unwrap());
                assert!(client.delete(&key, &DeleteOptions::default()).await.unwrap().deleted);
                assert!(client.get(&key).await.unwrap().entry().is_none());
            }
            client.increment("counter", 1, &CounterOptions::default()).await.unwrap();
        });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    assert_eq!(value(client.get("counter").await.unwrap()), "200");
    let metrics = client.metrics();
    assert_eq!(metrics.commands, 200 * (20 * 5 + 1) + 1);
    assert_eq!((metrics.replies, metrics.connections_opened), (metrics.commands, 2));
    assert!(metrics.batches * 2 < metrics.commands, "they go out together: {metrics:?}");
}

#[tokio::test]
async fn calls_of_one_key_keep_their_order_on_any_number_of_connections() {
    let node = Node::start().await;
    let client = builder(&node.data()).connections(NonZeroUsize::new(8).unwrap()).connect().await.unwrap();
    for round in 0..20 {
        let options = plain();
        // As many as spread over all connections, and some that are too long for one batch.
        let sets = (0..2_000).map(|nth| {
            let text = if nth % 50 == 0 { format!("{nth:060000}") } else { nth.to_string() };
            client.set(format!("key-{}", nth % 3), text, &options)
        });
        futures_util::future::join_all(sets).await;
        for (key, last) in [(0, "1998"), (1, "1999"), (2, "1997")] {
            assert_eq!(value(client.get(format!("key-{key}")).await.unwrap()), last, "round {round}");
        }
    }
}

#[tokio::test]
async fn a_node_that_is_killed_is_a_miss_within_a_second_and_hits_again_when_it_is_back() {
    let node = Process::start(&[]);
    let listen = format!("tcp://{}", node.ready.data[0]);
    let client = builder(&node.ready.data[0]).connect().await.unwrap();
    put(&client, "k", "v").await;
    let (is_over, killed_at) = (Arc::new(AtomicBool::new(false)), Arc::new(std::sync::OnceLock::new()));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (client, is_over, killed_at) = (client.clone(), is_over.clone(), killed_at.clone());
        callers.spawn(async move {
            // When the last call came to anything but a hit or a miss, and the longest that one took.
            let (mut last, mut longest) = (Duration::ZERO, Duration::ZERO);
            while !is_over.load(Ordering::Relaxed) {
                let begun = monotonic();
                let outcome = client.get("k").await;
                longest = longest.max(begun.elapsed());
                if outcome.is_err() {
                    last = killed_at.get().map_or(LONG, Instant::elapsed);
                }
                tokio::task::yield_now().await;
            }
            (last, longest)
        });
    }
    while client.metrics().replies < 1_000 {
        tokio::task::yield_now().await;
    }
    killed_at.set(monotonic()).unwrap();
    node.signal("KILL");
    assert!(becomes(&client, Availability::Unreachable).await < Duration::from_secs(1));
    let begun = monotonic();
    for _ in 0..1_000 {
        assert!(is_out(&client.get("k").await.unwrap()));
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "a thousand misses cost no time-out");
    let not_stored = client.set("k", "v", &plain()).await.unwrap();
    assert_eq!(not_stored, SetOutcome::NotStored(NotStored::OwnerDown));
    let batch = client.batch_get(vec!["k".into(), "l".into()]).await.unwrap();
    assert!(batch.len() == 2 && batch.iter().all(|outcome| is_out(outcome.as_ref().unwrap())));
    // What must not be lost in silence.
    let options = SetOptions { condition: SetCondition::IfAbsent, ..plain() };
    for error in [
        client.delete("k", &DeleteOptions::default()).await.unwrap_err(),
        client.touch("k", LONG).await.unwrap_err(),
        client.increment("n", 1, &CounterOptions::default()).await.unwrap_err(),
        client.set("k", "v", &options).await.unwrap_err(),
        client.batch_delete(vec!["k".into()], None).await.unwrap_err(),
    ] {
        assert!(matches!(error, ClientError::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains(&listen) && error.to_string().contains("was not sent"), "{error}");
    }
    drop(node);
    let back = Process::start_on(&["--listen", &listen, "--persistence", "none"]);
    let begun = monotonic();
    loop {
        if client
            .set("k", "new", &plain())
            .await
            .is_ok_and(|outcome| matches!(outcome, SetOutcome::Stored(_)))
        {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", client.health().borrow());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(value(client.get("k").await.unwrap()), "new");
    is_over.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        let (last, longest) = caller.unwrap();
        assert!(last < Duration::from_secs(1), "a call failed {last:?} after the node was gone");
        assert!(longest <= Duration::from_millis(1_100), "a call took {longest:?}");
    }
    assert_eq!(client.metrics().times_out, 1);
    drop(back);
}

#[tokio::test]
async fn a_node_that_hangs_is_a_miss_within_a_second_and_hits_again_when_it_goes_on() {
    let node = Process::start(&[]);
    let client = builder(&node.ready.data[0]).connect().await.unwrap();
    put(&client, "k", "v").await;
    node.stopped();
    // Callers that ask at that moment are answered when it is found out, and not when their deadline passes.
    let patient = client.with_timeout(LONG);
    let asked = monotonic();
    let outcomes = futures_util::future::join_all((0..100).map(|_| patient.get("k"))).await;
    assert!(outcomes.iter().all(|outcome| is_out(outcome.as_ref().unwrap())), "{:?}", outcomes[0]);
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    let begun = monotonic();
    assert!(is_out(&patient.get("k").await.unwrap()));
    assert!(begun.elapsed() < AT_ONCE);
    assert_eq!(client.health().borrow().availability, Availability::Unreachable);
    node.signal("CONT");
    assert!(becomes(&client, Availability::Available).await < Duration::from_secs(1));
    assert_eq!(value(client.get("k").await.unwrap()), "v");
}

#[tokio::test]
async fn a_network_that_swallows_everything_is_found_out_by_keepalive() {
    let node = Node::start().await;
    let proxy = Proxy::before(&node.data()).await;
    let client = builder(&proxy.url()).connect().await.unwrap();
    put(&client, "k", "v").await;
    proxy.set(Network::BlackHole);
    // Nobody calls: the client finds out by itself.
    assert!(becomes(&client, Availability::Unreachable).await < Duration::from_millis(1_200));
    assert!(is_out(&client.get("k").await.unwrap()));
    proxy.set(Network::Passes);
    becomes(&client, Availability::Available).await;
    assert_eq!(value(client.get("k").await.unwrap()), "v");
}

#[tokio::test]
async fn calls_whose_answers_are_lost_are_repeated_where_that_is_safe_and_count_once() {
    let node = Node::start().await;
    let proxy = Proxy::before(&node.data()).await;
    let client = builder(&proxy.url()).connections(NonZeroUsize::MIN).connect().await.unwrap();
    for round in 1..=20_i64 {
        // Two of these calls are to be repeated, and a tenth of all may be.
        for _ in 0..20 {
            client.get("k").await.unwrap();
        }
        proxy.set(Network::DropsAnswers);
        let before = client.metrics().batches;
        let (options, always) = (CounterOptions::default(), plain());
        let condition = SetOptions { condition: SetCondition::IfAbsent, ..plain() };
        let (counted, put, absent, cut) = tokio::join!(
            client.increment("n", 1, &options),
            client.set("k", "v", &always),
            client.set(format!("once-{round}"), "v", &condition),
            async {
                // They are sent, and done, and nobody hears of it.
                while client.metrics().batches == before {
                    tokio::task::yield_now().await;
                }
                let mut calls = Calls(node.cache().await);
                while calls.get(format!("once-{round}")).await.is_err() {}
                proxy.cut();
                // Those that were there are gone before the network is well again.
                tokio::task::yield_now().await;
                proxy.set(Network::Passes);
            }
        );
        let () = cut;
        assert_eq!(counted.unwrap().value, round, "counted once");
        assert!(matches!(put.unwrap(), SetOutcome::Stored(_)));
        // Whether it was done nobody can tell.
        let error = absent.unwrap_err();
        assert!(matches!(error, ClientError::Closed { .. } | ClientError::BrokenOff { .. }), "{error:?}");
    }
    assert!(client.metrics().retries >= 40, "{:?}", client.metrics());
}

#[tokio::test]
async fn a_get_that_takes_long_is_asked_once_more_by_another_connection() {
    let node = Node::start().await;
    let proxy = Proxy::before(&node.data()).await;
    let client = builder(&proxy.url())
        .connections(NonZeroUsize::new(2).unwrap())
        .keepalive(LONG, LONG)
        .timeout(LONG)
        .hedge_after(Duration::from_millis(20))
        .connect()
        .await
        .unwrap();
    put(&client, "k", "v").await;
    while client.metrics().connections_opened < 2 {
        tokio::task::yield_now().await;
    }
    // Calls gather on one of the connections, and nothing comes by that one in one of these rounds; the health Watch has one too.
    let mut hedges = Vec::new();
    for connection in 0..4 {
        proxy.mute(Some(connection));
        let (begun, before) = (monotonic(), client.metrics().hedges);
        assert_eq!(value(client.get("k").await.unwrap()), "v");
        // Half of the deadline, with which a call that was not hedged fails.
        assert!(begun.elapsed() < LONG / 2, "{:?}", client.metrics());
        hedges.push(client.metrics().hedges - before);
    }
    assert!(hedges.iter().all(|hedges| *hedges <= 1) && hedges.contains(&1), "{hedges:?}");
    proxy.mute(None);
    for _ in 0..100 {
        assert_eq!(value(client.get("k").await.unwrap()), "v");
    }
}

#[tokio::test]
async fn a_node_that_drains_is_a_miss_at_once() {
    let node = Process::start(&["--lame-duck", "3s"]);
    let client = builder(&node.ready.data[0]).connect().await.unwrap();
    put(&client, "k", "v").await;
    node.terminate();
    becomes(&client, Availability::NotServing).await;
    let begun = monotonic();
    assert!(is_out(&client.get("k").await.unwrap()));
    assert!(begun.elapsed() < AT_ONCE);
    let health = client.health().borrow().clone();
    assert!(health.problem.contains("NOT_SERVING"), "{health:?}");
}

#[tokio::test]
async fn where_no_node_is_a_get_misses_or_fails_as_was_asked_for() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = builder(&port.to_string()).build().unwrap();
    assert!(is_out(&client.get("k").await.unwrap()));
    let client = builder(&port.to_string()).on_unavailable(OnUnavailable::Error).build().unwrap();
    let error = client.get("k").await.unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { .. }) && error.is_unavailable(), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
    let error = builder(&port.to_string()).connect().await.unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { .. }), "{error:?}");
    let error = builder(&port.to_string()).timeout(Duration::ZERO).build().unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("is 0"), "{error}");
    let error = client.with_timeout(Duration::ZERO).get("k").await.unwrap_err();
    assert!(error.is_usage(), "{error}");
}

#[tokio::test]
async fn another_service_behind_the_port_is_an_error_and_no_miss() {
    // The health listener speaks gRPC, and serves no Cache.
    let node = Node::start().await;
    let client = builder(&node.health()).build().unwrap();
    let error = client.get("k").await.unwrap_err();
    assert_eq!(error.code_name(), "UNIMPLEMENTED", "{error}");
    // What speaks HTTP/1.
    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = web.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = web.accept().await {
            tokio::spawn(async move {
                let _ = socket.read(&mut [0; 4_096]).await;
                let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
                while socket.read(&mut [0; 4_096]).await.is_ok_and(|count| count > 0) {}
            });
        }
    });
    let client = builder(&at).build().unwrap();
    let error = client.get("k").await.unwrap_err();
    assert!(matches!(error, ClientError::BadAnswer { .. }), "{error:?}");
    assert!(error.to_string().contains("is it a larder node"), "{error}");
}

#[tokio::test]
async fn the_deadline_counts_wherever_the_call_is_and_the_error_says_where() {
    // A listener that takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = silent.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut taken = Vec::new();
        while let Ok((socket, _)) = silent.accept().await {
            taken.push(socket);
        }
    });
    let client = builder(&at).timeout(Duration::from_millis(50)).build().unwrap();
    let begun = monotonic();
    let error = client.get("k").await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { phase: Some(Phase::Connect), .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());

    let node = Node::start().await;
    let proxy = Proxy::before(&node.data()).await;
    // Long enough that keepalive finds nothing out.
    let client = builder(&proxy.url())
        .connections(NonZeroUsize::MIN)
        .keepalive(LONG, LONG)
        .timeout(Duration::from_millis(50))
        .connect()
        .await
        .unwrap();
    proxy.set(Network::BlackHole);
    let error = client.get("k").await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { phase: Some(Phase::Server), .. }), "{error:?}");
    // The connection takes no more: what waits for it waits no longer than its deadline, and is never sent.
    let filler = Bytes::from(vec![b'x'; 60_000]);
    let options = plain();
    let sets = (0..2_000).map(|nth| client.set(format!("filler-{nth}"), filler.clone(), &options));
    let begun = monotonic();
    let outcomes = futures_util::future::join_all(sets).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let queued = |outcome: &Result<SetOutcome, ClientError>| {
        matches!(outcome, Err(ClientError::Timeout { phase: Some(Phase::Queue), .. }))
    };
    assert!(outcomes.iter().filter(|outcome| queued(outcome)).count() > 1_000);
    assert!(queued(outcomes.last().unwrap()));
    proxy.set(Network::Passes);
    put(&client.with_timeout(LONG), "after", "v").await;
    let mut calls = Calls(node.cache().await);
    assert!(calls.get("filler-1999").await.is_err(), "it was sent after its deadline");
}

#[tokio::test]
async fn a_call_that_is_dropped_is_not_sent_and_leaves_nothing_behind() {
    let node = Node::start().await;
    let client = builder(&node.data()).connections(NonZeroUsize::MIN).connect().await.unwrap();
    for round in 0..100 {
        let options = plain();
        let (dropped, kept) = (format!("dropped-{round}"), format!("kept-{round}"));
        {
            // Polled once: it stands in the batch, which nobody has sent yet.
            let mut call = Box::pin(client.set(&dropped, "v", &options));
            assert!(futures_util::poll!(&mut call).is_pending());
        }
        put(&client, &kept, "v").await;
        assert!(client.get(&dropped).await.unwrap().entry().is_none(), "it was sent");
        assert_eq!(value(client.get(&kept).await.unwrap()), "v");
    }
    // Dropped at any point, the next calls have their own answers.
    for round in 0..2_000_u64 {
        let calls = (0..8).map(|nth| client.get(format!("kept-{nth}")));
        let all = futures_util::future::join_all(calls);
        let _ = tokio::time::timeout(Duration::from_micros(round % 300), all).await;
        put(&client, "mine", &round.to_string()).await;
        assert_eq!(value(client.get("mine").await.unwrap()), round.to_string());
    }
}

#[test]
fn a_client_whose_runtime_has_ended_says_so() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let node = second.block_on(Node::start());
    let client = first.block_on(async { builder(&node.data()).connect().await.unwrap() });
    second.block_on(put(&client, "k", "v"));
    drop(first);
    let error = second.block_on(soon(client.get("k"))).unwrap_err();
    assert!(matches!(error, ClientError::Ended { .. }), "{error:?}");
    assert!(error.to_string().contains("runtime"), "{error}");
}

#[tokio::test]
async fn a_value_of_any_length_is_stored_and_read_and_small_limits_are_learned() {
    let node = Node::with(&[
        "--max-batch",
        "10",
        "--max-value",
        "8MiB",
        "--max-message-in",
        "16MiB",
        "--max-message-out",
        "16MiB",
    ])
    .await;
    let client = builder(&node.data()).connect().await.unwrap();
    for length in [0, 1, 16_379, 16_384, 65_536, 65_537, 1 << 20, 5 << 20] {
        let long = Bytes::from(vec![7; length]);
        client.set("k", long.clone(), &plain()).await.unwrap();
        assert!(value(client.get("k").await.unwrap()) == long, "{length}");
    }
    // More commands at once than the node takes in a message: what it refused is sent again in smaller ones.
    let gets = (0..100).map(|nth| client.get(format!("none-{nth}")));
    for outcome in futures_util::future::join_all(gets).await {
        assert!(outcome.unwrap().entry().is_none());
    }
    assert_eq!(client.health().borrow().availability, Availability::Available);
}

#[tokio::test]
async fn a_long_value_comes_by_a_shared_connection_once() {
    let node = Node::start().await;
    let (client, writer) = (builder(&node.data()).timeout(LONG), builder(&node.data()).timeout(LONG));
    let (client, writer) = (client.connect().await.unwrap(), writer.connect().await.unwrap());
    writer.set("k", vec![7; 200_000], &plain()).await.unwrap();
    let commands = || client.metrics().commands;
    assert_eq!(value(client.get("k").await.unwrap()).len(), 200_000);
    assert_eq!(commands(), 1, "nothing was known of it");
    for _ in 0..3 {
        assert_eq!(value(client.get("k").await.unwrap()).len(), 200_000);
    }
    assert_eq!(commands(), 1, "it holds up nobody");
    client.metadata("k").await.unwrap();
    assert_eq!(commands(), 2, "no value comes");
    // What becomes short comes by the shared ones again, once that is known.
    put(&writer, "k", "short").await;
    for (expected, sent) in [("short", 2), ("short", 3)] {
        assert_eq!(value(client.get("k").await.unwrap()), expected);
        assert_eq!(commands(), sent);
    }
    // And the client's own long values are known from when they are written.
    client.set("own", vec![7; 200_000], &plain()).await.unwrap();
    client.get("own").await.unwrap();
    assert_eq!(commands(), 3);
    put(&client, "own", "short").await;
    client.get("own").await.unwrap();
    assert_eq!(commands(), 5);
}

#[tokio::test]
async fn a_key_of_two_namespaces_has_a_length_in_each_and_one_that_is_gone_has_none() {
    let node = Node::start().await;
    let admin = builder(&node.admin_authority()).build_admin().unwrap();
    admin.create_namespace("other", &NamespaceUpdate::default()).await.unwrap();
    let client = builder(&node.data()).timeout(LONG).connect().await.unwrap();
    let (other, commands) = (client.with_namespace("other"), || client.metrics().commands);
    client.set("k", vec![7; 200_000], &plain()).await.unwrap();
    put(&other, "k", "short").await;
    for sent in [2, 3] {
        assert_eq!(value(client.get("k").await.unwrap()).len(), 200_000);
        assert_eq!(value(other.get("k").await.unwrap()), "short");
        assert_eq!(commands(), sent, "the long one by itself, and the short one not");
    }
    client.delete("k", &DeleteOptions::default()).await.unwrap();
    for sent in [4, 5] {
        assert!(client.get("k").await.unwrap().entry().is_none());
        assert_eq!(commands(), sent);
    }
}

#[tokio::test]
async fn a_lazy_client_connects_when_it_is_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = builder(&listener.local_addr().unwrap().to_string()).lazy().build().unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(100), listener.accept()).await.is_err());
    let call = tokio::spawn(async move { client.get("k").await });
    let (mut socket, _) = soon(listener.accept()).await.unwrap();
    let mut preface = [0; 14];
    soon(socket.read_exact(&mut preface)).await.unwrap();
    assert_eq!(&preface, b"PRI * HTTP/2.0");
    call.abort();
}
