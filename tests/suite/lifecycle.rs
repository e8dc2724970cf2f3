//! The life of a node: two-step start, drain, signals, and its health all along.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::plain_node::{PlainNode, check, connect, get, soon};
use larder::clock::monotonic;
use larder::endpoint::Endpoint;
use larder::proto::v1::WatchRequest;
use larder::server::health::{ADMIN, ALIVE, PERSISTENCE, READY};
use larder::server::{NodeState, SpawnError, Stop};
use tokio::io::AsyncWriteExt;
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus::{self, NotServing, ServiceUnknown, Serving};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

#[tokio::test]
async fn standby_opens_no_data_listener_until_it_is_told_to_spawn() {
    let node = PlainNode::start(|config| config.standby = true).await;
    assert_eq!(node.life.state(), NodeState::Standby);
    let health = node.node.health_address();
    let line = format!(
        "ready state=standby admin={} health={health} http={}",
        node.node.admin_address(),
        node.node.http_address().authority()
    );
    assert_eq!(node.node.ready_line(), line);
    assert_eq!(check(health, ALIVE).await.unwrap(), Serving);
    assert_eq!(check(health, READY).await.unwrap(), NotServing);

    let addresses = soon(node.life.spawn()).await.unwrap();
    assert_eq!(addresses, node.node.data_addresses());
    assert_eq!(check(health, READY).await.unwrap(), Serving);
    node.client().await.get(get("k")).await.unwrap();
    // Again: the same answer, and no effect.
    assert_eq!(soon(node.life.spawn()).await.unwrap(), addresses);
    assert!(node.node.ready_line().starts_with(&format!("ready state=serving data={} admin=", addresses[0])));
}

#[tokio::test]
async fn several_data_listeners_are_all_named_and_all_serve() {
    let node = PlainNode::start(|config| config.data.push(Endpoint::tcp("localhost", 0))).await;
    let [first, second] = node.node.data_addresses() else { panic!("two") };
    assert!(node.node.ready_line().contains(&format!(" data={first},{second} ")));
    for address in [first, second] {
        assert_eq!(check(address, READY).await.unwrap(), Serving);
    }
}

#[tokio::test]
async fn a_spawn_that_cannot_listen_leaves_the_node_in_standby() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let node = PlainNode::start(|config| {
        config.standby = true;
        config.data.push(Endpoint::tcp("127.0.0.1", port));
    })
    .await;
    let error = soon(node.life.spawn()).await.unwrap_err();
    assert!(matches!(error, SpawnError::Listen(_)));
    let text = error.to_string();
    assert!(text.contains(&format!("tcp://127.0.0.1:{port}")) && text.contains("in use"), "{text}");
    assert_eq!(node.life.state(), NodeState::Standby);
    assert!(node.node.data_addresses().is_empty());

    drop(taken);
    assert_eq!(soon(node.life.spawn()).await.unwrap().len(), 2);
    assert_eq!(node.life.state(), NodeState::Serving);
}

#[tokio::test]
async fn a_drained_node_does_not_spawn() {
    let node = PlainNode::start(|config| config.standby = true).await;
    node.life.drain(None);
    let refused = soon(node.life.spawn()).await.unwrap_err();
    assert!(matches!(refused, SpawnError::Leaving { .. }), "{refused}");
    assert_eq!(soon(node.node.stopped()).await, Stop::Drained);
    assert_eq!(node.life.state(), NodeState::Stopped);
    assert_eq!(node.life.drain(None), NodeState::Stopped);
    let refused = soon(node.life.spawn()).await.unwrap_err();
    assert!(refused.to_string().contains("stopped"), "{refused}");
}

