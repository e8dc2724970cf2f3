//! Blobs outlive the node: it is killed at any moment while clients put, replace and delete them.
//!
//! What was acknowledged is there byte for byte, or stays deleted; what was not may be either, and is never half there.
//! `LARDER_KILLS` says how many kills a backend has to stand (4).

use std::process::Command;
use std::sync::Arc;

use crate::support::kept::cache_of;
use crate::support::node::*;
use crate::support::stored::{Ledger, change, judge};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;

const CLIENTS: u64 = 4;

async fn stands_kills(backend: &str) {
    let kills = std::env::var("LARDER_KILLS").map_or(4, |kills| kills.parse().unwrap());
    let seed: u64 = rand::random();
    println!("seed {seed}, backend {backend}");
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let flags = ["--data-dir", data, "--persistence", "journal+snapshot", "--backend", backend];
    let ledger = Arc::new(Ledger::default());
    for round in 0..=kills {
        let process = Process::start(&[&flags[..], &["--memory", "64MiB"]].concat());
        judge(&mut cache_of(&process).await, &ledger, directory.path()).await;
        if round == kills {
            break;
        }
        let steps = Arc::new(watch::Sender::new(0));
        let mut clients = Vec::new();
        for client in 0..CLIENTS {
            let (cache, ledger, steps) = (cache_of(&process).await, Arc::clone(&ledger), Arc::clone(&steps));
            clients.push(tokio::spawn(change(cache, client, random.random(), ledger, steps)));
        }
        // Messages count too, so that a kill comes in the middle of a blob as well.
        let wanted = random.random_range(10..300);
        soon(steps.subscribe().wait_for(|steps| *steps >= wanted)).await.unwrap();
        let killed = Command::new("kill").args(["-KILL", &process.id().to_string()]).status().unwrap();
        assert!(killed.success());
        for client in clients {
            client.await.unwrap();
        }
    }
    assert!(ledger.count() > 0, "no blob was ever put");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_on_sled_are_whole_or_not_there_when_the_node_is_killed() {
    stands_kills("sled").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_on_files_are_whole_or_not_there_when_the_node_is_killed() {
    stands_kills("files").await;
}
