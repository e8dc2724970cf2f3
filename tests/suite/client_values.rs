//! An application's own types over the client: stored, read, changed in a loop, and loaded once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use larder::client::value::ValueCodec;
use larder::client::{
    Client, ClientError, GetOutcome, LoadError, SetExpiration, SetOptions, SetOutcome, Updated,
};
use serde::{Deserialize, Serialize};

use crate::support::node::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u64,
    lines: Vec<Line>,
    note: Option<String>,
    tags: BTreeMap<String, i32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Line {
    Article { name: String, count: u32 },
    Discount(f64),
    Free,
}

fn order(id: u64) -> Order {
    Order {
        id,
        lines: vec![Line::Article { name: "tea".to_owned(), count: 2 }, Line::Discount(-0.5), Line::Free],
        note: (id % 2 == 0).then(|| "éç".repeat(id as usize)),
        tags: [("a".to_owned(), -1)].into(),
    }
}

fn plain() -> SetOptions {
    SetOptions::default()
}

async fn client(node: &Node) -> Client {
    let builder = Client::builder([node.data().parse().unwrap()]).timeout(LONG);
    builder.near_cache(1 << 20).connect().await.unwrap()
}

#[tokio::test]
async fn a_struct_goes_in_and_comes_out_and_says_what_it_is() {
    let node = Node::start().await;
    let client = client(&node).await;
    for codec in [ValueCodec::json(), ValueCodec::msgpack(), ValueCodec::postcard()] {
        let orders = client.typed::<Order>(codec.clone());
        assert_eq!(orders.get("none").await.unwrap(), None);
        for id in 0..20 {
            let outcome = orders.set(format!("order:{id}"), &order(id), &plain()).await.unwrap();
            assert!(matches!(outcome, SetOutcome::Stored(_)));
            assert_eq!(orders.get(format!("order:{id}")).await.unwrap(), Some(order(id)));
        }
        let GetOutcome::Hit(hit) = client.get("order:1").await.unwrap() else { panic!("a hit") };
        assert_eq!(hit.content_type, codec.content_type());
        // Another format is an error that names both, another schema a miss.
        client
            .set("text", "{}", &SetOptions { content_type: "text/plain".to_owned(), ..plain() })
            .await
            .unwrap();
        let error = orders.get("text").await.unwrap_err();
        assert!(matches!(error, ClientError::Value(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("text/plain") && text.contains(codec.content_type()), "{text}");
        let newer = client.typed::<Order>(codec.with_schema("v2").unwrap());
        assert_eq!(newer.get("order:1").await.unwrap(), None);
    }
}

#[tokio::test]
async fn changes_of_many_at_once_are_all_made() {
    let node = Node::start().await;
    let client = client(&node).await;
    let options = SetOptions { expiration: SetExpiration::After(Duration::from_secs(900)), ..plain() };
    let orders = client.typed::<Order>(ValueCodec::json());
    let adds = (0..40).map(|_| {
        orders.update("shared", &options, |old| {
            let mut new = old.unwrap_or_else(|| Order { lines: Vec::new(), ..order(1) });
            new.lines.push(Line::Free);
            Some(new)
        })
    });
    for outcome in futures_util::future::join_all(adds).await {
        assert!(matches!(outcome.unwrap(), Updated::Stored { .. }));
    }
    let shared = orders.get("shared").await.unwrap().unwrap();
    assert_eq!(shared.lines.len(), 40);
    let unchanged = orders.update("shared", &options, |_| None).await.unwrap();
    assert_eq!(unchanged, Updated::Unchanged(Some(shared)));
    assert_eq!(orders.update("none", &options, |_| None).await.unwrap(), Updated::Unchanged(None));
    let options = plain();
    let doubled = client.update("raw", &options, |old| {
        Some(old.map_or_else(|| Bytes::from("ab"), |old| Bytes::from([&old[..], &old[..]].concat())))
    });
    assert!(matches!(doubled.await.unwrap(), Updated::Stored { value, .. } if value == "ab"));
}

#[test]
fn a_change_that_others_are_always_faster_than_ends_with_its_deadline() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (mine, theirs) = (runtime(), runtime());
    let node = mine.block_on(Node::start());
    let connect = || Client::builder([node.data().parse().unwrap()]).timeout(LONG).connect();
    let (racing, other) = (mine.block_on(connect()).unwrap(), theirs.block_on(connect()).unwrap());
    let racing = racing.with_timeout(Duration::from_millis(200));
    // It is written anew each time before this one's Set is sent.
    let (begin, begun) = std::sync::mpsc::channel();
    let (done, is_done) = std::sync::mpsc::channel();
    let faster = std::thread::spawn(move || {
        while begun.recv().is_ok() {
            theirs.block_on(other.set("k", "theirs", &plain())).unwrap();
            done.send(()).unwrap();
        }
    });
    let options = plain();
    let changed = racing.update("k", &options, |_| {
        begin.send(()).unwrap();
        is_done.recv().unwrap();
        Some(Bytes::from("mine"))
    });
    let error = mine.block_on(changed).unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
    drop(begin);
    faster.join().unwrap();
}

#[tokio::test]
async fn what_many_miss_at_once_is_loaded_once_and_stored() {
    let node = Node::start().await;
    let client = client(&node).await;
    let loads = AtomicUsize::new(0);
    let load = |text: &'static str| {
        let loads = &loads;
        async move {
            loads.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok::<_, std::io::Error>(text)
        }
    };
    let options = plain();
    let all = (0..1_000).map(|_| client.get_or_load("k", &options, load("v")));
    for outcome in futures_util::future::join_all(all).await {
        assert_eq!(outcome.unwrap(), "v");
    }
    assert_eq!(loads.load(Ordering::Relaxed), 1);
    assert_eq!(client.get_or_load("k", &options, load("other")).await.unwrap(), "v");
    assert_eq!(loads.load(Ordering::Relaxed), 1, "it is stored");
    // An error is the caller's own, and nothing of it is kept.
    let fails = async { Err::<Bytes, _>(std::io::Error::other("the database is down")) };
    let error = client.get_or_load("fails", &options, fails).await.unwrap_err();
    assert!(matches!(&error, LoadError::Load(error) if error.to_string().contains("down")), "{error:?}");
    assert_eq!(client.get_or_load("fails", &options, load("well")).await.unwrap(), "well");
    // Typed, also where another version of the program left something.
    let orders = client.typed::<Order>(ValueCodec::json().with_schema("v1").unwrap());
    let newer = client.typed::<Order>(ValueCodec::json().with_schema("v2").unwrap());
    let found = orders.get_or_load("o", &options, async { Ok::<_, std::io::Error>(order(1)) });
    assert_eq!(found.await.unwrap(), order(1));
    let found = newer.get_or_load("o", &options, async { Ok::<_, std::io::Error>(order(2)) });
    assert_eq!(found.await.unwrap(), order(2));
    assert_eq!((newer.get("o").await.unwrap(), orders.get("o").await.unwrap()), (Some(order(2)), None));
}

#[tokio::test]
async fn a_cache_that_is_out_is_one_that_has_nothing_to_who_loads() {
    let client = Client::builder(["127.0.0.1:1".parse().unwrap()]).build().unwrap();
    let found = client.get_or_load("k", &plain(), async { Ok::<_, std::io::Error>("v") }).await;
    assert_eq!(found.unwrap(), "v");
    let error = client.update("k", &plain(), |_| Some(Bytes::new())).await.unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { .. }), "{error:?}");
}