#[tokio::test]
async fn a_node_that_loses_a_part_stops_serving_drains_and_says_why_it_stopped() {
    let node = PlainNode::start(|config| config.lame_duck = Duration::from_secs(2)).await;
    node.life.run_part("a part that ends as it should", || {});
    assert_eq!(check(node.node.health_address(), READY).await.unwrap(), Serving);
    node.life.run_part("a part that does not", || panic!("as the test says"));
    assert_eq!(node.life.state(), NodeState::Draining);
    assert_eq!(check(node.node.health_address(), READY).await.unwrap(), NotServing);
    assert_eq!(soon(node.node.stopped()).await, Stop::Failed);
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline_whatever_hangs() {
    let node = PlainNode::start(|_| {}).await;
    let mut client = node.client().await;
    let mut other = client.clone();
    let hung = tokio::spawn(async move { other.get(get("hang")).await });
    let mut silent = client.watch(WatchRequest::default()).await.unwrap().into_inner();
    let mute = tokio::net::TcpStream::connect(node.data().authority()).await.unwrap();
    node.cache.until_running(2).await;

    assert_eq!(node.life.drain(Some(Duration::from_millis(300))), NodeState::Draining);
    let began = monotonic();
    assert_eq!(soon(node.node.stopped()).await, Stop::Drained);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(3), "{took:?}");
    // The handlers are gone too: nothing runs on behalf of nobody.
    node.cache.until_running(0).await;
    assert_eq!(node.cache.most_running(), 2);
    assert!(soon(hung).await.unwrap().is_err());
    assert!(soon(silent.message()).await.is_err());
    assert_eq!(node.connections.open(), 0);
    drop(mute);
}

#[tokio::test]
async fn a_drain_lets_the_running_call_finish_and_takes_no_new_connection() {
    let node = PlainNode::start(|_| {}).await;
    let mut client = node.client().await;
    let running = tokio::spawn(async move { client.get(get("wait")).await });
    node.cache.until_running(1).await;
    let data = node.data().clone();
    let idle = connect(&data).await;

    node.life.drain(Some(Duration::from_secs(20)));
    let began = monotonic();
    // The listening socket closes when the connections have been told to go away.
    soon(async { while tokio::net::TcpStream::connect(data.authority()).await.is_ok() {} }).await;
    assert_eq!(node.life.state(), NodeState::Draining);
    node.cache.release(1);
    assert!(soon(running).await.unwrap().is_ok());
    assert_eq!(soon(node.node.stopped()).await, Stop::Drained);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "an idle connection held it until {:?}",
        began.elapsed()
    );
    drop(idle);
}

#[tokio::test]
async fn a_lame_duck_answers_and_says_that_it_goes() {
    let node = PlainNode::start(|config| config.lame_duck = Duration::from_secs(600)).await;
    node.life.drain(Some(Duration::from_secs(600)));
    assert_eq!(check(node.data(), READY).await.unwrap(), NotServing);
    assert_eq!(check(node.node.health_address(), ALIVE).await.unwrap(), Serving);
    node.client().await.get(get("k")).await.unwrap();
    assert_eq!(node.life.state(), NodeState::Draining);
    // A second drain can shorten the first.
    node.life.drain(Some(Duration::ZERO));
    assert_eq!(soon(node.node.stopped()).await, Stop::Drained);
}

async fn watch(address: &Endpoint, service: &str) -> Streaming<HealthCheckResponse> {
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(connect(address).await).watch(request).await.unwrap().into_inner()
}

async fn next(watch: &mut Streaming<HealthCheckResponse>) -> Option<ServingStatus> {
    soon(watch.message()).await.unwrap().map(|answer| answer.status())
}

#[tokio::test]
async fn health_watches_tell_of_the_drain_and_do_not_hold_it() {
    let node = PlainNode::start(|_| {}).await;
    let addresses = [node.data(), node.node.admin_address(), node.node.health_address()].map(Endpoint::clone);
    let mut watches = Vec::new();
    for address in &addresses {
        let mut ready = watch(address, READY).await;
        assert_eq!(next(&mut ready).await, Some(Serving));
        watches.push(ready);
    }
    let mut alive = watch(&addresses[2], ALIVE).await;
    assert_eq!(next(&mut alive).await, Some(Serving));

    node.life.drain(Some(Duration::from_secs(20)));
    let began = monotonic();
    assert_eq!(soon(node.node.stopped()).await, Stop::Drained);
    assert!(began.elapsed() < Duration::from_secs(5), "held until {:?}", began.elapsed());
    for watch in &mut watches {
        assert_eq!(next(watch).await, Some(NotServing));
        assert_eq!(next(watch).await, None);
    }
    assert_eq!(next(&mut alive).await, Some(NotServing));
    assert_eq!(next(&mut alive).await, None);
}

