//! A node in somebody else's program: several beside each other, and none that outlives its value.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/node.rs"]
mod node;

use std::sync::Arc;

use node::*;
use tokio::net::TcpStream;

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
