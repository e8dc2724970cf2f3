//! The router's answers, asked as hyper asks it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, to_bytes};
use tower::ServiceExt;

use super::*;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

struct Asked {
    ready: Arc<AtomicBool>,
    router: Router,
}

impl Asked {
    fn new() -> Self {
        let ready = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&ready);
        let router = router(
            move || match asked.load(Ordering::Relaxed) {
                true => Readiness::Ready,
                false => Readiness::NotReady("draining"),
            },
            || "larder_hits_total 7\n# EOF\n".to_owned(),
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
    let node = Asked::new();
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
    assert!(missing.text.contains("there is no /admin here"), "{}", missing.text);
    assert_eq!(node.ask("POST", "/livez", "*/*").await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn metrics_have_the_type_that_the_scraper_asks_for() {
    let node = Asked::new();
    let plain = node.ask("GET", "/metrics", "*/*").await;
    assert_eq!(plain.headers[CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    assert!(plain.text.ends_with("larder_hits_total 7\n# EOF\n"), "{}", plain.text);
    let open =
        node.ask("GET", "/metrics", "application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1").await;
    let kind = open.headers[CONTENT_TYPE].to_str().unwrap();
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
}
