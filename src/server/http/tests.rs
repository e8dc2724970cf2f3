//! The HTTP listener over real sockets, as curl and a kubelet use it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

struct Listening {
    address: SocketAddr,
    ready: Arc<AtomicBool>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
}

async fn listen() -> Listening {
    let ready = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&ready);
    let router = router(
        move || match asked.load(Ordering::Relaxed) {
            true => Readiness::Ready,
            false => Readiness::NotReady("draining"),
        },
        || "larder_hits_total 7\n# EOF\n".to_owned(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(serve(listener, router, async move { stopped.await.unwrap_or_default() }));
    Listening { address, ready, stop, served }
}

/// The whole answer to one request.
async fn ask(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{head}\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn every_path_answers_as_it_says() {
    let node = listen().await;
    let live = ask(node.address, "GET /livez HTTP/1.1").await;
    assert!(live.starts_with("HTTP/1.1 200 OK\r\n") && live.ends_with("\r\n\r\nok\n"), "{live}");
    let waiting = ask(node.address, "GET /readyz HTTP/1.1").await;
    assert!(waiting.starts_with("HTTP/1.1 503 ") && waiting.ends_with("\r\n\r\ndraining\n"), "{waiting}");
    node.ready.store(true, Ordering::Relaxed);
    let ready = ask(node.address, "GET /readyz HTTP/1.1").await;
    assert!(ready.starts_with("HTTP/1.1 200 OK\r\n") && ready.contains("cache-control: no-store"), "{ready}");
    let listing = ask(node.address, "GET / HTTP/1.1").await;
    assert!(["/livez", "/readyz", "/metrics"].iter().all(|path| listing.contains(path)), "{listing}");
    let missing = ask(node.address, "GET /admin HTTP/1.1").await;
    assert!(missing.starts_with("HTTP/1.1 404 ") && missing.contains("there is no /admin here"), "{missing}");
    let posted = ask(node.address, "POST /livez HTTP/1.1").await;
    assert!(posted.starts_with("HTTP/1.1 405 "), "{posted}");
}

#[tokio::test]
async fn metrics_have_the_type_that_the_scraper_asks_for() {
    let node = listen().await;
    let plain = ask(node.address, "GET /metrics HTTP/1.1").await;
    assert!(plain.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{plain}");
    assert!(plain.ends_with("larder_hits_total 7\n# EOF\n"), "{plain}");
    let head = "GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1";
    let open = ask(node.address, head).await;
    assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0"), "{open}");
}

#[tokio::test]
async fn stop_closes_idle_connections_and_waits_for_nobody_silent() {
    let node = listen().await;
    let mut idle = TcpStream::connect(node.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: node\r\n\r\n").await.unwrap();
    let mut first = [0; 15];
    idle.read_exact(&mut first).await.unwrap();
    let mut half = TcpStream::connect(node.address).await.unwrap();
    half.write_all(b"GET /liv").await.unwrap();
    node.stop.send(()).unwrap();
    let served = tokio::time::timeout(STOP_GRACE * 3, node.served).await;
    served.expect("it stops within its grace").unwrap().unwrap();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(TcpStream::connect(node.address).await.is_err(), "the listener is closed");
}

#[tokio::test(start_paused = true)]
async fn connection_that_says_nothing_is_closed() {
    let node = listen().await;
    let mut silent = TcpStream::connect(node.address).await.unwrap();
    let mut answer = Vec::new();
    // Time is paused and runs ahead when nothing else can happen, so this takes no time.
    let closed = tokio::time::timeout(HEAD_TIMEOUT * 2, silent.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "it is closed after {HEAD_TIMEOUT:?}");
}
