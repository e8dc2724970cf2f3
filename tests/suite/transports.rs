//! What a node serves over TCP it serves over a Unix socket as well; and what is the Unix socket's own.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytes::Bytes;
use larder::client::{BlobOptions, BlobRange, Client, GetOutcome, NodeUrl, SetOptions};
use larder::endpoint::Endpoint;
use larder::proto::v1::admin_client::AdminClient;
use larder::proto::v1::cache_client::CacheClient;
use larder::proto::v1::pipeline_command::Op;
use larder::proto::v1::*;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::node::*;
use crate::support::stream::{Stream, numbered};

/// A node whose three gRPC listeners are of one kind.
struct Stand {
    node: Node,
    _directory: tempfile::TempDir,
}

impl Stand {
    /// One of each kind, with more flags.
    async fn of_each(flags: &[&str]) -> Vec<Self> {
        let mut stands = Vec::new();
        for is_unix in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let url = |name: &str| match is_unix {
                true => format!("unix://{}/{name}", directory.path().display()),
                false => "tcp://127.0.0.1:0".to_owned(),
            };
            let [data, admin, health] = ["data", "admin", "health"].map(url);
            let all = [&["--listen", &data, "--admin", &admin, "--health", &health], flags].concat();
            stands.push(Self { node: Node::with(&all).await, _directory: directory });
        }
        stands
    }

    fn data(&self) -> &Endpoint {
        &self.node.running.node().data_addresses()[0]
    }

    fn url(&self) -> NodeUrl {
        self.data().to_string().parse().unwrap()
    }

    fn client(&self) -> Client {
        Client::builder([self.url()]).build().unwrap()
    }

    async fn calls(&self) -> Calls {
        Calls(CacheClient::new(channel(self.data()).await))
    }
}

async fn channel(at: &Endpoint) -> Channel {
    soon(connected(at)).await.unwrap()
}

#[tokio::test]
async fn every_kind_of_call_is_served_over_every_transport() {
    for stand in Stand::of_each(&[]).await {
        let at = stand.data().to_string();
        let client = stand.client();
        let large = Bytes::from(vec![7; 1 << 20]);
        client.set("large", large.clone(), &SetOptions::default()).await.unwrap();
        let GetOutcome::Hit(hit) = client.get("large").await.unwrap() else { panic!("{at}") };
        assert_eq!(hit.value, large, "{at}");
        assert_eq!(client.batch_get(vec!["large".into(), "none".into()]).await.unwrap().len(), 2);

        let mut stream = Stream::open(&mut stand.calls().await).await;
        stream.send(numbered((0..100).map(|n| Op::Set(set(format!("{n}"), "value"))))).await;
        stream.send(numbered((0..100).map(|n| Op::Get(get(format!("{n}")))))).await;
        stream.half_close();
        let mut replies = 0;
        while let Some(some) = stream.next().await.unwrap() {
            replies += some.len();
        }
        assert_eq!(replies, 200, "{at}");

        let none = client.put_blob_bytes("blob", &BlobOptions::default(), large.clone()).await.unwrap_err();
        assert!(none.to_string().contains("persistence"), "a refusal comes with its words: {none}");
        assert!(client.get_blob("blob", BlobRange::default()).await.is_err());

        let mut admin = AdminClient::new(channel(stand.node.running.node().admin_address()).await);
        let stats = soon(admin.get_stats(GetStatsRequest {})).await.unwrap().into_inner();
        assert!(stats.uptime_ms < 60_000 && stats.node_id == at, "{at}: {stats:?}");
        let config = soon(admin.get_config(GetConfigRequest {})).await.unwrap().into_inner();
        assert!(format!("{config:?}").contains(&at), "the bound URL is shown: {at}");
        let mut health = HealthClient::new(channel(stand.node.running.node().health_address()).await);
        let check = HealthCheckRequest { service: String::new() };
        let serving = soon(health.check(check)).await.unwrap().into_inner().status;
        assert_eq!(serving, ServingStatus::Serving as i32, "{at}");
    }
}

