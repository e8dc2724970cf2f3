//! An increment with a request id is done once, however often it is asked for: answers are lost on the way, the node is
//! killed and comes back.
//!
//! `LARDER_INCREMENTS` says how many there are (3,000).

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::node::*;
use larder::proto::v1::admin_client::AdminClient;
use larder::proto::v1::cache_client::CacheClient;
use larder::proto::v1::*;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::transport::Endpoint;

const CLIENTS: u64 = 8;
const KILLS_MIN: u64 = 5;
/// One in this number of reads of answers is lost, and its connection with it.
const CUT_ONE_IN: u32 = 40;

/// Stands between clients and a node that moves, and loses answers.
struct Proxy {
    authority: String,
    /// Where the node is; `None`: it is down, and new connections wait.
    node: watch::Sender<Option<String>>,
    /// Connections that were cut when an answer came.
    cuts: Arc<AtomicU64>,
}

impl Proxy {
    async fn start(seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let (node, cuts) = (watch::Sender::new(None), Arc::new(AtomicU64::new(0)));
        let random = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
        let (wanted, counted) = (node.subscribe(), Arc::clone(&cuts));
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let mut wanted: watch::Receiver<Option<String>> = wanted.clone();
                let (random, cuts) = (Arc::clone(&random), Arc::clone(&counted));
                tokio::spawn(async move {
                    let node = wanted.wait_for(Option::is_some).await.unwrap().clone().unwrap();
                    // One that was killed since has nobody at its port; the client asks again.
                    if let Ok(node) = TcpStream::connect(node).await {
                        relay(client, node, &random, &cuts).await;
                    }
                });
            }
        });
        Self { authority, node, cuts }
    }
}

/// Hands everything on in both directions until one end is gone, or an answer is lost.
async fn relay(client: TcpStream, node: TcpStream, random: &Mutex<StdRng>, cuts: &AtomicU64) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_node, mut to_node) = node.into_split();
    let requests = async { tokio::io::copy(&mut from_client, &mut to_node).await.map(drop) };
    let answers = async {
        let mut buffer = vec![0; 16 << 10];
        // What a connection begins with is nobody's answer.
        let mut is_begun = false;
        loop {
            let read = from_node.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            if std::mem::replace(&mut is_begun, true) && random.lock().random_ratio(1, CUT_ONE_IN) {
                cuts.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            to_client.write_all(&buffer[..read]).await?;
        }
    };
    let _: std::io::Result<()> = tokio::select! {
        ended = requests => ended,
        ended = answers => ended,
    };
}

/// What all clients came to.
#[derive(Debug, Default)]
struct Counted {
    answered: watch::Sender<u64>,
    /// Those that had no answer at first.
    retried: AtomicU64,
    next: AtomicU64,
}

/// Increments until there are enough, each until it is answered.
async fn count(authority: String, key: &str, wanted: u64, counted: Arc<Counted>) {
    let channel = Endpoint::from_shared(format!("http://{authority}")).unwrap().connect_lazy();
    let mut cache = CacheClient::new(channel);
    loop {
        let number = counted.next.fetch_add(1, Ordering::Relaxed);
        if number >= wanted {
            return;
        }
        let request = IncrementRequest {
            request_id: format!("request {number}"),
            durability: Durability::Flushed as i32,
            ..increment(key, 1)
        };
        let mut tries = 0;
        while let Err(status) = soon(cache.increment(request.clone())).await {
            // Only what is on the way can go wrong: the node itself has nothing to say against it.
            let said = status.code();
            assert!(!status.message().contains("poisoned"), "{status:?}");
            tries += 1;
            assert!(tries < 1_000, "request {number} is never answered: {said:?}, {status:?}");
        }
        counted.retried.fetch_add(u64::from(tries > 0), Ordering::Relaxed);
        counted.answered.send_modify(|answered| *answered += 1);
    }
}

async fn each_is_done_once(backend: &str) {
    let wanted = std::env::var("LARDER_INCREMENTS").map_or(3_000, |wanted| wanted.parse().unwrap());
    let kills = KILLS_MIN.max(wanted / 5_000);
    let seed: u64 = rand::random();
    println!("seed {seed}, backend {backend}");
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let flags =
        ["--data-dir", data, "--backend", backend, "--memory", "64MiB", "--persistence", "journal+snapshot"];
    let (proxy, counted) = (Proxy::start(random.random()).await, Arc::new(Counted::default()));
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(tokio::spawn(count(proxy.authority.clone(), "n", wanted, Arc::clone(&counted))));
    }
    let mut answered = counted.answered.subscribe();
    for kill in 1..=kills {
        let process = Process::start(&flags);
        proxy.node.send_replace(Some(process.ready.data[0].clone()));
        let share = wanted / (kills + 1);
        // Sooner or later in its share, with a snapshot just before now and then.
        let until = share * (kill - 1) + random.random_range(1..share);
        answered.wait_for(|answered| *answered >= until).await.unwrap();
        if random.random_bool(0.5) {
            let mut admin = AdminClient::new(connect(&process.ready.admin).await);
            admin.create_snapshot(CreateSnapshotRequest {}).await.unwrap();
        }
        let killed = Command::new("kill").args(["-KILL", &process.id().to_string()]).status().unwrap();
        assert!(killed.success());
        proxy.node.send_replace(None);
    }
    let process = Process::start(&flags);
    proxy.node.send_replace(Some(process.ready.data[0].clone()));
    for client in clients {
        client.await.unwrap();
    }
    let mut cache = CacheClient::new(connect(&process.ready.data[0]).await);
    let hit = found(cache.get(get("n")).await.unwrap().into_inner()).unwrap();
    assert_eq!(hit.value, wanted.to_string().as_bytes(), "each was to be done once");
    let (cuts, retried) = (proxy.cuts.load(Ordering::Relaxed), counted.retried.load(Ordering::Relaxed));
    println!("{wanted} increments, {cuts} lost answers, {kills} kills, {retried} asked again");
    assert!(cuts > 10 && retried > 10, "{cuts} lost answers, {retried} asked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_increment_is_done_once_however_often_it_is_asked_for() {
    each_is_done_once("files").await;
}
