//! The router's answers, asked as hyper asks it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, to_bytes};
use http::header::ACCEPT;
use tower::ServiceExt;

use super::*;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

struct HttpNode {
    ready: Arc<AtomicBool>,
    router: Router,
}

impl HttpNode {
    fn new() -> Self {
        let ready = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&ready);
        let router = router(
            move || match asked.load(Ordering::Relaxed) {
                true => Readiness::Ready,
                false => Readiness::NotReady("draining"),
            },
            |format| format!("{format:?} 7\n").repeat(100),
        );
        Self { ready, router }
    }

    async fn ask(&self, method: &str, path: &str, accept: &str) -> Answer {
        let request = Request::builder().method(method).uri(path).header(ACCEPT, accept);
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let text = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
        Answer { status: head.status, headers: head.headers, text }
    }
}

#[tokio::test]
async fn every_path_answers_as_it_says() {
    let node = HttpNode::new();
    let live = node.ask("GET", "/livez", "*/*").await;
    assert_eq!((live.status, &*live.text), (StatusCode::OK, "ok\n"));
    let waiting = node.ask("GET", "/readyz", "*/*").await;
    assert_eq!((waiting.status, &*waiting.text), (StatusCode::SERVICE_UNAVAILABLE, "draining\n"));
    node.ready.store(true, Ordering::Relaxed);
    let ready = node.ask("GET", "/readyz", "*/*").await;
    assert_eq!(ready.status, StatusCode::OK);
    assert_eq!(ready.headers[CACHE_CONTROL], "no-store");
    let listing = node.ask("GET", "/", "*/*").await.text;
    assert!(["/livez", "/readyz", "/metrics"].iter().all(|path| listing.contains(path)), "{listing}");
    let missing = node.ask("GET", "/admin", "*/*").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert!(missing.text.contains("there is no \"/admin\" here"), "{}", missing.text);
    assert_eq!(node.ask("POST", "/livez", "*/*").await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn metrics_have_the_format_and_the_encoding_that_the_scraper_asks_for() {
    let node = HttpNode::new();
    let plain = node.ask("GET", "/metrics", "*/*").await;
    assert_eq!(plain.headers[CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    assert!(plain.text.starts_with("Prometheus 7\n"), "{}", plain.text);
    let open =
        node.ask("GET", "/metrics", "application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1").await;
    assert_eq!(open.headers[CONTENT_TYPE], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.text.starts_with("OpenMetrics 7\n") && !open.headers.contains_key(CONTENT_ENCODING));
    let request = Request::builder().uri("/metrics").header("accept-encoding", "gzip");
    let response = node.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    assert!(body.len() < plain.text.len() / 10);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&*body), &mut text).unwrap();
    assert_eq!(text, plain.text);
}

#[tokio::test]
async fn a_scrape_that_takes_long_holds_up_no_probe() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let (gone, made) = (parking_lot::Mutex::new(gone), Arc::new(AtomicBool::new(false)));
    let is_made = Arc::clone(&made);
    let metrics = move |_| {
        // Where it is made on the only thread of the runtime, it takes this long instead of for ever.
        let _ = gone.lock().recv_timeout(std::time::Duration::from_secs(5));
        is_made.store(true, Ordering::Relaxed);
        "page\n".to_owned()
    };
    let router = router(|| Readiness::Ready, metrics);
    let ask = |path: &str| {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        tokio::spawn(router.clone().oneshot(request))
    };
    let scrapes: Vec<_> = (0..8).map(|_| ask("/metrics")).collect();
    for path in ["/livez", "/readyz"].repeat(20) {
        assert_eq!(ask(path).await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert!(!made.load(Ordering::Relaxed), "the probes were answered first");
    drop(go);
    for scrape in scrapes {
        assert_eq!(scrape.await.unwrap().unwrap().status(), StatusCode::OK);
    }
}