#[tokio::test]
async fn limits_and_drain_hold_over_every_transport() {
    for stand in Stand::of_each(&["--max-connections", "2", "--drain-deadline", "10s"]).await {
        let at = stand.data().to_string();
        let mut first = stand.calls().await;
        let mut second = stand.calls().await;
        soon(second.0.set(set("k", "v"))).await.unwrap();
        let refused = match soon(connected(stand.data())).await {
            Ok(channel) => soon(CacheClient::new(channel).get(get("k"))).await.is_err(),
            Err(_) => true,
        };
        assert!(refused, "a third connection over {at}");

        let mut stream = Stream::open(&mut first).await;
        stand.node.running.node().lifecycle().drain(None);
        let status = soon(async {
            loop {
                match stream.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(status) => break Some(status.code()),
                }
            }
        })
        .await;
        assert_eq!(status, Some(Code::Unavailable), "{at}");
        let path = match stand.data() {
            Endpoint::Unix(path) => Some(path.clone()),
            _ => None,
        };
        soon(stand.node.running.stopped()).await;
        assert!(path.is_none_or(|path| !path.exists()), "{at} stays behind");
    }
}

async fn connected(at: &Endpoint) -> Result<Channel, tonic::transport::Error> {
    let uri = at.to_string().replace("tcp://", "http://");
    tonic::transport::Endpoint::from_shared(uri).unwrap().connect().await
}

/// The program's answer to a client's command at a socket.
fn ask(socket: &str, words: &[&str]) -> (Option<i32>, String, String) {
    let nodes = format!("unix://{socket}");
    let output = larder().args(["--nodes", &nodes]).args(words).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn path(directory: &Path, name: &str) -> String {
    directory.join(name).to_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_program_serves_a_unix_socket_beside_tcp_and_replaces_what_a_killed_one_left() {
    let directory = tempfile::tempdir().unwrap();
    let (data, health) = (path(directory.path(), "larder.sock"), path(directory.path(), "health.sock"));
    let (listen, probed) = (format!("unix://{data}"), format!("unix://{health}"));
    let flags = ["--listen", "tcp://127.0.0.1:0", "--listen", &listen, "--health", &probed];
    let node = Process::start_on(&flags);
    assert_eq!(node.ready.data[1], listen);
    assert_eq!(node.ready.health, probed);
    assert_eq!(std::fs::symlink_metadata(&data).unwrap().mode() & 0o7777, 0o600);

    assert_eq!(ask(&data, &["set", "colour", "green"]).0, Some(0));
    let over_tcp = larder().args(["--nodes", &node.ready.data[0], "get", "colour"]).output().unwrap();
    assert_eq!(over_tcp.stdout, b"green", "both are one node");
    assert_eq!(ask(&health, &["probe"]).0, Some(0));
    for load in [&["bench", "--requests", "100"][..], &["bench", "--requests", "160", "--pipeline", "16"]] {
        let (code, _, stderr) = ask(&data, load);
        assert_eq!(code, Some(0), "{load:?}: {stderr}");
    }

    let (code, _, stderr) = Process::fails_on(&flags);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains(&probed) && stderr.contains("the path is in use"), "{stderr}");
    assert_eq!(ask(&data, &["get", "colour"]).1, "green", "the first has noticed nothing");

    node.signal("KILL");
    node.ended();
    assert!(Path::new(&data).exists(), "nobody could take it away");
    let (code, _, stderr) = ask(&data, &["get", "colour"]);
    assert_ne!(code, Some(0));
    assert!(stderr.contains(&data), "{stderr}");

    let again = Process::start_on(&flags);
    assert_eq!(ask(&data, &["set", "k", "v"]).0, Some(0));
    again.terminate();
    assert!(again.ended().0.success());
    assert!(!Path::new(&data).exists() && !Path::new(&health).exists());
}

#[tokio::test]
async fn what_is_no_socket_is_never_replaced_and_the_error_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let file = path(directory.path(), "precious");
    std::fs::write(&file, "data").unwrap();
    let far = path(directory.path(), "none/larder.sock");
    let long = format!("/{}", "x".repeat(200));
    for (at, exit, words) in [
        (&file, 3, &["no socket", "another path"][..]),
        (&far, 3, &["no directory", "create it"]),
        (&long, 2, &["201 bytes", "103"]),
    ] {
        let url = format!("unix://{at}");
        let (code, _, stderr) = Process::fails_on(&["--listen", &url]);
        assert_eq!(code, Some(exit), "{stderr}");
        assert!(words.iter().all(|word| stderr.contains(word)), "{stderr}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"data");
}
