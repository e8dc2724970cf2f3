//! What the HTTP listener answers to probes and scrapers: /livez, /readyz, /metrics.
//!
//! It knows nothing of the node but two closures, and takes no bodies. The listener itself, with its limits on
//! connections and time, is one like the others.

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};

use crate::telemetry::metrics;

/// Whether a node is ready to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It serves.
    Ready,
    /// It does not; the name of its state says why.
    NotReady(&'static str),
}

const PATHS: &str = "/livez    200 while the process is alive\n\
                     /readyz   200 while the node serves, else 503 and its state\n\
                     /metrics  figures, as Prometheus and OpenMetrics text\n";

/// The paths and what answers them. `ready` and `metrics` are called once per request, on the listener's thread.
pub fn router(
    ready: impl Fn() -> Readiness + Clone + Send + Sync + 'static,
    metrics: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> Router {
    Router::new()
        .route("/", get(async || PATHS))
        .route("/livez", get(async || uncached(StatusCode::OK, "ok\n".to_owned())))
        .route(
            "/readyz",
            get(async move || match ready() {
                Readiness::Ready => uncached(StatusCode::OK, "ok\n".to_owned()),
                Readiness::NotReady(state) => uncached(StatusCode::SERVICE_UNAVAILABLE, format!("{state}\n")),
            }),
        )
        .route("/metrics", get(async move |headers: HeaderMap| scrape(&headers, metrics())))
        .fallback(async |request: Request| {
            let path = request.uri().path().escape_default().to_string();
            (StatusCode::NOT_FOUND, format!("there is no {path} here; there are\n{PATHS}"))
        })
}

/// Prometheus asks for OpenMetrics by name; a browser or curl is shown plain text, which the same bytes are too.
fn scrape(headers: &HeaderMap, text: String) -> Response {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = if accepted.contains("application/openmetrics-text") {
        metrics::CONTENT_TYPE
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    };
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

/// A probe's answer is of now.
fn uncached(status: StatusCode, text: String) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], text).into_response()
}

#[cfg(test)]
mod tests;
