//! The ring as clients are told of it. A node is alone in its own.

use std::time::Duration;

use larder::client::{Client, ClientError, ClusterMemberState};
use larder::proto::v1::DrainRequest;
use tonic::Code;

use crate::support::node::*;
use crate::support::outside::said;

fn client(node: &Node) -> Client {
    Client::builder([node.data().parse().unwrap()]).timeout(LONG).build().unwrap()
}

/// What the program prints of the node's ring.
async fn larder(node: &Node, args: &[&str]) -> String {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_larder"));
    let output = command.args(args).args(["--nodes", &node.data()]).env_clear().output().await.unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn a_node_alone_owns_every_key_under_its_own_id() {
    let node = Node::with(&["--weight", "7", "--zone", "cellar"]).await;
    let ring = client(&node).ring().await.unwrap();
    assert_eq!((ring.epoch, ring.points_per_weight()), (0, 4_000), "there is no order of rings");
    let [member] = &ring.members[..] else { panic!("{ring:?}") };
    let url = format!("tcp://{}", node.data());
    assert_eq!((&member.id, &member.addresses), (&url, &vec![url.clone()]));
    assert_eq!(
        (member.state, member.weight, member.zone.as_str()),
        (ClusterMemberState::Serving, 7, "cellar")
    );
    assert_ne!(member.incarnation, 0);
    assert_eq!(ring.owner("", b"any").id, url);
    assert_eq!(ring.ring_hash_sizes, None, "it has more points than a stock client makes");
    // Of the same incarnation as elsewhere, and another node has another ring.
    let stats =
        node.admin().await.get_stats(larder::proto::v1::GetStatsRequest {}).await.unwrap().into_inner();
    assert_eq!(stats.incarnation, member.incarnation);
    let other =
        Node::with(&["--node-id", "larder-1", "--listen", "tcp://127.0.0.1:0", "--listen", "tcp://[::1]:0"])
            .await;
    let others = client(&other).ring().await.unwrap();
    assert_eq!((others.members[0].id.as_str(), others.members[0].addresses.len()), ("larder-1", 2));
    assert_ne!(others.digest(), ring.digest());
    // What stands for every address of a machine is none to connect to.
    let every = Node::with(&[
        "--listen",
        "tcp://0.0.0.0:0",
        "--insecure",
        "--advertise",
        "tcp://larder.example:7400",
    ])
    .await;
    let port = every.data().rsplit_once(':').unwrap().1.to_owned();
    let reached =
        Client::builder([format!("tcp://127.0.0.1:{port}").parse().unwrap()]).timeout(LONG).build().unwrap();
    assert_eq!(reached.ring().await.unwrap().members[0].addresses, ["tcp://larder.example:7400"]);
}

#[tokio::test]
async fn a_watched_ring_comes_at_once_and_its_stream_ends_when_the_node_drains() {
    let node = Node::start().await;
    let client = client(&node);
    let mut watched = client.watch_ring().await.unwrap();
    let first = soon(watched.next()).await.unwrap().unwrap();
    assert_eq!(first.digest(), client.ring().await.unwrap().digest());
    let nothing = tokio::time::timeout(Duration::from_millis(100), watched.next()).await;
    assert!(nothing.is_err(), "it does not change: {nothing:?}");
    node.admin().await.drain(DrainRequest::default()).await.unwrap();
    match soon(watched.next()).await.unwrap_err() {
        ClientError::Status(refusal) => {
            assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unavailable, "NOT_READY"));
        }
        // The connection may be closed before the stream's end is read.
        other => assert!(other.is_unavailable(), "{other}"),
    }
}

#[tokio::test]
async fn the_ring_is_printed_for_people_and_scripts() {
    let node = Node::with(&["--node-id", "one two"]).await;
    let text = larder(&node, &["ring"]).await;
    assert!(text.starts_with("epoch 0\ndigest "), "{text}");
    assert!(text.contains("member.\"one two\".share 1.000000\n"), "{text}");
    let owners = larder(&node, &["ring", "a", "b\tc"]).await;
    assert_eq!(owners, "a\tone two\nb\\x09c\tone two\n");
    let json = self::json(&larder(&node, &["ring", "--output", "json"]).await);
    assert_eq!(
        (&json["members"][0]["node_id"], &json["members"][0]["share"]),
        (&"one two".into(), &1.0.into())
    );
    assert_eq!(json["ring_hash_min_size"], serde_json::Value::Null);
    let json = self::json(&larder(&node, &["ring", "a", "--output", "json"]).await);
    assert_eq!((&json["keys"][0]["owner"], &json["epoch"]), (&"one two".into(), &"0".into()));
}