#[tokio::test]
async fn health_answers_alike_on_all_three_listeners() {
    let node = PlainNode::start(|_| {}).await;
    for address in [node.data(), node.node.admin_address(), node.node.health_address()] {
        for service in [ALIVE, READY, ADMIN] {
            assert_eq!(check(address, service).await.unwrap(), Serving, "{service} at {address}");
        }
        assert_eq!(check(address, PERSISTENCE).await.unwrap_err().code(), Code::NotFound);
        let mut unknown = watch(address, PERSISTENCE).await;
        assert_eq!(next(&mut unknown).await, Some(ServiceUnknown));
    }
}

/// A node on a runtime of its own whose two workers do nothing but spin.
struct Spinning {
    node: PlainNode,
    stop: Arc<AtomicBool>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Spinning {
    async fn start() -> Self {
        let workers = 2;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap();
        let node = runtime.spawn(PlainNode::start(|_| {})).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (spinning, mut begun) = tokio::sync::mpsc::channel(workers);
        for _ in 0..workers {
            let (stop, spinning) = (Arc::clone(&stop), spinning.clone());
            runtime.spawn(async move {
                spinning.try_send(()).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        for _ in 0..workers {
            soon(begun.recv()).await.unwrap();
        }
        Self { node, stop, runtime: Some(runtime) }
    }
}

impl Drop for Spinning {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[tokio::test]
async fn health_answers_while_every_worker_of_the_data_plane_is_busy() {
    let spinning = Spinning::start().await;
    let health = spinning.node.node.health_address();
    let mut took = Vec::new();
    for _ in 0..21 {
        let began = monotonic();
        assert_eq!(soon(check(health, READY)).await.unwrap(), Serving);
        took.push(began.elapsed());
    }
    took.sort();
    // The median, as this machine may be busy with more than this test.
    assert!(took[10] < Duration::from_millis(100), "{took:?}");
}

#[tokio::test]
async fn a_drain_ends_while_every_worker_of_the_data_plane_is_stuck() {
    let spinning = Spinning::start().await;
    spinning.node.life.drain(Some(Duration::from_millis(100)));
    assert_eq!(soon(spinning.node.node.stopped()).await, Stop::Drained);
}

#[tokio::test]
async fn a_drain_ends_while_the_thread_of_scrapers_is_stuck() {
    let mut node = PlainNode::start(|_| {}).await;
    let mut scraper = tokio::net::TcpStream::connect(node.node.http_address().authority()).await.unwrap();
    scraper.write_all(b"GET /stuck HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    soon(node.stuck.recv()).await.unwrap();
    node.life.drain(None);
    assert_eq!(soon(node.node.stopped()).await, Stop::Drained);
}

#[tokio::test]
async fn the_first_signal_drains_its_echoes_do_nothing_and_the_second_exits_at_once() {
    let node = PlainNode::start(|config| config.signals = true).await;
    let mut client = node.client().await;
    let hung = tokio::spawn(async move { client.get(get("hang")).await });
    node.cache.until_running(1).await;
    let terminate = || {
        let killed = Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status();
        assert!(killed.unwrap().success());
    };
    let mut state = node.life.subscribe();
    let began = monotonic();
    terminate();
    soon(state.wait_for(|state| *state == NodeState::Draining)).await.unwrap();
    let stop = soon(async {
        loop {
            terminate();
            if let Ok(stop) = tokio::time::timeout(Duration::from_millis(10), node.node.stopped()).await {
                break stop;
            }
        }
    });
    assert_eq!(stop.await, Stop::Forced);
    assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
    assert_eq!(node.life.state(), NodeState::Draining);
    assert!(soon(hung).await.unwrap().is_err());
}
