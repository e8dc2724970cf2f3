//! What the HTTP listener answers to probes and scrapers: /livez, /readyz, /metrics.
//!
//! It knows nothing of the node but two closures, and takes no bodies. The listener itself, with its limits on
//! connections and time, is one like the others.
//!
//! - `accept`: which format a scraper asks for. `scrapes`: pages of metrics, made elsewhere and shared.

mod accept;
mod scrapes;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY};
use http::{HeaderMap, StatusCode};

use crate::quote::Quote;
use crate::telemetry::Format;
use scrapes::{Encoding, Scrapes};

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
                     /metrics  figures, as Prometheus or OpenMetrics text\n";

/// The paths and what answers them. `ready` is called once per request, on the listener's thread. `metrics` may take
/// long: it is called on another thread, one call at a time, and its answer is shared by the requests of the next 250
/// ms.
pub fn router(
    ready: impl Fn() -> Readiness + Clone + Send + Sync + 'static,
    metrics: impl Fn(Format) -> String + Send + Sync + 'static,
) -> Router {
    let scrapes = Scrapes::new(metrics);
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
        .route("/metrics", get(async move |headers: HeaderMap| scrape(&headers, &scrapes).await))
        .fallback(async |request: Request| {
            let path = Quote::of(request.uri().path());
            (StatusCode::NOT_FOUND, format!("there is no {path} here; there are\n{PATHS}"))
        })
}

/// The format that the scraper likes best, compressed if it takes that.
async fn scrape(headers: &HeaderMap, scrapes: &Scrapes) -> Response {
    let format = accept::format(headers);
    let encoding = if accept::takes_gzip(headers) { Encoding::Gzip } else { Encoding::Identity };
    let Some(page) = scrapes.page(format, encoding).await else {
        let busy = "too many scrapes wait already: try again in a second\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], busy).into_response();
    };
    let head = [(CONTENT_TYPE, format.content_type()), (VARY, "accept, accept-encoding")];
    let encoded = (encoding == Encoding::Gzip).then_some([(CONTENT_ENCODING, "gzip")]);
    match encoded {
        Some(encoded) => (head, encoded, page).into_response(),
        None => (head, page).into_response(),
    }
}

/// A probe's answer is of now.
fn uncached(status: StatusCode, text: String) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], text).into_response()
}

#[cfg(test)]
mod tests;
