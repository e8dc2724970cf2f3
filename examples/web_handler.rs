//! A web service with a cached handler: the first request of a page renders it, those after it are answered from the cache.
//!
//! The handler knows nothing of the node's health: where the node is out, a get is a miss at once, the page is rendered,
//! and the service goes on. What cannot be stored is not an error of the request.
//!
//! ```text
//! cargo run --example web_handler                                 (starts a node of its own)
//! cargo run --example web_handler -- --nodes tcp://127.0.0.1:7400 (uses yours)
//! ```

#[path = "support/http.rs"]
mod http;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderName, header};
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use larder::Client;
use larder::client::{SetExpiration, SetOptions};
use support::{Failure, connect};
use tokio::net::TcpListener;

const TTL: Duration = Duration::from_secs(60);
const HTML: &str = "text/html; charset=utf-8";

/// What all requests share.
#[derive(Clone)]
struct Service {
    cache: Client,
    /// How many pages were rendered.
    rendered: Arc<AtomicU32>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (cache, _node) = connect().await?;
    // Short enough that a node in trouble holds no request up for long.
    let cache = cache.with_timeout(Duration::from_millis(100));
    let service = Service { cache, rendered: Arc::default() };
    let rendered = service.rendered.clone();
    let router = Router::new().route("/pages/{name}", get(page)).with_state(service);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move { axum::serve(listener, router).await });

    for name in ["start", "start", "prices", "start"] {
        let (head, body) = http::get(address, &format!("/pages/{name}")).await?;
        let cached = head.lines().find(|line| line.starts_with("x-cache")).unwrap_or("x-cache: none");
        println!("GET /pages/{name}: {cached}, {} B", body.len());
    }
    server.abort();
    let rendered = rendered.load(Ordering::Relaxed);
    println!("{rendered} pages were rendered for 4 requests");
    if rendered <= 2 { Ok(()) } else { Err("a page was rendered that was in the cache".into()) }
}

/// Answers with a page, from the cache where it is there.
async fn page(State(service): State<Service>, Path(name): Path<String>) -> impl IntoResponse {
    let key = format!("example:page:{name}");
    let found = service.cache.get(&key).await.ok().and_then(|outcome| outcome.into_value());
    let (html, cached) = match found {
        Some(html) => (html, "hit"),
        None => {
            let html = render(&service, &name);
            let options = SetOptions {
                expiration: SetExpiration::After(TTL),
                content_type: HTML.to_owned(),
                ..Default::default()
            };
            if let Err(error) = service.cache.set(&key, html.clone(), &options).await {
                eprintln!("{key} is not cached: {error}");
            }
            (html, "miss")
        }
    };
    ([(header::CONTENT_TYPE, HTML), (HeaderName::from_static("x-cache"), cached)], html)
}

/// Stands for a database and a template.
fn render(service: &Service, name: &str) -> Bytes {
    service.rendered.fetch_add(1, Ordering::Relaxed);
    Bytes::from(format!("<h1>{name}</h1>{}", "<p>lorem ipsum</p>".repeat(100)))
}
