//! A node in somebody else's program: several beside each other, and none that outlives its value.

use std::sync::Arc;

use crate::support::node::*;
use larder::server::NodeState;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::test]
async fn a_node_that_is_dropped_leaves_nothing_open_and_nothing_behind() {
    let node = Node::start().await;
    let addresses = [node.data(), node.admin_authority(), node.health(), node.http()];
    let mut calls = Calls(node.cache().await);
    calls.set(set("k", vec![1; 1 << 20])).await.unwrap();
    let cache = Arc::downgrade(node.running.cache());
    drop(node);
    for address in addresses {
        soon(async { while TcpStream::connect(&address).await.is_ok() {} }).await;
    }
    assert!(calls.0.get(get("k")).await.is_err());
    soon(async {
        while cache.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn two_nodes_of_one_program_are_two_caches() {
    let (one, other) = (Node::start().await, Node::start().await);
    let (mut here, mut there) = (Calls(one.cache().await), Calls(other.cache().await));
    here.set(set("k", "here")).await.unwrap();
    assert!(there.get("k").await.is_err());
    there.set(set("k", "there")).await.unwrap();
    assert_eq!(here.value("k").await, "here");
    drop(other);
    assert_eq!(here.value("k").await, "here");
}

#[tokio::test]
async fn signals_of_the_process_are_the_hosts_own() {
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let node = Node::start().await;
    let killed = std::process::Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status();
    assert!(killed.unwrap().success());
    soon(terminate.recv()).await.unwrap();
    // Any other handler of the signal was woken by it as this test was; a round trip later it would have acted.
    let health = http_get(&node.http(), "/readyz").await;
    assert_eq!(health, (200, "ok\n".to_owned()));
    assert_eq!(node.running.node().lifecycle().state(), NodeState::Serving);
}
